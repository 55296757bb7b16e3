"""What the report is made of: results to look numbers up in, cells in their order, and numbers with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import polars as pl

from storage.tables import FIT_COLUMNS, PAIR_SCHEMA, RANK_SCHEMA
from tasks.data.perturbations.jpeg import Jpeg, jpeg
from tasks.data.perturbations.kinds import name_of
from tasks.evaluation.protocols import detectors_of
from tasks.report.reported import ReportedRow
from tasks.report.reported_networks import ReportedNetwork
from tasks.spec.detectors import Fit, Role
from tasks.spec.experiment import Experiment, Mix

HEADLINE_RULE = "val"
# Of a detector's own numbers, those of the grid: other protocols explain them.
FAIR = "fair"


class CellKey(NamedTuple):
    """One mix in one cell, as results name them: `native` and `q20`, or `none`."""

    mix: str
    resolution: str
    perturbation: str

    @property
    def cell(self) -> str:
        """For example `64/q20` or `native/none`."""
        return f"{self.resolution}/{self.perturbation}"

    @property
    def row(self) -> dict[str, str]:
        """The columns of a table that say which cell a row is of."""
        return {"cell": self.cell, "resolution": self.resolution, "perturbation": self.perturbation}


# The columns of `CellKey.row`.
CELL_COLUMNS: dict[str, Any] = dict.fromkeys(("cell", "resolution", "perturbation"), pl.String)


# One row per bin that holds pictures: `p_fake` is their mean p(fake), `fakes` the share of fakes among them.
RELIABILITY: dict[str, Any] = {
    "detector": pl.String, "resolution": pl.String, "perturbation": pl.String, "mix": pl.String,
    "bin": pl.Int64, "pictures": pl.Int64, "p_fake": pl.Float64, "fakes": pl.Float64,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class NetworkData:
    """What a run knows of its networks; frames as their producers wrote them.

    Attributes:
        comparison: `COMPARISON_SCHEMA`, all cells, with the metrics of `comparison.py`.
        networks: `NETWORK_SCHEMA`.
        latency: `LATENCY_SCHEMA`.
        rejection, confusion, differences: `REJECTION_SCHEMA`, `CONFUSION_SCHEMA` and `DIFFERENCE_SCHEMA`. A scenario is
            named by its kind and its source, such as `leave-one-out gan`.
        reported: the second project's rows as printed.
    """

    comparison: pl.DataFrame
    networks: pl.DataFrame
    latency: pl.DataFrame
    rejection: pl.DataFrame
    confusion: pl.DataFrame
    differences: pl.DataFrame
    reported: Sequence[ReportedNetwork] = ()


@dataclass(frozen=True, eq=False)
class ReportData:
    """Everything that a report is made of; frames as their producers wrote them.

    Attributes:
        results: `RESULT_SCHEMA`, long.
        flags: row name to sentences, from `arithmetic_flags`.
        ablation_stages: (protocol, title, sentence), in order.
        roc: `ROC_SCHEMA`; one row per point.
        examples: source, view, png; one strip of pictures per source and view.
        quality: `QUALITY_SCHEMA`, of uncompressed cells.
        quarantine: source, image_id, reason, detail.
        counts: source, label, split_or_fold, images, groups, left_out, quarantined, duplicates, collapse_rate, files,
            no_jpegs, own_tables, own_tables_quality.
        provenance: nested; keys and values are shown as they are, numbers under `durations` as times in seconds.
        extra_pictures: (title, PNG bytes).
        warnings: what the sources' metadata leave open, one sentence each.
        networks: what is known of the experiment's networks; None where it has none.
        pairs, ranks: `PAIR_SCHEMA` and `RANK_SCHEMA`, of all cells.
        reliability: `RELIABILITY`, of the main mix in all cells: pictures by their p(fake), in bins.
        explorer: whether the explorer of the run's pictures lies beside the report, as `explorer/index.html`.
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
    warnings: Sequence[str] = ()
    networks: NetworkData | None = None
    pairs: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(PAIR_SCHEMA.empty_table()))
    ranks: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(RANK_SCHEMA.empty_table()))
    reliability: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=RELIABILITY))
    explorer: bool = True


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


@dataclass(frozen=True)
class Evaluated:
    """A detector of the report. `title` says what it is; one that the experiment does not know has only its name."""

    name: str
    title: str = ""
    role: Role = "detector"

    @property
    def fit(self) -> Fit:
        """The detector itself: fitted on all generators, with the first training seed."""
        return Fit(detector=self.name, role=self.role)

    @property
    def label(self) -> str:
        """For example `svm: SVM, fitted on uncompressed pictures`."""
        return f"{self.name}: {self.title}" if self.title else self.name


