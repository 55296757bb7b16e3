"""The report's sections on networks for a phone: what compression costs, when they should not answer, the old table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from tasks.data.perturbations.kinds import NONE
from tasks.report.blocks import (
    UNFOLDED_ROWS,
    Block,
    Cell,
    Column,
    Gallery,
    Heats,
    Items,
    Picture,
    Table,
    Text,
    file_size,
    joined,
    millions,
    milliseconds,
    number,
    points,
    points_cell,
    points_interval,
    reasons_note,
    row_estimate,
    share,
    times,
    value_cell,
    whole,
)
from tasks.report.network_tables import LATENCY_SIDE, headline_resolution, in_order
from tasks.report.plots import HeatMap, HeatScale, Spot, cloud_plot
from tasks.spec.detectors import FineTuned, Mobile
from tasks.spec.experiment import Experiment

Tables = Mapping[str, pl.DataFrame]
Row = dict[str, Any]

# Ten points up or down have the full colour.
_CHANGE_SCALE = HeatScale(neutral=0.0, reach=0.10, points=True)


def stage_blocks(
    experiment: Experiment, tables: Tables, colour: Callable[[str], int] = lambda _: 0
) -> tuple[Block, ...]:
    """What compression costs and saves; nothing for an experiment without networks."""
    if "stages" not in tables or experiment.mobile is None:
        return ()
    stages = tables["stages"]
    if not len(stages):
        return (Text("No network was described in this run."),)
    rows = stages.rows(named=True)
    cell = f"{headline_resolution(experiment)}/{NONE}"
    return (
        *_random_weights(experiment.mobile),
        *_lead(rows, cell),
        *_without_pretraining(rows),
        *_clouds(rows, cell, colour),
        _stage_table(rows, cell),
        _STAGE_NOTE,
        *reasons_note(row_estimate(row, "class_accuracy") for row in rows),
        *_latency_note(rows),
        *_zeros(rows),
        *_cell_blocks(experiment, tables["network_cells"]),
        *_distillation_blocks(tables["distillation"]),
        *_quantized_blocks(rows, tables["network_classes"]),
    )


def _random_weights(mobile: Mobile) -> Iterator[Block]:
    first = mobile.networks[0]
    if isinstance(first, FineTuned) and first.weights.startswith("random"):
        yield Text(
            f"{first.name} began with random weights ({first.weights}), not with ImageNet's. The numbers of this "
            "section and the next show that every step works and how results are reported, not how well a phone can "
            "tell generated images.",
            "warning",
        )


def _without_pretraining(rows: Sequence[Row]) -> Iterator[Block]:
    """Which networks began at random where the first one did not."""
    first = rows[0]["network"]
    without = [row["network"] for row in rows if row["pretrained"] is False]
    if rows[0]["pretrained"] and without:
        yield Text(
            f"{joined(without)}: no pretrained weights exist here, so {'they' if len(without) > 1 else 'it'} began at "
            f"random, where {first} began with ImageNet's. What they lose is narrowness and lost pretraining together."
        )


def _lead(rows: Sequence[Row], cell: str) -> Iterator[Block]:
    """In words: the smallest network that loses at most a point, what it saves, and by which rule."""
    first, others = rows[0], rows[1:]
    rule = (
        f"A network loses at most one point where its paired change from {first['network']} in class accuracy at "
        f"{cell} is −1.0 points or better and the 95 % interval of the loss ends below 3 points."
    )
    if not others:
        yield Text(f"{first['network']} is the only network here: there is nothing that it could be compared with.")
        return
    judged = [row for row in others if row["loses_at_most_a_point"] is not None]
    if not judged:
        reasons = sorted({row["reason"].removeprefix("n/a: ") for row in rows if row["reason"]})
        why = f" ({joined(reasons)})" if reasons else ""
        yield Text(f"{rule} No network has such an interval here{why}, so none can be said to do that.")
        return
    holding = [row for row in judged if row["loses_at_most_a_point"]]
    unsized = [row["network"] for row in holding if row["bytes"] is None]
    holding = [row for row in holding if row["bytes"] is not None]
    if not holding:
        nearest = max(judged, key=lambda row: row["change"])
        yield Text(
            f"{rule} None of the {len(judged)} networks that were compared does. Nearest is {nearest['network']}: "
            f"{_change_words(nearest)}."
        )
    else:
        best = min(holding, key=lambda row: (row["bytes"], -row["change"]))
        yield Text(
            f"The smallest network that loses at most one point is {best['network']}: {_change_words(best)}. Its file "
            f"has {file_size(best['bytes'])} ({share(best['bytes_share'])} of {first['network']}'s "
            f"{file_size(first['bytes'])}), it takes {share(best['macs_share'])} of the multiply-accumulates, and "
            f"{_speed_words(best)}."
        )
        yield Text(f"{rule} {len(holding)} of {len(judged)} compared networks do; all are in the table.")
    if unsized:
        yield Text(f"Without a file, so not among the smallest: {joined(unsized)}.", "note")
    without = [row["network"] for row in others if row["loses_at_most_a_point"] is None]
    if without:
        yield Text(f"Not judged, because there is no change with an interval: {joined(without)}.", "note")


def _clouds(rows: Sequence[Row], cell: str, colour: Callable[[str], int]) -> Iterator[Block]:
    """Class accuracy over what a network weighs, and over how long it takes."""
    pictures = []
    for title, name, unit in (
        ("Accuracy and bytes", "bytes", "file, MB"),
        ("Accuracy and time", "ms", "ms per picture"),
    ):
        spots = [
            Spot(
                row["network"],
                row["class_accuracy"],
                row["class_accuracy_low"],
                row["class_accuracy_high"],
                colour(row["network"]),
                row[name] / (1e6 if name == "bytes" else 1),
            )
            for row in rows
            if row[name] and row["class_accuracy"] is not None
        ]
        if len(spots) > 1:
            alt = f"{title} at {cell}: " + "; ".join(
                f"{one.label} {one.value:.3f}, {one.x:.3g} {unit}" for one in spots
            )
            pictures.append(Picture(title, alt, cloud_plot(spots, title, unit, f"class accuracy, {cell}")))
    if pictures:
        yield Gallery("", tuple(pictures))


def _change_words(row: Row) -> str:
    return f"{points(row['change'])} points {points_interval(row['change_low'], row['change_high'])}"


def _speed_words(row: Row) -> str:
    if row["ms"] is None:
        return f"its time is n/a ({row['latency_reason']})"
    against = [
        f"{ratio:.1f} times faster than the first network in {runtime}"
        for ratio, runtime in ((row["faster"], "ONNX Runtime"), (row["faster_than_eager"], "eager torch"))
        if ratio is not None
    ]
    return f"a picture takes {milliseconds(row['ms'])} ms{', ' + joined(against) if against else ''}"


def _stage_table(rows: Sequence[Row], cell: str) -> Table:
    columns = (
        Column("network", "text"), Column("class accuracy", group=cell), Column("change, points", group=cell),
        Column("file"), Column("MACs"), Column("median", group=f"ms at {LATENCY_SIDE} px"),
        *(Column(runtime, group="faster than the first in") for runtime in ("ONNX Runtime", "torch eager")),
    )  # fmt: skip
    shown = tuple(
        (
            _network_cell(row),
            value_cell(row, "class_accuracy"),
            points_cell(row) if place else Cell("–"),
            Cell(file_size(row["bytes"]), sub=share(row["bytes_share"])),
            Cell(millions(row["macs"]), sub=share(row["macs_share"])),
            Cell(
                milliseconds(row["ms"]),
                sub="" if row["ms"] is None else f"{milliseconds(row['ms_low'])}–{milliseconds(row['ms_high'])}",
            ),
            Cell(times(row["faster"])),
            Cell(times(row["faster_than_eager"])),
        )
        for place, row in enumerate(rows)
    )
    return Table("What each stage costs and saves", columns, shown, csv="stages")


_STAGE_NOTE = Text(
    "MACs: multiply-accumulates of one picture; below them, and below the file's size, the share of the first "
    "network's. Times: ONNX Runtime, one thread, one square picture of "
    f"{LATENCY_SIDE} pixels as RGB, with the resize that is in the graph; below the median the 5th and 95th "
    "percentile. They are those of the machine that measured them. Class accuracy: the share of test pictures whose "
    "class (real, or the generator) is the most probable one. Changes are paired, picture by picture. Balanced "
    "accuracy, parameters and the size compressed by zlib are in the CSV.",
    "note",
)


def _network_cell(row: Row) -> Cell:
    kind = "without a teacher" if row["kind"] == "alone" else row["kind"]
    made = kind + (f", from {row['of']}" if row["of"] else "")
    taught = f", taught by {row['teachers']}" if row["teachers"] else ""
    return Cell(row["network"], sub=made + taught, tag="no pretrained weights" if row["pretrained"] is False else "")


def _latency_note(rows: Sequence[Row]) -> Iterator[Block]:
    missing: dict[str, list[str]] = {}
    for row in rows:
        if row["latency_reason"]:
            missing.setdefault(row["latency_reason"], []).append(row["network"])
    if missing:
        listed = "; ".join(f"{reason} ({', '.join(names)})" for reason, names in missing.items())
        yield Text(f"n/a: {listed}.", "note")


def _zeros(rows: Sequence[Row]) -> Iterator[Block]:
    """What zeros save: nothing, while they stay in the file."""
    named = {row["network"]: row for row in rows}
    for row in rows:
        origin = named.get(row["of"])
        if row["kind"] != "magnitude-pruned" or origin is None:
            continue
        text = (
            f"{row['network']} has {share(row['zeros'])} zeros among its weights. Zeros that stay in the file save "
            f"nothing: {file_size(row['bytes'])} against {file_size(origin['bytes'])} of {origin['network']}, and "
            f"{share(row['macs_share'])} of the multiply-accumulates; compressed {file_size(row['compressed_bytes'])} "
            f"against {file_size(origin['compressed_bytes'])}, which is a download's saving, not a phone's."
        )
        if row["ms"] is not None and origin["ms"] is not None:
            text += f" A picture takes {milliseconds(row['ms'])} ms against {milliseconds(origin['ms'])} ms."
        yield Text(text)


# ---- per cell


def _cell_blocks(experiment: Experiment, cells: pl.DataFrame) -> Iterator[Block]:
    if not len(cells):
        yield Text("No network was compared in any cell of this run.")
        return
    names = in_order(experiment, cells["network"].unique())
    found = {(row["network"], row["cell"]): row for row in cells.iter_rows(named=True)}
    classes = len(experiment.class_names)
    scale = HeatScale(neutral=1 / classes, reach=1 - 1 / classes)
    maps = [_cell_map(experiment, "Class accuracy", names[:1], "class_accuracy", found, scale)]
    if names[1:]:
        changes = _cell_map(experiment, f"Change from {names[0]}", names[1:], "change", found, _CHANGE_SCALE)
        maps.append(changes)
    yield Heats("Per cell", tuple(maps), csv="network_cells")
    yield Text(
        f"First map: no colour is one of {classes} classes at random ({1 / classes:.2f}). Second: the paired change in "
        "points of the same pictures; no colour is no change, orange is lost, blue is gained, full from ten points on.",
        "note",
    )
    yield from reasons_note(row_estimate(row, "class_accuracy") for row in cells.iter_rows(named=True))


def _cell_map(
    experiment: Experiment,
    title: str,
    networks: Sequence[str],
    name: str,
    found: Mapping[tuple[str, str], Row],
    scale: HeatScale,
) -> HeatMap:
    columns = tuple(cell.name for cell in experiment.cells)
    fields = [[found.get((network, cell), {}) for cell in columns] for network in networks]
    values, lows, highs = (
        tuple(tuple(field.get(f"{name}{suffix}") for field in row) for row in fields)
        for suffix in ("", "_low", "_high")
    )
    return HeatMap(title, "network", "cell", tuple(networks), columns, values, lows, highs, scale)


# ---- students and bits


def _distillation_blocks(table: pl.DataFrame) -> Iterator[Block]:
    if not len(table):
        return
    text = (
        "Distillation: each student is trained with its teachers' probabilities beside the labels, and once more, with "
        "the same seed, without a teacher."
    )
    narrow = table.filter(pl.col("of").is_null(), pl.col("pretrained").eq(False))["student"].unique(maintain_order=True)
    if len(narrow):
        text += (
            f" Narrow students ({joined(list(narrow))}) have no pretrained weights here, whether taught or alone: "
            "their numbers are to be read beside the other one of the same seed, not beside networks that began with "
            "ImageNet's."
        )
    yield Text(text)
    yield Items(tuple((str(student), _teaching_words(part)) for (student,), part in _by_student(table)))
    columns = (
        Column("student", "text"), Column("seed"), Column("with a teacher", group="class accuracy"),
        Column("alone", group="class accuracy"), Column("difference, points"),
    )  # fmt: skip
    rows = tuple(
        (
            Cell(
                row["student"],
                sub=f"{'of ' + row['of'] + ', ' if row['of'] else ''}taught by {row['teachers']}",
                tag="no pretrained weights" if row["pretrained"] is False else "",
            ),
            Cell("mean" if row["seed"] is None else str(row["seed"])),
            value_cell(row, "with_teacher"),
            value_cell(row, "alone"),
            points_cell(row, "difference") if row["seed"] is None else Cell(points(row["difference"])),
        )
        for row in table.iter_rows(named=True)
    )
    caption = "With a teacher and without, by training seed"
    yield Table(caption, columns, rows, folded=len(rows) > UNFOLDED_ROWS, csv="distillation")
    yield from reasons_note(row_estimate(row, "with_teacher") for row in table.iter_rows(named=True))


def _by_student(table: pl.DataFrame) -> Iterator[tuple[tuple[Any, ...], pl.DataFrame]]:
    yield from table.group_by("student", maintain_order=True)


def _teaching_words(part: pl.DataFrame) -> str:
    """What a teacher changes in one student: the mean over seeds, its interval over pictures, and the seeds' spread."""
    seeds = [row["difference"] for row in part.iter_rows(named=True) if row["seed"] is not None]
    differences = [value for value in seeds if value is not None]
    if not differences:
        return f"n/a: {part['reason'][0] or 'no pair of one seed was compared'}."
    mean = next((row for row in part.iter_rows(named=True) if row["seed"] is None), None)
    if mean is None or mean["difference"] is None:
        return f"with a teacher {points(differences[0])} points; one pair is a draw, not a finding."
    gains = sum(value > 0 for value in differences)
    low, high = mean["difference_low"], mean["difference_high"]
    text = (
        f"with a teacher {points(mean['difference'])} points {points_interval(low, high)} in the mean of "
        f"{len(differences)} seeds; better in {gains} of them, {points(min(differences))} to "
        f"{points(max(differences))}."
    )
    if low is None or high is None:
        return f"{text} Without an interval this is not judged."
    if low > 0 and gains == len(differences):
        return f"{text} The teacher helps."
    if high < 0 and not gains:
        return f"{text} The teacher harms."
    return f"{text} No effect of the teacher is shown that holds over pictures and seeds."


