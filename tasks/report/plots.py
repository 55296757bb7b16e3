"""The report's plots as small SVG: intervals, curves, chains, clouds, and heat maps for Markdown.

Everything is a pure function of its arguments: equal data give equal bytes. A plot names its colours by class, so that
the page says what they are in light and in dark (`STYLE`); `standalone` makes a picture of its own of it, for Markdown.
A detector has the same colour in all plots. The colours are Okabe and Ito's, then Tol's, which colour-blind people tell
apart; lines that share a plot differ in dashes or labels as well. Drawn by matplotlib the same plots have ten times the
bytes and take as much longer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

LIGHT = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#882255", "#44aa99", "#777700", "#5c4bd0")
DARK = ("#4aa3df", "#f08a3c", "#2fbf95", "#e39bc2", "#e0b040", "#8ccbf2", "#d3729a", "#6fcbbb", "#bdbd4a", "#9d90f0")
STYLE = (
    ".plot text,svg.plot text{font:11px system-ui,'Liberation Sans',sans-serif;fill:var(--ink)}"
    ".plot .t{font-weight:600}.plot .e{text-anchor:end}.plot .m{text-anchor:middle}"
    ".plot .a{stroke:var(--ink);stroke-opacity:.55;fill:none}.plot .g{stroke:var(--ink);stroke-opacity:.13;fill:none}"
    ".plot .h{stroke:var(--ink);stroke-opacity:.6;stroke-dasharray:4 3;fill:none}"
    ".plot .l{stroke:var(--c);stroke-width:1.8;fill:none;stroke-linejoin:round}"
    ".plot .b{stroke:var(--c);stroke-width:2.4;stroke-opacity:.55;fill:none}"
    ".plot .p{fill:var(--c);stroke:var(--c)}.plot .o{fill:none;stroke:var(--c);stroke-width:1.4}"
)
DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 2", "1 2")
_INK = "#1c2128"
_CURVE_POINTS = 60
# The column of text in which Markdown is shown in the UI, pixels: what is wider is reduced until nobody can read it.
_WIDEST = 720

# The ends of the heat scale; 0.5 (chance) is white, above it blue, below it orange.
_HEAT_ABOVE, _HEAT_BELOW = (0x0B, 0x5C, 0x9E), (0xB8, 0x4A, 0x00)
# From these shares of the end colours on white text on a field has more contrast than black, 4.5 or more either way.
_DEEP_ABOVE, _DEEP_BELOW = 0.81, -0.92


def signed_points(value: float, digits: int = 1) -> str:
    """A difference of shares in points, with its sign unless it is rounded to nothing: `+1.2`, `−0.4`, `0.0`."""
    text = f"{100 * value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


@dataclass(frozen=True)
class HeatScale:
    """What colours of a heat map mean: `neutral` is white, and the colour is full `reach` above and below it.

    In `points` values are differences of shares: shown times 100, with their sign.
    """

    neutral: float = 0.5
    reach: float = 0.5
    points: bool = False

    def share(self, value: float) -> float:
        """How far a value is from neutral, in [-1, 1]; clipped beyond the reach."""
        return min(max((value - self.neutral) / self.reach, -1.0), 1.0)

    def text(self, value: float) -> str:
        return signed_points(value) if self.points else f"{value:.2f}"

    def bounds(self, low: float | None, high: float | None) -> str:
        """For example `0.50–0.61`; empty where there is no interval."""
        if low is None or high is None:
            return ""
        if not self.points:
            return f"{self.text(low)}–{self.text(high)}"
        # A field has room for two short numbers.
        digits = 1 if max(abs(low), abs(high)) < 0.1 else 0
        return f"{signed_points(low, digits)}, {signed_points(high, digits)}"


def is_deep(share: float) -> bool:
    """Whether the text on a field of this colour has to be white."""
    return not _DEEP_BELOW < share < _DEEP_ABOVE


# Chance between two classes is neutral.
CHANCE = HeatScale()


@dataclass(frozen=True)
class HeatMap:
    """Values of one metric over rows and columns, each None or on the scale: in [0, 1], where 0.5 is chance.

    `values`, `lows`, `highs` are tuples of rows; a bound is None where there is no interval. `notes` are lines below a
    value, and `links` addresses of the pictures behind it, by (row, column).
    """

    title: str
    row_title: str
    column_title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    lows: tuple[tuple[float | None, ...], ...]
    highs: tuple[tuple[float | None, ...], ...]
    scale: HeatScale = CHANCE
    notes: tuple[tuple[str, ...], ...] = ()
    links: tuple[tuple[str, ...], ...] = ()

    def field(self, row: int, column: int) -> tuple[float | None, str, str, str]:
        """Of one field the value, the words of its interval, its note and its link; empty where there is none."""
        bounds = self.scale.bounds(self.lows[row][column], self.highs[row][column])
        note = self.notes[row][column] if self.notes else ""
        return self.values[row][column], bounds, note, self.links[row][column] if self.links else ""

    def in_pieces(self, most: int) -> Iterator[HeatMap]:
        """Its columns in as few maps as have at most so many, about equally many in each."""
        each = -(-len(self.columns) // -(-len(self.columns) // most))
        for start in range(0, len(self.columns), each):
            some = slice(start, start + each)
            tables = ("values", "lows", "highs", "notes", "links")
            cut: dict[str, Any] = {name: tuple(row[some] for row in getattr(self, name)) for name in tables}
            title = self.title if start == 0 else f"{self.title}, continued"
            yield replace(self, title=title, columns=self.columns[some], **cut)


@dataclass(frozen=True)
class Curve:
    """One line: `x` and `y` of equal length in [0, 1]; `colour` and `dash` are numbers, `opacity` in (0, 1]."""

    label: str
    x: ArrayLike
    y: ArrayLike
    colour: int = 0
    dash: int = 0
    opacity: float = 1.0


@dataclass(frozen=True)
class Ranked:
    """A labelled value with its interval, or None where there is none."""

    label: str
    value: float
    low: float | None
    high: float | None
    colour: int = 0


@dataclass(frozen=True)
class Spot(Ranked):
    """The same at a place: `x` > 0."""

    x: float = 1.0


def standalone(svg: bytes) -> bytes:
    """A plot as a picture of its own: on white, in the light colours."""
    text = svg.decode()
    view = text.split('viewBox="0 0 ', 1)[1].split('"', 1)[0]
    wide, high = (float(one) for one in view.split())
    head = (
        f'<svg class="plot" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {view}" width="{wide:.0f}">'
        f"<style>svg{{--ink:{_INK}}}{STYLE}{colour_classes(LIGHT)}</style>"
        f'<rect width="{wide:.0f}" height="{high:.0f}" fill="#fff"/>'
    )
    return (head + text.split(">", 1)[1]).encode()


def colour_classes(colours: Sequence[str] = LIGHT) -> str:
    """Style rules of the colours' classes, `c0`, `c1`, and so on."""
    return "".join(f".c{number}{{--c:{colour}}}" for number, colour in enumerate(colours))


