"""What `timetrial doctor` says of the machine, its clock and a ruleset's cost."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from toys import toy_workload

from timetrial import calibration
from timetrial.cli import main
from timetrial.commands import doctor
from timetrial.ruleset import Ruleset


def rules(clock: str) -> Ruleset:
    return Ruleset.from_json(
        {
            "name": "r",
            "version": 1,
            "description": "",
            "clock": clock,
            "external": {"studies": 3, "trials": 5},
            "self_tuning": {"studies": 2, "trials": 1, "budget_factor": 1.5},
            "workloads": {"a": {"budget": 3600}, "b": {"budget": 600}},
        }
    )


def test_the_cost_is_studies_times_trials_times_budget_and_sums_by_board():
    hours = {(row["board"], row["workload"]): row["hours"] for row in doctor.cost(rules("seconds"))}
    assert hours == pytest.approx(
        {
            ("external", "a"): 15.0,
            ("external", "b"): 2.5,
            ("external", "all"): 17.5,
            ("self-tuning", "a"): 3.0,
            ("self-tuning", "b"): 0.5,
            ("self-tuning", "all"): 3.5,
        }
    )


def test_a_ruleset_that_charges_examples_has_a_cost_in_examples_and_none_in_hours():
    rows = doctor.cost(rules("examples"))
    assert {row["hours"] for row in rows} == {None}
    assert rows[2]["total"] == 15 * 4200


def test_jitter_is_the_99th_percentile_of_the_work_over_its_median():
    durations = [1.0] * 98 + [4.0] * 2
    ticks = itertools.accumulate(itertools.chain([0.0], *((0.0, d) for d in durations)))
    noise = doctor.clock_noise(sum(durations), now=lambda: next(ticks))
    assert (noise["work_median_seconds"], noise["jitter"]) == (1.0, 4.0)


def test_doctor_prints_versions_machine_clock_and_cost_as_json(capsys: pytest.CaptureFixture[str]):
    assert main(["doctor", "demo", "--seconds", "0", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == {"versions", "machine", "clock", "cost"}
    assert found["versions"]["jax"]
    assert found["machine"]["device_count"] >= 1
    assert found["machine"]["cores"] >= 1
    assert len(found["machine"]["fingerprint"]) == 12


def test_a_calibration_is_kept_by_the_kind_of_machine_and_shown_beside_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(calibration, "_LARGEST_SIDE", 256)
    monkeypatch.setattr(calibration, "_LARGEST_ARRAY", 2**16)
    monkeypatch.setattr(calibration, "_MOST_CALLS", 100)
    shown: list[dict[str, Any]] = []
    for options in ((), ("--calibrate",), ("--calibrate",)):
        assert main(["doctor", "--seconds", "0", "--format", "json", *options]) == 0
        shown.append(json.loads(capsys.readouterr().out))
    assert not {"calibration", "calibration before"} & shown[0].keys()
    assert "calibration before" not in shown[1]
    measured = shown[1]["calibration"]
    assert shown[2]["calibration before"] == measured
    assert measured["fingerprint"] == shown[1]["machine"]["fingerprint"]
    assert 1e6 < measured["matmul_flops"] < 1e17
    assert 1e6 < measured["memory_bytes_per_second"] < 1e14
    assert 1e-8 < measured["dispatch_seconds"] < 0.1


def test_doctor_prints_tables(capsys: pytest.CaptureFixture[str]):
    assert main(["doctor", "demo", "--seconds", "0"]) == 0
    printed = capsys.readouterr().out
    for words in ("Versions", "Machine", "jitter", "Cost of one submission under demo, at most"):
        assert words in printed


def test_an_unknown_ruleset_is_said_before_the_clock_is_watched(capsys: pytest.CaptureFixture[str]):
    assert main(["doctor", "dmo", "--seconds", "1e9"]) == 2
    assert "did you mean 'demo'" in capsys.readouterr().err


def test_hours_of_a_ruleset_charged_in_examples_follow_a_measured_pace():
    hours = {
        (row["board"], row["workload"]): row["hours"] for row in doctor.cost(rules("examples"), {"a": 2.0, "b": 3.0})
    }
    assert hours["external", "a"] == pytest.approx(30.0)
    assert hours["external", "all"] == pytest.approx(30.0 + 7.5)
    assert {row["hours"] for row in doctor.cost(rules("examples"), {"a": 2.0}) if row["workload"] == "all"} == {None}


def test_a_pace_is_that_of_real_steps():
    from timetrial.check.pace import seconds_a_step

    assert 0 < seconds_a_step(toy_workload(), seconds=0.01) < 1
