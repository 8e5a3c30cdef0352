"""What the models of the full track compute, and their metrics: against a reference, or by what must not matter."""

import itertools
from dataclasses import replace
from functools import partial
from importlib import import_module

import jax
import jax.numpy as jnp
import jiwer
import numpy as np
import pytest
from arbitrary import arbitrary_state
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import structural_similarity
from sklearn.metrics import average_precision_score
from small_models import small, small_batch

from timetrial.errors import UserError
from timetrial.full import audio, imagenet, librispeech, pieces
from timetrial.full.beam_search import beam_search
from timetrial.metrics.ranking import mean_average_precision
from timetrial.metrics.ssim import ssim
from timetrial.metrics.words import word_error_rate

pytestmark = pytest.mark.usefixtures("quick_compilation")
KEY = jax.random.key(0, impl="rbg")


def test_ssim_is_scikit_images():
    rng = np.random.RandomState(0)
    images, noise = (jnp.asarray(rng.rand(2, 12, 15), jnp.float32) for _ in range(2))
    expected = [
        structural_similarity(image, image + 0.3 * n, win_size=7, data_range=width)
        for image, n, width in zip(np.asarray(images), np.asarray(noise), (2.5, 1.0), strict=True)
    ]
    np.testing.assert_allclose(ssim(images + 0.3 * noise, images, jnp.array([2.5, 0.0])), expected, rtol=1e-4)


def test_mean_average_precision_is_scikit_learns_over_known_rows_and_columns_with_both_classes():
    rng = np.random.RandomState(0)
    label, known = rng.rand(50, 4) < 0.3, rng.rand(50, 4) < 0.7
    score = rng.randint(0, 9, (50, 4)).astype(np.float32)
    label[known[:, 3], 3] = False
    expected = [average_precision_score(label[k, i], score[k, i]) for i, k in enumerate(known.T[:3])]
    assert mean_average_precision(label, score, known) == pytest.approx(np.mean(expected))
    assert np.isnan(mean_average_precision(label[:, 3:], score[:, 3:], known[:, 3:]))


@given(st.lists(st.tuples(*[st.lists(st.sampled_from("abc"), min_size=1).map(" ".join)] * 2), min_size=1, max_size=4))
def test_the_word_error_rate_is_jiwers(pairs):
    said, meant = map(list, zip(*pairs, strict=True))
    assert word_error_rate(said, meant) == pytest.approx(jiwer.wer(meant, said))


def test_pieces_spell_words_and_control_numbers_nothing():
    vocabulary = ["<unk>", "<s>", "</s>", "▁the", "▁ca", "t", "s"]
    assert pieces.spell([1, 3, 4, 5, 6, 2, 0], vocabulary) == "the cats"


def test_without_pieces_an_error_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("TIMETRIAL_DATA", str(tmp_path))
    with pytest.raises(UserError, match=r"no pieces of words in .*pieces\.txt: its files are to be put into place"):
        pieces.read(librispeech.DATASET)
    folder = librispeech.DATASET.folder()
    folder.mkdir(parents=True)
    (folder / pieces.FILE).write_text("<unk>\n▁a\n", encoding="utf-8")
    assert pieces.read(librispeech.DATASET) == ["<unk>", "▁a"]


def test_speech_metrics_are_those_of_the_decoded_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("TIMETRIAL_DATA", str(tmp_path))
    folder = librispeech.DATASET.folder()
    folder.mkdir(parents=True)
    (folder / pieces.FILE).write_text("<unk>\n<s>\n</s>\n▁on\n▁off\n", encoding="utf-8")
    accumulated = {
        "loss": np.array(6.0),
        "terms": np.array(4.0),
        "path": np.array([[0, 3, 3, 0, 3, 0], [4, 4, 4, 4, 0, 0]], np.uint16),
        "labels": np.array([[3, 3], [3, 4]], np.uint16),
    }
    assert librispeech.finalize(accumulated) == {"loss": 1.5, "wer": 0.25}


ENDS = 2


@partial(jax.jit, static_argnames="alpha")
def beams_of_nine(log_p, alpha):
    """The best of up to three of three symbols, of which `log_p` (3, before, symbol) tells; nothing is dropped."""

    def step(before, kept, t):
        return log_p[t, before], kept + 1

    return beam_search(step, jnp.zeros(18), rows=2, beams=9, length=3, start=0, end=ENDS, alpha=alpha)


