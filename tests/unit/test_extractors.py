"""An extractor is one file: its kind is read, planned, checked and computed without being named elsewhere."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from benchmarks.made_up import needs, planned, preset
from flows.embed import embeddings_of
from flows.preflight import missing_weights
from storage.local import LocalStore
from storage.objects import notes_of
from storage.tables import embedding_matrix, read_features
from tasks.data.pictures import decode_rgb
from tasks.elements import Element, element_of
from tasks.features.inception import InceptionSpec
from tasks.features.kinds import KINDS, ExtractorSpec
from tasks.features.probe import ProbeSpec
from tasks.features.vgg16 import Vgg16Spec
from tasks.planning import Finished, Plan
from tasks.recipe import planned_by
from tasks.spec.detectors import Fit, HeadSpec
from tasks.spec.experiment import Experiment
from tests.unit.embedded_shards import RAW_NATIVE, VGG16, VIEWS, embed, seven_pictures, shard
from tests.unit.toy_extractor import Colours

ANY_EXTRACTOR: TypeAdapter[Any] = TypeAdapter(ExtractorSpec)


@pytest.fixture
def colours(monkeypatch: pytest.MonkeyPatch) -> Colours:
    monkeypatch.setitem(KINDS, "colours", Colours)
    return Colours()


def with_colours(**fields: int) -> Experiment:
    """The sample with another linear detector, on features of the toy."""
    named = {"kind": "linear", "name": "coloured", "extractor": {"kind": "colours", **fields}}
    return preset("sample", {"detectors": [{"kind": "linear", "name": "plain"}, named]})


def embeddings(experiment: Experiment) -> list[Element]:
    waves = itertools.chain.from_iterable(planned(experiment, 99, embeddings_of))
    return [element for element in waves if element.step.name == "embed"]


def test_a_toy_is_read_from_a_document_and_written_as_it_was(colours: Colours) -> None:
    document = {"kind": "colours", "fields": 8}
    assert ANY_EXTRACTOR.validate_python(document) == Colours(fields=8)
    assert ANY_EXTRACTOR.dump_python(Colours(fields=8), mode="json") == document
    head = HeadSpec(fit=Fit(detector="svm"), extractor=colours, views=(RAW_NATIVE,), real=("coco",), fakes=("gan",))
    assert HeadSpec.model_validate(head.model_dump(mode="json")) == head


def test_every_kind_is_written_without_what_is_there_for_speed_alone() -> None:
    for extractor in (Vgg16Spec(compile=True), ProbeSpec(), InceptionSpec(weights="sha256:6726825d")):
        written = ANY_EXTRACTOR.dump_python(extractor, mode="json")
        assert written == extractor.model_dump(mode="json")
        assert "compile" not in written
        assert ANY_EXTRACTOR.validate_python(written).name == extractor.name


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ({"kind": "colours"}, ()),
        ({"kind": ["vgg16"]}, ()),
        ({}, ()),
        ({"kind": "vgg16", "sid": 3}, ("sid",)),
        ({"kind": "probe", "batch": 3}, ("batch",)),
        (None, ()),
    ],
)
def test_what_is_no_extractor_is_refused_where_it_is_wrong(document: Any, place: tuple[str, ...]) -> None:
    head = {
        "fit": {"detector": "svm"},
        "extractor": document,
        "views": [RAW_NATIVE],
        "real": ["coco"],
        "fakes": ["gan"],
    }
    with pytest.raises(ValidationError) as raised:
        HeadSpec.model_validate(head)
    assert [error["loc"] for error in raised.value.errors()] == [("extractor", *place)]


def test_an_unknown_kind_is_answered_with_those_that_are_known() -> None:
    with pytest.raises(
        ValidationError, match=r"unknown kind of extractor 'colours', expected one of \['backbone', 'cooc"
    ):
        ANY_EXTRACTOR.validate_python({"kind": "colours"})


def test_a_toy_describes_a_shard_by_the_step_that_all_share(colours: Colours, tmp_path: Path) -> None:
    store, pictures = LocalStore(tmp_path), seven_pictures()
    refs = embed(store, shard(store, pictures), extractor=colours)
    assert [ref.uri.rsplit("/", 1)[0] for ref in refs] == [
        f"objects/embed/colours-4/{view.name}/coco-00003" for view in VIEWS
    ]
    assert [notes_of(store, ref)["dimension"] for ref in refs] == [48] * len(VIEWS)
    found = embedding_matrix(read_features(store, refs[-1:]))
    pixels = decode_rgb(pictures["image"][0].as_py()["bytes"])  # (64, 80, 3)
    expected = pixels.reshape(4, 16, 4, 20, 3).mean(axis=(1, 3)).reshape(-1)
    assert found.shape == (6, 48)
    np.testing.assert_allclose(found[0], expected, atol=1)
    assert not np.array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[2], np.asarray(Image.new("RGB", (4, 4), "teal")).reshape(-1))


@pytest.mark.usefixtures("colours")
def test_a_toy_is_planned_on_its_pool_and_built_again_by_a_worker(tmp_path: Path) -> None:
    made = embeddings(with_colours(fields=8))
    elements = [element for element in made if not isinstance(element.arguments["extractor"], Vgg16Spec)]
    assert {element.arguments["extractor"] for element in elements} == {Colours(fields=8)}
    with planned_by(Plan(Finished(LocalStore(tmp_path)), needs)):
        for element in elements:
            assert element.step.pool(**element.arguments) == "cpu"
            assert (element.arguments["weights"], element.arguments["device"]) == (None, "cpu")
            assert element_of(element.document()).document() == element.document()


def test_what_a_kind_lacks_is_said_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Colours, "missing", lambda self: ["colours: mix some"])
    monkeypatch.setitem(KINDS, "colours", Colours)
    assert "colours: mix some" in missing_weights(with_colours())


def test_one_extractor_describes_all_pictures_of_what_a_head_is_fitted_on() -> None:
    as_is = VGG16.model_copy(update={"side": None})
    for own in (VGG16, as_is):
        experiment = preset("sample").model_copy(update={"extractor": own})
        of_own = [each.arguments for each in embeddings(experiment) if each.arguments["extractor"] == own]
        assert {arguments["rows"] for arguments in of_own} == {"all"}


def test_the_seed_protocol_tests_with_the_weights_of_the_experiments_own_extractor() -> None:
    arguments = [each.arguments for each in embeddings(preset("seed"))]
    of_vgg16 = {(given["extractor"].side, given["weights"], given["rows"]) for given in arguments if given["weights"]}
    (weights,) = {weights for _, weights, _ in of_vgg16}
    assert of_vgg16 == {(224, weights, "all"), (None, weights, "tested")}
