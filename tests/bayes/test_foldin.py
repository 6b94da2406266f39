"What folding in is made of beside loops: vectors of a model, the rows to learn a prior from, their posteriors, the noise, and new ratings in every form"
import warnings
import numpy as np, pandas as pd, pytest, torch
from fastai.data.transforms import IndexSplitter
import fastcf.learn.predict, fastcf.rank.topn
from fastcf.bayes import foldin
from fastcf.bayes.foldin import bilinear_design, check_frame, columns_of, estimate_noise, estimate_prior, new_ratings, row_posteriors, rows_to_learn_from, sides_of, table_vectors, validation_noise
from fastcf.bayes.posterior import gaussian_of, link_slope
from fastcf.cold.attach import *
from fastcf.core import RatingsError, UnknownIdError
from fastcf.data.loaders import CFDataLoaders
from fastcf.data.sources import simulate_ratings
from fastcf.learn.learner import cf_learner

def make(y_range=(.5, 5.5), items=None, users=None, n=900, **kwargs):
    df = simulate_ratings(40, 30, n, seed=3)
    learn = cf_learner(CFDataLoaders.from_df(df, seed=0, device='cpu', items=items, users=users, **{'valid_pct': .2, **kwargs}), factor_count=3, y_range=y_range, seed=0)
    with learn.no_bar(), learn.no_logging(): learn.fit(3)
    return learn

def split(valid, y_range=(.5, 5.5)):
    "A learner with some rows to validate on"
    df = simulate_ratings(40, 30, 900, seed=3)
    learn = cf_learner(CFDataLoaders.from_df(df, splitter=IndexSplitter(list(valid(df))), device='cpu'), factor_count=3, y_range=y_range, seed=0)
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    return learn

@pytest.fixture(scope='module', params=[(.5, 5.5), None], ids=['y_range', 'none'])
def learn(request): return make(request.param)

SIDES = [('user', 'item'), ('item', 'user')]

@pytest.mark.parametrize('side,other', SIDES)
def test_vectors_are_those_of_the_model(learn, side, other):
    users,items = table_vectors(learn.model)
    assert torch.equal(users[:, :-1], learn.model.user_weight.weight) and torch.equal(items[:, -1], learn.model.item_bias.weight[:, 0])
    own,met = (users, items) if side == 'user' else (items, users)
    vectors,offsets,mine = bilinear_design(learn.model, side)
    assert torch.equal(mine, own) and torch.equal(vectors[:, :-1], met[:, :-1]) and (vectors[:, -1] == 1).all() and torch.equal(offsets, met[:, -1])
    c = learn.dls.catalog
    assert sides_of(c, side) == ((c.user, c.item) if side == 'user' else (c.item, c.user))

@pytest.mark.parametrize('side', ['user', 'item'])
def test_some_rows_with_all_their_ratings(learn, side):
    t = learn.dls.train_ds
    own,other = (t.users, t.items) if side == 'user' else (t.items, t.users)
    for most in (1, 7, 10**6):
        ids,row,col,r = rows_to_learn_from(t, side, most, 0)
        assert len(ids) == min(most, own.unique().numel()) and ids.tolist() == sorted(set(ids.tolist()))
        want = sorted((int(a), int(b), float(c)) for a,b,c in zip(own, other, t.ratings) if int(a) in ids.tolist())
        assert sorted(zip(ids[row].tolist(), col.tolist(), r.tolist())) == want
    assert len({tuple(rows_to_learn_from(t, side, 5, seed)[0].tolist()) for seed in range(6)}) > 1 and torch.equal(rows_to_learn_from(t, side, 5, 1)[0], rows_to_learn_from(t, side, 5, 1)[0])

@pytest.mark.parametrize('side', ['user', 'item'])
@pytest.mark.parametrize('most,fewest', [(200, 1), (1, 4), (10**6, 1)])
def test_fewer_rows_where_they_have_very_many_ratings(learn, side, most, fewest, monkeypatch):
    "As many of those that were drawn as stay within a number of ratings, and some in any case"
    monkeypatch.setattr(foldin, '_MOST', most); monkeypatch.setattr(foldin, '_FEWEST', fewest)
    t = learn.dls.train_ds
    ids,row,col,r = rows_to_learn_from(t, side, 25, 0)
    counts = learn.dls.counts(side)
    assert fewest <= len(ids) <= 25 and len(r) == counts[ids].sum() and (len(r) <= most or len(ids) == fewest)
    if most == 10**6: assert len(ids) == 25
    monkeypatch.undo()
    assert set(ids.tolist()) <= set(rows_to_learn_from(t, side, 25, 0)[0].tolist())

