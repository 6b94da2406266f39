"Each check of ratings at its edge: the last value that passes, the first that does not, and words that fit the number"
import warnings
import numpy as np, pandas as pd, pytest
from fastcf.core import RatingsError
from fastcf.data.checks import check_ratings, clean_ids, clean_values, warn_heavy_tail

def faults_of(f, values, *args, name='c', **kwargs):
    "What came back, and what was said"
    found = []
    res = f(values if isinstance(values, pd.Series) else pd.Series(values, name=name), *args, found, **kwargs)
    return res,[o['fault'] for o in found],[o['fix'] for o in found]

# --- ratings

@pytest.mark.parametrize('value,said', [(1., None), (5., None), (.999, 'outside'), (5.001, 'outside'), (np.inf, 'infinite'), (-np.inf, 'infinite'), (float(np.finfo('float32').max), 'outside'), (float(np.finfo('float32').max) * 1.01, 'infinite')])
def test_a_rating_at_the_edge_of_the_range(value, said):
    _,found,_ = faults_of(clean_values, [2., value, 3.], (1, 5))
    assert (found == []) == (said is None) and all(said in o for o in found) and len(found) <= 1

def test_what_to_do_outside_the_range_depends_on_who_asks():
    assert 'state another rating_range' in faults_of(clean_values, [2., 9., 3.], (1, 5))[2][0]
    assert 'bring them to the scale of the training ratings' in faults_of(clean_values, [2., 9., 3.], (1, 5), new=True)[2][0]

@pytest.mark.parametrize('values,seconds', [([1e8, 2e8], False), ([1e8 + 1, 2e8], True), ([5., 2e8], False), ([np.nan, 2e8, 3e8], True), ([np.nan, np.nan], False)])
def test_seconds_since_1970(values, seconds): assert any('seconds since 1970' in o for o in faults_of(clean_values, values, None)[1]) == seconds

@pytest.mark.parametrize('values,kwargs,alike', [([3., 3.], {}, True), ([3.], {}, False), ([3., 4.], {}, False), ([3., np.nan, 3.], {}, True), ([3., np.inf, 3.], {}, True), ([3., 3.], dict(new=True), False), ([3., 3.], dict(what='weight'), False)])
def test_ratings_that_are_all_the_same(values, kwargs, alike): assert any('every rating is 3' in o for o in faults_of(clean_values, values, None, **kwargs)[1]) == alike

@pytest.mark.parametrize('values,words', [
    (['x'], '1 value not a number, such as '), (['x', 'y', 'x', 'y'], "4 values not a number, such as 'x', 'y'"), (['w', 'x', 'y', 'z'] * 2, "such as 'w', 'x', 'y', ..."), (['w', 'x', 'y'] * 2, "such as 'w', 'x', 'y'"),
    (['x', '1', '2'], "1 value not a number, such as 'x'"), (['a', 'b', 'c'], "3 values not a number, such as 'a'")])
def test_values_that_are_no_numbers(values, words):
    _,found,fix = faults_of(clean_values, values, None)
    assert words in found[0] and found[0].endswith(words[-3:] if words[-1] != ' ' else "'x'")

def test_words_are_numbered_where_they_are_few():
    few,many = [f'w{j % 20}' for j in range(40)],[f'w{j % 21}' for j in range(42)]
    assert "df['c'].map({'w0': 1, 'w1': 2, 'w2': 3, ...})" in faults_of(clean_values, few, None)[2][0]
    assert 'Look at df.loc[[0, 1, 2]]' in faults_of(clean_values, many, None)[2][0] and 'Look at' in faults_of(clean_values, [*few, '1'], None)[2][0]
    assert "map({'a': 1, 'b': 2})" in faults_of(clean_values, ['a', 'b', 'a', 'b'], None)[2][0] and 'Look at df.loc[[0, 1, 2]]' in faults_of(clean_values, ['a', 'b', 'a'], None)[2][0]

@pytest.mark.parametrize('values,fix', [(['1,5', '2'], "Decimal commas: read_csv(..., decimal=',')"), (['-1,5', ' 2,5 '], "Decimal commas: read_csv(..., decimal=',')"), (['1,5', 'x'], "and 1 value would still not be a number: 'x'. "), (['1,5', *'wxyz'], "and 4 values would still not be a number: 'w', 'x', 'y', .... If these mean that there is no rating: read_csv(..., na_values=['w', 'x', 'y'])")])
def test_decimal_commas(values, fix): assert faults_of(clean_values, values, None)[2][0].endswith(fix) or fix in faults_of(clean_values, values, None)[2][0]

def test_text_and_truth_become_numbers_and_are_noted():
    for values,note in ((['1', '2.5'], 'text became numbers'), ([True, False], 'booleans became 0 and 1'), (pd.Series([True, False], name='c', dtype='boolean'), 'booleans became 0 and 1'), ([1, 2], None), (pd.Series([1, 2.5], name='c', dtype=object), None)):
        (s,notes),found,_ = faults_of(clean_values, values, None)
        assert found == [] and s.dtype == 'float64' and (notes == [f"'c': {note}"] if note else notes == [])
    (s,notes),found,_ = faults_of(clean_values, ['1', ' ', 'NaN', 'null', None, 'x'], None)
    assert found == ["1 value not a number, such as 'x'", '4 missing ratings'] and s.isna().tolist() == [False] + [True] * 5 and notes == []