def roc_plot(curves: Sequence[Curve], title: str) -> bytes:
    """ROC curves in one square, with the line of guessing."""
    left, top, side = 44, 22, 180
    parts = [_text(left, 13, title, "t"), _line(left, top + side, left + side, top, "h")]
    parts.append(_path([(left, top), (left, top + side), (left + side, top + side)], "a"))
    for share in (0, 0.5, 1):
        parts.append(_text(left + share * side, top + side + 14, f"{share:g}", "m"))
        parts.append(_text(left - 5, top + side - share * side + 4, f"{share:g}", "e"))
    parts.append(_text(left + side / 2, top + side + 29, "photographs called fake", "m"))
    parts.append(_upright(12, top + side / 2, "fakes called fake"))
    parts += [_curve(curve, left, top, side) for curve in curves]
    parts += _legend(curves, left + side + 12, top)
    longest = max((len(curve.label) for curve in curves), default=0)
    return _svg(left + side + 48 + 6.2 * longest, max(top + side + 36, top + 15 * len(curves) + 12), parts)


def _curve(curve: Curve, left: float, top: float, side: float, dots: bool = False) -> str:
    """A curve in a square whose lower left corner is (0, 0)."""
    x, y = _thinned(np.asarray(curve.x, float), np.asarray(curve.y, float))
    places = [(left + side * one, top + side - side * other) for one, other in zip(x, y, strict=True)]
    marks = "".join(_dot(*place, "p", 2) for place in places) if dots else ""
    return _coloured(curve, _path(places, "l", curve.dash) + marks)


