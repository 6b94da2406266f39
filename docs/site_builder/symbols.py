"""What the package exports: each name with its code, parameters, errors and cell, read from the modules that nbdev wrote"""
import ast, importlib, inspect, re, textwrap
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
import numpy as np, pandas as pd, torch
from fastai.callback.core import event
from fastcore.docments import docments
from nbdev.doclinks import patch_name

ROOT = Path(__file__).parents[2]
FUNCS = ast.FunctionDef, ast.AsyncFunctionDef
OTHERS = dict, list, set, str, np.ndarray, np.random.Generator, torch.Tensor, pd.DataFrame, pd.Index

def _is_event(f): return hasattr(event, f.name) and not ast.get_docstring(f) # fastai calls it, nobody else

@dataclass
class Symbol:
    "A function, class, method or constant of a module"
    module:str # Such as `fastcf.learn.learner`
    name:str # Such as `cf_learner` or `CFLearner.predict`
    node:ast.AST # Its definition
    code:str # Its source
    line:int # Where that starts in the module's file
    notebook:str # Such as `learn/02_learner.ipynb`
    cell:str # Id of the cell
    public:bool # In `__all__`, or a method of something that is
    patched:bool = False # Added to its class by `@patch`
    members:list = field(default_factory=list) # Of a class: the documented methods in its body

    @property
    def full(self): return f'{self.module}.{self.name}'

    @property
    def file(self): return self.module.replace('.', '/') + '.py'

    @property
    def kind(self):
        "The word for it, as Sphinx' Python domain has it"
        if isinstance(self.node, ast.ClassDef): return 'exception' if issubclass(self.live, BaseException) else 'class'
        if not isinstance(self.node, FUNCS): return 'data'
        if '.' not in self.name: return 'function'
        decorators = ' '.join(map(ast.unparse, self.node.decorator_list))
        return 'property' if 'as_prop' in decorators or 'property' in decorators else 'classmethod' if 'classmethod' in decorators or 'cls_method' in decorators else 'method'

    @cached_property
    def live(self):
        "The object itself; of a property, its function"
        o = importlib.import_module(self.module)
        for p in self.name.split('.'):
            static = inspect.getattr_static(o, p)
            o = static.fget if isinstance(static, property) else getattr(o, p)
        return o

    @property
    def doc(self):
        "The docstring's text"
        return '' if self.kind == 'data' else inspect.cleandoc(ast.get_docstring(self.node) or '')

    @cached_property
    def _init(self):
        "The function whose parameters are those of the symbol"
        if not isinstance(self.node, ast.ClassDef): return self.node
        return next((o for o in self.node.body if isinstance(o, FUNCS) and o.name == '__init__'), None)

    def _has_own(self): return self._init is not None or _fields(self.node) != []

    @property
    def bases(self): return [ast.unparse(b) for b in getattr(self.node, 'bases', [])]

    def params(self):
        "(name, type, default, meaning) of each parameter in the source"
        if self.kind in ('property', 'data') or not self._has_own(): return []
        sig,own = inspect.signature(self.live).parameters,_arguments(self._init) if self._init else _fields(self.node)
        return [(n, t, d, self._meaning(n)) for n,t,d in own if not (n.startswith('**') and n[2:] not in sig)]

    def delegated(self):
        "The same of those that `delegates` takes over from another function in place of `**kwargs`"
        if self.kind in ('property', 'data') or self._init is None: return []
        own = {n.lstrip('*') for n,*_ in _arguments(self._init)} | {'self', 'cls'}
        return [(n, _type(p.annotation), _default(p.default), self._meaning(n)) for n,p in inspect.signature(self.live).parameters.items() if n not in own]

    def _meaning(self, name):
        return re.sub(r'\s+', ' ', (docments(self.live, full=True).get(name.lstrip('*')) or {}).get('docment') or '').strip()

    def returns(self):
        "(type, meaning) of what a function returns; empty strings where nothing is said"
        if self.kind in ('class', 'exception', 'data'): return '', ''
        said = docments(self.live, full=True).get('return') or {}
        bare = re.search(r'^\s*\):\s*#\s*(.+)$', self.code, re.M) # without a type, which `docments` does not read
        return ast.unparse(self.node.returns) if self.node.returns else '', re.sub(r'\s+', ' ', said.get('docment') or (bare[1] if bare else '')).strip()

    def signature(self):
        "Names and defaults, as one would call it"
        if self.kind in ('property', 'data') or not self._has_own(): return ''
        shown = [n if d is None else f'{n}={d}' for n,t,d,_ in self.params()]
        return f"({', '.join(shown + ['**kwargs'] * bool(self.delegated()))})"

