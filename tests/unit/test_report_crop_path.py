"""The report's sections on the crop path: what was left out of trainings, and what histories are worth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl
import pytest

from storage.tables import RESULT_SCHEMA
from tasks.detectors.linear import Linear
from tasks.evaluation.protocols import detectors_of, grid_of, mixes_of
from tasks.presets import parse_experiment
from tasks.report.blocks import Block, Table, Text
from tasks.report.data import ResultIndex
from tasks.report.flags import uncontrolled
from tasks.report.history import WHY_NO_CONTROL, history_blocks, history_table
from tasks.report.left_out import left_out_blocks, left_out_table
from tasks.report.reconstructions import reconstruction_blocks, reconstruction_table
from tasks.spec.detectors import Fit, HeadSpec
from tasks.spec.experiment import Experiment
from tests.unit.test_report_detectors import RESULTS

FOLDERS = {"a1": "fake", "a2": "fake", "b": "fake", "city": "real", "country": "real"}
DOCUMENT: dict[str, Any] = {
    "name": "made-up",
    "path": "crop",
    "sources": [{"kind": "folder", "name": name, "path": name, "label": label} for name, label in FOLDERS.items()],
    "resolutions": [64],
    "qualities": [None, 60],
    "detectors": [
        {"kind": "linear", "name": "traces", "windows": 3, "left_out": True},
        {"kind": "linear", "name": "history", "role": "probe", "extractor": {"kind": "history"}, "windows": 1},
    ],
    "families": {"a": ["a1", "a2"]},
    "mixes": [
        *({"name": fake, "real": ["city", "country"], "fakes": [fake]} for fake in ("a1", "a2", "b")),
        {"name": "b-city", "real": ["city"], "fakes": ["b"]},
        {"name": "combined", "real": ["city", "country"], "fakes": ["a1", "a2", "b"]},
    ],
}
TRACES, HISTORY = Fit(detector="traces"), Fit(detector="history", role="probe")


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return parse_experiment(DOCUMENT)


def heads(experiment: Experiment) -> dict[str, HeadSpec]:
    """What is fitted of the first detector on uncompressed windows, by what is left out."""
    grid = grid_of(experiment, lambda named: named)
    detector = detectors_of(experiment)[0]
    assert isinstance(detector, Linear)
    entries = [entry for entry in detector.entries(grid) if entry.cell.perturbation is None]
    return {entry.fit.without or "": detector.trains(entry, grid) for entry in entries}


def test_families_and_sources_of_photographs_are_left_out_one_after_the_other(experiment: Experiment) -> None:
    fitted = heads(experiment)
    # No mix has photographs of the country alone, so that nothing would be tested without them.
    assert list(fitted) == ["", "a", "b", "city"]
    assert fitted[""].fakes == ("a1", "a2", "b")
    assert fitted[""].real == tuple(f"{one}-as-{fake}" for fake in ("a1", "a2", "b") for one in ("city", "country"))
    assert fitted["a"].fakes == ("b",)
    assert fitted["a"].real == ("city-as-b", "country-as-b")
    assert fitted["city"].fakes == ("a1", "a2", "b")
    assert fitted["city"].real == ("country-as-a1", "country-as-a2", "country-as-b")
    assert {view.windows for head in fitted.values() for view in head.views} == {3}


def test_what_was_left_out_is_what_is_tested(experiment: Experiment) -> None:
    def tested(fit: Fit) -> dict[str, tuple[str, ...]]:
        return {mix.name: mix.real for mix in mixes_of(experiment, fit)}

    assert tested(Fit(detector="traces", without="a")) == {
        "a1": ("city-as-a1", "country-as-a1"),
        "a2": ("city-as-a2", "country-as-a2"),
    }
    assert list(tested(Fit(detector="traces", without="b"))) == ["b", "b-city"]
    assert tested(Fit(detector="traces", without="city")) == {"b-city": ("city-as-b",)}
    assert len(tested(TRACES)["combined"]) == 6
    (combined,) = (mix for mix in mixes_of(experiment, TRACES) if mix.name == "combined")
    assert combined.versions == tuple((f"city-as-{fake}", f"country-as-{fake}") for fake in ("a1", "a2", "b"))


def test_versions_of_photographs_are_not_named_by_an_experiment() -> None:
    from storage.errors import SpecError

    mix = {"name": "b", "real": ["city"], "fakes": ["b"], "versions": [["city"]]}
    with pytest.raises(SpecError, match="versions of photographs are made, not named"):
        parse_experiment(DOCUMENT | {"mixes": [mix]})


def test_a_family_of_all_generators_is_not_left_out() -> None:
    assert list(heads(parse_experiment(DOCUMENT | {"families": {"all": ["a1", "a2", "b"]}}))) == ["", "city"]


@pytest.mark.parametrize(
    ("families", "message"),
    [
        ({"a": ["a1", "a3"]}, "unknown fake source 'a3'"),
        ({"a": ["a1"], "c": ["a1"]}, "a1 is in two of them"),
        ({"b": ["a1", "a2"]}, "b is the name of a source that is not in it"),
        ({"a": ["a1"], "c": []}, "expected generators in c, got none"),
        ({"city": ["a1", "a2"]}, "city is the name of a source that is not in it"),
    ],
    ids=str,
)
def test_families_that_nobody_can_mean_are_refused(families: dict[str, list[str]], message: str) -> None:
    from storage.errors import SpecError

    with pytest.raises(SpecError, match=message):
        parse_experiment(DOCUMENT | {"families": families})


def row(protocol: str, mix: str, fit: Fit, value: float | None) -> dict[str, Any]:
    place = {"protocol": protocol, "resolution": "64", "perturbation": "none", "mix": mix, "metric": "auroc"}
    bounds = {"value": value, "low": None, "high": None, "n_real": 9, "n_fake": 9, "n_groups": 9}
    return dict.fromkeys(RESULT_SCHEMA.names) | fit.model_dump() | place | bounds


def rows() -> Iterator[dict[str, Any]]:
    yield row("fair", "a1", TRACES, 0.9)
    yield row("fair", "a2", TRACES, 0.8)
    yield row("fair", "b", TRACES, 0.7)
    yield row("fair", "a1", Fit(detector="traces", without="a"), 0.6)
    yield row("fair", "a2", Fit(detector="traces", without="a"), 0.5)
    yield row("fair", "b", Fit(detector="traces", without="b"), 0.4)
    yield row("fair", "b-city", TRACES, 0.75)
    yield row("fair", "b-city", Fit(detector="traces", without="city"), 0.65)
    yield row("as-is", "a1", TRACES, 0.99)
    yield row("as-is", "b", TRACES, 0.97)
    yield row("as-is", "b-city", TRACES, 0.98)
    yield row("history-control", "a1", TRACES, 0.61)
    yield row("history-control", "b", TRACES, 0.8)
    yield row("history-control-applied", "a1", TRACES, 0.39)
    yield row("history-control-applied", "b", TRACES, 0.55)
    yield row("fair", "a1", HISTORY, 0.55)
    yield row("as-is", "a1", HISTORY, 0.95)
    yield row("history-control", "a1", HISTORY, 0.64)


@pytest.fixture(scope="module")
def index(experiment: Experiment) -> ResultIndex:
    return ResultIndex(experiment, pl.DataFrame(list(rows()), schema=RESULTS))


class Data:
    """As much of the report's data as these sections read."""

    def __init__(self, experiment: Experiment, explorer: bool = True) -> None:
        self.experiment = experiment
        self.explorer = explorer


