"""The workload `formants`: its speech, Conformer, loss and error rates."""

import hashlib
import itertools
import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import jiwer
import numpy as np
import pytest
from arbitrary import arbitrary_state
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, log_softmax, softmax
from sklearn.linear_model import Ridge
from timetrial.workloads.formants import BLANK, FIELDS, MODEL, WORKLOAD, build
from timetrial.workloads.formants.data import (
    FRAMES,
    LETTERS,
    MOST_LABELS,
    ROWS,
    SEEDS,
    SYMBOLS,
    lexicon,
    make_rows,
    sentences,
    split_of,
)
from timetrial.workloads.formants.metrics import decode, edit_distance, error_rates

pytestmark = pytest.mark.usefixtures("quick_compilation")
KEY = jax.random.key(0, impl="rbg")  # compiles faster than the default
DEPTH = 1
SMALL = build(replace(MODEL, width=16, depth=DEPTH))
LOSS = jax.jit(SMALL.loss)
APPLY = jax.jit(SMALL.apply, static_argnames="train")
# Of the first 64 rows of each split, levels then labels; seen alike under numpy 2.4 on Python 3.11, under numpy 2.5 on
# Python 3.13, and with the vector instructions beyond SSE4 switched off (NPY_DISABLE_CPU_FEATURES).
PREFIX_SHA256 = {
    "train": "1832cde0a033d8b9ff961acfe1a65721b8da60fa24e51d977cafc1649d4158db",
    "valid": "79b3fd2e0b1d746e95f4d2c0627872cb98073788be523e995f986531274d1652",
    "test": "f79bd42e6c60e8451234dd4c54522d0870e90028b60272c7087da7b00a4a863c",
}
texts = st.lists(st.text("ab ", min_size=0, max_size=9), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def state():
    """Parameters and statistics of the small model."""
    return arbitrary_state(SMALL)


def conformer_in_numpy(params, state, levels, heard):
    """Logits (S, V) of one row in float64, from its heard frames alone, one frame and one head at a time."""
    p, s = (jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree) for tree in (params, state))

    def dense(x, layer):
        return x @ layer["kernel"] + layer.get("bias", 0)

    def layer_norm(x, norm):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * norm["scale"] + norm["bias"]

    def batch_norm(x, name):
        centred = (x - s[name]["mean"]) / np.sqrt(s[name]["var"] + 1e-5)
        return centred * p[name]["scale"] + p[name]["bias"]

    def convolve(x, layer, stride):
        wide = np.concatenate([np.zeros((2, x.shape[1])), x, np.zeros((2, x.shape[1]))])
        sums = [np.einsum("kd,kdf->f", wide[t : t + 5], layer["kernel"]) for t in range(0, len(x), stride)]
        return np.array(sums) + layer["bias"]

    def swish(x):
        return x * expit(x)

    x = (levels[:heard].astype(np.float64) - 110) / 40
    x = swish(batch_norm(convolve(x, p["conv_in"], 2), "norm_in"))
    width = x.shape[1]
    for i in range(DEPTH):
        y = layer_norm(x, p[f"norm_mlp_{i}"])
        x = x + dense(swish(dense(y, p[f"mlp_in_{i}"])), p[f"mlp_out_{i}"])
        y = layer_norm(x, p[f"norm_attention_{i}"])
        attention = p[f"attention_{i}"]
        query, key, value = (dense(y, attention[name]) for name in ("query", "key", "value"))
        mixed = np.zeros_like(y)
        for part in np.array_split(np.arange(width), 4):
            mixed[:, part] = softmax(query[:, part] @ key[:, part].T / len(part) ** 0.5, axis=1) @ value[:, part]
        x = x + dense(mixed, attention["out"])
        y = convolve(layer_norm(x, p[f"norm_conv_{i}"]), p[f"conv_{i}"], 1)
        y = swish(batch_norm(y[:, :width] * expit(y[:, width:]), f"norm_inner_{i}"))
        x = x + dense(y, p[f"conv_out_{i}"])
    return dense(layer_norm(x, p["norm_out"]), p["head"])


def ctc_by_enumeration(log_p, labels):
    """Of all paths that collapse to the labels, the negative logarithm of their probability."""
    paths = itertools.product(sorted({*labels, BLANK}), repeat=len(log_p))
    fitting = [path for path in paths if [c for c, _ in itertools.groupby(path) if c != BLANK] == list(labels)]
    return -np.logaddexp.reduce([sum(log_p[t, c] for t, c in enumerate(path)) for path in fitting])


