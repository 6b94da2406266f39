"Baselines, samplers, losses and evaluation against plain versions: loops over users, and every pair in sight"
import math
import numpy as np, pandas as pd, pytest, torch
import torch.nn.functional as F
import fastcf.all # every method of a learner
from fastcf.core import ArgumentError
from fastcf.data.loaders import CFDataLoaders
from fastcf.data.sources import simulate_ratings
from fastcf.learn.learner import cf_learner
from fastcf.rank.baselines import EASE, SLIM, Baseline, MostPopular, history_windows, item_gram, item_weights, sparse_item_weights
from fastcf.rank.evaluate import compare, cross_evaluate, cut_splitters, evaluate, fold_splitters, plot_evaluation, resampled_means, rolling_splitters, user_scores
from fastcf.rank.fade import Fade
from fastcf.rank.losses import FullSoftmax, Hard, InBatch, Negatives, Popular, Uniform, bpr_loss, gbce_loss, sampled_softmax_loss, warp_loss
from fastcf.rank.metrics import hit_rate, recall

def pairs(times=True, valid_pct=.2, **kwargs):
    df = simulate_ratings(40, 30, 500, seed=1).iloc[:, :2]
    if times: df['timestamp'] = np.random.default_rng(0).permutation(len(df))
    return CFDataLoaders.from_df(df, rating_name=False, time_name='timestamp' if times else None, valid_pct=valid_pct, seed=0, bs=64, device='cpu', **kwargs)

@pytest.fixture(scope='module')
def dls(): return pairs()

def chosen(dls):
    "[users, items], whether it was chosen in training"
    x = np.zeros((len(dls.catalog.user), len(dls.catalog.item)))
    x[dls.train_ds.users, dls.train_ds.items] = 1
    return x

# --- baselines

def lists_by(scores, seen, k):
    "Each user's best unseen columns, ties by the lower one"
    return [[c for c in sorted(range(len(s)), key=lambda c: (-s[c], c)) if not b[c]][:k] for s,b in zip(scores, seen)]

def test_most_popular_against_a_loop(dls):
    x,c = chosen(dls),dls.catalog
    want = lists_by(np.tile(x.sum(0), (len(x), 1)), x, 5)
    got = MostPopular(dls).recommend(k=5)
    assert [g[c.item.name].tolist() for _,g in got.groupby(c.user.name, sort=False)] == [c.item[np.array(w)].tolist() for w in want]
    assert got.columns.tolist() == [c.user.name, 'rank', c.item.name, 'score'] and (got['rank'].to_numpy().reshape(-1, 5) == range(1, 6)).all()
    with_seen = MostPopular(dls).recommend(int(c.user[0]), 30, exclude_seen=False)
    assert set(with_seen[c.item.name]) == set(c.item[x.sum(0) > 0])
    often = MostPopular(dls).recommend(int(c.user[0]), 30, exclude_seen=False, min_ratings=15)
    assert len(often) and (x.sum(0)[c.item.rows(often[c.item.name])] >= 15).all() and len(often) == (x.sum(0) >= 15).sum()
    assert not len(MostPopular(dls).recommend([], 3))

def test_ease_against_a_regression_of_each_item_on_all_others(dls):
    x = chosen(dls)
    B = EASE(dls, penalty=7.).matrix.numpy()
    for j in (0, 3, 11):
        rest = np.delete(np.arange(x.shape[1]), j)
        want = np.linalg.solve(x[:, rest].T @ x[:, rest] + 7 * np.eye(len(rest)), x[:, rest].T @ x[:, j]) # ridge
        assert B[rest, j] == pytest.approx(want, abs=1e-4) and B[j, j] == 0
    assert EASE(dls, penalty=7.).scores(torch.tensor([0, 5, 5])).numpy() == pytest.approx((x @ B)[[0, 5, 5]], abs=1e-4)

