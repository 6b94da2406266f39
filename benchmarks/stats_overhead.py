"""What looking costs: `EmbeddingStats` beside the same fit without it, a large table, and false alarms.

`python -m benchmarks.stats_overhead` prints
- the seconds of a five-epoch fit of ML-100K at bs 64 with and without `EmbeddingStats` at its default cadence, in turn in one process,
  the seconds and the processor time spent in the callback itself as a share of the fit's, and the ratio of the medians of whole fits;
- for a table of 1,000,000 × 64 the seconds of a look, and peak memory during it in units of the table (from the process's high-water
  mark, in a fresh process);
- the warnings of healthy runs: five epochs, one cycle, defaults, ten seeds, with and without y_range.
"""
import resource, statistics, subprocess, sys, time, warnings
import pandas as pd, torch
from fastai.callback.core import event
from fastcore.basics import noop
from fastcf.watch.embedding_stats import EmbeddingStats
from fastcf.data.sources import load_ml100k
from fastcf.learn.learner import cf_learner
from fastcf.data.loaders import CFDataLoaders

ROUNDS, SEEDS = 5, 10

class Timed(EmbeddingStats):
    "Adds up the seconds of its own events; `__call__` stays fastai's, or the learner would ask it at every event and time that too"
    seconds = processor = 0.

def _timed(name):
    heard = getattr(EmbeddingStats, name)
    def event(self):
        start = time.perf_counter(), time.process_time()
        try: return heard(self)
        finally: self.seconds, self.processor = self.seconds + time.perf_counter() - start[0], self.processor + time.process_time() - start[1]
    setattr(Timed, name, event)

for name in [*(e for e in vars(event) if not e.startswith('__') and hasattr(EmbeddingStats, e)), '_before_first_step', '_after_first_step', '_count_flat']: _timed(name)

def fit(dls, cb=None, seed=0, y_range=(0.5, 5.5)):
    learn = cf_learner(dls, y_range=y_range, seed=seed)
    learn.remove_cb(learn.progress)
    learn.logger = noop
    start = time.perf_counter(), time.process_time()
    learn.fit_one_cycle(5, cbs=cb)
    return time.perf_counter() - start[0], time.process_time() - start[1]

def epochs():
    dls = CFDataLoaders.from_df(load_ml100k().ratings, valid_pct=.1, seed=0, device='cpu')
    fit(dls), fit(dls, Timed())
    rows = []
    for _ in range(ROUNDS):
        cb = Timed()
        rows += [(*fit(dls), *fit(dls, cb), cb.seconds, cb.processor)]
    m = pd.DataFrame(rows, columns=['seconds', 'processor', 'with_seconds', 'with_processor', 'own_seconds', 'own_processor']).median()
    print(f"ML-100K, bs 64, 5 epochs, {torch.get_num_threads()} threads, median of {ROUNDS}: {m.seconds:.2f} s without, {m.with_seconds:.2f} s with (ratio {m.with_seconds/m.seconds:.3f}), "
          f"processor time {m.processor:.2f} s and {m.with_processor:.2f} s (ratio {m.with_processor/m.processor:.3f}); in the callback {m.own_seconds*1000:.0f} ms = {m.own_seconds/m.seconds:.2%} of the fit, "
          f"{m.own_processor*1000:.0f} ms = {m.own_processor/m.processor:.2%} of its processor time (6 looks)", flush=True)

def large(n=1_000_000, k=64):
    "In a process of its own: a look at one large table; memory is what the process had at most, less what it had with the table alone"
    from types import SimpleNamespace
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    torch.set_num_threads(2)
    torch.manual_seed(0)
    small = torch.nn.Embedding(4096, k) # whatever a first look loads and allocates is not the table's
    class Nothing(list):
        dataset = None
    def looked(table, looks):
        dls = DataLoaders(Nothing(), Nothing(), device=torch.device('cpu'))
        learn = Learner(dls, table, loss_func=torch.nn.MSELoss(), cbs=EmbeddingStats(every=1))
        learn.remove_cb(learn.progress)
        learn.logger = noop
        cb = learn.embedding_stats
        learn.epoch,learn.train_iter = 0,0
        learn.create_opt()
        cb.before_fit()
        times = []
        for _ in range(looks):
            start = time.perf_counter()
            cb.history.step += 1
            cb._look()
            times.append(time.perf_counter() - start)
        return times
    looked(small, 2)
    table = torch.nn.Embedding(n, k)
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    times = looked(table, 7)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    size = n * k * 4
    print(f"{n:,} x {k}: {statistics.median(times):.2f} s a look (median of 7, {min(times):.2f} to {max(times):.2f}), two threads; memory {1 + (peak - base)/size:.3f} x the table")

def alarms():
    ratings,found = load_ml100k().ratings,[]
    for seed in range(SEEDS):
        for y_range in ((0.5, 5.5), None):
            cb = EmbeddingStats()
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                fit(CFDataLoaders.from_df(ratings, seed=seed, device='cpu'), cb, seed, y_range)
            found += [(seed, y_range, repr(f)) for f in cb.warnings]
    print(f"healthy runs, {SEEDS} seeds, with and without y_range: {len(found)} warnings", *found, sep='\n')

def main():
    epochs()
    print(subprocess.run([sys.executable, '-c', 'from benchmarks.stats_overhead import large; large()'], check=True, capture_output=True, text=True).stdout, end="", flush=True)
    alarms()

if __name__ == '__main__': main()
