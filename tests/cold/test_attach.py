"Ids that the tables never saw, served by priors: against plain computations, before and after training, folding in and export"
import warnings
from functools import partial
import numpy as np, pandas as pd, pytest, torch
from fastai.learner import load_learner
from fastcf.cold.attach import *
from fastcf.cold.metadata_prior import MetadataPrior
from fastcf.cold.proxies import ProxyQuestions
from fastcf.data.splits import ColdItemSplitter
from fastcf.core import RatingsError, UnknownIdError
from fastcf.bayes.belief import Belief
from fastcf.bayes.foldin import row_prior
import fastcf.learn.predict, fastcf.rank.topn, fastcf.bayes.growth
from fastcf.rank.best import blocks_of
from fastcf.learn.learner import cf_learner
from fastcf.data.loaders import CFDataLoaders
from test_coldstart import town

NEW_USERS,NEW_ITEMS = list(range(240, 300)),list(range(160, 200))

@pytest.fixture
def learn(town):
    l = town['learn'].detach_prior()
    yield l
    l.detach_prior()

def fresh(town, epochs=1, **kwargs):
    warm = town['df'][(town['df'].user < 240) & (town['df'].item < 160)]
    l = cf_learner(CFDataLoaders.from_df(warm, seed=0, users=town['users'], items=town['items'], device='cpu', **kwargs), factor_count=3, y_range=(.5, 5.5), seed=0)
    with l.no_bar(), l.no_logging(): l.fit(epochs, 2e-2)
    return l

def table(l, j, ids):
    m,c = l.model,l.dls.catalog
    v,w,b = (c.item, m.item_weight, m.item_bias) if j else (c.user, m.user_weight, m.user_bias)
    r = torch.as_tensor(v.encode(ids))
    return torch.cat([w.weight[r], b.weight[r]], 1).detach()

def rated(l, u, v): return l.model.link((u[:, :-1] * v[:, :-1]).sum(1) + u[:, -1] + v[:, -1]).detach().numpy()

def test_predictions_are_products_of_prior_means(town, learn):
    users,items = MetadataPrior(learn),MetadataPrior(learn, 'item')
    learn.attach_prior(users, items)
    u,i = users.prior(ids=[250, 299]).mean,items.prior(ids=[199, 170]).mean
    assert learn.predict([250, 299], [3, 4]).prediction.to_numpy() == pytest.approx(rated(learn, u, table(learn, 1, [3, 4])), abs=1e-5)
    assert learn.predict([3, 4], [199, 170]).prediction.to_numpy() == pytest.approx(rated(learn, table(learn, 0, [3, 4]), i), abs=1e-5)
    assert learn.predict([250, 299], [199, 170]).prediction.to_numpy() == pytest.approx(rated(learn, u, i), abs=1e-5)
    assert learn.predict(250, 3) == pytest.approx(rated(learn, u[:1], table(learn, 1, [3]))[0], abs=1e-5)
    mixed = pd.DataFrame(dict(user=[3, 250, 3], item=[4, 4, 199]), index=list('abc'))
    got = learn.predict(mixed)
    assert list(got.index) == list('abc') and got.prediction.a == pytest.approx(learn.predict(3, 4)) and got.prediction.c == pytest.approx(learn.predict(3, 199))

def test_standard_deviations_are_those_of_drawn_vectors(town, learn):
    "Where both sides are new: a product of two uncertain vectors"
    users,items = MetadataPrior(learn),MetadataPrior(learn, 'item')
    learn.attach_prior(users, items)
    p = learn.predict(250, [199], return_std=True).iloc[0]
    g = torch.Generator().manual_seed(0)
    draw = lambda o: o.mean + torch.randn(200_000, o.mean.shape[1], generator=g) @ torch.linalg.cholesky(o.cov()[0]).T
    u,v = draw(users.prior(ids=[250])),draw(items.prior(ids=[199]))
    raw = (u[:, :-1] * v[:, :-1]).sum(1) + u[:, -1] + v[:, -1]
    s = torch.sigmoid(torch.as_tensor(np.log((p.prediction - .5) / (5.5 - p.prediction))))
    assert p['std']**2 - (users.base.likelihood.noise + items.base.likelihood.noise) / 2 == pytest.approx(float(raw.var() * (5 * s * (1 - s))**2), rel=.02)

def test_doubt_is_ordered(town, learn):
    learn.attach_prior(users=True, items=True)
    s = learn.predict([3, 250, 3, 250], [4, 4, 199, 199], return_std=True)['std']
    assert s[0] < s[1] < s[3] and s[0] < s[2] < s[3]
    df = town['df']
    for cold in (df[(df.user >= 240) & (df.item < 160)], df[(df.user < 240) & (df.item >= 160)], df[(df.user >= 240) & (df.item >= 160)]):
        p = learn.predict(cold, interval=.9)
        assert .82 < ((p.low <= cold.rating) & (cold.rating <= p.high)).mean() < .97

