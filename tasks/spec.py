"""What an experiment is made of: frozen models, validated once, at the border."""

import functools
import itertools
import operator
import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal, Self, TypeVar, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, ValidationInfo, model_validator

from storage.errors import SpecError
from tasks.strict_yaml import plain_value
from tasks.variables import FilledIn, fill_in, located, needed

# More than anything here counts, and little enough for every library that is given such a number.
MOST = 2**31 - 1
# What tables call something themselves: a detector of every experiment, a class or answer, an automatic mix.
OWN_DETECTORS = ("svm", "svm-aug", "svm-shuffled", "probe")
REAL, UNKNOWN = "real", "unknown"
COMBINED, SHUFFLED = "combined", "shuffled"
OWN_NAMES = (REAL, UNKNOWN, COMBINED, SHUFFLED)


# The context of what telltale itself has written: a recipe's sources have no paths (`tasks.data.folder.unlocated`).
OWN_WORDS = {"own_words": True}


def _path(text: str, info: ValidationInfo) -> str:
    if not text and info.context != OWN_WORDS:
        raise ValueError("a path is empty")
    if "\0" in text:
        raise ValueError(f"not a path: {text!r} holds a null character")
    try:
        fill_in(text, [])
    except SpecError as error:
        raise ValueError(str(error)) from error
    return text


