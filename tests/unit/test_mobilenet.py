"""MobileNetV2: its architecture and weights against torchvision's, its pictures, its calibration, and the step."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from scipy.special import log_softmax

from storage.errors import SpecError, TrainingFailed
from storage.local import LocalStore
from storage.objects import commit, notes_of, read_manifest, read_part, read_table
from storage.weights import weight_parts
from tasks.checkpoints import write_checkpoint
from tasks.data.views import make_views
from tasks.device import DeviceLost
from tasks.networks import mobilenet
from tasks.networks.architecture import Architecture, architecture, unlocked_names
from tasks.networks.fitting import outputs
from tasks.networks.mobilenet import (
    confusion_counts,
    confusion_picture,
    fit_temperature,
    learning_curves,
    start_network,
    train_mobilenet,
    training_data,
)
from tasks.networks.mobilenet_network import (
    DEVIATION,
    MEAN,
    MobileNet,
    folded,
    folded_torchvision,
    initialise,
    load_network,
    network_tensors,
    prepare_picture,
)
from tasks.networks.trained import TrainedNetwork
from tasks.networks.training_pictures import class_of, load_pictures
from tasks.recipe import StepRun
from tasks.spec.detectors import FineTuned, Training
from tasks.spec.splits import Folds
from tasks.spec.views import View
from tasks.torch_vision_schema import define_missing_torchvision_schemas
from tests.unit.network_pictures import CANONICAL, CLASSES, SETTING, VIEWS, row, shard, shards

QUICK = Training(epochs=2, batch=8)
SMALL = FineTuned(name="dense", width=0.1, side=32, head="v3", unlocked="all", weights="random:0", training=QUICK)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def torchvision_network(width: float, classes: int = 3) -> torch.nn.Module:
    """torchvision's own, in eval mode, with random weights and batch norm statistics as a training leaves them."""
    define_missing_torchvision_schemas()
    from torchvision.models import mobilenet_v2

    torch.manual_seed(0)
    network = mobilenet_v2(width_mult=width, num_classes=classes)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.3)
            module.running_mean.normal_(0, 0.3)  # type: ignore[union-attr]
            module.running_var.uniform_(0.2, 2.0)  # type: ignore[union-attr]
    evaluated: torch.nn.Module = network.eval()
    return evaluated


def arrays(network: torch.nn.Module) -> dict[str, npt.NDArray[Any]]:
    return {name: tensor.numpy() for name, tensor in network.state_dict().items()}


def with_torchvisions_weights(original: torch.nn.Module, shape: Architecture) -> MobileNet:
    tensors = arrays(original)
    head = {f"head.0.{part}": tensors[f"classifier.1.{part}"] for part in ("weight", "bias")}
    return load_network(shape, folded_torchvision(tensors, shape) | head)


@pytest.mark.parametrize("width", [1.0, 0.5, 0.35])
@pytest.mark.parametrize("side", [64, 75])
def test_folded_weights_give_torchvisions_logits(width: float, side: int) -> None:
    original = torchvision_network(width)
    ours = with_torchvisions_weights(original, architecture(width, "v3", 3, side))
    pictures = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        features = original.features(pictures).mean((2, 3))  # type: ignore[operator]
        torch.testing.assert_close(ours.pooled(pictures), features, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours(pictures), original(pictures), rtol=1e-4, atol=1e-4)


