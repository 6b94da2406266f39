"The pieces of the kernel beside plain loops: rows and their ratings, sums, factors that are hard to come by, blocks within a budget, the walk under a sigmoid, and a likelihood some of whose columns are only believed"
import math
import numpy as np, pandas as pd, pytest, torch
from fastcf.bayes import posterior as kernel
from fastcf.bayes.posterior import (Gaussian, RatingsCSR, augment, cholesky, dots, gaussian_of, group_ratings, laplace_posterior, link_slope, posterior,
    quadratic_form, ranges, row_precisions, _blocks, _by_length, _energy, _newton, _steps_by_rating, _steps_by_vector, _sums)
from fastcf.bayes.row_likelihood import RowLikelihood

def normal(*size, seed=0): return torch.randn(*size, generator=torch.Generator().manual_seed(seed))
def spd(*size, seed=0):
    "Symmetric positive definite matrices"
    a = normal(*size, size[-1], seed=seed)
    return a @ a.mT + torch.eye(size[-1])
def ratings(row_count=9, col_count=7, n=60, seed=0):
    "Rows, columns and weights; the last row and one in the middle have no rating"
    rng = np.random.default_rng(seed)
    rows = rng.choice([r for r in range(row_count - 1) if r != 2], n)
    return rows,rng.integers(col_count, size=n),torch.as_tensor(rng.uniform(.5, 2, n), dtype=torch.float32)

# --- ratings by row

def test_ratings_are_sorted_by_row_and_keep_their_order():
    rows,cols,_ = ratings()
    g = group_ratings(rows, cols, 9)
    assert g.order.tolist() == sorted(range(60), key=lambda j: (rows[j], j)) and g.cols.tolist() == cols[g.order].tolist()
    assert g.starts.tolist() == [int((rows < r).sum()) for r in range(10)] and g.rows().tolist() == sorted(rows)
    assert g.to('cpu').starts.tolist() == g.starts.tolist() and len(group_ratings([], [], 3).starts) == 4

@pytest.mark.parametrize('size', [1, 2, 4, 9, 100])
def test_slices_are_some_rows_after_the_other(size):
    rows,cols,_ = ratings()
    g = group_ratings(rows, cols, 9)
    seen = []
    for part,at,s in g.slices(size):
        here = range(9)[part]
        seen += here
        assert len(here) <= size and s.starts[0] == 0 and len(s.starts) == len(here) + 1
        assert [(here[r], c) for r,c in zip(s.rows().tolist(), s.cols.tolist())] == [(r, c) for r,c in zip(g.rows().tolist(), g.cols.tolist()) if r in here]
        assert torch.equal(g.order[at], s.order) and torch.equal(g.cols[at], s.cols)
    assert seen == list(range(9))
    assert len([*group_ratings([], [], 0).slices(5)]) == 1

def test_ranges_are_numbers_one_range_after_the_other():
    starts,lengths = torch.tensor([5, 0, 7, 2]),torch.tensor([3, 0, 1, 2])
    assert ranges(starts, lengths).tolist() == [5, 6, 7, 7, 2, 3]
    assert ranges(starts[:0], lengths[:0]).tolist() == []

def test_mean_and_precision_of_some_rows():
    each = Gaussian(normal(5, 3), spd(5, 3))
    one = Gaussian(each.mean[0], each.precision[0])
    m,p = each.of(slice(1, 3))
    assert torch.equal(m, each.mean[1:3]) and torch.equal(p, each.precision[1:3])
    m,p = one.of(slice(1, 3))
    assert torch.equal(m, one.mean) and torch.equal(p, one.precision)
    torch.testing.assert_close(each.cov() @ each.precision, torch.eye(3).expand(5, 3, 3), atol=1e-4, rtol=1e-4)

# --- sums and products

