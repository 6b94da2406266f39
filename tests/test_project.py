"Facts in one place, notebooks and modules in step, the script"
import configparser, importlib.metadata, os, re, shutil, subprocess, sys
from pathlib import Path
import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
import fastcf
try: import tomllib
except ModuleNotFoundError: import tomli as tomllib # Python 3.10; pytest brings it

ROOT = Path(__file__).parent.parent
from test_structure import rooms
ROOMS = [m.removeprefix('fastcf.') for m in rooms()]

def facts():
    "Every setting of the three files, as {file: {key: value}}"
    toml = tomllib.loads((ROOT/'pyproject.toml').read_text())
    flat = {**{k: v for k,v in toml['project'].items() if k not in ('urls', 'dynamic')}, **toml['project']['urls']}
    res = {'pyproject.toml': flat}
    for name in ('setup.cfg', 'settings.ini'):
        c = configparser.ConfigParser(interpolation=None)
        c.read(ROOT/name)
        res[name] = {k: v for sec in [*c.sections(), 'DEFAULT'] for k,v in c._sections.get(sec, c.defaults()).items()}
    return res

def repeats(files):
    "Settings that two files share, by key (`name` and `title` are different facts) or by a telling value"
    said = {}
    for f,settings in files.items():
        for k,v in settings.items():
            for fact in [('key', k.lower()), *(('value', o.strip().lower()) for o in str(v).split('\n') if len(o.strip()) > 12)]: said.setdefault(fact, set()).add(f)
    return {fact: fs for fact,fs in said.items() if len(fs) > 1}

def test_each_fact_stands_in_one_file(): assert repeats(facts()) == {}

def test_a_repeated_fact_would_be_found():
    f = facts()
    f['settings.ini']['version'] = '0.1.0'
    f['settings.ini']['home'] = f['pyproject.toml']['Repository']
    assert set(repeats(f)) == {('key', 'version'), ('value', f['pyproject.toml']['Repository'].lower())}

def test_every_dynamic_field_is_set_in_setup_cfg():
    dynamic = tomllib.loads((ROOT/'pyproject.toml').read_text())['project']['dynamic']
    c = configparser.ConfigParser(interpolation=None)
    c.read(ROOT/'setup.cfg')
    have = {*c['metadata'], *c['options']} | {'readme': {'long_description'}}.get('readme')
    where = {'readme': 'long_description', 'authors': 'author', 'dependencies': 'install_requires'}
    for field in dynamic:
        if field == 'optional-dependencies': assert c.has_section('options.extras_require')
        elif field in ('scripts', 'entry-points'): assert c.has_section('options.entry_points')
        else: assert where.get(field, field) in have, field

def test_installed_metadata():
    m = importlib.metadata.metadata('fastcf')
    assert m['Version'] == fastcf.__version__ and m['License'] == 'Apache-2.0' and m['Requires-Python']
    points = {e.name: e for e in importlib.metadata.distribution('fastcf').entry_points}
    assert callable(points['fastcf-demo'].load()) and isinstance(points['fastcf'].load(), dict)

def constraints(): return [Requirement(l) for l in (ROOT/'constraints.txt').read_text().splitlines() if l.strip() and not l.startswith('#')]
def plain(name): return re.sub(r'[-_.]+', '-', name).lower()

def test_pins_bind_no_python_that_they_cannot_be_installed_on():
    "README's two commands would end in a conflict of versions"
    lowest = importlib.metadata.metadata('fastcf')['Requires-Python'].removeprefix('>=')
    for o in constraints():
        if o.marker is not None and not o.marker.evaluate({'python_version': lowest}): continue
        try: needs = importlib.metadata.metadata(o.name)['Requires-Python']
        except importlib.metadata.PackageNotFoundError: continue
        assert not needs or SpecifierSet(needs).contains(f'{lowest}.1'), f'{o.name} needs Python {needs}'

