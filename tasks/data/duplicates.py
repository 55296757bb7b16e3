"""Which pictures are one: equal files, or perceptual hashes at most 4 of 64 bits apart and correlated thumbnails."""

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from tasks.data.fingerprints import DUPLICATE_MAX_DISTANCE, DUPLICATE_MIN_CORRELATION, thumbnail_correlation

_BAND_WIDTHS = (11, 11, 11, 11, 10, 10)
_ROWS_AT_ONCE = 1 << 16


def _two_of_six_bands() -> tuple[np.uint64, ...]:
    ends = itertools.accumulate(_BAND_WIDTHS)
    bands = [((1 << width) - 1) << (end - width) for width, end in zip(_BAND_WIDTHS, ends, strict=True)]
    return tuple(np.uint64(a | b) for a, b in itertools.combinations(bands, 2))


# Near hashes agree under one of these masks at least: four bits that differ leave two of six bands as they are.
_MASKS = _two_of_six_bands()
assert sum(_BAND_WIDTHS) == 64
assert len(_BAND_WIDTHS) == DUPLICATE_MAX_DISTANCE + 2


class Forest:
    """Disjoint sets of rows; each set is named by its smallest row (union-find with path halving).

    A row that was never united is a set of its own, and takes no memory.
    """

    def __init__(self) -> None:
        self._parents: dict[int, int] = {}

    def root(self, row: int) -> int:
        """The smallest row of the set that `row` is in."""
        parents = self._parents
        while (parent := parents.get(row, row)) != row:
            parents[row] = parents.get(parent, parent)
            row = parents[row]
        return row

    def unite(self, a: int, b: int) -> None:
        """Make the sets of two rows one."""
        first, second = sorted((self.root(a), self.root(b)))
        if first != second:
            self._parents[second] = first


def find_duplicates(
    sha256: npt.NDArray[np.uint64], phash: npt.NDArray[np.uint64], thumbnails: npt.NDArray[np.uint8]
) -> npt.NDArray[np.int64]:
    """Pairs (i, j), i < j, sorted, whose connected components are the pictures that are one.

    Of a component of n pictures there are n - 1 pairs, not all of them: one generator's thousand equal pictures would
    have half a million. Besides its input it keeps some tens of bytes per picture, whatever the number of near ones.

    Args:
        sha256: (N, 4), of the files; see `words_of`.
        phash: (N,).
        thumbnails: (N, 1024), the 32x32 luma thumbnails, row-major; only those of near pictures are looked at.

    Returns:
        int64 (M, 2).
    """
    equal, different = _equal_files(sha256)
    forest = Forest()
    # Sets as they were some pieces ago: what was one then needs no look, which spares most of many equal pictures.
    known = np.arange(len(sha256))
    near = []
    # Equal files need no second look either: the near ones are sought among one of each.
    for a, b in near_pairs(phash[different]):
        left, right = different[a], different[b]
        apart = known[left] != known[right]
        for i, j in zip(left[apart].tolist(), right[apart].tolist(), strict=True):
            if forest.root(i) == forest.root(j):
                continue
            if _correlation(thumbnails[i], thumbnails[j]) >= DUPLICATE_MIN_CORRELATION:
                forest.unite(i, j)
                near.append((i, j))
        looked_at = np.unique([left[apart], right[apart]])
        known[looked_at] = [forest.root(row) for row in looked_at.tolist()]
    pairs = np.concatenate([equal, np.array(near, dtype=np.int64).reshape(-1, 2)])
    return pairs[np.lexsort(pairs.T[::-1])]


def collapse_rate(hashes: npt.NDArray[np.uint64]) -> float:
    """The share 0..1 of one generator's pictures that nearly repeat an earlier one: hashes at most 4 bits apart.

    `hashes`: (N,). 0 without pictures.
    """
    if not len(hashes):
        return 0.0
    repeats = np.zeros(len(hashes), dtype=bool)
    for _, later in near_pairs(hashes):
        repeats[later] = True
    return float(repeats.mean())


def words_of(texts: Iterable[str]) -> npt.NDArray[np.uint64]:
    """Hexadecimal digits as integers, 16 digits for each: of N hashes uint64 (N,), of N digests in sha256 (4 N,)."""
    return np.frombuffer(bytes.fromhex("".join(texts)), dtype=">u8").astype(np.uint64)


def near_pairs(
    hashes: npt.NDArray[np.uint64], max_distance: int = DUPLICATE_MAX_DISTANCE
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """All pairs of rows, i < j, whose hashes differ in at most `max_distance` (0..4) bits; each pair once, in pieces.

    Only hashes that agree in two of six bands are compared: of N random ones some N / 2**21 with each, 15 times
    (multi-index hashing, Norouzi, Punjani and Fleet 2012). Yields (i, j) as int64 (M,) each.
    """
    if not 0 <= max_distance <= DUPLICATE_MAX_DISTANCE:
        raise ValueError(f"max_distance: expected 0..{DUPLICATE_MAX_DISTANCE}, got {max_distance}")
    for number, mask in enumerate(_MASKS):
        order = np.argsort(hashes & mask)
        for a, b in _near_neighbours(hashes[order], mask, max_distance, _MASKS[:number]):
            i, j = order[a], order[b]
            yield np.minimum(i, j), np.maximum(i, j)


def _near_neighbours(
    ordered: npt.NDArray[np.uint64], mask: np.uint64, max_distance: int, earlier: Sequence[np.uint64]
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Near pairs among hashes ordered by a mask that agree under it, without those that agree under an earlier one."""
    keys = ordered & mask
    for start in range(0, len(keys), _ROWS_AT_ONCE):
        row = np.arange(start, min(len(keys), start + _ROWS_AT_ONCE))
        end = np.searchsorted(keys, keys[row], side="right")  # of those that agree with the row
        for distance in itertools.count(1):
            reaches = row + distance < end
            row, end = row[reaches], end[reaches]
            if not len(row):
                break
            differing = ordered[row] ^ ordered[row + distance]
            near = np.flatnonzero(np.bitwise_count(differing) <= max_distance)
            for other in earlier:
                near = near[(differing[near] & other) != 0]
            if len(near):
                yield row[near], row[near] + distance


def _equal_files(sha256: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Each file that was there before with the first of its kind, as pairs (first, row); and all first ones, ascending.

    int64 (M, 2) and (N - M,).
    """
    # Stable: of equal digests the first row comes first.
    order = np.lexsort(sha256.T)
    differs = np.zeros(len(order), dtype=bool)  # from the row before it in this order
    differs[:1] = True
    for word in sha256.T:
        ordered = word[order]
        differs[1:] |= ordered[1:] != ordered[:-1]
    first = order[differs]
    first_of = first[np.cumsum(differs) - 1]
    return np.stack([first_of, order], axis=1)[~differs], np.sort(first)


def _correlation(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> float:
    return thumbnail_correlation(a.reshape(32, 32).astype(np.float32), b.reshape(32, 32).astype(np.float32))