def test_left_out_stands_beside_known_and_its_mean_counts_each_generator_once(
    experiment: Experiment, index: ResultIndex
) -> None:
    data: Any = Data(experiment)
    table = left_out_table(data, index)
    assert table.select("without", "mix", "known", "left_out").rows() == [
        ("a", "a1", 0.9, 0.6),
        ("a", "a2", 0.8, 0.5),
        ("b", "b", 0.7, 0.4),
        ("city", "b-city", 0.75, 0.65),
    ]
    means = next(block for block in left_out_blocks(data, {"left_out": table}) if isinstance(block, Table))
    assert [[cell.text for cell in shown] for shown in means.rows] == [["traces", "64/none", "3", "0.800", "0.500"]]


def test_history_stands_beside_matched_and_is_marked_where_the_control_sees_it(
    experiment: Experiment, index: ResultIndex
) -> None:
    data: Any = Data(experiment)
    table = history_table(data, index)
    found = table.select("detector", "mix", "matched", "as_is", "control", "applied", "flagged").rows()
    assert found == [
        ("traces", "a1", 0.9, 0.99, 0.61, 0.39, True),
        ("traces", "b", 0.7, 0.97, 0.8, 0.55, False),
        ("traces", "b-city", 0.75, 0.98, 0.8, 0.55, False),
        ("history", "a1", 0.55, 0.95, 0.64, None, False),
    ]
    assert table["difference"].to_numpy() == pytest.approx([0.09, 0.27, 0.23, 0.4])
    (shown,) = (block for block in history_blocks(data, {"history": table}) if isinstance(block, Table))
    assert [cells[-1].tag for cells in shown.rows] == ["history", "", "", ""]