@given(seed=st.integers(0, 10**6), alpha=st.sampled_from([0.0, 0.6]))
def test_a_beam_search_that_drops_nothing_finds_the_best_of_all_sequences(seed, alpha):
    log_p = np.random.RandomState(seed).standard_normal((3, 3, 3)).astype(np.float32) * 2
    log_p -= np.log(np.exp(log_p).sum(-1, keepdims=True))

    def score(sequence):
        before = (0, *sequence)
        return sum(log_p[t, before[t], s] for t, s in enumerate(sequence)) / ((5 + len(sequence)) / 6) ** alpha

    whole = [(*s, ENDS) for n in range(3) for s in itertools.product(range(ENDS), repeat=n)]
    best = max(whole, key=score)
    assert beams_of_nine(log_p, alpha).tolist() == [[*best, *[0] * (3 - len(best))]] * 2


def test_beam_search_gives_the_likeliest_where_no_sequence_ends():
    def step(before, kept, t):
        return jnp.tile(jnp.array([0.0, 1.0, -jnp.inf]), (len(before), 1)), kept

    found = beam_search(step, None, rows=1, beams=2, length=4, start=0, end=2, alpha=0.6)
    assert found.tolist() == [[1, 1, 1, 1]]


def test_log_mel_spectra_are_those_of_a_sum_over_sines_and_cosines():
    rng = np.random.RandomState(0)
    samples = rng.randint(-3000, 3000, (1, 900)).astype(np.int16)
    heard = np.arange(900)[None] < 700
    found, frames = audio.log_mel(jnp.asarray(samples), jnp.asarray(heard))
    signal = np.where(heard, samples, 0)[0] / 2**15
    assert frames.tolist() == [[True, True, True, True]]
    assert audio.heard_frames(jnp.asarray(np.arange(900)[None] < 300)).tolist() == [[True, True, False, False]]
    for t in range(4):
        frame = signal[160 * t : 160 * t + 400]
        emphasised = np.append(frame[0] * 0.03, frame[1:] - 0.97 * frame[:-1])
        windowed = emphasised * np.sin(np.pi * np.arange(400) / 400) ** 2
        hertz = np.arange(1, 257) * 16_000 / 512
        angles = 2 * np.pi * np.outer(hertz / 16_000, np.arange(400))
        power = (np.cos(angles) @ windowed) ** 2 + (np.sin(angles) @ windowed) ** 2
        mel = 2595 * np.log10(1 + hertz / 700)
        edges = np.linspace(2595 * np.log10(1 + 125 / 700), 2595 * np.log10(1 + 7600 / 700), 82)
        bands = [np.interp(mel, edges[i : i + 3], [0, 1, 0], left=0, right=0) @ power for i in range(80)]
        expected = np.log(np.maximum(bands, 1e-5))
        restored = np.asarray(found[0, t]) * audio._DEVIATION + audio._MEAN
        np.testing.assert_allclose(restored, expected, atol=2e-3)


mask_once = jax.jit(partial(audio.masked, frequency_masks=1, time_masks=1))


@given(st.integers(0, 10**6))
def test_masks_are_runs_within_what_is_heard_and_no_longer_than_they_may_be(seed):
    heard = np.arange(200)[None] < np.array([[200], [90]])
    free = np.asarray(mask_once(jnp.ones((2, 200, 80)), heard, jax.random.key(seed)))
    times, bands = free.max(axis=2) == 0, free.max(axis=1) == 0
    assert set(np.unique(free)) <= {0.0, 1.0}
    assert (free == 0).sum() == sum(
        80 * t.sum() + 200 * b.sum() - t.sum() * b.sum() for t, b in zip(times, bands, strict=True)
    )
    for mask, most in ((times[0], 10), (times[1], 4), (bands[0], 26), (bands[1], 26)):
        assert mask.sum() <= most
        assert np.abs(np.diff(mask.astype(int))).sum() <= 2
    assert not times[1, 90:].any()


def test_an_lstm_in_both_directions_is_a_loop_over_what_is_heard():
    layer = import_module("timetrial.workloads.librispeech_deepspeech.model").BidirectionalLSTM()
    rng = np.random.RandomState(0)
    x, lengths = rng.standard_normal((2, 4, 6)).astype(np.float32), (4, 2)
    heard = np.arange(4) < np.array(lengths)[:, None]
    shapes = jax.eval_shape(layer.init, KEY, x, heard)["params"]
    params = jax.tree.map(lambda leaf: 0.2 * rng.standard_normal(leaf.shape).astype(np.float32), shapes)
    found = np.asarray(layer.apply({"params": params}, x, heard))

    def sigmoid(z):
        return 1 / (1 + np.exp(-z))

    def stacked(direction, part):
        return np.concatenate(
            [params[f"{direction}_{gate}_{part}"] for gate in ("in", "forget", "cell", "out")], axis=-1
        )

    for row, length in enumerate(lengths):
        for place, direction in enumerate(("forward", "backward")):
            inputs, recurrent, bias = (stacked(direction, part) for part in ("input", "hidden", "bias"))
            cell = hidden = np.zeros(3)
            for t in range(length)[:: 1 - 2 * place]:
                into, forget, new, out = np.split(x[row, t] @ inputs + hidden @ recurrent + bias, 4)
                cell = sigmoid(forget) * cell + sigmoid(into) * np.tanh(new)
                hidden = sigmoid(out) * np.tanh(cell)
                np.testing.assert_allclose(found[row, t, 3 * place : 3 * (place + 1)], hidden, atol=1e-5)


