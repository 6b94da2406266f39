"Tables cut by rows over two and three processes beside whole ones: losses, predictions, memory, checkpoints"
import numpy as np, pytest, torch
import torch.distributed as dist
from torch import nn
from fastcf.data.loaders import CFDataLoaders
from fastcf.data.sources import simulate_ratings
from fastcf.learn.learner import cf_learner
from fastcf.scale import shard_table, sharded
from processes import start, whole_run

SCRIPT = '''
import os, sys, warnings
warnings.filterwarnings('ignore')
import numpy as np, pandas as pd, torch
from fastai.callback.core import Callback
from fastai.callback.training import GradientClip
from fastai.torch_core import num_distrib,rank_distrib
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from fastcf.all import *
torch.set_num_threads(1)
out,kinds,source = sys.argv[1:4]
rank,world = rank_distrib(),num_distrib() or 1

class Die(Callback):
    def before_batch(self):
        if self.training and self.learn.train_iter == 5 and rank == 1: os.kill(os.getpid(), 9)

class Largest(TorchDispatchMode):
    "The largest tensor that is made"
    numel = 0
    def __torch_dispatch__(self, f, types, args=(), kwargs=None):
        res = f(*args, **(kwargs or {}))
        self.numel = max([self.numel, *(o.numel() for o in tree_leaves(res) if isinstance(o, torch.Tensor) and o.layout is torch.strided and not o.is_meta)])
        return res

OPTS = dict(dense=dict(sparse=False), rows=dict(sparse=True), adagrad=dict(opt_func=RowwiseAdagrad), sgd=dict(opt_func=RowwiseSGD), clip=dict(sparse=True), die=dict(sparse=True))

def loaders(users=61, items=83, n=900, **kwargs):
    return CFDataLoaders.from_df(simulate_ratings(users, items, n, 4, seed=3), seed=0, device='cpu', drop_last=False, val_bs=64, **{'bs': 50, **kwargs})

def fitted(learn, epochs=1, **kwargs):
    with learn.no_bar(), learn.no_logging(): learn.fit(epochs, 1e-2, **kwargs)
    return [float(o) for o in learn.recorder.losses],[list(o) for o in learn.recorder.values]

def tables(learn): return [p.detach().clone() for p in learn.model.parameters()]
def pairs(learn): return learn.dls.train.decode_batch(next(iter(learn.dls.train.new(shuffle=False))), 50).iloc[:, :2]

def go(kind):
    dls = loaders()
    torch.manual_seed(rank) # tables that are not the same: those of process 0 count
    learn = cf_learner(dls, 6, y_range=(0, 6), from_means=False, path=out, **OPTS[kind])
    cbs = dict(clip=lambda: [GradientClip(.01)], die=lambda: [Die()]).get(kind, list)()
    res = {}
    with learn.sharded(timeout=8 if kind == 'die' else 200):
        res['losses'],res['values'] = fitted(learn, cbs=cbs)
        res['record'] = list(learn.validate())
        res['within'] = learn.predict(pairs(learn)).prediction.to_numpy()
        res['top'] = learn.recommend(pairs(learn).iloc[:3, 0].unique().tolist(), 5, rank_by='rating')
        res['held'] = [len(p) for p in learn.model.parameters()]
        res['state'] = [len(v) for s in getattr(learn.opt, 'opt', learn.opt).state.values() for v in s.values() if isinstance(v, torch.Tensor) and v.ndim and v.shape[-1] in (1, 6)]
    res['after'] = learn.predict(pairs(learn)).prediction.to_numpy()
    res['tables'] = tables(learn)
    res['again'] = fitted(learn)[0] # whole again, with all that the optimizer knew
    return res

def means():
    "RowDecay, which pulls each row by its own ratings"
    learn = cf_learner(loaders(), 6, y_range=(0, 6), sparse=False, from_means=True, seed=0)
    with learn.sharded(timeout=200): losses = fitted(learn)[0]
    return dict(losses=losses, tables=tables(learn))

def few():
    "Fewer items than processes, batches of one user, whose rows are one process's, and the same pair's rows again and again"
    df = pd.DataFrame({'user': np.repeat(np.arange(7), 2), 'item': [0, 1] * 7, 'rating': np.arange(14) % 5 + 1.})
    dls = CFDataLoaders.from_df(df, splitter=lambda d: (np.arange(12), np.arange(12, 14)), bs=2, shuffle=False, device='cpu')
    res = {}
    for kind in ('dense', 'rows', 'adagrad'):
        learn = cf_learner(dls, 3, y_range=(0, 6), from_means=False, seed=0, **OPTS[kind])
        with learn.sharded(timeout=200): losses,values = fitted(learn, 2)
        res[kind] = dict(losses=losses, values=values, tables=tables(learn), first=learn.predict(0, 0))
    return res

def repeated():
    "Rows several times in a batch, also of a shape of two dimensions; a row that is not there"
    learn = cf_learner(loaders(), 6, y_range=(0, 6), from_means=False, seed=0)
    rows = torch.tensor([[0, 0, 60], [0, 59, 0]])
    with learn.sharded(timeout=200):
        table = learn.model.user_weight
        got = table(rows)
        (got.sum() / world).backward()
        own = own_rows(table)
        grad = own[0].grad if world == 1 else table.gather(own[0].grad)
        try: table(torch.tensor([61])); fault = None
        except IndexError as e: fault = str(e)
        faults = [fault]
        if world > 1:
            for f in (lambda: learn.model.state_dict(), lambda: learn.model.train() and table.weight, lambda: fitted(learn, cbs=EmbeddingStats()), lambda: fitted(learn, cbs=FusedSGD())):
                try: f()
                except (RuntimeError, ValueError) as e: faults.append(str(e))
    return dict(got=got.detach(), grad=grad, faults=faults)

class Twice(nn.Module):
    "A table under two names, beside one that is not cut by rows alone"
    def __init__(self, users, items):
        super().__init__()
        self.likes = self.again = get_embeddings(users, 4)
        self.item,self.out = get_embeddings(items, 4),nn.Linear(4, 1)
    def forward(self, users, items): return self.out(self.likes(users) * self.item(items) + self.again(users)).squeeze(1)

def twice():
    make = lambda d: Twice(len(d.catalog.user), len(d.catalog.item))
    learn = cf_learner(loaders(), model=make, seed=0)
    with learn.sharded(timeout=200): losses = fitted(learn, 2)[0]
    res = dict(losses=losses, tables=tables(learn), same=learn.model.likes is learn.model.again)
    learn.model.again = nn.Embedding(*learn.model.likes.weight.shape)
    learn.model.again.weight = learn.model.likes.weight
    try:
        with learn.sharded(timeout=200): pass
    except ValueError as e: res['fault'] = str(e)
    return res

def never_whole():
    "Tables that no process ever has whole"
    dls = loaders(3001, 2003, 4000, bs=32)
    learn = cf_learner(dls, model=sharded_dot_bias(20, y_range=(0, 6)), sparse=True, seed=5, metrics=[])
    with Largest() as most:
        with learn.sharded(timeout=200): fitted(learn, cbs=[])
        preds = learn.predict(pairs(learn)).prediction.to_numpy()
    with evaluating(learn.model): whole = [m.weight.detach().clone() for m in learn.model.children()]
    return dict(largest=most.numel, preds=preds, whole=whole, held=[len(p) for p in learn.model.parameters()])

def save(kind):
    learn = cf_learner(loaders(), 6, y_range=(0, 6), from_means=False, seed=0, path=out, **OPTS[kind])
    with learn.sharded(timeout=200):
        fitted(learn)
        learn.save_shards(f'{kind}{world}')
        losses = fitted(learn)[0]
    return dict(losses=losses, tables=tables(learn))

def load(kind):
    learn = cf_learner(loaders(), 6, y_range=(0, 6), from_means=False, seed=9, path=out, **OPTS[kind])
    with learn.sharded(timeout=200):
        learn.load_shards(f'{kind}{source}')
        losses = fitted(learn)[0]
    return dict(losses=losses, tables=tables(learn))

res = {}
for kind in kinds.split(','):
    name,_,arg = kind.partition(':')
    try: res[kind] = go(kind) if kind in OPTS else globals()[name](*([arg] if arg else []))
    except LostProcessError as e:
        print(f'LOST {rank}: {e}', flush=True)
        os._exit(3)
torch.save(res, f'{out}/{kinds[:4]}{world}.{rank}')
'''

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not (dist.is_available() and dist.is_gloo_available()), reason='this PyTorch is built without gloo')]
OPTS = 'dense rows adagrad sgd clip'.split()
KINDS = [*OPTS, 'means', 'few', 'repeated', 'twice', 'never_whole']
SAVED = 'dense', 'rows', 'adagrad'

