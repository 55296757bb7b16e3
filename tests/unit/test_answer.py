"""What a network says of a picture follows from its card, and from nothing else."""

from __future__ import annotations

import io
import itertools
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from storage.errors import BadImage, SpecError
from tasks.data.encoding import encode_jpeg, encode_png
from tasks.data.pictures import decode_rgb
from tasks.networks.answer import Answer, Card, answer, decide, nearest_cell, window_places
from tasks.networks.exported import Detection, ExportedNetwork
from tests.property.image_mutations import png_chunk
from tests.unit.published_networks import as_before, card_of, error_rates, tiny_model


class Saying(ExportedNetwork):
    """A network that says the same of every picture."""

    def __init__(self, probabilities: tuple[float, ...], familiarity: tuple[float, float, float]) -> None:
        self.said = [np.array(values, dtype=np.float32) for values in (probabilities, familiarity)]

    def detect(self, pixels: object) -> Detection:
        probabilities, familiarity = self.said
        return Detection(np.log(probabilities), probabilities, familiarity, np.zeros((3, 1, 1), dtype=np.float32))


def card(**decision: Any) -> Card:
    return Card.read(json.dumps(card_of(tiny_model(), **decision)).encode())


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def said(probabilities: tuple[float, ...], familiarity: tuple[float, float, float], **decision: Any) -> Answer:
    return answer(Saying(probabilities, familiarity), card(**decision), encode_png(noise(64, 64)))


THRESHOLDS = {"fake_thresholds": {"64": 0.5, "256": 0.0, "native": 0.0}}


def test_a_picture_under_the_threshold_is_a_photograph() -> None:
    found = said((0.75, 0.125, 0.125), (0.75, 0, 0), **THRESHOLDS)
    assert (found.verdict, found.source, found.p_fake, found.threshold) == ("photograph", None, 0.25, 0.5)
    assert found.probabilities == {"real": 0.75, "gan": 0.125, "stable": 0.125}


def test_a_picture_at_the_threshold_was_generated_by_the_most_probable_generator() -> None:
    found = said((0.5, 0.125, 0.375), (0.5, 0, 0), **THRESHOLDS)
    assert (found.verdict, found.source, found.p_fake) == ("generated", "stable", 0.5)


def test_the_photographs_class_is_never_the_source() -> None:
    found = said((0.4, 0.35, 0.25), (0.4, 0, 0), **THRESHOLDS)
    assert (found.verdict, found.source) == ("generated", "gan")


@pytest.mark.parametrize("score", ["max-probability", "energy", "distance"])
def test_an_unfamiliar_picture_is_of_an_unknown_source_whatever_its_probability(score: str) -> None:
    familiarity = {"max-probability": 0.9, "energy": 3.0, "distance": -5.0}
    values = tuple(familiarity.values())
    assert len(values) == 3
    for margin, verdict in ((0.01, "unknown-source"), (-0.01, "generated")):
        rejection = {"score": score, "threshold": familiarity[score] + margin, "kept": 0.95}
        found = said((0.05, 0.9, 0.05), values, rejection=rejection, **THRESHOLDS)
        assert (found.verdict, found.source) == (verdict, "gan" if verdict == "generated" else None)
        assert found.rejection_score == score
        assert found.familiarity == pytest.approx(familiarity)


def test_a_picture_at_the_rejections_threshold_is_answered() -> None:
    assert decide(0.2, 0.5, familiarity=1.0, familiar_enough=1.0) == "photograph"
    assert decide(0.2, 0.5, familiarity=0.999, familiar_enough=1.0) == "unknown-source"


def test_a_resolution_without_a_threshold_is_decided_at_one_half() -> None:
    found = said((0.5, 0.25, 0.25), (0.5, 0, 0), fake_thresholds={})
    assert (found.verdict, found.threshold) == ("generated", 0.5)


