"A model of what comes next, and blends, against slow, plain versions: one user, one place, one item after the other"
import warnings
import numpy as np, pandas as pd, pytest, torch
from fastai.learner import load_learner
from fastcf.core import UnknownIdError
from fastcf.data.loaders import CFDataLoaders
from fastcf.data.sources import simulate_ratings
from fastcf.data.splits import LeaveLastOutSplitter
from fastcf.learn.learner import cf_learner
from fastcf.rank.baselines import EASE, MostPopular
from fastcf.rank.blend import Blend, choose_weights
from fastcf.rank.evaluate import compare, evaluate
from fastcf.rank.metrics import ndcg, valid_frame
from fastcf.rank.sequence import SequenceModel, WindowDL, chosen_from, sequence_learner, window_loaders, windows_before
import fastcf.rank.ials

def rows_in_time(seed=0, users=40, items=30, rows=500):
    df = simulate_ratings(users, items, rows, 3, seed=seed)
    return df.assign(user='u' + df.user.astype(str), timestamp=np.random.default_rng(seed).permutation(len(df)) + 1_000)

def loaders(df, **kw): return CFDataLoaders.from_df(df, splitter=LeaveLastOutSplitter(), time_name='timestamp', seed=0, device='cpu', **kw)

def trained(dls, epochs=2, **kw):
    learn = sequence_learner(dls, **{**dict(factor_count=16, length=7, bs=8, seed=0), **kw})
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(epochs, 1e-2)
    return learn

@pytest.fixture(scope='module')
def df(): return rows_in_time()
@pytest.fixture(scope='module')
def dls(df): return loaders(df)
@pytest.fixture(scope='module')
def learn(dls): return trained(dls)

def histories(df, dls):
    "Each user's training items, the oldest first, by row numbers"
    c,t = dls.catalog,dls.train_ds
    train = pd.DataFrame(dict(user=t.users, item=t.items, time=t.times)).sort_values('time')
    return {u: g.item.tolist() for u,g in train.groupby('user')}

# --- windows

@pytest.mark.parametrize('length', [1, 3, 7, 100])
def test_every_choice_is_asked_for_after_those_before_it(df, dls, length):
    lists,items = histories(df, dls),len(dls.catalog.item)
    windows = window_loaders(dls, length, bs=8, seed=1)
    for _ in range(3):
        asked_for = {u: set() for u in lists}
        for w,chosen,asked,answers in windows.train:
            assert w.shape == asked.shape == (len(w), length) and chosen.shape == (len(w), items) and asked[:, -1].all()
            for (row,place),answer in zip(asked.nonzero().tolist(), answers.tolist(), strict=True):
                known,struck = [o for o in w[row, :place+1].tolist() if o < items],set((chosen[row] <= place).nonzero()[:, 0].tolist())
                before = {u: h[:h.index(answer)] for u,h in lists.items() if answer in h}
                who = [u for u,h in before.items() if set(h) == struck and h[len(h) - len(known):] == known and len(known) == min(len(h), place + 1)]
                assert who, (row, place)
                for u in who: asked_for[u].add(answer)
        assert all(asked_for[u] == set(h) for u,h in lists.items())
    assert len(list(windows.train)) == len(windows.train)

def test_windows_of_one_epoch_are_those_of_the_seed(dls):
    a,b,c = (window_loaders(dls, 5, 8, seed=s).train for s in (1, 1, 2))
    epochs = [[[t.tolist() for t in batch] for batch in dl] for dl in (a, b, c, a)]
    assert epochs[0] == epochs[1] and epochs[0] != epochs[2] and epochs[0] != epochs[3]

def test_validation_asks_for_each_row_after_the_whole_history(df, dls):
    lists,v = histories(df, dls),dls.valid_ds
    w,chosen,asked,answers = next(iter(window_loaders(dls, 4).valid))
    assert answers.tolist() == v.items.tolist() and asked.sum(1).tolist() == [1] * len(v)
    for row,u in enumerate(v.users.tolist()):
        assert [o for o in w[row].tolist() if o < len(dls.catalog.item)] == lists[u][-4:]
        assert (chosen[row] <= 3).nonzero()[:, 0].tolist() == sorted(lists[u])

# --- the model

