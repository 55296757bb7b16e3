"""The report's sections in their order: from the tables of a run to blocks of words, tables and pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from tasks.report import plots
from tasks.report.blocks import (
    NOT_AVAILABLE,
    Block,
    Cell,
    Column,
    Gallery,
    Heats,
    Picture,
    Section,
    Table,
    Text,
    Tiles,
    estimate_cell,
    interval,
    joined,
    number,
    plain_cell,
    random_weights_warning,
    reasons_note,
    row_estimate,
    signed,
    with_interval,
)
from tasks.report.first_project import ablation_blocks, first_project_blocks
from tasks.report.networks import network_sections
from tasks.report.plots import HeatMap, PlotFormat
from tasks.report.tables import (
    HEADLINE_DETECTOR,
    HEADLINE_RULE,
    MAIN_DETECTORS,
    PROBE,
    CellKey,
    Estimate,
    ReportData,
    ResultIndex,
    cell_name,
    is_enlarged,
    quality_name,
    report_tables,
    sorted_cells,
)

# Rows of a table that are shown; the CSV has them all.
SHOWN_ROWS = 200
# AUROC from here on is called nearly perfect, and has to be explained before it is believed.
NEARLY_PERFECT = 0.995

DETECTOR_TITLES = {
    "svm": "SVM, fitted on uncompressed pictures",
    "svm-aug": "SVM, fitted over all qualities",
    PROBE: "sees no picture content",
}


def report_sections(data: ReportData, plot_format: PlotFormat) -> tuple[Section, ...]:
    """All sections that have something to say. Markdown (`png`) leaves out some pictures that HTML has."""
    index = ResultIndex(data.results)
    tables = report_tables(data)
    sections = (
        Section("headline", "What was found", _headline(data, index, tables)),
        Section("first-project", "The first project's table", first_project_blocks(data, index, tables)),
        Section("ablation", "What each defect is worth", ablation_blocks(data, index)),
        Section("ranking", "How hard each generator is to tell", _ranking(data, tables, plot_format)),
        Section("grid", "The full grid", _grid(data, index, tables)),
        Section("cross", "Trained on one generator, tested on another", _cross(data, tables)),
        Section("seeds", "Training seeds", _seeds(tables)),
        *network_sections(data, tables),
        Section("controls", "Probe and control", _controls(data, index, tables)),
        Section("roc", "ROC curves", _roc(data, plot_format)),
        Section("calibration", "Calibration", _calibration(data, index)),
        Section("examples", "Examples", _examples(data, every_view=plot_format == "svg")),
        Section("quality", "Generator quality", _quality(tables)),
        Section("training", "Training of the generators", _extra(data)),
        Section("counts", "Counts and quarantine", _counts(data, tables)),
        Section("provenance", "Where these numbers come from", _provenance(data)),
    )
    return tuple(section for section in sections if section.blocks)


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
        return cell_name(self.cell[1], self.cell[2])


def _rated(data: ReportData, index: ResultIndex) -> list[_Rated]:
    """All generators in all fair cells of the headline detector, the hardest first."""
    single = {mix.name: mix for mix in data.experiment.all_mixes if len(mix.fakes) == 1}
    found = []
    for cell in sorted_cells(data.experiment, index.cells("fair", HEADLINE_DETECTOR)):
        auroc = index.get("fair", cell, HEADLINE_DETECTOR, "auroc")
        if cell[0] in single and auroc is not None and auroc.value is not None:
            mix = single[cell[0]]
            enlarged = is_enlarged(data, mix, cell[1])
            found.append(_Rated(mix.name, mix.fakes[0], cell, auroc, auroc.value, enlarged))
    return sorted(found, key=lambda one: one.value)


def _headline(data: ReportData, index: ResultIndex, tables: Mapping[str, pl.DataFrame]) -> tuple[Block, ...]:
    rated = _rated(data, index)
    warning = random_weights_warning(data)
    if not rated:
        return (
            *warning,
            Text("There is no fair row of a single generator, so no generator can be called hard or easy."),
        )
    sentences = [_hardest_sentence(rated[0])]
    plain = [one for one in rated if one.cell[2] is None]
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
    for resolution in dict.fromkeys(one.cell[1] for one in plain):
        first, *rest = [one for one in plain if one.cell[1] == resolution]
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
    losses = _compression_losses(data, index, rated)
    if losses:
        strongest = min(quality for quality in data.experiment.qualities if quality is not None)
        detail = f"median over {len(losses)} rows, none to q{strongest}; {signed(min(losses))} to {signed(max(losses))}"
        items.append(("compression changes AUROC by", signed(float(np.median(losses))), detail))
    probe = tables["probe"]
    if len(probe):
        flagged, judged = (probe["contains_half"] == False).sum(), probe["contains_half"].is_not_null().sum()  # noqa: E712
        value = f"{flagged} of {judged}" if judged else NOT_AVAILABLE
        detail = "rows where formats alone tell the classes apart" if judged else "no row has an interval"
        items.append(("probe flags", value, detail))
    control = [one for _, one in _control_rows(data, index) if one.value is not None]
    if control:
        outside = sum(one.contains(0.5) is False for one in control)
        judged = sum(one.has_interval for one in control)
        value = f"{judged - outside} of {judged}" if judged else NOT_AVAILABLE
        items.append(("controls at chance", value, "shuffled labels, interval contains 0.5"))
    return tuple(items)


def _compression_losses(data: ReportData, index: ResultIndex, rated: Sequence[_Rated]) -> list[float]:
    """What the strongest compression changes in AUROC, per mix of one generator and resolution."""
    qualities = [quality for quality in data.experiment.qualities if quality is not None]
    if not qualities:
        return []
    losses = []
    for one in rated:
        if one.cell[2] is None:
            compressed = index.get("fair", (*one.cell[:2], min(qualities)), HEADLINE_DETECTOR, "auroc")
            if compressed is not None and compressed.value is not None:
                losses.append(compressed.value - one.value)
    return losses


# ---- ranking, grid, cross table, seeds


def _ranking(data: ReportData, tables: Mapping[str, pl.DataFrame], plot_format: PlotFormat) -> tuple[Block, ...]:
    table = tables["ranking"]
    if not len(table):
        return (Text("No generator stands alone in a mix, so there is nothing to rank."),)
    pictures, rows, estimates = [], [], []
    for (resolution,), part in table.group_by("resolution", maintain_order=True):
        ranked = [
            plots.Ranked(
                row["mix"] + (" (enlarged)" if row["enlarged"] else ""),
                row["auroc"],
                row["auroc_low"],
                row["auroc_high"],
            )
            for row in part.iter_rows(named=True)
        ]
        title = f"{resolution}, uncompressed"
        alt = f"AUROC at {title}, hardest first: " + "; ".join(
            f"{one.label} {number(one.value)} {interval(one.low, one.high)}" for one in ranked
        )
        pictures.append(Picture(title, alt, plots.ranking_plot(ranked, title, plot_format)))
    for row in table.iter_rows(named=True):
        auroc, balanced = row_estimate(row, "auroc"), row_estimate(row, "balanced_accuracy")
        estimates.append(auroc)
        rows.append(
            (
                Cell(row["resolution"]),
                Cell(str(row["rank"])),
                Cell(
                    row["mix"],
                    sub=f"{row['generator']} against {row['real']}",
                    tag="enlarged" if row["enlarged"] else "",
                ),
                estimate_cell(auroc),
                estimate_cell(balanced),
                Cell(str(row["n_real"])),
                Cell(str(row["n_fake"])),
                Cell(str(row["n_groups"])),
            )
        )
    columns = (
        Column("resolution", "text"), Column("rank"), Column("mix", "text"), Column("AUROC"),
        Column("balanced accuracy"), Column("photographs"), Column("fakes"), Column("groups"),
    )  # fmt: skip
    intro = "Fair path, uncompressed, the hardest to tell first. A bar is the 95 % interval; a hollow point has none."
    if table["generator"].n_unique() == 1:
        intro += " There is one generator only: it is compared with itself over resolutions and photographs."
    return (Text(intro), Gallery("", tuple(pictures)), Table("Ranking", columns, tuple(rows)), *reasons_note(estimates))


_HEAT_METRICS = (("auroc", None, "AUROC"), ("balanced_accuracy", HEADLINE_RULE, "balanced accuracy"))


def _grid(data: ReportData, index: ResultIndex, tables: Mapping[str, pl.DataFrame]) -> tuple[Block, ...]:
    detectors = [name for name in MAIN_DETECTORS if index.cells("fair", name)]
    if not detectors:
        return (Text("No fair row was computed in this run."),)
    blocks: list[Block] = [
        Text(
            "Rows are resolutions, columns JPEG qualities; below each value is its 95 % interval. White is guessing "
            "(0.5), blue is told apart, orange is worse than guessing. Balanced accuracy is taken at the threshold "
            "chosen on validation pictures of the uncompressed view."
        )
    ]
    mixes = dict.fromkeys(
        cell[0] for name in detectors for cell in sorted_cells(data.experiment, index.cells("fair", name))
    )
    for mix_name in mixes:
        maps = [
            _cell_map(data, index, f"{detector}: {title}", mix_name, detector, metric, rule)
            for metric, rule, title in _HEAT_METRICS
            for detector in detectors
            if any(cell[0] == mix_name for cell in index.cells("fair", detector))
        ]
        blocks.append(Heats(mix_name, tuple(maps), _enlarged_note(data, mix_name)))
    legend = "; ".join(f"{name}: {DETECTOR_TITLES[name]}" for name in detectors)
    blocks.append(Text(f"{legend}.", "note"))
    blocks += reasons_note(
        index.get("fair", cell, name, metric, rule)
        for name in detectors
        for cell in index.cells("fair", name)
        for metric, rule, _ in _HEAT_METRICS
    )
    blocks.append(_grid_numbers(tables["grid"]))
    return tuple(blocks)


def _cell_map(
    data: ReportData, index: ResultIndex, title: str, mix: str, detector: str, metric: str, rule: str | None
) -> HeatMap:
    resolutions, qualities = [str(one) for one in data.experiment.resolutions], data.experiment.qualities
    found = [
        [
            index.get("fair", (mix, resolution, quality), detector, metric, rule) or Estimate(None)
            for quality in qualities
        ]
        for resolution in resolutions
    ]
    rows, columns = tuple(resolutions), tuple(quality_name(quality) for quality in qualities)
    return _heat_of(title, "resolution", "JPEG quality", rows, columns, found)


def _heat_of(
    title: str,
    row_title: str,
    column_title: str,
    rows: tuple[str, ...],
    columns: tuple[str, ...],
    found: Sequence[Sequence[Estimate]],
) -> HeatMap:
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


def _enlarged_note(data: ReportData, mix_name: str) -> str:
    mix = next((mix for mix in data.experiment.all_mixes if mix.name == mix_name), None)
    if mix is None:
        return ""
    enlarged = [str(one) for one in data.experiment.resolutions if is_enlarged(data, mix, str(one))]
    return f"enlarged: the rows {joined(enlarged)} hold pictures that are smaller by nature" if enlarged else ""


def _grid_numbers(grid: pl.DataFrame) -> Table:
    """Every cell at every threshold, folded: the heat maps show what matters first."""
    rules = (("val", "chosen on val"), ("half", "0.5"), ("oracle", "oracle: chosen on test"))
    columns = (
        Column("mix", "text"), Column("detector", "text"), Column("cell", "text"), Column("AUROC"),
        Column("average precision"), Column("EER"),
        *(Column(name, group="at the threshold chosen on val") for name in ("accuracy", "precision", "recall", "F1")),
        *(Column(title, group="balanced accuracy by threshold") for _, title in rules),
        Column("photographs"), Column("fakes"),
    )  # fmt: skip
    rows = tuple(
        (
            Cell(row["mix"], tag="enlarged" if row["enlarged"] else ""),
            Cell(row["detector"]),
            Cell(row["cell"]),
            *(estimate_cell(row_estimate(row, name)) for name in ("auroc", "average_precision", "eer")),
            *(
                estimate_cell(row_estimate(row, f"{name}@{HEADLINE_RULE}"))
                for name in ("accuracy", "precision", "recall", "f1")
            ),
            *(estimate_cell(row_estimate(row, f"balanced_accuracy@{rule}")) for rule, _ in rules),
            Cell(str(row["n_real"])),
            Cell(str(row["n_fake"])),
        )
        for row in grid.filter(pl.col("detector") != PROBE).with_columns(reason=pl.lit("")).iter_rows(named=True)
    )
    return Table("All numbers of the grid, positive class fake", columns, rows, folded=True)


def _cross(data: ReportData, tables: Mapping[str, pl.DataFrame]) -> tuple[Block, ...]:
    table = tables["cross"]
    if not len(table):
        return (
            Text(
                "There is one generator only, so there is no other to test on."
                if len(data.experiment.fake_names) == 1
                else "The cross table was not computed in this run."
            ),
        )
    maps, estimates = [], []
    for (resolution,), part in table.group_by("resolution", maintain_order=True):
        fitted, tested = part["fitted_on"].unique(maintain_order=True), part["mix"].unique(maintain_order=True)
        values = {(row["fitted_on"], row["mix"]): row_estimate(row, "auroc") for row in part.iter_rows(named=True)}
        estimates += list(values.values())
        found = [[values.get((one, other), Estimate(None)) for other in tested] for one in fitted]
        maps.append(_heat_of(f"AUROC at {resolution}", "fitted on", "tested on", tuple(fitted), tuple(tested), found))
    return (
        Text(
            "Each SVM was fitted on one generator only (and the photographs) and tested on every generator, "
            "uncompressed. Where a value beside the diagonal falls to 0.5, what was learned does not carry over."
        ),
        Heats("", tuple(maps)),
        *reasons_note(estimates),
    )


def _seeds(tables: Mapping[str, pl.DataFrame]) -> tuple[Block, ...]:
    table = tables["seeds"]
    if not len(table):
        return (Text("Heads were fitted with one training seed only, so the spread over seeds is not known."),)
    seeds = sorted(table["training_seed"].unique())
    rows = []
    for (mix, resolution), part in table.group_by("mix", "resolution", maintain_order=True):
        values = dict(zip(part["training_seed"], part["auroc"], strict=True))
        rows.append(
            (
                Cell(mix),
                Cell(f"{resolution}/none"),
                *(plain_cell(values.get(seed)) for seed in seeds),
                plain_cell(part["spread"][0]),
            )
        )
    columns = (
        Column("mix", "text"),
        Column("cell", "text"),
        *(Column(f"seed {seed}", group="AUROC") for seed in seeds),
        Column("largest − smallest"),
    )
    widest = table.sort("spread", descending=True, maintain_order=True).row(0, named=True)
    return (
        Text(
            "The headline cells again, fitted on bootstrap samples of the training groups (seed 0 is the fit on all "
            f"of them). The widest spread is {number(widest['spread'])}, in {widest['mix']} at "
            f"{widest['resolution']}/none; a difference between detectors that is not larger than this says nothing."
        ),
        Table("AUROC by training seed", columns, tuple(rows)),
    )


# ---- probe, control, ROC, calibration


def _control_rows(data: ReportData, index: ResultIndex) -> list[tuple[CellKey, Estimate]]:
    found = []
    for detector in sorted(index.detectors("control")):
        for cell in sorted_cells(data.experiment, index.cells("control", detector)):
            estimate = index.get("control", cell, detector, "auroc")
            if estimate is not None:
                found.append((cell, estimate))
    return found


def _chance_cell(contains: bool | None) -> Cell:
    return Cell(NOT_AVAILABLE) if contains is None else Cell("yes") if contains else Cell("no", tag="flag")


def _controls(data: ReportData, index: ResultIndex, tables: Mapping[str, pl.DataFrame]) -> tuple[Block, ...]:
    blocks: list[Block] = []
    probe = tables["probe"]
    if len(probe):
        blocks += _probe_blocks(data, index, probe)
    else:
        blocks.append(Text("The probe was not computed in this run."))
    control = _control_rows(data, index)
    if not control:
        blocks.append(Text("No control with shuffled labels was computed in this run."))
        return tuple(blocks)
    rows = tuple(
        (Cell(cell[0]), Cell(cell_name(*cell[1:])), estimate_cell(one), _chance_cell(one.contains(0.5)))
        for cell, one in control
    )
    columns = (Column("mix", "text"), Column("cell", "text"), Column("AUROC"), Column("contains 0.5", "text"))
    blocks += [
        Text("The control is the same SVM, fitted after the training labels were shuffled: it has to be at chance."),
        Table("Control with shuffled labels", columns, rows),
        *reasons_note(one for _, one in control),
    ]
    return tuple(blocks)


def _probe_blocks(data: ReportData, index: ResultIndex, probe: pl.DataFrame) -> Iterator[Block]:
    flagged = probe.filter(pl.col("contains_half").eq(False))
    judged = probe.filter(pl.col("contains_half").is_not_null())
    yield Text(
        "The probe sees no picture content: only width, height, format, file size, quantisation tables, mean and "
        "blockiness. In a fair cell its AUROC should not differ from 0.5."
    )
    if not len(judged):
        yield Text("No row of the probe has an interval, so whether it is at chance is n/a.", "note")
    elif len(flagged):
        places = []
        for (mix,), part in flagged.group_by("mix", maintain_order=True):
            cells = [f"{row['cell']} ({number(row['auroc'])})" for row in part.iter_rows(named=True)]
            places.append(f"{mix} at {joined(cells)}" if len(cells) <= 3 else f"{mix} in {len(cells)} cells")
        yield Text(
            f"In {len(flagged)} of {len(judged)} rows the probe's interval does not contain 0.5: "
            f"{'; '.join(places)}. There, part of what a detector tells may be format rather than content. Of many "
            "rows, one in twenty is expected to be flagged by chance.",
            "warning",
        )
    else:
        yield Text(f"In all {len(judged)} rows with an interval the interval contains 0.5: nothing is flagged.")
    mixes = list(dict.fromkeys(probe["mix"]))
    yield Heats("", tuple(_cell_map(data, index, f"probe on {mix}: AUROC", mix, PROBE, "auroc", None) for mix in mixes))
    columns = (Column("mix", "text"), Column("cell", "text"), Column("AUROC"), Column("contains 0.5", "text"))
    estimates = [row_estimate(row, "auroc") for row in probe.iter_rows(named=True)]
    rows = tuple(
        (Cell(row["mix"]), Cell(row["cell"]), estimate_cell(one), _chance_cell(row["contains_half"]))
        for row, one in zip(probe.iter_rows(named=True), estimates, strict=True)
    )
    yield Table("The probe in every cell", columns, rows, folded=True)
    yield from reasons_note(estimates)


def _roc(data: ReportData, plot_format: PlotFormat) -> tuple[Block, ...]:
    if not len(data.roc):
        return (Text("No ROC curves were kept in this run."),)
    index = ResultIndex(data.results)
    parts = {
        (detector, mix, resolution): part
        for (detector, mix, resolution), part in data.roc.group_by("detector", "mix", "resolution", maintain_order=True)
    }
    detectors = [name for name in (*MAIN_DETECTORS, PROBE) if any(key[0] == name for key in parts)]
    detectors += sorted({key[0] for key in parts}.difference(detectors))
    if plot_format == "png":
        detectors = detectors[:1]  # the HTML has the others
    blocks: list[Block] = [
        Text(
            "Share of fakes found against share of photographs called fake, one curve per JPEG quality; the number "
            "is AUROC."
        )
    ]
    for detector in detectors:
        cells = [(mix, resolution, None) for name, mix, resolution in parts if name == detector]
        pictures = [
            _roc_picture(index, detector, mix, resolution, parts[detector, mix, resolution], plot_format)
            for mix, resolution, _ in sorted_cells(data.experiment, cells)
        ]
        title = f"{detector}: {DETECTOR_TITLES[detector]}" if detector in DETECTOR_TITLES else detector
        blocks.append(Gallery(title, tuple(pictures), folded=detector != detectors[0], narrow=True))
    return tuple(blocks)


def _roc_picture(
    index: ResultIndex, detector: str, mix: str, resolution: str, part: pl.DataFrame, plot_format: PlotFormat
) -> Picture:
    curves, spoken = [], []
    qualities = sorted(part["jpeg_quality"].unique(), key=lambda quality: -(101 if quality is None else quality))
    for quality in qualities:
        curve = part.filter(pl.col("jpeg_quality").eq_missing(pl.lit(quality)))
        auroc = index.get("fair", (mix, resolution, quality), detector, "auroc")
        label = f"{quality_name(quality)}  {number(auroc.value if auroc else None)}"
        curves.append(plots.Curve(label, curve["fpr"].to_numpy(), curve["tpr"].to_numpy()))
        spoken.append(f"{quality_name(quality)} {number(auroc.value if auroc else None)}")
    title = f"{mix} at {resolution}"
    alt = f"ROC curves of {detector}, {title}; AUROC by quality: {', '.join(spoken)}"
    return Picture(title, alt, plots.roc_plot(curves, title, plot_format))


def _calibration(data: ReportData, index: ResultIndex) -> tuple[Block, ...]:
    detectors = [name for name in MAIN_DETECTORS if index.cells("fair", name)]
    rows, estimates = [], []
    for detector in detectors:
        cells = sorted_cells(data.experiment, index.cells("fair", detector))
        for mix, resolution in dict.fromkeys((cell[0], cell[1]) for cell in cells):
            found = [index.get("fair", (mix, resolution, one), detector, "ece") for one in data.experiment.qualities]
            if any(found):
                estimates += found
                rows.append((Cell(mix), Cell(detector), Cell(resolution), *(estimate_cell(one) for one in found)))
    if not rows:
        return (Text("No calibration error was computed in this run."),)
    columns = (
        Column("mix", "text"), Column("detector", "text"), Column("resolution", "text"),
        *(Column(quality_name(one), group="ECE by JPEG quality") for one in data.experiment.qualities),
    )  # fmt: skip
    return (
        Text(
            "Expected calibration error (15 equal bins): how far p(fake) is from the share of fakes among pictures "
            "that get it. 0 is perfect. Probabilities were calibrated on uncompressed validation pictures."
        ),
        Table("Expected calibration error", columns, tuple(rows), folded=len(rows) > 24),
        *reasons_note(estimates),
    )


# ---- pictures


def _examples(data: ReportData, every_view: bool) -> tuple[Block, ...]:
    """Strips of pictures per source; without `every_view` only the least and the most compressed of a resolution."""
    if not len(data.examples):
        return (Text("No example pictures were kept in this run."),)
    order = [source.name for source in data.experiment.sources]
    labels = {source.name: source.label for source in data.experiment.sources}
    strips: dict[str, dict[str, bytes]] = {}
    for row in data.examples.iter_rows(named=True):
        strips.setdefault(row["source"], {})[row["view"]] = row["png"]
    blocks: list[Block] = [
        Text(
            "The same pictures of each source in every view, as a detector gets them. Views are path / resolution / "
            "quality."
        )
    ]
    for source in sorted(strips, key=lambda name: (order.index(name) if name in order else len(order), name)):
        views = sorted(strips[source], key=lambda view: _view_place(data, view))
        if not every_view:
            views = _least_and_most_compressed(views)
        pictures = [Picture(view, f"pictures of {source} in the view {view}", strips[source][view]) for view in views]
        title = f"{source} ({labels[source]})" if source in labels else source
        blocks.append(Gallery(title, tuple(pictures)))
    return tuple(blocks)


def _least_and_most_compressed(views: Sequence[str]) -> list[str]:
    """Of sorted views, the first and the last of each path and resolution."""
    kept: dict[str, list[str]] = {}
    for view in views:
        kept.setdefault(view.rpartition("/")[0], []).append(view)
    return [view for part in kept.values() for view in dict.fromkeys((part[0], part[-1]))]


def _view_place(data: ReportData, view: str) -> tuple[Any, ...]:
    path, _, cell = view.partition("/")
    resolution, _, quality = cell.partition("/")
    resolutions = [str(one) for one in data.experiment.resolutions]
    compression = 0 if quality == "none" else 101 - int(quality[1:]) if re.fullmatch(r"q\d+", quality) else 200
    return (path, resolutions.index(resolution) if resolution in resolutions else len(resolutions), compression, view)


def _extra(data: ReportData) -> tuple[Block, ...]:
    pictures = [Picture(title, title, png) for title, png in data.extra_pictures]
    return (Gallery("", tuple(pictures)),) if pictures else ()


# ---- quality, counts, provenance


def _quality(tables: Mapping[str, pl.DataFrame]) -> tuple[Block, ...]:
    table = tables["quality"]
    if not len(table):
        return (Text("Generator quality was not computed in this run."),)
    columns = (
        Column("source", "text"), Column("metric", "text"), Column("cell", "text"), Column("value"),
        Column("photographs"), Column("fakes"), Column("note", "text"),
    )  # fmt: skip
    rows = tuple(
        (
            Cell(row["source"]),
            Cell(row["metric"]),
            Cell(cell_name(row["resolution"], row["jpeg_quality"])),
            Cell(_significant(row["value"]), sub=_significant_interval(row["low"], row["high"])),
            Cell(str(row["n_real"])),
            Cell(str(row["n_fake"])),
            Cell(row["note"] or ""),
        )
        for row in table.iter_rows(named=True)
    )
    return (
        Text(
            "Distances between each generator's pictures and test photographs in the same view; lower is nearer. "
            "Values of different metrics, and of different numbers of pictures, do not compare. Only distances on "
            "the 2015 Inception network are called FID and KID."
        ),
        *_capped("Generator quality", columns, rows, "quality", folded=len(rows) > 24),
    )


def _significant(value: float | None) -> str:
    return NOT_AVAILABLE if value is None else f"{value:.4g}"


def _significant_interval(low: float | None, high: float | None) -> str:
    return f"[{NOT_AVAILABLE}]" if low is None or high is None else f"[{low:.4g}, {high:.4g}]"


def _capped(
    caption: str, columns: tuple[Column, ...], rows: tuple[tuple[Cell, ...], ...], name: str, folded: bool = False
) -> Iterator[Block]:
    yield Table(caption, columns, rows[:SHOWN_ROWS], folded=folded)
    if len(rows) > SHOWN_ROWS:
        yield Text(f"{len(rows) - SHOWN_ROWS} more rows are in {name}.csv.", "note")


def _counts(data: ReportData, tables: Mapping[str, pl.DataFrame]) -> tuple[Block, ...]:
    blocks: list[Block] = [Text(line, "warning") for line in data.warnings]
    counts = tables["counts"]
    if len(counts):
        columns = (
            Column("source", "text"), Column("label", "text"), Column("split or fold", "text"), Column("images"),
            Column("groups"), Column("left out"), Column("quarantined"), Column("duplicates"),
            Column("collapse rate"),
        )  # fmt: skip
        rows = tuple(tuple(Cell(_plain_value(value)) for value in row) for row in counts.iter_rows())
        blocks.append(
            Text(
                "Left out are pictures whose square is smaller than the canonical side "
                f"({data.experiment.canonical_side} pixels): enlarging them where others are reduced would tell "
                "them. Duplicates repeat an earlier picture of any source: they are of its group, so of its split. "
                "The collapse rate is the share of a generator's pictures that are near duplicates of another "
                "one."
            )
        )
        blocks += _capped("Images", columns, rows, "counts")
    else:
        blocks.append(Text("No counts were given."))
    quarantine = tables["quarantine"]
    if not len(quarantine):
        blocks.append(Text("No picture was quarantined."))
        return tuple(blocks)
    by_reason = quarantine.group_by("source", "reason").len().sort("source", "reason")
    blocks.append(
        Table(
            f"Quarantined: {len(quarantine)}",
            (Column("source", "text"), Column("reason", "text"), Column("pictures")),
            tuple((Cell(row[0]), Cell(_plain_value(row[1])), Cell(str(row[2]))) for row in by_reason.iter_rows()),
        )
    )
    titles = {"source": "source", "image_id": "image", "reason": "reason", "detail": "detail"}
    listed = tuple(tuple(Cell(_plain_value(row[name])) for name in titles) for row in quarantine.iter_rows(named=True))
    headings = tuple(Column(title, "code" if name == "image_id" else "text") for name, title in titles.items())
    blocks += _capped("Every quarantined picture", headings, listed, "quarantine", folded=True)
    return tuple(blocks)


def _plain_value(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _provenance(data: ReportData) -> tuple[Block, ...]:
    experiment = data.experiment
    settings = {
        "experiment": experiment.name,
        "seed": experiment.seed,
        "extractor": f"{experiment.extractor.name}, weights {experiment.extractor.weights}",
        "canonical side": f"{experiment.canonical_side} pixels",
        "resolutions": ", ".join(str(one) for one in experiment.resolutions),
        "qualities": ", ".join(quality_name(one) for one in experiment.qualities),
        "splits": ", ".join(f"{key} {value}" for key, value in experiment.splits.model_dump().items() if value),
        "training seeds": experiment.training_seeds,
        "bootstrap resamples": experiment.bootstrap_resamples,
    }
    groups: dict[str, Any] = {"settings": settings, **data.provenance}
    single = {key: value for key, value in groups.items() if not isinstance(value, Mapping)}
    nested = {key: value for key, value in groups.items() if isinstance(value, Mapping) and value}
    if single:
        nested = {"settings": nested.pop("settings"), "run": single} | nested
    columns = (Column("what", "text"), Column("value", "code"))
    return tuple(
        Table(
            key,
            columns,
            tuple((Cell(name), Cell(text)) for name, text in _flattened(value, as_time=key == "durations")),
            folded=len(value) > 16,
        )
        for key, value in nested.items()
    )


def _flattened(value: Mapping[Any, Any], prefix: str = "", as_time: bool = False) -> Iterator[tuple[str, str]]:
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, Mapping):
            yield from _flattened(item, f"{name} / ", as_time)
        elif isinstance(item, list | tuple):
            yield name, ", ".join(str(one) for one in item)
        elif as_time and isinstance(item, int | float):
            yield name, _duration(float(item))
        else:
            yield name, _plain_value(item)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
