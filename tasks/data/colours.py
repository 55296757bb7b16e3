"""Colours in the sRGB that everything else takes for granted: a file's own profile is applied, as browsers apply it.

LittleCMS converts, by the profile's perceptual table where it has one, else by its colorants and curves, without black
point compensation. What a transform costs is limited: by `MAX_PROFILE_BYTES`, and by its tables, which LittleCMS
computes once for each of the last profiles, whatever the size of the picture. Its result depends on the profile and the
pixels alone, and one transform serves all threads: it is only read.
"""

import functools
import io
import math
import struct
from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import numpy.typing as npt
from PIL import Image

MAX_PROFILE_BYTES = 4_000_000  # such as presses' are below two

# What goes from device colours to a picture's own; links between devices, abstract and named colours do not.
_CLASSES = frozenset({"scnr", "mntr", "prtr", "spac"})
# Which profile's colours may be which picture's: of grey pictures both, since red, green and blue are equal there.
_SPACES = {"L": ("GRAY", "RGB "), "RGB": ("RGB ",), "CMYK": ("CMYK",)}

# Tags with programs of any length (ICC.1:2010, 10.14), beside which a profile must have the plain ones.
_PROGRAMS = frozenset(f"{way}{intent}".encode() for way in ("D2B", "B2D") for intent in range(4))

