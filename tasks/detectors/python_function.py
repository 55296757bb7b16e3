"""Detectors that are Python: a function of a package that is installed on the workers, pictures in, scores out."""

from __future__ import annotations

import ast
import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from storage.digest import digest_of, file_sha256
from storage.errors import MissingInput, OtherVersion, SpecError, TelltaleError
from storage.objects import Ref
from storage.store import Store
from tasks.data.views import posted_file
from tasks.detectors.pictures import Decisions, Opened, PictureDetector
from tasks.device import is_device_error
from tasks.facts import Fact, Question, fact
from tasks.kept_networks import shared_network
from tasks.recipe import Pool
from tasks.spec.base import Spec
from tasks.threads import limit_threads

# Of entry points: a package names its detectors there.
GROUP = "telltale.detectors"

# In a package's folder what no code is, and what comes and goes.
_CACHES_AND_SWAPS = ("__pycache__", ".git", ".*.sw?", "*~", ".#*", "#*#")

# The digest of each package's or module's files when this process imported it first: that code it goes on running.
_imported: dict[str, str] = {}
_importing = threading.RLock()


class Installed(Spec):
    """What is installed of a function: its distribution, if it is of one, and its files.

    `digest` is of the files of its outermost package or module, and of those beside it that these import, by their
    names, without caches.
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
        made_of = "" if self.installed is None else f" of {self.installed.title}"
        return f"the Python function {self.function}{made_of}"

    def reported(self) -> Self:
        return super().reported().model_copy(update={"installed": self.keyed().installed})

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


@dataclass(frozen=True)
class _Code:
    """What a function is made of: the outermost package or module of its code, where that begins, and its files.

    `pieces` are the digests of that package's or module's files, and of those beside it that it imports, by what they
    are imported as.
    """

    root: str
    origin: Path
    pieces: dict[str, dict[Path, str]]

    @property
    def digest(self) -> str:
        files = ((path, sha) for piece in self.pieces.values() for path, sha in piece.items())
        return digest_of({Path(os.path.relpath(path, self.origin.parent)).as_posix(): sha for path, sha in files})


def installation(function: str) -> Installed:
    """What this machine has of a function; its code is not run.

    Raises:
        MissingInput: its module, or an entry point of that name, is not installed.
        SpecError: two entry points have the name, or one names no function, or its code is in no file.
    """
    found = _found(function)
    return _installed(found, _code(found))


def _installed(found: _Found, code: _Code) -> Installed:
    if found.distribution is not None:
        return Installed(distribution=found.distribution.name, version=found.distribution.version, digest=code.digest)
    names = sorted(set(importlib.metadata.packages_distributions().get(code.root.partition(".")[0], ())))
    if len(names) != 1:
        # No distribution, as of a file beside others, or several that share a namespace: the files tell them apart.
        return Installed(distribution=None, version=None, digest=code.digest)
    return Installed(distribution=names[0], version=importlib.metadata.version(names[0]), digest=code.digest)


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
    if not attribute:
        raise SpecError(
            f"the entry point {function!r} of the group {GROUP} names the module {module} alone: write it as "
            f'{function} = "{module}:FUNCTION" where its package declares it'
        )
    return _Found(module, attribute, named[module, attribute].dist)


def _code(found: _Found) -> _Code:
    """The code of a function, without what other distributions have in the same folder: they have versions."""
    root, origin = _outermost(found.module)
    folder = origin.parents[root.count(".") + (origin.stem == "__init__")]
    distributions = cache(importlib.metadata.packages_distributions)
    pieces = {root: _digests(origin)}
    left = list(pieces[root].items())
    while left:
        path, digest = left.pop()
        for imported in _imports(path, digest, folder):
            piece, begins = _beside(folder, imported)
            if begins is None or piece in pieces or _is_anothers(piece, folder, found, distributions()):
                continue
            pieces[piece] = _digests(begins)
            left += pieces[piece].items()
    return _Code(root, origin, pieces)


def _outermost(module: str) -> tuple[str, Path]:
    """The outermost package or module that has code of its own, which a namespace has not, and where that begins."""
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
        return name, origin
    raise SpecError(f"the module {module} is a folder without code")


def _digests(origin: Path) -> dict[Path, str]:
    """Of the files of a package or module that begins with this one."""
    package = Path(os.path.realpath(origin.parent))
    files = _files_below(origin.parent, frozenset(package.parents)) if origin.stem == "__init__" else [origin]
    return {path: file_sha256(path) for path in files}


def _files_below(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    """All files of a package's folder, hidden ones and those behind links too; a link to a folder above is left out."""
    here = Path(os.path.realpath(folder))
    if here in above:
        return
    for path in sorted(folder.iterdir()):
        if any(fnmatchcase(path.name, pattern) for pattern in _CACHES_AND_SWAPS):
            continue
        if path.is_dir():
            yield from _files_below(path, above | {here})
        # Bytecode is imported only where no source lies beside it.
        elif path.is_file() and not (path.suffix == ".pyc" and path.with_suffix(".py").exists()):
            yield path


