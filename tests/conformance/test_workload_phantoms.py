"""The workload `phantoms`: its images and their undersampling, its U-Net, loss and metric."""

import hashlib
import math
from dataclasses import replace
from itertools import count

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arbitrary import arbitrary_state
from scipy.signal import correlate
from skimage.metrics import structural_similarity
from timetrial.workloads.phantoms import FIELDS, MODEL, WORKLOAD, build
from timetrial.workloads.phantoms.data import SEEDS, _mask, _noise, _zero_filled, make_rows
from timetrial.workloads.phantoms.model import UNet
from timetrial.workloads.phantoms.ssim import ssim

pytestmark = pytest.mark.usefixtures("quick_compilation")
KEY = jax.random.key(0, impl="rbg")  # compiles faster than the default
SMALL = build(replace(MODEL, width=4, pools=1))
APPLY = jax.jit(SMALL.apply, static_argnames="train")
# Of the first 32 rows of each split, zero-filled then true images; seen alike on Python 3.11 with numpy 2.4 and on
# 3.13 with 2.5, with vector instructions switched off there (NPY_DISABLE_CPU_FEATURES, OPENBLAS_CORETYPE=Nehalem).
PREFIX_SHA256 = {
    "train": "bd632948a4fc38796c309338b3c3f494fcf867a6c676fc20b340e3c771a244cc",
    "valid": "9381c1bf5c1ff93d7c8d99db604e7e82c05e5f12eec80e1c98984a4e2f883c33",
    "test": "89a7e8b0f17677f36e4499bca10e1d9a31d22475591310629af4a12f2efbbc8c",
}


@pytest.fixture(scope="module")
def params():
    return arbitrary_state(SMALL)[0]


@pytest.fixture(scope="module")
def rows():
    return make_rows(19, seed=5)


