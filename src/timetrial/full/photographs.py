"""ImageNet's files: ILSVRC 2012 (Russakovsky et al. 2015) to train and validate, ImageNet-v2 (Recht et al. 2019) to test.

An example has the photograph as it was encoded, and its class: the place of the class's WordNet number among all 1000.
"""

import io
import tarfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from timetrial.errors import UserError

TRAIN = "ILSVRC2012_img_train.tar"
VALID = "ILSVRC2012_img_val.tar"
TEST = "imagenetv2-matched-frequency.tar.gz"
Example = tuple[str, dict[str, Any]]


def examples(folder: Path, split: str) -> Iterator[Example]:
    """Of the files in a folder: names that differ, `image` (bytes) and `label`."""
    read, name = {"train": (_train, TRAIN), "valid": (_valid, VALID), "test": (_test, TEST)}[split]
    try:
        with tarfile.open(folder / name) as tar:
            yield from read(tar)
    except tarfile.TarError as error:
        raise UserError(f"{folder / name}, as a tar file: {str(error).splitlines()[0]}; is it whole?") from None


def _train(tar: tarfile.TarFile) -> Iterator[Example]:
    """A tar file for each class, of its name."""
    labels = {name: label for label, name in enumerate(_listed("labels.txt"))}
    for inside in tar:
        label = labels[inside.name.removesuffix(".tar")]
        with tarfile.open(fileobj=_opened(tar, inside)) as images:
            for image in images:
                yield image.name, {"image": _opened(images, image).read(), "label": label}


def _valid(tar: tarfile.TarFile) -> Iterator[Example]:
    """Images numbered from 1 on; tensorflow-datasets lists their classes in this order."""
    labels = {name: label for label, name in enumerate(_listed("labels.txt"))}
    classes = _listed("validation_labels.txt")
    for image in tar:
        number = int(Path(image.name).stem.rpartition("_")[2])
        yield image.name, {"image": _opened(tar, image).read(), "label": labels[classes[number - 1]]}


def _test(tar: tarfile.TarFile) -> Iterator[Example]:
    """A folder for each class, of its number."""
    for image in tar:
        if image.isfile():
            path = Path(image.name)
            yield f"{path.parent.name}/{path.name}", {
                "image": _opened(tar, image).read(),
                "label": int(path.parent.name),
            }


def _listed(name: str) -> list[str]:
    """The lines of one of the lists that tensorflow-datasets has of ImageNet."""
    return files("tensorflow_datasets.datasets.imagenet2012").joinpath(name).read_text(encoding="utf-8").split()


def _opened(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Any:
    file = tar.extractfile(member)
    if file is None:
        raise tarfile.TarError(f"{member.name} is not a file")
    return file


def twin(split: str, rng: np.random.RandomState, rows: int) -> Iterator[Example]:
    """Noise, with some of the colour of its class, of which there are four; encoded as JPEG."""
    from PIL import Image

    colours = np.array([[0, 0, 0], [100, 0, 0], [0, 100, 0], [0, 0, 100]])
    for row in range(rows):
        label = rng.randint(len(colours))
        height, width = 8 * rng.randint(20, 40, 2)
        noise = rng.randint(0, 150, (height // 8, width // 8, 3)) + colours[label]
        encoded = io.BytesIO()
        Image.fromarray(noise.astype(np.uint8)).resize((width, height)).save(encoded, "JPEG", quality=90)
        yield f"{split}_{row}", {"image": encoded.getvalue(), "label": label}
