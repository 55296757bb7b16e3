"""What sections of the report are made of: blocks that both templates can show, and numbers as words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from markupsafe import Markup

from tasks.detectors.linear import Linear
from tasks.report.data import (
    FAIR,
    CellKey,
    Estimate,
    ReportData,
    ResultIndex,
    mistakes_link,
    sorted_cells,
)
from tasks.report.plots import HeatMap, signed_points
from tasks.spec.detectors import Fit
from tasks.spec.experiment import Experiment

NOT_AVAILABLE = "n/a"
# Longer tables open on a click.
UNFOLDED_ROWS = 24


@dataclass(frozen=True)
class Column:
    """One column; columns with the same `group` share a heading. `kind` is text, number or code."""

    title: str
    kind: str = "number"
    group: str = ""


@dataclass(frozen=True)
class Cell:
    """One field of a table: a text, a smaller one below it, a tag, the numbers of its footnotes, and where it leads."""

    text: str
    sub: str = ""
    tag: str = ""
    notes: tuple[int, ...] = ()
    link: str = ""


@dataclass(frozen=True)
class Text:
    """A paragraph, with a link behind it.

    `tone` is plain, note, lead (what to read first), go (the link alone), warning, or flag: what forbids to believe
    the numbers.
    """

    text: str
    tone: str = "plain"
    link: str = ""
    link_words: str = ""
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Flags:
    """What is to be known before the numbers are believed: flags and warnings, beside what they are about."""

    texts: tuple[Text, ...]
    kind: ClassVar[str] = "flags"


@dataclass(frozen=True)
class Items:
    """A list of (what, sentence)."""

    items: tuple[tuple[str, str], ...]
    kind: ClassVar[str] = "items"


@dataclass(frozen=True)
class Table:
    """A table with a caption and footnotes; `folded` ones open on a click. `csv` names the file that has all of it."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    folded: bool = False
    csv: str = ""
    kind: ClassVar[str] = "table"

    @property
    def classes(self) -> list[Markup]:
        """Of each column the attribute that a field of it has in HTML; numbers have none, as most fields are."""
        found = []
        for place, column in enumerate(self.columns):
            first = place > 0 and column.group != self.columns[place - 1].group
            names = {"text": ["t"], "code": ["c"]}.get(column.kind, []) + ["f"] * first
            found.append(Markup(' class="{}"').format(" ".join(names)) if names else Markup(""))
        return found

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Headings over several columns with their widths; empty where no column has one."""
        found: list[tuple[str, int]] = []
        for column in self.columns:
            if found and found[-1][0] == column.group:
                found[-1] = (column.group, found[-1][1] + 1)
            else:
                found.append((column.group, 1))
        return found if any(name for name, _ in found) else []


@dataclass(frozen=True)
class Heats:
    """Heat maps side by side: coloured tables in HTML, one picture in Markdown. `csv` names the file of the numbers."""

    title: str
    maps: tuple[HeatMap, ...]
    note: str = ""
    csv: str = ""
    kind: ClassVar[str] = "heats"


@dataclass(frozen=True)
class Picture:
    """A picture with the words that stand for it; `data` is WebP, or SVG of `plots.py`."""

    title: str
    alt: str
    data: bytes

    @property
    def is_svg(self) -> bool:
        return self.data.startswith(b"<svg")


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side."""

    title: str
    pictures: tuple[Picture, ...]
    kind: ClassVar[str] = "gallery"


@dataclass(frozen=True)
class Fold:
    """Blocks that open on a click. Markdown, which has to stay small, only says that they are in the HTML."""

    title: str
    blocks: tuple[Text | Items | Table | Heats | Gallery, ...]
    kind: ClassVar[str] = "fold"


Block = Text | Flags | Items | Table | Heats | Gallery | Fold


@dataclass(frozen=True)
class Section:
    """One section of the report; `about` says in a few words what one finds in it."""

    anchor: str
    title: str
    blocks: tuple[Block, ...]
    about: str = ""


