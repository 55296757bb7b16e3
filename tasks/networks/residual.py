"""Training a `residual` network: the same loop as for all networks, from random weights, on windows of pictures."""

from __future__ import annotations

from storage.objects import Ref
from tasks.networks.architecture import residual_architecture
from tasks.networks.mobilenet import Setting, start_network, trained_output, training_data, training_label
from tasks.recipe import Output, StepRun, step
from tasks.spec.detectors import Residual
from tasks.threads import limit_threads


@step(
    "train/residual",
    version=2,
    label=training_label,
    libraries=("torch", "numpy", "pillow", "simplejpeg"),
    pool="gpu",
)
def train_residual(run: StepRun, *, spec: Residual, setting: Setting, images: tuple[Ref, ...]) -> Output:
    """Train a network on what a front end leaves of one rotation's train pictures.

    Raises:
        SpecError: a class without train pictures, or no fake or photograph in val.
        TrainingFailed: a loss that is not finite.
        DeviceLost: the GPU failed; what it finished is in the checkpoints.
    """
    limit_threads()
    data = training_data(run, images, setting, spec.training, spec.side)
    shape = residual_architecture(spec.front_end, spec.width, len(setting.classes), spec.side)
    about = {"spec": spec.model_dump(mode="json"), "weights": f"random:{setting.seed}"}
    network = start_network(shape, None, setting.seed)
    return trained_output(run, spec, network, data, setting, about)
