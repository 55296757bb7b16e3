"""The store's runs over HTTP, for the browser of this machine: it refuses links to `file://`, and a bucket has none.

    python -m deployments.reports PORT

Only GET and HEAD, only what lies below `runs/`, only on 127.0.0.1 (docs/SECURITY.md). `make serve` starts it.
"""

import contextlib
import html
import logging
import mimetypes
import re
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from urllib.parse import quote, unquote_to_bytes, urlsplit

from storage.errors import ObjectMissing, SpecError, StoreError
from storage.local import LocalStore
from storage.opening import open_store
from storage.runs import RUNS, run_places
from storage.store import Store, checked_key
from tasks.report.script import SOURCE

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
SERVED = "runs/"
HEALTH = "/health"
HEALTHY = b"telltale reports"

# What the mime types of a bare machine do not say. Text shows in the browser, everything else is downloaded.
CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".md": "text/markdown; charset=utf-8",
    ".onnx": "application/octet-stream",
    ".parquet": "application/vnd.apache.parquet",
    ".csv": "text/csv; charset=utf-8",
}
# A report loads nothing, and runs nothing but one script that is known by its digest: its styles stand in it, its
# pictures are SVG or data.
POLICY = (
    f"default-src 'none'; script-src {SOURCE}; style-src 'unsafe-inline'; img-src data:; form-action 'none'; "
    "frame-ancestors 'none'"
)
# The explorer runs its own script and reads the files beside it, nothing from elsewhere.
EXPLORER_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src blob: data:; connect-src 'self'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_EXPLORER = re.compile(rf"{re.escape(RUNS)}/[^/]+/explorer/")


class RunPages:
    """The pages that are made here: the list of all runs, and the list of one run's files."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # A run's index is written once, so its time never changes.
        self._times: dict[str, float] = {}
        self._lock = threading.Lock()

    def all_runs(self) -> bytes:
        """Links to the reports of all finished runs, the newest first."""
        places = run_places(self._listed(RUNS))
        timed = [(time, place) for place in places if (time := self._time(f"{place}/index.json")) is not None]
        rows = [
            f"<tr><td>{datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M} UTC</td>"
            f'<td><a href="{_href(f"{place}/report.html")}">{html.escape(place.removeprefix(f"{RUNS}/"))}</a></td>'
            f'<td><a href="{_href(f"{place}/")}">files</a></td></tr>'
            for time, place in sorted(timed, reverse=True)
        ]
        listed = f"<table>{''.join(rows)}</table>" if rows else "<p>No run is finished yet.</p>"
        return _page("Runs", f"{listed}<p>{html.escape(self._store.url)}</p>")

    def files(self, folder: str) -> bytes | None:
        """Links to all files of a folder, None where there are none."""
        keys = self._listed(folder)
        if not keys:
            return None
        items = [f'<li><a href="{_href(key)}">{html.escape(key.removeprefix(f"{folder}/"))}</a></li>' for key in keys]
        return _page(folder, f'<p><a href="/">All runs</a></p><ul>{"".join(items)}</ul>')

    def _listed(self, folder: str) -> list[str]:
        # Files that others put there may have names that are no keys, nor text.
        return [key for key in self._store.list(folder) if key.isprintable()]

    def _time(self, key: str) -> float | None:
        """When a run was finished; None where it has just been removed."""
        with self._lock:
            known = self._times.get(key)
        if known is None:
            try:
                known = self._store.modified(key)
            except ObjectMissing:
                return None
            with self._lock:
                self._times[key] = known
        return known


def _href(key: str) -> str:
    return html.escape(quote(f"/{key}"))


def _page(title: str, body: str) -> bytes:
    style = "body{font:16px system-ui,sans-serif;margin:2rem auto;max-width:60rem}td{padding:.2rem 1rem .2rem 0}"
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{style}</style>'
    heading = f"<h1>{html.escape(title)}</h1>"
    return f"<!doctype html><html lang=en><head>{head}</head><body>{heading}{body}</body></html>".encode()


class _Refused(Exception):
    """A request that gets no content: its status."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


