"""The twelve views of a picture: decoded once for all of them, against Pillow with a decode for each."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from PIL import Image

from benchmarks.harness import Case, Unequal
from benchmarks.inputs import CANONICAL, grid, pictures, pictures_of_side
from tasks.data.encoding import encode_jpeg
from tasks.data.pictures import Pixels
from tasks.data.views import canonical_quality, make_views
from tasks.spec.views import Canonical, View
from tasks.threads import in_order

LEVELS = 2
SHARE = 0.001
# Pictures of one side are all the same to a decoder; a few of each are enough.
PICTURES_OF_SIDE = 3

File = tuple[str, bytes]
Views = list[dict[View, Pixels]]
Encode = Callable[[Pixels, int], bytes]


def pillow_jpeg(rgb: Pixels, quality: int) -> bytes:
    """JPEG by Pillow's encoder."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, format="JPEG", quality=quality, subsampling="4:2:0")
    return buffer.getvalue()


def plain_view(file: File, view: View, canonical: Canonical, encode: Encode = pillow_jpeg) -> Pixels:
    """One view from the file, as one would write it down."""
    image_id, data = file
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    if view.path == "fair":
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        square = picture.crop((left, top, left + side, top + side))
        square = square.resize((canonical.side, canonical.side), Image.Resampling.BICUBIC)
        picture = _posted(square, canonical_quality(image_id, canonical), encode)
    if view.resolution != "native":
        picture = picture.resize((view.resolution, view.resolution), Image.Resampling.BICUBIC)
    if view.jpeg_quality is not None:
        picture = _posted(picture, view.jpeg_quality, encode)
    return np.array(picture)


def _posted(picture: Image.Image, quality: int, encode: Encode) -> Image.Image:
    return Image.open(io.BytesIO(encode(np.array(picture), quality))).convert("RGB")


def plain_views(
    file: File, views: Sequence[View], canonical: Canonical, encode: Encode = pillow_jpeg
) -> dict[View, Pixels]:
    """All views, each from the file."""
    return {view: plain_view(file, view, canonical, encode) for view in views}


def our_views(file: File, views: Sequence[View], canonical: Canonical) -> dict[View, Pixels]:
    """The same by `make_views`."""
    image_id, data = file
    return {view: made.pixels for view, made in make_views(data, image_id, views, canonical).items()}


def differing(plain: Views, ours: Views) -> float:
    """The share of pixels of which a channel differs by more than `LEVELS`."""
    beyond = total = 0
    for ones, others in zip(plain, ours, strict=True):
        for view, one in ones.items():
            other = others[view]
            if one.shape != other.shape:
                raise Unequal(f"{view.name}: {one.shape} and {other.shape}")
            beyond += int((np.abs(one.astype(np.int16) - other).max(axis=2) > LEVELS).sum())
            total += one.shape[0] * one.shape[1]
    return beyond / total


def side_by_side(make: Callable[[File], dict[View, Pixels]], files: Sequence[File], threads: int) -> Views:
    """Every picture's views, by so many threads."""
    if threads == 1:
        return [make(file) for file in files]
    return list(in_order(make, files, threads=threads, ahead=threads))


@contextmanager
def exact_case(path: str, files: Sequence[File], canonical: Canonical, threads: int) -> Iterator[Case]:
    """Both ways for these pictures."""
    views = grid(path)
    plain = functools.partial(plain_views, views=views, canonical=canonical)
    ours = functools.partial(our_views, views=views, canonical=canonical)

    def equality(pillow: Views, made: Views) -> str:
        # The same JPEG encoder on both sides: Pillow's transform is the accurate one, simplejpeg's the fast one.
        one_encoder = [plain_views(file, views, canonical, encode_jpeg) for file in files]
        share = differing(one_encoder, made)
        if share > SHARE:
            raise Unequal(f"{share:.2%} of pixels differ by more than {LEVELS} levels, with one encoder on both sides")
        return (
            f"{share:.3%} of pixels differ by more than {LEVELS} levels with one JPEG encoder on both sides, "
            f"{differing(pillow, made):.1%} with Pillow's on the plain one"
        )

    yield Case(lambda: side_by_side(plain, files, threads), lambda: side_by_side(ours, files, threads), equality)


@contextmanager
def fair_case(size: int, threads: int) -> Iterator[Case]:
    """So many pictures on the fair path."""
    with exact_case("fair", pictures(size), CANONICAL, threads) as case:
        yield case


@contextmanager
def raw_case(size: int, threads: int) -> Iterator[Case]:
    """So many pictures on the raw path."""
    with exact_case("raw", pictures(size), CANONICAL, threads) as case:
        yield case


@contextmanager
def scaled_case(size: int, threads: int) -> Iterator[Case]:
    """Pictures with so many pixels on the shorter side, on the fair path, by the kernel that decodes them smaller.

    It is not equal to the exact one and does not pretend to be: how far it is from it is said, in levels.
    """
    files, views = pictures_of_side(PICTURES_OF_SIDE, size), grid("fair")
    scaled = CANONICAL.model_copy(update={"kernel": "scaled"})
    plain = functools.partial(plain_views, views=views, canonical=CANONICAL)
    ours = functools.partial(our_views, views=views, canonical=scaled)

    def equality(_: Views, made: Views) -> str:
        exact = [our_views(file, views, CANONICAL) for file in files]
        bare, posted = (
            _distance(exact, made, [view for view in views if (view.jpeg_quality is None) == is_bare])
            for is_bare in (True, False)
        )
        return f"from the exact kernel's, without JPEG: {bare}; with JPEG: {posted}"

    yield Case(lambda: side_by_side(plain, files, threads), lambda: side_by_side(ours, files, threads), equality)


def _distance(exact: Views, made: Views, views: Sequence[View]) -> str:
    levels = np.concatenate(
        [
            np.abs(one[view].astype(np.int16) - other[view]).ravel()
            for one, other in zip(exact, made, strict=True)
            for view in views
        ]
    )
    shares = ", ".join(f"{(levels > limit).mean():.2%} by more than {limit}" for limit in (0, 2, 8))
    return f"{shares}, mean {levels.mean():.2f} levels"
