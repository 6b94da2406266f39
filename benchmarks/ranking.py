"""Lists beside implicit's, EASE's and the most popular items on ML-100K, all items ranked, settings chosen on validation rows.

`python -m benchmarks.ranking` needs the extra `bench`, takes about twenty minutes of one core and writes `benchmarks/ranking.csv`; `--only speed` writes `ranking_speed` and
`ranking_lists` alone, on simulated choices, one thread, processor time: what an iteration costs beside implicit's (`--choices`), and lists a second. Two protocols. *last*: each user's last
rating by (timestamp, row) against all items not in that user's training rows; settings are chosen with the second-to-last held out. *liked*:
a random tenth is the test, its rows rated 4 and more are right, settings are chosen with a tenth of the training rows held out.
*five cuts*: the mean over each user's last five ratings, each with all that came before it, settings chosen on the sixth; `ahead` is by how much NDCG is ahead of the peer
with the highest, with the standard error over users. Every row of the other protocols is the mean of three seeds with their standard deviation; a method without chance has one run. `ndcg` of *liked* is over users with a
right item, `recall` is over min(10, right items); `value_ahead` is by how much the order by value is ahead in it, with the standard error over users. Seconds are processor time of fitting.

`--only gradient` (twenty minutes) renews the rows of dot products that are trained to rank through the Learner: the full softmax (`softmax_learner`), two losses
that see 32 items beside each choice, and `FusedSGD`.

`--only index` (ten minutes) writes `ranking_index`: the ten best of a million items for one user, exactly and by `ItemIndex`.

`--only sequence` (three quarters of an hour of one core) renews the rows of models that read histories in order: SASRec without anything of fastcf, 64 wide, with two layers, a dropout of 0.4 and windows
of 100, as was best for it on validation rows; ours with its defaults, chosen on each user's tenth to sixth last; and ours blended with the closed forms, whose settings and weights are chosen on the sixth
to last. Three seeds; `ahead` is that of each user's mean over them, in *last* ahead of SASRec.
"""
import argparse, os, sys, time, warnings
from functools import partial
from unittest.mock import patch as replaced
from benchmarks import keep
from benchmarks.sasrec import sasrec_scores
from benchmarks.scale import skewed_ratings
import numpy as np, pandas as pd, torch
from torch.nn import functional as F
from scipy import sparse
from fastcf.data.sources import load_ml100k
from fastcf.data.loaders import CFDataLoaders, RatingsDL
from fastcf.learn.learner import cf_learner
import fastcf.learn.predict
import fastcf.bayes.engines # `learn.sample_posterior`
from fastcf.rank import sweeps
from fastcf.rank.sweeps import choice_groups, start_choices, sweep_choices
from fastcf.rank.fade import Fade
from fastcf.rank.choice import ChoiceModel
from fastcf.rank.nearest import ItemIndex
from fastcf.scale.fused import FusedSGD
from fastcf.rank.best import top_scores
from fastcf.rank.topn import ranked_frame, strike_seen
from fastcf.rank.baselines import EASE, MostPopular
from fastcf.rank.evaluate import cut_splitters
from fastcf.rank.blend import Blend, choose_weights
from fastcf.rank.losses import Negatives, Popular, Uniform, bpr_loss, gbce_loss
from fastcf.rank.sequence import sequence_learner
from fastcf.rank.softmax import softmax_learner, user_loaders
from fastcf.rank.metrics import capped_recall, hit_rate, ndcg, valid_frame

SEEDS = 0, 1, 2
ORDERS = 'rating', 'chance', 'value'

def loaders(ml, train, test, times=False):
    return CFDataLoaders.from_df(ml.ratings, user_name='user', item_name='item', rating_name='rating', splitter=lambda _: (train, test), users=ml.users, items=ml.items,
                                 time_name='timestamp' if times else None, device='cpu', seed=0)

