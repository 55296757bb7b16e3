"""A classifier of the hub gives the log-odds of its own softmax, and is refused where it is not what is declared."""

import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from benchmarks.made_up import places_by_step, preset
from flows.preflight import missing_gpu_detectors
from storage.errors import SpecError
from storage.local import LocalStore
from storage.objects import Ref, read_table
from tasks.brought_models import bring_model
from tasks.data.perturbations.base import ViewPicture
from tasks.data.pictures import Pixels
from tasks.detectors.base import KINDS, Detector
from tasks.detectors.hub import Hub, fake_places, labels_of, log_odds
from tasks.detectors.onnx_file import OnnxFile
from tasks.detectors.pictures import score_pictures
from tasks.spec.detectors import Fit
from tasks.spec.splits import FixedSplits
from tests.unit.local_hub import LocalHub, local_hub, offline
from tests.unit.network_pictures import VIEWS, picture, row, shard
from tests.unit.tiny_models import CROPPED, INPUT, change, save_swin, save_vit
from tests.unit.user_pages import DETECTORS

FIT = Fit(detector="theirs")
SWIN_FAKES = ("sd", "dalle")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    save_vit(folder / "vit")
    save_swin(folder / "swin")
    return folder


@pytest.fixture
def vit(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published / "vit", tmp_path / "vit"))


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def detector(folder: Path | str, **fields: Any) -> Hub:
    given = {"name": "theirs", "model": str(folder), "fake": ["artificial"], "input": INPUT} | fields
    return Hub.model_validate(given)


def line_of(named: Hub) -> str:
    """The sentence that says before any work why a detector does not do."""
    (line,) = named.missing()
    assert line.startswith("theirs: ")
    return line


def brought(store: LocalStore, named: Hub) -> Ref:
    """The object of its files."""
    found = named.brings
    ref: Ref
    ref, _ = bring_model.compute(store, digest=found.digest, path=found.path)
    return ref


def decisions(store: LocalStore, named: Hub, pictures: list[Pixels], together: int | None = None) -> np.ndarray:
    """Decision values, so many pictures at a time."""
    opened = named.keyed().opened(store, brought(store, named), "cpu")
    items = [opened.prepare(ViewPicture(pixels, None)) for pixels in pictures]
    step = together or len(items)
    return np.concatenate([opened.decide(items[start : start + step]) for start in range(0, len(items), step)])


def pictures() -> list[Pixels]:
    return [picture(source, seed) for source in ("coco", "gan", "stable") for seed in range(4)]


def of_transformers(folder: Path, shown: list[Pixels]) -> tuple[np.ndarray, list[str]]:
    """What transformers says of pictures by itself: shares (N, L), and the labels."""
    import torch
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    processor = AutoImageProcessor.from_pretrained(folder, backend="pil", use_safetensors=True)
    network = AutoModelForImageClassification.from_pretrained(folder, use_safetensors=True).eval()
    given = processor([Image.fromarray(pixels) for pixels in shown], return_tensors="pt")
    with torch.no_grad():
        shares = network(**given).logits.double().softmax(-1).numpy()
    return shares, [network.config.id2label[place] for place in range(shares.shape[1])]


@pytest.mark.parametrize(("name", "fake", "declared"), [("vit", ("artificial",), INPUT), ("swin", SWIN_FAKES, CROPPED)])
def test_a_decision_value_is_the_log_odds_of_transformers_own_answer(
    published: Path, store: LocalStore, name: str, fake: tuple[str, ...], declared: dict[str, Any]
) -> None:
    shares, labels = of_transformers(published / name, pictures())
    p_fake = shares[:, [label in fake for label in labels]].sum(1)
    found = decisions(store, detector(published / name, fake=fake, input=declared), pictures())
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, np.log(p_fake / (1 - p_fake)), rtol=1e-4, atol=1e-5)
    assert np.ptp(p_fake) > 0.01


