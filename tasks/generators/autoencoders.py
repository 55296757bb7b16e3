"""Autoencoders that an experiment names: TAEF2 by its file, diffusers' `AutoencoderKL` and `AutoencoderTiny` by folder
or hub id. Each takes a picture to its latents and back, always in the same way: nothing is drawn."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from storage.errors import SpecError
from storage.objects import Ref
from storage.store import Store
from tasks.brought_files import read_named
from tasks.brought_models import (
    CONFIG,
    WEIGHTS,
    first_line,
    loading,
    missing_model,
    model_written,
    read_document,
)
from tasks.data.pictures import Pixels
from tasks.device import full_precision
from tasks.generators import taef2
from tasks.kept_networks import shared_network
from tasks.torch_vision_schema import define_missing_torchvision_schemas
from tasks.variables import needed

if TYPE_CHECKING:
    import torch

# Diffusers' kinds, with the field of `config.json` that has an entry for every halving of the sides, and one more.
_STAGES = {"AutoencoderKL": "block_out_channels", "AutoencoderTiny": "encoder_block_out_channels"}
_MOST_STAGES = 10


@dataclass(frozen=True, eq=False)
class Autoencoder:
    """A network on its device: `there_and_back` of pictures (1, 3, H, W), float32 in [0, 1], is not clamped."""

    there_and_back: Callable[[torch.Tensor], torch.Tensor]
    device: str

    def reconstructed(self, pixels: Pixels) -> Pixels | None:
        """A picture, uint8 (H, W, 3), encoded and decoded; None where the network answers with no finite numbers.

        Raises:
            SpecError: the network gives another size.
        """
        import torch

        with torch.inference_mode(), full_precision(self.device):
            x = torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device)
            x = x.permute(2, 0, 1)[None].float() / 255.0  # (1, 3, H, W)
            y = self.there_and_back(x)
            if y.shape != x.shape:
                expected, got = (" x ".join(map(str, shape[1:])) for shape in (x.shape, y.shape))
                raise SpecError(f"the autoencoder's sides do not fit: expected {expected} of a picture back, got {got}")
            if not bool(y.isfinite().all()):
                return None
            levels = (y[0].clamp(0.0, 1.0) * 255.0).round().byte()
            made: Pixels = levels.permute(1, 2, 0).contiguous().cpu().numpy()
            return made


def missing_autoencoder(weights: str) -> list[str]:
    """What this machine lacks of an autoencoder as an experiment has it, with its remedy: nothing, or a sentence.

    Raises:
        MissingInput: variables are not set.
    """
    here = Path(needed(weights))
    if here.suffix == ".safetensors" and not here.exists():
        return [f"the autoencoder in {here}: no such file; name one of TAEF2, or a folder or hub id of diffusers"]
    if here.is_file():
        problem = taef2.find_taef2_problem(here)
        return [problem] if problem else []
    if (here / "vae").is_dir() and not (here / CONFIG).is_file():
        return [f"the autoencoder in {here}: it is a whole pipeline; name its folder {here / 'vae'}"]
    return missing_model(weights, lambda folder: _check(read_document(folder / CONFIG)))


def factor_of(store: Store, files: Ref) -> int:
    """What an autoencoder divides sides by, of one that was brought into the store (`BroughtModel`).

    Raises:
        SpecError: it is none that is known here.
    """
    config = read_named(store, files, CONFIG)
    return taef2.FACTOR if config is None else _check(json.loads(config))


def opened_autoencoder(store: Store, files: Ref, device: str) -> Autoencoder:
    """One that was brought into the store, on its device; shared by the tasks of this process.

    Raises:
        SpecError: its files do not make the network that they describe.
    """

    def make() -> Autoencoder:
        with model_written(store, files) as folder:
            if (folder / CONFIG).is_file():
                return Autoencoder(_load_of_diffusers(folder, device), device)
            return Autoencoder(taef2.Taef2(folder / WEIGHTS, device), device)

    return shared_network(("autoencoder", files.digest, device), make)


def _check(config: dict[str, Any]) -> int:
    """What sides are divided by, of an autoencoder's `config.json`; `SpecError` where it is none for pictures."""
    kind = config.get("_class_name")
    if kind not in _STAGES:
        known = " or ".join(_STAGES)
        raise SpecError(f"_class_name in {CONFIG} of the autoencoder: expected {known}, got {kind!r}")
    if config.get("quantization_config") is not None:
        raise SpecError(f"quantization_config in {CONFIG}: expected weights in floating point; save it dequantised")
    for name in ("in_channels", "out_channels"):
        if config.get(name, 3) != 3:
            raise SpecError(f"{name} in {CONFIG} of the autoencoder: expected 3, got {config[name]!r}")
    stages = config.get(_STAGES[kind])
    if not isinstance(stages, list) or not 1 <= len(stages) <= _MOST_STAGES:
        raise SpecError(f"{_STAGES[kind]} in {CONFIG}: expected a list of 1 to {_MOST_STAGES} widths, got {stages!r}")
    return int(2 ** (len(stages) - 1))


def _load_of_diffusers(folder: Path, device: str) -> Callable[[torch.Tensor], torch.Tensor]:
    config = read_document(folder / CONFIG)
    _check(config)
    define_missing_torchvision_schemas()
    import diffusers
    import torch

    kind = getattr(diffusers, config["_class_name"])
    try:
        with loading:
            network, found = kind.from_pretrained(
                folder,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                low_cpu_mem_usage=False,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise SpecError(f"the autoencoder: diffusers cannot load its files ({first_line(error)})") from error
    # Diffusers would leave what is missing as it was drawn.
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if found[what]:
            names = ", ".join(sorted(map(str, found[what]))[:3])
            raise SpecError(f"the autoencoder's weights do not fit its {CONFIG}: {what.replace('_', ' ')} {names}")
    network = network.to(device).eval()

    def there_and_back(pictures: torch.Tensor) -> torch.Tensor:
        encoded = network.encode(pictures * 2.0 - 1.0)
        # Of the KL autoencoder's distribution over latents the mode, which is no draw.
        latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        decoded: torch.Tensor = network.decode(latents).sample
        return decoded * 0.5 + 0.5

    return there_and_back