class Scores:
    "Lists from a table of scores [users, items]"
    def __init__(self, dls, table): self.dls,self.table = dls,torch.as_tensor(table)
    def recommend(self, users, k):
        c,rows = self.dls.catalog,torch.as_tensor(self.dls.rows_with_ratings(users, 'user', 'error'))
        scores = self.table[rows].float().clone()
        scores[:, self.dls.counts() < 1] = -torch.inf
        strike_seen(scores, rows, self.dls.seen)
        values,cols = top_scores(scores, k)
        return ranked_frame(c, 'user', users, 'item', cols, dict(score=values))

def implicit_model(dls, seed, kind='als', **kw):
    import implicit
    t,c = dls.train_ds,dls.catalog
    x = sparse.csr_matrix((np.ones(len(t), 'float32'), (t.users.numpy(), t.items.numpy())), shape=(len(c.user), len(c.item)))
    make = implicit.als.AlternatingLeastSquares if kind == 'als' else implicit.bpr.BayesianPersonalizedRanking
    alpha = kw.pop('alpha', 1.)
    model = make(num_threads=1, random_state=seed, **kw)
    model.fit(x * alpha if kind == 'als' else x, show_progress=False)
    return Scores(dls, model.user_factors[:, :] @ model.item_factors[:, :].T)

def choices(dls, seed, **kw): return cf_learner(dls, 10, seed=0).learn_choice(seed=seed, **kw)

class By:
    "A learner with the order fixed"
    def __init__(self, learn, by): self.learn,self.by = learn,by
    def recommend(self, users, k): return self.learn.recommend(users, k, rank_by=self.by)

def chances(dls, seed, **kw): return By(choices(dls, seed, **kw), 'chance')
def ease(dls, seed, **kw): return EASE(dls, **kw)
def popular(dls, seed): return MostPopular(dls)

def by_gradient(dls, seed, loss='full softmax', epochs=30, lowest=1., wd=.5, lr=1e-2, **kw):
    "The dot product with biases, trained to rank through the Learner"
    if loss == 'full softmax': learn = softmax_learner(dls, lowest=lowest, wd=wd, metrics=[], seed=seed, **kw)
    else:
        rows,items = user_loaders(dls, 10, lowest, seed),len(dls.catalog.item)
        losses = {'BPR': bpr_loss, 'gBCE': partial(gbce_loss, sampled=32 / (items - 1))}
        sampler = Uniform(32, seed) if loss == 'gBCE' else Popular(32, .75, seed)
        learn = cf_learner(rows, 64, loss_func=losses[loss], cbs=Negatives(sampler), seed=seed, lr=lr, wd=wd, **kw)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(epochs)
    return learn

def by_fused(dls, seed, epochs=10, lowest=1., wd=.02, factor_count=64):
    "The same model, choice by choice in compiled code: the sampled softmax with 32 popular items beside each"
    rows = user_loaders(dls, 64, lowest, seed)
    train = RatingsDL(rows.train_ds, bs=512, shuffle=True, seed=seed, device='cpu') # in any order, not user by user
    learn = cf_learner(CFDataLoaders(train, rows.valid, histories=dls.histories, device='cpu'), factor_count, cbs=Negatives(Popular(32, seed=seed)), seed=seed)
    with learn.no_bar(), learn.no_logging(): learn.fit(epochs, cbs=FusedSGD(wd=wd))
    return learn

def grid(make, **axes):
    "Every combination of settings"
    res = [{}]
    for name,values in axes.items(): res = [{**o, name: v} for o in res for v in values]
    return [partial(make, **o) for o in res]

