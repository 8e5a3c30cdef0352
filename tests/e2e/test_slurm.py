"""Campaigns on a real Slurm: `make slurm-test`. A controller and two nodes run on this machine while the tests do."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import slurm_cluster
from slurm_cluster import Cluster, until

from timetrial.record import RunRecord, read_record
from timetrial.registry import shipped

pytestmark = [pytest.mark.slow, pytest.mark.slurm]

RULES = """
description = "A trial of a few seconds."
version = 1
clock = "examples"

[external]
studies = 1
trials = 1
points = "default"

[workloads.lobes]
budget = 6_400
eval_every = 1_600
horizon_examples = 6_400
target = { metric = "error_rate", value = 0.0, better = "lower" }
"""
APPTAINER = """#!/bin/bash
echo "$*" >> {log}
shift 5  # exec --nv --bind FOLDER IMAGE
exec {python} -m "$@"
"""
"""A container of the same machine, under apptainer's name."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if (reason := slurm_cluster.missing()) is not None:
        pytest.skip(reason)
    with slurm_cluster.cluster(tmp_path_factory.mktemp("slurm")) as found:
        found.environment["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
        timetrial(found, "data", "prepare", "lobes")
        yield found


def timetrial(cluster: Cluster, *arguments: str) -> str:
    return cluster.call(sys.executable, "-m", "timetrial", *arguments)


def submit(cluster: Cluster, folder: Path, *submissions: str | Path, options: tuple[str, ...] = ()) -> tuple[Path, str]:
    """Hands a campaign of one trial a submission to Slurm; returns its folder, and the array's id."""
    rules, out = folder / "rules.toml", folder / "out of the way"
    rules.write_text(RULES)
    answer = timetrial(
        cluster, "run", "--ruleset", str(rules), "--submission", *map(str, submissions), "--out", str(out),
        "--checkpoint-every", "0.5", "--launcher", "slurm", "--format", "json", *options,
    )  # fmt: skip
    (array,) = json.loads(answer)["arrays"]
    return out, array["job_id"]


def trial(out: Path, submission: str) -> Path:
    return out / submission / "lobes" / "study_0" / "trial_0"


def under_way(folder: Path) -> None:
    """Waits until a trial has a checkpoint of some step."""
    until(lambda: any(checkpoints(folder)))


def checkpoints(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in (folder / "checkpoints").glob("[0-9]*") if path.name.isdecimal())


def bits(record: RunRecord) -> object:
    assert record.end is not None
    return [(e.step, e.examples, e.metrics) for e in record.evals], record.end.status, record.end.step


def test_an_array_finishes_although_a_node_is_lost_and_its_trial_loses_no_step_after_its_checkpoint(
    cluster: Cluster, tmp_path: Path
):
    """Two submissions of the same source: the one that is disturbed leaves the record of the other."""
    twin = tmp_path / "twin"
    shutil.copytree(shipped("submissions") / "adamw", twin)
    out, job = submit(cluster, tmp_path, "adamw", twin)
    (twin / "submission.py").write_text("raise SystemExit('edited after it was submitted')")
    under_way(trial(out, "twin"))
    claim = json.loads((trial(out, "twin") / "claim.json").read_text())
    assert claim["task"] == f"{job}_1"
    node = next(node for state, node in cluster.queue(f"{job}_1") if state == "RUNNING")
    saved = checkpoints(trial(out, "twin"))[-1]
    cluster.lose(node)
    cluster.finish(job)
    calm, disturbed = (read_record(trial(out, name) / "record.jsonl") for name in ("adamw", "twin"))
    assert bits(disturbed) == bits(calm)
    (resumed,) = disturbed.resumes
    assert resumed.step >= saved
    assert not calm.resumes
    assert "2 of 2 trials done" in timetrial(cluster, "status", str(out))
    cluster.begin(node)


def test_a_trial_that_is_told_to_leave_is_put_back_and_goes_on_in_its_container(cluster: Cluster, tmp_path: Path):
    log, program = tmp_path / "containers.log", tmp_path / "bin" / "apptainer"
    program.parent.mkdir()
    program.write_text(APPTAINER.format(log=log, python=sys.executable))
    program.chmod(0o755)
    cluster.environment["PATH"] = f"{program.parent}:{cluster.environment['PATH']}"
    out, job = submit(cluster, tmp_path, "adamw", options=("--container", "an image.sif"))
    under_way(trial(out, "adamw"))
    cluster.call("scancel", "--batch", "--signal=TERM", f"{job}_0")  # what Slurm does before the time limit
    cluster.finish(job)
    record = read_record(trial(out, "adamw") / "record.jsonl")
    assert record.end is not None
    assert (record.end.status, len(record.resumes)) == ("budget", 1)
    runs = [f"exec --nv --bind {out} an image.sif timetrial trial {trial(out, 'adamw')}"] * 2
    assert log.read_text().splitlines() == runs


def test_a_trial_of_two_processes_has_a_node_for_each(cluster: Cluster, tmp_path: Path):
    out, job = submit(cluster, tmp_path, "adamw", options=("--processes", "2"))
    cluster.finish(job)
    record = read_record(trial(out, "adamw") / "record.jsonl")
    assert record.end is not None
    assert (record.end.status, record.run.hardware["processes"]) == ("budget", 2)


def test_a_trial_that_is_cancelled_stays_away_and_its_campaign_can_be_taken_up(cluster: Cluster, tmp_path: Path):
    out, job = submit(cluster, tmp_path, "adamw")
    under_way(trial(out, "adamw"))
    cluster.call("scancel", job)
    cluster.finish(job)
    end = read_record(trial(out, "adamw") / "record.jsonl").end
    assert end is not None
    assert end.status == "interrupted"
    failed = subprocess.run(
        (sys.executable, "-m", "timetrial", "trial", str(trial(out, "lion"))), env=cluster.environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (failed.returncode, "keeps no submission 'lion'" in failed.stderr) == (2, True)
    timetrial(cluster, "trial", str(trial(out, "adamw")))
    assert len(read_record(trial(out, "adamw") / "record.jsonl").resumes) == 1
