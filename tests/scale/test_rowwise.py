"Row-wise optimizers beside dense ones: the same tables, whatever the batches, schedules, decay, freezing, saving and copying"
import copy, pickle
from functools import partial
import pytest, torch
from hypothesis import given, settings, strategies as st
from torch import nn
from fastai.callback.training import GradientAccumulation, GradientClip
from fastai.optimizer import Optimizer, SGD, sgd_step, weight_decay
from fastcf.data.loaders import CFDataLoaders
from fastcf.data.sources import simulate_ratings
from fastcf.learn.learner import cf_learner
from fastcf.learn.model import EmbeddingDotBias
from fastcf.learn.optim import FusedAdam, table_optimizer
from fastcf.learn import lr_finder, predict
from fastcf.scale import loops, row_tables, rowwise
from fastcf.scale.row_tables import RowEmbedding
from fastcf.scale.rowwise import RowwiseAdagrad, RowwiseAdam, RowwiseSGD, rowwise_tables
from fastcf.watch.embedding_stats import EmbeddingStats

@pytest.fixture(params=['compiled', 'plain'])
def loop(request, monkeypatch):
    "Both forms of a step: the compiled loop, and calls into PyTorch where numba is missing"
    if request.param == 'plain':
        for room in (rowwise, row_tables): monkeypatch.setattr(room, 'HAS_NUMBA', False)
    return request.param

OPTS = [RowwiseSGD, RowwiseAdagrad, RowwiseAdam]

def adagrad_step(p, lr, sqr_sum, eps, **kwargs): p.data.addcdiv_(p.grad, sqr_sum.sqrt() + eps, value=-lr)
def row_sums(p, sqr_sum=None, **kwargs): return {'sqr_sum': (torch.zeros(len(p), 1) if sqr_sum is None else sqr_sum) + p.grad.square().mean(1, keepdim=True)}
def dense_sgd(params, lr, wd=0.): return Optimizer(params, [weight_decay, sgd_step], lr=lr, wd=wd)
def dense_adagrad(params, lr, wd=0., eps=1e-8): return Optimizer(params, [row_sums, weight_decay, adagrad_step], lr=lr, wd=wd, eps=eps)

def table(n=50, k=4):
    t = nn.Embedding(n, k)
    t.weight.data.copy_(torch.randn(n, k, generator=torch.Generator().manual_seed(0)) * .3)
    return t

def train(opt_func, rowwise, steps=200, n=50, b=8, wd=.1, settle_at=(), every_row=False, **hypers):
    "A table after some steps on batches in which some rows are frequent, most are rare, and many are there twice"
    t,g = table(n),torch.Generator().manual_seed(1)
    if rowwise: t = RowEmbedding(t)
    opt,target = opt_func([t.weight], lr=.01, wd=wd, **hypers),torch.randn(n, 4, generator=g)
    for i in range(steps):
        opt.set_hyper('lr', .01 * (1 + .5 * (i % 50) / 50))
        rows = torch.arange(n) if every_row else (torch.rand(b, generator=g)**2 * n).long()
        (t(rows) - target[rows]).square().mean().backward()
        opt.step(); opt.zero_grad()
        if i in settle_at: t.eval(); t.train()
    t.eval()
    return t.weight.detach()

def same(a, b, atol=1e-5): torch.testing.assert_close(a, b, atol=atol, rtol=0)

@pytest.mark.parametrize('ours,dense,kwargs', [
    (RowwiseSGD, dense_sgd, {}), (RowwiseSGD, dense_sgd, dict(wd=0.)), (RowwiseAdagrad, dense_adagrad, {}), (RowwiseAdam, FusedAdam, dict(mom=0.)),
    (RowwiseAdam, FusedAdam, dict(every_row=True)), (RowwiseAdam, FusedAdam, dict(eps=1e-12)), (RowwiseAdam, FusedAdam, dict(eps=1e-12, wd=2.)),
    (RowwiseAdam, FusedAdam, dict(eps=1e-12, mom=.95, sqr_mom=.999))])
