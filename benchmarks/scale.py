"""What large tables and large data cost, beside their peers in the same run.

`python -m benchmarks.scale` prints four tables. Steps and rates are the quickest tenth of what was measured, as other work on the machine
can only make them longer; ratios are what to look at. `python -m benchmarks.scale --rows 25000000` streams that many ratings in the last one.

1. A step through a full Learner at 1,024 ratings, tables of three sizes, dense Adam and row-wise optimizers.
2. Ratings a second of `FusedSGD` beside fastai's `collab_learner` at 64 rows a batch and a bare compiled loop.
3. 90/10 RMSE of `FusedSGD` and of the batch loop, five seeds. The settings were chosen on parts of the 90 % that train.
4. Ratings streamed from Parquet beside the same in memory: ratings a second of an epoch, and the peak of memory above the imports.
"""
import argparse, contextlib, io, json, subprocess, sys, tempfile, time
from pathlib import Path
import numpy as np, pandas as pd, torch
from fastai.callback.core import Callback
from fastai.collab import CollabDataLoaders, collab_learner
from fastai.data.transforms import IndexSplitter
from fastcf.data.loaders import Catalog, CFDataLoaders, RatingsDL, RatingsTable
from fastcf.data.sources import load_ml100k
from fastcf.data.vocab import Vocab
from fastcf.learn.learner import cf_learner
from fastcf.scale.fused import FusedSGD
from fastcf.scale.rowwise import RowwiseAdagrad, RowwiseAdam, RowwiseSGD

Y = (0.5, 5.5)

class StepTimer(Callback):
    "When each training step ended, and how long the training part of each epoch took"
    order = 999
    def __init__(self): self.ends,self.epochs = [],[]
    def before_train(self): self.start = time.perf_counter()
    def after_batch(self):
        if self.training: self.ends.append(time.perf_counter())
    def after_train(self): self.epochs.append(time.perf_counter() - self.start)

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
            start = time.perf_counter()
            list(pool.map(lambda p: loop(*p, *tables), parts))
            times.append(time.perf_counter() - start)
    return len(t) / float(np.quantile(times[1:], .1))

def rates():
    df,test,dls = ml100k()
    rows = {}
    for threads in (1, 2):
        timer = StepTimer()
        quiet_fit(cf_learner(dls, y_range=Y, seed=0), 30, cbs=[FusedSGD(threads=threads), timer])
        rows[f'FusedSGD, {threads} thread(s)'] = len(dls.train_ds) / float(np.quantile(timer.epochs[1:], .1))
        rows[f'bare loop, {threads} thread(s)'] = bare_loop_rate(dls, threads)
    theirs = CollabDataLoaders.from_df(df.drop(index=test), valid_pct=.001, bs=64, device=torch.device('cpu'))
    timer = StepTimer()
    quiet_fit(collab_learner(theirs, n_factors=50, y_range=Y), 1, 5e-3, wd=.1, cbs=timer)
    rows['fastai collab_learner, bs 64'] = 64 / float(np.quantile(np.diff(timer.ends), .1))
    s = pd.Series(rows, name='ratings a second')
    print(pd.DataFrame({'ratings a second': s.map('{:,.0f}'.format), '× collab_learner': (s / s.iloc[-1]).round(1)}).to_string(), '\n')

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
    print('90/10 RMSE, 50 factors; batches: bs 512, 5 epochs of one cycle, rate 5e-3\n', df.assign(difference=df.FusedSGD - df.batches).round(4).to_string(), '\n', df.mean().round(4).to_dict(), '\n')

STREAM = '''
import json, resource, sys, time
import torch
torch.set_num_threads(1)
from fastcf.data.loaders import CFDataLoaders, RatingsDL, RatingsTable
from fastcf.learn.learner import cf_learner
from fastcf.scale.stream import encode_ratings, open_ratings
from fastcf.scale.fused import FusedSGD
import pyarrow, pyarrow.parquet, pyarrow.compute
src,out,what = sys.argv[1:]
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
res,base = {},peak()
start = time.process_time()
if what == 'encode': encode_ratings(src, out, valid_pct=.01, seed=0); res['encode, s'] = time.process_time() - start
else:
    if what == 'memory':
        train,valid = (RatingsTable(o.users.clone(), o.items.clone(), o.ratings.clone(), o.catalog) for o in open_ratings(out))
        dl = RatingsDL(train, bs=2**16, shuffle=True, drop_last=True, seed=0, device='cpu')
        dls = CFDataLoaders(dl, dl.new(valid, shuffle=False, drop_last=False), device='cpu')
    else: dls = CFDataLoaders.stream_parquet(src, out, valid_pct=.01, seed=0, bs=2**16, device='cpu')
    start = time.process_time()
    n = sum(len(b[0]) for b in dls.train)
    res['loading alone, ratings/s'] = n / (time.process_time() - start)
    learn = cf_learner(dls, factor_count=16, y_range=(.5, 5.5), seed=0)
    start = time.process_time()
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 5e-3)
    res['an epoch of batches of 65,536, ratings/s'] = n / (time.process_time() - start)
res['peak above the imports, MB'] = peak() - base
print(json.dumps(res))
'''

def stream(rows):
    import pyarrow as pa, pyarrow.parquet as pq
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        (tmp/'in').mkdir()
        g,users,items = np.random.default_rng(0),160_000,60_000
        for j,n in enumerate(np.diff(np.linspace(0, rows, 11).astype(int))): # ids of users are text, those of items numbers
            u,i = g.integers(0, users, n),(items * g.random(n)**2).astype(int)
            pq.write_table(pa.table({'user': pa.array([f'user-{o:07d}' for o in u]), 'item': i * 7, 'rating': g.integers(1, 11, n) / 2}), tmp/f'in/{j:02d}.parquet')
        run = lambda what: json.loads(subprocess.run([sys.executable, '-c', STREAM, tmp/'in', tmp/'out', what], check=True, capture_output=True, text=True).stdout.strip().splitlines()[-1])
        res = {w: run(w) for w in ('encode', 'stream', 'memory')}
        size = sum(o.stat().st_size for o in (tmp/'out').glob('*.*') if o.suffix in ('.users', '.items', '.ratings'))
    print(f'{rows:,} ratings, {users:,} × {items:,}, {size / rows:.1f} bytes each at rest; processor time\n', pd.DataFrame(res).map(lambda o: '' if o != o else f'{o:,.0f}').to_string(), '\n')

def main(argv=()):
    parser = argparse.ArgumentParser()
    parser.add_argument('--rows', type=int, default=2_000_000)
    parser.add_argument('--only', choices=['steps', 'rates', 'accuracy', 'stream'])
    args = parser.parse_args(argv)
    for name,f in dict(steps=steps, rates=rates, accuracy=accuracy, stream=lambda: stream(args.rows)).items():
        if args.only in (None, name): f()

if __name__ == '__main__': main(sys.argv[1:])
