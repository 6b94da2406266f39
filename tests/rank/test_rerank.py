"Variety and calibration beside slow, plain versions: one user, one place, one item after the other"
import numpy as np, pandas as pd, pytest
from fastcf.rank.rerank import calibrate, dpp, genre_shares, miscalibration, mmr

@pytest.fixture(scope='module')
def data():
    rng = np.random.default_rng(0)
    vectors = pd.DataFrame(rng.normal(size=(60, 14)), index=[f'i{j}' for j in range(60)])
    lists = [dict(user=f'u{u}', rank=r + 1, item=f'i{i}', value=v) for u,n in enumerate((20, 25, 7, 1, 30))
             for r,(i,v) in enumerate(zip(rng.permutation(60)[:n], np.sort(rng.random(n))[::-1]))]
    history = pd.DataFrame(dict(user=[f'u{u}' for u in rng.integers(0, 4, 90)], item=[f'i{i}' for i in rng.integers(0, 60, 90)]))
    return pd.DataFrame(lists),vectors,history,(vectors > .5) * 1.

def scaled(g):
    v = g.value.to_numpy()
    return (v - v.min()) / (np.ptp(v) or 1.)

def plain(lists, k, gain):
    "Greedy, of one user after the other; `gain(group, chosen, j)` is what item j adds"
    res = {}
    for user,g in lists.groupby('user', sort=False):
        chosen = []
        while len(chosen) < min(k, len(g)):
            free = [j for j in range(len(g)) if j not in chosen]
            chosen.append(max(free, key=lambda j: gain(g, chosen, j)))
        res[user] = list(g.item.iloc[chosen])
    return res

def as_lists(df):
    assert all(g['rank'].tolist() == list(range(1, len(g) + 1)) for _,g in df.groupby('user'))
    return {u: list(g.item) for u,g in df.groupby('user', sort=False)}

def cosines(vectors, g):
    v = vectors.loc[g.item].to_numpy()
    v = v / np.linalg.norm(v, axis=1, keepdims=True)
    return v @ v.T

@pytest.mark.parametrize('d', [0., .3, .9])
def test_mmr(data, d):
    lists,vectors,*_ = data
    def gain(g, chosen, j):
        near = max((cosines(vectors, g)[j, i] for i in chosen), default=0.)
        return (1 - d) * scaled(g)[j] - d * near if chosen else scaled(g)[j]
    assert as_lists(mmr(lists.sample(frac=1, random_state=1), vectors, 8, d)) == {u: plain(lists, 8, gain)[u] for u in pd.unique(lists.sample(frac=1, random_state=1).user)}

@pytest.mark.parametrize('d', [.2, .6])
def test_dpp_by_determinants(data, d):
    lists,vectors,*_ = data
    def gain(g, chosen, j):
        q = np.exp((1 - d) / (2 * d) * scaled(g))
        at = [*chosen, j]
        return np.linalg.slogdet((q[:, None] * cosines(vectors, g) * q)[np.ix_(at, at)])[1]
    assert as_lists(dpp(lists, vectors, 8, d)) == plain(lists, 8, gain)

def test_dpp_goes_on_where_the_vectors_span_no_more():
    lists = pd.DataFrame(dict(user=1, rank=range(1, 7), item=range(6), score=np.linspace(1, 0, 6)))
    vectors = pd.DataFrame(np.eye(2)[[0, 0, 0, 1, 1, 1]], range(6))
    assert dpp(lists, vectors, 6, .5).item.tolist() == [0, 3, 1, 2, 4, 5]

@pytest.mark.parametrize('w', [0., .4, 1.])
def test_calibration(data, w):
    lists,_,history,genres = data
    part = genres.div(genres.sum(axis=1).clip(lower=1), axis=0)
    p = {u: part.loc[g.item].sum() / part.loc[g.item].sum().sum() for u,g in history.groupby('user')}
    p['u4'] = pd.DataFrame(p).mean(axis=1) # without a history
    def distance(p, items):
        q = part.loc[items].sum(); q = .99 * q / max(q.sum(), 1e-12) + .01 * p
        return sum(a * np.log(a / b) for a,b in zip(p, q) if a > 0)
    gain = lambda g, chosen, j: (1 - w) * scaled(g)[j] - w * distance(p[g.user.iloc[0]], g.item.iloc[[*chosen, j]])
    got = calibrate(lists, history, genres, 6, w)
    assert as_lists(got) == plain(lists, 6, gain)
    far,want = miscalibration(got[got.user != 'u4'], history, genres),{u: distance(p[u], g.item) for u,g in got.groupby('user') if u != 'u4'}
    assert far.to_dict() == pytest.approx(want)
    assert genre_shares(history, genres).loc['u1'].to_numpy() == pytest.approx(p['u1'].to_numpy())

def test_nothing_and_what_cannot_be(data):
    lists,vectors,history,genres = data
    assert len(mmr(lists[:0], vectors)) == len(dpp(lists[:0], vectors)) == 0
    assert mmr(lists, vectors[:0], 3).item.tolist() == lists[lists['rank'] <= 3].item.tolist() # no vectors: nothing is like anything
    for call,said in ((lambda: mmr(lists.drop(columns='value'), vectors), "'value'"), (lambda: mmr(lists, pd.concat([vectors, vectors])), 'several rows'),
                      (lambda: mmr(lists, vectors, diversity=2), 'diversity'), (lambda: dpp(lists, vectors, diversity=0), 'diversity'), (lambda: calibrate(lists, history, genres, weight=-1), 'weight')):
        with pytest.raises(ValueError, match=said): call()
