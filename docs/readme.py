"""Make README.md from nbs/index.ipynb: `python docs/readme.py` writes it, `--check` fails where it is not in step.

nbdev's directives are obeyed (`hide`, `echo: false`), frames become Markdown tables, plots become files in docs/images.
"""
import re, sys
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path
import nbformat

ROOT = Path(__file__).parent.parent
IMAGES = Path('docs/images')
HEAD = "<!-- Made from nbs/index.ipynb by docs/readme.py: edit the notebook -->\n\n"

class _Table(HTMLParser):
    "The rows of the first HTML table as lists of texts"
    def __init__(self): super().__init__(); self.rows,self.inside = [],False
    def handle_starttag(self, tag, attrs):
        if tag == 'tr': self.rows.append([])
        if tag in ('td', 'th'): self.rows[-1].append(''); self.inside = True
    def handle_endtag(self, tag):
        if tag in ('td', 'th'): self.inside = False
    def handle_data(self, data):
        if self.inside: self.rows[-1][-1] += data.strip()

def html_table(html):
    "An HTML table as a Markdown table; an empty string where there is none"
    p = _Table()
    p.feed(html)
    rows = [r for r in p.rows if any(r)]
    if not rows: return ''
    lines = ['| ' + ' | '.join(r) + ' |' for r in rows]
    return '\n'.join([lines[0], '|' + '---|' * len(rows[0])] + lines[1:]) + '\n\n'

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
        directives = re.findall(r'^#\|\s*(.+)$', cell.source, re.M)
        source = re.sub(r'^#\|.*\n?', '', cell.source, flags=re.M).strip()
        if 'hide' in directives: continue
        if cell.cell_type == 'markdown': md += source + '\n\n'; before = source
        else:
            if source and 'echo: false' not in directives: md += f'```python\n{source}\n```\n\n'
            alt = re.sub(r'\s+', ' ', before.split('\n\n')[-1]).rstrip('.:')
            for out in cell.outputs: md += output_md(out, len(images) + 1, alt, images)
    return md.strip() + '\n', images

def main(check):
    md,images = readme()
    files = {Path('README.md'): md.encode(), **images}
    if check:
        old = [str(p) for p,b in files.items() if not (ROOT/p).exists() or (ROOT/p).read_bytes() != b]
        sys.exit(f"not in step with nbs/index.ipynb: {', '.join(old)}; run python docs/readme.py" if old else 0)
    for p,b in files.items(): (ROOT/p).parent.mkdir(parents=True, exist_ok=True); (ROOT/p).write_bytes(b)

if __name__ == '__main__': main('--check' in sys.argv[1:])
