"""Networks of torchvision, timm, transformers and ONNX files, and what is read off them: one row per picture.

Every network computes in float32, each picture by itself but for float rounding.
"""

from __future__ import annotations

import difflib
import importlib.util
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from storage.errors import SpecError
from tasks.brought_models import CONFIG, first_line, loading, read_document, refuse_foreign_code
from tasks.data.network_input import Layout, NetworkInput
from tasks.device import full_precision, is_device_error
from tasks.features.base import Array
from tasks.onnx_sessions import open_session
from tasks.torch_vision_schema import define_missing_torchvision_schemas
from tasks.weight_files import WeightsOf, find_header_problem, random_seed, resolve_weights

if TYPE_CHECKING:
    import torch

Library = Literal["torchvision", "timm", "transformers", "onnx"]
Float32 = npt.NDArray[np.float32]

# What a network without a declared side is tried with.
_ANY_SIDE = 224


@dataclass(frozen=True)
class Wanted:
    """What is wanted of a model; fields as `tasks.features.backbone.BackboneSpec` has them."""

    library: Library
    model: str
    output: int | str
    tokens: Literal["mean", "first"]
    maps: Layout | None
    input: NetworkInput

    @property
    def title(self) -> str:
        return f"the {self.library} model {self.model}"

    @property
    def tried(self) -> tuple[int, ...]:
        """The shape of a batch of one picture."""
        side = self.input.side or _ANY_SIDE
        return (1, 3, side, side) if self.input.layout == "channels-first" else (1, side, side, 3)

    def rows(self, found: Any, count: int) -> Any:
        """One row per picture, (N, D), of what a network gives, a tensor or an array.

        Raises:
            SpecError: it is nothing of which a row can be taken.
        """
        found = found[0] if isinstance(found, tuple | list) else found
        shape = tuple(getattr(found, "shape", ()))
        if len(shape) not in (2, 3, 4) or shape[0] != count or 0 in shape:
            raise SpecError(
                f"{self.title}: the output {self.output} of {count} pictures has the shape {shape}, expected "
                f"({count}, D), tokens ({count}, T, D), or maps of four dimensions; name another output"
            )
        if len(shape) == 4:
            return found.mean((2, 3) if (self.maps or self.input.layout) == "channels-first" else (1, 2))
        if len(shape) == 3:
            return found.mean(1) if self.tokens == "mean" else found[:, 0]
        return found


@dataclass(frozen=True)
class Backbone:
    """A network at work: float32 (N, D) of what `NetworkInput.of` gives, which need not be of one size."""

    forward: Callable[[Float32], Float32]  # (N, ...) to (N, D)
    dimension: int
    title: str

    def __call__(self, items: Sequence[Array]) -> Float32:
        """Raises `SpecError` where the network gives no numbers."""
        equal = len({item.shape for item in items}) == 1
        batches = [list(items)] if equal else [[item] for item in items]
        rows = np.concatenate([self.forward(np.stack(batch)) for batch in batches])
        if not np.isfinite(rows).all():
            raise SpecError(f"{self.title} gives features that are no finite numbers; check the declared input")
        return rows


def tried_backbone(wanted: Wanted, forward: Callable[[Float32], Float32]) -> Backbone:
    """A backbone whose dimension is found by a picture of zeros.

    Raises:
        SpecError: the network does not take the declared input.
    """
    try:
        dimension = forward(np.zeros(wanted.tried, np.float32)).shape[1]
    except SpecError:
        raise
    except Exception as error:  # whatever else a library raises here is about the input
        if is_device_error(error):
            raise
        raise SpecError(_refused(wanted, error)) from error
    return Backbone(forward, dimension, wanted.title)


