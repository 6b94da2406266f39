"Choices, lists, measures and losses beside slow, plain versions"
import math, warnings
from dataclasses import replace
import numpy as np, pandas as pd, pytest, torch
from fastcf.data.loaders import CFDataLoaders
from fastcf.learn.learner import cf_learner
import fastcf.learn.predict, fastcf.bayes.foldin, fastcf.bayes.laplace
from fastcf.core import settle,stable_topk
from fastcf.rank.choice import ChoiceModel, choice_posterior
from fastcf.rank.best import top_scores,top_weighed
from fastcf.rank.evaluate import cut_splitters
from fastcf.rank.fade import Fade
from fastcf.rank.ials import IALS, choice_weights
from fastcf.rank.metrics import auc, hit_rate, mean_average_precision, mrr, ndcg, precision, recall
from fastcf.rank.losses import Hard, InBatch, Popular, Uniform
from fastcf.rank import sweeps
from fastcf.rank.sweeps import choice_groups, chosen, fit_choices, pair_loss, scores_without, start_choices, sweep_choices
from fastcf.data.sources import simulate_ratings

@pytest.fixture(scope='module')
def learn():
    df = simulate_ratings(60, 40, 900, seed=3)
    l = cf_learner(CFDataLoaders.from_df(df, user_name='user', item_name='item', rating_name='rating', seed=1, device='cpu'), 5, seed=0)
    with l.no_bar(), l.no_logging(): l.fit(2)
    return l

# --- measures

def plain(items, right, k):
    "Hit rate, recall, precision, NDCG, MRR and MAP of one list, one rank after the other"
    hits = [float(i in right) for i in items[:k]]
    dcg = sum(h / math.log2(r + 2) for r,h in enumerate(hits))
    best = sum(1 / math.log2(r + 2) for r in range(min(k, len(right))))
    first = next((r for r,h in enumerate(hits) if h), None)
    ap = sum(sum(hits[:r+1]) / (r + 1) for r,h in enumerate(hits) if h)
    return [float(any(hits)), sum(hits) / len(right), sum(hits) / k, dcg / best, 0. if first is None else 1 / (first + 1), ap / min(k, len(right))]

def test_measures_of_a_thousand_random_lists():
    rng,lists,test,want = np.random.default_rng(0),[],[],[]
    for u in range(1000):
        items,right = rng.permutation(30)[:rng.integers(0, 25)],rng.permutation(30)[:rng.integers(1, 12)]
        lists += [(u, r + 1, i) for r,i in enumerate(items)]; test += [(u, i) for i in right]
        want.append(plain(list(items), set(right), 10))
    lists,test = pd.DataFrame(lists, columns=['user', 'rank', 'item']),pd.DataFrame(test, columns=['user', 'item'])
    got = np.stack([f(lists.sample(frac=1, random_state=0), test, 10, per_user=True).sort_index() for f in (hit_rate, recall, precision, ndcg, mrr, mean_average_precision)], 1)
    assert got == pytest.approx(np.array(want), abs=1e-12)

def test_auc_against_all_pairs():
    rng = np.random.default_rng(1)
    order,right = rng.permutation(20),set(rng.permutation(20)[:5])
    place = {i: j for j,i in enumerate(order)}
    want = np.mean([place[a] < place[b] for a in right for b in range(20) if b not in right])
    lists = pd.DataFrame(dict(user=1, rank=range(1, 21), item=order))
    assert auc(lists, pd.DataFrame(dict(user=1, item=list(right))), 20) == pytest.approx(want)

@pytest.mark.parametrize('bad,said', [(dict(rank=[1, 1], item=[1, 2]), 'a rank twice'), (dict(rank=[1, 2], item=[1, 1]), 'an item twice'), (dict(rank=[0, 1], item=[1, 2]), 'whole numbers from 1')])
def test_lists_that_are_none(bad, said):
    with pytest.raises(ValueError, match=said): ndcg(pd.DataFrame(dict(user=1, **bad)), pd.DataFrame(dict(user=[1], item=[1])))

def test_constant_scores_warn():
    with pytest.warns(UserWarning, match='order is that of the rows'): ndcg(pd.DataFrame(dict(user=1, rank=[1, 2], item=[1, 2], score=0.)), pd.DataFrame(dict(user=[1], item=[1])))

# --- the choice model

