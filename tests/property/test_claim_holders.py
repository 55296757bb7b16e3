"""Claims under any course of events: lanes take, release, stall, die and start again, between any two requests."""

from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from storage.claims import CLAIMS, Claim, Claims
from storage.errors import ObjectExists, ObjectMissing

LANES = range(3)
SILENCE_S = 90
# A lane that lives changes its status at least this often.
BEAT_S = 30

lanes = st.sampled_from(LANES)
digests = st.sampled_from(["d", "d", "e"])
actions = st.one_of(
    st.tuples(st.just("take"), lanes, digests),
    st.tuples(st.just("release"), lanes, digests),
    st.tuples(st.just("wake_and_release"), lanes, digests),
    st.tuples(st.just("die"), lanes),
    st.tuples(st.just("advance"), st.integers(1, BEAT_S)),
)
# What happens before which of the requests of a take.
disturbances = st.dictionaries(st.integers(0, 9), st.lists(actions, min_size=1, max_size=3), max_size=2)


class Died(BaseException):
    """The process of a lane is no more: it does nothing further, not even tidy up."""


class Memory:
    """A store in a dictionary, of which a lane's view stands for its connection."""

    url = "memory:"

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}

    def read(self, key: str) -> bytes:
        if key not in self.content:
            raise ObjectMissing(key)
        return self.content[key]

    def write(self, key: str, data: bytes) -> None:
        self.content[key] = data

    def create(self, key: str, data: bytes) -> None:
        if key in self.content:
            raise ObjectExists(key)
        self.content[key] = data

    def list(self, prefix: str) -> list[str]:
        return sorted(key for key in self.content if key.startswith(f"{prefix}/"))

    def delete(self, key: str) -> None:
        self.content.pop(key, None)


class Connection:
    """A lane's way to the store: something may happen before each request, and none is made by the dead."""

    def __init__(self, store: Memory) -> None:
        self._store = store
        self.dead = False
        self.before: Callable[[], None] = lambda: None

    def __getattr__(self, name: str) -> Any:
        def request(*arguments: Any) -> Any:
            if not self.dead:
                self.before()
            if self.dead:
                raise Died
            return getattr(self._store, name)(*arguments)

        return request


class Lane:
    """A process with claims; its clock has an offset of its own."""

    def __init__(self, number: int, store: Memory, time: Callable[[], float]) -> None:
        self.status = f"lanes/{number}.json"
        self.connection = Connection(store)
        self.claims = Claims(self.connection, self.status, lambda: time() + 1000 * number, SILENCE_S)
        self.busy = False
        self.stalled = False
        self.held: dict[str, Claim] = {}
        # Claimed before it stalled: perhaps another one's by now, which it does not know.
        self.lapsed: dict[str, Claim] = {}
        # Claimed before it was started again: left to this lane for as long as it lives.
        self.former: set[str] = set()

    @property
    def lives(self) -> bool:
        return not self.connection.dead and not self.stalled


