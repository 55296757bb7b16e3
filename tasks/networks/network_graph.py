"""A network written as an ONNX graph, from a picture's bytes to the answer.

The graph holds everything: central square, resize, normalisation, network, calibration, familiarity and activation map,
so that Python and the app cannot differ. It is written node by node; names are those of the torch module's tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from storage.errors import SpecError
from tasks.networks.architecture import Architecture, Convolution
from tasks.networks.front_ends import NEIGHBOURS, median_steps
from tasks.networks.onnx_graph import FLOAT, OnnxGraph, serialised
from tasks.networks.trained import TrainedNetwork
from tasks.spec.detectors import FrontEnd

# What a front end leaves of `normalised`.
FRONT = "front"

# Outputs of the resize that are computed together. More would multiply more zeros, fewer would be less of a product.
BLOCK = 4


def build_graph(network: TrainedNetwork) -> bytes:
    """The network as an ONNX file; equal networks give equal bytes.

    Input `picture`: uint8 (height, width, 3), RGB; what `checked_picture` lets pass. Outputs as `Detection`.
    Probabilities agree with `prepare_picture` and the torch module within 1e-4, but that of pictures that are larger
    than `side` a network behind a front end sees the centre and no reduction. Metadata properties: `kind`, `classes`
    (JSON), `temperature`, `side`.

    Raises:
        SpecError: a tensor of the network is missing or of another shape.
    """
    graph = _Graph(network)
    graph.add_preprocessing()
    graph.add_stages()
    graph.add_head()
    graph.add_answers()
    side = network.shape.convolutions[-1].side
    return serialised(graph.model(network.classes, network.temperature, network.shape.side, (side, side)))


def head_layers(shape: Architecture) -> tuple[str, ...]:
    """Names of the head's linear layers in order: a ReLU lies between each and the next."""
    return tuple(f"head.{2 * number}" for number in range(len(shape.hidden) + 1))


