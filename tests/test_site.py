"The documentation site: what becomes of a notebook, links of the built pages, and the pages as a browser shows them"
import functools, http.server, re, subprocess, sys, threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit
import nbformat, pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT/'docs'))
from browser import axe, chromium
from fastcf._modidx import d as modidx
from site_builder.maps import wing_map, wings_map
from site_builder.names import foreign
from site_builder.notebooks import alt_text, directives, html_table, plain_source, png_size
from site_builder.pages import Page, Site, facts, find_pages, ordered, wings

@pytest.fixture(scope='module')
def site(): return Site()

def code(source, *outs, **kw): return nbformat.v4.new_code_cell(source, outputs=list(outs), **kw)
def md(source): return nbformat.v4.new_markdown_cell(source)
def text_out(text): return nbformat.v4.new_output('execute_result', {'text/plain': text})

def made(site, tmp_path, *cells):
    "What the site shows of a notebook with these cells, without the kinds"
    path = site.nbs/'made.ipynb'
    p = Page(path, 'made', 'Whole library')
    type(p).cells = property(lambda self: list(cells) if self.path == path else _cells(self))
    try: return list(site.cells_of(p, {}))
    finally: type(p).cells = property(_cells)
_cells = Page.cells.fget

# --- notebooks

def test_directives():
    assert directives("#| export\n#|eval: false\n#| fig-alt: A plot: of x\nx = 1 # not | one") == {'export': '', 'eval': 'false', 'fig-alt': 'A plot: of x'}
    assert plain_source("%%time\n#| echo: false\n%matplotlib inline\nx = 1\ny = 2 #| hide_line\nz = x % 2") == 'x = 1\nz = x % 2'

@pytest.mark.parametrize('directive,shown', [
    ('', ['code', 'output']), ('hide', []), ('echo: false', ['output']), ('hide_input', ['output']), ('hide_output', ['code']),
    ('eval: false', ['code', 'output']), ('default_exp made', ['code', 'output']), ('export', ['output']), ('exporti', ['output']), ('exports', ['code', 'output'])])
def test_directives_are_obeyed_and_never_shown(site, tmp_path, directive, shown):
    got = made(site, tmp_path, code(f'#| {directive}\nx = 1' if directive else 'x = 1', text_out('1')))
    assert [k for k,_ in got] == shown
    assert not any('#|' in str(o) for _,o in got)

def test_outputs(site, tmp_path):
    out = nbformat.v4.new_output
    style = out('display_data', {'text/html': '<style> progress { border: none } </style>', 'text/plain': '<HTML>'})
    empty,frame = out('display_data', {'text/html': '<div></div>'}),out('display_data', {'text/html': '<style scoped>td {}</style><table><tr><td>3</td></tr></table>'})
    tb = out('error', ename='E', evalue='no', traceback=['\x1b[0;31mE\x1b[0m: no'])
    obj = text_out('<Axes: title={"center": "x"}>')
    got = [o for k,o in made(site, tmp_path, code('x', style, empty, frame, tb, obj, out('stream', text='\n'), out('stream', name='stderr', text='50%'))) if k == 'output']
    assert got == [('text/html', '<table><tr><td>3</td></tr></table>'), ('text/plain', 'E: no')]

PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAMAAAACCAIAAAASFvFNAAAADklEQVR4nGP4DwUMcBYAZf4L9XAp2LoAAAAASUVORK5CYII='
def test_pictures_have_size_and_words(site, tmp_path):
    pic = nbformat.v4.new_output('display_data', {'image/png': PNG})
    got = [o[1] for k,o in made(site, tmp_path, md('## Losses\n\nThe loss of `learn` falls, as [it](x.md) "should":'), code('plot()', pic), code('#| fig-alt: Two <lines>\nplot()', pic), md('## Map'), code('plot()', pic)) if k == 'output']
    assert all('width="3" height="2"' in o and 'src="images/made_' in o for o in got)
    assert [re.search('alt="(.*?)" width', o)[1] for o in got] == ['The loss of learn falls, as it &quot;should&quot;', 'Two &lt;lines&gt;', 'Map']

