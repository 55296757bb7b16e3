"""Fine-tuning MobileNetV2, and what every finished training shares: calibration, familiarity, curves, confusion."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from storage.errors import SpecError
from storage.objects import PartContent, Ref
from storage.weights import read_weights
from tasks.checkpoints import Checkpoint, newest_checkpoint, write_checkpoint
from tasks.device import device_alone, full_precision
from tasks.networks.architecture import Architecture, architecture, unlocked_names
from tasks.networks.familiarity import fit_familiarity
from tasks.networks.fitting import Data, Fit, fit, history_table, outputs, picture_weights
from tasks.networks.trained import TrainedNetwork
from tasks.networks.training_pictures import load_pictures
from tasks.pieces import Due
from tasks.recipe import Output, StepRun, step
from tasks.spec.base import Name, Spec
from tasks.spec.detectors import FineTuned, NetworkBase, Residual, Training
from tasks.spec.splits import Splits
from tasks.spec.views import View, is_one
from tasks.threads import limit_threads

if TYPE_CHECKING:
    from tasks.networks.mobilenet_network import MobileNet

HISTORY, CURVES, CONFUSION = "history.parquet", "curves.png", "confusion.png"


class Setting(Spec):
    """What all trainings of one rotation share: the classes, views, device and seed.

    `views`: the first is that of validation and calibration; an augmented training draws from all of them.
    """

    classes: tuple[Name, ...]
    rotation: int
    splits: Splits
    views: tuple[View, ...]
    device: str
    seed: int
    # Of how many windows of a picture an opinion is formed, with which it is calibrated.
    windows: int = Field(default=1, exclude_if=is_one)

    @property
    def all_windows(self) -> tuple[View, ...]:
        """The first view's windows of which an opinion is formed."""
        return self.views[0].model_copy(update={"windows": self.windows}).each_window


def training_label(*, spec: NetworkBase, setting: Setting, **_: Any) -> str:
    """The readable part of a training's place, such as `dense/real+gan/r0-s0`."""
    return f"{spec.name}/{'+'.join(setting.classes)}/r{setting.rotation}-s{setting.seed}"


def training_data(run: StepRun, images: Sequence[Ref], setting: Setting, training: Training, side: int) -> Data:
    """Train and val pictures of a rotation."""
    if "real" not in setting.classes[:1] or len(setting.classes) < 2:
        raise SpecError(f"a network needs the class real first and a generator beside it, got {setting.classes}")

    def load(role: str) -> Any:
        return load_pictures(
            run.store,
            images,
            role,
            setting.rotation,
            setting.splits,
            setting.classes,
            setting.views[0],
            windows=training.random_windows is not None and role == "train",
        )

    return Data(
        train=load("train"),
        val=load("val"),
        views=setting.views if training.augmented else setting.views[:1],
        side=side,
        random_windows=training.random_windows,
    )


def fit_resumably(
    run: StepRun, network: MobileNet, data: Data, training: Training, folder: str = "", **options: Any
) -> Fit:
    """`fit`, with a checkpoint in the store after every epoch and every minute, and the newest one resumed.

    `folder` keeps several trainings of one step apart.
    """
    place = f"{run.checkpoints}/{folder}" if folder else run.checkpoints
    resume = newest_checkpoint(run.store, place)
    progress = run.progress(
        training.epochs, "epochs", done=resume.epoch if resume else 0, device=options.get("device", "cpu")
    )

    due = Due()

    def keep(checkpoint: Checkpoint) -> None:
        write_checkpoint(run.store, place, checkpoint)
        due.kept()
        if not checkpoint.step:
            progress.advance()

    return fit(network, data, training, resume=resume, after_epoch=keep, due=due, **options)


