"""Stages of an evaluation as flows of their own: the same parameters and the same way, whatever is computed."""

from collections.abc import Callable, Sequence
from typing import Any

from prefect import Flow, flow

from flows.dispatch import Dispatch, computed
from flows.names import Request, run_name
from flows.runner import attempt, tasks_side_by_side
from tasks.recipe import Pool
from tasks.spec.experiment import Experiment

_ARGUMENTS = """
Args:
    experiment: a preset's name or a YAML file.
    overrides: values put over it, by dotted keys.
    seed: the experiment's seed, if another than the preset's.
    dispatch: `inline` runs everything here; `pools` spreads it over all workers of the pools.
"""


def stage(
    name: str,
    does: str,
    description: str,
    compute: Callable[[Experiment], Any],
    *,
    pools: Sequence[Pool] = ("cpu", "gpu"),
    preset: str = "coco",
) -> Flow[..., None]:
    """A flow that computes what is missing of one stage of an experiment.

    Args:
        name: the flow's name in Prefect.
        does: what its runs are called, before the experiment's name.
        description: for people who start it.
        compute: what it computes.
        pools: on which it is computed where it is spread.
        preset: the experiment where none is named.
    """

    def run(
        experiment: str = preset,
        overrides: dict[str, Any] | None = None,
        seed: int | None = None,
        dispatch: Dispatch = "inline",
    ) -> None:
        with attempt():
            computed(Request(does, experiment, overrides, seed), dispatch, compute, pools=pools)

    run.__doc__ = f"{description}\n{_ARGUMENTS}"
    as_flow = flow(name=name, flow_run_name=run_name(does), task_runner=tasks_side_by_side(), persist_result=False)
    return as_flow(run)
