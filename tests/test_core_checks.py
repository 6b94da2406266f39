"Checks of arguments at their edges, and the words of the errors that every room raises"
import re
from pathlib import Path
import numpy as np, pandas as pd, pytest, torch
from fastcf.core import (SIDES, ArgumentError, RatingsError, UnknownIdError, _kind_of, check_choice, check_columns, check_count, check_id, check_range, check_shape,
    check_share, check_side, check_types, id_repr, listed, other_side, short_repr)
from fastcf.data.vocab import Vocab

def plain_id(o): return re.sub(r' at 0x\w+', '', repr(o)) # two processes must call a test the same

def said(f, *args, error=ValueError):
    with pytest.raises(error) as e: f(*args)
    return str(e.value)

# --- how things are written

@pytest.mark.parametrize('o,text', [(np.int64(3), '3'), ((np.float64(1.5), [np.str_('a')]), "(1.5, ['a'])"), ('u1', "'u1'"), ({np.int8(1): 2}, None), (None, 'None')])
def test_ids_are_written_as_typed(o, text): assert id_repr(o) == (text or repr(o))

@pytest.mark.parametrize('n,cut', [(58, False), (59, True), (200, True)]) # with its quotes, 60 characters
def test_long_things_are_cut(n, cut):
    text = short_repr('x' * n)
    assert text == (repr('x' * n) if not cut else repr('x' * n)[:57] + '...') and len(text) <= 60

@pytest.mark.parametrize('o,text', [(pd.DataFrame(dict(a=[1])), 'DataFrame of shape (1, 1)'), (pd.Series([1, 2]), 'Series of shape (2,)'), (torch.zeros(2, 3), 'Tensor of shape (2, 3)'), (np.zeros(0), 'ndarray of shape (0,)')])
def test_large_things_are_written_by_shape(o, text): assert short_repr(o) == text

def test_faults_in_one_message():
    fault = lambda rows, count, **kw: dict(column="'user'", fault='odd', count=count, rows=rows, fix='Mend it', **kw)
    assert str(RatingsError([fault([3], 1)])) == "1 fault in these ratings:\n- 'user': odd (row 3). Mend it."
    assert str(RatingsError([fault([3, 'a'], 2), fault([], 0)])) == "2 faults in these ratings:\n- 'user': odd (rows 3, 'a'). Mend it.\n- 'user': odd. Mend it."
    assert '(rows 1, 2, ...)' in str(RatingsError([fault([1, 2], 3)])) and list(RatingsError([fault([1], 1)]).faults.columns) == ['column', 'fault', 'count', 'rows', 'fix']

@pytest.mark.parametrize('n,words', [(1, 'user: 1 unknown id: 0. Why'), (2, 'user: 2 unknown ids: 0, 1. Why'), (5, 'user: 5 unknown ids: 0, 1, 2, 3, 4. Why'), (6, 'user: 6 unknown ids: 0, 1, 2, 3, 4, .... Why')])
def test_unknown_ids_in_one_message(n, words):
    e = UnknownIdError('user', np.arange(n), 'Why')
    assert str(e) == words and e.ids == [*range(n)] and e.name == 'user'

# --- edges

@pytest.mark.parametrize('check,good,bad', [
    (check_count, [1, 2**40, np.int8(1)], [0, -1, 1., '1', None]), (check_share, [.5, 1e-9, 1 - 1e-9, np.float32(.5)], [0, 1, 0., 1., -.1, 1.1, '.5', None, float('nan')]),
    (check_id, [1, 'a', (1, 2), None, frozenset()], [[1], {}, torch.tensor(1), int, {1}])])
def test_just_within_and_just_beyond(check, good, bad):
    for o in good: assert check('name', o) is o
    for o in bad: assert said(check, 'name', o).startswith('name: expected ')

def test_ranges():
    assert check_range('r', None) is None and check_range('r', ['1', 2]) == (1., 2.) and check_range('r', np.array([0, 1e-9])) == (0., 1e-9)
    for o in ((1, 1), (2, 1), (1, np.inf), (-np.inf, 1), (np.nan, 1)): assert 'two finite numbers, the lower first' in said(check_range, 'r', o)
    for o in ((1,), (1, 2, 3), 5, 'ab', (None, 1), ('x', 1)): assert 'expected a pair such as (1, 5)' in said(check_range, 'r', o)

def test_choices_and_sides():
    assert check_choice('c', 'b', ('a', 'b', 'd')) == 'b' and said(check_choice, 'c', 'x', ('a', 'b', 'd')) == "c: expected 'a', 'b' or 'd', got 'x'"
    for o in (None, ['a'], 1): assert 'c: expected' in said(check_choice, 'c', o, ('a', 1))
    assert [check_side(o) for o in SIDES] == list(SIDES) and [other_side(o) for o in SIDES] == ['item', 'user'] and "side: expected 'user' or 'item'" in said(other_side, 'film')

def test_columns():
    df = pd.DataFrame([[1, 2, 3]], columns=['a', 'b', 'b'])
    assert check_columns('df', df, 'a') is df and check_columns('df', df) is df
    assert said(check_columns, 'df', df, 'a', 'b') == "df: expected one column 'b', there are 'a', 'b', 'b'"
    assert said(check_columns, 'df', df, 'c') == "df: expected a column 'c', there are 'a', 'b', 'b'" and said(check_columns, 'df', df[[]], 'c').endswith('there are none')