def test_log_odds_do_not_saturate() -> None:
    logits = np.array([[800.0, -800.0, 0.0], [0.0, 0.0, 0.0], [-1e4, 1.0, 1.0], [np.nan, 0, 0], [np.inf, np.inf, 0]])
    found = log_odds(logits, np.array([True, False, False]))
    np.testing.assert_allclose(found[:3], [800, -np.log(2), -1e4 - 1 - np.log(2)])
    assert not np.isfinite(found[3:]).any()


def test_a_batch_changes_the_rounding_alone(published: Path, store: LocalStore) -> None:
    for name, fields in (("vit", {}), ("swin", {"fake": SWIN_FAKES, "input": CROPPED})):
        named = detector(published / name, **fields)
        whole = decisions(store, named, pictures())
        for together in (1, 5):
            np.testing.assert_allclose(decisions(store, named, pictures(), together), whole, atol=1e-5)


def test_tasks_side_by_side_share_one_network_and_change_nothing(published: Path, store: LocalStore) -> None:
    named = detector(published / "vit")
    files = brought(store, named)
    first, second = (named.opened(store, files, "cpu") for _ in range(2))
    assert first.decide.__self__ is second.decide.__self__  # type: ignore[attr-defined]
    items = [first.prepare(ViewPicture(pixels, None)) for pixels in pictures()]
    alone = [first.decide([item]) for item in items]
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: [second.decide([item]) for item in items], range(8)):
            assert np.array_equal(np.array(found), np.array(alone))


def scored(store: LocalStore, named: Hub, files: Ref) -> list[Ref]:
    rows = [
        row(source, number, place)
        for source in ("coco", "stable")
        for number, place in enumerate(["val", "val", "test", "test"] * 6)
    ]
    refs, _ = score_pictures.compute(
        store,
        detector=named.keyed(),
        files=files,
        fit=FIT,
        pictures=shard(store, rows, "mixed"),
        views=VIEWS,
        val_views=VIEWS[:2],
        splits=FixedSplits(),
        device="cpu",
        source="coco",
        shard=0,
    )
    return list(refs)


def test_pictures_are_scored_by_the_brought_files(published: Path, store: LocalStore, vit: Path) -> None:
    named = detector(vit, batch=5)
    files = brought(store, named)
    shutil.rmtree(vit)  # the worker that scores has no such folder
    found = [pl.DataFrame(pl.from_arrow(read_table(store, ref))) for ref in scored(store, named, files)]
    assert [len(frame) for frame in found] == [48, 48, 24]
    assert all(frame["decision"].is_finite().all() for frame in found)
    assert found[0]["decision"].n_unique() > 40


def test_where_a_model_lies_what_it_is_called_and_its_threshold_decide_no_score(published: Path, vit: Path) -> None:
    named = detector(published / "vit", threshold=0.7, trained_on=["coco"])
    assert named.keyed() == detector(vit).keyed()
    assert named.brings.digest == detector(vit).brings.digest
    for other in ({"batch": 4}, {"fake": ["human"]}, {"input": CROPPED}, {"input_differs": True}):
        assert detector(vit, **other).keyed() != named.keyed()


def test_it_is_read_and_written(published: Path) -> None:
    adapter = TypeAdapter(tuple[Detector, ...])
    document = {"kind": "hub", **detector(published / "vit").model_dump(mode="json")}
    (found,) = adapter.validate_python([document])
    assert isinstance(found, Hub)
    assert adapter.validate_json(adapter.dump_json((found,))) == (found,)
    assert KINDS["hub"] is Hub


@pytest.mark.parametrize(("threshold", "expected"), [(0.5, 0.0), (0.9, np.log(9)), (None, None)])
def test_the_published_threshold_is_a_probability(threshold: float | None, expected: float | None) -> None:
    assert detector("owner/name", threshold=threshold).published == (expected and pytest.approx(expected))


def test_its_threshold_is_a_half_where_nobody_says() -> None:
    assert detector("owner/name").published == 0


def test_its_title_says_which_model_and_not_where() -> None:
    commit = "0a1b" * 10
    assert detector(f"owner/name@{commit}").title == "classifier owner/name@0a1b0a1b0a1b, fake: artificial"
    for path in ("/home/somebody/models/sdxl", "${MODELS}/sdxl", "~/models/of/sdxl"):
        assert detector(path).title == "classifier sdxl, fake: artificial"


