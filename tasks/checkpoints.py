"""Checkpoints of a training in the store: after every epoch, and in long ones; the newest sound one is resumed from."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from storage.digest import sha256_hex
from storage.errors import ObjectMissing, TrainingFailed
from storage.store import Store

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

# The newest and the one before it, should the newest turn out damaged.
CHECKPOINTS_KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """A training after `epoch` finished epochs and `step` steps of the next one: all that the rest depends on.

    `tensors` are named by what they belong to (`network/...`, `adam/...`); `history` is float64 (S, C), one row per
    step or epoch so far.
    """

    epoch: int
    tensors: dict[str, npt.NDArray[Any]]
    history: npt.NDArray[np.float64]
    step: int = 0

    def below(self, name: str) -> dict[str, npt.NDArray[Any]]:
        """The tensors under `<name>/`, by the rest of their names."""
        start = f"{name}/"
        return {key.removeprefix(start): tensor for key, tensor in self.tensors.items() if key.startswith(start)}


def finite_tensors(place: str, state: Mapping[str, torch.Tensor], training: str) -> dict[str, npt.NDArray[Any]]:
    """A copy of a network's state, by `<place>/<name>`.

    Raises:
        TrainingFailed: `training`, as a sentence begins with it, left a number that is not finite.
    """
    copied = {f"{place}/{name}": tensor.detach().cpu().numpy().copy() for name, tensor in state.items()}
    for name, tensor in copied.items():
        if not np.isfinite(tensor).all():
            raise TrainingFailed(f"{training}: {name} is not finite")
    return copied


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, npt.NDArray[Any]]:
    """A copy of what an optimiser knows of its parameters, by `<number of the parameter>/<field>`."""
    return {
        f"{number}/{field}": tensor.detach().cpu().numpy().copy()
        for number, state in optimiser.state_dict()["state"].items()
        for field, tensor in state.items()
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, npt.NDArray[Any]]) -> None:
    """Take over `optimiser_tensors`, each in its parameter's layout: a fused optimiser refuses any other."""
    import torch

    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    states: dict[int, dict[str, torch.Tensor]] = {}
    for key, array in tensors.items():
        number, _, field = key.partition("/")
        tensor, parameter = torch.from_numpy(array.copy()), parameters[int(number)]
        if tensor.shape == parameter.shape:
            tensor = torch.empty_like(parameter, device="cpu", requires_grad=False).copy_(tensor)
        states.setdefault(int(number), {})[field] = tensor
    optimiser.load_state_dict({"state": states, "param_groups": optimiser.state_dict()["param_groups"]})


def checkpoint_bytes(checkpoint: Checkpoint) -> bytes:
    """A checkpoint as safetensors; epoch and step are in the header."""
    from safetensors.numpy import save

    tensors = {**checkpoint.tensors, "history": checkpoint.history}
    contiguous = {name: np.ascontiguousarray(tensor).reshape(tensor.shape) for name, tensor in tensors.items()}
    return save(contiguous, metadata={"checkpoint": json.dumps({"epoch": checkpoint.epoch, "step": checkpoint.step})})


def parse_checkpoint(data: bytes) -> Checkpoint:
    """Read `checkpoint_bytes` back."""
    from safetensors.numpy import load

    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    tensors = load(data)
    history = tensors.pop("history")
    place = json.loads(header["__metadata__"]["checkpoint"])
    return Checkpoint(place["epoch"], tensors, history, place.get("step", 0))


def write_checkpoint(store: Store, folder: str, checkpoint: Checkpoint) -> None:
    """Put a checkpoint into a folder of the store and remove all but the newest two.

    The file's name carries its epoch, its step and a piece of its digest, so that a damaged one is recognised.
    """
    data = checkpoint_bytes(checkpoint)
    place = f"epoch-{checkpoint.epoch:06d}-{checkpoint.step:06d}"
    store.write(f"{folder}/{place}-{sha256_hex(data)[:12]}.safetensors", data)
    for key in _checkpoint_keys(store, folder)[CHECKPOINTS_KEPT:]:
        store.delete(key)


def newest_checkpoint(store: Store, folder: str) -> Checkpoint | None:
    """The newest sound checkpoint of a folder, or None; damaged ones are removed with a warning."""
    for key in _checkpoint_keys(store, folder):
        try:
            data = store.read(key)
        except ObjectMissing:  # another worker on the same recipe has removed it
            continue
        if sha256_hex(data)[:12] == key.removesuffix(".safetensors")[-12:]:
            return parse_checkpoint(data)
        logger.warning("damaged checkpoint %s: removed, an older one is tried", key)
        store.delete(key)
    return None


def _checkpoint_keys(store: Store, folder: str) -> list[str]:
    """Newest first."""
    keys = (key for key in store.list(folder) if key.startswith(f"{folder}/epoch-"))
    return sorted(keys, reverse=True)
