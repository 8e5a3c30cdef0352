"""An interrupted trial goes on from its checkpoint to the bits that an undisturbed one comes to."""

import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toy_trials import SGD, custom, rules, write
from toys import toy_workload

from timetrial import machine
from timetrial.checkpoint import FOLDER, Checkpoint, Checkpoints, to_host
from timetrial.keeper import EVALUATED_FOLDER
from timetrial.record import ReplayError, RunRecord, read_record
from timetrial.ruleset import Ruleset
from timetrial.trial import Trial, run_trial

pytestmark = pytest.mark.usefixtures("keep_programs", "quick_compilation")

WITH_STATE_EVERYWHERE = custom("""
    def init(params, model_state, key):
        return {"key": jax.random.key(3), "average": params, "nothing": jnp.zeros((0, 2)), "evals": jnp.zeros(())}
    def step(problem, state, batch, key):
        state, report = gradient_step(problem, state, batch, key, rate=0.05)
        key, own = jax.random.split(state.opt_state["key"])
        params = [p + 1e-3 * jax.random.normal(own, p.shape) for p in state.params]
        average = [0.9 * a + 0.1 * p for a, p in zip(state.opt_state["average"], params)]
        return state._replace(params=params, opt_state={**state.opt_state, "key": key, "average": average}), report
    def eval_params(problem, state, batch, key):
        loss, aux = problem.loss(state.opt_state["average"], state.model_state, batch, key)
        return state.opt_state["average"], aux.model_state
    def on_eval(state, feedback):
        return state._replace(opt_state={**state.opt_state, "evals": state.opt_state["evals"] + 1})
    def select(batches, state, key):
        first, second = next(batches), next(batches)
        return first.take(jax.random.permutation(key, first.size)[:8])
    hooks = dict(eval_params=eval_params, on_eval=on_eval, select=select)
""")
"""Keys, empty arrays, averages, and every hook, host-side data selection included."""


class Ticks:
    """Seconds that pass because somebody looks at the clock, so that a trial leaves at a step of our choice."""

    def __init__(self) -> None:
        self._looks = itertools.count()

    def __call__(self) -> float:
        return 0.3 * next(self._looks)


def leave_after(asked: int) -> Callable[[], bool]:
    """Says yes from its `asked`-th call on."""
    calls = itertools.count(1)
    return lambda: next(calls) >= asked


def attempt(out: Path, text: str, *, ruleset: Ruleset | None = None, workload: Any = None, **options: Any) -> RunRecord:
    source = write(out.parent, text)
    run_trial(
        workload or toy_workload(batch_norm=True, dropout=True),
        source,
        ruleset or rules(budget=1600, eval_every=320),
        Trial(seed=0, study=0, trial=0, self_tuning=source.self_tuning),
        out,
        workload_sha256="f" * 64,
        now=Ticks(),
        **options,
    )
    return read_record(out / "record.jsonl")


def bits(record: RunRecord) -> Any:
    """All that may not depend on the interruption."""
    assert record.end is not None
    evals = [(line.step, line.examples, line.metrics) for line in record.evals]
    return evals, record.end.status, record.end.step, record.end.examples, record.end.crossing


@pytest.mark.parametrize("text", [SGD, WITH_STATE_EVERYWHERE], ids=["optax", "every hook"])
@pytest.mark.parametrize("asked", [2, 17, 40])
def test_a_trial_that_is_stopped_anywhere_goes_on_to_the_same_bits(tmp_path: Path, text: str, asked: int):
    whole = attempt(tmp_path / "whole", text)
    stopped = attempt(tmp_path / "parts", text, leave=leave_after(asked))
    assert stopped.end is not None
    assert stopped.end.status == "interrupted"
    assert 0 < stopped.end.step < 100
    resumed = attempt(tmp_path / "parts", text)
    assert bits(resumed) == bits(whole)
    (line,) = resumed.resumes
    assert (line.step, line.examples) == (stopped.end.step, stopped.end.examples)
    assert not (tmp_path / "parts" / FOLDER).exists()


