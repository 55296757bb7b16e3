"""An experiment: its sources, splits, grid, detectors and protocols, validated once, at the border."""

import operator
from collections.abc import Iterator
from typing import Annotated, Any, Self, get_origin

from pydantic import Field, model_validator

from tasks.data.perturbations.jpeg import jpeg
from tasks.spec.base import LocalPath, Name, Once, Seed, Spec, Truth, are_apart, doubled, path_fields
from tasks.spec.detectors import Mobile, SvmSpec, Vgg16Spec
from tasks.spec.sources import (
    CocoSource,
    ColumnSource,
    FolderSource,
    GanSource,
    SampleSource,
    Source,
    SourceBase,
    with_columns_as_sources,
)
from tasks.spec.splits import FixedSplits, Folds, Splits
from tasks.spec.views import Cell, Kernel, Quality, Resolution, is_exact

# What tables call something themselves: a class or answer, an automatic mix.
REAL, UNKNOWN = "real", "unknown"
COMBINED, SHUFFLED = "combined", "shuffled"
OWN_NAMES = (REAL, UNKNOWN, COMBINED, SHUFFLED)


def _are_first_projects(qualities: tuple[int, ...]) -> bool:
    return qualities == (20, 40, 60)


class Mix(Spec):
    """Which fakes stand against which photographs."""

    name: Name
    real: Annotated[tuple[Name, ...], Once] = Field(min_length=1)
    fakes: Annotated[tuple[Name, ...], Once] = Field(min_length=1)


class SeedProtocol(Spec):
    """Which sources play the roles of the first project's table: its photographs, its GAN and its Stable Diffusion.

    `qualities` are those of its compressed rows.
    """

    real: Name
    gan: Name
    stable: Name
    # Left out where they are the default, so that recipes from before they were a choice stay what they are.
    qualities: Annotated[tuple[Quality, ...], Once] = Field(default=(20, 40, 60), exclude_if=_are_first_projects)


