"""Artifacts of every kind are written under readable keys, and one that cannot be written harms no run."""

import logging
from collections.abc import Callable, Iterator
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.objects import Artifact
from prefect.testing.utilities import prefect_test_harness

from tasks import artifacts
from tasks.artifacts import (
    artifact_key,
    rewrite_markdown,
    show_link,
    show_markdown,
    show_table,
)


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    with prefect_test_harness():
        yield


def written(key: str) -> Artifact:
    with get_client(sync_client=True) as client:
        (found,) = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])))
    return found


def test_keys_hold_no_odd_letters() -> None:
    assert artifact_key("overview", "Sätze & ../x") == "overview-s-tze-x"


WRITERS: dict[str, Callable[[], UUID | None]] = {
    "markdown": lambda: show_markdown("a-markdown", "*text*", "said"),
    "table": lambda: show_table("a-table", [{"cell": "64/q20", "auroc": 0.5}], "said"),
    "link": lambda: show_link("a-link", "file:///report.html", "the report", "said"),
}


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    ("kind", "stored_as", "holds"),
    [
        ("markdown", "markdown", "*text*"),
        ("table", "table", '[{"cell": "64/q20", "auroc": 0.5}]'),
        ("link", "markdown", "[the report](file:///report.html)"),
    ],
)
def test_every_kind_is_written_under_its_key(kind: str, stored_as: str, holds: object) -> None:
    write = WRITERS[kind]

    @flow(name=kind)
    def writing() -> None:
        write()

    writing()
    found = written(f"a-{kind}")
    assert (found.type, found.data, found.description) == (stored_as, holds, "said")
    assert found.flow_run_id is not None


@pytest.mark.usefixtures("server")
def test_a_text_is_rewritten_in_its_place() -> None:
    @flow
    def body() -> UUID | None:
        artifact = show_markdown("again", "first", "said")
        assert artifact is not None
        rewrite_markdown("again", artifact, "second")
        return artifact

    assert (body(), "second") == (written("again").id, written("again").data)


@pytest.mark.parametrize("kind", WRITERS)
def test_what_cannot_be_written_is_a_warning_and_no_error(
    kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*arguments: object, **named: object) -> None:
        raise OSError("nobody answers")

    monkeypatch.setattr(f"prefect.artifacts.create_{kind}_artifact", refuse)
    with caplog.at_level(logging.WARNING, artifacts.__name__):
        assert WRITERS[kind]() is None
    assert caplog.messages == [f"the artifact a-{kind} could not be written: OSError: nobody answers"]


def test_a_text_that_cannot_be_rewritten_is_a_warning_and_no_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(sync_client: bool) -> None:
        raise OSError("nobody answers")

    monkeypatch.setattr("prefect.client.orchestration.get_client", refuse)
    with caplog.at_level(logging.WARNING, artifacts.__name__):
        rewrite_markdown("again", UUID(int=1), "text")
    assert caplog.messages == ["the artifact again could not be written: OSError: nobody answers"]
