"""The study's optimizers do what their papers say, at the rates of the study's schedules."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from timetrial.submission import LossAux, TrainState
from timetrial.sweeps.optimizers import OPTIMIZERS, SCHEDULE, Optimizer, scheduled
from timetrial.sweeps.rules import lookahead
from timetrial.sweeps.schedules import SCHEDULES, factor
from timetrial.tuning import Hparams, Point, check_search_space, default_point, traced_names

pytestmark = pytest.mark.usefixtures("quick_compilation")
STEPS = 14
START = np.array([0.3, -1.2, 2.0])
GRADS = np.random.RandomState(0).standard_normal((STEPS, 3)) * np.array([1.0, 0.1, 30.0])
H = Mapping[str, float]
Move = Iterator[np.ndarray]


def factors() -> np.ndarray:
    """Of the cosine schedule."""
    return (1 + np.cos(np.pi * np.arange(STEPS) / STEPS)) / 2


# The recursions, in float64, from the papers: each yields the step from one iterate to the next, before the schedule.


def sgd(h: H, grads: np.ndarray) -> Move:
    for g in grads:
        yield -h["learning_rate"] * g


def momentum(h: H, grads: np.ndarray, *, nesterov: bool = False) -> Move:
    v = np.zeros(3)
    for g in grads:
        v = h["momentum"] * v + g
        yield -h["learning_rate"] * (g + h["momentum"] * v if nesterov else v)


def adagrad(h: H, grads: np.ndarray) -> Move:
    total = np.full(3, 0.1)
    for g in grads:
        total = total + g**2
        yield -h["learning_rate"] * g / np.sqrt(total + 1e-7)


def rmsprop(h: H, grads: np.ndarray) -> Move:
    v = np.zeros(3)
    for g in grads:
        v = h["decay"] * v + (1 - h["decay"]) * g**2
        yield -h["learning_rate"] * g / np.sqrt(v + 1e-10)


def adadelta(h: H, grads: np.ndarray) -> Move:
    of_g, of_x, rho = np.zeros(3), np.zeros(3), h["rho"]
    for g in grads:
        of_g = rho * of_g + (1 - rho) * g**2
        x = np.sqrt(of_x + 1e-8) / np.sqrt(of_g + 1e-8) * g
        of_x = rho * of_x + (1 - rho) * x**2
        yield -h["learning_rate"] * x


def adam(h: H, grads: np.ndarray, *, kind: str = "adam") -> Move:
    eps = {"adam": 1e-8, "amsgrad": 1e-8, "nadam": 1e-7, "radam": 1e-7, "adabelief": 1e-14}[kind]
    m, v, most, b1, b2 = np.zeros(3), np.zeros(3), np.zeros(3), h["b1"], h["b2"]
    longest = 2 / (1 - b2) - 1
    for t, g in enumerate(grads, start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * ((g - m) ** 2 if kind == "adabelief" else g**2) + (eps if kind == "adabelief" else 0)
        mean, square = m / (1 - b1**t), v / (1 - b2**t)
        most = np.maximum(most, square)
        if kind == "nadam":
            mean = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        step = mean / (np.sqrt(most if kind == "amsgrad" else square) + eps)
        if kind == "radam":
            length = longest - 2 * t * b2**t / (1 - b2**t)
            if length < 5:
                step = mean
            else:
                step = step * math.sqrt(
                    (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
                )
        yield -h["learning_rate"] * step


def bounded(h: H, grads: np.ndarray, *, amsgrad: bool) -> Move:
    m, v, most = np.zeros(3), np.zeros(3), np.zeros(3)
    for t, g in enumerate(grads, start=1):
        m = h["b1"] * m + (1 - h["b1"]) * g
        v = h["b2"] * v + (1 - h["b2"]) * g**2
        most = np.maximum(most, v)
        rate = h["learning_rate"] * math.sqrt(1 - h["b2"] ** t) / (1 - h["b1"] ** t)
        low = h["final_rate"] * (1 - 1 / (h["gamma"] * t + 1))
        high = h["final_rate"] * (1 + 1 / (h["gamma"] * t))
        yield -np.clip(rate / (np.sqrt(most if amsgrad else v) + 1e-8), low, high) * m


def plain(move: Callable[..., Move], **options: Any) -> Callable[[H], np.ndarray]:
    def run(h: H) -> np.ndarray:
        return START + sum(f * u for f, u in zip(factors(), move(h, GRADS, **options), strict=True))

    return run


def looking_ahead(move: Callable[..., Move], **options: Any) -> Callable[[H], np.ndarray]:
    def run(h: H) -> np.ndarray:
        slow = fast = START
        for t, (f, u) in enumerate(zip(factors(), move(h, GRADS, **options), strict=True), start=1):
            fast = fast + f * u
            if t % h["period"] == 0:
                slow = fast = slow + h["slow_rate"] * (fast - slow)
        return fast

    return run


RECURSIONS: Mapping[str, Callable[[H], np.ndarray]] = {
    "amsbound": plain(bounded, amsgrad=True),
    "amsgrad": plain(adam, kind="amsgrad"),
    "adabelief": plain(adam, kind="adabelief"),
    "adabound": plain(bounded, amsgrad=False),
    "adadelta": plain(adadelta),
    "adagrad": plain(adagrad),
    "adam": plain(adam),
    "lookahead_momentum": looking_ahead(momentum),
    "lookahead_radam": looking_ahead(adam, kind="radam"),
    "momentum": plain(momentum),
    "nag": plain(momentum, nesterov=True),
    "nadam": plain(adam, kind="nadam"),
    "radam": plain(adam, kind="radam"),
    "rmsprop": plain(rmsprop),
    "sgd": plain(sgd),
}


class Linear:
    """A problem whose gradient at step t is row t of GRADS: the loss is g_t' θ, with t as the batch."""

    def loss(self, params: Any, model_state: Any, batch: Any, key: Any, **_: Any) -> tuple[Any, Any]:
        return batch @ params[0], LossAux(model_state, batch, batch)


