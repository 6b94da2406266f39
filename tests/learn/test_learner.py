"The learner beside fastai's, its callbacks, and ids in and out"
import pickle, warnings
from functools import partial
import numpy as np, pandas as pd, pytest, torch
from fastai.callback.core import Callback, CancelFitException, FetchPredsCallback
from fastai.callback.data import CollectDataCallback
from fastai.callback.progress import CSVLogger, ProgressCallback, ShowGraphCallback
from fastai.callback.tracker import EarlyStoppingCallback, ReduceLROnPlateau, SaveModelCallback, TerminateOnNaNCallback
from fastai.callback.training import GradientAccumulation, GradientClip
from fastai.collab import CollabDataLoaders, collab_learner
from fastai.data.core import DataLoaders
from fastai.learner import Learner, load_learner
from fastai.optimizer import Adam, SGD
from fastai.torch_core import TensorCategory
from fastcf.data.splits import ColdUserSplitter
from fastcf.core import RatingsError, UnknownIdError
import fastcf.learn.predict, fastcf.rank.topn, fastcf.learn.look, fastcf.cold.attach
from fastcf.rank.best import blocks_of
from fastcf.learn.learner import CFLearner, cf_learner
from fastcf.learn import optim
from fastcf.learn.optim import FusedAdam
from fastcf.data.loaders import CFDataLoaders
from fastcf.learn.model import EmbeddingDotBias

@pytest.fixture
def dls(sim, tmp_path):
    films = pd.DataFrame(dict(item=range(80), title=[f'T{i}' for i in range(80)]))
    return CFDataLoaders.from_df(sim, items=films, seed=1, bs=64, path=tmp_path, device='cpu')

@pytest.fixture
def learn(dls):
    l = cf_learner(dls, factor_count=5, y_range=(0.5, 5.5), seed=2)
    with l.no_bar(), l.no_logging(): l.fit_one_cycle(3)
    return l

def quiet(learn):
    learn.remove_cb(ProgressCallback)
    learn.logger = lambda *args: None
    return learn

class Losses(Callback):
    def __init__(self, n): self.n,self.got = n,[]
    def after_loss(self):
        if self.training: self.got.append(self.learn.loss.item())
    def after_batch(self):
        if len(self.got) >= self.n: raise CancelFitException

# --- equality with fastai

@pytest.mark.parametrize('opt_func', [Adam, SGD])
@pytest.mark.parametrize('wd', [0., 0.1])
def test_same_losses_as_collab_learner(ml, opt_func, wd):
    "Same first tables, same batches, same optimizer: the same 50 losses"
    ratings = ml.ratings[ml.ratings.user <= 300]
    theirs_dls = CollabDataLoaders.from_df(ratings, valid_pct=0.1, seed=0, device=torch.device('cpu'))
    ours_dls = CFDataLoaders.from_df(ratings, valid_pct=0.1, seed=0, device='cpu')
    y_range = (0.5, 5.5)
    theirs = quiet(collab_learner(theirs_dls, n_factors=20, y_range=y_range, opt_func=opt_func, wd=wd))
    ours = quiet(cf_learner(ours_dls, factor_count=20, y_range=y_range, opt_func=opt_func, wd=wd, wd_bn_bias=True, from_means=False))
    at = {side: torch.tensor([{v: k for k,v in enumerate(theirs_dls.classes[side])}[o] for o in ours_dls.classes[side] if o in set(theirs_dls.classes[side])]) for side in ('user', 'item')}
    have = {side: torch.tensor([o in set(theirs_dls.classes[side]) for o in ours_dls.classes[side]]) for side in ('user', 'item')}
    for a,b,side in (('u_weight', 'user_weight', 'user'), ('i_weight', 'item_weight', 'item'), ('u_bias', 'user_bias', 'user'), ('i_bias', 'item_bias', 'item')):
        getattr(ours.model, b).weight.data[have[side]] = getattr(theirs.model, a).weight.data[at[side]]
    batches = [b for b,_ in zip(ours_dls.train, range(50))]
    to_theirs = lambda b: (torch.stack([at['user'][have['user'].cumsum(0)[b[0]] - 1], at['item'][have['item'].cumsum(0)[b[1]] - 1]], 1), torch.empty(len(b[0]), 0), b[2][:, None])
    got = []
    for l,bs in ((theirs, [to_theirs(b) for b in batches]), (ours, batches)):
        losses = Losses(50)
        n_inp = 1 if l is theirs else 2
        l.dls = DataLoaders(Batches([(b[0], b[2]) if l is theirs else b for b in bs]), Batches([]), device=torch.device('cpu'))
        l.dls.n_inp = n_inp
        l.fit(1, 5e-3, cbs=losses)
        got.append(losses.got)
    assert len(got[0]) == 50
    np.testing.assert_allclose(got[0], got[1], atol=1e-5)

