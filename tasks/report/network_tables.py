"""The report's tables of networks: stages of compression, cells, students, rejection, the second project's rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from tasks.data.perturbations.kinds import NONE
from tasks.evaluation.comparison import CLASS_ACCURACY, FROM_ORIGIN, OVER_SEEDS
from tasks.evaluation.protocols import training_view
from tasks.evaluation.rejection_metrics import DIFFERENCE_METRICS, REJECTION_METRICS, SEPARATION_METRICS
from tasks.networks.variants import rejection_scenarios, variants
from tasks.report.data import CELL_COLUMNS, Estimate, NetworkData, estimate_columns, estimate_values
from tasks.report.reported_networks import ReportedNetwork
from tasks.spec.detectors import Distilled, FineTuned, Quantized
from tasks.spec.experiment import Experiment

# The square picture, in pixels, whose time is shown.
LATENCY_SIDE = 512
ONNX_RUNTIME, EAGER = "onnxruntime", "torch"
# A network loses at most a point where its change is no lower than the first, and the interval's end than the second.
POINT_LOST, INTERVAL_LOST = -0.01, -0.03
REFERENCE_SCORE = "max-probability"
OTHER_SCENARIO = "other"

# Floats that differ by less are equal: 0.99 - 1.0 is no loss of more than a point.
_TOLERANCE = 1e-9
_PRINTED = (
    "epochs", "batch_size", "layers_unlocked", "loss", "training_accuracy", "validation_loss", "validation_accuracy",
)  # fmt: skip

Row = dict[str, Any]


def network_tables(experiment: Experiment, data: NetworkData) -> dict[str, pl.DataFrame]:
    """All tables of networks, flat enough for CSV; one that has no rows keeps its columns."""
    data = _without_nan(data)
    compared = _Compared(data.comparison)
    stages = stages_table(experiment, data, compared)
    return {
        "stages": stages,
        "network_cells": cells_table(experiment, data),
        "network_classes": classes_table(experiment, data, compared),
        "distillation": distillation_table(experiment, data, compared),
        "rejection": rejection_table(experiment, data),
        "confusion": confusion_table(experiment, data),
        "second_project": second_project_table(experiment, data, stages),
    }


def _without_nan(data: NetworkData) -> NetworkData:
    """What is not a number is missing: a network that was not trained has no loss."""
    return replace(
        data,
        comparison=data.comparison.fill_nan(None),
        networks=data.networks.fill_nan(None),
        latency=data.latency.fill_nan(None),
        rejection=data.rejection.fill_nan(None),
        differences=data.differences.fill_nan(None),
    )


def headline_resolution(experiment: Experiment) -> str:
    """The resolution at which networks are compared first, uncompressed: that at which they were trained."""
    return str(training_view(experiment).resolution)


def in_order(experiment: Experiment, names: Iterable[str]) -> list[str]:
    """Names of networks in the experiment's order, students without a teacher after their kin; others by name."""
    order = list(dict.fromkeys(one.base for one in variants(experiment)))
    found = set(names)
    return [name for name in order if name in found] + sorted(found.difference(order))


class _Compared:
    """Look-up of single rows of the comparison."""

    def __init__(self, comparison: pl.DataFrame) -> None:
        self.rows: dict[tuple[Any, ...], Row] = {
            (row["network"], row["seed"], row["resolution"], row["perturbation"], row["metric"]): row
            for row in comparison.iter_rows(named=True)
        }

    def get(self, network: str, seed: int | None, resolution: str, metric: str) -> Row:
        """The uncompressed cell's row; all None, with the reason, where it was not computed."""
        empty = dict.fromkeys(("value", "low", "high", "change", "change_low", "change_high", "n", "n_groups"))
        found = self.rows.get((network, seed, resolution, NONE, metric))
        return found or {**empty, "reason": f"{metric} was not computed at {resolution}/{NONE}"}


