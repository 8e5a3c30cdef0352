"""Instruments against closed forms on a quadratic, and against differences of a small net written in numpy."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timetrial.instruments import quantities
from timetrial.instruments.curvature import extremes, hutchinson, lanczos
from timetrial.instruments.measure import Measure, Seen
from timetrial.instruments.optimizer_state import StateReader, inverse_root
from timetrial.instruments.per_row import GRADIENT_EDGES, add_rows, chunk_rows, histogram, mirrored, no_rows
from timetrial.instruments.probe import ProbeLoss, Rows
from timetrial.instruments.readings import readings
from timetrial.submission import Batch, LossAux

pytestmark = pytest.mark.usefixtures("quick_compilation")

ROWS, TRAINING_ROWS = 6, 24
KEY = jax.random.key(3)


class FakeProblem:
    """A problem whose summed row losses and terms are `losses(params, rows)`, for parameters as a list."""

    def __init__(self, losses: Callable[..., tuple[Any, Any]]) -> None:
        self._losses = losses

    @contextmanager
    def counted(self) -> Iterator[None]:
        yield

    def loss(self, params: Any, model_state: Any, batch: Batch, key: Any) -> tuple[Any, LossAux]:
        losses, terms = self._losses(params, *batch.rows)
        return losses.sum() / terms.sum(), LossAux(model_state, losses, terms)


def measured(
    losses: Any, batch: tuple[Any, ...], initial: Any, before: Any, after: Any, *, coupled: bool = False, **more: Any
) -> tuple[dict[str, float], dict[str, Any], dict[str, Any]]:
    """What the full set makes of a step."""
    options: dict[str, Any] = {"moments": None, "learning_rate": None, "batch_size": TRAINING_ROWS} | more
    measure = _measure(losses, coupled)
    first, at, then = ([jnp.asarray(x, jnp.float32) for x in leaves] for leaves in (initial, before, after))
    seen = Seen(first, at, then, [], options["moments"], jnp.float32(7))
    rows = Batch(tuple(jnp.asarray(x, jnp.float32) for x in batch))
    sums = jax.device_get(measure(seen, rows, KEY))
    return readings(sums, batch_size=options["batch_size"], learning_rate=options["learning_rate"])


@cache
def _measure(losses: Any, coupled: bool) -> Measure:
    """Compiled once, though many tests ask for it."""
    problem: Any = FakeProblem(losses)
    return Measure("full", ProbeLoss(problem, coupled, dropout=not coupled), chunk=3)


# A quadratic: f_n = (x - c_n)' A (x - c_n) / 2, whose parameters x come as a vector of 2 and a matrix of 1 x 3.

D = 5
SHAPES = ((2,), (1, 3))


def leaves(x: np.ndarray) -> list[np.ndarray]:
    return [x[:2].reshape(SHAPES[0]), x[2:].reshape(SHAPES[1])]


class Quadratic:
    def __init__(self, *, diagonal: bool = False, noise: float = 1.0) -> None:
        rng = np.random.RandomState(0)
        root = rng.standard_normal((D, D))
        self.a = np.diag([0.5, 4.0, 1.0, 2.0, 8.0]) if diagonal else root @ root.T + np.eye(D)
        self.c = rng.standard_normal(D) + noise * rng.standard_normal((ROWS, D))
        self.initial, self.x = rng.standard_normal((2, D))
        self.gradients = (self.x - self.c) @ self.a
        self.g = self.gradients.mean(0)
        self.s = np.atleast_2d(np.cov(self.gradients.T))

    @property
    def batch(self) -> tuple[np.ndarray, np.ndarray]:
        return self.c, np.tile(self.a, (ROWS, 1, 1))

    def measured(self, step: np.ndarray, **more: Any) -> Any:
        return measured(quadratic_losses, self.batch, *map(leaves, (self.initial, self.x, self.x + step)), **more)


def quadratic_losses(params: Any, c: Any, a: Any) -> tuple[Any, Any]:
    x = jnp.concatenate([p.reshape(-1) for p in params])
    return jnp.einsum("ni,nij,nj->n", x - c, a, x - c) / 2, jnp.ones(len(c))


@pytest.fixture(scope="module")
def quadratic() -> Quadratic:
    return Quadratic()


@pytest.fixture(scope="module")
def seen(quadratic: Quadratic) -> Any:
    return quadratic.measured(-0.1 * quadratic.g, learning_rate=0.1)


def close(value: Any, expected: Any, tolerance: float = 2e-4) -> bool:
    return bool(np.allclose(value, expected, rtol=tolerance, atol=tolerance * float(np.max(np.abs(expected)))))


def test_sizes_are_norms_of_differences_of_states_in_all_and_by_array(quadratic: Quadratic, seen: Any):
    values, arrays, _ = seen
    step = -0.1 * quadratic.g
    for name, vector in (
        ("param_norm", quadratic.x),
        ("distance", quadratic.x - quadratic.initial),
        ("update_size", step),
    ):
        assert close(values[name], np.linalg.norm(vector))
        assert close(arrays[name], [np.linalg.norm(part) for part in leaves(vector)])
    assert close(values["update_ratio"], np.linalg.norm(step) / np.linalg.norm(quadratic.x))


def test_the_gradient_of_the_probe_batch_is_the_mean_over_its_rows(quadratic: Quadratic, seen: Any):
    values, arrays, _ = seen
    assert close(
        values["probe_loss"], np.einsum("nd,nd->n", (quadratic.x - quadratic.c), quadratic.gradients).mean() / 2
    )
    assert close(values["gradient_norm"], np.linalg.norm(quadratic.g))
    assert close(arrays["gradient_norm"], [np.linalg.norm(part) for part in leaves(quadratic.g)])
    assert close(values["cosine"], 1.0)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0, 2.0, 2.5])
def test_alpha_is_the_place_of_a_step_on_the_parabola(quadratic: Quadratic, share: float):
    to_minimum = (quadratic.g @ quadratic.g) / (quadratic.g @ quadratic.a @ quadratic.g)
    values, _, _ = quadratic.measured(-share * to_minimum * quadratic.g)
    assert values["alpha"] == pytest.approx(share - 1, abs=2e-3)


def test_alpha_of_a_step_uphill_is_below_minus_one(quadratic: Quadratic):
    assert quadratic.measured(0.1 * quadratic.g)[0]["alpha"] < -1


def test_the_tests_of_the_batch_size_are_those_of_their_papers_where_the_probe_is_a_whole_batch(quadratic: Quadratic):
    values, _, _ = quadratic.measured(-0.1 * quadratic.g, batch_size=ROWS)
    g, rows = quadratic.g, quadratic.gradients
    size, pairs = g @ g, ROWS * (ROWS - 1)
    assert size > np.trace(quadratic.s) / ROWS  # the gradient can be told from noise
    norm = (np.einsum("nd,nd->", rows, rows) / size - ROWS) / pairs
    inner = (np.sum((rows @ g) ** 2) / size**2 - ROWS) / pairs
    apart = np.sum((rows - np.outer(rows @ g / size, g)) ** 2) / size / pairs
    assert close(values["norm_test"], norm**0.5)
    assert close(values["inner_product_test"], inner**0.5)
    assert close(values["orthogonality_test"], apart**0.5)


def test_noise_quantities_follow_their_papers(quadratic: Quadratic, seen: Any):
    values, _, _ = seen
    g, s, rows = quadratic.g, quadratic.s, quadratic.gradients
    square = g @ g - np.trace(s) / ROWS
    assert close(values["gradient_variance"], np.trace(s))
    assert close(values["gradient_square"], square)
    assert close(values["noise_scale"], np.trace(s) / square)
    signal = np.mean(g**2 / (np.diag(s) + 1e-3 * np.diag(s).mean()))
    assert close(values["mean_gsnr"], signal)
    assert close(values["early_stopping"], 1 - ROWS * signal)
    assert close(values["cabs"], 0.1 * np.trace(s) / values["probe_loss"])
    norm = (np.trace(s) / TRAINING_ROWS) / (square + np.trace(s) / TRAINING_ROWS)
    assert close(values["norm_test"], norm**0.5)
    assert values["inner_product_test"] ** 2 + values["orthogonality_test"] ** 2 == pytest.approx(norm, rel=1e-3)
    assert np.array_equal(seen[2]["gradient_histogram"], np.histogram(rows, _bins())[0])


def _bins() -> np.ndarray:
    positive = 10.0 ** np.arange(-8, 2.1, 0.5)
    return np.concatenate([[-np.inf], -positive[::-1], positive, [np.inf]]).astype(np.float32)


def test_hutchinson_gives_trace_diagonal_and_tic_of_a_diagonal_matrix_exactly():
    quadratic = Quadratic(diagonal=True)
    values, arrays, histograms = quadratic.measured(-0.1 * quadratic.g)
    diagonal = np.diag(quadratic.a)
    second = np.mean(quadratic.gradients**2, axis=0)
    assert close(values["hessian_trace"], diagonal.sum())
    assert values["hessian_trace_error"] == pytest.approx(0, abs=1e-4)
    assert close(arrays["hessian_trace"], [part.sum() for part in leaves(diagonal)])
    assert np.array_equal(histograms["hessian_diagonal"], np.histogram(diagonal, _bins())[0])
    assert close(values["tic_trace"], second.sum() / diagonal.sum())
    assert close(values["tic_diagonal"], (second / diagonal).sum())


def test_hutchinson_is_right_on_average(quadratic: Quadratic):
    matrix = jnp.asarray(quadratic.a, jnp.float32)
    found = hutchinson(lambda v: [matrix @ v[0]], [jnp.zeros(D)], KEY, 100)
    spread = np.sqrt(2 * (np.sum(quadratic.a**2) - np.sum(np.diag(quadratic.a) ** 2)) / 100)
    assert abs(float(found.traces.mean()) - np.trace(quadratic.a)) < 4 * spread
    assert np.allclose(found.diagonal[0], np.diag(quadratic.a), atol=4 * spread)


def test_lanczos_finds_the_outermost_eigenvalues(quadratic: Quadratic, seen: Any):
    eigenvalues = np.linalg.eigvalsh(quadratic.a)
    assert close(seen[0]["hessian_max_eigenvalue"], eigenvalues[-1])
    assert close(seen[0]["hessian_min_eigenvalue"], eigenvalues[0], 1e-2)


@settings(max_examples=10)
@given(st.integers(0, 1000))
def test_the_error_that_lanczos_gives_holds(seed: int):
    rng = np.random.RandomState(seed)
    root = rng.standard_normal((40, 40))
    matrix = (root + root.T) / 2
    found = extremes(
        lanczos(lambda v: [jnp.asarray(matrix, jnp.float32) @ v[0]], [jnp.zeros(40)], jax.random.key(seed), 8)
    )
    eigenvalues = np.linalg.eigvalsh(matrix)
    assert np.min(np.abs(eigenvalues - found.largest)) <= found.largest_error * 1.01 + 1e-4
    assert found.largest <= eigenvalues[-1] + 1e-4
    assert found.smallest >= eigenvalues[0] - 1e-4


def test_lanczos_on_a_multiple_of_the_identity_stops_after_one_turn():
    found = extremes(lanczos(lambda v: [-2 * v[0]], [jnp.zeros(4)], KEY, 6))
    assert (found.largest, found.smallest) == (pytest.approx(-2), pytest.approx(-2))
    assert found.largest_error == pytest.approx(0, abs=1e-5)


def test_the_preconditioned_eigenvalue_is_that_of_adams_preconditioner(quadratic: Quadratic):
    b2, steps = 0.9, 7
    rng = np.random.RandomState(1)
    past, new = rng.standard_normal((2, D)) ** 2, rng.standard_normal(D) ** 2
    new[0] = 0  # as of a weight that this step had no gradient for
    nu = b2 * past[0] + (1 - b2) * new
    moments = tuple([jnp.asarray(x, jnp.float32) for x in leaves(v)] for v in (past[0], nu))
    values, _, _ = quadratic.measured(-0.1 * quadratic.g, moments=moments)
    preconditioner = np.sqrt(nu / (1 - b2**steps)) + 1e-8
    expected = np.linalg.eigvals(quadratic.a / preconditioner[:, None]).real.max()
    assert close(values["preconditioned_max_eigenvalue"], expected, 1e-3)


def test_without_noise_the_tests_pass_with_no_tolerance_and_there_is_no_noise_scale():
    quadratic = Quadratic(noise=0.0)
    values, _, _ = quadratic.measured(-0.1 * quadratic.g, learning_rate=1.0)
    for name in ("gradient_variance", "noise_scale", "norm_test", "inner_product_test", "orthogonality_test", "cabs"):
        assert values[name] == pytest.approx(0, abs=1e-5), name
    assert np.isfinite(values["alpha"])


@pytest.mark.parametrize("chunk", [2, 6])
def test_moments_do_not_depend_on_how_many_rows_are_taken_at_a_time(quadratic: Quadratic, chunk: int):
    params = [jnp.asarray(x, jnp.float32) for x in leaves(quadratic.x)]
    problem: Any = FakeProblem(quadratic_losses)
    loss = ProbeLoss(problem, coupled=False, dropout=False)
    batch = Batch(tuple(jnp.asarray(x, jnp.float32) for x in quadratic.batch))
    rows = loss.rows(params, [], batch, KEY)
    add = jax.jit(lambda sums, some: add_rows(sums, lambda rows: loss.row_losses([], rows), params, some, params))
    found = no_rows(params, histogram_2d=True)
    slopes: list[Any] = []
    for first in range(0, ROWS, chunk):
        some = Rows(batch.take(jnp.arange(first, first + chunk)), rows.keys[first : first + chunk], rows.scale)
        found, (_, own) = add(found, some)
        slopes.append(own)
    flat = np.concatenate([np.ravel(x) for x in found.squares])
    assert close(np.concatenate([np.ravel(x) for x in found.mean]), quadratic.g)
    assert close(flat, (ROWS - 1) * np.diag(quadratic.s))
    assert close(np.concatenate(slopes), quadratic.gradients @ quadratic.x)
    assert int(found.histogram.sum()) == ROWS * D
    assert found.histogram_2d is not None
    assert int(found.histogram_2d.sum()) == ROWS * D


def test_the_two_dimensional_histogram_counts_each_gradient_element_beside_its_parameter(
    quadratic: Quadratic, seen: Any
):
    across = np.concatenate([[-np.inf], -(10.0 ** np.arange(1, -5, -1)), 10.0 ** np.arange(-4, 2), [np.inf]])
    along = np.concatenate([[-np.inf], -(10.0 ** np.arange(2, -9, -1)), 10.0 ** np.arange(-8, 3), [np.inf]])
    expected = np.histogram2d(np.tile(quadratic.x, ROWS), quadratic.gradients.ravel(), [across, along])[0]
    assert np.array_equal(seen[2]["gradient_histogram_2d"], expected)


# A small net: tanh units, squared error summed over a number of terms that differs from row to row.

FEATURES, UNITS = 3, 4


def net_losses(params: Any, x: Any, y: Any, terms: Any, np_: Any) -> Any:
    """Written once for both number libraries."""
    hidden = np_.tanh(x @ params[0] + params[1])
    return terms * (hidden @ params[2] - y) ** 2


class Net:
    def __init__(self, *, normalised: bool) -> None:
        rng = np.random.RandomState(2)
        self.normalised = normalised
        self.shapes = ((FEATURES, UNITS), (UNITS,), (UNITS,))
        self.size = FEATURES * UNITS + 2 * UNITS
        self.before, self.step = rng.standard_normal((2, self.size))
        self.batch = (rng.standard_normal((ROWS, FEATURES)), rng.standard_normal(ROWS), rng.randint(1, 4, ROWS) * 1.0)
        self.gradient = differences(lambda x: self.row_losses(x).mean(), self.before, 1e-5)
        self.step = 0.02 * self.step - 0.05 * self.gradient

    def split(self, flat: np.ndarray) -> list[np.ndarray]:
        parts = np.split(flat, np.cumsum([int(np.prod(s)) for s in self.shapes])[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def row_losses(self, flat: np.ndarray) -> np.ndarray:
        """Each row's share of the loss, in numpy and 64 bits; normalised over the rows where asked."""
        x, y, terms = self.batch
        if self.normalised:
            x = x - np.tanh(x @ self.split(flat)[0]).mean() * np.ones(FEATURES)
        return net_losses(self.split(flat), x, y, terms, np) * ROWS / terms.sum()

    def measured(self) -> Any:
        states = [self.split(x) for x in (self.before, self.before, self.before + self.step)]
        losses = normalised_net if self.normalised else plain_net
        return measured(losses, self.batch, *states, coupled=self.normalised, learning_rate=1.0)


