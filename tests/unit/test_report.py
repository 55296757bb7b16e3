"""The report says what the data say, in one file that loads nothing, and shows untrusted text as text."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest
from PIL import Image
from sklearn.calibration import calibration_curve

from storage.tables import RESULT_SCHEMA
from tasks.data.entries import quarantined
from tasks.data.perturbations.jpeg import jpeg
from tasks.data.perturbations.kinds import name_of
from tasks.evaluation.cells import ROC_SCHEMA
from tasks.presets import parse_experiment
from tasks.report import plots
from tasks.report.blocks import SHOWN_ROWS, Gallery, Heats, Table, Text
from tasks.report.calibration import BINS, calibration_blocks, reliability_bins
from tasks.report.cross import cross_blocks
from tasks.report.data import RELIABILITY, CellKey, ReportData, ResultIndex, mistakes_link, seed_key
from tasks.report.flags import flag_blocks
from tasks.report.headline import headline_blocks, worst_told
from tasks.report.page import MARKDOWN_BYTES, escape_markdown, render_html, render_markdown
from tasks.report.quarantine import counts_blocks
from tasks.report.reported import FIRST_PROJECT, ReportedRow, arithmetic_flags, read_reported
from tasks.report.script import SCRIPT
from tasks.report.sections import report_sections, report_tables
from tasks.spec.detectors import Fit
from tasks.spec.experiment import Experiment

NASTY = '<script>alert("x")</script>|`*_[a](javascript:b)'
STAGES = (
    ("ablation-0", "all defects", "The seed protocol as it was."),
    ("ablation-1", "same quality", "Photographs and fakes are compressed alike."),
    ("ablation-2", "no stretching", "Pictures are cropped to a square before they are resized."),
    ("ablation-3", "own features", "The SVM is fitted on features of its own resolution."),
    ("ablation-4", "scaled, C chosen", "Features are scaled and C is chosen on validation."),
    ("ablation-5", "threshold chosen", "The threshold is chosen on validation instead of 0."),
    ("ablation-6", "canonical form", "Every picture takes the fair path."),
)
RESULTS = pl.DataFrame(RESULT_SCHEMA.empty_table()).schema
ROC_TYPES = pl.DataFrame(ROC_SCHEMA.empty_table()).schema
RESOLUTIONS, PERTURBATIONS = ("native", "256", "64"), ("none", "q60", "q40", "q20")
SVM, AUGMENTED, PROBE = Fit(detector="svm"), Fit(detector="svm-aug"), Fit(detector="probe", role="probe")


def make_experiment(weights: str = "imagenet", fakes: int = 3, seed_protocol: bool = True) -> Experiment:
    sources: list[dict[str, Any]] = [
        {"kind": "coco", "name": "coco", "directory": "somewhere"},
        {"kind": "gan", "name": "gan", "trained_on": "coco", "count": 300},
        {"kind": "folder", "name": "stable-diffusion-2-1", "path": "sd21", "label": "fake"},
        {"kind": "folder", "name": "sd14", "path": "sd14", "label": "fake"},
    ]
    return parse_experiment(
        {
            "name": "example",
            "description": "COCO photographs against a DCGAN and two diffusion models.",
            "sources": sources[: fakes + 1],
            "extractor": {"layer": "pool5-avg", "weights": weights},
            "seed_protocol": {"real": "coco", "gan": "gan", "stable": "stable-diffusion-2-1"}
            if seed_protocol
            else None,
            "mixes": [
                *(
                    {"name": source["name"], "real": ["coco"], "fakes": [source["name"]]}
                    for source in sources[1 : fakes + 1]
                ),
                *(
                    [{"name": "combined", "real": ["coco"], "fakes": ["gan", "stable-diffusion-2-1"]}]
                    if fakes > 1
                    else []
                ),
            ],
        }
    )


def result(protocol: str, mix: str, resolution: str, perturbation: str, fit: Fit, **values: Any) -> dict[str, Any]:
    row = dict.fromkeys(RESULT_SCHEMA.names)
    sizes = {"n_real": 354, "n_fake": 300, "n_groups": 354}
    return {**row, "protocol": protocol, "mix": mix, "resolution": resolution, "perturbation": perturbation} | {
        **fit.model_dump(), **sizes, **values
    }  # fmt: skip


def make_results(experiment: Experiment, intervals: bool = True, **ease: float) -> list[dict[str, Any]]:
    """Made-up rows that look like a run's: `ease` overrides by mix the AUROC of the native, uncompressed cell."""
    known = {"gan": 0.985, "stable-diffusion-2-1": 0.87, "sd14": 0.81, "combined": 0.91} | ease

    def estimate(value: float, half: float) -> dict[str, Any]:
        if not intervals:
            return {"value": value, "reason": "n/a: fewer than ten groups", "n_groups": 4}
        return {"value": value, "low": max(0.0, value - half), "high": min(1.0, value + half)}

    def cell_rows() -> Iterator[dict[str, Any]]:
        for mix in experiment.all_mixes:
            for at, resolution in enumerate(RESOLUTIONS):
                for strength, perturbation in enumerate(PERTURBATIONS):
                    yield from grid_cell(mix.name, at, resolution, strength, perturbation)

    def grid_cell(mix: str, at: int, resolution: str, strength: int, perturbation: str) -> Iterator[dict[str, Any]]:
        top = max(known[mix] - 0.05 * at - 0.045 * strength * (1 + 0.4 * at), 0.44)
        fits = {
            SVM: top,
            AUGMENTED: min(top + 0.02 * strength, 1.0),
            PROBE: 0.5 + (0.08 if mix == "gan" else 0.01),
        }
        if perturbation == "none":
            fits |= {Fit(detector="svm", seed=1): top - 0.011, Fit(detector="svm", seed=2): top + 0.007}
            if mix != "combined":
                fits |= {
                    Fit(detector="svm", fitted_on=one): top if one == mix else 0.5 + 0.2 * (top - 0.5)
                    for one in experiment.fake_names
                }
        for fit, auroc in fits.items():
            for metric, shift in (
                ("auroc", 0.0),
                ("average_precision", -0.01),
                ("ece", 0.06 - auroc),
                ("eer", 0.9 - 2 * auroc + 0.1),
            ):
                number = min(max(auroc + shift + (0.02 * strength if metric == "ece" else 0), 0.0), 1.0)
                yield result("fair", mix, resolution, perturbation, fit, metric=metric, **estimate(number, 0.032))
            for rule, loss in (("val", 0.07), ("half", 0.09), ("oracle", 0.06)):
                for metric in ("accuracy", "balanced_accuracy", "precision", "recall", "f1"):
                    number = max(auroc - loss, 0.45)
                    values = {"metric": metric, "threshold_rule": rule, **estimate(number, 0.03)}
                    yield result("fair", mix, resolution, perturbation, fit, **values)
                values = {"metric": "threshold", "threshold_rule": rule, "value": 0.47}
                yield result("fair", mix, resolution, perturbation, fit, **values)

    rows = list(cell_rows())
    if experiment.seed_protocol is not None:
        rows += seed_rows()
    for mix in experiment.all_mixes:
        rows.append(result("control", mix.name, "64", "none", SVM, metric="auroc", **estimate(0.507, 0.04)))
    return rows


