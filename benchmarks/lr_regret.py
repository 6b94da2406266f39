"""What a suggested learning rate costs: its RMSE less the best of a grid of thirteen rates, for `find_lr` and fastai's four.

`python -m benchmarks.lr_regret` takes about half an hour on two cores. It judges 34 configurations that had no part in the design:
MovieLens 100K (90/10) and two simulated sets, batches of 64 to 4,096 rows, 10 to 100 factors, 3 to 10 epochs; and 12 of the 152
that the rule of `find_lr` was fitted on (`--design 152` for all of them; on MovieLens these never saw the 10,000 test rows).
Every rate is tried by whole fits with the same seeds as the grid, in a plain loop that is first held against `learn.fit_one_cycle`.
Each finder is asked twice, by learners of different seeds. `groups` is `find_lr`'s rate for the factors and twice that for the biases.
"""
import argparse, contextlib, functools, io, math, tempfile, time, warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
import numpy as np, pandas as pd, torch
from fastai.callback.schedule import SuggestionMethod
from fastai.data.transforms import IndexSplitter
from fastcf.data.sources import load_ml100k, simulate_ratings
from fastcf.learn.learner import cf_learner
from fastcf.data.loaders import CFDataLoaders
import fastcf.learn.lr_finder # brings find_lr

LRS = np.geomspace(1e-3, 2e-1, 13)
METHODS = SuggestionMethod.Valley, SuggestionMethod.Slide, SuggestionMethod.Minimum, SuggestionMethod.Steep
SETS = dict(quiet=dict(user_count=2000, item_count=500, rating_count=60_000, noise=.7, skew=1., seed=101), noisy=dict(user_count=1500, item_count=3000, rating_count=80_000, noise=1., factor_count=8, seed=202))

def judged():
    "Every set with every batch size and length, but for the two that would take longest; factors take turns"
    return [dict(group='set aside', name=name, spec=SETS.get(name), bs=bs, factors=(10, 50, 100)[(i+j+d) % 3], epochs=epochs, wd=(.1, .2)[(i+j) % 2], y_range=(.5, 5.5), seed=10*i+j)
            for d,name in enumerate(('ml100k', *SETS)) for i,bs in enumerate((64, 256, 1024, 4096)) for j,epochs in enumerate((3, 5, 10)) if d == 0 or bs > 64 or epochs < 10]

