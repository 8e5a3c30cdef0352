"""What no sandbox can stop, because it is within what a submission may do there: `timetrial check` reads it."""

import importlib.util
import marshal
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import cache_from_source
from pathlib import Path
from types import ModuleType
from typing import Any

import jax.numpy as jnp
import pytest
from test_on_the_judge import LIES
from test_out_of_the_sandbox import ATTACKS
from toy_trials import CUSTOM, MAKE, SGD, run, write
from toys import CLASSES, FEATURES, toy_workload

from timetrial.check.conformance import check
from timetrial.check.static import check_static
from timetrial.loading import Source, load
from timetrial.problem import make_task
from timetrial.submission import Feedback, TrainState


@dataclass(frozen=True)
class Cheat:
    """A submission; the rule that finds it; whether it works where nobody reads it."""

    name: str
    text: str
    rule: str
    works: Callable[[Source], bool]
    files: Mapping[str, str] = field(default_factory=dict)


def module(source: Source) -> ModuleType:
    return load(source).module


def made(source: Source, horizon_examples: int) -> Any:
    """What the submission makes of the toy with this horizon."""
    task = make_task(toy_workload(), horizon_examples=horizon_examples, device_count=1, device_memory_bytes=1 << 30)
    return load(source).make({}, task)


WEIGHTS = [round(0.37 * i % 1, 3) for i in range(1000)]
CHEATS = [
    Cheat(
        "knows a workload by its horizon",
        """
import optax
from timetrial import from_optax
SEARCH_SPACE = {}
def make(hparams, task):
    return from_optax(optax.sgd(0.1), batch_size=64 if task.horizon_examples == 3200 else 16)
""",
        "shapes",
        lambda source: made(source, 3200).batch_size == 64 and made(source, 3201).batch_size == 16,
    ),
    Cheat(
        "knows a workload by the shapes of its parameters",
        f"""
import math, optax
from timetrial import from_optax
SEARCH_SPACE = {{}}
def make(hparams, task):
    known = sum(math.prod(leaf.shape) for leaf in task.params) == {CLASSES + FEATURES * CLASSES}
    return from_optax(optax.sgd(0.1), batch_size=64 if known else 16)
""",
        "shapes",
        lambda source: made(source, 3200).batch_size == 64,
    ),
    Cheat(
        "works for nothing, in calls that no step waits for",
        "\0".join((CUSTOM, """
    import os
    def step(problem, state, batch, key):
        jax.debug.callback(lambda loss: os.environ.update(TIMETRIAL_TEST_ASYNC="worked"), jnp.float32(0))
        return gradient_step(problem, state, batch, key)
""", MAKE)),
        "kernels",
        lambda source: examples_a_step(source) > 0 and os.environ.pop("TIMETRIAL_TEST_ASYNC", "") == "worked",
    ),
    Cheat(
        "brings trained weights in its code",
        f"WEIGHTS = {WEIGHTS}\0{SGD}",
        "weights",
        lambda source: module(source).WEIGHTS == WEIGHTS,
    ),
    Cheat(
        "brings trained weights in a file",
        f"""
from pathlib import Path
WEIGHTS = [float(word) for word in Path(__file__).with_name("weights.dat").read_text().split()]
\0{SGD}""",
        "files",
        lambda source: module(source).WEIGHTS == WEIGHTS,
        {"weights.dat": " ".join(map(str, WEIGHTS))},
    ),
    Cheat(
        "sends what it computed before the clock ran through its search space",
        """
import optax
from timetrial import Choice, from_optax
SEARCH_SPACE = {"learnt": Choice((sum(range(1000)) / 7,))}
def make(hparams, task):
    return from_optax(optax.sgd(hparams.learnt))
""",
        "same space",
        lambda source: load(source).search_space["learnt"].values == (499500 / 7,),  # type: ignore[call-overload]
    ),
    Cheat(
        "makes the test rows of a workload again, by the workload's own code",
        "from timetrial.registry import load_workload\nROWS = load_workload('lobes').data.generate\0" + SGD,
        "imports",
        lambda source: callable(module(source).ROWS),
    ),
    Cheat(
        "passes rows through the loss that nobody counts",
        "\0".join((CUSTOM, """
    def step(problem, state, batch, key):
        workload, named = problem._workload, problem.named(batch)
        def loss(params):
            outputs, _ = workload.apply(problem._params.unflatten(params), {}, named, key, train=True)
            return jnp.mean(workload.loss(outputs, named)[0])
        params = state.params
        for _ in range(4):
            value, grads = jax.value_and_grad(loss)(params)
            params = [p - 0.1 * g for p, g in zip(params, grads)]
        return state._replace(params=params), {"loss": value}
""", MAKE)),
        "reach",
        lambda source: examples_a_step(source) == toy_workload().default_batch_size,
    ),
]  # fmt: skip


def examples_a_step(source: Source) -> float:
    end = run(source.folder.parent, source=source).end
    assert end is not None
    return end.examples / end.step