@pytest.mark.parametrize('settle_at', [(), (3, 120)])
def test_200_steps_equal_the_dense_ones(ours, dense, kwargs, settle_at, loop):
    same(train(ours, True, settle_at=settle_at, **kwargs), train(dense, False, **kwargs))

def test_more_steps_than_the_sums_have_room_for(loop):
    same(train(RowwiseSGD, True, steps=1500), train(dense_sgd, False, steps=1500))
    a,b = train(RowwiseAdam, True, steps=1500, eps=1e-3),train(FusedAdam, False, steps=1500, eps=1e-3) # a small eps would blow up rounding
    assert (a - b).norm() < .02 * b.norm()

def test_with_the_usual_eps_adam_is_near(): # 1.5e-3 when written; lazy Adam, which leaves the movement out, is at .5
    a,b = train(RowwiseAdam, True),train(FusedAdam, False)
    assert (a - b).norm() < .01 * b.norm()

def test_duplicates_are_summed_before_they_are_squared():
    t = RowEmbedding(nn.Embedding(5, 1))
    opt,before = RowwiseAdagrad([t.weight], lr=.1),t.weight.detach().clone()
    t(torch.tensor([3, 3])).sum().backward()
    opt.step()
    same(t.weight.detach() - before, torch.tensor([[0.], [0], [0], [-.1], [0]]), 1e-6)

@pytest.mark.parametrize('opt_func', OPTS)
def test_only_the_rows_of_the_batch_are_written(opt_func, loop):
    t = RowEmbedding(table())
    opt,before = opt_func([t.weight], lr=.1, wd=.5),t.weight.detach().clone()
    for rows in ([4, 7, 4], [7, 9]):
        t(torch.tensor(rows)).square().sum().backward()
        opt.step(); opt.zero_grad()
    assert (t.weight != before).any(1).nonzero().flatten().tolist() == [4, 7, 9]
    assert (t(torch.tensor([4])) != t.weight[4]).any() # what is pending is in what forward says
    shown = t(torch.arange(50)).detach()
    t.eval()
    same(t.weight.detach(), shown, 1e-6)

@pytest.mark.parametrize('opt_func', OPTS)
def test_an_empty_batch_changes_nothing(opt_func, loop):
    t = RowEmbedding(table())
    opt = opt_func([t.weight], lr=.1, wd=.5)
    t(torch.tensor([1, 2])).sum().backward(); opt.step(); opt.zero_grad()
    before = copy.deepcopy(opt.state_dict()),t.weight.detach().clone()
    t(torch.tensor([], dtype=torch.long)).sum().backward(); opt.step()
    t.eval()
    assert torch.equal(before[1], t.weight) and str(before[0]) == str(opt.state_dict())

@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.lists(st.lists(st.integers(0, 6), max_size=5), max_size=8), st.floats(0, 1), st.sampled_from([(RowwiseSGD, dense_sgd), (RowwiseAdagrad, dense_adagrad)]), st.sets(st.integers(0, 7)))
def test_any_batches_equal_the_dense_ones(batches, wd, opts, settle_at):
    tables = RowEmbedding(table(7)),table(7)
    for t,opt_func in zip(tables, opts):
        opt = opt_func([t.weight], lr=.1, wd=wd)
        for i,rows in enumerate(batches):
            if not rows: continue # the dense one would decay
            t(torch.tensor(rows)).sin().sum().backward()
            opt.step(); opt.zero_grad()
            if i in settle_at: t.eval()
        t.eval()
    same(*(t.weight.detach() for t in tables))

