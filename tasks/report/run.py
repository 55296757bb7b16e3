"""Gather what a run made and write its report: HTML, Markdown, and the tables as Parquet and CSV."""

import importlib.metadata
import json
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pyarrow as pa

from storage.objects import ROWS, PartContent, Ref, manifest_of, notes_of, read_part, read_table
from storage.store import Store
from storage.tables import COMPARISON_SCHEMA, LATENCY_SCHEMA, PAIR_SCHEMA, RANK_SCHEMA
from storage.weights import CARD
from tasks.data.entries import QUARANTINE
from tasks.data.grouping import warnings_on
from tasks.data.perturbations.kinds import NONE
from tasks.evaluation.cells import ROC, Scored, drawn_pictures
from tasks.evaluation.pairs import RANKS
from tasks.evaluation.protocols import STAGES
from tasks.evaluation.rejection import CONFUSION, CONFUSION_SCHEMA, DIFFERENCE_SCHEMA, DIFFERENCES, REJECTION_SCHEMA
from tasks.recipe import Output, StepRun, step
from tasks.report.calibration import reliability_bins
from tasks.report.counts import warnings_of
from tasks.report.data import FAIR, RELIABILITY, NetworkData, ReportData, main_mix
from tasks.report.page import render_html, render_markdown
from tasks.report.reported import FIRST_PROJECT, arithmetic_flags, read_reported
from tasks.report.reported_networks import SECOND_PROJECT, read_second_project
from tasks.report.sections import report_tables
from tasks.spec.detectors import Fit
from tasks.spec.experiment import SHUFFLED, Experiment, Mix

HTML, MARKDOWN = "report.html", "report.md"
LIBRARIES = (
    "prefect", "torch", "torchvision", "diffusers", "transformers", "scikit-learn", "scipy", "numpy", "polars",
    "pyarrow", "pillow", "simplejpeg",
)  # fmt: skip


@step("report", version=13, label=lambda experiment, **_: experiment.name, libraries=("jinja2", "polars", "pillow"))
def write_report(
    run: StepRun,
    *,
    experiment: Experiment,
    cells: tuple[Ref, ...],
    stages: tuple[Ref, ...],
    controls: tuple[Ref, ...],
    quality: tuple[Ref, ...],
    examples: Ref,
    counts: Ref,
    gans: tuple[Ref, ...],
    diffused: tuple[Ref, ...],
    heads: tuple[Ref, ...],
    assignment: Ref,
    features: tuple[Ref, ...],
    pairs: tuple[Ref, ...] = (),
    scored: tuple[Scored, ...] = (),
    comparisons: tuple[Ref, ...] = (),
    described: Ref | None = None,
    latency: Ref | None = None,
    rejections: tuple[Ref, ...] = (),
    trained: tuple[Ref, ...] = (),
) -> Output:
    """One report of a whole run; the tables lie beside it under `tables/` as Parquet and CSV.

    `scored` are the detectors' scores in every cell, whose calibration is drawn.

    The last five are about networks: their comparison in every cell, what they are and weigh, their times, how well
    they reject, and their weights, which are read for their training times alone. Without `described` the report has
    no section on networks.
    """
    store = run.store
    results = _results(store, cells, stages, controls)
    networks = _network_data(store, comparisons, described, latency, rejections)
    timed = (*gans, *diffused, *features, *heads, *cells, *stages, *trained, *pairs, *comparisons, *rejections)
    reported = read_reported(FIRST_PROJECT)
    counted = read_table(store, counts)
    data = ReportData(
        experiment=experiment,
        run_name=f"{experiment.name}-{run.digest[:12]}",
        created=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        results=results,
        reported=reported,
        flags=arithmetic_flags(reported),
        ablation_stages=[(stage.name, stage.title, stage.sentence) for stage in STAGES] if stages else [],
        roc=pl.concat([_frame(read_table(store, ref, name=ROC)) for ref in _of_the_grid(store, cells)]),
        examples=_frame(read_table(store, examples)),
        quality=pl.concat([_frame(read_table(store, ref)) for ref in quality]),
        quarantine=_frame(read_table(store, counts, name=QUARANTINE)),
        counts=_frame(counted),
        provenance=_provenance(store, experiment, assignment, gans, timed, results, networks),
        extra_pictures=_gan_pictures(store, gans),
        warnings=warnings_on(experiment.path, warnings_of(counted)),
        networks=networks,
        pairs=_all_rows(store, pairs, PAIR_SCHEMA),
        ranks=_all_rows(store, pairs, RANK_SCHEMA, RANKS),
        reliability=_reliability(store, scored, experiment),
    )
    return Output(_parts(data), {"run": data.run_name})


