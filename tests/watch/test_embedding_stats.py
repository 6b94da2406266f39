"EmbeddingStats and its neighbours: any learner, any company, planted faults, sinks that survive"
import io, os, pickle, signal, subprocess, sys, textwrap, time, warnings
from pathlib import Path
import nbformat, numpy as np, pandas as pd, pytest, torch
from fastai.callback.core import Callback, CancelFitException, CancelTrainException
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.progress import CSVLogger
from fastai.callback.tracker import EarlyStoppingCallback, SaveModelCallback, TerminateOnNaNCallback
from fastai.callback.training import GradientAccumulation, GradientClip
from fastai.collab import CollabDataLoaders, collab_learner
from fastai.learner import Learner, load_learner
from fastcore.basics import noop
from fastcf.watch.embedding_stats import EmbeddingStats
from fastcf.data.sources import simulate_ratings
from fastcf.watch.diagnosis import KINDS
import fastcf.learn.look
from fastcf.learn.learner import cf_learner
from fastcf.data.loaders import CFDataLoaders
from fastcf.watch.sinks import COLUMNS, CSVSink, Sink, TensorBoardSink, WandBSink, as_sinks
from fastcf.watch.tables import AverageTables, BestTables, RowCounts, embedding_tables, input_columns

pytestmark = pytest.mark.filterwarnings('ignore::UserWarning')

@pytest.fixture
def dls(sim, tmp_path):
    films = pd.DataFrame(dict(item=range(80), title=[f'T{i}' for i in range(80)]))
    return CFDataLoaders.from_df(sim, items=films, seed=1, bs=64, path=tmp_path, device='cpu')

@pytest.fixture
def learn(dls): return silent(cf_learner(dls, 6, (0.5, 5.5), seed=2))

def silent(learn):
    learn.remove_cb(learn.progress)
    learn.logger = noop
    return learn

def value(stats, table, statistic, epoch=None):
    df = stats.stats.query('table == @table and statistic == @statistic')
    return df.value.iloc[-1] if epoch is None else df[df.epoch == epoch].value.item()

def kinds(stats): return {(f.kind, f.table) for f in stats.warnings}

# --- what is logged

def test_tidy(learn):
    s = EmbeddingStats()
    learn.fit_one_cycle(3, cbs=s)
    df,n = s.stats,len(learn.dls.train)
    assert list(df.columns) == COLUMNS and not df.duplicated(['step', 'table', 'statistic']).any()
    assert dict(df.groupby('epoch').step.first()) == {0: 0, 1: n, 2: 2*n, 3: 3*n}
    assert set(df.table) == {'user_weight', 'item_weight', 'user_bias', 'item_bias', 'model'}
    assert value(s, 'item_weight', 'norm_mean') == pytest.approx(learn.model.item_weight.weight.norm(dim=1).mean().item())
    assert value(s, 'item_bias', 'value_std') == pytest.approx(learn.model.item_bias.weight.std(correction=0).item(), rel=1e-4)
    assert not df.sampled.any()
    for k in ('grad_norm', 'update_ratio'): assert (df[df.statistic == k].groupby('table').size() == 3).all()
    assert kinds(s) == set() and s.warnings == []

def test_tables_are_left_as_they_would_be(dls):
    "Looking changes nothing: the same tables to the last bit"
    got = []
    for cbs in ([], [EmbeddingStats()], [EmbeddingStats(every=3), RowCounts()]):
        dls.train.rng.seed(0)
        torch.manual_seed(0)
        l = silent(cf_learner(dls, 6, (0.5, 5.5), seed=2))
        l.fit_one_cycle(2, cbs=cbs)
        got.append(l.model.state_dict())
    for o in got[1:]:
        for k in o: assert torch.equal(o[k], got[0][k]), k

def test_every_n_steps_and_the_end(learn):
    n = len(learn.dls.train)
    s = EmbeddingStats(every=5)
    learn.fit(2, cbs=s)
    assert sorted(set(s.stats.step)) == sorted({0, *range(5, 2*n + 1, 5), n, 2*n})
    at = s.stats.drop_duplicates('step').set_index('step').epoch
    assert at[5] == pytest.approx(5 / n) and at[2*n] == 2 and at.is_monotonic_increasing

