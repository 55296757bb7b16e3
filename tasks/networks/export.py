"""A network as one ONNX file from a picture's bytes to the answer, its card, and how it is run.

The graph holds everything: central square, resize, normalisation, network, calibration, familiarity and activation map,
so that Python and the app cannot differ. It is written node by node; names are those of the torch module's tensors.
"""

from __future__ import annotations

import base64
import functools
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from storage.digest import canonical_json, sha256_hex
from storage.errors import BadImage, DamagedObject, SpecError, WrongAnswers
from storage.objects import PartContent, Ref, read_part
from storage.store import Store
from tasks.data.pictures import Pixels
from tasks.device import processor_name
from tasks.networks.architecture import Architecture, Convolution
from tasks.networks.familiarity import SCORES
from tasks.networks.trained import TrainedNetwork
from tasks.recipe import Output, StepRun, folder_name, step

if TYPE_CHECKING:
    import onnx

Float32 = npt.NDArray[np.float32]

MODEL, CARD = "model.onnx", "card.json"
KIND = "telltale-detector"

OUTPUTS = ("logits", "probabilities", "familiarity", "activation")

LONGEST_SIDE = 1024
SHORTEST_SIDE = 16

# Opset 18 and the file format of its time, which runtimes since 2023 read.
OPSET, IR_VERSION = 18, 8

# ONNX Runtime's option for exact sums of 8-bit products, at the cost of speed.
EXACT_SUMS = "session.x64quantprecision"

_FLOAT = 1  # onnx.TensorProto.FLOAT, without importing onnx

# Outputs of the resize that are computed together. More would multiply more zeros, fewer would be less of a product.
BLOCK = 4

# Outputs of another runtime or processor may differ from the card's by this much and still be the same network's.
SELF_TEST_TOLERANCE = 1e-3
# A card that lets pass more than this has no self-test.
LARGEST_TOLERANCE = 1e-2

# A model of one node: `c` = `a` (uint8, 1 x 4) times `b` (int8, 4 x 1), in 32 bits.
SUM_OF_BYTES = (
    b'\x08\x08:\\\n\x18\n\x01a\n\x01b\x12\x01c"\rMatMulInteger\x12\x01gZ\x13\n\x01a\x12\x0e\n\x0c\x08\x02\x12\x08\n\x02\x08'
    b"\x01\n\x02\x08\x04Z\x13\n\x01b\x12\x0e\n\x0c\x08\x03\x12\x08\n\x02\x08\x04\n\x02\x08\x01b\x13\n\x01c\x12\x0e\n\x0c\x08\x06"
    b"\x12\x08\n\x02\x08\x01\n\x02\x08\x01B\x04\n\x00\x10\x12"
)


@dataclass(frozen=True, eq=False)
class Detection:
    """What a network says about one picture, all float32.

    `logits` (k,), uncalibrated; `probabilities` (k,), calibrated; `familiarity` (3,), columns as
    `tasks.networks.familiarity.SCORES`; `activation` (k, h, w): how much each place of the central square speaks for
    each class. A class's activation, averaged over all places, is its logit but for a bias (Zhou et al. 2016, "Learning
    Deep Features for Discriminative Localization"; hidden layers are the linear map that they are at this picture).
    """

    logits: Float32
    probabilities: Float32
    familiarity: Float32
    activation: Float32


