"""What a person did wrong, said so that they can put it right. Standard library only."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake of the user's: the CLI prints its message, without a traceback, and exits with 2."""


def unknown(kind: str, name: str, known: Iterable[str], hint: str) -> UserError:
    """The error for a name that does not exist, with the nearest that does."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    guess = f"; did you mean {near[0]!r}?" if near else "."
    listing = f" Known: {', '.join(known)}." if 0 < len(known) <= 12 and not near else ""
    return UserError(f"no {kind} {name!r}{guess}{listing} {hint}")


def printable(text: str) -> str:
    """Text that somebody else wrote, for a terminal: what does not print is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
