"Faulty tables and what is said of them; splitters, vocabularies and the simulator against plain versions"
import copy, datetime, pickle, tracemalloc, uuid
from decimal import Decimal
import numpy as np, pandas as pd, pytest
from fastai.data.transforms import IndexSplitter, RandomSplitter
from hypothesis import given, settings, strategies as st
from fastcf.data.splits import ColdItemSplitter, ColdUserSplitter, LeaveLastOutSplitter, TimeSplitter
from fastcf.core import RatingsError, UnknownIdError
from fastcf.data.vocab import Vocab
from fastcf.data.checks import check_ratings, find_time
from fastcf.data.sources import simulate_ratings

def table(user=('a', 'a', 'b', 'b'), item=(1, 2, 1, 2), rating=(3., 4., 5., 1.), index=(10, 11, 12, 13), **more):
    columns = {k: (v.array if isinstance(v, pd.Series) else v) if hasattr(v, 'dtype') else list(v) for k,v in dict(user=user, item=item, rating=rating).items()}
    return pd.DataFrame({**columns, **more}, index=list(index))

def said(df, **kwargs):
    with pytest.raises(RatingsError) as e: check_ratings(df, **kwargs)
    assert len(e.value.faults) > 0
    return str(e.value)

BAD = {
    'missing rating': (table(rating=(3, np.nan, 5, 1)), {}, ["'rating': 1 missing rating (row 11)", 'dropna']),
    'infinite rating': (table(rating=(3, np.inf, 5, -np.inf)), {}, ["2 infinite ratings (rows 11, 13)", 'isfinite']),
    'rating beyond float32': (table(rating=(3, 1e300, 5, 1)), {}, ["1 infinite rating (row 11)"]),
    'outside the range': (table(rating=(3, 50, 5, 1)), dict(rating_range=(0, 5.5)), ["1 rating outside 0 to 5.5, such as 50 (row 11)"]),
    'missing user': (table(user=('a', None, 'b', 'b')), {}, ["'user': 1 missing id (row 11)", 'dropna']),
    'NaN user': (table(user=(1., np.nan, 2., 2.)), {}, ["'user': 1 missing id (row 11)"]),
    'blank user': (table(user=('a', ' ', 'b', 'b')), {}, ["'user': 1 missing id (row 11)"]),
    'blank user, text dtype': (table(user=pd.array(['a', ' ', 'b', None], dtype='string')), {}, ["'user': 2 missing ids (rows 11, 13)"]),
    'mixed ids': (table(user=(1, '1', 2, 2)), {}, ['mixed', '3 int, 1 str', '(row 11)', 'astype(str)']),
    'lists as ids': (table(user=([1], [1], [2], [2])), {}, ['unhashable', 'list']),
    'booleans as ids': (table(user=(True, False, True, False)), {}, ["'user': boolean values do not look like ids", 'user_name']),
    'dates as ids': (table(item=pd.date_range('2020', periods=4)), {}, ["'item': datetime64 values do not look like ids"]),
    'fractions as ids': (table(item=(1.5, 2., 1., 2.)), {}, ["1 id with a fraction, or too large for one (row 10)"]),
    'floats too large': (table(user=(1e300, 1e300, 2., 2.)), {}, ['2 ids with a fraction, or too large for one']),
    'pairs twice': (table(item=(1, 1, 1, 2)), {}, ["2 rows in which a user rates an item that they rate elsewhere too (rows 10, 11)", "duplicates='last'"]),
    'empty': (table().iloc[:0], {}, ['the table is empty']),
    'one row': (table().iloc[:1], {}, ['only one row, too few to split']),
    'one user': (table(user='aaaa', item=(1, 2, 3, 4)), {}, ["'user': only one user: 'a'", 'at least two']),
    'one item': (table(user='abcd', item=(7, 7, 7, 7)), {}, ["'item': only one item: 7"]),
    'all alike': (table(rating=(1, 1, 1, 1)), {}, ['every rating is 1, so there is nothing to learn', 'from_df(df, rating_name=False)']),
    'text': (table(rating=('3', 'good', '5', '1')), {}, ["1 value not a number, such as 'good' (row 11)", 'df.loc[[11]]']),
    'decimal commas': (table(rating=('3,5', '4', '5', '1')), {}, ["such as '3,5' (row 10)", "decimal=','"]),
    'dates as ratings': (table(rating=pd.date_range('2020', periods=4)), {}, ["'rating': datetime64", 'do not look like ratings', 'rating_name']),
    'seconds as ratings': (table(rating=(881250949, 891717742, 878887116, 880606923)), {}, ['seconds since 1970', 'rating_name']),
    'complex ratings': (table(rating=np.array([1, 2j, 3, 4])), {}, ['complex128 values do not look like ratings']),
    'no such column': (table(), dict(user_name='usr'), ["'usr': no such column for user_name; there are ['user', 'item', 'rating']"]),
    'two columns': (table()[['user', 'rating']], {}, ['needs three columns', "['user', 'rating']"]),
    'one column for two': (table(), dict(user_name='item'), ['one column would serve twice']),
    'same name twice': (pd.concat([table(), table()[['item']]], axis=1), {}, ['two columns have the same name']),
    'a column without a name': (table().set_axis([None, 1, 2], axis=1), {}, ['a column has no name']),
    'columns of two levels': (pd.concat({'x': table()}, axis=1), {}, ['several levels']),
    'all users missing': (table(user=[None] * 4), {}, ["'user': 4 missing ids (rows 10, 11, 12, 13)"]),
    'user NA, nullable': (table(user=pd.array([1, None, 2, 2], dtype='Int64')), {}, ["'user': 1 missing id (row 11)"]),
    'user NaN among text': (table(user=pd.Series([np.nan, 'a', 'b', 'b'], dtype=object)), {}, ["'user': 1 missing id (row 10)"]),
    'user NaN among text categories': (table(user=pd.Categorical(['a', None, 'b', 'b'])), {}, ["'user': 1 missing id (row 11)"]),
    'user NaN, decimal': (table(user=[Decimal('NaN'), Decimal(1), Decimal(2), Decimal(2)]), {}, ["'user': 1 missing id (row 10)"]),
    'user infinite': (table(user=(np.inf, 1, 2, 2)), {}, ["'user': 1 id with a fraction, or too large for one (row 10)"]),
    'user infinite, decimal': (table(user=[Decimal('Infinity'), Decimal(1), Decimal(2), Decimal(2)]), {}, ['1 id with a fraction, or too large for one (row 10)']),
    'missing and fractions': (table(user=pd.array([1, None, 2, 2.5], dtype='Float64')), {}, ["1 missing id (row 11)", '1 id with a fraction', '(row 13)']),
    'truth among numbers': (table(user=pd.Series([True, 1, 2, 2], dtype=object)), {}, ["3 int, 1 bool (row 10)", 'astype(str)']),
    'text among categories of numbers': (table(user=pd.Categorical([1, '1', 2, 2])), {}, ['3 int, 1 str (row 11)']),
    'lists among tuples': (table(user=[(1,), [1], (2,), (2,)]), {}, ['3 tuple, 1 list (row 11)']),
    'dictionaries as ids': (table(user=[{}, {}, {}, {}]), {}, ['unhashable', '4 dict']),
    'complex ids': (table(user=np.array([1j, 1j, 2, 2])), {}, ['complex values do not look like ids']),
    'nullable booleans as ids': (table(user=pd.array([True, None, False, True], dtype='boolean')), {}, ['1 missing id (row 11)', 'boolean values do not look like ids']),
    'days as ids': (table(user=[datetime.date(2020, 1, d) for d in (1, 1, 2, 2)]), {}, ['date values do not look like ids']),
    'durations as ids': (table(user=pd.to_timedelta([1, 1, 2, 2], unit='s')), {}, ['timedelta64 values do not look like ids']),
    'months as ids': (table(user=pd.period_range('2020', periods=4)), {}, ['period values do not look like ids']),
    'intervals as ids': (table(user=pd.interval_range(0, 4)), {}, ['interval values do not look like ids']),
    'rating NA, Float64': (table(rating=pd.array([1, None, 2, 3], dtype='Float64')), {}, ['1 missing rating (row 11)']),
    'rating NA, boolean': (table(rating=pd.array([True, None, False, True], dtype='boolean')), {}, ['1 missing rating (row 11)']),
    'rating NA, string': (table(rating=pd.array(['1', None, '2', '3'], dtype='string')), {}, ['1 missing rating (row 11)']),
    'rating NA, categories': (table(rating=pd.Categorical([1, None, 2, 3])), {}, ['1 missing rating (row 11)']),
    'rating NA, sparse': (table(rating=pd.arrays.SparseArray([1, np.nan, 2, 3])), {}, ['1 missing rating (row 11)']),
    'all ratings missing': (table(rating=[None] * 4), {}, ['4 missing ratings (rows 10, 11, 12, 13)']),
    'text for nothing': (table(rating=('NA', 'None', '', '-')), {}, ['3 missing ratings (rows 10, 11, 12)', "1 value not a number, such as '-' (row 13)"]),
    'text for infinity': (table(rating=('1', '2', 'inf', '-Infinity')), {}, ['2 infinite ratings (rows 12, 13)']),
    'text outside the range': (table(rating=('3', '4', '5', '1')), dict(rating_range=(1, 4)), ['1 rating outside 1 to 4, such as 5 (row 12)']),
    'below the range': (table(rating=(3, 0, 5, 1)), dict(rating_range=(1, 5)), ['1 rating outside 1 to 5, such as 0 (row 11)']),
    'constant and missing': (table(rating=(1, 1, 1, np.nan)), {}, ['every rating is 1', '1 missing rating (row 13)']),
    'lists as ratings': (table(rating=[[1], [2], [3], [4]]), {}, ['4 values not a number, such as [1]']),
    'dates as text ratings': (table(rating=['2020-01-0%d' % i for i in range(1, 5)]), {}, ["4 values not a number, such as '2020-01-01'"]),
    'times of a zone as ratings': (table(rating=pd.date_range('2020', periods=4, tz='UTC')), {}, ['UTC] values do not look like ratings', 'rating_name']),
    'durations as ratings': (table(rating=pd.to_timedelta([1, 2, 3, 4], unit='s')), {}, ['timedelta64', 'do not look like ratings']),
    'seconds in text': (table(rating=('881250949', '891717742', '878887116', '880606923')), {}, ['seconds since 1970']),
    'milliseconds': (table(rating=(881250949000, 891717742000, 878887116000, 880606923000)), {}, ['seconds since 1970']),
    'no columns': (pd.DataFrame(), {}, ['needs three columns, this one has []']),
    'several names wrong': (table(), dict(user_name='usr', rating_name=7), ["'usr': no such column for user_name", '7: no such column for rating_name']),
    'a list for a name': (table(), dict(user_name=['user']), ["['user']: no such column"]),
    'one pair, merged': (table(user='aaaa', item=(1, 1, 1, 1)), dict(duplicates='mean'), ['only one row, too few to split']),
    'words as ratings': (table(rating=('view', 'buy', 'view', 'buy')), {}, ["4 values not a number, such as 'view', 'buy'", "df['rating'].map({'view': 1, 'buy': 2})"]),
    'commas and a word': (table(rating=('3,5', 'k. A.', '4,0', '1')), {}, ["decimal=','", "1 value would still not be a number: 'k. A.'", "na_values=['k. A.']"]),
    'times as text ids': (table(user=('1997-09-20T03:05:10Z',)*2 + ('1997-09-21 03:05',)*2), {}, ["'user': values such as '1997-09-20T03:05:10Z' look like times, not ids", 'user_name=']),
    'days as text ids': (table(user=('1.2.1997', '1.2.1997', '13.2.1997', '3.4.1998')), {}, ["'user': values such as '1.2.1997' look like times"]),
    'spaces around ids': (table(user=('ann', 'ann ', 'bob', ' cy')), {}, ["'user': 1 id that would be another's, but for spaces around it (row 11)", 'str.strip()']),
    'a heading above': (pd.DataFrame([['user', 'item', 'rating'], [1, 2, 3]], columns=['Film club', 'Unnamed: 1', 'Unnamed: 2']), {}, ['most have no name', 'skiprows=1']),
    'time missing': (table(item=(1, 1, 1, 2), timestamp=(3, np.nan, 1, 2)), dict(duplicates='last'), ["'timestamp': 1 times", '(row 11)', 'Fix them']),
    'time NA, nullable': (table(item=(1, 1, 1, 2), timestamp=pd.array([3, 2, 1, None], dtype='Int64')), dict(duplicates='last'), ["'timestamp': 1 times", '(row 13)']),
    'no such time': (table(item=(1, 1, 1, 2)), dict(duplicates='last', time_name='when'), ["'when': no such column for time_name"]),
    'time not readable': (table(item=(1, 1, 1, 2), timestamp=('1997', 'x', '1998', '1999')), dict(duplicates='last'), ["'timestamp': 1 times", '(row 11)']),
}

