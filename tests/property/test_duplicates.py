"""Duplicates are found as a comparison of all pairs finds them, whatever their order."""

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.data.assignment import first_connected
from tasks.data.duplicates import collapse_rate, find_duplicates, near_pairs, words_of
from tasks.data.fingerprints import are_duplicates, hamming

Case = tuple[list[str], list[str], npt.NDArray[np.uint8]]


@st.composite
def collections(draw: st.DrawFn) -> Case:
    """Pictures of few kinds: hashes some bits apart, thumbnails of few patterns with noise, some files equal."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(0, 24))
    hashes = rng.integers(0, 2**64, 4, dtype=np.uint64)
    patterns = rng.integers(0, 256, (3, 1024))
    patterns[2] = 120  # a flat picture, whose correlation is not defined
    sha256: list[str] = []
    phash: list[str] = []
    thumbnails = np.zeros((count, 1024), dtype=np.uint8)
    for row in range(count):
        if row and rng.random() < 0.2:
            other = int(rng.integers(row))
            sha256.append(sha256[other])
            phash.append(phash[other])
            thumbnails[row] = thumbnails[other]
            continue
        value = int(hashes[rng.integers(4)])
        for bit in rng.choice(64, int(rng.integers(0, 7)), replace=False):
            value ^= 1 << int(bit)
        noise = rng.choice([0, 1, 60])
        sha256.append(f"{row:064x}")
        phash.append(f"{value:016x}")
        thumbnails[row] = np.clip(patterns[rng.integers(3)] + rng.integers(-noise, noise + 1, 1024), 0, 255)
    return sha256, phash, thumbnails


def components(count: int, pairs: list[tuple[int, int]]) -> list[int]:
    first: list[int] = first_connected(count, np.array(pairs, dtype=np.int64).reshape(-1, 2)).tolist()
    return first


def duplicates(sha256: list[str], phash: list[str], thumbnails: npt.NDArray[np.uint8]) -> list[tuple[int, int]]:
    pairs = find_duplicates(words_of(sha256).reshape(-1, 4), words_of(phash), thumbnails)
    assert pairs.dtype == np.int64
    return [(i, j) for i, j in pairs.tolist()]


def all_pairs(sha256: list[str], phash: list[str], thumbnails: npt.NDArray[np.uint8]) -> list[tuple[int, int]]:
    small = thumbnails.reshape(-1, 32, 32).astype(np.float32)
    return [
        (i, j)
        for j in range(len(sha256))
        for i in range(j)
        if sha256[i] == sha256[j] or are_duplicates(int(phash[i], 16), small[i], int(phash[j], 16), small[j])
    ]


@settings(max_examples=150, deadline=None)
@given(collections())
def test_the_pairs_connect_what_a_comparison_of_all_pairs_connects(case: Case) -> None:
    count = len(case[0])
    pairs = duplicates(*case)
    assert all(i < j for i, j in pairs)
    assert pairs == sorted(pairs)
    assert components(count, pairs) == components(count, all_pairs(*case))
    assert len(pairs) == count - len(set(components(count, pairs)))


@settings(max_examples=50, deadline=None)
@given(collections(), st.integers(0, 2**32 - 1))
def test_the_order_of_the_pictures_does_not_matter(case: Case, seed: int) -> None:
    sha256, phash, thumbnails = case
    order = np.random.default_rng(seed).permutation(len(sha256)).tolist()
    mixed = duplicates([sha256[i] for i in order], [phash[i] for i in order], thumbnails[order])
    straight = components(len(order), duplicates(*case))
    turned = components(len(order), mixed)
    assert [[straight[a] == straight[b] for b in order] for a in order] == [[a == b for b in turned] for a in turned]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), max_size=20), st.integers(0, 2**32 - 1))
def test_near_pairs_are_each_found_once(values: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    for value in values[:10]:
        flips = rng.choice(64, int(rng.integers(0, 7)), replace=False)
        values.append(value ^ sum(1 << int(bit) for bit in flips))
    hashes = np.array(values, dtype=np.uint64)
    found = [pair for a, b in near_pairs(hashes) for pair in zip(a.tolist(), b.tolist(), strict=True)]
    expected = [
        (i, j) for i in range(len(values)) for j in range(i + 1, len(values)) if hamming(values[i], values[j]) <= 4
    ]
    assert sorted(found) == expected


@settings(max_examples=50, deadline=None)
@given(collections())
def test_collapse_is_the_share_of_pictures_that_repeat_an_earlier_one(case: Case) -> None:
    values = [int(text, 16) for text in case[1]]
    repeats = [any(hamming(values[i], values[j]) <= 4 for i in range(j)) for j in range(len(values))]
    assert collapse_rate(words_of(case[1])) == (np.mean(repeats) if repeats else 0.0)


def test_many_equal_hashes_are_compared_in_pieces() -> None:
    assert collapse_rate(words_of(["00000000000000ff"] * 1500)) == 1499 / 1500


def test_hexadecimal_digits_are_read_as_integers_of_sixteen() -> None:
    assert words_of(["ffffffffffffffff", "00000000000000ff"]).tolist() == [2**64 - 1, 255]
    assert words_of([f"{1 << 192:064x}"]).tolist() == [1, 0, 0, 0]
    assert words_of([]).tolist() == []
