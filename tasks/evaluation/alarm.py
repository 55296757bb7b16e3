"""Generators that no detector tells any more: an evaluation that runs every week has to say so aloud."""

from collections.abc import Mapping, Sequence

import polars as pl

from tasks.data.perturbations.kinds import NONE


def undetectable(results: pl.DataFrame, mixes: Mapping[str, str], least: float) -> Sequence[str]:
    """A sentence for every generator on which no detector reaches an AUROC of `least` in any uncompressed cell.

    Args:
        results: RESULT_SCHEMA; probes do not count, nor fits with another seed or on fewer generators.
        mixes: generators by the names of the mixes that have no other.
    """
    rows = results.filter(
        pl.col("protocol") == "fair",
        pl.col("role") == "detector",
        pl.col("metric") == "auroc",
        pl.col("perturbation") == NONE,
        pl.col("seed") == 0,
        pl.col("fitted_on").is_null(),
        pl.col("without").is_null(),
        pl.col("value").is_not_null(),
        pl.col("mix").is_in(list(mixes)),
    ).with_columns(generator=pl.col("mix").replace_strict(dict(mixes), return_dtype=pl.String))
    best = rows.sort("value", descending=True).group_by("generator", maintain_order=True).first()
    return [
        f"{row['generator']}: {row['value']:.3f} at best, by {row['detector']} in {row['resolution']}/{NONE}"
        for row in best.sort("generator").iter_rows(named=True)
        if row["value"] < least
    ]
