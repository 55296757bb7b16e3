"""What a GPU computes is what a CPU computes, nearly; and the same bits each time, also of a training that goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from storage.local import LocalStore
from storage.objects import Ref, read_manifest, read_table
from storage.tables import embedding_matrix, read_features
from tasks.checkpoints import Checkpoint
from tasks.data.pictures import decode_rgb
from tasks.detectors.pictures import score_pictures
from tasks.device import DeviceLost, GpuLoad, compute_device, device_alone, full_precision, gpu_load
from tasks.features.backbone import BackboneSpec
from tasks.generators.dcgan import train
from tasks.generators.gan import train_gan
from tasks.generators.reconstruction import choose_photographs, reconstruct_photographs
from tasks.generators.shards import generate_diffusion
from tasks.kept_networks import networks_kept
from tasks.networks.architecture import Architecture, architecture, residual_architecture
from tasks.networks.distillation import distil
from tasks.networks.fitting import fit
from tasks.networks.mobilenet import Setting, train_mobilenet
from tasks.networks.mobilenet_network import MobileNet, channels_last, initialise, prepare_picture
from tasks.networks.pruning import prune_magnitude, prune_structure
from tasks.networks.residual import train_residual
from tasks.spec.detectors import Distilled, FineTuned, Fit, MagnitudePruned, Residual, StructurePruned, Training
from tasks.spec.splits import FixedSplits
from tests.unit import test_hub, test_reconstruction, test_residual
from tests.unit.backbone_models import brought as brought_backbone
from tests.unit.backbone_models import described, spec
from tests.unit.backbone_models import pictures as backbone_pictures
from tests.unit.embedded_shards import VGG16, embed, seven_pictures
from tests.unit.embedded_shards import shard as image_shard
from tests.unit.generated_pictures import diffusion_arguments, photograph, photographs
from tests.unit.network_pictures import SETTING, VIEWS, data, row, shard, shards
from tests.unit.test_fitting import AUGMENTED, QUICK, network
from tests.unit.test_gan import SMALL, assert_equal_states, smooth_pictures
from tests.unit.test_gan import image_shard as gan_shard
from tests.unit.tiny_autoencoders import save_kl, save_taef2, save_tiny
from tests.unit.tiny_backbones import KINDS, saved_model
from tests.unit.tiny_models import CROPPED, save_swin, save_vit

DEVICE = "cuda"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")

TRAINING = Training(epochs=2, batch=8)
DENSE = FineTuned(name="dense", width=0.1, side=32, unlocked="all", weights="random:0", training=TRAINING)
MAGNITUDE = MagnitudePruned(name="thin", of="dense", training=TRAINING)
STRUCTURE = StructurePruned(name="half", of="dense", macs=0.6, steps=2, training=TRAINING)
STUDENT = Distilled(name="narrow", of="dense", teachers=("dense",), training=TRAINING)


@pytest.fixture(autouse=True)
def _nothing_stays_on_the_device() -> Iterator[None]:
    with networks_kept():
        yield


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def on(device: str, setting: Setting = SETTING) -> Setting:
    return setting.model_copy(update={"device": device})


# Everything that a pool of GPUs trains. Each gets a store, a device and gives the object.


def dense(store: LocalStore, device: str, training: Training = TRAINING) -> Ref:
    given = DENSE.model_copy(update={"training": training})
    ref: Ref = train_mobilenet.compute(store, spec=given, setting=on(device), images=shards(store), weights=None)[0]
    return ref


def half(store: LocalStore, device: str) -> Ref:
    return dense(store, device, TRAINING.model_copy(update={"precision": "bfloat16", "augmented": True}))


def thin(store: LocalStore, device: str) -> Ref:
    ref: Ref = prune_magnitude.compute(
        store, spec=MAGNITUDE, setting=on(device), images=shards(store), network=dense(store, "cpu")
    )[0]
    return ref


def pruned(store: LocalStore, device: str) -> Ref:
    ref: Ref = prune_structure.compute(
        store, spec=STRUCTURE, setting=on(device), images=shards(store), network=dense(store, "cpu")
    )[0]
    return ref


def distilled(store: LocalStore, device: str) -> Ref:
    images, teacher = shards(store), dense(store, "cpu")
    ref: Ref = distil.compute(
        store,
        spec=STUDENT,
        setting=on(device),
        images=images,
        student=teacher,
        teachers=(teacher,),
        svm=None,
        svm_features=(),
        aided=True,
    )[0]
    return ref


def residual(store: LocalStore, device: str, front_end: Any = "median") -> Ref:
    given = Residual(**dict(test_residual.SPEC) | {"front_end": front_end})
    images = test_residual.shards(store)
    ref: Ref = train_residual.compute(store, spec=given, setting=on(device, test_residual.SETTING), images=images)[0]
    return ref


def gan(store: LocalStore, device: str, precision: Any = "float32") -> Ref:
    given = SMALL.model_copy(update={"precision": precision})
    images = (gan_shard(store, ["train"] * 9),)
    ref: Ref = train_gan.compute(store, images=images, gan=given, only_train=True, device=device)[0]
    return ref


TRAININGS: dict[str, Callable[[LocalStore, str], Ref]] = {
    "dense": dense,
    "dense in half precision": half,
    "magnitude-pruned": thin,
    "structure-pruned": pruned,
    "distilled": distilled,
    "residual, median": residual,
    "residual, wavelet": partial(residual, front_end="wavelet"),
    "residual, nearest": partial(residual, front_end="nearest"),
    "gan": gan,
    "gan in half precision": partial(gan, precision="bfloat16"),
}


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_gives_the_same_bits_each_time(name: str, tmp_path: Path) -> None:
    stores = [LocalStore(tmp_path / str(number)) for number in range(2)]
    contents = [read_manifest(store, TRAININGS[name](store, DEVICE).uri).content for store in stores]
    assert contents[0] == contents[1]


NETWORKS: dict[str, Architecture] = {
    "mobilenet": architecture(0.35, "v2", 3, 48),
    **{kind: residual_architecture(kind, 0.25, 3, 48) for kind in test_residual.FRONT_ENDS},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_and_gradients_are_those_of_a_cpu(name: str) -> None:
    x = torch.stack([prepare_picture(test_residual.noise(48, seed), 48) for seed in range(8)])

    def gradients(device: str) -> dict[str, torch.Tensor]:
        made = MobileNet(NETWORKS[name], batch_norm=name == "mobilenet")
        initialise(made, 0)
        made = channels_last(made).to(device)
        made.train()
        with full_precision(device):
            logits = made(x.to(device))
            torch.nn.functional.cross_entropy(logits, torch.arange(8, device=device) % 3).backward()
        found = {key: parameter.grad for key, parameter in made.named_parameters() if parameter.grad is not None}
        return {"logits": logits.detach().cpu()} | {key: tensor.cpu() for key, tensor in found.items()}

    there, here = gradients(DEVICE), gradients("cpu")
    assert there.keys() == here.keys()
    for key, tensor in here.items():
        if name == "mobilenet" and key.endswith("convolution.bias"):
            continue  # batch norm takes it away again: nothing but rounding is left of its gradient
        scale = max(float(tensor.abs().max()), 1e-4)
        assert float((there[key] - tensor).abs().max()) < 5e-3 * scale, key


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_gan_that_goes_on_is_the_one_that_was_not_stopped(precision: Any) -> None:
    kept: list[Checkpoint] = []
    given, array = SMALL.model_copy(update={"precision": precision}), smooth_pictures(9)
    whole = train(array, given, DEVICE, after_epoch=kept.append)
    assert_equal_states(train(array, given, DEVICE, resume=kept[1]), whole)


@pytest.mark.parametrize("training", [QUICK, AUGMENTED, QUICK.model_copy(update={"precision": "bfloat16"})])
def test_a_training_that_goes_on_within_an_epoch_is_the_one_that_was_not_stopped(training: Training) -> None:
    small = data(views=VIEWS)
    kept: list[Checkpoint] = []
    with full_precision(DEVICE):
        options: dict[str, Any] = {"seed": 0, "device": DEVICE, "due": lambda: True, "after_epoch": kept.append}
        whole = fit(network(batch_norm=True).to(DEVICE), small, training, **options)
        middle = next(one for one in kept if one.epoch == 1 and one.step == 2)
        went_on = fit(network(batch_norm=True, seed=9).to(DEVICE), small, training, **options, resume=middle)
    assert whole.history.tobytes() == went_on.history.tobytes()
    for name, tensor in whole.tensors.items():
        assert tensor.tobytes() == went_on.tensors[name].tobytes(), name


# What computes on a GPU without being trained.


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """The largest one, relative to the largest number."""
    return float(np.abs(one.astype(np.float64) - other).max() / np.abs(other).max())


def both(compute: Callable[[str], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return compute(DEVICE), compute("cpu")


@pytest.mark.parametrize("changes", [{}, {"precision": "float16"}, {"precision": "bfloat16"}], ids=str)
def test_features_of_vgg16(store: LocalStore, changes: dict[str, Any]) -> None:
    images = image_shard(store, seven_pictures())

    def features(device: str) -> np.ndarray:
        given = VGG16 if device == "cpu" else VGG16.model_copy(update=changes)
        refs = embed(store, images, extractor=given, device=device)
        return np.concatenate([embedding_matrix(read_features(store, [ref])) for ref in refs])

    there, here = both(features)
    assert difference(there, here) < (0.03 if changes else 1e-3)
    assert not np.array_equal(there, 0 * there)


@pytest.mark.parametrize("kind", [*KINDS, "torchvision", "timm"])
def test_features_of_a_backbone(kind: str, store: LocalStore, tmp_path: Path) -> None:
    given: BackboneSpec
    if kind == "torchvision":
        given = spec()
    elif kind == "timm":
        pytest.importorskip("timm")
        given = spec("timm", "resnet18")
    else:
        output = "layernorm" if kind == "vit-classifier" else "pooled"
        given = spec("transformers", saved_model(tmp_path / kind, kind), output=output)
    weights = brought_backbone(store, given)
    there, here = both(lambda device: described(given.keyed().load(store, weights, device), backbone_pictures()))
    assert difference(there, here) < 1e-3


@pytest.mark.parametrize("kind", ["vit", "swin"])
def test_scores_of_a_classifier_of_the_hub(kind: str, store: LocalStore, tmp_path: Path) -> None:
    save_vit(tmp_path / kind) if kind == "vit" else save_swin(tmp_path / kind)
    fields: dict[str, Any] = {} if kind == "vit" else {"fake": test_hub.SWIN_FAKES, "input": CROPPED}
    named = test_hub.detector(tmp_path / kind, **fields)
    files = test_hub.brought(store, named)
    places = ["val"] * 4 + ["test"] * 6
    pictures = shard(store, [row("stable", number, place) for number, place in enumerate(places)], "stable")

    def scores(device: str) -> np.ndarray:
        refs, _ = score_pictures.compute(
            store,
            detector=named.keyed(),
            files=files,
            fit=Fit(detector="theirs"),
            pictures=pictures,
            views=VIEWS,
            val_views=VIEWS[:2],
            splits=FixedSplits(),
            device=device,
            source="stable",
            shard=0,
        )
        return np.concatenate([read_table(store, ref)["decision"].to_numpy() for ref in refs])

    there, here = both(scores)
    assert len(here) == 10 + 10 + 6
    assert difference(there, here) < 1e-3


@pytest.mark.parametrize("kind", ["kl", "tiny", "taef2"])
def test_reconstructions(kind: str, store: LocalStore, tmp_path: Path) -> None:
    save: dict[str, Callable[[Path], Path]] = {"kl": save_kl, "tiny": save_tiny, "taef2": save_taef2}
    weights = save[kind](tmp_path / (f"{kind}.safetensors" if kind == "taef2" else kind))
    images = photographs(store, [test_reconstruction.photograph(number, 101, 127) for number in range(3)])
    autoencoder = test_reconstruction.brought(store, weights)
    cut: dict[str, Any] = test_reconstruction.CUT
    chosen, _ = choose_photographs.compute(store, photographs=(images,), autoencoder=autoencoder, count=None, **cut)

    def made(device: str) -> np.ndarray:
        ref, _ = reconstruct_photographs.compute(
            store, images=images, autoencoder=autoencoder, chosen=chosen, device=device, **cut
        )
        return np.stack([decode_rgb(one["image"]["bytes"]) for one in read_table(store, ref).to_pylist()]).astype(int)

    there, here = both(made)
    assert np.abs(there - here).max() <= 1
    assert (there != here).mean() < 0.01


def test_pictures_of_a_diffusion_model(store: LocalStore) -> None:
    rows = [photograph(number, caption=f"a cat {number}") for number in range(5)]
    images = photographs(store, rows)

    def made(device: str) -> np.ndarray:
        given = diffusion_arguments(images) | {"device": device}
        ref, _ = generate_diffusion.compute(store, **given)
        return np.stack([decode_rgb(one["image"]["bytes"]) for one in read_table(store, ref).to_pylist()]).astype(int)

    there, here = both(made)
    assert np.abs(there - here).max() <= 2


# The device itself.


def test_memory_that_the_device_does_not_have_is_its_loss_not_the_works() -> None:
    with pytest.raises(DeviceLost, match="OutOfMemoryError"), device_alone(DEVICE):
        torch.empty(2**42, dtype=torch.uint8, device=DEVICE)
    with device_alone(DEVICE):
        assert float(torch.ones(3, device=DEVICE).sum()) == 3


def test_a_network_that_is_not_used_any_more_leaves_the_device(store: LocalStore) -> None:
    images = image_shard(store, seven_pictures())
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    with networks_kept():
        embed(store, images, device=DEVICE)
    assert torch.cuda.memory_allocated() - before < 2**20


def test_the_driver_says_how_busy_the_device_is() -> None:
    assert compute_device() == DEVICE
    load = gpu_load(DEVICE)
    assert load is not None
    assert 0 <= load <= 1
    watched = GpuLoad(DEVICE)
    until = time.monotonic() + 30
    while watched.mean() is None and time.monotonic() < until:
        time.sleep(0.05)
    assert watched.mean() is not None


def test_two_hands_on_one_device_wait_for_each_other(store: LocalStore, tmp_path: Path) -> None:
    """Threads of one worker, each with a shard: what they make is what one thread makes."""
    from concurrent.futures import ThreadPoolExecutor

    alone = [read_manifest(LocalStore(tmp_path / "a"), residual(LocalStore(tmp_path / "a"), DEVICE).uri).content]
    with ThreadPoolExecutor(2) as threads:
        stores = [LocalStore(tmp_path / name) for name in ("b", "c")]
        refs = list(threads.map(lambda one: residual(one, DEVICE), stores))
    assert [read_manifest(one, ref.uri).content for one, ref in zip(stores, refs, strict=True)] == alone * 2
