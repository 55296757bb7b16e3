"""Pruning: the schedule, which weights and channels go, that the rest still computes the same, and the two steps."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from storage.errors import SpecError
from storage.local import LocalStore
from storage.objects import Ref, commit, notes_of, read_part
from storage.weights import CARD, WEIGHTS
from tasks.checkpoints import write_checkpoint
from tasks.networks import fitting, mobilenet
from tasks.networks.architecture import Architecture, architecture
from tasks.networks.familiarity import fit_familiarity
from tasks.networks.mobilenet_network import MobileNet, initialise, load_network, network_tensors, prepare_picture
from tasks.networks.pruning import (
    CHANNELS,
    TOLERANCE,
    ChannelGroup,
    apply_magnitude,
    channel_groups,
    choose_widths,
    macs_per_channel,
    prunable_names,
    prune_magnitude,
    prune_structure,
    remove_channels,
    resized,
    shape_of,
    size_of_zeros,
    sparsity_at,
    step_targets,
)
from tasks.networks.trained import TrainedNetwork
from tasks.spec.detectors import MagnitudePruned, StructurePruned, Training
from tests.unit.network_pictures import CLASSES, SETTING, VIEWS, data, shards

SHAPE = architecture(0.35, "v2", 3, 32)
QUICK = Training(epochs=2, batch=8, learning_rate=1e-4)
MAGNITUDE = MagnitudePruned(name="thin", of="dense", training=QUICK)
STRUCTURE = StructurePruned(name="half", of="dense", macs=0.6, steps=2, training=QUICK)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def random_network(shape: Architecture = SHAPE, seed: int = 0) -> MobileNet:
    """Random weights, and biases that are not zero, so that a channel that is lost shows."""
    network = MobileNet(shape)
    initialise(network, seed)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.1, generator=random)
    return network.eval()


def origin(store: LocalStore, classes: tuple[str, ...] = CLASSES) -> Ref:
    """A network in the store as a training leaves it."""
    random = np.random.default_rng(0)
    familiarity = fit_familiarity(random.normal(size=(30, SHAPE.last)), np.arange(30) % len(classes), len(classes))
    network = TrainedNetwork(
        SHAPE, network_tensors(random_network()), classes, 1.0, familiarity, {"weights": "random:0"}
    )
    return commit(store, "objects/dense", step="train", digest="d" * 64, recipe={}, parts=network.parts())


def compute(store: LocalStore, pruning: Any, spec: Any) -> Ref:
    ref, _ = pruning.compute(store, spec=spec, setting=SETTING, images=shards(store), network=origin(store))
    assert isinstance(ref, Ref)
    return ref


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[LocalStore, dict[str, Ref]]:
    """Both prunings, uninterrupted."""
    store = LocalStore(tmp_path_factory.mktemp("store"))
    prunings = ((prune_magnitude, MAGNITUDE), (prune_structure, STRUCTURE))
    return store, {spec.name: compute(store, pruning, spec) for pruning, spec in prunings}


def groups_of(network: MobileNet) -> list[ChannelGroup]:
    return channel_groups(network, data(), QUICK, 0, "cpu")


def inputs(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, SHAPE.side, SHAPE.side, generator=torch.Generator().manual_seed(1))


def interrupted(monkeypatch: pytest.MonkeyPatch, writes: int) -> None:
    """A worker dies right after its checkpoint number `writes`."""
    written = []

    def write(*arguments: Any) -> None:
        write_checkpoint(*arguments)
        written.append(arguments)
        if len(written) == writes:
            raise KeyboardInterrupt

    monkeypatch.setattr(mobilenet, "write_checkpoint", write)


def count_epochs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    run_epoch = fitting._Run.run_epoch
    epochs: list[int] = []

    def counted(self: Any) -> None:
        epochs.append(len(self.history) + 1)
        run_epoch(self)

    monkeypatch.setattr(fitting._Run, "run_epoch", counted)
    return epochs


def test_sparsity_rises_cubically_from_the_first_to_the_last() -> None:
    got = [sparsity_at(step, 4, 0.1, 0.4) for step in range(6)]
    assert got == pytest.approx([0.1, 0.2734375, 0.3625, 0.3953125, 0.4, 0.4])


def test_the_smallest_weights_of_each_layer_become_zero() -> None:
    network = random_network()
    before = network_tensors(network)
    apply_magnitude(network, 0.4)
    after = network_tensors(network)
    for name in prunable_names(network):
        zero = after[name] == 0
        assert zero.sum() == zero.size - round(zero.size * 0.6), name
        assert np.abs(before[name][zero]).max() <= np.abs(before[name][~zero]).min(), name
        assert np.array_equal(after[name][~zero], before[name][~zero]), name


def test_biases_and_depthwise_kernels_stay() -> None:
    network = random_network()
    before = network_tensors(network)
    apply_magnitude(network, 0.9)
    untouched = set(before) - set(prunable_names(network))
    assert {name for name in before if name.endswith(".bias") or ".depthwise." in name} == untouched
    assert all(np.array_equal(before[name], network_tensors(network)[name]) for name in untouched)


def test_no_sparsity_leaves_a_network_as_it_is() -> None:
    network = random_network()
    before = network_tensors(network)
    apply_magnitude(network, 0.0)
    assert all(np.array_equal(tensor, before[name]) for name, tensor in network_tensors(network).items())


def test_zeros_save_bytes_only_when_they_are_compressed() -> None:
    network = random_network()
    dense = size_of_zeros(network)
    apply_magnitude(network, 0.5)
    sparse = size_of_zeros(network)
    assert dense["zeros"] == 0
    assert sparse["sparsity"] == pytest.approx(0.5, abs=0.001)
    assert dense["bytes"] == sparse["bytes"] == 4 * SHAPE.parameters
    assert sparse["bytes_compressed"] < 0.75 * dense["bytes_compressed"]


def test_every_convolutions_outputs_belong_to_one_group_and_residual_ones_together() -> None:
    groups = groups_of(random_network())
    layers = [layer for group in groups for layer in group.layers]
    assert sorted(layers) == sorted(place.name for place in SHAPE.convolutions)
    tied = {frozenset(group.layers) for group in groups}
    assert {f"stages.{stage}.projection" for stage in (4, 5, 6)} in tied
    assert {f"stages.{stage}.projection" for stage in (7, 8, 9, 10)} in tied
    assert {"stages.5.expansion", "stages.5.depthwise"} in tied
    assert {"stages.0.stem", "stages.1.depthwise"} in tied


def test_a_channel_costs_what_the_architecture_says() -> None:
    costs = macs_per_channel(SHAPE)
    for group in groups_of(random_network()):
        thinner = resized(SHAPE, dict.fromkeys(group.layers, len(group.importance) - 1))
        assert SHAPE.macs - thinner.macs == sum(costs[name] for name in group.layers), group.layers


def widths_for(shape: Architecture, share: float) -> tuple[list[int], list[int], Architecture]:
    """Widths before and after pruning to a share of operations by random importances, and the architecture then."""
    random = np.random.default_rng(0)
    groups = [
        ChannelGroup(group.layers, random.random(len(group.importance)) * random.random())
        for group in groups_of_shape(shape)
    ]
    widths = choose_widths(shape, groups, int(shape.macs * share))
    outputs = {name: kept for group, kept in zip(groups, widths, strict=True) for name in group.layers}
    return [len(group.importance) for group in groups], widths, resized(shape, outputs)


@pytest.mark.parametrize("share", [0.79, 0.5, 0.3])
def test_the_target_is_met_from_below_with_multiples_of_eight_and_no_layer_closed(share: float) -> None:
    shape = architecture(1.0, "v3", 3, 64)
    before, after, pruned = widths_for(shape, share)
    assert (1 - TOLERANCE) * share * shape.macs - 1 <= pruned.macs <= share * shape.macs
    assert all(width % CHANNELS == 0 for width in after)
    assert all(kept >= min(had, share * had - 0.01) for had, kept in zip(before, after, strict=True))


@pytest.mark.parametrize("width", [0.1, 0.35])
def test_a_narrow_network_meets_its_target_too(width: float) -> None:
    shape = architecture(width, "v3", 3, 64)
    _, after, pruned = widths_for(shape, 0.7)
    assert (1 - TOLERANCE) * 0.7 * shape.macs - 1 <= pruned.macs <= 0.7 * shape.macs
    assert min(after) >= CHANNELS


def groups_of_shape(shape: Architecture) -> list[ChannelGroup]:
    return channel_groups(random_network(shape), data(train=(2, 2, 2)), QUICK, 0, "cpu")


def test_the_least_important_channels_go_and_a_group_of_important_ones_stays() -> None:
    shape = architecture(1.0, "v3", 3, 32)
    groups = groups_of_shape(shape)
    precious = groups[2]
    groups[2] = ChannelGroup(precious.layers, precious.importance + 1e6)
    widths = choose_widths(shape, groups, int(shape.macs * 0.6))
    assert widths[2] == len(precious.importance)
    assert sum(widths) < sum(len(group.importance) for group in groups)


def test_a_target_out_of_reach_is_refused() -> None:
    narrow = resized(SHAPE, {place.name: 8 for place in SHAPE.convolutions})
    with pytest.raises(SpecError, match=r"cannot reach 1000 multiply-accumulates: .* 8 channels; raise macs"):
        choose_widths(narrow, groups_of_shape(narrow), 1000)


def test_a_pruned_network_has_smaller_tensors_and_computes_what_torch_pruning_left() -> None:
    network = random_network()
    groups = groups_of(network)
    widths = choose_widths(SHAPE, groups, int(SHAPE.macs * 0.5))
    pruned = remove_channels(network, groups, widths)
    shapes = {name: tuple(tensor.shape) for name, tensor in network_tensors(pruned).items()}
    for group, width in zip(groups, widths, strict=True):
        for name in group.layers:
            assert shapes[f"{name}.convolution.weight"][0] == shapes[f"{name}.convolution.bias"][0] == width
    assert pruned.shape.parameters == sum(np.prod(shape) for shape in shapes.values()) < SHAPE.parameters
    assert pruned.shape.macs <= 0.5 * SHAPE.macs
    assert (pruned.shape.hidden, pruned.shape.classes) == (SHAPE.hidden, SHAPE.classes)
    with torch.no_grad():
        assert torch.allclose(pruned(inputs()), network(inputs()), atol=1e-5)


def test_removing_channels_without_influence_changes_nothing() -> None:
    """Channels that are zero in all layers of their group, residual ones included, are removed before any other."""
    network = random_network()
    random = np.random.default_rng(0)
    widths = []
    groups = groups_of(network)
    train = data().train
    inputs = torch.stack([prepare_picture(train.pixels(row, VIEWS[0]), SHAPE.side) for row in range(len(train))])
    with torch.no_grad():
        for group in groups:
            count = len(group.importance)
            dead = random.permutation(count)[: count // 3]
            widths.append(count - len(dead))
            for name in group.layers:
                convolution = network.get_submodule(f"{name}.convolution")
                convolution.weight[dead] = 0  # type: ignore[operator]
                convolution.bias[dead] = 0  # type: ignore[operator]
        expected = network(inputs)
    pruned = remove_channels(network, groups_of(network), widths)
    assert pruned.shape.macs < 0.6 * SHAPE.macs
    with torch.no_grad():
        assert torch.allclose(pruned(inputs), expected, atol=1e-5)


def test_importance_is_drawn_by_seed_and_repeats() -> None:
    one, again = (channel_groups(random_network(), data(), QUICK, 3, "cpu") for _ in range(2))
    assert all(np.array_equal(a.importance, b.importance) for a, b in zip(one, again, strict=True))


def test_channels_are_weighed_the_same_in_whatever_order_the_library_finds_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from torch_pruning import DependencyGraph

    straight = groups_of(random_network())
    assert [group.layers[0] for group in straight] == sorted((group.layers[0] for group in straight), key=_place)
    found = DependencyGraph.get_all_groups
    shuffle = random.Random(0).shuffle

    def other_order(self: Any, *arguments: Any, **options: Any) -> Any:
        groups = list(found(self, *arguments, **options))
        shuffle(groups)
        for group in groups:
            shuffle(group.items)
        return groups

    monkeypatch.setattr(DependencyGraph, "get_all_groups", other_order)
    for shuffled in (groups_of(random_network()) for _ in range(3)):
        assert [group.layers for group in shuffled] == [group.layers for group in straight]
        assert all(np.array_equal(a.importance, b.importance) for a, b in zip(shuffled, straight, strict=True))


def _place(layer: str) -> int:
    return [place.name for place in SHAPE.convolutions].index(layer)


def test_importance_is_gradient_times_weights_averaged_over_the_layers_of_a_channel() -> None:
    """Of the stem's channels, by hand: the stem makes them, the first projection reads them behind a depthwise one."""
    network = random_network()
    one_batch = data(train=(3, 3, 2))
    groups = channel_groups(network, one_batch, QUICK, 0, "cpu")
    stem = next(group for group in groups if "stages.0.stem" in group.layers)
    rows = torch.arange(len(one_batch.train))
    x = torch.stack([prepare_picture(one_batch.train.pixels(row, VIEWS[0]), SHAPE.side) for row in rows.tolist()])
    fitting.label_loss(one_batch.train, QUICK.balanced, "cpu")(network(x), rows).backward()
    makes, reads = (
        network.get_submodule(f"{name}.convolution").weight for name in ("stages.0.stem", "stages.1.projection")
    )
    expected = (
        (makes * makes.grad).sum((1, 2, 3)).abs() + (reads * reads.grad).sum((0, 2, 3)).abs()  # type: ignore
    ) / 2
    assert stem.importance == pytest.approx(expected.detach().numpy(), rel=1e-3, abs=1e-7)