_PATH = AfterValidator(_path)
# A path, or in some fields a name or an address that may be a path, as it is written: whoever touches the disk replaces
# variables and `~` (`on_this_machine`). Relative ones count from the working directory.
LocalPath = Annotated[str, _PATH]
# Nothing else stands for a truth value: no number, and no text such as `yes`.
Truth = Annotated[bool, Strict()]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Resolution = Literal["native"] | Annotated[int, Field(ge=16, le=2048)]
Quality = Annotated[int, Field(ge=1, le=100)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$", max_length=60)]
# A column of a Parquet file; a colon parts it from row and file in an entry table.
Column = Annotated[str, Field(pattern=r"^[^:]+$", max_length=200)]


Kernel = Literal["exact", "scaled"]
Layer = Literal["fc7", "fc6", "pool5-avg"]


def _is_full(precision: str) -> bool:
    return precision == "float32"


def _is_exact(kernel: str) -> bool:
    return kernel == "exact"


def _are_first_projects(qualities: tuple[int, ...]) -> bool:
    return qualities == (20, 40, 60)


def _own_numbers(value: Any, annotation: Any) -> Iterator[int | float | bool]:
    """The numbers and truth values of a field, also those in its lists; a specification within has checked its own."""
    is_mapping = isinstance(value, dict) and get_origin(annotation) is dict
    return _numbers(list(value.values()) if is_mapping else value)


def _numbers(value: Any) -> Iterator[int | float | bool]:
    if isinstance(value, bool | int | float):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _numbers(item)


def _takes_truth(annotation: Any) -> bool:
    """Whether bool is among the types that an annotation is made of."""
    return annotation is bool or any(_takes_truth(argument) for argument in get_args(annotation))


def _kinds(annotation: Any) -> Iterator[Any]:
    """The types and literal values of what an annotation holds: of a mapping's values, of a list's items."""
    arguments = get_args(annotation)
    if get_origin(annotation) is Literal or not arguments:
        yield from arguments or (annotation,)
    elif get_origin(annotation) is Annotated:
        yield from _kinds(arguments[0])
    else:
        for argument in arguments[1:] if get_origin(annotation) is dict else arguments:
            yield from _kinds(argument)


@functools.cache
def _numbers_of(spec: type["Spec"]) -> dict[str, tuple[str, frozenset[str]]]:
    """The fields that hold numbers or truth values: what they expect, and the texts that they take beside them."""
    found = {}
    for name, field in spec.model_fields.items():
        kinds = list(_kinds(field.annotation))
        has_numbers = any(kind in (int, float) or type(kind) in (int, float) for kind in kinds)
        if str not in kinds and (has_numbers or bool in kinds):
            texts = [kind for kind in kinds if isinstance(kind, str)]
            expected = " or ".join(["a number" if has_numbers else "true or false", *map(repr, texts)])
            found[name] = (expected, frozenset(texts))
    return found


def _without_texts(value: Any, expected: str, texts: frozenset[str]) -> Any:
    """A value in which a text that an environment variable had a part in is the number that YAML would read.

    Raises:
        ValueError: another text than `texts` stands where a number belongs: `010` would be read as ten.
    """
    if isinstance(value, dict):
        return {key: _without_texts(item, expected, texts) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_texts(item, expected, texts) for item in value]
    if not isinstance(value, str) or value in texts:
        return value
    found: Any = value
    if isinstance(value, FilledIn):
        if "${" in value:
            return value  # a variable that is not set, which the field itself refuses: its text says which
        found = plain_value(value.strip())
    if isinstance(found, str):
        shown = value if len(value) <= 100 else f"{value[:100]}..."
        raise ValueError(f"expected {expected}, got the text {shown!r}")
    return found


def _doubled(items: Iterable[Any]) -> Iterator[Any]:
    """The items that stand there before."""
    seen: list[Any] = []
    for item in items:
        if item in seen:
            yield item
        seen.append(item)


def _once(items: tuple[Any, ...], info: ValidationInfo) -> tuple[Any, ...]:
    for name in _doubled(item.name for item in items if hasattr(item, "name")):
        raise ValueError(f"two {info.field_name} have the same name, {name!r}")
    for item in _doubled(items):
        raise ValueError(f"{'null' if item is None else item} is listed twice")
    return items


# A list without anything twice; what has a name goes by it.
Once = AfterValidator(_once)


def _folded(name: str) -> str:
    """A name as it is part of an artifact's key in Prefect, where a dot is a dash."""
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-")


def _are_apart(what: str, names: Iterable[str]) -> None:
    folded: dict[str, str] = {}
    for name in names:
        other = folded.setdefault(_folded(name), name)
        if other != name:
            raise ValueError(f"{what} {other!r} and {name!r} differ in dots and dashes alone")


class Spec(BaseModel):
    """The root of all specifications: frozen, finite, and nothing that is not named here."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _has_numbers_as_numbers(cls, document: Any) -> Any:
        # Pydantic would take true for 1, and libraries below fail on numbers that are larger than theirs.
        if isinstance(document, dict):
            for name, field in cls.model_fields.items():
                for value in _own_numbers(document.get(name), field.annotation):
                    if isinstance(value, bool) and not _takes_truth(field.annotation):
                        raise ValueError(f"{name}: expected no truth value, got {str(value).lower()}")
        return document

    @model_validator(mode="before")
    @classmethod
    def _has_no_texts_as_numbers(cls, document: Any) -> Any:
        if not isinstance(document, dict):
            return document
        read = dict(document)
        for name, (expected, texts) in _numbers_of(cls).items():
            if name in document:
                try:
                    read[name] = _without_texts(document[name], expected, texts)
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from error
        return read

    @model_validator(mode="after")
    def _has_numbers_that_fit(self) -> Self:
        for name, field in type(self).model_fields.items():
            for value in _own_numbers(getattr(self, name), field.annotation):
                if isinstance(value, int) and abs(value) > MOST and name != "seed":
                    raise ValueError(f"{name}: expected a number of at most {MOST}, got a larger one")
        return self


SpecOf = TypeVar("SpecOf", bound=Spec)


@functools.cache
def path_fields(spec: type[Spec]) -> tuple[str, ...]:
    """The fields of a specification that are paths, or may be."""
    return tuple(
        name
        for name, field in spec.model_fields.items()
        if _PATH in field.metadata
        or any(_PATH in getattr(kind, "__metadata__", ()) for kind in get_args(field.annotation))
    )


def on_this_machine(spec: SpecOf) -> SpecOf:
    """A specification whose own paths are those of this machine, where the disk is touched.

    Raises:
        MissingInput: variables that are not set, each with its remedy.
        SpecError: nothing is left of a path that is needed, or it is none.
    """
    here = {}
    for name in path_fields(type(spec)):
        written = getattr(spec, name)
        optional = type(None) in get_args(type(spec).model_fields[name].annotation)
        here[name] = None if written is None else located(written) if optional else needed(written)
    return spec.model_copy(update=here)


def _cell_name(resolution: Resolution, jpeg_quality: int | None) -> str:
    return f"{resolution}/{'none' if jpeg_quality is None else f'q{jpeg_quality}'}"


class View(Spec):
    """What an attacker would post: a picture on a path, at a resolution, with or without a JPEG encoding."""

    path: Literal["fair", "raw"]
    resolution: Resolution
    jpeg_quality: Quality | None = None

    @property
    def name(self) -> str:
        """For example `fair/64/q20` or `raw/native/none`."""
        return f"{self.path}/{_cell_name(self.resolution, self.jpeg_quality)}"


class Cell(Spec):
    """One field of the grid: a resolution and a compression."""

    resolution: Resolution
    jpeg_quality: Quality | None = None

    @property
    def name(self) -> str:
        """For example `64/q20` or `native/none`."""
        return _cell_name(self.resolution, self.jpeg_quality)

    @property
    def fair_view(self) -> View:
        """The view that both classes take in this cell under the fair protocol."""
        return View(path="fair", resolution=self.resolution, jpeg_quality=self.jpeg_quality)

    @classmethod
    def parse(cls, name: str) -> "Cell":
        """Read a cell's name back; `SpecError` for anything else."""
        match = re.fullmatch(r"(native|[1-9][0-9]*)/(none|q([1-9][0-9]*))", name)
        if match is None:
            raise SpecError(f"a cell is named like 64/q20 or native/none, got {name!r}")
        resolution: Resolution = "native" if match[1] == "native" else int(match[1])
        return cls(resolution=resolution, jpeg_quality=int(match[3]) if match[3] else None)


class Canonical(Spec):
    """The form to which the fair path brings every picture first.

    `qualities` is the histogram `(jpeg_quality, count)` of the photographs' own encodings, sorted by quality. `kernel`
    says how a picture gets there: `exact` from all its pixels; `scaled` decodes a JPEG at a half, a quarter or an
    eighth of its size first, where its shorter side still has the canonical side then, and resizes with shorter
    weights, which costs less and gives slightly other pictures. The two are never mixed: the kernel is part of every
    recipe that the canonical form is part of.
    """

    side: int = Field(ge=16, le=2048)
    qualities: tuple[tuple[Quality, int], ...]
    # Left out where it is the default, so that recipes from before it was a choice stay what they are.
    kernel: Kernel = Field(default="exact", exclude_if=_is_exact)


class Vgg16Spec(Spec):
    """VGG16 as feature extractor. `side` None means: the picture's own size (the first project's testing).

    `weights` is `imagenet` (torchvision's own download), `random:<seed>`, or a path or URL of safetensors. `compile`
    compiles the network on a GPU; like everything that is done for speed alone it is part of no recipe, whereas
    `precision` is.
    """

    kind: Literal["vgg16"] = "vgg16"
    layer: Layer = "fc7"
    side: Annotated[int, Field(ge=32, le=1024)] | None = 224
    weights: LocalPath = "imagenet"
    batch: int = Field(default=16, ge=1)
    # Left out where it is the default, so that recipes from before it was a choice stay what they are.
    precision: Literal["float32", "float16", "bfloat16"] = Field(default="float32", exclude_if=_is_full)
    compile: Truth = Field(default=False, exclude=True)

    @property
    def name(self) -> str:
        """For example `vgg16-pool5-avg-224`."""
        return f"vgg16-{self.layer}-{self.side or 'as-is'}"


class ProbeSpec(Spec):
    """The features of a detector that sees no picture content."""

    kind: Literal["probe"] = "probe"

    @property
    def name(self) -> str:
        return "probe"


class InceptionSpec(Spec):
    """The 2015 Inception network, for FID, KID and IS; `weights` is `sha256:<hex>` of its file."""

    kind: Literal["inception"] = "inception"
    weights: str
    batch: int = Field(default=32, ge=1)

    @property
    def name(self) -> str:
        return "inception-2015"


ExtractorSpec = Annotated[Vgg16Spec | ProbeSpec | InceptionSpec, Field(discriminator="kind")]


class SvmSpec(Spec):
    """How a linear SVM is fitted: C among candidates by validation, features scaled or not, calibrated or not.

    The seed protocol's is `SvmSpec(c_values=(1.0,), standardise=False, calibrate=False)`: threshold decision > 0.
    """

    c_values: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Once] = Field(
        default=(1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0), min_length=1
    )
    standardise: Truth = True
    calibrate: Truth = True

    @property
    def looks_at_val(self) -> bool:
        """Whether val rows decide anything: C, or the calibration."""
        return self.calibrate or len(self.c_values) > 1