def stages_table(experiment: Experiment, data: NetworkData, compared: _Compared) -> pl.DataFrame:
    """One row per network: what it weighs, how long it takes, what it knows, and its paired change from the first.

    Changes are differences of shares (-0.01 is a point lost); `change_from_origin` is that of quantized networks from
    `of`. `loses_at_most_a_point` is null for the first network, and where there is no interval. `faster` is how many
    times faster a network is than the first one in ONNX Runtime, `faster_than_eager` than the first one in eager torch.
    """
    schema: dict[str, Any] = {
        "network": pl.String, "kind": pl.String, "of": pl.String, "teachers": pl.String, "pretrained": pl.Boolean,
        **dict.fromkeys(
            ("parameters", "macs", "macs_share", "bytes", "bytes_share", "compressed_bytes", "zeros"), pl.Float64
        ),
        "in_float": pl.String,
        **dict.fromkeys(("ms", "ms_low", "ms_high", "faster", "faster_than_eager"), pl.Float64),
        "latency_reason": pl.String,
        **estimate_columns("class_accuracy"), **estimate_columns("change"),
        **estimate_columns("change_from_origin"), **estimate_columns("balanced_accuracy"),
        "loses_at_most_a_point": pl.Boolean, "reason": pl.String, "n": pl.Int64, "n_groups": pl.Int64,
    }  # fmt: skip
    described = {row["network"]: row for row in data.networks.iter_rows(named=True) if row["seed"] == 0}
    names = in_order(experiment, described)
    first = described[names[0]] if names else {}
    times = {(row["network"], row["runtime"], row["side"]): row for row in data.latency.iter_rows(named=True)}
    resolution = headline_resolution(experiment)
    rows = []
    for place, name in enumerate(names):
        row = described[name]
        accuracy = compared.get(name, 0, resolution, CLASS_ACCURACY)
        balanced = compared.get(name, 0, resolution, "balanced_accuracy")
        change = estimate_values("change", _change(accuracy) if place else None)
        rows.append(
            {key: row[key] for key in ("network", "kind", "of", "teachers", "pretrained", "zeros", "in_float")}
            | {key: row[key] for key in ("parameters", "macs", "bytes", "compressed_bytes")}
            | {"macs_share": _ratio(row["macs"], first["macs"]), "bytes_share": _ratio(row["bytes"], first["bytes"])}
            | _latency(name, names[0], times)
            | estimate_values("class_accuracy", _own(accuracy))
            | change
            | estimate_values("change_from_origin", _change(compared.get(name, 0, resolution, FROM_ORIGIN)))
            | estimate_values("balanced_accuracy", _own(balanced))
            | {
                "loses_at_most_a_point": loses_at_most_a_point(change["change"], change["change_low"]),
                "reason": _reasons(accuracy["reason"], balanced["reason"]),
                "n": accuracy["n"],
                "n_groups": accuracy["n_groups"],
            }
        )
    return pl.DataFrame(rows, schema=schema)


def loses_at_most_a_point(change: float | None, change_low: float | None) -> bool | None:
    """Whether at most one point is lost, and by the 95 % interval fewer than three; None where either is missing."""
    if change is None or change_low is None:
        return None
    return change >= POINT_LOST - _TOLERANCE and change_low > INTERVAL_LOST


def _latency(name: str, first: str, times: Mapping[tuple[str, str, int], Row]) -> Row:
    own = times.get((name, ONNX_RUNTIME, LATENCY_SIDE))
    if own is None:
        reason = f"no time was measured in ONNX Runtime at {LATENCY_SIDE} pixels"
        return {**dict.fromkeys(("ms", "ms_low", "ms_high", "faster", "faster_than_eager")), "latency_reason": reason}
    dense = times.get((first, ONNX_RUNTIME, LATENCY_SIDE))
    eager = times.get((first, EAGER, LATENCY_SIDE))
    return {
        "ms": own["median_ms"],
        "ms_low": own["low_ms"],
        "ms_high": own["high_ms"],
        "faster": _ratio(dense["median_ms"], own["median_ms"]) if dense else None,
        "faster_than_eager": _ratio(eager["median_ms"], own["median_ms"]) if eager else None,
        "latency_reason": None if eager else f"{first} was not timed in eager torch at {LATENCY_SIDE} pixels",
    }


