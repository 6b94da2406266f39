"""Seconds until predictions of ML-100K's 90/10 split reach an RMSE of 0.92, 0.91 and 0.90: fastcf's ways of training and their peers.

`python -m benchmarks.time_to_quality` needs the extra `bench`. Each way is run from the start with several budgets of epochs or sweeps, as each has
a schedule that ends with the fit; what counts is the shortest run that gets there. Seconds are processor time of fitting on one thread, after one
short fit of each way that is not counted (compiled code is loaded then). Settings other than the budget are each way's defaults, or fastai's best
of eleven rates for `collab_learner`; where a way says *chosen*, they are the best of a few on the last 9,000 of the 90,000 rows that train, each with
the best of its budgets. implicit predicts preferences and not ratings, and takes a cell without a rating for a preference of 0: its ALS is given each
rating's deviation from damped means of user and item, whose sign is the preference and whose size is the confidence, and the means plus its score times
the best slope on those 9,000 rows are its predictions. `FusedSGD` stays above 0.90 with all settings that were tried: on those 9,000 rows its defaults have 0.902,
10, 20, 100 and 200 factors with the best of four decays each 0.908, 0.905, 0.903 and 0.905, other rates and decays 0.902 to 0.907, and the mean of three
seeds 0.901. Sweeps of Gibbs that start from four epochs of ALS have 0.898 after 20, sweeps alone 0.899 after 60. `--only fastcf` runs the ways
with that in their name, and keeps nothing. Also draws `time_to_quality.png`.
"""
import argparse, contextlib, io, itertools, os, sys, time, warnings
from functools import lru_cache
from pathlib import Path
import numpy as np, pandas as pd, torch
from fastai.collab import TabularCollab, collab_learner
from fastai.data.block import TransformBlock
from fastai.data.transforms import IndexSplitter
from fastai.tabular.core import Categorify, TabDataLoader
from fastcf.bayes.engines import ALS
from fastcf.learn.learner import cf_learner
from fastcf.scale.fused import FusedSGD
from benchmarks import keep
from benchmarks.accuracy import rmse
from benchmarks.training import Y, ml100k

LEVELS = .92, .91, .90

def learner_way(budget, bs=512, cbs=None, **kwargs):
    "A fit of a learner: one cycle of batches, or an engine's epochs"
    dls = ml100k(bs)[2]
    learn = cf_learner(dls, seed=0, **kwargs)
    start = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()), learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(budget, 5e-3) if cbs is None else learn.fit(budget, cbs=cbs())
        seconds = time.process_time() - start
        return seconds,rmse(learn.get_preds()[0].numpy(), dls.valid_ds.ratings.numpy())

def gibbs_way(budget, k=10, als=0):
    "Sweeps of which the last four fifths are averaged, after some epochs of alternating least squares"
    dls = ml100k()[2]
    learn,c,v = cf_learner(dls, factor_count=k, seed=0),dls.catalog,dls.valid_ds
    start = time.process_time()
    with learn.no_bar(), learn.no_logging():
        if als: learn.fit(als, cbs=ALS(8.))
        post = learn.sample_posterior(budget - budget // 5, max(1, budget // 5), seed=0)
    seconds = time.process_time() - start
    return seconds,rmse(post.predict(c.user[v.users.numpy()], c.item[v.items.numpy()]).prediction, v.ratings.numpy())

def fastai_way(budget, bs=64, dl_type=None):
    "As users meet it: its loader draws rows with replacement, some 63 % of them an epoch. `TabDataLoader` takes each row once"
    df,test,_ = ml100k()
    splits = IndexSplitter(test)(df) # from_df would split at random, whatever splitter it is given
    to = TabularCollab(df, [Categorify], ['user', 'item'], y_names=['rating'], y_block=TransformBlock(), splits=splits)
    dls = to.dataloaders(bs=bs, device=torch.device('cpu'), **({} if dl_type is None else dict(dl_type=dl_type)))
    assert len(dls.train_ds) == 90_000
    learn = collab_learner(dls, n_factors=50, y_range=Y)
    start = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()), learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(budget, 5e-3, wd=.1)
    seconds = time.process_time() - start
    with learn.no_bar(): preds,truth = learn.get_preds()
    return seconds,rmse(preds.numpy().ravel(), truth.numpy().ravel())

