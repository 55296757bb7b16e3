"""Folders of pictures become an experiment that fits them, and what is wrong with them is said before any work."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner, Result

from deployments.cli import app
from deployments.own_pictures import document_of
from storage.errors import MissingInput, SpecError
from tasks.presets import parse_experiment
from tasks.spec.views import Cell


def picture(folder: Path, name: str, side: int = 260, quality: int | None = 96, seed: int = 0) -> None:
    """A picture of noise: a JPEG, or a PNG without quality."""
    rng = np.random.default_rng([seed, *name.encode()])
    pixels = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize(
        (side + 12, side), Image.Resampling.BICUBIC
    )
    buffer = io.BytesIO()
    if quality is None:
        pixels.save(buffer, "PNG")
    else:
        pixels.save(buffer, "JPEG", quality=quality)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(buffer.getvalue())


def pictures(folder: Path, count: int = 12, **how: Any) -> Path:
    for number in range(count):
        picture(folder, f"{folder.name}-{number}.{'png' if how.get('quality', 96) is None else 'jpg'}", **how)
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return pictures(tmp_path / "Holiday Photos"), pictures(tmp_path / "sd", quality=75)


def test_two_folders_are_a_valid_experiment_on_the_crop_path(folders: tuple[Path, Path]) -> None:
    document, said = document_of([folders[0]], [f"Stable Diffusion={folders[1]}"])
    experiment = parse_experiment(document)
    assert experiment.name == "stable-diffusion-against-holiday-photos"
    assert [(one.name, one.label) for one in experiment.sources] == [
        ("holiday-photos", "real"),
        ("stable-diffusion", "fake"),
    ]
    assert [cell.name for cell in experiment.cells] == ["256/none", "256/q60"]
    assert experiment.matches_history
    assert "windows of 256 original pixels" in said[0]


def test_the_window_is_the_largest_that_nine_in_ten_of_every_folder_have(tmp_path: Path) -> None:
    photographs = pictures(tmp_path / "photos")
    for number in range(3):
        picture(photographs, f"small-{number}.jpg", side=130)
    document, _ = document_of([photographs], [str(pictures(tmp_path / "sd"))])
    assert document["resolutions"] == [128]


def test_pictures_that_are_all_small_are_refused_with_the_folder(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="most pictures of tiny have no window of 64 pixels"):
        document_of([pictures(tmp_path / "photos")], [str(pictures(tmp_path / "tiny", side=40))])


def test_photographs_whose_history_stays_visible_are_compared_as_they_are_and_it_is_said(tmp_path: Path) -> None:
    document, said = document_of([pictures(tmp_path / "web", quality=80)], [str(pictures(tmp_path / "sd"))])
    assert document["history"] == "as-is"
    assert "may be a file's history" in said[1]


def test_a_folder_without_a_clean_photograph_leaves_all_as_they_are_and_is_named(tmp_path: Path) -> None:
    clean, web = pictures(tmp_path / "clean"), pictures(tmp_path / "web", count=5, quality=80)
    sd = pictures(tmp_path / "sd", quality=75)
    document, said = document_of([clean, web], [str(sd)])
    assert document["history"] == "as-is"
    assert said[1].startswith("all photographs of web that were looked at are JPEGs below quality 95: pictures keep")
    picture(web, "clean.jpg")
    assert document_of([clean, web], [str(sd)])[0]["history"] == "matched"


def test_named_cells_make_the_grid(folders: tuple[Path, Path]) -> None:
    cells = ["128/none", "128/q50", "128/webp-40", "64/none", "64/q50", "64/webp-40"]
    document, _ = document_of([folders[0]], [str(folders[1])], cells=cells)
    assert {cell.name for cell in parse_experiment(document).cells} == set(cells)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"cells": ["native/none"]}, "named by the side of its window"),
        ({"cells": ["128/none", "64/q50"]}, "the cells are a grid"),
        ({"cells": ["big"]}, "a cell is named like 64/q20"),
        ({"cells": ["8/none"]}, "a cell's side has 16 to 2048 pixels, got '8/none'"),
        ({"cells": ["4096/none"]}, "a cell's side has 16 to 2048 pixels, got '4096/none'"),
        ({"photographs": [Path()]}, "a folder has no name"),
        ({"fakes": ["sd="]}, "a folder has no name"),
        ({"detectors": ["spectrun"]}, "no detector 'spectrun', did you mean spectrum?"),
        ({"detectors": ["resnet"]}, "no detector 'resnet'. There are cooccurrence, "),
        ({"fakes": []}, "folders of both classes"),
    ],
)
def test_what_cannot_be_is_refused_with_what_could(
    folders: tuple[Path, Path], changes: dict[str, Any], reason: str
) -> None:
    given: dict[str, Any] = {"photographs": [folders[0]], "fakes": [str(folders[1])]} | changes
    with pytest.raises(SpecError) as refused:
        document_of(**given)
    assert reason in str(refused.value)


def test_a_detector_of_content_reads_real_weights_and_others_need_none(folders: tuple[Path, Path]) -> None:
    given = [folders[0]], [str(folders[1])]
    assert document_of(*given)[0]["extractor"]["weights"] == "random:0"
    assert document_of(*given, detectors=["content"])[0]["extractor"]["weights"] == "${TELLTALE_VGG16}"


@pytest.mark.parametrize("option", ["--detectors", "--cells"])
@pytest.mark.parametrize("names", ["", "a,", "a,,b", "a, a"])
def test_a_list_without_different_names_is_refused(
    told: Any, folders: tuple[Path, Path], option: str, names: str
) -> None:
    result = told("--photographs", str(folders[0]), "--fakes", str(folders[1]), option, names)
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert f"{option}: expected different names, parted by commas, got {names!r}" in result.stderr


def test_lists_of_detectors_and_cells_are_taken_in_their_order(
    told: Any, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    words = ("--detectors", "spectrum, cooccurrence", "--cells", "64/q40,64/none")
    result = told("--photographs", str(folders[0]), "--fakes", str(folders[1]), *words)
    assert result.exit_code == 0, result.output
    (file,) = written(tmp_path)
    document = yaml.safe_load(file.read_text())
    assert [one["name"] for one in document["detectors"]] == ["spectrum", "cooccurrence", "probe"]
    assert document["qualities"] == [40, None]


@pytest.mark.parametrize("cell", ["64/a,b", "64,64/none", "64/none,"])
def test_no_cell_has_a_comma_in_its_name(cell: str) -> None:
    with pytest.raises(SpecError):
        Cell.parse(cell)


def test_no_detector_nor_chain_has_a_comma_in_its_name(folders: tuple[Path, Path]) -> None:
    document, _ = document_of([folders[0]], [str(folders[1])])
    chain = {"kind": "chain", "name": "a,b", "steps": ["q40"]}
    for wrong in ({"detectors": [document["detectors"][0] | {"name": "a,b"}]}, {"perturbations": [chain]}):
        with pytest.raises(SpecError, match="should match pattern"):
            parse_experiment(document | wrong)


def test_a_file_in_place_of_a_folder_is_said_to_be_one(folders: tuple[Path, Path]) -> None:
    file = next(folders[0].iterdir())
    with pytest.raises(SpecError, match="is a file: expected a folder of pictures"):
        document_of([file], [str(folders[1])])


def test_the_first_equals_sign_ends_a_name_and_a_folder_with_one_needs_a_name(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    fakes = pictures(tmp_path / "seed=7", quality=75)
    with pytest.raises(SpecError, match=r"is read as the folder 7 of a generator .*seed: .* --fakes NAME=.*seed=7$"):
        document_of([folders[0]], [str(fakes)])
    document, _ = document_of([folders[0]], [f"sd={fakes}"])
    assert (document["sources"][1]["name"], document["sources"][1]["path"]) == ("sd", str(fakes))


def test_one_folder_for_both_classes_is_refused(folders: tuple[Path, Path]) -> None:
    with pytest.raises(SpecError, match="given twice, as photographs and as fakes"):
        document_of([folders[0]], [f"{folders[0]}/../{folders[0].name}"])


def test_two_folders_of_one_generator_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    other = pictures(tmp_path / "other")
    with pytest.raises(SpecError, match="two folders are called sd: put their pictures into one"):
        document_of([folders[0]], [f"sd={folders[1]}", f"sd={other}"])


def test_a_folder_without_a_readable_picture_is_missing_input(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.jpg").write_text("no picture")
    with pytest.raises(MissingInput, match="of 1 files none can be read as one"):
        document_of([folders[0]], [str(tmp_path / "texts")])
    with pytest.raises(MissingInput, match="the folder "):
        document_of([tmp_path / "nowhere"], [str(folders[1])])


def test_folders_of_one_name_get_names_of_their_own(tmp_path: Path) -> None:
    one, two = pictures(tmp_path / "a" / "photos"), pictures(tmp_path / "b" / "photos")
    document, _ = document_of([one, two], [str(pictures(tmp_path / "sd"))])
    assert [source["name"] for source in document["sources"]] == ["photos", "photos-2", "sd"]


def checking(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`telltale check` with a home and a store in a folder, from there."""
    (folder / "home").mkdir()
    monkeypatch.setenv("TELLTALE_HOME", str(folder / "home"))
    monkeypatch.setenv("TELLTALE_STORE", str(folder / "store"))
    monkeypatch.chdir(folder)
    return lambda *words: CliRunner().invoke(app, ["check", *words])


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    return checking(tmp_path, monkeypatch)


