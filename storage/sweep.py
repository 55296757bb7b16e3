"""Debris: what a store holds that no manifest speaks of."""

from collections.abc import Sequence

from storage.errors import DamagedObject, ObjectMissing
from storage.objects import MANIFEST, read_manifest
from storage.store import Store

SWEPT_FOLDERS = ("objects", "checkpoints", "probe")


def find_debris(store: Store, older_than: float) -> list[str]:
    """Keys that no manifest speaks of and that were last changed before `older_than` (seconds since 1970).

    Checkpoints are debris once they are old: a step that is still training writes a newer one every epoch.
    """
    keys = [key for folder in SWEPT_FOLDERS for key in store.list(folder)]
    known = _known_keys(store, [key for key in keys if key.endswith(f"/{MANIFEST}")])
    return [key for key in keys if key not in known and _is_older(store, key, older_than)]


def remove(store: Store, keys: Sequence[str]) -> int:
    """Delete keys; returns how many bytes they had."""
    size = 0
    for key in keys:
        size += store.size(key) or 0
        store.delete(key)
    return size


def _known_keys(store: Store, manifests: Sequence[str]) -> set[str]:
    known: set[str] = set()
    for key in manifests:
        uri = key.removesuffix(f"/{MANIFEST}")
        try:
            manifest = read_manifest(store, uri)
        except (DamagedObject, ObjectMissing):
            continue
        known.add(key)
        known.update(f"{uri}/{part.file}" for part in manifest.parts)
    return known


def _is_older(store: Store, key: str, moment: float) -> bool:
    try:
        return store.modified(key) < moment
    except ObjectMissing:
        return False
