"Beliefs against plain NumPy; what is learned on top is forgotten in time; growing; rows keep their index and order"
import subprocess, sys
from dataclasses import replace
import numpy as np, pandas as pd, pytest, torch
import fastcf.learn.predict, fastcf.rank.topn
from fastcf.bayes.belief import Belief, Labels, RowLikelihood
from fastcf.bayes.engines import Gibbs
from fastcf.bayes.foldin import estimate_prior, row_prior
from fastcf.bayes.growth import *
from fastcf.bayes.laplace import row_covariances
from fastcf.bayes.posterior import Gaussian, quadratic_form
from fastcf.cold.attach import *
from fastcf.core import RatingsError, UnknownIdError
from fastcf.data.loaders import CFDataLoaders, RatingsTable
from fastcf.data.sources import simulate_ratings
from fastcf.data.vocab import Vocab
from fastcf.learn.learned import Learned, table_marks
from fastcf.learn.learner import cf_learner

def made(seed=0, rows=5, cols=7, k=3, n=14, noise=.7, spread=False):
    g = torch.Generator().manual_seed(seed)
    v = torch.randn(cols, k, generator=g); v[:, -1] = 1
    half = torch.randn(k, k, generator=g)
    like = RowLikelihood(v, torch.randn(cols, generator=g), noise, spread=.3 * torch.eye(k).expand(cols, k, k) if spread else None)
    pairs = torch.randperm(rows * cols, generator=g)[:n]
    return like,Gaussian(torch.randn(k, generator=g), half @ half.T + torch.eye(k)),(pairs // cols, pairs % cols, torch.randn(n, generator=g))

def plain(like, prior, rows, cols, y, row_count):
    "Means and covariances, one row at a time"
    means,covs = [],[]
    for r in range(row_count):
        at = rows == r
        a,t = like.vectors[cols[at]].double(),(y[at] - like.offsets[cols[at]]).double()
        x = prior.mean.double()
        w = torch.full((int(at.sum()),), float(like.noise)).double()
        if like.spread is not None: # the column's own vector is not known either, as the prior's mean sees it
            one = torch.cat([x[:-1], torch.ones(1).double()])
            w = w + torch.stack([one @ like.spread[c].double() @ one for c in cols[at]] or [w.new_zeros(())])[:len(w)]
        p = prior.precision.double() + (a / w[:, None]).T @ a
        means.append(torch.linalg.solve(p, prior.precision.double() @ x + (a / w[:, None]).T @ t)); covs.append(torch.linalg.inv(p))
    return torch.stack(means),torch.stack(covs)

@pytest.mark.parametrize('spread', [False, True])
def test_a_belief_is_the_plain_posterior(spread):
    like,prior,(rows,cols,y) = made(spread=spread)
    b = Belief(prior, like).of(5).after(rows, cols, y)
    mean,cov = plain(like, prior, rows, cols, y, 5)
    torch.testing.assert_close(b.mean.double(), mean, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(b.cov().double(), cov, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(b.cov([3, 1]).double(), cov[[3, 1]], atol=1e-4, rtol=1e-3)
    want = torch.stack([torch.stack([like.vectors[c].double() @ cov[r] @ like.vectors[c].double() for c in range(7)]) for r in range(5)])
    noise = torch.stack([like.noise_at(b.mean[r].expand(7, -1), torch.arange(7)) for r in range(5)]).double()
    if spread: want = want + torch.stack([torch.stack([(cov[r] * like.spread[c].double())[:-1, :-1].sum() for c in range(7)]) for r in range(5)])
    torch.testing.assert_close(b.variance(range(7)).double(), want + noise, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(b.expected(), b.mean @ like.vectors.T + like.offsets)

def test_ratings_in_any_portions_and_replaced_ones_come_to_the_same():
    like,prior,(rows,cols,y) = made()
    whole,step = Belief(prior, like).of(5).after(rows, cols, y),Belief(prior, like).of(5)
    for j in range(len(y)): step = step.after(rows[[j]], cols[[j]], y[[j]])
    torch.testing.assert_close(step.mean, whole.mean, atol=1e-4, rtol=1e-3)
    again = whole.after(rows[[0]] .repeat(20), cols[[0]].repeat(20), y[[0]].repeat(20))
    assert len(again.values) == len(y)
    torch.testing.assert_close(again.mean, whole.mean, atol=1e-4, rtol=1e-3)
    other = whole.after(rows[[0]], cols[[0]], y[[0]] + 1)
    y = y.clone(); y[0] += 1
    torch.testing.assert_close(other.mean, Belief(prior, like).of(5).after(rows, cols, y).mean, atol=1e-4, rtol=1e-3)
    assert len(whole.values) == len(y) and whole.after([], [], []) is whole

def test_blocks_of_variances_change_nothing(monkeypatch):
    like,prior,(rows,cols,y) = made()
    b = Belief(prior, like).of(5).after(rows, cols, y)
    r,c = torch.randint(0, 5, (50,), generator=torch.Generator().manual_seed(1)),torch.randint(0, 7, (50,), generator=torch.Generator().manual_seed(2))
    whole = b.variance(c, r)
    torch.testing.assert_close(torch.stack([b.variance([j], [i])[0] for i,j in zip(r, c)]), whole)
    x,cov = torch.randn(30, 3),b.cov()
    at = torch.arange(30) % 5
    torch.testing.assert_close(quadratic_form(x, cov, at, budget=9), torch.einsum('nk,nkl,nl->n', x, cov[at], x), atol=1e-5, rtol=1e-4)

def test_one_row_with_many_ratings_is_as_good_as_many_rows():
    "Few rows take another way through the kernel"
    like,prior,_ = made()
    rows,cols,y = torch.arange(9).repeat_interleave(7),torch.arange(7).repeat(9),torch.randn(63, generator=torch.Generator().manual_seed(0))
    many = Belief(prior, like).of(9).after(rows, cols, y)
    for r in (0, 8):
        one = Belief(prior, like).of(1).after(torch.zeros(7, dtype=int), torch.arange(7), y[rows == r])
        torch.testing.assert_close(one.mean[0], many.mean[r], atol=1e-4, rtol=1e-3); torch.testing.assert_close(one.cov()[0], many.cov([r])[0], atol=1e-4, rtol=1e-3)

# --- ids and frames

def named(n=3):
    like,prior,(rows,cols,y) = made(rows=n)
    return Belief(prior, like, Labels(Vocab(list('cab'[:n]), 'user'), Vocab(range(10, 17), 'item'), counts=torch.tensor([3, 0, 5, 5, 5, 1, 9])), (rows, cols, y))

def test_pairs_keep_index_and_order():
    b = named()
    df = pd.DataFrame(dict(item=[16, 10, 12], user=['b', 'a', 'b']), index=[9, 2, 5])
    got = b.predict(df, interval=.8)
    assert list(got.index) == [9, 2, 5] and list(got) == ['user', 'item', 'prediction', 'low', 'high']
    for row in got.itertuples(): assert b.predict(row.user, row.item) == pytest.approx(row.prediction)
    assert list(b.predict('a', pd.Series([10, 16], index=['x', 'y'])).index) == ['x', 'y']
    assert b.predict_all([16, 10]).shape == (3, 2) and b.predict_all().loc['b', 16] == pytest.approx(b.predict('b', 16))

def test_what_is_not_known_is_named():
    b = named()
    with pytest.raises(UnknownIdError, match="item: 1 unknown id: 11.*no training ratings"): b.predict('a', 11)
    with pytest.raises(ValueError, match='which of the 3'): b.predict(items=[10])
    with pytest.raises(UnknownIdError): b.predict('z', 10)
    with pytest.raises(ValueError, match='Rename one, or add it'): b.predict(pd.DataFrame(dict(item=[10])))
    with pytest.raises(ValueError, match='interval'): b.predict('a', 10, interval=2)
    with pytest.raises(ValueError, match='k: expected'): b.recommend(0)

@pytest.mark.parametrize('block', [2**24, 1])
def test_lists_against_a_loop(monkeypatch, block):
    monkeypatch.setattr('fastcf.bayes.belief.BLOCK', block)
    b = named()
    got = b.recommend(10, min_ratings=3)
    for r,user in enumerate(b.ids):
        rated = set(b.groups.cols[b.groups.rows() == r].tolist())
        want = sorted(((-float(b.expected([c], [r])), c + 10) for c in range(7) if c not in rated and b.labels.counts[c] >= 3))
        mine = got[got.user == user]
        assert mine.item.tolist() == [i for _,i in want] and mine['rank'].tolist() == list(range(1, len(want) + 1))
    assert len(b.recommend(10, exclude_seen=False)) == 3 * 6

def test_explanations_are_what_leaving_out_does():
    b = named(1)
    why = b.explain(16)
    for row in why.itertuples():
        keep = b.groups.cols + 10 != row.item
        less = Belief(b.prior, b.likelihood, b.labels, (torch.zeros(int(keep.sum())), b.groups.cols[keep], b.values[keep]))
        assert row.effect == pytest.approx(b.predict(items=16) - less.predict(items=16), abs=1e-4)

def test_beliefs_need_no_fastai():
    code = "import sys, fastcf.bayes.belief; print([m for m in sys.modules if m.split('.')[0] in ('fastai', 'matplotlib')])"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '[]'

# --- what is learned on top

def fitted(epochs=2, y_range=(.5, 5.5), time=False, **kwargs):
    df = simulate_ratings(60, 80, 1500, 4, seed=0)
    if time: df = df.assign(at=np.arange(len(df)) + 1000)
    dls = CFDataLoaders.from_df(df, valid_pct=.1, seed=0, device='cpu', time_name='at' if time else None, **kwargs)
    learn = cf_learner(dls, 4, y_range=y_range, seed=0)
    with learn.no_bar(), learn.no_logging(): learn.fit(epochs)
    return learn

def test_what_was_learned_is_forgotten_when_tables_or_ratings_change():
    learn = fitted(y_range=None)
    prior = row_prior(learn)
    assert row_prior(learn) is prior
    with learn.no_bar(), learn.no_logging(): learn.fit(4, cbs=Gibbs(seed=0))
    assert row_prior(learn) is not prior and learn.posterior.states
    learn.validate(); learn.predict(1, 1, interval=.9)
    assert learn.posterior.states # looking changes nothing
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    with pytest.raises(AttributeError): learn.posterior
    prior = row_prior(learn)
    learn.model.item_weight.weight.data[:, 0] += 1 # past autograd's counter
    assert row_prior(learn) is not prior
    prior = row_prior(learn)
    learn.dls = fitted().dls
    assert row_prior(learn) is not prior

def test_marks_of_parameters_of_any_shape():
    m = torch.nn.ParameterList([torch.tensor(1.), torch.zeros(0, 3), torch.zeros(5000)])
    assert [len(v) for *_,v in table_marks(m)] == [1, 0, 1250]

def test_a_room_that_is_missing_is_named(monkeypatch):
    learn = fitted()
    monkeypatch.delitem(Learned.makers, 'spread')
    with pytest.raises(LookupError, match='import fastcf.bayes.laplace'): learn.predict(1, 1, interval=.9)

def test_the_noise_of_attached_priors_does_not_hang_on_their_order():
    users,items = pd.DataFrame(dict(user=range(70), age=np.arange(70) % 7)),pd.DataFrame(dict(item=range(90), kind=list('abc') * 30))
    std = []
    for order in (('users', 'items'), ('items', 'users')):
        learn = fitted(users=users, items=items)
        for side in order: learn.attach_prior(**{side: True})
        std.append(learn.predict([65, 65, 1], [1, 85, 85], return_std=True)['std'])
    pd.testing.assert_series_equal(*std)

def test_a_posterior_keeps_rows_and_names_strangers():
    learn = fitted(y_range=None)
    with learn.no_bar(), learn.no_logging(): learn.fit(4, cbs=Gibbs(seed=0))
    df = pd.DataFrame(dict(user=[3, 999, 5], item=[2, 2, 7]), index=[8, 1, 4])
    with pytest.raises(UnknownIdError): learn.posterior.predict(df)
    got = learn.posterior.predict(df, unknown='nan', interval=.9)
    assert list(got.index) == [8, 1, 4] and got.isna().any(axis=1).tolist() == [False, True, False] and list(got) == ['user', 'item', 'prediction', 'low', 'high']
    assert got.prediction[4] == pytest.approx(learn.posterior.predict(5, 7))

def test_covariances_of_rows_are_the_plain_ones():
    learn = fitted()
    rows = torch.tensor([7, 2])
    got,p = row_covariances(learn, rows, 'item'),row_prior(learn, 'item')
    t,m = learn.dls.train_ds,learn.model
    for j,row in enumerate(rows):
        u = t.users[t.items == row].long()
        x = torch.cat([m.item_weight.weight[row], m.item_bias.weight[row]]).detach()
        a,slope = p.likelihood.vectors[u],p.likelihood.link(p.likelihood.linear(x.expand(len(u), -1), u))[1]
        want = torch.linalg.inv(p.prior.precision + (a * slope.square()[:, None]).T @ a / p.likelihood.noise)
        torch.testing.assert_close(got[j], want, atol=1e-4, rtol=1e-3)

# --- growing

def newcomers(learn, ids, n=4): return pd.DataFrame([dict(user=u, item=i, rating=1. + (i + j) % 5) for j,u in enumerate(ids) for i in learn.dls.catalog.item[:n]])

def test_new_users_bring_times_and_may_rate_what_nobody_knows():
    learn = fitted(time=True)
    n,last = len(learn.dls.train_ds),int(learn.dls.train_ds.times.max())
    df = pd.concat([newcomers(learn, [900]), pd.DataFrame(dict(user=[900], item=[12345], rating=[3.]))])
    with pytest.raises(UnknownIdError): learn.add_users(df)
    learn.add_users(df, unknown='drop')
    t = learn.dls.train_ds
    assert len(t) == len(t.times) == n + 4 and t.times[-4:].tolist() == [last] * 4 and learn.dls.valid_ds.times is not None
    with learn.no_bar(), learn.no_logging(): learn.fit(1)

@pytest.mark.parametrize('bad,error,words', [
    (dict(user=['ann']), UnknownIdError, 'text'), (dict(user=[None]), RatingsError, 'missing id'), (dict(item=['x']), UnknownIdError, 'text'),
    (dict(rating=[99.]), RatingsError, 'outside'), (dict(user=[], item=[], rating=[]), RatingsError, 'empty')])
def test_bad_ratings_of_newcomers_are_named(bad, error, words):
    learn = fitted(epochs=1)
    df = pd.DataFrame({**dict(user=[900], item=[1], rating=[4.]), **bad})
    for add in (learn.add_users, learn.add_ratings):
        with pytest.raises(error, match=words): add(df)
    with pytest.raises(TypeError, match='dictionary'): learn.add_users({1: 3})

def test_ratings_of_known_and_new_rows_are_taken_in():
    learn = fitted()
    c,n = learn.dls.catalog,len(learn.dls.train_ds)
    known = set(zip(learn.dls.train_ds.users.tolist(), learn.dls.train_ds.items.tolist()))
    u,i = next((u, i) for u in range(60) for i in range(80) if (u, i) not in known and c.user[u] and learn.dls.counts()[i] > 0)
    bystander,other = next(o for o in range(60) if o != u),next(c.item[o] for o in range(80) if o != i and learn.dls.counts()[o] > 0)
    before = learn.predict([c.user[u], c.user[bystander]], [c.item[i], c.item[i]]).prediction
    more = pd.DataFrame(dict(user=[c.user[u], 901, 901, c.user[u]], item=[c.item[i], c.item[i], other, 5000], rating=[5., 4., 2., 3.]))
    learn.add_ratings(more)
    after = learn.predict([c.user[u], c.user[bystander]], [c.item[i], c.item[i]]).prediction
    assert len(learn.dls.train_ds) == n + 4 and 901 in learn.dls.catalog.user and 5000 in learn.dls.catalog.item
    assert after[0] > before[0] and abs(after[1] - before[1]) < abs(after[0] - before[0])
    assert c.item[i] not in learn.recommend(c.user[u], 200).item.tolist()
    once = len(learn.dls.train_ds)
    learn.add_ratings(more.assign(rating=1.)) # the same pairs
    assert len(learn.dls.train_ds) == once and learn.predict(c.user[u], c.item[i]) < after[0]

def test_ratings_that_are_there_already_change_nothing():
    learn = fitted()
    c,t = learn.dls.catalog,learn.dls.train_ds
    same = pd.DataFrame(dict(user=c.user[t.users[:20].numpy()], item=c.item[t.items[:20].numpy()], rating=t.ratings[:20].numpy()))
    before = [p.detach().clone() for p in learn.model.parameters()]
    learn.add_ratings(same)
    for a,b in zip(before, learn.model.parameters()): torch.testing.assert_close(a, b.detach(), atol=2e-2, rtol=0)

def test_new_items_by_new_users_are_refused():
    learn = fitted(epochs=1)
    with pytest.raises(RatingsError, match='new items by new users'): learn.add_ratings(pd.DataFrame(dict(user=[901, 902], item=[5000, 1], rating=[3., 3.])))
    assert 902 not in learn.dls.catalog.user # nobody was added on the way

# --- a model that somebody brings

class OnlyForward(torch.nn.Module):
    def __init__(self, users=60, items=80, k=3):
        super().__init__()
        self.u,self.i = torch.nn.Embedding(users, k),torch.nn.Embedding(items, k)
    def forward(self, users, items): return 3 + (self.u(users) * self.i(items)).sum(1)

class Bilinear(OnlyForward):
    def user_vectors(self): return self.u.weight
    def item_vectors(self): return self.i.weight
    def biases(self, side): return torch.zeros(len(self.u.weight)) if side == 'user' else torch.full((len(self.i.weight),), 3.)
    def link(self, raw): return raw

def test_beliefs_work_on_any_model_that_is_linear_in_its_vectors():
    dls = fitted(epochs=1).dls
    sizes = len(dls.catalog.user),len(dls.catalog.item)
    learn = cf_learner(dls, model=Bilinear(*sizes), seed=0)
    df = learn.fold_in({1: 5, 3: 2}).predict(items=[5, 7], interval=.9)
    assert np.isfinite(df.prediction).all() and (df.low < df.high).all() and (learn.predict(1, [5], return_std=True)['std'] > 0).all()
    with pytest.raises(TypeError, match='only the tables of EmbeddingDotBias can grow'): learn.add_users(newcomers(learn, [900]))
    bare = cf_learner(dls, model=OnlyForward(*sizes), seed=0)
    with pytest.raises(TypeError, match='beliefs: OnlyForward has no method user_vectors'): bare.fold_in({1: 5})

# --- the noise of tables that know their ratings by heart

@pytest.fixture(scope='module')
def overfitted():
    "Fitted without weight decay until the training ratings are known by heart; ratings of new items are kept aside"
    df = simulate_ratings(300, 200, 12000, 4, seed=3, noise=.8)
    cold = df.item.isin(np.unique(df.item)[::4])
    dls = CFDataLoaders.from_df(df[~cold], seed=0, valid_pct=.1, bs=128, device='cpu')
    learn = cf_learner(dls, 20, seed=0, wd=0.)
    with learn.no_bar(), learn.no_logging(): learn.fit(20, 1e-2)
    return learn,df[cold & df.user.isin(dls.catalog.user[(dls.counts('user') > 0).numpy()])].sample(frac=1, random_state=0)

def test_noise_is_what_validation_ratings_show(overfitted):
    "The ratings were made with a noise of .64, rounded; by the training ratings alone it is a fifth of that"
    learn = overfitted[0]
    t = learn.dls.train_ds
    left = float((learn.model(t.users.long(), t.items.long()).detach() - t.ratings).square().mean())
    for side in ('user', 'item'): assert .55 < estimate_prior(learn, side).likelihood.noise and left < .25

def test_errors_do_not_rise_with_the_ratings_of_items_folded_into_overfitted_tables(overfitted):
    "With a noise of .2, as the training ratings had it, they rise from 1.01 to 1.11"
    learn,cold = overfitted
    cold = cold.assign(nth=cold.groupby('item').cumcount())
    test,new,users = cold[cold.nth >= 16],Vocab(cold.item),learn.dls.catalog.user
    def _errors(prior):
        for n in (0, 1, 4, 16):
            said = cold[cold.nth < n]
            b = prior.of(len(new)).after(new.rows(said.item), users.rows(said.user), said.rating.to_numpy())
            yield float(np.square(b.expected(users.rows(test.user), new.rows(test.item)).numpy() - test.rating).mean()**.5)
    prior = estimate_prior(learn, 'item')
    errors,sure = list(_errors(prior)),list(_errors(Belief(prior.prior, replace(prior.likelihood, noise=.2))))
    assert all(b < a + .015 for a,b in zip(errors, errors[1:])) and errors[-1] < errors[0] - .015, errors
    assert sure[-1] > sure[0] + .05, sure

def test_noise_without_validation_rows_is_said_to_be_a_guess(overfitted):
    old = overfitted[0]
    learn = cf_learner(CFDataLoaders(old.dls.train, old.dls.valid.new(RatingsTable([], [], [], old.dls.catalog)), device='cpu'), model=old.model)
    with pytest.warns(UserWarning, match='estimate_prior: the tables follow their .* training ratings so closely that the noise'): estimate_prior(learn, 'user')

def test_intervals_of_known_pairs_hold_their_share_of_other_ratings():
    "Noise from one half of the validation rows, judged on the other: within four standard errors and a hundredth"
    df = simulate_ratings(300, 150, 12000, 4, seed=5, noise=.8)
    dls = CFDataLoaders.from_df(df, seed=0, valid_pct=.3, bs=256, device='cpu')
    v,c = dls.valid_ds,dls.catalog
    halves = [RatingsTable(v.users[h], v.items[h], v.ratings[h], c) for h in (slice(None, None, 2), slice(1, None, 2))]
    learn = cf_learner(CFDataLoaders(dls.train, dls.valid.new(halves[0]), device='cpu'), 20, seed=0)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(5, 2e-2)
    y = halves[1].ratings.numpy()
    p = learn.predict(c.user[halves[1].users.numpy()], c.item[halves[1].items.numpy()], interval=.9)
    inside = ((p.low <= y) & (y <= p.high)).mean()
    assert abs(inside - .9) < .01 + 4 * (.09 / len(y))**.5, inside
