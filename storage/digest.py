"""Canonical JSON and SHA-256 digests: the names of everything that telltale keeps."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from storage.errors import SpecError


def canonical_json(value: Any) -> str:
    """Write JSON in one form only: sorted keys, no spaces, ASCII, no NaN or infinity.

    Raises:
        SpecError: the value holds something that JSON cannot say, such as NaN, a set or a NumPy scalar.
    """
    _refuse_non_finite(value)
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SpecError(f"not expressible as canonical JSON: {error}") from error


def sha256_hex(data: bytes) -> str:
    """SHA-256 of bytes as 64 lowercase hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes as 64 lowercase hexadecimal digits; the file is read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(value: Any) -> str:
    """SHA-256 of a value's canonical JSON."""
    return sha256_hex(canonical_json(value).encode())


def hash_fraction(*parts: object) -> float:
    """A number in [0, 1) that depends on the parts only; the deterministic die of telltale."""
    digest = hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def hash_seed(*parts: object) -> int:
    """A seed in [0, 2**63) that depends on the parts only."""
    digest = hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


# What is in order as it is, as nearly everything: told by its type, before anything else is asked.
_IN_ORDER = frozenset({str, int, bool, type(None)})


def _refuse_non_finite(value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise SpecError(f"not expressible as canonical JSON: {value}")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise SpecError(f"canonical JSON keys are text, got {key!r}")
            if type(item) not in _IN_ORDER:
                _refuse_non_finite(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            if type(item) not in _IN_ORDER:
                _refuse_non_finite(item)