def _legend(curves: Sequence[Curve], left: float, top: float) -> Iterable[str]:
    for place, curve in enumerate(curves):
        y = top + 8 + 15 * place
        yield _coloured(curve, _line(left, y, left + 24, y, "l", curve.dash))
        yield _text(left + 30, y + 4, curve.label)


def _coloured(curve: Curve, drawn: str) -> str:
    shade = f' opacity="{curve.opacity:.2g}"' if curve.opacity < 1 else ""
    return f'<g class="c{curve.colour % len(LIGHT)}"{shade}>{drawn}</g>'


def reliability_plot(panels: Sequence[tuple[str, Sequence[Curve]]], title: str) -> bytes:
    """The share of fakes over p(fake), panels side by side: each with the line on which both are equal."""
    left, top, side, step = 40, 38, 104, 124
    parts = [_text(left, 13, title, "t"), _upright(10, top + side / 2, "share of fakes")]
    for place, (name, curves) in enumerate(panels):
        x = left + step * place
        parts += [_text(x, 30, name), _line(x, top + side, x + side, top, "h")]
        parts.append(_path([(x, top), (x, top + side), (x + side, top + side)], "a"))
        parts += [_text(x + share * side, top + side + 14, f"{share:g}", "m") for share in (0, 1)]
        parts += [_curve(curve, x, top, side, dots=True) for curve in curves]
    parts += [_text(left - 5, top + side - share * side + 4, f"{share:g}", "e") for share in (0, 1)]
    end = left + step * len(panels)
    parts.append(_text(left + (end - left - step + side) / 2, top + side + 28, "p(fake)", "m"))
    curves = max((curves for _, curves in panels), key=len)
    longest = max((len(curve.label) for curve in curves), default=0)
    return _svg(end + 40 + 6.2 * longest, top + side + 34, [*parts, *_legend(curves, end, top)])


def ranking_plot(rows: Sequence[Ranked], title: str, x_title: str = "AUROC") -> bytes:
    """Points with intervals of at least one row, the first on top, a line at chance; a hollow point has no interval."""
    bounds = [bound for row in rows for bound in (row.value, row.low, row.high) if bound is not None]
    first = max(0.0, min(0.45, min(bounds, default=0.5) - 0.03))
    left, top, width, step = 14 + 6.4 * max(len(row.label) for row in rows), 24, 230, 22
    high = step * max(len(rows), 2)

    def across(value: float) -> float:
        return left + width * (value - first) / (1.02 - first)

    parts = [_text(left, 13, title, "t"), _line(left, top + high, left + width, top + high, "a")]
    for tick in range(int(np.ceil(first * 10)), 11):
        parts.append(_line(across(tick / 10), top, across(tick / 10), top + high, "h" if tick == 5 else "g"))
        parts.append(_text(across(tick / 10), top + high + 14, f"{tick / 10:g}", "m"))
    for place, row in enumerate(rows):
        y = top + step * (place + 0.5)
        parts.append(_text(left - 8, y + 4, row.label, "e"))
        parts.append(f'<g class="c{row.colour % len(LIGHT)}">{_mark(across, row, y)}</g>')
    parts.append(_text(left + width / 2, top + high + 29, f"{x_title}: 0.5 is guessing, 1 is told without error", "m"))
    return _svg(left + width + 26, top + high + 36, parts)


def _mark(across: Callable[[float], float], row: Ranked, y: float) -> str:
    if row.low is None or row.high is None:
        return _dot(across(row.value), y, "o")
    return _line(across(row.low), y, across(row.high), y, "b") + _dot(across(row.value), y, "p")


