"""VGG16 features on a CPU against torch picture by picture, as the first project did."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.harness import Case, Unequal
from benchmarks.inputs import pictures
from tasks.data.pictures import Pixels, decode_rgb
from tasks.features import vgg16, vgg16_winograd
from tasks.features.vgg16 import Vgg16Spec
from tasks.features.vgg16_layout import MEAN, STD

SPEC = Vgg16Spec(layer="fc7", side=224, weights="random:0")
TOLERANCE = 1e-4  # of the largest value

Features = npt.NDArray[np.float32]


def plain_features(network: object, batch: list[Pixels]) -> Features:
    """Picture by picture, channels first, in float32 without gradients, as torchvision's examples have it."""
    import torch

    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
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
    plain = vgg16.load_vgg16(SPEC, None).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    network = vgg16_winograd.WinogradVgg16(SPEC.layer, vgg16.random_tensors(SPEC))
    batch = _batch(size)

    def equality(expected: Features, found: Features) -> str:
        difference = float(np.abs(found - expected).max() / expected.max())
        if difference > TOLERANCE:
            raise Unequal(f"features differ by {difference:.1e} of the largest one, more than {TOLERANCE:.0e}")
        return f"{SPEC.layer} of random weights: largest difference {difference:.1e} of the largest value"

    yield Case(lambda: plain_features(plain, batch), lambda: vgg16.embed_on_cpu(network, SPEC, batch), equality)


@functools.cache
def _batch(size: int) -> list[Pixels]:
    """So many pictures at the network's input size."""
    side = SPEC.side
    assert side is not None
    decoded = (Image.fromarray(decode_rgb(data)) for _, data in pictures(size))
    return [np.array(picture.resize((side, side), Image.Resampling.BICUBIC)) for picture in decoded]
