"""The training of the tiny latent diffusion model (`tiny_model.py`) whose weights come with the `sample` preset.

It is trained on crops of the sample's train photographs only, captioned as the sample captions its own crops. The
weights in `tiny_diffusion_weights` were made once by

    OMP_NUM_THREADS=1 python -m tasks.generators.tiny_diffusion train --out DIR --seed 0

and are stored in half precision with a card (`card.json`) that repeats the command and states what came of it.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import Image

from tasks.data.sample import SMALLEST_SIDE, captions_of
from tasks.data.sample_photographs import PHOTOGRAPHS, SAMPLE_SPLITS, read_photograph
from tasks.generators.small_training import descend, finite_loss, sharp_l1, tenths, warm_cosine
from tasks.generators.tiny_model import (
    LATENT_CHANNELS,
    SIDE,
    TOKENS,
    TRAIN_STEPS,
    make_models,
    make_scheduler,
    make_tokenizer,
)
from tasks.torch_vision_schema import define_missing_torchvision_schemas

if TYPE_CHECKING:
    import torch
    from transformers import CLIPTextModel, CLIPTokenizer

    # diffusers loads its classes lazily, so that a type checker sees none of their members.
    AutoencoderKL: TypeAlias = Any
    StableDiffusionPipeline: TypeAlias = Any
    UNet2DConditionModel: TypeAlias = Any


@dataclass(frozen=True)
class TrainingPlan:
    """How the tiny model is trained; the defaults are those of the shipped weights."""

    seed: int = 0
    crops: int = 6144
    autoencoder_steps: int = 1400
    autoencoder_batch: int = 16
    autoencoder_rate: float = 2e-3
    kl_weight: float = 1e-3
    unet_steps: int = 2400
    unet_batch: int = 16
    unet_rate: float = 1.5e-3
    averaging: float = 0.998
    prompt_dropout: float = 0.1
    word_dropout: float = 0.1


def train_groups() -> tuple[str, ...]:
    """The photographs that the tiny model may see, in alphabetical order."""
    return tuple(sorted(name for name, split in SAMPLE_SPLITS.items() if split == "train"))


def cut_training_crops(count: int, seed: int) -> tuple[np.ndarray, list[tuple[str, ...]]]:
    """Random square crops of the train photographs: uint8 (N, 64, 64, 3), and the captions of each."""
    random = np.random.default_rng(seed)
    photographs = {name: read_photograph(name) for name in train_groups()}
    pixels = np.empty((count, SIDE, SIDE, 3), dtype=np.uint8)
    captions = []
    for index in range(count):
        name = list(photographs)[index % len(photographs)]
        picture = photographs[name]
        longest = min(picture.size)
        side = round(longest * (SMALLEST_SIDE / longest) ** random.random())
        left = int(random.integers(picture.width - side + 1))
        top = int(random.integers(picture.height - side + 1))
        box = (left, top, left + side, top + side)
        pixels[index] = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box=box))
        captions.append(captions_of(PHOTOGRAPHS[name], box, picture.size))
    return pixels, captions


def train_autoencoder(autoencoder: AutoencoderKL, crops: torch.Tensor, plan: TrainingPlan) -> list[float]:
    """Fit the autoencoder to crops float (N, 3, 64, 64) in [-1, 1]; returns the mean loss of each tenth of the run.

    The loss is L1 of the pixels and of their differences to the right and lower neighbours, which keeps edges sharp,
    and a small KL term.
    """
    import torch

    generator = torch.Generator().manual_seed(plan.seed + 1)
    optimiser = torch.optim.AdamW(autoencoder.parameters(), lr=plan.autoencoder_rate, weight_decay=1e-4)
    schedule = warm_cosine(optimiser, plan.autoencoder_steps)
    losses = []
    autoencoder.train()
    for step in range(plan.autoencoder_steps):
        pixels = _draw_flipped(crops, plan.autoencoder_batch, generator)[0]
        posterior = autoencoder.encode(pixels).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator)
        decoded = autoencoder.decode(posterior.mean + posterior.std * noise).sample
        error = decoded - pixels
        kl = 0.5 * (posterior.mean**2 + posterior.var - 1.0 - posterior.logvar).mean()
        loss = sharp_l1(error) + plan.kl_weight * kl
        descend(loss, autoencoder.parameters(), optimiser, schedule)
        losses.append(finite_loss(loss, "autoencoder", step))
    autoencoder.eval()
    return tenths(losses)


def encode_latents(autoencoder: AutoencoderKL, pixels: torch.Tensor) -> torch.Tensor:
    """Posterior means float (N, 4, 16, 16) of pictures float (N, 3, 64, 64)."""
    import torch

    with torch.no_grad():
        return torch.cat([autoencoder.encode(part).latent_dist.mean for part in pixels.split(64)])


def normalise_latents(autoencoder: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """Fold each channel's mean and deviation into the 1x1 convolutions around the latents; returns normal latents.

    Afterwards the encoder gives channels of mean 0 and deviation 1 and the decoder expects them, so that diffusion
    starts from the right distribution without a shift that `StableDiffusionPipeline` could not apply.
    """
    import torch

    mean, deviation = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    with torch.no_grad():
        before, after = autoencoder.quant_conv, autoencoder.post_quant_conv
        # The first half of the output channels holds the means, the second the log variances.
        before.weight[:LATENT_CHANNELS] /= deviation[:, None, None, None]
        before.bias[:LATENT_CHANNELS] = (before.bias[:LATENT_CHANNELS] - mean) / deviation
        before.bias[LATENT_CHANNELS:] -= 2.0 * deviation.log()
        after.bias += after.weight[:, :, 0, 0] @ mean
        after.weight *= deviation[None, :, None, None]
    return (latents - mean[:, None, None]) / deviation[:, None, None]


def train_unet(
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    latents: tuple[torch.Tensor, torch.Tensor],
    captions: Sequence[tuple[str, ...]],
    plan: TrainingPlan,
) -> list[float]:
    """Fit UNet and text encoder together; returns the mean loss of each tenth of the run.

    `latents` are those of the crops and of the mirrored crops, float (N, 4, 16, 16) each. Both networks end with the
    exponential average of their weights. Some prompts are emptied, for classifier-free guidance (Ho & Salimans 2022),
    and some words are replaced by random letters, so that the unseen words of other prompts are ignored.
    """
    import torch

    scheduler = make_scheduler()
    generator = torch.Generator().manual_seed(plan.seed + 2)
    random = np.random.default_rng(plan.seed + 2)
    parameters = [*unet.parameters(), *text_encoder.parameters()]
    averages = [parameter.detach().clone() for parameter in parameters]
    # Two hundred small tensors: without fusing, a third of the time goes into the optimiser.
    optimiser = torch.optim.AdamW(parameters, lr=plan.unet_rate, weight_decay=1e-4, fused=True)
    schedule = warm_cosine(optimiser, plan.unet_steps)
    choices = torch.stack(latents)  # (2, N, 4, 16, 16)
    losses = []
    unet.train()
    text_encoder.train()
    for step in range(plan.unet_steps):
        picked = torch.randint(choices.shape[1], (plan.unet_batch,), generator=generator)
        mirrored = torch.randint(2, (plan.unet_batch,), generator=generator)
        clean = choices[mirrored, picked]
        prompts = [_damaged_prompt(captions[index], random, plan) for index in picked.tolist()]
        tokens = _tokens(tokenizer, prompts)
        # One time in each of `batch` equal strata: less noise in the loss than independent times.
        strata = (torch.arange(plan.unet_batch) + torch.rand(plan.unet_batch, generator=generator)) / plan.unet_batch
        times = (strata * TRAIN_STEPS).long()
        noise = torch.randn(clean.shape, generator=generator)
        noisy = scheduler.add_noise(clean, noise, times)
        target = scheduler.get_velocity(clean, noise, times)
        predicted = unet(noisy, times, text_encoder(tokens).last_hidden_state).sample
        loss = torch.nn.functional.mse_loss(predicted, target)
        descend(loss, parameters, optimiser, schedule)
        losses.append(finite_loss(loss, "unet", step))
        decay = min(plan.averaging, (step + 1) / (step + 10))
        torch._foreach_lerp_(averages, [p.detach() for p in parameters], 1.0 - decay)
    with torch.no_grad():
        torch._foreach_copy_(parameters, averages)
    unet.eval()
    text_encoder.eval()
    return tenths(losses)


def train(out: Path, plan: TrainingPlan, command: str) -> dict[str, Any]:
    """Train everything, write the pipeline (half precision, safetensors) and `card.json` to `out`; returns the card."""
    define_missing_torchvision_schemas()
    import torch
    from diffusers import StableDiffusionPipeline

    torch.manual_seed(plan.seed)
    started = time.monotonic()
    pixels, captions = cut_training_crops(plan.crops, plan.seed)
    tokenizer = make_tokenizer(sorted({caption for several in captions for caption in several}))
    autoencoder, unet, text_encoder = make_models(tokenizer)
    parameters = {
        "autoencoder": _count(autoencoder),
        "unet": _count(unet),
        "text_encoder": _count(text_encoder),
    }
    print(json.dumps({"parameters": parameters, "tokens": len(tokenizer)}), flush=True)

    crops = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1.0  # (N, 3, 64, 64)
    autoencoder_losses = train_autoencoder(autoencoder, crops, plan)
    plain, mirrored = encode_latents(autoencoder, crops), encode_latents(autoencoder, crops.flip(-1))
    both = normalise_latents(autoencoder, torch.cat([plain, mirrored]))
    plain, mirrored = both.chunk(2)
    with torch.no_grad():
        decoded = autoencoder.decode(plain[:256]).sample
    psnr = float(10.0 * torch.log10(4.0 / (decoded - crops[:256]).pow(2).mean()))
    print(json.dumps({"autoencoder_losses": autoencoder_losses, "psnr": round(psnr, 2)}), flush=True)
    unet_losses = train_unet(unet, text_encoder, tokenizer, (plain, mirrored), captions, plan)

    pipeline: Any = StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16).save_pretrained(out, safe_serialization=True)
    card = {
        "command": command,
        "plan": dict(vars(plan)),
        "train_groups": list(train_groups()),
        "parameters": parameters,
        "autoencoder_losses": autoencoder_losses,
        "autoencoder_psnr_db": round(psnr, 2),
        "unet_losses": unet_losses,
        "threads": torch.get_num_threads(),
        "seconds": round(time.monotonic() - started),
        "versions": {
            name: version(name)
            for name in ("torch", "diffusers", "transformers", "pillow", "numpy", "scikit-image", "scikit-learn")
        },
    }
    (out / "card.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    return card


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line: `train --out DIR --seed N`."""
    parser = argparse.ArgumentParser(prog="python -m tasks.generators.tiny_diffusion", description=__doc__)
    commands = parser.add_subparsers(required=True)
    training = commands.add_parser("train", help="train the tiny model and write it to a directory")
    training.add_argument("--out", type=Path, required=True)
    training.add_argument("--seed", type=int, default=TrainingPlan.seed)
    training.add_argument("--autoencoder-steps", type=int, default=TrainingPlan.autoencoder_steps)
    training.add_argument("--unet-steps", type=int, default=TrainingPlan.unet_steps)
    given = parser.parse_args(arguments)
    plan = TrainingPlan(seed=given.seed, autoencoder_steps=given.autoencoder_steps, unet_steps=given.unet_steps)
    command = (
        f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', '')} python -m tasks.generators.tiny_diffusion train "
        f"--out DIR --seed {plan.seed} --autoencoder-steps {plan.autoencoder_steps} --unet-steps {plan.unet_steps}"
    )
    print(json.dumps(train(given.out, plan, command), indent=1))


