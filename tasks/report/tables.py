"""What the report is made of, and its tables: pure functions from the long table of results to wide ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from tasks.report.network_tables import NetworkData, network_tables
from tasks.report.reported import ReportedRow
from tasks.spec.experiment import Experiment, Mix
from tasks.spec.sources import GanSource

HEADLINE_DETECTOR = "svm"
HEADLINE_RULE = "val"
MAIN_DETECTORS = ("svm", "svm-aug")
PROBE = "probe"
METRICS = (
    "auroc", "average_precision", "eer", "ece",
    "accuracy", "precision", "recall", "f1", "balanced_accuracy", "threshold",
)  # fmt: skip
THRESHOLD_RULES = ("val", "half", "oracle")
# In which order a row of an ablation stage is taken where it was computed at several thresholds.
_ABLATION_RULES = ("val", "zero", "half", None)

CellKey = tuple[str, str, int | None]  # mix, resolution, JPEG quality


@dataclass(frozen=True, eq=False)
class ReportData:
    """Everything that a report is made of; frames as their producers wrote them.

    Attributes:
        results: `RESULT_SCHEMA`, long.
        flags: row name to sentences, from `arithmetic_flags`.
        ablation_stages: (protocol, title, sentence), in order.
        roc: resolution, jpeg_quality, mix, detector, fpr, tpr; one row per point.
        examples: source, view, png; one strip of pictures per source and view.
        quality: source, resolution, jpeg_quality, metric, value, low, high, n_real, n_fake, note.
        quarantine: source, image_id, reason, detail.
        counts: source, label, split_or_fold, images, groups, left_out, quarantined, duplicates, collapse_rate.
        provenance: nested; keys and values are shown as they are, numbers under `durations` as times in seconds.
        extra_pictures: (title, PNG bytes).
        own_sides: side in pixels of the pictures of generators that are smaller by nature, where known; a GAN's is in
            its spec.
        warnings: what the sources' metadata leave open, one sentence each.
        networks: what is known of the experiment's networks; None where it has none.
    """

    experiment: Experiment
    run_name: str
    created: str
    results: pl.DataFrame
    reported: Sequence[ReportedRow]
    flags: Mapping[str, Sequence[str]]
    ablation_stages: Sequence[tuple[str, str, str]]
    roc: pl.DataFrame
    examples: pl.DataFrame
    quality: pl.DataFrame
    quarantine: pl.DataFrame
    counts: pl.DataFrame
    provenance: Mapping[str, Any]
    extra_pictures: Sequence[tuple[str, bytes]] = ()
    own_sides: Mapping[str, int] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    networks: NetworkData | None = None


@dataclass(frozen=True)
class Estimate:
    """One number of the results with its 95 % interval; value or bounds are None where `reason` says why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""
    n_real: int = 0
    n_fake: int = 0
    n_groups: int = 0

    @property
    def has_interval(self) -> bool:
        return self.low is not None and self.high is not None

    def contains(self, value: float) -> bool | None:
        """Whether the interval contains a value; None where there is no interval."""
        if self.low is None or self.high is None:
            return None
        return self.low <= value <= self.high


class ResultIndex:
    """Look-up of single numbers in the long table, and what it covers."""

    def __init__(self, results: pl.DataFrame) -> None:
        self._estimates: dict[tuple[Any, ...], Estimate] = {}
        # By protocol (cell key, detector), in the table's order: a set's order is another in every process.
        self.keys: dict[str, dict[tuple[CellKey, str], None]] = {}
        for row in results.iter_rows(named=True):
            cell = (row["mix"], row["resolution"], row["jpeg_quality"])
            self.keys.setdefault(row["protocol"], {})[cell, row["detector"]] = None
            key = (row["protocol"], cell, row["detector"], row["threshold_rule"], row["metric"])
            self._estimates[key] = Estimate(
                row["value"],
                row["low"],
                row["high"],
                row["reason"] or "",
                row["n_real"] or 0,
                row["n_fake"] or 0,
                row["n_groups"] or 0,
            )

    def get(self, protocol: str, cell: CellKey, detector: str, metric: str, rule: str | None = None) -> Estimate | None:
        """The number, or None where it was not computed."""
        return self._estimates.get((protocol, cell, detector, rule, metric))

    def cells(self, protocol: str, detector: str | None = None) -> tuple[CellKey, ...]:
        """The cells of a protocol, of one detector or of all, each once and in the table's order."""
        return tuple(dict.fromkeys(cell for cell, name in self.keys.get(protocol, ()) if detector in (None, name)))

    def detectors(self, protocol: str) -> tuple[str, ...]:
        """The detectors of a protocol, each once and in the table's order."""
        return tuple(dict.fromkeys(name for _, name in self.keys.get(protocol, ())))


