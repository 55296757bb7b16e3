"""An exported network's graph written anew in 8 bits.

In integers: all convolutions but the first, activations as uint8 over their range on calibration pictures, weights as
int8, symmetric, one scale per output channel (Jacob et al. 2018, "Quantization and Training of Neural Networks for
Efficient Integer-Arithmetic-Only Inference"). The head's hidden weights are stored as uint8; its last layer, the
familiarity and the activation map stay in float.

Every runtime gets the same integers. A float sum that differs in its last bit would change some of the bytes that it is
rounded to, and those the answer by up to a hundredth. So all that comes before an integer convolution is exact in
float32, whatever the order of its sums: the resize and the first convolution (three channels, for which float is
faster) are sums of whole numbers below 2^24, and residuals are added in float, not by an integer operation whose
rounding is the runtime's own.

Written here and not by ONNX Runtime's tools: these know nothing of all that, calibrate anew for every choice of stages,
and would store the head twice, for the logits and for the activation map.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from storage.errors import SpecError
from tasks.data.pictures import Pixels
from tasks.networks.exported import LONGEST_SIDE, checked_picture
from tasks.networks.network_graph import FRONT
from tasks.networks.onnx_graph import serialised
from tasks.onnx_sessions import open_session

if TYPE_CHECKING:
    import onnx

# Lowest and highest value of every tensor that a stage makes, by name.
Ranges = dict[str, tuple[float, float]]

STEM = "stages.0"
_LEVELS = 255  # of an activation
_LARGEST = 127  # of a weight
_UNSIGNED_ZERO = 128  # of a weight that is stored as uint8
_EXACT = 2.0**24  # float32 holds every whole number up to here
_FLOAT, _UINT8 = 1, 2  # onnx.TensorProto.FLOAT and UINT8, without importing onnx
_STEM_INPUT = 152  # at least the largest difference of a pixel from its channel's mean, in levels


def quantize(model: bytes, calibration: Iterable[Pixels], in_float: Collection[str] = ()) -> bytes:
    """An exported model in 8 bits; `in_float` names stages (such as `stages.3`) that stay as they are.

    Equal arguments give equal bytes. Raises SpecError for a stage that the model lacks, and without pictures.
    """
    return quantize_with(model, activation_ranges(model, calibration), in_float)


def activation_ranges(model: bytes, calibration: Iterable[Pixels]) -> Ranges:
    """The extremes over all pictures of every tensor that is an integer one when its stage is quantised.

    Raises:
        SpecError: no pictures.
        BadImage: a picture that the model may not get.
    """
    from onnx import TensorProto, helper

    observed = parsed_model(model)
    names = [node.output[0] for node in observed.graph.node if _layer(node) is not None]
    observed.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    session = open_session(observed.SerializeToString())
    low, high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    for pixels in calibration:
        values = session.run(names, {"picture": np.ascontiguousarray(checked_picture(pixels))})
        low = np.minimum(low, [value.min() for value in values])
        high = np.maximum(high, [value.max() for value in values])
    if not np.isfinite(low).all():
        raise SpecError("quantisation needs at least one calibration picture, got none")
    return {name: (float(first), float(last)) for name, first, last in zip(names, low, high, strict=True)}


def quantize_with(model: bytes, ranges: Ranges, in_float: Collection[str] = ()) -> bytes:
    """As `quantize`, with the ranges of a calibration."""
    parsed = parsed_model(model)
    stages = quantizable_stages(parsed)
    if unknown := sorted(set(in_float) - {STEM, *stages}):
        raise SpecError(f"no such stages: {unknown}; expected some of {list(stages)}")
    return serialised(_Quantizer(parsed, ranges, set(stages) - set(in_float)).model())


def quantizable_stages(model: onnx.ModelProto) -> tuple[str, ...]:
    """Names of all stages but the first, in order."""
    return tuple(dict.fromkeys(stage for node in model.graph.node if (stage := _stage(node)) not in (None, STEM)))


def with_unsigned_weights(quantized: bytes) -> bytes:
    """A quantised model with its int8 weights and their zeros as uint8, all 128 higher: the same numbers.

    ONNX Runtime's kernels for these are exact on every processor, and slower. What it answers is what the model has to
    answer, bit by bit.
    """
    from onnx import numpy_helper

    parsed = parsed_model(quantized)
    for one in parsed.graph.initializer:
        values = numpy_helper.to_array(one)
        if values.dtype == np.int8:
            one.CopyFrom(numpy_helper.from_array((values.astype(np.int16) + _UNSIGNED_ZERO).astype(np.uint8), one.name))
    return serialised(parsed)


class _Quantizer:
    """Writes a graph anew, with the tensors of some stages as integers between QuantizeLinear and DequantizeLinear."""

    def __init__(self, model: onnx.ModelProto, ranges: Ranges, stages: Collection[str]) -> None:
        from onnx import numpy_helper

        self.original = model
        self.properties = {one.key: one.value for one in model.metadata_props}
        self.ranges = ranges
        self.stages = stages
        self.constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
        self.nodes: list[Any] = []
        self.scales: dict[str, np.float32] = {}
        # ReLU6 is what saturation does to a tensor whose range lies within 0..6: no Clip is left of it.
        self.clipped = {node.input[0]: node.output[0] for node in model.graph.node if node.op_type == "Clip"}

    def model(self) -> onnx.ModelProto:
        """The quantised model."""
        import onnx
        from onnx import numpy_helper

        produced: set[str] = set()  # tensors that exist as integers only
        for node in self.original.graph.node:
            if _stage(node) in self.stages:
                if node.op_type != "Clip":
                    produced.add(self._quantized(node))
                continue
            copied = onnx.NodeProto()
            copied.CopyFrom(node)
            copied.input[:] = [f"{name}.dequantized" if name in produced else name for name in node.input]
            self.nodes.append(copied)
        self._store_head()
        self._round_resize()
        self._round_stem()
        quantized = onnx.ModelProto()
        quantized.CopyFrom(self.original)
        used = {name for node in self.nodes for name in node.input}
        del quantized.graph.node[:], quantized.graph.initializer[:]
        quantized.graph.node.extend(self.nodes)
        quantized.graph.initializer.extend(
            numpy_helper.from_array(values, name) for name, values in self.constants.items() if name in used
        )
        return quantized

    def _quantized(self, node: onnx.NodeProto) -> str:
        """Add a convolution or residual in integers; returns its output's name, that of a Clip behind it included."""
        import onnx

        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        activations = 1 if node.op_type == "Conv" else 2
        if node.op_type == "Add":
            # Runtimes make an integer operation of Add, whose rounding differs between them; of Sum they do not.
            copied.op_type = "Sum"
        for position, name in enumerate(node.input[:activations]):
            if name not in self.scales:
                self._as_integers(name, name)
            copied.input[position] = f"{name}.dequantized"
        if node.op_type == "Conv":
            self._store_convolution(node)
        self.nodes.append(copied)
        out: str = self.clipped.get(node.output[0], node.output[0])
        self._as_integers(node.output[0], out)
        return out

    def _as_integers(self, tensor: str, name: str) -> None:
        """Quantise a tensor to uint8 over the range of `name`, and back to `<name>.dequantized`."""
        low, high = (min(0.0, self.ranges[name][0]), max(0.0, self.ranges[name][1]))
        scale = np.float32((high - low) / _LEVELS or 1.0)
        zero = np.uint8(np.clip(np.rint(-low / scale), 0, _LEVELS))
        self.scales[name] = scale
        self.constants |= {f"{name}.scale": np.array(scale), f"{name}.zero": np.array(zero)}
        parameters = [f"{name}.scale", f"{name}.zero"]
        self._node("QuantizeLinear", [tensor, *parameters], f"{name}.quantized")
        self._node("DequantizeLinear", [f"{name}.quantized", *parameters], f"{name}.dequantized")

    def _store_convolution(self, node: onnx.NodeProto) -> None:
        """Weights as int8 with a scale per output channel, biases as int32 in units of the products' scale."""
        entered, weight_name, bias_name = node.input
        weight, bias = self.constants.pop(weight_name), self.constants.pop(bias_name)
        scale = np.abs(weight).reshape(len(weight), -1).max(axis=1) / _LARGEST
        # A channel of tiny weights beside a bias would not fit 32 bits.
        scale = np.maximum(scale, np.abs(bias) / (float(self.scales[entered]) * 2**30))
        scale = np.where(scale > 0, scale, 1.0).astype(np.float32)
        products = scale * self.scales[entered]
        self._store(weight_name, weight, scale, np.int8)
        self._store(bias_name, bias, products, np.int32)

    def _store(self, name: str, values: npt.NDArray[Any], scale: npt.NDArray[Any], dtype: type, zero: int = 0) -> None:
        """Keep a tensor as integers with a scale per first axis; a node of its name makes numbers of it."""
        levels = values / scale.reshape(-1, *[1] * (values.ndim - 1))
        self.constants |= {
            f"{name}.quantized": (np.rint(levels) + zero).astype(dtype),
            f"{name}.scale": scale.astype(np.float32),
            f"{name}.zero": np.full(len(scale), zero, dtype),
        }
        self._node("DequantizeLinear", [f"{name}.{part}" for part in ("quantized", "scale", "zero")], name, axis=0)

    def _store_head(self) -> None:
        """Hidden layers' weights as bytes; they are as large as the network, and numbers again before they are used.

        Unsigned ones: logits and activation map both read them, and with `EXACT_SUMS` ONNX Runtime 1.31 cannot open a
        model in which two nodes read one signed tensor.
        """
        names = [name for name in self.constants if name.startswith("head.") and name.endswith(".weight")]
        rest, self.nodes = self.nodes, []
        for name in names[:-1]:
            weight = self.constants.pop(name)
            largest = np.abs(weight).max(axis=1) / _LARGEST
            self._store(name, weight, np.where(largest > 0, largest, 1.0).astype(np.float32), np.uint8, _UNSIGNED_ZERO)
        self.nodes += rest

    def _round_resize(self) -> None:
        """The resize in whole numbers: an output's weights become 0..255 and sum to 255 at most, down as across.

        Their products with bytes then stay below 2^24, without a rounding between the two directions.
        """
        side = int(self.properties["side"])
        # Rounding adds a half at most for each input of an output, and these are not more than twice the support.
        most = _LEVELS - (max(LONGEST_SIDE, side) / side + 1)
        self.constants["triangles.most"] = np.array(most, dtype=np.float32)
        self.constants["triangles.axis"] = np.array([-1], dtype=np.int64)
        before, cast, rest = self._split_at("triangles.float")
        cast.output[0] = cast.name = "triangles.exact"
        self.nodes = [*before, cast]
        self._node("ReduceSum", ["triangles.exact", "triangles.axis"], "triangles.whole", keepdims=1)
        self._node("Div", ["triangles.most", "triangles.whole"], "triangles.factor")
        self._node("Mul", ["triangles.exact", "triangles.factor"], "triangles.scaled")
        self._node("Round", ["triangles.scaled"], "triangles.float")
        self._node("Cast", ["triangles.float"], "triangles.bytes", to=_UINT8)
        self.nodes += rest
        before, _, rest = self._split_at("rows")
        self.nodes = [node for node in before if node.output[0] != "rows.float"]
        self._node("MatMulInteger", ["triangles.bytes", "rows.bytes"], "rows.integers")
        self._node("Cast", ["rows.integers"], "rows", to=_FLOAT)
        self.nodes += rest

    def _round_stem(self) -> None:
        """The first convolution in whole numbers: resized pixels and means rounded, weights and bias in powers of two.

        A channel's weights become multiples of 2^-k, with the largest k for which no sum of products can reach 2^24.
        What a front end leaves are differences of pixels, whole numbers or halves, and the means are gone from them.
        """
        weight_name, bias_name = f"{STEM}.stem.convolution.weight", f"{STEM}.stem.convolution.bias"
        weight = self.constants[weight_name].astype(np.float64)
        mean = self.constants["mean"].astype(np.float64)
        rounded = np.rint(mean)
        is_residual = any(node.output[0] == FRONT for node in self.nodes)
        bias = self.constants[bias_name].astype(np.float64)
        if not is_residual:
            # What rounding the means takes from the pixels, the bias returns; at the border the zeros are off by half a
            # level at most.
            bias = bias + (weight * (rounded - mean)).sum(axis=(1, 2, 3))
        input_units = 2 * _LEVELS if is_residual else _STEM_INPUT
        largest = input_units * np.abs(weight).sum(axis=(1, 2, 3)) + np.abs(bias)
        unit = np.exp2(np.ceil(np.log2(np.where(largest > 0, largest, 1.0) / (_EXACT / 2))))
        units = unit[:, None, None, None]
        self.constants[weight_name] = (np.rint(weight / units) * units).astype(np.float32)
        self.constants[bias_name] = (np.rint(bias / unit) * unit).astype(np.float32)
        self.constants["mean"] = rounded.astype(np.float32)
        before, subtraction, rest = self._split_at("normalised")
        subtraction.input[0] = "resized.rounded"
        self.nodes = before
        self._node("Round", ["resized"], "resized.rounded")
        self.nodes += [subtraction, *rest]

    def _split_at(self, name: str) -> tuple[list[Any], Any, list[Any]]:
        """The nodes before the one that makes `name`, it, and those after it."""
        place = next(number for number, node in enumerate(self.nodes) if node.output[0] == name)
        return self.nodes[:place], self.nodes[place], self.nodes[place + 1 :]

    def _node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))


def parsed_model(model: bytes) -> onnx.ModelProto:
    import onnx

    return onnx.load_from_string(model)


def _stage(node: onnx.NodeProto) -> str | None:
    """The stage that a node computes a part of, such as `stages.3`; None for what comes before and after them."""
    parts: list[str] = node.name.split(".")
    return ".".join(parts[:2]) if parts[0] == "stages" else None


def _layer(node: onnx.NodeProto) -> str | None:
    return _stage(node) if node.op_type in ("Conv", "Clip", "Add") else None
