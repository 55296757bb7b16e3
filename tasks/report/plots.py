"""The report's plots: heat maps, ROC curves and rankings, drawn without a display.

Everything is a pure function of its arguments: equal data give equal bytes (with one version of matplotlib). Plots come
as SVG for HTML, where text and axes take the colour of the page's text, so that they suit dark and light, and as PNG on
white for Markdown. Colours are Okabe and Ito's, which colour-blind people tell apart; curves differ in dashes as well.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PlotFormat = Literal["svg", "png"]

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (3, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (8, 3)))
# A colour that nothing else uses: in SVG it becomes the colour of the page's text.
_INK = "#010203"
_LINE = "#d0d7de"
_PNG_DPI = 110
_PNG_COLOURS = 64
_ROC_POINTS = 120
# Inches of a character at the size of labels, generously.
_TEXT_WIDTH = 0.062
# The ends of the heat scale; 0.5 (chance) is neutral, above it blue, below it orange.
_HEAT_ABOVE, _HEAT_BELOW, _HEAT_NEUTRAL = (0x0B, 0x5C, 0x9E), (0xB8, 0x4A, 0x00), (0xFF, 0xFF, 0xFF)
# From this share of the end colour on, text on a field is white.
HEAT_DEEP = 0.72


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
        if low is None or high is None:
            return "n/a"
        if not self.points:
            return f"{self.text(low)}–{self.text(high)}"
        # A field has room for two short numbers.
        digits = 1 if max(abs(low), abs(high)) < 0.1 else 0
        return f"{signed_points(low, digits)}, {signed_points(high, digits)}"


# Chance between two classes is neutral.
CHANCE = HeatScale()


@dataclass(frozen=True)
class HeatMap:
    """Values of one metric over rows and columns, each None or on the scale: in [0, 1], where 0.5 is chance.

    `values`, `lows`, `highs` are tuples of rows; a bound is None where there is no interval.
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


@dataclass(frozen=True)
class Curve:
    """One ROC curve: `fpr` and `tpr` of equal length, rising from (0, 0) to (1, 1)."""

    label: str
    fpr: ArrayLike
    tpr: ArrayLike


@dataclass(frozen=True)
class Ranked:
    """One line of a ranking: a value in [0, 1] with its interval, or None where there is none."""

    label: str
    value: float
    low: float | None
    high: float | None


def heat_share(value: float) -> float:
    """How far a value is from chance: -1 at 0, 0 at 0.5, 1 at 1. Values outside [0, 1] are clipped."""
    return CHANCE.share(value)


