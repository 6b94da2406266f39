"""Each argument of each function that users call, wrong in turn: fastcf's own error that names it, or a result, never a bare one

Calls are made from the signatures: a right call is listed for each function, and each of its arguments is replaced by each of some thirty wrong values.
`python tests/test_api.py [wing [start of a function's name]]` prints how many calls there are and every bare error.
"""
import inspect, io, os, re, sys, tempfile, warnings
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
os.environ.setdefault('MPLBACKEND', 'agg')
import matplotlib.pyplot as plt
import numpy as np, pandas as pd, pytest, torch
import fastcf.all
import fastcf.watch.stats
globals().update({k: v for k,v in (vars(fastcf.watch.stats) | vars(fastcf.all)).items() if not k.startswith(('_', 'test'))}) # fastcore's test_eq would be taken for a test
from fastcf.core import check_count, check_range, check_share, stable_topk
from copy import deepcopy
from fastai.learner import load_learner
from fastcf.bayes.foldin import estimate_prior
from fastcf.interview.questions import Interviewer

class Stranger:
    "Something that no argument expects"
    def __repr__(self): return '<a stranger>'

@cache
def world():
    "Small ratings, a learner fitted to them, what is made from it, and a learner of other people"
    df = simulate_ratings(40, 30, 700, 3, seed=0)
    users = pd.DataFrame(dict(user=sorted(df.user.unique()))).assign(age=lambda o: o.user % 50 + 15, sex=lambda o: np.where(o.user % 2, 'f', 'm'))
    items = pd.DataFrame(dict(item=sorted(df.item.unique()))).assign(title=lambda o: 'Film ' + o.item.astype(str), genre=lambda o: np.where(o.item % 3, 'drama', 'comedy'))
    def learner(df, seed, y_range=(.5, 5.5), **kwargs):
        learn = cf_learner(CFDataLoaders.from_df(df, valid_pct=.2, seed=seed, bs=64, **kwargs), factor_count=4, y_range=y_range, seed=seed)
        with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(2)
        return learn
    learn,other = learner(df, 0, users=users, items=items),learner(simulate_ratings(30, 20, 400, 2, seed=1).assign(user=lambda o: o.user + 10_000), 1)
    plain = learner(df, 0, y_range=None)
    one = dict(df[['item', 'rating']].drop_duplicates('item').head(5).itertuples(index=False, name=None))
    newcomers = df.head(30).assign(user=lambda o: o.user + 500)
    genres = pd.get_dummies(items.set_index('item').genre).astype(float)
    watched = EmbeddingStats()
    with learn.no_bar(), learn.no_logging(): learn.fit(1, cbs=watched)
    folder = Path(tempfile.mkdtemp())
    learn.save_recommender(folder/'films', samples=4)
    df.to_parquet(folder/'ratings.parquet')
    encode_ratings(folder/'ratings.parquet', folder/'numbered')
    return dict(df=df, users=users, items=items, learn=learn, plain=plain, other=other, one=one, newcomers=newcomers, folder=folder, genres=genres, watched=watched,
                lists=learn.recommend(k=8), test=learn.dls.valid_ds and df.tail(90), vectors=learn.factors('item'), recommender=Recommender.load(folder/'films'))

def wrong_values(w):
    "What is put in place of an argument, by name"
    df,cut = w['df'],w['df'].head(20)
    return {'a stranger': Stranger(), 'a class': Stranger, 'a function': len, 'None': None, 'True': True, 'zero': 0, 'minus one': -1, 'a fraction': 1.5, 'a huge number': 10**12, 'NaN': float('nan'), 'infinity': float('inf'),
            'text': 'nonsense', 'no text': '', 'bytes': b'x', 'an empty list': [], 'an empty dict': {}, 'a list of None': [None], 'a list of text': ['nonsense', 'more'], 'a nested list': [[1, 2], [3]], 'a falling pair': (5, 1), 'three numbers': (1, 2, 3),
            'a dict of text': {'a': 'b'}, 'a dict of NaN': {df.item.iloc[0]: float('nan')}, 'a set': {1}, 'a date': pd.Timestamp('2020-01-01'), 'an empty frame': df.head(0), 'a frame without columns': pd.DataFrame(index=[0, 1]), 'a column less': cut.drop(columns=['item']),
            'ids as text': cut.assign(user=cut.user.astype(str) + 'x', item=cut.item.astype(str) + 'x'), 'NaN in a frame': cut.assign(user=cut.user.where(cut.user.index > 3), rating=float('nan')), 'other columns': cut.rename(columns=lambda c: f'{c}_1'), 'a column twice': pd.concat([cut, cut], axis=1),
            'an empty array': np.array([]), 'an array of NaN': np.full(3, np.nan), 'a table': np.zeros((2, 3)), 'an empty tensor': torch.zeros(0), 'a tensor': torch.zeros(2, 2), 'a learner of others': w['other'], 'the learner': w['learn'], 'the loaders': w['learn'].dls}

