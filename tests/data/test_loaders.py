"Batches: seeds, shapes, devices, and what a fastai user expects of loaders"
import pickle, random, re
import numpy as np, pandas as pd, pytest, torch
from fastai.collab import CollabDataLoaders
from fastai.data.core import TfmdDL
from fastai.data.load import DataLoader
from fastai.data.transforms import RandomSplitter
from fasttransform import ItemTransform
from hypothesis import given, settings, strategies as st
from fastcf.data.splits import ColdUserSplitter
from fastcf.core import RatingsError, UnknownIdError
from fastcf.data.vocab import Vocab
from fastcf.data.loaders import Catalog, CFDataLoaders, RatingHistories, RatingsDL, RatingsTable

def table(n, users=7, items=5):
    rng = np.random.default_rng(n)
    return RatingsTable(rng.integers(0, users, n), rng.integers(0, items, n), np.arange(n), Catalog(Vocab(range(users), 'user'), Vocab(range(items), 'item')))

def rows(dl): return [r for b in dl for r in b[2].tolist()]

@settings(deadline=None)
@given(n=st.integers(1, 50), bs=st.integers(1, 20), chunk=st.integers(1, 30), shuffle=st.booleans(), drop_last=st.booleans())
def test_every_row_once_an_epoch(n, bs, chunk, shuffle, drop_last):
    t = table(n)
    dl = RatingsDL(t, bs=bs, shuffle=shuffle, drop_last=drop_last)
    dl.chunk = chunk
    batches = list(dl)
    assert len(batches) == len(dl) == (n // bs if drop_last else -(-n // bs))
    assert all(len(b[0]) == bs for b in batches[:-1])
    got = rows(dl)
    assert len(set(got)) == len(got) and set(got) <= set(range(n)) and (drop_last or len(got) == n)
    for u,i,r in batches:
        assert (u.dtype, i.dtype, r.dtype) == (torch.int64, torch.int64, torch.float32)
        at = r.long()
        assert (t.users[at] == u).all() and (t.items[at] == i).all()

def test_same_seed_same_batches_epoch_by_epoch():
    a,b,c = (RatingsDL(table(100), bs=8, shuffle=True, seed=s) for s in (5, 5, 6))
    first,second = [rows(a), rows(a)],[rows(b), rows(b)]
    assert first == second and first[0] != first[1] and first[0] != rows(c)

def test_a_seeded_loader_leaves_the_global_random_state_alone(sim):
    dls = CFDataLoaders.from_df(sim, seed=1)
    torch.manual_seed(3); np.random.seed(3); random.seed(3)
    before = torch.get_rng_state(),np.random.get_state()[1].copy(),random.getstate()
    rows(dls.train)
    assert (torch.get_rng_state() == before[0]).all() and (np.random.get_state()[1] == before[1]).all() and random.getstate() == before[2]

def test_without_a_seed_pythons_seed_counts():
    def _run(s): random.seed(s); return rows(RatingsDL(table(50), shuffle=True))
    assert _run(1) == _run(1) != _run(2)

def test_unshuffled_is_in_order(): assert rows(RatingsDL(table(30), bs=7)) == list(range(30))
def test_n_limits_the_rows():
    assert len(rows(RatingsDL(table(30), bs=7, n=12))) == 12 and len(rows(RatingsDL(table(30), bs=7, n=99))) == 30

class Doubled(ItemTransform):
    def encodes(self, b): return b[0], b[1], b[2] * 2

def test_hooks_of_fastai_are_called():
    said = []
    dl = RatingsDL(table(10), bs=4, after_batch=Doubled(), before_iter=lambda: said.append('before'), after_iter=lambda: said.append('after'))
    assert rows(dl) == [2. * i for i in range(10)] and said == ['before', 'after']

def test_get_idxs_may_be_replaced(): assert rows(RatingsDL(table(10), bs=4, get_idxs=lambda: [3, 1, 2])) == [3, 1, 2]

def test_new_keeps_and_changes():
    dl = RatingsDL(table(30), bs=7, shuffle=True, seed=3, drop_last=True)
    twin = dl.new()
    assert rows(twin) == rows(RatingsDL(table(30), bs=7, shuffle=True, seed=3, drop_last=True))
    other = dl.new(shuffle=False, bs=10, drop_last=False)
    assert (other.bs, other.seed, other.drop_last) == (10, 3, False) and rows(other) == list(range(30))

@pytest.mark.parametrize('bs', [0, -1, None, 2.5])
def test_batch_size_is_checked(bs):
    with pytest.raises(ValueError, match='bs: expected'): RatingsDL(table(3), bs=bs)

def test_no_rows_no_batches():
    dl = RatingsDL(table(10).new_empty(), bs=4)
    assert list(dl) == [] and len(dl) == 0
    with pytest.raises(ValueError, match='does not contain any batches'): dl.one_batch()

def test_it_is_a_fastai_loader(): assert isinstance(RatingsDL(table(3)), (TfmdDL, DataLoader))

def test_any_positions_become_batches():
    "What fastai's distributed loader asks of the one it wraps: batches of the positions that one process is given"
    dl = RatingsDL(table(10), bs=3, shuffle=True, seed=1)
    idxs = [int(o) for o in dl.get_idxs()]
    got = [[r for b in dl.create_batches(o for o in part) for r in b[2].tolist()] for part in (idxs[:5], idxs[5:])]
    assert sorted(got[0] + got[1]) == list(range(10)) and got[0] == idxs[:5]

# --- from a frame

def test_arguments_mean_what_they_mean_in_fastai(sim):
    ours,theirs = (c.from_df(sim, valid_pct=0.3, seed=9, bs=32, path='x', device=torch.device('cpu')) for c in (CFDataLoaders, CollabDataLoaders))
    split = RandomSplitter(0.3, seed=9)(sim)
    for k in range(2):
        assert (ours[k].dataset.ratings.numpy() == sim.rating.to_numpy()[list(split[k])]).all()
        assert (theirs[k].dataset.items.rating.to_numpy() == sim.rating.to_numpy()[list(split[k])]).all()
    assert len(ours.train) == len(theirs.train) and ours.train.drop_last == theirs.train.drop_last and ours.path == theirs.path
    assert list(ours.classes) == list(theirs.classes) and ours.n_inp == 2
    assert list(ours.classes['user']) == sorted(set(sim.user))

def test_ids_go_in_and_come_out(sim):
    df = sim.assign(user='u' + sim.user.astype(str), item=sim.item * 10)
    dls = CFDataLoaders.from_df(df, seed=1)
    known = set(zip(df.user, df.item, df.rating))
    for dl in dls:
        for b in dl: assert set(dl.decode_batch(b, max_n=len(b[0])).itertuples(index=False, name=None)) <= known

def test_named_columns_and_titles(sim):
    df = sim[['timestamp', 'rating', 'item', 'user']].rename(columns={'item': 'film', 'user': 'who', 'rating': 'stars'})
    films = pd.DataFrame(dict(film=np.arange(80), title=[f'T{i}' for i in range(80)]))
    dls = CFDataLoaders.from_df(df, user_name='who', item_name='film', rating_name='stars', items=films, seed=1)
    shown = dls.train.show_batch(show=False)
    assert list(shown) == ['who', 'film', 'title', 'stars'] and (shown.title == 'T' + shown.film.astype(str)).all() and len(shown) == 9

def test_a_title_may_be_the_id(sim):
    df = sim.assign(title='film ' + sim.item.astype(str))
    dls = CFDataLoaders.from_df(df, item_name='title')
    assert dls.train.show_batch(show=False).columns.tolist() == ['user', 'title', 'rating']

def test_show_batch_shows(sim, capsys):
    CFDataLoaders.from_df(sim).show_batch(max_n=3)
    assert capsys.readouterr().out.strip()

def test_small_training_sets_keep_their_only_batch():
    df = pd.DataFrame(dict(user=[1, 1, 2, 2, 3], item=[1, 2, 1, 2, 1], rating=[1., 2, 3, 4, 5]))
    dls = CFDataLoaders.from_df(df, valid_pct=0.2, seed=0)
    assert len(dls.train) == 1 and len(rows(dls.train)) == 4

def test_no_validation(sim):
    dls = CFDataLoaders.from_df(sim, valid_pct=0)
    assert len(dls.valid_ds) == 0 and len(dls.train_ds) == len(sim)

def test_no_batch_loops_over_a_frame(sim, monkeypatch):
    dls = CFDataLoaders.from_df(sim, seed=1)
    def _no(*args, **kwargs): raise AssertionError('pandas while training')
    for o in ('__getitem__', '__init__'): monkeypatch.setattr(pd.DataFrame, o, _no); monkeypatch.setattr(pd.Series, o, _no)
    assert len(list(dls.train)) == len(dls.train)

@pytest.mark.parametrize('kwargs,words', [
    (dict(splitter=lambda o: ([0, 1, 1], [2])), 'positions twice'), (dict(splitter=lambda o: ([0, 1], [10**6])), 'beyond the 1,500 rows'),
    (dict(splitter=lambda o: (np.array([], int), np.arange(9))), 'leaves no row to train on')])
def test_bad_splits(sim, kwargs, words):
    with pytest.raises(RatingsError, match=words): CFDataLoaders.from_df(sim, **kwargs)

def test_masks_are_splits_too(sim):
    mask = sim.rating.to_numpy() > 3
    dls = CFDataLoaders.from_df(sim, splitter=lambda o: (~mask, mask))
    assert (dls.valid_ds.ratings > 3).all() and len(dls.valid_ds) == mask.sum()

def test_too_few_rows_to_split():
    df = pd.DataFrame(dict(user=[1, 2, 1], item=[1, 1, 2], rating=[1., 2, 3]))
    with pytest.raises(RatingsError, match='3 rows are too few to hold out 20% of them'): CFDataLoaders.from_df(df)

@pytest.mark.parametrize('pct', [-.1, 1, 2])
def test_valid_pct(sim, pct):
    with pytest.raises(ValueError, match='valid_pct'): CFDataLoaders.from_df(sim, valid_pct=pct)

@pytest.mark.parametrize('films,error,words', [
    ('films.csv', TypeError, "items: expected a pandas DataFrame, got 'films.csv'"), (pd.DataFrame(dict(id=[1], title=['x'])), ValueError, r"rename\(columns=\{'id': 'item'\}\)"),
    (pd.DataFrame(dict(item=[1, 1], title=['x', 'y'])), ValueError, 'repeated ids'), (pd.DataFrame(dict(item=['1', '2'], title=['x', 'y'])), ValueError, 'none of its ids is in the ratings')])
def test_metadata_is_checked(sim, films, error, words):
    with pytest.raises(error, match=words): CFDataLoaders.from_df(sim, items=films)

def test_metadata_by_index_is_left_alone(sim):
    films = pd.DataFrame(dict(title=[f'T{i}' for i in range(100)]), index=pd.Index(range(100), name='item'))
    before = pickle.dumps(films)
    dls = CFDataLoaders.from_df(sim, items=films)
    dls.show_batch()
    assert pickle.dumps(films) == before and len(dls.catalog.items) == 100

def test_faults_of_the_ratings_are_told(sim):
    with pytest.raises(RatingsError, match='1 rating outside 1 to 5'): CFDataLoaders.from_df(sim.assign(rating=sim.rating.where(sim.index != 7, 50)), rating_range=(1, 5))

def test_from_csv(sim, tmp_path):
    sim.to_csv(tmp_path/'r.csv', index=False)
    sim.to_csv(tmp_path/'s.csv', index=False, sep=';', decimal=',')
    for dls in (CFDataLoaders.from_csv(tmp_path/'r.csv', seed=1), CFDataLoaders.from_csv(tmp_path/'s.csv', dict(sep=';', decimal=','), seed=1)):
        assert rows(dls.train) == rows(CFDataLoaders.from_df(sim, seed=1).train)

def test_from_parquet(sim, tmp_path, monkeypatch):
    pytest.importorskip('pyarrow')
    sim.to_parquet(tmp_path/'r.parquet')
    assert rows(CFDataLoaders.from_parquet(tmp_path/'r.parquet', seed=1).train) == rows(CFDataLoaders.from_df(sim, seed=1).train)
    def _none(*args, **kwargs): raise ImportError('no engine')
    monkeypatch.setattr(pd, 'read_parquet', _none)
    with pytest.raises(ImportError, match=r"pip install 'fastcf\[parquet\]'"): CFDataLoaders.from_parquet(tmp_path/'r.parquet')

# --- what is known of users and items

def test_seen_and_counts_against_a_plain_version(sim):
    dls = CFDataLoaders.from_df(sim, seed=1)
    t,(offsets,items) = dls.train_ds,dls.seen
    for u in range(len(dls.classes['user'])): assert sorted(items[offsets[u]:offsets[u+1]].tolist()) == sorted(t.items[t.users == u].tolist())
    assert dls.counts().tolist() == [int((t.items == i).sum()) for i in range(len(dls.classes['item']))]
    assert dls.counts('user').tolist() == [int((t.users == u).sum()) for u in range(len(dls.classes['user']))]

def test_loaders_that_share_a_catalog_count_their_own_rows(sim):
    dls = CFDataLoaders.from_df(sim, seed=1)
    t = dls.train_ds
    half = RatingsTable(t.users[:300], t.items[:300], t.ratings[:300], t.catalog)
    dls.counts()
    other = CFDataLoaders(dls.train.new(half), dls.valid)
    assert other.counts().sum() == other.counts('user').sum() == len(other.seen[1]) == 300 and dls.counts().sum() == len(t)
    assert not [o for o in vars(t.catalog) if o.startswith('_')]
    dls.loaders[0] = dls.train.new(half) # other training rows, other counts
    assert torch.equal(dls.counts(), other.counts())

def test_who_rated_what_is_worked_out_once(sim):
    dls = CFDataLoaders.from_df(sim, seed=1)
    assert all(a is b for a,b in ((dls.seen, dls.seen), (dls.counts(), dls.counts()), (dls.counts('user'), dls.counts('user')), (dls.histories.by_item, dls.histories.by_item)))

@pytest.mark.parametrize('n', [2**20 - 1, 2**21 + 5])
def test_histories_of_more_rows_than_are_sorted_at_a_time(n):
    "As one stable sort of all of them"
    g = np.random.default_rng(0)
    users,items = (torch.as_tensor((c * g.random(n)**3).astype('i4')) for c in (300, 40))
    h = RatingHistories(users, items, 301, 40) # the last user has none
    for (starts,others),rows,cols in ((h.by_user, users, items), (h.by_item, *h.pairs()[::-1])):
        assert torch.equal(others, cols[torch.argsort(rows, stable=True)]) and torch.equal(starts.diff(), torch.bincount(rows, minlength=len(starts) - 1))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), max_size=30))