def fit_temperature(
    logits: npt.NDArray[np.float64], classes: npt.NDArray[np.int64], weights: npt.NDArray[np.float64]
) -> float:
    """The temperature, 0.05..20, with which the softmax of logits / temperature has the lowest weighted cross-entropy.

    Guo et al.: On Calibration of Modern Neural Networks, ICML 2017.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    def cross_entropy(log_temperature: float) -> float:
        likelihoods = log_softmax(logits / np.exp(log_temperature), axis=1)
        return float(-np.average(likelihoods[np.arange(len(classes)), classes], weights=weights))

    found = minimize_scalar(cross_entropy, bounds=(np.log(0.05), np.log(20)), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def finished_output(
    network: MobileNet,
    fitted: Fit,
    data: Data,
    setting: Setting,
    training: Training,
    about: Mapping[str, Any],
    extra_parts: Mapping[str, PartContent] | None = None,
) -> Output:
    """A trained network as a step's output: calibrated on val, its train features summed up for the rejection.

    `network` holds the weights that are kept; batch norm, if any, is folded here. `about` says how it was made.
    """
    from tasks.networks.mobilenet_network import folded, network_tensors

    plain = folded(network)
    view = setting.views[0]
    windows = [outputs(plain, data.val, one, data.side, device=setting.device) for one in setting.all_windows]
    val_logits = np.mean([logits for logits, _ in windows], axis=0)
    _, features = outputs(plain, data.train, view, data.side, device=setting.device)
    weights = picture_weights(data.val, training.balanced)
    temperature = fit_temperature(val_logits, data.val.classes, weights)
    history = fitted.history[fitted.kept_epoch - 1]
    facts = {
        **about,
        "rotation": setting.rotation,
        "seed": setting.seed,
        "epochs": len(fitted.history),
        "kept_epoch": fitted.kept_epoch,
        "loss": float(history[1]),
        "training_accuracy": float(history[2]),
        "validation_loss": float(history[3]),
        "validation_accuracy": float((val_logits.argmax(1) == data.val.classes).mean()),
        "pictures": {
            name: [int((part.classes == number).sum()) for part in (data.train, data.val)]
            for number, name in enumerate(setting.classes)
        },
        "views": [one.name for one in data.views],
    }
    if view.path == "crop":
        facts["windows"] = setting.windows
    trained = TrainedNetwork(
        shape=plain.shape,
        tensors=network_tensors(plain),
        classes=setting.classes,
        temperature=temperature,
        familiarity=fit_familiarity(features, data.train.classes, len(setting.classes)),
        about=facts,
    )
    confusion = confusion_counts(val_logits.argmax(1), data.val.classes, len(setting.classes))
    parts: dict[str, PartContent] = {
        **trained.parts(),
        HISTORY: history_table(fitted.history),
        CURVES: learning_curves(fitted.history, fitted.kept_epoch),
        CONFUSION: confusion_picture(confusion, setting.classes),
        **(extra_parts or {}),
    }
    notes = {key: facts[key] for key in ("epochs", "kept_epoch", "validation_loss", "validation_accuracy")}
    return Output(parts, notes | {"temperature": temperature, "macs": plain.shape.macs})


def show_training(run: StepRun, network: str, made: Output) -> None:
    """Learning curves and the confusion matrix of val as an artifact in the UI."""
    from tasks.generators.sheets import embedded, show_in_prefect

    curves, confusion = made.parts[CURVES], made.parts[CONFUSION]
    assert isinstance(curves, bytes)
    assert isinstance(confusion, bytes)
    show_in_prefect(
        f"training-{network}",
        f"training of {run.name}",
        f"## {run.name}\n\n{embedded(curves, 'learning curves')}\n\n{embedded(confusion, 'confusion on val')}\n",
    )


def confusion_counts(
    predicted: npt.NDArray[np.int64], classes: npt.NDArray[np.int64], count: int
) -> npt.NDArray[np.int64]:
    """How often class i was called j: int64 (k, k)."""
    counts = np.zeros((count, count), dtype=np.int64)
    np.add.at(counts, (classes, predicted), 1)
    return counts


def learning_curves(history: npt.NDArray[np.float64], kept_epoch: int) -> bytes:
    """Losses and accuracies over the epochs, as PNG; the kept epoch is marked."""
    figure, (losses, accuracies) = _figure(2)
    for axes, columns, name in ((losses, (1, 3), "loss"), (accuracies, (2, 4), "accuracy")):
        for column, label in zip(columns, ("train", "val"), strict=True):
            axes.plot(history[:, 0], history[:, column], marker="o", markersize=3, label=label)
        axes.axvline(kept_epoch, linewidth=0.8, color="grey", linestyle="--")
        axes.set(xlabel="epoch", ylabel=name)
        axes.legend()
        axes.grid(alpha=0.3)
    return _png(figure)


def confusion_picture(counts: npt.NDArray[np.int64], classes: Sequence[str]) -> bytes:
    """A confusion matrix (k, k), rows true and columns called, shaded by the row's shares, as PNG."""
    figure, (axes,) = _figure(1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    for row, column in np.ndindex(counts.shape):
        shade = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=shade)
    axes.set_xticks(range(len(classes)), classes, rotation=30, ha="right")
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="called", ylabel="true")
    return _png(figure)


