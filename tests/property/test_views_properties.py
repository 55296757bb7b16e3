"""What holds for every picture, view and histogram."""

import contextlib
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from storage.errors import BadImage
from tasks.data.encoding import encode_jpeg, encode_png
from tasks.data.fingerprints import hamming, hash_text, perceptual_hash
from tasks.data.pictures import Pixels, decode_rgb, inspect_picture
from tasks.data.views import canonical_quality, fair_canonical, is_enlarged, make_views
from tasks.spec.views import Canonical, View

quality = st.integers(1, 100)
sides = st.integers(16, 96)
image_ids = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
histograms = st.dictionaries(quality, st.integers(1, 1_000), min_size=1, max_size=6).map(
    lambda counts: tuple(sorted(counts.items()))
)
canonicals = st.builds(Canonical, side=sides, qualities=histograms)
views = st.builds(
    View,
    path=st.sampled_from(["fair", "raw"]),
    resolution=st.just("native") | st.integers(16, 64),
    jpeg_quality=st.none() | quality,
)


@st.composite
def pictures(draw: st.DrawFn) -> Pixels:
    """Smooth or noisy uint8 (H, W, 3) of any shape from 8 to 120 pixels a side."""
    height, width = draw(st.integers(8, 120)), draw(st.integers(8, 120))
    grain = draw(st.sampled_from([1, 8, 40]))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    small = random.integers(0, 256, (-(-height // grain), -(-width // grain), 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


@settings(max_examples=40, deadline=None)
@given(pictures(), image_ids, st.lists(views, max_size=6), canonicals)
def test_a_view_has_the_size_that_it_names(
    rgb: Pixels, image_id: str, wanted: list[View], canonical: Canonical
) -> None:
    made = make_views(encode_png(rgb), image_id, wanted, canonical)
    assert set(made) == set(wanted)
    for view, picture in made.items():
        native = (canonical.side, canonical.side) if view.path == "fair" else rgb.shape[:2]
        expected = native if view.resolution == "native" else (view.resolution, view.resolution)
        assert picture.pixels.shape == (*expected, 3)
        assert (picture.encoded is None) == (view.jpeg_quality is None)
        if picture.encoded is not None:
            facts = inspect_picture(picture.encoded)
            assert (facts.height, facts.width, facts.jpeg_quality) == (*expected, view.jpeg_quality)
            np.testing.assert_array_equal(decode_rgb(picture.encoded), picture.pixels)


@settings(max_examples=30, deadline=None)
@given(pictures(), image_ids, st.lists(views, min_size=1, max_size=6), canonicals, st.randoms(use_true_random=False))
def test_a_picture_does_not_depend_on_the_other_views_nor_on_their_order(
    rgb: Pixels, image_id: str, wanted: list[View], canonical: Canonical, random: Random
) -> None:
    data = encode_png(rgb)
    together = make_views(data, image_id, wanted, canonical)
    shuffled = list(wanted)
    random.shuffle(shuffled)
    reordered = make_views(data, image_id, shuffled, canonical)
    for view in wanted:
        alone = make_views(data, image_id, [view], canonical)[view]
        for other in (together[view], reordered[view]):
            assert alone.encoded == other.encoded
            np.testing.assert_array_equal(alone.pixels, other.pixels)


@settings(max_examples=40, deadline=None)
@given(pictures(), image_ids, canonicals)
def test_a_fair_picture_on_the_fair_path_is_only_encoded_again(
    rgb: Pixels, image_id: str, canonical: Canonical
) -> None:
    once = fair_canonical(rgb, image_id, canonical)
    twice = fair_canonical(once, image_id, canonical)
    assert not is_enlarged(once.shape[1], once.shape[0], canonical)
    drawn = canonical_quality(image_id, canonical)
    np.testing.assert_array_equal(twice, decode_rgb(encode_jpeg(once, drawn)))


@settings(max_examples=40, deadline=None)
@given(pictures(), image_ids, canonicals, views.filter(lambda view: view.path == "fair"))
def test_the_fair_path_forgets_the_file_and_keeps_the_pixels(
    rgb: Pixels, image_id: str, canonical: Canonical, view: View
) -> None:
    as_jpeg = encode_jpeg(rgb, 80)
    as_png = encode_png(decode_rgb(as_jpeg))
    first = make_views(as_jpeg, image_id, [view], canonical)[view]
    second = make_views(as_png, image_id, [view], canonical)[view]
    assert first.encoded == second.encoded
    np.testing.assert_array_equal(first.pixels, second.pixels)


@given(image_ids, histograms)
def test_a_drawn_quality_is_one_of_the_photographs_and_does_not_depend_on_the_histograms_order(
    image_id: str, histogram: tuple[tuple[int, int], ...]
) -> None:
    drawn = canonical_quality(image_id, Canonical(side=64, qualities=histogram))
    assert drawn in dict(histogram)
    assert drawn == canonical_quality(image_id, Canonical(side=64, qualities=tuple(reversed(histogram))))
    doubled = tuple((q, 2 * count) for q, count in histogram)
    assert drawn == canonical_quality(image_id, Canonical(side=64, qualities=doubled))


@settings(max_examples=20, deadline=None)
@given(histograms, st.text("abcdef", max_size=8))
def test_drawn_qualities_follow_the_histogram(histogram: tuple[tuple[int, int], ...], prefix: str) -> None:
    canonical, draws = Canonical(side=64, qualities=histogram), 2_000
    drawn = [canonical_quality(f"{prefix}{n}", canonical) for n in range(draws)]
    total = sum(count for _, count in histogram)
    for q, count in histogram:
        share = count / total
        # Six standard deviations: one false alarm in some hundred million draws.
        tolerance = 6 * np.sqrt(share * (1 - share) / draws) + 1e-9
        assert drawn.count(q) / draws == pytest.approx(share, abs=tolerance)


@settings(max_examples=60, deadline=None)
@given(
    pictures(),
    st.sampled_from(["jpeg", "png"]),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_damaged_bytes_decode_to_a_picture_or_are_a_bad_image(
    rgb: Pixels, file_format: str, damage: list[tuple[float, int]]
) -> None:
    data = bytearray(encode_jpeg(rgb, 85) if file_format == "jpeg" else encode_png(rgb))
    for place, value in damage:
        data[int(place * len(data))] = value
    with contextlib.suppress(BadImage):
        decoded = decode_rgb(bytes(data), max_pixels=1_000_000)
        assert decoded.dtype == np.uint8
        assert decoded.shape[2:] == (3,)
        np.testing.assert_array_equal(decoded, decode_rgb(bytes(data), max_pixels=1_000_000))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\x00"]))
def test_arbitrary_bytes_are_a_bad_image(body: bytes, magic: bytes) -> None:
    with pytest.raises(BadImage):
        decode_rgb(magic + body)


@settings(max_examples=30, deadline=None)
@given(pictures())
def test_a_hash_is_64_bits_and_survives_the_way_through_text(rgb: Pixels) -> None:
    phash = perceptual_hash(rgb)
    assert 0 <= phash < 2**64
    assert int(hash_text(phash), 16) == phash
    assert hamming(phash, phash) == 0


@settings(max_examples=30, deadline=None)
@given(pictures(), quality)
def test_encoding_is_deterministic(rgb: Pixels, jpeg_quality: int) -> None:
    assert encode_jpeg(rgb, jpeg_quality) == encode_jpeg(rgb.copy(), jpeg_quality)
    assert encode_png(rgb) == encode_png(rgb.copy())
