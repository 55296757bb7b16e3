"""The central square and its resize in ONNX Runtime: the exported graph's matrix products against the `Resize` node.

    python benchmarks/network_resize.py [RUNS]

Both turn a uint8 picture into the float32 (1, 3, 224, 224) that a network's normalisation gets, with one thread; they
take turns. Prints medians with 5th and 95th percentiles, the median of the runs' ratios with theirs, and how far the
values (0..255) are from torch's `interpolate(antialias=True)` on noise.
"""

import platform
import sys
import time

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper
from torch.nn.functional import interpolate

from tasks.data.pictures import Pixels
from tasks.detectors.architecture import architecture
from tasks.detectors.export import IR_VERSION, OPSET, build_graph, open_session
from tasks.detectors.mobilenet_network import MobileNet, initialise, network_tensors
from tasks.detectors.rejection import Familiarity
from tasks.detectors.trained import TrainedNetwork
from tasks.device import processor_name
from tasks.evaluation.latency import Run, interleaved_milliseconds, latency_summary
from tasks.threads import limit_threads

SIDE = 224
PICTURES = (512, 320, 1024)


def matrix_products() -> bytes:
    """The first nodes of an exported network, up to its resized picture."""
    shape = architecture(0.1, "v3", 2, SIDE)
    module = MobileNet(shape)
    initialise(module, 0)
    familiarity = Familiarity(
        np.zeros(shape.last, np.float32), np.zeros((shape.last, 1), np.float32), np.zeros((2, 1), np.float32)
    )
    network = TrainedNetwork(shape, network_tensors(module), ("real", "fake"), 1.0, familiarity)
    exported = onnx.load_from_string(build_graph(network)).graph
    last = next(number for number, node in enumerate(exported.node) if node.output[0] == "resized")
    nodes = list(exported.node)[: last + 1]
    read = {name for node in nodes for name in node.input}
    return model_of(nodes, [constant for constant in exported.initializer if constant.name in read])


def resize_node() -> bytes:
    """The same with ONNX's operators: the square by `Slice`, then one antialiased linear `Resize` of planes."""
    axes = np.array([0, 1])
    constants = {
        "axes": axes,
        "two": np.array([2]),
        "planes": np.array([0]),
        "sides": np.array([1, 3, SIDE, SIDE]),
    }
    nodes = [
        helper.make_node("Shape", ["picture"], ["shape"], start=0, end=2),
        helper.make_node("ReduceMin", ["shape"], ["square"], keepdims=1),
        helper.make_node("Sub", ["shape", "square"], ["margin"]),
        helper.make_node("Div", ["margin", "two"], ["start"]),
        helper.make_node("Add", ["start", "square"], ["end"]),
        helper.make_node("Slice", ["picture", "start", "end", "axes"], ["cropped"]),
        helper.make_node("Transpose", ["cropped"], ["turned"], perm=[2, 0, 1]),
        helper.make_node("Unsqueeze", ["turned", "planes"], ["bytes"]),
        helper.make_node("Cast", ["bytes"], ["values"], to=TensorProto.FLOAT),
        helper.make_node(
            "Resize",
            ["values", "", "", "sides"],
            ["resized"],
            mode="linear",
            coordinate_transformation_mode="half_pixel",
            antialias=1,
            # What lies outside has no weight, as in torch; otherwise it would repeat the border.
            exclude_outside=1,
        ),
    ]
    return model_of(nodes, [onnx.numpy_helper.from_array(values, name) for name, values in constants.items()])


def model_of(nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto]) -> bytes:
    """A model from `picture` (uint8, height x width x 3) to `resized`."""
    graph = helper.make_graph(
        nodes,
        "resize",
        [helper.make_tensor_value_info("picture", TensorProto.UINT8, ["height", "width", 3])],
        [helper.make_tensor_value_info("resized", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        constants,
    )
    model = helper.make_model(graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)])
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data


def resizer(model: bytes) -> Run:
    """From a picture to its resized values, in ONNX Runtime."""
    session = open_session(model)
    return lambda pixels: session.run(["resized"], {"picture": pixels})[0]


def by_torch(pixels: Pixels) -> np.ndarray:
    """What `prepare_picture` makes of a square before it normalises it."""
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    return interpolate(planes, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True).numpy()


def interval(values: np.ndarray, digits: int) -> str:
    """Median and 5th to 95th percentile, as a table's cell."""
    summary = latency_summary(values)
    return f"{summary['median_ms']:.{digits}f} ({summary['low_ms']:.{digits}f} to {summary['high_ms']:.{digits}f})"


def main(runs: int = 300) -> None:
    """Measure both on square pictures."""
    limit_threads()
    timed = [resizer(matrix_products()), resizer(resize_node())]
    print(
        f"{processor_name()}; Python {platform.python_version()}, ONNX Runtime {onnxruntime.__version__}, "
        f"torch {torch.__version__}; one thread, {runs} runs each, in turns\n"
    )
    print(
        "| picture | matrix products, ms | `Resize`, ms | ratio | largest difference from torch: products | `Resize` |"
    )
    print("|---|---|---|---|---|---|")
    for side in PICTURES:
        pixels = np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)
        expected = by_torch(pixels)
        differences = [np.abs(np.asarray(run(pixels)) - expected).max() for run in timed]
        products, node = interleaved_milliseconds(timed, pixels, runs, time.perf_counter)
        print(
            f"| {side} | {interval(products, 2)} | {interval(node, 2)} | {interval(node / products, 2)} "
            f"| {differences[0]:.1e} | {differences[1]:.1e} |"
        )


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
