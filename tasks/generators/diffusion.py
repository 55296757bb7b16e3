"""Pictures from any text-to-image pipeline of diffusers, one seed per picture.

A picture depends on the specification, its own identifier and its prompt, never on the order, the shard or the batch
that it is made in: its noise comes from its own generator, always on the CPU (bit-equal on every device), and what is
left is the rounding of batched convolutions (at most one level on a CPU, which the tests assert).

Whatever is done for speed alone (memory layout, compiling, smaller batches where memory is short) rounds differently,
too, and changes nothing else.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from storage.errors import MissingInput, SpecError
from storage.opening import open_store
from tasks.brought_models import first_line, loading, revision_of
from tasks.generators.kept_models import STORED, find_model, missing_from_store
from tasks.generators.sampling import BatchSize, Sampler
from tasks.generators.tiny_model import SHIPPED_WEIGHTS, load_tiny_pipeline, silence_progress_bars
from tasks.spec.generators import DiffusionSpec
from tasks.torch_vision_schema import define_missing_torchvision_schemas

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

TINY = "tiny"
ATTEMPTS = 3


@dataclass(frozen=True)
class PictureRequest:
    """One picture to make: the identifier that its seed follows from, and its prompt."""

    image_id: str
    prompt: str


@dataclass(frozen=True, eq=False)
class GeneratedPicture:
    """One picture, uint8 (H, W, 3), or the `error` for which there is none; `seed` is that of the last attempt."""

    image_id: str
    prompt: str
    seed: int
    pixels: np.ndarray | None
    error: str | None
    attempts: int


def load_pipeline(spec: DiffusionSpec, device: Literal["cpu", "cuda"]) -> Any:
    """The pipeline that `spec.model` names (hub id, directory or `tiny`), ready on `device`, without progress bars.

    A model of the store is a directory first (`kept_models.local_model`). The safety checker is off: it paints pictures
    black, which would count as failures of the generator. Weights are read from safetensors only. Raises
    `MissingInput` where the model or the device is not there and `SpecError` for a scheduler that diffusers does not
    have or a side that the model cannot make.
    """
    define_missing_torchvision_schemas()
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise MissingInput(
            "a CUDA device: install a CUDA build of torch on a machine with a GPU, or run on the cpu pool"
        )
    silence_progress_bars()
    dtype = getattr(torch, spec.dtype)
    with loading:
        pipeline = load_tiny_pipeline() if spec.model == TINY else _load_pretrained(spec.model, dtype)
    if spec.scheduler is not None:
        pipeline.scheduler = _scheduler_class(spec.scheduler).from_config(pipeline.scheduler.config)
    # Latent pipelines make sides in whole latents; the factor of SD 2.1 is 8.
    factor = getattr(pipeline, "vae_scale_factor", 1)
    if spec.side % max(8, factor):
        raise SpecError(f"side of {spec.model}: expected a multiple of {max(8, factor)}, got {spec.side}")
    pipeline.set_progress_bar_config(disable=True)
    # Casting what has this type already makes diffusers warn.
    pipeline = pipeline.to(device) if pipeline.dtype == dtype else pipeline.to(device=device, dtype=dtype)
    if device == "cuda":
        make_fast(pipeline, compiled=spec.compile)
    return pipeline


def make_fast(pipeline: Any, *, compiled: bool) -> None:
    """Lay the networks out as a GPU's convolutions want them (channels last), and compile them if asked to.

    Attention needs nothing: diffusers computes it by `scaled_dot_product_attention` (its `AttnProcessor2_0`).
    """
    import torch

    # What a transformer in place of a UNet, or a pipeline in pixel space, does not have is not there to be changed.
    for name in ("unet", "vae"):
        network = getattr(pipeline, name, None)
        if isinstance(network, torch.nn.Module):
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            if compiled:
                called = pipeline.vae.decoder if name == "vae" else network
                called.compile()


def check_pipeline(spec: DiffusionSpec, timeout_s: float = 3.0) -> list[str]:
    """What is missing for `load_pipeline`, with its remedy; loads and downloads nothing."""
    if spec.model == TINY:
        shipped = (SHIPPED_WEIGHTS / "model_index.json").is_file()
        return [] if shipped else ["the tiny diffusion model's shipped weights: install telltale again"]
    if spec.model.startswith((".", "/")) or Path(spec.model).is_dir():
        found = (Path(spec.model) / "model_index.json").is_file()
        return [] if found else [f"a diffusers pipeline at {spec.model}: it has no model_index.json"]
    if spec.model.startswith(STORED):
        return [] if find_model(open_store(), spec.model) else [missing_from_store(spec.model)]
    from huggingface_hub import HfApi, try_to_load_from_cache

    name, revision = revision_of(spec.model)
    try:
        if isinstance(try_to_load_from_cache(name, "model_index.json", revision=revision), str):
            return []
        HfApi().model_info(name, revision=revision, timeout=timeout_s)
    except Exception as error:
        return [
            f"diffusion model {spec.model!r}: not in the local cache, and the hub says {type(error).__name__}; "
            "download it where there is a network, or name a local folder as the source's diffusion.model"
        ]
    return []


def prompt_of(captions: Sequence[str], categories: Sequence[str], mode: Literal["captions", "categories"]) -> str:
    """The prompt of one photograph: its first caption, or its category names joined by commas.

    A category counts once however often the photograph shows it. The prompt is empty where the photograph has no
    caption or no category; the model then makes what it makes without guidance.
    """
    if mode == "captions":
        return captions[0].strip() if captions else ""
    return ", ".join(dict.fromkeys(categories))


def seed_of(spec_digest: str, image_id: str, attempt: int) -> int:
    """The seed of one attempt at one picture, in [0, 2**63): the same wherever and whenever it is made."""
    key = hashlib.sha256(f"{spec_digest}\n{image_id}\n{attempt}".encode()).digest()
    return int.from_bytes(key[:8], "big") >> 1


def generate_images(
    sampler: Sampler, spec_digest: str, requests: Sequence[PictureRequest], batch: BatchSize | None = None
) -> Iterator[GeneratedPicture]:
    """Make the requested pictures in their order, `batch.size` (that of the spec) at a time.

    An all-black picture and one with NaN are errors of that picture: it is tried again with its next seed, up to
    `ATTEMPTS` times, and then given with `error` set and without pixels. Where a batch does not fit into the device's
    memory it is made again in halves, which changes no picture, and `batch` keeps the size that fits. Every other
    exception of the pipeline is no picture's fault and is passed on.

    Raises:
        torch.OutOfMemoryError: even a single picture does not fit.
    """
    batch = batch or BatchSize(sampler.spec.batch)
    sampler.embed(request.prompt for request in requests)
    start = 0
    while start < len(requests):
        made = _made_in_memory(sampler, spec_digest, requests[start : start + batch.size], batch)
        if made is not None:
            start += len(made)
            yield from made


def _made_in_memory(
    sampler: Sampler, spec_digest: str, requests: Sequence[PictureRequest], batch: BatchSize
) -> list[GeneratedPicture] | None:
    """One batch, or None after it did not fit and the batch's size was reduced."""
    import torch

    try:
        return _make_batch(sampler, spec_digest, requests, batch.size)
    except torch.OutOfMemoryError:
        if not batch.shrink():
            raise
    # Only here, with the exception gone, does nothing refer to the failed batch's tensors any more.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    logger.warning("out of device memory: %d pictures at a time from here on", batch.size)
    return None


