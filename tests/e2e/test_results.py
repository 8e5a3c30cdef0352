"""The committed results can be repeated: one entry, another one each day, is run again and compared."""

import datetime
import json
import os
import random
import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest

from timetrial.campaign import read_campaign
from timetrial.launchers.process import WORKER
from timetrial.loading import find_source
from timetrial.record import RECORD_NAME, read_record
from timetrial.registry import load_workload
from timetrial.ruleset import Ruleset
from timetrial.worker import Job

RESULTS = Path(__file__).parents[2] / "results" / "mini-v1"
ENTRIES = sorted(RESULTS.rglob(RECORD_NAME))
DAY = os.environ.get("TIMETRIAL_RESULT") or datetime.datetime.now(datetime.UTC).date().isoformat()
"""Chooses the entry; a failure names it, so that it can be chosen again."""


def test_an_entry_of_the_committed_results_comes_out_again(tmp_path: Path):
    path = random.Random(DAY).choice(ENTRIES)
    old = read_record(path)
    source, workload = find_source(old.run.submission), load_workload(old.run.workload)
    if not workload.data.prepared():
        pytest.skip(f"the data set {workload.data.name} is not prepared: timetrial data prepare {workload.name}")
    ruleset = Ruleset.from_json(read_campaign(RESULTS / "campaign.json")["ruleset"])
    assert source.sha256 == old.run.submission_sha256, f"{source.name} has changed since: run the results again"
    assert ruleset.sha256 == old.run.ruleset_sha256

    cores = sorted(os.sched_getaffinity(0))[: old.run.hardware["cores"]]
    job = Job(
        submission=source.name,
        path=str(source.path),
        workload=workload.name,
        ruleset=ruleset.to_json(),
        seed=old.run.seed,
        study=old.run.study,
        trial=old.run.trial,
        self_tuning=source.self_tuning,
        folder=str(tmp_path),
        cores=tuple(cores),
    )
    subprocess.run(WORKER, input=json.dumps(asdict(job)).encode(), stdout=subprocess.DEVNULL, check=True)
    new = read_record(tmp_path / RECORD_NAME)

    same_machine = new.run.hardware == old.run.hardware and new.run.packages == old.run.packages
    where = f"TIMETRIAL_RESULT={DAY}: {path.relative_to(RESULTS)}"
    assert new.end is not None
    assert old.end is not None
    if same_machine:
        assert [dict(line.metrics) for line in new.evals] == [dict(line.metrics) for line in old.evals], where
        return
    # On another machine later evals part by rounding, and metrics that count before losses do.
    first, again = (
        {name: x for name, x in record.evals[1].metrics.items() if name.endswith("/loss")} for record in (old, new)
    )
    assert again == {name: pytest.approx(value, rel=0.05) for name, value in first.items()}, where
