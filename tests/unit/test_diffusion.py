"""Pictures of a text-to-image pipeline: one seed each, whatever they are made with, and failures by the picture."""

import dataclasses
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from storage.errors import MissingInput, SpecError
from tasks.data.sample_photographs import SAMPLE_SPLITS, read_photograph
from tasks.generators import sampling, tiny_diffusion, tiny_model
from tasks.generators.diffusion import (
    ATTEMPTS,
    GeneratedPicture,
    PictureRequest,
    generate_images,
    load_pipeline,
    make_fast,
    prompt_of,
    seed_of,
)
from tasks.generators.sampling import BatchSize, Sampler, generators_of, initial_latents, picture_error
from tasks.generators.tiny_diffusion import TrainingPlan
from tasks.generators.tiny_model import SHIPPED_WEIGHTS, byte_pair_merges, make_tokenizer
from tasks.spec.generators import DiffusionSpec

SPEC = DiffusionSpec(model="tiny", steps=4, guidance=3.0, side=64, batch=3)
REQUESTS = [
    PictureRequest("a", "a photograph of an astronaut in orange and white"),
    PictureRequest("b", "a close-up of a spoon on a red saucer"),
    PictureRequest("c", "a rocket on its launch pad at dusk seen as a whole"),
    PictureRequest("d", "a tabby cat"),
]


@pytest.fixture(scope="module")
def tiny() -> Any:
    return load_pipeline(SPEC, "cpu")


class FakePipeline:
    """Answers each call with the pictures that `paint` makes of (prompt, seed)."""

    def __init__(self, paint: Any) -> None:
        self.paint = paint
        self.calls: list[list[str]] = []

    def __call__(self, prompts: list[str], *, generator: list[torch.Generator], **_: Any) -> SimpleNamespace:
        self.calls.append(prompts)
        pictures = [self.paint(p, g.initial_seed()) for p, g in zip(prompts, generator, strict=True)]
        return SimpleNamespace(images=np.stack(pictures))


def grey(level: float) -> np.ndarray:
    return np.full((64, 64, 3), level, dtype=np.float32)


def pixels_of(picture: GeneratedPicture) -> np.ndarray:
    """The pixels as float; fails where there are none."""
    assert picture.pixels is not None
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.shape == (64, 64, 3)
    return picture.pixels.astype(float)


def by_id(pictures: Any) -> dict[str, GeneratedPicture]:
    return {picture.image_id: picture for picture in pictures}


def test_pictures_are_equal_within_one_level_whatever_the_batch(tiny: Any) -> None:
    together = by_id(generate_images(Sampler(tiny, SPEC), "digest", REQUESTS))
    alone = by_id(generate_images(Sampler(tiny, SPEC.model_copy(update={"batch": 1})), "digest", REQUESTS[::-1]))
    assert list(together) == ["a", "b", "c", "d"]
    for image_id, picture in together.items():
        assert picture.seed == alone[image_id].seed
        assert np.abs(pixels_of(picture) - pixels_of(alone[image_id])).max() <= 1


def test_another_spec_digest_gives_another_picture(tiny: Any) -> None:
    (one,) = generate_images(Sampler(tiny, SPEC), "digest", REQUESTS[:1])
    (two,) = generate_images(Sampler(tiny, SPEC), "other digest", REQUESTS[:1])
    assert one.seed != two.seed
    assert not np.array_equal(pixels_of(one), pixels_of(two))


def test_a_scheduler_of_the_spec_replaces_the_models_own() -> None:
    spec = SPEC.model_copy(update={"scheduler": "DDPMScheduler"})
    pipeline = load_pipeline(spec, "cpu")
    assert type(pipeline.scheduler).__name__ == "DDPMScheduler"
    # This scheduler draws noise at every step; that too comes from each picture's own generator.
    together = by_id(generate_images(Sampler(pipeline, spec), "digest", REQUESTS[:3]))
    (alone,) = generate_images(Sampler(pipeline, spec), "digest", REQUESTS[2:3])
    assert np.abs(pixels_of(together["c"]) - pixels_of(alone)).max() <= 1