def test_the_architecture_of_a_pruned_network_follows_from_its_tensors() -> None:
    network = random_network()
    assert shape_of(network_tensors(network), SHAPE) == SHAPE
    groups = groups_of(network)
    pruned = remove_channels(network, groups, choose_widths(SHAPE, groups, int(SHAPE.macs * 0.7)))
    assert shape_of(network_tensors(pruned), SHAPE) == pruned.shape != SHAPE
    load_network(pruned.shape, network_tensors(pruned))


def test_each_step_leaves_the_same_share() -> None:
    assert step_targets(1000, 0.125, 3) == [500, 250, 125]


def test_magnitude_pruning_ends_with_the_last_sparsity(finished: tuple[LocalStore, dict[str, Ref]]) -> None:
    store, ref = finished[0], finished[1]["thin"]
    made = TrainedNetwork.load(store, ref)
    network = load_network(made.shape, made.tensors)
    assert made.shape == SHAPE
    for name in prunable_names(network):
        weight = made.tensors[name]
        assert (weight == 0).mean() == pytest.approx(0.4, abs=0.5 / weight.size), name
    notes = notes_of(store, ref)
    assert notes["sparsity"] == made.about["sparsity"] == pytest.approx(0.4, abs=0.001)
    assert notes["bytes_compressed"]["after"] < notes["bytes_compressed"]["before"]
    assert notes["kept_epoch"] == notes["epochs"] == 2
    assert made.about["of"] == {"name": "dense", "digest": "d" * 64}
    assert made.about["macs"] == {"before": SHAPE.macs, "after": SHAPE.macs}
    assert made.about["weights"] == "random:0"
    assert ref.uri.startswith("objects/compress/magnitude/thin/real+gan+stable/r0-s0/")


