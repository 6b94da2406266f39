"""What the tests would notice: small faults, one at a time, put into the checks, the kernel, the measures and the files, and the share that some test finds.

`python -m benchmarks.mutants` takes 30 faults a module and writes `mutants.csv`; `python -m benchmarks.mutants serve.format --count 20 --seed 1` takes others than those of seed 0 that it holds. `python -m benchmarks` leaves it out: it takes an hour, and measures the tests.

The faults are Cosmic Ray's operators: `+` for `-`, `<=` for `<`, a number one larger or smaller, `and` for `or`, a condition turned round, a loop that does nothing, an exception that is not caught. Annotations, decorators, messages (f-strings) and defaults that only say how much memory to take are left alone.
Cosmic Ray's own runner starts Python anew for each fault, and every import of PyTorch and fastai takes longer than most tests; mutmut leaves out functions with decorators, which are most of ours. So one process imports all but fastcf and forks for each fault; the fork reads the changed source through an import hook, and nothing is written into the checkout. Of the tests, those run that enter the changed function, first the quick ones, then the module's notebook."""
import argparse, ast, csv, gc, importlib, importlib.abc, importlib.util, json, os, random, re, resource, signal, sys, tempfile, threading, time
from collections import Counter,defaultdict
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path

ROOT = Path(__file__).parent.parent
CSV = ROOT/'benchmarks/mutants.csv'
LISTS = 'stable_topk _first_of_equals settle is_watched show_progress compiled label_points'.split() # of core, what checks nothing

@dataclass
class Module:
    "A module, what it belongs to, the tests of it, and what in it is left alone"
    group:str
    tests:str # Files, the quickest first, below tests/
    notebook:str
    without:tuple = () # Functions

MODULES = {
    'data.checks': Module('checks', 'data/test_check_edges.py data/test_checks.py data/test_columns.py data/test_interactions.py', 'data/04_checks'),
    'core': Module('checks', 'test_core_checks.py test_core.py data/test_checks.py', '00_core', LISTS),
    'bayes.posterior': Module('kernel', 'bayes/test_kernel.py bayes/test_posterior.py', 'bayes/00_posterior'),
    'bayes.row_likelihood': Module('kernel', 'bayes/test_kernel.py bayes/test_belief.py', 'bayes/00_row_likelihood'),
    'bayes.foldin': Module('kernel', 'bayes/test_foldin.py bayes/test_posterior.py bayes/test_belief.py', 'bayes/02_foldin'),
    'rank.metrics': Module('metrics', 'rank/test_metrics.py rank/test_rank.py', 'rank/05_metrics'),
    'serve.format': Module('persistence', 'serve/test_format.py serve/test_recommender_files.py', 'serve/00_format'),
    'serve.contents': Module('persistence', 'serve/test_contents.py serve/test_recommender_files.py', 'serve/01_contents'),
    'serve.files': Module('persistence', 'serve/test_folder_files.py serve/test_recommender_files.py', 'serve/03_files')}

# --- faults

FAMILIES = {
    'arithmetic': 'Add_Sub Sub_Add Mul_Div Div_Mul FloorDiv_Div Mod_Div Pow_Mul BitOr_BitAnd BitAnd_BitOr LShift_RShift RShift_LShift',
    'boundary': 'Lt_LtE LtE_Lt Gt_GtE GtE_Gt', 'comparison': 'Lt_GtE LtE_Gt Gt_LtE GtE_Lt Eq_NotEq NotEq_Eq Is_IsNot IsNot_Is',
    'sign': 'USub_UAdd Delete_Not Delete_Invert'}
PREFIX = dict(arithmetic='ReplaceBinaryOperator_', boundary='ReplaceComparisonOperator_', comparison='ReplaceComparisonOperator_', sign='ReplaceUnaryOperator_')
FAMILIES = {k: [PREFIX[k] + o for o in v.split()] for k,v in FAMILIES.items()} | dict(
    logic=['ReplaceAndWithOr', 'ReplaceOrWithAnd'], condition=['AddNot'], truth=['ReplaceTrueWithFalse', 'ReplaceFalseWithTrue'], number=['NumberReplacer'],
    loop=['ZeroIterationForLoop', 'ReplaceBreakWithContinue', 'ReplaceContinueWithBreak'], exception=['ExceptionReplacer'])

@dataclass
class Mutant:
    "One fault: where it is, and the module's source with it"
    module:str
    line:int
    function:str # The innermost function around it; '' for what runs at import
    starts:int|None # Its first line
    operator:str
    was:str
    now:str
    source:str
    nth:int = 0 # Which of those that read the same: lines move, this does not