@pytest.mark.parametrize('case', BAD)
def test_fault_is_named_with_rows_and_fix(case):
    df,kwargs,words = BAD[case]
    got = said(df, **kwargs)
    for w in words: assert w in got, got

def test_all_faults_come_at_once():
    df = table(user=('a', None, 'b', 'b'), item=(1, 2, 1, '2'), rating=(np.nan, 9, np.inf, 1))
    with pytest.raises(RatingsError) as e: check_ratings(df, rating_range=(1, 5))
    f = e.value.faults
    assert sorted(f.column) == ["'item'", "'rating'", "'rating'", "'rating'", "'user'"]
    assert list(f.columns) == ['column', 'fault', 'count', 'rows', 'fix'] and (f.fix.str.len() > 0).all()

def test_only_the_first_rows_are_listed():
    df = table(user=['u%d' % (i % 7) for i in range(100)], item=range(100), rating=[np.nan] * 40 + [1.] * 30 + [2.] * 30, index=range(100))
    assert '40 missing ratings (rows 0, 1, 2, 3, 4, ...)' in said(df)

GOOD = {
    'text numbers': (table(rating=('3', ' 4.5', '5', '1e0')), [3, 4.5, 5, 1], 'text became numbers'),
    'booleans': (table(rating=(True, False, True, True)), [1, 0, 1, 1], 'booleans became 0 and 1'),
    'nullable booleans': (table(rating=pd.array([True, False, True, True], dtype='boolean')), [1, 0, 1, 1], 'booleans'),
    'nullable integers': (table(rating=pd.array([3, 4, 5, 1], dtype='Int64')), [3, 4, 5, 1], None),
    'decimals': (table(rating=[Decimal('3.5'), Decimal(4), Decimal(5), Decimal(1)]), [3.5, 4, 5, 1], None),
    'categories': (table(rating=pd.Categorical([3, 4, 5, 1])), [3, 4, 5, 1], None),
    'small floats': (table(rating=np.array([3, 4, 5, 1], dtype='float16')), [3, 4, 5, 1], None),
    'negative': (table(rating=(-10, 10, 3, -2)), [-10, 10, 3, -2], None),
}