def lower(w):
    "Of the wings `core`, `data`, `learn` and `bayes`: (name, function that makes the callable, right arguments) of what is called"
    df,learn,users,items = w['df'],w['learn'],w['users'],w['items']
    some_users,some_items = df.user.head(3).tolist(),df.item.head(3).tolist()
    yield 'check_count',lambda: check_count,dict(name='k', value=3)
    yield 'check_share',lambda: check_share,dict(name='k', value=.3)
    yield 'check_range',lambda: check_range,dict(name='k', value=(1, 5))
    yield 'stable_topk',lambda: stable_topk,dict(scores=torch.rand(3, 9), k=2)
    yield 'simulate_ratings',lambda: simulate_ratings,dict(user_count=20, item_count=15, rating_count=100, factor_count=2, seed=0, noise=.9, rating_range=(1, 5), step=1, skew=1.2, with_truth=False)
    yield 'check_ratings',lambda: check_ratings,dict(df=df, user_name='user', item_name='item', rating_name='rating', rating_range=(1, 5), duplicates='error', time_name='timestamp')
    yield 'Vocab',lambda: Vocab,dict(ids=[3, 1, 2], name='item')
    yield 'Vocab.encode',lambda: Vocab([3, 1, 2], 'item').encode,dict(ids=[1, 2])
    yield 'Vocab.rows',lambda: Vocab([3, 1, 2], 'item').rows,dict(ids=[1, 2])
    for make,kwargs in ((TimeSplitter, dict(valid_pct=.2, time_name='timestamp')), (LeaveLastOutSplitter, dict(k=1, user_name='user', time_name='timestamp')), (ColdUserSplitter, dict(valid_pct=.2, seed=0, user_name='user')), (ColdItemSplitter, dict(valid_pct=.2, seed=0, item_name='item'))):
        yield make.__name__,lambda make=make: make,kwargs
        yield f'{make.__name__}()',lambda make=make, kwargs=kwargs: make(**kwargs),dict(o=df)
    yield 'MetadataEncoder',lambda: MetadataEncoder,dict(df=users.set_index('user'), min_count=2, max_values=20, bins=3)
    yield 'MetadataEncoder.encode',lambda: MetadataEncoder(users.set_index('user'), min_count=2).encode,dict(df=users.set_index('user'))
    yield 'CFDataLoaders.from_df',lambda: CFDataLoaders.from_df,dict(ratings=df, valid_pct=.2, user_name='user', item_name='item', rating_name='rating', splitter=None, seed=0, bs=64, val_bs=64, users=users, items=items, shuffle=True, drop_last=False, rating_range=(1, 5), duplicates='error', time_name='timestamp')
    yield 'dls.test_dl',lambda: learn.dls.test_dl,dict(test=df.head(9), with_labels=False, bs=8)
    yield 'dls.counts',lambda: learn.dls.counts,dict(side='item')
    yield 'dls.rows_with_ratings',lambda: learn.dls.rows_with_ratings,dict(ids=some_users, side='user')
    yield 'dls.show_batch',lambda: learn.dls.train.show_batch,dict(max_n=3, show=False)
    yield 'get_embeddings',lambda: get_embeddings,dict(row_count=5, col_count=3)
    yield 'EmbeddingDotBias',lambda: EmbeddingDotBias,dict(item_count=5, user_count=4, factor_count=3, y_range=(0, 5))
    yield 'cf_learner',lambda: cf_learner,dict(dls=learn.dls, factor_count=3, y_range=(.5, 5.5), from_means='auto', sparse='auto', lr=5e-3, wd=.2, seed=0)
    yield 'learn.predict',lambda: learn.predict,dict(users=some_users, items=some_items, unknown='nan', interval=.9, return_std=True)
    yield 'learn.predict frame',lambda: learn.predict,dict(users=df.head(5))
    yield 'learn.biases',lambda: learn.biases,dict(side='item', min_ratings=1)
    yield 'learn.factors',lambda: learn.factors,dict(side='item')
    yield 'learn.plot_map',lambda: learn.plot_map,dict(n=5, ax=None)
    yield 'learn.find_lr',lambda: learn.find_lr,dict(epochs=1, schedule='one_cycle', wd=.1, budget=1.6, runs=1, seed=0)
    yield 'learn.fold_in',lambda: learn.fold_in,dict(ratings=w['one'])
    yield 'learn.fold_in frame',lambda: learn.fold_in,dict(ratings=w['newcomers'])
    yield 'learn.fold_in_items',lambda: learn.fold_in_items,dict(ratings=df.head(20).assign(item=lambda o: o.item + 900))
    yield 'learn.add_users',lambda: deepcopy(learn).add_users,dict(ratings=w['newcomers'], unknown='error')
    yield 'learn.add_items',lambda: deepcopy(learn).add_items,dict(ratings=df.head(20).assign(item=lambda o: o.item + 900), unknown='error')
    yield 'learn.add_ratings',lambda: deepcopy(learn).add_ratings,dict(ratings=w['newcomers'])
    folded = lambda: learn.fold_in(w['newcomers'])
    yield 'Folded.predict',lambda: folded().predict,dict(items=some_items)
    yield 'Folded.recommend',lambda: folded().recommend,dict(k=3, exclude_seen=True, min_ratings=1)
    yield 'Folded.update',lambda: learn.fold_in(w['one']).update,dict(ratings={some_items[0]: 4})
    yield 'ALS',lambda: ALS,dict(penalty=10.)
    yield 'Gibbs',lambda: Gibbs,dict(burn_in=1, metadata=True, who_rated=False, time_bins=(), keep=5, seed=0)
    yield 'learn.sample_posterior',lambda: w['plain'].sample_posterior,dict(sample_count=2, burn_in=1, seed=0)
    posterior = cache(lambda: w['plain'].sample_posterior(4, 1, seed=0))
    yield 'Posterior.predict',lambda: posterior().predict,dict(users=some_users, items=some_items, interval=.9, return_std=True)
    yield 'Posterior.calibration',lambda: posterior().calibration,dict(levels=(.5, .9), side=None)

