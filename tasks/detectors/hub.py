"""An image classifier of transformers, by hub id or folder: p(fake) is that of the labels that are declared as fake."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from storage.errors import SpecError
from storage.objects import Ref
from storage.store import Store
from tasks.brought_models import (
    CONFIG,
    BroughtModel,
    first_line,
    input_difference,
    loading,
    missing_model,
    model_question,
    model_written,
    read_document,
    refuse_foreign_code,
    revision_of,
    shown_name,
)
from tasks.data.network_input import NetworkInput
from tasks.detectors.pictures import Opened, PictureDetector
from tasks.device import full_precision, is_device_error
from tasks.facts import Question
from tasks.kept_networks import shared_network
from tasks.recipe import Pool
from tasks.spec.base import LocalPath, Once, Truth
from tasks.threads import limit_threads
from tasks.torch_vision_schema import define_missing_torchvision_schemas

if TYPE_CHECKING:
    import torch

_MOST_LABELS = 100_000
Label = Annotated[str, Field(min_length=1, max_length=200)]


class Hub(PictureDetector):
    """A classifier as it was published, in float32: its decision value is the log-odds of the labels in `fake`.

    `model` is `owner/name@<commit>`, `owner/name` for what is newest where it is looked up, or a folder. `fake` names
    labels of its `id2label`; all others mean a photograph. `threshold` is the p(fake) from which its makers call a
    picture fake. Where the model's own `preprocessor_config.json` would give the network something else than `input`,
    the detector is refused, unless `input_differs` says that this is meant: then nothing is compared.
    """

    kind: Literal["hub"] = "hub"
    model: LocalPath
    fake: Annotated[tuple[Label, ...], Once] = Field(min_length=1)
    input: NetworkInput
    input_differs: Truth = False
    batch: int = Field(default=16, ge=1, le=4096)
    threshold: float | None = Field(default=0.5, gt=0, lt=1)

    @model_validator(mode="after")
    def _has_an_input_of_transformers(self) -> Self:
        if self.input.layout != "channels-first":
            raise ValueError("input: networks of transformers take channels-first")
        return self

    @property
    def pool(self) -> Pool:
        return "gpu"

    @property
    def title(self) -> str:
        name, revision = revision_of(shown_name(self.model))
        at = f"@{revision[:12]}" if revision else ""
        return f"classifier {name}{at}, fake: {', '.join(self.fake)}"

    @property
    def published(self) -> float | None:
        """The log-odds of `threshold`."""
        return None if self.threshold is None else math.log(self.threshold / (1 - self.threshold))

    @property
    def brings(self) -> BroughtModel:
        return BroughtModel.named(self.model)

    def facts(self) -> list[Question]:
        return [model_question(self.model)]

    def reported(self) -> Self:
        return self.model_copy(update={"model": shown_name(self.brings.path)})

    def missing(self) -> list[str]:
        return [f"{self.name}: {line}" for line in missing_model(self.model, self._check)]

    def remarks(self, sources: Sequence[str]) -> list[str]:
        differs = f"{self.name}: its input is declared as another than that of its own preprocessor_config.json."
        return [*super().remarks(sources), *([differs] if self.input_differs else [])]

    def opened(self, store: Store, files: Ref | None, device: str) -> Opened:
        assert files is not None
        limit_threads()
        made = shared_network(("hub", self, files.digest, device), lambda: self._loaded(store, files, device))
        return Opened(lambda picture: self.input.of(picture.pixels), made.log_odds, self.batch)

    def _check(self, folder: Path) -> None:
        """Refuse a model whose documents do not fit what is declared; `SpecError`."""
        config = read_document(folder / CONFIG)
        refuse_foreign_code(config)
        _refuse_other_tasks(config)
        fake_places(labels_of(config), self.fake)
        difference = None if self.input_differs else input_difference(folder, self.input)
        if difference:
            raise SpecError(f"input: {difference}; declare it so, or say input_differs: true if another one is meant")

    def _loaded(self, store: Store, files: Ref, device: str) -> Classifier:
        try:
            with model_written(store, files) as folder:
                self._check(folder)
                network = load_classifier(folder)
            labels = [str(network.config.id2label[place]) for place in range(network.config.num_labels)]
            made = Classifier(network.to(device), fake_places(labels, self.fake))
            self._try(made)
        except SpecError as error:
            raise SpecError(f"{self.name}: {error}") from error
        return made

    def _try(self, classifier: Classifier) -> None:
        """Refuse a network that does not take the declared input, before it is told of every picture."""
        if self.input.side is None:
            return
        grey = self.input.of(np.full((self.input.side, self.input.side, 3), 128, np.uint8))
        try:
            classifier.log_odds([grey])
        except (ValueError, RuntimeError, TypeError) as error:
            if is_device_error(error):
                raise
            shape = " x ".join(map(str, grey.shape))
            raise SpecError(f"input: the network does not take {shape} numbers ({first_line(error)})") from error


@dataclass(frozen=True, eq=False)
class Classifier:
    """A network on its device, and which of its labels mean a fake: bool (L,)."""

    network: torch.nn.Module
    fake: npt.NDArray[np.bool_]

    def log_odds(self, inputs: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float64]:
        """The log-odds (N,) that softmax over all labels gives those that mean a fake, of float32 (3, H, W) each.

        A picture's neighbours in its batch change it by float noise only.

        Raises:
            SpecError: the network answers with something else than a number for each label.
        """
        import torch

        device = next(self.network.parameters()).device
        with torch.inference_mode(), full_precision(device.type):
            pixels = torch.from_numpy(np.stack(inputs)).to(device)  # (N, 3, H, W)
            logits = self.network(pixel_values=pixels).logits  # (N, L)
            answered = logits.double().cpu().numpy()
        if answered.shape != (len(inputs), len(self.fake)):
            raise SpecError(f"expected {len(self.fake)} logits of each of {len(inputs)} pictures, got {answered.shape}")
        return log_odds(answered, self.fake)


def log_odds(logits: npt.NDArray[np.float64], fake: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """log(p / (1 - p)) (N,) of p, the softmax's share of the labels `fake` (L,), from logits (N, L)."""
    from scipy.special import logsumexp

    with np.errstate(invalid="ignore"):  # infinite logits: no number, which is the picture's failure
        odds: npt.NDArray[np.float64] = logsumexp(logits[:, fake], axis=1) - logsumexp(logits[:, ~fake], axis=1)
    return odds


