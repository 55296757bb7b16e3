"""How a flow computes an experiment: here, task by task, or by lanes on the work pools."""

import logging
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

from flows.collect import mended
from flows.names import Request
from flows.overview import watched
from flows.preflight import CHECKS, Check, checked_experiment, refuse_missing, wanted_facts
from tasks.facts import Facts, ask_all, facts_known
from tasks.recipe import Pool
from tasks.spec.experiment import Experiment

T = TypeVar("T")

Dispatch = Literal["inline", "pools"]

logger = logging.getLogger(__name__)


def computed(
    request: Request,
    dispatch: Dispatch,
    compute: Callable[[Experiment], T],
    pools: Sequence[Pool] = ("cpu", "gpu"),
    checks: Sequence[Check] = CHECKS,
) -> tuple[Experiment, T]:
    """The experiment, and what `compute` returns of it: refs of finished objects.

    Inline, `compute` runs its tasks in the current flow, once `checks` find nothing missing here. On pools it is the
    plan: what is missing is made by lanes on these pools.

    Raises:
        MissingInput: everything that the work needs and that is not there, with remedies.
    """
    if dispatch == "inline":
        with facts_known(Facts()):
            experiment = checked_experiment(request.experiment, request.overrides, request.seed, checks=checks)
            with watched(experiment.name, request.title):
                return experiment, mended(lambda: compute(experiment))
    from flows.pools import computed_on_pools

    experiment = checked_experiment(request.experiment, request.overrides, request.seed, pools=pools)

    def plan() -> T:
        # First, so that all that is missing is said at once, not the first thing that stumbles over it.
        refuse_missing(experiment, pools)
        ask_all([(asked, given) for asked, given in wanted_facts(experiment) if asked.pool in pools])
        return compute(experiment)

    return experiment, computed_on_pools(request, experiment.name, plan, pools)
