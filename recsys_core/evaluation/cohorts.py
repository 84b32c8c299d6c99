"""Who the targets are: the groups of targets that metrics are reported for.

| cohort           | its targets                                                            |
|------------------|------------------------------------------------------------------------|
| all              | every target                                                           |
| active, inactive | the user's known history is at least `t_star`, or is shorter           |
| new_user         | the user has no event before the period                                |
| known, unknown   | the item is a candidate: `item_idx <= n_items`, with an event before   |
|                  | the period; or it is not                                               |
"""

import numpy as np
import numpy.typing as npt

from recsys_core.data.cuts import Cut
from recsys_core.evaluation.ranks import is_candidate
from recsys_core.evaluation.targets import Targets

Bool = npt.NDArray[np.bool_]

COHORTS = ("all", "active", "inactive", "new_user", "known", "unknown")


def cohorts(targets: Targets, *, before: Cut, candidates: Bool, t_star: int) -> dict[str, Bool]:
    """A mask over targets for each of `COHORTS`, empty ones too.

    `before` is the cut at which the period begins, `candidates` (V + 1,) the items that had an
    event by then.
    """
    active = targets.history >= t_star
    known = is_candidate(candidates, targets.item_idx)
    return {
        "all": np.ones(len(targets), dtype=bool),
        "active": active,
        "inactive": ~active,
        "new_user": before.counts[targets.user_idx] == 0,
        "known": known,
        "unknown": ~known,
    }
