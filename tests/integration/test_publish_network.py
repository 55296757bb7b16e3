"""A network that is given away, from folders of pictures to an answer: reproducible, and as wrong as its card says."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from deployments.detect import local_model, verdict_in_words
from flows.here import computed_here
from flows.publish_network import network_of, published_files, write_network
from storage.errors import BadImage, MissingInput, SpecError
from storage.objects import Ref, finished_objects, read_table
from storage.opening import open_store
from storage.store import STORE_SETTING, Store
from tasks.networks.answer import Card, answer
from tasks.presets import parse_experiment
from tasks.spec.experiment import Experiment

# Name: (label, JPEG quality, is an upsampled picture).
SOURCES = {"town": ("real", 97, False), "doubled": ("fake", 80, True), "doubled-too": ("fake", 90, True)}
COUNT = 36


def picture(name: str, number: int) -> Image.Image:
    """Smooth colours with noise; of a generator, every pixel four times, as upsampling leaves them."""
    random = np.random.default_rng([*name.encode(), number])
    colours = gaussian_filter(random.normal(size=(110, 120, 3)), (4, 4, 0)) * 300 + 128
    colours += random.normal(size=colours.shape) * 3
    if SOURCES[name][2]:
        colours = colours[::2, ::2].repeat(2, axis=0).repeat(2, axis=1)
    return Image.fromarray(np.clip(colours, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    root = tmp_path_factory.mktemp("pictures")
    sources = []
    for name, (label, quality, _) in SOURCES.items():
        (root / name).mkdir()
        for number in range(COUNT):
            picture(name, number).save(root / name / f"{number:03d}.jpg", quality=quality)
        sources.append({"kind": "folder", "name": name, "path": str(root / name), "label": label})
    document = {
        "name": "given-away",
        "path": "crop",
        "sources": sources,
        "splits": {"kind": "folds", "count": 3},
        "resolutions": [64],
        "qualities": [None],
        "published": {
            "name": "small",
            "windows": 2,
            "strengths": [0.1, 0.5],
            "false_alarms": 0.1,
            "missed": 0.1,
            "licences": {"doubled": "CC0"},
            "deliveries": [
                {"name": "posted"},
                {"name": "jpeg-50", "quality": 50},
                {"name": "reduced", "factors": [0.5, 0.9]},
                {"name": "webp", "quality": 80, "saved_as": "webp"},
                {"name": "colours", "saved_as": "palette"},
                {"name": "tiny", "shorter_side": 32},
            ],
        },
        "bootstrap_resamples": 100,
        "shard_size": 20,
    }
    return parse_experiment(document)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(str(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module")
def network(store: Store, experiment: Experiment) -> Ref:
    return computed(experiment, store)


def computed(experiment: Experiment, store: Store) -> Ref:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(STORE_SETTING, store.url)
        return computed_here(lambda: network_of(experiment), store)


@pytest.fixture(scope="module")
def files(store: Store, experiment: Experiment, network: Ref) -> dict[str, bytes]:
    return published_files(store, network, experiment.network_to_publish.name)


@pytest.fixture(scope="module")
def card(files: dict[str, bytes]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(files["small.json"])
    return found


def said(store: Store) -> dict[str, pl.DataFrame]:
    """What was said of test pictures, by what had been left out; `small` where nothing was."""
    place = "objects/publish/score/"
    uris = [uri for uri in finished_objects(store) if uri.startswith(place)]
    return {
        uri.removeprefix(place).split("/")[0]: pl.DataFrame(
            pl.from_arrow(read_table(store, Ref.at(uri, rows=0, size=0)))
        )
        for uri in uris
    }


def test_every_test_picture_is_scored_once_by_a_network_without_it(store: Store, network: Ref) -> None:
    scores = said(store)
    assert set(scores) == {"small", "small-without-doubled", "small-without-doubled-too"}
    known = scores["small"]
    assert known.select("delivery", "source", "image_id").is_unique().all()
    # The photographs as they came, and as the files of each of both generators.
    assert known.filter(label=0, delivery="posted")["source"].value_counts().sort("source").rows() == [
        ("town", COUNT),
        ("town-as-doubled", COUNT),
        ("town-as-doubled-too", COUNT),
    ]
    assert known.filter(label=1, delivery="posted").height == 2 * COUNT
    assert known.group_by("group_id").agg(pl.col("rotation").n_unique())["rotation"].max() == 1, "groups stay together"
    assert set(scores["small-without-doubled"]["generator"]) == {"doubled"}


def test_the_card_says_what_the_scores_say(store: Store, card: dict[str, Any]) -> None:
    known = said(store)["small"]
    unknown = pl.concat([frame for name, frame in said(store).items() if "without" in name])
    for cell in card["error_rates"]:
        rows = known.filter(pl.col("generator").is_not_null(), delivery=cell["delivery"])
        left_out = unknown.filter(delivery=cell["delivery"], label=1)

        def share(frame: pl.DataFrame, answer: str) -> float:
            each = frame.group_by("generator").agg((pl.col("answer") == answer).fill_null(value=False).mean())
            value = each["answer"].mean()
            assert isinstance(value, float)
            return value

        as_came = known.filter(pl.col("generator").is_null(), delivery=cell["delivery"])
        generated = (as_came["answer"] == "generated").fill_null(value=False)
        assert cell["false_alarms"]["value"] == pytest.approx(generated.to_numpy().mean())
        assert cell["false_alarms_matched"]["value"] == pytest.approx(share(rows.filter(label=0), "generated"))
        assert cell["missed"]["value"] == pytest.approx(share(rows.filter(label=1), "photograph"))
        assert cell["missed_unknown"]["value"] == pytest.approx(share(left_out, "photograph"))
    names = [cell["cell"] for cell in card["error_rates"]]
    assert names == ["64/none", "64/q50", "64/reduced", "64/webp", "64/colours", "64/tiny"]
    assert [row["generator"] for row in card["generators"]["posted"]] == ["doubled", "doubled-too"]


def test_what_is_too_small_has_no_answer(card: dict[str, Any]) -> None:
    (tiny,) = (cell for cell in card["error_rates"] if cell["delivery"] == "tiny")
    assert tiny["answered"]["value"] == 0
    assert tiny["photographs_undecided"]["value"] == tiny["generated_undecided"]["value"] == 1
    assert tiny["right"]["value"] is None


def test_traces_of_upsampling_are_told_and_most_pictures_answered(card: dict[str, Any]) -> None:
    posted = card["error_rates"][0]
    assert posted["right"]["value"] > 0.9
    assert posted["answered"]["value"] > 0.5


def test_the_network_answers_pictures_by_its_card(files: dict[str, bytes], tmp_path: Path) -> None:
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    model = local_model(tmp_path / "small.onnx")
    assert not model.card.about.is_demonstration
    found = []
    for name in ("town", "doubled"):
        buffer = io.BytesIO()
        picture(name, COUNT + 1).save(buffer, "JPEG", quality=90)
        answered = answer(model.network, model.card, buffer.getvalue())
        assert answered.source is None, "it does not tell generators apart"
        assert answered.photograph_threshold is not None
        assert answered.photograph_threshold <= answered.threshold
        found.append((answered.p_fake, verdict_in_words(answered, model.card)))
    assert found[0][0] < found[1][0]
    assert {words.split(":")[0] for _, words in found} <= {"Probably a photograph", "Probably generated", "Cannot tell"}
    buffer = io.BytesIO()
    picture("town", 0).save(buffer, "WEBP", quality=90)
    untested = answer(model.network, model.card, buffer.getvalue())
    assert (untested.verdict, untested.reason) == ("cannot-tell", "format")
    with pytest.raises(BadImage, match="at least 64 pixels"):
        answer(model.network, model.card, small_picture())


def small_picture() -> bytes:
    buffer = io.BytesIO()
    picture("town", 0).crop((0, 0, 60, 90)).save(buffer, "PNG")
    return buffer.getvalue()


def test_it_is_the_same_network_in_another_store(
    experiment: Experiment, files: dict[str, bytes], tmp_path: Path
) -> None:
    again = open_store(str(tmp_path))
    assert published_files(again, computed(experiment, again), "small") == files


def test_the_card_in_words_names_sets_limits_and_every_delivery(files: dict[str, bytes]) -> None:
    text = files["small.md"].decode()
    for part in (
        "What it is not for",
        "reduced: scaled by 0.5 to 0.9",
        "tiny: reduced to 32 pixels",
        "as posted",
        "| town |",
        "not stated (36)",
    ):
        assert part in text


def test_a_card_reads_back_and_an_older_telltale_asks_for_a_newer_one(files: dict[str, bytes]) -> None:
    card = Card.read(files["small.json"])
    assert (card.format, card.windows) == (2, 2)
    document = json.loads(files["small.json"])
    document["decision"]["photograph_thresholds"]["64"] = 1.0
    with pytest.raises(SpecError, match="no larger than the fake_thresholds"):
        Card.read(json.dumps(document).encode())
    document = json.loads(files["small.json"]) | {"windows": None}
    with pytest.raises(SpecError, match="expected the 2 windows that it was fitted for, got None"):
        Card.read(json.dumps(document).encode())


def test_its_files_lie_in_the_store_and_in_a_folder_once(
    store: Store, network: Ref, files: dict[str, bytes], tmp_path: Path
) -> None:
    place = write_network(store, network, "small", tmp_path / "away" / "models")
    assert place.startswith("published/networks/small-")
    assert {key.removeprefix(f"{place}/"): store.read(key) for key in store.list(place)} == files
    assert {file.name: file.read_bytes() for file in (tmp_path / "away" / "models").iterdir()} == files
    assert write_network(store, network, "small", None) == place
    (tmp_path / "file").touch()
    with pytest.raises(MissingInput, match="can be written to"):
        write_network(store, network, "small", tmp_path / "file")


def test_a_share_that_too_few_pictures_have_is_not_promised(experiment: Experiment, tmp_path: Path) -> None:
    promises = experiment.network_to_publish.model_copy(update={"false_alarms": 0.01})
    with pytest.raises(SpecError, match=r"photographs with a window are val, expected at least 100"):
        computed(experiment.model_copy(update={"published": promises}), open_store(str(tmp_path)))


def test_a_licence_of_no_source_is_refused(experiment: Experiment) -> None:
    document = experiment.model_dump(mode="json", exclude_unset=True)
    document["published"]["licences"] = {"dubled": "CC0"}
    with pytest.raises(SpecError, match="unknown source 'dubled'"):
        parse_experiment(document)


def test_an_experiment_without_the_part_says_so(experiment: Experiment) -> None:
    with pytest.raises(SpecError, match="no `published` part"):
        network_of(experiment.model_copy(update={"published": None}))
