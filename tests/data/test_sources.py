"Downloads that fail, archives that lie, folders of either kind; what MovieLens 100K holds"
import hashlib, os, pickle, re, shutil, signal, subprocess, sys, threading, time, zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
import numpy as np, pandas as pd, pytest
from fastcf.data import sources
from fastcf.data.sources import DownloadError, download_checked, load_ml100k, sha256_of

BODY = np.random.default_rng(0).bytes(300_000)
SHA = hashlib.sha256(BODY).hexdigest()

ELSEWHERE = dict(file='file:///etc/passwd', data='data:text/plain,x', ftp='ftp://127.0.0.1:9/x', itself='/moved-to-itself', nothing='', odd='http://[', spaces='http://127.0.0.1:9/a b\t', local='javascript:alert(1)')
RAW = {'garbage': b'\x00\x01 this is not HTTP\r\n\r\n', 'long-line': b'HTTP/1.1 200 ' + b'x' * 10**6, 'no-answer': b'', 'length-of-words': b'HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nabc', 'length-below-zero': b'HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nabc',
       'chunks': b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n', 'cut-chunks': b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc', 'many-headers': b'HTTP/1.1 200 OK\r\n' + b'A: b\r\n' * 500 + b'\r\n'}

class Handler(BaseHTTPRequestHandler):
    "Serves BODY, well or badly, by the path; `/file/...` serves what a test put into `files`"
    files, asked = {}, []
    def log_message(self, *args): pass
    def do_GET(self):
        kind = self.path.strip('/')
        self.asked.append(kind)
        if kind == 'missing': return self.send_error(404)
        if kind == 'silent': return time.sleep(2)
        if kind == 'moved': self.send_response(302); self.send_header('Location', '/fine'); return self.end_headers()
        if kind.startswith('moved-to-'): self.send_response(302); self.send_header('Location', ELSEWHERE[kind[9:]]); return self.end_headers()
        if kind in RAW: return self.wfile.write(RAW[kind])
        body = self.files.get(kind, BODY)
        self.send_response(200)
        if kind not in ('lengthless', 'lengthless-broken-off', 'too-long'): self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        if kind == 'empty': return
        if kind == 'altered': return self.wfile.write(body[:-1] + bytes([body[-1] ^ 1]))
        if kind == 'too-long': return self.wfile.write(body + b'x')
        if kind == 'lengthless-broken-off': return self.wfile.write(body[:100_000])
        if kind == 'broken-off': return self.wfile.write(body[:100_000])
        if kind == 'hangs': self.wfile.write(body[:100_000]); self.wfile.flush(); time.sleep(3); return
        if kind == 'slow':
            for i in range(0, len(body), 10_000): self.wfile.write(body[i:i+10_000]); self.wfile.flush(); time.sleep(.2)
            return
        self.wfile.write(body)

