"Tables as people have them: which column is which, in any order and spelling; without a header; too wide; in frames of other libraries"
from io import StringIO
import numpy as np, pandas as pd, pytest
from hypothesis import given, settings, strategies as st
from fastcf.core import RatingsError, UnknownIdError
from fastcf.data.checks import check_ratings
from fastcf.data.columns import SPELLINGS, as_pandas, find_columns, match_columns, role_of
from fastcf.data.loaders import CFDataLoaders
from fastcf.data.vocab import Vocab

def said(f, *args, error=RatingsError, **kwargs):
    with pytest.raises(error) as e: f(*args, **kwargs)
    return str(e.value)

def shown(words): return st.sampled_from(words).flatmap(lambda w: st.sampled_from([w, w.upper(), w.title(), ' ' + w, w[:-2] + '_' + w[-2:], w[:-2] + '-' + w[-2:].upper()]))

@settings(deadline=None)
@given(shown(SPELLINGS['user']), shown(SPELLINGS['item']), shown(SPELLINGS['rating']), st.permutations(range(5)))
def test_columns_are_found_by_their_names_in_any_order(user, item, rating, order):
    df = pd.DataFrame({user: [1, 2], item: [3, 4], rating: [5., 1.], 'week': [1, 1], 'votes': [9, 9]})
    df = df[[df.columns[j] for j in order]]
    assert find_columns(df) == [user, item, rating] and find_columns(df, rating=False) == [user, item] and match_columns(df, 'u', 'i', 'r') == [user, item, rating]
    assert check_ratings(df).columns[:3].tolist() == [user, item, rating]

@settings(deadline=None)
@given(st.permutations(['who', 'what', 'stars', 'week', 'votes']))
def test_a_table_with_one_name_that_speaks_is_never_trained_on_the_wrong_three(names):
    df = pd.DataFrame({n: [1, 2, 1] for n in names}).assign(stars=[1, 2, 3])
    try: got = find_columns(df)
    except RatingsError as e: assert "'stars' looks like the ratings" in str(e) and 'Pass user_name and item_name' in str(e)
    else: assert got[2] == 'stars' == names[2] and got[:2] == list(names[:2]) # in its own place, positions hold

def test_no_spelling_has_two_roles(): assert len(set(sum(SPELLINGS.values(), []))) == sum(map(len, SPELLINGS.values()))

@pytest.mark.parametrize('columns,want', [
    ('userId movieId rating timestamp', 'userId movieId rating'), ('reviewerID asin reviewerName helpful reviewText overall', 'reviewerID asin overall'),
    ('user_id book_id review_id rating', 'user_id book_id rating'), ('a b c d', 'a b c'), ('user title movieId rating', 'user movieId rating'), ('Item User Stars', 'User Item Stars'),
    ('rating score user item', 'user item rating'), ('customer product qty score', 'customer product score'), ('person film stars', 'person film stars'), ('u film stars', 'u film stars'), ('User-ID ISBN Book-Rating', 'User-ID ISBN Book-Rating'), ('movie_rating movie_id user_id', 'user_id movie_id movie_rating')])
def test_real_headers(columns, want): assert find_columns(pd.DataFrame([[1] * len(columns.split())], columns=columns.split())) == want.split()

@pytest.mark.parametrize('columns,words', [
    ('restaurant city votes cuisine Rating', ["'restaurant' looks like the items, 'Rating' looks like the ratings", 'Pass user_name']),
    ('ts event session user_id sku', ["'user_id' looks like the users, 'sku' looks like the items", 'Pass rating_name, or rating_name=False']),
    ('week who item rating', ['Pass user_name'])])
def test_what_stays_unclear_is_asked(columns, words):
    got = said(find_columns, pd.DataFrame([[1] * len(columns.split())], columns=columns.split()))
    for w in words: assert w in got, got

def test_named_columns_win(): assert find_columns(pd.DataFrame(dict(user=[1], item=[2], rating=[3], who=[4])), user_name='who') == ['who', 'item', 'rating']

# --- no header

@pytest.mark.parametrize('text,names', [
    ('0,1002,4.0\n0,1003,3.5\n', "['user', 'item', 'rating']"), ('0,1002,4.0,881250949\n0,1003,3.5,881250950\n', "['user', 'item', 'rating', 'timestamp']"),
    ('1,1,5\n1,2,4\n', "['user', 'item', 'rating']"), ('A1XY,B000JQ,5.0,1368489600\nA2ZZ,B000JQ,4.0,1368489601\n', "['user', 'item', 'rating', 'timestamp']"), ('7,7\n7,8\n', "['user', 'item']")])
