"""FineWeb-Edu: GPT-2's symbols, which document is in which split, and the rows of their stream."""

import hashlib
import re
from itertools import pairwise

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rawfiles import assert_fits, rows_prepared
from timetrial.workloads.finewebedu_lm import FIELDS

from timetrial.errors import UserError
from timetrial.full import web_text

MERGES = ["t h", "Ġ th", "th e", "Ġ a", "i n", "in g", "Ġth e", "' s", "0 0", "Ġ Ġ", "Ã ¤", "Ċ Ċ", "Ġa n"]
"""As in GPT-2's list: Ġ stands for a space, Ċ for the end of a line, Ã ¤ for the two bytes of an umlaut."""
MERGED = [b"th", b" th", b"the", b" a", b"in", b"ing", b" the", b"'s", b"00", b"  ", "ä".encode(), b"\n\n", b" an"]


@pytest.fixture(scope="module")
def merges(tmp_path_factory):
    path = tmp_path_factory.mktemp("gpt2") / "vocab.bpe"
    path.write_text("#version: 0.2\n" + "".join(f"{merge}\n" for merge in MERGES), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def encode(merges):
    return web_text.encoder(merges)


def byte_symbol(byte):
    """GPT-2 numbers the bytes that print first, from ! on; then the others, NUL being 188."""
    prints = 33 <= byte <= 126 or 161 <= byte <= 172 or byte >= 174
    return sum((33 <= b <= 126 or 161 <= b <= 172 or b >= 174) == prints for b in range(byte)) + (0 if prints else 188)


def cut(text):
    """Byte pair encoding as it is defined: of all neighbours, those that come first in the list are merged first."""
    symbols = []
    pattern = r"'(?:[sdmt]|ll|ve|re)| ?[A-Za-zä]+| ?[0-9]+| ?[^\sA-Za-zä0-9]+|\s+(?!\S)|\s+"
    for word in re.findall(pattern, text):
        parts = [bytes([byte]) for byte in word.encode()]
        while mergeable := [(MERGED.index(a + b), i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in MERGED]:
            _, at = min(mergeable)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        symbols += [256 + MERGED.index(part) if part in MERGED else byte_symbol(part[0]) for part in parts]
    return symbols


@given(st.text(alphabet="theingas 0'!\nä", max_size=40))
def test_text_is_cut_by_byte_pair_encoding(encode, text):
    assert encode([text]) == [cut(text)]


def test_bytes_have_gpt_2s_symbols(encode):
    assert encode(["!", "a", "\x00", "\n", " "]) == [[0], [64], [188], [198], [220]]


def test_nine_tenths_of_the_documents_train_and_about_a_hundredth_each_validates_and_tests():
    found = [web_text.split_of(f"<urn:uuid:{i}>") for i in range(20_000)]
    shares = {split: found.count(split) / len(found) for split in ("train", "valid", "test")}
    assert shares == pytest.approx({"train": 0.9, "valid": 0.0106, "test": 0.0106}, abs=0.006)
    place = int(hashlib.sha256(b"<urn:uuid:7>").hexdigest()[:16], 16) / 16**16
    assert web_text.split_of("<urn:uuid:7>") == ("train" if place < 0.9 else None)


@pytest.fixture
def raw(tmp_path, merges):
    """Three files of documents as on the hub; an empty document is among them."""
    (tmp_path / "vocab.bpe").write_bytes(merges.read_bytes())
    for number in range(3):
        documents = [
            {"text": "" if i == 5 else "the thing " * i, "id": f"<urn:uuid:{number}-{i}>", "score": 3.0}
            for i in range(100)
        ]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(documents), tmp_path / f"{number:03}_00000.parquet")
    return tmp_path


def stream(files, split):
    """The symbols of a split's documents."""
    for number in files:
        for i in range(100):
            if i not in (0, 5) and web_text.split_of(f"<urn:uuid:{number}-{i}>") == split:
                yield from cut("the thing " * i)
                yield 50_256


def rows_of(parts):
    return [np.array([example["symbols"] for example in part()]) for part in parts]


def test_the_rows_of_train_are_the_stream_of_each_file(raw):
    found = rows_of(web_text.LAYOUT.parts(raw, raw, "train"))
    for number, rows in enumerate(found):
        expected = list(stream([number], "train"))
        assert len(rows) == len(expected) // 1025 > 3
        np.testing.assert_array_equal(rows.reshape(-1), expected[: 1025 * len(rows)])


@pytest.mark.parametrize("split", ["valid", "test"])
def test_other_splits_are_one_stream_of_as_many_rows_as_algoperf_evaluates(raw, split, monkeypatch):
    monkeypatch.setattr(web_text, "_SHARE", {"train": (0.0, 0.4), "valid": (0.4, 0.7), "test": (0.7, 1.0)})
    monkeypatch.setattr(web_text, "_EVALUATED_ROWS", 4)
    [rows] = rows_of(web_text.LAYOUT.parts(raw, raw, split))
    expected = list(stream(range(3), split))
    assert len(expected) >= 5 * 1025
    np.testing.assert_array_equal(rows.reshape(-1), expected[: 4 * 1025])


def test_records_of_the_files_give_their_rows(raw, tmp_path, monkeypatch):
    monkeypatch.setattr(web_text, "_SHARE", {"train": (0.0, 0.4), "valid": (0.4, 0.7), "test": (0.7, 1.0)})
    for split, rows in rows_prepared(web_text.DATASET, raw, tmp_path / "data").items():
        made = np.concatenate(rows_of(web_text.LAYOUT.parts(raw, raw, split)))
        np.testing.assert_array_equal(rows["symbols"], made)


def test_half_a_file_is_refused(raw):
    path = raw / "001_00000.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"001_00000\.parquet, as a Parquet file: .*; get it anew"):
        rows_of(web_text.LAYOUT.parts(raw, raw, "train"))


def test_a_file_whose_text_was_damaged_is_refused(raw):
    path = raw / "001_00000.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:40] + bytes(200) + whole[240:])  # its index at the end is whole
    with pytest.raises(UserError, match=r"001_00000\.parquet, as a Parquet file: .*; get it anew"):
        rows_of(web_text.LAYOUT.parts(raw, raw, "train"))


def test_a_symbol_of_the_twin_tells_the_next_nine_times_in_ten():
    examples = list(web_text.LAYOUT.twin("train", np.random.RandomState(0), 10))
    rows = [web_text.row(example, None) for example in examples]
    for row in rows:
        assert_fits(row, FIELDS)
    symbols = np.array([row["symbols"] for row in rows])
    followed = np.zeros((97, 97))
    np.add.at(followed, (symbols[:, :-1], symbols[:, 1:]), 1)
    assert followed.max(axis=1).sum() / followed.sum() == pytest.approx(0.9, abs=0.02)
