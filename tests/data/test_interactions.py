"Interactions: recognised in all the ways they come, weights against a plain version, faults named, loaders and splitters as for ratings"
import copy, warnings
from collections import Counter
import numpy as np, pandas as pd, pytest
from hypothesis import given, settings, strategies as st
from fastcf.core import RatingsError
from fastcf.data.interactions import check_interactions, holds_interactions, transform_weights
from fastcf.data.loaders import CFDataLoaders
from fastcf.data.splits import LeaveLastOutSplitter, LeaveOneOutSplitter, PerUserSplitter, TimeSplitter

def pairs(): return pd.DataFrame(dict(user=['a', 'a', 'b', 'b', 'a', 'c'], item=[1, 2, 1, 2, 1, 3], timestamp=[5, 4, 3, 2, 9, 1]), index=list('uvwxyz'))

RECOGNISED = {
    'two columns': (pairs()[['user', 'item']], {}), 'two and a time': (pairs(), {}), 'two and a date': (pairs().assign(timestamp=pd.date_range('2020', periods=6)), {}),
    'a date of another name': (pairs().rename(columns=dict(timestamp='watched')).assign(watched=pd.date_range('2020', periods=6)), {}), 'a named time': (pairs().rename(columns=dict(timestamp='when')), dict(time_name='when')),
    'item first': (pairs()[['item', 'user']], {}), 'columns without meaning': (pairs()[['user', 'item']].set_axis(['x', 'y'], axis=1), {}), 'said so': (pairs().assign(rating=[1, 2, 3, 4, 5, 1]), dict(rating_name=False)),
    'weights': (pairs().assign(plays=[1, 2, 3, 4, 5, 1]), dict(weight_name='plays')), 'liked': (pairs().assign(rating=[1, 2, 3, 4, 5, 1]), dict(liked=2)), 'ones': (pairs().assign(rating=1), {}),
    'ones, named': (pairs().assign(used=1.), dict(rating_name='used')), 'true': (pairs().assign(rating=True), {}), 'one word': (pairs().assign(rating='buy'), {}), 'fives': (pairs().assign(rating=5), {})}

@pytest.mark.parametrize('case', RECOGNISED)
def test_interactions_are_recognised(case):
    df,kwargs = RECOGNISED[case]
    before = copy.deepcopy(df)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        dls = CFDataLoaders.from_df(df, valid_pct=0.34, seed=0, **kwargs)
    pd.testing.assert_frame_equal(df, before)
    assert dls.is_interactions and dls.catalog.is_interactions and dls.catalog.rating_name is None and dls.catalog.value_name == kwargs.get('weight_name', 'weight')
    assert [str(w.message) for w in said if 'understood as interactions' in str(w.message)] == [str(w.message) for w in said] and len(said) == (case in ('ones', 'ones, named', 'true', 'one word', 'fives'))
    users,items,weights = dls.one_batch()
    assert weights.dtype.is_floating_point and (weights > 0).all() and set(dls.classes) == {'user', 'item'} or case == 'columns without meaning'

@pytest.mark.parametrize('df', [pairs().assign(rating=[1, 2, 3, 4, 5, 1]).drop(index=['y']), pairs().assign(rating=[1, 2, 3, 4, 5, 1], other=1).drop(index=['y'])])
def test_ratings_stay_ratings(df): assert holds_interactions(df) == '' and not CFDataLoaders.from_df(df, valid_pct=0.34, seed=0).is_interactions

@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(1, 9), st.integers(0, 3)), min_size=2, max_size=25), st.sampled_from(['sum', 'last']), st.sampled_from(['none', 'log1p', 'capped', 4]), st.booleans())
def test_weights_against_a_plain_version(rows, duplicates, transform, with_times):
    df = pd.DataFrame(rows, columns=['user', 'item', 'plays', 'time'], index=[7] * len(rows))
    if not with_times: df = df.drop(columns='time')
    total,latest = Counter(),{}
    for j,(u,i,w,t) in enumerate(rows):
        total[u, i] += w
        if (u, i) not in latest or not with_times or t >= rows[latest[u, i]][3]: latest[u, i] = j
    want = {p: total[p] if duplicates == 'sum' else rows[latest[p]][2] for p in latest}
    try: res = check_interactions(df, weight_name='plays', duplicates=duplicates, weight_transform=transform)
    except RatingsError as e: assert df.user.nunique() < 2 or df.item.nunique() < 2 or len(want) < 2; return
    top = 10 * np.median(list(want.values()))
    change = {'none': lambda w: w, 'log1p': lambda w: np.log2(1 + w), 'capped': lambda w: min(w, top), 4: lambda w: min(w, 4)}[transform]
    assert {(u, i): round(w, 9) for u,i,w in zip(res.user, res.item, res.plays)} == {p: round(float(change(w)), 9) for p,w in want.items()}
    if with_times: assert res.time.tolist() == [rows[j][3] for j in sorted(latest.values())]
    assert res.attrs['repairs'] == ([] if len(want) == len(rows) else [f"{len(rows) - len(want):,} repeated pairs were merged ({'their weights added up' if duplicates == 'sum' else 'the latest kept'})"])

