"The engines from features to vectors: what they are given, what they learn, and the same again with a seed"
import numpy as np, pandas as pd, pytest, torch
from fastai.callback.core import Callback
from fastcf.cold.metadata_prior import MetadataPrior
from fastcf.bayes.foldin import estimate_prior
from fastcf.data.features import MetadataEncoder
from fastcf.cold.regression import Ridge, Targets, _codes, _spread
from test_coldstart import error, made, same, town

def test_codes_are_the_features_again():
    df = pd.DataFrame(dict(id=range(60), city=['a', 'b', 'c'] * 19 + ['d', None, 'a'], age=[*range(58), np.nan, 3], tags=[('x',), ('x', 'y'), ()] * 20, sex=['M', 'F'] * 30))
    enc = MetadataEncoder(df)
    f,names = enc.encode(df)
    codes,counts,rest = _codes(f, enc.columns)
    assert len(f) == len(codes) == len(rest) and codes.shape[1] == len(counts) == 3 and (codes < torch.tensor(counts)).all() and codes.min() >= 0
    back = [torch.nn.functional.one_hot(o, n)[:, 1:] for o,n in zip(codes.T, counts)]
    assert sum(o.shape[1] for o in back) + rest.shape[1] == f.shape[1] == len(names)
    assert sorted(map(tuple, torch.cat([*back, rest], 1).T.tolist())) == sorted(map(tuple, f.T.tolist()))

def test_codes_without_any_column():
    codes,counts,rest = _codes(torch.zeros(4, 0), [])
    assert codes.shape == (4, 0) and rest.shape == (4, 1) and counts == [] # a network wants an input

def test_a_weighted_spread_is_that_of_repeated_rows():
    g = torch.Generator().manual_seed(0)
    e,w,cov = torch.randn(20, 3, generator=g),torch.arange(20) % 3 + 1,torch.eye(3).repeat(20, 1, 1) * torch.rand(20, 1, 1, generator=g)
    again = torch.repeat_interleave(torch.arange(20), w)
    torch.testing.assert_close(_spread(e, cov, w.float()), _spread(e[again], cov[again], torch.ones(len(again))))

def test_weights_are_chosen_by_held_out_ratings(town):
    learn = town['learn']
    p = MetadataPrior(learn, 'item')
    t,best = p.model.held_out,p.model.held_out.stack().idxmin()
    assert (p.model.strength, p.model.weighted) == best and list(t) == ['1', '√n', 'n'] and t.to_numpy().std() > 0

def test_targets_judge_by_ratings(town):
    learn = town['learn']
    t = Targets(learn, 'user', estimate_prior(learn), 20_000, 0)
    d,own = learn.dls.train_ds,torch.cat([learn.model.user_weight.weight, learn.model.user_bias.weight], 1).detach()[t.rows]
    plain = (learn.model(d.users.long(), d.items.long()) - d.ratings).square().mean().sqrt().item()
    assert t.error(own) == pytest.approx(plain, abs=1e-4) and t.error(own + .5) > plain
    assert len(Targets(learn, 'user', estimate_prior(learn), 50, 0, max_ratings=100).r) == 100

@pytest.mark.parametrize('is_item', [False, True])
def test_the_network_finds_what_matters(town, is_item):
    df,ids = town['df'],list(range(160, 200) if is_item else range(240, 300))
    cold = df[(df.item >= 160) & (df.user < 240)] if is_item else df[(df.user >= 240) & (df.item < 160)]
    p = made(MetadataPrior, town['learn'], 'item' if is_item else 'user', engine='tabular', epochs=60)
    g = p.prior(ids=ids)
    assert error(p, cold, is_item, g, ids) < error(p, cold, is_item, same(p, len(ids)), ids) - .04
    assert p.model.held_out.iloc[0] > p.model.held_out.min() and 1 <= p.model.epochs <= 60 and p.model.held_out.idxmin() == p.model.epochs
    assert torch.linalg.eigvalsh(g.precision).min() > 0

def test_the_network_again_with_a_seed(town):
    def means(seed, **kwargs):
        state = torch.random.get_rng_state()
        m = MetadataPrior(town['learn'], engine='tabular', seed=seed, epochs=3, **kwargs).prior().mean
        assert torch.equal(state, torch.random.get_rng_state()) # the user's own chance is left alone
        return m
    a,b,c = means(1),means(1),means(2)
    assert torch.equal(a, b) and not torch.allclose(a, c)

def test_callbacks_are_called(town):
    seen = []
    class Spy(Callback):
        def after_epoch(self): seen.append((self.learn.opt.hypers[0]['lr'], len(self.learn.model.layers)))
    p = MetadataPrior(town['learn'], engine='tabular', epochs=3, lr=1e-2, layers=(8, 8), cbs=Spy(), folds=2)
    assert len(seen) == 2 * 3 + p.model.epochs and set(seen) == {(1e-2, 3)}

def test_metadata_of_one_kind_only(town):
    rng,users = np.random.default_rng(0),town['users']
    for df in (users.assign(city=rng.random(300)), users.assign(city=[('a', 'b'), ('b',), ()] * 100), users[['user']]):
        assert torch.isfinite(MetadataPrior(town['learn'], df=df, engine='tabular', epochs=2).prior().mean).all()

def test_pandas_is_left_as_it_was(town):
    was = pd.get_option('mode.chained_assignment')
    MetadataPrior(town['learn'], engine='tabular', epochs=1)
    assert pd.get_option('mode.chained_assignment') == was

def test_errors(town):
    with pytest.raises(ValueError, match="engine: expected 'linear' or 'tabular', got 'deep'"): MetadataPrior(town['learn'], engine='deep')
    with pytest.raises(TypeError, match="epochs: the engine 'linear' takes no such arguments"): MetadataPrior(town['learn'], epochs=3)

def test_a_spread_is_widened_by_left_out_rows(town):
    "Said to be a third of what it shows itself to be, a hundredth (the factor makes up for it, up to four), a hundred times (it is never narrowed)"
    l = town['learn']
    t = Targets(l, 'user', estimate_prior(l), 20_000, 0)
    x,cov = t.x.mean(0).expand(len(t.x), -1),(torch.cov(t.x.T) + t.cov.mean(0)) / 100
    left = t.error(x)**2 - t.likelihood.noise
    said = float((t.likelihood.variance(x[t.row], t.col, cov) - t.likelihood.noise).mean())
    assert t.spread(x, cov * left / said / 3) == pytest.approx(3, rel=1e-2)
    assert t.spread(x, cov * left / said / 100) == 4 and t.spread(x, cov * left / said * 100) == 1
