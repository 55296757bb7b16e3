"""Distillation: the loss against a case worked out by hand, what teachers say together, and the step."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from scipy.special import expit, softmax
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from storage.errors import SpecError
from storage.local import LocalStore
from storage.objects import ROWS, Ref, commit, read_manifest, read_table
from storage.tables import features_table
from tasks.detectors.svm import FeatureRows, LinearHead
from tasks.features.vgg16 import Vgg16Spec
from tasks.networks import distillation, mobilenet
from tasks.networks.architecture import architecture
from tasks.networks.distillation import (
    distil,
    distillation_loss,
    mixed_probabilities,
    network_probabilities,
    svm_probabilities,
    teacher_loss,
)
from tasks.networks.fitting import label_loss, outputs
from tasks.networks.mobilenet import train_mobilenet
from tasks.networks.mobilenet_network import load_network
from tasks.networks.trained import TrainedNetwork
from tasks.spec.detectors import Distilled, FineTuned, Fit, HeadSpec, Training
from tasks.spec.splits import Folds
from tests.unit.network_pictures import SETTING, VIEWS, pictures, row, shard, shards

QUICK = Training(epochs=2, batch=8)
# A store, the images in it, and a network trained on them.
Finished = tuple[LocalStore, tuple[Ref, ...], Ref]
DENSE = FineTuned(name="dense", width=0.1, side=32, unlocked="all", weights="random:0", training=QUICK)
NARROW = Distilled(name="narrow", width=0.1, side=32, teachers=("dense", "svm"), training=QUICK)
FROM_DENSE = Distilled(name="again", of="dense", teachers=("dense",), training=QUICK)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_the_loss_is_the_one_worked_out_by_hand() -> None:
    # T = 2: the teacher's (0.8, 0.2) is softened to sqrt(0.8) : sqrt(0.2) = 2 : 1, so (2/3, 1/3). The student's logits
    # (ln 9, 0) are (0.9, 0.1) and, softened, sqrt(9) : 1, so (3/4, 1/4).
    logits = torch.tensor([[np.log(9), 0.0]])
    teacher = torch.tensor([[0.8, 0.2]])
    divergence = 2 / 3 * np.log(8 / 9) + 1 / 3 * np.log(4 / 3)
    labelled = -np.log(0.1)  # the label is the second class
    for weight in (0.0, 0.3, 1.0):
        loss = distillation_loss(logits, torch.tensor([1]), teacher, 2.0, weight, torch.ones(1))
        assert float(loss) == pytest.approx(weight * 4 * divergence + (1 - weight) * labelled, rel=1e-5)


def example(count: int = 6, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits and a teacher's probabilities (count, 4), targets and weights of pictures (count,)."""
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, 4, generator=random, dtype=torch.float64)
    teacher = torch.softmax(2 * torch.randn(count, 4, generator=random, dtype=torch.float64), dim=1)
    targets = torch.randint(4, (count,), generator=random)
    return logits, targets, teacher, torch.rand(count, generator=random, dtype=torch.float64) + 0.5


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_the_loss_is_that_of_torchs_kl_div(temperature: float) -> None:
    logits, targets, teacher, weights = example()
    student = log_softmax(logits / temperature, dim=1)
    softened = torch.softmax(teacher.log() / temperature, dim=1)
    divergence = kl_div(student, softened, reduction="none").sum(1)
    labelled = cross_entropy(logits, targets, reduction="none")
    expected = (weights * (0.7 * temperature**2 * divergence + 0.3 * labelled)).mean()
    found = distillation_loss(logits, targets, teacher, temperature, 0.7, weights)
    assert float(found) == pytest.approx(float(expected), rel=1e-12)
    alone = kl_div(student, softened, reduction="batchmean") * temperature**2
    found = distillation_loss(logits, targets, teacher, temperature, 1.0, torch.ones(6))
    assert float(found) == pytest.approx(float(alone), rel=1e-12)


def test_a_student_that_says_what_the_teacher_says_has_no_loss_and_no_gradient() -> None:
    _, targets, teacher, weights = example()
    logits = (teacher.log() + 3.0).requires_grad_()
    loss = distillation_loss(logits, targets, teacher, 4.0, 1.0, weights)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-12)
    assert logits.grad is not None
    assert float(logits.grad.abs().max()) < 1e-12


