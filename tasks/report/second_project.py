"""The report's section on the second project: its three heads as printed, and here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from tasks.report.blocks import (
    NOT_AVAILABLE,
    Block,
    Cell,
    Column,
    Table,
    Text,
    joined,
    reasons_note,
    row_estimate,
    value_cell,
    whole,
)
from tasks.report.data import ReportData
from tasks.spec.experiment import Experiment

Tables = Mapping[str, pl.DataFrame]
Row = dict[str, Any]

_MEASURED = ("loss", "training_accuracy", "validation_loss", "validation_accuracy")


def second_project_blocks(data: ReportData, tables: Tables) -> tuple[Block, ...]:
    if "second_project" not in tables:
        return ()
    table = tables["second_project"]
    if not len(table):
        return (Text("No table of the second project was given."),)
    columns = (
        Column("head", "text"), Column("numbers", "text"), Column("epochs"), Column("batch size"),
        Column("layers unlocked"), Column("loss", group="training"), Column("accuracy", group="training"),
        Column("loss", group="validation"), Column("accuracy", group="validation"), Column("accuracy", group="test"),
    )  # fmt: skip
    rows = [cells for row in table.iter_rows(named=True) for cells in _model_rows(row)]
    classes = data.experiment.class_names
    return (
        Text(
            "Its three heads on MobileNetV2, as printed, and here. The printed numbers are of five classes (ImageNet "
            f"photographs and four diffusion models), those here of {len(classes)}: {joined(classes)}. Other pictures "
            "and classes: the rows show what a repeated training gives here, not whether the printed numbers were "
            "right. The printed table has no test accuracy."
        ),
        Table("Printed, and here", columns, tuple(rows), csv="second_project"),
        *_second_project_notes(data.experiment, table),
        Text(
            "What was wrong with it. Known images could never be rejected: the rejected label was assigned to another "
            "variable. The threshold of the rejection (0.6 in the app, 0.7 in the notebook) was tuned on the very "
            "images that showed it off. The fakes of one prompt could fall into different splits, so that a test "
            "picture's siblings were trained on. No test accuracy was given, for any head; pruning came without size, "
            "time or accuracy, and distillation was announced only. Here siblings share a split, thresholds come from "
            "known val pictures, and the tables above say what each stage costs."
        ),
    )


def _model_rows(row: Row) -> Iterator[tuple[Cell, ...]]:
    yield (
        Cell(row["model"]),
        Cell("printed"),
        *(Cell(whole(row[f"printed_{name}"])) for name in ("epochs", "batch_size", "layers_unlocked")),
        *(Cell(_four(row[f"printed_{name}"])) for name in _MEASURED),
        Cell("–", sub="never given"),
    )
    if row["network"] is None:
        yield (Cell(row["model"]), Cell("here", sub=row["reason"]), *(Cell(NOT_AVAILABLE) for _ in range(8)))
        return
    epochs = row["here_epochs"]
    yield (
        Cell(row["model"]),
        Cell("here", sub=row["network"]),
        Cell(NOT_AVAILABLE if epochs is None else f"{epochs:.3g}"),
        Cell(whole(row["here_batch_size"])),
        Cell(row["here_layers_unlocked"]),
        *(Cell(_four(row[f"here_{name}"])) for name in _MEASURED),
        value_cell(row, "test_accuracy"),
    )


def _second_project_notes(experiment: Experiment, table: pl.DataFrame) -> Iterator[Block]:
    here = table.filter(pl.col("network").is_not_null())
    if not len(here):
        yield Text(
            "No network of this experiment has one of its heads at full width, so only the printed rows are shown."
        )
        return
    notes = ["Losses and accuracies here are those of the epoch whose weights were kept"]
    if experiment.splits.kind == "folds":
        notes.append("means over the rotations, and test accuracy is pooled over them, each picture tested once")
    yield Text("; ".join(notes) + ".", "note")
    yield from reasons_note(row_estimate(row, "test_accuracy") for row in here.iter_rows(named=True))


def _four(value: float | None) -> str:
    return NOT_AVAILABLE if value is None else f"{value:.4f}"
