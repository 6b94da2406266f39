"Tables as they come, and encoders that meet what they never saw"
import warnings
import numpy as np, pandas as pd, pytest, torch
from hypothesis import given, settings, strategies as st
from fastcf.data.features import MetadataEncoder, metadata_features

def frame(n=40, **cols): return pd.DataFrame(dict(id=range(n), **cols))

def test_each_kind_of_column():
    n = 40
    df = frame(n, number=np.arange(n, dtype=float), date=pd.date_range('2020-01-01', periods=n, tz='Europe/Paris'), day=[d.date() for d in pd.date_range('2020-01-01', periods=n)],
               cat=pd.Categorical(['a', 'b'] * 20), flag=[True, False] * 20, many=[('x', 'y'), ['y'], {'x'}, ()] * 10, title=[f't{i}' for i in range(n)],
               odd=[{}] * n, same=['k'] * n, none=[None] * n, ints=pd.array([1, 2, 3, None] * 10, dtype='Int64'))
    before = df.copy(deep=True)
    enc = MetadataEncoder(df)
    assert {c.name: c.kind for c in enc.columns} == dict(number='number', date='date', day='date', cat='category', flag='category', many='many', ints='number')
    assert set(enc.left_out) == {'title', 'odd', 'same', 'none'}
    x,names = enc.encode(df)
    f = pd.DataFrame(x.numpy(), columns=names)
    assert x.dtype == torch.float32 and x.shape == (n, len(names)) and len(set(names)) == len(names) and names == enc.names
    assert abs(f.number.mean()) < 1e-6 and f.number.std(ddof=0) == pytest.approx(1, abs=1e-5)
    assert (f[['many=x', 'many=y', 'many missing']].iloc[:4].to_numpy() == [[1, 1, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]]).all()
    assert (f['ints missing'] == df.ints.isna()).all() and (f.ints[df.ints.isna()] == 0).all()
    assert np.allclose(f.date, f.number, atol=1e-5) and np.allclose(f.day, f.number, atol=1e-5)
    bins = f[[c for c in f if str(c).startswith('number ')]]
    assert bins.shape[1] == 5 and (bins.sum(axis=1) == 1).all() and (bins.sum() == 8).all()
    pd.testing.assert_frame_equal(df, before)

def test_unseen_values_gaps_and_ids_without_a_row():
    df = frame(40, cat=(['a'] * 20 + ['b'] * 19 + ['rare']), x=[None, *range(39)])
    enc = MetadataEncoder(df)
    new = pd.DataFrame(dict(id=[7, 8, 9], cat=['never', None, 'a'], extra=1))
    x,names = enc.encode(new, [9, 7, 'gone'])
    f = pd.DataFrame(x.numpy(), columns=names)
    assert 'cat missing' not in f and list(f['cat=a']) == [1, 0, 0] and list(f['cat: other']) == [0, 1, 0] and (f['x missing'] == 1).all()
    assert (f[[c for c in f if c not in ('cat=a', 'cat: other', 'x missing')]] == 0).all().all()

def test_infinite_and_extreme_numbers_stay_in_bounds():
    x,_ = metadata_features(frame(40, v=[np.inf, -np.inf, np.nan, 1e300, *np.arange(36.)]), range(40))
    assert torch.isfinite(x).all() and x.abs().max() <= 4

def test_one_value_and_gaps_is_a_flag():
    x,names = metadata_features(frame(4, v=[3., 3, None, 3]), range(4))
    assert x[:, names.index('v missing')].tolist() == [0, 0, 1, 0] and (x[:, names.index('v')] == 0).all()

def test_ids_in_the_index_or_the_first_column():
    df = frame(20, v=np.arange(20))
    assert torch.equal(metadata_features(df, [3, 1])[0], metadata_features(df.set_index('id'), [3, 1])[0])

def test_nothing_usable_gives_no_features():
    x,names = metadata_features(frame(20, t=[f't{i}' for i in range(20)]), [1, 2, 3])
    assert x.shape == (3, 0) and names == []

def test_errors():
    with pytest.raises(TypeError, match='df: expected a pandas DataFrame'): MetadataEncoder([1])
    with pytest.raises(ValueError, match='df: no columns and no named index'): MetadataEncoder(pd.DataFrame())
    with pytest.raises(ValueError, match=r"repeated ids in 'id', such as 0"): MetadataEncoder(pd.concat([frame(3, v=1), frame(3, v=2)]))
    df = frame(3, v=1); df.insert(2, 'v', 2, allow_duplicates=True)
    with pytest.raises(ValueError, match='same name'): MetadataEncoder(df)

cell = st.one_of(st.none(), st.integers(-5, 5), st.floats(), st.text(max_size=2), st.booleans(), st.lists(st.sampled_from('abc'), max_size=3), st.just(pd.NaT), st.just(pd.NA), st.just({}))
@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(cell, cell), min_size=1, max_size=12), st.integers(1, 4))
def test_any_table_gives_finite_features(rows, min_count):
    df = pd.DataFrame(dict(id=range(len(rows)), a=pd.Series([r[0] for r in rows], dtype=object), b=pd.Series([r[1] for r in rows], dtype=object)))
    enc = MetadataEncoder(df, min_count=min_count)
    x,names = enc.encode(df)
    assert torch.isfinite(x).all() and x.shape == (len(df), len(names)) and len(enc.columns) + len(enc.left_out) == 2
    y,_ = enc.encode(df, [*range(len(rows)-1, -1, -1)])
    assert torch.equal(x.flip(0), y)

