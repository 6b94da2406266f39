"""What folding in costs, and how near it comes to training again, on ML-100K.

`python -m benchmarks.foldin` takes about two minutes. *Cost*, 50 factors, one thread: one user with 100 ratings (asked: at most
3 ms), all 943 users with their 100,000 ratings at once (at most 100 ms), one answer more; the least
processor time of several runs, which other programs disturb least; the prior is known, checks of the ratings are included. The peer
in the same run is a plain NumPy loop over the same users: one solve each, no sigmoid, nothing checked.
*Cold users*: a quarter of the users is kept out of training and half of their ratings are revealed; folding in with those beside the
same model trained again with them (asked: at most 1 % worse), predictions of the other half clipped to 1 to 5, by seed.
"""
import time
import numpy as np, pandas as pd, torch
import fastcf.bayes.foldin # learn.fold_in
from fastcf.data.sources import load_ml100k
from fastcf.demo import clipped_rmse
from fastcf.bayes.foldin import row_prior
import fastcf.learn.predict
from fastcf.learn.learner import cf_learner
from fastcf.data.loaders import CFDataLoaders

RANGES,SEEDS = {'no y_range': None, 'y_range': (.5, 5.5)},(0, 1, 2)

def fitted(df, train, test, y_range, seed):
    "A learner with 50 factors, fitted for five epochs"
    dls = CFDataLoaders.from_df(df, splitter=lambda df: (train, test), seed=seed, device='cpu', rating_range=(1, 5))
    learn = cf_learner(dls, y_range=y_range, seed=seed)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(5)
    return learn

def least_ms(f, n):
    "Least processor time of `n` runs, in milliseconds"
    times = []
    for j in range(n + 1):
        start = time.process_time()
        f()
        times.append((time.process_time() - start) * 1000)
    return min(times[1:])

def plain(prior, rows, cols, y):
    "The posterior means of all rows by a loop in NumPy"
    like,g = prior.likelihood,prior.prior
    v,lam,h = (o.numpy() for o in (like.vectors, g.precision, g.precision @ g.mean))
    order = np.argsort(rows, kind='stable')
    for at in np.split(order, np.bincount(rows).cumsum()[:-1]):
        a = v[cols[at]]
        np.linalg.solve(lam + a.T @ a / like.noise, h + a.T @ y[at] / like.noise)

def costs(df):
    "Milliseconds by what is done"
    p = np.random.default_rng(42).permutation(len(df))
    for name,y_range in RANGES.items():
        learn = fitted(df, p[:90_000], p[90_000:], y_range, 0)
        everybody = df[df.item.isin(learn.dls.catalog.item[learn.dls.counts().nonzero()[:, 0].numpy()])]
        user = everybody.user.value_counts()[lambda o: o >= 100].index[-1]
        hundred = everybody[everybody.user == user].head(100)
        prior,other = row_prior(learn),everybody[~everybody.item.isin(hundred.item)].item.iloc[0]
        rows,cols = everybody.user.factorize()[0],learn.dls.catalog.item.rows(everybody.item)
        y = everybody.rating.to_numpy('float32') - prior.likelihood.offsets.numpy()[cols]
        folded = learn.fold_in(hundred)
        yield dict(tables=name, **{'one user, 100 ratings': least_ms(lambda: learn.fold_in(hundred), 50), 'all users': least_ms(lambda: learn.fold_in(everybody), 20),
                                   'one more answer': least_ms(lambda: folded.update({other: 4.}), 50), 'all users, NumPy loop': least_ms(lambda: plain(prior, rows, cols, y), 5)})

def cold_users(df):
    "RMSE of folding in and of training again, by seed: rows that are trained on, revealed, tested"
    ids = np.sort(df.user.unique())
    cold = df.user.isin(ids[np.random.default_rng(0).permutation(len(ids))[:len(ids) // 4]]).to_numpy()
    theirs = np.flatnonzero(cold)
    shown = np.random.default_rng(1).random(len(theirs)) < .5
    revealed,test,rest = theirs[shown],theirs[~shown],np.flatnonzero(~cold)
    for name,y_range in RANGES.items():
        for seed in SEEDS:
            learn,again = fitted(df, rest, theirs, y_range, seed),fitted(df, np.concatenate([rest, revealed]), test, y_range, seed)
            c,known = learn.dls.catalog,learn.dls.counts().numpy()
            here = df.iloc[test][known[c.item.rows(df.item.iloc[test])] > 0]
            answers = df.iloc[revealed][known[c.item.rows(df.item.iloc[revealed])] > 0]
            folded = learn.fold_in(answers)
            here = here[here.user.isin(folded.ids.ids)]
            preds = folded.expected(c.item.rows(here.item), folded.ids.rows(here.user))
            a,b = clipped_rmse(preds.numpy(), here.rating.to_numpy()),clipped_rmse(again.predict(here[['user', 'item']]).prediction.to_numpy(), here.rating.to_numpy())
            yield dict(tables=name, seed=seed, folded=a, retrained=b, ratio=a / b)

def main():
    torch.set_num_threads(1)
    df = load_ml100k().ratings
    rows = pd.DataFrame(costs(df)).set_index('tables')
    rows['all users / NumPy loop'] = rows['all users'] / rows['all users, NumPy loop']
    print('-- milliseconds', rows.round(2).T.to_string(), sep='\n', flush=True)
    rows = pd.DataFrame(cold_users(df)).set_index('tables')
    print('-- cold users, RMSE', rows.to_string(float_format='%.4f'), 'means:', rows.groupby('tables', sort=False).mean().drop(columns='seed').to_string(float_format='%.4f'), sep='\n', flush=True)

if __name__ == '__main__': main()
