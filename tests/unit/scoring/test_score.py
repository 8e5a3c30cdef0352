"""From folders to boards: the choice of trial, the two modes, missing runs, ranks, and every finding."""

import json
import math

import numpy as np
import pytest
from timetrial_scoring.score import medians, score_folder
from timetrial_scoring.times import Mode

from timetrial.errors import UserError
from timetrial.ruleset import Ruleset

INF = math.inf
WORDS = [(10.0, 5.0), (100.0, 31.0)]


def digits(seconds):
    """A curve that reaches the target of `digits` at `seconds`."""
    return [(seconds / 2, 0.5), (seconds, 0.05)]


@pytest.fixture
def board(tmp_path, ruleset_file, rules):
    """Scores what stands in the folder, under the small ruleset with some changes."""

    def score(*, mode: Mode = "exact", reference=None, studies=1, trials=1, **changes):
        changed = rules | {"external": {"studies": studies, "trials": trials}} | changes
        return score_folder(tmp_path, ruleset=ruleset_file(changed), mode=mode, reference=reference)

    return score


def scores(result):
    return {line.submission: line.score for line in result.boards[0].standings}


def kinds(result):
    return sorted({finding.kind for finding in result.findings})


def test_each_study_contributes_its_fastest_trial(log, board):
    log("adam", "digits", digits(40.0), trial=1)
    log("adam", "digits", digits(20.0), trial=2)
    assert board(trials=2).boards[0].times.charge[0, 0].tolist() == [20.0]


def test_published_mode_takes_the_fewest_evals_even_when_they_took_longer(log, board):
    log("adam", "digits", [(5.0, 0.5), (10.0, 0.4), (20.0, 0.05)], trial=1)
    log("adam", "digits", [(15.0, 0.5), (30.0, 0.05)], trial=2)
    assert board(trials=2).boards[0].medians_sw[0, 0] == 20.0
    assert board(trials=2, mode="published").boards[0].medians_sw[0, 0] == 30.0


def test_a_missing_study_counts_as_never_reached_and_is_listed(log, board):
    log("adam", "digits", digits(20.0), study=0)
    result = board(studies=3)
    assert result.boards[0].medians_sw[0, 0] == INF
    assert any(f.kind == "missing" and "digits, study 2" in f.message for f in result.findings)


def test_published_mode_passes_over_an_absent_study(log, board):
    log("adam", "digits", digits(20.0), study=0)
    assert board(studies=3, mode="published").boards[0].medians_sw[0, 0] == 20.0


def test_published_mode_averages_the_middle_two_of_an_even_number_of_studies():
    times = np.array([[1.0, 2.0, 4.0, 9.0], [np.nan, 1.0, INF, 3.0], [np.nan] * 4, [INF, INF, 1.0, 2.0]])
    assert medians(times, "published").tolist() == [3.0, 3.0, INF, INF]
    assert medians(times[:1], "exact").tolist() == [2.0]


def test_a_crossing_beyond_the_budget_does_not_count_and_is_a_finding(log, board):
    log("adam", "digits", [(50.0, 0.5), (101.0, 0.05)])
    result = board()
    assert result.boards[0].times.charge[0, 0, 0] == INF
    assert "over budget" in kinds(result)


def test_going_on_long_after_the_budget_is_a_finding_with_its_line(log, board):
    path = log("adam", "digits", [(50.0, 0.05), (101.0, 0.05), (150.0, 0.05)])
    (finding,) = [f for f in board().findings if f.kind == "over budget"]
    assert (finding.file, finding.line) == (str(path), 3)


def test_a_last_eval_more_than_an_interval_beyond_the_budget_is_a_finding(log, board, rules):
    log("adam", "digits", [(50.0, 0.05), (111.0, 0.05)])
    assert "over budget" not in kinds(board())
    rules["workloads"]["digits"]["eval_every"] = 10.0
    assert "over budget" in kinds(board())


def test_self_tuning_submissions_have_a_board_and_a_budget_of_their_own(record, board):
    late = [(50.0, 0.5), (140.0, 0.05)]
    record("adam", "digits", late)
    record("free", "digits", late, tuning="self")
    external, self_tuning = board(self_tuning={"studies": 1, "trials": 1, "budget_factor": 1.5}).boards
    assert (external.names, self_tuning.names) == (("adam",), ("free",))
    assert external.times.charge[0, 0, 0] == INF
    assert self_tuning.times.charge[0, 0, 0] == 140.0


def test_with_confirmation_the_crossing_is_the_first_of_the_confirmed_evals(log, board):
    log("adam", "digits", [(10.0, 0.05), (20.0, 0.5), (30.0, 0.05), (40.0, 0.05)])
    assert board(confirmation=1).boards[0].times.charge[0, 0, 0] == 30.0
    assert board(confirmation=2).boards[0].times.charge[0, 0, 0] == INF


