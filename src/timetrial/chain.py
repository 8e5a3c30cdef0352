"""The chain of a record: each line holds a hash of the line before it, and the last one also of itself.

A chain has no secret. It shows that the lines are those that one writer wrote one after the other, or that somebody
made all of them anew; docs/audit.md says what that is worth. Standard library only.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

_DIGITS = 32
_SEAL = re.compile(rb',"self":"[^"]*"\}\n$')


class Break(NamedTuple):
    """A line of which the chain shows that it was changed, or what stands beside it."""

    line: int
    """Counted from 1."""
    field: str
    expected: str
    found: str


def digest(line: str | bytes) -> str:
    """The first 32 hexadecimal digits of the SHA-256 of a line, its newline included."""
    return hashlib.sha256(line.encode() if isinstance(line, str) else line).hexdigest()[:_DIGITS]


def linked(line: str, before: str, *, last: bool) -> str:
    """A line of JSON with its key `prev`, and where it is the record's last with `self`; the first line as it is."""
    if not before:
        return line
    line = f'{line[:-2]},"prev":"{digest(before)}"}}\n'
    return f'{line[:-2]},"self":"{digest(line)}"}}\n' if last else line


def end_of_chain(lines: Sequence[str]) -> str | None:
    """The line that the next one is linked to, newline included; None where these lines have no chain.

    A record that consists of its first line alone may begin one.
    """
    chained = len(lines) == 1 or "prev" in json.loads(lines[-1])
    return lines[-1].rstrip("\n") + "\n" if chained else None


def breaks(lines: Sequence[bytes]) -> list[Break]:
    """Where the chain of a record does not hold. `lines` are whole, newlines included, and each a JSON object.

    A record without any link has no chain to break.
    """
    parsed: list[dict[str, Any]] = [json.loads(line) for line in lines]
    if not any("prev" in data or "self" in data for data in parsed):
        return []
    found: list[Break] = []
    for number, (line, data) in enumerate(zip(lines, parsed, strict=True), start=1):
        expected = {} if number == 1 else {"prev": digest(lines[number - 2])}
        if data.get("kind") == "end":
            expected["self"] = digest(_SEAL.sub(b"}\n", line))
        for field in ("prev", "self"):
            if data.get(field) != expected.get(field):
                found.append(Break(number, field, str(expected.get(field)), str(data.get(field))))
    return found
