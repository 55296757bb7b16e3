"""`telltale detect`: what a published network says of pictures from anywhere."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from deployments.picture_list import listed_pictures, read_picture
from storage.errors import BadImage, MissingInput, ObjectMissing, StoreError, TelltaleError
from storage.opening import open_store, store_url
from storage.paths import with_home
from storage.runs import finished_at, latest_run, latest_runs, published_networks
from storage.store import STORE_SETTING, Store

if TYPE_CHECKING:
    from rich.console import Console

    from tasks.data.file_statements import FileStatements
    from tasks.networks.answer import Answer, Card, Kind, Rate
    from tasks.networks.exported import ExportedNetwork

SOME_UNREADABLE, USAGE = 1, 2
# What a card may say of a kind of picture.
ERRORS = ("false_alarms", "missed", "photographs_undecided", "generated_undecided", "missed_unknown")
# As a shell reports a program that the end of its output's reader has ended.
READER_GONE = 141

DIGEST_SHOWN = 12
# The network that comes with telltale; its card lies beside it, in words as well.
SHIPPED_NETWORK = Path(__file__).parents[1] / "models" / "traces.onnx"

# Fewer pictures are answered before a bar is seen.
LEAST_WITH_A_BAR = 20

# Why a model has no answer.
NO_ANSWER = {
    "format": "this model was not tested with files of this format",
    # No more than that: pictures of unknown generators are seldom unlike those that a network knows.
    "unfamiliar": "it is unlike the pictures that this model was trained on, which says little of who made it",
    "between": "it may be either",
}

DEMONSTRATION = (
    "This network began with random weights and shows that everything works; its answers say nothing of a picture."
)

T = TypeVar("T")


@dataclass(frozen=True)
class Model:
    """A network that is ready to answer, its card, and the size of its file in bytes."""

    network: ExportedNetwork
    card: Card
    size: int


@dataclass(frozen=True)
class Said:
    """What a network says of a picture by its pixels, and beside it, never mixed in, what the file says of itself."""

    answer: Answer
    file: FileStatements


FilesFromOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="A list of pictures, a name per line; - for standard input.")
]
JsonOption = Annotated[
    bool,
    typer.Option(
        "--json",
        help="One JSON object per picture and line: picture, verdict (photograph, generated, cannot-tell, "
        "unknown-source), reason (of cannot-tell), source, source_name, p_fake, threshold, photograph_threshold, "
        "probabilities, familiarity, kind, error_rates, model, file_says (of its origin, unverified and never part of "
        "the verdict); or picture, error. A name that is no UTF-8 has its bytes as base64 in picture_bytes, too.",
    ),
]


def detect(
    pictures: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PICTURE|DIR|-",
            help="Image files: JPEG, PNG, GIF, WebP, BMP, TIFF, AVIF; folders of them; or - for one on standard input.",
        ),
    ] = None,
    files_from: FilesFromOption = None,
    recursive: Annotated[bool, typer.Option("--recursive", help="Look into the folders of folders, too.")] = False,
    model: Annotated[
        Path | None,
        typer.Option(metavar="FILE.onnx", help="An exported network, with its card FILE.json beside it."),
    ] = None,
    experiment: Annotated[
        str | None,
        typer.Option(help="Take the network from this experiment's newest run, in place of the one of telltale."),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            help="Which of a run's networks, else its first, the uncompressed one; of the newest run of any experiment."
        ),
    ] = None,
    as_json: JsonOption = False,
    as_csv: Annotated[
        bool,
        typer.Option(
            "--csv",
            help="One line per picture: picture, verdict, source, p_fake, threshold, photograph_threshold, error.",
        ),
    ] = False,
) -> None:
    """Say of each PICTURE whether it is a photograph or was generated, or that this cannot be told.

    By the network that comes with telltale (models/), or by one of your own: of a run in the store (TELLTALE_STORE),
    which names the generator, or of a file. The error rates are those of the nearest kind of
    picture that the network was tested in, and no promise for pictures that differ otherwise. Kinds to which something
    else than a JPEG encoding happened are never the nearest: a file does not tell what happened before it was saved.
    """
    if model is not None and (experiment is not None or network is not None):
        raise typer.BadParameter("--model names a file; --experiment and --network choose from the store")
    if as_json and as_csv:
        raise typer.BadParameter("answers are either --json or --csv")
    try:
        listed = listed_pictures(pictures or (), files_from, recursive=recursive)
        chosen = chosen_model(model, experiment, network)
        failures = 0
        show = show_json if as_json else CsvLines().show if as_csv else Terminal().show
        for picture, answered in with_a_bar(answers(chosen, listed), len(listed)):
            failures += isinstance(answered, BadImage)
            show(picture, answered, chosen)
    except TelltaleError as error:
        typer.echo(f"error: {one_line(str(error))}", err=True)
        raise typer.Exit(USAGE) from error
    except BrokenPipeError as error:
        raise typer.Exit(READER_GONE) from error
    raise typer.Exit(SOME_UNREADABLE if failures else 0)


def answers(model: Model, pictures: list[Path]) -> Iterator[tuple[Path, Said | BadImage]]:
    """What the model and the file say of each picture, or why it cannot be read; on all cores, in order."""
    from tasks.data.file_statements import file_statements
    from tasks.networks.answer import answer
    from tasks.threads import in_order, parallel_tasks

    def said(picture: Path) -> tuple[Path, Said | BadImage]:
        try:
            data = read_picture(picture)
            return picture, Said(answer(model.network, model.card, data), file_statements(data))
        except BadImage as error:
            return picture, error

    threads = max(1, min(parallel_tasks(), len(pictures)))
    with closing(in_order(said, pictures, threads=threads, ahead=2 * threads)) as answered:
        yield from answered


def with_a_bar(answered: Iterator[T], count: int) -> Iterator[T]:
    """The same, with a bar on the error output, where a person watches that and the answers go elsewhere."""
    if count < LEAST_WITH_A_BAR or sys.stdout.isatty() or not sys.stderr.isatty():
        yield from answered
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(answered, total=count, description="pictures", console=Console(stderr=True), transient=True)


def chosen_model(file: Path | None, experiment: str | None, network: str | None) -> Model:
    """The network of a file, of a run, or, where none is named, the one that comes with telltale; errors as theirs."""
    if file is not None:
        return local_model(file)
    if experiment is not None or network is not None:
        return published_model(experiment, network)
    return local_model(SHIPPED_NETWORK)


def local_model(path: Path) -> Model:
    """The model of a file whose card lies beside it.

    Raises:
        MissingInput: the model or its card is missing or cannot be read.
        TelltaleError: they do not belong together, or are none (`ready_model`).
    """
    path = Path(with_home(str(path)))
    if not path.name:
        raise MissingInput(f"an exported network at {path} (a folder)")
    files = {"an exported network": path, "its card": path.with_suffix(".json")}
    found = {}
    for what, file in files.items():
        try:
            found[what] = file.read_bytes()
        except OSError as error:
            raise MissingInput(f"{what} at {file} ({error.strerror})") from error
    return ready_model(*found.values())


def published_model(experiment: str | None, network: str | None) -> Model:
    """A network of a run in the store: of an experiment's newest run, or of the newest that published any.

    Raises:
        MissingInput: no run has networks.
        ObjectMissing: no run of this experiment, or no such network in it.
        StoreError: the store cannot be read.
    """
    try:
        return ready_model(*published_files(open_store(), experiment, network))
    except OSError as error:
        raise StoreError(f"cannot read {store_url()} ({STORE_SETTING}): {error}") from error


def published_files(store: Store, experiment: str | None, network: str | None) -> tuple[bytes, bytes]:
    """The file and the card of a published network; errors as `published_model`."""
    place = latest_run(store, experiment) if experiment is not None else newest_run_with_networks(store)
    names = published_networks(store, place)
    if not names:
        raise MissingInput(f"networks in {place} of {store.url}: the experiment {experiment!r} has none")
    name = names[0] if network is None else network
    if name not in names:
        raise ObjectMissing(f"no network {name!r} in {place} of {store.url}, only {', '.join(names)}")
    return store.read(f"{place}/models/{name}.onnx"), store.read(f"{place}/models/{name}.json")


def newest_run_with_networks(store: Store) -> str:
    """The place of the newest run of any experiment that published networks.

    Raises:
        MissingInput: there is none.
    """
    finished = [place for place in sorted({*latest_runs(store).values()}) if published_networks(store, place)]
    if not finished:
        raise MissingInput(
            f"a run with networks in {store.url} ({STORE_SETTING}): make one with `telltale evaluate sample`, "
            "or name an exported network with --model FILE.onnx"
        )
    return max(finished, key=lambda place: finished_at(store, place))


def ready_model(model: bytes, card: bytes) -> Model:
    """A network from the bytes of its file and its card.

    Raises:
        SpecError: the card is none of an evaluated network, or of other classes.
        DamagedObject: the file is no exported network, or not the card's.
        WrongAnswers: this machine computes other answers than the card's.
    """
    # ONNX Runtime and pyarrow take half a second: not for --help, nor for a wrong command.
    from tasks.networks.answer import Card
    from tasks.networks.exported import ExportedNetwork

    read = Card.read(card)
    facts = read.model_dump(include={"sha256", "classes", "self_test"})
    return Model(ExportedNetwork(model, facts), read, len(model))


def show_json(picture: Path, answered: Said | BadImage, model: Model) -> None:
    """One picture's answer, or what is wrong with it, as one line of JSON."""
    typer.echo(json.dumps(_json_name(picture) | _json_of(answered, model), allow_nan=False))