def cells_table(experiment: Experiment, data: NetworkData) -> pl.DataFrame:
    """Class accuracy of every network in every cell, and its paired change from the first network."""
    schema: dict[str, Any] = {
        "network": pl.String, **CELL_COLUMNS,
        **estimate_columns("class_accuracy"), **estimate_columns("change"),
        "reason": pl.String, "n": pl.Int64, "n_groups": pl.Int64,
    }  # fmt: skip
    found = {
        (row["network"], row["resolution"], row["perturbation"]): row
        for row in data.comparison.iter_rows(named=True)
        if row["metric"] == CLASS_ACCURACY and row["seed"] == 0
    }
    names = in_order(experiment, (network for network, *_ in found))
    rows = []
    for place, name in enumerate(names):
        for cell in experiment.cells:
            row = found.get((name, str(cell.resolution), cell.perturbation_name))
            if row is not None:
                rows.append(
                    {key: row[key] for key in ("network", "resolution", "perturbation", "reason", "n", "n_groups")}
                    | {"cell": cell.name}
                    | estimate_values("class_accuracy", _own(row))
                    | estimate_values("change", _change(row) if place else None)
                )
    return pl.DataFrame(rows, schema=schema)


def classes_table(experiment: Experiment, data: NetworkData, compared: _Compared) -> pl.DataFrame:
    """What quantisation changes in each class, uncompressed: accuracy, and the paired change from its origin."""
    schema: dict[str, Any] = {
        "network": pl.String, "of": pl.String, "class": pl.String, "of_accuracy": pl.Float64,
        **estimate_columns("accuracy"), **estimate_columns("change"), "reason": pl.String,
        "n": pl.Int64, "n_groups": pl.Int64,
    }  # fmt: skip
    resolution = headline_resolution(experiment)
    described = set(data.networks["network"])
    rows = []
    for network in experiment.mobile.networks if experiment.mobile else ():
        if not isinstance(network, Quantized) or network.name not in described:
            continue
        for name in experiment.class_names:
            own = compared.get(network.name, 0, resolution, f"{FROM_ORIGIN}:{name}")
            before = compared.get(network.of, 0, resolution, f"{CLASS_ACCURACY}:{name}")
            rows.append(
                {"network": network.name, "of": network.of, "class": name, "of_accuracy": before["value"]}
                | estimate_values("accuracy", _own(own))
                | estimate_values("change", _change(own))
                | {"reason": _reasons(own["reason"], before["reason"]), "n": own["n"], "n_groups": own["n_groups"]}
            )
    return pl.DataFrame(rows, schema=schema)


def distillation_table(experiment: Experiment, data: NetworkData, compared: _Compared) -> pl.DataFrame:
    """Class accuracy of every student with its teachers and alone, uncompressed: one row per student and seed.

    A row without a seed holds the means over them. Its difference has an interval over pictures, the seeds fixed; what
    other seeds would change is not in it.
    """
    schema: dict[str, Any] = {
        "student": pl.String, "of": pl.String, "teachers": pl.String, "pretrained": pl.Boolean, "seed": pl.Int64,
        **estimate_columns("with_teacher"), **estimate_columns("alone"), **estimate_columns("difference"),
        "reason": pl.String,
    }  # fmt: skip
    described = {row["network"]: row for row in data.networks.iter_rows(named=True)}
    without_teacher = {one.base: one.alone for one in variants(experiment) if one.alone is not None}
    resolution = headline_resolution(experiment)
    rows = []
    for network in experiment.mobile.networks if experiment.mobile else ():
        if not isinstance(network, Distilled):
            continue
        for seed in (*range(network.seeds), *([None] if network.seeds > 1 else [])):
            metric = OVER_SEEDS if seed is None else CLASS_ACCURACY
            taught = compared.get(network.name, seed, resolution, metric)
            alone = compared.get(without_teacher[network.name], seed, resolution, metric)
            # A single seed's change is from the first network, that of the means from the same student alone.
            paired = estimate_values("difference", _change(taught) if seed is None else None)
            rows.append(
                {"student": network.name, "of": network.of, "teachers": " + ".join(network.teachers), "seed": seed}
                | {"pretrained": described.get(network.name, {}).get("pretrained")}
                | estimate_values("with_teacher", _own(taught))
                | estimate_values("alone", _own(alone))
                | paired
                | {"difference": _difference(taught["value"], alone["value"])}
                | {"reason": _reasons(taught["reason"], alone["reason"])}
            )
    return pl.DataFrame(rows, schema=schema)


