"""Pruning a MobileNetV2: small weights set to zero (same file, same time), or channels removed (smaller tensors).

Magnitude: Zhu & Gupta: To prune, or not to prune, 2017 (arXiv 1710.01878), as in tensorflow-model-optimization.
Structure: torch-pruning's dependency graph (Fang et al.: DepGraph, CVPR 2023, arXiv 2301.12900) says which channels go
together; the importance is the first-order Taylor one (Molchanov et al.: Importance Estimation for Neural Network
Pruning, CVPR 2019).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from storage.digest import hash_seed
from storage.errors import SpecError
from storage.objects import Ref
from tasks.checkpoints import newest_checkpoint
from tasks.device import device_alone, full_precision
from tasks.networks.architecture import Architecture
from tasks.networks.fitting import Data, Fit, label_loss
from tasks.networks.mobilenet import (
    Setting,
    finished_output,
    fit_resumably,
    show_training,
    training_data,
    training_label,
)
from tasks.networks.trained import TrainedNetwork
from tasks.recipe import Output, StepRun, step
from tasks.spec.detectors import MagnitudePruned, StructurePruned, Training
from tasks.threads import limit_threads

if TYPE_CHECKING:
    import torch

    from tasks.networks.mobilenet_network import MobileNet

# Kernels for int8 and for SIMD work on 8 channels at once; no layer becomes narrower than that.
CHANNELS = 8
# Wide layers by 16: a depthwise int8 kernel takes longer for 24 channels than for 32.
WIDE, WIDE_CHANNELS = 64, 16
# How far below their target the multiply-accumulates may end.
TOLERANCE = 0.03
# Pictures whose gradients decide which channels matter, and how many of them share one gradient.
IMPORTANCE_PICTURES, IMPORTANCE_BATCH = 128, 8


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that can only be removed together: the layers whose outputs they are, and their importance (C,)."""

    layers: tuple[str, ...]
    importance: npt.NDArray[np.float64]


def sparsity_at(step: int, steps: int, first: float, last: float) -> float:
    """The share of zeros after `step` of `steps`: it rises from `first` to `last`, ever more slowly (eq. 1, cubic)."""
    return last + (first - last) * (1 - min(step, steps) / steps) ** 3


def prunable_names(network: MobileNet) -> tuple[str, ...]:
    """The weights that magnitude pruning thins out: of convolutions and linear layers, but for depthwise ones.

    A depthwise kernel has nine weights per channel and almost none of the network's; tfmot leaves them alone too.
    """
    from torch import nn

    return tuple(
        f"{name}.weight"
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)
    )


def apply_magnitude(network: MobileNet, sparsity: float) -> None:
    """Set the share `sparsity` of each prunable weight tensor to zero, in place: its smallest absolute values."""
    import torch

    with torch.no_grad():
        for name in prunable_names(network):
            weight = network.get_parameter(name)
            zeros = weight.numel() - round(weight.numel() * (1 - sparsity))
            if zeros:
                sizes = weight.abs()
                weight.masked_fill_(sizes <= sizes.flatten().kthvalue(zeros).values, 0)


def size_of_zeros(network: MobileNet) -> dict[str, Any]:
    """What the zeros of a network save: nothing in the file as it is (`bytes`), something where it is compressed.

    `sparsity` is the share of zeros among the prunable weights, `bytes_compressed` the size of all float32 weights
    after zlib at level 6.
    """
    state = {name: tensor.detach().cpu().numpy() for name, tensor in network.state_dict().items()}
    weights = [state[name] for name in prunable_names(network)]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    data = b"".join(np.ascontiguousarray(tensor, dtype=np.float32).tobytes() for tensor in state.values())
    return {
        "zeros": zeros,
        "sparsity": zeros / sum(weight.size for weight in weights),
        "bytes": len(data),
        "bytes_compressed": len(zlib.compress(data, 6)),
    }


def macs_per_channel(shape: Architecture) -> dict[str, int]:
    """What one output channel of each convolution costs, in that convolution and in the layer that reads it.

    The channels of a depthwise convolution are those of the layer before it; that layer is not charged for them.
    """
    costs = {}
    places = shape.convolutions
    for place, following in zip(places, (*places[1:], None), strict=True):
        own = place.side**2 * place.kernel**2 * place.inputs // place.groups
        if following is None:
            own += (*shape.hidden, shape.classes)[0]
        elif following.groups == 1:
            own += following.side**2 * following.kernel**2 * following.outputs
        costs[place.name] = own
    return costs


