"""Which networks an experiment trains, in which order, and which of them are scored where."""

from collections.abc import Iterator
from typing import Literal

from tasks.spec.base import Name, Spec
from tasks.spec.detectors import ALONE, SVM_TEACHER, Distilled, Fit, Mobile, NetworkSpec, Quantized, Residual
from tasks.spec.experiment import Experiment

Scenario = Literal["leave-one-out", "unseen", "shifted"]
LEFT_OUT: Scenario = "leave-one-out"


class Variant(Spec):
    """One network with one training seed: trained once per rotation.

    `classes` are those that it tells apart; `absent` names the family of generators that is left out of it, if any.
    `aided` is False for a student without a teacher.
    """

    network: NetworkSpec
    seed: int = 0
    classes: tuple[Name, ...]
    absent: Name | None = None
    aided: bool = True

    @property
    def base(self) -> str:
        """The network's name in tables: `distilled`, or `distilled-alone`."""
        return self.network.name if self.aided else f"{self.network.name}{ALONE}"

    @property
    def alone(self) -> str | None:
        """What tables call the same student without its teachers; None for anything else."""
        return f"{self.network.name}{ALONE}" if isinstance(self.network, Distilled) and self.aided else None

    @property
    def fit(self) -> Fit:
        """What tables tell its scores by."""
        return Fit(detector=self.base, seed=self.seed, without=self.absent)

    @property
    def is_evaluated(self) -> bool:
        """Whether its scores are results; those of others show a spread over seeds, or what is rejected."""
        return self.absent is None or isinstance(self.network, Residual)

    @property
    def kind(self) -> str:
        """What was done to it, as tables say it."""
        return self.network.kind if self.aided else "alone"


def variants(experiment: Experiment) -> tuple[Variant, ...]:
    """Every network of an experiment, parents before children; none where the experiment has no networks."""
    if experiment.mobile is None:
        return ()
    return tuple(_variants(experiment, experiment.mobile))


def origin(variant: Variant, among: tuple[Variant, ...]) -> Variant | None:
    """The variant that this one starts from: that of the same seed, else of seed 0; None for a beginning."""
    return None if (of := getattr(variant.network, "of", None)) is None else _find(of, variant.seed, among)


def teachers(variant: Variant, among: tuple[Variant, ...]) -> tuple[Variant, ...]:
    """The networks that teach a student; none for a student that stands alone, and `svm` is no network."""
    if not isinstance(variant.network, Distilled) or not variant.aided:
        return ()
    return tuple(_find(name, 0, among) for name in variant.network.teachers if name != SVM_TEACHER)


def svm_teaches(experiment: Experiment) -> bool:
    """Whether a student of the experiment learns from its SVM."""
    return any(SVM_TEACHER in getattr(variant.network, "teachers", ()) for variant in variants(experiment))


def rejection_scenarios(
    experiment: Experiment,
) -> tuple[tuple[Literal["leave-one-out", "unseen", "shifted"], Name], ...]:
    """What the rejection is tested on: each family in turn absent, and the sources that no network knows."""
    if experiment.mobile is None:
        return ()
    rejection = experiment.mobile.rejection
    return (
        *((LEFT_OUT, name) for name in _left_out(experiment, experiment.mobile)),
        *(("unseen", name) for name in rejection.unknown),
        *(("shifted", name) for name in rejection.shifted),
    )


def _variants(experiment: Experiment, mobile: Mobile) -> Iterator[Variant]:
    classes = experiment.class_names
    for network in mobile.networks:
        for seed in range(network.seeds):
            if isinstance(network, Quantized) and seed and not _has_seed(network.of, seed, mobile):
                continue
            yield Variant(network=network, seed=seed, classes=classes)
            if isinstance(network, Distilled):
                yield Variant(network=network, seed=seed, classes=classes, aided=False)
    for absent, family in _left_out(experiment, mobile).items():
        left = tuple(name for name in classes if name not in family)
        yield Variant(network=mobile.networks[0], classes=left, absent=absent)


def _left_out(experiment: Experiment, mobile: Mobile) -> dict[str, tuple[str, ...]]:
    """The families without which the first network is trained, too."""
    families = experiment.all_families
    return families if getattr(mobile.networks[0], "left_out", True) and len(families) > 1 else {}


def _has_seed(name: str, seed: int, mobile: Mobile) -> bool:
    return any(network.name == name and seed < network.seeds for network in mobile.networks)


def _find(name: str, seed: int, among: tuple[Variant, ...]) -> Variant:
    found = [one for one in among if one.base == name and one.absent is None and one.seed in (seed, 0)]
    return max(found, key=lambda one: one.seed)
