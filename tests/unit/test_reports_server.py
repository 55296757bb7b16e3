"""The store's reports over HTTP: they arrive, and nothing else leaves or enters."""

import base64
import hashlib
import http.client
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deployments.reports import HEALTHY, content_type, reports_server
from deployments.s3 import S3Server
from storage.local import LocalStore
from storage.opening import open_store
from storage.store import Store
from tasks.report.script import SCRIPT

PLACE = "runs/evaluate/sample-0123"
REPORT = b"<!doctype html><title>A report</title>"


@contextmanager
def served(store: Store) -> Iterator[int]:
    """The port on which a store's reports are served."""
    with reports_server(store, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def asked(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body, for a path that is sent as it stands."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.putrequest(method, path, skip_host="Host" in headers, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def fill(store: Store) -> Store:
    store.write(f"{PLACE}/report.html", REPORT)
    store.write(f"{PLACE}/tables/a & b#1?.json", b"{}")
    store.write(f"{PLACE}/index.json", json.dumps({"experiment": {}}).encode())
    store.write("objects/secret/manifest.json", b"{}")
    store.write("runs-of-others/report.html", b"no")
    return store


@pytest.fixture
def local(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path / "store")
    fill(store)
    (tmp_path / "secret").write_bytes(b"secret")
    return store


@pytest.fixture
def port(local: LocalStore) -> Iterator[int]:
    with served(local) as found:
        yield found


def test_the_explorer_may_run_its_own_script_and_read_its_own_files_alone(port: int, local: LocalStore) -> None:
    local.write(f"{PLACE}/explorer/index.html", b"<!doctype html>")
    policy = asked(port, f"/{PLACE}/explorer/index.html?cell=64/q20")[1]["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; ")
    assert "connect-src 'self'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize(
    ("asked_for", "sent", "where"),
    [
        ("bytes=0-3", REPORT[:4], f"bytes 0-3/{len(REPORT)}"),
        ("bytes=9-", REPORT[9:], f"bytes 9-{len(REPORT) - 1}/{len(REPORT)}"),
        ("bytes=-5", REPORT[-5:], f"bytes {len(REPORT) - 5}-{len(REPORT) - 1}/{len(REPORT)}"),
        ("bytes=2-999999", REPORT[2:], f"bytes 2-{len(REPORT) - 1}/{len(REPORT)}"),
        ("bytes=-999999", REPORT, f"bytes 0-{len(REPORT) - 1}/{len(REPORT)}"),
    ],
)
def test_a_range_of_a_file_is_sent_alone(port: int, asked_for: str, sent: bytes, where: str) -> None:
    status, headers, body = asked(port, f"/{PLACE}/report.html", Range=asked_for)
    assert (status, body, headers["Content-Range"]) == (206, sent, where)
    assert headers["Content-Length"] == str(len(sent))


@pytest.mark.parametrize(
    "asked_for", ["bytes=5-2", "bytes=-", "bytes=0-1,4-5", "lines=0-1", "bytes=a-b", "bytes=" + "9" * 30 + "-"]
)
def test_what_is_no_single_range_gets_the_whole_file(port: int, asked_for: str) -> None:
    assert asked(port, f"/{PLACE}/report.html", Range=asked_for)[::2] == (200, REPORT)


@pytest.mark.parametrize("asked_for", ["bytes=999999-", "bytes=-0"])
def test_a_range_behind_the_end_is_refused(port: int, asked_for: str) -> None:
    assert asked(port, f"/{PLACE}/report.html", Range=asked_for)[0] == 416


def test_a_report_arrives_as_a_page_that_may_load_nothing_and_run_its_own_script_alone(port: int) -> None:
    status, headers, body = asked(port, f"/{PLACE}/report.html")
    assert (status, body) == (200, REPORT)
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    directives = dict(one.split(maxsplit=1) for one in headers["Content-Security-Policy"].split("; "))
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    assert directives["script-src"] == f"'sha256-{digest}'"
    assert len(SCRIPT) < 2_000
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_a_head_says_how_much_there_is_without_it(port: int) -> None:
    status, headers, body = asked(port, f"/{PLACE}/report.html", "HEAD")
    assert (status, body, headers["Content-Length"]) == (200, b"", str(len(REPORT)))


def test_odd_names_are_linked_and_arrive(port: int) -> None:
    status, _, body = asked(port, f"/{PLACE}/")
    link = f"/{PLACE}/tables/a%20%26%20b%231%3F.json"
    assert status == 200
    assert f'<a href="{link}">tables/a &amp; b#1?.json</a>' in body.decode()
    status, headers, body = asked(port, link)
    assert (status, headers["Content-Type"], body) == (200, "application/json", b"{}")


def test_the_first_page_lists_finished_runs_the_newest_first(local: LocalStore, port: int) -> None:
    newer, unfinished = "runs/evaluate/<b>-4567", "runs/evaluate/sample-89ab"
    for place in (newer, unfinished):
        local.write(f"{place}/report.html", REPORT)
    local.write(f"{newer}/index.json", b"{}")
    for place, seconds in ((PLACE, 1_767_323_045), (newer, 1_767_409_445)):
        os.utime(local.path(f"{place}/index.json"), (seconds, seconds))
    page = asked(port, "/")[2].decode()
    assert page.index("2026-01-03 03:04 UTC") < page.index("2026-01-02 03:04 UTC")
    assert '<a href="/runs/evaluate/%3Cb%3E-4567/report.html">&lt;b&gt;-4567</a>' in page
    assert page.index("&lt;b&gt;-4567") < page.index("sample-0123")
    assert "sample-89ab" not in page


def test_a_store_without_runs_says_so(tmp_path: Path) -> None:
    with served(LocalStore(tmp_path)) as port:
        status, _, body = asked(port, "/")
    assert status == 200
    assert b"No run is finished yet." in body


@pytest.mark.parametrize(
    "path",
    [
        "/runs/evaluate/none/report.html",
        "/runs/evaluate/none/",
        f"/{PLACE}",
        "/objects/secret/manifest.json",
        "/objects/",
        "/runs-of-others/report.html",
        "/../secret",
        "/runs/../objects/secret/manifest.json",
        "/runs/../../secret",
        "/runs/%2e%2e/%2e%2e/secret",
        "/runs/..%2f..%2fsecret",
        "/runs/..%5c..%5csecret",
        f"/{PLACE}/./report.html",
        f"/{PLACE}//report.html",
        f"/{PLACE}/report.html%00",
        f"/{PLACE}/report.html%0d%0aX-Odd:1",
        f"/{PLACE}/.partial-1",
        "/runs/%ff",
        f"/runs/{'a' * 5000}",
        "/etc/passwd",
        "http://127.0.0.1/etc/passwd",
        "*",
        "/refs/latest.json",
    ],
)
def test_what_is_no_file_of_a_run_is_not_found(port: int, path: str) -> None:
    status, headers, body = asked(port, path)
    assert (status, body) == (404, b"Not Found\n")
    assert headers["Content-Type"].startswith("text/plain")
    assert "X-Odd" not in headers


def test_a_link_that_leads_out_of_the_runs_is_not_followed(local: LocalStore, port: int) -> None:
    local.path(f"{PLACE}/linked").symlink_to(local.root.parent / "secret")
    local.path(f"{PLACE}/folder").symlink_to(local.root / "objects")
    local.path(f"{PLACE}/again.html").symlink_to(local.path(f"{PLACE}/report.html"))
    assert asked(port, f"/{PLACE}/linked")[0] == 404
    assert asked(port, f"/{PLACE}/folder/secret/manifest.json")[0] == 404
    assert asked(port, f"/{PLACE}/again.html")[2] == REPORT


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_writes_are_refused(local: LocalStore, port: int, method: str) -> None:
    before = local.list("")
    assert asked(port, f"/{PLACE}/report.html", method, **{"Content-Length": "0"})[0] == 501
    assert local.list("") == before
    assert local.read(f"{PLACE}/report.html") == REPORT


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1:1", 200), ("localhost", 200), ("evil.example", 421), ("evil.example:80", 421), ("", 421)],
)
def test_another_sites_name_for_this_machine_is_refused(port: int, host: str, status: int) -> None:
    assert asked(port, f"/{PLACE}/report.html", Host=host)[0] == status