def seed_rows() -> Iterator[dict[str, Any]]:
    for number, row in enumerate(read_reported(FIRST_PROJECT)):
        key = seed_key(row)
        for stage in ("seed", *(name for name, *_ in STAGES)):
            place = 0 if stage == "seed" else int(stage[-1])
            accuracy = (row.accuracy or 0.83) + 0.01 * (number % 3) - 0.03 * place
            for metric in ("accuracy", "precision", "recall", "f1"):
                rule = "val" if place >= 5 else "zero"
                bounds: dict[str, Any] = {"low": accuracy - 0.03, "high": accuracy + 0.03} if place == 6 else {}
                yield result(stage, *key, SVM, metric=metric, threshold_rule=rule, value=accuracy, **bounds)
            yield result(stage, *key, SVM, metric="auroc", value=min(accuracy + 0.05, 1.0))


def strip(width: int, height: int, seed: int) -> bytes:
    """PNG bytes of a row of blurred blots."""
    noise = np.random.default_rng(seed).integers(0, 256, (max(height // 16, 2), max(width // 16, 2), 3), dtype=np.uint8)
    target = io.BytesIO()
    Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(target, format="PNG")
    return target.getvalue()


def make_roc(experiment: Experiment, points: int = 400) -> pl.DataFrame:
    fpr = np.linspace(0, 1, points)
    frames = [
        pl.DataFrame({"fpr": fpr, "tpr": fpr ** (0.95 if fit == PROBE else 0.12 + 0.12 * at + 0.1 * strength)})
        .with_columns(resolution=pl.lit(resolution), perturbation=pl.lit(perturbation), mix=pl.lit(mix.name))
        .with_columns(pl.lit(value, ROC_TYPES[name]).alias(name) for name, value in fit.model_dump().items())
        for mix in experiment.all_mixes
        for at, resolution in enumerate(RESOLUTIONS)
        for strength, perturbation in enumerate(PERTURBATIONS)
        for fit in (SVM, PROBE)
    ]
    return pl.concat(frames)


def make_examples(experiment: Experiment) -> pl.DataFrame:
    sides = {"native": 128, "256": 96, "64": 64}
    return pl.DataFrame(
        [
            {"source": source.name, "view": f"fair/{resolution}/{perturbation}",
             "png": strip(5 * sides[resolution], sides[resolution], number)}
            for number, source in enumerate(experiment.sources)
            for resolution in RESOLUTIONS
            for perturbation in PERTURBATIONS
        ]
    )  # fmt: skip


QUALITY_SCHEMA = {
    "source": pl.String, "resolution": pl.String, "jpeg_quality": pl.Int16, "metric": pl.String, "value": pl.Float64,
    "low": pl.Float64, "high": pl.Float64, "n_real": pl.Int32, "n_fake": pl.Int32, "note": pl.String,
}  # fmt: skip
COUNTS_SCHEMA = {
    "source": pl.String, "label": pl.String, "split_or_fold": pl.String, "images": pl.Int32, "groups": pl.Int32,
    "left_out": pl.Int32, "quarantined": pl.Int32, "duplicates": pl.Int32, "collapse_rate": pl.Float64,
    "files": pl.Int32, "no_jpegs": pl.Int32, "own_tables": pl.Int32, "own_tables_quality": pl.Int16,
}  # fmt: skip
QUARANTINE_SCHEMA = {"source": pl.String, "image_id": pl.String, "reason": pl.String, "detail": pl.String}


def make_data(experiment: Experiment | None = None, intervals: bool = True, **changes: Any) -> ReportData:
    experiment = experiment or make_experiment()
    reported = read_reported(FIRST_PROJECT)
    quality = [
        (source, resolution, None, metric, value, value - 3, value + 3, 283, 283, "distances of this network only")
        for resolution in RESOLUTIONS
        for source, value in (("gan", 61.3), ("sd14", 22.9))
        for metric in ("Frechet-VGG16-pool5avg", "Kernel-VGG16-pool5avg")
    ] + [("gan", "64", None, "FID", None, None, None, 283, 300, "fewer than 2,048 images")]
    counts = [
        (
            source.name,
            source.label,
            f"fold {fold}",
            71,
            71,
            2,
            1 if fold == 0 else 0,
            None if source.name == "gan" else 17,
            0.013 if source.name == "gan" else None,
            *(None,) * 4,
        )
        for source in experiment.sources
        for fold in range(5)
    ]
    values: dict[str, Any] = {
        "experiment": experiment,
        "run_name": "evaluate example",
        "created": "2026-01-31 12:00 UTC",
        "results": pl.DataFrame(make_results(experiment, intervals), schema=RESULTS),
        "reported": reported,
        "flags": arithmetic_flags(reported),
        "ablation_stages": STAGES,
        "roc": changes["roc"] if "roc" in changes else make_roc(experiment),
        "examples": changes["examples"] if "examples" in changes else make_examples(experiment),
        "quality": pl.DataFrame(quality, schema=QUALITY_SCHEMA, orient="row"),
        "quarantine": pl.DataFrame(
            [("coco", NASTY, "truncated", "image file is truncated (12 bytes not processed)")],
            schema=QUARANTINE_SCHEMA,
            orient="row",
        ),
        "counts": pl.DataFrame(counts, schema=COUNTS_SCHEMA, orient="row"),
        "provenance": {
            "store": "file:///data/store",
            "weights": {"vgg16": {"file": "vgg16.safetensors", "sha256": "4f" * 32}},
            "versions": {"python": "3.11.9", "torch": "2.13.0+cpu", "scikit-learn": "1.9.0"},
            "durations": {"shard": 12.4, "embed": 1843.0, "evaluate": 61.5, "train-gan": 7325},
            "result tables": {"results": "a0" * 32, "scores": "b1" * 32},
        },
        "extra_pictures": [
            ("DCGAN: losses by epoch", strip(640, 320, 90)),
            ("DCGAN: fixed noise", strip(512, 512, 91)),
        ],
    }
    return ReportData(**values | changes)


EXAMPLES_SCHEMA = {"source": pl.String, "view": pl.String, "png": pl.Binary}


def light_data(experiment: Experiment | None = None, intervals: bool = True, **changes: Any) -> ReportData:
    """A run without most pictures, whose drawing takes the time."""
    nothing: dict[str, Any] = {
        "roc": pl.DataFrame(schema=ROC_TYPES),
        "examples": pl.DataFrame(schema=EXAMPLES_SCHEMA),
        "extra_pictures": (),
    }
    return make_data(experiment or make_experiment(fakes=2), intervals, **nothing | changes)


@pytest.fixture(scope="module")
def data() -> ReportData:
    return make_data()


@pytest.fixture(scope="module")
def html(data: ReportData) -> str:
    return render_html(data)


@pytest.fixture(scope="module")
def markdown(data: ReportData) -> str:
    return render_markdown(data)


class Page(HTMLParser):
    """Collects what a page refers to, its texts, and whether its elements are closed."""

    VOID = frozenset(("meta", "img", "br", "hr", "link", "input"))

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.pictures_without_words = 0
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self._open.append(tag)
        found = dict(attrs)
        self.references += [
            found[name] or "" for name in ("src", "href", "xlink:href", "srcset", "data") if name in found
        ]
        self.ids += [found["id"] or ""] if "id" in found else []
        if tag == "img" and not found.get("alt"):
            self.pictures_without_words += 1
        if found.get("role") == "img" and not found.get("aria-label"):
            self.pictures_without_words += 1

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_the_html_loads_nothing(html: str, page: Page) -> None:
    assert not {"link", "iframe", "object", "base"} & set(page.tags)
    loaded = ("data:image/webp;base64,", "#", "tables/", "explorer/index.html?")
    assert all(reference.startswith(loaded) for reference in page.references)
    assert "@import" not in html
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))


def test_ids_of_the_html_are_unique_and_its_links_arrive(page: Page) -> None:
    assert len(set(page.ids)) == len(page.ids)
    assert {one[1:] for one in page.references if one.startswith("#")} <= set(page.ids)


def test_every_picture_of_the_html_has_words(page: Page) -> None:
    assert "img" in page.tags
    assert "svg" in page.tags
    assert page.pictures_without_words == 0


def test_texts_from_outside_are_shown_as_text(html: str, page: Page, markdown: str) -> None:
    assert re.findall(r"<script>(.*?)</script>", html, re.DOTALL) == [SCRIPT]
    assert NASTY in page.text
    assert "<script>" not in markdown.replace(r"\<script\>", "")
    assert re.search(r"(?<!\\)\]\(javascript", markdown) is None


def test_names_of_mixes_and_detectors_are_escaped_in_plots() -> None:
    curve = plots.Curve("<b>$x$</b>", [0, 1], [0, 1])
    assert b"<b>" not in plots.roc_plot([curve], "a<script>b")
    assert b"<script" not in plots.ranking_plot([plots.Ranked("$<script>$", 0.7, None, None)], "t")


def test_all_ten_reported_rows_are_shown_with_old_name_cell_and_numbers(page: Page, markdown: str) -> None:
    rows = read_reported(FIRST_PROJECT)
    assert len(rows) == 10
    for row in rows:
        cell = f"{row.resolution}/{name_of(jpeg(row.jpeg_quality))}"
        assert f"{cell} · {row.name}" in page.text
        assert cell in markdown
        assert escape_markdown(row.name) in markdown
        for value in row.metrics:
            assert value is None or f"{value:.4f}" in page.text


def test_every_arithmetic_flag_is_a_footnote(data: ReportData, page: Page, markdown: str) -> None:
    flags = [f"{name}: {flag}." for name, found in data.flags.items() for flag in found]
    assert len(flags) > 10
    for number, flag in enumerate(flags, start=1):
        assert flag in page.text
        assert f"{number}. {escape_markdown(flag)}" in markdown


def test_sentences_compare_reported_reproduced_and_fair(data: ReportData, page: Page) -> None:
    # Reported 0.7348; seed_rows() gives 0.7348 + 0.01 * (4 % 3); combined at 64/q20 is 0.567, less 0.07.
    row = report_tables(data)["first_project"].row(4, named=True)
    names = ("reported_accuracy", "seed_accuracy", "fair_accuracy", "fair_accuracy_low", "fair_accuracy_high")
    assert [row[name] for name in names] == pytest.approx([0.7348, 0.7448, 0.497, 0.467, 0.527])
    assert "0.497 [0.467, 0.527]" in page.text
    assert "The reproduction comes within 0.03 of the report" in page.text
    assert "The seed protocol's number lies 0.248 above the fair one and outside its interval" in page.text
    assert (
        "Here too the seed protocol gains from compressing the fakes alone (+0.077 against no compression)" in page.text
    )
    assert "The reported row read the GAN's folder" in page.text


def test_the_headline_names_the_hardest_generator_its_cell_and_interval(data: ReportData, page: Page) -> None:
    table = report_tables(data)["grid"].filter(pl.col("role") == "detector", pl.col("mix") != "combined")
    worst = table.group_by("cell", "detector").agg(pl.all().sort_by("auroc").first())
    best = worst.group_by("cell").agg(pl.all().sort_by("auroc").last())
    hardest = best.sort("auroc").row(0, named=True)
    said = f"Weakest is {hardest['cell']}, where the best detector, {hardest['detector']}, tells {hardest['mix']} with"
    assert f"{said} {hardest['auroc']:.3f} [{hardest['auroc_low']:.3f}, {hardest['auroc_high']:.3f}]" in page.text
    index = ResultIndex(data.experiment, data.results)
    found = {f"{resolution}/{name}": one for (resolution, name), one in worst_told(data, index).items()}
    assert {cell: one.value for cell, one in found.items()} == dict(best.select("cell", "auroc").iter_rows())
    assert "single draws" not in page.text


def test_of_a_single_cell_it_is_not_said_that_it_is_the_weakest() -> None:
    rows = [result("fair", "gan", "64", "q20", SVM, metric="auroc", value=0.8, low=0.7, high=0.9)]
    experiment = make_experiment()
    data = light_data(experiment, results=pl.DataFrame(rows, schema=RESULTS))
    blocks = headline_blocks(data, ResultIndex(experiment, data.results), report_tables(data))
    lead, *_ = [block.text for block in blocks if isinstance(block, Text) and block.tone == "lead"]
    assert lead.startswith("In 64/q20, the only cell, the best detector, svm, tells gan with 0.800 [0.700, 0.900]")


def test_what_is_known_of_a_source_as_a_whole_stands_in_one_row(data: ReportData) -> None:
    tables = [block for block in counts_blocks(data, report_tables(data)) if isinstance(block, Table)]
    whole, places = (table for table in tables if table.csv == "counts")
    assert [column.title for column in whole.columns[2:4]] == ["images", "groups"]
    (gan,) = [[cell.text for cell in row] for row in whole.rows if row[0].text == "gan"]
    assert gan == ["gan", "fake", "355", "355", "2", "1", "–", "0.013"]
    assert [column.title for column in places.columns] == ["source", "label", "split or fold", "images", "groups"]
    assert len(places.rows) == 5 * len(whole.rows)


def test_a_number_without_an_interval_is_not_the_worst_where_others_have_one() -> None:
    rows = [
        result("fair", "gan", "64", "q20", SVM, metric="auroc", value=0.8, low=0.7, high=0.9),
        result("fair", "sd14", "64", "q20", SVM, metric="auroc", value=0.3, reason="n/a: fewer than ten groups"),
    ]
    experiment = make_experiment()
    found = worst_told(light_data(experiment), ResultIndex(experiment, pl.DataFrame(rows, schema=RESULTS)))
    assert [(one.cell.mix, one.value) for one in found.values()] == [("gan", 0.8)]


def test_fields_lead_to_the_mistakes_behind_them_where_there_is_an_explorer(data: ReportData, page: Page) -> None:
    link = "explorer/index.html?cell=64/q20&detector=svm&mix=stable-diffusion-2-1&error=mistake&sort=-p"
    assert link in page.references
    assert "Look at the mistakes" in page.text
    without = Page(render_html(light_data(explorer=False)))
    assert "Look at the mistakes" not in without.text
    assert not any("explorer" in reference for reference in without.references)
    than = mistakes_link(data, CellKey("gan", "64", "q20"), "svm", "64/none")
    assert than == "explorer/index.html?cell=64/q20&detector=svm&mix=gan&than=64/none"
    odd = mistakes_link(data, CellKey("a&b #1", "64", "crop 50%"), "x=y")
    assert odd == "explorer/index.html?cell=64/crop%2050%25&detector=x%3Dy&mix=a%26b%20%231&error=mistake&sort=-p"


def test_fits_on_one_generator_lead_nowhere_as_the_explorer_has_no_scores_of_theirs(data: ReportData) -> None:
    maps = [one for block in cross_blocks(data, report_tables(data)) if isinstance(block, Heats) for one in block.maps]
    assert maps
    assert not any(one.links for one in maps)


def test_every_table_links_to_a_file_that_the_run_has(data: ReportData, page: Page) -> None:
    linked = {one.removeprefix("tables/").removesuffix(".csv") for one in page.references if one.startswith("tables/")}
    assert linked <= {*report_tables(data), "results", "roc"}
    assert {"grid", "ranking", "seeds", "probe", "quality", "counts", "first_project", "ablation"} <= linked


def test_all_sections_but_the_first_open_on_a_click_and_by_their_links(html: str, page: Page) -> None:
    assert html.count('<details class="section">') == len(report_sections(make_data())) - 1
    assert "details::details-content" in html, "printed, all of them are open"
    assert {"grid", "controls", "history", "first-project"} - set(page.ids) == {"history"}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.51, "The interval contains 0.5: here no detector is shown to do better than guessing."),
        (0.40, "The interval lies below 0.5: worse than guessing, which hints at a fault or a shift."),
        (0.90, "tells gan with 0.900 [0.870, 0.930], over 354 photographs and 300 fakes in 354 groups."),
    ],
)
def test_the_headline_says_where_the_interval_lies_with_regard_to_chance(value: float, said: str) -> None:
    row = result("fair", "gan", "64", "q20", SVM, metric="auroc", value=value, low=value - 0.03, high=value + 0.03)
    data = light_data(results=pl.DataFrame([row], schema=RESULTS))
    assert said in Page(render_html(data)).text