def scenario_parts(experiment: Experiment, scenario: str) -> tuple[str, str]:
    """Kind (`leave-one-out`, `unseen`, `shifted`) and source of a scenario's name; (`other`, name) for any other."""
    for kind, source in rejection_scenarios(experiment):
        if scenario == f"{kind} {source}":
            return kind, source
    return OTHER_SCENARIO, scenario


def rejection_table(experiment: Experiment, data: NetworkData) -> pl.DataFrame:
    """One row per scenario, network, score and rule; differences are from the maximum probability's metric."""
    schema: dict[str, Any] = {
        "scenario": pl.String, "kind": pl.String, "source": pl.String, "network": pl.String, "score": pl.String,
        "chosen": pl.Boolean, "rule": pl.String,
    }  # fmt: skip
    for metric in (*SEPARATION_METRICS, *REJECTION_METRICS):
        schema |= estimate_columns(metric)
    schema |= estimate_columns("auroc_difference") | estimate_columns("oscr_difference")
    schema |= {"reason": pl.String, "n_known": pl.Int64, "n_unknown": pl.Int64, "n_groups": pl.Int64}
    keys = ("scenario", "network", "score", "rule", "metric")
    found = {tuple(row[key] for key in keys): row for row in data.rejection.iter_rows(named=True)}
    differences = {
        (row["scenario"], row["network"], row["score"], row["metric"]): row
        for row in data.differences.iter_rows(named=True)
        if row["against"] == REFERENCE_SCORE
    }
    chosen = {key[:3] for key, row in found.items() if row["chosen"]}
    # A score that no rule could be applied to still has its AUROC.
    judged = list(dict.fromkeys(key[:4] for key in found))
    ruled = {key[:3] for key in judged if key[3] is not None}
    judged = [key for key in judged if key[3] is not None or key[:3] not in ruled]
    rows = []
    for scenario, network, score, rule in sorted(judged, key=lambda key: _scenario_place(experiment, key)):
        measured = {name: found.get((scenario, network, score, None, name)) for name in SEPARATION_METRICS}
        measured |= {name: found.get((scenario, network, score, rule, name)) for name in REJECTION_METRICS}
        measured |= {
            f"{name}_difference": differences.get((scenario, network, score, name)) for name in DIFFERENCE_METRICS
        }
        some = next(row for row in measured.values() if row is not None)
        kind, source = scenario_parts(experiment, scenario)
        row = {"scenario": scenario, "kind": kind, "source": source, "network": network, "score": score, "rule": rule}
        row |= {key: some[key] for key in ("n_known", "n_unknown", "n_groups")}
        row |= {"chosen": (scenario, network, score) in chosen}
        for name, one in measured.items():
            row |= estimate_values(name, _own(one))
        rows.append(row | {"reason": _reasons(*(one["reason"] for one in measured.values() if one))})
    return pl.DataFrame(rows, schema=schema)


