"""Training a network: what is trained, resuming, early stopping, divergence, weights of pictures, drawn views."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from storage.errors import TrainingFailed
from storage.local import LocalStore
from tasks import pieces
from tasks.checkpoints import (
    Checkpoint,
    checkpoint_bytes,
    newest_checkpoint,
    optimiser_tensors,
    parse_checkpoint,
    restore_optimiser,
)
from tasks.data.pictures import Pixels
from tasks.device import full_precision
from tasks.networks import fitting
from tasks.networks.architecture import Architecture, Block
from tasks.networks.fitting import (
    HISTORY_COLUMNS,
    Data,
    Fit,
    Loss,
    fit,
    history_table,
    label_loss,
    outputs,
    picture_weights,
)
from tasks.networks.mobilenet import fit_resumably, is_trained
from tasks.networks.mobilenet_network import MobileNet, channels_last, folded, initialise, network_tensors
from tasks.networks.training_pictures import Pictures
from tasks.recipe import StepRun
from tasks.spec.detectors import FineTuned, Training
from tasks.spec.views import View
from tasks.threads import in_order
from tests.unit.network_pictures import VIEWS, data, pictures

# A MobileNetV2 in small: every kind of stage, but few of them.
SHAPE = Architecture(
    side=32,
    stem=8,
    blocks=(
        Block(expands=False, expanded=8, channels=8, stride=1, residual=False),
        Block(expands=True, expanded=24, channels=16, stride=2, residual=False),
        Block(expands=True, expanded=32, channels=16, stride=1, residual=True),
        Block(expands=True, expanded=32, channels=16, stride=2, residual=False),
    ),
    last=64,
    hidden=(16,),
    classes=3,
)
QUICK = Training(epochs=4, batch=4, learning_rate=1e-3)
STEPS = 4  # of an epoch: 15 pictures in batches of 4
AUGMENTED = QUICK.model_copy(update={"augmented": True})
LAST_8 = is_trained(SHAPE, FineTuned(name="dense", unlocked=8))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def small() -> Data:
    return data()


def network(batch_norm: bool = False, seed: int = 0) -> MobileNet:
    made = MobileNet(SHAPE, batch_norm)
    initialise(made, seed)
    return channels_last(made)


def assert_equal_fits(one: Fit, other: Fit) -> None:
    assert one.kept_epoch == other.kept_epoch
    assert np.array_equal(one.history, other.history)
    assert one.tensors.keys() == other.tensors.keys()
    for name, tensor in one.tensors.items():
        assert tensor.tobytes() == other.tensors[name].tobytes(), name


def failing_at(step: int, pictures: Pictures, value: float = float("nan")) -> Loss:
    """The loss of labels, but for one step, counted from 1 over all epochs."""
    usual, done = label_loss(pictures, True, "cpu"), [0]

    def loss(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        done[0] += 1
        return usual(logits, rows) * (value if done[0] == step else 1.0)

    return loss


def test_a_training_learns_its_pictures_and_gives_a_row_per_epoch(small: Data) -> None:
    fitted = fit(network(), small, Training(epochs=10, batch=8, learning_rate=3e-3, patience=10), seed=0)
    assert fitted.history.shape == (10, len(HISTORY_COLUMNS))
    assert fitted.history[:, 0].tolist() == list(range(1, 11))
    assert fitted.history[-1, 1] < 0.5 * fitted.history[0, 1]
    assert fitted.history[-1, 2] > 0.8
    assert fitted.kept_epoch == 1 + fitted.history[:, 3].argmin()
    table = history_table(fitted.history)
    assert tuple(table.column_names) == HISTORY_COLUMNS
    assert table["epoch"].to_pylist() == list(range(1, 11))


def shown(pictures: Pictures, count: int) -> list[Callable[[], Pixels]]:
    return [partial(pictures.pixels, row, VIEWS[0]) for row in range(count)]


def test_the_first_step_is_adams_on_the_weighted_cross_entropy(small: Data) -> None:
    count = len(small.train)
    trained, expected = network(), network()
    fitted = fit(trained, small, Training(epochs=1, batch=count), seed=0)
    (inputs,) = fitting._inputs([shown(small.train, count)], 32, "cpu")
    losses = cross_entropy(expected(inputs), torch.from_numpy(small.train.classes), reduction="none")
    loss = (losses * torch.from_numpy(picture_weights(small.train, True)).float()).mean()
    adam = torch.optim.Adam(expected.parameters(), lr=1e-3)
    loss.backward()
    adam.step()
    assert fitted.history[0, 1] == pytest.approx(float(loss.detach()), rel=1e-5)
    # Adam's first step is lr times the gradient's sign: gradients near 0 have no sign to compare.
    gradients = {name: parameter.grad for name, parameter in expected.named_parameters()}
    for name, parameter in expected.named_parameters():
        gradient = gradients[name]
        assert gradient is not None
        clear = gradient.abs() > 1e-4
        difference = (parameter.detach() - torch.from_numpy(fitted.tensors[name]))[clear].abs()
        assert difference.numel() == 0 or float(difference.max()) < 2e-5, name


def test_frozen_layers_keep_their_bits_and_unlocked_ones_change(small: Data) -> None:
    before = network_tensors(network())
    after = fit(network(), small, QUICK, seed=0, trained=LAST_8, keep_last=True).tensors
    for name, tensor in before.items():
        assert (tensor.tobytes() == after[name].tobytes()) != LAST_8(name), name
    assert not LAST_8("stages.0.stem.convolution.weight")
    assert LAST_8("stages.4.depthwise.convolution.bias")


def test_keeping_what_frozen_stages_make_gives_the_same_training(small: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = fit(network(), small, QUICK, seed=0, trained=LAST_8)
    monkeypatch.setattr(fitting, "FROZEN_BYTES", 0)
    anew = fit(network(), small, QUICK, seed=0, trained=LAST_8)
    np.testing.assert_allclose(kept.history, anew.history, atol=1e-5)
    for name, tensor in kept.tensors.items():
        np.testing.assert_allclose(tensor, anew.tensors[name], atol=1e-5, err_msg=name)


def test_what_frozen_stages_make_is_computed_once_per_picture(small: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = recorded(monkeypatch)
    fit(network(), small, QUICK, seed=0, trained=lambda name: name.startswith("head."))
    assert len(seen) == len(small.train) + len(small.val)


@pytest.mark.parametrize(
    ("options", "training", "batch_norm"),
    [({}, QUICK, False), ({"trained": LAST_8}, QUICK, False), ({"keep_last": True}, AUGMENTED, True)],
    ids=["all layers", "last layers", "augmented, batch norm"],
)
@pytest.mark.parametrize("stopped_after", [1, 3])
def test_resuming_gives_the_same_bits_as_not_stopping(
    options: dict[str, Any], training: Training, batch_norm: bool, stopped_after: int
) -> None:
    pictures = data(views=VIEWS if training.augmented else VIEWS[:1])
    kept: dict[int, bytes] = {}

    def keep(state: Checkpoint) -> None:
        kept[state.epoch] = checkpoint_bytes(state)

    whole = fit(network(batch_norm), pictures, training, seed=0, after_epoch=keep, **options)
    torch.manual_seed(99)
    resume = parse_checkpoint(kept[stopped_after])
    resumed = fit(network(batch_norm), pictures, training, seed=0, resume=resume, **options)
    assert_equal_fits(resumed, whole)


@pytest.mark.parametrize(
    ("options", "training", "batch_norm"),
    [({}, QUICK, False), ({"trained": LAST_8}, QUICK, False), ({"keep_last": True}, AUGMENTED, True)],
    ids=["all layers", "last layers", "augmented, batch norm"],
)
def test_resuming_within_an_epoch_gives_the_same_bits_as_not_stopping(
    options: dict[str, Any], training: Training, batch_norm: bool
) -> None:
    pictures = data(views=VIEWS if training.augmented else VIEWS[:1])
    kept: dict[tuple[int, int], bytes] = {}

    def keep(state: Checkpoint) -> None:
        kept[state.epoch, state.step] = checkpoint_bytes(state)

    whole = fit(network(batch_norm), pictures, training, seed=0, **options)
    watched = fit(network(batch_norm), pictures, training, seed=0, after_epoch=keep, due=lambda: True, **options)
    assert_equal_fits(watched, whole)
    steps = max(step for _, step in kept) + 1
    epochs = len(whole.history)
    assert kept.keys() == {(epoch, step) for epoch in range(epochs) for step in range(steps)} - {(0, 0)} | {(epochs, 0)}
    for place in ((0, 1), (0, steps - 1), (2, 1)):
        resumed = fit(network(batch_norm), pictures, training, seed=0, resume=parse_checkpoint(kept[place]), **options)
        assert_equal_fits(resumed, whole)


def test_in_long_epochs_checkpoints_are_written_between_steps(
    small: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit_resumably(StepRun(LocalStore(tmp_path / "whole"), "x", "d"), network(), small, QUICK, seed=0)
    monkeypatch.setattr(pieces, "PERIOD_S", 0.0)
    run = StepRun(LocalStore(tmp_path / "broken"), "x", "d")
    with pytest.raises(TrainingFailed, match="epoch 3, step 3"):
        fit_resumably(run, network(), small, QUICK, seed=0, loss=failing_at(2 * STEPS + 3, small.train))
    newest = newest_checkpoint(run.store, run.checkpoints)
    assert newest is not None
    assert (newest.epoch, newest.step) == (2, 2)
    assert_equal_fits(fit_resumably(run, network(), small, QUICK, seed=0), whole)


def test_the_global_random_state_does_not_matter_and_the_seed_does(small: Data) -> None:
    torch.manual_seed(1)
    one = fit(network(), small, QUICK, seed=0)
    torch.manual_seed(2)
    assert_equal_fits(fit(network(), small, QUICK, seed=0), one)
    assert not np.array_equal(fit(network(), small, QUICK, seed=1).history, one.history)


def test_what_adam_knows_is_restored_in_the_layout_of_its_parameters() -> None:
    """A fused Adam, as on a GPU, refuses any other."""

    def stepped(resume: dict[str, Any] | None) -> torch.optim.Adam:
        layer = torch.nn.Conv2d(4, 3, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        adam = torch.optim.Adam(layer.parameters())
        if resume is None:
            layer(torch.ones(1, 4, 5, 5)).square().sum().backward()
            adam.step()
        else:
            restore_optimiser(adam, resume)
        return adam

    one = stepped(None)
    other = stepped(optimiser_tensors(one))
    states = [list(adam.state.values()) for adam in (one, other)]
    assert [sorted(state) for state in states[0]] == [["exp_avg", "exp_avg_sq", "step"]] * 2
    for before, after in zip(*states, strict=True):
        for name, tensor in before.items():
            assert torch.equal(tensor, after[name])
            assert tensor.stride() == after[name].stride()


@pytest.mark.parametrize("torn", [False, True])
def test_an_interrupted_training_goes_on_from_the_newest_sound_checkpoint(
    small: Data, tmp_path: Path, torn: bool
) -> None:
    whole = fit_resumably(StepRun(LocalStore(tmp_path / "whole"), "x", "d"), network(), small, QUICK, seed=0)
    run = StepRun(LocalStore(tmp_path / "broken"), "x", "d")
    with pytest.raises(TrainingFailed, match="epoch 4, step 1"):
        fit_resumably(run, network(), small, QUICK, seed=0, loss=failing_at(3 * STEPS + 1, small.train))
    newest = run.store.list(run.checkpoints)[-1]
    assert "epoch-000003-" in newest
    if torn:
        run.store.write(newest, run.store.read(newest)[:1000])
    assert_equal_fits(fit_resumably(run, network(), small, QUICK, seed=0), whole)


def test_trainings_of_one_step_keep_their_checkpoints_apart(small: Data, tmp_path: Path) -> None:
    run = StepRun(LocalStore(tmp_path), "x", "d")
    one_epoch = QUICK.model_copy(update={"epochs": 1})
    fit_resumably(run, network(), small, one_epoch, "first", seed=0)
    fit_resumably(run, network(), small, QUICK, "first-more", seed=0)
    fit_resumably(run, network(), small, one_epoch, seed=0)
    for folder, epoch in (("/first", 1), ("/first-more", 4), ("", 1)):
        newest = newest_checkpoint(run.store, f"{run.checkpoints}{folder}")
        assert newest is not None
        assert newest.epoch == epoch


def test_a_checkpoint_of_another_network_is_refused(small: Data, tmp_path: Path) -> None:
    run = StepRun(LocalStore(tmp_path), "x", "d")
    fit_resumably(run, network(), small, QUICK.model_copy(update={"epochs": 1}), seed=0)
    wider = MobileNet(SHAPE.model_copy(update={"last": 65}))
    with pytest.raises(TrainingFailed, match="the checkpoint is of another network"):
        fit_resumably(run, wider, small, QUICK, seed=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_and_leaves_the_last_good_checkpoint(
    small: Data, tmp_path: Path, value: float
) -> None:
    run = StepRun(LocalStore(tmp_path), "x", "d")
    loss = failing_at(2 * STEPS + 3, small.train, value)
    with pytest.raises(TrainingFailed, match=r"diverged in epoch 3, step 3: loss (nan|inf); the last good checkpoint"):
        fit_resumably(run, network(), small, QUICK, seed=0, loss=loss)
    newest = newest_checkpoint(run.store, run.checkpoints)
    assert newest is not None
    assert newest.epoch == 2
    assert np.isfinite(newest.history).all()
    assert all(np.isfinite(tensor).all() for tensor in newest.tensors.values())


def test_a_learning_rate_that_is_far_too_high_says_so(small: Data) -> None:
    kept: list[Checkpoint] = []
    absurd = Training(epochs=3, batch=4, learning_rate=1e25)
    with pytest.raises(TrainingFailed, match=r"epoch 1, step \d: loss .*lower training.learning_rate"):
        fit(network(), small, absurd, seed=0, after_epoch=kept.append)
    assert not kept


def test_weights_that_diverge_in_an_epochs_last_step_are_never_kept(small: Data) -> None:
    def spoil(network: MobileNet, step: int, steps: int) -> None:
        if step == steps // 2:
            next(network.parameters()).data[:] = float("nan")

    kept: list[Checkpoint] = []
    with pytest.raises(TrainingFailed, match="diverged in epoch 2: validation loss nan"):
        fit(network(), small, QUICK, seed=0, after_step=spoil, after_epoch=kept.append)
    assert [state.epoch for state in kept] == [1]


def test_training_stops_early_and_restores_the_best_epoch(small: Data) -> None:
    # On val the classes are exchanged: the better the training, the worse the validation loss.
    exchanged = dataclasses.replace(small.val, classes=(small.val.classes + 1) % 3)
    contrary = dataclasses.replace(small, val=exchanged)
    patient = Training(epochs=20, batch=8, learning_rate=3e-3, patience=3)
    kept: list[Checkpoint] = []
    trained = network(batch_norm=True)
    fitted = fit(trained, contrary, patient, seed=0, after_epoch=kept.append)
    assert fitted.kept_epoch == 1 + fitted.history[:, 3].argmin()
    assert len(fitted.history) == fitted.kept_epoch + patient.patience < 20
    best = kept[fitted.kept_epoch - 1].below("network")
    assert best.keys() == fitted.tensors.keys()
    for name, tensor in best.items():
        assert np.array_equal(tensor, fitted.tensors[name]), name
        assert np.array_equal(tensor, trained.state_dict()[name].numpy()), name
    last = fit(network(batch_norm=True), contrary, patient.model_copy(update={"epochs": 6}), seed=0, keep_last=True)
    assert last.kept_epoch == len(last.history) == 6


def test_after_step_counts_the_steps_of_all_epochs(small: Data) -> None:
    seen: list[tuple[int, int]] = []
    fit(network(), small, QUICK, seed=0, after_step=lambda network, step, steps: seen.append((step, steps)))
    assert seen == [(step, 16) for step in range(1, 17)]


@pytest.mark.parametrize("count", [5, 9])
def test_batch_norm_never_sees_a_batch_of_one_picture(count: int) -> None:
    # One picture with one place per feature map has no variance: torch refuses it.
    lonely = data(train=(count - 2, 1, 1), val=(1, 1, 1))
    fitted = fit(network(batch_norm=True), lonely, QUICK.model_copy(update={"epochs": 1}), seed=0)
    assert np.isfinite(fitted.history).all()


def test_a_network_from_random_weights_moves_its_batch_norm_and_folds_it(small: Data) -> None:
    trained = network(batch_norm=True)
    fitted = fit(trained, small, QUICK, seed=0)
    moved = [name for name in fitted.tensors if name.endswith("running_mean") and np.any(fitted.tensors[name])]
    assert len(moved) == len(SHAPE.convolutions)
    plain = folded(trained)
    assert not [name for name in plain.state_dict() if "norm" in name]
    before, _ = outputs(trained, small.val, VIEWS[0], 32)
    after, _ = outputs(plain, small.val, VIEWS[0], 32)
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)


def test_batch_norm_forgets_its_start_within_short_epochs(small: Data) -> None:
    # The running mean starts at 0: in an epoch of one step torch's own momentum would reach a tenth of the pictures'.
    first, trained = network(batch_norm=True), network(batch_norm=True)
    (inputs,) = fitting._inputs([shown(small.train, 15)], 32, "cpu")
    with torch.inference_mode():
        expected = first.stages[0].stem.convolution(inputs).mean((0, 2, 3))  # type: ignore[operator, union-attr]
    found = fit(trained, small, Training(epochs=1, batch=15), seed=0).tensors["stages.0.stem.norm.running_mean"]
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, View]]:
    """The (picture, view) pairs that are decoded from now on."""
    seen: list[tuple[bytes, View]] = []
    pixels: Callable[[Pictures, int, View], Pixels] = Pictures.pixels

    def watched(self: Pictures, row: int, view: View) -> Pixels:
        seen.append((self.canonical[row], view))
        return pixels(self, row, view)

    monkeypatch.setattr(Pictures, "pixels", watched)
    return seen


def test_an_augmented_training_draws_views_anew_in_each_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = data(views=VIEWS)
    seen = recorded(monkeypatch)
    fit(network(), pictures, AUGMENTED, seed=0)
    train = [(file, view) for file, view in seen if file in pictures.train.canonical]
    val = [view for file, view in seen if file in pictures.val.canonical]
    assert {view for _, view in train} == set(VIEWS)
    assert set(val) == {VIEWS[0]}
    epochs = [dict(train[start : start + 15]) for start in range(0, 60, 15)]
    assert all(epoch.keys() == set(pictures.train.canonical) for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_a_training_that_is_not_augmented_sees_the_first_view_only(
    small: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = recorded(monkeypatch)
    fit(network(), small, QUICK, seed=0)
    assert {view for _, view in seen} == {VIEWS[0]}


def test_balanced_weights_count_photographs_and_fakes_alike() -> None:
    uneven = pictures((8, 6, 2))
    weights = picture_weights(uneven, balanced=True)
    assert weights.mean() == pytest.approx(1)
    sums = [weights[uneven.classes == kind].sum() for kind in range(3)]
    assert sums == pytest.approx([8, 4, 4])
    assert picture_weights(uneven, balanced=False).tolist() == [1] * 16


def test_the_loss_of_labels_is_the_weighted_cross_entropy() -> None:
    uneven = pictures((2, 1, 1))  # weights 1, 1, 1, 1: half for photographs, a quarter for each generator
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]))
    loss = label_loss(uneven, True, "cpu")(logits, torch.tensor([0, 3]))
    assert float(loss) == pytest.approx(-(np.log(0.5) + np.log(0.7)) / 2)
    skewed = pictures((1, 2, 1))
    loss = label_loss(skewed, True, "cpu")(logits, torch.tensor([0, 1]))
    # 4 pictures: the photograph weighs 2, each of the two of one generator 1/2.
    assert float(loss) == pytest.approx(-(2 * np.log(0.5) + 0.5 * np.log(0.2)) / 2)


def test_preparing_pictures_ahead_in_threads_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = data(views=VIEWS)
    expected = fit(network(), pictures, AUGMENTED, seed=0)
    monkeypatch.setattr(
        fitting, "made_ahead", lambda function, items, device: in_order(function, items, threads=3, ahead=3)
    )
    assert_equal_fits(fit(network(), pictures, AUGMENTED, seed=0), expected)


@pytest.mark.parametrize("options", [{}, {"trained": LAST_8}], ids=["all layers", "last layers"])
def test_half_precision_trains_float32_weights_to_nearly_the_same_losses(small: Data, options: dict[str, Any]) -> None:
    full = fit(network(), small, QUICK, seed=0, **options)
    half = fit(network(), small, QUICK.model_copy(update={"precision": "bfloat16"}), seed=0, **options)
    assert not np.array_equal(half.history, full.history)
    np.testing.assert_allclose(half.history[:, [1, 3]], full.history[:, [1, 3]], rtol=0.05, atol=0.05)
    assert {tensor.dtype for tensor in half.tensors.values()} == {np.dtype(np.float32)}


def test_precision_is_part_of_a_recipe_where_it_is_not_full_and_compiling_never_is() -> None:
    assert Training(compile=True).model_dump(mode="json") == Training().model_dump(mode="json")
    assert "precision" not in Training().model_dump(mode="json")
    assert Training(precision="bfloat16").model_dump(mode="json")["precision"] == "bfloat16"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
def test_a_gpu_trains_to_nearly_the_cpus_losses(small: Data) -> None:
    expected = fit(network(), small, QUICK, seed=0, trained=LAST_8)
    with full_precision("cuda"):
        fitted = fit(network().to("cuda"), small, QUICK, seed=0, trained=LAST_8, device="cuda")
    np.testing.assert_allclose(fitted.history[:, [1, 3]], expected.history[:, [1, 3]], rtol=0.01, atol=0.01)


def test_outputs_do_not_depend_on_the_batch(small: Data) -> None:
    made = network()
    logits, features = outputs(made, small.train, VIEWS[0], 32, batch=15)
    assert logits.shape == (15, 3)
    assert logits.dtype == np.float64
    assert features.shape == (15, SHAPE.last)
    assert features.dtype == np.float32
    for batch in (1, 4):
        other_logits, other_features = outputs(made, small.train, VIEWS[0], 32, batch=batch)
        np.testing.assert_allclose(other_logits, logits, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(other_features, features, rtol=1e-4, atol=1e-5)
