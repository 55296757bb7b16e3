"""A text-to-image model as a source."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from storage.objects import Ref
from tasks.data.sources.base import Deployment, GeneratedSource, Generation
from tasks.facts import Question
from tasks.generators.diffusion import check_pipeline
from tasks.generators.shards import diffusion_model, generate_diffusion, keyed_diffusion
from tasks.spec.base import Name, Truth, on_this_machine
from tasks.spec.generators import DiffusionSpec


class DiffusionSource(GeneratedSource):
    """Pictures of a text-to-image model, one for each picture of another source, from its captions or categories."""

    made_by: ClassVar[Deployment | None] = "generate/stable-diffusion"

    kind: Literal["diffusion"] = "diffusion"
    prompted_by: Name
    diffusion: DiffusionSpec
    limit: int | None = Field(default=None, ge=1)
    smaller_by_nature: Truth = False

    @property
    def origin(self) -> str:
        return self.prompted_by

    @property
    def may_be_enlarged(self) -> bool:
        return self.smaller_by_nature

    @property
    def own_side(self) -> int:
        return self.diffusion.side

    def missing(self) -> list[str]:
        return check_pipeline(on_this_machine(self.diffusion))

    def facts(self) -> list[Question]:
        return [(diffusion_model, (self.diffusion.model,))]

    def generate(self, run: Generation, weights: Ref | None) -> Sequence[Any]:
        """Submit a shard for each one that prompts it."""
        futures = []
        left = self.limit
        drawn = self.diffusion.model_copy(update={"seed": self.diffusion.seed + run.seed})
        for shard in run.shards[self.prompted_by]:
            wanted = None if left is None else min(left, shard.rows)
            if wanted == 0:
                break
            futures.append(
                generate_diffusion.submit(
                    images=shard,
                    source=self.name,
                    diffusion=keyed_diffusion(drawn),
                    limit=wanted,
                    device=run.device,
                    model=self.diffusion.model,
                )
            )
            left = None if left is None or wanted is None else left - wanted
        return futures
