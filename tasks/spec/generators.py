"""Generators that are trained or run here: how they are built, trained and sampled."""

from typing import Literal

from pydantic import Field

from tasks.spec.base import LocalPath, Seed, Spec, Truth, is_full


class GanSpec(Spec):
    """DCGAN and its training, as the first project had it.

    With `precision` bfloat16 the convolutions are computed in it, and sums, losses and weights in float32.
    """

    latent: int = Field(default=100, ge=1)
    generator_features: int = Field(default=64, ge=1)
    discriminator_features: int = Field(default=64, ge=1)
    side: Literal[64] = 64
    batch: int = Field(default=128, ge=2)
    epochs: int = Field(default=100, ge=1)
    learning_rate: float = Field(default=2e-4, gt=0)
    beta1: float = Field(default=0.5, ge=0, lt=1)
    sheet_every: int = Field(default=5, ge=1)
    flip: Truth = False
    # Left out where it is the default, so that recipes from before it was a choice stay what they are.
    precision: Literal["float32", "bfloat16"] = Field(default="float32", exclude_if=is_full)
    seed: Seed = 0


class DiffusionSpec(Spec):
    """A text-to-image pipeline of diffusers and how it is sampled.

    `model` is a hub id (`owner/name`, or `owner/name@<commit>` for one revision), a local folder, `store:<digest>` for
    one that `python -m tasks.generators.kept_models FOLDER` brought into the store, or `tiny`.

    `compile` compiles the networks on a GPU (minutes for the first shard, then faster); it decides no picture, so that
    no recipe and no seed contains it.
    """

    model: LocalPath
    prompts: Literal["captions", "categories"] = "captions"
    steps: int = Field(default=25, ge=1)
    guidance: float = Field(default=7.5, ge=0)
    scheduler: str | None = None
    side: int = Field(default=512, ge=64)
    batch: int = Field(default=4, ge=1)
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    compile: Truth = Field(default=False, exclude=True)
    seed: Seed = 0
