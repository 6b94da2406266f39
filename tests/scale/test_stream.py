"Ratings on disk: numbered as the frame would number them, shuffled within the bound, shared out without a gap, taken up where a pass stopped"
import json, pickle, subprocess, sys
import numpy as np, pandas as pd, pyarrow as pa, pyarrow.parquet as pq, pytest, torch
from hypothesis import given, settings, strategies as st
from fastcf.core import RatingsError
from fastcf.data.loaders import CFDataLoaders, RatingsDL
from fastcf.data.sources import simulate_ratings
from fastcf.learn.learner import cf_learner
from fastcf.learn import predict
from fastcf.rank.ials import IALS
from fastcf.scale.fused import FusedSGD
from fastcf.serve.checkpoint import CheckpointCallback
from fastcf.scale.stream import StreamDL, encode_ratings, open_ratings
from conftest import PowerCut

def frame(n=2000, kind='int'):
    df = simulate_ratings(60, 80, max(n, 200), 4, seed=3).iloc[:n, :3]
    df.columns = ['who', 'what', 'rating']
    if kind == 'str': df = df.astype({'who': str, 'what': str})
    if kind == 'category': df = df.astype({'who': 'category', 'what': 'category'})
    return df

def write(df, folder, groups=(700, 1, 1299)):
    "A folder of two files, with row groups of odd sizes"
    folder.mkdir()
    at = 0
    with pq.ParquetWriter(folder/'a.parquet', pa.Schema.from_pandas(df, preserve_index=False)) as w:
        for n in groups[:-1]: w.write_table(pa.Table.from_pandas(df[at:at+n], preserve_index=False)); at += n
    df[at:].to_parquet(folder/'b.parquet', index=False)
    return folder

def rows_of(table): return list(zip(table.catalog.user[table.users.numpy()], table.catalog.item[table.items.numpy()], table.ratings.tolist()))

@pytest.mark.parametrize('kind', ['int', 'str', 'category'])
def test_the_rows_and_their_ids_are_the_frames(tmp_path, kind):
    df = frame(kind=kind)
    train,valid = open_ratings(encode_ratings(write(df, tmp_path/'in'), tmp_path/'out', valid_pct=.25, seed=1))
    held = np.random.default_rng(1).random(len(df)) < .25
    for t,mask in ((train, ~held), (valid, held)):
        want = df[mask]
        assert list(t.catalog.user[t.users.numpy()]) == want.who.tolist() and list(t.catalog.item[t.items.numpy()]) == want.what.tolist()
        np.testing.assert_array_equal(t.ratings.numpy(), want.rating.to_numpy('float32'))
    whole = CFDataLoaders.from_df(df, device='cpu')
    assert list(train.catalog.user) == list(whole.catalog.user) and list(train.catalog.item) == list(whole.catalog.item)

def test_row_groups_and_files_do_not_matter(tmp_path):
    df = frame()
    tables = [open_ratings(encode_ratings(write(df, tmp_path/f'in{j}', g), tmp_path/f'out{j}', seed=1))[0] for j,g in enumerate([(700, 1, 1299), (1, 1, 1998), (1999, 1)])]
    assert all(torch.equal(t.users, tables[0].users) and torch.equal(t.ratings, tables[0].ratings) for t in tables)