def test_pictures_that_are_files_are_copied_with_their_size(site):
    images = {}
    got = site.pictures('See ![the "page"](images/interview.png) and ![none](images/nowhere.png)', site.pages[0], images)
    assert list(images) == ['images/interview.png'] and re.search(r'alt="the &quot;page&quot;" width="\d+" height="\d+"', got) and '![none](images/nowhere.png)' in got

def test_small_helpers():
    assert alt_text('One.\n\nTwo\nthree:') == 'Two three' and html_table('<p>') == ''
    assert html_table('<table><tr><th>a</th></tr><tr><td>1</td></tr></table>') == '| a |\n|---|\n| 1 |\n\n'
    import base64; assert png_size(base64.b64decode(PNG)) == (3, 2)

def test_order_of_pages():
    paths = [Path(o + '.ipynb') for o in ('02_b', '00_a', '10_c', '01_d')]
    stems = lambda listed: [(p.stem, t) for p,t in ordered(paths, listed)]
    assert stems('') == stems('*') == [(o, '') for o in ('00_a', '01_d', '02_b', '10_c')]
    assert stems('10_c: Last first, *, 00_a') == [('10_c', 'Last first'), ('01_d', ''), ('02_b', ''), ('00_a', '')]
    assert [s for s,_ in stems('02_b, gone')] == ['02_b', '00_a', '01_d', '10_c']

def test_every_notebook_is_a_page_whether_named_or_not(tmp_path):
    nbs = tmp_path/'nbs'
    for o in ('index', '50_never_heard_of', 'tutorials/new', 'tutorials/glossary', 'learn/02_x', 'learn/01_y', 'learn/index'):
        (nbs/o).parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(nbformat.v4.new_notebook(cells=[md(f'# {o}')]), nbs/f'{o}.ipynb')
    pages = find_pages(facts(), nbs)
    assert [(p.doc, p.section) for p in pages[:-2]] == [('index', ''), ('tutorials/new', 'Tutorials'), ('tutorials/glossary', 'Tutorials'), ('learn/index', 'Learning'), ('learn/y', 'Learning'), ('learn/x', 'Learning'), ('never_heard_of', 'Whole library')]

def test_sidebar_names_notebooks_that_exist():
    s = facts()
    here = {p.stem for p in (ROOT/'nbs').rglob('*.ipynb')} | {'*'}
    assert [o for k in ('tutorials',) for o in re.split(r',\s*', s[k]) if o.partition(':')[0] not in here] == []

def test_the_sidebar_holds_every_page_once(site):
    listed = [d for p in site.pages if p.doc == 'index' or p.is_opening for d in re.findall(r'^/(\S+)$|</(\S+)>$', site.toctrees(p), re.M)]
    assert sorted(a or b for a,b in listed) == sorted(p.doc for p in site.pages if p.doc != 'index')

# --- maps

def closure(arrows):
    "All pairs of which the first leads to the second by arrows"
    res = set(arrows)
    while more := {(a, d) for a,b in res for c,d in res if b == c} - res: res |= more
    return res

def drawn(svg): return set(re.findall(r'data-from="([^"]+)" data-to="([^"]+)"', svg))

