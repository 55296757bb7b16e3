"""A whole evaluation of the sample over a network that breaks, delays and alters: nothing is lost, nothing is wrong.

Every kind of fault of `tests/integration/faulty_proxy.py` hits each request with 5 %. The same evaluation into a calm
local store says what the results must be.

    TELLTALE_CHAOS=on python -m pytest tests/chaos/test_faulty_store.py -s
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from deployments.s3 import S3Server
from flows.evaluate import evaluate_all
from storage.local import LocalStore
from storage.objects import Ref as ObjectRef
from storage.objects import finished_objects, read_manifest, read_part
from storage.opening import open_store
from storage.runs import latest_content
from storage.store import Store
from tests.integration.faulty_proxy import FAULTS, Faults, faulty
from tests.integration.small_sample import SMALL
from tests.integration.test_s3 import settings_of

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(7_200),
    pytest.mark.skipif(
        os.environ.get("TELLTALE_CHAOS") != "on", reason="many minutes: TELLTALE_CHAOS=on (make chaos) runs it"
    ),
]

RATE = 0.05
# What measures this machine's speed, and what quotes that.
TIMED_STEPS = frozenset({"measure-latency", "card", "report"})


def evaluated() -> float:
    """Evaluate the small sample into the store that the settings name; how many seconds it took."""
    began = time.monotonic()
    evaluate_all(experiment="sample", overrides=SMALL, seed=0, dispatch="inline")
    return time.monotonic() - began


def contents(store: Store) -> dict[str, str]:
    """The content digest of every object that says the same at every time and on every machine."""
    return {
        uri: read_manifest(store, uri).content
        for uri in finished_objects(store)
        if uri.split("/")[1] not in TIMED_STEPS
    }


def verify_every_part(store: Store) -> int:
    """Read every part of every object against its checksum; how many there are."""
    count = 0
    for uri in finished_objects(store):
        manifest = read_manifest(store, uri)
        ref = ObjectRef(uri=uri, digest=manifest.digest, rows=manifest.rows, bytes=manifest.bytes)
        for part in manifest.parts:
            read_part(store, ref, part.name)
            count += 1
    return count


def test_a_sample_run_under_faults_loses_nothing_and_catches_every_wrong_byte(
    s3_server: S3Server, use_settings: Callable[[dict[str, str]], None], tmp_path: Path
) -> None:
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=300):
        calm = LocalStore(tmp_path / "store")
        use_settings({"TELLTALE_STORE": str(calm.root), "TELLTALE_THREADS": "1"})
        undisturbed_s = evaluated()
        faults = Faults(dict.fromkeys(FAULTS, RATE))
        settings = settings_of(s3_server, TELLTALE_THREADS="1")
        with faulty(s3_server.endpoint, faults) as endpoint:
            use_settings({**settings, "AWS_ENDPOINT_URL": endpoint})
            disturbed_s = evaluated()
    # What lies there is looked at past the proxy.
    use_settings(settings)
    store = open_store()
    parts = verify_every_part(store)
    print(
        f"\n{len(faults.log)} requests, injected {dict(sorted(faults.injected.items()))};"
        f" {len(finished_objects(store))} objects, {parts} parts, all whole;"
        f" {undisturbed_s:.0f} s calm on the disk, {disturbed_s:.0f} s under faults on S3"
    )
    assert parts == verify_every_part(calm)
    assert latest_content(store, "sample") == latest_content(calm, "sample")
    assert contents(store) == contents(calm)
    assert {kind for kind in FAULTS if faults.injected[kind]} == set(FAULTS)
