"""Shards of generated pictures: their columns, seeds, places and quarantine, and the two steps that write them."""

import io
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from storage.digest import digest_of, sha256_hex
from storage.errors import MissingInput, SpecError
from storage.local import LocalStore
from storage.objects import ROWS, Ref, commit, notes_of, read_table
from storage.tables import FAKE, IMAGE_METADATA, IMAGE_SCHEMA, QUARANTINE_SCHEMA
from storage.weights import weight_parts
from tasks import pieces
from tasks.data.duplicates import collapse_rate, words_of
from tasks.data.fingerprints import hash_text, perceptual_hash
from tasks.data.pictures import Pixels, decode_rgb, inspect_picture
from tasks.device import DeviceLost, compute_device
from tasks.generators import shards, sheets
from tasks.generators.dcgan import build_generator
from tasks.generators.diffusion import GeneratedPicture, PictureRequest, generate_images
from tasks.generators.sampling import BatchSize, Sample, Sampler
from tasks.generators.shards import (
    GeneratedRow,
    generate_diffusion,
    generate_gan,
    generated_table,
    keyed_diffusion,
    model_digest,
    place_generated,
)
from tasks.generators.sheets import animation, contact_sheet, embedded, sample_strip, show_in_prefect
from tasks.spec.generators import DiffusionSpec, GanSpec
from tasks.spec.splits import FixedSplits, Folds
from tests.unit.generated_pictures import (
    TINY,
    assert_same_pictures,
    diffusion_arguments,
    photograph,
    photographs,
    rows_of,
)

GAN = GanSpec(latent=8, generator_features=4, discriminator_features=4)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def noise(seed: int, side: int = 64) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def gan_weights(store: LocalStore) -> Ref:
    torch.manual_seed(0)
    tensors = {name: tensor.numpy() for name, tensor in build_generator(GAN).state_dict().items()}
    parts = weight_parts(tensors, {"spec": GAN.model_dump(mode="json")})
    return commit(store, "objects/train-gan/w", step="train-gan", digest="w", recipe={}, parts=parts)


def gan_arguments(weights: Ref, start: int, stop: int, **changed: Any) -> dict[str, Any]:
    whole = {"source": "gan", "count": 10, "splits": FixedSplits(), "seed": 0, "device": "cpu"}
    return {"weights": weights, "start": start, "stop": stop} | whole | changed


def test_generated_rows_become_a_published_image_shard() -> None:
    row = GeneratedRow("gan:000001", "group", "gan", "test", None, 2**63 - 1, noise(1)[:32], "a cat")
    table = generated_table(iter([row]))
    assert table.schema.equals(IMAGE_SCHEMA)
    assert {key.decode(): value.decode() for key, value in table.schema.metadata.items()} == IMAGE_METADATA
    kept = table.to_pylist()[0]
    data = kept["image"]["bytes"]
    assert np.array_equal(decode_rgb(data), row.pixels)
    assert (kept["width"], kept["height"], kept["format"]) == (64, 32, inspect_picture(data).format)
    assert kept["sha256"] == sha256_hex(data)
    assert kept["phash"] == hash_text(perceptual_hash(row.pixels))
    assert (kept["label"], kept["split"], kept["fold"], kept["seed"]) == (FAKE, "test", None, str(2**63 - 1))
    assert (kept["prompt"], kept["caption"], kept["jpeg_quality"]) == ("a cat", None, None)
    assert kept["image"]["path"] == "gan-000001.png"


def test_no_rows_become_an_empty_shard() -> None:
    assert generated_table([]).num_rows == 0


@pytest.mark.parametrize(
    ("hashes", "rate"),
    [
        ([], 0.0),
        (["00000000000000ff"], 0.0),
        (["0000000000000000", "000000000000000f"], 0.5),
        (["0000000000000000", "000000000000001f"], 0.0),
        (["ffffffffffffffff"] * 4, 0.75),
        # The last is near the second alone.
        (["0000000000000000", "00000000000000ff", "ff00000000000000", "00000000000000fe"], 0.25),
    ],
)
def test_the_collapse_rate_counts_pictures_like_an_earlier_one(hashes: list[str], rate: float) -> None:
    assert collapse_rate(words_of(hashes)) == rate


