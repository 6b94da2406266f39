"A folder, a file, a header and a value of JSON, each at the edge of what is taken; and that nothing stays open or lies about"
import ctypes, errno, hashlib, json, os, shutil, sys, time
from pathlib import Path
import numpy as np, pandas as pd, pytest, torch
from fastcf.serve import format as fmt
from fastcf.serve.format import SUMS, Folder, RecommenderFileError, frame_from_json, frame_to_json, from_json, parse_json, sha256_file, sync, to_json, values_from_json, values_to_json, write_folder

def files(**more): return {'a.json': '{"x": 1}', 't.safetensors': dict(v=torch.arange(6.).view(2, 3), n=torch.arange(3), none=torch.empty(0, 2)), **more}

@pytest.fixture
def folder(tmp_path): return write_folder(tmp_path/'f', files())

def sum_again(folder): (folder/SUMS).write_text(''.join(f'{hashlib.sha256((folder/n).read_bytes()).hexdigest()}  {n}\n' for n in ('a.json', 't.safetensors')))
def descriptors(): return len(os.listdir('/proc/self/fd'))
LINUX = pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')

# --- values

@pytest.mark.parametrize('o', [np.float64('nan'), np.float32('-inf'), np.int8(-3), np.bool_(True), np.str_('x'), np.array([1, 2]), [np.float32(.5)]], ids=repr)
def test_values_of_numpy_are_written_as_pythons(o):
    back = from_json(json.loads(json.dumps(to_json(o), allow_nan=False)))
    assert np.array_equal(back, o, equal_nan=np.asarray(o).dtype.kind == 'f')

def test_signs_of_what_is_not_finite():
    assert from_json({'float': '-inf'}) == -np.inf and from_json({'float': 'inf'}) == np.inf and np.isnan(from_json({'float': '-nan'}))
    assert to_json(1.5) == 1.5 and type(to_json(True)) is bool and to_json(None) is None and to_json({3, 1}) == {'set': [1, 3]}
    for bad in ({}, {'a': 1, 'b': 2}, {'exec': 'x'}):
        with pytest.raises((ValueError, KeyError)): from_json(bad)

def test_frames_come_back():
    df = pd.DataFrame({'title': ['a', None], ('two', 'levels'): pd.Categorical(['x', 'y'], ['y', 'x'], ordered=True), 3: [(1, 2), 'z']}, index=pd.Index([('p', 1), ('q', 2)], tupleize_cols=False, name='item'))
    back = frame_from_json(json.loads(json.dumps(frame_to_json(df))))
    pd.testing.assert_frame_equal(back, df)
    assert not isinstance(back.index, pd.MultiIndex)
    plain = values_from_json(values_to_json(pd.Series(pd.Categorical(['x', None, 'y']))))
    assert plain.dtype == pd.CategoricalDtype(['x', 'y'], False) and plain.isna().tolist() == [False, True, False]
    assert values_to_json(pd.Series(['a'], dtype='string'))['dtype'] == 'str' and 'categories' not in values_to_json(pd.Series([1]))
    with pytest.raises(TypeError, match="'c': values of dtype complex128 cannot be written"): values_to_json(pd.Series([1j], name='c'))
    with pytest.raises(ValueError, match="dtype: 'complex128' is not one that is written"): values_from_json(dict(dtype='complex128', values=[]))

@pytest.mark.parametrize('text', ['{"a": 1, "a": 1}', '[{"b": {"a": 1, "c": 2, "a": 3}}]', 'NaN', '[Infinity]', '-Infinity', '{', ''])
def test_json_is_strict(text):
    with pytest.raises(ValueError): parse_json(text)

def test_json_that_is_fine(): assert parse_json('{"a": [1, 2.5, null, true, "x"], "b": {}}') == {'a': [1, 2.5, None, True, 'x'], 'b': {}}

# --- files

def test_sums_of_files_of_any_length(tmp_path):
    for n in (0, 1, 2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20 + 5):
        data = os.urandom(n)
        (tmp_path/'x').write_bytes(data)
        assert sha256_file(tmp_path/'x') == hashlib.sha256(data).hexdigest()

@pytest.mark.parametrize('code,raised', [(errno.EINVAL, False), (errno.EBADF, False), (errno.EIO, True), (errno.ENOSPC, True)])
@LINUX
def test_a_disk_that_does_not_sync(tmp_path, monkeypatch, code, raised):
    "A system that cannot sync a folder is let go, a disk that fails is not; no descriptor stays open"
    (tmp_path/'x').write_text('x')
    before = descriptors()
    def fail(fd): raise OSError(code, 'as it is')
    monkeypatch.setattr(fmt.os, 'fsync', fail)
    if raised:
        with pytest.raises(OSError, match='as it is'): sync(tmp_path/'x')
    else: sync(tmp_path/'x')
    assert descriptors() == before

