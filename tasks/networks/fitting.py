"""Training a MobileNetV2: one loop for fine-tuning, pruning and distillation.

Everything random follows from the training's seed and the epoch, so that a resumed training is the uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.digest import hash_seed
from storage.errors import TrainingFailed
from tasks.checkpoints import Checkpoint, finite_tensors, optimiser_tensors, restore_optimiser
from tasks.data.pictures import Pixels
from tasks.detectors.svm import balanced_weights
from tasks.networks.training_pictures import Pictures, matched_pictures
from tasks.spec.detectors import Training
from tasks.spec.views import View
from tasks.threads import made_ahead

if TYPE_CHECKING:
    import torch

    from tasks.networks.mobilenet_network import MobileNet, Tensors

HISTORY_COLUMNS = ("epoch", "loss", "training_accuracy", "validation_loss", "validation_accuracy")

# The loss of logits (B, k) and the numbers of their rows among the training pictures, int64 (B,): a scalar.
Loss = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]

# Of `one-cycle`: the share of all steps in which the rate rises, and from which share of its highest.
RISE, FIRST_RATE = 0.15, 0.04

# What enters the first trained stage is kept of every picture where it fits, instead of being made in each epoch: in so
# much of the host's memory, or in this share of what is free on a GPU.
FROZEN_BYTES = 1_000_000_000
FROZEN_SHARE = 0.5

# Pictures that are computed at once where nothing is trained.
AT_ONCE, AT_ONCE_ON_GPU = 32, 256


@dataclass(frozen=True)
class Data:
    """What a network is trained on: pictures for training and for validation, and their views.

    `views` are drawn from for each training picture and epoch; the first one is that of validation. With
    `random_windows` parts of so many pixels a side are drawn of train pictures instead.
    """

    train: Pictures
    val: Pictures
    views: tuple[View, ...]
    side: int
    random_windows: int | None = None


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
    due: Callable[[], bool] = lambda: False,
) -> Fit:
    """Train `network` in place with Adam, stop early on the validation loss, and restore the best epoch's weights.

    Batch norm, where a network still has it, is in training mode: only networks from random weights have it.

    A GPU is fed by threads through pinned memory, computes in the precision that `training` names, and is asked for
    losses once per epoch.

    Args:
        network: on `device`.
        data: the pictures.
        training: epochs, batch, learning rate, patience.
        seed: decides order and views.
        trained: which parameters are trained, by name; the others stay as they are.
        loss: of training batches; weighted cross-entropy with the labels without. Validation always uses the latter.
        after_step: called with the network, the number of steps done and that of all epochs.
        keep_last: the last epoch's weights are the result, whatever the validation loss (and nothing stops early).
        resume: a state that `after_epoch` got; the result is that of a training that was not interrupted.
        after_epoch: called with the state after every epoch, and within one after a step where `due` says so.

    Raises:
        TrainingFailed: a loss or a weight that is not finite, with epoch and step.
    """
    from tasks.networks.mobilenet_network import network_tensors

    run = _Run(network, data, training, seed, trained, loss, after_step, keep_last, device)
    run.due, run.keep = due, after_epoch
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
    network: MobileNet, pictures: Pictures, view: View, side: int, *, batch: int | None = None, device: str = "cpu"
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]:
    """Logits float64 (N, k) and pooled features float32 (N, D) of pictures in a view, batches in order.

    Computed in float32 whatever the training's precision: the exported network is this one.
    """
    import torch

    network.eval()
    logits, features = [], []
    wanted = [
        [partial(pictures.pixels, row, view) for row in rows]
        for rows in _in_order(len(pictures), batch or _at_once(device))
    ]
    with torch.inference_mode():
        for x in _inputs(wanted, side, device):
            pooled = network.pooled(x)
            features.append(pooled.float().cpu().numpy())
            logits.append(network.head(pooled).double().cpu().numpy())
    return np.concatenate(logits), np.concatenate(features)


def learning_rate(training: Training, step: int, steps: int) -> float:
    """The rate of a step, from 1 to `steps`: with `one-cycle` up and down again along cosines."""
    if training.schedule == "constant":
        return training.learning_rate
    rising = max(1, round(RISE * steps))
    if step <= rising:
        share = 0.5 - 0.5 * math.cos(math.pi * step / rising)
        return training.learning_rate * (FIRST_RATE + (1 - FIRST_RATE) * share)
    return training.learning_rate * (0.5 + 0.5 * math.cos(math.pi * (step - rising) / (steps - rising)))


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
        self.due: Callable[[], bool] = lambda: False
        self.keep: Callable[[Checkpoint], None] = lambda checkpoint: None
        # Of the steps of this epoch so far: loss, and number of pictures that were told right.
        self.losses: list[torch.Tensor] = []
        self.hits: list[torch.Tensor] = []
        self.loss = loss or label_loss(data.train, training.balanced, device)
        self.validation_loss = label_loss(data.val, training.balanced, device)
        chosen = []
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(trained(name))
            if trained(name):
                chosen.append(parameter)
        fused = device != "cpu" or None
        self.adam = torch.optim.Adam(chosen, lr=training.learning_rate, fused=fused) if chosen else None
        # A network of its own, so that what prunes the plain one never meets compiled code.
        self.compute: Callable[..., torch.Tensor] = (
            torch.compile(network) if training.compile and device != "cpu" else network
        )
        self.classes = torch.from_numpy(data.train.classes).to(device)
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
        is_windowed = data.random_windows is not None
        self.units = matched_pictures(data.train) if is_windowed else tuple((row,) for row in range(len(data.train)))
        drawn = training.augmented or is_windowed
        self.train_inputs = None if drawn else self._frozen(data.train)

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
        drawn = torch.randperm(len(self.units), generator=random).tolist()
        order = torch.tensor([row for unit in drawn for row in self.units[unit]])
        views = torch.randint(len(self.data.views), (len(self.data.train),), generator=random).tolist()
        batches = [
            order[start:] if number + 1 == self.steps_per_epoch else order[start : start + self.training.batch]
            for number in range(self.steps_per_epoch)
            for start in [number * self.training.batch]
        ]
        self.network.train()
        done = len(self.losses)
        on_device = self._sent(order, batches)[done:]
        entering = self._training_inputs(batches[done:], views, epoch)
        for number, (rows, x) in enumerate(zip(on_device, entering, strict=True), start=done + 1):
            logits = self._logits(x)
            loss = self.loss(logits, rows)
            done_steps = (epoch - 1) * self.steps_per_epoch + number
            if self.adam is not None:
                for group in self.adam.param_groups:
                    group["lr"] = learning_rate(self.training, done_steps, self._steps)
                self.adam.zero_grad()
                loss.backward()
                self.adam.step()
            self.after_step(self.network, done_steps, self._steps)
            self.losses.append(loss.detach())
            self.hits.append((logits.detach().argmax(1) == self.classes[rows]).sum())
            if number < len(batches) and self.due():
                self._finite_losses(epoch)
                self.keep(self.checkpoint())
        values = self._finite_losses(epoch)
        count = len(self.data.train)
        whole = float(np.sum(values * [len(rows) for rows in batches]))
        hits = int(torch.stack(self.hits).sum())
        self.losses, self.hits = [], []
        self._note(epoch, whole / count, hits / count)

    def _sent(self, order: torch.Tensor, batches: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Batches on the device, of all their rows in order.

        They go there at once: whoever sends rows to a GPU in a step waits for all that it has to do until then.
        """
        sent: tuple[torch.Tensor, ...] = order.to(self.device).split([len(rows) for rows in batches])
        return sent

    def _finite_losses(self, epoch: int) -> npt.NDArray[np.float64]:
        """The losses of this epoch's steps. Not fetched after each step: a GPU would wait for it."""
        import torch

        values: npt.NDArray[np.float64] = torch.stack(self.losses).double().cpu().numpy()  # (steps,)
        if not np.isfinite(values).all():
            first = int(np.argmin(np.isfinite(values)))
            raise TrainingFailed(
                f"the network diverged in epoch {epoch}, step {first + 1}: loss {values[first]}; the last good "
                "checkpoint is kept; lower training.learning_rate"
            )
        return values

    @property
    def _steps(self) -> int:
        return self.training.epochs * self.steps_per_epoch

    def _note(self, epoch: int, loss: float, accuracy: float) -> None:
        import torch

        val = self.data.val
        self.network.eval()
        batches = [torch.tensor(rows) for rows in _in_order(len(val), _at_once(self.device))]
        with torch.inference_mode():
            logits = torch.cat([self._logits(x) for x in self._entering(val, batches, self.val_inputs, [0] * len(val))])
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

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        """Logits float32 (B, k) of what enters the first trained stage."""
        with self._precision():
            logits = self.compute(x, self.first_stage)
        return logits.float()

    def _precision(self) -> AbstractContextManager[Any]:
        """What layers are computed in."""
        import torch

        half = self.training.precision != "float32"
        return torch.autocast(self.device, dtype=torch.bfloat16, enabled=half)

    def _entering(
        self, pictures: Pictures, batches: Sequence[torch.Tensor], kept: torch.Tensor | None, views: Sequence[int]
    ) -> Iterator[torch.Tensor]:
        """What enters the first trained stage, batch by batch (B, C, h, w), on the device.

        `batches` are rows of the pictures, int64 (B,); `kept` is what `_frozen` made of them; `views` has a number
        among the data's views for each picture.
        """
        import torch

        if kept is not None:
            yield from (kept[rows] for rows in self._sent(torch.cat(tuple(batches)), batches))
            return
        wanted = [
            [partial(pictures.pixels, row, self.data.views[views[row]]) for row in rows.tolist()] for rows in batches
        ]
        for x in _inputs(wanted, self.data.side, self.device):
            yield self._until_trained(x)

    def _training_inputs(
        self, batches: Sequence[torch.Tensor], views: Sequence[int], epoch: int
    ) -> Iterator[torch.Tensor]:
        """What enters the first trained stage of one epoch's batches, as `_entering`."""
        side = self.data.random_windows
        if side is None:
            yield from self._entering(self.data.train, batches, self.train_inputs, views)
            return
        seed = hash_seed("windows", self.seed, epoch)
        wanted = [
            [partial(self.data.train.random_window, row, side, seed) for row in rows.tolist()] for rows in batches
        ]
        for x in _inputs(wanted, side, self.device):
            yield self._until_trained(x)

    def _until_trained(self, x: torch.Tensor) -> torch.Tensor:
        """What pictures (B, 3, h, w) are where the first trained stage begins."""
        import torch

        with torch.no_grad(), self._precision():
            return self.network.run_stages(x, 0, self.first_stage)

    def _frozen(self, pictures: Pictures) -> torch.Tensor | None:
        """What enters the first trained stage, of all pictures (N, C, h, w), on the device; None without the room."""
        import torch

        self.network.eval()
        room = FROZEN_BYTES if self.device == "cpu" else int(torch.cuda.mem_get_info()[0] * FROZEN_SHARE)
        batches = [torch.tensor(rows) for rows in _in_order(len(pictures), _at_once(self.device))]
        made: list[torch.Tensor] = []
        with torch.inference_mode():
            for x in self._entering(pictures, batches, None, [0] * len(pictures)):
                made.append(x)
                if x[0].nbytes * len(pictures) > room:
                    return None
        return torch.cat(made)

    def checkpoint(self) -> Checkpoint:
        """A copy of the state after the last step."""
        import torch

        tensors: dict[str, npt.NDArray[Any]] = {}
        for place, state in (("network", self.network.state_dict()), ("best", self.best)):
            tensors |= finite_tensors(place, state, f"the network diverged in epoch {len(self.history)}")
        if self.adam is not None:
            tensors |= {f"adam/{key}": tensor for key, tensor in optimiser_tensors(self.adam).items()}
        for name, values in (("losses", self.losses), ("hits", self.hits)):
            if values:
                tensors[f"epoch/{name}"] = torch.stack(values).cpu().numpy()
        return Checkpoint(len(self.history), tensors, self.history.copy(), len(self.losses))

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
        of_epoch = {name: list(tensor.to(self.device)) for name, tensor in tensors("epoch").items()}
        self.losses, self.hits = of_epoch.get("losses", []), of_epoch.get("hits", [])
        if self.adam is not None:
            restore_optimiser(self.adam, checkpoint.below("adam"))


