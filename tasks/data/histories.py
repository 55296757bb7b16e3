"""The encodings that pictures have been through, and which one the cleaner class takes so that both have the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from storage.objects import ROWS, Ref, notes_of, read_table
from storage.store import Store
from storage.tables import FAKE
from tasks.data.pictures import chroma_subsampling, has_own_tables
from tasks.data.views import SIZE_COLUMNS
from tasks.recipe import Output, StepRun, step
from tasks.spec.views import CLEAN_QUALITY, History

Encodings = Sequence[tuple[int, str, int]]

ENCODING_SCHEMA = pa.schema(
    [
        ("format", pa.string()),
        ("jpeg_quality", pa.int16()),  # null where it is no JPEG: its history cannot be told
        ("subsampling", pa.string()),  # "420", "422" or "444"; null where it is no JPEG
        ("own_tables", pa.bool_()),  # others than libjpeg makes for that quality; null where it is no JPEG
        ("count", pa.int64()),
    ]
)
# From so large a share of files with quantisation tables of their own on it is said that these are not matched.
MANY_OWN_TABLES = 0.25


def photographs_as(real: str, fake: str) -> str:
    """What photographs of a source are called when their last encoding is as that of a generator's files."""
    return f"{real}-as-{fake}"


def called(images: pa.Table, source: str, history: History | None) -> pa.Table:
    """Rows of pictures under another source's name, and as what they count with a history."""
    stated: dict[str, object] = {"source": source}
    if history is not None and history.control == "once":
        stated["label"] = FAKE
    for name, value in stated.items():
        index = images.column_names.index(name)
        field = images.schema.field(index)
        images = images.set_column(index, field, pa.array([value] * images.num_rows, field.type))
    return images


@step("encodings", version=2, label=lambda *, source, **_: source, unkeyed=("source",))
def count_encodings(run: StepRun, *, images: tuple[Ref, ...], source: str) -> Output:
    """How the files of a source are encoded: `ENCODING_SCHEMA`.

    The notes hold what planning asks: `jpegs`, those that are JPEG, [[quality, chroma subsampling, count], ...], and
    `clean`, [[shorter side, count], ...] of those of `CLEAN_QUALITY` or better and of those that are no JPEG.
    """
    counted: Counter[tuple[str, int | None, str | None, bool | None]] = Counter()
    clean: Counter[int] = Counter()
    for shard in images:
        table = read_table(run.store, shard, columns=["image", "format", *SIZE_COLUMNS])
        sizes = zip(*(table[name].to_pylist() for name in SIZE_COLUMNS), strict=True)
        clean.update(min(width, height) for width, height, q in sizes if q is None or q >= CLEAN_QUALITY)
        files = pc.struct_field(table["image"], "bytes")
        facts = zip(files, table["format"].to_pylist(), table["jpeg_quality"].to_pylist(), strict=True)
        counted.update(
            (form, None, None, None)
            if quality is None
            else (form, quality, chroma_subsampling(data.as_py()), has_own_tables(data.as_py()))
            for data, form, quality in facts
        )
    rows = [dict(zip(ENCODING_SCHEMA.names, (*kind, count), strict=True)) for kind, count in counted.items()]
    order = [(name, "ascending") for name in ENCODING_SCHEMA.names[:4]]
    table = pa.Table.from_pylist(rows, schema=ENCODING_SCHEMA).sort_by(order)
    jpegs: Counter[tuple[int, str]] = Counter()
    for (_, quality, subsampling, _), count in counted.items():
        if quality is not None and subsampling is not None:
            jpegs[quality, subsampling] += count
    listed = [[*kind, count] for kind, count in sorted(jpegs.items())]
    return Output({ROWS: table}, {"jpegs": listed, "clean": [list(item) for item in sorted(clean.items())]})


def encodings_of(store: Store, counted: Iterable[Ref]) -> Encodings:
    """(quality, subsampling, count) of the JPEG files of all sources that `count_encodings` told of, sorted."""
    together: Counter[tuple[int, str]] = Counter()
    for ref in counted:
        for quality, subsampling, count in notes_of(store, ref)["jpegs"]:
            together[quality, subsampling] += count
    return [(quality, subsampling, count) for (quality, subsampling), count in sorted(together.items())]


def are_all_jpegs(store: Store, counted: Iterable[Ref]) -> bool:
    """Whether every picture of these sources is a JPEG: of the clean ones, too, which others are as well."""
    for notes in (notes_of(store, ref) for ref in counted):
        clean_jpegs = sum(count for quality, _, count in notes["jpegs"] if quality >= CLEAN_QUALITY)
        if sum(count for _, count in notes["clean"]) > clean_jpegs:
            return False
    return True


def clean_pictures(store: Store, counted: Iterable[Ref], side: int) -> int:
    """How many clean pictures of these sources have a shorter side of so many pixels."""
    return sum(count for ref in counted for shorter, count in notes_of(store, ref)["clean"] if shorter >= side)


def matched_histories(
    fakes: Mapping[str, Encodings], photographs: Encodings, are_all_jpegs: bool
) -> tuple[dict[str, History | None], dict[str, History | None]]:
    """What photographs take that stand against each generator, and what the generator's own pictures take.

    Photographs take an encoding as the generator's files have; files of the generator that are no JPEG take one too.
    Where none of its files is a JPEG, it is the cleaner of the two: its pictures take one as the photographs have, and
    photographs that are JPEGs stay as they are. None: nothing is encoded.

    Args:
        are_all_jpegs: whether all photographs are. Those that are none take an encoding as the others have, where the
            generator's pictures do: else it would have a history that they lack.
    """

    def history(encodings: Encodings, of: str) -> History | None:
        return History(encodings=tuple(encodings), of=of) if encodings else None  # type: ignore[arg-type]

    of_others = None if are_all_jpegs else history(photographs, "fakes")
    for_photographs = {fake: history(encodings, "photographs") or of_others for fake, encodings in fakes.items()}
    for_fakes = {fake: history(encodings or photographs, "fakes") for fake, encodings in fakes.items()}
    return for_photographs, for_fakes


def control_histories(encodings: Encodings, photographs: Encodings) -> tuple[History, History]:
    """How the same photographs are encoded twice, as matched ones are, and once, as fakes are; for `encodings`."""
    clean = tuple(one for one in photographs if one[0] >= CLEAN_QUALITY)
    of = {"encodings": tuple(encodings), "of": "photographs"}
    return (
        History.model_validate(of | {"control": "twice", "clean": clean}),
        History.model_validate(of | {"control": "once"}),
    )
