"""Nothing that comes over the wire is believed without a look."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from timetrial.isolation.wire import (
    MAX_LINE,
    BrokenWire,
    ChildExchange,
    Exchange,
    Pipe,
    Spec,
    space_from_json,
    space_to_json,
)
from timetrial.tuning import Choice, Integers, LogUniform, Uniform


@pytest.fixture
def ends() -> Iterator[tuple[Pipe, int]]:
    """A pipe to read from, and where to write what arrives there."""
    reads, writes = os.pipe()
    yield Pipe(reads, writes), writes
    for end in (reads, writes):
        try:
            os.close(end)
        except OSError:
            continue


def test_messages_arrive_in_order_however_they_are_cut(ends: tuple[Pipe, int]):
    pipe, writes = ends
    data = b'{"a": 1}\n{"b": [2, 3]}\n{"c"'
    for cut in range(0, len(data), 3):
        os.write(writes, data[cut : cut + 3])

    assert pipe.receive(1.0) == {"a": 1}
    assert pipe.receive(1.0) == {"b": [2, 3]}
    assert pipe.receive(0.0) is None


@pytest.mark.parametrize("line", [b"nonsense\n", b"[1]\n", b"7\n", b'{"a": \n', b"\xff\xfe\n"])
def test_what_is_no_json_object_breaks_the_wire(ends: tuple[Pipe, int], line: bytes):
    pipe, writes = ends
    os.write(writes, line)

    with pytest.raises(BrokenWire):
        pipe.receive(1.0)


def test_a_line_without_an_end_breaks_the_wire(tmp_path: Path):
    endless = tmp_path / "endless"
    endless.write_bytes(b"x" * (MAX_LINE + (1 << 17)))
    reads = os.open(endless, os.O_RDONLY)

    with pytest.raises(BrokenWire, match="too long"):
        Pipe(reads, reads).receive(1.0)
    os.close(reads)


def test_the_other_side_s_end_breaks_the_wire(ends: tuple[Pipe, int]):
    pipe, writes = ends
    os.close(writes)

    with pytest.raises(BrokenWire, match="gone"):
        pipe.receive(1.0)


DTYPES = st.sampled_from(["float32", "int32", "uint8", "bool", "float16"])


@given(st.lists(hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)), max_size=4))
def test_arrays_come_back_bit_for_bit(arrays: list[np.ndarray]):
    path = Path(f"/tmp/timetrial-exchange-{os.getpid()}")
    path.unlink(missing_ok=True)
    ours = Exchange(path)
    try:
        told = json.loads(json.dumps(ChildExchange(str(path)).write(arrays)))
        back = ours.read([Spec.read(item) for item in told])
    finally:
        ours.close()
        path.unlink()

    assert [(a.shape, a.dtype, a.tobytes()) for a in back] == [(a.shape, a.dtype, a.tobytes()) for a in arrays]


def test_bfloat16_comes_back(tmp_path: Path):
    ours = Exchange(tmp_path / "x")
    array = np.asarray(jnp.arange(5, dtype=jnp.bfloat16))
    ChildExchange(str(tmp_path / "x")).write([array])

    assert ours.read([Spec.of(array)])[0].tobytes() == array.tobytes()


def test_a_file_that_was_cut_short_is_an_error_and_no_fault(tmp_path: Path):
    ours = Exchange(tmp_path / "x")
    ChildExchange(str(tmp_path / "x")).write([np.ones(1000)])
    os.truncate(tmp_path / "x", 64)

    with pytest.raises(BrokenWire, match="not all there"):
        ours.read([Spec((1000,), "float64")])
    assert ours.counts() == (0, 0)


def test_a_file_that_was_replaced_is_not_read(tmp_path: Path):
    ours = Exchange(tmp_path / "x")
    ChildExchange(str(tmp_path / "x")).write([np.ones(3)])
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * 10_000)
    (tmp_path / "x").unlink()
    (tmp_path / "x").symlink_to(secret)

    assert ours.read([Spec((3,), "float64")])[0].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    "data",
    [None, 3, [], [[2]], [[-1], "float32"], [[2], "object"], [[2], "nonsense"], [["x"], "int8"], [[1 << 50], "int8"]],
)
def test_a_shape_or_type_that_no_array_has_breaks_the_wire(data: Any):
    with pytest.raises(BrokenWire):
        Spec.read(data)


def test_counts_and_the_order_to_stop_cross_without_a_message(tmp_path: Path):
    ours = Exchange(tmp_path / "x")
    theirs = ChildExchange(str(tmp_path / "x"))
    theirs.count(7, 448)
    before = theirs.told_to_stop()
    ours.tell_to_stop(True)

    assert ours.counts() == (7, 448)
    assert (before, theirs.told_to_stop()) == (False, True)


@pytest.mark.parametrize(
    "space",
    [
        {},
        {"a": Uniform(0.0, 1.0), "b": LogUniform(1e-3, 1.0, default=0.1), "c": Integers(1, 4), "d": Choice((1, "x"))},
        [{"a": 1.0}, {"a": 2.0}],
    ],
)
def test_a_search_space_comes_back_as_it_was(space: Any):
    back = space_from_json(json.loads(json.dumps(space_to_json(space))))

    assert space_to_json(back) == json.loads(json.dumps(space_to_json(space)))
    assert type(back) is type(space)


@pytest.mark.parametrize(
    "data", [None, 3, "x", {"a": 1}, {"a": {"kind": "eval"}}, {"a": {"kind": "Uniform", "low": "x"}}, [{"a": None}]]
)
def test_what_is_no_search_space_breaks_the_wire(data: Any):
    with pytest.raises(BrokenWire):
        space_from_json(data)