def rank(w):
    df,learn,lists,test,vectors,genres = (w[o] for o in 'df learn lists test vectors genres'.split())
    some_users,some_items = df.user.head(3).tolist(),df.item.head(3).tolist()
    yield 'learn.recommend',lambda: learn.recommend,dict(users=some_users, k=3, exclude_seen=True, min_ratings=1, items=some_items, rank_by='rating', unknown='skip')
    yield 'learn.similar_items',lambda: learn.similar_items,dict(items=some_items, k=3, min_ratings=1)
    yield 'learn.similar_users',lambda: learn.similar_users,dict(users=some_users, k=3, min_ratings=1)
    yield 'learn.learn_choice',lambda: deepcopy(learn).learn_choice,dict(sweeps=1, factor_count=4)
    yield 'learn.set_choice',lambda: deepcopy(learn).set_choice,dict(model=None, asked=True)
    yield 'learn.explain',lambda: learn.explain,dict(user=some_users[0], item=some_items[0], k=2)
    yield 'IALS',lambda: IALS,dict(factor_count=4, unobserved=.3, penalty=.01, lowest=.5, recency=None, steps=2, seed=0)
    yield 'Fade',lambda: Fade,dict(choices=10., days=None, floor=0.)
    timed = CFDataLoaders.from_df(df, splitter=LeaveLastOutSplitter(), time_name='timestamp', seed=0, device='cpu')
    reader = cache(lambda: sequence_learner(timed, 8, length=5, seed=0))
    yield 'window_loaders',lambda: window_loaders,dict(dls=timed, length=5, bs=8, seed=0)
    yield 'sequence_learner',lambda: sequence_learner,dict(dls=timed, factor_count=8, length=5, layers=1, heads=2, dropout=.2, bs=8, lr=1e-3, wd=.1, metrics=None, seed=0)
    yield 'SequenceModel',lambda: SequenceModel,dict(counts=timed.counts(), factor_count=8, length=5, layers=1, heads=2, dropout=.2)
    yield 'sequence.recommend',lambda: reader().recommend,dict(users=some_users, k=3, exclude_seen=True, min_ratings=1)
    yield 'sequence.recommend history',lambda: reader().recommend,dict(history=df.head(20), k=3, unknown='drop')
    yield 'Blend',lambda: Blend,dict(recommenders=[EASE(timed), reader()], weights=(.5, .5))
    yield 'choose_weights',lambda: choose_weights,dict(recommenders=[EASE(timed), MostPopular(timed)], test=df.tail(90), k=5, parts=2, max_users=9, samples=5, seed=0)
    yield 'MostPopular',lambda: MostPopular,dict(dls=learn.dls)
    yield 'MostPopular.recommend',lambda: MostPopular(learn.dls).recommend,dict(users=some_users, k=3, exclude_seen=True, min_ratings=1)
    yield 'EASE',lambda: EASE,dict(dls=learn.dls, penalty=300., window=None, fade=None, max_items=100)
    yield 'SLIM',lambda: SLIM,dict(dls=learn.dls, penalty=10., price=1., window=None, fade=None, max_items=100)
    for f in (hit_rate, recall, capped_recall, precision, mrr, mean_average_precision): yield f.__name__,lambda f=f: f,dict(lists=lists, test=test, k=5, per_user=False)
    yield 'ndcg',lambda: ndcg,dict(lists=lists, test=test, k=5, gain='linear', per_user=False)
    yield 'match_lists',lambda: match_lists,dict(lists=lists, test=test, k=5, gain='binary')
    yield 'auc',lambda: auc,dict(lists=lists, test=test, candidates=30, per_user=False)
    for f in (coverage, gini): yield f.__name__,lambda f=f: f,dict(lists=lists, item_count=30, item_name='item')
    for f in (novelty, popularity): yield f.__name__,lambda f=f: f,dict(lists=lists, train=df, item_name='item', user_name='user')
    yield 'diversity',lambda: diversity,dict(lists=lists, vectors=vectors, item_name='item', user_name='user')
    for f in (NDCG, HitRate, RecallAt, PrecisionAt, MRR): yield f.__name__,lambda f=f: f,dict(k=5, liked=4.)
    yield 'valid_frame',lambda: valid_frame,dict(dls=learn.dls, liked=4.)
    yield 'user_scores',lambda: user_scores,dict(learn=learn, test=test, metrics=('ndcg',), k=5, liked=4.)
    yield 'evaluate',lambda: evaluate,dict(learns=[learn], test=test, metrics=('ndcg',), k=5, liked=4., interval=.9, by=None, seed=0)
    yield 'compare',lambda: compare,dict(a=learn, b=MostPopular(learn.dls), test=test, metrics=('ndcg',), k=5, liked=4., interval=.9, samples=20, seed=0)
    figures = cache(lambda: evaluate(learn, test))
    yield 'plot_evaluation',lambda: plot_evaluation,dict(df=figures(), ax=None)
    yield 'fold_splitters',lambda: fold_splitters,dict(count=3, seed=0)
    yield 'rolling_splitters',lambda: rolling_splitters,dict(count=2, share=.1, time_name='timestamp')
    yield 'cross_evaluate',lambda: cross_evaluate,dict(make=MostPopular, df=df, splitters=fold_splitters(2), metrics=('ndcg',), k=5, liked=4., loaders=None)
    scores = torch.rand(5, 4)
    yield 'bpr_loss',lambda: bpr_loss,dict(scores=scores, weights=torch.ones(5))
    yield 'warp_loss',lambda: warp_loss,dict(scores=scores, weights=torch.ones(5), item_count=10)
    yield 'sampled_softmax_loss',lambda: sampled_softmax_loss,dict(scores=scores, weights=torch.ones(5), log_q=torch.zeros(5, 4))
    yield 'gbce_loss',lambda: gbce_loss,dict(scores=scores, weights=torch.ones(5), sampled=.1, calibration=.75)
    yield 'Uniform',lambda: Uniform,dict(count=4, seed=0)
    yield 'Popular',lambda: Popular,dict(count=4, alpha=.75, seed=0)
    yield 'InBatch',lambda: InBatch,dict(count=4, seed=0)
    yield 'Hard',lambda: Hard,dict(count=2, among=4, seed=0)
    yield 'Negatives',lambda: Negatives,dict(sampler=Uniform(), log_q=True)
    for f in (mmr, dpp): yield f.__name__,lambda f=f: f,dict(lists=lists, vectors=vectors, k=3, diversity=.3, score='prediction', user_name='user', item_name='item')
    yield 'genre_shares',lambda: genre_shares,dict(history=df, genres=genres, user_name='user', item_name='item')
    yield 'miscalibration',lambda: miscalibration,dict(lists=lists, history=df, genres=genres, user_name='user', item_name='item')
    yield 'calibrate',lambda: calibrate,dict(lists=lists, history=df, genres=genres, k=3, weight=.5, score='prediction', user_name='user', item_name='item')

