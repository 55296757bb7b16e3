"""Downloading COCO."""

from prefect import flow

import tasks.data.fetch as fetching
from flows.runner import attempt
from storage.paths import absolute


@flow(name="fetch", flow_run_name="fetch COCO {splits}", persist_result=False)
def fetch_coco(directory: str, splits: list[str] | None = None, address: str | None = None) -> None:
    """Download COCO 2017 photographs and annotations, verify and unpack them; a broken download is resumed.

    Args:
        directory: where the official layout is made; point TELLTALE_COCO at it afterwards.
        splits: train2017, val2017 or both (default).
        address: another address that serves the official archives' names.
    """
    with attempt():
        chosen = tuple(splits or ("train2017", "val2017"))
        if address is None:
            fetching.fetch_coco(absolute(directory), chosen)
        else:
            fetching.fetch_coco(absolute(directory), chosen, address)