def test_nearly_perfect_rows_are_called_suspicious() -> None:
    experiment = make_experiment(fakes=2)
    results = pl.DataFrame(make_results(experiment, gan=1.0), schema=RESULTS)
    text = Page(render_html(light_data(experiment, results=results))).text
    assert "nearly perfect" in text
    assert "explained before it is believed" in text


def test_missing_intervals_are_na_with_their_reason() -> None:
    data = light_data(make_experiment(fakes=2), intervals=False)
    text, markdown = Page(render_html(data)).text, render_markdown(data)
    for document in (text, markdown.replace("\\", "")):
        assert "[n/a]" not in document
        assert document.count("(fewer than ten groups)") == 1, "each warning once"
        assert "Those without are single draws" in document
        assert "whether it is at chance is n/a" in document
        assert "nan" not in re.sub(r"data:image[^)\"]*", "", document).lower().split()
    assert report_tables(data)["probe"]["contains_half"].is_null().all()


def test_random_weights_are_said_to_mean_nothing() -> None:
    data = light_data(make_experiment(weights="random:7", fakes=2))
    text = Page(render_html(data)).text
    assert "random weights (random:7)" in text
    assert "They do not say how well generated images can be told from photographs" in text
    assert "random weights" not in Page(render_html(light_data())).text


