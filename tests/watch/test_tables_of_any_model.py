"EmbeddingStats on models of other people: five lines, layers, padding, frozen and shared tables, no tables at all"
import pickle
import numpy as np, pandas as pd, pytest, torch
from fastai.learner import Learner
from fastcore.basics import noop
from torch import nn
from fastcf.data.loaders import CFDataLoaders
from fastcf.data.sources import simulate_ratings
from fastcf.watch.embedding_stats import EmbeddingStats
from fastcf.watch.tables import TrainingColumns, link_range

pytestmark = pytest.mark.filterwarnings('ignore::UserWarning')
USERS,ITEMS = 60,80

@pytest.fixture
def dls(sim): return CFDataLoaders.from_df(sim, seed=1, bs=64, device='cpu')

def fitted(dls, model, cb=None, epochs=1, **kwargs):
    torch.manual_seed(0)
    l = Learner(dls, model, loss_func=nn.MSELoss(), **kwargs)
    l.remove_cb(l.progress)
    l.logger = noop
    cb = cb or EmbeddingStats()
    l.fit(epochs, 1e-2, cbs=cb)
    return cb

class Five(nn.Module):
    "What a reader of a tutorial writes"
    def __init__(self, users=USERS, items=ITEMS, k=4):
        super().__init__()
        self.who,self.what = nn.Embedding(users, k),nn.Embedding(items, k)
    def forward(self, users, items): return (self.who(users) * self.what(items)).sum(1)

