"""The part of the log that a fit may see: what is known at a cut."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from recsys_core.data.cuts import Cut
from recsys_core.data.events import Events
from recsys_core.errors import ConfigError
from recsys_core.training.rewards import Rewards

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]

MICROSECONDS_PER_DAY = 86_400_000_000

OLDEST_WEIGHT = 5e-4
"""Weight of an event many half-lives old, beside a new one's 1."""


@dataclass(frozen=True)
class LogUntil:
    """The events that are known at a cut; a user's are the first `counts[user_idx]` of their rows.

    Each of them is of a known item: `cuts.known_part` gives such a log.
    """

    events: Events
    cut: Cut
    type_weights: Float32 | None = None
    """Weight of each event type in the loss; None: all alike."""
    type_names: tuple[str, ...] = ()
    """Of the event types, where somebody asks for them by name."""
    reward_rule: Rewards = field(default_factory=Rewards)

    @property
    def n_items(self) -> int:
        """Items that are known: exactly those have idx <= n_items."""
        return self.cut.n_items

    @property
    def counts(self) -> Int64:
        """Events of each user. (U + 1,)"""
        return self.cut.counts

    @property
    def rows(self) -> Int64:
        """Row numbers of the events."""
        return np.flatnonzero(self.cut.known(self.events))

    def weights(self, half_life_days: float | None) -> Float32:
        """Weight of every event in the loss, mean 1 over the events before the cut. (N,)

        It is that of the event's type, times what its age leaves: an event `half_life_days` older
        than another weighs half as much, since what people want now is closer to what they wanted
        yesterday than a month ago. Age alone leaves no less than `OLDEST_WEIGHT`, so that an item
        that is no longer asked for keeps a trained vector. A half-life needs a cut at one time.
        """
        weight = np.ones(len(self.events))
        if half_life_days is not None:
            now = self.cut.one_time("a half-life")
            age = (now - self.events.timestamp) / MICROSECONDS_PER_DAY
            # events after the cut are never trained on; unclipped their weight could overflow
            weight = np.maximum(np.exp2(-np.maximum(age, 0.0) / half_life_days), OLDEST_WEIGHT)
        if self.type_weights is not None:
            weight *= self.type_weights[self.events.event_type]
        return np.asarray(weight / weight[self.rows].mean(), dtype=np.float32)

    @property
    def rewards(self) -> Float32 | None:
        """The reward of every event, from 0 to 1; None where all are 1. (N,)"""
        return self.reward_rule.of_events(self.events, self.type_names)

    @property
    def wanted_rows(self) -> Int64:
        """`rows` less those of events with a reward of 0, which nobody wants recommended.

        Raises `ConfigError` where that leaves none of them.
        """
        rows, wanted = self.rows, self.reward_rule.wanted(self.events, self.type_names)
        if wanted is None:
            return rows
        kept = rows[wanted[rows]]
        if len(rows) and not len(kept):
            raise ConfigError(
                f"train_rnn.rewards and low_value give all {len(rows)} events before the cut a "
                "reward of 0, which leaves nothing to recommend; give some type more than 0, or "
                "lower low_value"
            )
        return kept

    @property
    def item_counts(self) -> Int64:
        """Events of each item. (V + 1,)"""
        counts = np.bincount(self.events.item_idx[self.rows], minlength=self.n_items + 1)
        return counts.astype(np.int64)

    def item_frequency(
        self, weights: Float32, rows: Int64 | None = None
    ) -> npt.NDArray[np.float64]:
        """Weighted events of each item, at least a thousandth for a known one; of some of the
        `rows`, or all. (V + 1,)"""
        rows = self.rows if rows is None else rows
        frequency = np.bincount(
            self.events.item_idx[rows], weights=weights[rows], minlength=self.n_items + 1
        )
        frequency[1:] = np.maximum(frequency[1:], 1e-3)
        return frequency.astype(np.float64)


def log_popularity(frequency: npt.NDArray[np.float64]) -> Float32:
    """Log share of each frequency (V + 1,), 0 for PAD: with these biases a model is popularity.

    Every frequency but that of PAD is above 0.
    """
    bias = np.zeros(len(frequency), dtype=np.float32)
    bias[1:] = np.log(frequency[1:] / frequency[1:].sum())
    return bias
