"""A tiny exported network with random weights, and the card of an evaluation that never took place."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np

from storage.digest import sha256_hex
from storage.local import LocalStore
from storage.runs import set_latest_run
from tasks.networks.architecture import architecture
from tasks.networks.export import self_test
from tasks.networks.familiarity import fit_familiarity
from tasks.networks.mobilenet_network import MobileNet, initialise, network_tensors
from tasks.networks.network_graph import build_graph
from tasks.networks.trained import TrainedNetwork

CLASSES = ("real", "gan", "stable")
CANONICAL_SIDE = 320
RESOLUTIONS = {"native": 320, "256": 256, "64": 64}
QUALITIES = (None, 60, 40, 20)
# Cells that no file can be compared with; the second is of a kind that nobody here knows.
OTHERS = (
    {"cell": "128/webp-50", "resolution": "128", "perturbation": {"kind": "webp", "quality": 50}},
    {"cell": "64/melted", "resolution": "64", "perturbation": {"kind": "melt", "steps": [{"heat": 1.5}, None]}},
)


@functools.cache
def tiny_model() -> bytes:
    """An ONNX file of 3 classes at 32 pixels."""
    shape = architecture(0.1, "v3", len(CLASSES), side=32)
    network = MobileNet(shape)
    initialise(network, seed=0)
    features = np.random.default_rng(0).normal(size=(30, shape.last))
    return build_graph(
        TrainedNetwork(
            shape=shape,
            tensors=network_tensors(network),
            classes=CLASSES,
            temperature=2.0,
            familiarity=fit_familiarity(features, np.arange(30) % 3, 3, components=4),
        )
    )


@functools.cache
def tiny_answers() -> dict[str, Any]:
    """The self-test of `tiny_model`."""
    return self_test(tiny_model())


def error_rates() -> list[dict[str, Any]]:
    """Rates that differ from cell to cell: the cell's number / 100, and twice that."""
    cells: list[dict[str, Any]] = [
        {"cell": f"{resolution}/{'none' if quality is None else f'q{quality}'}"}
        | {"resolution": resolution, "jpeg_quality": quality}
        for resolution in RESOLUTIONS
        for quality in QUALITIES
    ]
    return [
        {
            **cell,
            "false_alarms": {"value": number / 100, "low": 0.0, "high": number / 50, "n": 500},
            "missed": {"value": number / 50, "low": None, "high": None, "n": 8},
        }
        for number, cell in enumerate([*cells, *OTHERS])
    ]


def as_before(rates: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rates as cards had them when JPEG was the only perturbation, and cells had no names there."""
    jpeg = [cell for cell in rates if "perturbation" not in cell]
    return [{field: value for field, value in cell.items() if field != "cell"} for cell in jpeg]


def card_of(model: bytes, name: str = "dense", **decision: Any) -> dict[str, Any]:
    """A card in which everything is familiar and nothing is generated, unless `decision` says otherwise."""
    return {
        "name": name,
        "sha256": sha256_hex(model),
        "classes": list(CLASSES),
        "temperature": 2.0,
        "self_test": tiny_answers(),
        "canonical_side": CANONICAL_SIDE,
        "decision": {
            "rule": "...",
            "fake_thresholds": dict.fromkeys(RESOLUTIONS, 1.0),
            "rejection": {"score": "max-probability", "threshold": 0.0, "kept": 0.95},
        }
        | decision,
        "error_rates": error_rates(),
        "sources": {},
        "evaluation": {},
    }


def write_model(folder: Path, name: str = "dense", **decision: Any) -> Path:
    """The network and its card in a folder; the place of the network."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(card_of(tiny_model(), name, **decision)))
    path = folder / f"{name}.onnx"
    path.write_bytes(tiny_model())
    return path


def publish_run(store: LocalStore, experiment: str, *names: str) -> str:
    """A finished run that published networks of these names; its place in the store."""
    place = f"runs/evaluate/{experiment}-1"
    mobile = {"networks": [{"name": name} for name in names]} if names else None
    for name in names:
        write_model(store.path(f"{place}/models"), name)
    store.write(f"{place}/index.json", json.dumps({"experiment": {"name": experiment, "mobile": mobile}}).encode())
    set_latest_run(store, experiment, place)
    return place
