"""Which kind of device a task computes on. It is part of the recipes that depend on it, as `device`."""


def compute_device() -> str:
    """`cuda` where torch finds a usable GPU, else `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
