"The order of wings and rooms: imports and calls point down, circles and private names across rooms are found, state has one owner"
import ast, builtins, configparser, dis, importlib.util, inspect
from functools import lru_cache
from pathlib import Path
import numpy as np, pandas as pd, pytest, torch
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders, TfmdDL
from fastai.learner import Learner, Recorder

ROOT = Path(__file__).parent.parent
FUNCS = ast.FunctionDef, ast.AsyncFunctionDef
import matplotlib.axes, matplotlib.backend_bases, matplotlib.figure
FOREIGN = matplotlib.axes.Axes, matplotlib.figure.Figure, matplotlib.backend_bases.FigureCanvasBase, Learner, Recorder, Callback, DataLoaders, TfmdDL, torch.Tensor, torch.nn.Module, torch.nn.Embedding, torch.optim.Optimizer, pd.DataFrame, pd.Series, pd.Index, np.ndarray, np.random.Generator, dict, list, set, str, Path, torch, np, pd

def wings(root=ROOT):
    "Names of the wings, lowest first, as settings.ini has them"
    c = configparser.ConfigParser(interpolation=None)
    c.read(root/'settings.ini')
    return [o.partition(':')[0].strip() for o in c['DEFAULT']['wings'].split(',')]

def rooms(root=ROOT):
    "Every module, lowest first: the wings in their order, inside a wing by the number of the notebook; `core` below all, `demo` and `all` above"
    order = {w: j for j,w in enumerate(wings(root))}
    found = []
    for p in (root/'nbs').rglob('*.ipynb'):
        if 'default_exp' not in (text := p.read_text()): continue
        module = text.partition('default_exp ')[2].partition('"')[0].strip()
        wing = module.partition('.')[0] if '.' in module else None
        found.append(((-1 if module == 'core' else order.get(wing, len(order)), p.stem), f'fastcf.{module}'))
    return [m for _,m in sorted(found)]

def parse(root, module): return ast.parse((root/(module.replace('.', '/') + '.py')).read_text())

def imports(tree, module):
    "(module, names, line) of each import of ours, wherever it stands in the file, with relative ones made whole"
    for o in ast.walk(tree):
        if isinstance(o, ast.Import): yield from ((a.name, [], o.lineno) for a in o.names if a.name.split('.')[0] == 'fastcf')
        elif isinstance(o, ast.ImportFrom):
            base = '.'.join(module.split('.')[:-o.level]) if o.level else ''
            full = '.'.join(filter(None, [base, o.module]))
            if full.split('.')[0] == 'fastcf': yield full,[a.name for a in o.names],o.lineno

def defined(tree):
    "Names of functions, methods, properties and attributes that a module gives to objects"
    for o in ast.walk(tree):
        if isinstance(o, (*FUNCS, ast.ClassDef)): yield o.name
        elif isinstance(o, ast.Attribute) and isinstance(o.ctx, ast.Store): yield o.attr
        elif isinstance(o, ast.AnnAssign) and isinstance(o.target, ast.Name): yield o.target.id
        elif isinstance(o, ast.Assign): yield from (t.id for t in o.targets if isinstance(t, ast.Name))

def patched(tree):
    "Names of the methods that a module adds to classes"
    for o in tree.body:
        if isinstance(o, FUNCS) and any('patch' in ast.unparse(d) for d in o.decorator_list): yield o.name

def faults(root=ROOT):
    "A sentence for each import or call that points up, each circle, each private name across rooms, each state set from afar"
    order = rooms(root)
    trees,place = {m: parse(root, m) for m in order},{m: j for j,m in enumerate(order)}
    here = {m: set(defined(t)) for m,t in trees.items()}
    foreign = {a for o in FOREIGN for a in dir(o)} | {'weight', 'bias'} # of a layer
    res = []
    for m,tree in trees.items():
        below = set().union(*(here[o] for o in order[:place[m]+1]))
        above = {n: o for o in order[place[m]+1:] for n in patched(trees[o])} if m not in ('fastcf.all', 'fastcf.demo') else {}
        for full,names,line in imports(tree, m):
            targets = [f'{full}.{n}' for n in names if f'{full}.{n}' in place] or [full]
            res += [f"{m}, line {line}: imports {t}, which stands above it" for t in targets if place.get(t, -1) >= place[m] and (m, t) != ('fastcf.all', 'fastcf.demo')]
            res += [f"{m}, line {line}: takes the private name {n} from {full}; make it public there, or move it" for n in names if n.startswith('_') and not n.startswith('__')]
            res += [f"{m}, line {line}: imports {t}, which no notebook exports" for t in targets if t not in place and t != 'fastcf']
        for o in ast.walk(tree):
            if isinstance(o, ast.Attribute) and isinstance(o.ctx, ast.Load) and o.attr in above and o.attr not in below | foreign:
                res.append(f"{m}, line {o.lineno}: calls .{o.attr}, which only {above[o.attr]} above it defines")
            if isinstance(o, ast.Attribute) and o.attr == '__dict__' and not isinstance(o.ctx, ast.Store) and ast.unparse(o.value) not in ('self', 'cls'):
                res.append(f"{m}, line {o.lineno}: reaches into {ast.unparse(o)}; state has one owner")
            if isinstance(o, ast.Attribute) and isinstance(o.ctx, ast.Store) and o.attr.startswith('_') and not o.attr.startswith('__'):
                owner = ast.unparse(o.value)
                if owner not in ('self', 'cls', 'res', *(c.name for c in tree.body if isinstance(c, ast.ClassDef))): res.append(f"{m}, line {o.lineno}: sets {owner}.{o.attr} from afar; state has one owner")
    return res