class Batches(list):
    "Fixed batches in the place of a loader"
    dataset = None

def test_fused_adam_is_adam(dls):
    got = []
    for opt_func in (Adam, FusedAdam):
        l = quiet(cf_learner(dls, 5, (0.5, 5.5), seed=2, opt_func=opt_func))
        l.dls.train.rng.seed(4)
        losses = Losses(50)
        l.fit_one_cycle(4, 0.01, wd=0.3, cbs=losses)
        got.append(losses.got)
    np.testing.assert_allclose(*got, atol=1e-5)

# --- decay, groups, seeds, first values

def test_steps_are_those_of_pytorchs_optimizer():
    "Bit for bit, with hyper-parameters that change, gradients that are missing, and a state that is forgotten"
    g,seen = torch.Generator().manual_seed(0),[]
    first = [torch.randn(s, generator=g) for s in ((7, 5), (3,), (4, 1))]
    a,b = ([p.clone().requires_grad_() for p in first] for _ in range(2))
    ours,theirs = (FusedAdam([o[:2], o[2:]], lr=.01, wd=.1) for o in (a, b))
    for t in range(40):
        for p,q in zip(a, b): p.grad = q.grad = torch.randn(p.shape, generator=g)
        if t % 7 == 3: a[1].grad = b[1].grad = None
        if t == 12: ours.clear_state(); theirs.clear_state()
        if t == 30: ours.opt.register_step_post_hook(lambda *args: seen.append(t))
        for o in (ours, theirs): o.set_hyper('lr', [.01 * (t + 1), .02]); o.set_hyper('mom', .9 - .01 * t)
        ours.step(); theirs.opt.step()
        assert all(torch.equal(p, q) for p,q in zip(a, b))
    assert ours.hypers == [dict(h) for h in super(FusedAdam, theirs).hypers] and seen == list(range(30, 40))

@pytest.mark.parametrize('kernel', ['missing', 'other arguments', 'other result'])
def test_steps_without_the_kernel_are_the_same(monkeypatch, kernel):
    "PyTorch's own steps, where it has not the private kernel as it is called, nor a fused AdamW"
    def go():
        g,target = torch.Generator().manual_seed(0),torch.linspace(-1, 1, 35).view(7, 5)
        ps = [torch.zeros(s, requires_grad=True) for s in ((7, 5), (3,))]
        opt = FusedAdam([ps[:1], ps[1:]], lr=.01, wd=.1)
        for t in range(200):
            opt.set_hyper('lr', .01 * (1 + t % 9))
            ((ps[0] - target).square().mean() + (ps[1] - torch.randn(3, generator=g)).square().sum()).backward()
            opt.step(); opt.zero_grad()
            assert all(p.grad is None for p in ps)
        return [p.detach() for p in ps],opt.hypers
    want,hypers = go()
    if kernel == 'missing': monkeypatch.delattr(torch, '_fused_adamw_')
    else: monkeypatch.setattr(torch, '_fused_adamw_', (lambda params: None) if kernel == 'other arguments' else (lambda *args, **kwargs: None))
    assert optim.HAS_KERNEL and not optim._kernel_works()
    monkeypatch.setattr(optim, 'HAS_KERNEL', False)
    adamw = torch.optim.AdamW
    def unfused(params, fused=None, **kwargs):
        if fused: raise RuntimeError('no fused AdamW on this device')
        return adamw(params, foreach=True, **kwargs)
    monkeypatch.setattr(torch.optim, 'AdamW', unfused)
    got,others = go()
    assert [{k: h[k] for k in ('lr', 'wd', 'mom', 'sqr_mom', 'eps')} for h in others] == [{k: h[k] for k in ('lr', 'wd', 'mom', 'sqr_mom', 'eps')} for h in hypers]
    for a,b in zip(got, want): torch.testing.assert_close(a, b, atol=1e-6, rtol=0)

