"""A linear head on sparse co-occurrences of noise residuals as one ONNX graph, from a picture's bytes to the answer.

The features are those of `tasks.features.cooccurrence`, sparse, and equal to them: all that is counted are whole
numbers, which float32 holds. A file of some 150 kB sees what most pictures leave unseen, and nothing that they show.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.features.cooccurrence import (
    CHROMA_STEP,
    DIFFERENCES,
    EXTREME_STEP,
    IN_A_ROW,
    LEVELS,
    MIN_SIDE,
    SPARSE_MIN_SIDE,
    SPARSE_STEP,
    SQUARE_3_STEP,
    SQUARE_5_STEP,
    TILE,
    TRUNCATION,
    alike,
)
from tasks.networks.onnx_graph import FLOAT, INT32, OnnxGraph, serialised

Float = npt.NDArray[np.float64]

# What such a network tells apart: all generators are one class.
CLASSES = ("real", "generated")

# The Ker-Boehme kernel of `square_5`.
_SQUARE_5 = ((-1, 2, -2, 2, -1), (2, -6, 8, -6, 2), (-2, 8, -12, 8, -2), (2, -6, 8, -6, 2), (-1, 2, -2, 2, -1))
# A quotient that is rounded to the even neighbour is rounded away from zero when it is this much larger.
_AWAY_FROM_ZERO = 1 + 1e-4
# Less than the root of any frequency that is not zero.
_NONE = 1e-9

# One of the patterns that begin at a pixel: the names of its levels, first to last.
Digits = Sequence[str]


@dataclass(frozen=True, eq=False)
class PatternHead:
    """A calibrated linear decision on D sparse co-occurrences: the log odds of a generated picture, all float64.

    `coef` (D,) and `intercept`; `class_means` (2, D) of the training windows, photographs first, from which the
    distance of `familiarity` is measured. As features are square roots of frequencies, half of a squared distance is
    the sum over blocks of their squared Hellinger distances.
    """

    coef: Float
    intercept: float
    class_means: Float


def build_pattern_graph(head: PatternHead, side: int) -> bytes:
    """The head as an ONNX file; equal heads give equal bytes.

    Input `picture`: uint8 (height, width, 3), RGB. Outputs as `Detection`, for `CLASSES`. The activation has a place
    for each `TILE` x `TILE` of the pixels at which patterns begin.

    Args:
        head: what is decided.
        side: of the windows that it is shown, in pixels; any picture is answered.
    """
    graph = _PatternGraph(head)
    graph.add_planes()
    graph.add_patterns()
    graph.add_counts()
    graph.add_answers()
    return serialised(graph.model(CLASSES, 1.0, side, ("rows", "columns")))


class _PatternGraph(OnnxGraph):
    """The graph in the making. `codes` number the patterns that begin at each pixel, each block its own way."""

    def __init__(self, head: PatternHead) -> None:
        super().__init__()
        self.head = head
        self.codes: list[str] = []
        self.classes: list[npt.NDArray[np.int64]] = []  # of the patterns of each block
        self.per_start: list[int] = []  # how many patterns of each class's block begin at a pixel
        self.taken: dict[tuple[str, int, int], str] = {}
        self.numbers = itertools.count()

    def add(self, kind: str, *inputs: str, **attributes: object) -> str:
        """Append a node that nobody names."""
        return self.node(kind, inputs, f"{kind.lower()}.{next(self.numbers)}", **attributes)

    def add_planes(self) -> None:
        """From `picture` to the planes `red`, `green`, `blue`, `grey` (H, W), and the `starts` of patterns (2,)."""
        self.node("Shape", ["picture"], "picture.shape", start=0, end=2)
        missing = self.add("Max", self.add("Sub", self.integers(SPARSE_MIN_SIDE), "picture.shape"), self.integers(0))
        pads = self.add("Concat", self.integers(0, 0, 0), missing, self.integers(0), axis=0)
        self.node("Pad", [self.add("Cast", "picture", to=FLOAT), pads], "wide", mode="edge")
        self.node("Transpose", ["wide"], "planes", perm=[2, 0, 1])
        for channel, name in enumerate(("red", "green", "blue")):
            self.node("Gather", ["planes", self.constant(f"channel.{channel}", channel, np.int64)], name, axis=0)
        weighed = [
            self.add("Mul", name, self.constant(f"weight.{name}", weight))
            for name, weight in (("red", 77.0), ("green", 150.0), ("blue", 29.0))
        ]
        summed = self.add("Add", self.add("Add", *weighed[:2]), weighed[2])
        rounded = self.add("Add", summed, self.constant("half", 128.0))
        self.node("Floor", [self.add("Mul", rounded, self.constant("over", 1 / 256))], "grey")
        self.node("Shape", ["wide"], "wide.shape", start=0, end=2)
        room = self.add("Sub", "wide.shape", self.integers(MIN_SIDE))
        self.node("Div", [room, self.integers(TILE * SPARSE_STEP)], "tiles")
        self.node("Mul", ["tiles", self.integers(TILE * SPARSE_STEP)], "starts")

    def add_patterns(self) -> None:
        """The codes of all patterns, block by block as `cooccurrences` has them."""
        down = across = "grey"
        for _, step_size in DIFFERENCES:
            down, across = self._difference(down, 0), self._difference(across, 1)
            levels = [self._quantised(residual, step_size) for residual in (down, across)]
            self._add_block([self._row(one, axis) for axis, one in enumerate(levels)])
            self._add_block([self._row(one, 1 - axis) for axis, one in enumerate(levels)])
        for residual, step_size in ((self._square_3("grey"), SQUARE_3_STEP), (self._square_5("grey"), SQUARE_5_STEP)):
            levels = [self._quantised(residual, step_size)]
            self._add_block([self._row(levels[0], axis) for axis in (0, 1)])
        extremes = [self._quantised(residual, EXTREME_STEP) for residual in self._extremes("grey")]
        self._add_block([self._row(one, axis) for one in extremes for axis in (0, 1)], signs=False)
        for name in ("red", "blue"):
            chroma = self.add("Sub", name, "green")
            levels = [self._quantised(self._difference(chroma, axis), CHROMA_STEP) for axis in (0, 1)]
            self._add_block([self._row(one, axis) for axis, one in enumerate(levels)])
        self._add_colours()

    def _add_colours(self) -> None:
        colours = ("red", "green", "blue")
        residuals = [dict.fromkeys((0, 1), name) for name in colours]
        for _, step_size in DIFFERENCES:
            residuals = [{axis: self._difference(one[axis], axis) for axis in (0, 1)} for one in residuals]
            joint = [[self._first(self._quantised(one[axis], step_size)) for one in residuals] for axis in (0, 1)]
            self._add_block(joint, reversals=False)
        squares = [self._first(self._quantised(self._square_3(name), SQUARE_3_STEP)) for name in colours]
        self._add_block([squares], reversals=False)

    def add_counts(self) -> None:
        """From the codes to `features` (1, D), square roots of relative frequencies."""
        known = np.concatenate(self.classes)  # (P,): the class of each pattern of each block
        self.node("Concat", [self.add("Unsqueeze", code, self.integers(0)) for code in self.codes], "named", axis=0)
        self.node("Cast", ["named"], "patterns", to=INT32)  # (31, rows, columns)
        every = self.node("Reshape", ["patterns", self.integers(-1)], "every.pattern")
        ones = self.add("Expand", self.constant("one", [1.0]), self.add("Shape", every))
        nothing = self.constant("no.patterns", np.zeros(len(known)))
        counts = self.node("ScatterElements", [nothing, every, ones], "counts", axis=0, reduction="add")
        nothing = self.constant("no.classes", np.zeros(len(self.per_start)))
        self.constant("classes", known, np.int32)
        by_class = self.node("ScatterElements", [nothing, "classes", counts], "by.class", axis=0, reduction="add")
        places = self.add("Cast", self.add("ReduceProd", "starts", keepdims=1), to=FLOAT)
        places = self.add("Div", places, self.constant("sparse", [float(SPARSE_STEP**2)]))
        self.constant("per.start", self.per_start)
        of_all = self.add("Mul", places, "per.start")
        self.node("Sqrt", [self.add("Div", by_class, of_all)], "frequencies.roots")
        self.node("Unsqueeze", ["frequencies.roots", self.integers(0)], "features")

    def add_answers(self) -> None:
        """From `features` to the outputs. Each class has half of the log odds."""
        halves = np.stack([-self.head.coef, self.head.coef]) / 2  # (2, D)
        offsets = np.array([-self.head.intercept, self.head.intercept]) / 2
        self.constant("coef", halves)
        inputs = ["features", "coef", self.constant("intercept", offsets)]
        self.node("Reshape", [self.add("Gemm", *inputs, transB=1), self.integers(-1)], "logits")
        self.add_probabilities(1.0)
        apart = self.add("Sub", "features", self.constant("class.means", self.head.class_means))  # (2, D)
        self.add_familiarity(self.add("ReduceSumSquare", apart, self.integers(1), keepdims=0))
        self._add_activation()

    def _add_activation(self) -> None:
        """A class adds w sqrt(f) = w / sqrt(f) * f to the logit: each of its patterns as much as any other."""
        found = self.add("Max", "frequencies.roots", self.constant("none", _NONE))
        weight = self.add("Gather", "coef", self.constant("generated", 1, np.int64), axis=0)
        each = self.add("Div", weight, self.add("Mul", found, "per.start"))  # (D,)
        # Of single numbers, which `Gather` copies as blocks, twenty times as slowly.
        by_pattern = self.add("GatherElements", each, "classes", axis=0)  # (P,)
        every = self.add("GatherElements", by_pattern, "every.pattern", axis=0)
        spoken = self.add("Reshape", every, self.add("Shape", "patterns"))  # (31, rows, columns)
        summed = self.add("ReduceSum", spoken, self.integers(0), keepdims=1)
        tiles = self.add(
            "AveragePool", self.add("Unsqueeze", summed, self.integers(0)), kernel_shape=[TILE] * 2, strides=[TILE] * 2
        )
        generated = self.add("Squeeze", tiles, self.integers(0))  # (1, rows, columns)
        self.node("Concat", [self.add("Neg", generated), generated], "activation", axis=0)

    def _add_block(self, patterns: Iterable[Digits], *, signs: bool = True, reversals: bool = True) -> None:
        """Patterns that are counted together, all of one length."""
        listed = list(patterns)
        length = len(listed[0])
        first = sum(len(one) for one in self.classes)
        self.codes += [self._code(digits, first) for digits in listed]
        of_block = alike(length, signs=signs, reversals=reversals)
        self.classes.append(of_block + len(self.per_start))
        self.per_start += [len(listed)] * (int(of_block.max()) + 1)

    def _code(self, digits: Digits, first: int) -> str:
        """The number of each pattern of levels -2..2, which are digits, plus that of the block's first pattern."""
        code = digits[0]
        for digit in digits[1:]:
            code = self.add("Add", self.add("Mul", code, self.constant("levels", float(LEVELS))), digit)
        zero = first + sum(TRUNCATION * LEVELS**place for place in range(len(digits)))
        return self.add("Add", code, self.constant(f"zero.{zero}", float(zero)))

    def _row(self, levels: str, axis: int) -> Digits:
        """The levels of four neighbours along an axis."""
        return [self._shifted(levels, by if axis == 0 else 0, by if axis == 1 else 0) for by in range(IN_A_ROW)]

    def _first(self, levels: str) -> str:
        return self._shifted(levels, 0, 0)

    def _shifted(self, levels: str, down: int, across: int) -> str:
        """The levels so many pixels from where patterns begin; the same are taken once."""
        if (levels, down, across) not in self.taken:
            ends = self.add("Add", "starts", self.integers(down, across))
            inputs = (
                levels,
                self.integers(down, across),
                ends,
                self.integers(0, 1),
                self.integers(SPARSE_STEP, SPARSE_STEP),
            )
            self.taken[levels, down, across] = self.add("Slice", *inputs)
        return self.taken[levels, down, across]

    def _quantised(self, residual: str, step_size: int) -> str:
        """Levels -2..2 as `quantise` has them, less what it adds."""
        if step_size > 1:
            factor = self.constant(f"step.{step_size}", _AWAY_FROM_ZERO / step_size)
            residual = self.add("Round", self.add("Mul", residual, factor))
        limits = (self.constant("lowest", float(-TRUNCATION)), self.constant("highest", float(TRUNCATION)))
        return self.add("Clip", residual, *limits)

    def _part(self, plane: str, start: tuple[int, int], end: tuple[int, int]) -> str:
        """Of a plane the rows and columns from `start`, without as many as -`end` says at its end."""
        far = [one or np.iinfo(np.int32).max for one in end]
        return self.add("Slice", plane, self.integers(*start), self.integers(*far), self.integers(0, 1))

    def _difference(self, plane: str, axis: int) -> str:
        later, sooner = ((1, 0), (-1, 0)) if axis == 0 else ((0, 1), (0, -1))
        return self.add("Sub", self._part(plane, later, (0, 0)), self._part(plane, (0, 0), sooner))

    def _square_3(self, plane: str) -> str:
        """The second differences down of those across, with the other sign."""
        across = self._difference(self._difference(plane, 1), 1)
        return self.add("Neg", self._difference(self._difference(across, 0), 0))

    def _square_5(self, plane: str) -> str:
        kernel = self.constant("square.5", np.array(_SQUARE_5)[None, None])
        filtered = self.add("Conv", self.add("Unsqueeze", plane, self.integers(0, 1)), kernel)
        return self.add("Squeeze", filtered, self.integers(0, 1))

    def _extremes(self, plane: str) -> tuple[str, str]:
        """The largest difference from one of the four neighbours, and the smallest with its sign turned."""
        down, across = self._difference(plane, 0), self._difference(plane, 1)
        differences = (
            self._part(down, (1, 1), (0, -1)),
            self.add("Neg", self._part(down, (0, 1), (-1, -1))),
            self._part(across, (1, 1), (-1, 0)),
            self.add("Neg", self._part(across, (1, 0), (-1, -1))),
        )
        return self.add("Max", *differences), self.add("Neg", self.add("Min", *differences))