@pytest.mark.parametrize('df,kwargs,words', [
    (pairs().assign(n=[0, 1, -1, 2, 3, 4]), dict(weight_name='n'), ["'n': 2 weights of 0 or below (rows 'u', 'w')", "df[df['n'] > 0]"]), (pairs().assign(n=[1, None, 1, 2, 3, 4]), dict(weight_name='n'), ["1 missing weight (row 'v')"]),
    (pairs().assign(n=list('abcdef')), dict(weight_name='n'), ['6 values not a number']), (pairs().assign(n=[np.inf] * 6), dict(weight_name='n'), ['6 infinite weights']),
    (pairs().assign(user=['a', None, 'b', 'b', 'c', 'c']), {}, ["1 missing id (row 'v')"]), (pairs(), dict(weight_name='plays'), ["no such column for weight_name; there are ['user', 'item', 'timestamp']"]),
    (pairs().assign(weight=1), {}, ["'weight': a column of this name", "weight_name='weight'"]), (pairs(), dict(weight_name='item'), ['one column would serve twice']), (pairs(), dict(duplicates='error'), ["2 rows of pairs that occur elsewhere too (rows 'u', 'y')"]),
    (pairs().iloc[:0], {}, ['empty']), (pairs()[['user']], {}, ['a table of interactions needs two columns']), (pairs().assign(user='a'), {}, ["only one user: 'a'"]), (pairs(), dict(weight_name='timestamp'), []),
    (pairs().assign(rating=[1, 2, 3, 4, 5, 1]), dict(liked=6), ['no rating is 6 or higher; the highest is 5']), (pairs().assign(rating=[1, 2, 3, 4, 50, 1]), dict(liked=4, rating_range=(1, 5)), ['1 rating outside 1 to 5']),
    (pairs().assign(timestamp=881250949), dict(weight_name='timestamp'), ['seconds since 1970', 'weight_name='])])
def test_faults_are_named_with_rows_and_fix(df, kwargs, words):
    if not words: return check_interactions(df, **kwargs)
    with pytest.raises(RatingsError) as e: check_interactions(df, **kwargs)
    for w in words: assert w in str(e.value), str(e.value)
    assert (e.value.faults.fix.str.len() > 0).all()

@pytest.mark.parametrize('kwargs,words', [(dict(weight_transform='sqrt'), 'weight_transform: expected'), (dict(weight_transform=0), 'weight_transform'), (dict(weight_transform=True), 'weight_transform'), (dict(duplicates='mean'), "'sum', 'last' or 'error'"),
                                          (dict(liked='4'), 'liked: expected a number'), (dict(liked=np.nan), 'liked'), (dict(liked=True), 'liked'), (dict(weight_name='rating', rating_name='rating'), 'ratings already')])
def test_arguments_are_checked(kwargs, words):
    with pytest.raises(ValueError, match=words): CFDataLoaders.from_df(pairs().assign(rating=[1, 2, 3, 4, 5, 1]), **{'rating_name': False if 'liked' not in kwargs else None, **kwargs})

def test_plays_that_are_far_apart_are_warned_of():
    df = pairs().drop(index='y').assign(plays=[1, 1, 2, 1, 400])
    with pytest.warns(UserWarning, match="'plays': the largest value, 400, is 400 times the median, 1.*weight_transform='log1p'"): check_interactions(df, weight_name='plays')
    with pytest.warns(UserWarning, match="weight_name='plays', weight_transform='log1p'"): CFDataLoaders.from_df(df.drop(columns='timestamp'), valid_pct=.25)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        check_interactions(df, weight_name='plays', weight_transform='log1p')
        for scale in ([1, 5, 1, 1, 3], [0, 100, 70, 60, 5], [-9, 9, .1, .1, 0], [.5, 5, 3, 3, 2]): CFDataLoaders.from_df(df.drop(columns='timestamp').assign(plays=scale), valid_pct=.25)