def test_ease_of_weighted_rows():
    rows,items,w = torch.tensor([0, 0, 1, 2, 2]),torch.tensor([0, 1, 1, 0, 2]),torch.tensor([1., 2, .5, 3, 1])
    x = np.zeros((3, 3)); x[rows, items] = w
    p = np.linalg.inv(x.T @ x + 2 * np.eye(3))
    want = -p / np.diag(p); np.fill_diagonal(want, 0)
    assert item_weights(rows, items, 3, w, 2.).numpy() == pytest.approx(want, abs=1e-5)

@pytest.mark.parametrize('price,penalty', [(.5, 5.), (3., 20.), (0., 5.)])
def test_slim_against_an_elastic_net_of_each_item_on_all_others(dls, price, penalty):
    from sklearn.linear_model import ElasticNet
    x,t = chosen(dls),dls.train_ds
    gram = item_gram(t.users.long(), t.items.long(), x.shape[1])
    assert gram.numpy() == pytest.approx(x.T @ x)
    B = sparse_item_weights(gram, penalty, price, rounds=3000, close=1e-6).numpy()
    assert (B >= 0).all() and (np.diag(B) == 0).all()
    for j in (0, 3, 11):
        rest,n = np.delete(np.arange(x.shape[1]), j),len(x)
        net = ElasticNet(alpha=(price + penalty) / n, l1_ratio=price / (price + penalty), positive=True, fit_intercept=False, tol=1e-8, max_iter=100_000)
        assert B[rest, j] == pytest.approx(net.fit(x[:, rest], x[:, j]).coef_, abs=2e-3)
    def cost(B): return .5 * ((x - x @ B)**2).sum() + price * B.sum() + penalty / 2 * (B**2).sum()
    default = SLIM(dls, penalty, price)
    assert cost(default.matrix.numpy()) < 1.01 * cost(B)
    assert default.scores(torch.tensor([0, 5, 5])).numpy() == pytest.approx((x @ default.matrix.numpy())[[0, 5, 5]], abs=1e-4)

def test_a_high_price_leaves_no_weight_and_windows_fade(dls):
    assert not SLIM(dls, price=1e6).matrix.any()
    asked = SLIM(dls, window=4, fade=Fade(3.), price=.1)
    assert asked.matrix.any() and not torch.allclose(asked.scores(torch.arange(4)), SLIM(dls, window=4, price=.1).scores(torch.arange(4)))

@pytest.mark.parametrize('size,step', [(3, 1), (3, 2), (5, 2), (100, 2)])
def test_windows_of_histories_against_a_loop(size, step):
    rng = np.random.default_rng(0)
    users = np.repeat([0, 2, 3, 5], [1, 7, 3, 12]); rng.shuffle(users)
    items,times = rng.integers(0, 50, len(users)),rng.integers(0, 6, len(users)) # times that tie
    want = []
    for u in np.unique(users):
        mine = items[users == u][np.argsort(times[users == u], kind='stable')]
        want += [mine[s:s+size].tolist() for s in range(0, max(0, len(mine) - size) + 1, step)]
    windows,cols = history_windows(*(torch.as_tensor(o) for o in (users, items, times)), size, step)
    assert [cols[windows == j].tolist() for j in range(len(want))] == want and int(windows.max()) == len(want) - 1

def test_a_fading_history_is_asked_with_its_weights(dls):
    e,t = EASE(dls, window=4, fade=Fade(3.)),dls.train_ds
    w = np.zeros((len(dls.catalog.user), len(dls.catalog.item)))
    for u in range(len(w)):
        at = np.flatnonzero(t.users.numpy() == u)
        newest_first = at[np.argsort(-t.times.numpy()[at], kind='stable')]
        w[u, t.items[newest_first]] = np.exp(-np.arange(len(at)) / 3)
    assert e.scores(torch.arange(len(w))).numpy() == pytest.approx(w @ e.matrix.numpy(), abs=1e-4)