def plain_net(params: Any, x: Any, y: Any, terms: Any) -> tuple[Any, Any]:
    return net_losses(params, x, y, terms, jnp), terms


def normalised_net(params: Any, x: Any, y: Any, terms: Any) -> tuple[Any, Any]:
    return plain_net(params, x - jnp.tanh(x @ params[0]).mean() * jnp.ones(FEATURES), y, terms)


def differences(f: Callable[[np.ndarray], np.ndarray], x: np.ndarray, width: float) -> np.ndarray:
    """The derivative of each value of f by each element of x."""
    return np.stack([(f(x + e) - f(x - e)) / (2 * width) for e in width * np.eye(len(x))], axis=-1)


@pytest.mark.parametrize("normalised", [False, True], ids=["rows alone", "rows coupled"])
def test_a_small_net_is_seen_as_its_differences_show_it(normalised: bool):
    net = Net(normalised=normalised)
    values, _, _ = net.measured()
    gradient = net.gradient
    hessian = differences(lambda x: differences(lambda z: net.row_losses(z).mean(), x, 1e-4), net.before, 1e-4)
    assert close(values["probe_loss"], net.row_losses(net.before).mean())
    assert close(values["gradient_norm"], np.linalg.norm(gradient), 1e-3)
    assert close(values["cosine"], -gradient @ net.step / np.linalg.norm(gradient) / np.linalg.norm(net.step), 1e-3)
    assert close(values["hessian_max_eigenvalue"], np.linalg.eigvalsh(hessian)[-1], 1e-2)
    spread = np.sqrt(2 * (np.sum(hessian**2) - np.sum(np.diag(hessian) ** 2)) / 2)
    assert abs(values["hessian_trace"] - np.trace(hessian)) < 4 * spread
    ends = [net.row_losses(net.before), net.row_losses(net.before + net.step)]
    slopes = [differences(lambda t, x=x: net.row_losses(x + t[0] * net.step), np.zeros(1), 1e-5)[:, 0] for x in
              (net.before, net.before + net.step)]  # fmt: skip
    assert close(values["alpha"], _parabola(*ends, *slopes), 1e-2)