class HeadSpec(Spec):
    """One head: a linear SVM on features of some views, for some sources.

    `name` is the detector's name in the results; `seed` 0 fits on all training rows, another seed on a bootstrap
    sample of the training groups.
    """

    name: str
    extractor: ExtractorSpec
    views: Annotated[tuple[View, ...], Once] = Field(min_length=1)
    real: Annotated[tuple[Name, ...], Once] = Field(min_length=1)
    fakes: Annotated[tuple[Name, ...], Once] = Field(min_length=1)
    svm: SvmSpec = SvmSpec()
    seed: Seed = 0


class GanSpec(Spec):
    """DCGAN and its training, as the first project had it.

    With `precision` bfloat16 the convolutions are computed in it, and sums, losses and weights in float32.
    """

    latent: int = Field(default=100, ge=1)
    generator_features: int = Field(default=64, ge=1)
    discriminator_features: int = Field(default=64, ge=1)
    side: Literal[64] = 64
    batch: int = Field(default=128, ge=2)
    epochs: int = Field(default=100, ge=1)
    learning_rate: float = Field(default=2e-4, gt=0)
    beta1: float = Field(default=0.5, ge=0, lt=1)
    sheet_every: int = Field(default=5, ge=1)
    flip: Truth = False
    # Left out where it is the default, so that recipes from before it was a choice stay what they are.
    precision: Literal["float32", "bfloat16"] = Field(default="float32", exclude_if=_is_full)
    seed: Seed = 0


