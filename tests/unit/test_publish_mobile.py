"""The built app and a run's networks become one folder in the store, named by its content."""

import json
from pathlib import Path

import polars as pl
import pytest
from prefect.logging import disable_run_logger

import flows.publish_mobile
from flows.publish_mobile import CONTENTS, publish_app, publish_mobile, run_with_networks, starting_network
from storage.digest import sha256_hex
from storage.errors import MissingInput
from storage.local import LocalStore
from tasks.app_files import APP_SETTING
from tests.unit.built_app import FILES, write_built_app
from tests.unit.published_networks import publish_run


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def write_stages(store: LocalStore, run: str, **holds: bool | None) -> None:
    path = store.path(f"{run}/tables/stages.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"network": list(holds), "loses_at_most_a_point": list(holds.values())}
    pl.DataFrame(columns, schema={"network": pl.String, "loses_at_most_a_point": pl.Boolean}).write_parquet(path)


def test_a_host_finds_the_whole_app_in_one_folder(store: LocalStore) -> None:
    run = publish_run(store, "coco", "dense", "small")
    app = publish_app(store, FILES, run)
    found = {key.removeprefix(f"{app.place}/"): store.read(key) for key in store.list(app.place)}
    contents = json.loads(found.pop(CONTENTS))
    assert {path: found[path] for path in FILES} == FILES
    assert contents["files"] == {path: {"bytes": len(data), "sha256": sha256_hex(data)} for path, data in found.items()}
    assert contents["run"] == "coco-1"
    assert contents["first_visit_bytes"] == app.first_visit
    index = json.loads(found["models/index.json"])
    assert [entry["name"] for entry in index] == ["dense", "small"]
    assert [entry["sha256"] for entry in contents["networks"]] == [entry["sha256"] for entry in index]
    assert store.read(f"{run}/models/dense.onnx") == found[f"models/{index[0]['file']}"]


def test_the_same_app_is_written_once_and_another_one_lies_elsewhere(store: LocalStore) -> None:
    run = publish_run(store, "coco", "dense", "small")
    app = publish_app(store, FILES, run)
    times = {key: store.modified(key) for key in store.list(app.place)}
    assert publish_app(store, FILES, run) == app
    assert {key: store.modified(key) for key in store.list(app.place)} == times
    other = publish_app(store, FILES, run, first="small")
    assert other.place != app.place
    assert list(other.networks) == ["small", "dense"]
    pictured = publish_app(store, FILES, run, pictures=[("real", ".jpg", b"a picture")])
    assert pictured.place not in (app.place, other.place)


def test_an_unfinished_publication_is_completed(store: LocalStore) -> None:
    run = publish_run(store, "coco", "dense")
    app = publish_app(store, FILES, run)
    complete = store.list(app.place)
    for key in (f"{app.place}/{CONTENTS}", f"{app.place}/service-worker.js"):
        store.delete(key)
    assert publish_app(store, FILES, run) == app
    assert store.list(app.place) == complete


def test_the_app_starts_with_the_smallest_network_that_loses_at_most_a_point(store: LocalStore) -> None:
    names = ("dense", "pruned", "tiny", "int8")
    for name, size in zip(names, (900, 400, 100, 200), strict=True):
        store.write(f"run/models/{name}.onnx", bytes(size))
    assert starting_network(store, "run", names) == "dense"
    write_stages(store, "run", dense=None, pruned=True, tiny=False, int8=True, unpublished=True)
    assert starting_network(store, "run", names) == "int8"
    assert starting_network(store, "run", names[:3]) == "pruned"
    assert starting_network(store, "run", ("tiny",)) == "tiny"


def test_what_is_not_there_is_named(store: LocalStore) -> None:
    run = publish_run(store, "coco", "dense")
    publish_run(store, "bare")
    assert run_with_networks(store, "coco") == run
    assert run_with_networks(store, "other", "coco-1") == run
    with pytest.raises(MissingInput, match="no run of 'other'"):
        run_with_networks(store, "other")
    with pytest.raises(MissingInput, match="a finished run at runs/evaluate/coco-2"):
        run_with_networks(store, "coco", "coco-2")
    with pytest.raises(MissingInput, match="needs a `mobile` part"):
        run_with_networks(store, "bare")
    with pytest.raises(MissingInput, match=r"the network 'small' in .* it has dense"):
        publish_app(store, FILES, run, first="small")


def test_the_flow_checks_its_inputs_and_shows_what_it_wrote(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: dict[str, str] = {}
    monkeypatch.setattr(flows.publish_mobile, "show_link", lambda key, address, text: shown.update(link=address))
    monkeypatch.setattr(
        flows.publish_mobile, "show_markdown", lambda key, markdown, description: shown.update(markdown=markdown)
    )
    monkeypatch.setenv("TELLTALE_STORE", str(store.root))
    monkeypatch.setenv(APP_SETTING, str(tmp_path / "dist"))
    with disable_run_logger():
        with pytest.raises(MissingInput) as raised:
            publish_mobile.fn("coco")
        assert [("make mobile" in line, "no run of 'coco'" in line) for line in raised.value.missing] == [
            (True, False),
            (False, True),
        ]
        publish_run(store, "coco", "dense")
        write_built_app(tmp_path / "dist")
        place = publish_mobile.fn("coco")
    assert shown["link"] == f"file://{store.root}/{place}/index.html"
    assert "It starts with **dense**" in shown["markdown"]
    assert store.size(f"{place}/index.html") == len(FILES["index.html"])
