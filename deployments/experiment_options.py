"""Which experiment a command is about: a preset, a YAML file, or folders of one's own pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from storage.errors import SpecError
from storage.paths import absolute

if TYPE_CHECKING:
    from tasks.spec.experiment import Experiment

ExperimentArgument = Annotated[
    str | None, typer.Argument(metavar="EXPERIMENT", help="A preset's name or a YAML file; or name folders instead.")
]
PhotographsOption = Annotated[
    list[Path] | None, typer.Option("--photographs", metavar="DIR", help="A folder of photographs; again for more.")
]
FakesOption = Annotated[
    list[str] | None,
    typer.Option("--fakes", metavar="NAME=DIR", help="A generator and the folder of its pictures; may be given again."),
]
DetectorsOption = Annotated[
    str | None,
    typer.Option("--detectors", metavar="NAME,...", help="For folders: which detectors (a wrong name lists them)."),
]
CellsOption = Annotated[
    str | None,
    typer.Option(
        "--cells",
        metavar="CELL,...",
        help="For folders: windows' sides and what happens to them, such as 256/none,256/q60.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A value over the experiment's, such as sources.gan.count=50."),
]
SubmissionsOption = Annotated[
    Path | None,
    typer.Option(
        "--submissions",
        metavar="DIR",
        help="A folder of tables of scores, one per detector, which are ranked beside the experiment's own.",
    ),
]
SeedOption = Annotated[int | None, typer.Option(help="The experiment's seed.")]


@dataclass(frozen=True)
class Chosen:
    """An experiment as flows are asked for it, as it was read, and sentences that say what was chosen for it."""

    name: str
    overrides: dict[str, Any]
    seed: int | None
    experiment: Experiment
    said: tuple[str, ...] = ()


def chosen(
    experiment: str | None,
    photographs: list[Path] | None,
    fakes: list[str] | None,
    detectors: str | None,
    cells: str | None,
    settings: list[str] | None,
    seed: int | None,
    submissions: Path | None = None,
) -> Chosen:
    """The experiment that options name; one of folders is written into the home first, to be read and changed.

    Raises:
        SpecError: both are named or neither, or the experiment is wrong.
        MissingInput: a folder, or what the experiment needs elsewhere than in paths.
    """
    # Experiments take a second to import: not for --help, nor for `telltale detect`.
    from tasks.overrides import parse_settings
    from tasks.presets import PRESETS, load_unfilled

    overrides, said = parse_settings(settings or []), tuple[str, ...]()
    if photographs or fakes:
        if experiment is not None:
            raise SpecError(f"name either an experiment ({experiment}) or folders of pictures, not both")
        named = names_in(detectors, "--detectors"), names_in(cells, "--cells")
        experiment, said = _written(photographs or [], fakes or [], *named, overrides)
        overrides = {}
    elif detectors is not None or cells is not None:
        raise SpecError("--detectors and --cells go with folders of pictures: an experiment has its own, see --set")
    if experiment is None:
        raise SpecError("name an experiment, or folders: --photographs DIR --fakes NAME=DIR")
    is_file = experiment.endswith((".yaml", ".yml")) or (PRESETS / f"{experiment}.yaml").is_file()
    if not is_file and absolute(experiment).is_dir():
        raise SpecError(f"{experiment} is a folder: say of what, as in --photographs DIR --fakes NAME=DIR")
    if submissions is not None:
        from deployments.submissions import with_submissions

        loaded = load_unfilled(experiment, overrides, seed)[0]
        overrides = overrides | {"detectors": with_submissions(loaded, submissions)}
    return Chosen(experiment, overrides, seed, load_unfilled(experiment, overrides, seed)[0], said)


def names_in(text: str | None, option: str) -> list[str]:
    """The names in the comma separated list of an option, none where it is not given; no name has a comma.

    Raises:
        SpecError: one is empty, or stands twice.
    """
    names = [] if text is None else [name.strip() for name in text.split(",")]
    if "" in names or len(set(names)) < len(names):
        raise SpecError(f"{option}: expected different names, parted by commas, got {text!r}")
    return names


def _written(
    photographs: list[Path], fakes: list[str], detectors: list[str], cells: list[str], settings: dict[str, Any]
) -> tuple[str, tuple[str, ...]]:
    import yaml

    from deployments.home_folder import home
    from deployments.own_pictures import document_of
    from storage.digest import sha256_hex

    document, said = document_of(photographs, fakes, detectors, cells, settings=settings)
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    # Another command writes another file, so that what somebody has changed is never written over.
    file = home() / "experiments" / f"{document['name']}.{sha256_hex(text.encode())[:8]}.yaml"
    if file.exists() and file.read_text(encoding="utf-8") != text:
        raise SpecError(f"{file} was changed since it was written: name it in place of the folders, or remove it")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return str(file), (*said, f"the experiment is {file}")
