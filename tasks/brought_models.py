"""Models of transformers and diffusers that an experiment names, by hub id or by folder: their files, as objects.

A model is its `config.json`, its weights as safetensors and, where it has one, its `preprocessor_config.json`. Nothing
else of a folder or of the hub is read, and its digest is that of these files: a folder with the same files is the same
model, wherever it lies. A hub id is `owner/name@<commit>`, or `owner/name` for what is newest. A file of safetensors
that is named alone is a model without documents.
"""

from __future__ import annotations

import json
import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from storage.digest import digest_of, file_sha256
from storage.errors import MissingInput, SpecError
from storage.objects import Ref
from storage.store import Store
from tasks.brought_files import BroughtFiles, files_output, write_files
from tasks.data.network_input import NetworkInput
from tasks.facts import Question, fact
from tasks.recipe import Output, StepRun, step
from tasks.torch_vision_schema import define_missing_torchvision_schemas
from tasks.variables import needed

ANSWER_WITHIN_S = 3.0

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
WEIGHTS = "model.safetensors"
_INDEX = ".index.json"
# The weights, or the index of several files of them: as transformers calls them, and as diffusers does.
_WEIGHTS = tuple(f"{library}{WEIGHTS}{index}" for library in ("", "diffusion_pytorch_") for index in ("", _INDEX))
_SHARD = re.compile(r"(diffusion_pytorch_)?model-[0-9]+-of-[0-9]+\.safetensors")
# What is downloaded of a hub model.
_SHARDS = ["model-*-of-*.safetensors", "diffusion_pytorch_model-*-of-*.safetensors"]
_PATTERNS = [CONFIG, PREPROCESSOR, *_WEIGHTS, *_SHARDS]
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*(@[\w./-]+)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
# How implementations of transformers' own are called; any other is code from somewhere else.
_ATTENTIONS = (None, "eager", "sdpa")

# While a model is loaded, diffusers and transformers put functions of their own in the place of torch's, and put back
# what they found: two at once would leave the wrong ones there.
loading = threading.Lock()


class BroughtModel(BroughtFiles):
    """A model that is brought into the store, for the workers of the pool `gpu`."""

    @classmethod
    def named(cls, model: str) -> Self:
        """What an experiment names; a hub id without a commit gets that which it has now.

        Raises:
            MissingInput: it is not there, or variables are not set.
            SpecError: it is no model of transformers with safetensors.
        """
        path, digest = model_of_gpu_workers(model)
        return cls(digest=digest, path=path, pool="gpu")

    def bring(self) -> Any:
        """The future of its object."""
        return bring_model.submit(digest=self.digest, path=self.path)


def model_question(model: str) -> Question:
    """The fact that `BroughtModel.named` asks, with its argument."""
    return model_of_gpu_workers, (model,)


@fact(pool="gpu")
def model_of_gpu_workers(model: str) -> tuple[str, str]:
    """The name under which every worker gets the same files (with the commit), and their digest.

    A hub model is downloaded. Raises as `BroughtModel.named`.
    """
    here = needed(model)
    if Path(here).is_file():
        return model, _digest({WEIGHTS: Path(here)})
    folder = _model_folder(here)
    name, _, _ = here.partition("@")
    return model if is_folder(here) else f"{name}@{folder.name}", _digest(model_files(folder))


@step(
    "weights/transformers",
    version=1,
    label=lambda *, digest, **_: digest[:12],
    unkeyed=("path",),
    paths=("path",),
    pool="gpu",
)
def bring_model(run: StepRun, *, digest: str, path: str) -> Output:
    """Bring a model's files into the store, where every worker finds them.

    Raises:
        SpecError: they are not those of the digest.
    """
    files = {WEIGHTS: Path(path)} if Path(path).is_file() else model_files(_model_folder(path))
    if _digest(files) != digest:
        raise SpecError(f"the model {Path(path).name}: it changed since it was planned, or this worker has another one")
    return files_output(files)


@contextmanager
def model_written(store: Store, files: Ref) -> Iterator[Path]:
    """Within this block, the folder of a model that was brought, below the system's temporary one."""
    with tempfile.TemporaryDirectory(prefix="telltale-model-") as folder:
        write_files(store, files, Path(folder))
        yield Path(folder)


def missing_model(model: str, check: Callable[[Path], object]) -> list[str]:
    """What this machine lacks of a model as an experiment has it, with its remedy: nothing, or a sentence.

    A model that it does not have is looked up on the hub, within seconds; only the files that say what it is come then.

    Args:
        model: a hub id, or a folder.
        check: is given a folder with its `config.json` and, where it has one, its `preprocessor_config.json`, and
            raises `SpecError` where that is not what is wanted.
    """
    try:
        here = needed(model)
        folder = _folder_here(here)
        if folder is None:
            folder = _described_on_hub(here)
        else:
            _check_headers(model_files(folder))
        check(folder)
    except MissingInput as error:
        return list(error.missing)
    except SpecError as error:
        return [str(error)]
    return []


