"""What the site shows besides the pages of this folder: README, CONTRIBUTING and CHANGELOG, and notebooks as pages.

Links are written for who reads the repository: `docs/grid.md` in the README, `../CONTRIBUTING.md` in a page here. The
site has all pages in one folder, so links are changed on the way; MkDocs then checks them as all others.
"""

from __future__ import annotations

import html
import json
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

# Pages that lie elsewhere in the repository, by their place in the site.
TOP = {
    "index.md": "README.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "traces.md": "models/traces.md",
}
FOLDER = "docs"
NOTEBOOK = ".ipynb"
_LINK = re.compile(r"\]\((?![a-z]+:|#)([^)\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The pages that do not lie in this folder as Markdown."""
    top = Path(config.config_file_path).parent
    for place, name in TOP.items():
        files.append(File.generated(config, place, content=(top / name).read_text(encoding="utf-8")))
    for file in [file for file in files if file.src_uri.endswith(NOTEBOOK)]:
        page = notebook_page(json.loads(file.content_string), posixpath.basename(file.src_uri))
        files.append(File.generated(config, page_of(file.src_uri), content=page))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A page with the links of the site. One that leads nowhere stays, and MkDocs names it."""
    places = {file.src_uri for file in files}

    def link(match: re.Match[str]) -> str:
        path, separator, anchor = match[1].partition("#")
        place = place_in_site(path, page.file.src_uri)
        if place not in places:
            return match[0]
        relative = posixpath.relpath(place, posixpath.dirname(page.file.src_uri) or ".")
        return f"]({relative}{separator}{anchor})"

    return _LINK.sub(link, markdown)


def place_in_site(path: str, page: str) -> str | None:
    """Where in the site a file lies that a page names by its path in the repository; None for a file elsewhere."""
    named_in = TOP.get(page, f"{FOLDER}/{page}")
    file = posixpath.normpath(posixpath.join(posixpath.dirname(named_in), path))
    for place, name in TOP.items():
        if file == name:
            return place
    if not file.startswith(f"{FOLDER}/"):
        return None
    place = file.removeprefix(f"{FOLDER}/")
    # The page of a notebook alone leads to the notebook itself.
    return page_of(place) if page_of(place) != page else place


def page_of(file: str) -> str:
    """The page that shows a file of this folder: another one for a notebook."""
    return file.removesuffix(NOTEBOOK) + ".md" if file.endswith(NOTEBOOK) else file


def notebook_page(notebook: dict[str, Any], name: str) -> str:
    """A notebook's cells and what they showed, as Markdown."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(_fenced(source, "sh" if source.startswith("!") else "python"))
        parts += [_shown(output) for output in cell["outputs"]]
    parts.append(f"[This page as a notebook]({name})")
    return "\n\n".join(parts) + "\n"


def _shown(output: dict[str, Any]) -> str:
    if output["output_type"] == "stream":
        return _fenced("".join(output["text"]), "text")
    data = {kind: "".join(value) for kind, value in output["data"].items()}
    if "image/png" in data:
        alt = output["metadata"].get("image/png", {}).get("alt", "")
        return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{data["image/png"].strip()}">'
    if "text/html" in data:
        return f'<div class="notebook-output">{data["text/html"]}</div>'
    return _fenced(data["text/plain"], "text")


def _fenced(text: str, language: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```"
