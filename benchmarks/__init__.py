"""Measurements beside a peer, in the same run, as ratios. `python -m benchmarks` runs all, `python -m benchmarks.NAME` one.

Times are never asserted in a test: they move from machine to machine. Ratios taken in turn in one process move far less."""