def number(value: float | None) -> str:
    """Three decimals, or n/a."""
    return NOT_AVAILABLE if value is None else f"{value:.3f}"


def interval(low: float | None, high: float | None) -> str:
    """For example `[0.501, 0.642]`; empty where there is none."""
    return "" if low is None or high is None else f"[{low:.3f}, {high:.3f}]"


def signed(value: float) -> str:
    """A difference with three decimals, and its sign unless it is rounded to nothing."""
    text = f"{value:+.3f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def points(value: float | None) -> str:
    """A difference of shares in points with its sign, for example `−1.2`; or n/a."""
    return NOT_AVAILABLE if value is None else signed_points(value)


def points_interval(low: float | None, high: float | None) -> str:
    """For example `[−2.0, +0.1]`; empty where there is none."""
    return "" if low is None or high is None else f"[{points(low)}, {points(high)}]"


def signed_interval(low: float | None, high: float | None) -> str:
    """For example `[−0.020, +0.001]`; empty where there is none."""
    return "" if low is None or high is None else f"[{signed(low)}, {signed(high)}]"


def file_size(size: float | None) -> str:
    """Bytes as kB or MB (a million bytes), or n/a."""
    if size is None:
        return NOT_AVAILABLE
    return f"{size / 1e6:.2f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def millions(count: float | None) -> str:
    """A count in millions, for example `2.23 M`, or n/a."""
    return NOT_AVAILABLE if count is None else f"{_three_digits(count / 1e6)} M"


def share(value: float | None) -> str:
    """A share in percent, or n/a."""
    return NOT_AVAILABLE if value is None else f"{100 * value:.0f} %"


def times(ratio: float | None) -> str:
    """How many times, for example `2.1 ×`, or n/a."""
    return NOT_AVAILABLE if ratio is None else f"{ratio:.1f} ×"


def milliseconds(value: float | None) -> str:
    """A time in milliseconds, without a unit; or n/a."""
    return NOT_AVAILABLE if value is None else _three_digits(value)


