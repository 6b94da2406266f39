"The fused epoch beside a plain loop; what stands around it: schedule, Recorder, statistics, breaking off, threads"
import sys
import numpy as np, pandas as pd, pytest, torch
from hypothesis import given, settings, strategies as st
from fastai.callback.core import Callback
from fastai.callback.schedule import ParamScheduler, combined_cos
from fastcf.bayes.engines import ALS
from fastcf.data.loaders import CFDataLoaders
from fastcf.data.sources import simulate_ratings
from fastcf.learn.learner import cf_learner
from fastcf.learn import lr_finder, predict
from fastcf import core
from fastcf.scale import rowwise
from fastcf.scale.fused import FusedSGD, one_cycle
from fastcf.watch.embedding_stats import EmbeddingStats
from fastcf.watch.tables import AverageTables, BestTables

TABLES = 'user_weight item_weight user_bias item_bias'.split()

@pytest.fixture
def dls(): return CFDataLoaders.from_df(simulate_ratings(60, 80, 1500, 4, seed=3), seed=0, bs=64, device='cpu')

def quiet(learn, *args, **kwargs):
    with learn.no_bar(), learn.no_logging(): learn.fit(*args, **kwargs)
    return learn

def tables(learn): return torch.cat([getattr(learn.model, n).weight.detach().flatten() for n in TABLES])

def plain_epoch(m, users, items, ratings, order, lr, sums, decays, wd_bias):
    "The formulas of the notebook, in float64 and one rating after the other"
    x,y,b,c = ({n: getattr(m, n).weight.detach().double().numpy().copy() for n in TABLES}[o] for o in TABLES)
    centre,total,n = c.mean(),0.,len(order)
    for j,o in enumerate(order):
        u,i,rate = users[o],items[o],lr[0] + (lr[1] - lr[0]) * j / n
        score,slope = x[u] @ y[i] + b[u, 0] + c[i, 0],1.
        if m.y_range:
            s = 1 / (1 + np.exp(-score))
            score,slope = m.y_range[0] + s * (m.y_range[1] - m.y_range[0]),s * (1 - s) * (m.y_range[1] - m.y_range[0])
        e = ratings[o] - score
        total,g = total + e * e,e * slope
        b[u] += rate / 2 * (g - wd_bias * b[u])
        c[i] += rate / 2 * (g - wd_bias * (c[i] - centre))
        dx,dy = g * y[i] - decays[0][u] * x[u],g * x[u] - decays[1][i] * y[i]
        x[u],y[i] = x[u] + rate / np.sqrt(sums[0][u]) * dx,y[i] + rate / np.sqrt(sums[1][i]) * dy
        sums[0][u] += (dx * dx).mean(); sums[1][i] += (dy * dy).mean()
    return np.concatenate([o.ravel() for o in (x, y, b, c)]),total / n

@pytest.mark.parametrize('y_range', [None, (.5, 5.5)])
def test_a_piece_is_the_plain_loop(dls, y_range):
    learn,engine = cf_learner(dls, factor_count=3, y_range=y_range, seed=0),FusedSGD(lr=.05, wd=.2, wd_bias=.05)
    engine.learn = learn
    engine.begin()
    t,order = dls.train_ds,torch.randperm(len(dls.train_ds), generator=torch.Generator().manual_seed(0))[:500]
    sums,decays = [o.double().numpy().copy() for o in engine.square_sums],[o.double().numpy() for o in engine.decays]
    want,loss = plain_epoch(learn.model, *(o.numpy() for o in (t.users, t.items, t.ratings)), order.numpy(), (.01, .05), sums, decays, .05)
    total = engine._piece(order, (.01, .05), None)
    np.testing.assert_allclose(tables(learn).numpy(), want, atol=2e-4)
    assert total / 500 == pytest.approx(loss, rel=1e-3)
    np.testing.assert_allclose(engine.square_sums[0].numpy(), sums[0], rtol=1e-3, atol=1e-5)

def test_one_thread_and_one_seed_give_one_result():
    a,b = (quiet(cf_learner(CFDataLoaders.from_df(simulate_ratings(60, 80, 1500, 4, seed=3), seed=0, device='cpu'), seed=1), 3, cbs=FusedSGD()) for _ in range(2))
    assert torch.equal(tables(a), tables(b)) and a.recorder.values == b.recorder.values

