"""Instruments: what can be seen of a training run from outside, at chosen steps, off the clock.

`probe` is the loss on a batch of the harness's own; `per_row` and `curvature` are passes through it, which `measure`
makes for a set; `quantities` holds the formulas, and `readings` makes numbers with them. `sets` says which quantities
a set has; `observer` looks, and writes the log (`timetrial.instrument_log`).
"""
