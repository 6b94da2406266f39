"Callbacks and engines of ours, and fastai's trackers, two at a time in either order, through all that is done with a learner"
import io, tempfile, warnings
from contextlib import redirect_stdout
import numpy as np, pytest
from fastai.callback.tracker import EarlyStoppingCallback, ReduceLROnPlateau, SaveModelCallback
from fastai.learner import load_learner
from fastcf.bayes.engines import ALS, Gibbs
from fastcf.data.loaders import CFDataLoaders
from fastcf.data.sources import simulate_ratings
from fastcf.learn.learner import cf_learner
from fastcf.rank.ials import IALS
from fastcf.scale.fused import FusedSGD
from fastcf.serve.checkpoint import CheckpointCallback
from fastcf.watch.embedding_stats import EmbeddingStats
from fastcf.watch.tables import AverageTables, BestTables, RowCounts
import fastcf.all

SETS = dict(stats=EmbeddingStats, best=BestTables, average=AverageTables, rows=RowCounts, checkpoint=lambda: CheckpointCallback('kept'), save=SaveModelCallback,
            early=lambda: EarlyStoppingCallback(monitor='rmse', patience=3), plateau=ReduceLROnPlateau, gibbs=lambda: Gibbs(burn_in=1, seed=0), als=ALS, ials=lambda: IALS(factor_count=3), fused=lambda: FusedSGD(threads=1))

@pytest.fixture(scope='module')
def dls(): return CFDataLoaders.from_df(simulate_ratings(80, 60, 2000, 3, seed=0), valid_pct=.2, seed=0, bs=256, device='cpu')

@pytest.mark.slow
@pytest.mark.parametrize('first', SETS)
def test_two_meet(dls, first, tmp_path):
    for second in SETS:
        if second == first: continue
        pair,folder = {first, second},tempfile.mkdtemp(dir=tmp_path)
        learn = cf_learner(dls, factor_count=3, seed=0, path=folder, cbs=[SETS[first](), SETS[second]()])
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), learn.no_bar(), learn.no_logging():
            warnings.simplefilter('ignore')
            learn.fit(3)
            rows = [float(o[1]) for o in learn.recorder.values]
            said,again = list(learn.validate()),list(learn.validate())
            assert np.allclose(said, again, atol=1e-5), (first, second, said, again) # asking changes nothing
            preds,targets = learn.get_preds()
            if not {'gibbs', 'ials'} & pair: assert float((preds.view(-1) - targets.view(-1)).square().mean().sqrt()) == pytest.approx(said[1], abs=1e-3), (first, second)
            if 'ials' not in pair: # what is kept is what a row of the table says
                kept = rows if {'best', 'save'} & pair else rows[-1:]
                near = .05 if 'gibbs' in pair else 2e-3 # Gibbs' rows are means over its samples, its tables the nearest point to them
                assert min(abs(said[0] - o) for o in kept) < near, (first, second, said, rows)
            learn.lr_find(num_it=10, show_plot=False)
            learn.find_lr()
            learn.export('x.pkl')
            other = load_learner(learn.path/'x.pkl')
            users,items = dls.catalog.user[:5],dls.catalog.item[:5]
            np.testing.assert_allclose(other.predict(users, items).prediction, learn.predict(users, items).prediction, atol=1e-4, err_msg=f'{first} {second}')
            learn.fit(2)
            assert len(learn.recorder.values) >= 1 and np.isfinite(learn.predict(users, items).prediction).all()
