"""The submissions that ship: each follows its paper's recursion, traces, keeps its shapes and trains.

A new baseline joins by its folder and one row of TEXTBOOK. The recursions are written for one vector in float64, and
import nothing of ours.
"""

import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from timetrial import Batch, Hparams, LossAux, ParamInfo, Task, TrainState
from timetrial.tuning import check_search_space, default_point, traced_names

SUBMISSIONS = Path(__file__).parents[2] / "submissions"
NAMES = sorted(path.parent.name for path in SUBMISSIONS.glob("*/submission.py"))
ROWS, INPUTS, OUTPUTS, HORIZON = 16, 5, 4, 120
KEY = jax.random.key(0)

Vector = np.ndarray
Gradient = Callable[[Vector], Vector]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"baseline_{name}", SUBMISSIONS / name / "submission.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Toy:
    """A problem whose model state counts the updates of its batch norm."""

    def __init__(self, row_losses: Callable[..., jax.Array]) -> None:
        self.row_losses = row_losses

    def loss(
        self, params: Any, model_state: Any, batch: Batch, key: Any, *, update_batch_norm: bool = True, **_: Any
    ) -> tuple[jax.Array, LossAux]:
        del key
        losses = self.row_losses(params, *batch.rows)
        return losses.mean(), LossAux([model_state[0] + update_batch_norm], losses, jnp.ones_like(losses))


def logistic_losses(params: Any, inputs: jax.Array, labels: jax.Array) -> jax.Array:
    kernel, bias = params
    return optax.sigmoid_binary_cross_entropy(inputs @ kernel + bias, labels).sum(axis=1)


LOGISTIC = Toy(logistic_losses)
LOGISTIC_PARAMS = (
    ParamInfo(kind="weight", shape=(INPUTS, OUTPUTS), in_axes=(0,), out_axes=(1,)),
    ParamInfo(kind="bias", shape=(OUTPUTS,), out_axes=(0,)),
)


def task_of(params: Sequence[ParamInfo], horizon: int) -> Task:
    return Task(
        loss_type="sigmoid_cross_entropy",
        default_batch_size=ROWS,
        max_batch_size=4 * ROWS,
        horizon_examples=ROWS * horizon,
        rows_coupled=False,
        device_count=1,
        device_memory_bytes=2**30,
        params=tuple(params),
    )


class Run:
    """A submission as the harness drives it: under jit, with the numeric hyperparameters as arguments."""

    def __init__(self, name: str, problem: Toy, task: Task) -> None:
        self.name, self.module = name, load(name)
        self.space = check_search_space(getattr(self.module, "SEARCH_SPACE", {}))
        self.point = dict(default_point(self.space))
        self.task = task

        def submission(traced: Mapping[str, Any]) -> Any:
            return self.module.make(Hparams({**self.point, **traced}), task)

        def init(traced: Any, params: Any, model_state: Any) -> TrainState:
            opt_state = submission(traced).init(params, model_state, KEY)
            return TrainState(params, model_state, opt_state, jnp.int32(0))

        def step(traced: Any, state: TrainState, batch: Batch) -> tuple[TrainState, Any]:
            state, logs = submission(traced).step(problem, state, batch, KEY)
            return state._replace(step=state.step + 1), logs

        def steps(traced: Any, state: TrainState, batches: Batch) -> TrainState:
            return jax.lax.scan(lambda state, batch: (step(traced, state, batch)[0], None), state, batches)[0]

        def eval_params(traced: Any, state: TrainState, batch: Batch) -> tuple[Any, Any]:
            hook = submission(traced).eval_params
            return (state.params, state.model_state) if hook is None else hook(problem, state, batch, KEY)

        self.init, self.step, self.steps, self.eval_params = map(jax.jit, (init, step, steps, eval_params))

    @property
    def traced(self) -> dict[str, jax.Array]:
        return {name: jnp.asarray(self.point[name]) for name in traced_names(self.space)}

    def train(self, params: Sequence[Any], batches: Sequence[Batch]) -> tuple[list[Any], list[Any]]:
        """The (params, model_state) to evaluate after one step on each batch."""
        state = self.init(self.traced, [jnp.asarray(p, jnp.float32) for p in params], [jnp.float32(0)])
        state = self.steps(self.traced, state, jax.tree.map(lambda *x: np.stack(x), *batches))
        return self.eval_params(self.traced, state, batches[-1])


