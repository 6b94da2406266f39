"Sparse tables: the learner with its defaults, README's way (find_lr), Gibbs, Surprise SVD and myfm against regularised means, on simulated tables of 3 to 100 ratings a user and on MovieLens 100K"
import warnings
import numpy as np, pandas as pd
from fastcf.all import CFDataLoaders, Gibbs, IndexSplitter, cf_learner, load_ml100k, simulate_ratings
from fastcf.demo import test_rows_90_10
from benchmarks import keep

PER_USER = 3, 5, 10, 20, 50, 100

def tables(noises=(.6, 1.), users=600, seed=500):
    "(name, loaders) of tables that had no part in the choice of any default, and of MovieLens 100K"
    for n in PER_USER:
        for noise in noises:
            df = simulate_ratings(users, 300 if n < 50 else 800, users * n, 5, seed=seed + n, noise=noise)
            yield f'{n} a user, noise {noise}',CFDataLoaders.from_df(df, seed=1, device='cpu')
    yield 'MovieLens 100K',CFDataLoaders.from_df(load_ml100k().ratings, splitter=IndexSplitter(test_rows_90_10()), seed=0, device='cpu')

def fitted(dls, find=False, epochs=5, **kwargs):
    "Predictions for the validation rows after a fit"
    learn = cf_learner(dls, seed=0, **kwargs)
    with learn.no_bar(), learn.no_logging():
        try: lr = learn.find_lr(epochs).lr if find else None
        except ValueError: return None # too few rows to search on
        learn.fit(epochs) if kwargs.get('cbs') else learn.fit_one_cycle(epochs, lr)
        return learn.get_preds()[0].numpy()

def surprise_svd(dls):
    try: from surprise import SVD, Dataset, Reader
    except ImportError: return None
    t,v = dls.train_ds,dls.valid_ds
    df = pd.DataFrame(dict(u=t.users, i=t.items, r=t.ratings))
    algo = SVD(random_state=0).fit(Dataset.load_from_df(df, Reader(rating_scale=(1, 5))).build_full_trainset())
    return np.array([algo.predict(int(u), int(i)).est for u,i in zip(v.users, v.items)])

def myfm_ids(dls, sweeps=100):
    try: import myfm; from scipy.sparse import csr_matrix
    except ImportError: return None
    c = dls.catalog
    def _design(t):
        n,cols = len(t),np.stack([t.users.numpy(), len(c.user) + t.items.numpy()], 1)
        return csr_matrix((np.ones(2 * n), cols.ravel(), np.arange(0, 2 * n + 1, 2)), shape=(n, len(c.user) + len(c.item)))
    model = myfm.MyFMRegressor(rank=5, random_seed=0).fit(_design(dls.train_ds), dls.train_ds.ratings.numpy(), n_iter=sweeps, n_kept_samples=sweeps // 2)
    return model.predict(_design(dls.valid_ds))

WAYS = {'default': fitted, 'default, y_range': lambda d: fitted(d, y_range=(.5, 5.5)), 'find_lr': lambda d: fitted(d, True), 'find_lr, y_range': lambda d: fitted(d, True, y_range=(.5, 5.5)),
        'Gibbs': lambda d: fitted(d, factor_count=5, epochs=60, cbs=Gibbs()), 'Surprise SVD': surprise_svd, 'myfm': myfm_ids}

def main(noises=(.6, 1.), ways=tuple(WAYS)):
    warnings.simplefilter('ignore')
    rows = []
    for table,dls in tables(noises):
        v = dls.valid_ds
        targs = v.ratings.numpy()
        error = lambda p: np.square(np.clip(p, 1, 5) - targs)
        base = error(cf_learner(dls).means(v.users, v.items).numpy())
        means = base.mean()**.5
        rows.append(dict(table=table, way='means', rmse=means))
        for name in ways:
            preds = WAYS[name](dls)
            if preds is None: continue
            off = error(preds)
            se = (off - base).std() / len(off)**.5 / (2 * means) # paired, of the difference of the two RMSE
            rows.append(dict(table=table, way=name, rmse=off.mean()**.5, over_means=off.mean()**.5 - means, paired_se=se))
        print(table, {r['way']: round(float(r['rmse']), 4) for r in rows if r['table'] == table}, flush=True)
    df = pd.DataFrame(rows).set_index(['table', 'way'])
    print('\nRMSE, and how much higher (+) or lower (-) than that of the means\n' + df.over_means.unstack('way', sort=False).drop(columns='means').assign(means=df.rmse.unstack('way').means).round(4).to_string())
    worse = df[(df.over_means > df.paired_se) & df.index.get_level_values('way').str.match('default|find_lr')]
    print(f"Worse than the means by more than the paired standard error: {'none' if worse.empty else chr(10) + worse.round(4).to_string()}")
    keep(df, 'sparse')

if __name__ == '__main__': main()
