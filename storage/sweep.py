"""Sweeping a store: debris that no manifest speaks of and, on request, finished objects that no run refers to.

Writers may be at work meanwhile. Nothing that they finish is lost, and no manifest stays without its parts, because

* only what was last changed before a given moment is removed: a writer's own files are younger;
* of a finished object the manifest goes first: a sweep that is cut off leaves debris, never half an object;
* an old part may be taken up again by a writer that makes the very same bytes. So a part is read before it goes, the
  manifest is looked at after it has gone, and a part that is named by then is put back. A writer looks for its parts
  after writing the manifest (`storage.objects.commit`): whichever of the two comes second finds what is missing;
* claims and plans are debris, too, when they are old: no lane holds a claim that long, and of a plan at which somebody
  is at work a status has just been written, so that it goes as a whole or not at all;
* an unreferenced object goes only while nobody who could have found it is at work, see `remove_unreferenced`.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from pydantic import ValidationError

from storage.claims import CLAIMS
from storage.errors import DamagedObject, ObjectExists, ObjectMissing
from storage.local import LocalStore
from storage.objects import MANIFEST, OBJECTS, finished_objects, parse_manifest
from storage.plans import HEADER, PLANS
from storage.runs import RUNS
from storage.store import PARTIAL, Listed, Store

SWEPT_FOLDERS = (OBJECTS, "checkpoints", "probe")
INDEX = "index.json"

# Whatever mentions an object names its digest: a recipe its inputs, an index its results, notes a piece of work.
_DIGEST = re.compile(rb"[0-9a-f]{64}")


@dataclass(frozen=True)
class Removed:
    """What a sweep took away: how many keys, and the bytes that they had."""

    keys: int
    bytes: int

    def __add__(self, other: "Removed") -> "Removed":
        return Removed(self.keys + other.keys, self.bytes + other.bytes)


NOTHING = Removed(0, 0)


@dataclass(frozen=True)
class FinishedObject:
    """A finished object that may go: its place, the keys of its parts, and all their bytes."""

    uri: str
    parts: tuple[str, ...]
    bytes: int

    @property
    def step(self) -> str:
        """The step that made it: what its place says before its label and digest."""
        return step_of(f"{self.uri}/{MANIFEST}")


@dataclass(frozen=True)
class OldPlan:
    """A plan at which nobody has been at work for long: its folder, its keys, and all their bytes."""

    place: str
    keys: tuple[str, ...]
    bytes: int


def step_of(key: str) -> str:
    """The step to which a key of the store belongs, as far as its place says: `embed`, `train`, or `checkpoints`."""
    folders = key.split("/")
    return folders[1] if folders[0] == OBJECTS and len(folders) > 2 else folders[0]


def find_debris(store: Store, older_than: float) -> list[Listed]:
    """What no manifest speaks of and was last changed before `older_than` (seconds since 1970).

    Checkpoints and pieces are debris once they are old: what a step at work would miss of them, it computes again. A
    manifest that cannot be read stays, for its step to replace. Nothing is changed by looking.
    """
    found = [listed for folder in SWEPT_FOLDERS for listed in store.scan(folder)]
    manifests = [listed.key for listed in found if listed.key.endswith(f"/{MANIFEST}")]
    known = {*manifests, *(part for key in manifests for part in _named_by(store, key))}
    debris = [listed for listed in found if listed.key not in known and _is_older(store, listed.key, older_than)]
    return sorted(debris, key=lambda listed: listed.key)


def remove(store: Store, debris: Iterable[Listed], older_than: float) -> Removed:
    """Remove what is still debris: nothing that was changed or named by a manifest since it was found."""
    done = NOTHING
    for listed in debris:
        if _is_older(store, listed.key, older_than):
            done += _remove_unnamed(store, listed.key)
    return done


def find_old_claims(store: Store, older_than: float) -> list[Listed]:
    """Claims that were taken before `older_than`: those of lanes that died, and that nobody missed."""
    old = [listed for listed in store.scan(CLAIMS) if _is_older(store, listed.key, older_than)]
    return sorted(old, key=lambda listed: listed.key)


def find_old_plans(store: Store, older_than: float) -> list[OldPlan]:
    """Plans of which nothing at all was changed since `older_than`."""
    plans = defaultdict(list)
    for listed in store.scan(PLANS):
        # A key that lies in no plan's folder is one by itself.
        plans["/".join(listed.key.split("/")[:2])].append(listed)
    return [
        OldPlan(place, tuple(sorted(listed.key for listed in found)), sum(listed.bytes for listed in found))
        for place, found in sorted(plans.items())
        if _are_older(store, [listed.key for listed in found], older_than)
    ]


def remove_old_plans(store: Store, plans: Iterable[OldPlan], older_than: float) -> Removed:
    """Remove plans that are still old, each as a whole.

    The header goes first, so that nobody takes up a plan of which a part is gone. A plan that is made again meanwhile
    has a header again: the sweep keeps off what is left of it.
    """
    done = NOTHING
    for plan in plans:
        if not _are_older(store, store.list(plan.place) or plan.keys, older_than):
            continue
        header = f"{plan.place}/{HEADER}"
        for key in sorted(plan.keys, key=lambda key: key != header):
            if key != header and store.size(header) is not None:
                break
            size = store.size(key) or 0
            store.delete(key)
            done += Removed(1, size)
    return done


def find_unfinished_writes(store: Store, older_than: float) -> list[tuple[str, int]]:
    """Names below a local store's directory of writes that a crash broke off, with their bytes.

    An object store shows none: there they are uploads in parts, which a lifecycle rule of the bucket removes.
    """
    if not isinstance(store, LocalStore):
        return []
    found = []
    for path in sorted(store.root.rglob(f"{PARTIAL}*")):
        with suppress(FileNotFoundError):  # one that is being written goes at any moment
            facts = path.stat()
            if path.is_file() and facts.st_mtime < older_than:
                found.append((path.relative_to(store.root).as_posix(), facts.st_size))
    return found


def remove_unfinished_writes(store: Store, names: Sequence[str]) -> Removed:
    """Remove what `find_unfinished_writes` found; nobody goes on with them, so nothing has to be checked again."""
    done = NOTHING
    if not isinstance(store, LocalStore):
        return done
    for name in names:
        path = store.root / name
        with suppress(FileNotFoundError):
            size = path.stat().st_size
            path.unlink()
            done += Removed(1, size)
    return done


def find_unreferenced(store: Store, older_than: float) -> list[FinishedObject]:
    """Finished objects, last changed before `older_than`, that nothing refers to which stays.

    What stays are the runs' indexes and the younger objects; an object stays where one that stays names its digest, in
    its recipe or anywhere else in its manifest.

    Raises:
        DamagedObject: a run's index cannot be read; without it nothing can be said.
    """
    manifests = {uri: store.read(f"{uri}/{MANIFEST}") for uri in finished_objects(store)}
    places = defaultdict(list)
    for uri in manifests:
        places[uri.rsplit("/", 1)[1].encode()].append(uri)
    young = [uri for uri in manifests if not _is_older(store, f"{uri}/{MANIFEST}", older_than)]
    mentioned = [digest for index in _run_indexes(store) for digest in _DIGEST.findall(index)]
    staying: set[str] = set()
    waiting = young + [uri for digest in mentioned for uri in places.get(digest, ())]
    while waiting:
        uri = waiting.pop()
        if uri in staying:
            continue
        staying.add(uri)
        waiting += [other for digest in _DIGEST.findall(manifests[uri]) for other in places.get(digest, ())]
    going = sorted(manifests.keys() - staying)
    return [found for uri in going if (found := _finished(uri, manifests[uri])) is not None]


def remove_unreferenced(
    store: Store, objects: Iterable[FinishedObject], at_work: Callable[[], Sequence[str]]
) -> tuple[Removed, Sequence[str]]:
    """Remove objects while nobody is at work who could have found them; returns what went, and who stopped it.

    `at_work` names the runs that are at work, or were since the objects were looked for. It is asked before each
    object, and again between its manifest and its parts: a run that began before the manifest went is seen then, and
    the manifest is put back; one that begins later does not find the object and makes it again.
    """
    done = NOTHING
    for found in objects:
        if at_work():
            break
        key = f"{found.uri}/{MANIFEST}"
        try:
            manifest = store.read(key)
        except ObjectMissing:  # voided meanwhile: debris for the next sweep
            continue
        store.delete(key)
        if at_work():
            _put_back(store, key, manifest)
            break
        done += Removed(1, len(manifest))
        for part in found.parts:
            done += _remove_unnamed(store, part)
    return done, at_work()


def _run_indexes(store: Store) -> list[bytes]:
    indexes = []
    for key in store.list(RUNS):
        if key.endswith(f"/{INDEX}"):
            index = store.read(key)
            try:
                json.loads(index)
            except ValueError as error:
                raise DamagedObject(
                    f"{key} in {store.url} is not readable: what its run refers to is not known, nothing was removed"
                ) from error
            indexes.append(index)
    return indexes


def _remove_unnamed(store: Store, key: str) -> Removed:
    """Remove a key, unless its object's manifest names it, or has come to name it by the time the key is gone."""
    if not key.startswith(f"{OBJECTS}/"):
        size = store.size(key) or 0
        store.delete(key)
        return Removed(1, size)
    manifest = f"{key.rsplit('/', 1)[0]}/{MANIFEST}"
    if key in _named_by(store, manifest):
        return NOTHING
    try:
        data = store.read(key)
    except ObjectMissing:
        return NOTHING
    except DamagedObject:  # rotten bytes are of no use to any manifest
        size = store.size(key) or 0
        store.delete(key)
        return Removed(1, size)
    store.delete(key)
    if key in _named_by(store, manifest):
        _put_back(store, key, data)
        return NOTHING
    return Removed(1, len(data))