def ctc_by_recursion(log_p, labels):
    """The forward recursion of Graves et al. 2006 over labels with blanks around them, in probabilities."""
    extended = [BLANK, *itertools.chain.from_iterable((label, BLANK) for label in labels)]
    p = np.exp(log_p)
    alpha = np.zeros(len(extended))
    alpha[:2] = p[0, extended[:2]]
    for frame in p[1:]:
        before = alpha.copy()
        for s, symbol in enumerate(extended):
            skips = s > 1 and symbol not in (BLANK, extended[s - 2])
            alpha[s] = (before[s] + (before[s - 1] if s else 0) + (before[s - 2] if skips else 0)) * frame[symbol]
    return -np.log(alpha[-1] + alpha[-2])


@pytest.mark.parametrize("split", SEEDS)
def test_the_generator_makes_the_frozen_bytes(split):
    rows = make_rows(split, 64)
    assert hashlib.sha256(rows["levels"].tobytes() + rows["labels"].tobytes()).hexdigest() == PREFIX_SHA256[split]


def test_the_first_rows_of_a_split_do_not_depend_on_how_many_are_made():
    few, many = make_rows("valid", 70), make_rows("valid", 130)
    for name in FIELDS:
        np.testing.assert_array_equal(few[name], many[name][:70])


def test_rows_fit_the_declared_fields():
    rows = make_rows("train", 200)
    for name, field in FIELDS.items():
        assert (rows[name].shape[1:], rows[name].dtype) == (field.shape, field.dtype)
        assert rows[name].min() >= 0
        assert rows[name].max() < field.below
    heard = np.arange(FRAMES) < FRAMES - rows["level_padding"][:, None]
    assert (rows["levels"][heard] > 0).mean() > 0.99
    assert not rows["levels"][~heard].any()


def test_labels_spell_the_sentences_and_fit_into_the_subsampled_frames():
    rows, texts = make_rows("valid", 150), sentences("valid", 150)
    for text, labels, label_padding, level_padding in zip(
        texts, rows["labels"], rows["label_padding"], rows["level_padding"], strict=True
    ):
        said = "".join(SYMBOLS[code] for code in labels)
        assert said[: MOST_LABELS - label_padding] == text
        assert not said[MOST_LABELS - label_padding :].strip()
        repeated = sum(a == b for a, b in itertools.pairwise(text))
        assert len(text) + repeated <= (FRAMES - level_padding + 1) // 2


def test_what_is_heard_is_what_was_said():
    """A linear model tells from an utterance's mean spectrum, and from how it varies, which letters were said."""
    rows = make_rows("train", 1500)
    heard = (np.arange(FRAMES) < FRAMES - rows["level_padding"][:, None])[..., None]
    mean = (rows["levels"] / 255 * heard).sum(1) / heard.sum(1)
    deviation = np.sqrt(((rows["levels"] / 255 - mean[:, None]) ** 2 * heard).sum(1) / heard.sum(1))
    spectra = np.concatenate([mean, deviation], axis=1)
    counts = np.array([[text.count(letter) for letter in LETTERS] for text in sentences("train", 1500)])
    heard_counts = Ridge(alpha=0.1).fit(spectra[:1000], counts[:1000]).predict(spectra[1000:])
    correlations = [np.corrcoef(*pair)[0, 1] for pair in zip(heard_counts.T, counts[1000:].T, strict=True)]
    assert np.mean(correlations) > 0.2  # by chance 0, and at most 0.05
    assert np.mean(np.array(correlations) > 0) > 0.9


def test_no_sentence_is_in_two_splits_and_all_words_of_valid_and_test_are_in_train():
    said = {split: set(sentences(split, ROWS[split])) for split in SEEDS}
    for split, found in said.items():
        assert {split_of(sentence) for sentence in found} == {split}
    words = {split: {word for sentence in found for word in sentence.split()} for split, found in said.items()}
    assert words["train"] == set(lexicon())
    assert words["valid"] | words["test"] <= words["train"]


def test_the_lexicon_has_240_words_without_double_letters():
    assert len(set(lexicon())) == 240
    assert not any(a == b for word in lexicon() for a, b in itertools.pairwise(word))


def test_the_model_has_the_documented_size():
    assert sum(math.prod(info.shape) for info in jax.tree.leaves(WORKLOAD.param_info)) == 202_649


def test_the_model_agrees_with_a_conformer_in_numpy(state):
    params, statistics = state
    batch = SMALL.random_batch(8, seed=1)
    logits = np.asarray(APPLY(params, statistics, batch, KEY, train=False)[0])
    for row in range(3):
        heard = FRAMES - batch["level_padding"][row]
        expected = conformer_in_numpy(params, statistics, batch["levels"][row], heard)
        np.testing.assert_allclose(logits[row, : len(expected)], expected, rtol=1e-3, atol=1e-3)


