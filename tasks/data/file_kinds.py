"""What a file is that is no picture of a kind that is read: for the person who has to do something about it."""

from collections.abc import Callable, Sequence

# In lower case, what files of pictures are called.
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".avifs"}
    | {".heic", ".heif", ".jp2", ".j2k", ".jxl"},  # named as what they are where they are not read
)

_CONVERT = "convert it to PNG or JPEG first, without reducing it"

# First bytes, and what they say. Of the pictures among them the name alone, of the others what is to be done.
_PICTURES: tuple[tuple[bytes, str], ...] = (
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"II\xbc\x01", "JPEG XR"),
    (b"MM\x00+", "BigTIFF of big-endian numbers"),
    (b"8BPS", "Photoshop (PSD)"),
    (b"\x00\x00\x01\x00", "Windows icon (ICO)"),
    (b"\x00\x00\x02\x00", "Windows cursor (CUR)"),
    (b"%!PS", "PostScript"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance (HDR)"),
    (b"qoif", "QOI"),
    (b"DDS ", "DirectDraw (DDS)"),
    (b"BPG\xfb", "BPG"),
    (b"FLIF", "FLIF"),
    (b"gimp xcf", "GIMP (XCF)"),
    (b"SIMPLE  =", "FITS"),
    (b"IIRO", "camera raw (Olympus)"),
    (b"IIRS", "camera raw (Olympus)"),
    (b"MMOR", "camera raw (Olympus)"),
    (b"IIU\x00", "camera raw (Panasonic)"),
    (b"FUJIFILMCCD-RAW", "camera raw (Fujifilm)"),
    (b"FOVb", "camera raw (Sigma)"),
    (b"\x00MRM", "camera raw (Minolta)"),
    (b"II\x1a\x00\x00\x00HEAPCCDR", "camera raw (Canon)"),
    *((b"P%d" % number, "Netpbm (PNM)") for number in range(1, 8)),
)
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the picture itself: run `git lfs pull`"),
    (b"%PDF", "a PDF document, not a picture"),
    (b"PK\x03\x04", "a ZIP archive, not a picture: unpack it"),
    (b"\x1f\x8b", "a gzip file, not a picture: unpack it"),
    (b"BZh", "a bzip2 file, not a picture: unpack it"),
    (b"\xfd7zXZ\x00", "an xz file, not a picture: unpack it"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file, not a picture: unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive, not a picture: unpack it"),
    (b"Rar!\x1a\x07", "a RAR archive, not a picture: unpack it"),
    (b"\x1a\x45\xdf\xa3", "a Matroska or WebM video, not a picture"),
    (b"\x00\x00\x01\xba", "an MPEG video, not a picture"),
    (b"FLV\x01", "a Flash video, not a picture"),
    (b"PAR1", "a Parquet file, not a picture"),
    (b"\x93NUMPY", "a NumPy array, not a picture"),
)
_BRANDS: tuple[tuple[Sequence[bytes], str], ...] = (
    ((b"avif", b"avis"), "AVIF"),
    ((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"), "HEIC"),
    ((b"crx ",), "camera raw (Canon CR3)"),
)
_PAGE = 4_096  # bytes of a text that are looked at


def container_format(data: bytes) -> str | None:
    """The format of an ISO base media file (ISO/IEC 14496-12, 4.3) by its brands: AVIF, HEIC, raw or video."""
    if data[4:8] != b"ftyp":
        return None
    box = data[8 : min(int.from_bytes(data[:4], "big"), 1_000)]
    brands = [box[:4], *(box[place : place + 4] for place in range(8, len(box), 4))]
    for known, name in _BRANDS:
        if any(brand in known for brand in brands):
            return name
    return "video"


def picture_format(data: bytes) -> str | None:
    """The name of a format of pictures that is not read here; None where these first bytes say none."""
    for start, name in _PICTURES:
        if data.startswith(start) and (name != "Netpbm (PNM)" or data[2:3].isspace()):
            return name
    contained = container_format(data)
    if contained not in (None, "video"):
        return contained
    if b"<svg" in data[:_PAGE].lower() and _is_text(data[:_PAGE]):
        return "SVG"
    return None


def unsupported(name: str) -> str:
    """What to do about a picture of a format that is not read."""
    if name == "HEIC":
        return "a HEIC picture: install telltale's extra `heic` (pip install 'telltale[heic]'), or convert it to PNG"
    article = "an" if name[0] in "AO" or name == "SVG" else "a"
    return f"{article} {name} picture, which is not read: {_CONVERT}"


def other_kind(data: bytes) -> str:
    """What a file is that is no picture: by name where it is known, else by its first bytes."""
    for start, name in _OTHERS:
        if data.startswith(start):
            return name
    if container_format(data) == "video" or (data[:4] == b"RIFF" and data[8:12] == b"AVI "):
        return "a video, not a picture"
    if not data[:_PAGE].strip(b"\0"):
        return "nothing but zeros: it was not written, or not downloaded, to its end"
    page = data[:_PAGE].removeprefix(b"\xef\xbb\xbf").lstrip()
    if _is_text(page):
        return next((name for is_one, name in _TEXTS if is_one(page.lower())), "a text, not a picture")
    return f"not JPEG, PNG, GIF, WebP, BMP, TIFF or AVIF: starts with {data[:8]!r}"


_TEXTS: tuple[tuple[Callable[[bytes], bool], str], ...] = (
    (
        lambda page: page.startswith((b"<!doctype html", b"<html", b"<head", b"<body")) or b"<html" in page,
        "an HTML page, not a picture",
    ),
    (lambda page: page.startswith((b"<?xml", b"<error")), "an XML document, not a picture"),
    (lambda page: page.startswith((b"{", b"[")), "a JSON document, not a picture"),
)


def _is_text(page: bytes) -> bool:
    """Whether bytes are printable text in UTF-8, which may break off within a character."""
    try:
        text = page.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(page) - 3:
            return False
        text = page[: error.start].decode("utf-8")
    return bool(text) and all(character.isprintable() or character.isspace() for character in text)
