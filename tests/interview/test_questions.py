"Questions: a learner on a GPU asks as one on the CPU does"
import pytest, torch
from fastcf.data.sources import simulate_ratings
from fastcf.learn.learner import cf_learner
from fastcf.data.loaders import CFDataLoaders
from fastcf.interview.questions import Interviewer

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_a_learner_on_a_gpu_asks_the_same():
    dls = CFDataLoaders.from_df(simulate_ratings(200, 100, 5000, seed=1), valid_pct=.05, seed=0, device='cpu')
    learn = cf_learner(dls, factor_count=5, y_range=(.5, 5.5), seed=0)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(3, 2e-2)
    pages = []
    for device in ('cpu', 'cuda'):
        learn.model.to(device)
        teach = Interviewer(learn)
        b = teach.beliefs([0, 0], [3, 5], [4, float('nan')], 2)
        assert b.taste.cov().device.type == 'cpu'
        pages.append(teach.choose(b, torch.zeros(2, 100, dtype=torch.bool), 5))
    assert torch.equal(*pages)
