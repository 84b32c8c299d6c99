"""How well a model predicts ratings, beside what needs no model: a part of evaluation's report."""

from typing import Any

import numpy as np
import numpy.typing as npt

from recsys_core.data.cuts import Cut
from recsys_core.data.events import Events
from recsys_core.data.histories import RequestTimes
from recsys_core.evaluation.ratings import RatedTargets, rated_targets, rmse_report
from recsys_core.evaluation.targets import Targets, request_times
from recsys_core.models.predict import expected_ratings
from recsys_core.models.requests import known_events
from recsys_core.models.rolling_average import item_average, rolling_average
from recsys_core.models.two_time_scale import TwoTimeScale


def ratings_report(
    model: TwoTimeScale,
    events: Events,
    targets: Targets,
    *,
    cut: Cut,
    names: tuple[str, str],
    seed: int,
    draws: int,
) -> dict[str, Any]:
    """The RMSE of a model that predicts ratings, beside what needs none: a part of a report.

    See `predicted_ratings`.
    """
    rated, predicted = predicted_ratings(model, events, targets, cut=cut, names=names)
    return {"ratings": rmse_report(predicted, rated, seed=seed, draws=draws)}


def predicted_ratings(
    model: TwoTimeScale, events: Events, targets: Targets, *, cut: Cut, names: tuple[str, str]
) -> tuple[RatedTargets, dict[str, npt.NDArray[np.floating]]]:
    """The targets whose value can be predicted, and what each model says of them (N,).

    `targets` have the histories that the model reads; `names` are that of the model, and its own
    without the request time, where it reads one. Averages are of what was known at `cut`.
    """
    n_items = model.input_spec.n_items
    rated = rated_targets(events, targets, n_items=n_items)
    known, asked = known_events(events, n_items), rated.targets
    items = asked.item_idx.astype(np.int64)

    def ratings(request: RequestTimes | None) -> npt.NDArray[np.float32]:
        return expected_ratings(
            model,
            known,
            user_idx=asked.user_idx.astype(np.int64),
            history=asked.history.astype(np.int64),
            items=items,
            request=request,
        )

    predicted: dict[str, npt.NDArray[np.floating]] = {
        names[0]: ratings(request_times(events, asked, n_items=n_items))
    }
    if model.input_spec.reads_request:
        predicted[names[1]] = ratings(None)
    predicted["rolling_average"] = rolling_average(events, cut, rated.rows, item_idx=items)
    predicted["item_average"] = item_average(events, cut, item_idx=items)
    return rated, predicted
