"""The files of the app: what was built, with networks and reference pictures put in, small enough for a first visit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from storage.digest import sha256_hex
from storage.errors import DamagedObject, MissingInput, SpecError
from tasks.spec.source_names import name_in_words, with_names

APP_SETTING = "TELLTALE_APP"

# What a first visit fetches: the app, its cards and pictures, and the first network. Others follow when chosen.
MOST_BYTES = 25_000_000

# The runtime for WebGPU is fetched when a person switches it on.
OPTIONAL = re.compile(r"webgpu|asyncify")

DIGEST_IN_NAME = 12

MODELS, PICTURES = "models/", "pictures/"


def read_app(folder: Path) -> dict[str, bytes]:
    """The files of a built app by path.

    Raises:
        MissingInput: no app was built there.
    """
    if not (folder / "index.html").is_file():
        raise MissingInput(
            f"the built app in {folder}: build it with `make mobile`, or name its folder with {APP_SETTING}"
        )
    found = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in found}


def network_files(networks: Mapping[str, tuple[bytes, bytes]]) -> dict[str, bytes]:
    """Files of the app's `models/` by path, from (model, card) by name; the first is the one that the app starts with.

    Names hold the digest, so that an old list and a new file never meet. `models/index.json` lists name, file, card,
    sha256 and bytes of each.

    Raises:
        DamagedObject: a model is not the one that its card was written for.
        SpecError: a card is none of an evaluated network, or there is no network.
    """
    from tasks.networks.answer import Card

    if not networks:
        raise SpecError("an app needs at least one network, got none")
    files: dict[str, bytes] = {}
    index = []
    for name, (model, card) in networks.items():
        read, digest = Card.read(card), sha256_hex(model)
        if digest != read.sha256:
            raise DamagedObject(f"{name}: expected sha256 {read.sha256}, got {digest}")
        stem = f"{re.sub(r'[^A-Za-z0-9._-]', '-', name)}.{digest[:DIGEST_IN_NAME]}"
        files |= {f"{MODELS}{stem}.onnx": model, f"{MODELS}{stem}.json": _with_words(card)}
        index.append(
            {"name": name, "file": f"{stem}.onnx", "card": f"{stem}.json", "sha256": digest, "bytes": len(model)}
        )
    return files | {f"{MODELS}index.json": json.dumps(index, indent=1).encode()}


def _with_words(card: bytes) -> bytes:
    """A card that says what its classes are called, which older ones do not."""
    content = json.loads(card)
    found = {name: name_in_words(name) for name in content["classes"][1:]} | with_names(content.get("sources", {}))
    return json.dumps(content | {"sources": found}, sort_keys=True).encode()


def picture_files(pictures: Iterable[tuple[str, str, bytes]]) -> dict[str, bytes]:
    """Files of the app's `pictures/` by path, from (label, suffix such as `.jpg`, bytes).

    Labels are `real`, the name of a source, or `fake` for a generator without a name.
    """
    files: dict[str, bytes] = {}
    index = []
    for label, suffix, data in pictures:
        file = f"{sha256_hex(data)[:DIGEST_IN_NAME]}{suffix}"
        files[f"{PICTURES}{file}"] = data
        index.append({"file": file, "label": label})
    return files | {f"{PICTURES}index.json": json.dumps(index, indent=1).encode()}


def complete_app(
    built: Mapping[str, bytes],
    networks: Mapping[str, tuple[bytes, bytes]],
    pictures: Iterable[tuple[str, str, bytes]] | None = None,
) -> dict[str, bytes]:
    """A built app with these networks in place of those that it had, and with these pictures unless they are None.

    Raises:
        SpecError: a first visit would fetch more than `MOST_BYTES`; and errors of `network_files`.
    """
    replaced = (MODELS,) if pictures is None else (MODELS, PICTURES)
    files = {path: data for path, data in built.items() if not path.startswith(replaced)}
    files |= network_files(networks)
    if pictures is not None:
        files |= picture_files(pictures)
    size = first_visit_bytes(files)
    if size > MOST_BYTES:
        raise SpecError(
            f"a first visit would fetch {size} bytes, more than {MOST_BYTES}: start with a smaller network "
            f"than {next(iter(networks))}, or bundle fewer pictures"
        )
    return files


def first_visit_bytes(files: Mapping[str, bytes]) -> int:
    """Bytes that a first visit to an app of these files fetches, uncompressed.

    Raises:
        MissingInput: the app has no networks.
    """
    index = files.get(f"{MODELS}index.json")
    if index is None:
        raise MissingInput("networks in the app: put them in with `make mobile MODELS=FOLDER`")
    first = f"{MODELS}{json.loads(index)[0]['file']}"
    return sum(
        len(data)
        for path, data in files.items()
        if not OPTIONAL.search(path) and (not path.endswith(".onnx") or path == first)
    )


def write_app(folder: Path, files: Mapping[str, bytes]) -> None:
    """Put an app's networks and pictures into the folder where it was built, in place of those that it had there."""
    for old in (*(folder / MODELS).glob("*"), *(folder / PICTURES).glob("*")):
        old.unlink()
    for path, data in files.items():
        if path.startswith((MODELS, PICTURES)):
            target = folder / path
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(data)


def read_networks(folder: Path, first: str | None = None) -> dict[str, tuple[bytes, bytes]]:
    """(model, card) by name of every `NAME.onnx` with its `NAME.json` in a folder, by name, `first` before all.

    Raises:
        MissingInput: the folder has no networks, a card is missing, or `first` is not there.
    """
    models = sorted(folder.glob("*.onnx"), key=lambda file: (file.stem != first, file.stem))
    if not models or (first is not None and models[0].stem != first):
        raise MissingInput(f"{first or 'an exported network'}.onnx in {folder}")
    missing = [file.with_suffix(".json").name for file in models if not file.with_suffix(".json").is_file()]
    if missing:
        raise MissingInput(f"the cards {', '.join(missing)} in {folder}")
    return {file.stem: (file.read_bytes(), file.with_suffix(".json").read_bytes()) for file in models}


def read_pictures(folder: Path) -> Sequence[tuple[str, str, bytes]]:
    """(label, suffix, bytes) of the JPEG and PNG files in a folder's sub-folders, whose names are the labels.

    Raises:
        MissingInput: there is none.
    """
    files = sorted(file for file in folder.glob("*/*") if file.suffix.lower() in {".jpg", ".jpeg", ".png"})
    if not files:
        raise MissingInput(f"pictures in {folder}: expected LABEL/NAME.jpg or .png")
    return [(file.parent.name, file.suffix.lower(), file.read_bytes()) for file in files]