def test_maps_say_what_the_modules_import(site):
    "Every import, and nothing else, follows from the arrows; imports are read by the test of the order of rooms"
    from test_structure import imports, parse, rooms
    known = [m for m in rooms() if m not in ('fastcf.all', 'fastcf.demo')]
    found = {(m, t) for m in known for full,names,_ in imports(parse(ROOT, m), m) for t in (full, *(f'{full}.{n}' for n in names)) if t in known}
    between = {(m.split('.')[1], t.split('.')[1]) for m,t in found}
    assert closure(drawn(wings_map({}))) == closure({(a, b) for a,b in between if a != b})
    assert len(drawn(wings_map({}))) > 4
    for wing in wings(site.settings):
        inside = {(m.split('.')[2], t.split('.')[2]) for m,t in found if m.split('.')[1] == t.split('.')[1] == wing}
        arrows = drawn(wing_map(wing, {}))
        assert {(a, b) for a,b in closure(arrows) if not b.endswith('…')} == closure(inside), wing
        outside = {(m.split('.')[2], t.split('.')[1]) for m,t in found if m.split('.')[1] == wing != t.split('.')[1]} - {(a, 'core') for a,_ in inside}
        assert {(a, b.removesuffix(' …')) for a,b in arrows if b.endswith('…')} <= outside, wing

def test_a_new_import_is_on_the_map_and_one_that_follows_is_not(tmp_path):
    def rooms(**modules):
        for name,code in modules.items():
            p = tmp_path/f"fastcf/{name.replace('__', '/')}.py"
            p.parent.mkdir(parents=True, exist_ok=True)
            p.write_text(code)
    rooms(core='', data__vocab='from ..core import x', data__checks='from .vocab import y', learn__model='from fastcf.data import checks')
    assert drawn(wing_map('data', {}, tmp_path)) == {('checks', 'vocab')} and drawn(wings_map({}, tmp_path)) == {('learn', 'data'), ('data', 'core')}
    rooms(data__loaders='from .vocab import y\ndef f():\n    import fastcf.data.checks', learn__model='import fastcf.data.vocab, fastcf.core')
    assert drawn(wing_map('data', {}, tmp_path)) == {('checks', 'vocab'), ('loaders', 'checks')} and drawn(wings_map({}, tmp_path)) == {('learn', 'data'), ('data', 'core')}
    assert wing_map('rank', {}, tmp_path) == '' and drawn(wing_map('learn', {}, tmp_path)) == {('model', 'data …')}

def test_maps_are_wide_enough_for_their_boxes(site):
    "No box lies on another or outside the picture, and each leads to a page"
    links = site.addresses(site.pages[0])
    for svg in [wings_map(links), *(wing_map(w, links) for w in wings(site.settings))]:
        width,height = map(int, re.search(r'width="(\d+)" height="(\d+)"', svg).groups()) if svg else (0, 0)
        boxes = [tuple(map(int, o)) for o in re.findall(r'<rect x="(-?\d+)" y="(-?\d+)" width="(\d+)" height="(\d+)"', svg)]
        assert all(x >= 0 and y >= 0 and x + w <= width and y + h <= height for x,y,w,h in boxes)
        for i,(x,y,w,h) in enumerate(boxes): assert not [o for o in boxes[:i] if x < o[0] + o[2] and o[0] < x + w and y < o[1] + o[3] and o[1] < y + h]
        assert svg.count('<a href') == len(boxes)

def test_opening_pages_list_every_room(site):
    for p in site.pages:
        if not p.is_opening: continue
        rooms,shown = [o for o in site.pages if o.section == p.section and o != p],''.join(site.with_rooms(c.source.strip(), p) for c in p.cells)
        assert shown.count('<!-- map: ') == 1
        assert [o.doc for o in rooms if f']({o.path.name}' not in shown] == []

# --- names

@pytest.mark.parametrize('name,url', [
    ('Learner', 'https://docs.fast.ai/learner.html#learner'), ('learn.fit_one_cycle', 'https://docs.fast.ai/callback.schedule.html#learner.fit_one_cycle'),
    ('nn.Embedding', 'https://docs.pytorch.org/docs/stable/generated/torch.nn.Embedding.html'), ('Tensor', 'https://docs.pytorch.org/docs/stable/tensors.html#torch.Tensor'),
    ('pd.read_csv', 'https://pandas.pydata.org/docs/reference/api/pandas.read_csv.html'), ('DataFrame.merge', 'https://pandas.pydata.org/docs/reference/api/pandas.DataFrame.merge.html'),
    ('np.unique', 'https://numpy.org/doc/stable/reference/generated/numpy.unique.html'), ('ValueError', 'https://docs.python.org/3/library/exceptions.html#ValueError'),
    ('item', None), ('nn.NoSuchLayer', None), ('pd.read_nothing', None), ('user_id', None), ('rating', None)])