def test_another_input_that_is_meant_is_said() -> None:
    assert len(detector("owner/name").remarks(("coco",))) == 1
    said = detector("owner/name", input_differs=True).remarks(("coco",))[-1]
    assert said == "theirs: its input is declared as another than that of its own preprocessor_config.json."


@pytest.mark.parametrize(
    "fields",
    [
        {"fake": []}, {"fake": ["a", "a"]}, {"fake": [""]}, {"fake": [0]}, {"model": ""}, {"batch": 0},
        {"threshold": 0}, {"threshold": 1}, {"threshold": 1.5}, {"input": None}, {"input": {"side": 32}},
        {"input": INPUT | {"layout": "channels-last"}}, {"input_differs": "yes"}, {"trust_remote_code": True},
    ],
    ids=str,
)  # fmt: skip
def test_a_declaration_that_cannot_be_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        detector("owner/name", **fields)


def test_the_input_is_declared_and_never_guessed() -> None:
    given = {"name": "theirs", "model": "owner/name", "fake": ["artificial"]}
    with pytest.raises(ValidationError, match=r"input\n  Field required"):
        Hub.model_validate(given)
    for name in ("side", "resize", "filter", "mean", "std"):
        declared = {key: value for key, value in INPUT.items() if key != name}
        with pytest.raises(ValidationError, match=rf"input.{name}\n  Field required"):
            Hub.model_validate(given | {"input": declared})


def test_nothing_is_missing_of_a_model_that_is_as_declared(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert detector(published / "vit").missing() == []
    assert detector(published / "swin", fake=SWIN_FAKES, input=CROPPED).missing() == []
    monkeypatch.setenv("MODELS", str(published))
    assert detector("${MODELS}/vit").missing() == []


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"id2label": {"0": "AI", "1": "real"}}, "the model has no label 'artificial'; its labels are 'AI', 'real'"),
        ({"id2label": {"0": "artificial", "1": "artificial"}}, "all labels of the model .* would mean a fake"),
        ({"id2label": {"0": "artificial"}}, r"the model has one label, 'artificial', .* \(kind: onnx\)"),
        ({"id2label": {"1": "artificial", "2": "human"}}, "expected a label for each number from 0 on"),
        ({"id2label": ["artificial", "human"]}, "expected a label for each number from 0 on"),
        ({"id2label": None}, "its labels are 'LABEL_0', 'LABEL_1'"),
        ({"id2label": None, "num_labels": 10**12}, "num_labels in config.json: expected 1 to 100000"),
        ({"architectures": ["CLIPModel"], "model_type": "clip"}, r"expected an image classifier .* \['CLIPModel'\]"),
        ({"architectures": None}, r"expected an image classifier of transformers, got \[\]"),
        ({"architectures": "ViTForImageClassification"}, "expected an image classifier"),
        ({"num_channels": 1}, "num_channels in config.json: expected 3, got 1"),
        ({"problem_type": "multi_label_classification"}, "expected labels that exclude each other"),
        ({"problem_type": "regression"}, "expected labels that exclude each other"),
        ({"model_type": "own", "auto_map": {"AutoModel": "a.B"}}, "needs code of its own, which is never run"),
    ],
)  # fmt: skip
def test_a_model_that_does_not_fit_is_refused_before_any_work_and_where_it_is_opened(
    vit: Path, store: LocalStore, config: dict[str, Any], message: str
) -> None:
    change(vit / "config.json", **config)
    assert re.search(message, line_of(detector(vit)))
    with pytest.raises(SpecError, match=f"theirs: .*{message}"):
        decisions(store, detector(vit), pictures())


def test_all_labels_as_fakes_are_refused(vit: Path) -> None:
    named = detector(vit, fake=["artificial", "human"])
    assert line_of(named) == "theirs: fake: all labels of the model ('artificial', 'human') would mean a fake"


def test_a_broken_configuration_is_refused(vit: Path) -> None:
    for text in ("{", "[]", "\xff", '{"model_type": "vit"' + "[" * 10_000):
        (vit / "config.json").write_text(text, encoding="latin-1")
        assert "config.json of the model" in line_of(detector(vit))