def watch(w):
    learn,watched = w['learn'],w['watched']
    yield 'EmbeddingStats',lambda: EmbeddingStats,dict(every='epoch', tables=None, to=None, show=(), stop_on=(), live=False, seed=0)
    yield 'EmbeddingStats.plot',lambda: watched.plot,dict(statistics=None, tables=None)
    yield 'EmbeddingStats.plot_hist',lambda: watched.plot_hist,dict(table='item_weight', bins=10, ax=None)
    yield 'EmbeddingStats.plot_spectrum',lambda: watched.plot_spectrum,dict(table='item_weight', ax=None)
    yield 'EmbeddingStats.plot_map',lambda: watched.plot_map,dict(n=5, titles=None, table='item_weight', ax=None)
    yield 'CSVSink',lambda: CSVSink,dict(file='stats.csv')
    yield 'embedding_tables',lambda: embedding_tables,dict(model=learn.model, names=['item_weight'])
    yield 'RowCounts',lambda: RowCounts,dict(tables=None)
    yield 'BestTables',lambda: BestTables,dict(monitor='valid_loss', comp=None, tables=None)
    yield 'AverageTables',lambda: AverageTables,dict(decay=.99, every=2, tables=None)
    table = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    for f in (row_norms, effective_rank, information_abundance, mean_cosine): yield f.__name__,lambda f=f: f,dict(table=table)
    yield 'quantiles',lambda: quantiles,dict(values=table, qs=(.1, .5))
    yield 'singular_values',lambda: singular_values,dict(table=table, center=True)
    yield 'variance_share',lambda: variance_share,dict(table=table, first=1)
    yield 'uniformity',lambda: uniformity,dict(table=table, t=2., sample=10, seed=0)
    yield 'alignment',lambda: alignment,dict(a=table, b=table, power=2.)
    yield 'hubness',lambda: hubness,dict(table=table, neighbours=3, sample=10, seed=0)
    yield 'drift',lambda: drift,dict(before=table, now=table + .1)
    for f,a,b in ((never_updated, 'start', 'now'), (stopped_moving, 'last', 'now')): yield f.__name__,lambda f=f: f,{a: table, b: table + .1, 'tol': 1e-4}
    yield 'popularity_correlation',lambda: popularity_correlation,dict(values=table[:, 0], counts=torch.arange(20), sample=10, seed=0)
    yield 'update_ratio',lambda: update_ratio,dict(before=table, after=table + .1)
    yield 'flat',lambda: flat,dict(preds=table[:, 0], y_range=(.5, 5.5), slope=.1)

