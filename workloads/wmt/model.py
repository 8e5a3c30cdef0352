"""An encoder-decoder transformer (Vaswani et al. 2017, arXiv:1706.03762), with AlgoPerf's sizes, pre-norm as a rule.

Shapes: B rows, T positions that look and S positions that are looked at, D features, H heads of K features, V symbols.
One table embeds source and target and gives the logits (Press & Wolf 2017, arXiv:1608.05859).

A row may hold several sentences behind each other, each with its `END`: the n-th of the source and the n-th of the
target belong together, and see nothing of the others.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from timetrial.full.dropping import dropping
from timetrial.full.parallel_text import LENGTH, SYMBOLS
from timetrial.full.pieces import END
from timetrial.workload import Array

PAD = START = 0
HEADS = 16
_XAVIER = nn.initializers.xavier_uniform()
Sublayer = Callable[[Array], Array]
KeysValues = tuple[Array, Array]
"""Float32 (B, S, H, K) each."""


class Memory(NamedTuple):
    """What the decoder looks at: each layer's keys and values, and the sentence of each position, int32 (B, S)."""

    keys_values: Sequence[KeysValues]
    sentence_bs: Array


class Translator(nn.Module):
    """Logits of each symbol of a target, float32 (B, T, V); those at t depend on the source and on symbols before t.

    `dropout_rate` applies to the embeddings, to the hidden layer of each MLP and to what each sublayer adds; it may be
    traced; 0 computes no mask.
    """

    activation: Literal["relu", "tanh"] = "relu"
    gated: bool = False
    """Whether a second projection multiplies the activations (GLU, Shazeer 2020, arXiv:2002.05202)."""
    norm_place: Literal["pre", "post"] = "pre"
    """Before a sublayer, or after its output was added."""
    attention_temperature: float = 1.0
    """Factor on the scores of attention, beside the usual one over the root of a head's features."""
    symbols: int = SYMBOLS
    width: int = 1024
    """Of all states and of the hidden layers."""
    layers: int = 6
    """Of the encoder, and as many of the decoder."""

    def setup(self) -> None:
        def norms() -> list[nn.LayerNorm]:
            return [nn.LayerNorm() for _ in range(self.layers)]

        def attentions() -> list[Attention]:
            return [Attention(self.width, self.attention_temperature) for _ in range(self.layers)]

        def mlps() -> list[MLP]:
            return [MLP(self.activation, self.gated) for _ in range(self.layers)]

        self.embedding = nn.Embed(self.symbols, self.width, embedding_init=nn.initializers.normal(1.0))
        self.encoder_attention, self.encoder_mlp = attentions(), mlps()
        self.norm_encoder_attention, self.norm_encoder_mlp = norms(), norms()
        self.decoder_attention, self.cross_attention, self.decoder_mlp = attentions(), attentions(), mlps()
        self.norm_decoder_attention, self.norm_cross_attention, self.norm_decoder_mlp = norms(), norms(), norms()
        if self.norm_place == "pre":
            self.norm_memory, self.norm_out = nn.LayerNorm(), nn.LayerNorm()

    def __call__(
        self, source_bs: Array, target_bt: Array, *, dropout_rate: Any = 0.0, key: Array | None = None
    ) -> Array:
        drop = dropping(dropout_rate, key)
        memory = self.encode(source_bs, drop)
        sentence_bt, place_bt = _sentences(target_bt)
        before_bt = jnp.pad(target_bt[:, :-1], ((0, 0), (1, 0)), constant_values=START)
        x_btd = drop(self._embed(jnp.where(place_bt == 0, START, before_bt), place_bt))
        places = jnp.arange(target_bt.shape[1])
        seen_bts = (sentence_bt[:, :, None] == sentence_bt[:, None]) & (places[:, None] >= places)

        def look_back(i: int) -> Sublayer:
            return lambda y: self.decoder_attention[i](y, self.decoder_attention[i].keys_values(y), seen_bts)

        return self._decode(x_btd, memory, sentence_bt, look_back, drop)

    def encode(self, source_bs: Array, drop: Sublayer = lambda x: x) -> Memory:
        """What each layer of the decoder looks at."""
        sentence_bs, place_bs = _sentences(source_bs)
        seen_bts = sentence_bs[:, :, None] == sentence_bs[:, None]
        x_bsd = drop(self._embed(source_bs, place_bs))
        for i in range(self.layers):
            attention, mlp = self.encoder_attention[i], self.encoder_mlp[i]
            x_bsd = self._add(
                x_bsd,
                self.norm_encoder_attention[i],
                lambda y, a=attention: drop(a(y, a.keys_values(y), seen_bts)),
            )
            x_bsd = self._add(x_bsd, self.norm_encoder_mlp[i], lambda y, m=mlp: m(y, drop))
        if self.norm_place == "pre":
            x_bsd = self.norm_memory(x_bsd)
        return Memory([attention.keys_values(x_bsd) for attention in self.cross_attention], sentence_bs)

    def decode_one(
        self, before_b: Array, memory: Memory, past: Sequence[KeysValues], t: Array
    ) -> tuple[Array, list[KeysValues]]:
        """Logits (B, V) of the symbol at t of the only sentence, behind `before_b`.

        `past` holds each layer's keys and values at earlier positions; they come back with the new ones.
        """
        present: list[KeysValues] = []
        place_b1 = jnp.full((len(before_b), 1), t)

        def look_back(i: int) -> Sublayer:
            def look(y_b1d: Array) -> Array:
                new = self.decoder_attention[i].keys_values(y_b1d)
                present.append(_write(past[i], new, t))
                seen_11s = (jnp.arange(past[i][0].shape[1]) <= t)[None, None]
                return self.decoder_attention[i](y_b1d, present[i], seen_11s)

            return look

        x_b1d = self._embed(before_b[:, None], place_b1)
        logits_b1v = self._decode(x_b1d, memory, jnp.zeros_like(place_b1), look_back, lambda x: x)
        return logits_b1v[:, 0], present

    def _decode(
        self, x_btd: Array, memory: Memory, sentence_bt: Array, look_back: Callable[[int], Sublayer], drop: Sublayer
    ) -> Array:
        """Logits; `look_back` is each layer's attention to the target, which `sentence_bt` parts into sentences."""
        seen_bts = sentence_bt[:, :, None] == memory.sentence_bs[:, None]
        for i in range(self.layers):
            attention, mlp = self.cross_attention[i], self.decoder_mlp[i]
            x_btd = self._add(x_btd, self.norm_decoder_attention[i], lambda y, i=i: drop(look_back(i)(y)))
            x_btd = self._add(
                x_btd,
                self.norm_cross_attention[i],
                lambda y, a=attention, i=i: drop(a(y, memory.keys_values[i], seen_bts)),
            )
            x_btd = self._add(x_btd, self.norm_decoder_mlp[i], lambda y, m=mlp: m(y, drop))
        if self.norm_place == "pre":
            x_btd = self.norm_out(x_btd)
        return self.embedding.attend(x_btd) * self.width**-0.5

    def _embed(self, symbols_bt: Array, places_bt: Array) -> Array:
        """Embeddings and places: sines and cosines at wavelengths from 2 pi to 2 pi x 10,000."""
        angles = np.arange(LENGTH)[:, None] * 10_000.0 ** -np.linspace(0, 1, self.width // 2)
        place_td = np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)
        return self.embedding(symbols_bt.astype(jnp.int32)) + jnp.asarray(place_td)[places_bt]

    def _add(self, x: Array, norm: nn.LayerNorm, sublayer: Sublayer) -> Array:
        return x + sublayer(norm(x)) if self.norm_place == "pre" else norm(x + sublayer(x))