def test_a_trial_that_dies_between_checkpoints_replays_its_evals_and_writes_none_twice(tmp_path: Path):
    whole = attempt(tmp_path / "whole", SGD)
    attempt(tmp_path / "parts", SGD, leave=leave_after(20))
    kept = tmp_path / "kept"
    shutil.copytree(tmp_path / "parts" / FOLDER, kept)
    attempt(tmp_path / "parts", SGD, leave=leave_after(50))
    shutil.rmtree(tmp_path / "parts" / FOLDER)
    shutil.copytree(kept, tmp_path / "parts" / FOLDER)  # as if it had been killed after its evals, before a checkpoint
    torn = (tmp_path / "parts" / "record.jsonl").read_bytes()[:-30]
    (tmp_path / "parts" / "record.jsonl").write_bytes(torn)
    resumed = attempt(tmp_path / "parts", SGD)
    assert bits(resumed) == bits(whole)
    assert len(resumed.resumes) == 2


def test_a_trial_without_a_checkpoint_begins_again_and_replays(tmp_path: Path):
    whole = attempt(tmp_path / "whole", SGD)
    attempt(tmp_path / "parts", SGD, leave=leave_after(50))
    shutil.rmtree(tmp_path / "parts" / FOLDER)
    assert bits(attempt(tmp_path / "parts", SGD)) == bits(whole)


def test_checkpoints_are_made_as_time_passes_and_only_the_newest_two_are_kept(tmp_path: Path):
    stopped = attempt(tmp_path / "out", SGD, leave=leave_after(60), checkpoint_seconds=3.0)
    assert stopped.end is not None
    assert stopped.end.checkpoint_seconds > 0
    steps = sorted(int(path.name) for path in (tmp_path / "out" / FOLDER).iterdir() if path.name.isdigit())
    assert len(steps) == 2
    assert steps[-1] == stopped.end.step


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_torn_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path, damage: str):
    whole = attempt(tmp_path / "whole", SGD)
    attempt(tmp_path / "parts", SGD, leave=leave_after(60), checkpoint_seconds=3.0)
    folder = tmp_path / "parts" / FOLDER
    older, newer = sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())
    for path in sorted((folder / str(newer) / "arrays").rglob("*")):
        if path.is_file() and damage == "cut":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        elif path.is_file() and damage == "flipped":
            path.write_bytes(bytes(byte ^ 1 for byte in path.read_bytes()))
        elif path.is_file():
            path.unlink()
    resumed = attempt(tmp_path / "parts", SGD)
    assert resumed.resumes[-1].step == older
    assert bits(resumed) == bits(whole)


def test_charged_time_returns_to_the_checkpoint_and_what_was_lost_is_recorded(tmp_path: Path):
    stopped = attempt(tmp_path / "out", SGD, leave=leave_after(50))
    resumed = attempt(tmp_path / "out", SGD)
    assert stopped.end is not None
    assert resumed.end is not None
    (line,) = resumed.resumes
    assert line.seconds <= stopped.end.seconds
    after = next(e for e in resumed.evals if e.step > line.step)
    assert after.seconds >= line.seconds
    assert resumed.end.repeated_seconds > 0


def test_a_record_of_another_machine_is_set_aside_and_the_trial_begins_again(tmp_path: Path, monkeypatch: Any):
    whole = attempt(tmp_path / "whole", SGD)
    attempt(tmp_path / "out", SGD, leave=leave_after(50))
    here = machine.hardware()
    monkeypatch.setattr(machine, "hardware", lambda: {**here, "processor": "another"})
    anew = attempt(tmp_path / "out", SGD)
    assert bits(anew) == bits(whole)
    assert anew.resumes == ()
    assert (tmp_path / "out" / "record.interrupted-1.jsonl").is_file()


def test_a_trial_goes_on_on_another_machine_of_the_same_kind(tmp_path: Path, monkeypatch: Any):
    whole = attempt(tmp_path / "whole", SGD)
    attempt(tmp_path / "out", SGD, leave=leave_after(50))
    here = machine.hardware()
    monkeypatch.setattr(machine, "hardware", lambda: {**here, "system": "Linux, a little newer"})
    resumed = attempt(tmp_path / "out", SGD)
    assert bits(resumed) == bits(whole)
    assert len(resumed.resumes) == 1


