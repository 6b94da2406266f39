"""Cold start on ML-100K: users and items that the model never saw.

`python -m benchmarks.coldstart` prints tables, each the mean over three seeds of the learner with its standard deviation.
Users: a quarter of them is cold, half of their ratings can be given as answers, the other half is the test. The strategies of
`fastcf.questions` in pages of twenty, the adaptive one question by question too, and, in the same run, the decision tree of Golbandi,
Koren & Lempel (2011, doi:10.1145/1935826.1935910) in its simple form. `closed` is the share of the way from no answers to all. What the
interview's choices were made on is not these users but splits of the others: `benchmarks.questions`. NDCG@10 here is that of the order of
the test items alone; a second table ranks all items that were not answered, in four orders, and counts the test items of the top ten, and those rated 4 and better. `--only lists` prints that one alone.
Items: a fifth of them is cold, another fifth with each seed; what n ratings say alone, what metadata say alone, and both.
Priors: metadata alone by both engines, for users and for items, in stars and as rankings of what is rated at all.
"""
import sys
import numpy as np, pandas as pd, torch
from fastcf.cold.metadata_prior import MetadataPrior
from fastcf.cold.proxies import ProxyQuestions
from fastcf.cold.curves import Arrivals, first_ratings
from fastcf.data.splits import ColdItemSplitter, ColdUserSplitter
from fastcf.data.vocab import Vocab
from fastcf.data.sources import load_ml100k
from fastcf.demo import clipped_rmse
from fastcf.interview.simulate import SimulatedUsers, simulate_interview
import fastcf.learn.predict
from benchmarks import keep
from fastcf.learn.learner import cf_learner
from fastcf.data.loaders import CFDataLoaders
from fastcf.bayes.posterior import Gaussian
from fastcf.interview.questions import STRATEGIES, Interviewer
from fastcf.rank.best import top_scores
from fastcf.rank.choice import worth

SEEDS, Y, COUNTS = 3, (0.5, 5.5), (0, 1, 2, 5, 10, 20)

def cold_users(ml):
    "Ratings of known users; of cold ones, those that can be answered and those of the test"
    users = np.sort(ml.ratings.user.unique())
    cold = ml.ratings.user.isin(users[np.random.default_rng(0).permutation(943)[:235]])
    theirs = ml.ratings[cold]
    can = np.random.default_rng(1).random(len(theirs)) < .5
    return ml.ratings[~cold], theirs[can], theirs[~can]

def fitted(train, ml, seed, **kwargs):
    dls = CFDataLoaders.from_df(train, seed=seed + 1, items=ml.items, users=ml.users, device='cpu', **kwargs)
    learn = cf_learner(dls, y_range=Y, seed=seed)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(5)
    return learn

# --- the peer: a decision tree whose nodes ask about an item; liked, disliked and unknown are its branches

class Tree:
    "Means of items at each node, drawn towards those of the node above"
    def __init__(self, train, pull=200., candidates=200, least=5): # of pulls from 7 to 200 the one with the lowest test error: what doubt there is favours the tree
        self.users, self.items = Vocab(train.user), Vocab(train.item)
        r = np.zeros((len(self.users), len(self.items)), 'float32')
        r[self.users.rows(train.user), self.items.rows(train.item)] = train.rating
        self.pull, self.least, self.asks = pull, least, np.argsort(-(r > 0).sum(0), kind='stable')[:candidates]
        self.r, self.mask, self.like, self.dislike = r, (r > 0).astype('float32'), (r[:, self.asks] >= 4), (r[:, self.asks] > 0) & (r[:, self.asks] < 4)
        self.mean = train.rating.mean()

    def means(self, rows, above, pull): return (self.r[rows].sum(0) + pull * above) / (self.mask[rows].sum(0) + pull)

    def question(self, rows, above):
        "The item whose branches, drawn towards the node as in `means`, take most off the squared error"
        left, parts = (self.r[rows] - above) * self.mask[rows], []
        for of in (self.like, self.dislike):
            of = of[rows].astype('float32').T
            parts.append((of @ left, of @ self.mask[rows]))
        parts.append(tuple(t - a - b for t,a,b in zip((left.sum(0), self.mask[rows].sum(0)), *parts)))
        return int(sum((s**2 / (n + self.pull) * (2 - n / (n + self.pull))).sum(1) for s,n in parts).argmax())

    def predict(self, answers, ids, questions):
        "Item means for each of `ids` after each number of questions, and the answers each gave: {q: ([users, items], count)}"
        said = np.zeros((len(ids), len(self.items)), 'float32')
        a = answers[answers.item.isin(self.items.ids)]
        said[ids.rows(a.user), self.items.rows(a.item)] = a.rating
        start = self.means(np.arange(len(self.users)), np.full(len(self.items), self.mean, 'float32'), 5)
        nodes = [(np.arange(len(self.users)), np.arange(len(ids)), start)] # training users, newcomers, means
        count, res = np.zeros(len(ids)), {}
        for q in range(max(questions) + 1):
            if q in questions:
                res[q] = np.zeros_like(said), count.mean()
                for _,new,m in nodes: res[q][0][new] = m
            below = []
            for rows,new,m in nodes:
                if len(rows) < 2 * self.least or len(new) == 0: below.append((rows, new, m)); continue
                j = self.question(rows, m)
                reply = said[new, self.asks[j]]
                count[new] += reply > 0
                for known,say in ((self.like[rows, j], reply >= 4), (self.dislike[rows, j], (reply > 0) & (reply < 4)), (~self.like[rows, j] & ~self.dislike[rows, j], reply == 0)):
                    if say.any(): below.append((rows[known], new[say], self.means(rows[known], m, self.pull)))
            nodes = below
        return res

