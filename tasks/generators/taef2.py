"""TAEF2, a tiny autoencoder that was distilled from FLUX.2's: 32 latent channels at an eighth of the side.

By Ollin Boer Bohan (github.com/madebyollin/taesd, MIT), whose layout this is: two sequences, `encoder` and `decoder`,
with weights named by position. It has no attention; its middle blocks look at the whole picture through group norms.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from storage.errors import SpecError
from tasks.weight_files import find_header_problem

if TYPE_CHECKING:
    import torch

TITLE = "TAEF2"
FACTOR = 8
WIDTH, LATENT, POOLED, NORM_GROUPS = 64, 32, 256, 4
_LATENT_BOUND = 3
# Where they lie in a block, rectifiers between them.
_CONVOLUTIONS = (0, 2, 4)
_EXPECTED = "name a file as taef2.safetensors, its keys encoder.N... and decoder.N... and nothing else"


@dataclass(frozen=True)
class _Layer:
    """One position of a sequence. Only convolutions and blocks have weights."""

    kind: Literal["convolution", "block", "pooled-block", "bound", "relu", "enlarge"]
    channels: tuple[int, int] = (WIDTH, WIDTH)  # in, out
    stride: int = 1
    bias: bool = True


_BLOCK, _POOLED = _Layer("block"), _Layer("pooled-block")
_DOWN = _Layer("convolution", stride=2, bias=False)
_UP = (_Layer("enlarge"), _Layer("convolution", bias=False))
_SEQUENCES: dict[str, tuple[_Layer, ...]] = {
    "encoder": (
        _Layer("convolution", (3, WIDTH)),
        _BLOCK,
        *(_DOWN, _BLOCK, _BLOCK, _BLOCK),
        *(_DOWN, _BLOCK, _BLOCK, _BLOCK),
        *(_DOWN, _POOLED, _POOLED, _POOLED),
        _Layer("convolution", (WIDTH, LATENT)),
    ),
    "decoder": (
        _Layer("bound"),
        _Layer("convolution", (LATENT, WIDTH)),
        _Layer("relu"),
        *(_POOLED, _POOLED, _POOLED, *_UP),
        *(_BLOCK, _BLOCK, _BLOCK, *_UP),
        *(_BLOCK, _BLOCK, _BLOCK, *_UP),
        _BLOCK,
        _Layer("convolution", (WIDTH, 3)),
    ),
}


def tensor_shapes() -> dict[str, tuple[int, ...]]:
    """The shapes of all tensors by their names: 2.68 million parameters."""
    return dict(
        shape
        for sequence, layers in _SEQUENCES.items()
        for position, layer in enumerate(layers)
        for shape in _shapes_of(f"{sequence}.{position}", layer)
    )


def find_taef2_problem(path: Path) -> str | None:
    """What keeps a file from being TAEF2's, in one sentence with what is expected and found, or None; by its header."""
    from safetensors import safe_open

    shapes = tensor_shapes()
    problem = find_header_problem(
        path, shapes, TITLE, needed_by="its network", remedy=_EXPECTED, advice=lambda missing: _EXPECTED
    )
    if problem:
        return problem
    with safe_open(path, framework="np") as file:
        foreign = sorted(set(file.keys()) - shapes.keys())
    if foreign:
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        return f"{TITLE} weights: {path.name} also has {', '.join(foreign[:3])}{more}, not of its network; {_EXPECTED}"
    return None


class Taef2:
    """The network on its device, computed in float32 whatever its file holds.

    Raises:
        SpecError: the file has other tensors, or of other shapes.
    """

    def __init__(self, path: Path, device: str) -> None:
        import torch
        from safetensors.torch import load_file

        problem = find_taef2_problem(path)
        if problem:
            raise SpecError(problem)
        self._tensors: dict[str, torch.Tensor] = {}
        for name, tensor in load_file(path).items():
            # Channels last is a third faster, on a CPU as well.
            layout = torch.channels_last if tensor.dim() == 4 else torch.contiguous_format
            self._tensors[name] = tensor.to(device, torch.float32).contiguous(memory_format=layout)

    def __call__(self, pictures: torch.Tensor) -> torch.Tensor:
        """Pictures (B, 3, H, W) in [0, 1], their sides multiples of 8, there and back: not clamped."""
        return self.decode(self.encode(pictures))

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        """Latents (B, 32, H / 8, W / 8) of pictures (B, 3, H, W) in [0, 1]."""
        return self._through("encoder", pictures)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Pictures (B, 3, 8 H, 8 W) of latents (B, 32, H, W)."""
        return self._through("decoder", latents)

    def _through(self, sequence: str, x: torch.Tensor) -> torch.Tensor:
        import torch

        x = x.contiguous(memory_format=torch.channels_last)
        for position, layer in enumerate(_SEQUENCES[sequence]):
            x = _applied(layer, _within(self._tensors, f"{sequence}.{position}"), x)
        return x


def _shapes_of(name: str, layer: _Layer) -> Iterator[tuple[str, tuple[int, ...]]]:
    if layer.kind == "convolution":
        inner, outer = layer.channels
        yield f"{name}.weight", (outer, inner, 3, 3)
        if layer.bias:
            yield f"{name}.bias", (outer,)
    if layer.kind in ("block", "pooled-block"):
        for position in _CONVOLUTIONS:
            yield from _shapes_of(f"{name}.conv.{position}", _Layer("convolution"))
    if layer.kind == "pooled-block":
        yield f"{name}.pool.0.weight", (POOLED, WIDTH, 1, 1)
        yield f"{name}.pool.1.weight", (POOLED,)
        yield f"{name}.pool.1.bias", (POOLED,)
        yield f"{name}.pool.3.weight", (WIDTH, POOLED, 1, 1)


def _within(tensors: Mapping[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """The tensors of one layer, by the rest of their names."""
    return {key[len(name) + 1 :]: tensor for key, tensor in tensors.items() if key.startswith(f"{name}.")}


def _applied(layer: _Layer, weights: Mapping[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """One layer of x (B, C, H, W)."""
    from torch.nn import functional

    match layer.kind:
        case "convolution":
            return functional.conv2d(x, weights["weight"], weights.get("bias"), stride=layer.stride, padding=1)
        case "bound":
            return (x / _LATENT_BOUND).tanh() * _LATENT_BOUND
        case "relu":
            return x.relu()
        case "enlarge":
            return functional.interpolate(x, scale_factor=2, mode="nearest")
        case "pooled-block":
            wide = functional.conv2d(x, weights["pool.0.weight"])  # (B, 256, H, W)
            wide = functional.group_norm(wide, NORM_GROUPS, weights["pool.1.weight"], weights["pool.1.bias"]).relu()
            x = x + functional.conv2d(wide, weights["pool.3.weight"])
    return (_convolved(weights, x) + x).relu()


def _convolved(weights: Mapping[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """A block's three convolutions of x."""
    from torch.nn import functional

    for position in _CONVOLUTIONS:
        x = x.relu() if position else x
        x = functional.conv2d(x, weights[f"conv.{position}.weight"], weights[f"conv.{position}.bias"], padding=1)
    return x
