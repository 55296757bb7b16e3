"""One batch of pictures from a pipeline: prompts embedded once, noise by the picture, decoding in pieces that fit."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tasks.spec.generators import DiffusionSpec
from tasks.torch_vision_schema import define_missing_torchvision_schemas

if TYPE_CHECKING:
    import torch

# A decoder's widest activations have 256 channels of the picture's size: with eight pictures of 512 pixels at once they
# take a gigabyte in half precision, and stay far below the 2**31 elements up to which kernels are fast.
DECODED_PIXELS = 8 * 512**2


@dataclass(frozen=True, eq=False)
class Sample:
    """A picture, uint8 (H, W, 3), or why there is none."""

    pixels: npt.NDArray[np.uint8] | None
    error: str | None


@dataclass
class BatchSize:
    """How many pictures are computed at once: halved after an out-of-memory error, and so for the rest of the shard."""

    size: int
    failures: int = 0

    def shrink(self) -> bool:
        """Take half of it; False where there is nothing left to try: a single picture has failed, not for the first
        time."""
        self.failures += 1
        if self.size == 1 and self.failures > 1:
            return False
        self.size = max(1, self.size // 2)
        return True


@dataclass
class Sampler:
    """A pipeline with what all pictures of a shard share.

    Stable Diffusion 1 and 2 get their prompts as embeddings, each distinct one computed once, and are decoded here;
    every other pipeline of diffusers gets its prompts as text and does everything itself.
    """

    pipeline: Any
    spec: DiffusionSpec
    busy_s: float = 0.0
    _embedded: dict[str, torch.Tensor] = field(default_factory=dict)  # (1, tokens, width) each

    def embed(self, prompts: Iterable[str]) -> None:
        """Embed these prompts, and the empty one that guidance leads away from, where that was not done yet."""
        import torch

        if not _is_stable_diffusion(self.pipeline):
            return
        missing = [prompt for prompt in dict.fromkeys(["", *prompts]) if prompt not in self._embedded]
        with torch.inference_mode():
            for start in range(0, len(missing), self.spec.batch):
                chosen = missing[start : start + self.spec.batch]
                rows, _ = self.pipeline.encode_prompt(chosen, self.pipeline.device, 1, False)
                self._embedded |= {prompt: row[None] for prompt, row in zip(chosen, rows, strict=True)}

    def sample(self, prompts: Sequence[str], seeds: Sequence[int], padded_to: int = 0) -> list[Sample]:
        """One picture for each prompt, from its own seed.

        With `padded_to` the last prompt is repeated up to so many and its copies are dropped: a compiled network would
        be compiled again for a smaller batch.
        """
        import torch

        started = time.monotonic()
        count, missing = len(prompts), max(0, padded_to - len(prompts))
        prompts, seeds = [*prompts, *[prompts[-1]] * missing], [*seeds, *[seeds[-1]] * missing]
        with torch.inference_mode():
            if _is_stable_diffusion(self.pipeline):
                samples = self._decoded(self._latents(prompts, seeds)[:count])
            else:
                samples = [_sample_of(picture) for picture in self._pictures(prompts, seeds)[:count]]
        self.busy_s += time.monotonic() - started
        return samples

    def _latents(self, prompts: Sequence[str], seeds: Sequence[int]) -> torch.Tensor:
        """What the denoising ends with: (B, latent channels, side / factor, side / factor)."""
        import torch

        self.embed(prompts)
        embedded = torch.cat([self._embedded[prompt] for prompt in prompts])  # (B, tokens, width)
        latents: torch.Tensor = self.pipeline(
            prompt_embeds=embedded,
            negative_prompt_embeds=self._embedded[""].expand_as(embedded),
            output_type="latent",
            **self._arguments(seeds),
        ).images
        return latents

    def _decoded(self, latents: torch.Tensor) -> list[Sample]:
        """Levels are made on the device: a quarter of the bytes to fetch, and nothing left to compute."""
        autoencoder = self.pipeline.vae
        at_once = max(1, DECODED_PIXELS // self.spec.side**2)
        samples = []
        for part in latents.split(at_once):
            decoded = autoencoder.decode(part / autoencoder.config.scaling_factor, return_dict=False)[0]
            values = (decoded.float() * 0.5 + 0.5).clamp(0.0, 1.0)  # (B, 3, H, W), NaN stays
            finite = values.isfinite().all(dim=(1, 2, 3)).tolist()
            brightest = values.amax(dim=(1, 2, 3)).tolist()
            levels = (values.nan_to_num() * 255.0).round().byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()
            for pixels, is_finite, most in zip(levels, finite, brightest, strict=True):
                error = _error(is_finite, most)
                samples.append(Sample(None if error else pixels, error))
        return samples

    def _pictures(self, prompts: Sequence[str], seeds: Sequence[int]) -> npt.NDArray[np.float32]:
        """Float (B, H, W, 3) in 0..1, by the pipeline alone."""
        output = self.pipeline(list(prompts), output_type="np", **self._arguments(seeds))
        return np.asarray(output.images, dtype=np.float32)

    def _arguments(self, seeds: Sequence[int]) -> dict[str, Any]:
        generators = generators_of(seeds)
        arguments: dict[str, Any] = {
            "height": self.spec.side,
            "width": self.spec.side,
            "num_inference_steps": self.spec.steps,
            "guidance_scale": self.spec.guidance,
            "generator": generators,
        }
        if _has_unet_latents(self.pipeline):
            side = self.spec.side // self.pipeline.vae_scale_factor
            shape = (self.pipeline.vae.config.latent_channels, side, side)
            arguments["latents"] = initial_latents(generators, shape, self.pipeline.unet.dtype)
        return arguments


def generators_of(seeds: Sequence[int]) -> list[torch.Generator]:
    """One random generator per picture. All are on the CPU, whose stream is the same on every machine."""
    import torch

    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def initial_latents(
    generators: Sequence[torch.Generator], shape: tuple[int, int, int], dtype: torch.dtype
) -> torch.Tensor:
    """Standard normal noise (B, *shape), each row from its own generator and so independent of the other rows.

    Drawn in float32 and rounded to `dtype`, so that half precision starts from the same noise. The generators move on:
    what a stochastic scheduler draws from them later is fresh.
    """
    import torch

    return torch.stack([torch.randn(shape, generator=generator) for generator in generators]).to(dtype)


def picture_error(picture: npt.NDArray[np.float32]) -> str | None:
    """Why a picture, float (H, W, 3) in [0, 1], is a failure of the generator; None where it is not."""
    return _error(bool(np.isfinite(picture).all()), float(picture.max()))


def _sample_of(picture: npt.NDArray[np.float32]) -> Sample:
    error = picture_error(picture)
    return Sample(None if error else np.rint(picture * 255.0).astype(np.uint8), error)


def _error(finite: bool, brightest: float) -> str | None:
    if not finite:
        return "not-finite"
    return "all-black" if brightest < 0.5 / 255.0 else None


def _is_stable_diffusion(pipeline: Any) -> bool:
    """Whether it is Stable Diffusion 1 or 2: one text encoder, and latents that are scaled and nothing else."""
    define_missing_torchvision_schemas()
    from diffusers import StableDiffusionPipeline

    return isinstance(pipeline, StableDiffusionPipeline)


def _has_unet_latents(pipeline: Any) -> bool:
    """Whether the noise is (B, latent channels, side / factor, side / factor), as in Stable Diffusion 1, 2 and XL.

    Other pipelines (pixel space, packed latents) draw their noise from the generators in their own shape.
    """
    return hasattr(pipeline, "unet") and hasattr(pipeline, "vae") and hasattr(pipeline, "vae_scale_factor")
