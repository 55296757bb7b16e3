"""How long a network takes for one picture: batch 1, one thread, all networks in turns."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from storage.errors import SpecError
from storage.objects import ROWS, Ref
from storage.tables import LATENCY_SCHEMA
from tasks.data.pictures import Pixels
from tasks.device import processor_name
from tasks.networks.exported import ExportedNetwork
from tasks.networks.trained import TrainedNetwork
from tasks.recipe import Output, StepRun, step
from tasks.threads import limit_threads

WARM_UP_RUNS = 5
# Once every network has run so often, measuring ends when the networks have had so many seconds each.
ENOUGH_RUNS = 50
SECONDS_PER_NETWORK = 6.0

Run = Callable[[Pixels], object]
Clock = Callable[[], float]
Row = dict[str, Any]


def measure(
    networks: Mapping[str, ExportedNetwork],
    eager: TrainedNetwork,
    sides: Sequence[int],
    *,
    runs: int,
    clock: Clock = time.perf_counter,
    advance: Callable[[], None] = lambda: None,
) -> list[Row]:
    """Rows in LATENCY_SCHEMA: milliseconds from a picture's bytes to its probabilities, one thread.

    Args:
        networks: by name, run by ONNX Runtime.
        eager: the first network's weights, run by torch as it trains them: prepared, forward, softmax.
        sides: of the square uint8 pictures (noise; a network's time does not depend on what it sees).
        runs: of each network and side; fewer, but at least `ENOUGH_RUNS`, where they take too long.
        clock: seconds.
        advance: called after each side.
    """
    limit_threads()
    first = next(iter(networks))
    timed: dict[tuple[str, str], Run] = {(first, "torch"): _eager(eager)}
    timed |= {(name, "onnxruntime"): network.detect for name, network in networks.items()}
    rows = []
    for side in sides:
        pixels = np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)
        milliseconds = interleaved_milliseconds(list(timed.values()), pixels, runs, clock)
        rows += [
            {"network": name, "runtime": runtime, "side": side, **latency_summary(of_one)}
            for (name, runtime), of_one in zip(timed, milliseconds, strict=True)
        ]
        advance()
    return rows


def interleaved_milliseconds(timed: Sequence[Run], pixels: Pixels, runs: int, clock: Clock) -> np.ndarray:
    """The times of several networks on one picture, float64 (networks, runs).

    They take turns, so that a slow moment of the machine hits all alike; whoever begins a round differs. Each turn is
    two runs, of which the second counts: the first brings the network's weights back into the caches that the others
    filled, as they are when pictures follow each other.
    """
    for run in timed:
        for _ in range(WARM_UP_RUNS):
            run(pixels)
    rounds: list[list[float]] = []
    began = clock()
    while len(rounds) < runs:
        if len(rounds) >= ENOUGH_RUNS and clock() - began > SECONDS_PER_NETWORK * len(timed):
            break
        times = [0.0] * len(timed)
        for turn in range(len(timed)):
            number = (turn + len(rounds)) % len(timed)
            timed[number](pixels)
            start = clock()
            timed[number](pixels)
            times[number] = 1_000 * (clock() - start)
        rounds.append(times)
    return np.array(rounds).T


def latency_summary(milliseconds: np.ndarray) -> Row:
    """Median, 5th and 95th percentile of some runs' times (R,)."""
    low, median, high = np.percentile(milliseconds, [5, 50, 95])
    return {"median_ms": float(median), "low_ms": float(low), "high_ms": float(high), "runs": len(milliseconds)}


def _eager(network: TrainedNetwork) -> Run:
    import torch

    from tasks.networks.mobilenet_network import load_network, prepare_picture

    module = load_network(network.shape, network.tensors)

    def run(pixels: Pixels) -> object:
        with torch.inference_mode():
            # Channels last, as training has it: the faster way of the two.
            picture = prepare_picture(pixels, network.shape.side)[None].contiguous(memory_format=torch.channels_last)
            return torch.softmax(module(picture) / network.temperature, dim=1)

    return run


@step(
    "measure-latency",
    version=1,
    label=lambda *, networks, **_: networks[0],
    libraries=("onnxruntime", "torch", "numpy"),
    alone=True,
)
def measure_latency(
    run: StepRun,
    *,
    networks: tuple[str, ...],
    exported: tuple[Ref, ...],
    eager: Ref,
    sides: tuple[int, ...],
    runs: int,
) -> Output:
    """Milliseconds per picture of every network in ONNX Runtime, and of the first one in eager torch.

    This is a measurement, not content: its rows differ from run to run and from machine to machine, and no digest of
    results may hold them. It is kept like any object, so that it is only made again where a network or a library
    changes; the notes name the processor that it is true of. It should be the only task that runs.

    Args:
        networks: names; `exported` runs in parallel.
        eager: the first network's weights.
        sides: of the square pictures, in pixels.
        runs: of each network and side, see `measure`.
    """
    if not networks or len(networks) != len(exported) or not sides or runs < 1:
        raise SpecError(
            f"latency: expected an exported file for each of {list(networks)}, sides and runs; "
            f"got {len(exported)} files, sides {list(sides)}, {runs} runs"
        )
    progress = run.progress(len(sides), unit="picture sizes")
    rows = measure(
        {name: ExportedNetwork.load(run.store, ref) for name, ref in zip(networks, exported, strict=True)},
        TrainedNetwork.load(run.store, eager),
        sides,
        runs=runs,
        advance=progress.advance,
    )
    notes = {"processor": processor_name(), "system": platform.system(), "threads": 1}
    return Output({ROWS: pa.Table.from_pylist(rows, schema=LATENCY_SCHEMA)}, notes)
