"""ONNX graphs that are written node by node, with the ends that all of telltale's networks have."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tasks.networks.exported import KIND

if TYPE_CHECKING:
    import onnx

# Opset 18 and the file format of its time, which runtimes since 2023 read.
OPSET, IR_VERSION = 18, 8

# Of onnx.TensorProto, without importing onnx.
FLOAT, INT32 = 1, 6


def serialised(model: onnx.ModelProto) -> bytes:
    """The bytes of a model, checked, always the same for an equal one."""
    import onnx

    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


class OnnxGraph:
    """An ONNX graph in the making."""

    def __init__(self) -> None:
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

    def add_probabilities(self, temperature: float) -> None:
        """From `logits` to `probabilities`, and how familiar the picture is by them."""
        self.node("Div", ["logits", self.constant("temperature", temperature)], "calibrated")
        self.node("Softmax", ["calibrated"], "probabilities", axis=0)
        first = self.integers(0)
        self.node("ReduceMax", ["probabilities", first], "familiarity.max-probability", keepdims=1)
        self.node("ReduceLogSumExp", ["logits", first], "familiarity.energy", keepdims=1)

    def add_familiarity(self, distances: str) -> None:
        """From squared distances to the classes (k,) to `familiarity`, after `add_probabilities`."""
        self.node("ReduceMin", [distances, self.integers(0)], "rejection.nearest", keepdims=1)
        self.node("Neg", ["rejection.nearest"], "familiarity.distance")
        scores = [f"familiarity.{name}" for name in ("max-probability", "energy", "distance")]
        self.node("Concat", scores, "familiarity", axis=0)

    def model(
        self, classes: Sequence[str], temperature: float, side: int, places: tuple[int | str, int | str]
    ) -> onnx.ModelProto:
        """The finished model: its classes, the side that it is shown in pixels, the places of its activation."""
        from onnx import TensorProto, helper

        outputs: dict[str, list[int | str]] = {
            "logits": [len(classes)],
            "probabilities": [len(classes)],
            "familiarity": [3],
            "activation": [len(classes), *places],
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
            "classes": json.dumps(list(classes)),
            "temperature": repr(temperature),
            "side": str(side),
        }
        helper.set_model_props(model, properties)
        return model