def test_an_ordinary_batch_hears_nothing(learn):
    heard = []
    class Spy(EmbeddingStats):
        def __call__(self, event_name): heard.append(event_name); return super().__call__(event_name)
    s = Spy()
    learn.fit(2, cbs=s)
    class Listens(Callback):
        def __init__(self, s): self.s,self.got = s,[]
        def before_batch(self): self.got.append([e for e in ('before_batch', 'after_pred', 'after_loss', 'before_backward', 'before_step', 'after_step', 'after_batch') if hasattr(type(self.s), e) or e in vars(self.s)])
    s = EmbeddingStats()
    spy = Listens(s)
    learn.fit(1, cbs=[s, spy])
    assert spy.got[0] == ['before_step'] and all(o == [] for o in spy.got[1:len(learn.dls.train)])

def test_alignment_and_popularity_beside_plain_ones(learn):
    s = EmbeddingStats()
    learn.fit(2, cbs=s)
    d,m = learn.dls.train_ds,learn.model
    liked = d.ratings >= d.ratings.mean()
    u,v = (torch.nn.functional.normalize(t.weight.detach()[r[liked]]) for t,r in ((m.user_weight, d.users), (m.item_weight, d.items)))
    assert value(s, 'model', 'alignment') == pytest.approx((u - v).square().sum(1).mean().item(), rel=1e-4)
    from scipy.stats import spearmanr
    c = learn.dls.counts().numpy()
    assert value(s, 'item_bias', 'bias_popularity') == pytest.approx(spearmanr(m.item_bias.weight.detach().squeeze()[c > 0], c[c > 0]).statistic, rel=1e-5)

# --- any learner

@pytest.mark.parametrize('use_nn', [False, True])
def test_fastai_collab(sim, use_nn):
    dls = CollabDataLoaders.from_df(sim, seed=0, bs=64, device=torch.device('cpu'))
    l = silent(collab_learner(dls, use_nn=use_nn, y_range=(0.5, 5.5), layers=[20] if use_nn else None, **({} if use_nn else dict(n_factors=6))))
    s = EmbeddingStats()
    l.fit(2, 5e-3, cbs=s)
    names = ['embeds.0', 'embeds.1'] if use_nn else ['u_weight', 'i_weight', 'u_bias', 'i_bias']
    assert list(dict.fromkeys(s.stats.table)) == [*names, 'model']
    pop = s.stats[s.stats.statistic.str.endswith('_popularity')]
    assert set(pop.table) == set(names) and 'flat_share' in set(s.stats.statistic)
    counts = l.dls.train_ds.items['item'].value_counts()
    assert s.data.counts(1, len(l.dls.classes['item'])).sum() == counts.sum() == len(l.dls.train_ds)
    assert kinds(s) == set()
    s.plot(); s.plot_map()

def test_a_plain_learner_without_known_data():
    "Columns of unknown loaders: tables are looked at, popularity is not"
    from fastai.data.core import DataLoaders
    from torch.utils.data import DataLoader, TensorDataset
    x = torch.randint(0, 30, (256,))
    dl = DataLoader(TensorDataset(x, torch.randn(256, 4)), batch_size=32)
    l = silent(Learner(DataLoaders(dl, dl), torch.nn.Embedding(30, 4), loss_func=torch.nn.MSELoss()))
    s = EmbeddingStats()
    l.fit(1, cbs=s)
    assert set(s.stats.table) == {'', 'model'} and not s.stats.statistic.str.contains('popularity').any()
    with pytest.raises(ValueError, match='no nn.Embedding'): silent(Learner(DataLoaders(dl, dl), torch.nn.Linear(1, 1), loss_func=torch.nn.MSELoss())).fit(1, cbs=EmbeddingStats())

def test_columns_are_found(learn):
    b = learn.dls.one_batch()
    assert input_columns(learn.model, b[:2]) == {'user_weight': 0, 'item_weight': 1, 'user_bias': 0, 'item_bias': 1}
    assert not learn.model.user_weight._forward_hooks and learn.model.training

