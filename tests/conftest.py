"Shared ratings, tidy figures, and how tests are spread over processes"
import os
os.environ.setdefault('MPLBACKEND', 'agg')
if 'PYTEST_XDIST_WORKER' in os.environ: # the cores are taken
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE') # a process of two threads on a busy core would spin at every barrier
import pytest
from fastai.callback.core import Callback
from fastcf.data.sources import load_ml100k, simulate_ratings

def pytest_itemcollected(item): # long before xdist reads the groups
    "A test in a browser is slow. Side by side, a file's tests stay in one process with their fixtures, except where they name a group, as each notebook does"
    if 'chromium' in item.fixturenames: item.add_marker(pytest.mark.slow)
    if not item.get_closest_marker('xdist_group'): item.add_marker(pytest.mark.xdist_group(item.path.stem))

@pytest.fixture(scope='session')
def ml(): return load_ml100k()

@pytest.fixture(scope='session')
def sim(): return simulate_ratings(60, 80, 1500, seed=3)

@pytest.fixture(autouse=True)
def _no_plots_left():
    yield
    import matplotlib.pyplot as plt
    plt.close('all')

class PowerCut(Callback):
    "Raise at a step, or at the end of an epoch, as a kill would end the process there"
    order = 2000
    def __init__(self, step=None, epoch=None): self.step,self.at = step,epoch
    def after_batch(self):
        if self.training and self.train_iter == self.step: raise KeyboardInterrupt
    def after_epoch(self):
        if self.epoch == self.at: raise KeyboardInterrupt
