"""What README.md and the site both need to know about notebooks: directives, tables, alternative texts, sizes of pictures"""
import re, struct
from html.parser import HTMLParser

def directives(source):
    "nbdev's directives of a cell, such as `{'export': '', 'eval': 'false'}`"
    return {m[1]: m[2].strip() for m in re.finditer(r'^#\|[ \t]*([\w-]+):?[ \t]*(.*)$', source, re.M)}

def plain_source(source):
    "A cell's source without directives, magics and hidden lines"
    lines = [l for l in source.split('\n') if not re.match(r'#\||%', l) and not re.search(r'#\|\s*hide_line\s*$', l)]
    return '\n'.join(lines).strip()

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

def alt_text(before):
    "What a picture shows: the last paragraph of the prose before it as it would be read out, two sentences at most of a long one"
    text = re.sub(r'!?\[([^\]]*)\]\([^)]*\)', r'\1', before.strip().split('\n\n')[-1])
    text = re.sub(r'\s+', ' ', re.sub(r'[`*#|$]|^> ', '', text)).strip()
    return (re.sub(r'^(.{20,240}?[.:;?!])(?= ).*$', r'\1', text) if len(text) > 240 else text).rstrip('.:')

def png_size(data):
    "Width and height of a PNG in pixels"
    return struct.unpack('>II', data[16:24])