def test_a_user_against_the_full_sum():
    g = torch.Generator().manual_seed(0)
    v,w = torch.randn(30, 6, generator=g),torch.rand(50, generator=g) + .1
    pairs = torch.randperm(300, generator=g)[:50]
    u,i = pairs // 30,pairs % 30
    x = choice_posterior(choice_groups(u, i, 12, 30)[0], v, w, .2, .05)
    for row in range(12):
        full,target = torch.full((30,), .2),torch.zeros(30)
        full[i[u == row]] += w[u == row]; target[i[u == row]] = w[u == row]
        pen = .05 * (int((u == row).sum()) + .2 * 30)
        assert torch.linalg.solve(v.T @ torch.diag(full) @ v + pen * torch.eye(6), v.T @ target).numpy() == pytest.approx(x[row].numpy(), abs=1e-4)

def test_choices_are_the_same_again_and_chances_rise():
    g = torch.Generator().manual_seed(0)
    pairs = torch.randperm(1200, generator=g)[:300]
    a,b = (fit_choices(pairs // 40, pairs % 40, 30, 40, factor_count=4, sweeps=3) for _ in range(2))
    assert torch.equal(a.items, b.items) and a.curve == b.curve
    c = a.chance(torch.linspace(-.5, 1.5, 101))
    assert (c.diff() >= 0).all() and 0 <= c.min() and c.max() <= 1

@pytest.mark.parametrize('compile_from', [0, 10**9])
def test_steps_against_plain_sweeps(compile_from, monkeypatch):
    "Two sweeps, each row solved by NumPy with every cell in sight, beside those by conjugate gradients; an item, a user without a choice; weights"
    monkeypatch.setattr(sweeps, '_COMPILE_FROM', compile_from)
    g = torch.Generator().manual_seed(0)
    pairs = torch.randperm(20 * 30, generator=g)[:150]
    u,i,w = pairs // 30,pairs % 30,torch.rand(150, generator=g) + .1
    keep = (u != 3) & (i != 7)
    u,i,w = u[keep],i[keep],w[keep]
    chosen,weight = np.zeros((20, 30)),np.full((20, 30), .2)
    chosen[u, i] = w
    weight[u, i] += w.numpy()
    m = start_choices(20, 30, 5, .2, .05, 0)
    sides,items = choice_groups(u, i, 20, 30),m.items.double().numpy()
    def solve(other, chosen, weight):
        n = (chosen > 0).sum(1)
        return np.stack([np.linalg.solve(other.T @ np.diag(o) @ other + .05 * (c + .2 * len(other)) * np.eye(5), other.T @ t) for o,t,c in zip(weight, chosen, n)])
    few = m
    for _ in range(2):
        m,few = sweep_choices(m, sides, w, 12),sweep_choices(few, sides, w)
        users = solve(items, chosen, weight)
        items = solve(users, chosen.T, weight.T)
    assert m.users.numpy() == pytest.approx(users, abs=1e-4) and m.items.numpy() == pytest.approx(items, abs=1e-4)
    assert few.items.numpy() == pytest.approx(items, abs=.02 * np.abs(items).max())

def test_compiled_and_plain_steps_agree_with_any_threads(monkeypatch):
    g = torch.Generator().manual_seed(0)
    u,i = torch.randint(200, (5_000,), generator=g),(torch.rand(5_000, generator=g)**3 * 90).long()
    sides,w,found = choice_groups(u, i, 200, 90),torch.rand(5_000, generator=g),[]
    for compile_from,threads in ((10**9, 1), (0, 1), (0, 3)):
        monkeypatch.setattr(sweeps, '_COMPILE_FROM', compile_from)
        monkeypatch.setattr(torch, 'get_num_threads', lambda: threads)
        m = start_choices(200, 90, 7, .3, .01, 0)
        for _ in range(3): m = sweep_choices(m, sides, w)
        found.append(m)
    plain,one,three = found
    assert torch.equal(one.items, three.items) and one.items.numpy() == pytest.approx(plain.items.numpy(), abs=1e-4)
    start = m.users.clone()
    sweeps.choice_step(m.users, sides[0], m.items, w, .3, .01)
    assert torch.equal(m.users, start) # what is given stays

@pytest.mark.parametrize('kw', [dict(unobserved=0), dict(penalty=-1), dict(factor_count=0)])
def test_settings_that_are_none(kw):
    with pytest.raises(ValueError, match=next(iter(kw))): fit_choices(torch.tensor([0, 1]), torch.tensor([0, 1]), 2, 2, **kw)

def test_a_penalty_that_leaves_nothing_says_so():
    pairs = torch.randperm(30 * 40, generator=torch.Generator().manual_seed(0))[:200].sort().values
    with pytest.warns(UserWarning, match='vectors of all users are zero: a penalty of 30'): fit_choices(pairs // 40, pairs % 40, 30, 40, penalty=30.)
    with warnings.catch_warnings(): warnings.simplefilter('error'); fit_choices(pairs // 40, pairs % 40, 30, 40)

@pytest.mark.parametrize('users,items,choices', [(1, 1, 1), (1, 50, 10), (50, 1, 10), (40, 60, 2), (300, 400, 300), (300, 400, 2_000), (30, 40, 1_100), (50, 3_000, 400), (3_000, 50, 4_000)])
@pytest.mark.parametrize('lowest', [.5, 1.])
def test_settings_of_any_table_leave_something_to_list_by(users, items, choices, lowest):
    "Choices by chance alone are where a penalty extinguishes first"
    g = torch.Generator().manual_seed(0)
    pairs = torch.randperm(users * items, generator=g)[:choices]
    weights = lowest + (1 - lowest) * torch.rand(len(pairs), generator=g)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        m = fit_choices(pairs // items, pairs % items, users, items, weights, factor_count=8)
    own = (m.users[pairs // items] * m.items[pairs % items]).sum(1).mean()
    assert own > .01 and own > 1.2 * (m.users @ m.items.T).abs().mean() * (users * items > 2 * len(pairs))

def test_settings_keep_the_balance_of_a_table():
    assert sweeps.choice_settings(90_570, 943, 1682) == (.3, .01)
    assert sweeps.choice_settings(0, 0, 0) == (.3, .05) == sweeps.choice_settings(1, 1, 1)
    for n,users,items in ((700_000, 20_000, 50_000), (2_000_000, 200_000, 50_000), (5_000, 900, 1_200)):
        unobserved,penalty = sweeps.choice_settings(n, users, items)
        assert 6 < unobserved * users * items / n < 16 and penalty <= .05
        assert sweeps.choice_settings(n, users, items, .2) == (.2, penalty) and sweeps.choice_settings(n, users, items, penalty=.5) == (unobserved, .5)
    with pytest.raises(ValueError, match="unobserved: expected a number above 0 or 'auto'"): fit_choices(torch.tensor([0]), torch.tensor([0]), 1, 1, unobserved='often')

@pytest.mark.parametrize('size', [2**20, 7])
def test_pairs_that_are_choices(size, monkeypatch):
    "Looked up piece by piece, of any length; rows without choices, pairs that occur twice, none at all"
    real = sweeps.pieces
    monkeypatch.setattr(sweeps, 'pieces', lambda groups: real(groups, size))
    for seed in range(40):
        g = torch.Generator().manual_seed(seed)
        users,items,n = (int(torch.randint(1, high, (), generator=g)) for high in (30, 20, 120))
        u,i = torch.randint(users, (n * (seed % 5 > 0),), generator=g),torch.randint(items, (n * (seed % 5 > 0),), generator=g)
        rows,cols = torch.randint(users, (50,), generator=g),torch.randint(items, (50,), generator=g)
        made,groups = set(zip(u.tolist(), i.tolist())),choice_groups(u, i, users, items)[0]
        for o in (groups, replace(groups, order=None, cols=groups.cols.int())):
            assert chosen(o, rows, cols, items).tolist() == [p in made for p in zip(rows.tolist(), cols.tolist())]
    m,w = replace(start_choices(users, items, 3, .2, .05, 0), users=torch.randn(users, 3, generator=g)),torch.rand(len(u), generator=g)
    s = m.users @ m.items.T
    plain = float(((w * (1 - s[u, i])**2).sum() + .2 * s.square().sum()) / w.sum())
    assert pair_loss(m, groups, w) == pytest.approx(plain, rel=1e-5)

@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('time_name', [None, 'time'])
def test_a_learner_learns_its_choices_as_from_the_rows(seed, time_name):
    "What the loaders' histories hold, sorted by user and by item, beside the same rows in the order they came in, weighed and faded each in its place"
    g,(users,items,n) = np.random.default_rng(seed),[(60, 40, 900), (30, 200, 700), (9, 12, 60), (400, 50, 5000)][seed]
    pair = g.permutation(np.unique(g.integers(0, users * items, n)))
    df = pd.DataFrame(dict(user=pair // items, item=pair % items, rating=g.integers(1, 6, len(pair)).astype('f'), time=g.integers(0, 30, len(pair)))) # many at the same time
    l = cf_learner(CFDataLoaders.from_df(df, time_name=time_name, valid_pct=.2, seed=seed, device='cpu'), 4, seed=0)
    with l.no_bar(), l.no_logging(): l.fit(3, cbs=IALS(6, recency=Fade(3.) if time_name else None))
    t,c = l.dls.train_ds,l.dls.catalog
    u,i,w,size = t.users.long(),t.items.long(),choice_weights(t, .5),(len(c.user), len(c.item))
    assert w.numpy() == pytest.approx(.5 + .5 * (t.ratings.numpy() - t.ratings.numpy().min()) / np.ptp(t.ratings.numpy()))
    m,sides = start_choices(*size, 6, *sweeps.choice_settings(len(t), *size), 0),choice_groups(u, i, *size)
    for _ in range(3): m = sweep_choices(m, sides, w)
    w = w * Fade(3.)(u, t.times) if time_name else w
    users = sweeps.half_sweep(m, m.users, m.items, sides[0], w, sweeps.EXACT)
    m = sweeps.calibrate_choices(replace(m, users=users), sides[0], w)
    for a,b in ((l.choice.users, m.users), (l.choice.items, m.items)): assert a.numpy() == pytest.approx(b.numpy(), abs=2e-5)
    assert l.choice.curve == pytest.approx(m.curve, abs=1e-3)

# --- lists

@pytest.mark.parametrize('order', ['value', 'chance'])
@pytest.mark.parametrize('k', [1, 3, 100])
def test_lists_against_a_loop(learn, order, k):
    c,d = learn.choice,learn.dls
    users = [int(o) for o in d.catalog.user[np.flatnonzero(d.counts('user').numpy())][:15]]
    got = learn.recommend(users, k, rank_by=order)
    for u in users:
        row = int(d.catalog.user.rows([u])[0])
        seen = set(d.train_ds.items[d.train_ds.users == row].tolist())
        free = [i for i in range(len(d.catalog.item)) if i not in seen and d.counts()[i] > 0]
        s = settle(c.scores(torch.tensor([row]))[0][free])
        rating = np.clip(learn.predict(u, list(d.catalog.item[free])).prediction.to_numpy(), 1, 5)
        value = np.where(s.numpy() > 0, s.numpy() * (rating - .5) / 4.5, s.numpy()) if order == 'value' else c.chance(s).numpy()
        mine = got[got.user == u] # scores are settled to 1e-5, and the curve to chances is some ten times as steep in places
        assert mine[order].to_numpy() == pytest.approx(np.sort(value)[::-1][:k], abs=2e-4) and not set(d.catalog.item.rows(mine.item)) & seen

def test_value_by_hand():
    c = ChoiceModel(torch.zeros(1, 1), torch.zeros(1, 1), rating_range=(1., 5.))
    scores,ratings = torch.tensor([.9, .9, .9, 0., -.2, -.1, -torch.inf]),torch.tensor([5., 3., -2., 5., 5., 1., 5.])
    assert c.value(scores, ratings).tolist() == pytest.approx([.9, .9 * 2.5 / 4.5, .9 * .5 / 4.5, 0., -.2, -.1, -math.inf])
    assert replace(c, rating_range=(3., 3.)).value(torch.tensor([.5]), torch.tensor([7.])).tolist() == [.5]

def test_lists_by_value_where_only_the_likeliest_are_weighed():
    "A catalog far longer than what is weighed at first, with ratings that turn the order round for some users and not for others"
    df = simulate_ratings(40, 900, 6000, seed=5)
    l = cf_learner(CFDataLoaders.from_df(df, user_name='user', item_name='item', rating_name='rating', valid_pct=0, seed=1, device='cpu'), 2, (.5, 5.5), seed=0)
    c,g,n = l.choice,torch.Generator().manual_seed(0),len(l.dls.catalog.item)
    users = torch.zeros_like(c.users)
    users[:, 0] = torch.linspace(.01, 3, len(users)) # close scores for the first, far ones for the last
    users[::5, 1] = 1.; users[::7] = 0. # ... all the same for some
    items = torch.zeros_like(c.items)
    items[:, 0],items[:, 1] = torch.rand(n, generator=g),torch.where(torch.arange(n) < 90, .5, -3.) # ... few above 0
    l.set_choice(replace(c, users=users, items=items))
    with torch.no_grad(): l.model.item_bias.weight.copy_(torch.randn(n, 1, generator=g) * 2)
    ids = list(l.dls.catalog.user.ids[l.dls.counts('user').numpy() > 0])
    got,few = l.recommend(ids, 5),0
    for u in ids:
        row = int(l.dls.catalog.user.rows([u])[0])
        seen = set(l.dls.train_ds.items[l.dls.train_ds.users == row].tolist())
        free = np.array([i for i in range(n) if i not in seen and l.dls.counts()[i] > 0])
        s = l.choice.scores(torch.tensor([row]))[0, free]
        value = l.choice.value(s, torch.tensor(l.predict(u, list(l.dls.catalog.item[free])).prediction.to_numpy())).numpy()
        few += np.sort(value)[-5] > np.sort(s.numpy())[-64]
        mine = got[got.user == u]
        assert mine.value.to_numpy() == pytest.approx(np.sort(value)[::-1][:5], abs=5e-5)
        at = pd.Series(value, l.dls.catalog.item[free])
        assert at[mine.item].to_numpy() == pytest.approx(mine.value.to_numpy(), abs=5e-5)
    assert 5 < few < len(ids) - 5 # both ways were taken

def test_lists_share_nothing_that_can_be_changed(learn):
    first,again = learn.recommend([1, 2], 3),learn.recommend([1, 2], 3)
    want = again.copy(deep=True)
    first.columns.name,first.iloc[:, :] = 'changed',first.iloc[::-1].to_numpy()
    pd.testing.assert_frame_equal(again, want)
    pd.testing.assert_frame_equal(learn.recommend([1, 2], 3), want)

def test_few_items_and_everybody(learn):
    assert len(learn.recommend(3, 10, items=[1, 2, 3], exclude_seen=False)) <= 3
    everyone = learn.recommend(k=2)
    assert everyone.user.nunique() == int((learn.dls.counts('user') > 0).sum())
    assert learn.recommend(['nobody', 3], 2, unknown='skip').user.tolist() == [3, 3]
    assert learn.recommend([-7, 3], 2, unknown='nan').item.isna().tolist() == [True, False, False]
    assert learn.recommend([-7, 3], 2, unknown='popular').user.tolist() == [-7, -7, 3, 3]
    with pytest.raises(ValueError, match='rank_by'): learn.recommend(3, rank_by='best')
    with pytest.raises(ValueError, match='unknown'): learn.recommend(3, unknown='perhaps')

@pytest.mark.parametrize('n', [5, 700, 20_011])
def test_top_scores_with_ties(n):
    s = torch.randint(6, (4, n), generator=torch.Generator().manual_seed(n)).float()
    s[0] = -torch.inf
    values,cols = top_scores(s, 7)
    want = torch.argsort(s, descending=True, stable=True)[:, :7]
    assert torch.equal(cols, want) and torch.equal(values, s.gather(1, want))

@pytest.mark.parametrize('n', [3, 600, 9_999, 12_800])
@pytest.mark.parametrize('kind', ['spread', 'alike', 'mostly nothing', 'few to choose from', 'nothing at all'])
def test_few_are_weighed_and_none_is_missed(n, kind):
    "Against weights of every column; scores that differ by less than what is settled, ties, signs, and rows without enough columns"
    g,seen = torch.Generator().manual_seed(n),[]
    s = torch.randn(6, n, generator=g)
    if kind == 'alike': s = .5 + s * 4e-6
    if kind == 'mostly nothing': s = torch.where(s > 3, s, s * 4e-6 - (torch.arange(n) % 3 == 0).float())
    if kind == 'few to choose from': s = s.masked_fill(torch.rand(6, n, generator=g) > 4 / n, -torch.inf)
    if kind == 'nothing at all': s = torch.full_like(s, -torch.inf)
    share = torch.rand(6, n, generator=g) * .9 + .1
    def weigh(rows, cols, scores):
        seen.append(len(cols))
        return torch.where(scores > 0, scores * share[rows, cols], scores)
    for k in (1, 5):
        for f in (weigh, None):
            best,cols = top_weighed(s, k, f)
            settled = settle(s)
            full = settled if f is None else torch.where(settled > 0, settled * share, settled)
            want,at = stable_topk(full, k)
            assert torch.equal(best, want) and torch.equal(cols[want.isfinite()], at[want.isfinite()])
    if kind == 'spread' and n > 9000: assert sum(seen) < 6 * n / 2 # of four calls, two of which weigh

# --- samplers

@pytest.mark.parametrize('make', [lambda: Uniform(20, seed=1), lambda: Popular(20, seed=1), lambda: InBatch(20), lambda: Hard(4, 20, seed=1)])
def test_no_positive_is_a_negative(learn, make):
    t,runs = learn.dls.train_ds,[]
    chosen = set(zip(t.users.tolist(), t.items.tolist()))
    for _ in range(2):
        s = make()
        s.prepare(learn.dls)
        items,counts = s.sample(t.users[:200].long(), t.items[:200].long(), lambda u, i: (u * 31 + i * 7 % 13).float())
        runs.append(items)
        assert not any((int(u), int(i)) in chosen for u,row,ok in zip(t.users[:200], items, counts) for i in row[ok]) and counts.any()
    assert torch.equal(*runs)

@pytest.mark.slow # ranx compiles its measures when they are first asked
def test_measures_are_those_of_ranx():
    "A thousand random lists with graded gains, in every list something; MAP@k of ranx has all right items in the denominator, ours as many as fit"
    ranx = pytest.importorskip('ranx')
    rng,lists,test = np.random.default_rng(4),[],[]
    for u in range(1000):
        items,right = rng.permutation(30)[:rng.integers(1, 25)],rng.permutation(30)[:rng.integers(1, 15)]
        lists += [(u, r + 1, i) for r,i in enumerate(items)]; test += [(u, i, float(g)) for i,g in zip(right, rng.integers(1, 6, len(right)))]
    lists,test = pd.DataFrame(lists, columns=['user', 'rank', 'item']),pd.DataFrame(test, columns=['user', 'item', 'rating'])
    run = ranx.Run({str(u): {str(i): 1. / r for i,r in zip(g.item, g['rank'])} for u,g in lists.groupby('user')})
    graded,flat = ({str(u): {str(i): int(r) if keep else 1 for i,r in zip(g.item, g.rating)} for u,g in test.groupby('user')} for keep in (True, False))
    ours = lambda f, **kw: f(lists, test, 10, per_user=True, **kw).sort_index()
    pairs = {'hit_rate@10': ours(hit_rate), 'recall@10': ours(recall), 'precision@10': ours(precision), 'mrr@10': ours(mrr), 'ndcg@10': ours(ndcg)}
    n = test.groupby('user').size()
    pairs['map@10'] = ours(mean_average_precision) * np.minimum(n, 10) / n
    for name,mine in pairs.items():
        got = np.asarray(ranx.evaluate(ranx.Qrels(flat), run, name, return_mean=False))
        assert np.sort(got) == pytest.approx(np.sort(mine.to_numpy()), abs=1e-9), name
        assert got.mean() == pytest.approx(mine.mean()), name
    for name,gain in (('ndcg@10', 'linear'), ('ndcg_burges@10', 'exponential')):
        got = np.asarray(ranx.evaluate(ranx.Qrels(graded), run, name, return_mean=False))
        assert np.sort(got) == pytest.approx(np.sort(ours(ndcg, gain=gain).to_numpy()), abs=1e-9), name

def test_hand_cases():
    def one(*items): return pd.DataFrame(dict(user=1, rank=range(1, len(items) + 1), item=items))
    three = pd.DataFrame(dict(user=1, item=[1, 2, 3], rating=[3., 5., 4.]))
    assert precision(one('A', 'B', 'C'), pd.DataFrame(dict(user=1, item=['A', 'A'])), 3) == pytest.approx(1/3)
    assert ndcg(one(2, 3, 1), three, 2, 'linear') == pytest.approx(1)
    assert ndcg(one(1, 2), three, 2, 'linear') == pytest.approx((3 + 5 / math.log2(3)) / (5 + 4 / math.log2(3))) == pytest.approx(.818, abs=1e-3)
    assert mrr(one(1, 2, 3), three, 3) == 1
    assert ndcg(one(1)[:0], three) == recall(one(1)[:0], three) == mrr(one(1)[:0], three) == 0
    assert recall(one(1, 2, 3), three, 50) == 1

def test_log_q_is_subtracted():
    from fastcf.rank.losses import sampled_softmax_loss
    got = sampled_softmax_loss(torch.zeros(1, 2), log_q=torch.tensor([[.9, .1]]).log())
    assert float(got) == pytest.approx(math.log(10), abs=1e-6)

def test_measures_of_an_epoch_see_what_it_learned(learn):
    from fastai.callback.core import Callback
    from fastcf.rank.ials import IALS
    class Look(Callback):
        def before_validate(self): seen.append(self.learn.choice.items.clone())
    seen,l = [],cf_learner(learn.dls, 5, seed=0)
    with l.no_bar(), l.no_logging(): l.fit(3, cbs=[IALS(8), Look()])
    assert len(seen) == 3 and all((a - b).abs().max() > 1e-4 for a,b in zip(seen, seen[1:]))
    torch.testing.assert_close(l.choice.items, seen[-1])

def test_scores_that_differ_by_rounding_leave_the_order_alone():
    "People with nothing in common: the scores between them are rounding, and the last digits the processor's"
    df = pd.DataFrame(dict(user=np.repeat(range(6), 4), item=range(24), rating=np.arange(24) % 5 + 1))
    learn = cf_learner(CFDataLoaders.from_df(df, valid_pct=0, seed=0, device='cpu'), 2, seed=0)
    for seed in range(3):
        noise = lambda o: o + 1e-8 * torch.randn(o.shape, generator=torch.Generator().manual_seed(seed))
        learn.set_choice(replace(learn.choice, users=noise(torch.eye(6)), items=noise(torch.eye(6).repeat_interleave(4, 0) * .7)))
        for u in (0, 3): assert learn.recommend(u, 20, rank_by='chance').item.tolist() == [i for i in range(24) if i // 4 != u]

# --- ranges, and lists of newcomers

@pytest.mark.parametrize('items,k', [(40, 5), (40, 100), (1500, 3), (3000, 10)])
@pytest.mark.parametrize('y_range', [(.5, 5.5), None])
def test_lists_of_newcomers_by_rating_against_every_score(items, k, y_range):
    "Ties of items with the same vectors, scores below 0 and above, films that are left out or rated, more asked for than there are"
    g = torch.Generator().manual_seed(items)
    l = cf_learner(CFDataLoaders.from_df(simulate_ratings(90, items, 40 * min(items, 150), seed=3), user_name='user', item_name='item', rating_name='rating', seed=1, device='cpu'), 4, y_range, seed=0)
    n = len(l.dls.catalog.item)
    with torch.no_grad():
        l.model.item_weight.weight.copy_(torch.randn(n, 4, generator=g)[torch.arange(n) % (n // 2)]) # in pairs
        l.model.item_bias.weight.copy_((torch.randn(n, 1, generator=g) - 1)[torch.arange(n) % (n // 2)])
    known = l.dls.catalog.item.ids[l.dls.counts().numpy() > 0]
    rows = [(f'new {u}', known[j], float(1 + (u + j) % 5)) for u in range(30) for j in torch.randperm(len(known), generator=g)[:1 + u % 7].tolist()]
    new = l.fold_in(pd.DataFrame(rows, columns=['user', 'item', 'rating']))
    got,out = new.recommend(k, rank_by='rating', min_ratings=3),new.left_out(3)
    for u,ids in got.groupby('user', sort=False).item:
        at = int(new.ids.rows([u])[0])
        raw = settle(new.likelihood.linear(new.mean[at:at+1])[0]).masked_fill(out, -torch.inf)
        raw[new.said_in(torch.tensor([at]))[1]] = -torch.inf
        best = torch.argsort(raw, descending=True, stable=True)[:min(k, int(raw.isfinite().sum()))]
        assert ids.tolist() == l.dls.catalog.item[best.numpy()].tolist()
    assert got.user.nunique() == len(new)

@pytest.mark.parametrize('order', ['value', 'chance', 'rating'])
def test_ranges_are_those_of_predictions(learn, order):
    users = learn.dls.catalog.user[np.flatnonzero(learn.dls.counts('user').numpy())[:6]].tolist()
    plain,ranged = learn.recommend(users, 4, rank_by=order),learn.recommend(users, 4, rank_by=order, interval=.8)
    pd.testing.assert_frame_equal(plain, ranged.drop(columns=['low', 'high']))
    want = learn.predict(ranged[['user', 'item']], interval=.8)
    assert ranged[['low', 'high']].to_numpy() == pytest.approx(want[['low', 'high']].to_numpy(), abs=1e-5)
    assert (ranged.low < ranged.prediction).all() and (ranged.prediction < ranged.high).all()

def test_ranges_of_users_nobody_knows(learn):
    known = learn.dls.catalog.user[np.flatnonzero(learn.dls.counts('user').numpy())[:1]].tolist()
    for unknown in ('nan', 'popular'):
        got = learn.recommend([known[0], 10**6], 2, unknown=unknown, interval=.8)
        assert got[got.user == known[0]].low.notna().all() and got[got.user == 10**6].low.isna().all()
    for interval in (0, 1, 9, 'wide'):
        with pytest.raises(ValueError, match='interval: '): learn.recommend(known, interval=interval)

def test_lists_of_newcomers_against_a_loop(learn):
    c,d = learn.choice,learn.dls
    items = d.catalog.item[np.flatnonzero(d.counts().numpy() > 3)[:9]].tolist()
    said = {'a': dict(zip(items[:4], [5, 1, 3, 4])), 'b': {items[6]: 2}}
    new = learn.fold_in(pd.DataFrame([(u, i, r) for u,rated in said.items() for i,r in rated.items()], columns=['user', 'item', 'rating']))
    got = learn.recommend(new, 5, interval=.8)
    for u,rated in said.items():
        rows = torch.as_tensor(d.catalog.item.rows(list(rated)))
        w = .5 + .5 * (torch.tensor(list(rated.values())).float() - 1) / 4
        P = c.unobserved * c.items.T @ c.items + c.penalty * (len(rows) + c.unobserved * len(c.items)) * torch.eye(c.items.shape[1])
        x = torch.linalg.solve(P + c.items[rows].T @ (w[:, None] * c.items[rows]), c.items[rows].T @ w)
        free = [i for i in range(len(c.items)) if i not in rows.tolist() and d.counts()[i] > 0]
        stars = new.predict(pd.DataFrame(dict(user=u, item=d.catalog.item[free]))).prediction.to_numpy()
        s = (c.items[free] @ x).numpy()
        value = np.where(s > 0, s * (np.clip(stars, 1, 5) - .5) / 4.5, s)
        mine = got[got.user == u]
        assert mine.value.to_numpy() == pytest.approx(np.sort(value)[::-1][:5], abs=5e-5) and not set(mine.item) & set(rated)
    assert (got.low < got.prediction).all() and (got.prediction < got.high).all()
    by_rating,own = learn.recommend(new, 5, rank_by='rating'),new.recommend(5, rank_by='rating')
    pd.testing.assert_frame_equal(new.recommend(5, interval=.8), got)
    assert by_rating.item.tolist() == own.item.tolist() and by_rating.prediction.to_numpy() == pytest.approx(own.prediction.to_numpy(), abs=1e-4)
    with pytest.raises(TypeError, match='users: expected ids'): learn.recommend(learn.fold_in_items(pd.DataFrame(dict(user=d.catalog.user[[1, 2]], item='z', rating=4))))

def test_cuts_of_each_users_time_against_a_loop():
    df = simulate_ratings(30, 20, 200, seed=2).assign(timestamp=np.random.default_rng(0).integers(0, 40, 200)).sample(frac=1, random_state=1)
    for j,split in enumerate(cut_splitters(4)):
        train,valid = [],[]
        for u in df.user.unique():
            mine = np.flatnonzero(df.user == u)
            mine = mine[np.argsort(df.timestamp.to_numpy()[mine], kind='stable')]
            cut = max(1, len(mine) - 1 - j) # the oldest trains
            train += list(mine[:cut]); valid += list(mine[len(mine)-1-j:len(mine)-j]) if len(mine) > j + 1 else []
        got = split(df)
        assert got[0].tolist() == sorted(train) and got[1].tolist() == sorted(valid)

def test_a_choice_model_that_was_asked_for_orders_lists_and_blends_and_one_that_was_looked_at_does_not():
    "A learner of clicks has a loss that ranks, trained or not; who calls learn_choice wants lists by it, as after a fit of IALS"
    from fastcf.rank.blend import Blend
    clicks = CFDataLoaders.from_df(simulate_ratings(60, 80, 1500, 4, seed=3)[['user', 'item']], rating_name=False, seed=0, device='cpu')
    asked,looked = cf_learner(clicks, 4, seed=0).learn_choice(), cf_learner(clicks, 4, seed=0)
    looked.choice
    assert asked.recommend(k=5).item.tolist() == asked.recommend(k=5, rank_by='chance').item.tolist() == looked.recommend(k=5, rank_by='chance').item.tolist()
    assert looked.recommend(k=5).item.tolist() == looked.recommend(k=5, rank_by='rating').item.tolist() != asked.recommend(k=5).item.tolist()
    for learn,by in ((asked, 'chance'), (looked, 'rating')): assert Blend([learn]).recommend(k=5).item.tolist() == learn.recommend(k=5, rank_by=by).item.tolist()