def open_onnx(wanted: Wanted, model: bytes) -> Backbone:
    """An ONNX file on the CPU, in one thread, one picture at a time: some models fix the size of their batch, and those
    that quantise as they go would let one picture's features depend on another's.

    Raises:
        DamagedObject: the bytes are no ONNX model that can be run here, for example one with operators of its own.
        SpecError: it has tensors in other files, or its input or output is not as declared.
    """
    name = Path(wanted.model).name
    session = open_session(model, name)
    given, outputs = session.get_inputs(), {one.name: one for one in session.get_outputs()}
    if (
        len(given) != 1
        or given[0].type != "tensor(float)"
        or not _fits(given[0].shape, wanted.tried, wanted.input.side)
    ):
        ends = ", ".join(f"{one.name} {one.type} {one.shape}" for one in given)
        raise SpecError(f"{name}: expected one input tensor(float) that takes {list(wanted.tried)}, got {ends}")
    if wanted.output not in outputs:
        raise SpecError(f"{name}: it has no output {wanted.output!r}; name one of {', '.join(outputs)}")
    if outputs[str(wanted.output)].type != "tensor(float)":
        kind = outputs[str(wanted.output)].type
        raise SpecError(f"{name}: expected the output {wanted.output} as tensor(float), got {kind}")

    def forward(batch: Float32) -> Float32:
        found = [session.run([wanted.output], {given[0].name: picture[None]})[0] for picture in batch]
        return np.concatenate([wanted.rows(one, 1) for one in found]).astype(np.float32)

    return tried_backbone(wanted, forward)


def _fits(declared: Sequence[Any], tried: tuple[int, ...], side: int | None) -> bool:
    """Whether an ONNX input takes a batch of one: names stand for any number; a fixed side needs a declared one."""
    if len(declared) != len(tried):
        return False
    free = [not isinstance(size, int) for size in declared]
    return all(free[i] or (declared[i] == tried[i] and (side is not None or i == 0 or tried[i] == 3)) for i in range(4))


def missing_library(library: Library) -> list[str]:
    """What is to be installed for a library, with its remedy: timm is an extra."""
    if library == "timm" and importlib.util.find_spec("timm") is None:
        return ["models of timm: pip install 'telltale[timm]' where this worker runs"]
    return []


def open_torch(
    wanted: Wanted, network: torch.nn.Module, answer: Callable[[torch.nn.Module, torch.Tensor], Any], device: str
) -> Backbone:
    """A network of torch at work on a device, in float32."""
    import torch

    network.requires_grad_(False).eval()
    network = network.to(device=device, dtype=torch.float32)

    def forward(batch: Float32) -> Float32:
        with torch.inference_mode(), full_precision(device):
            pixels = torch.from_numpy(batch).to(device)
            rows: Float32 = wanted.rows(answer(network, pixels), len(batch)).float().cpu().numpy()
        return rows

    return tried_backbone(wanted, forward)


def check_torch(
    wanted: Wanted, network: torch.nn.Module, answer: Callable[[torch.nn.Module, torch.Tensor], Any]
) -> None:
    """Find out without weights (a network on the device `meta`) whether it gives the output for the declared input.

    Raises:
        SpecError: it does not.
    """
    import torch

    network.eval()
    try:
        with torch.inference_mode():
            wanted.rows(answer(network, torch.empty(wanted.tried, device="meta")), 1)
    except SpecError:
        raise
    except Exception as error:  # as in `tried_backbone`
        # Some operators cannot be tried without values.
        if not isinstance(error, NotImplementedError) and "meta" not in str(error):
            raise SpecError(_refused(wanted, error)) from error


def _refused(wanted: Wanted, error: BaseException) -> str:
    size = "their own size" if wanted.input.side is None else f"side {wanted.input.side}"
    return f"{wanted.title} does not take pictures of {size} ({first_line(error)}); declare the input that it has"