def test_addresses_of_other_libraries(name, url): assert foreign(name) == url

@pytest.mark.parametrize('before,after', [
    ('see `cf_learner`', 'see {py:obj}`cf_learner <fastcf.learn.learner.cf_learner>`'), ('`learn.predict()`', '{py:obj}`learn.predict() <fastcf.learn.predict.CFLearner.predict>`'),
    ('`recommend` it', '{py:obj}`recommend <fastcf.rank.topn.CFLearner.recommend>` it'), ('`user`, ``cf_learner``', '`user`, ``cf_learner``'),
    ('## `cf_learner`', '## `cf_learner`'), ('[`cf_learner`](x.md)', '[`cf_learner`](x.md)'), ('```python\n`cf_learner`\n```', '```python\n`cf_learner`\n```'),
    ('`cf_learner(dls)`', '`cf_learner(dls)`'), ('`nn.Module`', '[`nn.Module`](https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html)')])
def test_backticked_names_are_linked(site, before, after): assert site.names.linkify(before) == after

def test_links_to_files_become_links_to_pages(site):
    p = next(p for p in site.pages if p.doc == 'tutorials/first_ten_minutes')
    assert site.links('[a](../learn/02_learner.ipynb#weights) [b](https://x.org/y) [c](#here)', p) == '[a](../learn/learner.ipynb#weights) [b](https://x.org/y) [c](#here)'
    assert site.links('[l](LICENSE)', p) == f"[l]({site.blob('LICENSE')})"
    index = site.pages[0]
    assert site.links('[t](nbs/tutorials/first_ten_minutes.ipynb) [c](CONTRIBUTING.md)', index) == '[t](tutorials/first_ten_minutes.ipynb) [c](contributing.ipynb)'

def test_symbols_know_parameters_returns_errors_and_lines(site):
    s = site.symbols['fastcf.rank.topn.CFLearner.recommend']
    assert s.signature() == "(users=None, k=10, exclude_seen=True, min_ratings=1, items=None, rank_by=None, unknown='error', interval=None)" and s.kind == 'method' and s.patched
    assert s.params()[1] == ('k', 'int', '10', 'How many items for each') and s.returns()[0] == 'pd.DataFrame'
    assert ('ValueError', 'k: expected a whole number above 0, got …') in site.errors.of(s) and 'UnknownIdError' in dict(site.errors.of(s))
    stats = {n: o for n,o in site.symbols.items() if n.startswith('fastcf.watch.embedding_stats.EmbeddingStats.')}
    update = next(o for n,o in site.symbols.items() if n.endswith('Belief.update'))
    assert site.errors.of(update) and all(set(site.errors.of(update)).isdisjoint(site.errors.of(o)) for n,o in stats.items() if n.endswith('after_validate')) and not stats['fastcf.watch.embedding_stats.EmbeddingStats.after_validate'].public # a dictionary's `update` is not ours; an event is for fastai
    cf = site.symbols['fastcf.learn.learner.cf_learner']
    assert 'wd_bn_bias' in [n for n,*_ in cf.delegated()] and cf.signature().endswith('model=None, **kwargs)')
    assert site.symbols['fastcf.data.loaders.CFDataLoaders.from_csv'].kind == 'classmethod' and site.symbols['fastcf.data.loaders.CFDataLoaders.catalog'].kind == 'property'
    assert [p[0] for p in site.symbols['fastcf.data.sources.RatingsData'].params()] == ['ratings', 'users', 'items']
    for s in site.symbols.values():
        lines = (ROOT/s.file).read_text().split('\n')[s.line-1:s.line+s.code.count('\n')]
        assert '\n'.join(lines).strip().startswith(s.code.split('\n')[0]) and lines[-1].strip() == s.code.split('\n')[-1].strip(), s.full