@pytest.mark.parametrize('opt_func', OPTS)
def test_a_saved_optimizer_goes_on_as_if_nothing_had_happened(opt_func, tmp_path):
    def go(steps, halt=None):
        t,g = RowEmbedding(table()),torch.Generator().manual_seed(1)
        opt = opt_func([t.weight], lr=.05, wd=.1)
        for i in range(steps):
            rows = torch.randint(0, 50, (6,), generator=g)
            t(rows).sin().sum().backward(); opt.step(); opt.zero_grad()
            if i == halt:
                torch.save(dict(model=t.state_dict(), opt=opt.state_dict()), tmp_path/'x.pth')
                state = torch.load(tmp_path/'x.pth', weights_only=False)
                t = RowEmbedding(nn.Embedding(50, 4)); t.load_state_dict(state['model'])
                opt = opt_func([t.weight], lr=9.); opt.load_state_dict(state['opt'])
        t.eval()
        return t.weight.detach()
    same(go(30), go(30, 11), 2e-6 if opt_func is not RowwiseAdam else 2e-3) # a settled Adam's eps counts anew

@pytest.fixture(scope='module')
def dls(): return CFDataLoaders.from_df(simulate_ratings(60, 80, 1500, 4, seed=3), seed=0, bs=64, device='cpu')

def quiet(learn, *args, one_cycle=False, **kwargs):
    with learn.no_bar(), learn.no_logging(): (learn.fit_one_cycle if one_cycle else learn.fit)(*args, **kwargs)
    return learn

@pytest.mark.parametrize('opt_func', OPTS)
def test_everything_fastai_does_with_an_optimizer(dls, opt_func, tmp_path, loop):
    learn = cf_learner(dls, opt_func=opt_func, seed=0)
    quiet(learn, 2, 1e-2, one_cycle=True)
    assert len(learn.recorder.lrs) == 2 * len(dls.train)
    learn.freeze()
    before = learn.model.user_weight.weight.detach().clone()
    quiet(learn, 1)
    assert torch.equal(before, learn.model.user_weight.weight)
    learn.unfreeze()
    quiet(learn, 1, cbs=[GradientAccumulation(128), EmbeddingStats(every=2)])
    assert not torch.equal(before, learn.model.user_weight.weight)
    learn.path = tmp_path
    learn.save('m'); learn.load('m')
    assert all(not s.get('do_wd', True) == (p.shape[1] == 1) for p,_,s,_ in learn.opt.all_params())
    assert 1e-6 < learn.find_lr(seed=0).lr < 10
    learn.opt.clear_state()
    learn.export(tmp_path/'x.pkl')
    assert 'grad_avg' not in str(learn.opt.state_dict()['state'][0].keys())

def test_sparse_is_the_dense_learner(dls, loop): # the way from ratings to predictions with one schedule and another optimizer
    a,b = (quiet(cf_learner(dls, sparse=s, seed=0, opt_func=partial(o, eps=1e-12), from_means=False), 0) for s,o in ((False, FusedAdam), (True, RowwiseAdam)))
    for learn in (a, b):
        learn.dls.train.rng.seed(5)
        quiet(learn, 3, 5e-3, one_cycle=True)
    torch.testing.assert_close(a.get_preds()[0], b.get_preds()[0], atol=1e-3, rtol=0)

def test_clipping_is_that_of_dense_gradients(dls):
    weights = []
    for opt_func in (dense_sgd, RowwiseSGD):
        learn = cf_learner(dls, opt_func=opt_func, seed=0, from_means=False)
        learn.dls.train.rng.seed(5)
        weights.append(quiet(learn, 1, 1., cbs=GradientClip(.05)).model.user_weight.weight.detach())
    same(*weights)

def test_embedding_stats_sees_gradients_of_summed_rows(dls):
    norms = []
    for opt_func in (dense_sgd, RowwiseSGD):
        learn = cf_learner(dls, opt_func=opt_func, seed=0)
        learn.dls.train.rng.seed(5)
        stats = EmbeddingStats()
        quiet(learn, 1, .1, cbs=stats)
        s = stats.stats
        norms.append(s[s.statistic == 'grad_norm'].value.tolist())
    assert len(norms[0]) == 4 and norms[0] == pytest.approx(norms[1], rel=1e-4)

