"Measures of lists beside slow, plain versions, and what is refused at the edge of each check"
import math, warnings
from functools import partial
from itertools import combinations
import numpy as np, pandas as pd, pytest
from fastcf.data.loaders import CFDataLoaders
from fastcf.data.sources import simulate_ratings
from fastcf.learn.learner import cf_learner
from fastcf.rank.metrics import (NDCG, ListMetric, auc, capped_recall, check_numbers, coverage, diversity, gini, hit_rate, match_lists, ndcg, novelty,
    mean_average_precision, mrr, popularity, precision, recall, valid_frame)

def lists_of(*items, user=1): return pd.DataFrame(dict(user=user, rank=range(1, len(items) + 1), item=list(items)))
def many(rng, users=8, k=6, n=20): return pd.concat([lists_of(*rng.permutation(n)[:k], user=u) for u in range(users)], ignore_index=True)

# --- what was right

@pytest.mark.parametrize('gain,worth', [('binary', lambda r: 1), ('linear', lambda r: r), ('exponential', lambda r: 2**r - 1)])
def test_gains_and_the_best_list(gain, worth):
    test = pd.DataFrame(dict(user=[1, 1, 1, 2], item=[1, 2, 3, 1], rating=[0., 5, 3, 2]))
    m = match_lists(pd.concat([lists_of(3, 9, 2), lists_of(1, user=7)]), test, 3, gain)
    assert list(m.users) == [1, 2] and m.left_out == 1 and m.counts.tolist() == [3, 1]
    assert m.gains.tolist() == [[worth(3), 0, worth(5)], [0, 0, 0]]
    assert m.ideal.tolist() == [sorted(map(worth, (0, 5, 3)), reverse=True), [worth(2), 0, 0]]

def test_ndcg_by_hand():
    test = pd.DataFrame(dict(user=1, item=[1, 2], rating=[1., 3.]))
    assert ndcg(lists_of(1, 2), test, 2, 'exponential') == pytest.approx((1 + 7 / math.log2(3)) / (7 + 1 / math.log2(3)))
    assert ndcg(lists_of(1, 2), test.assign(rating=0.), 2, 'linear') == 0 # nothing to gain

def test_ranks_count_up_to_k_and_gaps_not_at_all():
    test = pd.DataFrame(dict(user=1, item=[1, 2, 3]))
    lists = lists_of(9, 1, 2)
    assert [recall(lists, test, k) for k in (1, 2, 3)] == pytest.approx([0, 1/3, 2/3])
    assert [capped_recall(lists, test, k) for k in (1, 2, 3, 9)] == pytest.approx([0, 1/2, 2/3, 2/3])
    assert [precision(lists, test, k) for k in (2, 3, 6)] == pytest.approx([1/2, 2/3, 1/3])
    assert hit_rate(lists_of(None, 1.), test, 1) == 0 and hit_rate(lists_of(None, 1.), test, 2) == 1
    for f in (hit_rate, recall, capped_recall, precision, ndcg, mrr, mean_average_precision, partial(auc, candidates=9)):
        assert isinstance(f(lists, test), float) and isinstance(f(lists, test, per_user=True), pd.Series)
    assert [mrr(lists, test, k) for k in (1, 2, 3)] == [0, 1/2, 1/2] and mean_average_precision(lists, test, 3) == pytest.approx((1/2 + 2/3) / 3)
    assert hit_rate(lists_of(5, 1), pd.DataFrame(dict(user=1, item=[1, 1], rating=[1, 2]))) == 1
    assert all(math.isnan(f(lists, test[:0])) for f in (recall, ndcg, hit_rate))

def test_the_default_of_every_measure_is_ten_ranks():
    lists,test = lists_of(*range(20)),pd.DataFrame(dict(user=1, item=[9, 10]))
    assert recall(lists, test) == .5 and precision(lists, test) == .1 and capped_recall(lists, test) == .5 and match_lists(lists, test).gains.shape == (1, 10)
    assert hit_rate(lists, test[:1]) == 1 and hit_rate(lists, test[1:]) == 0 and ndcg(lists, test[1:]) == 0