IMPLICIT = grid(implicit_model, factors=(32, 64), regularization=(1., 5.), alpha=(2., 5.), iterations=(15,))
BPR = grid(implicit_model, kind=('bpr',), factors=(32, 64), learning_rate=(.05,), regularization=(.01, .03), iterations=(100,))
OURS = dict(factor_count=(32, 64), unobserved=(.1, .3), lowest=(.5, 1.))
LAST = {'most popular': [popular], 'implicit BPR': BPR, 'implicit iALS': IMPLICIT, 'EASE': grid(ease, penalty=(100., 300., 1000.)), 'fastcf IALS': grid(chances, recency=(None,), **OURS)}
SAMPLED = dict(epochs=(8,), lowest=(.5,), wd=(.1, 1.), lr=(1e-2, 5e-2))
GRADIENT = {'fastcf gradient, full softmax': grid(by_gradient, factor_count=(64, 128), dropout=(0., .5), strike=(True, False), lowest=(.2, 1.)),
            **{f'fastcf gradient, {o}': grid(by_gradient, loss=(o,), **SAMPLED) for o in ('BPR', 'gBCE')},
            'fastcf gradient, FusedSGD': grid(by_fused, epochs=(10, 20), lowest=(.2, 1.), wd=(.02, .05))}
FIVE = {'fastcf gradient, full softmax': grid(by_gradient, factor_count=(64,), dropout=(0., .5), lowest=(.2, 1.))}
TIMED = {'fastcf IALS, fading': grid(chances, recency=('auto',), unobserved=(.1, .3), lowest=(.5, 1.)),
         'fastcf EASE, windows, fading': grid(ease, window=(10, 20, 40), fade=(Fade(5.), Fade(10.), Fade(20.)))}

def measures(rec, dls, protocol, per_user=False):
    test = valid_frame(dls, 4. if protocol == 'liked' else None)
    users = pd.unique(test.user)
    users = users[dls.rows_with_ratings(users, 'user', 'nan') >= 0]
    lists,test = rec.recommend(users, 10),test[test.user.isin(users)]
    first = dict(recall=capped_recall(lists, test, per_user=per_user)) if protocol == 'liked' else dict(hit_rate=hit_rate(lists, test, per_user=per_user))
    return {**first, 'ndcg': ndcg(lists, test, per_user=per_user)}

def tuned(makes, dls, protocol):
    "The settings with the highest NDCG on validation rows, seed 0"
    return makes[0] if len(makes) == 1 else max(makes, key=lambda m: measures(m(dls, 0), dls, protocol)['ndcg'])

def row(who, make, dls, protocol, seeds=SEEDS):
    runs = []
    for seed in seeds:
        start = time.process_time()
        rec = make(dls, seed)
        runs.append(dict(seconds=time.process_time() - start, **measures(rec, dls, protocol)))
    runs,settings = pd.DataFrame(runs),getattr(make, 'keywords', {})
    res = dict(protocol=protocol, who=who, **runs.mean(), ndcg_sd=runs.ndcg.std(), settings=', '.join(f'{k}={v}' for k,v in settings.items()))
    print(res, flush=True)
    return res

def learned(dls, seed, kind):
    "A learner of ratings: by gradient, or sampled"
    learn = cf_learner(dls, 50, (.5, 5.5), seed=seed) if kind == 'gradient' else cf_learner(dls, factor_count=16, seed=seed)
    with learn.no_bar(), learn.no_logging():
        if kind == 'gradient': learn.fit_one_cycle(5, 5e-3)
        else: learn.sample_posterior(140, 35, seed=seed, who_rated=kind == 'Gibbs, who rated what')
    return learn

def liked_rows(dls, valid):
    "A row for each learner and order, with how far the order by value is ahead, user by user; the learner is fitted once a seed"
    for kind in ('gradient', 'Gibbs', 'Gibbs, who rated what'):
        runs,found,settings = [],[],best_value(valid, kind)
        for seed in SEEDS:
            start = time.process_time()
            learn = learned(dls, seed, kind).learn_choice(seed=seed, **settings)
            seconds = time.process_time() - start
            runs += [dict(by=by, seconds=seconds, **measures(By(learn, by), dls, 'liked')) for by in ORDERS]
            found.append([measures(By(learn, by), dls, 'liked', per_user=True)['ndcg'] for by in ORDERS])
        each = pd.concat([pd.DataFrame(dict(zip(ORDERS, o))) for o in found]).groupby(level=0).mean() # a row a user
        for by,df in pd.DataFrame(runs).groupby('by'):
            less = each.value - each[by]
            ahead = dict(ndcg_sd=df.ndcg.std(), value_ahead=less.mean(), value_ahead_se=less.std() / len(less)**.5)
            yield dict(protocol='liked', who=f'fastcf {kind}, by {by}', **df.drop(columns='by').mean(), **ahead, settings=', '.join(f'{k}={v}' for k,v in settings.items()))