def test_structured_pruning_ends_with_fewer_operations_and_a_network_of_its_own(
    finished: tuple[LocalStore, dict[str, Ref]],
) -> None:
    store, ref = finished[0], finished[1]["half"]
    made = TrainedNetwork.load(store, ref)
    target = 0.6 * SHAPE.macs
    assert (1 - TOLERANCE) * target - 1 <= made.shape.macs <= target
    assert load_network(made.shape, made.tensors)(inputs()).shape == (2, 3)
    assert made.about["macs"] == {"before": SHAPE.macs, "after": made.shape.macs}
    assert made.about["parameters"]["after"] == made.shape.parameters < SHAPE.parameters
    assert [one["target"] for one in made.about["steps"]] == step_targets(SHAPE.macs, 0.6, 2)
    assert made.about["steps"][-1]["macs"] == notes_of(store, ref)["macs"]["after"] == made.shape.macs
    assert made.about["spec"] == STRUCTURE.model_dump(mode="json")
    assert ref.uri.startswith("objects/compress/structure/half/real+gan+stable/r0-s0/")


def test_without_epochs_between_only_the_last_step_trains(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    epochs = count_epochs(monkeypatch)
    spec = STRUCTURE.model_copy(update={"epochs_between": 0})
    ref = compute(store, prune_structure, spec)
    assert epochs == [1, 2]
    assert len(TrainedNetwork.load(store, ref).about["steps"]) == 2


@pytest.mark.parametrize(
    ("pruning", "spec", "writes", "left"),
    [
        (prune_magnitude, MAGNITUDE, 1, [2]),
        (prune_magnitude, MAGNITUDE, 2, []),
        (prune_structure, STRUCTURE, 1, [1, 2]),
        (prune_structure, STRUCTURE, 2, [2]),
        (prune_structure, STRUCTURE, 3, []),
    ],
)
def test_a_resumed_pruning_is_the_uninterrupted_one(
    store: LocalStore,
    finished: tuple[LocalStore, dict[str, Ref]],
    monkeypatch: pytest.MonkeyPatch,
    pruning: Any,
    spec: Any,
    writes: int,
    left: list[int],
) -> None:
    with monkeypatch.context() as patch:
        interrupted(patch, writes)
        with pytest.raises(KeyboardInterrupt):
            compute(store, pruning, spec)
    epochs = count_epochs(monkeypatch)
    ref = compute(store, pruning, spec)
    assert epochs == left
    straight, uninterrupted = finished[0], finished[1][spec.name]
    assert read_part(store, ref, WEIGHTS) == read_part(straight, uninterrupted, WEIGHTS)
    assert read_part(store, ref, CARD) == read_part(straight, uninterrupted, CARD)


@pytest.mark.parametrize(("pruning", "spec"), [(prune_magnitude, MAGNITUDE), (prune_structure, STRUCTURE)])
def test_a_network_of_other_classes_is_refused(store: LocalStore, pruning: Any, spec: Any) -> None:
    network = origin(store, ("real", "stable", "gan"))
    with pytest.raises(SpecError, match=r"\['real', 'gan', 'stable'\], got \['real', 'stable', 'gan'\]"):
        pruning.compute(store, spec=spec, setting=SETTING, images=(), network=network)
