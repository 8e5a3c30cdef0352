"""The utterances of `formants`: short sentences of an invented language, spoken by a formant synthesiser into spectra.

A speaker says one letter after the other. A letter is three formants (resonances), a voice, a band of noise and a
length; frames blend neighbouring letters. The power that a resonance passes at a frequency is a rational function, so
spectra are computed directly, without a wave form and its Fourier transform. What makes it hard: vocal tracts, pitches
(whose harmonics ripple the low bands), rates, rooms, channels, background noise at -3 to 7 dB, a jitter of each
letter, and the speckle of short-time spectra.

The bytes must be the same on every machine and under every version of numpy, because their SHA-256 is a lock. So the
only randomness is `np.random.RandomState.random_sample`, a stream that numpy has frozen (NEP 19), and the only
arithmetic is integers, and what IEEE 754 defines to the last bit: + - * /, floor, abs, frexp, minimum, maximum and
comparisons in float64, one array operation at a time. Logarithms are rational functions made of these.

A row consumes a fixed number of draws. Shapes: N rows, T frames, F bands, G segments (letters and pauses) of a row,
L labels.
"""

import hashlib
from functools import cache

import numpy as np

from timetrial.data import Dataset

FEWEST_FRAMES, FRAMES = 28, 72
"""The lengths of utterances, in frames of about 15 ms; T is the longest."""
BANDS = 32
LETTERS = "abdefgiklmnoprstuvwzäöü"
SYMBOLS = " " + LETTERS
"""A label's code is its place here."""
_FEWEST_LETTERS, _MOST_LETTERS = 6, 12
FEWEST_LABELS, MOST_LABELS = _FEWEST_LETTERS + 1, _MOST_LETTERS + 2
"""Of a sentence: letters, and the spaces between two or three words; L is the most."""
ROWS = {"train": 20_000, "valid": 768, "test": 768}
SEEDS = {"train": 1, "valid": 2, "test": 3}
SPEAKERS = {"train": 300, "valid": 48, "test": 48}

_PHONES = {
    # Formants in Hz (those of vowels near Peterson & Barney 1952, J. Acoust. Soc. Am. 24: 175) | voice | noise, its
    # centre and half width in Hz | the part of the length in which a stop is closed | frames
    " ": (500, 1500, 2500, 0.0, 0.0, 1000, 1000, 0.0, 4.0),
    "a": (730, 1090, 2440, 1.0, 0.0, 1000, 1000, 0.0, 4.4),
    "e": (530, 1840, 2480, 1.0, 0.0, 1000, 1000, 0.0, 4.4),
    "i": (270, 2290, 3010, 1.0, 0.0, 1000, 1000, 0.0, 4.4),
    "o": (570, 840, 2410, 1.0, 0.0, 1000, 1000, 0.0, 4.4),
    "u": (300, 870, 2240, 1.0, 0.0, 1000, 1000, 0.0, 4.4),
    "ä": (660, 1720, 2410, 1.0, 0.0, 1000, 1000, 0.0, 4.4),
    "ö": (500, 1450, 2350, 1.0, 0.0, 1000, 1000, 0.0, 4.4),
    "ü": (280, 1700, 2150, 1.0, 0.0, 1000, 1000, 0.0, 4.4),
    "m": (250, 1000, 2200, 0.5, 0.0, 1000, 1000, 0.0, 3.6),
    "n": (250, 1550, 2600, 0.5, 0.0, 1000, 1000, 0.0, 3.6),
    "l": (360, 1250, 2800, 0.6, 0.0, 1000, 1000, 0.0, 3.6),
    "r": (430, 1300, 1650, 0.6, 0.0, 1000, 1000, 0.0, 3.6),
    "w": (300, 650, 2200, 0.5, 0.0, 1000, 1000, 0.0, 3.6),
    "v": (300, 1100, 2300, 0.4, 0.15, 2400, 1500, 0.0, 3.6),
    "z": (300, 1650, 2600, 0.4, 0.3, 3600, 500, 0.0, 3.6),
    "f": (400, 1150, 2300, 0.0, 0.3, 2400, 1500, 0.0, 3.6),
    "s": (400, 1700, 2600, 0.0, 0.6, 3600, 500, 0.0, 3.6),
    "b": (300, 850, 2250, 0.3, 0.3, 700, 500, 0.5, 3.6),
    "d": (300, 1750, 2700, 0.3, 0.3, 3200, 700, 0.5, 3.6),
    "g": (300, 1950, 2200, 0.3, 0.3, 1800, 500, 0.5, 3.6),
    "p": (400, 900, 2300, 0.0, 0.6, 700, 500, 0.5, 3.6),
    "t": (400, 1800, 2700, 0.0, 0.6, 3200, 700, 0.5, 3.6),
    "k": (400, 1900, 2200, 0.0, 0.6, 1800, 500, 0.5, 3.6),
}
_TABLE = np.array([_PHONES[symbol] for symbol in SYMBOLS], np.float64)
_FORMANTS = ((1.0, 80), (0.5, 110), (0.25, 160))
"""Gain and half width in Hz of each."""
_KINDS = {"v": "aeiouäöü", "c": "bdfgklmnprstvwz"}
_WORD_SHAPES = ("cv", "vc", "cvc", "cvc", "vcv", "cvcv", "cvcvc")
_CLASSES = {"A": (0, 60), "B": (60, 160), "C": (160, 240)}
_PATTERNS = ("AB", "BC", "ABC", "ABC")

