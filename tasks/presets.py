"""Experiments as files: a preset or a YAML file, with overrides and environment variables, becomes an `Experiment`."""

import os
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from storage.errors import MissingInput, SpecError
from tasks.spec import Experiment, with_columns_as_sources

PRESETS = Path(__file__).parents[1] / "deployments" / "experiments"


def load_experiment(experiment: str, overrides: dict[str, Any] | None = None, seed: int | None = None) -> Experiment:
    """Read a preset by name or a YAML file by path, put overrides over it, and validate.

    Overrides are a nested mapping; dotted keys reach into it (`extractor.side`), and a source or mix is reached by its
    name (`sources.gan.count`), as is each source of a prompt-set. `${NAME}` and `${NAME:-default}` in texts are
    environment variables.

    Raises:
        SpecError: no such preset, an unknown field, or a value out of range: one sentence each.
        MissingInput: environment variables that the preset needs are not set.
    """
    loaded, unset = load_unfilled(experiment, overrides, seed)
    if unset:
        raise MissingInput(*unset)
    return loaded


def load_unfilled(
    experiment: str, overrides: dict[str, Any] | None = None, seed: int | None = None
) -> tuple[Experiment, tuple[str, ...]]:
    """`load_experiment` for a check that names everything missing at once.

    Environment variables that are not set stay in their texts as `${NAME}`; the second value says how to set each.
    """
    path = Path(experiment) if experiment.endswith((".yaml", ".yml")) else PRESETS / f"{experiment}.yaml"
    if not path.is_file():
        known = sorted(preset.stem for preset in PRESETS.glob("*.yaml"))
        raise SpecError(f"no experiment {experiment!r}: expected a YAML file or one of {known}")
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise SpecError(f"{path.name} is not readable as YAML: {error}") from error
    if not isinstance(document, dict):
        raise SpecError(f"{path.name}: expected a mapping, got {type(document).__name__}")
    # Before the overrides, so that these reach each of a prompt-set's sources by its name.
    document = with_columns_as_sources(document)
    for key, value in (overrides or {}).items():
        _put(document, key.split("."), value)
    if seed is not None:
        document["seed"] = seed
    missing: list[str] = []
    parsed = parse_experiment(_expand(document, missing))
    return parsed, tuple(
        f"environment variable {name}, which {path.name} needs: export it" for name in dict.fromkeys(missing)
    )


def parse_experiment(document: dict[str, Any]) -> Experiment:
    """Validate a document; `SpecError` with one line per problem, each with place and reason."""
    try:
        return Experiment.model_validate(document)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc']) or 'experiment'}: {problem['msg']}"
            + (f" (got {problem['input']!r})" if not isinstance(problem["input"], dict | list) else "")
            for problem in error.errors()
        )
        raise SpecError(f"broken experiment: {problems}") from error


def _put(document: Any, keys: list[str], value: Any) -> None:
    key, rest = keys[0], keys[1:]
    if isinstance(document, list):
        for item in document:
            if isinstance(item, dict) and item.get("name") == key:
                if not rest:
                    raise SpecError(f"override of {key!r} names no field")
                _put(item, rest, value)
                return
        names = [item.get("name") for item in document if isinstance(item, dict)]
        raise SpecError(f"override names {key!r}, expected one of {names}")
    if not isinstance(document, dict):
        raise SpecError(f"override reaches into {document!r}, which has no field {key!r}")
    if not rest:
        document[key] = value
        return
    _put(document.setdefault(key, {}), rest, value)


_VARIABLE = re.compile(r"\$\{([A-Z_][A-Z0-9_]*)(?::-([^}]*))?\}")


def _expand(value: Any, missing: list[str]) -> Any:
    if isinstance(value, dict):
        return {key: _expand(item, missing) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, missing) for item in value]
    if not isinstance(value, str):
        return value

    def look_up(match: re.Match[str]) -> str:
        found = os.environ.get(match[1]) or match[2]
        if found is None:
            missing.append(match[1])
            return match[0]
        return found

    # An optional variable that is not set leaves nothing: the field's default, not an empty text.
    return _VARIABLE.sub(look_up, value) or (None if value else value)
