"""Every target that is used follows from evidence of the workload as it is now."""

import json
import math

import pytest

from timetrial import registry
from timetrial.errors import UserError
from timetrial.evidence import MOST_LOG_TIME_PER_SD, derived_targets, evidence_path, read_evidence, write_evidence
from timetrial.lock import workload_sha256
from timetrial.ruleset import load_ruleset
from timetrial.target import Target

DERIVED = sorted(registry.shipped("workloads").glob("*/evidence/*.json"))
FINE = {
    "schema": 1,
    "kind": "target_evidence",
    "usable": True,
    "target": {"metric": "error_rate", "value": 0.3, "better": "lower"},
    "test_target": {"metric": "error_rate", "value": 0.32, "better": "lower"},
}


@pytest.mark.parametrize("path", DERIVED, ids=lambda path: path.stem)
def test_the_evidence_is_of_the_workload_as_it_is_and_its_target_is_in_use(path):
    data = read_evidence(path)
    assert data is not None
    workload = registry.load_workload(path.stem)
    assert data["workload"] == workload.name
    assert data["variant_of"] == workload.variant_of
    assert data["workload_sha256"] == workload_sha256(workload)
    assert data["usable"] == (data["log_time_per_standard_deviation"] <= MOST_LOG_TIME_PER_SD)
    assert workload.target == (Target.from_json(data["target"]) if data["usable"] else None)
    assert data["procedure"]["seeds"] >= 5
    assert data["variant_of"] or len(data["points"]) >= 4 * 8


@pytest.mark.parametrize("path", DERIVED, ids=lambda path: path.stem)
def test_the_target_is_the_median_of_the_fresh_seeds(path):
    data = json.loads(path.read_text())
    worst = math.inf if data["target"]["better"] == "lower" else -math.inf
    bests = sorted(worst if run["best"] is None else run["best"] for run in data["fresh_seeds"])
    if data["target"]["better"] == "higher":
        bests.reverse()
    assert data["target"]["value"] == pytest.approx(bests[len(bests) // 2], rel=1e-3)
    assert Target.from_json(data["target"]).met_by(bests[len(bests) // 2])
    assert len({run["study"] for run in data["fresh_seeds"]}) == len(bests)
    assert {run["study"] for run in data["fresh_seeds"]}.isdisjoint(run["study"] for run in data["points"])


def test_the_track_s_targets_are_those_that_were_derived():
    for name, rules in load_ruleset("mini-v1").workloads.items():
        workload = registry.load_workload(name)
        assert (rules.target, rules.test_target) == (workload.target, workload.test_target), name


def test_a_target_that_is_not_usable_is_not_used(tmp_path):
    path = evidence_path(tmp_path, "alpha")
    write_evidence({**FINE, "usable": False}, path)
    assert derived_targets(path) == (None, None)
    write_evidence(FINE, path)
    assert derived_targets(path) == (Target("error_rate", 0.3, "lower"), Target("error_rate", 0.32, "lower"))


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({**FINE, "schema": 2}), json.dumps({**FINE, "kind": "x"})])
def test_a_file_that_is_no_evidence_is_named_with_what_to_do(tmp_path, text):
    path = evidence_path(tmp_path, "alpha")
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(UserError, match=r"alpha\.json.*derive it again"):
        derived_targets(path)


def test_where_there_is_no_evidence_there_is_no_target(tmp_path):
    assert derived_targets(evidence_path(tmp_path, "alpha")) == (None, None)
