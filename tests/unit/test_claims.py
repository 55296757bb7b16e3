"""Claims: one live holder of an object at a time, and none that is dead for long."""

import json
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from storage.claims import CLAIMS, Claim, Claims
from storage.errors import StoreUnreachable
from storage.local import LocalStore
from storage.store import Store


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def lane(store: Store, name: str, clock: Callable[[], float]) -> Claims:
    """The claims of a lane that has written its status."""
    beat(store, name, 0)
    return Claims(store, status_key(name), clock)


def status_key(name: str) -> str:
    return f"plans/p/lanes/{name}.json"


def beat(store: Store, name: str, number: int, state: str = "running") -> None:
    store.write(status_key(name), json.dumps({"state": state, "beat": number}).encode())


def taken(claims: Claims, digest: str) -> Claim:
    claim = claims.take(digest)
    assert claim is not None
    return claim


# One holder


def test_a_claim_names_the_status_of_its_holder(store: LocalStore, clock: Clock) -> None:
    claim = taken(lane(store, "a", clock), "d")
    assert claim == Claim("d", 0, status_key("a"))
    assert claim.key == "claims/d/000000.json"
    assert json.loads(store.read(claim.key)) == {"status": status_key("a")}


def test_what_is_released_can_be_taken_again_by_anybody(store: LocalStore, clock: Clock) -> None:
    one, other = lane(store, "a", clock), lane(store, "b", clock)
    claim = taken(one, "d")
    assert other.take("d") is None
    one.release(claim)
    assert taken(other, "d").number == 0
    assert (one.tried, one.lost) == (1, 0)
    assert (other.tried, other.lost) == (2, 1)


def test_releasing_twice_is_no_error(store: LocalStore, clock: Clock) -> None:
    claims = lane(store, "a", clock)
    claim = taken(claims, "d")
    claims.release(claim)
    claims.release(claim)
    assert store.list(CLAIMS) == []


def test_everything_is_released_at_the_end_and_nothing_of_others(store: LocalStore, clock: Clock) -> None:
    one, other = lane(store, "a", clock), lane(store, "b", clock)
    for digest in ("d", "e", "f"):
        taken(one, digest)
    taken(other, "g")
    assert set(one.held()) == set(other.held()) == {"d", "e", "f", "g"}
    one.release_all()
    assert set(other.held()) == {"g"}
    assert taken(other, "d").number == 0


def test_two_threads_of_one_lane_do_not_share_a_claim(store: LocalStore, clock: Clock) -> None:
    claims = lane(store, "a", clock)
    claim = taken(claims, "d")
    assert claims.take("d") is None
    claims.release(claim)
    assert claims.take("d") is not None


def test_nobody_holds_anything_in_a_new_store(store: LocalStore, clock: Clock) -> None:
    claims = Claims(store, "status", clock)
    assert claims.held() == {}
    claims.release_all()


# Succession


def test_a_holder_that_is_silent_for_90_seconds_is_succeeded(store: LocalStore, clock: Clock) -> None:
    taken(lane(store, "a", clock), "d")
    other = lane(store, "b", clock)
    clock.now += 3600
    assert other.take("d") is None, "the first look says nothing"
    clock.now += 89
    assert other.take("d") is None
    clock.now += 1
    assert taken(other, "d") == Claim("d", 1, status_key("b"))
    assert lane(store, "c", clock).take("d") is None


def test_silence_is_known_of_a_holder_and_not_of_each_of_its_claims(store: LocalStore, clock: Clock) -> None:
    dead = lane(store, "a", clock)
    taken(dead, "d")
    taken(dead, "e")
    other = lane(store, "b", clock)
    assert other.take("d") is None
    clock.now += 90
    assert other.take("e") is not None


def test_a_holder_whose_status_changes_is_not_succeeded(store: LocalStore, clock: Clock) -> None:
    taken(lane(store, "a", clock), "d")
    other = lane(store, "b", clock)
    for number in range(1, 20):
        assert other.take("d") is None
        clock.now += 89
        beat(store, "a", number)
    clock.now += 89
    # It changed since the last look, whenever that was: its silence counts from now.
    assert other.take("d") is None


