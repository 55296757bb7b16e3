"""Peak memory of embedding an image shard in twelve views, against holding all decoded pictures.

    python -m benchmarks.memory plain|ours stub|vgg16 FOLDER     (one measurement in a process of its own)

The network `stub` describes a view by its first 4,096 values, so that nothing but telltale's own way remains; `vgg16`
is the first project's, with random weights.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.harness import Case, Unequal, printed_apart
from benchmarks.inputs import CANONICAL, grid, pictures
from storage.objects import ROWS, Ref, commit, read_table
from storage.opening import open_store
from storage.store import Store
from storage.tables import IMAGE_SCHEMA
from tasks.data.perturbations.base import ViewPicture
from tasks.data.pictures import Pixels, decode_rgb, inspect_picture
from tasks.data.views import apply_view, fair_canonical
from tasks.features.base import Extractor
from tasks.features.shards import embed_shard
from tasks.features.vgg16 import Vgg16Spec
from tasks.spec.views import View
from tasks.threads import limit_threads

VGG16 = Vgg16Spec(layer="fc7", side=224, weights="random:0")
DIMENSIONS = 4_096
BATCH = 16
_REF = "ref.json"


@contextmanager
def memory_case(size: int, threads: int, network: str) -> Iterator[Case]:
    """An image shard of so many pictures in a store of its own."""
    with tempfile.TemporaryDirectory(prefix="telltale-bench-") as folder:
        write_shard(Path(folder), size)

        def equality(one: dict[str, str], other: dict[str, str]) -> str:
            if one != other:
                raise Unequal(f"other features in {[view for view in one if one[view] != other.get(view)]}")
            return f"features of {len(one)} views equal, bit for bit"

        yield Case(lambda: _apart("plain", network, folder), lambda: _apart("ours", network, folder), equality)


def write_shard(folder: Path, count: int) -> Ref:
    """An image shard of so many pictures, and its ref beside the store."""
    rows = []
    for image_id, data in pictures(count):
        facts = inspect_picture(data)
        rows.append(
            {
                "image": {"bytes": data, "path": image_id},
                "image_id": image_id,
                "group_id": image_id,
                "source": "photographs",
                "label": 0,
                "split": "train",
                "width": facts.width,
                "height": facts.height,
                "format": facts.format,
            }
        )
    table = pa.Table.from_pylist(rows, schema=IMAGE_SCHEMA)
    store = _store(folder)
    ref = commit(store, "objects/shard/x", step="shard", digest="0" * 64, recipe={}, parts={ROWS: table})
    (folder / _REF).write_text(ref.model_dump_json(), encoding="utf-8")
    return ref


def stub_extractor() -> Extractor:
    """A view's first values as its features."""
    return Extractor(prepare=_first_values, embed=np.stack, batch=BATCH, dimension=DIMENSIONS)


def embed_here(store: Store, images: Ref, network: str) -> dict[str, Ref]:
    """Run the step itself: the features of each view, by its name."""
    if network == "stub":
        with patch.object(Vgg16Spec, "load", lambda *_: stub_extractor()):
            return _embedded(store, images)
    return _embedded(store, images)


def _embedded(store: Store, images: Ref) -> dict[str, Ref]:
    views = grid("fair")
    refs, _ = embed_shard.compute(
        store,
        images=images,
        views=views,
        extractor=VGG16,
        weights=None,
        canonical=CANONICAL,
        enlarge=False,
        source="photographs",
        shard=0,
        device="cpu",
        rows="all",
    )
    return {view.name: ref for view, ref in zip(views, refs, strict=True)}


def embed_plainly(store: Store, images: Ref, network: str) -> dict[str, str]:
    """Decode all pictures, then make each view of all of them."""
    limit_threads()
    extractor = stub_extractor() if network == "stub" else VGG16.load(store, None, "cpu")
    table = read_table(store, images)
    ids = table["image_id"].to_pylist()
    decoded: list[Pixels] = [decode_rgb(data) for data in pc.struct_field(table["image"], "bytes").to_pylist()]
    canonical = [fair_canonical(rgb, image_id, CANONICAL) for rgb, image_id in zip(decoded, ids, strict=True)]
    digests = {}
    for view in grid("fair"):
        items = [extractor.prepare(b"", view, apply_view(picture, view)) for picture in canonical]
        batches = [items[start : start + extractor.batch] for start in range(0, len(items), extractor.batch)]
        embedded = np.concatenate([extractor.embed(batch) for batch in batches])
        digests[view.name] = hashlib.sha256(embedded.tobytes()).hexdigest()
    return digests


def _first_values(data: bytes, view: View, picture: ViewPicture) -> npt.NDArray[np.float32]:
    return picture.pixels.reshape(-1)[:DIMENSIONS].astype(np.float32)


def _digest(store: Store, ref: Ref) -> str:
    sha256 = hashlib.sha256()
    for value in read_table(store, ref)["embedding"]:
        sha256.update(value.as_py())
    return sha256.hexdigest()


def peak_memory() -> int:
    """The most memory that this process has had at once, in bytes (its own: `ru_maxrss` may be a parent's)."""
    return _status("VmHWM")


def current_memory() -> int:
    """The memory that this process has now, in bytes."""
    return _status("VmRSS")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def _store(folder: Path) -> Store:
    return open_store(str(folder / "store"))


def _apart(way: str, network: str, folder: str) -> tuple[float, dict[str, str]]:
    # What an earlier run made would only be found.
    shutil.rmtree(Path(folder) / "store" / "objects" / "embed", ignore_errors=True)
    document = printed_apart("memory", way, network, folder)
    return document["peak"], document["digests"]


def main(arguments: Sequence[str]) -> None:
    """One way in this process: its peak and what it made."""
    way, network, folder = arguments
    store = _store(Path(folder))
    ref = Ref.model_validate_json((Path(folder) / _REF).read_text(encoding="utf-8"))
    if way == "plain":
        digests = embed_plainly(store, ref, network)
        peak = peak_memory()
    else:
        embedded = embed_here(store, ref, network)
        peak = peak_memory()
        digests = {view: _digest(store, made) for view, made in embedded.items()}
    print(json.dumps({"peak": peak, "digests": digests}))


if __name__ == "__main__":
    main(sys.argv[1:])