def _beside(folder: Path, module: str) -> tuple[str, Path | None]:
    """The outermost package or module of a dotted name that lies below a folder, and its first file."""
    parts = module.split(".")
    for count, part in enumerate(parts, start=1):
        for stem in (folder / part / "__init__", folder / part):
            for suffix in importlib.machinery.all_suffixes():
                origin = stem.with_name(stem.name + suffix)
                if origin.is_file():
                    return ".".join(parts[:count]), origin
        folder = folder / part
    return module, None


def _is_anothers(piece: str, folder: Path, found: _Found, distributions: Mapping[str, list[str]]) -> bool:
    """Whether what lies in a folder is of another distribution than a function's."""
    top, root = (name.partition(".")[0] for name in (piece, found.module))
    own = {*distributions.get(root, ()), *([] if found.distribution is None else [found.distribution.name])}
    owners = set(distributions.get(top, ()))
    if not owners or own & owners:
        return False
    places = [importlib.metadata.distribution(name).locate_file("") for name in owners]
    return any(os.path.realpath(str(place)) == os.path.realpath(folder) for place in places)


@lru_cache(maxsize=4096)
def _imports(path: Path, digest: str, folder: Path) -> tuple[str, ...]:
    """The dotted names that a file of Python, with this digest and below a folder, may import, anywhere in it."""
    if path.suffix != ".py":
        return ()
    try:
        nodes = list(ast.walk(ast.parse(path.read_bytes())))
    except (SyntaxError, ValueError, RecursionError):
        # Importing it will say so.
        return ()
    names: list[str] = []
    for node in nodes:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = path.relative_to(folder).parts[: -node.level] if node.level else ()
            module = ".".join([*parents, *([node.module] if node.module else [])])
            names += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    return tuple(dict.fromkeys(name for name in names if name))


@contextmanager
def _without_bytecode() -> Iterator[None]:
    """Import from sources alone: bytecode is taken for that of a source of the same size and time, whatever it says."""
    with _importing, tempfile.TemporaryDirectory(prefix="telltale-") as empty:
        before = sys.pycache_prefix, sys.dont_write_bytecode
        sys.pycache_prefix, sys.dont_write_bytecode = empty, True
        try:
            yield
        finally:
            sys.pycache_prefix, sys.dont_write_bytecode = before


def _imported_target(function: str) -> tuple[Callable[..., Any], Installed]:
    """A function or class, and the installation that it is of; its module is imported, which may take its time.

    Raises:
        MissingInput, SpecError: it is not there, or is none, with the remedy.
        OtherVersion: the files are not those any more that this process runs.
    """
    found = _found(function)
    code = _code(found)
    try:
        with _without_bytecode():
            target: Any = importlib.import_module(found.module)
        for name in found.attribute.split("."):
            target = getattr(target, name)
    except (Exception, SystemExit) as error:
        raise SpecError(f"importing {function} failed: {_said(error)}") from error
    if not callable(target):
        raise SpecError(f"{function} cannot be called: expected a function or a class, got {type(target).__name__}")
    digests = {
        piece: digest_of({str(path): sha for path, sha in files.items()}) for piece, files in code.pieces.items()
    }
    if any(_imported.setdefault(piece, digest) != digest for piece, digest in digests.items()):
        raise OtherVersion(f"the files of {function} changed after this process had imported them: start it anew")
    return target, _installed(found, code)


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:300]