class ExportedNetwork:
    """An exported model, ready to run on the CPU with one thread.

    Args:
        model: the bytes of an ONNX file of `build_graph`, quantised or not.
        card: what it must agree with, if given: its `classes`, `sha256` and `self_test`, which is answered here, before
            any picture is.

    Raises:
        DamagedObject: the bytes are no ONNX model, or not those that the card was written for.
        SpecError: a model of another kind or of other inputs and outputs, its classes are not the card's, or the card's
            self-test is none.
        WrongAnswers: this machine computes other answers than the card's.
    """

    def __init__(self, model: bytes, card: Mapping[str, Any] | None = None) -> None:
        if card is not None and sha256_hex(model) != card["sha256"]:
            raise DamagedObject(f"{MODEL} is damaged: expected sha256 {card['sha256']}, got {sha256_hex(model)}")
        self._session = open_session(model)
        properties = self._session.get_modelmeta().custom_metadata_map
        if properties.get("kind") != KIND:
            raise SpecError(f"an ONNX model of another kind: expected {KIND}, got {properties.get('kind')!r}")
        try:
            self.classes: tuple[str, ...] = tuple(map(str, json.loads(properties["classes"])))
            self.temperature = float(properties["temperature"])
            self.side = int(properties["side"])
        except (KeyError, TypeError, ValueError) as error:
            raise SpecError(f"{MODEL}: expected classes, temperature and side in its properties: {error!r}") from error
        self._check_ends()
        if card is not None and list(self.classes) != list(card["classes"]):
            raise SpecError(f"the model's classes are not the card's: {list(self.classes)} and {list(card['classes'])}")
        if card is not None:
            self._answer_self_test(card["self_test"])

    @classmethod
    def load(cls, store: Store, ref: Ref) -> ExportedNetwork:
        """The model of an `export` or `quantize` object; errors as for the bytes, and as `read_part`'s."""
        return cls(read_part(store, ref, MODEL), json.loads(read_part(store, ref, CARD)))

    def detect(self, pixels: Pixels) -> Detection:
        """Run it on one picture, uint8 (H, W, 3), RGB, upright; larger ones are reduced by `reduce_picture` first.

        Raises:
            BadImage: `not-rgb`, or `too-narrow` (under 16 pixels in its shorter side, at most 1,024 in its longer).
            SpecError: the graph cannot be run, or its outputs are not as many as there are classes.
        """
        picture = np.ascontiguousarray(checked_picture(pixels))
        try:
            found = Detection(*self._session.run(OUTPUTS, {"picture": picture}))
        except Exception as error:  # as in `open_session`
            raise SpecError(f"{MODEL} cannot be run: {error}") from error
        count = len(self.classes)
        sides = (found.logits.shape, found.probabilities.shape, found.familiarity.shape, found.activation.shape[:1])
        if sides != ((count,), (count,), (len(SCORES),), (count,)):
            raise SpecError(f"{MODEL}: expected outputs for {count} classes and {len(SCORES)} scores, got {sides}")
        return found

    def _check_ends(self) -> None:
        given = {one.name: one.type for one in self._session.get_inputs()}
        made = {one.name: one.type for one in self._session.get_outputs()}
        if given != {"picture": "tensor(uint8)"} or any(made.get(name) != "tensor(float)" for name in OUTPUTS):
            raise SpecError(
                f"{MODEL} is none that telltale exports: expected the input picture in uint8 and the outputs "
                f"{', '.join(OUTPUTS)} in float32, got {given} and {made}"
            )

    def _answer_self_test(self, expected: Mapping[str, Any]) -> None:
        if not 0 < expected["tolerance"] <= LARGEST_TOLERANCE:
            raise SpecError(
                f"the card's self-test: expected a tolerance above 0 and at most {LARGEST_TOLERANCE:g}, "
                f"got {expected['tolerance']:g}"
            )
        # Logits as well: a network that is sure of the picture has the same probabilities for many of them.
        sides = (expected["height"], expected["width"], 3)
        found = self.detect(np.frombuffer(base64.b64decode(expected["pixels"]), dtype=np.uint8).reshape(sides))
        for name, got in (("probabilities", found.probabilities), ("logits", found.logits)):
            card = np.array(expected[name], dtype=np.float64)
            if card.shape != got.shape or not np.isfinite(card).all():
                raise SpecError(
                    f"the card's self-test: expected {len(got)} finite {name}, got {json.dumps(expected[name])}"
                )
            allowed = expected["tolerance"] * max(1.0, float(np.abs(card).max()))
            if not (np.abs(got - card) <= allowed).all():
                raise WrongAnswers(
                    f"this machine computes other answers with this network than its card says: {name} of the "
                    f"self-test: expected {_rounded(card)} within {allowed:.1g}, got {_rounded(got)}, by "
                    f"{_kernels()}; it would be wrong about pictures too, so none is answered. Use "
                    "another kind of processor, the ONNX Runtime of constraints.txt, or a network that is not quantised"
                )


