"Any model with forward(users, items) goes the whole way; what is wrong with one is said before an epoch is spent"
import pickle, warnings
import numpy as np, pandas as pd, pytest, torch
from torch import nn
from fastai.callback.tracker import EarlyStoppingCallback, ReduceLROnPlateau, SaveModelCallback
from fastai.learner import load_learner
import fastcf.learn.predict, fastcf.learn.look, fastcf.learn.lr_finder, fastcf.rank.topn
from fastcf.data.loaders import CFDataLoaders
from fastcf.data.sources import simulate_ratings
from fastcf.learn.learner import cf_learner, factors_and_biases, lower_is_better, row_biases
from fastcf.learn.means import mean_biases, means_of, regularised_means, sparseness
from fastcf.learn.model import EmbeddingDotBias, evaluating, is_bilinear, score_all, score_pairs
from fastcf.learn.neural import neural_net
from fastcf.learn.row_decay import RowDecay
from fastcf.learn.two_tower import two_towers

@pytest.fixture
def dls(sim, tmp_path):
    users = pd.DataFrame(dict(user=range(60), age=np.arange(60) % 7))
    items = pd.DataFrame(dict(item=range(80), title=[f'T{i}' for i in range(80)], kind=list('abcd') * 20))
    return CFDataLoaders.from_df(sim, users=users, items=items, seed=1, bs=64, path=tmp_path, device='cpu')

class Five(nn.Module):
    def __init__(self, dls):
        super().__init__()
        self.users,self.items,self.dropout = nn.Embedding(len(dls.catalog.user), 4),nn.Embedding(len(dls.catalog.item), 4),nn.Dropout(.5)
        self.register_buffer('mean', dls.train_ds.ratings.mean())
    def forward(self, users, items): return self.mean + (self.dropout(self.users(users)) * self.items(items)).sum(1)

MODELS = {'five lines': Five, 'neural net': neural_net((8,), (4, 3), dropout=.3), 'two towers': two_towers(4, 8, (0.5, 5.5))}

@pytest.mark.parametrize('name', MODELS)
def test_the_whole_way(dls, tmp_path, name):
    l = cf_learner(dls, model=MODELS[name], seed=0, wd=.1)
    with l.no_bar(), l.no_logging(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        l.fit_one_cycle(2, 5e-3)
        assert np.isfinite(l.validate()).all()
        one = l.predict(3, 4)
        assert one == l.predict(3, 4) and np.isfinite(one) # dropout is off
        top = l.recommend([3, 5], 4)
        assert len(top) == 8 and top.prediction.iloc[0] == pytest.approx(l.predict(3, top.item.iloc[0]), abs=1e-5)
        l.show_results(max_n=2)
        before = pickle.dumps(l.model.state_dict())
        assert l.find_lr(budget=6).lr > 0 and pickle.dumps(l.model.state_dict()) == before
        l.export('m.pkl')
        again = load_learner(tmp_path/'m.pkl')
    assert again.predict(3, 4) == pytest.approx(one, abs=1e-6) and len(again.recommend(3, 4)) == 4

def test_all_scores_are_those_of_pairs_whatever_the_blocks(dls, monkeypatch):
    for model in (Five(dls), MODELS['two towers'](dls), EmbeddingDotBias(len(dls.catalog.item), 60, 3, (1, 5))):
        u,n = torch.tensor([0, 7, 59]),len(dls.catalog.item)
        for pairs in (2**18, 7):
            monkeypatch.setattr('fastcf.learn.model.PAIRS', pairs)
            got = score_all(model, u, n)
            slow = torch.stack([score_pairs(model, torch.full((n,), int(o)), torch.arange(n)) for o in u])
            assert got.shape == (3, n) and torch.allclose(got, slow, atol=1e-5)
        assert score_all(model, u[:0], n).shape == (0, n) and score_pairs(model, u[:0], u[:0]).shape == (0,)

def test_modes_come_back_part_by_part():
    m = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2)).train()
    m[1].eval()
    with evaluating(m): assert not any(o.training for o in m.modules())
    assert [o.training for o in m.modules()] == [True, True, False]

