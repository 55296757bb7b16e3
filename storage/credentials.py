"""Who telltale is to an object store: what a named block says, else whatever the AWS tools find for themselves.

The usual way needs nothing here: `AWS_ACCESS_KEY_ID` and its kin, `~/.aws`, or the role of the machine. A deployment
that keeps its secrets in Prefect names a Secret block instead (`TELLTALE_S3_BLOCK`). Storage knows no Prefect, so the
layer above says how blocks are read (`read_blocks_with`).
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from storage.errors import StoreRefused

BLOCK_SETTING = "TELLTALE_S3_BLOCK"
FIELDS = ("key", "secret", "token", "endpoint", "region")

BlockReader = Callable[[str], Mapping[str, object]]


@dataclass(frozen=True)
class Credentials:
    """An access key and its secret, and where they are good. Its text shows neither."""

    key: str = field(repr=False)
    secret: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    endpoint: str | None = None
    region: str | None = None


_readers: list[BlockReader] = []


def read_blocks_with(reader: BlockReader) -> None:
    """Say how the content of a named block is read; the newest reader counts."""
    _readers[:] = [reader]


def named_credentials() -> Credentials | None:
    """The credentials of the block that `TELLTALE_S3_BLOCK` names; None where it names none.

    Raises:
        StoreRefused: the block cannot be read here, or does not hold what it should. No value is in the message.
    """
    name = os.environ.get(BLOCK_SETTING)
    if not name:
        return None
    # As Prefect names them. What asks for a block puts its name into an address as it is, and would read another one.
    if not re.fullmatch(r"[a-z0-9-]+", name):
        raise StoreRefused(f"{BLOCK_SETTING}: a block's name has lower case letters, digits and dashes, got {name!r}")
    if not _readers:
        raise StoreRefused(f"{BLOCK_SETTING}={name}: Prefect blocks are read by flows only; set AWS_* variables here")
    return _credentials(name, _readers[0](name))


def _credentials(name: str, content: object) -> Credentials:
    expected = f"{BLOCK_SETTING}={name}: expected a JSON object with key and secret, at will {', '.join(FIELDS[2:])}"
    if not isinstance(content, Mapping):
        raise StoreRefused(f"{expected}, got {type(content).__name__}")
    unknown = [str(each) for each in content if each not in FIELDS]
    broken = [each for each, value in content.items() if not (value and isinstance(value, str))]
    if unknown or broken or not {"key", "secret"} <= set(content):
        raise StoreRefused(f"{expected}, each a text; got the fields {sorted(map(str, content))}")
    return Credentials(**content)
