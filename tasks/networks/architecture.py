"""The architecture of a MobileNetV2, or of its first stages behind a front end: widths and multiply-accumulates.

Sandler et al.: MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018 (arXiv 1801.04381). No torch here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from pydantic import Field

from tasks.spec.base import Spec
from tasks.spec.detectors import FrontEnd
from tasks.spec.views import is_none

# (expansion, channels, repetitions, first stride), table 2 of the paper.
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_STEM, _LAST = 32, 1280
# Of a network behind a front end: no more than an eighth of the side, as what it looks for is a few pixels wide.
_FINE_STAGES, _FINE_STEM, _FINE_LAST = ((2, 32, 2, 1), (2, 48, 2, 2), (2, 64, 2, 2)), 32, 128
_HIDDEN: dict[str, tuple[int, ...]] = {"v1": (256, 128), "v2": (128,), "v3": ()}


class Block(Spec):
    """An inverted residual: 1x1 expansion to `expanded` channels (none in the first), 3x3 depthwise, 1x1 projection."""

    expands: bool
    expanded: int = Field(ge=1)
    channels: int = Field(ge=1)
    stride: Literal[1, 2]
    residual: bool


class Convolution(Spec):
    """One convolution: `name` is its module's, `stage` counts stem, blocks and last from 0."""

    name: str
    stage: int
    inputs: int
    outputs: int
    kernel: Literal[1, 3]
    stride: Literal[1, 2]
    groups: int
    activated: bool
    side: int


class Architecture(Spec):
    """The widths of a MobileNetV2, pruned or not: with it and its tensors a network is whole.

    The stem reads the picture, or what the `front_end` leaves of it.
    """

    side: int = Field(ge=32)
    stem: int = Field(ge=1)
    blocks: tuple[Block, ...]
    last: int = Field(ge=1)
    hidden: tuple[int, ...]
    classes: int = Field(ge=2)
    front_end: FrontEnd | None = Field(default=None, exclude_if=is_none)

    @property
    def convolutions(self) -> tuple[Convolution, ...]:
        """Every convolution in order, with the stage that it belongs to and the side of its output."""
        return tuple(_convolutions(self))

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one picture, convolutions and head."""
        widths = (self.last, *self.hidden, self.classes)
        head = sum(before * after for before, after in itertools.pairwise(widths))
        return head + sum(
            one.side**2 * one.outputs * one.kernel**2 * one.inputs // one.groups for one in self.convolutions
        )

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        widths = (self.last, *self.hidden, self.classes)
        head = sum((before + 1) * after for before, after in itertools.pairwise(widths))
        return head + sum(one.outputs * (one.kernel**2 * one.inputs // one.groups + 1) for one in self.convolutions)


def architecture(width: float, head: str, classes: int, side: int) -> Architecture:
    """The unpruned network of a width multiplier, with torchvision's rounding of channels to multiples of 8."""
    stem, blocks = _widened(_STEM, _STAGES, width)
    return Architecture(
        side=side,
        stem=stem,
        blocks=blocks,
        last=_rounded(_LAST * max(1.0, width)),
        hidden=_HIDDEN[head],
        classes=classes,
    )


def residual_architecture(front_end: FrontEnd, width: float, classes: int, side: int) -> Architecture:
    """The unpruned network behind a front end: fine stages only, and a head of one layer."""
    stem, blocks = _widened(_FINE_STEM, _FINE_STAGES, width)
    last = _rounded(_FINE_LAST * width)
    return Architecture(side=side, stem=stem, blocks=blocks, last=last, hidden=(), classes=classes, front_end=front_end)


def _widened(stem: int, stages: Sequence[tuple[int, int, int, int]], width: float) -> tuple[int, tuple[Block, ...]]:
    inputs = _rounded(stem * width)
    widened, blocks = inputs, []
    for expansion, channels, repetitions, first_stride in stages:
        outputs = _rounded(channels * width)
        for repetition in range(repetitions):
            stride: Any = first_stride if repetition == 0 else 1
            blocks.append(
                Block(
                    expands=expansion != 1,
                    expanded=inputs * expansion,
                    channels=outputs,
                    stride=stride,
                    residual=stride == 1 and inputs == outputs,
                )
            )
            inputs = outputs
    return widened, tuple(blocks)


def unlocked_names(shape: Architecture, unlocked: int | Literal["all"]) -> frozenset[str]:
    """The convolutions among the last `unlocked` layers, counted as Keras lists them; a folded norm goes with its own.

    A convolution is a layer, its batch norm is one, and its activation, where it has one, is one more.
    """
    if unlocked == "all":
        return frozenset(one.name for one in shape.convolutions)
    names = []
    left = unlocked
    for one in reversed(shape.convolutions):
        left -= 3 if one.activated else 2
        if left < 0:
            break
        names.append(one.name)
    return frozenset(names)


def torchvision_names(shape: Architecture) -> Iterator[tuple[str, str]]:
    """(convolution, batch norm) of every convolution, in order, as `torchvision.models.mobilenet_v2` names them."""
    yield "features.0.0", "features.0.1"
    for number, block in enumerate(shape.blocks, start=1):
        place = f"features.{number}.conv"
        positions = 2 if block.expands else 1
        for position in range(positions):
            yield f"{place}.{position}.0", f"{place}.{position}.1"
        yield f"{place}.{positions}", f"{place}.{positions + 1}"
    last = len(shape.blocks) + 1
    yield f"features.{last}.0", f"features.{last}.1"


def _convolutions(shape: Architecture) -> Iterator[Convolution]:
    side = (shape.side + 1) // 2
    yield Convolution(
        name="stages.0.stem", stage=0, inputs=3, outputs=shape.stem, kernel=3, stride=2, groups=1, activated=True,
        side=side,
    )  # fmt: skip
    inputs = shape.stem
    for stage, block in enumerate(shape.blocks, start=1):
        place = f"stages.{stage}"
        if block.expands:
            yield Convolution(
                name=f"{place}.expansion", stage=stage, inputs=inputs, outputs=block.expanded, kernel=1, stride=1,
                groups=1, activated=True, side=side,
            )  # fmt: skip
        side = (side + 1) // 2 if block.stride == 2 else side
        yield Convolution(
            name=f"{place}.depthwise", stage=stage, inputs=block.expanded, outputs=block.expanded, kernel=3,
            stride=block.stride, groups=block.expanded, activated=True, side=side,
        )  # fmt: skip
        yield Convolution(
            name=f"{place}.projection", stage=stage, inputs=block.expanded, outputs=block.channels, kernel=1, stride=1,
            groups=1, activated=False, side=side,
        )  # fmt: skip
        inputs = block.channels
    stage = len(shape.blocks) + 1
    yield Convolution(
        name=f"stages.{stage}.last", stage=stage, inputs=inputs, outputs=shape.last, kernel=1, stride=1, groups=1,
        activated=True, side=side,
    )  # fmt: skip


def _rounded(channels: float) -> int:
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