def test_callbacks_that_come_and_change_are_called(dls):
    "Also those that another one adds in mid-epoch, and one whose event or order is new with the next epoch"
    seen = []
    class Late(Callback):
        order = 3
        def after_batch(self): seen.append('late')
    class First(Callback):
        order = 2
        def after_batch(self):
            seen.append('first')
            if self.training and self.iter == 1 and self.epoch == 0: self.learn.add_cb(late)
        def after_epoch(self): late.order,late.before_step = 1,lambda: seen.append('step')
    late,l = Late(),quiet(cf_learner(dls, 3, seed=0))
    with l.no_bar(), l.no_logging(): l.fit(2, cbs=First())
    n,v = len(dls.train),len(dls.valid)
    assert seen == ['first'] * 2 + ['first', 'late'] * (n - 2 + v) + ['step', 'late', 'first'] * n + ['late', 'first'] * v

def test_kinds_of_tensors_are_cast(dls):
    "A callback before `CastToTensor` brings one of fastai's own kinds, and a model sees none"
    class Kind(Callback):
        order = 8
        def before_batch(self): self.learn.xb = tuple(TensorCategory(o) for o in self.xb)
    class Look(Callback):
        order = 10
        def before_batch(self): seen.update(type(o) for o in self.xb)
    for cbs in ([Look()], [Kind(), Look()]):
        seen,l = set(),quiet(cf_learner(dls, 3, seed=0))
        l.fit(1, cbs=cbs)
        assert seen == {torch.Tensor}

@pytest.mark.parametrize('opt_func', [Adam, FusedAdam])
def test_only_factors_decay(dls, opt_func):
    l = quiet(cf_learner(dls, 5, (0.5, 5.5), opt_func=opt_func, seed=0))
    l.create_opt()
    l.opt.set_hypers(wd=0.5, lr=0.1)
    before = [p.detach().clone() for p in l.model.parameters()]
    for p in l.model.parameters(): p.grad = torch.zeros_like(p)
    l.opt.step()
    for (name,p),b in zip(l.model.named_parameters(), before):
        assert torch.equal(p.detach(), b) == ('bias' in name), name

def test_biases_decay_if_asked_for(dls):
    l = quiet(cf_learner(dls, 5, seed=0, wd_bn_bias=True))
    l.create_opt()
    l.opt.set_hypers(wd=0.5)
    assert [h['wd'] for h in l.opt.hypers] == [0.5, 0.5]

def test_slices_give_two_rates(dls):
    l = quiet(cf_learner(dls, 5, (0.5, 5.5)))
    l.fit(1, slice(1e-3, 1e-2))
    assert [h['lr'] for h in l.opt.hypers] == [1e-3, 1e-2]

def test_same_seed_same_learner(sim):
    def _fit(seed):
        l = quiet(cf_learner(CFDataLoaders.from_df(sim, seed=seed, device='cpu'), 5, (0.5, 5.5), seed=seed))
        l.fit_one_cycle(2)
        return l.model.item_weight.weight.detach()
    assert torch.equal(_fit(3), _fit(3)) and not torch.equal(_fit(3), _fit(4))

def test_a_seed_leaves_torchs_random_state_alone(dls):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    cf_learner(dls, 5, seed=3)
    assert torch.equal(before, torch.get_rng_state())

def test_loaders_of_another_library_are_left_alone(dls):
    "They carry no counts of ratings: rows are held to nothing, and the fit goes on"
    l,losses = quiet(cf_learner(dls, 5, seed=0)),Losses(3)
    l.dls = DataLoaders(Batches([b for b,_ in zip(dls.train, range(3))]), Batches([]), device=torch.device('cpu'))
    l.dls.n_inp = 2
    l.fit(1, 5e-3, cbs=losses)
    assert len(losses.got) == 3