def seed_key(row: ReportedRow) -> CellKey:
    """The mix (as the seed protocol names it), resolution and quality that a reported row is about."""
    return ("stable" if row.mix == "stable-diffusion" else row.mix, row.resolution, row.jpeg_quality)


def cell_name(resolution: str, quality: int | None) -> str:
    """For example `64/q20` or `native/none`."""
    return f"{resolution}/{quality_name(quality)}"


def quality_name(quality: int | None) -> str:
    return "none" if quality is None else f"q{quality}"


def fair_mix(experiment: Experiment, role: str) -> Mix | None:
    """The mix of the experiment that sets the same sources against each other as a mix of the seed protocol."""
    roles = experiment.seed_protocol
    if roles is None:
        return None
    fakes = {"gan": {roles.gan}, "stable": {roles.stable}, "combined": {roles.gan, roles.stable}}[role]
    same = [mix for mix in experiment.all_mixes if set(mix.fakes) == fakes]
    return next((mix for mix in same if mix.real == (roles.real,)), same[0] if same else None)


def is_enlarged(data: ReportData, mix: Mix, resolution: str) -> bool:
    """Whether the mix holds pictures that are smaller by nature than the resolution at which they are shown.

    Where such a source's own size is not known it counts as enlarged at every resolution.
    """
    side = data.experiment.canonical_side if resolution == "native" else int(resolution)
    sources = {source.name: source for source in data.experiment.evaluated_sources}
    for name in mix.fakes:
        source = sources[name]
        if not getattr(source, "smaller_by_nature", False):
            continue
        own = data.own_sides.get(name, source.gan.side if isinstance(source, GanSource) else 0)
        if own < side:
            return True
    return False


def sorted_cells(experiment: Experiment, cells: Iterable[CellKey]) -> list[CellKey]:
    """Cells in the experiment's order of mixes, resolutions and qualities; others after them by name."""
    mixes = [mix.name for mix in experiment.all_mixes]
    resolutions = [str(resolution) for resolution in experiment.resolutions]
    qualities = list(experiment.qualities)

    def place(cell: CellKey) -> tuple[Any, ...]:
        mix, resolution, quality = cell
        return (
            *_position(mixes, mix),
            *_position(resolutions, resolution),
            *_position(qualities, quality),
            -(quality or 0),
        )

    return sorted(cells, key=place)


def _position(known: Sequence[Any], value: Any) -> tuple[int, str]:
    return (known.index(value), "") if value in known else (len(known), str(value))


def report_tables(data: ReportData) -> dict[str, pl.DataFrame]:
    """All tables of the report, flat enough for CSV; one that has no rows keeps its columns."""
    index = ResultIndex(data.results)
    tables = {
        "first_project": first_project_table(data, index),
        "ablation": ablation_table(data, index),
        "ranking": ranking_table(data, index),
        "grid": grid_table(data, index),
        "cross": cross_table(data, index),
        "probe": probe_table(data, index),
        "seeds": seeds_table(data, index),
        "quality": _quality(data),
        "counts": data.counts.sort("source", "split_or_fold", nulls_last=True) if len(data.counts) else data.counts,
        "quarantine": data.quarantine.sort("source", "image_id") if len(data.quarantine) else data.quarantine,
    }
    return tables if data.networks is None else tables | network_tables(data.experiment, data.networks)


_SEED_METRICS = ("accuracy", "precision", "recall", "f1", "auroc")


