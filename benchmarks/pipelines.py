"""How many training rows a second one core makes for each workload of the full track, and how many cores that takes.

What is needed is what AlgoPerf's budget asks of a host with 8 GPUs: the examples of the step hint over the budget. Rows
are made of the synthetic twins' records (prepared where they are missing). Photographs and utterances are shorter there
than in the real data: rows of those are made of one of usual size as well, without reading its record. Time is
that of the processor, so other load does little to it. Prints two Markdown tables.

    python benchmarks/pipelines.py [WORKLOAD …]
"""

import argparse
import io
import time
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image

from timetrial.batches import EpochStream, stretch
from timetrial.full.recorded import Example, Recorded
from timetrial.full.utterances import SAMPLE_RATE, encoded
from timetrial.registry import load_workload, workload_names
from timetrial.ruleset import load_ruleset

_SECONDS = 4.0
"""Of processor time, at least, that a workload is measured for."""
_ROWS_AT_ONCE = 32
_HEIGHT, _WIDTH = 375, 500
"""Of a usual photograph of ImageNet."""
_SOUND = 12.3
"""Seconds of an utterance of LibriSpeech, in the mean."""


def rows_a_second(name: str) -> tuple[float, int]:
    """Of one core, and the bytes of a row that go to the device."""
    rows = load_workload(f"{name}@twin").rows("train")
    at_once = max(_ROWS_AT_ONCE, rows.block)
    stream = EpochStream(len(rows), 0, block=rows.block)
    batch = stretch(rows, stream, 0, at_once)  # opens the files
    made, spent, began = 0, 0.0, time.process_time()
    while spent < _SECONDS:
        batch = stretch(rows, stream, made, at_once)
        made, spent = made + at_once, time.process_time() - began
    return made / spent, sum(array.nbytes for array in batch.values()) // at_once


def photograph() -> Example:
    """Noise that is as smooth as makes a file of about 110 kB."""
    coarse = np.random.RandomState(0).randint(0, 256, (_HEIGHT // 2, _WIDTH // 2, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((_WIDTH, _HEIGHT), Image.Resampling.BILINEAR).save(file, "JPEG", quality=85)
    return {"image": file.getvalue(), "label": 0}


def utterance() -> Example:
    """Noise over a chord, which FLAC halves, about as it does speech."""
    time_n = np.arange(int(_SOUND * SAMPLE_RATE)) / SAMPLE_RATE
    heard = 4000 * np.sin(2 * np.pi * 220 * time_n) + np.random.RandomState(0).normal(0, 60, len(time_n))
    return {"flac": encoded(heard.astype(np.int16)), "labels": np.arange(3, 60, dtype=np.uint16)}


USUAL: Mapping[str, Callable[[], Example]] = {
    "imagenet_resnet": photograph,
    "imagenet_vit": photograph,
    "librispeech_conformer": utterance,
    "librispeech_deepspeech": utterance,
}


def rows_a_second_of(name: str, example: Example) -> float:
    """Of one core, made of that example again and again."""
    data = load_workload(name).data
    assert isinstance(data, Recorded)
    random, pipeline = np.random.RandomState(0), data.pipeline
    made, began = 0, time.process_time()
    while time.process_time() - began < _SECONDS:
        pair = [pipeline.row(example, random) for _ in range(2)]
        if pipeline.mix is not None:
            pipeline.mix(pair[0], pair[1], random)
        made += 2
    return made / (time.process_time() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help="default: all of the full track")
    names = parser.parse_args().workloads or workload_names("full")
    needed = {name: _needed(name) for name in names}
    print("| workload | rows/s needed | rows/s of a core | cores | kB a row | MB/s to the devices |")
    print("|---|--:|--:|--:|--:|--:|")
    for name in names:
        found, size = rows_a_second(name)
        cells = (f"{needed[name]:,.0f}", f"{found:,.0f}", f"{needed[name] / found:,.2f}", f"{size / 1e3:,.1f}")
        print(f"| `{name}` | {' | '.join(cells)} | {needed[name] * size / 1e6:,.1f} |", flush=True)
    print("\n| workload | of usual size | rows/s needed | rows/s of a core | cores |")
    print("|---|---|--:|--:|--:|")
    for name in (name for name in names if name in USUAL):
        example = USUAL[name]()
        size = len(example["image"] if "image" in example else example["flac"])
        found = rows_a_second_of(name, example)
        cells = (f"{size / 1e3:,.0f} kB", f"{needed[name]:,.0f}", f"{found:,.0f}", f"{needed[name] / found:,.2f}")
        print(f"| `{name}` | {' | '.join(cells)} |", flush=True)


def _needed(name: str) -> float:
    """Rows a second of AlgoPerf's budget."""
    rules = load_ruleset("full-v1").workloads[name]
    assert rules.horizon_examples is not None
    return rules.horizon_examples / rules.budget


if __name__ == "__main__":
    main()