def scale(w):
    learn,folder = w['learn'],w['folder']
    yield 'FusedSGD',lambda: FusedSGD,dict(lr=.05, wd=.1, wd_bias=.01, pct_start=.1, threads=1)
    yield 'encode_ratings',lambda: encode_ratings,dict(parquet=folder/'ratings.parquet', folder=folder/'again', user_name='user', item_name='item', rating_name='rating', valid_pct=.2, seed=0)
    yield 'open_ratings',lambda: open_ratings,dict(folder=folder/'numbered')
    yield 'CFDataLoaders.stream_parquet',lambda: CFDataLoaders.stream_parquet,dict(parquet=folder/'ratings.parquet', folder=folder/'again', user_name='user', item_name='item', rating_name='rating', valid_pct=.2, seed=0, bs=64, val_bs=64)
    yield 'StreamDL',lambda: StreamDL,dict(dataset=open_ratings(folder/'numbered')[0], bs=64, shuffle=True, drop_last=False, window=256, block=64, rank=0, world=1)
    for f in (RowwiseSGD, RowwiseAdagrad, RowwiseAdam): yield f.__name__,lambda f=f: f,dict(params=[[nn.Parameter(torch.zeros(3, 2))]], lr=.1, wd=.1)
    yield 'learn.data_parallel',lambda: learn.data_parallel,dict(timeout=45.)
    yield 'learn.sharded',lambda: learn.sharded,dict(timeout=45.)
    yield 'sharded_dot_bias',lambda: sharded_dot_bias,dict(factor_count=4, y_range=(.5, 5.5), timeout=45.)
    yield 'learn.save_shards',lambda: learn.save_shards,dict(folder=folder/'shards')
    yield 'learn.load_shards',lambda: learn.load_shards,dict(folder=learn.save_shards(folder/'shards_kept'))

