"Statistics of tables beside plain, slow versions, on hand-made tables and on faults"
import math
import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from scipy.stats import spearmanr
from fastcf.watch.stats import alignment, bad_rows, drift, effective_rank, flat, hubness, information_abundance, mean_cosine, moments, never_updated, popularity_correlation, quantiles, row_norms, sample_rows, singular_values, stopped_moving, table_stats, uniformity, update_ratio, variance_share

tables = st.builds(lambda n,k,seed,scale: torch.randn(n, k, generator=torch.Generator().manual_seed(seed)) * scale,
                   st.integers(2, 40), st.integers(2, 9), st.integers(0, 10**6), st.sampled_from([1e-3, 1., 50.]))

def close(a, b, tol=1e-4): assert a == pytest.approx(b, rel=tol, abs=tol), (a, b)

@settings(max_examples=40, deadline=None)
@given(tables)
def test_spectrum_beside_numpy(t):
    x = t.double().numpy()
    s = np.linalg.svd(x, compute_uv=False)
    s = np.r_[s, np.zeros(t.shape[1] - len(s))]
    got = singular_values(t).numpy()
    assert np.allclose(got, s, atol=2e-7 * s[0] + 1e-12) or np.allclose(got, s, rtol=1e-4, atol=1e-5 * s[0])
    p = s[s > 1e-6 * s[0]] / s.sum()
    close(effective_rank(t), math.exp(-sum(o * math.log(o) for o in p)), 1e-3)
    close(information_abundance(t), s.sum() / s.max(), 1e-3)
    c = np.linalg.svd(x - x.mean(0), compute_uv=False) ** 2
    for m in (1, 2): close(variance_share(t, m), c[:m].sum() / c.sum())

@settings(max_examples=40, deadline=None)
@given(tables)
def test_angles_beside_loops(t):
    u = [r / math.sqrt(sum(o * o for o in r)) for r in t.double().numpy()]
    pairs = [(a, b) for i,a in enumerate(u) for j,b in enumerate(u) if i != j]
    close(mean_cosine(t), sum(float(a @ b) for a,b in pairs) / len(pairs))
    close(uniformity(t), math.log(sum(math.exp(-2 * float((a - b) @ (a - b))) for a,b in pairs) / len(pairs)), 1e-3)
    close(alignment(t, t.flip(0)), sum(float((a - b) @ (a - b)) for a,b in zip(u, u[::-1])) / len(u), 1e-3)
    k = min(3, len(u) - 1)
    times = np.zeros(len(u))
    for i,a in enumerate(u):
        for j in sorted((j for j in range(len(u)) if j != i), key=lambda j: -float(a @ u[j]))[:k]: times[j] += 1
    d = times - times.mean()
    close(hubness(t, neighbours=3), (d ** 3).mean() / (d ** 2).mean() ** 1.5 if d.any() else 0., 1e-3)

@settings(max_examples=40, deadline=None)
@given(tables, st.integers(0, 100))
def test_moves_and_popularity_beside_loops(t, seed):
    b = t + torch.randn(t.shape, generator=torch.Generator().manual_seed(seed + 10**7)) * t.std()
    b[0] = t[0] * .3
    cos = [float(x @ y) / float(x.norm() * y.norm()) for x,y in zip(t.double(), b.double())]
    got = drift(t, b)
    close(got[0], sum(cos) / len(cos), 1e-3)
    close(got[1], float((b - t).norm() / t.norm()), 1e-3)
    close(update_ratio(t, b), got[1], 1e-3)
    aside = [math.sqrt(max(0., 1 - c * c)) for c in cos] # of two columns, a row may by chance have moved straight along itself
    assert all(o == (a <= 1e-4) for o,a in zip(never_updated(t, b).tolist(), aside) if a < 1e-6 or a > 1e-3)
    assert never_updated(t, b)[0]
    half = t.clone()
    half[::2] *= 1.01
    assert stopped_moving(t, half).tolist() == [i % 2 == 1 for i in range(len(t))]
    counts = torch.randint(0, 9, (len(t),), generator=torch.Generator().manual_seed(seed))
    ok = counts > 0
    if ok.sum() > 2 and len(counts[ok].unique()) > 1: close(popularity_correlation(row_norms(t), counts), spearmanr(t.norm(dim=1)[ok], counts[ok].log()).statistic)