@pytest.mark.parametrize('noise', [None, .6])
@pytest.mark.parametrize('side', ['user', 'item'])
def test_posteriors_of_rows_are_those_of_tangents(learn, side, noise):
    "One row at a time, in float64"
    ids,n,spread,mse,post = row_posteriors(learn, side, 8, 0, noise)
    vectors,offsets,own = (o.double() for o in bilinear_design(learn.model, side))
    _,row,col,r = rows_to_learn_from(learn.dls.train_ds, side, 8, 0)
    raw = (own[ids[row]] * vectors[col]).sum(1) + offsets[col]
    fit,slope = link_slope(raw, getattr(learn.model, 'y_range', None))
    slope = slope.clamp(min=1e-3 * float(slope.max()))
    assert n == len(r) and float(mse) == pytest.approx(noise or float(((r - fit)**2).mean()), rel=1e-4)
    want = gaussian_of(own[ids].float())
    torch.testing.assert_close(spread.mean, want.mean, rtol=1e-4, atol=1e-5)
    for j in range(len(ids)):
        at = row == j
        a,w = vectors[col[at]],slope[at]**2 / float(mse)
        p = spread.precision.double() + (a * w[:, None]).T @ a
        h = spread.precision.double() @ spread.mean.double() + (a * (w * ((r[at] - fit[at]) / slope[at] + raw[at] - offsets[col[at]]))[:, None]).sum(0)
        torch.testing.assert_close(post.precision[j].double(), p, rtol=1e-3, atol=1e-2)
        torch.testing.assert_close(post.mean[j].double(), torch.linalg.solve(p, h), rtol=1e-2, atol=1e-2)

@pytest.mark.parametrize('side', ['user', 'item'])
@pytest.mark.parametrize('most', [500, 25])
@pytest.mark.parametrize('cold', [False, True])
def test_the_noise_that_validation_ratings_show(learn, side, most, cold):
    "What they miss by, less what is not known of their rows; three times"
    if cold: learn = split(lambda df: df.index[(df.index % 4 == 0) | df.user.isin([3, 4]) | df.item.isin([5, 6])], learn.model.y_range) # two of each side without training ratings
    d,v = learn.dls,learn.dls.valid_ds
    vectors,offsets,_ = bilinear_design(learn.model, side)
    ids,noise = rows_to_learn_from(d.train_ds, side, most, 0)[0].tolist(),None
    own,other = (v.users, v.items) if side == 'user' else (v.items, v.users)
    met = d.counts('item' if side == 'user' else 'user')
    pairs = [(ids.index(int(a)), int(b), float(r)) for a,b,r in zip(own, other, v.ratings) if int(a) in ids and met[int(b)] > 0]
    for _ in range(3):
        post = row_posteriors(learn, side, most, 0, noise)[-1]
        cov,beyond = post.cov(),[]
        for a,b,r in pairs:
            fit,slope = link_slope((post.mean[a] @ vectors[b] + offsets[b])[None], getattr(learn.model, 'y_range', None))
            beyond.append((float(fit) - r)**2 - float(slope)**2 * float(vectors[b] @ cov[a] @ vectors[b]))
        noise = torch.tensor(beyond).mean().clamp(min=1e-6)
    assert (len(pairs) < len(v)) == (cold or most < 30) or side == 'item'
    assert validation_noise(learn, side, most) == pytest.approx(float(noise), rel=1e-3)
    assert validation_noise(learn, side, most, steps=1) != validation_noise(learn, side, most)

def test_noise_needs_a_hundred_known_pairs_and_both_sides_share_one():
    many = make()
    both = [validation_noise(many, o) for o in ('user', 'item')]
    assert many.learned.get('validation_noise') == pytest.approx(sum(both) / 2)
    few,enough = (split(lambda df: range(n)) for n in (99, 100))
    assert validation_noise(few, 'user') is None and few.learned.get('validation_noise') is None and validation_noise(enough, 'user') > 0

