"""Maps of the rooms of a wing, and of the wings: what imports what, read from the modules, drawn as SVG.

Nothing here is written by hand, so a map cannot say what is not so. Lowest is what imports nothing of ours. An arrow is an import;
one that follows from others is left out: where `a` imports `b` and `b` imports `c`, there is no arrow from `a` to `c`.
"""
import ast
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

# --- what imports what

def imported(source, module):
    "Full names of what a module of the package `fastcf` imports from it, wherever in the file"
    for o in ast.walk(ast.parse(source)):
        if isinstance(o, ast.Import): names = [a.name for a in o.names]
        elif isinstance(o, ast.ImportFrom):
            base = '.'.join(module.split('.')[:-o.level]) if o.level else ''
            full = '.'.join(filter(None, [base, o.module]))
            names = [full, *(f'{full}.{a.name}' for a in o.names)]
        else: continue
        yield from (n for n in names if n.split('.')[0] == 'fastcf')

def read_imports(root=ROOT):
    "{module: modules that it imports} of the whole package, but for `all`, which imports everything, and `demo`"
    module = lambda p: '.'.join(p.relative_to(root).with_suffix('').parts)
    paths = {module(p): p for p in sorted((root/'fastcf').rglob('*.py')) if not p.stem.startswith('_') and p.stem not in ('all', 'demo')}
    return {m: {n for n in imported(p.read_text(), m) if n in paths and n != m} for m,p in paths.items()}

def wing_of(module):
    "`learn` for `fastcf.learn.model`, `core` for `fastcf.core`"
    return module.split('.')[1]

def between_wings(imports):
    "{wing: wings that it imports}"
    res = {}
    for m,found in imports.items(): res.setdefault(wing_of(m), set()).update(wing_of(n) for n in found)
    return {w: found - {w} for w,found in res.items()}

def inside_wing(imports, wing):
    "{room: rooms of the wing and other wings that it imports}, and of those other wings what they import of each other; `core` is for all"
    local = lambda m: m.split('.')[-1] if wing_of(m) == wing else f'{wing_of(m)} …'
    res = {local(m): {local(n) for n in found if wing_of(n) != 'core'} for m,found in imports.items() if wing_of(m) == wing}
    wings = between_wings(imports)
    others = {n for found in res.values() for n in found} - set(res)
    return res | {o: {f'{w} …' for w in wings[o.removesuffix(' …')]} & others for o in others}

def reachable(graph, node):
    "Everything that a node imports, and that imports"
    res,todo = set(),list(graph.get(node, ()))
    while todo:
        if (n := todo.pop()) not in res: res.add(n); todo += graph.get(n, ())
    return res

def reduced(graph):
    "The same graph without the imports that follow from others"
    return {n: {o for o in found if not any(o in reachable(graph, p) for p in found - {o})} for n,found in graph.items()}

# --- where things stand

CHAR,ROW,GAP,LINE = 7.6,86,26,17

@dataclass
class Box:
    "A room or a wing on the map, or a place where a long arrow passes"
    name:str # What it stands for
    lines:list=field(default_factory=list) # What is written in it
    href:str='' # Where it leads
    cls:str='room' # `room`, `wing`, `other` or `pass`
    x:float=0. # Its middle
    y:float=0. # Its top

    @property
    def width(self): return 12 if self.cls == 'pass' else CHAR * max(map(len, self.lines)) + 20
    @property
    def height(self): return LINE * len(self.lines) + 14 if self.lines else 0

def levels(graph):
    "{node: how many imports lie below it}"
    res = {}
    def level(n):
        if n not in res: res[n] = 1 + max((level(o) for o in graph[n]), default=-1)
        return res[n]
    for n in graph: level(n)
    return res

def place(graph, boxes):
    "Give every box its place; returns rows from the lowest up, and the arrows as lists of boxes from top to bottom"
    height = levels(graph)
    rows = [[] for _ in range(max(height.values()) + 1)]
    for n in graph: rows[height[n]].append(boxes[n])
    arrows = []
    for n,found in graph.items():
        for o in sorted(found):
            passes = [Box(f'{n} to {o}', cls='pass') for _ in range(height[o] + 1, height[n])]
            for j,p in enumerate(passes): rows[height[o] + 1 + j].append(p)
            arrows.append([boxes[n], *passes[::-1], boxes[o]])
    _arrange(rows, arrows)
    return rows,arrows

def _arrange(rows, arrows):
    "Order each row by where its arrows lead, a few times up and down, then set the boxes"
    near = {}
    for a in arrows:
        for up,down in zip(a, a[1:]): near.setdefault(id(up), []).append(down); near.setdefault(id(down), []).append(up)
    for row in rows: _set(row)
    for sweep in range(12):
        for row in (rows if sweep % 2 == 0 else rows[::-1]):
            middle = {id(b): sum(o.x for o in near[id(b)]) / len(near[id(b)]) if near.get(id(b)) else b.x for b in row}
            row.sort(key=lambda b: (round(middle[id(b)], 3), b.name))
            _set(row)
    y = 0
    for row in rows[::-1]:
        for b in row: b.y = y
        y += max(b.height for b in row) + ROW - 34

