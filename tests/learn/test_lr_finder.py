"The search leaves no trace, keeps to its budget, and says what is wrong"
import copy, pickle, random, warnings
import numpy as np, pandas as pd, pytest, torch
from functools import partial
from hypothesis import given, settings, strategies as st
from torch import nn
from fastai.callback.core import Callback
from fastai.callback.schedule import SuggestionMethod, valley
from fasttransform import ItemTransform
from fastai.optimizer import Adam, OptimWrapper, SGD
from fastcf.data.sources import simulate_ratings
from fastcf.learn.optim import FusedAdam
from fastcf.learn.learner import cf_learner
from fastcf.data.loaders import CFDataLoaders
from fastcf.learn.lr_finder import LRFinding, _longer, _middle, _random_kept, _range_end, _smooth, _vertex

@pytest.fixture(scope='module')
def ratings(): return simulate_ratings(200, 150, 6000, seed=5)

def make(ratings, bs=64, seed=0, from_means=False, **kwargs):
    "A learner of a sparse table, by default without what holds it to the means: there a search can tell rates apart"
    learn = cf_learner(CFDataLoaders.from_df(ratings, valid_pct=0.1, bs=bs, seed=seed, device='cpu'), factor_count=8, y_range=(0.5, 5.5), seed=seed, from_means=from_means, **kwargs)
    return learn

def quiet(learn, *args, **kwargs):
    with learn.no_bar(), learn.no_logging(): return learn.fit_one_cycle(*args, **kwargs)

def state(learn):
    "All that a fit depends on, as bytes"
    opt = None if learn.opt is None else learn.opt.state_dict()
    rec = learn.recorder
    return pickle.dumps([{k: v.numpy() for k,v in learn.model.state_dict().items()}, learn.model.training, [p.grad is None for p in learn.model.parameters()], str(opt),
                         random.getstate(), np.random.get_state(), torch.get_rng_state().numpy(), learn.dls.train.rng.getstate(), learn.dls.valid.rng.getstate(),
                         [str(rec.__dict__.get(k)) for k in ('losses', 'lrs', 'values', 'iters', 'smooth_loss', 'log')], [type(o).__name__ for o in learn.cbs], learn.lr, str(learn.wd), sorted(learn.__dict__)])

class Loud(Callback):
    "Fails at whatever event it hears"
    def before_fit(self): raise RuntimeError('heard')
    def before_batch(self): raise RuntimeError('heard')

class FailAfter(nn.Module):
    "A loss that raises `error` at its call number `n`"
    def __init__(self, n, error): super().__init__(); self.n,self.error = n,error
    def forward(self, pred, targ):
        self.n -= 1
        if self.n == 0: raise self.error
        torch.rand(3); random.random(); np.random.rand() # something that moves the random states
        return (pred - targ).square().mean()

@pytest.mark.parametrize('trained', [False, True])
def test_learner_is_left_bit_for_bit(ratings, trained):
    learn = make(ratings)
    if trained: quiet(learn, 1, 5e-3)
    before,loader = state(learn),learn.dls.train
    found = learn.find_lr(epochs=2)
    assert state(learn) == before and learn.dls.train is loader and found.lr > 0

@pytest.mark.parametrize('opt_func', [FusedAdam, Adam])
def test_fit_after_equals_fit_without(ratings, opt_func):
    res = []
    for search in (False, True):
        torch.manual_seed(0); random.seed(0); np.random.seed(0)
        learn = make(ratings, opt_func=opt_func)
        quiet(learn, 1, 5e-3)
        if search: learn.find_lr(epochs=1)
        quiet(learn, 2, 5e-3)
        res.append([*learn.model.state_dict().values(), torch.tensor(learn.recorder.losses), torch.rand(2), torch.tensor([random.random(), np.random.rand()])])
    assert all(torch.equal(a, b) for a,b in zip(*res))

@pytest.mark.parametrize('error', [KeyboardInterrupt, RuntimeError('in the loss')])
@pytest.mark.parametrize('n', [1, 2, 30, 400])
def test_interrupted_search_leaves_no_trace(ratings, error, n):
    learn = make(ratings)
    quiet(learn, 1, 5e-3)
    learn.loss_func = FailAfter(n, error)
    before = state(learn)
    with pytest.raises(error if isinstance(error, type) else type(error)): learn.find_lr()
    assert state(learn) == before

