"""Facts: what only the machine that has the data knows, and what a plan needs of it.

Inventories of folders, digests of weights, what is missing: a function of such kind is a `@fact`. In one process it is
called once per run and remembered. When a run is spread over pools, the coordinator has no data: a fact that is not
known yet is asked of a worker of the pool that has them, and kept with the plan.
"""

from __future__ import annotations

import functools
import importlib.metadata
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, ParamSpec, TypeVar, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError

from storage.digest import digest_of
from storage.errors import NotFinished, OtherVersion

P = ParamSpec("P")
T = TypeVar("T")

FactPool = Literal["cpu", "gpu"]

# Of extras: that one is missing decides what a step makes, as its version does.
_OPTIONAL = frozenset({"pillow-heif"})

# Every fact of the modules that were imported, by name.
FACTS: dict[str, Fact[..., Any]] = {}


@dataclass
class Facts:
    """What is known in a run: answers as JSON by the digest of their question.

    `ask` is called for what is not known. It takes note of the question and raises `NotFinished`; without it the fact
    is found out here.
    """

    answers: dict[str, Any] = field(default_factory=dict)
    ask: Callable[[Fact[..., Any], tuple[Any, ...]], None] | None = None

    # Which worker gave an answer, by the question's digest.
    workers: dict[str, str] = field(default_factory=dict)


_facts: ContextVar[Facts | None] = ContextVar("facts", default=None)


@contextmanager
def facts_known(facts: Facts) -> Iterator[None]:
    """Within this block every fact is decided once: looked for among these, and added to them."""
    token = _facts.set(facts)
    try:
        yield
    finally:
        _facts.reset(token)


class Fact(Generic[P, T]):
    """A function of the machine that it is called on, whose arguments and result can be said in JSON.

    Args:
        function: a plain function of a module; its annotations say how arguments and result are read back.
        pool: whose workers have what it looks at.
    """

    def __init__(self, function: Callable[P, T], pool: FactPool) -> None:
        self.function = function
        self.name = function.__name__
        self.pool = pool
        self._parameters = inspect.signature(function)
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__

    def question(self, *args: P.args, **kwargs: P.kwargs) -> dict[str, Any]:
        """The name and all arguments as typed JSON, fields included that no recipe holds."""
        bound = self._parameters.bind(*args, **kwargs)
        bound.apply_defaults()
        return {"fact": self.name, "arguments": {name: as_json(value) for name, value in bound.arguments.items()}}

    def digest(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """sha256 of the question's canonical JSON."""
        return digest_of(self.question(*args, **kwargs))

    def arguments(self, question: Mapping[str, Any]) -> tuple[Any, ...]:
        """The arguments of a question, read back.

        Raises:
            pydantic.ValidationError: it is one of another version.
        """
        given = question["arguments"]
        return tuple(self._adapters[name].validate_python(given[name]) for name in self._parameters.parameters)

    def answer_json(self, value: T) -> Any:
        """A result as JSON."""
        return as_json(value)

    def parse(self, answer: Any) -> T:
        """A result, read back; `pydantic.ValidationError` for one of another version."""
        found: T = self._adapters["return"].validate_python(answer)
        return found

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """The fact, as this run knows it.

        Raises:
            NotFinished: it has been asked of a worker.
        """
        facts = _facts.get()
        if facts is None:
            return self.function(*args, **kwargs)
        digest = self.digest(*args, **kwargs)
        if digest not in facts.answers:
            if facts.ask is not None:
                bound = self._parameters.bind(*args, **kwargs)
                bound.apply_defaults()
                facts.ask(self, bound.args)
                raise NotFinished(self.name)
            facts.answers[digest] = self.answer_json(self.function(*args, **kwargs))
        return self.parse(facts.answers[digest])

    @functools.cached_property
    def _adapters(self) -> dict[str, TypeAdapter[Any]]:
        return {name: TypeAdapter(hint) for name, hint in get_type_hints(self.function, include_extras=True).items()}


# A fact and the arguments that it is asked with.
Question = tuple[Fact[..., Any], tuple[Any, ...]]


def fact(*, pool: FactPool) -> Callable[[Callable[P, T]], Fact[P, T]]:
    """Make a fact of a function; see `Fact`."""

    def wrap(function: Callable[P, T]) -> Fact[P, T]:
        made = Fact(function, pool)
        if made.name in FACTS:
            raise ValueError(f"two facts are called {made.name}")
        FACTS[made.name] = made
        return made

    return wrap


def as_json(value: Any) -> Any:
    """A value as JSON with all fields of its specifications, also those that no recipe holds."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, BaseModel):
        return {name: as_json(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    return value


def ask_all(wanted: Iterable[tuple[Fact[..., Any], tuple[Any, ...]]]) -> None:
    """Ask for several facts at once, where they are asked of workers.

    Raises:
        NotFinished: some are not answered yet.
    """
    facts = _facts.get()
    if facts is None or facts.ask is None:
        return
    waiting: NotFinished | None = None
    for asked, arguments in wanted:
        if asked.digest(*arguments) not in facts.answers:
            try:
                facts.ask(asked, arguments)
            except NotFinished as stop:
                waiting = waiting or stop
    if waiting is not None:
        raise waiting


def answered_by(asked: Fact[..., Any], *arguments: Any) -> str | None:
    """The worker that a fact is known from, None where this process found it out."""
    facts = _facts.get()
    return None if facts is None else facts.workers.get(asked.digest(*arguments))


def answer_of(question: Mapping[str, Any]) -> Any:
    """The answer of this machine to a question, as JSON.

    Raises:
        OtherVersion: this version knows no such fact, or other arguments of it.
    """
    asked = FACTS.get(question["fact"])
    if asked is None:
        raise OtherVersion(f"there is no fact {question['fact']!r} in this version of telltale")
    try:
        arguments = asked.arguments(question)
    except (ValidationError, KeyError) as error:
        raise OtherVersion(f"{question['fact']}: this version of telltale has other arguments ({error})") from error
    return asked.answer_json(asked.function(*arguments))


@functools.cache
def library_version(library: str) -> str | None:
    """The installed version of a distribution without its build's tag: `2.13.0` of `2.13.0+cpu`; None of an extra.

    Builds for other devices are the same library. Looked up once: parsing a distribution's metadata takes longer than
    all else that a recipe needs.
    """
    try:
        return importlib.metadata.version(library).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        if library in _OPTIONAL:
            return None
        raise
