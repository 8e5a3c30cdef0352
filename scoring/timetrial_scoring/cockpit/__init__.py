"""The cockpit: what instruments saw of one or two trials, as one HTML page or live in the terminal. Never imports jax.

`run` reads a trial, `gauges` says what is shown where, `hints` puts it into words, `drawing` and `page` draw it.
"""