def test_without_a_range_it_starts_at_the_mean(dls):
    p = cf_learner(dls, 5, from_means=False).model(*dls.one_batch()[:2])
    assert (p - dls.train_ds.ratings.mean()).abs().max() < 0.1

def test_ratings_must_fit_the_range(dls):
    with pytest.raises(RatingsError, match=r'y_range: \d+ ratings outside 2 to 4: user \d+ gave item \d+ [15]'): cf_learner(dls, y_range=(2, 4))

def test_loss_and_metrics_may_be_given(dls):
    l = quiet(cf_learner(dls, 5, (0.5, 5.5), loss_func=torch.nn.L1Loss(), metrics=[]))
    l.fit(1)
    assert len(l.recorder.values[0]) == 2

# --- fastai's own keep working

CALLBACKS = {
    'SaveModelCallback': lambda p: SaveModelCallback(monitor='rmse', comp=np.less, fname='best'), 'EarlyStoppingCallback': lambda p: EarlyStoppingCallback(monitor='valid_loss', patience=1, min_delta=9),
    'CSVLogger': lambda p: CSVLogger(fname='log.csv'), 'ReduceLROnPlateau': lambda p: ReduceLROnPlateau(monitor='valid_loss', patience=1, min_delta=9),
    'GradientAccumulation': lambda p: GradientAccumulation(n_acc=128), 'GradientClip': lambda p: GradientClip(0.1), 'ShowGraphCallback': lambda p: ShowGraphCallback(),
    'TerminateOnNaNCallback': lambda p: TerminateOnNaNCallback(), 'CollectDataCallback': lambda p: CollectDataCallback(), 'FetchPredsCallback': lambda p: FetchPredsCallback()}

@pytest.mark.parametrize('name', CALLBACKS)
def test_callbacks_of_fastai(dls, tmp_path, name, capsys):
    l = cf_learner(dls, 5, (0.5, 5.5), seed=0)
    l.fit(4, 5e-3, cbs=CALLBACKS[name](tmp_path))
    epochs = len(l.recorder.values)
    assert epochs == (2 if name == 'EarlyStoppingCallback' else 4) and np.isfinite(l.recorder.values).all()
    if name == 'SaveModelCallback': assert (tmp_path/'models'/'best.pth').exists()
    if name == 'CSVLogger': assert list(pd.read_csv(tmp_path/'log.csv').columns) == ['epoch', 'train_loss', 'valid_loss', 'rmse', 'mae', 'time'] and len(pd.read_csv(tmp_path/'log.csv')) == 4
    if name == 'ReduceLROnPlateau': assert l.opt.hypers[-1]['lr'] < 5e-3

def test_gradients_accumulate(dls):
    "128 rows in two batches of 64 move the tables as often as batches of 128 would"
    steps = []
    class Count(Callback):
        def after_step(self): steps.append(1)
    quiet(cf_learner(dls, 5, (0.5, 5.5))).fit(1, cbs=[GradientAccumulation(n_acc=128), Count()])
    assert len(steps) == len(dls.train) // 2

def test_events_come_in_fastais_order(dls):
    "The same calls, in the same order, as a plain Learner makes them"
    def _events(cls):
        said = []
        class Spy(Callback):
            def __call__(self, name): said.append((self.order, name)); return super().__call__(name)
        class Late(Spy): order = 70
        class Early(Spy): order = -50
        l = quiet(cls(dls, EmbeddingDotBias(80, 60, 3), loss_func=torch.nn.MSELoss(), cbs=[Late(), Early()]))
        l.fit(1)
        return said
    assert _events(CFLearner) == _events(Learner)

def test_a_callback_set_on_the_instance_is_heard(dls):
    said = []
    quiet(cf_learner(dls, 5, cbs=Callback(after_epoch=lambda self: said.append(1)))).fit(2)
    assert len(said) == 2

