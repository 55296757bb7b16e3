"""Feature shards: every picture of an image shard in every view that is asked for, described by an extractor."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from typing import BinaryIO, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.errors import BadImage
from storage.objects import ROWS, Ref, opened_part
from storage.tables import FEATURE_COLUMNS, features_table
from tasks.data.histories import called
from tasks.data.views import SIZE_COLUMNS, has_window, is_enlarged, make_views, reduced_size
from tasks.device import device_alone
from tasks.features.base import Array, Extractor
from tasks.features.kinds import ExtractorSpec
from tasks.pieces import Pieces
from tasks.recipe import Output, StepRun, step
from tasks.spec.views import Canonical, View
from tasks.threads import helper_threads, in_order

# How far decoding may be ahead of the extractor, per thread.
DECODED_AHEAD = 4

# What a shard may keep in memory does not grow with it: pictures are read in pieces, and of a view's features so many
# bytes (a thousand of 4,096) are kept; more are in a temporary file until their table is written.
_FILES_AT_ONCE = 32
_READ_BYTES = 1 << 20
_KEPT_BYTES = 16 << 20

Rows = Literal["all", "tested"]


@dataclass
class ViewFeatures:
    """What is known of one view so far: `rows` are row numbers of the image shard, in order."""

    extractor: Extractor
    pieces: Pieces | None = None  # where whole batches are kept for an attempt that goes on
    windows: int = 1  # of a picture, whose features are averaged
    rows: list[int] = field(default_factory=list)
    begin: int = 0  # the first row that no earlier attempt finished
    left_out: int = 0  # too small for a view, or of another history than it compares
    unmatched: int = 0  # among them those whose own encoding would be seen under that of the other class
    enlarged: int = 0  # too small for a fair view, and taken nevertheless
    undecodable: int = 0
    _pending: list[Sequence[Array]] = field(default_factory=list)
    _embedded: list[npt.NDArray[np.float32]] = field(default_factory=list)
    _spilled: BinaryIO | None = None
    _spilled_rows: int = 0
    _in_pieces: tuple[int, int] = (0, 0)  # how many rows of the image shard, and how many of `rows`

    def resume(self) -> None:
        """Take over what earlier attempts finished.

        Every piece begins and ends between two batches, wherever an attempt broke off: what is computed now falls into
        the same batches as without a break. Behind a gap nothing is taken.
        """
        assert self.pieces is not None
        for piece in self.pieces.read():
            start, stop = (int(piece.schema.metadata[name]) for name in (b"start", b"stop"))
            if start > self.begin:
                break
            rows, matrix = _piece_content(piece, self.extractor.dimension)
            fresh = rows >= self.begin  # another attempt may have written batches that this piece holds as well
            self.rows += rows[fresh].tolist()
            self._keep(matrix[fresh])
            self.begin = max(self.begin, stop)
        self._in_pieces = (self.begin, len(self.rows))

    def add(self, row: int, items: Sequence[Array]) -> None:
        """Take one picture, an item for each of its windows.

        Batches are full ones in row order, whatever other views are computed beside this one.
        """
        self.rows.append(row)
        self._pending.append(items)
        if len(self._pending) == self.extractor.batch:
            self._flush()
            if self.pieces is not None and self.pieces.due():
                start, first = self._in_pieces
                piece = _piece(self.rows[first:], self._matrix_from(first), start, row + 1)
                self.pieces.write(piece, number=start)
                self._in_pieces = (row + 1, len(self.rows))

    def matrix(self) -> npt.NDArray[np.float32]:
        """The features of `rows`: (N, D)."""
        self._flush()
        return self._matrix_from(0)

    def close(self) -> None:
        """Give up what was kept."""
        self._embedded = []
        if self._spilled is not None:
            self._spilled.close()

    def _flush(self) -> None:
        if self._pending:
            self._keep(self._means())
            self._pending = []

    def _means(self) -> npt.NDArray[np.float32]:
        """The features of what is pending, averaged over the windows of a picture: (B, D)."""
        if self.windows == 1:
            return self.extractor.embed([item for items in self._pending for item in items])
        # No more at once than a batch has: what an extractor may need of memory does not grow with the windows.
        of_window = [self.extractor.embed([items[index] for items in self._pending]) for index in range(self.windows)]
        means: npt.NDArray[np.float64] = np.mean(of_window, axis=0, dtype=np.float64)
        return means.astype(np.float32)

    def _keep(self, batch: npt.NDArray[np.float32]) -> None:
        self._embedded.append(batch)
        if sum(batch.nbytes for batch in self._embedded) > _KEPT_BYTES:
            if self._spilled is None:
                self._spilled = TemporaryFile()  # noqa: SIM115 - it outlives this call
            self._spilled.seek(0, io.SEEK_END)
            for batch in self._embedded:
                self._spilled.write(np.ascontiguousarray(batch, dtype="<f4").data)
                self._spilled_rows += len(batch)
            self._embedded = []

    def _matrix_from(self, first: int) -> npt.NDArray[np.float32]:
        """The features of `rows[first:]`, of which none is pending."""
        matrix = np.empty((len(self.rows) - first, self.extractor.dimension), dtype="<f4")
        filled = max(0, self._spilled_rows - first)
        if self._spilled is not None and filled:
            self._spilled.seek(first * self.extractor.dimension * matrix.itemsize)
            self._spilled.readinto(matrix[:filled].reshape(-1).view(np.uint8))  # type: ignore[attr-defined]
        skipped = max(0, first - self._spilled_rows)
        for batch in self._embedded:
            taken = batch[skipped:]
            skipped = max(0, skipped - len(batch))
            matrix[filled : filled + len(taken)] = taken
            filled += len(taken)
        return matrix


def _piece(rows: Sequence[int], matrix: npt.NDArray[np.float32], start: int, stop: int) -> pa.Table:
    """What is known of the rows `start` to `stop` (exclusive) of an image shard in one view."""
    width = matrix.shape[1] * matrix.itemsize
    column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(rows), [None, pa.py_buffer(matrix)])
    place = {"start": str(start), "stop": str(stop)}
    return pa.table({"row": pa.array(rows, pa.int64()), "embedding": column}).replace_schema_metadata(place)


def _piece_content(piece: pa.Table, dimension: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    column = piece["embedding"].combine_chunks()
    assert column.type.byte_width == dimension * 4, "the pieces of another extractor"
    values = np.frombuffer(column.buffers()[1], "<f4", len(column) * dimension, column.offset * dimension * 4)
    return piece["row"].to_numpy(), values.reshape(len(column), dimension)


@dataclass(frozen=True)
class _Sizes:
    """What decides which pictures a view leaves out, row by row.

    `windows` are the sizes that pictures have when a window is cut from them. `small` says whose square would be
    enlarged to the canonical side, `unmatched` whose own encoding would be seen under that of their history.
    """

    windows: list[tuple[int, int]]
    small: list[bool]
    unmatched: list[bool]
    enlarge: bool

    @classmethod
    def of(cls, images: pa.Table, canonical: Canonical, enlarge: bool) -> _Sizes:
        width, height, quality = (images[name].to_pylist() for name in SIZE_COLUMNS)
        sizes, history = list(zip(width, height, strict=True)), canonical.history
        return cls(
            windows=[reduced_size(*size, history) for size in sizes],
            small=[is_enlarged(*size, canonical) for size in sizes],
            unmatched=[history is not None and history.leaves_out(one) for one in quality],
            enlarge=enlarge,
        )

    def leave_out(self, view: View, row: int) -> bool:
        if view.path == "crop":
            return not has_window(*self.windows[row], view) or self.unmatched[row]
        return self.small[row] and view.path == "fair" and not self.enlarge


def embed_images(
    images: pa.Table,
    views: Sequence[View],
    extractor: Extractor,
    canonical: Canonical,
    *,
    enlarge: bool,
    files: Iterable[bytes] | None = None,
    begun: Mapping[View, ViewFeatures] | None = None,
    advance: Callable[[int], None] = lambda count: None,
    threads: int = 1,
) -> dict[View, ViewFeatures]:
    """Features of an image shard (`IMAGE_SCHEMA`) in several views; each picture is decoded once.

    `files` are the pictures' bytes, in order, where the table does not hold them itself. `begun` are views of which
    earlier attempts finished some rows, or whose rows are to be kept for later ones.

    A view of the crop path leaves out pictures smaller than its window, and those that their `canonical.history` leaves
    out. A fair view leaves out pictures whose central square is smaller than the canonical side, since they would be
    enlarged where others are reduced, unless `enlarge`. An undecodable picture is left out of every view. Both are
    counted. `advance` is called with the number of (picture, view) pairs just done. So many `threads` decode the
    pictures and prepare their views while the extractor computes.
    """
    features = {view: ViewFeatures(extractor, windows=view.windows) for view in views} | dict(begun or {})
    if files is None:
        files = (data.as_py() for data in pc.struct_field(images["image"], "bytes"))
    image_ids = images["image_id"].to_pylist()
    sizes = _Sizes.of(images, canonical, enlarge)

    def prepared(numbered: tuple[int, bytes]) -> dict[View, list[Array]]:
        """The items of one picture in the views that are not finished; none where it does not decode."""
        row, data = numbered
        wanted = [view for view in views if row >= features[view].begin and not sizes.leave_out(view, row)]
        single = [one for view in wanted for one in view.each_window]
        try:
            pictures = make_views(data, image_ids[row], list(dict.fromkeys(single)), canonical) if wanted else {}
        except BadImage:
            return {}
        items = {one: extractor.prepare(data, one, picture) for one, picture in pictures.items()}
        return {view: [items[one] for one in view.each_window] for view in wanted}

    ahead = DECODED_AHEAD * threads
    for row, items in enumerate(in_order(prepared, enumerate(files), threads=threads, ahead=ahead)):
        for view, item in items.items():
            features[view].add(row, item)
        advance(sum(row >= features[view].begin for view in views))
    for view, known in features.items():
        known.left_out = sum(sizes.leave_out(view, row) for row in range(len(image_ids)))
        known.unmatched = sum(sizes.unmatched)
        known.enlarged = sum(sizes.small[row] for row in known.rows) if view.path == "fair" else 0
        known.undecodable = len(image_ids) - known.left_out - len(known.rows)
    return features


def _label(*, views: View, extractor: ExtractorSpec, source: str, shard: int, **_: object) -> str:
    return f"{extractor.name}/{views.name}/{source}-{shard:05d}"


@step(
    "embed",
    version=3,
    label=_label,
    each="views",
    libraries=("torch", "torchvision", "ncnn", "pillow", "pillow-heif", "simplejpeg"),
    pool=lambda *, extractor, **_: extractor.pool,
)
def embed_shard(
    run: StepRun,
    *,
    images: Ref,
    views: tuple[View, ...],
    extractor: ExtractorSpec,
    weights: Ref | None,
    canonical: Canonical,
    enlarge: bool,
    source: str,
    shard: int,
    device: str,
    rows: Rows,
) -> Mapping[View, Output]:
    """Features of one image shard in every view that is missing, one object per view.

    `source` is what the rows are called: photographs with the history of a generator's files are a source of their own.
    `extractor` is the keyed one, `weights` what it imported into the store; `enlarge` for sources that are smaller by
    nature; `device` is `cpu` or `cuda`. With `rows` "tested" pictures that no rotation tests are left out: for features
    on which nothing is fitted. An attempt after one that broke off goes on after the last pieces of each view.
    """
    with opened_part(run.store, images) as file:
        shard_file = pq.ParquetFile(file, buffer_size=_READ_BYTES, pre_buffer=False)
        table = shard_file.read(columns=[*FEATURE_COLUMNS, *SIZE_COLUMNS])
        chosen = np.ones(table.num_rows, dtype=bool)
        if rows != "all":
            role = pc.or_kleene(pc.equal(table["split"], "test"), pc.is_valid(table["fold"]))
            chosen = pc.fill_null(role, False).to_numpy()
            table = table.filter(pa.array(chosen))
        with device_alone(device):
            describing = extractor.load(run.store, weights, device)
            begun = {
                view: ViewFeatures(describing, Pieces(run.store, run.checkpoints_of(view)), view.windows)
                for view in views
            }
            try:
                for known in begun.values():
                    known.resume()
                done = sum(known.begin for known in begun.values())
                progress = run.progress(table.num_rows * len(views), done=done, device=device)
                described = embed_images(
                    table,
                    views,
                    describing,
                    canonical,
                    enlarge=enlarge,
                    files=_files(shard_file, chosen),
                    begun=begun,
                    advance=progress.advance,
                    threads=helper_threads(device),
                )
            except BaseException:
                for known in begun.values():
                    known.close()
                raise
    return _Outputs(called(table, source, canonical.history), described)


def _files(shard: pq.ParquetFile, chosen: npt.NDArray[np.bool_]) -> Iterator[bytes]:
    """The bytes of the chosen pictures, a few of which are in memory at a time."""
    row = 0
    for batch in shard.iter_batches(batch_size=_FILES_AT_ONCE, columns=["image.bytes"]):
        for data in pc.struct_field(batch["image"], "bytes"):
            if chosen[row]:
                yield data.as_py()
            row += 1


class _Outputs(Mapping[View, Output]):
    """One output per view, each made when it is asked for, once: together they are as large as all features."""

    def __init__(self, table: pa.Table, described: dict[View, ViewFeatures]) -> None:
        self._table = table
        self._described = described

    def __getitem__(self, view: View) -> Output:
        features = self._described[view]
        output = _output(self._table, features)
        features.close()
        return output

    def __iter__(self) -> Iterator[View]:
        return iter(self._described)

    def __len__(self) -> int:
        return len(self._described)


def _output(images: pa.Table, features: ViewFeatures) -> Output:
    identity = images.select(list(FEATURE_COLUMNS)).take(pa.array(features.rows, pa.int64()))
    notes = {
        "rows": len(features.rows),
        "dimension": features.extractor.dimension,
        "left_out": features.left_out,
        "unmatched": features.unmatched,
        "enlarged": features.enlarged,
        "undecodable": features.undecodable,
    }
    return Output({ROWS: features_table(identity, features.matrix())}, notes, features.pieces)