def test_a_confirmation_beyond_the_budget_means_not_reached(log, board):
    log("adam", "digits", [(90.0, 0.05), (101.0, 0.05)])
    assert board(confirmation=1).boards[0].times.charge[0, 0, 0] == INF


def test_a_nan_metric_never_reaches_and_is_a_finding_with_its_line(log, board):
    path = log("adam", "digits", [(10.0, 0.5), (20.0, "nan")])
    result = board()
    assert result.boards[0].times.charge[0, 0, 0] == INF
    assert [(f.file, f.line) for f in result.findings if f.kind == "NaN metric"] == [(str(path), 3)]


def test_times_that_fall_are_a_finding_with_their_line(log, board):
    log("adam", "digits", [(10.0, 0.5), (30.0, 0.4), (20.0, 0.05)])
    assert [f.line for f in board().findings if f.kind == "non-monotone time"] == [4]


def test_a_negative_time_is_a_finding_and_wins_nothing(log, board):
    log("cheat", "digits", [(-10.0, 0.05)])
    log("adam", "digits", digits(20.0))
    result = board()
    assert scores(result) == {"adam": 0.5, "cheat": 0.0}
    assert "negative time" in kinds(result)


def test_a_second_run_of_a_trial_is_a_finding_and_the_first_by_path_counts(log, board, tmp_path):
    path = log("adam", "digits", digits(40.0))
    path.parents[3].parent.rename(tmp_path / "logs_old")
    log("adam", "digits", digits(20.0))
    result = board()
    assert result.boards[0].times.charge[0, 0, 0] == 20.0
    assert any(f.kind == "duplicate" and "logs_old" in (f.file or "") for f in result.findings)


def test_trials_beyond_the_prescribed_number_do_not_count(log, board):
    log("adam", "digits", digits(40.0), trial=1)
    log("adam", "digits", digits(20.0), trial=2)
    result = board(trials=1)
    assert result.boards[0].times.charge[0, 0, 0] == 40.0
    assert "wrong count" in kinds(result)


def test_studies_beyond_the_prescribed_number_do_not_count(log, board):
    for study in (1, 4, 7):
        log("adam", "digits", digits(10.0 * (1 + study)), study=study)
    result = board(studies=2)
    assert result.boards[0].times.charge[0, 0].tolist() == [20.0, 50.0]
    assert "wrong count" in kinds(result)


def test_one_seed_with_one_point_twice_is_a_finding(log, board):
    for trial in (1, 2):
        log("adam", "digits", digits(10.0 * trial), trial=trial, hparams={"lr": 1}, meta={"rng_seed": 0})
    assert "duplicate seed" in kinds(board(trials=2))


def test_the_same_measurements_twice_are_a_finding(log, board):
    for study in (0, 1):
        log("adam", "digits", digits(10.0), study=study)
    assert "duplicate" in kinds(board(studies=2))


def test_two_trials_that_failed_at_once_are_no_duplicates(record, board):
    for study in (0, 1):
        record("adam", "digits", [(0.0, 0.9)], study=study, status="error")
    assert "duplicate" not in kinds(board(studies=2))


def test_mixed_hardware_is_a_finding_where_seconds_are_charged(log, board):
    for name, gpu in (("adam", "V100"), ("sgd", "V100"), ("muon", "H100")):
        log(name, "digits", digits(10.0), meta={"gpu_count": 8, "gpu_model_name": gpu})
    (finding,) = [f for f in board().findings if f.kind == "mixed hardware"]
    assert "1 trials of muon on 8 x H100" in finding.message


def test_mixed_workload_versions_targets_and_rulesets_are_findings(record, board):
    record("adam", "digits", digits(10.0))
    record(
        "sgd",
        "digits",
        digits(10.0),
        workload_version=2,
        target={"metric": "error_rate", "value": 0.2, "better": "lower"},
    )
    assert {"mixed workload versions", "mixed targets", "other ruleset"} <= set(kinds(board()))


def test_a_workload_the_ruleset_does_not_list_is_a_finding(log, board):
    log("adam", "digits", digits(10.0))
    log("adam", "faces", digits(10.0), metric="error_rate")
    assert "unknown workload" in kinds(board())


def test_a_record_whose_crossing_differs_from_its_evals_is_a_finding(record, board):
    record("adam", "digits", digits(10.0), crossing={"eval_index": 0, "charge": 5.0, "charge_before": 0.0})
    assert "crossing" in kinds(board())


def test_a_record_whose_crossing_agrees_is_none(record, board):
    record("adam", "digits", digits(10.0), crossing={"eval_index": 1, "charge": 10.0, "charge_before": 5.0})
    assert "crossing" not in kinds(board())


