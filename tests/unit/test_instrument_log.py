"""The instruments' log: written line by line, read back, taken up after an interruption."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timetrial.errors import UserError
from timetrial.instrument_log import Choice, LogError, LogHeader, LogWriter, Look, read_log, to_line

HEADER = LogHeader(
    set="economy",
    every=16,
    batch_size=128,
    probe_rows=16,
    params=({"name": "dense/kernel", "kind": "weight", "shape": [8, 4]},),
    absent={"norm_test": "batch norm"},
)


def look(step: int, **changes: Any) -> Look:
    values: dict[str, Any] = {
        "values": {"alpha": 0.5},
        "arrays": {"param_norm": [1.0]},
        "histograms": {"counts": [1, 2]},
    }
    return Look(
        step=step, examples=16 * step, seconds=0.5, wall_seconds=0.25, hyperparameters={"b1": 0.9}, **(values | changes)
    )


def write(path: Path, *looks: Look, resume: bool = False) -> LogWriter:
    writer = LogWriter(path, resume=resume)
    for value in (HEADER, *looks):
        writer.write(value)
    writer.close()
    return writer


def test_a_log_is_read_as_it_was_written(tmp_path: Path):
    looks = (look(0), look(16, values={"alpha": float("inf"), "loss": -1.5}))
    write(tmp_path / "log", *looks)
    log = read_log(tmp_path / "log")
    assert log.headers == (HEADER,)
    assert log.looks == looks


def test_numbers_keep_the_nine_digits_that_32_bits_hold():
    assert '"alpha":0.333333333' in to_line(look(0, values={"alpha": 1 / 3}))
    assert '"alpha":"nan"' in to_line(look(0, values={"alpha": float("nan")}))


def test_a_torn_last_line_is_left_out_and_cut_off_when_the_log_is_taken_up(tmp_path: Path):
    path = tmp_path / "log"
    write(path, look(0), look(16))
    path.write_bytes(path.read_bytes()[:-5])
    assert [found.step for found in read_log(path).looks] == [0]
    assert write(path, look(16), resume=True).last_step == 0
    log = read_log(path)
    assert [found.step for found in log.looks] == [0, 16]
    assert len(log.headers) == 2


def test_a_log_that_is_not_taken_up_is_written_over(tmp_path: Path):
    write(tmp_path / "log", look(0), look(16))
    assert write(tmp_path / "log", look(0)).last_step == -1
    assert len(read_log(tmp_path / "log").looks) == 1


def test_a_log_cut_in_its_first_line_is_begun_anew(tmp_path: Path):
    (tmp_path / "log").write_text('{"schema":1,"ki')
    with pytest.raises(LogError, match="killed before it began"):
        read_log(tmp_path / "log")
    assert write(tmp_path / "log", look(0), resume=True).last_step == -1
    assert len(read_log(tmp_path / "log").looks) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("no json", ":2: not a JSON object"),
        ('{"schema":2,"kind":"look"}', ':2: no "schema": 1'),
        ('{"schema":1,"kind":"tale"}', ":2: a line of kind 'tale'"),
        ('{"schema":1,"kind":"look"}', ":2: 'step' is missing"),
        (to_line(look(3)).replace('"step":3', '"step":-3').strip(), ":2: a whole number"),
    ],
)
def test_what_is_wrong_with_a_log_is_said_with_file_and_line(tmp_path: Path, line: str, message: str):
    (tmp_path / "log").write_text(to_line(HEADER) + line + "\n")
    with pytest.raises(LogError, match=message):
        read_log(tmp_path / "log")


def test_a_log_that_is_not_there_is_a_users_mistake(tmp_path: Path):
    with pytest.raises(LogError, match="cannot be read"):
        read_log(tmp_path / "log")


@given(st.integers(1, 50), st.integers(0, 1000))
def test_every_nth_step_is_looked_at(every: int, step: int):
    assert Choice(set="basic", every=every).looks_at(step) == (step % every == 0)


def test_log_looks_at_each_of_the_first_steps_and_twenty_times_in_each_tenfold():
    choice = Choice.of("basic", "log")
    steps = [step for step in range(10_001) if choice.looks_at(step)]
    assert steps[:10] == list(range(10))
    assert sum(100 < step <= 1000 for step in steps) == 20
    assert sum(1000 < step <= 10_000 for step in steps) == 20
    assert {1000, 10_000} <= set(steps)


@pytest.mark.parametrize(
    ("set_name", "every", "rows", "message"),
    [
        ("first", "16", None, "no set"),
        ("full", "0", None, "--every"),
        ("full", "x", None, "--every"),
        ("full", "4", 1, "at least 2"),
    ],
)
def test_a_choice_that_there_is_not_is_a_users_mistake(set_name: str, every: str, rows: int | None, message: str):
    with pytest.raises(UserError, match=message):
        Choice.of(set_name, every, rows)
