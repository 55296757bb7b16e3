"""VGG16 as a feature extractor: configuration D of Simonyan & Zisserman 2015, with torchvision's layout and weights.

The network itself is torch's: on GPUs, and in half precision. In float32 a CPU has one of its own for the same weights
(`vgg16_winograd`).
"""

from __future__ import annotations

import functools
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import Field

from storage.errors import SpecError
from storage.objects import Ref
from storage.store import Store
from storage.weights import read_weights, weight_parts
from tasks.device import full_precision
from tasks.facts import Fact, fact
from tasks.features.base import Extractor, ExtractorBase
from tasks.features.vgg16_layout import DIMENSIONS, MEAN, STD, Layer, Pixels, tensor_shapes
from tasks.features.vgg16_winograd import WinogradVgg16
from tasks.kept_networks import shared_network
from tasks.recipe import Output, Pool, StepRun, step
from tasks.spec.base import LocalPath, Truth, is_full, on_this_machine
from tasks.threads import limit_threads
from tasks.torch_vision_schema import define_missing_torchvision_schemas
from tasks.weight_files import (
    WeightsOf,
    check_weights,
    find_header_problem,
    random_seed,
    resolve_weights,
    unchanged_file,
)

if TYPE_CHECKING:
    import torch

# As-is pictures (`side` None): five poolings need 32 pixels; activations take about 0.7 kB per pixel.
MIN_AS_IS_SIDE = 32
MAX_AS_IS_PIXELS = 2**22
_MAX_AS_IS_BATCH_PIXELS = 2**20
# What a GPU gets at once.
BATCHES_PER_CALL = 8

_TITLE = "VGG16"
_REMEDY = "name a safetensors file with torchvision's keys in extractor.weights, or random:0 to try things out"


class Vgg16Spec(ExtractorBase):
    """VGG16 as feature extractor. `side` None means: the picture's own size (the first project's testing).

    `weights` is `imagenet` (torchvision's own download), `random:<seed>`, or a path or URL of safetensors. `compile`
    compiles the network on a GPU; like everything that is done for speed alone it is part of no recipe, whereas
    `precision` is.
    """

    pool: ClassVar[Pool] = "gpu"

    kind: Literal["vgg16"] = "vgg16"
    layer: Layer = "fc7"
    side: Annotated[int, Field(ge=32, le=1024)] | None = 224
    weights: LocalPath = "imagenet"
    batch: int = Field(default=16, ge=1)
    # Left out where it is the default, so that recipes from before it was a choice stay what they are.
    precision: Literal["float32", "float16", "bfloat16"] = Field(default="float32", exclude_if=is_full)
    compile: Truth = Field(default=False, exclude=True)

    @property
    def name(self) -> str:
        """For example `vgg16-pool5-avg-224`."""
        return f"vgg16-{self.layer}-{self.side or 'as-is'}"

    def missing(self) -> list[str]:
        return check_vgg16(on_this_machine(self))

    def facts(self) -> list[tuple[Fact[..., Any], tuple[Any, ...]]]:
        return [(vgg16_digest, (self.weights, self.layer))]

    def keyed(self) -> Self:
        return self.model_copy(update={"weights": vgg16_digest(self.weights, self.layer)})

    def import_weights(self) -> Ref | None:
        algorithm, _, digest = self.keyed().weights.partition(":")
        if algorithm != "sha256":
            return None
        ref: Ref = import_vgg16(sha256=digest, layer=self.layer, path=self.weights)
        return ref

    def load(self, store: Store, weights: Ref | None, device: str) -> Extractor:
        """By torch's network, or in float32 on a CPU by one that is made for CPUs, which all tasks share.

        A GPU gets several batches at once, so that none waits for the next.
        """
        limit_threads()

        def tensors() -> dict[str, np.ndarray]:
            return random_tensors(self) if weights is None else read_weights(store, weights)[0]

        embed: Callable[[Sequence[Any]], npt.NDArray[np.float32]]
        if device == "cpu" and self.precision == "float32":
            key = ("vgg16", self.layer, self.weights, None if weights is None else weights.digest)
            embed = partial(embed_on_cpu, shared_network(key, lambda: WinogradVgg16(self.layer, tensors())), self)
        else:
            embed = partial(embed_pictures, move_vgg16(load_vgg16(self, tensors()), self, device), self)
        return Extractor(
            prepare=lambda data, view, picture: prepare_picture(picture.pixels, self),
            embed=embed,
            batch=self.batch * (1 if device == "cpu" else BATCHES_PER_CALL),
            dimension=DIMENSIONS[self.layer],
        )