def logistic_data(steps: int) -> tuple[Vector, list[Batch]]:
    """An initial vector (kernel, then bias) and `steps` batches with noisy labels."""
    rng = np.random.default_rng(7)
    truth = 0.3 * rng.standard_normal((INPUTS, OUTPUTS))

    def batch() -> Batch:
        inputs = 3 * rng.standard_normal((ROWS, INPUTS))
        labels = inputs @ truth + rng.logistic(size=(ROWS, OUTPUTS)) > 0
        return Batch((jnp.asarray(inputs, jnp.float32), jnp.asarray(labels, jnp.float32)))

    return 0.1 * rng.standard_normal((INPUTS + 1) * OUTPUTS), [batch() for _ in range(steps)]


def split(vector: Vector) -> list[Vector]:
    return [vector[: INPUTS * OUTPUTS].reshape(INPUTS, OUTPUTS), vector[INPUTS * OUTPUTS :]]


def logistic_gradient(batch: Batch) -> Gradient:
    """The gradient of the mean loss over `batch`, by hand."""
    inputs, labels = (np.asarray(field, np.float64) for field in batch.rows)

    def gradient(vector: Vector) -> Vector:
        kernel, bias = split(vector)
        errors = (1 / (1 + np.exp(-(inputs @ kernel + bias))) - labels) / len(inputs)
        return np.concatenate([(inputs.T @ errors).ravel(), errors.sum(axis=0)])

    return gradient


DECAYED = np.repeat([1.0, 0.0], [INPUTS * OUTPUTS, OUTPUTS])


def cosine(t: int, steps: int) -> float:
    """The factor of step t = 1, …, `steps`: warmup over 5 % of them, then half a cosine that is 0 at steps + 1."""
    warmup = 0.05 * steps
    return t / warmup if t <= warmup else (1 + math.cos(math.pi * (t - warmup) / (steps + 1 - warmup))) / 2


def sgd(w: Vector, gradients: Sequence[Gradient], h: Any, *, nesterov: bool, steps: int = HORIZON) -> Vector:
    v = np.zeros_like(w)
    momentum = 1 - h.one_minus_momentum
    for t, gradient in enumerate(gradients, 1):
        g = gradient(w) + h.weight_decay * DECAYED * w
        v = momentum * v + g
        w = w - h.learning_rate * cosine(t, steps) * (g + momentum * v if nesterov else v)
    return w


def sam(w: Vector, gradients: Sequence[Gradient], h: Any) -> Vector:
    def sharp(gradient: Gradient) -> Gradient:
        return lambda w: gradient(w + h.radius * gradient(w) / np.linalg.norm(gradient(w)))

    return sgd(w, [sharp(g) for g in gradients], h, nesterov=False, steps=HORIZON // 2)


def adam_direction(m: Vector, v: Vector, g: Vector, t: int, b1: float, nesterov: bool) -> Vector:
    """Kingma & Ba 2015, algorithm 1, from the moments after step t; with `nesterov`, Dozat 2016, algorithm 2."""
    first = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t) if nesterov else m / (1 - b1**t)
    return first / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)


def adamw_path(
    w: Vector, gradients: Sequence[Gradient], h: Any, *, nesterov: bool, factor: Callable[[int], float]
) -> list[Vector]:
    b1 = 1 - h.one_minus_b1
    m, v, path = np.zeros_like(w), np.zeros_like(w), []
    for t, gradient in enumerate(gradients, 1):
        g = gradient(w)
        m, v = b1 * m + (1 - b1) * g, 0.999 * v + 0.001 * g**2
        direction = adam_direction(m, v, g, t, b1, nesterov)
        w = w - h.learning_rate * factor(t) * (direction + h.weight_decay * DECAYED * w)
        path.append(w)
    return path


def adamw(w: Vector, gradients: Sequence[Gradient], h: Any, *, nesterov: bool) -> Vector:
    return adamw_path(w, gradients, h, nesterov=nesterov, factor=lambda t: cosine(t, HORIZON))[-1]


def adamw_ema(w: Vector, gradients: Sequence[Gradient], h: Any) -> Vector:
    path = adamw_path(w, gradients, h, nesterov=False, factor=lambda t: min(1, t / (0.05 * HORIZON)))
    return moving_average(path, h)


def moving_average(path: Any, h: Any) -> Any:
    decay = 1 - 1 / max(1, h.window * HORIZON)
    return np.average(path, axis=0, weights=decay ** np.arange(len(path))[::-1])


def lion(w: Vector, gradients: Sequence[Gradient], h: Any) -> Vector:
    m, b1 = np.zeros_like(w), 1 - h.one_minus_b1
    for t, gradient in enumerate(gradients, 1):
        g = gradient(w)
        direction = np.sign(b1 * m + (1 - b1) * g) + h.weight_decay * DECAYED * w
        w, m = w - h.learning_rate * cosine(t, HORIZON) * direction, 0.99 * m + 0.01 * g
    return w