# --- the built site

class Html(HTMLParser):
    "Ids, links, pictures and text of a page"
    def __init__(self, path):
        super().__init__()
        self.ids,self.links,self.images,self.text,self.skip = set(),[],[],'',0
        self.feed(path.read_text())
    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        self.ids |= {a[k] for k in ('id', 'name') if a.get(k)}
        self.links += [a[k] for k in ('href', 'src') if a.get(k)]
        if tag == 'img': self.images.append(a)
        if tag in ('script', 'style'): self.skip += 1
    def handle_endtag(self, tag):
        if tag in ('script', 'style'): self.skip -= 1
    def handle_data(self, data):
        if not self.skip: self.text += data

@pytest.fixture(scope='session') # once, whatever runs in between
def html(tmp_path_factory):
    "The folder of the site, built anew by the script that `make docs` runs"
    out = tmp_path_factory.mktemp('site')
    p = subprocess.run([sys.executable, ROOT/'docs/build.py', out], capture_output=True, text=True)
    assert p.returncode == 0, p.stdout[-3000:] + p.stderr[-3000:]
    return out/'html'

@pytest.fixture(scope='session') # once, whatever runs in between
def parsed(html): return {p.relative_to(html).as_posix(): Html(p) for p in sorted(html.rglob('*.html'))}

def test_no_broken_link_or_anchor(html, parsed):
    bad = []
    for name,page in parsed.items():
        for link in page.links:
            u = urlsplit(link)
            if u.scheme or link.startswith('//') or name == 'search.html' and link == '': continue
            path = urljoin(name, unquote(u.path)) if u.path else name
            if path.endswith('/') or path == '': path += 'index.html'
            if not (html/path).exists(): bad.append(f'{name}: {link}')
            elif u.fragment and path in parsed and unquote(u.fragment) not in parsed[path].ids: bad.append(f'{name}: {link}')
    assert sum(len(p.links) for p in parsed.values()) > 500 and bad == []

def test_only_secure_addresses_of_known_sites(parsed):
    hosts = {urlsplit(l).netloc for p in parsed.values() for l in p.links if urlsplit(l).scheme}
    assert {urlsplit(l).scheme for p in parsed.values() for l in p.links} <= {'', 'https', 'data', 'mailto'}
    assert {'github.com', 'docs.fast.ai', 'docs.pytorch.org', 'pandas.pydata.org'} <= hosts

def test_every_picture_has_words_and_a_size(html, parsed):
    pictures = [(n, i) for n,p in parsed.items() for i in p.images if 'logo' not in i.get('src', '')]
    assert {Path(i['src']).name for _,i in pictures} == {p.name for p in (html/'images').iterdir()} # each plot of a notebook is on its page
    assert len(pictures) > 5
    assert [(n, i) for n,i in pictures if not (i.get('alt', '').strip() and int(i.get('width', 0)) and int(i.get('height', 0)))] == []
    assert [n for n,p in parsed.items() for i in p.images if 'alt' not in i] == []

def test_no_directive_is_visible(parsed):
    assert [(n, m[0]) for n,p in parsed.items() for m in re.finditer(r'#\|.{,30}|\{\.[a-z-]+\}|^%%?\w+.*', p.text, re.M)] == []
    assert not any('nbdev_export()' in p.text for p in parsed.values())

def test_every_public_name_is_documented(site, parsed):
    missing,short = [],[]
    for s in site.symbols.values():
        if not s.public: continue
        doc = next((p.doc for p in site.pages if p.path.as_posix().endswith(f'nbs/{s.notebook}')), None)
        page = parsed[f'{doc}.html']
        if not {s.full, s.name.lower()} & page.ids or s.full not in page.ids: missing.append(s.full)
        short += [f'{s.full}: {n}' for n,_,_,m in s.params() if n not in page.text or m.replace('`', '')[:40] not in page.text]
    assert missing == [] and short == []