def resized(shape: Architecture, outputs: Mapping[str, int]) -> Architecture:
    """The architecture with other widths: output channels by the convolution's name; unnamed ones stay."""
    widths = {place.name: outputs.get(place.name, place.outputs) for place in shape.convolutions}
    blocks = tuple(
        block.model_copy(
            update={
                "expanded": widths[f"stages.{stage}.depthwise"],
                "channels": widths[f"stages.{stage}.projection"],
            }
        )
        for stage, block in enumerate(shape.blocks, start=1)
    )
    last = widths[f"stages.{len(shape.blocks) + 1}.last"]
    return shape.model_copy(update={"stem": widths["stages.0.stem"], "blocks": blocks, "last": last})


def shape_of(tensors: Mapping[str, Any], like: Architecture) -> Architecture:
    """The architecture of a network made of `like` by removing channels, from its tensors by name."""
    names = [place.name for place in like.convolutions]
    return resized(like, {name: int(tensors[f"{name}.convolution.weight"].shape[0]) for name in names})


def choose_widths(shape: Architecture, groups: Sequence[ChannelGroup], macs: int) -> list[int]:
    """How many channels each group keeps, for at most `macs` multiply-accumulates and at most 3 % fewer.

    Again and again the group loses channels whose next ones are the least important for what they save. None keeps a
    smaller share of its channels than the network of its operations: importances of different layers are not
    comparable enough to close one. Widths become multiples of 8, wide ones of 16. Only where the target cannot be met
    so (in narrow networks) the first rule gives way, then the second.

    Raises:
        SpecError: a target that cannot be met, since no group may have fewer than 8 channels.
    """
    orders = [np.sort(group.importance) for group in groups]
    removed = [0] * len(groups)
    rules = iter(
        [
            (WIDE_CHANNELS, CHANNELS, macs / shape.macs),
            *((multiple, multiple, 0.0) for multiple in (CHANNELS, 4, 2, 1)),
        ]
    )
    of_wide, of_narrow, lowest_share = next(rules)
    while shape.macs > macs:
        costs = macs_per_channel(shape)
        best: tuple[float, int, int] | None = None
        for index, group in enumerate(groups):
            width = len(orders[index]) - removed[index]
            multiple = of_wide if len(orders[index]) >= WIDE else of_narrow
            count = width % multiple or multiple
            saved = count * sum(costs[name] for name in group.layers)
            lowest = max(CHANNELS, lowest_share * len(orders[index]))
            if width - count < lowest or shape.macs - saved < macs * (1 - TOLERANCE):
                continue
            loss = float(orders[index][removed[index] : removed[index] + count].sum()) / saved
            if best is None or loss < best[0]:
                best = (loss, index, count)
        if best is not None:
            _, index, count = best
            removed[index] += count
            width = len(orders[index]) - removed[index]
            shape = resized(shape, dict.fromkeys(groups[index].layers, width))
            continue
        try:
            of_wide, of_narrow, lowest_share = next(rules)
        except StopIteration:
            raise SpecError(
                f"structured pruning cannot reach {macs} multiply-accumulates: {shape.macs} are left where no layer "
                f"has fewer than {CHANNELS} channels; raise macs, or start from a wider network"
            ) from None
    return [len(order) - count for order, count in zip(orders, removed, strict=True)]


def channel_groups(network: MobileNet, data: Data, training: Training, seed: int, device: str) -> list[ChannelGroup]:
    """The groups of removable channels, those of hidden layers and classes excepted, and what they are worth.

    A channel's importance is how much the loss of train pictures would change without it, to first order:
    |gradient x weights|, averaged over the layers that make it or read it (depthwise ones excepted) and over batches of
    `IMPORTANCE_PICTURES` pictures. Groups and their layers are in the network's own order, and sums are float64 in that
    order, whatever order the library finds them in: of equals the first one goes.
    """
    graph = dependency_graph(network, device)
    is_output = graph.is_out_channel_pruning_fn
    names = {module: name for name, module in network.named_modules()}
    place = {name: number for number, name in enumerate(names.values())}
    tied: list[tuple[tuple[str, ...], list[tuple[str, int]]]] = []
    for group in graph.get_all_groups(ignored_layers=list(network.head.modules())):
        # (layer, which axis of its weights the channels are); what has no weights follows its layer.
        found = sorted(
            {(names[dep.layer], 0 if is_output(dep.handler) else 1) for dep, _ in group if dep.layer in names},
            key=lambda item: (place[item[0]], item[1]),
        )
        made = tuple(name.removesuffix(".convolution") for name, axis in found if axis == 0)
        tied.append((made, [(name, axis) for name, axis in found if not _is_depthwise(network.get_submodule(name))]))
    tied.sort(key=lambda group: place[group[1][0][0]])

    loss = label_loss(data.train, training.balanced, device)
    totals: list[npt.NDArray[np.float64]] = [np.zeros(1) for _ in tied]
    batches = list(_importance_batches(data, seed))
    for rows, x in batches:
        network.zero_grad()
        loss(network(x.to(device)), rows.to(device)).backward()
        totals = [total + _importance(network, layers) for total, (_, layers) in zip(totals, tied, strict=True)]
    network.zero_grad()
    return [ChannelGroup(made, total / len(batches)) for (made, _), total in zip(tied, totals, strict=True)]


