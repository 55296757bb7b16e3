"""What the app's tests compare with: two tiny networks, pictures of every kind, and Python's answers to them.

`python -m tests.integration.mobile_fixtures FOLDER` writes

    models/      three networks with cards, as a published run has them; `traces` looks at windows and has three answers
    pictures/    files to check; `answers.json` says for each what Python reads and answers, or why it cannot
    labelled/    LABEL/NAME.jpg, for the Evaluate screen
    kernel.json  pictures and what Pillow makes of them, as `reduce_picture` says
    quality.json luminance tables and the JPEG quality that Python estimates
    rule.json    cards, facts and outputs, and what Python decides
    windows.json places of windows in pictures of some sizes, and the name of a small picture
"""

from __future__ import annotations

import base64
import io
import json
import struct
import sys
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from storage.errors import BadImage
from tasks.data.encoding import encode_jpeg, encode_png
from tasks.data.file_statements import file_statements
from tasks.data.pictures import Pixels, decode_rgb, inspect_picture
from tasks.networks.answer import ANY_GENERATOR, Answer, Card, Rate, answer, nearest_cell, window_places
from tasks.networks.architecture import architecture
from tasks.networks.export import network_card
from tasks.networks.exported import Detection, ExportedNetwork, reduce_picture
from tasks.networks.familiarity import SCORES, fit_familiarity
from tasks.networks.mobilenet_network import MobileNet, initialise, network_tensors
from tasks.networks.network_graph import build_graph
from tasks.networks.trained import TrainedNetwork
from tests.property.image_mutations import png_chunk
from tests.unit import icc_profiles
from tests.unit.published_networks import CANONICAL_SIDE, CLASSES, RESOLUTIONS, as_before, error_rates

SIDE = 64
WINDOWS = 3
HUGE_SIDE = 10_000


def write(folder: Path) -> None:
    """Write everything."""
    random = np.random.default_rng(0)
    files = pictures(random)
    usable = [decode_rgb(data) for name, data in files.items() if not name.startswith(("bad-", "huge-"))]
    # Cards say of the first one that it began with trained weights, of the other that it is a demonstration.
    networks = {
        "dense": network(0.35, seed=1, weights="sha256:00"),
        "small": network(0.1, seed=2, weights="random:2"),
        "traces": network(0.1, seed=3, weights="sha256:03", classes=("real", ANY_GENERATOR), windows=WINDOWS),
    }
    cards = {}
    for name, trained in networks.items():
        model = build_graph(trained)
        cards[name] = (model, (card_of if name != "traces" else three_answers)(name, trained, model, usable))
        put(folder / "models" / f"{name}.onnx", model)
        put(folder / "models" / f"{name}.json", json.dumps(cards[name][1]).encode())
    for name, data in files.items():
        put(folder / "pictures" / name, data)
    answers = {name: picture_answer(data, cards) for name, data in files.items()}
    put(folder / "pictures" / "answers.json", json.dumps(answers, allow_nan=False).encode())
    for label in ("real", "gan", "fake"):
        for number in range(3):
            put(folder / "labelled" / label / f"{number}.jpg", encode_jpeg(scene(random, 200, 220), 85))
    put(folder / "kernel.json", json.dumps(kernel_cases(random)).encode())
    put(folder / "quality.json", json.dumps(quality_cases(random)).encode())
    put(folder / "windows.json", json.dumps(window_cases(decode_rgb(files["png-1025x700.png"]))).encode())
    put(folder / "rule.json", json.dumps(rule_cases(random), allow_nan=False).encode())


