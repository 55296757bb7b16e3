"""The tiny latent diffusion model of the `sample` preset: its tokenizer, its networks, its scheduler, and how it loads.

A word-level CLIP tokenizer, a two-layer CLIP text encoder, a KL autoencoder (64-pixel pictures, 4x16x16 latents) and a
conditional UNet that predicts v (Salimans & Ho 2022, section 4), about 1.4 million parameters in all: the same
diffusers classes as Stable Diffusion 2.1. `tiny_diffusion.py` trains it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from storage.errors import MissingInput
from tasks.torch_vision_schema import define_missing_torchvision_schemas

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTokenizer

    # diffusers loads its classes lazily, so that a type checker sees none of their members.
    AutoencoderKL: TypeAlias = Any
    StableDiffusionPipeline: TypeAlias = Any
    UNet2DConditionModel: TypeAlias = Any

SHIPPED_WEIGHTS = Path(__file__).with_name("tiny_diffusion_weights")
SIDE = 64
LATENT_CHANNELS = 4
LATENT_SIDE = 16
TOKENS = 32
TEXT_WIDTH = 48
TRAIN_STEPS = 1000
BOS, EOS = "<|startoftext|>", "<|endoftext|>"


def byte_pair_merges(words: Counter[str]) -> list[tuple[str, str]]:
    """Byte-pair merges that join every given word into one token (Sennrich et al. 2016), in order of application."""
    spellings = {word: (*word[:-1], word[-1] + "</w>") for word in words}
    merges: list[tuple[str, str]] = []
    while True:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, symbols in spellings.items():
            for pair in pairwise(symbols):
                pairs[pair] += words[word]
        if not pairs:
            return merges
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        spellings = {word: _join(symbols, best) for word, symbols in spellings.items()}


def make_tokenizer(captions: Sequence[str]) -> CLIPTokenizer:
    """A CLIP tokenizer with one token per word of `captions`; other words are spelt letter by letter."""
    from transformers import CLIPTokenizer

    words = Counter(word for caption in captions for word in caption.lower().replace("-", " - ").split())
    merges = byte_pair_merges(words)
    characters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    tokens = [*characters, *(c + "</w>" for c in characters), *("".join(pair) for pair in merges), BOS, EOS]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(
        vocab=vocabulary,
        merges=cast("list[str]", merges),
        bos_token=BOS,
        eos_token=EOS,
        pad_token=EOS,
        model_max_length=TOKENS,
    )


def make_models(tokenizer: CLIPTokenizer) -> tuple[AutoencoderKL, UNet2DConditionModel, CLIPTextModel]:
    """The three untrained networks; their initial weights follow torch's global generator."""
    define_missing_torchvision_schemas()
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    autoencoder = AutoencoderKL(
        sample_size=SIDE,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 48),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        mid_block_add_attention=False,
        # The latents are normalised inside the autoencoder, see `normalise_latents`.
        scaling_factor=1.0,
    )
    unet = UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(40, 56),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        # In this class the name means the number of heads, per level.
        attention_head_dim=(2, 2),
        norm_num_groups=8,
        use_linear_projection=True,
    )
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=2 * TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            projection_dim=TEXT_WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    return autoencoder, unet, text_encoder


def make_scheduler() -> Any:
    """Stable Diffusion's noise schedule with v prediction, as in SD 2.1, sampled by DDIM."""
    define_missing_torchvision_schemas()
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=TRAIN_STEPS,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def load_tiny_pipeline(directory: Path | None = None) -> StableDiffusionPipeline:
    """The tiny pipeline in float32 on the CPU: the shipped one, or one that `train` wrote to `directory`."""
    define_missing_torchvision_schemas()
    import torch
    from diffusers import StableDiffusionPipeline

    directory = directory or SHIPPED_WEIGHTS
    if not (directory / "model_index.json").is_file():
        raise MissingInput(
            f"the tiny diffusion model in {directory}: make it with "
            f"python -m tasks.generators.tiny_diffusion train --out {directory} --seed 0"
        )
    silence_progress_bars()
    pipeline = StableDiffusionPipeline.from_pretrained(
        directory,
        dtype=torch.float32,
        local_files_only=True,
        use_safetensors=True,
        safety_checker=None,
        requires_safety_checker=False,
        # Saving memory while loading needs accelerate, and there is nothing to save here.
        low_cpu_mem_usage=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def silence_progress_bars() -> None:
    """Switch off the bars that diffusers and transformers draw while they load weights."""
    import diffusers
    import transformers

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()


def _join(symbols: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """`symbols` with every occurrence of `pair`, from the left, made one symbol."""
    joined: list[str] = []
    position = 0
    while position < len(symbols):
        if symbols[position : position + 2] == pair:
            joined.append("".join(pair))
            position += 2
        else:
            joined.append(symbols[position])
            position += 1
    return tuple(joined)
