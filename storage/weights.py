"""Weights as safetensors with a JSON card: no pickles, nothing but tensors."""

from typing import Any

import numpy as np
from safetensors.numpy import load, save

from storage.digest import canonical_json
from storage.objects import PartContent, Ref, read_part
from storage.store import Store

WEIGHTS = "weights.safetensors"
CARD = "card.json"


def weight_parts(tensors: dict[str, np.ndarray], card: dict[str, Any]) -> dict[str, PartContent]:
    """The two parts of a weights object: named NumPy tensors and a card that says what they are."""
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    return {WEIGHTS: save(contiguous), CARD: canonical_json(card).encode()}


def read_weights(store: Store, ref: Ref) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read tensors and card of a weights object, both verified."""
    import json

    tensors = load(read_part(store, ref, WEIGHTS))
    card: dict[str, Any] = json.loads(read_part(store, ref, CARD))
    return tensors, card
