"""MobileNetV2 as a torch module of plain convolutions, its weights, and what a picture is to it.

Batch norm in eval mode is a fixed affine map, so it is folded into the convolution before it: one form for training,
pruning and export. A network that starts from random weights is trained with batch norm and folded afterwards.

The one module that imports torch at its top, for its classes' sake: import it where it is used.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.functional import interpolate

from storage.digest import hash_seed
from storage.errors import SpecError
from tasks.data.pictures import Pixels
from tasks.networks.architecture import Architecture, Convolution, torchvision_names
from tasks.networks.front_ends import front_end

Tensors = dict[str, npt.NDArray[Any]]

# ImageNet's channel means and deviations, of values in 0..1: what torchvision's weights expect.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Layer(nn.Module):
    """A convolution, perhaps a batch norm, perhaps ReLU6."""

    def __init__(self, one: Convolution, batch_norm: bool) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(
            one.inputs, one.outputs, one.kernel, one.stride, one.kernel // 2, groups=one.groups
        )
        self.norm = nn.BatchNorm2d(one.outputs) if batch_norm else nn.Identity()
        self.activation = nn.ReLU6() if one.activated else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.activation(self.norm(self.convolution(x)))
        return out


class Stage(nn.Module):
    """A block, or the stem or the last convolution alone."""

    def __init__(self, layers: dict[str, Layer], residual: bool) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.residual = residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = x
        for layer in self.children():
            out = layer(out)
        return x + out if self.residual else out


class MobileNet(nn.Module):
    """From float32 (B, 3, side, side), normalised, to logits (B, classes); of other sides, too, in training.

    `stages` are the stem, the blocks and the last convolution, each of them layers by name; `head` is linear layers
    with ReLU between. Weights are torch's own until they are loaded or drawn by `initialise`.
    """

    def __init__(self, shape: Architecture, batch_norm: bool = False) -> None:
        super().__init__()
        self.shape = shape
        residuals = [False, *(block.residual for block in shape.blocks), False]
        self.stages = nn.ModuleList(
            Stage(
                {
                    one.name.rpartition(".")[2]: Layer(one, batch_norm)
                    for one in shape.convolutions
                    if one.stage == stage
                },
                residual,
            )
            for stage, residual in enumerate(residuals)
        )
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise((shape.last, *shape.hidden, shape.classes)):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.head = nn.Sequential(*layers[:-1])

    def run_stages(self, x: torch.Tensor, first: int = 0, last: int | None = None) -> torch.Tensor:
        """What stages `first` to `last` (exclusive; None: all) make of the input of the first, the stem's a picture."""
        if first == 0 and self.shape.front_end is not None and last != 0:
            x = front_end(self.shape.front_end, x)
        for stage in list(self.stages)[first:last]:
            x = stage(x)
        return x

    def pooled(self, x: torch.Tensor, first: int = 0) -> torch.Tensor:
        """Features (B, last): the last feature map, averaged over its places; `x` is the input of stage `first`."""
        return self.run_stages(x, first).mean((2, 3))

    def forward(self, x: torch.Tensor, first: int = 0) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.pooled(x, first))
        return logits


def initialise(network: torch.nn.Module, seed: int, prefix: str = "") -> None:
    """Draw the weights whose names start with `prefix`, by Kaiming's rule (He et al. 2015); biases are zero.

    Not by `torch.nn.init`, nor are a batch norm's left as that made them: diffusers and transformers replace its
    functions, for all threads, by ones that do nothing while they load a model.
    """
    random = torch.Generator().manual_seed(hash_seed("mobilenet", seed))
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and name.startswith(prefix):
            # Fan-out for convolutions, as torchvision has it; fan-in for linear layers.
            fan = (
                module.out_channels * module.weight[0][0].numel() / module.groups
                if isinstance(module, nn.Conv2d)
                else module.in_features
            )
            with torch.no_grad():
                module.weight.normal_(0, (2 / fan) ** 0.5, generator=random)
                if module.bias is not None:
                    module.bias.zero_()
        elif isinstance(module, nn.BatchNorm2d) and name.startswith(prefix):
            with torch.no_grad():
                module.weight.fill_(1)
                module.bias.zero_()