def chain_plot(lines: Sequence[tuple[str, Sequence[float | None]]], steps: Sequence[str], title: str) -> bytes:
    """How values in [0, 1] change from step to step: one labelled line each, and one at one half."""
    left, top, width, high = 34, 24, 40 * max(len(steps) - 1, 1), 190
    known = [value for _, values in lines for value in values if value is not None]
    first = max(0.0, min([0.45, *(value - 0.03 for value in known)]))

    def place(step: int, value: float) -> tuple[float, float]:
        return left + 40 * step, top + high * (1 - (value - first) / (1 - first))

    parts = [_text(left, 13, title, "t"), _path([(left, top), (left, top + high), (left + width, top + high)], "a")]
    for tick in range(int(np.ceil(first * 10)), 11):
        y = place(0, tick / 10)[1]
        parts += [
            _line(left, y, left + width, y, "h" if tick == 5 else "g"),
            _text(left - 5, y + 4, f"{tick / 10:g}", "e"),
        ]
    parts += [_text(left + 40 * number, top + high + 14, step, "m") for number, step in enumerate(steps)]
    ends = []
    for number, (label, values) in enumerate(lines):
        places = [place(step, value) for step, value in enumerate(values) if value is not None]
        if places:
            dots = "".join(_dot(*one, "p", 2.2) for one in places)
            parts.append(f'<g class="c{number % len(LIGHT)}">{_path(places, "l", number % len(DASHES))}{dots}</g>')
            ends.append((places[-1][1], label))
    longest = max((len(label) for label, _ in lines), default=0)
    parts += [_text(left + width + 9, y + 4, label) for y, label in _apart(ends, 13)]
    return _svg(left + width + 16 + 6.2 * longest, top + high + 22, parts)


def cloud_plot(spots: Sequence[Spot], title: str, x_title: str, y_title: str) -> bytes:
    """Values with intervals over something positive, on a logarithmic axis; each spot with its label."""
    left, top, width, high = 44, 24, 250, 190
    low = min(spot.value if spot.low is None else spot.low for spot in spots)
    top_value = max(spot.value if spot.high is None else spot.high for spot in spots)
    margin = 0.06 * (top_value - low) or 0.05
    first, last = low - margin, top_value + margin
    start, end = np.log10(min(spot.x for spot in spots)) - 0.1, np.log10(max(spot.x for spot in spots)) + 0.1

    def place(x: float, value: float) -> tuple[float, float]:
        return (
            left + width * (float(np.log10(x)) - start) / (end - start),
            top + high * (1 - (value - first) / (last - first)),
        )

    parts = [_text(left, 13, title, "t"), _path([(left, top), (left, top + high), (left + width, top + high)], "a")]
    for x in _round_numbers(start, end):
        across = place(x, first)[0]
        parts += [_line(across, top, across, top + high, "g"), _text(across, top + high + 14, f"{x:g}", "m")]
    for value in np.linspace(first + margin, last - margin, 4):
        y = place(spots[0].x, float(value))[1]
        parts += [_line(left, y, left + width, y, "g"), _text(left - 5, y + 4, f"{value:.2f}", "e")]
    labels = []
    for spot in spots:
        x, y = place(spot.x, spot.value)
        bar = ""
        if spot.low is not None and spot.high is not None:
            bar = _line(x, place(spot.x, spot.low)[1], x, place(spot.x, spot.high)[1], "b")
        parts.append(f'<g class="c{spot.colour % len(LIGHT)}">{bar}{_dot(x, y, "p" if bar else "o")}</g>')
        labels.append((y, x, spot.label))
    beside = {label: y for y, label in _apart([(y, label) for y, _, label in labels], 11)}
    parts += [_text(x + 6, beside[label] + 4, label) for _, x, label in labels]
    parts.append(_text(left + width / 2, top + high + 29, x_title, "m"))
    parts.append(_upright(10, top + high / 2, y_title))
    longest = max(len(spot.label) for spot in spots)
    return _svg(left + width + 10 + 5.4 * longest, top + high + 36, parts)


