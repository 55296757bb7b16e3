"""The training of the small autoencoder through which the preset `demo` puts photographs.

An `AutoencoderTiny` of diffusers that divides sides by two, 75,943 parameters. The weights in
`small_autoencoder_weights` were made once, of photographs that the preset does not test, by

    OMP_NUM_THREADS=1 python -m tasks.generators.small_autoencoder FOLDER --out DIR

and are stored in half precision with a card (`card.json`) that says what came of it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from storage.errors import MissingInput
from tasks.brought_models import CONFIG
from tasks.data.pictures import Pixels
from tasks.generators.small_training import descend, finite_loss, sharp_l1, tenths, warm_cosine
from tasks.torch_vision_schema import define_missing_torchvision_schemas

if TYPE_CHECKING:
    import torch

CARD = "card.json"
_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class TrainingPlan:
    """How it is trained; the defaults are those of the shipped weights."""

    seed: int = 0
    width: int = 24
    halvings: int = 1
    latent_channels: int = 4
    side: int = 64
    batch: int = 16
    steps: int = 1600
    rate: float = 2e-3


def untrained(plan: TrainingPlan) -> Any:
    """The network, whose weights follow torch's global generator."""
    define_missing_torchvision_schemas()
    from diffusers import AutoencoderTiny

    stages = plan.halvings + 1
    return AutoencoderTiny(
        encoder_block_out_channels=(plan.width,) * stages,
        decoder_block_out_channels=(plan.width,) * stages,
        num_encoder_blocks=(1,) * stages,
        num_decoder_blocks=(1,) * stages,
        latent_channels=plan.latent_channels,
        upsampling_scaling_factor=2,
    )


def read_photographs(folder: Path, side: int) -> list[Pixels]:
    """The photographs below a folder that are large enough, uint8 (H, W, 3), in the order of their paths.

    Raises:
        MissingInput: there is none.
    """
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES):
        with Image.open(path) as picture:
            if min(picture.size) >= side:
                found.append(np.asarray(picture.convert("RGB")))
    if not found:
        raise MissingInput(f"{folder}: no photograph of {side} pixels a side or more")
    return found


def batches(photographs: list[Pixels], plan: TrainingPlan) -> Iterator[torch.Tensor]:
    """Random windows at their own scale, mirrored or not: float32 (B, 3, side, side) in [-1, 1], without end."""
    import torch

    random = np.random.default_rng(plan.seed)
    while True:
        windows = np.empty((plan.batch, plan.side, plan.side, 3), np.uint8)
        for window in windows:
            pixels = photographs[int(random.integers(len(photographs)))]
            top, left = (int(random.integers(length - plan.side + 1)) for length in pixels.shape[:2])
            part = pixels[top : top + plan.side, left : left + plan.side]
            window[:] = part[:, ::-1] if random.random() < 0.5 else part
        yield torch.from_numpy(windows).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def train(photographs: list[Pixels], plan: TrainingPlan) -> tuple[Any, list[float]]:
    """The trained network, and the mean loss of each tenth of the steps.

    The loss is L1 of the pixels and of their differences to the right and lower neighbours, which keeps edges sharp.
    The rate falls along half a cosine.
    """
    import torch

    torch.manual_seed(plan.seed)
    network = untrained(plan).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=plan.rate, weight_decay=1e-4)
    schedule = warm_cosine(optimiser, plan.steps)
    losses = []
    for step, pixels in zip(range(plan.steps), batches(photographs, plan), strict=False):
        loss = sharp_l1(network.decode(network.encode(pixels).latents).sample - pixels)
        descend(loss, network.parameters(), optimiser, schedule)
        losses.append(finite_loss(loss, "autoencoder", step))
    return network.eval(), tenths(losses)


def main() -> None:
    """Train on a folder of photographs, and write the weights with their card."""
    import torch

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=TrainingPlan.steps)
    parser.add_argument(
        "--trained-on", default="", help="what the photographs are and under which licence, for the card"
    )
    given = parser.parse_args()
    plan = TrainingPlan(steps=given.steps)
    photographs = read_photographs(given.photographs, plan.side)
    started = time.monotonic()
    network, losses = train(photographs, plan)
    parameters = sum(one.numel() for one in network.parameters())
    network.to(torch.float16).save_pretrained(given.out)
    # Diffusers writes what it computes of the other fields, and warns of it when it reads it.
    config = json.loads((given.out / CONFIG).read_text(encoding="utf-8"))
    del config["block_out_channels"]
    (given.out / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    card = {
        "plan": asdict(plan),
        "trained_on": given.trained_on,
        "photographs": len(photographs),
        "parameters": parameters,
        "losses": losses,
        "seconds": round(time.monotonic() - started),
        "libraries": {name: version(name) for name in ("torch", "diffusers", "numpy", "pillow")},
    }
    (given.out / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
