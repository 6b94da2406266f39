"""Pages of the site from nbdev's notebooks: what is shown of each cell, the documentation of what it exports, links, pictures"""
import configparser, re
from base64 import b64decode
from dataclasses import dataclass
from html import escape
from pathlib import Path
import nbformat
try: import tomllib
except ModuleNotFoundError: import tomli as tomllib # Python 3.10; pytest brings it
from .maps import in_words, wing_map, wings_map
from .names import Names
from .notebooks import alt_text, directives, html_table, plain_source, png_size
from .symbols import ROOT, Errors, read_symbols

NBS = ROOT/'nbs'
MAP = re.compile(r'<!-- map: (\w+) -->.*?(?=\n\n|\Z)', re.S)

def facts(root=ROOT):
    "Title, addresses, order of pages and so on, from settings.ini and pyproject.toml"
    c = configparser.ConfigParser(interpolation=None)
    c.read(root/'settings.ini')
    project = tomllib.loads((root/'pyproject.toml').read_text())['project']
    return {**c['DEFAULT'], 'name': project['name'], 'repo': project['urls']['Repository'].rstrip('/'), 'site': project['urls']['Documentation'].rstrip('/') + '/'}

# --- which pages there are, and in which order

@dataclass
class Page:
    "A notebook, or one of the project's Markdown files, as a page"
    path:Path # The file
    doc:str # The page's name, such as `learn/model` or `tutorials/glossary`
    section:str # Heading in the sidebar
    title:str='' # In the sidebar, where it is not the page's own

    @property
    def cells(self): return nbformat.read(self.path, 4).cells if self.path.suffix == '.ipynb' else [nbformat.v4.new_markdown_cell(self.path.read_text())]

    @property
    def own_title(self): return next((m[1] for c in self.cells if (m := re.match(r'# (.+)', c.source))), self.path.stem)

    @property
    def summary(self):
        "The sentence after the title"
        return next((re.sub(r'\s+', ' ', m[1]) for c in self.cells if c.cell_type == 'markdown' and (m := re.search(r'^> (.+)', c.source, re.M))), '')

    @property
    def is_opening(self): return self.doc.endswith('/index')

    @property
    def root(self): return '../' * self.doc.count('/')

def ordered(paths, listed):
    "`paths` in the order of the names in `listed`; `*`, or else the end, is the place of those not named, by number"
    names = dict(re.match(r'([^:]+):?\s*(.*)', o.strip()).groups() for o in listed.split(',') if o.strip())
    rest = [p for p in sorted(paths, key=lambda p: p.stem) if p.stem not in names]
    if '*' not in names: names['*'] = ''
    by_stem = {p.stem: p for p in paths}
    for n,title in names.items():
        if n == '*': yield from ((p, '') for p in rest)
        elif n in by_stem: yield by_stem[n],title

def wings(settings):
    "The wings and their headings in the sidebar, lowest first"
    return {name.strip(): title.strip() for name,_,title in (o.partition(':') for o in settings['wings'].split(','))}

def in_wing(folder):
    "The notebooks of a wing: its opening page, then its rooms by their numbers"
    return sorted(folder.glob('*.ipynb'), key=lambda p: (p.stem != 'index', p.stem))

def find_pages(settings, nbs=NBS):
    "Every notebook in `nbs`, and the Markdown files that are pages too; the numbers in front of names give the order only"
    doc = lambda p: re.sub(r'(^|/)\d+[a-z]?_', r'\1', p.relative_to(nbs).with_suffix('').as_posix())
    res = [Page(nbs/'index.ipynb', 'index', '')]
    res += [Page(p, doc(p), 'Tutorials', t) for p,t in ordered(list((nbs/'tutorials').glob('*.ipynb')), settings['tutorials'])]
    for wing,title in wings(settings).items(): res += [Page(p, doc(p), title) for p in in_wing(nbs/wing)]
    res += [Page(p, doc(p), 'Whole library') for p in sorted(nbs.glob('*.ipynb')) if p.stem != 'index']
    return res + [Page(ROOT/f'{n}.md', n.lower(), 'Project') for n in ('CONTRIBUTING', 'CHANGELOG')]

# --- what a symbol's documentation says