def _json_name(picture: Path) -> dict[str, str]:
    """A file's name as text; where its bytes are no UTF-8, which JSON is, these too."""
    name = os.fsencode(picture)
    try:
        return {"picture": name.decode()}
    except UnicodeDecodeError:
        return {"picture": name.decode(errors="replace"), "picture_bytes": base64.b64encode(name).decode()}


def _json_of(answered: Said | BadImage, model: Model) -> dict[str, Any]:
    if isinstance(answered, BadImage):
        return {"error": {"reason": answered.reason, "detail": answered.detail}}
    return _answer_json(answered.answer, model) | {"file_says": _statements_json(answered.file)}


def _statements_json(says: FileStatements) -> dict[str, Any]:
    from tasks.data.file_statements import statements_in_words

    return asdict(says) | {"in_words": statements_in_words(says)}


def _answer_json(answered: Answer, model: Model) -> dict[str, Any]:
    kind = answered.kind
    return {
        "verdict": answered.verdict,
        "reason": answered.reason,
        "source": answered.source,
        "source_name": None if answered.source is None else model.card.called(answered.source),
        "p_fake": answered.p_fake,
        "threshold": answered.threshold,
        "photograph_threshold": answered.photograph_threshold,
        "probabilities": answered.probabilities,
        "familiarity": {
            "score": answered.rejection_score,
            "value": answered.familiarity[answered.rejection_score],
            "threshold": answered.rejection_threshold,
            "scores": answered.familiarity,
        },
        "kind": {
            "format": kind.format,
            "shorter_side": kind.shorter_side,
            "jpeg_quality": kind.jpeg_quality,
            "tested_as": {"cell": kind.cell, "side": kind.tested_side, "jpeg_quality": kind.tested_quality},
        },
        "error_rates": answered.errors.model_dump(include=set(ERRORS), exclude_none=True),
        "model": {"name": model.card.name, "sha256": model.card.sha256, "bytes": model.size}
        | {"demonstration": model.card.about.is_demonstration},
    }


