"""A GAN that is trained in the run as a source."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from storage.objects import Ref
from storage.opening import open_store
from tasks.data.sources.base import Deployment, GeneratedSource, Generation
from tasks.generators.gan import pack_gan_pictures, train_gan
from tasks.generators.shards import generate_gan
from tasks.spec.base import Name, Truth
from tasks.spec.generators import GanSpec


class GanSource(GeneratedSource):
    """Pictures of a DCGAN that is trained in the run on the train groups of another source."""

    made_by: ClassVar[Deployment | None] = "generate/gan"
    is_trained: ClassVar[bool] = True

    kind: Literal["gan"] = "gan"
    trained_on: Name
    count: int = Field(ge=1)
    gan: GanSpec = GanSpec()
    smaller_by_nature: Truth = True

    @property
    def origin(self) -> str:
        return self.trained_on

    @property
    def may_be_enlarged(self) -> bool:
        return self.smaller_by_nature

    @property
    def own_side(self) -> int:
        return self.gan.side

    def train(self, run: Generation) -> Any:
        """Submit the training; where it is still to be done its pictures are decoded first, and waited for."""
        arguments = {
            "images": run.shards[self.trained_on],
            "gan": self.gan,
            "only_train": True,
            "device": run.device,
        }
        packed = None
        if train_gan.lookup(open_store(), **arguments) is None:
            packed = pack_gan_pictures(
                images=run.shards[self.trained_on], side=self.gan.side, only_train=True, device=run.device
            )
        return train_gan.submit(**arguments, pictures=packed)

    def generate(self, run: Generation, weights: Ref | None) -> Sequence[Any]:
        return [
            generate_gan.submit(
                weights=weights,
                source=self.name,
                count=self.count,
                start=start,
                stop=min(start + run.shard_size, self.count),
                splits=run.splits,
                seed=run.seed,
                device=run.device,
            )
            for start in range(0, self.count, run.shard_size)
        ]
