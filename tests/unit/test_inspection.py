"""What is read from a program that came without Python: its rows, its constants, its calls out."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from timetrial.isolation.inspection import inspect
from timetrial.problem import ContractError
from timetrial.rows import mark, rows_in

X, KEY = jnp.ones((8, 4)), jax.random.key(0)
P = jnp.ones((4, 2))


def loss(p: Any, x: Any = X) -> Any:
    p, x = mark((p, x), KEY, x.shape[0])
    return jnp.mean((x @ p) ** 2)


def text_of(function: Callable[..., Any], *arguments: Any) -> str:
    return export.export(jax.jit(function))(*arguments).mlir_module()


def descend(p: Any, _: Any = None) -> tuple[Any, None]:
    return p - 0.1 * jax.grad(loss)(p), None


def hessian_product(p: Any) -> Any:
    return jax.jvp(jax.grad(loss), (p,), (p,))[1]


STEPS: dict[str, tuple[Callable[[Any], Any], int]] = {
    "no loss": (lambda p: p + 1, 0),
    "one pass": (loss, 8),
    "a gradient": (jax.grad(loss), 8),
    "a Hessian-vector product": (hessian_product, 16),
    "three turns of a scan": (lambda p: jax.lax.scan(descend, p, None, length=3)[0], 24),
    "a scan within a scan": (
        lambda p: jax.lax.scan(lambda q, _: (jax.lax.scan(descend, q, None, length=2)[0], None), p, None, length=5)[0],
        80,
    ),
    "a loop with fixed bounds": (lambda p: jax.lax.fori_loop(2, 6, lambda i, q: descend(q)[0], p), 32),
    "the dearer branch": (lambda p: jax.lax.cond(p.sum() > 0, lambda q: descend(descend(q)[0])[0], lambda q: q, p), 16),
    "a vmap over rows": (lambda p: jax.vmap(lambda row: jax.grad(loss)(p, row[None]))(X).sum(0), 8),
    "a jit within": (lambda p: jax.jit(descend)(p)[0] + jax.jit(descend)(p)[0], 16),
    "a pass that nobody uses": (lambda p: (loss(p), p)[1], 0),
    "rematerialised, without its value": (lambda p: jax.grad(jax.checkpoint(loss))(p), 8),
    "rematerialised": (lambda p: jax.value_and_grad(jax.checkpoint(loss))(p), 16),
}


@pytest.mark.parametrize("name", STEPS)
def test_the_rows_of_a_program_are_those_of_the_python_it_came_from(name: str):
    step, rows = STEPS[name]

    assert rows_in(jax.jit(step).trace(P).jaxpr.jaxpr) == rows
    assert inspect(text_of(step, P)).rows == rows


@pytest.mark.parametrize("loop", ["while", "a bound that is computed"])
def test_the_rows_in_a_loop_without_a_fixed_number_of_turns_are_unknown(loop: str):
    def turning(p: Any) -> Any:
        return jax.lax.while_loop(lambda q: q.sum() > 0, lambda q: descend(q)[0], p)

    def bounded(p: Any) -> Any:
        return jax.lax.fori_loop(0, p.sum().astype(int), lambda i, q: descend(q)[0], p)

    assert inspect(text_of(turning if loop == "while" else bounded, P)).rows is None


def test_a_loop_without_the_loss_may_turn_as_often_as_it_likes():
    def newton(p: Any) -> Any:
        return jax.lax.while_loop(lambda q: q.sum() > 1, lambda q: q / 2, descend(p)[0])

    assert inspect(text_of(newton, P)).rows == 8


def test_numbers_that_are_written_out_are_counted_and_one_repeated_number_is_not():
    weights = np.random.RandomState(0).standard_normal((64, 32)).astype(np.float32)

    assert inspect(text_of(lambda x: x + weights, jnp.ones((64, 32)))).constant_bytes >= 64 * 32 * 4
    assert inspect(text_of(lambda x: x + jnp.zeros((64, 32)), jnp.ones((64, 32)))).constant_bytes < 64


@pytest.mark.parametrize("dtype", [np.bool_, np.int8, np.uint32, np.float16, jnp.bfloat16, np.complex64])
def test_constants_of_every_type_are_counted_in_bytes(dtype: Any):
    values = (np.arange(4096) % 2).astype(dtype)
    size = values.nbytes if dtype is not np.bool_ else values.size // 8

    counted = inspect(text_of(lambda: jnp.asarray(values))).constant_bytes
    assert size <= counted <= values.nbytes + 64


def test_linear_algebra_and_random_bits_are_allowed():
    def ordinary(p: Any) -> Any:
        q, r = jnp.linalg.qr(p)
        return q @ r + jax.random.normal(KEY, p.shape) + jnp.linalg.svd(p, compute_uv=False).sum() + jnp.sort(p)

    assert inspect(text_of(ordinary, P)).rows == 0


def test_a_callback_is_refused():
    def telling(p: Any) -> Any:
        return jax.pure_callback(lambda x: np.asarray(x), jax.ShapeDtypeStruct(p.shape, p.dtype), p)

    lowered = jax.jit(telling).lower(P).as_text()
    with pytest.raises(ContractError, match="callback"):
        inspect(lowered)


def test_a_call_of_a_library_that_jax_does_not_bring_is_refused():
    text = """
    module { func.func public @main(%0: tensor<2xf32>) -> tensor<2xf32> {
        %1 = stablehlo.custom_call @run_shell(%0) : (tensor<2xf32>) -> tensor<2xf32>
        return %1 : tensor<2xf32>
    } }"""
    with pytest.raises(ContractError, match="run_shell"):
        inspect(text)


def test_an_operation_that_talks_to_the_host_is_refused():
    text = """
    module { func.func public @main(%0: tensor<2xf32>) -> tensor<2xf32> {
        %t = stablehlo.create_token : !stablehlo.token
        %u = "stablehlo.outfeed"(%0, %t) {outfeed_config = ""} :
          (tensor<2xf32>, !stablehlo.token) -> !stablehlo.token
        return %0 : tensor<2xf32>
    } }"""
    with pytest.raises(ContractError, match="outfeed"):
        inspect(text)


@pytest.mark.parametrize("text", ["", "module {", "not a program", "module {}"])
def test_what_is_no_program_is_refused(text: str):
    with pytest.raises(ContractError, match="not a program"):
        inspect(text)


def test_a_program_that_calls_itself_is_refused():
    text = """
    module {
      func.func public @main(%0: tensor<2xf32>) -> tensor<2xf32> {
        %1 = func.call @again(%0) : (tensor<2xf32>) -> tensor<2xf32>
        return %1 : tensor<2xf32>
      }
      func.func private @again(%0: tensor<2xf32>) -> tensor<2xf32> {
        %1 = func.call @again(%0) : (tensor<2xf32>) -> tensor<2xf32>
        return %1 : tensor<2xf32>
      }
    }"""
    with pytest.raises(ContractError, match="calls itself"):
        inspect(text)
