"""Our records as AlgoPerf's logs: AlgoPerf's procedure comes to our times."""

import numpy as np
import pytest
from timetrial_scoring import profiles
from timetrial_scoring.export import export_algoperf
from timetrial_scoring.score import score_folder

from timetrial.errors import UserError
from timetrial.ruleset import load_ruleset


@pytest.fixture
def exported(rules, ruleset_file, tmp_path):
    """Exports what stands in `runs`, under changed rules; scores it before and, as AlgoPerf would, after."""

    def export(**changes):
        path = ruleset_file(rules | changes)
        findings = export_algoperf(tmp_path / "runs", tmp_path / "out", ruleset=load_ruleset(path))
        ours = score_folder(tmp_path / "runs", ruleset=path).boards[0]
        seconds = ruleset_file(rules | changes | {"clock": "seconds"})  # AlgoPerf knows one time
        theirs = score_folder(tmp_path / "out", ruleset=seconds, mode="published").boards[0]
        return ours, theirs, findings

    return export


def agree(ours, theirs):
    assert theirs.names == ours.names
    assert theirs.medians_sw.tolist() == ours.medians_sw.tolist()
    scores = profiles.trapezoid_scores(ours.ratios_sb)
    assert [line.score for line in sorted(theirs.standings, key=lambda line: line.submission)] == scores.tolist()
    return True


def test_the_least_time_becomes_the_fewest_evals(record, exported):
    record("adam", "digits", [(0.0, 0.9), (5.0, 0.5), (10.0, 0.4), (20.0, 0.05)], trial=0)
    record("adam", "digits", [(0.0, 0.9), (15.0, 0.5), (30.0, 0.05)], trial=1)
    ours, theirs, _ = exported(external={"studies": 1, "trials": 2})
    assert ours.medians_sw[0, 0] == 20.0
    assert agree(ours, theirs)


def test_absent_and_failed_studies_stay_never_reached(record, exported):
    record("adam", "digits", [(0.0, 0.9), (10.0, 0.05)], study=0)
    record("adam", "digits", [(0.0, 0.9), (10.0, 0.5)], study=1, status="diverged")
    record("sgd", "digits", [(0.0, 0.9), (10.0, 0.05)], study=0)
    ours, theirs, _ = exported(external={"studies": 3, "trials": 1})
    assert np.isinf(ours.medians_sw).all()
    assert agree(ours, theirs)


def test_crossings_that_do_not_count_are_left_out(record, exported):
    record("adam", "digits", [(0.0, 0.9), (10.0, 0.05), (20.0, 0.5), (30.0, 0.05), (40.0, 0.05)])
    record("sgd", "digits", [(0.0, 0.9), (99.0, 0.5), (101.0, 0.05), (102.0, 0.05)])
    ours, theirs, _ = exported(confirmation=1)
    assert ours.medians_sw[:, 0].tolist() == [30.0, np.inf]
    assert agree(ours, theirs)


def test_a_board_charged_in_examples_is_exported_in_examples(record, exported):
    record("adam", "digits", [(0.0, 0.9), (10.0, 0.05)])
    record("sgd", "digits", [(0.0, 0.9), (1.0, 0.4), (2.0, 0.05)])
    ours, theirs, _ = exported(clock="examples")
    assert ours.medians_sw[:, 0].tolist() == [32.0, 64.0]
    assert agree(ours, theirs)


def test_an_even_number_of_studies_is_said_to_differ(record, exported):
    record("adam", "digits", [(0.0, 0.9), (10.0, 0.05)])
    _, _, findings = exported(external={"studies": 2, "trials": 1})
    assert "even number of studies" in {finding.kind for finding in findings}


def test_nothing_is_ever_overwritten(record, tmp_path):
    record("adam", "digits", [(0.0, 0.9), (10.0, 0.05)])
    with pytest.raises(UserError, match="not an empty folder"):
        export_algoperf(tmp_path / "runs", tmp_path / "runs")