def _arguments(f):
    "(name, type, default) of each argument in the source of `f`, but for self and cls"
    a,typ = f.args,lambda o: ast.unparse(o.annotation) if o.annotation else ''
    plain = a.posonlyargs + a.args
    defaults = [None] * (len(plain) - len(a.defaults)) + [ast.unparse(d) for d in a.defaults]
    res = [(o.arg, typ(o), d) for o,d in zip(plain, defaults)]
    if a.vararg: res.append(('*' + a.vararg.arg, typ(a.vararg), None))
    res += [(o.arg, typ(o), d and ast.unparse(d)) for o,d in zip(a.kwonlyargs, a.kw_defaults)]
    if a.kwarg: res.append(('**' + a.kwarg.arg, typ(a.kwarg), None))
    return res[1:] if res and res[0][0] in ('self', 'cls') else res

def _fields(c):
    "(name, type, default) of each field of a dataclass"
    if not any('dataclass' in ast.unparse(d) for d in c.decorator_list): return []
    return [(o.target.id, ast.unparse(o.annotation), o.value and ast.unparse(o.value)) for o in c.body if isinstance(o, ast.AnnAssign)]

def _type(o): return '' if o is inspect.Parameter.empty else getattr(o, '__name__', str(o))
def _default(o): return None if o is inspect.Parameter.empty else getattr(o, '__name__', repr(o))

def _cells(path):
    "(notebook, cell id, first line, code) of each exported cell in a module"
    text = path.read_text()
    for m in re.finditer(r'^# %% (\S+\.ipynb) #(\w+)\n(.*?)(?=^# %% |\Z)', text, re.M | re.S):
        yield m[1].partition('nbs/')[2], m[2], text[:m.start(3)].count('\n') + 1, m[3]

def _symbols_of(tree, module, public, where):
    "The symbols that one statement defines"
    def make(name, node, **kw):
        first = min([node.lineno, *(d.lineno for d in getattr(node, 'decorator_list', []))])
        code = textwrap.dedent('\n'.join(where['code'].split('\n')[first-1:node.end_lineno]))
        return Symbol(module, name, node, code, where['line'] + first - 1, where['notebook'], where['cell'], **kw)
    if isinstance(tree, FUNCS):
        names = patch_name(tree)
        for n in names if isinstance(names, list) else [names]:
            yield make(n, tree, public=public(n.split('.')[0]) and not tree.name.startswith('_') and not ('.' in n and _is_event(tree)), patched='.' in n)
    elif isinstance(tree, ast.ClassDef):
        s = make(tree.name, tree, public=public(tree.name))
        for o in tree.body:
            if isinstance(o, FUNCS) and not o.name.startswith('_') and ast.get_docstring(o): s.members.append(make(f'{tree.name}.{o.name}', o, public=s.public))
        yield from [s, *s.members]
    elif isinstance(tree, (ast.Assign, ast.AnnAssign)):
        for t in tree.targets if isinstance(tree, ast.Assign) else [tree.target]:
            for o in getattr(t, 'elts', [t]):
                if isinstance(o, ast.Name) and not o.id.startswith('_'): yield make(o.id, tree, public=public(o.id))

def module_paths(lib=ROOT/'fastcf'):
    "The files of the package's modules, those of its wings among them"
    return [p for p in sorted(lib.rglob('*.py')) if not p.stem.startswith('_')]

def module_name(path, lib=ROOT/'fastcf'):
    "Such as `fastcf.learn.model`"
    return '.'.join(path.relative_to(lib.parent).with_suffix('').parts)