def test_the_loss_sums_the_probability_of_all_paths():
    rng = np.random.RandomState(0)
    labels = [[3], [5, 5], [1, 2], [0, 7, 0], [4], [6, 2, 6], [9, 9], [8, 1]]
    frames = np.array([1, 4, 2, 6, 5, 6, 3, 7])
    batch = {
        "labels": np.array([row + [0] * (MOST_LABELS - len(row)) for row in labels], np.uint8),
        "label_padding": np.array([MOST_LABELS - len(row) for row in labels], np.int32),
        "level_padding": (FRAMES - 2 * frames).astype(np.int32),
    }
    logits = 2 * rng.standard_normal((8, FRAMES // 2, BLANK + 1))
    losses, terms = LOSS(jnp.asarray(logits, jnp.float32), batch)
    log_p = log_softmax(logits, axis=-1)
    expected = [ctc_by_enumeration(log_p[i, : frames[i]], row) for i, row in enumerate(labels)]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    np.testing.assert_array_equal(terms, [1, 2, 2, 3, 1, 3, 2, 2])


def test_the_loss_agrees_with_the_forward_recursion(state):
    batch = make_rows("valid", 8)
    logits = APPLY(*state, batch, KEY, train=False)[0]
    log_p = log_softmax(np.asarray(logits, np.float64), axis=-1)
    expected = [
        ctc_by_recursion(log_p[i, : (FRAMES - batch["level_padding"][i] + 1) // 2], labels[: MOST_LABELS - padding])
        for i, (labels, padding) in enumerate(zip(batch["labels"], batch["label_padding"], strict=True))
    ]
    np.testing.assert_allclose(LOSS(logits, batch)[0], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("path", "text"), [("aab", "ab"), ("aa_ab", "aab"), ("__a_ _b__", "a b"), (" a  _ b ", "a b"), ("___", "")]
)
def test_decoding_merges_repetitions_then_drops_blanks(path, text):
    codes = np.array([BLANK if symbol == "_" else SYMBOLS.index(symbol) for symbol in path])
    assert decode(codes, SYMBOLS) == text


@given(texts, st.randoms(use_true_random=False))
def test_error_rates_agree_with_jiwer(said, random):
    meant = [" ".join(text.split()) or "a" for text in random.sample(said, len(said))]
    said = [" ".join(text.split()) for text in said]
    assert error_rates(said, meant) == pytest.approx({"wer": jiwer.wer(meant, said), "cer": jiwer.cer(meant, said)})


@given(st.text("abc", max_size=7), st.text("abc", max_size=7))
def test_the_edit_distance_is_a_metric(a, b):
    assert edit_distance(a, b) == edit_distance(b, a)
    assert (edit_distance(a, b) == 0) == (a == b)
    assert abs(len(a) - len(b)) <= edit_distance(a, b) <= max(len(a), len(b))


def test_metrics_agree_with_jiwer_on_what_the_network_says(state):
    batch = make_rows("valid", 8)
    logits = np.asarray(APPLY(*state, batch, KEY, train=False)[0])
    said = []
    for row, padding in zip(logits, batch["level_padding"], strict=True):
        path = row[: (FRAMES - padding + 1) // 2].argmax(-1)
        symbols = [SYMBOLS[code] for code, _ in itertools.groupby(path) if code != BLANK]
        said.append(" ".join("".join(symbols).split()))
    losses, terms = LOSS(logits, batch)
    meant = sentences("valid", 8)
    expected = {"loss": float(losses.sum() / terms.sum()), "wer": jiwer.wer(meant, said), "cer": jiwer.cer(meant, said)}
    metrics = SMALL.finalize(jax.device_get(jax.jit(SMALL.evaluate)(*state, batch)))
    assert metrics == pytest.approx(expected, rel=1e-5)


def test_frames_and_labels_beyond_the_end_change_neither_loss_nor_statistics(state):
    batch, other = SMALL.random_batch(8, seed=6), SMALL.random_batch(8, seed=7)
    heard = np.arange(FRAMES) < FRAMES - batch["level_padding"][:, None]
    said = np.arange(MOST_LABELS) < MOST_LABELS - batch["label_padding"][:, None]
    changed = {
        **batch,
        "levels": np.where(heard[..., None], batch["levels"], other["levels"]),
        "labels": np.where(said, batch["labels"], other["labels"]),
    }
    results = []
    for rows in (batch, changed):
        logits, statistics = APPLY(*state, rows, KEY, train=True)
        results.append((LOSS(logits, rows), statistics))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), *results)