@pytest.mark.parametrize(
    ("shorter_side", "jpeg_quality", "cell"),
    [
        (64, None, ("64", None)),
        (64, 20, ("64", 20)),
        (16, 29, ("64", 20)),
        (64, 30, ("64", 40)),  # as near to 20: the finer one
        (127, 50, ("64", 60)),  # sqrt(64 * 256) = 128: the border between the two in ratio
        (128, 74, ("256", 60)),
        (286, 75, ("256", None)),  # as near to 60 as to the 90 of uncompressed pictures; sqrt(256 * 320) = 286.2
        (287, 100, ("native", None)),
        (4000, 45, ("native", 40)),
        (4000, 1, ("native", 20)),
    ],
)
def test_a_picture_is_compared_with_the_nearest_tested_kind(
    shorter_side: int, jpeg_quality: int | None, cell: tuple[str, int | None]
) -> None:
    found = nearest_cell(card(), shorter_side, jpeg_quality)
    assert (str(found.resolution), found.jpeg_quality) == cell


def with_rates(rates: list[dict[str, Any]]) -> Card:
    return Card.read(json.dumps(card_of(tiny_model()) | {"error_rates": rates}).encode())


def test_a_card_from_before_there_were_perturbations_is_read_as_the_same_cells() -> None:
    before, now = with_rates(as_before(error_rates())), card()
    assert [cell.name for cell in before.error_rates] == [cell.name for cell in now.error_rates if cell.is_comparable]
    assert before.error_rates[5].name == "256/q60"
    for side, quality in itertools.product((16, 100, 128, 180, 290, 4000), (None, 1, 33, 50, 95)):
        assert nearest_cell(before, side, quality).name == nearest_cell(now, side, quality).name


def test_a_perturbation_that_a_file_does_not_tell_is_listed_and_never_the_nearest_kind() -> None:
    read = card()
    assert [cell.name for cell in read.error_rates if not cell.is_comparable] == ["128/webp-50", "64/melted"]
    assert read.error_rates[-1].false_alarms.value == 0.13
    found = {nearest_cell(read, side, quality).name for side in range(16, 400) for quality in (None, *range(1, 101))}
    assert found == {cell.name for cell in read.error_rates if cell.is_comparable}


def test_a_cells_name_is_shown_and_nothing_is_read_from_it() -> None:
    rates = error_rates()
    rates[3]["cell"] = "64/q99 and more"
    assert rates[3]["jpeg_quality"] == 20
    assert nearest_cell(with_rates(rates), 4000, 20).name == "64/q99 and more"


def test_a_card_that_no_file_can_be_compared_with_is_refused() -> None:
    others = [cell for cell in error_rates() if "perturbation" in cell]
    with pytest.raises(SpecError, match=r"error_rates: .*uncompressed or JPEG, got only 128/webp-50, 64/melted"):
        with_rates(others)


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ({"perturbation": {"kind": "webp"}, "jpeg_quality": None, "cell": "64/webp"}, "either jpeg_quality or"),
        ({}, "either jpeg_quality or"),
        ({"perturbation": {"kind": "webp"}}, "the cell's name beside the perturbation 'webp'"),
        ({"perturbation": {"quality": 3}, "cell": "64/webp"}, r"\.perturbation\.kind"),
    ],
)
def test_a_cell_without_one_perturbation_and_a_name_is_refused(cell: dict[str, Any], told: str) -> None:
    rate = error_rates()[0]["missed"]
    rates = [{"resolution": "64", "false_alarms": rate, "missed": rate} | cell, *error_rates()]
    with pytest.raises(SpecError, match=f"error_rates.0.*{told}"):
        with_rates(rates)


def test_kind_threshold_and_error_rates_are_those_of_the_picture() -> None:
    network = ExportedNetwork(tiny_model())
    thresholds = {"native": 0.9, "256": 0.8, "64": 0.7}
    found = answer(network, card(fake_thresholds=thresholds), encode_jpeg(noise(300, 260), 42))
    assert (found.kind.format, found.kind.shorter_side, found.kind.jpeg_quality) == ("JPEG", 260, 42)
    assert (found.kind.cell, found.kind.tested_side, found.kind.tested_quality) == ("256/q40", 256, 40)
    assert found.threshold == 0.8
    # The seventh cell of the card's twelve.
    assert (found.errors.false_alarms.value, found.errors.false_alarms.high, found.errors.false_alarms.n) == (
        0.06,
        0.12,
        500,
    )
    assert (found.errors.missed.value, found.errors.missed.low, found.errors.missed.n) == (0.12, None, 8)


