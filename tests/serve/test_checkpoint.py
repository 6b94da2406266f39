"A fit that was killed goes on where it stopped, bit for bit, and what is left of a file is whole"
import os, random, signal, sys, time, warnings
import numpy as np, pandas as pd, pytest, torch
from fastai.callback.core import Callback
from fastai.callback.tracker import EarlyStoppingCallback
import fastcf.all # every method of a learner
from fastcf.bayes.engines import ALS, Gibbs
from fastcf.rank.ials import IALS
from fastcf.scale.fused import FusedSGD
from fastcf.data.loaders import CFDataLoaders
from fastcf.data.sources import simulate_ratings
from fastcf.learn.learner import cf_learner
from fastcf.serve.checkpoint import CheckpointCallback, checkpoints, decode, encode, read_checkpoint, write_checkpoint
from fastcf.watch.embedding_stats import EmbeddingStats
from conftest import PowerCut

def learner(path, seed=0, factors=4, y_range=None, **kwargs):
    users = pd.DataFrame(dict(user=range(40), age=np.arange(40) % 7))
    df = simulate_ratings(40, 30, 500, seed=seed)
    df['time'] = np.arange(len(df)) * 3600
    dls = CFDataLoaders.from_df(df, seed=0, bs=50, path=path, users=users, time_name='time', device='cpu')
    return cf_learner(dls, factor_count=factors, y_range=y_range, seed=0, **kwargs)

def fit(learn, how, *cbs):
    with learn.no_bar(), learn.no_logging(): how(learn, list(cbs))
    return learn

def same(a, b):
    if a.has_choice or b.has_choice: assert torch.equal(a.choice.users, b.choice.users) and torch.equal(a.choice.items, b.choice.items) and a.choice.curve == b.choice.curve
    for x,y in zip(a.model.parameters(), b.model.parameters(), strict=True): assert torch.equal(x, y)
    for k in ('lrs', 'losses', 'iters'): assert [float(o) for o in getattr(a.recorder, k)] == [float(o) for o in getattr(b.recorder, k)], k
    assert [list(o) for o in a.recorder.values] == [list(o) for o in b.recorder.values]

HOW = {'one cycle': lambda l, cbs: l.fit_one_cycle(3, 1e-2, cbs=cbs), 'flat': lambda l, cbs: l.fit(3, 1e-2, cbs=cbs), 'ALS': lambda l, cbs: l.fit(4, cbs=[ALS(), *cbs]),
       'IALS': lambda l, cbs: l.fit(5, cbs=[IALS(factor_count=4), *cbs]), 'FusedSGD': lambda l, cbs: l.fit(5, cbs=[FusedSGD(), *cbs]),
       'Gibbs': lambda l, cbs: l.fit(8, cbs=[Gibbs(burn_in=3, seed=1, who_rated=True, time_bins=(86_400,)), *cbs]), 'ALS on a sigmoid': lambda l, cbs: l.fit(4, cbs=[ALS(), *cbs])}

@pytest.mark.parametrize('how', ['one cycle', 'flat'])
def test_a_fit_goes_on_bit_for_bit(tmp_path, how):
    whole = fit(learner(tmp_path), HOW[how])
    n = len(whole.recorder.losses)
    for step in random.Random(0).sample(range(2, n), 10):
        with pytest.raises(KeyboardInterrupt): fit(learner(tmp_path), HOW[how], CheckpointCallback('run', every=1), PowerCut(step))
        torch.manual_seed(step); np.random.seed(step)
        same(fit(learner(tmp_path), HOW[how], CheckpointCallback('run', every=3, resume=True)), whole)

@pytest.mark.parametrize('how', ['ALS', 'IALS', 'FusedSGD', 'Gibbs', 'ALS on a sigmoid'])
def test_an_engine_goes_on_bit_for_bit(tmp_path, how):
    make = lambda: learner(tmp_path, y_range=(.5, 5.5) if 'sigmoid' in how else None)
    whole = fit(make(), HOW[how])
    for epoch in range(len(whole.recorder.values) - 1):
        with pytest.raises(KeyboardInterrupt): fit(make(), HOW[how], CheckpointCallback('run'), PowerCut(epoch=epoch))
        torch.manual_seed(epoch)
        resumed = fit(make(), HOW[how], CheckpointCallback('run', resume='auto'))
        same(resumed, whole)
        if how == 'Gibbs':
            assert torch.equal(resumed.posterior.chain, whole.posterior.chain) and len(resumed.posterior.states) == len(whole.posterior.states)
            u,i = (list(v[:5]) for v in (whole.dls.catalog.user, whole.dls.catalog.item))
            pd.testing.assert_frame_equal(resumed.posterior.predict(u, i, interval=.9), whole.posterior.predict(u, i, interval=.9))