def test_named_groups_come_before_ranges_and_ranges_before_shares() -> None:
    groups = [f"gan:{index}" for index in range(20)]
    splits = FixedSplits(groups={"gan:1": "test"}, ranges={"train": (0, 4), "val": (4, 6)})
    places = place_generated(groups, splits, 0)
    assert places.keys() == set(groups)
    assert [places[group][0] for group in groups[:6]] == ["train", "test", "train", "train", "val", "val"]
    assert {places[group][0] for group in groups[6:]} == {"train", "val", "test"}
    assert {fold for _, fold in place_generated(groups, Folds(count=4), 0).values()} == {0, 1, 2, 3}


def test_sharding_a_gan_source_changes_no_row(store: LocalStore) -> None:
    weights = gan_weights(store)
    whole, _ = generate_gan.compute(store, **gan_arguments(weights, 0, 10))
    pieces = [generate_gan.compute(store, **gan_arguments(weights, *piece))[0] for piece in [(0, 3), (3, 10)]]
    rows = read_table(store, whole).to_pylist()
    sharded = [row for piece in pieces for row in read_table(store, piece).to_pylist()]
    assert [row["image_id"] for row in rows] == [f"gan:{index:06d}" for index in range(10)]
    decided = ("image_id", "group_id", "source", "split", "fold", "seed")
    assert [[row[name] for name in decided] for row in sharded] == [[row[name] for name in decided] for row in rows]
    for one, other in zip(rows, sharded, strict=True):
        difference = decode_rgb(one["image"]["bytes"]).astype(int) - decode_rgb(other["image"]["bytes"])
        assert np.abs(difference).max() <= 1
    assert len({row["seed"] for row in rows}) == 10
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    assert all(row["group_id"] == row["image_id"] for row in rows)


def test_a_gan_shard_notes_its_collapse_rate(store: LocalStore) -> None:
    ref, _ = generate_gan.compute(store, **gan_arguments(gan_weights(store), 0, 4))
    notes = notes_of(store, ref)
    assert notes["collapse_rate"] == collapse_rate(words_of(read_table(store, ref)["phash"].to_pylist()))
    assert (notes["n"], notes["quarantined"]) == (4, 0)


def test_another_experiment_seed_makes_other_pictures(store: LocalStore) -> None:
    weights = gan_weights(store)
    one, other = (generate_gan.compute(store, **gan_arguments(weights, 0, 2, seed=seed))[0] for seed in (0, 1))
    seeds = [set(read_table(store, ref, ["seed"])["seed"].to_pylist()) for ref in (one, other)]
    assert not seeds[0] & seeds[1]


@pytest.mark.parametrize(("start", "stop"), [(3, 3), (-1, 2), (5, 11)])
def test_a_range_outside_of_the_source_is_refused(store: LocalStore, start: int, stop: int) -> None:
    with pytest.raises(SpecError, match="expected 0 <= start < stop <= 10"):
        generate_gan.compute(store, **gan_arguments(gan_weights(store), start, stop))


def test_the_tiny_model_makes_one_picture_per_photograph(store: LocalStore) -> None:
    images = photographs(
        store,
        [
            photograph(1, caption="a cup of coffee", group_id="scene", split="test"),
            photograph(2, caption="a cat", split=None, fold=3),
            photograph(3, caption="left out by the limit"),
        ],
    )
    ref, _ = generate_diffusion.compute(store, **diffusion_arguments(images, limit=2))
    first, second = read_table(store, ref).to_pylist()
    assert [first[name] for name in ("image_id", "group_id", "split", "fold")] == ["sd:coco:1", "scene", "test", None]
    assert [second[name] for name in ("image_id", "group_id", "split", "fold")] == ["sd:coco:2", "coco:2", None, 3]
    assert (first["source"], first["prompt"], first["width"]) == ("sd", "a cup of coffee", 64)
    assert read_table(store, ref, name="quarantine.parquet").num_rows == 0


