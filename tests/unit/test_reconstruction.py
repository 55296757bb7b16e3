"""A reconstruction is its photograph through an autoencoder: the same identity and place, cut and never scaled."""

import io
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from PIL import Image

from benchmarks.made_up import planned
from flows.generate import generated
from flows.preflight import missing_weights, wanted_facts
from flows.shard import image_shards
from storage.errors import SpecError
from storage.local import LocalStore
from storage.objects import Ref, notes_of, read_table
from storage.tables import FAKE, IMAGE_SCHEMA
from tasks import pieces
from tasks.brought_models import bring_model, model_of_gpu_workers
from tasks.data.encoding import encode_jpeg, encode_png
from tasks.data.entries import QUARANTINE
from tasks.data.pictures import Pixels, decode_rgb
from tasks.data.sources.reconstruction import ReconstructionSource
from tasks.generators import reconstruction
from tasks.generators.autoencoders import Autoencoder
from tasks.generators.reconstruction import Cut, choose_photographs, reconstruct_photographs
from tasks.presets import load_experiment, parse_experiment
from tasks.recipe import Step
from tests.unit.generated_pictures import photographs, rows_of
from tests.unit.tiny_autoencoders import save_kl, save_taef2

CUT: dict[str, Any] = {"source": "pairs", "side": None, "border": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_kl(tmp_path_factory.mktemp("models") / "kl", halvings=2)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    """The store of steps that run here, without Prefect."""
    kept = LocalStore(tmp_path / "store")

    def submit(step: Step, **arguments: Any) -> SimpleNamespace:
        ref, _ = step.compute(kept, **arguments)
        return SimpleNamespace(result=lambda: ref)

    monkeypatch.setenv("TELLTALE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("TELLTALE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Step, "submit", submit)
    return kept


def noise(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def photograph(number: int, height: int, width: int, data: bytes | None = None, **known: Any) -> dict[str, Any]:
    row = {
        "image": {"bytes": data or encode_png(noise(height, width, number)), "path": f"{number}.png"},
        "image_id": f"coco:{number}",
        "group_id": f"group {number // 2}",
        "source": "coco",
        "label": 0,
        "split": "val",
        "width": width,
        "height": height,
    }
    return row | known


def brought(store: LocalStore, weights: Path) -> Ref:
    path, digest = model_of_gpu_workers(str(weights))
    ref: Ref = bring_model.compute(store, digest=digest, path=path)[0]
    return ref


def reconstructed(
    store: LocalStore, folder: Path, rows: list[dict[str, Any]], count: int | None = None, **cut: Any
) -> Ref:
    shard, autoencoder = photographs(store, rows), brought(store, folder)
    chosen, _ = choose_photographs.compute(
        store, photographs=(shard,), autoencoder=autoencoder, count=count, **(CUT | cut)
    )
    ref: Ref = reconstruct_photographs.compute(
        store, images=shard, autoencoder=autoencoder, chosen=chosen, device="cpu", **(CUT | cut)
    )[0]
    return ref


def aside(store: LocalStore, ref: Ref) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_table(store, ref, name=QUARANTINE).to_pylist()
    return rows


@pytest.mark.parametrize(
    ("side", "factor", "rows", "columns"),
    [
        (None, 8, slice(0, 96), slice(0, 120)),
        (None, 1, slice(0, 101), slice(0, 127)),
        (64, 8, slice(18, 82), slice(31, 95)),
        (110, 8, slice(0, 96), slice(8, 112)),
        (500, 8, slice(0, 96), slice(0, 120)),
    ],
)
def test_the_centre_is_cut_to_multiples_at_the_bottom_and_right_and_no_pixel_is_changed(
    side: int | None, factor: int, rows: slice, columns: slice
) -> None:
    pixels = noise(101, 127)
    cut = Cut(side, factor, border=10)
    part = cut.given(pixels)
    assert np.array_equal(part, pixels[rows, columns])
    assert cut.least_left(127, 101) == min(part.shape[:2]) - 20
    assert cut.least_left(101, 127) == min(part.shape[:2]) - 20


def test_a_reconstruction_is_a_fake_with_the_identity_and_the_place_of_its_photograph(
    store: LocalStore, folder: Path
) -> None:
    known: dict[str, Any] = {
        "prompt": "a cat",
        "caption": "of a cat",
        "categories": ["cat"],
        "licence": "CC BY",
        "jpeg_quality": 90,
    }
    rows = [photograph(1, 90, 84, **known), photograph(2, 80, 99, split=None, fold=3)]
    ref = reconstructed(store, folder, rows)
    table = read_table(store, ref)
    assert table.schema.equals(IMAGE_SCHEMA)
    one, other = table.to_pylist()
    for made, given in zip((one, other), rows, strict=True):
        for name in ("image_id", "group_id", "split", "fold", "prompt", "caption", "categories", "licence"):
            assert made[name] == given.get(name), name
        assert (made["source"], made["label"], made["seed"]) == ("pairs", FAKE, None)
        assert (made["format"], made["jpeg_quality"]) == ("PNG", None)
        assert decode_rgb(made["image"]["bytes"]).shape == (made["height"], made["width"], 3)
    assert (one["width"], one["height"]) == (84 - 8, 88 - 8)
    assert (other["width"], other["height"]) == (96 - 8, 80 - 8)
    notes = notes_of(store, ref)
    assert (notes["n"], notes["quarantined"], notes["of"]) == (2, 0, "coco")


def test_its_pixels_are_the_networks_without_the_border(
    store: LocalStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconstruction, "opened_autoencoder", lambda *_: Autoencoder(lambda x: x, "cpu"))
    (made,) = rows_of(store, reconstructed(store, folder, [photograph(1, 130, 121)], side=100, border=9))
    middle = noise(130, 121, 1)[15:115, 10:110]
    assert np.array_equal(decode_rgb(made["image"]["bytes"]), middle[9:-9, 9:-9])


def test_a_grey_photograph_has_a_grey_reconstruction(
    store: LocalStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tinted = Autoencoder(lambda x: x + torch.tensor([0.02, 0.0, -0.02])[:, None, None], "cpu")
    monkeypatch.setattr(reconstruction, "opened_autoencoder", lambda *_: tinted)
    buffer = io.BytesIO()
    Image.fromarray(noise(80, 80)[..., 0]).save(buffer, "JPEG")
    grey, coloured = rows_of(
        store, reconstructed(store, folder, [photograph(1, 80, 80, buffer.getvalue()), photograph(2, 80, 80)])
    )
    assert np.ptp(decode_rgb(grey["image"]["bytes"]), axis=2).max() == 0
    assert np.ptp(decode_rgb(coloured["image"]["bytes"]), axis=2).max() > 0
    assert (
        np.abs(
            decode_rgb(grey["image"]["bytes"])[..., 0].astype(int) - decode_rgb(buffer.getvalue())[4:-4, 4:-4, 0]
        ).max()
        <= 6
    )


def test_photographs_are_turned_upright_first(store: LocalStore, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconstruction, "opened_autoencoder", lambda *_: Autoencoder(lambda x: x, "cpu"))
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(noise(80, 120)).save(buffer, "JPEG", exif=exif)
    (made,) = rows_of(store, reconstructed(store, folder, [photograph(1, 80, 120, buffer.getvalue())]))
    assert (made["width"], made["height"]) == (80 - 8, 120 - 8)
    assert np.array_equal(decode_rgb(made["image"]["bytes"]), decode_rgb(buffer.getvalue())[4:-4, 4:-4])


def test_small_photographs_and_those_that_cannot_be_read_are_set_aside_and_counted(
    store: LocalStore, folder: Path
) -> None:
    rows = [
        photograph(1, 72, 200),
        photograph(2, 71, 200),
        photograph(3, 400, 9),
        photograph(4, 90, 90, encode_jpeg(noise(90, 90), 90)[:2000]),
    ]
    ref = reconstructed(store, folder, rows)
    assert [row["image_id"] for row in rows_of(store, ref)] == ["coco:1"]
    assert [(row["source"], row["image_id"], row["reason"]) for row in aside(store, ref)] == [
        ("pairs", "coco:2", "too-small"),
        ("pairs", "coco:3", "too-small"),
        ("pairs", "coco:4", "truncated"),
    ]
    details = [row["detail"] for row in aside(store, ref)]
    assert details[0] == "of 200x71, 60 pixels of the shorter side would be left, fewer than 64"
    assert details[1] == "of 9x400, 0 pixels of the shorter side would be left, fewer than 64"
    assert notes_of(store, ref)["quarantined"] == 3


def test_a_source_of_photographs_that_are_all_too_small_is_refused(store: LocalStore, folder: Path) -> None:
    message = (
        "pairs: of none of the 2 photographs 64 pixels a side are left, cut to multiples of 4 and by a border of 4"
    )
    with pytest.raises(SpecError, match=message):
        reconstructed(store, folder, [photograph(1, 71, 71), photograph(2, 71, 90)])


def test_a_picture_of_which_the_network_makes_no_numbers_is_set_aside(
    store: LocalStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def there_and_back(x: Any) -> Any:
        return x / 0.0 if x.shape[2] == 80 else x

    monkeypatch.setattr(reconstruction, "opened_autoencoder", lambda *_: Autoencoder(there_and_back, "cpu"))
    ref = reconstructed(store, folder, [photograph(1, 80, 80), photograph(2, 84, 84)])
    assert [row["image_id"] for row in rows_of(store, ref)] == ["coco:2"]
    assert [(row["image_id"], row["reason"]) for row in aside(store, ref)] == [("coco:1", "not-finite")]


def test_the_first_by_hash_of_the_large_ones_are_taken_whatever_their_order(
    store: LocalStore, folder: Path, tmp_path: Path
) -> None:
    rows = [photograph(number, 72 if number % 3 else 40, 72) for number in range(12)]
    chosen = {}
    for count in (1, 3, 100):
        made = reconstructed(LocalStore(tmp_path / f"{count}"), folder, rows, count)
        chosen[count] = [row["image_id"] for row in rows_of(LocalStore(tmp_path / f"{count}"), made)]
    assert [len(ids) for ids in chosen.values()] == [1, 3, 8]
    assert set(chosen[1]) < set(chosen[3]) < set(chosen[100])
    turned = reconstructed(store, folder, rows[::-1], 3, source="of another")
    assert {row["image_id"] for row in rows_of(store, turned)} == set(chosen[3])
    assert len(aside(store, turned)) == 4


def test_a_shard_whose_worker_vanished_goes_on_where_it_was(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = LocalStore(tmp_path / "whole"), LocalStore(tmp_path / "broken")
    rows = [photograph(number, 72, 80) for number in range(6)]
    expected = rows_of(whole, reconstructed(whole, folder, rows))
    monkeypatch.setattr(pieces, "PERIOD_S", 0.0)
    asked: list[str] = []
    all_of_them = reconstruction._reconstructed

    def vanishing(store: Any, left: Any, *given: Any) -> Iterator[Any]:
        for photograph, pixels in all_of_them(store, left, *given):
            if len(asked) == 4:
                raise KeyboardInterrupt
            asked.append(photograph["image_id"])
            yield photograph, pixels

    with monkeypatch.context() as patch:
        patch.setattr(reconstruction, "_reconstructed", vanishing)
        with pytest.raises(KeyboardInterrupt):
            reconstructed(broken, folder, rows)
    kept = broken.list("checkpoints")
    assert len(kept) == 4
    broken.write(kept[0], broken.read(kept[0])[:-1] + b"?")
    asked.clear()
    with monkeypatch.context() as patch:
        patch.setattr(reconstruction, "_reconstructed", vanishing)
        ref = reconstructed(broken, folder, rows)
    assert len(asked) == 3  # two that were not made, and the damaged one
    assert notes_of(broken, ref)["found_of_an_earlier_attempt"] == 3
    assert broken.list("checkpoints") == []
    assert rows_of(broken, ref) == expected


def document(weights: object, **changes: Any) -> dict[str, Any]:
    return {
        "name": "matched",
        "sources": [
            {"kind": "sample", "name": "photographs", "crops_per_photograph": 2, "limit": 12},
            {"kind": "gan", "name": "gan", "trained_on": "photographs", "count": 5},
            {"kind": "reconstruction", "name": "pairs", "of": "photographs", "weights": str(weights)} | changes,
        ],
    }


def test_it_is_read_from_a_document_with_its_own_words() -> None:
    experiment = parse_experiment(document("${TELLTALE_TAEF2}", count=7, side=256))
    source = experiment.sources[2]
    assert source == ReconstructionSource(
        name="pairs", of="photographs", weights="${TELLTALE_TAEF2}", count=7, side=256, border=32
    )
    assert (source.label, source.may_be_enlarged, source.own_side) == ("fake", False, None)
    assert experiment.fake_names == ("gan", "pairs")
    assert [mix.fakes for mix in experiment.all_mixes] == [("gan",), ("pairs",), ("gan", "pairs")]
    assert type(experiment).model_validate_json(experiment.model_dump_json()) == experiment


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"of": "coco"}, r"pairs: unknown source 'coco', expected one of \['photographs'\]"),
        ({"of": "gan"}, r"pairs: it cannot come from the gan source 'gan', expected one of \['photographs'\]"),
        ({"of": "pairs"}, r"sources.pairs: of: 'pairs' is this source itself, expected a source of photographs"),
        ({"label": "real"}, "sources.pairs.label: Input should be 'fake'"),
        ({"weights": ""}, "sources.pairs.weights: a path is empty"),
        ({"border": -1}, "sources.pairs.border: .* greater than or equal to 0"),
        ({"count": 0}, "sources.pairs.count: .* greater than or equal to 1"),
        ({"side": 127}, "side: expected at least 128, of which 64 are left after a border of 32, got 127"),
        ({"weight": "x"}, "sources.pairs.weight: there is no such field, did you mean weights"),
    ],
)
def test_what_is_wrong_with_it_is_said_at_the_border(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_experiment(document(**{"weights": "taef2.safetensors"} | changes))


def test_photographs_of_any_kind_are_reconstructed_and_fakes_of_none() -> None:
    given = document("w")
    given["sources"] += [
        {"kind": "column", "name": "real-column", "path": "p", "column": "c", "label": "real"},
        {"kind": "folder", "name": "camera", "path": "q", "label": "real", "evaluated": False},
        {"kind": "folder", "name": "fakes", "path": "r", "label": "fake"},
        {"kind": "reconstruction", "name": "a", "of": "real-column", "weights": "w"},
        {"kind": "reconstruction", "name": "b", "of": "camera", "weights": "w", "evaluated": False},
    ]
    parse_experiment(given)
    given["sources"][-1]["of"] = "fakes"
    with pytest.raises(SpecError, match="b: it cannot come from the folder source 'fakes', expected one of"):
        parse_experiment(given)


def test_what_is_evaluated_is_of_evaluated_photographs_since_it_has_their_places() -> None:
    given = document("w", of="camera")
    given["sources"].append({"kind": "folder", "name": "camera", "path": "q", "label": "real", "evaluated": False})
    with pytest.raises(
        SpecError, match=r"pairs: its pictures take the places of those of 'camera', which has evaluated"
    ):
        parse_experiment(given)
    given["sources"][2]["evaluated"] = False
    parse_experiment(given)


def test_folds_may_have_evaluated_photographs_since_nothing_is_trained_on_them() -> None:
    given = document("w") | {"splits": {"kind": "folds", "count": 5}}
    del given["sources"][1]
    assert parse_experiment(given).fake_names == ("pairs",)


def test_an_override_reaches_it(tmp_path: Path) -> None:
    path = tmp_path / "matched.yaml"
    path.write_text(yaml.safe_dump(document("w")))
    pairs = load_experiment(str(path), {"sources.pairs.count": 9}).sources[2]
    assert isinstance(pairs, ReconstructionSource)
    assert pairs.count == 9


def test_preflight_names_a_missing_autoencoder_and_planning_asks_for_its_digest(tmp_path: Path) -> None:
    path = tmp_path / "taef2.safetensors"
    experiment = parse_experiment(document(path))
    (line,) = [line for line in missing_weights(experiment) if "pairs" in line]
    assert line.startswith(f"pairs: the autoencoder in {path}: no such file")
    assert (model_of_gpu_workers, (str(path),)) in wanted_facts(experiment)
    save_taef2(path)
    assert not [line for line in missing_weights(experiment) if "pairs" in line]
    unset = parse_experiment(document("${TELLTALE_TEST_TAEF2}"))
    assert any("TELLTALE_TEST_TAEF2" in line for line in missing_weights(unset))


def test_it_is_planned_shard_by_shard_on_the_gpu_pool() -> None:
    experiment = parse_experiment(document("a folder") | {"shard_size": 5})
    elements = [element for wave in planned(experiment, 12) for element in wave]
    made = [element for element in elements if element.step is reconstruct_photographs]
    assert len(made) == 3
    assert {element.step.pool(**element.arguments) for element in made} == {"gpu"}
    counted = [sum(element.step is step for element in elements) for step in (bring_model, choose_photographs)]
    assert counted == [1, 1]
    assert "pairs" in {element.arguments["source"] for element in elements if element.step.name == "embed"}


def test_the_sources_shards_are_made_of_its_photographs_shards(tmp_path: Path, folder: Path, store: LocalStore) -> None:
    given = document(folder, border=8, count=5) | {"shard_size": 8}
    del given["sources"][1]
    experiment = parse_experiment(given)
    images = image_shards(experiment)
    made = generated(experiment, images)
    assert made.weights == {}
    pairs = pa.concat_tables(read_table(store, ref) for ref in made.shards["pairs"])
    assert pairs.num_rows == 5
    originals = {row["image_id"]: row for ref in images.shards["photographs"] for row in rows_of(store, ref)}
    for row in pairs.to_pylist():
        original = originals[row["image_id"]]
        for name in ("group_id", "split", "fold", "caption", "licence"):
            assert row[name] == original[name], name


def test_a_photograph_that_was_quarantined_has_no_reconstruction(
    tmp_path: Path, folder: Path, store: LocalStore
) -> None:
    album = tmp_path / "album"
    album.mkdir()
    (album / "broken.jpg").write_bytes(encode_jpeg(noise(90, 90), 90)[:1500])
    (album / "good.jpg").write_bytes(encode_jpeg(noise(90, 90, 1), 90))
    (album / "small.jpg").write_bytes(encode_jpeg(noise(60, 90, 2), 90))
    given = document(folder, border=8, of="camera", evaluated=False)
    given["sources"] += [{"kind": "folder", "name": "camera", "path": str(album), "label": "real", "evaluated": False}]
    given["sources"][1] = given["sources"][2] | {
        "name": "of-sample",
        "of": "photographs",
        "evaluated": True,
        "count": 1,
    }
    experiment = parse_experiment(given)
    (ref,) = generated(experiment, image_shards(experiment)).shards["pairs"]
    assert [(row["image_id"], row["split"]) for row in rows_of(store, ref)] == [("camera:good.jpg", "train")]
    assert [(row["image_id"], row["reason"]) for row in aside(store, ref)] == [("camera:small.jpg", "too-small")]