class Experiment(Spec):
    """One experiment: sources, splits, grid, detectors and protocols."""

    name: Name
    description: str = ""
    seed: Seed = 0
    sources: Annotated[tuple[Source, ...], Once]
    splits: Splits = FixedSplits()
    canonical_side: int = Field(default=320, ge=16, le=2048)
    canonical_kernel: Kernel = Field(default="exact", exclude_if=is_exact)
    resolutions: Annotated[tuple[Resolution, ...], Once] = Field(default=("native", 256, 64), min_length=1)
    qualities: Annotated[tuple[Quality | None, ...], Once] = (None, 60, 40, 20)
    extractor: Vgg16Spec = Vgg16Spec()
    # Path of the 2015 Inception weights; without them FID, KID and IS are not printed.
    inception: LocalPath | None = None
    svm: SvmSpec = SvmSpec()
    mobile: Mobile | None = None
    augmented_qualities: Annotated[tuple[Quality | None, ...], Once] = Field(default=(None, 60, 40, 20), min_length=1)
    mixes: Annotated[tuple[Mix, ...], Once] = ()
    seed_protocol: SeedProtocol | None = None
    training_seeds: int = Field(default=3, ge=1)
    bootstrap_resamples: int = Field(default=2000, ge=100)
    shard_size: int = Field(default=1000, ge=1)
    # Whether a file may be a photograph and a fake at once; its labels contradict each other.
    allow_overlap: Truth = Field(default=False, exclude_if=operator.not_)

    @model_validator(mode="before")
    @classmethod
    def _has_a_source_per_column(cls, document: Any) -> Any:
        return with_columns_as_sources(document) if isinstance(document, dict) else document

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        sources = {source.name: source for source in self.sources}
        are_apart("sources", sources)
        columns = [source for source in self.evaluated_sources if isinstance(source, ColumnSource)]
        for _, path, column in doubled((source.label, source.path, source.column) for source in columns):
            raise ValueError(f"two sources are the column {column!r} of {path}")
        labels = {source.label for source in self.evaluated_sources}
        if labels != {"real", "fake"}:
            raise ValueError(f"an experiment needs real and fake sources, got only {sorted(labels)}")
        if None not in self.qualities:
            raise ValueError("qualities must contain null: thresholds come from the uncompressed view")
        for source in self.sources:
            self._check_generator(source, sources)
        for source in self.sources:
            if source.name in OWN_NAMES and (source.label == "fake" or source.name in self.unseen_names):
                raise ValueError(f"{source.name}: tables mean something else by it: name the source otherwise")
        for mix in self.mixes:
            self._check_names(f"mix {mix.name}", mix.real, "real", sources)
            self._check_names(f"mix {mix.name}", mix.fakes, "fake", sources)
        self._check_mixes()
        if self.seed_protocol is not None:
            roles = self.seed_protocol
            self._check_names("seed_protocol", (roles.real,), "real", sources)
            self._check_names("seed_protocol", (roles.gan, roles.stable), "fake", sources)
            if roles.gan == roles.stable:
                raise ValueError(f"seed_protocol: gan and stable are both {roles.gan!r}: expected two sources")
        for name in self.unseen_names:
            known = sorted(
                n for n, s in sources.items() if isinstance(s, FolderSource | ColumnSource) and not s.evaluated
            )
            if name not in known:
                raise ValueError(
                    f"mobile.rejection: {name!r} must be a folder or a column with evaluated: false, "
                    f"expected one of {known}"
                )
        return self

    def _check_mixes(self) -> None:
        """A mix that is named as one without names would be means the same, and no mix is there under two names."""
        are_apart("mixes", (mix.name for mix in self.mixes))
        known: list[tuple[str, set[str], set[str]]] = []
        for mix in self.mixes:
            real, fakes = set(mix.real), set(mix.fakes)
            if mix.name == SHUFFLED:
                raise ValueError(f"mix {mix.name}: tables call the control with shuffled labels so")
            if mix.name in self.fake_names and fakes != {mix.name}:
                raise ValueError(f"mix {mix.name}: it has the name of a source, and other fakes: {sorted(fakes)}")
            if mix.name == COMBINED and len(fakes) == 1:
                raise ValueError(f"mix {mix.name}: expected several fakes, got {sorted(fakes)} alone")
            for other, *sides in known:
                if sides == [real, fakes]:
                    raise ValueError(f"mix {mix.name}: it has the sources of mix {other}")
            known.append((mix.name, real, fakes))

    def _check_generator(self, source: SourceBase, sources: dict[str, Any]) -> None:
        origin = getattr(source, "trained_on", None) or getattr(source, "prompted_by", None)
        if origin is None:
            return
        if origin not in sources or not isinstance(sources[origin], CocoSource | SampleSource | FolderSource):
            known = sorted(n for n, s in sources.items() if isinstance(s, CocoSource | SampleSource | FolderSource))
            raise ValueError(f"{source.name}: unknown source {origin!r}, expected one of {known}")
        if isinstance(source, GanSource) and isinstance(self.splits, Folds) and sources[origin].evaluated:
            raise ValueError(
                f"{source.name}: with rotating folds a generator may only be trained on a source with "
                f"evaluated: false, else it sees test groups; {origin!r} is evaluated"
            )

    @staticmethod
    def _check_names(where: str, names: tuple[str, ...], label: str, sources: dict[str, Any]) -> None:
        for name in names:
            if name not in sources or sources[name].label != label or not sources[name].evaluated:
                known = sorted(n for n, s in sources.items() if s.label == label and s.evaluated)
                raise ValueError(f"{where}: unknown {label} source {name!r}, expected one of {known}")

    @property
    def evaluated_sources(self) -> tuple[Source, ...]:
        """The sources that take part in the evaluation."""
        return tuple(source for source in self.sources if source.evaluated)

    @property
    def real_names(self) -> tuple[str, ...]:
        """Names of the evaluated photographs' sources."""
        return tuple(source.name for source in self.evaluated_sources if source.label == "real")

    @property
    def fake_names(self) -> tuple[str, ...]:
        """Names of the evaluated generators' sources."""
        return tuple(source.name for source in self.evaluated_sources if source.label == "fake")

    @property
    def unseen_names(self) -> tuple[str, ...]:
        """Names of the sources that only the rejection is tested on."""
        return () if self.mobile is None else (*self.mobile.rejection.unknown, *self.mobile.rejection.shifted)

    @property
    def class_names(self) -> tuple[str, ...]:
        """What a network tells apart: `real`, then one class per evaluated generator."""
        return (REAL, *self.fake_names)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The grid, row by row."""
        return tuple(Cell(resolution=r, perturbation=jpeg(q)) for r in self.resolutions for q in self.qualities)

    @property
    def all_mixes(self) -> tuple[Mix, ...]:
        """The named mixes, or one per generator and `combined` where none are named."""
        if self.mixes:
            return self.mixes
        single = tuple(Mix(name=fake, real=self.real_names, fakes=(fake,)) for fake in self.fake_names)
        if len(single) == 1:
            return single
        return (*single, Mix(name=COMBINED, real=self.real_names, fakes=self.fake_names))


def _specs(root: type[Spec]) -> Iterator[type[Spec]]:
    for spec in root.__subclasses__():
        yield spec
        yield from _specs(spec)


# What the `kind` of a source, a network, an extractor or a splitting says it is.
KINDS = {spec.model_fields["kind"].default: spec for spec in _specs(Spec) if "kind" in spec.model_fields}
FIELD_NAMES = frozenset(name for spec in _specs(Spec) for name in spec.model_fields)
# Fields of an experiment that hold paths: their variables stay as they are written.
PATH_FIELDS = frozenset(name for spec in _specs(Spec) for name in path_fields(spec))
# Fields that hold a mapping of the experiment's own keys.
MAPPINGS = frozenset(
    name for spec in _specs(Spec) for name, field in spec.model_fields.items() if get_origin(field.annotation) is dict
)