def test_copies_and_pickles_are_settled_and_on_their_own():
    t = RowEmbedding(table())
    opt = RowwiseSGD([t.weight], lr=.1, wd=.5)
    for r in (1, 2): t(torch.tensor([r])).sum().backward(); opt.step(); opt.zero_grad()
    shown = t(torch.arange(50)).detach()
    for other in (copy.deepcopy(t), pickle.loads(pickle.dumps(t))): same(other(torch.arange(50)).detach(), shown, 1e-6)

def test_a_second_optimizer_of_the_same_table_leaves_nothing_undone():
    t = RowEmbedding(table())
    opt = RowwiseSGD([t.weight], lr=.1, wd=.5)
    for r in (1, 2): t(torch.tensor([r])).sum().backward(); opt.step(); opt.zero_grad()
    shown = t(torch.arange(50)).detach()
    RowwiseAdam([t.weight], lr=.1)
    same(t.weight.detach(), shown, 1e-6)

def test_a_model_with_layers_trains_too(loop):
    model = rowwise_tables(nn.Sequential(nn.Embedding(20, 4), nn.Linear(4, 1)))
    dense = nn.Sequential(nn.Embedding(20, 4), nn.Linear(4, 1))
    dense.load_state_dict(model.state_dict())
    for m,opt_func in ((model, RowwiseAdam), (dense, FusedAdam)):
        opt = opt_func(list(m.parameters()), lr=.01, wd=.1, eps=1e-12)
        for i in range(30): m(torch.tensor([i % 20, 3])).square().sum().backward(); opt.step(); opt.zero_grad()
        m.eval()
    for p,q in zip(model.parameters(), dense.parameters()): same(p.detach(), q.detach())

@pytest.mark.parametrize('kwargs,said', [(dict(sparse='yes'), "sparse: expected True, False or 'auto'"), (dict(sparse=True, opt_func=FusedAdam), 'opt_func: FusedAdam goes over whole tables'),
                                         (dict(sparse=True, opt_func=SGD), 'opt_func: SGD goes over whole tables')])
def test_what_cannot_be_is_said(dls, kwargs, said):
    with pytest.raises(ValueError, match=said): cf_learner(dls, **kwargs)

def test_auto_goes_by_size():
    assert table_optimizer(nn.Embedding(100, 50)) is FusedAdam
    model = nn.Sequential(nn.Embedding(2**20, 5))
    assert table_optimizer(model) is RowwiseAdam and isinstance(model[0], RowEmbedding)
    model = nn.Sequential(nn.Embedding(2**20, 5))
    assert table_optimizer(model, sparse=False) is FusedAdam and not isinstance(model[0], RowEmbedding)

def test_a_table_that_cannot_be_rowwise_is_refused():
    with pytest.raises(ValueError, match='max_norm'): RowEmbedding(nn.Embedding(5, 2, max_norm=1.))
    with pytest.raises(ValueError, match='eps'): RowwiseAdam([nn.Parameter(torch.zeros(2, 2))], lr=.1, eps=0)

def test_rows_of_any_type_and_shape_are_looked_up(loop):
    t = RowEmbedding(table())
    opt = RowwiseAdam([t.weight], lr=.1, wd=.5)
    for r in (1, 2, 3): t(torch.tensor([r, r])).sum().backward(); opt.step(); opt.zero_grad()
    rows = torch.tensor([[1, 0, 3], [2, 2, 49]])
    assert torch.equal(t(rows), t(rows.int())) and t(rows).shape == (2, 3, 4) and torch.equal(t(rows.T), t(rows).transpose(0, 1)) and t(rows[:0]).shape == (0, 3, 4)
    t(rows).sum().backward()
    assert t.weight.grad.to_dense()[:4, 0].tolist() == [1, 1, 2, 1]
    for bad in (50, -1):
        with pytest.raises(IndexError): t(torch.tensor([0, bad]))

