"""LibriSpeech: what is read of its archives, and the rows that are made of it."""

import io
from functools import partial

import numpy as np
import pytest
import sentencepiece
import soundfile
from rawfiles import assert_fits, rows_prepared, write_companions, write_tar

from timetrial.errors import UserError
from timetrial.full import librispeech, pieces, utterances

FOLDER = "LibriSpeech/train-clean-100/19/198"
SAID = {
    "19-198-0000": "THE OWL AND THE PUSSY CAT WENT TO SEA",
    "19-198-0001": "IN A BEAUTIFUL PEA GREEN BOAT",
    "19-198-0002": "A" * 257,
    "19-198-0003": "THEY TOOK SOME HONEY",
    "19-198-0004": "A" * 256,
}
SECONDS = {"19-198-0001": 20, "19-198-0003": 20.0001}


def sound(seconds, seed=0):
    return np.random.RandomState(seed).randint(-(2**15), 2**15, round(seconds * 16_000), dtype=np.int16)


def flac(samples, rate=16_000, subtype="PCM_16"):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, subtype=subtype, format="FLAC")
    return file.getvalue()


def archive(path, said=SAID, sounds=None):
    """As on openslr.org: the text of a chapter stands before its sounds."""
    files = {
        "LibriSpeech/README.TXT": b"19-198-0000 NOT THIS",
        f"{FOLDER}/19-198.trans.txt": "".join(f"{name} {text}\n" for name, text in said.items()).encode(),
    }
    made = {name: flac(sound(SECONDS.get(name, 0.1), i)) for i, name in enumerate(SAID)} if sounds is None else sounds
    write_tar(path, files | {f"{FOLDER}/{name}.flac": content for name, content in made.items()})
    return path


@pytest.fixture
def learnt(tmp_path, monkeypatch):
    """A folder with few pieces, learnt from an archive as the real ones are."""
    monkeypatch.setattr(utterances, "CLASSES", 30)
    archive(tmp_path / "train-clean-100.tar.gz")
    write_companions(utterances.DATASET, tmp_path, tmp_path)
    return tmp_path


def test_an_archive_gives_the_utterances_of_at_most_20_seconds_and_256_characters(learnt):
    found = list(utterances.examples(learnt / "train-clean-100.tar.gz", learnt))
    model = sentencepiece.SentencePieceProcessor(model_file=str(learnt / pieces.MODEL))
    assert model.get_piece_size() == 30
    for example, i in zip(found, (0, 1, 4), strict=True):
        name = f"19-198-000{i}"
        samples, rate = soundfile.read(io.BytesIO(example["flac"]), dtype="int16")
        assert rate == 16_000
        np.testing.assert_array_equal(samples, sound(SECONDS.get(name, 0.1), i))
        assert example["labels"].tolist() == [*model.encode(SAID[name]), model.eos_id()]
        assert example["labels"].dtype == np.uint16


def test_records_of_the_archives_give_their_rows(learnt, tmp_path):
    for name in ("train-clean-360", "train-other-500", "dev-clean", "dev-other", "test-clean"):
        archive(learnt / f"{name}.tar.gz", sounds={"19-198-0000": flac(sound(0.1, len(name)))})
    rows = rows_prepared(utterances.DATASET, learnt, tmp_path / "data")
    heard = {split: fields["audio"][:, :1600] for split, fields in rows.items()}
    np.testing.assert_array_equal(heard["test"], [sound(0.1, len("test-clean"))])
    np.testing.assert_array_equal(heard["valid"], [sound(0.1, 9)] * 2)
    np.testing.assert_array_equal(heard["train"][[0, -2, -1]], [sound(0.1), sound(0.1, 15), sound(0.1, 15)])
    assert len(heard["train"]) == 5
    assert set(rows["test"]["label_padding"].tolist()) == set(rows["valid"]["label_padding"].tolist())


def test_the_splits_are_those_archives_that_algoperf_reads(tmp_path):
    for split, names in {
        "train": ["train-clean-100", "train-clean-360", "train-other-500"],
        "valid": ["dev-clean", "dev-other"],
        "test": ["test-clean"],
    }.items():
        parts = utterances.LAYOUT.parts(tmp_path, tmp_path, split)
        named = [part.args[0].name for part in parts if isinstance(part, partial)]
        assert named == [f"{name}.tar.gz" for name in names]
        assert {f"{name}.tar.gz" for name in names} <= {file.path for file in utterances.LAYOUT.raw}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (flac(np.stack([sound(0.1)] * 2, axis=1)), "2 channels of 16000 Hz"),
        (flac(sound(0.1), rate=8_000), "1 channels of 8000 Hz"),
        (flac(sound(0.1), subtype="PCM_24"), "in PCM_24"),
    ],
)
def test_sound_of_another_format_is_refused(learnt, content, said):
    other = archive(learnt / "dev-clean.tar.gz", sounds={"19-198-0000": content})
    with pytest.raises(UserError, match=f"19-198-0000.flac has .*{said}.*get the archive anew"):
        list(utterances.examples(other, learnt))


def test_sound_without_its_words_is_refused(learnt):
    other = archive(learnt / "dev-clean.tar.gz", said={"19-198-0009": "A"})
    with pytest.raises(UserError, match=r"does not tell what is said in 19-198-0000\.flac"):
        list(utterances.examples(other, learnt))


def test_half_an_archive_is_refused(learnt):
    path = learnt / "train-clean-100.tar.gz"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"train-clean-100.tar.gz, as a tar.gz file: .*is it whole\?"):
        list(utterances.examples(path, learnt))


@pytest.mark.parametrize("seconds", [0.1, 20])
def test_a_row_has_the_samples_and_labels_and_how_much_padding_is_behind_them(seconds):
    labels = np.array([5, 1023, 2], np.uint16)
    row = utterances.row({"flac": flac(sound(seconds)), "labels": labels}, np.random.RandomState(0))
    assert_fits(row, librispeech.FIELDS)
    samples = round(seconds * 16_000)
    assert (row["audio_padding"], row["label_padding"]) == (320_000 - samples, 253)
    np.testing.assert_array_equal(row["audio"], np.append(sound(seconds), np.zeros(320_000 - samples, np.int16)))
    np.testing.assert_array_equal(row["labels"], np.append(labels, np.zeros(253, np.uint16)))


def test_each_word_of_the_twin_has_a_pitch_of_its_own(tmp_path):
    write_companions(utterances.DATASET, None, tmp_path)
    vocabulary = (tmp_path / pieces.FILE).read_text(encoding="utf-8").splitlines()
    assert len(set(vocabulary)) == utterances.CLASSES
    pitches: dict[str, set[int]] = {}
    for example in utterances.LAYOUT.twin("train", np.random.RandomState(0), 40):
        row = utterances.row(example, None)
        assert_fits(row, librispeech.FIELDS)
        labels = row["labels"][: 256 - row["label_padding"]]
        assert labels[-1] == pieces.END
        said = pieces.spell(labels.tolist(), vocabulary).split()
        heard = row["audio"][: 320_000 - row["audio_padding"]].reshape(len(said), -1)
        for word, samples in zip(said, heard, strict=True):
            spectrum = np.abs(np.fft.rfft(samples))
            pitches.setdefault(word, set()).add(int(np.argsort(spectrum)[-2:].min()))
    assert len(pitches) == 20
    assert len(set.union(*pitches.values())) == sum(map(len, pitches.values()))
