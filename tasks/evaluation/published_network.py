"""The network that is given away: fitted on every picture, with a card that says what it was wrong in without them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from scipy.special import expit

from storage.objects import PartContent, Ref, notes_of, read_table
from storage.store import Store
from tasks.data.perturbations.jpeg import jpeg
from tasks.evaluation.published_card import card_in_words
from tasks.evaluation.published_rates import Answers, delivery_rates, generator_rates, photograph_rates
from tasks.networks.answer import CARD_FORMAT
from tasks.networks.delivered_windows import DeliveredPictures
from tasks.networks.export import file_facts
from tasks.networks.exported import CARD, KIND, LONGEST_SIDE, MODEL, SHORTEST_SIDE
from tasks.networks.pattern_fit import Windows, pattern_fits
from tasks.networks.pattern_graph import CLASSES, PatternHead, build_pattern_graph
from tasks.recipe import Output, StepRun, step
from tasks.spec.base import Name, Spec
from tasks.spec.published import Delivery, Published
from tasks.spec.splits import Splits
from tasks.spec.views import Cell

# The part with the card in words.
CARD_TEXT = "card.md"

RULE = (
    "familiarity below its threshold: no answer; else p(generated), of the mean logits of the windows, at or above its "
    "threshold: probably generated; below the threshold of photographs: probably a photograph; between them no answer"
)


class LeftOut(Spec):
    """What was said of a family of generators by networks that had not seen it."""

    family: Name
    scores: Ref


class UsedSource(Spec):
    """A source of pictures that the network is fitted on, and its image shards."""

    name: Name
    is_real: bool
    images: tuple[Ref, ...]


@step(
    "publish/network",
    version=2,
    label=lambda *, name, experiment, **_: f"{name}-of-{experiment}",
    libraries=("numpy", "scipy", "onnx", "onnxruntime"),
)
def published_network(
    run: StepRun,
    *,
    name: Name,
    spec: Published,
    delivered: tuple[DeliveredPictures, ...],
    splits: Splits,
    side: int,
    experiment: Name,
    used: tuple[UsedSource, ...],
    known: Ref,
    left_out: tuple[LeftOut, ...],
    seed: int,
    resamples: int,
) -> Output:
    """Fit the head on the pictures of all splits, and say with it what its like said of pictures that it had not seen.

    Its strength of shrinkage is the one that most rotations chose, its calibration and its thresholds are the means of
    those rotations'. The error rates of the card are of heads like it, each with its own.
    """
    windows = Windows.read(run.store, delivered)
    rotations = notes_of(run.store, known)["rotations"]
    strength = Counter(one["strength"] for one in rotations).most_common(1)[0][0]
    trained = windows.pictures["generator"].is_not_null().to_numpy()
    (fit,) = pattern_fits(windows, trained, [strength])
    alike = [one for one in rotations if one["strength"] == strength]
    mean = {field: float(np.mean([one[field] for one in alike])) for field in rotations[0]}
    head = PatternHead(
        coef=fit.coef * mean["slope"],
        intercept=fit.intercept * mean["slope"] + mean["offset"],
        class_means=fit.class_means,
    )
    model = build_pattern_graph(head, side)
    said, unknown = _answers(run.store, known, left_out, resamples, seed)
    facts = {"parameters": len(head.coef) + 1, "side": side, "canonical_side": side, **file_facts(model)}
    about = {"experiment": experiment, "splits": splits.model_dump(mode="json")}
    about |= {"strength": strength, "rotations": rotations}
    rates = {
        "error_rates": [_cell(one, side, said, unknown) for one in spec.deliveries],
        "generators": {one.name: _by_generator(said, unknown, one.name) for one in spec.deliveries},
        "photographs": {one.name: photograph_rates(_in(said, one.name)) for one in spec.deliveries},
    }
    sets = [_set(run.store, one, spec.licences.get(one.name, "not stated")) for one in used]
    card = _card(name, spec, mean, side, about) | facts | rates | {"sets": sets}
    parts: dict[str, PartContent] = {
        MODEL: model,
        CARD: json.dumps(card, sort_keys=True, indent=1, allow_nan=False).encode(),
        CARD_TEXT: card_in_words(card).encode(),
    }
    return Output(parts, {"bytes": len(model), "strength": strength, "calibration": mean})


def _card(name: str, spec: Published, mean: Mapping[str, float], side: int, about: Mapping[str, Any]) -> dict[str, Any]:
    """What a card says of how its network decides; `mean` is the rotations' calibration, `about` how it was fitted."""
    return {
        "format": CARD_FORMAT,
        "kind": KIND,
        "name": name,
        "classes": list(CLASSES),
        "temperature": 1.0,
        "windows": spec.windows,
        "longest_side": LONGEST_SIDE,
        "shortest_side": SHORTEST_SIDE,
        "formats": ["JPEG", "PNG"],
        "about": {"spec": {"kind": "patterns", **spec.model_dump(mode="json")}, **about},
        "decision": {
            "rule": RULE,
            "fake_thresholds": {str(side): float(expit(mean["generated_from"]))},
            "photograph_thresholds": {str(side): float(expit(mean["photograph_below"]))},
            "rejection": {"score": "distance", "threshold": mean["familiar_from"], "kept": spec.kept},
        },
        "sources": {"real": "a photograph", "generated": "generated"},
    }


