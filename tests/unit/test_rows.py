"""The rows of a step are what really goes through the loss, whatever the step is made of."""

import jax
import jax.numpy as jnp
import pytest

from timetrial.rows import RowsUnknownError, mark, rows_in

KEY = jax.random.key(0)
W = {"a": jnp.ones(3), "b": jnp.ones(())}
X = jnp.arange(24.0).reshape(8, 3)


def loss(w, x, key=KEY):
    w, x = mark((w, x), key, rows=x.shape[0])
    return jnp.mean(jnp.tanh(x @ w["a"] + w["b"]) ** 2)


def rows(f, *args):
    return rows_in(jax.make_jaxpr(f)(*args).jaxpr)


def dot(u, v):
    return sum(jax.tree.leaves(jax.tree.map(lambda a, b: jnp.sum(a * b), u, v)))


HVPS = {
    "forward over reverse": lambda w, v, x: jax.jvp(lambda w: jax.grad(loss)(w, x), (w,), (v,))[1],
    "reverse over reverse": lambda w, v, x: jax.grad(lambda w: dot(jax.grad(loss)(w, x), v))(w),
    "reverse over forward": lambda w, v, x: jax.grad(lambda w: jax.jvp(lambda w: loss(w, x), (w,), (v,))[1])(w),
}


def test_a_loss_and_a_gradient_cost_the_rows_of_the_batch():
    assert rows(loss, W, X) == 8
    assert rows(jax.grad(loss), W, X) == 8
    assert rows(jax.jit(jax.value_and_grad(loss)), W, X) == 8


def test_a_second_gradient_costs_as_much_again():
    def sam(w, x):
        g = jax.grad(loss)(w, x)
        return jax.grad(loss)(jax.tree.map(jnp.add, w, g), x)

    assert rows(sam, W, X) == 16


def test_per_example_gradients_cost_every_row_once():
    assert rows(jax.vmap(jax.grad(loss), in_axes=(None, 0)), W, X[:, None]) == 8


@pytest.mark.parametrize(
    ("axes", "args"),
    [
        ((0, None, None), ({"a": jnp.ones((5, 3)), "b": jnp.ones(5)}, X, KEY)),
        (({"a": None, "b": 0}, None, None), ({"a": jnp.ones(3), "b": jnp.ones(5)}, X, KEY)),
        ((None, None, 0), (W, X, jax.random.split(KEY, 5))),
    ],
    ids=["over all parameters", "over one parameter", "over keys"],
)
def test_a_vmap_over_anything_multiplies_the_rows(axes, args):
    assert rows(jax.vmap(jax.grad(loss), in_axes=axes), *args) == 40


def test_a_scan_multiplies_and_a_fixed_loop_is_a_scan():
    def scanned(w, x):
        return jax.lax.scan(lambda w, _: (jax.tree.map(jnp.subtract, w, jax.grad(loss)(w, x)), None), w, length=10)

    def looped(w, x):
        return jax.lax.fori_loop(0, 10, lambda _, w: jax.tree.map(jnp.subtract, w, jax.grad(loss)(w, x)), w)

    assert rows(scanned, W, X) == 80
    assert rows(looped, W, X) == 80


def test_a_gradient_through_a_scan_is_charged_once_per_turn():
    def total(w, xs):
        return jax.lax.scan(lambda c, x: (c + loss(w, x), None), 0.0, xs)[0]

    assert rows(jax.grad(total), W, jnp.stack([X, 2 * X, 3 * X, 4 * X])) == 32


def test_a_conditional_costs_its_dearer_branch():
    def step(w, x):
        return jax.lax.cond(x[0, 0] > 0, lambda: loss(w, x) + loss(w, x), lambda: loss(w, x[:2]))

    assert rows(step, W, X) == 16


def test_a_while_loop_around_the_loss_is_refused():
    def search(w, x):
        return jax.lax.while_loop(lambda s: s[0] < loss(w, x), lambda s: (s[0] + 1.0,), (0.0,))

    with pytest.raises(RowsUnknownError, match="while loop"):
        rows(search, W, X)


def test_a_while_loop_elsewhere_is_free():
    assert rows(lambda w, x: loss(w, x) + jax.lax.while_loop(lambda s: s < 3, lambda s: s + 1, 0), W, X) == 8


@pytest.mark.parametrize("hvp", HVPS.values(), ids=HVPS)
def test_a_hessian_vector_product_costs_two_gradients(hvp):
    assert rows(hvp, W, W, X) == 16


@pytest.mark.parametrize("hvp", HVPS.values(), ids=HVPS)
def test_the_marker_changes_no_derivative(hvp):
    def bare(w, x):
        return jnp.mean(jnp.tanh(x @ w["a"] + w["b"]) ** 2)

    expected = jax.jvp(lambda w: jax.grad(bare)(w, X), (W,), (W,))[1]
    got = jax.jit(hvp)(W, W, X)
    assert jax.tree.all(jax.tree.map(lambda a, b: jnp.allclose(a, b, rtol=1e-5), got, expected))


def test_derivatives_along_the_inputs_are_charged_too():
    assert rows(lambda w, x: jax.jvp(lambda x: loss(w, x), (x,), (x,)), W, X) == 16


def test_vmapped_directions_are_charged_each():
    directions = {"a": jnp.ones((5, 3)), "b": jnp.ones(5)}
    assert rows(jax.vmap(lambda v: jax.jvp(lambda w: loss(w, X), (W,), (v,))[1]), directions) == 8 + 40


def test_recomputation_is_charged():
    assert rows(jax.value_and_grad(jax.checkpoint(loss)), W, X) == 16


def test_a_pass_whose_result_nobody_uses_is_not_run_and_not_charged():
    assert rows(jax.grad(jax.checkpoint(loss)), W, X) == 8
