"""Autoencoders by folder, hub id or file: brought into the store by their digest, loaded whole; nothing is drawn."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from storage.errors import MissingInput, SpecError
from storage.local import LocalStore
from storage.objects import Ref
from tasks.brought_models import bring_model, model_of_gpu_workers
from tasks.generators.autoencoders import Autoencoder, factor_of, missing_autoencoder, opened_autoencoder
from tests.unit.local_hub import local_hub, offline
from tests.unit.tiny_autoencoders import save_kl, save_taef2, save_tiny
from tests.unit.tiny_models import change, save_vit

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_kl(tmp_path_factory.mktemp("published") / "kl")


@pytest.fixture
def kl(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "kl"))


def brought(store: LocalStore, weights: Path | str) -> Ref:
    path, digest = model_of_gpu_workers(str(weights))
    ref: Ref = bring_model.compute(store, digest=digest, path=path)[0]
    return ref


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def line_of(weights: Path | str) -> str:
    (line,) = missing_autoencoder(str(weights))
    return line


@pytest.mark.parametrize(("save", "factor"), [(save_kl, 2), (save_tiny, 4), (save_taef2, 8)])
def test_each_kind_gives_the_same_pixels_each_time_wherever_it_lay(
    tmp_path: Path, store: LocalStore, save: Callable[[Path], Path], factor: int
) -> None:
    weights = save(tmp_path / "autoencoder.safetensors")
    assert missing_autoencoder(str(weights)) == []
    files = brought(store, weights)
    assert factor_of(store, files) == factor
    pixels = noise(32, 48)
    made = opened_autoencoder(store, files, "cpu").reconstructed(pixels)
    assert made is not None
    assert (made.shape, made.dtype) == ((32, 48, 3), np.dtype(np.uint8))
    assert made.std() > 0
    moved = weights.rename(tmp_path / "moved.safetensors")
    assert brought(store, moved) == files
    again = opened_autoencoder(store, files, "cpu").reconstructed(pixels)
    assert again is not None
    assert np.array_equal(made, again)


def test_of_the_latents_distribution_the_mode_is_decoded(store: LocalStore, kl: Path) -> None:
    from diffusers import AutoencoderKL

    network = AutoencoderKL.from_pretrained(kl, use_safetensors=True)
    pixels = noise(32, 32)
    made = opened_autoencoder(store, brought(store, kl), "cpu").reconstructed(pixels)
    with torch.inference_mode():
        x = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1
        distribution = network.encode(x).latent_dist
        assert distribution.std.min() > 0.1
        expected = (network.decode(distribution.mean).sample[0].permute(1, 2, 0).clamp(-1, 1) + 1) * 127.5
    assert made is not None
    assert np.abs(made - expected.numpy()).max() <= 0.501


def test_one_network_serves_the_tasks_that_run_at_once(store: LocalStore, kl: Path) -> None:
    files = brought(store, kl)
    assert opened_autoencoder(store, files, "cpu") is not None
    first = opened_autoencoder(store, files, "cpu")
    assert opened_autoencoder(store, files, "cpu") is first


def test_it_is_the_files_of_its_folder_that_are_loaded_and_no_others(kl: Path) -> None:
    before = model_of_gpu_workers(str(kl))[1]
    (kl / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    assert model_of_gpu_workers(str(kl))[1] == before
    (kl / WEIGHTS).unlink()
    assert "its weights are pickles, which are never read" in line_of(kl)


def test_a_hub_id_is_the_folder_at_its_newest_commit(
    kl: Path, tmp_path: Path, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    (kl / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"another variant")
    with local_hub(monkeypatch, tmp_path / "cache") as hub:
        commit = hub.publish("owner/kl", kl)
        assert missing_autoencoder("owner/kl") == []
        assert model_of_gpu_workers("owner/kl") == (f"owner/kl@{commit}", model_of_gpu_workers(str(kl))[1])
        assert not [asked for asked in hub.asked if "fp16" in asked.rpartition("/")[2]]
    offline(monkeypatch, tmp_path / "cache")
    assert brought(store, "owner/kl") == brought(store, kl)
    assert "hf download owner/other" in line_of("owner/other")


def test_what_is_no_autoencoder_is_said_with_what_is_expected(kl: Path, tmp_path: Path) -> None:
    assert "nowhere.safetensors: no such file; name one of TAEF2" in line_of(tmp_path / "nowhere.safetensors")
    assert "nowhere: no such folder" in line_of(tmp_path / "nowhere")
    assert "expected AutoencoderKL or AutoencoderTiny, got None" in line_of(save_vit(tmp_path / "vit"))
    assert "lacks encoder.0.weight" in line_of(kl / WEIGHTS)
    pipeline = tmp_path / "pipeline"
    shutil.copytree(kl, pipeline / "vae")
    assert f"name its folder {pipeline / 'vae'}" in line_of(pipeline)
    with pytest.raises(MissingInput, match="TELLTALE_TEST_AUTOENCODER"):
        missing_autoencoder("${TELLTALE_TEST_AUTOENCODER}")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"_class_name": "AutoencoderDC"}, "expected AutoencoderKL or AutoencoderTiny, got 'AutoencoderDC'"),
        ({"in_channels": 4}, "in_channels in config.json of the autoencoder: expected 3, got 4"),
        ({"quantization_config": {"quant_method": "gguf"}}, "expected weights in floating point"),
        ({"block_out_channels": 8}, "block_out_channels in config.json: expected a list of 1 to 10 widths, got 8"),
    ],
)
def test_a_config_that_does_not_serve_is_refused(kl: Path, fields: dict[str, object], message: str) -> None:
    change(kl / "config.json", **fields)
    assert message in line_of(kl)


def test_weights_that_do_not_fit_their_config_are_refused_instead_of_being_drawn(kl: Path, store: LocalStore) -> None:
    tensors = load_file(kl / WEIGHTS)
    lost = next(iter(sorted(tensors)))
    save_file({name: tensor for name, tensor in tensors.items() if name != lost}, kl / WEIGHTS)
    with pytest.raises(SpecError, match=f"missing keys {lost}"):
        opened_autoencoder(store, brought(store, kl), "cpu")
    save_file(tensors | {"more.weight": np.zeros(3, np.float32)}, kl / WEIGHTS)
    with pytest.raises(SpecError, match=r"unexpected keys more\.weight"):
        opened_autoencoder(store, brought(store, kl), "cpu")
    save_file(tensors | {lost: np.zeros(3, np.float32)}, kl / WEIGHTS)
    with pytest.raises(SpecError, match="the autoencoder"):
        opened_autoencoder(store, brought(store, kl), "cpu")


def test_a_network_whose_sides_do_not_fit_is_refused() -> None:
    halving = Autoencoder(lambda x: x[..., ::2, ::2], "cpu")
    with pytest.raises(SpecError, match="expected 3 x 32 x 48 of a picture back, got 3 x 16 x 24"):
        halving.reconstructed(noise(32, 48))


def test_no_finite_numbers_are_no_picture_and_large_ones_are_clamped() -> None:
    assert Autoencoder(lambda x: x * float("nan"), "cpu").reconstructed(noise(8, 8)) is None
    assert Autoencoder(lambda x: x / 0.0, "cpu").reconstructed(noise(8, 8)) is None
    made = Autoencoder(lambda x: x * 4 - 1.5, "cpu").reconstructed(noise(8, 8))
    assert made is not None
    assert set(np.unique(made)) >= {0, 255}