def heat_map(maps: Sequence[HeatMap]) -> bytes:
    """Heat maps side by side (at most two in a row) as PNG, the value printed in each field."""
    across = min(2, len(maps))
    down = -(-len(maps) // across)
    name_width = 0.35 + _TEXT_WIDTH * max(len(name) for one in maps for name in one.rows)
    field_width = max(0.62, *(_TEXT_WIDTH * len(name) for one in maps for name in one.columns))
    width = name_width + max(field_width * len(one.columns) for one in maps) + 0.1
    height = 0.75 + max(0.42 * len(one.rows) for one in maps)
    with _style():
        figure = _figure(width * across, height * down)
        for place, one in enumerate(maps):
            row, column = divmod(place, across)
            _draw_heat(
                _axes(
                    figure,
                    left=column * width + name_width,
                    top=row * height + 0.28,
                    width=field_width * len(one.columns),
                    height=0.42 * len(one.rows),
                ),
                one,
            )
        return _png(figure)


def roc_plot(curves: Sequence[Curve], title: str, kind: PlotFormat = "svg") -> bytes:
    """ROC curves in one square, with the line of guessing; as SVG without a background or as PNG."""
    with _style():
        figure = _figure(3.1, 3.25)
        axis = _axes(figure, left=0.5, top=0.28, width=2.52, height=2.52)
        axis.plot([0, 1], [0, 1], color=_INK, linewidth=0.8, alpha=0.45)
        for number, curve in enumerate(curves):
            fpr, tpr = _thinned(np.asarray(curve.fpr, float), np.asarray(curve.tpr, float))
            axis.plot(
                fpr,
                tpr,
                color=PALETTE[number % len(PALETTE)],
                # Another dash at every turn of the palette, so that no two curves look alike.
                linestyle=DASHES[(number + number // len(PALETTE)) % len(DASHES)],
                linewidth=1.7,
                label=curve.label,
            )
        axis.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", title=title)
        axis.set_xlabel("photographs called fake")
        axis.set_ylabel("fakes called fake")
        axis.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        axis.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
        axis.legend(loc="lower right", frameon=False, handlelength=2.6, labelcolor=_INK)
        _plain_spines(axis)
        return _rendered(figure, kind)


def ranking_plot(rows: Sequence[Ranked], title: str, kind: PlotFormat = "svg", x_label: str = "AUROC") -> bytes:
    """Points with intervals of at least one row, the first on top, a line at chance; a hollow point has no interval."""
    bounds = [bound for row in rows for bound in (row.value, row.low, row.high) if bound is not None]
    left = max(0.0, min(0.45, min(bounds, default=0.5) - 0.03))
    with _style():
        names, height = 0.15 + _TEXT_WIDTH * max(len(row.label) for row in rows), 0.34 * max(len(rows), 2)
        figure = _figure(names + 2.6, height + 0.75)
        axis = _axes(figure, left=names, top=0.28, width=2.5, height=height)
        axis.axvline(0.5, color=_INK, linewidth=0.9, linestyle=(0, (3, 2)), alpha=0.6)
        for place, row in enumerate(rows):
            has_interval = row.low is not None and row.high is not None
            if has_interval:
                axis.plot([row.low, row.high], [place, place], color=PALETTE[0], linewidth=2.4, alpha=0.55)
            face = PALETTE[0] if has_interval else "none"
            axis.plot(row.value, place, marker="o", markersize=6, markerfacecolor=face, markeredgecolor=PALETTE[0])
        axis.set_yticks(range(len(rows)), [row.label for row in rows])
        axis.set(xlim=(left, 1.02), ylim=(max(len(rows), 2) - 0.5, -0.5), title=title)
        axis.set_xlabel(f"{x_label}: 0.5 is guessing, 1 is told without error")
        axis.grid(axis="x", color=_INK, alpha=0.12, linewidth=0.7)
        axis.tick_params(axis="y", length=0)
        _plain_spines(axis)
        return _rendered(figure, kind)


def _draw_heat(axis: Any, one: HeatMap) -> None:
    shares = [[None if value is None else one.scale.share(value) for value in row] for row in one.values]
    colours = np.array([[_heat_colour(share) for share in row] for row in shares]) / 255.0  # (R, C, 3)
    axis.pcolormesh(np.arange(len(one.columns) + 1) - 0.5, np.arange(len(one.rows) + 1) - 0.5, colours, edgecolor=_LINE)
    axis.invert_yaxis()
    for row, values in enumerate(one.values):
        for column, value in enumerate(values):
            share = shares[row][column]
            ink = "#ffffff" if share is not None and abs(share) >= HEAT_DEEP else _INK
            low, high = one.lows[row][column], one.highs[row][column]
            axis.text(
                column,
                row,
                "n/a" if value is None else one.scale.text(value),
                ha="center",
                va="bottom",
                color=ink,
                fontsize=8.5,
            )
            bounds = "" if value is None else one.scale.bounds(low, high)
            axis.text(column, row + 0.06, bounds, ha="center", va="top", color=ink, fontsize=5.8)
    axis.set_xticks(range(len(one.columns)), one.columns)
    axis.set_yticks(range(len(one.rows)), one.rows)
    axis.set_title(one.title)
    axis.set_xlabel(one.column_title)
    axis.set_ylabel(one.row_title)
    axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)


def _heat_colour(share: float | None) -> tuple[int, int, int]:
    if share is None:
        return (0xEE, 0xEE, 0xEE)
    end = _HEAT_ABOVE if share >= 0 else _HEAT_BELOW
    red, green, blue = (
        round(neutral + (full - neutral) * abs(share)) for neutral, full in zip(_HEAT_NEUTRAL, end, strict=True)
    )
    return red, green, blue


def _thinned(fpr: np.ndarray, tpr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most `_ROC_POINTS` points of a curve, both ends among them: more are not seen at this size."""
    if len(fpr) <= _ROC_POINTS:
        return fpr, tpr
    kept = np.unique(np.linspace(0, len(fpr) - 1, _ROC_POINTS).round().astype(int))
    return fpr[kept], tpr[kept]


def _style() -> Any:
    """Settings for the time of one plot. Names of sources are data: a dollar sign in one starts no formula."""
    import matplotlib as mpl

    return mpl.rc_context(
        {
            "text.parse_math": False,
            "svg.fonttype": "none",
            "svg.hashsalt": "telltale",
            "font.size": 8,
            "axes.titlesize": 9,
            "axes.titleweight": "bold",
            "axes.labelsize": 8,
            "legend.fontsize": 8,
            "xtick.labelsize": 8,
            "ytick.labelsize": 8,
            "text.color": _INK,
            "axes.edgecolor": _INK,
            "axes.labelcolor": _INK,
            "xtick.color": _INK,
            "ytick.color": _INK,
        }
    )


def _figure(width: float, height: float) -> Figure:
    """An empty figure, sizes in inches; made without pyplot, which keeps figures and is not safe in threads."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def _axes(figure: Figure, left: float, top: float, width: float, height: float) -> Any:
    """Axes at a place in inches from the upper left. A layout engine would draw everything twice to find it."""
    full_width, full_height = figure.get_size_inches()
    bottom = full_height - top - height
    return figure.add_axes((left / full_width, bottom / full_height, width / full_width, height / full_height))


def _plain_spines(axis: Any) -> None:
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _rendered(figure: Figure, kind: PlotFormat) -> bytes:
    return _svg(figure) if kind == "svg" else _png(figure)


def _svg(figure: Figure) -> bytes:
    target = io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(target, format="svg", transparent=True, metadata=nothing)
    text = target.getvalue().decode()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    # The darkest colour of the palette is lighter on a dark page, which defines it.
    text = text.replace(PALETTE[0].lower(), f"var(--plot-blue, {PALETTE[0]})")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # In paths, fractions of a hundredth of a point are a third of the bytes and none of the picture.
    return re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\d\.\d\d)\d+", r"\1", path[0]), text).encode()


def _png(figure: Figure) -> bytes:
    """PNG on white with few colours: a third of the size, no visible difference."""
    from PIL import Image

    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=_PNG_DPI, facecolor="white")
    with Image.open(io.BytesIO(target.getvalue())) as picture:
        small = picture.convert("RGB").quantize(_PNG_COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    target = io.BytesIO()
    small.save(target, format="PNG", optimize=True)
    return target.getvalue()