def tree_rows(train, answers, test, questions=(0, 20, 40, 60)):
    ids = Vocab(np.concatenate([answers.user, test.user]))
    tree = Tree(train)
    at, known = (ids.rows(test.user), tree.items.rows(test.item).clip(0)), test.item.isin(tree.items.ids)
    return [('tree', q, count, clipped_rmse(np.where(known, m[at], tree.mean), test.rating)) for q,(m,count) in tree.predict(answers, ids, questions).items()]

# --- tables

def spread(df, by, value): return df.groupby(by, sort=False)[value].agg(lambda o: f'{o.mean():.4f} ± {o.std(ddof=1):.4f}' if len(o) > 1 else f'{o.iloc[0]:.4f}')

def top_tens(teach, answers, test, k=10):
    "Among all items but those answered: users with a test item in the top `k`, NDCG of the test items there, and of those rated 4 and better, by order and questions asked"
    people, rows = SimulatedUsers(teach, answers, test, None, None), []
    asked, wanted = torch.zeros_like(people.can), {n: torch.zeros_like(people.can) for n in ('ndcg', 'ndcg_liked')}
    for o,at in zip(wanted.values(), (people.known, people.known & (people.truth >= 4))): o[people.rows[at], people.cols[at]] = True
    discount = 1 / torch.arange(2, k + 2).log2()
    def ndcg(o, top):
        best = torch.stack([discount[:n].sum() for n in o.sum(1).clamp(1, k)])
        return float((o.gather(1, top).float() @ discount / best)[o.any(1)].mean())
    for q in range(0, 61, 20):
        b = people.beliefs(asked)
        rating = b.taste.expected()
        orders = {'popularity': teach.exposure.popularity.expand(rating.shape), 'rating': rating, 'chance': b.seen, 'value': b.seen * worth(rating, *teach.rating_range)}
        for name,score in orders.items():
            top = top_scores(score.masked_fill(asked & people.can | (teach.counts == 0), -torch.inf), k)[1]
            rows.append((name, q, float(wanted['ndcg'].gather(1, top).any(1).float().mean()), *(ndcg(o, top) for o in wanted.values())))
        if q < 60: asked.scatter_(1, teach.choose(b, asked, 20), True)
    return pd.DataFrame(rows, columns=['order', 'questions', 'hr', *wanted])

def print_tens(tens):
    tens = pd.concat(tens)
    print('Top ten of all items not answered, by questions asked (adaptive, pages of 20):\n' + pd.concat({v: spread(tens, ['order', 'questions'], v).unstack() for v in ('hr', 'ndcg', 'ndcg_liked')}).to_string() + '\n')

def lists_table(ml):
    train, answers, test = cold_users(ml)
    print_tens([top_tens(Interviewer(fitted(train, ml, seed, valid_pct=.02), seed), answers, test).assign(seed=seed) for seed in range(SEEDS)])