_SEGMENTS = MOST_LABELS + 2
_SPEAKER_DRAWS = 7
_ROW_DRAWS = 8
_CHUNK = 64

Floats = np.ndarray


@cache
def lexicon() -> tuple[str, ...]:
    """The 240 words, all different. No letter follows itself, so that CTC needs no blank between two."""
    random = np.random.RandomState(0)
    words: list[str] = []
    while len(words) < max(end for _, end in _CLASSES.values()):
        shape, *draws = random.random_sample(6)
        kinds = [_KINDS[kind] for kind in _WORD_SHAPES[int(shape * len(_WORD_SHAPES))]]
        word = "".join(letters[int(u * len(letters))] for letters, u in zip(kinds, draws, strict=False))
        if word not in words:
            words.append(word)
    return tuple(words)


def split_of(sentence: str) -> str:
    """The split of all utterances of a sentence, from a hash of its text: 8 : 1 : 1."""
    tenth = int.from_bytes(hashlib.sha256(sentence.encode()).digest()[:8], "big") % 10
    return {0: "valid", 1: "test"}.get(tenth, "train")


def sentences(split: str, rows: int) -> list[str]:
    """The first `rows` sentences of a split: words of two or three classes in order, each class's first words often."""
    random = np.random.RandomState([SEEDS[split], 1])
    found: list[str] = []
    while len(found) < rows:
        pattern, *draws = random.random_sample(4)
        words: list[str] = []
        for name, u in zip(_PATTERNS[int(pattern * len(_PATTERNS))], draws, strict=False):
            first, end = _CLASSES[name]
            words.append(lexicon()[first + int(u * u * (end - first))])
        sentence = " ".join(words)
        if _FEWEST_LETTERS <= sum(map(len, words)) <= _MOST_LETTERS and split_of(sentence) == split:
            found.append(sentence)
    return found