@pytest.mark.parametrize('make,said', [
    (lambda d: EASE(pairs(times=False), window=5), 'window, fade: the loaders carry no times'), (lambda d: EASE(pairs(times=False), fade=Fade(3.)), 'window, fade'),
    (lambda d: EASE(d, max_items=10), 'items make a table of .* Leave out rare items'), (lambda d: SLIM(d, max_items=10), 'SLIM: .* items make a table of'), (lambda d: EASE(d, window=0), 'window'), (lambda d: EASE(d, 0.), 'penalty: '), (lambda d: SLIM(d, float('nan')), 'penalty: '),
    (lambda d: SLIM(d, price=-1.), 'price: '), (lambda d: SLIM(d, price=float('inf')), 'price: '), (lambda d: MostPopular(d).recommend(k=0), 'k: '), (lambda d: MostPopular(d).recommend('nobody'), 'nobody')])
def test_baselines_refuse(dls, make, said):
    with pytest.raises((ValueError, KeyError), match=said): make(dls)

# --- evaluation

class Fixed:
    "Lists that were written down"
    def __init__(self, dls, shift): self.dls,self.shift = dls,shift
    def recommend(self, users, k=10, **kwargs):
        items = self.dls.catalog.item
        return pd.DataFrame([(u, r + 1, items[(7 * j + r * self.shift) % len(items)]) for j,u in enumerate(users) for r in range(min(k, len(items)))], columns=['user', 'rank', 'item'])

def test_scores_of_users_against_a_loop(dls):
    f,v = Fixed(dls, 1),dls.valid_ds
    got = user_scores(f, metrics=['hit_rate', recall], k=6)
    known = np.unique(dls.train_ds.users.numpy())
    test = {u: set(dls.catalog.item[v.items[v.users == u].numpy()]) for u in dict.fromkeys(v.users.tolist()) if u in known}
    lists = f.recommend(dls.catalog.user[np.array(list(test))], 6)
    for (u,right),(_,g) in zip(test.items(), lists.groupby('user', sort=False)):
        hits = len(right & set(g.item))
        assert got.loc[dls.catalog.user[u]].tolist() == pytest.approx([float(hits > 0), hits / len(right)])
    assert got.columns.tolist() == ['hit_rate', 'recall'] and len(got) == len(test)

def test_an_evaluation_against_its_users(dls):
    a,b = Fixed(dls, 1),Fixed(dls, 3)
    df = evaluate({'near': a, 'far': b}, k=5, interval=.9)
    for name,o in (('near', a), ('far', b)):
        scores = user_scores(o, k=5)
        mine = df[df.learner == name].set_index('metric')
        assert mine['mean'].to_dict() == pytest.approx(scores.mean().to_dict()) and (mine.users == len(scores)).all()
        spread = (mine.high - mine.low) / (scores.std() / len(scores)**.5)
        assert spread.to_numpy() == pytest.approx(2 * 1.645, rel=.2) # as the normal distribution has it
        assert (mine.low < mine['mean']).all() and (mine['mean'] < mine.high).all()
    assert evaluate([a, b]).learner.unique().tolist() == ['Fixed 1', 'Fixed 2'] and evaluate(a).learner.unique().tolist() == ['Fixed']
    pd.testing.assert_frame_equal(evaluate(a, seed=3), evaluate(a, seed=3))
    scores = user_scores(a)
    groups = pd.Series(np.where(np.arange(len(scores)) % 3, 'old', 'new'), index=scores.index[::-1])
    by = evaluate(a, by=groups).set_index(['group', 'metric'])
    for g in ('old', 'new'): assert by.loc[(g, 'ndcg'), 'mean'] == pytest.approx(scores.ndcg[groups.reindex(scores.index) == g].mean()) and by.loc[(g, 'ndcg'), 'users'] == (groups == g).sum()
    ax = plot_evaluation(df)
    assert [t.get_text() for t in ax.get_yticklabels()] == df.metric.unique().tolist() and [t.get_text() for t in ax.get_legend().get_texts()] == ['near', 'far']
    assert plot_evaluation(df, ax) is ax

