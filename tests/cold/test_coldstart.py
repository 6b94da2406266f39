"Priors from metadata and proxies: against plain computations, on data whose truth is known, and at the edges"
import numpy as np, pandas as pd, pytest, torch
from fastcf.cold.metadata_prior import MetadataPrior
from fastcf.cold.proxies import ProxyQuestions, answer_proxies, proxies, proxy_weight
from fastcf.learn.learner import cf_learner
from fastcf.data.loaders import CFDataLoaders
from fastcf.bayes.foldin import estimate_prior
from fastcf.data.sources import simulate_ratings
from fastcf.cold.regression import _ridge, fold_of_rows, held_out

@pytest.fixture(scope='module')
def town():
    "Ratings in which a film's studio and a user's city say half of the bias, with 20 % of both held back"
    rng = np.random.default_rng(0)
    n_u,n_i,k = 300,200,3
    city,studio = rng.integers(0, 4, n_u),rng.integers(0, 5, n_i)
    U,V = .5 * rng.normal(size=(4, k))[city] + .3 * rng.normal(size=(n_u, k)),.6 * rng.normal(size=(5, k))[studio] + .3 * rng.normal(size=(n_i, k))
    b,c = .5 * rng.normal(size=4)[city] + .2 * rng.normal(size=n_u),.6 * rng.normal(size=5)[studio] + .2 * rng.normal(size=n_i)
    u,i = np.nonzero(rng.random((n_u, n_i)) < .2)
    r = (3 + b[u] + c[i] + (U[u] * V[i]).sum(1) + .5 * rng.normal(size=len(u))).clip(1, 5)
    df = pd.DataFrame(dict(user=u, item=i, rating=r))
    users,items = pd.DataFrame(dict(user=range(n_u), city=[f'c{o}' for o in city])),pd.DataFrame(dict(item=range(n_i), studio=[(f's{o}',) for o in studio]))
    warm = df[(df.user < 240) & (df.item < 160)]
    dls = CFDataLoaders.from_df(warm, valid_pct=.05, seed=0, users=users, items=items, device='cpu')
    learn = cf_learner(dls, factor_count=4, y_range=(.5, 5.5), seed=0)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(12, 2e-2)
    return dict(df=df, users=users, items=items, learn=learn)

def error(p, df, is_item, gaussian, ids):
    c = p.vocab.name
    rows,cols = (df.item, df.user) if is_item else (df.user, df.item)
    other = p_learn(p).dls.catalog
    at = pd.Index(ids).get_indexer(rows),(other.user if is_item else other.item).rows(cols)
    return float((gaussian.expected(at[1], at[0]) - torch.tensor(df.rating.to_numpy())).square().mean().sqrt())
def p_learn(p): return p.learn_
def made(cls, learn, *args, **kw): p = cls(learn, *args, **kw); p.learn_ = learn; return p
def same(p, n): return p.base.of(n)

@pytest.mark.parametrize('is_item', [False, True])
def test_metadata_that_matters_is_found(town, is_item):
    df,ids = town['df'],list(range(160, 200) if is_item else range(240, 300))
    cold = df[(df.item >= 160) & (df.user < 240)] if is_item else df[(df.user >= 240) & (df.item < 160)]
    p = made(MetadataPrior, town['learn'], 'item' if is_item else 'user')
    g = p.prior(town['items' if is_item else 'users'], ids)
    assert error(p, cold, is_item, g, ids) < error(p, cold, is_item, same(p, len(ids)), ids) - .05
    assert torch.linalg.eigvalsh(g.precision).min() > 0
    trace = lambda c: (c * p.base.likelihood.second_moment).sum()
    assert trace(p.model.residual) < .9 * trace(p.base.cov()) # it knows more than it did

def test_metadata_without_meaning_changes_little(town):
    noise = town['users'].assign(city=np.random.default_rng(1).permutation(['a', 'b', 'c'] * 100))
    p = made(MetadataPrior, town['learn'], df=noise)
    df,ids = town['df'],list(range(240, 300))
    cold = df[(df.user >= 240) & (df.item < 160)]
    assert abs(error(p, cold, False, p.prior(noise, ids), ids) - error(p, cold, False, same(p, 60), ids)) < .03
    assert p.model.strength >= 10

def test_intervals_hold(town):
    df,ids = town['df'],list(range(240, 300))
    p = MetadataPrior(town['learn'])
    cold = df[(df.user >= 240) & (df.item < 160)]
    at = torch.tensor(cold.user.to_numpy() - 240),torch.tensor(cold.item.to_numpy())
    g = p.prior(town['users'], ids)
    inside = (g.expected(at[1], at[0]) - torch.tensor(cold.rating.to_numpy())).abs() < 1.645 * g.variance(at[1], at[0]).sqrt()
    assert .8 < inside.float().mean() < .98

