"Odd frames from the first look to the saved folder: a documented result or one of fastcf's errors, and text that stays text"
import json, os, warnings
import numpy as np, pandas as pd, pytest, torch
from hypothesis import HealthCheck, given, settings, strategies as st
import fastcf.all # every method of a learner
from fastcf.core import RatingsError, UnknownIdError
from fastcf.data.checks import check_ratings
from fastcf.data.loaders import CFDataLoaders
from fastcf.data.sources import simulate_ratings
from fastcf.learn.learner import cf_learner
from fastcf.serve.app import records
from fastcf.serve.recommender import Recommender
from fastcf.watch.embedding_stats import EmbeddingStats

ODD = ['', ' ', 'a', ' a', '=cmd()|x', '<b>', '<script>alert(1)</script>', 'é', 'e\u0301', '\u202eabc', '\x00', 'x' * 10_000, '1', 'nan', 'None', '\t\n', '#na#', '2020-01-01', '🎬']
IDS = [st.integers(-3, 12), st.sampled_from(ODD), st.text(max_size=3), st.integers(-2**63, 2**63 - 1), st.tuples(st.integers(0, 2), st.text(max_size=1)), st.uuids(), st.floats(), st.booleans(), st.none(), st.binary(max_size=2),
       st.dates(), st.one_of(st.integers(0, 3), st.sampled_from(ODD), st.none(), st.floats(0, 3))]
RATINGS = [st.integers(1, 5), st.floats(0, 5), st.floats(), st.sampled_from(['1', '5', 'good', '4,5', None, '']), st.booleans(), st.none(), st.integers(-10**20, 10**20), st.floats(1e30, 1e38), st.just(3)]

@st.composite
def frames(draw):
    "A frame of ratings, of ids and ratings of one sort each, rarely as they should be"
    n,sane = draw(st.integers(0, 25)),draw(st.booleans())
    user,item = (draw(st.sampled_from(IDS[:6] if sane else IDS)) for _ in range(2))
    rating = draw(st.sampled_from(RATINGS[:2] if sane else RATINGS))
    cols = [draw(st.lists(o, min_size=n, max_size=n)) for o in (user, item, rating)]
    df = pd.DataFrame({k: pd.Series(v, dtype=object) for k,v in zip(('user', 'item', 'rating'), cols)})
    if draw(st.booleans()): df = df.infer_objects()
    return df.drop_duplicates(['user', 'item']) if sane else df

DOCUMENTED = RatingsError, UnknownIdError # what a frame may be told; a ValueError or TypeError has to name the argument

def said(e):
    "Whether an error is one that fastcf documents"
    return isinstance(e, DOCUMENTED) or (type(e) in (ValueError, TypeError) and any(str(e).startswith(f'{k}:') for k in ('users', 'items', 'ratings', 'k', 'df', 'rating', 'rating_name', 'user_name', 'item_name', 'columns', 'y_range', 'valid_pct')))

def alike_up_to_ties(a, b):
    "The same list, but for items whose values differ by no more than rounding"
    pd.testing.assert_frame_equal(a.drop(columns=[a.columns[2], 'chance', 'prediction']), b.drop(columns=[b.columns[2], 'chance', 'prediction']), rtol=1e-4, atol=1e-4)
    if not len(b): return
    value = b.value.to_numpy(copy=True)
    apart = np.concatenate([[True], np.abs(np.diff(value)) > 1e-4]) & np.concatenate([np.abs(np.diff(value)) > 1e-4, [False]]) # the last may tie with what is not listed
    pd.testing.assert_frame_equal(a[apart], b[apart], rtol=1e-4, atol=1e-4)

