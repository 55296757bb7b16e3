"""Made-up networks for tests of the report: what a run's comparison, description, times and rejection look like."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl
import pyarrow as pa

from storage.tables import COMPARISON_SCHEMA, LATENCY_SCHEMA, NETWORK_SCHEMA
from tasks.evaluation.rejection import CONFUSION_SCHEMA, DIFFERENCE_SCHEMA, REJECTION_SCHEMA
from tasks.networks.variants import rejection_scenarios, variants
from tasks.presets import parse_experiment
from tasks.report.data import NetworkData
from tasks.report.reported_networks import SECOND_PROJECT, read_second_project
from tasks.spec.experiment import Experiment

# Network: parameters in millions, share of the MACs, bytes in millions, compressed, ms, accuracy, seeds' spread.
SIZES = {
    "dense": (2.23, 1.0, 9.02, 8.31, 21.4, 0.912),
    "v1": (2.59, 1.003, 10.4, 9.61, 21.6, 0.871),
    "v2": (2.39, 1.001, 9.66, 8.9, 21.5, 0.868),
    "v3": (2.23, 1.0, 9.02, 8.3, 21.4, 0.861),
    "sparse-40": (2.23, 1.0, 9.02, 5.87, 21.3, 0.909),
    "pruned-50": (1.12, 0.5, 4.51, 4.15, 12.8, 0.907),
    "distilled-30": (0.66, 0.3, 2.71, 2.49, 8.9, 0.904),
    "distilled-30-alone": (0.66, 0.3, 2.71, 2.49, 8.9, 0.893),
    "narrow": (0.4, 0.19, 1.7, 1.55, 6.1, 0.802),
    "narrow-alone": (0.4, 0.19, 1.7, 1.55, 6.1, 0.779),
    "dense-int8": (2.23, 1.0, 2.61, 2.1, 11.9, 0.908),
    "distilled-30-int8": (0.66, 0.3, 0.81, 0.66, 5.0, 0.903),
}


def with_networks(unseen: bool = True, weights: str = "imagenet", **changes: Any) -> Experiment:
    """Photographs against two generators, with a chain of networks."""
    folder = {"kind": "folder", "label": "fake", "evaluated": False}
    known: list[dict[str, Any]] = [
        {"kind": "coco", "name": "coco", "directory": "somewhere"},
        {"kind": "gan", "name": "gan", "trained_on": "coco", "count": 300},
        {"kind": "folder", "name": "sd14", "path": "sd14", "label": "fake"},
    ]
    networks: list[dict[str, Any]] = [
        {"kind": "fine-tuned", "name": "dense", "unlocked": "all", "weights": weights},
        {"kind": "fine-tuned", "name": "v1", "head": "v1", "unlocked": 5, "weights": weights},
        {"kind": "fine-tuned", "name": "v2", "head": "v2", "unlocked": 5, "weights": weights},
        {"kind": "fine-tuned", "name": "v3", "head": "v3", "unlocked": 8, "weights": weights},
        {"kind": "magnitude-pruned", "name": "sparse-40", "of": "dense"},
        {"kind": "structure-pruned", "name": "pruned-50", "of": "dense"},
        {"kind": "distilled", "name": "distilled-30", "of": "pruned-50", "teachers": ["dense", "svm"]},
        {"kind": "distilled", "name": "narrow", "width": 0.35, "teachers": ["dense"]},
        {"kind": "quantized", "name": "dense-int8", "of": "dense"},
        {"kind": "quantized", "name": "distilled-30-int8", "of": "distilled-30"},
    ]
    rejection = {"unknown": ["dalle"], "shifted": ["sd-other"]} if unseen else {}
    spec: dict[str, Any] = {
        "name": "example",
        "description": "COCO photographs against a DCGAN and Stable Diffusion 1.4.",
        "sources": [*known, *({**folder, "name": name, "path": name} for name in ("dalle", "sd-other") if unseen)],
        "mobile": {"networks": networks, "rejection": rejection},
    }
    return parse_experiment(spec | changes)


def make_networks(experiment: Experiment, **changes: Any) -> NetworkData:
    """Tables of an experiment with networks; `changes` replace some."""
    values: dict[str, Any] = {
        "comparison": frame(comparison_rows(experiment), COMPARISON_SCHEMA),
        "networks": frame(network_rows(experiment), NETWORK_SCHEMA),
        "latency": frame(latency_rows(), LATENCY_SCHEMA),
        "rejection": frame(rejection_rows(experiment), REJECTION_SCHEMA),
        "confusion": frame(confusion_rows(experiment), CONFUSION_SCHEMA),
        "differences": frame(difference_rows(experiment), DIFFERENCE_SCHEMA),
        "reported": read_second_project(SECOND_PROJECT),
    }
    return NetworkData(**values | changes)


def frame(rows: Any, schema: pa.Schema) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(pa.Table.from_pylist(list(rows), schema=schema)))


def comparison_rows(experiment: Experiment) -> Iterator[dict[str, Any]]:
    first = SIZES["dense"][-1]
    for variant in variants(experiment):
        if variant.absent is not None:
            continue
        for place, cell in enumerate(experiment.cells):
            if place and not variant.fit.is_whole:
                continue
            lost = 0.011 * (place % 4) + 0.018 * (place // 4)
            own = SIZES[variant.base][-1] + (0.004, -0.003 if variant.aided else 0.001, 0.006)[variant.seed]
            key: dict[str, Any] = {
                "network": variant.base,
                "seed": variant.seed,
                "resolution": str(cell.resolution),
                "perturbation": cell.perturbation_name,
                "n": 983,
                "n_groups": 642,
            }
            extra = (own - first - 0.004) * (1 + 0.15 * place)
            change = None if variant.base == "dense" and variant.seed == 0 else extra
            for metric, shift in (("class_accuracy", 0.0), ("balanced_accuracy", 0.021), ("auroc", 0.052)):
                yield key | estimate(metric, own - lost + shift + 0.15 * place * (own - first - 0.004), change)
            for number, name in enumerate(experiment.class_names):
                yield key | estimate(f"class_accuracy:{name}", own - lost + 0.01 * number, change)
                if variant.kind == "quantized":
                    value = own - lost + 0.01 * number
                    yield key | estimate(f"class_accuracy_from_origin:{name}", value, -0.004 + 0.003 * number)
            if variant.kind == "quantized":
                yield key | estimate("class_accuracy_from_origin", own - lost, -0.004)
    for student in ("distilled-30", "narrow"):
        for base, change in ((student, 0.011 if student == "distilled-30" else 0.023), (f"{student}-alone", None)):
            key = {"network": base, "seed": None, "resolution": "native", "perturbation": "none", "n": 983}
            yield key | estimate("class_accuracy_over_seeds", SIZES[base][-1] + 0.002, change)


def estimate(metric: str, value: float, change: float | None) -> dict[str, Any]:
    row: dict[str, Any] = {"metric": metric, "value": value, "low": value - 0.018, "high": value + 0.017}
    if change is not None:
        row |= {"change": change, "change_low": change - 0.011, "change_high": change + 0.010}
    return row


def network_rows(experiment: Experiment) -> Iterator[dict[str, Any]]:
    for variant in variants(experiment):
        if variant.absent is not None:
            continue
        parameters, macs, size, compressed, _, accuracy = SIZES[variant.base]
        trained = variant.kind != "quantized"
        yield {
            "network": variant.base,
            "seed": variant.seed,
            "kind": variant.kind,
            "of": getattr(variant.network, "of", None),
            "teachers": " + ".join(getattr(variant.network, "teachers", ())) if variant.aided else None,
            "pretrained": not variant.base.startswith("narrow"),
            "parameters": parameters * 1e6,
            "macs": macs * 300.8e6,
            "bytes": size * 1e6,
            "compressed_bytes": compressed * 1e6,
            "zeros": (0.4 if variant.base == "sparse-40" else 0.0) if trained else None,
            "in_float": "features.18.0, classifier.1" if variant.base == "dense-int8" else None,
            "epochs": 4.6 if trained else None,
            "loss": 0.2314 if trained else None,
            "training_accuracy": accuracy + 0.03 if trained else None,
            "validation_loss": 0.3127 if trained else None,
            "validation_accuracy": accuracy + 0.01 if trained else None,
        }


def latency_rows() -> Iterator[dict[str, Any]]:
    for side in (224, 512):
        slower = 1.0 if side == 224 else 1.09
        yield {"network": "dense", "runtime": "torch", "side": side, "median_ms": 46.2 * slower} | {
            "low_ms": 44.0, "high_ms": 55.0, "runs": 100,
        }  # fmt: skip
        for name, (*_, ms, _) in SIZES.items():
            bounds = {"low_ms": 0.97 * ms * slower, "high_ms": 1.16 * ms * slower, "runs": 100}
            yield {"network": name, "runtime": "onnxruntime", "side": side, "median_ms": ms * slower} | bounds


SCORES = {"max-probability": (0.712, 0.71), "energy": (0.745, 0.68), "distance": (0.861, 0.44)}


def scenarios(experiment: Experiment) -> Iterator[tuple[dict[str, Any], str, str]]:
    for kind, source in rejection_scenarios(experiment):
        network = f"dense@without-{source}" if kind == "leave-one-out" else "dense"
        yield {"scenario": f"{kind} {source}", "network": network}, kind, source


def rejection_rows(experiment: Experiment) -> Iterator[dict[str, Any]]:
    for place, (key, kind, _) in enumerate(scenarios(experiment)):
        counts = {"n_known": 683, "n_unknown": 300, "n_groups": 642}
        for score, (auroc, fpr) in SCORES.items():
            easier = 0.06 * place if kind == "leave-one-out" else -0.1
            row = key | counts | {"score": score, "chosen": score == "distance"}
            for metric, value in (("auroc", auroc), ("fpr_at_95_tpr", fpr), ("oscr", auroc - 0.05), ("accuracy", 0.93)):
                yield row | bounded(metric, value + (easier if metric != "fpr_at_95_tpr" else -easier))
            rules = ["kept-0.95", *(["bound-0.6", "bound-0.7"] if score == "max-probability" else [])]
            for number, rule in enumerate(rules):
                for metric, value in (
                    ("rejected_known", 0.052 + 0.01 * number),
                    ("rejected_unknown", 1 - fpr + easier),
                    ("accuracy_accepted", 0.941),
                ):
                    yield row | {"rule": rule} | bounded(metric, value)
                yield row | {"rule": rule, "metric": "threshold", "value": -31.7}


def bounded(metric: str, value: float) -> dict[str, Any]:
    return {"metric": metric, "value": value, "low": max(value - 0.031, 0.0), "high": min(value + 0.029, 1.0)}


def difference_rows(experiment: Experiment) -> Iterator[dict[str, Any]]:
    for key, _, source in scenarios(experiment):
        for score, difference in (("energy", 0.033), ("distance", 0.149 if source == "gan" else 0.02)):
            for metric in ("auroc", "oscr"):
                yield key | {"score": score, "against": "max-probability", "metric": metric, "value": difference} | {
                    "low": difference - 0.04, "high": difference + 0.04,
                }  # fmt: skip


def confusion_rows(experiment: Experiment) -> Iterator[dict[str, Any]]:
    for key, kind, source in scenarios(experiment):
        classes = [name for name in experiment.class_names if kind != "leave-one-out" or name != source]
        for truth in (*classes, source):
            for answer in (*classes, "unknown"):
                right = answer == truth or (truth == source and answer == "unknown")
                count = 250 if right else 17
                yield key | {"score": "distance", "rule": "kept-0.95"} | {
                    "truth": truth, "answer": answer, "count": count,
                }  # fmt: skip
