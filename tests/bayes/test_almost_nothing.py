"Training tables of one row, or of one rating: every engine, and whatever can be asked afterwards, gives numbers"
import warnings
import numpy as np, pandas as pd, pytest
import fastcf.all # every method of a learner
from fastcf.bayes.engines import ALS, Gibbs
from fastcf.data.loaders import CFDataLoaders
from fastcf.interview.interview import Interview
from fastcf.learn.learner import cf_learner
from fastcf.rank.ials import IALS
from fastcf.scale.fused import FusedSGD
from fastcf.serve.recommender import Recommender

TABLES = dict(
    one_row=(dict(user=[1, 2], item=[2, 3], rating=[3., 4]), [1]), # the other one is for validation
    one_item=(dict(user=[0, -1, 9, 11, 0], item=[0, 0, 0, 0, -1], rating=[0, 0, 0, 1.017514, 0.]), [4]),
    one_user=(dict(user=[5, 5, 5, 6], item=[0, 1, 2, 0], rating=[1., 2, 5, 3]), [3]),
    one_rating=(dict(user=[1, 1, 2, 2, 3], item=[1, 2, 1, 3, 2], rating=[3., 3, 3, 3, 5]), [4]))

def check(df):
    "No numbers are missing, and none is infinite"
    if isinstance(df, pd.DataFrame): assert np.isfinite(df.select_dtypes('number').to_numpy(dtype=float)).all(), df

@pytest.mark.parametrize('y_range', [None, (-1., 6.)])
@pytest.mark.parametrize('engine', [None, Gibbs, ALS, IALS, FusedSGD])
@pytest.mark.parametrize('table', TABLES)
def test_numbers_come_of_almost_nothing(table, engine, y_range, tmp_path):
    if engine is Gibbs and y_range: pytest.skip("Gibbs' ratings have no range")
    rows,held = TABLES[table]
    df = pd.DataFrame(rows)
    dls = CFDataLoaders.from_df(df, splitter=lambda d: ([i for i in range(len(d)) if i not in held], held), seed=0, bs=8, device='cpu')
    learn = cf_learner(dls, factor_count=2, y_range=y_range, seed=0)
    t,c = dls.train_ds,dls.catalog
    given = float(t.ratings[0])
    u,i = c.user[int(t.users[0])],c.item[int(t.items[0])]
    with warnings.catch_warnings(), learn.no_bar(), learn.no_logging():
        warnings.simplefilter('ignore')
        learn.fit(2, cbs=[] if engine is None else engine())
        for o in (learn.predict([u], [i]), learn.predict([u], [i], interval=.9), learn.recommend([u], 3, exclude_seen=False, interval=.8), learn.recommend([u], 3, rank_by='chance', exclude_seen=False),
                  learn.fold_in({i: given}).recommend(2, exclude_seen=False, interval=.9), learn.fold_in_items({u: given}).recommend(2, exclude_seen=False), learn.similar_items([i]), learn.biases('item')): check(o)
        iv = Interview(learn, page_size=1)
        check(iv.next_page().drop(columns='reply', errors='ignore'))
        iv.answer({i: given})
        check(iv.recommend(3))
        r = Recommender.load(learn.save_recommender(tmp_path/'r'))
        for o in (r.predict([u], [i], interval=.9), r.recommend([u], 3, exclude_seen=False), r.fold_in({i: given}).recommend(2, exclude_seen=False)): check(o)
        check(r.interview(1, 1).next_page().drop(columns='reply', errors='ignore'))
