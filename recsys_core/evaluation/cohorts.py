"""Who the targets are: the groups of targets that metrics are reported for.

| cohort           | its targets                                                            |
|------------------|------------------------------------------------------------------------|
| all              | every target                                                           |
| active, inactive | the user's known history is at least `t_star`, or is shorter           |
| new_user         | the user has no event before the period                                |
| known, unknown   | the item is in the vocabulary (`item_idx <= n_items`), or is not       |
"""

import numpy as np
import numpy.typing as npt

from recsys_core.data.events import Events
from recsys_core.evaluation.targets import Targets

Bool = npt.NDArray[np.bool_]

COHORTS = ("all", "active", "inactive", "new_user", "known", "unknown")


def cohorts(
    targets: Targets, events: Events, *, start: int, t_star: int, n_items: int
) -> dict[str, Bool]:
    """A mask over targets for each of `COHORTS`, empty ones too.

    `start` is the first microsecond of the period.
    """
    active = targets.history >= t_star
    known = targets.item_idx <= n_items
    return {
        "all": np.ones(len(targets), dtype=bool),
        "active": active,
        "inactive": ~active,
        "new_user": events.timestamp[events.offsets[targets.user_idx]] >= start,
        "known": known,
        "unknown": ~known,
    }
