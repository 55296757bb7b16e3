"""A store by its address: a local folder, or a bucket."""

import os
import re
from pathlib import Path
from urllib.parse import unquote

from storage.errors import SpecError, StoreRefused
from storage.local import LocalStore
from storage.paths import absolute
from storage.store import STORE_SETTING, Store

# Where telltale keeps what it needs on this machine, by default in the working directory.
HOME_SETTING = "TELLTALE_HOME"
DEFAULT_HOME = ".telltale"


def store_url() -> str:
    """The address of the configured store (`TELLTALE_STORE`, by default the folder `store` of `TELLTALE_HOME`)."""
    return os.environ.get(STORE_SETTING) or f"{os.environ.get(HOME_SETTING) or DEFAULT_HOME}/store"


def open_store(url: str | None = None) -> Store:
    """Open a store by address: a path, `file:///folder`, or `s3://bucket/prefix` with the usual AWS settings.

    In a path `~` is a home folder, and a relative one counts from the working directory. In a `file://` address `%20`
    and its like stand for characters, as in every link; in a path and in a bucket's prefix they stand for themselves.

    Raises:
        SpecError: it is none of these.
        StoreRefused: there can be no folder: a file is in its place, or the path is out of reach.
    """
    url = url or store_url()
    folder = local_folder(url)
    if folder is not None:
        try:
            files = [place for place in (folder, *folder.parents) if place.is_file()]
        except OSError as error:
            raise StoreRefused(f"{STORE_SETTING}: {folder} cannot be a folder of ours ({error.strerror})") from error
        if files:
            raise StoreRefused(f"{STORE_SETTING}: expected a folder, {files[0]} is a file")
        return LocalStore(folder)
    from storage.s3 import ObjectStore

    return ObjectStore(url)


def local_folder(url: str) -> Path | None:
    """The absolute path of a store on the local disk, None for a bucket's address.

    Raises:
        SpecError: it is no address of a store. It is not repeated in the message: it may hold a password.
    """
    # A single letter, too: nobody means a folder `C:` here.
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", url)
    if scheme is None:
        return absolute(url)
    name = scheme[1].lower()
    if name == "s3":
        return None
    if name != "file":
        raise SpecError(f"{STORE_SETTING}: expected a path, file:// or s3:// address, got one of {scheme[0]}//")
    place = url[scheme.end() :].removeprefix("//").removeprefix("localhost")
    if not place.startswith("/") or set("?#") & set(place):
        raise SpecError(
            f"{STORE_SETTING}: expected file:///folder, the path with all its slashes, ? as %3F and # as %23"
        )
    return absolute(unquote(place, errors="surrogateescape"))
