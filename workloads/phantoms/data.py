"""The images of `phantoms`: head-like slices made from nothing, and what a quarter of their k-space shows of them.

The bytes must be the same on every machine and under every version of numpy, because their SHA-256 is a lock. Three
kinds of arithmetic occur, and each has one correct result:

- `np.random.RandomState.random_sample`, a stream that numpy has frozen (NEP 19);
- in float64, one array operation at a time, what IEEE 754 defines to the last bit: + - * / and sqrt, floor, rint, abs,
  minimum, maximum and comparisons;
- matrix products of dyadic numbers with so few bits that each sum is exact in float64, in whatever order it is taken.
  For them cosines, splines and k-space are rounded to a fixed number of binary digits, as a scanner's converter does.

A row consumes a fixed number of draws, so the first n rows of a split do not depend on how many are made. Shapes: N
rows, images of 64 x 64 pixels (y, then x); scalars of an image have the shape (N, 1, 1). Readout is along y and fully
sampled, so that its Fourier transform and the inverse cancel: only the phase-encoding axis x is ever transformed.
"""

from collections.abc import Callable, Iterator

import numpy as np

from timetrial.data import Dataset

SIDE = 64
ROWS = {"train": 6_144, "valid": 256, "test": 512}
SEEDS = {"train": 1, "valid": 2, "test": 3}
ACCELERATION = 4
CENTRE = 5
"""Columns in the middle of k-space that every mask holds: fastMRI's 8 % of 64."""
NOISE = 6.0
"""Standard deviation that the noise would give each pixel's real and imaginary part if all of k-space were sampled."""

_CHUNK = 128
_LESIONS = 12
_SCALARS = 128
_CELLS = {"warp_x": 4, "warp_y": 4, "folds": 11, "white": 6, "ventricle": 5, "bias": 2, "texture": 20}
_KNOTS = {name: (cells + 3) ** 2 for name, cells in _CELLS.items()}
_TAN_PI_16 = 0.1989123673796580

Floats = np.ndarray
Uniform = Callable[[float, float], Floats]


def make_rows(rows: int, seed: int) -> dict[str, np.ndarray]:
    """The first `rows` rows of the stream `seed`: `zero_filled` and `image`, uint8 (N, 64, 64), in one grey scale."""
    random = np.random.RandomState(seed)
    made = {name: np.empty((rows, SIDE, SIDE), np.uint8) for name in ("zero_filled", "image")}
    sizes = np.cumsum([_SCALARS, sum(_KNOTS.values()), SIDE])
    for first in range(0, rows, _CHUNK):
        chunk = slice(first, min(first + _CHUNK, rows))
        draws = random.random_sample((chunk.stop - chunk.start, int(sizes[-1]) + 4 * SIDE * SIDE))
        scalars, knots, columns, noise = np.split(draws, sizes, axis=1)
        columns_of: Iterator[Floats] = iter(scalars.T)

        def uniform(low: float, high: float, columns_of: Iterator[Floats] = columns_of) -> Floats:
            return low + (high - low) * next(columns_of)[:, None, None]

        image = _phantom(uniform, _fields(knots))
        made["image"][chunk] = image
        made["zero_filled"][chunk] = _zero_filled(image, _phase(uniform), _mask(columns), _noise(noise))
    return made


def _phantom(uniform: Uniform, field: dict[str, Floats]) -> Floats:
    """Scalp, skull, grey matter with folds, white matter, ventricles and lesions; whole grey levels in [0, 255]."""
    y, x = _grid()
    cos, sin = _direction(uniform)
    x, y = x - uniform(-0.06, 0.06), y - uniform(-0.06, 0.06)
    x, y = x * cos + y * sin + 0.06 * field["warp_x"], y * cos - x * sin + 0.06 * field["warp_y"]
    a, b = uniform(0.66, 0.84), uniform(0.56, 0.76)
    radius = np.sqrt((x / a) * (x / a) + (y / b) * (y / b))

    def step(inside: Floats, pixels: float) -> Floats:
        """1 where `inside` is positive, 0 where negative, with an edge about a pixel wide at a slope of `pixels`."""
        return np.minimum(np.maximum(inside * pixels + 0.5, 0), 1)

    def paint(image: Floats, grey: Floats, where: Floats) -> Floats:
        return image + (grey - image) * where

    dark, middle, bright = uniform(0.15, 0.4), uniform(0.45, 0.65), uniform(0.7, 0.95)
    brain = step(0.96 - radius, 22)
    image = uniform(0.5, 0.95) * step(1.16 - radius, 22)
    image = paint(image, uniform(0.02, 0.12), step(1.06 - radius, 22))
    image = paint(image, middle, brain)
    folds = np.abs(field["folds"])
    image = paint(image, dark, brain * step(uniform(0.08, 0.2) - folds, 8))
    image = paint(image, bright, step(0.8 + 0.12 * field["white"] - radius, 22) * step(folds - uniform(0.2, 0.4), 8))
    for side in (-1, 1):
        dx, dy = (x - side * uniform(0.09, 0.16)) / uniform(0.05, 0.1), (y - uniform(-0.1, 0.1)) / uniform(0.18, 0.3)
        inside = 1 + 0.3 * field["ventricle"] - np.sqrt(dx * dx + dy * dy)
        image = paint(image, dark, step(inside, 3))
    for _ in range(_LESIONS):
        dx, dy = (x - uniform(-0.6, 0.6)) / uniform(0.02, 0.14), (y - uniform(-0.6, 0.6)) / uniform(0.02, 0.14)
        image = image + uniform(-0.35, 0.35) * brain * step(1 - np.sqrt(dx * dx + dy * dy), 2.5)
    image = image * (1 + 0.03 * field["texture"]) * (1 + 0.2 * field["bias"])
    return np.rint(np.minimum(np.maximum(image, 0), 1.2) * (255 / 1.2))


