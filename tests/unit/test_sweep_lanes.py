"""Trials that are trained together come out as they would alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optax
import pytest
from toy_trials import SGD, rules, run
from toys import toy_workload

from timetrial.errors import UserError
from timetrial.seeds import seed
from timetrial.submission import Submission, Task, from_optax
from timetrial.sweeps.lanes import Lane, LaneTrainer, Metrics
from timetrial.sweeps.problems import PROBLEMS, load_problem
from timetrial.tuning import Hparams

pytestmark = pytest.mark.usefixtures("quick_compilation")


def make(hparams: Hparams, task: Task) -> Submission:
    return from_optax(optax.sgd(hparams.learning_rate, momentum=0.9))


def lane(rate: float, number: int = 0) -> Lane:
    return Lane({"learning_rate": rate}, lambda purpose: seed(0, "toy", number, 0, purpose))


def trainer(workload: Any = None, **options: Any) -> LaneTrainer:
    options = {"steps": 40, "evals": 2, "lanes": 3, "loop": "scan", **options}
    return LaneTrainer(workload or toy_workload(), make, ["learning_rate"], **options)


def numbers(curves: list[list[Metrics]]) -> np.ndarray:
    return np.array([[list(metrics.values()) for metrics in curve] for curve in curves])


@pytest.mark.parametrize(
    ("loop", "options"),
    [("scan", {"dropout": True}), pytest.param("python", {"batch_norm": True}, marks=pytest.mark.slow)],
)
def test_a_lane_is_the_ordinary_trial_with_its_seeds(tmp_path: Path, options: dict[str, bool], loop: str):
    workload = toy_workload(**options)
    batch = workload.default_batch_size
    record = run(tmp_path, SGD, workload=workload, ruleset=rules(budget=40 * batch, eval_every=20 * batch))
    curves = trainer(workload, loop=loop).train([lane(0.5), lane(0.1)])
    assert [line.step for line in record.evals] == [0, 20, 40]
    for line, metrics in zip(record.evals, curves[1], strict=True):
        for name in ("valid/loss", "valid/error_rate"):
            assert metrics[name] == pytest.approx(line.metrics[name], rel=1e-5)
    assert curves[0][-1] != curves[1][-1]


def test_which_trials_share_a_program_does_not_matter():
    lanes = [lane(rate, number) for rate in (0.01, 0.3) for number in (0, 1)] + [lane(0.05, 2)]
    together = numbers(trainer(lanes=8).train(lanes))
    np.testing.assert_allclose(together[::-1], numbers(trainer(lanes=2).train(lanes[::-1])), rtol=1e-5)


def test_a_trial_that_leaves_the_numbers_touches_no_other():
    three = trainer(lanes=3)
    healthy = numbers(three.train([lane(0.1, 0), lane(0.1, 1)]))
    mixed = numbers(three.train([lane(0.1, 0), lane(1e38, 2), lane(0.1, 1)]))
    assert not np.isfinite(mixed[1, -1]).all()
    np.testing.assert_allclose(mixed[[0, 2]], healthy, rtol=1e-5)


def test_steps_that_cannot_be_split_evenly_are_refused():
    with pytest.raises(UserError, match="40 steps cannot be split into 3 stretches"):
        trainer(evals=3)


def test_a_submission_with_its_own_batch_size_is_refused():
    def small(hparams: Hparams, task: Task) -> Submission:
        return from_optax(optax.sgd(hparams.learning_rate), batch_size=4)

    with pytest.raises(UserError, match="batch size"):
        LaneTrainer(toy_workload(), small, ["learning_rate"], steps=2, evals=1, lanes=1, loop="scan")


# The problems.


def minimum_of(name: str) -> Callable[[float, float], float]:
    """The functions as the literature has them (Jamil & Yang 2013)."""
    return {
        "rosenbrock": lambda x, y: 100 * (y - x * x) ** 2 + (x - 1) ** 2,
        "beale": lambda x, y: sum((c - x * (1 - y**i)) ** 2 for i, c in ((1, 1.5), (2, 2.25), (3, 2.625))),
        "branin": lambda x, y: (
            (y - 5.1 * x**2 / (4 * np.pi**2) + 5 * x / np.pi - 6) ** 2
            + 10 * (1 - 1 / (8 * np.pi)) * np.cos(x)
            + 10
            - 0.39788735772973816
        ),
    }[name]


@pytest.mark.parametrize(("name", "best"), [("rosenbrock", (1, 1)), ("beale", (3, 0.5)), ("branin", (np.pi, 2.275))])
def test_a_function_s_metric_is_its_height_over_the_minimum(name: str, best: tuple[float, float]):
    workload = load_problem(name)
    still = {"noise": np.zeros((1, 2), np.float32)}
    for uv in (best, (0.5, 1.5), (-2.0, 2.0)):
        found = workload.evaluate({"uv": np.asarray(uv, np.float32)}, {}, still)["loss"]
        assert found == pytest.approx(minimum_of(name)(*uv), rel=1e-4, abs=2e-5)
    assert minimum_of(name)(*best) == pytest.approx(0, abs=1e-9)


@pytest.mark.slow
def test_the_deep_quadratic_has_the_published_spectrum():
    """The gradient of the noise-free loss is Q θ, so the curvature along any direction is its Rayleigh quotient."""
    import jax
    import jax.numpy as jnp

    workload = load_problem("quadratic_deep")
    batch = {"x": np.zeros((1, 100), np.float32)}

    def value(theta: Any) -> Any:
        return workload.evaluate({"theta": theta}, {}, batch)["loss"]

    eigenvalues = np.sort(np.linalg.eigvalsh(np.asarray(jax.hessian(value)(jnp.ones(100)), np.float64)))
    rng = np.random.RandomState(42)
    expected = np.sort(np.concatenate([rng.uniform(0, 1, 90), rng.uniform(30, 60, 10)]))
    np.testing.assert_allclose(eigenvalues, expected, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "nats"),
    [
        ("digits_logreg", np.log(10)),
        ("digits_mlp", np.log(10)),
        ("digits_vae", 64 * np.log(2)),
        ("char_rnn", np.log(20)),
    ],
)
def test_a_model_whose_weights_are_all_zero_knows_nothing(name: str, nats: float):
    """Ten digits, 64 pixels at even odds with latents as the prior has them, 20 symbols: all equally likely."""
    import jax

    workload = load_problem(name)
    params = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, np.float32), jax.eval_shape(workload.init, jax.random.key(0))[0]
    )
    sums = workload.evaluate(params, {}, {field: array[:8] for field, array in workload.split("valid").items()})
    assert float(sums["loss"] / sums["terms"]) == pytest.approx(nats, rel=1e-5)


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_splits_of_a_problem_share_no_row(name: str):
    workload = load_problem(name)
    rows = {s: {row.tobytes() for row in next(iter(workload.split(s).values()))} for s in ("train", "valid", "test")}
    assert not rows["train"] & rows["valid"]
    assert not rows["train"] & rows["test"]
    assert workload.loss_type == "function_value" or len(rows["valid"] & rows["test"]) == 0


def test_an_unknown_problem_is_named_with_the_nearest():
    with pytest.raises(UserError, match=r"rosenbrok.*did you mean 'rosenbrock'"):
        load_problem("rosenbrok")