def _answers(
    store: Store, known: Ref, left_out: Sequence[LeftOut], resamples: int, seed: int
) -> tuple[Answers, dict[str, Answers]]:
    """What was said of known pictures, and, by family, of those whose family had been left out; all drawn together."""
    frames = {one.family: pl.from_arrow(read_table(store, one.scores)) for one in left_out}
    rows = pl.from_arrow(read_table(store, known))
    assert isinstance(rows, pl.DataFrame)
    said = Answers.of(rows, resamples, seed)
    unknown = {name: Answers(frame, said.weights) for name, frame in frames.items() if isinstance(frame, pl.DataFrame)}
    return said, unknown


def _in(answers: Answers, delivery: str) -> Answers:
    return answers.where(pl.col("delivery") == delivery)


def _by_generator(said: Answers, unknown: Mapping[str, Answers], delivery: str) -> list[dict[str, Any]]:
    return generator_rates(_in(said, delivery), {name: _in(one, delivery) for name, one in unknown.items()})


def _cell(delivery: Delivery, side: int, said: Answers, unknown: Mapping[str, Answers]) -> dict[str, Any]:
    """An entry of `error_rates`: deliveries of which a file tells are cells of their JPEG quality, others are not."""
    together = [_in(one, delivery.name).rows for one in unknown.values()]
    none = said.rows.clear()
    rates = delivery_rates(_in(said, delivery.name), Answers(pl.concat([none, *together]), said.weights))
    is_scaled = delivery.factors is not None or delivery.shorter_side is not None
    if is_scaled or delivery.saved_as != "jpeg":
        kind: dict[str, Any] = {
            "cell": f"{side}/{delivery.name}",
            "perturbation": {"kind": "delivery", **delivery.model_dump(mode="json")},
        }
    else:
        kind = {
            "cell": Cell(resolution=side, perturbation=jpeg(delivery.quality)).name,
            "jpeg_quality": delivery.quality,
        }
    return {"delivery": delivery.name, "resolution": str(side), **kind, **rates}


def _set(store: Store, used: UsedSource, licence_of_all: str) -> dict[str, Any]:
    """What the card says of a set: how many pictures it has, their licences as they are stated, and its digests."""
    licences: Counter[str | None] = Counter()
    for shard in used.images:
        licences.update(read_table(store, shard, columns=["licence"])["licence"].to_pylist())
    return {
        "name": used.name,
        "label": "photographs" if used.is_real else "generated",
        "pictures": sum(licences.values()),
        "licences": {licence or licence_of_all: count for licence, count in sorted(licences.items(), key=str)},
        "shards": [shard.digest for shard in used.images],
    }