def test_an_lstm_keeps_of_each_frame_its_gates_and_states_alone_for_the_pass_back():
    layer = import_module("timetrial.workloads.librispeech_deepspeech.model").BidirectionalLSTM()
    x, heard = jnp.zeros((2, 8, 6)), jnp.ones((2, 8), bool)
    params = jax.eval_shape(layer.init, KEY, x, heard)
    program = jax.make_jaxpr(jax.grad(lambda params: jnp.sum(layer.apply(params, x, heard))))(params)
    forward = next(eqn for eqn in program.eqns if eqn.primitive.name == "scan")
    kept = [out.aval.shape for out in forward.outvars if out.aval.shape[0] == forward.params["length"]]
    each = (8, 2, 2)  # frames, directions, rows
    assert sorted(kept) == [(*each, 3), (*each, 3), (*each, 3), (*each, 12)], "outputs, both states, the gates"


@pytest.mark.parametrize("base", ["librispeech_conformer", "librispeech_deepspeech"])
def test_what_lies_behind_an_utterance_changes_none_of_its_outputs(base):
    workload = small(base)
    params, model_state = arbitrary_state(workload)
    batch = small_batch(workload, 2) | {"audio_padding": np.array([0, 3_000], np.int32)}
    apply = jax.jit(lambda samples: workload.apply(params, model_state, {**batch, "audio": samples}, KEY, train=False))
    other = batch["audio"].copy()
    other[1, 5_000:] = 7
    (logits, _), (same, _) = apply(batch["audio"]), apply(other)
    np.testing.assert_array_equal(logits, same)
    other[1, 4_999] = -other[1, 4_999]
    assert not np.array_equal(logits[1], apply(other)[0][1])


def test_no_output_of_the_language_model_depends_on_what_follows():
    workload = small("finewebedu_lm")
    params, _ = arbitrary_state(workload)
    symbols = small_batch(workload, 1)["symbols"]
    other = symbols.copy()
    other[0, 5] += 1
    apply = jax.jit(lambda s: workload.apply(params, {}, {"symbols": s}, KEY, train=False)[0])
    before, after = np.asarray(apply(symbols)), np.asarray(apply(other))
    np.testing.assert_allclose(before[0, :5], after[0, :5], atol=1e-5)
    assert all(np.abs(before[0, t] - after[0, t]).max() > 1e-3 for t in range(5, 8))


@pytest.fixture(scope="module")
def translator():
    module = import_module("timetrial.workloads.wmt")
    model = replace(module.MODEL, layers=1, width=64, symbols=500)
    params, _ = arbitrary_state(module.build(model))
    return module, model, params


def test_sentences_of_a_row_see_nothing_of_each_other(translator):
    _, model, params = translator
    end, rng = pieces.END, np.random.RandomState(0)
    s, t = rng.randint(3, 500, (2, 2, 4))
    s[:, 3] = t[:, 3] = end
    apply = jax.jit(lambda source, target: model.apply({"params": params}, source, target))
    together = apply(s.reshape(1, -1), t.reshape(1, -1))
    padded = [apply(*(np.pad(x[i], (0, 4))[None] for x in (s, t)))[0, :4] for i in range(2)]
    np.testing.assert_allclose(together[0], np.concatenate(padded), atol=1e-4)


def test_decoding_one_by_one_gives_the_logits_of_the_whole_target(translator):
    _, model, params = translator
    rng = np.random.RandomState(1)
    source, target = rng.randint(3, 500, (2, 2, 5))
    source[1, 3:] = 0
    variables = {"params": params}
    whole = jax.jit(lambda s, t: model.apply(variables, s, t))(source, target)
    memory = model.apply(variables, source, method="encode")
    empty = jnp.zeros((2, 5, 16, 4))
    step = jax.jit(lambda before, past, t: model.apply(variables, before, memory, past, t, method="decode_one"))
    past, before = [(empty, empty)], np.zeros(2, int)
    for t in range(5):
        logits, past = step(before, past, t)
        np.testing.assert_allclose(logits, whole[:, t], atol=1e-4)
        before = target[:, t]