def test_errors_do_not_rise_with_answers(town):
    "The trap of overconfident priors"
    df,ids = town['df'],list(range(240, 300))
    p = made(MetadataPrior, town['learn'])
    cold = df[(df.user >= 240) & (df.item < 160)].sample(frac=1, random_state=0)
    cold = cold.assign(n=cold.groupby('user').cumcount())
    test,said = cold[cold.n >= 16],cold[cold.n < 16]
    for start in (p.prior(town['users'], ids), same(p, 60)):
        errs = [error(p, test, False, start.after(s.user - 240, s.item, s.rating), ids) for s in (said[said.n < q] for q in (0, 1, 2, 4, 8, 16))]
        assert all(b < a + .015 for a,b in zip(errs, errs[1:])) and errs[-1] < errs[0] - .05

def test_new_items_start_from_proxies_and_become_themselves(town):
    df,ids = town['df'],list(range(160, 200))
    p = made(ProxyQuestions, town['learn'], 'studio')
    cold = df[(df.item >= 160) & (df.user < 240)].sample(frac=1, random_state=0)
    cold = cold.assign(n=cold.groupby('item').cumcount())
    test,start,before = cold[cold.n >= 20],p.prior(town['items'], ids),1.
    for q in (0, 1, 5, 20):
        s = cold[cold.n < q]
        proxy,alone,blend = (error(p, test, True, g, ids) for g in (start, *(o.after(s.item - 160, s.user, s.rating) for o in (same(p, 40), start))))
        assert blend < min(proxy, alone) + .02, q
        w = proxy_weight(start, start.after(s.item - 160, s.user, s.rating))
        assert ((w >= 0) & (w <= 1)).all() and w.mean() <= before + 1e-6
        before = w.mean()
    assert before < .6

@pytest.mark.parametrize('even', [True, False])
def test_ridge_is_the_plain_one(even):
    g = torch.Generator().manual_seed(0)
    f,x,w = torch.randn(30, 6, generator=g),torch.randn(30, 3, generator=g),torch.ones(30) if even else torch.rand(30, generator=g) * 9
    def plain(f, x, w, s):
        w = (w / w.mean()).double()
        fm,xm = ((w[:, None] * o).mean(0) for o in (f.double(), x.double()))
        W = torch.diag(w)
        return fm,xm,torch.linalg.solve((f - fm).T @ W @ (f - fm) + s * torch.eye(6, dtype=torch.float64), (f - fm).T @ W @ (x - xm))
    fm,xm,ws,val,vec = _ridge(f, x, w, [.1, 10.])
    for s,b in zip([.1, 10.], ws): torch.testing.assert_close(b.double(), plain(f, x, w, s)[2], atol=1e-5, rtol=1e-4)
    got = held_out(f, x, w, [.1], 30, 0)[0]
    a = torch.arange(30) != 7
    fm,xm,b = plain(f[a], x[a], w[a], .1)
    torch.testing.assert_close(got[7].double(), xm + (f[7] - fm) @ b, atol=1e-5, rtol=1e-4)
    assert sorted(torch.bincount(fold_of_rows(32, 5, 0)).tolist()) == [6, 6, 6, 7, 7]

def test_values_with_one_member_none_rated_many_and_none_at_all(town):
    items = town['items'].copy()
    items['who'] = [('crowd',)] * 100 + [('solo', 'crowd')] + [('crowd', 'pair', 'crowd')] * 2 + [None, ()] + [('crowd',)] * 55 + [('unrated',)] * 40
    p = ProxyQuestions(town['learn'], 'who', df=items)
    t = proxies(p).set_index('value')
    assert set(t.index) == {'crowd', 'solo', 'pair', 'unrated'} and t.member_count.to_dict() == dict(crowd=158, unrated=40, pair=2, solo=1)
    assert np.isfinite(t[['rating', 'std']].to_numpy()).all() and t.rating.between(.5, 5.5).all()
    g = p.vectors(['crowd', 'solo', 'nobody'])
    trace = torch.einsum('nkk->n', g.cov())
    assert trace[0] < trace[1] < trace[2] # the fewer members, the less is known
    torch.testing.assert_close(g.mean[2:], p.prior(pd.DataFrame(dict(item=[0], who=['nobody']))).mean)
    assert torch.isfinite(p.prior(items).mean).all()

def test_numbers_can_be_values(town):
    items = town['items'].assign(brand=np.arange(200) % 7)
    assert len(proxies(ProxyQuestions(town['learn'], 'brand', df=items))) == 7