def put(path: Path, data: bytes) -> None:
    """Write a file, its folder too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def network(
    width: float, seed: int, weights: str, classes: tuple[str, ...] = CLASSES, windows: int | None = None
) -> TrainedNetwork:
    """A network of random weights whose answers differ from picture to picture."""
    count = len(classes)
    shape = architecture(width, "v3", count, side=SIDE)
    module = MobileNet(shape)
    initialise(module, seed=seed)
    features = np.random.default_rng(seed).normal(size=(60, shape.last))
    return TrainedNetwork(
        shape=shape,
        tensors=network_tensors(module),
        classes=classes,
        temperature=1.5,
        familiarity=fit_familiarity(features, np.arange(60) % count, count, components=4),
        about={"trained_on": "nothing: random weights, for tests", "weights": weights}
        | ({} if windows is None else {"windows": windows}),
    )


def card_of(name: str, trained: TrainedNetwork, model: bytes, seen: list[Pixels]) -> dict[str, Any]:
    """A card under which the pictures get all three verdicts."""
    exported = ExportedNetwork(model)
    found = [exported.detect(pixels) for pixels in seen]
    p_fake = np.array([1 - float(each.probabilities[0]) for each in found])
    familiarity = np.array([float(each.familiarity[0]) for each in found])
    low = 0.5 * (np.sort(familiarity)[len(seen) // 5] + np.sort(familiarity)[len(seen) // 5 + 1])
    middle = np.sort(p_fake[familiarity >= low])
    threshold = 0.5 * (middle[len(middle) // 2 - 1] + middle[len(middle) // 2])
    return network_card(trained, model) | {
        "name": name,
        "canonical_side": CANONICAL_SIDE,
        "decision": {
            "rule": "as tasks.networks.answer",
            "fake_thresholds": dict.fromkeys(RESOLUTIONS, float(threshold)),
            "rejection": {"score": "max-probability", "threshold": float(low), "kept": 0.8},
        },
        "error_rates": error_rates(),
        "sources": {"real": "photographs", "gan": "a small GAN", "stable": "a latent diffusion model"},
        "evaluation": {},
    }


def three_answers(name: str, trained: TrainedNetwork, model: bytes, seen: list[Pixels]) -> dict[str, Any]:
    """A card of windows, under which the pictures that are large enough get all three answers."""
    exported = ExportedNetwork(model)
    shown = [windows_of(pixels) for pixels in seen if min(pixels.shape[:2]) >= SIDE]
    found = [exported.opinion(windows) for windows in shown]
    p_fake = np.sort([1 - float(each.probabilities[0]) for each in found])
    # Some pictures are the same in two files: the line lies between two that differ.
    familiarity = np.unique([round(float(each.familiarity[0]), 6) for each in found])
    below, above = (0.5 * (p_fake[at - 1] + p_fake[at]) for at in (len(found) // 3, 2 * len(found) // 3))
    card = card_of(name, trained, model, seen)
    decision = {
        "rule": "as tasks.networks.answer",
        "fake_thresholds": dict.fromkeys(RESOLUTIONS, float(above)),
        "photograph_thresholds": dict.fromkeys(RESOLUTIONS, float(below)),
        "rejection": {"score": "max-probability", "threshold": float(familiarity[:2].mean()), "kept": 0.8},
    }
    card |= {"formats": ["JPEG", "PNG"]}
    return card | {"format": 2, "decision": decision, "error_rates": rates_of_three(), "sources": {}}


def rates_of_three() -> list[dict[str, Any]]:
    """Error rates of a network that may give no answer."""
    others = {"missed_unknown": (0.41, 200), "photographs_undecided": (0.4, 500), "generated_undecided": (0.4, 300)}
    rates = {
        name: {"value": value, "low": value - 0.05, "high": value + 0.05, "n": n} for name, (value, n) in others.items()
    }
    return [cell | rates for cell in error_rates()]


def places_of(pixels: Pixels) -> list[tuple[int, int]]:
    """Where the windows of a picture lie."""
    height, width = pixels.shape[:2]
    return window_places(height, width, SIDE, WINDOWS)


def windows_of(pixels: Pixels) -> list[Pixels]:
    """The windows that a network of windows is shown of a picture."""
    return [pixels[top : top + SIDE, left : left + SIDE] for top, left in places_of(pixels)]


def window_cases(large: Pixels) -> dict[str, Any]:
    """Where windows lie."""
    sizes = ((256, 256), (257, 256), (300, 1025), (3000, 4000), (10_000, 10_000))
    return {
        "large": {"places": places_of(large)},
        "places": [
            {"height": height, "width": width, "places": window_places(height, width, 256, 5)}
            for height, width in sizes
        ],
    }


def scene(random: np.random.Generator, height: int, width: int) -> Pixels:
    """Something like a picture: smooth colours, edges, and some grain."""
    coarse = random.integers(0, 256, (7, 9, 3), dtype=np.uint8)
    smooth = np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), dtype=np.int64)
    down, across = np.mgrid[0:height, 0:width]
    stripes = 40 * (((across * 9 // width) + (down * 7 // height)) % 2)[..., None]
    grain = random.integers(-12, 13, (height, width, 1))
    pixels: Pixels = np.clip(smooth + stripes + grain, 0, 255).astype(np.uint8)
    return pixels


def pictures(random: np.random.Generator) -> dict[str, bytes]:
    """Files by name. `png-` decode to the same pixels everywhere, `jpg-` nearly, `bad-` not at all."""
    files = {}
    for height, width in (
        (16, 16),
        (17, 33),
        (48, 64),
        (301, 200),
        (256, 256),
        (700, 1025),
        (1601, 901),
        (90, 3000),
        (3000, 60),
    ):
        files[f"png-{width}x{height}.png"] = encode_png(scene(random, height, width))
    files["png-grey.png"] = saved(Image.fromarray(scene(random, 60, 80)).convert("L"), "PNG")
    files["png-palette.png"] = saved(Image.fromarray(scene(random, 60, 80)).quantize(64), "PNG")
    files["png-image.gif"] = saved(Image.fromarray(scene(random, 60, 80)).quantize(64), "GIF")
    files["png-image.bmp"] = saved(Image.fromarray(scene(random, 61, 83)), "BMP")
    files["png-image.webp"] = saved(Image.fromarray(scene(random, 61, 83)), "WEBP", lossless=True)
    files["png-rotated-6.png"] = rotated(scene(random, 120, 70), 6, "PNG")
    for height, width, quality in ((64, 64, 20), (255, 257, 40), (333, 512, 60), (512, 512, 95), (901, 1601, 85)):
        files[f"jpg-{width}x{height}-q{quality}.jpg"] = encode_jpeg(scene(random, height, width), quality)
    files["jpg-444.jpg"] = encode_jpeg(scene(random, 99, 131), 90, "444")
    files["jpg-progressive.jpg"] = saved(Image.fromarray(scene(random, 150, 131)), "JPEG", quality=75, progressive=True)
    files["jpg-grey.jpg"] = saved(Image.fromarray(scene(random, 150, 131)).convert("L"), "JPEG", quality=75)
    files["jpg-transparent.png"] = transparent(random)
    for orientation in range(2, 9):
        files[f"jpg-rotated-{orientation}.jpg"] = rotated(scene(random, 120, 210), orientation, "JPEG")
    files["jpg-4000x3000.jpg"] = encode_jpeg(scene(random, 3000, 4000), 90)
    rgb = scene(random, 90, 130)
    p3 = icc_profiles.rgb_profile(icc_profiles.DISPLAY_P3, icc_profiles.srgb_curve())
    adobe = icc_profiles.rgb_profile(icc_profiles.ADOBE_RGB, icc_profiles.gamma_curve(icc_profiles.ADOBE_GAMMA))
    srgb = icc_profiles.rgb_profile(icc_profiles.SRGB, icc_profiles.srgb_curve())
    files["png-profile-srgb.png"] = saved(Image.fromarray(rgb), "PNG", icc_profile=srgb)
    # A level more or less, as two converters round.
    files["jpg-profile-p3.png"] = saved(Image.fromarray(rgb), "PNG", icc_profile=p3)
    files["jpg-profile-adobe.webp"] = saved(Image.fromarray(rgb), "WEBP", lossless=True, icc_profile=adobe)
    files["jpg-profile-adobe.jpg"] = saved(Image.fromarray(rgb), "JPEG", quality=90, icc_profile=adobe)
    files["jpg-profile-doubled.jpg"] = files["jpg-444.jpg"][:2] + icc_profiles.app2(p3) * 2 + files["jpg-444.jpg"][2:]
    files["jpg-gamma.png"] = files["png-grey.png"][:33] + GAMMA_CHUNK + files["png-grey.png"][33:]
    files["jpg-image.avif"] = saved(Image.fromarray(rgb), "AVIF", quality=95, subsampling="4:4:4")
    files["jpg-profile-p3.avif"] = saved(Image.fromarray(rgb), "AVIF", quality=95, subsampling="4:4:4", icc_profile=p3)
    files["jpg-without-end.jpg"] = files["jpg-512x333-q60.jpg"][:-2]
    files["jpg-without-end-progressive.jpg"] = files["jpg-progressive.jpg"][:-2]
    files["png-without-end.png"] = files["png-64x48.png"][:-12]
    files["png-appended.png"] = files["png-64x48.png"] + b"more"
    files["png-wrong-size.webp"] = files["png-image.webp"][:4] + bytes([0, 0, 1, 0]) + files["png-image.webp"][8:]
    files |= told(files)
    files["bad-scans-missing.jpg"] = files["jpg-progressive.jpg"][: files["jpg-progressive.jpg"].rindex(b"\xff\xc4")]
    files["bad-raster.jp2"] = b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100)
    files["bad-page.jpg"] = b"<!DOCTYPE html><html><body>404</body></html>"
    files["huge-100-megapixels.jpg"] = huge(random)
    whole = files["jpg-512x512-q95.jpg"]
    files["bad-empty.jpg"] = b""
    files["bad-text.jpg"] = b"These are words, whatever the name says.\n" * 20
    files["bad-truncated.jpg"] = whole[: len(whole) // 2]
    files["bad-headers.jpg"] = whole[:80]
    files["bad-truncated.png"] = files["png-256x256.png"][:9000]
    files["bad-small.png"] = encode_png(scene(random, 4, 100))
    files["bad-narrow.png"] = encode_png(scene(random, 8, 3000))
    files["bad-line.png"] = encode_png(np.zeros((30_000, 1, 3), dtype=np.uint8))
    files["bad-15x15.png"] = encode_png(np.zeros((15, 15, 3), dtype=np.uint8))
    files["bad-bomb.png"] = bomb(20_000, 20_000)
    files["bad-damaged.png"] = damaged(files["png-256x256.png"])
    return files


def told(files: dict[str, bytes]) -> dict[str, bytes]:
    """Some of the files with what a generator, a camera or a signer writes beside the pixels."""
    png, jpeg, webp = files["png-64x48.png"], files["jpg-444.jpg"], files["png-image.webp"]
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Canon", "Canon EOS R5"
    camera = exif.tobytes()
    xmp = b'Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"'
    chunks = [(b"tEXt", b"parameters\0a cat, Steps: 20"), (b"caBX", b"\0\0\0\x10jumbc2pa....")]
    chunks += [(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp), (b"eXIf", camera.removeprefix(b"Exif\0\0"))]
    segments = ((0xE1, camera), (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp), (0xEB, b"JP\0\1\0\0\0\1....jumbc2pa"))
    head = b"".join(struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content for marker, content in segments)
    exif[0x010F] = 'workflow:{"1": 2}'
    return {
        "png-told.png": png[:33] + b"".join(png_chunk(*chunk) for chunk in chunks) + png[33:],
        "jpg-told.jpg": jpeg[:2] + head + jpeg[2:],
        "png-told.webp": saved(Image.open(io.BytesIO(webp)), "WEBP", lossless=True, exif=exif.tobytes(), xmp=xmp),
    }


# The samples are light itself.
GAMMA_CHUNK = png_chunk(b"gAMA", struct.pack(">I", 100_000))


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """An image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def rotated(pixels: Pixels, orientation: int, kind: str) -> bytes:
    """A file with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 88} if kind == "JPEG" else {}
    return saved(Image.fromarray(pixels), kind, exif=exif, **options)


def transparent(random: np.random.Generator) -> bytes:
    """A PNG with every opacity."""
    pixels = scene(random, 128, 128)
    alpha = np.tile(np.arange(0, 256, 2, dtype=np.uint8), (128, 1))
    return saved(Image.fromarray(np.dstack([pixels, alpha])), "PNG")


def huge(random: np.random.Generator) -> bytes:
    """100 million pixels, the most that is allowed."""
    small = Image.fromarray(scene(random, 1000, 1000))
    return encode_jpeg(np.array(small.resize((HUGE_SIDE, HUGE_SIDE), Image.Resampling.BILINEAR)), 80)


def bomb(width: int, height: int) -> bytes:
    """A small PNG that declares many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def damaged(png: bytes) -> bytes:
    """A PNG whose compressed pixels were overwritten."""
    middle = len(png) // 2
    return png[:middle] + bytes(600) + png[middle + 600 :]


