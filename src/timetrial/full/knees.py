"""fastMRI's single-coil knees (Zbontar et al. 2018): a volume a file, a slice an example.

An example has the slice's k-space, half transformed (`undersampling`), as pairs of floats; the image of the whole
k-space; and the volume's largest value.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from timetrial.errors import UserError
from timetrial.full.extra import extra
from timetrial.full.philox import uniform_as_in_tensorflow
from timetrial.full.recorded import Example, Layout, Pipeline, RawFile, Row
from timetrial.full.undersampling import SIDE, column_mask, half_transformed, undersampled

TRAIN, VALID = "singlecoil_train", "singlecoil_val"
_VALID_VOLUMES = 100
"""The first of fastMRI's volumes for validation, by name; AlgoPerf tests on the others."""


def parts(folder: Path, companions: Path, split: str) -> Sequence[Callable[[], Iterator[Example]]]:
    """The volumes in the order of their names."""
    del companions
    paths = sorted((folder / (TRAIN if split == "train" else VALID)).glob("*.h5"))
    some = {"train": slice(None), "valid": slice(_VALID_VOLUMES), "test": slice(_VALID_VOLUMES, None)}[split]
    return [partial(_slices, path) for path in paths[some]]


def _slices(path: Path) -> Iterator[Example]:
    """From the first to the last."""
    h5py = extra("h5py")
    try:
        with h5py.File(path) as file:
            largest = np.float32(file.attrs["max"])
            for kspace_hw, image_ss in zip(file["kspace"], file["reconstruction_esc"], strict=True):
                yield _example(kspace_hw, image_ss, largest)
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{path}: {error}; is it a single-coil volume of fastMRI, and whole?") from None


def _example(kspace_hw: np.ndarray, image_ss: np.ndarray, largest: np.float32) -> Example:
    if min(kspace_hw.shape) < SIDE or image_ss.shape != (SIDE, SIDE):
        raise ValueError(f"a slice of {kspace_hw.shape} with an image of {image_ss.shape}")
    half_sw = half_transformed(kspace_hw)
    return {
        "kspace": np.stack([np.real(half_sw), np.imag(half_sw)], axis=-1).astype(np.float32),
        "image": image_ss.astype(np.float32),
        "volume_max": largest,
    }


def twin(split: str, rng: np.random.RandomState, rows: int) -> Iterator[Example]:
    """Slices of some bright ellipses, each a volume, of real ones' units and little wider than an image."""
    del split
    for _ in range(rows):
        width = SIDE + 2 * rng.randint(8)
        y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : width * 1j]
        slice_sw = np.zeros((SIDE, width))
        for _ in range(6):
            (y_0, x_0), (height, breadth) = rng.uniform(-0.5, 0.5, 2), rng.uniform(0.1, 0.5, 2)
            slice_sw += rng.uniform(1e-5, 1e-4) * (((y - y_0) / height) ** 2 + ((x - x_0) / breadth) ** 2 < 1)
        kspace_hw = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(slice_sw), norm="ortho"))
        first = (width - SIDE) // 2
        yield _example(kspace_hw, slice_sw[:, first : first + SIDE], np.float32(slice_sw.max()))


def row(example: Example, rng: np.random.RandomState | None) -> Row:
    """A slice seen through a mask that is drawn for it; where nothing is random, AlgoPerf's for its width."""
    columns = example["kspace"].shape[1]
    uniform_w = uniform_as_in_tensorflow(columns) if rng is None else rng.uniform(size=columns)
    half_sw = example["kspace"].view(np.complex64)[..., 0]
    seen = undersampled(half_sw, column_mask(columns, uniform_w), example["image"])
    return {**seen, "volume_max": np.asarray(example["volume_max"], np.float32)}


def features() -> dict[str, Any]:
    import tensorflow_datasets as tfds

    return {
        "kspace": tfds.features.Tensor(shape=(SIDE, None, 2), dtype=np.float32, encoding="bytes"),
        "image": tfds.features.Tensor(shape=(SIDE, SIDE), dtype=np.float32, encoding="bytes"),
        "volume_max": tfds.features.Scalar(np.float32),
    }


LAYOUT = Layout(
    name="fastmri_knee_singlecoil",
    version="1.0.0",
    licence="fastMRI data sharing agreement of NYU Langone Health",
    citation="Zbontar et al., fastMRI: An Open Dataset and Benchmarks for Accelerated MRI (2018), arXiv:1811.08839",
    access="Sign the agreement at https://fastmri.med.nyu.edu; the addresses of the files come by mail.",
    raw=[
        RawFile(path=f"{TRAIN}/*.h5", count=973, source="knee_singlecoil_train.tar.xz, unpacked"),
        RawFile(path=f"{VALID}/*.h5", count=199, source="knee_singlecoil_val.tar.xz, unpacked"),
    ],
    space_bytes=57_000_000_000,
    hours=0.5,
    sizes={"train": 34_742, "valid": 3_554, "test": 3_581},
    features=features,
    parts=parts,
    twin=twin,
)
PIPELINE = Pipeline(row=row)
