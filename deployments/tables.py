"""A finished run's tables in short, for the terminal and as Markdown.

    python -m deployments.tables EXPERIMENT

prints the tables of the newest run of an experiment as Markdown; docs/RESULTS.md is made of them.
"""

import io
from collections.abc import Sequence
from typing import Any

import polars as pl
import typer

from storage.runs import latest_run
from storage.store import Store, open_store

Short = pl.DataFrame

FIRST_PROJECT = "The first project's table: accuracy as reported, under the seed protocol, and fair"
SVM_GRID = "The fair grid: AUROC of svm"


def short_tables(store: Store, place: str) -> dict[str, Short]:
    """Title to table; every field is text, a value with its 95 % interval in one field."""

    def read(name: str) -> pl.DataFrame:
        return pl.read_parquet(io.BytesIO(store.read(f"{place}/tables/{name}.parquet")))

    grid = read("grid")
    tables = {
        FIRST_PROJECT: _first_project(read("first_project")),
        "Ablation: accuracy as the defects go, one after the other": _stages(read("ablation")),
        "Ranking of the generators, uncompressed (AUROC)": _columns(
            read("ranking"), ("resolution", "rank", "generator", "real"), ("auroc", "balanced_accuracy")
        ),
    }
    tables[SVM_GRID] = _grid(grid.filter(pl.col("detector") == "svm"), "auroc")
    tables["The fair grid: AUROC of svm-aug, fitted over all qualities"] = _grid(
        grid.filter(pl.col("detector") == "svm-aug"), "auroc"
    )
    tables["The fair grid: balanced accuracy of svm at the threshold from val"] = _grid(
        grid.filter(pl.col("detector") == "svm"), "balanced_accuracy@val"
    )
    tables["The probe: AUROC of a detector that sees no picture content"] = _grid(read("probe"), "auroc")
    tables["Cross table: AUROC, fitted on one generator, tested on another"] = _columns(
        read("cross"), ("resolution", "fitted_on", "tested_on", "mix"), ("auroc",)
    )
    tables["Training seeds: AUROC of svm"] = _columns(
        read("seeds"), ("mix", "resolution", "training_seed"), (), ("auroc", "spread")
    )
    tables["Generator quality"] = _quality(read("quality"))
    tables["Pictures"] = _columns(
        read("counts"),
        ("source", "label", "split_or_fold", "images", "groups", "left_out", "quarantined"),
        (),
        ("collapse_rate",),
    )
    return {title: table for title, table in tables.items() if len(table)}


def _first_project(table: pl.DataFrame) -> Short:
    return pl.DataFrame(
        {
            "row": table["row"],
            "cell": table["cell"],
            "reported": [_number(value) for value in table["reported_accuracy"]],
            "seed protocol": [_number(value) for value in table["seed_accuracy"]],
            "fair": _estimates(table, "fair_accuracy"),
            "fair AUROC": _estimates(table, "fair_auroc"),
            "note": ["enlarged" if enlarged else "" for enlarged in table["enlarged"]],
        }
    )


def _stages(table: pl.DataFrame) -> Short:
    shown = table.with_columns(pl.Series("shown", _estimates(table, "accuracy")))
    return shown.pivot("title", index=["mix", "cell"], values="shown", maintain_order=True)


def _grid(table: pl.DataFrame, metric: str) -> Short:
    shown = table.with_columns(pl.Series("shown", _estimates(table, metric)))
    return shown.pivot("cell", index="mix", values="shown", maintain_order=True).transpose(
        include_header=True, header_name="cell", column_names="mix"
    )


def _quality(table: pl.DataFrame) -> Short:
    return _columns(table, ("source", "resolution", "metric", "n_real", "n_fake"), ("value",))


def _columns(table: pl.DataFrame, plain: Sequence[str], estimates: Sequence[str], numbers: Sequence[str] = ()) -> Short:
    columns: dict[str, Any] = {name: [_text(value) for value in table[name]] for name in plain}
    columns |= {name: _estimates(table, name) for name in estimates}
    columns |= {name: [_number(value) for value in table[name]] for name in numbers}
    return pl.DataFrame(columns)


def _estimates(table: pl.DataFrame, name: str) -> list[str]:
    low, high = (f"{name}_low", f"{name}_high") if f"{name}_low" in table.columns else ("low", "high")
    return [
        _number(value) + (f" [{_number(below)}, {_number(above)}]" if below is not None else "")
        for value, below, above in zip(table[name], table[low], table[high], strict=True)
    ]


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def _text(value: object) -> str:
    return "" if value is None else str(value)


def markdown(title: str, table: Short) -> str:
    """One table in Markdown, under its title."""
    lines = [f"### {title}", "", "| " + " | ".join(table.columns) + " |", "|" + "---|" * table.width]
    lines += ["| " + " | ".join(_text(value) for value in row) + " |" for row in table.iter_rows()]
    return "\n".join(lines) + "\n"


def main(experiment: str) -> None:
    """Print the tables of the newest run of an experiment."""
    store = open_store()
    for title, table in short_tables(store, latest_run(store, experiment)).items():
        typer.echo(markdown(title, table))


if __name__ == "__main__":
    typer.run(main)