def read_symbols(lib=ROOT/'fastcf'):
    "Every symbol of the package by its full name; a class patched from elsewhere counts as public if it is so where it is defined"
    res,everywhere = {},set()
    paths = module_paths(lib)
    exported = {p: _all(p) for p in paths}
    for names in exported.values(): everywhere |= names
    for p in paths:
        for notebook,cell,line,code in _cells(p):
            where = dict(notebook=notebook, cell=cell, line=line, code=code)
            for tree in ast.parse(code).body:
                public = lambda n: n in (everywhere if isinstance(tree, FUNCS) else exported[p])
                for s in _symbols_of(tree, module_name(p, lib), public, where): res[s.full] = s
    return res

def _all(path):
    "The names in a module's generated `__all__`"
    return next((set(ast.literal_eval(o.value)) for o in ast.parse(path.read_text()).body
                 if isinstance(o, ast.Assign) and ast.unparse(o.targets[0]) == '__all__' and isinstance(o.value, ast.List)), set())

# --- errors

def _template(o, filled):
    "The message of an exception as it stands in the source, `…` for what is filled in; an empty string where it is made elsewhere"
    if isinstance(o, ast.Constant) and isinstance(o.value, str): return o.value
    if isinstance(o, ast.BinOp): return _template(o.left, filled) + _template(o.right, filled)
    if not isinstance(o, ast.JoinedStr): return ''
    return ''.join(v.value if isinstance(v, ast.Constant) else filled.get(ast.unparse(v.value), '…') for v in o.values)

class Errors:
    "Which exceptions a function raises, itself or through those of the package that it calls"
    def __init__(self, symbols, lib=ROOT/'fastcf'):
        self.funcs,self.ours = {},{s.name: s.doc for s in symbols.values() if s.kind == 'exception'}
        self.module_of = {}
        for p in module_paths(lib):
            for node in ast.walk(ast.parse(p.read_text())):
                if isinstance(node, FUNCS): self.module_of[node] = module_name(p, lib)
                if isinstance(node, FUNCS) and node.name != '__init__': self.funcs.setdefault(node.name, []).append(node)
                if isinstance(node, ast.ClassDef): self.funcs.setdefault(node.name, []).extend(o for o in node.body if isinstance(o, FUNCS) and o.name == '__init__')

    def _calls(self, node, module):
        "(function, {parameter: text}) for each call in `node` of a function of `module`, else of the package where the name can only mean one"
        for o in ast.walk(node):
            if not isinstance(o, ast.Call): continue
            name = o.func.id if isinstance(o.func, ast.Name) else o.func.attr if isinstance(o.func, ast.Attribute) else ''
            if isinstance(o.func, ast.Attribute) and any(hasattr(t, name) for t in OTHERS): continue # `x.update(...)` is more often a dictionary's
            found = self.funcs.get(name, [])
            found = [f for f in found if self.module_of[f] == module] or found
            if len(found) != 1 or name in self.ours: continue
            names = [a.arg for a in found[0].args.args if a.arg not in ('self', 'cls')]
            yield found[0],{n: a.value for n,a in zip(names, o.args) if isinstance(a, ast.Constant) and isinstance(a.value, str)}

    def of(self, symbol):
        "(exception, message) of each error that the symbol may raise, in the order of the source; its own first"
        if symbol.kind == 'data' or (node := symbol._init) is None: return []
        return list(self._of(node, symbol.module, {}, set()))

    def _of(self, node, module, filled, seen):
        key = id(node),*sorted(filled.items())
        if key in seen: return {}
        seen.add(key)
        res = {}
        for o in ast.walk(node):
            if isinstance(o, ast.Raise) and isinstance(o.exc, ast.Call) and isinstance(o.exc.func, ast.Name):
                name = o.exc.func.id
                text = self.ours.get(name) or (_template(o.exc.args[0], filled) if o.exc.args else '')
                if text: res[name, re.sub(r'\s+', ' ', text)] = None
        for f,given in self._calls(node, module): res |= self._of(f, self.module_of[f], given, seen)
        return res
