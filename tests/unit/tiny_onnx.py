"""Detectors of others as ONNX files, of a few random numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

INPUT = {"side": 16, "resize": "stretch", "filter": "bilinear", "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.5]}


def network(path: Path, *, classes: int = 2, batch: int | str = "n", side: int | str = 16, **changes: Any) -> Path:
    """A linear map of the mean colours: (n, 3, side, side) to `logits` (n, classes), and `p` its softmax."""
    weights = np.random.default_rng(0).normal(size=(3, classes)).astype(np.float32)
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["p"], axis=1),
    ]
    graph = helper.make_graph(
        changes.get("nodes", nodes),
        "theirs",
        changes.get("inputs", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, side, side])]),
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, classes]) for name in ("logits", "p")],
        [numpy_helper.from_array(weights, "w")],
    )
    imports = [helper.make_opsetid("", 17), *changes.get("imports", [])]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    return path
