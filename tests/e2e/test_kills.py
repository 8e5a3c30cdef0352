"""Kill -9 at any moment, and the campaign goes on to the records that an undisturbed one leaves."""

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import algoperf_toys
import pytest
from toy_trials import SGD, custom, rules, write

from timetrial.campaign import Campaign, open_folder
from timetrial.checkpoint import FOLDER
from timetrial.launchers.local import run_campaign
from timetrial.record import read_record

SUPPORT = Path(__file__).parents[1] / "support"
WORKER = (sys.executable, str(SUPPORT / "toy_worker.py"))
AVERAGED = custom("""
    def init(params, model_state, key):
        return {"average": params, "key": key}
    def step(problem, state, batch, key):
        state, report = gradient_step(problem, state, batch, key, rate=0.05)
        average = [0.9 * a + 0.1 * p for a, p in zip(state.opt_state["average"], state.params)]
        return state._replace(opt_state={**state.opt_state, "average": average}), report
    def eval_params(problem, state, batch, key):
        loss, aux = problem.loss(state.opt_state["average"], state.model_state, batch, key)
        return state.opt_state["average"], aux.model_state
    def select(batches, state, key):
        return next(batches)
    hooks = dict(eval_params=eval_params, select=select)
""")
PREPARE_FOR_EVAL = """
    def prepare_for_eval(workload, current_param_container, current_params_types, model_state, hyperparameters,
                         loss_type, optimizer_state, eval_results, global_step, rng):
        trace, update = optimizer_state
        smaller = 0.5 if eval_results and eval_results[-1][1]["validation/loss"] < 1.0 else 0.9
        return (jax.tree.map(lambda t: smaller * t, trace), update), current_param_container, model_state
"""
"""What it does after an eval depends on the evals before: a lost or doubled one would show."""
SUBMISSIONS = {
    "optax": lambda folder: write(folder, SGD),
    "averaged": lambda folder: write(folder, AVERAGED),
    "algoperf": lambda folder: algoperf_toys.write(folder, algoperf_toys.JIT + PREPARE_FOR_EVAL, name="mine"),
}
BOARD = {"studies": 1, "trials": 1, "points": "default"}


class Killer:
    """Kills the worker of the running trial when it has reported for the n-th time; n differs between attempts.

    The first kill waits until there is something to go on from: a finished checkpoint below `out`.
    """

    def __init__(self, moments: list[int], out: Path = Path()) -> None:
        self._moments = moments
        self._out = out
        self._seen = 0
        self.kills = 0

    def began(self, job, number, total) -> None:
        del job, number, total
        self._seen = 0

    def progressed(self, job, progress) -> None:
        del job, progress
        self._seen += 1
        if self._moments and self._seen >= self._moments[0] and (self.kills or self._has_checkpoint()):
            self._moments.pop(0)
            self._seen = 0
            self.kills += 1
            for pid in children():
                os.kill(pid, signal.SIGKILL)

    def _has_checkpoint(self) -> bool:
        return any(path.name.isdigit() for path in self._out.rglob(f"{FOLDER}/*"))

    def noted(self, job, text) -> None: ...

    def ended(self, job, end) -> None: ...


def children() -> list[int]:
    """The worker processes of this one."""
    listed = subprocess.run(("pgrep", "-P", str(os.getpid()), "-f", "toy_worker"), capture_output=True, text=True)
    return [int(pid) for pid in listed.stdout.split()]


def run(folder: Path, submission: str, killer: Killer, *, retries: int, evals: int = 10) -> Path:
    ruleset = rules(budget=32_000 * evals, eval_every=32_000, external=BOARD, self_tuning=BOARD)
    source = SUBMISSIONS[submission](folder)
    campaign = Campaign(out=folder / "out", ruleset=ruleset, sources=(source,), seed=5, checkpoint_seconds=0.1)
    open_folder(campaign, resume=False)
    run_campaign(campaign, killer, retries=retries, worker=WORKER)
    return folder / "out" / source.name / "toy" / "study_0" / "trial_0" / "record.jsonl"


def bits(path: Path):
    record = read_record(path)
    assert record.end is not None
    evals = [(line.step, line.examples, line.metrics) for line in record.evals]
    return evals, record.end.status, record.end.step, record.end.examples


@pytest.mark.parametrize(
    ("name", "kills"),
    [
        ("averaged", 2),
        ("algoperf", 1),
        *(pytest.param(name, 17, marks=pytest.mark.slow) for name in SUBMISSIONS),
    ],
)
def test_a_trial_killed_again_and_again_leaves_the_record_of_an_undisturbed_one(tmp_path, name, kills):
    moments = [random.Random(f"{name} {i}").randint(2, 4) for i in range(kills)]
    evals = sum(moments) + 4  # each attempt reports its evals at least, so all kills come before the end
    undisturbed = run(tmp_path / "calm", name, Killer([]), retries=0, evals=evals)
    killer = Killer(moments, tmp_path / "rough")
    disturbed = run(tmp_path / "rough", name, killer, retries=kills, evals=evals)
    assert killer.kills == kills
    assert bits(disturbed) == bits(undisturbed)
    assert 1 <= len(read_record(disturbed).resumes) <= kills


def test_a_campaign_that_is_killed_whole_goes_on(tmp_path):
    calm = run(tmp_path / "calm", "optax", Killer([]), retries=0)
    path = tmp_path / "rough"
    code = f"""
import sys
sys.path[:0] = [{str(SUPPORT)!r}, {str(Path(__file__).parent)!r}]
import test_kills
from pathlib import Path
class Tell(test_kills.Killer):
    def progressed(self, job, progress):
        print(progress["step"], flush=True)
test_kills.run(Path({str(path)!r}), "optax", Tell([]), retries=0)
"""
    whole = subprocess.Popen((sys.executable, "-c", code), stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert whole.stdout is not None
    for line in whole.stdout:
        if int(line) > 8_000:
            break
    orphans = subprocess.run(("pgrep", "-P", str(whole.pid)), capture_output=True, text=True).stdout.split()
    whole.kill()
    whole.wait()
    for pid in map(int, orphans):  # a lost machine takes the worker with it
        os.kill(pid, signal.SIGKILL)
    whole.stdout.close()
    record = path / "out" / "mine" / "toy" / "study_0" / "trial_0" / "record.jsonl"
    claim = record.with_name("claim.json")
    os.utime(claim, (0, 0))  # as it would be a minute later
    ruleset = rules(budget=320_000, eval_every=32_000, external=BOARD, self_tuning=BOARD)
    campaign = Campaign(out=path / "out", ruleset=ruleset, sources=(write(path, SGD),), seed=5, checkpoint_seconds=0.1)
    open_folder(campaign, resume=True)
    run_campaign(campaign, Killer([]), worker=WORKER)
    assert bits(record) == bits(calm)
    assert threading.active_count() < 10
