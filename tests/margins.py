"""How far stored outputs hang on the processor: run notebooks as an older processor would, and say which cells need a tolerance

python tests/margins.py [NOTEBOOK ...] [--as older|avx2] [--jobs 2] [--write]

Fits by gradient repeat to the bit on one machine only: rounding differs on another, and grows with the steps. What a cell shows of such a fit is
compared at the precision that survives this. `--write` gives each cell that moved by more than a third of its tolerance a new one, three times
what was seen, as its line `#| tolerance: 0.1`. Read the cells it names first: one that needs more than 0.3 teaches something that others won't see."""
import argparse, json, math, os, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PROCESSORS = dict(
    older=dict(NPY_DISABLE_CPU_FEATURES='X86_V3', ATEN_CPU_CAPABILITY='default', MKL_ENABLE_INSTRUCTIONS='SSE4_2', ONEDNN_MAX_CPU_ISA='SSE41', PYTHONHASHSEED='2'),
    avx2=dict(ATEN_CPU_CAPABILITY='avx2', ONEDNN_MAX_CPU_ISA='AVX2', NPY_DISABLE_CPU_FEATURES='X86_V4', PYTHONHASHSEED='3'))
STEPS = .02,.05,.1,.2,.3,.5,1,3 # 1: other words altogether, 3: other ids

def moved(name):
    "Cells (position in the notebook, what they need, what differs) that moved by more than a third of their tolerance"
    cells = [i for i,c in enumerate(nbformat.read(NBS/name, 4).cells) if c.cell_type == 'code' and directives(c.source).get('eval') != 'false']
    found = [(i, *deviation(o, n), tolerance(o)) for i,o,n in zip(cells, *run(name))]
    return [(i, far, what) for i,far,what,now in found if far > now / 3]

def write(name, found):
    "Give the cells their tolerance, three times what was seen"
    nb = json.loads((NBS/name).read_text(encoding='utf-8'))
    for i,far,_ in found:
        if math.isinf(far): continue
        lines = [o for o in ''.join(nb['cells'][i]['source']).splitlines(True) if not o.startswith('#| tolerance')]
        nb['cells'][i]['source'] = [f'#| tolerance: {next((s for s in STEPS if s >= 3 * far), STEPS[-1])}\n', *lines]
    (NBS/name).write_text(json.dumps(nb, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')

if __name__ == '__main__': # all other imports too: a forked kernel imports this file, and should find nothing of fastai
    import nbformat
    sys.path.insert(0, str(Path(__file__).parent))
    from test_notebooks import NAMES, NBS, deviation, directives, run, tolerance
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument('names', nargs='*', help='paths below nbs/; all if none is given')
    ask.add_argument('--as', dest='processor', choices=PROCESSORS, default='older', help='whose instructions are used')
    ask.add_argument('--jobs', type=int, default=2)
    ask.add_argument('--write', action='store_true')
    said = ask.parse_args()
    os.environ.update(PROCESSORS[said.processor])
    def one(name):
        try: found = moved(name)
        except Exception as e: print(f'{name}: {type(e).__name__}: {str(e)[-800:]}', flush=True); return
        print(f'{name}: {len(found)} cells moved', *(f'  cell {i}: needs {far:.3g}: {what}' for i,far,what in found), sep='\n', flush=True)
        if found and said.write: write(name, found)
    with ThreadPoolExecutor(said.jobs) as pool: list(pool.map(one, said.names or NAMES))
