"""A finished run's tables in short, for the terminal and as Markdown.

    python -m deployments.tables EXPERIMENT

prints the tables of the newest run of an experiment as Markdown; docs/results/subset.md is made of them.
"""

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import polars as pl
import typer

from deployments.failures import WRONG_INPUT, sentence
from storage.errors import SpecError, TelltaleError
from storage.opening import open_store
from storage.runs import latest_run
from storage.store import Store
from tasks.data.perturbations.kinds import NONE
from tasks.report.blocks import (
    file_size,
    millions,
    milliseconds,
    points,
    points_interval,
    share,
    times,
    whole,
)
from tasks.report.network_tables import LATENCY_SIDE
from tasks.report.sections import FOUND

Short = pl.DataFrame

FIRST_PROJECT = "The first project's table: accuracy as reported, under the seed protocol, and fair"
# With a cell behind it.
DETECTORS = "Every detector: AUROC in "
# With a detector behind it; the first of them is the one that the report speaks of.
GRID = "The grid: AUROC of "
AUDITED = "Made equal one after the other, from files as shipped: AUROC for "
NETWORKS = "Networks: what each stage costs and saves"
# What of that table fits into a terminal.
NETWORK_COLUMNS = ("network", "file", "MACs", f"ms at {LATENCY_SIDE} px", "class accuracy", "change, points")

_TRAINED = {
    "loss": "loss",
    "training_accuracy": "training accuracy",
    "validation_loss": "validation loss",
    "validation_accuracy": "validation accuracy",
}


def short_tables(store: Store, place: str) -> dict[str, Short]:
    """Title to table; every field is text, a value with its 95 % interval in one field.

    Raises:
        SpecError: the run was written before tables had a detector's title.
    """

    def read(name: str) -> pl.DataFrame:
        return pl.read_parquet(io.BytesIO(store.read(f"{place}/tables/{name}.parquet")))

    if "title" not in (grid := read("grid")).columns:
        raise SpecError(f"{place} was written by an older version: evaluate the experiment again, little is made anew")
    # What was reported says nothing beside an experiment that has no row of it.
    first_project = read("first_project").filter(~pl.col("seed_accuracy").is_null().all())
    tables = {
        "Ranking of the generators, uncompressed (AUROC)": _columns(
            read("ranking"), ("resolution", "rank", "generator", "real"), ("auroc", "balanced_accuracy")
        ),
    }
    tables |= _grids(grid)
    tables["Cross table: AUROC, fitted on one generator, tested on another"] = _columns(
        read("cross"), ("detector", "resolution", "fitted_on", "tested_on", "mix"), ("auroc",)
    )
    tables["Training seeds: AUROC"] = _columns(
        read("seeds"), ("detector", "mix", "cell", "training_seed"), (), ("auroc", "spread")
    )
    tables["Generator quality"] = _quality(read("quality"))
    tables["Pictures"] = _columns(
        read("counts"),
        ("source", "label", "split_or_fold", "images", "groups", "left_out", "quarantined"),
        (),
        ("collapse_rate",),
    )
    if store.size(f"{place}/tables/audit.parquet") is not None:
        tables |= _audited(read("audit"))
    # Runs of experiments without networks, and older runs, have no such tables.
    if store.size(f"{place}/tables/stages.parquet") is not None:
        tables |= _networks(read)
    tables |= {
        FIRST_PROJECT: _first_project(first_project),
        "Ablation: accuracy as the defects go, one after the other": _stages(read("ablation")),
    }
    return {title: table for title, table in tables.items() if len(table)}


def answer(store: Store, place: str) -> list[str]:
    """The report's sentences of what was found, and of what forbids to believe it, as plain text."""
    page = store.read(f"{place}/report.md").decode()
    found = page.partition(f"\n## {FOUND}\n")[2].partition("\n![")[0].partition("\n## ")[0]
    lines = (re.sub(r"[*>]|\\(?=[\[\]])", "", line).strip() for line in found.splitlines())
    return [line for line in lines if line and not line.startswith("[")]


def _audited(table: pl.DataFrame) -> dict[str, Short]:
    """By audited generator, what every detector and probe tells at each stage."""
    return {
        f"{AUDITED}{mix}": part.with_columns(
            pl.Series("shown", _estimates(part, "auroc")), pl.col("stage").str.replace_all("-", " ")
        ).pivot("stage", index="detector", values="shown", maintain_order=True)
        for (mix,), part in table.group_by("mix", maintain_order=True)
    }