def test_initial_noise_is_bit_equal_in_every_batch_and_precision() -> None:
    shape = (4, 16, 16)
    batch = initial_latents(generators_of([1, 2, 3]), shape, torch.float32)
    assert batch.shape == (3, *shape)
    for row, seed in zip(batch, [1, 2, 3], strict=True):
        assert torch.equal(row, initial_latents(generators_of([seed]), shape, torch.float32)[0])
    half = initial_latents(generators_of([1, 2, 3]), shape, torch.float16)
    assert torch.equal(half, batch.half())


def test_an_all_black_picture_is_retried_with_the_next_seed_and_only_that_one() -> None:
    first_seed = seed_of("digest", "b", 0)
    pipeline = FakePipeline(lambda prompt, seed: grey(0.0 if seed == first_seed else 0.5))
    pictures = list(generate_images(Sampler(pipeline, SPEC), "digest", REQUESTS))
    assert [picture.image_id for picture in pictures] == ["a", "b", "c", "d"]
    assert [picture.attempts for picture in pictures] == [1, 2, 1, 1]
    assert pictures[1].seed == seed_of("digest", "b", 1)
    assert pictures[1].error is None
    assert [len(call) for call in pipeline.calls] == [3, 1, 1]


@pytest.mark.parametrize(("level", "reason"), [(0.0, "all-black"), (float("nan"), "not-finite")])
def test_a_picture_that_fails_every_time_is_an_error_without_pixels(level: float, reason: str) -> None:
    pipeline = FakePipeline(lambda prompt, seed: grey(level if prompt == REQUESTS[0].prompt else 1.0))
    pictures = list(generate_images(Sampler(pipeline, SPEC), "digest", REQUESTS[:2]))
    assert pictures[0].error == reason
    assert pictures[0].pixels is None
    assert pictures[0].attempts == ATTEMPTS
    assert pictures[1].error is None
    assert pictures[1].pixels is not None
    assert pictures[1].pixels.max() == 255


def test_one_lit_pixel_is_no_error() -> None:
    picture = grey(0.0)
    picture[3, 5, 1] = 1.0
    assert picture_error(picture) is None


class SmallMemory:
    """A network that fits at most `rows` rows into the device's memory at a time, and counts what it was asked."""

    def __init__(self, network: Any, rows: int) -> None:
        self.network = network
        self.rows = rows
        self.asked: list[int] = []

    def __call__(self, module: Any, arguments: tuple[Any, ...]) -> None:
        self.asked.append(len(arguments[0]))
        if len(arguments[0]) > self.rows:
            raise torch.OutOfMemoryError("CUDA out of memory (simulated)")

    def __enter__(self) -> "SmallMemory":
        self.hook = self.network.register_forward_pre_hook(self)
        return self

    def __exit__(self, *error: object) -> None:
        self.hook.remove()


def test_a_batch_that_does_not_fit_is_halved_which_is_remembered_and_changes_no_picture(tiny: Any) -> None:
    spec = SPEC.model_copy(update={"batch": 4, "steps": 2})
    expected = by_id(generate_images(Sampler(tiny, spec), "digest", REQUESTS))
    requests = REQUESTS + [PictureRequest(f"again {r.image_id}", r.prompt) for r in REQUESTS]
    batch = BatchSize(spec.batch)
    # With guidance each picture is two rows: two pictures fit.
    with SmallMemory(tiny.unet, rows=4) as memory:
        found = by_id(generate_images(Sampler(tiny, spec), "digest", requests, batch))
    assert (batch.size, batch.failures) == (2, 1)
    assert memory.asked == [8] + [4] * 2 * 4
    assert list(found) == [request.image_id for request in requests]
    for image_id, picture in expected.items():
        assert found[image_id].seed == picture.seed
        assert np.abs(pixels_of(found[image_id]) - pixels_of(picture)).max() <= 1


