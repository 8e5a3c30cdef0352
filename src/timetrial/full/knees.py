"""fastMRI's single-coil knees (Zbontar et al. 2018): a volume a file, a slice an example.

An example has the slice's k-space, half transformed (`undersampling`), as pairs of floats; the image of the whole
k-space; and the volume's largest value.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from timetrial.errors import UserError
from timetrial.full.undersampling import SIDE, half_transformed

TRAIN, VALID = "singlecoil_train", "singlecoil_val"
_VALID_VOLUMES = 100
"""The first of fastMRI's volumes for validation, by name; AlgoPerf tests on the others."""
Example = tuple[str, dict[str, Any]]


def examples(folder: Path, split: str) -> Iterator[Example]:
    """The slices of the files in a folder, by the names of the volumes and from the first to the last."""
    paths = sorted((folder / (TRAIN if split == "train" else VALID)).glob("*.h5"))
    some = {"train": slice(None), "valid": slice(_VALID_VOLUMES), "test": slice(_VALID_VOLUMES, None)}[split]
    for path in paths[some]:
        yield from _slices(path)


def _slices(path: Path) -> Iterator[Example]:
    try:
        import h5py
    except ImportError:
        raise UserError("fastMRI's files are HDF5, which needs h5py: pip install 'timetrial[full]'") from None
    try:
        with h5py.File(path) as file:
            kspace, images, largest = file["kspace"], file["reconstruction_esc"], file.attrs["max"]
            for i in range(len(kspace)):
                yield f"{path.stem}_{i}", _example(kspace[i], images[i], largest)
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{path}: {error}; is it a single-coil volume of fastMRI, and whole?") from None


def _example(kspace_hw: np.ndarray, image_ss: np.ndarray, largest: float) -> dict[str, Any]:
    if min(kspace_hw.shape) < SIDE or image_ss.shape != (SIDE, SIDE):
        raise ValueError(f"a slice of {kspace_hw.shape} with an image of {image_ss.shape}")
    half_sw = half_transformed(kspace_hw)
    return {
        "kspace": np.stack([half_sw.real, half_sw.imag], axis=-1).astype(np.float32),
        "image": image_ss.astype(np.float32),
        "volume_max": np.float32(largest),
    }


def twin(split: str, rng: np.random.RandomState, rows: int) -> Iterator[Example]:
    """Slices of some bright ellipses, each a volume, of real ones' units and little wider than an image."""
    for row in range(rows):
        width = SIDE + 2 * rng.randint(8)
        y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : width * 1j]
        slice_sw = np.zeros((SIDE, width))
        for _ in range(6):
            (y_0, x_0), (height, breadth) = rng.uniform(-0.5, 0.5, 2), rng.uniform(0.1, 0.5, 2)
            slice_sw += rng.uniform(1e-5, 1e-4) * (((y - y_0) / height) ** 2 + ((x - x_0) / breadth) ** 2 < 1)
        kspace_hw = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(slice_sw), norm="ortho"))
        first = (width - SIDE) // 2
        yield f"{split}_{row}", _example(kspace_hw, slice_sw[:, first : first + SIDE], slice_sw.max())
