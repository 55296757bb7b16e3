"""What there is to know of an experiment's pictures before anything is computed: who looks first repents less."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from storage.objects import Ref, notes_of, read_table
from storage.store import Store
from storage.tables import FAKE, REAL
from tasks.data.entries import QUARANTINE
from tasks.data.grouping import assignment_warnings, warnings_on
from tasks.data.histories import MANY_OWN_TABLES
from tasks.data.windows import Counted, why_not_fitted
from tasks.spec.experiment import Experiment
from tasks.spec.views import CLEAN_QUALITY

# A split and a fold, of which a picture has one.
Place = tuple[str | None, int | None]
# With fewer groups of a class there are no intervals (`tasks.evaluation.intervals`).
LEAST_GROUPS = 10
# A confound is told from when so large a share of a class has what so few of the other have.
_MOST, _SOME, _FEW = 0.9, 0.25, 0.1
# By one number of a file alone, as an AUROC.
_TOLD = 0.75


@dataclass(frozen=True, eq=False)
class SourceCheck:
    """A source as it was read.

    Attributes:
        set_aside: pictures that cannot be used, by the reason.
        repeats: pictures that repeat an earlier one, by its source.
        places: pictures by fold or split.
        sizes: width and height (N, 2), as stored.
        formats: pictures by format.
        qualities: JPEG qualities of those that are JPEGs.
        own_tables: the same of those that have quantisation tables of their own; none where no history is matched.
        too_small: by the names of resolutions, pictures that take no part there.
        unmatched: by the names of resolutions, photographs that are large enough and that `history: matched` leaves
            out, as their own encoding would be seen.
        unmatched_against: the generators against which they are; empty for all.
        taking_part: by the names of resolutions, pictures that are neither too small nor left out, by their places.
    """

    name: str
    label: str
    pictures: int
    groups: int
    set_aside: Mapping[str, int]
    repeats: Mapping[str, int]
    places: Mapping[str, int]
    sizes: npt.NDArray[np.int64]
    formats: Mapping[str, int]
    qualities: npt.NDArray[np.int64]
    own_tables: npt.NDArray[np.int64]
    too_small: Mapping[str, int]
    unmatched: Mapping[str, int]
    unmatched_against: tuple[str, ...]
    taking_part: Mapping[str, Counted]

    @property
    def row(self) -> dict[str, str]:
        """What a person reads of it."""
        shorter = self.sizes.min(axis=1) if len(self.sizes) else np.zeros(1, np.int64)
        aside = [f"{count} {reason}" for reason, count in self.set_aside.items()]
        because = [f"{count} too small for {name}" for name, count in self.too_small.items() if count]
        against = ", ".join(self.unmatched_against)
        for count, names in self._unmatched_alike.items():
            of = f" in {' and '.join(names)}" if len(names) < len(self.unmatched) else ""
            because.append(f"{count} below JPEG quality {CLEAN_QUALITY}{of}{against and f', against {against}'}")
        tested = ", ".join(f"{counted.total} in {name}" for name, counted in self.taking_part.items())
        return {
            "source": self.name,
            "label": self.label,
            "pictures": str(self.pictures),
            "groups": str(self.groups),
            "per fold or split": ", ".join(f"{count}" for count in self.places.values()),
            "shorter side": _spread(shorter),
            "format": ", ".join(f"{name} {count}" for name, count in self.formats.items()),
            "JPEG quality": _spread(self.qualities) if len(self.qualities) else "none",
            "repeats": ", ".join(f"{count} of {name}" for name, count in self.repeats.items()) or "0",
            "set aside": ", ".join(aside) or "0",
            "takes part": tested + (f" ({', '.join(because)})" if because else ""),
        }

    @property
    def _unmatched_alike(self) -> dict[int, list[str]]:
        """How many are left out, with the resolutions in which it is so many."""
        alike: dict[int, list[str]] = defaultdict(list)
        for name, count in self.unmatched.items():
            if count:
                alike[count].append(name)
        return alike

    @property
    def document(self) -> dict[str, Any]:
        """What a program reads of it: counts as numbers, spreads as [least, median, greatest]."""
        return {
            "source": self.name,
            "label": self.label,
            "pictures": self.pictures,
            "groups": self.groups,
            "places": dict(self.places),
            "shorter_side": _quantiles(self.sizes.min(axis=1)) if len(self.sizes) else None,
            "formats": dict(self.formats),
            "jpeg_quality": _quantiles(self.qualities) if len(self.qualities) else None,
            "own_tables": len(self.own_tables),
            "repeats": dict(self.repeats),
            "set_aside": dict(self.set_aside),
            "takes_part": {name: counted.total for name, counted in self.taking_part.items()},
            "too_small": dict(self.too_small),
            "below_clean_quality": dict(self.unmatched),
        }


def _quantiles(values: npt.NDArray[np.int64]) -> list[int]:
    return [int(value) for value in np.quantile(values, (0, 0.5, 1))]


def _spread(values: npt.NDArray[np.int64]) -> str:
    least, middle, most = _quantiles(values)
    return str(least) if least == most else f"{least} to {most}, median {middle}"


@dataclass(frozen=True, eq=False)
class Check:
    """All sources of an experiment that lie on disk, what is to be known, and what nothing can be measured with."""

    sources: tuple[SourceCheck, ...]
    warnings: tuple[str, ...]
    errors: tuple[str, ...]


def check_sources(
    store: Store,
    experiment: Experiment,
    sources: Sequence[tuple[str, str, Ref, tuple[Ref, ...]]],
    assignment: Ref,
    tables: Mapping[str, Sequence[Ref]],
) -> Check:
    """What is known of (name, label, index, scans) of each source, of their assignment, and of their JPEGs' tables."""
    notes = notes_of(store, assignment)
    places = _places(store, assignment)
    seen = {name: _seen(store, scans) for name, _, _, scans in sources}
    jpegs = tuple(name for name in seen if name in experiment.fake_names and _has_jpegs(seen[name]))
    found = tuple(
        replace(
            _checked(
                store, experiment, *source, notes["sources"][source[0]], seen[source[0]], jpegs, places[source[0]]
            ),
            own_tables=_own_tables(store, tables.get(source[0], ())),
        )
        for source in sources
    )
    evaluated = [one for one in found if notes["sources"][one.name]["evaluated"]]
    of_indices = [sentence for _, _, ref, _ in sources for sentence in notes_of(store, ref).get("warnings", ())]
    told = warnings_on(experiment.path, assignment_warnings(notes))
    warnings = (
        *(*of_indices, *told, *_copies(experiment, notes["sources"])),
        *(*_few_groups(evaluated), *_drawn(evaluated)),
        *(*_confounds(experiment, evaluated), *_unknown_histories(experiment, evaluated), *_kept_in(experiment)),
    )
    return Check(found, warnings, tuple(_errors(experiment, evaluated)))