@pytest.mark.parametrize('kwargs,words', [(dict(every=0), 'every'), (dict(every='batch'), 'every'), (dict(stop_on=['nan', 'sadness']), 'sadness'), (dict(to=3), 'to:')])
def test_wrong_arguments(kwargs, words):
    with pytest.raises((ValueError, TypeError), match=words): EmbeddingStats(**kwargs)

def test_wrong_table(learn):
    with pytest.raises(ValueError, match='item_wait.*item_weight'): learn.fit(1, cbs=EmbeddingStats(tables=['item_wait']))
    s = EmbeddingStats(tables=['item_weight'])
    learn.fit(1, cbs=s)
    assert set(s.stats.table) == {'item_weight', 'model'}

# --- company

def test_columns_of_the_progress_table(dls):
    l = cf_learner(dls, 6, (0.5, 5.5), seed=2)
    lines = []
    l.remove_cb(l.progress)
    l.logger = lines.append
    s = EmbeddingStats(show=['item_weight.effective_rank', 'item_weight.nonsense'])
    early = EarlyStoppingCallback('item_weight.effective_rank', patience=9)
    l.fit(2, cbs=[early, s, CSVLogger()])
    assert list(l.recorder.metric_names) == ['epoch', 'train_loss', 'valid_loss', 'rmse', 'mae', 'item_weight.effective_rank', 'item_weight.nonsense', 'time']
    assert all(len(o) == 8 for o in lines) and lines[1][5] == value(s, 'item_weight', 'effective_rank') and np.isnan(lines[1][6])
    assert len(l.validate()) == 3
    assert list(pd.read_csv(l.path/'history.csv').columns)[5] == 'item_weight.effective_rank'
    l.fit(1)
    assert list(l.recorder.metric_names)[-2:] == ['mae', 'time']

@pytest.mark.parametrize('reverse', [False, True])
def test_any_order_of_callbacks(learn, reverse):
    s = EmbeddingStats()
    cbs = [s, GradientClip(1.), GradientAccumulation(128), SaveModelCallback(), RowCounts(), TerminateOnNaNCallback(), AverageTables()]
    learn.fit(2, cbs=cbs[::-1] if reverse else cbs)
    assert sorted(set(s.stats.epoch)) == [0, 1, 2] and (s.stats[s.stats.statistic == 'update_ratio'].value > 0).all()

def test_lr_find_logs_nothing(learn):
    s = EmbeddingStats(every=2)
    learn.add_cb(s)
    with torch.random.fork_rng(): learn.lr_find(show_plot=False, num_it=20)
    assert len(s.stats) == 0
    learn.get_preds(); learn.validate()
    assert len(s.stats) == 0
    learn.fit(1)
    assert s.stats.epoch.max() == 1

def test_fit_twice_continues(learn):
    n,s = len(learn.dls.train),EmbeddingStats()
    learn.fit(1, cbs=s)
    learn.fit_one_cycle(2, cbs=s)
    assert dict(s.stats.groupby('epoch').step.first()) == {0: 0, 1: n, 2: 2*n, 3: 3*n}
    assert value(s, 'item_weight', 'drift', 3) > value(s, 'item_weight', 'drift', 1)
    other = silent(cf_learner(learn.dls, 9, (0.5, 5.5), seed=2))
    other.fit(1, cbs=s) # tables of another shape: a new history
    assert dict(s.stats.groupby('epoch').step.first()) == {0: 0, 1: n}

class Sweep(Callback):
    "An epoch engine: it does the training itself, and fastai's batches never run"
    order = -20
    def before_train(self):
        with torch.no_grad(): self.learn.model.item_weight.weight.mul_(1.5)
        raise CancelTrainException()

@pytest.mark.parametrize('valid_pct', [0.2, 0])
def test_engines_that_cancel_the_batch_loop(sim, valid_pct):
    l = silent(cf_learner(CFDataLoaders.from_df(sim, valid_pct=valid_pct, seed=1, device='cpu'), 6, (0.5, 5.5), seed=2))
    s = EmbeddingStats(every=3, to=Lines())
    l.fit(3, cbs=[Sweep(), s])
    assert dict(s.stats.groupby('epoch').step.first()) == {0: 0, 1: 1, 2: 2, 3: 3}
    assert value(s, 'item_weight', 'last_move', 2) == pytest.approx(.5, rel=1e-4) and value(s, 'item_weight', 'drift', 3) == pytest.approx(1.5**3 - 1, rel=1e-4)
    s.plot(); s.plot_hist('item_weight'); s.plot_spectrum()

