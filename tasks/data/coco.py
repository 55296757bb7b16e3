"""From a COCO directory in the official layout to its entry table.

The layout is `<split>/*.jpg` and `annotations/captions_<split>.json`, with `annotations/instances_<split>.json` where
there are boxes. Lin et al., "Microsoft COCO: Common Objects in Context", 2014; https://cocodataset.org/#format-data
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from storage.digest import file_sha256
from storage.errors import MissingInput, SpecError
from storage.objects import ROWS
from tasks.data.entries import (
    ENTRY_SCHEMA,
    QUARANTINE,
    group_name,
    is_safe_name,
    quarantine_table,
    quarantined,
    read_document,
    reasons_told,
    refuse_large,
    stated_text,
    whole_text,
)
from tasks.data.inventory import Inventory, Listed, list_files, outside_folders, take_inventory
from tasks.data.metadata import folded, unambiguous
from tasks.data.sample import source_folder
from tasks.facts import fact
from tasks.recipe import Output, StepRun, step
from tasks.variables import needed

_REMEDY = "get it with the deployment fetch/coco, or name another directory"
_EDGE = 256  # bytes at either end of a file in which its braces are looked for


def check_coco(directory: str, split: str) -> list[str]:
    """What is missing for a run on this directory, each with its remedy; empty when all is there.

    Fast: no annotation is parsed, a file that was cut off is told by its last bytes.
    """
    return _looked_at(directory, split)[0]


def _looked_at(directory: str, split: str) -> tuple[list[str], list[Listed]]:
    """What is missing, and what lies among the pictures where these are there."""
    if not is_safe_name(split) or "/" in split:
        return [f"COCO split {split!r}: expected the name of a folder such as val2017"], []
    root = Path(directory)
    if not root.is_dir():
        return [f"COCO directory {directory}: {_REMEDY}"], []
    missing: list[str] = []
    listed: list[Listed] = []
    for path, required in ((_captions(root, split), True), (_instances(root, split), False)):
        name = path.relative_to(root).as_posix()
        if path.is_file():
            try:
                refuse_large(path)
            except SpecError as error:
                missing.append(f"usable annotations in {directory}: {error}")
                continue
            if not _has_both_braces(path):
                missing.append(f"the end of {name} in {directory} (the file is cut off): remove it and {_REMEDY}")
        elif required:
            missing.append(f"COCO annotations {name} in {directory}: {_REMEDY}")
    pictures = root / split
    if not pictures.is_dir() or next(pictures.iterdir(), None) is None:
        missing.append(f"COCO pictures {split}/ in {directory}: {_REMEDY}")
    elif not pictures.resolve().is_relative_to(root.resolve()):
        missing.append(f"{split}/ in {directory} is a link that leads out of it: name the directory it leads to")
    else:
        listed = list_files(pictures, within=root)
        outside = outside_folders(listed)
        if outside is not None:
            missing.append(f"COCO pictures {split}/ in {directory}: {outside}")
    return missing, listed


def coco_inventory(directory: str, split: str) -> Inventory:
    """What `index_coco` reads: names and content of the pictures, and the annotation files'.

    Raises:
        MissingInput: `check_coco` finds something missing.
        InputChanged: a file is being written to.
    """
    missing, listed = _looked_at(directory, split)
    if missing:
        raise MissingInput(*missing)
    root = Path(directory)
    annotations = [[path.name, file_sha256(path)] for path in _annotation_files(root, split)]
    return take_inventory(root / split, listed, lambda name: True, annotations)


@fact(pool="cpu")
def coco_content(directory: str, split: str) -> str:
    """The digest of `coco_inventory`, of a directory as an experiment has it, or as `sample_name` has it.

    Raises:
        MissingInput: variables are not set, or `check_coco` finds something missing.
        InputChanged: a file is being written to.
    """
    return coco_inventory(str(source_folder(needed(directory))), split).digest


def read_annotations(path: Path, lists: dict[str, dict[str, type]]) -> Any:
    """An annotation file as pycocotools' `COCO`, its segmentations dropped, of the named lists and `licenses` only.

    Args:
        path: the JSON file.
        lists: the lists that it must have, each with the type of every key that its items must have.

    Raises:
        SpecError: the file is too large, cut off, no JSON, or lacks a list or key; one sentence.
    """
    coco = _quiet_coco()
    try:
        # pycocotools itself would read in the locale's encoding.
        document = json.loads(read_document(path), object_hook=_without_segmentation)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{path.name} is not readable as JSON, it may be cut off ({error}); {_REMEDY}") from error
    if not isinstance(document, dict):
        raise SpecError(f"{path.name}: expected an object with {sorted(lists)}, got {type(document).__name__}")
    for name, kinds in lists.items():
        if not isinstance(document.get(name), list):
            raise SpecError(f"{path.name}: expected a list {name!r}, got {type(document.get(name)).__name__}")
        for index, item in enumerate(document[name]):
            _check_item(f"{path.name}: {name}[{index}]", item, kinds)
    coco.dataset = {name: document[name] for name in lists} | {"licenses": document.get("licenses")}
    coco.createIndex()
    return coco


@step(
    "index/coco",
    version=2,
    label=lambda source, **_: source,
    unkeyed=("directory",),
    libraries=("pycocotools",),
    paths=("directory",),
)
def index_coco(
    run: StepRun, *, source: str, inventory: str, split: str, first: int, limit: int | None, directory: str
) -> Output:
    """Index COCO annotations: one entry per picture, sorted by image id; `first` and `limit` select a range of them.

    The range is one of the annotations' images, whether or not their files are there. `inventory` is the digest of
    `coco_inventory(directory, split)`; the directory may be the sample's by its name (`sample_name`). A picture's
    caption is the first that says something, by the annotations' ids.

    Raises:
        SpecError: an annotation file is broken, or no picture is left.
        InputChanged: files have changed since the inventory.
    """
    root = source_folder(directory)
    found = coco_inventory(str(root), split)
    found.expect(inventory, source)
    captions = read_annotations(
        _captions(root, split),
        {"images": {"id": int, "file_name": str}, "annotations": {"id": int, "image_id": int, "caption": str}},
    )
    has_instances = _instances(root, split).is_file()
    categories = _categories_by_image(_instances(root, split)) if has_instances else {}
    licences = _licence_names(captions.dataset["licenses"])
    present = {item.name: item for item in found.listed}

    images, aside = _by_id(source, captions.dataset["images"])
    files = _files_named([image["file_name"] for image in captions.dataset["images"]], split, present)
    end = None if limit is None else first + limit
    selected = sorted(images)[first:end]

    rows = []
    for position, image_id in enumerate(selected):
        image = images[image_id]
        name = files[image["file_name"]]
        wrong = _wrong(name, present)
        if wrong is not None:
            aside.append(quarantined(source, _text_id(source, image_id), *wrong))
            continue
        spoken = sorted(captions.imgToAnns.get(image_id, []), key=lambda item: item["id"])
        rows.append(
            _entry(source, position, image)
            | {
                "file": f"{split}/{name}",
                "sha256": found.sha256[name],
                "caption": stated_text([item["caption"] for item in spoken]),
                "categories": categories.get(image_id, []),
                "licence": licences.get(str(image.get("license"))),
            }
        )
    aside += [
        quarantined(source, f"{source}:{name}", "no-entry", name)
        for name in sorted(present.keys() - set(files.values()))
    ]
    if not rows:
        raise SpecError(
            f"{source}: no picture is left of {len(selected)} in the range, of {len(images)} annotated ones: "
            f"{reasons_told(aside) or 'choose another range'}"
        )
    notes = {"n": len(rows), "quarantined": len(aside), "annotated": len(images), "instances": has_instances}
    return Output({ROWS: pa.Table.from_pylist(rows, schema=ENTRY_SCHEMA), QUARANTINE: quarantine_table(aside)}, notes)


def _text_id(source: str, image_id: int) -> str:
    return f"{source}:{image_id:012d}"


def _by_id(source: str, images: Iterable[dict[str, Any]]) -> tuple[dict[int, dict[str, Any]], list[dict[str, str]]]:
    """The annotations' images by their ids, the first of each, and the others set aside."""
    first: dict[int, dict[str, Any]] = {}
    aside = []
    for image in images:
        if image["id"] in first:
            detail = f"again as {image['file_name']!r}"
            aside.append(quarantined(source, _text_id(source, image["id"]), "duplicate-id", detail))
        else:
            first[image["id"]] = image
    return first, aside


