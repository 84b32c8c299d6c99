"""The baselines by name, and what of them is chosen on the validation period by the first metric.

| name                   | what it is                                       | chosen            |
|------------------------|--------------------------------------------------|-------------------|
| popularity             | how often an item occurred                       |                   |
| recent_popularity      | the same in the last hours                       | hours             |
| transitions            | what came after the last item                    | hours             |
| item_knn               | cosine neighbours of the history's items         | shrinkage, number |
| ease                   | a ridge from all other items, in closed form     | ridge             |
| ease_transitions       | both together                                    | weight            |
| user_knn               | what the nearest users had                       | shrinkage, number |
| stan                   | what the nearest sessions had, by order and time | three decays      |
| own_recent             | own items, latest first, then recent popularity  |                   |
| own_recent_transitions | own items and what came after the last one       | how they weigh    |
| own_frequent           | own items by how often, then recent popularity   |                   |
| personal_frequency     | counts of own items, then recent popularity      |                   |
| repeat_last            | the last item, then recent popularity            |                   |

A model is fitted on what is known at a cut. What another one of them needs (recent popularity in
its window, the ridge of ease) is chosen first. Those that are `STREAMED` can also be had as they
are at each target (`models/streaming.py`): of the items known at the cut, by every earlier event.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, is_dataclass, replace
from typing import Any

from recsys_core.data.cuts import Cut
from recsys_core.data.events import Events
from recsys_core.models import (
    item_neighbours,
    linear_items,
    personal,
    session_neighbours,
    user_neighbours,
)
from recsys_core.models.baselines import (
    Popularity,
    Transitions,
    fit_popularity,
    fit_popularity_within,
    fit_transitions,
)
from recsys_core.models.history_model import FromLastItem, HistoryModel
from recsys_core.models.item_neighbours import ItemNeighboursSettings, fit_item_neighbours
from recsys_core.models.item_table import transition_shares
from recsys_core.models.linear_items import (
    LinearItems,
    LinearItemsAndTransitions,
    LinearItemsSettings,
    fit_linear_items,
)
from recsys_core.models.personal import (
    OwnAndTransitions,
    OwnAndTransitionsSettings,
    OwnItems,
    PersonalFrequency,
)
from recsys_core.models.session_neighbours import (
    SessionNeighboursSettings,
    fit_session_neighbours,
)
from recsys_core.models.streaming import (
    StreamingPopularity,
    stream_popularity,
    stream_transitions,
)
from recsys_core.models.user_neighbours import UserNeighboursSettings, fit_user_neighbours
from recsys_core.sections import BaselineName

Setting = (
    float
    | ItemNeighboursSettings
    | LinearItemsSettings
    | UserNeighboursSettings
    | SessionNeighboursSettings
    | OwnAndTransitionsSettings
    | None
)
"""What is chosen of a baseline; None where there is nothing to choose, or no window."""

NEEDS: dict[BaselineName, tuple[BaselineName, ...]] = {
    "popularity": (),
    "recent_popularity": (),
    "transitions": ("recent_popularity",),
    "item_knn": (),
    "ease": (),
    "ease_transitions": ("ease", "transitions"),
    "user_knn": (),
    "stan": (),
    "own_recent": ("recent_popularity",),
    "own_recent_transitions": ("transitions",),
    "own_frequent": ("recent_popularity",),
    "personal_frequency": ("recent_popularity",),
    "repeat_last": ("recent_popularity",),
}
"""Every name, and whose choice each one's fit takes up."""

WITH_LIKELIHOOD = ("popularity", "recent_popularity", "transitions")
"""Those whose scores are log-probabilities."""

STREAMED: tuple[BaselineName, ...] = ("popularity", "recent_popularity", "transitions")
"""Those that can be had as they are at each target."""

FROZEN = "_frozen"
"""Ends the name of a baseline that knows no more than what was known when the test period began,
beside others that stream."""


