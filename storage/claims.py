"""Claims: which lane of which machine is making an object, so that the others make something else meanwhile.

A claim is an object of its own, `claims/<digest>/<number>.json`, that names the key of its holder's status object. It
is created and never rewritten, and only its holder deletes it. The store decides who is first, so it must have
conditional creates (`Store.is_exclusive`).

An object is computed once, as long as nobody dies, by whoever keeps this order:

    take the claim -> look the manifest up -> compute -> commit -> release the claim

Whoever is second gets the claim only after the first has released it, and finds the manifest then. Looked up before the
claim is taken, the manifest may come to be in between.

A claim is void, and the next number may be created, once its holder

* has been silent: its status object has had the same content, or has been missing, for `silence_s` on the clock of
  whoever looks. Nobody compares clocks, and the first look never finds anybody silent;
* has ended, as its status says: `"state"` is `"ended"` or `"refused"`;
* was this very holder before it was started again: it has the same status key.

Creating is not all: who was judged void may wake up, release, and let a third one in before the next number is there.
So whoever has created a claim looks again, and keeps it only if all others are void by then: of two that live, the one
that looks later sees the other. A void claim stays where it is, as nobody but its holder can delete it without perhaps
deleting the next one's under the same number; old ones are swept (`storage.sweep`).

A holder that was silent although it lives is not told that it has been succeeded. Both make the object then, and of two
equal manifests one wins (`storage.objects.commit`): that costs time, and nothing else.
"""

import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from storage.digest import canonical_json, sha256_hex
from storage.errors import DamagedObject, ObjectExists, ObjectMissing, SpecError, StoreError
from storage.store import Listed, Store

CLAIMS = "claims"
SILENCE_S = 90.0
ENDED = ("ended", "refused")
# How often a claim is tried for that others release or create at the same moments.
TRIES = 4


@dataclass(frozen=True)
class Claim:
    """The right to make the object of a digest; `status` is the key of its holder's status object."""

    digest: str
    number: int
    status: str

    @property
    def key(self) -> str:
        return f"{CLAIMS}/{self.digest}/{self.number:06d}.json"