@pytest.mark.parametrize("state", ["ended", "refused"])
def test_a_lane_that_has_ended_is_succeeded_at_once(store: LocalStore, clock: Clock, state: str) -> None:
    taken(lane(store, "a", clock), "d")
    beat(store, "a", 1, state)
    assert taken(lane(store, "b", clock), "d").number == 1


@pytest.mark.parametrize("status", [b"", b"\xff\xfe", b"[]", b"null", b"3", b'{"state": ["ended"]}', b"[" * 5000])
def test_a_status_of_any_content_is_silent_until_it_changes(store: LocalStore, clock: Clock, status: bytes) -> None:
    taken(lane(store, "a", clock), "d")
    store.write(status_key("a"), status)
    other = lane(store, "b", clock)
    assert other.take("d") is None
    clock.now += 90
    assert other.take("d") is not None


def test_a_holder_without_a_status_is_succeeded_after_its_silence(store: LocalStore, clock: Clock) -> None:
    taken(Claims(store, "nowhere", clock), "d")
    other = lane(store, "b", clock)
    assert other.take("d") is None
    clock.now += 90
    assert taken(other, "d").number == 1


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"{}", b"[1]", b'{"status": 3}', b'{"status": "../outside"}', b'{"status": ""}']
)
def test_a_claim_that_cannot_be_read_is_succeeded_after_the_same_silence(
    store: LocalStore, clock: Clock, content: bytes
) -> None:
    store.write("claims/d/000000.json", content)
    claims = lane(store, "a", clock)
    assert claims.take("d") is None
    clock.now += 89
    assert claims.take("d") is None
    clock.now += 1
    assert taken(claims, "d").number == 1


def test_a_lane_that_was_started_again_takes_its_claims_at_once_and_leaves_none(
    store: LocalStore, clock: Clock
) -> None:
    taken(lane(store, "a", clock), "d")
    again = lane(store, "a", clock)
    claim = taken(again, "d")
    assert claim.number == 1
    # Its former claim would count as one of a lane that lives.
    assert store.list(CLAIMS) == [claim.key]
    again.release(claim)
    assert taken(lane(store, "b", clock), "d").number == 0


def test_a_holder_that_wakes_up_releases_its_own_claim_only(store: LocalStore, clock: Clock) -> None:
    sleeper, other = lane(store, "a", clock), lane(store, "b", clock)
    old = taken(sleeper, "d")
    other.take("d")
    clock.now += 90
    new = taken(other, "d")
    sleeper.release(old)
    assert store.list(CLAIMS) == [new.key]
    third = lane(store, "c", clock)
    assert third.take("d") is None
    other.release(new)
    assert taken(third, "d").number == 0


def test_a_claim_of_the_dead_does_not_come_back_to_life_under_another(store: LocalStore, clock: Clock) -> None:
    """The successor's number is gone; the dead one's claim is still there, and its silence is known."""
    taken(lane(store, "a", clock), "d")
    other = lane(store, "b", clock)
    other.take("d")
    clock.now += 90
    other.release(taken(other, "d"))
    assert taken(other, "d").number == 1


def test_all_claims_of_the_dead_are_watched_from_the_first_look(store: LocalStore, clock: Clock) -> None:
    for name in ("a", "b"):
        store.create(f"claims/d/{'ab'.index(name):06d}.json", json.dumps({"status": status_key(name)}).encode())
    claims = lane(store, "c", clock)
    assert claims.take("d") is None
    clock.now += 90
    assert taken(claims, "d").number == 2


# Races


class Disturbed(LocalStore):
    """A store in which something happens just before the first operation of a kind."""

    def __init__(self, root: Path, **happens: Callable[[], object]) -> None:
        super().__init__(root)
        self.happens = happens

    def _disturb(self, operation: str) -> None:
        if happen := self.happens.pop(operation, None):
            happen()

    def create(self, key: str, data: bytes) -> None:
        self._disturb("create")
        super().create(key, data)
        self._disturb("created")

    def list(self, prefix: str) -> list[str]:
        self._disturb("list")
        return super().list(prefix)