def test_addresses_that_nbdev_gives_other_projects_lead_somewhere(site, parsed):
    public = {s.full for s in site.symbols.values() if s.public}
    links = {full: nb for syms in modidx['syms'].values() for full,(nb,_) in syms.items() if full in public}
    assert len(links) == len(public & set(links)) > 40
    assert [f for f,l in links.items() if l.split('#')[1] not in parsed[l.split('#')[0]].ids] == []

def test_for_machines(html, site):
    llms = (html/'llms.txt').read_text()
    links = re.findall(r'\((https://[^)]+)\)', llms)
    assert len(links) == len(site.pages) and all((html/l.removeprefix(site.settings['site'])).exists() for l in links)
    for p in site.pages:
        text = (html/f'{p.doc}.html.md').read_text()
        assert text.startswith('# ') and '#|' not in text
    assert '### `cf_learner(dls, factor_count=None' in (html/'learn/learner.html.md').read_text()
    for m in (ROOT/'fastcf').rglob('*.py'): # the addresses in the modules' docstrings
        for l in re.findall(r'^Docs: ([^\s\"]+)', m.read_text(), re.M): assert (html/l.removeprefix(site.settings['site'])).exists(), l

def test_notebooks_to_download(html, site):
    for p in site.pages:
        if p.path.suffix != '.ipynb': continue
        nb = nbformat.read(html/f'notebooks/{p.doc}.ipynb', 4)
        nbformat.validate(nb)
        assert 'pip install' in nb.cells[0].source and not any('nbdev_export()' in c.source for c in nb.cells)

def test_facts_come_from_the_settings(html, site):
    s,index = site.settings,(html/'index.html').read_text()
    assert s['copyright'] in index and s['title'] in index and f'<link rel="canonical" href="{s["site"]}index.html"' in index
    said = ''.join(p.read_text() for p in (ROOT/'docs').rglob('*.py'))
    assert not any(s[k] in said for k in ('repo', 'site', 'copyright', 'subtitle'))

def test_the_workflow_builds_and_publishes_what_make_docs_makes():
    import yaml
    w = yaml.safe_load((ROOT/'.github/workflows/docs.yml').read_text())
    steps = [s for j in w['jobs'].values() for s in j['steps']]
    assert any(s.get('run') == 'make docs' for s in steps)
    assert any(s.get('with', {}).get('path') == '_docs/html' for s in steps) and any('deploy-pages' in s.get('uses', '') for s in steps)

def test_help_answers_without_loading_what_is_heavy():
    code = "import sys, fastcf.demo; print([m for m in ('torch', 'fastai', 'matplotlib') if m in sys.modules])"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '[]'

# --- in a browser

@pytest.fixture(scope='module')
def address(html):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=html))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}/'
    server.shutdown()

@pytest.fixture
def opened(chromium, address):
    "A function that opens a page and returns it with the list of what went wrong while loading"
    contexts = []
    def _open(name, width=1280, scheme='light'):
        contexts.append(c := chromium.new_context(viewport=dict(width=width, height=900), color_scheme=scheme))
        page,wrong = c.new_page(),[]
        page.on('console', lambda m: wrong.append(m.text) if m.type in ('error', 'warning') else None)
        page.on('pageerror', lambda e: wrong.append(str(e)))
        page.on('requestfailed', lambda r: wrong.append(f'failed: {r.url}'))
        page.on('response', lambda r: wrong.append(f'{r.status}: {r.url}') if r.status >= 400 else None)
        page.on('request', lambda r: wrong.append(f'from elsewhere: {r.url}') if not r.url.startswith((address, 'data:')) else None)
        page.goto(address + name, wait_until='load')
        return page,wrong
    yield _open
    for c in contexts: c.close()

def names(html): return sorted(p.relative_to(html).as_posix() for p in html.rglob('*.html'))

