"""Paths as people write them, in settings, experiments and on command lines."""

import os
from pathlib import Path

from storage.errors import SpecError


def with_home(text: str) -> str:
    """A path's text with a leading `~` or `~user` replaced by that home folder; anything else stays as it is.

    Raises:
        SpecError: there is no such user, or the text holds a null character, which no path does.
    """
    if "\0" in text:
        raise SpecError(f"not a path: {text!r} holds a null character")
    if not text.startswith("~"):
        return text
    # Not `Path.expanduser`: an address that begins so would lose one of its slashes.
    expanded = os.path.expanduser(text)  # noqa: PTH111
    if expanded == text:
        user = text.partition("/")[0]
        raise SpecError(f"{text!r}: there is no user {user[1:]!r} here; a folder of that name is ./{text}")
    return expanded


def absolute(text: str | os.PathLike[str]) -> Path:
    """The absolute path of a text: `~` is a home folder, and a relative one is taken from the working directory.

    Links are followed as far as they lead.

    Raises:
        SpecError: as `with_home`.
    """
    return Path(os.path.realpath(with_home(os.fspath(text))))