def test_a_single_picture_that_does_not_fit_twice_is_given_up(tiny: Any) -> None:
    for start, asked in ((4, [8, 4, 2]), (1, [2, 2])):
        spec = SPEC.model_copy(update={"batch": start, "steps": 1})
        with SmallMemory(tiny.unet, rows=1) as memory, pytest.raises(torch.OutOfMemoryError):
            list(generate_images(Sampler(tiny, spec), "digest", REQUESTS))
        assert memory.asked == asked


def test_each_distinct_prompt_is_embedded_once_and_so_is_the_empty_one(tiny: Any) -> None:
    spec = SPEC.model_copy(update={"steps": 1, "batch": 2})
    requests = [PictureRequest(str(n), request.prompt) for n, request in enumerate(REQUESTS * 2)]
    with SmallMemory(tiny.text_encoder.embeddings.token_embedding, rows=99) as counted:
        list(generate_images(Sampler(tiny, spec), "digest", requests))
    assert sum(counted.asked) == len(REQUESTS) + 1


def test_a_large_batch_is_decoded_in_pieces_to_the_same_pictures(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SPEC.model_copy(update={"steps": 1, "batch": 4})
    whole = by_id(generate_images(Sampler(tiny, spec), "digest", REQUESTS))
    monkeypatch.setattr(sampling, "DECODED_PIXELS", 3 * 64**2)
    with SmallMemory(tiny.vae.decoder, rows=3) as decoder:
        pieces = by_id(generate_images(Sampler(tiny, spec), "digest", REQUESTS))
    assert decoder.asked == [3, 1]
    for image_id, picture in whole.items():
        assert np.abs(pixels_of(picture) - pixels_of(pieces[image_id])).max() <= 1


def test_latents_that_are_not_finite_or_dark_are_errors_of_their_picture(tiny: Any, monkeypatch: Any) -> None:
    spec = SPEC.model_copy(update={"steps": 1, "batch": 4})
    decode = tiny.vae.decode

    def spoilt(latents: torch.Tensor, **options: Any) -> tuple[torch.Tensor]:
        decoded = decode(latents, **options)[0].clone()
        decoded[0], decoded[1, 0, 0, 0] = -1.0, float("nan")
        return (decoded,)

    monkeypatch.setattr(tiny.vae, "decode", spoilt)
    samples = Sampler(tiny, spec).sample([request.prompt for request in REQUESTS], [1, 2, 3, 4])
    assert [sample.error for sample in samples] == ["all-black", "not-finite", None, None]
    assert [sample.pixels is None for sample in samples] == [True, True, False, False]


def test_a_compiled_network_always_gets_full_batches(tiny: Any) -> None:
    spec = SPEC.model_copy(update={"steps": 1, "batch": 3, "compile": True})
    with SmallMemory(tiny.unet, rows=99) as counted:
        padded = by_id(generate_images(Sampler(tiny, spec), "digest", REQUESTS))
    assert counted.asked == [6, 6]
    plain = by_id(generate_images(Sampler(tiny, spec.model_copy(update={"compile": False})), "digest", REQUESTS))
    assert list(padded) == list(plain)
    for image_id, picture in plain.items():
        assert np.abs(pixels_of(picture) - pixels_of(padded[image_id])).max() <= 1


def test_what_is_done_for_speed_is_in_no_specification_that_decides() -> None:
    compiled = SPEC.model_copy(update={"compile": True})
    assert compiled.model_dump(mode="json") == SPEC.model_dump(mode="json")
    assert DiffusionSpec.model_validate({"model": "tiny", "compile": True}).compile


def test_networks_are_laid_out_for_a_gpu_and_compiled_only_where_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = load_pipeline(SPEC, "cpu")
    expected = by_id(generate_images(Sampler(pipeline, SPEC), "digest", REQUESTS[:1]))
    compiled: list[str] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda network: compiled.append(type(network).__name__))
    make_fast(pipeline, compiled=False)
    assert compiled == []
    for network in (pipeline.unet, pipeline.vae):
        kernels = [parameter for parameter in network.parameters() if parameter.dim() == 4]
        assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)
    assert "AttnProcessor2_0" in {type(processor).__name__ for processor in pipeline.unet.attn_processors.values()}
    found = by_id(generate_images(Sampler(pipeline, SPEC), "digest", REQUESTS[:1]))
    assert np.abs(pixels_of(expected["a"]) - pixels_of(found["a"])).max() <= 1
    make_fast(pipeline, compiled=True)
    assert compiled == ["UNet2DConditionModel", "Decoder"]