def test_callbacks_are_not_called(ratings):
    learn = make(ratings, cbs=Loud())
    assert learn.find_lr().lr > 0
    with pytest.raises(RuntimeError, match='heard'): quiet(learn, 1)

def test_random_state_is_kept_and_put_back_after_an_error():
    states = lambda: pickle.dumps([random.getstate(), np.random.get_state(), torch.get_rng_state().numpy()])
    before = states()
    with pytest.raises(ZeroDivisionError):
        with _random_kept():
            random.random(); np.random.rand(); torch.rand(1)
            assert states() != before
            1 / 0
    assert states() == before

def test_same_seed_same_answer_whatever_the_random_state(ratings):
    learn = make(ratings)
    a = learn.find_lr()
    torch.manual_seed(99); random.seed(99)
    b = learn.find_lr()
    assert a.lr == b.lr and a.curve.equals(b.curve) and a.trials.equals(b.trials)
    assert learn.find_lr(seed=1).lr != a.lr

@pytest.mark.parametrize('bs', [1, 16, 500, 10**6])
@pytest.mark.parametrize('budget', [0.4, 1.5, 3])
def test_cost_stays_within_the_budget(ratings, bs, budget):
    rows = 0
    def loss(pred, targ):
        nonlocal rows
        rows += len(targ)
        return nn.functional.mse_loss(pred, targ)
    learn = make(ratings, bs=bs, loss_func=loss)
    found = learn.find_lr(budget=budget)
    assert found.cost <= budget and rows == round(found.cost * learn.dls.train.n) # each row that reached the loss was counted

def test_never_looks_at_validation_rows(ratings):
    learn = make(ratings)
    a = learn.find_lr().lr
    learn.dls.valid_ds.ratings[:] = torch.nan
    assert learn.find_lr().lr == a

@pytest.mark.parametrize('table', ['user_weight', 'item_bias'])
def test_nan_from_the_start(ratings, table):
    learn = make(ratings)
    getattr(learn.model, table).weight.data[:] = torch.nan
    before = state(learn)
    with pytest.raises(ValueError, match='loss is nan before the first step'): learn.find_lr()
    assert state(learn) == before

def test_nan_after_the_first_step(ratings):
    class Burst(nn.Module):
        def forward(self, pred, targ): return (pred - targ).square().mean() + (pred.sum() * 0).abs().sqrt() # gradient of the root at 0: infinite times 0
    with pytest.raises(ValueError, match='explodes in steps'): make(ratings, loss_func=Burst()).find_lr()

def test_nan_now_and_then_is_survived(ratings):
    learn = make(ratings)
    calls = 0
    def loss(pred, targ):
        nonlocal calls
        calls += 1
        return nn.functional.mse_loss(pred, targ) * (torch.nan if calls in (180, 181, 400) else 1) # a sweep and a trial lost
    a,b = make(ratings).find_lr().lr,make(ratings, loss_func=loss).find_lr().lr
    assert a / 2 < b < a * 2

def test_a_spike_in_a_batch_is_no_divergence(ratings):
    odd = ratings.copy()
    odd.loc[::500, 'rating'] = 30. # a dozen rows with a loss a hundred times the others'
    dls = lambda df: CFDataLoaders.from_df(df, valid_pct=0.1, seed=0, device='cpu')
    a,b = (cf_learner(dls(o), factor_count=8, seed=0).find_lr().lr for o in (ratings, odd))
    assert a / 4 < b < a * 4

@pytest.mark.parametrize('kwargs', [dict(bs=6000), dict(bs=3000), dict(bs=5), dict(bs=64, n=1200)])
def test_loader_shorter_than_the_search(ratings, kwargs):
    "One batch, two, very many, and a loader that stops early"
    n = kwargs.pop('n', None)
    learn = make(ratings, **kwargs)
    if n: learn.dls.train.n = n
    found = learn.find_lr(epochs=1)
    assert 1e-5 < found.lr < 2 and found.cost <= 1.5

def test_loss_that_never_diverges(ratings):
    class Bounded(nn.Module):
        def forward(self, pred, targ): return 1 - torch.exp(-(pred - targ).square()).mean()
    learn = make(ratings, loss_func=Bounded())
    assert np.isfinite(learn.find_lr().lr) and learn.find_lr().curve.loss.notna().all()