def _span(o): return (o.lineno, o.col_offset),(o.end_lineno, o.end_col_offset)
def _within(a, b, spans): return any(s <= a and b <= e for s,e in spans)

def left_alone(tree, without=()):
    "Spans of a syntax tree that no fault is put into"
    res = []
    for o in ast.walk(tree):
        if isinstance(o, (ast.FunctionDef, ast.ClassDef)):
            res += map(_span, o.decorator_list)
            if o.name in without: res.append(_span(o))
        if isinstance(o, ast.FunctionDef):
            args = [*o.args.posonlyargs, *o.args.args, *o.args.kwonlyargs]
            res += [_span(a.annotation) for a in [*args, o.args.vararg, o.args.kwarg] if a is not None and a.annotation is not None]
            res += [_span(o.returns)] if o.returns is not None else []
            with_default = [*zip(args[::-1], o.args.defaults[::-1])] # positional ones come last
            res += [_span(d) for a,d in with_default if a.arg in ('budget', 'cache', 'stacklevel')]
        if isinstance(o, ast.AnnAssign): res.append(_span(o.annotation))
        if isinstance(o, ast.JoinedStr): res.append(_span(o))
        if isinstance(o, ast.keyword) and o.arg == 'stacklevel': res.append(_span(o.value))
        if isinstance(o, ast.Assign) and any(getattr(t, 'id', '') == '__all__' for t in o.targets): res.append(_span(o))
    return res

def _around(tree, at, end):
    "(name, first line) of the innermost function whose body holds a place"
    inner = [(name, first) for o in ast.walk(tree) if isinstance(o, (ast.FunctionDef, ast.Lambda))
             for body in ([o.body] if isinstance(o, ast.Lambda) else o.body) if _within(at, end, [_span(body)])
             for name,first in [(getattr(o, 'name', 'lambda'), min([o.lineno, *(d.lineno for d in getattr(o, 'decorator_list', []))]))]]
    return inner[-1] if inner else ('', None)

def _change(old, new, margin=25):
    "What differs between two lines, with a little around it"
    a = len(os.path.commonprefix([old, new]))
    b = len(os.path.commonprefix([old[a:][::-1], new[a:][::-1]]))
    cut = lambda s: s[max(0, a-margin):len(s)-max(0, b-margin)].strip()
    return cut(old),cut(new)

@lru_cache
def _parsed(source):
    "A module for the library of operators, the same as a list of nodes, and for Python's own"
    from cosmic_ray.ast import ast_nodes,get_ast
    whole = get_ast(source)
    return whole,[*ast_nodes(whole)],ast.parse(source)

def places(source, without=()):
    "Of each family, where a fault can be put into a module: the operator, the node's number, which of the node's faults, and its span"
    from cosmic_ray.operators.provider import OperatorProvider
    _,nodes,tree = _parsed(source)
    alone = left_alone(tree, without)
    spots = lambda name: [(name, n, index, at, end) for n,node in enumerate(nodes) for index,(at,end) in enumerate(OperatorProvider()[name]().mutation_positions(node))]
    return {family: [o for name in names for o in spots(name) if not _within(*o[3:], alone)] for family,names in FAMILIES.items()}

def mutant(module, source, name, n, index, at, end):
    "The fault at one place"
    from cosmic_ray.ast import ast_nodes
    from cosmic_ray.operators.provider import OperatorProvider
    whole,nodes,tree = _parsed(source)
    node = nodes[n]
    before = [(o, k, list(v) if k == 'children' else v) for o in (*ast_nodes(node), node.parent) for k in ('children', 'value') if (v := getattr(o, k, None)) is not None]
    changed = OperatorProvider()[name]().mutate(node, index)
    if changed is not node: node.parent.children[node.parent.children.index(node)] = changed
    new = whole.get_code()
    for o,k,v in before: setattr(o, k, v)
    was,now = _change(*('\n'.join(o.splitlines()[at[0]-1:end[0]]) for o in (source, new)))
    return Mutant(module, at[0], *_around(tree, at, end), name, was, now, new)

def _parses(source):
    try: return bool(ast.parse(source))
    except SyntaxError: return False # `if not x := f()`

def faults(module, source, without=()):
    "Of each family, the faults of a module"
    res = {family: [mutant(module, source, *o) for o in v] for family,v in places(source, without).items()}
    alike = Counter()
    for m in sorted((m for v in res.values() for m in v), key=lambda m: m.line):
        m.nth = alike[read_as := key(asdict(m))[:-1]]
        alike[read_as] += 1
    return res

