"""How fast fastcf trains, beside its peers in the same run.

`python -m benchmarks.training` prints four tables. Seconds are processor time on one thread, so that other work on the machine disturbs them
less; what stands in the tables is the quickest tenth of what was measured, and ratios are what to look at.

1. Ratings a second of whole epochs through a full Learner: fastai's `collab_learner` and `cf_learner` at three batch sizes, `FusedSGD`, and a bare compiled loop.
2. A step through a full Learner at 1,024 ratings, tables of three sizes, dense Adam and row-wise optimizers.
3. 90/10 RMSE of `FusedSGD` and of the batch loop, five seeds. The settings were chosen on parts of the 90 % that train.
4. Choices: what one costs in batches, in `FusedSGD` and in implicit's BPR, and NDCG@10 of each person's last film after 15 epochs.
"""
import argparse, contextlib, io, os, sys, time
import numpy as np, pandas as pd, torch
from fastai.callback.core import Callback
from fastai.collab import CollabDataLoaders, collab_learner
from fastai.data.transforms import IndexSplitter
from fastcf.data.loaders import Catalog, CFDataLoaders, RatingsDL, RatingsTable
from fastcf.data.sources import load_ml100k
from fastcf.data.splits import LeaveLastOutSplitter
from fastcf.data.vocab import Vocab
from fastcf.learn.learner import cf_learner
from fastcf.rank.losses import Negatives, Popular, bpr_loss, gbce_loss, sampled_softmax_loss
from fastcf.rank.metrics import ndcg, valid_frame
from fastcf.scale.fused import FusedSGD
from fastcf.scale.rowwise import RowwiseAdagrad, RowwiseAdam, RowwiseSGD
from benchmarks import keep
from benchmarks.loading import TrainTimer

Y = (0.5, 5.5)

class StepTimer(Callback):
    "When each training step ended"
    order = 999
    def before_fit(self): self.ends = []
    def after_batch(self):
        if self.training: self.ends.append(time.process_time())

def quiet_fit(learn, *args, **kwargs):
    with contextlib.redirect_stdout(io.StringIO()), learn.no_bar(), learn.no_logging(): learn.fit(*args, **kwargs)

def random_loaders(users, items, rows, bs=1024):
    g = np.random.default_rng(0)
    c = Catalog(Vocab(pd.Series(range(users)), 'user'), Vocab(pd.Series(range(items)), 'item'))
    table = lambda n: RatingsTable(g.integers(0, users, n), g.integers(0, items, n), g.integers(1, 6, n), c)
    train = RatingsDL(table(rows), bs=bs, shuffle=True, drop_last=True, seed=0, device='cpu')
    return CFDataLoaders(train, train.new(table(1000), shuffle=False, drop_last=False), device='cpu')

def step_ms(dls, epochs=2, **kwargs):
    timer = StepTimer()
    quiet_fit(cf_learner(dls, y_range=Y, seed=0, **kwargs), epochs, cbs=timer)
    return float(np.quantile(np.diff(timer.ends), .1) * 1e3)

def steps():
    sizes = {'943 × 1,682': random_loaders(943, 1682, 150_000), '100,000 × 60,000': random_loaders(100_000, 60_000, 150_000), '1,000,000 × 200,000': random_loaders(1_000_000, 200_000, 150_000)}
    kinds = dict(dense=dict(sparse=False), RowwiseAdam=dict(opt_func=RowwiseAdam), RowwiseAdagrad=dict(opt_func=RowwiseAdagrad), RowwiseSGD=dict(opt_func=RowwiseSGD))
    few = random_loaders(1_000_000, 200_000, 12_000)
    rows = {k: {s: step_ms(few if k == 'dense' and s.startswith('1,000,000') else d, **kw) for s,d in sizes.items()} for k,kw in kinds.items()}
    df = pd.DataFrame(rows).T
    small,_,large = df.columns
    df['largest / dense smallest'] = df[large] / df.loc['dense', small]
    df['largest, dense / this'] = df.loc['dense', large] / df[large]
    keep(df, 'training_steps')
    print('A step at 1,024 ratings, 50 factors, ms\n', df.round(2).to_string(), '\n')

