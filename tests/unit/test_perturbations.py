"""A perturbation is one file: its kind is read, named, written, planned and applied without being named elsewhere."""

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from storage.digest import canonical_json
from storage.errors import SpecError
from tasks.data.perturbations.base import KINDS
from tasks.data.perturbations.jpeg import Jpeg, jpeg
from tasks.data.views import apply_view
from tasks.spec.views import Cell, View
from tests.unit.toy_perturbation import Flip


@pytest.fixture
def flip(monkeypatch: pytest.MonkeyPatch) -> Flip:
    monkeypatch.setitem(KINDS, "flip", Flip)
    return Flip(axis=1)


def test_a_view_without_or_with_jpeg_is_written_as_before_there_were_others() -> None:
    bare, posted = View(path="fair", resolution=64), View(path="raw", resolution="native", perturbation=jpeg(20))
    assert bare.model_dump(mode="json") == {"path": "fair", "resolution": 64, "jpeg_quality": None}
    assert posted.model_dump(mode="json") == {"path": "raw", "resolution": "native", "jpeg_quality": 20}
    assert Cell(resolution=64, perturbation=jpeg(20)).model_dump() == {"resolution": 64, "jpeg_quality": 20}
    for view in (bare, posted):
        assert View.model_validate(view.model_dump(mode="json")) == view
    assert canonical_json(posted.model_dump(mode="json")) == ('{"jpeg_quality":20,"path":"raw","resolution":"native"}')


def test_a_toy_names_cells_and_is_read_back(flip: Flip) -> None:
    cell = Cell(resolution=64, perturbation=flip)
    assert cell.name == "64/flip-1"
    assert Cell.parse("64/flip-1") == cell
    assert cell.jpeg_quality is None
    assert cell.view("fair").name == "fair/64/flip-1"
    written = TypeAdapter(tuple[View, ...]).dump_json((cell.view("fair"),))
    assert TypeAdapter(tuple[View, ...]).validate_json(written) == (cell.view("fair"),)
    assert hash(Cell.parse("64/flip-1")) == hash(cell)


def test_a_toy_is_applied_after_the_resize(flip: Flip) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    seen = apply_view(picture, View(path="fair", resolution="native", perturbation=flip))
    np.testing.assert_array_equal(seen.pixels, picture[:, ::-1])
    assert seen.encoded is None


@pytest.mark.parametrize("document", [{"kind": "flop"}, {}, {"kind": "jpeg", "quality": 0}, {"kind": "jpeg", "x": 1}])
def test_what_is_no_perturbation_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        View.model_validate({"path": "fair", "resolution": 64, "perturbation": document})


def test_a_quality_out_of_range_is_refused_however_it_is_written() -> None:
    with pytest.raises(ValidationError):
        View.model_validate({"path": "fair", "resolution": 64, "jpeg_quality": 101})
    with pytest.raises(ValidationError):
        Jpeg(quality=0)
    with pytest.raises(SpecError, match="q101"):
        Cell.parse("64/q101")


def test_a_quality_and_a_perturbation_contradict_each_other() -> None:
    both = {"path": "fair", "resolution": 64, "jpeg_quality": 20, "perturbation": {"kind": "jpeg", "quality": 30}}
    with pytest.raises(ValidationError, match="not both"):
        View.model_validate(both)
