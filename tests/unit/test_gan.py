"""DCGAN: its architecture and losses against the tutorial's, resuming, checkpoints, and the training step."""

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from storage.errors import TrainingFailed
from storage.local import LocalStore
from storage.objects import Ref, commit, notes_of, read_manifest, read_part, read_table
from storage.tables import IMAGE_SCHEMA
from storage.weights import read_weights
from tasks.checkpoints import Checkpoint, checkpoint_bytes, newest_checkpoint, parse_checkpoint, write_checkpoint
from tasks.data.encoding import encode_png
from tasks.data.pictures import Pixels
from tasks.generators import dcgan
from tasks.generators import gan as gan_module
from tasks.generators.dcgan import (
    HISTORY_COLUMNS,
    build_discriminator,
    build_generator,
    generate_pictures,
    initialise,
    load_generator,
    train,
)
from tasks.generators.gan import fixed_sheet, loss_curves, pack_gan_pictures, read_generator, train_gan, training_array
from tasks.recipe import Step
from tasks.spec.generators import GanSpec
from tasks.torch_vision_schema import define_missing_torchvision_schemas

SMALL = GanSpec(latent=8, generator_features=4, discriminator_features=4, batch=4, epochs=4, sheet_every=2, flip=True)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def smooth_pictures(count: int, seed: int = 0) -> Pixels:
    """uint8 (count, 3, 64, 64)."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    large = [np.array(Image.fromarray(picture).resize((64, 64), Image.Resampling.BICUBIC)) for picture in small]
    return np.stack(large).transpose(0, 3, 1, 2).copy()


def image_shard(store: LocalStore, splits: Sequence[str | None], name: str = "shard") -> Ref:
    rows = [
        {
            "image": {"bytes": encode_png(picture.transpose(1, 2, 0).copy()), "path": f"{index}.png"},
            "image_id": f"photos:{index}",
            "split": split,
        }
        for index, (picture, split) in enumerate(zip(smooth_pictures(len(splits)), splits, strict=True))
    ]
    parts = {"part-0.parquet": pa.Table.from_pylist(rows, schema=IMAGE_SCHEMA)}
    return commit(store, f"objects/shard/{name}", step="shard", digest=name, recipe={}, parts=parts)


def assert_equal_states(one: Checkpoint, other: Checkpoint) -> None:
    assert one.epoch == other.epoch
    assert np.array_equal(one.history, other.history)
    assert one.tensors.keys() == other.tensors.keys()
    for name, tensor in one.tensors.items():
        assert tensor.dtype == other.tensors[name].dtype, name
        assert tensor.shape == other.tensors[name].shape, name
        assert tensor.tobytes() == other.tensors[name].tobytes(), name


def test_default_networks_have_the_tutorials_parameter_counts() -> None:
    def count(network: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in network.parameters())

    assert count(build_generator(GanSpec())) == 3_576_704
    assert count(build_discriminator(GanSpec())) == 2_765_568


def test_the_generator_makes_64_pixel_pictures_and_the_discriminator_one_logit_each() -> None:
    pictures = build_generator(SMALL)(torch.zeros(2, SMALL.latent, 1, 1))
    assert pictures.shape == (2, 3, 64, 64)
    assert pictures.abs().max() <= 1
    assert build_discriminator(SMALL)(pictures).shape == (2, 1, 1, 1)


def test_initial_weights_have_the_papers_distribution() -> None:
    network = build_generator(GanSpec())
    initialise(network, torch.Generator().manual_seed(0))
    convolution, norm = network[3], network[4]
    assert isinstance(convolution, torch.nn.ConvTranspose2d)
    assert isinstance(norm, torch.nn.BatchNorm2d)
    assert abs(float(convolution.weight.detach().mean())) < 1e-4
    assert float(convolution.weight.detach().std()) == pytest.approx(0.02, rel=0.01)
    assert float(norm.weight.detach().mean()) == pytest.approx(1.0, abs=0.01)
    assert not norm.bias.detach().any()


def test_a_training_step_does_what_the_tutorial_does() -> None:
    """One step, written out as the tutorial writes it: sigmoid at the end, BCELoss, real and fake backward apart."""
    spec = SMALL.model_copy(update={"epochs": 1, "flip": False})
    array = smooth_pictures(spec.batch)
    trained = train(array, spec, "cpu")

    generator, core = build_generator(spec), build_discriminator(spec)
    for name, network in (("generator", generator), ("discriminator", core)):
        initialise(network, dcgan._random(spec.seed, name))
    discriminator = torch.nn.Sequential(core, torch.nn.Sigmoid())
    options: dict[str, Any] = {"lr": 0.0002, "betas": (0.5, 0.999)}
    adam_d = torch.optim.Adam(discriminator.parameters(), **options)
    adam_g = torch.optim.Adam(generator.parameters(), **options)
    criterion = torch.nn.BCELoss()
    noise = torch.randn(spec.batch, spec.latent, 1, 1, generator=dcgan._random(spec.seed, "noise"))
    order = torch.randperm(len(array), generator=dcgan._random(spec.seed, "order"))
    real = (torch.from_numpy(array)[order].float() / 255 - 0.5) / 0.5

    discriminator.zero_grad()
    output = discriminator(real).view(-1)
    error_real = criterion(output, torch.ones(spec.batch))
    error_real.backward()
    d_real = output.mean()
    fake = generator(noise)
    output = discriminator(fake.detach()).view(-1)
    error_fake = criterion(output, torch.zeros(spec.batch))
    error_fake.backward()
    d_fake = output.mean()
    adam_d.step()
    generator.zero_grad()
    error_g = criterion(discriminator(fake).view(-1), torch.ones(spec.batch))
    error_g.backward()
    adam_g.step()

    expected = [error_real + error_fake, error_g, d_real, d_fake]
    assert trained.history[0, 2:].tolist() == pytest.approx([float(value.detach()) for value in expected], abs=1e-5)
    for name, tensor in generator.state_dict().items():
        assert np.allclose(trained.below("generator")[name], tensor.numpy(), atol=1e-5), name


@pytest.mark.parametrize("size", [(64, 64), (200, 150), (150, 201), (30, 47), (640, 427), (63, 500)])
def test_training_pictures_are_resized_and_cropped_as_torchvision_does(size: tuple[int, int]) -> None:
    define_missing_torchvision_schemas()
    from torchvision.transforms import CenterCrop, Compose, Resize

    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    expected = Compose([Resize(64), CenterCrop(64)])(Image.fromarray(pixels))
    array = training_array(iter([encode_png(pixels)]), 64)
    assert array.shape == (1, 3, 64, 64)
    assert array.dtype == np.uint8
    assert np.array_equal(array[0].transpose(1, 2, 0), np.array(expected))


def test_no_pictures_give_an_empty_array() -> None:
    assert training_array([], 64).shape == (0, 3, 64, 64)


@pytest.mark.parametrize("stopped_after", [1, 3])
def test_resuming_gives_the_same_losses_and_weights_as_not_stopping(stopped_after: int) -> None:
    array = smooth_pictures(10)
    whole = train(array, SMALL, "cpu")
    kept: dict[int, bytes] = {}
    stopped = SMALL.model_copy(update={"epochs": stopped_after})
    train(array, stopped, "cpu", after_epoch=lambda state: kept.update({state.epoch: checkpoint_bytes(state)}))
    assert sorted(kept) == list(range(1, stopped_after + 1))
    torch.manual_seed(99)
    resumed = train(array, SMALL, "cpu", resume=parse_checkpoint(kept[stopped_after]))
    assert_equal_states(resumed, whole)


def test_the_global_random_state_does_not_matter() -> None:
    array = smooth_pictures(4)
    spec = SMALL.model_copy(update={"epochs": 1})
    torch.manual_seed(1)
    one = train(array, spec, "cpu")
    torch.manual_seed(2)
    assert_equal_states(train(array, spec, "cpu"), one)


def test_another_seed_trains_another_gan() -> None:
    array = smooth_pictures(4)
    spec = SMALL.model_copy(update={"epochs": 1})
    one, other = train(array, spec, "cpu"), train(array, spec.model_copy(update={"seed": 1}), "cpu")
    assert not np.array_equal(one.history[:, 2:], other.history[:, 2:])


@pytest.mark.parametrize(("count", "steps"), [(4, 1), (7, 1), (8, 2), (3, 1)])
def test_an_epoch_is_every_full_batch_and_small_sets_are_one_batch(count: int, steps: int) -> None:
    final = train(smooth_pictures(count), SMALL.model_copy(update={"epochs": 2}), "cpu")
    assert final.history[:, 0].tolist() == [1] * steps + [2] * steps
    assert final.history[:, 1].tolist() == list(range(1, steps + 1)) * 2


def test_mirroring_changes_nothing_for_symmetric_pictures() -> None:
    array = smooth_pictures(4)
    symmetric = np.concatenate([array[..., :32], array[..., 31::-1]], axis=-1)
    spec = SMALL.model_copy(update={"epochs": 2})
    plain = spec.model_copy(update={"flip": False})
    assert np.array_equal(train(symmetric, spec, "cpu").history, train(symmetric, plain, "cpu").history)
    assert not np.array_equal(train(array, spec, "cpu").history, train(array, plain, "cpu").history)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_pictures_are_refused(count: int) -> None:
    with pytest.raises(TrainingFailed, match=f"at least 2 pictures to train on, got {count}"):
        train(smooth_pictures(2)[:count], SMALL, "cpu")


def test_losses_that_are_not_finite_fail_before_a_checkpoint_is_kept() -> None:
    kept: list[Checkpoint] = []
    with pytest.raises(TrainingFailed, match="the GAN diverged in epoch"):
        train(
            smooth_pictures(8),
            SMALL.model_copy(update={"learning_rate": 1e38}),
            "cpu",
            after_epoch=kept.append,
        )
    assert all(np.isfinite(state.history).all() for state in kept)


def test_a_picture_depends_on_its_seed_and_not_on_its_batch() -> None:
    generator = load_generator(train(smooth_pictures(8), SMALL, "cpu").below("generator"), SMALL, "cpu")
    seeds = [5, 2**63 - 1, 0, 77, 12345]
    alone = list(generate_pictures(generator, seeds, 1))
    together = list(generate_pictures(generator, seeds, 3))
    assert alone[0].shape == (64, 64, 3)
    assert alone[0].dtype == np.uint8
    for one, other in zip(alone, together, strict=True):
        assert np.abs(one.astype(int) - other.astype(int)).max() <= 1
    assert not np.array_equal(alone[0], alone[1])
    assert np.array_equal(next(generate_pictures(generator, [77], 1)), alone[3])


def test_the_sheet_is_the_same_for_the_same_weights() -> None:
    generator = load_generator(train(smooth_pictures(4), SMALL, "cpu").below("generator"), SMALL, "cpu")
    sheet = fixed_sheet(generator, 0)
    assert Image.open(io.BytesIO(sheet)).size == (8 * 66 - 2, 8 * 66 - 2)
    assert fixed_sheet(generator, 0) == sheet
    assert fixed_sheet(generator, 1) != sheet


def test_loss_curves_are_a_small_png() -> None:
    history = np.column_stack([np.repeat([1, 2], 3), np.tile([1, 2, 3], 2), np.random.default_rng(0).random((6, 4))])
    curves = loss_curves(history)
    assert Image.open(io.BytesIO(curves)).format == "PNG"
    assert len(curves) < 200_000


def test_checkpoints_survive_their_bytes() -> None:
    state = train(smooth_pictures(4), SMALL.model_copy(update={"epochs": 1}), "cpu")
    assert_equal_states(parse_checkpoint(checkpoint_bytes(state)), state)


def test_the_newest_two_checkpoints_are_kept(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.write("checkpoints/x/sheet-000002.png", b"not a checkpoint")
    train(smooth_pictures(4), SMALL, "cpu", after_epoch=lambda state: write_checkpoint(store, "checkpoints/x", state))
    keys = store.list("checkpoints/x")
    assert [key[:26] for key in keys] == ["checkpoints/x/epoch-000003", "checkpoints/x/epoch-000004", keys[2][:26]]
    newest = newest_checkpoint(store, "checkpoints/x")
    assert newest is not None
    assert newest.epoch == SMALL.epochs


def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = LocalStore(tmp_path)
    train(smooth_pictures(4), SMALL, "cpu", after_epoch=lambda state: write_checkpoint(store, "checkpoints/x", state))
    damaged = store.list("checkpoints/x")[-1]
    store.write(damaged, store.read(damaged)[:-1] + b"?")
    newest = newest_checkpoint(store, "checkpoints/x")
    assert newest is not None
    assert newest.epoch == SMALL.epochs - 1
    assert "damaged checkpoint" in caplog.text
    assert store.size(damaged) is None


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert newest_checkpoint(LocalStore(tmp_path), "checkpoints/x") is None


def arguments(*images: Ref, only_train: bool = True) -> dict[str, Any]:
    return {"images": images, "gan": SMALL, "only_train": only_train, "device": "cpu"}


def test_the_step_keeps_weights_losses_and_sheets(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    images = image_shard(store, ["train"] * 6 + ["test"] * 3)
    ref, cached = train_gan.compute(store, **arguments(images))
    assert not cached
    assert train_gan.compute(store, **arguments(images)) == (ref, True)
    names = {part.name for part in read_manifest(store, ref.uri).parts}
    assert names == {
        "weights.safetensors",
        "card.json",
        "losses.parquet",
        "losses.png",
        "sheet-0002.png",
        "sheet-0004.png",
        "sheets.gif",
    }
    losses = read_table(store, ref, name="losses.parquet")
    assert tuple(losses.column_names) == HISTORY_COLUMNS
    assert losses["epoch"].to_pylist() == [1, 2, 3, 4]
    tensors, card = read_weights(store, ref)
    assert card["pictures"] == 6
    assert GanSpec.model_validate(card["spec"]) == SMALL
    assert card["losses"]["loss_g"] == losses["loss_g"].to_pylist()[-1]
    assert tensors.keys() == build_generator(SMALL).state_dict().keys()
    with Image.open(io.BytesIO(read_part(store, ref, "sheets.gif"))) as sheets:
        assert sheets.n_frames == 2  # type: ignore[attr-defined]
    assert fixed_sheet(read_generator(store, ref, "cpu"), SMALL.seed) == read_part(store, ref, "sheet-0004.png")
    assert notes_of(store, ref)["pictures"] == 6


def test_pictures_that_were_decoded_before_give_the_same_training(tmp_path: Path) -> None:
    plain, packed = LocalStore(tmp_path / "plain"), LocalStore(tmp_path / "packed")
    expected, _ = train_gan.compute(plain, **arguments(image_shard(plain, ["train"] * 5 + ["val"])))
    images = image_shard(packed, ["train"] * 5 + ["val"])
    same: dict[str, Any] = {"images": (images,), "side": 64, "only_train": True}
    pictures, _ = pack_gan_pictures.compute(packed, **same, device="cpu")
    assert pack_gan_pictures.compute(packed, **same, device="cuda") == (pictures, True)
    tensors, card = read_weights(packed, pictures)
    assert (tensors["pictures"].shape, tensors["pictures"].dtype) == ((5, 3, 64, 64), np.dtype(np.uint8))
    assert np.array_equal(tensors["pictures"], smooth_pictures(6)[:5])
    assert card == {"pictures": 5, "side": 64}
    ref, cached = train_gan.compute(packed, **arguments(images), pictures=pictures)
    assert not cached
    assert ref.digest == expected.digest
    assert read_manifest(packed, ref.uri).content == read_manifest(plain, expected.uri).content


def test_half_precision_is_another_recipe_whose_losses_agree() -> None:
    images = (Ref(uri="u", digest="d", rows=1, bytes=1),)
    half = SMALL.model_copy(update={"precision": "bfloat16", "epochs": 2})
    full = half.model_copy(update={"precision": "float32"})
    assert "precision" not in full.model_dump(mode="json")
    same: dict[str, Any] = {"images": images, "only_train": True, "device": "cuda"}
    assert train_gan.uri(gan=half, **same) != train_gan.uri(gan=full, **same)
    array = smooth_pictures(8)
    losses, expected = (train(array, spec, "cpu").history[:, 2:4] for spec in (half, full))
    assert not np.array_equal(losses, expected)
    np.testing.assert_allclose(losses, expected, rtol=0.05, atol=0.05)


def test_the_step_takes_all_rows_of_a_source_that_is_not_evaluated(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    images = (image_shard(store, [None] * 4, "one"), image_shard(store, [None, "test"], "two"))
    ref, _ = train_gan.compute(store, **arguments(*images, only_train=False))
    assert notes_of(store, ref)["pictures"] == 6
    with pytest.raises(TrainingFailed, match="got 0"):
        train_gan.compute(store, **arguments(*images))


def fail_after(calls: int, function: Callable[..., None]) -> Callable[..., None]:
    left = [calls]

    def wrapped(*args: Any) -> None:
        function(*args)
        left[0] -= 1
        if not left[0]:
            raise ConnectionError("the worker was lost")

    return wrapped


def test_a_step_that_was_interrupted_continues_and_ends_with_the_same_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = LocalStore(tmp_path / "whole"), LocalStore(tmp_path / "broken")
    expected, _ = train_gan.compute(whole, **arguments(image_shard(whole, ["train"] * 9)))
    images = image_shard(broken, ["train"] * 9)
    with monkeypatch.context() as patch:
        patch.setattr(gan_module, "write_checkpoint", fail_after(3, write_checkpoint))
        with pytest.raises(ConnectionError):
            train_gan.compute(broken, **arguments(images))
    ref, cached = train_gan.compute(broken, **arguments(images))
    assert not cached
    assert notes_of(broken, ref)["resumed_after_epoch"] == 3
    assert read_manifest(broken, ref.uri).content == read_manifest(whole, expected.uri).content


def test_the_device_and_the_specification_decide_the_recipe() -> None:
    images = (Ref(uri="u", digest="d", rows=1, bytes=1),)
    same: dict[str, Any] = {"images": images, "gan": SMALL, "only_train": True}
    assert isinstance(train_gan, Step)
    assert train_gan.uri(**same, device="cpu") != train_gan.uri(**same, device="cuda")
    assert "dcgan-4x4" in train_gan.uri(**same, device="cpu")
    assert json.dumps(train_gan.recipe(**same, device="cpu"))