def schedule_free_adamw(w: Vector, gradients: Sequence[Gradient], h: Any) -> Vector:
    b1, warmup = 1 - h.one_minus_b1, 0.05 * HORIZON
    x, z, v, total = w, w, np.zeros_like(w), 0.0
    for t, gradient in enumerate(gradients, 1):
        y = (1 - b1) * z + b1 * x
        g = gradient(y)
        v = 0.999 * v + 0.001 * g**2
        rate = h.learning_rate * math.sqrt(1 - 0.999**t) * min(1, t / warmup)
        z = z - rate * g / (np.sqrt(v) + 1e-8) - rate * h.weight_decay * DECAYED * y
        total += rate**2
        x = (1 - rate**2 / total) * x + rate**2 / total * z
    return x


def muon(w: Vector, gradients: Sequence[Gradient], h: Any) -> Vector:
    beta = 1 - h.one_minus_momentum
    m, a, v = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
    for t, gradient in enumerate(gradients, 1):
        g = gradient(w)
        m = beta * m + (1 - beta) * g
        a, v = 0.9 * a + 0.1 * g, 0.999 * v + 0.001 * g**2
        x = split(beta * m / (1 - beta ** (t + 1)) + (1 - beta) * g / (1 - beta**t))[0]
        x = x / np.linalg.norm(x)
        for _ in range(5):
            s = x.T @ x
            x = 3.4445 * x + x @ (-4.7750 * s + 2.0315 * s @ s)
        matrix = 0.2 * math.sqrt(max(x.shape)) * x.ravel() + h.weight_decay * w[: x.size]
        direction = np.concatenate([matrix, adam_direction(a, v, g, t, 0.9, nesterov=True)[x.size :]])
        w = w - h.learning_rate * cosine(t, HORIZON) * direction
    return w


def prodigy(w: Vector, gradients: Sequence[Gradient], h: Any) -> Vector:
    """Mishchenko & Defazio 2024, algorithm 4, with Adam's bias correction in the rate."""
    del h
    start, d, r = w, 1e-6, 0.0
    s, m, v = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
    for t, gradient in enumerate(gradients, 1):
        g = gradient(w)
        rate = cosine(t, HORIZON) * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        r = math.sqrt(0.999) * r + rate * d**2 * g @ (start - w)
        s = math.sqrt(0.999) * s + d**2 * g
        m, v = 0.9 * m + 0.1 * d * g, 0.999 * v + 0.001 * (d * g) ** 2
        w = w - rate * d * (m / (np.sqrt(v) + d * 1e-8) + 1e-2 * w)
        d = max(d, r / np.abs(s).sum())
    return w


TEXTBOOK: dict[str, Callable[[Vector, Sequence[Gradient], Any], Vector]] = {
    "adamw": lambda w, g, h: adamw(w, g, h, nesterov=False),
    "adamw_ema": adamw_ema,
    "lion": lion,
    "muon": muon,
    "nadamw": lambda w, g, h: adamw(w, g, h, nesterov=True),
    "nesterov": lambda w, g, h: sgd(w, g, h, nesterov=True),
    "sam": sam,
    "schedule_free_adamw": schedule_free_adamw,
    "self_tuning": prodigy,
    "sgd_momentum": lambda w, g, h: sgd(w, g, h, nesterov=False),
}


AVERAGED = {"adamw_ema": moving_average}
"""What is evaluated of the model states, after 1, 2, … updates; the last one where nothing is said."""


@pytest.fixture(scope="module", params=NAMES)
def baseline(request: pytest.FixtureRequest) -> Run:
    return Run(request.param, LOGISTIC, task_of(LOGISTIC_PARAMS, HORIZON))


def test_fifty_steps_follow_the_textbook_recursion(baseline: Run, monkeypatch: pytest.MonkeyPatch):
    if "weight_decay" in baseline.point:
        monkeypatch.setitem(baseline.point, "weight_decay", 0.1)  # a decay too small to see would not be tested
    start, batches = logistic_data(50)
    params, model_state = baseline.train(split(start), batches)
    moved = np.concatenate([np.ravel(p) for p in params]) - start
    gradients = [logistic_gradient(batch) for batch in batches]
    expected = TEXTBOOK[baseline.name](start, gradients, Hparams(baseline.point)) - start
    rounding = 5e-7 * np.linalg.norm(start)
    assert np.linalg.norm(moved - expected) < 1e-5 * np.linalg.norm(expected) + rounding
    counted = AVERAGED.get(baseline.name, lambda values, h: values[-1])(np.arange(1, 51), Hparams(baseline.point))
    assert float(model_state[0]) == pytest.approx(counted), "batch norm is updated once a step"


