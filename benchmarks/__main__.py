"Run every benchmark of this folder in turn; `--list` names them"
import importlib, pkgutil, sys
import benchmarks

names = [m.name for m in pkgutil.iter_modules(benchmarks.__path__) if m.name not in ('__main__', 'mutants', 'sasrec')] # mutants: an hour, of the tests; sasrec: a peer of ranking
if '--list' in sys.argv[1:]: print('\n'.join(names))
else:
    for name in names:
        print(f'== {name}', flush=True)
        importlib.import_module(f'benchmarks.{name}').main()
