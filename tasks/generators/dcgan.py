"""The networks of a DCGAN, their training as the first project did it, and pictures from them.

Radford, Metz, Chintala: Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks,
ICLR 2016 (arXiv 1511.06434), in the form of PyTorch's DCGAN tutorial: five (transposed) convolutions, 64x64 pixels,
non-saturating binary cross-entropy, one generator step per discriminator step.

All randomness comes from generators of its own, on the CPU: neither torch's global state nor the device decides which
noise, order and mirroring a training sees.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from storage.digest import hash_seed
from storage.errors import TrainingFailed
from tasks.checkpoints import Checkpoint, finite_tensors, optimiser_tensors, restore_optimiser
from tasks.data.pictures import Pixels
from tasks.spec.generators import GanSpec

if TYPE_CHECKING:
    import torch

HISTORY_COLUMNS = ("epoch", "step", "loss_d", "loss_g", "d_real", "d_fake")


def build_generator(spec: GanSpec) -> torch.nn.Sequential:
    """From noise (B, latent, 1, 1) to pictures (B, 3, 64, 64) in -1..1."""
    from torch import nn

    width = spec.generator_features
    channels = (spec.latent, 8 * width, 4 * width, 2 * width, width)
    layers: list[nn.Module] = []
    for depth, (before, after) in enumerate(itertools.pairwise(channels)):
        stride, padding = (1, 0) if depth == 0 else (2, 1)
        layers += [
            nn.ConvTranspose2d(before, after, 4, stride, padding, bias=False),  # (B, after, 4 * 2**depth, ...)
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
        ]
    layers += [nn.ConvTranspose2d(width, 3, 4, 2, 1, bias=False), nn.Tanh()]
    return nn.Sequential(*layers)


def build_discriminator(spec: GanSpec) -> torch.nn.Sequential:
    """From pictures (B, 3, 64, 64) in -1..1 to logits (B, 1, 1, 1), positive for real.

    The tutorial's sigmoid is part of the loss, where it is exact for large logits too.
    """
    from torch import nn

    width = spec.discriminator_features
    channels = (width, 2 * width, 4 * width, 8 * width)
    layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True)]
    for before, after in itertools.pairwise(channels):
        layers += [
            nn.Conv2d(before, after, 4, 2, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.LeakyReLU(0.2, inplace=True),
        ]
    layers.append(nn.Conv2d(8 * width, 1, 4, 1, 0, bias=False))
    return nn.Sequential(*layers)


def initialise(network: torch.nn.Module, random: torch.Generator) -> None:
    """Convolutions N(0, 0.02), batch norms N(1, 0.02) and no shift (section 3 of the paper, and the tutorial).

    Not by `torch.nn.init`: diffusers and transformers replace its functions, for all threads, by ones that do nothing
    while they load a model.
    """
    import torch
    from torch import nn

    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                module.weight.normal_(0.0, 0.02, generator=random)
            elif isinstance(module, nn.BatchNorm2d):
                module.weight.normal_(1.0, 0.02, generator=random)
                module.bias.zero_()


def train(
    array: Pixels,
    spec: GanSpec,
    device: str,
    *,
    resume: Checkpoint | None = None,
    after_epoch: Callable[[Checkpoint], None] = lambda checkpoint: None,
) -> Checkpoint:
    """Train on uint8 (N, 3, 64, 64) for `spec.epochs` epochs, and return the state after the last one.

    The pictures go to the device once and stay there (1.5 GB for all of COCO). A batch has `min(spec.batch, N)` of
    them; an epoch is every full batch of a new order, so `N mod batch` pictures, others each time, are left out of it.
    Resuming from a checkpoint gives the same losses and weights as not having stopped (bit by bit on a CPU with the
    same number of threads).

    Args:
        after_epoch: called with the state after every epoch.

    Raises:
        TrainingFailed: fewer than two pictures (batch norm needs two), or losses or weights that are not finite.
    """
    import torch

    if len(array) < 2:
        raise TrainingFailed(f"a GAN needs at least 2 pictures to train on, got {len(array)}")
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        training = _Training(spec, device)
        pictures = torch.from_numpy(array).to(device)
        checkpoint = resume
        if resume is not None:
            training.restore(resume)
        for epoch in range(resume.epoch + 1 if resume else 1, spec.epochs + 1):
            training.run_epoch(pictures, epoch)
            checkpoint = training.checkpoint(epoch)
            after_epoch(checkpoint)
    assert checkpoint is not None  # spec.epochs is at least 1
    return checkpoint


class _Training:
    """Both networks, both optimisers and the three random generators of one training."""

    def __init__(self, spec: GanSpec, device: str) -> None:
        import torch

        self.spec = spec
        self.device = device
        self.random = {name: _random(spec.seed, name) for name in ("noise", "order", "mirror")}
        self.networks = {"generator": build_generator(spec), "discriminator": build_discriminator(spec)}
        self.optimisers = {}
        for name, network in self.networks.items():
            initialise(network, _random(spec.seed, name))
            network.to(device)
            on_gpu = device == "cuda"
            if on_gpu:
                network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            self.optimisers[name] = torch.optim.Adam(
                network.parameters(), lr=spec.learning_rate, betas=(spec.beta1, 0.999), fused=on_gpu or None
            )
        self.history = np.empty((0, len(HISTORY_COLUMNS)))

    def run_epoch(self, pictures: torch.Tensor, epoch: int) -> None:
        """One pass over uint8 (N, 3, 64, 64) on the device; its losses are appended to the history."""
        import torch

        batch = min(self.spec.batch, len(pictures))
        steps = len(pictures) // batch
        # All that is random goes to the device at once: a GPU would otherwise wait for it in every step.
        order = torch.randperm(len(pictures), generator=self.random["order"]).to(self.device)
        noise = self._drawn(steps, lambda: torch.randn(batch, self.spec.latent, 1, 1, generator=self.random["noise"]))
        mirrored = None
        if self.spec.flip:
            mirrored = self._drawn(steps, lambda: torch.rand(batch, generator=self.random["mirror"]) < 0.5)
        measured = []
        for network in self.networks.values():
            network.train()
        for number in range(steps):
            chosen = pictures[order[number * batch : (number + 1) * batch]]
            measured.append(self._step(chosen, noise[number], None if mirrored is None else mirrored[number]))
        # Fetched once per epoch: a GPU would otherwise wait for every step.
        values = torch.stack(measured).double().cpu().numpy()  # (steps, 4)
        if not np.isfinite(values).all():
            first = int(np.argmin(np.isfinite(values).all(axis=1)))
            raise TrainingFailed(
                f"the GAN diverged in epoch {epoch}, step {first + 1}: losses {values[first, 0]} (discriminator) and "
                f"{values[first, 1]} (generator); lower gan.learning_rate or change gan.seed"
            )
        rows = np.column_stack([np.full(steps, epoch), np.arange(1, steps + 1), values])
        self.history = np.concatenate([self.history, rows])

    def _drawn(self, steps: int, draw: Callable[[], torch.Tensor]) -> torch.Tensor:
        """What `steps` draws give, on the device. One draw of everything would be another stream for odd batches."""
        import torch

        return torch.stack([draw() for _ in range(steps)]).to(self.device)

    def _computed(self, name: str, batch: torch.Tensor) -> torch.Tensor:
        """What a network makes of a batch, in the precision of the specification."""
        import torch

        half = self.spec.precision != "float32"
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=half):
            computed: torch.Tensor = self.networks[name](batch)
        return computed.float()

    def _step(self, pictures: torch.Tensor, noise: torch.Tensor, mirrored: torch.Tensor | None) -> torch.Tensor:
        """One step of each network on uint8 (B, 3, 64, 64); returns loss_d, loss_g, d_real, d_fake.

        `noise` is float (B, latent, 1, 1); `mirrored`, bool (B,), says which pictures are turned round.
        """
        import torch
        from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

        batch = len(pictures)
        real = pictures.float() / 127.5 - 1.0
        if mirrored is not None:
            real = torch.where(mirrored[:, None, None, None], real.flip(-1), real)
        ones = torch.ones(batch, device=self.device)
        zeros = torch.zeros(batch, device=self.device)

        # Real and fake pass apart, so that each has batch statistics of its own (as the paper and the tutorial do).
        self.optimisers["discriminator"].zero_grad()
        fake = self._computed("generator", noise)
        real_logits = self._computed("discriminator", real).flatten()  # (B,)
        fake_logits = self._computed("discriminator", fake.detach()).flatten()
        loss_d = cross_entropy(real_logits, ones) + cross_entropy(fake_logits, zeros)
        loss_d.backward()
        self.optimisers["discriminator"].step()

        self.optimisers["generator"].zero_grad()
        loss_g = cross_entropy(self._computed("discriminator", fake).flatten(), ones)
        loss_g.backward()
        self.optimisers["generator"].step()
        d_real, d_fake = real_logits.sigmoid().mean(), fake_logits.sigmoid().mean()
        return torch.stack([loss_d, loss_g, d_real, d_fake]).detach()

    def checkpoint(self, epoch: int) -> Checkpoint:
        """A copy of the present state."""
        tensors: dict[str, npt.NDArray[Any]] = {}
        for name, network in self.networks.items():
            tensors |= finite_tensors(name, network.state_dict(), f"the GAN diverged in epoch {epoch}")
            known = optimiser_tensors(self.optimisers[name])
            tensors |= {f"{name}_adam/{key}": tensor for key, tensor in known.items()}
        for name, random in self.random.items():
            tensors[f"random/{name}"] = random.get_state().numpy().copy()
        return Checkpoint(epoch, tensors, self.history.copy())

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take over a checkpoint's state."""
        import torch

        for name, network in self.networks.items():
            _load(network, checkpoint.below(name))
            restore_optimiser(self.optimisers[name], checkpoint.below(f"{name}_adam"))
        for name, random in self.random.items():
            random.set_state(torch.from_numpy(checkpoint.tensors[f"random/{name}"].copy()))
        self.history = checkpoint.history.copy()