def test_an_item_of_many_values_is_their_mean(town):
    "Fifty values of one item share a 1, whatever else they are: it lies between them, and repeated values count once"
    rng,names = np.random.default_rng(0),[f'a{o}' for o in range(60)]
    items = town['items'].assign(cast=[tuple(rng.choice(names, 4, replace=False)) for _ in range(200)])
    p = ProxyQuestions(town['learn'], 'cast', df=items)
    cast = names[:50]
    new = pd.DataFrame(dict(item=[900, 901, 902], cast=[tuple(cast), tuple(cast) * 3, tuple(cast[:1])]))
    g = p.prior(new)
    torch.testing.assert_close(g.mean[0], p.vectors(cast).mean.mean(0), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(g.mean[0], g.mean[1]); torch.testing.assert_close(g.mean[2], p.vectors(cast[:1]).mean[0], atol=1e-5, rtol=1e-4)
    assert torch.isfinite(g.precision).all() and proxies(p).member_count.sum() == 800

def test_values_that_nobody_rated_have_a_proxy_nonetheless(town):
    items = town['items'].assign(who=[('old',) if o < 160 else ('new',) for o in range(200)])
    p = ProxyQuestions(town['learn'], 'who', df=items)
    g,nobody = p.vectors(['new', 'old']),p.vectors(['never seen'])
    torch.testing.assert_close(g.mean[0], p.model.means(p._features(items, [199]))[0])
    assert torch.isfinite(g.mean).all() and torch.isfinite(g.precision).all() and proxies(p).set_index('value').member_count.to_dict() == dict(old=160, new=40)
    trace = lambda o: torch.einsum('nkk->n', o.cov())
    assert trace(g)[1] < trace(g)[0]
    one = ProxyQuestions(town['learn'], 'who', df=items.assign(who=[('only',)] * 200)) # nothing to tell items apart
    torch.testing.assert_close(one.prior(ids=[199]).mean[0], one.model.x_mean, atol=1e-5, rtol=1e-4)

def test_weight_falls_from_one(town):
    p,df = ProxyQuestions(town['learn'], 'studio'),town['df']
    cold = df[(df.item >= 160) & (df.user < 240)]
    w = p.weight(cold)
    assert list(w) == ['item', 'rating_count', 'weight'] and w.weight.between(0, 1).all() and w.rating_count.tolist() == cold.groupby('item').size().tolist()
    assert w.weight.max() < .9 # each has some
    one = cold[cold.item == 199]
    some = [p.weight(one.head(n)).weight.item() for n in (1, 3, 9)]
    assert 1 > some[0] > some[1] > some[2] > 0
    shuffled = p.weight(one.sample(frac=1, random_state=0)).weight.item()
    assert shuffled == pytest.approx(p.weight(one).weight.item(), abs=1e-3)
    with pytest.raises(ValueError, match="ratings: no column 'item'"): p.weight(one.rename(columns=dict(item='film')))
    with pytest.raises(KeyError, match='user: 1 unknown id: 999'): p.weight(one.head(1).assign(user=999))
    assert MetadataPrior(town['learn']).weight(df[(df.user >= 240) & (df.item < 160)]).weight.between(0, 1).all()

def test_an_answer_about_a_value_moves_its_members(town):
    p,base = ProxyQuestions(town['learn'], 'studio'),estimate_prior(town['learn'])
    before = answer_proxies(p, {'s1': 3}, base).expected()[0]
    hi,lo = (answer_proxies(p, {'s1': r}, base).expected()[0] for r in (5, 1))
    its = torch.tensor([o == ('s1',) for o in town['items'].studio[:160]])
    assert (hi - lo)[its].mean() > .2 and (hi - lo)[its].mean() > (hi - lo)[~its].mean()
    g = answer_proxies(p, {'s1': 5}, base)
    assert torch.einsum('kk->', g.cov()[0]) < torch.einsum('kk->', base.cov())

def test_seed_and_inputs(town):
    before = town['users'].copy(deep=True)
    a,b = (MetadataPrior(town['learn'], seed=1).prior(town['users'], [299, 3]) for _ in range(2))
    assert torch.equal(a.mean, b.mean) and torch.equal(a.precision, b.precision)
    pd.testing.assert_frame_equal(before, town['users'])

def test_errors(town):
    bare = cf_learner(CFDataLoaders.from_df(simulate_ratings(20, 20, 100, seed=0), seed=0, device='cpu'), factor_count=2)
    with pytest.raises(ValueError, match='there is no metadata of users.*users='): MetadataPrior(bare)
    with pytest.raises(ValueError, match='there is no metadata.*items='): ProxyQuestions(bare, 'x')
    with pytest.raises(ValueError, match="attribute: no column 'colour'; there are"): ProxyQuestions(town['learn'], 'colour')
    with pytest.raises(ValueError, match="nothing can be learned from 'void': all missing"): ProxyQuestions(town['learn'], 'void', df=town['items'].assign(void=None))
