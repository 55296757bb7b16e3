"""An experiment: its sources, splits, grid, detectors and protocols, validated once, at the border."""

import operator
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal, Self, get_origin

from pydantic import Field, model_validator

from storage.errors import SpecError
from tasks.data.histories import photographs_as
from tasks.data.perturbations.base import Perturbation
from tasks.data.perturbations.jpeg import Quality, jpeg
from tasks.data.perturbations.kinds import name_of
from tasks.data.sources.base import GeneratedSource, SourceBase
from tasks.data.sources.column import with_columns_as_sources
from tasks.data.sources.kinds import KINDS, Source
from tasks.detectors import kinds as _kinds  # noqa: F401 - fills in which kinds of detectors there are
from tasks.detectors.base import Detector, DetectorBase
from tasks.detectors.linear import Linear
from tasks.features.base import ExtractorBase
from tasks.features.inception import InceptionSpec
from tasks.features.probe import ProbeSpec
from tasks.features.vgg16 import Vgg16Spec
from tasks.spec.base import LONGEST_NAME, LocalPath, Name, Once, Seed, Spec, Truth, are_apart, doubled, path_fields
from tasks.spec.detectors import ALONE, SVM_TEACHER, Distilled, Mobile, NetworkSpec, SvmSpec, Training
from tasks.spec.published import Published
from tasks.spec.splits import FixedSplits, Folds, Splits
from tasks.spec.views import LEAST_SIDE, Cell, Kernel, Path, Resolution, is_exact, is_none

# What tables call something themselves: a class or answer, an automatic mix.
REAL, UNKNOWN = "real", "unknown"
COMBINED, SHUFFLED = "combined", "shuffled"
OWN_NAMES = (REAL, UNKNOWN, COMBINED, SHUFFLED)


def _are_first_projects(qualities: tuple[int, ...]) -> bool:
    return qualities == (20, 40, 60)


def _is_fair(path: Path) -> bool:
    return path == "fair"


def _are_first_repeats(repeats: int) -> bool:
    return repeats == 20


def _is_matched(history: str) -> bool:
    return history == "matched"


def _random_windows(network: NetworkSpec) -> int | None:
    training: Training | None = getattr(network, "training", None)
    return None if training is None else training.random_windows