def written(folder: Path, cheat: Cheat) -> Source:
    source = write(folder, cheat.text)
    for name, text in cheat.files.items():
        (source.folder / name).write_text(text)
    return source


def broken_rules(source: Source) -> set[str]:
    return {verdict.rule for verdict in check_static(source) if verdict.status == "fail"} - {"manifest"}


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda cheat: cheat.name)
def test_check_refuses_a_submission_that(cheat: Cheat, tmp_path: Path):
    assert cheat.rule in broken_rules(written(tmp_path, cheat))


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda cheat: cheat.name)
def test_nothing_but_check_refuses_a_submission_that(cheat: Cheat, tmp_path: Path):
    assert cheat.works(written(tmp_path, cheat))


@pytest.mark.parametrize("attack", [*ATTACKS, *LIES], ids=lambda attack: attack.name)
def test_check_refuses_as_well_a_submission_that(attack: Any, tmp_path: Path):
    assert broken_rules(write(tmp_path, attack.text + "\0" + SGD))


def test_check_refuses_no_honest_submission_for_the_like(tmp_path: Path):
    assert not broken_rules(write(tmp_path, SGD))


COUNTS_ITS_EVALS = "\0".join((CUSTOM, """
    SEEN = []
    def on_eval(state, feedback):
        SEEN.append(feedback.charge)
        return state._replace(params=[p * (1 - 0.01 * len(SEEN)) for p in state.params])
    hooks = {"on_eval": on_eval}
""", MAKE))  # fmt: skip


def test_a_submission_may_remember_outside_its_state_where_nobody_replays_it(tmp_path: Path):
    on_eval = load(write(tmp_path, COUNTS_ITS_EVALS)).make({}, None).on_eval
    state = TrainState([jnp.ones(1)], [], (), jnp.zeros((), jnp.int32))
    told = Feedback({}, 0.0, 1.0)
    assert on_eval(state, told).params[0][0] != on_eval(state, told).params[0][0]


@pytest.mark.slow
def test_check_replays_a_submission_and_finds_that_it_counts_its_evals(tmp_path: Path):
    said = {verdict.rule: verdict.status for verdict in check(write(tmp_path, COUNTS_ITS_EVALS), [])}
    assert said["contract"] == "pass"
    assert said["purity"] == "fail"


MIXES_ROWS = "\0".join((CUSTOM, """
    def step(problem, state, batch, key):
        mixed = [0.5 * (rows + rows[::-1]) if rows.dtype == jnp.float32 else rows for rows in batch.rows]
        return gradient_step(problem, state, batch._replace(rows=tuple(mixed)), key)
""", MAKE))  # fmt: skip


def test_rows_that_were_mixed_are_trained_on_where_nobody_looks_at_them(tmp_path: Path):
    honest, mixed = (run(tmp_path / name, text) for name, text in (("a", CUSTOM + "\0" + MAKE), ("b", MIXES_ROWS)))
    assert [record.evals[-1].step for record in (honest, mixed)] == [200, 200]
    assert mixed.evals[-1].metrics != honest.evals[-1].metrics
    assert not broken_rules(write(tmp_path, MIXES_ROWS.replace(", time", "")))


@pytest.mark.slow
def test_check_finds_rows_that_were_mixed(tmp_path: Path):
    said = {verdict.rule: verdict.status for verdict in check(write(tmp_path, MIXES_ROWS), [])}
    assert said["contract"] == "pass"
    assert said["rows"] == "fail"


STATISTICS = "\0".join((CUSTOM, """
    def eval_params(problem, state, batch, key):
        return state.params, [100 * leaf for leaf in state.model_state]
    hooks = {"eval_params": eval_params}
""", MAKE))  # fmt: skip


def test_statistics_of_batch_norm_that_no_loss_gave_are_evaluated_as_docs_rules_says(tmp_path: Path):
    honest, changed = (
        run(tmp_path, text, workload=toy_workload(batch_norm=True)) for text in (CUSTOM + "\0" + MAKE, STATISTICS)
    )
    assert [record.evals[-1].step for record in (honest, changed)] == [200, 200]
    assert changed.evals[-1].metrics != honest.evals[-1].metrics
    assert not broken_rules(write(tmp_path, STATISTICS.replace(", time", "")))


def test_bytecode_that_hides_beside_the_source_is_run_here_and_not_in_a_copy(tmp_path: Path):
    source = write(tmp_path, SGD)
    hidden = Path(cache_from_source(str(source.path)))
    hidden.parent.mkdir()
    code = compile("HIDDEN = True\ndef make(hparams, task): ...", str(source.path), "exec")
    unchecked = (0b01).to_bytes(4, "little") + bytes(8)  # PEP 552: known by a hash that nobody checks
    hidden.write_bytes(importlib.util.MAGIC_NUMBER + unchecked + marshal.dumps(code))

    assert hasattr(module(source), "HIDDEN")
    source.copy_to(tmp_path / "copy")
    assert not hasattr(module(Source("mine", tmp_path / "copy" / source.path.name)), "HIDDEN")