@pytest.mark.parametrize('n,used,want', [(1000, 100, 1.25), (1000, 449, 1000 / 102), (1000, 450, 10.), (1000, 600, 10.)])
def test_noise_by_degrees_of_freedom(n, used, want):
    class Learned:
        learned = {}
    used = torch.tensor(float(used))
    if used > n / 4:
        with pytest.warns(UserWarning, match='follow their 1,000 training ratings so closely'): got = estimate_noise(Learned, 'user', n, used, torch.tensor(1.))
    with warnings.catch_warnings():
        warnings.simplefilter('error') # it is no guess where little is used up, or validation ratings show it
        if used <= n / 4: got = estimate_noise(Learned, 'user', n, used, torch.tensor(1.))
        assert got == pytest.approx(want)
        for seen in (.5, 20.):
            Learned.learned = dict(validation_noise=seen)
            assert estimate_noise(Learned, 'user', n, used, torch.tensor(1.)) == pytest.approx(max(want, seen))

@pytest.mark.parametrize('side', ['user', 'item'])
def test_a_prior_is_the_spread_of_the_posteriors(learn, side):
    p = estimate_prior(learn, side)
    ids,n,spread,mse,post = row_posteriors(learn, side, 5_000, 0)
    want = gaussian_of(post.mean, post.cov().mean(0))
    torch.testing.assert_close(p.prior.mean, want.mean); torch.testing.assert_close(p.prior.precision, want.precision)
    used = sum(4 - float(torch.trace(spread.precision @ c)) for c in post.cov())
    assert float(p.likelihood.noise) == pytest.approx(max(float(mse) * n / (n - 2 * used), learn.learned.get('validation_noise')), rel=1e-3)
    assert torch.equal(p.likelihood.offsets, bilinear_design(learn.model, side)[1]) and p.likelihood.y_range == getattr(learn.model, 'y_range', None)
    few = estimate_prior(learn, side, max_rows=6, seed=1)
    torch.testing.assert_close(few.prior.mean, row_posteriors(learn, side, 6, 1)[-1].mean.mean(0))
    assert estimate_prior(learn).likelihood.offsets.shape == (30,) # of users, who meet items

def test_limits_are_those_of_the_range_or_of_the_ratings(learn):
    r = learn.dls.train_ds.ratings
    assert learn.learned.get('rating_limits') == (learn.model.y_range or (float(r.min()), float(r.max())))

# --- new ratings

def test_new_ratings_come_in_every_form(learn):
    items = learn.dls.catalog.item[learn.dls.counts().nonzero()[:3, 0].numpy()].tolist()
    want = [(i, r) for i,r in zip(items, (5., 1., 3.))]
    frame = pd.DataFrame(dict(user='x', item=items, rating=[5., 1, 3]))
    for o in (dict(want), pd.Series(dict(want)), frame, frame.assign(more=1), frame[['rating', 'item', 'user']], frame.rename(columns=dict(user='customer', item='movie', rating='stars')), frame.rename(columns=dict(user='u')).assign(x=0)[['u', 'item', 'rating']]):
        ids,rows,cols,values = new_ratings(learn, o)
        assert len(ids) == 1 and rows.tolist() == [0] * 3 and values.dtype == 'float32'
        assert sorted(zip(learn.dls.catalog.item[cols].tolist(), values.tolist())) == sorted(want)
    users = learn.dls.catalog.user[learn.dls.counts('user').nonzero()[:3, 0].numpy()].tolist()
    ids,rows,cols,values = new_ratings(learn, dict(zip(users, (1, 2, 3))), 'item')
    assert ids.name == 'item' and list(ids) == ['new'] and learn.dls.catalog.user[cols].tolist() == users and values.tolist() == [1, 2, 3]
    for none in ({}, frame[:0]):
        ids,*rest = new_ratings(learn, none)
        assert list(ids) == ['new'] and ids.name == 'user' and [len(o) for o in rest] == [0, 0, 0]

@pytest.mark.parametrize('ratings,error,words', [
    ([1, 2], TypeError, 'ratings: expected a frame of user, item, rating, or a dictionary of item: rating for one new user, got list'),
    (pd.DataFrame(dict(user=[1], item=[2])), RatingsError, r"new ratings need \['user', 'item', 'rating'\], there are \['user', 'item'\]"),
    (pd.concat([pd.DataFrame(dict(user=[1], item=[2], rating=[3.])), pd.DataFrame(dict(item=[3]))], axis=1), ValueError, 'expected one column'),
    (pd.DataFrame(dict(user=[1, 1], item=[2, 2], rating=[3., 4])), RatingsError, 'a pair of user and item in several rows'), ({2: 99}, RatingsError, 'outside'), ({2: None}, RatingsError, 'missing rating'),
    (pd.DataFrame(dict(user=[1, None, None], item=[2, 3, 3], rating=[3., 4, 9])), RatingsError, 'missing id')])
