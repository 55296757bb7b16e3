"""Audits: what is left of a claim when container, size, history and content are made equal, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from tasks.evaluation.audit import AUDIT_STAGES, CHANGE, CONTAINER_QUALITY, window_cell
from tasks.evaluation.cells import PAIRS_IN_ORDER
from tasks.report.blocks import (
    Block,
    Cell,
    Column,
    Table,
    Text,
    interval,
    reasons_note,
    row_estimate,
    signed,
    value_cell,
)
from tasks.report.data import (
    FAIR,
    CellKey,
    Estimate,
    Evaluated,
    ReportData,
    ResultIndex,
    estimate_columns,
    estimate_values,
)
from tasks.spec.experiment import Mix

MATCHED_CONTENT = "matched-content"
NO_PAIRS = "this experiment has no reconstructions of its photographs"
# What stands behind a change between stages that do not show the same pictures.
_OTHERS = " *"

Row = dict[str, Any]


def audit_table(data: ReportData, index: ResultIndex) -> pl.DataFrame:
    """AUROC of every detector and probe on each audited generator, stage by stage, and the change from the one before.

    `same_pictures` says that a change is of the very pictures at both stages. The last stage, photographs against their
    reconstructions, is the run's own result and the same for all generators: as its fakes are others, it has no change.
    """
    schema: dict[str, Any] = {
        "detector": pl.String, "role": pl.String, "mix": pl.String, "stage": pl.String, "cell": pl.String,
        **estimate_columns("auroc"), **estimate_columns("change"), "same_pictures": pl.Boolean, "n_real": pl.Int64,
        "n_fake": pl.Int64, "reason": pl.String,
    }  # fmt: skip
    rows = [
        {"detector": one.name, "role": one.role, "mix": mix.name} | row
        for one in (*index.detectors, *index.probes)
        for mix in data.experiment.audited_mixes
        for row in _stages(data, index, one, mix)
    ]
    return pl.DataFrame(rows, schema=schema)


def _stages(data: ReportData, index: ResultIndex, one: Evaluated, mix: Mix) -> Iterator[Row]:
    before: Estimate | None = None
    for protocol in AUDIT_STAGES:
        for cell in index.cells(protocol, one.fit):
            if cell.mix == mix.name:
                auroc, change = (index.get(protocol, cell, one.fit, metric) for metric in ("auroc", CHANGE))
                same = None if change is None else _sizes(change) == _sizes(auroc) == _sizes(before)
                yield _row(protocol.removeprefix("audit-"), cell, auroc, change) | {"same_pictures": same}
                before = auroc
    yield _row(MATCHED_CONTENT, *_pairs(data, index, one), None) | {"same_pictures": None}


def _pairs(data: ReportData, index: ResultIndex, one: Evaluated) -> tuple[CellKey | None, Estimate]:
    """The run's own result on photographs beside what was made of them, the first where there are several."""
    of = window_cell(data.experiment)
    for mix in data.experiment.all_mixes:
        cell = CellKey(mix.name, str(of.resolution), of.perturbation_name)
        auroc = index.get(FAIR, cell, one.fit, "auroc")
        if auroc is not None and index.get(FAIR, cell, one.fit, PAIRS_IN_ORDER) is not None:
            return cell, auroc
    return None, Estimate(None, reason=NO_PAIRS)


def _sizes(estimate: Estimate | None) -> tuple[int, int] | None:
    return None if estimate is None else (estimate.n_real, estimate.n_fake)


def _row(stage: str, cell: CellKey | None, auroc: Estimate | None, change: Estimate | None) -> Row:
    known = auroc or Estimate(None)
    return {
        "stage": stage,
        "cell": None if cell is None else cell.cell,
        **estimate_values("auroc", known),
        **estimate_values("change", change),
        "n_real": known.n_real,
        "n_fake": known.n_fake,
        "reason": known.reason or None,
    }


def audit_blocks(tables: Mapping[str, pl.DataFrame]) -> tuple[Block, ...]:
    """A table of detectors and one of probes, a line for each generator; and how to read them."""
    rows = list(tables["audit"].iter_rows(named=True))
    if not rows:
        return ()
    has_pairs = any(row["auroc"] is not None for row in rows if row["stage"] == MATCHED_CONTENT)
    shown = [row for row in rows if has_pairs or row["stage"] != MATCHED_CONTENT]
    blocks: list[Block] = [
        Text(
            "From left to right one more thing is made equal for both classes: the container (every file one JPEG of "
            f"quality {CONTAINER_QUALITY}), the size (windows of original pixels), and the history of files. What "
            "AUROC loses at a step was told by what the step made equal, or at the size by the rest of a picture. What "
            "is fitted is fitted anew at each stage, on one generator and the photographs."
        )
    ]
    for role, caption in (("detector", "What is left of a claim: AUROC"), ("probe", "What each stage still leaks")):
        of_role = [row for row in shown if row["role"] == role]
        if of_role:
            blocks.append(_stage_table(caption, of_role))
    if any(row["same_pictures"] is False and row["change"] is not None for row in shown):
        blocks.append(
            Text(
                "* The stages do not show the same pictures: those smaller than a window, and photographs whose own "
                "history would be seen, are left out. Part of such a change may be which pictures these are.",
                "note",
            )
        )
    content = (
        "photographs against what an autoencoder made of them, which show the same. These are other fakes than the "
        "generator's, the same on every line, so that no change is stated"
    )
    blocks.append(Text(f"Matched content: {content if has_pairs else NO_PAIRS}.", "note"))
    return (*blocks, *reasons_note(row_estimate(row, "auroc") for row in shown))


def _stage_table(caption: str, rows: Sequence[Row]) -> Table:
    """A line for each detector and generator; of each stage the AUROC, and the change from the stage before."""
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    columns = [Column("detector", "text"), Column("against", "text")]
    for place, stage in enumerate(stages):
        columns.append(Column("AUROC", group=stage.replace("-", " ")))
        if _has_change(place, stage):
            columns.append(Column("change", group=stage.replace("-", " ")))
    lines = []
    for detector, mix in dict.fromkeys((row["detector"], row["mix"]) for row in rows):
        of_line = {row["stage"]: row for row in rows if (row["detector"], row["mix"]) == (detector, mix)}
        line = [Cell(detector), Cell(mix)]
        for place, stage in enumerate(stages):
            row = of_line.get(stage)
            line.append(Cell("–") if row is None else value_cell(row, "auroc"))
            if _has_change(place, stage):
                line.append(_change_cell(row))
        lines.append(tuple(line))
    return Table(caption, tuple(columns), tuple(lines), csv="audit")


def _has_change(place: int, stage: str) -> bool:
    return place > 0 and stage != MATCHED_CONTENT


def _change_cell(row: Row | None) -> Cell:
    if row is None or row["change"] is None:
        return Cell("–")
    others = "" if row["same_pictures"] else _OTHERS
    sub = interval(row["change_low"], row["change_high"]).replace("-", "−")
    return Cell(signed(row["change"]) + others, sub=sub)