@pytest.fixture(scope='module')
def server():
    s = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    s.daemon_threads = True
    threading.Thread(target=s.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{s.server_port}'
    s.shutdown()

@pytest.mark.parametrize('kind', ['fine', 'lengthless', 'moved'])
def test_download(server, tmp_path, kind):
    dest = tmp_path/'new'/'folder'/'x.zip'
    assert download_checked(f'{server}/{kind}', dest, SHA) == dest and dest.read_bytes() == BODY
    assert os.listdir(dest.parent) == ['x.zip']

@pytest.mark.parametrize('kind,sha,words', [('fine', '0' * 64, 'expected 000'), ('broken-off', SHA, 'SHA-256|bytes'), ('missing', SHA, '404'), ('hangs', SHA, 'timed out'), ('silent', SHA, 'timed out'),
                                            ('empty', SHA, 'SHA-256|bytes'), ('altered', SHA, 'damaged'), ('too-long', SHA, 'damaged'), ('lengthless-broken-off', SHA, 'damaged')])
def test_a_bad_download_leaves_nothing(server, tmp_path, kind, sha, words):
    with pytest.raises(DownloadError, match=words): download_checked(f'{server}/{kind}', tmp_path/'x', sha, timeout=.5)
    assert os.listdir(tmp_path) == []

@pytest.mark.parametrize('kind', [*(f'moved-to-{k}' for k in ELSEWHERE), *RAW])
def test_odd_answers_are_one_error(server, tmp_path, kind):
    with pytest.raises(DownloadError, match=re.escape(f'{server}/{kind}: ')): download_checked(f'{server}/{kind}', tmp_path/'x', SHA, timeout=1)
    assert os.listdir(tmp_path) == []

@pytest.mark.parametrize('url', ['file:///etc/passwd', 'FILE:///etc/passwd', '/etc/passwd', '', 'data:,x', 'ftp://127.0.0.1/x', 'http://', 'http://[', 'http:// /'])
def test_only_the_network_is_fetched_from(tmp_path, url):
    with pytest.raises(DownloadError): download_checked(url, tmp_path/'x', SHA, timeout=1)
    assert os.listdir(tmp_path) == []

def test_a_place_that_cannot_be_written_to(server, tmp_path):
    (tmp_path/'file').write_text('x')
    with pytest.raises(DownloadError, match='file'): download_checked(f'{server}/fine', tmp_path/'file'/'x', SHA)

@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='/dev/full stands for a disk without room')
def test_a_full_disk_leaves_nothing(server, tmp_path, monkeypatch):
    def on_a_full_disk(**kwargs):
        os.close(open_fd(**kwargs)[0])
        return os.open('/dev/full', os.O_WRONLY),str(next(tmp_path.glob('*.part')))
    open_fd = sources.tempfile.mkstemp
    monkeypatch.setattr(sources.tempfile, 'mkstemp', on_a_full_disk)
    with pytest.raises(DownloadError, match='No space left'): download_checked(f'{server}/fine', tmp_path/'x', SHA)
    assert os.listdir(tmp_path) == []

def test_two_processes_at_once(server, tmp_path):
    children = []
    for _ in range(3):
        if not (pid := os.fork()):
            try: download_checked(f'{server}/fine', tmp_path/'x', SHA)
            except BaseException: os._exit(1)
            os._exit(0)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
    assert os.listdir(tmp_path) == ['x'] and (tmp_path/'x').read_bytes() == BODY

def test_nobody_listens(tmp_path):
    with pytest.raises(DownloadError, match='127.0.0.1:9'): download_checked('http://127.0.0.1:9/x', tmp_path/'x', SHA)

@pytest.mark.parametrize('size', [0, 1, 2**16 - 1, 2**16, 2**16 + 1, 2**17, 200_000])
@pytest.mark.parametrize('kind', ['sized', 'lengthless'])
def test_downloads_of_any_size(server, tmp_path, size, kind):
    Handler.files[kind] = BODY[:size]
    try: assert download_checked(f'{server}/{kind}', tmp_path/'x', sha256_of(BODY[:size])).read_bytes() == BODY[:size]
    finally: del Handler.files[kind]

def test_the_error_names_the_address(server, tmp_path):
    with pytest.raises(DownloadError, match=re.escape(f'{server}/missing')): download_checked(f'{server}/missing', tmp_path/'x', SHA)

def test_two_downloads_of_one_file_at_once(server, tmp_path):
    ts = [threading.Thread(target=download_checked, args=(f'{server}/fine', tmp_path/'x', SHA)) for _ in range(4)]
    for t in ts: t.start()
    for t in ts: t.join()
    assert os.listdir(tmp_path) == ['x'] and (tmp_path/'x').read_bytes() == BODY

@pytest.mark.parametrize('data', [b'', b'abc', BODY])
def test_sha256_of_bytes_and_files(data, tmp_path):
    (tmp_path/'x').write_bytes(data)
    assert sha256_of(data) == sha256_of(tmp_path/'x') == hashlib.sha256(data).hexdigest()

def test_a_bad_download_keeps_what_was_there(server, tmp_path):
    (tmp_path/'x').write_bytes(b'older')
    with pytest.raises(DownloadError): download_checked(f'{server}/broken-off', tmp_path/'x', SHA)
    assert (tmp_path/'x').read_bytes() == b'older'