def test_the_probe_is_flagged_where_its_interval_misses_chance(data: ReportData, page: Page) -> None:
    probe = report_tables(data)["probe"]
    assert set(probe.filter(~pl.col("contains_half"))["mix"]) == {"gan"}
    assert "In 12 of 48 rows the interval of probe does not contain 0.5: gan in 12 cells." in page.text


@pytest.mark.parametrize(
    ("path", "history", "is_said"), [("crop", "as-is", True), ("crop", "matched", False), ("fair", "matched", False)]
)
def test_pictures_with_the_encodings_that_they_came_with_are_a_warning(path: str, history: str, is_said: bool) -> None:
    changes = {"path": path, "history": history, "resolutions": (256, 64)}
    data = light_data(make_experiment(fakes=2).model_copy(update=changes))
    index = ResultIndex(data.experiment, data.results)
    said = [one.text for one in flag_blocks(data, index, report_tables(data)) if "history: as-is" in one.text]
    assert bool(said) == is_said


@pytest.mark.parametrize(("path", "history"), [("crop", "matched"), ("crop", "as-is"), ("fair", "matched")])
def test_files_whose_histories_are_not_made_equal_are_a_warning_where_others_are(path: str, history: str) -> None:
    experiment = make_experiment(fakes=2).model_copy(update={"path": path, "history": history, "resolutions": (64,)})
    first, last = experiment.fake_names

    def warnings(no_jpegs: int, own_tables: int, of: str, made: str = "") -> list[str]:
        counts = light_data(experiment).counts.with_columns(files=pl.lit(40), no_jpegs=pl.lit(0), own_tables=pl.lit(0))
        of_source = pl.col("source") == of
        counts = counts.with_columns(
            pl.when(of_source).then(no_jpegs).otherwise("no_jpegs").alias("no_jpegs"),
            pl.when(of_source).then(own_tables).otherwise("own_tables").alias("own_tables"),
            pl.when(of_source).then(78).alias("own_tables_quality"),
            # Nobody counts the files of what a run makes.
            files=pl.when(pl.col("source") != made).then("files"),
        )
        data = light_data(experiment, counts=counts)
        texts = flag_blocks(data, ResultIndex(experiment, data.results), report_tables(data))
        return [one.text for one in texts if "control of histories does not see it" in one.text]

    matched = (path, history) == ("crop", "matched")
    assert warnings(0, 0, last) == []
    assert [text[:47] for text in warnings(12, 0, "coco")] == [
        "12 of 40 pictures of coco are no JPEGs: what th"
    ] * matched
    own = f"10 of 40 pictures of {last} (of about quality 78) were saved with quantisation tables of their own"
    assert [text.split(":")[0] for text in warnings(0, 10, last)] == [own] * matched
    assert warnings(0, 9, last) == []
    # Photographs stay as they are, unless a generator has no JPEG and takes their encodings.
    assert warnings(0, 40, "coco") == []
    own = "40 of 40 pictures of coco (of about quality 78) were saved with quantisation tables of their own"
    assert [text.split(":")[0] for text in warnings(0, 40, "coco", made=first)] == [own] * matched


