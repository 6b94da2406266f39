"Two and three processes beside one: the same losses, tables, metrics and predictions; a process that dies ends the run"
import numpy as np, pandas as pd, pytest, torch
import torch.distributed as dist
from fastcf.scale import distributed
from fastcf.data.loaders import CFDataLoaders
from fastcf.data.sources import simulate_ratings
from fastcf.learn.learner import cf_learner
from processes import start as processes_of

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not (dist.is_available() and dist.is_gloo_available()), reason='this PyTorch is built without gloo')]

SCRIPT = '''
import os, sys, time, warnings
warnings.filterwarnings('ignore')
import torch
from fastai.callback.core import Callback
from fastai.callback.training import GradientAccumulation, GradientClip
from fastai.torch_core import rank_distrib
from fastcf.data.loaders import CFDataLoaders
from fastcf.data.sources import simulate_ratings
from fastcf.learn.learner import cf_learner
from fastcf.learn import predict
from fastcf.scale.distributed import LostProcessError
from fastcf.scale.fused import FusedSGD
from fastcf.scale import rowwise
from fastcf.watch.embedding_stats import EmbeddingStats
torch.set_num_threads(1)
out,kinds = sys.argv[1:3]
rank = rank_distrib()

class Die(Callback):
    def before_batch(self):
        if self.training and self.learn.train_iter == 5 and rank == 1: os.kill(os.getpid(), 9)
class Hang(Callback):
    def before_batch(self):
        if self.training and self.learn.train_iter == 5 and rank == 1: time.sleep(300)

CALLBACKS = dict(callbacks=lambda: [GradientClip(.5)], accumulate=lambda: [GradientAccumulation(100)], die=lambda: [Die()], hang=lambda: [Hang()], engine=lambda: [FusedSGD()], stats=lambda: [EmbeddingStats(to=f'{out}.csv')])

def go(kind):
    df = simulate_ratings(10 if kind == 'few' else 60, 80, 300 if kind == 'few' else 800, 4, seed=3)
    dls = CFDataLoaders.from_df(df, seed=0, bs=50, device='cpu', drop_last=False, val_bs=64)
    torch.manual_seed(rank) # tables that are not the same: those of process 0 count
    learn = cf_learner(dls, y_range=(0, 6), sparse=kind == 'rows')
    with learn.no_bar(), learn.no_logging(), learn.data_parallel(timeout=8 if kind in ('die', 'hang') else 200):
        learn.fit(1, 1e-2, cbs=CALLBACKS.get(kind, list)())
        losses,values = torch.stack([torch.as_tensor(o) for o in learn.recorder.losses]),[list(o) for o in learn.recorder.values]
        record = list(learn.validate())
        preds,targets = learn.get_preds()
    return dict(values=values, losses=losses, record=record, preds=preds, targets=targets, tables=[p.detach() for p in learn.model.parameters()])

res = {}
for kind in kinds.split(','):
    try: res[kind] = go(kind)
    except LostProcessError as e:
        print(f'LOST {rank}: {e}', flush=True)
        os._exit(3)
    except ValueError as e: res[kind] = str(e)
torch.save(res, f'{out}.{rank}')
'''

def start(folder, processes, kinds): return processes_of(folder, SCRIPT, processes, folder/f'run{processes}', kinds)

KINDS = 'tables rows callbacks few stats engine accumulate'.split()

@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    "What each process of a run of one, of two and of three has got"
    folder,res = tmp_path_factory.mktemp('runs'),{}
    for processes in (1, 2, 3):
        started = start(folder, processes, 'few' if processes == 3 else ','.join(KINDS))
        said = [p.communicate(timeout=600)[0] for p in started]
        assert all(p.returncode == 0 for p in started), said
        res[processes] = [torch.load(f'{folder}/run{processes}.{r}', weights_only=False) for r in range(processes)]
        if processes < 3: res[f'csv{processes}'] = pd.read_csv(f'{folder}/run{processes}.csv')
    return res

@pytest.mark.parametrize('processes,kind', [(2, 'tables'), (2, 'rows'), (2, 'callbacks'), (2, 'few'), (2, 'stats'), (3, 'few')])
def test_several_processes_are_one(runs, processes, kind):
    one,ranks = runs[1][0][kind],[o[kind] for o in runs[processes]]
    atol = 1e-4 if kind == 'rows' else 1e-5 # duplicates are summed in another order, and Adam's eps is small beside it
    for o in ranks:
        np.testing.assert_allclose(o['losses'], one['losses'], atol=atol)
        np.testing.assert_allclose(np.array(o['values']), np.array(one['values']), atol=atol)
        np.testing.assert_allclose(o['record'], one['record'], atol=atol)
        torch.testing.assert_close(o['preds'], one['preds'], atol=10 * atol, rtol=0)
        assert torch.equal(o['targets'], one['targets'])
        for a,b in zip(o['tables'], ranks[0]['tables']): assert torch.equal(a, b) # bit for bit among themselves

def test_statistics_are_written_once(runs):
    assert runs['csv1'].shape == runs['csv2'].shape and list(runs['csv1'].statistic) == list(runs['csv2'].statistic)

def test_an_engine_is_refused(runs):
    for o in runs[2]: assert 'data_parallel: FusedSGD does an epoch in its own way' in o['engine'] and 'data_parallel: GradientAccumulation counts' in o['accumulate']

@pytest.mark.parametrize('kind', ['die', 'hang'])
def test_a_lost_process_ends_the_run_with_a_word(tmp_path, kind):
    first,second = start(tmp_path, 2, kind)
    said,_ = first.communicate(timeout=600)
    second.kill()
    second.communicate()
    assert first.returncode == 3 and 'Process 0 of 2: another process did not answer' in said, said

def test_one_process_is_as_before():
    learn = cf_learner(CFDataLoaders.from_df(simulate_ratings(60, 80, 1500, 4, seed=3), seed=0, device='cpu'), seed=0)
    cbs = list(learn.cbs)
    with learn.data_parallel() as same: assert same is learn and list(learn.cbs) == cbs
