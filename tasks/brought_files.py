"""Files that an experiment names by their path, as objects of the store: models of somebody else's, tables."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from storage.digest import digest_of, file_sha256
from storage.errors import MissingInput, SpecError
from storage.objects import Ref, read_part
from storage.store import Store
from tasks.facts import Fact, Question, fact
from tasks.recipe import Output, Pool, StepRun, step
from tasks.spec.base import LocalPath, Spec
from tasks.variables import needed

_NAMES = "files.json"


def folder_files(folder: Path) -> dict[str, Path]:
    """The files below a folder by their relative names; hidden ones are no part of it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder): path for path in files}
    return {
        name.as_posix(): path
        for name, path in names.items()
        if not any(part.startswith(".") for part in name.parts)
    }  # fmt: skip


def folder_digest(folder: Path) -> str:
    """sha256 over the names and contents of a folder's files, so that no path stands in a recipe."""
    return digest_of({name: file_sha256(path) for name, path in folder_files(folder).items()})


def files_output(files: Mapping[str, Path]) -> Output:
    """Files by their relative names as the parts of an object."""
    # Flat names: an object is one folder. The first part says which file each of the others is.
    names = {f"{number:04d}{Path(name).suffix}": name for number, name in enumerate(files)}
    parts = _Files({part: files[name] for part, name in names.items()}, json.dumps(names, indent=1).encode())
    return Output(parts, {"files": len(files)})


def write_files(store: Store, ref: Ref, folder: Path) -> None:
    """Write an object's files into a folder, as they were.

    Raises:
        DamagedObject: one of its parts was altered.
    """
    for part, name in json.loads(read_part(store, ref, _NAMES)).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(read_part(store, ref, part))


def read_file(store: Store, ref: Ref) -> bytes:
    """The only file of an object; `DamagedObject` where it was altered, `SpecError` where it is a folder."""
    names = json.loads(read_part(store, ref, _NAMES))
    if len(names) != 1:
        raise SpecError(f"expected a file, got a folder of {len(names)}")
    (part,) = names
    return read_part(store, ref, part)


def read_named(store: Store, ref: Ref, name: str) -> bytes | None:
    """The file of an object that has this relative name, or None; `DamagedObject` where it was altered."""
    for part, known in json.loads(read_part(store, ref, _NAMES)).items():
        if known == name:
            return read_part(store, ref, part)
    return None


class _Files(Mapping[str, bytes]):
    """Parts that are read when they are asked for: a model's files need not be in memory together."""

    def __init__(self, files: Mapping[str, Path], names: bytes) -> None:
        self._files = files
        self._names = names

    def __getitem__(self, part: str) -> bytes:
        return self._names if part == _NAMES else self._files[part].read_bytes()

    def __iter__(self) -> Iterator[str]:
        yield _NAMES
        yield from self._files

    def __len__(self) -> int:
        return len(self._files) + 1


class BroughtFiles(Spec):
    """A file or a folder that is brought into the store: what it is, and where the workers of a pool have it."""

    digest: str
    path: LocalPath = Field(exclude=True)
    pool: Pool = Field(exclude=True)

    @classmethod
    def at(cls, path: str, pool: Pool) -> "BroughtFiles":
        """What lies at a path as an experiment has it, for the workers of a pool.

        Raises:
            MissingInput: nothing does, or variables are not set.
        """
        return cls(digest=_CONTENTS[pool](path), path=path, pool=pool)

    def bring(self) -> Any:
        """The future of its object."""
        return bring_files.submit(digest=self.digest, path=self.path, pool=self.pool)


def missing_files(path: str, what: str) -> list[str]:
    """What this machine lacks of a path as an experiment has it, with its remedy: nothing, or a sentence."""
    here = Path(needed(path))
    return [] if here.exists() else [f"{what}: {here} does not exist"]


def files_question(path: str, pool: Pool) -> Question:
    """The fact that `BroughtFiles.at` asks, with its argument."""
    return _CONTENTS[pool], (path,)


def _content(here: Path) -> str:
    if here.is_dir():
        return folder_digest(here)
    if here.is_file():
        return file_sha256(here)
    raise MissingInput(f"{here} does not exist")


@fact(pool="cpu")
def files_of_cpu_workers(path: str) -> str:
    """The digest of a file or a folder, as the workers of the pool `cpu` have it; `MissingInput` where it is not."""
    return _content(Path(needed(path)))


@fact(pool="gpu")
def files_of_gpu_workers(path: str) -> str:
    """The same, as the workers of the pool `gpu` have it."""
    return _content(Path(needed(path)))


_CONTENTS: dict[Pool, Fact[..., str]] = {"cpu": files_of_cpu_workers, "gpu": files_of_gpu_workers}


@step(
    "files",
    version=1,
    label=lambda *, digest, **_: digest[:12],
    unkeyed=("path", "pool"),
    paths=("path",),
    pool=lambda *, pool, **_: pool,
)
def bring_files(run: StepRun, *, digest: str, path: str, pool: Pool) -> Output:
    """Bring a file or a folder into the store, where every worker finds it.

    Raises:
        SpecError: it is not what the digest is of.
    """
    here = Path(path)
    if _content(here) != digest:
        raise SpecError(f"{here.name}: it changed while it was read, or another worker has another one")
    return files_output(folder_files(here) if here.is_dir() else {here.name: here})
