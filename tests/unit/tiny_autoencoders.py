"""Autoencoders as people publish them, with random weights: diffusers' two kinds, of few parameters, and TAEF2."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tasks.generators.taef2 import tensor_shapes
from tasks.torch_vision_schema import define_missing_torchvision_schemas


def save_kl(folder: Path, seed: int = 0, halvings: int = 1) -> Path:
    """An `AutoencoderKL` of three channels that halves sides so often; its distribution over latents is a wide one."""
    define_missing_torchvision_schemas()
    import torch
    from diffusers import AutoencoderKL, ModelMixin

    torch.manual_seed(seed)
    stages = halvings + 1
    network = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * stages,
        up_block_types=("UpDecoderBlock2D",) * stages,
        block_out_channels=(8,) * stages,
        norm_num_groups=4,
        sample_size=16,
    )
    ModelMixin.save_pretrained(network, folder)
    return folder


def save_tiny(folder: Path, seed: int = 0) -> Path:
    """An `AutoencoderTiny` that halves sides twice."""
    define_missing_torchvision_schemas()
    import torch
    from diffusers import AutoencoderTiny, ModelMixin

    torch.manual_seed(seed)
    network = AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
    )
    ModelMixin.save_pretrained(network, folder)
    return folder


def taef2_tensors(seed: int = 0) -> dict[str, np.ndarray]:
    """TAEF2's tensors in half precision, drawn so that what goes through them keeps its size."""
    drawn = np.random.default_rng(seed)
    return {
        name: (drawn.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) or 1)).astype(np.float16)
        for name, shape in tensor_shapes().items()
    }


def save_taef2(path: Path, seed: int = 0) -> Path:
    """A file of TAEF2's layout."""
    from safetensors.numpy import save_file

    save_file(taef2_tensors(seed), path)
    return path