def frames(valid=False):
    "Rows to train on and to predict: of the 90/10 split, or of its training rows, whose last 9,000 are held out"
    df,test,_ = ml100k()
    train,p = df.drop(index=test),np.random.default_rng(42).permutation(len(df))
    return (df.iloc[p[:81_000]].sort_index(), df.iloc[p[81_000:90_000]]) if valid else (train, df.loc[test])

def grid(**axes): return [dict(zip(axes, values)) for values in itertools.product(*axes.values())]

@lru_cache
def chosen(way):
    "The settings of a way whose best budget is most accurate on held-out training rows"
    f,budgets,settings = CHOSEN[way]
    return min(settings, key=lambda kw: min(f(b, valid=True, **kw)[1] for b in budgets))

def surprise_way(budget, name='SVD', valid=False, **settings):
    import surprise
    train,held = frames(valid)
    data = surprise.Dataset.load_from_df(train[['user', 'item', 'rating']], surprise.Reader(rating_scale=(1, 5))).build_full_trainset()
    algo,start = getattr(surprise, name)(n_epochs=budget, random_state=0, **settings),time.process_time()
    algo.fit(data)
    seconds = time.process_time() - start
    return seconds,rmse([algo.predict(u, i).est for u,i in zip(held.user, held.item)], held.rating)

def cornac_way(budget, valid=False, **settings):
    from cornac.data import Dataset
    from cornac.models import MF
    train,held = frames(valid)
    data = Dataset.from_uir(list(train[['user', 'item', 'rating']].itertuples(index=False, name=None)), seed=0)
    model,start = MF(max_iter=budget, seed=0, **settings),time.process_time() # a seed means one thread
    model.fit(data)
    seconds = time.process_time() - start
    rows = zip(held.user.map(data.uid_map).fillna(len(data.uid_map)), held.item.map(data.iid_map).fillna(len(data.iid_map)))
    return seconds,rmse([model.rate(int(u), int(i)) for u,i in rows], held.rating)

def damped_means(train, damping=5.):
    "Mean, and deviations of users and items from it"
    mean,by = train.rating.mean(),lambda name, rest: rest.groupby(train[name]).sum() / (train.groupby(name).size() + damping)
    items = by('item', train.rating - mean)
    return mean,by('user', train.rating - mean - train.item.map(items)),items

def implicit_fit(budget, valid, **settings):
    "Seconds, and a frame of held-out rows with means and implicit's scores"
    from implicit.als import AlternatingLeastSquares
    from scipy import sparse
    train,held = frames(valid)
    c = {n: pd.Index(np.unique(pd.concat([train, held])[n])) for n in ('user', 'item')}
    start = time.process_time()
    mean,users,items = damped_means(train)
    means = lambda df: mean + df.user.map(users).fillna(0.) + df.item.map(items).fillna(0.)
    rows = [c[n].get_indexer(train[n]) for n in c]
    x = sparse.csr_matrix(((train.rating - means(train)).to_numpy('f'), rows), shape=[len(o) for o in c.values()])
    model = AlternatingLeastSquares(iterations=budget, num_threads=1, random_state=0, **settings)
    model.fit(x, show_progress=False)
    seconds = time.process_time() - start
    u,i = (v[c[n].get_indexer(held[n])] for n,v in dict(user=model.user_factors, item=model.item_factors).items())
    return seconds,held.assign(mean=means(held), score=(u * i).sum(1))

@lru_cache
def implicit_slope(budget, **settings):
    held = implicit_fit(budget, True, **settings)[1]
    return float((held.score * (held.rating - held['mean'])).sum() / (held.score**2).sum())

def implicit_way(budget, valid=False, **settings):
    seconds,held = implicit_fit(budget, valid, **settings)
    return seconds,rmse(held['mean'] + implicit_slope(budget, **settings) * held.score, held.rating)

