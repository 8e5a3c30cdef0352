"""Reading runs: what is found, what it becomes, and that nothing is left out without a finding."""

import json

import numpy as np
import pytest
from timetrial_scoring.load import load

from timetrial.errors import UserError

CURVE = [(10.0, 0.5), (20.0, 0.09)]


def kinds(runs):
    return [finding.kind for finding in runs.findings]


def test_a_log_becomes_a_trial_named_by_its_place(log, tmp_path):
    log("adam", "digits", CURVE, study=2, trial=5)
    (trial,) = load(tmp_path).trials
    assert (trial.submission, trial.workload, trial.study, trial.trial) == ("adam", "digits", 2, 5)
    assert trial.seconds.tolist() == [10.0, 20.0]
    assert trial.steps.tolist() == [10.0, 20.0]
    assert trial.examples is None
    assert trial.metrics["valid/error_rate"].tolist() == [0.5, 0.09]
    assert set(trial.metrics) == {"train/loss", "valid/error_rate"}
    assert trial.hparams == {"learning_rate": 0.5}
    assert (trial.seed, trial.hardware) == ((2005,), "8 x V100")


def test_a_record_becomes_a_trial_named_by_its_header(record, tmp_path):
    record("adam", "digits", CURVE, study=1, seed=7)
    (trial,) = load(tmp_path).trials
    assert (trial.submission, trial.workload, trial.study, trial.trial) == ("adam", "digits", 1, 0)
    assert trial.examples is not None
    assert trial.examples.tolist() == [0.0, 32.0]
    assert trial.metrics["valid/error_rate"].tolist() == [0.5, 0.09]
    assert (trial.seed, trial.status) == ((7, 1, 0), "reached")


def test_logs_and_records_are_found_at_any_depth_and_under_any_name(log, record, tmp_path):
    log("adam", "digits", CURVE)
    record("sgd", "digits", CURVE)
    (tmp_path / "logs").rename(tmp_path / "runs" / "elsewhere")
    assert [trial.submission for trial in load(tmp_path / "runs").trials] == ["adam", "sgd"]


def test_an_empty_field_is_a_nan_metric(log, tmp_path):
    log("adam", "digits", [(10.0, ""), (20.0, 0.09)])
    (trial,) = load(tmp_path).trials
    assert np.isnan(trial.metrics["valid/error_rate"]).tolist() == [True, False]


def test_a_last_line_cut_short_is_not_used_and_reported(log, tmp_path):
    path = log("adam", "digits", CURVE)
    path.write_text(path.read_text()[:-4])
    runs = load(tmp_path)
    assert runs.trials[0].seconds.tolist() == [10.0]
    assert [(f.kind, f.line) for f in runs.findings] == [("truncated", 3)]


@pytest.mark.parametrize("bad", ["1.0,20", "1.0,20,x,0.5,0.09", "1.0,1.2.3,20.0,0.5,0.09"])
def test_a_malformed_row_ends_the_curve_and_is_reported_with_its_line(log, tmp_path, bad):
    path = log("adam", "digits", CURVE)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1], bad, lines[2]]) + "\n")
    runs = load(tmp_path)
    assert runs.trials[0].seconds.tolist() == [10.0]
    assert [(f.kind, f.file, f.line) for f in runs.findings] == [("malformed", str(path), 3)]


def test_a_metric_that_is_no_number_names_file_and_line_when_it_is_read(log, tmp_path):
    path = log("adam", "digits", [(10.0, 0.5), (20.0, "oops")])
    (trial,) = load(tmp_path).trials
    with pytest.raises(ValueError, match=f"{path}:3: .*'oops'"):
        trial.metrics["valid/error_rate"]


@pytest.mark.parametrize("content", ["", "global_step,score\n", "a,b\n1,2\n"])
def test_measurements_without_rows_or_clocks_are_reported(log, tmp_path, content):
    path = log("adam", "digits", CURVE)
    path.write_text(content)
    runs = load(tmp_path)
    assert runs.trials == ()
    assert [(f.kind, f.line) for f in runs.findings] == [("malformed", 1)]


