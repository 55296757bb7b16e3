"""Detectors that are Python: a function of a package that is installed on the workers, pictures in, scores out."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from storage.digest import digest_of, file_sha256
from storage.errors import MissingInput, OtherVersion, SpecError, TelltaleError
from storage.objects import Ref
from storage.store import Store
from tasks.brought_files import folder_files
from tasks.data.views import posted_file
from tasks.detectors.pictures import Decisions, Opened, PictureDetector
from tasks.device import is_device_error
from tasks.facts import Fact, Question, fact
from tasks.features.kept_networks import shared_network
from tasks.recipe import Pool
from tasks.spec.base import Spec
from tasks.threads import limit_threads

# Of entry points: a package names its detectors there.
GROUP = "telltale.detectors"

# The digest of each package's or module's files when this process imported it first: that code it goes on running.
_imported: dict[str, str] = {}


class Installed(Spec):
    """What is installed of a function: its distribution, if it is of one, and its files.

    `digest` is of the files of its outermost package or module, by their names, without caches.
    """

    distribution: str | None
    version: str | None
    digest: str

    @property
    def title(self) -> str:
        """For people, such as `mine 1.0 (sha256 0123456789ab)`."""
        named = "files without a version" if self.distribution is None else f"{self.distribution} {self.version}"
        return f"{named} (sha256 {self.digest[:12]})"


class PythonFunction(PictureDetector):
    """A function that gives as many scores as it is given pictures, a larger one for what looks more like a fake.

    `function` is `package.module:function`, or the name of an entry point of the group `telltale.detectors`. It is
    given lists of up to `batch` pictures, which it must not change: `pixels`, uint8 (H, W, 3), RGB, or each one's
    `file` as bytes, as it would be posted: the view's own encoding, else PNG. A class is made once in a process, with
    the device, `cpu` or `cuda`, as its only argument, and then called like a function. Calls come from one thread at a
    time. Their scores must depend on nothing but the pictures of the list.

    `installed` is what recipes hold of it; an experiment that names it is refused by any other installation.
    """

    kind: Literal["callable"] = "callable"
    function: Annotated[str, Field(pattern=r"^([A-Za-z_][\w.]*:[A-Za-z_][\w.]*|[\w.-]+)$", max_length=200)]
    takes: Literal["pixels", "file"] = "pixels"
    batch: int = Field(default=8, ge=1, le=1024)
    runs_on: Pool = "cpu"
    installed: Installed | None = None

    @property
    def title(self) -> str:
        return f"the Python function {self.function}"

    @property
    def pool(self) -> Pool:
        return self.runs_on

    def missing(self) -> list[str]:
        try:
            self._refuse_other(_imported_target(self.function)[1])
        except MissingInput as error:
            return [f"{self.name}: {line}" for line in error.missing]
        except TelltaleError as error:
            return [f"{self.name}: {error}"]
        return []

    def facts(self) -> list[Question]:
        return [] if self.installed is not None else [(_INSTALLATIONS[self.pool], (self.function,))]

    def keyed(self) -> Self:
        installed = self.installed or _INSTALLATIONS[self.pool](self.function)
        return super().keyed().model_copy(update={"installed": installed})

    def opened(self, store: Store, files: Ref | None, device: str) -> Opened:
        key = ("callable", self.function, self.installed, device)
        called = shared_network(key, lambda: self._made(device))
        return Opened(posted_file if self.takes == "file" else lambda picture: picture.pixels, called, self.batch)

    def _made(self, device: str) -> _OneCallAtATime:
        try:
            target, installed = _imported_target(self.function)
        except MissingInput as error:
            raise OtherVersion(f"{self.name}: this worker cannot call it: {'; '.join(error.missing)}") from error
        self._refuse_other(installed)
        if isinstance(target, type):
            try:
                target = target(device)
            except Exception as error:
                if isinstance(error, RuntimeError) and is_device_error(error):
                    raise
                raise SpecError(f"{self.name}: {self.function}({device!r}) failed: {_said(error)}") from error
            if not callable(target):
                raise SpecError(f"{self.name}: what {self.function} makes cannot be called: give it a __call__")
        if "torch" in sys.modules:
            limit_threads()
        return _OneCallAtATime(target)

    def _refuse_other(self, here: Installed) -> None:
        if self.installed not in (None, here):
            assert self.installed is not None
            raise OtherVersion(
                f"{self.name}: {self.function} is expected of {self.installed.title}, this machine has {here.title}: "
                f"install the same on every worker of the pool {self.pool}"
            )


class _OneCallAtATime:
    """Somebody else's function, which need not bear being called by two threads at once."""

    def __init__(self, function: Callable[[list[Any]], Decisions]) -> None:
        self._function = function
        self._lock = threading.Lock()

    def __call__(self, pictures: Sequence[Any]) -> Decisions:
        with self._lock:
            try:
                return self._function(list(pictures))
            except SystemExit as error:
                raise RuntimeError(f"it called sys.exit({error})") from error


