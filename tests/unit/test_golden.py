"""Records of every schema version are read for ever, and mean what they meant."""

import math
from pathlib import Path

from fakes import header

from timetrial.record import append_end, end_after, read_record, to_line
from timetrial.target import Target

GOLDEN = Path(__file__).parents[1] / "golden"


def test_a_record_of_schema_1_means_what_docs_results_format_says():
    record = read_record(GOLDEN / "record-1.jsonl")
    assert (record.run.workload, record.run.study, record.run.trial, record.run.clock) == ("lobes", 1, 2, "seconds")
    assert record.run.target == Target("error_rate", 0.5, "lower")
    assert record.run.hparams == {"learning_rate": 0.001, "nesterov": True, "name": "x", "depth": 3}
    assert [line.seconds for line in record.evals] == [0.0, 3.5]
    assert math.isnan(record.evals[1].metrics["valid/error_rate"])
    assert record.evals[1].metrics["valid/loss"] == math.inf
    assert record.end is not None
    assert (record.end.status, record.end.crossing, record.end.ignored) == ("diverged", None, ("dropout_rate",))


def test_a_torn_record_is_ended_behind_its_last_whole_line(tmp_path):
    lines = (GOLDEN / "record-1.jsonl").read_text().splitlines(keepends=True)
    torn = tmp_path / "record.jsonl"
    torn.write_text("".join(lines[:3]) + lines[3][:40])
    end = append_end(torn, None, lambda last: end_after(last, "hung", "no step"))
    record = read_record(torn)
    assert record.end == end
    assert (end.status, end.step, end.seconds) == ("hung", 10, 3.5)
    assert len(record.evals) == 2


def test_a_record_that_has_its_end_keeps_it(tmp_path):
    path = tmp_path / "record.jsonl"
    path.write_text((GOLDEN / "record-1.jsonl").read_text())
    assert append_end(path, None, lambda last: end_after(last, "hung", "no step")).status == "diverged"
    assert path.read_text() == (GOLDEN / "record-1.jsonl").read_text()


def test_a_record_that_never_began_gets_the_header_that_was_announced(tmp_path):
    path = tmp_path / "record.jsonl"
    path.write_text(to_line(header())[:30])
    append_end(path, header(study=4), lambda last: end_after(last, "error", "crashed on import"))
    record = read_record(path)
    assert (record.run.study, record.evals) == (4, ())
