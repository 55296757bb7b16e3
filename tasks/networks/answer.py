"""What a published network says of a picture from anywhere: verdict, probabilities, and how far to trust them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from storage.errors import BadImage, SpecError
from tasks.data.perturbations.jpeg import Quality, jpeg
from tasks.data.pictures import Pixels, decode_rgb, inspect_picture
from tasks.networks.exported import LARGEST_TOLERANCE, ExportedNetwork
from tasks.networks.familiarity import SCORES
from tasks.spec.source_names import name_in_words, with_names
from tasks.spec.views import Cell, Resolution

Verdict = Literal["photograph", "generated", "unknown-source", "cannot-tell"]
Share = Annotated[float, Field(ge=0, le=1)]
T = TypeVar("T")

# Pictures of an uncompressed cell have one JPEG encoding all the same, at the photographs' own quality: mostly 90 up.
UNCOMPRESSED_QUALITY = 90

# What a card can say. A later one may mean something by its fields that is not known here. Cards of the second format
# have a third answer: that the network cannot tell.
CARD_FORMAT = 2

# The one class of a network that does not tell generators apart.
ANY_GENERATOR = "generated"

# The steps of `window_places`: 2^64 over the plastic number (1.3247, the root of x^3 = x + 1), and over its square.
_DOWN, _ACROSS = 0xC13FA9A902A6328F, 0x91E10DA5C79E7B1C

# Where a resolution's val pictures are of one class there is no threshold; its error rates are those at this one.
NO_THRESHOLD = 0.5


class CardPart(BaseModel):
    """A part of a card; what is not needed for an answer is passed over. No number is infinite or none."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Rate(CardPart):
    """A share of `n` test pictures with its 95 % interval, all in 0..1; null where there are too few."""

    value: Share | None
    low: Share | None
    high: Share | None
    n: int = Field(ge=0)


class OtherPerturbation(CardPart):
    """What else than a JPEG encoding happened to pictures; no more is read of it, as only others may know its kind."""

    kind: str


class CellErrors(CardPart):
    """How often a network was wrong in one kind of picture, before any was called of an unknown source.

    It has either `jpeg_quality` (null: nothing happened to the pictures) or `perturbation`. In cards from before there
    were other perturbations than JPEG, cells have no names. `false_alarms`: photographs called generated. `missed`:
    generated pictures called photographs. The others are of networks that may not answer: how many of both classes had
    no answer, and the generated pictures called photographs by networks that had not seen their generator.
    """

    cell: str | None = None
    resolution: Resolution
    jpeg_quality: Quality | None = None
    perturbation: OtherPerturbation | None = None
    false_alarms: Rate
    missed: Rate
    photographs_undecided: Rate | None = None
    generated_undecided: Rate | None = None
    missed_unknown: Rate | None = None

    @model_validator(mode="after")
    def _check_perturbation(self) -> Self:
        if ("jpeg_quality" in self.model_fields_set) == (self.perturbation is not None):
            raise ValueError("expected either jpeg_quality or perturbation")
        if self.perturbation is not None and not self.cell:
            raise ValueError(f"expected the cell's name beside the perturbation {self.perturbation.kind!r}")
        return self

    @property
    def name(self) -> str:
        """For example `64/q20` or `native/webp-50`; to be shown, not to be read."""
        return self.cell or Cell(resolution=self.resolution, perturbation=jpeg(self.jpeg_quality)).name

    @property
    def is_comparable(self) -> bool:
        """Whether a file tells that its picture is of this kind, by its size and its own JPEG quality."""
        return self.perturbation is None


class RejectionRule(CardPart):
    """A picture is of an unknown source when this score lies below the threshold; `kept` of known ones lie above."""

    score: Literal["max-probability", "energy", "distance"]
    threshold: float
    kept: Share

    @model_validator(mode="after")
    def _check_threshold(self) -> Self:
        if self.score == "max-probability" and not 0 <= self.threshold <= 1:
            raise ValueError(f"expected a threshold on a probability in 0..1, got {self.threshold}")
        return self


class Decision(CardPart):
    """Thresholds on p(fake) by resolution, and the rejection.

    Where there are `photograph_thresholds`, below which a picture is a photograph, there is no answer between the two.
    """

    fake_thresholds: dict[str, Share]
    photograph_thresholds: dict[str, Share] = {}
    rejection: RejectionRule

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        for resolution, below in self.photograph_thresholds.items():
            if not below <= self.fake_thresholds.get(resolution, -1.0):
                raise ValueError(
                    "expected photograph_thresholds no larger than the fake_thresholds of their resolution, "
                    f"got {below} at {resolution}"
                )
        return self