def best_value(dls, kind):
    "Settings of the choice model whose lists by value are best on validation rows, with the ratings of one learner: means of three seeds of the choice model"
    learn = learned(dls, 0, kind)
    score = lambda kw: np.mean([measures(By(learn.learn_choice(seed=s, **kw), 'value'), dls, 'liked')['ndcg'] for s in SEEDS])
    return max((m.keywords for m in grid(choices, factor_count=(32,), unobserved=(.3, .5), lowest=(.3, .5, 1.))), key=score)

def seconds(f, times, warm=True):
    "Processor time of a call, after a first one where `warm`"
    if warm: f()
    start = time.process_time()
    for _ in range(times): f()
    return (time.process_time() - start) / times

def speed(choices, times=3):
    "Seconds of an iteration: ours, implicit's, and how many times as long ours takes"
    import implicit
    users,items,rows = choices // 50,choices // 167,{}
    df = skewed_ratings(users, items, choices)
    dls = CFDataLoaders.from_df(df, seed=0, valid_pct=0, device='cpu')
    t,c = dls.train_ds,dls.catalog
    x = sparse.csr_matrix((np.full(len(t), 5, 'f'), (t.users.numpy(), t.items.numpy())), shape=(len(c.user), len(c.item)))
    for k in (32, 64):
        sides,w = choice_groups(t.users.long(), t.items.long(), *x.shape),torch.ones(len(t))
        model = [start_choices(*x.shape, k, .1, .004, 0)]
        def ours(): model[0] = sweep_choices(model[0], sides, w)
        for quick in (True, False):
            with replaced.object(sweeps, 'HAS_NUMBA', quick): rows[f'{k} factors, ' + ('compiled' if quick else 'PyTorch')] = dict(ours=seconds(ours, times))
        make = lambda cg, n: implicit.als.AlternatingLeastSquares(factors=k, regularization=5, iterations=n, num_threads=1, random_state=0, use_cg=cg)
        for cg in (True, False):
            one,more = (seconds(lambda: make(cg, n).fit(x, show_progress=False), 1, warm=False) for n in (1, 1 + times))
            theirs = (more - one) / times
            for name in rows:
                if name.startswith(f'{k} '): rows[name]['implicit, ' + ('conjugate gradients' if cg else 'Cholesky')] = theirs
    res = pd.DataFrame(rows).T
    res['times as long'] = res.ours / res['implicit, conjugate gradients']
    keep(res, 'ranking_speed')
    print(f'{len(t):,} choices, {x.shape[0]:,} × {x.shape[1]:,}: seconds of an iteration\n', res.to_string(float_format='%.3f'))

def tasteful_choices(users, items, drawn, seed=1):
    "Ratings of pairs that are drawn by `skewed_ratings` and kept where eight hidden factors agree, about a tenth of them"
    df,g = skewed_ratings(users, items, drawn),np.random.default_rng(seed)
    x,y = (g.normal(0, 1, (n, 8)).astype('f') for n in (users, items))
    return df[g.random(len(df)) < 1 / (1 + np.exp(6 - 1.5 * (x[df.user] * y[df.item]).sum(1)))]

