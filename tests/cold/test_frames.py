"Frames as people have them, for whoever takes new ratings or metadata: columns in any order and spelling, ids in any place, nothing at all"
import warnings
from copy import deepcopy
import numpy as np, pandas as pd, pytest
import fastcf.all as cf
import fastcf.serve.samples
from fastcf.core import RatingsError, UnknownIdError

def trained(dls, y_range=(.5, 5.5), **kwargs):
    learn = cf.cf_learner(dls, factor_count=3, y_range=y_range, seed=0, **kwargs)
    with learn.no_bar(), learn.no_logging(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        learn.fit(4)
    return learn

@pytest.fixture(scope='module')
def world(tmp_path_factory):
    df = cf.simulate_ratings(80, 50, 1800, 3, seed=0)
    users = pd.DataFrame(dict(user=sorted(df.user.unique()))).assign(age=lambda o: o.user % 9 + 15)
    items = pd.DataFrame(dict(item=sorted(df.item.unique()))).assign(genre=lambda o: np.where(o.item % 3, 'a', 'b'))
    learn = trained(cf.CFDataLoaders.from_df(df, valid_pct=.2, seed=0, bs=256, users=users, items=items))
    learn.save_recommender(folder := tmp_path_factory.mktemp('films')/'r')
    sampled = trained(cf.CFDataLoaders.from_df(df, valid_pct=.2, seed=0, bs=256), None, cbs=cf.Gibbs(burn_in=1, seed=0))
    new = df[df.user < 6][['user', 'item', 'rating']].assign(user=lambda o: o.user + 1000)
    return dict(df=df, users=users, items=items, learn=learn, recommender=cf.Recommender.load(folder), posterior=sampled.posterior, new=new)

WAYS = dict(swapped=lambda o: o[['rating', 'item', 'user']], index=lambda o: o.set_index(pd.Index([f'r{j}' for j in range(len(o))])), repeated=lambda o: o.set_index(pd.Index(np.arange(len(o)) % 3)),
            spoken=lambda o: o.rename(columns=dict(user='userId', item='movieId', rating='stars'))[['movieId', 'stars', 'userId']], one_spoken=lambda o: o.rename(columns=dict(item='film'))[['film', 'rating', 'user']],
            more=lambda o: o.assign(week=1)[['week', 'user', 'item', 'rating']], more_spoken=lambda o: o.rename(columns=dict(user='userId')).assign(week=1)[['week', 'userId', 'item', 'rating']], unspoken=lambda o: o.set_axis(['a', 'b', 'c'], axis=1))

@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('who', ['learn', 'recommender'])
def test_new_ratings_in_any_frame_are_the_same(world, who, way):
    o,f = world[who],WAYS[way](world['new'])
    pd.testing.assert_frame_equal(o.fold_in(f).recommend(5), o.fold_in(world['new']).recommend(5))
    assert world['new'].columns.tolist() == ['user', 'item', 'rating'] # left alone

@pytest.mark.parametrize('way', WAYS)
def test_tables_grow_by_any_frame(world, way):
    one,other = deepcopy(world['learn']),deepcopy(world['learn'])
    one.add_users(WAYS[way](world['new'])); other.add_users(world['new'])
    pd.testing.assert_frame_equal(one.recommend(1002, 5), other.recommend(1002, 5))

@pytest.mark.parametrize('way', [o for o in WAYS if o != 'unspoken'])
@pytest.mark.parametrize('who', ['learn', 'recommender', 'posterior'])
def test_predictions_stand_beside_their_rows(world, who, way):
    o,pairs = world[who],world['df'][['user', 'item', 'rating']].head(40)
    f = WAYS[way](pairs)
    want,got = o.predict(pairs, interval=.9),o.predict(f, interval=.9)
    assert got.index.equals(f.index)
    np.testing.assert_allclose(got[['prediction', 'low', 'high']], want[['prediction', 'low', 'high']], atol=1e-5)

@pytest.mark.parametrize('who', ['learn', 'recommender'])
def test_frames_that_leave_a_column_open_are_asked_about(world, who):
    f = world['new'].rename(columns=dict(user='whose')).assign(week=1)[['week', 'whose', 'item', 'rating']]
    with pytest.raises(RatingsError, match="no column 'user' for the users"): world[who].fold_in(f)
    with pytest.raises((RatingsError, ValueError), match="user"): world[who].fold_in(pd.concat([world['new'], world['new'][['user']]], axis=1))
    with pytest.raises(UnknownIdError, match='They are text'): world[who].fold_in(world['new'].astype(dict(item=str)))

METADATA = dict(first=lambda o, n: o, last=lambda o, n: o[o.columns[::-1]], index=lambda o, n: o.set_index(n), unnamed=lambda o, n: o.set_index(n).rename_axis(None), other_index=lambda o, n: o[o.columns[::-1]].set_index(pd.RangeIndex(7, 7 + len(o), name='row')))

@pytest.mark.parametrize('way', METADATA)
@pytest.mark.parametrize('side', ['user', 'item'])
def test_metadata_have_their_ids_anywhere(world, side, way):
    learn,plain = world['learn'],world[f'{side}s']
    f = METADATA[way](plain, side)
    want,got = (cf.MetadataPrior(learn, side, o).df for o in (plain, f))
    pd.testing.assert_frame_equal(got, want, check_names=False)
    with pytest.raises(ValueError, match='df: none of its ids is known'): cf.MetadataPrior(learn, side, plain.astype({side: str}))

@pytest.mark.parametrize('who', ['learn', 'recommender'])
def test_nothing_is_asked_and_nothing_comes(world, who):
    o,u,i = world[who],int(world['df'].user[0]),int(world['df'].item[0])
    for empty in ([], np.array([]), pd.Series([], dtype='int64')):
        for df in (o.predict(empty, i), o.predict(u, empty), o.recommend(empty), o.similar_items(empty), o.similar_users(empty), o.recommend(u, items=empty), o.predict(empty, i, interval=.9)): assert len(df) == 0 and len(df.columns) > 2
    assert o.predict(world['df'].head(0)).columns.tolist() == ['user', 'item', 'prediction']

def test_counts_without_rows_are_an_empty_plot(world): assert world['learn'].plot_errors_by_count(edges=(100_000,)).get_ylim() == (0, 1)

def test_the_best_tables_of_no_validation_are_refused(world):
    dls = cf.CFDataLoaders.from_df(world['df'], valid_pct=0, seed=0, bs=256)
    with pytest.raises(ValueError, match='monitor: valid_loss is not known without validation rows'): trained(dls, cbs=cf.BestTables())

@pytest.mark.parametrize('side', ['user', 'item'])
def test_ids_as_text_are_attached_to_no_numbers(world, side):
    f = world[f'{side}s'].astype({side: str})
    with pytest.raises(UnknownIdError, match='They are text'): deepcopy(world['learn']).attach_prior(**{f'{side}s': f})
