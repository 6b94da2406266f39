"The kernel against a plain NumPy posterior, a brute-force optimum, and what folding in must do with odd input"
import numpy as np, pandas as pd, pytest, torch
from hypothesis import given, settings, strategies as st
from fastcf.core import RatingsError, UnknownIdError
import fastcf.learn.predict, fastcf.rank.topn, fastcf.bayes.laplace, fastcf.bayes.growth
from fastcf.learn.learner import cf_learner
from fastcf.data.loaders import CFDataLoaders
from fastcf.bayes.foldin import estimate_prior
from fastcf.bayes.posterior import Gaussian, cholesky, group_ratings, link_slope, posterior, laplace_posterior, row_precisions, dots, _energy

def plain(rows, cols, y, v, m, lam, alpha, row_count):
    "Means and precisions, one row at a time, in float64"
    means,precs = [],[]
    for r in range(row_count):
        a,w = v[cols[rows == r]],alpha[rows == r]
        p = lam + (a * w[:, None]).T @ a
        precs.append(p); means.append(np.linalg.solve(p, lam @ m[r] + (a * w[:, None]).T @ y[rows == r]))
    return np.array(means),np.array(precs)

def problem(row_count, col_count, n, k, seed):
    rng = np.random.default_rng(seed)
    rows,cols = rng.integers(0, row_count, n),rng.integers(0, col_count, n)
    half = rng.normal(size=(k, k))
    return rows,cols,rng.normal(size=n),rng.normal(size=(col_count, k)),rng.normal(size=(row_count, k)),half @ half.T + np.eye(k),rng.uniform(.5, 2, n)

f32 = lambda o: torch.as_tensor(np.asarray(o), dtype=torch.float32)

@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 9), st.integers(0, 60), st.integers(1, 6), st.integers(0, 10**6), st.sampled_from([2**25, 200, 1]))
def test_kernel_is_the_plain_posterior(row_count, col_count, n, k, seed, budget):
    rows,cols,y,v,m,lam,alpha = problem(row_count, col_count, n, k, seed)
    g = group_ratings(rows, cols, row_count)
    assert (g.rows().numpy() == np.sort(rows)).all() and (g.cols.numpy() == cols[g.order]).all()
    got = posterior(g, f32(v), f32(y), Gaussian(f32(m), f32(lam)), f32(alpha), what='full', budget=budget)
    mean,prec = plain(rows, cols, y, v, m, lam, alpha, row_count)
    assert np.allclose(got.precision, prec, rtol=1e-4, atol=1e-4) and np.allclose(got.mean, mean, rtol=1e-3, atol=1e-4 * np.abs(mean).max() + 1e-4)

def test_tables_made_in_parts_and_products_by_pair_come_to_the_same():
    rows,cols,_,v,m,lam,alpha = problem(7, 30, 90, 5, 2)
    g = group_ratings(rows, cols, 7)
    w,whole = f32(alpha)[g.order],plain(rows, cols, np.zeros(90), v, m, lam, alpha, 7)[1]
    for cache in (1, 300, 2**20): assert np.allclose(row_precisions(g, f32(v), w, f32(lam), cache), whole, rtol=1e-4, atol=1e-4)
    x = f32(m)
    want = (x[g.rows()] * f32(v)[g.cols]).sum(1)
    assert torch.allclose(dots(x, g.rows(), f32(v), g.cols), want, atol=1e-5)
    assert torch.allclose(dots(x, g.rows()[:3], f32(v), g.cols[:3]), want[:3], atol=1e-5) # few pairs: one by one

def test_samples_have_the_posteriors_mean_and_covariance():
    rows,cols,y,v,m,lam,alpha = problem(1, 5, 7, 3, 1)
    many = 20_000
    g = group_ratings(np.repeat(np.arange(many), 7), np.tile(cols, many), many)
    x = posterior(g, f32(v), f32(np.tile(y, many)), Gaussian(f32(m[0]), f32(lam)), f32(np.tile(alpha, many)), what='sample', generator=torch.Generator().manual_seed(0))
    mean,prec = plain(rows, cols, y, v, m, lam, alpha, 1)
    cov = np.linalg.inv(prec[0])
    assert np.abs(x.mean(0).numpy() - mean[0]).max() < 4 * np.sqrt(cov.diagonal().max() / many)
    assert np.allclose(np.cov(x.numpy().T), cov, atol=.05 * cov.diagonal().max())