_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D65, _C, _DCI = (0.3127, 0.3290), (0.310, 0.316), (0.314, 0.351)
SRGB_PRIMARIES = (_D65, (0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
# White, red, green and blue of ITU-T H.273, table 2, by their code.
_CODED_PRIMARIES = {
    1: SRGB_PRIMARIES,
    4: (_C, (0.67, 0.33), (0.21, 0.71), (0.14, 0.08)),
    5: (_D65, (0.64, 0.33), (0.29, 0.60), (0.15, 0.06)),
    6: (_D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    7: (_D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    9: (_D65, (0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    11: (_DCI, (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    12: (_D65, (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
# Exponents of table 3, by their code; BT.709 and its kin are shown by that of BT.1886, and 13 is sRGB's own curve.
# PQ and HLG (16, 18) are of other ranges of brightness, for which there is no one rule.
_CODED_GAMMAS = {1: 2.4, 4: 2.2, 5: 2.8, 6: 2.4, 8: 1.0, 14: 2.4, 15: 2.4}
_SRGB_TRANSFER = 13

Chromaticities = Sequence[tuple[float, float]]
Conversion = Callable[[Image.Image], Image.Image]


def srgb_conversion(profiles: Sequence[bytes], mode: str) -> Conversion | None:
    """How a picture of mode L, RGB or CMYK comes into sRGB by the first of its ICC profiles that is sound; None: as is.

    A profile of another kind of colours than the picture's is passed over, a broken one too, and one that changes no
    colour by more than a level changes none. The conversion gives a picture of mode L or RGB, and may write into the
    one that it gets.
    """
    for profile in profiles:
        conversion = _conversion(profile, mode) if len(profile) <= MAX_PROFILE_BYTES else None
        if conversion is not None:
            return None if conversion is _unchanged else conversion
    return None


def gamma_profile(gamma: float, primaries: Chromaticities) -> bytes | None:
    """The ICC profile of red, green and blue in an exponent; None where these are no colours.

    `primaries`: CIE 1931 x, y of white, red, green and blue.
    """
    if not 0.1 <= gamma <= 10:
        return None
    return _matrix_profile(b"para" + bytes(4) + struct.pack(">HH", 0, 0) + _fixed(gamma), primaries)


def coded_profile(primaries: int, transfer: int) -> bytes | None:
    """The ICC profile of code points of ITU-T H.273; None for those that no profile stands for, such as of HDR."""
    if primaries not in _CODED_PRIMARIES:
        return None
    if transfer == _SRGB_TRANSFER:
        curve = b"para" + bytes(4) + struct.pack(">HH", 3, 0)
        curve += _fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
        return _matrix_profile(curve, _CODED_PRIMARIES[primaries])
    if transfer not in _CODED_GAMMAS:
        return None
    return gamma_profile(_CODED_GAMMAS[transfer], _CODED_PRIMARIES[primaries])


@functools.lru_cache(maxsize=16)
def _conversion(profile: bytes, mode: str) -> Conversion | None:
    """What a sound profile for pictures of this mode does to them; None for any other."""
    from PIL import ImageCms

    try:
        parsed = ImageCms.ImageCmsProfile(io.BytesIO(_without_programs(profile)))
        space = str(parsed.profile.xcolor_space)
        if parsed.profile.device_class not in _CLASSES or space not in _SPACES.get(mode, ()):
            return None
        given = {"GRAY": "L", "RGB ": "RGB", "CMYK": "CMYK"}[space]
        # A ramp of grey is 256 pixels, computed without the shortcuts that err in the shadows by up to ten levels.
        flags = ImageCms.Flags.NOOPTIMIZE if mode == "L" else ImageCms.Flags.HIGHRESPRECALC
        srgb = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(parsed, srgb, given, "RGB", ImageCms.Intent.PERCEPTUAL, flags)
        if given == "CMYK":
            return lambda image: _applied(transform, image)
        probe = _grey_ramp() if mode == "L" else _probe()
        made = np.asarray(_applied(transform, probe.convert(given)))
    # LittleCMS and its wrapper fail in several ways on hostile bytes.
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, AttributeError):
        return None
    if np.abs(made.astype(int) - np.asarray(probe.convert("RGB"))).max() <= 1:
        return _unchanged
    if mode == "L":
        # One channel, so that grey stays grey where rounding would part them.
        table = made[0, :, 1].tolist()
        return lambda image: image.point(table)
    return lambda image: _applied(transform, image)


def _unchanged(image: Image.Image) -> Image.Image:
    return image


def _applied(transform: object, image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    in_place = image.mode == "RGB" and not image.readonly
    converted = ImageCms.applyTransform(image, transform, inPlace=in_place)  # type: ignore[arg-type]
    return image if converted is None else converted


def _grey_ramp() -> Image.Image:
    return Image.fromarray(np.arange(256, dtype=np.uint8)[None])  # (1, 256)


def _probe() -> Image.Image:
    """Every 16th level of three channels in every combination, and every level of each and of grey: one row."""
    steps = np.minimum(np.arange(0, 257, 16), 255)
    ramp = np.arange(256)[:, None]
    ramps = [ramp * np.array(channels) for channels in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1))]
    colours = np.concatenate([np.array(list(product(steps, repeat=3))), *ramps])
    return Image.fromarray(colours.astype(np.uint8)[None])


def _without_programs(profile: bytes) -> bytes:
    """The profile without the tags that may hold a program of any length: elements may be named over and over."""
    data = bytearray(profile)
    if len(data) < 132:
        return profile
    (count,) = struct.unpack_from(">I", data, 128)
    for index in range(min(count, (len(data) - 132) // 12)):
        place = 132 + 12 * index
        if bytes(data[place : place + 4]) in _PROGRAMS:
            data[place : place + 4] = b"none"
    return bytes(data)


def _matrix_profile(curve: bytes, primaries: Chromaticities) -> bytes | None:
    """A display profile (ICC.1:2010, 8.4.3) of one curve for all channels, its colorants adapted to D50 by Bradford."""
    colorants = _colorants(primaries)
    if colorants is None:
        return None
    text = b"mluc" + bytes(4) + struct.pack(">II", 0, 12)
    tags = {b"desc": text, b"cprt": text, b"wtpt": _xyz(_D50)}
    tags |= {name: _xyz(column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), colorants.T, strict=True)}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    start = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        table += name + struct.pack(">II", start + len(body), len(value))
        body += value
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"", 0x0430_0000, b"mntr", b"RGB ", b"XYZ ")
    return head + bytes(12) + b"acsp" + bytes(28) + _fixed(*_D50) + bytes(48) + table + body


def _colorants(primaries: Chromaticities) -> npt.NDArray[np.float64] | None:
    """XYZ of red, green and blue as columns (3, 3) under D50; None where they span no colours."""
    if not all(0 < y <= 1 and 0 <= x <= 1 for x, y in primaries):
        return None
    white, *channels = (np.array([x / y, 1.0, (1 - x - y) / y]) for x, y in primaries)
    matrix = np.stack(channels, axis=1)
    cones = _BRADFORD @ white
    if abs(np.linalg.det(matrix)) < 1e-6 or cones.min() <= 0:
        return None
    adapted = np.linalg.inv(_BRADFORD) @ np.diag((_BRADFORD @ _D50) / cones) @ _BRADFORD
    colorants: npt.NDArray[np.float64] = adapted @ (matrix * np.linalg.solve(matrix, white))
    return colorants if np.abs(colorants).max() < 10 and math.isfinite(colorants.sum()) else None


def _xyz(value: npt.NDArray[np.float64]) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(*value)


def _fixed(*values: float) -> bytes:
    """Numbers as ICC's s15Fixed16."""
    return b"".join(struct.pack(">i", round(value * 65_536)) for value in values)
