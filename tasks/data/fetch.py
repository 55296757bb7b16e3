"""Getting COCO: downloads that resume, verified before they count, and unpacked without leaving their directory."""

import hashlib
import json
import stat
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from storage.errors import DownloadFailed, SpecError
from tasks.data.entries import is_safe_name

COCO_ADDRESS = "http://images.cocodataset.org"
MAX_UNPACKED_BYTES = 60_000_000_000  # train2017 has 19 GB

ATTEMPTS = 6  # without a single new byte; every byte that arrives starts the count again
_TIMEOUT_S = 60.0
_PIECE = 1 << 20

ReportBytes = Callable[[int, int], None]  # (bytes so far, bytes in all; 0 where the server does not say)


@dataclass(frozen=True)
class Archive:
    """A file of a data set: its path below the address, and what it must be. None is not checked."""

    path: str
    size: int | None = None
    md5: str | None = None
    sha256: str | None = None

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.rsplit("/", 1)[-1]


# COCO publishes no checksums. These sizes and MD5 digests are the ones on which many independent download scripts for
# the official files agree; every member's CRC-32 is checked besides.
COCO_FILES: Mapping[str, Archive] = {
    "annotations": Archive(
        "annotations/annotations_trainval2017.zip", 252_907_541, md5="f4bbac642086de4f52a3fdda2de5fa2c"
    ),
    "train2017": Archive("zips/train2017.zip", 19_336_861_798, md5="cced6f7f71b7629ddf16f17bbcfab6b2"),
    "val2017": Archive("zips/val2017.zip", 815_585_330, md5="442b8da7639aecaf257c1dceb8ba8c80"),
}