def picture_answer(data: bytes, cards: dict[str, tuple[bytes, dict[str, Any]]]) -> dict[str, Any]:
    """Facts of a file, and every network's answer to it; or the reason why there is none."""
    try:
        facts = inspect_picture(data)
        answers = {}
        for name, (model, card) in cards.items():
            read = Card.read(json.dumps(card).encode())
            if read.windows is not None and min(decode_rgb(data).shape[:2]) < SIDE:
                with pytest.raises(BadImage, match="too-small"):
                    answer(ExportedNetwork(model), read, data)
            else:
                answers[name] = answer_json(answer(ExportedNetwork(model), read, data))
    except BadImage as error:
        return {"error": error.reason}
    return {
        "facts": {
            "width": facts.width,
            "height": facts.height,
            "format": facts.format,
            "jpegQuality": facts.jpeg_quality,
        },
        "answers": answers,
        "says": asdict(file_statements(data)),
    }


def answer_json(found: Answer) -> dict[str, Any]:
    """An answer under the app's names."""
    return {
        "verdict": found.verdict,
        "reason": found.reason,
        "source": found.source,
        "pFake": found.p_fake,
        "threshold": found.threshold,
        "photographThreshold": found.photograph_threshold,
        "probabilities": found.probabilities,
        "familiarity": found.familiarity,
        "kind": {
            "shorterSide": found.kind.shorter_side,
            "format": found.kind.format,
            "jpegQuality": found.kind.jpeg_quality,
            "testedSide": found.kind.tested_side,
            "testedQuality": found.kind.tested_quality,
            "cell": found.kind.cell,
        },
        "falseAlarms": found.errors.false_alarms.model_dump(),
        "missed": found.errors.missed.model_dump(),
        "missedUnknown": dumped(found.errors.missed_unknown),
        "photographsUndecided": dumped(found.errors.photographs_undecided),
        "generatedUndecided": dumped(found.errors.generated_undecided),
    }


