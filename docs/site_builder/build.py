"The site from the notebooks as they are stored: sources for Sphinx, then Sphinx"
import shutil
import nbformat
from sphinx.cmd.build import build_main
from .pages import Site
from .symbols import ROOT

def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())

def write_sources(site, out):
    "Pages for Sphinx in `out`/src; in `out`/extra what is copied as it is: pictures, notebooks, Markdown, llms.txt"
    src,extra,images = out/'src',out/'extra',{}
    for p in site.pages:
        nb = site.page_notebook(p, images)
        if p.doc == 'index' or p.is_opening: nb.cells.append(nbformat.v4.new_markdown_cell(site.toctrees(p)))
        write(src/f'{p.doc}.ipynb', nbformat.writes(nb))
        write(extra/f'{p.doc}.html.md', site.markdown(p))
        if p.path.suffix == '.ipynb': write(extra/'notebooks'/f'{p.doc}.ipynb', nbformat.writes(site.download(p)))
    for path,blob in images.items(): write(extra/path, blob)
    write(extra/'llms.txt', site.llms())
    write(extra/'.nojekyll', '')

def build(out):
    "Make the site in `out`; returns Sphinx' exit status, which is not 0 if there was a warning"
    for o in ('src', 'extra', 'html'): shutil.rmtree(out/o, ignore_errors=True)
    write_sources(Site(), out)
    return build_main(['-W', '--keep-going', '-n', '-q', '-b', 'html', '-c', str(ROOT/'docs'), '-d', str(out/'doctrees'), str(out/'src'), str(out/'html')])