class DiffusionSpec(Spec):
    """A text-to-image pipeline of diffusers and how it is sampled.

    `model` is a hub id (`owner/name`, or `owner/name@<commit>` for one revision), a local folder, `store:<digest>` for
    one that `python -m tasks.generators.kept_models FOLDER` brought into the store, or `tiny`.

    `compile` compiles the networks on a GPU (minutes for the first shard, then faster); it decides no picture, so that
    no recipe and no seed contains it.
    """

    model: LocalPath
    prompts: Literal["captions", "categories"] = "captions"
    steps: int = Field(default=25, ge=1)
    guidance: float = Field(default=7.5, ge=0)
    scheduler: str | None = None
    side: int = Field(default=512, ge=64)
    batch: int = Field(default=4, ge=1)
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    compile: Truth = Field(default=False, exclude=True)
    seed: Seed = 0


class SourceBase(Spec):
    """What all sources share. `evaluated` False keeps a source for training generators, or for the rejection alone."""

    name: Name
    evaluated: Truth = True


class CocoSource(SourceBase):
    """An official-layout COCO directory: `<split>/*.jpg` and `annotations/{captions,instances}_<split>.json`.

    `first` and `limit` select a range of the images, sorted by id.
    """

    kind: Literal["coco"] = "coco"
    directory: LocalPath
    split: str = "val2017"
    first: int = Field(default=0, ge=0)
    limit: int | None = Field(default=None, ge=1)
    label: Literal["real"] = "real"


class SampleSource(SourceBase):
    """Crops of the photographs that installed packages ship, written as a COCO directory first."""

    kind: Literal["sample"] = "sample"
    crops_per_photograph: int = Field(default=12, ge=2)
    limit: int | None = Field(default=None, ge=1)
    label: Literal["real"] = "real"


class FolderSource(SourceBase):
    """A directory or a Parquet file of images, with optional metadata (JSON list, JSON lines, CSV or Parquet).

    Metadata rows are matched by `file_name`; known columns are `prompt`, `text`, `caption`, `captions`, `group_id`,
    `seed`, `licence`, `class_index`, `class_name`, in any letter case, in a Parquet file of images as well. The first
    of `prompt`, `text`, `caption`, `captions` and their like (`PROMPT_COLUMNS`) that says something is a fake's prompt,
    and pictures of one prompt are one group; of a photograph, such texts are captions and no groups.

    Without `metadata`, files called `metadata.jsonl`, `metadata.csv`, `metadata.parquet` or `metadata.json` are read
    where they lie in the directory or in one below it, each for its own, and else the one in a folder above if it
    names pictures as `<directory>/...`, or no others than the directory's. Naming one turns that off.

    `limit_per_class` needs a class column.
    """

    kind: Literal["folder"] = "folder"
    path: LocalPath
    metadata: LocalPath | None = None
    label: Literal["real", "fake"]
    limit: int | None = Field(default=None, ge=1)
    limit_per_class: int | None = Field(default=None, ge=1)
    smaller_by_nature: Truth = False


