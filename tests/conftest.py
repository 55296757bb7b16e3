"""What many tests share: a real S3 server, and the settings under which telltale uses it."""

import os
from collections.abc import Callable, Iterator

import hypothesis
import pytest

from deployments.s3 import S3Server, serving

pytest.register_assert_rewrite("tests.unit.store_contract")

S3_SETTINGS = ("AWS_", "TELLTALE_STORE", "TELLTALE_S3_BLOCK")


# The same inputs every time, and no verdict on how long one takes: machines are busy.
hypothesis.settings.register_profile("telltale", deadline=None, derandomize=True)
hypothesis.settings.load_profile("telltale")


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A real S3 server on this machine, one for all tests."""
    with serving() as server:
        yield server


@pytest.fixture
def use_settings(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    """A function that puts these S3 settings in place of all others, for as long as the test lasts."""

    def use(settings: dict[str, str]) -> None:
        for name in [name for name in os.environ if name.startswith(S3_SETTINGS)]:
            monkeypatch.delenv(name)
        # Neither a file nor the machine's role may stand in for what a test leaves out.
        bare = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/nowhere", "AWS_REGION": "us-east-1"}
        for name, value in {**bare, "AWS_SHARED_CREDENTIALS_FILE": "/nowhere", **settings}.items():
            monkeypatch.setenv(name, value)

    return use