def test_probabilities_are_those_of_the_exported_graph() -> None:
    network = ExportedNetwork(tiny_model())
    picture = encode_png(noise(90, 70))
    found = answer(network, card(), picture)
    direct = network.detect(decode_rgb(picture))
    assert list(found.probabilities.values()) == direct.probabilities.tolist()
    assert list(found.familiarity.values()) == direct.familiarity.tolist()
    assert sum(found.probabilities.values()) == pytest.approx(1, abs=1e-6)
    assert found.p_fake == 1 - found.probabilities["real"]


def test_a_rotated_picture_is_answered_as_it_is_looked_at() -> None:
    upright = noise(64, 96)
    exif = Image.Exif()
    exif[0x0112] = 6
    files = []
    for pixels, options in ((upright, {}), (np.rot90(upright), {"exif": exif})):
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", **options)
        files.append(buffer.getvalue())
    network = ExportedNetwork(tiny_model())
    first, second = (answer(network, card(), file) for file in files)
    assert first.probabilities == second.probabilities


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (b"", "empty"),
        (b"these are words", "unreadable"),
        (encode_jpeg(noise(64, 64), 90)[:900], "truncated"),
        (encode_png(noise(1, 3000)), "too-small"),
        (encode_png(noise(8, 3000)), "too-narrow"),
    ],
)
def test_what_is_no_picture_gets_no_answer(picture: bytes, reason: str) -> None:
    with pytest.raises(BadImage) as caught:
        answer(ExportedNetwork(tiny_model()), card(), picture)
    assert caught.value.reason == reason


def test_a_network_of_windows_is_shown_original_pixels_at_places_that_its_size_draws() -> None:
    network = ExportedNetwork(tiny_model())
    of_windows = card().model_copy(update={"windows": 3})
    file = encode_png(noise(100, 80))
    places = window_places(100, 80, network.side, 3)
    windows = [noise(100, 80)[top : top + network.side, left : left + network.side] for top, left in places]
    expected = network.opinion(windows).probabilities
    assert list(answer(network, of_windows, file).probabilities.values()) == pytest.approx(expected.tolist())
    assert len({window.tobytes() for window in windows}) == 3


def test_windows_lie_anywhere_in_pictures_and_apart_in_each() -> None:
    sizes = [(256 + number, 640) for number in range(400)]
    places = np.array([window_places(height, width, 256, 4) for height, width in sizes], dtype=float)  # (400, 4, 2)
    assert (places >= 0).all()
    assert all((place[:, 0] <= height - 256).all() for place, (height, _) in zip(places, sizes, strict=True))
    across = places[..., 1] / (640 - 256)
    assert np.abs(across.mean(axis=0) - 0.5).max() < 0.06
    assert np.abs(np.quantile(across, (0.1, 0.9)) - (0.1, 0.9)).max() < 0.03
    # Four windows drawn one by one span 0.6 of the room on average.
    assert np.ptp(across, axis=1).mean() > 0.65
    assert window_places(256, 256, 256, 2) == [(0, 0)] * 2


def test_what_a_file_says_beside_its_pixels_changes_no_answer() -> None:
    network, of_windows = ExportedNetwork(tiny_model()), card().model_copy(update={"windows": 3})
    plain = encode_png(noise(100, 80))
    told = plain[:33] + png_chunk(b"tEXt", b"parameters\0a cat, Steps: 20") + plain[33:]
    for each in (card(), of_windows):
        assert answer(network, each, told) == answer(network, each, plain)


def test_a_card_of_a_later_format_asks_for_a_later_telltale() -> None:
    newer = card_of(tiny_model()) | {"format": 3, "decision": {"rule": "another"}}
    with pytest.raises(SpecError, match=r"format 3, newer than 2.*update telltale"):
        Card.read(json.dumps(newer).encode())


def test_a_class_is_called_as_the_card_says_and_else_as_people_know_it() -> None:
    known = {"classes": ["real", "sd14", "gan"], "sources": {"sd14": "folder", "gan": "a GAN of our own"}}
    read = card().model_copy(update=known)
    assert (read.called("sd14"), read.called("gan")) == ("Stable Diffusion 1.4", "a GAN of our own")
    assert read.called("nobodys-generator") == "nobodys-generator"


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        ({"weights": "random:0", "spec": {"kind": "fine-tuned"}}, True),
        ({"weights": "random:0"}, True),
        ({"weights": "sha256:0f", "spec": {"kind": "fine-tuned"}}, False),
        ({"weights": "random:0", "spec": {"kind": "residual"}}, False),
        ({"weights": None}, False),
        ({}, False),
    ],
)
def test_a_network_of_random_weights_is_a_demonstration(about: dict[str, Any], expected: bool) -> None:
    read = Card.read(json.dumps(card_of(tiny_model()) | {"about": about}).encode())
    assert read.about.is_demonstration is expected


