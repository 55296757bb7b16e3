"""Pictures in two sources that contradict each other: photographs and fakes, or what is trained on and what is not."""

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.errors import SpecError
from storage.objects import Ref, opened_part
from storage.store import Store

NAMED = 3


def equal_rows(one: npt.NDArray[np.uint64], other: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Rows of two arrays of sha256, (N, 4) and (K, 4), that are equal: int64 (M, 2), each digest once, in order."""
    first, second = (np.ascontiguousarray(digests).view("S32").ravel() for digests in (one, other))
    _, a, b = np.intersect1d(first, second, return_indices=True)
    pairs = np.stack([a, b], axis=1).astype(np.int64)
    return pairs[np.argsort(pairs[:, 0])]


def refuse_shared_files(store: Store, sources: Sequence[tuple[str, Ref]]) -> None:
    """Refuse sources of different roles that have the same files, or the same cells of a Parquet file, by their index.

    Args:
        store: where the indices lie.
        sources: role and index of each source. Roles are `real`, `fake` and `unseen`, which no detector is trained on.

    Raises:
        SpecError: there are any; it names three.
    """
    cells = {
        role: pa.concat_tables([_cells(store, ref) for of, ref in sources if of == role])
        for role in sorted({role for role, _ in sources})
    }
    for one, other in itertools.combinations(cells.values(), 2):
        shared = one.filter(pc.is_in(one["cell"], value_set=other["cell"]))
        if shared.num_rows:
            first = shared.slice(0, NAMED)
            there = other["image_id"].take(pc.index_in(first["cell"], value_set=other["cell"]))
            raise overlap(shared.num_rows, list(zip(first["image_id"].to_pylist(), there.to_pylist(), strict=True)))


def overlap(count: int, first: Sequence[Sequence[str]]) -> SpecError:
    """What is said of pictures in sources that contradict each other, of which the first are named as both."""
    named = ", ".join(f"{one!r} = {other!r}" for one, other in first) + (", ..." if count > NAMED else "")
    return SpecError(
        f"{count} pictures are in two sources that contradict each other, photographs and fakes or seen and unseen "
        f"({named}): what is learned or measured of them is wrong; take them out of one, or set allow_overlap: true"
    )


def _cells(store: Store, entries: Ref) -> pa.Table:
    """`image_id`, and `cell`: what tells the bytes of a picture, the file's digest and in Parquet row and column."""
    with opened_part(store, entries) as part:
        table = pq.read_table(part, columns=["image_id", "file", "sha256"], use_threads=False, pre_buffer=False)
    table = table.filter(table["sha256"].is_valid())
    # `row:7:image:part-0.parquet` of a directory, `row:7` of a file; the name of a plain picture says nothing.
    row = pc.replace_substring_regex(table["file"], r"^(row:\d+(?::[^:]+)?)(?::.+\.parquet)?$", r"\1")
    cell = pc.if_else(pc.match_substring_regex(row, r"^row:\d+(?::[^:]+)?$"), row, "")
    return pa.table({"image_id": table["image_id"], "cell": pc.binary_join_element_wise(table["sha256"], cell, " ")})
