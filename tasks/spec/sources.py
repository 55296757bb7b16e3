"""Where pictures come from: files of others, or a generator that is trained or run here."""

from typing import Annotated, Any, Literal

from pydantic import Field

from storage.errors import SpecError
from tasks.spec.base import Column, LocalPath, Name, Seed, Spec, Truth, is_full


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
    precision: Literal["float32", "bfloat16"] = Field(default="float32", exclude_if=is_full)
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