@pytest.fixture(scope='module')
def folder(tmp_path_factory): return tmp_path_factory.mktemp('shards')

@pytest.fixture(scope='module')
def runs(folder):
    "What each process of a run of one, of two and of three has got"
    res = {}
    for world in (1, 2, 3):
        kinds = ','.join([*KINDS, *(f'save:{o}' for o in SAVED)])
        whole_run(folder, SCRIPT, world, folder, kinds, '-')
        res[world] = [torch.load(folder/f'{kinds[:4]}{world}.{r}', weights_only=False) for r in range(world)]
    return res

def _close(a, b, atol): np.testing.assert_allclose(np.array(a), np.array(b), atol=atol, rtol=0)
def _close_all(many, others, atol):
    for a,b in zip(many, others): torch.testing.assert_close(a, b, atol=atol, rtol=0)
ATOL = dict(dense=1e-5, sgd=1e-5, adagrad=1e-4, rows=1e-4, clip=1e-4) # Adam's and Adagrad's first steps go by the sign of what may be rounding

@pytest.mark.parametrize('world', [2, 3])
@pytest.mark.parametrize('kind', OPTS)
def test_cut_tables_train_as_whole_ones(runs, kind, world):
    one,atol = runs[1][0][kind],ATOL[kind]
    for o in (r[kind] for r in runs[world]):
        for k in ('losses', 'values', 'record', 'again'): _close(o[k], one[k], atol)
        for k in ('within', 'after'): _close(o[k], one[k], 10 * atol)
        _close(o['within'], o['after'], 1e-6)
        assert o['top'].iloc[:, :2].equals(runs[world][0][kind]['top'].iloc[:, :2]) and len(o['top']) == len(one['top'])
        for a,b,first in zip(o['tables'], one['tables'], runs[world][0][kind]['tables']):
            assert torch.equal(a, first)
            torch.testing.assert_close(a, b, atol=10 * atol, rtol=0)

