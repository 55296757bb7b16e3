"""The layers of VGG16 by torchvision's names, up to those that features are taken from."""

from typing import Literal

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Layer = Literal["fc7", "fc6", "pool5-avg"]

DIMENSIONS = {"fc7": 4096, "fc6": 4096, "pool5-avg": 512}
MEAN = (0.485, 0.456, 0.406)  # of RGB in 0..1, as the weights were trained
STD = (0.229, 0.224, 0.225)

# Convolutions by their index in `features`: (output channels, input channels), kernels of 3x3.
CONVOLUTIONS = {
    0: (64, 3),
    2: (64, 64),
    5: (128, 64),
    7: (128, 128),
    10: (256, 128),
    12: (256, 256),
    14: (256, 256),
    17: (512, 256),
    19: (512, 512),
    21: (512, 512),
    24: (512, 512),
    26: (512, 512),
    28: (512, 512),
}
POOLED = (2, 7, 14, 21, 28)  # convolutions with a pooling of 2x2 behind them
# Fully connected layers by their index in `classifier`: (outputs, inputs).
_CONNECTED = {0: (4096, 512 * 7 * 7), 3: (4096, 4096)}
CONNECTED_OF_LAYER = {"pool5-avg": (), "fc6": (0,), "fc7": (0, 3)}


def tensor_shapes(layer: str) -> dict[str, tuple[int, ...]]:
    """The tensors that a layer needs, by torchvision's names, in the order of the network."""
    shapes: dict[str, tuple[int, ...]] = {}
    for index, (outputs, inputs) in CONVOLUTIONS.items():
        shapes[f"features.{index}.weight"] = (outputs, inputs, 3, 3)
        shapes[f"features.{index}.bias"] = (outputs,)
    for index in CONNECTED_OF_LAYER[layer]:
        shapes[f"classifier.{index}.weight"] = _CONNECTED[index]
        shapes[f"classifier.{index}.bias"] = _CONNECTED[index][:1]
    return shapes
