"""The README's commands, paths and settings exist."""

import re
from pathlib import Path

import pytest
import yaml
from prefect.flows import load_flow_from_entrypoint

from tasks.presets import PRESETS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    assert set(re.findall(r"make ([a-z0-9]+)", README)) <= targets


def test_every_deployment_exists() -> None:
    document = yaml.safe_load((ROOT / "deployments" / "prefect.yaml").read_text())
    known = set()
    for deployment in document["deployments"]:
        known.add(f"{load_flow_from_entrypoint(deployment['entrypoint']).name}/{deployment['name']}")
    named = set(re.findall(r"deployment run ([a-z-]+/[a-z0-9-]+)", README))
    assert named
    assert named <= known


@pytest.mark.parametrize("link", re.findall(r"\]\((?!http)([^)]+)\)", README))
def test_every_link_leads_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


def test_every_setting_is_read_somewhere() -> None:
    code = "".join(
        path.read_text()
        for folder in ("storage", "tasks", "flows", "deployments")
        for path in (ROOT / folder).rglob("*.py")
    )
    presets = "".join(path.read_text() for path in PRESETS.glob("*.yaml"))
    for setting in set(re.findall(r"TELLTALE_[A-Z0-9]+", README)):
        assert setting in code + presets, setting


def test_the_presets_that_it_names_exist() -> None:
    named = set(re.findall(r"experiment=([a-z]+)\b", README))
    assert named
    for name in named:
        assert (PRESETS / f"{name}.yaml").exists(), name
