"""VGG16 as a feature extractor: configuration D of Simonyan & Zisserman 2015, with torchvision's layout and weights."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import threading
import urllib.error
import urllib.request
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from storage.errors import DownloadFailed, MissingInput, SpecError
from storage.weights import weight_parts
from tasks.recipe import Output, StepRun, step
from tasks.spec import Vgg16Spec
from tasks.torch_vision_schema import define_missing_torchvision_schemas

if TYPE_CHECKING:
    import torch

Pixels = npt.NDArray[np.uint8]

DIMENSIONS = {"fc7": 4096, "fc6": 4096, "pool5-avg": 512}
MEAN = (0.485, 0.456, 0.406)  # of RGB in 0..1, as the weights were trained
STD = (0.229, 0.224, 0.225)

# As-is pictures (`side` None): five poolings need 32 pixels; activations take about 0.7 kB per pixel.
MIN_AS_IS_SIDE = 32
MAX_AS_IS_PIXELS = 2**22
_MAX_AS_IS_BATCH_PIXELS = 2**20

CACHE_SETTING = "TELLTALE_CACHE"
ANSWER_WITHIN_S = 3.0

# Convolutions by their index in `features`: (output channels, input channels), kernels of 3x3.
_CONVOLUTIONS = {
    0: (64, 3),
    2: (64, 64),
    5: (128, 64),
    7: (128, 128),
    10: (256, 128),
    12: (256, 256),
    14: (256, 256),
    17: (512, 256),
    19: (512, 512),
    21: (512, 512),
    24: (512, 512),
    26: (512, 512),
    28: (512, 512),
}
# Fully connected layers by their index in `classifier`: (outputs, inputs).
_CONNECTED = {0: (4096, 512 * 7 * 7), 3: (4096, 4096)}
_CONNECTED_OF_LAYER = {"pool5-avg": (), "fc6": (0,), "fc7": (0, 3)}

_REMEDY = "name a safetensors file with torchvision's keys in extractor.weights, or random:0 to try things out"


def tensor_shapes(layer: str) -> dict[str, tuple[int, ...]]:
    """The tensors that a layer needs, by torchvision's names, in the order of the network."""
    shapes: dict[str, tuple[int, ...]] = {}
    for index, (outputs, inputs) in _CONVOLUTIONS.items():
        shapes[f"features.{index}.weight"] = (outputs, inputs, 3, 3)
        shapes[f"features.{index}.bias"] = (outputs,)
    for index in _CONNECTED_OF_LAYER[layer]:
        shapes[f"classifier.{index}.weight"] = _CONNECTED[index]
        shapes[f"classifier.{index}.bias"] = _CONNECTED[index][:1]
    return shapes


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
        state = _random_tensors(spec.layer, random_seed(spec.weights))
    else:
        state = {name: torch.from_numpy(np.array(tensors[name], np.float32)) for name in tensor_shapes(spec.layer)}
    network.load_state_dict(state, assign=True)
    network.requires_grad_(False).eval()
    # A fifth to a third faster on the CPU than channels first, and equal to 1e-6 of the largest value.
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def embed_pictures(network: torch.nn.Module, spec: Vgg16Spec, pictures: Sequence[Pixels]) -> npt.NDArray[np.float32]:
    """Features of pictures, float32 (N, D), on the device where the network is.

    `spec.batch` pictures of equal size are computed at a time (as-is pictures at most a megapixel, or one). A picture's
    features depend on its neighbours in the batch by float noise only (below 1e-5 of the largest value).

    Args:
        pictures: uint8 (H, W, 3), RGB; each is brought to its input size by `prepare_picture` first.
    """
    prepared = [prepare_picture(picture, spec) for picture in pictures]
    features = np.empty((len(prepared), DIMENSIONS[spec.layer]), dtype=np.float32)
    by_size: dict[tuple[int, ...], list[int]] = {}
    for index, picture in enumerate(prepared):
        by_size.setdefault(picture.shape, []).append(index)
    for (height, width, _), members in by_size.items():
        batch = spec.batch if spec.side else max(1, min(spec.batch, _MAX_AS_IS_BATCH_PIXELS // (height * width)))
        for start in range(0, len(members), batch):
            chosen = members[start : start + batch]
            features[chosen] = _forward(network, np.stack([prepared[index] for index in chosen]))
    return features


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
    from safetensors import SafetensorError, safe_open

    expected = tensor_shapes(layer)
    try:
        with safe_open(path, framework="np") as file:
            names = set(file.keys())
            slices = {name: file.get_slice(name) for name in expected if name in names}
            shapes = {name: tuple(piece.get_shape()) for name, piece in slices.items()}
            dtypes = sorted({piece.get_dtype() for piece in slices.values()} - {"F16", "F32"})
    except (SafetensorError, OSError) as error:
        return f"VGG16 weights: {path.name} is not readable as safetensors ({error}); {_REMEDY}"
    missing = [name for name in expected if name not in names]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        advice = "use another file"
        if all(name.startswith("classifier.") for name in missing):
            advice = "set extractor.layer to pool5-avg, which needs features.* only, or use a file with the classifier"
        return f"VGG16 weights: {path.name} lacks {', '.join(missing[:3])}{more}, which {layer} needs; {advice}"
    if dtypes:
        return f"VGG16 weights: {path.name} holds {', '.join(dtypes)}, expected F16 or F32; convert it"
    for name, shape in expected.items():
        if shapes[name] != shape:
            return f"VGG16 weights: {path.name} has {name} of shape {shapes[name]}, expected {shape}; use another file"
    return None


def resolve_vgg16(spec: Vgg16Spec) -> tuple[Vgg16Spec, str | None]:
    """Replace the weights' name by what they are: the spec with `sha256:<hex>`, and the local file for `import_vgg16`.

    `random:<seed>` stays and has no file. `imagenet` and URLs are downloaded once into the cache (`TELLTALE_CACHE`,
    default a folder of the system's temporary one).

    Raises:
        MissingInput: the file is not there, or the download is not reachable.
        DownloadFailed: torchvision's file does not have its checksum, or a URL's is broken off.
        SpecError: the file does not serve the layer, or the seed is no number.
    """
    if spec.weights.startswith("random:"):
        random_seed(spec.weights)
        return spec, None
    path = _local_file(spec.weights)
    problem = find_problem(path, spec.layer)
    if problem:
        raise SpecError(problem)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return spec.model_copy(update={"weights": f"sha256:{sha256}"}), str(path)


def check_vgg16(spec: Vgg16Spec) -> list[str]:
    """What is missing for `resolve_vgg16`, each with its remedy; downloads nothing and takes three seconds at most."""
    if spec.weights.startswith("random:"):
        try:
            random_seed(spec.weights)
        except SpecError as error:
            return [str(error)]
        return []
    path = _expected_file(spec.weights)
    if path.is_file():
        problem = find_problem(path, spec.layer)
        return [problem] if problem else []
    if spec.weights == "imagenet" and _torchvision_download().is_file():
        return []
    url = _imagenet_url() if spec.weights == "imagenet" else spec.weights
    if not _is_url(url):
        return [_missing_file(spec.weights)]
    reason = _unreachable(url)
    return [f"VGG16 weights {spec.weights}: {url} does not answer ({reason}); {_REMEDY}"] if reason else []


def random_seed(weights: str) -> int:
    """The seed of `random:<seed>`; `SpecError` for anything else."""
    match = re.fullmatch(r"random:(\d+)", weights)
    if match is None:
        raise SpecError(f"random VGG16 weights are named like random:0, got {weights!r}")
    return int(match[1])


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


def _random_tensors(layer: str, seed: int) -> dict[str, torch.Tensor]:
    """He initialisation (normal, fan out, ReLU) and zero biases, from a generator of its own."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in tensor_shapes(layer).items():
        tensors[name] = torch.zeros(shape)
        if name.endswith(".weight"):
            torch.nn.init.kaiming_normal_(tensors[name], mode="fan_out", nonlinearity="relu", generator=generator)
    return tensors


def _forward(network: torch.nn.Module, pixels: Pixels) -> npt.NDArray[np.float32]:
    """Features of uint8 (N, H, W, 3)."""
    import torch

    device = next(network.parameters()).device
    with torch.inference_mode(), _full_precision(device):
        batch = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2)  # (N, 3, H, W), channels last in memory
        mean = torch.tensor(MEAN, device=device).view(1, 3, 1, 1)
        std = torch.tensor(STD, device=device).view(1, 3, 1, 1)
        features: npt.NDArray[np.float32] = network((batch.float() / 255 - mean) / std).cpu().numpy()
    return features


def _full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Without TF32, which would make a GPU's features differ from a CPU's in the third digit."""
    import torch

    if device.type != "cuda":
        return nullcontext()
    precise: AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    return precise


def _is_url(weights: str) -> bool:
    return weights.startswith(("http://", "https://"))


def _missing_file(weights: str) -> str:
    return f"VGG16 weights {weights}: no such file; {_REMEDY}"


def _imagenet_url() -> str:
    define_missing_torchvision_schemas()
    from torchvision.models import VGG16_Weights

    url: str = VGG16_Weights.IMAGENET1K_V1.url
    return url


def _cache() -> Path:
    """A folder of this user alone: what lies in it is trusted as weights."""
    configured = os.environ.get(CACHE_SETTING)
    folder = Path(configured) if configured else Path(tempfile.gettempdir()) / f"telltale-cache-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise SpecError(f"the cache {folder} belongs to another user; set {CACHE_SETTING} to a folder of your own")
    return folder


def _expected_file(weights: str) -> Path:
    """Where weights lie, or will lie once they are downloaded."""
    if weights == "imagenet":
        return _cache() / f"{Path(_imagenet_url()).stem}.safetensors"
    if _is_url(weights):
        return _cache() / f"vgg16-{hashlib.sha256(weights.encode()).hexdigest()[:16]}.safetensors"
    return Path(weights).expanduser()


def _torchvision_download() -> Path:
    """Where torchvision itself keeps its file, if the user has used it before."""
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / Path(_imagenet_url()).name


def _local_file(weights: str) -> Path:
    path = _expected_file(weights)
    if path.is_file():
        return path
    if weights != "imagenet" and not _is_url(weights):
        raise MissingInput(_missing_file(weights))

    try:
        if weights == "imagenet":
            _convert_imagenet(path)
        else:
            _download_safetensors(weights, path)
    except (urllib.error.URLError, OSError) as error:
        raise MissingInput(f"VGG16 weights {weights}: the download failed ({error}); {_REMEDY}") from error
    return path


def _download_safetensors(url: str, target: Path) -> None:
    """What an address offers, kept only if it is complete: safetensors say in their head how long they are."""
    import torch
    from safetensors import SafetensorError, safe_open

    partial = target.with_suffix(f".partial-{os.getpid()}")
    try:
        torch.hub.download_url_to_file(url, str(partial), progress=False)
        with safe_open(partial, framework="np"):
            pass
        partial.replace(target)
    except SafetensorError as error:
        raise DownloadFailed(f"VGG16 weights: {url} is broken off or no safetensors ({error}); try again") from error
    finally:
        partial.unlink(missing_ok=True)


def _convert_imagenet(target: Path) -> None:
    """Torchvision's file, downloaded unless it is there, verified by the checksum in its name, as safetensors."""
    import torch
    from safetensors.torch import save_file

    known = _torchvision_download()
    folder = known.parent if known.is_file() else target.parent
    try:
        state = torch.hub.load_state_dict_from_url(
            _imagenet_url(), str(folder), map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except RuntimeError as error:
        raise DownloadFailed(f"VGG16 weights imagenet: {error}; {_REMEDY}") from error
    # Written under another name first: an interrupted conversion must not look finished.
    partial = target.with_suffix(f".partial-{os.getpid()}")
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, partial)
    partial.replace(target)
    if folder == target.parent:
        (folder / known.name).unlink()


def _unreachable(url: str) -> str | None:
    """Why an address does not answer within three seconds, or None. A thread, since name resolution has no timeout."""
    outcome: list[str | None] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(url, timeout=ANSWER_WITHIN_S).close()
            outcome.append(None)
        except (OSError, ValueError) as error:
            outcome.append(str(error))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER_WITHIN_S)
    return outcome[0] if outcome else f"no answer within {ANSWER_WITHIN_S:.0f} s"


@step("weights/vgg16", version=1, label=lambda *, sha256, layer, **_: f"{layer}/{sha256[:12]}", unkeyed=("path",))
def import_vgg16(run: StepRun, *, sha256: str, layer: str, path: str) -> Output:
    """Bring the tensors that a layer needs from a local safetensors file into the store."""
    with Path(path).open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise SpecError(f"VGG16 weights: {Path(path).name} has sha256 {found}, expected {sha256}; it changed meanwhile")
    tensors = read_vgg16_tensors(Path(path), layer)
    parameters = sum(tensor.size for tensor in tensors.values())
    card = {"model": "vgg16", "layer": layer, "keys": "torchvision", "mean": MEAN, "std": STD, "from_sha256": sha256}
    return Output(weight_parts(tensors, card), {"sha256": sha256, "layer": layer, "parameters": parameters})
