"""Names of flow runs: what is done, of which experiment, what was changed in it, and a short digest of all of it.

`evaluate sample (sources.gan.count=50) 3f2a1b9c`: runs that compute the same have the same name, others have not.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from storage.digest import canonical_json, digest_of
from tasks.presets import load_unfilled

DIGEST_LENGTH = 8
CHANGES_LENGTH = 60
NAME_LENGTH = 40


@dataclass(frozen=True)
class Request:
    """What a run was asked for: the flow, a preset or file, and what is put over it."""

    flow: str
    experiment: str
    overrides: dict[str, Any] | None = None
    seed: int | None = None

    @property
    def title(self) -> str:
        """What people call it: with what was changed, and a digest."""
        return experiment_title(self.flow, self.experiment, self.overrides, self.seed)


def run_name(what: str) -> Callable[[], str]:
    """For `flow_run_name`: names the flow run that begins by its parameters `experiment`, `overrides` and `seed`."""

    def named() -> str:
        from prefect.runtime import flow_run

        # A name never fails a run: what is wrong with an experiment is said where it is read.
        try:
            given = flow_run.parameters
            return experiment_title(what, given.get("experiment", ""), given.get("overrides"), given.get("seed"))
        except Exception:
            return what

    return named


def experiment_title(what: str, experiment: str, overrides: Mapping[str, Any] | None = None, seed: Any = None) -> str:
    """`what`, the experiment's name, what was changed, and a digest: without it where the experiment is broken."""
    changes = [f"{key}={_value(value)}" for key, value in _dotted(overrides or {})]
    changes += [] if seed is None else [f"seed={seed}"]
    name, digest = _name_and_digest(experiment, overrides, seed)
    parts = [what, _short(name, NAME_LENGTH)]
    parts += [f"({_short(', '.join(changes), CHANGES_LENGTH)})"] if changes else []
    return " ".join(part for part in [*parts, digest] if part)


def _name_and_digest(experiment: str, overrides: Mapping[str, Any] | None, seed: Any) -> tuple[str, str]:
    try:
        # Variables that are not set do not matter: a coordinator needs none of them.
        loaded, _ = load_unfilled(experiment, dict(overrides or {}), seed)
        return loaded.name, digest_of(loaded.model_dump(mode="json"))[:DIGEST_LENGTH]
    except Exception:
        return PurePath(str(experiment)).stem, ""


def _dotted(overrides: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in overrides.items():
        if isinstance(value, Mapping) and value:
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _value(value: Any) -> str:
    return value if isinstance(value, str) else canonical_json(value)


def _short(text: str, length: int) -> str:
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    return plain if len(plain) <= length else f"{plain[: length - 1]}…"
