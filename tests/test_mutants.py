"The tool that puts small faults into the package (benchmarks/mutants.py): which faults, that a test finds them, and that nothing stays behind"
import ast, re, sys, time
import nbformat, pytest
from benchmarks import mutants
from benchmarks.mutants import CSV, MODULES, ROOT, Changed, asdict, in_fork, key, read, sample, with_cells

LARGER = '''"Words + words"
from functools import lru_cache
__all__ = ['a' + 'b']
@lru_cache(maxsize=1 + 1)
def larger(a:int|None, b:"1 + 1", budget=2**25) -> int|None:
    "a + b"
    if a is None: raise ValueError(f"got {a + 1}")
    return a if a > b else b
'''

def faults(source):
    pytest.importorskip('cosmic_ray', reason="the extra `bench` is not installed")
    return [o for v in mutants.faults('m', source).values() for o in v]

def finds(source):
    "Whether a small test finds a fault"
    def test():
        scope = {}
        exec(source, scope)
        return not (scope['larger'](1, 2) == scope['larger'](2, 1) == 2)
    return in_fork(test, 20)[0] != 0

def test_faults_are_where_something_is_decided():
    found = faults(LARGER)
    assert {o.line for o in found} == {7, 8} and {o.function for o in found} == {'larger'}
    assert all(ast.dump(ast.parse(o.source)) != ast.dump(ast.parse(LARGER)) and o.was != o.now for o in found)

def test_a_test_finds_a_fault_and_not_one_that_changes_nothing():
    outcome = {o.operator: finds(o.source) for o in faults(LARGER)}
    assert not finds(LARGER)
    assert outcome['ReplaceComparisonOperator_Gt_LtE'] # the smaller one
    assert not outcome['ReplaceComparisonOperator_Gt_GtE'] # of two equal ones, either

def test_a_draw_repeats_and_leaves_out_what_is_known():
    pytest.importorskip('cosmic_ray', reason="the extra `bench` is not installed")
    a,b = (sample('m', LARGER, 3, 'seed') for _ in range(2))
    assert a == b and len(a) == 3
    rest = sample('m', LARGER, 99, 'seed', known={key(asdict(o)) for o in a})
    assert rest and not {o.source for o in a} & {o.source for o in rest}

def test_each_fault_has_a_key_of_its_own_that_a_line_above_does_not_change():
    source = "def f(x):\n    if x < 1: return x + 1\n    x = x * 2\n    if x < 1: return x + 1\n"
    found,moved = faults(source),faults(f'import os\n\n{source}')
    assert len({key(asdict(o)) for o in found}) == len(found) and {o.nth for o in found} == {0, 1}
    assert [key(asdict(o)) for o in found] == [key(asdict(o)) for o in moved] and [o.line + 2 for o in found] == [o.line for o in moved]

def test_a_fork_imports_the_changed_source_and_nothing_else_does():
    import fastcf.core
    source = (ROOT/'fastcf/core.py').read_text().replace("SIDES = 'user','item'", "SIDES = 'item','user'")
    def changed():
        del sys.modules['fastcf.core']
        sys.meta_path.insert(0, Changed('fastcf.core', source))
        from importlib import import_module
        return 5 + (import_module('fastcf.core').SIDES == ('item', 'user'))
    assert in_fork(changed, 20)[0] == 6
    assert fastcf.core.SIDES == ('user', 'item')

def test_a_fork_ends():
    assert in_fork(lambda: time.sleep(60), .2)[0] == 'timeout'
    assert in_fork(lambda: print('said') or 3, 20) == (3, 'said\n')
    assert in_fork(lambda: 1 / 0, 20)[0] == 99
    assert in_fork(lambda: __import__('os').kill(__import__('os').getpid(), 9), 20)[0] == 'signal'

@pytest.mark.parametrize('module', MODULES)
def test_a_notebook_runs_the_changed_cells(module):
    "It runs its own cells, so the fault has to be in these"
    source = (ROOT/'fastcf'/f"{module.replace('.', '/')}.py").read_text()
    path = ROOT/f'nbs/{MODULES[module].notebook}.ipynb'
    stored = [o.source for o in nbformat.read(path, 4).cells]
    same = [o.source for o in with_cells(nbformat.read(path, 4), source).cells]
    assert [o.strip() for o in stored] == [o.strip() for o in same]
    changed = [o.source for o in with_cells(nbformat.read(path, 4), source.replace('return', 'return 1 +')).cells]
    exported = [o for o in stored if o.startswith('#| export') and 'return' in o and not re.search('^from fastcf', o, re.M)]
    assert exported and sum(a != b for a,b in zip(same, changed)) == len(exported)

def test_the_tests_of_each_module_exist():
    for m in MODULES.values():
        assert (ROOT/f'nbs/{m.notebook}.ipynb').exists() and all((ROOT/'tests'/o).exists() for o in m.tests.split())

def test_what_was_not_found_says_why():
    rows = read(CSV)
    assert {o['module'] for o in rows} <= {*MODULES} and len({key(o) for o in rows}) == len(rows)
    assert not [o for o in rows if o['outcome'] == 'survived' and not o['why']]