def counted_by_hooks(network: torch.nn.Module, side: int) -> tuple[int, int]:
    """Multiply-accumulates and parameters (one bias per convolution instead of its batch norm) of one picture."""
    macs, parameters = [0], [0]

    def count(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
        weight: Any = module.weight
        macs[0] += weight.numel() * (output[0, 0].numel() if output.ndim == 4 else 1)
        parameters[0] += weight.numel() + len(weight)

    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(count)
    with torch.inference_mode():
        network(torch.zeros(1, 3, side, side))
    return macs[0], parameters[0]


@pytest.mark.parametrize(("width", "side"), [(1.0, 224), (0.5, 96), (0.35, 75), (1.4, 64), (0.1, 32)])
def test_operations_and_parameters_are_those_that_torch_counts(width: float, side: int) -> None:
    shape = architecture(width, "v3", 3, side)
    assert (shape.macs, shape.parameters) == counted_by_hooks(torchvision_network(width), side)
    assert shape.parameters == sum(tensor.size for tensor in network_tensors(MobileNet(shape)).values())


def test_the_papers_network_has_300_million_operations() -> None:
    assert architecture(1.0, "v3", 1000, 224).macs == 300_774_272


@pytest.mark.parametrize(("head", "hidden"), [("v1", (256, 128)), ("v2", (128,)), ("v3", ())])
def test_heads_are_linear_layers_with_relu_between(head: str, hidden: tuple[int, ...]) -> None:
    shape = architecture(0.35, head, 5, 64)
    layers = list(MobileNet(shape).head)
    assert [type(layer).__name__ for layer in layers] == ["Linear", "ReLU"] * len(hidden) + ["Linear"]
    assert [layer.out_features for layer in layers[::2]] == [*hidden, 5]
    assert (shape.macs, shape.parameters) == counted_by_hooks(MobileNet(shape), 64)


# How Keras's MobileNetV2 (`include_top=False`) ends.
KERAS_END = (
    "block_16_expand", "block_16_expand_BN", "block_16_expand_relu",
    "block_16_depthwise", "block_16_depthwise_BN", "block_16_depthwise_relu",
    "block_16_project", "block_16_project_BN",
    "Conv_1", "Conv_1_bn", "out_relu",
)  # fmt: skip
OURS = {
    "block_16_expand": "stages.17.expansion",
    "block_16_depthwise": "stages.17.depthwise",
    "block_16_project": "stages.17.projection",
    "Conv_1": "stages.18.last",
}


@pytest.mark.parametrize("unlocked", range(12))
def test_the_last_layers_are_counted_as_keras_lists_them(unlocked: int) -> None:
    shape = architecture(1.0, "v3", 5, 224)
    expected = {OURS[name] for name in KERAS_END[len(KERAS_END) - unlocked :] if name in OURS}
    assert unlocked_names(shape, unlocked) == expected


def test_all_layers_can_be_unlocked() -> None:
    shape = architecture(1.0, "v3", 5, 224)
    assert len(unlocked_names(shape, "all")) == 52
    assert unlocked_names(shape, 200) == unlocked_names(shape, "all")


@pytest.mark.parametrize(
    ("unlocked", "places"),
    [
        (0, []),
        (5, ["stages.17.projection", "stages.18.last"]),
        (8, ["stages.17.depthwise", "stages.17.projection", "stages.18.last"]),
    ],
)
def test_the_head_is_always_trained_and_the_trunk_where_it_is_unlocked(unlocked: int, places: list[str]) -> None:
    shape = architecture(0.1, "v2", 3, 32)
    is_trained = mobilenet.is_trained(shape, FineTuned(name="dense", unlocked=unlocked))
    names = [name for name, _ in MobileNet(shape).named_parameters() if is_trained(name)]
    trunk = [f"{place}.convolution.{part}" for place in places for part in ("weight", "bias")]
    assert names == [*trunk, "head.0.weight", "head.0.bias", "head.2.weight", "head.2.bias"]


def test_weights_of_other_names_or_widths_are_refused() -> None:
    tensors = arrays(torchvision_network(0.35))
    with pytest.raises(SpecError, match=r"features\.0\.0: expected shape \(24, 3, 3, 3\), got \(16, 3, 3, 3\)"):
        folded_torchvision(tensors, architecture(0.75, "v3", 3, 64))
    del tensors["features.3.conv.1.1.running_var"]
    with pytest.raises(SpecError, match=r"lack 'features\.3\.conv\.1\.1\.running_var'.*torchvision's names"):
        folded_torchvision(tensors, architecture(0.35, "v3", 3, 64))


def test_weights_of_another_network_are_refused() -> None:
    shape = architecture(0.1, "v3", 3, 32)
    tensors = network_tensors(MobileNet(shape))
    with pytest.raises(SpecError, match=r"head\.0\.weight: expected \(4, 1280\), got \(3, 1280\)"):
        load_network(architecture(0.1, "v3", 4, 32), tensors)
    del tensors["stages.4.depthwise.convolution.bias"]
    with pytest.raises(SpecError, match=r"stages\.4\.depthwise\.convolution\.bias: expected \(48,\), got None"):
        load_network(shape, tensors)


def test_folding_batch_norm_changes_no_output() -> None:
    network = MobileNet(architecture(0.1, "v1", 3, 32), batch_norm=True)
    initialise(network, 0)
    for name, tensor in network.state_dict().items():
        if "norm" in name and "num_batches" not in name:
            tensor.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(len(name)))
    plain = folded(network.eval())
    assert not any("norm" in name for name in plain.state_dict())
    pictures = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(plain(pictures), network(pictures), rtol=1e-4, atol=1e-5)


