"""A record round-trips, survives being cut at any byte, and says file and line of whatever else is wrong with it."""

import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timetrial.record import (
    SCHEMA,
    STATUSES,
    Crossing,
    EndLine,
    EvalLine,
    RecordError,
    RecordWriter,
    RunHeader,
    read_record,
    to_line,
)
from timetrial.target import Target

RUN = RunHeader(
    workload="lobes",
    workload_version=1,
    workload_sha256="00",
    submission="sgd",
    submission_sha256="11",
    ruleset="demo",
    ruleset_version=1,
    ruleset_sha256="22",
    clock="seconds",
    tuning="external",
    seed=0,
    study=0,
    trial=0,
    hparams={"learning_rate": 0.1, "nesterov": True, "warmup": 3, "schedule": "cosine"},
    target=Target("error_rate", 0.1, "lower"),
    test_target=None,
    budget=20.0,
    eval_every=0.5,
    confirmation=0,
    isolation="none",
    created="2025-01-01T00:00:00+00:00",
    hardware={"devices": ["cpu"], "cores": 2},
    packages={"jax": "0.10.2"},
)
EVAL = EvalLine(
    step=0,
    examples=0,
    seconds=0.0,
    compile_seconds=0.0,
    data_seconds=0.0,
    eval_seconds=0.25,
    metrics={"valid/error_rate": 0.5, "train/loss": math.nan, "valid/loss": math.inf},
)
END = EndLine(
    status="reached",
    message="",
    step=10,
    examples=160,
    seconds=1.5,
    compile_seconds=0.5,
    data_seconds=0.0,
    crossing=Crossing(eval_index=1, charge=1.5, charge_before=1.0),
    examples_exact=True,
    ignored=("dropout_rate",),
)

durations = st.floats(min_value=0, max_value=1e12, allow_nan=False)
counts = st.integers(min_value=0, max_value=2**62)
names = st.text(min_size=1)
finite = st.floats(allow_nan=False, allow_infinity=False)
targets = st.builds(Target, names, finite, st.sampled_from(["lower", "higher"]))
runs = st.builds(
    replace,
    st.just(RUN),
    workload=st.text(),
    seed=st.integers(-(2**63), 2**63),
    clock=st.sampled_from(["seconds", "steps", "examples"]),
    tuning=st.sampled_from(["external", "self"]),
    hparams=st.dictionaries(names, st.booleans() | st.integers() | finite | st.text()),
    target=targets,
    test_target=st.none() | targets,
    budget=durations,
    created=st.text(),
)
evals = st.builds(
    EvalLine,
    step=counts,
    examples=counts,
    seconds=durations,
    compile_seconds=durations,
    data_seconds=durations,
    eval_seconds=durations,
    metrics=st.dictionaries(names, st.floats(allow_nan=False)),
)
ends = st.builds(
    EndLine,
    status=st.sampled_from(STATUSES),
    message=st.text(),
    step=counts,
    examples=counts,
    seconds=durations,
    compile_seconds=durations,
    data_seconds=durations,
    crossing=st.none() | st.builds(Crossing, eval_index=counts, charge=durations, charge_before=durations),
    examples_exact=st.booleans(),
    ignored=st.lists(st.text()).map(tuple),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("records")


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(lines), encoding="utf-8")
    return path


@given(run=runs, lines=st.lists(evals, max_size=3), end=st.none() | ends)
def test_what_is_written_is_read_back(folder: Path, run: RunHeader, lines: list[EvalLine], end: EndLine | None):
    last = [] if end is None else [to_line(end)]
    record = read_record(write(folder / "round.jsonl", to_line(run), *(to_line(line) for line in lines), *last))
    assert (record.run, record.evals, record.end) == (run, tuple(lines), end)


def test_numbers_that_are_not_finite_are_strings_in_the_file_and_numbers_when_read(tmp_path: Path):
    line = to_line(EVAL)
    assert json.loads(line)["metrics"] == {"valid/error_rate": 0.5, "train/loss": "nan", "valid/loss": "inf"}
    metrics = read_record(write(tmp_path / "r", to_line(RUN), line)).evals[0].metrics
    assert math.isnan(metrics["train/loss"])
    assert metrics["valid/loss"] == math.inf


def test_a_hyperparameter_that_is_the_word_nan_stays_a_word(tmp_path: Path):
    run = replace(RUN, hparams={"mode": "nan"})
    assert read_record(write(tmp_path / "r", to_line(run))).run.hparams == {"mode": "nan"}


def test_every_prefix_of_a_record_is_a_shorter_record_or_a_record_that_never_began(tmp_path: Path):
    run, *rest = (to_line(replace(RUN, submission="sgd ö")), to_line(EVAL), to_line(END))
    whole = "".join([run, *rest]).encode()
    path = tmp_path / "record.jsonl"
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        complete = whole[:size].count(b"\n")
        if complete == 0:
            with pytest.raises(RecordError, match="killed before it began"):
                read_record(path)
        else:
            record = read_record(path)
            assert (len(record.evals), record.end is not None) == (min(complete - 1, 1), complete == 3)


def changed(line: str, **changes: Any) -> str:
    return json.dumps({**json.loads(line), **changes}) + "\n"


def without(line: str, key: str) -> str:
    return json.dumps({name: value for name, value in json.loads(line).items() if name != key}) + "\n"


FIRST, SECOND, LAST = to_line(RUN), to_line(EVAL), to_line(END)