def _wrong(name: str, present: Mapping[str, Listed]) -> tuple[str, str] | None:
    """Why a file cannot be read, as reason and detail; None where it can."""
    if not is_safe_name(name):
        return "unsafe-name", repr(name)
    if name not in present:
        return "missing-file", name
    listed = present[name]
    return None if listed.reason is None else (listed.reason, listed.detail)


def _entry(source: str, position: int, image: Mapping[str, Any]) -> dict[str, Any]:
    """What an image of the annotations says of itself alone, as a row of the entry table."""
    text_id = _text_id(source, image["id"])
    group = stated_text(image.get("group"))
    return {
        "position": position,
        "image_id": text_id,
        "group_id": text_id if group is None else f"{source}:{group_name(group)}",
        "prompt": None,
        "seed": None,
    }


def _files_named(stated: Iterable[str], split: str, present: Mapping[str, Any]) -> dict[str, str]:
    """The file below the split's folder that each of the annotations' names means, or the name where none is there.

    Some annotations name the split's folder as well, and file systems and cameras change a name's letter case: such a
    name means the file of the same letters where there is one, and no other name means it.
    """
    by_letters = unambiguous((folded(name), name) for name in present)
    files = {}
    for name in stated:
        below = name.removeprefix(f"{split}/")
        files[name] = below if name not in present and (below in present or folded(below) in by_letters) else name
    exact = {file for file in files.values() if file in present}
    alike = Counter(folded(file) for file in files.values() if file not in present)
    for name, file in files.items():
        found = by_letters.get(folded(file))
        if file not in present and found is not None and found not in exact and alike[folded(file)] == 1:
            files[name] = found
    return files


