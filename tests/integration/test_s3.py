"""A real S3 server as the store: what every store promises, clear refusals, and no fault of the network that counts."""

import logging
import os
import socket
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from deployments.s3 import S3Server, serving
from flows.preflight import POOLS, checked_experiment
from storage.credentials import BLOCK_SETTING
from storage.errors import (
    DamagedObject,
    MissingInput,
    ObjectExists,
    StoreError,
    StoreRefused,
    StoreUnreachable,
)
from storage.local import LocalStore
from storage.objects import ROWS, Ref, commit, find, finished_objects, read_manifest, read_table
from storage.opening import open_store
from storage.s3 import PART_BYTES, ObjectStore
from storage.store import Store, check_writable, known_store
from tasks.data.canonical import canonical_pictures
from tasks.data.perturbations.jpeg import jpeg
from tasks.features.probe import ProbeSpec
from tasks.features.shards import embed_shard
from tasks.recipe import Output, StepRun, step
from tasks.spec.splits import FixedSplits
from tasks.spec.views import Canonical, View
from tests.integration.faulty_proxy import FAULTS, Faults, faulty
from tests.unit.store_contract import StoreContract
from tests.unit.test_claims import Clock, lane, race, taken
from tests.unit.test_shards import two_sources

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

TEST_S3 = "TELLTALE_TEST_S3"
Use = Callable[[dict[str, str]], None]


def settings_of(server: S3Server, **changes: str) -> dict[str, str]:
    """A server's settings, with an empty store of its own."""
    return {**server.environment, "TELLTALE_STORE": f"s3://{server.bucket}/{uuid.uuid4().hex}", **changes}


class ServerContract(StoreContract):
    """The promises, asked of a server: more keys than a page of a listing holds, fewer examples."""

    many_keys = 1_100
    examples = 8


class TestServer(ServerContract):
    """A real server on this machine."""

    @pytest.fixture
    def store(self, s3_server: S3Server, use_settings: Use) -> Store:
        use_settings(settings_of(s3_server))
        return open_store()


@pytest.mark.skipif(not os.environ.get(TEST_S3), reason=f"{TEST_S3} names no s3://bucket/prefix to test")
class TestNamedEndpoint(ServerContract):
    """Any other server: its bucket in TELLTALE_TEST_S3, its address and credentials as AWS_* say."""

    @pytest.fixture
    def store(self) -> Iterator[Store]:
        store = ObjectStore(f"{os.environ[TEST_S3].rstrip('/')}/{uuid.uuid4().hex}")
        yield store
        for key in store.list(""):
            store.delete(key)


@pytest.fixture
def store(s3_server: S3Server, use_settings: Use) -> Store:
    use_settings(settings_of(s3_server))
    return open_store()


# Refusals


def refused(use: Use, settings: dict[str, str], within: float = 30.0) -> StoreError:
    """The error of a store with these settings, which must come soon, from the store and from the preflight."""
    use(settings)
    began = time.monotonic()
    with pytest.raises(StoreError) as raised:
        check_writable(open_store())
    with pytest.raises(MissingInput, match="a writable store"):
        checked_experiment("sample")
    # Seconds; a busy machine takes its time for everything.
    assert time.monotonic() - began < within
    for secret in (settings.get("AWS_SECRET_ACCESS_KEY"), settings.get("AWS_ACCESS_KEY_ID")):
        assert not secret or secret not in "".join(traceback.format_exception(raised.value))
    return raised.value


