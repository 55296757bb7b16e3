"""Networks on a CPU that tasks of one process compute with together: their weights are 0.3 to 0.8 GB."""

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import WeakValueDictionary

T = TypeVar("T")

# Those that a task computes with, and those of the stages that are running.
_networks: WeakValueDictionary[Hashable, Any] = WeakValueDictionary()
_stages: list[dict[Hashable, Any]] = []
_making = threading.Lock()


@contextmanager
def networks_kept() -> Iterator[None]:
    """Until this block ends, a network stays for the next task of this process that computes with it."""
    kept: dict[Hashable, Any] = {}
    with _making:
        _stages.append(kept)
    try:
        yield
    finally:
        with _making:
            _stages.remove(kept)


def shared_network(key: Hashable, make: Callable[[], T]) -> T:
    """The one network of a key, made where there is none."""
    with _making:
        network: T | None = _networks.get(key)
        if network is None:
            network = _networks[key] = make()
        for kept in _stages:
            kept[key] = network
    return network
