"""A toy kind of source that is generated in the run: noise, each picture a group of its own."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from storage.digest import hash_seed
from storage.objects import ROWS, Ref
from tasks.data.sources.base import GeneratedSource, Generation
from tasks.generators.shards import GeneratedRow, generated_table, place_generated
from tasks.recipe import Output, StepRun, step
from tasks.spec.splits import Splits


class NoiseSource(GeneratedSource):
    """Pictures of noise."""

    kind: Literal["noise"] = "noise"
    count: int = Field(ge=1)

    def generate(self, run: Generation, weights: Ref | None) -> Sequence[Any]:
        return [generate_noise.submit(source=self.name, count=self.count, splits=run.splits, seed=run.seed)]


@step("generate/noise", version=1, label=lambda source, **_: source)
def generate_noise(run: StepRun, *, source: str, count: int, splits: Splits, seed: int) -> Output:
    """`count` pictures of 48x48 pixels."""
    image_ids = [f"{source}:{number:06d}" for number in range(count)]
    places = place_generated(image_ids, splits, seed)
    rows = []
    for image_id in image_ids:
        drawn = hash_seed("noise", seed, source, image_id)
        pixels = np.random.default_rng(drawn).integers(0, 256, (48, 48, 3), dtype=np.uint8)
        rows.append(GeneratedRow(image_id, image_id, source, *places[image_id], drawn, pixels))
    return Output({ROWS: generated_table(rows)}, {"n": count, "quarantined": 0, "collapse_rate": 0.0})