def design(j):
    "One of the configurations that the rule was fitted on; every fourth is a part of MovieLens' training rows"
    rng,spec = np.random.default_rng(1000+j),None
    if j % 4:
        u,i = (int(o) for o in np.exp(rng.uniform(np.log(400), np.log(4000), 2)))
        n = min(int(np.exp(rng.uniform(np.log(2e4), np.log(1.2e5)))), u*i//6)
        spec = dict(user_count=u, item_count=i, rating_count=n, factor_count=int(rng.integers(2, 11)), seed=j, noise=float(rng.uniform(.5, 1.2)), skew=float(rng.uniform(.7, 1.4)))
    return dict(group='design', name='simulated' if spec else 'ml100k part', spec=spec, bs=int(rng.choice([64, 256, 256, 1024, 1024, 4096])), factors=int(rng.choice([10, 50, 100])), epochs=int(rng.choice([3, 5, 10])),
                wd=float(rng.choice([.1, .2])), y_range=[None, (.5, 5.5)][int(rng.random() < .65)], seed=100*j)

def split(c):
    "Ratings, and positions of the rows to test on"
    df = simulate_ratings(**c['spec']) if c['spec'] else load_ml100k().ratings
    p = np.random.default_rng(42).permutation(len(df))
    if c['name'] == 'ml100k part': return df.iloc[p[:90_000]].reset_index(drop=True),np.arange(81_000, 90_000)
    return df,p[int(.9*len(df)):]

def new_learner(c, data, seed):
    dls = CFDataLoaders.from_df(data[0], splitter=IndexSplitter(data[1]), bs=c['bs'], seed=seed, device='cpu', drop_last=True, path=tempfile.gettempdir())
    return cf_learner(dls, c['factors'], c['y_range'], wd=c['wd'], seed=seed)

def cos(a, b, pos): return a + (1 + math.cos(math.pi * (1 - pos))) * (b - a) / 2

def one_cycle(pos, lr):
    "Rate and momentum of `fit_one_cycle` at `pos` of the run"
    if pos < .25: return cos(lr/25, lr, pos/.25),cos(.95, .85, pos/.25)
    return cos(lr, lr/1e5, (pos-.25)/.75),cos(.85, .95, (pos-.25)/.75)

def fitted_rmse(tables, order, c, test, lr, bias_ratio=1.):
    "The test RMSE (predictions clipped to 1 to 5) after a one-cycle fit, with gradients by hand: the same arithmetic as `learn.fit_one_cycle`, ten times as fast"
    p,y = [o.clone() for o in tables],c['y_range']
    g,m,v = ([torch.zeros_like(o) for o in p] for _ in range(3))
    t = [torch.zeros(()) for _ in p]
    def score(users, items):
        raw = (p[0][users] * p[1][items]).sum(1) + p[2][users, 0] + p[3][items, 0]
        return (raw, 1.) if y is None else ((s := torch.sigmoid(raw)) * (y[1]-y[0]) + y[0], s * (1-s) * (y[1]-y[0]))
    for step,(users,items,ratings) in enumerate(order):
        rate,mom = one_cycle(step/len(order), lr)
        pred,slope = score(users, items)
        d = ((pred - ratings) * slope * (2/len(ratings)))[:, None] # [b, 1]
        for o in g: o.zero_()
        for o,at,val in zip(g, (users, items)*2, (d * p[1][items], d * p[0][users], d, d)): o.index_add_(0, at, val)
        for at,wd,ratio in ((slice(0, 2), c['wd'], 1.), (slice(2, 4), 0., bias_ratio)):
            for o in t[at]: o += 1
            torch._fused_adamw_(p[at], g[at], m[at], v[at], [], t[at], lr=rate*ratio, beta1=mom, beta2=.99, weight_decay=wd, eps=1e-5, amsgrad=False, maximize=False)
    pred = score(*test[:2])[0].clip(1, 5).nan_to_num(nan=5.)
    return float((pred - test[2]).square().mean().sqrt())

def start_of(learn, epochs):
    "First tables, the batches of all epochs, test rows"
    m,te = learn.model,learn.dls.valid_ds
    order = [b for _ in range(epochs) for b in learn.dls.train]
    return [o.weight.detach() for o in (m.user_weight, m.item_weight, m.user_bias, m.item_bias)],order,(te.users.long(), te.items.long(), te.ratings)

@contextlib.contextmanager
def quiet(learn):
    with contextlib.redirect_stdout(io.StringIO()),learn.no_bar(),learn.no_logging(),warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield

def suggestions(c, data, seed):
    "Rates by method, and the cost of ours"
    learn = new_learner(c, data, seed)
    with quiet(learn): found = learn.find_lr(epochs=c['epochs'], seed=seed)
    torch.manual_seed(seed)
    learn = new_learner(c, data, seed)
    with quiet(learn): theirs = learn.lr_find(show_plot=False, suggest_funcs=METHODS)
    return dict(find_lr=found.lr, **theirs._asdict()),found.cost

def measure(c):
    "Regrets of one configuration: a row for each method and seed"
    torch.set_num_threads(1)
    start,data,seeds = time.time(),split(c),range(c['seed']+1, c['seed'] + (3 if c['bs'] == 64 else 4))
    starts = [start_of(new_learner(c, data, s), c['epochs']) for s in seeds]
    rmse = functools.lru_cache(None)(lambda lr, ratio=1.: np.array([fitted_rmse(a, b, c, test, lr, ratio) for a,b,test in starts]))
    grid = np.stack([rmse(lr) for lr in LRS]) # [rates, seeds]
    at = int(grid.mean(1).argmin())
    noise = (grid[at] - grid[max(at-1, 0)]).std(ddof=1) / len(seeds)**.5
    rows = []
    for s in (501, 502):
        lrs,cost = suggestions(c, data, c['seed']+s)
        tries = [(name, lr, 1.) for name,lr in lrs.items()] + [('groups', lrs['find_lr'], 2.)]
        rows += [dict(method=name, lr=lr, regret=rmse(lr, ratio).mean() - grid.mean(1)[at], cost=cost) for name,lr,ratio in tries]
    keys = {k: c[k] for k in ('group', 'name', 'bs', 'factors', 'epochs', 'wd')}
    return pd.DataFrame(rows).assign(**keys, best_lr=LRS[at], best_rmse=grid.mean(1)[at], noise=noise, seconds=time.time() - start)

def check_loop():
    "The largest difference between the plain loop's RMSE and that of `learn.fit_one_cycle`"
    diffs = []
    for c in (dict(judged()[0], bs=1024, epochs=2), dict(design(2), epochs=2)):
        data = split(c)
        plain = fitted_rmse(*(o := start_of(new_learner(c, data, 1), c['epochs']))[:2], c, o[2], 8e-3)
        learn = new_learner(c, data, 1)
        with quiet(learn): learn.fit_one_cycle(c['epochs'], 8e-3)
        pred = learn.model(*o[2][:2]).detach().clip(1, 5)
        diffs.append(abs(plain - float((pred - o[2][2]).square().mean().sqrt())))
    return max(diffs)

def main(design_count=12, workers=2, out=None):
    torch.set_num_threads(1)
    print(f'plain loop and fit_one_cycle differ by {check_loop():.1e} RMSE at most', flush=True)
    todo = judged() + [design(j) for j in np.linspace(0, 151, design_count).round().astype(int).tolist()]
    with ProcessPoolExecutor(workers, mp_context=get_context('spawn')) as pool:
        parts = []
        for o in as_completed([pool.submit(measure, c) for c in sorted(todo, key=lambda c: c['epochs'] / c['bs'])]):
            parts.append(o := o.result())
            if out: pd.concat(parts).to_csv(out, index=False)
            f = o.groupby('method', sort=False).agg(lr=('lr', 'first'), worst=('regret', 'max')).loc[['find_lr', 'valley']]
            print(*o[['group', 'name', 'bs', 'factors', 'epochs']].iloc[0], f"best {o.best_lr[0]:.4f} {o.best_rmse[0]:.4f}", *(f"{k} {v.lr:.4f} {v.worst:.4f}" for k,v in f.iterrows()), f"{o.seconds[0]:.0f} s", flush=True)
    df = pd.concat(parts, ignore_index=True)
    print(f"\nregret, RMSE; noise of a grid's point beside its neighbour {df.noise.mean():.4f}; find_lr cost {df.cost.max():.2f} epochs at most")
    for group,part in df.groupby('group'):
        print(f"\n{group}: {len(part.drop_duplicates(['name', 'bs', 'factors', 'epochs', 'best_rmse']))} configurations, each method asked twice")
        print(part.groupby('method', sort=False).regret.agg(['mean', 'median', 'max']).assign(within_6=part.groupby('method').regret.agg(lambda o: (o <= .006).mean())).to_string(float_format='%.4f'))
    print('\n' + df[df.group == 'set aside'].pivot_table(index='name', columns='method', values='regret', aggfunc=['mean', 'max']).to_string(float_format='%.4f'))
    return df

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--design', type=int, default=12, help='how many of the 152 configurations of the design')
    p.add_argument('--workers', type=int, default=2, help='processes')
    p.add_argument('--out', help='a CSV file for every single figure')
    a = p.parse_args()
    main(a.design, a.workers, a.out)