def _captions(root: Path, split: str) -> Path:
    return root / "annotations" / f"captions_{split}.json"


def _instances(root: Path, split: str) -> Path:
    return root / "annotations" / f"instances_{split}.json"


def _annotation_files(root: Path, split: str) -> list[Path]:
    return [path for path in (_captions(root, split), _instances(root, split)) if path.is_file()]


def _categories_by_image(path: Path) -> dict[int, list[str]]:
    """Names of the categories in each image, each once, sorted by category id."""
    instances = read_annotations(
        path, {"annotations": {"id": int, "image_id": int, "category_id": int}, "categories": {"id": int, "name": str}}
    )
    names = {category["id"]: whole_text(category["name"]) for category in instances.dataset["categories"]}
    found: dict[int, set[int]] = defaultdict(set)
    for index, item in enumerate(instances.dataset["annotations"]):
        if item["category_id"] not in names:
            raise SpecError(f"{path.name}: annotations[{index}] has the unknown category_id {item['category_id']}")
        found[item["image_id"]].add(item["category_id"])
    return {image_id: [names[category] for category in sorted(ids)] for image_id, ids in found.items()}


def _licence_names(licences: Any) -> dict[str, str]:
    """Names by id; a file without a proper list of them has pictures without a licence."""
    items = [item for item in licences if isinstance(item, dict)] if isinstance(licences, list) else []
    return {str(item["id"]): whole_text(str(item["name"])) for item in items if "id" in item and "name" in item}


def _check_item(where: str, item: Any, kinds: dict[str, type]) -> None:
    if not isinstance(item, dict):
        raise SpecError(f"{where}: expected an object, got {type(item).__name__}")
    for key, kind in kinds.items():
        if not _is_of(item.get(key), kind):
            got = f"{item[key]!r:.60}" if key in item else "none"
            raise SpecError(f"{where}: expected {key!r} as {kind.__name__}, got {got}")


def _is_of(value: Any, kind: type) -> bool:
    """Whether a value is of a kind; True is no number, and an identifier has at most 64 bits."""
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    return isinstance(value, kind)


def _without_segmentation(item: dict[str, Any]) -> dict[str, Any]:
    # Polygons are nine tenths of the instances of train2017, and nothing here looks at them.
    item.pop("segmentation", None)
    return item


def _quiet_coco() -> Any:
    """An empty `COCO` that does not print.

    Its module's own `print` is replaced, rather than `sys.stdout`, which other threads are writing to.
    """
    from pycocotools import coco

    silent: Callable[..., None] = lambda *_, **__: None  # noqa: E731
    coco.print = silent
    return coco.COCO()


def _has_both_braces(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(_EDGE)
        file.seek(max(0, path.stat().st_size - _EDGE))
        tail = file.read()
    return head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{") and tail.rstrip().endswith(b"}")