def test_blocks_change_nothing(town, learn, monkeypatch):
    learn.attach_prior(users=True, items=True)
    df = town['df'].sample(300, random_state=0)
    whole = learn.predict(df, interval=.9)
    monkeypatch.setattr('fastcf.cold.attach.BUDGET', 7 * 25)
    pd.testing.assert_frame_equal(learn.predict(df, interval=.9), whole, rtol=1e-4)
    top = learn.recommend(NEW_USERS + [3], 5, min_ratings=0)
    monkeypatch.setattr('fastcf.rank.best.blocks_of', partial(blocks_of, budget=300))
    pd.testing.assert_frame_equal(learn.recommend(NEW_USERS + [3], 5, min_ratings=0), top, rtol=1e-4)

@pytest.mark.parametrize('who', [[250, 3, 299], [3, 4], [250]])
@pytest.mark.parametrize('kwargs', [{}, dict(min_ratings=0), dict(items=NEW_ITEMS), dict(items=[199, 3, 4, 170, 199]), dict(min_ratings=30), dict(exclude_seen=False)])
def test_recommendations_against_a_loop(town, learn, who, kwargs):
    learn.attach_prior(users=True, items=True)
    got,d = learn.recommend(who, 6, rank_by='rating', **kwargs),learn.dls
    for u in who:
        mine = set(d.classes['item'][d.train_ds.items[d.train_ds.users == d.classes['user'].rows([u])[0]]]) if u < 240 and kwargs.get('exclude_seen', True) else set()
        known = [i for i,n in zip(d.classes['item'], d.counts()) if n >= max(1, kwargs.get('min_ratings', 1))]
        cand = kwargs.get('items', known + (NEW_ITEMS if kwargs.get('min_ratings') == 0 else []))
        want = learn.predict(u, [i for i in dict.fromkeys(cand) if i not in mine]).sort_values('prediction', ascending=False, kind='stable').head(6)
        top = got[got.user == u]
        assert top.prediction.to_numpy() == pytest.approx(want.prediction.to_numpy(), abs=1e-5) and top['rank'].tolist() == list(range(1, len(top) + 1)) and not set(top.item) & mine
        assert set(top.item) <= set(cand)

def test_candidates_without_a_prior(learn):
    assert set(learn.recommend(3, 4, items=[5, 6, 7, 8], exclude_seen=False).item) == {5, 6, 7, 8}
    with pytest.raises(UnknownIdError, match='item: 1 unknown id: 199'): learn.recommend(3, items=[5, 199])

def test_titles_of_new_items(town, learn):
    learn.attach_prior(items=town['items'].assign(title='T' + town['items'].item.astype(str)))
    top = learn.recommend([3], 5, min_ratings=0, items=NEW_ITEMS[:3] + [4])
    assert (top.title == 'T' + top.item.astype(str)).all()

def test_one_side_alone(town, learn):
    learn.attach_prior(users=True)
    with pytest.raises(UnknownIdError, match='item: 1 unknown id: 199'): learn.predict(250, 199)
    got = learn.predict([250, 250, 3], [3, 199, 199], unknown='nan', return_std=True)
    assert got.prediction.isna().tolist() == got['std'].isna().tolist() == [False, True, True]
    with pytest.raises(UnknownIdError): learn.detach_prior(items=False).attach_prior(items=True).detach_prior(items=True).predict(3, 199)

def test_detaching(learn):
    learn.attach_prior(users=True, items=True).detach_prior(users=False)
    assert learn.predict(250, 3) > 0
    with pytest.raises(UnknownIdError): learn.predict(3, 199)
    learn.attach_prior(items=True).detach_prior()
    for f in (lambda: learn.predict(250, 3), lambda: learn.predict(3, 199), lambda: learn.recommend(250), lambda: learn.recommend(3, items=[199])):
        with pytest.raises(UnknownIdError): f()
    assert learn.learned.newcomers is None

def test_an_id_without_metadata_gets_what_is_believed_of_anyone(town, learn):
    learn.attach_prior(users=True)
    every = row_prior(learn, 'user')
    assert learn.predict(12345, 3) == pytest.approx(rated(learn, every.mean[None], table(learn, 1, [3]))[0], abs=1e-5)
    assert learn.predict([12345, 250], [3, 3], return_std=True)['std'].is_monotonic_decreasing

