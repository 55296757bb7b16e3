"""A network as it should not be: a proxy in front of an S3 server that breaks, delays and alters what passes.

Faults are drawn from a seeded generator, each kind at its own rate, and counted. Bytes are altered in objects only, on
their way up or down: what a listing or an error says carries no checksum of its own and is protected by TLS.
"""

import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FAULTS = (
    "latency",  # the answer comes late
    "failing",  # 500, nothing done
    "throttled",  # 503 SlowDown, nothing done
    "reset",  # the connection breaks before anything is done
    "lost",  # it breaks after the server did what was asked
    "truncated",  # it breaks in the middle of the answer
    "altered-up",  # an object arrives at the server with a wrong byte
    "altered-down",  # an object arrives at the reader with a wrong byte
)
ERROR = "<?xml version='1.0'?><Error><Code>{}</Code><Message>injected</Message></Error>"

# Answers a request in the server's place: method, path and headers in; status and body out, or None to pass it on.
Answer = Callable[[str, str, Mapping[str, str]], tuple[int, bytes] | None]


@dataclass
class Faults:
    """Which faults happen how often.

    Args:
        rates: share of the requests that suffer each kind; each is drawn by itself.
        answer: answers some requests in the server's place.
    """

    rates: Mapping[str, float] = field(default_factory=dict)
    answer: Answer | None = None
    seed: int = 0
    injected: Counter[str] = field(default_factory=Counter)
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._lock = threading.Lock()

    def draw(self, method: str, path: str) -> set[str]:
        """The faults of one request, in a fixed order of drawing."""
        with self._lock:
            self.log.append(f"{method} {path}")
            return {kind for kind in FAULTS if self._random.random() < self.rates.get(kind, 0.0)}

    def count(self, kind: str) -> None:
        """Note that a fault has happened."""
        with self._lock:
            self.injected[kind] += 1

    def alter(self, data: bytes) -> bytes:
        """The same bytes but one."""
        with self._lock:
            place = self._random.randrange(len(data))
        return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@contextmanager
def faulty(endpoint: str, faults: Faults) -> Iterator[str]:
    """The address of a proxy in front of an endpoint, for as long as the block lasts."""

    class Handler(_Handler):
        upstream = endpoint.removeprefix("http://")
        plan = faults

    server = _Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is what this is about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    upstream: str
    plan: Faults

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        faults = self.plan.draw(self.command, self.path)
        is_object = "?" not in self.path or "partNumber=" in self.path
        if "latency" in faults:
            self.plan.count("latency")
            time.sleep(0.3)
        if "reset" in faults:
            self._break("reset")
            return
        given = self.plan.answer(self.command, self.path, dict(self.headers)) if self.plan.answer else None
        for kind, status, code in (("failing", 500, "InternalError"), ("throttled", 503, "SlowDown")):
            if given is None and kind in faults:
                self.plan.count(kind)
                given = (status, ERROR.format(code).encode())
        if given is not None:
            self._answer(given[0], {"Content-Type": "application/xml"}, given[1])
            return
        if "altered-up" in faults and self.command == "PUT" and is_object and body:
            self.plan.count("altered-up")
            body = self.plan.alter(body)
        try:
            status, headers, answer = self._ask(body)
        except (OSError, HTTPException):
            self._break("server away")
            return
        if "lost" in faults:
            self._break("lost")
            return
        if "altered-down" in faults and self.command == "GET" and is_object and status == 200 and answer:
            self.plan.count("altered-down")
            answer = self.plan.alter(answer)
        self._answer(status, headers, answer, truncated="truncated" in faults and len(answer) > 1)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle  # noqa: N815

    def _ask(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = HTTPConnection(self.upstream, timeout=60)
        try:
            # The same Host and all other headers: the request is signed.
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes, truncated: bool = False) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
        if status not in (204, 304):
            self.send_header("Content-Length", length)
        self.end_headers()
        if self.command == "HEAD":
            return
        if truncated:
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self._break("truncated")
        else:
            self.wfile.write(body)

    def _break(self, kind: str) -> None:
        """Break the connection as a crash does: with a reset."""
        self.plan.count(kind)
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def log_message(self, *_: Any) -> None:
        """Quiet."""