def test_a_killed_download_leaves_nothing_that_is_trusted(server, tmp_path):
    code = f"from fastcf.data.sources import download_checked; download_checked('{server}/slow', r'{tmp_path}/x', '{SHA}')"
    p = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.DEVNULL)
    for _ in range(600):
        if any(f.stat().st_size > 0 for f in tmp_path.glob('*.part')): break
        time.sleep(.1)
    else: pytest.fail('the download never began')
    p.send_signal(signal.SIGKILL)
    p.wait()
    assert not (tmp_path/'x').exists()
    assert download_checked(f'{server}/fine', tmp_path/'x', SHA).read_bytes() == BODY

def test_errors_pickle(): assert str(pickle.loads(pickle.dumps(DownloadError('x: gone')))) == 'x: gone'

# --- where MovieLens may come from

@pytest.fixture(scope='module')
def atomic(): return sources._wheel(sources._fetch_wheel)

def rows_without_header(data): return data.split(b'\n', 1)[1].rstrip(b'\n') + b'\n'

@pytest.fixture
def wheel_folder(tmp_path, atomic):
    for k,v in atomic.items(): (tmp_path/f'ml-100k.{k}').write_bytes(v)
    return tmp_path

@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    "An empty cache of fastai's"
    monkeypatch.setattr(sources, 'fastai_path', lambda kind: tmp_path/'cache'/kind)
    return tmp_path/'cache'

@pytest.fixture
def no_pip(monkeypatch): monkeypatch.setattr(sources.sys, 'executable', '/bin/false')

@pytest.fixture
def pip_that(tmp_path, monkeypatch):
    "A stand-in for pip that is offline: a shell script, `$out` being the folder it is to fill"
    def _inner(script):
        path = tmp_path/'fake-python'
        path.write_text('#!/bin/sh\nwhile [ "$1" != -d ]; do shift; done; out="$2"; mkdir -p "$out"\n' + script)
        path.chmod(0o755)
        monkeypatch.setattr(sources.sys, 'executable', str(path))
        monkeypatch.setattr(sources, '_URL', 'http://127.0.0.1:9/ml-100k.zip')
    return _inner

@pytest.fixture(scope='module')
def wheel(atomic): return sources.fastai_path('archive')/sources._WHEEL[0]

def u_item(items):
    "GroupLens' u.item for some items, as its README describes it"
    lines = []
    for i,title,genres in items: lines.append('|'.join([str(i), title, '01-Jan-1995', '', 'http://x'] + [str(int(g in genres)) for g in sources._GENRES]))
    return '\n'.join(lines).encode('latin-1') + b'\n'

def test_folder_in_the_wheels_form(wheel_folder, ml):
    got = load_ml100k(wheel_folder)
    assert got.ratings.equals(ml.ratings) and got.items.equals(ml.items) and got.users.equals(ml.users)

def test_a_tampered_folder_is_named(wheel_folder):
    path = wheel_folder/'ml-100k.inter'
    path.write_bytes(path.read_bytes().replace(b'196\t242\t3', b'196\t242\t5'))
    with pytest.raises(DownloadError, match='inter: SHA-256 is .* expected 4edb74'): load_ml100k(wheel_folder)

@pytest.mark.parametrize('name', ['inter', 'item', 'user'])
def test_a_cut_off_file_is_named(wheel_folder, name):
    path = wheel_folder/f'ml-100k.{name}'
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DownloadError, match=f'^{name}: SHA-256 is .* damaged'): load_ml100k(wheel_folder)

def test_a_folder_needs_no_network_and_is_not_written_to(wheel_folder, own_cache, no_pip, atomic, monkeypatch):
    monkeypatch.setattr(sources, '_URL', 'http://127.0.0.1:9/ml-100k.zip')
    assert len(load_ml100k(str(wheel_folder)).ratings) == 100_000
    assert {p.name: p.read_bytes() for p in wheel_folder.iterdir()} == {f'ml-100k.{k}': v for k,v in atomic.items()}