def _three_digits(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def with_interval(estimate: Estimate) -> str:
    """For example `0.571 [0.501, 0.642]`; the value alone where it has no interval."""
    return f"{number(estimate.value)} {interval(estimate.low, estimate.high)}".rstrip()


def estimate_cell(estimate: Estimate | None, link: str = "") -> Cell:
    """A number with its interval; n/a without the reason, which is said below the table once."""
    if estimate is None:
        return Cell("–")
    if estimate.value is None:
        return Cell(NOT_AVAILABLE)
    return Cell(number(estimate.value), sub=interval(estimate.low, estimate.high), link=link)


def row_estimate(row: Mapping[str, Any], name: str) -> Estimate:
    return Estimate(row[name], row[f"{name}_low"], row[f"{name}_high"], row.get("reason") or "")


def reasons_note(estimates: Iterable[Estimate | None]) -> tuple[Text, ...]:
    """One note with all reasons why values are missing; that intervals are is said on the first screen."""
    reasons: dict[str, int] = {}
    for estimate in estimates:
        if estimate is not None and estimate.value is None and estimate.reason:
            reason = estimate.reason.removeprefix("n/a: ")
            reasons[reason] = reasons.get(reason, 0) + 1
    if not reasons:
        return ()
    listed = "; ".join(f"{reason} ({count} number{'s' if count > 1 else ''})" for reason, count in reasons.items())
    return (Text(f"n/a: {listed}.", "note"),)


def joined(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def perturbations_note(data: ReportData) -> tuple[Text, ...]:
    """What happens to pictures in cells whose names do not say it all, and which cells show the same pictures."""
    named = data.experiment.perturbations
    said = [f"{one.name}: {one.title}" for one in named if one.title != one.name]
    same = [f"{cell} shows the pictures of {other}" for cell, other in _equal_cells(data.experiment)]
    return tuple(Text(f"{'; '.join(sentences)}.", "note") for sentences in (said, same) if sentences)


def _equal_cells(experiment: Experiment) -> Iterator[tuple[str, str]]:
    """The names of cells in which the same happens to pictures as in one before, and of that."""
    known: dict[Any, str] = {}
    for cell in experiment.cells:
        side = experiment.canonical_side if cell.resolution == "native" else cell.resolution
        steps = () if cell.perturbation is None else cell.perturbation.steps_at(side, side)
        first = known.setdefault((cell.resolution, steps), cell.name)
        if first != cell.name:
            yield cell.name, first


def random_weights_warning(data: ReportData) -> tuple[Text, ...]:
    """A flag where what is ranked reads features of a network that was never trained."""
    weights = data.experiment.extractor.weights
    of_features = [one for one in data.experiment.all_detectors if isinstance(one, Linear) and one.role == "detector"]
    if not weights.startswith("random") or not any(one.extractor is None for one in of_features):
        return ()
    return (
        Text(
            f"The features come from a network with random weights ({weights}): these numbers show that every step "
            "works. They do not say how well generated images can be told from photographs.",
            "flag",
        ),
    )


def value_cell(row: Mapping[str, Any], name: str) -> Cell:
    """A number of a row with its interval."""
    return estimate_cell(row_estimate(row, name))


def points_cell(row: Mapping[str, Any], name: str = "change") -> Cell:
    """A difference of shares in a row, in points with its interval; n/a without the reason."""
    value, low, high = (row[f"{name}{suffix}"] for suffix in ("", "_low", "_high"))
    return Cell(points(value), sub="" if value is None else points_interval(low, high))


def whole(value: float | None) -> str:
    """A count, or n/a."""
    return NOT_AVAILABLE if value is None else f"{value:.0f}"


# Rows of a table that are shown; the CSV has them all.
SHOWN_ROWS = 200


def grid_map(data: ReportData, index: ResultIndex, title: str, fit: Fit, metric: str, rule: str | None) -> HeatMap:
    """A heat map of one number of a detector over mixes and cells; each field leads to the mistakes behind it."""
    mixes = list(dict.fromkeys(cell.mix for cell in sorted_cells(data.experiment, index.cells(FAIR, fit))))
    columns = [(str(cell.resolution), cell.perturbation_name) for cell in data.experiment.cells]
    cells = [[CellKey(mix, *place) for place in columns] for mix in mixes]
    found = [[index.get(FAIR, cell, fit, metric, rule) or Estimate(None) for cell in row] for row in cells]
    links = tuple(tuple(mistakes_link(data, cell, fit.detector) for cell in row) for row in cells)
    names = tuple("/".join(place) for place in columns)
    return replace(heat_of(title, "mix", "cell", tuple(mixes), names, found), links=links)


def heat_of(
    title: str,
    row_title: str,
    column_title: str,
    rows: tuple[str, ...],
    columns: tuple[str, ...],
    found: Sequence[Sequence[Estimate]],
) -> HeatMap:
    """A heat map of estimates, row by row."""
    return HeatMap(
        title,
        row_title,
        column_title,
        rows,
        columns,
        tuple(tuple(one.value for one in row) for row in found),
        tuple(tuple(one.low for one in row) for row in found),
        tuple(tuple(one.high for one in row) for row in found),
    )


def capped(
    caption: str, columns: tuple[Column, ...], rows: tuple[tuple[Cell, ...], ...], name: str, folded: bool = False
) -> Iterator[Block]:
    """A table of at most `SHOWN_ROWS` rows, and where the others are."""
    yield Table(caption, columns, rows[:SHOWN_ROWS], folded=folded, csv=name)
    if len(rows) > SHOWN_ROWS:
        yield Text(f"{len(rows) - SHOWN_ROWS} more rows are in {name}.csv.", "note")


def plain_value(value: Any) -> str:
    """A value as it is; a dash for none."""
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