def users_table(ml):
    train, answers, test = cold_users(ml)
    runs, alone, tens = [], [], []
    for seed in range(SEEDS):
        learn = fitted(train, ml, seed, valid_pct=.02)
        teach = Interviewer(learn, seed)
        one = simulate_interview(teach, answers, test, ['adaptive'], 1, 60, seed=seed).query("strategy == 'adaptive'")
        runs += [simulate_interview(teach, answers, test, STRATEGIES, seed=seed).assign(seed=seed), one.assign(strategy='adaptive, one by one', seed=seed),
                 simulate_interview(teach, answers, test, ['adaptive'], users=ml.users, seed=seed).query("strategy == 'adaptive'").assign(strategy='adaptive, metadata', seed=seed)]
        tens.append(top_tens(teach, answers, test).assign(seed=seed))
        prior = MetadataPrior(learn)
        ids, items = Vocab(test.user), learn.dls.catalog.item
        fair = test[test.item.isin(items.ids)]
        rows, cols = ids.rows(fair.user), items.rows(fair.item)
        same = prior.base.of(len(ids))
        alone.append({'item means': clipped_rmse(fair.item.map(train.groupby('item').rating.mean()), fair.rating), 'the same prior for all': clipped_rmse(same.expected(cols, rows), fair.rating),
                      'prior from metadata': clipped_rmse(prior.prior(ml.users, ids.ids).expected(cols, rows), fair.rating)})
    runs.append(pd.DataFrame(tree_rows(train, answers, test), columns=['strategy', 'questions', 'answers', 'rmse']).assign(seed=0))
    df = pd.concat(runs)
    first, every = (df[df.strategy == s].groupby('seed').rmse.agg(f) for s,f in (('popular', 'first'), ('all answers', 'first')))
    df['closed'] = (df.seed.map(first) - df.rmse) / (df.seed.map(first) - df.seed.map(every))
    print('Cold users before any question, RMSE:\n' + pd.DataFrame(alone).agg(['mean', 'std']).T.to_string(float_format='%.4f') + '\n')
    shown = df[df.questions.isin((0, 20, 40, 60)) | (df.strategy == 'all answers')].copy()
    shown.loc[shown.strategy == 'all answers', 'questions'] = -1
    table = pd.DataFrame({v: spread(shown, ['strategy', 'questions'], v) for v in ('rmse', 'ndcg', 'answers', 'closed')})
    means = shown.groupby(['strategy', 'questions'], sort=False)[['rmse', 'answers', 'closed']].mean().rename(index={-1: 'all'}, level=1)
    keep(pd.concat([means, pd.DataFrame(alone).mean().rename('rmse').to_frame().set_axis(pd.MultiIndex.from_product([alone[0], [0]]))]), 'coldstart_users')
    print('Cold users, by questions asked:\n' + table.rename(index={-1: 'all'}, level=1).to_string() + '\n')
    print_tens(tens)
    goal, line = df[(df.strategy == 'popular') & (df.questions == 60)].set_index('seed').rmse, df[df.strategy == 'adaptive, one by one']
    for name,g in (('one by one', line), *((f'{o} in pages of 20, read off straight lines between pages', df[df.strategy == o]) for o in ('adaptive', 'adaptive, metadata'))):
        print(f'{name}: questions until the RMSE of 60 popular ones: ' + ', '.join(f'{until(o.questions, o.rmse, goal[s]):.0f}' for s,o in g.groupby('seed')))

def until(questions, rmse, goal):
    "Where the falling line through the points meets `goal`"
    q = np.linspace(0, questions.max(), 601)
    return q[np.argmax(np.interp(q, questions, rmse) <= goal)]

# --- new items, and priors from metadata

def cold_items(ml, seed):
    "Ratings of known items; of cold ones, those that come first, in an order, and those of the test"
    train, cold = (ml.ratings.iloc[o] for o in ColdItemSplitter(.2, seed=seed)(ml.ratings))
    cold = cold[cold.user.isin(train.user)]
    can = np.random.default_rng(seed).random(len(cold)) < .5
    return train, cold[can], cold[~can]

def best_constant(train, test):
    "RMSE of each user's mean, drawn towards that of all: of several pulls the best on the test, which favours it"
    g, mean = train.groupby('user').rating, train.rating.mean()
    return min(clipped_rmse(test.user.map((g.sum() + p * mean) / (g.size() + p)), test.rating) for p in (0, 2, 5, 10, 20))

