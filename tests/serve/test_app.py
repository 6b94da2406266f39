"The server: answers as the recommender's, a 4xx for whatever is wrong with a question, a new folder without a pause, and its page in a browser"
import asyncio, json, os, re, socket, subprocess, sys, threading, time
from pathlib import Path
import httpx, numpy as np, pandas as pd, pytest
from hypothesis import HealthCheck, given, settings, strategies as st
import fastcf.all # every method of a learner
from fastcf.serve import app as serving
from fastcf.serve.app import FIELDS, MOST, answer, make_app, main, openapi, records
from fastcf.bayes.engines import ALS
from fastcf.serve.recommender import Recommender
from test_recommender_files import make, rich, rich_saved
from browser import axe, chromium

EVIL = ['<script>alert(1)</script>', '<img src=x onerror="alert(2)">', '=cmd()|x', '"quoted" & \u202eright to left', 'long ' * 200]

@pytest.fixture(scope='module')
def learn():
    learn = make()
    with learn.no_bar(), learn.no_logging(): learn.fit(6, cbs=ALS(3.)) # sure enough of tastes for an answer to move a list
    learn.dls.catalog.items['title'] = [EVIL[j % 5] for j in range(len(learn.dls.catalog.items))]
    return learn

@pytest.fixture(scope='module')
def folder(learn, tmp_path_factory): return learn.save_recommender(tmp_path_factory.mktemp('serve')/'films')

@pytest.fixture(scope='module')
def r(folder): return Recommender.load(folder)

@pytest.fixture(scope='module')
def app(folder):
    app = make_app(folder)
    yield app
    app.state.served.stopped.set()

def ask(app, method, path, **kwargs):
    async def _inner():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url='http://films') as c: return await c.request(method, path, **kwargs)
    return asyncio.run(_inner())

def post(app, path, **fields): return ask(app, 'POST', path, json=fields)

# --- answers

def test_answers_are_the_recommenders(app, r):
    users,items = r.user.vocab[:3].tolist(),r.item.vocab[r.item.counts.nonzero()[:3, 0].numpy()].tolist()
    assert post(app, '/recommend', users=users, k=4).json()['recommendations'] == records(r.recommend(users, 4))
    assert post(app, '/predict', users=users, items=items, interval=.9).json()['predictions'] == records(r.predict(users, items, interval=.9))
    assert len(post(app, '/predict', users=users[:1], items=items).json()['predictions']) == 3
    assert post(app, '/similar', items=items[:1], k=2).json()['similar'] == records(r.similar_items(items[:1], 2))
    assert post(app, '/recommend', users=users, k=4, rank_by='rating').json()['recommendations'] == records(r.recommend(users, 4, rank_by='rating'))
    got = post(app, '/fold-in', ratings=[[items[0], 5], [items[1], None]], k=3, explain=True).json()
    assert [o['item'] for o in got['recommendations']] == r.fold_in({items[0]: 5}).recommend(3).item.tolist() and len(got['why']) == 1

def test_lists_by_any_order_and_with_ranges(app, r):
    items = [int(o) for o in r.item.vocab[range(3)]]
    drop = lambda df: records(df.drop(columns=r.user.vocab.name))
    iv = r.interview(3, 2)
    iv.next_page()
    state = iv.to_json()
    for rank_by in (None, 'value', 'rating', 'chance'):
        for interval in (None, .8):
            kw = dict(rank_by=rank_by, interval=interval)
            users = [int(o) for o in r.user.vocab[range(1)]]
            assert post(app, '/recommend', users=users, k=4, **kw).json()['recommendations'] == records(r.recommend(users, 4, **kw))
            got = post(app, '/fold-in', ratings=[[items[0], 5], [items[1], 1]], k=3, **kw)
            assert got.status_code == 200 and got.json()['recommendations'] == drop(r.fold_in({items[0]: 5, items[1]: 1}).recommend(3, **kw))
            told = post(app, '/interview', state=state, replies=[[items[0], 5]], k=3, **kw).json()['recommendations']
            again = r.interview(state=state)
            again.answer({items[0]: 5})
            assert told == records(again.recommend(3, rank_by=rank_by or 'value', interval=interval)) and ('low' in told[0]) == (interval is not None)
    for path,fields in (('/recommend', dict(users=users)), ('/fold-in', dict(ratings=[[items[0], 5]])), ('/interview', {})):
        for kw,said in ((dict(interval=2), 'interval: expected a share'), (dict(rank_by='luck'), "rank_by: expected 'value'")):
            bad = post(app, path, **fields, **kw)
            assert bad.status_code == 422 and said in bad.json()['error']

