"""The answer, on one screen: what can be told, by which detector, where that ends, and what forbids to believe it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl

from tasks.data.perturbations.kinds import NONE
from tasks.report.blocks import Block, Flags, Heats, Text, heat_of, with_interval
from tasks.report.data import (
    FAIR,
    CellKey,
    Estimate,
    Evaluated,
    ReportData,
    ResultIndex,
    is_enlarged,
    mistakes_link,
    perturbation_word,
    perturbations,
    sorted_cells,
)
from tasks.report.flags import flag_blocks
from tasks.report.plots import HeatMap


@dataclass(frozen=True)
class Worst:
    """What a detector tells worst in one cell: `cell.mix` is the mix of that generator.

    `is_of_all` says that no generator was left out for having no interval.
    """

    detector: str
    cell: CellKey
    auroc: Estimate
    value: float
    is_of_all: bool = True


def worst_told(data: ReportData, index: ResultIndex) -> dict[tuple[str, str], Worst]:
    """By (resolution, perturbation) the generator that the best detector tells worst there.

    The best detector of a cell is the one whose worst generator is told best, of those that were asked about all. Where
    some numbers have an interval, those without take no part.
    """
    mixes = [mix.name for mix in data.experiment.all_mixes if len(mix.fakes) == 1]
    known = {(str(cell.resolution), cell.perturbation_name) for cell in data.experiment.cells}
    cells = [cell for cell in sorted_cells(data.experiment, index.cells(FAIR)) if cell.mix in mixes]
    cells = [cell for cell in cells if (cell.resolution, cell.perturbation) in known]
    found: dict[tuple[str, str], Worst] = {}
    for place in dict.fromkeys((cell.resolution, cell.perturbation) for cell in cells):
        asked = [cell for cell in cells if (cell.resolution, cell.perturbation) == place]
        rated = [_rated(index, one, asked) for one in index.detectors]
        if any(one.auroc.has_interval for rows in rated for one in rows):
            rated = [_with_intervals(rows) for rows in rated]
        most = max(map(len, rated), default=0)
        worst = [min(rows, key=lambda row: row.value) for rows in rated if rows and len(rows) == most]
        if worst:
            found[place] = max(worst, key=lambda one: one.value)
    return found


def _rated(index: ResultIndex, one: Evaluated, cells: Sequence[CellKey]) -> list[Worst]:
    rows = [(cell, index.get(FAIR, cell, one.fit, "auroc")) for cell in cells]
    return [Worst(one.name, cell, auroc, auroc.value) for cell, auroc in rows if auroc and auroc.value is not None]


def _with_intervals(rows: Sequence[Worst]) -> list[Worst]:
    kept = [one for one in rows if one.auroc.has_interval]
    return [replace(one, is_of_all=len(kept) == len(rows)) for one in kept]


def headline_blocks(data: ReportData, index: ResultIndex, tables: Mapping[str, pl.DataFrame]) -> tuple[Block, ...]:
    """The answer in three sentences, the flags, and the map of what is told worst."""
    found = worst_told(data, index)
    flags = tuple(flag_blocks(data, index, tables))
    shown = (Flags(flags),) if flags else ()
    if not found:
        none = "There is no fair row of a single generator, so no generator can be called hard or easy."
        return (Text(none), *shown)
    worst = min(found.values(), key=lambda one: one.value)
    link = mistakes_link(data, worst.cell, worst.detector)
    is_alone = len(data.experiment.fake_names) == 1
    return (
        *(Text(sentence, "lead") for sentence in _sentences(index, found, worst, is_alone=is_alone)),
        *((Text("", "go", link, "Look at the mistakes"),) if link else ()),
        *shown,
        Heats("", (_map(data, found),)),
        Text(_map_words(index), "note"),
    )


def _sentences(
    index: ResultIndex, found: Mapping[tuple[str, str], Worst], worst: Worst, *, is_alone: bool
) -> Iterator[str]:
    """`is_alone` says that there is one generator only."""
    plain = [one for (_, perturbation), one in found.items() if perturbation == NONE]
    best = max(plain or found.values(), key=lambda one: one.value)
    if best is not worst:
        happened = "Uncompressed" if plain else "At best"
        every = "every generator" if best.is_of_all else "every generator that has an interval"
        told = (
            f"{every} from photographs with an AUROC of at least {with_interval(best.auroc)}: {best.cell.mix} at "
            f"{best.cell.cell} is the hardest."
        )
        if is_alone:
            told = f"{best.cell.mix} from photographs with an AUROC of {with_interval(best.auroc)} at {best.cell.cell}."
        yield f"{happened}, {best.detector} tells {told} {_verdict(best.auroc)}".strip()
    where = f"Weakest is {worst.cell.cell}, where" if len(found) > 1 else f"In {worst.cell.cell}, the only cell,"
    yield (
        f"{where} the best detector, {worst.detector}, tells {worst.cell.mix} with "
        f"{with_interval(worst.auroc)}, over {worst.auroc.n_real} photographs and {worst.auroc.n_fake} fakes in "
        f"{worst.auroc.n_groups} groups. {_verdict(worst.auroc)}"
    ).strip()
    if len(index.detectors) == 1:
        yield f"There is one detector, {index.detectors[0].label}."
    else:
        (first, count), *others = Counter(one.detector for one in found.values()).most_common(3)
        listed = "".join(f", {name} in {number}" for name, number in others)
        yield f"Of {len(index.detectors)} detectors the best is {first} in {count} of {len(found)} cells{listed}."


def _verdict(auroc: Estimate) -> str:
    """What an interval that reaches 0.5 means; nothing where there is none, which is a warning of its own."""
    if auroc.low is None or auroc.high is None:
        return ""
    if auroc.high < 0.5:
        return "The interval lies below 0.5: worse than guessing, which hints at a fault or a shift."
    if auroc.low <= 0.5:
        return "The interval contains 0.5: here no detector is shown to do better than guessing."
    return ""


def _map(data: ReportData, found: Mapping[tuple[str, str], Worst]) -> HeatMap:
    rows, columns = tuple(str(one) for one in data.experiment.resolutions), perturbations(data.experiment)
    fields = [[found.get((row, column)) for column in columns] for row in rows]
    estimates = [[Estimate(None) if one is None else one.auroc for one in row] for row in fields]
    title = "Best detector, worst generator: AUROC"
    return replace(
        heat_of(title, "resolution", perturbation_word(data.experiment), rows, columns, estimates),
        notes=tuple(tuple(_note(data, one) for one in row) for row in fields),
        links=tuple(
            tuple("" if one is None else mistakes_link(data, one.cell, one.detector) for one in row) for row in fields
        ),
    )


def _note(data: ReportData, one: Worst | None) -> str:
    if one is None:
        return ""
    mix = next(mix for mix in data.experiment.all_mixes if mix.name == one.cell.mix)
    return f"{one.cell.mix}{'*' if is_enlarged(data, mix, one.cell.resolution) else ''}\n{one.detector}"


def _map_words(index: ResultIndex) -> str:
    words = (
        "No colour is guessing (0.5), blue is told apart, orange is worse than guessing. Below a value: its 95 % "
        "interval, the generator, the detector."
    )
    if len(index.detectors) > 1:
        words += " Best and worst were found on the pictures that they are shown for, which flatters the best a little."
    return words