def test_a_probe_that_does_well_is_a_flag_with_an_interval_or_without() -> None:
    def flags(value: float, **bounds: float) -> list[Text]:
        rows = [
            result("fair", "gan", "64", "none", PROBE, metric="auroc", value=value, **bounds),
            result("fair", "gan", "64", "none", SVM, metric="auroc", value=0.8, low=0.7, high=0.9),
        ]
        data = light_data(results=pl.DataFrame(rows, schema=RESULTS))
        index = ResultIndex(data.experiment, data.results)
        return [one for one in flag_blocks(data, index, report_tables(data)) if one.tone == "flag"]

    assert "AUROC 0.920 for gan at 64/none" in flags(0.92)[0].text
    assert "AUROC 0.920 [0.850, 0.990] for gan" in flags(0.92, low=0.85, high=0.99)[0].text
    assert "AUROC 0.100 for gan" in flags(0.1)[0].text, "what is told the wrong way round is told"
    assert flags(0.58) == []
    assert flags(0.66, low=0.45, high=0.87) == []


def test_a_threshold_that_does_not_fit_is_said_however_good_the_ranking_is() -> None:
    def warnings(own: float, best: float) -> list[str]:
        key = ("fair", "gan", "64", "q20", SVM)
        rows = [
            result(*key, metric="auroc", value=0.91, low=0.85, high=0.95),
            result(*key, metric="balanced_accuracy", threshold_rule="val", value=own),
            result(*key, metric="balanced_accuracy", threshold_rule="oracle", value=best),
        ]
        data = light_data(results=pl.DataFrame(rows, schema=RESULTS))
        index = ResultIndex(data.experiment, data.results)
        return [one.text for one in flag_blocks(data, index, report_tables(data)) if "threshold" in one.text]

    (said,) = warnings(0.57, 0.84)
    assert "In 1 of 1 rows" in said
    assert "svm on gan at 64/q20 0.57 where 0.84 was possible" in said
    assert warnings(0.80, 0.84) == []


