"""Refuses settings of stage two that a dataset card gives nothing for: they would do nothing, and
say nothing of it."""

from collections.abc import Iterator

from recsys_core.data.card_parts import NoSessions
from recsys_core.data.cards import DatasetCard
from recsys_core.errors import ConfigError
from recsys_core.sections import Read, TrainRnn


def check_settings(card: DatasetCard, train_rnn: TrainRnn) -> None:
    """Raise `ConfigError` with the first of these settings; all of them would not fit a line, and
    `twotempo check` tells them."""
    for found in settings_without_use(card, train_rnn):
        raise ConfigError(found)


def settings_without_use(card: DatasetCard, train_rnn: TrainRnn) -> Iterator[str]:
    """One line each: what was found, what the card has, what to do."""
    types, is_hgru = ", ".join(card.kept_types), train_rnn.backbone == "hgru"
    without: dict[Read, str] = {}
    if isinstance(card.sessions, NoSessions):
        without["session"] = "the card's sessions are none; declare them there"
    if card.columns.value is None:
        without["value"] = "the card's columns.value is null; name the column there"
    if len(card.kept_types) < 2:
        without["type"] = f"the card keeps one event type, {types}; declare more in event_types"
    for read, why in without.items():
        if read in train_rnn.reads:
            others = ", ".join(one for one in train_rnn.reads if one != read)
            # hgru cannot do without
            instead = " -S train_rnn.backbone=gru" * (read == "session" and is_hgru)
            yield (
                f"train_rnn.reads names {read}, but {why}, or run with "
                f"-S 'train_rnn.reads=[{others}]'{instead}"
            )
    if train_rnn.rating and card.columns.value is None:
        yield (
            "train_rnn.rating is true, but the card names no column of values (columns.value); "
            "name it there, or run with -S train_rnn.rating=false"
        )
    lacking = sorted(set(train_rnn.rewards) - set(card.kept_types))
    if lacking:
        kept = {name: one for name, one in train_rnn.rewards.items() if name not in lacking}
        said = ", ".join(f"{name}: {reward:g}" for name, reward in kept.items())
        yield (
            f"train_rnn.rewards names {', '.join(lacking)}, but the event types that the card "
            f"keeps are {types}; name some of these, or run with -S 'train_rnn.rewards={{{said}}}'"
        )
    if train_rnn.low_value is not None and card.columns.value is None:
        yield (
            f"train_rnn.low_value is {train_rnn.low_value:g}, but the card's columns.value is "
            "null; name the column there, or run with -S train_rnn.low_value=null"
        )
