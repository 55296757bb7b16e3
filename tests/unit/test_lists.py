"""What there is, listed: runs, networks, experiments, and whether a machine is ready."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from deployments.cli import app
from storage.local import LocalStore
from tests.unit.published_networks import publish_run


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    monkeypatch.setenv("TELLTALE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("TELLTALE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    return LocalStore(tmp_path / "store")


def told(*words: str, status: int = 0) -> str:
    result = CliRunner().invoke(app, list(words), env={"COLUMNS": "200"})
    assert result.exit_code == status, result.output
    return result.output


def listed(*words: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(told(*words, "--json"))
    return found


def test_runs_are_listed_the_newest_first_with_their_networks(store: LocalStore) -> None:
    first, second = publish_run(store, "seed"), publish_run(store, "sample", "dense")
    for age, place in enumerate((second, first)):
        os.utime(store.path(f"{place}/index.json"), (1e9 - age, 1e9 - age))
    rows = listed("runs")
    assert [row["run"] for row in rows] == [place.rpartition("/")[2] for place in (second, first)]
    assert {row["newest"] for row in rows} == {"*"}
    assert rows[0]["finished"] == "2001-09-09 01:46 UTC"
    # A copied store has other times, and its files' say nothing of when a run was finished.
    report = {"uri": "objects/report/one"}
    index = {"experiment": {"name": "sample", "mobile": {"networks": [{"name": "dense"}]}}, "report": report}
    store.write(f"{second}/index.json", json.dumps(index).encode())
    store.write("objects/report/one/manifest.json", json.dumps({"created": "1999-12-31T23:58:00+00:00"}).encode())
    assert [row["finished"] for row in listed("runs")] == ["2001-09-09 01:46 UTC", "1999-12-31 23:58 UTC"]
    store.delete("objects/report/one/manifest.json")
    rows = listed("runs")
    assert [row["run"] for row in rows] == [place.rpartition("/")[2] for place in (second, first)]
    networks = listed("networks")
    assert networks[0]["run"] == rows[0]["run"]
    assert len(networks) == sum(int(str(row["networks"])) for row in rows)
    assert str(networks[0]["network"]) in told("networks")


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        (b"{", "is not readable as JSON"),
        (b"\xff\xfe", "is not readable as JSON"),
        (b"[]", "expected a JSON object, got list"),
        (b"{}", "is not what a run writes"),
        (b'{"experiment": "sample"}', "is not what a run writes"),
        (b'{"experiment": {"name": "sample"}}', "is not what a run writes"),
        (b'{"experiment": {"name": "sample", "mobile": {"networks": [7]}}}', "is not what a run writes"),
    ],
)
@pytest.mark.parametrize("command", ["runs", "networks"])
def test_a_damaged_run_is_named_and_the_others_are_listed(
    command: str, index: bytes, reason: str, store: LocalStore
) -> None:
    publish_run(store, "seed", "dense")
    damaged = publish_run(store, "sample", "dense")
    store.write(f"{damaged}/index.json", index)
    result = CliRunner().invoke(app, [command], env={"COLUMNS": "200"})
    assert (result.exit_code, result.stdout.count("seed-1"), result.stdout.count("sample-1")) == (1, 1, 0)
    assert result.stderr.startswith(f"error: the run sample-1 is damaged: {damaged}/index.json in {store.url}")
    assert (result.stderr.count("\n"), reason in result.stderr) == (1, True)
    as_json = CliRunner().invoke(app, [command, "--json"])
    whole, other = json.loads(as_json.stdout)
    assert (as_json.exit_code, whole["run"], other["run"], reason in other["error"]) == (1, "seed-1", "sample-1", True)
    store.delete("runs/evaluate/seed-1/index.json")
    assert told(command, status=1).count("no run") == 0


def test_an_empty_store_says_how_it_is_filled(store: LocalStore) -> None:
    assert "telltale evaluate" in told("runs")
    assert listed("runs") == listed("networks") == []


def test_every_preset_is_listed_and_can_be_shown() -> None:
    rows = listed("experiments")
    assert {"sample", "coco", "generators"} <= {row["experiment"] for row in rows}
    assert yaml.safe_load(told("experiments", "--show", "pairs"))["name"] == "pairs"
    assert "no preset 'smaple'" in told("experiments", "--show", "smaple", status=2)


def test_a_machine_that_is_ready_is_said_to_be(store: LocalStore) -> None:
    text = told("doctor")
    assert f"{store.url}, writable" in text
    assert "none runs: one is started when it is needed" in text
    assert "WRONG" not in text


def test_what_is_wrong_with_a_machine_is_said_and_the_rest_all_the_same(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TELLTALE_THREADS", "many")
    monkeypatch.setenv("TELLTALE_STORE", "/proc/store")
    text = told("doctor", status=1)
    assert text.count("WRONG") == 2
    assert "server" in text


def test_the_version_is_the_installed_one() -> None:
    assert told("--version").startswith("telltale 0.")
