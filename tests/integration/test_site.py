"""`make docs`: the site of README and docs opens from a disk, without any other host, and a broken link fails it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.node_projects import CHROMIUM, skip_without_chromium
from tests.unit.user_pages import ALL_PAGES, DOCS, ROOT

pytestmark = pytest.mark.integration

TOP = ("mkdocs.yml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "models/traces.md")


def build(folder: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """What `make docs` does, for the documentation in a folder."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_in_it(site: Path) -> None:
    pages = {page.relative_to(DOCS if page.is_relative_to(DOCS) else ROOT).with_suffix(".html") for page in ALL_PAGES}
    # A folder's README is its first page, as the top folder's is the site's.
    places = {page.with_name("index.html") if page.stem == "README" else page for page in pages}
    assert places <= {page.relative_to(site) for page in site.rglob("*.html")}


def test_nothing_is_asked_of_another_host(site: Path) -> None:
    asked = re.compile(r"""<(?:script|img|iframe|link)\b[^>]*?\s(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)""")
    imported = re.compile(r"""(?:url\(|@import\s)\s*["']?((?:https?:)?//[^"')\s]+)""")
    for page in site.rglob("*.html"):
        assert asked.findall(page.read_text(encoding="utf-8")) == [], page
    for style in site.rglob("*.css"):
        assert imported.findall(style.read_text(encoding="utf-8")) == [], style


def test_the_first_page_is_the_readme_with_the_links_of_the_site(site: Path) -> None:
    text = (site / "index.html").read_text(encoding="utf-8")
    for place in ("own-pictures.html", "two-folders.html", "results/generators.html", "CONTRIBUTING.html"):
        assert f'href="{place}"' in text
    assert 'src="images/report.png"' in text


def test_a_page_in_a_folder_of_docs_finds_its_neighbours_and_the_top(site: Path) -> None:
    assert 'href="../decisions/0023-crop-path.html"' in (site / "results/generators.html").read_text(encoding="utf-8")
    assert 'href="CONTRIBUTING.html"' in (site / "architecture.html").read_text(encoding="utf-8")


def test_the_notebook_is_a_page_with_what_it_showed_and_a_file(site: Path) -> None:
    text = (site / "two-folders.html").read_text(encoding="utf-8")
    assert "pictures are taken for what they are not" in text
    assert '<img alt="the eight surest mistakes' in text
    assert "<td>&quot;cooccurrence&quot;</td>" in text
    assert 'href="two-folders.ipynb"' in text
    assert (site / "two-folders.ipynb").exists()


def test_the_search_works_from_a_disk(site: Path, tmp_path: Path) -> None:
    """Browsers start no worker there; javascripts/iframe-worker.js stands in for one."""
    skip_without_chromium()
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}",
        "--virtual-time-budget=60000",
    ]
    done = subprocess.run(
        [CHROMIUM, *flags, "--dump-dom", f"{(site / 'index.html').as_uri()}?q=autoencoder"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert re.search(r"\d+ matching documents", done.stdout)


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("gone.md", "gone.md"),
        ("watch.md#nowhere", "'#nowhere'"),
        ("../CONTRIBUTING.md#nowhere", "'#nowhere'"),
        ("../Makefile", "'../Makefile'"),
        ("/settings.md", "'/settings.md'"),
    ],
)
def test_a_link_that_leads_nowhere_fails_it(link: str, said: str, tmp_path: Path) -> None:
    for name in TOP:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(DOCS, tmp_path / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "docs/settings.md").open("a", encoding="utf-8") as page:
        page.write(f"\n[there]({link})\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode == 1
    assert "Aborted with 1 warnings in strict mode" in done.stdout + done.stderr
    assert said in done.stdout + done.stderr
