"""TAEF2 by its tensors: the network that torch's own modules make of them, and no other file."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn

from storage.errors import SpecError
from tasks.data.pictures import decode_rgb
from tasks.generators.autoencoders import Autoencoder
from tasks.generators.reconstruction import Cut
from tasks.generators.taef2 import Taef2, find_taef2_problem, tensor_shapes
from tests.unit.tiny_autoencoders import save_taef2, taef2_tensors


class Block(nn.Module):
    """A block as madebyollin/taesd has it."""

    def __init__(self, pooled: bool = False) -> None:
        super().__init__()
        self.pool = None
        if pooled:
            self.pool = nn.Sequential(
                nn.Conv2d(64, 256, 1, bias=False), nn.GroupNorm(4, 256), nn.ReLU(), nn.Conv2d(256, 64, 1, bias=False)
            )
        self.conv = nn.Sequential(
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, padding=1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


class Bound(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x / 3) * 3


def three(pooled: bool = False) -> list[nn.Module]:
    return [Block(pooled) for _ in range(3)]


def down() -> nn.Module:
    return nn.Conv2d(64, 64, 3, padding=1, stride=2, bias=False)


def up() -> list[nn.Module]:
    return [nn.Upsample(scale_factor=2), nn.Conv2d(64, 64, 3, padding=1, bias=False)]


def of_modules() -> nn.ModuleDict:
    encoder = [nn.Conv2d(3, 64, 3, padding=1), Block(), down(), *three(), down(), *three(), down(), *three(True)]
    encoder.append(nn.Conv2d(64, 32, 3, padding=1))
    decoder = [Bound(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), *three(True), *up(), *three(), *up(), *three()]
    decoder += [*up(), Block(), nn.Conv2d(64, 3, 3, padding=1)]
    return nn.ModuleDict({"encoder": nn.Sequential(*encoder), "decoder": nn.Sequential(*decoder)})


def test_it_computes_in_float32_what_modules_of_torch_make_of_its_tensors(tmp_path: Path) -> None:
    expected = of_modules()
    loaded = {name: torch.from_numpy(tensor).float() for name, tensor in taef2_tensors().items()}
    expected.load_state_dict(loaded, strict=True)
    network = Taef2(save_taef2(tmp_path / "taef2.safetensors"), "cpu")
    pictures = torch.rand((2, 3, 40, 24), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        latents = network.encode(pictures)
        assert (latents.shape, latents.dtype) == ((2, 32, 5, 3), torch.float32)
        torch.testing.assert_close(latents, expected["encoder"](pictures), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(network(pictures), expected["decoder"](latents), rtol=1e-4, atol=1e-4)


def test_it_has_the_parameters_that_are_published() -> None:
    assert sum(int(np.prod(shape)) for shape in tensor_shapes().values()) == 2_677_027


def test_another_file_is_refused_with_what_is_expected_and_found(tmp_path: Path) -> None:
    path, tensors = tmp_path / "taef2.safetensors", taef2_tensors()
    assert find_taef2_problem(save_taef2(path)) is None
    turned = tensors | {"encoder.0.weight": np.zeros((3, 64, 3, 3), np.float16)}
    doubled = tensors | {"encoder.14.bias": np.zeros(32, np.float64)}
    lacking = {name: tensor for name, tensor in tensors.items() if name != "decoder.3.pool.1.weight"}
    foreign = tensors | {"decoder.20.bias": np.zeros(3, np.float16)}
    for given, message in (
        (turned, r"has encoder.0.weight of shape \(3, 64, 3, 3\), expected \(64, 3, 3, 3\)"),
        (doubled, "holds F64, expected F16 or F32"),
        (lacking, "lacks decoder.3.pool.1.weight"),
        (foreign, r"also has decoder.20.bias, not of its network"),
    ):
        save_file(given, path)
        with pytest.raises(SpecError, match=message):
            Taef2(path, "cpu")
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1")
    assert "not readable as safetensors" in str(find_taef2_problem(path))


def test_the_real_one_gives_a_photograph_back(tmp_path: Path) -> None:
    shared = Path(os.environ.get("TELLTALE_SHARED", Path(__file__).parents[3] / "shared"))
    weights, photographs = shared / "weights" / "taef2.safetensors", shared / "data" / "coco" / "val2017"
    if not weights.is_file() or not photographs.is_dir():
        pytest.skip(f"no {weights} or no {photographs}: set TELLTALE_SHARED")
    photograph = decode_rgb(min(photographs.glob("*.jpg")).read_bytes())
    given = Cut(side=128, factor=8, border=0).given(photograph)
    made = Autoencoder(Taef2(weights, "cpu"), "cpu").reconstructed(given)
    assert made is not None
    error = np.mean((made.astype(float) - given) ** 2)
    assert 20 < 10 * np.log10(255**2 / error) < 40
