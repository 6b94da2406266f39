"""Addresses of names in backticks: our own, and those of fastai, fastcore, PyTorch, pandas, NumPy, matplotlib and Python.

Nothing is fetched: nbdev's libraries bring an index of their names, and of the others it is known how their addresses are made.
A name is linked only if the installed package has it.
"""
import builtins, importlib, inspect, re
from functools import lru_cache
from nbdev.doclinks import NbdevLookup

ALIASES = dict(nn='torch.nn', F='torch.nn.functional', pd='pandas', np='numpy', plt='matplotlib.pyplot', learn='CFLearner', dls='CFDataLoaders',
               Tensor='torch.Tensor', LongTensor='torch.LongTensor', DataFrame='pandas.DataFrame', Series='pandas.Series', ndarray='numpy.ndarray', Path='pathlib.Path')
_TORCH,_NUMPY = 'https://docs.pytorch.org/docs/stable/','https://numpy.org/doc/stable/reference/'
RULES = [ # the first pattern that fits the full name gives its address
    (r'torch\.(Tensor|LongTensor|FloatTensor)', _TORCH + 'tensors.html#torch.Tensor'),
    (r'torch\.(dtype|device|u?int\d+|float\d+|bfloat16|half|long|double)', _TORCH + 'tensor_attributes.html'),
    (r'torch\.nn\.init\.\w+', _TORCH + 'nn.init.html#{0}'), (r'torch\.utils\.data\.\w+', _TORCH + 'data.html#{0}'),
    (r'torch\.((nn|nn\.functional|optim|optim\.lr_scheduler|linalg|Tensor)\.)?\w+', _TORCH + 'generated/{0}.html'),
    (r'pandas\.[\w.]+', 'https://pandas.pydata.org/docs/reference/api/{0}.html'),
    (r'numpy\.random\.\w+', _NUMPY + 'random/generator.html'), (r'numpy\.(linalg\.)?\w+(\.\w+)?', _NUMPY + 'generated/{0}.html'),
    (r'matplotlib\.pyplot\.\w+', 'https://matplotlib.org/stable/api/_as_gen/{0}.html'),
    (r'pathlib\.Path(\.\w+)?', 'https://docs.python.org/3/library/pathlib.html#{0}')]

@lru_cache(None)
def _nbdev():
    "Names of fastai and fastcore with their addresses"
    return {k: v[0] for k,v in NbdevLookup(strip_libs=('fastai', 'fastcore'), incl_libs=('fastai', 'fastcore')).syms.items()}

@lru_cache(None)
def exists(full):
    "Whether the installed packages have an object of this name"
    parts = full.split('.')
    for n in range(len(parts), 0, -1):
        try: o = importlib.import_module('.'.join(parts[:n]))
        except ImportError: continue
        for p in parts[n:]:
            o = getattr(o, p, None)
            if o is None: return False
        return n < len(parts)
    return False

def _builtin(name):
    "The address of one of Python's own exceptions and functions"
    o = getattr(builtins, name, None)
    if inspect.isclass(o) and issubclass(o, BaseException): return f'https://docs.python.org/3/library/exceptions.html#{name}'

def foreign(name):
    "The address of another library's name, or `None`"
    head,_,rest = name.partition('.')
    full = ALIASES.get(head, head) + (f'.{rest}' if rest else '')
    for pattern,url in RULES:
        if re.fullmatch(pattern, full) and exists(full): return url.format(full)
    if re.search(r'[A-Z_.]', name): # a bare small word such as `item` is a column more often than a function
        for o in (name, f'Learner.{rest if head == "learn" else name}'):
            if o in _nbdev(): return _nbdev()[o]
    return _builtin(name)

class Names:
    "Our own names by what they may be called in prose, and a way to link what stands in backticks"
    def __init__(self, symbols): # `symbols`: {full name: Symbol}
        self.own = {}
        for full,s in symbols.items():
            if s.public: self.own |= {full: full, s.name: full}
        for full,s in sorted(symbols.items(), key=lambda o: o[1].name.split('.')[0] not in ALIASES.values()): # `predict` for `CFLearner.predict`: of several, the one of the object that has a usual name
            if s.public and s.patched and '_' not in s.name.split('.')[1][:1]: self.own.setdefault(s.name.split('.')[1], full)

    def find(self, name):
        "The full name of one of ours, or `None`"
        head,_,rest = name.partition('.')
        return self.own.get(name) or (self.own.get(f'{ALIASES[head]}.{rest}') if rest and head in ALIASES else None)

    def link(self, m, own):
        "A match of a name in backticks as a link; `own` makes the link to one of ours"
        text,name = m[1],m[1].removesuffix('()')
        if full := self.find(name): return own(text, full)
        url = foreign(name)
        return f'[`{text}`]({url})' if url else m[0]

    def linkify(self, md, own=lambda text, full: f'{{py:obj}}`{text} <{full}>`'):
        "Markdown with the names in backticks linked, but for those in code, headings and links"
        keep = r'(^(?:```|~~~).*?^(?:```|~~~)$|^#+ .*?$|^ {4,}.*?$|\[(?:[^\[\]`]|`[^`]*`)*\]\([^)]*\)|``.+?``|\{[\w:-]+\}`[^`]*`)'
        parts = re.split(keep, md, flags=re.M | re.S)
        return ''.join(p if j % 2 else re.sub(r'`([A-Za-z_][\w.]*(?:\(\))?)`', lambda m: self.link(m, own), p) for j,p in enumerate(parts))
