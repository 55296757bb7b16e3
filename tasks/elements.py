"""Elements of a plan: one call of a step, as JSON from which a worker elsewhere builds the very same call."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError

from storage.errors import OtherVersion
from storage.objects import LazyRef, Ref
from tasks.facts import as_json
from tasks.recipe import STEPS, OfFrozen, Step, holds_refs
from tasks.spec.base import OWN_WORDS


@dataclass(frozen=True, slots=True)
class Element:
    """One call of a step that makes `places`, which are missing."""

    step: Step
    arguments: Mapping[str, Any]
    places: tuple[str, ...]

    @property
    def name(self) -> str:
        """What people call it: the step and its label."""
        return self.step.run_name(**self.arguments)

    def document(self) -> dict[str, Any]:
        """Typed JSON with whole refs and all fields, also those that no recipe holds. Every input is finished."""
        return {
            "step": self.step.name,
            "name": self.name,
            "arguments": {name: _json(value) for name, value in self.arguments.items()},
            "places": list(self.places),
        }


def element_of(document: Mapping[str, Any]) -> Element:
    """Build an element from its document, and check that its objects' places are those that the document states.

    Raises:
        OtherVersion: this installation knows no such step, or gives the objects other places: it is another version of
            telltale or of a library, or the document was altered.
    """
    import_steps()
    name = document["step"]
    step = STEPS.get(name)
    if step is None:
        raise OtherVersion(f"there is no step {name!r} in this version of telltale")
    try:
        arguments = {
            # What a step is given has been validated: a source is perhaps without its path, which is another argument.
            key: _adapter(step, key).validate_python(value, context=OWN_WORDS)
            for key, value in document["arguments"].items()
        }
        bound = step.bound(arguments)
        places = step.places(bound)
    except (ValidationError, TypeError, KeyError) as error:
        raise OtherVersion(f"{document['name']}: this version of telltale has other arguments ({error})") from error
    wanted = tuple(document["places"])
    if not set(wanted) <= set(places):
        ours = next(iter(set(places) - set(wanted)), "nothing")
        raise OtherVersion(
            f"{document['name']}: expected the place {wanted[0]}, this installation makes {ours}: another version of"
            " telltale or of a library, or an altered plan"
        )
    return Element(step, step.only(bound, [place in wanted for place in places]), wanted)


def _json(value: Any) -> Any:
    """`as_json`, of refs the whole ones."""
    if isinstance(value, Ref):
        whole = value.whole() if isinstance(value, LazyRef) else value
        return {"uri": whole.uri, "digest": whole.digest, "rows": whole.rows, "bytes": whole.bytes}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    if isinstance(value, BaseModel) and value.model_config.get("frozen") and not holds_refs(type(value)):
        return _json_of(value)
    if isinstance(value, BaseModel) and holds_refs(type(value)):
        return {name: _json(getattr(value, name)) for name in type(value).model_fields}
    return as_json(value)


_json_of = OfFrozen(as_json)


def refs_in(value: Any) -> Iterator[Ref]:
    """Every ref in an argument, however deep."""
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            if isinstance(item, Ref):
                yield item
            else:
                yield from refs_in(item)
    elif isinstance(value, BaseModel):
        if holds_refs(type(value)):
            for name in type(value).model_fields:
                yield from refs_in(getattr(value, name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from refs_in(item)


@functools.cache
def import_steps() -> None:
    """Make every step known: all modules of `tasks` are imported but that of classes for torch, which has none."""
    import tasks

    for found in pkgutil.walk_packages(tasks.__path__, "tasks."):
        if found.name != "tasks.networks.mobilenet_network":
            importlib.import_module(found.name)


@functools.cache
def _adapter(step: Step, name: str) -> TypeAdapter[Any]:
    return TypeAdapter(_hints(step)[name])


@functools.cache
def _hints(step: Step) -> dict[str, Any]:
    return get_type_hints(inspect.unwrap(step.function), include_extras=True)
