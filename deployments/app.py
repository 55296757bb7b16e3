"""Putting networks and reference pictures into the built app: `python -m deployments.app --models FOLDER`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from storage.digest import sha256_hex
from storage.errors import DamagedObject, MissingInput, SpecError, TelltaleError

APP = Path("mobile/dist")

# What a first visit fetches: the app, its cards and pictures, and the first network. Others follow when chosen.
MOST_BYTES = 25_000_000

# The runtime for WebGPU is fetched when a person switches it on.
OPTIONAL = re.compile(r"webgpu|asyncify")

DIGEST_IN_NAME = 12


def network_files(networks: Mapping[str, tuple[bytes, bytes]]) -> dict[str, bytes]:
    """Files of the app's `models/` by path, from (model, card) by name; the first is the one that the app starts with.

    Names hold the digest, so that an old list and a new file never meet. `models/index.json` lists name, file, card,
    sha256 and bytes of each.

    Raises:
        DamagedObject: a model is not the one that its card was written for.
        SpecError: a card is none of an evaluated network, or there is no network.
    """
    from tasks.detectors.answer import Card

    if not networks:
        raise SpecError("an app needs at least one network, got none")
    files: dict[str, bytes] = {}
    index = []
    for name, (model, card) in networks.items():
        expected, digest = Card.read(card).sha256, sha256_hex(model)
        if digest != expected:
            raise DamagedObject(f"{name}: expected sha256 {expected}, got {digest}")
        stem = f"{re.sub(r'[^A-Za-z0-9._-]', '-', name)}.{digest[:DIGEST_IN_NAME]}"
        files |= {f"models/{stem}.onnx": model, f"models/{stem}.json": card}
        index.append(
            {"name": name, "file": f"{stem}.onnx", "card": f"{stem}.json", "sha256": digest, "bytes": len(model)}
        )
    return files | {"models/index.json": json.dumps(index, indent=1).encode()}


def picture_files(pictures: Iterable[tuple[str, str, bytes]]) -> dict[str, bytes]:
    """Files of the app's `pictures/` by path, from (label, suffix such as `.jpg`, bytes).

    Labels are `real`, the name of a source, or `fake` for a generator without a name.
    """
    files: dict[str, bytes] = {}
    index = []
    for label, suffix, data in pictures:
        file = f"{sha256_hex(data)[:DIGEST_IN_NAME]}{suffix}"
        files[f"pictures/{file}"] = data
        index.append({"file": file, "label": label})
    return files | {"pictures/index.json": json.dumps(index, indent=1).encode()}


def first_visit_bytes(app: Path) -> int:
    """Bytes that a first visit to the app in this folder fetches, uncompressed.

    Raises:
        MissingInput: no app was built there, or it has no networks.
    """
    index = app / "models" / "index.json"
    if not (app / "index.html").is_file() or not index.is_file():
        raise MissingInput(f"the app with its networks in {app}: build it with `make mobile`")
    first = json.loads(index.read_bytes())[0]["file"]
    return sum(
        file.stat().st_size
        for file in app.rglob("*")
        if file.is_file() and not OPTIONAL.search(file.name) and (file.suffix != ".onnx" or file.name == first)
    )


def write_app_files(app: Path, files: Mapping[str, bytes]) -> None:
    """Put files into a built app, in place of the networks and pictures that it had."""
    if not (app / "index.html").is_file():
        raise MissingInput(f"the built app in {app}: build it with `make mobile`")
    for folder in ("models", "pictures"):
        for old in (app / folder).glob("*"):
            old.unlink()
    for path, data in files.items():
        target = app / path
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
    """(label, suffix, bytes) of the JPEG and PNG files in a folder's sub-folders, whose names are the labels."""
    files = sorted(file for file in folder.glob("*/*") if file.suffix.lower() in {".jpg", ".jpeg", ".png"})
    if not files:
        raise MissingInput(f"pictures in {folder}: expected LABEL/NAME.jpg or .png")
    return [(file.parent.name, file.suffix.lower(), file.read_bytes()) for file in files]


def main(
    models: Annotated[Path, typer.Option(help="A folder of NAME.onnx with NAME.json beside each.")],
    pictures: Annotated[
        Path | None, typer.Option(help="Reference pictures for the Evaluate screen: LABEL/NAME.jpg or .png.")
    ] = None,
    first: Annotated[
        str | None, typer.Option(help="The network that the app starts with; else the first by name.")
    ] = None,
    app: Annotated[Path, typer.Option(help="The built app.")] = APP,
) -> None:
    """Put networks and reference pictures into the built app."""
    try:
        files = network_files(read_networks(models, first))
        write_app_files(app, files | picture_files(() if pictures is None else read_pictures(pictures)))
        size = first_visit_bytes(app)
        if size > MOST_BYTES:
            raise SpecError(
                f"a first visit would fetch {size} bytes, more than {MOST_BYTES}: start with a smaller network"
            )
    except TelltaleError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    typer.echo(f"{app}: {size / 1e6:.1f} MB on a first visit")


if __name__ == "__main__":
    typer.run(main)