@pytest.mark.parametrize('rows', [[], [5], [7, 7, 7], list(range(0, 2**14, 2**10)) * 3, [2**31 - 1, 0, 2**31 - 1], list(range(300))])
def test_different_rows_are_found(rows):
    "Also where row numbers have all their lowest bits in common"
    rows = torch.tensor(rows, dtype=torch.int64)
    unique,inverse = row_tables._hashed(rows)
    assert (unique[inverse] == rows.numpy()).all() and len(unique) == len(set(rows.tolist()))

def test_means_that_lie_apart_are_put_side_by_side():
    "As in a state that was loaded, or copied"
    def go(apart):
        t = RowEmbedding(table())
        opt = RowwiseAdam([t.weight], lr=.05, wd=.1)
        for i in range(9):
            if apart and i == 4:
                state = opt.state[t.weight]
                for k in opt.stats: state[k] = state[k].clone()
            t(torch.tensor([i, i + 1, i])).sin().sum().backward(); opt.step(); opt.zero_grad()
        t.eval()
        return t.weight.detach()
    assert torch.equal(go(True), go(False))

def pair_model(seed=0, opt_func=RowwiseAdam):
    "A model whose four tables have something pending, and their optimizer"
    torch.manual_seed(seed)
    model = rowwise_tables(EmbeddingDotBias(9, 12, 3, (0, 6)))
    opt = opt_func(list(model.parameters()), lr=.1, wd=.5)
    for j in range(3): model(torch.tensor([j, j]), torch.tensor([j, 8 - j])).sum().backward(); opt.step(); opt.zero_grad()
    return model,opt

def gradients(model, users, items, together):
    "Scores of pairs and dense gradients of the tables, in one node or table by table"
    if not together: model.user_weight.register_forward_hook(lambda *o: None) # who looks at a table wants to see it asked
    scores = model(users, items)
    (scores * torch.arange(1., len(users) + 1)).sum().backward()
    return [scores.detach(), *(p.grad.to_dense() for p in model.parameters())]

@pytest.mark.parametrize('users,items', [([0, 3, 3, 11, 0], [8, 1, 1, 0, 2]), ([5], [5]), ([], [])])
@pytest.mark.parametrize('kind', [torch.int64, torch.int32])
def test_one_node_for_all_tables_is_table_by_table(users, items, kind, monkeypatch):
    (a,opt1),(b,opt2),calls = pair_model(),pair_model(),[] # tables know their optimizers by weak references
    users,items = (torch.tensor(o, dtype=kind) for o in (users, items))
    monkeypatch.setattr(RowEmbedding, 'forward', lambda self, rows, f=RowEmbedding.forward: calls.append(self) or f(self, rows))
    one = gradients(a, users, items, True)
    assert len(calls) == (0 if rowwise.HAS_NUMBA else 4)
    each = gradients(b, users, items, False)
    for x,y in zip(one, each): same(x, y, 1e-6)

@pytest.mark.parametrize('opt_func', OPTS)
def test_gradients_of_two_batches_add_up(opt_func):
    "As with GradientAccumulation: rows that a batch holds once each are there twice when a second has come"
    (a,opt1),(b,opt2) = pair_model(opt_func=opt_func),pair_model(opt_func=opt_func)
    b.user_weight.register_forward_hook(lambda *o: None)
    for model,opt in ((a, opt1), (b, opt2)):
        for users,items in (([1, 2, 1], [3, 3, 4]), ([2, 5], [3, 0]), ([1, 2], [3, 4])): model(torch.tensor(users), torch.tensor(items)).sum().backward()
        opt.step()
        model.eval()
    for p,q in zip(a.parameters(), b.parameters()): same(p.detach(), q.detach(), 1e-6)