class _Reached(Exception):
    """Ends a network's computation at the layer whose output is wanted; holds it."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output


def stop_at(network: torch.nn.Module, layer: str, title: str) -> Callable[[torch.nn.Module, torch.Tensor], Any]:
    """What computes a network as far as a layer and gives its output; safe in several threads.

    Raises:
        SpecError: there is no such layer.
    """
    layers = dict(network.named_modules())
    if not layer or layer not in layers:
        raise SpecError(unknown(title, layer, layers))

    def reached(module: torch.nn.Module, given: Any, output: Any) -> None:
        raise _Reached(output)

    layers[layer].register_forward_hook(reached)

    def answer(network: torch.nn.Module, pixels: torch.Tensor) -> Any:
        try:
            network(pixels)
        except _Reached as stop:
            return stop.output
        raise SpecError(f"{title}: it never computes its layer {layer}; name another output")

    return answer


def unknown(title: str, layer: str, layers: Collection[str]) -> str:
    """That there is no such layer, with those that are called alike, or some of them all."""
    alike = difflib.get_close_matches(layer, layers, n=3, cutoff=0.5) or [name for name in layers if name][-3:]
    return f"{title}: it has no layer {layer!r}; there are for example {', '.join(alike)}"


def torchvision_network(wanted: Wanted) -> torch.nn.Module:
    """A torchvision model up to the wanted output, in evaluation mode, with whatever weights it starts with.

    Raises:
        SpecError: there is no such model or no such layer.
    """
    define_missing_torchvision_schemas()
    from torch import nn
    from torchvision import models
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    known = models.list_models(module=models)
    if wanted.model not in known:
        alike = ", ".join(difflib.get_close_matches(wanted.model, known, n=3, cutoff=0.5) or known[:3])
        raise SpecError(f"{wanted.title}: torchvision has no such classification model; there are for example {alike}")
    # Both would draw other first weights than the rest, slowly.
    drawn = {"init_weights": False} if wanted.model in ("googlenet", "inception_v3") else {}
    network = models.get_model(wanted.model, weights=None, **drawn).eval()
    layer = str(wanted.output)
    if layer == "pooled":
        layer, _ = list(network.named_children())[-1]
        setattr(network, layer, nn.Identity())
    try:
        cut: nn.Module = create_feature_extractor(network, {layer: "features"}, suppress_diff_warning=True).eval()
    except ValueError as error:
        names, _ = get_graph_node_names(network, suppress_diff_warning=True)
        raise SpecError(unknown(wanted.title, layer, names)) from error
    return cut


def timm_network(wanted: Wanted) -> torch.nn.Module:
    """A timm model without its classifier; `SpecError` where there is none of that name."""
    import timm

    try:
        network: torch.nn.Module = timm.create_model(wanted.model, pretrained=False, num_classes=0)
    except RuntimeError as error:
        raise SpecError(f"{wanted.title}: {first_line(error)}") from error
    return network


def tensor_shapes(network: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """The tensors by name that a file has to give a network: those of floats."""
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items() if tensor.is_floating_point()}


def fill(network: torch.nn.Module, weights: Path, title: str) -> None:
    """Take a network's floats from safetensors; other tensors in it do not matter.

    Raises:
        SpecError: one is missing, or has another shape.
    """
    from safetensors.torch import load_file

    tensors = load_file(weights)
    wanted = tensor_shapes(network)
    for name, shape in wanted.items():
        found = tuple(tensors[name].shape) if name in tensors else "none"
        if found != shape:
            raise SpecError(f"{title}: its weights have {name} of shape {found}, expected {shape}; use another file")
    network.load_state_dict({name: tensors[name].float() for name in wanted}, strict=False)


def fill_randomly(network: torch.nn.Module, weights: str, library: Library) -> None:
    """Weights of `random:<seed>`: normal ones with He's deviation, biases 0, all other vectors 1.

    Not by `torch.nn.init`, see `tasks.generators.dcgan.initialise`.
    """
    import torch

    generator = torch.Generator().manual_seed(random_seed(weights, library))
    drawn = {}
    for name, shape in tensor_shapes(network).items():
        tensor = torch.zeros(shape)
        if len(shape) > 1:
            tensor.normal_(0.0, math.sqrt(2.0 / max(1, math.prod(shape[1:]))), generator=generator)
        elif not name.endswith(("bias", "running_mean")):
            tensor.fill_(1.0)
        drawn[name] = tensor
    network.load_state_dict(drawn, strict=False)


def weights_of(model: str, find_problem: Callable[[Path], str | None] = lambda path: None) -> WeightsOf:
    """How the weights of a torchvision model are found (`tasks.weight_files`)."""
    return WeightsOf(
        title=model,
        prefix=model,
        remedy="name a safetensors file with torchvision's keys in weights, or random:0 to try things out",
        imagenet_url=lambda: _imagenet_url(model),
        find_problem=find_problem,
    )


def torchvision_file(model: str, weights: str) -> Path:
    """The local file of a torchvision model's weights by their name, downloaded where that is what the name says."""
    _, path = resolve_weights(weights, weights_of(model))
    assert path is not None, "random weights have no file"
    return Path(path)