def _parabola(f0: Any, f1: Any, s0: Any, s1: Any) -> float:
    """The normal equations of the weighted fit, and the place of 1 between the start, -1, and the minimum, 0."""
    design = np.array([[1, 0, 0], [1, 1, 1], [0, 1, 0], [0, 1, 2.0]])
    weights = np.diag([1 / np.var(x, ddof=1) for x in (f0, f1, s0, s1)])
    seen = np.array([np.mean(x) for x in (f0, f1, s0, s1)])
    _, slope, bend = np.linalg.solve(design.T @ weights @ design, design.T @ weights @ seen)
    return (1 - -slope / (2 * bend)) / (-slope / (2 * bend))


def test_gradients_of_rows_are_their_differences():
    net = Net(normalised=False)
    values, _, histograms = net.measured()
    rows = differences(net.row_losses, net.before, 1e-5)
    mean, variance = rows.mean(0), rows.var(0, ddof=1)
    assert close(values["gradient_variance"], variance.sum(), 1e-3)
    assert close(values["mean_gsnr"], np.mean(mean**2 / (variance + 1e-3 * variance.mean())), 1e-2)
    assert close(values["cabs"], variance.sum() / net.row_losses(net.before).mean(), 1e-3)
    assert np.abs(np.subtract(histograms["gradient_histogram"], np.histogram(rows, _bins())[0])).sum() <= 4


