"""AlgoPerf's logs as our records: the score stays what it was, and the way there and back loses nothing that counts."""

import numpy as np
import pytest
from timetrial_scoring.export import export_algoperf
from timetrial_scoring.importer import import_algoperf
from timetrial_scoring.score import score_folder

from timetrial.errors import UserError
from timetrial.record import read_record
from timetrial.ruleset import load_ruleset


@pytest.fixture
def imported(rules, ruleset_file, tmp_path):
    """Imports the logs under changed rules; the board before and after."""

    def import_(**changes):
        path = ruleset_file(rules | changes)
        findings = import_algoperf(tmp_path / "logs", tmp_path / "in", ruleset=load_ruleset(path))
        before, after = (score_folder(tmp_path / where, ruleset=path).boards[0] for where in ("logs", "in"))
        return before, after, findings

    return import_


def test_the_times_to_target_stay_what_they_were(log, imported):
    log("adam", "digits", [(5.0, 0.5), (10.0, 0.4), (20.0, 0.05)], trial=1)
    log("adam", "digits", [(15.0, 0.5), (30.0, 0.05), (40.0, 0.01)], trial=2)
    log("sgd", "digits", [(15.0, 0.5), (101.0, 0.05)])
    log("sgd", "words", [(1.0, "nan"), (2.0, 31.0)])
    before, after, findings = imported(external={"studies": 1, "trials": 2})
    assert not findings
    assert after.medians_sw.tolist() == before.medians_sw.tolist()
    assert np.isinf(after.medians_sw).sum() == 2


def test_a_record_says_what_the_log_and_the_ruleset_say(log, imported, tmp_path):
    log("adam", "digits", [(5.0, 0.5), (20.0, 0.05)], study=2, trial=3, hparams={"learning_rate": 0.1, "on": True})
    imported(external={"studies": 3, "trials": 1})
    record = read_record(tmp_path / "in" / "adam" / "digits" / "study_2" / "trial_2" / "record.jsonl")
    assert (record.run.api, record.run.budget, record.run.seed) == ("algoperf", 100.0, 2003)
    assert record.run.hparams == {"learning_rate": 0.1, "on": True}
    assert [(line.step, line.seconds, line.metrics["valid/error_rate"]) for line in record.evals] == [
        (10, 5.0, 0.5),
        (20, 20.0, 0.05),
    ]
    assert record.end is not None
    assert record.end.status == "reached"
    assert record.end.crossing is not None
    assert (record.end.crossing.charge_before, record.end.crossing.charge) == (5.0, 20.0)


def test_export_and_import_are_each_others_way_back(log, imported, tmp_path, ruleset_file, rules):
    log("adam", "digits", [(5.0, 0.5), (20.0, 0.05)])
    _, board, _ = imported()
    path = ruleset_file(rules)
    export_algoperf(tmp_path / "in", tmp_path / "out", ruleset=load_ruleset(path))
    import_algoperf(tmp_path / "out", tmp_path / "again", ruleset=load_ruleset(path))
    assert score_folder(tmp_path / "again", ruleset=path).boards[0].medians_sw.tolist() == board.medians_sw.tolist()


def test_what_cannot_be_carried_over_is_a_finding(log, imported):
    log("adam", "digits", [("nan", 0.5), (20.0, 0.05)])
    log("adam", "words", [(1.0, "many")])
    log("adam", "digits_hard", [(1.0, 0.5)])
    _, _, findings = imported()
    assert {finding.kind for finding in findings} == {"malformed", "unknown workload"}
    assert any("left out" in finding.message for finding in findings)
    assert any("not a number: not imported" in finding.message for finding in findings)


def test_neither_a_full_folder_nor_another_clock_is_taken(log, rules, ruleset_file, tmp_path):
    log("adam", "digits", [(5.0, 0.5)])
    with pytest.raises(UserError, match="not an empty folder"):
        import_algoperf(tmp_path / "logs", tmp_path / "logs", ruleset=load_ruleset(ruleset_file(rules)))
    examples = load_ruleset(ruleset_file(rules | {"clock": "examples"}))
    with pytest.raises(UserError, match="charged in seconds"):
        import_algoperf(tmp_path / "logs", tmp_path / "in", ruleset=examples)


def test_the_published_board_has_the_same_scores_from_records(algoperf_logs, tmp_path):
    import_algoperf(algoperf_logs, tmp_path / "in", ruleset=load_ruleset("algoperf-v05-external"))
    from_logs, from_records = (
        {
            line.submission: line.score
            for line in score_folder(where, ruleset="algoperf-v05-external").boards[0].standings
        }
        for where in (algoperf_logs, tmp_path / "in")
    )
    assert len(from_logs) == 11
    assert from_records == from_logs
