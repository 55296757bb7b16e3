"""The report: what a run found, in words, tables and pictures, as one HTML file and as Markdown.

data -> tables -> sections of blocks -> a template. Both templates show the same sections; neither computes anything.
The HTML loads nothing: pictures are embedded, styles are inline, there is no script. All texts are escaped by the
templates, because image ids, details of broken files and captions come from outside.
"""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from tasks.report import plots
from tasks.report.blocks import NOT_AVAILABLE, Heats, Picture
from tasks.report.data import ReportData
from tasks.report.plots import PlotFormat
from tasks.report.sections import report_sections

# Bytes of embedded pictures (as base64) in the Markdown, which Prefect keeps in its database.
MARKDOWN_PICTURE_BYTES = 600_000
_MARKDOWN_PICTURE_SIDE = 480


def render_html(data: ReportData) -> str:
    """The report as one HTML file that loads nothing from anywhere."""
    environment = _environment(autoescape=True)
    numbers = iter(range(1, 1_000_000))
    environment.filters |= {
        "embedded": lambda picture: _embedded(picture, next(numbers)),
        "percent": lambda share: round(100 * abs(share)),
        "deep": lambda share: abs(share) >= plots.HEAT_DEEP,
    }
    return environment.get_template("page.html").render(**_document(data, "svg"))


def render_markdown(data: ReportData) -> str:
    """The report as Markdown, under a megabyte: pictures are smaller, and those that do not fit are left out."""
    environment = _environment(
        autoescape=False, finalize=lambda value: value if isinstance(value, Markup) else escape_markdown(str(value))
    )
    budget = _PictureBudget(MARKDOWN_PICTURE_BYTES)
    environment.filters |= {"heat_picture": lambda heats: budget.embed(_heat_picture(heats)), "picture": budget.embed}
    # Plots come before examples: what they leave of the budget is for the others.
    return environment.get_template("page.md").render(**_document(data, "png"), left_out=lambda: budget.left_out)


def escape_markdown(text: str) -> str:
    """A text that Markdown, with or without HTML, shows as it is: on one line, no markup, no table cell ended."""
    return re.sub(r"([\\`*_\[\]<>|#~&$])", r"\\\1", " ".join(text.split()))


def _environment(**options: Any) -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **options,
    )


def _document(data: ReportData, plot_format: PlotFormat) -> dict[str, Any]:
    return {
        "title": data.experiment.name,
        "description": data.experiment.description,
        "run_name": data.run_name,
        "created": data.created,
        "sections": report_sections(data, plot_format),
    }


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _embedded(picture: Picture, place: int) -> Markup:
    """A picture as an element of the page: SVG inline, so that it takes the page's colours, PNG as data."""
    if picture.is_svg:
        # Names inside an SVG are names of the whole page: each picture gets its own.
        svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\1p{place}-", picture.data.decode())
        svg = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', svg, count=1)
        return Markup('<div class="plot" role="img" aria-label="{}">{}</div>').format(picture.alt, Markup(svg))
    from PIL import Image

    with Image.open(io.BytesIO(picture.data)) as opened:
        width, height = opened.size
    return Markup('<img src="{}" alt="{}" width="{}" height="{}"{}>').format(
        _data_uri(picture.data, "png"), picture.alt, width, height, Markup(' class="small"') if height <= 80 else ""
    )


def _heat_picture(heats: Heats) -> Picture:
    spoken = "; ".join(
        f"{one.title}, {row} by {column}: {NOT_AVAILABLE if value is None else one.scale.text(value)}"
        for one in heats.maps
        for row, values in zip(one.rows, one.values, strict=True)
        for column, value in zip(one.columns, values, strict=True)
    )
    return Picture(heats.title, f"Heat maps {heats.title}: {spoken}", plots.heat_map(heats.maps))


class _PictureBudget:
    """Embeds pictures in Markdown, in the order in which they are asked for, until the budget is spent."""

    def __init__(self, remaining: int) -> None:
        self._remaining = remaining
        self.left_out = 0

    def embed(self, picture: Picture) -> Markup:
        data, kind = _smaller(picture.data)
        uri = _data_uri(data, kind)
        if len(uri) > self._remaining:
            self.left_out += 1
            return Markup(f"*({escape_markdown(picture.title or 'picture')}: in the HTML report)*")
        self._remaining -= len(uri)
        return Markup(f"![{escape_markdown(picture.alt)}]({uri})")


def _smaller(png: bytes) -> tuple[bytes, str]:
    """A picture that is wider than Markdown shows it, reduced, as JPEG; others as they are."""
    from PIL import Image

    with Image.open(io.BytesIO(png)) as opened:
        if opened.mode == "P" or (len(png) < 12_000 and opened.width <= _MARKDOWN_PICTURE_SIDE):
            return png, "png"
        picture = opened.convert("RGB")
    picture.thumbnail((_MARKDOWN_PICTURE_SIDE, 2 * _MARKDOWN_PICTURE_SIDE))
    target = io.BytesIO()
    picture.save(target, format="JPEG", quality=78, optimize=True)
    return target.getvalue(), "jpeg"
