"""Folders of files that are named and not looked at, and what `index_folder` says of them."""

from pathlib import Path
from typing import Any

from storage.local import LocalStore
from storage.objects import Ref, read_table
from tasks.data.entries import QUARANTINE
from tasks.data.folder import folder_inventory
from tasks.data.sources.folder import FolderSource, index_folder, unlocated


def folder(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def source(path: Path, label: str = "fake", **fields: Any) -> FolderSource:
    return FolderSource.model_validate({"name": "sd", "path": str(path), "label": label, **fields})


def indexed(store: LocalStore, given: FolderSource) -> Ref:
    ref, _ = index_folder.compute(
        store,
        source=unlocated(given),
        inventory=folder_inventory(given).digest,
        path=given.path,
        metadata=given.metadata,
    )
    assert isinstance(ref, Ref)
    return ref


def rows_of(store: LocalStore, ref: Ref) -> list[dict[str, Any]]:
    return list(read_table(store, ref).to_pylist())


def set_aside(store: LocalStore, ref: Ref) -> list[tuple[str, str]]:
    return [(row["image_id"], row["reason"]) for row in read_table(store, ref, name=QUARANTINE).to_pylist()]
