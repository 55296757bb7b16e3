"""The recipe of a step, and `@step`: the one way in which a task is cached.

A recipe is the canonical JSON of everything that decides a step's output: its name and version, its arguments (refs by
their digest, specs by their fields) and the versions of the libraries that matter. Its sha256 names the place of the
output. A finished object there is the only cache; Prefect keeps no results of its own.
"""

import inspect
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from storage.digest import digest_of
from storage.errors import DamagedObject, MissingInput, NotFinished, SpecError, StoreError, StoreRefused, WrongAnswers
from storage.objects import PartContent, Ref, commit, find
from storage.store import Store, open_store
from tasks.device import GpuLoad, hourly_price
from tasks.facts import library_version
from tasks.progress import Progress
from tasks.threads import limit_linear_algebra
from tasks.variables import located

RETRIES = 3


@dataclass(frozen=True)
class Output:
    """What a step function makes: named parts (tables or bytes) and facts to note in the manifest."""

    parts: Mapping[str, PartContent]
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StepRun:
    """What a step function gets beside its arguments."""

    store: Store
    name: str
    digest: str

    @property
    def checkpoints(self) -> str:
        """Folder of keys for checkpoints of this very recipe; debris once the object is finished."""
        return f"checkpoints/{self.digest}"

    def progress(self, total: int, unit: str = "pictures", *, done: int = 0, device: str = "cpu") -> Progress:
        """A progress counter of this task, of which so much was done before; of a GPU it says load and cost as well."""
        price = hourly_price(device) if unit == "pictures" else None
        return Progress(self.name, total, unit, done=done, price=price, load=GpuLoad(device).mean)


_only_finished: ContextVar[bool] = ContextVar("only_finished", default=False)


@contextmanager
def only_finished() -> Iterator[None]:
    """Within this block steps only look their objects up, without task runs; the first missing one raises."""
    token = _only_finished.set(True)
    try:
        yield
    finally:
        _only_finished.reset(token)


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
    ) -> None:
        self.function = function
        self.name = name
        self.version = version
        self._label = label
        self._each = each
        self._unkeyed = frozenset(unkeyed)
        self._libraries = tuple(libraries)
        self._paths = tuple(paths)
        self._parameters = inspect.signature(function).parameters
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__

    def recipe(self, **arguments: Any) -> dict[str, Any]:
        """The recipe of one object: for a step with `each`, give the one element under that argument's name."""
        keyed = {name: _encoded(value) for name, value in arguments.items() if name not in self._unkeyed}
        versions = {library: library_version(library) for library in self._libraries}
        return {"step": self.name, "version": self.version, "arguments": keyed, "libraries": versions}

    def uri(self, **arguments: Any) -> str:
        """The place of one object inside the store."""
        return f"objects/{self.name}/{self._label(**arguments)}/{digest_of(self.recipe(**arguments))}"

    def lookup(self, store: Store, **arguments: Any) -> Any:
        """The finished object's ref, or None; with `each`, a tuple of them."""
        arguments = self._bound(arguments)
        found = tuple(find(store, self.uri(**single)) for _, single in self._elements(arguments))
        return found if self._each else found[0]

    def compute(self, store: Store, **arguments: Any) -> tuple[Any, bool]:
        """Find or make the objects, without Prefect: the ref (with `each` a tuple), and whether all were found."""
        arguments = self._bound(arguments)
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
        run = StepRun(store, self.run_name(**arguments), digest_of(self.recipe(**elements[missing[0]][1])))
        made = self.function(run, **wanted)
        shared = (time.monotonic() - started) / len(missing)
        for index in missing:
            element, single = elements[index]
            started = time.monotonic()
            output = made[element] if self._each else made  # what is made one by one is made now
            seconds = shared + time.monotonic() - started
            recipe = self.recipe(**single)
            refs[index] = commit(
                store,
                self.uri(**single),
                step=self.name,
                digest=digest_of(recipe),
                recipe=recipe,
                parts=output.parts,
                notes=output.notes,
                seconds=seconds,
            )

    def run_name(self, **arguments: Any) -> str:
        """The name of the task run in the UI."""
        elements = self._elements(self._bound(arguments))
        label = self._label(**elements[0][1]) if elements else "nothing"
        more = f" and {len(elements) - 1} more" if len(elements) > 1 else ""
        return f"{self.name} {label}{more}"

    def submit(self, **arguments: Any) -> Any:
        """Run as a task of the current flow; returns a future with `.result()`."""
        if _only_finished.get():
            found = self.lookup(open_store(), **arguments)
            if found is None or (self._each and None in found):
                raise NotFinished(self.run_name(**arguments))
            return _Done(found)
        return self._task(arguments).submit(arguments)

    def __call__(self, **arguments: Any) -> Any:
        """Run as a task of the current flow and wait for its ref."""
        # A task that is called, not submitted, would return the state Cached itself instead of its ref.
        return self.submit(**arguments).result()

    def _task(self, arguments: dict[str, Any]) -> Any:
        from prefect import task
        from prefect.cache_policies import NO_CACHE
        from prefect.states import Completed
        from prefect.tasks import exponential_backoff

        def run(arguments: dict[str, Any]) -> Any:
            refs, cached = self.compute(open_store(), **arguments)
            return Completed(name="Cached", data=refs) if cached else refs

        return task(  # type: ignore[call-overload]
            run,
            name=self.name,
            description=inspect.getdoc(self.function),
            task_run_name=self.run_name(**arguments),
            version=str(self.version),
            retries=RETRIES,
            retry_delay_seconds=exponential_backoff(backoff_factor=1),
            retry_jitter_factor=0.5,
            retry_condition_fn=_may_pass,
            cache_policy=NO_CACHE,
            persist_result=False,
        )

    def _bound(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
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

    def _elements(self, arguments: dict[str, Any]) -> list[tuple[Any, dict[str, Any]]]:
        if self._each is None:
            return [(None, arguments)]
        return [(element, {**arguments, self._each: element}) for element in arguments[self._each]]


def folder_name(name: str) -> str:
    """A detector's name as a folder of the store: `svm#1` and `svm@gan` hold characters that URLs reserve."""
    return re.sub(r"[^a-z0-9.-]+", "-", name)


def step(
    name: str,
    *,
    version: int,
    label: Callable[..., str],
    each: str | None = None,
    unkeyed: Sequence[str] = (),
    libraries: Sequence[str] = (),
    paths: Sequence[str] = (),
) -> Callable[[Callable[..., Any]], Step]:
    """Make a cached step of a function; see `Step`. `label` gets all arguments as keywords."""

    def wrap(function: Callable[..., Any]) -> Step:
        return Step(function, name, version, label, each, unkeyed, libraries, paths)

    return wrap


class _Done:
    """The future of something already found."""

    def __init__(self, found: Any) -> None:
        self._found = found

    def result(self) -> Any:
        return self._found


def _may_pass(task: Any, task_run: Any, state: Any) -> bool:
    """Whether a failure is worth a retry: a store or a network may recover, a spec or a program does not."""
    try:
        state.result()
    except (SpecError, MissingInput, DamagedObject, StoreRefused, WrongAnswers):
        return False
    except (StoreError, OSError, ConnectionError, TimeoutError):
        return True
    except Exception:
        return False
    return False


def _encoded(value: Any) -> Any:
    if isinstance(value, Ref):
        return {"ref": value.digest}
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): _encoded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encoded(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise SpecError(f"a step's argument cannot be part of a recipe: {value!r}")