def test_prompts_are_the_first_caption_or_the_category_names_once_each() -> None:
    captions = ["A cat on a table. ", "A table."]
    categories = ["cat", "dining table", "cat"]
    assert prompt_of(captions, categories, "captions") == "A cat on a table."
    assert prompt_of(captions, categories, "categories") == "cat, dining table"
    assert prompt_of([], [], "captions") == ""
    assert prompt_of(captions, [], "categories") == ""


@given(st.text(max_size=20), st.text(max_size=20), st.integers(0, 5))
def test_seeds_fit_a_signed_64_bit_column_and_differ_by_attempt(digest: str, image_id: str, attempt: int) -> None:
    seed = seed_of(digest, image_id, attempt)
    assert 0 <= seed < 2**63
    assert seed == seed_of(digest, image_id, attempt)
    assert seed != seed_of(digest, image_id, attempt + 1)


def test_a_missing_directory_is_named_with_its_remedy(tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"model": str(tmp_path / "absent")})
    with pytest.raises(MissingInput, match=r"absent.*model_index\.json.*hub id"):
        load_pipeline(spec, "cpu")


def test_a_hub_model_that_cannot_be_had_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    spec = SPEC.model_copy(update={"model": "nobody/no-such-model"})
    with pytest.raises(MissingInput, match=r"nobody/no-such-model.*hf download"):
        load_pipeline(spec, "cpu")


def test_a_local_directory_gives_the_same_pictures_as_the_name_tiny(tiny: Any) -> None:
    spec = SPEC.model_copy(update={"model": str(SHIPPED_WEIGHTS)})
    pipeline = load_pipeline(spec, "cpu")
    assert pipeline.safety_checker is None
    (here,) = generate_images(Sampler(pipeline, spec), "digest", REQUESTS[:1])
    (there,) = generate_images(Sampler(tiny, SPEC), "digest", REQUESTS[:1])
    np.testing.assert_array_equal(here.pixels, there.pixels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scheduler": "NoSuchScheduler"}, "scheduler"),
        ({"scheduler": "AutoencoderKL"}, "scheduler"),
        ({"side": 70}, "70"),
    ],
)
def test_a_spec_that_the_model_cannot_follow_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load_pipeline(SPEC.model_copy(update=change), "cpu")


def test_a_missing_gpu_is_named() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(MissingInput, match="CUDA"):
        load_pipeline(SPEC, "cuda")