class ClaimHolders(RuleBasedStateMachine):
    """Lanes on one store, each of which may act between any two requests of another."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.beats = 0
        self.store = Memory()
        self.lanes = [self.started(number) for number in LANES]

    def started(self, number: int) -> Lane:
        lane = Lane(number, self.store, lambda: self.now)
        lane.former = {key.split("/")[1] for key, content in self.claimed() if lane.status.encode() in content}
        self.beat(lane)
        return lane

    def beat(self, lane: Lane, state: str = "running") -> None:
        self.beats += 1
        self.store.write(lane.status, f'{{"state": "{state}", "beat": {self.beats}}}'.encode())

    def act(self, action: tuple[Any, ...]) -> None:
        name, *arguments = action
        getattr(self, f"_{name}")(*arguments)

    def _take(self, number: int, digest: str) -> None:
        lane = self.lanes[number]
        if not lane.lives or lane.busy:
            return
        lane.busy = True
        try:
            claim = lane.claims.take(digest)
        except Died:
            return
        finally:
            lane.busy = False
        if claim is not None:
            lane.held[digest] = claim
            lane.former.discard(digest)

    def _release(self, number: int, digest: str) -> None:
        lane = self.lanes[number]
        if not lane.lives or lane.busy:
            return
        claim = lane.held.pop(digest, None) or lane.lapsed.pop(digest, None)
        if claim is not None:
            lane.claims.release(claim)

    def _die(self, number: int) -> None:
        lane = self.lanes[number]
        lane.connection.dead = True
        lane.held.clear()
        lane.lapsed.clear()

    def _wake(self, number: int) -> None:
        lane = self.lanes[number]
        if lane.stalled and not lane.connection.dead:
            lane.stalled = False
            self.beat(lane)

    def _wake_and_release(self, number: int, digest: str) -> None:
        self._wake(number)
        self._release(number, digest)

    def _advance(self, seconds: int) -> None:
        self.now += seconds
        for lane in self.lanes:
            if lane.lives:
                self.beat(lane)

    def _take_disturbed(self, number: int, digest: str, disturbed: dict[int, list[tuple[Any, ...]]]) -> None:
        requests: Iterator[int] = iter(range(1000))

        def before() -> None:
            for action in disturbed.get(next(requests), ()):
                self.act(action)

        lane = self.lanes[number]
        lane.connection.before = before
        self._take(number, digest)
        lane.connection.before = lambda: None

    @rule(number=lanes, digest=digests, disturbed=disturbances)
    def take(self, number: int, digest: str, disturbed: dict[int, list[tuple[Any, ...]]]) -> None:
        self._take_disturbed(number, digest, disturbed)

    @rule(number=lanes, digest=digests, sleeper=lanes, third=lanes, request=st.integers(0, 9))
    def take_while_the_holder_wakes(self, number: int, digest: str, sleeper: int, third: int, request: int) -> None:
        course = [("wake_and_release", sleeper, digest), ("take", third, digest)]
        self._take_disturbed(number, digest, {request: course})

    @rule(number=lanes, digest=digests)
    def release(self, number: int, digest: str) -> None:
        self._release(number, digest)

    @rule(number=lanes)
    def die(self, number: int) -> None:
        self._die(number)

    @rule(number=lanes)
    def stall(self, number: int) -> None:
        lane = self.lanes[number]
        lane.stalled = True
        lane.lapsed |= lane.held
        lane.held.clear()

    @rule(number=lanes)
    def wake(self, number: int) -> None:
        self._wake(number)

    @rule(number=lanes)
    def start_again(self, number: int) -> None:
        if self.lanes[number].connection.dead:
            self.lanes[number] = self.started(number)

    @rule(number=lanes)
    def end(self, number: int) -> None:
        lane = self.lanes[number]
        if lane.lives:
            keys = [claim.key for claim in lane.held.values()]
            lane.claims.release_all()
            assert not set(keys) & set(self.store.list(CLAIMS))
            self.beat(lane, "ended")
            self._die(number)

    def claimed(self) -> list[tuple[str, bytes]]:
        return [(key, self.store.read(key)) for key in self.store.list(CLAIMS)]

    @rule(seconds=st.integers(1, BEAT_S))
    def advance(self, seconds: int) -> None:
        self._advance(seconds)

    @rule()
    def advance_far(self) -> None:
        for _ in range(SILENCE_S // BEAT_S):
            self._advance(BEAT_S)

    @precondition(lambda self: any(lane.lives for lane in self.lanes))
    @rule(data=st.data(), digest=digests)
    def wait_for_the_dead(self, data: st.DataObject, digest: str) -> None:
        """Whoever looks now and once more after 90 seconds gets what nobody holds that lives."""
        looking = data.draw(st.sampled_from([number for number in LANES if self.lanes[number].lives]))
        for lane in self.lanes:
            if lane.lives and digest in (lane.held.keys() | lane.lapsed.keys() | lane.former):
                return
        self._take(looking, digest)
        if digest not in self.lanes[looking].held:
            self.advance_far()
            self._take(looking, digest)
        assert digest in self.lanes[looking].held

    @invariant()
    def nothing_has_two_holders_that_live(self) -> None:
        for digest in ("d", "e"):
            assert len([lane for lane in self.lanes if lane.lives and digest in lane.held]) <= 1, digest

    @invariant()
    def what_a_lane_holds_is_in_the_store(self) -> None:
        for lane in self.lanes:
            for claim in lane.held.values():
                assert lane.status.encode() in self.store.read(claim.key)


ClaimHolders.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestClaimHolders = ClaimHolders.TestCase
