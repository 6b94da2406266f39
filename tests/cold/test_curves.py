"Errors by number of ratings, against plain loops"
import numpy as np, pandas as pd, pytest, torch
import fastcf.cold.attach
from fastcf.cold.metadata_prior import MetadataPrior
from fastcf.cold.proxies import ProxyQuestions
from fastcf.cold.curves import *
from fastcf.data.splits import ColdUserSplitter
from fastcf.core import RatingsError
import fastcf.learn.predict
from fastcf.learn.learner import cf_learner
from fastcf.data.loaders import CFDataLoaders
from test_coldstart import town

@pytest.mark.parametrize('by', ['item', 'user'])
def test_errors_by_count_against_a_loop(town, by):
    learn = town['learn'].detach_prior()
    got,d = learn.errors_by_count(by, edges=(0, 20, 35)),learn.dls
    c,v = d.catalog,d.valid_ds
    df = pd.DataFrame(dict(user=c.user[v.users.numpy()], item=c.item[v.items.numpy()], rating=v.ratings.numpy()))
    p = learn.predict(df, interval=.9)
    n = np.array([d.counts(by)[r] for r in (v.items if by == 'item' else v.users)])
    assert got.rows.sum() == len(v) and set(got.rating_count) <= {'0 to 19', '20 to 34', '35 or more'}
    for o in got.itertuples():
        lo,hi = {'0 to 19': (0, 20), '20 to 34': (20, 35), '35 or more': (35, 10**9)}[o.rating_count]
        at = (n >= lo) & (n < hi)
        e = (p.prediction - df.rating)[at]
        assert o.rows == at.sum() and o.rmse == pytest.approx((e**2).mean()**.5) and o.mae == pytest.approx(e.abs().mean()) and o.width == pytest.approx((p.high - p.low)[at].mean())
        assert o.coverage == pytest.approx(((p.low <= df.rating) & (df.rating <= p.high))[at].mean())

def test_rows_nobody_knows_count_where_a_prior_serves_them(town):
    warm = town['df'][town['df'].item < 160]
    l = cf_learner(CFDataLoaders.from_df(warm, splitter=ColdUserSplitter(.2, seed=0), users=town['users'], device='cpu'), 3, (.5, 5.5), seed=0)
    with l.no_bar(), l.no_logging(): l.fit(1)
    assert len(l.errors_by_count('user')) == 0
    got = l.attach_prior(users=True).errors_by_count('user')
    assert got.rating_count.tolist() == ['0'] and got.rows.tolist() == [len(l.dls.valid_ds)] and .8 < got.coverage[0] <= 1
    ax = l.plot_errors_by_count('user')
    assert len(ax.patches) == 1 and 'user' in ax.get_xlabel()

def test_errors_of_other_ratings_by_count(town):
    "A frame in place of the validation rows; ids that the tables lack have no ratings"
    l = town['learn'].detach_prior().attach_prior(items=True)
    df = town['df'].query('user < 240').sample(400, random_state=0)
    got,p = l.errors_by_count(edges=(0, 1, 5, 20), df=df),l.predict(df, interval=.9)
    l.detach_prior()
    new = (df.item >= 160).to_numpy()
    assert got.rating_count[0] == '0' and got.rows[0] == new.sum() and got.rows.sum() == len(df)
    assert got.rmse[0] == pytest.approx((p.prediction - df.rating)[new].pow(2).mean()**.5)
    with pytest.raises(ValueError, match="df: no column 'rating'"): l.errors_by_count(df=df[['user', 'item']])

def test_errors_by_count_says_what_is_wrong(town):
    with pytest.raises(ValueError, match="side: expected 'user' or 'item', got 'film'"): town['learn'].errors_by_count('film')
    for edges in ((), (10, 0), (0, 0)):
        with pytest.raises(ValueError, match='edges: expected numbers of ratings that rise'): town['learn'].errors_by_count(edges=edges)
    l = cf_learner(CFDataLoaders.from_df(town['df'], valid_pct=0, device='cpu'), 3, seed=0)
    with pytest.raises(RatingsError, match='no validation rows to measure'): l.errors_by_count()