def test_a_folder_that_cannot_be_opened_is_not_synced(tmp_path, monkeypatch):
    def no(*args): raise PermissionError(13, 'a folder')
    monkeypatch.setattr(fmt.os, 'open', no)
    assert sync(tmp_path) is None

def test_every_file_is_on_the_disk_before_the_folder_appears(tmp_path, monkeypatch):
    done,put = [],fmt._put
    monkeypatch.setattr(fmt, 'sync', lambda path: done.append(Path(path).name))
    monkeypatch.setattr(fmt, '_put', lambda part, folder: (done.append('put'), put(part, folder)))
    write_folder(tmp_path/'f', files(**{'README.md': 'read me'}))
    at = done.index('put')
    assert {'a.json', 't.safetensors', 'README.md', SUMS} <= set(done[:at]) and done[at-1].endswith('.part') and done[at+1:] == [tmp_path.name]

def test_what_is_written(folder):
    assert sorted(os.listdir(folder)) == [SUMS, 'a.json', 't.safetensors'] and os.listdir(folder.parent) == ['f']
    sum_before = (folder/SUMS).read_text(); sum_again(folder)
    assert (folder/SUMS).read_text() == sum_before
    with pytest.MonkeyPatch.context() as m:
        m.setitem(sys.modules, 'safetensors.torch', None)
        with pytest.raises(ImportError, match=r"pip install 'fastcf\[files\]'"): write_folder(folder, files())
    assert sorted(os.listdir(folder)) == [SUMS, 'a.json', 't.safetensors'] and os.listdir(folder.parent) == ['f']

@pytest.mark.parametrize('in_one_step', [True, False])
@pytest.mark.parametrize('left_behind', [True, False])
def test_a_folder_is_replaced_as_a_whole(folder, monkeypatch, in_one_step, left_behind):
    if not in_one_step: monkeypatch.setattr(fmt, '_exchange', lambda a, b: False)
    if left_behind: (folder.parent/'.f.old').mkdir(); (folder.parent/'.f.old/x').write_text('x')
    (folder/'README.md').write_text('x'); (folder/'.gitattributes').write_text('x')
    write_folder(folder, {'b.json': '{}'})
    assert sorted(os.listdir(folder)) == [SUMS, 'b.json'] and os.listdir(folder.parent) == ['f']

@LINUX
def test_two_folders_change_places_in_one_step(tmp_path):
    (tmp_path/'a').mkdir(); (tmp_path/'b').mkdir(); (tmp_path/'a/x').touch()
    if not fmt._exchange(tmp_path/'a', tmp_path/'b'):
        assert ctypes.get_errno() in (errno.EINVAL, errno.ENOSYS) # asked, and not on this file system
        pytest.skip('not on this file system')
    assert os.listdir(tmp_path/'b') == ['x'] and os.listdir(tmp_path/'a') == []
    assert fmt._exchange(tmp_path/'a', tmp_path/'none') is False
    with pytest.MonkeyPatch.context() as m:
        m.setattr(fmt.os, 'name', 'nt')
        assert fmt._exchange(tmp_path/'a', tmp_path/'b') is False
    assert os.listdir(tmp_path/'b') == ['x']

@pytest.mark.parametrize('there,taken', [([], True), ([SUMS], True), ([SUMS, 'a.json', 'x.safetensors', 'README.md', '.gitattributes'], True), (['a.json'], False), (['README.md'], False), ([SUMS, 'A.json'], False), ([SUMS, 'x.txt'], False), ([SUMS, '.git'], False)])
def test_what_may_be_replaced(tmp_path, there, taken):
    (tmp_path/'f').mkdir()
    for n in there: (tmp_path/'f'/n).write_text('x')
    if taken: assert (write_folder(tmp_path/'f', files())/'a.json').exists()
    else:
        with pytest.raises(RecommenderFileError, match='the folder is there and holds other things'): write_folder(tmp_path/'f', files())
        assert sorted(os.listdir(tmp_path/'f')) == sorted(there)

def test_parts_that_were_left_are_cleared_after_a_day(tmp_path):
    now = time.time()
    ages = {'.f.a.part': 86_400 + 600, '.f.b.part': 86_400 - 600, '.g.a.part': 10**6, '.fa.c.part': 10**6}
    for n,age in ages.items(): (tmp_path/n).mkdir(); os.utime(tmp_path/n, (now - age, now - age))
    (tmp_path/'.f.d.part').write_text('no folder'); os.utime(tmp_path/'.f.d.part', (0, 0)) # what cannot be cleared is let go
    write_folder(tmp_path/'f', files())
    assert sorted(os.listdir(tmp_path)) == ['.f.b.part', '.f.d.part', '.fa.c.part', '.g.a.part', 'f']

