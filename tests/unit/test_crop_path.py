"""The crop path: windows of original pixels, one encoding for both classes, and what comes before it."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pydantic import ValidationError

from storage.local import LocalStore
from storage.tables import FAKE, REAL
from tasks.data import histories
from tasks.data.encoding import decode_own_jpeg, encode_jpeg, encode_jpeg_exactly, encode_png
from tasks.data.histories import called, control_histories, matched_histories
from tasks.data.perturbations.jpeg import Jpeg
from tasks.data.pictures import chroma_subsampling, decode_rgb, inspect_picture
from tasks.data.resizing import resized
from tasks.data.views import (
    canonical_quality,
    has_window,
    make_views,
    shown_picture,
    window_place,
    with_history,
)
from tasks.features.base import Extractor
from tasks.features.shards import embed_images
from tasks.presets import load_experiment
from tasks.spec.views import Canonical, Cell, History, Subsampling, View

CANONICAL = Canonical(side=64, qualities=((90, 1), (96, 3)))
VIEW = View(path="crop", resolution=64)
PICTURE = np.random.default_rng(5).integers(0, 256, (101, 150, 3), dtype=np.uint8)
SAVED: tuple[tuple[int, Subsampling, int], ...] = ((75, "420", 3), (90, "444", 1))


def jpeg(quality: int, subsampling: str = "4:2:0", picture: np.ndarray = PICTURE) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(picture).save(sink, "JPEG", quality=quality, subsampling=subsampling)
    return sink.getvalue()


def test_a_window_has_the_pictures_own_pixels_encoded_once() -> None:
    top, left = window_place("a", 0, 101, 150, 64)
    own = PICTURE[top : top + 64, left : left + 64]
    made = make_views(encode_png(PICTURE), "a", [VIEW], CANONICAL)[VIEW]
    np.testing.assert_array_equal(made.pixels, decode_own_jpeg(encode_jpeg(own, canonical_quality("a", CANONICAL))))
    # At a quality of 100 hardly anything is lost: nothing was scaled or moved.
    lossless = Canonical(side=64, qualities=((100, 1),))
    smooth = np.repeat(np.arange(150, dtype=np.uint8)[None, :, None], 101, axis=0).repeat(3, axis=2)
    close = make_views(encode_png(smooth), "a", [VIEW], lossless)[VIEW].pixels
    assert np.abs(close.astype(int) - smooth[top : top + 64, left : left + 64]).max() <= 2


def test_windows_lie_anywhere_in_a_picture_whatever_the_grid_of_an_earlier_encoding() -> None:
    places = np.array([window_place(str(number), index, 101, 150, 64) for number in range(400) for index in range(5)])
    assert places.min() == 0
    assert places.max(axis=0).tolist() == [101 - 64, 150 - 64]
    for axis in (0, 1):
        phases = np.bincount(places[:, axis] % 8, minlength=8)
        assert phases.min() > 150, "2,000 places, 250 of each phase"


def test_each_of_several_windows_has_a_place_of_its_own_and_the_first_is_that_of_one_window() -> None:
    several = View(path="crop", resolution=64, windows=5)
    assert several.name == "crop/64/none/5-windows"
    assert several.each_window[0] == VIEW
    assert len({window_place("a", one.window, 101, 150, 64) for one in several.each_window}) == 5


def test_versions_of_a_picture_have_their_window_at_the_same_place() -> None:
    history = History(encodings=((75, "420", 1),), of="photographs")
    saved = make_views(with_history(jpeg(96), "a", history), "a", [VIEW], CANONICAL)[VIEW].pixels
    own = make_views(jpeg(96), "a", [VIEW], CANONICAL)[VIEW].pixels
    assert np.corrcoef(saved.ravel(), own.ravel())[0, 1] > 0.8
    assert not np.array_equal(saved, own)


def test_photographs_draw_their_encoding_from_the_other_classs() -> None:
    history = History(encodings=SAVED, of="photographs")
    drawn = []
    for number in range(400):
        file = with_history(jpeg(96, picture=PICTURE[:16, :16]), str(number), history)
        drawn.append((inspect_picture(file).jpeg_quality, chroma_subsampling(file)))
    assert set(drawn) == {(75, "420"), (90, "444")}
    assert 0.68 < np.mean([quality == 75 for quality, _ in drawn]) < 0.82, "three of four"


def test_an_encoding_that_would_still_be_seen_leaves_a_photograph_out_and_no_fake_is_encoded_again() -> None:
    of_photographs = History(encodings=SAVED, of="photographs")
    of_fakes = History(encodings=SAVED, of="fakes")
    assert [of_photographs.leaves_out(quality) for quality in (90, 94, 95, 100, None)] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert not of_fakes.leaves_out(50)
    data = jpeg(80)
    assert with_history(data, "a", of_fakes) is data
    assert inspect_picture(with_history(encode_png(PICTURE), "a", of_fakes)).format == "JPEG"
    assert with_history(data, "a", None) is data


def test_whole_pictures_are_encoded_on_their_own_grid() -> None:
    history = History(encodings=((75, "420", 1),), of="photographs")
    np.testing.assert_array_equal(
        decode_rgb(with_history(encode_png(PICTURE), "a", history)), decode_rgb(jpeg(75, picture=PICTURE))
    )


def test_the_cleaner_class_takes_the_encoding() -> None:
    photographs = [(96, "420", 5)]
    for_photographs, for_fakes = matched_histories(
        {"saved": list(SAVED), "lossless": []}, photographs, are_all_jpegs=True
    )
    assert for_photographs == {"saved": History(encodings=SAVED, of="photographs"), "lossless": None}
    assert for_fakes == {
        "saved": History(encodings=SAVED, of="fakes"),
        "lossless": History(encodings=((96, "420", 5),), of="fakes"),
    }
    assert matched_histories({"lossless": []}, [], False) == ({"lossless": None}, {"lossless": None})


def test_photographs_that_are_no_jpegs_take_the_encoding_that_a_lossless_generator_takes() -> None:
    for_photographs, for_fakes = matched_histories({"saved": list(SAVED), "lossless": []}, [(50, "420", 1)], False)
    history = for_photographs["lossless"]
    assert history == for_fakes["lossless"] == History(encodings=((50, "420", 1),), of="fakes")
    assert for_photographs["saved"] == History(encodings=SAVED, of="photographs")
    # Both classes have been through the one encoding then, and whoever had been stays as it is.
    assert inspect_picture(with_history(encode_png(PICTURE), "a", history)).jpeg_quality == 50
    data = jpeg(50)
    assert with_history(data, "a", history) is data
    assert not history.leaves_out(50)


@pytest.mark.parametrize(
    ("jpegs", "clean", "expected"),
    [
        ([[96, "420", 5]], [[640, 5]], True),
        ([[96, "420", 5]], [[640, 5], [700, 1]], False),
        ([[50, "420", 1]], [[640, 39]], False),
        ([[50, "420", 1], [96, "444", 2]], [[640, 2]], True),
    ],
)
def test_pictures_that_are_no_jpegs_are_known_by_their_counts(
    jpegs: list[Any], clean: list[Any], expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(histories, "notes_of", lambda store, ref: {"jpegs": jpegs, "clean": clean})
    counted: list[Any] = ["a source"]
    assert histories.are_all_jpegs(LocalStore(tmp_path), counted) is expected


def table(files: list[bytes]) -> pa.Table:
    facts = [inspect_picture(data) for data in files]
    return pa.table(
        {
            "image": [{"bytes": data, "path": None} for data in files],
            "image_id": [str(number) for number in range(len(files))],
            "source": ["photographs"] * len(files),
            "width": [fact.width for fact in facts],
            "height": [fact.height for fact in facts],
            "jpeg_quality": pa.array([fact.jpeg_quality for fact in facts], pa.int16()),
        }
    )


MEANS = Extractor(
    lambda data, view, picture: picture.pixels.mean(axis=(0, 1), dtype=np.float64).astype(np.float32), np.stack, 2, 3
)


def test_a_picture_without_a_window_has_no_place() -> None:
    with pytest.raises(AssertionError, match="a picture of 150x63 has no window of 64"):
        window_place("a", 0, 63, 150, 64)


def test_features_are_averaged_over_the_windows_of_a_picture() -> None:
    files = [encode_png(PICTURE), jpeg(96), jpeg(90)]
    view = View(path="crop", resolution=64, windows=3)
    together = embed_images(table(files), [view], MEANS, CANONICAL, enlarge=False)[view].matrix()
    for row, data in enumerate(files):
        single = make_views(data, str(row), view.each_window, CANONICAL)
        expected = np.mean(
            [np.asarray(MEANS.prepare(data, one, single[one]), np.float64) for one in view.each_window], axis=0
        )
        np.testing.assert_allclose(together[row], expected, rtol=1e-6)


def test_small_pictures_and_those_of_another_history_are_left_out_and_counted() -> None:
    files = [encode_png(PICTURE[:63]), encode_png(PICTURE), jpeg(90), jpeg(96)]
    history = History(encodings=SAVED, of="photographs")
    canonical = CANONICAL.model_copy(update={"history": history})
    found = embed_images(table(files), [VIEW], MEANS, canonical, enlarge=True)[VIEW]
    assert (found.rows, found.left_out, found.unmatched, found.enlarged) == ([1, 3], 2, 1, 0)
    assert not has_window(150, 63, VIEW)


def test_a_detector_of_pictures_sees_the_window_that_features_are_made_of() -> None:
    history = History(encodings=SAVED, of="photographs")
    canonical = CANONICAL.model_copy(update={"history": history})
    cell = Cell(resolution=64, perturbation=Jpeg(quality=30)).view("crop", windows=2)
    data = jpeg(97)
    described = make_views(data, "a", cell.each_window, canonical)
    row = {"image_id": "a", "quality": canonical_quality("a", canonical)}
    rgb = decode_rgb(with_history(data, "a", history))
    for one in cell.each_window:
        np.testing.assert_array_equal(shown_picture(rgb, row, one).pixels, described[one].pixels)


def test_rows_are_called_by_the_history_that_they_have() -> None:
    pictures = table([jpeg(96)]).append_column("label", pa.array([REAL], pa.int8()))
    assert called(pictures, "photographs-as-gan", None)["source"].to_pylist() == ["photographs-as-gan"]
    twice, once = control_histories(SAVED, [(90, "420", 9), (96, "420", 1)])
    assert called(pictures, "a", twice)["label"].to_pylist() == [REAL]
    assert called(pictures, "a", once)["label"].to_pylist() == [FAKE]
    assert twice.clean == ((96, "420", 1),)


def test_the_control_has_the_same_photographs_once_and_twice_encoded_without_their_own_grid() -> None:
    twice, once = control_histories([(75, "420", 1)], [(96, "420", 1)])
    reduced = resized(decode_rgb(jpeg(97)), 60, 90)
    clean = decode_rgb(encode_jpeg_exactly(reduced, 96))
    files = [with_history(jpeg(97), "a", history) for history in (once, twice)]
    assert files == [encode_jpeg_exactly(reduced, 75), encode_jpeg_exactly(clean, 75)]
    canonical = CANONICAL.model_copy(update={"history": once})
    view = View(path="crop", resolution=61)
    assert embed_images(table([jpeg(97)]), [view], MEANS, canonical, enlarge=False)[view].rows == []


@pytest.mark.parametrize(
    "fields",
    [
        {"path": "fair", "windows": 2},
        {"path": "raw", "windows": 2},
        {"path": "crop", "resolution": "native"},
        {"path": "crop", "windows": 0},
    ],
    ids=str,
)
def test_windows_of_nothing_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        View.model_validate({"resolution": 64} | fields)


SEED = {"real": "photographs", "gan": "gan", "stable": "tiny-diffusion"}
CROP = {"path": "crop", "mobile": None, "seed_protocol": None, "resolutions": [64]}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"detectors": [{"kind": "linear", "name": "a", "windows": 2}]}, "a has 2 windows, which are of"),
        (
            {"detectors": [{"kind": "scores", "name": "a", "table": "a.csv", "windows": 2}]},
            "of its first window, got 2",
        ),
        ({"history": "as-is"}, "history: it is of the path crop"),
        (CROP | {"resolutions": ["native", 64]}, "each is the side of a window"),
        (CROP | {"mobile": {"networks": [{"kind": "fine-tuned", "name": "a"}]}}, "nothing is scaled on the path crop"),
        (CROP | {"seed_protocol": SEED}, "seed_protocol: it is of the fair path"),
    ],
    ids=str,
)
def test_what_does_not_fit_the_path_is_refused(overrides: dict[str, object], message: str) -> None:
    from storage.errors import SpecError

    with pytest.raises(SpecError, match=message):
        load_experiment("sample", overrides)


def test_photographs_stand_against_each_generator_under_a_name_of_their_own() -> None:
    experiment = load_experiment("sample", CROP)
    real, fakes = experiment.real_names, experiment.fake_names
    assert experiment.photographs(fakes) == tuple(f"{one}-as-{fake}" for fake in fakes for one in real)
    as_it_came = load_experiment("sample", CROP | {"history": "as-is"})
    assert as_it_came.photographs(fakes) == real
