"""Downloads resume and are verified; archives are unpacked only inside their directory. Against a real local server."""

import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from storage.errors import DownloadFailed, SpecError
from tasks.data.coco import check_coco
from tasks.data.fetch import ATTEMPTS, COCO_FILES, Archive, download, fetch_coco, unpack_zip

CONTENT = bytes(range(256)) * 2000


class Server(ThreadingHTTPServer):
    """Serves `files`; can break off after some bytes, ignore ranges, answer with errors, or change a file."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.break_after: list[int] = []  # one answer each: so many bytes, then the connection is closed
        self.statuses: list[int] = []  # one answer each, before anything else
        self.ignore_ranges = False
        self.validators = True
        self.requests: list[tuple[str, str | None]] = []  # path and Range header

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.requests.append((self.path, asked))
        if self.server.statuses:
            self._end(self.server.statuses.pop(0))
            return
        if self.path not in self.server.files:
            self._end(404)
            return
        content = self.server.files[self.path]
        tag = f'"{hashlib.sha256(content).hexdigest()}"'
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and not self.server.ignore_ranges else 0
        if self.headers.get("If-Range", tag) != tag:
            start = 0
        if start and start >= len(content):
            self._end(416, {"Content-Range": f"bytes */{len(content)}"})
            return
        headers = {"Content-Length": str(len(content) - start)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if self.server.validators:
            headers["ETag"] = tag
        body = content[start:]
        if self.server.break_after:
            body = body[: self.server.break_after.pop(0)]
        self._end(206 if start else 200, headers, body)
        if len(body) < len(content) - start:
            self.close_connection = True

    def _end(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in (headers or {"Content-Length": "0"}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


class Waits(list[float]):
    """Remembers how long it was to wait, and does not."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def left_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_download_is_complete_and_leaves_nothing_beside_it(server: Server, tmp_path: Path) -> None:
    server.files["/a"] = CONTENT
    reports: list[tuple[int, int]] = []
    download(
        f"{server.address}/a",
        tmp_path / "new" / "a",
        size=len(CONTENT),
        md5=hashlib.md5(CONTENT).hexdigest(),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        report=lambda done, total: reports.append((done, total)),
    )
    assert (tmp_path / "new" / "a").read_bytes() == CONTENT
    assert left_in(tmp_path / "new") == ["a"]
    assert reports[-1] == (len(CONTENT), len(CONTENT))


def test_a_download_that_breaks_off_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    server.files["/a"] = CONTENT
    server.break_after = [1000, 50_000]
    waits = Waits()
    download(f"{server.address}/a", tmp_path / "a", wait=waits)
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert server.requests == [("/a", None), ("/a", "bytes=1000-"), ("/a", "bytes=51000-")]
    assert waits == [2.0, 2.0]


