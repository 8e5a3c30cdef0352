"""Charts as SVG, laid out once and scaled by the page: no script is needed to see them."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from timetrial_scoring.report.markup import Html, tag

WIDTH, HEIGHT = 400, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 8, 10, 22
_POINTS = 240
"""Most points of a line; more looks than that are drawn by the median of each stretch."""
_SMOOTH = 9
"""Looks whose median a line goes through, where there are many."""
_CELLS = 56
"""Most columns of a heat map."""


class Series(NamedTuple):
    """One quantity of one run."""

    label: str
    run: int
    """0 or 1: its colour."""
    dash: int
    """Which of the quantities of a chart: its kind of line."""
    x: np.ndarray
    y: np.ndarray


class Scale(NamedTuple):
    """From values to pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool

    def __call__(self, value: float) -> float:
        low, high, value = (math.log10(v) for v in (self.low, self.high, value)) if self.log else (*self[:2], value)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round numbers, four to eight of them where there is room for so many."""
        if self.log:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            every = max(1, math.ceil((last - first) / 6))
            factors = (1, 2, 5) if last - first < 3 else (1,)
            found = [f * 10.0**k for k in range(first - 1, last + 1) if (k - first) % every == 0 for f in factors]
            within = [tick for tick in found if self.low <= tick <= self.high]
            return within if len(within) > 1 else [self.low, self.high]
        raw = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= raw * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [step * i for i in range(first, last + 1)]


def line_chart(
    series: Sequence[Series],
    *,
    label: str,
    log: bool = False,
    rules: Mapping[str, float] | None = None,
    within: tuple[float, float] | None = None,
) -> Html:
    """Every finite value as a dot, and a line through the medians of nine in turn."""
    shown = [_thinned(s._replace(x=s.x[np.isfinite(s.y)], y=s.y[np.isfinite(s.y)])) for s in series]
    shown = [s for s in shown if len(s.x)]
    rules = dict(rules or {})
    heights = np.concatenate([s.y for s in shown] + [np.array(list(rules.values()))])
    log = log and bool((heights > 0).all())
    low, high = float(heights.min()), float(heights.max())
    if within is not None:
        low, high = max(low, within[0]), min(high, within[1])
    low, high = _widened(low, high, log)
    across = np.concatenate([s.x for s in shown])
    x = Scale(*_widened(float(across.min()), float(across.max()), False, 0.0), _LEFT, WIDTH - _RIGHT, False)
    y = Scale(low, high, HEIGHT - _BOTTOM, _TOP, log)
    parts = _axes(x, y)
    for name, height in rules.items():
        at = f"{y(height):.1f}"
        parts.append(tag("line", class_="limit", x1=_LEFT, x2=WIDTH - _RIGHT, y1=at, y2=at))
        if name:
            parts.append(tag("text", name, class_="limit", x=WIDTH - _RIGHT - 2, y=f"{y(height) - 3:.1f}"))
    parts += [_drawn(s, x, y, low, high) for s in shown]
    return _svg(parts, label)


def _drawn(s: Series, x: Scale, y: Scale, low: float, high: float) -> Html:
    points = [(x(a), y(min(max(b, low), high)), a, b) for a, b in zip(s.x.tolist(), s.y.tolist(), strict=True)]
    dots = [
        tag("circle", tag("title", f"{s.label}\nstep {a:,.0f}: {b:.4g}"), cx=f"{px:.1f}", cy=f"{py:.1f}", r="2")
        for px, py, a, b in points
    ]
    half = min(_SMOOTH // 2, len(s.y) // 8)
    middle = [float(np.median(s.y[max(0, i - half) : i + half + 1])) for i in range(len(s.y))]
    heights = [y(min(max(value, low), high)) for value in middle]
    path = "".join(
        f"{'L' if i else 'M'}{p[0]:.1f},{h:.1f}" for i, (p, h) in enumerate(zip(points, heights, strict=True))
    )
    return tag("g", *dots, tag("path", d=path), class_=f"series run{s.run} dash{s.dash}")


def _thinned(s: Series) -> Series:
    if len(s.x) <= _POINTS:
        return s
    parts = np.array_split(np.arange(len(s.x)), _POINTS)
    x, y = ([float(np.median(values[part])) for part in parts] for values in (s.x, s.y))
    return s._replace(x=np.array(x), y=np.array(y))


def _widened(low: float, high: float, log: bool, pad: float = 0.05) -> tuple[float, float]:
    """A range that is no point, with a little room at its ends."""
    if log:
        factor = max((high / low) ** pad, 1.2 if high / low < 1.5 else 1.0)
        return low / factor, high * factor
    room = (high - low) * pad if high > low else max(abs(high) * 0.1, 1e-12)
    return low - room, high + room


def heat_map(
    rows: np.ndarray, x: np.ndarray, names: Sequence[str], *, label: str, ends: tuple[str, str] = ("", "")
) -> Html:
    """Numbers from 0, light, to 1, dark; (T, R) at the places `x` of the T columns, or T columns with the ends' labels.

    Row 0 is drawn lowest; NaN leaves a gap. More columns than there is room for are averaged.
    """
    parts_of = np.array_split(np.arange(len(rows)), min(_CELLS, len(rows)))
    cells = np.array([np.nan_to_num(rows[part]).mean(axis=0) for part in parts_of])
    width, height = (WIDTH - _RIGHT - _LEFT) / len(cells), (HEIGHT - _BOTTOM - _TOP) / cells.shape[1]
    parts = [
        tag(
            "rect",
            class_=f"h{min(9, int(cells[i, r] * 10))}",
            x=f"{_LEFT + i * width:.1f}",
            y=f"{HEIGHT - _BOTTOM - (r + 1) * height:.1f}",
            width=f"{width + 0.2:.1f}",
            height=f"{height + 0.2:.1f}",
        )
        for i in range(len(cells))
        for r in range(cells.shape[1])
        if cells[i, r] >= 0.1
    ]
    left, right = (f"{x[0]:,.0f}", f"{x[-1]:,.0f}") if not ends[0] else ends
    parts.append(tag("text", left, x=_LEFT, y=HEIGHT - 7, class_="start"))
    parts.append(tag("text", right, x=WIDTH - _RIGHT, y=HEIGHT - 7, class_="end"))
    every = max(1, math.ceil(len(names) / 9))
    for r in range(0, len(names), every):
        text = names[r] if len(names[r]) < 8 else names[r][-7:]
        parts.append(tag("text", text, x=_LEFT - 5, y=f"{HEIGHT - _BOTTOM - (r + 0.5) * height + 4:.1f}", class_="end"))
    return _svg(parts, label)


def _axes(x: Scale, y: Scale) -> list[Html]:
    parts: list[Html] = []
    for tick in y.ticks():
        at = f"{y(tick):.1f}"
        parts.append(tag("line", class_="rule", x1=_LEFT, x2=WIDTH - _RIGHT, y1=at, y2=at))
        parts.append(tag("text", _short(tick), x=_LEFT - 5, y=f"{y(tick) + 4:.1f}", class_="end"))
    for tick in x.ticks():
        parts.append(
            tag("text", _short(tick), x=f"{min(max(x(tick), 20), WIDTH - 22):.1f}", y=HEIGHT - 7, class_="middle")
        )
    return parts


def _short(value: float) -> str:
    size = abs(value)
    if size >= 1e4:
        return f"{value / 1e6:.4g}M" if size >= 1e6 else f"{value / 1e3:.4g}k"
    if size >= 1e3:
        return f"{value:,.0f}"
    return f"{value:.0e}".replace("e-0", "e-") if 0 < size < 1e-3 else f"{value:.3g}"


def _svg(parts: Sequence[Html], label: str) -> Html:
    return tag("svg", *parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=label, class_="gauge")
