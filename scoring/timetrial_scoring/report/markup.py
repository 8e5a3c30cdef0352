"""HTML whose text cannot become markup: what is not `Html` is escaped."""

from html import escape

TIMES, DASH = "\u00d7", "\u2013"
"""The signs that look like x and -."""
VOID = {"meta", "link", "wbr", "br"}


class Html(str):
    """Markup, as opposed to text."""

    __slots__ = ()


def join(parts: "list[Html]") -> Html:
    return Html("".join(parts))


def tag(name: str, /, *children: str | None, **attributes: str | int | bool | None) -> Html:
    """An element. A trailing underscore of an attribute is dropped, the others become hyphens; None leaves it out."""
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in VOID:
        return Html(f"<{name}{written}>")
    inner = "".join(c if isinstance(c, Html) else escape(c) for c in children if c is not None)
    return Html(f"<{name}{written}>{inner}</{name}>")


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun if number == 1 else {'study': 'studies'}.get(noun, noun + 's')}"


def breakable(name: str) -> Html:
    """A name that may break after each underscore."""
    return Html(escape(name).replace("_", "_<wbr>"))