def ml100k(bs=64):
    df = load_ml100k().ratings
    test = np.random.default_rng(42).permutation(len(df))[90_000:]
    return df,test,CFDataLoaders.from_df(df, splitter=IndexSplitter(test), bs=bs, seed=0, device='cpu')

def bare_loop_rate(dls, threads=1):
    "Ratings a second of a compiled loop of plain steps of gradient descent, without a Learner, a schedule or a shuffle"
    from numba import njit
    from concurrent.futures import ThreadPoolExecutor
    @njit(nogil=True, fastmath=True)
    def loop(u, i, r, x, y, b, c):
        for j in range(len(u)):
            s = b[u[j]] + c[i[j]]
            for f in range(x.shape[1]): s += x[u[j], f] * y[i[j], f]
            e = np.float32(.01) * (r[j] - s)
            b[u[j]] += e; c[i[j]] += e
            for f in range(x.shape[1]):
                p,q = x[u[j], f],y[i[j], f]
                x[u[j], f] += e * q; y[i[j], f] += e * p
    t,n = dls.train_ds,50
    g = np.random.default_rng(0)
    tables = [g.normal(0, .01, s).astype('f') for s in ((len(dls.catalog.user), n), (len(dls.catalog.item), n), len(dls.catalog.user), len(dls.catalog.item))]
    parts = list(zip(*(np.array_split(o.numpy(), threads) for o in (t.users, t.items, t.ratings))))
    times = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(30):
            start = time.process_time()
            list(pool.map(lambda p: loop(*p, *tables), parts))
            times.append(time.process_time() - start)
    return len(t) / float(np.quantile(times[1:], .1))

def fitted_seconds(learn, epochs=1, cbs=()):
    "Seconds of the training part of each epoch"
    timer = TrainTimer(time.process_time)
    quiet_fit(learn, epochs, 5e-3, wd=.1, cbs=[*cbs, timer])
    return timer.seconds

def rates():
    df,test,_ = ml100k()
    rows = {}
    for bs in (64, 512, 4096):
        ours = ml100k(bs)[2]
        theirs = CollabDataLoaders.from_df(df.drop(index=test), valid_pct=.001, bs=bs, device=torch.device('cpu'))
        learns = {'collab_learner': (collab_learner(theirs, n_factors=50, y_range=Y), theirs), 'cf_learner': (cf_learner(ours, y_range=Y, seed=0), ours)}
        rounds = 2 if bs == 64 else 5
        times = {name: min(fitted_seconds(l)[0] for _ in range(rounds)) for name,(l,_) in learns.items()}
        rows |= {f'{name}, bs {bs}': len(d.train_ds) / times[name] for name,(_,d) in learns.items()}
    dls = ml100k()[2]
    rows['FusedSGD'] = len(dls.train_ds) / float(np.quantile(fitted_seconds(cf_learner(dls, y_range=Y, seed=0), 30, [FusedSGD()])[1:], .1))
    rows['bare compiled loop'] = bare_loop_rate(dls)
    s = pd.Series(rows)
    res = pd.DataFrame({'ratings a second': s.round(0), '× collab_learner, bs 64': s / s['collab_learner, bs 64']})
    res['× collab_learner, same bs'] = [s[n] / s.get(n.replace('cf_learner', 'collab_learner'), np.nan) if n.startswith('cf_') else np.nan for n in s.index]
    print(res.round(2).to_string(), '\n')
    keep(res.assign(load=os.getloadavg()[0]), 'training_rates') # of the machine, beside the figures

def clipped_rmse(learn):
    preds,targets = learn.get_preds()
    return float((preds.clamp(1, 5) - targets).square().mean().sqrt())

