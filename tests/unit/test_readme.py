"""What README and docs name exists: commands, paths, settings, presets."""

import re
from pathlib import Path

import pytest
import yaml
from prefect.flows import load_flow_from_entrypoint

from tasks.presets import PRESETS
from tests.unit.user_pages import ALL_PAGES, DETECTORS, README, ROOT, USER_PAGES

TEXT = "\n".join(page.read_text(encoding="utf-8") for page in USER_PAGES)
LINKS = [
    (page, link)
    for page in ALL_PAGES
    for link in re.findall(r"\]\((?![a-z]+:|#)([^)\s]+)\)", page.read_text(encoding="utf-8"))
]


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 130


def test_the_readme_shows_a_report_and_the_app() -> None:
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README.read_text(encoding="utf-8"))
    assert pictures == ["docs/images/report.png", "docs/images/app-small.png"]
    assert all((README.parent / picture).is_file() for picture in pictures)


def test_every_page_of_docs_is_reached_from_the_readme() -> None:
    pages = {page.resolve() for page in ALL_PAGES}
    leads: dict[Path, set[Path]] = {page.resolve(): set() for page in ALL_PAGES}
    for page, link in LINKS:
        leads[page.resolve()].add((page.parent / link.partition("#")[0]).resolve())
    reached: set[Path] = set()
    ahead = [README.resolve()]
    while ahead:
        page = ahead.pop()
        if page in pages - reached:
            reached.add(page)
            ahead += leads[page]
    assert pages - reached == set()


@pytest.mark.parametrize("language", ["python", "yaml"])
def test_the_readme_shows_the_first_example_of_the_page_on_detectors(language: str) -> None:
    in_readme, on_page = (
        re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S)[0]
        for page in (README, DETECTORS)
    )
    assert in_readme == on_page


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    named = set(re.findall(r"(?:^|`|[A-Z]=\S+ )make ([a-z0-9-]+)", TEXT, flags=re.M))
    assert {"demo", "test", "serve"} <= named <= targets


def test_every_deployment_exists() -> None:
    document = yaml.safe_load((ROOT / "deployments" / "prefect.yaml").read_text())
    known = set()
    for deployment in document["deployments"]:
        known.add(f"{load_flow_from_entrypoint(deployment['entrypoint']).name}/{deployment['name']}")
    named = set(re.findall(r"deployment run ([a-z-]+/[a-z0-9-]+)", TEXT))
    assert named
    assert named <= known


@pytest.mark.parametrize(("page", "link"), LINKS, ids=lambda value: str(getattr(value, "name", value)))
def test_every_link_leads_somewhere(page: Path, link: str) -> None:
    assert (page.parent / link.partition("#")[0]).exists()


def test_every_setting_is_read_somewhere() -> None:
    code = "".join(
        path.read_text()
        for folder in ("storage", "tasks", "flows", "deployments", "benchmarks", "tests")
        for path in (ROOT / folder).rglob("*.py")
    )
    presets = "".join(path.read_text() for path in PRESETS.glob("*.yaml"))
    for setting in set(re.findall(r"TELLTALE_[A-Z0-9_]+", TEXT)):
        assert setting in code + presets, setting


def test_the_presets_that_they_name_exist() -> None:
    named = set(re.findall(r"(?:experiment=|telltale evaluate )([a-z][a-z-]*)(?![\w.-])", TEXT))
    assert "subset" in named
    for name in named:
        assert (PRESETS / f"{name}.yaml").exists(), name