def _is_depthwise(layer: Any) -> bool:
    return getattr(layer, "groups", 1) > 1


def _importance(network: MobileNet, layers: Sequence[tuple[str, int]]) -> npt.NDArray[np.float64]:
    """|sum of gradient x weights| of each channel (C,), averaged over layers; `layers` say which axis it is of them."""
    each = []
    for name, axis in layers:
        weight = network.get_parameter(f"{name}.weight")
        assert weight.grad is not None
        change = (weight.detach().double() * weight.grad.double()).cpu().numpy()
        # In one memory order, whatever that of the weights is.
        change = np.ascontiguousarray(np.moveaxis(change, axis, 0))
        each.append(np.abs(change.reshape(len(change), -1).sum(axis=1)))
    mean: npt.NDArray[np.float64] = np.mean(each, axis=0)
    return mean


def dependency_graph(network: MobileNet, device: str) -> Any:
    """torch-pruning's graph of which channels go together."""
    import torch
    from torch_pruning import DependencyGraph

    side = network.shape.side
    return DependencyGraph().build_dependency(network, torch.zeros(1, 3, side, side, device=device))


def remove_channels(network: MobileNet, groups: Sequence[ChannelGroup], widths: Sequence[int]) -> MobileNet:
    """The network with the `widths` most important channels of each group; `network` itself is used up."""
    from tasks.networks.mobilenet_network import load_network, network_tensors

    device = str(next(network.parameters()).device)
    graph = dependency_graph(network, device)
    for group, width in zip(groups, widths, strict=True):
        layer = network.get_submodule(f"{group.layers[0]}.convolution")
        order = np.argsort(group.importance, kind="stable")
        removed = sorted(int(channel) for channel in order[: len(order) - width])
        if removed:
            graph.get_pruning_group(layer, graph.get_pruner_of_module(layer).prune_out_channels, removed).prune()
    tensors = network_tensors(network)
    return load_network(shape_of(tensors, network.shape), tensors, device)


def step_targets(macs: int, share: float, steps: int) -> list[int]:
    """The multiply-accumulates after each pruning step: each leaves the same share of what the one before it left."""
    return [int(macs * share ** (number / steps)) for number in range(1, steps + 1)]


def load_origin(run: StepRun, network: Ref, setting: Setting) -> TrainedNetwork:
    """The network that is pruned.

    Raises:
        SpecError: it has other classes than the setting.
    """
    origin = TrainedNetwork.load(run.store, network)
    if origin.classes != setting.classes:
        raise SpecError(
            f"{network.uri}: expected a network of the classes {list(setting.classes)}, got {list(origin.classes)}; "
            "train it on this experiment's sources"
        )
    return origin


@step(
    "compress/magnitude",
    version=1,
    label=training_label,
    libraries=("torch", "numpy", "pillow", "simplejpeg"),
    pool="gpu",
)
def prune_magnitude(
    run: StepRun, *, spec: MagnitudePruned, setting: Setting, images: tuple[Ref, ...], network: Ref
) -> Output:
    """Train a network on, all layers of it, while ever more of its small weights are set to zero.

    The last epoch is kept whatever its validation loss: the schedule reaches its last sparsity with the last step, so
    that every earlier epoch is less sparse than was asked for.

    Raises:
        SpecError: the network has other classes than the setting; a class without train pictures, or no fake or
            photograph in val.
        TrainingFailed: a loss that is not finite.
        DeviceLost: the GPU failed; what it finished is in the checkpoints.
    """
    from tasks.networks.mobilenet_network import load_network

    limit_threads()
    origin = load_origin(run, network, setting)
    data = training_data(run, images, setting, spec.training, origin.shape.side)
    model = load_network(origin.shape, origin.tensors)
    dense = size_of_zeros(model)

    def thin_out(model: MobileNet, step: int, steps: int) -> None:
        apply_magnitude(model, sparsity_at(step, steps, spec.first_sparsity, spec.last_sparsity))

    with device_alone(setting.device), full_precision(setting.device):
        model.to(setting.device)
        fitted = fit_resumably(
            run,
            model,
            data,
            spec.training,
            seed=setting.seed,
            after_step=thin_out,
            keep_last=True,
            device=setting.device,
        )
        sparse = size_of_zeros(model)
        facts = {
            "sparsity": sparse["sparsity"],
            "zeros": sparse["zeros"],
            "bytes": sparse["bytes"],
            "bytes_compressed": {"before": dense["bytes_compressed"], "after": sparse["bytes_compressed"]},
            "macs": {"before": origin.shape.macs, "after": model.shape.macs},
        }
        return _finished(run, model, fitted, data, setting, spec, network, origin, facts)