def test_ids_of_another_type_are_no_newcomers(learn):
    learn.attach_prior(users=True, items=True)
    with pytest.raises(UnknownIdError, match="They are text and the ids of 'user' are numbers"): learn.predict('250', 3)
    with pytest.raises(UnknownIdError, match='They are text'): learn.recommend(3, items=['199'])
    for nobody in (None, float('nan')):
        with pytest.raises(UnknownIdError, match='user: 1 unknown id'): learn.predict(nobody, 3)
        with pytest.raises(UnknownIdError, match='user: 1 unknown id'): learn.recommend([nobody])

def test_an_id_that_only_validates_is_served(town):
    l = fresh(town, splitter=ColdItemSplitter(.2, seed=1))
    cold = l.dls.catalog.item[(l.dls.counts() == 0).numpy()]
    l.attach_prior(items=True)
    p = MetadataPrior(l, 'item').prior(ids=cold[:2]).mean
    assert l.predict(3, cold[:2]).prediction.to_numpy() == pytest.approx(rated(l, table(l, 0, [3, 3]), p), abs=1e-5)
    assert not set(l.recommend(3, 200).item) & set(cold) and set(cold) <= set(l.recommend(3, 500, min_ratings=0).item)

# --- folding in

def test_folding_in_starts_from_ones_own_prior(town, learn):
    df = pd.DataFrame(dict(user=[250, 251, 12345], item=[3, 3, 3], rating=[4., 4., 4.]))
    plain = learn.fold_in(df).mean
    users,items = MetadataPrior(learn),MetadataPrior(learn, 'item')
    mine = learn.attach_prior(users, items).fold_in(df).mean
    assert torch.allclose(plain[0], plain[1]) and torch.allclose(mine[2], plain[2], atol=1e-5) and not torch.allclose(mine[0], plain[0], atol=1e-3)
    want = users.prior(ids=[250]).after([0], learn.dls.catalog.item.rows([3]), [4.])
    assert torch.allclose(mine[0], want.mean[0], atol=1e-4)
    new = pd.DataFrame(dict(user=[3, 4], item=[199, 170], rating=[4., 2.]))
    want = items.prior(ids=[170, 199]).after([0, 1], learn.dls.catalog.user.rows([4, 3]), [2., 4.])
    assert torch.allclose(learn.fold_in_items(new).mean, want.mean, atol=1e-4)
    none = learn.fold_in({})
    assert torch.allclose(none.mean[0], users.base.mean, atol=1e-5)
    given = learn.fold_in(df, prior=row_prior(learn, 'user'))
    assert torch.allclose(given.mean, plain, atol=1e-5)

def test_added_users_are_known_and_the_others_still_served(town):
    l = fresh(town).attach_prior(users=True)
    few = town['df'][(town['df'].user.isin([250, 251])) & (town['df'].item < 160)]
    l.add_users(few)
    assert 250 in l.dls.catalog.user and np.isfinite(l.predict([250, 299], [3, 3]).prediction).all()
    assert l.learned.prior('user').prior.vocab == l.dls.catalog.user

def test_training_on_renews_the_prior(town):
    l = fresh(town).attach_prior(users=True, items=True)
    before = l.predict(250, [3, 199])
    with l.no_bar(), l.no_logging(): l.fit(2, 2e-2)
    after = l.predict(250, [3, 199])
    again = l.detach_prior().attach_prior(users=True, items=True).predict(250, [3, 199])
    assert np.abs(after.prediction - before.prediction).max() > .01
    pd.testing.assert_frame_equal(after, again, rtol=1e-5)

# --- what can be attached

def test_what_can_be_attached(town, learn):
    for o in (True, town['items'], town['items'].set_index('item'), ProxyQuestions(learn, 'studio'), MetadataPrior(learn, 'item')):
        assert np.isfinite(learn.attach_prior(items=o).predict(3, 199))
    later = pd.DataFrame(dict(item=[900, 901], studio=[('s0',), ('s3',)]))
    p = learn.attach_prior(items=later).predict(3, [900, 901, 199]).prediction
    same = MetadataPrior(learn, 'item').prior(later).mean
    assert p[:2].to_numpy() == pytest.approx(rated(learn, table(learn, 0, [3, 3]), same), abs=1e-5) and set(learn.recommend(3, 300, min_ratings=0).item) >= {900, 901, 199}

