"""What is counted of a plan: its elements, one by one."""

import itertools

from benchmarks import planning
from benchmarks.made_up import planned, preset


def test_a_plan_is_counted_element_by_element() -> None:
    found = planning.plan(1_500, shard_size=500)
    experiment = preset("coco", {"sources.gan.count": 1_500, "shard_size": 500})
    elements = list(itertools.chain.from_iterable(planned(experiment, 1_500)))
    assert found["elements"] == len(elements)
    assert found["objects"] == sum(len(element.places) for element in elements)
    assert found["by_step"]["shard"] == found["by_step"]["generate/gan"] == [3, 3]
    assert sum(count for count, _ in found["by_step"].values()) == len(elements)


def test_more_shards_make_more_of_the_same() -> None:
    few, more = planning.plan(8_000, 1_000), planning.plan(16_000, 1_000)
    assert few["longest"] == more["longest"]
    assert few["by_step"].keys() == more["by_step"].keys()
    assert more["by_step"]["embed"] == [2 * count for count in few["by_step"]["embed"]]
