"Nothing is users × items: at 200,000 × 50,000 every question is answered within four gigabytes of address space"
import subprocess, sys
import pytest

CODE = '''
import resource
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
import numpy as np, pandas as pd, torch
torch.set_num_threads(1)
from fastcf.all import *

users,items,g = 200_000,50_000,np.random.default_rng(0)
def ratings(n, first=0):
    pair = np.unique(np.concatenate([np.arange(max(users, items)) % users * items + np.arange(max(users, items)) % items,
                                     g.integers(0, users, n) * items + (items * g.random(n)**2).astype(int)]))
    return pd.DataFrame(dict(user=first + pair // items, item=pair % items, rating=g.integers(1, 6, len(pair)).astype('float32')))
dls = CFDataLoaders.from_df(ratings(800_000), valid_pct=.005, seed=0, bs=2**16, device='cpu')
assert (len(dls.catalog.user), len(dls.catalog.item)) == (users, items)
learn = cf_learner(dls, 16, y_range=(.5, 5.5), seed=0)
with learn.no_bar(), learn.no_logging(): learn.fit(1)
some = [int(o) for o in dls.catalog.user[dls.train_ds.users[:2000].numpy()]]
film = int(dls.catalog.item[dls.train_ds.items[:1].numpy()][0])

def predict(): assert np.isfinite(learn.predict(some[0], film))
def interval(): assert (learn.predict(some, film, interval=.9).eval('high - low') > 0).all()
def similar_items(): assert len(learn.similar_items(film, 5)) == 5
def fold_in():
    new = learn.fold_in(ratings(400_000, 10**6), unknown='drop')
    assert len(new) > 190_000
    few = learn.fold_in(ratings(10_000, 10**6).query('user < 1_020_000'), unknown='drop') # lists of all would take minutes
    assert len(few.recommend(10)) == 10 * len(few) > 190_000
    assert np.isfinite(new.predict(new.ids.ids[:5000].tolist(), film, interval=.9).high).all()
def interview(): assert len(Interview(learn, page_size=5).next_page()) == 5
def choice(): assert learn.choice.users.shape == (users, 32) and learn.choice.curve[1] > 0
def lists():
    for order in ('value', 'chance', 'rating'): assert learn.recommend(some, 10, rank_by=order).item.notna().all()
    assert len(learn.similar_users(some[:20], 5)) == 100
'''

QUESTIONS = 'predict', 'interval', 'similar_items', 'choice', 'lists', 'fold_in', 'interview'

def run(code): return subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True)

@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='limits address space')
def test_questions_stay_within_four_gigabytes():
    res = run(CODE + '\n' + '; '.join(f'{o}()' for o in QUESTIONS))
    assert res.returncode == 0, res.stderr[-3000:]

@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='limits address space')
def test_the_limit_is_one():
    res = run('import resource, torch; resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30)); torch.zeros(200_000, 50_000, dtype=torch.bool)')
    assert res.returncode and 'memory' in res.stderr # a byte a pair is ten gigabytes