class ColumnSource(SourceBase):
    """One column of pictures of a Parquet file, or of all Parquet files below a directory, sorted by name.

    Published sets hold several in a row: a prompt with the pictures that some generators made of it. Pictures of one
    row share a group over all the sources that are read from it: what `group_column` says, else the row's prompt, else
    the row itself. `limit` counts rows. A `prompt-set` in an experiment file names several such sources at once.
    """

    kind: Literal["column"] = "column"
    path: LocalPath
    column: Column
    prompt_column: Column | None = None
    group_column: Column | None = None
    label: Literal["real", "fake"] = "fake"
    limit: int | None = Field(default=None, ge=1)
    smaller_by_nature: Truth = False


class GanSource(SourceBase):
    """Pictures of a DCGAN that is trained in the run on the train groups of another source."""

    kind: Literal["gan"] = "gan"
    trained_on: Name
    count: int = Field(ge=1)
    gan: GanSpec = GanSpec()
    label: Literal["fake"] = "fake"
    smaller_by_nature: Truth = True


class DiffusionSource(SourceBase):
    """Pictures of a text-to-image model, one for each picture of another source, from its captions or categories."""

    kind: Literal["diffusion"] = "diffusion"
    prompted_by: Name
    diffusion: DiffusionSpec
    limit: int | None = Field(default=None, ge=1)
    label: Literal["fake"] = "fake"
    smaller_by_nature: Truth = False


Source = Annotated[
    CocoSource | SampleSource | FolderSource | ColumnSource | GanSource | DiffusionSource, Field(discriminator="kind")
]


def with_columns_as_sources(document: dict[str, Any]) -> dict[str, Any]:
    """An experiment's document in which every `prompt-set` among the sources is replaced by one source per column.

    A prompt-set has the fields of a `ColumnSource`, but `columns` (source name -> column) for its name and column.

    Raises:
        SpecError: a prompt-set whose `columns` are no mapping, or that has a name of its own.
    """
    listed = document.get("sources")
    if not isinstance(listed, list | tuple):
        return document
    sources: list[Any] = []
    for source in listed:
        if not isinstance(source, dict) or source.get("kind") != "prompt-set":
            sources.append(source)
            continue
        columns = source.get("columns")
        if not isinstance(columns, dict) or not columns:
            raise SpecError(f"a prompt-set needs columns as a mapping (source name: image column), got {columns!r}")
        if "name" in source or "column" in source:
            raise SpecError("a prompt-set has neither name nor column: its columns name one source each")
        shared = {key: value for key, value in source.items() if key != "columns"}
        sources += [shared | {"kind": "column", "name": name, "column": column} for name, column in columns.items()]
    return {**document, "sources": sources}


class FixedSplits(Spec):
    """Train, val and test: named groups first, then ranges of a source's sorted images, then shares by hash."""

    kind: Literal["fixed"] = "fixed"
    train: float = Field(default=0.6, gt=0, lt=1)
    val: float = Field(default=0.2, gt=0, lt=1)
    groups: dict[str, Literal["train", "val", "test"]] = {}
    ranges: dict[Literal["train", "val", "test"], tuple[int, int]] = {}

    @model_validator(mode="after")
    def _leaves_a_test_share(self) -> Self:
        if self.train + self.val >= 1:
            raise ValueError(f"train + val must leave a share for test, got {self.train} + {self.val}")
        return self

    @model_validator(mode="after")
    def _has_ranges_apart(self) -> Self:
        ordered = sorted((start, stop, split) for split, (start, stop) in self.ranges.items())
        for start, stop, split in ordered:
            if not 0 <= start < stop:
                raise ValueError(f"ranges: {split} must be from 0 or more up to something larger, got {start}, {stop}")
        for (_, stop, split), (start, _, other) in itertools.pairwise(ordered):
            if start < stop:
                raise ValueError(f"ranges: {split} and {other} overlap at {start}")
        return self

    @property
    def rotations(self) -> int:
        """How many heads a detector consists of: one."""
        return 1


