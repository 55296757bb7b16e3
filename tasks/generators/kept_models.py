"""Diffusion models in the store: a diffusers folder as an object, and a folder again where it is loaded.

    python -m tasks.generators.kept_models FOLDER

prints the model's name, `store:<digest>`, for a source's `diffusion.model`. The name is the digest of the folder's
files. Pictures are those of the folder itself, since a recipe names either by the same digest.
"""

import sys
import tempfile
from pathlib import Path

from storage.errors import MissingInput, SpecError, TelltaleError
from storage.objects import Ref
from storage.opening import open_store
from storage.paths import absolute
from storage.store import Store
from tasks.brought_files import files_output, folder_digest, folder_files, write_files
from tasks.cache import cache_folder
from tasks.recipe import Output, StepRun, step
from tasks.variables import literal

STORED = "store:"
INDEX = "model_index.json"


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
    return files_output(folder_files(Path(path)))


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
            write_files(store, ref, whole)
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