@pytest.mark.parametrize('change', ['hook', 'other optimizer', 'plain table', 'shape'])
def test_tables_that_cannot_go_together_are_asked_one_by_one(change):
    model,opt = pair_model()
    if change == 'hook': model.item_bias.register_forward_pre_hook(lambda *o: None)
    if change == 'other optimizer': other = RowwiseAdam([model.item_weight.weight], lr=.1)
    if change == 'plain table': model.user_bias = nn.Embedding(12, 1)
    tables = model.user_weight,model.item_weight,model.user_bias,model.item_bias
    users = torch.tensor([[1, 2]]) if change == 'shape' else torch.tensor([1, 2])
    assert RowEmbedding.scores_together(tables, users, users) is None
    assert change == 'shape' or model(users, users).shape == (2,)

@pytest.mark.parametrize('opt_func', OPTS)
def test_a_copy_of_learner_and_optimizer_writes_into_its_own_tables(opt_func):
    "Arrays of tables are kept between steps: never those of another table, or of one that is no longer there"
    def step(t, opt, r): t(torch.tensor([r, r, 3])).sin().sum().backward(); opt.step(); opt.zero_grad()
    t = RowEmbedding(table())
    opt = opt_func([t.weight], lr=.1, wd=.5)
    for r in (1, 2): step(t, opt, r)
    (t2,opt2),before = copy.deepcopy((t, opt)),t.weight.detach().clone()
    for p in (t2.weight,): row_tables.OPTIMIZERS[p] = rowwise.weakref.ref(opt2)
    step(t2, opt2, 5)
    assert torch.equal(t.weight, before) and not torch.equal(t2.weight, before)
    t.weight.data = t.weight.data.clone() # as `load_state_dict(assign=True)` or a move between devices does
    step(t, opt, 5)
    t.eval(); t2.eval()
    same(t.weight.detach(), t2.weight.detach(), 1e-6)

def test_the_rows_of_a_large_table_are_where_they_were():
    "Large tables are moved to large pages: numbers, parameter and gradient stay, and memory that other processes look at is left alone"
    t = nn.Embedding(2**14, 65)
    w,before = t.weight,t.weight.detach().clone()
    moved = RowEmbedding(t)
    assert moved.weight is w and torch.equal(w.detach(), before)
    moved(torch.tensor([3, 3])).sum().backward()
    assert w.grad.to_dense()[3].tolist() == [2.] * 65
    shared = nn.Embedding(2**14, 65)
    shared.weight.data.share_memory_()
    at = shared.weight.data_ptr()
    assert RowEmbedding(shared).weight.data_ptr() == at
    assert RowEmbedding(nn.Embedding(2**14, 65, device='meta')).weight.is_meta

@pytest.mark.parametrize('loop', [loops.decay_rows, loops.adam_rows])
def test_what_is_due_depends_on_the_step_of_the_row_alone(loop):
    "More steps than the loop has places for: rows of one place take turns"
    g,n,k,t = torch.Generator().manual_seed(0),300,5,250
    w,means,last = torch.randn(n, k, generator=g).numpy(),torch.rand(n, 2, k, generator=g).numpy(),torch.randint(0, t + 1, (n,), generator=g).int().numpy()
    sums = -torch.rand(5 if loop is loops.adam_rows else 1, t + 1, generator=g).double().cumsum(1).numpy() / 50
    out,rows = torch.empty(n, k).numpy(),torch.randperm(n, generator=g).numpy()
    args = (means, last, sums, t, .01) if loop is loops.adam_rows else (last, sums, t)
    loops.fast(loop)(rows, w, *args, out)
    left,w = torch.tensor(sums[0, t] - sums[0, last[rows]]).exp().float()[:, None],torch.tensor(w[rows])
    if loop is loops.adam_rows: w = w - torch.tensor(sums[4, last[rows]]).float()[:, None] * torch.tensor(means[rows, 0]) / (torch.tensor(means[rows, 1]).sqrt() + .01)
    same(torch.tensor(out), left * w, 1e-4)
