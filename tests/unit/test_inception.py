"""The 2015 Inception network: only that one, and only where it is named."""

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest

from storage.local import LocalStore
from tasks.features import inception
from tasks.features.inception import (
    CLASSES,
    FEATURES,
    Inception,
    InceptionUnavailable,
    check_inception,
    embed_pictures,
    import_inception,
    load_inception,
)


def test_a_missing_inception_file_is_an_error_that_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(InceptionUnavailable, match=r"does not exist: download weights-inception-2015"):
        load_inception(tmp_path / "none.pth")


def test_other_weights_are_refused_by_their_digest(tmp_path: Path) -> None:
    other = tmp_path / "weights-inception-2015-12-05-6726825d.pth"
    other.write_bytes(b"other")
    with pytest.raises(InceptionUnavailable, match=hashlib.sha256(b"other").hexdigest()):
        load_inception(other)


def test_a_missing_torch_fidelity_is_an_error_that_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"weights")
    monkeypatch.setattr(inception, "INCEPTION_2015_SHA256_START", "")
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(InceptionUnavailable, match="pip install torch-fidelity"):
        load_inception(path)


def test_missing_weights_are_named_before_any_work(tmp_path: Path) -> None:
    assert check_inception(None) == []
    (line,) = check_inception(str(tmp_path / "none.pth"))
    assert "does not exist" in line


def network_of_means() -> Inception:
    """Stands for the network: the features are the picture's mean, the probabilities are even."""

    def forward(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        means = images.reshape(len(images), -1).mean(axis=1, keepdims=True)
        return np.repeat(means, FEATURES, axis=1), np.full((len(images), CLASSES), 1 / CLASSES)

    return Inception("6726825d", forward)


def test_features_and_probabilities_stand_side_by_side_whatever_the_sizes() -> None:
    random = np.random.default_rng(0)
    equal = [random.integers(0, 256, (8, 8, 3), dtype=np.uint8) for _ in range(3)]
    mixed = [*equal, random.integers(0, 256, (12, 9, 3), dtype=np.uint8)]
    assert embed_pictures(network_of_means(), equal).shape == (3, FEATURES + CLASSES)
    found = embed_pictures(network_of_means(), mixed)
    assert np.allclose(found[:, 0], [picture.mean() for picture in mixed])
    assert np.allclose(found[:, FEATURES:].sum(axis=1), 1)


def test_the_weights_are_taken_into_the_store_by_their_digest(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"weights")
    sha256 = hashlib.sha256(b"weights").hexdigest()
    store = LocalStore(tmp_path / "store")
    ref, cached = import_inception.compute(store, sha256=sha256, path=str(path))
    assert not cached
    path.unlink()
    assert import_inception.compute(store, sha256=sha256, path="elsewhere") == (ref, True)
