"""What the trainings of the small networks that come with telltale have in common."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from storage.errors import TrainingFailed

if TYPE_CHECKING:
    import torch


def sharp_l1(error: torch.Tensor) -> torch.Tensor:
    """L1 of the errors of pixels (N, 3, H, W) and of their differences to the right and lower neighbours.

    The differences keep edges sharp.
    """
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + edges


def warm_cosine(optimiser: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Fifty steps of warming up, then half a cosine down to nothing."""
    import math

    import torch

    return torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, (step + 1) / 50) * 0.5 * (1.0 + math.cos(math.pi * step / steps))
    )


def descend(
    loss: torch.Tensor, parameters: Any, optimiser: torch.optim.Optimizer, schedule: Any, norm: float = 1.0
) -> None:
    """One step down the clipped gradient."""
    import torch

    optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, norm)
    optimiser.step()
    schedule.step()


def finite_loss(loss: torch.Tensor, network: str, step: int) -> float:
    """The loss as a number, logged now and then; raises `TrainingFailed` where it is not finite."""
    value = float(loss.detach())
    if not np.isfinite(value):
        raise TrainingFailed(f"the tiny {network} diverged at step {step}: loss {value}")
    if step % 100 == 0:
        print(json.dumps({"network": network, "step": step, "loss": round(value, 4)}), flush=True)
    return value


def tenths(losses: Sequence[float]) -> list[float]:
    """The mean loss of each tenth of a run."""
    return [round(float(part.mean()), 5) for part in np.array_split(np.asarray(losses), 10) if part.size]