def checked_picture(pixels: Pixels) -> Pixels:
    """The picture as the graph may get it: uint8 (H, W, 3), sides of 16..1,024 pixels.

    Raises:
        BadImage: `not-rgb` or `too-narrow`.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise BadImage("not-rgb", f"expected uint8 (height, width, 3), got {pixels.dtype} {pixels.shape}")
    height, width = pixels.shape[:2]
    if min(reduced_sides(height, width)) < SHORTEST_SIDE:
        raise BadImage(
            "too-narrow",
            f"expected at least {SHORTEST_SIDE} pixels in the shorter side with at most {LONGEST_SIDE} in the longer, "
            f"got {width}x{height}",
        )
    return reduce_picture(pixels)


def reduced_sides(height: int, width: int, longest: int = LONGEST_SIDE) -> tuple[int, int]:
    """(height, width) within `longest`: the longer side becomes `longest`, the other is rounded, halves up."""
    larger = max(height, width)
    if larger <= longest:
        return height, width
    reduced = [max(1, (2 * side * longest + larger) // (2 * larger)) for side in (height, width)]
    return reduced[0], reduced[1]


def reduce_picture(pixels: Pixels, longest: int = LONGEST_SIDE) -> Pixels:
    """uint8 (H, W, 3) with no side above `longest`: as it is, or reduced to `reduced_sides`.

    The kernel is Pillow's `BILINEAR` (an antialiased triangle in integers), which the app repeats bit by bit. For one
    side, from n to m pixels, in double precision: `scale` = n / m, `support` = max(scale, 1). Output pixel i lies at
    c = (i + 0.5) * scale and reads the pixels j from max(0, trunc(c - support + 0.5)) to
    min(n, trunc(c + support + 0.5)), exclusive. Their weights are max(0, 1 - |j - c + 0.5| / support) over their sum,
    each times 2^22, plus 0.5, truncated. A value is (2^21 + sum of weight * pixel) >> 22, clipped to 0..255. Rows are
    reduced first, to bytes, then columns; a side that keeps its length is left alone.
    """
    height, width = pixels.shape[:2]
    sides = reduced_sides(height, width, longest)
    if sides == (height, width):
        return pixels
    # In two calls: in one, Pillow reduces the columns of tall pictures first.
    narrowed = Image.fromarray(pixels).resize((sides[1], height), Image.Resampling.BILINEAR)
    return np.array(narrowed.resize((sides[1], sides[0]), Image.Resampling.BILINEAR))


def build_graph(network: TrainedNetwork) -> bytes:
    """The network as an ONNX file; equal networks give equal bytes.

    Input `picture`: uint8 (height, width, 3), RGB; what `checked_picture` lets pass. Outputs as `Detection`.
    Probabilities agree with `prepare_picture` and the torch module within 1e-4. Metadata properties: `kind`, `classes`
    (JSON), `temperature`, `side`.

    Raises:
        SpecError: a tensor of the network is missing or of another shape.
    """
    graph = _Graph(network)
    graph.add_preprocessing()
    graph.add_stages()
    graph.add_head()
    graph.add_answers()
    return serialised(graph.model())


def serialised(model: onnx.ModelProto) -> bytes:
    """The bytes of a model, checked, always the same for an equal one."""
    import onnx

    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def head_layers(shape: Architecture) -> tuple[str, ...]:
    """Names of the head's linear layers in order: a ReLU lies between each and the next."""
    return tuple(f"head.{2 * number}" for number in range(len(shape.hidden) + 1))


