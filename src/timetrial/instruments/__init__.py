"""Instruments: what can be seen of a training run from outside, at chosen steps, off the clock.

`probe` is the loss on a batch of the harness's own, `per_row` and `curvature` are what they cost a pass through, and
`quantities` the formulas. `sets` says which of them a set holds; `observer` looks, and writes the log
(`timetrial.instrument_log`).
"""
