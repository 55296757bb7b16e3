"""The report's sections on the first project: its ten rows reported, reproduced and fair, and the ablation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from tasks.data.perturbations.kinds import NONE
from tasks.report.blocks import (
    NOT_AVAILABLE,
    Block,
    Cell,
    Column,
    Fold,
    Gallery,
    Items,
    Picture,
    Table,
    Text,
    estimate_cell,
    number,
    reasons_note,
    row_estimate,
    signed,
)
from tasks.report.data import (
    CELL_COLUMNS,
    FAIR,
    HEADLINE_RULE,
    CellKey,
    Estimate,
    ReportData,
    ResultIndex,
    estimate_columns,
    estimate_values,
    is_enlarged,
    seed_key,
    sorted_cells,
)
from tasks.report.plots import chain_plot
from tasks.report.reported import ReportedRow
from tasks.spec.experiment import Experiment, Mix

# A reproduction that lies within this of the reported accuracy is called near it.
NEAR = 0.03

_FIRST_PROJECT_COLUMNS = (
    Column("row", "text"),
    *(Column(name, group="reported") for name in ("acc.", "prec.", "recall", "F1")),
    *(Column(name, group="seed protocol, here") for name in ("acc.", "prec.", "recall", "F1")),
    *(Column(name, group="fair, here") for name in ("accuracy", "AUROC")),
)


def first_project_blocks(data: ReportData, index: ResultIndex, tables: Mapping[str, pl.DataFrame]) -> tuple[Block, ...]:
    table = tables["first_project"]
    if data.experiment.seed_protocol is None:
        return ()
    if not len(table):
        return (Text("No table of reported numbers was given."),)
    notes: list[str] = []
    rows, sentences, fair = [], [], []
    for reported, row in zip(data.reported, table.iter_rows(named=True), strict=True):
        flagged = []
        for flag in data.flags.get(reported.name, ()):
            notes.append(f"{reported.name}: {flag}.")
            flagged.append(len(notes))
        accuracy, auroc = row_estimate(row, "fair_accuracy"), row_estimate(row, "fair_auroc")
        fair += [_fair_estimate(index, row, "accuracy"), _fair_estimate(index, row, "auroc")]
        rows.append(
            (
                Cell(row["cell"], sub=reported.name, tag="enlarged" if row["enlarged"] else "", notes=tuple(flagged)),
                *(_reported_cell(value) for value in reported.metrics),
                *(Cell(number(row[f"seed_{name}"])) for name in ("accuracy", "precision", "recall", "f1")),
                estimate_cell(accuracy),
                estimate_cell(auroc),
            )
        )
        if said := _row_sentence(index, reported, row):
            sentences.append((f"{row['cell']} · {reported.name}", said))
    blocks: list[Block] = [
        Text(
            "Cells are named by resolution and JPEG quality; the first project's own names stand below them (its "
            "“compression p %” is quality 100 − p). In the reported columns and in those of the seed protocol the "
            "positive class is real, as in the first project; in the fair ones it is fake. Accuracy and AUROC do "
            f"not depend on that. Fair numbers are those of {index.headline.name}; its accuracy is taken at the "
            "threshold that was chosen on validation pictures, uncompressed. The pictures here are not the first "
            "project's own. Where a fair number has no interval, its difference from the seed protocol's is not judged."
        )
    ]
    if table["seed_accuracy"].is_null().all():
        blocks.append(Text("No row of the seed protocol was computed in this run.", "note"))
    caption = "Reported, reproduced and fair"
    blocks.append(Table(caption, _FIRST_PROJECT_COLUMNS, tuple(rows), tuple(notes), csv="first_project"))
    blocks += reasons_note(fair)
    blocks.append(
        Text(
            "What the first project's code shows: the SVM of the 64x64 rows was fitted on features of 256x256 "
            "pictures; in compressed rows only the fakes were compressed, while photographs were saved at quality "
            "100, so that the compression itself could be told; there was no validation set; the GAN had seen the "
            "test photographs."
        )
    )
    blocks.append(Fold("Row by row, in words", (Items(tuple(sentences)),)))
    return tuple(blocks)


def _fair_estimate(index: ResultIndex, row: Mapping[str, Any], metric: str) -> Estimate | None:
    cell = CellKey(row["fair_mix"], row["resolution"], row["perturbation"])
    return index.get(FAIR, cell, index.headline.fit, metric, HEADLINE_RULE if metric == "accuracy" else None)


def _reported_cell(value: float | None) -> Cell:
    return Cell("" if value is None else f"{value:.4f}")


def _row_sentence(index: ResultIndex, reported: ReportedRow, row: Mapping[str, Any]) -> str:
    """What reported, reproduced and fair say together, and what is known to explain it; empty where nothing is."""
    seed, fair = row["seed_accuracy"], row_estimate(row, "fair_accuracy")
    sentences = [
        *_reproduction(reported.accuracy, seed),
        *_against_fair(seed, fair, row_estimate(row, "fair_auroc")),
        *_known_causes(index, row),
    ]
    return " ".join(f"{sentence[:1].upper()}{sentence[1:]}." for sentence in sentences)


def _reproduction(reported: float | None, seed: float | None) -> Iterator[str]:
    if reported is None or seed is None:
        return
    if abs(seed - reported) <= NEAR:
        yield f"the reproduction comes within {NEAR} of the report"
    else:
        yield f"the reproduction is {abs(seed - reported):.3f} {'above' if seed > reported else 'below'} the report"


def _against_fair(seed: float | None, fair: Estimate, auroc: Estimate) -> Iterator[str]:
    if auroc.contains(0.5):
        yield "compared fairly, the classes are not shown to be told apart better than by guessing"
    if seed is None or fair.value is None or fair.low is None or fair.high is None:
        return
    if seed > fair.high:
        yield (
            f"the seed protocol's number lies {seed - fair.value:.3f} above the fair one and outside its interval: the "
            "ablation shows which defects give that"
        )
    elif seed < fair.low:
        yield (
            f"the fair number lies {fair.value - seed:.3f} above the seed protocol's, outside its interval: the "
            "ablation shows which defects cost that"
        )
    else:
        yield "the fair interval contains the seed protocol's number: no difference between the two is shown"


def _known_causes(index: ResultIndex, row: Mapping[str, Any]) -> Iterator[str]:
    """What the first project's code did in this row, and whether its effect is seen here."""
    if (row["mix"], row["resolution"]) == ("stable", "64"):
        yield "the reported row read the GAN's folder, so it repeats the GAN's numbers"
    if row["perturbation"] == NONE:
        return
    plain = seed_estimate(index, CellKey(row["mix"], row["resolution"], NONE), "accuracy")
    if plain is not None and plain.value is not None and row["seed_accuracy"] is not None:
        change = row["seed_accuracy"] - plain.value
        gains = "here too the seed protocol gains" if change > 0 else "here the seed protocol does not gain"
        yield f"{gains} from compressing the fakes alone ({signed(change)} against no compression)"