def test_too_few_rows():
    few = simulate_ratings(20, 30, 200, seed=1)
    learn = cf_learner(CFDataLoaders.from_df(few, bs=64, seed=0), seed=0)
    with pytest.raises(ValueError, match='budget=10.9 or more'): learn.find_lr()
    for seed in range(20): assert learn.find_lr(budget=10.9, seed=seed).cost <= 10.9

@pytest.mark.parametrize('kwargs,match', [(dict(epochs=0), 'epochs: expected'), (dict(epochs=2.5), 'epochs: expected'), (dict(runs=0), 'runs: expected'), (dict(schedule='cosine'), "schedule: expected 'one_cycle'")])
def test_arguments_are_checked(ratings, kwargs, match):
    with pytest.raises(ValueError, match=match): make(ratings).find_lr(**kwargs)

def test_optimizer_already_made_is_refused(ratings):
    learn = make(ratings)
    learn.opt_func = OptimWrapper(opt=torch.optim.SGD(learn.model.parameters(), lr=.1))
    with pytest.raises(TypeError, match='opt_func'): learn.find_lr()

@pytest.mark.parametrize('opt_func', [Adam, SGD, partial(OptimWrapper, opt=torch.optim.Adam)])
def test_other_optimizers(ratings, opt_func): assert 1e-5 < make(ratings, opt_func=opt_func).find_lr().lr < 1e4

def test_rate_scales_with_what_the_optimizer_makes_of_it(ratings):
    "An optimizer that halves every rate is given twice the rate"
    class Half(FusedAdam):
        def _set_hyper(self, k, v): super()._set_hyper(k, [o/2 for o in v] if k == 'lr' else v)
    a,b = (make(ratings, opt_func=o, wd=0.).find_lr().lr for o in (FusedAdam, Half))
    assert b / a == pytest.approx(2, rel=.25)

def test_longer_runs_and_smaller_batches_want_lower_rates(ratings):
    lrs = [make(ratings).find_lr(epochs=e).lr for e in (1, 3, 10)]
    assert lrs == sorted(lrs, reverse=True) and lrs[0] > 3 * lrs[2]
    assert make(ratings, bs=16).find_lr().lr < make(ratings, bs=256).find_lr().lr

@pytest.mark.parametrize('schedule', ['one_cycle', 'flat_cos', 'flat'])
def test_schedules(ratings, schedule):
    found = make(ratings).find_lr(schedule=schedule)
    assert schedule in found.run and found.trials.loss.min() < found.trials.loss.max()

def test_weight_decay_of_the_fit_is_taken(ratings):
    learn = make(ratings, wd=0.)
    a,b = (learn.find_lr(wd=o).trials.loss for o in (None, 5.))
    assert not np.allclose(a, b)
    assert make(ratings, wd=5.).find_lr().trials.loss.equals(b)

def test_on_a_sparse_table_it_stays_near_the_learners_own_rate(ratings):
    learn = make(ratings, from_means='auto')
    before = state(learn)
    assert learn.find_lr().lr < 1.5 * learn.lr and state(learn) == before

def test_any_suggestion_method(ratings):
    def lowest(lrs, losses, num_it): return float(lrs[losses.argmin()]),(0, 0)
    found = make(ratings).find_lr(suggest_funcs=(lowest, partial(valley), SuggestionMethod.Minimum))
    assert list(found.suggestions) == ['trials', 'lowest', 'valley', 'minimum']
    assert found.suggestions['lowest'] == pytest.approx(10 * found.suggestions['minimum'], rel=1e-5)
    assert list(make(ratings).find_lr(suggest_funcs=()).suggestions) == ['trials']

def test_fastai_finder_still_works(ratings, tmp_path):
    learn = make(ratings)
    learn.path = tmp_path
    with learn.no_bar(): found = learn.lr_find(show_plot=False, suggest_funcs=(SuggestionMethod.Valley, SuggestionMethod.Slide))
    assert found.valley > 0

def test_result(ratings):
    found = make(ratings).find_lr(runs=2)
    assert list(found.curve.columns) == ['run', 'lr', 'loss', 'smoothed'] and found.curve.run.unique().tolist() == [0, 1]
    assert list(found.trials.columns) == ['round', 'lr', 'epochs', 'loss'] and set(found.trials['round']) == {1, 2}
    assert list(found.suggestions) == ['trials', 'valley', 'slide', 'minimum', 'steep'] and found.suggestions['trials'] == found.lr
    html = found._repr_html_()
    assert found.groups == slice(found.lr, 2 * found.lr)
    for o in ('valley', f'{found.lr:.2g}', '5 epochs of one_cycle', f'{found.cost:.2f} epochs'): assert o in html
    assert repr(found).startswith('Learning rate') and found.frame().factor.iloc[0] == 1
    texts = [t.get_text() for t in found.plot().get_legend().get_texts()]
    assert all(any(n in t for t in texts) for n in ('valley', 'steep', 'use', 'sweeps'))

