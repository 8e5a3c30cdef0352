"""Pieces of words: learnt from text, and made up."""

import numpy as np
import pytest
import sentencepiece

from timetrial.errors import UserError
from timetrial.full import extra, pieces


def text(seed=0, lines=300):
    rng = np.random.RandomState(seed)
    words = ["".join(rng.choice(list("abcdeghiäöß"), rng.randint(1, 7))) for _ in range(400)]
    return [" ".join(rng.choice(words, 7)) for _ in range(lines)]


def test_learnt_pieces_spell_the_text_that_was_cut_into_them(tmp_path):
    pieces.learn(text(), tmp_path, count=200)
    vocabulary = (tmp_path / pieces.FILE).read_text(encoding="utf-8").split("\n")[:-1]
    assert len(set(vocabulary)) == 200
    assert vocabulary[:3] == ["<unk>", "<s>", "</s>"]
    cut = pieces.encoder(tmp_path)(text(lines=20))
    assert [numbers[-1] for numbers in cut] == [pieces.END] * 20
    assert [pieces.spell(numbers, vocabulary) for numbers in cut] == text(lines=20)


def test_a_text_is_cut_into_its_likeliest_pieces(tmp_path):
    """Of all ways to cut a word, that of the largest sum of log-probabilities, as the model has them."""
    pieces.learn(text(), tmp_path, count=100)
    model = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / pieces.MODEL))
    score = {model.id_to_piece(i): model.get_score(i) for i in range(pieces.CONTROL, 100)}

    def best(rest):
        cuts = [(score[rest[:k]] + best(rest[k:])) for k in range(1, len(rest) + 1) if rest[:k] in score]
        return max(cuts, default=-np.inf) if rest else 0.0

    for line in text(seed=1, lines=10):
        for word in line.split():
            [numbers] = pieces.encoder(tmp_path)([word])
            found = sum(score[model.id_to_piece(i)] for i in numbers[:-1])
            assert found == pytest.approx(best("\u2581" + word), abs=1e-4)


def test_the_same_text_makes_the_same_pieces(tmp_path):
    made = []
    for _ in range(2):
        pieces.learn(text(), tmp_path, count=100)
        made.append((tmp_path / pieces.MODEL).read_bytes())
    assert made[0] == made[1]


def test_invented_pieces_are_as_many_words(tmp_path):
    pieces.invent(tmp_path, count=32_000)
    vocabulary = (tmp_path / pieces.FILE).read_text(encoding="utf-8").split("\n")[:-1]
    assert len(set(vocabulary)) == 32_000
    assert len(pieces.spell(range(32_000), vocabulary).split()) == 32_000 - pieces.CONTROL


def test_a_package_that_is_missing_is_named_with_what_brings_it():
    with pytest.raises(UserError, match=r"no_such_package is needed .*pip install 'timetrial\[full\]'"):
        extra.extra("no_such_package")