def load_vgg16(spec: Vgg16Spec, tensors: dict[str, np.ndarray] | None) -> torch.nn.Module:
    """The network up to `spec.layer`, in float32 and evaluation mode, without gradients, on the CPU.

    It maps (N, 3, H, W) to (N, D): `fc7` and `fc6` are the 4096 activations after the second and the first ReLU of the
    classifier (without its last layer, as the first project had it); `pool5-avg` is the global average of the 7x7
    adaptive pool of the 512 feature maps.

    Args:
        spec: layer, and `random:<seed>` weights where there are no tensors.
        tensors: float16 or float32 by torchvision's names (`tensor_shapes`); None for random ones.
    """
    import torch

    network = _architecture(spec.layer)
    if tensors is None:
        tensors = random_tensors(spec)
    state = {name: torch.from_numpy(np.array(tensors[name], np.float32)) for name in tensor_shapes(spec.layer)}
    network.load_state_dict(state, assign=True)
    network.requires_grad_(False).eval()
    # A fifth to a third faster on the CPU than channels first, and equal to 1e-6 of the largest value.
    fast: torch.nn.Module = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return fast


def random_tensors(spec: Vgg16Spec) -> dict[str, np.ndarray]:
    """Tensors of `random:<seed>`: He initialisation (normal, fan out, ReLU), zero biases, a generator of its own.

    Raises:
        SpecError: the weights' name has no seed.
    """
    import torch

    generator = torch.Generator().manual_seed(random_seed(spec.weights, _TITLE))
    tensors = {}
    for name, shape in tensor_shapes(spec.layer).items():
        tensor = torch.zeros(shape)
        if name.endswith(".weight"):
            # Not by `torch.nn.init`, see `tasks.generators.dcgan.initialise`.
            fan_out = shape[0] * math.prod(shape[2:])
            tensor.normal_(0.0, math.sqrt(2.0) / math.sqrt(fan_out), generator=generator)
        tensors[name] = tensor.numpy()
    return tensors


def embed_pictures(network: torch.nn.Module, spec: Vgg16Spec, pictures: Sequence[Pixels]) -> npt.NDArray[np.float32]:
    """Features of pictures, float32 (N, D), on the device where the network is.

    `spec.batch` pictures of equal size are computed at a time (as-is pictures at most a megapixel, or one). A picture's
    features depend on its neighbours in the batch by float noise only (below 1e-5 of the largest value in float32).
    While a GPU computes a batch the next one is put together.

    Args:
        pictures: uint8 (H, W, 3), RGB; each is brought to its input size by `prepare_picture` first.
    """
    prepared = [prepare_picture(picture, spec) for picture in pictures]
    features = np.empty((len(prepared), DIMENSIONS[spec.layer]), dtype=np.float32)
    running: tuple[list[int], torch.Tensor] | None = None
    for chosen in batches_of_one_size(prepared, spec):
        started = chosen, _forward(network, np.stack([prepared[index] for index in chosen]), _padded_to(network, spec))
        if running is not None:
            _fetch(features, *running)
        running = started
    if running is not None:
        _fetch(features, *running)
    return features


def embed_on_cpu(
    network: Callable[[Pixels], npt.NDArray[np.float32]], spec: Vgg16Spec, pictures: Sequence[Pixels]
) -> npt.NDArray[np.float32]:
    """`embed_pictures` by a network that is made for CPUs (`vgg16_winograd`).

    Its convolutions give a picture the same bits in every batch; the connected layers do so up to float noise.
    """
    prepared = [prepare_picture(picture, spec) for picture in pictures]
    features = np.empty((len(prepared), DIMENSIONS[spec.layer]), dtype=np.float32)
    for chosen in batches_of_one_size(prepared, spec):
        features[chosen] = network(np.stack([prepared[index] for index in chosen]))
    return features


