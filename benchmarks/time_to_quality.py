"""Seconds until predictions of ML-100K's 90/10 split reach an RMSE of 0.92, 0.91 and 0.90: fastcf's ways of training and their peers.

`python -m benchmarks.time_to_quality` needs the extra `bench`. Each way is run from the start with several budgets of epochs or sweeps, as each has
a schedule that ends with the fit; what counts is the shortest run that gets there. Seconds are processor time of fitting on one thread, after one
short fit of each way that is not counted (compiled code is loaded then). Settings other than the budget are each way's defaults, or fastai's best
of eleven rates for `collab_learner`. `--only fastcf` runs the ways with that in their name, and keeps nothing. Also draws `time_to_quality.png`.
"""
import argparse, contextlib, io, os, sys, time, warnings
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

def gibbs_way(budget, k=10):
    dls = ml100k()[2]
    learn,c,v = cf_learner(dls, factor_count=k, seed=0),dls.catalog,dls.valid_ds
    start = time.process_time()
    with learn.no_bar(), learn.no_logging(): post = learn.sample_posterior(budget - budget // 5, max(1, budget // 5), seed=0)
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

def surprise_way(budget, name='SVD'):
    import surprise
    df,test,_ = ml100k()
    train,held = df.drop(index=test),df.loc[test]
    data = surprise.Dataset.load_from_df(train[['user', 'item', 'rating']], surprise.Reader(rating_scale=(1, 5))).build_full_trainset()
    algo,start = getattr(surprise, name)(n_epochs=budget, random_state=0),time.process_time()
    algo.fit(data)
    seconds = time.process_time() - start
    return seconds,rmse([algo.predict(u, i).est for u,i in zip(held.user, held.item)], held.rating)

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

WAYS = {'fastcf batches, bs 512': (lambda b: learner_way(b, y_range=Y), (2, 3, 4, 5, 7)), 'fastcf FusedSGD': (lambda b: learner_way(b, cbs=FusedSGD, y_range=Y), (3, 5, 8, 10, 15, 20)),
        'fastcf ALS': (lambda b: learner_way(b, cbs=lambda: ALS(8.), factor_count=10), (2, 4, 8)), 'fastcf Gibbs': (gibbs_way, (5, 10, 20, 40, 80, 150)),
        'fastai collab_learner, bs 64': (fastai_way, (2, 3, 5)), 'fastai, each row once': (lambda b: fastai_way(b, dl_type=TabDataLoader), (2, 3, 5)),
        'Surprise SVD': (surprise_way, (20, 60)), 'Surprise SVD++': (lambda b: surprise_way(b, 'SVDpp'), (20,)),
        'myfm': (myfm_way, (5, 10, 20, 40, 80, 200))}

def plot(df):
    import matplotlib.pyplot as plt
    fig,ax = plt.subplots(figsize=(7, 4.5))
    for who,g in df.groupby('way', sort=False): ax.plot(g.seconds, g.rmse, marker='o', label=who)
    for level in LEVELS: ax.axhline(level, color='grey', lw=.6, ls=':')
    ax.set(xscale='log', xlabel='seconds of fitting', ylabel='RMSE on 10,000 test ratings', title='Time to quality, MovieLens 100K', ylim=(.89, .96))
    ax.legend(fontsize=8)
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
        try: f(budgets[0])
        except ImportError as e: print(f'{who}: left out, {e}'); continue
        for b in budgets: rows.append(dict(way=who, budget=b, **dict(zip(('seconds', 'rmse'), f(b))))); print(rows[-1], flush=True)
    df = pd.DataFrame(rows)
    table = pd.DataFrame({f'{l:.2f}': df[df.rmse <= l].groupby('way').seconds.min() for l in LEVELS}).reindex(df.way.unique()).assign(best=df.groupby('way').rmse.min())
    print('Seconds to an RMSE of\n', table.round(3).to_string(na_rep='–'))
    if only: return
    keep(df.set_index('way'), 'time_to_quality_runs'); keep(table, 'time_to_quality')
    plot(df)

if __name__ == '__main__': main(sys.argv[1:])
