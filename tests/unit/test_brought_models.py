"""A model of transformers is its few files, by hub id or by folder: nothing else is read, and nothing is executed."""

import json
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from storage.errors import MissingInput, SpecError
from storage.local import LocalStore
from tasks import brought_models
from tasks.brought_models import (
    BroughtModel,
    bring_model,
    input_difference,
    missing_model,
    model_files,
    model_of_gpu_workers,
    model_question,
    model_written,
    refuse_foreign_code,
)
from tasks.data.network_input import NetworkInput
from tasks.facts import answer_of, as_json
from tests.unit.local_hub import LocalHub, local_hub, offline, use_hub
from tests.unit.tiny_models import CROPPED, INPUT, change, save_swin, save_vit


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_vit(tmp_path_factory.mktemp("published") / "vit")


@pytest.fixture
def vit(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "vit"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LocalHub]:
    with local_hub(monkeypatch, tmp_path / "cache") as found:
        yield found


def nothing(folder: Path) -> None:
    pass


def line_of(model: Any) -> str:
    """The sentence that says what is missing of a model."""
    (line,) = missing_model(str(model), nothing)
    return line


def test_a_model_is_the_files_that_it_is_loaded_from(vit: Path) -> None:
    assert set(model_files(vit)) == {"config.json", "preprocessor_config.json", "model.safetensors"}
    before = model_of_gpu_workers(str(vit))
    (vit / "README.md").write_text("about it")
    (vit / "pytorch_model.bin").write_bytes(b"a pickle")
    (vit / "modeling_own.py").write_text("raise SystemExit")
    assert model_of_gpu_workers(str(vit)) == before
    change(vit / "config.json", id2label={"0": "fake", "1": "real"})
    assert model_of_gpu_workers(str(vit)) != before


def test_a_model_in_shards_is_its_index_and_those(vit: Path) -> None:
    from transformers import ViTForImageClassification

    network = ViTForImageClassification.from_pretrained(vit, use_safetensors=True)
    (vit / "model.safetensors").unlink()
    network.save_pretrained(vit, max_shard_size="60KB")
    shards = {path.name for path in vit.glob("model-*.safetensors")}
    assert len(shards) > 1
    expected = {"config.json", "preprocessor_config.json", "model.safetensors.index.json", *shards}
    assert set(model_files(vit)) == expected
    (vit / min(shards)).unlink()
    assert f"it has no {min(shards)}" in line_of(vit)


