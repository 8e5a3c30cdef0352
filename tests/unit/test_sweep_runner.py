"""A sweep from its specification to its results: shared out, resumed, and the same however it was run."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from timetrial import cli
from timetrial.claims import take
from timetrial.sweeps import runner
from timetrial.sweeps.ledger import Cell, open_folder
from timetrial.sweeps.spec import load_spec

SPEC = """\
optimizers = ["sgd"]
schedules = ["constant", "cosine"]
budgets = [1, 2]
reruns = 1
steps = 4
evals = 2
lanes = 4
loop = "measure"
problems = { rosenbrock = {} }
"""


def spec(folder: Path, text: str = SPEC) -> Path:
    path = folder / "tiny.toml"
    path.write_text(text)
    return path


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep's processes are this one."""

    def run_sweep(out: Path, *, side_by_side: int, watch: object) -> None:
        runner.work(out)

    monkeypatch.setattr("timetrial.commands.sweep.run_sweep", run_sweep)


@pytest.mark.slow
@pytest.mark.usefixtures("here", "quick_compilation")
def test_a_sweep_that_was_killed_goes_on_to_the_results_that_it_would_have_had(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert cli.main(["sweep", str(spec(tmp_path)), "-o", str(tmp_path / "whole")]) == 0
    said = capsys.readouterr().out
    assert "1 optimizers x 1 problems x 2 budgets x 2 schedules = 4 configurations" in said
    assert "timetrial sweep-report" in said
    whole = (tmp_path / "whole" / "trials.csv").read_text()
    trials = list(csv.DictReader(whole.splitlines()))
    # Three points on two schedules, and of each schedule two winners once more.
    assert len(trials) == 3 * 2 + 2 * 2
    assert {trial["seed"] for trial in trials} == {"0", "1"}
    about = json.loads((tmp_path / "whole" / "sweep.json").read_text())
    assert about["problems"]["rosenbrock"]["scale"] == "log"
    assert about["problems"]["rosenbrock"]["initial"]["0"] == pytest.approx(1.5**2 + 100 * 1.25**2)

    lines = (tmp_path / "whole" / "cells" / "rosenbrock" / "sgd" / "lines.jsonl").read_text()
    open_folder(load_spec(tmp_path / "tiny.toml"), tmp_path / "cut")
    cell = Cell(tmp_path / "cut", "rosenbrock", "sgd")
    cell.folder.mkdir(parents=True)
    (cell.folder / "lines.jsonl").write_text(lines[: lines.index("\n") + 20])
    assert cli.main(["sweep", str(tmp_path / "tiny.toml"), "-o", str(tmp_path / "cut")]) == 0
    again = list(csv.DictReader((tmp_path / "cut" / "trials.csv").read_text().splitlines()))
    assert [trial["point"] for trial in again] == [trial["point"] for trial in trials]
    for before, after in zip(trials, again, strict=True):
        assert float(after["best"]) == pytest.approx(float(before["best"]), rel=1e-5)


@pytest.mark.usefixtures("quick_compilation")
def test_a_cell_that_another_process_holds_is_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sweep = load_spec(spec(tmp_path))
    open_folder(sweep, tmp_path / "out")
    cell = Cell(tmp_path / "out", "rosenbrock", "sgd")
    claim = take(cell.folder)
    assert claim is not None

    def it_finishes(seconds: float) -> None:
        assert not cell.lines()
        (cell.folder / "done").touch()

    monkeypatch.setattr(runner.time, "sleep", it_finishes)
    runner.work(tmp_path / "out")
    assert not cell.lines()
    assert runner.cells_done(sweep, tmp_path / "out") == 1
    assert runner.trials_done(sweep, tmp_path / "out") == 0


def test_a_dry_run_says_how_much_it_is_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["sweep", str(spec(tmp_path)), "-o", str(tmp_path / "out"), "--dry-run"]) == 0
    assert "at most 10 trials" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_a_worker_whose_sweep_is_gone_leaves_off(tmp_path: Path):
    sweep = load_spec(spec(tmp_path))
    open_folder(sweep, tmp_path / "out")
    runner.work(tmp_path / "out", leave=lambda: True)
    assert runner.cells_done(sweep, tmp_path / "out") == 0


@pytest.mark.slow
def test_processes_share_a_sweep_and_one_that_is_killed_is_made_up_for(tmp_path: Path):
    """The command is killed with its workers when the first program's trials are on disk; the next one goes on."""
    path, out = spec(tmp_path, SPEC.replace('["sgd"]', '["sgd", "adam", "nag"]')), tmp_path / "out"
    command = [sys.executable, "-m", "timetrial", "sweep", str(path), "-o", str(out), "--jobs", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as killed:
        assert killed.stdout is not None
        for line in killed.stdout:
            if line.startswith("1 of 3 cells"):
                os.killpg(killed.pid, signal.SIGKILL)
                break
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "3 of 3 cells, 30 trials" in done.stdout
    assert len((out / "trials.csv").read_text().splitlines()) == 31