class Attention(nn.Module):
    """Attention of T positions to S ones; all heads share kernels of shape (D, H * K)."""

    width: int
    temperature: float

    def setup(self) -> None:
        self.query, self.key, self.value, self.out = (
            nn.Dense(self.width, use_bias=False, kernel_init=_XAVIER) for _ in range(4)
        )

    def keys_values(self, x_bsd: Array) -> KeysValues:
        return _heads(self.key(x_bsd)), _heads(self.value(x_bsd))

    def __call__(self, x_btd: Array, keys_values: KeysValues, seen_bts: Array) -> Array:
        """`seen_bts` is true where a position may look; it broadcasts to (B, T, S)."""
        scale = self.temperature * (self.width // HEADS) ** -0.5
        mixed = jax.nn.dot_product_attention(
            _heads(self.query(x_btd)), *keys_values, mask=seen_bts[:, None], scale=scale
        )
        return self.out(mixed.reshape(x_btd.shape))


class MLP(nn.Module):
    """Two layers of one width; drops features of the hidden one and of what comes out."""

    activation: str
    gated: bool

    @nn.compact
    def __call__(self, x: Array, drop: Sublayer) -> Array:
        hidden = (jnp.tanh if self.activation == "tanh" else nn.relu)(self._dense("in", x))
        if self.gated:
            hidden *= self._dense("gate", x)
        return drop(self._dense("out", drop(hidden)))

    def _dense(self, name: str, x: Array) -> Array:
        bias_init = nn.initializers.normal(1e-6)
        return nn.Dense(x.shape[-1], kernel_init=_XAVIER, bias_init=bias_init, name=name)(x)


def _sentences(symbols_bt: Array) -> tuple[Array, Array]:
    """The number of each position's sentence, int32 (B, T), -1 where there is padding; and its place in it."""
    ends_bt = symbols_bt == END
    sentence_bt = jnp.cumsum(ends_bt, axis=1) - ends_bt
    places = jnp.arange(symbols_bt.shape[1])
    first_bt = jnp.pad(ends_bt[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    begin_bt = jax.lax.cummax(jnp.where(first_bt, places, 0), axis=1)
    return jnp.where(symbols_bt == PAD, -1, sentence_bt), places - begin_bt


def _heads(x_btd: Array) -> Array:
    return x_btd.reshape(*x_btd.shape[:2], HEADS, -1)


def _write(past: KeysValues, new: KeysValues, place: Any) -> KeysValues:
    keys, values = (jax.lax.dynamic_update_slice_in_dim(p, n, place, axis=1) for p, n in zip(past, new, strict=True))
    return keys, values