def test_only_what_was_liked_counts():
    df = simulate_ratings(30, 20, 300, seed=0)
    dls = CFDataLoaders.from_df(df, valid_pct=.3, seed=0, device='cpu')
    f,v = Fixed(dls, 1),dls.valid_ds
    got = user_scores(f, metrics='recall', k=5, liked=4.)
    keep = (v.ratings >= 4) & torch.isin(v.users, dls.train_ds.users)
    users = v.users[keep].unique()
    assert set(got.index) == set(dls.catalog.user[users.numpy()])
    with pytest.raises(ValueError, match='liked=9'): user_scores(f, liked=9.)
    with pytest.raises(ValueError, match='columns of users, items and ratings'): user_scores(f, pd.DataFrame(dict(user=[1], item=[2])), liked=4.)
    with pytest.raises(ValueError, match='none of its users has training rows'): user_scores(f, pd.DataFrame(dict(user=[-5], item=[2])))

def test_a_comparison_finds_what_is_there_and_nothing_else(dls):
    a,b = Fixed(dls, 1),Fixed(dls, 1)
    same = compare(a, b)
    assert (same.difference == 0).all() and (same.p == 1).all() and (same.low == 0).all() and (same.high == 0).all()
    class Oracle(Fixed):
        def recommend(self, users, k=10, **kwargs):
            v,c = self.dls.valid_ds,self.dls.catalog
            rows = [(u, r + 1, o) for u in users for r,o in enumerate(c.item[v.items[v.users == int(c.user.rows([u])[0])].numpy()][:k])]
            return pd.DataFrame(rows, columns=['user', 'rank', 'item'])
    best = compare(a, Oracle(dls, 1), samples=999)
    assert (best.difference > .3).all() and (best.p == 1 / 1000).all() and (best.low > 0).all() and best.b.to_numpy() == pytest.approx(1)
    assert (best.a + best.difference).to_numpy() == pytest.approx(best.b.to_numpy()) and (best.users > 20).all()

def test_means_drawn_again_scatter_as_they_should():
    values = np.random.default_rng(0).normal(size=(400, 2)) * [1, 5] + [0, 3]
    m = resampled_means(values, 4_000, seed=1)
    assert m.shape == (4_000, 2) and m.mean(0) == pytest.approx(values.mean(0), abs=.05) and m.std(0) == pytest.approx(values.std(0) / 20, rel=.1)
    assert np.array_equal(m, resampled_means(values, 4_000, seed=1))

@pytest.mark.parametrize('call,said', [
    (lambda f: evaluate([]), 'learns: expected'), (lambda f: evaluate(3), 'learns: expected a learner'), (lambda f: evaluate(f, by=[1]), 'by: expected a Series'), (lambda f: evaluate(f, interval=2.), 'interval'),
    (lambda f: user_scores(f, metrics='luck'), "metrics: expected some of .*'ndcg'"), (lambda f: user_scores(f, metrics=[]), 'metrics: .* there are none'), (lambda f: compare(f, Fixed), 'b: expected a learner'), (lambda f: compare(3, f), 'a: expected'),
    (lambda f: compare(f, f, samples=0), 'samples'), (lambda f: cross_evaluate(3, pd.DataFrame(), [len]), 'make: expected a function'), (lambda f: cross_evaluate(len, pd.DataFrame(), []), 'splitters: expected a list'),
    (lambda f: cross_evaluate(len, pd.DataFrame(), [len], loaders=3), 'loaders: expected'), (lambda f: fold_splitters(0), 'count'), (lambda f: rolling_splitters(5, .3), 'share'), (lambda f: plot_evaluation(pd.DataFrame(dict(metric=[1]))), 'df')])
def test_evaluation_refuses(dls, call, said):
    with pytest.raises((ValueError, TypeError), match=said): call(Fixed(dls, 1))

# --- splits

def frame():
    df = simulate_ratings(25, 30, 300, seed=2)
    return df.assign(timestamp=np.random.default_rng(1).integers(0, 200, len(df)))