def test_progress_bar_follows_the_learners(ratings, capsys):
    learn = make(ratings)
    with learn.no_bar(): learn.find_lr()
    assert capsys.readouterr().out == ''

def test_frozen_groups_stay_frozen(ratings):
    learn = make(ratings)
    learn.create_opt()
    learn.freeze_to(1)
    before = state(learn)
    assert learn.find_lr().lr > 0 and state(learn) == before

class AllThrees(ItemTransform):
    def encodes(self, b): return b[0], b[1], b[2] * 0 + 3

def test_after_batch_transforms_apply(ratings):
    dls = CFDataLoaders.from_df(ratings, valid_pct=0.1, seed=0, device='cpu', after_batch=AllThrees())
    found = cf_learner(dls, y_range=(0.5, 5.5), seed=0, from_means=False).find_lr()
    assert found.trials.loss.min() < .01

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_on_a_gpu(ratings):
    learn = cf_learner(CFDataLoaders.from_df(ratings, valid_pct=0.1, seed=0, device='cuda'), factor_count=8, y_range=(0.5, 5.5), seed=0)
    before = torch.cuda.get_rng_state()
    assert 1e-5 < learn.find_lr().lr < 1 and torch.equal(torch.cuda.get_rng_state(), before)
    assert next(learn.model.parameters()).device.type == 'cpu' # the fit moves it, not the search

# --- pieces, beside plain versions

@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(.1, 100), min_size=1, max_size=30), st.integers(0, 30))
def test_smoothing_is_a_weighted_mean_of_what_came_before(losses, cut):
    o = np.array(losses)
    o[cut:] = np.nan
    got = _smooth(o)
    for t in range(min(cut, len(o))):
        w = .8 ** np.arange(t, -1, -1)
        assert got[t] == pytest.approx((w * o[:t+1]).sum() / w.sum())
    assert np.isnan(got[cut:]).all()

@settings(deadline=None, max_examples=50)
@given(st.floats(-8, 0), st.floats(.2, 3))
def test_vertex_of_a_parabola_is_found(at, width):
    x = at + np.array([-.8, -.1, .5, 1.2])
    assert _vertex(x, np.exp(((x - at) / width)**2), np.inf) == pytest.approx(at, abs=1e-4)

@settings(deadline=None, max_examples=50)
@given(st.lists(st.one_of(st.floats(.1, 5), st.just(np.inf)), min_size=3, max_size=5), st.floats(0, 1))
def test_vertex_stays_in_reach(losses, beyond):
    x = np.arange(len(losses)) * .6
    if np.isfinite(losses).any(): assert -beyond <= _vertex(x, np.array(losses), 2., beyond) <= x[-1] + beyond

def test_middle_takes_a_lost_run_as_the_worst():
    assert _middle(np.array([[1., 2, np.nan], [1, 4, np.nan], [3, np.nan, 5]])).tolist() == [1, 4, np.inf]
    assert _range_end(np.array([1., 2, 3, 4]), np.array([1, .5, 1.05, 2]), 1.) == 3

@settings(deadline=None, max_examples=50)
@given(st.floats(1e-4, 1), st.integers(1, 1000), st.integers(1, 5000), st.floats(1.1, 100))
def test_rule_is_proportional_and_falls_with_steps(lr, steps, bs, more):
    rate = partial(_longer, trial=(32, 500), factors=50, ratings=30)
    assert rate(2 * lr, run=(steps, bs)) == pytest.approx(2 * rate(lr, run=(steps, bs)))
    assert rate(lr, run=(steps * more, bs)) < rate(lr, run=(steps, bs)) > rate(lr, run=(steps, bs * more))

def test_a_fitted_learner_is_told_that_the_rate_is_for_going_on(ratings):
    learn = make(ratings)
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        learn.find_lr(epochs=2)
    quiet(learn, 1, 5e-3)
    with pytest.warns(UserWarning, match='this learner has been fitted.*For a fit from the start, ask a new cf_learner'): learn.find_lr(epochs=2)
