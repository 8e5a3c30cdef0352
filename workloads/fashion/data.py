"""Fashion-MNIST (Xiao et al. 2017): 28 x 28 grey images of ten kinds of clothes, split by a hash of their pixels.

The data are the four files that the authors distribute, which the Debian package dataset-fashion-mnist holds byte for
byte. They are looked for in `sources/fashion-mnist` of the data folder, and where that package installs them.
"""

import gzip
import hashlib
from pathlib import Path

import numpy as np

from timetrial.data import SPLITS, Dataset, data_root
from timetrial.errors import UserError

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
"""What the labels 0 to 9 mean."""
SIDE = 28
SHA256 = {
    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}
"""The authors' four files."""
PACKAGED = Path("/usr/share/datasets/fashion-mnist")
"""Where the Debian package puts them."""
VALID_PART, TEST_PART = 12, 2
"""One of 12 of the authors' training images validates; one of 2 of their test images tests."""


def generate() -> dict[str, dict[str, np.ndarray]]:
    """The splits: `image` uint8 (rows, 28, 28), 0 being the background, and `label` uint8 (rows,).

    A row's split follows from its pixels, so equal images cannot be in two splits of the same source.
    """
    folder = find_source()
    if folder is None:
        raise UserError(str(needs()))
    image, label = (_read(folder, f"train-{name}-ubyte.gz") for name in ("images-idx3", "labels-idx1"))
    validates = hashed(image) % VALID_PART == 0
    test_image, test_label = (_read(folder, f"t10k-{name}-ubyte.gz") for name in ("images-idx3", "labels-idx1"))
    tests = hashed(test_image) % TEST_PART == 0
    rows = ((image, label, ~validates), (image, label, validates), (test_image, test_label, tests))
    return {
        split: {"image": images[chosen], "label": labels[chosen]}
        for split, (images, labels, chosen) in zip(SPLITS, rows, strict=True)
    }


def hashed(image: np.ndarray) -> np.ndarray:
    """A number below 2^64 for each image, uint64 (N,): the beginning of its pixels' SHA-256."""
    return np.array([int.from_bytes(hashlib.sha256(row.tobytes()).digest()[:8], "big") for row in image], np.uint64)


def find_source() -> Path | None:
    """The first folder that holds the four files."""
    folders = (_own_folder(), PACKAGED)
    return next((folder for folder in folders if all((folder / name).is_file() for name in SHA256)), None)


def needs() -> str | None:
    """How to get the four files; None where they are."""
    if find_source() is not None:
        return None
    mine = _own_folder()
    return (
        f"the files of Fashion-MNIST are neither in {mine} nor in {PACKAGED}. Where there is apt (no root is needed):\n"
        "  apt-get download dataset-fashion-mnist && dpkg -x dataset-fashion-mnist_*.deb fashion\n"
        f"  mkdir -p '{mine}' && cp fashion{PACKAGED}/*-ubyte.gz '{mine}'\n"
        f"Elsewhere put the same four files into that folder, as their authors distribute them: {', '.join(SHA256)} "
        "(https://github.com/zalandoresearch/fashion-mnist)"
    )


def _own_folder() -> Path:
    return data_root() / "sources" / "fashion-mnist"


def _read(folder: Path, name: str) -> np.ndarray:
    """The array in a file of the IDX format, whose header is big-endian: a magic number, then each axis's length."""
    packed = (folder / name).read_bytes()
    found = hashlib.sha256(packed).hexdigest()
    if found != SHA256[name]:
        raise UserError(
            f"{folder / name} is not the authors' file: its SHA-256 is {found[:16]}…, expected {SHA256[name][:16]}…; "
            "take it from the Debian package dataset-fashion-mnist, or from the authors"
        )
    content = gzip.decompress(packed)
    axes = content[3]
    shape = np.frombuffer(content, ">i4", axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


DATASET = Dataset(
    name="fashion_mnist",
    version="1.0.0",
    generate=generate,
    sha256="1b571de2c87456526273ee2064f42e9a91e717186f9a95d115eef7520a24781a",
    packages={},
    licence="MIT",
    citation="Xiao, Rasul, Vollgraf: Fashion-MNIST, a novel image dataset for benchmarking machine learning, "
    "arXiv:1708.07747. Copyright 2017 Zalando SE.",
    needs=needs,
)