@pytest.mark.parametrize('world', [2, 3])
@pytest.mark.parametrize('kind', OPTS)
def test_each_process_holds_its_share(runs, kind, world):
    for r,o in enumerate(o[kind] for o in runs[world]):
        shares = [b - a for a,b in (shard_table.share_of(n, r, world) for n in runs[1][0][kind]['held'])]
        assert sorted(set(o['held'])) == sorted(set(shares)) and set(o['state']) <= set(shares)
        if kind != 'sgd': assert o['state']

def test_decay_by_row_pulls_own_rows(runs):
    for world in (2, 3):
        for o in runs[world]:
            _close(o['means']['losses'], runs[1][0]['means']['losses'], 1e-5)
            _close_all(o['means']['tables'], runs[1][0]['means']['tables'], 1e-4)

@pytest.mark.parametrize('world', [2, 3])
def test_fewer_rows_than_processes_and_batches_of_one_owner(runs, world):
    for kind,one in runs[1][0]['few'].items():
        for o in (r['few'][kind] for r in runs[world]):
            _close(o['losses'], one['losses'], 1e-4)
            _close(o['first'], one['first'], 1e-3)
            _close_all(o['tables'], one['tables'], 1e-3)

def test_a_table_under_two_names_beside_a_layer(runs):
    one = runs[1][0]['twice']
    for world in (2, 3):
        for o in (r['twice'] for r in runs[world]):
            assert o['same'] and 'two tables of this model share their weights' in o['fault']
            _close(o['losses'], one['losses'], 1e-4)
            _close_all(o['tables'], one['tables'], 1e-3)

