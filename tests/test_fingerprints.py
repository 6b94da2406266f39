"""The same seed gives the same data, splits, batches, negatives, lists and pages on any processor, with any number of threads, in any process

`python tests/test_fingerprints.py` prints the fingerprints, for the table below where one has changed on purpose.
"""
import hashlib, json, os, subprocess, sys
from pathlib import Path

# Of what is drawn and counted alone, no sums of floats before it: these hold on every machine.
EXPECTED = {
    'ratings (60, 80, 1500, 4)': '6a98f25c903a7924',
    'ratings (300, 200, 9000, 6)': 'e2511d2bca6efb88',
    'split by time': '04a844947952dc3a',
    'split by last': '8df4e7708630b3c9',
    'split by users': 'af6411ea6e98b72d',
    'split by items': '24f9e2bf14298f1b',
    'batches': 'b63755d1f1d7c531',
    'vocabularies': '6350e421379f4915'}

SETTINGS = { # what decides in which order a processor, a pool of threads or a hash hands things on
    'one thread': dict(OMP_NUM_THREADS='1', PYTHONHASHSEED='1'),
    'two threads': dict(OMP_NUM_THREADS='2', PYTHONHASHSEED='2'),
    'another processor': dict(NPY_DISABLE_CPU_FEATURES='X86_V3', ATEN_CPU_CAPABILITY='default', OMP_NUM_THREADS='1', PYTHONHASHSEED='0')}

def digest(*parts):
    "Sixteen letters for frames, arrays, tensors and lists: their values in their order"
    import numpy as np, pandas as pd, torch
    h = hashlib.sha256()
    def add(o):
        if isinstance(o, pd.DataFrame):
            for c in o: add(c); add(o[c].to_numpy())
        elif isinstance(o, torch.Tensor): add(o.cpu().numpy())
        elif isinstance(o, np.ndarray) and o.dtype == object: add(o.tolist())
        elif isinstance(o, np.ndarray): h.update(np.ascontiguousarray(o, dtype=o.dtype.newbyteorder('<') if o.dtype.kind != 'b' else o.dtype).tobytes())
        elif isinstance(o, (list, tuple)):
            for x in o: add(x)
        else: h.update(repr(o).encode())
    add(parts)
    return h.hexdigest()[:16]

def drawn():
    "Fingerprints of what rests on random draws and counts alone"
    from fastcf.data.loaders import CFDataLoaders
    from fastcf.data.sources import simulate_ratings
    from fastcf.data.splits import ColdItemSplitter, ColdUserSplitter, LeaveLastOutSplitter, TimeSplitter
    import numpy as np
    for sizes in ((60, 80, 1500, 4), (300, 200, 9000, 6)): yield f'ratings {sizes}',digest(simulate_ratings(*sizes, seed=0))
    df = simulate_ratings(200, 150, 6000, 4, seed=0)
    df['timestamp'] = df.timestamp // 10**6 # many at the same time
    for name,split in dict(time=TimeSplitter(.2), last=LeaveLastOutSplitter(), users=ColdUserSplitter(.2, seed=0), items=ColdItemSplitter(.2, seed=0)).items():
        yield f'split by {name}',digest([np.asarray(o, dtype='int64') for o in split(df)])
    dls = CFDataLoaders.from_df(df, valid_pct=.2, seed=3, bs=64)
    yield 'batches',digest([list(b) for _ in range(2) for b in dls.train])
    yield 'vocabularies',digest(list(dls.catalog.user), list(dls.catalog.item))

def learned():
    "Fingerprints of lists and pages: of what hangs on sums, so that only equal scores could change places"
    from fastcf.data.loaders import CFDataLoaders
    from fastcf.data.sources import simulate_ratings
    from fastcf.interview.interview import Interview
    from fastcf.learn.learner import cf_learner
    from fastcf.learn import look
    from fastcf.rank import topn
    df = simulate_ratings(200, 150, 6000, 4, seed=0)
    dls = CFDataLoaders.from_df(df, valid_pct=.2, seed=3, bs=64)
    learn = cf_learner(dls, factor_count=6, y_range=(.5, 5.5), seed=0)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(2)
    for name in ('user', 'item'): # coarse tables: most scores tie, and none is near another by a rounding error
        for table in (getattr(learn.model, f'{name}_weight'), getattr(learn.model, f'{name}_bias')): table.weight.data.mul_(4).round_().div_(4)
    users = dls.catalog.user[:40]
    yield 'recommend',digest(learn.recommend(users, k=10)[['user', 'item']])
    yield 'similar',digest(learn.similar_items(dls.catalog.item[3], k=20)['item'].tolist())
    yield 'biases',digest(learn.biases()['item'].tolist())
    for strategy in ('adaptive', 'popular'):
        iv,pages = Interview(learn, strategy=strategy, page_size=5, pages=3),[]
        for j in range(3):
            page = iv.next_page()['item'].tolist()
            pages.append(page)
            iv.answer({i: 1 + (i + j) % 5 for i in page[:3]})
        yield f'pages {strategy}',digest(pages, iv.recommend(8)['item'].tolist())

def fingerprints(env):
    "What this file prints in a process with these settings"
    p = subprocess.run([sys.executable, __file__], env={**os.environ, **env}, capture_output=True, text=True)
    assert p.returncode == 0, p.stderr[-3000:]
    return json.loads(p.stdout)

def test_fingerprints_are_the_same_under_all_settings():
    found = {name: fingerprints(env) for name,env in SETTINGS.items()}
    first = found['one thread']
    assert len(first) > 12
    for name,other in found.items(): assert {k: v for k,v in other.items() if first[k] != v} == {}, name
    assert {k: first[k] for k in EXPECTED} == EXPECTED

if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).parent.parent))
    print(json.dumps({**dict(drawn()), **dict(learned())}, indent=1))
