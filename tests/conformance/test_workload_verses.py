"""The workload `verses`: its transformer, loss and metrics, and how its clauses are found, cut up and split."""

import math
from collections import Counter
from dataclasses import replace

import jax
import numpy as np
import optax
import pytest
from arbitrary import arbitrary_state
from hypothesis import given
from hypothesis import strategies as st
from prepared import prepared_splits
from scipy.special import log_softmax, softmax
from timetrial.workloads.verses import MODEL, WORKLOAD, build
from timetrial.workloads.verses.align import align
from timetrial.workloads.verses.data import clauses
from timetrial.workloads.verses.model import translate
from timetrial.workloads.verses.pieces import CODE_OF, END, PAD, PIECES, START, SYMBOLS, decode, encode, learn

from timetrial.errors import UserError

pytestmark = pytest.mark.usefixtures("quick_compilation")
D, HEADS, LAYERS, T, V = 32, 4, 2, 16, 1024
SMALL = replace(MODEL, width=D)
WITH_SMALL = build(SMALL)


@pytest.fixture(scope="module")
def params():
    """With large kernels, so that a translation does not repeat one symbol, which is also its own input."""
    params, _ = arbitrary_state(WITH_SMALL)
    doubled = jax.tree.map(lambda leaf: 2 * leaf if leaf.ndim > 1 else leaf, params)
    return {**doubled, "embedding": params["embedding"]}


@pytest.fixture(scope="module")
def splits():
    return prepared_splits(WORKLOAD)


@jax.jit
def forward(params, batch):
    return WITH_SMALL.apply(params, {}, batch, jax.random.key(0), train=False)[0]


@pytest.fixture(scope="module")
def pairs(splits):
    return clauses()


def clause_batch(rows, seed):
    """Rows of random pieces whose sources and targets have different lengths."""
    rng = np.random.RandomState(seed)
    batch = WORKLOAD.random_batch(rows, seed)
    for name in ("source", "target"):
        batch[name] = np.where(batch[name] < 3, 3, batch[name]).astype(np.uint16)
        for row in batch[name]:
            length = rng.randint(2, T)
            row[length:] = PAD
            if name == "target":
                row[length] = END
    return batch