def test_folders_on_the_way_are_made(tmp_path): assert os.listdir(write_folder(tmp_path/'a/b/f', files()).parent) == ['f']

def test_the_folder_itself_comes_before_one_that_was_set_aside(folder):
    aside = folder.parent/'.f.old'
    shutil.copytree(folder, aside); (aside/'a.json').write_text('{"x": 2}'); sum_again(aside)
    with Folder(folder) as f: assert f.read_json('a.json') == {'x': 1}
    shutil.rmtree(folder)
    with Folder(folder) as f: assert f.read_json('a.json') == {'x': 2}
    shutil.rmtree(aside)
    with pytest.raises(RecommenderFileError, match='there is no such folder'): Folder(folder)

# --- reading

@LINUX
def test_nothing_stays_open(folder):
    before = descriptors()
    with Folder(folder) as f:
        assert sorted(f) == ['a.json', 't.safetensors'] and f.fd('a.json') == f.fd('a.json')
        kept = f.read_tensors('t.safetensors', dict(v=('float32', [2, 3]), n=('int64', [None]), none=('float32', [0, 2])))
    f.close() # again does no harm
    del kept['v'], kept['n']
    kept.clear()
    assert descriptors() == before
    (folder/'a.json').write_text('{"x": 2}')
    with pytest.raises(RecommenderFileError, match='a.json: its SHA-256'): Folder(folder)
    (folder/'a.json').unlink(); (folder/'a.json').mkdir()
    with pytest.raises(RecommenderFileError, match='not a plain file'): Folder(folder)
    assert descriptors() == before

def test_tables_stay_when_the_folder_is_gone(folder):
    with Folder(folder) as f: t = f.read_tensors('t.safetensors', dict(v=('float32', [2, 3]), n=('int64', [3]), none=('float32', [None, 2])))
    shutil.rmtree(folder)
    assert torch.equal(t['v'], torch.arange(6.).view(2, 3)) and t['n'].tolist() == [0, 1, 2] and t['none'].shape == (0, 2)

@pytest.mark.parametrize('expected', [dict(v=('float32', [3, 2])), dict(v=('float32', [6])), dict(v=('float32', [2, 3, 1])), dict(v=('float64', [2, 3])), dict(v=('float32', [None, 2])), dict(v=('float32', [2, None]), n=('int32', [3]))])
def test_another_shape_or_dtype_is_named(folder, expected):
    both = dict(v=('float32', [2, 3]), n=('int64', [3]), none=('float32', [0, 2])) | expected
    with Folder(folder) as f, pytest.raises(RecommenderFileError, match=r"t.safetensors: '[vn]' is (float32|int64) \[.*\], expected"): f.read_tensors('t.safetensors', both)

def test_keys_and_texts(folder):
    with Folder(folder) as f:
        assert f.read_json('a.json') == f.read_json('a.json', ['x']) == {'x': 1}
        with pytest.raises(RecommenderFileError, match="a.json: 'y' is missing"): f.read_json('a.json', ['x', 'y'])
        with pytest.raises(RecommenderFileError, match="a.json: 'x' was not expected"): f.read_json('a.json', [])
        assert f.read('a.json') == f.read('a.json', 8) == '{"x": 1}'
        with pytest.raises(RecommenderFileError, match='8 bytes long, where at most 7 can be'): f.read('a.json', 7)
        with pytest.raises(RecommenderFileError, match='cannot be opened .No such file'): f.fd('none.json')

def test_large_texts_are_read_whole(tmp_path):
    text = json.dumps(dict(x='é' * 2**20 + 'z'), ensure_ascii=False)
    with Folder(write_folder(tmp_path/'f', {'a.json': text})) as f: assert f.read('a.json') == text and f.read('a.json') == text

@pytest.mark.parametrize('change,words', [
    (lambda s: s.replace('\n', '\n\n', 1), 'not a list of sums'), (lambda s: s.split('\n')[0] + '\n' + s, 'not a list of sums'), (lambda s: s[1:], 'not a list of sums'), (lambda s: s.upper(), 'not a list of sums'),
    (lambda s: '', 'not a list of sums'), (lambda s: s.rstrip('\n'), 'not a list of sums'), (lambda s: s + 'x', 'not a list of sums'), (lambda s: s.split('\n')[0] + '\n', 'not one of the files that were saved'), (lambda s: s + '0' * 64 + '  z.json\n', 'z.json: missing')])
