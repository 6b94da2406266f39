"What `save_recommender` writes, piece by piece, beside what the learner holds; and what it refuses at the edge"
import hashlib, json, math
import numpy as np, pandas as pd, pytest, torch
import fastcf.all
from fastcf.bayes.foldin import row_prior
from fastcf.cold.attach import *
from fastcf.core import ArgumentError
from fastcf.data.loaders import CFDataLoaders
from fastcf.data.sources import simulate_ratings
from fastcf.learn.learner import cf_learner
from fastcf.serve import files
from fastcf.serve.files import data_fingerprint, vocab_fingerprint

def loaders(df, **kwargs): return CFDataLoaders.from_df(df, **{'valid_pct': .1, 'seed': 0, 'device': 'cpu', **kwargs})

@pytest.fixture(scope='module')
def frame(): return simulate_ratings(30, 24, 400, seed=4)

@pytest.fixture(scope='module')
def learn(frame):
    items = pd.DataFrame(dict(item=range(27), title=[f'T{i}' for i in range(27)], kind=[*'abc'] * 9))
    learn = cf_learner(loaders(frame, items=items), factor_count=3, seed=0)
    with learn.no_bar(), learn.no_logging(): learn.fit(2)
    learn.attach_prior(items=True)
    return learn

# --- fingerprints

def test_a_fingerprint_is_of_ratings_and_ids_and_of_no_order(frame):
    whole = dict(valid_pct=0)
    same = loaders(frame.sample(frac=1, random_state=1), **whole)
    plain = loaders(frame, **whole)
    assert data_fingerprint(same) == data_fingerprint(plain) and len(data_fingerprint(plain)) == 64
    other = frame.copy(); other.loc[5, 'rating'] += 1
    swapped = frame.copy(); swapped.loc[[0, 1], 'rating'] = swapped.loc[[1, 0], 'rating'].to_numpy() + [1, 0]
    shifted = frame.assign(user=frame.user + 1)
    texts = frame.assign(user=frame.user.astype(str))
    prints = [data_fingerprint(loaders(o, **whole)) for o in (frame, frame[1:], other, swapped, shifted, texts, frame.rename(columns=dict(user='item', item='user')))]
    assert len(set(prints)) == len(prints)
    for change in (shifted, texts): assert vocab_fingerprint(loaders(change, **whole)) != vocab_fingerprint(plain)
    assert vocab_fingerprint(loaders(other, **whole)) == vocab_fingerprint(plain)

@pytest.mark.parametrize('ids', [lambda o: o - 7, lambda o: np.uint64(2**63 + o), str, lambda o: ('a', o)])
def test_a_fingerprint_of_ids_of_any_kind(frame, ids):
    prints = [vocab_fingerprint(loaders(frame.assign(user=[ids(int(u)) for u in frame.user + more]))) for more in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]

def test_where_one_side_ends_is_part_of_it():
    sides = lambda users, items: vocab_fingerprint(loaders(pd.DataFrame([(u, i, 1. + (u + i) % 3) for u in users for i in items], columns=['user', 'item', 'rating']), valid_pct=0))
    assert sides((1, 2), (3, 4, 5)) != sides((1, 2, 3), (4, 5))

# --- sides

def test_a_side_holds_what_the_learner_holds(learn):
    for side in ('user', 'item'):
        t,info,ids = files._side(learn, side)
        c,prior = getattr(learn.dls.catalog, side),row_prior(learn, side)
        weight,bias = getattr(learn.model, f'{side}_weight').weight,getattr(learn.model, f'{side}_bias').weight
        assert torch.equal(t[f'{side}.vectors'], torch.cat([weight, bias], 1)) and torch.equal(t[f'{side}.counts'], learn.dls.counts(side)) and torch.equal(t[f'{side}.prior_mean'], prior.prior.mean)
        assert info['name'] == side and info['count'] == len(c) and info['noise'] == pytest.approx(float(prior.likelihood.noise)) and info['serves'] is False
        assert ids[side]['values'] == list(c) and (info['attached'] is None) == (side == 'user') == (f'{side}_attached' not in ids)
    assert info['attached']['count'] == 27 and info['attached']['noise'] > 0 and ids['item_attached']['values'] == [*range(27)]

