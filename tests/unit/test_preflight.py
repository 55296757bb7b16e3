"""Before any work: everything missing at once, each with its remedy."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from flows.preflight import checked_experiment
from storage.errors import MissingInput


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("TELLTALE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TELLTALE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("TELLTALE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def missing(experiment: str) -> tuple[str, ...]:
    with pytest.raises(MissingInput) as raised:
        checked_experiment(experiment)
    return raised.value.missing


def experiment_file(folder: Path, **changes: object) -> str:
    document = {
        "name": "small",
        "sources": [
            {"kind": "coco", "name": "coco", "directory": str(folder / "coco")},
            {"kind": "folder", "name": "fakes", "path": str(folder / "fakes"), "label": "fake"},
            {
                "kind": "diffusion",
                "name": "sd",
                "prompted_by": "coco",
                "diffusion": {"model": str(folder / "pipeline")},
            },
        ],
        "extractor": {"weights": str(folder / "vgg16.safetensors")},
    } | changes
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(document))
    return str(path)


def test_data_folders_weights_and_models_are_all_named(tmp_path: Path) -> None:
    lines = missing(experiment_file(tmp_path))
    for thing in ("coco", "fakes", "pipeline", "vgg16.safetensors"):
        assert [line for line in lines if str(tmp_path / thing) in line], (thing, lines)


def test_an_unset_variable_does_not_hide_what_else_is_missing(tmp_path: Path) -> None:
    preset = experiment_file(tmp_path)
    text = Path(preset).read_text().replace(str(tmp_path / "coco"), "${TELLTALE_TEST_COCO}")
    Path(preset).write_text(text)
    lines = missing(preset)
    assert "TELLTALE_TEST_COCO" in lines[0]
    assert [line for line in lines if "vgg16.safetensors" in line]
    assert not [line for line in lines if "${" in line]


def test_the_default_experiment_without_its_data_says_so_at_once() -> None:
    began = time.monotonic()
    lines = missing("coco")
    took = time.monotonic() - began
    assert [line for line in lines if "TELLTALE_COCO" in line]
    assert [line for line in lines if "VGG16" in line]
    assert [line for line in lines if "stable-diffusion-2-1" in line]
    # The promise to users is ten seconds; what may take long here is only a refused connection.
    assert took < 60


def test_a_store_that_takes_no_writes_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("TELLTALE_STORE", str(tmp_path / "file"))
    assert [line for line in missing(experiment_file(tmp_path)) if "a writable store" in line]


def test_the_sample_needs_nothing() -> None:
    assert checked_experiment("sample").name == "sample"


@pytest.mark.parametrize(
    ("silences", "staffed"),
    [([], False), ([None], False), ([5], True), ([90], True), ([4000], False), ([4000, 20], True)],
)
def test_a_pool_is_staffed_while_a_worker_was_heard_of_lately(
    silences: list[int | None], staffed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lost heartbeat is no dead worker; minutes of silence are."""
    now = datetime.now(UTC)
    workers = [
        SimpleNamespace(
            name=str(number), last_heartbeat_time=None if silence is None else now - timedelta(seconds=silence)
        )
        for number, silence in enumerate(silences)
    ]

    @contextmanager
    def get_client(sync_client: bool) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(read_workers_for_work_pool=lambda pool: workers)

    monkeypatch.setattr("prefect.client.orchestration.get_client", get_client)
    if staffed:
        assert checked_experiment("sample", pools=("gpu",)).name == "sample"
    else:
        with pytest.raises(MissingInput, match="a worker of pool 'gpu'"):
            checked_experiment("sample", pools=("gpu",))