def ranked_name(name: BaselineName, *, streaming: bool) -> str:
    """What a baseline is called among ranks.

    >>> ranked_name("stan", streaming=True), ranked_name("popularity", streaming=True)
    ('stan_frozen', 'popularity')
    """
    return f"{name}{FROZEN}" if streaming and name not in STREAMED else name


@dataclass(frozen=True)
class Choice:
    """What was chosen of a baseline, and the validation metric of each that there was."""

    setting: Setting
    values: dict[Setting, float]


def choose_settings(
    names: tuple[BaselineName, ...],
    events: Events,
    cut: Cut,
    *,
    hours: tuple[float, ...],
    timed: bool,
    streaming: bool,
    value: Callable[[HistoryModel], float],
) -> dict[BaselineName, Choice]:
    """What is chosen of each of `names`, of what they need, and of recent popularity.

    Models are fitted at `cut`, where the validation period begins; the setting with the largest
    `value` is taken, of equal ones the first. `timed`: times are real ones. `streaming`: those
    of `Fits`.
    """
    chosen: dict[BaselineName, Choice] = {}
    fits = Fits(events, cut, {}, streaming=streaming)
    for name in _in_order(("recent_popularity", *names)):
        grid = _grid(name, hours=hours, timed=timed)
        values: dict[Setting, float] = {}
        if grid != (None,):
            values = {setting: value(fits.model(name, setting)) for setting in grid}
        best = max(grid, key=lambda setting: values.get(setting, 0.0))
        chosen[name] = Choice(best, values)
        settings = {one: choice.setting for one, choice in chosen.items()}
        fits = Fits(events, cut, settings, streaming=streaming, before=fits)
    return chosen