def model_files(folder: Path) -> dict[str, Path]:
    """The files that a model is, by their names: in one file of weights, or in the shards that an index names.

    Raises:
        SpecError: some are not there, or its weights are pickles.
    """
    names = [CONFIG, *([PREPROCESSOR] if (folder / PREPROCESSOR).is_file() else [])]
    weights = next((name for name in _WEIGHTS if (folder / name).is_file()), None)
    if weights is not None:
        names += [weights, *(_shards_of(folder / weights) if weights.endswith(_INDEX) else ())]
    elif (folder / CONFIG).is_file():
        raise SpecError(_without_safetensors(folder.name, any(found for one in _PICKLES for found in folder.glob(one))))
    for name in names:
        if not (folder / name).is_file():
            raise SpecError(f"the model in {folder}: it has no {name}; expected a folder as save_pretrained writes it")
    return {name: folder / name for name in names}


def read_document(path: Path) -> dict[str, Any]:
    """A JSON file of a model's.

    Raises:
        SpecError: it is none, or no mapping.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{path.name} of the model is not readable as JSON ({error})") from error
    if not isinstance(document, dict):
        raise SpecError(f"{path.name} of the model: expected a mapping, got a {type(document).__name__}")
    return document


def refuse_foreign_code(config: dict[str, Any]) -> None:
    """Refuse a `config.json` for which transformers would need, or fetch, code that is not its own.

    Raises:
        SpecError: it names such code, or its weights are quantised.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    kind = str(config.get("model_type"))
    if kind not in CONFIG_MAPPING_NAMES:
        needs = "needs code of its own, which is never run" if "auto_map" in config else "is not known"
        raise SpecError(f"model_type of config.json, {kind!r}, {needs}: name a model that this transformers has itself")
    if config.get("quantization_config") is not None:
        raise SpecError("quantization_config in config.json: expected weights in floating point; save it dequantised")
    for key, value in _deep_items(config):
        own = key.strip("_").removesuffix("_internal") not in ("attn_implementation", "experts_implementation")
        if not own and value not in _ATTENTIONS:
            raise SpecError(f"{key} in config.json: expected one of transformers' own, got {value!r}; take it out")


def input_difference(folder: Path, declared: NetworkInput) -> str | None:
    """How what a network is given differs from what its `preprocessor_config.json` would give it; None if it does not.

    Both are made of one picture and compared, whatever the file's fields mean to its kind of processor. Without a file
    there is nothing to compare; one of which transformers makes no image processor cannot be.

    Raises:
        SpecError: the file is no JSON.
    """
    import numpy as np

    path = folder / PREPROCESSOR
    if not path.is_file():
        return None
    document = read_document(path)
    # Wider than high, and without any two pixels that are alike, so that every crop and every filter shows.
    pixels = np.random.default_rng(0).integers(0, 256, (300, 420, 3), dtype=np.uint8)
    given = declared.of(pixels)
    try:
        expected = _processed(folder, pixels)
    except Exception as error:  # whatever a processor trips over
        return f"of {PREPROCESSOR} this transformers makes no image processor ({first_line(error)})"
    said = ", ".join(f"{key} {value}" for key, value in document.items() if key not in _UNSEEN)
    if declared.layout == "channels-last":
        given = given.transpose(2, 0, 1)
    if given.shape != expected.shape:
        shapes = [" x ".join(map(str, one.shape)) for one in (expected, given)]
        return f"{PREPROCESSOR} gives {shapes[0]} of a picture of 420 x 300, the declared input {shapes[1]} ({said})"
    levels = np.abs(given - expected).max(axis=(1, 2)) * 255 * np.array(declared.std)
    largest = float(levels.max())
    return (
        None
        if largest < _SAME_LEVELS
        else f"{PREPROCESSOR} gives other values, by up to {largest:.0f} of 255 levels ({said})"
    )


# Two libraries that resize by the same filter round differently, by less; two filters differ by more.
_SAME_LEVELS = 2.5
# Fields that say nothing about what a network is given.
_UNSEEN = frozenset({"image_processor_type", "feature_extractor_type", "processor_class", "data_format", "device"})


def _processed(folder: Path, pixels: Any) -> Any:
    define_missing_torchvision_schemas()
    from PIL import Image
    from transformers import AutoImageProcessor

    # Pillow's resizes are those of the library's first years, in which most models were trained.
    processor = AutoImageProcessor.from_pretrained(
        folder, trust_remote_code=False, use_safetensors=True, local_files_only=True, backend="pil"
    )
    return processor(Image.fromarray(pixels), return_tensors="np")["pixel_values"][0]


def first_line(error: BaseException) -> str:
    """The beginning of an error's text, or its kind where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def revision_of(model: str) -> tuple[str, str | None]:
    """A hub id and its revision: `owner/name@<commit>`, or `owner/name` for what is newest."""
    name, _, revision = model.partition("@")
    return name, revision or None


def shown_name(model: str) -> str:
    """A model for people: its hub id, or what its folder is called, for where that lies is nobody's business."""
    return model if _HUB_ID.fullmatch(model) else Path(model).name


