"""From rows in memory to `.npy` files, by way of array_record files that tensorflow-datasets writes and reads back."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from timetrial.data import Arrays, Dataset, Watch

_BLOCK_ROWS = 1024


def write_arrays(dataset: "Dataset", splits: "dict[str, Arrays]", folder: Path, watch: "Watch") -> None:
    """Writes the splits into `folder`, one `.npy` file a field and split.

    Empties `splits` on the way, so that no row is in memory when it is read back; array_record holds a split in memory
    once more while it is written. Raises `OSError` where the disk refuses.
    """
    rows = {split: len(next(iter(arrays.values()))) for split, arrays in splits.items()}
    fields = {name: (array.shape[1:], array.dtype) for name, array in next(iter(splits.values())).items()}
    builder = _builder(dataset, splits, folder / "tfds", watch)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # it announces itself, and this folder
        try:
            builder.download_and_prepare()
        except RuntimeError as error:  # so array_record says that the disk refuses
            raise OSError(str(error)) from error

    done, total = 0, sum(rows.values())
    for split in rows:
        (folder / split).mkdir(parents=True)
        with contextlib.ExitStack() as stack:
            files = {name: stack.enter_context((folder / split / f"{name}.npy").open("wb")) for name in fields}
            for name, (shape, dtype) in fields.items():
                header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False}
                np.lib.format.write_array_header_1_0(files[name], header | {"shape": (rows[split], *shape)})
            for block in builder.as_data_source(split=split):
                watch("materialising", done, total)
                for name, file in files.items():
                    file.write(block[name].tobytes())
                done += len(block[next(iter(fields))])
    shutil.rmtree(folder / "tfds")


def _builder(dataset: "Dataset", splits: "dict[str, Arrays]", folder: Path, watch: "Watch") -> Any:
    """A builder of the splits in blocks of rows, because a record a row reads fifty times slower."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    names = list(splits)
    total = sum(len(next(iter(arrays.values()))) for arrays in splits.values())
    done = 0
    features = {
        # As bytes: without an encoding every number becomes a 64-bit integer of a list, ten times slower.
        key: tfds.features.Tensor(shape=(None, *array.shape[1:]), dtype=array.dtype.type, encoding="bytes")
        for key, array in splits[names[0]].items()
    }

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """Blocks keep the order of their rows."""

        name = dataset.name
        VERSION = tfds.core.Version(dataset.version)

        def _info(self) -> Any:
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                description=f"Blocks of at most {_BLOCK_ROWS} rows.",
                citation=dataset.citation,
                license=dataset.licence,
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager: Any) -> Any:
            del dl_manager  # nothing is downloaded
            return {split: self._generate_examples(split) for split in names}

        def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
            nonlocal done
            arrays = splits.pop(split)
            rows = len(next(iter(arrays.values())))
            for first in range(0, rows, _BLOCK_ROWS):
                watch("writing array_record", done + first, total)
                yield first, {name: np.asarray(array[first : first + _BLOCK_ROWS]) for name, array in arrays.items()}
            done += rows

    return Builder(data_dir=folder, file_format="array_record")