def test_where_rows_are_coupled_nothing_that_needs_their_own_gradients_is_given():
    values, _, histograms = Net(normalised=True).measured()
    assert not {"norm_test", "noise_scale", "mean_gsnr", "early_stopping", "cabs", "tic_trace"} & set(values)
    assert set(histograms) == {"hessian_diagonal"}


# The formulas by themselves.


@given(st.floats(-5, 5).filter(lambda x: abs(x) > 1e-3), st.floats(1e-2, 1e2), st.floats(1e-3, 1e3))
def test_alpha_does_not_depend_on_the_unit_of_the_loss(slope: float, bend: float, unit: float):
    spread = np.array([-1.0, 0.0, 1.0])
    lines = [
        quantities.Line(unit * (f + 0.1 * spread), unit * (s + 0.2 * spread))
        for f, s in ((0.0, slope), (slope + bend, slope + 2 * bend))
    ]
    assert quantities.alpha(*lines) == pytest.approx(-2 * bend / slope - 1, rel=1e-6)


def test_alpha_of_a_parabola_that_is_open_below_is_minus_one():
    line = np.array([0.0, 0.1])
    assert quantities.alpha(quantities.Line(line, line - 1), quantities.Line(line - 2, line - 3)) == -1


def test_alpha_of_losses_that_are_no_numbers_is_none():
    line = np.array([0.0, 0.1])
    assert np.isnan(quantities.alpha(quantities.Line(line, line), quantities.Line(line * np.nan, line)))


