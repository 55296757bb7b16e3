"""Float convolutions with their ReLU as oneDNN likes them: weights reordered once, the ReLU within the same pass.

Of equal kernels as torch's own channels-last convolutions, which reorder the weights in every call and write all
activations twice; equal to them bit by bit but for small maps, of which torch computes one picture by another kernel
than several. The operators are those that torch's own compiler calls (docs/decisions/0012).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def packed(layers: nn.Sequential) -> nn.Sequential:
    """The same layers on the CPU in float32, each 3x3 convolution with the ReLU behind it as one."""
    from torch import nn

    found: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            found.append(_packed_convolution(layer))
        elif not isinstance(layer, nn.ReLU):
            found.append(layer)
    return nn.Sequential(*found)


def can_pack() -> bool:
    """Whether this torch has the operators."""
    import torch

    return torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.mkldnn, name) for name in ("_reorder_convolution_weight", "_convolution_pointwise")
    )


def _packed_convolution(convolution: nn.Conv2d) -> nn.Module:
    """A convolution of stride 1 that keeps the size, and its ReLU: float32 (N, I, H, W) to (N, O, H, W)."""
    import torch

    geometry = ([1, 1], [1, 1], [1, 1], 1)  # padding, stride, dilation, groups
    reordered = torch.ops.mkldnn._reorder_convolution_weight(convolution.weight.contiguous(), *geometry)
    bias = convolution.bias  # of the convolution itself nothing is kept

    class PackedConvolution(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = bias

        def forward(self, maps: torch.Tensor) -> torch.Tensor:
            computed: torch.Tensor = torch.ops.mkldnn._convolution_pointwise(
                maps, reordered, self.bias, *geometry, "relu", [], ""
            )
            return computed

    return PackedConvolution()
