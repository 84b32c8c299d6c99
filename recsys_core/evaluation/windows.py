"""How far back the baselines look: windows chosen on the validation period by the first metric."""

from dataclasses import dataclass

from recsys_core.data.events import Events
from recsys_core.data.splits import Split
from recsys_core.errors import DataError
from recsys_core.evaluation.metrics import metric_of
from recsys_core.evaluation.ranks import rank_targets
from recsys_core.evaluation.scorers import LastItemModel, baseline_scorer
from recsys_core.evaluation.targets import successive_targets
from recsys_core.models.baselines import (
    fit_popularity_within,
    fit_recent_popularity,
    fit_transitions,
)


@dataclass(frozen=True)
class Windows:
    """The chosen hours, and the validation metric of each that there was to choose from."""

    recent_hours: float | None  # None: there was none to choose from
    transition_hours: float | None  # None: the whole log
    recent_values: dict[float, float]
    transition_values: dict[float | None, float]


def choose_windows(
    events: Events,
    split: Split,
    *,
    n_items: int,
    hours: tuple[float, ...],
    metric: str,
    seen_filter: bool,
    batch: int,
) -> Windows:
    """The windows with the largest validation metric; of equal ones the first of `hours`.

    Models are fitted before the validation period, for the `n_items` known then. Transitions back
    off to recent popularity in its chosen window, and may also be counted over the whole log; where
    `hours` is empty they back off to popularity, and the whole log is all that there is.
    """
    cut = split.valid_start
    targets = successive_targets(events, cut, end=split.test_start, n_items=n_items)
    if len(targets) == 0:
        raise DataError(
            "no event of the validation period has an earlier event of its user, so nothing can be "
            "chosen on it; make `split` in params.yaml longer, unless no user of this log ever "
            "comes back"
        )

    def value(model: LastItemModel) -> float:
        scorer = baseline_scorer(model, targets, likelihood=False)
        ranks = rank_targets(scorer, targets, events=events, batch=batch, seen_filter=seen_filter)
        return float(metric_of(ranks.rank, metric).mean())

    recent = {h: value(fit_recent_popularity(events, cut, n_items=n_items, hours=h)) for h in hours}
    recent_hours = max(recent, key=lambda h: recent[h]) if recent else None
    backoff = fit_popularity_within(events, cut, n_items=n_items, hours=recent_hours)
    transitions: dict[float | None, float] = {
        h: value(fit_transitions(events, cut, backoff=backoff, hours=h)) for h in (*hours, None)
    }
    return Windows(
        recent_hours=recent_hours,
        transition_hours=max(transitions, key=lambda h: transitions[h]),
        recent_values=recent,
        transition_values=transitions,
    )
