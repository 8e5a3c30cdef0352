"""Three problems on the 1,797 handwritten digits that scikit-learn brings: regression, a network, an autoencoder."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from timetrial.data import Arrays
from timetrial.errors import UserError
from timetrial.sweeps.problems.build import dense, dense_init, mlp, small_workload
from timetrial.workload import Array, Batch, PyTree, Workload

PIXELS, CLASSES, LATENTS = 64, 10, 8
TRAIN, VALID = 1200, 297
CITATION = "Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits, UCI; as in scikit-learn"


@functools.cache
def _splits() -> Mapping[str, Arrays]:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError("the digits come with scikit-learn: pip install 'timetrial[sweeps]'") from None
    found: Any = load_digits()
    order = np.random.RandomState(0).permutation(len(found.target))
    pixels, labels = (found.data[order] / 16).astype(np.float32), found.target[order].astype(np.int32)
    parts = {"train": slice(0, TRAIN), "valid": slice(TRAIN, TRAIN + VALID), "test": slice(TRAIN + VALID, None)}
    return {split: {"pixels": pixels[part], "label": labels[part]} for split, part in parts.items()}


def workload(name: str) -> Workload:
    return _autoencoder(name) if name == "digits_vae" else _classifier(name)


_WIDTHS = {"digits_logreg": (PIXELS, CLASSES), "digits_mlp": (PIXELS, 48, 32, CLASSES)}


def _classifier(name: str) -> Workload:
    """Softmax regression by its loss, the network by its error rate."""
    widths = _WIDTHS[name]

    def init(key: Array) -> PyTree:
        return dense_init(key, widths)

    def apply(params: PyTree, batch: Batch, key: Array, train: bool) -> Array:
        del key, train
        return mlp(params, batch["pixels"])

    def wrong(logits: Array, batch: Batch) -> Array:
        return (jnp.argmax(logits, axis=-1) != batch["label"]).astype(jnp.float32)

    return small_workload(
        name,
        task="read handwritten digits",
        init=init,
        apply=apply,
        loss=lambda logits, batch: optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]),
        splits=_splits(),
        loss_type="softmax_cross_entropy",
        wrong=None if len(widths) == 2 else wrong,
        batch_size=32,
        licence="CC-BY-4.0",
        citation=CITATION,
    )


def _autoencoder(name: str) -> Workload:
    """A variational autoencoder (Kingma & Welling 2014): Bernoulli pixels, 8 latents, negative ELBO in nats a row.

    Evaluation takes each latent at its mean, so that the metric has no noise of its own.
    """

    def init(key: Array) -> PyTree:
        first, second = jax.random.split(key)
        return {
            "encoder": dense_init(first, (PIXELS, 32, 2 * LATENTS)),
            "decoder": dense_init(second, (LATENTS, 32, PIXELS)),
        }

    def apply(params: PyTree, batch: Batch, key: Array, train: bool) -> tuple[Array, Array, Array]:
        hidden = jax.nn.relu(dense(params["encoder"][0], batch["pixels"]))
        mean, log_variance = jnp.split(dense(params["encoder"][1], hidden), 2, axis=-1)
        noise = jax.random.normal(key, mean.shape) if train else jnp.zeros_like(mean)
        return mlp(params["decoder"], mean + jnp.exp(log_variance / 2) * noise), mean, log_variance

    def loss(outputs: tuple[Array, Array, Array], batch: Batch) -> Array:
        logits, mean, log_variance = outputs
        pixels = jnp.sum(optax.sigmoid_binary_cross_entropy(logits, batch["pixels"]), axis=-1)
        divergence = jnp.sum(jnp.exp(log_variance) + mean**2 - 1 - log_variance, axis=-1) / 2
        return pixels + divergence

    return small_workload(
        name,
        task="compress handwritten digits",
        init=init,
        apply=apply,
        loss=loss,
        splits={split: {"pixels": arrays["pixels"]} for split, arrays in _splits().items()},
        loss_type="sigmoid_cross_entropy",
        batch_size=32,
        licence="CC-BY-4.0",
        citation=CITATION,
    )