def test_a_translation_by_one_beam_is_the_likeliest_symbol_after_the_likeliest_ones(translator, monkeypatch):
    module, model, params = translator
    monkeypatch.setattr(module, "BEAMS", 1)
    source = np.random.RandomState(2).randint(3, 500, (2, 4))
    found = jax.jit(lambda s: module.translate(model, params, s))(source)
    logits = jax.jit(lambda s, t: model.apply({"params": params}, s, t))
    expected = np.full((2, 4), 3)  # of what is not yet known, any symbol but padding
    for t in range(4):
        expected[:, t] = np.argmax(logits(source, expected)[:, t], axis=-1)
    np.testing.assert_array_equal(found, expected)


@pytest.fixture(scope="module")
def molecules():
    """A program that gives the logits of two molecules, and them: of 4 atoms and 4 bonds, and of 3 and 3."""
    workload = small("ogbg")
    params, _ = arbitrary_state(workload)
    batch = small_batch(workload, 2) | {"atom_padding": np.array([1, 2]), "bond_padding": np.array([2, 3])}
    batch["ends"] = batch["ends"] % 3
    return jax.jit(lambda b: workload.apply(params, {}, b, KEY, train=False)[0]), batch


def test_a_molecule_is_the_same_with_its_atoms_in_another_order_and_bonds_the_other_way(molecules):
    logits, batch = molecules
    order = np.array([2, 0, 1, 3, 4])
    ends = np.argsort(order)[batch["ends"]][..., ::-1]
    other = logits({**batch, "atoms": batch["atoms"][:, order], "ends": ends})
    np.testing.assert_allclose(other, logits(batch), atol=1e-4)


def test_what_fills_the_padding_of_a_molecule_does_not_matter(molecules):
    logits, batch = molecules
    atoms, bonds, ends = (batch[name].copy() for name in ("atoms", "bonds", "ends"))
    for row, (of_atoms, of_bonds) in enumerate(((4, 4), (3, 3))):
        atoms[row, of_atoms:] += 1
        bonds[row, of_bonds:] += 1
        ends[row, of_bonds:] = 0
    other = logits({**batch, "atoms": atoms, "bonds": bonds, "ends": ends})
    np.testing.assert_allclose(other, logits(batch), atol=1e-4)


def test_a_mixed_image_costs_what_its_labels_cost_each_by_its_share():
    logits = jnp.asarray(np.random.RandomState(0).standard_normal((3, 1000)), jnp.float32)
    first, second = ({"label": np.array(labels, np.int32)} for labels in ([1, 2, 3], [4, 5, 6]))
    mixed = {**first, "second_label": second["label"], "share": np.array([1.0, 0.25, 0.0], np.float32)}
    a, b, both = (np.asarray(imagenet.loss(logits, batch, label_smoothing=0.1)[0]) for batch in (first, second, mixed))
    np.testing.assert_allclose(both, mixed["share"] * a + (1 - mixed["share"]) * b, rtol=1e-5)


def test_rows_of_weight_0_are_in_no_statistics_of_batch_norm():
    workload = small("imagenet_resnet")
    params, model_state = arbitrary_state(workload)
    batch = small_batch(workload, 4)
    step = jax.jit(lambda b: workload.apply(params, model_state, b, KEY, train=True))
    weights = np.array([1, 1, 0, 0], np.float32)
    other = batch["image"].copy()
    other[2:] = 255 - other[2:]
    (logits, state), (same, same_state) = (
        step({**batch, "image": i, "weights": weights}) for i in (batch["image"], other)
    )
    np.testing.assert_allclose(logits[:2], same[:2], rtol=1e-5, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state, same_state)


def test_a_perfect_reconstruction_has_similarity_1_and_no_error():
    workload = small("fastmri")
    params, _ = arbitrary_state(workload)
    batch = small_batch(workload, 3) | {"weights": np.array([1, 1, 0], np.float32)}
    image, _ = workload.apply(params, {}, batch, KEY, train=False)
    added = workload.evaluate(params, {}, {**batch, "target": np.asarray(image)})
    found = workload.finalize({name: np.asarray(value) for name, value in added.items()})
    assert found == pytest.approx({"loss": 0.0, "ssim": 1.0}, abs=1e-5)


def test_categories_share_the_rows_of_the_table():
    workload = small("criteo1tb")
    params, _ = arbitrary_state(workload)
    batch = small_batch(workload, 2)
    beyond = {**batch, "categorical": batch["categorical"] % 512 + 512 * 5}
    first, second = (workload.apply(params, {}, b, KEY, train=False)[0] for b in (batch, beyond))
    np.testing.assert_allclose(first, second, rtol=1e-6)
