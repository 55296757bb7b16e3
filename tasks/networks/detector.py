"""The experiment's networks as detectors: they are trained by their chain, and scored by the very files they become."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self

from storage.objects import Ref
from tasks.detectors.base import DetectorBase, Entry, Grid, Inputs, picture_shards
from tasks.networks.scoring import gather_scores, score_network
from tasks.networks.variants import Variant
from tasks.spec.detectors import Fit, Residual
from tasks.spec.views import Cell, View


class MobileNet(DetectorBase):
    """A network with all its training seeds, and without each family in turn where its rejection is tested.

    The network itself is scored in every cell, the others in the cell `first` alone, in which it was trained: they show
    a spread, and what is rejected.
    """

    variants: tuple[Variant, ...]
    first: Cell

    reads_pictures: ClassVar[bool] = True

    @property
    def title(self) -> str:
        network = self.variants[0].network
        if isinstance(network, Residual):
            return f"small network behind a front end ({network.front_end})"
        return f"network, {self.variants[0].kind}" if self.windows > 1 else f"MobileNet, {self.variants[0].kind}"

    def single(self) -> Self:
        return self.model_copy(update={"variants": tuple(one for one in self.variants if one.fit.is_whole)})

    def entries(self, grid: Grid) -> tuple[Entry, ...]:
        return tuple(self._entries(grid))

    def _entries(self, grid: Grid) -> Iterator[Entry]:
        for variant in self.variants:
            cells = grid.cells if variant.fit.is_whole else (self.first,)
            for cell in cells:
                yield Entry(variant.fit, cell, Cell(resolution=cell.resolution), evaluated=variant.is_evaluated)

    def parts(self, fit: Fit, views: tuple[View, ...], grid: Grid, inputs: Inputs) -> list[Any]:
        return [
            score_network.submit(
                fit=fit,
                models=inputs.networks[fit],
                views=views,
                val_views=self.threshold_views(grid),
                splits=grid.splits,
                unseen=False,
                **shard,
            )
            for shard in picture_shards(grid, inputs)
        ]

    def scores(self, entry: Entry, parts: Mapping[View, tuple[Ref, ...]], grid: Grid, inputs: Inputs) -> Any:
        view = self.view(entry.cell, grid)
        return gather_scores.submit(fit=entry.fit, view=view, scores=parts[view])