def download(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    md5: str | None = None,
    sha256: str | None = None,
    report: ReportBytes | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Download a file to `target`, where it appears only once it is complete and verified.

    What has come so far lies in `<target>.part`, and the next call (or attempt) asks for the rest. It is resumed only
    where the rest must belong to the same file: the server named a validator (ETag or date) and still has it, or a
    checksum is known. A target that is there and matches is left alone.

    Args:
        url: http or https.
        target: the file.
        size: bytes that it must have.
        md5: hexadecimal digest that it must have.
        sha256: likewise.
        report: called with bytes so far and in all.
        wait: sleeps between attempts.

    Raises:
        DownloadFailed: refused by the server, broken off too often, or not the file that was expected.
    """
    if not url.startswith(("http://", "https://")):
        raise DownloadFailed(f"{url}: expected an http or https address")
    if target.is_file() and _mismatch(target, size, md5, sha256) is None:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    failures = 0
    # The environment's proxies count; a server's compression does not, as it would make sizes and ranges meaningless.
    with httpx.Client(
        follow_redirects=True, timeout=_TIMEOUT_S, headers={"Accept-Encoding": "identity", "User-Agent": "telltale"}
    ) as client:
        while True:
            before = _size(part)
            try:
                _receive_rest(client, url, part, trusted=bool(md5 or sha256), report=report)
                break
            except _Unsteady as error:
                failures = 1 if _size(part) > before else failures + 1
                if failures >= ATTEMPTS:
                    raise DownloadFailed(
                        f"{url} broke off {failures} times without a new byte ({error}); {_size(part)} bytes are kept "
                        "in the .part file, start again to go on"
                    ) from error
                wait(min(60.0, 2.0**failures))
    problem = _mismatch(part, size, md5, sha256)
    if problem is not None:
        _discard(part)
        raise DownloadFailed(f"{url} is not the expected file: {problem}; removed")
    part.replace(target)
    _validator_file(part).unlink(missing_ok=True)


def unpack_zip(
    archive: Path,
    directory: Path,
    *,
    max_bytes: int = MAX_UNPACKED_BYTES,
    wanted: Callable[[str], bool] = lambda name: True,
    report: ReportBytes | None = None,
) -> list[str]:
    """Unpack a ZIP archive below a directory; returns the names of the files that are wanted, sorted.

    Files that are there with the right size and CRC-32 are kept. The archive is refused as a whole, before a file is
    written, where a name leaves the directory, a member is a link, or the declared sizes exceed `max_bytes` (and no
    member can exceed its declared size).

    Raises:
        DownloadFailed: such an archive, one that is no ZIP or encrypted, or a member whose CRC-32 is wrong.
    """
    try:
        with zipfile.ZipFile(archive) as packed:
            members = [member for member in packed.infolist() if not member.is_dir() and wanted(member.filename)]
            for member in members:
                _refuse_unsafe(archive, directory, member)
            total = sum(member.file_size for member in members)
            if total > max_bytes:
                raise DownloadFailed(f"{archive.name} would unpack to {total} bytes, more than the {max_bytes} allowed")
            done = 0
            for member in members:
                _unpack_member(packed, member, directory / member.filename)
                done += member.file_size
                if report is not None:
                    report(done, total)
    # RuntimeError is how zipfile says "encrypted", NotImplementedError "unknown compression".
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise DownloadFailed(f"{archive.name} cannot be unpacked: {error}") from error
    return sorted(member.filename for member in members)


def fetch_coco(
    directory: Path,
    splits: Sequence[str],
    address: str = COCO_ADDRESS,
    *,
    files: Mapping[str, Archive] = COCO_FILES,
    report: Callable[[str, int, int], None] | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> list[str]:
    """Download, verify and unpack COCO's annotations and the named splits; returns what had to be fetched.

    An archive is removed once it is unpacked, and `downloads/<archive>.json` then lists its files and their sizes: a
    later call fetches only archives of which a file is missing or of another size.

    Args:
        directory: gets `annotations/` and `<split>/`, the official layout.
        splits: such as `("train2017", "val2017")`.
        address: the official server or a mirror with the same paths.
        files: the archives by split, and `annotations`.
        report: called with the archive's name, bytes so far and in all; once for the download, once for unpacking.
        wait: sleeps between attempts.

    Raises:
        SpecError: an unknown split.
        DownloadFailed: see `download` and `unpack_zip`.
    """
    unknown = sorted(set(splits) - set(files))
    if unknown or "annotations" in splits:
        known = sorted(set(files) - {"annotations"})
        raise SpecError(f"COCO splits: expected some of {known}, got {list(splits)}")
    fetched = []
    for key in ("annotations", *splits):
        archive = files[key]
        record = directory / "downloads" / f"{archive.name}.json"
        if _is_unpacked(record, directory):
            continue

        def report_archive(done: int, total: int, name: str = archive.name) -> None:
            if report is not None:
                report(name, done, total)

        packed = directory / "downloads" / archive.name
        download(
            f"{address.rstrip('/')}/{archive.path}",
            packed,
            size=archive.size,
            md5=archive.md5,
            sha256=archive.sha256,
            report=report_archive,
            wait=wait,
        )
        names = unpack_zip(packed, directory, wanted=_belongs_to_layout, report=report_archive)
        _write_whole(record, json.dumps({name: (directory / name).stat().st_size for name in names}).encode())
        packed.unlink()
        fetched.append(archive.name)
    return fetched


class _Unsteady(Exception):
    """A failure that another attempt may not meet."""


def _receive_rest(client: httpx.Client, url: str, part: Path, *, trusted: bool, report: ReportBytes | None) -> None:
    """Append what `part` lacks to it, or start it over where it cannot be resumed."""
    validator = _read_validator(part)
    if _size(part) and not (validator or trusted):
        _discard(part)
    offset = _size(part)
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    if offset and validator:
        headers["If-Range"] = validator  # another file by now: the server then sends all of it
    try:
        with client.stream("GET", url, headers=headers) as response:
            if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                if _total_of(response) == offset:
                    return  # nothing is missing
                _discard(part)
                raise _Unsteady("the server has a shorter file than what has come so far")
            if response.status_code in (408, 429) or response.status_code >= 500:
                raise _Unsteady(f"status {response.status_code}")
            if response.status_code not in (200, 206):
                raise DownloadFailed(f"{url}: the server answers with status {response.status_code}")
            if response.status_code == 200:
                offset = 0  # ranges are ignored, or the file has changed
            elif _start_of(response) != offset:
                _discard(part)
                raise _Unsteady("the server sent another range than was asked for")
            total = _total_of(response) or 0
            with part.open("ab" if offset else "wb") as file:
                _write_validator(part, response)  # once the bytes of another file are gone
                # In the pieces that arrive: httpx would lose a larger one that it is collecting when the line breaks.
                for piece in response.iter_raw():
                    file.write(piece)
                    offset += len(piece)
                    if report is not None:
                        report(offset, total)
            if total and offset != total:
                raise _Unsteady(f"got {offset} of {total} bytes")
    except httpx.TransportError as error:
        raise _Unsteady(str(error) or type(error).__name__) from error
    except (httpx.InvalidURL, httpx.TooManyRedirects) as error:
        raise DownloadFailed(f"{url}: {error}") from error


def _start_of(response: httpx.Response) -> int | None:
    start = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return int(start) if start.isdigit() else None


def _total_of(response: httpx.Response) -> int | None:
    """The whole file's size, from `Content-Range: bytes 5-9/10` or the length of a whole answer."""
    total = response.headers.get("Content-Range", "").rpartition("/")[2]
    if not total and response.status_code == 200:
        total = response.headers.get("Content-Length", "")
    return int(total) if total.isdigit() else None


def _validator_file(part: Path) -> Path:
    return part.with_name(part.name + ".validator")


def _read_validator(part: Path) -> str:
    try:
        return _validator_file(part).read_text(encoding="ascii")
    except FileNotFoundError:
        return ""


def _write_validator(part: Path, response: httpx.Response) -> None:
    tag = response.headers.get("ETag", "")
    # A weak tag promises equal meaning, not equal bytes (RFC 9110, section 8.8.1).
    validator = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")
    if validator.isascii():
        _validator_file(part).write_text(validator, encoding="ascii")


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _validator_file(part).unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _mismatch(path: Path, size: int | None, md5: str | None, sha256: str | None) -> str | None:
    """What about a file is not as it should be, or None."""
    if size is not None and _size(path) != size:
        return f"expected {size} bytes, got {_size(path)}"
    for algorithm, expected in (("md5", md5), ("sha256", sha256)):
        if expected is None:
            continue
        with path.open("rb") as file:
            got = hashlib.file_digest(file, algorithm).hexdigest()
        if got != expected.lower():
            return f"expected {algorithm} {expected}, got {got}"
    return None


def _refuse_unsafe(archive: Path, directory: Path, member: zipfile.ZipInfo) -> None:
    inside = is_safe_name(member.filename) and (directory / member.filename).resolve().is_relative_to(
        directory.resolve()
    )
    if not inside:
        raise DownloadFailed(f"{archive.name} holds the unsafe name {member.filename!r}; nothing was unpacked")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise DownloadFailed(f"{archive.name} holds {member.filename!r}, which is no plain file; nothing was unpacked")


def _unpack_member(packed: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    if target.is_file() and target.stat().st_size == member.file_size and _crc32(target) == member.CRC:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    try:
        with packed.open(member) as source, part.open("wb") as file:
            while piece := source.read(_PIECE):
                file.write(piece)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _crc32(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            value = zlib.crc32(piece, value)
    return value


def _belongs_to_layout(name: str) -> bool:
    """Everything but annotations that nothing here reads, such as key points."""
    return not name.startswith("annotations/") or name.startswith(("annotations/captions_", "annotations/instances_"))


def _is_unpacked(record: Path, directory: Path) -> bool:
    """Whether a record is there and everything that it lists."""
    listed: Any = None
    with suppress(FileNotFoundError, ValueError):
        listed = json.loads(record.read_text(encoding="utf-8"))
    if not isinstance(listed, dict):
        return False
    return all(is_safe_name(name) and _size(directory / name) == size for name, size in listed.items())


def _write_whole(path: Path, data: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    part.replace(path)