def trained(optimizer: Optimizer, points: Sequence[Point]) -> list[np.ndarray]:
    """Where each point leads on the cosine schedule: one program for all of them."""
    start, key = jnp.asarray(START, jnp.float32), jax.random.key(0)

    def run(hparams: Mapping[str, Any]) -> Any:
        submission: Any = scheduled(optimizer, STEPS)(Hparams(hparams), None)  # type: ignore[arg-type]
        state = TrainState([start], [], submission.init([start], [], key), jnp.int32(0))
        grads = jnp.asarray(GRADS, jnp.float32)
        return jax.lax.scan(lambda s, g: (submission.step(Linear(), s, g, key)[0], None), state, grads)[0].params[0]

    program, schedule = jax.jit(run), list(SCHEDULES).index("cosine")
    return [np.asarray(program({**point, SCHEDULE: schedule})) for point in points]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_of_the_study_follows_its_paper_s_recursion(name: str):
    space = OPTIMIZERS[name].space
    points = [{**default_point(space)}, {key: d.at(0.4) for key, d in space.items()}]
    for point in points:
        if "period" in point:
            point["period"] = 3
    for point, found in zip(points, trained(OPTIMIZERS[name], points), strict=True):
        expected = RECURSIONS[name](point)  # type: ignore[arg-type]
        np.testing.assert_allclose(found - START, expected - START, rtol=2e-4, atol=2e-6)


def test_the_study_has_fifteen_optimizers_whose_every_hyperparameter_is_traced():
    assert len(OPTIMIZERS) == len(RECURSIONS) == 15
    for optimizer in OPTIMIZERS.values():
        space = check_search_space(optimizer.space)
        assert traced_names(space) == frozenset(space)


def test_lookahead_s_fast_weights_go_on_from_the_slow_ones():
    """By hand, on θ' = θ - 1: two fast steps to 8, then half way back to 10."""
    tx = lookahead(optax.sgd(1.0), period=2, slow_rate=0.5)
    theta: Any = np.float32(10.0)
    state, seen = tx.init(theta), list[float]()
    for _ in range(4):
        updates, state = tx.update(jnp.float32(1.0), state, theta)
        theta = optax.apply_updates(theta, updates)
        seen.append(float(theta))
    assert seen == [9.0, 9.0, 8.0, 8.0]


def published(name: str, epochs: int) -> dict[int, float]:
    """Some of the factors in the study's result files of 100 epochs; key e is that of the epoch after the first e."""
    return {
        "constant": {1: 1.0, 50: 1.0, 99: 1.0},
        "cosine": {50: 0.5, 25: 0.8535533905932737, 75: 0.14644660940672627},
        "cosine_restarts": {
            1: 0.9755282581475768,
            5: 0.5,
            9: 0.024471741852423234,
            10: 1.0,
            20: 0.5,
            29: 0.00615582970243117,
            30: 1.0,
            50: 0.5,
            69: 0.001541333133436018,
            70: 1.0,
            99: 0.7093298687687141,
        },
        "trapezoidal": {0: 0.1, 8: 0.9, 9: 1.0, 89: 1.0, 90: 0.9090909090909091, 99: 0.09090909090909094},
    }[name]


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_has_the_factors_that_the_study_published(name: str):
    for epoch, expected in published(name, 100).items():
        assert factor(list(SCHEDULES).index(name), epoch, 100) == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("steps", [1, 7, 500])
def test_no_schedule_leaves_the_range_from_nothing_to_the_full_rate(steps: int):
    values = np.array([factor(i, np.arange(steps), steps) for i in range(len(SCHEDULES))])
    assert np.all((values > 0) & (values <= 1))
