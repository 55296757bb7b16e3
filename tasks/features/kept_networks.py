"""`tasks.kept_networks`, by the name that extractors and detectors know."""

from tasks.kept_networks import networks_kept, shared_network

__all__ = ["networks_kept", "shared_network"]
