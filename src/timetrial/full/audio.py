"""From speech to normalised log-mel spectra, on the device, and their augmentation.

The settings are those of lingvo's LibriSpeech recipe, which AlgoPerf has too. Shapes: B rows, N samples, T frames of F
bands.
"""

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.full.utterances import SAMPLE_RATE
from timetrial.workload import Array

FRAME = 400
"""Samples in a frame, 25 ms; 512 with the zeros behind them."""
HOP = 160
BANDS = 80
_FFT = 512
_LOWEST, _HIGHEST = 125.0, 7600.0
"""Edges of the bands, in hertz."""
_EMPHASIS = 0.97
_FLOOR = 1e-5
# Mean and deviation of each band's logarithm over LibriSpeech, as lingvo's recipe gives them, to four decimals.
_MEAN = np.fromstring(
    """
    -7.6048 -7.1206 -6.8864 -6.8706 -6.9668 -7.1084 -6.9528 -6.7840 -6.6196 -6.4876 -6.4121 -6.3940 -6.4245 -6.3994
    -6.5158 -6.7138 -6.8477 -6.9885 -6.9221 -7.1461 -7.2040 -7.0538 -7.3140 -7.1223 -7.3025 -7.1212 -7.2426 -7.1731
    -7.0979 -7.0887 -6.9850 -6.8788 -6.7603 -6.6301 -6.5146 -6.4245 -6.3565 -6.3179 -6.2661 -6.2468 -6.2822 -6.1908
    -6.2484 -6.1473 -6.0925 -6.0171 -5.9250 -5.8536 -5.8209 -5.8119 -5.8078 -5.7715 -5.7454 -5.7706 -5.7766 -5.7832
    -5.7954 -5.7995 -5.8023 -5.8047 -5.8168 -5.8845 -5.9727 -6.0445 -6.1285 -6.2258 -6.3157 -6.3906 -6.4929 -6.5498
    -6.6054 -6.6508 -6.6692 -6.6727 -6.6842 -6.6975 -6.7547 -6.7949 -6.8634 -6.9419""",
    np.float32,
    sep=" ",
)
_DEVIATION = np.fromstring(
    """
    3.4353 3.5963 3.7012 3.7369 3.7535 3.6936 3.6922 3.7642 3.8420 3.9000 3.9294 3.9317 3.9140 3.9032 3.8692 3.8155
    3.7645 3.7099 3.6965 3.6004 3.5493 3.5465 3.4500 3.4713 3.4085 3.4408 3.4105 3.4218 3.4313 3.4199 3.4306 3.4383
    3.4580 3.4818 3.4959 3.5037 3.5048 3.4989 3.4931 3.4823 3.4594 3.4613 3.4559 3.4755 3.4972 3.5327 3.5705 3.5920
    3.5969 3.5914 3.5866 3.5827 3.5838 3.5896 3.5819 3.5838 3.5861 3.5890 3.5922 3.5939 3.5857 3.5884 3.5921 3.5870
    3.5807 3.5731 3.5618 3.5498 3.5527 3.5475 3.5388 3.5256 3.5032 3.4923 3.4880 3.4726 3.4558 3.4352 3.4284 3.4299""",
    np.float32,
    sep=" ",
)
FREQUENCY_MASK = 27
"""Bands under a mask over frequency: fewer than this."""
TIME_MASK = 0.05
"""The share of an utterance's frames that a mask over time takes at most."""


def frames_of(samples: int) -> int:
    """How many frames fit into so many samples."""
    return (samples - FRAME) // HOP + 1


def log_mel(audio_bn: Array, heard_bn: Array) -> tuple[Array, Array]:
    """Normalised spectra, float32 (B, T, F), of 16-bit samples; and which frames begin in what is heard, bool (B, T).

    Samples that are not heard are taken for silence.
    """
    frames = frames_of(audio_bn.shape[1])
    samples_bn = jnp.where(heard_bn, audio_bn, 0).astype(jnp.float32) / 2**15
    place_tk = HOP * np.arange(frames)[:, None] + np.arange(FRAME)
    frames_btk = samples_bn[:, place_tk]
    before_btk = jnp.concatenate([frames_btk[..., :1], frames_btk[..., :-1]], axis=-1)
    windowed_btk = (frames_btk - _EMPHASIS * before_btk) * _hann_window()
    power_bts = jnp.square(jnp.abs(jnp.fft.rfft(windowed_btk, _FFT)))
    mel_btf = jnp.log(jnp.maximum(power_bts @ _mel_weights(), _FLOOR))
    return (mel_btf - _MEAN) / _DEVIATION, heard_frames(heard_bn)


def heard_frames(heard_bn: Array) -> Array:
    """Which frames begin in what is heard, bool (B, T)."""
    return heard_bn[:, : HOP * frames_of(heard_bn.shape[1]) : HOP]


def _hann_window() -> np.ndarray:
    """Periodic."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FRAME) / FRAME)).astype(np.float32)


def _mel_weights() -> np.ndarray:
    """Triangles on the mel scale, (spectrum, F): each rises from the peak of the one before and falls to the next's."""

    def mel(hertz: np.ndarray | float) -> np.ndarray:
        return 1127.0 * np.log1p(np.asarray(hertz) / 700.0)

    bins = mel(np.linspace(0, SAMPLE_RATE / 2, _FFT // 2 + 1))[:, None]
    edges = np.linspace(mel(_LOWEST), mel(_HIGHEST), BANDS + 2)
    low, peak, high = edges[:-2], edges[1:-1], edges[2:]
    weights = np.maximum(0, np.minimum((bins - low) / (peak - low), (high - bins) / (high - peak)))
    weights[0] = 0
    return weights.astype(np.float32)


def masked(spectra_btf: Array, heard_bt: Array, key: Array, *, frequency_masks: int, time_masks: int) -> Array:
    """Spectra with some runs of bands and of frames set to 0 (SpecAugment, Park et al. 2019, arXiv:1904.08779).

    There is no warping of time.
    """
    frequency_key, time_key = jax.random.split(key)
    rows, frames, bands = spectra_btf.shape
    heard_b = jnp.sum(heard_bt, axis=1)
    free_bf = ~_runs(frequency_key, jnp.full(rows, bands), jnp.full(rows, FREQUENCY_MASK), bands, frequency_masks)
    free_bt = ~_runs(time_key, heard_b, TIME_MASK * heard_b, frames, time_masks)
    return spectra_btf * free_bt[:, :, None] * free_bf[:, None]


def _runs(key: Array, among_b: Array, longest_b: Array, places: int, count: int) -> Array:
    """Which of `places` lie in one of `count` runs, bool (B, places).

    A run is shorter than `longest_b`, or has that length; its length, and then its place among the first `among_b`, are
    uniform.
    """
    length_key, start_key = jax.random.split(key)
    shape = (len(among_b), count)
    length_bm = jnp.floor(jax.random.uniform(length_key, shape) * longest_b[:, None])
    start_bm = jnp.floor(jax.random.uniform(start_key, shape) * (among_b[:, None] - length_bm + 1))
    place = jnp.arange(places)
    inside_bmp = (place >= start_bm[..., None]) & (place < (start_bm + length_bm)[..., None])
    return jnp.any(inside_bmp, axis=1)
