"""Training a MobileNetV2: one loop for fine-tuning, pruning and distillation.

Everything random follows from the training's seed and the epoch, so that a resumed training is the uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.digest import hash_seed
from storage.errors import TrainingFailed
from tasks.checkpoints import Checkpoint
from tasks.detectors.svm import balanced_weights
from tasks.detectors.training_pictures import Pictures
from tasks.spec import Training, View

if TYPE_CHECKING:
    import torch

    from tasks.detectors.mobilenet_network import MobileNet, Tensors

HISTORY_COLUMNS = ("epoch", "loss", "training_accuracy", "validation_loss", "validation_accuracy")

# The loss of logits (B, k) and the numbers of their rows among the training pictures, int64 (B,): a scalar.
Loss = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]

# What enters the first trained stage is kept of every picture where it fits, instead of being made in each epoch.
FROZEN_BYTES = 1_000_000_000


@dataclass(frozen=True)
class Data:
    """What a network is trained on: pictures for training and for validation, and their views.

    `views` are drawn from for each training picture and epoch; the first one is that of validation.
    """

    train: Pictures
    val: Pictures
    views: tuple[View, ...]
    side: int


@dataclass(frozen=True)
class Fit:
    """A finished training: the kept epoch's weights, its number (from 1), and the history (E, 5)."""

    tensors: Tensors
    kept_epoch: int
    history: npt.NDArray[np.float64]


def picture_weights(pictures: Pictures, balanced: bool) -> npt.NDArray[np.float64]:
    """How much each picture counts (N,), 1 on average: photographs and fakes alike if `balanced`, else all the same."""
    if not balanced:
        return np.ones(len(pictures))
    return balanced_weights((pictures.classes > 0).astype(np.int64), np.array(pictures.sources))


