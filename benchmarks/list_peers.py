"""Lists beside those of LensKit and RecTools on ML-100K, without times: the protocols and measures of `benchmarks.ranking`.

`python -m benchmarks.list_peers` writes `list_peers.csv` in about twenty minutes of one core. It needs an environment of its own, since RecTools asks
for an older NumPy than is pinned here: `pip install torch==2.13.0 && pip install -e . -r benchmarks/list_peers.txt`.

*last* and *liked* are the mean of three seeds with their standard deviation, or one run of a method without chance; *five cuts* is the mean over each user's last five ratings, one seed, and `ahead`
by how much NDCG is ahead of the peer with the highest, with the standard error over users. Settings are chosen on validation rows alone, in each protocol. The last row is `Blend` of the SLIM and the
choice model above it, with weights from `choose_weights` on the same validation rows. Seconds are processor time of fitting. LensKit's FlexMF is left out: 282 s of fitting with the preset 'warp' and
20 epochs for an NDCG of .056 on *last*.
"""
import importlib, importlib.util, warnings
import numpy as np, pandas as pd, torch
from benchmarks import keep
from benchmarks.ranking import LAST, SEEDS, Scores, By, cut_splitters, grid, liked_loaders, loaders, measures, row, shown, tuned
from fastcf.data.sources import load_ml100k
from fastcf.rank.baselines import SLIM
from fastcf.rank.blend import Blend, choose_weights
from fastcf.rank.metrics import valid_frame

def pairs(dls): return pd.DataFrame(dict(user_id=dls.train_ds.users.numpy(), item_id=dls.train_ds.items.numpy()))

def lenskit(dls, seed, path, **kw):
    "Scores of one of LensKit's models, named by module and class"
    from lenskit.data import ItemList, RecQuery, from_interactions_df
    from lenskit.training import TrainingOptions
    module,name = path.split(':')
    model,data = getattr(importlib.import_module(f'lenskit.{module}'), name)(**kw),from_interactions_df(pairs(dls))
    model.train(data, TrainingOptions(rng=seed))
    items,table = ItemList(item_ids=data.items.ids()),np.full((len(dls.catalog.user), len(dls.catalog.item)), -np.inf, 'f')
    for u in data.users.ids():
        found = model(RecQuery(user_id=u, user_items=data.user_row(u)), items)
        table[u, found.ids()] = np.nan_to_num(np.asarray(found.scores(), 'f'), nan=-np.inf)
    return Scores(dls, table)

class RecTools:
    "Lists of one of RecTools' models, in ids"
    def __init__(self, dls, seed, kind, **kw):
        from implicit import nearest_neighbours
        from rectools import dataset, models
        self.dls,self.data = dls,dataset.Dataset.construct(pairs(dls).assign(weight=1., datetime=0))
        self.model = getattr(models, kind)(**kw) if hasattr(models, kind) else models.ImplicitItemKNNWrapperModel(getattr(nearest_neighbours, kind)(num_threads=1, **kw))
        self.model.fit(self.data)
    def recommend(self, users, k):
        c = self.dls.catalog
        df = self.model.recommend(self.dls.rows_with_ratings(users, 'user', 'error'), self.data, k=k, filter_viewed=True)
        return pd.DataFrame(dict(user=c.user.ids[df.user_id.to_numpy()], rank=df['rank'].to_numpy(), item=c.item.ids[df.item_id.to_numpy()], score=df.score.to_numpy()))

THEIRS = {
    'LensKit ImplicitMF': grid(lenskit, path=('als:ImplicitMFScorer',), embedding_size=(32, 64), regularization=(.1, 1.), weight=(2., 5.), epochs=(15,)),
    'LensKit user kNN': grid(lenskit, path=('knn:UserKNNScorer',), feedback=('implicit',), max_nbrs=(50, 100, 200)),
    'LensKit item kNN': grid(lenskit, path=('knn:ItemKNNScorer',), feedback=('implicit',), max_nbrs=(20, 50)),
    'LensKit EASE': grid(lenskit, path=('knn:EASEScorer',), regularization=(100., 300., 1000.)),
    'LensKit SLIM': grid(lenskit, path=('knn:SLIMScorer',), l1_reg=(.5, 1., 2.), l2_reg=(1., 10.), max_nbrs=(100, 200, None)),
    'RecTools EASE': grid(RecTools, kind=('EASEModel',), regularization=(100., 300., 1000.), num_threads=(1,)),
    'RecTools PureSVD': grid(RecTools, kind=('PureSVDModel',), factors=(20, 30, 50)),
    'RecTools item kNN': grid(RecTools, kind=('BM25Recommender', 'TFIDFRecommender', 'CosineRecommender'), K=(20, 50))}
def slim(dls, seed, **kw): return SLIM(dls, **kw)

OURS = {'fastcf EASE': LAST['EASE'], 'fastcf SLIM': grid(slim, price=(.5, 1., 2.), penalty=(1., 10.)), 'fastcf IALS': LAST['fastcf IALS']}
BLEND,PARTS = 'fastcf SLIM and IALS',('fastcf SLIM', 'fastcf IALS')

class Blended:
    "`Blend` of some methods, its weights chosen once, on validation rows"
    def __init__(self, makes, valid, protocol):
        right = valid_frame(valid, 4. if protocol == 'liked' else None)
        self.makes,self.keywords = makes,dict(weights=choose_weights(self.recommenders(makes, valid, 0), right))

    @staticmethod
    def recommenders(makes, dls, seed): return [getattr(o := f(dls, seed), 'learn', o) for f in makes]
    def __call__(self, dls, seed): return Blend(self.recommenders(self.makes, dls, seed), self.keywords['weights'])

def chosen(valid, protocol):
    "Each method with the settings that are best on validation rows"
    best = {who: tuned(makes, valid, protocol) for who,makes in (THEIRS | OURS).items()}
    return best | {BLEND: Blended([best[who] for who in PARTS], valid, protocol)}

def rows(ml):
    last,before = cut_splitters(2)
    for protocol,(valid,test) in dict(last=(loaders(ml, *before(ml.ratings)), loaders(ml, *last(ml.ratings))), liked=liked_loaders(ml)).items():
        for who,make in chosen(valid, protocol).items(): yield row(who, make, test, protocol, SEEDS if 'MF' in who or 'IALS' in who or 'SVD' in who else (0,))
    yield from five_rows(ml)

def five_rows(ml):
    *cuts,sixth = (loaders(ml, *cut(ml.ratings)) for cut in cut_splitters(6))
    best = chosen(sixth, 'last')
    found = {who: pd.concat([pd.DataFrame(measures(make(dls, 0), dls, 'last', per_user=True)) for dls in cuts]).groupby(level=0).mean() for who,make in best.items()}
    peer = max(THEIRS, key=lambda who: found[who].ndcg.mean())
    for who,o in found.items():
        less = o.ndcg - found[peer].ndcg
        yield dict(protocol='five cuts', who=who, **o.mean(), ahead=less.mean(), ahead_se=less.std() / len(less)**.5, settings=', '.join(f'{k}={v}' for k,v in best[who].keywords.items()))

def main(argv=()):
    torch.set_num_threads(1); warnings.simplefilter('ignore')
    if importlib.util.find_spec('rectools') is None or importlib.util.find_spec('lenskit') is None: return print("LensKit or RecTools is missing: pip install -e . -r benchmarks/list_peers.txt, in an environment of its own")
    df = pd.DataFrame(rows(load_ml100k())).set_index(['protocol', 'who'])
    keep(df, 'list_peers')
    shown(df)

if __name__ == '__main__': main()
