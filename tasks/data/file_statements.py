"""What an image file says of its own origin, beside its pixels: true or not, and never part of a verdict.

`mobile/src/picture/statements.ts` reads the same in the app.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from tasks.data.file_parts import PNG_SIGNATURE

# Keys of PNG texts under which programs write how they generated a picture.
_GENERATORS_KEYS = frozenset({"parameters", "prompt", "workflow", "dream", "sd-metadata", "invokeai_metadata"})
_GENERATORS_KEYS |= {"invokeai_graph", "generation_data", "generation_parameters"}

_XMP_OF_JPEG = b"http://ns.adobe.com/xap/1.0/\0"
_XMP_OF_PNG = b"XML:com.adobe.xmp"
_EXIF = b"Exif\0\0"
_C2PA_BOX = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
# https://cv.iptc.org/newscodes/digitalsourcetype/
_SOURCE_TYPE = re.compile(rb"digitalsourcetype/([A-Za-z]{1,60})")
_MAKE, _MODEL = 0x010F, 0x0110
_ASCII = 2
# ComfyUI keeps its graphs where cameras write their names.
_GRAPH = re.compile(r"(workflow|prompt):")
_LONGEST_NAME = 100


@dataclass(frozen=True)
class FileStatements:
    """`c2pa`: a C2PA manifest is there, unverified. `digital_source_type`: IPTC's code, such as `digitalCapture`.

    `generator_texts`: under which keys a generator's settings stand. `camera`: make and model, as the file has them.
    """

    c2pa: bool = False
    digital_source_type: str | None = None
    generator_texts: tuple[str, ...] = ()
    camera: str | None = None


def file_statements(data: bytes) -> FileStatements:
    """What a JPEG, PNG or WebP says, and whether an AVIF or HEIC has a manifest; what is damaged says nothing."""
    found: dict[str, list[bytes]] = {}
    try:
        for kind, content in _pieces(data):
            found.setdefault(kind, []).append(content)
    except (struct.error, IndexError):
        pass  # it breaks off: what came before counts
    # In a JPEG a manifest is cut into pieces, of which only the first names it.
    if any(b"c2pa" in piece for piece in found.get("jumbf", [])):
        found.setdefault("c2pa", []).extend(found["jumbf"])
    described = b"".join([*found.get("xmp", []), *found.get("c2pa", [])])
    source_type = _SOURCE_TYPE.search(described)
    make, model, texts = "", "", [key for each in found.get("key", []) if (key := each.decode("latin-1"))]
    for exif in found.get("exif", []):
        names = _camera_names(exif)
        make, model = names.get(_MAKE, ""), names.get(_MODEL, "")
        # In UTF-16 or not: what Stable Diffusion's programs write into a comment.
        plain = exif.replace(b"\0", b"")
        if b"Steps: " in plain and b"Sampler" in plain:
            texts.append("UserComment")
    texts += [graph[1] for name in (make, model) if (graph := _GRAPH.match(name))]
    make, model = ("" if _GRAPH.match(name) else name for name in (make, model))
    camera = model if model.startswith(make) else f"{make} {model}".strip()
    return FileStatements(
        c2pa="c2pa" in found,
        digital_source_type=source_type[1].decode() if source_type else None,
        generator_texts=tuple(dict.fromkeys(texts)),
        camera=camera[:_LONGEST_NAME] or None,
    )


def statements_in_words(says: FileStatements) -> list[str]:
    """Each statement with what it is worth; one sentence where there is none."""
    words = []
    if says.c2pa:
        words.append(
            "Content Credentials (a C2PA manifest) are attached. They are signed, but their signature was not checked "
            "here: a verifier can."
        )
    if says.digital_source_type is not None:
        words.append(
            f"The IPTC digital source type is {says.digital_source_type}. Whoever saved the file wrote it; anyone can "
            "change or remove it."
        )
    if says.generator_texts:
        words.append(
            f"A generator's settings are in it ({', '.join(says.generator_texts)}). Programs that generate pictures "
            "write them; they are as easily removed, or written into a photograph."
        )
    if says.camera is not None:
        words.append(f"A camera is named: {says.camera}. Any program can write that.")
    return words or ["Nothing of its origin. That is usual: most apps and sites remove it."]


def _pieces(data: bytes) -> Iterator[tuple[str, bytes]]:
    """What a file carries beside pixels, as (`xmp`, `exif`, `c2pa`, `jumbf` or `key`, content)."""
    if data.startswith(b"\xff\xd8\xff"):
        yield from _of_jpeg(data)
    elif data.startswith(PNG_SIGNATURE):
        yield from _of_png(data)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        yield from _of_webp(data)
    elif data[4:8] == b"ftyp":
        yield from _of_boxes(data)


def _of_jpeg(data: bytes) -> Iterator[tuple[str, bytes]]:
    place = 2
    while data[place] == 0xFF and data[place + 1] not in (0xD9, 0xDA):
        if data[place + 1] == 0xFF:  # a fill byte
            place += 1
            continue
        (length,) = struct.unpack_from(">H", data, place + 2)
        content = data[place + 4 : place + 2 + length]
        marker = data[place + 1]
        if marker == 0xE1 and content.startswith(_EXIF):
            yield "exif", content[len(_EXIF) :]
        elif marker == 0xE1 and content.startswith(_XMP_OF_JPEG):
            yield "xmp", content
        elif marker == 0xEB and content.startswith(b"JP"):
            yield "jumbf", content
        place += 2 + length


def _of_png(data: bytes) -> Iterator[tuple[str, bytes]]:
    place = len(PNG_SIGNATURE)
    while place + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        content = data[place + 8 : place + 8 + length]
        if name == b"eXIf":
            yield "exif", content
        elif name == b"caBX":
            yield "c2pa", content
        elif name in (b"tEXt", b"zTXt", b"iTXt"):
            key = content[:80].split(b"\0")[0]
            if key == _XMP_OF_PNG:
                yield "xmp", content
            elif key.decode("latin-1").lower() in _GENERATORS_KEYS:
                yield "key", key
        place += 12 + length


def _of_webp(data: bytes) -> Iterator[tuple[str, bytes]]:
    kinds = {b"EXIF": "exif", b"XMP ": "xmp", b"C2PA": "c2pa"}
    place = 12
    while place + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, place)
        content = data[place + 8 : place + 8 + length]
        if name in kinds:
            yield kinds[name], content.removeprefix(_EXIF) if name == b"EXIF" else content
        place += 8 + length + (length & 1)


def _of_boxes(data: bytes) -> Iterator[tuple[str, bytes]]:
    place = 0
    while place + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        if name == b"uuid" and data[place + 8 : place + 24] == _C2PA_BOX:
            yield "c2pa", data[place + 24 : place + length]
        if length < 8:  # to the file's end, or longer than 4 GB
            return
        place += length


def _camera_names(exif: bytes) -> dict[int, str]:
    """Make and model by tag, of the first directory of EXIF data."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return {}
    found = {}
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, length, place = struct.unpack_from(f"{order}HHII", exif, entry)
            if tag in (_MAKE, _MODEL) and kind == _ASCII:
                # Four bytes or fewer stand in the place of where they stand.
                first = entry + 8 if length <= 4 else place
                text = exif[first : first + length].split(b"\0")[0].decode("utf-8", errors="replace")
                found[tag] = " ".join(text.split())
    except struct.error:
        pass
    return found
