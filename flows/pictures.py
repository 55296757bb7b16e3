"""The canonical pictures of an experiment's sources, made where they are missing: what cells are made of."""

from typing import Any

from prefect import flow

from flows.dispatch import computed
from flows.histories import all_pictures
from flows.names import Request, run_name
from flows.networks import canonical_shards
from flows.preflight import missing_sources
from flows.runner import attempt, tasks_side_by_side
from storage.objects import Ref
from tasks.spec.experiment import Experiment

PURPOSE = "pictures of"


@flow(name="pictures", flow_run_name=run_name(PURPOSE), task_runner=tasks_side_by_side(), persist_result=False)
def make_pictures(
    experiment: str, overrides: dict[str, Any] | None = None, seed: int | None = None
) -> tuple[Experiment, tuple[Ref, ...]]:
    """Make what is missing of an experiment's canonical pictures, in this process.

    Detectors and weights that only they need are not looked for: who asks may have none yet.

    Args:
        experiment: a preset's name or a YAML file.
        overrides: values put over it, by dotted keys.
        seed: the experiment's seed, if another than the preset's.

    Returns:
        The experiment, and the shards of all evaluated sources.
    """
    with attempt():
        return computed(Request(PURPOSE, experiment, overrides, seed), "inline", pictures_of, checks=(missing_sources,))


def pictures_of(experiment: Experiment) -> tuple[Ref, ...]:
    """Shards of canonical pictures of all evaluated sources, photographs first."""
    pictures = canonical_shards(experiment, all_pictures(experiment))
    sources = (*experiment.photographs(experiment.fake_names), *experiment.fake_names)
    return tuple(ref for source in sources for ref in pictures[source])