def test_a_picture_smaller_than_a_networks_windows_gets_no_answer() -> None:
    network = ExportedNetwork(tiny_model())
    of_windows = card().model_copy(update={"windows": 3})
    with pytest.raises(BadImage, match=f"too-small: expected at least {network.side} pixels a side"):
        answer(network, of_windows, encode_png(noise(network.side - 1, 80)))


def test_a_network_without_finite_outputs_gets_no_verdict() -> None:
    with pytest.raises(SpecError, match="expected finite"):
        said((float("nan"), 0.5, 0.5), (0.5, 0, 0))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"pixels": "AAAA"}, "expected 48 x 64 pixels, got 3 bytes"),
        ({"pixels": "A"}, "self_test.pixels"),
        ({"probabilities": [0.5, 0.5]}, "expected self-test answers for 3 classes"),
        ({"logits": []}, "expected self-test answers for 3 classes"),
        ({"tolerance": 0}, "self_test.tolerance"),
    ],
)
def test_a_self_test_that_cannot_be_made_is_refused(changes: dict[str, Any], told: str) -> None:
    made = card_of(tiny_model())
    made["self_test"] = made["self_test"] | changes
    with pytest.raises(SpecError, match=told):
        Card.read(json.dumps(made).encode())


NONE, ENDLESS = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        *((("decision", "fake_thresholds", "64"), value) for value in (NONE, ENDLESS, -ENDLESS, 2.0, -0.1)),
        *((("decision", "rejection", "threshold"), value) for value in (NONE, ENDLESS, -ENDLESS, 1.5, -0.5)),
        *((("decision", "rejection", "kept"), value) for value in (NONE, 95.0)),
        *((("error_rates", 3, "false_alarms", "value"), value) for value in (NONE, ENDLESS, 5.0, -0.01)),
        *((("error_rates", 0, "missed", bound), value) for bound in ("low", "high") for value in (NONE, 100.0)),
        *((("self_test", "tolerance"), value) for value in (NONE, ENDLESS, 1e9, 0.011, -1e-3)),
        *((("self_test", "logits", 1), value) for value in (NONE, ENDLESS)),
        *((("self_test", "probabilities", 1), value) for value in (NONE, ENDLESS, 1.001, -0.001)),
    ],
)
def test_a_number_that_is_none_or_out_of_its_range_is_refused_by_its_place(
    place: tuple[str | int, ...], value: float
) -> None:
    made = json.loads(json.dumps(card_of(tiny_model())))
    inside = made
    for name in place[:-1]:
        inside = inside[name]
    inside[place[-1]] = value
    with pytest.raises(SpecError, match=r"not the card of an evaluated network: .*" + str(place[0])):
        Card.read(json.dumps(made).encode())


@pytest.mark.parametrize("score", ["energy", "distance"])
def test_scores_that_are_no_probabilities_have_thresholds_of_any_size(score: str) -> None:
    rejection = {"score": score, "threshold": -250.0, "kept": 0.95}
    assert card(rejection=rejection).decision.rejection.threshold == -250.0
    with pytest.raises(SpecError, match=r"decision\.rejection\.threshold"):
        card(rejection=rejection | {"threshold": NONE})


def test_a_threshold_of_a_resolution_that_was_not_tested_is_refused() -> None:
    with pytest.raises(SpecError, match="expected thresholds of tested resolutions, got one of '65'"):
        card(fake_thresholds={"64": 0.5, "65": 0.5})


@pytest.mark.parametrize("missing", ["decision", "error_rates", "canonical_side", "classes", "sha256", "self_test"])
def test_a_card_without_an_evaluation_is_refused_by_what_it_lacks(missing: str) -> None:
    made = card_of(tiny_model())
    del made[missing]
    with pytest.raises(SpecError, match=f"not the card of an evaluated network: {missing}"):
        Card.read(json.dumps(made).encode())
    with pytest.raises(SpecError, match="not the card of an evaluated network: the file"):
        Card.read(b"not JSON")
