"""What people see in Prefect's UI beside runs: tables, texts, links, progress and pictures, each under a key.

Results lie in the store, and artifacts only show them: one that cannot be written is a warning in the log, and harms no
run.
"""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast
from uuid import UUID

logger = logging.getLogger(__name__)


def artifact_key(*parts: str) -> str:
    """A Prefect artifact key: lowercase letters, digits and single dashes only."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


@contextmanager
def harmless(key: str) -> Iterator[None]:
    """Around all that writes an artifact: what fails within is said in the log, and goes no further."""
    try:
        yield
    except Exception as error:
        logger.warning("the artifact %s could not be written: %s: %s", key, type(error).__name__, error)


def show_markdown(key: str, markdown: str, description: str) -> UUID | None:
    """A text; its id for `rewrite_markdown`, None where it could not be written."""
    from prefect.artifacts import create_markdown_artifact

    with harmless(key):
        # A coroutine in an event loop only, and no flow or task here has one.
        return cast(UUID, create_markdown_artifact(markdown, key=key, description=description))
    return None


def rewrite_markdown(key: str, artifact: UUID, markdown: str) -> None:
    """Another text in the same place; no new version of it, and no event."""
    from prefect.client.orchestration import get_client

    # The client's own `update_artifact` also puts the whole text into an event, which is a row each time.
    with harmless(key), get_client(sync_client=True) as client:
        path = {"id": artifact}
        client.request("PATCH", "/artifacts/{id}", path_params=path, json={"data": markdown}).raise_for_status()


def show_table(key: str, rows: Sequence[Mapping[str, Any]], description: str) -> None:
    """Rows of the same columns; what they hold is JSON."""
    from prefect.artifacts import create_table_artifact

    with harmless(key):
        create_table_artifact([dict(row) for row in rows], key=key, description=description)


def show_link(key: str, address: str, text: str, description: str | None = None) -> None:
    """A link to what lies elsewhere."""
    from prefect.artifacts import create_link_artifact

    with harmless(key):
        create_link_artifact(address, link_text=text, key=key, description=description)
