"""The sample is an official-layout COCO directory, cut from the wheels' photographs, the same bytes every time."""

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from storage.errors import MissingInput
from tasks.data import sample, sample_photographs
from tasks.data.coco import coco_content
from tasks.data.sample import SPLIT, SamplePlan, captions_of, plan_crops, sample_name, source_folder, write_sample_coco
from tasks.data.sample_photographs import EVERY_PHOTOGRAPH, FURTHER_PHOTOGRAPHS, PHOTOGRAPHS, SAMPLE_SPLITS


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> SamplePlan:
    return write_sample_coco(tmp_path_factory.mktemp("sample"))


def annotations(plan: SamplePlan, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (plan.directory / "annotations" / f"{kind}_{plan.split}.json").read_text(encoding="utf-8")
    )
    return found


def test_there_are_at_least_96_crops_of_at_least_8_photographs(plan: SamplePlan) -> None:
    groups = Counter(image["group"] for image in annotations(plan, "captions")["images"])
    assert len(groups) >= 8
    assert groups.total() == plan.crops >= 96
    assert set(groups) == set(plan.photographs) == set(PHOTOGRAPHS)


def test_further_photographs_come_after_the_others_which_stay_as_they_are(plan: SamplePlan, tmp_path: Path) -> None:
    every = write_sample_coco(tmp_path, every=True)
    assert len(every.photographs) == len(plan.photographs) + len(FURTHER_PHOTOGRAPHS)
    for path in (plan.directory / plan.split).iterdir():
        assert (every.directory / every.split / path.name).read_bytes() == path.read_bytes()
    groups = Counter(image["group"] for image in annotations(every, "instances")["images"])
    assert set(groups) == set(EVERY_PHOTOGRAPH)
    assert set(groups.values()) == {11}


def test_every_photograph_has_a_split_with_three_in_test_and_two_in_val() -> None:
    counts = Counter(SAMPLE_SPLITS.values())
    assert set(SAMPLE_SPLITS) == set(PHOTOGRAPHS)
    assert counts["test"] >= 3
    assert counts["val"] >= 2
    assert counts["train"] >= 3


def test_files_have_the_size_that_the_annotations_state_and_no_side_below_128(plan: SamplePlan) -> None:
    images = annotations(plan, "captions")["images"]
    for image in images:
        with Image.open(plan.directory / plan.split / image["file_name"]) as picture:
            assert picture.format == "JPEG"
            assert picture.mode == "RGB"
            assert picture.size == (image["width"], image["height"])
        assert min(image["width"], image["height"]) >= 128
        assert max(image["width"], image["height"]) <= 320
        assert 0.7 < image["width"] / image["height"] < 1.4
    assert len({(image["width"], image["height"]) for image in images}) > 50


def test_jpeg_qualities_vary(plan: SamplePlan) -> None:
    first_steps = set()
    for path in (plan.directory / plan.split).iterdir():
        with Image.open(path) as picture:
            assert isinstance(picture, JpegImageFile)
            first_steps.add(tuple(picture.quantization[0][:8]))
    assert len(first_steps) == len(sample.QUALITIES)


def test_every_crop_has_several_different_captions_and_a_known_licence(plan: SamplePlan) -> None:
    content = annotations(plan, "captions")
    captions: dict[int, list[str]] = {}
    for annotation in content["annotations"]:
        captions.setdefault(annotation["image_id"], []).append(annotation["caption"])
    licences = {licence["id"] for licence in content["licenses"]}
    for image in content["images"]:
        assert len(set(captions[image["id"]])) == 3
        assert image["license"] in licences


def test_boxes_lie_inside_their_pictures_and_some_pictures_have_none(plan: SamplePlan) -> None:
    content = annotations(plan, "instances")
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    known = {category["id"] for category in content["categories"]}
    for annotation in content["annotations"]:
        x, y, w, h = annotation["bbox"]
        width, height = sizes[annotation["image_id"]]
        assert 0 <= x < x + w <= width + 0.1
        assert 0 <= y < y + h <= height + 0.1
        assert annotation["category_id"] in known
    annotated = {annotation["image_id"] for annotation in content["annotations"]}
    assert 0 < len(annotated) < len(sizes)


def test_pycocotools_reads_the_annotations(plan: SamplePlan, capsys: pytest.CaptureFixture[str]) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    instances = coco.COCO(plan.directory / "annotations" / f"instances_{plan.split}.json")
    cats = instances.getImgIds(catIds=instances.getCatIds(catNms=["cat"]))
    assert {instances.imgs[image_id]["group"] for image_id in cats} == {"chelsea"}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_crops(tmp_path: Path) -> None:
    def contents(name: str, seed: int) -> dict[str, bytes]:
        directory = tmp_path / name
        write_sample_coco(directory, crops_per_photograph=2, seed=seed)
        return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}

    first = contents("first", 0)
    assert first == contents("again", 0)
    other = contents("other", 1)
    assert first.keys() == other.keys()
    assert first != other


@pytest.mark.parametrize("size", [(384, 303), (451, 300), (640, 427), (512, 512)])
@pytest.mark.parametrize("count", [1, 7, 30])
def test_crops_stay_inside_the_photograph_and_are_never_enlarged(size: tuple[int, int], count: int) -> None:
    crops = plan_crops("coins", size, count, seed=3)
    assert len(set(crops)) == count
    for crop in crops:
        left, top, right, bottom = crop.box
        assert 0 <= left < right <= size[0]
        assert 0 <= top < bottom <= size[1]
        assert 128 <= crop.size[0] <= right - left
        assert 128 <= crop.size[1] <= bottom - top


def test_captions_say_how_near_the_crop_is() -> None:
    cat = PHOTOGRAPHS["chelsea"]
    size = (451, 300)
    assert captions_of(cat, (0, 0, 400, 300), size)[0] == "a tabby cat looking to the side seen as a whole"
    assert captions_of(cat, (140, 60, 340, 220), size)[0] == "a nearer view of a tabby cat looking to the side"
    assert captions_of(cat, (150, 50, 290, 180), size)[0] == "a close-up of the green eyes of a cat"


def test_a_photograph_that_no_wheel_holds_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = dataclasses.replace(PHOTOGRAPHS["moon"], path="data/gone.png")
    monkeypatch.setitem(EVERY_PHOTOGRAPH, "moon", gone)
    with pytest.raises(MissingInput, match=r"gone\.png.*pip install"):
        sample_photographs.photograph_path("moon")


def test_fewer_than_one_crop_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        write_sample_coco(tmp_path, crops_per_photograph=0)


def test_the_sample_lies_in_the_cache_of_whoever_reads_it_and_is_made_whole_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = []
    for machine in ("one", "other"):
        monkeypatch.setenv("TELLTALE_CACHE", str(tmp_path / machine))
        digests.append(coco_content(sample_name(2, every=False), SPLIT))
        assert source_folder("sample:2").is_relative_to(tmp_path / machine)
    assert digests[0] == digests[1]
    folder = source_folder("sample:2")
    picture = next((folder / SPLIT).iterdir())
    picture.write_bytes(b"damaged")
    monkeypatch.setattr(sample, "_whole", set())  # as another process finds it
    assert source_folder("sample:2") == folder
    assert picture.read_bytes() != b"damaged"
    assert coco_content(sample_name(2, every=False), SPLIT) == digests[0]
    assert [path.name for path in (tmp_path / "other").iterdir() if path.is_dir()] == ["sample-2"]


def test_a_folder_that_is_no_sample_is_itself() -> None:
    assert source_folder("/data/coco") == Path("/data/coco")
    assert source_folder("./sample:2") == Path("sample:2")
