"""A lane: takes elements of a plan one after the other, whatever nobody has begun, and says what it finished."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import math
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from storage.claims import Claims
from storage.errors import DamagedObject, OtherVersion, PlanDamaged, PlanFailed
from storage.objects import Ref, digest_at
from storage.plans import PlanFolder
from tasks.device import DeviceLost
from tasks.elements import element_of
from tasks.facts import answer_of
from tasks.open_elements import LOOK_S, OpenElements, Work
from tasks.progress import Progress, show_on
from tasks.recipe import Pool, Step, is_final

logger = logging.getLogger(__name__)

BEAT_S = 15.0
# What was finished is said at once, but no more often than so.
NOTES_S = 0.3
WAIT_FOR_WORK_S = 60.0
# While others are at work for the plan: long enough to take over what they leave when they die.
WAIT_FOR_OTHERS_S = 150.0
WAIT_FOR_NEEDS_S = 600.0
# An element that failed here is left to others for so long.
PAUSE_AFTER_FAILURE_S = 30.0
NOTES_IN_STATUS = 20
# A lane that has nothing to do looks again after pauses that grow. They grow further where there are many lanes, and
# where looking takes long, as in a bucket: all of them together ask a store some twenty times a second. And they grow
# with the time for which there was nothing.
FIRST_PAUSE_S = 0.05
PAUSE_S = 0.3
PAUSE_FOR_EACH_LANE_S = 0.05
LONGEST_PAUSE_S = 2.0
PAUSE_TO_LOOK = 10.0
PAUSE_TO_IDLENESS = 0.02

# Makes a call's objects; the second value tells whether people are shown it, as a task run.
Compute = Callable[[Step, Mapping[str, Any], bool], Any]


class CannotOffer(PlanFailed):
    """A lane's worker lacks what the plan needs; another one may have it."""


class Hung(PlanFailed):
    """An element does not move: its process has to be ended."""


@dataclass(frozen=True)
class Offer:
    """What a lane's process brings: who it is, its device, and the versions of what it computes with."""

    worker: str
    device: str
    versions: Mapping[str, str | None]
    telltale: str
    price: float | None = None  # of an hour, where it is known
    host: str = field(default_factory=socket.gethostname)

    def lacks(self, needs: Mapping[str, Any]) -> str | None:
        """Why this worker cannot do what a plan needs, None where it can."""
        if needs["telltale"] != self.telltale:
            return f"it has telltale {self.telltale}, the plan is of {needs['telltale']}"
        if needs["device"] not in ("cpu", self.device):
            return f"it has no usable GPU, the plan computes on {needs['device']}"
        for library, version in needs["versions"].items():
            if self.versions.get(library) != version:
                return f"it has {library} {self.versions.get(library)}, the plan needs {version}"
        return None