class ResultIndex:
    """Look-up of single numbers in the long table, and what it covers.

    Attributes:
        headline: the experiment's first detector that is no probe, of which sentences and rankings speak.
        detectors: those with fair results, the experiment's in its order, others after them by name; no probes.
        probes: the same of probes.
    """

    def __init__(self, experiment: Experiment, results: pl.DataFrame) -> None:
        self._estimates: dict[tuple[Any, ...], Estimate] = {}
        # By protocol (cell key, fit), in the table's order: a set's order is another in every process.
        self.keys: dict[str, dict[tuple[CellKey, Fit], None]] = {}
        fits: dict[tuple[Any, ...], Fit] = {}
        for row in results.iter_rows(named=True):
            columns = tuple(row[name] for name, _ in FIT_COLUMNS)
            if columns not in fits:
                fits[columns] = Fit.model_validate({name: row[name] for name, _ in FIT_COLUMNS})
            fit = fits[columns]
            cell = CellKey(row["mix"], row["resolution"], row["perturbation"])
            self.keys.setdefault(row["protocol"], {})[cell, fit] = None
            self._estimates[row["protocol"], cell, fit, row["threshold_rule"], row["metric"]] = Estimate(
                row["value"],
                row["low"],
                row["high"],
                row["reason"] or "",
                row["n_real"] or 0,
                row["n_fake"] or 0,
                row["n_groups"] or 0,
            )
        known = [Evaluated(one.name, one.title, one.role) for one in detectors_of(experiment)]
        self.headline = next(one for one in known if one.role == "detector")
        evaluated = list(_evaluated(known, self.fits(FAIR)))
        self.detectors = tuple(one for one in evaluated if one.role == "detector")
        self.probes = tuple(one for one in evaluated if one.role == "probe")
        self._colours = {one.name: number for number, one in enumerate((*self.detectors, *self.probes))}

    def colour(self, detector: str) -> int:
        """The number of a detector's colour, the same in all plots."""
        return self._colours.get(detector, 0)

    def get(self, protocol: str, cell: CellKey, fit: Fit, metric: str, rule: str | None = None) -> Estimate | None:
        """The number, or None where it was not computed."""
        return self._estimates.get((protocol, cell, fit, rule, metric))

    def cells(self, protocol: str, fit: Fit | None = None) -> tuple[CellKey, ...]:
        """The cells of a protocol, of one fit or of all, each once and in the table's order."""
        return tuple(dict.fromkeys(cell for cell, one in self.keys.get(protocol, ()) if fit in (None, one)))

    def fits(self, protocol: str) -> tuple[Fit, ...]:
        """The fits of a protocol, each once and in the table's order."""
        return tuple(dict.fromkeys(fit for _, fit in self.keys.get(protocol, ())))


def _evaluated(known: Sequence[Evaluated], fits: Iterable[Fit]) -> Iterator[Evaluated]:
    """Detectors that were evaluated themselves: known ones in their order, others by name."""
    whole = {fit for fit in fits if fit.is_whole}
    yield from (one for one in known if one.fit in whole)
    others = whole.difference(one.fit for one in known)
    yield from (Evaluated(fit.detector, role=fit.role) for fit in sorted(others, key=lambda fit: fit.label))


def seed_key(row: ReportedRow) -> CellKey:
    """The mix (as the seed protocol names it), resolution and JPEG quality that a reported row is about."""
    mix = "stable" if row.mix == "stable-diffusion" else row.mix
    return CellKey(mix, row.resolution, name_of(jpeg(row.jpeg_quality)))


def perturbations(experiment: Experiment) -> tuple[str, ...]:
    """The names of what happens to pictures in the experiment's cells, in its order."""
    return tuple(dict.fromkeys(cell.perturbation_name for cell in experiment.cells))


def perturbation_word(experiment: Experiment) -> str:
    """What these are: `JPEG quality` where nothing else happens, else `perturbation`."""
    others = [cell for cell in experiment.cells if not isinstance(cell.perturbation, Jpeg | None)]
    return "perturbation" if others else "JPEG quality"


def is_enlarged(data: ReportData, mix: Mix, resolution: str) -> bool:
    """Whether the mix holds pictures that are smaller by nature than the resolution at which they are shown.

    Where such a source's own size is not known it counts as enlarged at every resolution.
    """
    side = data.experiment.canonical_side if resolution == "native" else int(resolution)
    sources = {source.name: source for source in data.experiment.evaluated_sources}
    for name in mix.fakes:
        source = sources[name]
        if source.may_be_enlarged and (source.own_side or 0) < side:
            return True
    return False


def mistakes_link(data: ReportData, cell: CellKey, detector: str, than: str = "") -> str:
    """Where the explorer shows what a detector got wrong in a cell; empty where the run has no explorer.

    With `than`, another detector or another cell, it shows what one of both got right and the other wrong.
    """
    if not data.explorer:
        return ""
    asked = {"cell": cell.cell, "detector": detector, "mix": cell.mix}
    asked |= {"than": than} if than else {"error": "mistake", "sort": "-p"}
    return f"explorer/index.html?{urlencode(asked, quote_via=quote, safe='/')}"


def row_cell(row: Mapping[str, Any]) -> CellKey:
    """The mix and cell of a row of a table."""
    return CellKey(row["mix"], row["resolution"], row["perturbation"])


def main_mix(experiment: Experiment) -> Mix:
    """The mix of the most generators, the first of several: what is shown of one mix only is of this one."""
    return max(experiment.all_mixes, key=lambda mix: len(mix.fakes))


def sorted_cells(experiment: Experiment, cells: Iterable[CellKey]) -> list[CellKey]:
    """Cells in the experiment's order of mixes, resolutions and perturbations; others after them by name."""
    mixes = [mix.name for mix in experiment.all_mixes]
    resolutions = [str(resolution) for resolution in experiment.resolutions]
    happened = perturbations(experiment)

    def place(cell: CellKey) -> tuple[Any, ...]:
        return (
            *position(mixes, cell.mix),
            *position(resolutions, cell.resolution),
            *position(happened, cell.perturbation),
        )

    return sorted(cells, key=place)


def position(known: Sequence[Any], value: Any) -> tuple[int, str]:
    """Where a value stands among known ones; others after them by name."""
    return (known.index(value), "") if value in known else (len(known), str(value))


def estimate_columns(name: str) -> dict[str, Any]:
    """The columns of a number with its interval."""
    return {name: pl.Float64, f"{name}_low": pl.Float64, f"{name}_high": pl.Float64}


def estimate_values(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    """A number with its interval as a row has it; nulls for none."""
    if estimate is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