def sample(module, source, count, seed, without=(), known=()):
    "`count` faults of a module, of one family in turn, drawn with a seed; none of `known`"
    rng = random.Random(seed)
    drawn = [rng.sample(v, len(v)) for v in faults(module, source, without).values()]
    turns = (v[n] for n in range(max(map(len, drawn))) for v in drawn if n < len(v))
    found = (m for m in turns if key(asdict(m)) not in known and _parses(m.source))
    return sorted(islice(found, count), key=lambda m: (m.line, m.operator))

def key(row): return row['module'],row['function'],row['operator'],row['was'],row['now'],int(row['nth'])

# --- forks

class Changed(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):
    "Lets `import` find another source for one module"
    def __init__(self, name, source): self.name,self.source = name,source
    def find_spec(self, name, path, target=None):
        if name != self.name: return None
        file = ROOT.joinpath(*name.split('.')).with_suffix('.py')
        return importlib.util.spec_from_file_location(name, file, loader=self)
    def get_filename(self, name): return str(ROOT.joinpath(*name.split('.')).with_suffix('.py'))
    def get_data(self, path): return self.source.encode()

def in_fork(f, timeout, memory=12 * 2**30):
    "What `f()` returns, an exit status, from a process of its own; 'timeout', or 'signal' where it was killed; and what it printed"
    log = tempfile.TemporaryFile('w+')
    if not (pid := os.fork()):
        status = 99
        try:
            os.setsid()
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
            for fd in (1, 2): os.dup2(log.fileno(), fd)
            sys.stdout = sys.stderr = open(1, 'w', buffering=1, closefd=False)
            status = int(f())
        except BaseException as e: print(repr(e), flush=True)
        finally: os._exit(status)
    end = time.monotonic() + timeout
    while (done := os.waitpid(pid, os.WNOHANG))[0] == 0 and time.monotonic() < end: time.sleep(.02)
    try: os.killpg(pid, signal.SIGKILL) # with whatever it has started
    except ProcessLookupError: pass
    if done[0] == 0: os.waitpid(pid, 0)
    log.seek(0)
    out = log.read()
    if done[0] == 0: return 'timeout',out
    return ('signal' if os.WIFSIGNALED(done[1]) else os.WEXITSTATUS(done[1])),out

def preload():
    "Import what takes long, and is not ours"
    os.environ.update(OMP_NUM_THREADS='1', MPLBACKEND='agg', PYTEST_DISABLE_PLUGIN_AUTOLOAD='1')
    sys.path[:0] = [str(ROOT), str(ROOT/'tests')]
    os.chdir(ROOT)
    for name in 'torch torch._dynamo torch.onnx numpy pandas scipy.stats sklearn.model_selection matplotlib.pyplot pytest _pytest.assertion.rewrite fastai.callback.all fastai.collab fastai.tabular.all numba safetensors.torch pyarrow polars starlette.testclient uvicorn huggingface_hub kernels IPython nbclient ipykernel.ipkernel'.split():
        try: importlib.import_module(name)
        except ImportError: pass
    from hypothesis import Phase,settings
    settings.register_profile('mutants', database=None, derandomize=True, phases=[Phase.explicit, Phase.generate]) # nobody reads the smallest example
    settings.load_profile('mutants')
    gc.freeze() # forks share it

class Chosen:
    "A plugin of pytest: runs some tests in an order"
    def __init__(self, order): self.order = order
    def pytest_collection_modifyitems(self, items): items[:] = sorted((o for o in items if o.nodeid in self.order), key=lambda o: self.order[o.nodeid])

def run_tests(args, *plugins):
    import pytest
    return pytest.main(['-q', '-x', '--tb=short', '-m', 'not slow', '-p', 'no:cacheprovider', *args], plugins=list(plugins))

# --- which tests

class Reach:
    "A plugin of pytest: how long each test takes, and which functions of a file it enters; what a shared fixture enters counts for every test of the file"
    def __init__(self, file): self.file,self.context,self.entered,self.seconds = str(file),'',defaultdict(set),defaultdict(float)
    def trace(self, frame, event, arg):
        if frame.f_code.co_filename == self.file: self.entered[self.context].add(frame.f_code.co_firstlineno)
    def watch(self): sys.settrace(self.trace); threading.settrace(self.trace)

def _hooks():
    import pytest
    @pytest.hookimpl(wrapper=True)
    def setup(self, fixturedef, request):
        was = self.context
        if fixturedef.scope != 'function': self.context = request.node.nodeid.partition('::')[0] if fixturedef.scope != 'session' else ''
        try: return (yield)
        finally: self.context = was
    @pytest.hookimpl(wrapper=True)
    def protocol(self, item, nextitem):
        self.context = item.nodeid
        self.watch() # somebody may have taken it away
        try: return (yield)
        finally: self.context = ''
    def report(self, report): self.seconds[report.nodeid] += report.duration
    Reach.pytest_fixture_setup,Reach.pytest_runtest_protocol,Reach.pytest_runtest_logreport = setup,protocol,report

