"""Measurements beside a peer, in the same run, as ratios. `python -m benchmarks` runs all, `python -m benchmarks.NAME` one.

Times are never asserted in a test: they move from machine to machine. Ratios taken in turn in one process move far less.
What a run found is kept beside it, `benchmarks/NAME.csv` or `NAME_TABLE.csv`, and read from there by the tutorials that quote it."""
from pathlib import Path

def keep(frame, name):
    "Write `frame` to `NAME.csv` beside the benchmarks, with its index and four decimals; the path"
    path = Path(__file__).parent/f'{name}.csv'
    frame.to_csv(path, float_format='%.4f', lineterminator='\n')
    return path
