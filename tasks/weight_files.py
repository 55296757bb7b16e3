"""Where ImageNet weights come from: a name, a path or an address becomes a checked local safetensors file.

What is downloaded lies in the cache (`TELLTALE_CACHE`, default a folder of the system's temporary one).
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from storage.digest import file_sha256
from storage.errors import DownloadFailed, MissingInput, SpecError
from storage.paths import with_home
from tasks.cache import cache_folder

ANSWER_WITHIN_S = 3.0


@dataclass(frozen=True)
class WeightsOf:
    """Whose weights they are.

    Args:
        title: the network's name in messages, such as `VGG16`.
        prefix: what names of files begin with that are downloaded from an address.
        remedy: what to do where there is no file.
        imagenet_url: gives the address of torchvision's own file, whose name ends in the start of its sha256.
        find_problem: what keeps a file from serving the network, in one sentence, or None (`find_header_problem`).
    """

    title: str
    prefix: str
    remedy: str
    imagenet_url: Callable[[], str]
    find_problem: Callable[[Path], str | None]


def resolve_weights(weights: str, network: WeightsOf) -> tuple[str, str | None]:
    """Replace the weights' name by what they are: `sha256:<hex>`, and the local file.

    `random:<seed>` stays and has no file. `imagenet` and URLs are downloaded once into the cache.

    Raises:
        MissingInput: the file is not there, or the download is not reachable.
        DownloadFailed: torchvision's file does not have its checksum, or a URL's is broken off.
        SpecError: the file does not serve the network, or the seed is no number.
    """
    if weights.startswith("random:"):
        random_seed(weights, network.title)
        return weights, None
    path = _local_file(weights, network)
    problem = network.find_problem(path)
    if problem:
        raise SpecError(problem)
    return f"sha256:{file_sha256(path)}", str(path)


def check_weights(weights: str, network: WeightsOf) -> list[str]:
    """What is missing for `resolve_weights`, each with its remedy; downloads nothing, takes three seconds at most."""
    if weights.startswith("random:"):
        try:
            random_seed(weights, network.title)
        except SpecError as error:
            return [str(error)]
        return []
    path = _expected_file(weights, network)
    if path.is_file():
        problem = network.find_problem(path)
        return [problem] if problem else []
    if weights == "imagenet" and _torchvision_download(network).is_file():
        return []
    url = network.imagenet_url() if weights == "imagenet" else weights
    if not _is_url(url):
        return [_missing_file(weights, network)]
    reason = _unreachable(url)
    if reason is None:
        return []
    return [f"{network.title} weights {weights}: {url} does not answer ({reason}); {network.remedy}"]


def find_header_problem(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    title: str,
    *,
    needed_by: str,
    remedy: str,
    advice: Callable[[Sequence[str]], str],
) -> str | None:
    """What keeps a file from holding tensors of these shapes as F16 or F32, in one sentence, or None.

    Reads the file's header only; other tensors in it do not matter.

    Args:
        path: the file, safetensors or not.
        shapes: the tensors that are needed, by name.
        title: the network's name.
        needed_by: the part or form of the network that needs them, for the message.
        remedy: what to do with a file that is not readable.
        advice: what to do with a file that lacks some of the tensors (their names are given, in order), or that has
            them all, but of other shapes (no names are given).
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            names = set(file.keys())
            slices = {name: file.get_slice(name) for name in shapes if name in names}
            found = {name: tuple(piece.get_shape()) for name, piece in slices.items()}
            dtypes = sorted({piece.get_dtype() for piece in slices.values()} - {"F16", "F32"})
    except (SafetensorError, OSError) as error:
        return f"{title} weights: {path.name} is not readable as safetensors ({error}); {remedy}"
    missing = [name for name in shapes if name not in names]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        lacks = f"{', '.join(missing[:3])}{more}"
        return f"{title} weights: {path.name} lacks {lacks}, which {needed_by} needs; {advice(missing)}"
    if dtypes:
        return f"{title} weights: {path.name} holds {', '.join(dtypes)}, expected F16 or F32; convert it"
    for name, shape in shapes.items():
        if found[name] != shape:
            return f"{title} weights: {path.name} has {name} of shape {found[name]}, expected {shape}; {advice(())}"
    return None


def random_seed(weights: str, title: str) -> int:
    """The seed of `random:<seed>`, which has 64 bits; `SpecError` for anything else."""
    match = re.fullmatch(r"random:([0-9]{1,20})", weights)
    if match is None or int(match[1]) >= 2**64:
        below = " with a seed below 2**64" if re.fullmatch(r"random:[0-9]+", weights) else ""
        raise SpecError(f"random {title} weights are named like random:0{below}, got {weights!r}")
    return int(match[1])


def unchanged_file(weights: str, sha256: str, network: WeightsOf) -> Path:
    """The local file of weights by their name, downloaded where this machine has not got it yet.

    Raises:
        SpecError: it is no longer what it was when it was resolved.
    """
    path = _local_file(weights, network)
    found = file_sha256(path)
    if found != sha256:
        raise SpecError(
            f"{network.title} weights: {path.name} has sha256 {found}, expected {sha256}; it changed meanwhile"
        )
    return path


def _is_url(weights: str) -> bool:
    return weights.startswith(("http://", "https://"))


def _missing_file(weights: str, network: WeightsOf) -> str:
    return f"{network.title} weights {weights}: no such file; {network.remedy}"


def _expected_file(weights: str, network: WeightsOf) -> Path:
    """Where weights lie, or will lie once they are downloaded."""
    if weights == "imagenet":
        return cache_folder() / f"{Path(network.imagenet_url()).stem}.safetensors"
    if _is_url(weights):
        return cache_folder() / f"{network.prefix}-{hashlib.sha256(weights.encode()).hexdigest()[:16]}.safetensors"
    return Path(with_home(weights))


def _torchvision_download(network: WeightsOf) -> Path:
    """Where torchvision itself keeps its file, if the user has used it before."""
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / Path(network.imagenet_url()).name


def _local_file(weights: str, network: WeightsOf) -> Path:
    path = _expected_file(weights, network)
    if path.is_file():
        return path
    if weights != "imagenet" and not _is_url(weights):
        raise MissingInput(_missing_file(weights, network))

    try:
        if weights == "imagenet":
            _convert_imagenet(network, path)
        else:
            _download_safetensors(weights, path, network.title)
    except (urllib.error.URLError, OSError) as error:
        raise MissingInput(
            f"{network.title} weights {weights}: the download failed ({error}); {network.remedy}"
        ) from error
    return path


def _download_safetensors(url: str, target: Path, title: str) -> None:
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
        raise DownloadFailed(f"{title} weights: {url} is broken off or no safetensors ({error}); try again") from error
    finally:
        partial.unlink(missing_ok=True)


def _convert_imagenet(network: WeightsOf, target: Path) -> None:
    """Torchvision's file, downloaded unless it is there, verified by the checksum in its name, as safetensors."""
    import torch
    from safetensors.torch import save_file

    known = _torchvision_download(network)
    folder = known.parent if known.is_file() else target.parent
    try:
        state = torch.hub.load_state_dict_from_url(
            network.imagenet_url(), str(folder), map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except RuntimeError as error:
        raise DownloadFailed(f"{network.title} weights imagenet: {error}; {network.remedy}") from error
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
