"""Features of somebody else's image model: of torchvision, timm or transformers, or an ONNX file.

Nothing is guessed: how a picture enters the model is declared, and so is what is taken of it. Weights are safetensors,
or the ONNX file itself; no program of a model's is run.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from storage.digest import file_sha256
from storage.errors import MissingInput, OtherVersion, SpecError, StoreError
from storage.objects import Ref
from storage.store import Store
from tasks.brought_files import BroughtFiles, files_output, read_file
from tasks.brought_models import (
    BroughtModel,
    input_difference,
    is_folder,
    missing_model,
    model_of_gpu_workers,
    model_written,
    revision_of,
)
from tasks.data.network_input import Layout, NetworkInput
from tasks.facts import Question, fact, library_version
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
from tasks.kept_networks import shared_network
from tasks.recipe import Output, Pool, StepRun, step
from tasks.spec.base import LocalPath, Spec, Truth
from tasks.threads import limit_threads
from tasks.variables import needed
from tasks.weight_files import check_weights, random_seed, unchanged_file

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

    A hub id may name its revision, `owner/name@...`. Where a transformers model's own `preprocessor_config.json` would
    give the network something else than `input`, it is refused, unless `input_differs` says that this is meant.

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
    # Decides no feature: for whom the model's own input is known and another one meant.
    input_differs: Truth = Field(default=False, exclude=True)
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

    def facts(self) -> list[Question]:
        return [(backbone_found, (self.library, self.model, self.weights))]

    def keyed(self) -> Self:
        found = backbone_found(self.library, self.model, self.weights)
        keyed = {"weights": found.digest, "library_version": found.version}
        if self.library in ("transformers", "onnx"):
            # What is on a disk goes by its content, wherever it lies.
            keyed["model"] = found.digest if found.hub is None else revision_of(found.hub)[0]
        return self.model_copy(update=keyed)

    def import_weights(self) -> Ref | None:
        found = backbone_found(self.library, self.model, self.weights)
        algorithm, _, digest = found.digest.partition(":")
        if algorithm != "sha256":
            return None
        path = self.model if self.weights is None else self.weights
        ref: Ref
        if self.library == "transformers" or found.hub is not None:
            ref = BroughtModel(digest=digest, path=found.hub or path, pool="gpu").bring().result()
        elif self.library == "torchvision":
            ref = import_torchvision(sha256=digest, model=self.model, weights=path)
        else:
            ref = BroughtFiles(digest=digest, path=path, pool="gpu").bring().result()
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
    named = needed(model if weights is None else weights)
    version = _installed(library)
    if weights is not None and named.startswith("random:"):
        random_seed(named, library)
        return Found(digest=named, hub=None, version=version)
    if library == "torchvision":
        return Found(digest=f"sha256:{file_sha256(torchvision_file(model, named))}", hub=None, version=version)
    if library == "transformers" or (library == "timm" and not _is_path(named)):
        name, digest = model_of_gpu_workers(model if weights is None else weights)
        return Found(digest=f"sha256:{digest}", hub=None if is_folder(named) else name, version=version)
    return Found(digest=f"sha256:{file_sha256(_existing(named, library))}", hub=None, version=version)


@step(
    "weights/torchvision",
    version=1,
    label=lambda *, sha256, **_: sha256[:12],
    unkeyed=("model", "weights"),
    paths=("weights",),
    pool="gpu",
)
def import_torchvision(run: StepRun, *, sha256: str, model: str, weights: str) -> Output:
    """Bring the file of a torchvision model's weights into the store, from wherever an experiment says that it is.

    Raises:
        SpecError: it is not what the digest is of.
    """
    return files_output({"model.safetensors": unchanged_file(weights, sha256, weights_of(model))})


def _missing(spec: BackboneSpec) -> list[str]:
    """What `missing` says, or raises."""
    if lines := missing_library(spec.library):
        return lines
    if spec.library == "transformers":
        return missing_model(spec.model, lambda folder: _check_documents(spec, folder))
    if spec.library == "onnx":
        open_onnx(spec.wanted, _existing(needed(spec.model), "onnx").read_bytes())
        return []
    network = _checked(spec, None)
    weights = needed(spec.weights or "")

    def find_problem(path: Path) -> str | None:
        return file_problem(spec.wanted, network, path)

    if spec.library == "torchvision" or weights.startswith("random:"):
        return check_weights(weights, weights_of(spec.model, find_problem))
    if not _is_path(weights):
        return missing_model(weights, lambda folder: None)
    problem = find_problem(_existing(weights, "timm"))
    return [] if problem is None else [problem]


def _check_documents(spec: BackboneSpec, folder: Path) -> None:
    """Refuse a transformers model that does not give what is declared; its weights need not be there. `SpecError`."""
    _checked(spec, folder)
    difference = None if spec.input_differs else input_difference(folder, spec.input)
    if difference:
        raise SpecError(
            f"{spec.wanted.title}: {difference}; declare the input so, or say input_differs: true if another is meant"
        )


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
        with model_written(store, _needed_weights(spec, weights)) as folder:
            network = load_transformers(spec.wanted, folder)
    else:
        network = _architecture(spec, None)
        if weights is None:
            fill_randomly(network, spec.weights or "", spec.library)
        else:
            with model_written(store, weights) as folder:
                fill(network, next(folder.glob("*.safetensors")), spec.wanted.title)
    return open_torch(spec.wanted, network, answer_of(spec.wanted, network), device)


def _needed_weights(spec: BackboneSpec, weights: Ref | None) -> Ref:
    if weights is None:
        raise SpecError(f"{spec.name} needs its weights' object")
    return weights


def _existing(path: str, library: Library) -> Path:
    here = Path(path)
    if not here.is_file():
        raise MissingInput(f"the file for {library} {here}: it does not exist; name the path of one")
    return here


def _is_path(weights: str) -> bool:
    """Whether timm's weights lie on a disk: else they are the hub's."""
    return weights.startswith((".", "/"))


def _installed(library: Library) -> str | None:
    """The version that decides the features beside those that the step names."""
    return library_version(_DISTRIBUTIONS[library]) if library in _DISTRIBUTIONS else None


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")