def first_project_table(data: ReportData, index: ResultIndex) -> pl.DataFrame:
    """One row per reported row: as reported, under the seed protocol, fair; with its flags."""
    schema: dict[str, Any] = {
        "row": pl.String, "cell": pl.String, "mix": pl.String, "resolution": pl.String, "jpeg_quality": pl.Int16,
        **{f"reported_{name}": pl.Float64 for name in _SEED_METRICS[:4]},
        **{f"seed_{name}": pl.Float64 for name in _SEED_METRICS},
        "fair_mix": pl.String,
        **_estimate_columns("fair_accuracy"), **_estimate_columns("fair_auroc"),
        "fair_n_real": pl.Int64, "fair_n_fake": pl.Int64, "enlarged": pl.Boolean, "flags": pl.String,
    }  # fmt: skip
    rows = []
    for reported in data.reported:
        key = seed_key(reported)
        mix = fair_mix(data.experiment, key[0])
        accuracy = auroc = None
        if mix is not None:
            cell = (mix.name, key[1], key[2])
            accuracy = index.get("fair", cell, HEADLINE_DETECTOR, "accuracy", HEADLINE_RULE)
            auroc = index.get("fair", cell, HEADLINE_DETECTOR, "auroc")
        seed = {name: seed_estimate(index, key, name) for name in _SEED_METRICS}
        rows.append(
            {
                "row": reported.name,
                "cell": cell_name(key[1], key[2]),
                "mix": key[0],
                "resolution": key[1],
                "jpeg_quality": key[2],
                **{f"reported_{name}": getattr(reported, name) for name in _SEED_METRICS[:4]},
                **{f"seed_{name}": estimate.value if estimate else None for name, estimate in seed.items()},
                "fair_mix": mix.name if mix else None,
                **_estimate_values("fair_accuracy", accuracy),
                **_estimate_values("fair_auroc", auroc),
                "fair_n_real": auroc.n_real if auroc else None,
                "fair_n_fake": auroc.n_fake if auroc else None,
                "enlarged": is_enlarged(data, mix, key[1]) if mix else None,
                "flags": "; ".join(data.flags.get(reported.name, ())),
            }
        )
    return pl.DataFrame(rows, schema=schema)


def seed_estimate(index: ResultIndex, key: CellKey, metric: str) -> Estimate | None:
    """A number of the seed protocol (positive class: real)."""
    return index.get("seed", key, HEADLINE_DETECTOR, metric, None if metric == "auroc" else "zero")


def ablation_table(data: ReportData, index: ResultIndex) -> pl.DataFrame:
    """One row per stage and cell: accuracy and AUROC, which do not depend on the class that is called positive."""
    schema: dict[str, Any] = {
        "stage": pl.Int64, "protocol": pl.String, "title": pl.String, "mix": pl.String, "cell": pl.String,
        "resolution": pl.String, "jpeg_quality": pl.Int16, "threshold_rule": pl.String,
        **_estimate_columns("accuracy"), **_estimate_columns("auroc"),
    }  # fmt: skip
    rows = []
    for stage, (protocol, title, _) in enumerate(data.ablation_stages):
        for cell in seed_cells(data, index.cells(protocol, HEADLINE_DETECTOR)):
            found = [(rule, index.get(protocol, cell, HEADLINE_DETECTOR, "accuracy", rule)) for rule in _ABLATION_RULES]
            rule, accuracy = next(((rule, one) for rule, one in found if one is not None), (None, None))
            rows.append(
                {
                    "stage": stage,
                    "protocol": protocol,
                    "title": title,
                    "mix": cell[0],
                    "cell": cell_name(*cell[1:]),
                    "resolution": cell[1],
                    "jpeg_quality": cell[2],
                    "threshold_rule": rule,
                    **_estimate_values("accuracy", accuracy),
                    **_estimate_values("auroc", index.get(protocol, cell, HEADLINE_DETECTOR, "auroc")),
                }
            )
    return pl.DataFrame(rows, schema=schema)


def seed_cells(data: ReportData, cells: Iterable[CellKey]) -> list[CellKey]:
    """Cells of the seed protocol in the order of the first project's table, then any others."""
    order = list(dict.fromkeys(seed_key(row) for row in data.reported))
    found = set(cells)
    return [cell for cell in order if cell in found] + sorted_cells(data.experiment, found.difference(order))