def test_errors_in_callbacks_come_through(dls):
    class Bad(Callback):
        def before_batch(self): raise ValueError('on purpose')
    with pytest.raises(ValueError, match='on purpose'): quiet(cf_learner(dls, 5)).fit(1, cbs=Bad())

def test_lr_find_and_what_it_leaves(dls):
    l = quiet(cf_learner(dls, 5, (0.5, 5.5), seed=0))
    before = l.model.item_weight.weight.detach().clone()
    res = l.lr_find(num_it=30, show_plot=False)
    assert res.valley > 0 and torch.equal(before, l.model.item_weight.weight.detach())

def test_validate_get_preds_summary(learn, sim):
    loss,rmse,mae = learn.validate()
    preds,targs = learn.get_preds()
    assert preds.shape == targs.shape == (300,) and rmse == pytest.approx((preds - targs).square().mean().sqrt().item(), abs=1e-5) and loss == pytest.approx(rmse ** 2, abs=1e-4)
    assert mae == pytest.approx((preds - targs).abs().mean().item(), abs=1e-5)
    *_,losses = learn.get_preds(with_loss=True)
    assert losses == pytest.approx((preds - targs).square(), abs=1e-5)
    train,_ = learn.get_preds(ds_idx=0)
    t = learn.dls.train_ds
    assert train.numpy() == pytest.approx(learn.model(t.users.long(), t.items.long()).detach().numpy(), abs=1e-5)
    assert 'Total params' in str(learn.summary())

def test_get_preds_of_a_shuffled_loader_is_in_row_order(learn):
    p,t = learn.get_preds(dl=learn.dls.train.new(shuffle=True))
    assert torch.equal(t, learn.dls.train_ds.ratings)

def test_save_and_load(learn, dls):
    learn.save('x')
    other = quiet(cf_learner(dls, 5, (0.5, 5.5), seed=9)).load('x')
    assert other.predict(3, 4) == learn.predict(3, 4)
    other.fit(1) # with the optimizer's state

def test_fit_twice_and_reset(learn):
    quiet(learn).fit(1)
    step = next(iter(learn.opt.opt.state.values()))['step'].item()
    learn.fit(1, reset_opt=True)
    assert next(iter(learn.opt.opt.state.values()))['step'].item() < step

def test_export_keeps_predictions_and_what_was_seen(learn, tmp_path):
    learn.export('l.pkl')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        again = load_learner(tmp_path/'l.pkl')
    assert len(again.dls.train_ds) == 0 and again.predict(3, 4) == learn.predict(3, 4)
    pd.testing.assert_frame_equal(again.recommend([3, 5], 4), learn.recommend([3, 5], 4))
    assert learn.dls.train_ds.ratings.numel() == 1200 # the learner that was exported still has its ratings

def test_show_results(learn, capsys):
    learn.show_results(max_n=3)
    shown = learn.dls.valid.show_results(learn.dls.valid.one_batch(), torch.zeros(300), show=False)
    assert list(shown) == ['user', 'item', 'title', 'rating', 'prediction']

def test_no_validation_rows(sim):
    l = quiet(cf_learner(CFDataLoaders.from_df(sim, valid_pct=0, device='cpu'), 5, (0.5, 5.5)))
    l.fit(1)
    assert l.predict(0, 1) > 0

# --- predict

def raw(learn, u, i):
    u,i = (learn.dls.classes[k].encode([o]) for k,o in (('user', u), ('item', i)))
    return learn.model(torch.as_tensor(u), torch.as_tensor(i)).item()

def test_predict_takes_what_one_has(learn, sim):
    pairs = sim.head(6).set_index(pd.Index(list('abcdef')))
    want = [raw(learn, u, i) for u,i in zip(pairs.user, pairs.item)]
    for got in (learn.predict(pairs), learn.predict(pairs.user, pairs.item), learn.predict(pairs.user.tolist(), pairs.item.to_numpy()), learn.predict(pairs[['item', 'user']])):
        assert list(got) == ['user', 'item', 'prediction'] and got.prediction.tolist() == pytest.approx(want)
    assert list(learn.predict(pairs).index) == list('abcdef')
    one = learn.predict(3, 4)
    assert isinstance(one, float) and one == pytest.approx(raw(learn, 3, 4))
    assert learn.predict(3, [4, 5]).user.tolist() == [3, 3] and learn.predict([1, 2], 4).item.tolist() == [4, 4] and len(learn.predict([], [])) == 0