def test_a_good_folder_in_the_cache_comes_before_the_network(wheel_folder, own_cache, no_pip, ml, monkeypatch):
    monkeypatch.setattr(sources, '_URL', 'http://127.0.0.1:9/ml-100k.zip')
    shutil.copytree(wheel_folder, own_cache/'data'/'ml-100k')
    assert load_ml100k().ratings.equals(ml.ratings)

def test_a_tampered_folder_in_the_cache_is_passed_over(wheel_folder, own_cache, no_pip, wheel, ml):
    shutil.copytree(wheel_folder, own_cache/'data'/'ml-100k')
    (own_cache/'data'/'ml-100k'/'ml-100k.inter').write_text('user\titem\trating\ttime\n1\t1\t5\t1\n')
    (own_cache/'archive').mkdir()
    shutil.copy(wheel, own_cache/'archive')
    assert load_ml100k().ratings.equals(ml.ratings)

def test_a_folder_without_the_files(tmp_path):
    with pytest.raises(OSError, match='ml-100k.inter'): load_ml100k(tmp_path)

def test_grouplens_form_says_the_same(atomic, ml):
    u_data = rows_without_header(atomic['inter'])
    u_user = rows_without_header(atomic['user']).replace(b'\t', b'|')
    assert sha256_of(u_data) == sources._GROUPLENS['u.data'] and sha256_of(u_user) == sources._GROUPLENS['u.user']
    items = u_item([(1, 'Toy Story (1995)', ['Animation', "Children's", 'Comedy']), (267, 'unknown', ['unknown']), (543, 'Misérables, Les (1995)', ['Drama'])])
    ratings,users,films = sources._parse_grouplens({'u.data': u_data, 'u.user': u_user, 'u.item': items})
    assert (ratings == ml.ratings).all(axis=None) and users.equals(ml.users)
    assert films.title.tolist() == ['Toy Story', 'unknown', 'Les Misérables'] and films.year.isna().tolist() == [False, True, False]
    assert films.genres.tolist() == [('Animation', "Children's", 'Comedy'), (), ('Drama',)]

@pytest.fixture
def grouplens_folder(tmp_path, atomic, monkeypatch):
    "GroupLens' ratings and users to the bit, with items of our own"
    item = u_item([(1, 'Toy Story (1995)', ['Animation']), (2, 'Postino, Il (1994)', ['Drama'])])
    folder = tmp_path/'grouplens'
    folder.mkdir()
    for k,v in {'u.data': rows_without_header(atomic['inter']), 'u.user': rows_without_header(atomic['user']).replace(b'\t', b'|'), 'u.item': item}.items(): (folder/k).write_bytes(v)
    monkeypatch.setitem(sources._GROUPLENS, 'u.item', sha256_of(item))
    return folder

def test_folder_in_grouplens_form(grouplens_folder, ml):
    got = load_ml100k(grouplens_folder)
    assert got.ratings.equals(ml.ratings) and got.users.equals(ml.users) and got.items.title.tolist() == ['Toy Story', 'Il Postino']

@pytest.mark.parametrize('name', ['u.data', 'u.user', 'u.item'])
def test_a_tampered_grouplens_file_is_named(grouplens_folder, name):
    (grouplens_folder/name).write_bytes((grouplens_folder/name).read_bytes() + b'\n')
    with pytest.raises(DownloadError, match=f'^{re.escape(name)}: SHA-256 is'): load_ml100k(grouplens_folder)

@pytest.mark.parametrize('name', ['u.user', 'u.item'])
def test_a_missing_grouplens_file_is_named(grouplens_folder, name):
    (grouplens_folder/name).unlink()
    with pytest.raises(OSError, match=re.escape(name)): load_ml100k(grouplens_folder)

@pytest.mark.parametrize('flags', range(19))
def test_every_genre_flag_of_grouplens(flags, atomic):
    lines = '7|Film (1990)|01-Jan-1990||u|' + '|'.join(str(int(i == flags)) for i in range(19))
    got = sources._parse_grouplens({'u.data': b'1\t7\t3\t881250949\n', 'u.user': b'1|24|M|technician|03711\n', 'u.item': lines.encode()})
    assert got[2].genres[0] == (() if flags == 0 else (sources._GENRES[flags],)) and got[1].zip_code[0] == '03711'

