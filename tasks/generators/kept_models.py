"""Diffusion models in the store: a diffusers folder as an object, and a folder again where it is loaded.

    python -m tasks.generators.kept_models FOLDER

prints the model's name, `store:<digest>`, for a source's `diffusion.model`. The name is the digest of the folder's
files. Pictures are those of the folder itself, since a recipe names either by the same digest.
"""

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from storage.digest import digest_of, file_sha256
from storage.errors import MissingInput, SpecError, TelltaleError
from storage.objects import Ref, read_part
from storage.opening import open_store
from storage.paths import absolute
from storage.store import Store
from tasks.cache import cache_folder
from tasks.recipe import Output, StepRun, step
from tasks.variables import literal

STORED = "store:"
INDEX = "model_index.json"
NAMES = "files.json"


def model_files(directory: Path) -> dict[str, Path]:
    """The files of a model's folder by their relative names; hidden ones are no part of it."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    names = {path.relative_to(directory): path for path in files}
    return {
        name.as_posix(): path
        for name, path in names.items()
        if not any(part.startswith(".") for part in name.parts)
    }  # fmt: skip


def folder_digest(directory: Path) -> str:
    """sha256 over the names and contents of a model's files, so that no path stands in a recipe."""
    return digest_of({name: file_sha256(path) for name, path in model_files(directory).items()})


@step(
    "weights/diffusion",
    version=1,
    label=lambda *, digest, **_: digest[:12],
    unkeyed=("path",),
    paths=("path",),
    pool="gpu",
)
def keep_model(run: StepRun, *, digest: str, path: str) -> Output:
    """Bring a diffusers folder into the store, file by file, for workers that do not have it.

    Raises:
        SpecError: its files are not those of the digest.
    """
    found = folder_digest(Path(path))
    if found != digest:
        raise SpecError(f"the diffusion model in {path}: expected the digest {digest}, got {found}; it has changed")
    files = model_files(Path(path))
    # Flat names: an object is one folder. The first part says which file each of the others is.
    names = {f"{number:04d}{Path(name).suffix}": name for number, name in enumerate(files)}
    parts = _Files({part: files[name] for part, name in names.items()}, json.dumps(names, indent=1).encode())
    return Output(parts, {"files": len(files)})


def find_model(store: Store, model: str) -> Ref | None:
    """The object of a model that is named `store:<digest>`, or None."""
    found: Ref | None = keep_model.lookup(store, digest=model.removeprefix(STORED), path="")
    return found


def local_model(store: Store, model: str) -> str:
    """What a pipeline is loaded from: a model of the store as a folder of the cache, any other as it is named.

    Raises:
        MissingInput: the store has no such model.
        DamagedObject: one of its parts was altered.
    """
    if not model.startswith(STORED):
        return model
    ref = find_model(store, model)
    if ref is None:
        raise MissingInput(missing_from_store(model))
    folder = cache_folder() / f"diffusion-{ref.digest}"
    if not folder.is_dir():
        with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="unfinished-") as unfinished:
            whole = Path(unfinished) / "model"
            for part, name in json.loads(read_part(store, ref, NAMES)).items():
                (whole / name).parent.mkdir(parents=True, exist_ok=True)
                (whole / name).write_bytes(read_part(store, ref, part))
            try:
                whole.rename(folder)  # in one move, so that a folder is whole
            except OSError:
                if not folder.is_dir():  # else another process was faster
                    raise
    return str(folder)


def missing_from_store(model: str) -> str:
    """What to do about a model that the store does not have."""
    return (
        f"the diffusion model {model}: the store has none of this digest; bring its folder in with "
        "`python -m tasks.generators.kept_models FOLDER`"
    )


class _Files(Mapping[str, bytes]):
    """Parts that are read when they are asked for: a model's files need not be in memory together."""

    def __init__(self, files: Mapping[str, Path], names: bytes) -> None:
        self._files = files
        self._names = names

    def __getitem__(self, part: str) -> bytes:
        return self._names if part == NAMES else self._files[part].read_bytes()

    def __iter__(self) -> Iterator[str]:
        yield NAMES
        yield from self._files

    def __len__(self) -> int:
        return len(self._files) + 1


def main(arguments: list[str]) -> None:
    """The command line."""
    usage = f"usage: python -m tasks.generators.kept_models FOLDER   (a diffusers folder with {INDEX})"
    try:
        folder = absolute(arguments[0]) if len(arguments) == 1 else None
        if folder is None or not (folder / INDEX).is_file():
            sys.exit(usage)
        digest = folder_digest(folder)
        keep_model.compute(open_store(), digest=digest, path=literal(folder))
    except (TelltaleError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{STORED}{digest}")


if __name__ == "__main__":
    main(sys.argv[1:])