def test_pickles_and_missing_folders_are_refused_before_any_work(vit: Path, tmp_path: Path) -> None:
    (vit / "model.safetensors").rename(vit / "pytorch_model.bin")
    assert "its weights are pickles, which are never read" in line_of(detector(vit))
    assert "no such folder" in line_of(detector(tmp_path / "nowhere"))


def test_another_input_than_the_models_own_is_refused_unless_it_is_meant(vit: Path, store: LocalStore) -> None:
    other = INPUT | {"mean": [0.5, 0.5, 0.5]}
    message = r"input: preprocessor_config.json gives other values, .*image_mean \[0.5, 0.4, 0.3\].*input_differs: true"
    assert re.search(message, line_of(detector(vit, input=other)))
    with pytest.raises(SpecError, match=message):
        decisions(store, detector(vit, input=other), pictures())
    meant = detector(vit, input=other, input_differs=True)
    assert meant.missing() == []
    assert not np.array_equal(decisions(store, meant, pictures()), decisions(store, detector(vit), pictures()))
    (vit / "preprocessor_config.json").unlink()
    assert detector(vit, input=other).missing() == []


def test_a_side_that_the_network_does_not_take_is_said_before_the_first_picture(vit: Path, store: LocalStore) -> None:
    (vit / "preprocessor_config.json").unlink()
    with pytest.raises(SpecError, match=r"theirs: input: the network does not take 3 x 48 x 48 numbers \(.*32"):
        decisions(store, detector(vit, input=INPUT | {"side": 48}), pictures())


def test_weights_that_are_not_those_of_the_classifier_are_refused(vit: Path, store: LocalStore) -> None:
    from safetensors.numpy import load_file, save_file

    whole = load_file(vit / "model.safetensors")
    path = vit / "model.safetensors"
    save_file({name: one for name, one in whole.items() if not name.startswith("classifier.")}, path)
    with pytest.raises(SpecError, match=r"lack classifier.bias, classifier.weight, which would be drawn at random"):
        decisions(store, detector(vit), pictures())
    save_file(whole | {"classifier.weight": np.zeros((5, 32), np.float32)}, path)
    with pytest.raises(SpecError, match="theirs: transformers cannot load the model"):
        decisions(store, detector(vit), pictures())
    save_file(whole | {"classifier.weight": np.full((2, 32), np.nan, np.float32)}, path)
    with pytest.raises(SpecError, match=r"theirs: its weights are not finite: classifier.weight holds NaN"):
        decisions(store, detector(vit), pictures())
    path.write_bytes(path.read_bytes()[:-100])
    assert "not readable as safetensors" in line_of(detector(vit))


def test_half_precision_weights_are_computed_in_full(vit: Path, store: LocalStore) -> None:
    from safetensors.numpy import load_file, save_file

    expected = decisions(store, detector(vit), pictures())
    path = vit / "model.safetensors"
    save_file({name: one.astype(np.float16) for name, one in load_file(path).items()}, path)
    change(vit / "config.json", dtype="float16")
    found = decisions(store, detector(vit), pictures())
    assert not np.array_equal(found, expected)
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_a_classifier_of_another_library_is_a_line_and_no_crash(tmp_path: Path) -> None:
    from transformers import CLIPConfig, CLIPModel

    tower = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    CLIPModel(CLIPConfig(text_config=tower, vision_config=tower | {"image_size": 32, "patch_size": 8})).save_pretrained(
        tmp_path / "clip"
    )
    assert "expected an image classifier of transformers, got ['CLIPModel']" in line_of(detector(tmp_path / "clip"))