def test_failed_pictures_and_photographs_without_prompt_are_set_aside(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def generate(sampler: Any, digest: str, requests: Sequence[PictureRequest], batch: Any) -> Iterator[Any]:
        assert sampler.pipeline == "tiny"
        for index, request in enumerate(requests):
            pixels = noise(index) if index else None
            error = None if index else "all-black"
            yield GeneratedPicture(request.image_id, request.prompt, index, pixels, error, 1 if index else 3)

    monkeypatch.setattr(shards, "load_pipeline", lambda spec, device: spec.model)
    monkeypatch.setattr(shards, "generate_images", generate)
    images = photographs(
        store, [photograph(1, categories=["cat", "cup"]), photograph(2), photograph(3, categories=["bench"])]
    )
    ref, _ = generate_diffusion.compute(store, **diffusion_arguments(images, prompts="categories"))
    assert read_table(store, ref)["image_id"].to_pylist() == ["sd:coco:3"]
    aside = read_table(store, ref, name="quarantine.parquet")
    assert aside.schema.equals(QUARANTINE_SCHEMA)
    assert [(row["image_id"], row["reason"]) for row in aside.to_pylist()] == [
        ("sd:coco:2", "no-prompt"),
        ("sd:coco:1", "all-black"),
    ]
    assert aside["detail"].to_pylist() == ["coco:2 has no categories", "after 3 attempts, prompt 'cat, cup'"]
    assert notes_of(store, ref)["quarantined"] == 2


def six_photographs(store: LocalStore) -> Ref:
    return photographs(store, [photograph(number, caption=f"a cat {number % 2}") for number in range(6)])


def test_a_shard_whose_worker_vanished_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, broken = LocalStore(tmp_path / "whole"), LocalStore(tmp_path / "broken")
    expected = rows_of(whole, generate_diffusion.compute(whole, **diffusion_arguments(six_photographs(whole)))[0])
    arguments = diffusion_arguments(six_photographs(broken))
    monkeypatch.setattr(pieces, "PERIOD_S", 0.0)
    made: list[str] = []

    def vanishing(*given: Any) -> Iterator[GeneratedPicture]:
        for picture in generate_images(*given):
            if len(made) == 4:
                raise KeyboardInterrupt
            made.append(picture.image_id)
            yield picture

    with monkeypatch.context() as patch:
        patch.setattr(shards, "generate_images", vanishing)
        with pytest.raises(KeyboardInterrupt):
            generate_diffusion.compute(broken, **arguments)
    folder = f"checkpoints/{digest_of(generate_diffusion.recipe(**arguments))}"
    kept = broken.list(folder)
    assert len(kept) == 4
    broken.write(kept[0], broken.read(kept[0])[:-1] + b"?")

    asked: list[PictureRequest] = []

    def watched(sampler: Any, digest: str, requests: Sequence[PictureRequest], batch: Any) -> Iterator[Any]:
        asked.extend(requests)
        return generate_images(sampler, digest, requests, batch)

    monkeypatch.setattr(shards, "generate_images", watched)
    ref, _ = generate_diffusion.compute(broken, **arguments)
    assert len(asked) == 3  # two that were not made, and the damaged one
    assert notes_of(broken, ref)["found_of_an_earlier_attempt"] == 3
    assert broken.list(folder) == []
    assert_same_pictures(rows_of(broken, ref), expected)


# A worker: makes four pictures, each written at once, and then seems to compute for ever.
WORKER = """
import sys, time
from pathlib import Path
from storage.objects import Ref
from storage.local import LocalStore
from tasks import pieces
from tasks.generators import shards
from tasks.generators.diffusion import generate_images
from tests.unit.generated_pictures import diffusion_arguments

def four(*given):
    for made, picture in enumerate(generate_images(*given)):
        if made == 4:
            time.sleep(600)
        yield picture

pieces.PERIOD_S = 0.0
shards.generate_images = four
images = Ref.model_validate_json(sys.argv[2])
shards.generate_diffusion.compute(LocalStore(Path(sys.argv[1])), **diffusion_arguments(images))
"""


def test_a_killed_workers_shard_is_finished_by_another_process(tmp_path: Path) -> None:
    whole, broken = LocalStore(tmp_path / "whole"), LocalStore(tmp_path / "broken")
    expected = rows_of(whole, generate_diffusion.compute(whole, **diffusion_arguments(six_photographs(whole)))[0])
    images = six_photographs(broken)
    arguments = diffusion_arguments(images)
    folder = f"checkpoints/{digest_of(generate_diffusion.recipe(**arguments))}"
    command = [sys.executable, "-c", WORKER, str(tmp_path / "broken"), images.model_dump_json()]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2]) as worker:
        deadline = time.monotonic() + 300
        while len(broken.list(folder)) < 4:
            assert worker.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        worker.kill()
    assert worker.returncode == -signal.SIGKILL
    ref, cached = generate_diffusion.compute(broken, **arguments)
    assert not cached
    assert notes_of(broken, ref)["found_of_an_earlier_attempt"] == 4
    assert_same_pictures(rows_of(broken, ref), expected)
    assert broken.list("checkpoints") == []