def test_sums_and_precisions_are_those_of_a_loop():
    rows,cols,w = ratings()
    g,v,prior = group_ratings(rows, cols, 9),normal(7, 3),spd(3)
    table,w = normal(7, 5, seed=1),w[g.order]
    want = torch.stack([sum([w[j] * table[g.cols[j]] for j in range(60) if g.rows()[j] == r], torch.zeros(5)) for r in range(9)])
    torch.testing.assert_close(_sums(g, table, w), want)
    assert _sums(group_ratings([], [], 4), table, w[:0]).shape == (4, 5)
    plain = torch.stack([sum([w[j] * torch.outer(v[g.cols[j]], v[g.cols[j]]) for j in range(60) if g.rows()[j] == r], prior) for r in range(9)])
    for cache in (1, 21, 22, 42, 2**20): torch.testing.assert_close(row_precisions(g, v, w, prior, cache), plain)
    torch.testing.assert_close(row_precisions(g, torch.cat([v, normal(100, 3)]), w, prior), plain) # more columns than ratings
    few = RatingsCSR(g.order[:int(g.starts[3])], g.cols[:int(g.starts[3])], g.starts[:4])
    torch.testing.assert_close(row_precisions(few, v, w[:len(few.cols)], prior), plain[:3])

def test_a_row_with_very_many_ratings():
    n = 2**18 + 1000
    g = group_ratings(np.repeat([0, 1], [n, 5]), np.arange(n + 5) % 50, 2)
    v = normal(50, 2)
    w = torch.full((n + 5,), 1e-3)
    counts = torch.bincount(g.cols[:n], minlength=50).double()
    want = (v.double() * counts[:, None] * 1e-3).T @ v.double()
    torch.testing.assert_close(row_precisions(g, v, w, torch.eye(2))[0].double(), want + torch.eye(2), rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(row_precisions(g, v, w, torch.eye(2))[1], torch.eye(2) + 1e-3 * v[g.cols[n:]].T @ v[g.cols[n:]])

@pytest.mark.parametrize('n', [5, 2**14, 2**14 + 3, 40_000])
def test_products_of_pairs(n):
    x,y,g = normal(1200, 3),normal(1100, 3, seed=1),torch.Generator().manual_seed(2)
    rows,cols = torch.randint(1200, (n,), generator=g),torch.randint(1100, (n,), generator=g)
    torch.testing.assert_close(dots(x, rows, y, cols), (x[rows] * y[cols]).sum(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(dots(x[:9], rows % 9, y[:7], cols % 7), (x[rows % 9] * y[cols % 7]).sum(1), rtol=1e-4, atol=1e-5)

def test_variances_of_products():
    v,each,rows = normal(11, 3),spd(4, 3),torch.arange(11) % 4
    want = torch.stack([a @ each[r] @ a for a,r in zip(v, rows)])
    for budget in (1, 9, 20, 2**22): torch.testing.assert_close(quadratic_form(v, each, rows, budget), want)
    torch.testing.assert_close(quadratic_form(v[:4], each), torch.stack([a @ c @ a for a,c in zip(v, each)]))
    torch.testing.assert_close(quadratic_form(v, each[0]), torch.stack([a @ each[0] @ a for a in v]))
    assert len(quadratic_form(v[:0], each, rows[:0])) == 0

def test_a_one_where_the_bias_was():
    x = normal(4, 3)
    assert torch.equal(augment(x)[:, :2], x[:, :2]) and torch.equal(augment(x)[:, 2], torch.ones(4))

@pytest.mark.parametrize('n,k', [(50, 3), (9, 1), (4, 6)])
def test_spread_of_vectors(n, k):
    x,cov = normal(n, k) * 2 + 1,spd(k)
    for more in (0., cov):
        spread = np.cov(x.numpy().T).reshape(k, k) + np.asarray(more)
        want = spread + 1e-3 * spread.diagonal().mean() * np.eye(k)
        got = gaussian_of(x, more)
        assert np.allclose(got.mean, x.mean(0), atol=1e-5)
        assert np.allclose(torch.linalg.inv(got.precision.double()), want, rtol=2e-3, atol=1e-3 * want.max())
    assert gaussian_of(torch.zeros(5, 2)).precision.isfinite().all() # all alike

# --- factors that are hard to come by

def test_factors_where_float32_fails():
    good,bad = spd(3),torch.ones(3, 3) * 1e4 + torch.diag(torch.tensor([0., 1e-4, 1e-4]))
    worst = torch.ones(3, 3)
    assert (torch.linalg.cholesky_ex(torch.stack([bad, worst]))[1] > 0).any()
    for p in (good, bad, worst, torch.stack([good, bad, worst, good])):
        c = cholesky(p)
        assert c.dtype == p.dtype and c.shape == p.shape and torch.equal(c, c.tril())
        torch.testing.assert_close(c @ c.mT, p, rtol=1e-3, atol=1e-3)
    mixed = cholesky(torch.stack([good, worst]))
    assert torch.equal(mixed[0], cholesky(good)) and torch.equal(cholesky(worst), mixed[1])
    assert (cholesky(worst).double() @ cholesky(worst).double().mT - worst.double()).abs().max() < 1e-5 # no more added than is needed
    slightly = torch.diag(torch.tensor([1., 1., -.05])) # a tenth of the mean diagonal mends it
    assert cholesky(slightly).isfinite().all()

@pytest.mark.parametrize('p,words', [(-torch.eye(3), 'not positive definite'), (torch.stack([torch.eye(3), -torch.eye(3)]), 'not positive definite'), (torch.full((2, 2), float('nan')), 'not finite'), (torch.stack([torch.eye(2), torch.eye(2) * float('inf')]), 'not finite')])
def test_what_has_no_factor_says_so(p, words):
    with pytest.raises(ValueError, match=f'precision: {words}'): cholesky(p)

# --- blocks

@pytest.mark.parametrize('budget', [1, 500, 3000, 2**25])
@pytest.mark.parametrize('few', [-1, 4])
def test_blocks_hold_every_row_once_and_stay_within_the_budget(budget, few):
    rng = np.random.default_rng(0)
    rows = np.repeat(np.arange(80), np.sort(rng.integers(0, 12, 80)))
    g,k,seen = group_ratings(rows, rng.integers(9, size=len(rows)), 80),4,[]
    lengths = g.starts.diff().tolist()
    blocks = [*_blocks(g, k, few, budget)]
    for part,at,b,short in blocks:
        here = [*range(80)[part]]
        most = max(lengths[r] for r in here)
        seen += here
        assert b.starts[0] == 0 and b.starts.diff().tolist() == [lengths[r] for r in here]
        assert torch.equal(b.cols, g.cols[at]) and torch.equal(b.order, g.order[at])
        assert short == (lengths[here[0]] <= few) and (not short or most <= few)
        assert len(here) == 1 or len(here) * (8 * k * most if short else 4 * k * k) <= budget
        longest = lengths[here[0]] * 5 // 4 + 1
        if short: assert most <= longest # nearly as many, so that little is padded
        end = [j for j in range(80) if lengths[j] > min(few, longest)][:1] if short else []
        assert len(here) == min((end or [80])[0] - here[0], max(1, budget // (8 * k * longest if short else 4 * k * k))) # as many as the budget holds
    assert seen == list(range(80))
    if budget == 2**25: assert len(blocks) <= (1 if few < 0 else 6)

def test_rows_in_the_order_of_their_number():
    rng = np.random.default_rng(1)
    rows,cols = rng.integers(0, 70, 300),rng.integers(0, 9, 300)
    g,one,each = group_ratings(rows, cols, 70),Gaussian(torch.zeros(3), torch.eye(3)),Gaussian(torch.zeros(3), torch.eye(3).expand(70, 3, 3))
    s,order,few = _by_length(g, one, 3)
    n = g.starts.diff()
    assert few == 3 and order.tolist() == sorted(range(70), key=lambda r: (int(n[r]), r)) and torch.equal(s.starts.diff(), n[order]) and s.starts[0] == 0
    assert s.cols.tolist() == [c for r in order.tolist() for c in g.cols[g.starts[r]:g.starts[r+1]].tolist()]
    assert cols[s.order].tolist() == s.cols.tolist()
    for g,prior in ((g, each), (group_ratings(rows % 9, cols, 9), one)): assert _by_length(g, prior, 3) == (g, None, -1)

def test_both_ways_to_a_step():
    rows,cols,w = ratings()
    g,v,prior = group_ratings(rows, cols, 9),normal(7, 3),spd(3)
    w,d = w[g.order],normal(9, 3, seed=5)
    want = torch.linalg.solve(row_precisions(g, v, w, prior), d[..., None])[..., 0]
    torch.testing.assert_close(_steps_by_rating(g, v, prior)(w)(d), want, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(_steps_by_vector(g, v, prior)(w)(d), want, rtol=1e-3, atol=1e-4)

@pytest.mark.parametrize('row_count', [9, 80])
def test_samples_lie_around_the_mean_by_the_factor(row_count):
    "The same chance, drawn and solved row by row"
    rows,cols,w = ratings(row_count)
    g,v,prior,y = group_ratings(rows, cols, row_count),normal(7, 3),Gaussian(normal(3), spd(3)),normal(60)
    ask = lambda what, **kw: posterior(g, v, y, prior, w, what, **kw)
    full = ask('full')
    got = ask('sample', generator=torch.Generator().manual_seed(3))
    z = torch.randn(row_count, 3, 1, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(got, full.mean + torch.linalg.solve_triangular(cholesky(full.precision).mT, z, upper=True)[..., 0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(ask('mean'), full.mean, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(posterior(g, v, y, prior, 2.).mean(), posterior(g, v, y, prior, torch.full((60,), 2.)).mean())

# --- the sigmoid

@pytest.mark.parametrize('y_range', [None, (1, 5), (-2., 3.)])
def test_energy_and_its_gradient(y_range):
    rows,cols,w = ratings()
    g,v,prior,m = group_ratings(rows, cols, 9),normal(7, 3),spd(3),normal(3, seed=2)
    off,y,x = normal(60, seed=3),normal(60, seed=4) + 3,normal(9, 3, seed=5).requires_grad_()
    energy,gradient,weights = _energy(x, g, v, off, y, w, m, prior, y_range)
    fit = link_slope((x[g.rows()] * v[g.cols]).sum(1) + off, y_range)[0]
    want = ((x - m) @ prior * (x - m)).sum(1) / 2 + torch.zeros(9).index_add(0, g.rows(), w * (fit - y)**2) / 2
    torch.testing.assert_close(energy, want)
    torch.testing.assert_close(gradient, torch.autograd.grad(want.sum(), x)[0], rtol=1e-3, atol=1e-3)
    raw = ((x[g.rows()] * v[g.cols]).sum(1) + off).detach().requires_grad_()
    slope = torch.autograd.grad(link_slope(raw, y_range)[0].sum(), raw)[0]
    torch.testing.assert_close(weights, w * slope**2, rtol=1e-3, atol=1e-4)

@pytest.mark.parametrize('often', [True, False])
@pytest.mark.parametrize('scale', [.3, 3.])
def test_the_walk_ends_where_the_slope_is_nothing(often, scale):
    "From far off too, and no step leads uphill"
    rows,cols,w = ratings()
    g,v,prior = group_ratings(rows, cols, 9),normal(7, 3) * scale,spd(3)
    problem = (g, v, normal(60, seed=3), torch.rand(60, generator=torch.Generator().manual_seed(4)) * 4 + 1, w, torch.zeros(3), prior, (.5, 5.5))
    factor = (_steps_by_rating if often else _steps_by_vector)(g, v, prior)
    start = normal(9, 3, seed=6) * 3
    x,weights = _newton(start, problem, factor, often)
    energy,gradient,again = _energy(x, *problem)
    step = _steps_by_vector(g, v, prior)(again)(gradient)
    assert ((gradient * step).sum(1) / 2 < 1e-3 + 1e-4 * energy).all() and (energy <= _energy(start, *problem)[0] * (1 + 1e-5)).all()
    torch.testing.assert_close(weights, again)
    far = [_energy(_newton(start, problem, factor, often, steps=s)[0], *problem)[0] for s in range(6)]
    assert all((b <= a * (1 + 1e-4)).all() for a,b in zip(far, far[1:])) and (far[1] < far[0]).any()

@pytest.mark.parametrize('row_count', [9, 80])
@pytest.mark.parametrize('col_count', [7, 500])
@pytest.mark.parametrize('budget', [2**25, 1])
def test_precision_under_a_sigmoid_is_that_of_the_tangents(row_count, col_count, budget):
    rows,cols,w = ratings(row_count, col_count)
    g,v,prior = group_ratings(rows, cols, row_count),normal(col_count, 3),Gaussian(normal(3) * .3, spd(3))
    off,y = normal(60, seed=3),torch.rand(60, generator=torch.Generator().manual_seed(4)) * 4 + 1
    got = laplace_posterior(g, v, off, y, prior, w, (.5, 5.5), budget=budget)
    rows,cols = (torch.as_tensor(o) for o in (rows, cols))
    slope = link_slope((got.mean[rows] * v[cols]).sum(1) + off, (.5, 5.5))[1]
    want = torch.stack([sum([w[j] * slope[j]**2 * torch.outer(v[cols[j]], v[cols[j]]) for j in range(60) if rows[j] == r], prior.precision) for r in range(row_count)])
    torch.testing.assert_close(got.precision, want, rtol=1e-2, atol=1e-2)
    mean = laplace_posterior(g, v, off, y, prior, w, (.5, 5.5), what='mean', start=got.mean)
    torch.testing.assert_close(mean, got.mean, rtol=.05, atol=.05)
    none = torch.bincount(rows, minlength=row_count) == 0
    torch.testing.assert_close(got.mean[none], prior.mean.expand(int(none.sum()), 3))
    plain = laplace_posterior(g, v, off, y, prior, w, None, what='mean')
    torch.testing.assert_close(plain, posterior(g, v, y - off, prior, w, 'mean'))

# --- a likelihood

def likelihood(y_range=(1, 5), noise=.7, known=True):
    at = torch.tensor([-1, 1, -1, 0])
    return RowLikelihood(augment(normal(4, 3)), normal(4, seed=1) * .5, noise, y_range, *(() if known else (spd(2, 3, seed=7) * .1, at)))

@pytest.mark.parametrize('y_range', [(1, 5), None])
def test_scores_ratings_and_second_moment(y_range):
    like,x = likelihood(y_range),normal(6, 3, seed=2)
    raw = torch.stack([torch.stack([a @ v + o for v,o in zip(like.vectors, like.offsets)]) for a in x])
    cols = torch.tensor([3, 0, 1, 1, 2, 3])
    torch.testing.assert_close(like.linear(x), raw); torch.testing.assert_close(like.linear(x, cols), raw[range(6), cols])
    torch.testing.assert_close(like.mean(x), link_slope(raw, y_range)[0]); torch.testing.assert_close(like.mean(x, cols), link_slope(raw, y_range)[0][range(6), cols])
    torch.testing.assert_close(like.second_moment, sum(torch.outer(v, v) for v in like.vectors) / 4)
    assert len(like) == 4
    moved = replace_noise(like, torch.ones(4)).to('cpu')
    assert moved.noise.tolist() == [1] * 4 and like.to('cpu').noise == .7 and moved.y_range == y_range

def replace_noise(like, noise): return RowLikelihood(like.vectors, like.offsets, noise, like.y_range, like.spread, like.spread_at)

@pytest.mark.parametrize('y_range', [(1, 5), None])
@pytest.mark.parametrize('noise', [.7, torch.tensor([.1, .2, .3, .4])])
@pytest.mark.parametrize('known', [True, False])
@pytest.mark.parametrize('place', ['one for all', 'one a pair', 'by row'])
def test_variances_are_those_of_a_loop(y_range, noise, known, place):
    "What is not known of the row, of the column, of both, and noise"
    like,x,cols = likelihood(y_range, noise, known),normal(6, 3, seed=2),torch.tensor([3, 0, 1, 1, 2, 3])
    cov,rows = {'one for all': (spd(3) * .2, None), 'one a pair': (spd(6, 3) * .2, None), 'by row': (spd(2, 3) * .2, torch.tensor([0, 1, 1, 0, 0, 1]))}[place]
    own,column = [],[]
    for j,c in enumerate(cols.tolist()):
        slope = float(like.link(like.linear(x[j:j+1], cols[j:j+1]))[1])
        n = float(noise[c] if isinstance(noise, torch.Tensor) else noise)
        mine = cov if place == 'one for all' else cov[j if rows is None else rows[j]]
        other = torch.zeros(3, 3) if known or like.spread_at[c] < 0 else like.spread[like.spread_at[c]]
        a = torch.cat([x[j, :-1], torch.ones(1)])
        column.append(n + slope**2 * float(a @ other @ a))
        own.append(column[-1] + slope**2 * float(like.vectors[c] @ mine @ like.vectors[c] + (mine[:-1, :-1] * other[:-1, :-1]).sum()))
    torch.testing.assert_close(like.noise_at(x, cols), torch.tensor(column), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(like.variance(x, cols, cov, rows), torch.tensor(own), rtol=1e-4, atol=1e-5)
    if isinstance(noise, torch.Tensor): assert noise.tolist() == pytest.approx([.1, .2, .3, .4]) # as it was

def test_a_likelihood_every_column_of_which_is_only_believed():
    like = RowLikelihood(augment(normal(4, 3)), normal(4), .5, None, spd(4, 3))
    x,cols = normal(2, 3, seed=1),torch.tensor([3, 1])
    a = augment(x)
    torch.testing.assert_close(like.noise_at(x, cols), .5 + torch.stack([a[0] @ like.spread[3] @ a[0], a[1] @ like.spread[1] @ a[1]]))

def test_columns_of_which_only_a_belief_is_there():
    like,belief = likelihood(),Gaussian(normal(3, 3, seed=9), spd(3, 3))
    at = torch.tensor([-1, 2, -1, -1, 0, 1]) # of the four, one is believed anew; two come after them
    wide = like.widened(belief, at)
    assert len(wide) == 6 and wide.noise == like.noise and torch.equal(wide.spread_at, at)
    torch.testing.assert_close(wide.spread, belief.cov())
    for c,p in enumerate(at.tolist()):
        assert torch.equal(wide.vectors[c], like.vectors[c] if p < 0 else torch.cat([belief.mean[p, :-1], torch.ones(1)]))
        assert wide.offsets[c] == (like.offsets[c] if p < 0 else belief.mean[p, -1])
    assert len(like) == 4 and len(like.widened(belief, at[:4])) == 4

@pytest.mark.parametrize('noise,known', [(.5, True), (torch.tensor([.1, .5, 1., 2.]), True), (.5, False)])
@pytest.mark.parametrize('row_count', [None, 3])
def test_a_condition_is_the_plain_posterior(noise, known, row_count):
    like = likelihood(None, noise, known)
    prior = Gaussian(normal(3, seed=3), spd(3)) if row_count else Gaussian(normal(3, 3, seed=3), spd(3, 3))
    rows,cols,y = [2, 0, 0, 2, 0],[3, 1, 0, 0, 2],[3., 4, 1, 5, 2]
    got = like.condition(prior, rows, pd.Series(cols), np.array(y), row_count)
    for r in range(3):
        m,p = (prior.mean, prior.precision) if row_count else (prior.mean[r], prior.precision[r])
        mine = [j for j in range(5) if rows[j] == r]
        a,h = p.clone(),p @ m
        for j in mine:
            v,w = like.vectors[cols[j]],1 / float(like.noise_at(m[None], torch.tensor([cols[j]])))
            a,h = a + w * torch.outer(v, v),h + w * (y[j] - like.offsets[cols[j]]) * v
        torch.testing.assert_close(got.precision[r], a, rtol=1e-3, atol=1e-3); torch.testing.assert_close(got.mean[r], torch.linalg.solve(a, h), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(like.condition(prior, rows, cols, y, row_count, 'mean'), got.mean, rtol=1e-3, atol=1e-3)