@step(
    "compress/structure",
    version=2,
    label=training_label,
    libraries=("torch", "torch-pruning", "numpy", "pillow", "simplejpeg"),
    pool="gpu",
)
def prune_structure(
    run: StepRun, *, spec: StructurePruned, setting: Setting, images: tuple[Ref, ...], network: Ref
) -> Output:
    """Remove channels of a network step by step, training all layers of what is left after each step.

    A resumed run takes the channels of a step that had begun its training from that step's checkpoint, and decides
    those of later steps from the same weights as an uninterrupted one.

    Raises:
        SpecError: the network has other classes than the setting; a class without train pictures, or no fake or
            photograph in val; a target that cannot be reached.
        TrainingFailed: a loss that is not finite.
        DeviceLost: the GPU failed; what it finished is in the checkpoints.
    """
    limit_threads()
    origin = load_origin(run, network, setting)
    data = training_data(run, images, setting, spec.training, origin.shape.side)
    with device_alone(setting.device), full_precision(setting.device):
        return _narrowed(run, spec, setting, data, network, origin)


def _narrowed(
    run: StepRun, spec: StructurePruned, setting: Setting, data: Data, network: Ref, origin: TrainedNetwork
) -> Output:
    """`prune_structure`, on its device."""
    from tasks.networks.mobilenet_network import load_network

    model = load_network(origin.shape, origin.tensors, setting.device)
    sizes = []
    fitted: Fit | None = None
    for number, target in enumerate(step_targets(origin.shape.macs, spec.macs, spec.steps), start=1):
        folder = f"step-{number}"
        begun = newest_checkpoint(run.store, f"{run.checkpoints}/{folder}")
        if begun is not None:
            tensors = begun.below("network")
            model = load_network(shape_of(tensors, model.shape), tensors, setting.device)
        else:
            groups = channel_groups(model, data, spec.training, setting.seed, setting.device)
            model = remove_channels(model, groups, choose_widths(model.shape, groups, target))
        sizes.append({"target": target, "macs": model.shape.macs, "parameters": model.shape.parameters})
        epochs = spec.training.epochs if number == spec.steps else spec.epochs_between
        if epochs:
            training = spec.training.model_copy(update={"epochs": epochs})
            fitted = fit_resumably(run, model, data, training, folder, seed=setting.seed, device=setting.device)
    assert fitted is not None  # the last step trains for at least one epoch
    facts = {
        "macs": {"before": origin.shape.macs, "after": model.shape.macs},
        "parameters": {"before": origin.shape.parameters, "after": model.shape.parameters},
        "sparsity": size_of_zeros(model)["sparsity"],
        "steps": sizes,
    }
    return _finished(run, model, fitted, data, setting, spec, network, origin, facts)


def _importance_batches(data: Data, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Rows int64 (B,) among the train pictures, drawn by seed, and their inputs (B, 3, side, side)."""
    import torch

    from tasks.networks.mobilenet_network import prepare_picture

    random = torch.Generator().manual_seed(hash_seed("importance", seed))
    drawn = torch.randperm(len(data.train), generator=random)[:IMPORTANCE_PICTURES]
    for rows in drawn.split(IMPORTANCE_BATCH):
        pictures = [data.train.pixels(row, data.views[0]) for row in rows.tolist()]
        yield rows, torch.stack([prepare_picture(pixels, data.side) for pixels in pictures])


def _finished(
    run: StepRun,
    model: MobileNet,
    fitted: Fit,
    data: Data,
    setting: Setting,
    spec: MagnitudePruned | StructurePruned,
    network: Ref,
    origin: TrainedNetwork,
    facts: Mapping[str, Any],
) -> Output:
    about = {
        "spec": spec.model_dump(mode="json"),
        "of": {"name": spec.of, "digest": network.digest},
        "weights": origin.about.get("weights"),
        **facts,
    }
    made = finished_output(model, fitted, data, setting, spec.training, about)
    show_training(run, spec.name, made)
    return Output(made.parts, {**made.notes, **facts})
