"""Dropout at many places of a model, from one key."""

from collections.abc import Callable
from itertools import count
from typing import Any

import jax

from timetrial.workload import Array, dropout


def dropping(rate: Any, key: Array | None) -> Callable[[Array], Array]:
    """A function that drops features of what it is given, at each call by another key; without a key, none."""
    places = count()
    return lambda x: x if key is None else dropout(x, rate, jax.random.fold_in(key, next(places)))