def myfm_way(budget, rank=10):
    import myfm
    from scipy import sparse
    c,t,v = (o := ml100k()[2]).catalog,o.train_ds,o.valid_ds
    def design(t):
        cols = np.stack([t.users.numpy(), len(c.user) + t.items.numpy()], 1).ravel()
        return sparse.csr_matrix((np.ones(len(cols)), cols, np.arange(0, len(cols) + 1, 2)), shape=(len(t), len(c.user) + len(c.item)))
    fm,start = myfm.MyFMRegressor(rank=rank, random_seed=0),time.process_time()
    with contextlib.redirect_stderr(io.StringIO()):
        fm.fit(design(t), t.ratings.double().numpy(), n_iter=budget, n_kept_samples=max(1, budget * 4 // 5), group_shapes=[len(c.user), len(c.item)])
    return time.process_time() - start,rmse(fm.predict(design(v)), v.ratings.numpy())

def with_chosen(way): return lambda b: CHOSEN[way][0](b, **chosen(way))

CHOSEN = {'Surprise SVD': (surprise_way, (20, 40), grid(n_factors=(50, 100), lr_all=(.005, .01), reg_all=(.05, .1))),
          'cornac MF': (cornac_way, (20, 40, 80, 160), grid(k=(10, 50), learning_rate=(.003, .005, .01, .02), lambda_reg=(.02, .05, .1))),
          'implicit ALS': (implicit_way, (5, 15), grid(factors=(10, 32, 64), regularization=(.1, 1., 10.), alpha=(1., 5., 20.)))} # way, budgets and settings to choose from

WAYS = {'fastcf FusedSGD': (lambda b: learner_way(b, cbs=FusedSGD, y_range=Y), (2, 3, 4, 5, 6, 7, 8, 10, 15, 20)),
        'fastcf ALS, then Gibbs': (lambda b: gibbs_way(b, als=4), (5, 10, 15, 20, 30, 40, 50, 60, 80)),
        'fastcf Gibbs': (gibbs_way, (5, 10, 20, 25, 30, 40, 50, 60, 80, 100, 120, 150)),
        'fastcf batches, bs 512': (lambda b: learner_way(b, y_range=Y), (2, 3, 4, 5, 7, 10)),
        'fastcf ALS': (lambda b: learner_way(b, cbs=lambda: ALS(8.), factor_count=10), (2, 4, 8)),
        'fastai collab_learner, bs 64': (fastai_way, (2, 3, 5)), 'fastai, each row once': (lambda b: fastai_way(b, dl_type=TabDataLoader), (2, 3, 5)),
        'Surprise SVD': (surprise_way, (20, 60)), 'Surprise SVD, chosen': (with_chosen('Surprise SVD'), (20, 40, 60)), 'Surprise SVD++': (lambda b: surprise_way(b, 'SVDpp'), (20,)),
        'cornac MF': (cornac_way, (20, 40, 80)), 'cornac MF, chosen': (with_chosen('cornac MF'), (10, 20, 40, 60, 80, 100, 120, 160)),
        'implicit ALS, chosen': (with_chosen('implicit ALS'), (5, 15)), 'myfm': (myfm_way, (5, 10, 20, 40, 80, 200, 400))}

def plot(df):
    import matplotlib.pyplot as plt
    fig,ax = plt.subplots(figsize=(7, 5.5))
    for j,(who,g) in enumerate(df.groupby('way', sort=False)): ax.plot(g.seconds, g.rmse, marker='o', color=plt.get_cmap('tab20')(j), ls='-' if who.startswith('fastcf') else '--', label=who)
    for level in LEVELS: ax.axhline(level, color='grey', lw=.6, ls=':')
    ax.set(xscale='log', xlabel='seconds of fitting', ylabel='RMSE on 10,000 test ratings', title='Time to quality, MovieLens 100K', ylim=(.89, .96))
    ax.legend(fontsize=8, loc='upper left', bbox_to_anchor=(1, 1))
    fig.savefig(Path(__file__).with_suffix('.png'), dpi=120, bbox_inches='tight')

def main(argv=()):
    parser = argparse.ArgumentParser()
    parser.add_argument('--only', default='')
    only = parser.parse_args(argv).only
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    print(f'load of the machine: {os.getloadavg()[0]:.1f}')
    rows = []
    for who,(f,budgets) in WAYS.items():
        if only not in who: continue
        try: f(1)
        except ImportError as e: print(f'{who}: left out, {e}'); continue
        for b in budgets: rows.append(dict(way=who, budget=b, **dict(zip(('seconds', 'rmse'), f(b))))); print(rows[-1], flush=True)
    df = pd.DataFrame(rows)
    table = pd.DataFrame({f'{l:.2f}': df[df.rmse <= l].groupby('way').seconds.min() for l in LEVELS}).reindex(df.way.unique()).assign(best=df.groupby('way').rmse.min())
    table['chosen'] = [', '.join(f'{k}={v}' for k,v in chosen(who.removesuffix(', chosen')).items()) if who.endswith(', chosen') else '' for who in table.index]
    print('Seconds to an RMSE of\n', table.round(3).to_string(na_rep='–'))
    if only: return
    keep(df.set_index('way'), 'time_to_quality_runs'); keep(table, 'time_to_quality')
    plot(df)

if __name__ == '__main__': main(sys.argv[1:])