def test_the_shipped_model_is_small_and_its_card_names_train_photographs_only() -> None:
    files = [path for path in SHIPPED_WEIGHTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 3_000_000
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    card = json.loads((SHIPPED_WEIGHTS / "card.json").read_text(encoding="utf-8"))
    assert {SAMPLE_SPLITS[name] for name in card["train_groups"]} == {"train"}
    assert card["plan"] == dataclasses.asdict(TrainingPlan())


def test_shipped_pictures_are_pictures_and_depend_on_the_prompt(tiny: Any) -> None:
    spec = SPEC.model_copy(update={"steps": 20})
    requests = [PictureRequest(str(n), request.prompt) for n, request in enumerate(REQUESTS[:3] * 2)]
    pictures = [pixels_of(p) for p in generate_images(Sampler(tiny, spec), "digest", requests)]
    correlations = [
        np.corrcoef(first.ravel(), second.ravel())[0, 1]
        for picture in pictures
        for first, second in ((picture[:, 1:], picture[:, :-1]), (picture[1:], picture[:-1]))
    ]
    assert np.mean(correlations) >= 0.8
    colours = np.array([picture.mean(axis=(0, 1)) for picture in pictures])
    within = np.abs(colours[:3] - colours[3:]).mean()
    between = np.mean([np.abs(colours[i] - colours[j]).mean() for i in range(3) for j in range(3) if i != j])
    assert between > within


def test_training_crops_are_of_train_photographs_and_repeat_with_their_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def watched(name: str) -> Image.Image:
        read.append(name)
        return read_photograph(name)

    monkeypatch.setattr(tiny_diffusion, "read_photograph", watched)
    pixels, captions = tiny_diffusion.cut_training_crops(8, seed=5)
    assert {SAMPLE_SPLITS[name] for name in read} == {"train"}
    assert pixels.shape == (8, 64, 64, 3)
    assert len(captions) == 8
    np.testing.assert_array_equal(pixels, tiny_diffusion.cut_training_crops(8, seed=5)[0])


def test_every_known_word_is_one_token_and_other_words_are_spelt() -> None:
    tokenizer = make_tokenizer(["an orange rail", "a camera near rails", "a close-up"])
    assert tokenizer.tokenize("a camera near rails close-up") == [
        *("a</w>", "camera</w>", "near</w>", "rails</w>", "close</w>", "-</w>", "up</w>")
    ]
    assert len(tokenizer.tokenize("cat")) > 1
    padded = tokenizer("an orange", padding="max_length", return_tensors="np").input_ids[0]
    assert len(padded) == tiny_model.TOKENS
    assert padded[0] == tokenizer.bos_token_id
    assert padded[-1] == tokenizer.eos_token_id


def test_merges_are_applied_most_frequent_first() -> None:
    merges = byte_pair_merges(Counter({"low": 5, "lot": 2}))
    assert merges[0] == ("l", "o")
    assert merges[1:] == [("lo", "w</w>"), ("lo", "t</w>")]


def test_training_writes_a_pipeline_that_loads_and_repeats_with_its_seed(tmp_path: Path) -> None:
    plan = TrainingPlan(seed=3, crops=8, autoencoder_steps=2, autoencoder_batch=2, unet_steps=2, unet_batch=2)
    first = tiny_diffusion.train(tmp_path / "first", plan, "command")
    second = tiny_diffusion.train(tmp_path / "second", plan, "command")
    assert first["unet_losses"] == second["unet_losses"]
    weights = Path("unet", "diffusion_pytorch_model.safetensors")
    assert (tmp_path / "first" / weights).read_bytes() == (tmp_path / "second" / weights).read_bytes()
    pipeline = tiny_model.load_tiny_pipeline(tmp_path / "first")
    assert pipeline.unet.dtype == torch.float32


def test_normalised_latents_decode_to_the_same_pictures() -> None:
    torch.manual_seed(0)
    autoencoder, _, _ = tiny_model.make_models(make_tokenizer(["a word"]))
    pixels = torch.rand(4, 3, 64, 64) * 2 - 1
    before = tiny_diffusion.encode_latents(autoencoder, pixels)
    with torch.no_grad():
        decoded = autoencoder.decode(before).sample
        normal = tiny_diffusion.normalise_latents(autoencoder, before)
        torch.testing.assert_close(tiny_diffusion.encode_latents(autoencoder, pixels), normal, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(autoencoder.decode(normal).sample, decoded, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(normal.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(normal.std(dim=(0, 2, 3)), torch.ones(4), atol=1e-4, rtol=0)


def test_a_directory_without_the_tiny_model_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match=r"tiny_diffusion train --out"):
        tiny_model.load_tiny_pipeline(tmp_path)