class Fits:
    """The baselines fitted on what is known at a cut; what several share is fitted once.

    `streaming`: those that are `STREAMED` as they are at each target, of the items known at the
    cut; no other is to be asked for then.
    """

    def __init__(
        self,
        events: Events,
        cut: Cut,
        chosen: Mapping[BaselineName, Setting],
        *,
        streaming: bool,
        before: "Fits | None" = None,
    ) -> None:
        self._events = events
        self._cut = cut
        self._chosen = chosen
        self._streaming = streaming
        self._linear: dict[Setting, LinearItems] = {} if before is None else before._linear

    def model(self, name: BaselineName, setting: Setting) -> HistoryModel:
        """The baseline called `name`; what it needs is as chosen."""
        if self._streaming:
            return self._streamed(name, setting)
        events, counts, n_items = self._events, self._cut.counts, self._cut.n_items
        match name, setting:
            case "popularity", None:
                return FromLastItem(fit_popularity(events, counts, n_items=n_items))
            case "recent_popularity", float() | None as hours:
                return FromLastItem(self._popularity(hours))
            case "transitions", float() | None as hours:
                return FromLastItem(self._transitions(hours))
            case "item_knn", ItemNeighboursSettings() as settings:
                return fit_item_neighbours(events, counts, n_items=n_items, settings=settings)
            case "ease", LinearItemsSettings():
                return self._ease(setting)
            case "ease_transitions", float() as weight:
                shares = transition_shares(self._transitions(self._window("transitions")))
                return LinearItemsAndTransitions(self._ease(self._chosen["ease"]), shares, weight)
            case "user_knn", UserNeighboursSettings() as settings:
                return fit_user_neighbours(events, counts, n_items=n_items, settings=settings)
            case "stan", SessionNeighboursSettings() as settings:
                return fit_session_neighbours(events, counts, n_items=n_items, settings=settings)
            case "own_recent_transitions", OwnAndTransitionsSettings() as settings:
                return OwnAndTransitions(settings, self._transitions(self._window("transitions")))
            case "own_recent_transitions", None:
                following = self._transitions(self._window("transitions"))
                return OwnItems("recent", catalogue=n_items, rest=following)
            case "personal_frequency", None:
                return PersonalFrequency(self._popularity(self._window("recent_popularity")))
            case (("own_recent" | "own_frequent" | "repeat_last"), None):
                popularity = self._popularity(self._window("recent_popularity"))
                order = {"own_recent": "recent", "own_frequent": "frequent", "repeat_last": "last"}
                return OwnItems(order[name], catalogue=n_items, rest=popularity)  # type: ignore[arg-type]
        raise AssertionError(f"{name} has no setting {setting!r}")

    def _streamed(self, name: BaselineName, setting: Setting) -> HistoryModel:
        assert name in STREAMED, f"{name} is not streamed"
        assert setting is None or isinstance(setting, float), "windows are hours"
        if name != "transitions":
            return self._stream_popularity(setting)
        backoff = self._stream_popularity(self._window("recent_popularity"))
        return stream_transitions(self._events, backoff=backoff, hours=setting)

    def _stream_popularity(self, hours: float | None) -> StreamingPopularity:
        return stream_popularity(self._events, n_items=self._cut.n_items, hours=hours)

    def _window(self, name: BaselineName) -> float | None:
        hours = self._chosen[name]
        assert hours is None or isinstance(hours, float), "windows are hours"
        return hours

    def _popularity(self, hours: float | None) -> Popularity:
        since = None if hours is None else self._cut.since(hours)
        counts, n_items = self._cut.counts, self._cut.n_items
        return fit_popularity_within(self._events, counts, n_items=n_items, since=since)

    def _transitions(self, hours: float | None) -> Transitions:
        since = None if hours is None else self._cut.since(hours)
        backoff = self._popularity(self._window("recent_popularity"))
        return fit_transitions(self._events, self._cut.counts, backoff=backoff, since=since)

    def _ease(self, setting: Setting) -> LinearItems:
        assert isinstance(setting, LinearItemsSettings)
        weights = replace(setting, recency=0.0)  # how a history is read is no part of the fit
        if weights not in self._linear:
            self._linear.clear()  # one is the square of the catalogue: two may be too large
            self._linear[weights] = fit_linear_items(
                self._events, self._cut.counts, n_items=self._cut.n_items, settings=weights
            )
        return replace(self._linear[weights], recency=setting.recency)


def label(setting: Setting) -> str:
    """A setting as text, for reports.

    >>> label(3.0), label(OwnAndTransitionsSettings(weight=0.1, power=2.0)), label(None)
    ('3', 'weight=0.1 power=2', 'none')
    """
    if setting is None:
        return "none"
    if isinstance(setting, float):
        return f"{setting:g}"
    assert is_dataclass(setting)
    return " ".join(f"{key}={_number(value)}" for key, value in asdict(setting).items())


def _number(value: Any) -> str:
    return "none" if value is None else f"{value:g}"


def _in_order(names: tuple[BaselineName, ...]) -> list[BaselineName]:
    """The names and all that they need, each after what it needs, once."""
    ordered: dict[BaselineName, None] = {}
    for name in names:
        for needed in (*_in_order(NEEDS[name]), name):
            ordered.setdefault(needed)
    return list(ordered)


def _grid(name: BaselineName, *, hours: tuple[float, ...], timed: bool) -> tuple[Setting, ...]:
    """What there is to choose from."""
    hours = tuple(float(hour) for hour in hours)
    grids: dict[BaselineName, tuple[Setting, ...]] = {
        "recent_popularity": hours or (None,),
        "transitions": (*hours, None),
        "item_knn": item_neighbours.GRID,
        "ease": linear_items.GRID,
        "ease_transitions": linear_items.TRANSITION_GRID,
        "user_knn": user_neighbours.GRID,
        "stan": session_neighbours.GRID if timed else session_neighbours.TIMELESS_GRID,
        "own_recent_transitions": (None, *personal.GRID),
    }
    return grids.get(name, (None,))