def list_rates(users=20_000, items=50_000, drawn=8_000_000, parts=5, rounds=3):
    "Users a second whose ten best items are listed, the seen struck out, with the vectors of one choice model; in turn, the best of each"
    import implicit
    dls = CFDataLoaders.from_df(tasteful_choices(users, items, drawn), seed=0, valid_pct=.01, device='cpu')
    learn = cf_learner(dls, 32, y_range=(.5, 5.5), seed=0)
    with learn.no_bar(), learn.no_logging(): learn.fit(2, cbs=FusedSGD())
    t,c = dls.train_ds,dls.catalog
    model = learn.learn_choice(factor_count=32, unobserved=.03, penalty=.003).choice
    x = sparse.csr_matrix((np.ones(len(t), 'f'), (t.users.numpy(), t.items.numpy())), shape=(len(c.user), len(c.item)))
    theirs = implicit.als.AlternatingLeastSquares(factors=32, num_threads=1)
    theirs.user_factors,theirs.item_factors = (o.numpy().copy() for o in (model.users, model.items))
    times = {}
    for part in np.array_split(np.arange(len(c.user)), parts) * rounds:
        ids = list(c.user.ids[part])
        calls = dict(implicit=lambda: theirs.recommend(part, x[part], N=10), **{f'by {o}': partial(learn.recommend, ids, rank_by=o) for o in ORDERS})
        for name,f in calls.items(): times.setdefault(name, []).append(seconds(f, 1, warm=False) / len(part))
    rate = 1 / pd.Series(times).map(min)
    res = pd.DataFrame({'users a second': rate, 'beside implicit': rate / rate['implicit']})
    keep(res.assign(load=os.getloadavg()[0]), 'ranking_lists')
    print(f'Ten of {len(c.item):,} items, {len(c.user):,} users, {len(t):,} choices, 32 factors\n', res.round(2).to_string())

def vectors(n, k, seed):
    "Vectors of which some directions count more than others, as in learned ones: the j-th is drawn with deviation 1/√j"
    return torch.randn(n, k, generator=torch.Generator().manual_seed(seed)) / torch.arange(1, k + 1).sqrt()

def like_fitted(users, items, k):
    "Vectors with the structure of learned ones: a choice model's users of ML-100K, and items with the mean, the covariance and the lengths of its items"
    ml = load_ml100k()
    m = choices(loaders(ml, np.arange(len(ml.ratings)), np.arange(0)), 0, factor_count=k).choice
    g,mean = torch.Generator().manual_seed(1),m.items.mean(0)
    drawn = mean + torch.randn(items, k, generator=g) @ torch.linalg.cholesky((m.items - mean).T.cov()).T
    lengths = m.items.norm(dim=1)[torch.randint(len(m.items), (items,), generator=g)]
    return m.users[torch.arange(users) % len(m.users)],F.normalize(drawn) * lengths[:, None]

def at_random(users, items, k): return vectors(users, k, 0),vectors(items, k, 1) * torch.rand(items, 1, generator=torch.Generator().manual_seed(2))

def one_list(items=1_000_000, k=64, users=1_000, tries=100):
    "Milliseconds for the ten best items of one user, exactly and by an index, beside a pass over the items' vectors; the best of some users"
    df,res = pd.DataFrame(dict(user=np.arange(items) % users, item=np.arange(items))),[]
    learn = cf_learner(CFDataLoaders.from_df(df, rating_name=False, seed=0, valid_pct=0, device='cpu'), 1, seed=0)
    for drawn in (at_random, like_fitted):
        learn.set_choice(ChoiceModel(*drawn(users, items, k)))
        res.append(index_rows(learn, learn.dls.catalog.user[np.arange(tries)]).assign(vectors=drawn.__name__.replace('_', ' ')))
    res = pd.concat(res)
    keep(res.assign(load=os.getloadavg()[0]), 'ranking_index')
    print(f'Ten of {items:,} items of {k} factors for one user\n', res.round(3).to_string())