def test_what_cannot(town, learn):
    with pytest.raises(ValueError, match="users: expected a prior of this learner's users, got one of items"): learn.attach_prior(users=MetadataPrior(learn, 'item'))
    other = cf_learner(CFDataLoaders.from_df(town['df'], seed=0, users=town['users'], device='cpu'), 3, seed=0)
    with pytest.raises(ValueError, match="users: expected a prior of this learner's users"): learn.attach_prior(users=MetadataPrior(other))
    with pytest.raises(TypeError, match='items: expected a MetadataPrior, ProxyQuestions, a frame of metadata or True, got str'): learn.attach_prior(items='studio')
    bare = cf_learner(CFDataLoaders.from_df(town['df'], seed=0, device='cpu'), 3, seed=0)
    with pytest.raises(ValueError, match='there is no metadata of users'): bare.attach_prior(users=True)
    with pytest.raises(ValueError, match='users: none of the 1 ids has ratings, such as 5001'): bare.attach_prior(users=pd.DataFrame(dict(user=[5001], city=['c1'])))
    assert learn.learned.newcomers is None and bare.learned.newcomers is None

def test_inputs_are_left_alone(town, learn):
    users,df = town['users'],town['df'].head(50)
    before = users.copy(deep=True),df.copy(deep=True)
    learn.attach_prior(users=users, items=True); learn.predict(df, interval=.9); learn.recommend(df.user, min_ratings=0); learn.fold_in(df.query('item < 160'))
    pd.testing.assert_frame_equal(users, before[0]); pd.testing.assert_frame_equal(df, before[1])

# --- export

@pytest.mark.parametrize('what', [dict(users=True, items=True), {}])
def test_an_exported_learner_serves_whom_the_learner_serves(town, learn, tmp_path, what):
    learn.attach_prior(**what)
    path,learn.path = learn.path,tmp_path
    learn.export('l.pkl')
    learn.path = path
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        again = load_learner(tmp_path/'l.pkl')
    pairs = pd.DataFrame(dict(user=[3, 250, 3, 250, 12345], item=[4, 4, 199, 199, 4])).head(5 if what else 1)
    pd.testing.assert_frame_equal(again.predict(pairs, interval=.9), learn.predict(pairs, interval=.9), rtol=1e-4)
    if what: pd.testing.assert_frame_equal(again.recommend([3, 250], 5, min_ratings=0), learn.recommend([3, 250], 5, min_ratings=0), rtol=1e-4)
    df = pd.DataFrame(dict(user=[250, 250], item=[3, 8], rating=[4., 1.]))
    a,b = (l.fold_in(df) for l in (again, learn))
    assert torch.allclose(a.mean, b.mean, atol=1e-4) and torch.allclose(a.cov(), b.cov(), atol=1e-4) and len(again.dls.train_ds) == 0

# --- the other side's prior, as newcomers meet it

def test_newcomers_rate_and_are_offered_what_a_prior_serves(town, learn):
    "Against the kernel by hand: columns without training ratings have the prior's means, and noise by the prior's covariances"
    items = MetadataPrior(learn, 'item')
    learn.attach_prior(items=items)
    she = learn.fold_in({3: 5., 199: 1., 170: 2.})
    base,known = row_prior(learn, 'user'),learn.dls.catalog.item
    p = items.prior(ids=[170, 199])
    like = base.likelihood.widened(p.prior, torch.cat([torch.full((len(known),), -1), torch.arange(2)]))
    n = len(known)
    want = Belief(base.prior, like).of(1).after([0, 0, 0], [known.rows([3])[0], n + 1, n], [5., 1., 2.])
    assert torch.allclose(she.mean, want.mean, atol=1e-4)
    got = she.predict(items=[199, 170, 4], return_std=True)
    assert got.prediction.to_numpy() == pytest.approx(np.append(rated(learn, want.mean.expand(2, -1), p.mean.flip(0)), want.expected([known.rows([4])[0]])[0].item()), abs=1e-4)
    assert got['std'].to_numpy() == pytest.approx(want.variance([n + 1, n, known.rows([4])[0]])[0].sqrt().numpy(), abs=1e-3)
    assert set(she.explain(3).item) == {3, 199, 170} and not torch.allclose(she.mean, learn.fold_in({3: 5.}).mean, atol=1e-3)
    she.update({199: 1., 198: 4.})
    assert len(she.values) == 4 and 198 not in set(she.recommend(500, min_ratings=0).item)

def test_lists_of_newcomers_take_in_what_a_prior_serves_where_asked(town, learn):
    before = set(learn.fold_in({3: 5}).recommend(500).item)
    she = learn.attach_prior(items=True).fold_in({3: 5})
    assert set(she.recommend(500).item) == before
    assert set(she.recommend(500, min_ratings=0).item) == before | set(NEW_ITEMS)
    assert list(she.predict_all().columns) == list(learn.dls.catalog.item)
    learn.detach_prior()
    with pytest.raises(UnknownIdError, match='199'): learn.fold_in({199: 5})
    assert len(learn.fold_in({199: 5, 3: 4}, unknown='drop').values) == 1