def is_folder(here: str) -> bool:
    """Whether a model's name, as it is on this machine, is the path of a folder and no hub id."""
    return here.startswith((".", "/")) or Path(here).is_dir()


def _folder_here(here: str) -> Path | None:
    """The folder of a model that this machine has; None of a hub model that is not wholly in the cache.

    Raises:
        MissingInput: there is no such folder.
        SpecError: the name is neither a hub id nor a path.
    """
    if is_folder(here):
        if not Path(here).is_dir():
            raise MissingInput(
                f"the model in {here}: no such folder; name one as save_pretrained writes it, or a hub id"
            )
        return Path(here)
    if not _HUB_ID.fullmatch(here):
        raise SpecError(f"model: expected owner/name@<commit>, owner/name or the path of a folder, got {here!r}")
    from huggingface_hub import snapshot_download

    name, revision = revision_of(here)
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=_PATTERNS, local_files_only=True))
        model_files(folder)
    except (OSError, ValueError, SpecError):  # nothing of it is in the cache, or not all
        return None
    return folder


def _model_folder(here: str) -> Path:
    """The folder of a model; one of the hub is brought into the cache first, in its newest state or as it is there."""
    if is_folder(here):
        found = _folder_here(here)
        assert found is not None
        return found
    from huggingface_hub import HfApi, snapshot_download

    name, revision = revision_of(here)
    try:
        if not _COMMIT.fullmatch(revision or ""):
            HfApi().model_info(name, revision=revision, timeout=ANSWER_WITHIN_S)  # else nobody answers for longer
        return Path(snapshot_download(name, revision=revision, allow_patterns=_PATTERNS))
    except Exception as error:
        found = _folder_here(here)
        if found is None:
            raise MissingInput(_not_there(here, error)) from error
        return found


def _described_on_hub(here: str) -> Path:
    """The folder of the cache with the documents of a hub model.

    Raises:
        MissingInput: the hub cannot be reached, or has no such model.
        SpecError: it has no safetensors.
    """
    from huggingface_hub import HfApi, hf_hub_download

    name, revision = revision_of(here)
    try:
        found = HfApi().model_info(name, revision=revision, timeout=ANSWER_WITHIN_S)
        names = {sibling.rfilename for sibling in found.siblings or ()}
        described = [
            Path(hf_hub_download(name, one, revision=found.sha, etag_timeout=ANSWER_WITHIN_S)).parent
            for one in (CONFIG, PREPROCESSOR)
            if one in names
        ]
    except Exception as error:
        raise MissingInput(_not_there(here, error)) from error
    if not described:
        raise SpecError(f"the model {here}: it has no {CONFIG}; expected a model of transformers or diffusers")
    if not names & {*_WEIGHTS}:
        raise SpecError(_without_safetensors(here, any(Path(one).match(kind) for one in names for kind in _PICKLES)))
    return described[0]


def _not_there(here: str, error: Exception) -> str:
    name, revision = revision_of(here)
    asked = f"{name} --revision {revision}" if revision else name
    return (
        f"the model {here}: not in the local cache with safetensors, and the hub says {type(error).__name__}; download "
        f"it with `hf download {asked}` where there is a network (`hf auth login` first if it is gated), or name a "
        "local folder"
    )


def _without_safetensors(name: str, has_pickles: bool) -> str:
    found = "its weights are pickles, which are never read" if has_pickles else f"it has no {WEIGHTS}"
    return (
        f"the model {name}: {found}; load it once where you trust it and write it with save_pretrained, which makes "
        "safetensors, or take a revision that has them"
    )


def _shards_of(index: Path) -> list[str]:
    places = read_document(index).get("weight_map")
    names = set(map(str, places.values())) if isinstance(places, dict) else set()
    if not names or not all(map(_SHARD.fullmatch, names)):
        shown = ", ".join(sorted(names)[:3]) or "none"
        raise SpecError(f"{index.name}: expected files named like model-00001-of-00002.safetensors, got {shown}")
    return sorted(names)


def _check_headers(files: dict[str, Path]) -> None:
    from safetensors import SafetensorError, safe_open

    for name, path in files.items():
        if path.suffix == ".safetensors":
            try:
                with safe_open(path, framework="np") as file:
                    file.keys()
            except (SafetensorError, OSError) as error:
                raise SpecError(
                    f"{name} is not readable as safetensors ({error}); if it is a pointer of Git LFS, `git lfs pull`"
                ) from error


def _digest(files: dict[str, Path]) -> str:
    return digest_of({name: file_sha256(path) for name, path in files.items()})


def _deep_items(document: Any) -> Iterator[tuple[str, Any]]:
    """Every key of a JSON document with its value, also of mappings within."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield key, value
            yield from _deep_items(value)
    elif isinstance(document, list):
        for item in document:
            yield from _deep_items(item)
