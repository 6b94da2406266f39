"""Accuracy of the posterior beside Surprise and myfm on ML-100K, and whether its intervals hold what they say.

`python -m benchmarks.accuracy` needs the extra `bench` and takes about ten minutes. Two protocols: *90/10*, a random tenth is the
test; *time*, the newest tenth is. RMSE is of predictions clipped to 1 to 5. fastcf's rows are means over three sampler seeds; its
settings were chosen on validation parts of training rows ("140 sweeps": of ranks 10 and 16 the more accurate, in half of myfm's
time; "47 sweeps": in a third of the time of its last row). Seconds are processor time of fitting, features included, one thread for all: other programs disturb it less.
`time` uses the second at which a test rating was given, and is therefore no forecast. myfm gets the same metadata and the same
who-rated-what rows as fastcf. Coverage is the share of test ratings inside their 90 % interval, overall and by fifth of users
by number of training ratings; in the protocol *time* most ratings of the lowest fifth are by users who have none.
"""
import contextlib, io, time
import numpy as np, pandas as pd, torch
from scipy import sparse
from fastcf.bayes.engines import ALS # and learn.sample_posterior
from fastcf.data.sources import load_ml100k
import fastcf.learn.predict
from fastcf.learn.learner import cf_learner
from fastcf.data.loaders import CFDataLoaders
from fastcf.data.features import metadata_features
from fastcf.bayes.sampler import interaction_features
from benchmarks import keep

SEEDS, BINS = (0, 1, 2), (86_400, 600, 1)
ROWS = {'ids, rank 10': dict(k=10, n=200, metadata=False), 'ids': dict(k=16, n=250, metadata=False), '+ metadata, 140 sweeps': dict(k=16, n=140), '+ metadata': dict(k=16, n=250),
        '+ metadata and time, 47 sweeps from ALS': dict(k=10, n=47, als=4, time_bins=BINS),
        '+ who rated what': dict(k=24, n=250, who_rated=True), '+ time': dict(k=24, n=250, who_rated=True, time_bins=BINS)}

def splits(ratings):
    "Training and test positions by protocol"
    p,o = np.random.default_rng(42).permutation(len(ratings)),np.argsort(ratings.timestamp.to_numpy(), kind='stable')
    return {'90/10': (p[:90_000], p[90_000:]), 'time': (o[:90_000], o[90_000:])}

def rmse(preds, truth): return float(np.sqrt(np.square(np.clip(preds, 1, 5) - truth).mean()))

def surprise_rows(train, test):
    "RMSE and seconds of Surprise's algorithms with their defaults"
    from surprise import BaselineOnly, Dataset, KNNBaseline, Reader, SVD
    data = Dataset.load_from_df(train[['user', 'item', 'rating']], Reader(rating_scale=(1, 5))).build_full_trainset()
    for name,algo in {'BaselineOnly': BaselineOnly(verbose=False), 'SVD': SVD(random_state=0), 'KNNBaseline': KNNBaseline(verbose=False)}.items():
        start = time.process_time()
        algo.fit(data)
        seconds = time.process_time() - start
        yield dict(who=f'Surprise {name}', rmse=rmse([algo.predict(u, i).est for u,i in zip(test.user, test.item)], test.rating), seconds=seconds)

def myfm_rows(dls, rows=(('ids', 10, 200), ('+ metadata', 10, 200), ('+ who rated what', 10, 60))):
    "RMSE and seconds of myfm with one-hot ids, metadata and who rated what, as relation blocks"
    import myfm
    c,t,v = dls.catalog,dls.train_ds,dls.valid_ds
    sides = [(t.users, v.users, t.items, c.user, c.item, c.users), (t.items, v.items, t.users, c.item, c.user, c.items)]
    for j,(name,rank,sweeps) in enumerate(rows):
        start,train,test,shapes = time.process_time(),[],[],[]
        for own,own_test,other,vocab,other_vocab,frame in sides:
            parts = [sparse.eye(len(vocab), format='csr'), sparse.csr_matrix(metadata_features(frame, vocab.ids)[0].numpy(), dtype='float64'),
                     sparse.csr_matrix(interaction_features(own, other, len(vocab), len(other_vocab)).numpy(), dtype='float64')][:j+1]
            x,shapes = sparse.hstack(parts, format='csr'),shapes + [p.shape[1] for p in parts]
            train.append(myfm.RelationBlock(own.long().numpy(), x)); test.append(myfm.RelationBlock(own_test.long().numpy(), x))
        fm = myfm.MyFMRegressor(rank=rank, random_seed=0)
        with contextlib.redirect_stderr(io.StringIO()): fm.fit(None, t.ratings.double().numpy(), X_rel=train, n_iter=sweeps, n_kept_samples=sweeps * 4 // 5, group_shapes=shapes)
        seconds = time.process_time() - start
        yield dict(who=f'myfm {name}, {sweeps} sweeps', rmse=rmse(fm.predict(None, test), v.ratings.numpy()), seconds=seconds)

def fastcf_row(dls, name, k, n, als=0, **kwargs):
    "RMSE, seconds and coverage, means over the seeds; `als` epochs of alternating least squares first"
    runs,v,c = [],dls.valid_ds,dls.catalog
    for seed in SEEDS:
        learn = cf_learner(dls, factor_count=k, seed=seed)
        start = time.process_time()
        with learn.no_bar(), learn.no_logging():
            if als: learn.fit(als, cbs=ALS(8.))
            post = learn.sample_posterior(n * 4 // 5, n // 5, seed=seed, **kwargs)
        seconds,truth = time.process_time() - start,v.ratings.numpy()
        preds = post.predict(c.user[v.users.numpy()], c.item[v.items.numpy()], times=v.times).prediction
        fifths = post.calibration((.9,), side='user').set_index('fifth').coverage
        runs.append(dict(rmse=rmse(preds, truth), seconds=seconds, coverage=post.calibration((.9,)).coverage[0], **{f'users {q}/5': x for q,x in fifths.items()}))
    runs = pd.DataFrame(runs)
    return dict(who=f'fastcf {name}', rmse_sd=runs.rmse.std(), **runs.mean())

def main():
    torch.set_num_threads(1)
    ml,tables = load_ml100k(),{}
    for protocol,(train,test) in splits(ml.ratings).items():
        dls = CFDataLoaders.from_df(ml.ratings, splitter=lambda df: (train, test), users=ml.users, items=ml.items, time_name='timestamp', device='cpu')
        rows = [*surprise_rows(ml.ratings.iloc[train], ml.ratings.iloc[test]), *myfm_rows(dls), *(fastcf_row(dls, name, **kw) for name,kw in ROWS.items())]
        df = pd.DataFrame(rows).set_index('who')
        for name in ('ids', '+ metadata', '+ who rated what'):
            peer = next(r for r in df.index if r.startswith(f'myfm {name},'))
            df[f"time / myfm's {name}"] = df.seconds / df.seconds[peer]
        print(f'-- {protocol}', df.to_string(float_format='%.4f'), sep='\n', flush=True)
        tables[protocol] = df
    keep(pd.concat(tables, names=['protocol']), 'accuracy')

if __name__ == '__main__': main()