class SelfTest(CardPart):
    """A small picture (its pixels row by row, RGB, in base64) and what the network answers to it."""

    height: int = Field(ge=1)
    width: int = Field(ge=1)
    pixels: Base64Bytes
    logits: tuple[float, ...]
    probabilities: tuple[Share, ...]
    tolerance: float = Field(gt=0, le=LARGEST_TOLERANCE)

    @model_validator(mode="after")
    def _check_pixels(self) -> Self:
        if len(self.pixels) != self.height * self.width * 3:
            raise ValueError(f"expected {self.height} x {self.width} pixels, got {len(self.pixels)} bytes")
        return self


class Training(CardPart):
    """How a network was trained, of which no more is read than where its weights began: `random:<seed>`, or a file."""

    weights: str | None = None
    spec: dict[str, Any] = {}

    @property
    def is_demonstration(self) -> bool:
        """Whether it shows that everything works rather than what networks can do.

        A `residual` network has no other beginning than random weights, and learns all that it knows from pictures.
        """
        return (self.weights or "").startswith("random:") and self.spec.get("kind") != "residual"


class Card(CardPart):
    """What an answer needs of a published network's card (`tasks/evaluation/cards.py`).

    `canonical_side` is the side in pixels of the `native` cells. `sources` says what each source is called. A network
    that looks at traces forms an opinion of so many `windows` of original pixels; any other is shown the whole picture.
    Where `formats` are named, files of others were not tested as they are, and have no answer.
    """

    format: int = 1
    name: str
    sha256: str
    about: Training = Training()
    sources: dict[str, str] = {}
    classes: tuple[str, ...] = Field(min_length=2)
    canonical_side: int = Field(ge=1)
    formats: tuple[str, ...] = ()
    windows: int | None = Field(default=None, ge=1, le=25)
    self_test: SelfTest
    decision: Decision
    error_rates: tuple[CellErrors, ...] = Field(min_length=1)

    @classmethod
    def read(cls, data: bytes) -> Card:
        """Parse a card's JSON; SpecError for anything that is not the card of an evaluated network."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            if (newer := _newer_format(data)) is not None:
                raise SpecError(
                    f"the card is of format {newer}, newer than {CARD_FORMAT}, which this version of telltale reads: "
                    "update telltale"
                ) from error
            wrong = error.errors()[0]
            place = ".".join(map(str, wrong["loc"])) or "the file"
            raise SpecError(f"not the card of an evaluated network: {place}: {wrong['msg']}") from error

    @field_validator("format")
    @classmethod
    def _check_format(cls, format: int) -> int:
        if not 1 <= format <= CARD_FORMAT:
            raise ValueError(f"expected 1..{CARD_FORMAT}, got {format}")
        return format

    @field_validator("error_rates")
    @classmethod
    def _check_comparable(cls, cells: tuple[CellErrors, ...]) -> tuple[CellErrors, ...]:
        if not any(cell.is_comparable for cell in cells):
            names = ", ".join(cell.name for cell in cells)
            raise ValueError(f"expected a cell that files can be compared with, uncompressed or JPEG, got only {names}")
        return cells

    @model_validator(mode="after")
    def _check_answers(self) -> Self:
        counts = {len(self.self_test.probabilities), len(self.self_test.logits)}
        if counts != {len(self.classes)}:
            raise ValueError(f"expected self-test answers for {len(self.classes)} classes, got {sorted(counts)}")
        return self

    @model_validator(mode="after")
    def _check_windows(self) -> Self:
        fitted_for = self.about.spec.get("windows")
        if fitted_for is not None and fitted_for != self.windows:
            raise ValueError(f"expected the {fitted_for} windows that it was fitted for, got {self.windows}")
        return self

    @model_validator(mode="after")
    def _check_thresholds(self) -> Self:
        # One of a misspelt resolution would be passed over, and pictures decided at one half.
        unknown = set(self.decision.fake_thresholds) - {str(cell.resolution) for cell in self.error_rates}
        if unknown:
            raise ValueError(f"expected thresholds of tested resolutions, got one of {min(unknown)!r}")
        return self

    def called(self, name: str) -> str:
        """A class as people know it."""
        return with_names(self.sources).get(name) or name_in_words(name)

    def side(self, resolution: Resolution) -> int:
        """A resolution's side in pixels."""
        return self.canonical_side if resolution == "native" else resolution


