"""A toy kind of source, as somebody would add one: a folder of PNG files, each picture a group of its own."""

from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from storage.objects import ROWS
from tasks.data.entries import ENTRY_SCHEMA
from tasks.data.inventory import Inventory, list_files, take_inventory
from tasks.data.sources.base import DiskSource, Indexed
from tasks.facts import Question, fact
from tasks.recipe import Output, StepRun, step
from tasks.spec.base import LocalPath, on_this_machine
from tasks.variables import needed


class StripesSource(DiskSource):
    """A folder of striped pictures."""

    kind: Literal["stripes"] = "stripes"
    album: LocalPath
    label: Literal["fake"] = "fake"

    def missing(self) -> list[str]:
        album = on_this_machine(self).album
        return [] if Path(album).is_dir() else [f"stripes in {album}: put PNG files there, or name another folder"]

    def facts(self) -> list[Question]:
        return [(stripes_content, (self.album,))]

    def index(self) -> Indexed:
        entries = index_stripes(source=self.name, inventory=stripes_content(self.album), album=self.album)
        return Indexed(entries, self.album)


def stripes_inventory(album: str) -> Inventory:
    return take_inventory(Path(album), list_files(Path(album)), lambda name: name.endswith(".png"))


@fact(pool="cpu")
def stripes_content(album: str) -> str:
    """The digest of all names and pictures of a folder, as an experiment names it."""
    return stripes_inventory(needed(album)).digest


@step("index/stripes", version=1, label=lambda source, **_: source, unkeyed=("album",), paths=("album",))
def index_stripes(run: StepRun, *, source: str, inventory: str, album: str) -> Output:
    """One entry per picture, sorted by name."""
    found = stripes_inventory(album)
    found.expect(inventory, source)
    names = [item.name for item in found.listed if item.name in found.sha256]
    rows: list[dict[str, Any]] = [
        {
            "position": position,
            "image_id": f"{source}:{name}",
            "file": name,
            "sha256": found.sha256[name],
            "group_id": f"{source}:{name}",
            "categories": [],
        }
        for position, name in enumerate(names)
    ]
    return Output({ROWS: pa.Table.from_pylist(rows, schema=ENTRY_SCHEMA)}, {"n": len(rows), "quarantined": 0})