def ranking_table(data: ReportData, index: ResultIndex) -> pl.DataFrame:
    """Mixes of one generator, uncompressed, at every resolution: the hardest to tell first."""
    schema: dict[str, Any] = {
        "resolution": pl.String, "rank": pl.Int64, "generator": pl.String, "mix": pl.String, "real": pl.String,
        **_estimate_columns("auroc"), **_estimate_columns("balanced_accuracy"),
        "n_real": pl.Int64, "n_fake": pl.Int64, "n_groups": pl.Int64, "enlarged": pl.Boolean, "reason": pl.String,
    }  # fmt: skip
    rows: list[dict[str, Any]] = []
    for resolution in (str(one) for one in data.experiment.resolutions):
        found = []
        for mix in data.experiment.all_mixes:
            cell = (mix.name, resolution, None)
            auroc = index.get("fair", cell, HEADLINE_DETECTOR, "auroc")
            if len(mix.fakes) == 1 and auroc is not None and auroc.value is not None:
                found.append((auroc.value, mix, auroc))
        for rank, (_, mix, auroc) in enumerate(sorted(found, key=lambda one: (one[0], one[1].name)), start=1):
            cell = (mix.name, resolution, None)
            balanced = index.get("fair", cell, HEADLINE_DETECTOR, "balanced_accuracy", HEADLINE_RULE)
            rows.append(
                {
                    "resolution": resolution,
                    "rank": rank,
                    "generator": mix.fakes[0],
                    "mix": mix.name,
                    "real": " + ".join(mix.real),
                    **_estimate_values("auroc", auroc),
                    **_estimate_values("balanced_accuracy", balanced),
                    "n_real": auroc.n_real,
                    "n_fake": auroc.n_fake,
                    "n_groups": auroc.n_groups,
                    "enlarged": is_enlarged(data, mix, resolution),
                    "reason": auroc.reason,
                }
            )
    return pl.DataFrame(rows, schema=schema)


def grid_table(data: ReportData, index: ResultIndex) -> pl.DataFrame:
    """The fair grid, wide: one row per mix, detector and cell; `metric@rule` where a threshold is needed."""
    names = [
        (metric, None if metric in ("auroc", "average_precision", "eer", "ece") else rule)
        for metric in METRICS
        for rule in (THRESHOLD_RULES if metric not in ("auroc", "average_precision", "eer", "ece") else (None,))
    ]
    columns = {(metric, rule): metric if rule is None else f"{metric}@{rule}" for metric, rule in names}
    schema: dict[str, Any] = {
        "mix": pl.String, "detector": pl.String, "cell": pl.String, "resolution": pl.String, "jpeg_quality": pl.Int16,
        "n_real": pl.Int64, "n_fake": pl.Int64, "n_groups": pl.Int64, "enlarged": pl.Boolean, "reason": pl.String,
    }  # fmt: skip
    for column in columns.values():
        schema |= _estimate_columns(column)
    mixes = {mix.name: mix for mix in data.experiment.all_mixes}
    rows = []
    for detector in (*MAIN_DETECTORS, PROBE):
        for cell in sorted_cells(data.experiment, index.cells("fair", detector)):
            estimates = {
                column: index.get("fair", cell, detector, metric, rule) for (metric, rule), column in columns.items()
            }
            some = next((one for one in estimates.values() if one is not None), Estimate(None))
            row: dict[str, Any] = {
                "mix": cell[0],
                "detector": detector,
                "cell": cell_name(*cell[1:]),
                "resolution": cell[1],
                "jpeg_quality": cell[2],
                "n_real": some.n_real,
                "n_fake": some.n_fake,
                "n_groups": some.n_groups,
                "enlarged": is_enlarged(data, mixes[cell[0]], cell[1]) if cell[0] in mixes else None,
                "reason": "; ".join(dict.fromkeys(one.reason for one in estimates.values() if one and one.reason)),
            }
            for column, estimate in estimates.items():
                row |= _estimate_values(column, estimate)
            rows.append(row)
    return pl.DataFrame(rows, schema=schema)