class _Graph(OnnxGraph):
    """The ONNX graph of a network in the making."""

    def __init__(self, network: TrainedNetwork) -> None:
        super().__init__()
        self.network = network

    def tensor(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """One of the network's tensors, of the shape that its architecture says."""
        tensor = self.network.tensors.get(name)
        if tensor is None or tensor.shape != shape:
            got = None if tensor is None else tensor.shape
            raise SpecError(f"weights of another network: {name}: expected {shape}, got {got}")
        return np.asarray(tensor, dtype=np.float32)

    def add_preprocessing(self) -> None:
        """From `picture` to `resized` (1, 3, side, side), 0..255, and `normalised`: less the mean, over nothing yet."""
        from tasks.networks.mobilenet_network import MEAN

        side = self.network.shape.side
        self._add_triangles()
        self.node("Sub", ["picture.shape", "square.side"], "square.margin")  # (2,)
        self.node("Div", ["square.margin", self.integers(2)], "square.start")  # (2,): top, left; rounded down
        for axis, name in enumerate(("rows", "columns")):
            self.node("Gather", ["square.start", self.integers(axis)], f"{name}.start", axis=0)
            self.node("Add", ["triangles.inputs", f"{name}.start"], f"{name}.inputs")  # (blocks, taps)
        self.node("Gather", ["picture", "rows.inputs"], "rows.gathered", axis=0)  # (blocks, taps, width, 3)
        self.node("Reshape", ["rows.gathered", self.integers(0, 0, -1)], "rows.bytes")
        self.node("Cast", ["rows.bytes"], "rows.float", to=FLOAT)
        self.node("Cast", ["triangles"], "triangles.float", to=FLOAT)
        self.node(
            "ReduceSum", ["triangles.float", self.integers(-1)], "triangles.sum", keepdims=1
        )  # (blocks, BLOCK, 1)
        self.node("MatMul", ["triangles.float", "rows.float"], "rows")  # (blocks, BLOCK, width * 3), whole numbers
        self.node("Reshape", ["rows", self.integers(side, -1)], "rows.summed")  # (side, width * 3)
        # Turned, so that columns are rows; a transpose of two axes is several times as fast as one of three.
        self.node("Transpose", ["rows.summed"], "rows.turned", perm=[1, 0])
        self.node("Reshape", ["rows.turned", self.integers(-1, 3 * side)], "columns.pixels")  # (width, 3 * side)
        self.node("Gather", ["columns.pixels", "columns.inputs"], "columns.gathered", axis=0)
        self.node("MatMul", ["triangles.float", "columns.gathered"], "columns")  # (blocks, BLOCK, 3 * side)
        self.node("Reshape", ["columns", self.integers(1, side, 3, side)], "columns.summed")
        self.node("Transpose", ["columns.summed"], "summed", perm=[0, 2, 3, 1])  # (1, 3, down, across)
        self.node("Reshape", ["triangles.sum", self.integers(1, side)], "area.across")
        self.node("Reshape", ["triangles.sum", self.integers(side, 1)], "area.down")
        self.node("Mul", ["area.down", "area.across"], "area")  # (side, side)
        self.node("Div", ["summed", "area"], "resized")
        mean = self.constant("mean", 255 * np.array(MEAN)[None, :, None, None])
        self.node("Sub", ["resized", mean], "normalised")

    def _add_triangles(self) -> None:
        """The weights of the antialiased bilinear resize from n (the square's side) to `side`, in blocks of outputs.

        Output i weighs input j by max(0, 1 - |(j + 0.5) - (i + 0.5) * n / side| / max(1, n / side)), over the sum; here
        times 2 * max(n, side), which makes them integers. A block of neighbouring outputs reads one run of inputs, so
        that the resize is small products of dense matrices, which take about half the time of ONNX Runtime's Resize.

        Makes `triangles` int64 (blocks, BLOCK, taps) and `triangles.inputs` int64 (blocks, taps), within the square.
        """
        side = self.network.shape.side
        block = next(size for size in range(BLOCK, 0, -1) if side % size == 0)
        centres = (2 * np.arange(side) + 1).reshape(-1, block)  # in half outputs
        one, two, zero = (self.integers(value) for value in (1, 2, 0))
        whole_side = self.integers(side)
        self.node("Shape", ["picture"], "picture.shape", start=0, end=2)  # (2,): height, width
        if self.network.shape.front_end is None:
            self.node("ReduceMin", ["picture.shape"], "square.side", keepdims=1)  # (1,): n
        else:
            # What lies behind a front end sees original pixels: of a larger picture the central ones.
            self.node("ReduceMin", ["picture.shape"], "picture.side", keepdims=1)
            self.node("Min", ["picture.side", whole_side], "square.side")
        self.node("Max", ["square.side", whole_side], "support")
        self.node("Mul", ["support", two], "support.twice")
        # The first input of a block: the smallest j that its first output weighs, floor((centre - support) + 0.5).
        firsts = self.constant("centres.first", centres[:, :1], np.int64)
        self.node("Mul", [firsts, "square.side"], "first.centre")  # (blocks, 1), in 1 / (2 * side) inputs, as below
        self.node("Sub", ["first.centre", "support.twice"], "first.left")
        self.node("Add", ["first.left", whole_side], "first.rounded")
        self.node("Max", ["first.rounded", zero], "first.within")
        self.node("Div", ["first.within", self.integers(2 * side)], "first")
        # As many inputs as any block can need: ((block - 1) * n + 2 * support) / side + 1.
        self.node("Mul", ["square.side", self.integers(block - 1)], "taps.centres")
        self.node("Add", ["taps.centres", "support.twice"], "taps.both")
        self.node("Div", ["taps.both", whole_side], "taps.between")
        self.node("Add", ["taps.between", one], "taps.number")
        self.node("Squeeze", ["taps.number"], "taps.count")
        start, stride = self.constant("taps.start", 0, np.int64), self.constant("taps.stride", 1, np.int64)
        self.node("Range", [start, "taps.count", stride], "taps")
        self.node("Add", ["first", "taps"], "inputs")  # (blocks, taps): j
        self.node("Mul", ["inputs", self.integers(2 * side)], "inputs.left")
        self.node("Add", ["inputs.left", whole_side], "inputs.centre")
        self.node("Unsqueeze", ["inputs.centre", one], "inputs.centres")  # (blocks, 1, taps)
        outputs = self.constant("centres", centres[:, :, None], np.int64)
        self.node("Mul", [outputs, "square.side"], "outputs.centres")  # (blocks, block, 1)
        self.node("Sub", ["outputs.centres", "inputs.centres"], "offset")
        self.node("Abs", ["offset"], "distance")
        self.node("Sub", ["support.twice", "distance"], "height")
        self.node("Less", ["inputs", "square.side"], "inputs.exist")
        self.node("Unsqueeze", ["inputs.exist", one], "inputs.real")
        self.node("Where", ["inputs.real", "height", zero], "height.within")
        self.node("Max", ["height.within", zero], "triangles")
        self.node("Sub", ["square.side", one], "square.last")
        self.node("Min", ["inputs", "square.last"], "triangles.inputs")

    def add_stages(self) -> None:
        """From `normalised` to `features.map` (1, D, h, w)."""
        shape = self.network.shape
        current = "normalised" if shape.front_end is None else self._add_front_end(shape.front_end, "normalised")
        residuals = (False, *(block.residual for block in shape.blocks), False)
        for stage, residual in enumerate(residuals):
            entered = current
            for one in shape.convolutions:
                if one.stage == stage:
                    current = self._add_convolution(one, current)
            if residual:
                current = self.node("Add", [entered, current], f"stages.{stage}.residual")
        self.feature_map = current

    def _add_front_end(self, kind: FrontEnd, entered: str) -> str:
        """As `tasks.networks.front_ends` has it; a factor of the picture is one of what it leaves."""
        side = self.network.shape.side
        half = self.constant("front.half", 0.5)

        def slice_(of: str, name: str, starts: Sequence[int], steps: Sequence[int] = (1, 1)) -> str:
            ends = self.integers(*(start + side for start in starts))
            return self.node(
                "Slice", [of, self.integers(*starts), ends, self.integers(2, 3), self.integers(*steps)], name
            )

        if kind == "nearest":
            scales = self.constant("front.scales", [1.0, 1.0, 2.0, 2.0])
            small = slice_(entered, "front.small", (0, 0), (2, 2))
            options = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
            large = self.node("Resize", [small, "", scales], "front.large", mode="nearest", **options)
            return self.node("Sub", [entered, large], FRONT)
        before = 1 if kind == "median" else 0
        pads = self.integers(0, 0, before, before, 0, 0, 1, 1)
        wide = self.node("Pad", [entered, pads], "front.wide", mode="reflect")
        if kind == "wavelet":
            corners = [slice_(wide, f"front.corner.{d}{a}", (d, a)) for d in (0, 1) for a in (0, 1)]
            upper = self.node("Sub", corners[:2], "front.upper")
            lower = self.node("Sub", corners[2:], "front.lower")
            return self.node("Mul", [self.node("Sub", [upper, lower], "front.detail"), half], FRONT)
        values = [slice_(wide, f"front.value.{number}", start) for number, start in enumerate(NEIGHBOURS)]
        steps, middle = median_steps()
        for operation, left, right in steps:
            name = f"front.value.{len(values)}"
            values.append(
                self.node({"minimum": "Min", "maximum": "Max"}[operation], [values[left], values[right]], name)
            )
        both = self.node("Add", [values[place] for place in middle], "front.both")
        return self.node("Sub", [entered, self.node("Mul", [both, half], "front.median")], FRONT)

    def _add_convolution(self, one: Convolution, entered: str) -> str:
        from tasks.networks.mobilenet_network import DEVIATION

        expected = (one.outputs, one.inputs // one.groups, one.kernel, one.kernel)
        weight = self.tensor(f"{one.name}.convolution.weight", expected)
        bias = self.tensor(f"{one.name}.convolution.bias", (one.outputs,))
        if one.stage == 0:
            # The mean is subtracted before the zeros of the border are added; a factor may as well come after them.
            weight = weight / (255 * np.array(DEVIATION, dtype=np.float32)[None, :, None, None])
        inputs = [
            entered,
            self.constant(f"{one.name}.convolution.weight", weight),
            self.constant(f"{one.name}.convolution.bias", bias),
        ]
        out = self.node(
            "Conv",
            inputs,
            f"{one.name}.convolution",
            kernel_shape=[one.kernel] * 2,
            strides=[one.stride] * 2,
            pads=[one.kernel // 2] * 4,
            group=one.groups,
        )
        if not one.activated:
            return out
        limits = [self.constant("relu6.min", 0.0), self.constant("relu6.max", 6.0)]
        return self.node("Clip", [out, *limits], f"{one.name}.activation")

    def add_head(self) -> None:
        """From the feature map to `logits` and `activation`."""
        shape = self.network.shape
        self.node("GlobalAveragePool", [self.feature_map], "features.pooled")  # (1, D, 1, 1)
        current = self.node("Flatten", ["features.pooled"], "features")  # (1, D)
        names = head_layers(shape)
        widths = (shape.last, *shape.hidden, shape.classes)
        active = []
        for number, name in enumerate(names):
            weight = self.tensor(f"{name}.weight", (widths[number + 1], widths[number]))
            bias = self.tensor(f"{name}.bias", (widths[number + 1],))
            inputs = [current, self.constant(f"{name}.weight", weight), self.constant(f"{name}.bias", bias)]
            current = self.node("Gemm", inputs, name, transB=1)
            if name != names[-1]:
                current = self.node("Relu", [current], f"{name}.relu")
                active.append(self.node("Sign", [current], f"{name}.active"))  # (1, width): 1 where it passes, else 0
        self.node("Reshape", [current, self.integers(-1)], "logits")  # (k,)
        # Backwards through the layers as they are at this picture: (k, width) to (k, width before).
        effective = f"{names[-1]}.weight"
        for name, mask in zip(reversed(names[:-1]), reversed(active), strict=True):
            masked = self.node("Mul", [effective, mask], f"{name}.masked")
            effective = self.node("MatMul", [masked, f"{name}.weight"], f"{name}.effective")
        places = self.node("Reshape", [self.feature_map, self.integers(shape.last, -1)], "features.places")  # (D, h*w)
        flat = self.node("MatMul", [effective, places], "activation.places")  # (k, h*w)
        side = shape.convolutions[-1].side
        self.node("Reshape", [flat, self.integers(shape.classes, side, side)], "activation")

    def add_answers(self) -> None:
        """From `logits` and `features` to `probabilities` and `familiarity`."""
        rejection = self.network.familiarity
        shape = self.network.shape
        if rejection.mean.shape != (shape.last,) or len(rejection.class_means) != shape.classes:
            raise SpecError(
                f"a rejection of another network: expected {shape.last} features and {shape.classes} classes, "
                f"got {len(rejection.mean)} and {len(rejection.class_means)}"
            )
        self.add_probabilities(self.network.temperature)
        self.node("Sub", ["features", self.constant("rejection.mean", rejection.mean)], "rejection.centred")
        projection = self.constant("rejection.projection", rejection.projection)
        self.node("MatMul", ["rejection.centred", projection], "rejection.projected")  # (1, d)
        means = self.constant("rejection.class_means", rejection.class_means)
        self.node("Sub", ["rejection.projected", means], "rejection.differences")  # (k, d)
        self.node("ReduceSumSquare", ["rejection.differences", self.integers(1)], "rejection.distances", keepdims=0)
        self.add_familiarity("rejection.distances")
