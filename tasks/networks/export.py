"""A network as one ONNX file from a picture's bytes to the answer, and its card with a self-test."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from storage.digest import canonical_json, sha256_hex
from storage.objects import PartContent, Ref
from tasks.data.pictures import Pixels
from tasks.networks.exported import CARD, KIND, LONGEST_SIDE, MODEL, SHORTEST_SIDE, ExportedNetwork
from tasks.networks.network_graph import build_graph
from tasks.networks.trained import TrainedNetwork
from tasks.recipe import Output, StepRun, step
from tasks.spec.detectors import Fit

# Outputs of another runtime or processor may differ from the card's by this much and still be the same network's.
SELF_TEST_TOLERANCE = 1e-3


def reference_picture() -> Pixels:
    """The self-test's input, uint8 (48, 64, 3): gradients, a checkerboard and an edge."""
    down, across = np.mgrid[0:48, 0:64]
    red, green = across * 4, down * 5
    blue = (down // 6 + across // 6) % 2 * 160 + (across > 40) * 60
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


def self_test(model: bytes) -> dict[str, Any]:
    """A small input, its pixels in base64 (row by row, RGB), and what the model answers to it, for a card."""
    picture = reference_picture()
    found = ExportedNetwork(model).detect(picture)
    return {
        "height": picture.shape[0],
        "width": picture.shape[1],
        "pixels": base64.b64encode(picture.tobytes()).decode(),
        "logits": found.logits.tolist(),
        "probabilities": found.probabilities.tolist(),
        "familiarity": found.familiarity.tolist(),
        "activation": found.activation.tolist(),
        "tolerance": SELF_TEST_TOLERANCE,
    }


def file_facts(model: bytes, answering: bytes | None = None) -> dict[str, Any]:
    """What a card says of the file itself: bytes, sha256 and self-test, which another model may answer in its place."""
    answers = self_test(model if answering is None else answering)
    return {"bytes": len(model), "sha256": sha256_hex(model), "self_test": answers}


def network_card(network: TrainedNetwork, model: bytes) -> dict[str, Any]:
    """The card of an exported network; thresholds and error rates come to it with its evaluation."""
    return {
        "kind": KIND,
        "classes": list(network.classes),
        "temperature": network.temperature,
        "architecture": network.shape.model_dump(mode="json"),
        "side": network.shape.side,
        "macs": network.shape.macs,
        "parameters": network.shape.parameters,
        "longest_side": LONGEST_SIDE,
        "shortest_side": SHORTEST_SIDE,
        "about": network.about,
        # Of how many windows of original pixels it forms an opinion, where it was not trained on whole pictures.
        **({"windows": network.about["windows"]} if "windows" in network.about else {}),
        **file_facts(model),
    }


@step(
    "export",
    version=1,
    label=lambda *, name, rotation, **_: f"{name.label}/{rotation}",
    libraries=("onnx", "onnxruntime", "numpy"),
)
def export_network(run: StepRun, *, name: Fit, rotation: int, network: Ref) -> Output:
    """A trained network as one ONNX file with its card."""
    trained = TrainedNetwork.load(run.store, network)
    model = build_graph(trained)
    card = network_card(trained, model)
    parts: dict[str, PartContent] = {MODEL: model, CARD: canonical_json(card).encode()}
    return Output(parts, {"bytes": len(model), "macs": trained.shape.macs, "parameters": trained.shape.parameters})
