"""VGG16 in float32 on a CPU: convolutions by Winograd's filtering, a quarter of the products (Lavin & Gray 2016).

The kernels are ncnn's, which torch's own do not have: two and a half times as fast, and equal to them up to float noise
(1e-5 of the largest value; docs/decisions/0013). Every picture is computed by itself, so that its convolutions are the
same bits in every batch and for every number of threads.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tasks.features.vgg16_layout import CONNECTED_OF_LAYER, CONVOLUTIONS, MEAN, POOLED, STD, Pixels

if TYPE_CHECKING:
    import ncnn
    import torch

Tensors = Mapping[str, npt.NDArray[Any]]

_INPUT = "pixels"
# Of the text form of a network: the first line of every file.
_MAGIC = "7767517"
# Of the binary form: the weights that follow are float32.
_FLOAT32 = struct.pack("<I", 0)


class WinogradVgg16:
    """The network up to a layer: uint8 (N, H, W, 3) to float32 (N, D), by as many threads as torch has."""

    def __init__(self, layer: str, tensors: Tensors) -> None:
        """Lay out the tensors of a layer (`vgg16_layout.tensor_shapes`), float16 or float32."""
        self._convolutions = _convolutions(tensors)
        self._connected = ConnectedLayers(layer, tensors)

    def __call__(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """Features of pictures of one size."""
        import torch

        with torch.inference_mode():
            return self._connected(torch.cat([self._maps(picture) for picture in pixels]))

    def _maps(self, picture: Pixels) -> torch.Tensor:
        """The pooled activations of uint8 (H, W, 3), (1, 512, 7, 7)."""
        import ncnn
        import torch

        mean, std = (np.array(values, np.float32) for values in (MEAN, STD))
        normalised = (picture.astype(np.float32) / np.float32(255) - mean) / std
        planes = np.ascontiguousarray(normalised.transpose(2, 0, 1))  # (3, H, W); ncnn reads it where it is
        extractor = self._convolutions.create_extractor()
        extractor.input(_INPUT, ncnn.Mat(planes))
        status, maps = extractor.extract(_output_of(max(CONVOLUTIONS)))
        if status != 0:
            raise MemoryError(f"ncnn could not compute a picture of {picture.shape[:2]} (status {status})")
        return torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(np.array(maps))[None], 7)


class ConnectedLayers:
    """What stands behind the convolutions: float32 (N, 512, 7, 7) to features (N, D), on the CPU."""

    def __init__(self, layer: str, tensors: Tensors) -> None:
        import torch

        self._layers = [
            # Copied only where they are of another type, or read-only: fc7's are half a gigabyte.
            tuple(
                torch.from_numpy(np.require(tensors[f"classifier.{index}.{part}"], np.float32, "W")) for part in _PARTS
            )
            for index in CONNECTED_OF_LAYER[layer]
        ]

    def __call__(self, maps: torch.Tensor) -> npt.NDArray[np.float32]:
        """All pictures at once: the layers' weights are what costs."""
        import torch

        features = maps.flatten(1) if self._layers else maps.mean(dim=(2, 3))
        for weight, bias in self._layers:
            features = torch.relu_(torch.nn.functional.linear(features, weight, bias))
        found: npt.NDArray[np.float32] = features.numpy()
        return found


_PARTS = ("weight", "bias")


def _convolutions(tensors: Tensors) -> ncnn.Net:
    """ncnn's network of the convolutions, whose weights it transforms once: 16 bytes for each of the given ones."""
    import ncnn
    import torch

    network = ncnn.Net()
    options = network.opt
    options.num_threads = torch.get_num_threads()
    # Everything that rounds to fewer bits, which ncnn does without being asked where the processor can.
    options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = False
    options.use_bf16_storage = False
    network.opt = options
    with TemporaryDirectory(prefix="telltale-vgg16-") as folder:
        # From files: what it reads from memory it may refer to later, after Python has freed it.
        layers, weights = Path(folder) / "vgg16.param", Path(folder) / "vgg16.bin"
        layers.write_text(_layers(), encoding="ascii")
        with weights.open("wb") as file:
            for index in CONVOLUTIONS:
                weight, bias = (tensors[f"features.{index}.{part}"].astype("<f4").tobytes() for part in _PARTS)
                file.write(_FLOAT32 + weight + bias)
        for load, path in ((network.load_param, layers), (network.load_model, weights)):
            if load(str(path)) != 0:
                raise RuntimeError(f"ncnn could not read {path.name}")
    return network


def _layers() -> str:
    """The network in ncnn's text form, a line per layer: its type, name, inputs, outputs and numbered parameters."""
    lines = [f"Input {_INPUT} 0 1 {_INPUT}"]
    previous = _INPUT
    for index, (outputs, inputs) in CONVOLUTIONS.items():
        name = f"conv{index}"
        # 0: output channels, 1: kernel, 4: padding, 5: with bias, 6: weights, 9: followed by a ReLU
        lines.append(f"Convolution {name} 1 1 {previous} {name} 0={outputs} 1=3 4=1 5=1 6={outputs * inputs * 9} 9=1")
        previous = name
        if index in POOLED:
            # 0: largest, 1: kernel, 2: stride, 5: a last odd row or column is left out
            previous = _output_of(index)
            lines.append(f"Pooling {previous} 1 1 {name} {previous} 0=0 1=2 2=2 5=1")
    return "\n".join([_MAGIC, f"{len(lines)} {len(lines)}", *lines]) + "\n"


def _output_of(index: int) -> str:
    return f"pool{index}"
