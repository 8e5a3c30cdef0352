"""Source text becomes a syntax tree whatever runs beside it."""

import ast
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from timetrial.syntax import parse

LONG = "\n".join(f"def f{i}(a, b):\n    return [a + b * {i} for _ in range(3)]" for i in range(400))


@contextmanager
def each_collection_parses() -> Iterator[list[str]]:
    """As a finalizer whose warning is printed does; yields the phases of the collections."""
    seen: list[str] = []

    def callback(phase: str, info: dict[str, Any]) -> None:
        del info
        seen.append(phase)
        ast.parse("x = (1 + 2)")

    gc.callbacks.append(callback)
    try:
        yield seen
    finally:
        gc.callbacks.remove(callback)


def test_what_a_garbage_collection_parses_does_not_disturb_a_tree_that_is_being_built() -> None:
    with each_collection_parses() as seen:
        for _ in range(20):
            assert len(parse(LONG).body) == 400
        gc.collect()
    assert seen


def test_the_collector_is_on_again_afterwards_and_stays_off_where_it_was_off() -> None:
    with pytest.raises(SyntaxError):
        parse("def f(:")
    assert gc.isenabled()
    gc.disable()
    try:
        parse("x = 1")
        assert not gc.isenabled()
    finally:
        gc.enable()
