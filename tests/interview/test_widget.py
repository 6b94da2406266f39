"The interview's page: what it writes into the interview, and how it does in JupyterLab, with a mouse, a keyboard and a screen reader's eyes"
import json, os, re, secrets, signal, socket, subprocess, sys, time, urllib.request
from pathlib import Path
import nbformat, pandas as pd, pytest, torch
from fastcf.cold.proxies import ProxyQuestions
from fastcf.data.sources import simulate_ratings
from fastcf.interview.interview import Interview
from fastcf.learn.learner import cf_learner
from fastcf.data.loaders import CFDataLoaders
from fastcf.interview.questions import Interviewer
from fastcf.interview.widget import _rating_choices
from browser import axe, chromium

EVIL = ['<script>alert(1)</script>', '<b>x</b>', '<img src=x onerror="alert(2)">', '"quoted" & $math$']

SETUP = f'''
import pandas as pd
from fastcf.all import *
from fastcf.data.sources import simulate_ratings
from fastcf.interview.interview import Interview
from fastcf.interview.questions import Interviewer
import fastcf.interview.widget
torch.set_num_threads(1)
items = pd.DataFrame(dict(item=range(80), title=[f'{{t}} {{i}}' for i,t in enumerate({EVIL!r} * 20)], year=[None] + list(range(1921, 2000))))
dls = CFDataLoaders.from_df(simulate_ratings(120, 80, 3000, seed=1), valid_pct=.05, seed=0, items=items, device='cpu')
learn = cf_learner(dls, factor_count=4, y_range=(.5, 5.5), seed=0)
with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(5, 2e-2)
teach = Interviewer(learn)
'''

@pytest.fixture(scope='module')
def teach():
    scope = {}
    exec(SETUP, scope)
    return scope['teach']

# --- without a browser

def view_of(iv):
    "The view that `show` made last"
    iv.show()
    return iv.watchers[-1].__self__

def choose(card, label): card.reply.index = [l for l,_ in card.reply.options].index(label)

def test_clicks_are_replies(teach):
    iv = Interview(teach, page_size=4, pages=2)
    v = view_of(iv)
    ids = iv.open_page
    assert [c.id for c in v.cards] == ids and v.undo.disabled and v.next.description == 'Skip this page' and iv.replies == {}
    choose(v.cards[0], '5 stars'); choose(v.cards[1], "Haven't seen"); choose(v.cards[2], '1 star'); choose(v.cards[3], 'Skip')
    assert iv.replies == {ids[0]: 5, ids[1]: None, ids[2]: 1} and iv.open_page == ids and '4 of 4' in v.head.value and v.next.description == 'Next page'
    choose(v.cards[2], '2 stars'); choose(v.cards[2], '3 stars')
    assert iv.replies[ids[2]] == 3
    v.undo.click()
    assert iv.replies == {ids[0]: 5, ids[1]: None, ids[2]: 1} and v.cards[2].reply.label == '1 star'
    v.undo.click()
    assert v.cards[3].reply.index is None
    v.next.click()
    assert iv.page_count == 1 and iv.open_page != ids and all(c.reply.index is None for c in v.cards) and v.next.description == 'Finish'
    v.next.click()
    assert iv.open_page is None and len(v.grid.children) == 0 and 'Thank you' in v.end.value and v.next.layout.display == 'none' and not v.undo.disabled
    v.undo.click()
    assert iv.open_page and len(v.grid.children) == 4 and v.end.value == ''

def test_views_follow_the_interview_and_one_another(teach):
    iv = Interview(teach, page_size=3, pages=2)
    a,b = view_of(iv),view_of(iv)
    choose(a.cards[0], '4 stars')
    assert b.cards[0].reply.label == '4 stars' and a.side.value == b.side.value
    iv.answer({iv.open_page[1]: 2}, done=False)
    assert a.cards[1].reply.label == b.cards[1].reply.label == '2 stars'
    back = view_of(Interview.from_json(teach, iv.to_json()))
    assert [c.reply.label for c in back.cards] == ['4 stars', '2 stars', None] and [c.id for c in back.cards] == iv.open_page
    iv.undo().undo()
    assert [c.reply.index for c in a.cards] == [None] * 3 and a.undo.disabled
    iv.answer({}); a.draw()
    assert [c.id for c in a.cards] == [c.id for c in b.cards] == iv.open_page

