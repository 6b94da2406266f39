"Downloads that fail, archives that lie, folders of either kind; what MovieLens 100K holds"
import hashlib, os, pickle, re, signal, subprocess, sys, threading, time, zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
import numpy as np, pytest
from fastcf import sources
from fastcf.sources import DownloadError, download_checked, load_ml100k, sha256_of

BODY = np.random.default_rng(0).bytes(300_000)
SHA = hashlib.sha256(BODY).hexdigest()

class Handler(BaseHTTPRequestHandler):
    "Serves BODY, well or badly, by the path; `/file/...` serves what a test put into `files`"
    files, asked = {}, []
    def log_message(self, *args): pass
    def do_GET(self):
        kind = self.path.strip('/')
        self.asked.append(kind)
        if kind == 'missing': return self.send_error(404)
        body = self.files.get(kind, BODY)
        self.send_response(200)
        if kind != 'lengthless': self.send_header('Content-Length', str(len(body)))
        self.end_headers()
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

@pytest.mark.parametrize('kind', ['fine', 'lengthless'])
def test_download(server, tmp_path, kind):
    dest = tmp_path/'new'/'folder'/'x.zip'
    assert download_checked(f'{server}/{kind}', dest, SHA) == dest and dest.read_bytes() == BODY
    assert os.listdir(dest.parent) == ['x.zip']

@pytest.mark.parametrize('kind,sha,words', [('fine', '0' * 64, 'expected 000'), ('broken-off', SHA, 'SHA-256|bytes'), ('missing', SHA, '404'), ('hangs', SHA, 'timed out')])
def test_a_bad_download_leaves_nothing(server, tmp_path, kind, sha, words):
    with pytest.raises(DownloadError, match=words): download_checked(f'{server}/{kind}', tmp_path/'x', sha, timeout=.5)
    assert os.listdir(tmp_path) == []

def test_nobody_listens(tmp_path):
    with pytest.raises(DownloadError, match='127.0.0.1:9'): download_checked('http://127.0.0.1:9/x', tmp_path/'x', SHA)

def test_a_bad_download_keeps_what_was_there(server, tmp_path):
    (tmp_path/'x').write_bytes(b'older')
    with pytest.raises(DownloadError): download_checked(f'{server}/broken-off', tmp_path/'x', SHA)
    assert (tmp_path/'x').read_bytes() == b'older'

def test_a_killed_download_leaves_nothing_that_is_trusted(server, tmp_path):
    code = f"from fastcf.sources import download_checked; download_checked('{server}/slow', r'{tmp_path}/x', '{SHA}')"
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

@pytest.mark.parametrize('item,title,year', [(64, 'The Shawshank Redemption', 1994), (543, 'Les Misérables', 1995), (50, 'Star Wars', 1977),
                                             (1412, 'Land Before Time III: The Time of the Great Giving (V)', 1995), (267, 'unknown', None)])
def test_titles(ml, item, title, year):
    row = ml.items.set_index('item').loc[item]
    assert row.title == title and (year is None and row.isna().year or row.year == year)

def test_no_title_keeps_its_year_or_its_article_behind(ml):
    assert not ml.items.title.str.contains(r'\(\d{4}\)|, The$|unkonwn').any() and ml.items.year.isna().sum() == 1

def test_lists(ml):
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
