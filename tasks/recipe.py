"""The recipe of a step, and `@step`: the one way in which a task is cached.

A recipe is the canonical JSON of everything that decides a step's output: its name and version, its arguments (refs by
their digest, specs by their fields) and the versions of the libraries that matter. Its sha256 names the place of the
output. A finished object there is the only cache; Prefect keeps no results of its own.
"""

import functools
import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any, Generic, Literal, Protocol, TypeVar

from pydantic import BaseModel

from storage.digest import canonical_json, digest_of, sha256_hex
from storage.errors import DamagedObject, InputChanged, MissingInput, SpecError, StoreError, StoreRefused, WrongAnswers
from storage.objects import PartContent, Ref, commit, find
from storage.opening import open_store
from storage.store import Store
from tasks.device import GpuLoad, compute_device, hourly_price
from tasks.facts import library_version
from tasks.pieces import Pieces
from tasks.progress import Progress, tally
from tasks.spec.base import IN_A_RECIPE
from tasks.threads import limit_linear_algebra
from tasks.variables import located

RETRIES = 3
PATIENCE_S = 1800.0

Pool = Literal["cpu", "gpu"]

T = TypeVar("T")


@dataclass(frozen=True)
class Output:
    """What a step function makes: named parts (tables or bytes) and facts to note in the manifest."""

    parts: Mapping[str, PartContent]
    notes: Mapping[str, Any] = field(default_factory=dict)
    pieces: Pieces | None = None  # removed once the object is finished


@dataclass(frozen=True)
class StepRun:
    """What a step function gets beside its arguments."""

    store: Store
    name: str
    digest: str  # of the first object that is missing
    digests: Mapping[Any, str] = field(default_factory=dict)  # of all that are missing, by their elements

    @property
    def checkpoints(self) -> str:
        """Folder of keys for checkpoints of this very recipe; debris once the object is finished."""
        return f"checkpoints/{self.digest}"

    def checkpoints_of(self, element: Any) -> str:
        """The same for one of several objects, whichever others are missing beside it."""
        return f"checkpoints/{self.digests[element]}"

    def progress(self, total: int, unit: str = "pictures", *, done: int = 0, device: str = "cpu") -> Progress:
        """A progress counter of this task, of which so much was done before; of a GPU it says load and cost as well."""
        price = hourly_price(device) if unit == "pictures" else None
        return Progress(self.name, total, unit, done=done, price=price, load=GpuLoad(device).mean)


class Planner(Protocol):
    """What takes note of steps' calls, in place of Prefect, while an evaluation is planned."""

    def call(self, step: "Step", arguments: dict[str, Any]) -> Any:
        """The ref of a call's object, with `each` a tuple of them; of a missing one a `LazyRef`."""
        ...

    def find(self, step: "Step", place: str) -> Ref | None:
        """The ref of a finished object, or None."""
        ...

    def library_version(self, library: str, pool: Pool) -> str | None:
        """The version that the workers of a pool have."""
        ...

    def device(self) -> str:
        """What the workers of the gpu pool compute on: `cuda` or `cpu`."""
        ...


_planner: ContextVar[Planner | None] = ContextVar("planner", default=None)


@contextmanager
def planned_by(planner: Planner) -> Iterator[None]:
    """Within this block steps that are called are taken note of, and nothing is computed."""
    token = _planner.set(planner)
    try:
        yield
    finally:
        _planner.reset(token)


def chosen_device() -> str:
    """The device of this run's networks and generators, which is part of their recipes: `cuda` or `cpu`.

    Decided once, where the run is planned: on pools by what their workers have, else by this machine.
    """
    planner = _planner.get()
    return compute_device() if planner is None else planner.device()


# Every step of the modules that were imported, by name.
STEPS: dict[str, "Step"] = {}