counted = jax.jit(lambda values: histogram(values, GRADIENT_EDGES))


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=20, max_size=20))
def test_a_histogram_counts_each_number_once_and_in_its_bin(numbers: list[float]):
    values = np.array(numbers, np.float32)
    counts = np.asarray(counted(values))
    edges = np.concatenate([[-np.inf], mirrored(GRADIENT_EDGES), [np.inf]])
    expected = [int(np.sum((values >= low) & (values < high))) for low, high in pairwise(edges)]
    assert counts.tolist() == expected


def test_what_is_no_number_is_in_no_bin():
    assert int(counted(jnp.array([np.nan] * 19 + [1.0])).sum()) == 1


@given(st.integers(1, 64), st.integers(1, 10**9), st.sampled_from(["cpu", "gpu"]))
def test_a_chunk_divides_the_rows_and_fits_the_memory_it_may_take(rows: int, parameters: int, platform: str):
    chunk = chunk_rows(rows, parameters, platform)
    assert rows % chunk == 0
    assert chunk == 1 or 4 * parameters * chunk <= 2**28


# What the optimizer's state tells.

PARAMS = [jnp.ones((2, 3)), jnp.ones(4)]


def test_injected_hyperparameters_are_found_by_name():
    tx = optax.inject_hyperparams(optax.adamw)(learning_rate=optax.linear_schedule(0.5, 0.0, 10))
    state = (optax.chain(optax.clip(1.0), tx).init(PARAMS), None)
    found = StateReader(state, PARAMS).hyperparameters(state)
    assert float(found["learning_rate"]) == 0.5
    assert float(found["b2"]) == pytest.approx(0.999)


