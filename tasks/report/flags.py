"""What forbids to believe the numbers, or to take them for more than they are: each said once, on the first screen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import polars as pl

from tasks.data.histories import MANY_OWN_TABLES
from tasks.report.blocks import Text, joined, random_weights_warning, row_estimate, with_interval
from tasks.report.controls import control_rows
from tasks.report.data import FAIR, HEADLINE_RULE, Evaluated, ReportData, ResultIndex, is_enlarged, sorted_cells
from tasks.report.history import is_controlled

# AUROC from here on is called nearly perfect, and has to be explained before it is believed.
NEARLY_PERFECT = 0.995
# Balanced accuracy that a threshold loses against the best one for the same scores: then it does not fit there.
LOST = 0.1
# A probe this far from 0.5 tells the classes apart, whether or not it has an interval.
TELLS = 0.15


def flag_blocks(data: ReportData, index: ResultIndex, tables: Mapping[str, pl.DataFrame]) -> Iterator[Text]:
    """Flags first, which forbid to believe; then warnings."""
    yield from random_weights_warning(data)
    for probe in index.probes:
        yield from _probe_flag(probe, tables["probe"].filter(pl.col("detector") == probe.name))
    yield from _control_flag(data, index)
    yield from _history_flag(tables["history"])
    yield from uncontrolled(tables["history"])
    yield from _as_they_came(data)
    yield from _not_matched(data)
    yield from _perfect(index, tables["grid"])
    yield from _threshold_flag(data, index)
    yield from _without_intervals(data, index)
    yield from _enlarged(data, index)


def _probe_flag(probe: Evaluated, rows: pl.DataFrame) -> Iterator[Text]:
    """A probe that does well, with an interval or without, is a flag."""
    rows = rows.filter(pl.col("auroc").is_not_null()).with_columns(far=(pl.col("auroc") - 0.5).abs())
    telling = rows.filter((pl.col("far") >= TELLS) & ~pl.col("contains_half").fill_null(False))
    if not len(telling):
        return
    most = telling.sort("far", descending=True, maintain_order=True).row(0, named=True)
    yield Text(
        f"{probe.name}{f', which {probe.title},' if probe.title.startswith('sees') else ''} tells the classes apart: "
        f"AUROC {with_interval(row_estimate(most, 'auroc'))} for {most['mix']} at {most['cell']}, and {TELLS} or more "
        f"from 0.5 in {len(telling)} of {len(rows)} rows. What a detector tells there may be the same.",
        "flag",
        "#controls",
        "Probes",
    )


def _control_flag(data: ReportData, index: ResultIndex) -> Iterator[Text]:
    missing = [(fit, one) for fit, _, one in control_rows(data, index) if one.contains(0.5) is False]
    if missing:
        said = joined([f"{fit.label} {with_interval(one)}" for fit, one in missing])
        yield Text(
            f"Fitted to shuffled labels, which cannot be told, detectors are not at chance: {said}. Of twenty such "
            "intervals one is expected to miss 0.5.",
            "flag",
            "#controls",
            "Controls",
        )


def _history_flag(history: pl.DataFrame) -> Iterator[Text]:
    flagged = history.filter(pl.col("flagged").fill_null(False))
    if len(flagged):
        yield Text(
            f"In {len(flagged)} of {len(history)} rows the history of files can be told apart on the same photographs: "
            f"by {joined(list(flagged['detector'].unique(maintain_order=True)))}. What is told there may be history, "
            "not generation.",
            "flag",
            "#history",
            "History of files",
        )


def uncontrolled(history: pl.DataFrame) -> Iterator[Text]:
    """Where matching did something and nobody saw whether it did enough."""
    if len(history.filter(pl.col("difference").fill_null(0) != 0)) and not is_controlled(history):
        yield Text(
            "Nothing here shows that both classes have one history now: a control on the same photographs needs a "
            "generator of JPEG files and ten clean photographs in every fold.",
            "warning",
            "#history",
            "History of files",
        )


def _as_they_came(data: ReportData) -> Iterator[Text]:
    if data.experiment.path == "crop" and not data.experiment.matches_history:
        yield Text(
            "Pictures keep the encodings that they came with (history: as-is): what is told may be how files were "
            "saved instead of how pictures were made. It is seen under another encoding, and no probe shows it.",
            "warning",
        )


def _not_matched(data: ReportData) -> Iterator[Text]:
    """What files do not say, or say in a way of their own, is not made equal, and no control sees it."""
    if not data.experiment.matches_history:
        return
    counts = data.counts.unique("source", maintain_order=True).filter(pl.col("files") > 0)
    others = counts.filter(pl.col("no_jpegs") > 0)
    if len(others):
        named = [f"{row['no_jpegs']} of {row['files']} pictures of {row['source']}" for row in others.to_dicts()]
        yield Text(
            f"{joined(named)} are no JPEGs: what they were before cannot be told, and is not made equal "
            "(history: matched). It may be what is told, and the control of histories does not see it.",
            "warning",
        )
    jpegs_of = set(counts.filter(pl.col("no_jpegs") < pl.col("files"))["source"])
    # Pictures of a generator without any take the photographs' encodings.
    both = not jpegs_of.issuperset(data.experiment.fake_names)
    matched_to = data.experiment.real_names + data.experiment.fake_names if both else data.experiment.fake_names
    own = counts.filter(pl.col("source").is_in(matched_to), pl.col("own_tables") >= MANY_OWN_TABLES * pl.col("files"))
    if len(own):
        named = [
            f"{row['own_tables']} of {row['files']} pictures of {row['source']} (of about quality "
            f"{row['own_tables_quality']})"
            for row in own.to_dicts()
        ]
        yield Text(
            f"{joined(named)} were saved with quantisation tables of their own: pictures that are matched to them take "
            "standard ones. The difference may be what is told, and the control of histories does not see it.",
            "warning",
        )


def _perfect(index: ResultIndex, grid: pl.DataFrame) -> Iterator[Text]:
    rows = grid.filter(pl.col("detector").is_in([one.name for one in index.detectors]), pl.col("auroc").is_not_null())
    perfect = rows.filter(pl.col("auroc") >= NEARLY_PERFECT)
    if len(perfect):
        first = perfect.row(0, named=True)
        yield Text(
            f"{len(perfect)} of {len(rows)} rows are nearly perfect (AUROC {NEARLY_PERFECT} or more), such as "
            f"{first['detector']} on {first['mix']} at {first['cell']}. That is to be explained before it is believed: "
            "look at the probes, the control and the pictures of these rows first.",
            "warning",
        )


def _threshold_flag(data: ReportData, index: ResultIndex) -> Iterator[Text]:
    """An AUROC says nothing of verdicts: where a detector ranks well, its threshold may call all pictures the same."""
    single = {mix.name for mix in data.experiment.all_mixes if len(mix.fakes) == 1}
    found: list[tuple[float, str]] = []
    asked = 0
    for one in index.detectors:
        for cell in index.cells(FAIR, one.fit):
            own, best = (
                index.get(FAIR, cell, one.fit, "balanced_accuracy", rule) for rule in (HEADLINE_RULE, "oracle")
            )
            if cell.mix not in single or own is None or best is None or own.value is None or best.value is None:
                continue
            asked += 1
            if best.value - own.value >= LOST:
                what = f"{one.name} on {cell.mix} at {cell.cell} {own.value:.2f} where {best.value:.2f} was possible"
                found.append((own.value - best.value, what))
    if found:
        yield Text(
            f"In {len(found)} of {asked} rows a detector's threshold, set on uncompressed val pictures, does not fit: "
            f"it loses {LOST} or more of balanced accuracy. Most: {min(found)[1]}. An AUROC does not show that.",
            "warning",
            "#grid",
            "The full grid",
        )


def _without_intervals(data: ReportData, index: ResultIndex) -> Iterator[Text]:
    """Of the detectors' AUROCs on single generators."""
    single = {mix.name for mix in data.experiment.all_mixes if len(mix.fakes) == 1}
    found = [
        auroc
        for one in index.detectors
        for cell in index.cells(FAIR, one.fit)
        if cell.mix in single and (auroc := index.get(FAIR, cell, one.fit, "auroc")) is not None
    ]
    without = [one for one in found if one.value is not None and not one.has_interval]
    if without:
        reasons = sorted({one.reason.removeprefix("n/a: ") for one in without} - {""})
        yield Text(
            f"{'None' if len(without) == len(found) else f'{len(found) - len(without)}'} of {len(found)} AUROCs "
            f"{'has' if len(found) - len(without) < 2 else 'have'} an interval"
            f"{f' ({joined(reasons[:3])})' if reasons else ''}. Those without are single draws: their order, and their "
            "distance from guessing, are not shown to be more than chance.",
            "warning",
        )


def _enlarged(data: ReportData, index: ResultIndex) -> Iterator[Text]:
    cells = {(cell.mix, cell.resolution): None for cell in sorted_cells(data.experiment, index.cells(FAIR))}
    mixes = {mix.name: mix for mix in data.experiment.all_mixes if len(mix.fakes) == 1}
    names = [mixes[mix].fakes[0] for mix, size in cells if mix in mixes and is_enlarged(data, mixes[mix], size)]
    if names:
        yield Text(
            f"{joined(list(dict.fromkeys(names)))}: smaller by nature. Where such pictures are enlarged (marked *, or "
            "“enlarged”), a detector may tell the enlarging rather than the generator.",
            "warning",
        )