class Step:
    """A cached task: its function, its recipe, and its Prefect task.

    Args:
        function: `f(run: StepRun, **arguments) -> Output`; with `each`, `-> Mapping[element, Output]` for the
            elements that it was given (only missing ones are).
        name: such as `embed` or `train/svm`; the first folder of its objects.
        version: raise it when the output of equal arguments changes.
        label: gives the readable part of the place and of the task run's name from the arguments.
        each: name of the argument (a tuple) with one object per element.
        unkeyed: arguments that do not decide the output, such as a directory whose content digest is another argument.
        libraries: distributions whose versions matter.
        paths: arguments that are paths as an experiment has them: variables and `~` are replaced where it runs.
        pool: where it runs when work is spread over pools, or what says so from the arguments.
        patience_s: without progress for so long a call counts as hung; it must report some more often.
        alone: what it measures is time: on pools it runs when nothing else does.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        version: int,
        label: Callable[..., str],
        each: str | None,
        unkeyed: Sequence[str],
        libraries: Sequence[str],
        paths: Sequence[str] = (),
        pool: Pool | Callable[..., Pool] = "cpu",
        patience_s: float = PATIENCE_S,
        alone: bool = False,
    ) -> None:
        self.function = function
        self.name = name
        self.version = version
        self._label = label
        self._each = each
        self._unkeyed = frozenset(unkeyed)
        self.libraries = tuple(libraries)
        self._paths = tuple(paths)
        self.patience_s = patience_s
        self.alone = alone
        self._pool = pool
        self._parameters = inspect.signature(function).parameters
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__

    def recipe(self, **arguments: Any) -> dict[str, Any]:
        """The recipe of one object: for a step with `each`, give the one element under that argument's name."""
        keyed = {name: _encoded(value) for name, value in arguments.items() if name not in self._unkeyed}
        versions = self._versions(self.pool(**arguments))
        return {"step": self.name, "version": self.version, "arguments": keyed, "libraries": versions}

    def pool(self, **arguments: Any) -> Pool:
        """The work pool that a call belongs to."""
        return self._pool(**arguments) if callable(self._pool) else self._pool

    def _versions(self, pool: Pool) -> dict[str, str | None]:
        planner = _planner.get()
        if planner is None:
            return {library: library_version(library) for library in self.libraries}
        return {library: planner.library_version(library, pool) for library in self.libraries}

    def uri(self, **arguments: Any) -> str:
        """The place of one object inside the store."""
        return self._places(arguments, [arguments])[0]

    def lookup(self, store: Store, **arguments: Any) -> Any:
        """The finished object's ref, or None; with `each`, a tuple of them."""
        planner = _planner.get()
        places = self.places(self.bound(arguments))
        found = tuple(planner.find(self, place) if planner else find(store, place) for place in places)
        return found if self._each else found[0]

    def compute(self, store: Store, **arguments: Any) -> tuple[Any, bool]:
        """Find or make the objects, without Prefect: the ref (with `each` a tuple), and whether all were found."""
        arguments = self.bound(arguments)
        elements = self._elements(arguments)
        refs = [find(store, self.uri(**single)) for _, single in elements]
        missing = [index for index, ref in enumerate(refs) if ref is None]
        if missing:
            self._make(store, arguments, elements, refs, missing)
        return (tuple(refs) if self._each else refs[0]), not missing

    def _make(
        self,
        store: Store,
        arguments: dict[str, Any],
        elements: list[tuple[Any, dict[str, Any]]],
        refs: list[Ref | None],
        missing: list[int],
    ) -> None:
        limit_linear_algebra()
        started = time.monotonic()
        wanted = {
            name: located(value) if name in self._paths and isinstance(value, str) else value
            for name, value in arguments.items()
        }
        if self._each:
            wanted[self._each] = tuple(elements[index][0] for index in missing)
        digests = {elements[index][0]: digest_of(self.recipe(**elements[index][1])) for index in missing}
        run = StepRun(store, self.run_name(**arguments), digests[elements[missing[0]][0]], digests)
        made = self.function(run, **wanted)
        shared = (time.monotonic() - started) / len(missing)
        for index in missing:
            element, single = elements[index]
            started = time.monotonic()
            output = made[element] if self._each else made  # what is made one by one is made now
            seconds = shared + time.monotonic() - started
            refs[index] = commit(
                store,
                self.uri(**single),
                step=self.name,
                digest=digests[element],
                recipe=self.recipe(**single),
                parts=output.parts,
                notes=output.notes,
                seconds=seconds,
            )
            if output.pieces is not None:
                output.pieces.remove()

    def run_name(self, **arguments: Any) -> str:
        """The name of the task run in the UI."""
        elements = self._elements(self.bound(arguments))
        label = self._label(**elements[0][1]) if elements else "nothing"
        more = f" and {len(elements) - 1} more" if len(elements) > 1 else ""
        return f"{self.name} {label}{more}"

    def submit(self, **arguments: Any) -> Any:
        """Run as a task of the current flow; returns a future with `.result()`."""
        planner = _planner.get()
        if planner is not None:
            return _Done(planner.call(self, self.bound(arguments)))
        tally().submitted(self.name)
        return self.task(arguments).submit(arguments)

    def __call__(self, **arguments: Any) -> Any:
        """Run as a task of the current flow and wait for its ref."""
        # A task that is called, not submitted, would return the state Cached itself instead of its ref.
        return self.submit(**arguments).result()

    def task(self, arguments: Mapping[str, Any]) -> Any:
        """The Prefect task of a call; it takes the arguments as one mapping."""
        from prefect import task
        from prefect.cache_policies import NO_CACHE
        from prefect.states import Completed
        from prefect.tasks import exponential_backoff

        # Taken along: the task runs in a thread of its own.
        counts, name = tally(), self.run_name(**arguments)

        def run(arguments: Mapping[str, Any]) -> Any:
            with counts.at_work(self.name, name) as work:
                refs, cached = self.compute(open_store(), **arguments)
                work.found = cached
            return Completed(name="Cached", data=refs) if cached else refs

        return task(  # type: ignore[call-overload]
            run,
            name=self.name,
            description=inspect.getdoc(self.function),
            task_run_name=name,
            version=str(self.version),
            retries=RETRIES,
            retry_delay_seconds=exponential_backoff(backoff_factor=1),
            retry_jitter_factor=0.5,
            retry_condition_fn=_may_pass,
            cache_policy=NO_CACHE,
            persist_result=False,
        )

    def bound(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments with defaults filled in, so that naming a default does not change a recipe."""
        unknown = set(arguments) - set(self._parameters)
        if unknown:
            raise TypeError(f"{self.name}: unexpected arguments {sorted(unknown)}")
        bound = {}
        for name, parameter in list(self._parameters.items())[1:]:
            if name in arguments:
                bound[name] = arguments[name]
            elif parameter.default is not inspect.Parameter.empty:
                bound[name] = parameter.default
            else:
                raise TypeError(f"{self.name}: missing argument {name!r}")
        return bound

    @property
    def makes_several(self) -> bool:
        """Whether a call makes a tuple of objects."""
        return self._each is not None

    def places(self, arguments: dict[str, Any]) -> list[str]:
        """The places of a call's objects, in order. The arguments are bound."""
        return self._places(arguments, self.singles(arguments))

    def singles(self, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        """The arguments of each of a call's objects. The arguments are bound."""
        return [single for _, single in self._elements(arguments)]

    def _places(self, arguments: dict[str, Any], singles: list[dict[str, Any]]) -> list[str]:
        """The places of objects whose arguments differ in that of `each` alone.

        Each digest is that of `recipe`, whose canonical JSON is put together from that of its arguments.
        """
        each = self._each
        texts = {
            name: "" if name == each else f"{_quoted(name)}:{_canonical(value)}"
            for name, value in sorted(arguments.items())
            if name not in self._unkeyed
        }
        ends: dict[Pool, str] = {}
        places = []
        for single in singles:
            pool = self.pool(**single) if callable(self._pool) else self._pool
            if pool not in ends:
                versions = canonical_json(self._versions(pool))
                ends[pool] = f'}},"libraries":{versions},"step":{_quoted(self.name)},"version":{self.version}}}'
            if each is not None:
                texts[each] = f"{_quoted(each)}:{_canonical(single[each])}"
            digest = sha256_hex(f'{{"arguments":{{{",".join(texts.values())}{ends[pool]}'.encode())
            places.append(f"objects/{self.name}/{self._label(**single)}/{digest}")
        return places

    def only(self, arguments: dict[str, Any], chosen: Sequence[bool]) -> dict[str, Any]:
        """The arguments of a call that makes the chosen ones of its objects alone. The arguments are bound."""
        if self._each is None:
            return arguments
        kept = tuple(item for item, wanted in zip(arguments[self._each], chosen, strict=True) if wanted)
        return {**arguments, self._each: kept}

    def _elements(self, arguments: dict[str, Any]) -> list[tuple[Any, dict[str, Any]]]:
        if self._each is None:
            return [(None, arguments)]
        return [(element, {**arguments, self._each: element}) for element in arguments[self._each]]


def step(
    name: str,
    *,
    version: int,
    label: Callable[..., str],
    each: str | None = None,
    unkeyed: Sequence[str] = (),
    libraries: Sequence[str] = (),
    paths: Sequence[str] = (),
    pool: Pool | Callable[..., Pool] = "cpu",
    patience_s: float = PATIENCE_S,
    alone: bool = False,
) -> Callable[[Callable[..., Any]], Step]:
    """Make a cached step of a function; see `Step`. `label`, and `pool` where asked, get all arguments as keywords."""

    def wrap(function: Callable[..., Any]) -> Step:
        made = Step(function, name, version, label, each, unkeyed, libraries, paths, pool, patience_s, alone)
        STEPS[name] = made
        return made

    return wrap


class _Done:
    """The future of something already found."""

    def __init__(self, found: Any) -> None:
        self._found = found

    def result(self) -> Any:
        return self._found


def is_final(error: BaseException) -> bool:
    """Whether an error comes again wherever the work is done: the input or the specification is wrong."""
    return isinstance(error, SpecError | MissingInput | InputChanged | StoreRefused | WrongAnswers)


def may_pass(error: BaseException) -> bool:
    """Whether a failure is worth a retry at once: a store or a network may recover, a spec or a program does not."""
    if is_final(error) or isinstance(error, DamagedObject):
        return False
    return isinstance(error, StoreError | OSError | ConnectionError | TimeoutError)


def _may_pass(task: Any, task_run: Any, state: Any) -> bool:
    try:
        state.result()
    except Exception as error:
        return may_pass(error)
    return False


class OfFrozen(Generic[T]):
    """What was made of frozen models: a plan has the same few in a thousand calls.

    They are told apart by identity, and kept, so that no other takes the place of one. That they are equal is not
    enough: -0.0 equals 0.0.
    """

    MOST = 4096

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make = make
        self._made: dict[int, tuple[BaseModel, T]] = {}

    def __call__(self, model: BaseModel) -> T:
        known = self._made.get(id(model))
        if known is None:
            if len(self._made) >= self.MOST:
                self._made.clear()
            known = self._made[id(model)] = (model, self._make(model))
        return known[1]


@functools.cache
def holds_refs(model: type[BaseModel]) -> bool:
    """Whether a model is a record with refs among its fields; one within such a field is not looked into."""
    return "storage.objects.Ref" in str([field.annotation for field in model.model_fields.values()])


def _canonical(value: Any) -> str:
    """`canonical_json(_encoded(value))`."""
    kind = type(value)
    if kind is str:
        return _quoted(value)
    if isinstance(value, Ref):
        return f'{{"ref":{_quoted(value.digest)}}}'
    if kind is tuple or kind is list:
        return f"[{','.join([_canonical(item) for item in value])}]"
    if isinstance(value, BaseModel) and value.model_config.get("frozen"):
        return _canonical_of(value)
    return canonical_json(_encoded(value))


def _encoded(value: Any) -> Any:
    if isinstance(value, Ref):
        return {"ref": value.digest}
    if isinstance(value, BaseModel):
        if holds_refs(type(value)):
            return {name: _encoded(getattr(value, name)) for name in type(value).model_fields}
        return value.model_dump(mode="json", context=IN_A_RECIPE)
    if isinstance(value, Mapping):
        return {str(key): _encoded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encoded(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise SpecError(f"a step's argument cannot be part of a recipe: {value!r}")


_canonical_of = OfFrozen(lambda model: canonical_json(_encoded(model)))