def test_new_ratings_that_are_none(learn, ratings, error, words):
    with pytest.raises(error, match=words): check_frame(learn, ratings)

def test_ids_nobody_knows(learn):
    known = learn.dls.catalog.item[learn.dls.counts().nonzero()[:2, 0].numpy()].tolist()
    some = {known[0]: 4, 10**6: 2, known[1]: 1}
    with pytest.raises(UnknownIdError, match='1000000'): new_ratings(learn, some)
    _,rows,cols,values = new_ratings(learn, some, unknown='drop')
    assert values.tolist() == [4, 1] and rows.tolist() == [0, 0]
    with pytest.raises(RatingsError, match='none of these ratings is of a known item'): new_ratings(learn, {10**6: 2}, unknown='drop')
    with pytest.raises(ValueError, match='unknown'): new_ratings(learn, some, unknown='skip')
    two = pd.DataFrame(dict(user=['b', 'a', 'a'], item=[known[0], known[1], 10**6], rating=[1., 2, 3]))
    ids,rows,cols,values = new_ratings(learn, two, unknown='drop')
    assert list(ids) == ['a', 'b'] and rows.tolist() == [1, 0] and values.tolist() == [1, 2]

# --- beside an attached prior

@pytest.fixture(scope='module')
def served():
    items = pd.DataFrame(dict(item=range(34), title=[f'T{i}' for i in range(34)], kind=[*'ab'] * 17))
    learn = make(items=items)
    learn.attach_prior(items=True)
    return learn

def test_columns_are_the_tables_and_then_those_that_a_prior_serves(served):
    c = columns_of(served, 'user')
    assert len(c.ids) == len(c.counts) == len(c.titles) == len(c.at) == 34 and list(c.ids)[:len(served.dls.catalog.item)] == list(served.dls.catalog.item)
    assert c.titles.tolist() == [f'T{i}' for i in c.ids] and (c.counts[len(served.dls.catalog.item):] == 0).all() and torch.equal(c.counts[:len(served.dls.catalog.item)], served.dls.counts())
    assert torch.equal(c.at >= 0, c.counts == 0) and len(c.belief.prior.mean) == int((c.counts == 0).sum())
    o = columns_of(served, 'item')
    assert o.titles is None and o.belief is None and o.at is None and list(o.ids) == list(served.dls.catalog.user) and torch.equal(o.counts, served.dls.counts('user'))

def test_ids_that_only_a_prior_serves_may_be_rated(served):
    _,rows,cols,values = new_ratings(served, {0: 4, 33: 2})
    assert columns_of(served, 'user').ids[cols].tolist() == [0, 33] and values.tolist() == [4, 2]
    assert len(new_ratings(served, {0: 4, 33: 2, 99: 1}, unknown='drop')[2]) == 2
    with pytest.raises(UnknownIdError, match='99'): new_ratings(served, {0: 4, 99: 2})
    with pytest.raises(UnknownIdError, match='33'): new_ratings(served, {0: 4, 33: 2}, served=False)
    new = served.fold_in({0: 4, 33: 2})
    assert new.predict(items=33) != served.fold_in({0: 4}).predict(items=33)
    prior = estimate_prior(served)
    torch.testing.assert_close(served.fold_in({0: 4}, prior=prior).mean, served.fold_in({0: 4}).mean)
    wide = type(prior)(type(prior.prior)(prior.prior.mean + 1, prior.prior.precision), prior.likelihood)
    assert (served.fold_in({0: 4}, prior=wide).mean - served.fold_in({0: 4}).mean).abs().max() > .1
    own = served.fold_in_items(pd.DataFrame(dict(user=[0, 1], item=[33, 33], rating=[5., 4]))) # starts from its metadata
    plain = served.fold_in_items(pd.DataFrame(dict(user=[0, 1], item=[33, 33], rating=[5., 4])), prior=estimate_prior(served, 'item'))
    assert (own.mean - plain.mean).abs().max() > 1e-4
