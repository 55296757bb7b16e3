"""Lanes that make small things on workers which claim another device or build: what `work/*` runs in a test.

    python -m tests.integration.made_up_lanes            coordinates, and prints the plan's name
    python -m tests.integration.made_up_lanes FOLDER     the same for a plan that needs two lanes at once on each pool

A worker started with MADE_UP_DEVICE offers this device, one with MADE_UP_BUILD a torch of such a build.
"""

import importlib.metadata
import os
import sys
from collections.abc import Callable
from typing import Any

from prefect import flow

from flows import work as lanes
from flows.names import Request
from flows.pools import computed_on_pools
from flows.runner import own_run
from storage.objects import Ref
from tasks.recipe import chosen_device
from tests.unit.pool_lanes import add_up, meet, meet_on_gpu, scale, sleep_a_while

installed = importlib.metadata.version


def made_up_version(name: str) -> str:
    """The installed version, of torch with the build's tag."""
    tag = os.environ.get("MADE_UP_BUILD")
    return f"{installed(name).partition('+')[0]}+{tag}" if tag and name == "torch" else installed(name)


importlib.metadata.version = made_up_version  # type: ignore[assignment]
lanes.compute_device = lambda: os.environ.get("MADE_UP_DEVICE", "cpu")  # type: ignore[attr-defined]
work = lanes.work


def plan() -> Ref:
    """Sources on the cpu pool, three things of each on the gpu pool's device, and what needs them all."""
    made = [sleep_a_while.submit(number=number, seconds=0.5) for number in range(16)]
    device = chosen_device()
    scaled = [scale.submit(source=each.result(), factor=(1, 2, 3), device=device) for each in made]
    total: Ref = add_up(parts=tuple(part for each in scaled for part in each.result()))
    return total


def meetings(folder: str) -> list[Ref]:
    """Two things on each pool, each of which waits for the other."""
    made = [meet.submit(number=number, count=2, place=f"{folder}/cpu") for number in range(2)]
    made += [meet_on_gpu.submit(number=number, count=2, place=f"{folder}/gpu") for number in range(2)]
    return [each.result() for each in made]


@flow(name="made-up")
def made_up(folder: str | None) -> str:
    """Coordinate a plan; returns its name."""
    compute: Callable[[], Any] = plan if folder is None else lambda: meetings(folder)
    computed_on_pools(Request("made-up", "made-up"), "made-up", compute, ("cpu", "gpu"))
    run = own_run()
    assert run is not None
    return f"{run.id}-0"


if __name__ == "__main__":
    print(made_up(sys.argv[1] if len(sys.argv) > 1 else None))