@pytest.mark.parametrize('case', GOOD)
def test_ratings_that_are_understood(case):
    df,want,note = GOOD[case]
    res = check_ratings(df)
    assert res.rating.tolist() == want and res.rating.dtype == 'float64'
    assert list(res.index) == [10, 11, 12, 13]
    if note: assert any(note in o for o in res.attrs['repairs'])

IDS = {
    'floats that are whole': ([1., 1., 2., 2.], [1, 1, 2, 2], 'int64'),
    'Int64': (pd.array([1, 1, 2, 2], dtype='Int64'), [1, 1, 2, 2], 'int64'),
    'objects': (np.array([1, 1, 2, 2], dtype=object), [1, 1, 2, 2], 'int64'),
    'decimals': ([Decimal(1), Decimal(1), Decimal(2), Decimal(2)], [1, 1, 2, 2], 'int64'),
    'unsigned and huge': (np.array([2**63 + 1, 2**63 + 1, 5, 5], dtype='uint64'), [2**63 + 1, 2**63 + 1, 5, 5], 'uint64'),
    'unused categories': (pd.Categorical([7, 7, 8, 8], categories=[6, 7, 8, 9]), [7, 7, 8, 8], 'int64'),
    'text categories': (pd.Categorical(['x', 'x', 'y', 'y'], categories=['w', 'x', 'y']), ['x', 'x', 'y', 'y'], None),
    'text that looks like numbers': (['01', '01', '2', '2'], ['01', '01', '2', '2'], None),
    'texts': (np.array(['x', 'x', 'y', 'y'], dtype=object), ['x', 'x', 'y', 'y'], None),
    'text dtype': (pd.array(['x', 'x', 'y', 'y'], dtype='string'), ['x', 'x', 'y', 'y'], None),
    'text nan': (['nan', 'nan', 'b', 'b'], ['nan', 'nan', 'b', 'b'], None),
    'Float64': (pd.array([1, 1, 2, 2], dtype='Float64'), [1, 1, 2, 2], 'int64'),
    'int8': (np.array([-128, -128, 127, 127], dtype='int8'), [-128, -128, 127, 127], 'int64'),
    'objects, whole and not quite integers': (np.array([1, 1.0, 2, 2.0], dtype=object), [1, 1, 2, 2], 'int64'),
    "Python's and NumPy's": (np.array([1, np.int64(1), 2, np.int32(2)], dtype=object), [1, 1, 2, 2], 'int64'),
    'large but whole': (np.array([2**62 + 1, 2**62 + 1, 2**62, 2**62]), [2**62 + 1, 2**62 + 1, 2**62, 2**62], 'int64'),
    'sparse': (pd.arrays.SparseArray([1, 1, 2, 2]), [1, 1, 2, 2], 'int64'),
    'bytes': ([b'x', b'x', b'y', b'y'], [b'x', b'x', b'y', b'y'], None),
    'tuples': ([('x', 1), ('x', 1), ('y', 1), ('y', 1)], [('x', 1), ('x', 1), ('y', 1), ('y', 1)], None),
    'categories in an order of their own': (pd.Categorical(['x', 'x', 'y', 'y'], categories=['y', 'x'], ordered=True), ['x', 'x', 'y', 'y'], None),
}

