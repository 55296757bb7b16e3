"""Deliveries scale and save whole pictures, photographs and fakes alike."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from tasks.data.deliveries import delivered
from tasks.data.pictures import Pixels
from tasks.spec.published import DELIVERIES, Delivery, Published


@pytest.fixture
def picture() -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (120, 160, 3)).astype(np.uint8)


def test_as_posted_it_is_the_picture(picture: Pixels) -> None:
    assert (delivered(picture, "a", DELIVERIES[0]) == picture).all()


def test_it_is_saved_as_most_files_are(picture: Pixels) -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=60, subsampling="4:2:0")
    expected = np.array(Image.open(buffer))
    assert np.abs(delivered(picture, "a", Delivery(name="saved", quality=60)).astype(int) - expected).max() <= 3


def test_a_palette_leaves_256_colours_near_those_that_were_there(picture: Pixels) -> None:
    smooth = np.asarray(Image.fromarray(picture[:12, :16]).resize((160, 120)))
    found = delivered(smooth, "a", Delivery(name="few", saved_as="palette"))
    assert len(np.unique(found.reshape(-1, 3), axis=0)) <= 256
    assert np.abs(found.astype(int) - smooth).mean() < 12


def test_factors_are_drawn_by_the_name_of_the_picture_over_their_whole_span(picture: Pixels) -> None:
    delivery = Delivery(name="screen", factors=(0.5, 1.5))
    heights = [delivered(picture, f"picture {number}", delivery).shape[0] for number in range(200)]
    assert min(heights) < 66
    assert max(heights) > 174
    assert abs(np.mean(heights) - 120) < 8
    again = [delivered(picture, f"picture {number}", delivery).shape[0] for number in range(200)]
    assert heights == again


def test_a_shorter_side_is_reached_and_nothing_is_enlarged(picture: Pixels) -> None:
    small = Delivery(name="small", shorter_side=64)
    assert delivered(picture, "a", small).shape == (64, 85, 3)
    assert delivered(picture[:50], "a", small).shape == (50, 160, 3)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"factors": (1.5, 0.5)}, "factors fall"),
        ({"factors": (0.5, 1), "shorter_side": 64}, "got both"),
        ({"quality": 0}, "greater than or equal to 1"),
        ({"quality": 50, "saved_as": "palette"}, "a palette none"),
        ({"saved_as": "webp"}, "WebP has a quality"),
    ],
)
def test_a_delivery_that_makes_no_sense_is_refused(fields: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Delivery.model_validate({"name": "odd"} | fields)


def test_the_first_delivery_is_as_posted() -> None:
    with pytest.raises(ValidationError, match="the first is as posted"):
        Published(deliveries=DELIVERIES[1:])