class Claims:
    """The claims of one holder, which may use them from several threads.

    Args:
        store: where claims and statuses lie; it has conditional creates.
        status: key of this holder's status object. Whoever writes it changes it more often than every `silence_s`.
        clock: seconds of this observer; only differences count.
        silence_s: seconds without a change after which a holder is taken for dead.

    Attributes:
        tried: how often a claim was asked for.
        lost: how often none was had, as another one had it.
        silent: keys of statuses that by the last `hear` had not changed for `silence_s`; one thread hears.
        dead: those of them that do not say that their lanes have ended.
    """

    def __init__(
        self, store: Store, status: str, clock: Callable[[], float] = time.monotonic, silence_s: float = SILENCE_S
    ) -> None:
        self.tried = 0
        self.lost = 0
        self._store = store
        self._status = status
        self._clock = clock
        self._silence_s = silence_s
        # Of each object that was looked at: the digest of the content that it last had, and when that was first seen.
        self._seen: dict[str, tuple[str, float]] = {}
        self._taken: dict[str, Claim | None] = {}
        self.silent: set[str] = set()
        self.dead: set[str] = set()
        self._listed: dict[str, tuple[str | None, float]] = {}
        self._holders: dict[str, str | None] = {}
        # A signal may arrive inside, and its handler release everything.
        self._lock = threading.RLock()

    def take(self, digest: str) -> Claim | None:
        """Claim an object; None if another live holder has it, or another thread of this one."""
        with self._lock:
            self.tried += 1
            if digest in self._taken:
                self.lost += 1
                return None
            self._taken[digest] = None
        claim = None
        try:
            claim = self._created(digest)
        finally:
            with self._lock:
                if claim is None:
                    self.lost += 1
                    del self._taken[digest]
                else:
                    self._taken[digest] = claim
        return claim

    def release(self, claim: Claim) -> None:
        """Give a claim back; one that is gone is no error."""
        with self._lock:
            self._taken.pop(claim.digest, None)
        self._store.delete(claim.key)

    def release_all(self) -> None:
        """Give back everything that this holder has taken, at its end."""
        for claim in list(self._taken.values()):
            if claim is not None:
                self.release(claim)

    def held(self) -> dict[str, str]:
        """The last claim's key of each digest that anybody has claimed, void claims included; one listing."""
        return {key.split("/")[1]: key for key in self._store.list(CLAIMS)}

    def hear(self, statuses: Iterable[Listed]) -> None:
        """Take note of what a listing says of statuses, so that silence is known without a look at each of them."""
        now = self._clock()
        silent = set()
        for listed in statuses:
            version, since = self._listed.get(listed.key, (None, now))
            if version != listed.version:
                since = now
            self._listed[listed.key] = listed.version, since
            if now - since >= self._silence_s:
                silent.add(listed.key)
        self.dead = {key for key in silent if key in self.dead or (key not in self.silent and not self._has_ended(key))}
        self.silent = silent

    def is_known(self, key: str) -> bool:
        """Whether `holder` says who holds a claim without a look at the store."""
        return key in self._holders

    def holder(self, key: str) -> str | None:
        """The status key that a claim names, read once; None where it cannot be read or is gone."""
        if key not in self._holders:
            try:
                self._holders[key] = self._holder(key)
            except ObjectMissing:
                return None
        return self._holders[key]

    def _created(self, digest: str) -> Claim | None:
        number = 0
        for _ in range(TRIES):
            claim = Claim(digest, number, self._status)
            with suppress(ObjectExists):
                self._store.create(claim.key, canonical_json({"status": self._status}).encode())
                if self._stands(claim):
                    return claim
            others = self._keys(digest)
            if not self._are_void(others):
                return None
            number = _number(others[-1]) + 1 if others else 0
        return None

    def _stands(self, claim: Claim) -> bool:
        """Whether a claim that was just created is kept; otherwise it is withdrawn."""
        stands = False
        try:
            others = [key for key in self._keys(claim.digest) if key != claim.key]
            stands = self._are_void(others)
            if stands:
                self._delete_former(others)
        finally:
            if not stands:
                # What made it fail is the error to tell.
                with suppress(StoreError):
                    self._store.delete(claim.key)
        return stands

    def _keys(self, digest: str) -> list[str]:
        return self._store.list(f"{CLAIMS}/{digest}")

    def _are_void(self, keys: Sequence[str]) -> bool:
        # All are looked at, as the silence of each counts from the first look at it.
        void = [self._is_void(key) for key in keys]
        return all(void)

    def _is_void(self, key: str) -> bool:
        try:
            holder = self._holder(key)
        except ObjectMissing:  # released since it was listed
            return True
        return holder == self._status or self._is_silent(holder or key)

    def _holder(self, key: str) -> str | None:
        """The status key that a claim names, None where it cannot be read; `ObjectMissing` if it is gone."""
        try:
            return _text_in(self._store.read(key), "status")
        except DamagedObject:
            return None

    def _delete_former(self, keys: Sequence[str]) -> None:
        """Remove what this holder claimed before it was started again: it lives, so that nobody else could pass it."""
        for key in keys:
            with suppress(ObjectMissing):
                if self._holder(key) == self._status:
                    self._store.delete(key)

    def _has_ended(self, key: str) -> bool:
        try:
            return _text_in(self._store.read(key), "state") in ENDED
        except (ObjectMissing, DamagedObject):
            return False

    def _is_silent(self, key: str) -> bool:
        """Whether the object under a key says that its writer has ended, or has not changed for too long."""
        before = self._clock()
        if key in self.silent:
            return True
        try:
            content = self._store.read(key)
        except (ObjectMissing, DamagedObject, SpecError):  # a claim can name what is no key
            content = b""
        if _text_in(content, "state") in ENDED:
            return True
        digest = sha256_hex(content)
        with self._lock:
            seen = self._seen.get(key)
            if seen is None or seen[0] != digest:
                self._seen[key] = digest, self._clock()
                return False
        return before - seen[1] >= self._silence_s


def _number(key: str) -> int:
    return int(key.rsplit("/", 1)[1].removesuffix(".json"))


def _text_in(document: bytes, field: str) -> str | None:
    """The text of a field of a JSON object; None where there is none, whatever the bytes are."""
    with suppress(ValueError, RecursionError):
        content = json.loads(document)
        if isinstance(content, dict) and isinstance(content.get(field), str):
            return str(content[field])
    return None