@dataclass(frozen=True)
class Kind:
    """What kind of picture it is: its own facts, and the nearest kind that the network was tested in, named by `cell`.

    `shorter_side` in pixels; `format` and `jpeg_quality` (1..100, None if it is no JPEG) as the file has them. The
    tested pictures were squares of `tested_side` pixels, saved at `tested_quality` (None: no more
    than the photographs' own).
    """

    shorter_side: int
    format: str
    jpeg_quality: int | None
    tested_side: int
    tested_quality: int | None
    cell: str


@dataclass(frozen=True)
class Answer:
    """What a network says of one picture.

    `source` is the generator, None unless the verdict is `generated` by a network that tells generators apart. `p_fake`
    is 1 - p(real), calibrated, and is compared with `threshold`, and with `photograph_threshold` where the network may
    not answer between the two; `probabilities` are those of all classes and sum to 1. `familiarity` holds every score
    of `tasks.networks.familiarity`, of which the one named `rejection_score` is compared with `rejection_threshold`.
    `errors` are the network's in this kind of picture. A file of a format that was not tested (`is_untested_format`)
    has no verdict.
    """

    verdict: Verdict
    source: str | None
    p_fake: float
    threshold: float
    photograph_threshold: float | None
    probabilities: dict[str, float]
    familiarity: dict[str, float]
    rejection_score: str
    rejection_threshold: float
    kind: Kind
    errors: CellErrors
    is_untested_format: bool

    @property
    def reason(self) -> Literal["format", "unfamiliar", "between"] | None:
        """Why the network cannot tell; None where it can, or says that the source is unknown."""
        if self.verdict != "cannot-tell":
            return None
        if self.is_untested_format:
            return "format"
        return "unfamiliar" if self.is_unfamiliar else "between"

    @property
    def is_unfamiliar(self) -> bool:
        """Whether it is unlike what the network knows."""
        return self.familiarity[self.rejection_score] < self.rejection_threshold


def answer(network: ExportedNetwork, card: Card, picture: bytes) -> Answer:
    """What `network` says of an image file, decided as its card's `decision.rule` says.

    Limits: the error rates were measured on the fair path (central square, canonical size, one more JPEG encoding for
    both classes, then the cell's size and quality) or on windows of original pixels with one more encoding, while this
    picture, or windows at places that a hash of its size draws, go into the graph as they were posted. They are
    those of the nearest tested kind: they say nothing of other cameras, generators or edits, of a lossy WebP (which
    counts as uncompressed), or of a picture that was compressed hard and then saved again at a high quality. Cells of
    other perturbations than JPEG are never the nearest kind, because a file does not tell what happened to a picture
    before it was saved.

    Raises:
        BadImage: the bytes are no usable picture (`decode_rgb`, `ExportedNetwork.detect`), or one that is smaller than
            the windows that the network forms its opinion of (`too-small`).
        SpecError: the network's outputs are not finite.
    """
    facts = inspect_picture(picture)
    found = network.opinion(_shown(network, card, picture))
    probabilities = dict(zip(card.classes, map(float, found.probabilities), strict=True))
    familiarity = dict(zip(SCORES, map(float, found.familiarity), strict=True))
    if not all(map(math.isfinite, (*probabilities.values(), *familiarity.values()))):
        raise SpecError(f"{card.name}: expected finite probabilities and scores, got {probabilities}, {familiarity}")

    shorter_side = min(facts.width, facts.height)
    cell = nearest_cell(card, shorter_side, facts.jpeg_quality)
    threshold = card.decision.fake_thresholds.get(str(cell.resolution), NO_THRESHOLD)
    below = card.decision.photograph_thresholds.get(str(cell.resolution))
    rejection = card.decision.rejection
    photograph, *generators = card.classes
    p_fake = 1.0 - probabilities[photograph]
    verdict = decide(p_fake, threshold, familiarity[rejection.score], rejection.threshold, below)
    is_untested = bool(card.formats) and facts.format not in card.formats
    if is_untested:
        verdict = "cannot-tell"
    names_it = verdict == "generated" and generators != [ANY_GENERATOR]
    return Answer(
        verdict=verdict,
        source=max(generators, key=probabilities.__getitem__) if names_it else None,
        p_fake=p_fake,
        threshold=threshold,
        photograph_threshold=below,
        probabilities=probabilities,
        familiarity=familiarity,
        rejection_score=rejection.score,
        rejection_threshold=rejection.threshold,
        kind=Kind(
            shorter_side=shorter_side,
            format=facts.format,
            jpeg_quality=facts.jpeg_quality,
            tested_side=card.side(cell.resolution),
            tested_quality=cell.jpeg_quality,
            cell=cell.name,
        ),
        errors=cell,
        is_untested_format=is_untested,
    )