def test_sharding_a_diffusion_source_changes_no_picture(store: LocalStore) -> None:
    rows = [photograph(number, caption=f"a cat {number % 2}") for number in range(5)]
    expected = rows_of(store, generate_diffusion.compute(store, **diffusion_arguments(photographs(store, rows)))[0])
    made: list[dict[str, Any]] = []
    for name, part in (("one", rows[:3]), ("other", rows[3:])):
        parts = {ROWS: pa.Table.from_pylist(part, schema=IMAGE_SCHEMA)}
        images = commit(store, f"objects/shard/{name}", step="shard", digest=name, recipe={}, parts=parts)
        made += rows_of(store, generate_diffusion.compute(store, **diffusion_arguments(images, batch=TINY.batch))[0])
    assert_same_pictures(made, expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_on_a_gpu_pictures_of_different_batches_agree_to_45_decibels(store: LocalStore, dtype: str) -> None:
    images = six_photographs(store)
    spec = keyed_diffusion(TINY.model_copy(update={"dtype": dtype}))
    made: list[list[Pixels]] = []
    for batch in (1, 3):
        sampler = Sampler(shards._pipeline("tiny", spec, "cuda"), spec)
        requests = [PictureRequest(row["image_id"], row["caption"]) for row in rows_of(store, images)]
        pictures = generate_images(sampler, "digest", requests, BatchSize(batch))
        made.append([picture.pixels for picture in pictures if picture.pixels is not None])
    shards._kept_pipeline.clear()
    for one, other in zip(*made, strict=True):
        error = np.mean((one.astype(float) - other) ** 2)
        assert error == 0 or 10 * np.log10(255**2 / error) >= 45


def test_a_short_shard_is_written_once(store: LocalStore) -> None:
    generate_diffusion.compute(store, **diffusion_arguments(six_photographs(store)))
    assert store.list("checkpoints") == []


def test_too_little_memory_is_noted_and_too_little_for_one_picture_loses_the_device(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scarce(room: int) -> Any:
        def sample(self: Any, prompts: Sequence[str], seeds: Sequence[int], padded_to: int = 0) -> list[Sample]:
            if len(prompts) > room:
                raise torch.OutOfMemoryError("CUDA out of memory (simulated)")
            return [Sample(noise(seed % 1000), None) for seed in seeds]

        return sample

    images = six_photographs(store)
    arguments = diffusion_arguments(images, batch=4)
    monkeypatch.setattr(Sampler, "sample", scarce(0))
    with pytest.raises(DeviceLost, match="out of memory"):
        generate_diffusion.compute(store, **arguments)
    # Nothing is left of the failure: another attempt, elsewhere, makes the shard.
    monkeypatch.setattr(Sampler, "sample", scarce(2))
    ref, _ = generate_diffusion.compute(store, **arguments)
    assert ref.rows == 6
    assert {name: notes_of(store, ref)[name] for name in ("batch", "out_of_memory")} == {"batch": 2, "out_of_memory": 1}


def test_a_gpu_keeps_the_pipeline_of_its_last_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def load(spec: DiffusionSpec, device: str) -> object:
        loaded.append(spec.model)
        return object()

    monkeypatch.setattr(shards, "load_pipeline", load)
    one, other = keyed_diffusion(TINY), TINY.model_copy(update={"model": "hub:other"})
    first = shards._pipeline("tiny", one, "cuda")
    assert shards._pipeline("tiny", one, "cuda") is first
    shards._pipeline("other", other, "cuda")
    assert shards._pipeline("tiny", one, "cuda") is not first
    assert shards._pipeline("tiny", one, "cpu") is not shards._pipeline("tiny", one, "cpu")
    assert loaded == ["tiny", "other", "tiny", "tiny", "tiny"]
    shards._kept_pipeline.clear()


def test_a_shard_without_prompts_loads_no_model(store: LocalStore) -> None:
    images = photographs(store, [photograph(1)])
    arguments = diffusion_arguments(images) | {"model": "/nowhere"}
    ref, _ = generate_diffusion.compute(store, **arguments)
    assert (ref.rows, notes_of(store, ref)["quarantined"]) == (0, 1)


def test_a_models_place_is_not_part_of_the_recipe(tmp_path: Path) -> None:
    images = Ref(uri="u", digest="d", rows=1, bytes=1)
    for name in ("here", "there"):
        (tmp_path / name / "unet").mkdir(parents=True)
        (tmp_path / name / "unet" / "weights.safetensors").write_bytes(b"weights")
        (tmp_path / name / "model_index.json").write_text("{}")
    (tmp_path / "there" / ".cache").mkdir()
    (tmp_path / "there" / ".cache" / "when.json").write_text("yesterday")
    here, there = (diffusion_arguments(images, model=str(tmp_path / name)) for name in ("here", "there"))
    assert generate_diffusion.uri(**here) == generate_diffusion.uri(**there)
    assert str(tmp_path) not in str(generate_diffusion.recipe(**here))
    (tmp_path / "there" / "unet" / "weights.safetensors").write_bytes(b"others!")
    assert generate_diffusion.uri(**here) != generate_diffusion.uri(
        **diffusion_arguments(images, model=str(tmp_path / "there"))
    )


def test_models_are_told_apart_by_files_or_hub_id(tmp_path: Path) -> None:
    assert model_digest("someone/some-model") == "hub:someone/some-model"
    assert len(model_digest("tiny")) == 64
    with pytest.raises(MissingInput, match="no such directory"):
        model_digest(str(tmp_path / "missing"))


def test_a_contact_sheet_shows_pictures_row_by_row() -> None:
    pictures = [np.full((4, 6, 3), level, np.uint8) for level in (10, 20, 30)]
    page = decode_rgb(contact_sheet(pictures, columns=2))
    assert page.shape == (10, 14, 3)
    assert [int(page[y, x, 0]) for y, x in ((0, 0), (0, 8), (6, 0), (6, 8), (4, 0))] == [10, 20, 30, 255, 255]
    with pytest.raises(ValueError, match="needs pictures"):
        contact_sheet([], columns=2)


def test_a_sample_strip_has_eight_squares_at_most() -> None:
    strip = decode_rgb(sample_strip([noise(index, 300)[:, :150] for index in range(9)]))
    assert strip.shape == (128, 8 * 130 - 2, 3)


def test_embedded_pictures_stay_small() -> None:
    large = contact_sheet([noise(index) for index in range(64)], columns=8)
    assert len(large) > 200_000
    text = embedded(large, "sheet")
    assert text.startswith("![sheet](data:image/png;base64,iVBOR")
    assert len(text) < 200_000 * 4 / 3 + 100


def test_an_animation_has_a_frame_per_sheet() -> None:
    sheets = [contact_sheet([noise(index)] * 4, columns=2) for index in range(3)]
    with Image.open(io.BytesIO(animation(sheets))) as frames:
        assert (frames.n_frames, frames.size) == (3, (65, 65))  # type: ignore[attr-defined]
        assert frames.info["loop"] == 0


def test_outside_of_prefect_nothing_is_shown() -> None:
    show_in_prefect("sample", "a sample of nothing", "text")


def test_of_many_shards_in_a_run_the_first_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[str, str]] = []
    run = ["one"]
    monkeypatch.setattr("prefect.utilities.context.get_task_and_flow_run_ids", lambda: (None, run[0]))
    monkeypatch.setattr(sheets, "show_markdown", lambda key, markdown, description: shown.append((key, description)))
    for number in range(3):
        show_in_prefect("pictures-gan", f"generate/gan {number}", "text")
    run[0] = "two"
    show_in_prefect("pictures-gan", "generate/gan 3", "text")
    assert shown == [("pictures-gan", "generate/gan 0"), ("pictures-gan", "generate/gan 3")]


def test_the_device_is_named_by_its_class() -> None:
    assert compute_device() == ("cuda" if torch.cuda.is_available() else "cpu")