def ablation_blocks(data: ReportData, index: ResultIndex) -> tuple[Block, ...]:
    if data.experiment.seed_protocol is None:
        return ()
    stages = [stage for stage in data.ablation_stages if index.cells(stage[0])]
    if not stages:
        return (Text("No stage of the ablation was computed in this run, so what each defect is worth is not known."),)
    cells = seed_cells(data, {cell for protocol, *_ in stages for cell in index.cells(protocol)})
    numbers = {protocol: place for place, (protocol, *_) in enumerate(data.ablation_stages)}
    blocks: list[Block] = [
        Text(
            "What each defect is worth: one defect of the seed protocol is repaired at a time, from left to right; "
            "repairs stay. The last number is the fair one. A line is one of the first project's rows."
        ),
        Items(tuple((f"{numbers[protocol]} · {title}", sentence) for protocol, title, sentence in stages)),
    ]
    old_names = {seed_key(row): row.name for row in data.reported}
    columns = (
        Column("row", "text"),
        *(Column(f"{numbers[protocol]}: {title}") for protocol, title, _ in stages),
        Column("first to last"),
    )
    folded = []
    for title, metric in (("Accuracy by stage", "accuracy"), ("AUROC by stage", "auroc")):
        blocks.append(Gallery("", tuple(_chains(index, stages, numbers, cells, title, metric))))
        rows = []
        for cell in cells:
            estimates = [_stage_estimate(index, protocol, cell, metric) for protocol, *_ in stages]
            first, last = estimates[0], estimates[-1]
            change = (
                signed(last.value - first.value)
                if first and last and first.value is not None and last.value is not None
                else NOT_AVAILABLE
            )
            name = Cell(f"{cell.mix} {cell.cell}", sub=old_names.get(cell, ""))
            rows.append((name, *(estimate_cell(one) for one in estimates), Cell(change)))
        folded.append(Table(title, columns, tuple(rows), folded=True, csv="ablation"))
    blocks += [*folded, *reasons_note(_stage_estimate(index, p, cell, "auroc") for p, *_ in stages for cell in cells)]
    return tuple(blocks)


def _chains(
    index: ResultIndex,
    stages: Sequence[tuple[str, str, str]],
    numbers: Mapping[str, int],
    cells: Sequence[CellKey],
    title: str,
    metric: str,
) -> Iterator[Picture]:
    """A plot of each mix: how its rows' numbers change from stage to stage."""
    for mix in dict.fromkeys(cell.mix for cell in cells):
        lines = []
        for cell in (cell for cell in cells if cell.mix == mix):
            found = [_stage_estimate(index, protocol, cell, metric) for protocol, *_ in stages]
            lines.append((cell.cell, [None if one is None else one.value for one in found]))
        alt = "; ".join(f"{cell} {', '.join(number(value) for value in values)}" for cell, values in lines)
        name = f"{title}: {mix}"
        yield Picture(name, f"{name}: {alt}", chain_plot(lines, [str(numbers[stage[0]]) for stage in stages], name))


def _stage_estimate(index: ResultIndex, protocol: str, cell: CellKey, metric: str) -> Estimate | None:
    rules = (None,) if metric == "auroc" else _ABLATION_RULES
    return next((one for rule in rules if (one := only_estimate(index, protocol, cell, metric, rule))), None)