def test_folds_hold_out_each_row_once():
    df = frame()
    parts = [s(df) for s in fold_splitters(4, seed=3)]
    assert sorted(np.concatenate([v for _,v in parts])) == list(range(len(df)))
    for t,v in parts: assert sorted([*t, *v]) == list(range(len(df))) and abs(len(v) - len(df) / 4) <= 1

def test_rolling_cuts_never_train_on_what_comes_later():
    df = frame()
    parts,time = [s(df) for s in rolling_splitters(3, .1)],df.timestamp.to_numpy()
    for t,v in parts: assert len(v) == len(df) // 10 and time[t].max() <= time[v].min()
    assert [len(t) for t,_ in parts] == [len(df) - j * (len(df) // 10) for j in (3, 2, 1)] and len(set(np.concatenate([v for _,v in parts]))) == 3 * (len(df) // 10)

def test_cuts_take_the_last_rows_of_each_user_one_by_one():
    df = frame()
    users,time = df.user.to_numpy(),df.timestamp.to_numpy()
    for j,s in enumerate(cut_splitters(3)):
        t,v = s(df)
        for u in np.unique(users):
            mine = np.flatnonzero(users == u)
            mine = mine[np.argsort(time[mine], kind='stable')]
            held = mine[len(mine)-1-j:len(mine)-j] if len(mine) > j + 1 else mine[:0]
            assert set(v) & set(mine) == set(held) and set(t) & set(mine) == set(mine[:max(1, len(mine) - 1 - j)]), (j, u)

def test_a_row_for_each_split():
    df = frame().drop(columns=['rating', 'timestamp'])
    got = cross_evaluate(lambda dls: MostPopular(dls), df, fold_splitters(3), metrics=hit_rate, k=4, loaders=lambda df, s: CFDataLoaders.from_df(df, rating_name=False, splitter=s, seed=0, device='cpu'))
    assert got.columns.tolist() == ['hit_rate'] and got.index.name == 'split' and len(got) == 3 and got.hit_rate.between(.05, 1).all()
    rated = cross_evaluate(MostPopular, frame(), fold_splitters(2))
    assert rated.columns.tolist() == ['ndcg', 'capped_recall', 'hit_rate'] and len(rated) == 2

# --- losses and samplers

def table(b=6, n=9, out=True):
    s = torch.randn(b, n, generator=torch.Generator().manual_seed(0))
    if out: s[1, 3] = s[4, 1] = s[4, 2] = -math.inf # what was chosen too
    return s.requires_grad_()

def plain(loss, row):
    "The loss of one choice, in plain numbers"
    pos,others = row[0],[o for o in row[1:] if o > -math.inf]
    log1p_exp = lambda x: math.log1p(math.exp(x))
    if loss is bpr_loss: return sum(log1p_exp(o - pos) for o in others) / max(1, len(others))
    if loss is sampled_softmax_loss: return math.log(sum(math.exp(o) for o in row)) - pos
    if loss is gbce_loss: return (.01 * (.75 * (1 - 1 / .01) + 1 / .01)) * log1p_exp(-pos) + sum(log1p_exp(o) for o in others)
    for j,o in enumerate(row[1:]):
        if 1 + o - pos > 0: return math.log(1 + 999 // (j + 1)) * (1 + o - pos)
    return 0.

@pytest.mark.parametrize('loss', [bpr_loss, warp_loss, sampled_softmax_loss, gbce_loss])
def test_losses_against_plain_numbers(loss):
    s = table()
    want = [plain(loss, row) for row in s.tolist()]
    assert loss(s).item() == pytest.approx(np.mean(want), rel=1e-5)
    w = torch.tensor([0., 1, 2, .5, 1, 3])
    assert loss(s, weights=w).item() == pytest.approx(np.average(want, weights=w), rel=1e-5)
    loss(s).backward()
    assert s.grad.isfinite().all() and (s.grad[:, 0] <= 0).all() and (s.grad[0, 0] < 0 or loss is warp_loss)
    for bad,said in (((s[0],), 'scores'), ((s, w[:3]), 'weights')):
        with pytest.raises(ValueError, match=said): loss(*bad)

def test_the_log_q_correction_is_subtracted():
    assert sampled_softmax_loss(torch.zeros(1, 2), log_q=torch.tensor([[.9, .1]]).log()).item() == pytest.approx(math.log(10), rel=1e-4)
    with pytest.raises(ValueError, match='log_q'): sampled_softmax_loss(torch.zeros(1, 2), log_q=torch.zeros(2, 2))

SAMPLERS = {'uniform': lambda: Uniform(8, seed=1), 'popular': lambda: Popular(8, seed=1), 'as popular as can be': lambda: Popular(8, alpha=1., seed=1), 'all alike': lambda: Popular(8, alpha=0., seed=1), 'hard': lambda: Hard(4, 8, seed=1), 'in batch': lambda: InBatch(8)}

@pytest.mark.parametrize('name', SAMPLERS)
def test_samplers_mark_what_was_chosen(dls, name):
    s,t = SAMPLERS[name](),dls.train_ds
    s.prepare(dls)
    u,i = t.users[:64].long(),t.items[:64].long()
    score = lambda users, items: (items * 7 % 11).float()
    items,counts = s.sample(u, i, score)
    x = torch.as_tensor(chosen(dls)).bool()
    assert torch.equal(x[u[:, None].expand_as(items), items], ~counts) and items.shape == (64, 4 if name == 'hard' else 8)
    if name != 'in batch':
        assert counts.float().mean() > .8 # drawn again where they hit
        s.prepare(dls)
        assert torch.equal(s.sample(u, i, score)[0], items)
    if name == 'hard': assert (score(u, items).masked_fill(~counts, -1).diff(dim=1) <= 0).all()

@pytest.mark.parametrize('alpha', [0., .75, 1.])
def test_popular_items_are_drawn_as_often_as_said(dls, alpha):
    s,counts = Popular(alpha=alpha, seed=0),dls.counts().double()
    s.prepare(dls)
    want = counts.clamp(min=.5 if alpha else 1)**alpha
    want /= want.sum()
    drawn = torch.bincount(s.draw(200_000), minlength=len(counts)) / 200_000
    assert s.log_p.exp().numpy() == pytest.approx(want.numpy(), rel=1e-4) and (drawn - want).abs().max() < .005

def test_somebody_who_chose_everything_ends_no_loop():
    df = pd.DataFrame(dict(user=[0] * 6 + [1], item=[*range(6), 2]))
    dls = CFDataLoaders.from_df(df, rating_name=False, valid_pct=0, seed=0, device='cpu')
    s = Uniform(4, seed=0); s.prepare(dls)
    row = int(dls.catalog.user.rows([0])[0])
    assert not s.sample(torch.tensor([row]), torch.tensor([0]))[1].any()

@pytest.mark.parametrize('loss,cb', [(bpr_loss, lambda: Negatives(Uniform(4))), (warp_loss, lambda: Negatives(Popular(4))), (sampled_softmax_loss, lambda: Negatives(InBatch(8))), (sampled_softmax_loss, FullSoftmax), (gbce_loss, lambda: Negatives(Hard(2, 6)))],
                         ids=['bpr', 'warp', 'in batch', 'full', 'hard'])
def test_each_loss_ranks_what_was_chosen_higher(loss, cb):
    dls = pairs(valid_pct=0)
    learn = cf_learner(dls, 6, loss_func=loss, cbs=cb(), seed=0)
    with learn.no_bar(), learn.no_logging(): learn.fit(12, 5e-2)
    x,m = torch.as_tensor(chosen(dls)).bool(),learn.model
    u,i = torch.meshgrid(torch.arange(len(x)), torch.arange(x.shape[1]), indexing='ij')
    with torch.no_grad(): s = m(u.flatten(), i.flatten()).view(x.shape)
    wins = [(s[r][x[r]][:, None] > s[r][~x[r]]).float().mean().item() for r in range(len(x)) if x[r].any() and not x[r].all()]
    assert np.mean(wins) > .75
