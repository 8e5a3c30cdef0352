"""From the k-space of a slice to what a quarter of it shows, as fastMRI and AlgoPerf have it (Zbontar et al. 2018).

A mask keeps whole columns of k-space, so the other axis can be transformed and cropped once, when records are made:
what a record holds is half transformed. Shapes: H rows and W columns of a slice, S = 320 pixels of an image's side.
"""

import numpy as np
from scipy import fft

SIDE = 320
CENTRE, ACCELERATION = 0.08, 4
"""The share of columns in the middle that are always kept, and all columns over those that are kept on average."""
_LARGEST = 6.0


def half_transformed(kspace_hw: np.ndarray) -> np.ndarray:
    """Along the rows' axis an image, cropped to its middle, along the columns' still k-space: complex64 (S, W)."""
    return _image_along(kspace_hw.astype(np.complex64), axis=0)


def column_mask(columns: int, uniform_w: np.ndarray) -> np.ndarray:
    """Which columns are kept, bool (W,): those in the middle, and of the others each by chance.

    `uniform_w` holds a number between 0 and 1 for each column.
    """
    middle = int(np.float32(columns) * np.float32(CENTRE))
    first = (columns - middle + 1) // 2
    chance = (columns / ACCELERATION - middle) / (columns - middle)
    place = np.arange(columns)
    return (uniform_w < np.float32(chance)) | (place >= first) & (place < first + middle)


def undersampled(half_sw: np.ndarray, mask_w: np.ndarray, full_ss: np.ndarray) -> dict[str, np.ndarray]:
    """The fields `image`, `target`, `mean` and `deviation` of a row, from a slice half transformed and its image."""
    image = np.abs(_image_along(half_sw * mask_w, axis=1))
    mean, deviation = image.mean(dtype=np.float64), image.std(dtype=np.float64)

    def scaled(pixels: np.ndarray) -> np.ndarray:
        return np.clip((pixels - mean) / deviation, -_LARGEST, _LARGEST).astype(np.float32)

    return {
        "image": scaled(image),
        "target": scaled(full_ss),
        "mean": np.asarray(mean, np.float32),
        "deviation": np.asarray(deviation, np.float32),
    }


def _image_along(x: np.ndarray, *, axis: int) -> np.ndarray:
    """The middle of the centred inverse Fourier transform along an axis, with the forward one's norm."""
    image = fft.fftshift(fft.ifft(fft.ifftshift(x, axes=axis), axis=axis, norm="ortho"), axes=axis)
    first = (x.shape[axis] - SIDE) // 2
    return np.take(image, range(first, first + SIDE), axis=axis)
