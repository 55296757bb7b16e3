"""What stands between a picture and the stem of a `residual` network: all that it leaves are differences of neighbours.

Each is a difference of pixels that are near, so that what a picture shows is gone, and so are brightness and colour.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from tasks.spec.detectors import FrontEnd

if TYPE_CHECKING:
    import torch

# Where the eight neighbours lie in a picture with a border of one pixel: (down, across).
NEIGHBOURS = tuple((down, across) for down in range(3) for across in range(3) if (down, across) != (1, 1))

# Batcher's odd-even merge sort of eight values (1968): each pair is put in order, one after the other.
_SORTING = (
    ((0, 1), (2, 3), (4, 5), (6, 7)),
    ((0, 2), (1, 3), (4, 6), (5, 7)),
    ((1, 2), (5, 6)),
    ((0, 4), (1, 5), (2, 6), (3, 7)),
    ((2, 4), (3, 5)),
    ((1, 2), (3, 4), (5, 6)),
)

# The smaller or the larger of two values, by their numbers; values 0 to 7 are given, each step makes the next one.
Step = tuple[Literal["minimum", "maximum"], int, int]


def median_steps() -> tuple[tuple[Step, ...], tuple[int, int]]:
    """How to find the two middle ones of eight values by comparing two at a time, and which numbers they have then."""
    wires = list(range(8))
    made: list[Step] = []
    for pairs in _SORTING:
        for low, high in pairs:
            left, right = wires[low], wires[high]
            made += [("minimum", left, right), ("maximum", left, right)]
            wires[low], wires[high] = 6 + len(made), 7 + len(made)
    needed = {wires[3], wires[4]}
    for number in range(len(made) - 1, -1, -1):
        if 8 + number in needed:
            needed |= set(made[number][1:])
    kept = [number for number in range(len(made)) if 8 + number in needed]
    renamed = {old: old for old in range(8)} | {8 + old: 8 + new for new, old in enumerate(kept)}
    steps = tuple((kind, renamed[left], renamed[right]) for kind, left, right in (made[number] for number in kept))
    return steps, (renamed[wires[3]], renamed[wires[4]])


def front_end(kind: FrontEnd, x: torch.Tensor) -> torch.Tensor:
    """What is left of pictures (B, 3, h, w), sides even: as large, in their units; no gradient passes.

    Beyond the border lies what mirrors at it. The median of eight values is the mean of the middle two.
    """
    import torch

    with torch.no_grad():
        return _FRONT_ENDS[kind](x)


def _median(x: torch.Tensor) -> torch.Tensor:
    import torch
    from torch.nn.functional import pad

    height, width = x.shape[2:]
    wide = pad(x, (1, 1, 1, 1), mode="reflect")
    values = [wide[:, :, down : down + height, across : across + width] for down, across in NEIGHBOURS]
    steps, middle = median_steps()
    for kind, left, right in steps:
        values.append(getattr(torch, kind)(values[left], values[right]))
    return x - (values[middle[0]] + values[middle[1]]) * 0.5


def _wavelet(x: torch.Tensor) -> torch.Tensor:
    from torch.nn.functional import pad

    wide = pad(x, (0, 1, 0, 1), mode="reflect")
    along = wide[:, :, :, :-1] - wide[:, :, :, 1:]
    return (along[:, :, :-1] - along[:, :, 1:]) * 0.5


def _nearest(x: torch.Tensor) -> torch.Tensor:
    from torch.nn.functional import interpolate

    return x - interpolate(x[:, :, ::2, ::2], scale_factor=2, mode="nearest")


_FRONT_ENDS = {"median": _median, "wavelet": _wavelet, "nearest": _nearest}
