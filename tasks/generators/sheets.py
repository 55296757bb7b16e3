"""Generated pictures on one page: contact sheets, their animation, and their embedding in Prefect's artifacts."""

import base64
import io
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from tasks.artifacts import artifact_key, show_markdown
from tasks.data.encoding import encode_png
from tasks.data.pictures import Pixels

GAP = 2
# Artifacts are rows of Prefect's database.
ARTIFACT_BYTES = 200_000


def contact_sheet(pictures: Sequence[Pixels], columns: int) -> bytes:
    """Pictures of one size, each uint8 (H, W, 3), row by row on white: a PNG of `columns` columns."""
    if not pictures or columns < 1:
        raise ValueError(f"a contact sheet needs pictures and columns, got {len(pictures)} and {columns}")
    height, width, _ = pictures[0].shape
    rows = -(-len(pictures) // columns)
    shape = (rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3)
    page: npt.NDArray[np.uint8] = np.full(shape, 255, np.uint8)
    for index, picture in enumerate(pictures):
        top, left = index // columns * (height + GAP), index % columns * (width + GAP)
        page[top : top + height, left : left + width] = picture
    return encode_png(page)


def sample_strip(pictures: Sequence[Pixels], side: int = 128) -> bytes:
    """The first eight pictures in one row as PNG, each fitted into a white square of `side` pixels."""
    return contact_sheet([_fitted(picture, side) for picture in pictures[:8]], columns=8)


def animation(sheets: Iterable[bytes], milliseconds: int = 300) -> bytes:
    """PNG sheets of one size as an endless GIF at half their size."""
    frames = [_scaled(sheet, 0.5) for sheet in sheets]
    buffer = io.BytesIO()
    # The last frame stays for two seconds, so that the eye finds where the loop ends.
    durations = [milliseconds] * (len(frames) - 1) + [2000]
    frames[0].save(buffer, format="GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
    return buffer.getvalue()


def embedded(png: bytes, alt: str, limit: int = ARTIFACT_BYTES) -> str:
    """A PNG as a Markdown image with the bytes inside, made smaller until it has at most `limit` bytes."""
    while len(png) > limit:
        buffer = io.BytesIO()
        _scaled(png, 0.75).save(buffer, format="PNG")
        png = buffer.getvalue()
    return f"![{alt}](data:image/png;base64,{base64.b64encode(png).decode()})"


_shown: set[tuple[str, str]] = set()


def show_in_prefect(name: str, title: str, markdown: str) -> None:
    """Attach Markdown to what Prefect is running, if anything: one artifact of a name in a flow run, the first.

    `name` becomes its key, which a person should be able to read: of thousands of shards that draw one source's
    pictures, the first shows what they look like.
    """
    from prefect.utilities.context import get_task_and_flow_run_ids

    task_run, flow_run = get_task_and_flow_run_ids()
    if task_run is None and flow_run is None:
        return
    key = artifact_key(name)
    if (str(flow_run or task_run), key) not in _shown:
        _shown.add((str(flow_run or task_run), key))
        show_markdown(key, markdown, title)


def _fitted(picture: Pixels, side: int) -> Pixels:
    image = Image.fromarray(picture)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    square = Image.new("RGB", (side, side), "white")
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return np.array(square)


def _scaled(png: bytes, factor: float) -> Image.Image:
    with Image.open(io.BytesIO(png)) as image:
        size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
        return image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
