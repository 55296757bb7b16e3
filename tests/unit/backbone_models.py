"""Backbones as experiments declare them, at work on a few small pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import TypeAdapter

from benchmarks.made_up import needs
from storage.local import LocalStore
from storage.objects import Ref, find
from tasks.data.perturbations.base import ViewPicture
from tasks.data.pictures import Pixels
from tasks.features.backbone import BackboneSpec
from tasks.features.base import Extractor
from tasks.features.kinds import ExtractorSpec
from tasks.planning import Finished, Plan
from tasks.recipe import planned_by
from tests.unit.embedded_shards import RAW
from tests.unit.tiny_backbones import SIDE

INPUT: dict[str, Any] = {
    "side": SIDE,
    "resize": "stretch",
    "filter": "bicubic",
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.3, 0.4],
}


def spec(library: str = "torchvision", model: str | Path = "resnet18", **changes: Any) -> BackboneSpec:
    own = {} if library in ("transformers", "onnx") else {"weights": "random:0"}
    document = {"kind": "backbone", "library": library, "model": str(model), "input": INPUT, **own} | changes
    found = TypeAdapter(ExtractorSpec).validate_python(document)
    assert isinstance(found, BackboneSpec)
    return found


def brought(store: LocalStore, named: BackboneSpec) -> Ref | None:
    """Its weights in the store; None where it draws them."""
    plan = Plan(Finished(store), needs)
    with planned_by(plan):
        found = named.import_weights()
    for element in plan.take_ready():
        element.step.compute(store, **element.arguments)
    return None if found is None else find(store, found.uri)


def opened(store: LocalStore, named: BackboneSpec) -> Extractor:
    assert named.missing() == []
    return named.keyed().load(store, brought(store, named), "cpu")


def pictures(count: int = 5, side: int = 48) -> list[Pixels]:
    rng = np.random.default_rng(1)
    coarse = [rng.integers(0, 256, (6, 8, 3), dtype=np.uint8) for _ in range(count)]
    return [np.asarray(Image.fromarray(each).resize((side + 9, side))) for each in coarse]


def described(extractor: Extractor, chosen: list[Pixels]) -> np.ndarray:
    return extractor.embed([extractor.prepare(b"", RAW, ViewPicture(each, None)) for each in chosen])


def entered(named: BackboneSpec, chosen: list[Pixels]) -> Any:
    """What a network of torch is given, made without the extractor."""
    import torch

    mean, std = np.array(named.input.mean), np.array(named.input.std)
    whole = [np.asarray(Image.fromarray(each).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for each in chosen]
    return torch.tensor(np.stack([(each / 255 - mean) / std for each in whole]).transpose(0, 3, 1, 2)).float()
