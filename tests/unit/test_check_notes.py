"""What `telltale check` notes of histories that are not made equal, of copies, and of what is not left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from typer.testing import Result

from deployments.own_pictures import document_of
from tasks.data.pictures import inspect_picture
from tests.unit.test_own_pictures import checking, picture, pictures


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    check = checking(tmp_path, monkeypatch)

    def run(*words: str) -> Result:
        result = check(*words)
        assert result.exit_code == 0, result.output
        return result

    return run


def notes(told: Any, document: dict[str, Any]) -> list[str]:
    """What `telltale check` notes of an experiment that is written into a file."""
    file = Path("experiment.yaml")
    file.write_text(yaml.safe_dump(document))
    warnings: list[str] = json.loads(told(str(file), "--json").output)["warnings"]
    return warnings


PROMISES = ("tells nothing", "both take one encoding more")
UNKNOWN = "are no JPEGs: what they were before cannot be told, and is not made equal; it may be what is told"


def test_equal_histories_are_promised_of_jpegs_alone(told: Any, tmp_path: Path) -> None:
    photographs, sd = pictures(tmp_path / "photos"), pictures(tmp_path / "sd", quality=75)
    words = ("--photographs", str(photographs), "--fakes", str(sd))
    said = " ".join(told(*words).output.split())
    assert all(promise in said for promise in PROMISES)
    assert "no JPEGs" not in said
    for number in range(3):
        picture(photographs, f"shot-{number}.png", quality=None)
    said = " ".join(told(*words).output.split())
    assert not any(promise in said for promise in PROMISES)
    assert "but what files were before that are no JPEGs (3 of 15 pictures of photos) cannot be told" in said
    assert f"note: 3 of 15 pictures of photos {UNKNOWN}" in said
    assert "the median JPEG quality is 75 of sd, 96 of the photographs (history matched makes equal the quality" in said
    # Nothing is matched of pictures that keep their encodings, and that is said instead.
    assert UNKNOWN not in " ".join(told(*words, "--set", "history=as-is").output.split())


@pytest.mark.parametrize("photographs", ["JPEG", "PNG"])
def test_fakes_that_are_no_jpegs_are_noted_whatever_the_photographs_are(
    told: Any, tmp_path: Path, photographs: str
) -> None:
    real = pictures(tmp_path / "photos", quality=None if photographs == "PNG" else 80)
    result = told("--photographs", str(real), "--fakes", str(pictures(tmp_path / "sd", quality=None)))
    said = " ".join(result.output.split())
    assert not any(promise in said for promise in PROMISES)
    assert ("no picture is a JPEG: what each was before cannot be told" in said) == (photographs == "PNG")
    assert f"note: 12 of 12 pictures of sd {UNKNOWN}" in said
    assert (f"note: 12 of 12 pictures of photos {UNKNOWN}" in said) == (photographs == "PNG")


def test_a_picture_that_takes_no_part_for_two_reasons_is_counted_once(told: Any, tmp_path: Path) -> None:
    photographs, sd = pictures(tmp_path / "photos", count=30), pictures(tmp_path / "sd", quality=75)
    picture(photographs, "small-and-unclean.jpg", side=100, quality=80)
    picture(photographs, "small.jpg", side=100)
    for number in range(3):
        picture(photographs, f"unclean-{number}.jpg", quality=80)
    words = ("--photographs", str(photographs), "--fakes", str(sd), "--cells")
    said = " ".join(told(*words, "256/none").output.split())
    assert "30 in 256 (2 too small for 256, 3 below JPEG quality 95)" in said
    real, _ = json.loads(told(*words, "256/none,64/none", "--json").output)["sources"]
    assert real["takes_part"] == {"256": 30, "64": 31}
    assert (real["too_small"], real["below_clean_quality"]) == ({"256": 2, "64": 0}, {"256": 3, "64": 4})
    for resolution, taking_part in real["takes_part"].items():
        aside = real["too_small"][resolution] + real["below_clean_quality"][resolution]
        assert taking_part + aside == real["pictures"]
    said = " ".join(told(*words, "256/none,64/none").output.split())
    assert "3 below JPEG quality 95 in 256, 4 below JPEG quality 95 in 64" in said


def test_copies_between_generators_are_noted_unless_they_are_of_one_family(told: Any, tmp_path: Path) -> None:
    one, other = pictures(tmp_path / "one", quality=75), pictures(tmp_path / "other", quality=75)
    for number in range(2):
        (other / f"copy-{number}.jpg").write_bytes((one / f"one-{number}.jpg").read_bytes())
    (other / "own-copy.jpg").write_bytes((other / "other-0.jpg").read_bytes())
    document, _ = document_of([pictures(tmp_path / "photos")], [str(one), str(other)])
    said = [note for note in notes(told, document) if "of another family" in note]
    assert said == [
        "2 of other look like pictures of one, a generator of another family: where one of the two is left out of the "
        "training, its copies stay in; take them out, or name both as one of the families"
    ]
    related = document | {"families": {"both": ["one", "other"]}}
    assert not any("of another family" in note for note in notes(told, related))


ALONE = (
    "left_out of traces leaves out no generator, as there is one alone, and no source of photographs, as there is one"
)
BOTH = [{"name": "both", "real": ["city", "country"], "fakes": ["b"]}]
EACH = [{"name": f"b-{one}", "real": [one], "fakes": ["b"]} for one in ("city", "country")]


@pytest.mark.parametrize(
    ("real", "fakes", "more", "said"),
    [
        (["city"], ["b"], {}, f"{ALONE} alone"),
        (["city"], ["b", "c"], {"families": {"all": ["b", "c"]}}, "out no generator, as all are of one family"),
        (["city", "country"], ["b", "c"], {}, "leaves out no source of photographs, as no mix has one alone"),
        (
            ["city", "country"],
            ["b", "c"],
            {"mixes": [*BOTH, EACH[0]]},
            "out no photographs of country, as no mix has them alone",
        ),
        (["city", "country"], ["b", "c"], {"mixes": [*BOTH, *EACH]}, None),
    ],
)
def test_what_left_out_does_not_leave_out_is_noted_with_the_reason(
    told: Any, tmp_path: Path, real: list[str], fakes: list[str], more: dict[str, Any], said: str | None
) -> None:
    of_fakes = [str(pictures(tmp_path / name, quality=75)) for name in fakes]
    document, _ = document_of([pictures(tmp_path / name) for name in real], of_fakes)
    assert not any("leaves out" in note for note in notes(told, document))
    traces = {"kind": "linear", "name": "traces", "windows": 1, "left_out": True}
    found = [note for note in notes(told, document | {"detectors": [traces]} | more) if "leaves out" in note]
    assert len(found) == (said is not None)
    assert said is None or said in found[0]


def test_a_network_that_leaves_out_nothing_is_noted(told: Any, tmp_path: Path) -> None:
    document, _ = document_of([pictures(tmp_path / "photos")], [str(pictures(tmp_path / "sd", quality=75))])
    network = {"kind": "residual", "name": "small", "side": 256, "left_out": True}
    found = notes(told, document | {"mobile": {"networks": [network]}})
    assert "left_out of small leaves out no generator, as there is one alone" in found


def with_own_tables(folder: Path, count: int, first: int = 0) -> Path:
    """JPEGs whose tables are none of libjpeg's, as Photoshop and cameras write them; of about quality 75."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        file = folder / f"own-{number}.jpg"
        picture(folder, file.name, quality=75, seed=100)
        tables = inspect_picture(file.read_bytes()).quantization_tables
        with Image.open(file) as plain:
            plain.copy().save(file, qtables=[[step + 1 for step in table] for table in tables])
    return folder