@pytest.mark.parametrize('raw,title,year', [
    ('Toy Story (1995)', 'Toy Story', 1995), ('Postino, Il (1994)', 'Il Postino', 1994), ("Enfer, L' (1994)", "L'Enfer", 1994), ('Net, The (1995)', 'The Net', 1995), ('2001: A Space Odyssey (1968)', '2001: A Space Odyssey', 1968),
    ('Seven (Se7en) (1995)', 'Seven (Se7en)', 1995), ('Good, the Bad and the Ugly, The (1966)', 'The Good, the Bad and the Ugly', 1966), ('Night Flier (1997) (V)', 'Night Flier (V)', 1997), ('unknown', 'unknown', None)])
def test_title_and_year(raw, title, year):
    got = sources._title_year(raw)
    assert got[0] == title and (got[1] == year if year else got[1] is pd.NA)

def test_from_the_usual_address(server, own_cache, no_pip, atomic, ml, monkeypatch):
    item = u_item([(r.item, f'{r.title} ({r.year})', r.genres) for r in ml.items.fillna({'year': 1995}).itertuples()])
    files = {'u.data': rows_without_header(atomic['inter']), 'u.user': rows_without_header(atomic['user']).replace(b'\t', b'|'), 'u.item': item}
    buf = BytesIO()
    with zipfile.ZipFile(buf, 'w') as z:
        for k,v in files.items(): z.writestr(f'ml-100k/{k}', v)
        z.writestr('../../evil', 'never written')
    Handler.files['ml.zip'] = buf.getvalue()
    monkeypatch.setattr(sources, '_URL', f'{server}/ml.zip')
    monkeypatch.setattr(sources, '_ARCHIVE', ('ml-100k.zip', sha256_of(buf.getvalue())))
    monkeypatch.setitem(sources._GROUPLENS, 'u.item', sha256_of(item))
    assert load_ml100k().ratings.equals(ml.ratings)
    assert [p.name for p in own_cache.rglob('*') if p.is_file()] == ['ml-100k.zip']
    asked = len(Handler.asked)
    load_ml100k()
    assert len(Handler.asked) == asked # the second time it comes from the cache
    (own_cache/'archive'/'ml-100k.zip').write_bytes(buf.getvalue()[:1000])
    assert load_ml100k().ratings.equals(ml.ratings)
    assert len(Handler.asked) == asked + 1 # a cut-off file in the cache is not trusted

def test_nothing_can_be_reached(own_cache, no_pip, monkeypatch):
    monkeypatch.setattr(sources, '_URL', 'http://127.0.0.1:9/ml-100k.zip')
    with pytest.raises(DownloadError) as e: load_ml100k()
    for w in ('127.0.0.1:9', 'pip download', "load_ml100k('path/to/ml-100k')"): assert w in str(e.value)
    assert [p for p in own_cache.rglob('*') if p.is_file()] == []

def test_each_place_is_listed_once_with_its_fault(own_cache, pip_that):
    pip_that('echo "ERROR: no such host" >&2; exit 1')
    with pytest.raises(DownloadError) as e: load_ml100k()
    lines = str(e.value).splitlines()
    assert [l[:2] for l in lines] == ['Mo'] + ['- '] * 5 + ['Do'] and 'ERROR: no such host' in lines[5]

def test_pip_brings_the_wheel_and_a_damaged_one_is_fetched_again(own_cache, pip_that, wheel, ml):
    pip_that(f'echo . >> "{own_cache}/calls"; cp "{wheel}" "$out"')
    own_cache.mkdir()
    kept = own_cache/'archive'/wheel.name
    for damage in (lambda: None, lambda: None, lambda: kept.write_bytes(wheel.read_bytes()[:-100]), lambda: kept.write_bytes(b'PK')):
        damage()
        got = load_ml100k()
        assert got.ratings.equals(ml.ratings) and got.items.equals(ml.items) and kept.read_bytes() == wheel.read_bytes()
    assert (own_cache/'calls').read_text().count('.') == 3 and os.listdir(own_cache/'archive') == [wheel.name] # the second time it was there