class Folds(Spec):
    """k rotating folds: fold r tests, r + 1 validates, the others train; out-of-fold scores are pooled."""

    kind: Literal["folds"] = "folds"
    count: int = Field(ge=3, le=20)

    @property
    def rotations(self) -> int:
        """How many heads a detector consists of: one per fold."""
        return self.count


Splits = Annotated[FixedSplits | Folds, Field(discriminator="kind")]


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


class Training(Spec):
    """How a network is trained: Adam, early stopping on the validation loss, the best epoch's weights restored.

    `balanced` weighs photographs and fakes alike, and within each the sources; else every picture counts once.
    `augmented` draws a view of the experiment's grid for each picture and epoch. With `precision` bfloat16 layers are
    computed in it, and weights, sums and losses kept in float32. `compile` compiles the network on a GPU, for speed
    alone, so that no recipe contains it.
    """

    epochs: int = Field(default=5, ge=1)
    batch: int = Field(default=32, ge=2)
    learning_rate: float = Field(default=1e-3, gt=0)
    patience: int = Field(default=5, ge=1)
    balanced: Truth = True
    augmented: Truth = False
    # Left out where it is the default, so that recipes from before it was a choice stay what they are.
    precision: Literal["float32", "bfloat16"] = Field(default="float32", exclude_if=_is_full)
    compile: Truth = Field(default=False, exclude=True)


class NetworkBase(Spec):
    """What all networks share. With more than one of `seeds`, the spread over training seeds is reported."""

    name: Name
    seeds: int = Field(default=1, ge=1, le=20)


class FineTuned(NetworkBase):
    """MobileNetV2 with a new head (`v1` pool-256-128-k, `v2` pool-128-k, `v3` pool-k), its last layers unlocked.

    `unlocked` counts layers from the end of the trunk as Keras lists them: a convolution, its batch norm and its
    activation are one each. `weights` is `imagenet` (torchvision's own download), `random:<seed>`, or a path or URL of
    safetensors with torchvision's names.
    """

    kind: Literal["fine-tuned"] = "fine-tuned"
    head: Literal["v1", "v2", "v3"] = "v3"
    unlocked: Annotated[int, Field(ge=0, le=200)] | Literal["all"] = 8
    width: float = Field(default=1.0, ge=0.1, le=1.4)
    weights: LocalPath = "imagenet"
    side: int = Field(default=224, ge=32, le=512)
    training: Training = Training()


class MagnitudePruned(NetworkBase):
    """Small weights of another network set to zero, ever more of them while it is trained on (Zhu & Gupta 2017)."""

    kind: Literal["magnitude-pruned"] = "magnitude-pruned"
    of: Name
    first_sparsity: float = Field(default=0.10, ge=0, lt=1)
    last_sparsity: float = Field(default=0.40, gt=0, lt=1)
    training: Training = Training(learning_rate=1e-4)

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.first_sparsity > self.last_sparsity:
            raise ValueError(f"sparsity falls from {self.first_sparsity} to {self.last_sparsity}: it has to rise")
        return self


class StructurePruned(NetworkBase):
    """Channels of another network removed in `steps` until `macs` of its multiply-accumulates are left.

    After each step but the last it is trained for `epochs_between`, after the last as `training` says.
    """

    kind: Literal["structure-pruned"] = "structure-pruned"
    of: Name
    macs: float = Field(default=0.5, gt=0.02, lt=1)
    steps: int = Field(default=3, ge=1)
    epochs_between: int = Field(default=1, ge=0)
    training: Training = Training(learning_rate=1e-4)


