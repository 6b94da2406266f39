"""What large data costs: questions at ten million ratings, ratings that stay on disk, and how cost grows.

`python -m benchmarks.scale` prints three tables. Seconds are processor time where not said otherwise. `--rows 25000000` streams that many ratings,
`--asked 1000000` asks at a million, and `--largest 100000` stops the growth there: on a machine that is busy all of it takes long.

1. Questions at 10 million ratings, 200,000 × 50,000: the first call and the middle one of the next, and how far memory rose above what it was before.
2. Ratings streamed from Parquet beside the same in memory: ratings a second of an epoch, and the peak of memory above the imports.
3. Time and memory of a `FusedSGD` epoch, lists of a thousand users and the fold-in of a thousand from 10,000 ratings up; also drawn, `scale_growth.png`.
"""
import argparse, json, subprocess, sys, tempfile, time
from pathlib import Path
import numpy as np, pandas as pd
from benchmarks import keep

def skewed_ratings(users, items, n, first=0, seed=0):
    "A frame of about `n` ratings from eight factors, popular items and busy users"
    g = np.random.default_rng(seed)
    pair = np.unique((users * g.random(n)**1.5).astype('int64') * items + (items * g.random(n)**2).astype('int64'))
    g.shuffle(pair)
    u,i = pair // items,pair % items
    (x,b),(y,c) = ((g.normal(0, .45, (m, 8)).astype('f'), g.normal(0, .4, m).astype('f')) for m in (users, items))
    score = b[u] + c[i] + np.concatenate([(x[u[s]] * y[i[s]]).sum(1) for s in np.array_split(np.arange(len(u)), -(-len(u) // 2**20))])
    return pd.DataFrame(dict(user=first + u, item=i, rating=(3.5 + score + g.normal(0, .8, len(u))).round().clip(1, 5).astype('f')))

QUESTIONS = '''
import json, resource, sys, time
import numpy as np, torch
torch.set_num_threads(1)
from fastcf.all import *
from benchmarks.scale import skewed_ratings
users,items,n,news = map(int, sys.argv[1:])
def status(key): return int(next(l for l in open('/proc/self/status') if l.startswith(key)).split()[1]) / 1024
res,clock = {},time.process_time
def ask(name, f, times=0):
    open('/proc/self/clear_refs', 'w').write('5')
    base,start = status('VmRSS'),clock()
    out = f()
    first,then = clock() - start,[]
    for _ in range(times):
        start = clock()
        f()
        then.append(clock() - start)
    res[name] = {'first, ms': 1e3 * first, 'then, ms': 1e3 * float(np.median(then)) if then else None, 'peak above before, MB': status('VmHWM') - base}
    return out
df = skewed_ratings(users, items, n)
dls = ask('from_df', lambda: CFDataLoaders.from_df(df, seed=0, bs=65536, valid_pct=.01, device='cpu'))
del df
learn = cf_learner(dls, 32, y_range=(.5, 5.5), seed=0)
def fit():
    with learn.no_bar(), learn.no_logging(): learn.fit(1, cbs=FusedSGD())
ask('an epoch of FusedSGD', fit, 1) # the first compiles
t = dls.train_ds
user,item = (int(v.ids[int(r)]) for v,r in ((dls.catalog.user, t.users[5]), (dls.catalog.item, t.items[5])))
who = dls.catalog.user[np.unique(t.users[:1200].numpy())[:1000]].tolist()
ask('predict a pair', lambda: learn.predict(user, item), 200)
ask('its interval', lambda: learn.predict(user, item, interval=.9), 30)
ask('similar_items', lambda: learn.similar_items(item), 5)
ask('a list by rating', lambda: learn.recommend(user, rank_by='rating'), 10)
ask('lists of 1,000 by rating', lambda: learn.recommend(who, rank_by='rating'))
new = skewed_ratings(news, items, 10 * news, 10**7, 1)
folded = ask(f'fold_in of {news:,}', lambda: learn.fold_in(new, unknown='drop'))
ask('their top 10', lambda: folded.recommend(10))
ask('fold_in of one', lambda: learn.fold_in({item: 4.}), 20)
ask('Interview', lambda: Interview(learn), 3)
ask('its first page', lambda: Interview(learn).next_page())
print(json.dumps(res))
'''

def asked(users, items, n, news):
    run = subprocess.run([sys.executable, '-W', 'ignore', '-c', QUESTIONS, *map(str, (users, items, n, news))], check=True, stdout=subprocess.PIPE, text=True)
    return pd.DataFrame(json.loads(run.stdout.strip().splitlines()[-1])).T

def questions(n):
    users,items = n // 50,n // 200
    df = asked(users, items, n, users)
    keep(df, 'scale_questions')
    print(f'{n:,} ratings, {users:,} × {items:,}, 32 factors, {users:,} new users\n', df.round(2).to_string(), '\n')

def growth(largest):
    "One row a size: users and items grow with the root of the ratings"
    rows = {}
    for n in (10**e for e in range(4, 8) if 10**e <= largest):
        df = asked(int(600 * (n / 1e4)**.5), int(250 * (n / 1e4)**.5), n, 1000)
        rows[n] = {f'{k}, ms': df.loc[k, 'then, ms' if k.startswith('an epoch') else 'first, ms'] for k in ('from_df', 'an epoch of FusedSGD', 'lists of 1,000 by rating', 'fold_in of 1,000')}
        rows[n]['peak of from_df, MB'] = df.loc['from_df', 'peak above before, MB']
    res = pd.DataFrame(rows).T.rename_axis('ratings')
    keep(res, 'scale_growth')
    print('How cost grows\n', res.round(1).to_string(), '\n')
    plot_growth(res)

def plot_growth(df):
    import matplotlib.pyplot as plt
    fig,axs = plt.subplots(1, 2, figsize=(9, 3.8))
    (df[[c for c in df if c.endswith(', ms')]] / 1e3).plot(ax=axs[0], marker='o', logx=True, logy=True, xlabel='ratings', ylabel='seconds of one processor', title='Time')
    df[['peak of from_df, MB']].plot(ax=axs[1], marker='o', logx=True, logy=True, xlabel='ratings', ylabel='MB', title='Memory while the ratings are checked')
    fig.savefig(Path(__file__).with_name('scale_growth.png'), dpi=120, bbox_inches='tight')

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
    keep(pd.DataFrame(res), 'scale_stream')
    print(f'{rows:,} ratings, {users:,} × {items:,}, {size / rows:.1f} bytes each at rest; processor time\n', pd.DataFrame(res).map(lambda o: '' if o != o else f'{o:,.0f}').to_string(), '\n')

def main(argv=()):
    parser = argparse.ArgumentParser()
    parser.add_argument('--rows', type=int, default=2_000_000)
    parser.add_argument('--asked', type=int, default=10_000_000)
    parser.add_argument('--largest', type=int, default=10_000_000)
    parser.add_argument('--only', choices=['questions', 'stream', 'growth'])
    args = parser.parse_args(argv)
    for name,f in dict(questions=lambda: questions(args.asked), stream=lambda: stream(args.rows), growth=lambda: growth(args.largest)).items():
        if args.only in (None, name): f()

if __name__ == '__main__': main(sys.argv[1:])
