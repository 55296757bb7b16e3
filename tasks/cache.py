"""A folder of this user alone, for what may be lost at any time: downloaded weights, digests of files."""

import os
import tempfile
from pathlib import Path

from storage.errors import SpecError
from storage.paths import absolute

CACHE_SETTING = "TELLTALE_CACHE"


def cache_folder() -> Path:
    """The folder that `TELLTALE_CACHE` names, else one of the system's temporary folder.

    Raises:
        SpecError: it cannot be made, or belongs to another user. What lies in it is trusted.
    """
    configured = os.environ.get(CACHE_SETTING)
    folder = absolute(configured) if configured else Path(tempfile.gettempdir()) / f"telltale-cache-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SpecError(f"{CACHE_SETTING}: the folder {folder} cannot be made: {error.strerror}") from error
    if folder.stat().st_uid != os.getuid():
        raise SpecError(f"the cache {folder} belongs to another user; set {CACHE_SETTING} to a folder of your own")
    return folder
