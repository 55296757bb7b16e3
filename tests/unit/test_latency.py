"""Latency: all networks take turns on the same picture, and what is reported is what the clock said."""

import json
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storage.errors import SpecError, WrongAnswers
from storage.objects import commit, notes_of, read_part, read_table
from storage.opening import open_store
from storage.tables import LATENCY_SCHEMA
from tasks.device import processor_name
from tasks.networks.architecture import architecture
from tasks.networks.export import network_card
from tasks.networks.exported import CARD, MODEL, ExportedNetwork
from tasks.networks.familiarity import Familiarity
from tasks.networks.latency import (
    ENOUGH_RUNS,
    SECONDS_PER_NETWORK,
    WARM_UP_RUNS,
    interleaved_milliseconds,
    latency_summary,
    measure,
    measure_latency,
)
from tasks.networks.network_graph import build_graph
from tasks.networks.trained import TrainedNetwork

PIXELS = np.zeros((4, 4, 3), dtype=np.uint8)


class Clock:
    """A clock that moves only when something says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_every_network_is_given_its_own_times() -> None:
    clock = Clock()

    def takes(seconds: float) -> Any:
        def run(pixels: np.ndarray) -> None:
            clock.now += seconds

        return run

    found = interleaved_milliseconds([takes(0.001), takes(0.004), takes(0.002)], PIXELS, 7, clock)
    np.testing.assert_allclose(found, np.repeat([[1.0], [4.0], [2.0]], 7, axis=1))


def test_networks_take_turns_and_every_timed_run_follows_one_of_the_same() -> None:
    calls: list[str] = []
    numbers = count()
    runs = [lambda pixels, name=name: calls.append(name) for name in "abc"]
    interleaved_milliseconds(runs, PIXELS, 3, lambda: float(next(numbers)) * 1e-9)
    warm, rounds = calls[: 3 * WARM_UP_RUNS], calls[3 * WARM_UP_RUNS :]
    assert warm == ["a"] * WARM_UP_RUNS + ["b"] * WARM_UP_RUNS + ["c"] * WARM_UP_RUNS
    assert "".join(rounds) == "aabbcc" + "bbccaa" + "ccaabb"


def test_slow_networks_end_early_but_not_before_enough_runs() -> None:
    clock = Clock()

    def slow(pixels: np.ndarray) -> None:
        clock.now += SECONDS_PER_NETWORK / ENOUGH_RUNS

    assert interleaved_milliseconds([slow], PIXELS, 500, clock).shape == (1, ENOUGH_RUNS)
    assert interleaved_milliseconds([slow], PIXELS, 8, clock).shape == (1, 8)


def test_a_summary_has_the_median_and_the_percentiles_around_it() -> None:
    found = latency_summary(np.arange(101.0))
    assert found == {"median_ms": 50.0, "low_ms": 5.0, "high_ms": 95.0, "runs": 101}


def test_the_processor_is_named_as_linux_names_it(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nmodel name\t: Some Processor @ 2.40GHz\nflags : fpu\n")
    assert processor_name(cpuinfo) == "Some Processor @ 2.40GHz"
    assert processor_name(tmp_path / "none")


def network(seed: int = 0, side: int = 32) -> TrainedNetwork:
    """A narrow network with random weights."""
    from tasks.networks.mobilenet_network import MobileNet, initialise, network_tensors

    shape = architecture(0.35, "v3", 3, side)
    module = MobileNet(shape)
    initialise(module, seed)
    random = np.random.default_rng(seed)
    arrays = [random.normal(size=sizes).astype(np.float32) for sizes in ((shape.last,), (shape.last, 2), (3, 2))]
    return TrainedNetwork(shape, network_tensors(module), ("real", "gan", "sd"), 1.0, Familiarity(*arrays))


def test_every_exported_network_is_timed_and_the_first_one_eagerly_too(tmp_path: Path) -> None:
    dense = network()
    networks = {"dense": dense, "small": network(1)}
    models = {name: build_graph(one) for name, one in networks.items()}
    rows = measure({name: ExportedNetwork(model) for name, model in models.items()}, dense, (48, 64), runs=2)
    assert [(row["network"], row["runtime"], row["side"]) for row in rows] == [
        (name, runtime, side)
        for side in (48, 64)
        for name, runtime in (("dense", "torch"), ("dense", "onnxruntime"), ("small", "onnxruntime"))
    ]
    for row in rows:
        assert set(row) == set(LATENCY_SCHEMA.names)
        assert 0 < row["low_ms"] <= row["median_ms"] <= row["high_ms"]
        assert row["runs"] == 2

    store = open_store(str(tmp_path))

    def stored(place: str, parts: dict[str, Any]) -> Any:
        return commit(store, f"objects/{place}", step="made", digest=place, recipe={}, parts=parts)

    arguments: dict[str, Any] = {
        "networks": tuple(models),
        "exported": tuple(
            stored(name, {MODEL: model, CARD: json.dumps(network_card(networks[name], model)).encode()})
            for name, model in models.items()
        ),
        "eager": stored("eager", dense.parts()),
        "sides": (48,),
        "runs": 1,
    }
    ref, _ = measure_latency.compute(store, **arguments)
    table = read_table(store, ref)
    assert table.schema.equals(LATENCY_SCHEMA)
    assert table.num_rows == 3
    assert notes_of(store, ref)["processor"]
    said = json.loads(read_part(store, arguments["exported"][1], CARD))
    said["self_test"]["logits"][0] += 1.0
    wrong = stored("wrong", {MODEL: models["small"], CARD: json.dumps(said).encode()})
    with pytest.raises(WrongAnswers):
        measure_latency.compute(store, **(arguments | {"exported": (arguments["exported"][0], wrong)}))
    for broken in ({"runs": 0}, {"sides": ()}, {"exported": arguments["exported"][:1]}):
        with pytest.raises(SpecError, match="latency: expected"):
            measure_latency.compute(store, **arguments | broken)