def test_lists_by_value_go_on_where_only_a_prior_knows_an_item(town, learn):
    "Such an item is listed as an average choice, and says nothing as a choice of a newcomer; taste hears it"
    learn.attach_prior(items=True)
    both = [learn.fold_in(o).recommend(500, min_ratings=0, interval=.9).set_index('item') for o in ({3: 5, 4: 2}, {3: 5, 4: 2, 199: 1})]
    assert set(NEW_ITEMS) <= set(both[0].index) and set(both[1].index) == set(both[0].index) - {199}
    a,b = (o.loc[both[1].index] for o in both)
    assert a.chance.to_numpy() == pytest.approx(b.chance.to_numpy(), abs=1e-6) and (a.prediction - b.prediction).abs().max() > .01
    new = b.loc[sorted(set(NEW_ITEMS) & set(b.index))]
    assert new.chance.nunique() == 1 and (b.low < b.prediction).all()
    only = learn.fold_in({199: 5}).recommend(3) # nothing that the choice model knows: an average user
    assert only.item.tolist() == learn.fold_in({199: 5}).recommend(3, rank_by='value').item.tolist() and len(only) == 3
    learn.detach_prior()

@pytest.mark.parametrize('kwargs,words', [(dict(rank_by='stars'), "rank_by: expected"), (dict(k=0), 'k: expected'), (dict(interval=2), 'interval: expected')])
def test_lists_of_newcomers_refuse_by_name(town, learn, kwargs, words):
    with pytest.raises(ValueError, match=words): learn.fold_in({3: 5}).recommend(**kwargs)
    items = learn.fold_in_items(pd.DataFrame(dict(user=[1, 2], item='z', rating=[4., 5.])))
    assert len(items.recommend(3)) == 3 and list(items.recommend(3, rank_by='rating', interval=.8))[-2:] == ['low', 'high']
    with pytest.raises(ValueError, match="rank_by: expected 'rating'"): items.recommend(3, rank_by='value')

def test_doubt_about_both_is_that_of_predict(town, learn):
    "Nothing is known of the user, metadata alone of the item: `predict` and `fold_in` come to the same"
    learn.attach_prior(users=True, items=True)
    folded = learn.fold_in({}).predict(items=[199, 170], return_std=True)
    straight = learn.predict(12345, [199, 170], return_std=True)
    noise = [learn.learned.prior(side).prior.base.likelihood.noise for side in ('user', 'item')]
    assert folded.prediction.to_numpy() == pytest.approx(straight.prediction.to_numpy(), abs=1e-4)
    assert (folded['std']**2 - noise[0]).to_numpy() == pytest.approx((straight['std']**2 - np.mean(noise)).to_numpy(), rel=1e-3)

def test_new_items_are_rated_by_users_whom_a_prior_serves(town, learn):
    learn.attach_prior(users=True)
    ratings = {250: 5., 3: 4.}
    one,alone = learn.fold_in_items(ratings),learn.fold_in_items({3: 4.})
    assert len(one.values) == 2 and not torch.allclose(one.mean, alone.mean, atol=1e-3)
    assert one.predict([250, 3], return_std=True)['std'].is_monotonic_decreasing
    df = one.predict(pd.DataFrame(dict(user=[250, 3], item='new'), index=['b', 'a']), interval=.9)
    assert list(df.index) == ['b', 'a'] and np.isfinite(df.prediction).all()

def test_a_frame_that_is_no_pairs_is_named(learn):
    she = learn.fold_in({3: 5})
    with pytest.raises((ValueError, RatingsError), match="no column 'user' for the users"): she.predict(pd.DataFrame(dict(item=[3, 4])))
    with pytest.raises((ValueError, RatingsError), match="no column 'item' for the items"): learn.fold_in_items({3: 5}).predict(pd.DataFrame(dict(user=[3, 4])))
    assert she.predict(pd.DataFrame(dict(item=[4, 3], user='new'))).prediction.notna().all()

def test_tables_grow_by_ratings_of_the_tables_alone(town):
    l = fresh(town).attach_prior(items=True)
    with pytest.raises(UnknownIdError, match='199'): l.add_users(pd.DataFrame(dict(user=[250, 250], item=[3, 199], rating=[4., 5.])))
    l.add_users(pd.DataFrame(dict(user=[250], item=[3], rating=[4.])))
    assert np.isfinite(l.predict(250, 199)) and l.fold_in({199: 5}).predict(items=[170]).prediction.notna().all()