def _first_trained_stage(network: MobileNet, trained: Callable[[str], bool]) -> int:
    stages = [int(name.split(".")[1]) for name, _ in network.named_parameters() if name.startswith("stages.")]
    wanted = [
        int(name.split(".")[1])
        for name, _ in network.named_parameters()
        if name.startswith("stages.") and trained(name)
    ]
    return min(wanted, default=max(stages) + 1)


def _in_order(count: int, batch: int) -> list[range]:
    return [range(start, min(start + batch, count)) for start in range(0, count, batch)]


def _at_once(device: str) -> int:
    return AT_ONCE if device == "cpu" else AT_ONCE_ON_GPU


def _inputs(wanted: Iterable[Sequence[Callable[[], Pixels]]], side: int, device: str) -> Iterator[torch.Tensor]:
    """Batches (B, 3, side, side) of pictures that are made on demand; threads prepare them ahead of a GPU."""
    import torch

    from tasks.networks.mobilenet_network import prepare_picture

    def prepared(batch: Sequence[Callable[[], Pixels]]) -> torch.Tensor:
        x = torch.stack([prepare_picture(pixels(), side) for pixels in batch])
        return x if device == "cpu" else x.pin_memory()

    for x in made_ahead(prepared, wanted, device):
        yield x.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)


def _copy(network: MobileNet) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
