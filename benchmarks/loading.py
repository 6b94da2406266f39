"""Loading and training speed beside fastai's `collab_learner`, on ML-100K's 90,000 training rows.

`python -m benchmarks.loading` prints, for batches of 64, 512 and 4,096 rows, the seconds of an epoch of loading alone and of a
training epoch (through a full Learner with Recorder and progress bar, its training part timed), for both libraries in turn in one
process, and the ratio of the medians. `same Adam` gives fastcf fastai's own optimizer, so that only loader and learner differ.
"""
import contextlib, io, statistics, time
import numpy as np, pandas as pd, torch
from fastai.callback.core import Callback
from fastai.collab import CollabDataLoaders, collab_learner
from fastai.data.transforms import IndexSplitter
from fastai.optimizer import Adam
from fastcf.data.sources import load_ml100k
from fastcf.learn.learner import cf_learner
from fastcf.data.loaders import CFDataLoaders

ROUNDS, Y = 5, (0.5, 5.5)

class TrainTimer(Callback):
    "Seconds of the training part of each epoch"
    order = -100
    def __init__(self, clock=time.perf_counter): self.clock,self.seconds = clock,[]
    def before_train(self): self.start = self.clock()
    def after_train(self): self.seconds.append(self.clock() - self.start)

def loading_time(dl):
    start = time.perf_counter()
    for _ in dl: pass
    return time.perf_counter() - start

def training_time(learn):
    timer = TrainTimer()
    with contextlib.redirect_stdout(io.StringIO()): learn.fit(1, 5e-3, wd=0.1, cbs=timer)
    return timer.seconds[0]

def medians(measure, subjects, rounds=ROUNDS):
    "The median of `rounds` measurements of each subject, taken in turn after one that is not counted"
    for s in subjects: measure(s)
    times = [[measure(s) for s in subjects] for _ in range(rounds)]
    return [statistics.median(o) for o in zip(*times)]

def main():
    ratings = load_ml100k().ratings
    test = np.random.default_rng(42).permutation(len(ratings))[90_000:]
    rows = []
    for bs in (64, 512, 4096):
        torch.manual_seed(0)
        ours = CFDataLoaders.from_df(ratings, splitter=IndexSplitter(test), bs=bs, device='cpu', drop_last=True)
        train = ratings.drop(index=test)
        theirs = CollabDataLoaders.from_df(train, valid_pct=0.001, bs=bs, device=torch.device('cpu'))
        load = medians(loading_time, [theirs.train, ours.train], rounds=3)
        fit = medians(training_time, [collab_learner(theirs, n_factors=50, y_range=Y), cf_learner(ours, y_range=Y), cf_learner(ours, y_range=Y, opt_func=Adam)])
        rows.append(dict(bs=bs, fastai_loading=load[0], fastcf_loading=load[1], loading_ratio=load[0]/load[1], fastai_epoch=fit[0],
                         fastcf_epoch=fit[1], epoch_ratio=fit[0]/fit[1], same_adam_epoch=fit[2], same_adam_ratio=fit[0]/fit[2]))
    print(pd.DataFrame(rows).set_index('bs').T.to_string(float_format='%.4g'))

if __name__ == '__main__': main()