def make_rows(split: str, rows: int) -> dict[str, np.ndarray]:
    """The first `rows` utterances of a split, by speakers of its own.

    `levels` uint8 (N, T, F), zero after an utterance's end, and `level_padding` int32 (N,), the frames after it;
    `labels` uint8 (N, L), codes of `SYMBOLS`, zero after the last, and `label_padding` int32 (N,), the labels after it.
    """
    texts = sentences(split, rows)
    lengths = np.array([len(text) for text in texts])
    labels = np.array([[SYMBOLS.index(symbol) for symbol in text.ljust(MOST_LABELS)] for text in texts], np.uint8)
    speakers = np.random.RandomState([SEEDS[split], 2]).random_sample((SPEAKERS[split], _SPEAKER_DRAWS))
    random = np.random.RandomState([SEEDS[split], 3])
    levels = np.empty((rows, FRAMES, BANDS), np.uint8)
    heard = np.empty(rows, np.int64)
    for first in range(0, rows, _CHUNK):
        chunk = slice(first, min(first + _CHUNK, rows))
        draws = random.random_sample((chunk.stop - first, _ROW_DRAWS + 4 * _SEGMENTS + FRAMES * BANDS))
        levels[chunk], heard[chunk] = _speak(labels[chunk], lengths[chunk], speakers, draws)
    return {
        "levels": levels,
        "level_padding": (FRAMES - heard).astype(np.int32),
        "labels": labels,
        "label_padding": (MOST_LABELS - lengths).astype(np.int32),
    }


def _speak(labels: np.ndarray, lengths: np.ndarray, speakers: Floats, draws: Floats) -> tuple[np.ndarray, np.ndarray]:
    """Levels (N, T, F), and the number of frames that each utterance takes."""
    rows = len(labels)
    row, segment, speckle = np.split(draws, [_ROW_DRAWS, _ROW_DRAWS + 4 * _SEGMENTS], axis=1)
    segment = segment.reshape(rows, 4, _SEGMENTS)
    speaker = speakers[np.floor(row[:, 0] * len(speakers)).astype(int)]
    speckle = -0.6931471805599453 * _log2(np.maximum(speckle, 1e-9)).reshape(rows, FRAMES, BANDS)  # exponential

    phones = np.zeros((rows, _SEGMENTS), int)  # a pause before the sentence, and pauses after it
    phones[:, 1:-1] = labels
    rate = _between(speaker[:, :1], 0.85, 1.15)
    frames = np.floor(_TABLE[phones, 8] * rate * _between(segment[:, 0], 0.8, 1.2)).astype(int)
    frames = np.where(np.arange(_SEGMENTS) > lengths[:, None] + 1, 0, frames)
    heard = np.maximum(np.sum(frames, axis=1), FEWEST_FRAMES)

    sound = _sound(phones, frames, row, segment, speaker) * (0.6 + 0.4 * speckle)
    echo = _between(row[:, 1], 0.0, 0.5)[:, None]
    for t in range(1, FRAMES):
        sound[:, t] = sound[:, t] + echo * sound[:, t - 1]
    place = np.arange(BANDS) / (BANDS - 1)
    low, high = _between(row[:, 2], 0.3, 1.3)[:, None, None], _between(row[:, 3], 0.3, 1.3)[:, None, None]
    # A vowel's mean power is about 0.2, that of the noise 3 dB more to 7 dB less.
    noise = 0.1 / _between(row[:, 4], 0.2, 2.0)[:, None, None] * (low + (high - low) * place) * speckle
    tilt = 1 + (_between(speaker[:, 1], 0.5, 1.5) * _between(row[:, 5], 0.7, 1.3) - 1)[:, None, None] * place
    power = (sound + noise) * tilt * _between(row[:, 6], 0.5, 2.0)[:, None, None] + 0.002
    # 20 levels for each doubling of the power, above 9 halvings of 1.
    levels = np.floor(np.minimum(np.maximum((_log2(power) + 9) * 20, 0), 255))
    return np.where((np.arange(FRAMES) < heard[:, None])[..., None], levels, 0).astype(np.uint8), heard