def _quantized_blocks(stages: Sequence[Row], classes: pl.DataFrame) -> Iterator[Block]:
    quantized = [row for row in stages if row["kind"] == "quantized"]
    if not quantized:
        return
    for row in quantized:
        kept = f"in float stay {row['in_float']}" if row["in_float"] else "no layer stays in float"
        change, low, high = (row[f"change_from_origin{suffix}"] for suffix in ("", "_low", "_high"))
        yield Text(
            f"{row['network']}: {row['of']} with 8 bits for weights and activations, calibrated on train pictures "
            f"only; {kept}. Paired change from {row['of']}: {points(change)} points {points_interval(low, high)}."
        )
    if not len(classes) or classes["accuracy"].is_null().all():
        yield Text("Accuracy by class was not computed in this run, so 8 bits' change in each class is n/a.", "note")
        return
    columns = (
        Column("network", "text"), Column("class", "text"), Column("origin", group="accuracy in the class"),
        Column("8 bits", group="accuracy in the class"), Column("change, points"), Column("pictures"),
    )  # fmt: skip
    shown = tuple(
        (
            Cell(row["network"], sub=f"of {row['of']}"),
            Cell(row["class"]),
            Cell(number(row["of_accuracy"])),
            value_cell(row, "accuracy"),
            points_cell(row),
            Cell(whole(row["n"])),
        )
        for row in classes.iter_rows(named=True)
    )
    caption = "What 8 bits change in each class"
    yield Table(caption, columns, shown, folded=len(shown) > UNFOLDED_ROWS, csv="network_classes")
    yield from reasons_note(row_estimate(row, "accuracy") for row in classes.iter_rows(named=True))
