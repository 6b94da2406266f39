"The same seed gives the same data, splits, batches and features on any processor, with any number of threads and any hash seed"
import hashlib, os, subprocess, sys
import numpy as np, pandas as pd, pytest

SCRIPT = '''
import hashlib, numpy as np, pandas as pd
from fastcf.data.sources import simulate_ratings
from fastcf.data.splits import *
from fastcf.data.loaders import CFDataLoaders
from fastcf.data.features import MetadataEncoder
digest = lambda *os: hashlib.sha256(b''.join(np.ascontiguousarray(o).tobytes() for o in os)).hexdigest()[:12]
sims = {n: simulate_ratings(*n, seed=0) for n in ((60, 80, 1500, 4), (200, 150, 6000, 4), (30, 40, 1200, 3))}
for n,df in sims.items(): print('simulated', n, digest(df.to_numpy('float64')))
df = sims[60, 80, 1500, 4]
tied = df.assign(timestamp=df.timestamp // 10**7, user='u' + df.user.astype(str))
for name,s in dict(time=TimeSplitter(.3), last=LeaveLastOutSplitter(), users=ColdUserSplitter(.3, 1), items=ColdItemSplitter(.3, 1)).items(): print(name, digest(*s(tied)))
dls = CFDataLoaders.from_df(tied, seed=3)
print('batches', digest(*(o for b in dls.train for o in b[:2])))
print('seen', digest(*dls.seen, *dls.histories.by_item))
tags = pd.Series([{'a', 'b', str(j % 7)} for j in range(60)])
print('features', MetadataEncoder(pd.DataFrame(dict(id=range(60), tags=tags, kind=tags.index % 4)), min_count=1, max_values=4).names)
'''

def lines(**env):
    run = subprocess.run([sys.executable, '-c', SCRIPT], capture_output=True, text=True, env={**os.environ, **env})
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()

@pytest.fixture(scope='module')
def here(): return lines()

@pytest.mark.parametrize('env', [dict(NPY_DISABLE_CPU_FEATURES='X86_V3', ATEN_CPU_CAPABILITY='default'), dict(OMP_NUM_THREADS='1', PYTHONHASHSEED='1'), dict(OMP_NUM_THREADS='2', PYTHONHASHSEED='2')])
def test_the_same_on_another_processor_and_with_other_threads_and_hashes(here, env): assert lines(**env) == here

def test_fingerprints(here):
    "Of simulated ratings on a scale of whole stars: whoever changes them changes what every stored output was made from"
    assert here[:3] == ['simulated (60, 80, 1500, 4) 2d5ed09cddbf', 'simulated (200, 150, 6000, 4) 2b6d61699ff7', 'simulated (30, 40, 1200, 3) a9ee3417dad9']