def test_later_choices_and_empty_places_change_nothing_and_a_batch_is_its_rows(learn):
    m,n = learn.model.eval(),learn.model.item_count
    g = torch.Generator().manual_seed(0)
    w = torch.randint(0, n, (5, 7), generator=g)
    with torch.no_grad():
        whole = m.places(w)
        later = w.clone()
        later[:, 4:] = torch.randint(0, n, (5, 3), generator=g)
        assert torch.allclose(m.places(later)[:, :4], whole[:, :4], atol=1e-5)
        assert not torch.allclose(m.places(later)[:, 4:], whole[:, 4:], atol=1e-3)
        assert torch.allclose(torch.cat([m.places(o[None]) for o in w]), whole, atol=1e-5)
        padded = torch.cat([torch.full((5, 4), n), w[:, 4:]], 1)
        assert torch.allclose(m.places(padded)[:, 4:], m.places(w[:, 4:]), atol=1e-5)

def plain_place(m, history):
    "What the last place knows, one place and head after the other, in double precision"
    def norm(layer, x): return (x - x.mean()) / (x.var(unbiased=False) + layer.eps).sqrt() * layer.weight.double() + layer.bias.double()
    def linear(layer, x): return layer.weight.double() @ x + layer.bias.double()
    xs = [m.item_weight.weight[i].double() * m.item_weight.embedding_dim**.5 for i in history]
    for layer in m.layers:
        k,qkv,new = len(xs[0]) // layer.heads,[linear(layer.query_key_value, norm(layer.norms[0], x)).view(3, layer.heads, -1) for x in xs],[]
        for j,x in enumerate(xs):
            heads = []
            for h in range(layer.heads):
                logs = torch.stack([qkv[j][0, h] @ qkv[i][1, h] / k**.5 + layer.fading[h, j - i].double() for i in range(j + 1)])
                heads.append(sum(p * qkv[i][2, h] for i,p in enumerate(logs.softmax(0))))
            x = x + linear(layer.out, torch.cat(heads))
            new.append(x + linear(layer.layers[2], torch.nn.functional.gelu(linear(layer.layers[0], norm(layer.norms[1], x)))))
        xs = new
    return norm(m.norm, xs[-1])

def test_lists_equal_a_plain_version(df, dls, learn):
    lists,m,c = histories(df, dls),learn.model.eval(),dls.catalog
    got = learn.recommend(k=5)
    with torch.no_grad():
        for u in list(lists)[:12]:
            scores = m.item_weight.weight[:-1].double() @ plain_place(m, lists[u][-7:]) + m.item_bias.double()
            scores[lists[u]] = -torch.inf
            scores[dls.counts() == 0] = -torch.inf
            p = scores.softmax(0)
            g = got[got.user == c.user[u]]
            assert np.allclose(g.chance, p.sort(descending=True).values[:len(g)], atol=1e-4)
            assert np.allclose(p[c.item.encode(g.item)], g.chance, atol=1e-4)

# --- the learner

def test_lists_have_no_item_that_was_chosen_and_nothing_that_comes_in_is_changed(df, learn, dls):
    before = df.copy()
    t,c = dls.train_ds,dls.catalog
    seen = set(zip(c.user[t.users], c.item[t.items]))
    lists = learn.recommend(k=1_000)
    assert not seen & set(zip(lists.user, lists.item)) and not lists.duplicated(['user', 'item']).any()
    assert (lists.groupby('user').size() == int((dls.counts() > 0).sum()) - pd.Series(c.user[t.users]).value_counts().sort_index()).all()
    assert np.allclose(lists.groupby('user').chance.sum(), 1, atol=1e-3) and lists['rank'].max() <= len(c.item)
    assert (lists.groupby('user').chance.diff().dropna() <= 0).all()
    new = df[['user', 'item', 'timestamp']].head(30).copy()
    learn.recommend(history=new)
    assert new.equals(df[['user', 'item', 'timestamp']].head(30)) and df.equals(before)

def test_the_order_of_rows_does_not_matter_and_the_same_seed_gives_the_same(df, learn):
    again = trained(loaders(df.sample(frac=1, random_state=3)))
    a,b = learn.recommend(k=9),again.recommend(k=9)
    assert a.drop(columns='chance').equals(b.drop(columns='chance')) and np.allclose(a.chance, b.chance)
    other = trained(loaders(df), seed=1)
    assert not other.recommend(k=9).item.equals(a.item)
    state = torch.random.get_rng_state()
    trained(loaders(df), epochs=1)
    assert torch.equal(state, torch.random.get_rng_state())

def test_training_learns_an_order():
    "Everybody goes round the same circle from a place of their own"
    rows = pd.DataFrame([dict(user=u, item=(u + j) % 24, timestamp=j) for u in range(120) for j in range(12)])
    learn = trained(CFDataLoaders.from_df(rows, rating_name=False, splitter=LeaveLastOutSplitter(), time_name='timestamp', seed=0, device='cpu'), epochs=25, dropout=.1)
    assert (learn.recommend(k=1).item == (learn.recommend(k=1).user + 11) % 24).mean() > .9
    assert learn.recommend(history=[3, 4, 5], k=1).item.item() == 6