def test_pins_fit_the_requirements():
    pins = {plain(o.name): str(o.specifier).removeprefix('==') for o in constraints()}
    reqs = [Requirement(r) for r in importlib.metadata.requires('fastcf')]
    assert len(reqs) > 5
    for r in reqs:
        if r.name != 'fastcf': assert r.specifier.contains(pins[plain(r.name)]), r
    assert not any('+' in v for v in pins.values())

@pytest.fixture(scope='module')
def copy(tmp_path_factory):
    to = tmp_path_factory.mktemp('copy')
    for o in ('nbs', 'fastcf', 'pyproject.toml', 'setup.cfg', 'settings.ini', 'README.md'):
        src = ROOT/o
        if src.is_dir(): shutil.copytree(src, to/o, ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints'))
        else: shutil.copy(src, to/o)
    return to

def contents(folder, pattern): return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob(pattern))}

@pytest.mark.parametrize('tool,folder,pattern', [('nbdev-export', 'fastcf', '*.py'), ('nbdev-clean', 'nbs', '*.ipynb')])
def test_in_step(copy, tool, folder, pattern):
    before = contents(copy/folder, pattern)
    assert len(before) > 5
    subprocess.run([Path(sys.executable).parent/tool], cwd=copy, check=True, capture_output=True)
    assert contents(copy/folder, pattern) == before

