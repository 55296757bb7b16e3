"""The root of all specifications: what a field may hold, and where its paths lead."""

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, Self, TypeVar, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    ValidationInfo,
    model_validator,
)

from storage.errors import SpecError
from tasks.artifacts import artifact_key
from tasks.strict_yaml import plain_value
from tasks.variables import FilledIn, fill_in, located, needed

# More than anything here counts, and little enough for every library that is given such a number.
MOST = 2**31 - 1


# The context of what telltale itself has written: a recipe's sources have no paths (`tasks.data.folder.unlocated`).
OWN_WORDS = {"own_words": True}
# The context of what is written for a recipe, which some specifications keep as it was before they changed.
IN_A_RECIPE = {"in_a_recipe": True}


def _path(text: str, info: ValidationInfo) -> str:
    if not text and info.context != OWN_WORDS:
        raise ValueError("a path is empty")
    if "\0" in text:
        raise ValueError(f"not a path: {text!r} holds a null character")
    try:
        fill_in(text, [])
    except SpecError as error:
        raise ValueError(str(error)) from error
    return text


_PATH = AfterValidator(_path)
# A path, or in some fields a name or an address that may be a path, as it is written: whoever touches the disk replaces
# variables and `~` (`on_this_machine`). Relative ones count from the working directory.
LocalPath = Annotated[str, _PATH]
# Nothing else stands for a truth value: no number, and no text such as `yes`.
Truth = Annotated[bool, Strict()]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
LONGEST_NAME = 60
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$", max_length=LONGEST_NAME)]
# A column of a Parquet file; a colon parts it from row and file in an entry table.
Column = Annotated[str, Field(pattern=r"^[^:]+$", max_length=200)]


def is_full(precision: str) -> bool:
    return precision == "float32"


def _own_numbers(value: Any, annotation: Any) -> Iterator[int | float | bool]:
    """The numbers and truth values of a field, also those in its lists; a specification within has checked its own."""
    is_mapping = isinstance(value, dict) and get_origin(annotation) is dict
    return _numbers(list(value.values()) if is_mapping else value)


def _numbers(value: Any) -> Iterator[int | float | bool]:
    if isinstance(value, bool | int | float):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _numbers(item)


def _takes_truth(annotation: Any) -> bool:
    """Whether bool is among the types that an annotation is made of."""
    return annotation is bool or any(_takes_truth(argument) for argument in get_args(annotation))


def _kinds(annotation: Any) -> Iterator[Any]:
    """The types and literal values of what an annotation holds: of a mapping's values, of a list's items."""
    arguments = get_args(annotation)
    if get_origin(annotation) is Literal or not arguments:
        yield from arguments or (annotation,)
    elif get_origin(annotation) is Annotated:
        yield from _kinds(arguments[0])
    else:
        for argument in arguments[1:] if get_origin(annotation) is dict else arguments:
            yield from _kinds(argument)


@functools.cache
def _numbers_of(spec: type["Spec"]) -> dict[str, tuple[str, frozenset[str]]]:
    """The fields that hold numbers or truth values: what they expect, and the texts that they take beside them."""
    found = {}
    for name, field in spec.model_fields.items():
        kinds = list(_kinds(field.annotation))
        has_numbers = any(kind in (int, float) or type(kind) in (int, float) for kind in kinds)
        if str not in kinds and (has_numbers or bool in kinds):
            texts = [kind for kind in kinds if isinstance(kind, str)]
            expected = " or ".join(["a number" if has_numbers else "true or false", *map(repr, texts)])
            found[name] = (expected, frozenset(texts))
    return found


def _without_texts(value: Any, expected: str, texts: frozenset[str]) -> Any:
    """A value in which a text that an environment variable had a part in is the number that YAML would read.

    Raises:
        ValueError: another text than `texts` stands where a number belongs: `010` would be read as ten.
    """
    if isinstance(value, dict):
        return {key: _without_texts(item, expected, texts) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_texts(item, expected, texts) for item in value]
    if not isinstance(value, str) or value in texts:
        return value
    found: Any = value
    if isinstance(value, FilledIn):
        if "${" in value:
            return value  # a variable that is not set, which the field itself refuses: its text says which
        found = plain_value(value.strip())
    if isinstance(found, str):
        shown = value if len(value) <= 100 else f"{value[:100]}..."
        raise ValueError(f"expected {expected}, got the text {shown!r}")
    return found