def _cell(text): return text.replace('|', '\\|').replace('\n', ' ')

def _types(t):
    "A type with each of its parts in backticks, so that each can be linked"
    return ' or '.join(f'`{o.strip()}`' for o in re.split(r'\|(?![^\[]*\])', t)) if t else ''

def _table(params):
    "Parameters as a table, with the columns that have something to say"
    if not params: return ''
    typed = any(t for _,t,_,_ in params)
    rows = [[f'``{n}``', *([_types(t)] if typed else []), '' if d is None else f'``{d}``', m] for n,t,d,m in params]
    head = ['Parameter', *(['Type'] if typed else []), 'Default', 'Meaning']
    return '\n'.join('| ' + ' | '.join(map(_cell, r)) + ' |' for r in [head, ['---'] * len(head), *rows]) + '\n\n'

def _toctree(caption, entries):
    if not entries: return ''
    head = f':caption: {caption}\n' if caption else ''
    return f'```{{toctree}}\n:hidden:\n{head}\n' + '\n'.join(entries) + '\n```\n\n'

def _details(summary, body, cls): return f'<details class="{cls}"><summary>{summary}</summary>\n\n{body.strip()}\n\n</details>\n\n'

def _code(source): return f'```python\n{source.strip()}\n```\n\n'

class Site:
    "All that is needed to turn notebooks into pages"
    def __init__(self, settings=None, nbs=NBS):
        self.settings,self.symbols,self.nbs = settings or facts(),read_symbols(),nbs
        self.pages,self.errors,self.names = find_pages(self.settings, nbs),Errors(self.symbols),Names(self.symbols)
        self.by_cell,self.doc_of = {},{p.path.resolve(): p for p in self.pages}
        members = {m.full for s in self.symbols.values() for m in s.members}
        for s in self.symbols.values():
            if s.full not in members: self.by_cell.setdefault((s.notebook, s.cell), []).append(s)

    def blob(self, path, plain=False):
        "A file's address on GitHub"
        return f"{self.settings['repo']}/blob/{self.settings['branch']}/{path}{'?plain=1' if plain else ''}"

    def source_links(self, s):
        "Links to the lines of a symbol in its module and in its notebook"
        end = s.line + s.code.count('\n')
        text = (self.nbs/s.notebook).read_text()
        at = text[:max(0, text.find(f'"id": "{s.cell}"'))].count('\n') + 1
        return f"[source]({self.blob(s.file)}#L{s.line}-L{end}) · [cell of the notebook]({self.blob(f'nbs/{s.notebook}', True)}#L{at})"

    def told(self, s):
        "What is said about a symbol, as Markdown: its docstring, parameters, what it returns, errors, code"
        md = f'{s.doc}\n\n' if s.doc else ''
        if s.bases and s.kind == 'class': md += f"A subclass of {', '.join(f'`{b}`' for b in s.bases)}.\n\n"
        md += _table(s.params())
        if more := s.delegated(): md += _details(f'{len(more)} more, passed on', _table(more), 'more')
        typ,meaning = s.returns()
        if typ or meaning: md += f"**{'Value' if s.kind == 'property' else 'Returns'}** {_types(typ)}{': ' if typ and meaning else ''}{meaning}\n\n"
        if errors := self.errors.of(s):
            listed = ''.join(f'- `{e}`: {m}\n' for e,m in errors)
            md += f'**Errors**\n\n{listed}\n' if len(errors) <= 4 else _details(f'{len(errors)} errors it may raise', listed, 'errors')
        return md + (_code(s.code) if s.kind == 'data' else _details('Code', _code(s.code), 'code'))

    def directive(self, s, depth=0):
        "The documentation of a symbol and of its members, for Sphinx' Python domain"
        fence = ':' * (4 if s.members else 3)
        head = f'<span id="{escape(s.name.lower())}" class="anchor"></span>\n\n' if s.name.lower() != s.name or depth == 0 else ''
        body = self.names.linkify(self.told(s)) + f'{{.source-links}}\n{self.source_links(s)}\n\n'
        body += ''.join(self.directive(m, depth+1) for m in s.members)
        return f"{head}{fence}{{py:{s.kind}}} {s.name}{s.signature()}\n:module: {s.module}\n\n{body}{fence}\n\n"

    def in_words(self, s):
        "The documentation of a symbol as plain Markdown"
        return f'### `{s.name}{s.signature()}`\n\n' + re.sub(r'</?details.*?>|<summary>(.*?)</summary>', '', self.told(s)) + ''.join(self.in_words(m) for m in s.members)

    # --- what becomes of a cell

    def links(self, md, page, here=lambda p, anchor: f"{p}{anchor}"):
        "Markdown with its links to files turned into links to pages, or to GitHub where there is no page"
        def _one(m):
            text,target = m[1],m[2]
            if re.match(r'[a-z]+:|#', target): return m[0]
            path,_,anchor = target.partition('#')
            found = next((o for o in ((page.path.parent/path).resolve(), (ROOT/path).resolve()) if o.exists()), None)
            if found in self.doc_of: return f"[{text}]({here(page.root + self.doc_of[found].doc, '.ipynb' + ('#' + anchor if anchor else ''))})"
            return m[0] if found is None else f'[{text}]({self.blob(found.relative_to(ROOT).as_posix())})'
        return re.sub(r'(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)', _one, md)

    def pictures(self, md, page, images):
        "Markdown with its pictures that are files put into `images`, each with its size"
        def _one(m):
            found = next((o for o in (page.path.parent/m[2], ROOT/m[2], ROOT/'docs'/m[2]) if o.exists()), None)
            if found is None: return m[0]
            path = f'images/{found.name}'
            images[path] = found.read_bytes()
            w,h = png_size(images[path])
            return f'<img class="picture" src="{page.root}{path}" alt="{escape(m[1])}" width="{w}" height="{h}" loading="lazy">'
        return re.sub(r'!\[([^\]]*)\]\(([^)\s:]+\.png)\)', _one, md)

    def addresses(self, page):
        "Addresses of the pages of wings and rooms, such as `{'learn': '../learn/index.html', 'learn.model': '../learn/model.html'}`"
        docs = {p.doc: f'{page.root}{p.doc}.html' for p in self.pages}
        return {d.removesuffix('/index').replace('/', '.'): a for d,a in docs.items()}

    def maps(self, md, page):
        "Markdown with `<!-- map: wing -->`, and the paragraph that stands there in a plain notebook, replaced by a map"
        def _one(m):
            links = self.addresses(page)
            svg = wings_map(links) if m[1] == 'wings' else wing_map(m[1], links)
            about = 'An arrow is an import; those that follow from others are left out. Drawn from the modules as this page was made.'
            return f'<figure class="map">{svg}<figcaption>{about}</figcaption></figure>' if svg else ''
        return MAP.sub(_one, md)

    def with_rooms(self, md, page):
        "Markdown of an opening page with a place for its map, and after it a list of the rooms that the page itself does not link to"
        if not page.is_opening: return md
        own = [c.source for c in page.cells if c.cell_type == 'markdown']
        if md == own[-1].strip() and not any(map(MAP.search, own)): md += f'\n\n<!-- map: {page.doc.partition("/")[0]} -->'
        rooms = [p for p in self.pages if p.section == page.section and p != page and f']({p.path.name}' not in ''.join(own)]
        listed = ''.join(f'- [{p.own_title}]({p.path.name}): {p.summary}\n' for p in rooms)
        return MAP.sub(lambda m: f'{m[0]}\n\n{listed}', md)

    def shown_symbols(self, page, cell):
        "The symbols that an exported cell defines; none of a cell of imports"
        return self.by_cell.get((page.path.relative_to(self.nbs).as_posix(), cell.id), [])

    def cells_of(self, page, images):
        "(kind, text or output) of all that is shown of a page, in order: 'prose', 'symbol', 'private', 'code', 'output'"
        before = ''
        for cell in page.cells:
            said,source = directives(cell.source),plain_source(cell.source)
            if 'hide' in said or 'default_exp' in said and cell.cell_type == 'code' and not cell.outputs: continue
            if cell.cell_type != 'code':
                if cell.cell_type == 'markdown' and cell.source.strip(): yield 'prose',self.pictures(cell.source.strip(), page, images); before = cell.source
                continue
            if {'export', 'exports', 'exporti'} & set(said):
                for s in self.shown_symbols(page, cell): yield ('symbol' if s.public else 'private'),s
            elif m := re.match(r'show_doc\(([\w.]+)', source):
                if full := self.names.find(m[1]): yield 'symbol',self.symbols[full]
                continue
            if source and not ({'export', 'exporti', 'hide_input'} & set(said)) and said.get('echo') != 'false': yield 'code',source
            if 'hide_output' in said or said.get('output') == 'false': continue
            alt = said.get('fig-alt') or said.get('fig-cap') or alt_text(before) or page.own_title
            for out in cell.outputs:
                if kind := self.output(out, page, alt, images): yield 'output',kind

    def output(self, out, page, alt, images):
        "(mime type, text) of an output, or `None` where it says nothing; a picture is put into `images` under its path"
        if out.output_type == 'stream': return ('text/plain', out.text.rstrip()) if out.text.strip() and (out.name == 'stdout' or 'arning' in out.text) else None
        if out.output_type == 'error': return 'text/plain','\n'.join(re.sub(r'\x1b\[[\d;]*m', '', o) for o in out.traceback)
        data = out.data
        if 'image/png' in data:
            blob,name = b64decode(data['image/png']),page.doc.replace('/', '_')
            path = f'images/{name}_{sum(p.startswith(f"images/{name}_") for p in images) + 1}.png'
            images[path] = blob
            size = out.metadata.get('image/png', {})
            w,h = (size.get('width'), size.get('height')) if size.get('width') and size.get('height') else png_size(blob)
            return 'image',f'<img src="{page.root}{path}" alt="{escape(alt)}" width="{w}" height="{h}" loading="lazy">'
        if 'image/svg+xml' in data: return 'text/html',f'<div role="img" aria-label="{escape(alt)}">{data["image/svg+xml"]}</div>'
        if 'text/html' in data:
            html = re.sub(r'<style scoped>.*?</style>', '', ''.join(data['text/html']), flags=re.S)
            blank = not re.search(r'<(img|svg|table|input|button|iframe)\b', html) and not re.sub(r'<style.*?</style>|<!--.*?-->|<[^>]*>|\s', '', html, flags=re.S)
            return None if blank else ('text/html', html)
        if 'text/markdown' in data: return 'text/markdown',''.join(data['text/markdown'])
        if 'text/latex' in data: return 'text/markdown',''.join(data['text/latex'])
        text = ''.join(data.get('text/plain', ''))
        return ('text/plain', text) if text.strip() and not re.fullmatch(r'<(Axes|Figure|IPython|matplotlib).*>', text.strip()) else None

    # --- a page for Sphinx, and one for those who would rather have Markdown

    def page_notebook(self, page, images):
        "A page as a notebook for MyST-NB: prose with links, documentation in place of exported code, outputs as they were stored"
        cells,first = [],True
        for kind,o in self.cells_of(page, images):
            if kind == 'prose':
                md = self.maps(self.names.linkify(self.links(self.with_rooms(o, page), page)), page)
                if first: md = self.opening(md, page); first = False
                cells.append(nbformat.v4.new_markdown_cell(md))
            elif kind == 'symbol': cells.append(nbformat.v4.new_markdown_cell(self.directive(o)))
            elif kind == 'private': cells.append(nbformat.v4.new_markdown_cell(_details(f'Code of <code>{escape(o.name)}</code>', _code(o.code), 'code')))
            elif kind == 'code': cells.append(nbformat.v4.new_code_cell(o))
            else:
                if not (cells and cells[-1].cell_type == 'code'): cells.append(nbformat.v4.new_code_cell('...', metadata={'tags': ['remove-input']})) # with no source it would be dropped
                cells[-1].outputs.append(self._stored(*o))
        meta = {'myst': {'html_meta': {'description': page.summary or page.own_title}}, 'kernelspec': {'name': 'python3', 'display_name': 'Python 3', 'language': 'python'}, 'language_info': {'name': 'python'}}
        return nbformat.v4.new_notebook(cells=cells, metadata=meta)

    def _stored(self, mime, text):
        if mime == 'image': mime,text = 'text/html',f'<div class="plot">{text}</div>'
        if mime == 'text/plain': return nbformat.v4.new_output('stream', text=text + '\n')
        return nbformat.v4.new_output('display_data', data={mime: text})

    def opening(self, md, page):
        "The first cell with its sentence set off, and ways to have the page as a notebook"
        md = re.sub(r'^> (.+)$', r'{.lead}\n\1', md, count=1, flags=re.M)
        if page.path.suffix != '.ipynb': return md
        nb,mod = page.path.relative_to(ROOT).as_posix(),next((s.module for s in self.symbols.values() if s.notebook == page.path.relative_to(self.nbs).as_posix()), None)
        colab = f"https://colab.research.google.com/{self.settings['repo'].replace('https://', '').replace('github.com', 'github', 1)}/blob/{self.settings['branch']}/{nb}"
        tools = [f'<a href="{page.root}notebooks/{page.doc}.ipynb" download>Download as notebook</a>', f'[View on GitHub]({self.blob(nb)})', f'[Open in Colab]({colab})']
        if mod: tools.append(f"[`{mod}`]({self.blob(mod.replace('.', '/') + '.py')})")
        title,_,rest = md.partition('\n')
        lead = re.match(r'\s*\{\.lead\}\n.+\n?', rest)
        cut = lead.end() if lead else 0
        declared = f'```{{py:module}} {mod}\n```\n\n' if mod else ''
        return f"{title}\n{rest[:cut].rstrip()}\n\n{{.page-tools}}\n{' '.join(tools)}\n\n{declared}{rest[cut:]}"

    def markdown(self, page):
        "A page as plain Markdown"
        md,address = '',lambda doc, anchor: f"{doc}.html{''.join(anchor.partition('#')[1:])}"
        for kind,o in self.cells_of(page, {}):
            if kind == 'prose':
                md += self.links(MAP.sub(lambda m: in_words(m[1]), self.with_rooms(o, page)), page, address) + '\n\n'
            elif kind == 'symbol': md += self.in_words(o)
            elif kind == 'code': md += _code(o)
            elif kind == 'output' and o[0] == 'text/html': md += html_table(o[1])
            elif kind == 'output' and o[0] == 'image': md += f"*A picture: {re.search('alt=.(.*?). width', o[1])[1]}*\n\n"
            elif kind == 'output': md += f'```\n{o[1]}\n```\n\n'
        return re.sub(r'\n{3,}', '\n\n', md).strip() + '\n'

    def download(self, page):
        "The notebook for a reader: without nbdev's export, and with a first cell that installs the package"
        nb = nbformat.read(page.path, 4)
        nb.cells = [c for c in nb.cells if not ('default_exp' in directives(c.source) or 'nbdev_export' in c.source)]
        nb.cells.insert(0, nbformat.v4.new_code_cell(f"# %pip install git+{self.settings['repo']}", id='install'))
        return nb

    def toctrees(self, page):
        "What a page has below it in the sidebar: all tutorials and wings below the start page, its rooms below the opening page of a wing"
        wings = {p.section for p in self.pages if p.is_opening}
        entry = lambda p: f'{p.title} </{p.doc}>' if p.title else f'/{p.doc}'
        if page.is_opening: return _toctree('', [entry(p) for p in self.pages if p.section == page.section and p != page])
        below = {'Tutorials': [], 'Library': [], 'Project': []}
        for p in self.pages:
            if p.section in wings and not p.is_opening or not p.section: continue
            below['Library' if p.section in wings or p.section == 'Whole library' else p.section].append(entry(p))
        below['Library'].append('All names <genindex>')
        return ''.join(_toctree(caption, entries) for caption,entries in below.items())

    def llms(self):
        "What there is to read, for language models (llmstxt.org)"
        s = self.settings
        res = f"# {s['title']}\n\n> {s['subtitle']}\n"
        for section in dict.fromkeys(p.section for p in self.pages):
            res += f"\n## {section or 'Start here'}\n\n"
            res += ''.join(f"- [{p.title or p.own_title}]({s['site']}{p.doc}.html.md){': ' + p.summary if p.summary else ''}\n" for p in self.pages if p.section == section)
        return res
