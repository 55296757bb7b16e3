"""Embedding that breaks off goes on where it was, to the very bytes of an undisturbed run."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storage.local import LocalStore
from storage.objects import Ref, manifest_of, notes_of
from tasks import pieces
from tasks.data.views import make_views
from tasks.features import shards as features_module
from tasks.features.base import Extractor
from tasks.features.vgg16 import Vgg16Spec
from tasks.spec.views import View
from tests.unit.embedded_shards import (
    FAIR,
    FAIR_Q20,
    RAW,
    RAW_NATIVE,
    VGG16,
    VIEWS,
    embed,
    image_table,
    jpeg,
    png,
    shard,
)

BATCH = 3


class Killed(BaseException):
    """What ends a worker in the middle of its work."""


class Counted:
    """An extractor whose features say in which batch they were computed; it ends a worker before a given batch."""

    def __init__(self) -> None:
        self.batches = 0
        self.prepared: list[View] = []
        self.last = -1
        self.before: Callable[[int], None] = lambda batch: None

    def extractor(self, *_: Any) -> Extractor:
        def prepare(data: bytes, view: View, picture: Any) -> np.ndarray:
            self.prepared.append(view)
            values: np.ndarray = picture.pixels.reshape(-1)[:64].astype(np.float32)
            return values

        def computed(items: Sequence[np.ndarray]) -> np.ndarray:
            if self.batches == self.last:
                raise Killed
            self.before(self.batches)
            self.batches += 1
            batch = np.stack(items)
            return np.concatenate([batch + batch.sum(axis=0), np.full((len(batch), 1), len(batch))], axis=1).astype(
                "f4"
            )

        return Extractor(prepare, computed, BATCH, 65)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    made = Counted()
    monkeypatch.setattr(Vgg16Spec, "load", made.extractor)
    return made


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A piece after each batch."""
    monkeypatch.setattr(pieces, "PERIOD_S", 0.0)


def begun(place: Path) -> tuple[LocalStore, Ref]:
    """A store with a shard of seventeen pictures, of which two are small and two break off."""
    store = LocalStore(place)
    files = [(jpeg(64, seed), 80, 64) for seed in range(17)]
    files[1] = files[8] = (png(40), 40, 40)
    files[4] = files[9] = (jpeg(64)[:200], 80, 64)
    return store, shard(store, image_table(files))


def contents(store: LocalStore, refs: Sequence[Ref]) -> list[tuple[str, dict[str, Any]]]:
    return [(manifest_of(store, ref).content, notes_of(store, ref)) for ref in refs]


def undisturbed(place: Path) -> list[tuple[str, dict[str, Any]]]:
    store, images = begun(place)
    made = contents(store, embed(store, images))
    assert not store.list("checkpoints")
    return made


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("breaks", [(0,), (1,), (3,), (7,), (10,), (17,), (18,), (2, 3, 1, 5), (4,) * 4])
def test_an_embedding_that_breaks_off_anywhere_gives_the_undisturbed_bytes(
    tmp_path: Path, counted: Counted, breaks: tuple[int, ...]
) -> None:
    expected = undisturbed(tmp_path / "whole")
    total = counted.batches
    store, images = begun(tmp_path / "broken")
    counted.batches = 0
    for more in breaks:
        counted.last = counted.batches + more
        with pytest.raises(Killed):
            embed(store, images)
    counted.last = -1
    assert contents(store, embed(store, images)) == expected
    # All that is computed again is what was incomplete at a break: here a view's last batch.
    assert total <= counted.batches <= total + sum(len(VIEWS) for _ in breaks)
    assert not store.list("checkpoints")