def serve(w):
    df,learn,r,folder = w['df'],w['learn'],w['recommender'],w['folder']
    some_users,some_items = df.user.head(3).tolist(),df.item.head(3).tolist()
    yield 'CheckpointCallback',lambda: CheckpointCallback,dict(folder='kept', every='epoch', keep=2, resume=False)
    yield 'learn.list_checkpoints',lambda: learn.list_checkpoints,dict(folder='kept')
    yield 'learn.save_recommender',lambda: learn.save_recommender,dict(folder=folder/'again', notes='', metrics=None, interview=False, proxies=None, samples=4)
    yield 'Recommender.load',lambda: Recommender.load,dict(folder=folder/'films')
    yield 'Recommender.predict',lambda: r.predict,dict(users=some_users, items=some_items, unknown='nan', interval=.9, return_std=True)
    yield 'Recommender.recommend',lambda: r.recommend,dict(users=some_users, k=3, exclude_seen=True, min_ratings=1, items=some_items, rank_by='rating', unknown='skip')
    yield 'Recommender.similar_items',lambda: r.similar_items,dict(items=some_items, k=3, min_ratings=1)
    yield 'Recommender.similar_users',lambda: r.similar_users,dict(users=some_users, k=3, min_ratings=1)
    yield 'Recommender.biases',lambda: r.biases,dict(side='item', min_ratings=1)
    yield 'Recommender.factors',lambda: r.factors,dict(side='item')
    yield 'Recommender.titles',lambda: r.titles,dict(ids=some_items)
    yield 'Recommender.fold_in',lambda: r.fold_in,dict(ratings=w['one'], prior=None, unknown='error')
    yield 'Recommender.fold_in_items',lambda: r.fold_in_items,dict(ratings=df.head(20).assign(item=lambda o: o.item + 900), prior=None, unknown='error')
    yield 'Recommender.interview',lambda: r.interview,dict(page_size=3, pages=2, strategy='adaptive', about=None, min_gain=0., seed=0, proxies=None, state=None)