def engines_table(ml):
    "Metadata alone, before the first rating: the two engines, for users and for items"
    rows = []
    for seed in range(SEEDS):
        for side,(train,_,test) in (('users', cold_users(ml)), ('items', cold_items(ml, seed))):
            is_item = side == 'items'
            learn = fitted(train, ml, seed, valid_pct=.02)
            test = test[test.item.isin(learn.dls.catalog.item.ids)] if not is_item else test
            plain = best_constant(train, test) if is_item else clipped_rmse(test.item.map(train.groupby('item').rating.mean()), test.rating)
            rows.append((side, 'best constant of each user' if is_item else 'item means', seed, plain, np.nan, np.nan))
            priors = {e: MetadataPrior(learn, side[:-1], engine=e, seed=seed) for e in ('linear', 'tabular')}
            res = first_ratings(learn, test[:0], test, priors, side[:-1], counts=(0,), seed=seed)
            rows += [(side, o.start, seed, o.rmse, o.log_score, o.coverage) for o in res.itertuples()]
    df = pd.DataFrame(rows, columns=['side', 'start', 'seed', 'rmse', 'log_score', 'coverage'])
    keep(df.groupby(['side', 'start'], sort=False)[['rmse', 'log_score', 'coverage']].mean(), 'coldstart_metadata')
    print('\nMetadata alone:\n' + pd.DataFrame({v: spread(df, ['side', 'start'], v) for v in ('rmse', 'log_score', 'coverage')}).to_string())
    wide = df.pivot_table(index='seed', columns=['side', 'start'], values=['rmse', 'log_score'])
    for side in ('users', 'items'): print(f'{side}, tabular less linear, by seed: RMSE', (wide.rmse[side].tabular - wide.rmse[side].linear).round(4).tolist(), 'log score', (wide.log_score[side].tabular - wide.log_score[side].linear).round(4).tolist())

def squares(new, belief):
    "Squared errors of the clipped predictions of the test"
    return (belief.expected(new.cols, new.rows).numpy().clip(1, 5) - new.test.rating.to_numpy())**2

def paired(d, rows):
    "Mean of the differences `d`, and its standard error where those of a row go together"
    sums, n = np.bincount(rows, d - d.mean()), len(d)
    return d.mean(), np.sqrt((sums**2).sum()) / n

def items_table(ml):
    "What n ratings say alone, what metadata say alone, and both; the differences are paired over the ratings of the test, by item"
    rows, diffs = [], {}
    for seed in range(SEEDS):
        train, said, test = cold_items(ml, seed)
        learn = fitted(train, ml, seed, valid_pct=.02)
        new = Arrivals(learn, said, test, 'item', seed)
        priors = {'genres': ProxyQuestions(learn, 'genres', seed=seed), 'metadata': MetadataPrior(learn, 'item', seed=seed)}
        same = MetadataPrior(learn, 'item', ml.items[['item']], seed=seed).prior(ids=new.ids.ids) # no metadata, weighed alike
        starts = {name: p.prior(ids=new.ids.ids) for name,p in priors.items()}
        rows.append((seed, 'best constant of each user', 0, best_constant(train, test)))
        rows += [(seed, f'{name} alone', 0, squares(new, g).mean()**.5) for name,g in starts.items()]
        for n in COUNTS:
            alone = squares(new, new.after(same, n))
            rows.append((seed, 'item alone', n, alone.mean()**.5))
            for name,g in starts.items():
                blend, proxy = squares(new, new.after(g, n)), squares(new, g)
                rows.append((seed, f'{name}, then both', n, blend.mean()**.5))
                better = min(alone, proxy, key=np.mean)
                diffs.setdefault((name, n), []).append((blend - better, new.rows + 10_000 * seed))
    df = pd.DataFrame(rows, columns=['seed', 'start', 'ratings', 'rmse'])
    print('\nCold items, RMSE after the first ratings:\n' + spread(df, ['start', 'ratings'], 'rmse').unstack('ratings').reindex(index=df.start.unique()).to_string(na_rep=''))
    res = [(name, n, *paired(*map(np.concatenate, zip(*o)))) for (name,n),o in diffs.items()]
    t = pd.DataFrame(res, columns=['start', 'ratings', 'difference', 'standard_error']).assign(holds=lambda o: o.difference <= o.standard_error)
    print('\nSquared error of both less that of the better of proxy alone and item alone, all seeds:\n' + t.sort_values(['start', 'ratings']).to_string(index=False, float_format='%.4f'))

# --- who rates what: the same priors on the table of seen and not seen

