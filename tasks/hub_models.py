"""Models in the form of the Hugging Face hub: which files one consists of, in a folder or on the hub.

What is downloaded lies in the hub's own cache (`HF_HOME`), where other programs find it too.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from storage.errors import MissingInput, SpecError
from tasks.variables import needed

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"

# For its own answer, and for finding its address, which has no limit of its own.
ANSWER_WITHIN_S, _PATIENCE_S = 4.0, 1.0


def is_folder(model: str) -> bool:
    """Whether a model's name, as it is on this machine, is the path of a folder: it begins with a dot or a slash."""
    return model.startswith((".", "/"))


def model_files(model: str) -> tuple[dict[str, Path], str | None]:
    """The files of a model by their names, configuration and safetensors, and its commit if it is the hub's.

    A hub id is downloaded, at the commit that its revision has now. What the hub's cache has is not downloaded again,
    and is taken as it is where there is no network.

    Args:
        model: as an experiment has it: a folder's path, or `owner/name`, with `@revision` if it is not the newest.

    Raises:
        MissingInput: there is no such folder, or no download.
        SpecError: it has no weights as safetensors. Weights in pickles (`pytorch_model.bin`) are never read.
    """
    here = needed(model)
    if is_folder(here):
        return _folder_files(Path(here)), None
    folder = _downloaded(here)
    return _folder_files(folder), folder.name


def check_model(model: str) -> list[str]:
    """What is missing for `model_files`, with its remedy; downloads nothing, takes some seconds at most."""
    here = needed(model)
    try:
        if cached_files(model) is not None:
            return []
    except MissingInput as error:
        return list(error.missing)
    except SpecError as error:
        return [str(error)]
    problem = _asked_within(ANSWER_WITHIN_S, lambda: _problem_on_hub(here))
    return [] if problem is None else [_unavailable(here, problem)]


def cached_files(model: str) -> dict[str, Path] | None:
    """`model_files` without a download; None for a model of the hub that its cache does not hold whole."""
    here = needed(model)
    if is_folder(here):
        return _folder_files(Path(here))
    try:
        return _folder_files(_snapshot(here, local_files_only=True))
    except (OSError, ValueError, MissingInput, SpecError):
        return None


def _folder_files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise MissingInput(f"the model {folder}: no such folder; save one with save_pretrained, or name a hub id")
    if not (folder / CONFIG).is_file():
        raise SpecError(f"the model {folder}: it has no {CONFIG}; save one with save_pretrained")
    if (folder / WEIGHTS).is_file():
        names = [CONFIG, WEIGHTS]
    elif (folder / INDEX).is_file():
        names = [CONFIG, INDEX, *_shards(folder / INDEX)]
    else:
        raise SpecError(f"the model {folder}: {_without_weights([path.name for path in folder.iterdir()])}")
    for name in names:
        if not (folder / name).is_file():
            raise MissingInput(f"the model {folder}: {INDEX} names {name}, which is not there; copy the whole model")
    return {name: folder / name for name in names}


def _shards(index: Path) -> list[str]:
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SpecError(f"{index}: expected the index of a model's weights: {error!r}") from error
    for name in names:
        if not isinstance(name, str) or not name.endswith(".safetensors") or "/" in name or "\\" in name:
            raise SpecError(f"{index}: expected names of safetensors files beside it, got {name!r}")
    return names


def _without_weights(names: Collection[str]) -> str:
    pickles = sorted(name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt")))
    instead = f", only {', '.join(pickles[:3])}, and pickles are not read" if pickles else ""
    return f"it has no {WEIGHTS}{instead}; save it with save_pretrained, which writes safetensors"


def _downloaded(model: str) -> Path:
    try:
        return _snapshot(model)
    except (OSError, ValueError) as error:  # the hub's own errors are of both kinds
        raise MissingInput(_unavailable(model, _first_line(error))) from error


def _snapshot(model: str, *, local_files_only: bool = False) -> Path:
    """The folder of a commit in the hub's cache; its name is the commit."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    name, _, revision = model.partition("@")
    patterns = [CONFIG, WEIGHTS, INDEX, "model-*-of-*.safetensors"]
    return Path(
        snapshot_download(name, revision=revision or None, allow_patterns=patterns, local_files_only=local_files_only)
    )


def _problem_on_hub(model: str) -> str | None:
    """What keeps a model from being downloaded, or None."""
    from huggingface_hub import HfApi

    name, _, revision = model.partition("@")
    try:
        found: Any = HfApi().model_info(name, revision=revision or None, timeout=ANSWER_WITHIN_S)
    except Exception as error:  # its client's errors have no root of their own, and differ between its versions
        return _first_line(error)
    names: Sequence[str] = [each.rfilename for each in found.siblings or ()]
    if WEIGHTS not in names and INDEX not in names:
        return _without_weights(names)
    return None if CONFIG in names else f"it has no {CONFIG}"


def _asked_within(seconds: float, ask: Callable[[], str | None]) -> str | None:
    # A thread, since name resolution has no timeout.
    outcome: list[str | None] = []
    thread = threading.Thread(target=lambda: outcome.append(ask()), daemon=True, name="the hub")
    thread.start()
    thread.join(seconds + _PATIENCE_S)
    return outcome[0] if outcome else f"no answer within {seconds:g} s"


def _unavailable(model: str, reason: str) -> str:
    name, _, revision = model.partition("@")
    command = f"hf download {name}" + (f" --revision {revision}" if revision else "")
    return (
        f"the model {model} of the hub: {reason}; download it with `{command}` where there is a network, or name a"
        " folder by a path that begins with a dot or a slash"
    )


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
