"""VGG16 features on a CPU against torch picture by picture, as the first project did."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.harness import Case, Unequal
from benchmarks.inputs import pictures
from storage.errors import MissingInput
from storage.paths import absolute
from tasks.data.pictures import Pixels, decode_rgb
from tasks.features import vgg16, vgg16_winograd
from tasks.spec.detectors import Vgg16Spec

WEIGHTS_SETTING = "TELLTALE_BENCH_VGG16"
RANDOM = "random:0"
SIDE = 224
TOLERANCE = 1e-4  # of the largest value

Features = npt.NDArray[np.float32]


def weights_named() -> str:
    """Which weights these are, in words; the file's own name says nothing to others."""
    if os.environ.get(WEIGHTS_SETTING):
        return f"{_extractor().layer} of the weights that `{WEIGHTS_SETTING}` names"
    return f"{_extractor().layer} of random weights"


def plain_features(network: object, batch: list[Pixels]) -> Features:
    """Picture by picture, channels first, in float32 without gradients, as torchvision's examples have it."""
    import torch

    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (vgg16.MEAN, vgg16.STD))
    features = []
    with torch.no_grad():
        for picture in batch:
            scaled = torch.from_numpy(picture).permute(2, 0, 1).contiguous().float() / 255
            features.append(network(((scaled - mean) / std)[None]).numpy())  # type: ignore[operator]
    return np.concatenate(features)


@contextmanager
def exact_case(size: int, threads: int) -> Iterator[Case]:
    """So many pictures in float32."""
    import torch

    torch.set_num_threads(threads)
    spec = _extractor()
    plain = vgg16.load_vgg16(spec, _tensors()).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    network = vgg16_winograd.WinogradVgg16(spec, _tensors())
    batch = _batch(size)

    def equality(expected: Features, found: Features) -> str:
        difference = float(np.abs(found - expected).max() / expected.max())
        if difference > TOLERANCE:
            raise Unequal(f"features differ by {difference:.1e} of the largest one, more than {TOLERANCE:.0e}")
        return f"{weights_named()}: largest difference {difference:.1e} of the largest value"

    yield Case(lambda: plain_features(plain, batch), lambda: vgg16.embed_on_cpu(network, spec, batch), equality)


def _extractor() -> Vgg16Spec:
    """fc7, as the first project had it, or what a file without the classifier serves."""
    path = os.environ.get(WEIGHTS_SETTING)
    if not path:
        return Vgg16Spec(layer="fc7", side=SIDE, weights=RANDOM)
    if not absolute(path).is_file():
        raise MissingInput(f"VGG16 weights as safetensors at {path} ({WEIGHTS_SETTING})")
    layer = "pool5-avg" if vgg16.find_problem(absolute(path), "fc7") else "fc7"
    return Vgg16Spec.model_validate({"layer": layer, "side": SIDE, "weights": str(absolute(path))})


@functools.cache
def _tensors() -> dict[str, np.ndarray] | None:
    spec = _extractor()
    return None if spec.weights == RANDOM else vgg16.read_vgg16_tensors(Path(spec.weights), spec.layer)


@functools.cache
def _batch(size: int) -> list[Pixels]:
    """So many pictures at the network's input size."""
    decoded = (Image.fromarray(decode_rgb(data)) for _, data in pictures(size))
    return [np.array(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for picture in decoded]