class CsvLines:
    """Answers as a table with a head, for spreadsheets."""

    columns = ("picture", "verdict", "source", "p_fake", "threshold", "photograph_threshold", "error")

    def __init__(self) -> None:
        self._has_head = False

    def show(self, picture: Path, answered: Said | BadImage, model: Model) -> None:
        """Print one answer, or what is wrong with a picture, as a line."""
        row = _json_name(picture) | _json_of(answered, model)
        if isinstance(answered, BadImage):
            row["error"] = f"{answered.reason}: {answered.detail}"
        sink = io.StringIO()
        writer = csv.writer(sink, lineterminator="\n")
        if not self._has_head:
            writer.writerow(self.columns)
            self._has_head = True
        writer.writerow([row.get(name) for name in self.columns])
        typer.echo(sink.getvalue(), nl=False)


class Terminal:
    """Answers for people, on the standard output; what could not be read, one line each, on the error output."""

    def __init__(self) -> None:
        from rich.console import Console

        class Output(Console):
            def on_broken_pipe(self) -> None:
                # Rich would end the process itself, with the status of an unreadable picture.
                raise BrokenPipeError

        self._console: Console = Output(highlight=False, markup=False, emoji=False)

    def show(self, picture: Path, answered: Said | BadImage, model: Model) -> None:
        """Print one answer, or why there is none."""
        if isinstance(answered, BadImage):
            typer.echo(f"{one_line(str(picture))}: {one_line(str(answered))}", err=True)
            return
        from rich.table import Table

        self._console.print(one_line(str(picture)), soft_wrap=True)
        lines = Table.grid(padding=(0, 2))
        lines.add_column(no_wrap=True)
        lines.add_column(overflow="fold")
        for name, text in described(answered, model.card):
            lines.add_row(f"  {name}", text, style="bold" if name == "verdict" else None)
        self._console.print(lines)
        self._console.print()