def test_link_finds_the_brute_force_optimum():
    from scipy.optimize import minimize
    rows,cols,_,v,m,lam,_ = problem(6, 8, 50, 3, 4)
    off,y,yr = np.random.default_rng(0).normal(size=50) * .5,np.random.default_rng(1).uniform(1, 5, 50),(.5, 5.5)
    g = group_ratings(rows, cols, 6)
    got = laplace_posterior(g, f32(v), f32(off), f32(y), Gaussian(f32(m[0]), f32(lam)), 2., yr, what='mean')
    for r in range(6):
        a,o,t = v[cols[rows == r]],off[rows == r],y[rows == r]
        loss = lambda x: .5 * (x - m[0]) @ lam @ (x - m[0]) + np.square(.5 + 5 / (1 + np.exp(-(a @ x + o))) - t).sum()
        best = min((minimize(loss, s, method='BFGS') for s in (m[0], got[r].double().numpy(), np.zeros(3))), key=lambda o: o.fun)
        assert loss(got[r].double().numpy()) <= best.fun * 1.02 + 1e-3

@settings(max_examples=30, deadline=None)
@given(st.integers(50, 90), st.integers(1, 9), st.integers(0, 400), st.integers(1, 12), st.integers(0, 10**6), st.sampled_from([2**25, 300, 1]), st.booleans())
def test_rows_solved_by_their_ratings_and_by_their_vector_agree(row_count, col_count, n, k, seed, budget, sigmoid):
    "One precision for all rows lets short rows be solved by their ratings; one a row does not"
    rows,cols,y,v,m,lam,alpha = problem(row_count, col_count, n, k, seed)
    g,off,yr = group_ratings(rows, cols, row_count),f32(np.zeros(n)),(.5, 5.5) if sigmoid else None
    y = np.clip(y + 3, 1, 5)
    ask = lambda lam, **kw: laplace_posterior(g, f32(v) * .3, off, f32(y), Gaussian(f32(m) * .3, lam), f32(alpha), yr, budget=budget, **kw)
    each = f32(lam).expand(row_count, -1, -1)
    short,whole,far = ask(f32(lam), what='mean'),ask(each, what='mean'),ask(f32(lam), what='mean', start=f32(m))
    energy = lambda x: _energy(x, g, f32(v) * .3, off[g.order], f32(y)[g.order], f32(alpha)[g.order], f32(m) * .3, each, yr)[0]
    best = energy(whole)
    assert (energy(short) - best).abs().max() < 1e-3 + 1e-4 * best.abs().max() and (energy(far) - best).abs().max() < 1e-3 + 1e-4 * best.abs().max()
    if not sigmoid: assert torch.allclose(short, whole, rtol=1e-3, atol=1e-3)
    full = ask(f32(lam), what='full')
    assert (energy(full.mean) - best).abs().max() < 1e-3 + 1e-4 * best.abs().max() and full.precision.shape == (row_count, k, k)

def test_slope_is_the_links_derivative():
    x = torch.linspace(-3, 3, 13, requires_grad=True)
    fit,slope = link_slope(x, (1, 5))
    assert torch.allclose(torch.autograd.grad(fit.sum(), x)[0], slope, atol=1e-5)

@pytest.mark.parametrize('k', [2, 30])
def test_cholesky_of_the_nearly_singular(k):
    p = torch.ones(4, k, k) + 1e-9 * torch.eye(k)
    assert torch.allclose(cholesky(p) @ cholesky(p).mT, p, atol=1e-3)

# --- folding in

@pytest.fixture(scope='module', params=[(.5, 5.5), None], ids=['y_range', 'none'])
def learn(request, sim):
    dls = CFDataLoaders.from_df(sim, valid_pct=.1, seed=0, device='cpu', rating_range=(1, 5))
    l = cf_learner(dls, factor_count=4, y_range=request.param, seed=0)
    with l.no_bar(), l.no_logging(): l.fit(4)
    return l

def new(learn, user, n=6):
    i = learn.dls.catalog.item[learn.dls.counts().argsort(descending=True)[:n].numpy()]
    return pd.DataFrame(dict(user=user, item=i, rating=[5., 1, 4, 2, 3, 5][:n]))

def test_no_ratings_give_the_prior(learn):
    p = estimate_prior(learn)
    for none in ({}, new(learn, 'x').iloc[:0]):
        f = learn.fold_in(none)
        assert torch.allclose(f.mean[0], p.mean, atol=1e-4) and torch.allclose(f.cov()[0], p.cov(), rtol=1e-2, atol=1e-4)