def start_network(shape: Architecture, weights: Mapping[str, npt.NDArray[Any]] | None, seed: int) -> MobileNet:
    """A network with a new head: its trunk from torchvision's tensors, or all of it random, with batch norm."""
    import torch

    from tasks.networks.mobilenet_network import MobileNet, channels_last, folded_torchvision, initialise

    network = MobileNet(shape, batch_norm=weights is None)
    initialise(network, seed)
    if weights is not None:
        tensors = {name: torch.from_numpy(tensor) for name, tensor in folded_torchvision(weights, shape).items()}
        network.load_state_dict(tensors, strict=False)
    return channels_last(network)


def is_trained(shape: Architecture, spec: FineTuned) -> Callable[[str], bool]:
    """Which parameters a fine-tuning trains: the head, and the unlocked layers of the trunk."""
    places = unlocked_names(shape, spec.unlocked)
    return lambda name: name.startswith("head.") or name.rsplit(".", 2)[0] in places


@step(
    "train/mobilenet",
    version=1,
    label=training_label,
    libraries=("torch", "numpy", "pillow", "simplejpeg"),
    pool="gpu",
)
def train_mobilenet(
    run: StepRun, *, spec: FineTuned, setting: Setting, images: tuple[Ref, ...], weights: Ref | None
) -> Output:
    """Fine-tune MobileNetV2 on one rotation's train pictures; its weights, history, curves and confusion on val.

    `spec.weights` is resolved (`resolve_mobilenet`), `weights` the imported tensors, None for random ones: all layers
    of such a network are trained, whatever `unlocked` says.

    Raises:
        SpecError: a class without train pictures, or no fake or photograph in val.
        TrainingFailed: a loss that is not finite.
        DeviceLost: the GPU failed; what it finished is in the checkpoints.
    """
    limit_threads()
    data = training_data(run, images, setting, spec.training, spec.side)
    shape = architecture(spec.width, spec.head, len(setting.classes), spec.side)
    network = start_network(shape, None if weights is None else read_weights(run.store, weights)[0], setting.seed)
    about = {"spec": spec.model_dump(mode="json"), "weights": spec.weights}
    trained = is_trained(shape, spec) if weights is not None else lambda name: True
    return trained_output(run, spec, network, data, setting, about, trained)


def trained_output(
    run: StepRun,
    spec: FineTuned | Residual,
    network: MobileNet,
    data: Data,
    setting: Setting,
    about: Mapping[str, Any],
    trained: Callable[[str], bool] = lambda name: True,
) -> Output:
    """Train a network that is made of no other, all of it or what `trained` says of its parameters, and show how.

    Errors are those of the steps.
    """
    with device_alone(setting.device), full_precision(setting.device):
        network.to(setting.device)
        fitted = fit_resumably(
            run, network, data, spec.training, seed=setting.seed, trained=trained, device=setting.device
        )
        made = finished_output(network, fitted, data, setting, spec.training, about)
    show_training(run, spec.name, made)
    return made


def _figure(columns: int) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * columns, 3.6), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, np.atleast_1d(figure.subplots(1, columns))


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