def made(forward, **parts):
    m = type('Theirs', (nn.Module,), dict(forward=forward))()
    for k,v in parts.items(): setattr(m, k, v)
    return m

BAD = {'column': (made(lambda s, u, i: s.t(u), t=nn.Embedding(60, 1)), ValueError, r'returned scores \[64, 1\].*squeeze'),
       'one number': (made(lambda s, u, i: u.float().mean()), ValueError, r'returned scores \[\] for 64 pairs'),
       'whole numbers': (made(lambda s, u, i: u), TypeError, 'int64; expected floating'), 'NaN': (made(lambda s, u, i: u / 0.), ValueError, 'NaN or infinite'),
       'one tensor': (made(lambda s, x: x), TypeError, r'must take \(users, items\)'), 'too small': (made(lambda s, u, i: s.t(u)[:, 0], t=nn.Embedding(59, 1)), ValueError, 'users up to 59'),
       'a list': (made(lambda s, u, i: u.tolist()), TypeError, 'returned list'), 'no model': (3, TypeError, 'expected an nn.Module'), 'a function of no model': (lambda dls: 'x', TypeError, 'got str')}

@pytest.mark.parametrize('name', BAD)
def test_a_wrong_model_is_found_at_once(dls, name):
    model,error,words = BAD[name]
    with pytest.raises(error, match=words): cf_learner(dls, model=model)

def test_a_model_without_parameters(dls):
    l = cf_learner(dls, model=made(lambda s, u, i: 3 + 0. * u))
    with l.no_bar(): assert l.predict(3, 4) == 3 and len(l.recommend(3, 2)) == 2 and np.isfinite(l.validate()).all()
    with pytest.raises(TypeError, match='Theirs has no parameters'): l.fit(1)

def test_biases_are_told_by_their_shape(dls):
    class Theirs(nn.Module):
        def __init__(self): super().__init__(); self.a,self.b,self.c = nn.Embedding(5, 1),nn.Parameter(torch.zeros(5)),nn.Embedding(5, 3)
    m = Theirs()
    assert {id(p) for p in row_biases(m)} == {id(m.a.weight), id(m.b)} and [len(g) for g in factors_and_biases(m)] == [1, 2]
    assert factors_and_biases(nn.Dropout()) == [] and [len(g) for g in factors_and_biases(nn.Linear(2, 2, bias=False))] == [1]

def test_seeds_reach_a_function_that_makes_a_model(dls):
    a,b,c = (cf_learner(dls, model=Five, seed=s).model.users.weight for s in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)

def test_what_is_missing_is_named(dls):
    l = cf_learner(dls, model=Five)
    for f,words in ((l.biases, 'biases: Five has no method biases'), (l.factors, 'factors: Five has no method item_vectors'), (l.plot_map, 'plot_map: Five has no method item_vectors')):
        with pytest.raises(TypeError, match=words): f()
    assert not is_bilinear(l.model) and is_bilinear(EmbeddingDotBias(3, 3, 2))

# --- names of fastai.collab

@pytest.mark.parametrize('kwargs,words', [(dict(n_factors=7), 'factor_count=7'), (dict(use_nn=True), r'model=neural_net\(\)'), (dict(layers=[9]), r'neural_net\(layers=\[9\]\)'), (dict(emb_szs=(3, 4)), 'emb_szs='),
                                          (dict(factors_count=3), 'Did you mean factor_count'), (dict(yrange=(1, 5)), 'Did you mean y_range'), (dict(model=Five, y_range=(1, 5)), 'y_range: a model that is brought'), (dict(model=Five, factor_count=5), 'factor_count: a model')])
