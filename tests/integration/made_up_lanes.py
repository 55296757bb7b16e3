"""Lanes that make small things on workers which claim another device or build: what `work/*` runs in a test.

    python -m tests.integration.made_up_lanes       coordinates, and prints the plan's name

A worker started with MADE_UP_DEVICE offers this device, one with MADE_UP_BUILD a torch of such a build.
"""

import importlib.metadata
import os

from prefect import flow

from flows import work as lanes
from flows.names import Request
from flows.pools import computed_on_pools
from flows.runner import own_run
from storage.objects import Ref
from tasks.recipe import chosen_device
from tests.unit.pool_lanes import add_up, scale, sleep_a_while

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


@flow(name="made-up")
def made_up() -> str:
    """Coordinate the plan; returns its name."""
    computed_on_pools(Request("made-up", "made-up"), "made-up", plan, ("cpu", "gpu"))
    run = own_run()
    assert run is not None
    return f"{run.id}-0"


if __name__ == "__main__":
    print(made_up())