@pytest.mark.parametrize('script,words', [(f'echo other > "$out/{sources._WHEEL[0]}"', f'{sources._WHEEL[0]}: SHA-256 is'), ('echo > "$out/recbole-9.whl"', 'pip download recbole==1.2.1: no answer')])
def test_pip_brings_something_else(own_cache, pip_that, script, words):
    pip_that(script)
    with pytest.raises(DownloadError, match=re.escape(words)): load_ml100k()
    assert os.listdir(own_cache/'archive') == []

def test_a_damaged_wheel_is_not_trusted_offline(own_cache, no_pip, wheel, monkeypatch):
    monkeypatch.setattr(sources, '_URL', 'http://127.0.0.1:9/ml-100k.zip')
    (own_cache/'archive').mkdir(parents=True)
    (own_cache/'archive'/wheel.name).write_bytes(wheel.read_bytes()[:-1])
    with pytest.raises(DownloadError, match='none of the places'): load_ml100k()

def test_the_wheel_comes_by_pip_and_is_kept(own_cache, monkeypatch, ml):
    monkeypatch.setattr(sources, '_URL', 'http://127.0.0.1:9/ml-100k.zip')
    assert load_ml100k().ratings.equals(ml.ratings)
    assert [p.name for p in own_cache.rglob('*')] == ['archive', 'recbole-1.2.1-py3-none-any.whl']
    monkeypatch.setattr(sources.sys, 'executable', '/bin/false')
    assert load_ml100k().items.equals(ml.items)

# --- what is in it

def test_counts(ml):
    assert (len(ml.ratings), len(ml.users), len(ml.items)) == (100_000, 943, 1682) and ml.ratings.rating.sum() == 352_986
    assert list(ml.ratings) == ['user', 'item', 'rating', 'timestamp'] and repr(ml) == '100,000 ratings of 1,682 items by 943 users'

def test_ids_dates_and_values(ml):
    r = ml.ratings
    assert sorted(r.user.unique()) == ml.users.user.tolist() == list(range(1, 944)) and sorted(r.item.unique()) == ml.items.item.tolist() == list(range(1, 1683))
    assert not r.duplicated(['user', 'item']).any() and r.rating.value_counts().sort_index().tolist() == [6110, 11370, 27145, 34174, 21201]
    assert [str(o) for o in r.dtypes] == ['int64', 'int64', 'float32', 'int64'] and set(pd.to_datetime(r.timestamp, unit='s').dt.year) == {1997, 1998}
    assert r.iloc[0].tolist() == [196, 242, 3, 881250949] and r.user.value_counts().min() == 20

def test_users(ml):
    assert list(ml.users) == ['user', 'age', 'gender', 'occupation', 'zip_code'] and ml.users.notna().all(axis=None)
    assert ml.users.iloc[0].tolist() == [1, 24, 'M', 'technician', '85711'] and ml.users.zip_code.str.len().eq(5).all() and ml.users.zip_code.str.startswith('0').any()

@pytest.mark.parametrize('item,title,year', [(64, 'The Shawshank Redemption', 1994), (543, 'Les Misérables', 1995), (50, 'Star Wars', 1977),
                                             (1412, 'Land Before Time III: The Time of the Great Giving (V)', 1995), (267, 'unknown', None)])
def test_titles(ml, item, title, year):
    row = ml.items.set_index('item').loc[item]
    assert row.title == title and (year is None and row.isna().year or row.year == year)

def test_no_title_keeps_its_year_or_its_article_behind(ml):
    assert not ml.items.title.str.contains(r'\(\d{4}\)|, The$|unkonwn').any() and ml.items.year.isna().sum() == 1

def test_lists(ml):
    assert ml.items.genres.map(type).eq(tuple).all() and ml.items.genres[0] == ('Animation', "Children's", 'Comedy') and set(ml.items.genres.explode().dropna()) == set(sources._GENRES) - {'unknown'}
    assert ml.items.genres.map(len).sum() == 2891 and 'unknown' not in set(ml.items.genres.explode())