def test_under_the_seconds_clock_an_interrupted_trial_begins_again(tmp_path: Path):
    seconds = rules("seconds", budget=40.0, eval_every=10.0)
    attempt(tmp_path / "out", SGD, ruleset=seconds, leave=leave_after(20))
    anew = attempt(tmp_path / "out", SGD, ruleset=seconds)
    assert anew.resumes == ()
    assert (tmp_path / "out" / "record.interrupted-1.jsonl").is_file()


def test_evals_that_come_out_differently_end_the_resumption_and_the_next_attempt_begins_again(tmp_path: Path):
    whole = attempt(tmp_path / "whole", SGD)
    attempt(tmp_path / "out", SGD, leave=leave_after(50))
    shutil.rmtree(tmp_path / "out" / FOLDER)
    path = tmp_path / "out" / "record.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    number = [json.loads(line)["kind"] for line in lines].index("eval") + 1
    assert json.loads(lines[number])["kind"] == "eval"
    forged = json.loads(lines[number])
    forged["metrics"]["valid/loss"] += 1e-6
    path.write_text("".join([*lines[:number], json.dumps(forged) + "\n", *lines[number + 1 :]]))
    with pytest.raises(ReplayError, match="came out differently"):
        attempt(tmp_path / "out", SGD)
    path.write_text("".join(lines))
    assert bits(attempt(tmp_path / "out", SGD)) == bits(whole)


def test_a_result_is_never_run_again(tmp_path: Path):
    attempt(tmp_path / "out", SGD)
    with pytest.raises(FileExistsError):
        attempt(tmp_path / "out", SGD)


def test_what_was_evaluated_at_the_end_is_kept(tmp_path: Path):
    record = attempt(tmp_path / "out", SGD, ruleset=rules(budget=320, eval_every=160))
    assert record.end is not None
    workload = toy_workload(batch_norm=True, dropout=True)
    import jax

    like = to_host(jax.eval_shape(workload.init, jax.random.key(0)) and workload.init(jax.random.key(0)))
    kept = Checkpoints(tmp_path / "out" / EVALUATED_FOLDER)
    found = kept.newest(like)
    assert isinstance(found, Checkpoint)
    assert found.numbers == {"step": record.end.step}
    kept.close()


def test_a_checkpoint_of_other_arrays_is_as_good_as_none(tmp_path: Path):
    import numpy as np

    checkpoints = Checkpoints(tmp_path / "some")
    saved = Checkpoint([np.arange(3.0), np.zeros((0, 4), np.float32)], {"step": 1})
    checkpoints.save(1, saved)
    found = checkpoints.newest(saved.arrays)
    assert found is not None
    assert [array.tolist() for array in found.arrays] == [[0.0, 1.0, 2.0], []]
    assert checkpoints.newest([np.arange(4.0), saved.arrays[1]]) is None
    assert checkpoints.newest([*saved.arrays, np.ones(1)]) is None
    checkpoints.save(1, replace(saved, numbers={"step": 2}))
    again = checkpoints.newest(saved.arrays)
    assert again is not None
    assert again.numbers == {"step": 2}
    checkpoints.close()


def test_a_checkpoint_of_a_step_before_the_newest_takes_the_place_of_the_old_one(tmp_path: Path):
    import numpy as np

    def saved(value: float) -> Checkpoint:
        return Checkpoint([np.full(3, value)], {"value": value})

    checkpoints = Checkpoints(tmp_path / "some")
    for step, value in ((5, 1.0), (9, 2.0), (5, 3.0)):
        checkpoints.save(step, saved(value))
    checkpoints.close()
    reader = Checkpoints(tmp_path / "some", read_only=True)
    found = [reader.at(step, saved(0.0).arrays) for step in (5, 9, 7)]
    assert [None if one is None else one.numbers["value"] for one in found] == [3.0, 2.0, None]
    reader.close()