@pytest.mark.parametrize(
    ("lines", "where", "what"),
    [
        ([FIRST, "{\n"], 2, "not JSON"),
        ([FIRST, "\n", SECOND], 2, "not JSON"),
        ([FIRST, "[]\n"], 2, "not a JSON object"),
        ([FIRST, "\udcff\n"], 2, "not JSON"),
        ([FIRST, "[" * 100_000 + "\n"], 2, "not JSON"),
        ([FIRST, SECOND.replace('"nan"', "NaN")], 2, "bare NaN"),
        ([FIRST, changed(SECOND, schema=2)], 2, f'no "schema": {SCHEMA}'),
        ([without(FIRST, "schema")], 1, f'no "schema": {SCHEMA}'),
        ([FIRST, changed(SECOND, kind="note")], 2, "unknown kind of line 'note'"),
        ([FIRST, changed(SECOND, kind=[])], 2, "unknown kind of line"),
        ([SECOND], 1, '"run" line must be the first'),
        ([FIRST, FIRST], 2, "only the first"),
        ([FIRST, LAST, SECOND], 3, "after the end line"),
        ([without(FIRST, "budget")], 1, "'budget' is missing"),
        ([changed(FIRST, seed=True)], 1, "'seed' must be a whole number, not True"),
        ([changed(FIRST, study=-1)], 1, "'study' must be"),
        ([changed(FIRST, clock="hours")], 1, "'clock' must be one of seconds, steps, examples"),
        ([changed(FIRST, clock=["seconds"])], 1, "'clock' must be one of"),
        ([changed(FIRST, hparams={"lr": [1]})], 1, "'hparams' must be"),
        ([changed(FIRST, target={"metric": "m", "value": 1})], 1, "'target' must be a target"),
        ([changed(FIRST, target={"metric": "m", "value": "x", "better": "lower"})], 1, "'target' must be"),
        ([changed(FIRST, target={"metric": "m", "value": 1, "better": "more"})], 1, "'target' must be"),
        ([changed(FIRST, budget="inf")], 1, "'budget' must be a finite number"),
        ([FIRST, changed(SECOND, seconds=-1)], 2, "'seconds' must be a finite number"),
        ([FIRST, changed(SECOND, metrics={"m": "high"})], 2, "'metrics' must be"),
        ([FIRST, changed(SECOND, metrics={"m": ["nan"]})], 2, "'metrics' must be"),
        ([FIRST, changed(SECOND, step=1.5)], 2, "'step' must be a whole number"),
        ([FIRST, changed(LAST, status="done")], 2, "'status' must be one of"),
        ([FIRST, changed(LAST, crossing={"eval_index": 1})], 2, "'crossing' must be"),
        ([FIRST, changed(LAST, ignored="dropout")], 2, "'ignored' must be a list of strings"),
        ([FIRST, changed(LAST, examples_exact=1)], 2, "'examples_exact' must be true or false"),
    ],
)
def test_a_malformed_line_is_named_with_file_and_line(tmp_path: Path, lines: list[str], where: int, what: str):
    path = tmp_path / "record.jsonl"
    path.write_bytes("".join(lines).encode("utf-8", "surrogateescape"))
    with pytest.raises(RecordError) as error:
        read_record(path)
    assert str(error.value).startswith(f"{path}:{where}: ")
    assert what in str(error.value)


def test_a_key_of_a_later_version_is_left_aside(tmp_path: Path):
    assert read_record(write(tmp_path / "r", changed(FIRST, news=1))).run == RUN


def test_a_file_that_is_not_there_is_a_record_error(tmp_path: Path):
    with pytest.raises(RecordError, match=r"none\.jsonl: cannot be read: No such file"):
        read_record(tmp_path / "none.jsonl")


def test_a_record_is_never_overwritten(tmp_path: Path):
    path = write(tmp_path / "record.jsonl", FIRST)
    with pytest.raises(FileExistsError):
        RecordWriter(path)
    assert path.read_text() == FIRST


def test_every_line_is_on_disk_when_the_call_returns(tmp_path: Path):
    with RecordWriter(tmp_path / "deep" / "record.jsonl") as writer:
        append = (lambda: writer.run(RUN), lambda: writer.eval(EVAL), lambda: writer.end(END))
        for count, call in enumerate(append, start=1):
            call()
            assert (tmp_path / "deep" / "record.jsonl").read_bytes().count(b"\n") == count


def test_an_eval_is_charged_by_the_chosen_clock():
    line = replace(EVAL, step=3, examples=48, seconds=1.25)
    assert [line.charge(clock) for clock in ("seconds", "steps", "examples")] == [1.25, 3.0, 48.0]


LATER = {
    "checkpoint_seconds": 0.0,
    "repeated_seconds": 0.0,
    "api": "timetrial",
    "restored": (),
    "told": (),
    "parameters_sha256": None,
    "noise": {},
    "trainer": "python",
    "accumulate": 1,
    "matmul_precision": None,
    "remat": False,
}
"""Fields that came to the format later, and what they are where a file lacks them."""


@pytest.mark.parametrize(("kind", "line"), [("run", RUN), ("eval", EVAL), ("end", END)])
def test_no_field_of_a_line_is_optional_in_the_file_but_those_that_came_later(tmp_path: Path, kind: str, line: Any):
    good = {"run": FIRST, "eval": SECOND, "end": LAST}[kind]
    for field in fields(line):
        lines = ([] if kind == "run" else [FIRST]) + [without(good, field.name)]
        if field.name in LATER:
            record = read_record(write(tmp_path / "later", *lines))
            held = {"run": record.run, "eval": record.evals[0] if record.evals else None, "end": record.end}[kind]
            assert getattr(held, field.name) == LATER[field.name]
            continue
        with pytest.raises(RecordError, match=f"'{field.name}' is missing"):
            read_record(write(tmp_path / "r", *lines))
