"""ICC profiles made by hand, and what they mean, in 64-bit floating point."""

import struct
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

D50 = np.array([0.9642, 1.0, 0.8249])
D65 = (0.3127, 0.3290)
SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
DISPLAY_P3 = ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06))
ADOBE_RGB = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
REC_2020 = ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046))
ADOBE_GAMMA = 563 / 256  # as Adobe has it

_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def srgb_to_linear(values: Floats) -> Floats:
    """IEC 61966-2-1, values in 0..1."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def srgb_from_linear(values: Floats) -> Floats:
    """The way back, clipped to 0..1."""
    inside = np.clip(values, 0, 1)
    return np.where(inside <= 0.0031308, 12.92 * inside, 1.055 * inside ** (1 / 2.4) - 0.055)


def colorants(primaries: tuple[tuple[float, float], ...]) -> Floats:
    """XYZ of red, green and blue (columns) under D65, adapted to D50 by Bradford."""
    xy = np.array([*primaries, D65])
    red, green, blue, white = np.stack([xy[:, 0] / xy[:, 1], np.ones(4), (1 - xy.sum(axis=1)) / xy[:, 1]], axis=1)
    matrix = np.stack([red, green, blue], axis=1)
    matrix = matrix * np.linalg.solve(matrix, white)
    scale = np.diag((_BRADFORD @ D50) / (_BRADFORD @ white))
    adapted: Floats = np.linalg.inv(_BRADFORD) @ scale @ _BRADFORD @ matrix
    return adapted


def in_srgb(
    rgb: npt.NDArray[np.uint8], primaries: tuple[tuple[float, float], ...], linear: Callable[[Floats], Floats]
) -> Floats:
    """Levels 0..255 in sRGB, unrounded, of levels in other primaries and another curve."""
    to_srgb = np.linalg.inv(colorants(SRGB)) @ colorants(primaries)
    levels: Floats = 255 * srgb_from_linear(linear(rgb / 255) @ to_srgb.T)
    return levels


def power(gamma: float) -> Callable[[Floats], Floats]:
    """A curve that is an exponent."""
    return lambda values: values**gamma


def gamma_curve(gamma: float) -> bytes:
    """`curv` of one number."""
    return b"curv" + struct.pack(">IIH", 0, 1, round(gamma * 256)) + b"\0\0"


def sampled_curve(values: Floats) -> bytes:
    """`curv` of many numbers, as profiles of version 2 have."""
    numbers = np.round(values * 65535).astype(">u2").tobytes()
    return b"curv" + struct.pack(">II", 0, len(values)) + numbers + bytes(-len(numbers) % 4)


def srgb_curve() -> bytes:
    """`para` of type 3."""
    numbers = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    return b"para" + struct.pack(">IHH", 0, 3, 0) + fixed(*numbers)


def fixed(*values: float) -> bytes:
    """s15Fixed16 numbers."""
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def xyz(values: Floats) -> bytes:
    """An `XYZ ` tag."""
    return b"XYZ \0\0\0\0" + fixed(*values)


def rgb_profile(primaries: tuple[tuple[float, float], ...], curve: bytes, name: str = "a display") -> bytes:
    """A display profile of colorants and one curve."""
    tags = {name: xyz(column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), colorants(primaries).T, strict=True)}
    return profile(b"RGB ", {**tags, **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)}, name=name)


def grey_profile(curve: bytes) -> bytes:
    """A profile of one channel."""
    return profile(b"GRAY", {b"kTRC": curve})


# Lab of the inks: paper, then each ink and all of them, such as they might be.
PAPER, INKS = (100.0, 0.0, 0.0), {"C": (60.0, -30.0, -40.0), "M": (50.0, 70.0, 0.0), "Y": (90.0, -5.0, 80.0)}


def cmyk_profile() -> bytes:
    """A press whose colours at the 16 corners of ink are known: `mft1`, two nodes for each ink, Lab."""
    nodes = b""
    for corner in range(16):
        lightness, a, b = corner_lab(*((corner >> place) & 1 for place in (3, 2, 1, 0)))
        nodes += bytes([round(lightness * 255 / 100), round(a + 128), round(b + 128)])
    identity = bytes(range(256))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    table += identity * 4 + nodes + identity * 3
    return profile(b"CMYK", {b"A2B0": table}, connection=b"Lab ", version=0x02400000, device=b"prtr")


def corner_lab(c: int, m: int, y: int, k: int) -> tuple[float, float, float]:
    """Lab of ink that is there in full or not at all."""
    if k:
        return (0.0, 0.0, 0.0)
    used = [INKS[name] for name, there in zip("CMY", (c, m, y), strict=True) if there]
    if not used:
        return PAPER
    return (min(ink[0] for ink in used) / len(used), sum(ink[1] for ink in used) / 2, sum(ink[2] for ink in used) / 2)


def lab_in_srgb(lab: tuple[float, float, float]) -> Floats:
    """Levels 0..255 in sRGB of CIE 1976 L*a*b* under D50."""
    lightness, a, b = lab
    fy = (lightness + 16) / 116
    ratios = np.array([fy + a / 500, fy, fy - b / 200])
    ratios = np.where(ratios > 6 / 29, ratios**3, 3 * (6 / 29) ** 2 * (ratios - 4 / 29))
    levels: Floats = 255 * srgb_from_linear(np.linalg.inv(colorants(SRGB)) @ (ratios * D50))
    return levels


def profile(
    space: bytes,
    tags: dict[bytes, bytes],
    *,
    name: str = "a profile",
    connection: bytes = b"XYZ ",
    version: int = 0x04300000,
    device: bytes = b"mntr",
) -> bytes:
    """A profile of these tags."""
    words = name.encode("utf-16-be")
    words += bytes(-len(words) % 4)
    about = b"mluc" + bytes(4) + struct.pack(">II", 1, 12) + b"enUS" + struct.pack(">II", len(words), 28) + words
    if version < 0x04000000:
        about = b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(78)
    tags = {b"desc": about, b"wtpt": xyz(D50), **tags}
    start = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for tag, value in tags.items():
        table += tag + struct.pack(">II", start + len(body), len(value))
        body += value
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"", version, device, space, connection)
    return head + bytes(12) + b"acsp" + bytes(28) + fixed(*D50) + bytes(48) + table + body


def app2(piece: bytes, number: int = 1, count: int = 1) -> bytes:
    """A JPEG's segment with a piece of a profile."""
    body = b"ICC_PROFILE\0" + bytes([number, count]) + piece
    return b"\xff\xe2" + struct.pack(">H", 2 + len(body)) + body