def dumped(rate: Rate | None) -> dict[str, Any] | None:
    """A rate under the app's names."""
    return None if rate is None else rate.model_dump()


def kernel_cases(random: np.random.Generator) -> list[dict[str, Any]]:
    """Noise and its reduction."""
    cases = []
    sides = ((40, 50, 50), (51, 40, 50), (100, 77, 50), (333, 100, 99), (64, 500, 64), (1, 90, 30), (90, 1, 30))
    for height, width, longest in (*sides, (1025, 20, 1024), (2400, 51, 1024), (33, 3001, 1024)):
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        if height % 2:
            pixels = (pixels // 128) * 255  # black, white and pure colours reach the ends of the range
        reduced = reduce_picture(pixels, longest)
        cases.append(
            {
                "height": height,
                "width": width,
                "longest": longest,
                "pixels": in_base64(pixels),
                "reducedSides": list(reduced.shape[:2]),
                "reduced": in_base64(reduced),
            }
        )
    return cases


def quality_cases(random: np.random.Generator) -> list[dict[str, Any]]:
    """A small JPEG of every quality, and some with tables of nobody's."""
    pixels = scene(random, 16, 16)
    files = [encode_jpeg(pixels, quality) for quality in range(1, 101)]
    for _ in range(20):
        tables = [random.integers(1, 256, 64).tolist() for _ in range(2)]
        files.append(saved(Image.fromarray(pixels), "JPEG", qtables=tables))
    return [{"file": base64.b64encode(file).decode(), "quality": inspect_picture(file).jpeg_quality} for file in files]


class Saying(ExportedNetwork):
    """A network that says the same of every picture."""

    def __init__(self, found: Detection) -> None:
        self.found = found

    def detect(self, pixels: Pixels) -> Detection:
        return self.found


def rule_cases(random: np.random.Generator) -> dict[str, Any]:
    """Cards and outputs with Python's decisions, and the nearest cell of every size and quality."""
    cases = []
    for number in range(200):
        score = SCORES[number % 3]
        probabilities = random.dirichlet(np.ones(3)).astype(np.float32)
        familiarity = np.array([probabilities.max(), random.normal(), -random.exponential()], dtype=np.float32)
        kept = random.choice([resolution for resolution in RESOLUTIONS if random.random() < 0.8] or ["64"], 1)
        thresholds = {str(each): float(random.random()) for each in {*kept.tolist(), "native"}}
        if number % 10 == 0:  # exactly at both thresholds
            thresholds = dict.fromkeys(RESOLUTIONS, 1.0 - float(probabilities[0]))
        at = float(familiarity[SCORES.index(score)])
        threshold = at if number % 10 == 0 else at + float(random.normal())
        if score == "max-probability":
            threshold = min(max(threshold, 0.0), 1.0)
        rejection = {"score": score, "threshold": threshold, "kept": 0.95}
        decision: dict[str, Any] = {"rule": "", "fake_thresholds": thresholds, "rejection": rejection}
        rates = as_before(error_rates()) if number % 2 else error_rates()
        if number % 4 >= 2:
            # Of some resolutions alone, and now and then one line alone.
            lower = {name: above * random.choice([1.0, random.random()]) for name, above in sorted(thresholds.items())}
            decision["photograph_thresholds"] = dict(list(lower.items())[number % 3 :])
            rates = rates if number % 2 else rates_of_three()
        card = {
            "name": "rule",
            "sha256": "0" * 64,
            "classes": list(CLASSES),
            "canonical_side": CANONICAL_SIDE,
            "self_test": {"height": 1, "width": 1, "pixels": "AAAA", "tolerance": 1e-3}
            | dict.fromkeys(("logits", "probabilities"), [0.0] * len(CLASSES)),
            "decision": decision,
            "error_rates": rates,
        }
        side, quality = int(random.integers(16, 600)), int(random.integers(1, 101))
        pixels = np.zeros((side, side + 5, 3), dtype=np.uint8)
        data = encode_jpeg(pixels, quality) if number % 3 else encode_png(pixels)
        detection = Detection(np.log(probabilities), probabilities, familiarity, np.zeros((3, 1, 1), dtype=np.float32))
        facts = inspect_picture(data)
        cases.append(
            {
                "card": card,
                "facts": {"width": facts.width, "height": facts.height, "format": facts.format}
                | {"jpegQuality": facts.jpeg_quality},
                "probabilities": probabilities.tolist(),
                "familiarity": familiarity.tolist(),
                "answer": answer_json(answer(Saying(detection), Card.read(json.dumps(card).encode()), data)),
            }
        )
    read = Card.read(json.dumps(cases[0]["card"]).encode())
    sides = [*range(8, 700), 1000, 4000]
    nearest = [[side, str(nearest_cell(read, side, None).resolution)] for side in sides]
    qualities = [[quality, nearest_cell(read, 64, quality).jpeg_quality] for quality in range(1, 101)]
    return {"cases": cases, "resolutions": nearest, "qualities": qualities}


def in_base64(pixels: npt.NDArray[np.uint8]) -> str:
    """Pixels, row by row."""
    return base64.b64encode(np.ascontiguousarray(pixels).tobytes()).decode()


if __name__ == "__main__":
    write(Path(sys.argv[1]))
