"""The second project's table as it was printed: three heads of MobileNetV2, without a test accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tasks.report.reported import FIRST_PROJECT, ReportedTableError, printed_rows, refuse_repeated

SECOND_PROJECT = FIRST_PROJECT.with_name("second-project.csv")
COLUMNS = (
    "model", "epochs", "batch_size", "layers_unlocked",
    "loss", "training_accuracy", "validation_loss", "validation_accuracy",
)  # fmt: skip


@dataclass(frozen=True)
class ReportedNetwork:
    """One printed row: `model` names the head (v1, v2, v3); accuracies are in [0, 1], losses at least 0."""

    model: str
    epochs: int
    batch_size: int
    layers_unlocked: int
    loss: float
    training_accuracy: float
    validation_loss: float
    validation_accuracy: float


def read_second_project(path: Path | str) -> list[ReportedNetwork]:
    """The rows of the second project's table, in file order.

    Raises ReportedTableError if the file is missing, lacks a column, repeats a model, or has a value that is no number,
    an accuracy outside [0, 1] or a loss below 0.
    """
    rows = printed_rows(path, COLUMNS, _parse_row)
    refuse_repeated(path, "models", [row.model for row in rows])
    return rows


def _parse_row(place: str, text: dict[str, str]) -> ReportedNetwork:
    try:
        row = ReportedNetwork(
            model=text["model"],
            epochs=int(text["epochs"]),
            batch_size=int(text["batch_size"]),
            layers_unlocked=int(text["layers_unlocked"]),
            loss=float(text["loss"]),
            training_accuracy=float(text["training_accuracy"]),
            validation_loss=float(text["validation_loss"]),
            validation_accuracy=float(text["validation_accuracy"]),
        )
    except ValueError as error:
        raise ReportedTableError(f"{place}: expected a number; {error}") from error
    losses, accuracies = (row.loss, row.validation_loss), (row.training_accuracy, row.validation_accuracy)
    if not all(0 <= loss < float("inf") for loss in losses) or not all(0 <= one <= 1 for one in accuracies):
        raise ReportedTableError(f"{place}: losses must be at least 0 and accuracies lie in [0, 1]; got {text}")
    return row