def heat_map(maps: Sequence[HeatMap]) -> bytes:
    """Heat maps, the value and its interval printed in each field: two in a row where both can be read in a column of
    text, and further columns of a wide one below its first ones.
    """
    name = 22 + 6.4 * max(len(row) for one in maps for row in one.rows)
    longest = max(len(words) for one in maps for words in _words_of(one))
    field = max(66.0, 10 + 6.2 * longest)
    tall = 60 if any(one.notes for one in maps) else 34
    most = max(1, int((_WIDEST - name - 14) / field))
    maps = [piece for one in maps for piece in one.in_pieces(most)]
    width = name + max(field * len(one.columns) for one in maps) + 14
    across = min(2, len(maps)) if 2 * width <= _WIDEST else 1
    down = -(-len(maps) // across)
    height = 54 + max(tall * len(one.rows) for one in maps) + 12
    parts: list[str] = []
    for place, one in enumerate(maps):
        row, column = divmod(place, across)
        parts.append(f'<g transform="translate({column * width:.0f} {row * height:.0f})">')
        parts += _heat(one, name, field, tall)
        parts.append("</g>")
    return _svg(width * across, height * down, parts)


def _words_of(one: HeatMap) -> Iterable[str]:
    yield from one.columns
    yield from (line for row in one.notes for note in row for line in note.split("\n"))


def _heat(one: HeatMap, left: float, field: float, tall: int) -> Iterable[str]:
    yield _text(4, 13, one.title, "t")
    yield _text(left, 29, one.column_title)
    yield _text(left - 6, 45, one.row_title, "e")
    for column, words in enumerate(one.columns):
        yield _text(left + field * (column + 0.5), 45, words, "m")
    for row, words in enumerate(one.rows):
        y = 50 + tall * row
        yield _text(left - 6, y + tall / 2 + 4, words, "e")
        for column in range(len(one.columns)):
            value, bounds, note, _ = one.field(row, column)
            share = None if value is None else one.scale.share(value)
            x, middle = left + field * column, left + field * (column + 0.5)
            yield (
                f'<rect x="{x + 1:.0f}" y="{y + 1}" width="{field - 2:.0f}" height="{tall - 2}" '
                f'fill="{heat_colour(share)}"/>'
            )
            ink = ' style="fill:#fff"' if share is not None and is_deep(share) else ""
            below_value = [line for line in (bounds, *note.split("\n")) if line]
            lines = ["–" if value is None else one.scale.text(value), *below_value]
            for number, line in enumerate(lines):
                below = y + tall / 2 + 4 + 12 * (number - (len(lines) - 1) / 2)
                yield _text(middle, below, line, "m t" if number == 0 else "m", ink)


def heat_colour(share: float | None) -> str:
    """The colour of a field, white at 0; grey where there is no value."""
    if share is None:
        return "#eee"
    end = _HEAT_ABOVE if share >= 0 else _HEAT_BELOW
    return "#" + "".join(f"{round(255 + (full - 255) * abs(share)):02x}" for full in end)


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most `_CURVE_POINTS` points of a curve, both ends among them: more are not seen at this size."""
    if len(x) <= _CURVE_POINTS:
        return x, y
    kept = np.unique(np.linspace(0, len(x) - 1, _CURVE_POINTS).round().astype(int))
    return x[kept], y[kept]


def _round_numbers(start: float, end: float) -> Sequence[float]:
    """1, 2 and 5 times powers of ten between two logarithms; every third where there are many."""
    found = [
        digit * 10.0**power
        for power in range(int(np.floor(start)), int(np.ceil(end)) + 1)
        for digit in (1, 2, 5)
        if start <= np.log10(digit * 10.0**power) <= end
    ]
    return found if len(found) <= 7 else [one for one in found if f"{one:e}".startswith("1")]


def _apart(labels: Iterable[tuple[float, str]], least: float) -> list[tuple[float, str]]:
    """Labels at heights that are at least so far from each other, in their order."""
    placed: list[tuple[float, str]] = []
    for y, label in sorted(labels):
        placed.append((max(y, placed[-1][0] + least) if placed else y, label))
    return placed


def _svg(width: float, height: float, parts: Iterable[str]) -> bytes:
    return f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}">{"".join(parts)}</svg>'.encode()


def _text(x: float, y: float, words: str, kind: str = "", more: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{_short(x)}" y="{_short(y)}"{named}{more}>{escape(words)}</text>'


def _upright(x: float, y: float, words: str) -> str:
    return f'<text class="m" transform="translate({_short(x)} {_short(y)}) rotate(-90)">{escape(words)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str, dash: int = 0) -> str:
    return _path([(x1, y1), (x2, y2)], kind, dash)


def _path(places: Sequence[tuple[float, float]], kind: str, dash: int = 0) -> str:
    points = " ".join(f"{_short(x)} {_short(y)}" for x, y in places)
    dashes = DASHES[dash % len(DASHES)]
    return f'<path class="{kind}"{f" stroke-dasharray={chr(34)}{dashes}{chr(34)}" if dashes else ""} d="M{points}"/>'


def _dot(x: float, y: float, kind: str, radius: float = 4) -> str:
    return f'<circle class="{kind}" cx="{_short(x)}" cy="{_short(y)}" r="{radius:g}"/>'


def _short(value: float) -> str:
    """One decimal: less is not seen, more is half of the bytes."""
    return f"{value:.1f}".removesuffix(".0")
