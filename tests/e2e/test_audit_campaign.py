"""A campaign is audited in a fresh process that runs none of the submission's code, and its trials run again."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from audited import FAST, forge, toy_rules
from toy_trials import write

from timetrial.audit.retime import Nobody
from timetrial.audit.run import process_of, run_audit
from timetrial.campaign import Campaign, open_folder, restrict, run_campaign

SUPPORT = Path(__file__).parents[1] / "support"
WORKER = (sys.executable, str(SUPPORT / "toy_worker.py"))
ASK = process_of((sys.executable, str(SUPPORT / "toy_auditor.py")))
LEAVES_A_TRACE = """
    import os, pathlib
    pathlib.Path(os.environ["TRACE"]).write_text("imported")
"""


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A campaign of one trial whose submission leaves a trace where it is imported."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TRACE", str(tmp_path / "trace"))
    source = write(tmp_path, f"{LEAVES_A_TRACE}\0{FAST}")
    ruleset = restrict(toy_rules(), trials=1)
    campaign = Campaign(out=tmp_path / "out", ruleset=ruleset, sources=(source,), seed=5)
    open_folder(campaign, resume=False)
    run_campaign(campaign, Nobody(), worker=WORKER)
    (tmp_path / "trace").unlink()
    return tmp_path / "out"


def test_an_audit_runs_no_submission_and_a_trial_that_is_run_again_shows_what_an_audit_cannot(runs: Path):
    before = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    audit = run_audit([runs], ask=ASK)
    assert audit.all_findings() == []
    assert [audited.compared for audited in audit.trials] == ["bit for bit"]
    assert not Path(os.environ["TRACE"]).exists()
    assert {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()} == before

    trial = audit.trials[0].trial
    end = trial.result
    assert end is not None
    assert end.crossing is not None
    line = trial.eval_lines[end.crossing.eval_index - 1]  # of which no parameters are kept

    def better(lines: list[dict[str, Any]]) -> None:
        lines[line - 1]["metrics"]["train_eval/loss"] *= 0.9

    forge(trial.path, better, relink=True)
    told: list[Any] = []
    again = run_audit([runs], ask=ASK, tell=told.append, retimes=1, worker=WORKER)
    assert [bool(one.findings) for one in told] == [False, True]
    found = [(finding.kind, finding.path, finding.line, finding.field) for finding in again.all_findings()]
    assert found == [("rerun", trial.path, line, "metrics.train_eval/loss")]
    assert [str(one.allowed) for one in again.reruns] == ["bit for bit"]
    assert Path(os.environ["TRACE"]).exists()