def test_gradients_hardly_depend_on_a_high_temperature() -> None:
    # Equation 4 of the paper: with zero-mean logits and high T the gradient is (z - v) / k, whatever T is.
    logits, targets, teacher, _ = example(1)
    v = teacher.log() - teacher.log().mean()
    z = (logits - logits.mean()).requires_grad_()
    distillation_loss(z, targets, teacher, 1e4, 1.0, torch.ones(1)).backward()
    assert z.grad is not None
    torch.testing.assert_close(z.grad, (z.detach() - v) / 4, rtol=1e-3, atol=1e-4)


def test_a_teacher_that_is_certain_gives_a_finite_loss() -> None:
    teacher = torch.tensor([[1.0, 0.0, 0.0]])
    logits = torch.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    loss = distillation_loss(logits, torch.tensor([0]), teacher, 4.0, 1.0, torch.ones(1))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(-16 * float(log_softmax(logits.detach() / 4, dim=1)[0, 0]), rel=1e-5)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_pictures_are_weighted_as_in_the_loss_of_labels() -> None:
    uneven = pictures((4, 2, 1))
    rows = torch.tensor([0, 3, 5, 6])
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    teacher = np.full((7, 3), 1 / 3)
    almost_none = NARROW.model_copy(update={"weight": 1e-12})
    loss = teacher_loss(uneven, True, teacher, almost_none, "cpu")(logits, rows)
    assert float(loss) == pytest.approx(float(label_loss(uneven, True, "cpu")(logits, rows)), rel=1e-5)
    random = np.random.default_rng(0)
    teacher = softmax(random.normal(size=(7, 3)), axis=1)
    loss = teacher_loss(uneven, False, teacher, NARROW, "cpu")(logits, rows)
    classes, said = torch.from_numpy(uneven.classes)[rows], torch.from_numpy(teacher).float()[rows]
    assert float(loss) == pytest.approx(float(distillation_loss(logits, classes, said, 4.0, 0.7, torch.ones(4))))


NETWORKS = (np.array([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]]), np.array([[0.7, 0.1, 0.2], [1.0, 0.0, 0.0]]))


def test_networks_are_averaged() -> None:
    np.testing.assert_allclose(mixed_probabilities(NETWORKS, None, 3), [[0.6, 0.2, 0.2], [1.0, 0.0, 0.0]])
    np.testing.assert_array_equal(mixed_probabilities(NETWORKS[:1], None, 3), NETWORKS[0])


def test_an_svm_says_how_fake_a_picture_is_and_the_networks_by_whom() -> None:
    # One network and an SVM: p(fake) (0.5 + 0.9) / 2 = 0.7, split 3 : 2. In the second row the network sees no fake at
    # all: (0 + 0.4) / 2 = 0.2, in equal parts.
    one = mixed_probabilities(NETWORKS[:1], np.array([0.9, 0.4]), 3)
    np.testing.assert_allclose(one, [[0.3, 0.42, 0.28], [0.8, 0.1, 0.1]])
    # Every teacher counts once: (0.5 + 0.3 + 0.7) / 3 = 0.5, split equally since the networks' mean is (0.2, 0.2).
    both = mixed_probabilities(NETWORKS, np.array([0.7, 0.0]), 3)
    np.testing.assert_allclose(both, [[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]])


def test_an_svm_alone_splits_fakes_equally() -> None:
    alone = mixed_probabilities((), np.array([0.9, 0.0]), 4)
    np.testing.assert_allclose(alone, [[0.1, 0.3, 0.3, 0.3], [1.0, 0.0, 0.0, 0.0]])


def test_what_teachers_say_together_sums_to_one() -> None:
    random = np.random.default_rng(0)
    networks = [softmax(5 * random.normal(size=(50, 5)), axis=1) for _ in range(3)]
    for svm in (None, random.random(50)):
        for chosen in (networks, networks[:1], [] if svm is not None else networks):
            mixed = mixed_probabilities(chosen, svm, 5)
            np.testing.assert_allclose(mixed.sum(axis=1), 1, rtol=1e-12)
            assert mixed.min() >= 0


def test_no_teacher_is_refused() -> None:
    with pytest.raises(SpecError, match="needs a teacher, got none"):
        mixed_probabilities((), None, 3)


