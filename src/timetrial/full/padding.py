"""Rows shorter than their arrays: padding behind what is there."""

import jax.numpy as jnp

from timetrial.workload import Array


def before_padding(places: int, padding_b: Array) -> Array:
    """Which of so many places of each row come before its padding, bool (B, places)."""
    return jnp.arange(places) < (places - padding_b)[:, None]
