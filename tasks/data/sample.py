"""The offline sample: crops of the photographs that installed wheels contain, as a COCO directory.

Everything that the presets `sample` and `demo` call a photograph comes from here: no download, the same bytes for the
same seed and the same Pillow. Crops of one photograph share its name under the key `group`: they are never split apart.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from storage.digest import file_sha256
from tasks.cache import cache_folder
from tasks.data.sample_photographs import (
    CATEGORIES,
    EVERY_PHOTOGRAPH,
    FURTHER_PHOTOGRAPHS,
    LICENCES,
    PHOTOGRAPHS,
    Box,
    Photograph,
    read_photograph,
)

SPLIT = "val2017"
SMALLEST_SIDE = 128
LARGEST_SIDE = 320
# Width over height. Square-ish, so that the centre crop of the fair path keeps most of each picture.
ASPECTS = (1.0, 4 / 3, 3 / 4, 1.0, 5 / 4, 4 / 5)
QUALITIES = (75, 80, 85, 90, 92, 95)
# A category is annotated where this share of its box is inside the crop, or where it fills this share of the crop.
VISIBLE_SHARE = 0.4
FILLING_SHARE = 0.3

_EVERY = ":every"
# Directories of the sample that this process has found or made whole.
_whole: set[Path] = set()
_writing = threading.Lock()


@dataclass(frozen=True)
class SamplePlan:
    """What `write_sample_coco` wrote: the COCO directory, the name of its split, its photographs and its crop count."""

    directory: Path
    split: str
    photographs: tuple[str, ...]
    crops: int


@dataclass(frozen=True)
class Crop:
    """One crop of a photograph: `box` in the photograph's pixels, `size` (width, height) as saved, JPEG `quality`."""

    box: Box
    size: tuple[int, int]
    quality: int


def sample_name(crops_per_photograph: int, every: bool) -> str:
    """What stands for the sample's directory, such as `sample:9`: it lies in the cache of whoever reads it.

    With `every`, such as `sample:9:every`, it holds `FURTHER_PHOTOGRAPHS`, too.
    """
    return f"sample:{crops_per_photograph}{_EVERY * every}"


def source_folder(directory: str) -> Path:
    """The directory of a source on this machine; that of the sample is written where it is not whole.

    Another process may write it at the same time: each writes a folder of its own, and the first rename wins.
    """
    match = re.fullmatch(rf"sample:([0-9]+)({_EVERY})?", directory)
    if match is None:
        return Path(directory)
    parent = cache_folder()
    target = parent / directory.replace(":", "-")
    with _writing:
        if target in _whole and target.is_dir():
            return target
        with tempfile.TemporaryDirectory(dir=parent, prefix="unfinished-") as unfinished:
            fresh = Path(unfinished) / "sample"
            write_sample_coco(fresh, crops_per_photograph=int(match[1]), every=match[2] is not None)
            if target.exists() and _content(target) != _content(fresh):
                with contextlib.suppress(OSError):
                    target.rename(Path(unfinished) / "damaged")
            with contextlib.suppress(OSError):
                fresh.rename(target)
        _whole.add(target)
    return target


def _content(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): file_sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }


def plan_crops(name: str, size: tuple[int, int], count: int, seed: int) -> tuple[Crop, ...]:
    """`count` different crops of a photograph of `size` (width, height), from nearly the whole down to close-ups.

    Scales are spread evenly (geometrically) and positions follow a low-discrepancy sequence, so that few crops
    resemble each other. No crop is ever enlarged, and no side is below `SMALLEST_SIDE` or above `LARGEST_SIDE`.
    """
    width, height = size
    key = hashlib.sha256(f"sample crops {seed} {name}".encode()).digest()
    random = np.random.default_rng(int.from_bytes(key[:8], "big"))
    offset_x, offset_y = random.random(2)
    scales = np.linspace(0.0, 1.0, count) if count > 1 else np.zeros(1)
    crops = []
    for index in range(count):
        aspect = ASPECTS[(index + int(key[8])) % len(ASPECTS)]
        widest = min(width, height * aspect)
        # The narrowest box still has both sides of at least SMALLEST_SIDE.
        narrowest = max(SMALLEST_SIDE, SMALLEST_SIDE * aspect) + 1
        box_width = min(round(widest * (narrowest / widest) ** scales[index]), width)
        box_height = min(round(box_width / aspect), height)
        # The R2 sequence (Roberts 2018): two irrational steps that fill the unit square evenly.
        left = round((width - box_width) * ((offset_x + index * 0.7548776662466927) % 1.0))
        top = round((height - box_height) * ((offset_y + index * 0.5698402909980532) % 1.0))
        reduction = min(1.0, random.uniform(0.75, 1.0) * LARGEST_SIDE / max(box_width, box_height))
        saved = (
            max(SMALLEST_SIDE, round(box_width * reduction)),
            max(SMALLEST_SIDE, round(box_height * reduction)),
        )
        quality = QUALITIES[int(random.integers(len(QUALITIES)))]
        crops.append(Crop((left, top, left + box_width, top + box_height), saved, quality))
    return tuple(crops)


