"""Credentials for a bucket: from a named block or from the AWS tools; their values are in no message."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from flows.credentials import read_block
from storage import credentials
from storage.credentials import BLOCK_SETTING, Credentials, named_credentials
from storage.errors import StoreRefused

SECRET = "the-secret-itself"


def use_block(monkeypatch: pytest.MonkeyPatch, content: Any) -> None:
    monkeypatch.setenv(BLOCK_SETTING, "bucket")
    monkeypatch.setattr(credentials, "_readers", [lambda name: content])


def test_without_a_block_the_aws_tools_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(BLOCK_SETTING, raising=False)
    assert named_credentials() is None


def test_a_block_gives_key_and_secret_and_where_they_are_good(monkeypatch: pytest.MonkeyPatch) -> None:
    use_block(monkeypatch, {"key": "name", "secret": SECRET, "endpoint": "https://host"})
    assert named_credentials() == Credentials("name", SECRET, endpoint="https://host")


def test_credentials_do_not_show_what_they_hold() -> None:
    assert SECRET not in repr(Credentials(SECRET, SECRET, SECRET))


@pytest.mark.parametrize(
    "content",
    [
        {"key": "name"},
        {"key": "name", "secret": ""},
        {"key": "name", "secret": [SECRET]},
        {"key": "name", "secret": SECRET, "password": SECRET},
        [SECRET],
        SECRET,
    ],
)
def test_a_block_with_anything_else_is_refused_without_its_values(
    content: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_block(monkeypatch, content)
    with pytest.raises(StoreRefused, match="expected a JSON object with key and secret") as raised:
        named_credentials()
    assert SECRET not in str(raised.value)


def test_a_block_that_nobody_can_read_here_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BLOCK_SETTING, "bucket")
    monkeypatch.setattr(credentials, "_readers", [])
    with pytest.raises(StoreRefused, match="read by flows only"):
        named_credentials()


@pytest.mark.parametrize("name", ["a?b", "a/b", "a b", "Bucket", "../a", "a%20b", "é"])
def test_a_name_that_no_block_has_is_refused_before_another_one_is_read(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_block(monkeypatch, {"key": "name", "secret": SECRET})
    monkeypatch.setenv(BLOCK_SETTING, name)
    with pytest.raises(StoreRefused, match="a block's name has lower case letters, digits and dashes"):
        named_credentials()


def test_importing_the_flows_makes_blocks_readable() -> None:
    assert read_block in credentials._readers


@pytest.mark.parametrize("value", [{"key": "name", "secret": SECRET}, '{"key": "name", "secret": "' + SECRET + '"}'])
def test_a_prefect_secret_may_hold_an_object_or_its_text(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    serve_block(monkeypatch, value)
    assert read_block("bucket") == {"key": "name", "secret": SECRET}


@pytest.mark.parametrize("value", ["{" + SECRET, [SECRET], None])
def test_a_prefect_secret_with_anything_else_is_refused_without_its_value(
    value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_block(monkeypatch, value)
    with pytest.raises(StoreRefused, match="holds no JSON object") as raised:
        read_block("bucket")
    assert SECRET not in str(raised.value)
    assert raised.value.__cause__ is None


def test_a_missing_prefect_block_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    serve_block(monkeypatch, "{}")
    with pytest.raises(StoreRefused, match="no Prefect block secret/other: make a block"):
        read_block("other")


def serve_block(monkeypatch: pytest.MonkeyPatch, value: Any) -> None:
    from prefect.exceptions import ObjectNotFound

    def read(name: str, slug: str, include_secrets: bool) -> SimpleNamespace:
        if (name, slug, include_secrets) != ("bucket", "secret", True):
            raise ObjectNotFound(Exception())
        return SimpleNamespace(data={"value": value})

    @contextmanager
    def get_client(sync_client: bool) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(read_block_document_by_name=read)

    monkeypatch.setattr("prefect.client.orchestration.get_client", get_client)
