"""Photographs decoded, cropped and brought to one size, as AlgoPerf's ImageNet pipeline prescribes.

Its crops are those of TensorFlow's `sample_distorted_bounding_box` with the whole image for a box: the aspect is
uniform, the height is uniform between those of the smallest and the largest crop of this aspect, and crops below a
tenth of the image are drawn again. It resizes without a low-pass filter. Shapes: H, W of an image, C = 3 colours.
"""

import io
from typing import Any, NamedTuple

import numpy as np

from timetrial.full.extra import extra

ASPECTS = (3 / 4, 4 / 3)
"""Least and largest width over height of a random crop."""
_SMALLEST, _COVERED = 0.08, 0.1
"""Shares of the image: heights are drawn from that of the former up; crops of less than the latter are refused."""
_ATTEMPTS = 10
_MARGIN = 224 / 256
"""The central crop's side over the image's shorter one."""


class Box(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


def decoded(encoded: bytes) -> np.ndarray:
    """The pixels of an encoded image, uint8 (H, W, C); grey, CMYK and palettes become red, green and blue."""
    with extra("PIL.Image").open(io.BytesIO(encoded)) as image:
        return np.asarray(image.convert("RGB"))


def random_box(height: int, width: int, rng: np.random.RandomState) -> Box:
    """A crop of an image of this size; the central one where ten attempts fail, or where it would be all of it."""
    for _ in range(_ATTEMPTS):
        aspect = rng.uniform(*ASPECTS)
        highest = min(height, round((height * width / aspect) ** 0.5), int((width + 0.5) / aspect))
        lowest = min(highest, round((_SMALLEST * height * width / aspect) ** 0.5))
        h = rng.randint(lowest, highest + 1)
        w = min(width, round(h * aspect))
        if h * w >= _COVERED * height * width:
            if (h, w) == (height, width):
                break
            # The last place on each axis is never drawn, as in TensorFlow.
            return Box(rng.randint(max(1, height - h)), rng.randint(max(1, width - w)), h, w)
    return central_box(height, width)


def central_box(height: int, width: int) -> Box:
    """The square in the middle whose side is 7/8 of the image's shorter one."""
    side = int(_MARGIN * min(height, width))
    return Box((height - side + 1) // 2, (width - side + 1) // 2, side, side)


def resized(image_hwc: np.ndarray, box: Box, side: int) -> np.ndarray:
    """A part of an image with `side` pixels each way, uint8: bicubic (Keys 1981, a = -1/2), rounded and clipped."""
    top, left, height, width = box
    part = image_hwc[top : top + height, left : left + width].astype(np.float32)
    rows = _weights(height, side) @ part.reshape(height, -1)
    columns = _weights(width, side) @ rows.reshape(side, width, 3).swapaxes(0, 1).reshape(width, -1)
    pixels = columns.reshape(side, side, 3).swapaxes(0, 1)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _weights(old: int, new: int) -> Any:
    """What each of `new` pixels takes from `old` ones, a sparse matrix: four of them, less those beyond the edge."""
    from scipy.sparse import csr_array

    middle = (np.arange(new)[:, None] + 0.5) * (old / new) - 0.5
    place = np.floor(middle).astype(np.int32) + np.arange(-1, 3)
    far = np.abs(middle - place)
    near = (1.5 * far - 2.5) * far * far + 1
    beyond = ((-0.5 * far + 2.5) * far - 4) * far + 2
    weight = np.where(far < 1, near, np.where(far < 2, beyond, 0)) * ((place >= 0) & (place < old))
    weight = (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)
    starts = np.arange(0, 4 * new + 1, 4)
    return csr_array((weight.reshape(-1), np.clip(place, 0, old - 1).reshape(-1), starts), shape=(new, old))