def transformer_in_numpy(params, source, before):
    """Logits (T, V) of one row, in float64, one head and one position at a time; `source` without padding."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
        return normed * p[name]["scale"] + p[name]["bias"]

    def attention(name, x, y, causal):
        weights = p[name]
        query, key, value = x @ weights["query"]["kernel"], y @ weights["key"]["kernel"], y @ weights["value"]["kernel"]
        mixed = np.zeros_like(x)
        for head in range(HEADS):
            part = slice(head * D // HEADS, (head + 1) * D // HEADS)
            for t in range(len(x)):
                seen = slice(0, t + 1 if causal else len(y))
                mixed[t, part] = softmax(key[seen, part] @ query[t, part] / np.sqrt(D / HEADS)) @ value[seen, part]
        return mixed @ weights["out"]["kernel"]

    def mlp(name, x):
        hidden = np.maximum(x @ p[name]["in"]["kernel"] + p[name]["in"]["bias"], 0)
        return hidden @ p[name]["out"]["kernel"] + p[name]["out"]["bias"]

    def embed(symbols):
        angles = np.arange(len(symbols))[:, None] / 100 ** (np.arange(D // 2) / (D // 2))
        return p["embedding"]["embedding"][symbols] * np.sqrt(D) + np.hstack([np.sin(angles), np.cos(angles)])

    memory = embed(source)
    for i in range(LAYERS):
        y = norm(memory, f"norm_encoder_attention_{i}")
        memory = memory + attention(f"encoder_attention_{i}", y, y, causal=False)
        memory = memory + mlp(f"encoder_mlp_{i}", norm(memory, f"norm_encoder_mlp_{i}"))
    memory = norm(memory, "norm_memory")
    x = embed(before)
    for i in range(LAYERS):
        y = norm(x, f"norm_decoder_attention_{i}")
        x = x + attention(f"decoder_attention_{i}", y, y, causal=True)
        x = x + attention(f"cross_attention_{i}", norm(x, f"norm_cross_attention_{i}"), memory, causal=False)
        x = x + mlp(f"decoder_mlp_{i}", norm(x, f"norm_decoder_mlp_{i}"))
    return norm(x, "norm_out") @ p["embedding"]["embedding"].T + p["bias"]


def bleu_by_definition(written, right):
    """Papineni et al. 2002: the geometric mean of clipped n-gram precisions, n = 1 to 4, and the brevity penalty."""

    def ngrams(sentence, n):
        words = sentence.split()
        return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))

    logs = []
    for n in range(1, 5):
        matched = sum((ngrams(a, n) & ngrams(b, n)).total() for a, b in zip(written, right, strict=True))
        logs.append(math.log(matched / sum(ngrams(a, n).total() for a in written)))
    lengths = [sum(len(sentence.split()) for sentence in side) for side in (written, right)]
    return 100 * math.exp(sum(logs) / 4) * min(1.0, math.exp(1 - lengths[1] / lengths[0]))


def test_the_model_has_the_parameters_of_its_widths():
    d = 96
    attention, mlp, norm = 4 * d * d, 2 * 3 * d * d + 4 * d, 2 * d
    expected = V * d + V + LAYERS * (3 * attention + 2 * mlp + 5 * norm) + 2 * norm
    assert sum(math.prod(info.shape) for info in jax.tree.leaves(WORKLOAD.param_info)) == expected
    assert SYMBOLS == V


def test_param_info_tells_attention_norms_and_the_tied_embedding_apart():
    info = WORKLOAD.param_info
    kinds = {name: info["cross_attention_1"][name]["kernel"].kind for name in ("query", "key", "value", "out")}
    assert kinds == {"query": "attention_q", "key": "attention_k", "value": "attention_v", "out": "attention_out"}
    assert (info["norm_out"]["scale"].kind, info["norm_out"]["bias"].kind) == ("norm_scale", "norm_bias")
    assert info["embedding"]["embedding"].kind == "tied_embedding"
    chain = [("encoder_attention_0", "out"), ("encoder_mlp_0", "in"), ("encoder_mlp_1", "out")]
    chain += [("decoder_attention_0", "query"), ("cross_attention_0", "query"), ("decoder_mlp_1", "out")]
    depths = [0, *(info[layer][name]["kernel"].depth for layer, name in chain), info["bias"].depth]
    assert depths == sorted(set(depths))


def test_the_model_agrees_with_a_transformer_in_numpy(params):
    batch = clause_batch(4, seed=1)
    logits = forward(params, batch)
    for row in range(3):
        source = batch["source"][row][batch["source"][row] != PAD]
        expected = transformer_in_numpy(params, source, [START, *batch["target"][row, :-1]])
        np.testing.assert_allclose(logits[row], expected, rtol=1e-3, atol=1e-3)


def test_a_symbol_changes_no_prediction_that_comes_before_it(params):
    batch = clause_batch(4, seed=2)
    logits = np.asarray(forward(params, batch))
    for place in (0, 7, 14):
        changed = batch["target"].copy()
        changed[0, place] = 3 + (changed[0, place] + 1) % (V - 3)
        other = np.asarray(forward(params, {**batch, "target": changed}))
        np.testing.assert_array_equal(other[0, : place + 1], logits[0, : place + 1])
        assert not np.allclose(other[0, place + 1], logits[0, place + 1])


def test_a_translation_is_the_most_likely_symbol_after_those_before_it(params):
    """One symbol at a time with remembered keys and values, as with all of them at once."""
    batch = clause_batch(4, seed=3)
    written = jax.jit(lambda params, source: translate(SMALL, params, source, T))(params, batch["source"])
    logits = forward(params, {**batch, "target": np.asarray(written, np.uint16)})
    np.testing.assert_array_equal(written, np.argmax(logits, axis=-1))
    assert len(np.unique(written)) > 4


def test_loss_agrees_with_scipy_and_counts_symbols_up_to_the_end(params):
    batch = clause_batch(4, seed=4)
    logits = forward(params, batch)
    losses, terms = WORKLOAD.loss(logits, batch)
    for row in range(4):
        length = np.flatnonzero(batch["target"][row] == END)[0] + 1
        log_p = log_softmax(np.asarray(logits[row], np.float64), axis=-1)
        nats = -sum(log_p[t, batch["target"][row, t]] for t in range(length))
        assert (float(losses[row]), float(terms[row])) == (pytest.approx(nats, rel=1e-5), length)
    metrics = WORKLOAD.finalize(jax.device_get(jax.jit(WITH_SMALL.evaluate)(params, {}, batch)))
    assert metrics["loss"] == pytest.approx(float(losses.sum() / terms.sum()), rel=1e-5)


def test_label_smoothing_agrees_with_optax(params):
    batch = clause_batch(4, seed=5)
    logits = forward(params, batch)
    labels = optax.smooth_labels(jax.nn.one_hot(batch["target"], V), 0.1)
    expected = np.sum(optax.softmax_cross_entropy(logits, labels) * (batch["target"] != PAD), axis=1)
    losses, _ = jax.jit(WORKLOAD.loss)(logits, batch, label_smoothing=0.1)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


@given(st.integers(0, 2**32 - 1))
def test_bleu_agrees_with_its_definition(seed):
    rng = np.random.RandomState(seed)
    right = rng.choice([CODE_OF[piece] for piece in ("_the", "_king", "_of", "s", "_and")], (20, T))
    written = np.where(rng.rand(20, T) < 0.2, CODE_OF["_lord"], right)
    for array in (right, written):
        array[np.arange(20), rng.randint(8, T, 20)] = END
    metrics = WORKLOAD.finalize({"loss": 0.0, "symbols": 1.0, "translation": written, "target": right})
    expected = bleu_by_definition([decode(row) for row in written], [decode(row) for row in right])
    assert metrics["bleu"] == pytest.approx(expected, rel=1e-6)


WORDS = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=12)
CLAUSES = st.lists(st.lists(WORDS, min_size=1, max_size=4), min_size=1, max_size=5)


@given(CLAUSES, CLAUSES)
def test_alignment_keeps_every_word_in_its_order(source, target):
    pairs = align(source, target)
    for side, given_side in enumerate((source, target)):
        assert [word for pair in pairs for word in pair[side]] == [word for clause in given_side for word in clause]


def test_alignment_pairs_clauses_of_like_length():
    long, short = ["multiplied", "exceedingly", "upon", "earth"], ["so"]
    assert align([long, short, long], [long, short, long]) == [(long, long), (short, short), (long, long)]
    assert align([long + long, short], [long, long, short]) == [(long + long, long + long), (short, short)]


@given(st.lists(st.text("abcdefghijklmnopqrstuvwxyz'-", min_size=1, max_size=12), min_size=1))
def test_words_come_back_from_their_pieces(words):
    codes = [code for word in words for code in encode(word)]
    assert decode([*codes, END, encode("more")[0], PAD]) == " ".join(words)


def test_pieces_are_learnt_by_frequency():
    counts = {"low": 5, "lot": 2, "slow": 1}
    assert learn(counts, 13) == [*"lostw", "_l", "_o", "_s", "_t", "_w", "_lo", "_low", "_lot"]
    assert learn(counts, 99)[-2:] == ["low", "_slow"]


@pytest.mark.slow
def test_the_committed_pieces_are_those_that_train_teaches(pairs):
    counts = Counter(word for pair in pairs["train"] for side in pair for word in side.split())
    assert tuple(learn(counts, len(PIECES))) == PIECES


@pytest.mark.slow
def test_rows_hold_the_clauses_that_fit_in_them(splits, pairs):
    assert {split: len(arrays["source"]) for split, arrays in splits.items()} == {
        "train": 63095,
        "valid": 768,
        "test": 671,
    }
    for split, arrays in splits.items():
        rows = list(zip(map(decode, arrays["source"]), map(decode, arrays["target"]), strict=True))
        fitting = iter(pairs[split])
        assert all(row in fitting for row in rows)
        assert ((arrays["target"] == END).sum(1) == 1).all()
        assert arrays["source"].dtype == arrays["target"].dtype == np.uint16


def test_the_two_sides_of_a_pair_belong_together(splits):
    """Words of more than three letters begin alike far more often in a row than in another row."""

    def alike(shift):
        found = total = 0
        for source, target in zip(splits["valid"]["source"], np.roll(splits["valid"]["target"], shift, 0), strict=True):
            beginnings = {word[:3] for word in decode(target).split()}
            words = [word for word in decode(source).split() if len(word) > 3]
            found, total = found + sum(word[:3] in beginnings for word in words), total + len(words)
        return found / total

    assert alike(0) > 0.25 > 5 * alike(1)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("timetrial.workloads.verses.data.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install pythonbible-wyc==0\.0\.2"):
        clauses()