def test_a_new_history_is_read_as_that_of_somebody_known(df, dls, learn):
    c,t = dls.catalog,dls.train_ds
    train = pd.DataFrame(dict(user=c.user[t.users], item=c.item[t.items], timestamp=t.times)).sample(frac=1, random_state=0)
    who = list(pd.unique(train.user))[:15]
    new = train[train.user.isin(who)]
    a,b = learn.recommend(list(pd.unique(new.user)), k=5),learn.recommend(history=new, k=5)
    assert a.drop(columns='chance').equals(b.drop(columns='chance')) and np.allclose(a.chance, b.chance, atol=1e-5)
    one = new[new.user == who[0]].sort_values('timestamp')
    alone = learn.recommend(history=one.item.tolist(), k=5)
    assert alone.item.tolist() == a[a.user == who[0]].item.tolist() and 'user' not in alone
    assert learn.recommend(history=one[['item']], k=5).equals(alone) # by rows, where there are no times
    twice = [one.item.iloc[-1], *one.item] # a repeated choice counts once, as the newest
    assert learn.recommend(history=twice, k=5).equals(alone)

def test_short_and_empty_histories(learn, dls):
    item = dls.catalog.item.ids[0]
    assert len(learn.recommend(history=[], k=3)) == len(learn.recommend(history=[item], k=3)) == len(learn.recommend(history=item, k=3)) == 3
    assert len(learn.recommend(history=pd.DataFrame(dict(user=[], item=[])), k=3)) == 0 and len(learn.recommend([], k=3)) == 0
    assert len(learn.recommend(history=dls.catalog.item.ids, k=3)) == 0 # somebody who chose everything

def test_few_users_and_one_row_each():
    for rows in (pd.DataFrame(dict(user=[1] * 5 + [2], item=[0, 1, 2, 3, 4, 2], timestamp=range(6))), pd.DataFrame(dict(user=range(5), item=[0, 1, 0, 2, 1], timestamp=range(5)))):
        learn = trained(CFDataLoaders.from_df(rows, rating_name=False, valid_pct=0, time_name='timestamp', device='cpu'))
        lists = learn.recommend(k=4)
        assert not set(zip(rows.user, rows.item)) & set(zip(lists.user, lists.item)) and np.isfinite(lists.chance).all()
        assert len(learn.recommend(history=[0], k=4)) == rows.item.nunique() - 1

def test_items_of_validation_rows_only_are_not_listed():
    rows = pd.DataFrame(dict(user=[1, 1, 1, 2, 2, 2], item=[0, 1, 9, 1, 2, 8], timestamp=[0, 1, 2] * 2))
    learn = trained(CFDataLoaders.from_df(rows, rating_name=False, splitter=LeaveLastOutSplitter(), time_name='timestamp', device='cpu'))
    assert set(learn.recommend(k=9).item) <= {0, 1, 2}
    with pytest.raises(UnknownIdError, match='validation rows only'): learn.recommend(history=[9])
    assert learn.recommend(history=[9, 0], unknown='drop').item.tolist() == learn.recommend(history=[0]).item.tolist()

def test_save_load_export(tmp_path, df, learn):
    other = trained(loaders(df), seed=5, epochs=1)
    learn.path = other.path = tmp_path
    learn.save('weights'); other.load('weights')
    assert other.recommend(k=5).equals(learn.recommend(k=5))
    learn.export(tmp_path/'learn.pkl')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        loaded = load_learner(tmp_path/'learn.pkl')
    assert loaded.recommend(k=5).equals(learn.recommend(k=5))
    assert loaded.recommend(history=[1, 2], k=5).equals(learn.recommend(history=[1, 2], k=5))

def test_lr_find_metrics_and_evaluate(dls, learn):
    sequence_learner(dls, 8, length=5, bs=4, seed=0).lr_find(num_it=10, show_plot=False)
    fresh = sequence_learner(dls, 8, length=5, seed=0)
    with fresh.no_bar(), fresh.no_logging(): fresh.fit(1)
    row = dict(zip(fresh.recorder.metric_names[1:], fresh.recorder.values[-1]))
    assert np.isclose(row['ndcg@10'], ndcg(fresh.recommend(k=10), valid_frame(dls))) and np.isfinite(row['valid_loss'])
    b = fresh.dls.valid.one_batch()
    shown = fresh.dls.valid.show_results(b, fresh.model(*b[:3]), show=False)
    assert list(shown.columns) == ['before', ' ', '  ', 'next', 'predicted'] and shown.next.tolist() == dls.catalog.item[b[3][:9]].tolist()
    assert len(evaluate({'sequence': learn, 'popular': MostPopular(dls)})) == 6 and len(compare(learn, MostPopular(dls))) == 3

