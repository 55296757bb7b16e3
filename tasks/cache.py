"""A folder of this user alone, for what may be lost at any time: downloaded weights, digests of files."""

import os
import tempfile
from pathlib import Path

from storage.errors import SpecError

CACHE_SETTING = "TELLTALE_CACHE"


def cache_folder() -> Path:
    """The folder that `TELLTALE_CACHE` names, else one of the system's temporary folder.

    Raises:
        SpecError: it belongs to another user. What lies in it is trusted.
    """
    configured = os.environ.get(CACHE_SETTING)
    folder = Path(configured) if configured else Path(tempfile.gettempdir()) / f"telltale-cache-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise SpecError(f"the cache {folder} belongs to another user; set {CACHE_SETTING} to a folder of your own")
    return folder
