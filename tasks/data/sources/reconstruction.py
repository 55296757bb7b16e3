"""Photographs that went through an autoencoder as a source."""

from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from storage.objects import Ref
from tasks.brought_models import BroughtModel, model_question
from tasks.data.sources.base import DiskSource, GeneratedSource, Generation, SourceBase
from tasks.facts import Question
from tasks.generators.autoencoders import missing_autoencoder
from tasks.generators.reconstruction import LEAST_LEFT, choose_photographs, reconstruct_photographs
from tasks.spec.base import LocalPath, Name


class ReconstructionSource(GeneratedSource):
    """The photographs of another source, each encoded and decoded by an autoencoder: fakes of the same content.

    A reconstruction has the `image_id`, the group and the place of its photograph, and differs from it in `source`: so
    the two of a pair are the rows of `of` and of this source that share an `image_id`.

    `weights` is a safetensors file of TAEF2's layout, or a folder or hub id (`owner/name@<commit>`, or `owner/name` for
    what is newest) of an `AutoencoderKL` or `AutoencoderTiny` of diffusers. Of a photograph a central square of at most
    `side` pixels is taken first (all of it without), and `border` pixels are cut from every side of the result, where
    an autoencoder's zero padding shows. Photographs of which no 64 pixels a side would be left are quarantined.
    `count` takes so many of the others, first by hash of their id.

    A pixel that goes through TAEF2 or an `AutoencoderTiny` takes about a kilobyte of memory, through Stable Diffusion's
    `AutoencoderKL` five: without `side` a photograph of twelve megapixels needs 12 or 60 GB.
    """

    kind: Literal["reconstruction"] = "reconstruction"
    of: Name
    weights: LocalPath
    side: int | None = Field(default=None, ge=1)
    border: int = Field(default=32, ge=0)
    count: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _leaves_something(self) -> Self:
        if self.of == self.name:
            raise ValueError(f"of: {self.of!r} is this source itself, expected a source of photographs")
        least = LEAST_LEFT + 2 * self.border
        if self.side is not None and self.side < least:
            raise ValueError(
                f"side: expected at least {least}, of which {LEAST_LEFT} are left after a border of {self.border}, "
                f"got {self.side}"
            )
        return self

    @property
    def origin(self) -> str:
        return self.of

    def can_come_from(self, source: SourceBase) -> bool:
        return isinstance(source, DiskSource) and source.label == "real"

    def missing(self) -> list[str]:
        return [f"{self.name}: {line}" for line in missing_autoencoder(self.weights)]

    def facts(self) -> list[Question]:
        return [model_question(self.weights)]

    def generate(self, run: Generation, weights: Ref | None) -> Sequence[Any]:
        """Submit a shard for each one of the photographs, once the autoencoder is in the store."""
        photographs = run.shards[self.of]
        cut = {"source": self.name, "side": self.side, "border": self.border}
        autoencoder = BroughtModel.named(self.weights).bring().result()
        chosen = choose_photographs(photographs=photographs, autoencoder=autoencoder, count=self.count, **cut)
        return [
            reconstruct_photographs.submit(
                images=shard, autoencoder=autoencoder, chosen=chosen, device=run.device, **cut
            )
            for shard in photographs
        ]