def test_norms_and_quantiles():
    t = torch.tensor([[3., 4.], [0., 0.], [6., 8.]])
    assert row_norms(t).tolist() == [5., 0., 10.]
    assert quantiles(torch.tensor([4., 1., 3., 2.]), [0, .5, 1]).tolist() == [1., 2.5, 4.]
    assert row_norms(t.half()).dtype == torch.float32

@pytest.mark.parametrize('rank', [1, 2, 5])
def test_a_table_of_known_rank(rank):
    g = torch.Generator().manual_seed(0)
    t = torch.linalg.qr(torch.randn(300, rank, generator=g))[0] @ torch.linalg.qr(torch.randn(8, rank, generator=g))[0].T
    close(effective_rank(t), rank, 1e-2)
    close(information_abundance(t), rank, 1e-2)

def test_cones_and_spheres():
    one = torch.ones(20, 3) * torch.arange(1, 21)[:, None]
    close(mean_cosine(one), 1)
    close(uniformity(one), 0)
    close(mean_cosine(torch.cat([torch.eye(4), -torch.eye(4)])), -1 / 7)
    assert alignment(torch.eye(3), -torch.eye(3)) == pytest.approx(4)

def test_a_hub_is_found():
    g = torch.Generator().manual_seed(1)
    t = torch.randn(400, 40, generator=g)
    assert hubness(t[:, :3]) < .5
    t[:4] = t.mean(0) # what lies in the middle is near to all
    assert hubness(t + 1) > 2

def test_saturation():
    p = torch.sigmoid(torch.linspace(-6, 6, 1001)) * 4 + 1
    raw = torch.linspace(-6, 6, 1001).double()
    slope = torch.sigmoid(raw) * (1 - torch.sigmoid(raw))
    assert (flat(p, (1, 5)) == (slope < .025)).all()

def test_bad_rows():
    t = torch.ones(5, 3)
    t[1, 0],t[3, 1],t[3, 2] = float('inf'),float('nan'),float('-inf')
    rows,nans,infs = bad_rows(t)
    assert (rows.tolist(), nans, infs) == ([1, 3], 1, 2)
    huge = torch.full((2, 3), 3e38)
    assert bad_rows(huge)[0].tolist() == [] # too long for its norm, yet every entry is a number

def test_large_tables_are_sampled_with_a_seed_and_say_so():
    t = torch.randn(70_000, 4, generator=torch.Generator().manual_seed(0))
    counts = torch.arange(70_000)
    got = [table_stats(t, start=t[o], rows=o, counts=counts, seed=s) for s in (0, 0, 1) for o in [sample_rows(len(t), 1000, s)]]
    assert got[0][0] == got[1][0] and got[0][0]['uniformity'] != got[2][0]['uniformity']
    assert got[0][1] == {'uniformity', 'hubness', 'norm_popularity', 'drift', 'drift_cosine', 'never_updated'}
    close(got[0][0]['norm_mean'], t.norm(dim=1).mean().item())
    close(effective_rank(t), effective_rank(torch.linalg.svdvals(t)))
    assert table_stats(t[:500], start=t[:500])[1] == set()
    assert sample_rows(5, 9).tolist() == [0, 1, 2, 3, 4] and len(sample_rows(50, 9).unique()) == 9

@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(dtype):
    t = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    a,b = (table_stats(o, start=o * .5)[0] for o in (t, t.to(dtype)))
    for k in ('norm_mean', 'effective_rank', 'mean_cosine', 'uniformity', 'drift'): assert a[k] == pytest.approx(b[k], rel=.02, abs=.02), k

@pytest.mark.parametrize('t', [torch.zeros(4, 3), torch.full((4, 3), float('nan')), torch.ones(1, 3), torch.ones(4, 1), torch.tensor([[1., float('nan')], [2., 3.], [4., -1.]])])
def test_odd_tables_give_numbers_or_nan(t):
    before = t.clone()
    stats,_,_ = table_stats(t, start=t.clone(), last=t.clone(), counts=torch.arange(len(t)))
    assert all(isinstance(v, (int, float)) for v in stats.values()) and stats['nan_count'] == t.isnan().sum()
    assert torch.equal(before.nan_to_num(7), t.nan_to_num(7))

def test_bad_rows_do_not_spoil_the_rest():
    t = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    sick = torch.cat([t, torch.full((1, 4), float('nan'))])
    for f in (effective_rank, information_abundance, variance_share, mean_cosine, uniformity, hubness): close(f(sick), f(t))
    assert moments(sick).count == 50