def test_predict_names_unknown_ids(learn):
    with pytest.raises(UnknownIdError, match='user: 1 unknown id: 999'): learn.predict(999, 1)
    with pytest.raises(UnknownIdError, match='item: 2 unknown ids: 999, 998'): learn.predict([1, 2], [999, 998])
    with pytest.raises(UnknownIdError, match="They are text"): learn.predict('1', 1)
    got = learn.predict([1, 999, 2], [1, 1, 999], unknown='nan').prediction
    assert got.isna().tolist() == [False, True, True] and np.isnan(learn.predict(999, 1, unknown='nan'))

@pytest.mark.parametrize('args,error,words', [((3,), TypeError, 'items: missing'), ((pd.Series(dict(user=3, item=4)),), TypeError, 'not one Series'), (([1, 2], [1, 2, 3]), ValueError, '2 users and 3 items'), ((1, 1, 'mean'), ValueError, "unknown: expected 'error', 'nan' or 'skip'")])
def test_predict_says_what_is_wrong(learn, args, error, words):
    with pytest.raises(error, match=words): learn.predict(*args)

def test_an_id_that_is_only_in_validation_is_unknown(sim):
    l = quiet(cf_learner(CFDataLoaders.from_df(sim, splitter=ColdUserSplitter(0.2, seed=1), device='cpu'), 5, (0.5, 5.5)))
    l.fit(1)
    c = l.dls.catalog.user
    cold,warm = (c[(l.dls.counts('user').numpy() == 0) == o] for o in (True, False))
    for f in (lambda: l.predict(cold[0], 1), lambda: l.recommend(cold[0])):
        with pytest.raises(UnknownIdError, match='validation rows only'): f()
    assert l.predict([cold[0], warm[0]], [1, 1], unknown='nan').prediction.isna().tolist() == [True, False]

def test_inputs_are_left_alone(learn, sim):
    df = sim.head(5)
    before = pickle.dumps(df)
    learn.predict(df); learn.predict(df.user, df.item); learn.recommend(df.user)
    assert pickle.dumps(df) == before

def test_ids_of_text(sim):
    df = sim.assign(user='u' + sim.user.astype(str), item='i' + sim.item.astype(str))
    l = quiet(cf_learner(CFDataLoaders.from_df(df, seed=1, device='cpu'), 5, (0.5, 5.5), seed=0))
    l.fit(1)
    top = l.recommend(['u3', 'u4'], 2)
    assert top.user.tolist() == ['u3', 'u3', 'u4', 'u4'] and top.item.str.startswith('i').all()
    assert l.similar_items('i3', 2).item.tolist() == ['i3', 'i3'] and l.predict('u3', 'i4') > 0

# --- recommend and similar_items, against loops

@pytest.mark.parametrize('exclude', [True, False])
@pytest.mark.parametrize('min_ratings', [1, 12])
def test_recommend_against_a_loop(learn, sim, exclude, min_ratings):
    d,users = learn.dls,[3, 50, 17]
    got = learn.recommend(users, 7, exclude_seen=exclude, min_ratings=min_ratings, rank_by='rating')
    for u in users:
        rated = set(d.train_ds.items[d.train_ds.users == d.classes['user'].encode([u])[0]].tolist())
        rows = [i for i in range(len(d.classes['item'])) if d.counts()[i] >= min_ratings and not (exclude and i in rated)]
        score = {int(d.classes['item'][i]): raw(learn, u, d.classes['item'][i]) for i in rows}
        mine = got[got.user == u]
        assert mine.item.tolist() == sorted(score, key=score.get, reverse=True)[:7] and mine['rank'].tolist() == list(range(1, 8))
        assert mine.prediction.tolist() == pytest.approx([score[i] for i in mine.item], abs=1e-5) and (mine.title == 'T' + mine.item.astype(str)).all()

