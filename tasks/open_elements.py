"""The elements of a plan that nobody has begun, as one lane sees them: what there is, and what it claims of it.

Before a lane computes an object it claims it, then looks whether it is there: so one of all lanes of all plans makes
it, and where two do after all, the manifest decides. A lane knows its plan by reading segments, a few at a time.
"""

from __future__ import annotations

import math
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from storage.claims import Claim, Claims
from storage.objects import Ref, digest_at, find
from storage.plans import PlanFolder, Segment
from tasks.recipe import Pool

# A claim of a holder that is not among this plan's lanes is tried so often, to see whether it still lives.
TRY_S = 20.0
SEGMENTS_KEPT = 16
# How old what is known of others' claims and of the segments may be: at most, and at least.
LOOK_S = 1.0
LOOK_AGAIN_S = 0.05
# So many elements and holders of claims are looked up before a lane that finds nothing to do pauses.
LOOK_UPS = 8


@dataclass
class Work:
    """An element at work, by a thread of its own."""

    document: Mapping[str, Any]
    known: set[str]  # finished objects of its segment
    name: str
    claims: list[Claim]
    patience_s: float
    began: float
    moved: float  # when it last reported progress
    done: int = 0
    total: int = 0


class OpenElements:
    """What a lane may take next.

    Args:
        folder: the plan's.
        pool: whose elements they are.
        name: the lane's, by which lanes that help others do not all help the same.
        index: of the lane, whose segments come first.
        claims: the lane's.
        clock: seconds; only differences count.
        found: told of every object that turns out to be finished.
        before_closing: called before a segment is closed at which nobody will look again: whatever the lane knows of
            it must have been said by then, in case it dies.
    """

    def __init__(
        self,
        folder: PlanFolder,
        pool: Pool,
        name: str,
        index: int,
        claims: Claims,
        clock: Callable[[], float],
        found: Callable[[Ref], None],
        before_closing: Callable[[], None],
    ) -> None:
        self._folder = folder
        self._pool = pool
        self._name = name
        self._index = index
        self._claims = claims
        self._clock = clock
        self._found = found
        self._before_closing = before_closing
        self._step = ""
        self._tries: dict[str, float] = {}  # when claims of others are tried next
        self._avoided: dict[str, float] = {}
        self._segments: OrderedDict[int, list[dict[str, Any]]] = OrderedDict()
        self._known: dict[int, set[str]] = {}  # finished objects of the segments at hand
        self._over: set[int] = set()  # segments that are finished
        self._looked = -math.inf
        self._listed: list[Segment] = []
        self._held: dict[str, str] = {}  # keys of claims, by digest
        self._look_ups = self._holders_read = 0

    @property
    def segments_kept(self) -> int:
        """How many segments are in memory."""
        return len(self._segments)

    def begin_turn(self) -> None:
        """From now on there are `LOOK_UPS` again."""
        self._look_ups = self._holders_read = 0

    def avoid(self, place: str, until: float) -> None:
        """Leave the element whose first place this is to others, until that moment of the clock."""
        self._avoided[place] = until

    def has_unfinished(self) -> bool:
        """Whether something that is released is not known to be finished: others are at it."""
        return any(segment.number not in self._over for segment in self._listed)

    def take(self, step: str) -> Work | None:
        """Claim the next element that nobody has begun: of this lane's segments first, of `step` before others."""
        self._step = step
        age = self._clock() - self._looked
        work = self._claimed_of(own=True)
        if work is None and age < LOOK_S:
            work = self._claimed_of(own=False)
        if work is None and age >= LOOK_AGAIN_S:
            self._look()
            work = self._claimed_of(own=True) or self._claimed_of(own=False)
        return work

    def _look(self) -> None:
        """See what there is, and what others have claimed."""
        self._listed, over = self._folder.segments(self._pool)
        self._over |= over
        self._listed = [segment for segment in self._listed if segment.number not in self._over]
        # In an order of its own, so that lanes that help others do not all help the same.
        self._listed.sort(key=lambda segment: self._rank(str(segment.number)))
        self._held = self._claims.held() if self._listed else {}
        self._looked = self._clock()

    def _rank(self, what: str) -> int:
        return zlib.crc32(f"{self._name} {what}".encode())

    def _claimed_of(self, *, own: bool) -> Work | None:
        chosen = [segment for segment in self._listed if (segment.lane == self._index) == own]
        if own:
            chosen.sort(key=lambda segment: segment.number)
        for segment in chosen:
            if segment.number in self._over:
                continue
            if not own and self._look_ups >= LOOK_UPS:
                break
            left = self._left_of(segment)
            # Their lane goes on from the other end.
            for document in left if own else reversed(left):
                work = self._claimed(document, segment)
                if work is not None:
                    return work
            if not self._left_of(segment):
                self._close(segment.number)
        return None

    def _left_of(self, segment: Segment) -> list[dict[str, Any]]:
        """Elements of a segment of which something is not known to be finished; those of the step at hand first."""
        number = segment.number
        documents = self._segments.get(number)
        if documents is None:
            documents = self._segments[number] = self._folder.segment(self._pool, segment)
            if len(self._segments) > SEGMENTS_KEPT:
                gone, _ = self._segments.popitem(last=False)
                self._known.pop(gone, None)
        self._segments.move_to_end(number)
        known = self._known.setdefault(number, set())
        left = [document for document in documents if not known.issuperset(document["places"])]
        return sorted(left, key=lambda document: document["step"] != self._step)

    def _claimed(self, document: dict[str, Any], segment: Segment) -> Work | None:
        """Claim what is missing of an element; what turns out to be finished is noted."""
        known = self._known[segment.number]
        own = segment.lane == self._index
        now = self._clock()
        if self._avoided.get(document["places"][0], -1.0) > now:
            return None
        claims = []
        for place in document["places"]:
            digest = digest_at(place)
            if place in known or (digest in self._held and not self._may_be_free(digest, now)):
                continue
            if not own:
                if self._look_ups >= LOOK_UPS:
                    break
                self._look_ups += 1
                if self._is_finished(place, known):
                    continue
            claim = self._claims.take(digest)
            if claim is None:
                # Who has it is seen at the next look.
                self._held.setdefault(digest, "")
                continue
            if self._is_finished(place, known):
                self._claims.release(claim)
            else:
                claims.append(claim)
        if not claims:
            return None
        wanted = {claim.digest for claim in claims}
        places = [place for place in document["places"] if digest_at(place) in wanted]
        return Work({**document, "places": places}, known, document["name"], claims, float("inf"), now, now)

    def _may_be_free(self, digest: str, now: float) -> bool:
        """Whether to try a claim that somebody holds: of this plan's lanes, that of one that is silent for long."""
        key = self._held[digest]
        if not key:
            return False
        next_try = self._tries.setdefault(digest, now + TRY_S)
        if now < next_try and not self._claims.dead:
            return False
        if not self._claims.is_known(key):
            if self._holders_read >= LOOK_UPS:
                return False
            self._holders_read += 1
        holder = self._claims.holder(key)
        if holder is not None and holder.startswith(f"{self._folder.place}/"):
            return holder in self._claims.silent
        if now < next_try:
            return False
        self._tries[digest] = now + TRY_S
        return True

    def _is_finished(self, place: str, known: set[str]) -> bool:
        if place.startswith("facts/"):
            if not self._folder.is_answered(digest_at(place)):
                return False
            known.add(place)
            return True
        ref = find(self._folder.store, place)
        if ref is None:
            return False
        self._found(ref)
        known.add(place)
        return True

    def _close(self, number: int) -> None:
        self._before_closing()
        self._folder.close_segment(self._pool, number)
        self._over.add(number)
        self._segments.pop(number, None)
        self._known.pop(number, None)