# --- ids

@pytest.mark.parametrize('ids,odd', [([1., 2.], 0), ([2.**53, 1.], 0), ([2.**53 + 2, 1.], 1), ([-2.**53, 1.], 0), ([-2.**53 - 2, 1.], 1), ([1000., 107.], 0), ([1.5, 2.], 1), ([.5, 2.5], 2)])
def test_floats_that_are_ids(ids, odd):
    res,found,_ = faults_of(clean_ids, ids)
    assert found == ([] if not odd else [f"{odd} id{'s' if odd > 1 else ''} with a fraction, or too large for one"]) and (odd or res.dtype == 'int64' and res.tolist() == ids)

@pytest.mark.parametrize('ids,dtype', [(np.array([1, 2], 'int8'), 'int64'), (np.array([1, 2], 'uint32'), 'int64'), (np.array([1, 2], 'uint64'), 'uint64'), (pd.array([1, None], 'Int64'), 'Int64'), ([1., np.nan], 'float64')])
def test_dtypes_of_ids(ids, dtype): assert faults_of(clean_ids, ids)[0].dtype == dtype

@pytest.mark.parametrize('ids,said', [
    (['1997-01-02', '1997-1-2 10:30'], 'look like times'), (['1.2.1997', '1/2/1997'], 'look like times'), (['1997-01-02', 'x'], None), (['a', 'a '], '1 id that would be'), (['a', ' a', 'a '], '2 ids that would be'), ([' a', ' b'], None), (['a ', 'a '], None),
    (['a\ud800', 'b'], '1 id with half a character'), (['a\udfff', 'b\ud8ff'], '2 ids with half a character'), (['a\ue000', 'é'], None)])
def test_texts_that_are_ids(ids, said):
    _,found,_ = faults_of(clean_ids, pd.Series(ids, name='c', dtype=object))
    assert (found == []) == (said is None) and all(said in o for o in found)

def test_times_are_looked_for_in_a_thousand_ids():
    times = [f'{y}-01-{d:02}' for y in range(1000, 1100) for d in range(1, 11)]
    assert faults_of(clean_ids, [*times, 'x'])[1] and not faults_of(clean_ids, [*times[1:], 'x'])[1]

@pytest.mark.parametrize('ids,said', [([1, 'a'], 'ids of mixed or unhashable types: 1 int, 1 str'), ([1, 1, 'a'], '2 int, 1 str'), ([{}, {}], '2 dict'), ([('a',), ('b',)], None), ([b'a', b'b'], None), ([[1], (1,)], '1 list, 1 tuple')])
def test_kinds_of_ids(ids, said):
    _,found,_ = faults_of(clean_ids, pd.Series(ids, name='c', dtype=object))
    assert (found == []) == (said is None) and all(said in o for o in found)

# --- tables

def test_tables_of_two_rows_are_the_least():
    two = pd.DataFrame(dict(user=[1, 2], item=[1, 2], rating=[1., 2.]))
    assert len(check_ratings(two)) == 2
    for col,words in (('user', 'only one user: 1'), ('item', 'only one item: 1')):
        with pytest.raises(RatingsError, match=words): check_ratings(two.assign(**{col: 1}))
    with pytest.raises(RatingsError, match='only one row') as e: check_ratings(two[:1])
    assert len(e.value.faults) == 1

def test_pairs_are_merged_and_no_others():
    "Every pair of many users and items once, and some twice"
    df = pd.DataFrame([(u, i, float((u * 7 + i) % 5)) for u in range(9) for i in range(8)], columns=['user', 'item', 'rating'])
    assert len(check_ratings(df, duplicates='last')) == 72 and check_ratings(df).attrs['repairs'] == []
    twice = pd.concat([df, df[:3].assign(rating=9.)], ignore_index=True)
    last,mean = check_ratings(twice, duplicates='last'),check_ratings(twice, duplicates='mean')
    assert len(last) == len(mean) == 72 and (last[last.rating == 9].item == [0, 1, 2]).all() and last.attrs['repairs'] == ['3 repeated pairs were merged (last, by the order of rows)'] and mean.attrs['repairs'] == ['3 repeated pairs were merged (mean)']
    assert mean.sort_values(['user', 'item']).rating.tolist() == [*((df.rating[:3] + 9) / 2), *df.rating[3:]]
    timed = check_ratings(twice.assign(time=range(75, 0, -1)), duplicates='last')
    assert (timed.rating < 9).all() and timed.attrs['repairs'] == ["3 repeated pairs were merged (last, by 'time')"]
    with pytest.raises(RatingsError, match='6 rows in which a user rates an item'): check_ratings(twice)

# --- counts among ratings

@pytest.mark.parametrize('values,warned', [([1, 1, 1, 30], False), ([1, 1, 1, 31], True), ([0, 1, 1, 31], True), ([-1, 1, 1, 31], False), ([0, 0, 0, 31], False), ([1, 61], False), ([1, 1, 99], True), ([31], False), ([1, 1, 1, np.inf], False), ([1, 1, np.nan, 31], True)])
def test_a_heavy_tail(values, warned):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter('always')
        warn_heavy_tail(pd.Series(values, name='c', dtype='float64'), 'Do this.')
    assert bool(seen) == warned and all("'c': the largest value" in str(o.message) and str(o.message).endswith('Do this.') for o in seen)