@pytest.mark.parametrize("wrong", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_are_one_error_within_seconds(s3_server: S3Server, use_settings: Use, wrong: str) -> None:
    error = refused(use_settings, settings_of(s3_server, **{wrong: "not-the-right-one-123456"}))
    assert isinstance(error, StoreRefused)
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in str(error)


def test_no_credentials_at_all_are_told_likewise(s3_server: S3Server, use_settings: Use) -> None:
    settings = settings_of(s3_server)
    del settings["AWS_ACCESS_KEY_ID"], settings["AWS_SECRET_ACCESS_KEY"]
    assert "NoCredentialsError" in str(refused(use_settings, settings))


def test_a_missing_bucket_is_named(s3_server: S3Server, use_settings: Use) -> None:
    error = refused(use_settings, settings_of(s3_server, TELLTALE_STORE="s3://no-such-bucket/store"))
    assert isinstance(error, StoreRefused)
    assert "no bucket 'no-such-bucket'" in str(error)


def test_an_address_where_nobody_answers_is_told_within_seconds(s3_server: S3Server, use_settings: Use) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://name:hidden@127.0.0.1:{closed.getsockname()[1]}"
        error = refused(use_settings, settings_of(s3_server, AWS_ENDPOINT_URL=address))
    assert isinstance(error, StoreUnreachable)
    assert "check AWS_ENDPOINT_URL" in str(error)
    assert "hidden" not in str(error)


def test_a_store_that_has_answered_to_others_is_waited_for(
    s3_server: S3Server, use_settings: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.s3.FIRST_PATIENCE_S", 0.0)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        use_settings(settings_of(s3_server, AWS_ENDPOINT_URL=f"http://127.0.0.1:{closed.getsockname()[1]}"))
        store = ObjectStore(s3_server.environment["TELLTALE_STORE"], patience=3)
        waited = []
        for known in (nullcontext(), known_store()):
            began = time.monotonic()
            with known, pytest.raises(StoreUnreachable):
                store.size("anything")
            waited.append(time.monotonic() - began)
    assert waited[0] < 1 < waited[1]


def test_an_address_that_is_none_is_told(s3_server: S3Server, use_settings: Use) -> None:
    assert isinstance(refused(use_settings, settings_of(s3_server, AWS_ENDPOINT_URL="127.0.0.1:1")), StoreRefused)


def test_a_region_that_is_none_is_not_blamed_on_the_credentials(s3_server: S3Server, use_settings: Use) -> None:
    error = refused(use_settings, settings_of(s3_server, AWS_REGION="no region", AWS_DEFAULT_REGION="no region"))
    assert isinstance(error, StoreRefused)
    assert "AWS_DEFAULT_REGION" in str(error)
    assert "does not accept the credentials" not in str(error)


def test_a_prefix_of_any_characters_is_kept_as_it_stands(s3_server: S3Server, use_settings: Use) -> None:
    """Each of them is another one for whoever encodes a key once too often or too rarely."""
    use_settings(settings_of(s3_server))
    place = f"s3://{s3_server.bucket}/{uuid.uuid4().hex}"
    prefixes = ["a b", "a%20b", "a+b", "a%2520b", "é ü", "e\u0301", "a&b=c", "a;b,c:d@e$f", "(a)'b'!*", "a/b c/d"]
    for prefix in prefixes:
        store = open_store(f"{place}/{prefix}")
        store.create("x/y z", prefix.encode())
        with pytest.raises(ObjectExists):
            store.create("x/y z", b"again")
    for prefix in prefixes:
        store = open_store(f"{place}/{prefix}/")
        assert (store.list(""), store.read("x/y z")) == (["x/y z"], prefix.encode())
        store.delete("x/y z")
        assert store.size("x/y z") is None


def test_the_usual_aws_files_are_read(s3_server: S3Server, use_settings: Use, tmp_path: Path) -> None:
    settings = settings_of(s3_server)
    key, secret = settings.pop("AWS_ACCESS_KEY_ID"), settings.pop("AWS_SECRET_ACCESS_KEY")
    file = tmp_path / "credentials"
    file.write_text(f"[work]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
    use_settings({**settings, "AWS_SHARED_CREDENTIALS_FILE": str(file), "AWS_PROFILE": "work"})
    check_writable(open_store())


# Servers that do not honour create-only puts


def ignoring(method: str, _: str, headers: Mapping[str, str]) -> tuple[int, bytes] | None:
    """What a server says that takes no notice of If-None-Match: all is well."""
    return (200, b"") if method == "PUT" and "If-None-Match" in headers else None


def refusing(method: str, _: str, headers: Mapping[str, str]) -> tuple[int, bytes] | None:
    """What a server says that knows no If-None-Match."""
    body = b"<Error><Code>NotImplemented</Code><Message>a header</Message></Error>"
    return (501, body) if method == "PUT" and "If-None-Match" in headers else None


@pytest.mark.parametrize("answer", [ignoring, refusing])
def test_a_server_without_create_only_puts_is_for_one_worker(
    answer: Any,
    s3_server: S3Server,
    use_settings: Use,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workers = [SimpleNamespace(name="worker-1", last_heartbeat_time=datetime.now(UTC))]

    @contextmanager
    def get_client(sync_client: bool) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(read_workers_for_work_pool=lambda pool: workers)

    monkeypatch.setattr("prefect.client.orchestration.get_client", get_client)
    with faulty(s3_server.endpoint, Faults(answer=answer)) as endpoint:
        use_settings(settings_of(s3_server, AWS_ENDPOINT_URL=endpoint))
        store = open_store()
        assert not store.is_exclusive()
        assert "one worker only" in caplog.text
        # One worker finds what it wrote itself.
        store.create("a", b"first")
        with pytest.raises(ObjectExists):
            store.create("a", b"second")
        assert store.read("a") == b"first"
        with pytest.raises(MissingInput, match="a store for several workers"):
            checked_experiment("sample", pools=POOLS)
        # Three workers are online, whoever asks.
        with pytest.raises(MissingInput, match="a store for several workers"):
            checked_experiment("sample")
        workers.clear()
        assert checked_experiment("sample").name == "sample"


def test_the_server_is_asked_once_per_process(s3_server: S3Server, use_settings: Use) -> None:
    faults = Faults()
    with faulty(s3_server.endpoint, faults) as endpoint:
        use_settings(settings_of(s3_server, AWS_ENDPOINT_URL=endpoint))
        for _ in range(3):
            assert open_store().is_exclusive()
        assert len([line for line in faults.log if line.startswith("PUT")]) == 2
        assert checked_experiment("sample", pools=()).name == "sample"


# Claims


def test_lanes_that_race_for_claims_get_each_object_once(store: Store) -> None:
    got = race(store, holders=4, digests=20)
    assert sorted(digest for each in got for digest in each) == [f"{number:04d}" for number in range(20)]


def test_a_claim_of_a_dead_lane_is_taken_over_and_both_are_released(store: Store) -> None:
    clock = Clock()
    dead, other = lane(store, "a", clock), lane(store, "b", clock)
    taken(dead, "d")
    assert other.take("d") is None
    clock.now += 90
    assert taken(other, "d").number == 1
    for each in (dead, other):
        each.release_all()
    assert other.held() == {}


# Faults on the way


@pytest.mark.parametrize("size", [10, PART_BYTES + 1])
def test_a_winner_whose_answer_is_lost_still_wins(s3_server: S3Server, use_settings: Use, size: int) -> None:
    """The repeated request fails on the object that the first one made."""
    faults = Faults({"lost": 0.4}, seed=1)
    with faulty(s3_server.endpoint, faults) as endpoint:
        use_settings(settings_of(s3_server, AWS_ENDPOINT_URL=endpoint))
        store = open_store()
        for number in range(3):
            data = bytes([number]) * size
            store.create(f"key/{number}", data)
            with pytest.raises(ObjectExists):
                store.create(f"key/{number}", b"other")
            assert store.read(f"key/{number}") == data
    assert faults.injected["lost"] > 3


def test_wrong_bytes_are_never_handed_over(s3_server: S3Server, use_settings: Use) -> None:
    faults = Faults({"altered-up": 0.4, "altered-down": 0.4}, seed=2)
    data = os.urandom(1_000)
    with faulty(s3_server.endpoint, faults) as endpoint:
        use_settings(settings_of(s3_server, AWS_ENDPOINT_URL=endpoint))
        store = open_store()
        for number in range(20):
            store.write(f"key/{number}", data)
            assert store.read(f"key/{number}") == data
    assert faults.injected["altered-up"] > 5
    assert faults.injected["altered-down"] > 5


def test_an_object_that_rots_in_the_store_is_made_again(s3_server: S3Server, store: Store) -> None:
    """What another hand put under a key, with the writer's checksum on it, is as good as rotten."""
    uri = "objects/test/x/0123"
    parts = {ROWS: pa.table({"value": [1, 2]})}
    ref = commit(store, uri, step="test", digest="0123", recipe={}, parts=parts)
    (part,) = read_manifest(store, uri).parts
    _rot(s3_server, f"{store.url}/{uri}/{part.file}")
    with pytest.raises(DamagedObject, match="bytes that were written"):
        store.read(f"{uri}/{part.file}")
    with pytest.raises(DamagedObject, match="altered"):
        read_table(store, ref)
    assert find(store, uri) is None
    commit(store, uri, step="test", digest="0123", recipe={}, parts=parts)
    _rot(s3_server, f"{store.url}/{uri}/manifest.json")
    assert find(store, uri) is None
    again = commit(store, uri, step="test", digest="0123", recipe={}, parts=parts)
    assert read_table(store, again)["value"].to_pylist() == [1, 2]


def _rot(server: S3Server, url: str) -> None:
    """Change one byte of an object and nothing else about it."""
    from botocore.session import get_session

    client = get_session().create_client("s3")
    bucket, _, key = url.removeprefix("s3://").partition("/")
    found = client.get_object(Bucket=bucket, Key=key)
    data = bytearray(found["Body"].read())
    data[len(data) // 2] ^= 1
    client.put_object(Bucket=bucket, Key=key, Body=bytes(data), Metadata=found["Metadata"])


@step("test-numbers", version=1, label=lambda shard, **_: f"{shard}")
def numbers(run: StepRun, *, shard: int, count: int) -> Output:
    """A shard of numbers."""
    return Output(
        {ROWS: pa.table({"value": list(range(shard * count, (shard + 1) * count))})}, {"first": shard * count}
    )


@step("test-squares", version=1, label=lambda shard, **_: f"{shard}")
def squares(run: StepRun, *, values: Ref, shard: int) -> Output:
    """Their squares."""
    found = read_table(run.store, values)["value"].to_pylist()
    return Output({ROWS: pa.table({"value": [each * each for each in found]}), "log.txt": b"x" * 50_000})


@step("test-sum", version=1, label=lambda **_: "all")
def total(run: StepRun, *, parts: tuple[Ref, ...]) -> Output:
    """The sum of all shards."""
    value = sum(sum(read_table(run.store, ref)["value"].to_pylist()) for ref in parts)
    return Output({ROWS: pa.table({"sum": [value]})})


def run_chain(store: Store) -> Ref:
    """Ten shards through three steps."""
    made = [numbers.compute(store, shard=shard, count=100)[0] for shard in range(10)]
    squared = [squares.compute(store, values=ref, shard=shard)[0] for shard, ref in enumerate(made)]
    result: Ref = total.compute(store, parts=tuple(squared))[0]
    return result


def run_pictures(store: Store, folder: Path) -> list[Ref]:
    """Twenty pictures of two sources, from files to features: the steps that a flow would run."""
    pipeline = two_sources(store, folder)  # type: ignore[arg-type]
    assignment = pipeline.assign(FixedSplits())
    images = pipeline.shard(assignment)
    canonical = Canonical(side=32, qualities=((75, 1), (90, 2)))
    made = [
        canonical_pictures.compute(store, images=ref, canonical=canonical, enlarge=False, source="x", shard=number)[0]
        for number, ref in enumerate(images)
    ]
    views = (View(path="fair", resolution=32), View(path="fair", resolution=32, perturbation=jpeg(20)))
    features = [
        ref
        for number, shard in enumerate(images)
        for ref in embed_shard.compute(
            store,
            images=shard,
            views=views,
            extractor=ProbeSpec(),
            weights=None,
            canonical=canonical,
            enlarge=False,
            source="x",
            shard=number,
            device="cpu",
            rows="all",
        )[0]
    ]
    return [*made, *features]


def contents(store: Store) -> dict[str, str]:
    """The content digest of every finished object."""
    return {uri: read_manifest(store, uri).content for uri in finished_objects(store)}


def test_steps_over_a_bad_network_end_with_the_same_content(
    s3_server: S3Server, use_settings: Use, tmp_path: Path
) -> None:
    calm = LocalStore(tmp_path / "store")
    run_chain(calm)
    run_pictures(calm, tmp_path)
    faults = Faults(dict.fromkeys(FAULTS, 0.05))
    with faulty(s3_server.endpoint, faults) as endpoint:
        use_settings(settings_of(s3_server, AWS_ENDPOINT_URL=endpoint))
        run_chain(open_store())
        run_pictures(open_store(), tmp_path)
        store = open_store()
        # Read once more, past the proxy: what lies there is whole.
        use_settings(settings_of(s3_server, TELLTALE_STORE=store.url))
        assert contents(open_store()) == contents(calm)
        for key in calm.list("objects"):
            if not key.endswith("/manifest.json"):
                assert open_store().read(key) == calm.read(key)
    assert {kind for kind in FAULTS if faults.injected[kind]} == set(FAULTS)


def test_a_server_that_dies_is_waited_for(use_settings: Use, tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        use_settings(server.environment)
        store = open_store()
        store.write("a", b"content")
        server.kill()
        restarter = threading.Timer(2.0, server.start)
        restarter.start()
        try:
            assert store.read("a") == b"content"
        finally:
            restarter.join()


# Secrets


def test_credentials_of_a_block_work_and_appear_nowhere(
    s3_server: S3Server, use_settings: Use, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    from prefect import flow
    from prefect.artifacts import create_markdown_artifact
    from prefect.blocks.system import Secret
    from prefect.logging import get_run_logger
    from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL
    from prefect.testing.utilities import prefect_test_harness

    settings = settings_of(s3_server)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION"):
        del settings[name]
    use_settings({**settings, BLOCK_SETTING: "bucket"})
    content = {"key": s3_server.key, "secret": s3_server.secret, "endpoint": s3_server.endpoint, "region": "us-east-1"}

    @flow
    def works() -> Ref:
        check_writable(open_store())
        ref: Ref = total(parts=tuple(numbers(shard=shard, count=5) for shard in range(2)))
        get_run_logger().info("made %s in %s", ref, open_store())
        create_markdown_artifact(f"{ref} {open_store().url}", key="made")
        return ref

    @flow
    def fails() -> None:
        numbers(shard=0, count=7)

    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    with prefect_test_harness(server_startup_timeout=180):
        Secret(value=content).save("bucket")  # type: ignore[arg-type]
        said.append(str(works(return_state=True)))
        url = open_store().url
        assert len(contents(open_store())) == 3
        for number, value in enumerate(({**content, "secret": s3_server.secret[::-1]}, "{" + s3_server.secret)):
            Secret(value=value).save(f"wrong-{number}")  # type: ignore[arg-type]
            os.environ[BLOCK_SETTING] = f"wrong-{number}"
            state = fails(return_state=True)
            with pytest.raises(StoreRefused) as raised:
                state.result()
            said.append(str(state) + "".join(traceback.format_exception(raised.value)))
        # Everything that Prefect keeps: states, logs, artifacts, and the blocks, which it encrypts.
        database = Path(str(PREFECT_API_DATABASE_CONNECTION_URL.value()).split("///", 1)[1])
        kept = [path.read_bytes() for path in sorted(database.parent.rglob("*")) if path.is_file()]
    use_settings(settings_of(s3_server, TELLTALE_STORE=url))
    kept += [open_store().read(key) for key in open_store().list("")]
    said += [data.decode("latin-1") for data in kept]
    said += [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]
    shown = "\n".join(said)
    assert "test-sum" in shown
    assert s3_server.key not in shown
    # At DEBUG botocore names the key, which is a name; the secret is in none of its lines either.
    details = "\n".join(record.getMessage() for record in caplog.records)
    for secret in (s3_server.secret, s3_server.secret[::-1]):
        assert secret not in shown
        assert secret not in details