def cold(w):
    df,learn,users,items = w['df'],w['learn'],w['users'],w['items']
    yield 'learn.errors_by_count',lambda: learn.errors_by_count,dict(side='item', edges=(0, 5, 20), interval=.9)
    yield 'learn.plot_errors_by_count',lambda: learn.plot_errors_by_count,dict(side='item', ax=None)
    yield 'MetadataPrior',lambda: MetadataPrior,dict(learn=learn, side='user', df=users, engine='linear', folds=2, max_rows=100, seed=0)
    prior = cache(lambda: MetadataPrior(learn, 'user', users))
    yield 'MetadataPrior.prior',lambda: prior().prior,dict(df=users.head(3).assign(user=lambda o: o.user + 900), ids=None)
    yield 'ProxyQuestions',lambda: ProxyQuestions,dict(learn=learn, attribute='genre', side='item', df=items, max_values=10)
    questions = cache(lambda: ProxyQuestions(learn, 'genre'))
    yield 'proxies',lambda: proxies,dict(questions=questions())
    yield 'answer_proxies',lambda: answer_proxies,dict(questions=questions(), answers={'drama': 4.}, base=estimate_prior(learn), before=None)
    new = df.assign(item=lambda o: o.item + 900)
    yield 'first_ratings',lambda: first_ratings,dict(learn=learn, answers=new.iloc[:60], test=new.iloc[60:120], priors=None, side='item', counts=(0, 2), rating_range=(1, 5), seed=0)
    curve = cache(lambda: first_ratings(learn, new.iloc[:60], new.iloc[60:120], counts=(0, 2)))
    yield 'plot_first_ratings',lambda: plot_first_ratings,dict(df=curve(), value='rmse', ax=None)
    yield 'learn.attach_prior',lambda: deepcopy(learn).attach_prior,dict(users=users, items=items)
    yield 'learn.detach_prior',lambda: deepcopy(learn).detach_prior,dict(users=True, items=True)

def interview(w):
    df,learn = w['df'],w['learn']
    some_items,teach = df.item.head(3).tolist(),cache(lambda: Interviewer(learn))
    yield 'Interviewer',lambda: Interviewer,dict(learn=learn, seed=0)
    yield 'Interview',lambda: Interview,dict(learn=teach(), page_size=3, pages=2, strategy='adaptive', about=None, min_gain=0., seed=0, proxies=None)
    def opened():
        iv = Interview(teach(), page_size=4, pages=2)
        iv.page = iv.next_page()
        return iv
    def answered():
        iv = opened()
        iv.answer({iv.page['item'].iloc[0]: 4})
        return iv
    yield 'Interview.answer',lambda: opened().answer,dict(replies={opened().page['item'].iloc[0]: 4}, done=True)
    yield 'Interview.skip',lambda: opened().skip,dict(items=None)
    yield 'Interview.recommend',lambda: answered().recommend,dict(k=3, min_ratings=1)
    yield 'Interview.explain',lambda: answered().explain,dict(item=some_items[0])
    yield 'Interview.add_to',lambda: answered().add_to,dict(learn=deepcopy(learn), id=9_999)
    yield 'Interview.from_json',lambda: Interview.from_json,dict(learn=teach(), text=answered().to_json(), proxies=None)
    new = df.assign(user=lambda o: o.user + 900)
    yield 'simulate_interview',lambda: simulate_interview,dict(learn=teach(), answers=new.iloc[:60], test=new.iloc[60:120], strategies=('popular',), page_size=3, pages=1, users=None, rating_range=(1, 5), seed=0, proxies=None)
    lines = cache(lambda: simulate_interview(teach(), new.iloc[:60], new.iloc[60:120], ('popular',), 3, 1))
    yield 'plot_interviews',lambda: plot_interviews,dict(df=lines(), value='rmse', ax=None)

WINGS = dict(lower=lower, rank=rank, watch=watch, scale=scale, serve=serve, cold=cold, interview=interview)

OURS = RatingsError,UnknownIdError
def is_bare(e, name, function):
    "Whether an error is not one of ours and does not name the argument"
    if isinstance(e, OURS): return False
    if isinstance(e, (ValueError, TypeError, OSError, NotImplementedError)):
        return not re.search(rf'\b{re.escape(name)}\b', str(e)) and not re.search(r'\b(fastcf|Pass|expected|Give|give|Keep|Rename|Call)\b', str(e))
    return True

FUNCTIONS,CALLABLE = {'metrics', 'make', 'loaders', 'splitter', 'splitters', 'suggest_funcs', 'comp'},{'a class', 'a function', 'the learner', 'a learner of others'} # what a function of the user's raises is theirs

def calls(w, wing):
    "(function's name, argument, name of the wrong value, a call) of each"
    for function,make,right in WINGS[wing](w):
        for name in right:
            for label,wrong in wrong_values(w).items():
                if name in FUNCTIONS and label in CALLABLE: continue
                yield function,name,label,(lambda make=make, right=right, name=name, wrong=wrong: make()(**{**right, name: wrong}))

