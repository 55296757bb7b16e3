"""The report's section on rejection: when networks say "unknown source", and how often they should not have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from tasks.report.blocks import (
    NOT_AVAILABLE,
    UNFOLDED_ROWS,
    Block,
    Cell,
    Column,
    Items,
    Table,
    Text,
    reasons_note,
    row_estimate,
    share,
    signed,
    signed_interval,
    value_cell,
    whole,
    with_interval,
)
from tasks.report.data import Estimate
from tasks.report.network_tables import OTHER_SCENARIO, REFERENCE_SCORE

Tables = Mapping[str, pl.DataFrame]
Row = dict[str, Any]

_KINDS = {
    "leave-one-out": (
        "Left out of training",
        "The main figure: each generator in turn is absent from training, calibration and the choice of the threshold, "
        "and then is the unknown source. Thresholds come from val pictures of the known sources alone, each of which "
        "could be rejected.",
    ),
    "unseen": (
        "Generators that no network was trained on",
        "Beside it: sources that take no part in any training. They take the fair path like all pictures; else their "
        "file format would decide.",
    ),
    "shifted": (
        "A known family, shifted",
        "Apart from both: pictures of a generator that the network knows, made in another way. Their family is known, "
        "so these are not unknown sources, and rejecting them is no success: the columns only say how unfamiliar they "
        "are.",
    ),
    OTHER_SCENARIO: ("Other scenarios", "Scenarios that the experiment does not name."),
}


def rejection_blocks(tables: Tables) -> tuple[Block, ...]:
    if "rejection" not in tables:
        return ()
    table = tables["rejection"]
    if not len(table):
        return (Text("No rejection was evaluated in this run."),)
    blocks: list[Block] = [
        Text(
            "A network should answer “unknown source” where a picture is unfamiliar to it. AUROC: how often a known "
            "picture is more familiar than an unknown one (0.5 is guessing). FPR at 95 % TPR: the share of unknown "
            "pictures that is accepted where 95 % of the known are; lower is better. OSCR: the area under the rate of "
            "accepted and rightly classified known pictures over accepted unknown ones. The difference is that of "
            f"AUROC from {REFERENCE_SCORE}'s, on the same pictures."
        )
    ]
    if "leave-one-out" not in set(table["kind"]):
        blocks.append(
            Text(
                "No generator was left out of training in this run, so there is no main figure: leaving one out takes "
                "two generators.",
                "note",
            )
        )
    for kind, (title, sentence) in _KINDS.items():
        part = table.filter(pl.col("kind") == kind)
        if len(part):
            blocks.append(Text(sentence, "warning" if kind == "shifted" else "plain"))
            blocks += _scenario_blocks(kind, title, part, tables["confusion"].filter(pl.col("kind") == kind))
    return tuple(blocks)


def _scenario_blocks(kind: str, title: str, table: pl.DataFrame, confusion: pl.DataFrame) -> Iterator[Block]:
    if kind == "leave-one-out":
        yield Items(tuple(_score_sentences(table)))
    tested = "shifted" if kind == "shifted" else "unknown"
    columns = (
        Column("left out" if kind == "leave-one-out" else "source", "text"), Column("score, threshold", "text"),
        Column("AUROC"), Column("AUROC difference"),
        Column("known", group="rejected"), Column(tested, group="rejected"), Column("accuracy on accepted"),
        Column("FPR at 95 % TPR"), Column("OSCR"), Column(f"known / {tested}"),
    )  # fmt: skip
    rows = []
    seen: set[tuple[str, str, str]] = set()
    for row in table.iter_rows(named=True):
        key = (row["scenario"], row["network"], row["score"])
        # What needs no threshold is the same for every rule of a score: it is shown once.
        again = key in seen
        auroc, fpr, oscr = (
            Cell("as above") if again else value_cell(row, name) for name in ("auroc", "fpr_at_95_tpr", "oscr")
        )
        rows.append(
            (
                Cell(row["source"], sub=row["network"]),
                Cell(
                    row["score"],
                    sub=_rule_words(row["rule"]),
                    tag="rejects by this" if row["chosen"] and not again else "",
                ),
                auroc,
                _difference_cell(row, again),
                *(value_cell(row, name) for name in ("rejected_known", "rejected_unknown", "accuracy_accepted")),
                fpr,
                oscr,
                Cell(f"{whole(row['n_known'])} / {whole(row['n_unknown'])}"),
            )
        )
        seen.add(key)
    yield Table(title, columns, tuple(rows), folded=len(rows) > UNFOLDED_ROWS, csv="rejection")
    yield from reasons_note(row_estimate(row, "auroc") for row in table.iter_rows(named=True))
    yield from _confusion_tables(kind, table, confusion)


def _difference_cell(row: Row, again: bool) -> Cell:
    if row["score"] == REFERENCE_SCORE:
        return Cell("–")
    if again:
        return Cell("as above")
    low, high = row["auroc_difference_low"], row["auroc_difference_high"]
    if row["auroc_difference"] is None:
        return Cell(NOT_AVAILABLE)
    return Cell(signed(row["auroc_difference"]), sub=signed_interval(low, high))


def _rule_words(rule: str | None) -> str:
    if rule is None:
        return NOT_AVAILABLE
    name, _, value = rule.rpartition("-")
    if name == "kept":
        return f"{100 * float(value):g} % of known val kept"
    return f"constant {value}" if name == "bound" else rule


def _score_sentences(table: pl.DataFrame) -> Iterator[tuple[str, str]]:
    """Per generator left out: whether the score that the network rejects by is better than the maximum probability."""
    for (source, network), part in table.group_by("source", "network", maintain_order=True):
        chosen = part.filter(pl.col("chosen"))
        reference = part.filter(pl.col("score") == REFERENCE_SCORE)
        if not len(chosen) or not len(reference):
            continue
        row = chosen.row(0, named=True)
        auroc = row_estimate(row, "auroc")
        label = f"{source} left out ({network})"
        if auroc.value is None:
            yield label, f"n/a: {auroc.reason or 'no AUROC was computed'}."
        elif row["score"] == REFERENCE_SCORE:
            yield label, f"the network rejects by {REFERENCE_SCORE} itself: AUROC {with_interval(auroc)}."
        else:
            difference = row_estimate(row, "auroc_difference")
            yield label, _difference_verdict(row["score"], difference)


def _difference_verdict(score: str, difference: Estimate) -> str:
    if difference.value is None:
        return f"The difference is n/a: {difference.reason or 'it was not computed'}."
    if difference.low is None or difference.high is None:
        return f"The difference of {signed(difference.value)} has no interval, so {score} is not shown to be better."
    said = f"{signed(difference.value)} [{signed(difference.low)}, {signed(difference.high)}]"
    if difference.low > 0:
        return f"The difference is {said}: {score} is better."
    if difference.high < 0:
        return f"The difference is {said}: {score} is worse than {REFERENCE_SCORE}."
    return f"The difference is {said}: {score} is not shown to be better."


def _confusion_tables(kind: str, table: pl.DataFrame, confusion: pl.DataFrame) -> Iterator[Block]:
    """Truth against answer, with the column “unknown”, by the score that the network rejects by."""
    chosen = table.filter(pl.col("chosen"), pl.col("rule").str.starts_with("kept-"))
    for (scenario, network, score, rule), _ in chosen.group_by(
        "scenario", "network", "score", "rule", maintain_order=True
    ):
        part = confusion.filter(scenario=scenario, network=network, score=score, rule=rule)
        if not len(part):
            continue
        answers = list(dict.fromkeys(part["answer"]))
        counts = {(row["truth"], row["answer"]): row["count"] for row in part.iter_rows(named=True)}
        rows = []
        for truth in dict.fromkeys(part["truth"]):
            total = sum(counts.get((truth, answer), 0) for answer in answers)
            found = [counts.get((truth, answer), 0) for answer in answers]
            rows.append(
                (
                    Cell(truth, tag="" if truth in answers else "shifted" if kind == "shifted" else "unknown"),
                    *(Cell(str(count), sub=share(count / total) if total else "") for count in found),
                )
            )
        source = part["source"][0]
        caption = f"{source} left out" if kind == "leave-one-out" else f"{kind}: {source}"
        columns = (Column("truth", "text"), *(Column(answer, group="answer") for answer in answers))
        yield Table(
            f"Confusion, {caption}: {network}, {score}, {_rule_words(str(rule))}",
            columns,
            tuple(rows),
            folded=kind != "leave-one-out",
            csv="confusion",
        )