def described(said: Said, card: Card) -> Iterator[tuple[str, str]]:
    """An answer in words, line by line: a label and its text."""
    from tasks.data.file_statements import statements_in_words

    answered = said.answer
    if card.about.is_demonstration:
        yield "demonstration", DEMONSTRATION
    yield "verdict", verdict_in_words(answered, card)
    yield "probability", probability_in_words(answered)
    if len(card.classes) > 2:
        classes = (f"{card.called(name)} {_percent(value)}" for name, value in answered.probabilities.items())
        yield "classes", ", ".join(classes)
    yield "picture", picture_in_words(answered.kind, card.windows)
    if not answered.is_untested_format:
        yield "error rate", errors_in_words(answered)
    for sentence in statements_in_words(said.file):
        yield "file says", one_line(sentence)
    kind = ", a demonstration" if card.about.is_demonstration else ""
    yield "model", f"{one_line(card.name)}{kind}, sha256 {card.sha256[:DIGEST_SHOWN]}"


def verdict_in_words(answered: Answer, card: Card) -> str:
    """The verdict as a person reads it."""
    if answered.reason is not None:
        return f"Cannot tell: {NO_ANSWER[answered.reason]}"
    if answered.photograph_threshold is not None:
        return "Probably generated" if answered.verdict == "generated" else "Probably a photograph"
    if answered.source is not None:
        return f"Generated: {card.called(answered.source)}"
    if answered.verdict == "generated":
        return "Generated"
    if answered.verdict == "photograph":
        return "Photograph"
    return f"Cannot tell: {NO_ANSWER['unfamiliar']}"


def probability_in_words(answered: Answer) -> str:
    """The calibrated probability, what it is compared with, and what it means."""
    compared = f"{_percent(answered.p_fake)} generated; from {_percent(answered.threshold)} it counts as generated"
    if answered.photograph_threshold is not None:
        return f"{compared}, below {_percent(answered.photograph_threshold)} as a photograph."
    if answered.is_unfamiliar:
        return f"{compared}. It means little here: it was calibrated on sources that the model knows."
    # Calibrated where photographs and generated pictures weigh the same.
    return f"{compared}. Were half of all pictures generated, that share of those with this answer would be."


def picture_in_words(kind: Kind, windows: int | None) -> str:
    """The picture's own facts, and the tested kind that it is nearest to."""
    quality = "" if kind.jpeg_quality is None else f" of quality {kind.jpeg_quality}"
    saved = "without further compression" if kind.tested_quality is None else f"JPEG of quality {kind.tested_quality}"
    pixels = f"{kind.tested_side} pixels" if windows is None else f"windows of {kind.tested_side} original pixels"
    return (
        f"{kind.format}{quality}, shorter side {kind.shorter_side} pixels; nearest kind that was tested: "
        f"{kind.cell} ({pixels}, {saved})"
    )


def errors_in_words(answered: Answer) -> str:
    """How often the model was wrong in this kind of picture, or silent, in a sentence or two."""
    errors = answered.errors
    false_alarms = _rate(errors.false_alarms, "photographs")
    missed = _rate(errors.missed, "generated pictures")
    said = f"In that kind of picture this model called {false_alarms} generated and {missed} photographs."
    unknown = errors.missed_unknown
    if unknown is not None and unknown.value is not None:
        spread = f"{100 * (unknown.low or 0):.1f} to {100 * (unknown.high or 0):.1f} by generator"
        said += f" Of generators that it had never seen it called {100 * unknown.value:.1f} % photographs ({spread})."
    if errors.photographs_undecided is not None and errors.generated_undecided is not None:
        undecided = _rate(errors.photographs_undecided, "photographs")
        said += f" It gave no answer to {undecided} and {_rate(errors.generated_undecided, 'generated pictures')}."
    return said


def _rate(rate: Rate, of: str) -> str:
    if rate.value is None:
        return f"(none tested) of {of}"
    interval = "too few for an interval"
    if rate.low is not None and rate.high is not None:
        interval = f"{100 * rate.low:.1f} to {100 * rate.high:.1f}"
    return f"{100 * rate.value:.1f} % ({interval}) of {rate.n} {of}"


def _percent(share: float) -> str:
    """A share in per cent, except where its rounding would claim certainty."""
    if share < 0.001:
        return "under 0.1 %"
    return "over 99.9 %" if share > 0.999 else f"{100 * share:.1f} %"


def one_line(text: str) -> str:
    """Text from elsewhere as it may be printed: line breaks, escapes and other unprintable characters are replaced."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