@pytest.mark.usefixtures("at_once")
def test_finished_batches_are_neither_prepared_nor_computed_again(tmp_path: Path, counted: Counted) -> None:
    store, images = begun(tmp_path)
    counted.last = 8
    with pytest.raises(Killed):
        embed(store, images)
    kept = store.list("checkpoints")
    assert len(kept) == 8
    counted.last, counted.batches = -1, 0
    counted.prepared.clear()
    rows = [notes_of(store, ref)["rows"] for ref in embed(store, images)]
    assert len(counted.prepared) == sum(rows) - 8 * BATCH
    assert counted.batches == sum(-(-count // BATCH) for count in rows) - 8


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("second", [(FAIR_Q20,), (RAW_NATIVE, FAIR), (FAIR, RAW, RAW_NATIVE)])
def test_another_subset_of_views_goes_on_with_its_own_pieces(
    tmp_path: Path, counted: Counted, second: tuple[View, ...]
) -> None:
    expected = undisturbed(tmp_path / "whole")
    store, images = begun(tmp_path / "broken")
    counted.last, counted.batches = 9, 0
    with pytest.raises(Killed):
        embed(store, images, views=(FAIR, FAIR_Q20, RAW))
    counted.last, counted.batches = 1, 0
    with pytest.raises(Killed):
        embed(store, images, views=second)
    counted.last = -1
    of_second = contents(store, embed(store, images, views=second))
    assert of_second == [expected[VIEWS.index(view)] for view in second]
    assert contents(store, embed(store, images)) == expected
    assert not store.list("checkpoints")


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_a_damaged_piece_is_computed_again(
    tmp_path: Path, counted: Counted, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    expected = undisturbed(tmp_path / "whole")
    store, images = begun(tmp_path / "broken")
    counted.last = counted.batches + 4
    with pytest.raises(Killed):
        embed(store, images, views=(RAW,))
    key = store.list("checkpoints")[number]
    data = bytearray(store.read(key))
    data[len(data) // 2] ^= 1
    store.write(key, bytes(data))
    counted.last = -1
    with caplog.at_level(logging.WARNING):
        assert contents(store, embed(store, images, views=(RAW,))) == expected[2:3]
    assert caplog.text.count("damaged piece") == 1
    assert not store.list("checkpoints")


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(("first", "second"), [(2, 5), (5, 9), (6, None)])
def test_two_workers_on_one_shard_do_not_harm_each_other(
    tmp_path: Path, counted: Counted, first: int, second: int | None
) -> None:
    expected = undisturbed(tmp_path / "whole")
    store, images = begun(tmp_path / "shared")
    start = counted.batches

    def join(batch: int) -> None:
        """Another worker, while the first is in the middle of a batch."""
        if batch == start + first:
            counted.before = lambda batch: None
            counted.last = -1 if second is None else counted.batches + second
            if second is None:
                assert contents(store, embed(store, images)) == expected
            else:
                with pytest.raises(Killed):
                    embed(store, images)
            counted.last = counted.batches + 3

    counted.before = join
    with pytest.raises(Killed):
        embed(store, images)
    counted.last = -1
    assert contents(store, embed(store, images)) == expected


@pytest.mark.parametrize("spans", [(1, 2), (2, 3), (3, 1, 2), (4, 3)])
def test_of_pieces_that_overlap_each_batch_is_taken_once(
    tmp_path: Path, counted: Counted, spans: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = undisturbed(tmp_path / "whole")
    store, images = begun(tmp_path / "shared")
    for number, batches in enumerate(spans):  # each by a worker that knows nothing of the others
        alone, of_alone = begun(tmp_path / f"{number}")
        looks = itertools.count(1)
        counted.last = counted.batches + 4
        due = lambda _, every=batches, looks=looks: next(looks) % every == 0  # noqa: E731
        monkeypatch.setattr(pieces.Due, "__call__", due)
        with pytest.raises(Killed):
            embed(alone, of_alone, views=(RAW,))
        for key in alone.list("checkpoints"):
            store.write(key, alone.read(key))
    counted.last, first = -1, counted.batches
    assert contents(store, embed(store, images, views=(RAW,))) == expected[2:3]
    assert counted.batches - first == 5 - max(4 // batches * batches for batches in spans)


def test_a_store_that_fails_in_the_middle_loses_nothing_that_was_kept(
    tmp_path: Path, counted: Counted, at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = undisturbed(tmp_path / "whole")
    store, images = begun(tmp_path / "broken")
    write = store.write
    for allowed in (0, 1, 6, 11, 30):
        left = [allowed]

        def failing(key: str, data: bytes, left: list[int] = left) -> None:
            if not left[0]:
                raise OSError("the store is away")
            left[0] -= 1
            write(key, data)

        monkeypatch.setattr(store, "write", failing)
        if allowed < 30:
            with pytest.raises(OSError, match="away"):
                embed(store, images)
    assert contents(store, embed(store, images)) == expected


def test_a_shard_of_under_a_minute_writes_no_pieces(
    tmp_path: Path, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, images = begun(tmp_path)
    written: list[str] = []
    write = store.write

    def noted(key: str, data: bytes) -> None:
        written.append(key)
        write(key, data)

    monkeypatch.setattr(store, "write", noted)
    embed(store, images)
    assert len(written) == len(VIEWS)
    assert all(key.startswith("objects/embed/") for key in written)


@pytest.mark.usefixtures("at_once")
def test_what_waits_in_a_file_is_kept_as_well(
    tmp_path: Path, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = undisturbed(tmp_path / "whole")
    monkeypatch.setattr(features_module, "_KEPT_BYTES", 2 * BATCH * 65 * 4)
    store, images = begun(tmp_path / "broken")
    counted.last = counted.batches + 17
    with pytest.raises(Killed):
        embed(store, images)
    counted.last = -1
    assert contents(store, embed(store, images)) == expected


@pytest.mark.usefixtures("at_once")
def test_with_the_real_network_an_interrupted_shard_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, images = begun(tmp_path / "whole")
    expected = contents(store, embed(store, images, views=(FAIR, RAW)))
    other, images = begun(tmp_path / "broken")
    batches: list[int] = []

    def ending(*given: Any) -> Any:
        batches.append(1)
        if len(batches) == 12:
            raise Killed
        return make_views(*given)

    with monkeypatch.context() as patch:
        patch.setattr(features_module, "make_views", ending)
        with pytest.raises(Killed):
            embed(other, images, views=(FAIR, RAW))
    assert len(other.list("checkpoints")) > 2 * VGG16.batch
    assert contents(other, embed(other, images, views=(FAIR, RAW))) == expected