def label_loss(pictures: Pictures, balanced: bool, device: str) -> Loss:
    """Weighted cross-entropy with the pictures' classes."""
    import torch
    from torch.nn.functional import cross_entropy

    classes = torch.from_numpy(pictures.classes).to(device)
    weights = torch.from_numpy(picture_weights(pictures, balanced)).float().to(device)

    def loss(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return (cross_entropy(logits, classes[rows], reduction="none") * weights[rows]).mean()

    return loss


def fit(
    network: MobileNet,
    data: Data,
    training: Training,
    *,
    seed: int,
    trained: Callable[[str], bool] = lambda name: True,
    loss: Loss | None = None,
    after_step: Callable[[MobileNet, int, int], None] = lambda network, step, steps: None,
    keep_last: bool = False,
    device: str = "cpu",
    resume: Checkpoint | None = None,
    after_epoch: Callable[[Checkpoint], None] = lambda checkpoint: None,
) -> Fit:
    """Train `network` in place with Adam, stop early on the validation loss, and restore the best epoch's weights.

    Batch norm, where a network still has it, is in training mode: only networks from random weights have it.

    Args:
        network: on `device`.
        data: the pictures.
        training: epochs, batch, learning rate, patience.
        seed: decides order and views.
        trained: which parameters are trained, by name; the others stay as they are.
        loss: of training batches; weighted cross-entropy with the labels without. Validation always uses the latter.
        after_step: called with the network, the number of steps done and that of all epochs.
        keep_last: the last epoch's weights are the result, whatever the validation loss (and nothing stops early).
        resume: the state after some epoch; the result is that of a training that was not interrupted.
        after_epoch: called with the state after every epoch.

    Raises:
        TrainingFailed: a loss or a weight that is not finite, with epoch and step.
    """
    from tasks.detectors.mobilenet_network import network_tensors

    run = _Run(network, data, training, seed, trained, loss, after_step, keep_last, device)
    if resume is not None:
        run.restore(resume)
    while not run.finished:
        run.run_epoch()
        after_epoch(run.checkpoint())
    if not keep_last:
        network.load_state_dict(run.best)
    network.eval()
    return Fit(network_tensors(network), len(run.history) if keep_last else run.best_epoch, run.history)


def outputs(
    network: MobileNet, pictures: Pictures, view: View, side: int, *, batch: int = 32, device: str = "cpu"
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]:
    """Logits float64 (N, k) and pooled features float32 (N, D) of pictures in a view, batches in order."""
    import torch

    network.eval()
    logits, features = [], []
    with torch.inference_mode():
        for start in range(0, len(pictures), batch):
            rows = range(start, min(start + batch, len(pictures)))
            pooled = network.pooled(_inputs(pictures, rows, [view] * len(rows), side, device))
            features.append(pooled.float().cpu().numpy())
            logits.append(network.head(pooled).double().cpu().numpy())
    return np.concatenate(logits), np.concatenate(features)


def history_table(history: npt.NDArray[np.float64]) -> pa.Table:
    """A history, float64 (E, 5), as a table with `HISTORY_COLUMNS`."""
    columns: dict[str, Any] = dict(zip(HISTORY_COLUMNS, history.T, strict=True))
    return pa.table(columns | {"epoch": columns["epoch"].astype(np.int32)})


class _Run:
    """One training and its state."""

    def __init__(
        self,
        network: MobileNet,
        data: Data,
        training: Training,
        seed: int,
        trained: Callable[[str], bool],
        loss: Loss | None,
        after_step: Callable[[MobileNet, int, int], None],
        keep_last: bool,
        device: str,
    ) -> None:
        import torch

        self.network, self.data, self.training, self.seed, self.device = network, data, training, seed, device
        self.after_step, self.keep_last = after_step, keep_last
        self.loss = loss or label_loss(data.train, training.balanced, device)
        self.validation_loss = label_loss(data.val, training.balanced, device)
        chosen = []
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(trained(name))
            if trained(name):
                chosen.append(parameter)
        self.adam = torch.optim.Adam(chosen, lr=training.learning_rate) if chosen else None
        self.first_stage = _first_trained_stage(network, trained)
        # A single picture left over joins the batch before it: batch norm cannot be trained on one alone.
        self.steps_per_epoch = max(1, (len(data.train) + training.batch - 2) // training.batch)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                # Validation reads the running statistics: in short epochs torch's 0.1 still holds much of their start.
                module.momentum = max(0.1, 1 / self.steps_per_epoch)
        self.history = np.empty((0, len(HISTORY_COLUMNS)))
        self.best: dict[str, torch.Tensor] = _copy(network)
        self.val_inputs = self._frozen(data.val)
        self.train_inputs = None if training.augmented else self._frozen(data.train)

    @property
    def best_epoch(self) -> int:
        """The epoch with the lowest validation loss, the first of equals."""
        return int(np.argmin(self.history[:, 3])) + 1 if len(self.history) else 0

    @property
    def finished(self) -> bool:
        epochs = len(self.history)
        waited = not self.keep_last and epochs - self.best_epoch >= self.training.patience
        return epochs >= self.training.epochs or waited

    def run_epoch(self) -> None:
        import torch

        epoch = len(self.history) + 1
        random = torch.Generator().manual_seed(hash_seed("fit", self.seed, epoch))
        order = torch.randperm(len(self.data.train), generator=random)
        views = torch.randint(len(self.data.views), (len(self.data.train),), generator=random).tolist()
        losses, hits = [], 0
        for number in range(self.steps_per_epoch):
            start = number * self.training.batch
            rows = order[start:] if number + 1 == self.steps_per_epoch else order[start : start + self.training.batch]
            self.network.train()
            logits = self._logits(self.data.train, rows, self.train_inputs, views)
            loss = self.loss(logits, rows.to(self.device))
            value = float(loss.detach())
            if not np.isfinite(value):
                raise TrainingFailed(
                    f"the network diverged in epoch {epoch}, step {number + 1}: loss {value}; the last good "
                    "checkpoint is kept; lower training.learning_rate"
                )
            if self.adam is not None:
                self.adam.zero_grad()
                loss.backward()
                self.adam.step()
            self.after_step(self.network, (epoch - 1) * self.steps_per_epoch + number + 1, self._steps)
            losses.append(value * len(rows))
            hits += int((logits.detach().argmax(1).cpu().numpy() == self.data.train.classes[rows.numpy()]).sum())
        count = len(self.data.train)
        self._note(epoch, float(np.sum(losses)) / count, hits / count)

    @property
    def _steps(self) -> int:
        return self.training.epochs * self.steps_per_epoch

    def _note(self, epoch: int, loss: float, accuracy: float) -> None:
        import torch

        val = self.data.val
        self.network.eval()
        with torch.inference_mode():
            logits = torch.cat(
                [
                    self._logits(val, torch.arange(start, min(start + 32, len(val))), self.val_inputs, [0] * len(val))
                    for start in range(0, len(val), 32)
                ]
            )
            validation_loss = float(self.validation_loss(logits, torch.arange(len(val), device=self.device)))
        if not np.isfinite(validation_loss):
            raise TrainingFailed(
                f"the network diverged in epoch {epoch}: validation loss {validation_loss}; the last good checkpoint "
                "is kept; lower training.learning_rate"
            )
        validation_accuracy = float((logits.argmax(1).cpu().numpy() == val.classes).mean())
        row = [epoch, loss, accuracy, validation_loss, validation_accuracy]
        self.history = np.concatenate([self.history, [row]])
        if self.best_epoch == epoch:
            self.best = _copy(self.network)

    def _logits(
        self, pictures: Pictures, rows: torch.Tensor, kept: torch.Tensor | None, views: Sequence[int]
    ) -> torch.Tensor:
        import torch

        if kept is not None:
            return self.network(kept[rows].to(self.device), self.first_stage)
        chosen = [self.data.views[views[row]] for row in rows.tolist()]
        x = _inputs(pictures, rows.tolist(), chosen, self.data.side, self.device)
        with torch.no_grad():
            x = self.network.run_stages(x, 0, self.first_stage)
        return self.network(x, self.first_stage)

    def _frozen(self, pictures: Pictures) -> torch.Tensor | None:
        """What the first trained stage reads of every picture (N, C, h, w), where that fits; else None."""
        import torch

        self.network.eval()
        made: list[torch.Tensor] = []
        with torch.inference_mode():
            for start in range(0, len(pictures), 32):
                rows = range(start, min(start + 32, len(pictures)))
                view = self.data.views[0]
                x = _inputs(pictures, rows, [view] * len(rows), self.data.side, self.device)
                made.append(self.network.run_stages(x, 0, self.first_stage).cpu())
                if made[0][0].nbytes * len(pictures) > FROZEN_BYTES:
                    return None
        return torch.cat(made)

    def checkpoint(self) -> Checkpoint:
        """A copy of the state after the last epoch."""
        tensors: dict[str, npt.NDArray[Any]] = {}
        for place, state in (("network", self.network.state_dict()), ("best", self.best)):
            for name, tensor in state.items():
                tensors[f"{place}/{name}"] = tensor.detach().cpu().numpy().copy()
                if not np.isfinite(tensors[f"{place}/{name}"]).all():
                    raise TrainingFailed(f"the network diverged in epoch {len(self.history)}: {name} is not finite")
        for index, state in (self.adam.state_dict()["state"] if self.adam is not None else {}).items():
            for name, tensor in state.items():
                tensors[f"adam/{index}/{name}"] = tensor.detach().cpu().numpy().copy()
        return Checkpoint(len(self.history), tensors, self.history.copy())

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take over a checkpoint's state.

        Raises:
            TrainingFailed: it is of another network.
        """
        import torch

        expected = {name: tuple(tensor.shape) for name, tensor in self.network.state_dict().items()}
        got = {name: tensor.shape for name, tensor in checkpoint.below("network").items()}
        if expected != got:
            raise TrainingFailed("the checkpoint is of another network: its weights have other names or shapes")

        def tensors(place: str) -> dict[str, torch.Tensor]:
            return {name: torch.from_numpy(array.copy()) for name, array in checkpoint.below(place).items()}

        self.network.load_state_dict(tensors("network"))
        self.best = {name: tensor.to(self.device) for name, tensor in tensors("best").items()}
        self.history = checkpoint.history.copy()
        if self.adam is not None:
            states: dict[int, dict[str, torch.Tensor]] = {}
            for key, tensor in tensors("adam").items():
                index, _, name = key.partition("/")
                states.setdefault(int(index), {})[name] = tensor
            groups = self.adam.state_dict()["param_groups"]
            self.adam.load_state_dict({"state": states, "param_groups": groups})


def _first_trained_stage(network: MobileNet, trained: Callable[[str], bool]) -> int:
    stages = [int(name.split(".")[1]) for name, _ in network.named_parameters() if name.startswith("stages.")]
    wanted = [
        int(name.split(".")[1])
        for name, _ in network.named_parameters()
        if name.startswith("stages.") and trained(name)
    ]
    return min(wanted, default=max(stages) + 1)


def _inputs(
    pictures: Pictures, rows: Sequence[int] | range, views: Sequence[View], side: int, device: str
) -> torch.Tensor:
    import torch

    from tasks.detectors.mobilenet_network import prepare_picture

    prepared = [prepare_picture(pictures.pixels(row, view), side) for row, view in zip(rows, views, strict=True)]
    return torch.stack(prepared).to(device).contiguous(memory_format=torch.channels_last)


def _copy(network: MobileNet) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