HEAD = LinearHead(
    coef=np.array([[0.0, 0.0], [1.0, -2.0]]),
    intercept=np.array([0.0, 0.5]),
    c=np.ones(2),
    calibration=np.array([[1.0, 0.0], [2.0, -1.0]]),
    calibrated=True,
)


def feature_rows_of(keys: list[tuple[str, str]], X: list[list[float]]) -> FeatureRows:
    identity = pl.DataFrame({"image_id": [image_id for _, image_id in keys]})
    sources = np.array([source for source, _ in keys], dtype=np.str_)
    return FeatureRows(identity, np.zeros(len(keys), np.int64), sources, np.array(X, dtype=np.float32))


def test_an_svm_finds_each_pictures_features_by_source_and_id() -> None:
    # Pictures of two sources have the same id; rows lie in another order, among others.
    few = pictures((2, 1, 0))
    keys = [("gan", "000"), ("coco", "001"), ("coco", "777"), ("coco", "000"), ("gan", "001")]
    rows = feature_rows_of(keys, [[1, 0], [0, 1], [9, 9], [3, 1], [9, 9]])
    # Decisions of rotation 1: x - 2 y + 0.5 for (3, 1), (0, 1), (1, 0); then 2 d - 1.
    expected = expit(2 * np.array([1.5, -1.5, 1.5]) - 1)
    np.testing.assert_allclose(svm_probabilities(HEAD, rows, 1, few), expected)
    np.testing.assert_allclose(svm_probabilities(HEAD, rows, 0, few), [0.5, 0.5, 0.5])


def test_pictures_without_features_are_named() -> None:
    rows = feature_rows_of([("coco", "000"), ("gan", "001")], [[1, 0], [0, 1]])
    with pytest.raises(SpecError, match=r"no features of 1 of 2 train pictures \(gan/000\): embed all"):
        svm_probabilities(HEAD, rows, 1, pictures((1, 1, 0)))
    with pytest.raises(SpecError, match=r"of 6 of 7 train pictures \(coco/001, coco/002, gan/000, \.\.\.\)"):
        svm_probabilities(HEAD, rows, 1, pictures((3, 1, 3)))


def test_an_svm_of_other_features_or_rotations_is_refused() -> None:
    rows = feature_rows_of([("coco", "000")], [[1.0, 0.0, 0.0]])
    with pytest.raises(SpecError, match="reads 2 features, got 3"):
        svm_probabilities(HEAD, rows, 1, pictures((1, 0, 0)))
    with pytest.raises(SpecError, match="has 2 rotations, expected one for rotation 2"):
        svm_probabilities(HEAD, rows, 2, pictures((1, 0, 0)))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    store = LocalStore(tmp_path_factory.mktemp("store"))
    images = shards(store)
    torch.set_num_threads(1)
    dense, _ = train_mobilenet.compute(store, spec=DENSE, setting=SETTING, images=images, weights=None)
    return store, images, dense


def svm_objects(store: LocalStore, images: tuple[Ref, ...]) -> tuple[Ref, tuple[Ref, ...]]:
    """An SVM on two features, the label and nothing, and these features of all images."""
    features = []
    for ref in images:
        table = read_table(store, ref)
        matrix = np.column_stack([table["label"].to_numpy(), np.zeros(table.num_rows)]).astype(np.float32)
        name = f"objects/features/{ref.digest}"
        parts = {ROWS: features_table(table, matrix)}
        features.append(commit(store, name, step="embed", digest=f"f-{ref.digest}", recipe={}, parts=parts))
    spec = HeadSpec(
        fit=Fit(detector="svm"), extractor=Vgg16Spec(), views=VIEWS[:1], real=("coco",), fakes=("gan", "stable")
    )
    head = dataclasses.replace(HEAD, coef=np.array([[4.0, 0.0]]), intercept=np.array([-2.0]), c=np.ones(1))
    svm = commit(store, "objects/svm/x", step="train/svm", digest="svm", recipe={}, parts=head.parts(spec))
    return svm, tuple(features)


def arguments(finished: Finished, **changes: Any) -> dict[str, Any]:
    """Of the narrow student with both teachers."""
    store, images, dense = finished
    svm, features = svm_objects(store, images)
    full = {
        "spec": NARROW,
        "setting": SETTING,
        "images": images,
        "student": None,
        "teachers": (dense,),
        "svm": svm,
        "svm_features": features,
        "aided": True,
    }
    return full | changes


