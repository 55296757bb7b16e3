"""How storage reads the block that `TELLTALE_S3_BLOCK` names: a Prefect Secret whose value is a JSON object."""

import json
from collections.abc import Mapping

from storage.credentials import BLOCK_SETTING
from storage.errors import StoreRefused


def read_block(name: str) -> Mapping[str, object]:
    """The content of a Secret block: `key`, `secret`, at will `token`, `endpoint`, `region`.

    Raises:
        StoreRefused: there is no such block, or its value is no JSON object. No value is in the message.
    """
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    remedy = f"make a block of type Secret with a JSON object of key and secret, and name it in {BLOCK_SETTING}"
    with get_client(sync_client=True) as client:
        try:
            block = client.read_block_document_by_name(name, "secret", include_secrets=True)
        except ObjectNotFound:
            raise StoreRefused(f"no Prefect block secret/{name}: {remedy}") from None
    value = block.data.get("value")
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            # Not as the cause: its text quotes what could not be read.
            value = None
    if not isinstance(value, Mapping):
        raise StoreRefused(f"the Prefect block secret/{name} holds no JSON object: {remedy}")
    return value
