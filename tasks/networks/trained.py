"""A trained network as it lies in the store: weights, classes, calibration and what its rejection needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from storage.errors import SpecError
from storage.objects import PartContent, Ref
from storage.store import Store
from storage.weights import read_weights, weight_parts
from tasks.networks.architecture import Architecture
from tasks.networks.familiarity import Familiarity


@dataclass(frozen=True)
class TrainedNetwork:
    """Everything that a finished network consists of.

    `tensors` are the network's weights by name, float32, batch norm folded. p(class) is the softmax of the logits over
    `temperature`; `classes` names them in order, `real` first. `about` says how it was trained (spec, rotation, seed,
    pictures, losses), in plain JSON values.
    """

    shape: Architecture
    tensors: Mapping[str, Any]
    classes: tuple[str, ...]
    temperature: float
    familiarity: Familiarity
    about: dict[str, Any] = field(default_factory=dict)

    def parts(self) -> dict[str, PartContent]:
        """The network as safetensors and a card."""
        card = {
            "model": "mobilenet-v2",
            "architecture": self.shape.model_dump(mode="json"),
            "classes": list(self.classes),
            "temperature": self.temperature,
            "about": self.about,
        }
        return weight_parts({**self.tensors, **self.familiarity.tensors()}, card)

    @classmethod
    def load(cls, store: Store, ref: Ref) -> TrainedNetwork:
        """Read a network back.

        Raises:
            SpecError: the object holds another kind of model.
        """
        tensors, card = read_weights(store, ref)
        if card.get("model") != "mobilenet-v2":
            raise SpecError(f"{ref.uri}: expected a mobilenet-v2, got {card.get('model')!r}")
        familiarity = Familiarity.from_tensors(tensors)
        return cls(
            shape=Architecture.model_validate(card["architecture"]),
            tensors={name: tensor for name, tensor in tensors.items() if not name.startswith("rejection.")},
            classes=tuple(card["classes"]),
            temperature=card["temperature"],
            familiarity=familiarity,
            about=card["about"],
        )
