"""ImageNet's files: ILSVRC 2012 (Russakovsky et al. 2015) to train and validate, ImageNet-v2 (Recht et al. 2019) else.

An example has the photograph as it was encoded, and its class: the place of the class's WordNet number among all 1000.
"""

import io
import tarfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from timetrial.errors import UserError
from timetrial.full.extra import extra
from timetrial.full.recorded import Example, Layout, RawFile

TRAIN = "ILSVRC2012_img_train.tar"
VALID = "ILSVRC2012_img_val.tar"
TEST = "imagenetv2-matched-frequency.tar.gz"


def parts(folder: Path, companions: Path, split: str) -> Sequence[Callable[[], Iterator[Example]]]:
    """Of `train` one for each class, in their order; of the others one."""
    del companions
    if split == "train":
        with _opened(folder / TRAIN) as tar:
            return [partial(_train, folder / TRAIN, name) for name in sorted(tar.getnames())]
    return [partial(_valid, folder / VALID) if split == "valid" else partial(_test, folder / TEST)]


def _train(path: Path, name: str) -> Iterator[Example]:
    """The images of a class, which are a tar file of its name."""
    label = _listed("labels.txt").index(name.removesuffix(".tar"))
    with _opened(path) as tar, tarfile.open(fileobj=tar.extractfile(name)) as images:
        for image in images:
            yield {"image": _content(images, image), "label": label}


def _valid(path: Path) -> Iterator[Example]:
    """Images numbered from 1 on; tensorflow-datasets lists their classes in this order."""
    classes, of_images = _listed("labels.txt"), _listed("validation_labels.txt")
    with _opened(path) as tar:
        for image in tar:
            number = int(Path(image.name).stem.rpartition("_")[2])
            yield {"image": _content(tar, image), "label": classes.index(of_images[number - 1])}


def _test(path: Path) -> Iterator[Example]:
    """A folder for each class, of its number."""
    with _opened(path) as tar:
        for image in tar:
            if image.isfile():
                yield {"image": _content(tar, image), "label": int(Path(image.name).parent.name)}


def _listed(name: str) -> list[str]:
    """The lines of one of the lists that tensorflow-datasets has of ImageNet."""
    return files("tensorflow_datasets.datasets.imagenet2012").joinpath(name).read_text(encoding="utf-8").split()


@contextmanager
def _opened(path: Path) -> Generator[tarfile.TarFile]:
    try:
        with tarfile.open(path) as tar:
            yield tar
    except tarfile.TarError as error:
        raise UserError(f"{path}, as a tar file: {str(error).splitlines()[0]}; is it whole?") from None


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    if file is None:
        raise tarfile.TarError(f"{member.name} is not a file")
    return file.read()


def twin(split: str, rng: np.random.RandomState, rows: int) -> Iterator[Example]:
    """Noise, with some of the colour of its class, of which there are four; encoded as JPEG."""
    del split
    image = extra("PIL.Image")
    colours = np.array([[0, 0, 0], [100, 0, 0], [0, 100, 0], [0, 0, 100]])
    for _ in range(rows):
        label = rng.randint(len(colours))
        height, width = 8 * rng.randint(20, 40, 2)
        noise = rng.randint(0, 150, (height // 8, width // 8, 3)) + colours[label]
        encoded = io.BytesIO()
        image.fromarray(noise.astype(np.uint8)).resize((width, height)).save(encoded, "JPEG", quality=90)
        yield {"image": encoded.getvalue(), "label": label}


def features() -> dict[str, Any]:
    import tensorflow_datasets as tfds

    return {"image": tfds.features.Text(), "label": tfds.features.Scalar(np.int32)}


_PAGE = "https://image-net.org/download-images, ILSVRC 2012, task 1 and 2:"
LAYOUT = Layout(
    name="imagenet2012",
    version="1.0.0",
    licence="ImageNet's terms of access: non-commercial research",
    citation="Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, IJCV 2015, arXiv:1409.0575; "
    "test: Recht et al., Do ImageNet Classifiers Generalize to ImageNet?, ICML 2019, arXiv:1902.10811",
    access="Make an account at image-net.org and accept its terms; ImageNet-v2 needs neither.",
    raw=[
        # Sizes and hashes are those of tensorflow-datasets.
        RawFile(
            path=TRAIN,
            source=f"{_PAGE} training images",
            bytes=147_897_477_120,
            sha256="b08200a27a8e34218a0e58fde36b0fe8f73bc377f4acea2d91602057c3ca45bb",
        ),
        RawFile(
            path=VALID,
            source=f"{_PAGE} validation images",
            bytes=6_744_924_160,
            sha256="c7e06a6c0baccf06d8dbeb6577d71efff84673a5dbdd50633ab44f8ea0456ae0",
        ),
        RawFile(
            path=TEST,
            source="https://huggingface.co/datasets/vaishaal/ImageNetV2",
            bytes=1_264_079_360,
            sha256="f0c37fdf925916b19ea1323cd9a2208cdb6959ba2c32eef2a7fc393835c9ca7c",
        ),
    ],
    space_bytes=156_000_000_000,
    hours=1.5,
    sizes={"train": 1_281_167, "valid": 50_000, "test": 10_000},
    features=features,
    parts=parts,
    twin=twin,
)