@pytest.mark.parametrize('case', IDS)
def test_ids_that_are_understood(case):
    ids,want,dtype = IDS[case]
    res = check_ratings(table(user=ids))
    assert res.user.tolist() == want
    if dtype: assert res.user.dtype == dtype
    assert list(Vocab(res.user)) == sorted(set(want))

def test_uuids_are_ids():
    a,b = uuid.uuid4(),uuid.uuid4()
    assert set(Vocab(check_ratings(table(user=[a, a, b, b])).user)) == {a, b}

def test_pyarrow_types():
    pytest.importorskip('pyarrow')
    res = check_ratings(table().convert_dtypes(dtype_backend='pyarrow'))
    assert res.rating.tolist() == [3, 4, 5, 1] and Vocab(res.user).rows(['b']) == [1]

@pytest.mark.parametrize('column,dtype,values,words', [
    ('user', 'int64', [1, None, 2, 2], '1 missing id (row 11)'), ('user', 'string', ['a', None, ' ', 'b'], '2 missing ids (rows 11, 12)'),
    ('user', 'bool', [True, True, False, False], 'boolean values do not look like ids'), ('rating', 'double', [1., None, 2., 3.], '1 missing rating (row 11)'),
    ('rating', 'int64', [1, None, 2, 3], '1 missing rating (row 11)'), ('rating', 'timestamp[s]', [1, 2, 3, 4], 'do not look like ratings')])
def test_faults_in_pyarrow_types(column, dtype, values, words):
    pytest.importorskip('pyarrow')
    assert words in said(table().assign(**{column: pd.array(values, dtype=f'{dtype}[pyarrow]')}))

def test_missing_category_is_found():
    assert "'user': 1 missing id (row 11)" in said(table(user=pd.Categorical([7, None, 8, 8])))

@pytest.mark.parametrize('policy,want', [('last', [2., 4., 1.]), ('mean', [3., 3., 1.])])
def test_pairs_that_occur_twice(policy, want):
    df = pd.DataFrame(dict(user=[1, 2, 2, 2], item=[1, 1, 1, 2], rating=[2. if policy == 'last' else 3., 4., 2., 1.], timestamp=[9, 8, 7, 6]))
    assert check_ratings(df, duplicates=policy).rating.tolist() == want

def test_last_without_times_is_the_last_row():
    assert check_ratings(table(item=(1, 1, 1, 2)), duplicates='last').rating.tolist() == [4, 5, 1]

@pytest.mark.parametrize('index', [[0, 0, 0, 0], list('wxyz'), pd.MultiIndex.from_product([[1, 2], ['a', 'b']])])
def test_any_row_index(index):
    df = table().set_axis(index, axis=0)
    assert check_ratings(df).index.equals(df.index)
    assert 'missing rating' in said(df.assign(rating=[1, 2, np.nan, 3]))

@pytest.mark.parametrize('index,words', [([7, 7, 7, 7], "(rows 7, 7)"), (list('wxyz'), "(rows 'x', 'z')"), (pd.MultiIndex.from_product([[1, 2], ['a', 'b']]), "(rows (1, 'b'), (2, 'b'))"),
                                         ([np.nan, None, 'a', 1], '(rows None, 1)'), (pd.date_range('2020', periods=4), "(rows Timestamp('2020-01-02 00:00:00'), ")])
def test_rows_are_named_by_their_labels(index, words):
    assert f"2 missing ratings {words}" in said(table(rating=(1, np.nan, 2, np.nan)).set_axis(index, axis=0))

def test_an_index_may_share_a_columns_name():
    df = table(item=(1, 1, 1, 2)).rename_axis(index='user', columns='field')
    assert check_ratings(df, duplicates='mean').rating.tolist() == [3.5, 5, 1]

@pytest.mark.parametrize('names,kwargs', [([0, 1, 2], {}), ([0, 1, 2], dict(user_name=0, item_name=1, rating_name=2)), ([('a', 'b'), 'i', 'r'], dict(user_name=('a', 'b'))),
                                          (['rating', 'user', 'item'], dict(user_name='rating', item_name='user', rating_name='item')), (pd.CategoricalIndex(['u', 'i', 'r']), {})])
def test_names_of_columns(names, kwargs):
    df = table()
    df.columns = names
    res = check_ratings(df, **kwargs)
    assert list(res.columns) == list(df.columns) and res.iloc[:, 0].tolist() == list('aabb') and res.iloc[:, 2].tolist() == [3, 4, 5, 1]

def test_other_columns_come_along():
    df = table(review=[['good'], [], ['bad'], []], genre=pd.Categorical(list('xyxx')))
    res = check_ratings(df)
    assert res.review.equals(df.review) and res.genre.equals(df.genre)