def labels_of(config: dict[str, Any]) -> list[str]:
    """The labels of a model's `config.json`, in the order of its logits; those that transformers makes up if need be.

    Raises:
        SpecError: `id2label` numbers them otherwise than from 0 on, or `num_labels` is no number of them.
    """
    named = config.get("id2label")
    if named is None:
        count = config.get("num_labels", 2)
        if not isinstance(count, int) or not 1 <= count <= _MOST_LABELS:
            raise SpecError(f"num_labels in config.json: expected 1 to {_MOST_LABELS}, got {count!r:.100}")
        return [f"LABEL_{place}" for place in range(count)]
    places = {str(place) for place in range(len(named))} if isinstance(named, dict) else set()
    if not places or set(named) != places:
        raise SpecError(f"id2label in config.json: expected a label for each number from 0 on, got {named!r:.200}")
    return [str(named[str(place)]) for place in range(len(named))]


def fake_places(labels: Sequence[str], fake: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Which labels mean a fake, bool (L,).

    Raises:
        SpecError: some are no labels of the model, or it has none left for photographs.
    """
    unknown = [name for name in fake if name not in labels]
    if unknown:
        shown = ", ".join(map(repr, labels[:20])) + (f" and {len(labels) - 20} more" if len(labels) > 20 else "")
        raise SpecError(f"fake: the model has no label {', '.join(map(repr, unknown))}; its labels are {shown}")
    if len(labels) == 1:
        raise SpecError(
            f"fake: the model has one label, {labels[0]!r}, and what its one number means is not said by a softmax; "
            "export it and declare its sigmoid (kind: onnx)"
        )
    if set(labels) <= set(fake):
        raise SpecError(f"fake: all labels of the model ({', '.join(map(repr, labels))}) would mean a fake")
    return np.array([label in fake for label in labels])


def _refuse_other_tasks(config: dict[str, Any]) -> None:
    """Refuse a network that classifies no pictures, or not by a softmax of three channels; `SpecError`."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

    known: set[str] = set()
    for names in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES.values():
        known |= {names} if isinstance(names, str) else set(names)
    architectures = config.get("architectures") or []
    if not (isinstance(architectures, list) and known & set(map(str, architectures))):
        raise SpecError(
            f"architectures in config.json: expected an image classifier of transformers, got {architectures!r}; "
            "features of other models are for a detector of kind linear"
        )
    if config.get("num_channels", 3) != 3:
        raise SpecError(f"num_channels in config.json: expected 3, got {config['num_channels']!r}")
    if config.get("problem_type") not in (None, "single_label_classification"):
        raise SpecError(
            f"problem_type in config.json: expected labels that exclude each other, got {config['problem_type']!r}, "
            "whose answers are no softmax; export it and declare its sigmoid (kind: onnx)"
        )


def load_classifier(folder: Path) -> Any:
    """The classifier in a folder, float32 and in evaluation mode, on the CPU; nothing but numbers is read.

    Raises:
        SpecError: transformers cannot load it, its weights lack some of its tensors, or they are not finite.
    """
    define_missing_torchvision_schemas()
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForImageClassification
    from transformers.utils import logging

    with loading:
        logging.disable_progress_bar()
        try:
            network, found = AutoModelForImageClassification.from_pretrained(
                folder,
                trust_remote_code=False,
                use_safetensors=True,
                local_files_only=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
        except (OSError, ValueError, RuntimeError, TypeError, LookupError, AttributeError, ImportError) as error:
            raise SpecError(f"transformers cannot load the model ({first_line(error)})") from error
        except SafetensorError as error:
            raise SpecError(f"its weights are not readable as safetensors ({error})") from error
    lacking = sorted(found["missing_keys"])
    if lacking:
        more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        raise SpecError(f"its weights lack {', '.join(lacking[:3])}{more}, which would be drawn at random")
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise SpecError(f"its weights are not finite: {name} holds NaN or infinity")
    return network.requires_grad_(False).eval()
