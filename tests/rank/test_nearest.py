"The index beside exact lists"
import sys
import numpy as np, pandas as pd, pytest, torch
from fastcf.data.loaders import CFDataLoaders
from fastcf.data.sources import simulate_ratings
from fastcf.learn.learner import cf_learner
from fastcf.rank.nearest import ItemIndex

@pytest.fixture(scope='module')
def learn():
    df = simulate_ratings(80, 300, 3000, seed=3)
    l = cf_learner(CFDataLoaders.from_df(df, user_name='user', item_name='item', rating_name='rating', seed=1, device='cpu'), 5, (.5, 5.5), seed=0)
    with l.no_bar(), l.no_logging(): l.fit(2)
    return l

def test_without_the_library_the_extra_is_named(learn, monkeypatch):
    monkeypatch.setitem(sys.modules, 'usearch.index', None)
    with pytest.raises(ImportError, match=r"fastcf\[index\]"): ItemIndex(learn)

@pytest.mark.parametrize('by', ['chance', 'rating', 'value'])
def test_lists_are_nearly_the_exact_ones(learn, by):
    pytest.importorskip('usearch', reason="the extra `index` is not installed")
    index = ItemIndex(learn, by)
    users = list(learn.dls.catalog.user.ids[learn.dls.counts('user').numpy() > 0])
    got,exact = index.recommend(users, 5),learn.recommend(users, 5, rank_by=by)
    assert list(got.columns) == list(exact.columns) and index.recall(users, 5) > .9
    both = got.merge(exact, on=['user', 'item'])
    for col in got.columns[3:]: assert both[f'{col}_x'].to_numpy() == pytest.approx(both[f'{col}_y'].to_numpy(), abs=1e-4)
    t,c = learn.dls.train_ds,learn.dls.catalog
    seen = pd.DataFrame(dict(user=c.user[t.users.numpy()], item=c.item[t.items.numpy()]))
    assert len(got.merge(seen, on=['user', 'item'])) == 0 and not got.duplicated(['user', 'item']).any()

def test_all_items_and_one_user(learn):
    pytest.importorskip('usearch', reason="the extra `index` is not installed")
    index = ItemIndex(learn, breadth=400)
    alone = index.recommend(3, 1000)
    exact = learn.recommend(3, 1000, rank_by='chance')
    assert len(alone) > .95 * len(exact) and alone['rank'].tolist() == list(range(1, len(alone) + 1)) and set(alone.item) <= set(exact.item)
    assert len(index.recommend([], 3)) == 0
    with pytest.raises(ValueError, match='rank_by'): ItemIndex(learn, 'best')

def test_the_graph_is_the_same_each_time(learn):
    pytest.importorskip('usearch', reason="the extra `index` is not installed")
    rows = torch.arange(80)
    first,*others = (ItemIndex(learn, links=4, build_breadth=4, breadth=4).candidates(rows, 20) for _ in range(6))
    for o in others: torch.testing.assert_close(o, first, rtol=0, atol=0)
    with pytest.raises(ValueError, match='threads'): ItemIndex(learn, threads=0)