@pytest.mark.parametrize("name", ["../other.safetensors", "model-1-of-2.bin", 3])
def test_an_index_names_shards_and_no_paths(vit: Path, name: Any) -> None:
    (vit / "model.safetensors").unlink()
    (vit / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    assert re.search(r"expected files named like model-00001-of-00002.safetensors", line_of(vit))


def test_a_folder_without_safetensors_is_refused_with_the_remedy(vit: Path) -> None:
    (vit / "model.safetensors").unlink()
    assert re.search(r"vit: it has no model.safetensors; .* save_pretrained", line_of(vit))
    (vit / "pytorch_model.bin").write_bytes(b"a pickle")
    assert re.search(r"its weights are pickles, which are never read; .* save_pretrained", line_of(vit))


def test_what_is_no_folder_of_a_model_is_said(vit: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert re.search(r"it has no config.json", line_of(tmp_path / "empty"))
    assert re.search(r"nowhere: no such folder; .* or a hub id", line_of(tmp_path / "nowhere"))
    assert re.search(r"expected owner/name@<commit>, owner/name or the path of a folder, got 'vit'", line_of("vit"))
    (vit / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert re.search(r"not readable as safetensors .* `git lfs pull`", line_of(vit))


def test_a_hub_model_is_the_folder_with_its_files_at_its_newest_commit(
    hub: LocalHub, vit: Path, tmp_path: Path
) -> None:
    (vit / "pytorch_model.bin").write_bytes(b"a pickle")
    first = hub.publish("owner/vit", vit)
    assert model_of_gpu_workers("owner/vit") == (f"owner/vit@{first}", model_of_gpu_workers(str(vit))[1])
    assert not [asked for asked in hub.asked if asked.endswith(".bin")]
    newer = Path(shutil.copytree(vit, tmp_path / "newer"))
    change(newer / "config.json", id2label={"0": "fake", "1": "real"})
    second = hub.publish("owner/vit", newer)
    assert model_of_gpu_workers("owner/vit") == (f"owner/vit@{second}", model_of_gpu_workers(str(newer))[1])
    assert model_of_gpu_workers(f"owner/vit@{first}")[1] == model_of_gpu_workers(str(vit))[1]


def test_a_hub_model_of_the_cache_needs_no_network(
    hub: LocalHub, vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.publish("owner/vit", vit)
    found = model_of_gpu_workers("owner/vit")
    ways: tuple[Callable[[Path], None], ...] = (
        lambda cache: offline(monkeypatch, cache),
        lambda cache: use_hub(monkeypatch, NOBODY, cache),
    )
    for unreachable in ways:
        unreachable(tmp_path / "cache")
        for name in ("owner/vit", f"owner/vit@{commit}"):
            assert model_of_gpu_workers(name) == found
            assert missing_model(name, nothing) == []


# A port on which nobody listens.
NOBODY = "http://127.0.0.1:9"


def test_a_hub_model_without_network_and_cache_is_missing_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offline(monkeypatch, tmp_path)
    line = line_of("owner/vit@0a1b")
    assert "not in the local cache" in line
    assert "OfflineModeIsEnabled" in line
    assert "`hf download owner/vit --revision 0a1b`" in line
    use_hub(monkeypatch, NOBODY, tmp_path)
    line = line_of("owner/vit")
    assert "ConnectError" in line
    with pytest.raises(MissingInput, match="`hf download owner/vit` where there is a network"):
        model_of_gpu_workers("owner/vit")


def test_a_hub_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(brought_models, "ANSWER_WITHIN_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        use_hub(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path)
        started = time.monotonic()
        assert "ReadTimeout" in line_of("owner/vit")
        with pytest.raises(MissingInput, match="ReadTimeout"):
            model_of_gpu_workers("owner/vit")
        assert time.monotonic() - started < 5


def test_what_a_hub_model_is_is_known_before_its_weights_come(hub: LocalHub, vit: Path) -> None:
    hub.publish("owner/vit", vit)
    seen: list[set[str]] = []
    assert missing_model("owner/vit", lambda folder: seen.append({path.name for path in folder.iterdir()})) == []
    assert seen == [{"config.json", "preprocessor_config.json"}]


def test_a_hub_model_without_safetensors_or_that_does_not_exist_is_refused(hub: LocalHub, vit: Path) -> None:
    (vit / "model.safetensors").rename(vit / "pytorch_model.bin")
    hub.publish("owner/pickled", vit)
    assert re.search(r"owner/pickled: its weights are pickles", line_of("owner/pickled"))
    line = line_of("owner/another")
    assert "RepositoryNotFoundError" in line


def test_a_model_is_brought_by_its_digest_from_anywhere(
    hub: LocalHub, vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.publish("owner/vit", vit)
    by_id, by_path = BroughtModel.named("owner/vit"), BroughtModel.named(str(vit))
    assert by_id.digest == by_path.digest
    assert by_id.path == f"owner/vit@{commit}"
    assert by_id.model_dump() == {"digest": by_id.digest}
    store = LocalStore(tmp_path / "store")
    ref, _ = bring_model.compute(store, digest=by_id.digest, path=by_id.path)
    assert bring_model.lookup(store, digest=by_path.digest, path=by_path.path) == ref
    with model_written(store, ref) as folder:
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
            name: path.read_bytes() for name, path in model_files(vit).items()
        }
    assert not folder.exists()


def test_a_model_that_changes_after_it_was_planned_is_not_brought(vit: Path, tmp_path: Path) -> None:
    planned = BroughtModel.named(str(vit))
    change(vit / "config.json", id2label={"0": "fake", "1": "real"})
    with pytest.raises(SpecError, match="the model vit: it changed since it was planned, or this worker has another"):
        bring_model.compute(LocalStore(tmp_path / "store"), digest=planned.digest, path=planned.path)


def test_a_worker_is_asked_by_the_name_as_it_is_written(vit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELS", str(vit.parent))
    asked, arguments = model_question("${MODELS}/vit")
    assert asked.pool == "gpu"
    answer = answer_of(json.loads(json.dumps(asked.question(*arguments))))
    assert asked.parse(json.loads(json.dumps(as_json(answer)))) == ("${MODELS}/vit", model_of_gpu_workers(str(vit))[1])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "own", "auto_map": {"AutoModel": "own.Own"}}, "needs code of its own, which is never run"),
        ({"architecture": "resnet50"}, "model_type of config.json, 'None', is not known"),
        ({"model_type": ["vit"]}, "is not known"),
        ({"model_type": "vit", "quantization_config": {"quant_method": "bitsandbytes"}}, "quantization_config"),
        ({"model_type": "vit", "attn_implementation": "somebody/kernel"}, "attn_implementation in config.json: "),
        ({"model_type": "clip", "vision_config": {"_attn_implementation": "a/b"}}, "_attn_implementation in config"),
        ({"model_type": "vit", "_attn_implementation_internal": {"": "a/b"}}, "expected one of transformers' own"),
    ],
)
def test_a_configuration_that_asks_for_code_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        refuse_foreign_code(config)
    refuse_foreign_code({"model_type": "vit", "auto_map": {}, "_attn_implementation": "sdpa"})


def test_a_declared_input_is_compared_with_the_models_own_processor(published: Path, tmp_path: Path) -> None:
    swin = save_swin(tmp_path / "swin")
    assert input_difference(published, NetworkInput(**INPUT)) is None
    assert input_difference(swin, NetworkInput(**CROPPED)) is None
    channels_last = NetworkInput(**INPUT, layout="channels-last")
    assert input_difference(published, channels_last) is None
    (swin / "preprocessor_config.json").unlink()
    assert input_difference(swin, NetworkInput(**INPUT)) is None


@pytest.mark.parametrize(
    "declared",
    [
        {"filter": "bilinear"}, {"filter": "lanczos"}, {"mean": [0.5, 0.5, 0.5]}, {"std": [0.25, 0.3, 0.25]},
        {"resize": "shorter-side"}, {"resize": "none"}, {"channels": "bgr"},
    ],
    ids=str,
)  # fmt: skip
def test_another_input_than_the_models_own_is_told_with_what_the_file_says(
    published: Path, declared: dict[str, Any]
) -> None:
    found = input_difference(published, NetworkInput(**(INPUT | declared)))
    assert found is not None
    assert re.search(r"gives other values, by up to \d+ of 255 levels \(.*resample 3.*'height': 32", found)


def test_another_size_than_the_models_own_is_told_with_both(published: Path) -> None:
    found = input_difference(published, NetworkInput(**(INPUT | {"side": 48})))
    assert found is not None
    assert "gives 3 x 32 x 32 of a picture of 420 x 300, the declared input 3 x 48 x 48" in found


@pytest.mark.parametrize("fields", [{"image_processor_type": "Nobodys"}, {"size": {"height": "x"}}, {"resample": 77}])
def test_a_processor_that_transformers_cannot_make_is_told(vit: Path, fields: dict[str, Any]) -> None:
    change(vit / "preprocessor_config.json", **fields)
    found = input_difference(vit, NetworkInput(**INPUT))
    assert found is not None
    assert found.startswith("of preprocessor_config.json this transformers makes no image processor (")