class Layers(nn.Module):
    "Tables of unlike width, layers, dropout, batch norm"
    def __init__(self, k=(5, 7)):
        super().__init__()
        self.embeds = nn.ModuleList([nn.Embedding(USERS, k[0]), nn.Embedding(ITEMS, k[1])])
        self.layers = nn.Sequential(nn.Linear(sum(k), 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Dropout(.1), nn.Linear(8, 1))
    def forward(self, users, items): return self.layers(torch.cat([self.embeds[0](users), self.embeds[1](items)], 1)).squeeze(1)

def value(s, table, statistic): return s.stats.query('table == @table and statistic == @statistic').value.iloc[-1]

def test_five_lines(dls):
    s = fitted(dls, Five())
    assert set(s.stats.table) == {'who', 'what', 'model'} and {'norm_popularity', 'alignment', 'update_ratio'} <= set(s.stats.statistic)
    assert 'flat_share' not in set(s.stats.statistic) # nothing squeezes the scores
    s.plot(); s.plot_hist(); s.plot_spectrum(); s.plot_map(table='what')
    assert s.history.maps['what'][1][0] == dls.classes['item'][dls.counts().argsort(descending=True, stable=True)[0].item()]

def test_layers_and_tables_of_unlike_width(dls):
    s = fitted(dls, Layers())
    assert set(s.stats.table) == {'embeds.0', 'embeds.1', 'model'} and 'alignment' not in set(s.stats.statistic)
    assert {c.column for c in s.watched.values()} == {0, 1}

def test_more_rows_than_ids(dls):
    "A row for padding has no id: it is named by its number, and counts as no dead row"
    m = Five(USERS + 1, ITEMS + 20)
    with torch.no_grad(): m.what.weight[ITEMS + 5] = 1e3
    s = fitted(dls, m)
    view = s.watched['what'].look()
    assert view.rows['long'][0] == ITEMS + 5 and view.unrated < .1 and 'dead' not in {f.kind for f in s.warnings}

@pytest.mark.parametrize('y_range,want', [
    (None, None), ((1, 5), (1., 5.)), ([.5, 5.5], (.5, 5.5)), (torch.tensor([1., 5.]), (1., 5.)), (nn.Parameter(torch.tensor([1., 5.])), (1., 5.)),
    (np.array([0, 1]), (0., 1.)), (5, None), ('auto', None), ((), None), ((5, 1), None), ((1, float('inf')), None)])
def test_y_range_of_any_kind(dls, y_range, want):
    m = Five()
    m.y_range = y_range
    assert link_range(m) == want
    s = fitted(dls, m)
    assert ('flat_share' in set(s.stats.statistic)) == (want is not None)

def test_a_frozen_table_has_no_steps(dls):
    m = Five()
    m.what.weight.requires_grad_(False)
    s = fitted(dls, m)
    have = s.stats.groupby('table').statistic.agg(set)
    assert 'update_ratio' in have['who'] and 'update_ratio' not in have['what'] and value(s, 'what', 'last_move') == 0

def test_one_table_for_both_sides(dls):
    class Shared(nn.Module):
        def __init__(self): super().__init__(); self.both = nn.Embedding(USERS + ITEMS, 4)
        def forward(self, users, items): return (self.both(users) * self.both(items + USERS)).sum(1)
    s = fitted(dls, Shared())
    assert set(s.stats.table) == {'both', 'model'}

def test_a_table_that_is_read_past_its_module(dls):
    "Its rows are known by number only"
    class Read(Five):
        def forward(self, users, items): return (self.who.weight[users] * self.what.weight[items]).sum(1)
    s = fitted(dls, Read())
    assert not s.stats.statistic.str.contains('popularity').any() and all(isinstance(o, int) for o in s.watched['what'].look().rows['long'])
    with pytest.raises(ValueError, match='nothing is kept'): s.plot_map()

def test_scores_of_another_shape(dls):
    class Column(Five):
        y_range = (.5, 5.5)
        def forward(self, users, items): return super().forward(users, items)[:, None]
    s = fitted(dls, Column())
    assert 0 <= value(s, 'model', 'flat_share') <= 1

def test_no_table_is_said_before_anything_is_trained(dls):
    steps = []
    class Bilinear(nn.Module):
        def __init__(self): super().__init__(); self.w = nn.Parameter(torch.zeros(USERS, ITEMS))
        def forward(self, users, items): steps.append(len(users)); return self.w[users, items]
    with pytest.raises(ValueError, match='Bilinear has no nn.Embedding.*Fit without this callback'): fitted(dls, Bilinear())
    assert steps == []

def test_interactions(sim):
    "Weights are not ratings: their spread says nothing of biases and norms"
    plays = sim[['user', 'item']].assign(plays=np.arange(len(sim)) + 1.)
    s = fitted(CFDataLoaders.from_df(plays, weight_name='plays', seed=1, bs=64, device='cpu'), Five())
    assert s.data.span() == 0 and s.data.outside((0, 1)) == 0 and 0 < value(s, 'model', 'alignment') < 4

def test_a_callback_from_a_file_goes_on(dls):
    s = fitted(dls, Five(), epochs=2)
    again = pickle.loads(pickle.dumps(s))
    fitted(dls, Five(), again)
    n = len(dls.train)
    assert dict(again.stats.groupby('epoch').step.first()) == {0: 0, 1: n, 2: 2*n, 3: 3*n}
    assert not again.stats.duplicated(['step', 'table', 'statistic']).any() and value(again, 'who', 'last_move') > 0
    fitted(dls, Five(k=9), again) # tables of another shape: a new history, from a file as well
    assert again.stats.epoch.max() == 1 and set(again.stats.step) == {0, n}

def test_named_rows_do_not_rest_on_the_order_of_ties(dls):
    m = Five()
    with torch.no_grad(): m.what.weight.fill_(1.)
    s = EmbeddingStats()
    fitted(dls, m, s)
    with torch.no_grad(): m.what.weight.fill_(1.)
    assert s.watched['what'].look().rows['long'] == list(dls.classes['item'][:3])

def test_a_model_that_reads_histories_instead_of_pairs():
    from fastcf.rank.sequence import sequence_learner
    df = simulate_ratings(40, 30, 500, seed=1)
    df['timestamp'] = range(len(df))
    learn = sequence_learner(CFDataLoaders.from_df(df, time_name='timestamp', valid_pct=.1, seed=0, device='cpu'), seed=0, metrics=[])
    cb = EmbeddingStats()
    with learn.no_bar(), learn.no_logging(): learn.fit(2, cbs=cb)
    shapes = {tuple(o.weight.shape) for o in learn.model.modules() if isinstance(o, nn.Embedding)}
    assert shapes <= set(cb.history.shapes.values()) and cb.history.epoch == 2 and len(cb.history.figures)
