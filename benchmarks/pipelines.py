"""How many training rows a second one core makes for each workload of the full track, and how many cores that takes.

What is needed is what AlgoPerf's budget asks of a host with 8 GPUs: the examples of the step hint over the budget. Rows
are made of the synthetic twins' records (prepared where they are missing), so sizes of images and lengths of sound are
the twin's. Time is that of the processor, so other load does little to it. Prints a Markdown table.

    python benchmarks/pipelines.py [WORKLOAD …]
"""

import argparse
import time

from timetrial.batches import EpochStream, stretch
from timetrial.registry import load_workload, workload_names
from timetrial.ruleset import load_ruleset

_SECONDS = 4.0
"""Of processor time, at least, that a workload is measured for."""
_ROWS_AT_ONCE = 32


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help="default: all of the full track")
    rules = load_ruleset("full-v1").workloads
    print("| workload | rows/s needed | rows/s of a core | cores | kB a row | MB/s to the devices |")
    print("|---|--:|--:|--:|--:|--:|")
    for name in parser.parse_args().workloads or workload_names("full"):
        examples = rules[name].horizon_examples
        assert examples is not None
        needed = examples / rules[name].budget
        found, size = rows_a_second(name)
        cells = (f"{needed:,.0f}", f"{found:,.0f}", f"{needed / found:,.1f}", f"{size / 1e3:,.1f}")
        print(f"| `{name}` | {' | '.join(cells)} | {needed * size / 1e6:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