def test_generators_that_are_smaller_by_nature_are_marked_above_their_own_size(data: ReportData, page: Page) -> None:
    ranking = report_tables(data)["ranking"]
    assert set(ranking.filter("enlarged")["mix"]) == {"gan"}
    assert set(ranking.filter("enlarged")["resolution"]) == {"native", "256"}
    assert "enlarged: gan at native and 256" in page.text


def test_the_ranking_starts_with_the_hardest_at_every_resolution(data: ReportData) -> None:
    ranking = report_tables(data)["ranking"]
    for _, part in ranking.group_by("resolution"):
        assert part.sort("rank")["auroc"].is_sorted()
        assert part.sort("rank")["rank"].to_list() == [1, 2, 3]
    assert set(ranking["generator"]) == {"gan", "stable-diffusion-2-1", "sd14"}


def test_tables_hold_every_row_and_can_be_written_as_csv(data: ReportData) -> None:
    tables = report_tables(data)
    names = (
        "ranking",
        "grid",
        "significance",
        "pairs",
        "probe",
        "history",
        "audit",
        "reconstructions",
        "cross",
        "left_out",
        "seeds",
        "reliability",
        "quality",
        "counts",
        "quarantine",
        "first_project",
        "ablation",
    )
    assert tuple(tables) == names
    for table in tables.values():
        assert pl.read_csv(table.write_csv().encode(), infer_schema_length=None).height == table.height
    assert tables["first_project"].height == 10
    assert tables["ablation"].height == 7 * 10  # ten rows, each at its own mix, resolution and quality
    assert tables["grid"].height == 4 * 12 * 3
    assert tables["cross"].height == 3 * 3 * 3
    assert tables["seeds"].height == 4 * 3 * 3
    assert tables["seeds"]["spread"].to_numpy() == pytest.approx(0.018)


def test_what_the_results_cover_is_listed_in_their_own_order() -> None:
    """A set's order, by which reasons were listed below the grid, is another in every process."""
    rows = [
        result("fair", f"mix-{number}", "64", "none", fit, metric="auroc", value=0.5)
        for number in (3, 1, 4, 1, 5, 9, 2, 6)
        for fit in (SVM, PROBE)
    ]
    index = ResultIndex(make_experiment(), pl.from_dicts(rows, infer_schema_length=None))
    expected = [(f"mix-{number}", "64", "none") for number in (3, 1, 4, 5, 9, 2, 6)]
    assert list(index.cells("fair")) == list(index.cells("fair", PROBE)) == expected
    assert list(index.fits("fair")) == [SVM, PROBE]
    assert not list(index.cells("seed"))
    assert not list(index.fits("seed"))


def test_the_grid_table_repeats_the_results_exactly(data: ReportData) -> None:
    grid = report_tables(data)["grid"]
    row = grid.row(
        by_predicate=(pl.col("mix") == "sd14") & (pl.col("detector") == "svm") & (pl.col("cell") == "64/q20"),
        named=True,
    )
    rows = data.results.filter(protocol="fair", mix="sd14", detector="svm", resolution="64", perturbation="q20")
    rows = rows.filter(pl.col("fitted_on").is_null(), pl.col("seed") == 0)
    for metric, rule in (("auroc", None), ("balanced_accuracy", "val"), ("balanced_accuracy", "oracle")):
        expected = rows.filter(pl.col("metric") == metric, pl.col("threshold_rule").eq_missing(pl.lit(rule))).row(
            0, named=True
        )
        column = metric if rule is None else f"{metric}@{rule}"
        assert (row[column], row[f"{column}_low"], row[f"{column}_high"]) == tuple(
            expected[k] for k in ("value", "low", "high")
        )


def test_stages_of_the_ablation_are_titled_and_end_at_the_last(page: Page) -> None:
    for place, (_, title, sentence) in enumerate(STAGES):
        assert f"{place} · {title}" in page.text
        assert sentence in page.text


