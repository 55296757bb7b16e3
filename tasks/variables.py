"""Environment variables in the texts of an experiment: `${NAME}` and `${NAME:-default}`.

Those of paths stay as they are written until a disk is touched: machines have their data in different places, and a
coordinator has none. All others are filled in when the experiment is loaded.
"""

import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from storage.errors import MissingInput, SpecError
from storage.paths import with_home

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What a shell or another program would replace. A dollar sign before anything else is one.
_LOOKS_LIKE_ONE = re.compile(r"\$[A-Za-z_{(]")
# Of telltale itself, on every machine where it is installed: models whose weights come with it.
_OWN = {"TELLTALE_SHIPPED": str(Path(__file__).with_name("generators"))}
# A default within a default within a default: nobody needs more.
MOST_IN_ONE = 100
UNDERSTOOD = "understood are ${NAME}, ${NAME:-default}, also nested, and $$ for a dollar sign"


class FilledIn(str):
    """A text that holds what variables said, who know texts only: where a number belongs it is read as one."""


def located(text: str) -> str | None:
    """A path as it is on this machine: variables and `~` replaced. None where nothing is left of it.

    To be called once for a text, where the disk is touched: what a variable says is taken as it is.

    Raises:
        MissingInput: variables that are not set, a sentence for each.
        SpecError: something looks like a variable but is none, or there is no such user.
    """
    unset: list[str] = []
    filled = fill_in(text, unset)
    if unset:
        raise MissingInput(
            *(f"environment variable {name}, which the experiment needs: export it" for name in dict.fromkeys(unset))
        )
    return with_home(filled) if filled else None


def needed(text: str) -> str:
    """`located` of a path that must be one; `SpecError` where nothing is left of it."""
    found = located(text)
    if found is None:
        raise SpecError(f"nothing is left of {text!r}, expected a path")
    return found


def literal(path: str | os.PathLike[str]) -> str:
    """The text for which `located` gives this absolute path, whatever signs are in it."""
    return os.fspath(path).replace("$", "$$")


def fill_in(value: Any, unset: list[str], kept: Collection[str] = ()) -> Any:
    """A document with its variables replaced by their values, which are taken as they are.

    Texts under the keys `kept` stay as they are.

    A text with a variable becomes a `FilledIn`. A variable without value, or with an empty one, gives its default. A
    text that becomes empty becomes None: the field's default. Without value and default a variable stays as `${NAME}`,
    and its name is added to `unset`.

    Raises:
        SpecError: something looks like a variable but is none, stands in a key, or is one of too many in a text.
    """
    if isinstance(value, dict):
        for key in value:
            if isinstance(key, str) and _LOOKS_LIKE_ONE.search(key):
                raise SpecError(f"{key!r} looks like a variable, which can stand in values only, not in a key")
        return {
            key: item if key in kept and isinstance(item, str) else fill_in(item, unset, kept)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [fill_in(item, unset, kept) for item in value]
    if not isinstance(value, str) or "$" not in value:
        return value
    if value.count("${") > MOST_IN_ONE:
        raise SpecError(f"{value[:100]!r}... holds more than {MOST_IN_ONE} variables")
    filled = _filled(value, value, unset)
    # An optional variable that is not set leaves nothing, not an empty text. A dollar sign alone is no variable.
    return (FilledIn(filled) if "${" in value.replace("$$", "") else filled) or None


def _filled(text: str, whole: str, unset: list[str]) -> str:
    """`text` filled in, which is a part of `whole`."""
    pieces = []
    at = 0
    while (start := text.find("$", at)) >= 0:
        pieces.append(text[at:start])
        if text.startswith("$$", start):
            pieces.append("$")
            at = start + 2
        elif text.startswith("${", start):
            end = _closing_brace(text, start, whole)
            pieces.append(_looked_up(text[start + 2 : end], whole, unset))
            at = end + 1
        elif _LOOKS_LIKE_ONE.match(text, start):
            raise SpecError(f"{whole!r} holds something like a variable that is none: {UNDERSTOOD}")
        else:
            pieces.append("$")
            at = start + 1
    return "".join([*pieces, text[at:]])


def _closing_brace(text: str, start: int, whole: str) -> int:
    depth = 0
    for index in range(start, len(text)):
        if text.startswith("${", index):
            depth += 1
        elif text[index] == "}":
            depth -= 1
            if depth == 0:
                return index
    raise SpecError(f"{whole!r} holds a variable without its closing brace: {UNDERSTOOD}")


def _looked_up(inner: str, whole: str, unset: list[str]) -> str:
    name = _NAME.match(inner)
    rest = inner[name.end() :] if name else inner
    if name is None or not (rest == "" or rest.startswith(":-")):
        raise SpecError(f"{whole!r} holds ${{{inner}}}, which is no variable: {UNDERSTOOD}")
    # Looked at even where it is not needed: a mistake in it is not to wait for another machine.
    missing: list[str] = []
    default = _filled(rest.removeprefix(":-"), whole, missing) if rest else None
    found = os.environ.get(name[0]) or _OWN.get(name[0])
    if found:
        return found
    if default is None:
        unset.append(name[0])
        return f"${{{name[0]}}}"
    unset += missing
    return default