class _Graph:
    """An ONNX graph in the making."""

    def __init__(self, network: TrainedNetwork) -> None:
        self.network = network
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def node(self, kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Append a node whose one output has its name."""
        from onnx import helper

        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, name: str, values: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> str:
        """A named initialiser; naming it again uses the same one."""
        from onnx import numpy_helper

        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.array(values, dtype=dtype, order="C"), name)
        return name

    def integers(self, *values: int) -> str:
        """A one-dimensional constant such as axes and shapes."""
        return self.constant(f"integers.{'.'.join(map(str, values))}", values, np.int64)

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
        self.node("Cast", ["rows.bytes"], "rows.float", to=_FLOAT)
        self.node("Cast", ["triangles"], "triangles.float", to=_FLOAT)
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
        self.node("ReduceMin", ["picture.shape"], "square.side", keepdims=1)  # (1,): n
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
        current = "normalised"
        residuals = (False, *(block.residual for block in shape.blocks), False)
        for stage, residual in enumerate(residuals):
            entered = current
            for one in shape.convolutions:
                if one.stage == stage:
                    current = self._add_convolution(one, current)
            if residual:
                current = self.node("Add", [entered, current], f"stages.{stage}.residual")
        self.feature_map = current

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
        self.node("Div", ["logits", self.constant("temperature", self.network.temperature)], "calibrated")
        self.node("Softmax", ["calibrated"], "probabilities", axis=0)
        first = self.integers(0)
        self.node("ReduceMax", ["probabilities", first], "familiarity.max-probability", keepdims=1)
        self.node("ReduceLogSumExp", ["logits", first], "familiarity.energy", keepdims=1)
        self.node("Sub", ["features", self.constant("rejection.mean", rejection.mean)], "rejection.centred")
        projection = self.constant("rejection.projection", rejection.projection)
        self.node("MatMul", ["rejection.centred", projection], "rejection.projected")  # (1, d)
        means = self.constant("rejection.class_means", rejection.class_means)
        self.node("Sub", ["rejection.projected", means], "rejection.differences")  # (k, d)
        self.node("ReduceSumSquare", ["rejection.differences", self.integers(1)], "rejection.distances", keepdims=0)
        self.node("ReduceMin", ["rejection.distances", first], "rejection.nearest", keepdims=1)
        self.node("Neg", ["rejection.nearest"], "familiarity.distance")
        scores = [f"familiarity.{name}" for name in ("max-probability", "energy", "distance")]
        self.node("Concat", scores, "familiarity", axis=0)

    def model(self) -> onnx.ModelProto:
        """The finished model."""
        from onnx import TensorProto, helper

        shape = self.network.shape
        side = shape.convolutions[-1].side
        outputs: dict[str, list[int]] = {
            "logits": [shape.classes],
            "probabilities": [shape.classes],
            "familiarity": [3],
            "activation": [shape.classes, side, side],
        }
        graph = helper.make_graph(
            self.nodes,
            "telltale",
            [helper.make_tensor_value_info("picture", TensorProto.UINT8, ["height", "width", 3])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, sides) for name, sides in outputs.items()],
            list(self.constants.values()),
        )
        model = helper.make_model(
            graph, producer_name="telltale", ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
        )
        properties = {
            "kind": KIND,
            "classes": json.dumps(list(self.network.classes)),
            "temperature": repr(self.network.temperature),
            "side": str(shape.side),
        }
        helper.set_model_props(model, properties)
        return model


def open_session(model: bytes) -> Any:
    """An ONNX Runtime session on the CPU, with one thread, whose sums of 8-bit products are exact.

    Raises:
        DamagedObject: the bytes are no ONNX model that can be run.
        SpecError: the model has tensors in other files, which would be read from the working directory or above it.
    """
    _refuse_external_tensors(model)
    exact_sums = sums_saturate()
    try:
        return _session(model, exact_sums=exact_sums)
    except Exception as error:  # ONNX Runtime has one exception class per status and no root but Exception
        how = f", with {EXACT_SUMS} as this processor needs it" if exact_sums else ""
        raise DamagedObject(f"{MODEL} cannot be opened as an ONNX model{how}: {error}") from error


@functools.cache
def sums_saturate() -> bool:
    """Whether ONNX Runtime, left to itself, gets sums of unsigned times signed bytes wrong on this processor.

    On x86-64 without VNNI its kernels add two such products in 16 signed bits, which hold 32,767 at most. What decides
    is therefore the largest sum, not what a processor says of itself. (With `EXACT_SUMS` weights become unsigned, for
    which there are kernels without this. It is not for all: with VNNI a network takes nearly twice its time by it.)
    """
    session = _session(SUM_OF_BYTES, exact_sums=False)
    (found,) = session.run(None, {"a": np.full((1, 4), 255, np.uint8), "b": np.full((4, 1), 127, np.int8)})
    return int(found[0, 0]) != 4 * 255 * 127


def _session(model: bytes, *, exact_sums: bool) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # One thread, and always the same fusions: a sum's order decides its last bits.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4
    if exact_sums:
        options.add_session_config_entry(EXACT_SUMS, "1")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _refuse_external_tensors(model: bytes) -> None:
    # Whatever a tensor says of its file, it says under this key, and strings stand in one piece: most models need no
    # parsing, and a whole import, to be told apart.
    if b"location" not in model:
        return
    import onnx

    try:
        parsed = onnx.load_from_string(model)
    except Exception as error:  # protobuf's own DecodeError, of one of its several implementations
        raise DamagedObject(f"{MODEL} cannot be opened as an ONNX model: {error}") from error
    pending = [parsed]
    while pending:
        message = pending.pop()
        if isinstance(message, onnx.TensorProto) and message.external_data:
            raise SpecError(f"{MODEL}: expected all tensors in the file itself, got {message.name!r} in another file")
        for field, value in message.ListFields():
            if field.message_type is not None:
                pending += value if field.is_repeated else [value]


def reference_picture() -> Pixels:
    """The self-test's input, uint8 (48, 64, 3): gradients, a checkerboard and an edge."""
    down, across = np.mgrid[0:48, 0:64]
    red, green = across * 4, down * 5
    blue = (down // 6 + across // 6) % 2 * 160 + (across > 40) * 60
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


def _rounded(values: npt.NDArray[Any]) -> list[float]:
    return [float(f"{value:.4g}") for value in values]


def _kernels() -> str:
    """What computed an answer, for an error."""
    import onnxruntime

    sums = "8-bit sums saturate without its exact kernels" if sums_saturate() else "8-bit sums are exact"
    return f"ONNX Runtime {onnxruntime.__version__} on {processor_name()} ({platform.machine()}, where {sums})"


def self_test(model: bytes) -> dict[str, Any]:
    """A small input, its pixels in base64 (row by row, RGB), and what the model answers to it, for a card."""
    picture = reference_picture()
    found = ExportedNetwork(model).detect(picture)
    return {
        "height": picture.shape[0],
        "width": picture.shape[1],
        "pixels": base64.b64encode(picture.tobytes()).decode(),
        "logits": found.logits.tolist(),
        "probabilities": found.probabilities.tolist(),
        "familiarity": found.familiarity.tolist(),
        "activation": found.activation.tolist(),
        "tolerance": SELF_TEST_TOLERANCE,
    }


def file_facts(model: bytes, answering: bytes | None = None) -> dict[str, Any]:
    """What a card says of the file itself: bytes, sha256 and self-test, which another model may answer in its place."""
    answers = self_test(model if answering is None else answering)
    return {"bytes": len(model), "sha256": sha256_hex(model), "self_test": answers}


def network_card(network: TrainedNetwork, model: bytes) -> dict[str, Any]:
    """The card of an exported network; thresholds and error rates come to it with its evaluation."""
    return {
        "kind": KIND,
        "classes": list(network.classes),
        "temperature": network.temperature,
        "architecture": network.shape.model_dump(mode="json"),
        "side": network.shape.side,
        "macs": network.shape.macs,
        "parameters": network.shape.parameters,
        "longest_side": LONGEST_SIDE,
        "shortest_side": SHORTEST_SIDE,
        "about": network.about,
        **file_facts(model),
    }


def _label(*, name: str, rotation: int, **_: object) -> str:
    return f"{folder_name(name)}/{rotation}"


@step("export", version=1, label=_label, libraries=("onnx", "onnxruntime", "numpy"))
def export_network(run: StepRun, *, name: str, rotation: int, network: Ref) -> Output:
    """A trained network as one ONNX file with its card."""
    trained = TrainedNetwork.load(run.store, network)
    model = build_graph(trained)
    card = network_card(trained, model)
    parts: dict[str, PartContent] = {MODEL: model, CARD: canonical_json(card).encode()}
    return Output(parts, {"bytes": len(model), "macs": trained.shape.macs, "parameters": trained.shape.parameters})
