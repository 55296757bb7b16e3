"""A store in a bucket: S3 and servers that speak its protocol, through s3fs.

s3fs opens the connection; the requests are S3's own, because its file-system calls hide what decides here: which
error the server gave (a missing bucket, a missing key and a lost race look alike), how often a request was tried, and
whether it was tried at all (`docs/decisions/0009-s3-by-its-own-requests.md`).

Every object carries two facts as metadata: the SHA-256 of its bytes, which a reader checks, and a random name of the
write that made it, by which a writer whose answer was lost learns whether it has won.
"""

import itertools
import logging
import os
import random
import re
import time
import uuid
from collections.abc import Iterator
from typing import Any, NoReturn

from storage.credentials import BLOCK_SETTING
from storage.digest import sha256_hex
from storage.errors import (
    DamagedObject,
    ObjectExists,
    ObjectMissing,
    SpecError,
    StoreError,
    StoreNotWritable,
    StoreRefused,
    StoreUnreachable,
)
from storage.s3_requests import (
    DENIALS,
    ELSEWHERE,
    FULL,
    REFUSALS,
    UNKNOWN_CONDITION,
    Connection,
    RequestFailed,
    checked_body,
    connect,
    failure,
    send,
)
from storage.store import LONGEST_KEY, STORE_SETTING, Listed, checked_key, is_known

logger = logging.getLogger(__name__)

# How long a store that has answered before is asked again while it fails, is busy, or is away.
PATIENCE_S = 120.0
# How long one that has never answered, here or elsewhere, is asked: a wrong address is to be told at once.
FIRST_PATIENCE_S = 5.0
LONGEST_WAIT_S = 5.0
# Larger objects are sent in parts of this size, so that a broken connection costs one part.
PART_BYTES = 16 * 2**20
# A key has at most 1024 bytes in all.
LONGEST_PREFIX = 1024 - LONGEST_KEY - 1
READ_TRIES = 5


def _bucket_and_prefix(url: str) -> tuple[str, str]:
    """The two parts of an address, both as they stand there: `%20` is three characters of a key.

    Raises:
        SpecError: it has not this form. It is not repeated in the message: it may hold a password.
    """
    expected = "an object store's address is s3://bucket/prefix"
    scheme, separator, rest = url.partition("://")
    bucket, _, prefix = rest.partition("/")
    if scheme.lower() != "s3" or not separator or not bucket:
        raise SpecError(expected)
    if "@" in bucket or ":" in bucket:
        raise SpecError(
            f"{expected}: neither credentials nor a server are part of it (set AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL)"
        )
    if set("?#") & set(rest):
        raise SpecError(f"{expected}, with neither ? nor #: there they would begin a query or a fragment, not a key")
    if not re.fullmatch(r"[A-Za-z0-9._-]{3,255}", bucket):
        raise SpecError(f"{expected}: a bucket's name has 3 or more letters, digits, dots and hyphens, and no others")
    if not prefix:
        return bucket, ""
    prefix = prefix.removesuffix("/")
    if len(prefix.encode("utf-8", "surrogatepass")) > LONGEST_PREFIX:
        raise SpecError(f"{expected}, with a prefix of at most {LONGEST_PREFIX} bytes")
    try:
        unchanged = checked_key(prefix) == prefix
    except SpecError:
        unchanged = False
    if not unchanged:
        raise SpecError(
            f"{expected}: a prefix holds names parted by single slashes, without . and .., backslashes and characters "
            "that cannot be printed"
        )
    return bucket, prefix


