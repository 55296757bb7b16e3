"""Which pictures are one: equal files, or perceptual hashes at most 4 of 64 bits apart and correlated thumbnails."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from tasks.data.pictures import DUPLICATE_MAX_DISTANCE, DUPLICATE_MIN_CORRELATION, thumbnail_correlation

# (shift, width) of the bands of a hash. With more bands than differing bits, near hashes agree in one band at least.
_BANDS = ((0, 13), (13, 13), (26, 13), (39, 13), (52, 12))
assert len(_BANDS) > DUPLICATE_MAX_DISTANCE
_ROWS_AT_ONCE = 512


class Forest:
    """Disjoint sets of the rows 0..n-1; each set is named by its smallest row (union-find with path halving)."""

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))

    def root(self, row: int) -> int:
        """The smallest row of the set that `row` is in."""
        parents = self._parents
        while parents[row] != row:
            parents[row] = parents[parents[row]]
            row = parents[row]
        return row

    def unite(self, a: int, b: int) -> None:
        """Make the sets of two rows one."""
        first, second = sorted((self.root(a), self.root(b)))
        self._parents[second] = first


def find_duplicates(
    sha256: Sequence[str], phash: Sequence[str], thumbnails: npt.NDArray[np.uint8]
) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, sorted, whose connected components are the pictures that are one.

    Of a component of n pictures there are n - 1 pairs, not all of them: one generator's thousand equal pictures would
    have half a million. About linear in the number of different pictures.

    Args:
        sha256: of the N files.
        phash: N hashes of 16 hexadecimal digits.
        thumbnails: uint8 (N, 1024), the 32x32 luma thumbnails, row-major.
    """
    first_with: dict[str, int] = {}
    pairs = []
    for row, digest in enumerate(sha256):
        first = first_with.setdefault(digest, row)
        if first != row:
            pairs.append((first, row))
    # Equal files need no second look: the near ones are sought among one of each.
    different = np.array(sorted(first_with.values()), dtype=np.int64)
    forest = Forest(len(different))
    for left, right in near_pairs(hashes_of([phash[row] for row in different])):
        for a, b in zip(left.tolist(), right.tolist(), strict=True):
            if forest.root(a) == forest.root(b):
                continue
            i, j = int(different[a]), int(different[b])
            if _correlation(thumbnails[i], thumbnails[j]) >= DUPLICATE_MIN_CORRELATION:
                forest.unite(a, b)
                pairs.append((i, j))
    return sorted(pairs)


def collapse_rate(phash: Sequence[str]) -> float:
    """The share 0..1 of one generator's pictures that nearly repeat an earlier one: hashes at most 4 bits apart.

    `phash`: N hashes of 16 hexadecimal digits. 0 without pictures.
    """
    if not phash:
        return 0.0
    repeats = np.zeros(len(phash), dtype=bool)
    for _, later in near_pairs(hashes_of(phash)):
        repeats[later] = True
    return float(repeats.mean())


def hashes_of(phash: Sequence[str]) -> npt.NDArray[np.uint64]:
    """Hashes of 16 hexadecimal digits as uint64 (N,)."""
    return np.array([int(text, 16) for text in phash], dtype=np.uint64)


def near_pairs(
    hashes: npt.NDArray[np.uint64], max_distance: int = DUPLICATE_MAX_DISTANCE
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """All pairs of rows, i < j, whose hashes differ in at most `max_distance` (0..4) bits; each pair once, in pieces.

    Only hashes that agree in one of five bands are compared. Yields (i, j) as int64 (M,) each.
    """
    if not 0 <= max_distance < len(_BANDS):
        raise ValueError(f"max_distance: expected 0..{len(_BANDS) - 1}, got {max_distance}")
    earlier: list[np.uint64] = []
    for shift, width in _BANDS:
        mask = np.uint64(((1 << width) - 1) << shift)
        keys = hashes & mask
        order = np.argsort(keys, kind="stable")
        edges = [0, *(np.flatnonzero(np.diff(keys[order])) + 1).tolist(), len(order)]
        for start, end in itertools.pairwise(edges):
            if end - start > 1:
                yield from _near_within(hashes, order[start:end], max_distance, earlier)
        earlier.append(mask)


def _near_within(
    hashes: npt.NDArray[np.uint64], rows: npt.NDArray[np.int64], max_distance: int, earlier: Sequence[np.uint64]
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Near pairs among ascending rows that agree in a band, without those that agree in an earlier one."""
    values = hashes[rows]
    for begin in range(0, len(rows), _ROWS_AT_ONCE):
        differing = values[begin : begin + _ROWS_AT_ONCE, None] ^ values[None, begin:]  # (rows at once, rest)
        a, b = np.nonzero(np.triu(np.bitwise_count(differing) <= max_distance, k=1))
        bits = differing[a, b]
        new = np.ones(len(a), dtype=bool)
        for mask in earlier:
            new &= (bits & mask) != 0
        if new.any():
            yield rows[begin + a[new]], rows[begin + b[new]]


def _correlation(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> float:
    return thumbnail_correlation(a.reshape(32, 32).astype(np.float32), b.reshape(32, 32).astype(np.float32))