def test_code_that_lies_beside_a_model_is_not_run(vit: Path, store: LocalStore, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    for name in ("own", "modeling_vit", "image_processing_vit"):
        (vit / f"{name}.py").write_text(f"open({str(ran)!r}, 'w').close()\nclass Own: pass\n")
    for file in ("config.json", "preprocessor_config.json"):
        classes = ("AutoConfig", "AutoModelForImageClassification", "AutoImageProcessor")
        change(vit / file, auto_map=dict.fromkeys(classes, "own.Own"))
    assert detector(vit).missing() == []
    assert len(decisions(store, detector(vit), pictures())) == len(pictures())
    change(vit / "preprocessor_config.json", image_processor_type="Own")
    assert "this transformers makes no image processor" in line_of(detector(vit))
    assert detector(vit, input_differs=True).missing() == []
    change(vit / "config.json", model_type="own")
    assert "needs code of its own, which is never run" in line_of(detector(vit))
    assert not ran.exists()


def test_the_examples_of_networks_of_the_page_on_detectors_are_read() -> None:
    examples = re.findall(r"```yaml\n(detectors:.*?)```", DETECTORS.read_text(encoding="utf-8"), flags=re.S)
    plain, onnx, published = TypeAdapter(tuple[Detector, ...]).validate_python(yaml.safe_load(examples[1])["detectors"])
    assert isinstance(onnx, OnnxFile)
    assert onnx.published == 0
    assert isinstance(published, Hub)
    assert published.title == "classifier owner/name@COMMIT, fake: artificial"
    assert plain.name == "svm"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LocalHub]:
    with local_hub(monkeypatch, tmp_path / "cache") as found:
        yield found


def test_a_hub_model_that_is_not_here_is_checked_before_its_weights_come(hub: LocalHub, vit: Path) -> None:
    hub.publish("owner/vit", vit)
    assert detector("owner/vit").missing() == []
    assert "the model has no label 'fake'; its labels are 'artificial'" in line_of(detector("owner/vit", fake=["fake"]))
    assert "input_differs" in line_of(detector("owner/vit", input=CROPPED))
    assert not [asked for asked in hub.asked if asked.endswith(".safetensors")]


def test_by_hub_id_and_by_folder_it_is_one_detector(hub: LocalHub, vit: Path, store: LocalStore) -> None:
    commit = hub.publish("owner/vit", vit)
    files = [brought(store, detector(name)) for name in ("owner/vit", f"owner/vit@{commit}", vit)]
    assert files[0] == files[1] == files[2]
    assert np.array_equal(
        decisions(store, detector("owner/vit"), pictures()), decisions(store, detector(vit), pictures())
    )


def test_a_report_tells_of_the_commit_and_of_no_path(hub: LocalHub, vit: Path) -> None:
    commit = hub.publish("owner/vit", vit)
    assert detector("owner/vit").reported().model == f"owner/vit@{commit}"
    assert detector(vit).reported().model == "vit"


def test_a_hub_id_without_network_is_said_by_the_workers_of_the_gpu_pool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline(monkeypatch, tmp_path)
    experiment = preset("sample", {"mobile": None, "detectors": [document()]})
    (line,) = missing_gpu_detectors(experiment)
    assert line.startswith("theirs: the model owner/name: not in the local cache")
    assert "`hf download owner/name`" in line


def document() -> dict[str, Any]:
    return {"kind": "hub", **detector("owner/name").model_dump(mode="json")}


def test_it_is_planned_in_every_cell(vit: Path) -> None:
    named = [{"kind": "linear", "name": "svm"}, document() | {"model": str(vit)}]
    experiment = preset("sample", {"mobile": None, "detectors": named})
    found = places_by_step(experiment)
    assert len(found["score/calibrated"]) == len(experiment.cells)
    assert len(found["weights/transformers"]) == 1
    assert {place.split("/")[3] for place in found["score/pictures"]} == {"theirs"}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"id2label": {"1": "b", "0": "a"}}, ["a", "b"]),
        ({"id2label": {"0": 3, "1": True}}, ["3", "True"]),
        ({"num_labels": 3}, ["LABEL_0", "LABEL_1", "LABEL_2"]),
        ({}, ["LABEL_0", "LABEL_1"]),
    ],
)
def test_labels_are_those_of_the_logits(config: dict[str, Any], expected: list[str]) -> None:
    assert labels_of(config) == expected


def test_a_label_that_stands_there_twice_means_a_fake_twice() -> None:
    assert fake_places(["sd", "photo", "sd"], ["sd"]).tolist() == [True, False, True]
