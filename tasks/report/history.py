"""What the history of files is worth: pictures as they came beside pictures of which both classes had one encoding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from tasks.evaluation.protocols import APPLIED_CONTROL, AS_IS, HISTORY_CONTROL
from tasks.report.blocks import (
    UNFOLDED_ROWS,
    Block,
    Cell,
    Column,
    Table,
    Text,
    estimate_cell,
    number,
    reasons_note,
    row_estimate,
    value_cell,
)
from tasks.report.data import (
    CELL_COLUMNS,
    FAIR,
    CellKey,
    Estimate,
    ReportData,
    ResultIndex,
    estimate_columns,
    estimate_values,
    mistakes_link,
    row_cell,
    sorted_cells,
)
from tasks.spec.detectors import Fit, Role
from tasks.spec.views import CLEAN_QUALITY, REDUCTION

# From which AUROC on the same photographs with both histories on what is told of a generator may be history.
MOST_OF_A_PROBE = 0.65
MOST_OF_A_DETECTOR = 0.60

UNCOMPRESSED = "none"
# What `flows.histories.history_control` needs.
WHY_NO_CONTROL = (
    f"it needs a generator of JPEG files, photographs that are JPEGs of quality {CLEAN_QUALITY} or better, and in "
    f"every fold ten that are such or no JPEGs and have a window when they are reduced by {REDUCTION}"
)
NOT_TRAINED = "networks are not trained again on pictures as they came"


def history_table(data: ReportData, index: ResultIndex) -> pl.DataFrame:
    """AUROC of every detector and mix with matched histories, as the pictures came, the difference, and the control.

    `control` is AUROC on the same photographs with the two histories, of a detector that was fitted to tell these;
    `applied` that of the detector itself; of a mix of several generators that of the one which is farthest from one
    half. `flagged` says that the first is too large of a probe, or that the second is too far from one half of a
    detector that is fitted, and the first of one that is not; null without a control. Networks are not trained again:
    they have `applied` alone.
    """
    schema: dict[str, Any] = {
        "detector": pl.String, "mix": pl.String, **CELL_COLUMNS,
        **estimate_columns("matched"), **estimate_columns("as_is"), "difference": pl.Float64,
        **estimate_columns("control"), **estimate_columns("applied"), "flagged": pl.Boolean, "reason": pl.String,
    }  # fmt: skip
    generators = {mix.name: mix.fakes for mix in data.experiment.all_mixes}
    rows = []
    for one in (*index.detectors, *index.probes):
        uncompressed = [cell for cell in index.cells(FAIR, one.fit) if cell.perturbation == UNCOMPRESSED]
        for cell in sorted_cells(data.experiment, index.cells(AS_IS, one.fit) or uncompressed):
            matched, as_is = (index.get(protocol, cell, one.fit, "auroc") for protocol in (FAIR, AS_IS))
            control, applied = (
                _farthest(index, protocol, one.fit, [cell._replace(mix=fake) for fake in generators[cell.mix]])
                for protocol in (HISTORY_CONTROL, APPLIED_CONTROL)
            )
            if matched is None or (as_is is None and control.value is None and applied.value is None):
                continue
            as_is = as_is or Estimate(None, reason=NOT_TRAINED)
            both = matched.value is not None and as_is.value is not None
            rows.append(
                {
                    "detector": one.name,
                    "mix": cell.mix,
                    **cell.row,
                    **estimate_values("matched", matched),
                    **estimate_values("as_is", as_is),
                    "difference": as_is.value - matched.value if both else None,  # type: ignore[operator]
                    **estimate_values("control", control),
                    **estimate_values("applied", applied),
                    "flagged": _is_too_large(one.role, control.value, applied.value),
                    "reason": matched.reason or as_is.reason,
                }
            )
    return pl.DataFrame(rows, schema=schema)


def history_blocks(data: ReportData, tables: Mapping[str, pl.DataFrame]) -> tuple[Block, ...]:
    """A table of both, and in words what the difference is worth.

    The explorer shows the pictures of matched histories alone, so that only their numbers lead there.
    """
    rows = list(tables["history"].iter_rows(named=True))
    if not rows:
        return ()
    estimates = [(row_estimate(row, "matched"), row_estimate(row, "as_is")) for row in rows]
    columns = (
        Column("detector", "text"), Column("mix", "text"), Column("cell", "text"), Column("matched"),
        Column("as they came"), Column("difference"), Column("control, fitted"),
        Column("control, applied"),
    )  # fmt: skip
    shown = tuple(
        (
            Cell(row["detector"]),
            Cell(row["mix"]),
            Cell(row["cell"]),
            estimate_cell(matched, mistakes_link(data, row_cell(row), row["detector"])),
            estimate_cell(as_is),
            Cell(number(row["difference"])),
            value_cell(row, "control"),
            _marked(value_cell(row, "applied"), row["flagged"]),
        )
        for row, (matched, as_is) in zip(rows, estimates, strict=True)
    )
    return (
        Text(
            "Photographs and generated pictures come as files that were encoded differently, and traces of that "
            "outlast another encoding. Matched: before a window is cut, photographs whose own encoding is overwritten "
            "by it take one as the generator's files have; of a generator whose files are no JPEGs, its pictures take "
            "one as the photographs have, and so do photographs that are no JPEGs. As they came: nobody takes one. "
            "Both AUROCs are of detectors that were fitted so as well; what the difference is worth is history, not "
            "generation. Control: the same photographs, reduced so that their own history is gone, encoded as matched "
            "photographs are and as the generator's files are: by a detector fitted to tell these, which says what it "
            "could see, and by the "
            f"detector itself. Above {MOST_OF_A_PROBE:.2f} of a probe, or further than {MOST_OF_A_DETECTOR - 0.5:.2f} "
            "from one half of a detector itself, a row is marked: what is told there may be history."
        ),
        Table(
            "Matched histories, and as the pictures came: AUROC",
            columns,
            shown,
            folded=len(shown) > UNFOLDED_ROWS,
            csv="history",
        ),
        *reasons_note(one for pair in estimates for one in pair),
        *([] if is_controlled(tables["history"]) else [Text(f"There is no control: {WHY_NO_CONTROL}.")]),
    )


def is_controlled(history: pl.DataFrame) -> bool:
    """Whether any row of `history_table` has a control."""
    return bool(len(history.filter(pl.col("control").is_not_null() | pl.col("applied").is_not_null())))


def _farthest(index: ResultIndex, protocol: str, fit: Fit, cells: Sequence[CellKey]) -> Estimate:
    """The AUROC of the generators' controls that is farthest from one half."""
    found = [index.get(protocol, cell, fit, "auroc") for cell in cells]
    known = [one for one in found if one is not None and one.value is not None]
    return max(known, key=lambda one: abs((one.value or 0.0) - 0.5), default=Estimate(None))


def _is_too_large(role: Role, control: float | None, applied: float | None) -> bool | None:
    decisive = control if role == "probe" or applied is None else applied
    if decisive is None:
        return None
    return decisive > MOST_OF_A_PROBE if role == "probe" else abs(decisive - 0.5) > MOST_OF_A_DETECTOR - 0.5


def _marked(cell: Cell, flagged: bool | None) -> Cell:
    return replace(cell, tag="history") if flagged else cell
