"""Fitting the linear detectors of an experiment."""

from flows.detectors import fitted_models
from flows.embed import embeddings_of
from flows.stages import stage
from storage.objects import Ref
from tasks.spec.base import Spec
from tasks.spec.experiment import Experiment


def heads_of(experiment: Experiment) -> dict[Spec, Ref]:
    """Everything of an experiment that is fitted on features, and what it is fitted on."""
    return fitted_models(experiment, embeddings_of(experiment))


train_svm = stage(
    "train",
    "train SVMs of",
    "Fit the linear SVMs of an experiment: one per resolution, over all qualities, per generator, and the probes.",
    heads_of,
)
