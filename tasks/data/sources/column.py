"""One column of pictures of a Parquet file as a source, and several of them at once."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from storage.errors import SpecError
from tasks.data.columns import check_column, column_entries, column_inventory
from tasks.data.sources.base import DiskSource, Indexed
from tasks.facts import Question, fact
from tasks.recipe import Output, StepRun, step
from tasks.spec.base import Column, LocalPath, Truth, on_this_machine


class ColumnSource(DiskSource):
    """One column of pictures of a Parquet file, or of all Parquet files below a directory, sorted by name.

    Published sets hold several in a row: a prompt with the pictures that some generators made of it. Pictures of one
    row share a group over all the sources that are read from it: what `group_column` says, else the row's prompt, else
    the row itself. `limit` counts rows. A `prompt-set` in an experiment file names several such sources at once.
    """

    can_be_origin: ClassVar[bool] = False

    kind: Literal["column"] = "column"
    path: LocalPath
    column: Column
    prompt_column: Column | None = None
    group_column: Column | None = None
    label: Literal["real", "fake"] = "fake"
    limit: int | None = Field(default=None, ge=1)
    smaller_by_nature: Truth = False

    @property
    def identity(self) -> str:
        return f"the column {self.column!r} of {self.path}"

    @property
    def may_be_enlarged(self) -> bool:
        return self.smaller_by_nature

    def missing(self) -> list[str]:
        return check_column(on_this_machine(self))

    def facts(self) -> list[Question]:
        return [(column_content, (self,))]

    def index(self) -> Indexed:
        entries = index_column(source=unlocated_column(self), inventory=column_content(self), path=self.path)
        return Indexed(entries, self.path)


def unlocated_column(source: ColumnSource) -> ColumnSource:
    """The source without its path, which says where it lies and not what it is: the form that a recipe takes."""
    return source.model_copy(update={"path": ""})


@fact(pool="cpu")
def column_content(source: ColumnSource) -> str:
    """The digest of `column_inventory`, of a source as an experiment has it; raises as that does."""
    return column_inventory(on_this_machine(source)).digest


@step("index/column", version=2, label=lambda source, **_: source.name, unkeyed=("path",), paths=("path",))
def index_column(run: StepRun, *, source: ColumnSource, inventory: str, path: str) -> Output:
    """Index one column: one entry per row, in the order of the files' names and of their rows.

    Args:
        run: the step's surroundings.
        source: `unlocated_column(source)`.
        inventory: the digest of `column_inventory(source)`.
        path: the Parquet file, or the directory of Parquet files.

    Raises:
        MissingInput: files or columns have gone since the inventory.
        InputChanged: files have changed since.
        SpecError: a file's prompts or groups are damaged.
    """
    return column_entries(source.model_copy(update={"path": path}), inventory)


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
