"""A built app in small: what `make mobile` leaves behind, as far as networks and pictures are put into it."""

from __future__ import annotations

from pathlib import Path

FILES = {
    "index.html": b"<!doctype html><title>telltale</title>",
    "service-worker.js": b"// keeps files",
    "assets/index-1234.js": b"// the app",
    "assets/runtime-5678.wasm": bytes(5000),
    "assets/runtime.webgpu-9abc.wasm": bytes(90_000),
    "pictures/index.json": b'[{"file": "own.jpg", "label": "real"}]',
    "pictures/own.jpg": b"a picture of the app's own",
}


def write_built_app(folder: Path) -> Path:
    """The files in a folder; the folder."""
    for path, data in FILES.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return folder
