"The shipped models side by side, on MovieLens 100K: 90/10, cold users, cold items; test RMSE of predictions clipped to 1 to 5"
import numpy as np, pandas as pd, torch
from fastai.data.transforms import IndexSplitter
from fastcf.all import ColdItemSplitter, CFDataLoaders, EmbeddingDotBias, cf_learner, load_ml100k, neural_net, two_towers
from benchmarks import keep
from fastcf.demo import clipped_rmse, test_rows_90_10

Y = 0.5, 5.5
MODELS = {'EmbeddingDotBias': dict(y_range=Y), 'neural_net': dict(model=neural_net(layers=(100,), y_range=Y, dropout=.2, emb_dropout=.2), wd=.1),
          'two_towers': dict(model=two_towers(factor_count=50, y_range=Y), wd=.2)}

def cold_users(df):
    "Ratings of 235 of the 943 users, by the protocol of the cold start"
    users = np.sort(df.user.unique())
    return np.isin(df.user, users[np.random.default_rng(0).permutation(len(users))[:len(users) // 4]])

def splits(df):
    "Splitters by name; of the 90/10 rows the last tenth is the test"
    cold = cold_users(df)
    return {'90/10': IndexSplitter(test_rows_90_10(len(df))), 'cold users': lambda o: (~cold, cold), 'cold items': ColdItemSplitter(0.2, seed=0)}

def main(seeds=(0,), epochs=5, bs=512):
    ml,rows = load_ml100k(),{}
    for split,splitter in splits(ml.ratings).items():
        for seed in seeds:
            dls = CFDataLoaders.from_df(ml.ratings, users=ml.users, items=ml.items, splitter=splitter, seed=seed, bs=bs, device='cpu')
            v = dls.valid_ds
            for name,kwargs in MODELS.items():
                learn = cf_learner(dls, seed=seed, **kwargs)
                with learn.no_bar(), learn.no_logging():
                    learn.fit_one_cycle(epochs, 5e-3)
                    rows.setdefault((name, split), []).append(clipped_rmse(*learn.get_preds()))
            rows.setdefault(('user and item means', split), []).append(clipped_rmse(learn.means(v.users, v.items), v.ratings))
    table = pd.Series({k: np.mean(v) for k,v in rows.items()}).unstack()[['90/10', 'cold users', 'cold items']]
    keep(table, 'models')
    print(f'{len(seeds)} seeds, {epochs} epochs, batches of {bs}\n{table.round(4).to_string()}', flush=True)

if __name__ == '__main__': main()