def test_recommendations_change_and_say_why(teach):
    iv = Interview(teach, page_size=6)
    v = view_of(iv)
    before = v.side.value
    assert before.count('<li>') == 8 and 'What moved' not in before
    choose(v.cards[0], '1 star')
    assert v.side.value != before and 'What moved' in v.side.value and '1&nbsp;★' in v.side.value

def test_titles_are_text(teach):
    iv = Interview(teach, page_size=80, pages=1)
    v = view_of(iv)
    iv.answer({i: 3 for i in range(80)}, done=False)
    iv.undo()
    html = ' '.join(o.value for o in (v.head, v.side, v.end, *(c.poster for c in v.cards)))
    for bad in ('<script', '<b>x', '<img'): assert bad not in html
    assert '&lt;script&gt;alert(1)' in html and not any(c.reply.description_allow_html for c in v.cards)

def test_a_short_last_page(teach):
    iv = Interview(teach, page_size=50, pages=3)
    v = view_of(iv)
    v.next.click()
    assert len(v.grid.children) == len(iv.open_page) == int((teach.counts > 0).sum()) - 50
    v.next.click()
    assert 'Thank you' in v.end.value

def test_questions_about_an_attribute(teach):
    items = teach.learn.dls.catalog.items.assign(genre=[['<i>a</i>', 'b', 'c'][i % 3] for i in range(80)])
    iv = Interview(teach, page_size=30, proxies=ProxyQuestions(teach.learn, 'genre', df=items))
    v = view_of(iv)
    at = next(i for i,k in enumerate(iv.open_page) if isinstance(k, tuple))
    card = v.cards[at]
    assert 'genre' in card.poster.value and '<i>' not in card.poster.value
    choose(card, '4 stars')
    assert iv.replies == {iv.open_page[at]: 4}
    choose(card, 'No opinion')
    assert iv.replies == {iv.open_page[at]: None}

def test_choices():
    assert _rating_choices(torch.tensor([1., 3, 5, 3])) == [('1 star', 1), ('3 stars', 3), ('5 stars', 5)]
    assert _rating_choices(torch.arange(21) / 2) == [('0 stars', 0), ('2.5 stars', 2.5), ('5 stars', 5), ('7.5 stars', 7.5), ('10 stars', 10)]

def test_without_ipywidgets(teach, monkeypatch):
    monkeypatch.setitem(sys.modules, 'ipywidgets', None)
    with pytest.raises(ImportError, match=r"pip install 'fastcf\[widgets\]'"): Interview(teach).show()

# --- in JupyterLab

CELLS = [SETUP, 'iv = Interview(teach, page_size=8, pages=2)\niv.show()', 'iv.show(k=3)', 'print("REPLIES", iv.to_json())']

@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    "Address of a JupyterLab with a notebook"
    folder = tmp_path_factory.mktemp('lab')
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(o) for o in CELLS], metadata=dict(kernelspec=dict(name='python3', display_name='Python 3', language='python'))), folder/'page.ipynb')
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); port = s.getsockname()[1]
    token = secrets.token_hex(16)
    env = {**os.environ, 'HOME': str(folder), 'JUPYTER_CONFIG_DIR': str(folder/'config'), 'JUPYTER_RUNTIME_DIR': str(folder/'run'), 'JUPYTERLAB_SETTINGS_DIR': str(folder/'settings'), 'JUPYTERLAB_WORKSPACES_DIR': str(folder/'spaces'), 'OMP_NUM_THREADS': '1'}
    settings = folder/'settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings'
    settings.parent.mkdir(parents=True)
    settings.write_text('{"fetchNews": "false"}')
    log = open(folder/'log', 'w')
    p = subprocess.Popen([sys.executable, '-m', 'jupyterlab', '--no-browser', '--allow-root', '--ip=127.0.0.1', f'--port={port}', '--ServerApp.port_retries=0', f'--IdentityProvider.token={token}', f'--ServerApp.root_dir={folder}', '--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate'],
        stdout=log, stderr=subprocess.STDOUT, env=env, start_new_session=True)
    try:
        for _ in range(900):
            if p.poll() is not None: pytest.fail((folder/'log').read_text())
            try: urllib.request.urlopen(f'http://127.0.0.1:{port}/api?token={token}', timeout=1); break
            except OSError: time.sleep(.1)
        yield f'http://127.0.0.1:{port}', token
    finally:
        os.killpg(p.pid, signal.SIGINT)
        try: p.wait(5)
        except subprocess.TimeoutExpired: os.killpg(p.pid, signal.SIGKILL); p.wait()
        log.close()