def tracked(): return [ROOT/o for o in subprocess.run(['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True).stdout.split()]

def test_no_path_of_a_machine_is_kept():
    found = [f'{p.name}: {m[0]}' for p in tracked() if p.suffix in {'.py', '.ipynb', '.md', '.toml', '.cfg', '.ini', '.txt', '.yml', ''} and p.exists()
             for m in re.finditer(r'/(?:root|home|work|tmp|opt)/[\w.]+', p.read_text(errors='ignore'))]
    assert found == []

@pytest.mark.parametrize('name', ['README.md', 'CONTRIBUTING.md', 'CHANGELOG.md'])
def test_local_links_lead_somewhere(name):
    links = [l for l in re.findall(r'\]\(([^)#]+)\)', (ROOT/name).read_text()) if not l.startswith('http')]
    assert [l for l in links if not (ROOT/l).exists()] == []

def test_every_parameter_says_what_it_is():
    "Each parameter of each public function and class has a comment, each of them a docstring"
    import inspect
    from fastcore.docments import docments
    bare = []
    for mod in (importlib.import_module(f'fastcf.{o}') for o in ROOMS if o != 'all'):
        for name in mod.__all__:
            o = getattr(mod, name)
            if getattr(o, '__module__', None) != mod.__name__: continue
            if not o.__doc__: bare.append(f'{name}: no docstring')
            methods = [getattr(o, m) for m in vars(o) if not m.startswith('_')] if inspect.isclass(o) else []
            for f in [o, *(m for m in methods if inspect.isfunction(m) and m.__module__ == mod.__name__ and m.__doc__)]:
                if inspect.isclass(f) and '__init__' not in vars(f): continue # takes what its base takes
                if f is not o and any(hasattr(b, f.__name__) for b in o.__mro__[1:] if not b.__module__.startswith('fastcf')): continue # as the base has it
                sig = inspect.signature(f)
                docs = docments(f)
                bare += [f'{name}.{f.__name__}: {p}' for p,v in sig.parameters.items() if p not in ('self', 'cls', 'kwargs', 'args') and v.kind is not v.VAR_KEYWORD and not docs.get(p)]
    assert bare == []

def test_all_brings_what_fastai_users_expect_and_shadows_one_name():
    import fastai.collab, fastai.tabular.all, fastcf.all as a
    for name in 'Learner Callback load_ml100k check_ratings CFDataLoaders cf_learner CFLearner EmbeddingDotBias TimeSplitter SaveModelCallback torch nn pd np Path UnknownIdError RatingsError'.split(): assert name in a.__all__, name
    theirs = {**vars(fastai.tabular.all), **vars(fastai.collab)}
    assert [k for k in a.__all__ if k in theirs and theirs[k] is not vars(a)[k]] == ['EmbeddingDotBias']

def test_importing_the_package_is_quick_because_it_imports_nothing():
    code = "import sys; before = set(sys.modules); import fastcf; print([m for m in sys.modules if m.split('.')[0] in ('torch', 'fastai', 'pandas', 'matplotlib')])"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '[]'

def test_a_wheel_holds_every_module(tmp_path):
    "Built from a copy, as what git tracks; imported from where it was unpacked"
    for p in tracked():
        if p.relative_to(ROOT).parts[0] in ('fastcf', 'pyproject.toml', 'setup.cfg', 'README.md', 'LICENSE'):
            to = tmp_path/'src'/p.relative_to(ROOT)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(p, to)
    pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check', '-q']
    subprocess.run([*pip, 'wheel', '--no-deps', '--no-build-isolation', '-w', tmp_path/'wheel', tmp_path/'src'], check=True, capture_output=True)
    wheel, = (tmp_path/'wheel').glob('fastcf-*.whl')
    subprocess.run([*pip, 'install', '--no-deps', '--no-compile', '--target', tmp_path/'there', wheel], check=True, capture_output=True)
    assert contents(tmp_path/'there/fastcf', '*.py').keys() == contents(ROOT/'fastcf', '*.py').keys() and (tmp_path/'there/fastcf/py.typed').exists()
    code = f"import importlib, sys; sys.path.insert(0, {str(tmp_path/'there')!r}); mods = [importlib.import_module(m) for m in {rooms()!r}]; print({{m.__file__.startswith({str(tmp_path/'there')!r}) for m in mods}})"
    env = {k: v for k,v in os.environ.items() if k != 'PYTHONPATH'}
    assert subprocess.run([sys.executable, '-c', code], cwd=tmp_path, env=env, capture_output=True, text=True, check=True).stdout.strip() == '{True}'

# --- the script

SCRIPT = Path(sys.executable).parent/'fastcf-demo'

def test_demo_runs_and_writes_plots(tmp_path):
    p = subprocess.run([SCRIPT, '--seeds', '2', '--epochs', '1', '--out', tmp_path/'plots'], capture_output=True, text=True, cwd=tmp_path, check=True)
    for w in ('90,000 to train on, 10,000 to test on', 'the mean of 2 seeds', 'Ten films for user 196', 'Five films like Star Wars', 'The Empire Strikes Back'): assert w in p.stdout, w
    assert [f.name for f in sorted((tmp_path/'plots').iterdir())] == ['losses.png', 'map.png'] and all(f.read_bytes()[:4] == b'\x89PNG' for f in (tmp_path/'plots').iterdir())
    assert 0.9 < float(re.search(r'Test RMSE (\d\.\d+)', p.stdout)[1]) < 1.0 # one epoch; five are measured by the demo itself

def test_demo_helps():
    out = subprocess.run([SCRIPT, '--help'], capture_output=True, text=True, check=True).stdout
    for w in ('--seeds', '--epochs', '--out', 'Star Wars'): assert w in out

def test_protocol():
    import numpy as np
    from fastcf.demo import clipped_rmse, test_rows_90_10 as test_rows
    p = np.random.default_rng(42).permutation(100_000)
    assert (test_rows() == p[90_000:]).all()
    assert clipped_rmse([0., 9., 3.], [1, 5, 4]) == pytest.approx((1 / 3) ** .5)

def test_what_coverage_leaves_out_exists():
    "Loops that are compiled, by name: one that was renamed would count as never run"
    left_out, = tomllib.loads((ROOT/'pyproject.toml').read_text())['tool']['coverage']['report']['exclude_also']
    names = re.search(r'\(([\w|]+)\)', left_out)[1].split('|')
    source = '\n'.join(p.read_text() for p in (ROOT/'fastcf').rglob('*.py'))
    assert len(names) > 3 and [n for n in names if not re.search(rf'^def {n}\(', source, re.M)] == []