@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_every_page_loads_and_is_accessible(html, opened, axe, scheme):
    faults = {}
    for name in names(html):
        page,wrong = opened(name, scheme=scheme)
        page.evaluate("document.querySelectorAll('details').forEach(o => o.open = true); document.querySelectorAll('img').forEach(o => o.loading = 'eager')")
        page.wait_for_function("[...document.images].every(o => o.complete)")
        broken = page.evaluate("[...document.images].filter(o => !o.naturalWidth).map(o => o.src)")
        page.evaluate(axe)
        found = page.evaluate("axe.run({resultTypes: ['violations']}).then(r => r.violations.filter(v => ['serious', 'critical'].includes(v.impact)).map(v => [v.id, v.help, v.nodes.length, v.nodes.slice(0, 3).map(n => n.html.slice(0, 200) + n.failureSummary.slice(0, 200))]))")
        if wrong or broken or found: faults[name] = wrong + broken + found
        page.context.close()
    assert faults == {}

def test_narrow_screens_do_not_scroll_sideways(html, opened):
    wide = {}
    for name in names(html):
        page,_ = opened(name, width=380)
        page.evaluate("document.querySelectorAll('details').forEach(o => o.open = true)")
        if (w := page.evaluate('document.documentElement.scrollWidth')) > 380:
            wide[name] = w,page.evaluate("[...document.querySelectorAll('article *')].filter(o => o.getBoundingClientRect().right > 381).slice(0, 3).map(o => o.outerHTML.slice(0, 150))")
        page.context.close()
    assert wide == {}

def test_search_finds_every_public_name(site, opened):
    page,_ = opened('search.html')
    lost = []
    for s in site.symbols.values():
        if not s.public: continue
        page.goto(page.url.partition('?')[0] + f'?q={s.name}')
        page.wait_for_function("document.querySelector('#search-results .search-summary, #search-results p')?.textContent.match(/found|matching|did not/i)")
        if not page.locator(f'#search-results a[href$="#{s.full}"]').count(): lost.append(s.full)
    assert lost == []

def test_dark_and_light_and_by_keyboard(opened):
    page,_ = opened('learn/learner.html')
    look = lambda: page.evaluate("[document.body.dataset.theme, getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every(o => o < 60)]")
    seen = []
    for _ in range(3): page.locator('.theme-toggle:visible').first.click(); seen.append(look())
    assert sorted(map(tuple, seen)) == [('auto', False), ('dark', True), ('light', False)]
    page,_ = opened('learn/learner.html')
    page.keyboard.press('Tab')
    assert 'skip' in page.evaluate("document.activeElement.textContent").lower()
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press('/')
    assert page.evaluate("document.activeElement.name") == 'q'
    page.keyboard.type('recommend'); page.keyboard.press('Enter')
    page.wait_for_url('**/search.html?q=recommend*')

def test_previous_and_next(site, opened):
    docs = [p.doc for p in site.pages]
    page,_ = opened(f'{docs[3]}.html')
    assert page.locator('a.next-page').get_attribute('href').endswith(f'{docs[4].split("/")[-1]}.html')
    assert page.locator('a.prev-page').get_attribute('href').endswith(f'{docs[2].split("/")[-1]}.html')
    page.keyboard.press('ArrowRight')
    page.wait_for_url(f'**/{docs[4]}.html')

def test_figures_are_turned_over_in_dark_mode(opened):
    from io import BytesIO
    from PIL import Image
    def corner(scheme):
        page,_ = opened('learn/learner.html', scheme=scheme)
        img = page.locator('.plot img').first
        img.scroll_into_view_if_needed()
        page.wait_for_function("[...document.querySelectorAll('.plot img')][0].complete")
        return Image.open(BytesIO(img.screenshot())).convert('RGB').getpixel((3, 3)), page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)")
    for scheme in ('light', 'dark'):
        pixel,page = corner(scheme)
        assert max(abs(a - b) for a,b in zip(pixel, page)) < 10, (scheme, pixel, page) # white paper in the light, the page's colour in the dark
