"Files as people have them: one look says the whole call, and the call works"
import re
import pandas as pd, pytest
from hypothesis import given, settings, strategies as st
from fastcf.data.files import guess_read_kwargs, whole_call
from fastcf.data.loaders import CFDataLoaders

ROWS = [(f'u{j % 7}', j * 37 % 11, j % 5 + 1 + .5 * (j % 2), 881250949 + j) for j in range(40)]

def text(sep=',', header=True, junk=(), decimal='.', index=False):
    lines = [sep.join([*([''] if index else []), 'user', 'item', 'rating', 'timestamp'])] if header else []
    for j,(u,i,r,t) in enumerate(ROWS): lines.append(sep.join([*([str(j)] if index else []), u, str(i), str(r).replace('.', decimal), str(t)]))
    return '\n'.join([*junk, *lines]) + '\n'

@pytest.mark.parametrize('sep,decimal', [(',', '.'), ('\t', '.'), ('\t', ','), (';', ','), (';', '.'), ('|', '.'), ('::', '.')])
@pytest.mark.parametrize('header', [True, False])
@pytest.mark.parametrize('junk', [(), ('# exported by us',), ('Ratings of May, June, July', 'all accounts'), ('Film club', '', '# two')])
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'cp1252'])
def test_one_look_says_how_to_read_it(tmp_path, sep, decimal, header, junk, encoding):
    (tmp_path/'r.csv').write_bytes(text(sep, header, junk, decimal).replace('u3', 'ü3').encode(encoding))
    df = pd.read_csv(tmp_path/'r.csv', **guess_read_kwargs(tmp_path/'r.csv'))
    assert list(df) == ['user', 'item', 'rating', 'timestamp'] and df.rating.tolist() == [r for _,_,r,_ in ROWS] and df.user.tolist() == [u.replace('u3', 'ü3') for u,*_ in ROWS]

def test_spaces_separate_only_where_nothing_else_does(tmp_path):
    (tmp_path/'r.csv').write_text('Film club 1998,,\nfilm,stars,who\n,,\n' + ''.join(f'F-{j % 9},{j % 5 + 1},  u{j}\n' for j in range(40)))
    assert guess_read_kwargs(tmp_path/'r.csv') == dict(skiprows=1)
    (tmp_path/'r.csv').write_text(text(' '))
    assert guess_read_kwargs(tmp_path/'r.csv') == dict(sep=' ')

def test_a_plain_file_needs_nothing(tmp_path):
    (tmp_path/'r.csv').write_text(text())
    assert guess_read_kwargs(tmp_path/'r.csv') == {} and whole_call(tmp_path/'r.csv') == '' and len(CFDataLoaders.from_csv(tmp_path/'r.csv', duplicates='last').train_ds) > 0

@pytest.mark.parametrize('kwargs', [dict(sep='\t', junk=('# by us', '# of May')), dict(sep='\t', header=False), dict(sep=';', decimal=',', junk=('by us',)), dict(header=False), dict(sep='::', header=False), dict(index=True, junk=('a', 'b'))])
def test_the_error_holds_a_call_that_works(tmp_path, kwargs):
    "One try, not four"
    (tmp_path/'r.csv').write_text(text(**kwargs))
    with pytest.raises(ValueError) as e: CFDataLoaders.from_csv(tmp_path/'r.csv')
    call = re.search(r"By its first lines: (CFDataLoaders\.from_csv\(.*\))", str(e.value))[1]
    dls = eval(call[:-1] + ", duplicates='last')", dict(CFDataLoaders=CFDataLoaders, dict=dict))
    assert dls.catalog.rating_name == 'rating' and set(dls.classes['user']) == {f'u{j}' for j in range(7)}

@settings(deadline=None)
@given(st.binary(max_size=300) | st.text(alphabet='ab1,;\t|\n" .5', max_size=200).map(str.encode))
def test_any_bytes_are_looked_at_without_a_fault(tmp_path_factory, data):
    path = tmp_path_factory.mktemp('any')/'x.csv'
    path.write_bytes(data)
    assert isinstance(guess_read_kwargs(path), dict) and isinstance(whole_call(path), str)

def test_what_is_no_file_here_is_not_looked_at():
    assert whole_call('https://example.org/r.csv') == whole_call('nowhere.csv') == whole_call(None) == ''

@pytest.mark.parametrize('kwargs', [dict(sep='\t', junk=('# by us', '# of May')), dict(sep=';', decimal=',', junk=('by us',)), dict(header=False)])
def test_what_pandas_needs_may_stand_beside_our_own_arguments(tmp_path, kwargs):
    (tmp_path/'r.csv').write_text(text(**kwargs))
    found = guess_read_kwargs(tmp_path/'r.csv')
    dls = CFDataLoaders.from_csv(tmp_path/'r.csv', **found, duplicates='last', bs=8)
    assert dls.train.bs == 8 and set(dls.classes['user']) == {f'u{j}' for j in range(7)}
    first = dict([next(iter(found.items()))])
    assert len(CFDataLoaders.from_csv(tmp_path/'r.csv', read_kwargs=first, **{k: v for k,v in found.items() if k not in first}, duplicates='last').train_ds) == len(dls.train_ds)

@pytest.mark.parametrize('content,read', [('', {}), ('\n\n', {}), ('a,b,c\n', dict(skiprows=5))])
def test_a_file_without_a_table_is_named(tmp_path, content, read):
    (tmp_path/'r.csv').write_text(content)
    with pytest.raises(ValueError, match='r.csv holds no table'): CFDataLoaders.from_csv(tmp_path/'r.csv', **read)