def batches_of_one_size(prepared: Sequence[Pixels], spec: Vgg16Spec) -> list[list[int]]:
    """Indices of pictures that are computed together: of one size, `spec.batch` of them (as-is a megapixel, or one)."""
    by_size: dict[tuple[int, ...], list[int]] = {}
    for index, picture in enumerate(prepared):
        by_size.setdefault(picture.shape, []).append(index)
    batches: list[list[int]] = []
    for (height, width, _), members in by_size.items():
        batch = spec.batch if spec.side else max(1, min(spec.batch, _MAX_AS_IS_BATCH_PIXELS // (height * width)))
        batches += [members[start : start + batch] for start in range(0, len(members), batch)]
    return batches


def move_vgg16(network: torch.nn.Module, spec: Vgg16Spec, device: str) -> torch.nn.Module:
    """The network on its device, in the specification's precision; on a GPU compiled if asked for."""
    import torch

    network = network.to(device=device, dtype=getattr(torch, spec.precision))
    if device == "cuda" and spec.compile:
        network.compile()
    return network


def prepare_picture(picture: Pixels, spec: Vgg16Spec) -> Pixels:
    """A picture at the network's input size: uint8 (H, W, 3) to uint8 (side, side, 3), stretched, antialiased bicubic.

    With `side` None it keeps its own size, except that a side under 32 pixels is enlarged to 32 and that pictures of
    more than 4 megapixels are reduced to them (the activations of larger ones would not fit into memory).
    """
    height, width = picture.shape[:2]
    if spec.side is not None:
        size = (spec.side, spec.side)
    else:
        scale = min(1.0, (MAX_AS_IS_PIXELS / (height * width)) ** 0.5)
        size = (max(MIN_AS_IS_SIDE, int(width * scale)), max(MIN_AS_IS_SIDE, int(height * scale)))
    if size == (width, height):
        return picture
    return np.array(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))


def read_vgg16_tensors(path: Path, layer: str) -> dict[str, np.ndarray]:
    """The tensors that a layer needs, from safetensors with torchvision's keys, float16 or float32 as they are.

    Raises:
        SpecError: `find_problem` has something to say.
    """
    from safetensors import safe_open

    problem = find_problem(path, layer)
    if problem:
        raise SpecError(problem)
    with safe_open(path, framework="np") as file:
        return {name: file.get_tensor(name) for name in tensor_shapes(layer)}


def find_problem(path: Path, layer: str) -> str | None:
    """What keeps a weights file from serving a layer, in one sentence, or None; reads the file's header only."""

    def advice(missing: Sequence[str]) -> str:
        if missing and all(name.startswith("classifier.") for name in missing):
            return "set extractor.layer to pool5-avg, which needs features.* only, or use a file with the classifier"
        return "use another file"

    return find_header_problem(path, tensor_shapes(layer), _TITLE, needed_by=layer, remedy=_REMEDY, advice=advice)


def resolve_vgg16(spec: Vgg16Spec) -> tuple[Vgg16Spec, str | None]:
    """Replace the weights' name by what they are: the spec with `sha256:<hex>`, and the local file for `import_vgg16`.

    `random:<seed>` stays and has no file. `imagenet` and URLs are downloaded once into the cache (`TELLTALE_CACHE`,
    default a folder of the system's temporary one).

    Raises:
        MissingInput: the file is not there, or the download is not reachable.
        DownloadFailed: torchvision's file does not have its checksum, or a URL's is broken off.
        SpecError: the file does not serve the layer, or the seed is no number.
    """
    weights, path = resolve_weights(spec.weights, _weights_of(spec.layer))
    return (spec if path is None else spec.model_copy(update={"weights": weights})), path


@fact(pool="gpu")
def vgg16_digest(weights: str, layer: Layer) -> str:
    """What weights are that an experiment names: `sha256:<hex>` or `random:<seed>`; raises as `resolve_vgg16`."""
    return resolve_vgg16(on_this_machine(Vgg16Spec(weights=weights, layer=layer)))[0].weights


def check_vgg16(spec: Vgg16Spec) -> list[str]:
    """What is missing for `resolve_vgg16`, each with its remedy; downloads nothing and takes three seconds at most."""
    return check_weights(spec.weights, _weights_of(spec.layer))


def _weights_of(layer: str) -> WeightsOf:
    return WeightsOf(
        title=_TITLE,
        prefix="vgg16",
        remedy=_REMEDY,
        imagenet_url=_imagenet_url,
        find_problem=lambda path: find_problem(path, layer),
    )


def _architecture(layer: str) -> torch.nn.Sequential:
    """The network up to a layer, its parameters without values yet."""
    define_missing_torchvision_schemas()
    import torch
    from torch import nn
    from torchvision.models import vgg16

    with torch.device("meta"):
        whole = vgg16(weights=None, init_weights=False)
    parts: OrderedDict[str, nn.Module] = OrderedDict(features=whole.features, avgpool=whole.avgpool)
    if layer == "pool5-avg":
        parts["average"] = nn.AdaptiveAvgPool2d(1)
    parts["flatten"] = nn.Flatten()
    if layer != "pool5-avg":
        parts["classifier"] = whole.classifier[: 2 if layer == "fc6" else 5]
    return nn.Sequential(parts)


def _padded_to(network: torch.nn.Module, spec: Vgg16Spec) -> int:
    """The one size of batch that a compiled network is given, for another it would be compiled again; else 0."""
    on_gpu = next(network.parameters()).is_cuda
    return spec.batch if on_gpu and spec.compile and spec.side else 0


def _forward(network: torch.nn.Module, pixels: Pixels, padded_to: int = 0) -> torch.Tensor:
    """Features of uint8 (N, H, W, 3), (N, D) on the device: a GPU computes them while the caller goes on."""
    import torch

    count, parameter = len(pixels), next(network.parameters())
    device = parameter.device
    if count < padded_to:
        pixels = np.concatenate([pixels, np.repeat(pixels[-1:], padded_to - count, axis=0)])
    with torch.inference_mode(), full_precision(device.type):
        batch = torch.from_numpy(pixels)
        if device.type == "cuda":
            batch = batch.pin_memory()
        batch = batch.to(device, non_blocking=True).permute(0, 3, 1, 2)  # (N, 3, H, W), channels last in memory
        mean, std = _normalisation(device)
        computed: torch.Tensor = network(((batch.float() / 255 - mean) / std).to(parameter.dtype))
    return computed[:count]


@functools.cache
def _normalisation(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation (1, 3, 1, 1), sent once: whoever sends numbers to a GPU waits for all that it has to do."""
    import torch

    with torch.inference_mode():
        mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (MEAN, STD))
    return mean, std


def _fetch(features: npt.NDArray[np.float32], rows: Sequence[int], computed: torch.Tensor) -> None:
    """Wait for a batch's features and put them into their rows."""
    features[rows] = computed.float().cpu().numpy()


def _imagenet_url() -> str:
    define_missing_torchvision_schemas()
    from torchvision.models import VGG16_Weights

    url: str = VGG16_Weights.IMAGENET1K_V1.url
    return url


@step(
    "weights/vgg16",
    version=1,
    label=lambda *, sha256, layer, **_: f"{layer}/{sha256[:12]}",
    unkeyed=("path",),
    paths=("path",),
    pool="gpu",
)
def import_vgg16(run: StepRun, *, sha256: str, layer: str, path: str) -> Output:
    """Bring the tensors that a layer needs into the store, from where an experiment says that its weights are."""
    tensors = read_vgg16_tensors(unchanged_file(path, sha256, _weights_of(layer)), layer)
    parameters = sum(tensor.size for tensor in tensors.values())
    card = {"model": "vgg16", "layer": layer, "keys": "torchvision", "mean": MEAN, "std": STD, "from_sha256": sha256}
    return Output(weight_parts(tensors, card), {"sha256": sha256, "layer": layer, "parameters": parameters})