def test_it_learns_and_so_do_two_threads(dls):
    before = cf_learner(dls, seed=0, from_means=False).validate()[0]
    one,two = (quiet(cf_learner(dls, seed=0, from_means=False), 10, cbs=FusedSGD(threads=n)).validate()[0] for n in (1, 2))
    assert one < .8 * before and abs(one - two) < .05 * one # one is at .6 of it; threads move it by .002

def test_recorder_schedule_and_statistics(dls):
    learn,stats = cf_learner(dls, seed=0),EmbeddingStats()
    quiet(learn, 4, cbs=[FusedSGD(lr=.07), stats])
    r = learn.recorder
    assert len(r.values) == 4 and len(r.losses) == 4 and len(r.lrs) == 4
    assert r.lrs == pytest.approx([one_cycle(o, .07) for o in (.25, .5, .75, 1)])
    assert r.values[0][0] == pytest.approx(float(r.losses[0]))
    assert stats.stats.step.max() == 4 and stats.stats.epoch.max() == 4

def test_a_resumed_fit_has_the_same_schedule(dls):
    learn = cf_learner(dls, seed=0)
    quiet(learn, 4, cbs=FusedSGD(), start_epoch=2)
    assert learn.recorder.lrs == pytest.approx([one_cycle(o, .05) for o in (.75, 1)])

@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.floats(0, 1), st.floats(1e-4, 1), st.floats(.01, .99))
def test_the_cycle_stays_between_its_ends(at, lr, pct):
    assert lr / 100 - 1e-9 <= one_cycle(at, lr, pct) <= lr + 1e-9
    assert one_cycle(at, lr, pct) == pytest.approx(combined_cos(pct, lr / 10, lr, lr / 100)(min(at, 1 - 1e-9)), rel=1e-4, abs=1e-9)

class Break(Callback):
    order = 65
    def before_train(self):
        if self.epoch == 2: raise KeyboardInterrupt()

def test_a_fit_that_is_broken_off_leaves_a_learner(dls):
    learn = cf_learner(dls, seed=0)
    before = learn.validate()[0]
    with pytest.raises(KeyboardInterrupt): quiet(learn, 5, cbs=[FusedSGD(), Break()])
    assert learn.validate()[0] < before
    quiet(learn, 1, cbs=FusedSGD())
    assert np.isfinite(learn.predict(*[[v.ids[0]] for v in (dls.catalog.user, dls.catalog.item)]).prediction).all()

def test_it_carries_on_where_others_stopped_and_they_after_it(dls):
    learn = quiet(cf_learner(dls, seed=0), 2, cbs=ALS())
    quiet(learn, 2, cbs=FusedSGD())
    losses = [quiet(learn, 1, cbs=cbs).validate()[0] for cbs in (None, [BestTables('rmse'), FusedSGD()], [AverageTables(), FusedSGD()])]
    assert np.isfinite(losses).all()

def test_finding_a_rate_and_predicting_are_not_epochs(dls):
    learn = cf_learner(dls, seed=0, cbs=FusedSGD())
    before = tables(learn)
    learn.validate(); learn.get_preds(); learn.find_lr(seed=0)
    assert torch.equal(before, tables(learn))

def test_without_numba_the_extra_is_named(dls, monkeypatch):
    monkeypatch.setitem(sys.modules, 'numba', None)
    monkeypatch.setattr(core, '_compiled', {})
    with pytest.raises(ImportError, match=r"fastcf\[fused\]"): quiet(cf_learner(dls), 1, cbs=FusedSGD())

@pytest.mark.parametrize('kwargs,said', [(dict(lr=0), 'lr: '), (dict(lr=float('nan')), 'lr: '), (dict(wd=-1), 'wd, wd_bias: '), (dict(pct_start=1), 'pct_start: '), (dict(threads=1.5), 'threads: '), (dict(threads=0), 'threads: ')])
def test_wrong_settings_are_named(kwargs, said):
    with pytest.raises(ValueError, match='^' + said): FusedSGD(**kwargs)

def test_what_it_cannot_train_is_named(dls, tmp_path):
    with pytest.raises(ValueError, match='float32'): quiet(_double(cf_learner(dls)), 1, cbs=FusedSGD())
    learn = cf_learner(dls)
    learn.dls = dls.new_empty()
    with pytest.raises(ValueError, match='no training ratings'): quiet(learn, 1, cbs=FusedSGD())

def _double(learn): learn.model.double(); return learn
