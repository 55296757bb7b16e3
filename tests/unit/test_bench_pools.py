"""The simulated pool of the benchmarks: what its figures rest on, at a size that takes seconds."""

from benchmarks.pools import LOST_PER_CENT, WORK_LOST_S, simulate
from storage.objects import finished_objects


def test_simulated_lanes_make_each_element_once_and_lose_few_claims() -> None:
    done = simulate(300, 12)
    assert done.twice == 0
    assert sorted(done.pools.times) == finished_objects(done.store)
    assert done.lost <= LOST_PER_CENT
    assert done.pools.busy["cpu"] / 12 / done.pools.clock() >= 0.9


def test_lanes_that_are_killed_lose_what_they_were_at_and_nothing_else() -> None:
    undisturbed = simulate(100, 10)
    done = simulate(100, 10, killed=0.2)
    assert done.made == undisturbed.made
    assert len(done.pools.killed) == 2
    assert all(each.again is not None for each in done.pools.killed.values())
    assert max(each.killed - each.began for each in done.pools.killed.values()) <= WORK_LOST_S
    # What they were at is begun again once they have been silent for long, and no lane has anything else to do.
    least = undisturbed.pools.clock()
    assert done.pools.clock() <= least * 10 / 8 + WORK_LOST_S + 40