class Lane:
    """One lane of a plan on a pool.

    Args:
        folder: the plan's.
        pool: whose elements it takes.
        name: under which its status lies; of this very process.
        index: a number that tells lanes apart: they begin with different segments.
        offer: what its process brings.
        compute: makes a call's objects.
        slots: how many elements it computes at once.
        yields: whether somebody more urgent waits for its place; asked at every beat.
        tell: called with the name of the step that it is at, at a beat, until it returns true of it.
        clock: seconds; only differences count.
        start: begins a call of a name beside the lane, by default in a thread.
    """

    def __init__(
        self,
        folder: PlanFolder,
        pool: Pool,
        name: str,
        index: int,
        offer: Offer,
        compute: Compute,
        *,
        slots: int,
        yields: Callable[[], bool] = lambda: False,
        tell: Callable[[str], bool] = lambda step: True,
        clock: Callable[[], float] = time.monotonic,
        start: Callable[[Mapping[str, Any], Callable[[], None]], None] | None = None,
    ) -> None:
        self.name = name
        self.computed = 0
        self.claims = Claims(folder.store, folder.status_key(name), clock)
        self._folder = folder
        self._pool = pool
        self._index = index
        self._offer = offer
        self._compute = compute
        self._slots = slots
        self._yields = yields
        self._tell = tell
        self._clock = clock
        self._start = start or _in_a_thread
        self._lock = threading.RLock()
        self._woken = threading.Event()  # there may be something to do
        self._noted = threading.Event()  # there may be something to say
        self._state = "starting"
        self._reason = ""
        self._beats = 0
        self._beaten = self._watched = -math.inf
        self._lanes = 1  # that the plan has, on all pools
        self._work: dict[str, Work] = {}
        self._notes: list[list[Any]] = []
        self._said = 0  # notes of these that were written
        self._sealed = 0
        self._failures = 0
        self._fatal: BaseException | None = None
        self._leaves = False
        self._ended = False
        self._asked = -math.inf
        self._step = self._told = ""
        self.elements = OpenElements(
            folder, pool, name, index, self.claims, clock, lambda ref: self._note(ref, 0.0), self._say_all
        )

    def run(self) -> Literal["ended"]:
        """Work until the plan is over, there is nothing to do for a while, or somebody more urgent waits.

        Raises:
            CannotOffer: the worker lacks what the plan needs.
            DeviceLost: the GPU failed; a new process may go on.
        """
        stop_showing = show_on(self)
        try:
            with self._beating():
                for pause in self.turns():
                    self._woken.wait(pause)
                    self._woken.clear()
            self.finish("ended")
        except CannotOffer as error:
            self.finish("refused", str(error))
            raise
        except PlanDamaged as error:
            # No other lane can read it either.
            self._write_down(error, {"name": "the plan", "step": "plan", "places": ["plan/plan"]}, final=True)
            self.finish("ended", str(error))
            raise
        except BaseException as error:
            self.finish("ended", f"{type(error).__name__}: {error}")
            raise
        finally:
            stop_showing()
        return "ended"

    @property
    def is_busy(self) -> bool:
        """Whether it computes something, be it after its end."""
        return bool(self._work)

    def turns(self) -> Iterator[float]:
        """The lane's work: takes what it can, then gives the seconds to wait, unless one of its elements ends."""
        yield from self._await_needs()
        idle_since: float | None = None
        pause, found = FIRST_PAUSE_S, self._clock()
        while self._fatal is None:
            began = self._clock()
            self.elements.begin_turn()
            while len(self._work) < self._slots and not (self._leaves or self._is_over()):
                work = self.elements.take(self._step)
                if work is None:
                    break
                self._begin(work)
                pause, found = FIRST_PAUSE_S, began
            if self._work and not self._ended:
                idle_since = None
            elif self._leaves or self._is_over():
                return
            else:
                idle_since = self._clock() if idle_since is None else idle_since
                if self._clock() - idle_since >= (
                    WAIT_FOR_OTHERS_S if self.elements.has_unfinished() else WAIT_FOR_WORK_S
                ):
                    return
            if len(self._work) >= self._slots:
                yield BEAT_S
                continue
            took = self._clock() - began
            yield min(LONGEST_PAUSE_S, max(pause, PAUSE_TO_LOOK * took, PAUSE_TO_IDLENESS * (began - found)))
            pause = min(pause * 1.5, max(PAUSE_S, PAUSE_FOR_EACH_LANE_S * self._lanes))
        raise self._fatal

    def beats(self) -> Iterator[float]:
        """What the lane says of itself: gives the seconds to wait, unless it finishes something."""
        while True:
            now = self._clock()
            since = now - self._beaten
            if since >= BEAT_S or (len(self._notes) > self._said and since >= NOTES_S):
                self._look_after()
                since = 0.0
            yield (NOTES_S if len(self._notes) > self._said else BEAT_S) - since

    def finish(self, state: str, reason: str = "") -> None:
        """Give back what it has claimed, and say that it ended."""
        self._state, self._reason = state, reason
        with contextlib.suppress(Exception):
            self.claims.release_all()
        with contextlib.suppress(Exception):
            self._beat()

    def update(self, progress: Progress) -> None:
        """A call has done so much, as `tasks.progress.Display`."""
        with self._lock:
            for work in self._work.values():
                if work.name == progress.name:
                    work.done, work.total, work.moved = progress.done, progress.total, self._clock()

    def _await_needs(self) -> Iterator[float]:
        self._beat()
        since = self._clock()
        pause = FIRST_PAUSE_S
        while (needs := self._folder.needs(self._pool)) is None:
            if self._is_over() or self._clock() - since > WAIT_FOR_NEEDS_S:
                self._leaves = True
                return
            yield pause
            pause = min(pause * 1.5, LOOK_S)
        lacking = self._offer.lacks(needs)
        if lacking is not None:
            raise CannotOffer(f"worker {self._offer.worker} on {self._offer.host}: {lacking}")
        self._state = "working"
        self._beat()

    def _is_over(self) -> bool:
        """Whether the plan is: nobody waits for what is at work any more. Asked about once a second."""
        if not self._ended and self._clock() - self._asked >= LOOK_S:
            self._asked = self._clock()
            self._ended = self._folder.ended() is not None
        return self._ended

    # Doing it.

    def _begin(self, work: Work) -> None:
        self._step = work.document["step"]
        place = work.document["places"][0]
        with self._lock:
            self._work[place] = work
        self._start(work.document, lambda: self._do(place, work))

    def _do(self, place: str, work: Work) -> None:
        try:
            for ref in self._made(work):
                self._note(ref, self._clock() - work.began)
                work.known.add(ref.uri)
        except DeviceLost as error:
            self._fatal = error
        except BaseException as error:
            self._failed(work, error)
        finally:
            for claim in work.claims:
                with contextlib.suppress(Exception):
                    self.claims.release(claim)
            with self._lock:
                del self._work[place]
            self._woken.set()

    def _made(self, work: Work) -> Sequence[Ref]:
        if "fact" in work.document:
            question = work.document["fact"]
            answer = {"question": question, "answer": answer_of(question), "worker": self._offer.worker}
            self._folder.answer(digest_at(work.document["places"][0]), answer)
            work.known.update(work.document["places"])
            return ()
        element = element_of(work.document)
        work.name, work.patience_s = element.name, element.step.patience_s
        made = self._compute(element.step, element.arguments, bool(work.document.get("shown")))
        refs = made if element.step.makes_several else (made,)
        self.computed += len(refs)
        return tuple(refs)

    def _failed(self, work: Work, error: BaseException) -> None:
        logger.warning("%s failed: %s: %s", work.document["name"], type(error).__name__, error)
        self.elements.avoid(work.document["places"][0], self._clock() + PAUSE_AFTER_FAILURE_S)
        self._write_down(error, work.document, final=is_final(error))

    def _write_down(self, error: BaseException, document: Mapping[str, Any], *, final: bool) -> None:
        self._folder.fail(
            digest_at(document["places"][0]),
            {
                "element": document["name"],
                "step": document["step"],
                "places": list(document["places"]),
                "error": type(error).__name__,
                "message": str(error),
                "traceback": "".join(traceback.format_exception(error))[-4000:],
                "notes": list(getattr(error, "__notes__", ())),
                "final": final,
                "damaged": isinstance(error, DamagedObject),
                "refused": isinstance(error, OtherVersion),
                "lane": self.name,
                "worker": self._offer.worker,
                "host": self._offer.host,
            },
        )
        with self._lock:
            self._failures += 1
            self._said = -1
        self._noted.set()

    # Saying so.

    def _note(self, ref: Ref, seconds: float) -> None:
        with self._lock:
            self._notes.append([ref.uri, ref.rows, ref.bytes, round(seconds, 3)])
        self._noted.set()

    def _say_all(self) -> None:
        if self._said < len(self._notes):
            self._beat()

    @contextlib.contextmanager
    def _beating(self) -> Iterator[None]:
        stopped = threading.Event()

        def beat() -> None:
            for pause in self.beats():
                self._noted.wait(pause)
                self._noted.clear()
                if stopped.is_set():
                    return

        # What the flow run has set holds there, too.
        run = contextvars.copy_context().run
        thread = threading.Thread(target=run, args=(beat,), name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            self._noted.set()
            thread.join()

    def _look_after(self) -> None:
        """Beat, and now and then see who is silent, and whether the lane should end: as the plan is over, or hung."""
        try:
            self._beat()
            if self._clock() - self._watched >= BEAT_S:
                self._watched = self._clock()
                self._watch()
                if self._is_over() or self._yields():
                    self._leaves = True
                    self._woken.set()
                self._look_for_hung()
                step = self._step
                if step != self._told and self._tell(step):
                    self._told = step
        except Exception:
            # A store that is away for a while: others take over what they do not hear of.
            logger.warning("the lane's status could not be written", exc_info=True)

    def _watch(self) -> None:
        """Hear by one listing which of the plan's lanes still change what they say."""
        statuses = list(self._folder.statuses())
        self._lanes = len(statuses)
        self.claims.hear(listed for _, listed in statuses)

    def _look_for_hung(self) -> None:
        now = self._clock()
        with self._lock:
            hung = [work for work in self._work.values() if now - work.moved > work.patience_s]
        for work in hung:
            error = Hung(f"no progress for {now - work.moved:.0f} s on {self._offer.worker}, whose process was ended")
            self._failed(work, error)
            self._fatal = error
            self._woken.set()

    def _beat(self) -> None:
        with self._lock:
            if len(self._notes) - NOTES_IN_STATUS >= 0:
                self._folder.seal_notes(self.name, self._sealed, self._notes)
                self._sealed += 1
                self._notes = []
                self._said = 0
            now = self._clock()
            status = {
                "lane": self.name,
                "pool": self._pool,
                "index": self._index,
                "state": self._state,
                "reason": self._reason,
                "beat": self._beats,
                "worker": self._offer.worker,
                "host": self._offer.host,
                "device": self._offer.device,
                "versions": dict(self._offer.versions),
                "telltale": self._offer.telltale,
                "price": self._offer.price,
                "slots": self._slots,
                "work": [
                    {
                        "name": work.name,
                        "step": work.document["step"],
                        "seconds": round(now - work.began, 1),
                        "done": work.done,
                        "total": work.total,
                    }
                    for work in self._work.values()
                ],
                "computed": self.computed,
                "claims": {"tried": self.claims.tried, "lost": self.claims.lost},
                "notes": list(self._notes),
                "sealed": self._sealed,
                "failed": self._failures,
            }
            self._beats += 1
            self._beaten = now
            self._folder.write_status(self.name, status)
            # They stay in the status until they are sealed; the coordinator reads each once.
            self._said = len(self._notes)


def _in_a_thread(document: Mapping[str, Any], call: Callable[[], None]) -> None:
    # A daemon: a process that is told to end does not wait for it. What the flow run has set holds there, too.
    run = contextvars.copy_context().run
    threading.Thread(target=run, args=(call,), name=document["name"], daemon=True).start()