def _parts(data: ReportData) -> dict[str, PartContent]:
    """The two pages, and every table as Parquet and as CSV."""
    tables = report_tables(data) | {"results": data.results, "roc": data.roc}
    if (of := data.networks) is not None:
        tables |= {"comparison": of.comparison, "networks": of.networks, "latency": of.latency}
    parts: dict[str, PartContent] = {
        HTML: render_html(data).encode(),
        MARKDOWN: render_markdown(data).encode(),
    }
    for name, table in tables.items():
        parts[f"{name}.parquet"] = table.to_arrow()
        parts[f"{name}.csv"] = table.write_csv().encode()
    return parts


def _network_data(
    store: Store, comparisons: Sequence[Ref], described: Ref | None, latency: Ref | None, rejections: Sequence[Ref]
) -> NetworkData | None:
    """What a run knows of its networks; None where it described none."""
    if described is None:
        return None
    return NetworkData(
        comparison=_all_rows(store, comparisons, COMPARISON_SCHEMA),
        networks=_frame(read_table(store, described)),
        latency=_all_rows(store, () if latency is None else (latency,), LATENCY_SCHEMA),
        rejection=_all_rows(store, rejections, REJECTION_SCHEMA),
        confusion=_all_rows(store, rejections, CONFUSION_SCHEMA, CONFUSION),
        differences=_all_rows(store, rejections, DIFFERENCE_SCHEMA, DIFFERENCES),
        reported=read_second_project(SECOND_PROJECT),
    )


def _all_rows(store: Store, refs: Sequence[Ref], schema: pa.Schema, name: str = ROWS) -> pl.DataFrame:
    """The rows of one part of several objects; a table without rows where there are none."""
    return pl.concat([_frame(schema.empty_table()), *(_frame(read_table(store, ref, name=name)) for ref in refs)])


def _reliability(store: Store, scored: Sequence[Scored], experiment: Experiment) -> pl.DataFrame:
    """The reliability of every detector in every cell, on the drawn test pictures of the main mix."""
    name = main_mix(experiment).name
    columns = ["image_id", "source", "label", "split", "resolution", "perturbation", "p_fake"]
    known: dict[Mix, tuple[pl.DataFrame, pl.DataFrame]] = {}
    found = []
    for one in scored:
        scores = _frame(read_table(store, one.scores, columns))
        test = scores.filter(pl.col("split") == "test").sort("image_id", "source")
        # Photographs may stand in a mix under other names than in the experiment.
        for mix in (mix for mix in one.mixes if mix.name == name):
            asked = test.select("image_id", "source", "label")
            # The same pictures are asked about in most cells: they are drawn once.
            if not (mix in known and known[mix][0].equals(asked)):
                known[mix] = asked, drawn_pictures(asked, mix.real, mix.fakes, experiment.seed, mix.versions)
            drawn = test.join(known[mix][1], on=["image_id", "source"], how="semi").drop_nulls("p_fake")
            place = drawn.select(pl.lit(one.fit.detector).alias("detector"), "resolution", "perturbation").head(1)
            found.append(place.with_columns(mix=pl.lit(name)).join(reliability_bins(drawn), how="cross"))
    return pl.concat([pl.DataFrame(schema=RELIABILITY), *found])


def _of_the_grid(store: Store, cells: Sequence[Ref]) -> list[Ref]:
    """The results of the grid itself: curves do not say of which protocol they are."""
    return [ref for ref in cells if manifest_of(store, ref).recipe["arguments"].get("protocol") == FAIR]


def _durations(store: Store, refs: Sequence[Ref]) -> dict[str, float]:
    """Seconds that objects took, by the step that made them; each object counts once."""
    found: dict[str, float] = {}
    for ref in dict.fromkeys(refs):
        manifest = manifest_of(store, ref)
        found[manifest.step] = found.get(manifest.step, 0.0) + manifest.seconds
    return {step: round(seconds, 1) for step, seconds in found.items()}


