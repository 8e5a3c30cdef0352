"""What `timetrial doctor` says of the machine, its clock and a ruleset's cost."""

import itertools
import json
from pathlib import Path

import pytest
from toys import toy_workload

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


def test_jitter_is_the_99th_percentile_of_the_work_over_its_median(tmp_path: Path):
    durations = [1.0] * 98 + [4.0] * 2
    ticks = itertools.accumulate(itertools.chain([0.0], *((0.0, d) for d in durations)))
    noise = doctor.clock_noise(sum(durations), now=lambda: next(ticks), stat=tmp_path / "none")
    assert (noise["work_median_seconds"], noise["jitter"], noise["steal"]) == (1.0, 4.0, None)


def test_steal_is_its_share_of_the_processor_time_that_passed(tmp_path: Path):
    stat = tmp_path / "stat"
    lines = iter(["cpu 10 0 10 70 0 0 0 10 0 0\ncpu0 1\n", "cpu 40 0 10 110 0 0 0 40 0 0\ncpu0 1\n"])

    def now() -> float:
        stat.write_text(next(lines, stat.read_text() if stat.exists() else ""))
        return 0.0

    stat.write_text(next(lines))
    assert doctor.clock_noise(0, now=now, stat=stat)["steal"] == pytest.approx(0.3)


def test_doctor_prints_versions_machine_clock_and_cost_as_json(capsys: pytest.CaptureFixture[str]):
    assert main(["doctor", "demo", "--seconds", "0", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == {"versions", "machine", "clock", "cost"}
    assert found["versions"]["jax"]
    assert found["machine"]["device_count"] >= 1
    assert found["machine"]["cores"] >= 1


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