def test_a_step_keeps_the_shapes_and_dtypes_of_the_state_for_traced_hyperparameters(baseline: Run):
    start, batches = logistic_data(1)
    params = [jnp.asarray(p, jnp.float32) for p in split(start)]
    before = jax.eval_shape(baseline.init, baseline.traced, params, [jnp.float32(0)])
    after, logs = jax.eval_shape(baseline.step, baseline.traced, before, batches[0])
    evaluated = jax.eval_shape(baseline.eval_params, baseline.traced, after, batches[0])
    assert jax.tree.map(signature, after) == jax.tree.map(signature, before)
    assert jax.tree.map(signature, evaluated) == jax.tree.map(signature, (before.params, before.model_state))
    assert logs["loss"].shape == ()


def signature(x: Any) -> tuple[Any, ...]:
    """What jit compiles for: a change of it between steps would compile the step a second time."""
    return x.shape, x.dtype, getattr(x, "weak_type", False)


def test_make_also_takes_plain_numbers(baseline: Run):
    submission = baseline.module.make(Hparams(baseline.point), baseline.task)
    assert submission.batch_size is None
    assert callable(submission.step)


def test_the_search_space_is_valid_and_holds_its_own_default(baseline: Run):
    assert isinstance(baseline.space, Mapping)
    assert all(distribution.default is not None for distribution in baseline.space.values())


def test_the_readme_names_every_hyperparameter(baseline: Run):
    readme = (SUBMISSIONS / baseline.name / "README.md").read_text()
    assert [key for key in baseline.point if f"`{key}`" not in readme] == []


@pytest.fixture(scope="module")
def optimum() -> list[Vector]:
    """Where the mean loss over 20 batches is smallest: gradient descent to convergence."""
    start, batches = logistic_data(20)
    gradient = logistic_gradient(jax.tree.map(lambda *x: jnp.concatenate(x), *batches))
    w = np.zeros_like(start)
    for _ in range(500):
        w = w - 0.3 * gradient(w)
    return split(w)


@pytest.mark.parametrize("name", NAMES)
def test_the_default_closes_nine_tenths_of_the_gap_to_the_optimum(name: str, optimum: list[Vector]):
    start, batches = logistic_data(20)
    run = Run(name, LOGISTIC, task_of(LOGISTIC_PARAMS, 1600))
    params, _ = run.train(split(start), batches * 80)

    def mean_loss(params: Any) -> float:
        return float(np.mean([logistic_losses(params, *batch.rows) for batch in batches]))

    best = mean_loss(optimum)
    assert mean_loss(params) - best < 0.1 * (mean_loss(split(start)) - best)


def test_muon_orthogonalises_each_matrix_over_its_in_and_out_axes_and_nothing_else():
    infos = (
        ParamInfo(kind="conv", shape=(3, 3, 2, 4), in_axes=(0, 1, 2), out_axes=(3,)),
        ParamInfo(kind="attention_q", shape=(6, 2, 3), in_axes=(0,), out_axes=(2,), batch_axes=(1,)),
        ParamInfo(kind="attention_out", shape=(2, 3, 6), in_axes=(0, 1), out_axes=(2,)),
        ParamInfo(kind="embedding", shape=(7, 5)),
        ParamInfo(kind="output_head", shape=(5, 7), in_axes=(0,), out_axes=(1,)),
    )
    rng = np.random.default_rng(3)
    slopes = [rng.standard_normal(info.shape) for info in infos]
    linear = Toy(lambda params, x: x * sum(jnp.vdot(s, p) for s, p in zip(slopes, params, strict=True)))
    run = Run("muon", linear, task_of(infos, 20))  # 20 steps: the first one has the peak rate
    moved, _ = run.train([np.zeros(info.shape) for info in infos], [Batch((jnp.ones(ROWS),))])
    conv, query, out, *by_adam = (-np.asarray(x, np.float64) / float(run.point["learning_rate"]) for x in moved)
    matrices = {
        "conv": conv.reshape(18, 4),
        "first head of q": query[:, 0],
        "second head of q": query[:, 1],
        "out": out.reshape(6, 6),
    }
    for name, matrix in matrices.items():
        singular = np.linalg.svd(matrix / (0.2 * math.sqrt(max(matrix.shape))), compute_uv=False)
        assert np.all((singular > 0.5) & (singular < 1.5)), (name, singular)
    for x, slope in zip(by_adam, slopes[3:], strict=True):
        np.testing.assert_allclose(x, np.sign(slope) * np.abs(x).max(), rtol=1e-4)
