"""Distillation: a student network trained on a teacher's probabilities beside the labels.

Hinton, Vinyals & Dean: Distilling the Knowledge in a Neural Network, 2015 (arXiv 1503.02531).

A teacher is the model of the student's own rotation, and speaks on that rotation's train pictures only: the model of
another rotation was trained on this one's test pictures, and would hand down what it saw of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from storage.errors import SpecError
from storage.objects import Ref
from tasks.detectors.svm import FeatureRows, LinearHead, feature_rows
from tasks.device import device_alone, full_precision
from tasks.networks.architecture import architecture
from tasks.networks.fitting import Loss, outputs, picture_weights
from tasks.networks.mobilenet import (
    Setting,
    finished_output,
    fit_resumably,
    show_training,
    start_network,
    training_data,
    training_label,
)
from tasks.networks.trained import TrainedNetwork
from tasks.networks.training_pictures import Pictures
from tasks.recipe import Output, StepRun, step
from tasks.spec.detectors import SVM_TEACHER, Distilled
from tasks.spec.views import View
from tasks.threads import limit_threads

if TYPE_CHECKING:
    import torch

    from tasks.networks.mobilenet_network import MobileNet

Float = npt.NDArray[np.float64]


def distillation_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    teacher: torch.Tensor,
    temperature: float,
    weight: float,
    row_weights: torch.Tensor,
) -> torch.Tensor:
    """weight T^2 KL(teacher || student), both softened by T, plus (1 - weight) times the cross-entropy: a scalar.

    T^2 keeps the two terms' gradients in proportion whatever T is (section 2 of the paper).

    Args:
        logits: the student's, (B, k).
        targets: class numbers int64 (B,).
        teacher: the teacher's probabilities (B, k) at temperature 1; softened, they are the softmax of log p / T.
        temperature: T >= 1.
        weight: of the teacher's term, 0..1.
        row_weights: how much each picture counts (B,), as in the loss of labels.
    """
    import torch
    from torch.nn.functional import cross_entropy, log_softmax

    softened = torch.softmax(teacher.log() / temperature, dim=1)  # (B, k); a probability of 0 stays 0
    student = log_softmax(logits / temperature, dim=1)
    divergence = (torch.special.xlogy(softened, softened) - softened * student).sum(1)  # (B,)
    labelled = cross_entropy(logits, targets, reduction="none")
    losses = row_weights * (weight * temperature**2 * divergence + (1 - weight) * labelled)
    mean: torch.Tensor = losses.mean()
    return mean


def teacher_loss(pictures: Pictures, balanced: bool, teacher: Float, spec: Distilled, device: str) -> Loss:
    """`distillation_loss` of train pictures, given the teacher's probabilities (N, k) of all of them."""
    import torch

    classes = torch.from_numpy(pictures.classes).to(device)
    weights = torch.from_numpy(picture_weights(pictures, balanced)).float().to(device)
    probabilities = torch.from_numpy(teacher).float().to(device)

    def loss(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return distillation_loss(
            logits, classes[rows], probabilities[rows], spec.temperature, spec.weight, weights[rows]
        )

    return loss


def network_probabilities(trained: TrainedNetwork, pictures: Pictures, view: View, device: str = "cpu") -> Float:
    """A network's calibrated class probabilities (N, k) of pictures in a view, at the network's own side.

    One view for all epochs: a student that is trained on several views is told what the teacher saw in the first one,
    and so learns to give the same answer in all of them.
    """
    from scipy.special import softmax

    from tasks.networks.mobilenet_network import load_network

    network = load_network(trained.shape, trained.tensors, device)
    logits, _ = outputs(network, pictures, view, trained.shape.side, device=device)
    probabilities: Float = softmax(logits / trained.temperature, axis=1)
    return probabilities


def svm_probabilities(head: LinearHead, rows: FeatureRows, rotation: int, pictures: Pictures) -> Float:
    """p(fake) (N,) of pictures by a rotation's SVM, from their feature rows, which lie in any order among others.

    Raises:
        SpecError: a picture has no feature row, the features are of another extractor, or the head has no such
            rotation.
    """
    if rotation >= len(head.coef):
        raise SpecError(f"the SVM teacher has {len(head.coef)} rotations, expected one for rotation {rotation}")
    if rows.X.shape[1] != head.coef.shape[1]:
        raise SpecError(f"the SVM teacher reads {head.coef.shape[1]} features, got {rows.X.shape[1]}")
    ids = rows.identity["image_id"].to_list()
    places = {key: row for row, key in enumerate(zip(rows.sources.tolist(), ids, strict=True))}
    wanted = list(zip(pictures.sources, pictures.ids, strict=True))
    missing = [f"{source}/{image_id}" for source, image_id in wanted if (source, image_id) not in places]
    if missing:
        raise SpecError(
            f"the SVM teacher has no features of {len(missing)} of {len(wanted)} train pictures "
            f"({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}): embed all image shards in the first view"
        )
    chosen = rows.X[np.array([places[key] for key in wanted], dtype=np.int64)]
    return head.probabilities(head.decisions(chosen, rotation), rotation)


def mixed_probabilities(networks: Sequence[Float], svm: Float | None, classes: int) -> Float:
    """The probabilities (N, k) of several teachers together: networks' (N, k), and p(fake) (N,) of an SVM or None.

    p(fake) is the mean over all teachers. What an SVM cannot say, the split of p(fake) among the generators, is that of
    the networks' mean; equal parts without a network, or where the networks' mean p(fake) is 0.
    """
    if not networks and svm is None:
        raise SpecError("distillation needs a teacher, got none")
    if not networks:
        assert svm is not None
        split = np.full((len(svm), classes - 1), 1 / (classes - 1))
        return _with_fakes(svm, split)
    mean: Float = np.mean(np.stack(networks), axis=0)  # (N, k)
    if svm is None:
        return mean
    fake = mean[:, 1:].sum(axis=1)  # (N,)
    equal = np.full_like(mean[:, 1:], 1 / (classes - 1))
    split = np.divide(mean[:, 1:], fake[:, None], out=equal, where=fake[:, None] > 0)
    return _with_fakes((len(networks) * fake + svm) / (len(networks) + 1), split)


def _with_fakes(fake: Float, split: Float) -> Float:
    return np.column_stack([1 - fake, fake[:, None] * split])


def _teacher_probabilities(
    run: StepRun,
    networks: Sequence[TrainedNetwork],
    svm: Ref | None,
    svm_features: Sequence[Ref],
    pictures: Pictures,
    setting: Setting,
) -> Float:
    said = [network_probabilities(one, pictures, setting.views[0], setting.device) for one in networks]
    fake = None
    if svm is not None:
        rows = feature_rows(run.store, svm_features)
        fake = svm_probabilities(LinearHead.load(run.store, svm), rows, setting.rotation, pictures)
    return mixed_probabilities(said, fake, len(setting.classes))


def _loaded(run: StepRun, ref: Ref, role: str, setting: Setting) -> TrainedNetwork:
    trained = TrainedNetwork.load(run.store, ref)
    if trained.classes != setting.classes:
        raise SpecError(f"the {role} {ref.uri}: expected the classes {setting.classes}, got {trained.classes}")
    if trained.about.get("rotation") != setting.rotation:
        raise SpecError(
            f"the {role} {ref.uri}: expected a network of rotation {setting.rotation}, got one of "
            f"{trained.about.get('rotation')}, which was trained on other pictures"
        )
    return trained


def _refuse_other_parents(
    spec: Distilled, student: Ref | None, teachers: Sequence[Ref], svm: Ref | None, svm_features: Sequence[Ref],
    aided: bool,
) -> None:  # fmt: skip
    if (student is None) != (spec.of is None):
        expected = "no student network" if spec.of is None else f"the student network {spec.of}"
        raise SpecError(f"{spec.name}: expected {expected}, got {'none' if student is None else student.uri}")
    names = [name for name in spec.teachers if name != SVM_TEACHER]
    expected_networks, expects_svm = (len(names), SVM_TEACHER in spec.teachers) if aided else (0, False)
    if len(teachers) != expected_networks or (svm is not None) != expects_svm or bool(svm_features) != expects_svm:
        raise SpecError(
            f"{spec.name}, {'aided' if aided else 'alone'}: expected {expected_networks} teaching networks and "
            f"{'an' if expects_svm else 'no'} SVM with its features, got {len(teachers)} networks, "
            f"{'an' if svm is not None else 'no'} SVM and {len(svm_features)} feature shards"
        )


def _start(student: TrainedNetwork | None, spec: Distilled, setting: Setting) -> MobileNet:
    from tasks.networks.mobilenet_network import load_network

    if student is not None:
        return load_network(student.shape, student.tensors, setting.device)
    assert spec.width is not None
    shape = architecture(spec.width, "v3", len(setting.classes), spec.side)
    return start_network(shape, None, setting.seed).to(setting.device)


def _label(*, spec: Distilled, setting: Setting, aided: bool, **_: Any) -> str:
    return f"{training_label(spec=spec, setting=setting)}-{'aided' if aided else 'alone'}"


@step("compress/distilled", version=1, label=_label, libraries=("torch", "numpy", "pillow", "simplejpeg"), pool="gpu")
def distil(
    run: StepRun,
    *,
    spec: Distilled,
    setting: Setting,
    images: tuple[Ref, ...],
    student: Ref | None,
    teachers: tuple[Ref, ...],
    svm: Ref | None,
    svm_features: tuple[Ref, ...],
    aided: bool,
) -> Output:
    """Train a student on one rotation's train pictures, `aided` by teachers or, to compare with, alone.

    With and without teachers it is the same student: same first weights, same order of pictures and views, all layers
    trained; only the loss differs.

    Args:
        student: the network `spec.of` that the student starts from; None for a narrow one with random weights, head
            `v3` and batch norm, which is folded at the end.
        teachers: the networks among `spec.teachers`, none if not `aided`. Theirs and the student's rotation is the
            setting's.
        svm: the SVM among `spec.teachers`, and `svm_features` its features of all images in the setting's first view.

    Raises:
        SpecError: parents that are not the spec's, of other classes or of another rotation; a train picture without
            features; a class without pictures.
        TrainingFailed: a loss that is not finite.
        DeviceLost: the GPU failed; what it finished is in the checkpoints.
    """
    limit_threads()
    _refuse_other_parents(spec, student, teachers, svm, svm_features, aided)
    parent = None if student is None else _loaded(run, student, "student", setting)
    networks = [_loaded(run, ref, "teacher", setting) for ref in teachers]
    side = spec.side if parent is None else parent.shape.side
    data = training_data(run, images, setting, spec.training, side)
    about = {
        "spec": spec.model_dump(mode="json"),
        "weights": f"random:{setting.seed}" if parent is None else parent.about.get("weights"),
        "aided": aided,
        "teachers": list(spec.teachers) if aided else [],
    }
    with device_alone(setting.device), full_precision(setting.device):
        loss = None
        if aided:
            probabilities = _teacher_probabilities(run, networks, svm, svm_features, data.train, setting)
            loss = teacher_loss(data.train, spec.training.balanced, probabilities, spec, setting.device)
        network = _start(parent, spec, setting)
        fitted = fit_resumably(run, network, data, spec.training, seed=setting.seed, loss=loss, device=setting.device)
        made = finished_output(network, fitted, data, setting, spec.training, about)
    show_training(run, spec.name, made)
    return made