def _put_back(store: Store, key: str, data: bytes) -> None:
    try:
        store.create(key, data)
    except ObjectExists:  # its writer was faster
        return


def _named_by(store: Store, manifest: str) -> set[str]:
    """The keys of a finished object's parts; none where there is no readable manifest."""
    try:
        content = store.read(manifest)
    except (ObjectMissing, DamagedObject):
        return set()
    found = _finished(manifest.removesuffix(f"/{MANIFEST}"), content)
    return set() if found is None else set(found.parts)


def _finished(uri: str, manifest: bytes) -> FinishedObject | None:
    # Not `read_manifest`, which voids what it cannot read: looking at a store changes nothing.
    # A newer version's stops the sweep: its parts would be taken for debris.
    try:
        read = parse_manifest(uri, manifest)
    except ValidationError:
        return None
    return FinishedObject(uri, tuple(f"{uri}/{part.file}" for part in read.parts), read.bytes + len(manifest))


def _is_older(store: Store, key: str, moment: float) -> bool:
    try:
        return store.modified(key) < moment
    except ObjectMissing:
        return False


def _are_older(store: Store, keys: Iterable[str], moment: float) -> bool:
    # The statuses of lanes first: they are what changes, and one look tells of a plan that is young.
    return all(_is_older(store, key, moment) for key in sorted(keys, key=lambda key: "/lanes/" not in key))
