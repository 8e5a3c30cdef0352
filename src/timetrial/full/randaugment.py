"""RandAugment (Cubuk et al. 2020, arXiv:1909.13719) at AlgoPerf's settings: two operations, magnitude 10.

Magnitude 10 is the whole range of each operation in that implementation. Operations are on images of bytes; what a
rotation, a shear, a shift or a cutout leaves empty is grey.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

OPERATIONS_EACH = 2
_GREY = (128, 128, 128)
_ENHANCEMENT = 1.9
"""The weight of the image; that of what has no colour, contrast, brightness or sharpness is 1 less it."""
_BITS = 4
_ADDED, _BELOW = 110, 128
_DEGREES = 30
_SHEAR = 0.3
_SHIFT = 100
"""Pixels."""
_CUTOUT = 80
"""Pixels of a side."""
_PIXELS_A_GREY = 256


def _affine(image: Image.Image, matrix: tuple[float, float, float, float, float, float]) -> Image.Image:
    """The pixel at (x, y) is that nearest to (a x + b y + c, d x + e y + f) in the image: `matrix` is a, b, … f."""
    a, b, c, d, e, f = matrix
    half = 0.5  # Pillow's coordinates are 0 at a pixel's edge, those above in its middle
    placed = (a, b, c + half * (1 - a - b), d, e, f + half * (1 - d - e))
    return image.transform(image.size, Image.Transform.AFFINE, placed, Image.Resampling.NEAREST, fillcolor=_GREY)


def _sign(rng: np.random.RandomState) -> int:
    return 1 - 2 * rng.randint(2)


def auto_contrast(image: Image.Image) -> Image.Image:
    """Each colour's values stretched to 0 … 255."""
    return ImageOps.autocontrast(image)


def equalize(image: Image.Image) -> Image.Image:
    """Each colour's histogram flattened."""
    return ImageOps.equalize(image)


def invert(image: Image.Image) -> Image.Image:
    """The negative."""
    return ImageOps.invert(image)


def rotate(image: Image.Image, rng: np.random.RandomState) -> Image.Image:
    """Turned by 30 degrees about its middle, either way."""
    angle = math.radians(_sign(rng) * _DEGREES)
    cos, sin = math.cos(angle), math.sin(angle)
    x, y = (image.width - 1) / 2, (image.height - 1) / 2
    return _affine(image, (cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y))


def posterize(image: Image.Image) -> Image.Image:
    """The four highest bits of each value."""
    return ImageOps.posterize(image, _BITS)


def solarize(image: Image.Image) -> Image.Image:
    """The negative: at this magnitude AlgoPerf's threshold is 256, which is 0 as a byte, and no value is below it."""
    return invert(image)


def solarize_add(image: Image.Image) -> Image.Image:
    """110 added to the values below 128."""
    return image.point([min(255, value + _ADDED * (value < _BELOW)) for value in range(256)] * 3)


def color(image: Image.Image) -> Image.Image:
    """Further from its greys."""
    return ImageEnhance.Color(image).enhance(_ENHANCEMENT)


def contrast(image: Image.Image) -> Image.Image:
    """Further from a grey that is the number of pixels over 256, not from the image's mean: so AlgoPerf has it."""
    grey = min(255, image.width * image.height // _PIXELS_A_GREY)
    return Image.blend(Image.new("RGB", image.size, (grey, grey, grey)), image, _ENHANCEMENT)


def brightness(image: Image.Image) -> Image.Image:
    """Further from black."""
    return ImageEnhance.Brightness(image).enhance(_ENHANCEMENT)


def sharpness(image: Image.Image) -> Image.Image:
    """Further from itself smoothed; the outermost pixels stay."""
    return ImageEnhance.Sharpness(image).enhance(_ENHANCEMENT)


def shear_x(image: Image.Image, rng: np.random.RandomState) -> Image.Image:
    """Rows pushed sideways by .3 of their distance from the top, either way."""
    return _affine(image, (1, _sign(rng) * _SHEAR, 0, 0, 1, 0))


def shear_y(image: Image.Image, rng: np.random.RandomState) -> Image.Image:
    """Columns pushed up or down by .3 of their distance from the left."""
    return _affine(image, (1, 0, 0, _sign(rng) * _SHEAR, 1, 0))


def translate_x(image: Image.Image, rng: np.random.RandomState) -> Image.Image:
    """100 pixels to a side."""
    return _affine(image, (1, 0, _sign(rng) * _SHIFT, 0, 1, 0))


def translate_y(image: Image.Image, rng: np.random.RandomState) -> Image.Image:
    """100 pixels up or down."""
    return _affine(image, (1, 0, 0, 0, 1, _sign(rng) * _SHIFT))


def cutout(image: Image.Image, rng: np.random.RandomState) -> Image.Image:
    """A square of 80 pixels covered, its middle anywhere (DeVries & Taylor 2017, arXiv:1708.04552)."""
    y, x = rng.randint(image.height), rng.randint(image.width)
    covered = image.copy()
    covered.paste(_GREY, (x - _CUTOUT // 2, y - _CUTOUT // 2, x + _CUTOUT // 2, y + _CUTOUT // 2))
    return covered


SURE: Sequence[Callable[[Image.Image], Image.Image]] = (
    auto_contrast,
    equalize,
    invert,
    posterize,
    solarize,
    solarize_add,
    color,
    contrast,
    brightness,
    sharpness,
)
DRAWN: Sequence[Callable[[Image.Image, np.random.RandomState], Image.Image]] = (
    rotate,
    shear_x,
    shear_y,
    translate_x,
    translate_y,
    cutout,
)
"""Those that are random themselves: in their direction or place."""


def randaugmented(image_hwc: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """An image of bytes (H, W, 3) after two operations drawn at random, one of which may be drawn twice."""
    image = Image.fromarray(image_hwc)
    for choice in rng.randint(len(SURE) + len(DRAWN), size=OPERATIONS_EACH):
        image = SURE[choice](image) if choice < len(SURE) else DRAWN[choice - len(SURE)](image, rng)
    return np.asarray(image)