def test_a_claim_that_goes_before_it_is_looked_at_is_free(store: LocalStore, clock: Clock) -> None:
    first = lane(store, "a", clock)
    claim = taken(first, "d")
    late = lane(Disturbed(store.root, list=lambda: first.release(claim)), "b", clock)
    assert taken(late, "d").number == 0


def test_a_third_one_that_came_in_before_the_next_number_is_there_stays_alone(store: LocalStore, clock: Clock) -> None:
    """The one that was judged silent wakes up and releases, and another takes the free number."""
    first, third = lane(store, "a", clock), lane(store, "c", clock)
    claim = taken(first, "d")
    late_store = Disturbed(store.root)
    late = lane(late_store, "b", clock)
    assert late.take("d") is None
    clock.now += 90

    def wake() -> None:
        first.release(claim)
        assert third.take("d") is not None

    def come_between() -> None:
        late_store.happens["create"] = wake

    # The first create fails on the silent one's claim; the second makes the next number.
    late_store.happens["list"] = come_between
    assert late.take("d") is None
    assert store.list(CLAIMS) == ["claims/d/000000.json"]
    assert json.loads(store.read("claims/d/000000.json")) == {"status": status_key("c")}


def test_a_store_that_goes_away_in_the_middle_leaves_no_claim_of_a_lane_that_lives(
    store: LocalStore, clock: Clock
) -> None:
    def go_away() -> None:
        raise StoreUnreachable("away")

    claims = lane(Disturbed(store.root, list=go_away), "a", clock)
    with pytest.raises(StoreUnreachable):
        claims.take("d")
    assert store.list(CLAIMS) == []
    assert claims.take("d") is not None


def test_of_two_that_succeed_a_dead_one_at_once_one_wins(store: LocalStore, clock: Clock) -> None:
    taken(lane(store, "a", clock), "d")
    successors = [lane(store, name, clock) for name in "bcdefgh"]
    for each in successors:
        assert each.take("d") is None
    clock.now += 90
    together = threading.Barrier(len(successors))

    def succeed(claims: Claims) -> Claim | None:
        together.wait()
        return claims.take("d")

    with ThreadPoolExecutor(len(successors)) as pool:
        won = [claim for claim in pool.map(succeed, successors) if claim is not None]
    assert len(won) == 1
    assert won[0].number == 1


def race(store: Store, holders: int, digests: int) -> list[list[str]]:
    """What each of some holders, that all want all, has got in the end."""
    names = [f"{number:04d}" for number in range(digests)]
    together = threading.Barrier(holders)

    def take_all(holder: int) -> list[str]:
        claims = lane(store, f"lane-{holder}", Clock())
        order = random.Random(holder).sample(names, len(names))
        together.wait()
        got = [digest for digest in order if claims.take(digest) is not None]
        assert (claims.tried, claims.lost) == (digests, digests - len(got))
        return got

    with ThreadPoolExecutor(holders) as pool:
        return list(pool.map(take_all, range(holders)))


def test_eight_lanes_that_race_for_200_objects_get_each_once(store: LocalStore) -> None:
    got = race(store, holders=8, digests=200)
    assert sorted(digest for each in got for digest in each) == [f"{number:04d}" for number in range(200)]
    assert len(store.list(CLAIMS)) == 200


def test_eight_threads_of_one_lane_that_race_get_each_object_once(store: LocalStore) -> None:
    claims = lane(store, "a", Clock())
    digests = [f"{number:03d}" for number in range(50)]

    def take_all(thread: int) -> list[str]:
        order = random.Random(thread).sample(digests, len(digests))
        return [digest for digest in order if claims.take(digest) is not None]

    with ThreadPoolExecutor(8) as pool:
        got = [digest for each in pool.map(take_all, range(8)) for digest in each]
    assert sorted(got) == digests
    assert (claims.tried, claims.lost) == (400, 350)
    claims.release_all()
    assert store.list(CLAIMS) == []