def test_repeated_rows_and_refusals(runs):
    one = runs[1][0]['repeated']
    for world in (2, 3):
        for o in (r['repeated'] for r in runs[world]):
            torch.testing.assert_close(o['got'], one['got'], atol=0, rtol=0)
            torch.testing.assert_close(o['grad'], one['grad'], atol=1e-6, rtol=0)
            for said,word in zip(o['faults'], ('rows: expected row numbers from 0 to 60', 'learn.save_shards(folder)', 'weight: this asks for a whole table', 'sharded: EmbeddingStats needs', 'sharded: FusedSGD')): assert word in said

def test_no_process_ever_has_a_whole_table(runs):
    for world in (1, 2, 3):
        for r,o in enumerate(x['never_whole'] for x in runs[world]):
            assert o['held'] == [b - a for a,b in (shard_table.share_of(n, r, world) for n in runs[1][0]['never_whole']['held'])]
            _close(o['preds'], runs[1][0]['never_whole']['preds'], 1e-3)
            _close_all(o['whole'], runs[1][0]['never_whole']['whole'], 1e-3)
    share = lambda world: max(r['never_whole']['largest'] for r in runs[world])
    users = runs[1][0]['never_whole']['held'][0]
    assert share(1) >= 2 * 20 * users # both means of Adam are the largest thing there is
    assert share(2) <= 2 * 20 * -(-users // 2) and share(3) <= 2 * 20 * -(-users // 3)

@pytest.mark.parametrize('into', [1, 3])
@pytest.mark.parametrize('kind', SAVED)
def test_a_checkpoint_of_two_goes_on_in_another_number(runs, folder, kind, into):
    done = f'load{into}.0'
    if not (folder/done).exists(): whole_run(folder, SCRIPT, into, folder, ','.join(f'load:{o}' for o in SAVED), '2')
    o,two = torch.load(folder/done, weights_only=False)[f'load:{kind}'],runs[2][0][f'save:{kind}']
    _close(o['losses'], two['losses'], ATOL[kind])
    for a,b in zip(o['tables'], two['tables']): torch.testing.assert_close(a, b, atol=10 * ATOL[kind], rtol=0)

def test_a_checkpoint_of_one_and_faults(runs, folder):
    dls = CFDataLoaders.from_df(simulate_ratings(61, 83, 900, 4, seed=3), seed=0, device='cpu')
    new = lambda k=6, **kwargs: cf_learner(dls, k, y_range=(0, 6), from_means=False, path=folder, **kwargs)
    saved = new(sparse=True).load_shards('rows2')
    assert saved.opt.hypers[0]['lr'] == 1e-2 and any('grad_avg' in s for s in saved.opt.state.values())
    with pytest.raises(FileNotFoundError, match='folder: .*nowhere holds no shards'): new().load_shards('nowhere')
    with pytest.raises(ValueError, match='Make the learner with the same ratings and factors'): new(5).load_shards('rows2')
    with pytest.raises(ValueError, match='was written with RowwiseAdam, and this learner has FusedAdam'): new(sparse=False).load_shards('rows2')

def test_a_lost_process_ends_the_run(tmp_path):
    first,second = start(tmp_path, SCRIPT, 2, tmp_path, 'die', '-')
    said,_ = first.communicate(timeout=600)
    second.communicate()
    assert first.returncode == 3 and 'Process 0 of 2: another process did not answer' in said, said

def test_one_process_is_as_before():
    learn = cf_learner(CFDataLoaders.from_df(simulate_ratings(60, 80, 1500, 4, seed=3), seed=0, device='cpu'), seed=0)
    was = list(learn.model.children())
    with learn.sharded() as same: assert same is learn and list(learn.model.children()) == was

def test_arguments():
    for n,world in ((10, 4), (2, 3), (1, 1), (7, 2)):
        cuts = [shard_table.share_of(n, r, world) for r in range(world)]
        assert [b - a for a,b in cuts] == [len(o) for o in torch.arange(n).chunk(world)] + [0] * (world - len(torch.arange(n).chunk(world)))
    for bad in (dict(factor_count=0), dict(factor_count='a'), dict(y_range=(5, 1))):
        with pytest.raises((TypeError, ValueError), match=next(iter(bad))): sharded.sharded_dot_bias(**bad)
    with pytest.raises(ValueError, match='padding_idx'): shard_table.ShardedEmbedding(nn.Embedding(4, 2, padding_idx=0))
