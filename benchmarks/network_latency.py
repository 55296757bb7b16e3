"""A picture's way through networks: torch eager against ONNX Runtime, float against int8, and narrower networks.

    python benchmarks/network_latency.py [RUNS]

From a uint8 picture to calibrated probabilities (ONNX Runtime: familiarity and activation map too), batch 1, one
thread, all in turns as `tasks/evaluation/latency.py` measures. MobileNetV2 at 224 pixels with five classes; "dense" is
width 1. The weights are random, which does not change the cost; real networks are in the stage table of
docs/RESULTS.md. Prints medians with 5th and 95th percentiles.
"""

import platform
import sys

import numpy as np
import onnxruntime
import torch

from tasks.detectors.architecture import architecture
from tasks.detectors.export import ExportedNetwork, build_graph
from tasks.detectors.mobilenet_network import MobileNet, initialise, network_tensors
from tasks.detectors.quantization import quantize
from tasks.detectors.rejection import fit_familiarity
from tasks.detectors.trained import TrainedNetwork
from tasks.device import processor_name
from tasks.evaluation.latency import Row, measure

WIDTHS = {"dense": 1.0, "width 0.65": 0.65, "width 0.5": 0.5}
CLASSES = ("real", "a", "b", "c", "d")
SIDE = 224
PICTURES = (224, 512)


def random_network(width: float) -> TrainedNetwork:
    """A network of this width that was never trained."""
    shape = architecture(width, "v3", len(CLASSES), SIDE)
    module = MobileNet(shape)
    initialise(module, 0)
    features = np.random.default_rng(0).random((40, shape.last))
    familiarity = fit_familiarity(features, np.arange(40) % len(CLASSES), len(CLASSES))
    return TrainedNetwork(shape, network_tensors(module), CLASSES, 1.0, familiarity)


def cell(row: Row) -> str:
    """Median (5th to 95th percentile)."""
    return f"{row['median_ms']:.1f} ({row['low_ms']:.1f} to {row['high_ms']:.1f})"


def main(runs: int = 100) -> None:
    """Measure all networks on square pictures of noise."""
    networks = {name: random_network(width) for name, width in WIDTHS.items()}
    noise = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    models = {}
    macs = {}
    for name, network in networks.items():
        models[name] = build_graph(network)
        models[f"{name}, int8"] = quantize(models[name], noise)
        macs[name] = macs[f"{name}, int8"] = network.shape.macs
    exported = {name: ExportedNetwork(model) for name, model in models.items()}
    rows = measure(exported, networks["dense"], PICTURES, runs=runs)
    of = {(row["network"], row["runtime"], row["side"]): row for row in rows}
    print(
        f"{processor_name()}; Python {platform.python_version()}, ONNX Runtime {onnxruntime.__version__}, "
        f"torch {torch.__version__}; one thread, {min(row['runs'] for row in rows)} runs or more each, in turns\n"
    )
    print(f"| network | runtime | MB | million MACs | {' | '.join(f'{side} pixels, ms' for side in PICTURES)} |")
    print("|---|---|---|---|" + "---|" * len(PICTURES))
    for name, runtime in dict.fromkeys((row["network"], row["runtime"]) for row in rows):
        size = f"{len(models[name]) / 1e6:.2f}" if runtime == "onnxruntime" else ""
        times = " | ".join(cell(of[name, runtime, side]) for side in PICTURES)
        print(f"| {name} | {runtime} | {size} | {macs[name] / 1e6:.0f} | {times} |")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