@pytest.mark.parametrize('side', ['item', 'user'])
def test_first_ratings(town, side):
    learn,df = town['learn'].detach_prior(),town['df']
    cold = df[(df.item >= 160) & (df.user < 240)] if side == 'item' else df[(df.user >= 240) & (df.item < 160)]
    half = np.random.default_rng(0).random(len(cold)) < .5
    p = MetadataPrior(learn, side)
    got = first_ratings(learn, cold[half], cold[~half], {'metadata': p}, side, counts=(0, 2, 10), rating_range=None)
    assert list(got) == ['start', 'ratings', 'rmse', 'log_score', 'coverage'] and len(got) == 6
    # the start is what an attached prior predicts, ratings are folded in one by one, and each row's first two are the same for every start
    res = learn.attach_prior(**{side + 's': p}).predict(cold[~half], interval=.9)
    learn.detach_prior()
    first = got.set_index(['start', 'ratings']).loc[('metadata', 0)]
    assert first.rmse == pytest.approx((res.prediction - cold[~half].rating).pow(2).mean()**.5, abs=1e-4)
    for _,g in got.groupby('start'): assert g.rmse.is_monotonic_decreasing and g.log_score.is_monotonic_increasing and g.coverage.between(.8, .98).all()
    assert first.rmse < got.query("start == 'the same for all' and ratings == 0").rmse.item() - .03
    pd.testing.assert_frame_equal(got, first_ratings(learn, cold[half], cold[~half], {'metadata': p}, side, counts=(0, 2, 10), rating_range=None))
    ax = plot_first_ratings(got, 'coverage')
    assert len(ax.lines) == 2 and ax.get_legend() is not None

def test_ratings_by_strangers_are_left_out(town):
    df = town['df']
    cold = df[df.item >= 160]
    a = first_ratings(town['learn'], cold[:300], cold[300:], counts=(0, 5))
    known = lambda o: o[o.user < 240]
    pd.testing.assert_frame_equal(a, first_ratings(town['learn'], known(cold[:300]), known(cold[300:]), counts=(0, 5)))

def test_first_ratings_says_what_is_wrong(town):
    cold = town['df'][town['df'].item >= 160]
    with pytest.raises(ValueError, match="answers: no column 'item'; there are"): first_ratings(town['learn'], cold.rename(columns=dict(item='film')), cold)
    with pytest.raises(ValueError, match='test: none of its users has training ratings'): first_ratings(town['learn'], cold, cold[cold.user >= 240])

# --- the trap of overconfident priors, on ratings of people

from dataclasses import replace
from fastcf.cold.curves import Arrivals
from fastcf.bayes.belief import Belief
from fastcf.bayes.foldin import bilinear_design, estimate_prior
from fastcf.bayes.posterior import gaussian_of

ANSWERS = (0, 1, 2, 5, 10, 20, 50)

def cold_learner(ml, epochs, lr, bs=256, **kwargs):
    "A learner by gradients that does not know a quarter of the users, and half of what these rated, to answer with, and the other half"
    cold = ml.ratings.user.isin(np.sort(ml.ratings.user.unique())[np.random.default_rng(0).permutation(943)[:235]])
    dls = CFDataLoaders.from_df(ml.ratings[~cold], valid_pct=.02, seed=1, users=ml.users, bs=bs, device='cpu')
    l = cf_learner(dls, y_range=(.5, 5.5), seed=0, **kwargs)
    with l.no_bar(), l.no_logging(): l.fit_one_cycle(epochs, lr)
    theirs = ml.ratings[cold]
    can = np.random.default_rng(1).random(len(theirs)) < .5
    return l,theirs[can],theirs[~can]

def rises(new, start):
    "By how many standard errors, over users, the mean squared error rises from each number of answers to each later one"
    u,per = new.rows,[]
    for n in ANSWERS:
        e = (new.after(start, n).expected(new.cols, new.rows).numpy().clip(1, 5) - new.test.rating.to_numpy())**2
        per.append(np.bincount(u, e) / np.bincount(u))
    d = np.array([b - a for i,a in enumerate(per) for b in per[i+1:]])
    return d.mean(1) / (d.std(1) / d.shape[1]**.5),np.sqrt(np.mean(per, 1))

def test_errors_of_cold_users_never_rise_with_answers(ml):
    learn,answers,test = cold_learner(ml, 5, 5e-3)
    new = Arrivals(learn, answers, test, 'user', 0)
    for start in (estimate_prior(learn).of(len(new.ids)), MetadataPrior(learn).prior(ids=new.ids.ids)):
        z,rmse = rises(new, start)
        assert z.max() < 2 and rmse[-1] < rmse[0] - .05

def test_the_trap_is_there(ml):
    "Mean and covariance of tables that were fitted too closely, and the error they have left: more answers make it worse, and the check above sees it"
    learn,answers,test = cold_learner(ml, 20, 2e-2, 1024, wd=0.)
    new,t = Arrivals(learn, answers, test, 'user', 0),learn.dls.train_ds
    left = float((learn.model(t.users.long(), t.items.long()).detach() - t.ratings).square().mean())
    base = Belief(gaussian_of(bilinear_design(learn.model, 'user')[2]), replace(estimate_prior(learn).likelihood, noise=left))
    z,rmse = rises(new, base.of(len(new.ids)))
    assert z.max() > 3 and rmse[-1] > rmse[0] + .05