def test_a_target_met_by_the_untrained_model_is_a_finding(record, board):
    record("adam", "digits", [(1.0, 0.05), (2.0, 0.05)])
    assert "target met at step 0" in kinds(board())


def test_an_interrupted_trial_leaves_its_submission_unranked(record, board):
    record("adam", "digits", digits(10.0), status=None)
    record("sgd", "digits", digits(20.0))
    result = board()
    first, last = result.boards[0].standings
    assert (first.submission, first.rank, first.score) == ("sgd", 1, 0.5)
    assert (last.submission, last.rank, last.score) == ("adam", None, None)
    assert "interrupted" in kinds(result)


def test_inexact_examples_leave_a_submission_unranked_where_examples_are_charged(record, board):
    record("adam", "digits", digits(10.0), examples_exact=False)
    assert scores(board()) == {"adam": 0.5}
    result = board(clock="examples")
    assert scores(result) == {"adam": None}
    assert "inexact examples" in kinds(result)


def test_a_failed_trial_never_reached_whatever_its_evals_say(record, board):
    record("adam", "digits", [(10.0, 0.05)], status="diverged")
    assert board().boards[0].times.charge[0, 0, 0] == INF


def test_an_interrupted_attempt_beside_the_record_is_listed(record, board):
    path = record("adam", "digits", digits(10.0))
    (path.parent / "record.interrupted-0.jsonl").write_text("")
    assert "rerun" in kinds(board())


def test_a_failed_trial_is_a_result(record, board):
    record("adam", "digits", [(10.0, 0.5)], status="diverged")
    record("sgd", "digits", digits(20.0))
    assert scores(board()) == {"adam": 0.0, "sgd": 0.5}


def test_equal_scores_share_a_rank_and_the_next_one_is_skipped(log, board):
    for name, seconds in (("adam", 10.0), ("sgd", 10.0), ("slow", 20.0)):
        log(name, "digits", digits(seconds))
    assert [(line.rank, line.submission) for line in board().boards[0].standings] == [
        (1, "adam"),
        (1, "sgd"),
        (3, "slow"),
    ]


def test_a_submission_of_the_campaign_without_any_run_scores_zero_and_is_listed(record, tmp_path, rules):
    record("adam", "digits", digits(10.0), ruleset_sha256=Ruleset.from_json(rules).sha256)
    campaign = {"schema": 1, "kind": "campaign", "ruleset": rules, "submissions": ["adam", "absent"]}
    (tmp_path / "runs" / "campaign.json").write_text(json.dumps(campaign))
    result = score_folder(tmp_path)
    assert scores(result) == {"adam": 0.5, "absent": 0.0}
    assert kinds(result) == ["crossing", "missing"]


def test_runs_of_different_rulesets_need_a_choice(record, tmp_path):
    record("adam", "digits", digits(10.0))
    record("sgd", "digits", digits(10.0), ruleset="other", ruleset_sha256="d" * 64)
    with pytest.raises(UserError, match="2 different rulesets"):
        score_folder(tmp_path)


def test_logs_need_a_ruleset_by_name(log, tmp_path):
    log("adam", "digits", digits(10.0))
    with pytest.raises(UserError, match="--ruleset"):
        score_folder(tmp_path)


def test_an_unknown_reference_suggests_the_nearest(log, board):
    log("adam", "digits", digits(10.0))
    with pytest.raises(UserError, match="did you mean 'adam'"):
        board(reference="adan")


def test_the_score_range_within_the_eval_grid_holds_the_score(log, board):
    log("adam", "digits", [(8.0, 0.5), (10.0, 0.05)])
    log("sgd", "digits", [(9.0, 0.5), (12.0, 0.05)])
    adam, sgd = board().boards[0].standings
    assert adam.eval_grid == pytest.approx(((4 - 10 / 9) / 3 / 2, 0.5))
    assert sgd.eval_grid == pytest.approx(((4 - 12 / 8) / 3 / 2, 0.5))


def test_conclusions_that_one_workload_decides_are_named(log, board):
    for name, seconds, words in (("adam", 10.0, 200.0), ("sgd", 30.0, 100.0)):
        log(name, "digits", digits(seconds))
        log(name, "words", [(words / 2, 5.0), (words, 31.0)])
    (flip,) = board().boards[0].flips
    assert str(flip) == "without workload digits: sgd is ahead of adam, and first"


def test_conclusions_that_one_submission_decides_are_named(log, board):
    times = {"adam": (10.0, 35.0), "sgd": (20.0, 20.0), "fast": (100.0, 10.0)}
    for name, (seconds, words) in times.items():
        log(name, "digits", digits(seconds))
        log(name, "words", [(words / 2, 5.0), (words, 31.0)])
    left_out = {
        (flip.left_out, flip.ahead, flip.behind) for flip in board().boards[0].flips if flip.kind == "submission"
    }
    assert left_out == {("fast", "sgd", "adam")}