def doubled(items: Iterable[Any]) -> Iterator[Any]:
    """The items that stand there before."""
    seen: list[Any] = []
    for item in items:
        if item in seen:
            yield item
        seen.append(item)


def _once(items: tuple[Any, ...], info: ValidationInfo) -> tuple[Any, ...]:
    for name in doubled(item.name for item in items if hasattr(item, "name")):
        raise ValueError(f"two {info.field_name} have the same name, {name!r}")
    for item in doubled(items):
        raise ValueError(f"{'null' if item is None else item} is listed twice")
    return items


# A list without anything twice; what has a name goes by it.
Once = AfterValidator(_once)


def are_apart(what: str, names: Iterable[str]) -> None:
    """Refuse names that are one as part of an artifact's key, where a dot is a dash."""
    folded: dict[str, str] = {}
    for name in names:
        other = folded.setdefault(artifact_key(name), name)
        if other != name:
            raise ValueError(f"{what} {other!r} and {name!r} differ in dots and dashes alone")


class Spec(BaseModel):
    """The root of all specifications: frozen, finite, and nothing that is not named here."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _has_numbers_as_numbers(cls, document: Any) -> Any:
        # Pydantic would take true for 1, and libraries below fail on numbers that are larger than theirs.
        if isinstance(document, dict):
            for name, field in cls.model_fields.items():
                for value in _own_numbers(document.get(name), field.annotation):
                    if isinstance(value, bool) and not _takes_truth(field.annotation):
                        raise ValueError(f"{name}: expected no truth value, got {str(value).lower()}")
        return document

    @model_validator(mode="before")
    @classmethod
    def _has_no_texts_as_numbers(cls, document: Any) -> Any:
        if not isinstance(document, dict):
            return document
        read = dict(document)
        for name, (expected, texts) in _numbers_of(cls).items():
            if name in document:
                try:
                    read[name] = _without_texts(document[name], expected, texts)
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from error
        return read

    @model_validator(mode="after")
    def _has_numbers_that_fit(self) -> Self:
        for name, field in type(self).model_fields.items():
            for value in _own_numbers(getattr(self, name), field.annotation):
                if isinstance(value, int) and abs(value) > MOST and name != "seed":
                    raise ValueError(f"{name}: expected a number of at most {MOST}, got a larger one")
        return self


SpecOf = TypeVar("SpecOf", bound=Spec)


def of_kind(kinds: Mapping[str, type[Spec]], what: str) -> BeforeValidator:
    """Reads a document as the kind that its field `kind` names: one of a list to which anybody may add.

    Args:
        kinds: by name; looked at when a document is read.
        what: what they are kinds of, for those who name another one.
    """

    def read(value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, BaseModel):
            return value
        if not isinstance(value, dict):
            raise ValueError(f"expected a mapping with a kind, one of {sorted(kinds)}")
        if "kind" not in value:
            raise ValueError(f"it needs a kind, one of {sorted(kinds)}")
        kind = value["kind"]
        if not isinstance(kind, str) or kind not in kinds:
            raise ValueError(f"unknown kind of {what} {kind!r}, expected one of {sorted(kinds)}")
        return kinds[kind].model_validate(value, context=info.context)

    return BeforeValidator(read)


@functools.cache
def path_fields(spec: type[Spec]) -> tuple[str, ...]:
    """The fields of a specification that are paths, or may be."""
    return tuple(
        name
        for name, field in spec.model_fields.items()
        if _PATH in field.metadata
        or any(_PATH in getattr(kind, "__metadata__", ()) for kind in get_args(field.annotation))
    )


def on_this_machine(spec: SpecOf) -> SpecOf:
    """A specification whose own paths are those of this machine, where the disk is touched.

    Raises:
        MissingInput: variables that are not set, each with its remedy.
        SpecError: nothing is left of a path that is needed, or it is none.
    """
    here = {}
    for name in path_fields(type(spec)):
        written = getattr(spec, name)
        optional = type(None) in get_args(type(spec).model_fields[name].annotation)
        here[name] = None if written is None else located(written) if optional else needed(written)
    return spec.model_copy(update=here)