def test_stages_can_be_run_in_parts() -> None:
    network = MobileNet(architecture(0.1, "v3", 3, 32)).eval()
    pictures = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        whole = network(pictures)
        for first in (0, 1, 7, 19):
            assert torch.equal(network(network.run_stages(pictures, 0, first), first), whole)


def test_first_weights_follow_from_the_seed_alone() -> None:
    shape = architecture(0.1, "v2", 3, 32)
    torch.manual_seed(1)
    one = network_tensors(start_network(shape, None, 7))
    torch.manual_seed(2)
    again, other = network_tensors(start_network(shape, None, 7)), network_tensors(start_network(shape, None, 8))
    assert all(tensor.tobytes() == again[name].tobytes() for name, tensor in one.items())
    assert one["head.0.weight"].tobytes() != other["head.0.weight"].tobytes()
    assert "stages.0.stem.norm.weight" in one
    assert one["head.0.weight"].std() == pytest.approx((2 / 1280) ** 0.5, rel=0.02)


def test_a_new_head_is_put_on_torchvisions_trunk() -> None:
    tensors = arrays(torchvision_network(0.35))
    shape = architecture(0.35, "v3", 3, 64)
    made, random = network_tensors(start_network(shape, tensors, 7)), network_tensors(start_network(shape, None, 7))
    for name, tensor in folded_torchvision(tensors, shape).items():
        assert np.array_equal(made[name], tensor), name
    assert not [name for name in made if "norm" in name]
    assert made["head.0.bias"].tobytes() == random["head.0.bias"].tobytes()


@pytest.mark.parametrize(("height", "width", "side"), [(64, 64, 32), (80, 64, 48), (61, 90, 32), (20, 31, 32)])
def test_a_picture_is_prepared_as_pillow_would(height: int, width: int, side: int) -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    pixels = np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    prepared = prepare_picture(pixels, side)
    assert prepared.shape == (3, side, side)
    assert prepared.dtype == torch.float32
    square = min(height, width)
    left, top = (width - square) // 2, (height - square) // 2
    cropped = Image.fromarray(pixels).crop((left, top, left + square, top + square))
    expected = np.array(cropped.resize((side, side), Image.Resampling.BILINEAR), dtype=np.float64)
    levels = (prepared.numpy().transpose(1, 2, 0) * DEVIATION + MEAN) * 255
    assert np.abs(levels - expected).max() <= 1.01  # Pillow rounds to whole levels, twice


def test_a_picture_of_the_right_side_is_only_normalised() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    levels = (prepare_picture(pixels, 32).numpy().transpose(1, 2, 0) * DEVIATION + MEAN) * 255
    np.testing.assert_allclose(levels, pixels, atol=1e-3)


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_the_temperature_is_the_one_that_brute_force_finds(scale: float) -> None:
    random = np.random.default_rng(0)
    classes = random.integers(0, 3, 60)
    logits = scale * (random.normal(size=(60, 3)) + 1.5 * np.eye(3)[classes])
    weights = random.uniform(0.5, 2, 60)

    def loss(temperature: float) -> float:
        likelihoods = log_softmax(logits / temperature, axis=1)[np.arange(60), classes]
        return -float(np.average(likelihoods, weights=weights))

    candidates = np.exp(np.linspace(np.log(0.05), np.log(20), 2_001))
    best = candidates[np.argmin([loss(temperature) for temperature in candidates])]
    assert fit_temperature(logits, classes, weights) == pytest.approx(best, rel=3e-3)  # a step of the grid