def test_health_metrics_and_description(app):
    assert ask(app, 'GET', '/health').json()['status'] == 'ok'
    post(app, '/recommend', users=[10**9])
    text = ask(app, 'GET', '/metrics').text
    assert re.search(r'^fastcf_requests_total\{path="/recommend",status="404"\} [1-9]', text, re.M) and re.search(r'le="\+Inf"\} [1-9]', text)
    assert all(re.fullmatch(r'# TYPE \w+ \w+|\w+(\{[^{}]*\})? [\d.e+-]+', l) for l in text.splitlines())
    d = ask(app, 'GET', '/openapi.json').json()
    assert set(FIELDS) < set(d['paths']) and d == json.loads(json.dumps(openapi()))

def test_every_answer_forbids_what_it_does_not_need(app):
    for method,path in (('GET', '/'), ('GET', '/health'), ('POST', '/recommend')):
        h = ask(app, method, path).headers
        assert "default-src 'none'" in h['content-security-policy'] and h['x-content-type-options'] == 'nosniff'

def test_questions_that_wait_together_are_answered_each_its_own(app, r, monkeypatch):
    users,made = r.user.vocab[:30].tolist(),[]
    plain = Recommender.lists
    monkeypatch.setattr(Recommender, 'lists', lambda self, users, *args, **kwargs: made.append(len(users)) or plain(self, users, *args, **kwargs))
    asked = [dict(users=[u], k=1 + j % 2, exclude_seen=j % 3 > 0) for j,u in enumerate(users)] + [dict(users=[10**9]), dict(users=['x']), dict(users=[users[0]], min_ratings=10**6)]
    async def at_once():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url='http://films') as c: return await asyncio.gather(*(c.post('/recommend', json=o) for o in asked))
    got = asyncio.run(at_once())
    assert max(made) > 1 and [o.status_code for o in got[-3:]] == [404, 404, 200] and got[-1].json()['recommendations'] == []
    for o,q in zip(got[:30], asked):
        a,b = pd.DataFrame(o.json()['recommendations']),r.recommend(**q)
        pd.testing.assert_frame_equal(a, b, check_dtype=False, rtol=1e-4)

def test_a_fault_inside_reaches_each_that_waits(app, monkeypatch):
    monkeypatch.setattr(Recommender, 'lists', lambda self, *args, **kwargs: 1 / 0)
    res = post(app, '/recommend', users=[1])
    assert res.status_code == 500 and 'division' not in res.text

def test_an_interview_with_topics_and_what_is_known(rich_saved):
    app = make_app(rich_saved)
    try:
        first = post(app, '/interview', about=dict(age=30, job='a', more=None), proxies=True, page_size=6).json()
        assert {o['kind'] for o in first['page']} > {'item'}
        said = post(app, '/interview', state=first['state'], replies=[[o['item'], 4] for o in first['page']])
        assert said.status_code == 200 and said.json()['number'] == 2
        r,state = Recommender.load(rich_saved),json.loads(said.json()['state'])
        iv = r.interview(6, about=dict(age=30, job='a'), proxies=True)
        assert [str(o) for o in r.interview(state=json.dumps(state)).replies] == [str(o) for o in iv.next_page().item]
        for odd in (dict(proxies=['colour']), dict(about={'age': {'a': 1}}), dict(log=[['page', [['kind', 'zz']]]])):
            assert post(app, '/interview', state=json.dumps(state | odd)).status_code in (404, 422)
    finally: app.state.served.stopped.set()

