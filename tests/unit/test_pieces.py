"""Pieces of unfinished objects: written about once a minute, read once, and gone with the object that holds them."""

import logging
from pathlib import Path

import pyarrow as pa
import pytest

from storage.local import LocalStore
from storage.objects import ROWS
from tasks.pieces import PERIOD_S, Pieces, RowPieces
from tasks.recipe import Output, StepRun, step

FOLDER = "checkpoints/d"
SCHEMA = pa.schema([("n", pa.int64())])


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def rows_in(store: LocalStore) -> list[int]:
    return [row["n"] for row in RowPieces(store, FOLDER, SCHEMA).rows()]


def test_work_of_less_than_a_minute_is_not_written(store: LocalStore) -> None:
    clock = Clock()
    pieces = RowPieces(store, FOLDER, SCHEMA, clock)
    for number in range(5):
        pieces.add({"n": number})
        clock.now += PERIOD_S / 6
    assert not store.list(FOLDER)
    clock.now += PERIOD_S / 6
    pieces.add({"n": 5})
    assert rows_in(store) == [0, 1, 2, 3, 4, 5]
    pieces.add({"n": 6})
    assert rows_in(store) == [0, 1, 2, 3, 4, 5]


def test_pieces_are_read_by_their_numbers(store: LocalStore) -> None:
    pieces = Pieces(store, FOLDER)
    for number in (1_000, 20, 3):
        pieces.write(pa.table({"n": [number]}), number)
    assert rows_in(store) == [3, 20, 1_000]


@pytest.mark.parametrize("damage", [lambda data: data[:-1] + b"?", lambda data: data[:20], lambda data: b""])
def test_a_damaged_piece_is_removed_with_a_warning(
    store: LocalStore, damage: object, caplog: pytest.LogCaptureFixture
) -> None:
    pieces = Pieces(store, FOLDER)
    for number in (1, 2, 3):
        pieces.write(pa.table({"n": [number]}), number)
    damaged = store.list(FOLDER)[1]
    store.write(damaged, damage(store.read(damaged)))  # type: ignore[operator]
    with caplog.at_level(logging.WARNING):
        assert rows_in(store) == [1, 3]
    assert f"damaged piece {damaged}: removed" in caplog.text
    assert damaged not in store.list(FOLDER)


def test_a_piece_that_goes_while_it_is_looked_for_is_none(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    Pieces(store, FOLDER).write(pa.table({"n": [1]}))
    found = store.list(FOLDER)
    store.delete(found[0])
    monkeypatch.setattr(store, "list", lambda folder: found)
    assert rows_in(store) == []


def test_what_else_lies_in_the_folder_is_left_alone(store: LocalStore) -> None:
    store.write(f"{FOLDER}/epoch-000001-0123456789ab.safetensors", b"x")
    pieces = Pieces(store, FOLDER)
    pieces.write(pa.table({"n": [1]}))
    assert rows_in(store) == [1]
    pieces.remove()
    assert store.list(FOLDER) == [f"{FOLDER}/epoch-000001-0123456789ab.safetensors"]


def test_where_nothing_was_kept_nothing_is_looked_for_at_the_end(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = RowPieces(store, FOLDER, SCHEMA)
    assert list(pieces.rows()) == []
    pieces.add({"n": 1})
    monkeypatch.setattr(store, "list", lambda folder: pytest.fail("listed"))
    pieces.remove()


@step("kept", version=1, label=lambda *, numbers, **_: str(numbers), each="numbers")
def keep_pieces(run: StepRun, *, numbers: tuple[int, ...]) -> dict[int, Output]:
    made = {}
    for number in numbers:
        pieces = Pieces(run.store, run.checkpoints_of(number))
        pieces.write(pa.table({"n": [number]}))
        made[number] = Output({ROWS: pa.table({"n": [number]})}, pieces=pieces)
    return made


def test_pieces_go_when_their_own_object_is_committed(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    create = store.create

    def full(key: str, data: bytes) -> None:
        if "/2/" in key:
            raise OSError("disk full")
        create(key, data)

    monkeypatch.setattr(store, "create", full)
    with pytest.raises(OSError, match="disk full"):
        keep_pieces.compute(store, numbers=(1, 2, 3))
    digests = [keep_pieces.uri(numbers=number).rsplit("/", 1)[1] for number in (1, 2, 3)]
    left = [key.split("/")[1] for key in store.list("checkpoints")]
    assert left == sorted(digests[1:])
    monkeypatch.setattr(store, "create", create)
    keep_pieces.compute(store, numbers=(1, 2, 3))
    assert not store.list("checkpoints")