def load_generator(tensors: dict[str, npt.NDArray[Any]], spec: GanSpec, device: str) -> torch.nn.Sequential:
    """The generator with trained weights, ready for `generate_pictures`."""
    generator = build_generator(spec)
    _load(generator, tensors)
    return generator.to(device).eval()


def generate_pictures(generator: torch.nn.Sequential, seeds: Sequence[int], batch: int) -> Iterator[Pixels]:
    """One picture, uint8 (64, 64, 3), per seed, in order.

    The generator is put into evaluation mode, in which batch norm uses its running statistics: a picture depends on
    its own seed (0..2**63 - 1) alone, and on its batch by at most one level of rounding.
    """
    import torch

    generator.eval()
    first = next(generator.parameters())
    latent, device = first.shape[0], first.device
    for start in range(0, len(seeds), batch):
        randoms = [torch.Generator().manual_seed(seed) for seed in seeds[start : start + batch]]
        noise = torch.stack([torch.randn(latent, 1, 1, generator=random) for random in randoms])  # (B, latent, 1, 1)
        with torch.inference_mode():
            pictures = generator(noise.to(device))  # (B, 3, 64, 64)
        levels = ((pictures + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
        yield from levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def _random(seed: int, purpose: str) -> torch.Generator:
    import torch

    return torch.Generator().manual_seed(hash_seed("gan", seed, purpose))


def _load(network: torch.nn.Module, tensors: dict[str, npt.NDArray[Any]]) -> None:
    import torch

    network.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in tensors.items()})