def look(page, name):
    "Keep a picture where somebody asks for it"
    if to := os.environ.get('FASTCF_PICTURES'): page.screenshot(path=f'{to}/{name}.png')

@pytest.fixture(scope='module')
def page(chromium, lab):
    "The notebook in JupyterLab, its cells run but for the last; `page.wrong` is what went wrong"
    context = chromium.new_context(viewport=dict(width=1500, height=1100))
    page,wrong = context.new_page(),[]
    page.set_default_timeout(90_000)
    page.on('console', lambda m: wrong.append(m.text) if m.type == 'error' else None)
    page.on('pageerror', lambda e: wrong.append(str(e)))
    page.on('dialog', lambda d: (wrong.append(f'dialog: {d.message}'), d.dismiss()))
    page.goto(f'{lab[0]}/lab/tree/page.ipynb?token={lab[1]}')
    page.locator('.jp-Notebook .jp-CodeCell').first.wait_for()
    page.get_by_text('| Idle').wait_for()
    page.keyboard.press('Control+b') # no file browser
    page.locator('.jp-Notebook .jp-CodeCell .cm-content').first.click()
    for i in range(len(CELLS) - 1): page.keyboard.press('Shift+Enter')
    try: page.locator('.fastcf-card').nth(15).wait_for()
    except Exception: look(page, 'failed'); raise
    page.wrong = wrong
    yield page
    context.close()

def replies(page):
    "What the interview in the kernel knows"
    cell = page.locator('.jp-Notebook .jp-CodeCell').last
    was = cell.locator('.jp-InputPrompt').text_content()
    cell.locator('.cm-content').click()
    page.keyboard.press('Control+Enter')
    page.wait_for_function("was => { const now = document.querySelectorAll('.jp-Notebook .jp-CodeCell')[3].querySelector('.jp-InputPrompt').textContent; return now.match(/\\d/) && now != was }", arg=was)
    text = cell.locator('.jp-OutputArea-output').last.text_content().partition('REPLIES ')[2]
    return {k: v for what,o in json.loads(text)['log'] if what == 'reply' for k,v in o},json.loads(text)['log']

def test_in_jupyterlab(page, axe):
    first,second = page.locator('.fastcf-interview').nth(0),page.locator('.fastcf-interview').nth(1)
    card = lambda view, i: view.locator('.fastcf-card').nth(i)
    chosen = lambda view, i: card(view, i).locator('select').evaluate('o => o.selectedOptions[0]?.value ?? null')
    listed = lambda: first.locator('.fastcf-side li').all_text_contents()
    look(page, 'start')
    before = listed()
    card(first, 0).locator('option').nth(4).click()
    first.get_by_text('1 of 8 answered').wait_for()
    card(first, 1).locator('option', has_text="Haven").click()
    first.get_by_text('2 of 8 answered').wait_for()
    assert len(before) == len(listed()) == 8 and listed() != before
    look(page, 'mouse')
    page.wait_for_timeout(500)
    assert chosen(second, 0) == '5 stars' and chosen(second, 1) == "Haven't seen" # the other view follows
    card(first, 1).locator('select').focus(); page.keyboard.press('Tab') # from card to card, then digits, arrows, letters
    assert page.evaluate("document.activeElement === document.querySelectorAll('.fastcf-card select')[2]")
    page.keyboard.press('4')
    first.get_by_text('3 of 8 answered').wait_for()
    page.keyboard.press('ArrowUp')
    page.wait_for_function("document.querySelectorAll('.fastcf-interview')[1].querySelectorAll('select')[2].value === '3 stars'")
    page.keyboard.press('Tab'); page.keyboard.press('h')
    first.get_by_text('4 of 8 answered').wait_for()
    look(page, 'keyboard')
    assert chosen(first, 2) == '3 stars' and chosen(first, 3) == "Haven't seen"
    got,log = replies(page)
    ids = log[0][1]
    assert got == {ids[0]: 5, ids[1]: None, ids[2]: 3, ids[3]: None}
    first.get_by_role('button', name='Undo').click()
    first.get_by_text('3 of 8 answered').wait_for()
    assert chosen(first, 3) is None and replies(page)[0] == {ids[0]: 5, ids[1]: None, ids[2]: 3}