def captions_of(photograph: Photograph, box: Box, size: tuple[int, int]) -> tuple[str, ...]:
    """Three captions of a crop: what it shows, how near it is, and its colours."""
    share = _area(box) / (size[0] * size[1])
    part = _shown_part(photograph, box)
    if share >= 0.4:
        return (
            f"{photograph.subject} {photograph.setting} seen as a whole",
            f"a photograph of {photograph.subject} in {photograph.colours}",
            f"a wide view of {photograph.subject} and {part}",
        )
    if share >= 0.17:
        return (
            f"a nearer view of {photograph.subject} {photograph.setting}",
            f"a photograph of {part} taken from near",
            f"part of {photograph.subject} in {photograph.colours}",
        )
    return (
        f"a close-up of {part}",
        f"{part} filling the picture",
        f"a detail of {photograph.subject} {photograph.setting} seen from very near",
    )


def visible_categories(photograph: Photograph, crop: Crop) -> list[tuple[str, tuple[float, float, float, float]]]:
    """Category names and COCO boxes (x, y, width, height in pixels of the saved crop) of what the crop shows."""
    visible = []
    left, top, right, bottom = crop.box
    scale_x, scale_y = crop.size[0] / (right - left), crop.size[1] / (bottom - top)
    for name, box in photograph.categories:
        shared = _intersection(box, crop.box)
        if _area(shared) < VISIBLE_SHARE * _area(box) and _area(shared) < FILLING_SHARE * _area(crop.box):
            continue
        x, y = (shared[0] - left) * scale_x, (shared[1] - top) * scale_y
        w, h = (shared[2] - shared[0]) * scale_x, (shared[3] - shared[1]) * scale_y
        visible.append((name, (round(x, 2), round(y, 2), round(w, 2), round(h, 2))))
    return visible


def write_sample_coco(
    directory: Path, *, crops_per_photograph: int = 11, seed: int = 0, every: bool = False
) -> SamplePlan:
    """Write the sample as a COCO directory: `val2017/*.jpg` and captions and instances under `annotations/`.

    Besides COCO's own keys every image has `group`, the photograph that it was cut from. With `every`,
    `FURTHER_PHOTOGRAPHS` come after the others. The bytes depend on the arguments and on the Pillow release only.
    Raises `ValueError` for fewer than one crop per photograph and `MissingInput` where a wheel lacks a photograph.
    """
    if crops_per_photograph < 1:
        raise ValueError(f"crops_per_photograph: expected at least 1, got {crops_per_photograph}")
    pictures = directory / SPLIT
    annotations = directory / "annotations"
    pictures.mkdir(parents=True, exist_ok=True)
    annotations.mkdir(parents=True, exist_ok=True)

    category_ids = {name: identifier for identifier, name, _ in CATEGORIES}
    images: list[dict[str, object]] = []
    captions: list[dict[str, object]] = []
    instances: list[dict[str, object]] = []
    names = [*sorted(PHOTOGRAPHS), *(sorted(FURTHER_PHOTOGRAPHS) if every else ())]
    for photograph_number, name in enumerate(names, start=1):
        photograph = EVERY_PHOTOGRAPH[name]
        picture = read_photograph(name)
        crops = plan_crops(name, picture.size, crops_per_photograph, seed)
        for crop_number, crop in enumerate(crops):
            image_id = photograph_number * 1000 + crop_number
            file_name = f"{image_id:012d}.jpg"
            saved = picture.crop(crop.box)
            if saved.size != crop.size:
                saved = saved.resize(crop.size, Image.Resampling.LANCZOS)
            saved.save(pictures / file_name, format="JPEG", quality=crop.quality)
            images.append(_image(image_id, file_name, crop, photograph.licence, name))
            for caption in captions_of(photograph, crop.box, picture.size):
                captions.append({"id": len(captions) + 1, "image_id": image_id, "caption": caption})
            for category, (x, y, w, h) in visible_categories(photograph, crop):
                instances.append(
                    {
                        "id": len(instances) + 1,
                        "image_id": image_id,
                        "category_id": category_ids[category],
                        "bbox": [x, y, w, h],
                        "area": round(w * h, 2),
                        "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                        "iscrowd": 0,
                    }
                )

    head = {
        "info": {"description": "Crops of the photographs in the scikit-image and scikit-learn wheels", "version": "1"},
        "licenses": list(LICENCES),
        "images": images,
    }
    categories = [{"id": i, "name": name, "supercategory": parent} for i, name, parent in CATEGORIES]
    _write_json(annotations / f"captions_{SPLIT}.json", {**head, "annotations": captions})
    _write_json(annotations / f"instances_{SPLIT}.json", {**head, "annotations": instances, "categories": categories})
    return SamplePlan(directory, SPLIT, tuple(names), len(images))


def _image(image_id: int, file_name: str, crop: Crop, licence: int, group: str) -> dict[str, object]:
    return {
        "id": image_id,
        "file_name": file_name,
        "width": crop.size[0],
        "height": crop.size[1],
        "license": licence,
        "date_captured": "",
        "coco_url": "",
        "flickr_url": "",
        "group": group,
    }


def _area(box: Box) -> int:
    return max(0, box[2] - box[0]) * max(0, box[3] - box[1])


def _intersection(a: Box, b: Box) -> Box:
    """The common part of two boxes; `_area` is 0 where they do not meet."""
    return max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])


def _shown_part(photograph: Photograph, box: Box) -> str:
    """The part whose box agrees best with the crop (intersection over union); the subject where none is in it."""

    def agreement(part_box: Box) -> float:
        common = _area(_intersection(part_box, box))
        return common / (_area(part_box) + _area(box) - common)

    phrase, best = max(photograph.parts, key=lambda part: agreement(part[1]), default=(photograph.subject, box))
    return phrase if agreement(best) > 0.02 else photograph.subject


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