NO_TEACHER: dict[str, Any] = {"teachers": (), "svm": None, "svm_features": (), "aided": False}


def test_a_teacher_says_its_calibrated_probabilities(finished: Finished) -> None:
    store, _, dense = finished
    trained = dataclasses.replace(TrainedNetwork.load(store, dense), temperature=2.5)
    few = pictures((2, 1, 1))
    said = network_probabilities(trained, few, VIEWS[1])
    logits, _ = outputs(load_network(trained.shape, trained.tensors), few, VIEWS[1], 32)
    np.testing.assert_allclose(said, softmax(logits / 2.5, axis=1))
    np.testing.assert_allclose(said.sum(axis=1), 1)


def test_a_narrow_student_is_trained_with_and_without_its_teachers(
    finished: Finished,
) -> None:
    store, _, _ = finished
    aided, _ = distil.compute(store, **arguments(finished))
    assert distil.compute(store, **arguments(finished)) == (aided, True)
    alone, _ = distil.compute(store, **arguments(finished, **NO_TEACHER))
    place = r"objects/compress/distilled/narrow/real\+gan\+stable/r0-s0-"
    assert re.fullmatch(place + "aided/[0-9a-f]{64}", aided.uri)
    assert re.fullmatch(place + "alone/[0-9a-f]{64}", alone.uri)
    networks = {ref: TrainedNetwork.load(store, ref) for ref in (aided, alone)}
    for ref, trained in networks.items():
        assert trained.shape == architecture(0.1, "v3", 3, 32)
        assert not [name for name in trained.tensors if "norm" in name]
        assert trained.about["weights"] == "random:0"
        assert Distilled.model_validate(trained.about["spec"]) == NARROW
        names = {part.name for part in read_manifest(store, ref.uri).parts}
        assert names == {"weights.safetensors", "card.json", "history.parquet", "curves.png", "confusion.png"}
    assert networks[aided].about["aided"] is True
    assert networks[aided].about["teachers"] == ["dense", "svm"]
    assert networks[alone].about["aided"] is False
    assert networks[alone].about["teachers"] == []
    assert any(
        networks[aided].tensors[name].tobytes() != array.tobytes() for name, array in networks[alone].tensors.items()
    )


def test_a_student_alone_is_trained_as_fine_tuning_trains_the_same_network(
    finished: Finished,
) -> None:
    store, _, dense = finished
    alone, _ = distil.compute(store, **arguments(finished, **NO_TEACHER))
    one, other = TrainedNetwork.load(store, alone), TrainedNetwork.load(store, dense)
    assert all(tensor.tobytes() == other.tensors[name].tobytes() for name, tensor in one.tensors.items())


