"""The learning-rate schedules."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from timetrial import warmup_cosine


def test_warmup_is_linear_and_the_cosine_passes_half_the_peak_half_way():
    rates = np.array(jax.vmap(warmup_cosine(0.4, 109, warmup_fraction=10 / 109))(jnp.arange(110)))
    np.testing.assert_allclose(rates[:10], 0.04 * np.arange(1, 11), rtol=1e-6)
    np.testing.assert_allclose(rates[[9, 59, 109]], [0.4, 0.2, 0.0], atol=1e-7)


@settings(max_examples=30, deadline=None)
@given(steps=st.integers(1, 400), fraction=st.floats(0, 1), beyond=st.integers(0, 1000))
def test_the_rate_rises_to_the_peak_then_falls_to_zero_and_stays_there(steps: int, fraction: float, beyond: int):
    rates = np.array(warmup_cosine(2.0, steps, fraction)(jnp.arange(400)))[:steps]
    top = int(rates.argmax())
    assert np.isclose(rates[top], 2.0)
    assert np.all(np.diff(rates[: top + 1]) > 0)
    assert np.all(np.diff(rates[top:]) <= 1e-6)
    assert np.all(rates > 0)
    assert float(warmup_cosine(2.0, steps, fraction)(steps + beyond)) == 0


def test_a_traced_peak_gives_the_same_rates_as_a_number():
    rates = jax.jit(lambda peak, count: warmup_cosine(peak, 50)(count))
    assert float(rates(jnp.float32(0.3), jnp.int32(20))) == float(jax.jit(warmup_cosine(0.3, 50))(jnp.int32(20)))