def file_problem(wanted: Wanted, network: torch.nn.Module, path: Path) -> str | None:
    """What keeps a safetensors file from serving a network of torchvision or timm, in one sentence, or None."""
    return find_header_problem(
        path,
        tensor_shapes(network),
        wanted.model,
        needed_by=f"the output {wanted.output}",
        remedy=f"name a safetensors file with {wanted.library}'s keys",
        advice=lambda missing: "use another file",
    )


def _imagenet_url(model: str) -> str:
    define_missing_torchvision_schemas()
    from torchvision import models

    entries = models.get_model_weights(model)
    if not hasattr(entries, "IMAGENET1K_V1"):
        raise SpecError(f"{model}: torchvision has no weights IMAGENET1K_V1 of it; name a file")
    url: str = entries.IMAGENET1K_V1.url
    return url


@contextmanager
def about_the_model(wanted: Wanted) -> Iterator[None]:
    """Whatever transformers raises about somebody's files in this block is a `SpecError`."""
    try:
        yield
    except SpecError as error:
        raise SpecError(f"{wanted.title}: {error}") from error
    except Exception as error:  # a library of many authors, whose errors have no root
        raise SpecError(f"{wanted.title} cannot be loaded: {first_line(error)}") from error


def transformers_config(wanted: Wanted, folder: Path) -> Any:
    """A model's configuration, of one with a text part as well that of its vision tower."""
    define_missing_torchvision_schemas()
    from transformers import CONFIG_MAPPING
    from transformers.utils import logging

    # Bars and tables of what a checkpoint has beside the vision tower; what lacks is an error here.
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    with about_the_model(wanted):
        document = read_document(folder / CONFIG)
        refuse_foreign_code(document)
        config = CONFIG_MAPPING[document["model_type"]].from_dict(document)
    return getattr(config, "vision_config", config)


def load_transformers(wanted: Wanted, folder: Path) -> torch.nn.Module:
    """A transformers model, its vision tower alone, from a folder's safetensors.

    Raises:
        SpecError: transformers has no image model of this kind, or the files lack weights that the output needs.
    """
    import torch
    from transformers import AutoModel

    config = transformers_config(wanted, folder)
    with about_the_model(wanted), loading:
        network: torch.nn.Module
        network, found = AutoModel.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    missing = sorted(found["missing_keys"])
    if wanted.output != "pooled":
        missing = [name for name in missing if "pooler." not in name]
    if missing:
        raise SpecError(
            f"{wanted.title}: its weights lack {', '.join(missing[:3])}, which the output {wanted.output} needs and "
            f"nobody has trained; name a layer such as {list(dict(network.named_modules()))[-1]!r}, or a number"
        )
    return network


def empty_transformers(wanted: Wanted, folder: Path) -> torch.nn.Module:
    """The same network without weights, where torch's device is `meta`."""
    from transformers import AutoModel

    config = transformers_config(wanted, folder)
    with about_the_model(wanted):
        network: torch.nn.Module = AutoModel.from_config(config, trust_remote_code=False)
    return network


def answer_of(wanted: Wanted, network: torch.nn.Module) -> Callable[[torch.nn.Module, torch.Tensor], Any]:
    """What computes the wanted output of a network; `SpecError` where it has no such layer."""
    if wanted.library == "torchvision":
        return lambda network, pixels: network(pixels)["features"]
    if wanted.output != "pooled" and not isinstance(wanted.output, int):
        return stop_at(network, wanted.output, wanted.title)
    if wanted.library == "timm":
        return lambda network, pixels: network(pixels)
    return lambda network, pixels: _transformers_output(wanted, network, pixels)


def _transformers_output(wanted: Wanted, network: torch.nn.Module, pixels: torch.Tensor) -> Any:
    numbered = isinstance(wanted.output, int)
    found = network(pixel_values=pixels, output_hidden_states=numbered)
    if not isinstance(wanted.output, int):
        if getattr(found, "pooler_output", None) is None:
            raise SpecError(f"{wanted.title} has no pooled output; name a layer, or a number")
        return found.pooler_output
    states = found.hidden_states
    if not -len(states) <= wanted.output < len(states):
        raise SpecError(f"{wanted.title}: it has hidden states 0 to {len(states) - 1}, got {wanted.output}")
    return states[wanted.output]