@dataclass(frozen=True)
class _Found:
    """Where a function is: its module, its name in it, and the distribution that an entry point is of."""

    module: str
    attribute: str
    distribution: importlib.metadata.Distribution | None = None


def installation(function: str) -> Installed:
    """What this machine has of a function; its code is not run.

    Raises:
        MissingInput: its module, or an entry point of that name, is not installed.
        SpecError: two entry points have the name, or its code is in no file.
    """
    found = _found(function)
    root, files = _code(found.module)
    digest = digest_of({name: file_sha256(path) for name, path in files.items()})
    if found.distribution is not None:
        return Installed(distribution=found.distribution.name, version=found.distribution.version, digest=digest)
    names = sorted(set(importlib.metadata.packages_distributions().get(root.partition(".")[0], ())))
    if len(names) != 1:
        # No distribution, as of a file beside others, or several that share a namespace: the files tell them apart.
        return Installed(distribution=None, version=None, digest=digest)
    return Installed(distribution=names[0], version=importlib.metadata.version(names[0]), digest=digest)


@fact(pool="cpu")
def function_of_cpu_workers(function: str) -> Installed:
    """What the workers of the pool `cpu` have of a function; raises as `installation`."""
    return installation(function)


@fact(pool="gpu")
def function_of_gpu_workers(function: str) -> Installed:
    """The same, of the workers of the pool `gpu`."""
    return installation(function)


_INSTALLATIONS: dict[Pool, Fact[..., Installed]] = {"cpu": function_of_cpu_workers, "gpu": function_of_gpu_workers}


def _found(function: str) -> _Found:
    if ":" in function:
        module, _, attribute = function.partition(":")
        return _Found(module, attribute)
    of_group = importlib.metadata.entry_points(group=GROUP)
    named = {(point.module, point.attr): point for point in of_group.select(name=function)}
    if not named:
        others = f"only {sorted(of_group.names)}" if of_group.names else "nor any other"
        raise MissingInput(
            f"an entry point {function!r} of the group {GROUP} (there is none, {others}): install the package that "
            "has it, or name package.module:function"
        )
    if len(named) > 1:
        targets = " and ".join(sorted(point.value for point in named.values()))
        raise SpecError(f"the entry point {function!r} of the group {GROUP} is there twice, as {targets}: remove one")
    ((module, attribute),) = named
    return _Found(module, attribute, named[module, attribute].dist)


def _code(module: str) -> tuple[str, dict[str, Path]]:
    """The outermost package or module that has code of its own, which a namespace has not, and its files by name."""
    importlib.invalidate_caches()
    parts = module.split(".")
    for name in (".".join(parts[:count]) for count in range(1, len(parts) + 1)):
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            spec = None
        if spec is None:
            raise MissingInput(f"the module {module}: install its package, or name its folder in PYTHONPATH")
        if spec.origin is None:
            continue
        origin = Path(spec.origin)
        if not origin.is_file():
            raise SpecError(f"the code of {module} is in no file of its own ({spec.origin}), so nothing tells versions")
        if spec.submodule_search_locations is None:
            return name, {origin.name: origin}
        files = folder_files(origin.parent).items()
        return name, {file: path for file, path in files if "__pycache__" not in PurePosixPath(file).parts}
    raise SpecError(f"the module {module} is a folder without code")


def _imported_target(function: str) -> tuple[Callable[..., Any], Installed]:
    """A function or class, and the installation that it is of; its module is imported, which may take its time.

    Raises:
        MissingInput, SpecError: it is not there, or is none, with the remedy.
        OtherVersion: the files are not those any more that this process runs.
    """
    installed, found = installation(function), _found(function)
    try:
        target: Any = importlib.import_module(found.module)
        for name in found.attribute.split("."):
            target = getattr(target, name)
    except (Exception, SystemExit) as error:
        raise SpecError(f"importing {function} failed: {_said(error)}") from error
    if not callable(target):
        raise SpecError(f"{function} cannot be called: expected a function or a class, got {type(target).__name__}")
    if _imported.setdefault(_code(found.module)[0], installed.digest) != installed.digest:
        raise OtherVersion(f"the files of {function} changed after this process had imported them: start it anew")
    return target, installed


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:300]