def test_missing_parts_are_sentences_not_empty_tables() -> None:
    experiment = make_experiment(fakes=1, seed_protocol=False)
    rows = [row for row in make_results(experiment) if row["protocol"] == "fair" and row["detector"] == "svm"]
    rows = [row for row in rows if row["seed"] == 0 and row["fitted_on"] is None]
    data = light_data(
        experiment,
        results=pl.DataFrame(rows, schema=RESULTS),
        ablation_stages=(),
        quality=pl.DataFrame(schema=QUALITY_SCHEMA),
        quarantine=pl.DataFrame(schema=QUARANTINE_SCHEMA),
        counts=pl.DataFrame(schema=COUNTS_SCHEMA),
    )
    for text in (Page(render_html(data)).text, render_markdown(data)):
        assert "first project's table" not in text, "there is a section where the experiment has the protocol"
        assert "What each defect is worth" not in text
        assert "There is one generator only, so there is no other to test on." in text
        assert "one training seed only" in text
        assert "No probe was computed" in text
        assert "No control with shuffled labels" in text
        assert "No ROC curves were kept" in text
        assert "No example pictures were kept" in text
        assert "Generator quality was not computed" in text
        assert "No picture was quarantined." in text


def test_a_run_without_any_result_still_has_a_report() -> None:
    data = light_data(results=pl.DataFrame(schema=RESULTS))
    assert "no fair row of a single generator" in Page(render_html(data)).text
    assert "no fair row of a single generator" in render_markdown(data)
    assert report_tables(data)["first_project"].height == 10


def test_what_sources_leave_open_is_said_where_their_pictures_are_counted() -> None:
    lines = ["sd: 2 of 5 rows of m.jsonl (40 %, first: <x>.png) name no picture"]
    data = light_data(warnings=lines)
    assert lines[0] in Page(render_html(data)).text
    assert "<x>.png" not in render_html(data)
    assert "2 of 5 rows of m.jsonl (40 %, first: " in render_markdown(data)


def test_a_long_quarantine_is_shown_in_part_and_counted_in_full() -> None:
    rows = [("coco", f"id-{number}", "truncated", "cut off") for number in range(SHOWN_ROWS + 25)]
    data = light_data(quarantine=pl.DataFrame(rows, schema=QUARANTINE_SCHEMA, orient="row"))
    text = Page(render_html(data)).text
    assert f"Quarantined: {SHOWN_ROWS + 25}" in text
    assert "25 more rows are in quarantine.csv." in text
    assert report_tables(data)["quarantine"].height == SHOWN_ROWS + 25


def test_reliability_is_that_of_scikit_learn(data: ReportData) -> None:
    rng = np.random.default_rng(0)
    score = np.append(rng.random(500), [0.0, 1.0])
    label = (rng.random(502) < score).astype(np.int8)
    bins = reliability_bins(pl.DataFrame({"label": label, "p_fake": score}))
    share, mean = calibration_curve(label, score, n_bins=BINS)
    assert bins["fakes"].to_numpy() == pytest.approx(share)
    assert bins["p_fake"].to_numpy() == pytest.approx(mean)
    assert bins["pictures"].sum() == 502
    assert reliability_bins(pl.DataFrame({"label": [0, 1], "p_fake": [0.55, 0.5]})).rows() == [(5, 2, 0.525, 0.5)]


def test_calibration_is_drawn_where_a_bin_has_pictures_enough(data: ReportData) -> None:
    place = {"detector": "svm", "resolution": "64", "perturbation": "none", "mix": "combined"}
    rows = [place | {"bin": number, "pictures": 4 + number, "p_fake": 0.1, "fakes": 0.2} for number in range(3)]
    given = dataclasses.replace(data, reliability=pl.DataFrame(rows, schema=RELIABILITY))
    blocks = calibration_blocks(given, ResultIndex(given.experiment, given.results))
    (picture,) = (one for block in blocks if isinstance(block, Gallery) for one in block.pictures)
    assert picture.data.count(b"<circle") == 2
    assert "64: ECE 0.060" in picture.data.decode()
    assert report_tables(given)["reliability"].height == 3


def test_the_documents_stay_small_whatever_the_pictures_weigh(html: str, markdown: str) -> None:
    assert len(html.encode()) < 1_200_000
    assert len(markdown.encode()) < MARKDOWN_BYTES
    noise = np.random.default_rng(0).integers(0, 256, (480, 480, 3), dtype=np.uint8)
    target = io.BytesIO()
    Image.fromarray(noise).save(target, format="PNG")
    heavy = render_markdown(light_data(extra_pictures=[(f"noise {number}", target.getvalue()) for number in range(20)]))
    assert len(heavy.encode()) < MARKDOWN_BYTES
    assert re.search(r"\*In the HTML report: [^*]*noise 18; noise 19[.;]", heavy)


def test_markdown_tables_have_one_field_per_column_in_every_row(markdown: str) -> None:
    widths: list[int] = []
    for line in [*markdown.splitlines(), ""]:
        if line.startswith("|"):
            widths.append(len(re.findall(r"(?<!\\)\|", line)))
        elif widths:
            assert len(widths) >= 3
            assert len(set(widths)) == 1
            widths = []


def test_equal_data_give_equal_documents(html: str) -> None:
    def shuffled(data: ReportData) -> ReportData:
        return dataclasses.replace(data, results=data.results.sample(fraction=1.0, shuffle=True, seed=3))

    small = make_experiment(fakes=1, seed_protocol=False)
    assert (render_html(shuffled(make_data())) == html) is True  # no diff of megabytes where it fails
    assert render_markdown(shuffled(light_data(small))) == render_markdown(light_data(small))


def test_reported_rows_are_joined_by_mix_resolution_and_quality() -> None:
    row = ReportedRow("Stable 64x64", "stable-diffusion", "64", 0, None, 0.5, 0.5, 0.5, 0.5)
    assert seed_key(row) == CellKey("stable", "64", "none")
    assert seed_key(dataclasses.replace(row, mix="combined", jpeg_quality=20)) == ("combined", "64", "q20")