def test_sums_that_are_none(folder, change, words):
    (folder/SUMS).write_text(change((folder/SUMS).read_text()))
    with pytest.raises(RecommenderFileError, match=words): Folder(folder)

def test_sums_of_just_the_length_that_can_be(folder):
    (folder/SUMS).write_bytes(b'0' * 2**16)
    with pytest.raises(RecommenderFileError, match='not a list'): Folder(folder)
    (folder/SUMS).write_bytes(b'0' * (2**16 + 1))
    with pytest.raises(RecommenderFileError, match='65,537 bytes long'): Folder(folder)

# --- headers

def with_header(folder, head, data=b'', length=None):
    head = head if isinstance(head, bytes) else json.dumps(head).encode()
    (folder/'t.safetensors').write_bytes((len(head) if length is None else length).to_bytes(8, 'little') + head + data)
    sum_again(folder)
    expected = dict(v=('float32', [2]))
    with Folder(folder) as f: return f.read_tensors('t.safetensors', expected)

ONE = dict(v=dict(dtype='F32', shape=[2], data_offsets=[0, 8]))

def test_a_header_that_is_right(folder):
    data = np.array([1.5, -2], 'float32').tobytes()
    for head in (ONE, {'__metadata__': {'x': 'y'}, **ONE}): assert with_header(folder, head, data)['v'].tolist() == [1.5, -2]

def test_a_file_of_nothing_but_its_header(folder):
    head = json.dumps(dict(v=dict(dtype='F32', shape=[0], data_offsets=[0, 0]))).encode()
    (folder/'t.safetensors').write_bytes(len(head).to_bytes(8, 'little') + head); sum_again(folder)
    with Folder(folder) as f: assert f.read_tensors('t.safetensors', dict(v=('float32', [0])))['v'].shape == (0,)
    (folder/'t.safetensors').write_bytes((2).to_bytes(8, 'little') + b'{}'); sum_again(folder)
    with Folder(folder) as f: assert f.read_tensors('t.safetensors', {}) == {}

def test_files_are_opened_by_their_paths_too(folder, monkeypatch):
    monkeypatch.setattr(fmt, 'BY_DESCRIPTOR', False)
    with Folder(folder) as f: assert f.read_json('a.json') == {'x': 1}
    (folder/'a.json').rename(folder.parent/'a.json'); (folder/'a.json').symlink_to(folder.parent/'a.json')
    with pytest.raises(RecommenderFileError, match='a link is not followed'): Folder(folder)

def test_lists_in_lists_without_end(folder):
    (folder/'a.json').write_text('[' * 10**5); sum_again(folder)
    with Folder(folder) as f, pytest.raises(RecommenderFileError, match='a.json: not JSON as it was written'): f.read_json('a.json')

@pytest.mark.parametrize('head,data,length', [
    (ONE, bytes(7), None), (ONE, bytes(9), None), (ONE, bytes(8), 10**6), (ONE, bytes(8), 2**63), (b'{}', b'', 1), (b'', b'', None), (b'{}', bytes(8), None), (b'[]', bytes(8), None), (b'3', bytes(8), None),
    (dict(v=dict(ONE['v'], data_offsets=[1, 9])), bytes(9), None), (dict(v=dict(ONE['v'], data_offsets=[0, 4])), bytes(4), None), (dict(v=dict(ONE['v'], data_offsets=[8, 0])), bytes(8), None), (dict(v=dict(ONE['v'], data_offsets=[0, 8, 8])), bytes(8), None),
    (dict(v=dict(ONE['v'], shape=[-2])), bytes(8), None), (dict(v=dict(ONE['v'], shape=[-1, -2])), bytes(8), None), (dict(v=dict(ONE['v'], shape=[2.])), bytes(8), None), (dict(v=dict(ONE['v'], shape=[True, 2])), bytes(8), None), (dict(v=dict(ONE['v'], shape=2)), bytes(8), None),
    (dict(v=dict(ONE['v'], shape=['2'])), bytes(8), None), (dict(v=dict(ONE['v'], dtype='F16')), bytes(4), None), (dict(v=dict(dtype='F32', shape=[2])), bytes(8), None), (dict(v=3), bytes(8), None), (dict(v=dict(ONE['v'], shape=[2**62, 4])), bytes(8), None),
    (dict(ONE, w=dict(dtype='F32', shape=[1], data_offsets=[4, 8])), bytes(8), None), (dict(ONE, w=dict(dtype='F32', shape=[1], data_offsets=[12, 16])), bytes(16), None)])
def test_a_header_that_is_not_is_refused(folder, head, data, length):
    with pytest.raises(RecommenderFileError, match='t.safetensors: (not a safetensors file|.w. was not expected|an object was expected)'): with_header(folder, head, data, length)
