"""Each argument of each function that users call, wrong in turn: fastcf's own error that names it, or a result, never a bare one

Calls are made from the signatures: a right call is listed for each function, and each of its arguments is replaced by each of some thirty wrong values.
`python tests/test_api.py` prints how many calls there are and every bare error.
"""
import inspect, os, re, sys, tempfile, warnings
from functools import cache
from pathlib import Path
os.environ.setdefault('MPLBACKEND', 'agg')
import matplotlib.pyplot as plt
import numpy as np, pandas as pd, pytest, torch
import fastcf.all
globals().update({k: v for k,v in vars(fastcf.all).items() if not k.startswith(('_', 'test'))}) # fastcore's test_eq would be taken for a test
from fastcf.core import check_count, check_range, check_share, stable_topk

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
    return dict(df=df, users=users, items=items, learn=learn, plain=plain, other=other, one=one, newcomers=newcomers, folder=Path(tempfile.mkdtemp()))

def wrong_values(w):
    "What is put in place of an argument, by name"
    df,cut = w['df'],w['df'].head(20)
    return {'a stranger': Stranger(), 'a class': Stranger, 'a function': len, 'None': None, 'True': True, 'zero': 0, 'minus one': -1, 'a fraction': 1.5, 'a huge number': 10**12, 'NaN': float('nan'), 'infinity': float('inf'),
            'text': 'nonsense', 'no text': '', 'bytes': b'x', 'an empty list': [], 'an empty dict': {}, 'a list of None': [None], 'a list of text': ['nonsense', 'more'], 'a nested list': [[1, 2], [3]], 'a falling pair': (5, 1), 'three numbers': (1, 2, 3),
            'a dict of text': {'a': 'b'}, 'a dict of NaN': {df.item.iloc[0]: float('nan')}, 'a set': {1}, 'a date': pd.Timestamp('2020-01-01'), 'an empty frame': df.head(0), 'a frame without columns': pd.DataFrame(index=[0, 1]), 'a column less': cut.drop(columns=['item']),
            'ids as text': cut.assign(user=cut.user.astype(str) + 'x', item=cut.item.astype(str) + 'x'), 'NaN in a frame': cut.assign(user=cut.user.where(cut.user.index > 3), rating=float('nan')), 'other columns': cut.rename(columns=lambda c: f'{c}_1'), 'a column twice': pd.concat([cut, cut], axis=1),
            'an empty array': np.array([]), 'an array of NaN': np.full(3, np.nan), 'a table': np.zeros((2, 3)), 'an empty tensor': torch.zeros(0), 'a tensor': torch.zeros(2, 2), 'a learner of others': w['other'], 'the learner': w['learn'], 'the loaders': w['learn'].dls}

def targets(w):
    "(name, function that makes the callable, right arguments) of what is called"
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
    yield 'cf_learner',lambda: cf_learner,dict(dls=learn.dls, factor_count=3, y_range=(.5, 5.5), lr=5e-3, wd=.2, seed=0)
    yield 'learn.predict',lambda: learn.predict,dict(users=some_users, items=some_items, unknown='nan', interval=.9, return_std=True)
    yield 'learn.predict frame',lambda: learn.predict,dict(users=df.head(5))
    yield 'learn.biases',lambda: learn.biases,dict(side='item', min_ratings=1)
    yield 'learn.factors',lambda: learn.factors,dict(side='item')
    yield 'learn.plot_map',lambda: learn.plot_map,dict(n=5, ax=None)
    yield 'learn.recommend',lambda: learn.recommend,dict(users=some_users, k=3, exclude_seen=True, min_ratings=1, items=some_items)
    yield 'learn.similar_items',lambda: learn.similar_items,dict(items=some_items, k=3, min_ratings=1)
    yield 'learn.find_lr',lambda: learn.find_lr,dict(epochs=1, schedule='one_cycle', wd=.1, budget=.3, runs=1, seed=0)
    yield 'learn.fold_in',lambda: learn.fold_in,dict(ratings=w['one'])
    yield 'learn.fold_in frame',lambda: learn.fold_in,dict(ratings=w['newcomers'])
    yield 'learn.fold_in_items',lambda: learn.fold_in_items,dict(ratings=df.head(20).assign(item=lambda o: o.item + 900))
    yield 'learn.add_users',lambda: learn.add_users,dict(ratings=w['newcomers'])
    yield 'learn.errors_by_count',lambda: learn.errors_by_count,dict(side='item', edges=(0, 5, 20), interval=.9)
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
    yield 'MetadataPrior',lambda: MetadataPrior,dict(learn=learn, side='user', df=users, engine='linear', folds=2, seed=0)
    prior = cache(lambda: MetadataPrior(learn, False, users))
    yield 'MetadataPrior.prior',lambda: prior().prior,dict(df=users.head(3).assign(user=lambda o: o.user + 900))
    yield 'Interview',lambda: Interview,dict(learn=learn, page_size=3, pages=2, strategy='adaptive', about=None, min_gain=0., seed=0)
    def opened():
        iv = Interview(learn, page_size=4, pages=2)
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

OURS = RatingsError,UnknownIdError
def is_bare(e, name, function):
    "Whether an error is not one of ours and does not name the argument"
    if isinstance(e, OURS): return False
    if isinstance(e, (ValueError, TypeError, OSError, NotImplementedError)):
        return not re.search(rf'\b{re.escape(name)}\b', str(e)) and not re.search(r'\b(fastcf|Pass|expected|Give|give)\b', str(e))
    return True

BIG = {'a huge number', 'infinity'}

def calls(w):
    "(function's name, argument, name of the wrong value, a call) of each"
    for function,make,right in targets(w):
        for name in right:
            for label,wrong in wrong_values(w).items():
                if label in BIG and isinstance(right[name], (int, np.integer)) and not isinstance(right[name], bool): continue # memory and hours, not errors
                yield function,name,label,(lambda make=make, right=right, name=name, wrong=wrong: make()(**{**right, name: wrong}))

def attempt(call):
    "The error of a call, or `None`"
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try: call()
        except Exception as e: return e
        finally: plt.close('all')

def finds(w, of=None):
    "Number of calls, and (function, argument, wrong value, error) of each bare error"
    count,found = 0,[]
    for function,name,label,call in calls(w):
        if of and not re.search(of, function): continue
        count += 1
        if (e := attempt(call)) is not None and is_bare(e, name, function): found.append((function, name, label, f'{type(e).__name__}: {str(e)[:150]}'))
    return count,found

SOUND = r'^(check_|stable_topk|simulate_ratings|Vocab|TimeSplitter|LeaveLastOut|ColdUser|ColdItem|MetadataEncoder|get_embeddings|EmbeddingDotBias)' # what holds; the others are being gone through

def test_no_bare_error():
    count,found = finds(world(), SOUND)
    assert count > 1000 and found == []

if __name__ == '__main__':
    import time
    t = time.time()
    count,found = finds(world(), *sys.argv[1:2])
    df = pd.DataFrame(found, columns=['function', 'argument', 'wrong', 'error'])
    for (f,a),part in df.groupby(['function', 'argument'], sort=False): print(f'{f}({a}=): {len(part)}\n' + '\n'.join(f'    {r.wrong}: {r.error}' for r in part.drop_duplicates('error').head(6).itertuples()))
    print(f'{count} calls, {len(found)} bare errors, {len(df.groupby(["function", "argument"]))} arguments, {time.time()-t:.0f} s')
