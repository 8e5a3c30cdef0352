"""The next character of a made-up language, with a small recurrent network (as DeepOBS's tolstoi_char_rnn).

The language has 200 words of consonant-vowel syllables, drawn by Zipf's law: a model that has learnt the spelling is
uncertain at the beginnings of words alone. numpy's legacy generator keeps the text the same for ever.
"""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax

from timetrial.data import Arrays
from timetrial.sweeps.problems.build import dense, dense_init, small_workload
from timetrial.workload import Array, Batch, PyTree, Workload

CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"
SYMBOLS = " " + CONSONANTS + VOWELS
WORDS, CONTEXT, WIDTH = 200, 20, 32
ROWS = {"train": 4000, "valid": 256, "test": 256}


@functools.cache
def _splits() -> Mapping[str, Arrays]:
    rng = np.random.RandomState(7)

    def word() -> str:
        def pick(letters: str) -> str:
            return letters[rng.randint(len(letters))]

        return "".join(pick(CONSONANTS) + pick(VOWELS) for _ in range(rng.randint(1, 4)))

    words = [word() for _ in range(WORDS)]
    chances = 1 / np.arange(1, WORDS + 1)
    length = sum(ROWS.values()) * (CONTEXT + 1)
    drawn = rng.choice(WORDS, length, p=chances / chances.sum())
    text = " ".join(words[i] for i in drawn)[:length]
    codes = np.array([SYMBOLS.index(symbol) for symbol in text], np.int32).reshape(-1, CONTEXT + 1)
    ends = np.cumsum(list(ROWS.values()))[:-1]
    return {split: {"symbols": part} for split, part in zip(ROWS, np.split(codes, ends), strict=True)}


def workload(name: str) -> Workload:
    """An Elman network of 32 tanh units that begins each row anew; the metric is nats a character."""

    def init(key: Array) -> PyTree:
        keys = jax.random.split(key, 3)
        embedding, recurrent, out = (dense_init(k, w)[0] for k, w in zip(keys, _WIDTHS, strict=True))
        return {"embedding": embedding["kernel"], "recurrent": recurrent, "out": out}

    def apply(params: PyTree, batch: Batch, key: Array, train: bool) -> Array:
        """Logits of symbols 1 to CONTEXT, each from those before it: float32 (B, CONTEXT, symbols)."""
        del key, train
        inputs_tbw = params["embedding"][batch["symbols"][:, :-1].T]

        def step(hidden_bw: Array, input_bw: Array) -> tuple[Array, Array]:
            hidden_bw = jnp.tanh(input_bw + dense(params["recurrent"], hidden_bw))
            return hidden_bw, hidden_bw

        _, hidden_tbw = jax.lax.scan(step, jnp.zeros_like(inputs_tbw[0]), inputs_tbw)
        return dense(params["out"], hidden_tbw).swapaxes(0, 1)

    def loss(logits: Array, batch: Batch) -> Array:
        return jnp.sum(optax.softmax_cross_entropy_with_integer_labels(logits, batch["symbols"][:, 1:]), axis=1)

    return small_workload(
        name,
        task="predict the next character of a made-up language",
        init=init,
        apply=apply,
        loss=loss,
        splits=_splits(),
        loss_type="softmax_cross_entropy",
        terms=float(CONTEXT),
        batch_size=16,
    )


_WIDTHS = ((len(SYMBOLS), WIDTH), (WIDTH, WIDTH), (WIDTH, len(SYMBOLS)))
