"""Audits: the audited generators at every stage, from files as they came to windows of one history."""

from collections.abc import Iterator, Mapping
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
from tasks.spec.experiment import Experiment
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
    """What every detector and probe tells of the audited generators at every stage; nothing where none is audited.

    `encodings` is what `counted_encodings` found; `own` are the run's scores: what can be asked of no other pictures has
    those at the last stage.
    """
    if experiment.audited:
        audit = _Audit(experiment, images, shards, encodings, _counted(experiment, shards))
        stages = [*audit.whole(), *audit.windows("as-is"), *audit.windows("matched"), *_given(experiment, own)]
        yield audit_stages(
            mixes=experiment.audited_mixes,
            scored=tuple(one for one in stages if isinstance(one, StageScores)),
            absent=tuple(one for one in stages if isinstance(one, Absent)),
            seed=experiment.seed,
            resamples=experiment.bootstrap_resamples,
        )


@dataclass(frozen=True)
class _Audit:
    """What an audit is made of; `counted` says of each of its sources how many pictures have a window."""

    experiment: Experiment
    images: Images
    shards: Mapping[str, tuple[Ref, ...]]
    encodings: Mapping[str, Ref]
    counted: Mapping[str, Ref]

    def whole(self) -> Iterator[StageScores | Absent]:
        """The stages of whole pictures."""
        yield from self._scored(WHOLE_CELLS, audited_whole(self.experiment), "pictures")

    def windows(self, history: Literal["matched", "as-is"]) -> Iterator[StageScores | Absent]:
        """A stage of windows, on the generators that have any."""
        cell = window_cell(self.experiment)
        cells = {SAME_SIZE if history == "as-is" else SAME_HISTORY: cell}
        there = [fake for fake in self.experiment.audited if self._count(fake, "windows").total]
        derived = audited_windows(self.experiment, there, history)
        for fake in self.experiment.audited:
            if fake not in there:
                count = self._count(fake, "pictures").total
                reason = f"none of the {count} pictures of {fake} has a window of {cell.resolution} pixels"
                yield from self._absent(cells, fake, reason)
        if there:
            yield from self._scored(cells, derived, "windows")

    def _scored(self, cells: Mapping[str, Cell], derived: Experiment, among: Among) -> Iterator[StageScores | Absent]:
        """The scores of a stage's experiment, in which some of the pictures take part; or why it has none."""
        if not derived.detectors:
            return
        pictures = pictures_by_source(derived, self.images, self.shards, self.encodings)
        if why := why_not_fitted(list(self._taking_part(derived, pictures, among)), derived.splits):
            for fake in derived.fake_names:
                yield from self._absent(cells, fake, why)
            return
        scores = Compared.of(derived, pictures).scores()
        for stage, cell in cells.items():
            for entry in evaluated(scores, cell):
                mixes = mixes_of(derived, entry.fit)
                yield StageScores(
                    stage=stage, cell=cell, fit=entry.fit, mixes=mixes, scores=scores.of[entry.fit, entry.cell]
                )

    def _taking_part(self, derived: Experiment, pictures: Mapping[str, Pictures], among: Among) -> Iterator[Counted]:
        """How many pictures there are at a stage, source by source."""
        for fake in derived.fake_names:
            yield self._count(fake, among)
            for real in derived.real_names:
                (name,) = derived.photographs((fake,), (real,))
                yield self._count(real, among if pictures[name].canonical.history is None else "clean")

    def _absent(self, cells: Mapping[str, Cell], fake: str, reason: str) -> Iterator[Absent]:
        """Every detector that could be asked, of one generator."""
        fits = [Fit(detector=one.name, role=one.role) for one in self.experiment.uncompressed().detectors]
        (mix,) = (mix.name for mix in self.experiment.audited_mixes if mix.fakes == (fake,))
        for stage, cell in cells.items():
            yield from (Absent(stage=stage, cell=cell, mix=mix, fit=fit, reason=reason) for fit in fits)

    def _count(self, source: str, among: Among) -> Counted:
        label = FAKE if source in self.experiment.fake_names else REAL
        return Counted.of(open_store(), self.counted[source], label, among)


def _counted(experiment: Experiment, shards: Mapping[str, tuple[Ref, ...]]) -> dict[str, Ref]:
    side = window_cell(experiment).resolution
    sources = (*experiment.real_names, *experiment.audited)
    counting = [count_windows.submit(images=shards[source], source=source, side=side) for source in sources]
    return dict(zip(sources, collect(counting), strict=True))


def _given(experiment: Experiment, own: Scores) -> Iterator[StageScores | Absent]:
    """What cannot be asked of other pictures than the run's own has these scores, and is absent before."""
    audited = experiment.model_copy(update={"mixes": experiment.audited_mixes})
    cell = window_cell(experiment)
    for detector in experiment.all_detectors:
        if detector.can_be_asked_anew:
            continue
        fit = Fit(detector=detector.name, role=detector.role)
        for stage, of_stage in (WHOLE_CELLS | {SAME_SIZE: cell}).items():
            for mix in audited.mixes:
                yield Absent(stage=stage, cell=of_stage, mix=mix.name, fit=fit, reason=NOT_ASKED)
        mixes = mixes_of(audited, fit)
        yield StageScores(stage=SAME_HISTORY, cell=cell, fit=fit, mixes=mixes, scores=own.of[fit, cell])
