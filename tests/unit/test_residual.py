"""Networks that see no picture but what a front end leaves of one: the front ends, their training, their windows."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch
from scipy.ndimage import generic_filter

from storage.errors import SpecError
from storage.local import LocalStore
from storage.objects import ROWS, Ref, commit, read_manifest
from storage.tables import IMAGE_SCHEMA
from tasks.checkpoints import write_checkpoint
from tasks.data.canonical import cropped_pictures
from tasks.data.encoding import decode_own_jpeg, encode_jpeg
from tasks.data.views import window_place
from tasks.networks import mobilenet
from tasks.networks.architecture import residual_architecture
from tasks.networks.exported import Detection, ExportedNetwork, mean_opinion
from tasks.networks.familiarity import Familiarity
from tasks.networks.fitting import learning_rate
from tasks.networks.front_ends import front_end, median_steps
from tasks.networks.mobilenet import Setting
from tasks.networks.mobilenet_network import MobileNet, initialise, network_tensors, prepare_picture
from tasks.networks.network_graph import build_graph
from tasks.networks.quantized_graph import activation_ranges, parsed_model, quantizable_stages, quantize_with
from tasks.networks.residual import train_residual
from tasks.networks.trained import TrainedNetwork
from tasks.networks.training_pictures import WINDOWS, Pictures, load_pictures, matched_pictures
from tasks.networks.variants import LEFT_OUT, rejection_scenarios, variants
from tasks.presets import parse_experiment
from tasks.spec.detectors import FrontEnd, Residual, StructurePruned, Training
from tasks.spec.experiment import Experiment
from tasks.spec.splits import FixedSplits
from tasks.spec.views import Canonical, View
from tests.unit.network_pictures import CLASSES, picture, row

FRONT_ENDS: tuple[FrontEnd, ...] = ("median", "wavelet", "nearest")
VIEW = View(path="crop", resolution=48)
TRAINING = Training(epochs=2, batch=8, learning_rate=1e-2, random_windows=32, schedule="one-cycle")
SPEC = Residual(name="traces", width=0.25, side=48, training=TRAINING)
SETTING = Setting(
    classes=CLASSES, rotation=0, splits=FixedSplits(), views=(VIEW,), device="cpu", seed=0, windows=2
)  # fmt: skip
CANONICAL = Canonical(side=48, qualities=((90, 1),))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def noise(side: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def as_tensor(pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float()


def by_definition(kind: FrontEnd, plane: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """What is left of one channel (h, w)."""
    if kind == "nearest":
        return plane - plane[::2, ::2].repeat(2, axis=0).repeat(2, axis=1)
    around = np.ones((3, 3), dtype=bool)
    around[1, 1] = False
    if kind == "median":
        medians: npt.NDArray[np.float64] = generic_filter(plane, np.median, footprint=around, mode="mirror")
        return plane - medians
    wide = np.pad(plane, ((0, 1), (0, 1)), mode="reflect")
    return np.array(
        [
            [
                (wide[y, x] - wide[y, x + 1] - wide[y + 1, x] + wide[y + 1, x + 1]) / 2
                for x in range(plane.shape[1])
            ]
            for y in range(plane.shape[0])
        ]
    )  # fmt: skip


@pytest.mark.parametrize("kind", FRONT_ENDS)
def test_a_front_end_leaves_what_its_definition_says(kind: FrontEnd) -> None:
    pixels = noise(16)
    left = front_end(kind, as_tensor(pixels))[0].numpy()
    for channel in range(3):
        assert left[channel] == pytest.approx(by_definition(kind, pixels[:, :, channel].astype(np.float64)))


@pytest.mark.parametrize("kind", FRONT_ENDS)
def test_of_a_flat_picture_nothing_is_left_and_brightness_does_not_matter(kind: FrontEnd) -> None:
    assert not front_end(kind, torch.full((1, 3, 16, 16), 77.0)).any()
    x = as_tensor(noise(16) // 2)
    assert torch.equal(front_end(kind, x), front_end(kind, x + 100))


def test_the_steps_find_the_two_middle_values_of_eight() -> None:
    steps, middle = median_steps()
    # Who sorts every sequence of zeros and ones sorts all sequences (Knuth, The Art of Computer Programming 3, 5.3.4).
    for given in itertools.product((0, 1), repeat=8):
        values = list(given)
        for kind, left, right in steps:
            values.append((min if kind == "minimum" else max)(values[left], values[right]))
        assert [values[place] for place in middle] == sorted(given)[3:5]


def residual_network(kind: FrontEnd, side: int = 48) -> TrainedNetwork:
    shape = residual_architecture(kind, 0.25, len(CLASSES), side)
    module = MobileNet(shape)
    initialise(module, 0)
    random = np.random.default_rng(0)
    familiarity = Familiarity(
        random.normal(size=shape.last).astype(np.float32),
        random.normal(size=(shape.last, 4)).astype(np.float32),
        random.normal(size=(len(CLASSES), 4)).astype(np.float32),
    )
    return TrainedNetwork(shape, network_tensors(module), CLASSES, 1.0, familiarity)


def logits_of(trained: TrainedNetwork, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    from tasks.networks.mobilenet_network import load_network

    with torch.inference_mode():
        logits: npt.NDArray[np.float32] = load_network(trained.shape, trained.tensors)(
            prepare_picture(pixels, trained.shape.side)[None]
        )[0].numpy()
    return logits


@pytest.mark.parametrize("kind", FRONT_ENDS)
def test_the_exported_file_holds_the_front_end(kind: FrontEnd) -> None:
    trained = residual_network(kind)
    network = ExportedNetwork(build_graph(trained))
    for seed in range(3):
        window = noise(48, seed)
        assert network.detect(window).logits == pytest.approx(logits_of(trained, window), rel=1e-4, abs=1e-4)


def test_of_a_larger_picture_the_exported_file_sees_the_centre_as_it_is() -> None:
    network = ExportedNetwork(build_graph(residual_network("median")))
    large = noise(100)
    assert np.array_equal(network.detect(large).logits, network.detect(large[26:74, 26:74]).logits)


@pytest.mark.parametrize("kind", FRONT_ENDS)
def test_eight_bits_answer_nearly_as_floats_do(kind: FrontEnd) -> None:
    model = build_graph(residual_network(kind))
    pictures = [picture("gan", number)[:48, :48] for number in range(8)]
    quantized = ExportedNetwork(quantize_with(model, activation_ranges(model, pictures)))
    for pixels in pictures:
        expected = ExportedNetwork(model).detect(pixels).probabilities
        assert quantized.detect(pixels).probabilities == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("kind", FRONT_ENDS)
def test_whole_numbers_before_the_first_stage_change_no_answer(kind: FrontEnd) -> None:
    model = build_graph(residual_network(kind))
    pictures = [noise(48, seed) for seed in range(4)]
    stages = quantizable_stages(parsed_model(model))
    rounded = ExportedNetwork(quantize_with(model, activation_ranges(model, pictures), stages))
    for pixels in pictures:
        assert rounded.detect(pixels).logits == pytest.approx(ExportedNetwork(model).detect(pixels).logits, abs=5e-3)


def shards(store: LocalStore, train: int = 6, val: int = 4) -> tuple[Ref, ...]:
    made = []
    for source in ("coco", "gan", "stable"):
        rows = [
            row(source, number, place) | {"jpeg_quality": 90}
            for number, place in enumerate(["train"] * train + ["val"] * val)
        ]
        parts = {ROWS: pa.Table.from_pylist(rows, schema=IMAGE_SCHEMA)}
        images = commit(store, f"objects/shard/{source}", step="shard", digest=source, recipe={}, parts=parts)
        ref, _ = cropped_pictures.compute(
            store, images=images, canonical=CANONICAL, enlarge=False, source=source, shard=0
        )
        made.append(ref)
    return tuple(made)


def train(store: LocalStore, spec: Residual = SPEC) -> tuple[Ref, bool]:
    ref, cached = train_residual.compute(store, spec=spec, setting=SETTING, images=shards(store))
    return ref, cached


def test_a_network_is_trained_on_windows_and_says_of_how_many_it_forms_an_opinion(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    ref, _ = train(store)
    trained = TrainedNetwork.load(store, ref)
    assert trained.shape.front_end == "median"
    assert trained.about["windows"] == 2
    assert trained.about["pictures"] == {name: [6, 4] for name in CLASSES}
    assert len(trained.tensors) == len(residual_network("median").tensors)


def test_a_training_that_was_interrupted_ends_with_the_same_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = LocalStore(tmp_path / "whole"), LocalStore(tmp_path / "broken")
    expected, _ = train(whole)

    def lost(*given: Any) -> None:
        write_checkpoint(*given)
        raise ConnectionError("the worker was lost")

    with monkeypatch.context() as patch:
        patch.setattr(mobilenet, "write_checkpoint", lost)
        with pytest.raises(ConnectionError):
            train(broken)
    ref, _ = train(broken)
    assert read_manifest(broken, ref.uri).content == read_manifest(whole, expected.uri).content


def windowed(store: LocalStore) -> Pictures:
    return load_pictures(store, shards(store), "train", 0, FixedSplits(), CLASSES, VIEW, windows=True)


def test_windows_are_pixels_of_the_picture_after_one_encoding(tmp_path: Path) -> None:
    pictures = windowed(LocalStore(tmp_path))
    assert [len(of) for of in pictures.windows] == [WINDOWS] * len(pictures)
    for index in (0, len(pictures) - 1):
        first = decode_own_jpeg(pictures.windows[index][0])
        assert np.array_equal(first, pictures.pixels(index, VIEW))
        original = picture(pictures.sources[index], int(pictures.ids[index]))
        height, width = original.shape[:2]
        top, left = window_place(pictures.ids[index], 0, height, width, 48)
        assert np.abs(first.astype(int) - original[top : top + 48, left : left + 48]).mean() < 5


def test_a_photograph_and_its_reconstruction_take_the_same_draws_and_follow_one_another() -> None:
    numbers = np.tile(np.arange(256, dtype=np.uint8), (48, 1))[:, :48]
    file = encode_jpeg(np.stack([numbers, numbers.T, numbers], axis=2), 100)
    pictures = Pictures(
        ids=("a", "b", "a", "c", "c"),
        sources=("town", "town", "decoded", "town-as-one", "town-as-two"),
        groups=("a", "b", "a", "c", "c"),
        classes=np.array([0, 0, 1, 0, 0]),
        canonical=(file,) * 5,
        windows=((file,) * WINDOWS,) * 5,
    )
    assert matched_pictures(pictures) == ((0, 2), (1,), (3,), (4,))
    for seed in range(8):
        assert np.array_equal(pictures.random_window(0, 32, seed), pictures.random_window(2, 32, seed))
    assert any(
        not np.array_equal(pictures.random_window(0, 32, seed), pictures.random_window(1, 32, seed))
        for seed in range(8)
    )


def test_random_windows_follow_from_the_seed_and_keep_the_grid_of_their_encoding(tmp_path: Path) -> None:
    pictures = windowed(LocalStore(tmp_path))
    drawn = [pictures.random_window(0, 32, seed) for seed in range(12)]
    assert all(np.array_equal(one, pictures.random_window(0, 32, seed)) for seed, one in enumerate(drawn))
    assert len({one.tobytes() for one in drawn}) == len(drawn)
    windows = [decode_own_jpeg(file) for file in pictures.windows[0]]
    parts = {
        turned.tobytes()
        for window in windows
        for top, left in itertools.product((0, 8, 16), repeat=2)
        for part in [window[top : top + 32, left : left + 32]]
        for turned in (part, part[::-1], part[:, ::-1], part[::-1, ::-1])
    }
    kept = sum(np.ascontiguousarray(one).tobytes() in parts for one in drawn)
    assert 0 < kept < len(drawn), "some were encoded once more, and no other one is moved against its grid"


def test_the_rate_of_one_cycle_rises_and_falls_to_nothing() -> None:
    rates = [learning_rate(TRAINING, step, 100) for step in range(1, 101)]
    assert max(rates) == rates[14] == pytest.approx(TRAINING.learning_rate)
    assert rates[:15] == sorted(rates[:15])
    assert rates[14:] == sorted(rates[14:], reverse=True)
    assert rates[-1] == pytest.approx(0, abs=1e-9)
    assert {learning_rate(Training(), step, 100) for step in range(1, 101)} == {Training().learning_rate}


def test_an_opinion_is_that_of_the_mean_logits_of_all_windows() -> None:
    def found(*logits: float) -> Detection:
        values = np.array(logits, dtype=np.float32)
        return Detection(
            values, values, np.array([0.5, logits[0], -1], dtype=np.float32), np.zeros((2, 1, 1), np.float32)
        )

    both = mean_opinion([found(1, 3), found(3, 1)], 2.0)
    assert both.logits.tolist() == [2, 2]
    assert both.probabilities.tolist() == [0.5, 0.5]
    assert both.familiarity.tolist() == [0.5, 2, -1]
    sure = mean_opinion([found(4, 0), found(2, 0)], 2.0)
    assert sure.probabilities[0] == pytest.approx(1 / (1 + np.exp(-1.5)))


def test_one_window_is_an_opinion_of_its_own() -> None:
    network = ExportedNetwork(build_graph(residual_network("median")))
    window = noise(48)
    assert np.array_equal(network.opinion([window]).probabilities, network.detect(window).probabilities)


def experiment(**changes: Any) -> Experiment:
    network = {"kind": "residual", "name": "traces", "side": 48, "left_out": True, "training": {"random_windows": 32}}
    document: dict[str, Any] = {
        "name": "windows",
        "path": "crop",
        "sources": [
            {"kind": "folder", "name": name, "path": f"/{name}", "label": label}
            for name, label in (("town", "real"), ("a", "fake"), ("b", "fake"), ("c", "fake"))
        ],
        "families": {"both": ["a", "b"]},
        "splits": {"kind": "folds", "count": 3},
        "resolutions": [48],
        "mobile": {"windows": 2, "networks": [network | changes.pop("network", {})]},
    }
    return parse_experiment(document | changes)


def test_a_family_is_left_out_as_a_whole() -> None:
    spec = experiment()
    assert [(variant.absent, variant.classes) for variant in variants(spec)] == [
        (None, ("real", "a", "b", "c")),
        ("both", ("real", "c")),
        ("c", ("real", "a", "b")),
    ]
    assert rejection_scenarios(spec) == ((LEFT_OUT, "both"), (LEFT_OUT, "c"))
    whole = experiment(network={"left_out": False})
    assert len(variants(whole)) == 1
    assert rejection_scenarios(whole) == ()


def test_nothing_is_scaled_for_a_network_on_the_crop_path() -> None:
    with pytest.raises(SpecError, match="nothing is scaled on the path crop: expected the one resolution 64"):
        experiment(network={"side": 64})
    with pytest.raises(SpecError, match="expected the one resolution 48, got 48, 64"):
        experiment(resolutions=[48, 64])
    tuned = {"kind": "fine-tuned", "name": "dense", "weights": "random:0"}
    with pytest.raises(SpecError, match="dense sees pictures of 224 pixels"):
        experiment(mobile={"networks": [tuned]})


def test_no_random_window_is_larger_than_the_windows_that_it_is_part_of() -> None:
    with pytest.raises(SpecError, match="traces is trained on parts of 64 pixels, expected at most 48"):
        experiment(network={"training": {"random_windows": 64}})


def test_windows_are_of_the_crop_path() -> None:
    with pytest.raises(SpecError, match="traces is trained on windows, which are of the path crop"):
        experiment(path="fair")
    training = {"epochs": 1, "random_windows": None}
    with pytest.raises(SpecError, match="mobile: it has 2 windows, which are of the path crop"):
        experiment(path="fair", network={"training": training})


def test_a_training_that_is_named_in_part_keeps_what_its_kind_has_of_the_rest() -> None:
    whole = Residual(name="a").training
    partly = Residual.model_validate({"name": "a", "training": {"epochs": 60}}).training
    assert partly == whole.model_copy(update={"epochs": 60})
    assert StructurePruned.model_validate(
        {"name": "b", "of": "a", "macs": 0.5, "training": {"epochs": 2}}
    ).training == Training(epochs=2, learning_rate=1e-4)