def test_missing_or_broken_companions_of_a_log_are_reported(log, tmp_path):
    path = log("adam", "digits", CURVE)
    (path.parent / "hparams.json").write_text("{")
    (path.parent / "meta_data_0.json").unlink()
    runs = load(tmp_path)
    assert kinds(runs) == ["malformed", "incomplete"]
    assert (runs.trials[0].hparams, runs.trials[0].seed) == (None, None)


def test_measurements_outside_a_workload_folder_are_stray(log, tmp_path):
    path = log("adam", "digits", CURVE)
    path.parent.rename(path.parents[2] / "trial_1")
    runs = load(tmp_path)
    assert runs.trials == ()
    assert kinds(runs) == ["stray", "stray"]  # the measurements, and the workload's folder that they have left


def test_a_trial_folder_without_measurements_is_stray(log, tmp_path):
    path = log("adam", "digits", CURVE)
    (path.parents[1] / "trial_2").mkdir()
    assert [(f.kind, f.file) for f in load(tmp_path).findings] == [("stray", str(path.parents[1] / "trial_2"))]


def test_folders_inside_a_trial_and_files_beside_it_are_left_alone(record, tmp_path):
    path = record("adam", "digits", CURVE)
    (path.parent / "checkpoints" / "trial_3").mkdir(parents=True)
    (path.parents[1] / "notes.txt").write_text("x")
    assert load(tmp_path).findings == ()


def test_a_record_in_the_wrong_place_counts_where_its_header_says_and_is_reported(record, tmp_path):
    record("adam", "digits", CURVE, folder="adam/digits/study_0/trial_3")
    runs = load(tmp_path)
    assert runs.trials[0].trial == 0
    assert kinds(runs) == ["misplaced"]


def test_a_malformed_record_is_reported_with_its_line(record, tmp_path):
    path = record("adam", "digits", CURVE)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], '{"kind": "eval"}', *lines[2:]]) + "\n")
    runs = load(tmp_path)
    assert runs.trials == ()
    assert kinds(runs) == ["malformed"]
    assert f"{path}:2" in runs.findings[0].message


def test_a_record_without_an_end_is_interrupted(record, tmp_path):
    record("adam", "digits", CURVE, status=None)
    assert load(tmp_path).trials[0].status == "interrupted"


def test_a_campaign_brings_its_ruleset_and_submissions(record, tmp_path, rules):
    record("adam", "digits", CURVE)
    campaign = {"schema": 1, "kind": "campaign", "seed": 0, "ruleset": rules, "submissions": ["adam", "sgd"]}
    (tmp_path / "runs" / "campaign.json").write_text(json.dumps(campaign))
    (found,) = load(tmp_path / "runs").campaigns
    assert (found.ruleset.name, found.submissions) == ("small", ("adam", "sgd"))


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"schema": 2, "kind": "campaign"}', '{"schema": 1, "kind": "campaign"}']
)
def test_a_broken_campaign_file_is_a_user_error_that_names_it(record, tmp_path, content):
    record("adam", "digits", CURVE)
    (tmp_path / "runs" / "campaign.json").write_text(content)
    with pytest.raises(UserError, match=r"campaign\.json"):
        load(tmp_path / "runs")


def test_an_empty_folder_and_no_folder_are_user_errors(tmp_path):
    with pytest.raises(UserError, match="nothing to score"):
        load(tmp_path)
    with pytest.raises(UserError, match="no folder"):
        load(tmp_path / "nowhere")


def test_a_hidden_folder_holds_no_runs(record, tmp_path):
    record("adam", "digits", CURVE)
    record("adam", "digits", CURVE, folder=".submissions/adam/old/study_0/trial_0")
    runs = load(tmp_path / "runs")
    assert (len(runs.trials), runs.findings) == (1, ())
