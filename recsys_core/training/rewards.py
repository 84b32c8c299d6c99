"""What an event is worth, from 0 to 1, by its type and its value (HRNN-meta, 2.2.8).

A reward of 0 says that an item was not wanted after all: sent back, left at once, shown and
ignored. Who recommends must not learn it as something to recommend:

    stage two     a target all the same, for only so it is pushed down (`losses.py`)
    stage one     learns from the other events alone
    validation    asks for the other events alone, and so what is chosen and fitted there
    memory        counts what follows, goes together and is asked for now without them
    histories     hold them, as what happened
    trend         counts them: it says what is asked for a lot, not what is kept
    evaluation    asks for every event: its targets are those of the protocol
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from recsys_core.data.cuts import Cut, part_of_log
from recsys_core.data.events import Events
from recsys_core.errors import ConfigError
from recsys_core.sections import TrainRnn

Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Rewards:
    """The rule: an event is worth what its type says, others 1, and one with a value of at most
    `low_value` no more than `low_value_reward`."""

    by_type: Mapping[str, float] = field(default_factory=dict)
    low_value: float | None = None
    low_value_reward: float = 0.0

    @classmethod
    def of(cls, params: TrainRnn) -> "Rewards":
        """That of stage two's section."""
        return cls(params.rewards, params.low_value, params.low_value_reward)

    def of_events(self, events: Events, type_names: tuple[str, ...]) -> Float32 | None:
        """The reward of every event; None where all are 1. (N,)

        Raises `ConfigError` for a type that the log has not got.
        """
        if not self.by_type and self.low_value is None:
            return None
        unknown = sorted(set(self.by_type) - set(type_names))
        if unknown:
            raise ConfigError(
                f"train_rnn.rewards names the event types {unknown}, the log has "
                f"{list(type_names)}; name some of these"
            )
        reward = np.ones(len(events), dtype=np.float32)
        for code, name in enumerate(type_names):
            reward[events.event_type == code] = self.by_type.get(name, 1.0)
        if self.low_value is not None:
            low = events.value <= self.low_value  # a missing value is not low
            least = np.minimum(reward, np.float32(self.low_value_reward))
            reward = np.where(low, least, reward)
        return reward

    def wanted(self, events: Events, type_names: tuple[str, ...]) -> Bool | None:
        """Which events have a reward above 0; None where all have. (N,)"""
        reward = self.of_events(events, type_names)
        return None if reward is None or reward.all() else reward > 0

    def wanted_part(
        self, events: Events, cut: Cut, type_names: tuple[str, ...]
    ) -> tuple[Events, Cut]:
        """The events with a reward above 0, and the cut among them; where all have, the very same
        log."""
        wanted = self.wanted(events, type_names)
        return (events, cut) if wanted is None else part_of_log(events, cut, wanted)
