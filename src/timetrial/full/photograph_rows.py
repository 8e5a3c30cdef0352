"""Rows of photographs: cropped and flipped for a ResNet; augmented and mixed too for a ViT.

What AlgoPerf prescribes of it is in `crops` and `randaugment`. Where nothing is random, rows are the central crops.
"""

import numpy as np

from timetrial.full import crops
from timetrial.full.recorded import Example, Pipeline, Row

SIDE = 224
MIXED = 0.2
"""The parameter alpha of mixup (Zhang et al. 2018, arXiv:1710.09412)."""


def cropped(example: Example, rng: np.random.RandomState | None) -> Row:
    """`image`, uint8 (224, 224, 3), and `label`."""
    image_hwc = crops.decoded(example["image"])
    height, width, _ = image_hwc.shape
    box = crops.central_box(height, width) if rng is None else crops.random_box(height, width, rng)
    pixels = crops.resized(image_hwc, box, SIDE)
    if rng is not None and rng.randint(2):
        pixels = pixels[:, ::-1]
    return {"image": pixels, "label": np.asarray(example["label"], np.int32)}


def augmented(example: Example, rng: np.random.RandomState | None) -> Row:
    """The same with RandAugment, as an image that is not mixed yet."""
    row = cropped(example, rng)
    if rng is not None:
        from timetrial.full.randaugment import randaugmented

        row["image"] = randaugmented(row["image"], rng)
    return {**row, "second_label": row["label"], "share": np.ones((), np.float32)}


def mixed(first: Row, second: Row, rng: np.random.RandomState) -> tuple[Row, Row]:
    """Each with some of the other, the same share of both; rounded to bytes."""
    share = np.float32(rng.beta(MIXED, MIXED))

    def mix(row: Row, other: Row) -> Row:
        image = share * row["image"] + (1 - share) * other["image"].astype(np.float32)
        return {
            "image": np.rint(image).astype(np.uint8),
            "label": row["label"],
            "second_label": other["label"],
            "share": np.asarray(share),
        }

    return mix(first, second), mix(second, first)


CROPPED = Pipeline(row=cropped)
MIXED_PAIRS = Pipeline(row=augmented, mix=mixed)
