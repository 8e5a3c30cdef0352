"""CTC's loss of the full track, against sums over all paths, and against optax's."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from timetrial.full.ctc import BLANK, ctc_loss

pytestmark = pytest.mark.usefixtures("quick_compilation")
ROWS, FRAMES, CLASSES, LABELS = 6, 21, 7, 8
LOSS = jax.jit(ctc_loss)


def rows_of(lengths, places):
    return np.arange(places) < np.asarray(lengths)[:, None]


def losses_of(logits, sequences, frames):
    """Losses of rows given as lists of labels and numbers of frames."""
    most = max(map(len, sequences))
    labels = np.array([[*row, *[CLASSES - 1] * (most - len(row))] for row in sequences], np.uint16)
    return LOSS(logits, rows_of(frames, logits.shape[1]), labels, rows_of([*map(len, sequences)], most))


@pytest.fixture(scope="module")
def example():
    """Logits, and the other arguments: rows of different lengths with repeated labels, one without any, one full."""
    rng = np.random.RandomState(0)
    labels = rng.randint(1, 4, (ROWS, LABELS)).astype(np.uint16)
    heard, said = rows_of([FRAMES, 14, 17, 1, 9, 20], FRAMES), rows_of([LABELS, 5, 0, 1, 4, 7], LABELS)
    return jnp.asarray(2 * rng.standard_normal((ROWS, FRAMES, CLASSES)), jnp.float32), (heard, labels, said)


def by_optax(logits, heard, labels, said):
    return optax.ctc_loss(logits, 1.0 - heard, labels.astype(np.int32), 1.0 - said, blank_id=BLANK)


def negative_log_of_all_paths(logits, labels):
    """Of all paths that collapse to the labels, the negative logarithm of their probability (Graves et al. 2006)."""
    log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    paths = itertools.product(range(logits.shape[1]), repeat=len(logits))
    fitting = [path for path in paths if [c for c, _ in itertools.groupby(path) if c != BLANK] == labels]
    return -np.logaddexp.reduce([sum(log_p[t, c] for t, c in enumerate(path)) for path in fitting])


def test_the_loss_sums_the_probability_of_all_paths():
    sequences = [[1], [2, 2], [], [3, 1, 3], [1, 2, 3, 1], [3, 3, 3], [1, 1, 2], []]
    frames = [1, 3, 5, 6, 4, 5, 6, 0]
    logits = 2 * np.random.RandomState(1).standard_normal((8, 6, 4))
    expected = [negative_log_of_all_paths(logits[i, : frames[i]], row) for i, row in enumerate(sequences[:-1])]
    losses = losses_of(jnp.asarray(logits, jnp.float32), sequences, frames)
    np.testing.assert_allclose(losses, [*expected, 0.0], rtol=2e-6)


@pytest.mark.parametrize("frames", [1, 4])
def test_the_probabilities_of_all_sequences_sum_to_one(frames):
    sequences = [[*row] for length in range(frames + 1) for row in itertools.product([1, 2], repeat=length)]
    logits = np.random.RandomState(2).standard_normal((1, frames, 3)).astype(np.float32)
    losses = losses_of(np.repeat(logits, len(sequences), axis=0), sequences, [frames] * len(sequences))
    assert np.exp(-losses).sum() == pytest.approx(1, rel=1e-6)


def test_losses_gradients_and_hessian_vector_products_agree_with_optax(example):
    logits, rest = example
    direction, weights = jax.random.normal(jax.random.key(0), logits.shape), jnp.arange(1.0, ROWS + 1)

    def derivatives(loss):
        def weighted(logits):
            losses = loss(logits, *rest)
            return losses @ weights, losses

        return jax.jit(lambda logits: jax.jvp(jax.grad(weighted, has_aux=True), (logits,), (direction,)))(logits)

    (gradient, losses), (product, _) = derivatives(ctc_loss)
    (gradient_by_optax, losses_by_optax), (product_by_optax, _) = derivatives(by_optax)
    assert all(np.abs(x).max() > 0.1 for x in (losses_by_optax, gradient_by_optax, product_by_optax))
    np.testing.assert_allclose(losses, losses_by_optax, rtol=1e-5)
    np.testing.assert_allclose(gradient, gradient_by_optax, atol=5e-5)
    np.testing.assert_allclose(product, product_by_optax, atol=2e-4)


def test_half_as_many_turns_as_frames_keep_one_array_each_for_the_pass_back(example):
    logits, rest = example
    program = jax.make_jaxpr(jax.grad(lambda logits: ctc_loss(logits, *rest).sum()))(logits)
    forward = next(eqn for eqn in program.eqns if eqn.primitive.name == "scan")
    kept = [out.aval.shape for out in forward.outvars if out.aval.shape[0] == forward.params["length"]]
    assert kept == [(12, 2, ROWS, 2 * LABELS + 1)]


def test_rows_go_one_by_one_through_vmap(example):
    logits, rest = example

    def of_row(logits, *rest):
        return ctc_loss(logits[None], *(x[None] for x in rest))[0]

    np.testing.assert_allclose(jax.jit(jax.vmap(of_row))(logits, *rest), LOSS(logits, *rest), rtol=1e-6)


def test_what_lies_in_the_padding_does_not_count(example):
    logits, (heard, labels, said) = example
    others = jnp.where(heard[..., None], logits, 9.0), heard, np.where(said, labels, 5).astype(np.uint16), said
    np.testing.assert_allclose(LOSS(*others), LOSS(logits, heard, labels, said), rtol=1e-6)


def test_labels_that_do_not_fit_cost_much_and_have_finite_gradients():
    logits = jnp.asarray(np.random.RandomState(3).standard_normal((4, 5, CLASSES)), jnp.float32)
    sequences, frames = [[1, 2, 3], [2, 2, 2], [1], [1, 2, 1, 2, 3]], [2, 4, 0, 3]

    @jax.jit
    def gradient(logits):
        def total(logits):
            losses = losses_of(logits, sequences, frames)
            return losses.sum(), losses

        return jax.grad(total, has_aux=True)(logits)

    gradients, losses = gradient(logits)
    np.testing.assert_allclose(losses, 1e5, rtol=0.01)
    assert np.isfinite(gradients).all()