def test_half_precision(learn):
    s = EmbeddingStats()
    learn.to_bf16().fit(1, cbs=s)
    learn.to_fp32()
    learn.add_cb(MixedPrecision())
    learn.fit(1, cbs=s)
    assert s.stats.epoch.max() == 2 and kinds(s) == set()

def test_export_leaves_nothing_behind(learn, tmp_path):
    s = EmbeddingStats(to=[tmp_path/'s.csv', TensorBoardSink(tmp_path/'tb')])
    learn.add_cbs([s, RowCounts(), AverageTables()])
    learn.fit(1)
    learn.export(tmp_path/'l.pkl')
    size = (tmp_path/'l.pkl').stat().st_size
    again = load_learner(tmp_path/'l.pkl')
    assert again.embedding_stats.stats.equals(s.stats) and again.embedding_stats.watched == {} and size < 300_000
    pd.testing.assert_frame_equal(pickle.loads(pickle.dumps(s)).stats, s.stats)

def test_a_fit_that_breaks_leaves_no_trace(learn):
    class Break(Callback):
        def after_epoch(self):
            if self.learn.epoch == 1: raise RuntimeError('broken')
    s = EmbeddingStats(every=4)
    learn.add_cb(s)
    with pytest.raises(RuntimeError): learn.fit(3, cbs=Break())
    assert len(learn.validate()) == 3
    learn.fit(1)
    assert s.stats.step.is_monotonic_increasing and not s.stats.duplicated(['step', 'table', 'statistic']).any()

