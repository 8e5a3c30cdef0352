"""An encoder-decoder transformer (Vaswani et al. 2017, arXiv:1706.03762), pre-norm unless a variant says otherwise.

Shapes: B rows, T positions that look and S positions that are looked at, D features, H heads of K features, V symbols.
One table embeds source and target and gives the logits (Press & Wolf 2017, arXiv:1608.05859).
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from timetrial.workloads.verses.pieces import PAD, START, SYMBOLS

from timetrial.workload import Array, PyTree, dropout

HEADS = 4
Sublayer = Callable[[Array], Array]
KeysValues = tuple[Array, Array]
"""Float32 (B, S, H, K) each."""


class Translator(nn.Module):
    """Logits of each symbol of a target, float32 (B, T, V); those at t depend on the source and on symbols before t.

    `dropout_rate` applies to the embeddings and to what each sublayer adds to the residual stream. It may be a traced
    number; the number 0 computes no mask.
    """

    layers: int = 2
    """Of the encoder, and as many of the decoder."""
    width: int = 96
    activation: Literal["relu", "gelu", "tanh"] = "relu"
    gated: bool = False
    """Whether a second projection multiplies the activations (GLU, Shazeer 2020, arXiv:2002.05202)."""
    norm: Literal["layer", "rms"] = "layer"
    norm_place: Literal["pre", "post"] = "pre"
    """Before a sublayer, or after its output was added."""
    attention_scale: float = 1.0
    """Factor on the scores of attention, beside the usual one over the root of a head's features."""
    init_scale: float = 1.0
    """Factor on the deviation of the initial kernels, which is one over the root of the fan-in."""

    def setup(self) -> None:
        def norms() -> list[nn.Module]:
            return [nn.LayerNorm() if self.norm == "layer" else nn.RMSNorm() for _ in range(self.layers)]

        def attentions() -> list[Attention]:
            return [Attention(self.width, self.attention_scale, self.init_scale) for _ in range(self.layers)]

        def mlps() -> list[MLP]:
            return [MLP(self.width, self.activation, self.gated, self.init_scale) for _ in range(self.layers)]

        self.embedding = nn.Embed(SYMBOLS, self.width, embedding_init=nn.initializers.normal(self.width**-0.5))
        self.encoder_attention, self.encoder_mlp = attentions(), mlps()
        self.norm_encoder_attention, self.norm_encoder_mlp = norms(), norms()
        self.decoder_attention, self.cross_attention, self.decoder_mlp = attentions(), attentions(), mlps()
        self.norm_decoder_attention, self.norm_cross_attention, self.norm_decoder_mlp = norms(), norms(), norms()
        if self.norm_place == "pre":
            self.norm_memory, self.norm_out = norms()[0], norms()[0]
        self.bias = self.param("bias", nn.initializers.zeros, (SYMBOLS,))

    def __call__(
        self, source_bs: Array, target_bt: Array, *, dropout_rate: Any = 0.0, key: Array | None = None
    ) -> Array:
        places = iter(range(2 + 5 * self.layers))

        def drop(x: Array) -> Array:
            return x if key is None else dropout(x, dropout_rate, jax.random.fold_in(key, next(places)))

        before_bt = jnp.pad(target_bt[:, :-1].astype(jnp.int32), ((0, 0), (1, 0)), constant_values=START)
        logits_btv, _ = self.decode(before_bt, self.encode(source_bs, drop), drop=drop)
        return logits_btv

    def encode(self, source_bs: Array, drop: Sublayer = lambda x: x) -> tuple[list[KeysValues], Array]:
        """What each layer of the decoder looks at, and where there is something to see: bool (B, 1, 1, S)."""
        seen_b11s = (source_bs != PAD)[:, None, None]
        x_bsd = drop(self._embed(source_bs, jnp.arange(source_bs.shape[1])))
        for i in range(self.layers):
            attention = self.encoder_attention[i]
            x_bsd = self._add(
                x_bsd, self.norm_encoder_attention[i], lambda y, a=attention: a(y, a.keys_values(y), seen_b11s), drop
            )
            x_bsd = self._add(x_bsd, self.norm_encoder_mlp[i], self.encoder_mlp[i], drop)
        if self.norm_place == "pre":
            x_bsd = self.norm_memory(x_bsd)
        return [attention.keys_values(x_bsd) for attention in self.cross_attention], seen_b11s

    def decode(
        self,
        before_bt: Array,
        memory: tuple[Sequence[KeysValues], Array],
        past: Sequence[KeysValues] | None = None,
        first: Any = 0,
        *,
        drop: Sublayer = lambda x: x,
    ) -> tuple[Array, list[KeysValues]]:
        """Logits of the symbols that follow `before_bt`, which stands at the positions first, first + 1, …

        `past` holds each layer's keys and values, filled in for earlier positions; they come back with the new ones.
        """
        places_t = first + jnp.arange(before_bt.shape[1])
        x_btd = drop(self._embed(before_bt, places_t))
        present: list[KeysValues] = []
        for i in range(self.layers):

            def look_back(y_btd: Array, i: int = i) -> Array:
                new = self.decoder_attention[i].keys_values(y_btd)
                if past is not None:
                    new = _write(past[i], new, first)
                present.append(new)
                causal_ts = places_t[:, None] >= jnp.arange(new[0].shape[1])
                return self.decoder_attention[i](y_btd, new, causal_ts[None, None])

            def look_at_source(y_btd: Array, i: int = i) -> Array:
                return self.cross_attention[i](y_btd, memory[0][i], memory[1])

            x_btd = self._add(x_btd, self.norm_decoder_attention[i], look_back, drop)
            x_btd = self._add(x_btd, self.norm_cross_attention[i], look_at_source, drop)
            x_btd = self._add(x_btd, self.norm_decoder_mlp[i], self.decoder_mlp[i], drop)
        if self.norm_place == "pre":
            x_btd = self.norm_out(x_btd)
        return self.embedding.attend(x_btd) + self.bias, present

    def _embed(self, symbols_bt: Array, places_t: Array) -> Array:
        """Embeddings, scaled to unit variance, and positions: sine and cosine of wavelengths from 6 to 600."""
        angles_tk = places_t[:, None] * 100.0 ** -np.linspace(0, 1, self.width // 2, endpoint=False, dtype=np.float32)
        position_td = jnp.concatenate([jnp.sin(angles_tk), jnp.cos(angles_tk)], axis=1)
        return self.embedding(symbols_bt.astype(jnp.int32)) * self.width**0.5 + position_td

    def _add(self, x: Array, norm: Any, sublayer: Sublayer, drop: Sublayer) -> Array:
        return x + drop(sublayer(norm(x))) if self.norm_place == "pre" else norm(x + drop(sublayer(x)))


class Attention(nn.Module):
    """Attention of T positions to S ones; all heads share kernels of shape (D, H * K)."""

    width: int
    scale: float
    init_scale: float

    def setup(self) -> None:
        self.query, self.key, self.value, self.out = (_dense(self.width, self.init_scale, bias=False) for _ in range(4))

    def keys_values(self, x_bsd: Array) -> KeysValues:
        return self._heads(self.key(x_bsd)), self._heads(self.value(x_bsd))

    def __call__(self, x_btd: Array, keys_values: KeysValues, mask: Array) -> Array:
        """`mask` is true where a position may look; it broadcasts to (B, H, T, S)."""
        key_bshk, value_bshk = keys_values
        scores_bhts = jnp.einsum("bthk,bshk->bhts", self._heads(self.query(x_btd)), key_bshk)
        scores_bhts *= self.scale * (self.width // HEADS) ** -0.5
        attention_bhts = jax.nn.softmax(jnp.where(mask, scores_bhts, -1e9))
        return self.out(jnp.einsum("bhts,bshk->bthk", attention_bhts, value_bshk).reshape(x_btd.shape))

    def _heads(self, x_btd: Array) -> Array:
        return x_btd.reshape(*x_btd.shape[:2], HEADS, -1)


class MLP(nn.Module):
    """Two layers, the hidden one three times as wide."""

    width: int
    activation: str
    gated: bool
    init_scale: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        hidden = getattr(jnp if self.activation == "tanh" else nn, self.activation)(self._in("in")(x))
        if self.gated:
            hidden *= self._in("gate")(x)
        return _dense(self.width, self.init_scale, bias=True, name="out")(hidden)

    def _in(self, name: str) -> nn.Dense:
        return _dense(3 * self.width, self.init_scale, bias=True, name=name)


def translate(model: Translator, params: PyTree, source_bs: Array, length: int) -> Array:
    """The most likely symbol after the most likely ones before it, and so on: int32 (B, length)."""

    def write_one(t: Any, state: tuple[Array, PyTree]) -> tuple[Array, PyTree]:
        symbols_bt, past = state
        before_b1 = jax.lax.dynamic_slice_in_dim(symbols_bt, t, 1, axis=1)
        logits_b1v, past = model.apply({"params": params}, before_b1, memory, past, t, method="decode")
        found_b1 = jnp.argmax(logits_b1v, axis=-1).astype(jnp.int32)
        return jax.lax.dynamic_update_slice_in_dim(symbols_bt, found_b1, t + 1, axis=1), past

    memory: Any = model.apply({"params": params}, source_bs, method="encode")
    rows = source_bs.shape[0]
    empty = jnp.zeros((rows, length, HEADS, model.width // HEADS), jnp.float32)
    start = jnp.full((rows, length + 1), START, jnp.int32)
    symbols, _ = jax.lax.fori_loop(0, length, write_one, (start, [(empty, empty)] * model.layers))
    return symbols[:, 1:]


def _write(past: KeysValues, new: KeysValues, first: Any) -> KeysValues:
    keys, values = (jax.lax.dynamic_update_slice_in_dim(p, n, first, axis=1) for p, n in zip(past, new, strict=True))
    return keys, values


def _dense(features: int, scale: float, *, bias: bool, name: str | None = None) -> nn.Dense:
    """A layer whose kernel's deviation is `scale` over the root of the fan-in."""
    init = nn.initializers.variance_scaling(scale**2, "fan_in", "normal")
    return nn.Dense(features, use_bias=bias, kernel_init=init, name=name)