def test_it_listens_on_this_machine_alone(local: LocalStore) -> None:
    with reports_server(local, 0) as server:
        assert server.server_address[0] == "127.0.0.1"


def test_it_answers_that_it_is_there_without_asking_the_store(tmp_path: Path) -> None:
    class Away(LocalStore):
        def list(self, prefix: str) -> list[str]:
            raise OSError("away")

    with served(Away(tmp_path)) as port:
        assert asked(port, "/health")[2] == HEALTHY
        assert asked(port, "/")[0] == 502


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("a/report.html", "text/html; charset=utf-8"),
        ("a/report.md", "text/markdown; charset=utf-8"),
        ("a/results.parquet", "application/vnd.apache.parquet"),
        ("a/plot.png", "image/png"),
        ("a/plot.SVG", "image/svg+xml"),
        ("a/dense.onnx", "application/octet-stream"),
        ("a/no-suffix", "application/octet-stream"),
    ],
)
def test_a_files_name_says_what_it_is(key: str, kind: str) -> None:
    assert content_type(key) == kind


def test_a_bucket_is_served_as_a_folder_is(s3_server: S3Server, use_settings: Callable[[dict[str, str]], None]) -> None:
    use_settings(s3_server.environment)
    store = fill(open_store(f"s3://{s3_server.bucket}/reports"))
    with served(store) as port:
        assert asked(port, f"/{PLACE}/report.html")[2] == REPORT
        assert b"sample-0123" in asked(port, "/")[2]
        assert asked(port, f"/{PLACE}/none")[0] == 404
        assert asked(port, "/objects/secret/manifest.json")[0] == 404