def confusion_table(experiment: Experiment, data: NetworkData) -> pl.DataFrame:
    """`CONFUSION_SCHEMA` with kind and source of the scenario, in the order of the rejection's scenarios."""
    kinds = {name: scenario_parts(experiment, name) for name in data.confusion["scenario"].unique()}
    places = {name: _scenario_place(experiment, (name,)) for name in kinds}
    order = {name: place for place, name in enumerate(sorted(kinds, key=lambda name: places[name]))}

    def mapped(values: Mapping[str, Any], kind: Any) -> pl.Expr:
        return pl.col("scenario").replace_strict(values, default=None, return_dtype=kind)

    return data.confusion.with_columns(
        kind=mapped({name: parts[0] for name, parts in kinds.items()}, pl.String),
        source=mapped({name: parts[1] for name, parts in kinds.items()}, pl.String),
    ).sort(mapped(order, pl.Int64), maintain_order=True)


def _scenario_place(experiment: Experiment, key: Sequence[Any]) -> tuple[Any, ...]:
    """Scenarios in the experiment's order, others after them; for a sort that keeps the order within one."""
    scenarios: list[tuple[str, str]] = list(rejection_scenarios(experiment))
    kinds = [*dict.fromkeys(kind for kind, _ in scenarios), OTHER_SCENARIO]
    parts = scenario_parts(experiment, key[0])
    return (kinds.index(parts[0]), scenarios.index(parts) if parts in scenarios else len(scenarios), key[0])


def second_project_table(experiment: Experiment, data: NetworkData, stages: pl.DataFrame) -> pl.DataFrame:
    """The second project's rows as printed, beside the network with the same head here, and its test accuracy."""
    schema: dict[str, Any] = {
        "model": pl.String,
        **{f"printed_{name}": pl.Float64 for name in _PRINTED},
        "network": pl.String,
        **{f"here_{name}": pl.Float64 for name in _PRINTED[:2]},
        "here_layers_unlocked": pl.String,
        **{f"here_{name}": pl.Float64 for name in _PRINTED[3:]},
        **estimate_columns("test_accuracy"), "reason": pl.String, "n": pl.Int64,
    }  # fmt: skip
    described = {row["network"]: row for row in data.networks.iter_rows(named=True) if row["seed"] == 0}
    tested = {row["network"]: row for row in stages.iter_rows(named=True)}
    tuned = [
        one
        for one in (experiment.mobile.networks if experiment.mobile else ())
        if isinstance(one, FineTuned) and one.width == 1.0 and one.name in described
    ]
    rows: list[Row] = []
    for printed in data.reported:
        row = {"model": printed.model} | {f"printed_{name}": getattr(printed, name) for name in _PRINTED}
        network = _like(printed, tuned)
        if network is None:
            rows.append(row | {"reason": f"no network here has the head {printed.model}"})
            continue
        own, test = described[network.name], tested[network.name]
        measured = ("epochs", "loss", "training_accuracy", "validation_loss", "validation_accuracy")
        rows.append(
            row
            | {"network": network.name, "here_batch_size": network.training.batch}
            | {"here_layers_unlocked": str(network.unlocked)}
            | {f"here_{name}": own[name] for name in measured}
            | {"test_accuracy": test["class_accuracy"]}
            | {f"test_accuracy_{bound}": test[f"class_accuracy_{bound}"] for bound in ("low", "high")}
            | {"reason": test["reason"], "n": test["n"]}
        )
    return pl.DataFrame(rows, schema=schema)


def _like(printed: ReportedNetwork, tuned: Sequence[FineTuned]) -> FineTuned | None:
    """Of networks with a row's head, the one with as many unlocked layers, else the first."""
    same = [one for one in tuned if one.head == printed.model]
    return next((one for one in same if one.unlocked == printed.layers_unlocked), same[0] if same else None)


def _own(row: Mapping[str, Any] | None) -> Estimate | None:
    """The number of a row."""
    return None if row is None else Estimate(row["value"], row["low"], row["high"])


def _change(row: Mapping[str, Any]) -> Estimate:
    """Its paired change."""
    return Estimate(row["change"], row["change_low"], row["change_high"])


def _ratio(value: float | None, whole: float | None) -> float | None:
    return value / whole if value is not None and whole else None


def _difference(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other


def _reasons(*reasons: str | None) -> str | None:
    return "; ".join(dict.fromkeys(reason for reason in reasons if reason)) or None