def test_columns_may_stand_anywhere():
    df = pd.DataFrame({0: [1, 2, 3, 4], 'stars': [1., 2, 3, 4], 5: list('aabb'), 'film': [1, 2, 1, 2]})
    res = check_ratings(df, user_name=5, item_name='film', rating_name='stars')
    assert list(res.columns) == [5, 'film', 'stars', 0]

@pytest.mark.parametrize('kwargs,words', [(dict(rating_range=(5, 1)), 'rating_range'), (dict(rating_range=3), 'rating_range'), (dict(rating_range=(0, np.inf)), 'finite'),
                                          (dict(rating_range=(np.nan, 5)), 'finite'), (dict(rating_range=(1, 2, 3)), 'a pair'), (dict(rating_range=(1, pd.NA)), 'a pair'), (dict(rating_range=(3, 3)), 'lower first'),
                                          (dict(duplicates=None), 'got None'), (dict(duplicates=['last']), 'duplicates'),
                                          (dict(duplicates='first'), "duplicates: expected 'error', 'last' or 'mean', got 'first'")])
def test_arguments_are_checked(kwargs, words):
    with pytest.raises(ValueError, match=words): check_ratings(table(), **kwargs)

@pytest.mark.parametrize('what', [[1, 2, 3], None, {'user': [1]}, pd.Series([1]), np.ones((3, 3))])
def test_not_a_frame(what):
    with pytest.raises(TypeError, match=f'expected a pandas DataFrame, got {type(what).__name__}'): check_ratings(what)

def test_the_callers_frame_is_left_alone():
    for df,kwargs,_ in [*BAD.values(), *((d, {}, None) for d,*_ in GOOD.values())]:
        before = pickle.dumps(df)
        try: check_ratings(df, **kwargs)
        except RatingsError: pass
        assert pickle.dumps(df) == before

@pytest.mark.parametrize('kwargs', [dict(), dict(duplicates='last'), dict(duplicates='mean')])
def test_the_callers_index_dtypes_and_attrs_are_left_alone(kwargs):
    df = table(user=pd.Categorical([7, 7, 8, 8]), item=(1, 1, 1, 2), rating=pd.array([1, 2, 3, 4], dtype='Int64'), timestamp=[4, 3, 2, 1]).rename_axis('row')
    df.attrs = {'from': ['a file']}
    before = copy.deepcopy(df)
    try: res = check_ratings(df, **kwargs)
    except RatingsError: pass
    else: assert res.attrs == {'repairs': [f"1 repeated pairs were merged ({'mean' if kwargs['duplicates'] == 'mean' else 'last, by ' + repr('timestamp')})"]}
    pd.testing.assert_frame_equal(df, before, check_freq=True, check_categorical=True)
    assert df.attrs == before.attrs and df.index.name == 'row'

def test_writing_to_the_result_does_not_reach_the_caller():
    df = table()
    res = check_ratings(df)
    res.iloc[0, 2] = 99
    assert df.rating.iloc[0] == 3

anything = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(), st.text(max_size=3), st.sampled_from([pd.NaT, pd.Timestamp('2020'), (1,), 'nan', '3', '3,5']))
column = st.one_of(st.lists(anything, min_size=6, max_size=6), st.lists(st.integers(0, 3), min_size=6, max_size=6), st.lists(st.floats(0, 5), min_size=6, max_size=6),
                   st.lists(st.sampled_from('abc'), min_size=6, max_size=6).map(pd.Categorical))

@settings(max_examples=300, deadline=None)
@given(column, column, column, st.sampled_from(['error', 'last', 'mean']), st.sampled_from([None, (0, 5)]))
def test_clean_or_a_ratings_error(user, item, rating, duplicates, rating_range):
    df = pd.DataFrame(dict(user=user, item=item, rating=rating))
    try: res = check_ratings(df, duplicates=duplicates, rating_range=rating_range)
    except RatingsError as e: assert len(e.faults) and str(e); return
    assert np.isfinite(res.rating).all() and not res.duplicated(['user', 'item']).any() and set(res.index) <= set(df.index)
    for c in ('user', 'item'):
        assert res[c].notna().all() and res[c].map(type).nunique() == 1
        assert (Vocab(res[c]).encode(res[c]) >= 0).all()

six = lambda o: st.lists(o, min_size=6, max_size=6)
maybe = lambda o: st.none() | o
typed = st.one_of(
    six(maybe(st.integers(-3, 3))).map(lambda o: pd.array(o, dtype='Int64')), six(maybe(st.floats(width=32))).map(lambda o: pd.array(o, dtype='Float64')),
    six(maybe(st.booleans())).map(lambda o: pd.array(o, dtype='boolean')), six(maybe(st.sampled_from(['a', 'b', ' ', '4', '2,5']))).map(lambda o: pd.array(o, dtype='string')),
    six(maybe(st.integers(0, 2) | st.sampled_from('ab'))).map(lambda o: pd.Categorical(pd.Series(o, dtype=object), categories=['z', 1, 0, 2, 'b', 'a'])),
    six(maybe(st.datetimes(pd.Timestamp('1970'), pd.Timestamp('2100')))).map(lambda o: pd.array(o, dtype='datetime64[us]')), six(st.integers(0, 2**64 - 1)).map(lambda o: np.array(o, dtype='uint64')),
    six(st.floats(width=16)).map(lambda o: np.array(o, dtype='float16')), six(st.complex_numbers(max_magnitude=9)).map(np.array), six(st.uuids(version=4) | st.none()),
    six(maybe(st.decimals(allow_nan=False, min_value=-9, max_value=9, places=1))), six(st.lists(st.integers(0, 1), max_size=1)), six(maybe(st.tuples(st.integers(0, 1)))), six(maybe(st.sampled_from([b'', b'x']))))