OPEN = () # sentences of faults that are being fixed

def test_imports_calls_and_state_keep_to_the_order(): assert [f for f in faults() if not any(o in f for o in OPEN)] == []

def test_every_module_has_a_notebook_and_every_wing_an_opening_page():
    files = {'.'.join(p.relative_to(ROOT).with_suffix('').parts) for p in (ROOT/'fastcf').rglob('*.py') if not p.stem.startswith('_')}
    assert files == set(rooms())
    assert [w for w in wings() if not (ROOT/f'nbs/{w}/index.ipynb').exists()] == []
    folders = {p.name for p in (ROOT/'nbs').iterdir() if p.is_dir() and not p.name.startswith(('.', '_'))}
    assert folders - set(wings()) == {'tutorials'}

# --- the test itself is tested: each planted fault is found, and nothing else

def package(root, **modules):
    "A small package with wings a and b, written as nbdev would write it"
    (root/'settings.ini').write_text('[DEFAULT]\nwings = a: First, b: Second\n')
    for j,(name,code) in enumerate({'a__low': 'x = 1', 'a__mid': 'from .low import x', 'b__high': 'from ..a.low import x', **modules}.items()):
        module = name.replace('__', '.')
        nb,py = root/f"nbs/{'/'.join(module.split('.')[:-1])}/{j:02d}_{module.split('.')[-1]}.ipynb",root/f"fastcf/{module.replace('.', '/')}.py"
        for p,text in ((nb, f'"#| default_exp {module}"'), (py, code)):
            p.parent.mkdir(parents=True, exist_ok=True)
            p.write_text(text)
    return root

def test_a_package_in_order_has_no_faults(tmp_path): assert faults(package(tmp_path)) == []

@pytest.mark.parametrize('modules,sentence', [
    (dict(a__low='from ..b.high import y'), 'fastcf.a.low, line 1: imports fastcf.b.high, which stands above it'),
    (dict(a__low='def f():\n    from fastcf.b import high'), 'fastcf.a.low, line 2: imports fastcf.b.high, which stands above it'),
    (dict(a__low='from .mid import x'), 'fastcf.a.low, line 1: imports fastcf.a.mid, which stands above it'), # a circle
    (dict(b__high='from ..a.low import _x'), 'fastcf.b.high, line 1: takes the private name _x from fastcf.a.low'),
    (dict(b__high='import fastcf.gone'), 'fastcf.b.high, line 1: imports fastcf.gone, which no notebook exports'),
    (dict(b__high='@patch\ndef soar(self:C): pass', a__mid='def f(learn): return learn.soar()'), 'fastcf.a.mid, line 1: calls .soar, which only fastcf.b.high above it defines'),
    (dict(b__high='def f(learn): learn._seen = 1'), 'fastcf.b.high, line 1: sets learn._seen from afar'),
    (dict(b__high='def f(learn): learn.__dict__.setdefault("x", {})'), 'fastcf.b.high, line 1: reaches into learn.__dict__')])
def test_each_planted_fault_is_found(tmp_path, modules, sentence):
    found = faults(package(tmp_path, **modules))
    assert len(found) == 1 and found[0].startswith(sentence)

def unknown_names(module):
    "(function, name) of what no function of a module could find when it is called"
    def codes(c):
        yield c
        for o in c.co_consts:
            if inspect.iscode(o): yield from codes(o)
    found = codes(compile(Path(module.__file__).read_text(encoding='utf-8'), module.__file__, 'exec'))
    return {(c.co_name, i.argval) for c in found for i in dis.get_instructions(c) if i.opname == 'LOAD_GLOBAL' and not hasattr(module, i.argval) and not hasattr(builtins, i.argval)}

@pytest.mark.parametrize('name', rooms())
def test_every_name_in_a_function_is_there(name): assert unknown_names(importlib.import_module(name)) == set()

def test_a_name_that_is_not_imported_is_found(tmp_path):
    (tmp_path/'lacking.py').write_text("import os\ndef f(x): return [short_repr(o) for o in x] if os.sep else len(x)\n")
    spec = importlib.util.spec_from_file_location('lacking', tmp_path/'lacking.py')
    spec.loader.exec_module(m := importlib.util.module_from_spec(spec))
    assert {n for _,n in unknown_names(m)} == {'short_repr'}

def test_no_two_files_of_tests_have_one_name():
    "pytest would refuse to collect both"
    names = [p.name for p in (ROOT/'tests').rglob('*.py')]
    assert sorted({n for n in names if names.count(n) > 1}) == []