def test_recommend_in_blocks_is_the_same(learn, monkeypatch):
    whole = learn.recommend(list(range(40)), 5)
    monkeypatch.setattr('fastcf.rank.best.blocks_of', partial(blocks_of, budget=300))
    pd.testing.assert_frame_equal(learn.recommend(list(range(40)), 5), whole, atol=1e-4, rtol=0) # scores are compared to five decimals, and rounding may put one on either side

def test_recommend_gives_what_there_is(learn):
    got = learn.recommend(3, 1000, rank_by='rating')
    n = int((learn.dls.counts() > 0).sum()) - int(learn.dls.counts('user')[learn.dls.classes['user'].encode([3])[0]])
    assert len(got) == n and got.prediction.is_monotonic_decreasing and len(learn.recommend([], 3)) == 0

@pytest.mark.parametrize('k', [0, -1, 2.5, 'x'])
def test_k_is_checked(learn, k):
    for f in (learn.recommend, learn.similar_items):
        with pytest.raises(ValueError, match='k: expected a whole number'): f(3, k)

def test_similar_items_against_a_loop(learn):
    w = learn.model.item_weight.weight.detach().numpy()
    row = learn.dls.classes['item'].encode([7])[0]
    cos = {int(learn.dls.classes['item'][i]): w[i] @ w[row] / np.linalg.norm(w[i]) / np.linalg.norm(w[row]) for i in range(len(w)) if i != row and learn.dls.counts()[i] > 0}
    got = learn.similar_items(7, 5)
    assert got.similar_item.tolist() == sorted(cos, key=cos.get, reverse=True)[:5] and got.similarity.tolist() == pytest.approx([cos[i] for i in got.similar_item], abs=1e-5)
    assert list(got) == ['item', 'rank', 'similar_item', 'title', 'similarity'] and len(learn.similar_items([1, 2], 3)) == 6

def test_tables_by_id(learn):
    b,f = learn.biases(),learn.factors()
    assert b.bias.is_monotonic_decreasing and list(b) == ['item', 'title', 'bias', 'rating_count'] and f.shape == (len(learn.dls.classes['item']), 5)
    row = learn.dls.classes['item'].encode([7])[0]
    assert b.set_index('item').bias[7] == pytest.approx(learn.model.item_bias.weight[row].item()) and f.loc[7].tolist() == pytest.approx(learn.model.item_weight.weight[row].tolist())
    assert list(learn.biases('user')) == ['user', 'bias', 'rating_count'] and learn.factors('user').index.name == 'user'

def test_plot_map(learn):
    ax = learn.plot_map(n=20)
    assert len(ax.collections[0].get_offsets()) == 20 and ax.get_xlabel() and 0 < len(ax.texts) <= 20
    assert all(t.get_text().startswith('T') for t in ax.texts)

def test_it_learns(sim):
    "Simulated ratings have structure; a fit must find more of it than biases alone could"
    from fastcf.data.sources import simulate_ratings
    df = simulate_ratings(300, 200, 20_000, factor_count=2, noise=0.3, seed=1, step=None, rating_range=(-9, 15))
    dls = CFDataLoaders.from_df(df, seed=1, device='cpu', bs=256)
    def _rmse(**kwargs):
        l = quiet(cf_learner(dls, 5, seed=1, **kwargs))
        l.fit_one_cycle(15, 0.02)
        return l.validate()[1]
    assert _rmse() < 0.40 and _rmse(wd=30.) > 0.45

# --- on a GPU

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')

@gpu
@pytest.mark.parametrize('half', [False, True])
def test_on_a_gpu(sim, half):
    l = quiet(cf_learner(CFDataLoaders.from_df(sim, seed=1), 5, (0.5, 5.5), seed=2))
    if half: l.to_fp16()
    l.fit_one_cycle(3)
    assert l.model.user_bias.weight.is_cuda and np.isfinite(l.recorder.values).all()
    cpu = quiet(cf_learner(CFDataLoaders.from_df(sim, seed=1, device='cpu'), 5, (0.5, 5.5), seed=2))
    cpu.fit_one_cycle(3)
    tol = 0.02 if half else 1e-3
    assert l.validate()[1] == pytest.approx(cpu.validate()[1], abs=tol)
    assert len(l.recommend([1, 2], 3)) == 6 and len(l.similar_items(3, 4)) == 4 and l.predict(3, 4) == pytest.approx(cpu.predict(3, 4), abs=10 * tol)