_SEED_METRICS = ("accuracy", "precision", "recall", "f1", "auroc")
# In which order a row of an ablation stage is taken where it was computed at several thresholds.
_ABLATION_RULES = ("val", "zero", "half", None)


def fair_mix(experiment: Experiment, role: str) -> Mix | None:
    """The mix of the experiment that sets the same sources against each other as a mix of the seed protocol."""
    roles = experiment.seed_protocol
    if roles is None:
        return None
    fakes = {"gan": {roles.gan}, "stable": {roles.stable}, "combined": {roles.gan, roles.stable}}[role]
    same = [mix for mix in experiment.all_mixes if set(mix.fakes) == fakes]
    return next((mix for mix in same if mix.real == (roles.real,)), same[0] if same else None)


def first_project_table(data: ReportData, index: ResultIndex) -> pl.DataFrame:
    """One row per reported row: as reported, under the seed protocol, fair; with its flags."""
    schema: dict[str, Any] = {
        "row": pl.String, "mix": pl.String, **CELL_COLUMNS,
        **{f"reported_{name}": pl.Float64 for name in _SEED_METRICS[:4]},
        **{f"seed_{name}": pl.Float64 for name in _SEED_METRICS},
        "fair_mix": pl.String,
        **estimate_columns("fair_accuracy"), **estimate_columns("fair_auroc"),
        "fair_n_real": pl.Int64, "fair_n_fake": pl.Int64, "enlarged": pl.Boolean, "flags": pl.String,
    }  # fmt: skip
    rows = []
    for reported in data.reported:
        key = seed_key(reported)
        mix = fair_mix(data.experiment, key.mix)
        accuracy = auroc = None
        if mix is not None:
            cell = key._replace(mix=mix.name)
            accuracy = index.get(FAIR, cell, index.headline.fit, "accuracy", HEADLINE_RULE)
            auroc = index.get(FAIR, cell, index.headline.fit, "auroc")
        seed = {name: seed_estimate(index, key, name) for name in _SEED_METRICS}
        rows.append(
            {
                "row": reported.name,
                "mix": key.mix,
                **key.row,
                **{f"reported_{name}": getattr(reported, name) for name in _SEED_METRICS[:4]},
                **{f"seed_{name}": estimate.value if estimate else None for name, estimate in seed.items()},
                "fair_mix": mix.name if mix else None,
                **estimate_values("fair_accuracy", accuracy),
                **estimate_values("fair_auroc", auroc),
                "fair_n_real": auroc.n_real if auroc else None,
                "fair_n_fake": auroc.n_fake if auroc else None,
                "enlarged": is_enlarged(data, mix, key.resolution) if mix else None,
                "flags": "; ".join(data.flags.get(reported.name, ())),
            }
        )
    return pl.DataFrame(rows, schema=schema)


def seed_estimate(index: ResultIndex, key: CellKey, metric: str) -> Estimate | None:
    """A number of the seed protocol (positive class: real)."""
    return only_estimate(index, "seed", key, metric, None if metric == "auroc" else "zero")


def only_estimate(
    index: ResultIndex, protocol: str, cell: CellKey, metric: str, rule: str | None = None
) -> Estimate | None:
    """A number of a protocol that has one detector alone, as the first project's table and its stages have."""
    found = (index.get(protocol, cell, fit, metric, rule) for fit in index.fits(protocol))
    return next((one for one in found if one is not None), None)


def ablation_table(data: ReportData, index: ResultIndex) -> pl.DataFrame:
    """One row per stage and cell: accuracy and AUROC, which do not depend on the class that is called positive."""
    schema: dict[str, Any] = {
        "stage": pl.Int64, "protocol": pl.String, "title": pl.String, "mix": pl.String, **CELL_COLUMNS,
        "threshold_rule": pl.String,
        **estimate_columns("accuracy"), **estimate_columns("auroc"),
    }  # fmt: skip
    rows = []
    for stage, (protocol, title, _) in enumerate(data.ablation_stages):
        for cell in seed_cells(data, index.cells(protocol)):
            found = [(rule, only_estimate(index, protocol, cell, "accuracy", rule)) for rule in _ABLATION_RULES]
            rule, accuracy = next(((rule, one) for rule, one in found if one is not None), (None, None))
            rows.append(
                {
                    "stage": stage,
                    "protocol": protocol,
                    "title": title,
                    "mix": cell.mix,
                    **cell.row,
                    "threshold_rule": rule,
                    **estimate_values("accuracy", accuracy),
                    **estimate_values("auroc", only_estimate(index, protocol, cell, "auroc")),
                }
            )
    return pl.DataFrame(rows, schema=schema)


def seed_cells(data: ReportData, cells: Iterable[CellKey]) -> list[CellKey]:
    """Cells of the seed protocol in the order of the first project's table, then any others."""
    order = list(dict.fromkeys(seed_key(row) for row in data.reported))
    found = set(cells)
    return [cell for cell in order if cell in found] + sorted_cells(data.experiment, found.difference(order))