def test_histories_against_a_plain_version(pairs):
    users,items = np.array(pairs, dtype=int).reshape(-1, 2).T
    for h in (h := RatingHistories(users, items, 5, 7), pickle.loads(pickle.dumps(h))):
        assert h.counts().tolist() == [int((items == i).sum()) for i in range(7)] and h.counts('user').tolist() == [int((users == u).sum()) for u in range(5)]
        (at,of_users),(to,of_items) = h.by_user,h.by_item
        for u in range(5): assert of_users[at[u]:at[u+1]].tolist() == items[users == u].tolist()
        for i in range(7): assert of_items[to[i]:to[i+1]].tolist() == sorted(users[items == i].tolist())
        assert sorted(zip(*(o.tolist() for o in h.pairs()))) == sorted(pairs)

def test_cold_users_have_rows_but_no_ratings(sim):
    dls = CFDataLoaders.from_df(sim, splitter=ColdUserSplitter(0.2, seed=1))
    cold = (dls.counts('user') == 0).nonzero().squeeze(1)
    assert len(cold) == int(0.2 * sim.user.nunique()) and set(dls.valid_ds.users.tolist()) == set(cold.tolist())

def test_test_dl(sim):
    dls = CFDataLoaders.from_df(sim, seed=1)
    plain,labelled = dls.test_dl(sim.head(10)),dls.test_dl(sim.head(10), with_labels=True, bs=4)
    assert len(plain.one_batch()) == 2 and rows(labelled) == sim.rating.head(10).tolist() and len(labelled) == 3
    assert len(dls.test_dl(sim[['item', 'user']].head(5)).one_batch()[0]) == 5
    with pytest.raises(UnknownIdError, match='user: 1 unknown id: 5000'): dls.test_dl(pd.DataFrame(dict(user=[5000], item=[1])))