def links(blocks: tuple[Block, ...], caption: str) -> list[list[str]]:
    (table,) = (block for block in blocks if isinstance(block, Table) and block.caption.startswith(caption))
    return [[cell.link for cell in cells] for cells in table.rows]


def test_numbers_lead_to_the_pictures_behind_them_where_the_explorer_has_these(
    experiment: Experiment, index: ResultIndex
) -> None:
    data: Any = Data(experiment)
    place = "explorer/index.html?cell=64/none&detector={}&mix={}&error=mistake&sort=-p"
    matched = links(history_blocks(data, {"history": history_table(data, index)}), "Matched")
    # Not as they came, nor of the controls: nobody has scores of those there.
    wanted = [("traces", "a1"), ("traces", "b"), ("traces", "b-city"), ("history", "a1")]
    assert matched == [["", "", "", place.format(*one), "", "", "", ""] for one in wanted]
    known = links(left_out_blocks(data, {"left_out": left_out_table(data, index)}), "Each left out")
    wanted = [("traces", "a1"), ("traces", "a2"), ("traces", "b"), ("traces", "b-city")]
    assert known == [["", "", "", "", place.format(*one), ""] for one in wanted]


def test_nothing_leads_to_an_explorer_that_is_not_there(experiment: Experiment, index: ResultIndex) -> None:
    data: Any = Data(experiment, explorer=False)
    matched = links(history_blocks(data, {"history": history_table(data, index)}), "Matched")
    known = links(left_out_blocks(data, {"left_out": left_out_table(data, index)}), "Each left out")
    assert {link for row in (*matched, *known) for link in row} == {""}


def test_what_is_not_fitted_again_is_judged_by_its_own_control(experiment: Experiment) -> None:
    network = Fit(detector="network")
    extra = [row("fair", "a1", network, 0.9), row("history-control-applied", "a1", network, 0.35)]
    index = ResultIndex(experiment, pl.DataFrame([*rows(), *extra], schema=RESULTS))
    table = history_table(Data(experiment), index).filter(detector="network")  # type: ignore[arg-type]
    assert table.select("mix", "matched", "as_is", "difference", "control", "applied", "flagged").rows() == [
        ("a1", 0.9, None, None, None, 0.35, True)
    ]
    assert table["reason"].to_list() == ["networks are not trained again on pictures as they came"]


def test_where_matching_was_not_controlled_the_section_and_the_first_screen_say_why(experiment: Experiment) -> None:
    data: Any = Data(experiment)
    without = [one for one in rows() if not one["protocol"].startswith("history-control")]
    found = {}
    for name, kept in (("with", list(rows())), ("without", without)):
        table = history_table(data, ResultIndex(experiment, pl.DataFrame(kept, schema=RESULTS)))
        blocks = [*history_blocks(data, {"history": table}), *uncontrolled(table)]
        said = [one.text for one in blocks if isinstance(one, Text)]
        found[name] = [text for text in said if text.startswith(("There is no", "Nothing here"))]
    assert not found["with"]
    section, first_screen = found["without"]
    assert section == f"There is no control: {WHY_NO_CONTROL}."
    assert first_screen.startswith("Nothing here shows that both classes have one history now")
    # Where nothing was encoded, nothing has to be seen.
    equal = table.with_columns(pl.lit(0.0).alias("difference"))
    assert not list(uncontrolled(equal))


def test_without_such_results_there_are_no_such_sections(experiment: Experiment) -> None:
    data: Any = Data(experiment)
    index = ResultIndex(experiment, pl.DataFrame([row("fair", "b", TRACES, 0.7)], schema=RESULTS))
    assert history_blocks(data, {"history": history_table(data, index)}) == ()
    assert left_out_blocks(data, {"left_out": left_out_table(data, index)}) == ()


def test_matched_pairs_stand_beside_the_mean_of_generators_without_them(experiment: Experiment) -> None:
    pairs = row("fair", "b", TRACES, 0.8) | {"metric": "pairs_in_order"}
    index = ResultIndex(experiment, pl.DataFrame([*rows(), pairs], schema=RESULTS))
    data: Any = Data(experiment)
    table = reconstruction_table(data, index)
    assert table.select("detector", "mix", "pairs", "auroc", "in_order").rows() == [("traces", "b", 9, 0.7, 0.8)]
    assert table["unmatched"].to_list() == [pytest.approx((0.9 + 0.8) / 2)]
    (shown,) = (block for block in reconstruction_blocks({"reconstructions": table}) if isinstance(block, Table))
    assert [cell.text for cell in shown.rows[0]][:4] == ["traces", "b", "64/none", "9"]
    without = ResultIndex(experiment, pl.DataFrame(list(rows()), schema=RESULTS))
    assert reconstruction_blocks({"reconstructions": reconstruction_table(data, without)}) == ()
