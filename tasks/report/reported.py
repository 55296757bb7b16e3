"""The first project's table as it was printed, and what its own numbers contradict.

The table (`reference/first-project.csv`) takes *real* as the positive class and compares at 1:1. Its values
carry four decimals, so every check below asks whether *any* numbers that round to the printed ones could agree:
rounding alone never raises a flag.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from storage.errors import TelltaleError

Row = TypeVar("Row")

# Half of the last printed decimal: a printed v stands for any value in [v - HALF_UNIT, v + HALF_UNIT].
HALF_UNIT = 0.5e-4

METRICS = ("accuracy", "precision", "recall", "f1")
COLUMNS = ("row", "mix", "resolution", "compression_percent", "jpeg_quality", *METRICS)
FIRST_PROJECT = Path(__file__).with_name("reference") / "first-project.csv"


class ReportedTableError(TelltaleError):
    """The table of reported numbers is missing or malformed."""


@dataclass(frozen=True)
class ReportedRow:
    """One printed row; metrics are in [0, 1] with real as positive class, None where the cell was left empty."""

    name: str
    mix: str
    resolution: str  # "64", "256" or "native"
    compression_percent: int  # the first project's word: JPEG quality 100 - p
    jpeg_quality: int | None  # None: no compression
    accuracy: float | None
    precision: float | None
    recall: float | None
    f1: float | None

    @property
    def metrics(self) -> tuple[float | None, ...]:
        return (self.accuracy, self.precision, self.recall, self.f1)


def read_reported(path: Path | str) -> list[ReportedRow]:
    """The rows of a table of reported numbers, in file order.

    Raises ReportedTableError if the file is missing, lacks a column, repeats a row's name, or has a metric that is
    not a number in [0, 1].
    """
    rows = printed_rows(path, COLUMNS, _parse_row)
    refuse_repeated(path, "row names", [row.name for row in rows])
    return rows


def printed_rows(path: Path | str, columns: Sequence[str], parse: Callable[[str, dict[str, str]], Row]) -> list[Row]:
    """The rows of a printed table, in file order, each parsed from its place in words and its cells without blanks.

    Raises ReportedTableError if the file is missing or lacks a column, and what `parse` raises.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = [column for column in columns if column not in (reader.fieldnames or ())]
            if missing:
                raise ReportedTableError(f"{path}: expected the columns {', '.join(columns)}; missing {missing}")
            return [
                parse(f"{path}, line {reader.line_num}", {name: (cells[name] or "").strip() for name in columns})
                for cells in reader
            ]
    except OSError as error:
        raise ReportedTableError(f"{path}: cannot be read ({error.strerror})") from error


def refuse_repeated(path: Path | str, what: str, names: Sequence[str]) -> None:
    """Raise ReportedTableError for a name that stands there twice."""
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ReportedTableError(f"{path}: {what} must be unique; repeated: {repeated}")


def _parse_row(place: str, text: dict[str, str]) -> ReportedRow:
    try:
        metrics = {name: float(text[name]) if text[name] else None for name in METRICS}
        compression = int(text["compression_percent"])
        quality = int(text["jpeg_quality"]) if text["jpeg_quality"] else None
    except ValueError as error:
        raise ReportedTableError(f"{place}: expected a number or an empty cell; {error}") from error
    for name, value in metrics.items():
        if value is not None and not 0.0 <= value <= 1.0:
            raise ReportedTableError(f"{place}: {name} must lie in [0, 1], got {value}")
    return ReportedRow(text["row"], text["mix"], text["resolution"], compression, quality, **metrics)


def f1_of(precision: float, recall: float) -> float:
    """F1 = 2pr / (p + r); 0 where both are 0."""
    return 2.0 * precision * recall / (precision + recall) if precision + recall > 0.0 else 0.0


def implied_recall(accuracy: float, f1: float) -> float:
    """The recall that accuracy and F1 imply where both classes are equally many; f1 < 1.

    With a and b the true and false positive rates: accuracy = (a + 1 - b) / 2 and F1 = 2a / (a + b + 1). Eliminating b
    gives F1 = a / (a + 1 - accuracy), hence a = F1 (1 - accuracy) / (1 - F1).
    """
    return f1 * (1.0 - accuracy) / (1.0 - f1)


def implied_precision(accuracy: float, f1: float) -> float:
    """The precision that accuracy and F1 imply at 1:1: a / (a + b) with b = a + 1 - 2 accuracy; 0 < f1 < 1."""
    recall = implied_recall(accuracy, f1)
    return recall / (2.0 * recall + 1.0 - 2.0 * accuracy)