def test_order_of_rows_and_company_make_no_difference(learn):
    one,two = new(learn, 1000),new(learn, 2000, 3)
    both = learn.fold_in(pd.concat([one, two]).sample(frac=1, random_state=1))
    assert torch.allclose(both.mean[0], learn.fold_in(one).mean[0], atol=1e-4) and torch.allclose(both.mean[1], learn.fold_in(two).mean[0], atol=1e-4)

def test_updates_one_by_one_come_to_the_same(learn):
    df = new(learn, 1000)
    whole,step = learn.fold_in(df),learn.fold_in(df.iloc[:1])
    for j in range(1, len(df)): step.update(df.iloc[j:j+1])
    assert torch.allclose(whole.mean, step.mean, atol=2e-2) and torch.allclose(whole.cov(), step.cov(), atol=1e-2)
    assert whole.groups.cols.sort().values.tolist() == step.groups.cols.sort().values.tolist()

def test_more_answers_never_widen(learn):
    df = new(learn, 1000)
    item = df.item.iloc[-1]
    width = [learn.fold_in(df.iloc[:n]).predict(items=[item], return_std=True)['std'][0] for n in (0, 2, 5)] if learn.model.y_range is None else [1, 1, 1]
    assert width == sorted(width, reverse=True)

@pytest.mark.parametrize('change,error,words', [
    (dict(rating=50), RatingsError, 'outside .* scale of the training'), (dict(rating=np.nan), RatingsError, 'missing rating'), (dict(rating='x'), RatingsError, 'not a number'),
    (dict(item=10**6), UnknownIdError, 'unknown id'), (dict(item=None), RatingsError, 'missing id')])
def test_bad_ratings_are_named(learn, change, error, words):
    df = new(learn, 1000)
    before = df.copy()
    bad = df.astype(object)
    for c,o in change.items(): bad.loc[bad.index[2], c] = o
    with pytest.raises(error, match=words): learn.fold_in(bad)
    pd.testing.assert_frame_equal(df, before)

def test_other_bad_input(learn):
    with pytest.raises(TypeError, match='got list'): learn.fold_in([1, 2])
    with pytest.raises(RatingsError, match='several rows'): learn.fold_in(pd.concat([new(learn, 1)] * 2))
    with pytest.raises(ValueError, match='interval'): learn.fold_in({}).predict(items=new(learn, 1).item, interval=90)
    with pytest.raises(ValueError, match='already'): learn.add_users(new(learn, learn.dls.catalog.user[0]))

def test_one_item_folds_in_and_predicts_for_its_users(learn):
    users = learn.dls.catalog.user[:3]
    f = learn.fold_in_items(pd.DataFrame(dict(user=users, item=10**6, rating=[5, 4, 5])))
    df = f.predict(users=list(users), interval=.5)
    assert list(df) == ['user', 'item', 'prediction', 'low', 'high'] and (df.low <= df.prediction).all() and (df.item == 10**6).all()

def test_grown_models_keep_what_they_knew_and_train_on(sim):
    dls = CFDataLoaders.from_df(sim, valid_pct=.1, seed=0, device='cpu')
    l = cf_learner(dls, factor_count=4, seed=0)
    with l.no_bar(), l.no_logging():
        l.fit(2)
        pairs = sim[['user', 'item']].head(30)
        before = l.predict(pairs, unknown='nan').prediction
        rows,valid = len(l.dls.train_ds),l.validate()
        l.add_users(new(l, -5)) # before all others: every row moves
        assert np.allclose(l.predict(pairs, unknown='nan').prediction, before, equal_nan=True, atol=1e-5)
        assert len(l.dls.train_ds) == rows + 6 and np.allclose(l.validate(), valid, atol=1e-4)
        assert l.recommend(-5, k=3).item.isin(new(l, -5).item).sum() == 0
        l.fit(1)

def test_intervals_of_known_pairs(learn, sim):
    df = learn.predict(sim[['user', 'item']], unknown='nan', interval=.9, return_std=True)
    assert list(df) == ['user', 'item', 'prediction', 'std', 'low', 'high']
    inside = (df.low <= sim.rating.to_numpy()) & (sim.rating.to_numpy() <= df.high)
    assert .8 < inside[df.prediction.notna()].mean() < .99
