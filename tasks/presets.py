"""Experiments as files: a preset or a YAML file, with overrides and environment variables, becomes an `Experiment`."""

import os
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from storage.errors import MissingInput, SpecError
from storage.paths import with_home
from tasks.data.sources.column import with_columns_as_sources
from tasks.overrides import override
from tasks.spec.base import Spec
from tasks.spec.experiment import Experiment, fields_of_paths, spec_of
from tasks.strict_yaml import read_yaml
from tasks.variables import fill_in

PRESETS = Path(__file__).with_name("experiments")


def load_experiment(experiment: str, overrides: dict[str, Any] | None = None, seed: int | None = None) -> Experiment:
    """Read a preset by name or a YAML file by path, put overrides over it, and validate.

    Overrides are a nested mapping; dotted keys reach into it (`extractor.side`), and a source or mix is reached by its
    name (`sources.gan.count`), as is each source of a prompt-set. A mapping is merged into what is there, a list
    replaces it. `${NAME}` and `${NAME:-default}` in texts are environment variables (`tasks.variables`); those of paths
    stay as they are written, for the machines that have the data.

    Raises:
        SpecError: no such preset, an unknown field, or a value out of range: one sentence each.
        MissingInput: environment variables are not set that the preset needs elsewhere than in paths.
    """
    loaded, unset = load_unfilled(experiment, overrides, seed)
    if unset:
        raise MissingInput(*unset.values())
    return loaded


def load_unfilled(
    experiment: str, overrides: dict[str, Any] | None = None, seed: int | None = None
) -> tuple[Experiment, dict[str, str]]:
    """`load_experiment` for a check that names everything missing at once.

    Environment variables that are not set stay in their texts as `${NAME}`; the second value has the text that stays
    and how to set the variable, for those that do not stand in paths. Where a number hangs on one, nothing can be
    loaded, and `MissingInput` is raised.
    """
    path = _file_of(experiment)
    document = read_yaml(path)
    if not isinstance(document, dict):
        raise SpecError(f"{path.name}: expected a mapping, got {type(document).__name__}")
    # Before the overrides, so that these reach each of a prompt-set's sources by its name.
    document = with_columns_as_sources(document)
    override(document, overrides or {})
    if seed is not None:
        document["seed"] = seed
    names: list[str] = []
    filled = fill_in(document, names, kept=fields_of_paths())
    unset = {
        f"${{{name}}}": f"environment variable {name}, which {path.name} needs: export it"
        for name in dict.fromkeys(names)
    }
    return _parsed(filled, unset), unset


def parse_experiment(document: dict[str, Any]) -> Experiment:
    """Validate a document; `SpecError` with one line per problem, each with place and reason.

    Variables are looked for in paths only, which stay as they are written.
    """
    return _parsed(document, {})


def _file_of(experiment: str) -> Path:
    """The file of a preset's name or of a path."""
    if experiment.endswith((".yaml", ".yml")):
        path = Path(with_home(experiment))
        if os.path.lexists(path):
            return path
        found = [file.name for file in _listed(path.parent)]
        raise SpecError(f"no file {path.absolute()}{_near(path.name, found)}")
    known = sorted(preset.stem for preset in _listed(PRESETS))
    if experiment in known:
        return PRESETS / f"{experiment}.yaml"
    raise SpecError(f"no experiment {experiment!r}{_near(experiment, known)}: expected a YAML file or one of {known}")


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(file for file in folder.iterdir() if file.suffix in (".yaml", ".yml"))
    except OSError:
        return []


def _near(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known), n=2)
    return f", did you mean {' or '.join(close)}?" if close else ""


def _parsed(document: dict[str, Any], unset: dict[str, str]) -> Experiment:
    # As the model sees it, so that places in it are found again.
    document = with_columns_as_sources(document)
    try:
        return Experiment.model_validate(document)
    except ValidationError as error:
        problems = error.errors()
        known = [each for each in problems if not _hangs_on(each["input"], unset)]
        if not known:
            raise MissingInput(*unset.values()) from error
        raise SpecError(f"broken experiment: {'; '.join(_sentence(document, each) for each in known)}") from error


def _hangs_on(value: Any, unset: Iterable[str]) -> bool:
    return isinstance(value, str) and any(variable in value for variable in unset)


def _sentence(document: dict[str, Any], problem: Any) -> str:
    """Place and reason of one problem; the place as an override would name it."""
    place, spec = _place(document, problem["loc"])
    where = ".".join(place) or "experiment"
    got = problem["input"]
    if problem["type"] == "extra_forbidden":
        fields = [] if spec is None else list(spec.model_fields)
        known = f", expected one of {fields}" if fields else ""
        return f"{where}: there is no such field{_near(place[-1], fields) or known}"
    if problem["type"] == "union_tag_not_found":
        return f"{where}: it needs a kind"
    said = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "string_type" and isinstance(got, int | float):
        said += ": quote it to make it a text"
    return f"{where}: {said}" + (f" (got {_shown(got)})" if not isinstance(got, dict | list | tuple) else "")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _place(document: Any, loc: tuple[int | str, ...]) -> tuple[list[str], type[Spec] | None]:
    """Fields and names of items that lead to a problem, and the specification that its last field is looked for in."""
    place: list[str] = []
    node = document
    spec: type[Spec] | None = Experiment
    inside: type[Spec] | None = Experiment
    for part in loc:
        kind = spec_of(node.get("kind"), spec or Spec) if isinstance(node, dict) else None
        if kind is not None and spec is None and node["kind"] == part:
            spec = kind
            continue
        if kind is not None and spec is not None:
            spec = kind
        inside = spec
        if isinstance(part, int):
            node = node[part] if isinstance(node, list) and part < len(node) else None
            place.append(str(node["name"]) if isinstance(node, dict) and "name" in node else str(part))
            continue
        place.append(part)
        node = node.get(part) if isinstance(node, dict) else None
        field = None if spec is None else spec.model_fields.get(part)
        spec = None if field is None else _only_spec(field.annotation)
    return place, inside


def _only_spec(annotation: Any) -> type[Spec] | None:
    """The specification that an annotation names, None for a choice among several."""
    found = _specs_in(annotation)
    return found[0] if len(found) == 1 else None


def _specs_in(annotation: Any) -> list[type[Spec]]:
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        return [annotation]
    return [spec for argument in get_args(annotation) for spec in _specs_in(argument)]
