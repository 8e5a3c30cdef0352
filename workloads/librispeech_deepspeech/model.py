"""Deep Speech 2 (Amodei et al. 2015, arXiv:1512.02595) with LSTMs, in AlgoPerf's sizes.

Shapes: B rows, N samples, S shortened frames, D features, U units of one direction, V classes.
"""

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Initializer
from jax import checkpoint_policies
from jax.ad_checkpoint import checkpoint_name

from timetrial.full.audio import log_mel, masked
from timetrial.full.dropping import dropping
from timetrial.full.speech_layers import XAVIER, BatchNorm, LayerNorm, Shorten, shortened
from timetrial.full.utterances import CLASSES

GATES = ("in", "forget", "cell", "out")
DIRECTIONS = ("forward", "backward")
TURNS = 4
"""Frames that an LSTM takes in one turn of its loop."""


class DeepSpeech(nn.Module):
    """Logits of a class for each shortened frame, float32 (B, S, V).

    Spectra are masked in training; two convolutions shorten them fourfold; LSTMs in both directions, then fully
    connected layers, each behind a norm, add to what is there. `dropout_rate` applies to the shortened frames and to
    what fully connected layers add; it may be traced; 0 computes no mask.
    """

    activation: Literal["relu", "tanh"] = "relu"
    residual: bool = True
    norm: Literal["batch", "layer"] = "batch"
    norm_out: bool = True
    """Whether the last layer stands behind a layer norm."""
    frequency_masks: int = 2
    time_masks: int = 10
    width: int = 512
    lstms: int = 6
    mlps: int = 3

    @nn.compact
    def __call__(
        self,
        audio_bn: jax.Array,
        heard_bn: jax.Array,
        counted_b: jax.Array | None = None,
        *,
        train: bool,
        dropout_rate: Any = 0.0,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """`heard_bn`, bool, tells an utterance from its padding.

        `counted_b`, bool, keeps rows out of the statistics of batch norm; None means that all count.
        """
        spectra_btf, heard_bt = log_mel(audio_bn, heard_bn)
        if train and key is not None:
            key, mask_key = jax.random.split(key)
            masks = {"frequency_masks": self.frequency_masks, "time_masks": self.time_masks}
            spectra_btf = masked(spectra_btf, heard_bt, mask_key, **masks)
        drop = dropping(dropout_rate, key)
        heard_bs = shortened(heard_bt)
        counted_bs = heard_bs if counted_b is None else heard_bs & counted_b[:, None]
        activate = jnp.tanh if self.activation == "tanh" else nn.relu

        def normed(x_bsd: jax.Array, name: str) -> jax.Array:
            if self.norm == "layer":
                return LayerNorm(name=f"{name}_norm")(x_bsd)
            return BatchNorm(train, name=f"{name}_norm")(x_bsd, heard_bs, counted_bs)

        def add(x_bsd: jax.Array, y_bsd: jax.Array) -> jax.Array:
            return x_bsd + y_bsd if self.residual else y_bsd

        x_bsd = drop(Shorten(self.width, activate, name="shorten")(spectra_btf, heard_bt))
        for i in range(self.lstms):
            x_bsd = add(x_bsd, BidirectionalLSTM(name=f"lstm_{i}")(normed(x_bsd, f"lstm_{i}"), heard_bs))
        for i in range(self.mlps):
            hidden_bsd = activate(nn.Dense(self.width, kernel_init=XAVIER, name=f"mlp_{i}")(normed(x_bsd, f"mlp_{i}")))
            x_bsd = add(x_bsd, drop(hidden_bsd * heard_bs[..., None]))
        if self.norm_out:
            x_bsd = LayerNorm(name="norm_out")(x_bsd)
        return nn.Dense(CLASSES, kernel_init=XAVIER, name="head")(x_bsd)


class BidirectionalLSTM(nn.Module):
    """The outputs of one LSTM that reads forwards and of one that reads backwards, side by side: (B, S, D).

    (Hochreiter & Schmidhuber 1997.) What does not depend on the step before is computed for all frames in one product;
    then both directions step together, and keep their gates for the pass back, which computes the rest again: a GPU
    launches a third of the kernels that way (docs/decisions/0007). While a frame is not heard, the state stays at its
    beginning, so that padding changes nothing of what is heard.
    """

    @nn.compact
    def __call__(self, x_bsd: jax.Array, heard_bs: jax.Array) -> jax.Array:
        def stacked(part: str, shape: tuple[int, ...], init: Initializer) -> jax.Array:
            """One array of each direction (z) and gate, gates side by side."""
            names = [[f"{direction}_{gate}_{part}" for gate in GATES] for direction in DIRECTIONS]
            gates = [[self.param(name, init, shape) for name in of_direction] for of_direction in names]
            return jnp.stack([jnp.concatenate(of_direction, axis=-1) for of_direction in gates])

        units = x_bsd.shape[-1] // len(DIRECTIONS)
        inputs_zdg = stacked("input", (x_bsd.shape[-1], units), nn.initializers.lecun_normal())
        hidden_zug = stacked("hidden", (units, units), nn.initializers.orthogonal())
        bias_zg = stacked("bias", (units,), nn.initializers.zeros)

        both_zbsd = jnp.stack([x_bsd, x_bsd[:, ::-1]])
        heard_szb1 = jnp.stack([heard_bs, heard_bs[:, ::-1]]).transpose(2, 0, 1)[..., None]
        from_input_szbg = jnp.einsum("zbsd,zdg->szbg", both_zbsd, inputs_zdg) + bias_zg[:, None]

        @partial(jax.checkpoint, policy=checkpoint_policies.save_only_these_names("gates"), prevent_cse=False)
        def step(state: tuple[jax.Array, jax.Array], now: tuple[jax.Array, jax.Array]) -> Any:
            (cell, hidden), (from_input_zbg, heard_zb1) = state, now
            product_zbg = jnp.einsum("zbu,zug->zbg", hidden, hidden_zug)
            gates_zbg = checkpoint_name(from_input_zbg + product_zbg, "gates")
            into, forget, candidate, out = jnp.split(gates_zbg, len(GATES), axis=-1)
            cell = nn.sigmoid(forget) * cell + nn.sigmoid(into) * jnp.tanh(candidate)
            hidden = nn.sigmoid(out) * jnp.tanh(cell)
            state = jnp.where(heard_zb1, cell, 0.0), jnp.where(heard_zb1, hidden, 0.0)
            return state, state[1]

        empty_zbu = jnp.zeros((len(DIRECTIONS), len(x_bsd), units), x_bsd.dtype)
        _, hidden_szbu = jax.lax.scan(step, (empty_zbu, empty_zbu), (from_input_szbg, heard_szb1), unroll=TURNS)
        return jnp.concatenate([hidden_szbu[:, 0], hidden_szbu[::-1, 1]], axis=-1).swapaxes(0, 1)
