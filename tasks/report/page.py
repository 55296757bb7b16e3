"""The report: what a run found, in words, tables and pictures, as one HTML file and as Markdown.

data -> tables -> sections of blocks -> a template. Both templates show the same sections; neither computes anything.
The HTML loads nothing: pictures are embedded, styles and the one script are inline, and it can be read without the
script. It links to the tables and to the explorer beside it. All texts are escaped by the templates, because image ids,
details of broken files and captions come from outside.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from tasks.report import plots
from tasks.report.blocks import NOT_AVAILABLE, Heats, Picture, Section
from tasks.report.data import ReportData
from tasks.report.script import SCRIPT
from tasks.report.sections import report_sections

# Bytes of the Markdown, which Prefect keeps in its database, and of the pictures in it (as base64).
MARKDOWN_BYTES = 100_000
MARKDOWN_PICTURE_BYTES = 60_000
# Longer tables, and further heat maps, are not in the Markdown.
MARKDOWN_ROWS, MARKDOWN_MAPS = 40, 2


def render_html(data: ReportData) -> str:
    """The report as one HTML file that loads nothing from anywhere."""
    environment = _environment(autoescape=True)
    environment.filters |= {
        "embedded": _embedded,
        "percent": lambda share: round(100 * abs(share)),
        "deep": plots.is_deep,
    }
    environment.globals |= {
        "script": Markup(SCRIPT),
        "plot_style": Markup(plots.STYLE),
        "light": Markup(plots.colour_classes(plots.LIGHT)),
        "dark": Markup(plots.colour_classes(plots.DARK)),
    }
    return environment.get_template("page.html").render(**_document(data))


def render_markdown(data: ReportData) -> str:
    """The report as Markdown of at most `MARKDOWN_BYTES`: what does not fit is named, and is in the HTML alone."""
    environment = _environment(
        autoescape=False, finalize=lambda value: value if isinstance(value, Markup) else escape_markdown(str(value))
    )
    budget = _PictureBudget(MARKDOWN_PICTURE_BYTES)
    environment.filters |= {"heat_pictures": lambda heats: budget.embed((_heat_picture(heats),))}
    environment.filters |= {"embedded": budget.embed}
    environment.globals |= {"most_rows": MARKDOWN_ROWS, "most_maps": MARKDOWN_MAPS}
    document = _document(data)
    page = environment.get_template("page.md").make_module(document)
    text, missing = str(page.head()), []  # type: ignore[attr-defined]
    for section in document["sections"]:
        shown = str(page.section(section))  # type: ignore[attr-defined]
        if len((text + shown).encode()) > MARKDOWN_BYTES - 2_000:
            missing.append(section)
        else:
            text += shown
    return text + _left_out(missing)


def _left_out(missing: list[Section]) -> str:
    titles = ", ".join(escape_markdown(section.title) for section in missing)
    return f"\n*Not shown here, in the HTML report: {titles}.*\n" if missing else ""


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


def _document(data: ReportData) -> dict[str, Any]:
    return {
        "title": data.experiment.name,
        "description": data.experiment.description,
        "run_name": data.run_name,
        "created": data.created,
        "sections": report_sections(data),
    }


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _embedded(picture: Picture) -> Markup:
    """A picture as an element of the page: SVG inline, so that it takes the page's colours, WebP as data."""
    if picture.is_svg:
        drawn = Markup(picture.data.decode().replace("<svg ", '<svg aria-hidden="true" ', 1))
        return Markup('<div class="plot" role="img" aria-label="{}">{}</div>').format(picture.alt, drawn)
    from PIL import Image

    with Image.open(io.BytesIO(picture.data)) as opened:
        width, height = opened.size
    return Markup('<img src="{}" alt="{}" width="{}" height="{}">').format(
        _data_uri(picture.data, "webp"), picture.alt, width, height
    )


def _heat_picture(heats: Heats) -> Picture:
    maps = heats.maps[:MARKDOWN_MAPS]
    spoken = [
        f"{one.title}, {row}: "
        + ", ".join(
            f"{column} {NOT_AVAILABLE if value is None else one.scale.text(value)}"
            for column, value in zip(one.columns, values, strict=True)
        )
        for one in maps
        for row, values in zip(one.rows, one.values, strict=True)
    ]
    return Picture(heats.title or maps[0].title, "; ".join(spoken), plots.heat_map(maps))


class _PictureBudget:
    """Embeds pictures in Markdown, in the order in which they are asked for, until the budget is spent."""

    def __init__(self, remaining: int) -> None:
        self._remaining = remaining

    def embed(self, pictures: Sequence[Picture]) -> tuple[list[Markup], list[str]]:
        """Those that there is room for, and the titles of the others."""
        shown, missing = [], []
        for picture in pictures:
            data = plots.standalone(picture.data) if picture.is_svg else picture.data
            uri = _data_uri(data, "svg+xml" if picture.is_svg else "webp")
            embedded = Markup("![{}]({})").format(Markup(escape_markdown(picture.alt)), Markup(uri))
            if len(embedded) > self._remaining:
                missing.append(picture.title or "picture")
            else:
                self._remaining -= len(embedded)
                shown.append(embedded)
        return shown, missing