@pytest.mark.parametrize(
    ("tx", "there"),
    [(optax.adam(1e-3), True), (optax.rmsprop(1e-3), True), (optax.adagrad(1e-3), True), (optax.sgd(0.1), False)],
    ids=["adam", "rmsprop", "adagrad", "sgd"],
)
def test_second_moments_are_found_where_there_are_any(tx: Any, there: bool):
    state = (tx.init(PARAMS), None)
    reader = StateReader(state, PARAMS)
    assert reader.has_second_moments == there
    if there:
        assert [x.shape for x in reader.second_moments(state)] == [x.shape for x in PARAMS]


def test_adams_preconditioner_is_read_from_two_of_its_states():
    tx = optax.adam(1.0, b1=0.0, b2=0.95, eps=1e-8)
    rng = np.random.RandomState(0)
    gradients = [[jnp.asarray(rng.standard_normal(p.shape), jnp.float32) for p in PARAMS] for _ in range(3)]
    gradients[2][0] = gradients[2][0].at[0, 0].set(0.0)
    state: Any = tx.init(PARAMS)
    reader = StateReader(state, PARAMS)
    before: Any = None
    updates: Any = None
    for gradient in gradients:
        before = reader.second_moments(state)
        updates, state = tx.update(gradient, state)
    scale = jax.jit(inverse_root)(before, reader.second_moments(state), jnp.float32(3))
    for u, s, g in zip(updates, scale, gradients[2], strict=True):  # without momentum Adam's step is -P^-1 g
        assert np.allclose(u, -(s**2) * g, rtol=1e-4)


def test_rows_share_the_loss_by_their_terms():
    net = Net(normalised=False)
    problem: Any = FakeProblem(plain_net)
    loss = ProbeLoss(problem, coupled=False, dropout=True)
    params = [jnp.asarray(x, jnp.float32) for x in net.split(net.before)]
    batch = Batch(tuple(jnp.asarray(x, jnp.float32) for x in net.batch))
    rows = loss.rows(params, [], batch, KEY)
    assert isinstance(rows, Rows)
    assert np.allclose(loss.row_losses([], rows)(params), net.row_losses(net.before), rtol=1e-4)
    assert np.isclose(np.mean(loss.row_losses([], rows)(params)), problem.loss(params, [], batch, KEY)[0], rtol=1e-5)
