"""Rates of a published network: every generator weighs alike, and what has no answer is counted, too."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tasks.evaluation.published_rates import Answers, delivery_rates, generator_rates, photograph_rates
from tasks.networks.pattern_fit import Calibrated, even_weights
from tasks.spec.published import Published


def rows(kind: tuple[int, str | None, str | None], answers: str) -> pl.DataFrame:
    """One picture per letter: p(hotograph), g(enerated) or -, each its own group."""
    label, photographs, generator = kind
    names = [f"{generator}-{number}" if label else str(number) for number in range(len(answers))]
    words = {"p": "photograph", "g": "generated", "-": None}
    return pl.DataFrame(
        {
            "image_id": names,
            "group_id": names,
            "source": ["pictures"] * len(answers),
            "label": pl.Series([label] * len(answers), dtype=pl.Int8),
            "delivery": ["posted"] * len(answers),
            "photographs": pl.Series([photographs] * len(answers), dtype=pl.String),
            "generator": pl.Series([generator] * len(answers), dtype=pl.String),
            "answer": pl.Series([words[letter] for letter in answers], dtype=pl.String),
        }
    )


@pytest.fixture
def known() -> Answers:
    parts = [
        rows((0, "town", "a"), "pppppppp-g"),
        rows((0, "town", "b"), "pppppp---g"),
        rows((0, "town", None), "ppppppppgg"),
        rows((1, None, "a"), "gggggggggp"),
        rows((1, None, "b"), "ggpp"),
    ]
    return Answers.of(pl.concat(parts), 200, seed=0)


def test_generators_weigh_alike_however_many_pictures_they_have(known: Answers) -> None:
    rates = delivery_rates(known, Answers(known.rows.clear(), known.weights))
    assert rates["false_alarms_matched"]["value"] == pytest.approx((0.1 + 0.1) / 2)
    assert rates["false_alarms_matched"]["n"] == 10, "a photograph with two histories is one"
    assert rates["false_alarms"]["value"] == pytest.approx(0.2), "as it came, as that of who asks"
    assert rates["missed"]["value"] == pytest.approx((0.1 + 0.5) / 2)
    assert rates["photographs_undecided"]["value"] == 0
    assert rates["generated_undecided"]["value"] == 0
    # Of 14 groups: 0.025 ** (1 / 14) of nothing at all is as likely as 2.5 %.
    assert rates["generated_undecided"]["high"] == pytest.approx(1 - 0.025 ** (1 / 14))
    assert rates["missed_unknown"]["value"] is None


def test_what_is_right_is_of_what_was_answered(known: Answers) -> None:
    rates = delivery_rates(known, Answers(known.rows.clear(), known.weights))
    right = 0.7 + 0.7
    wrong = 0.1 + 0.3
    assert rates["answered"]["value"] == pytest.approx((right + wrong) / 2)
    assert rates["right"]["value"] == pytest.approx(right / (right + wrong))
    assert rates["right"]["low"] < rates["right"]["value"] < rates["right"]["high"]


def test_of_an_unknown_generator_the_spread_over_generators_is_said(known: Answers) -> None:
    unknown = pl.concat([rows((1, None, "a"), "gggggggggg"), rows((1, None, "b"), "pppp-")])
    rates = delivery_rates(known, Answers(unknown, known.weights))
    assert rates["missed_unknown"] == {"value": pytest.approx(0.4), "low": 0.0, "high": 0.8, "n": 15}


def test_every_generator_and_every_source_of_photographs_has_its_own(known: Answers) -> None:
    unknown = Answers(rows((1, None, "b"), "pp--"), known.weights)
    first, second = generator_rates(known, {"family": unknown})
    assert (first["generator"], first["known"]["photograph"]["value"]) == ("a", pytest.approx(0.1))
    assert "unknown" not in first
    assert (second["left_out_with"], second["unknown"]["photograph"]["value"]) == ("family", 0.5)
    assert second["known"]["generated"]["low"] is None, "four groups are too few for an interval"
    histories = {row["history"]: row["generated"]["value"] for row in photograph_rates(known)}
    assert histories == {"as-came": pytest.approx(0.2), "matched": pytest.approx(0.1)}


def test_thresholds_hold_in_every_delivery_and_for_photographs_as_they_came() -> None:
    random = np.random.default_rng(0)
    frames, values = [], []
    for delivery, shift in (("posted", 0.0), ("saved", 1.5)):
        for label, generator, mean in ((0, "a", -2.0), (0, None, -1.0), (1, "a", 2.0), (1, "b", 1.0)):
            frame = rows((label, None if label else "town", generator), "-" * 400)
            frames.append(frame.with_columns(pl.lit(delivery).alias("delivery")))
            values.append(random.normal(mean + shift, size=400))
    pictures, decisions = pl.concat(frames), np.concatenate(values)
    spec = Published(false_alarms=0.05, missed=0.1)
    found = Calibrated.on(pictures, decisions, -np.abs(decisions), spec)
    log_odds = found.slope * decisions + found.offset
    said = pictures.with_columns(pl.Series("log_odds", log_odds))
    alarms = (
        said.filter(label=0).group_by("delivery", "generator").agg((pl.col("log_odds") >= found.generated_from).mean())
    )
    shares = alarms["log_odds"].to_numpy()
    assert shares.max() <= 0.05
    assert shares.max() > 0.03, "no stricter than it has to be"
    missed = (
        said.filter(label=1).group_by("delivery", "generator").agg((pl.col("log_odds") < found.photograph_below).mean())
    )
    by_delivery = missed.group_by("delivery").agg(pl.col("log_odds").mean())
    assert by_delivery["log_odds"].to_numpy().max() <= 0.1
    assert found.photograph_below <= found.generated_from


def test_weights_are_even_over_deliveries_classes_and_generators() -> None:
    pictures = pl.concat([rows((0, "town", "a"), "-" * 8), rows((1, None, "a"), "--"), rows((1, None, "b"), "-" * 6)])
    weights = even_weights(pictures, np.arange(16))
    assert weights.sum() == pytest.approx(16)
    assert weights[:8].sum() == pytest.approx(8)
    assert weights[8:10].sum() == pytest.approx(4)
    assert weights[10:].sum() == pytest.approx(4)
