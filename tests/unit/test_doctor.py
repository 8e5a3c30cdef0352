"""What `timetrial doctor` says of the machine, its clock and a ruleset's cost."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from digits import toy_records
from toys import toy_workload

from timetrial import calibration, registry
from timetrial.cli import main
from timetrial.commands import doctor
from timetrial.cost import cost
from timetrial.registry import load_workload
from timetrial.ruleset import Ruleset


def rules(clock: str, **variants: Any) -> Ruleset:
    return Ruleset.from_json(
        {
            "name": "r",
            "version": 1,
            "description": "",
            "clock": clock,
            "external": {"studies": 3, "trials": 5},
            "self_tuning": {"studies": 2, "trials": 1, "budget_factor": 1.5},
            "workloads": {"a": {"budget": 3600}, "b": {"budget": 600}, **variants},
        }
    )


def test_the_cost_is_studies_times_trials_times_budget_and_sums_by_board():
    hours = {(row["board"], row["workload"]): row["hours"] for row in cost(rules("seconds"))}
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
    rows = cost(rules("examples"))
    assert {row["hours"] for row in rows} == {None}
    assert rows[2]["charge"] == 15 * 4200


def test_jitter_is_the_99th_percentile_of_the_work_over_its_median():
    durations = [1.0] * 98 + [4.0] * 2
    ticks = itertools.accumulate(itertools.chain([0.0], *((0.0, d) for d in durations)))
    noise = doctor.clock_noise(sum(durations), now=lambda: next(ticks))
    assert (noise["work_median_seconds"], noise["jitter"]) == (1.0, 4.0)


def test_held_out_variants_cost_what_their_bases_do_and_have_a_sum_of_their_own():
    listed = cost(rules("seconds", c={"budget": 1200, "variant_of": "a"}))
    hours = {row["workload"]: row["hours"] for row in listed if row["board"] == "external"}
    assert hours == pytest.approx({"a": 15, "b": 2.5, "c": 5, "all bases": 17.5, "all held out": 5, "all": 22.5})
    drawn = cost(rules("seconds", c={"budget": 1200, "variant_of": "a"}), held_out=True)
    hours = {row["workload"]: row["hours"] for row in drawn if row["board"] == "external"}
    assert hours["a variant of b"] == 2.5
    assert "a variant of a" not in hours
    assert hours["all held out"] == pytest.approx(7.5)


def test_a_board_costs_as_many_times_as_it_has_submissions_and_devices():
    one, board = cost(rules("seconds"))[2], cost(rules("seconds"), submissions=4, devices=8)[2]
    assert (board["trials"], board["hours"]) == (4 * one["trials"], 4 * one["hours"])
    assert (one["device_hours"], board["device_hours"]) == (one["hours"], 8 * board["hours"])


def test_a_variant_takes_as_long_as_its_base_where_nobody_has_measured_it():
    ruled = rules("steps", c={"budget": 7200, "variant_of": "a"})
    hours = {row["workload"]: row["hours"] for row in cost(ruled, {"a": 2.0, "b": 1.0}) if row["board"] == "external"}
    assert hours["c"] == 2 * hours["a"]


def test_doctor_prints_versions_machine_and_clock_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # where a calibration of this machine may lie
    assert main(["doctor", "--seconds", "0", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == {"versions", "machine", "clock"}
    assert found["versions"]["jax"]
    assert found["machine"]["device_count"] >= 1
    assert found["machine"]["cores"] >= 1
    assert len(found["machine"]["fingerprint"]) == 12


def test_the_budgets_of_the_full_track_are_hours_of_a_machine(capsys: pytest.CaptureFixture[str]):
    assert main(["doctor", "--cost", "full-v1", "--devices", "8", "--format", "json"]) == 0
    rows = {(row["board"], row["workload"]): row for row in json.loads(capsys.readouterr().out)["cost"]}
    criteo = rows["external", "criteo1tb"]
    assert criteo["hours"] == pytest.approx(3 * 5 * 7_703 / 3600)
    assert criteo["device_hours"] == pytest.approx(8 * criteo["hours"])
    assert rows["self-tuning", "criteo1tb"]["hours"] == pytest.approx(3 * 1.5 * 7_703 / 3600)
    parts = rows["external", "all bases"]["hours"] + rows["external", "all held out"]["hours"]
    assert rows["external", "all"]["hours"] == pytest.approx(parts)


def test_hours_follow_a_file_of_seconds_a_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    paces = tmp_path / "paces.json"
    paces.write_text(json.dumps({"seconds_per_step": {"lobes": 0.128}}))
    asked = ["doctor", "--cost", "mini-v1", "--seconds-per-step", str(paces)]
    assert main([*asked, "--format", "json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    rows = {(row["board"], row["workload"]): row for row in printed["cost"]}
    lobes = rows["external", "lobes"]
    steps = lobes["charge"] / load_workload("lobes").default_batch_size
    assert lobes["hours"] == pytest.approx(steps * 0.128 / 3600)
    assert rows["external", "all"]["hours"] is None
    assert printed["seconds_per_step"] == {"lobes": 0.128}
    paces.write_text("{}")
    assert main(asked) == 2
    assert "--measure --format json" in capsys.readouterr().err


def test_the_memory_of_a_workload_is_shown_by_batch_size(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(registry, "load_workload", lambda name: toy_workload(name=name))
    asked = ["doctor", "--memory", "toy", "--batch-sizes", "8,32", "--accumulate", "2", "--remat"]
    assert main([*asked, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["workload"], found["accumulate"], found["remat"]) == ("toy", 2, True)
    assert [row["batch_size"] for row in found["bytes"]] == [8, 32]
    assert main(asked) == 0
    assert "A step of AdamW on toy, in 2 parts, computed again: MiB of each device" in capsys.readouterr().out


def test_training_data_are_beside_a_step_only_where_they_lie_on_the_device(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for data, said in ((toy_workload().data, True), (toy_records(), False)):
        monkeypatch.setattr(registry, "load_workload", lambda name, data=data: replace(toy_workload(), data=data))
        assert main(["doctor", "--memory", "toy", "--batch-sizes", "8"]) == 0
        assert ("beside the training data" in capsys.readouterr().out) == said


@pytest.mark.parametrize("sizes", ["0", "16,", "16 32", "-1", "many"])
def test_what_batch_sizes_are_is_said_where_they_are_none(sizes: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["doctor", "--memory", "lobes", f"--batch-sizes={sizes}"])
    assert f"{sizes!r} is not made of numbers from 1 on" in capsys.readouterr().err


def test_the_memory_of_a_workload_is_that_under_a_ruleset_but_for_what_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(registry, "load_workload", lambda name: toy_workload(name=name))
    (tmp_path / "mine.toml").write_text(
        'version = 1\ndescription = ""\nclock = "examples"\nmatmul_precision = "float32"\n'
        "[external]\nstudies = 1\ntrials = 1\n"
        "[workloads.toy]\nbudget = 320\naccumulate = 4\nremat = true\n[workloads.other]\nbudget = 320\n"
    )

    def found(*asked: str, workload: str = "toy") -> tuple[int, bool, str]:
        ruleset = ("--ruleset", str(tmp_path / "mine.toml"), "--batch-sizes", "8", "--format", "json")
        assert main(["doctor", "--memory", workload, *ruleset, *asked]) == 0
        said = json.loads(capsys.readouterr().out)
        return said["accumulate"], said["remat"], said["matmul_precision"]

    assert found() == (4, True, "float32")
    assert found(workload="other") == (1, False, "float32")
    assert found("--accumulate", "2") == (2, True, "float32")
    assert found("--accumulate", "1", "--no-remat") == (1, False, "float32")


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
    assert main(["doctor", "--seconds", "0"]) == 0
    assert main(["doctor", "--cost", "demo", "--submissions", "3"]) == 0
    printed = capsys.readouterr().out
    for words in ("Versions", "Machine", "jitter", "Cost of 3 submissions under demo, at most", "device hours"):
        assert words in printed


def test_an_unknown_ruleset_is_said(capsys: pytest.CaptureFixture[str]):
    assert main(["doctor", "--cost", "dmo"]) == 2
    assert "did you mean 'demo'" in capsys.readouterr().err


def test_hours_of_a_ruleset_charged_in_examples_follow_a_measured_pace():
    hours = {(row["board"], row["workload"]): row["hours"] for row in cost(rules("examples"), {"a": 2.0, "b": 3.0})}
    assert hours["external", "a"] == pytest.approx(30.0)
    assert hours["external", "all"] == pytest.approx(30.0 + 7.5)
    assert {row["hours"] for row in cost(rules("examples"), {"a": 2.0}) if row["workload"] == "all"} == {None}


def test_a_pace_is_that_of_real_steps():
    from timetrial.check.pace import seconds_a_step

    assert 0 < seconds_a_step(toy_workload(), seconds=0.01) < 1