def test_arguments_of_collab_learner(dls, kwargs, words):
    with pytest.raises(TypeError, match=words): cf_learner(dls, **kwargs)

@pytest.mark.parametrize('name,words', [('u_weight', 'user_weight'), ('i_bias', 'item_bias'), ('bias', r'learn.biases'), ('weight', 'learn.factors'), ('n_factors', 'item_vectors')])
def test_attributes_of_fastais_model(dls, name, words):
    m = cf_learner(dls).model
    with pytest.raises(AttributeError, match=words): getattr(m, name)
    assert not hasattr(m, name) and hasattr(m, 'user_weight')

def test_vocabularies_as_fastai_has_them(dls):
    assert dls.classes['item'].o2i[dls.classes['item'][7]] == 7
    with pytest.raises(KeyError, match="'user' and 'item'"): dls.classes['title']

# --- trackers

def test_errors_are_known_by_name():
    assert [lower_is_better(o) for o in ('rmse', '_rmse', 'item_mae', 'valid_loss', 'ndcg', 'hit_rate', 'maenad', 'error_rate')] == [True, True, True, True, False, False, False, True]

@pytest.mark.parametrize('cls', [EarlyStoppingCallback, SaveModelCallback, ReduceLROnPlateau])
@pytest.mark.parametrize('at', ['learner', 'fit'])
def test_trackers_know_that_an_rmse_falls(dls, cls, at):
    cb = cls(monitor='rmse', min_delta=.01)
    l = cf_learner(dls, 5, (0.5, 5.5), seed=0, cbs=cb if at == 'learner' else None)
    with l.no_bar(), l.no_logging(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        l.fit(2, 1e-3, cbs=cb if at == 'fit' else None)
    assert cb.comp is np.less and cb.min_delta == -.01 and cb.best == pytest.approx(min(v[2] for v in l.recorder.values), abs=.011)

# --- means

def test_means_against_a_loop():
    df = simulate_ratings(30, 20, 200, 3, seed=2)
    u,i,r = (torch.tensor(df[c].to_numpy()) for c in ('user', 'item', 'rating'))
    got = regularised_means(u, i, r, 30, 21, damping=(3., 5.), steps=200)
    mean,bu,bi = r.mean().item(),np.zeros(30),np.zeros(21)
    for _ in range(200):
        for k in range(21): rows = df[df.item == k]; bi[k] = sum(rows.rating - mean - bu[rows.user]) / (len(rows) + 5)
        for k in range(30): rows = df[df.user == k]; bu[k] = sum(rows.rating - mean - bi[rows.item]) / (len(rows) + 3)
    assert got.user.numpy() == pytest.approx(bu, abs=1e-4) and got.item.numpy() == pytest.approx(bi, abs=1e-4) and got.item[20] == 0

@pytest.mark.parametrize('noise', [.5, 1.5])
def test_damping_follows_the_noise(noise):
    df,truth = simulate_ratings(800, 600, 40_000, 1, seed=3, noise=noise, step=None, rating_range=(-20, 30), with_truth=True)
    u,i,r = (torch.tensor(df[c].to_numpy()) for c in ('user', 'item', 'rating'))
    left = noise**2 + truth['user_weight'].var() * truth['item_weight'].var() # what effects cannot explain
    want = left / np.array([truth['user_bias'].var(), truth['item_bias'].var()])
    assert np.log(np.array(regularised_means(u, i, r, 800, 600).damping)) == pytest.approx(np.log(want), abs=.4)

@pytest.mark.parametrize('ratings', [[3., 3., 3.], [3.]])
def test_means_of_equal_ratings(ratings):
    m = regularised_means(torch.arange(len(ratings)), torch.zeros(len(ratings)).long(), torch.tensor(ratings), 4, 2)
    assert m.mean == 3 and torch.allclose(m(torch.arange(4), torch.ones(4).long()), torch.full((4,), 3.), atol=1e-3)

def test_a_dense_table_is_fitted_as_ever_and_a_sparse_one_starts_at_its_means(dls):
    dense = CFDataLoaders.from_df(simulate_ratings(60, 50, 2900, seed=0), valid_pct=0, device='cpu')
    assert sparseness(dense) == 0 and sparseness(dls) == 1
    by_default,plain = cf_learner(dense, 5, (0.5, 5.5), seed=0),cf_learner(dense, 5, (0.5, 5.5), seed=0, from_means=False)
    assert all(torch.equal(a, b) for a,b in zip(by_default.model.parameters(), plain.model.parameters())) and [type(o) for o in by_default.cbs] == [type(o) for o in plain.cbs]
    l = cf_learner(dls, 5, (0.5, 5.5), seed=0)
    _,items = mean_biases(means_of(dls), (0.5, 5.5))
    assert (l.model.item_bias.weight.squeeze(1) - items).abs().max() <= .021 and [type(o) for o in l.cbs].count(RowDecay) == 1
    for kwargs in (dict(from_means=False), dict(loss_func=nn.L1Loss()), dict(model=lambda dls: EmbeddingDotBias(80, 60, 5))):
        assert not any(isinstance(o, RowDecay) for o in cf_learner(dls, **kwargs).cbs)
    with pytest.raises(ValueError, match='from_means: expected'): cf_learner(dls, from_means='yes')

def test_a_search_for_a_rate_changes_no_fit(dls):
    def fit(search):
        l = cf_learner(dls, 5, seed=0)
        with l.no_bar(), l.no_logging():
            if search: l.lr_find(num_it=7, show_plot=False)
            torch.manual_seed(1); l.dls.train.rng.seed(1)
            l.fit(1)
        return l.model.item_bias.weight
    assert torch.equal(fit(False), fit(True))

@pytest.mark.parametrize('per_user,noise', [(3, 1.2), (8, .8)])
def test_no_worse_than_the_means_on_a_sparse_table(per_user, noise):
    df = simulate_ratings(600, 300, 600 * per_user, 4, seed=per_user, noise=noise)
    dls = CFDataLoaders.from_df(df, seed=0, device='cpu')
    l = cf_learner(dls, seed=0)
    with l.no_bar(), l.no_logging(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        l.fit_one_cycle(5)
        preds,targs = l.get_preds()
    v = dls.valid_ds
    diff = (preds - targs).square() - (l.means(v.users, v.items) - targs).square()
    assert diff.mean() < 4 * diff.std() / len(diff)**.5 + .004

def test_a_fit_that_is_no_better_than_means_says_so(dls):
    l = cf_learner(dls, 5, (0.5, 5.5), seed=0)
    with l.no_bar(), l.no_logging(), pytest.warns(UserWarning, match='user and item means give'): l.fit(1, 1.)
    assert list(l.baselines().index) == ['mean', 'user and item means', 'popularity']

def test_an_exported_learner_takes_no_ratings_along(dls, tmp_path):
    l = cf_learner(dls, 5, seed=0)
    l.baselines()
    assert '_means' not in l.__getstate__()

@pytest.mark.parametrize('name', MODELS)
def test_advice_for_other_models_is_advice_that_works(dls, name):
    "What says to use fold_in is followed by a fold_in; a callback for our tables says that these are others"
    import fastcf.bayes.growth
    l,new = cf_learner(dls, model=MODELS[name], seed=0),pd.DataFrame(dict(user=[999], item=[dls.catalog.item[0]], rating=[4.]))
    for grow in (l.add_ratings, l.add_users, l.add_items):
        with pytest.raises(TypeError) as e: grow(new)
        if 'fold_in' in str(e.value): l.fold_in({dls.catalog.item[0]: 4.})
        else: assert 'fit again' in str(e.value)
    with l.no_bar(), l.no_logging(), pytest.raises(TypeError, match='RowDecay: pulls at the tables'): l.fit(1, cbs=RowDecay())
