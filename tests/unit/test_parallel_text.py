"""WMT 2017 from German into English: what is read of its archives, and how pairs become rows."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rawfiles import assert_fits, rows_prepared, write_companions, write_tar
from timetrial.workloads.wmt import FIELDS

from timetrial.errors import UserError
from timetrial.full import parallel_text, pieces

SENTENCES = {
    "training/europarl-v7.de-en": [
        ("Er sagt &quot;ja&quot; . Und nun ?", "He says &quot;yes&quot; . And now ?"),
        ("", "lost"),
        ("verloren", ""),
    ],
    "commoncrawl.de-en": [("eins\u2028zwei\u2029drei\r", "one\u2028two\u2029three\r"), ("ein " * 400, "one")],
    "training/news-commentary-v12.de-en": [("Das ist neu .", "That is news .")] * 3,
    "rapid2016.de-en": [(f"Nummer {i} ist da", f"number {i} is here") for i in range(300)],
}
TESTED = [("Er sagt &quot;ja&quot; .", "He says &quot;yes&quot; ."), ("Und nun ?", "And now ?")]


def lines(sentences, side):
    return "".join(f"{pair[side]}\n" for pair in sentences).encode()


def sgml(sentences, side):
    segments = "".join(f'<seg id="{i}">{pair[side]}</seg>\n' for i, pair in enumerate(sentences, 1))
    return f'<srcset setid="newstest2014">\n<doc docid="a">\n<hl>\n{segments}</hl>\n</doc>\n</srcset>\n'.encode()


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """Archives as on statmt.org, and pieces that are learnt from all training pairs."""
    monkeypatch.setattr(parallel_text, "SYMBOLS", 60)
    monkeypatch.setattr(parallel_text, "_EVERY", 1)
    for archive, stem in (
        ("training-parallel-europarl-v7.tgz", "training/europarl-v7.de-en"),
        ("training-parallel-commoncrawl.tgz", "commoncrawl.de-en"),
        ("training-parallel-nc-v12.tgz", "training/news-commentary-v12.de-en"),
        ("rapid2016.tgz", "rapid2016.de-en"),
    ):
        of = SENTENCES[stem]
        write_tar(tmp_path / archive, {f"{stem}.de": lines(of, 0), f"{stem}.en": lines(of, 1), "README": b"a\nb"})
    news = {
        "dev/newstest2013.de": lines(TESTED, 0),
        "dev/newstest2013.en": lines(TESTED, 1),
        "dev/newstest2014-deen-src.de.sgm": sgml(TESTED, 0),
        "dev/newstest2014-deen-ref.en.sgm": sgml(TESTED, 1),
    }
    write_tar(tmp_path / "dev.tgz", news)
    write_companions(parallel_text.DATASET, tmp_path, tmp_path)
    return tmp_path


def sentences(symbols):
    """The sentences of a side of a record, without their ends."""
    ends = np.flatnonzero(symbols == pieces.END)
    assert ends[-1] == len(symbols) - 1
    return [part[part != pieces.END].tolist() for part in np.split(symbols, ends[:-1] + 1)]


def texts(example, folder):
    vocabulary = (folder / pieces.FILE).read_text(encoding="utf-8").split("\n")[:-1]
    sides = ([pieces.spell(one, vocabulary) for one in sentences(example[name])] for name in ("source", "target"))
    return list(zip(*sides, strict=True))


def test_all_training_pairs_that_are_whole_and_not_too_long_are_in_packed_rows(raw):
    rows = list(parallel_text.examples(raw, raw, "train"))
    found = [pair for row in rows for pair in texts(row, raw)]
    expected = [pair for stem in SENTENCES for pair in SENTENCES[stem] if all(pair) and len(pair[0]) < 400]
    expected = [tuple(" ".join(text.split()) for text in pair) for pair in expected]
    assert sorted(found) == sorted(expected)
    assert found != expected
    assert len(rows) < len(found) / 4


def test_the_order_of_training_pairs_never_changes(raw):
    once, again = ([row["source"].tolist() for row in parallel_text.examples(raw, raw, "train")] for _ in range(2))
    assert once == again


@pytest.mark.parametrize("split", ["valid", "test"])
def test_other_splits_have_a_pair_a_row_in_their_order_as_it_is_written(raw, split):
    rows = list(parallel_text.examples(raw, raw, split))
    assert [texts(row, raw) for row in rows] == [[pair] for pair in TESTED]


def test_records_of_the_archives_give_their_rows(raw, tmp_path):
    for split, rows in rows_prepared(parallel_text.DATASET, raw, tmp_path / "data").items():
        made = [parallel_text.row(example, None) for example in parallel_text.examples(raw, raw, split)]
        for name in ("source", "target"):
            np.testing.assert_array_equal(rows[name], [row[name] for row in made])


def test_pieces_are_learnt_from_both_languages(raw):
    vocabulary = (raw / pieces.FILE).read_text(encoding="utf-8").split("\n")[:-1]
    assert len(vocabulary) == 60
    assert {*"Uy"} <= {character for piece in vocabulary for character in piece}


def test_files_that_do_not_belong_together_are_refused(raw):
    of = SENTENCES["rapid2016.de-en"]
    write_tar(raw / "rapid2016.tgz", {"rapid2016.de-en.de": lines(of, 0), "rapid2016.de-en.en": lines(of[:-1], 1)})
    with pytest.raises(UserError, match=r"rapid2016\.de-en\.de 301, rapid2016\.de-en\.en 300\); get it anew"):
        list(parallel_text.examples(raw, raw, "train"))
    write_tar(raw / "rapid2016.tgz", {"rapid2016.de-en.de": lines(of, 0)})
    with pytest.raises(UserError, match=r"rapid2016\.tgz has no file rapid2016\.de-en\.en"):
        list(parallel_text.examples(raw, raw, "train"))


lengths = st.lists(st.tuples(st.integers(1, 256), st.integers(1, 256)), min_size=1, max_size=30)


@given(lengths)
def test_packing_keeps_the_order_and_fills_rows_as_far_as_the_next_pair_has_room(lengths):
    counter = itertools.count()
    pairs = [(np.full(n, next(counter), np.uint16), np.full(m, next(counter), np.uint16)) for n, m in lengths]
    rows = list(parallel_text.packed(pairs))
    for name, side in (("source", 0), ("target", 1)):
        expected = np.concatenate([pair[side] for pair in pairs])
        np.testing.assert_array_equal(np.concatenate([row[name] for row in rows]), expected)
    held = [[len(np.unique(row[name])) for row in rows] for name in ("source", "target")]
    assert held[0] == held[1]
    behind = np.cumsum(held[0])
    for row, following in zip(rows, behind, strict=True):
        sizes = np.array([len(row["source"]), len(row["target"])])
        assert sizes.max() <= 256
        assert following == len(pairs) or (sizes + lengths[following]).max() > 256


@pytest.mark.parametrize("split", ["train", "valid"])
def test_rows_of_the_twin_have_the_workloads_fields_and_a_rule_to_learn(tmp_path, split):
    write_companions(parallel_text.DATASET, None, tmp_path)
    found = list(parallel_text.LAYOUT.twin(split, np.random.RandomState(0), 20))
    assert len(found) == 20
    translations: dict[str, set[str]] = {}
    for example in found:
        assert_fits(parallel_text.row(example, None), FIELDS)
        pairs = texts(example, tmp_path)
        assert len(pairs) > 5 if split == "train" else len(pairs) == 1
        for source, target in pairs:
            for word, other in zip(source.split(), target.split(), strict=True):
                translations.setdefault(word, set()).add(other)
    assert {len(others) for others in translations.values()} == {1}


def test_a_row_has_padding_behind_its_sentences():
    example = {"source": np.array([7, 2], np.uint16), "target": np.arange(1, 257, dtype=np.uint16)}
    row = parallel_text.row(example, np.random.RandomState(0))
    assert_fits(row, FIELDS)
    assert row["source"].tolist() == [7, 2] + [0] * 254
    np.testing.assert_array_equal(row["target"], example["target"])
