"Every notebook runs from a clean kernel, once, and gives the outputs that are stored in it; every public name has an example among them"
import ast, math, os, re, sys
from difflib import SequenceMatcher
from pathlib import Path
import nbformat, pytest
from fastai.callback.core import event
from nbclient import NotebookClient
from kernels import CAN_FORK,ForkedKernel

ROOT = Path(__file__).parent.parent
NBS = ROOT/'nbs'
NAMES = [p.relative_to(NBS).as_posix() for p in sorted(NBS.rglob('*.ipynb'), key=lambda p: (-p.stat().st_size, p)) if '.ipynb_checkpoints' not in p.parts] # the long ones first
sys.path.insert(0, str(ROOT/'docs'))
from site_builder.notebooks import directives, plain_source
from site_builder.symbols import read_symbols

# --- running

def run(name):
    "(stored, new) pairs of the code cells of a notebook, run as nbdev-test would: without cells marked `eval: false`"
    nb = nbformat.read(NBS/name, 4)
    nb.cells = [c for c in nb.cells if c.cell_type == 'code' and directives(c.source).get('eval') != 'false']
    old = [c.copy() for c in nb.cells]
    env = {**os.environ, 'IN_TEST': '1', 'MPLBACKEND': 'module://matplotlib_inline.backend_inline', 'OMP_NUM_THREADS': '1'}
    with_kernel = dict(kernel_manager_class=ForkedKernel) if CAN_FORK else {}
    NotebookClient(nb, timeout=900, kernel_name='python3', resources={'metadata': {'path': str((NBS/name).parent)}}, **with_kernel).execute(env=env)
    return old,nb.cells

# --- comparing

NUMBER = re.compile(r'[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?')
TIME = re.compile(r'\b\d+:\d\d(?::\d\d)?\b|\b\d{4}-\d\d-\d\d\b|\d[\d.,]*\s*(?:ns|µs|us|ms|s|sec|seconds?|minutes?|min)\b|\d[\d.,]*\s*(?:times|×|x) (?:faster|slower|quicker|as fast)')
MARKUP = re.compile(r'<style.*?</style>|<!--.*?-->|<progress.*?</progress>[^<]*|<[^>]*>', re.S) # with what stands beside a progress bar that nobody cleared
CLOCKS = re.compile(r'\btime\.|perf_counter|timeit|%time|seconds')

def tokens(text, timed=False):
    "Words and numbers of an output; times are left out, and all numbers where the cell reads a clock or shows seconds"
    text = TIME.sub(' ', re.sub(r'0x[0-9a-f]+', '', text))
    words = re.findall(r'[^\W\d]\w*|' + NUMBER.pattern, text)
    is_num = lambda w: NUMBER.fullmatch(w) is not None
    return [w for w in words if not is_num(w)],[] if timed else [float(w.replace(',', '')) for w in words if is_num(w)]

def shown(cell):
    "What a cell's outputs say: the text of prints and results, and how many pictures"
    text,pictures = '',0
    for o in cell.outputs:
        if o.output_type == 'stream': text += o.text if o.name == 'stdout' else ''
        elif o.output_type != 'error':
            if 'image/png' in o.data: pictures += 1
            elif 'text/html' in o.data: text += MARKUP.sub(' ', o.data['text/html']) + '\n'
            else: text += o.data.get('text/plain', '') + '\n'
    return text,pictures