def table(tmp_path, n=1000):
    path = tmp_path/f'out{n}'
    return open_ratings(path if path.exists() else encode_ratings(write(frame(n), tmp_path/f'in{n}', (n // 2, n - n // 2)), path, valid_pct=0))[0]

def rows(dl): return torch.cat([torch.stack([b[0].double(), b[1].double(), b[2].double()], 1) for b in dl])

@settings(deadline=None, max_examples=40, derandomize=True)
@given(n=st.integers(20, 300), bs=st.integers(1, 40), window=st.integers(1, 400), block=st.integers(1, 50), shuffle=st.booleans(), drop=st.booleans())
def test_every_row_comes_once_in_batches_of_bs(tmp_path_factory, n, bs, window, block, shuffle, drop):
    from fastcf.data.loaders import RatingsTable
    t = RatingsTable(torch.arange(n), torch.arange(n), torch.arange(n), None)
    dl = StreamDL(t, bs=bs, shuffle=shuffle, drop_last=drop, window=window, block=block, seed=0, device='cpu')
    sizes,seen = [len(b[0]) for b in dl],torch.cat([b[0] for b in dl.new()] or [torch.tensor([], dtype=torch.int64)])
    assert sizes[:n // bs] == [bs] * (n // bs) and len(sizes) == len(dl)
    assert len(set(seen.tolist())) == len(seen) == (n // bs * bs if drop else n)
    if not shuffle: assert seen.tolist() == list(range(len(seen)))

@settings(deadline=None, max_examples=40, derandomize=True)
@given(n=st.integers(30, 300), bs=st.integers(1, 40), world=st.integers(2, 5), drop=st.booleans(), block=st.integers(1, 50))
def test_processes_share_the_rows_in_equal_steps(n, bs, world, drop, block):
    from fastcf.data.loaders import RatingsTable
    t = RatingsTable(torch.arange(n), torch.arange(n), torch.arange(n), None)
    make = lambda r: StreamDL(t, bs=bs, shuffle=True, drop_last=drop, rank=r, world=world, block=block, window=64, seed=0, device='cpu')
    try: parts = [[b[0] for b in make(r)] for r in range(world)]
    except ValueError as e:
        assert 'too few' in str(e) and -(-(-(-n // world)) // bs) > n // world
        return
    assert len({len(p) for p in parts}) == 1 and all(len(b) for p in parts for b in p)
    seen = [int(o) for p in parts for b in p for o in b]
    assert len(seen) == len(set(seen)) and (drop or len(seen) == n)

def test_32_rows_and_two_processes(tmp_path):
    t = table(tmp_path, 32)
    parts = [StreamDL(t, bs=4, shuffle=True, rank=r, world=2, seed=0, device='cpu').get_idxs().tolist() for r in range(2)]
    assert len(parts[0]) == len(parts[1]) == 16 and sorted(parts[0] + parts[1]) == list(range(32))

def test_a_shuffle_stays_within_its_window_and_moves_with_each_epoch(tmp_path):
    dl = StreamDL(table(tmp_path), bs=10, shuffle=True, window=100, block=20, seed=0, device='cpu')
    first,second = dl.get_idxs(),dl.get_idxs()
    assert not torch.equal(first, second)
    for w in first.split(100): assert len({int(r) // 20 for r in w}) == 5 # five blocks of twenty, and no row of another
    assert torch.equal(first, dl.new().get_idxs()) # the same seed
    blocks = [int(w[0]) // 20 for w in first.split(20)]
    assert blocks != sorted(blocks)

@pytest.mark.parametrize('start', [0, 1, 7, 50, 99, 100])
def test_a_pass_can_be_taken_up(tmp_path, start):
    dl = StreamDL(table(tmp_path), bs=10, shuffle=True, window=100, block=20, seed=0, device='cpu')
    whole,dl = rows(dl),dl.new()
    dl.go_on_at(start)
    again = rows(dl) if start < 100 else torch.empty(0, 3, dtype=torch.float64)
    if start == 100: assert list(dl) == []
    assert torch.equal(whole[10 * start:], again)
    assert len(rows(dl)) == 1000 # the pass after it is whole

def test_it_trains_validates_and_predicts_in_ids(tmp_path):
    df = frame(kind='str')
    make = lambda: CFDataLoaders.stream_parquet(write(df, tmp_path/'in') if not (tmp_path/'in').exists() else tmp_path/'in', tmp_path/'out', bs=64, window=500, block=50, device='cpu')
    learns = [cf_learner(make(), seed=0) for _ in range(2)]
    for learn in learns:
        before = learn.validate()[0]
        with learn.no_bar(), learn.no_logging(): learn.fit(3, 1e-2)
        assert learn.validate()[0] < before
    assert torch.equal(*(o.model.user_weight.weight for o in learns)) # the same seed, the same tables
    assert len(learns[0].get_preds()[0]) == len(learns[0].dls.valid_ds)
    assert np.isfinite(learns[0].predict([df.who[0]], [df.what[0]]).prediction).all()
    with learns[0].no_bar(), learns[0].no_logging(): learns[0].fit(2, cbs=FusedSGD(threads=2))

def test_whoever_goes_over_the_rows_gives_their_pages_back(tmp_path):
    "A pass of FusedSGD, the histories and the prior of newcomers: after the last piece nothing of the files is left in memory"
    write(frame(), tmp_path/'in')
    dls = CFDataLoaders.stream_parquet(tmp_path/'in', tmp_path/'out', valid_pct=.1, seed=0, bs=128, device='cpu')
    learn,table,at = cf_learner(dls, factor_count=4, y_range=(.5, 5.5), seed=0),dls.train_ds,[]
    release = table.release
    table.release = lambda: (at.append(1), release())
    def gives_back(f):
        at.clear(); f()
        return len(at) > 0
    with learn.no_bar(), learn.no_logging(): assert gives_back(lambda: learn.fit(1, cbs=FusedSGD()))
    assert gives_back(lambda: dls.seen)
    assert gives_back(lambda: learn.fold_in({int(dls.catalog.item[0]): 4.}))

def test_files_that_changed_are_encoded_again(tmp_path):
    df = frame()
    folder = write(df, tmp_path/'in')
    make = lambda **kw: CFDataLoaders.stream_parquet(folder, tmp_path/'out', device='cpu', **kw)
    make()
    stamp = (tmp_path/'out'/'ratings.json').stat().st_mtime_ns
    make(bs=8)
    assert (tmp_path/'out'/'ratings.json').stat().st_mtime_ns == stamp
    df[:100].to_parquet(folder/'b.parquet', index=False)
    dls = make()
    assert len(dls.train_ds) + len(dls.valid_ds) == 801

def test_what_is_wrong_with_files_is_named(tmp_path):
    df = frame()
    for name,bad,said in [('nan', df.assign(rating=df.rating.where(df.index != 5)), '1 ratings that are missing'), ('null', df.assign(who=df.who.astype('Int64').where(df.index != 5)), '1 missing ids in b.parquet'),
                          ('text', df.assign(rating='good'), 'which are no numbers')]:
        (tmp_path/name).mkdir()
        df.astype({'who': 'Int64'} if name == 'null' else {})[:10].to_parquet(tmp_path/name/'a.parquet', index=False)
        bad[:10].to_parquet(tmp_path/name/'b.parquet', index=False)
        with pytest.raises(ValueError, match=said): encode_ratings(tmp_path/name, tmp_path/'out')
        assert not (tmp_path/'out').exists()
    with pytest.raises(FileNotFoundError, match='no file'): encode_ratings(tmp_path/'nothing', tmp_path/'out')
    with pytest.raises(ValueError, match="'stars': no such column for rating_name"): encode_ratings(write(df, tmp_path/'in'), tmp_path/'out', rating_name='stars')
    with pytest.raises(FileNotFoundError, match='encode_ratings'): open_ratings(tmp_path)

def test_ids_of_two_types_are_named(tmp_path):
    df = frame()
    (tmp_path/'in').mkdir()
    df.to_parquet(tmp_path/'in/a.parquet', index=False); df.astype({'who': str}).to_parquet(tmp_path/'in/b.parquet', index=False)
    with pytest.raises(ValueError, match='b.parquet'): encode_ratings(tmp_path/'in', tmp_path/'out')

def test_a_cut_column_is_found(tmp_path):
    t = table(tmp_path, 100)
    p = tmp_path/'out100'/'train.items'
    p.write_bytes(p.read_bytes()[:-4])
    with pytest.raises(ValueError, match='expected 400 bytes'): open_ratings(tmp_path/'out100')

def test_a_mapped_table_pickles_as_its_rows(tmp_path):
    t = table(tmp_path, 100)
    u = pickle.loads(pickle.dumps(t))
    assert torch.equal(t.users, u.users) and torch.equal(t.ratings, u.ratings)
    u.release(); t.release()
    assert torch.equal(t.items, u.items)

@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='reads /proc')
def test_memory_stays_within_the_window(tmp_path):
    "8 million rows are 96 MB; a window of 2**16 rows reads little of it at a time"
    n = 8_000_000
    (tmp_path/'out').mkdir()
    for name,kind in (('users', '<i4'), ('items', '<i4'), ('ratings', '<f4')): np.zeros(n, kind).tofile(tmp_path/f'out/train.{name}'); (tmp_path/f'out/valid.{name}').touch()
    for s in ('users', 'items'): pq.write_table(pa.table({'id': [0]}), tmp_path/f'out/{s}.parquet')
    (tmp_path/'out/ratings.json').write_text(json.dumps(dict(version=2, columns=dict(user='u', item='i', rating='r'), rows=dict(train=n, valid=0))))
    code = f"""
import torch
from fastcf.scale.stream import open_ratings, StreamDL
rss = lambda: int(next(l for l in open('/proc/self/status') if l.startswith('VmRSS')).split()[1]) / 1024
dl = StreamDL(open_ratings({str(tmp_path/'out')!r})[0], bs=2**14, shuffle=True, window=2**16, block=2**12, seed=0, device='cpu')
next(iter(dl)); start,most = rss(),0
for j,b in enumerate(dl):
    if j % 20 == 0: most = max(most, rss())
print(most - start)
"""
    grew = float(subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout)
    assert grew < 48, f'{grew} MB' # 5 when written

@pytest.mark.parametrize('engine,cut', [(None, dict(step=40)), (FusedSGD, dict(epoch=0))])
def test_a_streamed_fit_goes_on_from_a_checkpoint(tmp_path, engine, cut):
    folder = write(frame(), tmp_path/'in')
    def run(*cbs):
        learn = cf_learner(CFDataLoaders.stream_parquet(folder, tmp_path/'out', bs=64, window=500, block=50, path=tmp_path, device='cpu'), 4, seed=0)
        with learn.no_bar(), learn.no_logging(): learn.fit(3, 1e-2, cbs=[*([engine()] if engine else []), *cbs])
        return learn
    whole = run()
    with pytest.raises(KeyboardInterrupt): run(CheckpointCallback('run', every=1), PowerCut(**cut))
    resumed = run(CheckpointCallback('run', resume=True))
    for a,b in zip(whole.model.parameters(), resumed.model.parameters()): assert torch.equal(a, b)

# --- several processes, and from_parquet

@pytest.mark.parametrize('world', [2, 3])
def test_row_groups_of_5_1_and_1_thousand_rows_are_shared_in_equal_steps(tmp_path, world):
    df = simulate_ratings(300, 400, 7000, 4, seed=3).iloc[:, :3]
    (tmp_path/'in').mkdir()
    with pq.ParquetWriter(tmp_path/'in/a.parquet', pa.Schema.from_pandas(df, preserve_index=False)) as w:
        for a,b in ((0, 5000), (5000, 6000), (6000, 7000)): w.write_table(pa.Table.from_pandas(df[a:b], preserve_index=False))
    assert pq.ParquetFile(tmp_path/'in/a.parquet').num_row_groups == 3
    dls = [CFDataLoaders.from_parquet(tmp_path/'in', folder=tmp_path/'out', valid_pct=0, bs=64, drop_last=False, rank=r, world=world, device='cpu') for r in range(world)]
    batches,c = [list(o.train) for o in dls],dls[0].catalog
    assert len({len(b) for b in batches}) == 1 and max(abs(len(b[0]) - len(batches[0][j][0])) for o in batches for j,b in enumerate(o)) <= 1
    seen = [(int(u), int(i)) for o in batches for b in o for u,i in zip(c.user[b[0].numpy()], c.item[b[1].numpy()])]
    assert len(seen) == 7000 and set(seen) == set(zip(df.user, df.item))
    with pytest.raises(ValueError, match='too few for 8000 processes'): CFDataLoaders.from_parquet(tmp_path/'in', folder=tmp_path/'out', valid_pct=0, drop_last=False, rank=0, world=8000, device='cpu')

TOGETHER = """
import os, sys, time
from pathlib import Path
import fastcf.scale.stream as s
folder,rank = Path(sys.argv[1]),os.environ['RANK']
encode = s.encode_ratings
def slowly(*args):
    time.sleep(1)
    (folder/f'encoded{rank}').touch()
    return encode(*args)
s.encode_ratings = slowly
(folder/f'ready{rank}').touch()
while len(list(folder.glob('ready*'))) < 2: time.sleep(.01)
dls = s.CFDataLoaders.from_parquet(folder/'in', folder=folder/'out', valid_pct=0, bs=4, device='cpu')
c = dls.catalog
print(' '.join(f'{u}-{i}' for b in dls.train for u,i in zip(c.user[b[0].numpy()], c.item[b[1].numpy()])))
"""

@pytest.mark.skipif(sys.platform == 'win32', reason='locks by fcntl')
def test_two_processes_number_one_file_once_and_read_16_and_16_of_32_rows(tmp_path):
    import os
    df = frame(32)
    (tmp_path/'in').mkdir()
    df.to_parquet(tmp_path/'in/a.parquet', index=False)
    start = lambda r: subprocess.Popen([sys.executable, '-W', 'ignore', '-c', TOGETHER, tmp_path], env={**os.environ, 'RANK': str(r), 'WORLD_SIZE': '2'}, stdout=subprocess.PIPE, text=True)
    parts = [p.communicate(timeout=300)[0].split() for p in [start(r) for r in range(2)]]
    assert [len(p) for p in parts] == [16, 16] and set(parts[0] + parts[1]) == {f'{u}-{i}' for u,i in zip(df.who, df.what)}
    assert len(list(tmp_path.glob('encoded*'))) == 1

def test_from_parquet_leaves_on_disk_what_is_given_a_folder(tmp_path):
    df = frame()
    write(df, tmp_path/'in')
    dls = CFDataLoaders.from_parquet(tmp_path/'in', folder=tmp_path/'out', items=pd.DataFrame(dict(what=df.what.unique(), title='A film')), device='cpu', seed=1)
    assert isinstance(dls.train, StreamDL) and len(dls.train_ds) + len(dls.valid_ds) == len(df) and dls.catalog.titles([0]).tolist() == ['A film']
    whole = CFDataLoaders.from_parquet(tmp_path/'in', device='cpu')
    assert not isinstance(whole.train, StreamDL) and list(whole.catalog.user) == list(dls.catalog.user)
    for bad in (dict(splitter=len), dict(duplicates='last'), dict(shuffle=False)):
        with pytest.raises(TypeError, match=f'{[*bad][0]}: needs all ratings in memory'): CFDataLoaders.from_parquet(tmp_path/'in', folder=tmp_path/'out', **bad)
    with pytest.raises(TypeError, match='read_kwargs'): CFDataLoaders.from_parquet(tmp_path/'in', dict(columns=[]), folder=tmp_path/'out')
    with pytest.raises(ValueError, match='lies within'): CFDataLoaders.from_parquet(tmp_path/'in', folder=tmp_path/'in'/'out')

def test_columns_are_found_as_in_a_frame(tmp_path):
    df = frame().assign(when=1)[['when', 'rating', 'what', 'who']].rename(columns=dict(who='user_id', what='item_id'))
    write(df, tmp_path/'in')
    dls = CFDataLoaders.from_parquet(tmp_path/'in', folder=tmp_path/'out', device='cpu')
    whole = CFDataLoaders.from_parquet(tmp_path/'in', device='cpu')
    for a,b in ((dls.catalog.user, whole.catalog.user), (dls.catalog.item, whole.catalog.item)): assert a.name == b.name and list(a) == list(b)
    again = CFDataLoaders.from_parquet(tmp_path/'in', folder=tmp_path/'out', user_name='item_id', item_name='user_id', device='cpu')
    assert again.catalog.user.name == 'item_id'
    assert CFDataLoaders.from_parquet(tmp_path/'in', folder=tmp_path/'out', device='cpu').catalog.user.name == 'user_id' # not what was numbered last

def test_very_many_rows_read_whole_are_warned_of(tmp_path, monkeypatch):
    import fastcf.data.loaders as loaders
    write(frame(), tmp_path/'in')
    monkeypatch.setattr(loaders, '_MANY', 2000)
    with pytest.warns(UserWarning, match=r"2,000 rows take about .* from_parquet\(\.\.\., folder='numbered'\)"): CFDataLoaders.from_parquet(tmp_path/'in', device='cpu')

def test_means_of_rows_on_disk_are_those_in_memory(tmp_path, monkeypatch):
    from fastcf.data.loaders import RatingsTable
    from fastcf.learn.means import means_of
    write(frame(), tmp_path/'in')
    dls = CFDataLoaders.from_parquet(tmp_path/'in', folder=tmp_path/'out', device='cpu')
    t = dls.train_ds
    want = means_of(dls)
    monkeypatch.setattr(RatingsTable, 'blocks', lambda self, rows=1: ((self.users[a:a+137], self.items[a:a+137], self.ratings[a:a+137]) for a in range(0, len(self), 137)))
    got = means_of(dls)
    torch.testing.assert_close(got.user, want.user); torch.testing.assert_close(got.item, want.item)
    assert got.damping == pytest.approx(want.damping) and got.mean == pytest.approx(float(t.ratings.mean()))

@pytest.mark.parametrize('weighted', [False, True])
def test_interactions_on_disk_are_those_in_memory(tmp_path, weighted):
    df = frame()[['who', 'what']].drop_duplicates(ignore_index=True)
    if weighted: df['plays'] = np.arange(len(df)) % 7 + 1
    write(df, tmp_path/'in')
    kw = dict(weight_name='plays', weight_transform='log1p') if weighted else dict(rating_name=False)
    disk = CFDataLoaders.from_parquet(tmp_path/'in', folder=tmp_path/'out', valid_pct=.2, seed=0, bs=16, device='cpu', **kw)
    whole = CFDataLoaders.from_df(df, valid_pct=.2, seed=0, device='cpu', **kw)
    assert disk.is_interactions and disk.catalog.value_name == whole.catalog.value_name
    def rows(dls): return sorted(rows_of(dls.train_ds) + rows_of(dls.valid_ds))
    assert rows(disk) == rows(whole)
    assert sum(f.stat().st_size for f in (tmp_path/'out').glob('*.*') if f.suffix in ('.users', '.items', '.ratings')) == (12 if weighted else 8) * len(df)
    learn = cf_learner(disk, 4, seed=0)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-2); learn.fit(1, cbs=FusedSGD()); learn.fit(1, cbs=IALS())
    user = df.who.iloc[0]
    assert not set(learn.recommend(user, 5).what) & set(disk.catalog.item[disk.train_ds.items[disk.train_ds.users == disk.catalog.user.row(user)].numpy()])
    assert len(pickle.loads(pickle.dumps(disk.train_ds)).ratings) == len(disk.train_ds)
    again = CFDataLoaders.from_parquet(tmp_path/'in', folder=tmp_path/'out', valid_pct=.2, seed=0, device='cpu', **kw)
    assert torch.equal(again.train_ds.users, disk.train_ds.users)

def test_a_folder_of_another_release_is_named(tmp_path):
    folder = encode_ratings(write(frame(), tmp_path/'in'), tmp_path/'out')
    about = json.loads((folder/'ratings.json').read_text())
    (folder/'ratings.json').write_text(json.dumps(about | dict(version=1)))
    with pytest.raises(ValueError, match='another release'): open_ratings(folder)
    assert len(CFDataLoaders.stream_parquet(tmp_path/'in', folder, device='cpu').train_ds) # numbered again

def test_a_folder_serves_ratings_or_interactions_as_asked(tmp_path):
    write(frame(), tmp_path/'in')
    ask = lambda **kw: CFDataLoaders.from_parquet(tmp_path/'in', folder=tmp_path/'out', device='cpu', **kw)
    assert not ask().is_interactions and ask(rating_name=False).is_interactions and ask(weight_name='rating').catalog.value_name == 'rating'
    assert ask(weight_name='rating', weight_transform=2).train_ds.ratings.max() == 2 and not ask().is_interactions

def test_numbers_of_numpy_are_numbers(tmp_path):
    write(frame(), tmp_path/'in')
    ask = lambda: CFDataLoaders.from_parquet(tmp_path/'in', folder=tmp_path/'out', weight_name='rating', weight_transform=np.float32(2), valid_pct=np.float32(.1), seed=3, device='cpu')
    assert ask().train_ds.ratings.max() == 2
    at = (tmp_path/'out/ratings.json').stat().st_mtime_ns
    ask()
    assert (tmp_path/'out/ratings.json').stat().st_mtime_ns == at # not numbered again

def test_pairs_alone_are_understood_as_interactions(tmp_path):
    write(frame()[['who', 'what']], tmp_path/'in')
    with pytest.warns(UserWarning, match='no column of ratings: understood as interactions'): dls = CFDataLoaders.from_parquet(tmp_path/'in', folder=tmp_path/'out', device='cpu')
    assert dls.is_interactions

@pytest.mark.parametrize('weights,said', [([1, 0, 2], '1 weights of 0 or below'), ([1, float('nan'), 2], '1 weights that are missing'), (list('abc'), 'which are no numbers')])
def test_weights_that_are_none_are_named(tmp_path, weights, said):
    write(pd.DataFrame(dict(user=[1, 2, 3], item=[1, 2, 3], plays=weights)), tmp_path/'in')
    with pytest.raises(ValueError, match=said): encode_ratings(tmp_path/'in', tmp_path/'out', weight_name='plays')

@pytest.mark.parametrize('kwargs,error,said', [
    (dict(weight_name='rating', rating_name='rating'), ValueError, 'weight_name: these rows have ratings already'), (dict(weight_name='plays'), ValueError, 'no such column for weight_name'),
    (dict(weight_name='who'), ValueError, 'one column would serve twice'), (dict(weight_name='rating', weight_transform='capped'), ValueError, "'capped' needs all weights at once"),
    (dict(weight_name='rating', weight_transform='square'), ValueError, 'weight_transform: expected'), (dict(rating_name=False, weight_transform='log2'), ValueError, 'weight_transform: expected'), (dict(liked=4.), TypeError, 'liked: needs all ratings in memory')])
def test_what_cannot_be_asked_of_interactions_on_disk(tmp_path, kwargs, error, said):
    write(frame(), tmp_path/'in')
    with pytest.raises(error, match=said): CFDataLoaders.from_parquet(tmp_path/'in', folder=tmp_path/'out', **kwargs)
