"""Fitting the linear detectors of an experiment."""

from typing import Any

from prefect import flow

from flows.detectors import fitted_models
from flows.dispatch import Dispatch, computed
from flows.embed import embeddings_of
from flows.names import Request, run_name
from flows.runner import attempt, tasks_side_by_side
from storage.objects import Ref
from tasks.spec.base import Spec
from tasks.spec.experiment import Experiment


def heads_of(experiment: Experiment) -> dict[Spec, Ref]:
    """Everything of an experiment that is fitted on features, and what it is fitted on."""
    return fitted_models(experiment, embeddings_of(experiment))


@flow(
    name="train",
    flow_run_name=run_name("train SVMs of"),
    task_runner=tasks_side_by_side(),
    persist_result=False,
)
def train_svm(
    experiment: str = "coco",
    overrides: dict[str, Any] | None = None,
    seed: int | None = None,
    dispatch: Dispatch = "inline",
) -> None:
    """Fit the linear SVMs of an experiment: one per resolution, over all qualities, per generator, and the probes.

    Args:
        experiment: a preset's name or a YAML file.
        overrides: values put over it, by dotted keys.
        seed: the experiment's seed, if another than the preset's.
        dispatch: `inline` runs everything here; `pools` spreads it over all workers of the pools.
    """
    with attempt():
        computed(Request("train SVMs of", experiment, overrides, seed), dispatch, heads_of)
