"The sampler against its own model, and against a plain slow version; the callbacks against fastai's"
import math
import numpy as np, pandas as pd, pytest, torch
from scipy import stats
from fastcf.bayes.engines import ALS, Gibbs
from fastcf.bayes.intervals import _crps, _log_score, _quantile, effective_size, split_rhat
from fastai.callback.core import Callback
from fastcf.watch.embedding_stats import EmbeddingStats
from fastcf.core import UnknownIdError
from fastcf.data.sources import simulate_ratings
import fastcf.learn.predict
from fastcf.learn.learner import cf_learner
from fastcf.data.loaders import CFDataLoaders
from fastcf.bayes.sampler import Block, Hyperpriors, Sampler, State, _gamma, _wishart, interaction_features, time_levels

torch.set_num_threads(1)

# --- the sampler is a sampler of its model

TIGHT = Hyperpriors(spread=.15, freedom=6., noise=(5., 5.), noise_shape=4., block=(4., 4.), effect=(5., 2.)) # with moments, so that averages settle

def small(seed, users=5, items=4, n=14, k=1, blocks=True, effects=True):
    g = torch.Generator().manual_seed(11)
    pairs = torch.randperm(users * items, generator=g)[:n]
    f = lambda m: [torch.randn(m, 2, generator=g, dtype=torch.float64)] if blocks else []
    codes = [torch.arange(n) % 4] if effects else []
    return Sampler(pairs // items, pairs % items, torch.zeros(n, dtype=torch.float64), users, items, k, f(users), f(items), codes, TIGHT, standardise=False, seed=seed)

def summary(s):
    "Bounded or light-tailed functions of all that is drawn"
    x,v = s.user.x,s.item.x
    res = [s.user.mu.tanh(), s.item.mu.tanh(), s.user.lam.logdet()[None], s.item.lam.logdet()[None], s.user.lam.diagonal().log(), x[0].tanh(), v[1].tanh(), x.square().mean().log()[None],
           v.square().mean().log()[None], (x[:, 0] * x[:, 1]).mean().tanh()[None], s.user_noise.log()[:1], s.item_noise.log()[:2], s.y.tanh()[:2], s.y.square().mean().log()[None]]
    scalars = [math.log(s.noise)]
    for b in (*s.user.blocks, *s.item.blocks): res,scalars = res + [b.coefs.flatten().tanh()[:2]],scalars + [math.log(b.precision)]
    for e in s.effects: res,scalars = res + [e.levels.tanh()[:2], e.levels.square().mean().log()[None]],scalars + [math.log(e.precision)]
    return torch.cat([*res, torch.tensor(scalars, dtype=x.dtype)]).numpy()

def geweke(alter=lambda s: None, n=2500):
    "z-scores of the two simulators' means (Geweke 2004), the chain's standard error from 25 batches"
    a,b = small(1),small(2)
    alter(b)
    one,two = [],[]
    b.draw_prior(); b.draw_ratings()
    for _ in range(n):
        a.draw_prior(); a.draw_ratings(); one.append(summary(a))
        b.sweep(); b.draw_ratings(); two.append(summary(b))
    one,two = np.array(one),np.array(two)
    batches = two.reshape(25, -1, two.shape[1]).mean(1)
    return (one.mean(0) - two.mean(0)) / np.sqrt(one.var(0) / n + batches.var(0, ddof=1) / 25)

def test_joint_distribution():
    z = geweke()
    assert len(z) > 30 and (p := 2 * stats.t.sf(abs(z), 24)).min() * len(z) > .01, z.round(1)
    assert (p < .05).mean() < .25

@pytest.mark.parametrize('fault', ['noise', 'freedom', 'mean'])
def test_joint_distribution_would_find_a_wrong_sampler(fault):
    def alter(s):
        if fault == 'noise': s.priors = Hyperpriors(**{**vars(TIGHT), 'noise': (7., 5.)})
        elif fault == 'freedom': s.user.priors = Hyperpriors(**{**vars(TIGHT), 'freedom': 9.})
        else:
            hyper = s.item.draw_hyper
            def shifted(): hyper(); s.item.mu = s.item.mu + .15
            s.item.draw_hyper = shifted
    z = geweke(alter, 1000)
    assert (2 * stats.t.sf(abs(z), 24)).min() * len(z) < .001

# --- against slow NumPy

def test_vectors_of_a_row_have_the_moments_of_a_plain_regression():
    s = small(3, effects=False)
    s.draw_prior(); s.draw_ratings()
    g,(row,col) = s.user,(s.users.numpy(), s.items.numpy())
    v = np.concatenate([s.item.x[:, :-1].numpy(), np.ones((4, 1))], 1)
    y,noise,m,lam = (o.numpy() for o in (s.y - s.item.x[s.items, -1], s.noise_precisions(), g.prior().mean, g.lam))
    g.draw_hyper = lambda: None
    draws = []
    for _ in range(4000):
        g.draw(torch.cat([s.item.x[:, :-1], torch.ones(4, 1, dtype=torch.float64)], 1), s.y - s.item.x[s.items, -1], s.noise_precisions())
        draws.append(g.x.numpy())
    draws = np.array(draws)
    for r in range(5):
        p,h = lam.copy(),lam @ m[r]
        for a,t,w in zip(v[col[row == r]], y[row == r], noise[row == r]): p,h = p + w * np.outer(a, a),h + w * a * t
        cov = np.linalg.inv(p)
        assert abs((draws[:, r].mean(0) - cov @ h) / np.sqrt(np.diag(cov) / 4000)).max() < 4.5
        d = np.diag(cov)
        assert (abs(np.cov(draws[:, r].T) - cov) < 4.5 * np.sqrt((np.outer(d, d) + cov**2) / 4000)).all()

def test_wishart_and_gamma_moments():
    g,inv = torch.Generator().manual_seed(0),np.array([[2., .5, 0], [.5, 1, .2], [0, .2, .7]])
    w = np.array([_wishart(6, torch.tensor(inv), g).numpy() for _ in range(5000)])
    scale = np.linalg.inv(inv)
    np.testing.assert_allclose(w.mean(0), 6 * scale, atol=.25)
    np.testing.assert_allclose(w.var(0), 6 * (scale**2 + np.outer(np.diag(scale), np.diag(scale))), rtol=.12)
    x = _gamma(torch.full((20_000,), 3.), 2., g)
    assert abs(x.mean() - 1.5) < .03 and abs(x.var() - .75) < .05

def test_coefficients_of_a_block_are_those_of_the_plain_regression_on_its_features():
    g = torch.Generator().manual_seed(0)
    f,x = (torch.randn(30, d, generator=g, dtype=torch.float64) for d in (3, 2))
    f = torch.cat([f, f[:, :1] + f[:, 1:2]], 1) # a feature that repeats two others
    b = Block(f, 2, Hyperpriors(), g)
    links = []
    for _ in range(3000):
        b.precision = 2.5
        b.draw(x, torch.eye(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)); links.append(b.link())
    c = (f - f.mean(0)).numpy()
    plain = c @ np.linalg.solve(c.T @ c + 2.5 * np.eye(4), c.T @ x.numpy()) # the prior is the same in every rotation
    np.testing.assert_allclose(torch.stack(links).mean(0).numpy(), plain, atol=.04)

def test_scores_of_a_state():
    s = State(torch.tensor([[1., 2, .5]]), torch.tensor([[3., -1, .25], [0, 0, 1]]), 2., torch.tensor([.5]), torch.tensor([1., 4]), [torch.tensor([.1, -.2])], [4.])
    mean,var = s.scores(torch.tensor([0, 0]), torch.tensor([0, 1]), [torch.tensor([1, -1])])
    np.testing.assert_allclose(mean, [1 + .75 - .2, 1.5]); np.testing.assert_allclose(var, [1., .25 + .25])

def test_levels_of_time_and_rows_of_who_rated_what():
    u,t = torch.tensor([0, 0, 1, 0]),torch.tensor([5, 9, 5, 10])
    codes,known = time_levels(u, t, 10)
    assert codes.tolist() == [0, 0, 2, 1]
    assert time_levels(torch.tensor([1, 1, 0]), torch.tensor([0, 10, 19]), 10, known)[0].tolist() == [2, -1, 1]
    np.testing.assert_allclose(interaction_features(torch.tensor([0, 0, 2]), torch.tensor([0, 1, 1]), 3, 2), [[.5**.5, .5**.5], [0, 0], [0, 1]])
    with pytest.raises(ValueError, match='who_rated'): interaction_features(u, u, 10**6, 10**6)

# --- callbacks

@pytest.fixture()
def dls(sim): return CFDataLoaders.from_df(sim, valid_pct=.2, seed=1, bs=64, device='cpu')

def quiet(learn, n, cbs, **kw):
    with learn.no_bar(), learn.no_logging(): learn.fit(n, cbs=cbs, **kw)
    return learn

def test_recorder_has_a_training_loss_and_every_column(dls):
    for cb in (Gibbs(seed=0), ALS()):
        learn = quiet(cf_learner(dls, 3, seed=0), 5, cb)
        r = learn.recorder
        assert [len(v) for v in r.values] == [4] * 5 and len(r.losses) == 5 and r.iters == [1, 2, 3, 4, 5]
        np.testing.assert_allclose([v[0] for v in r.values], [float(o) for o in r.losses], rtol=1e-4)
        r.plot_loss(skip_start=0)

def test_validation_sees_the_average_of_the_samples(dls):
    learn = quiet(cf_learner(dls, 3, seed=0), 12, cb := Gibbs(burn_in=4, keep=1000, seed=0))
    v = dls.valid_ds
    assert cb.samples.count == 8 == len(learn.posterior.states)
    mean = learn.posterior.moments(v.users, v.items)[0].mean(0)
    assert learn.recorder.values[-1][2] == pytest.approx(float((mean - v.ratings).square().mean().sqrt()), rel=1e-5)
    names = [dls.catalog.user[v.users.numpy()], dls.catalog.item[v.items.numpy()]]
    np.testing.assert_allclose(learn.posterior.predict(*names).prediction, mean, rtol=1e-5)

def test_seed_repeats_the_walk_and_memory_bounds_what_is_kept(dls):
    runs = [quiet(cf_learner(dls, 3, seed=0), 10, Gibbs(seed=s, **kw)) for s,kw in ((1, {}), (1, dict(memory=20_000)), (2, {}))]
    a,b,c = (r.model.user_weight.weight for r in runs)
    assert (runs[0].posterior.chain == runs[1].posterior.chain).all() and not torch.equal(a, c)
    size = 4 * (60 * 5 + 80 * 5)
    assert 1 <= len(runs[1].posterior.states) <= 20_000 // size < len(runs[0].posterior.states)

def test_a_sampler_carries_on_from_a_gradient_fit_and_the_other_way(dls):
    learn = quiet(cf_learner(dls, 3, seed=0, from_means=False), 4, None, lr=.02)
    start = learn.validate()[1]
    quiet(learn, 1, Gibbs(burn_in=0, seed=0))
    quiet(learn, 30, Gibbs(seed=0))
    after = learn.validate()[1]
    assert after < start
    quiet(learn, 1, None, lr=1e-4)
    assert learn.validate()[1] == pytest.approx(after, abs=.03)

class Norms(Callback):
    "Mean norm of the users' factors after each epoch, before validation could be in the way"
    order = 200
    def before_fit(self): self.seen = []
    def after_epoch(self): self.seen.append(float(self.model.user_weight.weight.norm(dim=1).mean()))

@pytest.mark.parametrize('make', [lambda: Gibbs(burn_in=2, seed=0), ALS])
@pytest.mark.parametrize('first', [True, False])
def test_statistics_of_the_tables_follow_the_sweeps(dls, make, first):
    stats,norms,engine = EmbeddingStats(),Norms(),make()
    quiet(cf_learner(dls, 3, seed=0), 5, [norms, *([stats, engine] if first else [engine, stats])])
    df = stats.stats
    got = df[(df.table == 'user_weight') & (df.statistic == 'norm_mean')].drop_duplicates('epoch', keep='last')
    assert got.epoch.tolist() == [0, 1, 2, 3, 4, 5] and len(set(got.value.round(6))) == 6
    np.testing.assert_allclose(got.value[1:], norms.seen, rtol=1e-5)
    assert {'user_weight', 'item_weight', 'user_bias', 'item_bias'} <= set(df.table) and np.isfinite(df.value).all()

def test_als_never_raises_its_objective(dls):
    for y_range in (None, (0., 6.)):
        learn = cf_learner(dls, 4, y_range=y_range, seed=0)
        if y_range is None: learn.model.user_weight.weight.data *= 100
        quiet(learn, 8, cb := ALS(3.))
        o = np.array(cb.objectives)
        assert len(o) == 16 and (np.diff(o) <= 1e-6 * o[:-1]).all() and o[-1] < .9 * o[0]

def test_als_solves_each_side_as_plain_ridge_does(dls):
    learn = quiet(cf_learner(dls, 3, seed=0), 3, ALS(2.))
    t,m = dls.train_ds,learn.model
    u,i,r = t.users.numpy(),t.items.numpy(),t.ratings.double().numpy()
    uw,ub,iw,ib = (o.weight.detach().double().numpy() for o in (m.user_weight, m.user_bias, m.item_weight, m.item_bias))
    for row in range(0, 80, 9):
        at = i == row
        a = np.concatenate([uw[u[at]], np.ones((at.sum(), 1))], 1)
        mean = np.array([0, 0, 0, r.mean()])
        x = np.linalg.solve(a.T @ a + 2 * np.eye(4), a.T @ (r[at] - ub[u[at], 0]) + 2 * mean)
        np.testing.assert_allclose([*iw[row], ib[row, 0]], x, atol=2e-3)

def test_clear_errors(dls):
    with pytest.raises(ValueError, match='y_range'): quiet(cf_learner(dls, 3, y_range=(0, 6)), 1, Gibbs())
    with pytest.raises(ValueError, match='time_name'): quiet(cf_learner(dls, 3), 1, Gibbs(time_bins=(60,)))
    from fastai.learner import Learner
    with pytest.raises(TypeError, match='cf_learner'): quiet(Learner(dls, cf_learner(dls, 3).model, loss_func=torch.nn.MSELoss()), 1, Gibbs())
    learn = quiet(cf_learner(dls, 3), 3, Gibbs())
    with pytest.raises(ValueError, match='interval'): learn.posterior.predict(1, 1, interval=90)
    with pytest.raises(UnknownIdError): learn.posterior.predict('nobody', 1)
    assert isinstance(learn.posterior.predict(dls.catalog.user[0], dls.catalog.item[0]), float)

# --- intervals and scores

def mixture(n=6, samples=7):
    g = torch.Generator().manual_seed(2)
    return torch.randn(samples, n, generator=g, dtype=torch.float64),torch.rand(samples, n, generator=g, dtype=torch.float64) + .2,torch.randn(n, generator=g, dtype=torch.float64)

def test_quantiles_and_scores_of_mixtures_are_those_of_plain_numpy():
    mean,sd,y = mixture()
    for j in range(mean.shape[1]):
        m,s = mean[:, j].numpy(),sd[:, j].numpy()
        cdf = lambda x: stats.norm.cdf(x[..., None], m, s).mean(-1)
        for p in (.05, .5, .95): assert cdf(np.array(_quantile(mean, sd, p)[j].item())) == pytest.approx(p, abs=1e-6)
        x = np.linspace(-12, 12, 240_001)
        assert float(_crps(mean, sd, y)[j]) == pytest.approx(np.trapezoid((cdf(x) - (x >= float(y[j])))**2, x), abs=1e-3)
        assert float(_log_score(mean, sd, y)[j]) == pytest.approx(np.log(stats.norm.pdf(float(y[j]), m, s).mean()))

def test_calibration_counts_what_the_intervals_hold(dls):
    post = quiet(cf_learner(dls, 3, seed=0), 60, Gibbs(seed=0)).posterior
    v,c = dls.valid_ds,dls.catalog
    df = post.predict(c.user[v.users.numpy()], c.item[v.items.numpy()], interval=.8, return_std=True)
    assert list(df.columns)[-4:] == ['prediction', 'std', 'low', 'high'] and (df.low < df.prediction).all() and (df.prediction < df.high).all()
    hit = (df.low <= v.ratings.numpy()) & (v.ratings.numpy() <= df.high)
    assert post.calibration((.8,)).coverage[0] == pytest.approx(hit.mean())
    for by in ('user', 'item'):
        parts = post.calibration((.8,), by)
        assert parts.rating_count.sum() == len(v) and (parts.coverage * parts.rating_count).sum() == pytest.approx(hit.sum())
    with pytest.raises(ValueError, match='side'): post.calibration(side='film')
    assert 'ixed' in post.verdict() and list(post.diagnostics().columns) == ['mean', 'std', 'effective_size', 'split_rhat']
    post.plot_trace(); post.plot_calibration(side='user')

def test_rows_without_ratings_are_predicted_from_the_prior_and_less_surely(sim):
    user = sim.user.iloc[0]
    own = np.flatnonzero(sim.user == user)
    dls = CFDataLoaders.from_df(sim, splitter=lambda df: (np.setdiff1d(np.arange(len(df)), own), own), device='cpu')
    post = quiet(cf_learner(dls, 3, seed=0), 80, Gibbs(seed=0)).posterior
    items = dls.catalog.item[np.arange(20)]
    other = sim.user.value_counts().index[0]
    new,old = (post.predict(u, items, return_std=True) for u in (user, other))
    assert np.isfinite(new.prediction).all() and new['std'].mean() > old['std'].mean()

def test_sampling_is_better_than_the_mean_and_its_intervals_hold_on_ratings_from_a_known_model():
    df = simulate_ratings(150, 120, 6000, seed=5)
    dls = CFDataLoaders.from_df(df, valid_pct=.2, seed=0, device='cpu')
    learn = cf_learner(dls, 4, seed=0)
    with learn.no_bar(), learn.no_logging(): post = learn.sample_posterior(100, 40, seed=0)
    assert post.scores().rmse < .95 * float(dls.valid_ds.ratings.std())
    assert .85 < post.calibration((.9,)).coverage[0] < .95
    assert learn.validate()[1] < 1.05 * post.scores().rmse

# --- diagnostics

def test_effective_size_and_rhat_of_known_chains():
    g = np.random.default_rng(0)
    e = g.normal(size=(4000, 40))
    x = np.zeros_like(e)
    for t in range(1, 4000): x[t] = .8 * x[t-1] + e[t]
    white,ar = effective_size(torch.tensor(e)).mean(),effective_size(torch.tensor(x)).mean()
    assert white == pytest.approx(4000, rel=.06) and ar == pytest.approx(4000 * .2 / 1.8, rel=.12)
    assert split_rhat(torch.tensor(e)).max() < 1.01
    assert split_rhat(torch.tensor(e) + torch.linspace(0, 3, 4000)[:, None]).min() > 1.2

# --- simulation-based calibration

@pytest.mark.slow
def test_simulation_based_calibration():
    "Ranks of what was drawn from the prior among samples given ratings drawn from it are uniform (Talts et al. 2018, arXiv:1804.06788)"
    ranks = []
    for seed in range(100):
        s = small(1000 + seed)
        s.draw_prior(); s.draw_ratings()
        truth,y = known(s),s.y
        s.draw_prior(); s.y = y # start elsewhere
        draws = []
        for n in range(136):
            s.sweep()
            if n >= 15 and n % 15 == 0: draws.append(known(s))
        ranks.append((np.array(draws) < truth).sum(0))
    for r in np.array(ranks).T: # 0 to 9
        counts = np.bincount(r, minlength=10)
        assert stats.chisquare(counts).pvalue > .002, counts

def known(s):
    "Quantities that no rotation or sign changes"
    full = s.fit()
    base = full - s.effect_sums()
    return np.array([s.noise, float(base[0]), float(full[3]), float(s.user.lam[-1, -1]), s.user.blocks[0].precision, float(s.item_noise[0]), s.effects[0].precision])