class Mix(Spec):
    """Which fakes stand against which photographs."""

    name: Name
    real: Annotated[tuple[Name, ...], Once] = Field(min_length=1)
    fakes: Annotated[tuple[Name, ...], Once] = Field(min_length=1)
    # What the photographs are called that stand against each of the fakes, where they have a version for each.
    versions: tuple[tuple[Name, ...], ...] = Field(default=(), exclude_if=operator.not_)


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
    # On the path `crop` a resolution is the side of a window of original pixels, and `history` says whether photographs
    # take an encoding first as each generator's files have, or stay as they came.
    path: Path = Field(default="fair", exclude_if=_is_fair)
    history: Literal["matched", "as-is"] = Field(default="matched", exclude_if=_is_matched)
    canonical_side: int = Field(default=320, ge=16, le=2048)
    canonical_kernel: Kernel = Field(default="exact", exclude_if=is_exact)
    resolutions: Annotated[tuple[Resolution, ...], Once] = Field(default=("native", 256, 64), min_length=1)
    qualities: Annotated[tuple[Quality | None, ...], Once] = (None, 60, 40, 20)
    # What else may happen to pictures, each a cell at every resolution, by name (`webp-50`) or by kind and fields.
    perturbations: Annotated[tuple[Perturbation, ...], Once] = ()
    extractor: Vgg16Spec = Vgg16Spec()
    # Path of the 2015 Inception weights; without them FID, KID and IS are not printed.
    inception: LocalPath | None = None
    svm: SvmSpec = SvmSpec()
    mobile: Mobile | None = None
    # What is evaluated beside the networks; without any, what `all_detectors` says.
    detectors: Annotated[tuple[Detector, ...], Once] = ()
    augmented_qualities: Annotated[tuple[Quality | None, ...], Once] = Field(default=(None, 60, 40, 20), min_length=1)
    mixes: Annotated[tuple[Mix, ...], Once] = ()
    # Generators that are audited: what is told of their files as shipped, and once container, size, history are equal.
    audited: Annotated[tuple[Name, ...], Once] = Field(default=(), exclude_if=operator.not_)
    # The network that `publish/network` makes of its pictures, to be given away.
    published: Published | None = Field(default=None, exclude_if=is_none)
    # Generators of one family, by its name: when one is left out of a training, so are its relatives.
    families: dict[Name, tuple[Name, ...]] = Field(default={}, exclude_if=operator.not_)
    seed_protocol: SeedProtocol | None = None
    training_seeds: int = Field(default=3, ge=1, le=20)
    bootstrap_resamples: int = Field(default=2000, ge=100)
    # How often each linear detector is fitted to labels that say nothing.
    control_repeats: int = Field(default=20, ge=2, le=10_000, exclude_if=_are_first_repeats)
    # An evaluation fails once it is published where no detector reaches this AUROC on a generator, as it was made.
    alarm_below: float | None = Field(default=None, gt=0.5, lt=1, exclude_if=lambda value: value is None)
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
        known = [(source.label, source.identity) for source in self.evaluated_sources if source.identity]
        for _, identity in doubled(known):
            raise ValueError(f"two sources are {identity}")
        labels = {source.label for source in self.evaluated_sources}
        if labels != {"real", "fake"}:
            raise ValueError(f"an experiment needs real and fake sources, got only {sorted(labels)}")
        if None not in self.qualities:
            raise ValueError("qualities must contain null: thresholds come from the uncompressed view")
        self._check_path()
        self._check_perturbations()
        self._check_detectors()
        for source in self.sources:
            self._check_generator(source, sources)
        for source in self.sources:
            if source.name in OWN_NAMES and (source.label == "fake" or source.name in self.unseen_names):
                raise ValueError(f"{source.name}: tables mean something else by it: name the source otherwise")
        for mix in self.mixes:
            if mix.versions:
                raise ValueError(f"mix {mix.name}: versions of photographs are made, not named")
            self._check_names(f"mix {mix.name}", mix.real, "real", sources)
            self._check_names(f"mix {mix.name}", mix.fakes, "fake", sources)
        self._check_mixes()
        self._check_families()
        self._check_audited()
        self._check_published()
        if self.seed_protocol is not None:
            roles = self.seed_protocol
            self._check_names("seed_protocol", (roles.real,), "real", sources)
            self._check_names("seed_protocol", (roles.gan, roles.stable), "fake", sources)
            if roles.gan == roles.stable:
                raise ValueError(f"seed_protocol: gan and stable are both {roles.gan!r}: expected two sources")
        for name in self.unseen_names:
            unseen = sorted(n for n, s in sources.items() if s.can_be_unseen and not s.evaluated)
            if name not in unseen:
                kinds = " or ".join(f"a {kind}" for kind, spec in KINDS.items() if spec.can_be_unseen)
                raise ValueError(
                    f"mobile.rejection: {name!r} must be {kinds} with evaluated: false, expected one of {unseen}"
                )
        return self

    def _check_path(self) -> None:
        """The crop path has windows of a size, and what needs one size of all pictures is on the fair path alone."""
        if self.path == "fair":
            for one in self.all_detectors:
                if one.windows != 1:
                    raise ValueError(f"detectors: {one.name} has {one.windows} windows, which are of the path crop")
            self._check_networks_without_windows()
            if not _is_matched(self.history):
                raise ValueError("history: it is of the path crop; the fair path reduces every picture, and it goes")
            return
        if "native" in self.resolutions:
            raise ValueError("resolutions: on the path crop each is the side of a window in pixels, got native")
        if self.seed_protocol is not None:
            raise ValueError("seed_protocol: it is of the fair path, got the path crop")
        self._check_windowed_networks()
        if self.matches_history:
            names = {source.name for source in self.sources}
            # The longest ones are those of the history control.
            made = [*self.photographs(self.fake_names), *self.photographs(f"once-{fake}" for fake in self.fake_names)]
            for name in (*doubled(made), *(one for one in made if one in names or len(one) > LONGEST_NAME)):
                raise ValueError(
                    f"sources: photographs of one history are called {name}, expected a name that no source has, "
                    f"of at most {LONGEST_NAME} characters"
                )

    def _check_windowed_networks(self) -> None:
        networks = () if self.mobile is None else self.mobile.networks
        for network in networks:
            side = getattr(network, "side", None)
            if side is not None and self.resolutions != (side,) and getattr(network, "of", None) is None:
                raise ValueError(
                    f"mobile: {network.name} sees pictures of {side} pixels, and nothing is scaled on the path crop: "
                    f"expected the one resolution {side}, got {', '.join(map(str, self.resolutions))}"
                )
            part = _random_windows(network)
            sides: list[int] = [resolution for resolution in self.resolutions if resolution != "native"]
            if part is not None and part > min(sides):
                raise ValueError(
                    f"mobile: {network.name} is trained on parts of {part} pixels, expected at most {min(sides)}, as "
                    "the windows have"
                )

    def _check_networks_without_windows(self) -> None:
        for network in () if self.mobile is None else self.mobile.networks:
            if _random_windows(network) is not None:
                raise ValueError(f"mobile: {network.name} is trained on windows, which are of the path crop")
        if self.mobile is not None and self.mobile.windows != 1:
            raise ValueError(f"mobile: it has {self.mobile.windows} windows, which are of the path crop")

    def _check_perturbations(self) -> None:
        """No two cells share a name, and none has pictures that are smaller than any resolution may be."""
        for one in self.perturbations:
            if one.name in [name_of(jpeg(quality)) for quality in self.qualities]:
                raise ValueError(f"perturbations: {one.name} is among the qualities already")
        for cell in self.cells:
            side = self.canonical_side if cell.resolution == "native" else cell.resolution
            if cell.perturbation is not None:
                left = min(cell.perturbation.size(side, side))
                if left < LEAST_SIDE:
                    raise ValueError(
                        f"perturbations: in {cell.name} {left} of {side} pixels are left of a side, expected at least "
                        f"{LEAST_SIDE}: leave out {cell.perturbation_name} or the resolution {cell.resolution}"
                    )

    def _check_detectors(self) -> None:
        """No two of them share a name, and one of them is more than a probe."""
        networks = () if self.mobile is None else self.mobile.networks
        alone = (f"{network.name}{ALONE}" for network in networks if isinstance(network, Distilled))
        names = [*(one.name for one in self.all_detectors), *(network.name for network in networks), *alone]
        for name in doubled(names):
            raise ValueError(f"a detector and a network are both called {name!r}")
        are_apart("detectors", names)
        own = Linear(name=SVM_TEACHER)
        for one in self.all_detectors:
            free = {"seeds", "crossed", "left_out"}
            if one.name == SVM_TEACHER and one.model_dump(exclude=free) != own.model_dump(exclude=free):
                raise ValueError(
                    f"detectors: {SVM_TEACHER} is the experiment's own SVM, which teaches students and ends the first "
                    "project's table: another detector needs another name"
                )
        if self.detectors and all(one.role != "detector" for one in self.detectors):
            raise ValueError("detectors: expected one whose role is detector, which the report speaks of")

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

    def _check_families(self) -> None:
        members = [fake for family in self.families.values() for fake in family]
        for fake in doubled(members):
            raise ValueError(f"families: {fake} is in two of them")
        for name, family in self.families.items():
            if not family:
                raise ValueError(f"families: expected generators in {name}, got none")
            self._check_names(f"families: {name}", family, "fake", {one.name: one for one in self.sources})
            if name in self.real_names or (name in self.fake_names and name not in family):
                raise ValueError(f"families: {name} is the name of a source that is not in it")

    def _check_published(self) -> None:
        if self.published is None:
            return
        if self.path != "crop" or len(self.resolutions) != 1:
            raise ValueError("published: it looks at windows of one size: expected the path crop and one resolution")
        known = {source.name for source in self.evaluated_sources}
        for name in self.published.licences:
            if name not in known:
                raise ValueError(f"published.licences: unknown source {name!r}, expected one of {sorted(known)}")

    def _check_audited(self) -> None:
        """An audit ends on windows of one history, where each of its generators meets all photographs."""
        if self.audited and not self.matches_history:
            raise ValueError("audited: it is of the path crop with history: matched, at which an audit ends")
        self._check_names("audited", self.audited, "fake", {one.name: one for one in self.sources})
        for name in self.audited:
            if not any(mix.fakes == (name,) for mix in self.audited_mixes):
                known = list(self.real_names)
                raise ValueError(f"audited: expected a mix of {name} alone with all photographs, {known}")

    def _check_generator(self, source: SourceBase, sources: dict[str, SourceBase]) -> None:
        if not isinstance(source, GeneratedSource) or source.origin is None:
            return
        origin = sources.get(source.origin)
        if origin is None or not source.can_come_from(origin):
            known = sorted(n for n, s in sources.items() if source.can_come_from(s))
            what = "unknown source" if origin is None else f"it cannot come from the {origin.kind} source"
            raise ValueError(f"{source.name}: {what} {source.origin!r}, expected one of {known}")
        if source.is_trained and isinstance(self.splits, Folds) and origin.evaluated:
            raise ValueError(
                f"{source.name}: with rotating folds a generator may only be trained on a source with "
                f"evaluated: false, else it sees test groups; {source.origin!r} is evaluated"
            )
        if source.evaluated and not (source.is_trained or origin.evaluated):
            raise ValueError(
                f"{source.name}: its pictures take the places of those of {source.origin!r}, which has "
                "evaluated: false, so that none would be tested: both are evaluated, or neither"
            )

    @staticmethod
    def _check_names(where: str, names: tuple[str, ...], label: str, sources: dict[str, Any]) -> None:
        for name in names:
            if name not in sources or sources[name].label != label or not sources[name].evaluated:
                known = sorted(n for n, s in sources.items() if s.label == label and s.evaluated)
                raise ValueError(f"{where}: unknown {label} source {name!r}, expected one of {known}")

    @property
    def network_to_publish(self) -> Published:
        """What it says of the network that is given away.

        Raises:
            SpecError: it says nothing.
        """
        if self.published is None:
            raise SpecError(f"{self.name} has no `published` part: it says how a network is fitted that is given away")
        return self.published

    @property
    def evaluated_sources(self) -> tuple[Source, ...]:
        """The sources that take part in the evaluation."""
        return tuple(source for source in self.sources if source.evaluated)

    @property
    def real_names(self) -> tuple[str, ...]:
        """Names of the evaluated photographs' sources."""
        return tuple(source.name for source in self.evaluated_sources if source.label == "real")

    @property
    def matches_history(self) -> bool:
        """Whether photographs take another encoding for each generator that they stand against."""
        return self.path == "crop" and _is_matched(self.history)

    def photographs(self, fakes: Iterable[str], real: Iterable[str] | None = None) -> tuple[str, ...]:
        """What the photographs are called that stand against some generators: of all real sources, or of these."""
        among = self.real_names if real is None else tuple(real)
        if not self.matches_history:
            return among
        return tuple(photographs_as(one, fake) for fake in fakes for one in among)

    @property
    def fake_names(self) -> tuple[str, ...]:
        """Names of the evaluated generators' sources."""
        return tuple(source.name for source in self.evaluated_sources if source.label == "fake")

    @property
    def unseen_names(self) -> tuple[str, ...]:
        """Names of the sources that only the rejection is tested on."""
        return () if self.mobile is None else (*self.mobile.rejection.unknown, *self.mobile.rejection.shifted)

    @property
    def all_families(self) -> dict[str, tuple[str, ...]]:
        """Every evaluated generator once, by family; one without relatives is its own."""
        related = {fake for family in self.families.values() for fake in family}
        return {**self.families, **{fake: (fake,) for fake in self.fake_names if fake not in related}}

    def uncompressed(self) -> Self:
        """The experiment in uncompressed cells alone, each detector fitted once: what stands beside its numbers.

        Networks are not trained again for that.
        """
        detectors = tuple(one.single() for one in self.all_detectors if one.can_be_asked_anew)
        update = {"qualities": (None,), "perturbations": (), "detectors": detectors, "mobile": None}
        return self.model_copy(update=update)

    @property
    def class_names(self) -> tuple[str, ...]:
        """What a network tells apart: `real`, then one class per evaluated generator."""
        return (REAL, *self.fake_names)

    @property
    def inception_extractor(self) -> InceptionSpec | None:
        """The network for FID, KID and IS, where its weights are named."""
        return None if self.inception is None else InceptionSpec(weights=self.inception)

    @property
    def extractors(self) -> tuple[ExtractorBase, ...]:
        """Everything that describes the experiment's pictures, as it names them."""
        of_detectors = (extractor for one in self.all_detectors for extractor in one.extractors)
        found = (self.extractor, *of_detectors, self.inception_extractor)
        return tuple(dict.fromkeys(one for one in found if one is not None))

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The grid, row by row."""
        of = (*(jpeg(quality) for quality in self.qualities), *self.perturbations)
        return tuple(Cell(resolution=resolution, perturbation=one) for resolution in self.resolutions for one in of)

    @property
    def all_detectors(self) -> tuple[DetectorBase, ...]:
        """The named detectors; where none are named an SVM without and with augmentation, and the probe."""
        if self.detectors:
            return self.detectors
        return (
            Linear(name="svm", seeds=self.training_seeds, crossed=True),
            Linear(name="svm-aug", fitted_in="augmented"),
            Linear(name="probe", role="probe", extractor=ProbeSpec(), fitted_in="each-cell"),
        )

    @property
    def audited_mixes(self) -> tuple[Mix, ...]:
        """Each audited generator against all photographs."""
        alone = [(name,) for name in self.audited]
        return tuple(mix for mix in self.all_mixes if mix.fakes in alone and set(mix.real) == set(self.real_names))

    @property
    def all_mixes(self) -> tuple[Mix, ...]:
        """The named mixes, or one per generator and `combined` where none are named."""
        if self.mixes:
            return self.mixes
        single = tuple(Mix(name=fake, real=self.real_names, fakes=(fake,)) for fake in self.fake_names)
        if len(single) == 1:
            return single
        return (*single, Mix(name=COMBINED, real=self.real_names, fakes=self.fake_names))


def _specs(root: type[Spec] = Spec) -> Iterator[type[Spec]]:
    for spec in root.__subclasses__():
        yield spec
        yield from _specs(spec)


def spec_of(kind: object, among: type[Spec] = Spec) -> type[Spec] | None:
    """What the `kind` of a part of an experiment says it is; None where nothing has it.

    It is looked for among the specifications that derive from `among`.
    """
    for spec in _specs(among):
        if "kind" in spec.model_fields and spec.model_fields["kind"].default == kind:
            return spec
    return None


def field_names() -> frozenset[str]:
    """The names of all fields."""
    return frozenset(name for spec in _specs() for name in spec.model_fields)


def fields_of_paths() -> frozenset[str]:
    """Fields of an experiment that hold paths: their variables stay as they are written."""
    return frozenset(name for spec in _specs() for name in path_fields(spec))


def mappings() -> frozenset[str]:
    """Fields that hold a mapping of the experiment's own keys."""
    return frozenset(
        name for spec in _specs() for name, field in spec.model_fields.items() if get_origin(field.annotation) is dict
    )
