"""Where a MobileNetV2's ImageNet weights come from, under torchvision's names, and their way into the store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from storage.errors import SpecError
from storage.weights import weight_parts
from tasks.facts import fact
from tasks.networks.architecture import architecture, torchvision_names
from tasks.recipe import Output, StepRun, step
from tasks.spec.base import on_this_machine
from tasks.spec.detectors import FineTuned
from tasks.torch_vision_schema import define_missing_torchvision_schemas
from tasks.weight_files import (
    WeightsOf,
    check_weights,
    find_header_problem,
    resolve_weights,
    unchanged_file,
)

TRUNK = "features."
IMAGENET_WIDTH = 1.0

_TITLE = "MobileNetV2"
_REMEDY = (
    "name a safetensors file with torchvision's keys in the network's weights (the presets take it from "
    "TELLTALE_MOBILENET), or random:0 to train all layers from nothing"
)


def tensor_shapes(width: float) -> dict[str, tuple[int, ...]]:
    """The tensors that a trunk of a width needs, by torchvision's names, in the order of the network."""
    # The trunk depends on the width alone: any head, classes and side will do.
    shape = architecture(width, "v3", classes=2, side=32)
    shapes: dict[str, tuple[int, ...]] = {}
    for one, (convolution, norm) in zip(shape.convolutions, torchvision_names(shape), strict=True):
        shapes[f"{convolution}.weight"] = (one.outputs, one.inputs // one.groups, one.kernel, one.kernel)
        for of_channels in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{norm}.{of_channels}"] = (one.outputs,)
    return shapes


def find_problem(path: Path, width: float) -> str | None:
    """What keeps a weights file from serving a width, in one sentence, or None; reads the file's header only."""

    def advice(missing: Sequence[str]) -> str:
        return f"use a file for width {width}, or random:0"

    return find_header_problem(
        path, tensor_shapes(width), _TITLE, needed_by=f"width {width}", remedy=_REMEDY, advice=advice
    )


def read_trunk(path: Path) -> dict[str, np.ndarray]:
    """The trunk's floating-point tensors (F16 or F32 in the file) as float32, by torchvision's names.

    Raises:
        SpecError: the file holds none.
    """
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        tensors = {
            name: file.get_tensor(name).astype(np.float32)
            for name in file.keys()  # noqa: SIM118 - safetensors' file is no mapping
            if name.startswith(TRUNK) and file.get_slice(name).get_dtype() in ("F16", "F32")
        }
    if not tensors:
        raise SpecError(f"{_TITLE} weights: {path.name} has no tensors called {TRUNK}*; {_REMEDY}")
    return tensors


def resolve_mobilenet(spec: FineTuned) -> tuple[FineTuned, str | None]:
    """Replace the weights' name by what they are: the spec with `sha256:<hex>`, and the file for `import_mobilenet`.

    `random:<seed>` stays and has no file. `imagenet` and URLs are downloaded once into the cache.

    Raises:
        MissingInput: the file is not there, or the download is not reachable.
        DownloadFailed: torchvision's file does not have its checksum, or a URL's is broken off.
        SpecError: the file does not serve the width (`imagenet` serves 1.0 only), or the seed is no number.
    """
    problem = _no_imagenet_of_this_width(spec)
    if problem:
        raise SpecError(problem)
    weights, path = resolve_weights(spec.weights, _weights_of(spec.width))
    return (spec if path is None else spec.model_copy(update={"weights": weights})), path


@fact(pool="gpu")
def mobilenet_digest(weights: str, width: float) -> str:
    """What weights are that an experiment names: `sha256:<hex>` or `random:<seed>`; raises as `resolve_mobilenet`."""
    return resolve_mobilenet(on_this_machine(FineTuned(name="any", weights=weights, width=width)))[0].weights


def keyed_mobilenet(spec: FineTuned) -> FineTuned:
    """The specification with its weights named by what they are: what a recipe may contain."""
    return spec.model_copy(update={"weights": mobilenet_digest(spec.weights, spec.width)})


def check_mobilenet(spec: FineTuned) -> list[str]:
    """What is missing for `resolve_mobilenet`, each with its remedy; downloads nothing, takes seconds at most."""
    problem = _no_imagenet_of_this_width(spec)
    return [problem] if problem else check_weights(spec.weights, _weights_of(spec.width))


def _no_imagenet_of_this_width(spec: FineTuned) -> str | None:
    """Said before a download that could not serve: torchvision has one width."""
    if spec.weights != "imagenet" or tensor_shapes(spec.width) == tensor_shapes(IMAGENET_WIDTH):
        return None
    return (
        f"{_TITLE} weights imagenet: torchvision has them for width {IMAGENET_WIDTH} only, got width {spec.width}; "
        f"{_REMEDY}"
    )


def _weights_of(width: float) -> WeightsOf:
    return WeightsOf(
        title=_TITLE,
        prefix="mobilenet_v2",
        remedy=_REMEDY,
        imagenet_url=_imagenet_url,
        find_problem=lambda path: find_problem(path, width),
    )


def _imagenet_url() -> str:
    """The first version: the second is 0.3 points better on ImageNet, but by a recipe with label smoothing.

    Such losses make features that transfer less well (Kornblith et al.: Why Do Better Loss Functions Lead to Less
    Transferable Features?, NeurIPS 2021), and here the trunk stays frozen but for its last layers.
    """
    define_missing_torchvision_schemas()
    from torchvision.models import MobileNet_V2_Weights

    url: str = MobileNet_V2_Weights.IMAGENET1K_V1.url
    return url


@step(
    "weights/mobilenet",
    version=1,
    label=lambda *, sha256, **_: sha256[:12],
    unkeyed=("path",),
    paths=("path",),
    pool="gpu",
)
def import_mobilenet(run: StepRun, *, sha256: str, path: str) -> Output:
    """Bring a trunk into the store, in float32, its batch norm not folded yet.

    `path` is what an experiment says of its weights.
    """
    from tasks.networks.mobilenet_network import DEVIATION, MEAN

    tensors = read_trunk(unchanged_file(path, sha256, _weights_of(IMAGENET_WIDTH)))
    parameters = sum(tensor.size for tensor in tensors.values())
    card = {"model": "mobilenet_v2", "keys": "torchvision", "mean": MEAN, "std": DEVIATION, "from_sha256": sha256}
    return Output(weight_parts(tensors, card), {"sha256": sha256, "parameters": parameters})
