"""Audits: each audited generator at every stage, from files as they came to windows of one history."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from flows.collect import collect
from flows.compared import Compared
from flows.detectors import Scores, evaluated
from flows.histories import Pictures, pictures_by_source
from flows.shard import Images
from storage.objects import Ref
from storage.opening import open_store
from storage.tables import FAKE, REAL
from tasks.data.windows import Among, Counted, count_windows, why_not_fitted
from tasks.detectors.base import DetectorBase
from tasks.evaluation.audit import (
    SAME_HISTORY,
    SAME_SIZE,
    WHOLE_CELLS,
    Absent,
    StageScores,
    audit_stages,
    audited_whole,
    audited_windows,
    window_cell,
)
from tasks.evaluation.protocols import mixes_of
from tasks.spec.detectors import Fit
from tasks.spec.experiment import Experiment, Mix
from tasks.spec.views import Cell

# A detector that has its scores from elsewhere.
NOT_ASKED = "it says nothing of pictures that it was not given"


def audits(
    experiment: Experiment,
    images: Images,
    shards: Mapping[str, tuple[Ref, ...]],
    encodings: Mapping[str, Ref],
    own: Scores,
) -> Iterator[Ref]:
    """What every detector and probe tells of each audited generator at every stage; nothing where none is audited.

    `encodings` is what `counted_encodings` found. `own` are the run's scores: who can be asked of no other pictures has
    those at the last stage.
    """
    if not experiment.audited:
        return
    counted = _counted(experiment, shards)
    waiting = []
    for mix in experiment.audited_mixes:
        audit = _Audit(experiment, mix, images, shards, encodings, counted)
        stages = [*audit.whole(), *audit.windows("as-is"), *audit.windows("matched"), *audit.given(own)]
        waiting.append(
            audit_stages.submit(
                mix=mix,
                scored=tuple(one for one in stages if isinstance(one, StageScores)),
                absent=tuple(one for one in stages if isinstance(one, Absent)),
                seed=experiment.seed,
                resamples=experiment.bootstrap_resamples,
            )
        )
    yield from collect(waiting)


@dataclass(frozen=True)
class _Audit:
    """What an audit of one generator is made of; `counted` says of each source how many pictures have a window."""

    experiment: Experiment
    mix: Mix
    images: Images
    shards: Mapping[str, tuple[Ref, ...]]
    encodings: Mapping[str, Ref]
    counted: Mapping[str, Ref]

    def whole(self) -> Iterator[StageScores | Absent]:
        """The stages of whole pictures."""
        yield from self._scored(WHOLE_CELLS, audited_whole(self.experiment, self.mix), "pictures")

    def windows(self, history: Literal["matched", "as-is"]) -> Iterator[StageScores | Absent]:
        """A stage of windows."""
        cell, (fake,) = window_cell(self.experiment), self.mix.fakes
        cells = {SAME_SIZE if history == "as-is" else SAME_HISTORY: cell}
        if self._count(fake, "windows").total:
            yield from self._scored(cells, audited_windows(self.experiment, self.mix, history), "windows")
        else:
            count = self._count(fake, "pictures").total
            reason = f"none of the {count} pictures of {fake} has a window of {cell.resolution} pixels"
            yield from self._absent(cells, self.experiment.uncompressed().detectors, reason)

    def given(self, own: Scores) -> Iterator[StageScores | Absent]:
        """Those of detectors that can be asked of no other pictures than the run's own: the last stage alone."""
        cell = window_cell(self.experiment)
        given = [one for one in self.experiment.all_detectors if not one.can_be_asked_anew]
        yield from self._absent(WHOLE_CELLS | {SAME_SIZE: cell}, given, NOT_ASKED)
        there = audited_windows(self.experiment, self.mix, "matched")
        for fit in map(_fit, given):
            (mix,) = mixes_of(there, fit)
            yield StageScores(stage=SAME_HISTORY, cell=cell, fit=fit, mix=mix, scores=own.of[fit, cell])

    def _scored(self, cells: Mapping[str, Cell], derived: Experiment, among: Among) -> Iterator[StageScores | Absent]:
        """The scores of a stage's experiment, in which some of the pictures take part; or why it has none."""
        if not derived.detectors:
            return
        pictures = pictures_by_source(derived, self.images, self.shards, self.encodings)
        if why := why_not_fitted(list(self._taking_part(derived, pictures, among)), derived.splits):
            yield from self._absent(cells, derived.detectors, why)
            return
        scores = Compared.of(derived, pictures).scores()
        for stage, cell in cells.items():
            for entry in evaluated(scores, cell):
                (mix,) = mixes_of(derived, entry.fit)
                yield StageScores(stage=stage, cell=cell, fit=entry.fit, mix=mix, scores=scores.of[entry.fit, cell])

    def _taking_part(self, derived: Experiment, pictures: Mapping[str, Pictures], among: Among) -> Iterator[Counted]:
        """How many pictures there are at a stage, source by source."""
        yield from (self._count(fake, among) for fake in self.mix.fakes)
        for real in self.mix.real:
            (name,) = derived.photographs(self.mix.fakes, (real,))
            yield self._count(real, among if pictures[name].canonical.history is None else "clean")

    def _count(self, source: str, among: Among) -> Counted:
        return Counted.of(open_store(), self.counted[source], FAKE if source in self.mix.fakes else REAL, among)

    @staticmethod
    def _absent(cells: Mapping[str, Cell], detectors: Iterable[DetectorBase], reason: str) -> Iterator[Absent]:
        for (stage, cell), detector in itertools.product(cells.items(), detectors):
            yield Absent(stage=stage, cell=cell, fit=_fit(detector), reason=reason)


def _fit(detector: DetectorBase) -> Fit:
    return Fit(detector=detector.name, role=detector.role)


def _counted(experiment: Experiment, shards: Mapping[str, tuple[Ref, ...]]) -> dict[str, Ref]:
    side = window_cell(experiment).resolution
    sources = (*experiment.real_names, *experiment.audited)
    counting = [count_windows.submit(images=shards[source], source=source, side=side) for source in sources]
    return dict(zip(sources, collect(counting), strict=True))
