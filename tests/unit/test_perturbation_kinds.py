"""What each kind of perturbation does to pixels, against other implementations, and the same each time."""

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage, stats

from storage.errors import SpecError
from tasks.data.encoding import decode_own_jpeg, encode_jpeg, encode_png
from tasks.data.perturbations.base import KINDS, PerturbationBase, ViewPicture, perturbation_of
from tasks.data.perturbations.blur import half_kernel
from tasks.data.perturbations.noise import drawn_noise
from tasks.data.pictures import PictureFacts, Pixels, decode_rgb, inspect_picture
from tasks.data.views import PROBE_FEATURE_NAMES, make_views, probe_vector
from tasks.spec.views import Canonical, View

NAMES = (
    "q60", "q75-q50", "webp-50", "avif-50", "blur-2", "noise-5", "crop-0.8", "resize-0.5", "scale-0.9", "limit-48",
    "messenger", "social", "screenshot",
)  # fmt: skip
ENCODED = {
    "q60": "JPEG",
    "q75-q50": "JPEG",
    "webp-50": "WEBP",
    "avif-50": "AVIF",
    "messenger": "JPEG",
    "social": "WEBP",
}


def scene(height: int = 72, width: int = 96, seed: int = 0) -> Pixels:
    """A coloured picture of grains of some pixels."""
    small = np.random.default_rng(seed).integers(0, 256, (height // 6, width // 6, 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def applied(name: str, pixels: Pixels) -> ViewPicture:
    return perturbation_of(name).apply(pixels)


def digest(pixels: Pixels) -> str:
    return hashlib.sha256(pixels.tobytes()).hexdigest()[:16]


def test_every_kind_is_tried_here() -> None:
    assert {type(perturbation_of(name)) for name in NAMES} == set(KINDS.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_becomes_the_same_each_time_and_is_left_as_it_was(name: str) -> None:
    pixels = scene()
    pixels.setflags(write=False)
    before = pixels.copy()
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: applied(name, pixels), range(4)))
    np.testing.assert_array_equal(pixels, before)
    for one in found:
        np.testing.assert_array_equal(one.pixels, found[0].pixels)
        assert one.encoded == found[0].encoded
    assert found[0].pixels.dtype == np.uint8
    assert not np.array_equal(found[0].pixels, pixels)


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_has_the_size_that_is_said_beforehand(name: str) -> None:
    for height, width in ((72, 96), (97, 41), (50, 50)):
        seen = applied(name, scene(120, 120)[:height, :width])
        assert seen.pixels.shape == (*perturbation_of(name).size(height, width), 3)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_given_where_the_last_step_encodes_and_has_these_pixels(name: str) -> None:
    seen = applied(name, scene())
    if name not in ENCODED:
        assert seen.encoded is None
        return
    assert seen.encoded is not None
    assert inspect_picture(seen.encoded).format == ENCODED[name]
    np.testing.assert_array_equal(decode_rgb(seen.encoded), seen.pixels)


@pytest.mark.parametrize("name", [name for name in NAMES if name in ENCODED])
def test_another_decoder_reads_the_file_as_well(name: str) -> None:
    seen = applied(name, scene())
    assert seen.encoded is not None
    decoded = np.array(Image.open(io.BytesIO(seen.encoded)).convert("RGB")).astype(int)
    # Decoders of JPEG differ in how they enlarge chroma.
    assert np.abs(decoded - seen.pixels).mean() < (2 if ENCODED[name] == "JPEG" else 1e-9)


@pytest.mark.parametrize("kind", ["webp", "avif"])
def test_a_higher_quality_is_nearer_and_larger(kind: str) -> None:
    pixels = scene(120, 120)
    found = [applied(f"{kind}-{quality}", pixels) for quality in (1, 50, 100)]
    errors = [np.abs(one.pixels.astype(int) - pixels).mean() for one in found]
    sizes = [len(one.encoded or b"") for one in found]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 4
    assert sizes == sorted(sizes)


def test_an_avif_file_is_the_same_however_many_cores_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.tile(scene(120, 120), (9, 9, 1))  # more than the area of one tile
    found = []
    for cores in (1, 16):
        monkeypatch.setattr("PIL.AvifImagePlugin._get_default_max_threads", lambda cores=cores: cores)
        found.append(applied("avif-5", pixels))
    assert found[0].encoded == found[1].encoded
    np.testing.assert_array_equal(found[0].pixels, found[1].pixels)


def test_two_jpegs_are_one_after_the_other() -> None:
    pixels = scene()
    once = decode_own_jpeg(encode_jpeg(pixels, 75))
    assert applied("q75-q50", pixels).encoded == encode_jpeg(once, 50)
    assert applied("q50-q75", pixels).encoded != applied("q75-q50", pixels).encoded


@pytest.mark.parametrize("sigma", [0.3, 0.5, 1, 2, 3.75, 20])
def test_a_blur_is_scipys_within_a_level(sigma: float) -> None:
    pixels = scene()
    exact = ndimage.gaussian_filter(pixels.astype(float), sigma=(sigma, sigma, 0), mode="reflect")
    assert np.abs(applied(f"blur-{sigma}", pixels).pixels - exact).max() <= 1


@pytest.mark.parametrize("sigma", [0.3, 1, 50])
def test_a_blur_leaves_a_flat_picture_as_it_is(sigma: float) -> None:
    for level in (0, 77, 255):
        flat = np.full((16, 16, 3), level, dtype=np.uint8)
        np.testing.assert_array_equal(applied(f"blur-{sigma}", flat).pixels, flat)


@pytest.mark.parametrize("sigma", [0.3, 0.77, 5, 50])
def test_the_weights_of_a_blur_sum_up_to_one_and_fall(sigma: float) -> None:
    half = half_kernel(sigma).astype(int)
    assert half[0] + 2 * half[1:].sum() == 1 << 16
    assert (np.diff(half[1:]) <= 0).all()
    assert half[0] < 1 << 16


def test_blur_and_noise_never_change() -> None:
    # Pinned: integers and raw bits of a generator, which are the same on every machine and in every version of NumPy.
    pixels = np.arange(40 * 50 * 3).reshape(40, 50, 3).astype(np.uint8)
    pinned = {
        "blur-0.5": "43835c3e0dabe86c",
        "blur-2": "4e17396c146233a5",
        "noise-0.5": "40e99f625a0a0cb6",
        "noise-5": "85a3f81bfc19eee2",
    }
    assert {name: digest(applied(name, pixels).pixels) for name in pinned} == pinned


@pytest.mark.parametrize("sigma", [0.3, 2, 25])
def test_noise_is_a_rounded_gaussian(sigma: float) -> None:
    levels = drawn_noise(scene(300, 400), sigma)
    n = levels.size
    assert abs(levels.mean()) < 5 * sigma / n**0.5
    seen = np.arange(-int(4 * sigma) - 1, int(4 * sigma) + 2)
    expected = stats.norm.cdf((seen + 0.5) / sigma) - stats.norm.cdf((seen - 0.5) / sigma)
    found = np.array([(levels == level).mean() for level in seen])
    assert (np.abs(found - expected) < 5 * np.sqrt(expected / n) + 1e-6).all()


def test_noise_is_independent_of_its_neighbours_and_of_channels() -> None:
    levels = drawn_noise(scene(300, 400), 10)
    for one, other in (
        (levels[1:], levels[:-1]),
        (levels[:, 1:], levels[:, :-1]),
        (levels[..., 0], levels[..., 1]),
        (drawn_noise(scene(300, 400, seed=1), 10), levels),
    ):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.02


def test_noise_is_added_and_clipped() -> None:
    for pixels in (scene(), np.full((16, 16, 3), 254, dtype=np.uint8), np.zeros((9, 11, 3), dtype=np.uint8)):
        expected = np.clip(pixels.astype(int) + drawn_noise(pixels, 8), 0, 255)
        np.testing.assert_array_equal(applied("noise-8", pixels).pixels, expected)


def test_a_crop_is_a_window_of_the_original_pixels() -> None:
    pixels = np.arange(50 * 60 * 3).reshape(50, 60, 3).astype(np.uint8)
    window = applied("crop-0.8", pixels).pixels
    assert window.shape == (40, 48, 3)
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (40, 48, 3))[:, :, 0]
    assert (windows == window).all(axis=(2, 3, 4)).any()


