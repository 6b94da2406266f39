"Faulty tables and what is said of them; splitters, vocabularies and the simulator against plain versions"
import pickle, uuid
from decimal import Decimal
import numpy as np, pandas as pd, pytest
from fastai.data.transforms import RandomSplitter
from hypothesis import given, settings, strategies as st
from fastcf.data import (ColdItemSplitter, ColdUserSplitter, LeaveLastOutSplitter, RatingsError, TimeSplitter, UnknownIdError, Vocab,
                         check_ratings, find_time, simulate_ratings)

def table(user=('a', 'a', 'b', 'b'), item=(1, 2, 1, 2), rating=(3., 4., 5., 1.), index=(10, 11, 12, 13), **more):
    return pd.DataFrame(dict(user=list(user), item=list(item), rating=list(rating), **more), index=list(index))

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
    'booleans as ids': (table(user=(True, False, True, False)), {}, ["'user': boolean values, which are no ids", 'user_name']),
    'dates as ids': (table(item=pd.date_range('2020', periods=4)), {}, ["'item': datetime64 values, which are no ids"]),
    'fractions as ids': (table(item=(1.5, 2., 1., 2.)), {}, ["1 id with a fraction, or too large for one (row 10)"]),
    'floats too large': (table(user=(1e300, 1e300, 2., 2.)), {}, ['2 ids with a fraction, or too large for one']),
    'pairs twice': (table(item=(1, 1, 1, 2)), {}, ["2 rows in which a user rates an item that they rate elsewhere too (rows 10, 11)", "duplicates='last'"]),
    'empty': (table().iloc[:0], {}, ['the table is empty']),
    'one row': (table().iloc[:1], {}, ['only one row, too few to split']),
    'one user': (table(user='aaaa', item=(1, 2, 3, 4)), {}, ["'user': only one user: 'a'", 'at least two']),
    'one item': (table(user='abcd', item=(7, 7, 7, 7)), {}, ["'item': only one item: 7"]),
    'all alike': (table(rating=(1, 1, 1, 1)), {}, ['every rating is 1, so there is nothing to learn', 'as 0']),
    'text': (table(rating=('3', 'good', '5', '1')), {}, ["1 value not a number, such as 'good' (row 11)", 'df.loc[[11]]']),
    'decimal commas': (table(rating=('3,5', '4', '5', '1')), {}, ["such as '3,5' (row 10)", "decimal=','"]),
    'dates as ratings': (table(rating=pd.date_range('2020', periods=4)), {}, ["'rating': datetime64", 'no ratings', 'rating_name']),
    'seconds as ratings': (table(rating=(881250949, 891717742, 878887116, 880606923)), {}, ['seconds since 1970', 'rating_name']),
    'complex ratings': (table(rating=np.array([1, 2j, 3, 4])), {}, ['complex128 values, which are no ratings']),
    'no such column': (table(), dict(user_name='usr'), ["'usr': no such column for user_name; there are ['user', 'item', 'rating']"]),
    'two columns': (table()[['user', 'rating']], {}, ['needs three columns', "['user', 'rating']"]),
    'one column for two': (table(), dict(user_name='item'), ['one column would serve twice']),
    'same name twice': (pd.concat([table(), table()[['item']]], axis=1), {}, ['two columns have the same name']),
    'columns of two levels': (pd.concat({'x': table()}, axis=1), {}, ['several levels']),
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
}

@pytest.mark.parametrize('case', IDS)
def test_ids_that_are_understood(case):
    ids,want,dtype = IDS[case]
    res = check_ratings(table(user=ids))
    assert res.user.tolist() == want
    if dtype: assert res.user.dtype == dtype
    assert len(Vocab(res.user)) == 2

def test_uuids_are_ids():
    a,b = uuid.uuid4(),uuid.uuid4()
    assert set(Vocab(check_ratings(table(user=[a, a, b, b])).user)) == {a, b}

def test_pyarrow_types():
    pytest.importorskip('pyarrow')
    res = check_ratings(table().convert_dtypes(dtype_backend='pyarrow'))
    assert res.rating.tolist() == [3, 4, 5, 1] and Vocab(res.user).rows(['b']) == [1]

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

def test_columns_may_stand_anywhere():
    df = pd.DataFrame({0: [1, 2, 3, 4], 'stars': [1., 2, 3, 4], 5: list('aabb'), 'film': [1, 2, 1, 2]})
    res = check_ratings(df, user_name=5, item_name='film', rating_name='stars')
    assert list(res.columns) == [5, 'film', 'stars', 0]

@pytest.mark.parametrize('kwargs,words', [(dict(rating_range=(5, 1)), 'rating_range'), (dict(rating_range=3), 'rating_range'), (dict(rating_range=(0, np.inf)), 'finite'),
                                          (dict(duplicates='first'), "duplicates: expected 'error', 'last' or 'mean', got 'first'")])
def test_arguments_are_checked(kwargs, words):
    with pytest.raises(ValueError, match=words): check_ratings(table(), **kwargs)

def test_not_a_frame():
    with pytest.raises(TypeError, match='expected a pandas DataFrame, got list'): check_ratings([1, 2, 3])

def test_the_callers_frame_is_left_alone():
    for df,kwargs,_ in [*BAD.values(), *((d, {}, None) for d,*_ in GOOD.values())]:
        before = pickle.dumps(df)
        try: check_ratings(df, **kwargs)
        except RatingsError: pass
        assert pickle.dumps(df) == before

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

@pytest.mark.parametrize('known,asked,words', [([1, 2], ['1'], 'They are text'), (['1', '2'], [1], 'pass str'), ([1, 2], [3, 4, 3], '2 unknown ids: 3, 4'), ([1, 2], [np.nan], 'nan'),
                                               (list(range(9)), list(range(9, 29)), '20 unknown ids: 9, 10, 11, 12, 13, ...')])
def test_unknown_ids_are_named(known, asked, words):
    with pytest.raises(UnknownIdError) as e: Vocab(known, 'user').encode(asked)
    assert words in str(e.value) and str(e.value).startswith('user:')

def test_no_ids_give_no_rows(): assert len(Vocab([1, 2]).encode([])) == 0

# --- splitters

def is_partition(split, n):
    both = np.concatenate(split)
    return len(both) == n and (np.sort(both) == np.arange(n)).all()

@pytest.mark.parametrize('splitter', [RandomSplitter(0.2, seed=1), TimeSplitter(0.2), LeaveLastOutSplitter(), ColdUserSplitter(0.2, 1), ColdItemSplitter(0.2, 1)])
def test_splitters_part_the_rows(splitter, sim): assert is_partition([np.asarray(o) for o in splitter(sim)], len(sim))

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

@pytest.mark.parametrize('pct', [0, 1, -1, 'x'])
def test_share_is_checked(pct):
    with pytest.raises(ValueError, match='valid_pct'): TimeSplitter(pct)

def test_no_times():
    with pytest.raises(RatingsError, match='no column of times'): TimeSplitter()(table())
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