def _results(store: Store, cells: Sequence[Ref], stages: Sequence[Ref], controls: Sequence[Ref]) -> pl.DataFrame:
    """All results in RESULT_SCHEMA; the first stage of the ablation is the seed protocol's table as well."""
    frames = [_frame(read_table(store, ref)) for ref in (*cells, *stages)]
    seed = [
        frame.with_columns(pl.lit("seed").alias("protocol"))
        for frame in frames
        if len(frame) and frame["protocol"][0] == STAGES[0].name
    ]
    return pl.concat([*frames, *seed, *(_control_row(store, control, frames[0]) for control in controls)])


def _control_row(store: Store, control: Ref, like: pl.DataFrame) -> pl.DataFrame:
    """A detector's control with shuffled labels as one row: the mean AUROC of its repeats and that mean's interval."""
    manifest = manifest_of(store, control)
    notes, head = manifest.notes, manifest.recipe["arguments"]["head"]
    row = dict.fromkeys(like.columns) | {
        "protocol": "control",
        "resolution": str(head["views"][0]["resolution"]),
        "perturbation": NONE,
        "mix": SHUFFLED,
        **Fit(detector=head["name"]).model_dump(),
        "metric": "auroc",
        "value": notes["mean"],
        "low": notes["low"],
        "high": notes["high"],
    }
    return pl.DataFrame([row], schema=like.schema)


def _provenance(
    store: Store,
    experiment: Experiment,
    assignment: Ref,
    gans: Sequence[Ref],
    timed: Sequence[Ref],
    results: pl.DataFrame,
    networks: NetworkData | None,
) -> dict[str, Any]:
    split_notes = notes_of(store, assignment)
    return {
        "seeds": {"experiment": experiment.seed, "bootstrap resamples": experiment.bootstrap_resamples},
        "weights": {
            "extractor": f"VGG16 {experiment.extractor.layer}, {experiment.extractor.weights}",
            **{f"GAN {ref.digest[:12]}": _gan_card(store, ref) for ref in gans},
        },
        "splits": {
            "duplicates": {name: _repeats(notes) for name, notes in split_notes["sources"].items()},
            "photographs that are fakes as well": split_notes["shared"]["count"],
            "groups merged for duplicates": split_notes["groups_merged_away"],
            "jpeg qualities of the photographs": _qualities(split_notes),
        },
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in LIBRARIES},
        },
        "durations": _durations(store, timed),
        "store": store.url,
        "digests": {
            "results": _content_digest(results),
            **({} if networks is None else {"comparison": _content_digest(networks.comparison)}),
        },
    }


def _repeats(notes: dict[str, Any]) -> str:
    """How many pictures of a source repeat an earlier one, of which source; for example `3 of coco, 1 of sd-1.4`."""
    return ", ".join(f"{count} of {source}" for source, count in notes["duplicates"].items()) or "none"


def _qualities(notes: dict[str, Any]) -> str:
    """Where the fair path's qualities come from; for example `71 to 96, of 500 photographs that are JPEGs`."""
    qualities = notes["qualities"]
    if notes["qualities_are_default"]:
        return f"{qualities[0][0]} for all: no photograph is a JPEG"
    count = sum(number for _, number in qualities)
    return f"{qualities[0][0]} to {qualities[-1][0]}, of {count} photographs that are JPEGs"


def _gan_card(store: Store, ref: Ref) -> str:
    card = json.loads(read_part(store, ref, CARD))
    return ", ".join(f"{key} {value}" for key, value in card.items() if isinstance(value, int | float | str))


def _content_digest(results: pl.DataFrame) -> str:
    from storage.digest import sha256_hex

    return sha256_hex(results.write_csv().encode())


def _gan_pictures(store: Store, gans: Sequence[Ref]) -> list[tuple[str, bytes]]:
    """Loss curves and the newest sample sheet of every GAN."""
    pictures = []
    for ref in gans:
        names = [part.name for part in manifest_of(store, ref).parts]
        sheets = sorted(name for name in names if name.startswith("sheet-"))
        for title, name in (
            ("GAN losses", "losses.png"),
            *((f"GAN {sheet[6:-4]} epochs", sheet) for sheet in sheets[-1:]),
        ):
            if name in names:
                pictures.append((title, read_part(store, ref, name)))
    return pictures


def _frame(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame
