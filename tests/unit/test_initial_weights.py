"""Initial weights are the same whatever another thread loads meanwhile.

diffusers and transformers replace the functions of `torch.nn.init`, for the whole process, while they load a model.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

import numpy as np
import pytest
import torch

from tasks.features.vgg16 import Vgg16Spec, random_tensors
from tasks.generators.dcgan import train
from tasks.networks.architecture import architecture
from tasks.networks.mobilenet import start_network
from tasks.networks.mobilenet_network import network_tensors
from tasks.spec.generators import GanSpec
from tasks.torch_vision_schema import define_missing_torchvision_schemas

Tensors = Mapping[str, np.ndarray]


def gan() -> Tensors:
    pictures = np.random.default_rng(0).integers(0, 256, (4, 3, 64, 64), dtype=np.uint8)
    spec = GanSpec(latent=8, generator_features=4, discriminator_features=4, batch=4, epochs=1)
    return train(pictures, spec, "cpu").tensors


def vgg16() -> Tensors:
    return random_tensors(Vgg16Spec(layer="pool5-avg", side=32, weights="random:1"))


def mobilenet() -> Tensors:
    return network_tensors(start_network(architecture(0.1, "v2", 3, 32), None, 7))


def loading_by_diffusers() -> AbstractContextManager[None]:
    from diffusers.models.modeling_utils import no_init_weights

    return no_init_weights()


def loading_by_transformers() -> AbstractContextManager[None]:
    from transformers.initialization import no_init_weights

    return no_init_weights()


@pytest.mark.parametrize("loading", [loading_by_diffusers, loading_by_transformers])
@pytest.mark.parametrize("make", [gan, vgg16, mobilenet])
def test_they_do_not_depend_on_what_is_loaded(
    make: Callable[[], Tensors], loading: Callable[[], AbstractContextManager[None]]
) -> None:
    define_missing_torchvision_schemas()
    torch.set_num_threads(1)
    expected = make()
    with loading():
        made = make()
    assert made.keys() == expected.keys()
    for name, tensor in expected.items():
        assert made[name].tobytes() == tensor.tobytes(), name


def test_random_vgg16_weights_are_he_initialised() -> None:
    tensors = vgg16()
    drawn = torch.Generator().manual_seed(1)
    for name, tensor in tensors.items():
        expected = torch.zeros(tensor.shape)
        if name.endswith(".weight"):
            torch.nn.init.kaiming_normal_(expected, mode="fan_out", nonlinearity="relu", generator=drawn)
        assert tensor.tobytes() == expected.numpy().tobytes(), name