def test_faults_are_named(df, dls, learn):
    with pytest.raises(ValueError, match='time_name'): sequence_learner(CFDataLoaders.from_df(df, seed=0, device='cpu'))
    with pytest.raises(ValueError, match='already'): sequence_learner(learn.dls)
    with pytest.raises(ValueError, match='heads'): sequence_learner(dls, 10, heads=3)
    with pytest.raises(ValueError, match='dropout'): sequence_learner(dls, dropout=1.)
    with pytest.raises(UnknownIdError, match='nobody'): learn.recommend('nobody')
    with pytest.raises(UnknownIdError): learn.recommend(history=['nothing'])
    with pytest.raises(ValueError, match='one of them'): learn.recommend('u1', history=[1])
    with pytest.raises(ValueError, match="'item'"): learn.recommend(history=pd.DataFrame(dict(film=[1])))
    with pytest.raises(ValueError, match='without a user'): learn.recommend(history=pd.DataFrame(dict(user=['a', None], item=[1, 2])))
    for f in (learn.predict, learn.fold_in):
        with pytest.raises(TypeError, match='recommend'): f(1)
    with pytest.raises(TypeError, match='lr_find'): learn.find_lr()

# --- blends

def test_a_blend_adds_standardised_scores(dls, learn):
    ease,popular = EASE(dls),MostPopular(dls)
    rows,(offsets,items) = torch.arange(10),dls.seen
    total = torch.zeros(10, len(dls.catalog.item), dtype=torch.float64)
    for w,o in zip((.5, .3, .2), (ease, popular, learn)):
        for r in range(10):
            left = dls.counts() > 0
            left[items[offsets[r]:offsets[r+1]].long()] = False
            s = o.scores(torch.tensor([r]))[0].double()
            total[r] += w * (s - s[left].mean()) / s[left].std(unbiased=False)
    assert torch.allclose(Blend([ease, popular, learn], (.5, .3, .2)).scores(rows).double(), total, atol=1e-3)
    assert Blend([learn, ease], (1, 0)).recommend(k=5).item.tolist() == learn.recommend(k=5).item.tolist()

def test_weights_of_a_blend(dls, learn):
    ease = EASE(dls)
    choice = cf_learner(dls, 4, seed=0).learn_choice(sweeps=2, seed=0)
    models,best = [learn, ease, choice],choose_weights([learn, ease, choice], parts=4)
    assert np.isclose(sum(best), 1, atol=.01) and len(best) == 3 and best == choose_weights(models, parts=4)
    found = lambda w: ndcg(Blend(models, w).recommend(k=10), valid_frame(dls))
    grid = [(a / 4, b / 4, (4 - a - b) / 4) for a in range(5) for b in range(5 - a)]
    assert found(best) > np.mean(list(map(found, grid))) - .05 # a mean over draws of 40 people

def test_what_knows_nothing_has_no_weight(dls):
    class Wrong(EASE):
        def scores(self, rows): return -super().scores(rows)
    assert choose_weights([EASE(dls), Wrong(dls)], parts=5)[0] > .5

def test_faults_of_blends(dls, learn, df):
    with pytest.raises(ValueError, match='different rows'): Blend([EASE(dls), MostPopular(loaders(rows_in_time(1)))])
    with pytest.raises(ValueError, match='scores'): Blend([3])
    with pytest.raises(ValueError, match='list'): Blend(EASE(dls))
    for w in ((1,), ('a', 'b'), (1, float('nan')), (0, 0)):
        with pytest.raises(ValueError, match='weights'): Blend([EASE(dls), learn], w)
    with pytest.raises(ValueError, match='training rows'): choose_weights([EASE(dls), learn], df.assign(user='nobody'))

@pytest.mark.parametrize('method', ['fold_in', 'add_ratings', 'add_users', 'predict'])
def test_what_needs_factors_of_people_says_how_newcomers_are_asked_about(df, method):
    learn = trained(loaders(df), epochs=1)
    new = pd.DataFrame(dict(user=['new'], item=[0], timestamp=[9_999]))
    with pytest.raises(TypeError, match=rf'{method}: .*recommend\(history=') : getattr(learn, method)(new)
    assert len(learn.recommend(history=new, k=3))