class ObjectStore:
    """A store in a bucket. Puts are atomic by nature; create-only is `If-None-Match: *`.

    Args:
        url: `s3://bucket/prefix`.
        patience: seconds for which a store that fails or is busy is asked again. What cannot pass (credentials, a
            missing bucket) is an error at once, and so is, after five seconds, a store that has never answered, unless
            it is a `known_store`.
    """

    def __init__(self, url: str, patience: float = PATIENCE_S) -> None:
        self._bucket, prefix = _bucket_and_prefix(url)
        self._prefix = f"{prefix}/" if prefix else ""
        self._patience = patience

    @property
    def url(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def read(self, key: str) -> bytes:
        wrong = None
        for _ in range(READ_TRIES):
            try:
                answer = self._request("get_object", Key=self._name(key))
            except RequestFailed as failed:
                self._explain(failed, "read", key)
            data: bytes = answer["Body"]
            expected = answer["Metadata"].get("sha256")
            if expected is None or sha256_hex(data) == expected:
                return data
            # Twice the same wrong bytes: so they are stored. Otherwise the way here altered them.
            if data == wrong:
                break
            wrong = data
        raise DamagedObject(f"{key} in {self.url} does not have the bytes that were written")

    def write(self, key: str, data: bytes) -> None:
        self._put(key, data, {})

    def create(self, key: str, data: bytes) -> None:
        if self.is_exclusive():
            self._put(key, data, {"IfNoneMatch": "*"})
        elif self.size(key) is None:
            self._put(key, data, {})
        else:
            raise ObjectExists(f"{key} exists in {self.url}")

    def size(self, key: str) -> int | None:
        head = self._head(key)
        return None if head is None else int(head["ContentLength"])

    def scan(self, prefix: str) -> Iterator[Listed]:
        more: dict[str, str] = {}
        start = f"{self._name(prefix)}/" if prefix else self._prefix
        while True:
            try:
                page = self._request("list_objects_v2", Prefix=start, **more)
            except RequestFailed as failed:
                self._explain(failed, "list", prefix)
            for entry in page.get("Contents", ()):
                # A key that ends in a slash is some tool's marker of a folder, and no object of ours.
                if not entry["Key"].endswith("/"):
                    key = entry["Key"].removeprefix(self._prefix)
                    yield Listed(key, int(entry["Size"]), entry["ETag"])
            if not page.get("IsTruncated"):
                return
            if page.get("NextContinuationToken") in (None, more.get("ContinuationToken")):
                raise StoreError(f"{self.url} gives no end of its listing of {prefix!r}")
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def list(self, prefix: str) -> list[str]:
        return sorted(listed.key for listed in self.scan(prefix))

    def delete(self, key: str) -> None:
        try:
            self._request("delete_object", Key=self._name(key))
        except RequestFailed as failed:
            if failed.code != "NoSuchKey":
                self._explain(failed, "delete", key)

    def modified(self, key: str) -> float:
        head = self._head(key)
        if head is None:
            raise ObjectMissing(f"nothing under {key} in {self.url}")
        return float(head["LastModified"].timestamp())

    def is_exclusive(self) -> bool:
        """Whether the server honours `If-None-Match: *`; asked once per process with a probe object."""
        exclusive = _exclusive.get((os.getpid(), self.url))
        if exclusive is None:
            exclusive = _exclusive[os.getpid(), self.url] = self._probe()
            if not exclusive:
                logger.warning(
                    "%s (%s) does not honour If-None-Match: an object is safe with one worker only",
                    self.url,
                    self._connection.endpoint,
                )
        return exclusive

    def _probe(self) -> bool:
        key = f"probe/{uuid.uuid4().hex}"
        body = checked_body(b"telltale")
        reached = False
        try:
            for _ in range(2):
                self._request("put_object", Key=self._name(key), IfNoneMatch="*", **body)
                reached = True
        except RequestFailed as failed:
            if failed.code in UNKNOWN_CONDITION:
                return False
            if failed.status != 412:
                self._explain(failed, "write", key)
            reached = True
            return True
        finally:
            # Not after a refusal: its error is the one to tell, at once.
            if reached:
                self.delete(key)
        return False

    def _name(self, key: str) -> str:
        return self._prefix + checked_key(key)

    def _head(self, key: str) -> dict[str, Any] | None:
        try:
            return self._request("head_object", Key=self._name(key))
        except RequestFailed as failed:
            if failed.status == 404:
                return None
            self._explain(failed, "read", key)

    def _put(self, key: str, data: bytes, condition: dict[str, str]) -> None:
        write = uuid.uuid4().hex
        metadata = {"sha256": sha256_hex(data), "write": write}
        try:
            if len(data) <= PART_BYTES:
                body = checked_body(data)
                self._request("put_object", Key=self._name(key), Metadata=metadata, **body, **condition)
            else:
                self._put_in_parts(key, data, metadata, condition)
        except RequestFailed as failed:
            # A request whose answer got lost was perhaps obeyed, and its repetition then failed on its own success.
            if failed.status in (404, 412) and self._made_by(key) == write:
                return
            if failed.status == 412:
                raise ObjectExists(f"{key} exists in {self.url}") from None
            self._explain(failed, "write", key)

    def _put_in_parts(self, key: str, data: bytes, metadata: dict[str, str], condition: dict[str, str]) -> None:
        upload = self._request("create_multipart_upload", Key=self._name(key), Metadata=metadata)
        target = {"Key": self._name(key), "UploadId": upload["UploadId"]}
        try:
            parts = []
            for number, start in enumerate(range(0, len(data), PART_BYTES), start=1):
                body = checked_body(data[start : start + PART_BYTES])
                sent = self._request("upload_part", PartNumber=number, **target, **body)
                parts.append({"PartNumber": number, "ETag": sent["ETag"]})
            self._request("complete_multipart_upload", MultipartUpload={"Parts": parts}, **target, **condition)
        except RequestFailed:
            self._abandon(target)
            raise

    def _abandon(self, target: dict[str, str]) -> None:
        try:
            self._request("abort_multipart_upload", **target)
        except RequestFailed as failed:
            # Its parts are no object and cost space only; a bucket's lifecycle rule removes them.
            logger.warning("%s: an unfinished upload stays behind (%s)", self.url, failed.code)

    def _made_by(self, key: str) -> str | None:
        head = self._head(key)
        return None if head is None else head["Metadata"].get("write")

    @property
    def _connection(self) -> Connection:
        settings = tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_")))
        return connect(os.getpid(), settings, os.environ.get(BLOCK_SETTING))

    def _request(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Send a request until it succeeds, cannot, or patience ends; `RequestFailed` tells which.

        A busy or failing server, a broken connection and bytes that arrived otherwise than they were sent may pass.
        """
        from fsspec.asyn import sync

        connection = self._connection
        began = time.monotonic()
        for attempt in itertools.count():
            try:
                answer: dict[str, Any] = sync(
                    connection.files.loop, send, connection.files, method, {"Bucket": self._bucket, **arguments}
                )
            except Exception as error:
                failed = failure(error)
                connection.answered |= failed.status > 0
                expected = connection.answered or is_known()
                patience = self._patience if expected else min(self._patience, FIRST_PATIENCE_S)
                # Spread, so that workers that were turned away together do not come back together.
                wait = min(0.1 * 2**attempt, LONGEST_WAIT_S) * random.uniform(0.5, 1.0)
                if not failed.may_pass or time.monotonic() + wait - began > patience:
                    # The library's own error may quote credentials, and would be logged as the cause.
                    raise failed from None
                time.sleep(wait)
            else:
                connection.answered = True
                return answer
        raise AssertionError("unreachable")

    def _explain(self, failed: RequestFailed, action: str, key: str) -> NoReturn:
        """Raise what a failed request means, with the remedy."""
        code = failed.code if failed.code == str(failed.status) else f"{failed.code} {failed.status or ''}".rstrip()
        where = f"{self.url} at {self._connection.endpoint}"
        error: StoreError
        if failed.code == "NoSuchBucket":
            error = StoreRefused(f"{where}: there is no bucket {self._bucket!r}: create it, or correct TELLTALE_STORE")
        elif failed.status == 404 and action == "list":
            # A folder without objects is an empty listing: only what is no bucket cannot be found.
            error = StoreRefused(f"{where} is no bucket ({code}): check {STORE_SETTING} and AWS_ENDPOINT_URL")
        elif failed.status == 404:
            error = ObjectMissing(f"nothing under {key} in {self.url}")
        elif failed.code in REFUSALS:
            error = StoreRefused(
                f"{where} does not accept the credentials ({code}): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY,"
                f" AWS_PROFILE for the AWS files, or {BLOCK_SETTING} for a Prefect block"
            )
        elif failed.code in DENIALS:
            kind = StoreNotWritable if action in ("write", "delete") else StoreRefused
            error = kind(f"{where}: these credentials are wrong or have no right to {action} {key or 'it'} ({code})")
        elif failed.code in ELSEWHERE:
            error = StoreRefused(f"{where}: the bucket is in another region ({code}): set AWS_DEFAULT_REGION")
        elif failed.code in FULL:
            error = StoreNotWritable(f"{where} is full ({code})")
        elif failed.status == 0 and not failed.may_pass:
            error = StoreRefused(
                f"{where} cannot be asked ({code}): check {STORE_SETTING}, AWS_ENDPOINT_URL and AWS_DEFAULT_REGION"
            )
        elif failed.status == 0:
            error = StoreUnreachable(f"{where} does not answer ({code}): check AWS_ENDPOINT_URL and the network")
        elif failed.may_pass:
            error = StoreError(f"{where} did not {action} {key or 'it'} within {self._patience:.0f} s ({code})")
        else:
            error = StoreError(f"{where} did not {action} {key or 'it'} ({code})")
        raise error from None


_exclusive: dict[tuple[int, str], bool] = {}