def seen_learner(train, ml, seed):
    "A learner of who rated what: every pair of the training table, 0 or, so that a busy user counts no more than others, one over the root of the user's ratings"
    u, i = np.sort(train.user.unique()), np.sort(train.item.unique())
    table = np.zeros((len(u), len(i)), 'float32')
    table[np.searchsorted(u, train.user), np.searchsorted(i, train.item)] = 1
    table *= np.sqrt(table.sum() / len(u) / table.sum(1, keepdims=True))
    df = pd.DataFrame(dict(user=np.repeat(u, len(i)), item=np.tile(i, len(u)), rating=table.ravel()))
    dls = CFDataLoaders.from_df(df, valid_pct=.01, seed=seed + 1, items=ml.items, users=ml.users, bs=4096, device='cpu')
    learn = cf_learner(dls, factor_count=20, seed=seed)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(6, 1e-2)
    return learn

def hits(scores, rows, cols, groups):
    "Of test pairs, ranked among all columns: per group (a user) the mean of HR@10 and of NDCG@10"
    at = scores[rows, cols]
    rank = (scores[rows] > at[:, None]).sum(1) + (scores[rows] == at[:, None]).sum(1) / 2 + .5 # ties at their middle
    hit = rank <= 10
    return pd.DataFrame(dict(hr=hit, ndcg=hit / np.log2(rank + 1))).groupby(groups).mean()

def ranking_table(ml):
    "HR@10 and NDCG@10 of what somebody rated, each rating ranked among all candidates, mean over users"
    parts = {}
    def add(side, name, seed, res): parts.setdefault((side, name), []).append(res.assign(seed=seed))
    for seed in range(SEEDS):
        other = tuple(ml.ratings.iloc[o] for o in ColdUserSplitter(.25, seed=seed)(ml.ratings))
        for side,(train,test) in (('235 cold users', cold_users(ml)[::2]), ('a quarter of the users, by seed', other)):
            seen = seen_learner(train, ml, seed)
            c = seen.dls.catalog
            test = test[test.item.isin(c.item.ids)]
            ids = Vocab(test.user)
            rows, cols = ids.rows(test.user), c.item.rows(test.item)
            p, rated = MetadataPrior(seen, seed=seed), MetadataPrior(fitted(train, ml, seed, valid_pct=.02), seed=seed)
            pop = train.item.value_counts().reindex(c.item.ids).to_numpy()
            for name,s in (('popularity', np.tile(pop, (len(ids), 1))), ('metadata: who rates what', p.prior(ids=ids.ids).expected().numpy()), ('metadata: expected rating', rated.prior(ids=ids.ids).expected().numpy())):
                add(side, name, seed, hits(s, rows, cols, test.user.to_numpy()))
        train, said, test = cold_items(ml, seed)
        seen, cold = seen_learner(train, ml, seed), pd.concat([said, test])
        ids, users = Vocab(cold.item), seen.dls.catalog.user
        rows, cols = users.rows(cold.user), ids.rows(cold.item)
        p = MetadataPrior(seen, 'item', seed=seed)
        s = p.prior(ids=ids.ids).expected().numpy().T
        later = cold.item.value_counts().reindex(ids.ids).to_numpy()
        for name,o in (('popularity: all have none, so in any order', np.random.default_rng(seed).random(s.shape)), ('popularity as metadata foretell it', np.tile(s.mean(0), (len(s), 1))), ('metadata: who rates what', s), ('popularity that they will have', np.tile(later, (len(s), 1)))):
            add('a fifth of the items, among themselves', name, seed, hits(o, rows, cols, cold.user.to_numpy()))
    base = {side: pd.concat(o).reset_index(names='who') for (side,name),o in parts.items() if name.split(':')[0] == 'popularity'}
    out = []
    for (side,name),o in parts.items():
        o = pd.concat(o).reset_index(names='who')
        d = o.hr.to_numpy() - base[side].hr.to_numpy()
        out.append((side, name, o.hr.mean(), o.ndcg.mean(), *paired(d, o.who.to_numpy())))
    print('\nHR@10 and NDCG@10 without any rating; beside popularity, paired over users:\n' + pd.DataFrame(out, columns=['test', 'ranked by', 'HR@10', 'NDCG@10', 'HR@10 more', 'standard error']).to_string(index=False, float_format='%.4f'))

def main():
    torch.set_num_threads(1)
    ml = load_ml100k()
    if sys.argv[1:] == ['--only', 'lists']: return lists_table(ml)
    users_table(ml)
    engines_table(ml)
    items_table(ml)
    ranking_table(ml)

if __name__ == '__main__': main()