def _networks(read: Callable[[str], pl.DataFrame]) -> dict[str, Short]:
    """What compression costs and saves, what is rejected, and the second project's table."""
    cells, rejection = read("network_cells"), read("rejection")
    kept = rejection.filter(pl.col("rule").str.starts_with("kept-"))
    return {
        NETWORKS: _compressed(read("stages")),
        "Networks: class accuracy per cell": _by_network(cells, _estimates(cells, "class_accuracy")),
        "Networks: change per cell from the first network, in points": _by_network(cells, _changes(cells)),
        "Networks: what 8 bits change in each class": _classes(read("network_classes")),
        "Distillation: class accuracy with a teacher and without": _students(read("distillation")),
        "Rejection, one generator left out": _rejection(kept.filter(pl.col("kind") == "leave-one-out")),
        "Rejection, generators that no network was trained on": _rejection(kept.filter(pl.col("kind") == "unseen")),
        "A known family, shifted (no unknown source)": _rejection(kept.filter(pl.col("kind") == "shifted")),
        "Rejection by a constant lower bound on the maximum probability": _columns(
            rejection.filter(pl.col("rule").str.starts_with("bound-")),
            ("scenario", "network", "rule"),
            ("rejected_known", "rejected_unknown", "accuracy_accepted"),
        ),
        **_confusions(read("confusion"), kept.filter("chosen")),
        "The second project's table: as printed, and here": _second_project(read("second_project")),
    }


def _compressed(table: pl.DataFrame) -> Short:
    return pl.DataFrame(
        {
            "network": table["network"],
            "kind": [
                row["kind"]
                + (f" of {row['of']}" if row["of"] else "")
                + (", no pretrained weights" if row["pretrained"] is False else "")
                for row in table.iter_rows(named=True)
            ],
            "parameters": [millions(value) for value in table["parameters"]],
            "MACs": _with_share(table, "macs", millions),
            "file": _with_share(table, "bytes", file_size),
            "compressed": [file_size(value) for value in table["compressed_bytes"]],
            f"ms at {LATENCY_SIDE} px": [
                milliseconds(value) + (f" ({milliseconds(low)}–{milliseconds(high)})" if value is not None else "")
                for value, low, high in table.select("ms", "ms_low", "ms_high").iter_rows()
            ],
            "faster than ONNX Runtime / torch eager": [
                f"{times(one)} / {times(other)}"
                for one, other in table.select("faster", "faster_than_eager").iter_rows()
            ],
            "class accuracy": _estimates(table, "class_accuracy"),
            "change, points": _changes(table),
            "balanced accuracy": _estimates(table, "balanced_accuracy"),
        }
    )


def _with_share(table: pl.DataFrame, name: str, words: Callable[[float | None], str]) -> list[str]:
    return [f"{words(value)} ({share(part)})" for value, part in table.select(name, f"{name}_share").iter_rows()]


def _changes(table: pl.DataFrame, name: str = "change") -> list[str]:
    return [
        "–" if value is None else f"{points(value)} {points_interval(low, high)}"
        for value, low, high in table.select(name, f"{name}_low", f"{name}_high").iter_rows()
    ]


def _by_network(cells: pl.DataFrame, shown: list[str]) -> Short:
    table = cells.select("network", "cell").with_columns(pl.Series("shown", shown, dtype=pl.String))
    return table.pivot("cell", index="network", values="shown", maintain_order=True)


def _classes(table: pl.DataFrame) -> Short:
    return pl.DataFrame(
        {
            "network": table["network"],
            "class": table["class"],
            "origin": [_number(value) for value in table["of_accuracy"]],
            "8 bits": _estimates(table, "accuracy"),
            "change, points": _changes(table),
            "pictures": [whole(value) for value in table["n"]],
        }
    )


def _students(table: pl.DataFrame) -> Short:
    return pl.DataFrame(
        {
            "student": table["student"],
            "pretrained": ["no" if value is False else "yes" for value in table["pretrained"]],
            "teachers": table["teachers"],
            "seed": ["mean" if seed is None else str(seed) for seed in table["seed"]],
            "with a teacher": _estimates(table, "with_teacher"),
            "alone": _estimates(table, "alone"),
            "difference, points": _changes(table, "difference"),
        }
    )


