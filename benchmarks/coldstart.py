"""Cold start on ML-100K: users and items that the model never saw.

`python -m benchmarks.coldstart` prints four tables, each the mean over three seeds of the learner with its standard deviation.
Users: a quarter of them is cold, half of their ratings can be given as answers, the other half is the test. The strategies of
`fastcf.questions` in pages of twenty, the adaptive one question by question too, and, in the same run, the decision tree of Golbandi,
Koren & Lempel (2011, doi:10.1145/1935826.1935910) in its simple form. `closed` is the share of the way from no answers to all. What the
interview's choices were made on is not these users but splits of the others: `benchmarks.questions`. NDCG@10 here is that of the order of
the test items alone; a second table ranks all items that were not answered, in four orders, and counts the test items of the top ten.
Items: a fifth of them is cold; what n ratings say alone, what metadata say alone, and both.
"""
import numpy as np, pandas as pd, torch
from fastcf.coldstart import MetadataPrior, ProxyQuestions, expected_ratings, fold_in_prior
from fastcf.data import ColdItemSplitter, Vocab, load_ml100k
from fastcf.demo import clipped_rmse
from fastcf.interview import _Strangers, simulate_interview
from fastcf.learner import cf_learner
from fastcf.loaders import CFDataLoaders
from fastcf.posterior import Gaussian
from fastcf.questions import STRATEGIES, Interviewer

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
    "Among all items but those answered: users with a test item in the top `k`, and NDCG of the test items there, by order and questions asked"
    people, rows = _Strangers(teach, answers, test, None, None), []
    wanted, asked = torch.zeros_like(people.can), torch.zeros_like(people.can)
    wanted[people.at[0][people.known], people.at[1][people.known]] = True
    discount = 1 / torch.arange(2, k + 2).log2()
    best = torch.stack([discount[:n].sum() for n in wanted.sum(1).clamp(1, k)])
    for q in range(0, 61, 20):
        b = people.beliefs(asked)
        rating = expected_ratings(b.taste, teach.base)
        orders = {'popularity': teach.seen.popularity.expand(rating.shape), 'rating': rating, 'chance of having seen it': b.seen, 'chance × rating': b.seen * rating}
        for name,score in orders.items():
            hits = wanted.gather(1, score.masked_fill(asked & people.can | (teach.counts == 0), -torch.inf).topk(k).indices).float()
            rows.append((name, q, float(hits.amax(1).mean()), float((hits @ discount / best)[wanted.any(1)].mean())))
        if q < 60: asked.scatter_(1, teach.choose(b, asked, 20), True)
    return pd.DataFrame(rows, columns=['order', 'questions', 'hr', 'ndcg'])

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
        at = ids.rows(fair.user), items.rows(fair.item)
        same = Gaussian(prior.base.gaussian.mean.expand(len(ids), -1), None)
        alone.append({'item means': clipped_rmse(fair.item.map(train.groupby('item').rating.mean()), fair.rating), 'the same prior for all': clipped_rmse(expected_ratings(same, prior.base, *at), fair.rating),
                      'prior from metadata': clipped_rmse(expected_ratings(prior.prior(ml.users, ids.ids), prior.base, *at), fair.rating)})
    runs.append(pd.DataFrame(tree_rows(train, answers, test), columns=['strategy', 'questions', 'answers', 'rmse']).assign(seed=0))
    df = pd.concat(runs)
    first, every = (df[df.strategy == s].groupby('seed').rmse.agg(f) for s,f in (('popular', 'first'), ('all answers', 'first')))
    df['closed'] = (df.seed.map(first) - df.rmse) / (df.seed.map(first) - df.seed.map(every))
    print('Cold users before any question, RMSE:\n' + pd.DataFrame(alone).agg(['mean', 'std']).T.to_string(float_format='%.4f') + '\n')
    shown = df[df.questions.isin((0, 20, 40, 60)) | (df.strategy == 'all answers')].copy()
    shown.loc[shown.strategy == 'all answers', 'questions'] = -1
    table = pd.DataFrame({v: spread(shown, ['strategy', 'questions'], v) for v in ('rmse', 'ndcg', 'answers', 'closed')})
    print('Cold users, by questions asked:\n' + table.rename(index={-1: 'all'}, level=1).to_string() + '\n')
    tens = pd.concat(tens)
    print('Top ten of all items not answered, by questions asked (adaptive, pages of 20):\n' + pd.concat({v: spread(tens, ['order', 'questions'], v).unstack() for v in ('hr', 'ndcg')}).to_string() + '\n')
    goal, line = df[(df.strategy == 'popular') & (df.questions == 60)].set_index('seed').rmse, df[df.strategy == 'adaptive, one by one']
    for name,g in (('one by one', line), *((f'{o} in pages of 20, read off straight lines between pages', df[df.strategy == o]) for o in ('adaptive', 'adaptive, metadata'))):
        print(f'{name}: questions until the RMSE of 60 popular ones: ' + ', '.join(f'{until(o.questions, o.rmse, goal[s]):.0f}' for s,o in g.groupby('seed')))

def until(questions, rmse, goal):
    "Where the falling line through the points meets `goal`"
    q = np.linspace(0, questions.max(), 601)
    return q[np.argmax(np.interp(q, questions, rmse) <= goal)]

def items_table(ml):
    rows = []
    for seed in range(SEEDS):
        split = ColdItemSplitter(.2, seed=seed)
        train, cold = (ml.ratings.iloc[o] for o in split(ml.ratings))
        learn = fitted(train, ml, seed, valid_pct=.02)
        can = np.random.default_rng(seed).random(len(cold)) < .5
        users = learn.dls.catalog.user
        said, test = (cold[o & cold.user.isin(users.ids)] for o in (can, ~can))
        said = said.sample(frac=1, random_state=seed)
        said, ids = said.assign(n=said.groupby('item').cumcount()), Vocab(cold.item)
        prior, genres, at = MetadataPrior(learn, is_item=True), ProxyQuestions(learn, 'genres'), (ids.rows(test.item), users.rows(test.user))
        starts = {'item alone': Gaussian(prior.base.gaussian.mean.expand(len(ids), -1), prior.base.gaussian.precision.expand(len(ids), -1, -1)), 'metadata, then both': prior.prior(ml.items, ids.ids), 'genres, then both': genres.prior(ml.items, ids.ids)}
        rows.append((seed, 'mean of each user', 0, clipped_rmse(test.user.map(train.groupby('user').rating.mean()), test.rating)))
        for n in COUNTS:
            s = said[said.n < n]
            for name,g in starts.items():
                g = fold_in_prior(g, prior.base, ids.rows(s.item), users.rows(s.user), s.rating)
                rows.append((seed, name, n, clipped_rmse(expected_ratings(g, prior.base, *at), test.rating)))
    df = pd.DataFrame(rows, columns=['seed', 'start', 'ratings', 'rmse'])
    print('\nCold items, RMSE after the first ratings:\n' + spread(df, ['start', 'ratings'], 'rmse').unstack('ratings').to_string(na_rep=''))

def main():
    torch.set_num_threads(1)
    ml = load_ml100k()
    users_table(ml)
    items_table(ml)

if __name__ == '__main__': main()