index = st.sampled_from([range(6), [0] * 6, list('abcdef'), pd.MultiIndex.from_product([[1, 2], list('xyz')]), [np.nan, None, 'a', 1, 2.5, (1,)]])

@pytest.mark.filterwarnings('ignore:overflow encountered', 'ignore:Could not infer format')
@settings(max_examples=150, deadline=None)
@given(typed | column, typed | column, typed | column, st.none() | column | typed, index, st.sampled_from(['error', 'last', 'mean']), st.sampled_from([None, (0, 5)]))
def test_any_mixture_of_dtypes_is_clean_or_a_ratings_error(user, item, rating, time, index, duplicates, rating_range):
    df = pd.DataFrame(dict(user=user, item=item, rating=rating) | ({} if time is None else dict(timestamp=time)), index=pd.Index(index, tupleize_cols=isinstance(index, pd.MultiIndex)))
    before = copy.deepcopy(df)
    try: res = check_ratings(df, duplicates=duplicates, rating_range=rating_range)
    except RatingsError as e:
        assert len(e.faults) and (e.faults.fix.str.len() > 0).all() and str(pickle.loads(pickle.dumps(e))) == str(e)
        return
    finally: pd.testing.assert_frame_equal(df, before)
    assert res.rating.dtype == 'float64' and np.isfinite(res.rating).all() and res.rating.nunique() > 1 or duplicates == 'mean'
    assert not res.duplicated(['user', 'item']).any() and (duplicates != 'error' or len(res) == 6) and res.index.isin(df.index).all()
    for c in ('user', 'item'): assert res[c].notna().all() and res[c].nunique() > 1 and res[c].map(type).nunique() == 1

@pytest.mark.parametrize('error', [RatingsError([dict(column='x', fault='f', count=1, rows=[3], fix='mend')]), UnknownIdError('user', [1, 2], 'why')])
def test_errors_survive_a_process_boundary(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and str(again) == str(error)

# --- vocabularies

@given(st.lists(st.integers(), min_size=1) | st.lists(st.text(max_size=5), min_size=1))
def test_vocab_round_trip(ids):
    v = Vocab(ids)
    assert list(v) == sorted(set(ids)) and v[v.encode(ids)].tolist() == list(ids)

def test_vocab_takes_tensors_and_scalars():
    import torch
    v = Vocab([30, 10, 20])
    assert v[torch.tensor(1)] == 20 and v[2] == 30 and v[torch.tensor([2, 0])].tolist() == [30, 10] and 20 in v and 25 not in v

@pytest.mark.parametrize('known,asked,words', [([1, 2], ['1'], 'They are text'), (['1', '2'], [1], 'pass str'), (['1', '2'], [('1', 2)], "pass one text for each, such as '1'"), ([1, 2], [3, 4, 3], '2 unknown ids: 3, 4'), ([1, 2], [np.nan], 'nan'),
                                               (list(range(9)), list(range(9, 29)), '20 unknown ids: 9, 10, 11, 12, 13, ...')])
def test_unknown_ids_are_named(known, asked, words):
    with pytest.raises(UnknownIdError) as e: Vocab(known, 'user').encode(asked)
    assert words in str(e.value) and str(e.value).startswith('user:')

@pytest.mark.parametrize('ids,want', [([3.0, 1.0], [1, 0]), (pd.array([3, 1], dtype='Int64'), [1, 0]), (pd.Categorical([3, 1, 3]), [1, 0, 1]), (np.array([9, 1], dtype='uint8'), [-1, 0]), ([None, np.nan, 3], [-1, -1, 1]), (['3'], [-1])])
def test_rows_of_ids_in_other_dtypes(ids, want): assert Vocab([1, 3]).rows(ids).tolist() == want

@pytest.mark.parametrize('known', [[1, 3], np.array([1, 200], dtype='uint8'), ['a', '1'], pd.array(['a', '2020'], dtype=object), [True, False], pd.array([True, False], dtype=object), [1.5, 1.],
                                   pd.to_datetime(['2020-01-01', '2021-01-01']), [2**63, 2**64 - 1], [('a', 1), ('b', 2)], pd.Categorical(['a', 'b']), [-2**63, 2**63 - 1]])
def test_one_id_has_the_row_it_has_among_others(known):
    v = Vocab(known)
    for o in [*v.ids, 0, 1, -1, 3, 200, 256, True, 1., 1.5, np.int64(1), np.uint8(200), 2**63, -2**63, 2**70, 'a', '1', '2020', '2020-01-01', '', '\ud800', ('a', 1), None, np.nan]:
        alone,arr = v.rows([o]),np.empty(1, dtype=object)
        arr[0] = o
        want = v.rows(pd.Index(arr, tupleize_cols=False).infer_objects() if o != '\ud800' else pd.Index(arr, dtype=object))
        assert alone.tolist() == want.tolist() and alone.dtype.kind == 'i', o

def test_unsigned_ids_keep_their_last_digit():
    v = Vocab(np.array([2**64 - 1, 2**64 - 2, 2**63], dtype='uint64'))
    assert v.encode(np.array([2**64 - 1, 2**63], dtype='uint64')).tolist() == [2, 0] and v[1] == 2**64 - 2

def test_unknown_id_error_is_a_key_error_that_holds_the_ids():
    with pytest.raises(KeyError) as e: Vocab(['a', 'b'], 'film').encode(['c', 'a', 'c', 'd'])
    assert (e.value.name, e.value.ids) == ('film', ['c', 'd'])

def test_vocabs_are_equal_by_ids(): assert Vocab([2, 1, 1]) == Vocab([1, 2]) != Vocab([1, 3])

def test_no_ids_give_no_rows(): assert len(Vocab([1, 2]).encode([])) == 0

# --- splitters

def is_partition(split, n):
    both = np.concatenate(split)
    return len(both) == n and (np.sort(both) == np.arange(n)).all()

@pytest.mark.parametrize('splitter', [RandomSplitter(0.2, seed=1), TimeSplitter(0.2), LeaveLastOutSplitter(), ColdUserSplitter(0.2, 1), ColdItemSplitter(0.2, 1)])
def test_splitters_part_the_rows(splitter, sim): assert is_partition([np.asarray(o) for o in splitter(sim)], len(sim))

@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9), st.integers(0, 5)), min_size=1, max_size=30), st.floats(.01, .99), st.integers(0, 9))
def test_splitters_against_plain_versions(rows, pct, seed):
    df = pd.DataFrame(rows, columns=['user', 'item', 'timestamp'], index=[7] * len(rows))
    oldest = sorted(range(len(rows)), key=lambda i: rows[i][2]) # a stable sort
    n = int(pct * len(rows))
    assert [o.tolist() for o in TimeSplitter(pct)(df)] == [oldest[:len(rows)-n], oldest[len(rows)-n:]]
    for c,make in enumerate((ColdUserSplitter, ColdItemSplitter)):
        ids = sorted({r[c] for r in rows})
        cold = {ids[i] for i in np.random.default_rng(seed).permutation(len(ids))[:max(1, int(pct * len(ids)))]}
        assert [o.tolist() for o in make(pct, seed)(df)] == [[i for i,r in enumerate(rows) if (r[c] in cold) == held] for held in (False, True)]
    newest = {u: max((t, i) for i,(v,_,t) in enumerate(rows) if v == u)[1] for u,_,_ in rows if sum(u == v for v,_,_ in rows) > 1}
    assert LeaveLastOutSplitter()(df)[1].tolist() == sorted(newest.values()) and is_partition(LeaveLastOutSplitter()(df), len(rows))