def reach(name, tests):
    "From a clean run: seconds of each test, and contexts with the first lines of what they enter"
    file = ROOT.joinpath(*name.split('.')).with_suffix('.py')
    with tempfile.NamedTemporaryFile('r', suffix='.json') as out:
        def run():
            _hooks()
            plugin = Reach(file)
            plugin.watch()
            rc = run_tests(tests, plugin)
            sys.settrace(None)
            Path(out.name).write_text(json.dumps(dict(seconds=plugin.seconds, entered={k: sorted(v) for k,v in plugin.entered.items()})))
            return rc
        rc,said = in_fork(run, 1200)
        if rc != 0: raise SystemExit(f'{name}: the tests fail without any fault\n{said[-3000:]}')
        return json.loads(out.read())

def tests_of(mutant, known, tests):
    "The tests that enter a mutant's function, the files as they stand and the quick ones first in each"
    contexts = [k for k,v in known['entered'].items() if mutant.starts in v]
    everywhere = mutant.starts is None or '' in contexts
    chosen = [t for t in known['seconds'] if everywhere or t in contexts or t.partition('::')[0] in contexts]
    chosen.sort(key=lambda t: (tests.index(t.partition('::')[0]), known['seconds'][t]))
    return {t: n for n,t in enumerate(chosen)}

# --- notebooks

def fork_kernel():
    "Let the next notebook's kernel be a fork of this process as it is now, that imports fastcore, fastai and fastcf anew: they ask whether they are in a notebook"
    import multiprocessing
    import kernels
    def wait(told):
        for k in [k for k in sys.modules if k.startswith(('fast', 'apswutils', 'nbdev', 'execnb'))]: del sys.modules[k]
        kernels.serve(*told.recv())
    told,tell = multiprocessing.Pipe(False)
    process = multiprocessing.get_context('fork').Process(target=wait, args=(told,), daemon=True)
    process.start()
    class Kernel(kernels.ForkedKernel):
        async def start_kernel(self, cwd='.', env=None, **kwargs):
            self.write_connection_file()
            tell.send((self.connection_file, cwd, env or {}))
            self.process = process
    kernels.ForkedKernel = Kernel

def with_cells(nb, source):
    "A notebook whose exported cells are those of a module's source: it runs its own cells, where others import them"
    cells = dict(re.findall(r'^# %% \S+ #(\w+)\n(.*?)(?=\n# %% |\Z)', source, re.M | re.S))
    for c in nb.cells:
        said = [o for o in c.source.splitlines() if o.startswith('#|')]
        new = cells.get(c.get('id'), '').strip()
        if new and not re.search(r'^from \.', new, re.M): c.source = '\n'.join([*said, new])
    return nb

def run_notebook(notebook, source):
    import nbformat, pytest
    fork_kernel()
    plain = nbformat.read
    nbformat.read = lambda path, *args: with_cells(plain(path, *args), source) if str(path).endswith(f'{notebook}.ipynb') else plain(path, *args)
    return pytest.main(['-q', '-x', '--tb=short', '-p', 'no:cacheprovider', f'tests/test_notebooks.py::test_runs_as_stored[{notebook}.ipynb]'])

# --- all together

def attempt(name, source, order, notebook, clean):
    "(outcome, what found it) of one source of a module; without its notebook, where that is `None`"
    files = list(dict.fromkeys(t.partition('::')[0] for t in order))
    def start():
        sys.meta_path.insert(0, Changed(name, source))
        try: importlib.import_module(name)
        except BaseException as e: print(f'FAILED import: {e!r:.100}', flush=True); return False
        return True
    def tests(file): return run_tests([file], Chosen(order)) if start() else 10
    def pages(): return run_notebook(notebook, source) if start() else 10
    for f,limit in [*((partial(tests, o), 4 * clean[0] + 20) for o in files), *([(pages, 4 * clean[1] + 10)] if notebook else [])]:
        rc,said = in_fork(f, limit)
        if rc != 0:
            first = re.search('^(?:FAILED|ERROR) (.*?)(?: - |$)', said, re.M)
            if rc in (3, 4, 5): raise SystemExit(f'{name}: pytest ended with {rc}\n{said[-3000:]}')
            outcome = {1: 'killed', 2: 'killed', 10: 'broken at import', 'timeout': 'timed out', 'signal': 'killed'}.get(rc, 'killed')
            return outcome,first[1] if first else f'exit {rc}'
    return 'survived',''