def test_what_an_attached_prior_says_in_blocks(learn, monkeypatch):
    "One id after the other, and all ids at a time, say the same; a precision is the residuals' over how often"
    p = learn.learned.prior('item').ready()
    t,vocab,noise = files._attached(learn, 'item', 'item')
    for j,i in enumerate(vocab):
        one = p.prior.prior(p.df, [i])
        torch.testing.assert_close(t['attached_mean'][j], one.mean[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(t['attached_precision'] / t['attached_times'][j], one.precision[0], rtol=1e-3, atol=1e-4)
    assert torch.equal(t['every_mean'], p.prior.base.prior.mean) and noise == p.prior.base.likelihood.noise
    monkeypatch.setattr(files, 'range', lambda a, b, step: range(5, b, 5), raising=False)
    again = files._attached(learn, 'item', 'item')[0]
    for k in t: torch.testing.assert_close(again[k], t[k], rtol=1e-4, atol=1e-5)

def test_metadata_of_the_catalog_and_of_the_prior(learn, frame):
    df = files._items(learn)
    assert sorted(df.index) == [*range(27)] and df.index.is_unique
    plain = cf_learner(loaders(frame), factor_count=2, seed=0)
    assert files._items(plain) is None
    more = pd.DataFrame(dict(item=range(40), title=[f'X{i}' for i in range(40)], kind=[*'ab'] * 20))
    with plain.no_bar(), plain.no_logging(): plain.fit(1)
    plain.attach_prior(items=more)
    assert len(files._items(plain)) == 40
    both = cf_learner(loaders(frame, items=more[:24]), factor_count=2, seed=0)
    with both.no_bar(), both.no_logging(): both.fit(1)
    both.attach_prior(items=more.assign(title='later'))
    df = files._items(both)
    assert len(df) == 40 and df.index.is_unique and df.title[0] == 'X0' and df.title[39] == 'later'

# --- the card

@pytest.mark.parametrize('o,said', [('a  b\n c', 'a b c'), ('*x* `y` [z](u) <b> #1 a|b $', r'\*x\* \`y\` \[z\]\(u\) \<b\> \#1 a\|b \$'), ('\x00\u202ea', 'a'), (3.5, '3.5'), ('x' * 300, 'x' * 200)])
def test_text_of_the_data_on_a_card(o, said): assert files._text(o) == said

def test_the_card_says_what_is_there(learn, tmp_path):
    folder = learn.save_recommender(tmp_path/'r', notes='For tests. ' * 40, metrics=dict(rmse=.98765, mae=np.float32(.5), n=np.int64(3)))
    card,info = (folder/'README.md').read_text(),json.loads((folder/'recommender.json').read_text())
    for words in ('# A recommender for 30 users and', 'For tests. ' * 39, '| rmse | 0.9877 |', '| mae | 0.5000 |', '| n | 3.0000 |', f"learned from {len(learn.dls.train_ds):,} ratings", data_fingerprint(learn.dls), f"Saved {info['made']['at'][:10]} by fastcf", f"from {info['limits'][0]:g} to {info['limits'][1]:g}"):
        assert words in card, words
    assert 'none was recorded' not in card
    never = cf_learner(learn.dls, factor_count=2, seed=0)
    assert '| none was recorded | |' in (never.save_recommender(tmp_path/'n', interview=False)/'README.md').read_text()

# --- what is said of it

def test_what_is_described(learn, tmp_path):
    r = learn.dls.train_ds.ratings
    for y_range,limits in ((None, [float(r.min()), float(r.max())]), ((.5, 5.5), [.5, 5.5])):
        other = cf_learner(learn.dls, factor_count=4, y_range=y_range, seed=0, lr=.02, wd=.3)
        with other.no_bar(), other.no_logging(): other.fit(1)
        info = json.loads((other.save_recommender(tmp_path/'r')/'recommender.json').read_text())
        assert info['limits'] == limits and info['y_range'] == (None if y_range is None else list(y_range)) and info['factor_count'] == 4 and info['seen_count'] == len(learn.dls.train_ds)
        assert info['settings']['factor_count'] == 4 and info['settings']['lr'] == .02 and info['settings']['wd'] == .3 and info['settings']['bs'] == learn.dls.train.bs and info['settings']['model'] == type(other.model).__name__
        names,values = other.recorder.metric_names[1:],other.recorder.values[-1]
        assert info['metrics'] == pytest.approx(dict(zip(names, values))) and 'train_loss' in info['metrics'] and info['samples'] is None
        c = other.choice
        assert info['choice'] == dict(unobserved=c.unobserved, penalty=c.penalty, curve=pytest.approx(list(c.curve)), rating_range=list(c.rating_range), lowest=pytest.approx(float(c.lowest)))
        assert info['parts'] == sorted(info['parts']) == ['choice.safetensors', 'interview.safetensors']
        assert json.loads((other.save_recommender(tmp_path/'r', interview=False, metrics={})/'recommender.json').read_text())['parts'] == ['choice.safetensors']
    assert info['metrics'] and json.loads((tmp_path/'r/recommender.json').read_text())['metrics'] == {}

def test_samples_go_along_where_there_are_some(frame, tmp_path):
    from fastcf.bayes.engines import Gibbs
    learn = cf_learner(loaders(frame), factor_count=2, seed=0)
    with learn.no_bar(), learn.no_logging(): learn.fit(8, cbs=Gibbs(seed=0))
    for kw,there in (({}, True), (dict(samples=2), True), (dict(samples=0), False)):
        folder = learn.save_recommender(tmp_path/'r', interview=False, **kw)
        assert (folder/'samples.safetensors').exists() == there and (json.loads((folder/'recommender.json').read_text())['samples'] is not None) == there

@pytest.mark.parametrize('names,values,want', [(['epoch', 'a', 'b'], [[9, 9], [1, 2]], dict(a=1., b=2.)), (['epoch', 'a'], [], {}), (['epoch', 'a', 'b'], [[1, None]], {})])
def test_what_was_recorded(names, values, want):
    learn = type('L', (), dict(recorder=type('R', (), dict(metric_names=names, values=values))()))
    assert files._recorded(learn) == want and files._recorded(object()) == {}

# --- what is refused

@pytest.mark.parametrize('metrics', [{3: 1.}, {'a': True}, {'a': '1'}, {'a': float('nan')}, {'a': np.inf}, {'a': None}, {'fine': 1, 'a': [1]}])
def test_metrics_that_are_none(metrics):
    with pytest.raises(ArgumentError, match='metrics: expected a name and a number'): files._check_metrics(metrics)

def test_metrics_that_are(): assert files._check_metrics(None) is files._check_metrics({}) is files._check_metrics(dict(a=1, b=1.5, c=np.float32(2), d=np.int8(3), e=-1)) is None

def test_scores_are_looked_at_all_over_the_table(learn):
    users,items = (torch.cat([getattr(learn.model, f'{o}_weight').weight, getattr(learn.model, f'{o}_bias').weight], 1).detach().clone() for o in ('user', 'item'))
    assert files._check_scores(learn, users, items) is None
    for table in (users, items):
        for row in (0, len(table) // 2, len(table) - 1):
            for column in (0, -1):
                was = table[row, column].clone()
                table[row, column] += 3
                if (learn.dls.train_ds.users if table is users else learn.dls.train_ds.items).eq(row).any():
                    with pytest.raises(TypeError, match='does not score a pair by the product of its vectors'): files._check_scores(learn, users, items)
                table[row, column] = was

def test_nothing_to_learn_from_is_said(learn, tmp_path):
    from fastai.learner import load_learner
    learn.export(tmp_path/'l')
    with pytest.raises(ValueError, match='these loaders hold no training ratings'): load_learner(tmp_path/'l').save_recommender(tmp_path/'r')
    class Half(torch.nn.Module):
        def __init__(self): super().__init__(); self.w = torch.nn.Parameter(torch.zeros(1))
        def user_vectors(self): pass
        def item_vectors(self): pass
        def forward(self, users, items): return self.w * users
    with pytest.raises(TypeError, match='Half has no method biases'): files._check_model(cf_learner(learn.dls, model=lambda dls: Half(), seed=0))
