"""A store on a disk that is full says so, leaves nothing half-written, and goes on when there is room."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.hosts import bare_environment, network, possible_isolation

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

COMMIT = """
import sys
from pathlib import Path
from storage.errors import StoreNotWritable
from storage.objects import commit, find
from storage.local import LocalStore
store = LocalStore(Path("/mnt/store"))
try:
    commit(store, "objects/step/x", step="step", digest="0" * 64, recipe={}, parts={"part-0.bin": bytes(100_000)})
except StoreNotWritable as error:
    print(error)
print(find(store, "objects/step/x") is not None, store.list(""), [path.name for path in store.root.rglob(".*")])
"""


def test_a_full_store_is_one_clear_error_and_takes_the_object_when_there_is_room(tmp_path: Path) -> None:
    if possible_isolation() != "namespaces":
        pytest.skip("namespaces are not permitted here, so no disk can be filled")
    commit = [sys.executable, "-c", COMMIT]
    environment = {**bare_environment(), "PYTHONPATH": str(Path(__file__).parents[2])}
    with network(tmp_path) as made:
        host = made.add("one", megabytes=4)
        host.fill_disk()
        error, left = host.run(commit, environment).splitlines()
        assert error.endswith("No space left on device")
        assert "cannot write objects/step/x/part-0-" in error
        assert left == "False [] []"
        host.free_disk()
        (after,) = host.run(commit, environment).splitlines()
        assert after.startswith("True ['objects/step/x/manifest.json', 'objects/step/x/part-0-")
        assert after.endswith("[]")
        with pytest.raises(subprocess.CalledProcessError):
            host.run(["false"], environment)