def index_rows(learn, ids):
    "A row for a pass over the vectors, one for the exact list, and one for each breadth of a search"
    whole = dict(exclude_seen=False)
    best = lambda f: min(seconds(partial(f, o), 1, warm=False) for o in ids[:20]) * 1e3
    rows = {'a pass over the vectors': dict(ms=best(lambda _: learn.choice.items.sum())), 'exact': dict(ms=best(lambda o: learn.recommend(o, **whole)))}
    index,build = timed(ItemIndex, learn)
    for breadth in (128, 256, 512, 768, 1024):
        index.graph.expansion_search = breadth
        rows[f'index, {breadth} in view'] = dict(ms=best(lambda o: index.recommend(o, **whole)), recall=index.recall(list(ids), **whole), build=build)
    res = pd.DataFrame(rows).T
    res['passes'],res['times as fast as exact'] = res.ms / res.ms.iloc[0],res.ms['exact'] / res.ms
    return res

def main(argv=()):
    parser = argparse.ArgumentParser()
    parser.add_argument('--only', choices=['lists', 'gradient', 'speed', 'index', 'sequence'])
    parser.add_argument('--choices', type=int, default=500_000)
    args = parser.parse_args(argv)
    torch.set_num_threads(1); warnings.simplefilter('ignore')
    if args.only in (None, 'speed'): speed(args.choices); list_rates()
    if args.only in (None, 'index'): one_list()
    if args.only in (None, 'lists'): quality()
    if args.only in (None, 'gradient'): shown(renewed(gradient_rows(load_ml100k())))
    if args.only in (None, 'sequence'): shown(renewed(sequence_rows(load_ml100k())))

PEERS = 'most popular','implicit BPR','implicit iALS','EASE'

def five_rows(ml):
    "A row for each method: the mean over each user's last five ratings, one seed, and how far it is ahead of the best peer"
    *cuts,sixth = cut_splitters(6)
    found,settings = {},{}
    for times,methods in ((False, LAST | FIVE), (True, TIMED)):
        valid,tests = loaders(ml, *sixth(ml.ratings), times),[loaders(ml, *cut(ml.ratings), times) for cut in cuts]
        for who,makes in methods.items():
            make = tuned(makes, valid, 'last')
            found[who] = pd.concat([pd.DataFrame(measures(make(dls, 0), dls, 'last', per_user=True)) for dls in tests]).groupby(level=0).mean() # a row a user
            settings[who] = ', '.join(f'{k}={v}' for k,v in getattr(make, 'keywords', {}).items())
    peer = max(PEERS, key=lambda who: found[who].ndcg.mean())
    for who,o in found.items():
        less = o.ndcg - found[peer].ndcg
        yield dict(protocol='five cuts', who=who, **o.mean(), ndcg_se=o.ndcg.std() / len(o)**.5, ahead=less.mean(), ahead_se=less.std() / len(less)**.5, settings=settings[who])

def sasrec(dls, seed, **kw):
    t,c = dls.train_ds,dls.catalog
    return Scores(dls, sasrec_scores(t.users.numpy(), t.items.numpy(), t.times.numpy(), len(c.user), len(c.item), seed, **kw))

def sequence(dls, seed, epochs=10):
    learn = sequence_learner(dls, seed=seed, metrics=[])
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(epochs)
    return learn

BLEND = 'fastcf sequence, EASE and IALS'

def timed(f, *args, **kwargs):
    "What a call returns, and its processor time"
    start = time.process_time()
    return f(*args, **kwargs),time.process_time() - start

def sequence_runs(cuts, parts, weights):
    "Of each seed, each cut and each model: HR and NDCG user by user, and seconds of fitting; SASRec on the last cut alone"
    for seed in SEEDS:
        for j,cut in enumerate(cuts):
            recs,seconds = timed(parts, cut, seed)
            took = {'fastcf sequence': seconds, BLEND: seconds}
            recs |= {BLEND: Blend(list(recs.values()), weights), 'EASE': EASE(cut, 100.)}
            recs['fastcf IALS, fading'] = By(recs['fastcf IALS, fading'], 'chance')
            if j == 0: recs['SASRec'],took['SASRec'] = timed(sasrec, cut, seed, length=100, epochs=40)
            found = {who: pd.DataFrame(measures(o, cut, 'last', per_user=True)) for who,o in recs.items()}
            print(f'seed {seed}, cut {j + 1}', {who: o.mean().round(4).to_dict() for who,o in found.items()}, flush=True)
            for who,o in found.items(): yield o.rename_axis('user').reset_index().assign(seed=seed, cut=j, who=who, seconds=took.get(who))

