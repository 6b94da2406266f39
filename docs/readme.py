"""Make README.md from nbs/index.ipynb: `python docs/readme.py` writes it, `--check` fails where it is not in step.

nbdev's directives are obeyed (`hide`, `echo: false`), frames become Markdown tables, plots become files in docs/images.
"""
import sys
from base64 import b64decode
from pathlib import Path
import nbformat
from site_builder.notebooks import alt_text, directives, html_table, plain_source

ROOT = Path(__file__).parent.parent
IMAGES = Path('docs/images')
HEAD = "<!-- Made from nbs/index.ipynb by docs/readme.py: edit the notebook -->\n\n"

def output_md(out, n, alt, images):
    "An output as Markdown; a plot is put into `images` under its path"
    data = out.get('data', {})
    if 'image/png' in data:
        path = IMAGES/f'readme_{n}.png'
        images[path] = b64decode(data['image/png'])
        return f'![{alt}]({path.as_posix()})\n\n'
    if 'text/html' in data: return html_table(''.join(data['text/html']))
    if '<table' in ''.join(data.get('text/markdown', '')): return html_table(''.join(data['text/markdown']))
    text = ''.join(out.get('text', '')) if out.get('name') == 'stdout' else ''.join(data.get('text/plain', ''))
    return f'```\n{text.rstrip()}\n```\n\n' if text.strip() and not text.startswith('<') else ''

def readme():
    "README.md's text, and the images it shows by path"
    md,images,before = HEAD,{},''
    for cell in nbformat.read(ROOT/'nbs/index.ipynb', 4).cells:
        said,source = directives(cell.source),plain_source(cell.source)
        if 'hide' in said: continue
        if cell.cell_type == 'markdown': md += source + '\n\n'; before = source
        else:
            if source and said.get('echo') != 'false': md += f'```python\n{source}\n```\n\n'
            for out in cell.outputs: md += output_md(out, len(images) + 1, alt_text(before), images)
    return md.strip() + '\n', images

def main(check):
    md,images = readme()
    files = {Path('README.md'): md.encode(), **images}
    if check:
        old = [str(p) for p,b in files.items() if not (ROOT/p).exists() or (ROOT/p).read_bytes() != b]
        sys.exit(f"not in step with nbs/index.ipynb: {', '.join(old)}; run python docs/readme.py" if old else 0)
    for p,b in files.items(): (ROOT/p).parent.mkdir(parents=True, exist_ok=True); (ROOT/p).write_bytes(b)

if __name__ == '__main__': main('--check' in sys.argv[1:])
