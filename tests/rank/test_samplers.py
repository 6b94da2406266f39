"What is drawn beside a choice: the compiled searches beside torch's, and how often each item comes"
import numpy as np, pandas as pd, pytest, torch
from scipy import stats
from fastcf.data.loaders import CFDataLoaders
from fastcf.data.sources import simulate_ratings
from fastcf.rank import losses
from fastcf.rank.losses import Hard, InBatch, Popular, Uniform

def loaders(df): return CFDataLoaders.from_df(df, rating_name=False, valid_pct=0, bs=64, seed=0, device='cpu')

def tables():
    "Simulated choices; two items; somebody who chose everything, somebody the last item alone; one item far ahead of all others"
    yield 'simulated',simulate_ratings(60, 80, 1500, 4, seed=3)[['user', 'item']]
    yield 'two items',pd.DataFrame(dict(user=[0, 1], item=[0, 1]))
    yield 'everything',pd.DataFrame([(0, i) for i in range(7)] + [(1, 0), (2, 6)], columns=['user', 'item'])
    yield 'skewed',pd.DataFrame([(u, 0) for u in range(500)] + [(u, 1 + u % 40) for u in range(500)], columns=['user', 'item'])

@pytest.mark.parametrize('make', [Uniform, lambda **kw: Popular(alpha=2., **kw), InBatch, Hard], ids=['Uniform', 'Popular', 'InBatch', 'Hard'])
@pytest.mark.parametrize('name,df', list(tables()), ids=lambda o: o if isinstance(o, str) else '')
def test_compiled_searches_draw_what_torch_draws(name, df, make, monkeypatch):
    pytest.importorskip('numba')
    dls,runs = loaders(df),[]
    t = dls.train_ds
    for quick in (True, False):
        monkeypatch.setattr(losses, 'HAS_NUMBA', quick)
        s = make(seed=5)
        s.prepare(dls)
        runs.append([s.sample(t.users.long(), t.items.long(), lambda u, i: (u * 31 + i * 7 % 13).float()) for _ in range(2)])
    for (a,counts),(b,same) in zip(*runs): assert torch.equal(a, b) and torch.equal(counts, same)

def test_searches_hold_at_the_edges():
    "Numbers at, just below and just above each sum; chances that are nothing; rows that nobody has yet"
    s = Popular(alpha=3.)
    s.prepare(loaders(next(df for name,df in tables() if name == 'skewed')))
    c = s.cdf.numpy()
    numbers,out = np.concatenate([[0.], c, np.nextafter(c, 0), np.nextafter(c, 9)]),np.empty(1 + 3 * len(c), np.int64)
    losses.find_draws(numbers, c, s.guide.numpy(), out)
    assert (out == np.searchsorted(c, numbers, side='right').clip(max=len(c) - 1)).all()
    found = np.empty(2, bool)
    losses.find_chosen(np.array([0, 10**6]), 1, np.array([0, 0]), s.item_count, s.offsets.numpy(), s.chosen.numpy(), found)
    assert found.tolist() == [True, False]

@pytest.mark.parametrize('make', [lambda: Uniform(500, seed=2), lambda: Popular(500, alpha=.5, seed=2)], ids=['Uniform', 'Popular'])
def test_each_item_comes_as_often_as_it_should(make):
    "Of what a person did not choose, each item by its chance; nobody here chose so much that six draws do not find another"
    dls,s = loaders(simulate_ratings(60, 80, 1500, 4, seed=3)[['user', 'item']]),make()
    s.prepare(dls)
    user = torch.zeros(40, dtype=torch.long)
    items,counts = s.sample(user, user)
    free = ~s.is_chosen(user[:1], torch.arange(s.item_count)[None])[0]
    chances = (s.log_p.double().exp() * free).numpy()
    seen = torch.bincount(items[counts], minlength=s.item_count).numpy()
    assert counts.float().mean() > .99 and seen[~free.numpy()].sum() == 0
    want = chances / chances.sum() * seen.sum()
    assert stats.chisquare(seen[free.numpy()], want[free.numpy()]).pvalue > 1e-4