def sequence_rows(ml):
    "A row for each model that reads histories in order, three seeds: the last cut beside SASRec, the mean over five cuts beside EASE"
    *cuts,sixth = (loaders(ml, *cut(ml.ratings), True) for cut in cut_splitters(6))
    forms = {o: tuned(TIMED[o], sixth, 'last') for o in ('fastcf EASE, windows, fading', 'fastcf IALS, fading')}
    parts = lambda dls, seed: {'fastcf sequence': sequence(dls, seed), **{name: getattr(o := f(dls, seed), 'learn', o) for name,f in forms.items()}}
    weights = choose_weights(list(parts(sixth, 0).values()))
    settings = {'SASRec': 'length=100, epochs=40', 'fastcf sequence': 'epochs=10', BLEND: f'weights={weights}'}
    runs = pd.concat(sequence_runs(cuts, parts, weights))
    for protocol,df,beside in (('last', runs[runs.cut == 0], 'SASRec'), ('five cuts', runs, 'EASE')):
        users,sd = df.groupby(['who', 'user']).ndcg.mean(),df.groupby(['who', 'seed']).ndcg.mean().groupby('who').std() # of a user over seeds and cuts, of seeds over users
        for who in settings:
            if protocol == 'five cuts' and who == 'SASRec': continue
            o,less = users[who],users[who] - users[beside]
            yield dict(protocol=protocol, who=who, **df[df.who == who][['hit_rate', 'ndcg', 'seconds']].mean(), ndcg_sd=sd[who], ndcg_se=o.std() / len(o)**.5,
                       ahead=less.mean(), ahead_se=less.std() / len(less)**.5, settings=settings[who])

def renewed(rows):
    "Keep some rows in place of those of before; as a frame"
    rows = pd.DataFrame(rows).set_index(['protocol', 'who'])
    before = pd.read_csv(os.path.join(os.path.dirname(__file__), 'ranking.csv'), index_col=[0, 1])
    both = pd.concat([before[~before.index.isin(rows.index)], rows])
    keep(pd.concat([both.loc[[o]] for o in dict.fromkeys(both.index.get_level_values(0))]), 'ranking')
    return rows

def shown(rows): print(rows.drop(columns='settings').to_string(float_format='%.4f'))

def liked_loaders(ml):
    "Validation and test of *liked*"
    p = np.random.default_rng(42).permutation(len(ml.ratings))
    return loaders(ml, p[:81_000], p[81_000:90_000]),loaders(ml, p[:90_000], p[90_000:])

def gradient_rows(ml):
    "A row for each loss and protocol, without times: three seeds"
    cuts = [loaders(ml, *cut(ml.ratings)) for cut in reversed(cut_splitters(2))]
    return [row(who, tuned(makes, valid, protocol), test, protocol) for protocol,(valid,test) in (('last', cuts), ('liked', liked_loaders(ml))) for who,makes in GRADIENT.items()]

def quality():
    ml,rows = load_ml100k(),[]
    last,before = cut_splitters(2)
    for times,methods in ((False, LAST), (True, TIMED)):
        valid,test = (loaders(ml, *cut(ml.ratings), times) for cut in (before, last))
        rows += [row(who, tuned(makes, valid, 'last'), test, 'last', SEEDS if 'IALS' in who or 'implicit' in who else (0,)) for who,makes in methods.items()]
    for r in five_rows(ml): print(r, flush=True); rows.append(r)
    valid,test = liked_loaders(ml)
    rows += [row(who, tuned(makes, valid, 'liked'), test, 'liked', SEEDS if 'IALS' in who or 'implicit' in who else (0,)) for who,makes in LAST.items()]
    for r in liked_rows(test, valid): print(r, flush=True); rows.append(r)
    shown(renewed(rows))

if __name__ == '__main__': main(sys.argv[1:])
