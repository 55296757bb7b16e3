"""Pictures that are in a source of photographs and in one of fakes: one of their two labels is wrong."""

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


def shared_rows(sha256: npt.NDArray[np.uint64], is_real: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Rows of a photograph and of a fake whose files are equal: int64 (M, 2), every shared file once, in order.

    Args:
        sha256: (N, 4), of the files.
        is_real: (N,).
    """
    real, fake = np.flatnonzero(is_real), np.flatnonzero(~is_real)
    digest = np.ascontiguousarray(sha256).view("S32").ravel()
    _, first, second = np.intersect1d(digest[real], digest[fake], return_indices=True)
    pairs = np.stack([real[first], fake[second]], axis=1)
    return pairs[np.argsort(pairs[:, 0])]


def refuse_shared_files(store: Store, sources: Sequence[tuple[str, str, Ref]]) -> None:
    """Refuse photographs and fakes that are the same files, or the same cells of a Parquet file, by their indices.

    Args:
        store: where the indices lie.
        sources: name, label and index of each source.

    Raises:
        SpecError: there are any; it names three.
    """
    tables = {label: [_cells(store, ref) for _, of, ref in sources if of == label] for label in ("real", "fake")}
    if not all(tables.values()):
        return
    real, fake = (pa.concat_tables(tables[label]) for label in ("real", "fake"))
    shared = real.filter(pc.is_in(real["cell"], value_set=fake["cell"]))
    if shared.num_rows:
        first = shared.slice(0, NAMED)
        as_fakes = fake["image_id"].take(pc.index_in(first["cell"], value_set=fake["cell"]))
        raise overlap(shared.num_rows, list(zip(first["image_id"].to_pylist(), as_fakes.to_pylist(), strict=True)))


def overlap(count: int, first: Sequence[Sequence[str]]) -> SpecError:
    """What is said of pictures that are photographs and fakes at once, of which the first are named as both."""
    named = ", ".join(f"{real!r} = {fake!r}" for real, fake in first) + (", ..." if count > NAMED else "")
    return SpecError(
        f"{count} pictures are in a source of photographs and in one of fakes ({named}): one of their labels is wrong, "
        "and every detector would learn it; take them out of one of the two, or set allow_overlap: true"
    )


def _cells(store: Store, entries: Ref) -> pa.Table:
    """`image_id`, and `cell`: what tells the bytes of a picture, the file's digest and in Parquet row and column."""
    with opened_part(store, entries) as part:
        table = pq.read_table(part, columns=["image_id", "file", "sha256"])
    table = table.filter(table["sha256"].is_valid())
    # `row:7:image:part-0.parquet` of a directory, `row:7` of a file; the name of a plain picture says nothing.
    row = pc.replace_substring_regex(table["file"], r"^(row:\d+(?::[^:]+)?)(?::.+\.parquet)?$", r"\1")
    cell = pc.if_else(pc.match_substring_regex(row, r"^row:\d+(?::[^:]+)?$"), row, "")
    return pa.table({"image_id": table["image_id"], "cell": pc.binary_join_element_wise(table["sha256"], cell, " ")})
