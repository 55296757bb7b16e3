"""What files say of their origin is read where they say it, and what is damaged says nothing."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from tasks.data.encoding import encode_jpeg, encode_png
from tasks.data.file_statements import FileStatements, file_statements, statements_in_words
from tasks.data.pictures import decode_rgb
from tests.property.image_mutations import png_chunk

PIXELS = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description Iptc4xmpExt:DigitalSourceType="'
    b'http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/></x:xmpmeta>'
)
MANIFEST = b"\0\0\0\x40jumb\0\0\0\x1ejumdc2pa\0\x11\0\x10\x80\0\0\xaa\0\x38\x9b\x71\x03c2pa\0"


def exif(make: str, model: str, comment: bytes = b"") -> bytes:
    tags = Image.Exif()
    tags[0x010F], tags[0x0110] = make, model
    if comment:
        tags.get_ifd(0x8769)[0x9286] = comment
    return tags.tobytes()


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    plain = encode_png(PIXELS)
    return plain[:33] + b"".join(png_chunk(name, content) for name, content in chunks) + plain[33:]


def jpeg(*segments: tuple[int, bytes]) -> bytes:
    plain = encode_jpeg(PIXELS, 90)
    head = b"".join(struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content for marker, content in segments)
    return plain[:2] + head + plain[2:]


def webp(**options: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "WEBP", lossless=True, **options)
    return buffer.getvalue()


def heic(box: bytes) -> bytes:
    return b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + struct.pack(">I4s", 8 + len(box), b"uuid") + box


PARAMETERS = b"parameters\0a cat\nSteps: 20, Sampler: Euler a"
COMMENT = b"UNICODE\0" + "a cat\nSteps: 20, Sampler: Euler a".encode("utf-16-be")
C2PA_BOX = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encode_png(PIXELS), FileStatements()),
        (encode_jpeg(PIXELS, 90), FileStatements()),
        (png((b"tEXt", PARAMETERS)), FileStatements(generator_texts=("parameters",))),
        (
            png((b"iTXt", b"workflow\0\0\0\0\0{}"), (b"tEXt", b"prompt\0{}")),
            FileStatements(generator_texts=("workflow", "prompt")),
        ),
        (png((b"tEXt", b"Comment\0parameters")), FileStatements()),
        (png((b"caBX", MANIFEST)), FileStatements(c2pa=True)),
        (
            png((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)),
            FileStatements(digital_source_type="trainedAlgorithmicMedia"),
        ),
        (png((b"eXIf", exif("Canon", "EOS R5").removeprefix(b"Exif\0\0"))), FileStatements(camera="Canon EOS R5")),
        (jpeg((0xE1, exif("Canon", "Canon EOS R5"))), FileStatements(camera="Canon EOS R5")),
        (jpeg((0xE1, exif("LG", "G4"))), FileStatements(camera="LG G4")),
        (jpeg((0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)), FileStatements(False, "trainedAlgorithmicMedia")),
        (jpeg((0xEB, b"JP\0\x01\0\0\0\x01\0\0\0\x10jumbof something else")), FileStatements()),
        (jpeg((0xEB, b"JP\0\x01\0\0\0\x01" + MANIFEST)), FileStatements(c2pa=True)),
        (jpeg((0xEB, b"JP\0\x01\0\0\0\x01" + MANIFEST + XMP)), FileStatements(True, "trainedAlgorithmicMedia")),
        (jpeg((0xE1, exif("", "", COMMENT))), FileStatements(generator_texts=("UserComment",))),
        (
            webp(exif=exif('workflow:{"1": 2}', "prompt:{}"), xmp=XMP),
            FileStatements(False, "trainedAlgorithmicMedia", ("workflow", "prompt")),
        ),
        (webp(exif=exif("NIKON", "D90")), FileStatements(camera="NIKON D90")),
        (heic(C2PA_BOX + MANIFEST), FileStatements(c2pa=True)),
        (heic(bytes(16) + MANIFEST), FileStatements()),
        (b"", FileStatements()),
        (b"words", FileStatements()),
    ],
)  # fmt: skip
def test_what_a_file_says_is_read(data: bytes, expected: FileStatements) -> None:
    assert file_statements(data) == expected


@pytest.mark.parametrize(
    "whole",
    [
        png((b"tEXt", PARAMETERS), (b"caBX", MANIFEST), (b"eXIf", exif("LG", "G4").removeprefix(b"Exif\0\0"))),
        jpeg((0xE1, exif("Canon", "EOS R5", COMMENT)), (0xEB, b"JP" + MANIFEST)),
        webp(exif=exif("NIKON", "D90"), xmp=XMP),
        heic(C2PA_BOX + MANIFEST),
    ],
)
def test_no_prefix_and_no_damage_is_an_error(whole: bytes) -> None:
    random = np.random.default_rng(0)
    for length in range(min(len(whole), 700)):
        file_statements(whole[:length])
    for _ in range(300):
        damaged = bytearray(whole)
        for place in random.integers(0, min(len(whole), 400), 4):
            damaged[place] = random.integers(256)
        file_statements(bytes(damaged))


@pytest.mark.parametrize(
    ("told", "plain"),
    [
        (png((b"tEXt", PARAMETERS), (b"caBX", MANIFEST)), png()),
        (jpeg((0xE1, exif("Canon", "EOS R5")), (0xEB, b"JP" + MANIFEST)), jpeg()),
        (webp(exif=exif("NIKON", "D90"), xmp=XMP), webp()),
    ],
)
def test_what_a_file_says_changes_no_pixel(told: bytes, plain: bytes) -> None:
    np.testing.assert_array_equal(decode_rgb(told), decode_rgb(plain))


def test_each_statement_comes_with_what_it_is_worth() -> None:
    words: Callable[..., str] = lambda **said: " ".join(statements_in_words(FileStatements(**said)))  # noqa: E731
    assert "signature was not checked here" in words(c2pa=True)
    assert "digitalCapture. Whoever saved the file wrote it" in words(digital_source_type="digitalCapture")
    assert "(parameters). Programs that generate pictures write them" in words(generator_texts=("parameters",))
    assert "LG G4. Any program can write that" in words(camera="LG G4")
    assert words().startswith("Nothing of its origin")