class Handler(BaseHTTPRequestHandler):
    """One request. Every other method than GET and HEAD is answered with 501 by the base class."""

    protocol_version = "HTTP/1.1"
    timeout = 60.0
    server_version = "telltale"
    sys_version = ""

    def __init__(self, store: Store, pages: RunPages, *args: object) -> None:
        self._store = store
        self._pages = pages
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """Send what was asked for."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """Say what would be sent."""
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        try:
            self._check_host()
            kind, content = self._content()
            asked = self._asked_range(len(content))
        except _Refused as refused:
            self._send(refused.status, "text/plain; charset=utf-8", f"{refused.status.phrase}\n".encode(), with_body)
            return
        if asked is None:
            self._send(HTTPStatus.OK, kind, content, with_body)
            return
        part = {"Content-Range": f"bytes {asked.start}-{asked.stop - 1}/{len(content)}"}
        self._send(HTTPStatus.PARTIAL_CONTENT, kind, content[asked.start : asked.stop], with_body, part)

    def _asked_range(self, size: int) -> range | None:
        """Which bytes of so many are asked for; None for all of them, and where several ranges are asked for."""
        match = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", self.headers.get("Range", ""), re.ASCII)
        if match is None or match[0] == "bytes=-":
            return None
        first, last = match.groups()
        start = int(first) if first else max(0, size - int(last))
        stop = min(size, int(last) + 1) if first and last else size
        if start >= stop:
            # The other way round it is no range, and all is sent; behind the end there is none.
            if first and last and int(last) < start:
                return None
            raise _Refused(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
        return range(start, stop)

    def _check_host(self) -> None:
        # A page of another site, whose name was made to mean 127.0.0.1, could otherwise read the reports.
        if urlsplit(f"//{self.headers.get('Host', '')}").hostname not in (HOST, "localhost"):
            raise _Refused(HTTPStatus.MISDIRECTED_REQUEST)

    def _content(self) -> tuple[str, bytes]:
        """Type and bytes of what the address names."""
        path = self.path.partition("?")[0]
        if path == HEALTH:
            return "text/plain; charset=utf-8", HEALTHY
        try:
            if path in ("/", "/runs/", f"/{RUNS}/"):
                return CONTENT_TYPES[".html"], self._pages.all_runs()
            key = key_of(path)
            if path.endswith("/"):
                content = self._pages.files(key)
                if content is None:
                    raise _Refused(HTTPStatus.NOT_FOUND)
                return CONTENT_TYPES[".html"], content
            self._check_place(key)
            return content_type(key), self._store.read(key)
        except (SpecError, ObjectMissing) as error:
            raise _Refused(HTTPStatus.NOT_FOUND) from error
        except (StoreError, OSError) as error:
            logger.warning("%s: %s", path, error)
            raise _Refused(HTTPStatus.BAD_GATEWAY) from error

    def _check_place(self, key: str) -> None:
        # A link that leads out of the runs is followed by the store, for which it may be meant, and not here.
        if isinstance(self._store, LocalStore):
            runs = self._store.path(SERVED).resolve()
            if not self._store.path(key).resolve().is_relative_to(runs):
                raise _Refused(HTTPStatus.NOT_FOUND)

    def _send(
        self,
        status: HTTPStatus,
        kind: str,
        content: bytes,
        with_body: bool,
        further: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Accept-Ranges", "bytes")
        for name, value in further.items():
            self.send_header(name, value)
        self.send_header("Content-Security-Policy", policy(self.path))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-cache")
        self.end_headers()
        if with_body:
            # A browser may leave before it has everything.
            with contextlib.suppress(ConnectionError):
                self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """One line of the log for each request; a control character in an address stays a number."""
        logger.info("%s", (format % args).encode("unicode_escape").decode())


def key_of(path: str) -> str:
    """The key that an address's path names.

    Raises:
        SpecError: it is none below `runs/`, or not in its one form: with `..`, `.`, or doubled slashes.
    """
    try:
        key = unquote_to_bytes(path).decode().removeprefix("/").removesuffix("/")
    except UnicodeDecodeError as error:
        raise SpecError(f"not a key of a store: {path!r}") from error
    if not key.startswith(SERVED) or checked_key(key) != key:
        raise SpecError(f"not a key below {SERVED}: {key!r}")
    return key


def policy(path: str) -> str:
    """What a browser may load for the page at a path."""
    return EXPLORER_POLICY if _EXPLORER.match(path.removeprefix("/")) else POLICY


def content_type(key: str) -> str:
    """What a browser should take a file for, by its name."""
    suffix = f".{key.rsplit('.', 1)[-1].lower()}"
    return CONTENT_TYPES.get(suffix) or mimetypes.guess_type(f"x{suffix}")[0] or "application/octet-stream"


def reports_server(store: Store, port: int) -> ThreadingHTTPServer:
    """A server of this store's runs that listens on 127.0.0.1; port 0 takes a free one."""
    return ThreadingHTTPServer((HOST, port), partial(Handler, store, RunPages(store)))


def main() -> None:
    """Serve the configured store until the process is ended."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with reports_server(open_store(), int(sys.argv[1])) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
