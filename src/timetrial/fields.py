"""What a field of a JSON object must hold. Standard library only.

A converter returns the value in the type that the program uses, or raises ValueError with what was expected.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, cast


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a string")
    return value


def one_of(choices: tuple[str, ...]) -> Callable[[Any], str]:
    def convert(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return value

    return convert


def count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ValueError("a whole number that is not negative, of 63 bits at most")
    return value


def whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("a whole number")
    return value


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def number(value: Any) -> float:
    if value in ("nan", "inf", "-inf"):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("a number")
    try:
        return float(value)
    except OverflowError:
        raise ValueError("a number of 64 bits") from None


def duration(value: Any) -> float:
    found = number(value)
    if not (math.isfinite(found) and found >= 0):
        raise ValueError("a finite number that is not negative")
    return found


def mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("an object")
    return cast(dict[str, Any], value)


def numbers(value: Any) -> Mapping[str, float]:
    return {name: number(item) for name, item in mapping(value).items()}


def scalars(value: Any) -> Mapping[str, bool | int | float | str]:
    for name, scalar in mapping(value).items():
        if not isinstance(scalar, (bool, int, float, str)):
            raise ValueError(f"an object of scalars; {name!r} is none")
    return mapping(value)


def texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError("a list of strings")
    return tuple(text(item) for item in cast(list[Any], value))


def or_null(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else convert(value)
