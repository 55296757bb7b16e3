"""Requests to S3 and servers that speak its protocol: the connection, one request, and what its failure says."""

import base64
import functools
import hashlib
import os
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from storage.credentials import BLOCK_SETTING, Credentials, named_credentials
from storage.errors import StoreRefused

CONNECT_TIMEOUT_S = 4
READ_TIMEOUT_S = 30
CREDENTIAL_SETTINGS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")

REFUSALS = {
    "ExpiredToken", "InvalidAccessKeyId", "InvalidClientTokenId", "InvalidToken", "RequestTimeTooSkewed",
    "SignatureDoesNotMatch", "TokenRefreshRequired", "UnrecognizedClientException", "401", "AuthFailure",
    # botocore's own, before any request.
    "CredentialRetrievalError", "NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "SSOError",
    "SSOTokenLoadError", "TokenRetrievalError", "UnauthorizedSSOTokenError",
}  # fmt: skip
DENIALS = {"AccessDenied", "AllAccessDisabled", "AccountProblem", "403"}
ELSEWHERE = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301", "307"}
FULL = {"InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "507"}
UNKNOWN_CONDITION = {"NotImplemented", "InvalidArgument", "InvalidRequest", "MethodNotAllowed", "501"}
# Other servers and moments: worth another try. Any other answer of 500 and above is, too.
PASSING = {
    "BadDigest", "ConditionalRequestConflict", "IncompleteBody", "InternalError", "OperationAborted", "RequestTimeout",
    "RequestThrottled", "RequestLimitExceeded", "ServiceUnavailable", "SlowDown", "Throttling", "ThrottlingException",
    "TooManyRequests", "XAmzContentSHA256Mismatch", "408", "409", "429",
}  # fmt: skip


@dataclass
class Connection:
    """The client that all stores of a process share that have the same credentials."""

    files: Any
    answered: bool = False

    @property
    def endpoint(self) -> str:
        """The server's address as it may be shown: without a name or password that someone put into it."""
        address = urlsplit(str(self.files.s3.meta.endpoint_url))
        return f"{address.scheme}://{address.hostname}" + (f":{address.port}" if address.port else "")


class RequestFailed(Exception):
    """A request that did not succeed: S3's code, the status (0 where no answer came), and whether it may pass."""

    def __init__(self, code: str, status: int, may_pass: bool) -> None:
        self.code = code
        self.status = status
        self.may_pass = may_pass
        super().__init__(code)


@functools.lru_cache(maxsize=8)
def connect(process: int, settings: tuple[tuple[str, str], ...], block: str | None) -> Connection:
    """The connection of this process under these settings; its arguments only tell connections apart.

    Not s3fs's own cache: that makes a client for every thread, and it takes half a second.
    """
    import s3fs

    named = named_credentials() or Credentials("", "")
    _check_credentials(named)
    config = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "read_timeout": READ_TIMEOUT_S,
        "max_pool_connections": 32,
        # Requests are repeated here and nowhere else: botocore would multiply the tries.
        "retries": {"total_max_attempts": 1},
        # Checksums of our own (Content-MD5 up, metadata down) work with every server; these are new and do not.
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
    }
    files = s3fs.S3FileSystem(
        key=named.key or None,
        secret=named.secret or None,
        token=named.token,
        endpoint_url=named.endpoint,
        client_kwargs={"region_name": named.region} if named.region else {},
        config_kwargs=config,
        use_listings_cache=False,
        skip_instance_cache=True,
    )
    try:
        files.connect()
    except Exception as error:
        raise StoreRefused(
            f"no connection to an object store can be made ({type(error).__name__}): check AWS_ENDPOINT_URL (a full"
            " address such as https://host:port), AWS_PROFILE, AWS_DEFAULT_REGION and the AWS files"
        ) from None
    endpoint = str(files.s3.meta.endpoint_url)
    _check_endpoint(endpoint)
    if endpoint.startswith("https:"):
        _check_certificates(files.session.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE"))
    return Connection(files)


def _check_credentials(named: Credentials) -> None:
    """Refuse what no credentials hold and no header takes, such as the line break at the end of a file. Shows none."""
    values = {name: os.environ.get(name) for name in CREDENTIAL_SETTINGS} if not named.key else {}
    values |= {f"{BLOCK_SETTING}'s {name}": getattr(named, name) for name in ("key", "secret", "token")}
    for name, value in values.items():
        if value and not re.fullmatch(r"[\x21-\x7e]+", value):
            raise StoreRefused(
                f"{name} holds a space, a line break or another character that no credentials have: set it without"
            )


def _check_endpoint(address: str) -> None:
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if not parts.hostname or port == 0:
        # Not repeated: it may hold a password.
        raise StoreRefused(
            "the object store's address cannot be read: check AWS_ENDPOINT_URL (a full address such as"
            " https://host:port, with a port from 1 to 65535)"
        )


def _check_certificates(bundle: str | None) -> None:
    import ssl

    if not bundle:
        return
    try:
        # As aiobotocore loads it, which takes a folder for a server that does not answer.
        ssl.create_default_context(cafile=bundle)
    except OSError as error:
        reason = "no certificates" if isinstance(error, ssl.SSLError) else error.strerror
        raise StoreRefused(
            f"the file of certificates {bundle} cannot be read ({reason}): check AWS_CA_BUNDLE, REQUESTS_CA_BUNDLE and "
            "ca_bundle of the AWS files"
        ) from error


async def send(files: Any, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
    client = await files.set_session()
    answer: dict[str, Any] = await getattr(client, method)(**arguments)
    if "Body" in answer:
        async with answer["Body"] as stream:
            answer["Body"] = await stream.read()
    return answer


def failure(error: Exception) -> RequestFailed:
    """What an error of botocore or the network says; an error of ours is raised as it is."""
    import aiohttp
    from botocore import exceptions
    from botocore.parsers import ResponseParserError

    if isinstance(error, exceptions.ClientError):
        code = str(error.response.get("Error", {}).get("Code") or "")
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
        may_pass = code in PASSING or (status >= 500 and code not in {*FULL, *UNKNOWN_CONDITION})
        return RequestFailed(code or str(status), status, may_pass)
    broken = (exceptions.HTTPClientError, exceptions.ConnectionError, exceptions.IncompleteReadError)
    garbled = (ResponseParserError, aiohttp.ClientError)
    if isinstance(error, (*broken, *garbled, OSError, EOFError)):
        return RequestFailed(type(error).__name__, 0, may_pass=True)
    if isinstance(error, exceptions.BotoCoreError):
        return RequestFailed(type(error).__name__, 0, may_pass=False)
    raise error


def checked_body(data: bytes) -> dict[str, Any]:
    """A request's body, and the digest by which every S3 server sees whether it has arrived whole."""
    digest = hashlib.md5(data, usedforsecurity=False).digest()
    return {"Body": data, "ContentMD5": base64.b64encode(digest).decode()}