class Distilled(NetworkBase):
    """A student trained on a teacher's probabilities beside the labels (Hinton, Vinyals & Dean 2015).

    The student starts from the network `of`, or as a narrow MobileNetV2 of `width` with random weights. `teachers` are
    networks, or `svm` for the experiment's linear SVM; the probabilities of several are averaged. The same student
    without a teacher is always trained beside it, as `<name>-alone`.
    """

    kind: Literal["distilled"] = "distilled"
    of: Name | None = None
    width: float | None = Field(default=None, ge=0.1, le=1.4)
    side: int = Field(default=224, ge=32, le=512)
    teachers: Annotated[tuple[Name, ...], Once] = Field(min_length=1)
    temperature: float = Field(default=4.0, ge=1)
    weight: float = Field(default=0.7, gt=0, le=1)
    seeds: int = Field(default=3, ge=1, le=20)
    training: Training = Training(learning_rate=1e-4)

    @model_validator(mode="after")
    def _has_one_student(self) -> Self:
        if (self.of is None) == (self.width is None):
            raise ValueError("a student is either another network (of) or a narrow one (width): name one of them")
        return self


class Quantized(NetworkBase):
    """Another network with 8-bit weights and activations, calibrated on train pictures.

    Where it loses more than `tolerance` points of accuracy on val, and more than chance explains, the layers that lose
    most stay in float.
    """

    kind: Literal["quantized"] = "quantized"
    of: Name
    calibration_pictures: int = Field(default=128, ge=8)
    tolerance: float = Field(default=1.0, ge=0)


NetworkSpec = Annotated[
    FineTuned | MagnitudePruned | StructurePruned | Distilled | Quantized, Field(discriminator="kind")
]


class Rejection(Spec):
    """When a network should answer "unknown source": its score of familiarity lies below what val pictures have.

    `kept` is the share of known val pictures that are answered. `bounds` are constant lower bounds on the maximum
    probability, as the second project had them.
    """

    score: Literal["max-probability", "energy", "distance"] = "distance"
    kept: float = Field(default=0.95, gt=0, lt=1)
    bounds: Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Once] = (0.6, 0.7)
    # Sources with `evaluated: false` that no network is trained on: unknown generators, and known ones that changed.
    unknown: Annotated[tuple[Name, ...], Once] = ()
    shifted: Annotated[tuple[Name, ...], Once] = ()

    @model_validator(mode="after")
    def _has_each_source_once(self) -> Self:
        for name in _doubled((*self.unknown, *self.shifted)):
            raise ValueError(f"{name} is unknown or shifted, not both")
        return self


class Mobile(Spec):
    """Networks for a phone. Each after the first is compared with the first: what it costs, and what it saves."""

    networks: Annotated[tuple[NetworkSpec, ...], Once] = Field(min_length=1)
    rejection: Rejection = Rejection()

    @model_validator(mode="after")
    def _is_a_chain(self) -> Self:
        known: dict[str, str] = {}
        for network in self.networks:
            if network.name in OWN_DETECTORS or network.name.endswith("-alone"):
                raise ValueError(
                    f"{network.name}: a network's name does not end in -alone and is none of {list(OWN_DETECTORS)}, "
                    "which results call detectors of their own"
                )
            origin: str | None = getattr(network, "of", None)
            teachers: tuple[str, ...] = getattr(network, "teachers", ())
            for parent in (*([origin] if origin else []), *(name for name in teachers if name != "svm")):
                if parent not in known:
                    raise ValueError(f"{network.name}: unknown network {parent!r}, expected one before it: {[*known]}")
                if known[parent] == "quantized":
                    raise ValueError(f"{network.name}: {parent!r} is quantized, which nothing can be made from")
            known[network.name] = network.kind
        _are_apart("networks", known)
        if not isinstance(self.networks[0], FineTuned):
            raise ValueError(f"the first network must be fine-tuned, got {self.networks[0].kind}")
        return self


class Experiment(Spec):
    """One experiment: sources, splits, grid, detectors and protocols."""

    name: Name
    description: str = ""
    seed: Seed = 0
    sources: Annotated[tuple[Source, ...], Once]
    splits: Splits = FixedSplits()
    canonical_side: int = Field(default=320, ge=16, le=2048)
    canonical_kernel: Kernel = Field(default="exact", exclude_if=_is_exact)
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
        _are_apart("sources", sources)
        columns = [source for source in self.evaluated_sources if isinstance(source, ColumnSource)]
        for _, path, column in _doubled((source.label, source.path, source.column) for source in columns):
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
        _are_apart("mixes", (mix.name for mix in self.mixes))
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
        return tuple(Cell(resolution=r, jpeg_quality=q) for r in self.resolutions for q in self.qualities)

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