def test_shapes():
    t = torch.zeros(2, 3)
    for sizes in ((2, 3), (None, 3), (2, None), (None, None)): assert check_shape('t', t, *sizes) is t
    for sizes in ((3, 3), (2, 2), (None, 2), (2,), (2, 3, None), ()): assert f"t: expected a tensor of shape ({', '.join('any' if o is None else str(o) for o in sizes)}), got Tensor of shape (2, 3)" == said(check_shape, 't', t, *sizes)

def test_ids_in_lists():
    for one in (3, 'a', None, np.int64(2), pd.Timestamp('2020')): assert listed(one) == [one]
    for many in ([1, 'a'], (1, 'a'), pd.Series([1, 'a']), pd.Index([1, 'a']), np.array([1, 'a'], dtype=object), iter([1, 'a'])): assert listed(many) == [1, 'a']
    assert listed(torch.tensor([1, 2])) == [1, 2] and listed(torch.tensor(1)) == [1] and listed([]) == [] and listed([('a', 1)]) == [('a', 1)]
    for bad in (np.zeros((2, 2)), {1: 2}, {1, 2}, frozenset([1]), int, object()): assert 'us: expected an id, or a list' in said(listed, bad, 'us', error=ArgumentError)
    for bad in ([[1], 2], [2, {}], [{1}]): assert 'us: expected ids, numbers or texts' in said(listed, bad, 'us', error=ArgumentError)

# --- by annotations

@check_types
def f(whole:int=1, number:float=1., yes:bool=True, text:str='a', d:dict={}, t:tuple=(1,), path:Path='x', df:pd.DataFrame=pd.DataFrame(), x:torch.Tensor=torch.zeros(1), v:Vocab=Vocab([1], 'n'), seed:int=0, ax=None,
      either:str|int='a', a_name:str='c', maybe:int=None, or_none:int|None=3, any_thing:list=None, *rest:int, only:int=1, **more:int): return 'called'

class Figure:
    def get_figure(self): pass
class Frame:
    def __dataframe__(self): pass
class Arrow:
    def __arrow_c_stream__(self): pass

PASS = dict(whole=[0, -5, np.int8(3), 2**31 - 1, -2**31 + 1], number=[1, .5, np.float32(2), float('inf')], yes=[False, np.bool_(True), 0, 1, 1.], text=['', 'a'], d=[{}, {'a': 1}], t=[(), [1], np.zeros(2)], path=[Path('a'), 'a'],
            df=[Frame(), Arrow()], x=[torch.zeros(0)], v=[Vocab([2], 'm')], seed=[0, 2**63, 2**64 - 1, np.int64(1)], ax=[None, Figure()], either=['b', 2], a_name=['a', 1, None, ('a')], maybe=[None, 1], or_none=[None, 1], any_thing=[3, [], {}], only=[2], more=['anything'])
FAIL = dict(whole=[True, 1., '1', None, 2**31, -2**31], number=[True, '1', float('nan'), None], yes=[2, 'yes', None, .5], text=[1, None, b'a'], d=[[], None], t=['ab', None, {1}], path=[1, None, b'a'], df=[[1], Frame, None], x=[[1], np.zeros(1)], v=[[1], Vocab],
            seed=[-1, 2**64, True, 1.], ax=[1, 'a'], either=[1.5, None], a_name=[['a'], torch.tensor(1)], maybe=['a', 1.5], or_none=['a'], only=[None, 'x'])

@pytest.mark.parametrize('name,value', [(k, o) for k,v in PASS.items() for o in v], ids=plain_id)
def test_what_fits_is_let_through(name, value): assert f(**{name: value}) == 'called'

@pytest.mark.parametrize('name,value', [(k, o) for k,v in FAIL.items() for o in v], ids=plain_id)
def test_what_does_not_fit_is_named(name, value):
    got = said(lambda: f(**{name: value}), error=ArgumentError)
    assert got.startswith(f'{name}: expected ') and got.endswith(f'got {short_repr(value)}')
    assert (' below 2**31' in got) == (name == 'whole' and type(value) is int)

def test_words_for_kinds():
    assert said(lambda: f(either=1.5)).startswith('either: expected a text or a whole number, got') and said(lambda: f(v=3)).startswith('v: expected a Vocab, got') and said(lambda: f(ax=3)).startswith('ax: expected matplotlib axes')
    assert said(lambda: f(1.5)).startswith('whole: expected a whole number, got 1.5') and said(lambda: f(1, 'x')).startswith('number: ') and f(1, 2., True) == 'called'
    assert _kind_of(type('Adam', (), dict(__module__='torch.optim')))[0] == 'an Adam' and _kind_of(type('Net', (), dict(__module__='torch.nn')))[0] == 'a Net' and _kind_of(type('X', (), dict(__module__='numpy'))) is None
    assert _kind_of(list) is None and _kind_of(dict[str, int])[0] == 'a dict'

def test_methods_are_checked_but_for_self():
    class C:
        @check_types
        def m(self:int, k:int=1): return k
        @classmethod
        @check_types
        def c(cls:int, k:int=1): return k
    assert (C().m(2), C.c(3)) == (2, 3)
    assert 'k: expected' in said(lambda: C().m('x')) and 'k: expected' in said(lambda: C.c(k='x'))