def test_aided_and_alone_start_from_the_same_weights_and_see_pictures_in_the_same_order(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _, _ = finished
    seen: dict[bool, list[list[int]]] = {True: [], False: []}
    starts: dict[bool, list[np.ndarray]] = {}
    fit_resumably = mobilenet.fit_resumably

    def watched(run: Any, network: Any, data: Any, training: Any, **options: Any) -> Any:
        aided = options["loss"] is not None
        starts[aided] = [tensor.numpy().copy() for tensor in network.state_dict().values()]
        usual = options["loss"] or label_loss(data.train, training.balanced, "cpu")

        def loss(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            seen[aided].append(rows.tolist())
            return usual(logits, rows)

        return fit_resumably(run, network, data, training, **options | {"loss": loss})

    monkeypatch.setattr(distillation, "fit_resumably", watched)
    setting = SETTING.model_copy(update={"seed": 5})
    distil.compute(store, **arguments(finished, setting=setting))
    distil.compute(store, **arguments(finished, setting=setting, **NO_TEACHER))
    assert seen[True] == seen[False] != []
    assert all(one.tobytes() == other.tobytes() for one, other in zip(starts[True], starts[False], strict=True))


def test_a_student_that_starts_from_a_network_keeps_its_shape_and_trains_all_layers(
    finished: Finished,
) -> None:
    store, _, dense = finished
    from_dense = {"spec": FROM_DENSE, "student": dense, "svm": None, "svm_features": ()}
    ref, _ = distil.compute(store, **arguments(finished, **from_dense))
    start, trained = TrainedNetwork.load(store, dense), TrainedNetwork.load(store, ref)
    assert trained.shape == start.shape
    assert trained.about["weights"] == "random:0"  # the dense one's own
    assert trained.about["teachers"] == ["dense"]
    unchanged = [name for name, array in trained.tensors.items() if array.tobytes() == start.tensors[name].tobytes()]
    assert not unchanged


def test_a_teacher_draws_its_student_towards_what_it_says(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    store, _, dense = finished
    # A teacher that takes every picture for the last class, and nothing but its word.
    monkeypatch.setattr(
        distillation, "_teacher_probabilities", lambda run, networks, svm, rows, pictures, setting: np.tile(
            [0.02, 0.02, 0.96], (len(pictures), 1)
        ),
    )  # fmt: skip
    spec = FROM_DENSE.model_copy(
        update={"weight": 1.0, "training": Training(epochs=8, batch=8, learning_rate=3e-3, patience=8)}
    )
    changes = {"spec": spec, "student": dense, "svm": None, "svm_features": ()}
    monkeypatch.setattr(
        distillation,
        "fit_resumably",
        lambda *args, **options: mobilenet.fit_resumably(*args, **options, keep_last=True),
    )
    ref, _ = distil.compute(store, **arguments(finished, **changes))
    said = network_probabilities(TrainedNetwork.load(store, ref), pictures((3, 3, 3)), VIEWS[0])
    assert (said.argmax(axis=1) == 2).mean() > 0.8


def test_networks_of_other_classes_are_refused(finished: Finished) -> None:
    store, _, dense = finished
    setting = SETTING.model_copy(update={"classes": ("real", "stable", "gan")})
    expected = r"expected the classes \('real', 'stable', 'gan'\), got \('real', 'gan', 'stable'\)"
    with pytest.raises(SpecError, match=f"the teacher .*{expected}"):
        distil.compute(store, **arguments(finished, setting=setting))
    student: dict[str, Any] = {"spec": FROM_DENSE, "student": dense, **NO_TEACHER}
    with pytest.raises(SpecError, match=f"the student .*{expected}"):
        distil.compute(store, **arguments(finished, setting=setting, **student))


def test_networks_of_another_rotation_are_refused(finished: Finished) -> None:
    store, _, _ = finished
    images = tuple(
        shard(store, [row(source, fold, fold) for fold in range(3)], f"{source}-folds")
        for source in ("coco", "gan", "stable")
    )
    setting = SETTING.model_copy(update={"splits": Folds(count=3), "rotation": 1})
    with pytest.raises(SpecError, match=r"the teacher .* expected a network of rotation 1, got one of 0"):
        distil.compute(store, **arguments(finished, setting=setting, images=images))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"aided": False}, "narrow, alone: expected 0 teaching networks and no SVM .* got 1 networks, an SVM"),
        ({"teachers": ()}, "narrow, aided: expected 1 teaching networks and an SVM .* got 0 networks"),
        ({"svm": None}, "expected 1 teaching networks and an SVM with its features, got 1 networks, no SVM"),
        ({"svm_features": ()}, "got 1 networks, an SVM and 0 feature shards"),
        ({"spec": FROM_DENSE}, "again: expected the student network dense, got none"),
    ],
)
def test_parents_that_are_not_the_specs_are_refused(finished: Finished, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        distil.compute(finished[0], **arguments(finished, **changes))


def test_a_student_that_the_spec_does_not_name_is_refused(finished: Finished) -> None:
    with pytest.raises(SpecError, match="narrow: expected no student network, got objects/train/mobilenet"):
        distil.compute(finished[0], **arguments(finished, student=finished[2]))


def test_train_pictures_without_features_are_refused_by_the_step(
    finished: Finished,
) -> None:
    store, images, _ = finished
    _, features = svm_objects(store, images)
    with pytest.raises(SpecError, match=r"no features of 6 of 18 train pictures \(stable/000, "):
        distil.compute(store, **arguments(finished, svm_features=features[:2]))


def test_the_same_step_without_a_cache_gives_the_same_content(finished: Finished, tmp_path: Path) -> None:
    other = LocalStore(tmp_path)
    images = shards(other)
    dense, _ = train_mobilenet.compute(other, spec=DENSE, setting=SETTING, images=images, weights=None)
    contents = []
    for place in (finished, (other, images, dense)):
        ref, _ = distil.compute(place[0], **arguments(place))
        contents.append(read_manifest(place[0], ref.uri).content)
    assert contents[0] == contents[1]