def recall_from_precision(accuracy: float, precision: float) -> float:
    """The recall that accuracy and precision imply at 1:1; precision != 0.5.

    precision = a / (a + b) gives b = a (1 - p) / p; put into accuracy = (a + 1 - b) / 2: a = p (2 accuracy - 1) / (2p
    - 1).
    """
    return precision * (2.0 * accuracy - 1.0) / (2.0 * precision - 1.0)


def rounding_range(function: Callable[[float, float], float], first: float, second: float) -> tuple[float, float]:
    """Smallest and largest value of a function, monotone in both arguments, over what rounds to the printed pair."""
    corners = [function(first + i * HALF_UNIT, second + j * HALF_UNIT) for i, j in itertools.product((-1, 1), repeat=2)]
    return min(corners), max(corners)


def arithmetic_flags(rows: Sequence[ReportedRow]) -> dict[str, list[str]]:
    """What each row's numbers contradict, as sentences; every row has an entry, an empty list where nothing is wrong.

    Checked: missing values, F1 against precision and recall, recall equal to F1, the recall and precision that accuracy
    and F1 imply at 1:1 against the printed ones, rows equal to another row, accuracy that rises with compression.
    """
    flags: dict[str, list[str]] = {}
    for row in rows:
        found = [*_missing_values(row), *_own_arithmetic(row)]
        found += _equal_rows(row, rows)
        found += _rising_accuracy(row, rows)
        flags[row.name] = found
    return flags


def _missing_values(row: ReportedRow) -> list[str]:
    missing = [name for name, value in zip(METRICS, row.metrics, strict=True) if value is None]
    if len(missing) == len(METRICS):
        return ["no value was reported"]
    return [f"not reported: {', '.join(missing)}"] if missing else []


def _own_arithmetic(row: ReportedRow) -> list[str]:
    found: list[str] = []
    accuracy, precision, recall, f1 = row.metrics
    if precision is not None and recall is not None and f1 is not None:
        low, high = rounding_range(f1_of, precision, recall)
        if not _may_equal(f1, low, high):
            found.append(f"F1 is printed as {f1:.4f}, but precision and recall give {f1_of(precision, recall):.4f}")
    if recall is not None and recall == f1:
        found.append(f"recall equals F1 ({f1:.4f})")
    if accuracy is None or f1 is None or not HALF_UNIT < f1 < 1.0 - HALF_UNIT:
        return found  # at 0 and 1 F1 leaves recall undetermined

    low, high = rounding_range(implied_recall, accuracy, f1)
    if recall is not None and not _may_equal(recall, low, high):
        sentence = (
            f"accuracy and F1 at 1:1 imply a recall of {implied_recall(accuracy, f1):.4f} "
            f"({low:.4f} to {high:.4f} with rounding), printed is {recall:.4f}"
        )
        # A second, independent way to the same recall: it shows which of the printed columns is the wrong one.
        if precision is not None and abs(precision - 0.5) > HALF_UNIT:
            sentence += f"; accuracy and precision imply {recall_from_precision(accuracy, precision):.4f}"
        found.append(sentence)
    low, high = rounding_range(implied_precision, accuracy, f1)
    if precision is not None and not _may_equal(precision, low, high):
        found.append(
            f"accuracy and F1 at 1:1 imply a precision of {implied_precision(accuracy, f1):.4f} "
            f"({low:.4f} to {high:.4f} with rounding), printed is {precision:.4f}"
        )
    return found


def _may_equal(printed: float, low: float, high: float) -> bool:
    """Whether something that rounds to `printed` lies in [low, high]; the slack covers float noise at the border."""
    slack = HALF_UNIT + 1e-12
    return low - slack <= printed <= high + slack


def _equal_rows(row: ReportedRow, rows: Sequence[ReportedRow]) -> list[str]:
    if None in row.metrics:
        return []
    twins = [other.name for other in rows if other is not row and other.metrics == row.metrics]
    return [f"all four values equal those of {', '.join(twins)}"] if twins else []


def _rising_accuracy(row: ReportedRow, rows: Sequence[ReportedRow]) -> list[str]:
    """Compression removes traces: a more compressed row of the same mix and resolution should not be easier."""
    if row.accuracy is None:
        return []
    weaker = [
        other
        for other in rows
        if (other.mix, other.resolution) == (row.mix, row.resolution)
        and other.accuracy is not None
        and other.compression_percent < row.compression_percent
    ]
    if not weaker:
        return []
    nearest = max(weaker, key=lambda other: other.compression_percent)
    if nearest.accuracy is None or row.accuracy <= nearest.accuracy:
        return []
    return [
        f"accuracy rises with compression: {row.accuracy:.4f} at {row.compression_percent} %, "
        f"{nearest.accuracy:.4f} at {nearest.compression_percent} %"
    ]
