"""What large data costs: questions at ten million ratings, ratings that stay on disk, and how cost grows.

`python -m benchmarks.scale` prints three tables. Seconds are processor time where not said otherwise. `--rows 25000000` streams that many ratings,
`--asked 1000000` asks at a million, and `--largest 100000` stops the growth there: on a machine that is busy all of it takes long, and 10⁸ takes 2 GB of disk.

1. Questions at 10 million ratings, 200,000 × 50,000: the first call and the middle one of the next, and how far memory rose above what it was before.
2. Ratings streamed from Parquet beside the same in memory: ratings a second of an epoch, and the peak of memory above the imports.
3. Time and memory from 10⁴ to 10⁸ ratings, 10⁷ both in memory and through Parquet, 10⁸ through Parquet alone; also drawn, `scale_growth.png`. Users and items grow
   with the root of the ratings, 60,000 × 25,000 at the end. Each row is a process of its own, and asks in this order: loaders (`from_df`, which checks and sorts, or
   `stream_parquet` of a folder of files, which numbers the ids and writes the columns to disk), an epoch of `FusedSGD` with its validation (compiled
   before), the ten best by rating of a thousand users (the first call, which groups who rated what), and the fold-in of a thousand new users with ten ratings each
   (the first call, which estimates the prior). Memory is how far each of these rose at its peak above what the process held before it; pages of mapped files count.
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
import ctypes, gc, json, sys, tempfile, time
import numpy as np, torch
torch.set_num_threads(1)
from fastcf.all import *
from benchmarks.scale import skewed_ratings
users,items,n,news = map(int, sys.argv[1:5])
which,*parquet = sys.argv[5:]
def status(key): return int(next(l for l in open('/proc/self/status') if l.startswith(key)).split()[1]) / 1024
res,clock = {},time.process_time
def ask(name, f, times=0):
    gc.collect()
    ctypes.CDLL('libc.so.6').malloc_trim(0) # what was freed and kept would hide what is used now
    open('/proc/self/clear_refs', 'w').write('5')
    base,start = status('VmRSS'),clock()
    out = f()
    first,then = clock() - start,[]
    for _ in range(times):
        if first > .05: gc.collect() # what the one before has left in circles is not this one's
        start = clock()
        f()
        then.append(clock() - start)
    print(f'{n:,}: {name} {first:.2f} s', file=sys.stderr)
    res[name] = {'first, ms': 1e3 * first, 'then, ms': 1e3 * float(np.median(then)) if then else None, 'peak above before, MB': status('VmHWM') - base}
    return out
def fit(learn):
    with learn.no_bar(), learn.no_logging(): learn.fit(1, cbs=FusedSGD())
fit(cf_learner(CFDataLoaders.from_df(skewed_ratings(60, 25, 500), seed=0, device='cpu'), 32, y_range=(.5, 5.5), seed=0)) # compiles
kw = dict(seed=0, bs=65536, valid_pct=.01, device='cpu')
if parquet: dls = ask('loaders', lambda: CFDataLoaders.stream_parquet(parquet[0], parquet[0] + '-numbered', **kw))
else:
    df = skewed_ratings(users, items, n)
    dls = ask('loaders', lambda: CFDataLoaders.from_df(df, **kw))
    del df
res['ratings'] = {'first, ms': len(dls.train_ds) + len(dls.valid_ds)}
learn = cf_learner(dls, 32, y_range=(.5, 5.5), seed=0)
ask('an epoch of FusedSGD', lambda: fit(learn))
t = dls.train_ds
user,item = (int(v.ids[int(r)]) for v,r in ((dls.catalog.user, t.users[5]), (dls.catalog.item, t.items[5])))
who = dls.catalog.user[np.unique(t.users[:1200].numpy())[:1000]].tolist()
new = skewed_ratings(news, items, 10 * news, 10**7, 1)
def listed(): ask('lists of 1,000 by rating', lambda: learn.recommend(who, rank_by='rating'))
def folded(): return ask(f'fold_in of {news:,}', lambda: learn.fold_in(new, unknown='drop'))
if which == 'growth': listed(), folded()
else:
    ask('predict a pair', lambda: learn.predict(user, item), 200)
    ask('its interval', lambda: learn.predict(user, item, interval=.9), 30)
    ask('similar_items', lambda: learn.similar_items(item), 5)
    ask('a list by rating', lambda: learn.recommend(user, rank_by='rating'), 10)
    listed()
    many = folded()
    ask('their top 10 by rating', lambda: many.recommend(10, rank_by='rating'))
    ask('the choice model', lambda: learn.choice)
    ask('their top 10 by value', lambda: many.recommend(10))
    ask('fold_in of one', lambda: learn.fold_in({item: 4.}), 20)
    ask('Interview', lambda: Interview(learn), 3)
    ask('its first page', lambda: Interview(learn).next_page())
    with tempfile.TemporaryDirectory() as tmp:
        learn.save_recommender(tmp, interview=True)
        ask('a saved Interview', lambda: Recommender.load(tmp).interview(), 5)
print(json.dumps(res))
'''

def asked(users, items, n, news, which, *parquet):
    run = subprocess.run([sys.executable, '-W', 'ignore', '-c', QUESTIONS, *map(str, (users, items, n, news, which, *parquet))], check=True, stdout=subprocess.PIPE, text=True)
    return pd.DataFrame(json.loads(run.stdout.strip().splitlines()[-1])).T

def questions(n):
    users,items = n // 50,n // 200
    df = asked(users, items, n, users, 'questions').drop('ratings')
    keep(df, 'scale_questions')
    print(f'{n:,} ratings, {users:,} × {items:,}, 32 factors, {users:,} new users\n', df.round(2).to_string(), '\n')

def write_parquet(folder, users, items, n, most=5_000_000):
    "Skewed ratings in files of at most about `most` rows, each of users of its own, so that no pair is in two; all of them at once would not fit"
    files = -(-n // most)
    for j,own in enumerate(np.diff(np.linspace(0, users, files + 1).astype(int))):
        skewed_ratings(int(own), items, n // files, users * j // files, j).to_parquet(folder/f'{j:03d}.parquet', index=False)
    return folder

WAYS = 'memory','Parquet'
PARTS = 'loaders','an epoch of FusedSGD','lists of 1,000 by rating','fold_in of 1,000'

def growth(largest):
    "One row a size: users and items grow with the root of the ratings"
    rows = {}
    for n,way in ((10**e, w) for w,es in zip(WAYS, (range(4, 8), (7, 8))) for e in es):
        if n > largest: continue
        users,items = int(600 * (n / 1e4)**.5),int(250 * (n / 1e4)**.5)
        with tempfile.TemporaryDirectory() as tmp:
            (src := Path(tmp)/'ratings').mkdir()
            df = asked(users, items, n, 1000, 'growth', *([write_parquet(src, users, items, n)] if way == 'Parquet' else []))
        rows[way,n] = dict(ratings=df.loc['ratings', 'first, ms']) | {f'{k}, ms': df.loc[k, 'first, ms'] for k in PARTS} | {f'{k}, MB': df.loc[k, 'peak above before, MB'] for k in PARTS}
        res = pd.DataFrame(rows).T.rename_axis(['through', 'drawn'])
        keep(res, 'scale_growth')
    print('How cost grows\n', res.round(1).T.to_string(), '\n')
    plot_growth(res)

def plot_growth(df):
    import matplotlib.pyplot as plt
    fig,axs = plt.subplots(1, 2, figsize=(10, 4.2), layout='constrained')
    for ax,unit,scale,title,ylabel in zip(axs, ('ms', 'MB'), (1e3, 1), ('Time', 'Memory at its peak'), ('seconds of one processor', 'MB above before')):
        for j,part in enumerate(PARTS):
            for way,style in zip(WAYS, ('o-', 's--')):
                if way not in df.index.get_level_values(0): continue
                d = df.loc[way]
                ax.plot(d['ratings'], d[f'{part}, {unit}'].clip(lower=.1 if unit == 'MB' else 0) / scale, style, color=f'C{j}', label=f'{part}, {way}')
        ax.set(xscale='log', yscale='log', xlabel='ratings', ylabel=ylabel, title=title)
    fig.legend(*axs[0].get_legend_handles_labels(), loc='outside lower center', ncols=4, fontsize='small')
    fig.savefig(Path(__file__).with_name('scale_growth.png'), dpi=120)

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
    parser.add_argument('--largest', type=int, default=100_000_000)
    parser.add_argument('--only', choices=['questions', 'stream', 'growth'])
    args = parser.parse_args(argv)
    for name,f in dict(questions=lambda: questions(args.asked), stream=lambda: stream(args.rows), growth=lambda: growth(args.largest)).items():
        if args.only in (None, name): f()

if __name__ == '__main__': main(sys.argv[1:])