def folded_torchvision(tensors: Mapping[str, npt.NDArray[Any]], shape: Architecture) -> Tensors:
    """The trunk of torchvision's `mobilenet_v2`, batch norm folded into float32 weights under this module's names.

    Raises:
        SpecError: a tensor is missing, or of another width.
    """
    folded: Tensors = {}
    for one, (convolution, norm) in zip(shape.convolutions, torchvision_names(shape), strict=True):
        try:
            weight = tensors[f"{convolution}.weight"].astype(np.float64)
            scale = tensors[f"{norm}.weight"] / np.sqrt(tensors[f"{norm}.running_var"].astype(np.float64) + 1e-5)
            bias = tensors[f"{norm}.bias"] - tensors[f"{norm}.running_mean"] * scale
        except KeyError as error:
            raise SpecError(f"MobileNetV2's weights lack {error}: expected torchvision's names") from error
        expected = (one.outputs, one.inputs // one.groups, one.kernel, one.kernel)
        if weight.shape != expected:
            raise SpecError(f"MobileNetV2's {convolution}: expected shape {expected}, got {weight.shape}")
        folded[f"{one.name}.convolution.weight"] = (weight * scale[:, None, None, None]).astype(np.float32)
        folded[f"{one.name}.convolution.bias"] = bias.astype(np.float32)
    return folded


def folded(network: MobileNet) -> MobileNet:
    """The same function with every batch norm, in eval mode, folded into its convolution."""
    plain = MobileNet(network.shape).to(next(network.parameters()).device)
    state = network.state_dict()
    for one in network.shape.convolutions:
        name = f"{one.name}.norm"
        if f"{name}.weight" not in state:
            continue
        scale = state.pop(f"{name}.weight") / torch.sqrt(state.pop(f"{name}.running_var") + 1e-5)
        state[f"{one.name}.convolution.weight"] = state[f"{one.name}.convolution.weight"] * scale[:, None, None, None]
        shift = state.pop(f"{name}.bias") - state.pop(f"{name}.running_mean") * scale
        state[f"{one.name}.convolution.bias"] = shift + state[f"{one.name}.convolution.bias"] * scale
        del state[f"{name}.num_batches_tracked"]
    plain.load_state_dict(state)
    return plain.eval()


def load_network(shape: Architecture, tensors: Mapping[str, npt.NDArray[Any]], device: str = "cpu") -> MobileNet:
    """The network with its weights, in eval mode.

    Raises:
        SpecError: tensors are missing, or have other shapes than the architecture says.
    """
    network = MobileNet(shape)
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    got = {name: tuple(tensors[name].shape) for name in expected if name in tensors}
    if expected != got:
        wrong = next(name for name in expected if expected[name] != got.get(name))
        raise SpecError(f"weights of another network: {wrong}: expected {expected[wrong]}, got {got.get(wrong)}")
    network.load_state_dict({name: torch.from_numpy(np.array(tensors[name])) for name in expected})
    return channels_last(network.to(device)).eval()


def channels_last(network: MobileNet) -> MobileNet:
    """The same network with its weights in the memory order in which convolutions are fastest."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def network_tensors(network: torch.nn.Module) -> Tensors:
    """A copy of its weights."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in network.state_dict().items()}


def prepare_picture(pixels: Pixels, side: int) -> torch.Tensor:
    """uint8 (H, W, 3), RGB, to float32 (3, side, side): its central square, resized, normalised.

    The resize is the antialiased bilinear one, in float32, that the exported graph contains too.
    """
    height, width = pixels.shape[:2]
    square = min(height, width)
    top, left = (height - square) // 2, (width - square) // 2
    cropped = np.ascontiguousarray(pixels[top : top + square, left : left + square])
    picture = torch.from_numpy(cropped).permute(2, 0, 1)[None].float()  # (1, 3, square, square)
    if square != side:
        picture = interpolate(picture, (side, side), mode="bilinear", align_corners=False, antialias=True)
    mean = torch.tensor(MEAN)[:, None, None] * 255
    deviation = torch.tensor(DEVIATION)[:, None, None] * 255
    return (picture[0] - mean) / deviation