def test_auc_of_lists_that_are_not_the_whole_catalogue():
    "Against all pairs: what is not listed stands behind, in any order"
    rng = np.random.default_rng(2)
    for n in (12, 20):
        for k in (0, 1, 5, 12):
            order,right = rng.permutation(n)[:k].tolist(),set(rng.permutation(n)[:4].tolist())
            place = {i: order.index(i) if i in order else n for i in range(n)}
            chance = lambda a, b: (place[a] < place[b]) + (place[a] == place[b]) / 2
            want = np.mean([chance(a, b) for a in right for b in range(n) if b not in right])
            got = auc(pd.concat([lists_of(*order), lists_of(*range(n), user=2)]), pd.DataFrame(dict(user=1, item=list(right))), n, per_user=True)
            assert got.tolist() == pytest.approx([want])
            assert auc(lists_of(*order), pd.DataFrame(dict(user=1, item=list(right))), n) == pytest.approx(want)
    assert auc(lists_of(1, 2), pd.DataFrame(dict(user=1, item=[1, 2])), 2) == 1 # no wrong item there is

# --- what is refused

GOOD = pd.DataFrame(dict(user=[1, 1], item=[1, 2], rating=[1., 2]))

@pytest.mark.parametrize('lists,test,kw,said', [
    (lists_of(1), GOOD[['user']], {}, 'test: expected columns of users and items'), (lists_of(1), GOOD[['user', 'item']], dict(gain='linear'), 'needs a rating in the third column'),
    (lists_of(1), GOOD.assign(rating=-1.), dict(gain='linear'), 'below 0'), (lists_of(1).drop(columns='rank'), GOOD, {}, "lists: no column 'rank'"),
    (lists_of('a', 'b'), GOOD, {}, 'Give both the same types'), (lists_of(1).assign(rank=1.5), GOOD, {}, 'got 1.5'), (lists_of(1, 2).assign(rank=[1, -3]), GOOD, {}, 'got -3'),
    (lists_of(1, 1), GOOD, {}, 'an item twice in the list of user 1'), (lists_of(1, 2).assign(rank=1), GOOD, {}, 'a rank twice in the list of user 1'),
    (lists_of(1), GOOD, dict(k=0), 'k: expected'), (lists_of(1), GOOD, dict(gain='none'), 'gain: expected')])
def test_refused(lists, test, kw, said):
    with pytest.raises(ValueError, match=said): match_lists(lists, test, **kw)

def test_what_is_just_right_is_taken():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert match_lists(lists_of(1), GOOD.assign(rating=0.), gain='linear').gains.sum() == 0
        assert match_lists(lists_of(None, None), GOOD).gains.sum() == 0 # gaps may be there twice
        assert match_lists(lists_of(1)[:0], GOOD).gains.shape == (1, 10)
        assert match_lists(lists_of(1).assign(score=2.), GOOD).left_out == 0 # of one, all scores are the same
        assert match_lists(lists_of(1, 2).assign(score=[2., 1]), GOOD).counts.tolist() == [2]
        assert match_lists(lists_of(1, 2).assign(value=[2., 1], score=0.), GOOD).counts.tolist() == [2] # the value orders
    with pytest.warns(UserWarning, match='every value is the same'): match_lists(lists_of(1, 2).assign(value=1.), GOOD)

def test_numbers_are_asked_for():
    df = pd.DataFrame(dict(a=[1, 2], b=[True, False], c=['x', 'y']))
    assert check_numbers('vectors', df[['a', 'b']]) is not None
    with pytest.raises(ValueError, match="vectors: expected numbers, got 'c' of (object|str)"): check_numbers('vectors', df)
    with pytest.raises(ValueError, match='other types'): check_numbers('vectors', df[['c', 'c']])

# --- beyond accuracy

def test_measures_of_lists_alone_against_loops():
    rng = np.random.default_rng(3)
    for users,n in ((1, 20), (8, 20), (8, 6)):
        lists = many(rng, users, n=n)
        shown = [int((lists.item == i).sum()) for i in range(n)]
        assert coverage(lists, n) == pytest.approx(sum(s > 0 for s in shown) / n)
        assert gini(lists, n) == pytest.approx(sum(abs(a - b) for a in shown for b in shown) / (2 * n * sum(shown)), abs=1e-12)
    assert gini(lists_of(1), 50) == pytest.approx(.98) and math.isnan(gini(lists_of(), 5))
    assert gini(lists_of(*range(5)), 3) == pytest.approx(0) # more than the catalogue is said to have
    with pytest.raises(ValueError, match='item_count'): coverage(lists, 0)
    for f in (coverage, gini):
        with pytest.raises(ValueError, match='lists: expected a column'): f(lists, 20, 'film')