def _zero_filled(image: Floats, phase: Floats, mask: Floats, noise: tuple[Floats, Floats]) -> Floats:
    """The magnitude of the inverse transform of the samples that `mask`, (N, 1, 64), keeps; whole grey levels.

    `phase` counts 256ths of a turn. Samples are rounded to quarters of a grey level before they are transformed back.
    """
    angle = np.arange(256) / 256 * (2 * np.pi)
    cos, sin = (np.rint(table * 2**12) / 2**12 for table in (np.cos(angle), np.sin(angle)))
    turn = (phase - 256 * np.floor(phase / 256)).astype(np.int64)
    re, im = image * cos[turn], image * sin[turn]
    k = np.arange(SIDE)
    turns = (np.outer(k, k) * (256 // SIDE)) % 256
    c, s = cos[turns], sin[turns]  # symmetric, so the inverse needs no transposition
    scaled = NOISE * np.sqrt(float(SIDE))
    sampled_re = np.rint((re @ c + im @ s + scaled * noise[0]) * 4) / 4 * mask
    sampled_im = np.rint((im @ c - re @ s + scaled * noise[1]) * 4) / 4 * mask
    back_re, back_im = (sampled_re @ c - sampled_im @ s) / SIDE, (sampled_im @ c + sampled_re @ s) / SIDE
    return np.rint(np.minimum(np.sqrt(back_re * back_re + back_im * back_im), 255))


def _mask(draws: Floats) -> Floats:
    """The random mask of fastMRI: the centre, and of the other columns so many that a quarter is expected; (N, 1, 64).

    Column 0 is frequency 0, and column 63 is frequency -1.
    """
    frequency = np.minimum(np.arange(SIDE), SIDE - np.arange(SIDE))
    kept = draws < (SIDE / ACCELERATION - CENTRE) / (SIDE - CENTRE)
    return ((frequency <= CENTRE // 2) | kept).astype(np.float64)[:, None, :]


def _noise(draws: Floats) -> tuple[Floats, Floats]:
    """Two fields of standard deviation 1: differences of two uniform draws each."""
    a, b, c, d = (part.reshape(-1, SIDE, SIDE) for part in np.split(draws, 4, axis=1))
    return (a - b) * np.sqrt(6.0), (c - d) * np.sqrt(6.0)


def _phase(uniform: Uniform) -> Floats:
    """A quadratic phase over the image, in whole 256ths of a turn."""
    y, x = _grid()
    terms = [uniform(-128, 128) * basis for basis in (np.ones_like(x), x, y, x * x, x * y, y * y)]
    return np.rint(((((terms[0] + terms[1]) + terms[2]) + terms[3]) + terms[4]) + terms[5])


def _fields(knots: Floats) -> dict[str, Floats]:
    """Smooth random fields by name, (N, 64, 64), about 1 in size: cubic B-splines over random values at the knots."""
    parts = np.split(2 * np.floor(knots * 2**10) / 2**10 - 1, np.cumsum(list(_KNOTS.values()))[:-1], axis=1)
    fields: dict[str, Floats] = {}
    for (name, cells), part in zip(_CELLS.items(), parts, strict=True):
        weights = _spline(cells)
        fields[name] = weights @ part.reshape(-1, cells + 3, cells + 3) @ weights.T * 3
    return fields


def _spline(cells: int) -> Floats:
    """The weight of each of the knots at each pixel, (64, cells + 3), in multiples of 2**-10."""
    position = (np.arange(SIDE) + 0.5) / SIDE * cells
    distance = np.abs(position[:, None] + 1 - np.arange(cells + 3))
    near = (4 - 6 * distance * distance + 3 * distance * distance * distance) / 6
    rest = np.maximum(2 - distance, 0)
    return np.rint(np.where(distance < 1, near, rest * rest * rest / 6) * 2**10) / 2**10


def _grid() -> tuple[Floats, Floats]:
    """The pixels' y and x in (-1, 1), broadcastable to (1, 64, 64)."""
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


DATASET = Dataset(
    name="phantoms",
    version="1.0.0",
    generate=lambda: {split: make_rows(ROWS[split], SEEDS[split]) for split in ROWS},
    sha256="bd6da62511a4025ee4b8b6f90df56463d0bd1b1aa5a739a05b3c618b92b582ce",
    packages={},
    licence="Apache-2.0: generated by this file",
    citation="Generated by timetrial, workloads/phantoms/data.py.",
)
