"""Fitting every head of an experiment."""

from typing import Any

from prefect import flow

from flows.collect import collect
from flows.dispatch import Dispatch, computed
from flows.embed import Features, embeddings_of
from flows.names import Request, run_name
from flows.runner import attempt, tasks_side_by_side
from storage.objects import Ref
from tasks.detectors.linear import train_head
from tasks.evaluation.protocols import cell_scorings, stage_rows
from tasks.spec.detectors import HeadSpec, Vgg16Spec
from tasks.spec.experiment import Experiment


def needed_heads(experiment: Experiment, extractor: Vgg16Spec) -> tuple[HeadSpec, ...]:
    """Every head that a cell or a stage of the first project's table is scored with, once."""
    heads = [scoring.head for cell in experiment.cells for scoring in cell_scorings(experiment, cell, extractor)]
    heads += [row.real.head for row in stage_rows(experiment, extractor)]
    return tuple(dict.fromkeys(heads))


def trained_heads(experiment: Experiment, features: Features) -> dict[HeadSpec, Ref]:
    """The fitted heads of an experiment."""
    heads = needed_heads(experiment, features.extractor)
    futures = [
        train_head.submit(
            head=head,
            features=features.of((*head.real, *head.fakes), head.extractor, head.views),
            splits=experiment.splits,
        )
        for head in heads
    ]
    return dict(zip(heads, collect(futures), strict=True))


def heads_of(experiment: Experiment) -> dict[HeadSpec, Ref]:
    """All heads of an experiment, and what they are fitted on."""
    return trained_heads(experiment, embeddings_of(experiment))


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