def test_two_ranks(tmp_path):
    "Rank 0 alone logs; both stop when it says so"
    code = textwrap.dedent('''
        import os, sys, warnings, torch, torch.distributed as dist
        rank, out = int(sys.argv[1]), sys.argv[2]
        os.environ.update(RANK=str(rank), WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=sys.argv[3])
        torch.set_num_threads(1)
        dist.init_process_group('gloo')
        warnings.simplefilter('ignore')
        from fastcf.data.sources import simulate_ratings
        from fastcf.data.loaders import CFDataLoaders
        from fastcf.learn.learner import cf_learner
        from fastcf.watch.embedding_stats import EmbeddingStats
        dls = CFDataLoaders.from_df(simulate_ratings(60, 80, 1500, seed=3), seed=1, device='cpu', path=out)
        l = cf_learner(dls, 6, (0.5, 5.5), seed=2)
        l.remove_cb(l.progress); l.logger = lambda *a: None
        s = EmbeddingStats(stop_on=['nan'], to='s.csv')
        from fastai.callback.core import Callback
        class Spoil(Callback):
            def after_train(self):
                if rank == 0 and self.learn.epoch == 1: self.learn.model.item_weight.weight.data[3] = float('nan')
        l.fit(9, cbs=[Spoil(), s])
        print(len(s.stats) > 0, l.epoch, [f.kind for f in s.warnings])
    ''')
    import socket
    with socket.socket() as o: o.bind(('127.0.0.1', 0)); port = str(o.getsockname()[1])
    ps = [subprocess.Popen([sys.executable, '-c', code, str(r), tmp_path, port], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for r in (0, 1)]
    said = [p.communicate(timeout=120) for p in ps]
    assert [o.strip().splitlines()[-1:] for o,_ in said] == [["True 1 ['nan']"], ['False 1 []']], said
    assert pd.read_csv(tmp_path/'s.csv').epoch.max() == 2

# --- planted faults

def fit(dls, epochs=2, lr=None, change=None, stop_on=(), **kwargs):
    l = silent(cf_learner(dls, kwargs.pop('factor_count', 20), kwargs.pop('y_range', (0.5, 5.5)), seed=0))
    if change: change(l.model)
    s = EmbeddingStats(stop_on=stop_on)
    l.fit_one_cycle(epochs, lr, cbs=s, **kwargs)
    return s,l

@pytest.fixture(scope='module')
def plain(ml): return CFDataLoaders.from_df(ml.ratings[ml.ratings.user <= 300], items=ml.items, seed=0, bs=512, device='cpu')

def only(stats, kind):
    assert {f.kind for f in stats.warnings} == {kind}, stats.warnings
    return stats.warnings[0]

def test_rank_one(plain):
    def rank_one(m): m.item_weight.weight.data = torch.outer(torch.randn(len(m.item_weight.weight)), torch.randn(20)) * .1
    s,_ = fit(plain, 1, 1e-6, rank_one)
    f = only(s, 'collapse')
    assert f.table == 'item_weight' and f.value < 1.1 and 'item_weight' in f.message and 'effective rank of 1.0' in f.message and f.epoch == 0

def test_dead_rows(ml):
    "A tenth of the items is in no training row"
    r = ml.ratings[ml.ratings.user <= 300].reset_index(drop=True)
    dead = set(np.random.default_rng(0).permutation(r.item.unique())[:r.item.nunique() // 10])
    held = r.item.isin(dead).to_numpy()
    dls = CFDataLoaders.from_df(r, splitter=lambda o: (np.flatnonzero(~held), np.flatnonzero(held)), bs=512, device='cpu', drop_last=False) # every training row is met
    s,_ = fit(dls)
    assert {(f.kind, f.table) for f in s.warnings} == {('dead', 'item_weight'), ('dead', 'item_bias')}
    f = s.warnings[0]
    assert f.value == pytest.approx(.1, abs=.001) and set(f.rows) <= dead and str(f.rows[0]) in f.message
    assert value(s, 'item_weight', 'never_updated') == pytest.approx(f.value)

def test_dead_rows_where_data_is_unknown():
    from fastcf.watch.diagnosis import View, diagnose
    assert [f.kind for f in diagnose(View('t', dict(never_updated=.1), shape=(100, 4), epoch=1))] == ['dead']

def test_huge_lr(plain):
    s,_ = fit(plain, 2, 1., wd=0.)
    found = {(f.kind, f.table): f for f in s.warnings}
    assert {('exploding', 'item_weight'), ('exploding', 'user_weight')} <= set(found)
    assert 'learning rate' in found['exploding', 'item_weight'].message and found['exploding', 'item_weight'].rows

def test_vanishing(plain):
    s,_ = fit(plain, 4, wd=60.)
    assert ('vanishing', 'item_weight') in kinds(s)

@pytest.mark.parametrize('whose', ['fastcf', 'fastai'])
def test_narrow_y_range(plain, ml, whose):
    if whose == 'fastcf':
        def narrow(m): m.y_range = (2.9, 3.1)
        s,_ = fit(plain, 5, 2e-2, narrow)
    else:
        l = silent(collab_learner(CollabDataLoaders.from_df(ml.ratings[ml.ratings.user <= 300], seed=0, bs=512, device=torch.device('cpu')), n_factors=20, y_range=(2.9, 3.1)))
        s = EmbeddingStats()
        l.fit_one_cycle(5, 2e-2, cbs=s)
    found = {f.kind: f for f in s.warnings}
    assert 'saturation' in found and found['saturation'].value > .1, s.stats.query("statistic == 'flat_share'")
    assert '(2.9, 3.1)' in found['saturation'].message and 'of the ratings lie outside' in found['saturation'].message and 'Widen' in found['saturation'].message

def test_one_bad_row(plain):
    bad = 7
    def spoil(m): m.item_weight.weight.data[bad, 3] = float('nan')
    s,l = fit(plain, 3, change=spoil, stop_on=['nan'])
    f = s.warnings[0]
    assert (f.kind, f.table, f.value, f.epoch) == ('nan', 'item_weight', 1, 0) and f.rows == [plain.classes['item'][bad]] and str(f.rows[0]) in f.message
    assert l.epoch == 0 and l.recorder.losses == [] # stopped before the first batch

def test_stopped_after_the_row_of_the_progress_table(plain):
    class Spoil(Callback):
        def after_train(self):
            if self.learn.epoch == 1: self.learn.model.user_bias.weight.data[3] = float('inf')
    l = silent(cf_learner(plain, 5, (0.5, 5.5), seed=0))
    s = EmbeddingStats(stop_on=['nan'])
    l.fit(9, cbs=[s, Spoil()])
    assert (s.warnings[0].table, s.warnings[0].rows, s.warnings[0].epoch) == ('user_bias', [plain.classes['user'][3]], 2) and len(l.recorder.values) == 2

def test_a_bad_rating_from_the_data(sim):
    "One NaN among the targets, past all checks: stopped in the middle of the epoch"
    dls = CFDataLoaders.from_df(sim, seed=1, bs=64, device='cpu')
    dls.train_ds.ratings[5] = float('nan')
    l = silent(cf_learner(dls, 6, (0.5, 5.5), seed=2, from_means=False)) # whose means, and so first values, would be NaN at once
    s = EmbeddingStats(every=1, stop_on=['nan'])
    l.fit(3, cbs=s)
    assert {f.kind for f in s.warnings} == {'nan'} and l.epoch < 2 and s.stats.epoch.max() % 1 > 0 # a NaN rating may be in the rows that drop_last leaves out

def test_popularity_copied(plain):
    counts = plain.counts()
    def copy(m): m.item_bias.weight.data[:, 0] = counts.float().add(1).log() * .3
    s,_ = fit(plain, 1, 1e-5, copy)
    f = only(s, 'popularity')
    assert f.table == 'item_bias' and f.value > .95 and 'popular' in f.message

def test_runaway_bias(plain):
    def wide(m): m.user_bias.weight.data[:, 0] = torch.linspace(-9, 9, len(m.user_bias.weight))
    s,_ = fit(plain, 1, 1e-5, wide)
    assert ('bias', 'user_bias') in kinds(s)

@pytest.mark.parametrize('seed', [0, 1])
def test_a_healthy_run_is_left_in_peace(ml, seed):
    "Ten seeds, with and without y_range, are run by benchmarks/stats_overhead.py"
    dls = CFDataLoaders.from_df(ml.ratings, seed=seed, device='cpu')
    s,l = EmbeddingStats(),silent(cf_learner(dls, y_range=(0.5, 5.5), seed=seed))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        l.fit_one_cycle(5, cbs=s)
    assert s.warnings == []

def test_told_once(plain):
    def wide(m): m.user_bias.weight.data[:, 0] = torch.linspace(-9, 9, len(m.user_bias.weight))
    l = silent(cf_learner(plain, 5, (0.5, 5.5), seed=0))
    wide(l.model)
    s = EmbeddingStats()
    with pytest.warns(UserWarning, match='run away'): l.fit(1, 1e-5, cbs=s)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        warnings.filterwarnings('ignore', '(?s).*The fit ends at RMSE') # of the learner, once a fit
        l.fit(1, 1e-5, cbs=s)

# --- sinks

class Lines(Sink):
    def __init__(self): self.frames = []
    def write(self, rows): self.frames.append(rows)

def test_csv_is_what_stats_says_and_appends(learn, tmp_path):
    s = EmbeddingStats(to='deep/s.csv')
    for _ in range(2): learn.fit(1, cbs=s)
    got = pd.read_csv(tmp_path/'deep/s.csv')
    pd.testing.assert_frame_equal(got, s.stats, check_dtype=False)
    (tmp_path/'other.csv').write_text('a,b\n1,2\n')
    with pytest.raises(ValueError, match='other columns'): learn.fit(1, cbs=EmbeddingStats(to=tmp_path/'other.csv'))
    assert (tmp_path/'other.csv').read_text() == 'a,b\n1,2\n'

@pytest.mark.parametrize('torn', ['', 'step,ep', ','.join(COLUMNS) + '\n1,2.0,t,s,1.', ','.join(COLUMNS)])
def test_csv_fixes_a_torn_file(tmp_path, torn):
    (tmp_path/'s.csv').write_text(torn)
    s = CSVSink('s.csv')
    s.start(tmp_path)
    s.write(pd.DataFrame([(1, 2., 't', 's', 3., False)], columns=COLUMNS))
    assert (tmp_path/'s.csv').read_text() == ','.join(COLUMNS) + '\n1,2.0,t,s,3.0,False\n'

def test_csv_survives_a_kill(tmp_path):
    code = textwrap.dedent('''
        import sys, torch
        torch.set_num_threads(1)
        from fastcf.data.sources import simulate_ratings
        from fastcf.data.loaders import CFDataLoaders
        from fastcf.learn.learner import cf_learner
        from fastcf.watch.embedding_stats import EmbeddingStats
        l = cf_learner(CFDataLoaders.from_df(simulate_ratings(60, 80, 1500, seed=3), seed=1, device='cpu', path=sys.argv[1]), 6, (0.5, 5.5))
        l.remove_cb(l.progress); l.logger = lambda *a: None
        l.fit(10**6, cbs=EmbeddingStats(every=1, to='s.csv'))
    ''')
    p,f = subprocess.Popen([sys.executable, '-c', code, tmp_path], stderr=subprocess.DEVNULL),tmp_path/'s.csv'
    for _ in range(3000):
        if f.exists() and f.stat().st_size > 50_000 or p.poll() is not None: break
        time.sleep(.1)
    p.kill()
    p.wait()
    CSVSink(f).start(tmp_path)
    got = pd.read_csv(f)
    assert len(got) > 300 and got.value.dtype == float and set(got.table) == {'user_weight', 'item_weight', 'user_bias', 'item_bias', 'model'}
    assert got.step.is_monotonic_increasing and got.step.nunique() >= 4

def test_tensorboard(learn, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    s = EmbeddingStats(to=TensorBoardSink(tmp_path/'tb'))
    for _ in range(2): learn.fit(1, cbs=s)
    values,hists = {},set()
    for f in (tmp_path/'tb').glob('events*'):
        acc = EventAccumulator(str(f)).Reload()
        hists |= set(acc.Tags()['histograms'])
        for tag in acc.Tags()['scalars']: values |= {(tag, e.step): e.value for e in acc.Scalars(tag)}
    want = s.stats[np.isfinite(s.stats.value)]
    for r in want.itertuples(): assert values[f'{r.table}/{r.statistic}', r.step] == pytest.approx(r.value, rel=1e-5, abs=1e-30)
    assert len(values) == len(want) and hists == {f'{t}/rows' for t in ('user_weight', 'item_weight', 'user_bias', 'item_bias')}
    meta = [f.read_text().splitlines() for f in (tmp_path/'tb').rglob('metadata.tsv')]
    assert any(set(m) == {f'T{i}' for i in learn.dls.classes['item']} for m in meta)

def test_wandb_offline(learn, tmp_path):
    import wandb
    s = EmbeddingStats(to=WandBSink('test', mode='offline', dir=str(tmp_path)))
    learn.fit(1, cbs=s)
    assert wandb.run is None
    data = next(tmp_path.rglob('*.wandb')).read_bytes()
    for w in (b'embeddings/item_weight/effective_rank', b'embeddings/user_bias/rows', b'embedding_step'): assert w in data, w
    run = wandb.init(project='mine', mode='offline', dir=str(tmp_path))
    try:
        learn.fit(1, cbs=EmbeddingStats(to=WandBSink()))
        assert wandb.run is run and run.summary['embeddings/item_weight/effective_rank'] > 1
    finally: run.finish()

@pytest.mark.parametrize('sink,extra', [(TensorBoardSink, 'tensorboard'), (WandBSink, 'wandb')])
def test_a_missing_extra_is_named(monkeypatch, sink, extra):
    monkeypatch.setitem(sys.modules, extra, None)
    with pytest.raises(ImportError, match=rf"pip install 'fastcf\[{extra}\]'"): sink()

def test_a_fourth_sink_and_several(learn, tmp_path):
    a,b = Lines(),Lines()
    s = EmbeddingStats(to=[a, b, tmp_path/'s.csv'])
    learn.fit(1, cbs=s)
    assert pd.concat(a.frames, ignore_index=True).equals(s.stats) and len(b.frames) == 2 and len(s.sinks) == 3
    assert as_sinks(None) == [] and isinstance(as_sinks('x.csv')[0], CSVSink)

# --- plots

def test_plots(learn):
    s = EmbeddingStats(every=4)
    with pytest.raises(ValueError, match='Fit with this callback'): s.plot_hist()
    learn.fit_one_cycle(2, cbs=s)
    panels = [a for a in s.plot().axes if a.get_visible()]
    assert panels[-1].get_title() == 'learning rate' and len(panels[-1].lines[0].get_xdata()) == 2 * len(learn.dls.train)
    assert {l.get_text() for l in s.plot(['effective_rank'], ['item_weight']).legends[0].get_texts()} == {'item_weight'}
    for t in ('item_weight', 'user_bias'): s.plot_hist(t)
    assert len(s.plot_spectrum('user_weight').lines) == min(8, s.stats.step.nunique())
    texts = {t.get_text() for t in s.plot_map(10).texts}
    assert texts and texts <= {f'T{i}' for i in range(80)}
    first = s.history.maps['item_weight'][1][0]
    assert 'mine' in {t.get_text() for t in s.plot_map(10, {first: 'mine'}).texts}

def test_live_plot_in_a_notebook(tmp_path):
    "One picture for many looks"
    from nbclient import NotebookClient
    from nbformat.v4 import new_code_cell, new_notebook
    code = textwrap.dedent('''
        import warnings; warnings.simplefilter('ignore')
        from fastcf.data.sources import simulate_ratings
        from fastcf.data.loaders import CFDataLoaders
        from fastcf.learn.learner import cf_learner
        from fastcf.watch.embedding_stats import EmbeddingStats
        l = cf_learner(CFDataLoaders.from_df(simulate_ratings(60, 80, 1500, seed=3), seed=1, device='cpu'), 6, (0.5, 5.5))
        l.remove_cb(l.progress); l.logger = lambda *a: None
        l.fit(8, cbs=EmbeddingStats(every=4, live=True))
    ''')
    nb = new_notebook(cells=[new_code_cell(code)])
    NotebookClient(nb, timeout=120, kernel_name='python3').execute()
    assert [o.output_type for o in nb.cells[0].outputs if 'image/png' in o.get('data', {})] == ['display_data']

# --- neighbours

def test_row_counts(learn):
    c = RowCounts()
    learn.dls.train.drop_last = False
    learn.fit(2, cbs=c)
    assert torch.equal(c.counts['item_weight'], 2 * learn.dls.counts()) and torch.equal(c.counts['user_bias'], 2 * learn.dls.counts('user'))
    assert not learn.model.item_weight._forward_hooks
    learn.validate(); learn.lr_find(show_plot=False, num_it=5)
    assert c.counts['item_weight'].sum() == 2 * len(learn.dls.train_ds)

def test_best_tables(learn):
    kept = []
    class Keep(Callback):
        order = 70
        def after_epoch(self): kept.append(self.learn.model.item_weight.weight.detach().clone())
    b = BestTables('rmse')
    learn.fit(6, 5e-2, wd=0., cbs=[b, Keep()])
    best = int(np.argmin([v[2] for v in learn.recorder.values]))
    assert b.best_epoch == best < 5 and torch.equal(learn.model.item_weight.weight, kept[best])
    s = EmbeddingStats(show=['item_weight.effective_rank'])
    b = BestTables('item_weight.effective_rank')
    learn.fit(2, cbs=[s, b])
    assert b.comp is np.greater and b.best_epoch in (0, 1)

def test_average_tables_beside_a_plain_loop(learn):
    steps = []
    class Keep(Callback):
        order = AverageTables.order # after the decay by row
        def after_step(self): steps.append(self.learn.model.item_weight.weight.detach().clone())
    learn.fit(2, cbs=[AverageTables(.9, every=3), Keep()])
    mean,n = 0,0
    for i,w in enumerate(steps, 1):
        if i % 3 == 0: mean,n = .9 * mean + .1 * w,n + 1
    torch.testing.assert_close(learn.model.item_weight.weight.detach(), mean / (1 - .9 ** n), rtol=1e-4, atol=1e-6)
    for o in (dict(decay=1.), dict(every=0)):
        with pytest.raises(ValueError, match=next(iter(o))): AverageTables(**o)

def test_average_of_sweeps(learn):
    before = learn.model.item_weight.weight.detach().clone()
    learn.fit(2, cbs=[Sweep(), AverageTables(.5)])
    torch.testing.assert_close(learn.model.item_weight.weight.detach(), before * (.5 * .5 * 1.5 + .5 * 2.25) / .75)
