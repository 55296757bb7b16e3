"""Where the numbers come from: settings, weights, versions, times."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tasks.evaluation.protocols import detectors_of
from tasks.report.blocks import Block, Cell, Column, Table, plain_value
from tasks.report.data import ReportData, perturbations


def provenance_blocks(data: ReportData) -> tuple[Block, ...]:
    """Settings, then what the run noted of itself."""
    experiment = data.experiment
    settings = {
        "experiment": experiment.name,
        "seed": experiment.seed,
        "extractor": f"{experiment.extractor.name}, weights {experiment.extractor.weights}",
        "canonical side": f"{experiment.canonical_side} pixels",
        "resolutions": ", ".join(str(one) for one in experiment.resolutions),
        "perturbations": ", ".join(perturbations(experiment)),
        "splits": ", ".join(f"{key} {value}" for key, value in experiment.splits.model_dump().items() if value),
        **{f"perturbation {one.name}": one.title for one in experiment.perturbations},
        **{f"detector {one.name}": one.title for one in detectors_of(experiment)},
        "bootstrap resamples": experiment.bootstrap_resamples,
    }
    groups: dict[str, Any] = {"settings": settings, **data.provenance}
    single = {key: value for key, value in groups.items() if not isinstance(value, Mapping)}
    nested = {key: value for key, value in groups.items() if isinstance(value, Mapping) and value}
    if single:
        nested = {"settings": nested.pop("settings"), "run": single} | nested
    columns = (Column("what", "text"), Column("value", "code"))
    return tuple(
        Table(
            key,
            columns,
            tuple((Cell(name), Cell(text)) for name, text in _flattened(value, as_time=key == "durations")),
            folded=len(value) > 16,
        )
        for key, value in nested.items()
    )


def _flattened(value: Mapping[Any, Any], prefix: str = "", as_time: bool = False) -> Iterator[tuple[str, str]]:
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, Mapping):
            yield from _flattened(item, f"{name} / ", as_time)
        elif isinstance(item, list | tuple):
            yield name, ", ".join(str(one) for one in item)
        elif as_time and isinstance(item, int | float):
            yield name, _duration(float(item))
        else:
            yield name, plain_value(item)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
