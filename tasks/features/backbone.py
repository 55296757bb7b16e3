"""Features of somebody else's image model: of torchvision, timm or transformers, or an ONNX file.

Nothing is guessed: how a picture enters the model is declared, and so is what is taken of it. Weights are safetensors,
or the ONNX file itself; no program of a model's is run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from storage.digest import digest_of, file_sha256
from storage.errors import MissingInput, OtherVersion, SpecError, StoreError
from storage.objects import Ref
from storage.store import Store
from tasks.brought_files import files_output, read_file, write_files
from tasks.data.network_input import Layout, NetworkInput
from tasks.facts import Fact, fact, library_version
from tasks.features.backbone_networks import (
    Backbone,
    Library,
    Wanted,
    answer_of,
    check_torch,
    empty_transformers,
    file_problem,
    fill,
    fill_randomly,
    load_transformers,
    missing_library,
    open_onnx,
    open_torch,
    timm_network,
    torchvision_file,
    torchvision_network,
    weights_of,
)
from tasks.features.base import Extractor, ExtractorBase
from tasks.features.kept_networks import shared_network
from tasks.hub_models import CONFIG, WEIGHTS, cached_files, check_model, is_folder, model_files
from tasks.recipe import Output, Pool, StepRun, step
from tasks.spec.base import LocalPath, Spec
from tasks.threads import limit_threads
from tasks.variables import needed
from tasks.weight_files import check_weights, random_seed

if TYPE_CHECKING:
    import torch

# The distribution that computes it, where the step that embeds does not name it.
_DISTRIBUTIONS: dict[Library, str] = {"timm": "timm", "transformers": "transformers", "onnx": "onnxruntime"}


class BackboneSpec(ExtractorBase):
    """Features of an image model.

    | library | model | weights |
    |---|---|---|
    | torchvision | a name of its classification models | `imagenet`, `random:<seed>`, or a path or URL of safetensors |
    | timm | a name of its models | a hub id such as `timm/<model>`, `random:<seed>`, or a path of safetensors |
    | transformers | a folder or a hub id | its own: not named |
    | onnx | a path | its own: not named |

    A path begins with a dot or a slash, once variables are filled in. A hub id may name its revision, `owner/name@...`.

    `output` `pooled` is what the last layer of a classifier reads (torchvision, timm), or a transformers model's
    `pooler_output`; of a model with a text part as well its vision tower is taken alone, before the projection to what
    both share. Else `output` names a layer, or by its number one of the `hidden_states` of a transformers model; of an
    ONNX file it always names one of the outputs. Of `tokens` (N, T, D) the `mean` is taken, or the `first`. `maps` are
    averaged over their places: (N, C, h, w), or (N, h, w, C) where they are `channels-last`, as in torchvision's Swin
    Transformers; unless that is said they are as the input is.
    """

    kind: Literal["backbone"] = "backbone"
    library: Library
    model: LocalPath = Field(min_length=1)
    weights: LocalPath | None = None
    output: Annotated[int, Field(ge=-1000, le=1000)] | Annotated[str, Field(min_length=1)] = "pooled"
    tokens: Literal["mean", "first"] = "mean"
    maps: Layout | None = None
    input: NetworkInput
    batch: int = Field(default=16, ge=1)
    # Decides the features as well; planning finds it where the step that embeds does not name the library.
    library_version: str | None = Field(default=None, exclude_if=lambda version: version is None)

    @property
    def pool(self) -> Pool:  # type: ignore[override]
        """ONNX files are computed on the CPU."""
        return "cpu" if self.library == "onnx" else "gpu"

    @property
    def wanted(self) -> Wanted:
        """What its network is to compute."""
        return Wanted(self.library, self.model, self.output, self.tokens, self.maps, self.input)

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        has_own = self.library in ("transformers", "onnx")
        if has_own and self.weights is not None and not self.weights.startswith("sha256:"):
            raise ValueError(f"weights: a model of {self.library} has its own, name it alone")
        if not has_own and self.weights is None:
            raise ValueError(f"weights: a model of {self.library} needs them named")
        if isinstance(self.output, int) and self.library != "transformers":
            raise ValueError("output: only a transformers model has numbered ones, expected a name")
        if self.library != "onnx" and self.input.layout != "channels-first":
            raise ValueError(f"input: a model of {self.library} reads channels first")
        return self

    @property
    def name(self) -> str:
        """For example `backbone-resnet50-pooled-224`."""
        model = self.model.removeprefix("sha256:")[:12] if self.model.startswith("sha256:") else self.model
        output = self.output
        if isinstance(output, int):
            output = f"hidden-{output}".replace("--", "-minus-")
        side = str(self.input.side or "as-is")
        return "-".join(_plain(text) for text in ("backbone", Path(model).name, output, side))

    def missing(self) -> list[str]:
        try:
            return _missing(self)
        except MissingInput as error:
            return list(error.missing)
        except (SpecError, StoreError) as error:
            return [str(error)]

    def facts(self) -> list[tuple[Fact[..., Any], tuple[Any, ...]]]:
        return [(backbone_found, (self.library, self.model, self.weights))]

    def keyed(self) -> Self:
        found = backbone_found(self.library, self.model, self.weights)
        keyed = {"weights": found.digest, "library_version": found.version}
        if self.library in ("transformers", "onnx"):
            # What is on a disk goes by its content, wherever it lies.
            keyed["model"] = found.digest if found.hub is None else found.hub.partition("@")[0]
        return self.model_copy(update=keyed)

    def import_weights(self) -> Ref | None:
        found = backbone_found(self.library, self.model, self.weights)
        if not found.digest.startswith("sha256:"):
            return None
        of_hub = {} if found.hub is None else {"model" if self.weights is None else "weights": found.hub}
        named = {"library": self.library, "model": self.model, "weights": self.weights} | of_hub
        ref: Ref = import_backbone(digest=found.digest, **named)
        return ref

    def load(self, store: Store, weights: Ref | None, device: str) -> Extractor:
        """By one network that all tasks of this process share.

        Raises:
            SpecError: the model does not give this output for this input.
            OtherVersion: another version of its library was planned with.
        """
        if self.library_version not in (None, _installed(self.library)):
            raise OtherVersion(
                f"{self.name}: planned with {self.library} {self.library_version}, here is {_installed(self.library)}"
            )
        limit_threads()
        network = shared_network(("backbone", self, device), lambda: _opened(self, store, weights, device))
        return Extractor(
            prepare=lambda data, view, picture: self.input.of(picture.pixels),
            embed=network,
            batch=self.batch,
            dimension=network.dimension,
        )


class Found(Spec):
    """What a model is: `sha256:<hex>` of its files or `random:<seed>`, and its library's version.

    `hub` is its name on the hub with its commit, by which every other worker downloads the same.
    """

    digest: str
    hub: str | None
    version: str | None


@fact(pool="gpu")
def backbone_found(library: Library, model: str, weights: str | None) -> Found:
    """What a model is that an experiment names; downloads it where it is the hub's or an address.

    Raises:
        MissingInput: it is not there, or the download is not reachable.
        SpecError: it has no weights that can be read.
    """
    version = _installed(library)
    if weights is not None and needed(weights).startswith("random:"):
        random_seed(needed(weights), library)
        return Found(digest=needed(weights), hub=None, version=version)
    files, commit = backbone_files(library, model, weights)
    name = needed(model if weights is None else weights).partition("@")[0]
    return Found(digest=_digest(files), hub=None if commit is None else f"{name}@{commit}", version=version)


def backbone_files(library: Library, model: str, weights: str | None) -> tuple[dict[str, Path], str | None]:
    """The files of a model by name, and its commit on the hub if it is from there; raises as `backbone_found`."""
    if library == "transformers":
        return model_files(model)
    if library == "onnx":
        return {"model.onnx": _existing(model, "the ONNX model")}, None
    named = needed(weights or "")
    if library == "torchvision":
        return {WEIGHTS: torchvision_file(model, named)}, None
    if is_folder(named):
        return {WEIGHTS: _existing(named, f"timm weights of {model}")}, None
    files, commit = model_files(named)
    return {WEIGHTS: files[WEIGHTS]}, commit


@step(
    "weights/backbone",
    version=1,
    label=lambda *, digest, **_: digest.removeprefix("sha256:")[:12],
    unkeyed=("library", "model", "weights"),
    pool="gpu",
)
def import_backbone(run: StepRun, *, digest: str, library: Library, model: str, weights: str | None) -> Output:
    """Bring a model's files into the store, where every worker finds them.

    Raises:
        SpecError: they are not what the digest is of.
    """
    files, commit = backbone_files(library, model, weights)
    if _digest(files) != digest:
        raise SpecError(f"{model}: it changed while it was read, or another worker has another one")
    sha256 = {name: file_sha256(path) for name, path in files.items()}
    output = files_output(files)
    return Output(output.parts, {**output.notes, "library": library, "commit": commit, "sha256": sha256})


def _missing(spec: BackboneSpec) -> list[str]:
    """What `missing` says, or raises."""
    if lines := missing_library(spec.library):
        return lines
    if spec.library == "onnx":
        open_onnx(spec.wanted, _existing(spec.model, "the ONNX model").read_bytes())
        return []
    if spec.library == "transformers":
        if lines := check_model(spec.model):
            return lines
        files = cached_files(spec.model)
        if files is not None:  # else the hub has them, and nobody has looked into them yet
            _checked(spec, files[CONFIG].parent)
        return []
    network = _checked(spec, None)
    weights = needed(spec.weights or "")

    def find_problem(path: Path) -> str | None:
        return file_problem(spec.wanted, network, path)

    if spec.library == "torchvision" or weights.startswith("random:"):
        return check_weights(weights, weights_of(spec.model, find_problem))
    if not is_folder(weights):
        return check_model(weights)
    problem = find_problem(_existing(weights, f"timm weights of {spec.model}"))
    return [] if problem is None else [problem]


def _checked(spec: BackboneSpec, folder: Path | None) -> torch.nn.Module:
    """The network without weights, which gives the wanted output; `SpecError` where it does not."""
    import torch

    try:
        with torch.device("meta"):
            network = _architecture(spec, folder)
    except NotImplementedError:  # some compute their own widths by tensors, which have no values there
        network = _architecture(spec, folder).to("meta")
    check_torch(spec.wanted, network, answer_of(spec.wanted, network))
    return network


def _architecture(spec: BackboneSpec, folder: Path | None) -> torch.nn.Module:
    if folder is not None:
        return empty_transformers(spec.wanted, folder)
    return torchvision_network(spec.wanted) if spec.library == "torchvision" else timm_network(spec.wanted)


def _opened(spec: BackboneSpec, store: Store, weights: Ref | None, device: str) -> Backbone:
    if spec.library == "onnx":
        return open_onnx(spec.wanted, read_file(store, _needed_weights(spec, weights)))
    if spec.library == "transformers":
        with TemporaryDirectory() as folder:
            write_files(store, _needed_weights(spec, weights), Path(folder))
            network = load_transformers(spec.wanted, Path(folder))
    else:
        network = _architecture(spec, None)
        if weights is None:
            fill_randomly(network, spec.weights or "", spec.library)
        else:
            fill(network, read_file(store, weights), spec.wanted.title)
    return open_torch(spec.wanted, network, answer_of(spec.wanted, network), device)


def _needed_weights(spec: BackboneSpec, weights: Ref | None) -> Ref:
    if weights is None:
        raise SpecError(f"{spec.name} needs its weights' object")
    return weights


def _existing(path: str, what: str) -> Path:
    here = Path(needed(path))
    if not here.is_file():
        raise MissingInput(f"{what}: {here} does not exist; name the path of a file")
    return here


def _digest(files: Mapping[str, Path]) -> str:
    """Of one file its sha256, of several one over their names and contents."""
    digests = {name: file_sha256(path) for name, path in files.items()}
    (only,) = digests.values() if len(digests) == 1 else (digest_of(digests),)
    return f"sha256:{only}"


def _installed(library: Library) -> str | None:
    """The version that decides the features beside those that the step names."""
    return library_version(_DISTRIBUTIONS[library]) if library in _DISTRIBUTIONS else None


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")