def test_popularity_and_novelty_against_loops():
    rng = np.random.default_rng(4)
    lists,train = many(rng),pd.DataFrame(dict(user=rng.integers(12, size=90), item=rng.integers(15, size=90))) # pairs that occur twice, and items that nobody knows
    users = train.user.nunique()
    share = [train[train.item == i].user.nunique() / users for i in lists.item]
    assert 0 in share
    assert popularity(lists, train) == pytest.approx(np.mean(share))
    assert novelty(lists, train) == pytest.approx(np.mean([-math.log2(s or 1 / (users + 1)) for s in share]))
    renamed = dict(item='film', user='who')
    assert novelty(lists.rename(columns=renamed), train.rename(columns=renamed), 'film', 'who') == pytest.approx(novelty(lists, train))

def test_diversity_against_all_pairs():
    rng = np.random.default_rng(5)
    v = pd.DataFrame(rng.normal(size=(18, 3))) # two of twenty are not described
    lists = pd.concat([many(rng), lists_of(3, user=50), pd.DataFrame(dict(user=[np.nan], rank=[1], item=[4]))]) # one alone, one of nobody
    def far(a, b):
        if a not in v.index or b not in v.index: return 1.
        return 1 - v.loc[a] @ v.loc[b] / np.linalg.norm(v.loc[a]) / np.linalg.norm(v.loc[b])
    want = np.mean([np.mean([far(a, b) for a,b in combinations(g.item, 2)]) for u,g in lists.groupby('user') if len(g) > 1])
    assert diversity(lists, v) == pytest.approx(want)
    assert diversity(lists_of(1, 2), v) == pytest.approx(far(1, 2))
    assert math.isnan(diversity(lists_of(1), v)) and math.isnan(diversity(lists_of(), v))
    assert diversity(lists_of(1, 2), v * 0) == 1

# --- in a learner

@pytest.fixture(scope='module')
def learn():
    df = simulate_ratings(30, 25, 400, seed=3)
    return cf_learner(CFDataLoaders.from_df(df, user_name='user', item_name='item', rating_name='rating', seed=1, device='cpu'), 4, seed=0)

def test_validation_rows_as_a_frame(learn):
    d,v = learn.dls,learn.dls.valid_ds
    df = valid_frame(d)
    assert list(df) == ['user', 'item', 'rating'] and len(df) == len(v)
    assert d.catalog.user.rows(df.user).tolist() == v.users.tolist() and d.catalog.item.rows(df.item).tolist() == v.items.tolist()
    assert df.rating.tolist() == v.ratings.tolist()
    best = float(df.rating.max())
    assert (valid_frame(d, best).rating == best).all() and len(valid_frame(d, best)) == (df.rating == best).sum() > 0
    assert valid_frame(d, best + 1).empty

@pytest.mark.parametrize('liked,users', [(None, None), (4., None), (None, 5)])
def test_a_measure_of_the_validation_rows(learn, liked, users):
    m = ListMetric(ndcg, 4, liked, users, rank_by='rating')
    assert m.name == 'ndcg@4' and m.value is None
    m.accumulate(learn)
    test = valid_frame(learn.dls, liked)
    who = [u for u in test.user.unique() if learn.dls.counts('user')[learn.dls.catalog.user.rows([u])[0]] > 0][:users]
    assert m.value == pytest.approx(ndcg(learn.recommend(who, 4, rank_by='rating'), test[test.user.isin(who)], 4))
    m.reset()
    assert m.value is None
    m.accumulate('not a learner of ratings')
    assert m.value is None
    none = ListMetric(ndcg, 4, 99.)
    none.accumulate(learn)
    assert math.isnan(none.value)

def test_measures_as_metrics():
    m = NDCG(5, liked=4)
    assert m.name == 'ndcg@5' and m.liked == 4 and m.max_users == 1000 and NDCG().k == ListMetric(ndcg).k == 10
    with pytest.raises(ValueError, match='k: expected'): NDCG(0)
