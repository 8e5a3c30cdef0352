"""Keeps of a campaign what scoring reads: campaign.json and the records, in a folder small enough to commit.

python benchmarks/compact_results.py runs/mini-v1 results/mini-v1
"""

import argparse
import shutil
from pathlib import Path

from timetrial.campaign import CAMPAIGN_NAME
from timetrial.record import RECORD_NAME, read_record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("campaign", type=Path, help="the folder that `timetrial run --out` wrote")
    parser.add_argument("kept", type=Path, help="where the records are kept")
    args = parser.parse_args()
    records = [path for path in sorted(args.campaign.rglob(RECORD_NAME)) if _has_result(path)]
    for path in (args.campaign / CAMPAIGN_NAME, *records):
        target = args.kept / path.relative_to(args.campaign)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    print(f"{len(records)} records in {args.kept}")


def _has_result(path: Path) -> bool:
    end = read_record(path).end
    return end is not None and end.status != "interrupted"


if __name__ == "__main__":
    main()