def whole_way(df, path, seed):
    "Load, check, split, train, predict, recommend, save, load: where it ended"
    before = df.copy(deep=True)
    try: check_ratings(df)
    except Exception as e: assert said(e), repr(e); return 'refused'
    try:
        dls = CFDataLoaders.from_df(df, valid_pct=.2, seed=seed, bs=8, path=path, device='cpu')
        learn = cf_learner(dls, factor_count=2, seed=seed)
    except Exception as e: assert said(e), repr(e); return 'refused by the loaders'
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-2)
    pd.testing.assert_frame_equal(df, before)
    u,i = (v[int(dls.counts(j).argmax())] for j,v in zip(('user', 'item'), (dls.catalog.user, dls.catalog.item)))
    preds,best = learn.predict([u], [i]),learn.recommend([u], 3)
    if not all(p.isfinite().all() for p in learn.model.parameters()): # ratings of 1e38 overflow in training
        with pytest.raises(ValueError, match='not finite'): learn.save_recommender(path/'r')
        return 'overflowed'
    assert preds.prediction.notna().all() and best.prediction.notna().all()
    seen = dls.catalog.item[dls.train_ds.items[dls.train_ds.users == int(dls.catalog.user.rows([u])[0])].numpy()]
    assert not set(map(repr, best[dls.catalog.item.name])) & set(map(repr, seen))
    for o in (repr(dls.catalog.user), repr(best), best.to_html(), repr(preds)): assert isinstance(o, str)
    r = Recommender.load(learn.save_recommender(path/'r'))
    alike_up_to_ties(r.recommend([u], 3), best)
    listed = best[dls.catalog.item.name].tolist()
    np.testing.assert_allclose(r.predict([u] * len(listed), listed).prediction, best.prediction, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(r.predict([u], [i]).prediction, preds.prediction, rtol=1e-5, atol=1e-5)
    json.dumps(records(best), allow_nan=False)
    (path/'r/README.md').read_text()
    return 'served'

COMMON = dict(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))

@settings(max_examples=20, **COMMON)
@given(df=frames(), seed=st.integers(0, 3))
def test_odd_frames_end_in_a_result_or_a_documented_error(df, seed, tmp_path_factory):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        whole_way(df, tmp_path_factory.mktemp('way'), seed)

@pytest.mark.slow
@settings(max_examples=int(os.environ.get('FASTCF_COUNT', 100)), **COMMON)
@given(df=frames(), seed=st.integers(0, 3))
def test_many_odd_frames(df, seed, tmp_path_factory):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        whole_way(df, tmp_path_factory.mktemp('way'), seed)

def test_a_sane_frame_is_served(tmp_path): assert whole_way(simulate_ratings(20, 15, 120, seed=0), tmp_path, 0) == 'served'

@pytest.mark.parametrize('text', [o for o in ODD if o.strip(' \t\n\x00') and o not in ('a', ' a')], ids=ascii)
def test_text_is_text(tmp_path, text):
    "As an id, a title and a column's name: through tables, reprs, CSV and the folder"
    df = simulate_ratings(12, 12, 60, seed=0)
    name = f'item {text}'
    df['user'] = df.user.astype(str).map({o: o for o in df.user.astype(str)}).replace({'0': text})
    df = df.rename(columns={'item': name})
    items = pd.DataFrame({name: range(12), 'title': [text] * 12})
    try: dls = CFDataLoaders.from_df(df, valid_pct=.1, seed=0, items=items, device='cpu', path=tmp_path)
    except (RatingsError, ValueError) as e: assert said(e), repr(e); return
    learn = cf_learner(dls, factor_count=2, seed=0, cbs=EmbeddingStats(to=str(tmp_path/'stats.csv')))
    with learn.no_bar(), learn.no_logging(), warnings.catch_warnings(): warnings.simplefilter('ignore'); learn.fit(1)
    user = dls.catalog.user[int(dls.counts('user').argmax())]
    best = learn.recommend(user, 3)
    assert best.title.tolist() == [text] * len(best)
    assert '<script>' not in best.to_html() and repr(best) and pd.read_csv(tmp_path/'stats.csv', encoding_errors='surrogatepass').shape[0] > 0
    r = Recommender.load(learn.save_recommender(tmp_path/'r'))
    assert r.recommend(user, 3).title.tolist() == [text] * len(best) and r.item.vocab.name == name
    card = (tmp_path/'r/README.md').read_bytes().decode('utf-8')
    assert '<script>' not in card and '\x00' not in card