@pytest.mark.parametrize('splitter', [TimeSplitter(), LeaveLastOutSplitter(), ColdUserSplitter(seed=1), ColdItemSplitter(seed=1)])
def test_valid_rows_serve_fastai(splitter, sim):
    train,valid = splitter(sim)
    again = IndexSplitter(valid)(sim)
    assert sorted(train) == sorted(again[0]) and sorted(valid) == sorted(again[1])

def test_splitters_take_names():
    df = table(timestamp=range(4), when=[3, 2, 1, 0]).rename(columns={'user': 'reader', 'item': 'book'})[['rating', 'book', 'reader', 'timestamp', 'when']]
    assert TimeSplitter(0.25, 'when')(df)[1].tolist() == [0]
    assert LeaveLastOutSplitter(1, 'reader', 'when')(df)[1].tolist() == [0, 2]
    assert ColdUserSplitter(0.5, 0, 'reader')(df)[1].tolist() in ([0, 1], [2, 3]) and ColdItemSplitter(0.5, 0, 'book')(df)[1].tolist() in ([0, 2], [1, 3])

def test_no_seed_is_a_new_draw(sim): assert len({tuple(ColdUserSplitter(0.5)(sim)[1]) for _ in range(3)}) > 1

@pytest.mark.parametrize('times', [pd.date_range('2020', periods=4, tz='Europe/Paris')[::-1], pd.array([4, 3, 2, 1], dtype='Int64'), pd.Categorical([4, 3, 2, 1], categories=[1, 3, 2, 4]), np.array([4, 3, 2, 1], dtype=object),
                                   [datetime.date(2020, 1, d) for d in (4, 3, 2, 1)], ['2020-01-04', '2020-01-03', '2020-01-02', '2020-01-01']])
def test_times_of_any_kind(times):
    assert TimeSplitter(0.5)(table(timestamp=times))[1].tolist() == [1, 0]
    assert check_ratings(table(item=(1, 1, 1, 2), timestamp=times), duplicates='last').rating.tolist() == [3, 5, 1]

@pytest.mark.parametrize('name', ['timestamp', 'Time', 'DATE', 'datetime'])
def test_the_time_is_found_by_its_name(name): assert find_time(table(**{name: [4, 3, 2, 1]})).tolist() == [4, 3, 2, 1]

def test_missing_times_are_named():
    with pytest.raises(RatingsError, match=r"1 times that are missing or cannot be read \(row 11\)"): TimeSplitter()(table(timestamp=[1, None, 2, 3]))

def test_time_splitter_keeps_ties_in_row_order():
    df = table(timestamp=[5, 1, 5, 5])
    train,valid = TimeSplitter(0.5)(df)
    assert train.tolist() == [1, 0] and valid.tolist() == [2, 3]

def test_time_splitter_reads_dates():
    train,valid = TimeSplitter(0.25, 'when')(table(when=['2001-05-01', '1999-01-01', '2000-01-01', '1998-01-01']))
    assert valid.tolist() == [0]