def test_what_has_come_is_kept_for_the_next_call(server: Server, tmp_path: Path) -> None:
    server.files["/a"] = CONTENT
    server.break_after = [1000] + [0] * ATTEMPTS
    with pytest.raises(DownloadFailed, match="1000 bytes are kept"):
        download(f"{server.address}/a", tmp_path / "a", wait=Waits())
    assert not (tmp_path / "a").exists()
    server.requests.clear()
    server.break_after = []
    download(f"{server.address}/a", tmp_path / "a")
    assert server.requests == [("/a", "bytes=1000-")]
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_a_server_that_ignores_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    server.files["/a"] = CONTENT
    server.ignore_ranges = True
    server.break_after = [1000]
    download(f"{server.address}/a", tmp_path / "a", wait=Waits())
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_a_file_that_changed_in_between_is_not_patched_together(server: Server, tmp_path: Path) -> None:
    server.files["/a"] = CONTENT
    server.break_after = [1000] + [0] * ATTEMPTS
    with pytest.raises(DownloadFailed):
        download(f"{server.address}/a", tmp_path / "a", wait=Waits())
    server.files["/a"] = CONTENT[::-1]
    server.break_after = []
    download(f"{server.address}/a", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT[::-1]


def test_without_validator_and_checksum_nothing_is_resumed(server: Server, tmp_path: Path) -> None:
    server.files["/a"] = CONTENT
    server.validators = False
    server.break_after = [1000]
    download(f"{server.address}/a", tmp_path / "a", wait=Waits())
    assert server.requests == [("/a", None), ("/a", None)]
    assert (tmp_path / "a").read_bytes() == CONTENT
    server.requests.clear()
    server.break_after = [1000]
    download(f"{server.address}/a", tmp_path / "b", md5=hashlib.md5(CONTENT).hexdigest(), wait=Waits())
    assert server.requests == [("/a", None), ("/a", "bytes=1000-")]


def test_a_part_that_is_complete_already_is_only_verified(server: Server, tmp_path: Path) -> None:
    server.files["/a"] = CONTENT
    (tmp_path / "a.part").write_bytes(CONTENT)
    download(f"{server.address}/a", tmp_path / "a", md5=hashlib.md5(CONTENT).hexdigest())
    assert server.requests == [("/a", f"bytes={len(CONTENT)}-")]
    assert left_in(tmp_path) == ["a"]


def test_a_part_that_is_longer_than_the_file_starts_over(server: Server, tmp_path: Path) -> None:
    server.files["/a"] = CONTENT
    (tmp_path / "a.part").write_bytes(CONTENT + b"more")
    download(f"{server.address}/a", tmp_path / "a", md5=hashlib.md5(CONTENT).hexdigest(), wait=Waits())
    assert (tmp_path / "a").read_bytes() == CONTENT


@pytest.mark.parametrize("altered", [CONTENT[:-1] + b"x", CONTENT + b"x", CONTENT[:-1]])
def test_altered_content_is_refused_and_removed(server: Server, tmp_path: Path, altered: bytes) -> None:
    server.files["/a"] = altered
    expected = {"md5": hashlib.md5(CONTENT).hexdigest(), "sha256": hashlib.sha256(CONTENT).hexdigest()}
    for name, digest in expected.items():
        with pytest.raises(DownloadFailed, match=f"expected {name} {digest}, got"):
            download(f"{server.address}/a", tmp_path / "a", **{name: digest})  # type: ignore[arg-type]
        assert left_in(tmp_path) == []
    if len(altered) != len(CONTENT):
        with pytest.raises(DownloadFailed, match=f"expected {len(CONTENT)} bytes, got {len(altered)}"):
            download(f"{server.address}/a", tmp_path / "a", size=len(CONTENT))
        assert left_in(tmp_path) == []


def test_a_part_of_another_file_is_found_out_by_the_checksum(server: Server, tmp_path: Path) -> None:
    server.files["/a"] = CONTENT
    (tmp_path / "a.part").write_bytes(b"something else")
    with pytest.raises(DownloadFailed, match="expected md5"):
        download(f"{server.address}/a", tmp_path / "a", md5=hashlib.md5(CONTENT).hexdigest())
    download(f"{server.address}/a", tmp_path / "a", md5=hashlib.md5(CONTENT).hexdigest())


def test_a_target_that_matches_is_left_alone_and_another_one_replaced(server: Server, tmp_path: Path) -> None:
    server.files["/a"] = CONTENT
    digest = hashlib.sha256(CONTENT).hexdigest()
    (tmp_path / "a").write_bytes(b"old")
    for _ in range(2):
        download(f"{server.address}/a", tmp_path / "a", sha256=digest)
        assert (tmp_path / "a").read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_a_busy_server_is_asked_again_and_a_refusal_is_final(server: Server, tmp_path: Path) -> None:
    server.files["/a"] = CONTENT
    server.statuses = [503, 429, 500]
    waits = Waits()
    download(f"{server.address}/a", tmp_path / "a", wait=waits)
    assert waits == [2.0, 4.0, 8.0]
    with pytest.raises(DownloadFailed, match="status 404"):
        download(f"{server.address}/none", tmp_path / "b", wait=Waits())
    with pytest.raises(DownloadFailed, match="expected an http or https address"):
        download("file:///etc/passwd", tmp_path / "b")


def test_a_server_that_is_not_there_fails_with_one_sentence(server: Server, tmp_path: Path) -> None:
    waits = Waits()
    server.statuses = [503] * ATTEMPTS
    with pytest.raises(DownloadFailed, match=f"broke off {ATTEMPTS} times without a new byte"):
        download(f"{server.address}/a", tmp_path / "a", wait=waits)
    assert len(waits) == ATTEMPTS - 1


def zipped(files: dict[str, bytes], **attributes: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            member = zipfile.ZipInfo(name)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = attributes.get("external_attr", 0)
            archive.writestr(member, data)
    return buffer.getvalue()


def test_an_archive_is_unpacked_and_whole_files_are_kept(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    files = {"val/b.jpg": b"bb", "val/a.jpg": b"aaa", "val/d.jpg": b"d", "val/": b"", "other/c.txt": b"c"}
    archive.write_bytes(zipped(files))
    (tmp_path / "out" / "val").mkdir(parents=True)
    (tmp_path / "out" / "val" / "a.jpg").write_bytes(b"AAA")
    (tmp_path / "out" / "val" / "b.jpg").write_bytes(b"b")
    (tmp_path / "out" / "val" / "d.jpg").write_bytes(b"d")
    kept = (tmp_path / "out" / "val" / "d.jpg").stat().st_ino
    names = unpack_zip(archive, tmp_path / "out", wanted=lambda name: name.startswith("val/"))
    assert names == ["val/a.jpg", "val/b.jpg", "val/d.jpg"]
    # Of the right size, and other bytes: a disk that lied, or another picture of that name.
    assert (tmp_path / "out" / "val" / "a.jpg").read_bytes() == b"aaa"
    assert (tmp_path / "out" / "val" / "b.jpg").read_bytes() == b"bb"
    assert (tmp_path / "out" / "val" / "d.jpg").stat().st_ino == kept
    assert left_in(tmp_path / "out") == ["val"]


@pytest.mark.parametrize("name", ["../up.txt", "/tmp/absolute.txt", "a/../../up.txt", "..\\up.txt"])
def test_a_name_that_leaves_the_directory_unpacks_nothing(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(zipped({"good.txt": b"x", name: b"x"}))
    with pytest.raises(DownloadFailed, match="unsafe name"):
        unpack_zip(archive, tmp_path / "out")
    assert left_in(tmp_path) == ["a.zip"]


def test_links_and_other_special_files_unpack_nothing(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    for mode in (0o120777, 0o010644, 0o020644):
        archive.write_bytes(zipped({"link": b"/etc/passwd"}, external_attr=mode << 16))
        with pytest.raises(DownloadFailed, match="no plain file"):
            unpack_zip(archive, tmp_path / "out")
    archive.write_bytes(zipped({"plain": b"x"}, external_attr=0o100644 << 16))
    assert unpack_zip(archive, tmp_path / "out") == ["plain"]


def test_a_link_that_lies_there_already_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "val").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "a.zip").write_bytes(zipped({"val/a.jpg": b"a"}))
    with pytest.raises(DownloadFailed, match="unsafe name"):
        unpack_zip(tmp_path / "a.zip", tmp_path / "out")
    assert left_in(tmp_path / "elsewhere") == []


def test_an_archive_that_is_too_large_is_refused_by_its_declared_size(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped({"zeros": bytes(2_000_000)}))
    with pytest.raises(DownloadFailed, match="would unpack to 2000000 bytes, more than the 1000000 allowed"):
        unpack_zip(tmp_path / "a.zip", tmp_path / "out", max_bytes=1_000_000)
    assert not (tmp_path / "out").exists()


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    whole = zipped({"a.bin": bytes(range(256)) * 40})
    for damaged in (b"no zip", whole[: len(whole) // 2], whole.replace(whole[60:70], bytes(10), 1)):
        (tmp_path / "a.zip").write_bytes(damaged)
        with pytest.raises(DownloadFailed, match=r"a\.zip cannot be unpacked"):
            unpack_zip(tmp_path / "a.zip", tmp_path / "out")
        assert not list(tmp_path.glob("out/*"))


@pytest.fixture
def small_coco(server: Server) -> dict[str, Archive]:
    """COCO's archives in small, on the server."""
    captions = json.dumps({"images": [], "annotations": []}).encode()
    archives = {
        "annotations": zipped(
            {
                "annotations/captions_val2017.json": captions,
                "annotations/instances_val2017.json": captions,
                "annotations/person_keypoints_val2017.json": captions,
            }
        ),
        "val2017": zipped({f"val2017/{n:012d}.jpg": b"picture %d" % n for n in range(5)}),
    }
    files = {}
    for key, content in archives.items():
        path = COCO_FILES[key].path
        server.files[f"/{path}"] = content
        files[key] = Archive(path, len(content), md5=hashlib.md5(content).hexdigest())
    return files


def test_coco_is_fetched_into_the_official_layout_once(
    server: Server, tmp_path: Path, small_coco: dict[str, Archive]
) -> None:
    reports: list[tuple[str, int, int]] = []

    def fetched() -> list[str]:
        return fetch_coco(
            tmp_path, ["val2017"], server.address + "/", files=small_coco, report=lambda *report: reports.append(report)
        )

    assert fetched() == ["annotations_trainval2017.zip", "val2017.zip"]
    assert check_coco(str(tmp_path), "val2017") == []
    assert left_in(tmp_path / "annotations") == ["captions_val2017.json", "instances_val2017.json"]
    assert left_in(tmp_path / "downloads") == ["annotations_trainval2017.zip.json", "val2017.zip.json"]
    assert {name for name, _, _ in reports} == {"annotations_trainval2017.zip", "val2017.zip"}
    server.requests.clear()
    assert fetched() == []
    assert server.requests == []
    (tmp_path / "val2017" / "000000000003.jpg").unlink()
    assert fetched() == ["val2017.zip"]
    assert (tmp_path / "val2017" / "000000000003.jpg").read_bytes() == b"picture 3"


def test_fetching_coco_goes_on_after_a_broken_connection(
    server: Server, tmp_path: Path, small_coco: dict[str, Archive]
) -> None:
    server.break_after = [40, 100]
    assert len(fetch_coco(tmp_path, ["val2017"], server.address, files=small_coco, wait=Waits())) == 2
    assert check_coco(str(tmp_path), "val2017") == []


def test_a_mirror_with_other_content_is_refused(server: Server, tmp_path: Path, small_coco: dict[str, Archive]) -> None:
    server.files["/zips/val2017.zip"] = zipped({"val2017/000000000001.jpg": b"other"})
    with pytest.raises(DownloadFailed, match="is not the expected file"):
        fetch_coco(tmp_path, ["val2017"], server.address, files=small_coco)
    assert not (tmp_path / "val2017").exists()


def test_an_unknown_split_is_refused_before_any_request(tmp_path: Path) -> None:
    for splits in (["val2014"], ["annotations"]):
        with pytest.raises(SpecError, match=r"expected some of \['train2017', 'val2017'\]"):
            fetch_coco(tmp_path, splits)


def test_every_official_archive_has_a_size_and_a_checksum() -> None:
    for archive in COCO_FILES.values():
        assert archive.size is not None
        assert archive.md5 is not None
        assert len(archive.md5) == 32
