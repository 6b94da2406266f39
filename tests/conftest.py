import os
os.environ.setdefault('MPLBACKEND', 'agg')
import pytest
from fastcf.data.sources import load_ml100k, simulate_ratings

@pytest.fixture(scope='session')
def ml(): return load_ml100k()

@pytest.fixture(scope='session')
def sim(): return simulate_ratings(60, 80, 1500, seed=3)

@pytest.fixture(autouse=True)
def _no_plots_left():
    yield
    import matplotlib.pyplot as plt
    plt.close('all')