def unet_in_numpy(params, image, pools):
    """The U-Net on one image, float64, channel by channel; pooling and unfolding are written as slices."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    place = count()

    def act(x):
        x = (x - x.mean((0, 1))) / np.sqrt(x.var((0, 1)) + 1e-5)
        return np.where(x > 0, x, 0.2 * x)

    def conv(x):
        kernel = p[f"conv_{next(place)}"]["kernel"]
        around = np.pad(x, ((1, 1), (1, 1), (0, 0)))
        return act(np.concatenate([correlate(around, kernel[..., c], "valid") for c in range(kernel.shape[3])], axis=2))

    def squares(x):
        return [x[i::2, j::2] for i in (0, 1) for j in (0, 1)]

    def unfolded(x):
        out = np.empty((2 * x.shape[0], 2 * x.shape[1], x.shape[2] // 4))
        for part, view in zip(np.split(x, 4, axis=2), squares(out), strict=True):
            view[...] = part
        return out

    x, skips = np.concatenate(squares(image[..., None]), axis=2), []
    for _ in range(pools):
        skips.append(conv(conv(x)))
        x = np.mean(squares(skips[-1]), axis=0)
    x = conv(conv(x))
    for skip in reversed(skips):
        x = act(unfolded(x @ p[f"up_{next(place)}"]["kernel"]))
        x = conv(conv(np.concatenate([x, skip], axis=2)))
    head = p[f"head_{next(place)}"]
    return unfolded(x @ head["kernel"] + head["bias"])[..., 0]


@pytest.mark.parametrize("split", SEEDS)
def test_the_generator_makes_the_frozen_bytes(split):
    made = make_rows(32, SEEDS[split])
    assert hashlib.sha256(made["zero_filled"].tobytes() + made["image"].tobytes()).hexdigest() == PREFIX_SHA256[split]


def test_the_first_rows_of_a_split_do_not_depend_on_how_many_are_made(rows):
    many = make_rows(130, seed=5)
    for name in FIELDS:
        np.testing.assert_array_equal(rows[name], many[name][:19])


def test_rows_fit_the_declared_fields(rows):
    assert {name: (array.shape[1:], array.dtype) for name, array in rows.items()} == {
        name: (field.shape, np.dtype(field.dtype)) for name, field in FIELDS.items()
    }


def test_a_mask_holds_the_centre_and_a_quarter_of_the_columns_on_average():
    mask = _mask(np.random.RandomState(0).random_sample((2000, 64)))
    assert mask.shape == (2000, 1, 64)
    assert mask[:, 0, [62, 63, 0, 1, 2]].all()
    assert mask.sum(axis=2).mean() == pytest.approx(16, abs=5 * (59 * 0.186 * 0.814 / 2000) ** 0.5)
    assert 0 < mask[:, 0, 3:62].mean(axis=0).min() < mask[:, 0, 3:62].mean(axis=0).max() < 0.25


def test_zero_filling_agrees_with_fourier_transforms_of_both_axes(rows):
    image = rows["image"].astype(np.float64)
    rng = np.random.RandomState(0)
    phase = rng.randint(-300, 300, image.shape).astype(np.float64)
    mask = _mask(rng.random_sample((19, 64)))
    nothing = np.zeros_like(image)
    sampled = np.fft.fft2(image * np.exp(2j * np.pi * phase / 256)) * mask
    expected = np.abs(np.fft.ifft2(sampled))
    made = _zero_filled(image, phase, mask, (nothing, nothing))
    assert np.abs(made - np.minimum(expected, 255)).max() < 0.75  # half a grey level is rounding


def test_noise_has_mean_0_and_deviation_1():
    for part in _noise(np.random.RandomState(0).random_sample((8, 4 * 64 * 64))):
        assert part.mean() == pytest.approx(0, abs=5 / part.size**0.5)
        assert part.std() == pytest.approx(1, abs=5 / part.size**0.5)


def test_the_model_has_the_documented_size_and_its_head_comes_last():
    infos = jax.tree.leaves(WORKLOAD.param_info)
    assert sum(math.prod(info.shape) for info in infos) == 116_868
    assert [i.kind for i in infos if i.depth == max(i.depth for i in infos)] == ["bias", "output_head"]


def test_the_initial_weights_have_the_variance_of_their_fan_in_times_the_scale():
    model = UNet(width=64, pools=1, init_scale=2.0)
    kernel = jax.jit(lambda key: model.init(key, jnp.zeros((1, 8, 8)))["params"]["conv_3"]["kernel"])(KEY)
    assert np.std(kernel) == pytest.approx(2.0 / (9 * 128) ** 0.5, rel=0.02)


def test_the_model_agrees_with_a_unet_in_numpy():
    model = UNet(width=3, pools=2)
    params, _ = arbitrary_state(build(model))
    image = np.random.RandomState(0).standard_normal((2, 16, 24)).astype(np.float32)
    outputs = jax.jit(model.apply)({"params": params}, image)
    expected = [unet_in_numpy(params, one.astype(np.float64), pools=2) for one in image]
    np.testing.assert_allclose(outputs, expected, rtol=1e-3, atol=1e-3)


def test_dropout_drops_whole_channels_and_scales_the_others():
    model = UNet(width=3, pools=1)
    weights, _ = arbitrary_state(build(model))
    image = np.random.RandomState(0).standard_normal((2, 8, 8)).astype(np.float32)
    kept = jax.jit(lambda rate: model.apply({"params": weights}, image, dropout_rate=rate, key=KEY))
    np.testing.assert_allclose(kept(0.0), jax.jit(model.apply)({"params": weights}, image), rtol=1e-4, atol=1e-5)
    assert np.abs(kept(0.5) - kept(0.0)).max() > 0.1
    nothing = np.broadcast_to(weights["head_7"]["bias"].reshape(2, 2), (2, 4, 4, 2, 2)).swapaxes(2, 3).reshape(2, 8, 8)
    np.testing.assert_allclose(kept(1 - 1e-7), nothing, atol=1e-5)


def test_the_similarity_agrees_with_scikit_image():
    rng = np.random.RandomState(0)
    truth = rng.randint(0, 256, (6, 20, 33)).astype(np.float64)
    made = truth + rng.standard_normal(truth.shape) * np.array([0, 1, 5, 20, 80, 300])[:, None, None]
    truth[:, :10, :10] = 40  # flat, as the ground of an image
    expected = [structural_similarity(a, b, data_range=b.max()) for a, b in zip(made, truth, strict=True)]
    similar = ssim(jnp.asarray(made, jnp.float32), jnp.asarray(truth, jnp.float32))
    np.testing.assert_allclose(similar, expected, atol=2e-5)
    assert np.isfinite(ssim(jnp.ones((1, 9, 9)), jnp.zeros((1, 9, 9)))).all()


def test_metrics_are_those_of_the_image_in_its_own_grey_levels(params, rows):
    outputs = np.asarray(APPLY(params, {}, rows, KEY, train=False)[0], np.float64)
    zero_filled, image = (rows[name].astype(np.float64) for name in ("zero_filled", "image"))
    mean, deviation = (f(zero_filled, axis=(1, 2), keepdims=True) for f in (np.mean, np.std))
    metrics = SMALL.finalize(jax.device_get(jax.jit(SMALL.evaluate)(params, {}, rows)))
    assert metrics["loss"] == pytest.approx(np.abs(outputs - (image - mean) / deviation).mean(), rel=1e-4)
    pairs = zip(outputs * deviation + mean, image, strict=True)
    expected = [structural_similarity(made, truth, data_range=truth.max()) for made, truth in pairs]
    assert metrics[WORKLOAD.metric] == pytest.approx(np.mean(expected), abs=1e-4)


def test_brighter_measurements_give_a_brighter_image_and_the_same_loss(params, rows):
    dim = {name: array // 2 for name, array in rows.items()}
    bright = {name: 2 * array for name, array in dim.items()}
    losses = [WORKLOAD.loss(APPLY(params, {}, batch, KEY, train=False)[0], batch)[0] for batch in (dim, bright)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)