# --- who made a film

def test_makers_are_unknown_without_a_list_of_films(ml):
    assert ml.items[['directors', 'actors', 'producers', 'companies']].isna().all(axis=None)

@pytest.mark.parametrize('name,text', [('movies.csv', 'movieId,title,genres\n527,Schindler\'s List (1993),x\n318,"Shawshank Redemption, The (1994)",x\n'),
                                       ('movies.dat', "527::Schindler's List (1993)::x\n318::Shawshank Redemption, The (1994)::x\n")])
def test_makers_are_joined_by_title(tmp_path, name, text):
    (tmp_path/name).write_text(text)
    items = load_ml100k(films=tmp_path/name).items.set_index('item')
    assert items.directors.notna().sum() == 2
    assert items.directors[318] == ('m.06pj8',) and items.directors[64] == ('m.0419pw',) and 'm.016tw3' in items.companies[318]

def test_makers_that_cannot_be_had_are_said_to_be(wheel_folder, own_cache, no_pip, tmp_path):
    (tmp_path/'movies.csv').write_text('movieId,title\n1,Toy Story (1995)\n')
    with pytest.raises(DownloadError, match='pip download recbole'): load_ml100k(wheel_folder, films=tmp_path/'movies.csv')

def test_makers_are_tuples_of_names_or_none(tmp_path):
    (tmp_path/'movies.csv').write_text('movieId,title\n527,Schindler\'s List (1993)\n527,"Net, The (1996)"\n')
    items = load_ml100k(films=str(tmp_path/'movies.csv')).items.set_index('title')
    for c in sources._RELATIONS:
        assert items[c].map(lambda o: o is None or isinstance(o, tuple)).all() and items.loc["Schindler's List", c] and items.loc['The Net', c] is None # the same title, another year

def test_films_of_the_same_director_share_it(tmp_path):
    "Hitchcock's and Kubrick's films by their numbers in the later collections"
    films = {903: 'Vertigo (1958)', 904: 'Rear Window (1954)', 908: 'North by Northwest (1959)', 1219: 'Psycho (1960)',
             750: 'Dr. Strangelove or: How I Learned to Stop Worrying and Love the Bomb (1963)', 924: '2001: A Space Odyssey (1968)',
             1206: 'Clockwork Orange, A (1971)', 1222: 'Full Metal Jacket (1987)', 1258: 'Shining, The (1980)'}
    (tmp_path/'movies.csv').write_text('movieId,title\n' + ''.join(f'{k},"{v}"\n' for k,v in films.items()))
    made = load_ml100k(films=tmp_path/'movies.csv').items.dropna(subset='directors').set_index('title').directors
    hitchcock = {made[t] for t in ('Vertigo', 'Rear Window', 'North by Northwest', 'Psycho')}
    assert len(hitchcock) == 1 and {made[t] for t in made.index if t not in ('Vertigo', 'Rear Window', 'North by Northwest', 'Psycho')} != hitchcock
    assert len({made[t] for t in made.index} - hitchcock) == 1

# --- archives that lie

def test_links_and_paths_in_an_archive_are_never_followed(tmp_path):
    "Only named members are read, as bytes, and each has to have its own sum"
    (tmp_path/'secret').write_text('secret')
    for name,attr in (('ml-100k/u.data', 0o120777 << 16), ('../../ml-100k/u.data', 0), ('/ml-100k/u.data', 0)):
        with zipfile.ZipFile(tmp_path/'a.zip', 'w') as z:
            info = zipfile.ZipInfo(name)
            info.external_attr = attr # a symbolic link
            z.writestr(info, str(tmp_path/'secret'))
        with pytest.raises((DownloadError, KeyError)) as e: sources._checked(sources._zip_reader(tmp_path/'a.zip', 'ml-100k/'), sources._GROUPLENS)
        assert 'secret' not in str(e.value) and sorted(os.listdir(tmp_path)) == ['a.zip', 'secret']