# --- what is wrong with a question

@pytest.mark.parametrize('body,status,words', [
    (b'', 400, 'not JSON'), (b'\xff', 400, 'not JSON'), (b'[' * 10**5, 400, 'not JSON'), (b'NaN', 400, 'NaN'), (b'[]', 422, 'expected an object'), (b'{"a":1,"a":2}', 400, 'twice'), (b'{"users":[1],"code":"x"}', 422, "'code': no such field"),
    (b'{}', 422, 'users: missing'), (b'{"users":1}', 422, 'expected a list of ids'), (b'{"users":[]}', 422, 'from 1 to'), (b'{"users":[true]}', 422, 'got bool'), (b'{"users":[1.0]}', 422, 'got float'), (b'{"users":[null]}', 422, 'got NoneType'),
    (b'{"users":[[1]]}', 422, 'got list'), (b'{"users":[{"UUID":"x"}]}', 422, 'an id'), (b'{"users":[{"UUID":"x","b":1}]}', 422, 'got dict'), (b'{"users":[{"__import__":"os"}]}', 422, 'an id'), (b'{"users":[{"tuple":[[1]]}]}', 422, 'tuple with a list'),
    (b'{"users":["1"]}', 404, 'are text and the ids'), (b'{"users":[99999]}', 404, 'unknown id'), (b'{"users":[' + b'9' * 30 + b']}', 422, '64 bits'), (b'{"users":[' + b'9' * 5000 + b']}', 400, 'not JSON'),
    (b'{"users":["' + b'a' * 2000 + b'"]}', 422, '2,000 characters'), (b'{"users":[1],"k":0}', 422, 'k: expected'), (b'{"users":[1],"k":1e3}', 422, 'k: expected'), (b'{"users":[1],"k":true}', 422, 'k: expected'), (b'{"users":[1],"exclude_seen":1}', 422, 'true or false'),
    (b'{"users":[' + b','.join([b'1'] * 1001) + b']}', 422, '1,001 ids'), (b'{"users":["\\ud800"]}', 404, 'unknown id'), (b'{"users":[1],"rank_by":"best"}', 422, "'value', 'rating', 'chance'"), (b'{"users":[1],"rank_by":["value"]}', 422, "'value', 'rating', 'chance'")])
def test_a_bad_question_is_told_why(app, body, status, words):
    res = ask(app, 'POST', '/recommend', content=body)
    assert res.status_code == status and words in res.json()['error'] and 'Traceback' not in res.text and '.py' not in res.text

@pytest.mark.parametrize('path,fields,status,words', [
    ('/fold-in', dict(ratings=[[1, 9]]), 422, 'rating'), ('/fold-in', dict(ratings=[[1, 5], [1, 4]]), 422, 'an item occurs twice'), ('/fold-in', dict(ratings=[[1]]), 422, 'pairs'), ('/fold-in', dict(ratings={'1': 5}), 422, 'pairs'), ('/fold-in', dict(ratings=[[1, '5']]), 422, 'a rating is a number'),
    ('/predict', dict(users=[1, 2], items=[1, 2, 3]), 422, 'do not make pairs'), ('/predict', dict(users=[1], items=[1], interval=1), 422, 'a share between'), ('/similar', dict(items=['x']), 404, 'text'),
    ('/interview', dict(state='{}'), 422, 'state'), ('/interview', dict(state=5), 422, 'state'), ('/interview', dict(replies=[[1, 5]]), 422, 'without a state'), ('/interview', dict(page_size=10**6), 422, 'page_size'),
    ('/interview', dict(about=dict(age=30)), 422, 'about: this recommender was saved without'), ('/interview', dict(about=[1]), 422, 'about: expected an object'), ('/interview', dict(proxies=True), 422, 'proxies: this recommender was saved without')])