def run_module(short, count, seed, known=(), again=None, notebook=False, quick=False, log=print):
    "Rows of one module: its faults and what became of them; none of `known`, or those of `again` in place of a draw"
    m,name = MODULES[short],f'fastcf.{short}'
    file = ROOT.joinpath(*name.split('.')).with_suffix('.py')
    tests = [f'tests/{o}' for o in m.tests.split()[:1 if quick else None]]
    source = file.read_text()
    if again is None: drawn = sample(short, source, count, f'{seed} {short}', m.without, known)
    else: drawn = sorted((o for v in faults(short, source, m.without).values() for o in v if key(asdict(o)) in again), key=lambda o: o.line) # a draw is another once the source is
    if not drawn: return
    reached = reach(name, tests)
    start,(rc,said) = time.monotonic(),in_fork(lambda: run_notebook(m.notebook, source), 600) if notebook else (0, '')
    page = time.monotonic() - start
    if rc != 0: raise SystemExit(f'{m.notebook}: fails without any fault\n{said[-3000:]}')
    log(f"{short}: {sum(map(len, places(source, m.without).values()))} faults, {len(drawn)} drawn; {len(reached['seconds'])} tests take {sum(reached['seconds'].values()):.0f} s{f', the notebook {page:.0f} s' if notebook else ''}", flush=True)
    for o in drawn:
        order,start = tests_of(o, reached, tests),time.monotonic()
        outcome,by = attempt(name, o.source, order, m.notebook if notebook else None, (sum(reached['seconds'].values()), page)) # shared fixtures count for whichever test came first
        row = dict(seed=str(seed), group=m.group, **{k: v for k,v in asdict(o).items() if k not in ('source', 'starts')}, outcome=outcome, found_by=by)
        log(f"  {o.line:4} {outcome:9} {time.monotonic() - start:5.1f} s  {o.was}  ->  {o.now}   [{by.rpartition('/')[2]}]", flush=True)
        yield row

def scores(rows):
    "(group, seed, faults, how many were found)"
    for g,seed in dict.fromkeys((o['group'], o['seed']) for o in rows):
        here = [o for o in rows if (o['group'], o['seed']) == (g, seed)]
        yield g,seed,len(here),sum(o['outcome'] != 'survived' for o in here)

def read(path):
    if not path.exists(): return []
    with open(path, newline='') as f: return list(csv.DictReader(f))

def write(path, rows):
    order = sorted(rows, key=lambda o: (o['seed'], [*MODULES].index(o['module'])))
    with open(path, 'w', newline='') as f:
        w = csv.DictWriter(f, order[0].keys(), lineterminator='\n')
        w.writeheader(); w.writerows(order)

def main(argv=()):
    p = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    p.add_argument('modules', nargs='*', help=' '.join(MODULES))
    p.add_argument('--count', type=int, default=30, help='faults a module')
    p.add_argument('--seed', type=int, default=0, help='of the draw; above 0, faults of the draws before it that the table holds are left out')
    p.add_argument('--again', action='store_true', help='only those that survived before')
    p.add_argument('--quick', action='store_true', help='the first file of tests alone')
    p.add_argument('--notebooks', action='store_true', help="run a module's notebook where no test found the fault: half a minute each")
    p.add_argument('--csv', type=Path, default=CSV, help='the table, in which the rows of these modules and this seed are replaced')
    a = p.parse_args(argv)
    shorts = a.modules or [*MODULES]
    if odd := set(shorts) - {*MODULES}: p.error(f"{', '.join(odd)}: not among {', '.join(MODULES)}")
    preload()
    for short in shorts:
        before = read(a.csv)
        mine = {key(o): o for o in before if o['module'] == short and o['seed'] == str(a.seed)}
        again = {k for k,o in mine.items() if o['outcome'] == 'survived'} if a.again else None
        known = {key(o) for o in before if int(o['seed']) < a.seed}
        rows = {key(o): {**o, 'why': mine.get(key(o), {}).get('why', '') if o['outcome'] == 'survived' else ''} for o in run_module(short, a.count, a.seed, known, again, a.notebooks, a.quick)}
        if not rows: continue
        kept = [o for o in before if not (o['module'] == short and o['seed'] == str(a.seed))]
        write(a.csv, kept + [*({**mine, **rows} if a.again else rows).values()])
    for g,seed,n,found in scores(read(a.csv)): print(f'seed {seed} {g:12} {found} of {n} found: {found / n:.0%}')

if __name__ == '__main__': main(sys.argv[1:])
