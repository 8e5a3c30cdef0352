"""The chain of a record shows every edit of it, by whoever does not also make all links anew."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import header
from hypothesis import given
from hypothesis import strategies as st

from timetrial.chain import breaks
from timetrial.record import EvalLine, RecordWriter, ResumeLine, append_end, end_after, read_record, to_line

GOLDEN = Path(__file__).parents[1] / "golden"
EVAL = EvalLine(
    step=0,
    examples=0,
    seconds=0.0,
    compile_seconds=0.0,
    data_seconds=0.0,
    eval_seconds=0.25,
    metrics={"valid/loss": 2.0},
)
RESUME = ResumeLine(step=1, examples=16, seconds=1.0, evals=1, lost_seconds=0.5, created="2026-11-23T00:00:00+00:00")


def chained(path: Path, evals: int = 3) -> list[bytes]:
    """The lines of a record that a writer wrote."""
    with RecordWriter(path) as writer:
        writer.run(header())
        for step in range(evals):
            writer.eval(replace(EVAL, step=step, metrics={"valid/loss": 2.0, "note ö": 0.1}))
        writer.end(end_after(None, "budget", "never"))
    return path.read_bytes().splitlines(keepends=True)


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    return chained(tmp_path_factory.mktemp("chain") / "record.jsonl")


def test_a_link_is_the_hash_of_the_line_before_as_docs_results_format_says(lines: list[bytes]):
    found = [json.loads(line) for line in lines]
    assert "prev" not in found[0]
    for before, data in zip(lines, found[1:], strict=False):
        assert data["prev"] == hashlib.sha256(before).hexdigest()[:32]
    last = lines[-1].decode()
    without = last[: last.rindex(',"self"')] + "}\n"
    assert found[-1]["self"] == hashlib.sha256(without.encode()).hexdigest()[:32]
    assert not any("self" in data for data in found[:-1])


def test_a_record_as_it_was_written_has_no_break(lines: list[bytes]):
    assert breaks(lines) == []


@given(st.data())
def test_any_change_of_a_digit_is_found_at_its_line_or_the_next(lines: list[bytes], data: st.DataObject):
    number = data.draw(st.integers(0, len(lines) - 1))
    line = lines[number]
    at = data.draw(st.sampled_from([i for i, byte in enumerate(line) if chr(byte).isdigit()]))
    other = data.draw(st.sampled_from([digit for digit in b"123456789" if digit != line[at]]))
    forged = [*lines[:number], line[:at] + bytes([other]) + line[at + 1 :], *lines[number + 1 :]]
    assert {found.line for found in breaks(forged)} & {number + 1, number + 2}


@given(st.data())
def test_lines_taken_out_doubled_or_exchanged_are_found(lines: list[bytes], data: st.DataObject):
    number = data.draw(st.integers(1, len(lines) - 2))
    removed = [*lines[:number], *lines[number + 1 :]]
    doubled = [*lines[: number + 1], *lines[number:]]
    exchanged = [*lines[: number - 1], lines[number], lines[number - 1], *lines[number + 1 :]]
    for forged in (removed, doubled, exchanged):
        assert breaks(forged)


def test_a_record_of_before_there_were_chains_has_nothing_to_break():
    assert breaks((GOLDEN / "record-1.jsonl").read_bytes().splitlines(keepends=True)) == []


def test_links_taken_from_some_lines_are_missed(lines: list[bytes]):
    bare = json.dumps({k: v for k, v in json.loads(lines[2]).items() if k != "prev"}).encode() + b"\n"
    assert [(found.line, found.field) for found in breaks([*lines[:2], bare, *lines[3:]])] == [(3, "prev"), (4, "prev")]


def test_a_record_that_is_taken_up_goes_on_with_its_chain(tmp_path: Path):
    path = tmp_path / "record.jsonl"
    chained(path)
    with RecordWriter(path, resume=True) as writer:
        writer.resume(RESUME)
        writer.go_to(3)
        writer.eval(replace(EVAL, step=4))
        writer.end(end_after(None, "budget", "never"))
    assert [data["kind"] for data in map(json.loads, path.read_text().splitlines())][-3:] == ["resume", "eval", "end"]
    assert breaks(path.read_bytes().splitlines(keepends=True)) == []


@pytest.mark.parametrize("kept", [0, 1, 2, 4])
def test_a_record_cut_at_a_line_and_ended_by_somebody_else_has_a_whole_chain(tmp_path: Path, kept: int):
    path = tmp_path / "record.jsonl"
    whole = chained(path)
    path.write_bytes(b"".join(whole[:kept]) + b'{"schema":1,"ki')
    append_end(path, header(), lambda last: end_after(last, "hung", "no step"))
    ended = path.read_bytes().splitlines(keepends=True)
    assert len(ended) == max(kept, 1) + 1
    assert breaks(ended) == []
    assert "self" in json.loads(ended[-1])


def test_a_record_without_a_chain_is_taken_up_and_ended_without_one(tmp_path: Path):
    path = tmp_path / "record.jsonl"
    path.write_text(to_line(header()) + to_line(EVAL))
    with RecordWriter(path, resume=True) as writer:
        writer.resume(RESUME)
    append_end(path, None, lambda last: end_after(last, "hung", "no step"))
    assert "prev" not in path.read_text()
    assert read_record(path).end is not None