@pytest.mark.parametrize(
    ("value", "share"), [(0.5, 0.0), (1.0, 1.0), (0.0, -1.0), (0.75, 0.5), (1.2, 1.0), (-0.1, -1.0)]
)
def test_the_heat_scale_is_neutral_at_chance_and_clipped(value: float, share: float) -> None:
    assert plots.CHANCE.share(value) == pytest.approx(share)


def test_plots_are_small_svg_that_takes_the_pages_colours_and_can_stand_alone() -> None:
    curve = plots.Curve("none", np.linspace(0, 1, 1000), np.linspace(0, 1, 1000) ** 0.3, colour=3)
    svg = plots.roc_plot([curve], "title")
    assert svg.startswith(b"<svg ")
    assert len(svg) < 2_500
    assert b"#" not in svg, "colours are the page's"
    alone = ElementTree.fromstring(plots.standalone(svg))
    assert alone.tag == "{http://www.w3.org/2000/svg}svg"
    assert plots.LIGHT[3] in ElementTree.tostring(alone).decode()


def test_every_plot_is_well_formed_and_escapes_names() -> None:
    rows = [plots.Spot("<a&b>", 0.7, 0.6, 0.8, 1, 3.0), plots.Spot("b", 0.4, None, None, 2, 0.5)]
    drawn = (
        plots.ranking_plot(rows, "<t>"),
        plots.cloud_plot(rows, "<t>", "x", "y"),
        plots.cloud_plot(rows[1:], "<t>", "x", "y"),
        plots.chain_plot([("<a>", [0.5, None, 0.9]), ("b", [None, None])], ["0", "1", "2"], "<t>"),
        plots.reliability_plot([("64", [plots.Curve("<c>", [0.1, 0.9], [0.2, 0.7])])], "<t>"),
    )
    for svg in drawn:
        texts = [one.text for one in ElementTree.fromstring(plots.standalone(svg)).iter() if one.tag.endswith("text")]
        assert "<t>" in texts


def test_text_on_every_field_of_a_heat_map_has_contrast() -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for step in range(-100, 101):
        field = luminance(plots.heat_colour(step / 100))
        ratio = 1.05 / (field + 0.05) if plots.is_deep(step / 100) else (field + 0.05) / 0.05
        assert ratio >= 4.5, step


def test_a_heat_map_prints_missing_values() -> None:
    one = plots.HeatMap("t", "r", "c", ("a",), ("x", "y"), ((None, 0.3),), ((None, None),), ((None, None),))
    texts = [text.text for text in ElementTree.fromstring(plots.standalone(plots.heat_map([one] * 4))).iter()]
    assert texts.count("–") == texts.count("0.30") == 4


def test_a_heat_map_is_never_wider_than_the_text_beside_it_and_keeps_every_field() -> None:
    columns = tuple(f"native/q{number}" for number in range(12))
    values = (tuple(number / 100 for number in range(12)), tuple(number / 100 for number in range(50, 62)))
    nothing = ((None,) * 12,) * 2
    one = plots.HeatMap("wide", "mix", "cell", ("gan", "diffusion"), columns, values, nothing, nothing)
    drawn = ElementTree.fromstring(plots.standalone(plots.heat_map([one, one])))
    assert float(drawn.attrib["width"]) <= 720
    texts = [text.text for text in drawn.iter() if text.text]
    assert [texts.count(name) for name in columns] == [2] * 12
    assert texts.count("0.07") == texts.count("0.61") == 2
    narrow = dataclasses.replace(next(one.in_pieces(3)), title="narrow")
    beside = ElementTree.fromstring(plots.standalone(plots.heat_map([narrow, narrow])))
    alone = ElementTree.fromstring(plots.standalone(plots.heat_map([narrow])))
    assert float(beside.attrib["width"]) == pytest.approx(2 * float(alone.attrib["width"]), abs=1)


FROM_OUTSIDE = (
    NASTY,
    '"><img src=x onerror=alert(1)>.jpg',
    "'onmouseover='alert(1)",
    "![pixel](https://example.org/seen.png) | <https://example.org>",
    "</td></tr></table><svg onload=alert(1)>",
    "`` ` ``` \\ line\nbreak\r\n# heading",
    "&lt;script&gt;&#x3C;script&#x3E;{{ 7 * 7 }}{% raw %}",
)


def test_file_names_and_descriptions_from_outside_stay_text(data: ReportData, page: Page) -> None:
    rows = [quarantined("coco", f"coco:{text}", "missing-file", text) for text in FROM_OUTSIDE]
    given = dataclasses.replace(
        data,
        quarantine=pl.DataFrame(rows, schema=QUARANTINE_SCHEMA),
        experiment=data.experiment.model_copy(update={"description": " ".join(FROM_OUTSIDE)}),
    )
    changed = Page(render_html(given))
    # The same elements as before but for the rows of the table: none is added, none is closed early.
    assert {tag for tag in changed.tags if tag not in ("tr", "td", "code")} <= set(page.tags)
    assert [tag for tag in changed.tags if tag in ("img", "svg", "table", "a")] == [
        tag for tag in page.tags if tag in ("img", "svg", "table", "a")
    ]
    assert changed.references == page.references
    markdown = render_markdown(given)
    for text in FROM_OUTSIDE:
        assert " ".join(text.split()) in changed.text
        assert escape_markdown(text) in markdown
        assert re.search(r"(?<!\\)[<`\[|]", escape_markdown(text)) is None
        markdown = markdown.replace(escape_markdown(text), "")
    # Nowhere else, such as in a comment or an address, and nowhere unescaped.
    assert "alert(1)" not in markdown
    assert "example.org" not in markdown
