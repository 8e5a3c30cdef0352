"""Workloads of the full track that compile in seconds and fit into little memory, and batches for them."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from timetrial.workload import Workload

SYMBOLS = 500
SMALLER: Mapping[str, Mapping[str, Any]] = {
    "criteo1tb": {"embedding_rows": 512},
    "fastmri": {"width": 4, "pools": 2},
    "finewebedu_lm": {"layers": 1, "width": 64, "symbols": SYMBOLS},
    "imagenet_resnet": {"stages": (1, 1)},
    "imagenet_vit": {"layers": 1},
    "librispeech_conformer": {"layers": 1, "width": 64},
    "librispeech_deepspeech": {"lstms": 1, "mlps": 1, "width": 64},
    "ogbg": {"steps": 2},
    "wmt": {"layers": 1, "width": 64, "symbols": SYMBOLS},
}
"""Fields of models that leave all kinds of layers, and less of each."""
SHORTER: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "image": {"fastmri": (16, 16), "imagenet_resnet": (32, 32, 3), "imagenet_vit": (32, 32, 3)},
    "target": {"fastmri": (16, 16), "wmt": (6,)},
    "source": {"wmt": (6,)},
    "symbols": {"finewebedu_lm": (9,)},
    "audio": {"librispeech_conformer": (8_000,), "librispeech_deepspeech": (8_000,)},
    "labels": {"librispeech_conformer": (3,), "librispeech_deepspeech": (3,)},
    "atoms": {"ogbg": (5, 9)},
    "bonds": {"ogbg": (6, 3)},
    "ends": {"ogbg": (6, 2)},
}


def small_batch(workload: Workload, rows: int) -> dict[str, np.ndarray]:
    """Noise of fewer pixels, frames, symbols, atoms than a batch has, and no more padding than there is room for."""
    base = workload.variant_of or workload.name
    fields = {name: replace(f, shape=SHORTER.get(name, {}).get(base, f.shape)) for name, f in workload.fields.items()}
    batch = replace(workload, fields=fields).random_batch(rows, seed=1)
    for name, of in (("audio_padding", 900), ("label_padding", 2), ("atom_padding", 2), ("bond_padding", 3)):
        if name in batch:
            batch[name] = batch[name] % of
    for name, below in (("ends", 5), ("symbols", SYMBOLS), ("source", SYMBOLS)):
        if name in batch:
            batch[name] = batch[name] % below
    if "source" in batch:
        batch["target"] = batch["target"] % SYMBOLS
    if "share" in batch:
        batch["share"] = np.linspace(0, 1, rows, dtype=np.float32)
    return batch


@cache
def small(base: str) -> Workload:
    """A workload of the full track with less of each kind of layer."""
    module = import_module(f"timetrial.workloads.{base}")
    return module.build(replace(module.MODEL, **SMALLER[base]))
