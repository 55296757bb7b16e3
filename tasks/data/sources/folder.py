"""A directory or a Parquet file of pictures as a source."""

import operator
from pathlib import Path
from typing import Literal

from pydantic import Field

from tasks.data.folder import check_folder, folder_entries, folder_inventory
from tasks.data.folder_metadata import metadata_above
from tasks.data.sources.base import DiskSource, Indexed
from tasks.facts import Question, fact
from tasks.recipe import Output, StepRun, step
from tasks.spec.base import Column, LocalPath, Truth, on_this_machine


class FolderSource(DiskSource):
    """A directory or a Parquet file of images, with optional metadata (JSON list, JSON lines, CSV or Parquet).

    Metadata rows are matched by `file_name`; known columns are `prompt`, `text`, `caption`, `captions`, `group_id`,
    `seed`, `licence`, `class_index`, `class_name`, in any letter case, in a Parquet file of images as well. The first
    of `prompt`, `text`, `caption`, `captions` and their like (`PROMPT_COLUMNS`) that says something is a fake's prompt,
    and pictures of one prompt are one group; of a photograph, such texts are captions and no groups.

    Without `metadata`, files called `metadata.jsonl`, `metadata.csv`, `metadata.parquet` or `metadata.json` are read
    where they lie in the directory or in one below it, each for its own, and else the one in a folder above if it
    names pictures as `<directory>/...`, or no others than the directory's. Naming one turns that off.

    `limit_per_class` needs a class column. `group_by` names the column that says which pictures belong together, in
    place of `group_id` and prompts: sets call it in many ways, such as `scene`.
    """

    kind: Literal["folder"] = "folder"
    path: LocalPath
    metadata: LocalPath | None = None
    label: Literal["real", "fake"]
    limit: int | None = Field(default=None, ge=1)
    limit_per_class: int | None = Field(default=None, ge=1)
    group_by: Column | None = Field(default=None, exclude_if=operator.not_)
    smaller_by_nature: Truth = False

    @property
    def may_be_enlarged(self) -> bool:
        return self.smaller_by_nature

    def missing(self) -> list[str]:
        return check_folder(on_this_machine(self))

    def facts(self) -> list[Question]:
        return [(folder_content, (self,))]

    def index(self) -> Indexed:
        described, inventory = folder_content(self)
        entries = index_folder(
            source=unlocated(described), inventory=inventory, path=described.path, metadata=described.metadata
        )
        return Indexed(entries, described.path)


def unlocated(source: FolderSource) -> FolderSource:
    """The source without its paths, which say where it lies and not what it is: the form that a recipe takes."""
    return source.model_copy(update={"path": "", "metadata": None})


def with_metadata_above(source: FolderSource) -> FolderSource:
    """The source with the metadata named that lie above its folder and speak of it, where none lie in it."""
    found = metadata_above(Path(source.path)) if source.metadata is None else None
    return source if found is None else source.model_copy(update={"metadata": str(found)})


@fact(pool="cpu")
def folder_content(source: FolderSource) -> tuple[FolderSource, str]:
    """A source as an experiment has it with its metadata named, and the digest of `folder_inventory`.

    Metadata that were found above the folder are named by the way that leads there from its path as it is written.

    Raises:
        MissingInput: variables are not set, or `check_folder` finds something missing.
        InputChanged: a file is being written to.
    """
    here = on_this_machine(source)
    described = with_metadata_above(here)
    metadata = None if here.metadata is None else source.metadata
    if described.metadata is not None and here.metadata is None:
        found = Path(described.metadata)
        levels = [*Path(here.path).resolve().parents].index(found.parent) + 1
        metadata = "/".join((source.path, *[".."] * levels, found.name))
    return source.model_copy(update={"metadata": metadata}), folder_inventory(described).digest


@step(
    "index/folder",
    version=2,
    label=lambda source, **_: source.name,
    unkeyed=("path", "metadata"),
    paths=("path", "metadata"),
)
def index_folder(run: StepRun, *, source: FolderSource, inventory: str, path: str, metadata: str | None) -> Output:
    """Index a folder or a Parquet file: one entry per picture, sorted by relative path (Parquet: by row).

    Args:
        run: the step's surroundings.
        source: `unlocated(source)`.
        inventory: the digest of `folder_inventory(source)`.
        path: the directory or Parquet file.
        metadata: the metadata file; None takes those of `FOUND_METADATA` that lie among the pictures. See also
            `with_metadata_above`.

    Raises:
        SpecError: metadata or Parquet file are broken, no picture is left, or `limit_per_class` finds no class.
        InputChanged: this is no longer what the inventory was taken of.
    """
    return folder_entries(source.model_copy(update={"path": path, "metadata": metadata}), inventory)
