"The sampler against its own model, and against a plain slow version; the callbacks against fastai's"
import math
import numpy as np, pandas as pd, pytest, torch
from scipy import stats
from fastcf.sampler import Priors, Sampler

torch.set_num_threads(1)

# --- the sampler is a sampler of its model

TIGHT = Priors(spread=.15, freedom=6., noise=(5., 5.), noise_shape=4., block=(4., 4.), effect=(5., 2.)) # with moments, so that averages settle

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
        if fault == 'noise': s.priors = Priors(**{**vars(TIGHT), 'noise': (7., 5.)})
        elif fault == 'freedom': s.user.priors = Priors(**{**vars(TIGHT), 'freedom': 9.})
        else:
            hyper = s.item.draw_hyper
            def shifted(): hyper(); s.item.mu = s.item.mu + .15
            s.item.draw_hyper = shifted
    z = geweke(alter, 1000)
    assert (2 * stats.t.sf(abs(z), 24)).min() * len(z) < .001