def deviation(old, new):
    """How far the outputs of two cells are apart: the least `tolerance` under which they count as the same, and a word on what differs most

    A tenth of the numbers may be further off, each by more than the tolerance of itself plus the tolerance, and a tenth of the words may be others; with a tolerance, as large a share of the rest too. Another count of numbers takes a tolerance of 0.1 at least."""
    (a,n),(b,m),timed = shown(old),shown(new),CLOCKS.search(old.source) is not None
    if n != m: return math.inf,f'{n} pictures stored, {m} now'
    (words,nums),(words2,nums2) = tokens(a, timed),tokens(b, timed)
    same = SequenceMatcher(None, words, words2, autojunk=False).ratio()
    by_words = max(0., 1 - same / .9)
    if len(nums) != len(nums2): return max(.1, by_words),f'{len(nums)} numbers stored, {len(nums2)} now. Stored:\n{a[:800]}\nNow:\n{b[:800]}' # titles may have numbers in them
    off = sorted(((abs(x - y) / (1 + abs(x)), x, y) for x,y in zip(nums, nums2)), reverse=True)
    by_numbers = off[len(off) // 10][0] if off else 0.
    if by_words > by_numbers: return by_words,f'only {same:.0%} of the words are the same. Stored:\n{a[:800]}\nNow:\n{b[:800]}'
    return by_numbers,f'of {len(nums)} numbers, these are furthest off: {[o[1:] for o in off[:5]]} (stored, now)'

TOLERANCE = .01

def tolerance(cell):
    "How far a cell lets its outputs go: `#| tolerance: 0.1` where chance or another processor's rounding shows, as in fits by gradient and what is listed by them (tests/margins.py measures it)"
    return float(directives(cell.source).get('tolerance', TOLERANCE))

def differences(old, new):
    "What is not the same in the outputs of two cells, or None"
    far,what = deviation(old, new)
    if far > tolerance(old): return f'{what}\nTolerance {tolerance(old)}, needed {far:.3g}'

LONG = """scale/03_distributed bayes/07_growth interview/03_simulate cold/00_regression cold/02_proxies index watch/05_embedding_stats learn/05_lr_finder watch/01_tables bayes/02_foldin cold/04_curves
    interview/02_interview cold/03_attach rank/06_evaluate bayes/03_laplace rank/03_topn interview/00_questions learn/04_look rank/08_rerank rank/10_sequence cold/01_metadata_prior rank/09_nearest""".split() # a quarter of the notebooks, half of the time

def is_slow(name): return name.startswith('tutorials/') or name.removesuffix('.ipynb') in LONG # a tutorial trains for the sake of its figures

@pytest.mark.parametrize('name', [pytest.param(n, marks=[pytest.mark.slow] if is_slow(n) else []) for n in NAMES])
def test_runs_as_stored(name):
    old,new = run(name)
    diffs = {o.source[:200]: d for o,n in zip(old, new) if (d := differences(o, n))}
    assert not diffs, '\n'.join(f'--- {name}: {source}\n{d}' for source,d in diffs.items()) + f'\nRun the notebook again and look at what changed: jupyter nbconvert --to notebook --execute --inplace, then nbdev-clean. Where nothing changed but the processor: python tests/margins.py {name}'

def cell(source='x', *texts, pictures=0):
    outs = [nbformat.v4.new_output('stream', text=t) for t in texts] + [nbformat.v4.new_output('display_data', {'image/png': 'x'}) for _ in range(pictures)]
    return nbformat.v4.new_code_cell(source, outputs=outs)

@pytest.mark.parametrize('a,b,same', [
    (cell('x', 'rmse 0.907'), cell('x', 'rmse 0.909'), True), (cell('x', 'rmse 0.907'), cell('x', 'rmse 0.997'), False),
    (cell('x', 'user 196'), cell('x', 'film 196'), False), (cell('x', '1 2 3'), cell('x', '1 2'), False), (cell('x', 'a'), cell('x'), False),
    (cell('x', pictures=1), cell('x'), False), (cell('x', pictures=1), cell('x', pictures=1), True),
    (cell('x', '00:01 took 13 ms'), cell('x', '00:07 took 99 ms'), True), (cell('x', 'saved 2026-11-28, 3 users'), cell('x', 'saved 2027-01-01, 3 users'), True), (cell('x', '2.6 times faster'), cell('x', '3.1 times faster'), True), (cell('x', '2.6 times'), cell('x', '3.1 times'), False), (cell('time.perf_counter()', 'ratio 3.5'), cell('time.perf_counter()', 'ratio 4.9'), True),
    (cell('#| tolerance: 0.1\nx', 'effective size 87, error 0.31'), cell('#| tolerance: 0.1\nx', 'effective size 93, error 0.39'), True), (cell('#| tolerance: 0.1\nx', 'size 87'), cell('#| tolerance: 0.1\nx', 'size 105'), False),
    (cell('x', ' '.join('abcdefghijklmnopqrstu')), cell('x', ' '.join('bacdefghijklmnopqrstu')), True)])
def test_what_counts_as_the_same(a, b, same): assert (differences(a, b) is None) == same

# --- examples

def used_names(name):
    "Names that occur in the shown, executed, not exported code of a notebook"
    found = set()
    for c in nbformat.read(NBS/name, 4).cells:
        said = directives(c.source)
        if c.cell_type != 'code' or {'export', 'exports', 'exporti', 'hide', 'default_exp'} & set(said) or said.get('eval') == 'false': continue
        try: tree = ast.parse(plain_source(c.source))
        except SyntaxError: continue # shell lines
        for o in ast.walk(tree):
            if isinstance(o, ast.Name): found.add(o.id)
            elif isinstance(o, ast.Attribute): found.add(o.attr)
    return found

def test_every_public_name_has_an_example_that_runs():
    used = set().union(*map(used_names, NAMES))
    wanted = [s.full for s in read_symbols().values() if s.public and ('.' not in s.name or s.patched) and not hasattr(event, s.name.rpartition('.')[2])] # fastai calls events
    assert len(wanted) > 40
    assert [o for o in wanted if o.rpartition('.')[2] not in used] == []

def test_no_widget_state_is_stored():
    "It is hundreds of kilobytes that nothing shows"
    assert not [n for n in NAMES if 'widgets' in nbformat.read(NBS/n, 4).metadata]

def test_what_is_left_out_of_the_fast_tests_exists(): assert {f'{n}.ipynb' for n in LONG} <= set(NAMES)