def test_leave_last_out_against_a_plain_version(sim):
    df = sim.assign(timestamp=sim.timestamp // 10**7) # many ties
    last = {}
    for pos,(u,t) in enumerate(zip(df.user, df.timestamp)):
        if u not in last or t >= df.timestamp.iloc[last[u]]: last[u] = pos
    many = df.user.value_counts()
    assert LeaveLastOutSplitter()(df)[1].tolist() == sorted(p for u,p in last.items() if many[u] > 1)

def test_a_single_rating_stays_in_training():
    assert LeaveLastOutSplitter()(table(user=list('aabc'), timestamp=range(4)))[1].tolist() == [1]

def test_cold_users_of_the_protocol(ml):
    cold = np.sort(ml.ratings.user.unique())[np.random.default_rng(0).permutation(943)[:235]]
    _,valid = ColdUserSplitter(0.25, seed=0)(ml.ratings)
    assert set(ml.ratings.user.iloc[valid]) == set(cold) and (valid == np.flatnonzero(ml.ratings.user.isin(cold))).all()

@pytest.mark.parametrize('make,col', [(ColdUserSplitter, 'user'), (ColdItemSplitter, 'item')])
def test_cold_ids_are_on_one_side_only(make, col, sim):
    train,valid = make(0.3, seed=4)(sim)
    assert not set(sim[col].iloc[train]) & set(sim[col].iloc[valid])
    again = make(0.3, seed=4)(sim)[1]
    assert (again == valid).all() and not np.array_equal(make(0.3, seed=5)(sim)[1], valid)

@pytest.mark.parametrize('make', [TimeSplitter, ColdUserSplitter, ColdItemSplitter])
@pytest.mark.parametrize('pct', [0, 1, 1.5, -.1, 'x', None, True, np.nan])
def test_share_is_checked(make, pct):
    with pytest.raises(ValueError, match=f'valid_pct: expected a share between 0 and 1, got {pct!r}'): make(pct)

def test_no_times():
    for make in (TimeSplitter, LeaveLastOutSplitter):
        with pytest.raises(RatingsError, match='no column of times'): make()(table())
    with pytest.raises(RatingsError, match='no such column for time_name'): find_time(table(), 'when')
    assert find_time(table()) is None

# --- simulated ratings

def test_simulation_follows_its_model():
    df,t = simulate_ratings(300, 400, 30_000, factor_count=4, noise=0.3, step=None, rating_range=(-50, 50), with_truth=True, seed=5)
    score = t['mean'] + t['user_bias'][df.user] + t['item_bias'][df.item] + (t['user_weight'][df.user] * t['item_weight'][df.item]).sum(1)
    assert abs((df.rating - score).std() - 0.3) < 0.01 and not df.duplicated(['user', 'item']).any() and len(df) == 30_000

def test_simulation_is_seeded():
    assert simulate_ratings(50, 60, 900, seed=1).equals(simulate_ratings(50, 60, 900, seed=1))
    assert not simulate_ratings(50, 60, 900, seed=1).equals(simulate_ratings(50, 60, 900, seed=2))

def test_simulation_is_skewed(sim):
    flat = simulate_ratings(60, 80, 1500, seed=3, skew=0)
    assert sim.item.value_counts().max() > 1.5 * flat.item.value_counts().max()

@pytest.mark.parametrize('n', [1, 24, 25])
def test_simulation_up_to_a_full_table(n): assert len(simulate_ratings(5, 5, n).drop_duplicates(['user', 'item'])) == n

def test_simulation_says_what_is_too_much():
    with pytest.raises(ValueError, match='rating_count: 26 is more than the 25 pairs'): simulate_ratings(5, 5, 26)

def test_simulation_stays_on_its_scale(sim): assert set(sim.rating.unique()) <= {1., 2., 3., 4., 5.}

def test_truth_can_be_found_again():
    df,t = simulate_ratings(200, 300, 20_000, with_truth=True, seed=2)
    score = t['mean'] + t['user_bias'][df.user] + t['item_bias'][df.item] + (t['user_weight'][df.user] * t['item_weight'][df.item]).sum(1)
    shuffled = np.random.default_rng(0).permutation(score)
    assert np.corrcoef(score, df.rating)[0, 1] > .5 > .05 > abs(np.corrcoef(shuffled, df.rating)[0, 1])

def test_simulated_ratings_pass_the_checks(sim):
    assert check_ratings(sim, rating_range=(1, 5)).attrs['repairs'] == [] and sim.timestamp.is_monotonic_increasing

@pytest.mark.parametrize('step,want', [(1, {1, 2, 3, 4, 5}), (.5, {1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5})])
def test_simulated_steps(step, want): assert set(simulate_ratings(50, 50, 2000, step=step).rating) == want

@pytest.mark.parametrize('n', [250, 251, 999, 1000])
def test_pairs_stay_distinct_when_they_are_dense(n): assert len(simulate_ratings(20, 50, n).drop_duplicates(['user', 'item'])) == n

def test_a_million_ratings_of_a_large_table():
    tracemalloc.start()
    df = simulate_ratings(100_000, 50_000, 1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(df.drop_duplicates(['user', 'item'])) == 1_000_000 and peak < 1e9 # the whole table would be 40 GB

def test_an_index_in_a_file_is_no_column_of_users(tmp_path):
    pd.DataFrame(dict(user=[1, 2, 3], item=[1, 1, 2], rating=[3, 4, 5])).to_csv(tmp_path/'r.csv')
    df = pd.read_csv(tmp_path/'r.csv')
    want = check_ratings(pd.read_csv(tmp_path/'r.csv', index_col=0))
    assert check_ratings(df).iloc[:, :3].equals(want) # the others are found by their names
    with pytest.raises(RatingsError, match=r"'Unnamed: 0': .*index.*index_col=0"): check_ratings(df.set_axis(['Unnamed: 0', 'a', 'b', 'c'], axis=1))
    assert check_ratings(df, user_name='user', item_name='item', rating_name='rating').iloc[:, :3].equals(want)
    assert list(check_ratings(df, user_name='Unnamed: 0', item_name='item', rating_name='rating').columns[:3]) == ['Unnamed: 0', 'item', 'rating'] # if somebody says so

@pytest.mark.parametrize('sep', [';', '\t', '|'])
def test_another_separator_is_named(tmp_path, sep):
    (tmp_path/'r.csv').write_text(f'user{sep}item{sep}rating\n1{sep}1{sep}3\n')
    with pytest.raises(RatingsError) as e: check_ratings(pd.read_csv(tmp_path/'r.csv'))
    assert f'read_csv(..., sep={sep!r})' in str(e.value)
