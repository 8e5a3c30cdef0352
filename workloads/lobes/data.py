"""The images of `lobes`: coloured gratings with a closed curve of 2 to 9 lobes on clutter, made from nothing.

The bytes must be the same on every machine and under every version of numpy, because their SHA-256 is a lock. So the
only randomness is `np.random.RandomState.random_sample`, a stream that numpy has frozen (NEP 19), and the only
arithmetic is what IEEE 754 defines to the last bit: + - * / and sqrt, floor, abs, minimum, maximum and comparisons in
float64, one array operation at a time. Sines, powers, exponentials, hypotenuses and sums over an axis differ between
processors and versions: none of them occurs here.

A row consumes a fixed number of draws, so the first n rows of a split do not depend on how many are made. Shapes: N
rows, 32 x 32 pixels, 3 colours; scalars of an image have the shape (N, 1, 1).
"""

from collections.abc import Callable, Iterator

import numpy as np

from timetrial.data import Dataset

FEWEST_LOBES = 2
CLASSES = 8
SIDE = 32
ROWS = {"train": 50_000, "valid": 4_096, "test": 4_096}
SEEDS = {"train": 1, "valid": 2, "test": 3}

_SCALARS = 56
_PIXELS = SIDE * SIDE * 3
_CHUNK = 128
_CLUTTER = 3
_TAN_PI_16 = 0.1989123673796580
_NOISE = 0.15

Floats = np.ndarray
Uniform = Callable[[float, float], Floats]


def make_rows(rows: int, seed: int) -> dict[str, np.ndarray]:
    """The first `rows` rows of the stream `seed`: image, uint8 (N, 32, 32, 3), and label, int32 (N,)."""
    random = np.random.RandomState(seed)
    image = np.empty((rows, SIDE, SIDE, 3), np.uint8)
    label = np.empty(rows, np.int32)
    for first in range(0, rows, _CHUNK):
        chunk = slice(first, min(first + _CHUNK, rows))
        draws = random.random_sample((chunk.stop - chunk.start, _SCALARS + 2 * _PIXELS))
        image[chunk], label[chunk] = _draw(draws[:, :_SCALARS], draws[:, _SCALARS:])
    return {"image": image, "label": label}


def _draw(scalars: Floats, noise: Floats) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels from uniform draws: (N, `_SCALARS`), and two for each value of a pixel."""
    columns: Iterator[Floats] = iter(scalars.T)

    def uniform(low: float, high: float) -> Floats:
        return low + (high - low) * next(columns)[:, None, None]

    label = np.floor(uniform(0, CLASSES))
    y, x = _grid()
    ground = _texture(uniform, x, y)
    for _ in range(_CLUTTER):
        dx, dy, radius = x - uniform(-1, 1), y - uniform(-1, 1), uniform(0.05, 0.2)
        ground = np.where((dx * dx + dy * dy < radius * radius)[..., None], _colour(uniform), ground)
    figure = _texture(uniform, x, y)
    inside = _inside(uniform, x, y, label + FEWEST_LOBES)[..., None]
    noisy = (
        ground + (figure - ground) * inside + _NOISE * (noise[:, :_PIXELS] - noise[:, _PIXELS:]).reshape(ground.shape)
    )
    image = np.minimum(np.maximum(noisy, 0), 1) * 255
    return image.astype(np.uint8), label[:, 0, 0].astype(np.int32)


def _grid() -> tuple[Floats, Floats]:
    """The pixels' y and x in (-1, 1), broadcastable to (1, 32, 32)."""
    centres = (2 * np.arange(SIDE) + 1) / SIDE - 1
    return centres[None, :, None], centres[None, None, :]


def _direction(uniform: Uniform) -> tuple[Floats, Floats]:
    """A random direction (cos a, sin a), its density within 4 % of uniform.

    t = tan(a / 16) is uniform; tangents of half angles are rational, and three doublings make 2 a / 16 into a.
    """
    t = uniform(-_TAN_PI_16, _TAN_PI_16)
    cos, sin = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    for _ in range(3):
        cos, sin = cos * cos - sin * sin, 2 * cos * sin
    return cos, sin


def _colour(uniform: Uniform) -> Floats:
    """A random colour, (N, 1, 1, 3)."""
    return np.stack([uniform(0, 1), uniform(0, 1), uniform(0, 1)], axis=-1)


def _texture(uniform: Uniform, x: Floats, y: Floats) -> Floats:
    """A colour that a grating of random direction, frequency and contrast blends with another, (N, 32, 32, 3)."""
    first, second = _colour(uniform), _colour(uniform)
    cos, sin = _direction(uniform)
    phase = uniform(0.5, 3.5) * (x * cos + y * sin) + uniform(0, 1)
    triangle = np.abs(2 * (phase - np.floor(phase)) - 1)
    wave = triangle * triangle * (3 - 2 * triangle)
    return first + (second - first) * (wave * uniform(0.1, 0.45))[..., None]


def _inside(uniform: Uniform, x: Floats, y: Floats, lobes: Floats) -> Floats:
    """How much of each pixel lies inside the curve, in [0, 1], (N, 32, 32).

    In polar coordinates (r, a) of a shifted, rotated and stretched plane the curve is r = R (1 - depth (1 - w)), where
    w in [0, 1] has `lobes` equal maxima: |cos(lobes a / 2)| with its peaks blunted or sharpened.
    """
    cos, sin = _direction(uniform)
    stretch_x, stretch_y = uniform(0.75, 1.2), uniform(0.75, 1.2)
    x, y = x - uniform(-0.12, 0.12), y - uniform(-0.12, 0.12)
    x, y = (x * cos + y * sin) / stretch_x, (y * cos - x * sin) / stretch_y
    r = np.sqrt(x * x + y * y)
    wave = np.sqrt(np.maximum(1 + _cos_multiple(x / np.maximum(r, 1e-9), lobes), 0) / 2)
    blunt, sharp = np.sqrt(wave), wave * wave
    wave = blunt + (sharp - blunt) * uniform(0.1, 1)
    edge = uniform(0.7, 0.95) * (1 - uniform(0.3, 0.55) * (1 - wave))
    return np.minimum(np.maximum((edge - r) * (SIDE / 3) + 0.5, 0), 1)


def _cos_multiple(cos: Floats, multiple: Floats) -> Floats:
    """cos(multiple * a) for cos = cos a, by the Chebyshev recurrence; `multiple` is a whole number for each row."""
    before, now = cos, 2 * cos * cos - 1
    result = now
    for k in range(FEWEST_LOBES + 1, FEWEST_LOBES + CLASSES):
        before, now = now, 2 * cos * now - before
        result = np.where(multiple == k, now, result)
    return result


DATASET = Dataset(
    name="lobes",
    version="1.0.0",
    generate=lambda: {split: make_rows(ROWS[split], SEEDS[split]) for split in ROWS},
    sha256="c2ad7671903fb875f50e126f471465eedb8c80f61eeb65a52e970d5845a8aa4a",
    packages={},
    licence="Apache-2.0: generated by this file",
    citation="Generated by timetrial, workloads/lobes/data.py.",
)