def faults(page, axe):
    page.evaluate(axe)
    return page.evaluate("axe.run('.fastcf-interview', {resultTypes: ['violations']}).then(r => r.violations.filter(v => ['serious', 'critical'].includes(v.impact)).map(v => [v.id, v.help, v.nodes.length, v.nodes.slice(0, 3).map(n => n.html.slice(0, 200) + n.failureSummary.slice(0, 300))]))")

def theme(page, name):
    page.get_by_role('menuitem', name='Settings').first.click()
    page.locator('.lm-Menu-itemLabel', has_text=re.compile('^Theme$')).click()
    page.locator('.lm-Menu-itemLabel', has_text=re.compile(f'^{name}$')).click()
    page.wait_for_function(f"document.body.dataset.jpThemeName === '{name}'")

def test_accessible_in_light_and_dark(page, axe):
    assert faults(page, axe) == []
    theme(page, 'JupyterLab Dark')
    page.wait_for_timeout(500)
    look(page, 'dark')
    assert faults(page, axe) == []
    theme(page, 'JupyterLab Light')

def test_focus_is_seen(page):
    ring = "getComputedStyle(document.querySelectorAll('.fastcf-card')[{}]).outlineStyle"
    for _ in range(20): # a busy kernel may still draw what the test before clicked, and move the focus
        page.locator('.fastcf-card select').first.focus()
        page.keyboard.press('Shift+Tab'); page.keyboard.press('Tab')
        if page.evaluate(ring.format(0)) == 'solid': break
        page.wait_for_timeout(500)
    assert page.evaluate(ring.format(0)) == 'solid' and page.evaluate(ring.format(1)) == 'none'

def test_narrow(page):
    page.set_viewport_size(dict(width=560, height=1100))
    page.wait_for_timeout(800)
    look(page, 'narrow')
    wide = page.evaluate("[...document.querySelectorAll('.fastcf-interview')].map(o => [o.scrollWidth, o.clientWidth])")
    assert all(a <= b + 1 for a,b in wide), wide
    page.set_viewport_size(dict(width=1500, height=1100))

def test_titles_are_text_in_the_browser(page):
    "Every title of the page that looks like HTML is there to read, and made nothing"
    assert page.evaluate("document.querySelectorAll('.fastcf-interview :is(script, b b, img), .fastcf-poster b').length") == 0
    shown = ' '.join(page.locator('.fastcf-poster, .fastcf-side').all_text_contents())
    assert '<' in shown and [w for w in page.wrong if 'dialog' in w] == []

def test_quick_fingers(page):
    "Clicks that arrive while the page is being drawn, in another thread of the kernel, are not lost"
    first = page.locator('.fastcf-interview').nth(0)
    first.locator('.fastcf-card select').nth(4).focus()
    for key in ('1', 'Tab', '2', 'Tab', '3', 'Tab', '4'): page.keyboard.press(key)
    first.get_by_text('7 of 8 answered').wait_for()
    got,log = replies(page)
    assert [got[i] for i in log[0][1][4:]] == [1, 2, 3, 4]

def test_to_the_end(page):
    first = page.locator('.fastcf-interview').nth(0)
    first.get_by_role('button', name='Next page').click()
    first.get_by_text('Page 2 of 2').wait_for()
    page.wait_for_function("document.activeElement.matches('.fastcf-card select')")
    page.keyboard.press('5')
    first.get_by_text('1 of 8 answered').wait_for()
    first.get_by_role('button', name='Finish').click()
    first.get_by_text('Thank you!').wait_for()
    look(page, 'end')
    assert first.locator('.fastcf-card').count() == 0
    first.get_by_role('button', name='Undo').click()
    first.get_by_text('1 of 8 answered').wait_for()
    ours = [w for w in page.wrong if not re.search(r'favicon|Failed to load resource|404|403', w)]
    assert ours == []