def test_a_temperature_stays_within_its_bounds() -> None:
    classes = np.array([0, 1, 0, 1])
    certain = 0.001 * np.eye(2)[classes]
    assert fit_temperature(certain, classes, np.ones(4)) == pytest.approx(0.05, rel=1e-3)
    wrong = 10 * np.eye(2)[1 - classes]
    assert fit_temperature(wrong, classes, np.ones(4)) == pytest.approx(20, rel=1e-3)


def test_confusions_are_counted_with_the_true_class_in_rows() -> None:
    counts = confusion_counts(np.array([0, 1, 1, 2, 2]), np.array([0, 0, 1, 1, 1]), 4)
    assert counts.tolist() == [[1, 1, 0, 0], [0, 1, 2, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_curves_and_confusions_are_small_png_pictures() -> None:
    history = np.column_stack([np.arange(1, 6), np.random.default_rng(0).random((5, 4))])
    confusion = confusion_picture(np.array([[5, 0], [2, 1]]), ("real", "gan"))
    for png in (learning_curves(history, 3), learning_curves(history[:1], 1), confusion):
        assert Image.open(io.BytesIO(png)).format == "PNG"
        assert len(png) < 100_000
    assert confusion_picture(np.array([[5, 0], [2, 1]]), ("real", "gan")) == confusion


def test_photographs_are_one_class_and_each_generator_is_one() -> None:
    assert class_of(0, "coco", CLASSES) == class_of(0, "flickr", CLASSES) == 0
    assert class_of(1, "stable", CLASSES) == 2
    assert class_of(1, "dalle", CLASSES) is None


def test_pictures_of_a_role_come_sorted_and_in_their_canonical_form(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    broken = row("gan", 9, "val") | {"image": {"bytes": b"\xff\xd8\xff broken", "path": None}}
    unknown = row("gan", 8, "val") | {"source": "dalle"}
    refs = (
        shard(store, [row("gan", 5, "val"), row("gan", 2, "val"), row("gan", 3, "train"), broken, unknown], "one"),
        shard(store, [row("flickr", 1, "val"), row("coco", 4, "val"), row("stable", 0, "val")], "two"),
    )

    def load(*images: Any, classes: tuple[str, ...] = CLASSES) -> Any:
        return load_pictures(store, images, "val", 0, SETTING.splits, classes, VIEWS[0])

    found = load(*refs)
    assert (found.sources, found.ids) == (
        ("coco", "flickr", "gan", "gan", "stable"),
        ("004", "001", "002", "005", "000"),
    )
    assert found.groups == ("group-4", "group-1", "group-2", "group-5", "group-0")
    assert found.classes.tolist() == [0, 0, 1, 1, 2]
    assert load(*refs[::-1]).canonical == found.canonical
    file = row("coco", 4, "val")["image"]["bytes"]
    for view, made in make_views(file, "004", VIEWS, CANONICAL).items():
        assert np.array_equal(found.pixels(0, view), made.pixels)
    assert len(load(*refs, classes=("real", "gan"))) == 4


def test_folds_decide_the_roles_of_a_rotation(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    refs = [shard(store, [row(source, fold, fold) for fold in range(4)], source) for source in ("coco", "gan")]
    for rotation in range(4):
        expected = {"test": {rotation}, "val": {(rotation + 1) % 4}}
        expected["train"] = set(range(4)) - expected["test"] - expected["val"]
        for role, folds in expected.items():
            found = load_pictures(store, refs, role, rotation, Folds(count=4), ("real", "gan"), VIEWS[0])
            assert found.ids == tuple(f"{fold:03d}" for fold in sorted(folds)) * 2


def test_pictures_that_would_be_enlarged_are_left_out_unless_small_by_nature(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    rows = [row("coco", 0, "val"), row("coco", 1, "val", side=40), row("gan", 0, "val", side=40)]
    assert read_table(store, shard(store, rows, "fair"))["image_id"].to_pylist() == ["000"]
    assert read_table(store, shard(store, rows, "small", enlarge=True)).num_rows == 3


@pytest.mark.parametrize(
    ("places", "name"),
    [
        ({"stable": "val"}, "class stable has no train"),
        ({"gan": "train", "stable": "train"}, "class any generator has no val"),
        ({"coco": "train"}, "class real has no val"),
    ],
)
def test_a_class_without_pictures_is_refused(tmp_path: Path, places: dict[str, str], name: str) -> None:
    store = LocalStore(tmp_path)
    refs = [
        shard(store, [row(source, 0, only)] if (only := places.get(source)) else both_places(source), source)
        for source in ("coco", "gan", "stable")
    ]
    with pytest.raises(SpecError, match=rf"{name} picture \(rotation 0\): it needs more"):
        train_mobilenet.compute(store, spec=SMALL, setting=SETTING, images=tuple(refs), weights=None)


def both_places(source: str) -> list[dict[str, Any]]:
    return [row(source, 0, "train"), row(source, 1, "val")]


def test_a_generator_of_few_groups_may_have_none_among_the_val_pictures(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    refs = [*shards(store)[:2], shard(store, [row("stable", number, "train") for number in range(6)], "few")]
    ref, _ = train_mobilenet.compute(store, spec=SMALL, setting=SETTING, images=tuple(refs), weights=None)
    trained = TrainedNetwork.load(store, ref)
    assert trained.about["pictures"]["stable"] == [6, 0]
    assert np.isfinite(trained.temperature)


@pytest.mark.parametrize("classes", [("real",), ("gan", "real"), ()])
def test_a_network_needs_photographs_first_and_a_generator(tmp_path: Path, classes: tuple[str, ...]) -> None:
    setting = SETTING.model_copy(update={"classes": classes})
    with pytest.raises(SpecError, match="needs the class real first and a generator beside it, got"):
        training_data(StepRun(LocalStore(tmp_path), "x", "d"), (), setting, QUICK, 32)


def test_only_an_augmented_training_gets_all_views(tmp_path: Path) -> None:
    run = StepRun(LocalStore(tmp_path), "x", "d")
    refs = shards(LocalStore(tmp_path), 1, 1)
    augmented = QUICK.model_copy(update={"augmented": True})
    assert training_data(run, refs, SETTING, augmented, 32).views == VIEWS
    assert training_data(run, refs, SETTING, QUICK, 32).views == VIEWS[:1]


def train(store: LocalStore, **changes: Any) -> Any:
    arguments: dict[str, Any] = {"spec": SMALL, "setting": SETTING, "images": shards(store), "weights": None}
    return train_mobilenet.compute(store, **(arguments | changes))


def test_the_step_keeps_weights_history_and_pictures(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    ref, cached = train(store)
    assert not cached
    assert train(store) == (ref, True)
    assert re.fullmatch(r"objects/train/mobilenet/dense/real\+gan\+stable/r0-s0/[0-9a-f]{64}", ref.uri)
    names = {part.name for part in read_manifest(store, ref.uri).parts}
    assert names == {"weights.safetensors", "card.json", "history.parquet", "curves.png", "confusion.png"}
    assert read_table(store, ref, name="history.parquet")["epoch"].to_pylist() == [1, 2]
    trained = TrainedNetwork.load(store, ref)
    assert trained.classes == CLASSES
    assert trained.shape == architecture(0.1, "v3", 3, 32)
    assert not [name for name in trained.tensors if "norm" in name]
    assert trained.about["pictures"] == {name: [6, 4] for name in CLASSES}
    assert trained.about["views"] == ["fair/native/none"]
    assert FineTuned.model_validate(trained.about["spec"]) == SMALL
    notes = notes_of(store, ref)
    assert notes["macs"] == trained.shape.macs
    assert 0.05 <= notes["temperature"] <= 20
    for part in ("curves.png", "confusion.png"):
        assert Image.open(io.BytesIO(read_part(store, ref, part))).format == "PNG"


def test_a_kept_network_gives_the_accuracy_and_the_loss_that_its_card_states(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    ref, _ = train(store)
    trained = TrainedNetwork.load(store, ref)
    data = training_data(StepRun(store, "x", "d"), shards(store), SETTING, QUICK, 32)
    logits, _ = outputs(load_network(trained.shape, trained.tensors), data.val, VIEWS[0], 32)
    assert trained.about["validation_accuracy"] == (logits.argmax(1) == data.val.classes).mean()
    # Equal counts per generator: photographs weigh 3/2, each fake 3/4.
    weights = np.where(data.val.classes == 0, 1.5, 0.75)
    losses = -log_softmax(logits, axis=1)[np.arange(len(logits)), data.val.classes]
    assert trained.about["validation_loss"] == pytest.approx((weights * losses).mean(), rel=1e-4)
    assert trained.temperature == pytest.approx(fit_temperature(logits, data.val.classes, weights), rel=1e-4)


def fail_after(calls: int, function: Callable[..., None]) -> Callable[..., None]:
    left = [calls]

    def wrapped(*args: Any) -> None:
        function(*args)
        left[0] -= 1
        if not left[0]:
            raise ConnectionError("the worker was lost")

    return wrapped


def test_a_step_that_was_interrupted_ends_with_the_same_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = LocalStore(tmp_path / "whole"), LocalStore(tmp_path / "broken")
    expected, _ = train(whole)
    with monkeypatch.context() as patch:
        patch.setattr(mobilenet, "write_checkpoint", fail_after(1, write_checkpoint))
        with pytest.raises(ConnectionError):
            train(broken)
    assert len(broken.list("checkpoints")) == 1
    ref, cached = train(broken)
    assert not cached
    assert read_manifest(broken, ref.uri).content == read_manifest(whole, expected.uri).content


def test_a_training_whose_gpu_fails_loses_its_device_and_no_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = LocalStore(tmp_path / "whole"), LocalStore(tmp_path / "broken")
    expected, _ = train(whole)

    def fail(*given: Any) -> None:
        write_checkpoint(*given)
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    with monkeypatch.context() as patch:
        patch.setattr(mobilenet, "write_checkpoint", fail)
        with pytest.raises(DeviceLost, match="unspecified launch failure"):
            train(broken)
    ref, _ = train(broken)
    assert read_manifest(broken, ref.uri).content == read_manifest(whole, expected.uri).content


def test_a_step_that_diverges_keeps_no_object(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    absurd = SMALL.model_copy(update={"training": Training(epochs=3, batch=8, learning_rate=1e25)})
    with pytest.raises(TrainingFailed, match="diverged in epoch 1"):
        train(store, spec=absurd)
    assert not store.list("objects/train")


def test_pretrained_weights_are_fine_tuned_and_frozen_ones_kept(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    tensors = arrays(torchvision_network(0.35))
    parts = weight_parts(tensors, {"model": "torchvision-mobilenet-v2"})
    weights = commit(store, "objects/weights/x", step="import", digest="w", recipe={}, parts=parts)
    spec = SMALL.model_copy(update={"width": 0.35, "unlocked": 5, "weights": "sha256:0", "head": "v2"})
    ref, _ = train(store, spec=spec, weights=weights)
    trained = TrainedNetwork.load(store, ref)
    first = folded_torchvision(tensors, trained.shape)
    changed = {
        name.rsplit(".", 2)[0] for name, tensor in first.items() if not np.array_equal(tensor, trained.tensors[name])
    }
    assert changed == {"stages.17.projection", "stages.18.last"}


def test_seed_views_and_classes_decide_the_recipe(tmp_path: Path) -> None:
    images = shards(LocalStore(tmp_path), 1, 1)
    same: dict[str, Any] = {"spec": SMALL, "images": images, "weights": None}
    changes: list[dict[str, Any]] = [
        {},
        {"seed": 1},
        {"rotation": 1},
        {"classes": ("real", "gan")},
        {"views": (View(path="fair", resolution=32),)},
        {"device": "cuda"},
    ]
    uris = {train_mobilenet.uri(**same, setting=SETTING.model_copy(update=change)) for change in changes}
    assert len(uris) == len(changes)
    assert json.dumps(train_mobilenet.recipe(**same, setting=SETTING))