def test_empty_copies_keep_what_was_seen(sim):
    dls = CFDataLoaders.from_df(sim, seed=1)
    again = pickle.loads(pickle.dumps(dls.new_empty()))
    assert len(again.train_ds) == 0 and (again.seen[1] == dls.seen[1]).all() and again.classes == dls.classes
    assert torch.equal(again.counts(), dls.counts()) and again.new_empty().counts().sum() == len(dls.train_ds) # an empty copy of an empty copy

def test_ten_million_rows_are_120_megabytes():
    t = table(1000)
    assert sum(o.element_size() * o.nelement() for o in (t.users, t.items, t.ratings)) == 12 * 1000

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('where', ['cuda', 'cpu'])
def test_on_a_gpu(sim, where):
    dls = CFDataLoaders.from_df(sim, seed=1, device='cuda', table_device=where)
    assert all(o.device.type == 'cuda' for b in dls.train for o in b)
    assert rows(dls.train.new()) == rows(CFDataLoaders.from_df(sim, seed=1, device='cpu').train)

def test_times_are_kept_beside_the_rows_they_belong_to():
    df = pd.DataFrame(dict(user=[1, 1, 2, 2, 3, 3], item=[1, 2, 1, 3, 2, 3], rating=[1., 2, 3, 4, 5, 1], when=pd.to_datetime([f'1998-01-0{d} 12:00' for d in range(1, 7)])))
    secs = (df['when'] - pd.Timestamp(0)).dt.total_seconds().astype('int64').to_numpy()
    for col in (df['when'], df['when'].dt.tz_localize('UTC'), df['when'].astype(str), secs, secs.astype('float64')):
        dls = CFDataLoaders.from_df(df.assign(when=col), splitter=lambda o: ([5, 0, 2], [1, 3, 4]), time_name='when')
        assert dls.train_ds.times.tolist() == secs[[5, 0, 2]].tolist() and dls.valid_ds.times.tolist() == secs[[1, 3, 4]].tolist()
    assert CFDataLoaders.from_df(df).train_ds.times is None and dls.new_empty().train_ds.times.tolist() == []
    with pytest.raises(RatingsError, match='time_name'): CFDataLoaders.from_df(df, time_name='hour')
    with pytest.raises(RatingsError, match='not finite'): CFDataLoaders.from_df(df.assign(when=[np.inf]*6), time_name='when')

@pytest.mark.parametrize('text,said', [('user;item;rating\n1;2;3,5\n1;3;4,5,0\n', "sep=';'"), ('user,item,rating\nJürgen,2,3\n', "encoding='cp1252'"), ('Club\nuser,item,rating\n1,2,3\n', 'skiprows=1')])
def test_a_file_that_does_not_read_as_a_table_says_what_to_pass(tmp_path, text, said):
    (tmp_path/'x.csv').write_bytes(text.encode('cp1252'))
    with pytest.raises(ValueError, match=re.escape(said)): CFDataLoaders.from_csv(tmp_path/'x.csv')