def _damaged_prompt(captions: tuple[str, ...], random: np.random.Generator, plan: TrainingPlan) -> str:
    """One of the captions, sometimes emptied, sometimes with words made of random letters."""
    if random.random() < plan.prompt_dropout:
        return ""
    words = captions[int(random.integers(len(captions)))].split()
    for position in range(len(words)):
        if random.random() < plan.word_dropout:
            letters = random.integers(ord("a"), ord("z") + 1, size=int(random.integers(3, 8)))
            words[position] = "".join(map(chr, letters))
    return " ".join(words)


def _tokens(tokenizer: CLIPTokenizer, prompts: Sequence[str]) -> torch.Tensor:
    """Token numbers int64 (B, 32), padded as the pipeline pads them."""
    encoded = tokenizer(list(prompts), padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt")
    numbers: torch.Tensor = encoded.input_ids
    return numbers


def _draw_flipped(crops: torch.Tensor, batch: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A random batch of crops, each mirrored with probability one half, and their numbers."""
    import torch

    picked = torch.randint(len(crops), (batch,), generator=generator)
    mirrored = torch.rand(batch, generator=generator) < 0.5
    pixels = crops[picked]
    return torch.where(mirrored[:, None, None, None], pixels.flip(-1), pixels), picked


def _count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


if __name__ == "__main__":
    main()