def attempt(call):
    "The error of a call, or `None`"
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter('ignore')
        try: call()
        except Exception as e: return e
        finally: plt.close('all')

def finds(wing, of=None):
    "Number of calls, and (function, argument, wrong value, error) of each bare error"
    count,found,w,here = 0,[],world(),os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder) # a text is the name of a file
        try:
            for function,name,label,call in calls(w, wing):
                if of and not re.match(of, function): continue
                count += 1
                if (e := attempt(call)) is not None and is_bare(e, name, function): found.append((function, name, label, f'{type(e).__name__}: {str(e)[:150]}'))
        finally: os.chdir(here)
    return count,found

QUICK = r'^(check_|stable_topk|simulate_ratings|Vocab|TimeSplitter|LeaveLastOut|ColdUser|ColdItem|MetadataEncoder|get_embeddings|EmbeddingDotBias)' # of the lower wings

@pytest.fixture
def bounded():
    "Four gigabytes more than now, and no further: what a huge number would have made is a `MemoryError`, and a bare one"
    if not Path('/proc/self/status').exists(): yield; return
    import resource
    was,size = resource.getrlimit(resource.RLIMIT_AS),int(re.search(r'VmSize:\s+(\d+)', Path('/proc/self/status').read_text())[1]) * 2**10
    resource.setrlimit(resource.RLIMIT_AS, (size + 2**32, was[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, was)

@pytest.mark.parametrize('wing,of', [('lower', QUICK), *(pytest.param(o, None, marks=pytest.mark.slow) for o in WINGS)])
def test_no_bare_error(wing, of, bounded):
    count,found = finds(wing, of)
    assert count > 1000 and found == []

ELSEWHERE = {'add_cb', 'all_batches', 'create_opt', 'fit', 'validate', 'get_preds', 'show_results', 'load', 'save', 'export', 'lr_find', 'set_choice', 'learn_choice'} # fastai's own, or in tests/serve/test_pickles.py

@pytest.mark.slow
def test_a_loaded_learner_does_or_refuses_by_name(tmp_path):
    "Every public method that fastcf gives a learner, on what `load_learner` makes of an export"
    w = world()
    w['learn'].export(tmp_path/'x.pkl')
    with warnings.catch_warnings(): warnings.simplefilter('ignore'); loaded = load_learner(tmp_path/'x.pkl')
    ours = {n for n,o in inspect.getmembers(CFLearner, callable) if not n.startswith('_') and getattr(o, '__module__', '').startswith('fastcf') and n in vars(CFLearner)}
    done,refused,found = set(),set(),[]
    further = [('learn.baselines', None, {}), ('learn.choice_rows', None, dict(user=w['df'].user.iloc[0]))]
    for wing in [*WINGS.values(), lambda w: further]:
        for name,_,right in wing(w):
            if not name.startswith('learn.') or not name[6:].isidentifier(): continue
            if (e := attempt(lambda: getattr(deepcopy(loaded), name[6:])(**right))) is None: done.add(name[6:])
            elif isinstance(e, ValueError) and re.search('training (ratings|rows)|load_learner|exported', str(e)): refused.add(name[6:])
            else: found.append((name, f'{type(e).__name__}: {str(e)[:200]}'))
    assert found == [] and {'predict', 'recommend', 'fold_in', 'similar_items'} <= done and {'find_lr', 'save_recommender', 'add_users'} <= refused
    assert ours - done - refused - ELSEWHERE == set()

if __name__ == '__main__':
    import time
    for wing in sys.argv[1:2] or WINGS:
        t = time.time()
        count,found = finds(wing, *sys.argv[2:3])
        df = pd.DataFrame(found, columns=['function', 'argument', 'wrong', 'error'])
        for (f,a),part in df.groupby(['function', 'argument'], sort=False): print(f'{f}({a}=): {len(part)}\n' + '\n'.join(f'    {r.wrong}: {r.error}' for r in part.drop_duplicates('error').head(6).itertuples()))
        print(f'{wing}: {count} calls, {len(found)} bare errors, {len(df.groupby(["function", "argument"]))} arguments, {time.time()-t:.0f} s', flush=True)
