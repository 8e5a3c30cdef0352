"""Runs trials on the toy workload, with submissions written as text."""

import textwrap
from pathlib import Path
from typing import Any

from toys import toy_workload

from timetrial.loading import Source
from timetrial.record import RunRecord, read_record
from timetrial.ruleset import Ruleset
from timetrial.trial import Trial, run_trial

SGD = """
    import optax
    from timetrial import LogUniform, from_optax
    SEARCH_SPACE = {"learning_rate": LogUniform(1e-3, 1.0, default=0.1)}
    def make(hparams, task):
        return from_optax(optax.sgd(hparams.learning_rate, momentum=0.9))
"""

CUSTOM = """
    import jax, jax.numpy as jnp, optax, time
    from timetrial import Submission, TrainState, Batch
    SEARCH_SPACE = {}
    def gradient_step(problem, state, batch, key, rate=0.1):
        (loss, aux), grads = jax.value_and_grad(
            lambda p: problem.loss(p, state.model_state, batch, key), has_aux=True)(state.params)
        params = [p - rate * g for p, g in zip(state.params, grads)]
        return TrainState(params, aux.model_state, state.opt_state, state.step), {"loss": loss}
    def init(params, model_state, key):
        return ()
    step, hooks = gradient_step, {}
"""
"""A submission by hand; what follows may replace `init`, `step` and put hooks into `hooks`."""

MAKE = """
    def make(hparams, task):
        return Submission(init, step, **hooks)
"""


def rules(clock: str = "examples", *, budget: float = 3200, eval_every: float = 800, **changes: Any) -> Ruleset:
    """A ruleset with one trial on the toy; its target is out of reach unless `target` says otherwise."""
    target = changes.pop("target", 0.0)
    data = {
        "name": "toy-rules",
        "version": 1,
        "description": "",
        "clock": clock,
        "external": {"studies": 1, "trials": 1, "points": "default"},
        "self_tuning": {"studies": 1, "trials": 1, "budget_factor": 1.0},
        "workloads": {
            "toy": {
                "budget": budget,
                "eval_every": eval_every,
                "horizon_examples": 3200,
                "target": {"metric": "error_rate", "value": target, "better": "lower"},
            }
        },
    }
    return Ruleset.from_json({**data, **changes})


def write(folder: Path, text: str, name: str = "mine") -> Source:
    """A submission folder with this text as its submission.py."""
    path = folder / name / "submission.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(textwrap.dedent(part) for part in text.split("\0")))
    return Source(name, path)


def custom(changes: str, make: str = MAKE) -> str:
    """The submission by hand, with `changes`."""
    return "\0".join((CUSTOM, changes, make))


PICKY = custom("""
    def select(batches, state, key):
        return next(batches) if state.step % 2 else Batch(*next(batches)).take(jnp.arange(8))
    def on_eval(state, feedback):
        return state._replace(params=[p * (1 - 0.01 * feedback.metrics["valid/loss"]) for p in state.params])
    hooks = {"select": select, "on_eval": on_eval}
""")
"""A submission with hooks on the host."""
STRICT = custom("""
    def step(problem, state, batch, key):
        traced = str(jax.make_jaxpr(lambda p: problem.loss(p, state.model_state, batch, key)[0])(state.params))
        own = str(jax.make_jaxpr(lambda x: x @ x)(jnp.ones((2, 2))))
        if "Precision.HIGHEST" not in traced or "Precision" in own:
            raise ValueError(f"model: {traced}; own product: {own}")
        return gradient_step(problem, state, batch, key)
""")
"""A submission that takes a step only if the model's products, and not its own, are to be of float32."""


def run(
    folder: Path, text: str = SGD, *, ruleset: Ruleset | None = None, workload: Any = None, **options: Any
) -> RunRecord:
    """Runs one trial in this process and reads its record."""
    source = options.pop("source", None) or write(folder, text)
    place = options.pop("place", Trial(seed=0, study=0, trial=0, self_tuning=source.self_tuning))
    out = options.pop("out", None) or folder / f"out-{len(list(folder.glob('out-*')))}"
    run_trial(workload or toy_workload(), source, ruleset or rules(), place, out, workload_sha256="f" * 64, **options)
    return read_record(out / "record.jsonl")