def _make_batch(
    sampler: Sampler, spec_digest: str, requests: Sequence[PictureRequest], size: int
) -> list[GeneratedPicture]:
    finished: dict[int, GeneratedPicture] = {}
    for attempt in range(ATTEMPTS):
        pending = [position for position in range(len(requests)) if position not in finished]
        if not pending:
            break
        seeds = [seed_of(spec_digest, requests[position].image_id, attempt) for position in pending]
        padded_to = size if sampler.spec.compile else 0
        samples = sampler.sample([requests[position].prompt for position in pending], seeds, padded_to)
        for position, seed, sample in zip(pending, seeds, samples, strict=True):
            if sample.error is not None and attempt + 1 < ATTEMPTS:
                continue
            request = requests[position]
            finished[position] = GeneratedPicture(
                request.image_id, request.prompt, seed, sample.pixels, sample.error, attempt + 1
            )
    return [finished[position] for position in range(len(requests))]


def _load_pretrained(model: str, dtype: torch.dtype) -> Any:
    """A pipeline from a local directory or, where `model` looks like no path, from the hub or its local cache."""
    from diffusers import DiffusionPipeline
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HFValidationError

    directory = Path(model)
    is_path = directory.exists() or model.startswith((".", "/"))
    if is_path and not (directory / "model_index.json").is_file():
        raise MissingInput(
            f"the diffusion model in {model}: expected a diffusers directory with model_index.json; save one with "
            "DiffusionPipeline.save_pretrained, or name a hub id"
        )
    source, revision = (str(directory), None) if is_path else revision_of(model)
    try:
        index = (
            directory / "model_index.json"
            if is_path
            else Path(hf_hub_download(source, "model_index.json", revision=revision))
        )
        # Only pipelines that have a safety checker take the arguments that switch it off.
        has_checker = "safety_checker" in json.loads(index.read_text(encoding="utf-8"))
        unchecked = {"safety_checker": None, "requires_safety_checker": False} if has_checker else {}
        return DiffusionPipeline.from_pretrained(
            source, revision=revision, dtype=dtype, local_files_only=is_path, use_safetensors=True, **unchecked
        )
    except (OSError, HFValidationError) as error:
        raise MissingInput(
            f"the diffusion model {model} (with safetensors weights): download it with `hf download {model}` where "
            f"there is a network, or give the path of a diffusers directory ({first_line(error)})"
        ) from error


def _scheduler_class(name: str) -> Any:
    import diffusers

    found = getattr(diffusers, name, None)
    if not (inspect.isclass(found) and issubclass(found, diffusers.SchedulerMixin)):
        raise SpecError(f"scheduler: expected the name of a diffusers scheduler such as DDIMScheduler, got {name!r}")
    return found