def test_a_file_without_a_header(text, names):
    got = said(CFDataLoaders.from_df, pd.read_csv(StringIO(text)))
    assert f"header=None, names={names}" in got and 'one row is lost' in got

@pytest.mark.parametrize('names', [None, ['0', '1', '2'], ['196', 'film', '3']])
def test_names_that_are_no_first_row(names):
    df = pd.DataFrame([[1, 1, 5.], [1, 2, 4.], [2, 1, 3.]])
    if names: df.columns = names
    if names == ['196', 'film', '3']: df = df.rename(columns={'3': 'score 3'})
    assert len(check_ratings(df)) == 3

# --- a matrix

def wide(users=12, items=30, share=.7, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(rng.integers(1, 6, (users, items)).astype(float), index=[f'u{j}' for j in range(users)], columns=[f'film {j}' for j in range(items)]).mask(rng.random((users, items)) < share)

@pytest.mark.parametrize('make', [lambda w: w, lambda w: w.rename_axis('user').reset_index(), lambda w: pd.read_csv(StringIO(w.to_csv())), lambda w: w.rename_axis('who').reset_index(),
                                  lambda w: w.set_axis(range(30), axis=1), lambda w: w.fillna(0), lambda w: w.iloc[:, :4], lambda w: w.set_axis(map(str, range(100, 130)), axis=1)])
def test_a_matrix_of_users_and_items_says_how_to_melt_it(make):
    df = make(wide())
    got = said(check_ratings, df)
    assert 'a matrix of users × items' in got
    call = got.rpartition('Make it one row a rating: ')[2].rstrip('.')
    long = eval(call, dict(df=df)) # what is said works
    assert long.rating.between(1, 5).all() and len(long) == wide().iloc[:, :4 if len(df.columns) == 4 else 30].notna().sum().sum()
    assert len(check_ratings(long)) == len(long)

@pytest.mark.parametrize('df', [pd.DataFrame(dict(a=[1, 1, 2], b=[1, 2, 1], c=[3, 4, 5], d=[9, 9, 9], e=[np.nan, 1, np.nan])), pd.DataFrame(dict(user=[1, 2, 3], item=[1, 2, 1], rating=[3, 4, 5], x=[np.nan] * 3, y=[np.nan] * 3)),
                                pd.DataFrame(dict(a=[1, 2, 3], b=[1, 2, 1], c=[3, 4, 5], d=[10**9] * 3))])
def test_a_long_table_is_no_matrix(df): assert len(check_ratings(df)) == 3

# --- other libraries

def frames():
    pl,pa = pytest.importorskip('polars'),pytest.importorskip('pyarrow')
    cols = dict(user=['ann', 'ann', 'bob', 'bob'], item=[1, 2, 1, 2], rating=[3., 4., 5., 1.])
    return pd.DataFrame(cols),pl.DataFrame(cols),pa.table(cols)

class Exchanged:
    "A frame that knows the interchange protocol and nothing else"
    def __init__(self, df): self.df = df
    def __dataframe__(self, *args, **kwargs): return self.df.__dataframe__(*args, **kwargs)

@pytest.mark.filterwarnings('ignore')
def test_frames_of_other_libraries_give_the_same_ratings(monkeypatch):
    plain,*others = frames()
    for df in (*others, Exchanged(plain)):
        pd.testing.assert_frame_equal(check_ratings(df), check_ratings(plain), check_dtype=False)
        a,b = (CFDataLoaders.from_df(o, valid_pct=0.25, seed=0) for o in (df, plain))
        assert (a.train_ds.ratings == b.train_ds.ratings).all() and a.classes == b.classes
        assert len(a.test_dl(df).dataset) == 4
    films = pd.DataFrame(dict(item=[1, 2], title=['Alien', 'Brazil']))
    dls = CFDataLoaders.from_df(plain, items=type(others[0])(films.to_dict('list')), valid_pct=0.25)
    assert dls.catalog.titles([0, 1]).tolist() == ['Alien', 'Brazil']

def test_what_is_no_frame_yet_is_named():
    _,pl_frame,_ = frames()
    assert said(check_ratings, pl_frame.lazy(), error=TypeError) == "ratings: expected a pandas DataFrame, got LazyFrame. Make it one with .collect()."
    assert 'got Series' in said(as_pandas, pl_frame['user'], error=TypeError) and 'items: expected' in said(CFDataLoaders.from_df, frames()[0], items=[1], error=TypeError)

# --- what messages say

def test_messages_show_ids_as_they_are_typed():
    "No np.int64(2) in any of them, and no np.str_"
    rows = np.array([np.int64(5), np.int64(6), np.int64(7), np.int64(8)], dtype=object)
    for df,kwargs in [(pd.DataFrame(dict(user=[1, 1, 2, 2], item=[1, 2, 1, 2], rating=['1', 'x', '2', '3']), index=rows), {}), (pd.DataFrame({np.int64(2): [1, 1], np.int64(3): [1, 2], np.float64(4): [np.nan, 1]}), {}),
                      (pd.DataFrame({np.int64(2): [1, 1], np.int64(3): [1, 2]}), dict(rating_name=np.int64(9))), (pd.DataFrame(dict(user=np.array([1, 1.5, 2]), item=[1, 2, 3], rating=[1, 2, 3])), {}),
                      (pd.DataFrame({np.str_('user'): [1, 1], np.str_('item'): [1, 2], 'when': [np.int64(1)] * 2, 'z': [1, 1]}), dict(user_name=np.str_('x')))]:
        assert 'np.' not in said(check_ratings, df, **kwargs)
    assert 'np.' not in said(Vocab(np.array([1, 2])).encode, np.array([3]), error=UnknownIdError)

@pytest.mark.parametrize('where', ['user', 'item'])
def test_half_characters_are_named(where):
    ids = pd.Series(['a\ud800', 'b', 'a\ud800', 'c'], dtype=object)
    df = pd.DataFrame(dict(user=[1, 1, 2, 2], item=[1, 2, 3, 4], rating=[1., 2, 3, 4])).assign(**{where: ids})
    got = said(check_ratings, df)
    assert f"'{where}': 2 ids with half a character (a lone surrogate), such as 'a\\ud800' (rows 0, 2)" in got and got.encode()
    df[where] = df[where].str.encode('utf-8', 'replace').str.decode('utf-8') # as it says
    assert len(check_ratings(df)) == 4

def test_half_characters_asked_for_are_unknown_ids():
    for ids in ([1, 2], ['a', 'b']): assert '\\ud800' in said(Vocab(ids, 'user').encode, ['\ud800'], error=UnknownIdError)
    assert list(Vocab(pd.Series(['\ud800', 'a'], dtype=object))) == ['a', '\ud800']

# --- later frames

@pytest.mark.parametrize('columns,want', [('user item', 'user item'), ('item user', 'user item'), ('item person', 'person item'), ('x y', 'x y'), ('movie customer', 'customer movie'), ('user x', 'user x'), ('z user item', 'user item')])
def test_later_frames_are_matched(columns, want): assert match_columns(pd.DataFrame(columns=columns.split()), 'user', 'item') == want.split()

@pytest.mark.parametrize('columns,lost', [('item x', "no column 'user' for the users"), ('x user', "no column 'item'"), ('user', "no column 'item'"), ('x', "no column 'user' and 'item'"), ('', "no column 'user' and 'item'")])
def test_roles_are_never_mixed(columns, lost): assert lost in said(match_columns, pd.DataFrame(columns=columns.split()), 'user', 'item')

def test_test_dl_tells_users_from_items():
    df = pd.DataFrame(dict(user=[1, 1, 2, 2, 3], item=[7, 8, 7, 9, 8], rating=[1., 2, 3, 4, 5]))
    dls = CFDataLoaders.from_df(df, valid_pct=.2, seed=0)
    for pairs in (df, df.rename(columns=dict(user='person'))[['item', 'person']], df[['rating', 'item', 'user']], df.rename(columns=dict(user='a', item='b', rating='c'))):
        t = dls.test_dl(pairs, with_labels='rating' in pairs or 'c' in pairs).dataset
        assert dls.classes['user'][t.users].tolist() == df.user.tolist() and dls.classes['item'][t.items].tolist() == df.item.tolist()
    for bad in (df[['item', 'rating']], df[['user']]): assert 'no column' in said(dls.test_dl, bad)
    assert 'no column' in said(dls.test_dl, df[['user', 'item']], with_labels=True)
