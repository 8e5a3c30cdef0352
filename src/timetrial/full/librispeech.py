"""LibriSpeech: fields of a row, loss and metrics, the same for every model, and the workload that they make with one.

A model is called with samples, which of them are heard, and (or None) which rows count in the statistics of batch norm;
and by name with `train`, `dropout_rate` and `key`. It gives logits, and may keep `batch_stats`.

Shapes: B rows, N samples, T frames, S shortened frames, L labels, V classes.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.data import AnyDataset
from timetrial.full import pieces
from timetrial.full.audio import FRAME, heard_frames
from timetrial.full.ctc import BLANK, ctc_loss
from timetrial.full.padding import before_padding
from timetrial.full.speech_layers import shortened
from timetrial.full.utterances import CLASSES, DATASET, LABELS, SAMPLES
from timetrial.metrics.words import word_error_rate
from timetrial.workload import Array, Batch, Field, PyTree, Workload, row_weights

FIELDS = {
    "audio": Field((SAMPLES,), np.int16, below=2**15),
    "audio_padding": Field((), np.int32, below=SAMPLES - FRAME + 1),
    "labels": Field((LABELS,), np.uint16, below=CLASSES),
    "label_padding": Field((), np.int32, below=LABELS),
}
"""At most 20 s of samples and 256 pieces of words; the paddings are the numbers of those behind what was said."""
DROPOUT_RATE = 0.1
"""Where a submission asks for no other rate."""


def heard(batch: Batch) -> Array:
    """Which samples an utterance takes, bool (B, N)."""
    return before_padding(batch["audio"].shape[1], batch["audio_padding"])


def _said(batch: Batch) -> Array:
    """Which labels a row has, bool (B, L)."""
    return before_padding(batch["labels"].shape[1], batch["label_padding"])


def _heard_shortened(batch: Batch) -> Array:
    """Which shortened frames an utterance takes, bool (B, S)."""
    return shortened(heard_frames(heard(batch)))


def loss(outputs: Array, batch: Batch, *, label_smoothing: Any = 0.0) -> tuple[Array, Array]:
    """The negative log-likelihood of a row's labels under CTC, in nats, and their number. There is no label smoothing.

    `outputs` are logits (B, S, V). Labels that do not fit into the frames cost about 1e5 (Graves et al. 2006).
    """
    del label_smoothing
    said_bl = _said(batch)
    losses = ctc_loss(outputs, _heard_shortened(batch), batch["labels"], said_bl)
    return losses, jnp.sum(said_bl, axis=1, dtype=jnp.float32)


def decode(path: np.ndarray) -> np.ndarray:
    """The labels of a path of classes, one a frame: repetitions merged, then blanks dropped (greedy decoding)."""
    merged = path[np.append(True, path[1:] != path[:-1])]
    return merged[merged != BLANK]


def finalize(accumulated: Mapping[str, np.ndarray], data: AnyDataset = DATASET) -> dict[str, float]:
    """Nats a label (`loss`), and the word error rate of the likeliest path (`wer`), spelt with the pieces of `data`."""
    vocabulary = pieces.read(data)
    said = [pieces.spell(decode(path).tolist(), vocabulary) for path in accumulated["path"]]
    meant = [pieces.spell(labels.tolist(), vocabulary) for labels in accumulated["labels"]]
    return {"loss": float(accumulated["loss"] / accumulated["terms"]), "wer": word_error_rate(said, meant)}


def build(
    model: Any, data: AnyDataset, *, name: str, rows_coupled: bool, param_info: Callable[[PyTree], PyTree]
) -> Workload:
    """The workload with this model on these data; `param_info` describes the parameters."""

    def init(key: Array) -> tuple[PyTree, PyTree]:
        variables = model.init(key, jnp.zeros((1, FRAME), jnp.int16), jnp.ones((1, FRAME), bool), None, train=False)
        return variables["params"], variables.get("batch_stats", {})

    def apply(
        params: PyTree, model_state: PyTree, batch: Batch, key: Array, *, train: bool, dropout_rate: Any = None
    ) -> tuple[Array, PyTree]:
        """Logits (B, S, V). In training batch norm's statistics are of the heard frames of rows that count."""
        variables = {"params": params, "batch_stats": model_state}
        inputs = batch["audio"], heard(batch), batch["weights"] > 0 if "weights" in batch else None
        if not train:
            return model.apply(variables, *inputs, train=False), model_state
        rate = DROPOUT_RATE if dropout_rate is None else dropout_rate
        logits, updated = model.apply(
            variables, *inputs, train=True, dropout_rate=rate, key=key, mutable=["batch_stats"]
        )
        return logits, updated.get("batch_stats", {})

    def evaluate(params: PyTree, model_state: PyTree, batch: Batch) -> dict[str, Array]:
        """Sums over the rows that count; each row's likeliest path and its labels, uint16, blanks where they end."""
        logits, _ = apply(params, model_state, batch, jax.random.key(0), train=False)
        losses, terms = loss(logits, batch)
        weights = row_weights(batch, len(logits))
        return {
            "loss": jnp.sum(losses * weights),
            "terms": jnp.sum(terms * weights),
            "path": jnp.where(_heard_shortened(batch), jnp.argmax(logits, axis=-1), BLANK).astype(jnp.uint16),
            "labels": jnp.where(_said(batch), batch["labels"], BLANK).astype(jnp.uint16),
        }

    return Workload(
        name=name,
        track="full",
        task="write down what was read aloud from a book",
        init=init,
        apply=apply,
        loss=loss,
        evaluate=evaluate,
        finalize=partial(finalize, data=data),
        data=data,
        train_eval_rows=5_376,
        fields=FIELDS,
        loss_type="ctc",
        metric="wer",
        better="lower",
        param_info=param_info(jax.eval_shape(init, jax.random.key(0))[0]),
        default_batch_size=256,
        max_batch_size=1024,
        eval_batch_size=256,
        rows_coupled=rows_coupled,
        has_dropout=True,
    )