def test_statistics_go_on(tmp_path):
    def run(*cbs):
        l = learner(tmp_path)
        stats = EmbeddingStats(every=4)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            try: fit(l, HOW['one cycle'], stats, *cbs)
            except KeyboardInterrupt: pass
        return l,stats
    whole,expected = run()
    for step in (5, 8, 13):
        run(CheckpointCallback('run', every=1), PowerCut(step))
        resumed,stats = run(CheckpointCallback('run', resume=True))
        same(resumed, whole)
        pd.testing.assert_frame_equal(stats.stats, expected.stats)

def test_trackers_and_training_metrics_go_on(tmp_path):
    def run(*cbs):
        l = learner(tmp_path)
        l.recorder.train_metrics = True
        return fit(l, lambda l, cbs: l.fit(6, 5e-2, cbs=cbs), EarlyStoppingCallback(monitor='valid_loss', patience=2), *cbs)
    whole = run()
    for step in (10, 14, 21):
        with pytest.raises(KeyboardInterrupt): run(CheckpointCallback('run', every=1), PowerCut(step))
        same(run(CheckpointCallback('run', resume=True)), whole)

def test_two_epochs_and_two_are_four(tmp_path):
    flat = lambda n: lambda l, cbs: l.fit(n, 1e-2, cbs=cbs)
    fit(learner(tmp_path), flat(2), CheckpointCallback('run', resume='auto'))
    same(fit(learner(tmp_path), flat(4), CheckpointCallback('run', resume='auto')), fit(learner(tmp_path), flat(4)))
    with pytest.warns(UserWarning, match='was finished; nothing was left'): done = fit(learner(tmp_path), flat(4), CheckpointCallback('run', resume='auto'))
    assert len(done.recorder.values) == 4

def test_without_resume_a_fit_starts_anew(tmp_path):
    cb = CheckpointCallback('run', every=2, keep=3)
    fit(learner(tmp_path), HOW['flat'], cb)
    left = checkpoints(tmp_path/'run')
    assert len(left) == 3 and left[0].name == 'step-000003-00000000.ckpt' and [o.name for o in (tmp_path/'run').iterdir() if o not in left] == []
    same(fit(learner(tmp_path), HOW['flat'], CheckpointCallback('run')), fit(learner(tmp_path), HOW['flat']))

@pytest.mark.parametrize('change,words', [
    (lambda p: fit(learner(p, seed=1), HOW['one cycle'], CheckpointCallback('run', resume='auto')), 'other users or items|other training ratings'),
    (lambda p: fit(learner(p, factors=5), HOW['one cycle'], CheckpointCallback('run', resume='auto')), 'tables have other shapes'),
    (lambda p: fit(learner(p), lambda l, cbs: l.fit_one_cycle(5, cbs=cbs), CheckpointCallback('run', resume='auto')), 'a fit of 3 epochs, this is one of 5'),
    (lambda p: fit(learner(p), HOW['ALS'], CheckpointCallback('run', resume='auto')), 'callbacks|epochs'),
    (lambda p: fit(learner(p), HOW['flat'], CheckpointCallback('nowhere', resume=True)), 'there is no checkpoint in')])
def test_another_fit_is_refused(tmp_path, change, words):
    fit(learner(tmp_path), HOW['one cycle'], CheckpointCallback('run'))
    before = checkpoints(tmp_path/'run')
    with pytest.raises(ValueError, match=words): change(tmp_path)
    assert checkpoints(tmp_path/'run') == before

@pytest.mark.parametrize('every', [0, -1, 1.5, 'often', '10 days', None])
def test_every_is_checked(every):
    with pytest.raises(ValueError, match='every: expected'): CheckpointCallback('x', every=every)

@pytest.mark.parametrize('every,seconds', [('10 min', 600), ('30s', 30), ('1.5 hours', 5400), ('0.0001 s', .0001)])
def test_every_may_be_a_time(every, seconds): assert CheckpointCallback('x', every=every).seconds == pytest.approx(seconds)

def test_a_time_that_has_passed(tmp_path):
    fit(learner(tmp_path), HOW['flat'], CheckpointCallback('run', every='0.0000001 s', keep=100))
    assert len(checkpoints(tmp_path/'run')) == 3 * len(learner(tmp_path).dls.train)

def test_searches_and_predictions_write_nothing(tmp_path):
    l = learner(tmp_path, cbs=CheckpointCallback('run'))
    with l.no_bar(), l.no_logging(): l.lr_find(show_plot=False); l.get_preds(); l.validate()
    assert checkpoints(tmp_path/'run') == []

