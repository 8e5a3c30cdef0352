"""LibriSpeech's files (Panayotov et al. 2015), their records, and the rows of records.

A record has an utterance's samples, still in FLAC, and its words in pieces. As in AlgoPerf, utterances of more than 20
seconds or 256 characters are left out, the pieces are learnt from train-clean-100, and an end stands behind the last of
an utterance.
"""

import io
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from timetrial.errors import UserError
from timetrial.full import pieces
from timetrial.full.extra import extra
from timetrial.full.recorded import Example, Layout, Pipeline, RawFile, Recorded, Row

SAMPLE_RATE = 16_000
SAMPLES = 20 * SAMPLE_RATE
LABELS = 256
CLASSES = 1024
_CHARACTERS = 256
_ARCHIVES: Mapping[str, Sequence[str]] = {
    "train": ("train-clean-100", "train-clean-360", "train-other-500"),
    "valid": ("dev-clean", "dev-other"),
    "test": ("test-clean",),
}
_PUBLISHED = {
    "train-clean-100": (6_387_309_499, "d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2"),
    "train-clean-360": (23_049_477_885, "146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf"),
    "train-other-500": (30_593_501_606, "ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2"),
    "dev-clean": (337_926_286, "76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3"),
    "dev-other": (314_305_928, "12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365"),
    "test-clean": (346_663_984, "39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23"),
}
"""Bytes and SHA-256 of each archive, as tensorflow-datasets records them."""
_TWIN_WORDS = 20
"""Of the synthetic twin; few, so that they are learnt soon."""
_TWIN_WORD = SAMPLE_RATE // 5
"""Samples of one."""


def _features() -> Mapping[str, Any]:
    from tensorflow_datasets import features

    return {
        "flac": features.Text(),
        "labels": features.Tensor(shape=(None,), dtype=np.uint16, encoding="bytes"),
    }


def transcripts(archive: Path) -> dict[str, str]:
    """What is said in each utterance of an archive, by the utterance's name."""
    said: dict[str, str] = {}
    for path, content in _files(archive, ".txt"):
        if path.name.endswith(".trans.txt"):
            for line in content.decode().splitlines():
                name, _, words = line.partition(" ")
                said[name] = words
    return said


def _files(archive: Path, suffix: str) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Those of an archive whose names end so, in its order."""
    try:
        with tarfile.open(archive, "r|gz") as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if path.suffix == suffix and (opened := tar.extractfile(member)) is not None:
                    yield path, opened.read()
    except (tarfile.TarError, EOFError) as error:
        raise UserError(f"{archive}, as a tar.gz file: {error}; is it whole?") from None


def _companions(raw: Path | None, folder: Path) -> None:
    if raw is None:
        pieces.invent(folder, count=CLASSES)
    else:
        pieces.learn(transcripts(raw / "train-clean-100.tar.gz").values(), folder, count=CLASSES)


def _parts(raw: Path, folder: Path, split: str) -> Sequence[Callable[[], Iterator[Example]]]:
    return [partial(examples, raw / f"{archive}.tar.gz", folder) for archive in _ARCHIVES[split]]


def examples(archive: Path, folder: Path) -> Iterator[Example]:
    """Of the utterances of an archive that are not too long; `folder` has the pieces."""
    said, encode, soundfile = transcripts(archive), pieces.encoder(folder), extra("soundfile")
    for path, flac in _files(archive, ".flac"):
        sound = soundfile.info(io.BytesIO(flac))
        if (sound.samplerate, sound.channels, sound.subtype) != (SAMPLE_RATE, 1, "PCM_16"):
            raise UserError(
                f"{archive}: {path.name} has {sound.channels} channels of {sound.samplerate} Hz in {sound.subtype}, "
                f"and not one of {SAMPLE_RATE} Hz in PCM_16; get the archive anew"
            )
        if path.stem not in said:
            raise UserError(f"{archive}: it does not tell what is said in {path.name}; get the archive anew")
        if sound.frames <= SAMPLES and len(said[path.stem]) <= _CHARACTERS:
            [labels] = encode([said[path.stem]])
            yield {"flac": flac, "labels": np.array(labels, np.uint16)}


def _twin(split: str, random: np.random.RandomState, rows: int) -> Iterator[Example]:
    """Two to eight words, each a chord of its own, in a little noise."""
    del split
    pitch_w = 200.0 * 1.15 ** np.arange(_TWIN_WORDS)
    time_n = np.arange(_TWIN_WORD) / SAMPLE_RATE
    for _ in range(rows):
        words = random.randint(_TWIN_WORDS, size=random.randint(2, 9))
        chords = np.sin(2 * np.pi * np.outer(pitch_w[words], time_n)) + np.sin(
            3 * np.pi * np.outer(pitch_w[words], time_n)
        )
        heard = 4000 * chords.ravel() + random.normal(0, 100, chords.size)
        labels = np.append(pieces.CONTROL + words, pieces.END).astype(np.uint16)
        yield {"flac": encoded(heard.astype(np.int16)), "labels": labels}


def encoded(heard: np.ndarray) -> bytes:
    """Samples, int16, in FLAC as LibriSpeech has it."""
    file = io.BytesIO()
    extra("soundfile").write(file, heard, SAMPLE_RATE, subtype="PCM_16", format="FLAC")
    return file.getvalue()


def row(example: Example, random: np.random.RandomState | None) -> Row:
    """An utterance with silence behind it, its labels with 0 behind them, and the lengths of both paddings.

    Nothing is random here: spectra are masked on the device.
    """
    del random
    heard, _ = extra("soundfile").read(io.BytesIO(example["flac"]), dtype="int16")
    labels = example["labels"]
    return {
        "audio": np.pad(heard, (0, SAMPLES - len(heard))),
        "audio_padding": np.array(SAMPLES - len(heard), np.int32),
        "labels": np.pad(labels, (0, LABELS - len(labels))),
        "label_padding": np.array(LABELS - len(labels), np.int32),
    }


LAYOUT = Layout(
    name="librispeech",
    version="1.0.0",
    licence="CC-BY-4.0",
    citation="Panayotov et al., Librispeech: an ASR corpus based on public domain audio books, ICASSP 2015",
    access="Nothing is asked before the download.",
    raw=[
        RawFile(
            path=f"{name}.tar.gz", source=f"https://www.openslr.org/resources/12/{name}.tar.gz", bytes=size, sha256=sha
        )
        for name, (size, sha) in _PUBLISHED.items()
    ],
    space_bytes=58 * 10**9,
    hours=1.0,
    sizes={"train": 263_840, "valid": 5_348, "test": 2_472},
    features=_features,
    parts=_parts,
    twin=_twin,
    companions=_companions,
    packages={"sentencepiece": "0.2.3"},
)
DATASET = Recorded.of(LAYOUT, Pipeline(row=row))