def test_one_use_weighs_one(): assert transform_weights([1, 3, 7]).tolist() == [1, 2, 3]

def test_loaders_of_interactions_do_what_those_of_ratings_do(sim, tmp_path):
    log = sim[['user', 'item', 'timestamp']]
    films = pd.DataFrame(dict(item=np.arange(80), title=[f'T{j}' for j in range(80)]))
    a = CFDataLoaders.from_df(sim, seed=1, items=films, time_name='timestamp')
    b = CFDataLoaders.from_df(log, seed=1, items=films, time_name='timestamp')
    for x,y in ((a.train_ds, b.train_ds), (a.valid_ds, b.valid_ds)): assert (x.users == y.users).all() and (x.items == y.items).all() and (x.times == y.times).all() and (y.ratings == 1).all()
    assert list(b.train.show_batch(show=False)) == ['user', 'item', 'title', 'weight'] and b.new_empty().is_interactions and (a.counts() == b.counts()).all()
    log.to_csv(tmp_path/'r.csv', index=False); log.to_parquet(tmp_path/'r.parquet')
    for c in (CFDataLoaders.from_csv(tmp_path/'r.csv', seed=1), CFDataLoaders.from_parquet(tmp_path/'r.parquet', seed=1)): assert c.is_interactions and (c.train_ds.users == b.train_ds.users).all()
    last = CFDataLoaders.from_df(log, splitter=LeaveLastOutSplitter(k=2))
    assert len(last.valid_ds) == 2 * sim.user.nunique() or sim.user.value_counts().min() < 3
    assert len(b.test_dl(log.head(5)).one_batch()) == 2

def test_liked_ratings_keep_their_split_times_and_metadata(sim):
    dls = CFDataLoaders.from_df(sim, liked=4, splitter=TimeSplitter(0.2), time_name='timestamp')
    kept = sim[sim.rating >= 4]
    assert len(dls.train_ds) + len(dls.valid_ds) == len(kept) and dls.train_ds.times.max() <= dls.valid_ds.times.min()
    assert set(dls.classes['user']) == set(kept.user)

# --- splitters

@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), min_size=1, max_size=30), st.integers(1, 4), st.integers(0, 9), st.sampled_from([.1, .3, .5]))
def test_splitters_by_user_against_plain_versions(rows, k, seed, share):
    df = pd.DataFrame(dict(item=range(len(rows)), user=[u for u,_ in rows], timestamp=[t for _,t in rows]), index=[3] * len(rows))
    mine = {u: sorted((t, j) for j,(v,t) in enumerate(rows) if v == u) for u in set(df.user)}
    train,valid = LeaveLastOutSplitter(k)(df)
    assert valid.tolist() == sorted(j for o in mine.values() for _,j in o[1:][-k:]) and sorted([*train, *valid]) == list(range(len(rows)))
    train,valid = LeaveOneOutSplitter(seed)(df)
    assert Counter(df.user.iloc[valid]) == Counter({u: 1 for u,o in mine.items() if len(o) > 1}) and sorted([*train, *valid]) == list(range(len(rows)))
    for newest in (False, True):
        train,valid = PerUserSplitter(share, seed, newest)(df)
        assert Counter(df.user.iloc[valid]) == Counter({u: n for u,o in mine.items() if (n := int(share * len(o) + 1e-9))}) and sorted([*train, *valid]) == list(range(len(rows)))
    assert valid.tolist() == sorted(j for o in mine.values() if (n := int(share * len(o) + 1e-9)) for _,j in o[-n:])

def test_leave_one_out_is_seeded(sim):
    a,b,c = (LeaveOneOutSplitter(s)(sim)[1].tolist() for s in (1, 1, 2))
    assert a == b != c

@pytest.mark.parametrize('make,words', [(lambda: LeaveLastOutSplitter(0), 'k: expected'), (lambda: LeaveLastOutSplitter('user'), 'k: expected'), (lambda: PerUserSplitter(2), 'valid_pct'),
                                        (lambda: LeaveOneOutSplitter(user_name='who')(pairs()), "'who': no such column for user_name"), (lambda: LeaveLastOutSplitter()(pairs()[['user', 'item']]), 'no column of times')])
def test_splitters_check_their_arguments(make, words):
    with pytest.raises(ValueError, match=words): make()