# --- frames and ids nobody knows

def test_a_frame_keeps_its_index_and_may_name_its_columns_in_any_way(dls):
    l = quiet(cf_learner(dls, 4, seed=0))
    pairs = pd.DataFrame(dict(film=dls.catalog.item[dls.train_ds.items[:4].numpy()], person=dls.catalog.user[dls.train_ds.users[:4].numpy()]), index=[7, 3, 9, 1])
    want = l.predict(pairs.person.tolist(), pairs.film.tolist()).prediction.to_numpy()
    for df in (pairs, pairs.rename(columns=dict(film='item', person='user')), pairs[['person', 'film']].set_axis(['a', 'b'], axis=1)):
        got = l.predict(df)
        assert got.index.tolist() == [7, 3, 9, 1] and got.prediction.to_numpy() == pytest.approx(want, abs=1e-6)
    got = l.predict(torch.as_tensor(pairs.person.to_numpy()), torch.as_tensor(pairs.film.to_numpy()))
    assert got.prediction.to_numpy() == pytest.approx(want, abs=1e-6)
    with pytest.raises(RatingsError, match="no column 'user'"): l.predict(pairs[['film']])

def test_ids_nobody_knows_are_an_error_nan_or_left_out(dls):
    from fastcf.bayes.intervals import Posterior
    import fastcf.bayes.engines
    l = quiet(cf_learner(dls, 4, seed=0))
    u,i = dls.catalog.user[int(dls.counts('user').argmax())],dls.catalog.item[int(dls.counts().argmax())]
    pairs = pd.DataFrame(dict(user=[u, -7, u], item=[i, i, -8]), index=list('abc'))
    with l.no_bar(), l.no_logging(): posterior = l.sample_posterior(2, 1, seed=0)
    for predict in (l.predict, posterior.predict):
        assert predict(pairs, unknown='skip').index.tolist() == ['a'] and predict(pairs, unknown='nan', interval=.9).prediction.isna().tolist() == [False, True, True]
        with pytest.raises(UnknownIdError): predict(pairs)
        with pytest.raises(ValueError, match="unknown: expected 'error', 'nan' or 'skip'"): predict(pairs, unknown='popular')

# --- interactions without ratings

def test_interactions_are_learned_by_a_loss_that_ranks(sim):
    import fastcf.learn.lr_finder, fastcf.rank.ials
    from fastcf.rank.losses import Negatives, Uniform, bpr_loss, sampled_softmax_loss
    dls = CFDataLoaders.from_df(sim, liked=4, valid_pct=.2, seed=0, device='cpu')
    l = cf_learner(dls, 5, seed=0)
    assert l.loss_func is sampled_softmax_loss and len(l.metrics) == 0 and np.isfinite(quiet(l).validate()).all() # before any fit
    l.fit(3, 1e-2)
    first,last = l.recorder.values[0],l.recorder.values[-1]
    assert last[0] < first[0] - .01
    u = dls.catalog.user[int(dls.counts('user').argmax())]
    by_model = l.recommend(u, 5)
    assert list(by_model.columns)[-1] == 'prediction' and len(by_model) == 5 and l.choice is not None
    assert l.recommend(u, 5).equals(by_model) # a choice model that was only looked at changes nothing
    l.fit(1, cbs=fastcf.rank.ials.IALS())
    assert list(l.recommend(u, 5).columns)[-1] == 'chance' # one that was asked for does
    with pytest.raises(TypeError, match='find_lr: sampled_softmax_loss needs'): l.find_lr()
    cb = Negatives(Uniform(4))
    for other in (cf_learner(dls, 5, cbs=cb), cf_learner(dls, 5, loss_func=bpr_loss, cbs=cb)): assert [o for o in other.cbs if isinstance(o, Negatives)] == [cb]