def _newer_format(data: bytes) -> int | None:
    """The format of a card from a later version of telltale, whatever else is odd in it; None of any other."""
    try:
        found = json.loads(data)["format"]
    except (ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, int) and found > CARD_FORMAT else None


def _shown(network: ExportedNetwork, card: Card, picture: bytes) -> list[Pixels]:
    """What a network is shown of a picture: all of it, or windows of its original pixels."""
    pixels = decode_rgb(picture)
    if card.windows is None:
        return [pixels]
    (height, width), side = pixels.shape[:2], network.side
    if min(height, width) < side:
        raise BadImage(
            "too-small",
            f"expected at least {side} pixels a side, as traces are gone once it is scaled, got {width}x{height}",
        )
    places = window_places(height, width, side, card.windows)
    return [pixels[top : top + side, left : left + side] for top, left in places]


def window_places(height: int, width: int, side: int, count: int) -> list[tuple[int, int]]:
    """Top and left of the windows that are looked at in a picture, the same in every picture of a size.

    By its size alone: a browser's pixels may differ by a level, and what a file says beside them decides nothing. The
    first place is drawn by hash, uniform over all; the others follow it in equal steps of both sides (the sequence R2
    of Roberts 2018), so that they spread over the picture.
    """
    digest = hashlib.sha256(f"windows:{width}x{height}".encode()).digest()
    down, across = (int.from_bytes(part, "big") for part in (digest[:8], digest[8:16]))
    return [
        (
            (down + index * _DOWN) % 2**64 * (height - side + 1) >> 64,
            (across + index * _ACROSS) % 2**64 * (width - side + 1) >> 64,
        )
        for index in range(count)
    ]


def decide(
    p_fake: float, threshold: float, familiarity: float, familiar_enough: float, photograph_below: float | None = None
) -> Verdict:
    """The rule of every card: unfamiliar pictures first, then p(fake) against its threshold, which itself is fake.

    With `photograph_below` a picture is a photograph below it; an unfamiliar one, or one between both, has no answer.
    """
    if familiarity < familiar_enough:
        return "unknown-source" if photograph_below is None else "cannot-tell"
    if p_fake >= threshold:
        return "generated"
    return "photograph" if photograph_below is None or p_fake < photograph_below else "cannot-tell"


def nearest_cell(card: Card, shorter_side: int, jpeg_quality: int | None) -> CellErrors:
    """The card's cell that a picture resembles: first by its size, then, among those of that size, by its quality.

    Only comparable cells are considered, because a file does not tell what else happened to a picture before it was
    saved.
    Sizes are compared by their ratio, qualities by their difference, where an uncompressed cell counts as quality 90; a
    picture that is no JPEG (`jpeg_quality` None) is uncompressed. Of equally near cells the larger or finer one.
    """
    comparable = [one for one in card.error_rates if one.is_comparable]
    resolution = _nearest(
        [one.resolution for one in comparable],
        [math.log(card.side(one.resolution)) for one in comparable],
        math.log(shorter_side),
    )
    cells = [one for one in comparable if one.resolution == resolution]
    qualities = [UNCOMPRESSED_QUALITY if one.jpeg_quality is None else one.jpeg_quality for one in cells]
    return _nearest(cells, qualities, UNCOMPRESSED_QUALITY if jpeg_quality is None else jpeg_quality)


def _nearest(candidates: Sequence[T], places: Sequence[float], place: float) -> T:
    """The candidate whose place is nearest; of equally near ones that with the higher place."""
    found = min(range(len(candidates)), key=lambda index: (abs(places[index] - place), -places[index]))
    return candidates[found]
