"""A brought ONNX detector over every view of pictures, against ONNX Runtime alone on what it is given of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks.harness import Case, Unequal
from benchmarks.inputs import CANONICAL, grid, pictures
from storage.tables import CANONICAL_SCHEMA
from tasks.data.network_input import NetworkInput
from tasks.data.pictures import decode_rgb
from tasks.data.views import apply_view, fair_canonical_jpeg
from tasks.detectors.onnx_file import OnnxFile
from tasks.detectors.pictures import Scoring
from tasks.onnx_sessions import open_session
from tasks.spec.detectors import Fit
from tasks.spec.splits import FixedSplits

Decisions = dict[tuple[str, str], float]

# Channels and sides of its convolutions of 3 x 3, of which each reads the one before it: 25 million weights, 100 MB.
_LAYERS = ((64, 112), (128, 56), (128, 56), (256, 28), (256, 28), (256, 28), (512, 14), (512, 14), (512, 14), (512, 14),
           (512, 14), (512, 14), (512, 14), (512, 14), (512, 14), (512, 7))  # fmt: skip
DETECTOR = OnnxFile(
    name="brought",
    model="brought.onnx",
    input=NetworkInput(side=224, resize="stretch", filter="bicubic", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
    output="logits",
    answer="softmax",
    fake=(1,),
)


@functools.cache
def network() -> bytes:
    """A convolutional network of random weights, as large as a ResNet-50."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    nodes, weights, last, inputs, side = [], [], "x", 3, 224

    def constant(name: str, shape: tuple[int, ...]) -> str:
        scale = np.sqrt(2 / np.prod(shape[1:]))
        weights.append(numpy_helper.from_array(random.normal(0, scale, shape).astype(np.float32), name))
        return name

    for number, (channels, reduced) in enumerate(_LAYERS):
        kernel = constant(f"w{number}", (channels, inputs, 3, 3))
        strides = [side // reduced] * 2
        nodes.append(helper.make_node("Conv", [last, kernel], [f"c{number}"], strides=strides, pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{number}"], [f"r{number}"]))
        last, inputs, side = f"r{number}", channels, reduced
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", constant("head", (2, inputs))], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "brought",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 224, 224])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])],
        weights,
    )
    model: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()
    return model


Item = TypeVar("Item")


@contextmanager
def onnx_case(size: int, threads: int) -> Iterator[Case]:
    """So many pictures; tasks side by side, one per thread, as flows compute shards on a CPU."""
    views = grid("fair")
    rows = [_canonical_row(image_id, data) for image_id, data in pictures(size)]
    shown = [
        ((row["image_id"], view.name), DETECTOR.input.of(apply_view(decode_rgb(row["canonical"]), view).pixels))
        for row in rows
        for view in views
    ]
    alone, scorer = open_session(network()), DETECTOR.scorer(network())

    def run(part: list[tuple[tuple[str, str], npt.NDArray[np.float32]]]) -> Decisions:
        return {key: _decision(alone.run(["logits"], {"x": x[None]})[0]) for key, x in part}

    def score(part: list[dict[str, object]]) -> Decisions:
        table = pa.Table.from_pylist(part, schema=CANONICAL_SCHEMA)
        found = Scoring(scorer, Fit(detector="brought"), views, views, FixedSplits()).rows(table)
        return {(row["image_id"], view.name): row["decision"] for view, made in found.items() for row in made}

    def equality(expected: Decisions, found: Decisions) -> str:
        if expected.keys() != found.keys():
            raise Unequal(f"{len(found)} scores instead of {len(expected)}")
        difference = max(abs(found[key] - value) for key, value in expected.items())
        if difference > 1e-6:
            raise Unequal(f"decision values differ by {difference:.1e}")
        return f"{len(found)} decision values, largest difference {difference:.0e}"

    yield Case(lambda: _side_by_side(run, shown, threads), lambda: _side_by_side(score, rows, threads), equality)


def _canonical_row(image_id: str, data: bytes) -> dict[str, Any]:
    canonical = fair_canonical_jpeg(decode_rgb(data), image_id, CANONICAL)
    row: dict[str, Any] = dict.fromkeys(CANONICAL_SCHEMA.names)
    return row | {"image_id": image_id, "group_id": image_id, "source": "s", "label": 0, "split": "test"} | {
        "canonical": canonical
    }  # fmt: skip


def _decision(logits: npt.NDArray[np.float32]) -> float:
    return float(np.float64(logits[0, 1]) - np.float64(logits[0, 0]))


def _side_by_side(function: Callable[[list[Item]], Decisions], items: list[Item], threads: int) -> Decisions:
    parts = [items[start::threads] for start in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        found: Decisions = {}
        for part in pool.map(function, parts):
            found |= part
        return found