def accuracy():
    rows = []
    for seed in range(5):
        row = {}
        for name in ('batches', 'FusedSGD'):
            _,_,dls = ml100k(bs=512)
            dls.train.rng.seed(seed)
            learn = cf_learner(dls, y_range=Y, seed=seed)
            if name == 'batches':
                with contextlib.redirect_stdout(io.StringIO()), learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(5, 5e-3)
            else: quiet_fit(learn, 10, cbs=FusedSGD())
            with learn.no_bar(): row[name] = clipped_rmse(learn)
        rows.append(row)
    df = pd.DataFrame(rows).rename_axis('seed')
    keep(df, 'training_accuracy')
    print('90/10 RMSE, 50 factors; batches: bs 512, 5 epochs of one cycle, rate 5e-3\n', df.assign(difference=df.FusedSGD - df.batches).round(4).to_string(), '\n', df.mean().round(4).to_dict(), '\n')

def choice_ways():
    "What is compared with each choice, and by which loss"
    yield 'sampled softmax, 16 beside each',sampled_softmax_loss,16
    yield 'gBCE, 16 beside each',gbce_loss,16
    yield 'BPR, one beside each',bpr_loss,1

def choices(epochs=15):
    df = load_ml100k().ratings
    dls = CFDataLoaders.from_df(df, rating_name=False, splitter=LeaveLastOutSplitter(time_name='timestamp'), bs=512, seed=0, device='cpu')
    rows,last,n = {},valid_frame(dls),len(dls.train_ds)
    def put(name, seconds, lists): rows[name] = {'µs a choice': 1e6 * seconds / epochs / n, 'NDCG@10': ndcg(lists, last, 10)}
    quiet_fit(cf_learner(dls, 50, seed=0), 1, cbs=FusedSGD()) # compiled now
    for what,loss,count in choice_ways():
        for who in ('batches', 'FusedSGD'):
            learn = cf_learner(dls, 50, loss_func=loss, cbs=Negatives(Popular(count)), seed=0)
            timer = TrainTimer(time.process_time)
            with contextlib.redirect_stdout(io.StringIO()), learn.no_bar(), learn.no_logging():
                learn.fit(epochs, cbs=[FusedSGD(), timer]) if who == 'FusedSGD' else learn.fit_one_cycle(epochs, 2e-2, cbs=timer)
            put(f'{who}, {what}', sum(timer.seconds), learn.recommend(k=10))
    peer_choices(dls, put, epochs)
    res = pd.DataFrame(rows).T
    keep(res, 'training_choices')
    print(f'{n:,} choices, 50 factors, {epochs} epochs; implicit: its rate of .05, penalty .01\n', res.round(4).to_string(), '\n')

def peer_choices(dls, put, epochs):
    from implicit.bpr import BayesianPersonalizedRanking
    from scipy.sparse import csr_matrix
    t,c = dls.train_ds,dls.catalog
    seen = csr_matrix((np.ones(len(t), 'f'), (t.users.numpy(), t.items.numpy())), shape=(len(c.user), len(c.item)))
    model,start = BayesianPersonalizedRanking(factors=50, iterations=epochs, learning_rate=.05, random_state=0, num_threads=1),time.process_time()
    model.fit(seen, show_progress=False)
    seconds,(items,_) = time.process_time() - start,model.recommend(np.arange(len(c.user)), seen, 10)
    put('implicit BPR, one beside each', seconds, pd.DataFrame(dict(user=np.repeat(c.user.ids, 10), item=c.item.ids[items.ravel()], rank=np.tile(np.arange(1, 11), len(c.user)))))

def main(argv=()):
    parser = argparse.ArgumentParser()
    parser.add_argument('--only', choices=['rates', 'steps', 'accuracy', 'choices'])
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    print(f'load of the machine: {os.getloadavg()[0]:.1f}')
    for name,f in dict(rates=rates, steps=steps, accuracy=accuracy, choices=choices).items():
        if args.only in (None, name): f()

if __name__ == '__main__': main(sys.argv[1:])