def _set(row):
    "Side by side, the middle of the row at 0"
    x = -(sum(b.width for b in row) + GAP * (len(row) - 1)) / 2
    for b in row: b.x = x + b.width / 2; x += b.width + GAP

# --- drawing

def _box(b, left):
    x = b.x - b.width / 2 - left
    texts = ''
    for j,line in enumerate(b.lines):
        cls = ' class="small"' if j else ''
        texts += f'<text x="{b.x - left:.0f}" y="{b.y + LINE * (j + 1) + 2:.0f}"{cls}>{escape(line)}</text>'
    body = f'<rect x="{x:.0f}" y="{b.y:.0f}" width="{b.width:.0f}" height="{b.height}" rx="6"/>{texts}'
    return f'<a href="{escape(b.href)}" class="{b.cls}">{body}</a>' if b.href else f'<g class="{b.cls}">{body}</g>'

def _arrow(arrow, left):
    points,d = [(arrow[0].x - left, arrow[0].y + arrow[0].height)],''
    points += [(b.x - left, b.y) for b in arrow[1:]]
    for (x,y),(x2,y2) in zip(points, points[1:]):
        mid = (y + y2) / 2
        d += (f'M{x:.0f} {y:.0f}' if not d else '') + f'C{x:.0f} {mid:.0f} {x2:.0f} {mid:.0f} {x2:.0f} {y2:.0f}'
    return f'<path d="{d}" marker-end="url(#tip)" data-from="{escape(arrow[0].name)}" data-to="{escape(arrow[-1].name)}"/>'

def draw(graph, boxes, label):
    "An SVG of a graph of imports, on one line, as Markdown wants it"
    rows,arrows = place(graph, boxes)
    every = [b for row in rows for b in row]
    left = min(b.x - b.width / 2 for b in every) - 4
    width,height = max(b.x + b.width / 2 for b in every) + 4 - left,max(b.y + b.height for b in every) + 4
    head = 'viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"'
    tip = f'<defs><marker id="tip" {head}><path d="M0 0L8 4L0 8z"/></marker></defs>'
    body = ''.join(_arrow(a, left) for a in arrows) + ''.join(_box(b, left) for b in every if b.cls != 'pass')
    size = f'viewBox="0 -4 {width:.0f} {height + 4:.0f}" width="{width:.0f}" height="{height + 4:.0f}"'
    return f'<svg {size} role="group" aria-label="{escape(label)}">{tip}{body}</svg>'

def _wrapped(words, n=26):
    "Words on lines of about `n` letters"
    lines = ['']
    for w in words: lines = [*lines[:-1], f'{lines[-1]} {w}'.strip()] if len(lines[-1]) + len(w) < n else [*lines, w]
    return [l for l in lines if l]

def wing_map(wing, links, root=ROOT):
    "The map of a wing's rooms, and of what they take from other wings; `links`: {room or wing: address}"
    graph = reduced(inside_wing(read_imports(root), wing))
    wanted = set().union(*(f for n,f in graph.items() if not n.endswith('…'))) | {n for n in graph if not n.endswith('…')}
    graph = {n: set() if n.endswith('…') else f for n,f in graph.items() if n in wanted}
    if not graph: return ''
    boxes = {n: Box(n, [n], links.get(f'{wing}.{n}', ''), 'room') for n in graph if not n.endswith('…')}
    boxes |= {n: Box(n, [n], links.get(n.removesuffix(' …'), ''), 'other') for n in graph if n.endswith('…')}
    return draw(graph, boxes, f'What the rooms of the wing {wing} import')

def wings_map(links, root=ROOT):
    "The map of all wings, each with its rooms"
    imports = read_imports(root)
    graph = reduced(between_wings(imports))
    rooms = {w: [m.split('.')[-1] for m in imports if wing_of(m) == w and m.count('.') > 1] for w in graph}
    boxes = {w: Box(w, [w, *_wrapped(rooms[w])], links.get(w, ''), 'wing') for w in graph}
    return draw(graph, boxes, 'What the wings import')

def in_words(wing, root=ROOT):
    "The same as a list, for those who do not look at pictures"
    imports = read_imports(root)
    graph = between_wings(imports) if wing == 'wings' else inside_wing(imports, wing)
    listed = lambda found: ', '.join(f'`{o}`' for o in sorted(found))
    return ''.join(f'- `{n}` imports {listed(found)}\n' for n,found in graph.items() if found and not n.endswith('…'))
