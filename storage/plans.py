"""What a plan keeps in the store while its work is spread over pools: the coordinator's side and the lanes'.

    plans/<plan>/plan.json                      what was asked for, and by which version
    plans/<plan>/needs-<pool>.json              what its workers must have: device and library versions, decided once
    plans/<plan>/facts/<digest>.json            what workers said about their disks, each decided once
    plans/<plan>/segments/<pool>/<number>-<lane>.json  elements that are ready, and whose turn they are first
    plans/<plan>/segments/<pool>/<number>.over  all of them are finished
    plans/<plan>/lanes/<lane>.json              what a lane is doing; its change is the lane's heartbeat
    plans/<plan>/notes/<lane>/<number>.json     what a lane has finished, when its status became too long for it
    plans/<plan>/failures/<digest>/<number>.json  one failed attempt of an element
    plans/<plan>/end.json                       the plan is over; lanes end

All but the lanes' statuses are written once, create-only.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from storage.digest import canonical_json
from storage.errors import ObjectExists, ObjectMissing, OtherVersion, PlanDamaged
from storage.store import Listed, Store

PLANS = "plans"
HEADER = "plan.json"
# Raise it when what is written here means something else to a lane of another version.
FORMAT = 1
OVER = ".over"

Document = dict[str, Any]


@dataclass(frozen=True)
class Segment:
    """A list of elements: its number, and the lane that begins with it; others take what that one leaves."""

    number: int
    lane: int


@dataclass(frozen=True)
class PlanFolder:
    """The folder of one plan."""

    store: Store
    plan: str

    @property
    def place(self) -> str:
        """Where everything of the plan lies."""
        return f"{PLANS}/{self.plan}"

    def begin(self, asked: Mapping[str, Any]) -> Document:
        """Write what was asked for, or read what an earlier attempt of the coordinator wrote."""
        return self._once(HEADER, {"format": FORMAT, **asked})

    def header(self) -> Document:
        """What was asked for.

        Raises:
            ObjectMissing: there is no such plan.
            OtherVersion: it was written by a version whose plans mean something else.
        """
        found = self._read(HEADER)
        if found.get("format") != FORMAT:
            raise OtherVersion(f"plan {self.plan} has the format {found.get('format')}, this version knows {FORMAT}")
        return found

    def decide(self, pool: str, needs: Mapping[str, Any]) -> Document:
        """Fix what the workers of a pool must have; what was fixed before stays."""
        return self._once(f"needs-{pool}.json", dict(needs))

    def needs(self, pool: str) -> Document | None:
        """What the workers of a pool must have, None while that is not decided."""
        return self._read_if(f"needs-{pool}.json")

    def answer(self, digest: str, answer: Mapping[str, Any]) -> Document:
        """Write a fact down; the first answer stays."""
        return self._once(f"facts/{digest}.json", dict(answer))

    def is_answered(self, digest: str) -> bool:
        """Whether a question is answered."""
        return self.store.size(f"{self.place}/facts/{digest}.json") is not None

    def fact(self, digest: str) -> Document | None:
        """One answer, None while the question is open."""
        return self._read_if(f"facts/{digest}.json")

    def add_segment(self, pool: str, segment: Segment, elements: Sequence[Mapping[str, Any]]) -> None:
        """Append elements that are ready."""
        self._once(self._segment(pool, segment), {"elements": list(elements)})

    def segments(self, pool: str) -> tuple[list[Segment], set[int]]:
        """A pool's segments in their order, and the numbers of those that are finished."""
        segments: list[Segment] = []
        over: set[int] = set()
        for key in self.store.list(f"{self.place}/segments/{pool}"):
            name = key.rpartition("/")[2]
            if name.endswith(OVER):
                over.add(int(name.removesuffix(OVER)))
            else:
                number, lane = _stem(key).split("-")
                segments.append(Segment(int(number), int(lane)))
        return segments, over

    def segment(self, pool: str, segment: Segment) -> list[Document]:
        """The elements of a segment."""
        found: list[Document] = self._read(self._segment(pool, segment))["elements"]
        return found

    def close_segment(self, pool: str, number: int) -> None:
        """All elements of a segment are finished: nobody needs to look at it again."""
        with contextlib.suppress(ObjectExists):
            self.store.create(f"{self.place}/segments/{pool}/{number:06d}{OVER}", b"")

    def status_key(self, lane: str) -> str:
        """Where a lane's status lies."""
        return f"{self.place}/lanes/{lane}.json"

    def write_status(self, lane: str, status: Mapping[str, Any]) -> None:
        """Say what a lane is doing; it replaces what it said before."""
        self.store.write(self.status_key(lane), canonical_json(dict(status)).encode())

    def statuses(self) -> Iterator[tuple[str, Listed]]:
        """Lanes that have said something, and what the listing says about their statuses."""
        for listed in self.store.scan(f"{self.place}/lanes"):
            yield _stem(listed.key), listed

    def status(self, lane: str) -> Document | None:
        """What a lane is doing."""
        return self._read_if(f"lanes/{lane}.json")

    def seal_notes(self, lane: str, number: int, notes: Sequence[Any]) -> None:
        """Keep what a lane has finished."""
        self._once(f"notes/{lane}/{number:06d}.json", {"notes": list(notes)})

    def notes(self, lane: str, number: int) -> list[Any]:
        """What a lane had finished when it sealed its notes for the time `number`."""
        found: list[Any] = self._read(f"notes/{lane}/{number:06d}.json")["notes"]
        return found

    def fail(self, digest: str, failure: Mapping[str, Any]) -> int:
        """Write a failed attempt of an element down; returns how many there are now."""
        number = len(self.store.list(f"{self.place}/failures/{digest}"))
        while True:
            try:
                self.store.create(self._failure(digest, number), canonical_json(dict(failure)).encode())
            except ObjectExists:
                number += 1
            else:
                return number + 1

    def failures(self) -> dict[str, list[str]]:
        """Keys of failed attempts, by the element's digest."""
        found: dict[str, list[str]] = {}
        for key in self.store.list(f"{self.place}/failures"):
            found.setdefault(key.split("/")[-2], []).append(key)
        return found

    def failure(self, key: str) -> Document:
        """One failed attempt."""
        return self._parsed(key)

    def end(self, state: str, reason: str = "") -> Document:
        """The plan is over: lanes end. The first end stays."""
        return self._once("end.json", {"state": state, "reason": reason})

    def ended(self) -> Document | None:
        """How the plan ended, None while it goes on."""
        return self._read_if("end.json")

    def _segment(self, pool: str, segment: Segment) -> str:
        return f"segments/{pool}/{segment.number:06d}-{segment.lane:04d}.json"

    def _failure(self, digest: str, number: int) -> str:
        return f"{self.place}/failures/{digest}/{number:06d}.json"

    def _once(self, name: str, document: Document) -> Document:
        try:
            self.store.create(f"{self.place}/{name}", canonical_json(document).encode())
        except ObjectExists:
            return self._read(name)
        return document

    def _read(self, name: str) -> Document:
        return self._parsed(f"{self.place}/{name}")

    def _parsed(self, key: str) -> Document:
        try:
            found = json.loads(self.store.read(key))
        except ValueError as error:
            raise PlanDamaged(f"{key} is damaged ({error}): start the run again, which makes a plan anew") from error
        if not isinstance(found, dict):
            raise PlanDamaged(f"{key} is damaged (no mapping): start the run again, which makes a plan anew")
        return found

    def _read_if(self, name: str) -> Document | None:
        try:
            return self._read(name)
        except ObjectMissing:
            return None


def _stem(key: str) -> str:
    return key.rpartition("/")[2].removesuffix(".json")