@pytest.mark.parametrize('sep', ['|', ';', ', ', ' / ', ','])
def test_values_joined_in_a_cell_are_warned_of_with_the_line_that_splits_them(sep):
    import itertools
    sets = [list(o) for n in (1, 2, 3) for o in itertools.combinations(['Action', 'Comedy', 'Drama', 'War', 'Film-Noir'], n)] * 2
    df = pd.DataFrame(dict(id=range(len(sets)), genres=[sep.join(o) for o in sets], title=[f'Film, the {j}th' for j in range(len(sets))]))
    with pytest.warns(UserWarning, match="'genres': most cells hold several values") as w: MetadataEncoder(df, min_count=1)
    assert len(w) == 1
    exec(str(w[0].message).partition('Split them first: ')[2], dict(df=df)) # what is said works
    assert {f'genres={g}' for g in ('Action', 'Comedy', 'Drama', 'War', 'Film-Noir')} <= set(MetadataEncoder(df, min_count=1).names)

@pytest.mark.parametrize('values', [['Jones, Ann', 'Smith, Bob', 'Brown, Cy', 'Black, Di'] * 5, ['a', 'b'] * 10, [f'The good, the bad, and film {j}' for j in range(20)], ['x; y'] * 20])
def test_text_with_separators_of_its_own_is_left_alone(values):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        MetadataEncoder(pd.DataFrame(dict(id=range(len(values)), v=values)))

@pytest.mark.parametrize('genres', [['Drama|Comedy', 'Action|War', 'Drama|War', 'Comedy|Romance'], ['Drama|Comedy', 'Drama']])
def test_bars_that_join_are_warned_of_in_a_small_table_too(genres):
    with pytest.warns(UserWarning, match="most cells hold several values with '|'"): MetadataEncoder(pd.DataFrame(dict(id=range(60), genres=(genres * 30)[:60])))

def drifted(learned, later):
    "Features of later values by what was learned, beside those that values of the same kind have; and the warnings"
    n = len(learned)
    enc = MetadataEncoder(pd.DataFrame(dict(id=range(n), c=learned)), min_count=1)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        x,_ = enc.encode(pd.DataFrame(dict(id=range(len(later)), c=later)))
    return x,enc.encode(pd.DataFrame(dict(id=range(n), c=learned)))[0],[str(w.message) for w in said]

DATES = pd.date_range('2020-01-01', periods=40)
@pytest.mark.parametrize('learned,later,same', [
    (pd.Categorical([1, 2, 3, 1] * 10), [1., 3., np.nan], [0, 2]), (pd.Categorical([1, 2, 3, 1] * 10), ['1', '3.0'], [0, 2]), (pd.Categorical([1., 2., 3., 1.] * 10), [1, 3], [0, 2]), (['1', '2'] * 20, [1, 2], [0, 1]),
    ([True, False] * 20, [1, 0], [0, 1]), ([True, False] * 20, [1., np.nan], [0]), ([True, False] * 20, ['true', 'False'], [0, 1]), ([1, 0] * 20, [True, False], [0, 1]),
    (DATES, ['2020-01-01', '2020-01-05'], [0, 4]), (DATES, DATES.tz_localize('UTC')[[0, 4]], [0, 4]), (DATES, [o.date() for o in DATES[[0, 4]]], [0, 4]), (list(DATES.astype(str)), [], []), ([o.date() for o in DATES], DATES[[0, 4]], [0, 4]),
    (np.arange(40) * 1.5, ['1.5', '6.0'], [1, 4]), (np.arange(40), pd.array([1, None], dtype='Int64'), [1]), ([['a'], ['a', 'b']] * 20, ['a', 'a'], [0, 0]), (['a', 'b'] * 20, [['a'], ['b']], [0, 1]), ([[1, 2], [2]] * 20, [[1., 2.], ['2']], [0, 1])])
def test_the_same_values_in_another_type_are_the_same(learned, later, same):
    x,own,said = drifted(learned, later)
    assert torch.allclose(x[:len(same), :own.shape[1]], own[same], atol=1e-5) and said == []

@pytest.mark.parametrize('learned,later', [(DATES, ['never', 'soon']), (np.arange(40) * 1.5, ['x', 'y']), (pd.Categorical([1, 2] * 20), ['one', 'two']), (['a', 'b'] * 20, [1, 2])])
def test_values_of_another_kind_are_warned_of(learned, later):
    said = drifted(learned, later)[2]
    assert len(said) == 1 and said[0].startswith("'c': learned from") and 'taken for unknown' in said[0]

def test_a_new_value_of_the_same_kind_is_no_drift():
    assert drifted(['a', 'b'] * 20, ['z'])[2] == drifted([1., 2.] * 20, [np.nan, None])[2] == drifted(pd.Categorical([1, 2] * 20), [7])[2] == []