def test_check_counts_what_is_there_and_names_what_misleads(
    told: Any, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    photographs, fakes = folders
    (photographs / "broken.jpg").write_bytes(b"no picture at all")
    (photographs / "again.jpg").write_bytes((photographs / f"{photographs.name}-0.jpg").read_bytes())
    result = told("--photographs", str(photographs), "--fakes", f"sd={fakes}", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    real, fake = found["sources"]
    assert (real["pictures"], real["groups"], real["jpeg_quality"]) == (13, 12, [96, 96, 96])
    assert real["repeats"] == {"holiday-photos": 1}
    assert sum(real["set_aside"].values()) == 1
    assert (fake["pictures"], fake["shorter_side"], fake["formats"]) == (12, [260, 260, 260], {"JPEG": 12})
    assert any("median JPEG quality is 75 of sd, 96 of the photographs" in one for one in found["warnings"])
    assert real["takes_part"] == {"256": 13}
    work = found["work"]
    assert work["views"] == sum(one["views"] for one in work["extractors"])
    assert {"cooccurrence", "spectrum", "probe"} <= {one["extractor"] for one in work["extractors"]}
    assert all(one["views"] % 25 == 0 for one in work["extractors"]), "each of 13 and 12 pictures in as many views"
    assert 0 < work["seconds"][0] < work["seconds"][1]
    assert work["not_counted"] == []
    assert len(written(tmp_path)) == 1


def test_check_says_it_in_words_and_again_reads_no_picture_anew(
    told: Any, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    words = ("--photographs", str(folders[0]), "--fakes", f"sd={folders[1]}")
    first = told(*words)
    assert "holiday-photos (real)" in first.output
    made = {file: file.stat().st_mtime_ns for file in (tmp_path / "store" / "objects").rglob("*") if file.is_file()}
    (again, seconds), (before, _) = (text.output.split(", in about ") for text in (told(*words), first))
    assert again == before
    assert "on this processor: an estimate from one picture" in seconds
    assert {
        file: file.stat().st_mtime_ns for file in (tmp_path / "store" / "objects").rglob("*") if file.is_file()
    } == made


def test_check_warns_of_too_few_groups(told: Any, folders: tuple[Path, Path], tmp_path: Path) -> None:
    few = pictures(tmp_path / "few", count=6)
    result = told("--photographs", str(folders[0]), "--fakes", str(few))
    assert "few has 6 groups of pictures" in result.output
    assert "no intervals" in result.output


def test_check_refuses_cells_that_no_picture_is_large_enough_for(told: Any, folders: tuple[Path, Path]) -> None:
    words = ("--photographs", str(folders[0]), "--fakes", str(folders[1]), "--cells", "512/none")
    result = told(*words)
    assert result.exit_code == 2
    assert "no picture of sd is large enough for 512: the largest has a shorter side of 260 pixels" in result.output


def test_check_refuses_what_leaves_a_fold_without_a_class(told: Any, tmp_path: Path) -> None:
    photographs, fakes = pictures(tmp_path / "nine", count=9), pictures(tmp_path / "sd", count=9, quality=75)
    words = ("--photographs", str(photographs), "--fakes", str(fakes), "--cells", "64/none")
    assert told(*words).exit_code == 0
    for path in sorted(photographs.iterdir())[2:]:
        with Image.open(path) as large:
            small = large.resize((60, 50))
        small.save(path, quality=96)
    result = told(*words)
    assert result.exit_code == 2
    said = " ".join(result.output.split())
    assert re.search(r"nothing can be fitted in 64, where no photograph is (train|val) in rotation \d", said)


def test_check_refuses_photographs_whose_history_cannot_be_matched(told: Any, tmp_path: Path) -> None:
    web, sd = pictures(tmp_path / "web", quality=80), pictures(tmp_path / "sd", quality=75)
    words = ("--photographs", str(web), "--fakes", str(sd), "--set", "history=matched")
    result = told(*words)
    assert result.exit_code == 2
    assert "all photographs of web are JPEGs below quality 95" in result.output


def test_check_says_how_many_of_the_larger_class_are_tested(told: Any, tmp_path: Path) -> None:
    photographs, sd = pictures(tmp_path / "photos", count=12), pictures(tmp_path / "sd", count=14)
    words = ("--photographs", str(photographs), "--fakes", str(sd), "--cells")
    said = "12 of 12 photographs are tested against as many of 14 pictures of sd: a cell counts as many of both"
    assert f"note: in 64 and 128 {said}" in " ".join(told(*words, "64/none,128/none").output.split())
    for number in (0, 1):
        (sd / f"sd-{number}.jpg").unlink()
    assert "are tested against" not in told(*words, "64/none").output


def test_check_says_that_qualities_tell_the_classes_apart_however_near_they_are(told: Any, tmp_path: Path) -> None:
    web, sd = pictures(tmp_path / "web", quality=80), pictures(tmp_path / "sd", quality=75)
    said = " ".join(told("--photographs", str(web), "--fakes", str(sd)).output.split())
    assert "the median JPEG quality is 75 of sd, 80 of the photographs: an encoding stays visible" in said
    same = pictures(tmp_path / "same", quality=80, seed=1)
    assert "the median JPEG quality" not in told("--photographs", str(web), "--fakes", str(same)).output


def test_check_says_that_a_part_of_the_fakes_has_another_format(told: Any, tmp_path: Path) -> None:
    web, mixed = pictures(tmp_path / "web", quality=80), pictures(tmp_path / "mixed", quality=80, seed=1)
    for number in range(5):
        picture(mixed, f"more-{number}.png", quality=None)
    said = " ".join(told("--photographs", str(web), "--fakes", str(mixed)).output.split())
    assert "5 of 17 pictures of mixed are PNG, 0 photographs" in said


def test_a_resolution_that_is_no_list_is_refused_in_one_sentence(told: Any, folders: tuple[Path, Path]) -> None:
    result = told("--photographs", str(folders[0]), "--fakes", str(folders[1]), "--set", "resolutions=64")
    assert result.exit_code == 2
    assert "resolutions" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_photographs_of_any_quality_are_matched_to_fakes_without_one(
    told: Any, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    web, png = pictures(tmp_path / "web", quality=80), pictures(tmp_path / "png", quality=None)
    result = told("--photographs", str(web), "--fakes", str(png))
    assert result.exit_code == 0, result.output
    assert "(history: matched)" in result.output
    assert "below JPEG quality" not in result.output
    some = told("--photographs", str(web), "--fakes", str(png), "--fakes", str(folders[1]), "--set", "history=matched")
    assert some.exit_code == 0, some.output
    assert "12 below JPEG quality 95, against sd" in " ".join(some.output.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("sample", "--photographs", "a", "--fakes", "b"), "name either an experiment (sample) or folders"),
        ((), "name an experiment, or folders"),
        (("smaple",), "did you mean sample?"),
        (("home",), "home is a folder: say of what, as in --photographs DIR --fakes NAME=DIR"),
        (("--photographs", "nowhere", "--fakes", "b"), "missing: the folder "),
    ],
)
def test_a_wrong_command_is_one_sentence(told: Any, words: tuple[str, ...], said: str) -> None:
    result = told(*words)
    assert result.exit_code == 2
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_preset_can_be_checked_too(told: Any) -> None:
    result = told("sample", "--json")
    assert result.exit_code == 0, result.output
    (photographs,) = json.loads(result.output)["sources"]
    assert (photographs["source"], photographs["label"]) == ("photographs", "real")


def test_the_written_experiment_is_read_back_as_it_was(told: Any, folders: tuple[Path, Path], tmp_path: Path) -> None:
    assert told("--photographs", str(folders[0]), "--fakes", f"sd={folders[1]}").exit_code == 0
    (file,) = written(tmp_path)
    assert yaml.safe_load(file.read_text()) == document_of([folders[0]], [f"sd={folders[1]}"])[0]
    assert told(str(file)).exit_code == 0


def test_settings_are_in_what_is_written_and_in_what_is_said(
    told: Any, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    words = ("--photographs", str(folders[0]), "--fakes", f"sd={folders[1]}")
    said = told(*words, "--set", "history=as-is", "--set", "resolutions=[64]").output
    assert "windows of 64 original pixels" in said
    assert "(history: as-is)" in said
    assert "history tells nothing" not in said
    (file,) = written(tmp_path)
    assert yaml.safe_load(file.read_text())["history"] == "as-is"


def test_a_file_that_somebody_changed_is_not_written_over(
    told: Any, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    words = ("--photographs", str(folders[0]), "--fakes", f"sd={folders[1]}")
    told(*words)
    (file,) = written(tmp_path)
    file.write_text(file.read_text() + "# mine\n")
    again = told(*words)
    assert again.exit_code == 2
    assert "was changed since it was written" in again.stderr
    assert told(*words, "--cells", "64/none").exit_code == 0
    assert len(written(tmp_path)) == 2


def written(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "home" / "experiments").glob("*.yaml"))


def test_a_cell_without_the_uncompressed_one_brings_it_along(folders: tuple[Path, Path]) -> None:
    document, _ = document_of([folders[0]], [str(folders[1])], cells=["128/q60"])
    assert [cell.name for cell in parse_experiment(document).cells] == ["128/none", "128/q60"]