def _rejection(table: pl.DataFrame) -> Short:
    """One row per network and score, at the threshold that keeps a share of known val pictures."""
    short = _columns(
        table.with_columns(score=pl.col("score") + pl.when("chosen").then(pl.lit(" (rejects)")).otherwise(pl.lit(""))),
        ("source", "network", "score"),
        ("auroc", "fpr_at_95_tpr", "oscr", "rejected_known", "rejected_unknown", "accuracy_accepted"),
    )
    against = [
        "" if value is None else f"{value:+.3f}" + ("" if low is None else f" [{low:+.3f}, {high:+.3f}]")
        for value, low, high in table.select(
            "auroc_difference", "auroc_difference_low", "auroc_difference_high"
        ).iter_rows()
    ]
    counts = [f"{whole(known)} / {whole(other)}" for known, other in table.select("n_known", "n_unknown").iter_rows()]
    return short.with_columns(
        pl.Series("AUROC against max-probability", against, dtype=pl.String),
        pl.Series("known / unknown", counts, dtype=pl.String),
    )


def _confusions(confusion: pl.DataFrame, chosen: pl.DataFrame) -> dict[str, Short]:
    """Truth against answer where a generator was left out, by the score that the network rejects by."""
    tables = {}
    for scenario, network, score, rule in chosen.select("scenario", "network", "score", "rule").iter_rows():
        part = confusion.filter(kind="leave-one-out", scenario=scenario, network=network, score=score, rule=rule)
        if len(part):
            tables[f"Confusion with {part['source'][0]} left out: {score}, {rule}"] = part.pivot(
                "answer", index="truth", values="count", maintain_order=True
            ).with_columns(pl.exclude("truth").cast(pl.String))
    return tables


def _second_project(table: pl.DataFrame) -> Short:
    """Two rows per head: printed, and here."""
    rows = []
    for row in table.iter_rows(named=True):
        for kind, title in (("printed", "printed"), ("here", f"here: {row['network'] or row['reason']}")):
            test = _number(row["test_accuracy"]) + (
                "" if row["test_accuracy_low"] is None
                else f" [{_number(row['test_accuracy_low'])}, {_number(row['test_accuracy_high'])}]"
            )  # fmt: skip
            unlocked = row[f"{kind}_layers_unlocked"]
            rows.append(
                {
                    "head": row["model"],
                    "numbers": title,
                    "epochs": "n/a" if row[f"{kind}_epochs"] is None else f"{row[f'{kind}_epochs']:.3g}",
                    "batch size": whole(row[f"{kind}_batch_size"]),
                    "layers unlocked": whole(unlocked) if kind == "printed" else unlocked or "n/a",
                    **{
                        title: "n/a" if row[f"{kind}_{name}"] is None else f"{row[f'{kind}_{name}']:.4f}"
                        for name, title in _TRAINED.items()
                    },
                    "test accuracy": "never given" if kind == "printed" else test,
                }
            )
    return pl.DataFrame(rows)


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


def _grids(table: pl.DataFrame) -> dict[str, Short]:
    """AUROC of every detector and probe in the report's order, and balanced accuracy of the first detector."""
    tables: dict[str, Short] = {}
    for (role, name, title), part in table.group_by("role", "detector", "title", maintain_order=True):
        words = f"{name} ({title})" if title else str(name)
        first = role == "detector" and not tables
        tables[f"{GRID}{words}" if role == "detector" else f"The {role}: AUROC of {words}"] = _grid(part, "auroc")
        if first:
            accuracy = _grid(part, "balanced_accuracy@val")
            tables[f"The grid: balanced accuracy of {words} at the threshold from val"] = accuracy
    return tables | _side_by_side(table)


def _side_by_side(table: pl.DataFrame) -> dict[str, Short]:
    """AUROC of every detector and probe in the grid's first cell in which nothing happens to a picture."""
    plain = table.filter(pl.col("perturbation") == NONE)
    if not len(plain):
        return {}
    part = plain.filter(pl.col("cell") == plain["cell"][0])
    shown = part.with_columns(pl.Series("shown", _estimates(part, "auroc")), pl.col("title").fill_null(""))
    names = shown.rename({"title": "what it is"})
    found = names.pivot("mix", index=["detector", "what it is"], values="shown", maintain_order=True)
    return {f"{DETECTORS}{plain['cell'][0]}": found}


def _grid(table: pl.DataFrame, metric: str) -> Short:
    shown = table.with_columns(pl.Series("shown", _estimates(table, metric)))
    return shown.pivot("cell", index="mix", values="shown", maintain_order=True).transpose(
        include_header=True, header_name="cell", column_names="mix"
    )


def _quality(table: pl.DataFrame) -> Short:
    return _columns(table, ("source", "cell", "metric", "n_real", "n_fake"), ("value",))


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
    try:
        store = open_store()
        for title, table in short_tables(store, latest_run(store, experiment)).items():
            typer.echo(markdown(title, table))
    except TelltaleError as error:
        typer.echo(f"error: {sentence(error)}", err=True)
        raise typer.Exit(WRONG_INPUT) from error


if __name__ == "__main__":
    typer.run(main)