def test_a_bad_field_is_told_why(app, path, fields, status, words):
    res = post(app, path, **fields)
    assert res.status_code == status and words in res.json()['error']

def test_a_body_that_is_too_large_is_not_read(app):
    res = ask(app, 'POST', '/recommend', content=b' ' * (MOST['body'] + 1))
    assert res.status_code == 413 and 'at most' in res.json()['error']
    async def pieces():
        for _ in range(40): yield b' ' * 2**16
    assert ask(app, 'POST', '/recommend', content=pieces()).status_code == 413

@pytest.mark.parametrize('method,path,status', [('GET', '/recommend', 405), ('PUT', '/recommend', 405), ('POST', '/', 405), ('GET', '/../etc/passwd', 404), ('GET', '/%2e%2e/x', 404), ('POST', '/recommend/', 404), ('GET', '/page.php', 404)])
def test_other_paths_and_methods(app, method, path, status):
    res = ask(app, method, path)
    assert res.status_code == status or res.status_code == 307 and res.headers['location'].startswith('http://films/')

JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([1, 5, 0, -1, 10**18, 2**63, 1e308, 'UUID', 'tuple', '\ud800']),
                    lambda o: st.lists(o, max_size=4) | st.dictionaries(st.text(max_size=4) | st.sampled_from(['UUID', 'tuple', 'set', 'missing', 'float', 'date', 'Timestamp', 'Decimal', 'bytes', 'Timedelta', 'frozenset', 'datetime']), o, max_size=3), max_leaves=8)

def field_values():
    "For each path a body with some of its fields, each as it should be or anything else"
    good = dict(users=[1, 2], items=[1], k=3, exclude_seen=True, min_ratings=1, interval=.9, ratings=[[1, 5]], explain=True, state=None, replies=[], page_size=2, pages=1, rank_by='chance', about={}, proxies=False)
    one = lambda path: st.fixed_dictionaries({}, optional={k: st.just(good[k]) | JSON | st.lists(st.lists(JSON, min_size=2, max_size=2), max_size=3) for k in FIELDS[path]}).map(lambda d: (path, d))
    return st.sampled_from(sorted(FIELDS)).flatmap(one)

def check_no_5xx(r, path, body):
    status,res = answer(r, path, body)
    assert 200 <= status < 500 and json.dumps(res, allow_nan=False)

@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(question=field_values())
def test_odd_questions_are_never_a_5xx(r, question):
    path,fields = question
    check_no_5xx(r, path, json.dumps(fields).encode())

@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(path=st.sampled_from(sorted(FIELDS)), body=st.binary(max_size=60) | JSON.map(lambda o: json.dumps(o).encode()))
def test_odd_bodies_are_never_a_5xx(r, path, body): check_no_5xx(r, path, body)