def _places(store: Store, assignment: Ref) -> dict[str, dict[str, Place]]:
    """The split and the fold of every picture, by its source and its id."""
    found: dict[str, dict[str, Place]] = defaultdict(dict)
    table = read_table(store, assignment, columns=["source", "image_id", "split", "fold"])
    for source, image_id, split, fold in zip(*(column.to_pylist() for column in table.columns), strict=True):
        found[source][image_id] = (split, fold)
    return found


def _seen(store: Store, scans: Sequence[Ref]) -> list[dict[str, Any]]:
    """What the scans of a source say of every picture, in their order."""
    columns = ["image_id", "width", "height", "format", "jpeg_quality"]
    return [row for ref in scans for row in read_table(store, ref, columns=columns).to_pylist()]


def _own_tables(store: Store, tables: Sequence[Ref]) -> npt.NDArray[np.int64]:
    """The qualities of a source's JPEGs that have quantisation tables of their own; of `TABLES_SCHEMA`."""
    rows = [row for ref in tables for row in read_table(store, ref, columns=["jpeg_quality", "own_tables"]).to_pylist()]
    return np.array([row["jpeg_quality"] for row in rows if row["own_tables"]], dtype=np.int64)


def _has_jpegs(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether some files of a generator are JPEGs, so that photographs take such an encoding; none that is run here."""
    return any(row["jpeg_quality"] is not None for row in rows)


def _checked(
    store: Store,
    experiment: Experiment,
    name: str,
    label: str,
    entries: Ref,
    scans: Sequence[Ref],
    notes: Mapping[str, Any],
    rows: Sequence[dict[str, Any]],
    of_jpegs: Sequence[str],
    places: Mapping[str, Place],
) -> SourceCheck:
    aside: Counter[str] = Counter()
    for ref in (entries, *scans):
        aside.update(read_table(store, ref, name=QUARANTINE)["reason"].to_pylist())
    sizes = np.array([(row["width"], row["height"]) for row in rows], dtype=np.int64).reshape(-1, 2)
    shorter = sizes.min(axis=1)
    qualities = np.array([row["jpeg_quality"] for row in rows if row["jpeg_quality"] is not None], dtype=np.int64)
    source = next(one for one in experiment.sources if one.name == name)
    matched = bool(of_jpegs) and experiment.matches_history and label == "real"
    quality = np.array([100 if row["jpeg_quality"] is None else row["jpeg_quality"] for row in rows], dtype=np.int64)
    kept = quality >= CLEAN_QUALITY if matched else np.ones(len(rows), dtype=bool)
    least = {one: _least_side(experiment, one, source.may_be_enlarged) or 0 for one in experiment.resolutions}
    return SourceCheck(
        name=name,
        label=label,
        pictures=len(rows),
        groups=notes["groups"],
        set_aside=dict(aside.most_common()),
        repeats=notes["duplicates"],
        places={place: counts["images"] for place, counts in notes["places"].items()},
        sizes=sizes,
        formats=dict(Counter(row["format"] for row in rows).most_common()),
        qualities=qualities,
        own_tables=np.empty(0, dtype=np.int64),
        too_small={str(one): int(np.sum(shorter < side)) for one, side in least.items()},
        unmatched={str(one): int(np.sum(~kept & (shorter >= side))) for one, side in least.items()},
        unmatched_against=() if len(of_jpegs) == len(experiment.fake_names) else tuple(of_jpegs),
        taking_part={
            str(one): _counted(label, [places.get(row["image_id"]) for row in rows], kept & (shorter >= side))
            for one, side in least.items()
        },
    )


def _counted(label: str, places: Sequence[Place | None], taking_part: npt.NDArray[np.bool_]) -> Counted:
    """Of pictures at their places (N,) those that take part."""
    counted = Counter(place for place, takes_part in zip(places, taking_part, strict=True) if takes_part)
    split_and_fold = ((place or (None, None), count) for place, count in counted.items())
    return Counted(REAL if label == "real" else FAKE, tuple((*place, count) for place, count in split_and_fold))


def _least_side(experiment: Experiment, resolution: int | str, may_be_enlarged: bool) -> int | None:
    """How many pixels the shorter side of a picture has that takes part in a resolution; None for any."""
    if experiment.path == "crop":
        return int(resolution)
    return None if may_be_enlarged else experiment.canonical_side


def _few_groups(sources: Sequence[SourceCheck]) -> Iterator[str]:
    for label in ("real", "fake"):
        for one in sources:
            if one.label == label and one.groups < LEAST_GROUPS:
                yield (
                    f"{one.name} has {one.groups} groups of pictures that belong together: with fewer than "
                    f"{LEAST_GROUPS} its numbers have no intervals, and prove nothing; where a fold is left without "
                    "any of its class, the evaluation ends"
                )


def _drawn(sources: Sequence[SourceCheck]) -> Iterator[str]:
    """Where a class has more test pictures than the other: a cell counts as many of both."""
    real = [one for one in sources if one.label == "real"]
    # Which photographs stand against which generator is a longer story then, and stands in their rows.
    if any(one.unmatched_against for one in real):
        return
    for fake in (one for one in sources if one.label == "fake"):
        counts: dict[tuple[int, int], list[str]] = defaultdict(list)
        for resolution, counted in fake.taking_part.items():
            counts[sum(one.taking_part[resolution].tested for one in real), counted.tested].append(resolution)
        for (photographs, fakes), resolutions in counts.items():
            if photographs != fakes and min(photographs, fakes):
                yield (
                    f"in {' and '.join(resolutions)} {min(photographs, fakes)} of {photographs} photographs are tested "
                    f"against as many of {fakes} pictures of {fake.name}: a cell counts as many of both, drawn by "
                    "their ids"
                )


def _copies(experiment: Experiment, notes: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Where generators that are left out one without the other have the same pictures; by the notes of sources."""
    family = {fake: name for name, members in experiment.all_families.items() for fake in members}
    for name in family:
        for other, count in notes.get(name, {}).get("duplicates", {}).items():
            if family.get(other, family[name]) != family[name]:
                yield (
                    f"{count} of {name} look like pictures of {other}, a generator of another family: where one of the "
                    "two is left out of the training, its copies stay in; take them out, or name both as one of the "
                    "families"
                )


def _kept_in(experiment: Experiment) -> Iterator[str]:
    """Where `left_out` leaves out nothing of a class, which a table without such rows does not say."""
    fakes, real = experiment.fake_names, experiment.real_names
    one_fake = "there is one alone" if len(fakes) == 1 else "all are of one family"
    has_family = any(len(members) < len(fakes) for members in experiment.all_families.values())
    apart = {mix.real for mix in experiment.all_mixes}
    together = [name for name in real if (name,) not in apart]
    if asked := [one.name for one in experiment.all_detectors if getattr(one, "left_out", False)]:
        without = [] if has_family else [f"no generator, as {one_fake}"]
        if len(real) == 1:
            without.append("no source of photographs, as there is one alone")
        elif together:
            every = "no source of photographs, as no mix has one alone"
            some = f"no photographs of {' or '.join(together)}, as no mix has them alone"
            without.append(every if len(together) == len(real) else some)
        if without:
            yield f"left_out of {' and '.join(asked)} leaves out {', and '.join(without)}"
    networks = () if experiment.mobile is None else experiment.mobile.networks[:1]
    if networks and getattr(networks[0], "left_out", False) and not has_family:
        yield f"left_out of {networks[0].name} leaves out no generator, as {one_fake}"


def _unknown_histories(experiment: Experiment, sources: Sequence[SourceCheck]) -> Iterator[str]:
    """Where files do not say what they were before, or were saved as no other file is when histories are matched."""
    lossless = [one.name for one in sources if one.label == "fake" and one.pictures and not len(one.qualities)]
    lossless += [one for one in experiment.fake_names if one not in {source.name for source in sources}]
    for one in sources if experiment.matches_history else ():
        others = one.pictures - len(one.qualities)
        if others:
            yield (
                f"{others} of {one.pictures} pictures of {one.name} are no JPEGs: what they were before cannot be "
                "told, and is not made equal; it may be what is told"
            )
        like = "photographs" if one.label == "fake" else f"pictures of {' and '.join(lossless)}" if lossless else ""
        if like and one.pictures and len(one.own_tables) >= MANY_OWN_TABLES * one.pictures:
            yield (
                f"{len(one.own_tables)} of {one.pictures} pictures of {one.name} were saved with quantisation tables "
                f"of their own (of about quality {int(np.median(one.own_tables))}): matched {like} take standard ones, "
                "and the difference may be what is told"
            )


def _of_histories(experiment: Experiment, sources: Sequence[SourceCheck]) -> str:
    """What becomes of encodings that differ; only those of JPEGs are known, and can be made equal."""
    if not experiment.matches_history:
        return ": an encoding stays visible under the next one, and may be what is told"
    known = all(len(one.qualities) == one.pictures for one in sources)
    if known and not any(len(one.own_tables) for one in sources if one.label == "fake"):
        return " (both take one encoding more: history matched)"
    return " (history matched makes equal the quality and the subsampling of JPEGs, nothing else)"


def _confounds(experiment: Experiment, sources: Sequence[SourceCheck]) -> Iterator[str]:
    """What tells a generator's files from photographs without a look at any pixel."""
    unseen = f" (the path {experiment.path} hides it)"
    real = [one for one in sources if one.label == "real" and one.pictures]
    if not real:
        return
    formats = sum((Counter(one.formats) for one in real), Counter[str]())
    sizes = np.concatenate([one.sizes for one in real])
    qualities = np.concatenate([one.qualities for one in real])
    for fake in (one for one in sources if one.label == "fake" and one.pictures):
        of_jpegs = _of_histories(experiment, [*real, fake])
        for form, count in Counter(fake.formats).most_common():
            if count >= _SOME * fake.pictures and formats[form] <= _FEW * formats.total():
                of_form = f"{count} of {fake.pictures} pictures of {fake.name} are {form}, {formats[form]} photographs"
                yield f"{of_form}{of_jpegs}"
        (size, count), *_ = Counter(map(tuple, fake.sizes.tolist())).most_common(1)
        alike = int(np.all(sizes == size, axis=1).sum())
        if count >= _MOST * fake.pictures and alike <= _FEW * len(sizes):
            shown = f"{size[0]}x{size[1]}"
            yield f"{count} of {fake.pictures} pictures of {fake.name} are {shown}, {alike} photographs{unseen}"
        if len(fake.qualities) and len(qualities):
            medians = int(np.median(fake.qualities)), int(np.median(qualities))
            if abs(_superiority(fake.qualities, qualities) - 0.5) > _TOLD - 0.5:
                qualities_of = f"{medians[0]} of {fake.name}, {medians[1]} of the photographs"
                yield f"the median JPEG quality is {qualities_of}{of_jpegs}"


def _superiority(ones: npt.NDArray[np.int64], others: npt.NDArray[np.int64]) -> float:
    """The chance that one of `ones` (N,) is above one of `others` (M,), equal ones counted half."""
    ordered = np.sort(others)
    below, not_above = (np.searchsorted(ordered, ones, side=side).mean() for side in ("left", "right"))
    return float((below + not_above) / (2 * len(others)))


def _errors(experiment: Experiment, sources: Sequence[SourceCheck]) -> Iterator[str]:
    """Resolutions in which a source takes no part at all, or in which nothing can be fitted."""
    known = all(one.pictures and not one.unmatched_against for one in sources)
    if known and len(sources) == len(experiment.evaluated_sources):
        for resolution in map(str, experiment.resolutions):
            counted = [one.taking_part[resolution] for one in sources]
            if all(sum(one.total for one in counted if one.label == label) for label in (REAL, FAKE)) and (
                why := why_not_fitted(counted, experiment.splits)
            ):
                yield f"nothing can be fitted in {resolution}, where {why}: it needs more pictures, or other splits"
    for one in sources:
        shorter = one.sizes.min(axis=1) if len(one.sizes) else np.zeros(1, np.int64)
        for resolution, count in one.too_small.items():
            if one.pictures and count == one.pictures:
                yield (
                    f"no picture of {one.name} is large enough for {resolution}: the largest has a shorter side of "
                    f"{int(shorter.max())} pixels"
                )
        unclean = len(one.qualities) == one.pictures and all(one.qualities < CLEAN_QUALITY)
        if any(one.unmatched.values()) and unclean and not one.unmatched_against:
            yield (
                f"all photographs of {one.name} are JPEGs below quality {CLEAN_QUALITY}: their own encoding would be "
                "seen under that of the generated pictures, so that none can be compared; leave that source out, or "
                "set history: as-is to see what that gives"
            )