def test_fakes_with_quantisation_tables_of_their_own_are_noted(told: Any, tmp_path: Path) -> None:
    photographs, sd = pictures(tmp_path / "photos"), pictures(tmp_path / "sd", quality=75, count=9)
    with_own_tables(sd, 3)
    words = ("--photographs", str(photographs), "--fakes", str(sd))
    said = " ".join(told(*words).output.split())
    assert ("note: 3 of 12 pictures of sd were saved with quantisation tables of their own (of about quality 7") in said
    assert "matched photographs take standard ones, and the difference may be what is told" in said
    assert not any(promise in said for promise in PROMISES)
    assert json.loads(told(*words, "--json").output)["sources"][1]["own_tables"] == 3
    picture(sd, "one-more.jpg", quality=75)  # less than a quarter
    assert "tables of their own" not in " ".join(told(*words).output.split())


@pytest.mark.parametrize("quality", [75, None])
def test_photographs_with_tables_of_their_own_are_noted_where_fakes_take_their_encodings(
    told: Any, tmp_path: Path, quality: int | None
) -> None:
    web, sd = with_own_tables(tmp_path / "web", 12), pictures(tmp_path / "sd", quality=quality)
    pictures(web, quality=96)
    said = " ".join(told("--photographs", str(web), "--fakes", str(sd)).output.split())
    assert "(history: matched)" in said
    noted = "12 of 24 pictures of web were saved with quantisation tables of their own"
    assert (noted in said) == (quality is None)
    assert ("matched pictures of sd take standard ones" in said) == (quality is None)