@pytest.mark.slow
@settings(max_examples=1000, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(question=field_values())
def test_a_thousand_odd_questions(r, question): check_no_5xx(r, question[0], json.dumps(question[1]).encode())

def test_a_fault_inside_is_not_shown(app, monkeypatch):
    def broken(r, **kw): raise RuntimeError('a secret')
    monkeypatch.setitem(serving.ANSWERS, '/similar', broken)
    res = post(app, '/similar', items=[1])
    assert res.status_code == 500 and 'secret' not in res.text and 'error' in res.json()

# --- another folder

def test_a_newer_folder_takes_over_and_a_damaged_one_does_not(learn, tmp_path):
    learn.save_recommender(tmp_path/'films', notes='first')
    app = make_app(tmp_path/'films', every=.02)
    served,stop,got = app.state.served,threading.Event(),[]
    def client():
        while not stop.is_set(): got.append(post(app, '/recommend', users=[1, 2], k=3).status_code)
    t = threading.Thread(target=client); t.start()
    try:
        for _ in range(5):
            before = served.recommender
            learn.save_recommender(tmp_path/'films')
            for _ in range(500):
                if served.recommender is not before: break
                time.sleep(.02)
            assert served.recommender is not before
        now = served.recommender
        with open(tmp_path/'films/tables.safetensors', 'r+b') as f: f.seek(900); f.write(b'!!')
        os.utime(tmp_path/'films/SHA256SUMS')
        for _ in range(500):
            if served.fault: break
            time.sleep(.02)
        assert served.recommender is now and 'refused' in ask(app, 'GET', '/health').json()['newer_folder'] and 'result="failed"} 1' in ask(app, 'GET', '/metrics').text
    finally: stop.set(); t.join(); served.stopped.set()
    assert set(got) == {200} and len(got) > 5

# --- the command

@pytest.fixture(scope='module')
def address(folder):
    "The server as a process of its own"
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); port = s.getsockname()[1]
    p = subprocess.Popen([sys.executable, '-c', 'from fastcf.serve.app import main; main()', str(folder), '--port', str(port)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        for _ in range(600):
            try: httpx.get(f'http://127.0.0.1:{port}/health', timeout=5); break
            except httpx.TransportError: time.sleep(.1)
            assert p.poll() is None, p.stdout.read()
        yield f'http://127.0.0.1:{port}'
    finally: p.terminate(); p.wait(10)

@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_listens_on_this_machine_alone(address, r):
    port = int(address.rpartition(':')[2])
    assert httpx.post(f'{address}/recommend', json=dict(users=[r.user.vocab[0].item()], k=2)).status_code == 200
    with open('/proc/net/tcp') as f: hosts = {l.split()[1].split(':')[0] for l in f.readlines()[1:] if l.split()[1].endswith(f':{port:04X}') and l.split()[3] == '0A'}
    assert hosts == {'0100007F'}

@pytest.mark.parametrize('args,words', [(['/nowhere'], 'there is no such folder'), ([], 'required: folder')])
def test_the_command_says_what_is_wrong(args, words, capsys):
    with pytest.raises(SystemExit) as e: main(args)
    assert words in str(e.value) + capsys.readouterr().err

# --- the page

@pytest.mark.slow
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_the_page_is_an_interview(chromium, axe, address, scheme):
    context = chromium.new_context(viewport=dict(width=360 if scheme == 'dark' else 1200, height=900), color_scheme=scheme)
    page,said = context.new_page(),[]
    page.on('console', lambda m: said.append(m.text) if m.type == 'error' else None); page.on('dialog', lambda d: said.append(d.message)); page.on('pageerror', lambda e: said.append(str(e)))
    told = lambda words: page.locator('#progress', has_text=words).wait_for() # by a selector: the page forbids eval
    page.goto(address)
    page.wait_for_selector('fieldset')
    first = page.locator('#list li').all_inner_texts()
    assert page.inner_text('#progress') == 'Page 1 of 3' and len(first) == 5 and page.locator('fieldset').count() == 8
    titles = page.locator('legend').all_inner_texts()
    assert any('<script>alert(1)</script>' in t for t in titles) and page.locator('legend img').count() == 0 # text is text
    page.evaluate(axe)
    look = "axe.run({resultTypes: ['violations']}).then(r => r.violations.filter(v => ['serious', 'critical'].includes(v.impact)).map(v => [v.id, v.help, v.nodes[0].html]))"
    assert page.evaluate(look) == []
    page.locator('input').first.focus() # by keyboard alone
    for _ in range(4): page.keyboard.press('ArrowRight')
    page.keyboard.press('Tab'); page.keyboard.press('Space')
    page.keyboard.press('Enter')
    told('Page 2 of 3')
    assert page.evaluate("document.activeElement.name") == 'q0' and page.locator('#list li').all_inner_texts() != first
    for n in (3, 4):
        page.click('#next')
        told('Done. Thank you!' if n == 4 else 'Page 3 of 3')
    assert page.is_disabled('#next') and page.evaluate(look) == []
    page.click('#again')
    told('Page 1 of 3')
    assert page.evaluate('document.documentElement.scrollWidth <= document.documentElement.clientWidth')
    context.close()
    assert said == []
