"""Keeping the store clean."""

import time

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.logging import get_run_logger

from storage.store import open_store
from storage.sweep import find_debris, remove


@flow(name="maintain", flow_run_name="sweep debris older than {days} days", persist_result=False)
def sweep(days: int = 7) -> int:
    """Remove debris from the store: parts without a manifest, and checkpoints of finished steps.

    Args:
        days: only what was last changed longer ago is removed; a running step's parts are younger.
    """
    store = open_store()
    debris = find_debris(store, older_than=time.time() - days * 86_400)
    size = remove(store, debris)
    get_run_logger().info("removed %d keys, %d bytes", len(debris), size)
    listing = "\n".join(f"* `{key}`" for key in debris[:200])
    create_markdown_artifact(
        key="sweep", markdown=f"Removed {len(debris)} keys, {size:,} bytes.\n\n{listing}", description="swept debris"
    )
    return len(debris)
