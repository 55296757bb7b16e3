"""What the report is made of: results to look numbers up in, cells in their order, and numbers with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from tasks.report.network_tables import NetworkData
from tasks.report.reported import ReportedRow
from tasks.spec.experiment import Experiment, Mix
from tasks.spec.sources import GanSource

HEADLINE_DETECTOR = "svm"
HEADLINE_RULE = "val"
MAIN_DETECTORS = ("svm", "svm-aug")
PROBE = "probe"
DETECTOR_TITLES = {
    "svm": "SVM, fitted on uncompressed pictures",
    "svm-aug": "SVM, fitted over all qualities",
    PROBE: "sees no picture content",
}

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
            *position(mixes, mix),
            *position(resolutions, resolution),
            *position(qualities, quality),
            -(quality or 0),
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
