"""What was found, in a few sentences and tiles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from tasks.data.perturbations.kinds import NONE
from tasks.report.blocks import (
    NOT_AVAILABLE,
    Block,
    Text,
    Tiles,
    interval,
    joined,
    number,
    random_weights_warning,
    signed,
    with_interval,
)
from tasks.report.controls import control_rows
from tasks.report.data import (
    FAIR,
    CellKey,
    Estimate,
    ReportData,
    ResultIndex,
    is_enlarged,
    sorted_cells,
    strongest_jpeg,
)

# AUROC from here on is called nearly perfect, and has to be explained before it is believed.
NEARLY_PERFECT = 0.995


@dataclass(frozen=True)
class _Rated:
    """One generator in one cell."""

    mix: str
    generator: str
    cell: CellKey
    auroc: Estimate
    value: float
    enlarged: bool

    @property
    def place(self) -> str:
        return self.cell.cell


def _rated(data: ReportData, index: ResultIndex) -> list[_Rated]:
    """All generators in all fair cells of the headline detector, the hardest first."""
    single = {mix.name: mix for mix in data.experiment.all_mixes if len(mix.fakes) == 1}
    found = []
    for cell in sorted_cells(data.experiment, index.cells(FAIR, index.headline.fit)):
        auroc = index.get(FAIR, cell, index.headline.fit, "auroc")
        if cell.mix in single and auroc is not None and auroc.value is not None:
            mix = single[cell.mix]
            enlarged = is_enlarged(data, mix, cell.resolution)
            found.append(_Rated(mix.name, mix.fakes[0], cell, auroc, auroc.value, enlarged))
    return sorted(found, key=lambda one: one.value)


def headline_blocks(data: ReportData, index: ResultIndex, tables: Mapping[str, pl.DataFrame]) -> tuple[Block, ...]:
    """The hardest generator, what is open, and what is to be looked at first."""
    rated = _rated(data, index)
    warning = random_weights_warning(data)
    if not rated:
        return (
            *warning,
            Text("There is no fair row of a single generator, so no generator can be called hard or easy."),
        )
    sentences = [_hardest_sentence(rated[0]), f"These are numbers of {index.headline.label}."]
    plain = [one for one in rated if one.cell.perturbation == NONE]
    if plain and plain[0] is not rated[0]:
        first = plain[0]
        sentences.append(
            f"Of the uncompressed cells, {first.mix} at {first.place} is hardest: AUROC {with_interval(first.auroc)}."
        )
    sentences += _order_sentences(plain)
    perfect = [one for one in rated if one.value >= NEARLY_PERFECT]
    if perfect:
        sentences.append(
            f"{len(perfect)} of {len(rated)} rows are nearly perfect (AUROC {NEARLY_PERFECT} or more; highest: "
            f"{perfect[-1].mix} at {perfect[-1].place}). Such a number is to be explained before it is believed: "
            "look at the probe, the control and the examples of these rows first."
        )
    if any(one.enlarged for one in rated):
        names = sorted({one.generator for one in rated if one.enlarged})
        sentences.append(
            f"{joined(names)}: smaller by nature, so rows marked “enlarged” compare enlarged pictures with reduced "
            "photographs, and may tell the enlarging rather than the generator."
        )
    without = sum(not one.auroc.has_interval for one in rated)
    if without:
        sentences.append(
            f"{without} of {len(rated)} rows have no interval ({rated_reason(rated)}), so they are single draws: "
            "their order, and their distance from guessing, are not shown to be more than chance."
        )
    return (*warning, Tiles(_tiles(data, index, rated, tables)), *(Text(sentence) for sentence in sentences))


def rated_reason(rated: Sequence[_Rated]) -> str:
    """Why intervals are missing, once each."""
    reasons = {one.auroc.reason.removeprefix("n/a: ") for one in rated if not one.auroc.has_interval}
    return "; ".join(sorted(reason for reason in reasons if reason)) or "no reason was recorded"


def _hardest_sentence(hardest: _Rated) -> str:
    auroc = hardest.auroc
    text = (
        f"Hardest to tell from photographs is {hardest.generator} at {hardest.place} (mix {hardest.mix}): AUROC "
        f"{with_interval(auroc)} over {auroc.n_real} photographs and {auroc.n_fake} fakes in {auroc.n_groups} groups."
    )
    if auroc.low is None or auroc.high is None:
        return f"{text} Without an interval this number is one draw, not a finding."
    if auroc.high < 0.5:
        return f"{text} The interval lies below 0.5: worse than guessing, which hints at a fault or a shift."
    if auroc.low <= 0.5:
        return f"{text} The interval contains 0.5: here the detector is not shown to do better than guessing."
    return f"{text} The interval lies above 0.5: even here more than guessing."


def _order_sentences(plain: Sequence[_Rated]) -> Iterator[str]:
    """At which resolutions the hardest two generators, uncompressed, cannot be put in an order."""
    open_orders = []
    for resolution in dict.fromkeys(one.cell.resolution for one in plain):
        first, *rest = [one for one in plain if one.cell.resolution == resolution]
        if not rest or first.auroc.high is None or rest[0].auroc.low is None:
            continue
        if first.auroc.high >= rest[0].auroc.low:
            open_orders.append(f"at {resolution} those of {first.mix} and {rest[0].mix}")
    if open_orders:
        yield (
            "Which of the two hardest is harder is open where their intervals overlap: uncompressed, "
            f"{joined(open_orders)}."
        )


def _tiles(
    data: ReportData, index: ResultIndex, rated: Sequence[_Rated], tables: Mapping[str, pl.DataFrame]
) -> tuple[tuple[str, str, str], ...]:
    def tile(label: str, one: _Rated) -> tuple[str, str, str]:
        detail = f"{one.mix} at {one.place} · {interval(one.auroc.low, one.auroc.high)}"
        return (label, number(one.value), detail + (" · enlarged" if one.enlarged else ""))

    items = [tile("hardest, AUROC", rated[0]), tile("easiest, AUROC", rated[-1])]
    strongest = strongest_jpeg(data.experiment)
    losses = _losses(index, rated, strongest) if strongest is not None else []
    if losses:
        least, most = signed(min(losses)), signed(max(losses))
        detail = f"median over {len(losses)} rows, {NONE} to {strongest}; {least} to {most}"
        items.append(("compression changes AUROC by", signed(float(np.median(losses))), detail))
    probe = tables["probe"]
    if len(probe):
        flagged, judged = (probe["contains_half"] == False).sum(), probe["contains_half"].is_not_null().sum()  # noqa: E712
        value = f"{flagged} of {judged}" if judged else NOT_AVAILABLE
        detail = "rows where formats alone tell the classes apart" if judged else "no row has an interval"
        items.append(("probe flags", value, detail))
    control = [one for *_, one in control_rows(data, index) if one.value is not None]
    if control:
        outside = sum(one.contains(0.5) is False for one in control)
        judged = sum(one.has_interval for one in control)
        value = f"{judged - outside} of {judged}" if judged else NOT_AVAILABLE
        items.append(("controls at chance", value, "shuffled labels, interval contains 0.5"))
    return tuple(items)


def _losses(index: ResultIndex, rated: Sequence[_Rated], perturbation: str) -> list[float]:
    """What a perturbation changes in AUROC, per mix of one generator and resolution."""
    losses = []
    for one in rated:
        if one.cell.perturbation == NONE:
            perturbed = index.get(FAIR, one.cell._replace(perturbation=perturbation), index.headline.fit, "auroc")
            if perturbed is not None and perturbed.value is not None:
                losses.append(perturbed.value - one.value)
    return losses
