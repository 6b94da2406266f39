"Shared ratings, tidy figures, and how tests are spread over processes"
import os
os.environ.setdefault('MPLBACKEND', 'agg')
if 'PYTEST_XDIST_WORKER' in os.environ: # the cores are taken
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE') # a process of two threads on a busy core would spin at every barrier
import importlib.util
import pytest
from fastai.callback.core import Callback
from fastcf.data.sources import load_ml100k, simulate_ratings

collect_ignore = [] if importlib.util.find_spec('sphinx') else ['test_site.py'] # Sphinx needs Python 3.11

def pytest_itemcollected(item):
    "A test in a browser is slow"
    if 'chromium' in item.fixturenames: item.add_marker(pytest.mark.slow)

@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    "Side by side, a file's tests stay in one process with their fixtures; each notebook is for itself. (Groups of pytest-xdist are passed over in silence from pytest 9.2 on.)"
    from xdist.scheduler import LoadScopeScheduling
    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid): return nodeid if 'test_notebooks.py' in nodeid else nodeid.partition('::')[0]
    return ByFile(config, log)

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