def _sound(phones: np.ndarray, frames: np.ndarray, row: Floats, segment: Floats, speaker: Floats) -> Floats:
    """The power of a speaker's sound, (N, T, F), from the segments' phones and their numbers of frames, (N, G)."""
    now = np.arange(FRAMES)
    ends = np.cumsum(frames, axis=1)
    index = np.minimum(np.sum(ends[:, None] <= now[:, None], axis=2), _SEGMENTS - 1)
    at = np.arange(len(phones))[:, None]
    begun = (now - (ends - frames)[at, index] + 0.5) / np.maximum(frames[at, index], 1)
    f1, f2, f3, voice, noise, centre, width, closure, _ = _TABLE[phones[at, index]].transpose(2, 0, 1)

    tract = _between(speaker[:, 2:3], 0.75, 1.3)
    released = begun >= closure
    voice = _blend(voice * np.where(released, 1.0, 0.3), (1, 2, 1))[..., None]
    noise = _blend(noise * np.where(released, 1.0, 0.0), (1, 2, 1))[..., None]
    pitch = _between(speaker[:, 3:4], 90, 220) * (1 + 0.15 * _wave(now / 50 + row[:, 7:8]))

    hertz = _hertz(np.arange(BANDS) + 0.5)
    spacing = _hertz(np.arange(BANDS) + 1.0) - _hertz(np.arange(BANDS) + 0.0)
    voiced = np.full((1, 1, 1), 0.02)
    for k, (formant, (gain, half_width)) in enumerate(zip((f1, f2, f3), _FORMANTS, strict=True)):
        own = _between(speaker[:, 4 + k, None], 0.96, 1.04) * _between(segment[:, 1 + k], 0.94, 1.06)[at, index]
        off = hertz - _blend(formant * tract * own, (1, 2, 3, 2, 1))[..., None]
        spread = half_width * half_width + spacing * spacing / 4
        voiced = voiced + gain * spread / (off * off + spread)
    resolved = spacing / pitch[..., None]
    ripple = 1 + 0.8 * _wave(hertz / pitch[..., None]) / (1 + 9 * resolved * resolved)
    off = hertz - (centre * tract)[..., None]
    spread = (width * width)[..., None]
    return voice * voiced * ripple + noise * spread / (off * off + spread)


def _between(draw: Floats, low: float, high: float) -> Floats:
    return low + (high - low) * draw


def _hertz(band: Floats) -> Floats:
    """The frequency at a place on the scale of bands: 0 to 4000 Hz, about as dense as the mel scale."""
    place = band / BANDS
    return 2400 * place / (1.6 - place)


def _wave(phase: Floats) -> Floats:
    """A smooth wave of period 1 between -1 and 1."""
    triangle = np.abs(2 * (phase - np.floor(phase)) - 1)
    return 2 * triangle * triangle * (3 - 2 * triangle) - 1


def _blend(track: Floats, weights: tuple[int, ...]) -> Floats:
    """The weighted mean of each frame and its neighbours, (N, T); beyond the ends lies the first or last frame."""
    reach = len(weights) // 2
    wide = np.pad(track, ((0, 0), (reach, reach)), mode="edge")
    total = np.zeros_like(track)
    for i, weight in enumerate(weights):
        total = total + weight * wide[:, i : i + track.shape[1]]
    return total / sum(weights)


def _log2(x: Floats) -> Floats:
    """The binary logarithm of positive numbers, within 1e-6.

    The exponent of x, and for its mantissa m in [1/2, 1) the Padé approximant of 2 artanh(z) = ln(m / r) at
    z = (m - r) / (m + r), where r is the root of 1/2.
    """
    mantissa, exponent = np.frexp(x)
    z = (mantissa - 0.7071067811865476) / (mantissa + 0.7071067811865476)
    square = z * z
    return exponent - 0.5 + 2.8853900817779268 * z * (15 - 4 * square) / (15 - 9 * square)


DATASET = Dataset(
    name="formants",
    version="1.0.0",
    generate=lambda: {split: make_rows(split, ROWS[split]) for split in ROWS},
    sha256="72c251767dffd17ea8de49bced6978bd5998f34e740d7978029a95db283784d4",
    packages={},
    licence="Apache-2.0: generated by this file",
    citation="Generated by timetrial, workloads/formants/data.py.",
)