def cross_table(data: ReportData, index: ResultIndex) -> pl.DataFrame:
    """Fitted on one generator, tested on another: AUROC at every resolution, uncompressed."""
    schema: dict[str, Any] = {
        "resolution": pl.String, "fitted_on": pl.String, "tested_on": pl.String, "mix": pl.String,
        **_estimate_columns("auroc"), "reason": pl.String,
    }  # fmt: skip
    mixes = {mix.name: mix for mix in data.experiment.all_mixes}
    sources = list(data.experiment.fake_names)
    prefix = f"{HEADLINE_DETECTOR}@"
    fitted = {name for name in index.detectors("fair") if name.startswith(prefix)}
    rows = []
    for resolution in (str(one) for one in data.experiment.resolutions):
        for detector in sorted(fitted, key=lambda name: _position(sources, name.removeprefix(prefix))):
            for mix_name, mix in mixes.items():
                auroc = index.get("fair", (mix_name, resolution, None), detector, "auroc")
                if auroc is None or len(mix.fakes) != 1:
                    continue
                rows.append(
                    {
                        "resolution": resolution,
                        "fitted_on": detector.removeprefix(prefix),
                        "tested_on": mix.fakes[0],
                        "mix": mix_name,
                        **_estimate_values("auroc", auroc),
                        "reason": auroc.reason,
                    }
                )
    return pl.DataFrame(rows, schema=schema)


def probe_table(data: ReportData, index: ResultIndex) -> pl.DataFrame:
    """The probe's AUROC in every fair cell; `contains_half` is null where there is no interval."""
    schema: dict[str, Any] = {
        "mix": pl.String, "cell": pl.String, "resolution": pl.String, "jpeg_quality": pl.Int16,
        **_estimate_columns("auroc"), "contains_half": pl.Boolean, "reason": pl.String,
    }  # fmt: skip
    rows = []
    for cell in sorted_cells(data.experiment, index.cells("fair", PROBE)):
        auroc = index.get("fair", cell, PROBE, "auroc")
        if auroc is not None:
            rows.append(
                {
                    "mix": cell[0],
                    "cell": cell_name(*cell[1:]),
                    "resolution": cell[1],
                    "jpeg_quality": cell[2],
                    **_estimate_values("auroc", auroc),
                    "contains_half": auroc.contains(0.5),
                    "reason": auroc.reason,
                }
            )
    return pl.DataFrame(rows, schema=schema)


def seeds_table(data: ReportData, index: ResultIndex) -> pl.DataFrame:
    """AUROC of heads of several training seeds, uncompressed: one row per mix, resolution and seed, with the spread."""
    schema: dict[str, Any] = {
        "mix": pl.String, "resolution": pl.String, "training_seed": pl.Int64,
        "auroc": pl.Float64, "smallest": pl.Float64, "largest": pl.Float64, "spread": pl.Float64,
    }  # fmt: skip
    prefix = f"{HEADLINE_DETECTOR}#"
    others = {name.removeprefix(prefix) for name in index.detectors("fair") if name.startswith(prefix)}
    detectors = {0: HEADLINE_DETECTOR} | {int(seed): f"{prefix}{seed}" for seed in sorted(others, key=int)}
    cells = {cell for name in list(detectors.values())[1:] for cell in index.cells("fair", name)}
    rows = []
    for cell in sorted_cells(data.experiment, cells):
        values = {}
        for seed, detector in detectors.items():
            auroc = index.get("fair", cell, detector, "auroc")
            if auroc is not None and auroc.value is not None:
                values[seed] = auroc.value
        for seed, value in values.items():
            low, high = min(values.values()), max(values.values())
            rows.append(
                {
                    "mix": cell[0],
                    "resolution": cell[1],
                    "training_seed": seed,
                    "auroc": value,
                    "smallest": low,
                    "largest": high,
                    "spread": high - low,
                }
            )
    return pl.DataFrame(rows, schema=schema)


def _quality(data: ReportData) -> pl.DataFrame:
    if not len(data.quality):
        return data.quality
    order = {str(resolution): place for place, resolution in enumerate(data.experiment.resolutions)}
    place = pl.col("resolution").replace_strict(order, default=len(order), return_dtype=pl.Int64)
    # Qualities fall from left to right, uncompressed first.
    keys = ["source", "metric", place, pl.col("jpeg_quality").fill_null(101).neg()]
    return data.quality.sort(keys, maintain_order=True)


def _estimate_columns(name: str) -> dict[str, Any]:
    return {name: pl.Float64, f"{name}_low": pl.Float64, f"{name}_high": pl.Float64}


def _estimate_values(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    if estimate is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