def test_crops_lie_everywhere_and_each_where_its_pixels_say() -> None:
    places = []
    for seed in range(60):
        pixels = np.random.default_rng(seed).integers(0, 256, (20, 20, 3), dtype=np.uint8)
        pixels[..., 0], pixels[..., 1] = np.mgrid[:20, :20]
        places.append(tuple(applied("crop-0.9", pixels).pixels[0, 0, :2].tolist()))
    assert set(places) == {(top, left) for top in range(3) for left in range(3)}


def test_a_crop_that_leaves_next_to_nothing_is_refused() -> None:
    with pytest.raises(SpecError, match=r"crop-0.4 leaves 6x6 of 16x16 pixels: expected a larger share"):
        applied("crop-0.4", scene(18, 18)[:16, :16])
    assert applied("crop-0.5", scene(18, 18)[:16, :16]).pixels.shape == (8, 8, 3)


def test_a_resize_keeps_the_size_and_a_scale_does_not() -> None:
    pixels = scene(72, 96)
    small = Image.fromarray(pixels).resize((48, 36), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(applied("scale-0.5", pixels).pixels, np.array(small))
    back = np.array(small.resize((96, 72), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(applied("resize-0.5", pixels).pixels, back)
    assert applied("resize-0.05", scene(18, 18)).pixels.shape == (18, 18, 3)


def test_a_limit_reduces_what_is_larger_alone() -> None:
    pixels = scene(72, 96)
    assert applied("limit-48", pixels).pixels.shape == (36, 48, 3)
    assert applied("limit-48", scene(96, 72)).pixels.shape == (48, 36, 3)
    assert applied("limit-96", pixels).pixels is pixels


def test_the_given_chains_do_what_they_say() -> None:
    large = scene(60, 60).repeat(36, axis=0).repeat(40, axis=1)  # 2160 x 2400
    messenger = decode_own_jpeg(encode_jpeg(applied("limit-1600", large).pixels, 75))
    np.testing.assert_array_equal(applied("messenger", large).pixels, messenger)
    assert messenger.shape == (1440, 1600, 3)
    twice = applied("webp-80", applied("q85", applied("limit-2048", large).pixels).pixels)
    assert applied("social", large).encoded == twice.encoded
    np.testing.assert_array_equal(applied("screenshot", scene()).pixels, applied("scale-0.9", scene()).pixels)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_posted_says_nothing_of_the_file_that_it_was_made_of(name: str) -> None:
    """The same pixels as PNG and as lossless WebP, of either class: the probe sees no difference."""
    canonical = Canonical(side=96, qualities=((90, 1),))
    view = View(path="fair", resolution=64, perturbation=perturbation_of(name))
    found = []
    for data in (encode_png(scene(120, 160)), lossless_webp(scene(120, 160))):
        picture = make_views(data, "1", [view], canonical)[view]
        found.append(probe_vector(inspect_picture(data), len(data), view, picture))
    np.testing.assert_array_equal(found[0], found[1])


def lossless_webp(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="WEBP", lossless=True)
    return buffer.getvalue()


@pytest.mark.parametrize(("name", "format_"), [*ENCODED.items(), ("blur-2", "PNG"), ("screenshot", "PNG")])
@pytest.mark.parametrize("place", ["fair/64", "raw/native"])
def test_the_probe_sees_the_file_that_is_posted(place: str, name: str, format_: str) -> None:
    path, resolution = place.split("/")
    view = View.model_validate(
        {
            "path": path,
            "resolution": resolution if resolution == "native" else int(resolution),
            "perturbation": name,
        }
    )
    data = encode_jpeg(scene(), 90)
    picture = make_views(data, "1", [view], Canonical(side=64, qualities=((90, 1),)))[view]
    original: PictureFacts = inspect_picture(data)
    seen = dict(zip(PROBE_FEATURE_NAMES, probe_vector(original, len(data), view, picture).tolist(), strict=True))
    posted = encode_png(picture.pixels) if picture.encoded is None else picture.encoded
    assert seen["file_size"] == len(posted)
    assert (seen["height"], seen["width"]) == picture.pixels.shape[:2]
    is_format = (seen["is_jpeg"], seen["is_png"], seen["is_other_format"])
    assert is_format == (format_ == "JPEG", format_ == "PNG", format_ in ("WEBP", "AVIF"))


@pytest.mark.parametrize("kind", ["webp", "avif"])
def test_what_pillow_was_built_without_is_missing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def lines(name: str) -> list[str]:
        perturbation: PerturbationBase = perturbation_of(name)
        return perturbation.missing()

    assert lines(f"{kind}-50") == lines("social") == lines("blur-2") == []
    monkeypatch.setattr("PIL.features.check", lambda feature: feature != kind)
    (line,) = lines(f"{kind}-50")
    assert f"{kind}-50" in line
    assert "pip install" in line
    assert len(lines("social")) == (kind == "webp")
