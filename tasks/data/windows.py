"""How many pictures have a window, and whether a detector can be fitted and calibrated on these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from storage.objects import ROWS, Ref, notes_of, read_table
from storage.store import Store
from storage.tables import FAKE, REAL
from tasks.data.splits import role
from tasks.data.views import SIZE_COLUMNS
from tasks.recipe import Output, StepRun, step
from tasks.spec.splits import Splits
from tasks.spec.views import CLEAN_QUALITY

WINDOW_SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("fold", pa.int16()),
        ("pictures", pa.int64()),
        ("windows", pa.int64()),  # those among them whose shorter side has as many pixels as the window
        ("clean", pa.int64()),  # and among these those that no own encoding is seen of under another
    ]
)

Among = Literal["pictures", "windows", "clean"]


@dataclass(frozen=True)
class Counted:
    """How many pictures of a source, by the split and fold that they are in, take part: some (split, fold, count)."""

    label: int
    places: tuple[tuple[str | None, int | None, int], ...]

    @classmethod
    def of(cls, store: Store, windows: Ref, label: int, among: Among) -> Counted:
        """All pictures that `count_windows` told of, those that have a window, or clean ones that have one."""
        places = notes_of(store, windows)["places"]
        return cls(label, tuple((one["split"], one["fold"], one[among]) for one in places))

    @property
    def total(self) -> int:
        return sum(count for _, _, count in self.places)

    @property
    def tested(self) -> int:
        """How many of them are tested: those of the split `test`, or of any fold."""
        return sum(count for split, _, count in self.places if split in (None, "test"))

    def as_role(self, wanted: str, rotation: int, splits: Splits) -> int:
        """How many of them are train, val or test in a rotation."""
        places = (({"split": split, "fold": fold}, count) for split, fold, count in self.places)
        return sum(count for row, count in places if role(row, rotation, splits) == wanted)


def why_not_fitted(counted: Sequence[Counted], splits: Splits) -> str:
    """Which class a detector that is fitted on these would lack, in train or in val; empty where it lacks none."""
    for rotation in range(splits.rotations):
        for wanted in ("train", "val"):
            for label, what in ((REAL, "photograph"), (FAKE, "generated picture")):
                if not any(one.as_role(wanted, rotation, splits) for one in counted if one.label == label):
                    return f"no {what} is {wanted} in rotation {rotation}"
    return ""


@step("windows", version=1, label=lambda *, source, side, **_: f"{source}/{side}", unkeyed=("source",))
def count_windows(run: StepRun, *, images: tuple[Ref, ...], source: str, side: int) -> Output:
    """How many pictures of a source have a window of `side` pixels, by split and fold: `WINDOW_SCHEMA`.

    The notes hold the same as `places`, which planning asks.
    """
    counted: Counter[tuple[str | None, int | None, bool, bool]] = Counter()
    for shard in images:
        table = read_table(run.store, shard, columns=["split", "fold", *SIZE_COLUMNS])
        for row in table.to_pylist():
            clean = row["jpeg_quality"] is None or row["jpeg_quality"] >= CLEAN_QUALITY
            counted[row["split"], row["fold"], min(row["width"], row["height"]) >= side, clean] += 1
    rows = []
    for split, fold in dict.fromkeys((split, fold) for split, fold, _, _ in counted):
        of_place = {key[2:]: count for key, count in counted.items() if key[:2] == (split, fold)}
        windows = sum(count for (has_window, _), count in of_place.items() if has_window)
        sizes: dict[str, Any] = {"pictures": sum(of_place.values()), "windows": windows}
        sizes["clean"] = of_place.get((True, True), 0)
        rows.append(sizes | {"split": split, "fold": fold})
    table = pa.Table.from_pylist(rows, schema=WINDOW_SCHEMA).sort_by([("split", "ascending"), ("fold", "ascending")])
    return Output({ROWS: table}, {"places": table.to_pylist()})
