"""VGG16 by Winograd's filtering: torch's features up to float noise, whatever the size, the batch and the threads."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.features import vgg16
from tasks.features.vgg16 import Vgg16Spec
from tasks.features.vgg16_winograd import WinogradVgg16

# Some with odd sides on the way down, whose last row or column no pooling takes.
SIZES = [(32, 32), (64, 64), (75, 49), (63, 127), (96, 160)]


def extractor(side: int | None = None, batch: int = 4, layer: str = "pool5-avg") -> Vgg16Spec:
    return Vgg16Spec.model_validate({"layer": layer, "side": side, "weights": "random:0", "batch": batch})


def noise(count: int, size: tuple[int, int], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(count)]


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    """Biases are not zero, as those of random weights are."""
    made = vgg16.random_tensors(extractor())
    rng = np.random.default_rng(1)
    return {
        name: rng.normal(0, 0.05, tensor.shape).astype(np.float32) if name.endswith("bias") else tensor
        for name, tensor in made.items()
    }


@pytest.fixture(scope="module")
def network(tensors: dict[str, np.ndarray]) -> WinogradVgg16:
    return WinogradVgg16("pool5-avg", tensors)


@pytest.mark.parametrize("size", SIZES)
def test_features_are_torchs_up_to_float_noise(
    network: WinogradVgg16, tensors: dict[str, np.ndarray], size: tuple[int, int]
) -> None:
    pictures = noise(2, size)
    expected = vgg16.embed_pictures(vgg16.load_vgg16(extractor(), tensors), extractor(), pictures)
    found = vgg16.embed_on_cpu(network, extractor(), pictures)
    assert (found.dtype, found.shape) == (np.dtype(np.float32), (2, 512))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * expected.max())


def test_the_connected_layers_are_torchs_up_to_float_noise() -> None:
    spec = extractor(side=64, layer="fc7")
    tensors = vgg16.random_tensors(spec)
    pictures = noise(3, (64, 64))
    expected = vgg16.embed_pictures(vgg16.load_vgg16(spec, tensors), spec, pictures)
    found = vgg16.embed_on_cpu(WinogradVgg16(spec.layer, tensors), spec, pictures)
    assert found.shape == (3, 4096)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * expected.max())


def test_a_pictures_features_are_the_same_bits_in_every_batch_and_order(network: WinogradVgg16) -> None:
    pictures = [picture for seed, size in enumerate(SIZES) for picture in noise(2, size, seed)]
    together = vgg16.embed_on_cpu(network, extractor(batch=16), pictures)
    assert np.array_equal(vgg16.embed_on_cpu(network, extractor(batch=1), pictures), together)
    assert np.array_equal(vgg16.embed_on_cpu(network, extractor(), pictures[::-1])[::-1], together)


def test_a_pictures_features_are_the_same_bits_for_every_number_of_threads(
    network: WinogradVgg16, tensors: dict[str, np.ndarray]
) -> None:
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        by_two = WinogradVgg16("pool5-avg", tensors)
    finally:
        torch.set_num_threads(before)
    pictures = noise(2, (96, 160))
    assert np.array_equal(
        vgg16.embed_on_cpu(by_two, extractor(), pictures), vgg16.embed_on_cpu(network, extractor(), pictures)
    )


def test_weights_in_half_precision_are_computed_in_single_precision(
    network: WinogradVgg16, tensors: dict[str, np.ndarray]
) -> None:
    halves = {name: tensor.astype(np.float16) for name, tensor in tensors.items()}
    widened = {name: tensor.astype(np.float32) for name, tensor in halves.items()}
    pictures = noise(1, (64, 64))
    of_halves, of_widened = (
        vgg16.embed_on_cpu(WinogradVgg16("pool5-avg", given), extractor(), pictures) for given in (halves, widened)
    )
    assert np.array_equal(of_halves, of_widened)
