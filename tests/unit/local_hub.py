"""A model hub on this machine: what huggingface_hub asks of one, for models that lie in folders."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


class LocalHub:
    """Models by id, each a list of commits with their folders, the newest last; and what was asked for."""

    def __init__(self) -> None:
        self.models: dict[str, list[tuple[str, Path]]] = {}
        self.asked: list[str] = []

    def publish(self, name: str, folder: Path) -> str:
        """A new commit of a model, which is its newest."""
        commits = self.models.setdefault(name, [])
        commit = hashlib.sha1(f"{name} {len(commits)}".encode()).hexdigest()
        commits.append((commit, folder))
        return commit

    def folder(self, name: str, revision: str) -> tuple[str, Path] | None:
        commits = self.models.get(name, [])
        if revision == "main":
            return commits[-1] if commits else None
        return next((one for one in commits if one[0] == revision), None)


def _handler(hub: LocalHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.partition("?")[0].strip("/")
            hub.asked.append(f"{self.command} {path}")
            parts = path.split("/")
            if parts[:2] == ["api", "models"]:
                self._describe("/".join(parts[2:4]), parts[4:])
            elif len(parts) > 4 and parts[2] == "resolve":
                self._give("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
            else:
                self._refuse()

        def _describe(self, name: str, rest: list[str]) -> None:
            found = hub.folder(name, rest[1] if len(rest) > 1 else "main")
            if found is None:
                return self._refuse()
            commit, folder = found
            files = [path for path in sorted(folder.iterdir()) if path.is_file()]
            if rest[:1] == ["tree"]:
                return self._json(
                    [
                        {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": _etag(path)}
                        for path in files
                    ]
                )
            siblings = [{"rfilename": path.name} for path in files]
            return self._json({"id": name, "modelId": name, "sha": commit, "siblings": siblings, "tags": []})

        def _give(self, name: str, revision: str, file: str) -> None:
            found = hub.folder(name, revision)
            if found is None or not (found[1] / file).is_file():
                return self._refuse()
            data = (found[1] / file).read_bytes()
            headers = {"ETag": f'"{_etag(found[1] / file)}"', "X-Repo-Commit": found[0]}
            return self._answer(200, data, headers)

        def _refuse(self) -> None:
            self._answer(404, b"", {"X-Error-Code": "RepoNotFound"})

        def _json(self, document: object) -> None:
            self._answer(200, json.dumps(document).encode(), {"Content-Type": "application/json"})

        def _answer(self, status: int, data: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in (headers | {"Content-Length": str(len(data))}).items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


def _etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


@contextmanager
def local_hub(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[LocalHub]:
    """A hub that huggingface_hub asks in place of its own, and keeps what it gets from it in this cache."""
    hub = LocalHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    use_hub(monkeypatch, f"http://127.0.0.1:{server.server_port}", cache)
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def use_hub(monkeypatch: pytest.MonkeyPatch, address: str, cache: Path) -> None:
    """Let huggingface_hub ask this address and have this cache, as with HF_ENDPOINT and HF_HOME of a new process."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def offline(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Let huggingface_hub reach nothing, as with HF_HUB_OFFLINE of a new process."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