class Evil:
    def __reduce__(self): return os.mkdir, ('evil',)

def test_code_is_not_run_and_what_is_cut_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(learner(tmp_path), HOW['flat'], CheckpointCallback('run', keep=3))
    newest,middle,oldest = checkpoints(tmp_path/'run')
    torch.save(Evil(), newest)
    middle.write_bytes(middle.read_bytes()[:-100])
    with pytest.warns(UserWarning, match='not a whole checkpoint'): d = read_checkpoint(tmp_path/'run')
    assert d['at'] == [1, 0] and not (tmp_path/'evil').exists()
    with pytest.warns(UserWarning): same(fit(learner(tmp_path), HOW['flat'], CheckpointCallback('run', resume=True)), fit(learner(tmp_path), HOW['flat']))

@pytest.mark.parametrize('o', [1, 2.5, 'a', None, True, [1, (2, {3})], {'a': [torch.ones(2)], (1, 'b'): None}, np.arange(3), np.float32(2)], ids=repr)
def test_values_come_back(o):
    back = decode(encode(o))
    assert str(back) == str(o if not isinstance(o, np.generic) else o.item())

def test_a_class_of_somebody_else_is_not_made():
    with pytest.raises(ValueError, match='not a class of this fastcf'): decode(('object', 'os:system', {}))
    with pytest.raises(ValueError, match='not a class of this fastcf'): decode(('object', 'fastcf.core:np', {}))

LINUX = pytest.mark.skipif(sys.platform != 'linux', reason='forks')

def kill_while_writing(tmp_path, n, seed):
    "Write checkpoints in another process, kill it, read: which state was there"
    rng,folder = random.Random(seed),tmp_path/'run'
    states = [dict(n=j, t=torch.full((20_000,), float(j))) for j in range(4)]
    write_checkpoint(folder/'step-000000-00000000.ckpt', states[0])
    for _ in range(n):
        if not (pid := os.fork()):
            try:
                while True:
                    for j,s in enumerate(states):
                        write_checkpoint(folder/f'step-000000-{j:08d}.ckpt', s)
                        for p in checkpoints(folder)[2:]: p.unlink()
            finally: os._exit(1)
        time.sleep(rng.random() * .05)
        os.kill(pid, signal.SIGKILL); os.waitpid(pid, 0)
        d = read_checkpoint(folder)
        assert (d['t'] == d['n']).all() and len(d['t']) == 20_000

@LINUX
@pytest.mark.filterwarnings('error')
def test_killed_while_writing(tmp_path): kill_while_writing(tmp_path, 25, 0)

COUNT = int(os.environ.get('FASTCF_COUNT', 0)) # of kills in the slow tests, where there is time for more

@LINUX
@pytest.mark.slow
@pytest.mark.filterwarnings('error')
def test_killed_while_writing_often(tmp_path): kill_while_writing(tmp_path, COUNT or 100, 1)

class Slow(Callback):
    "A fit that takes long enough to be killed in its middle"
    order = 1500
    def after_batch(self): time.sleep(.003)
    def after_epoch(self): time.sleep(.02)

def kill_fits(tmp_path, how, n, seed):
    "Fit in another process, kill it at any moment, go on in this one: how many were in their middle"
    rng,whole,middle = random.Random(seed),fit(learner(tmp_path), HOW[how]),0
    start = time.monotonic()
    fit(learner(tmp_path), HOW[how], Slow(), CheckpointCallback('run', every=3))
    span = time.monotonic() - start
    for _ in range(n):
        for p in checkpoints(tmp_path/'run'): p.unlink()
        if not (pid := os.fork()):
            try: fit(learner(tmp_path), HOW[how], Slow(), CheckpointCallback('run', every=3))
            finally: os._exit(0)
        time.sleep(rng.random() * span)
        os.kill(pid, signal.SIGKILL); os.waitpid(pid, 0)
        left = checkpoints(tmp_path/'run')
        middle += bool(left) and left[0].name < f'step-{whole.n_epoch:06d}'
        with warnings.catch_warnings():
            warnings.filterwarnings('error', 'not a whole checkpoint')
            same(fit(learner(tmp_path), HOW[how], CheckpointCallback('run', every=3, resume='auto')), whole)
    return middle

@LINUX
@pytest.mark.slow
@pytest.mark.parametrize('how', ['one cycle', 'ALS', 'IALS', 'Gibbs', 'FusedSGD'])
def test_a_killed_fit_goes_on_bit_for_bit(tmp_path, how):
    n = min(COUNT or 6, 20)
    middle = kill_fits(tmp_path, how, n, 3)
    print(f'\n{how}: {n} of {n} the same, {middle} of them killed between the first checkpoint and the end')
