"""Refuses what needs values of events where the card names no column of them."""

from recsys_core.errors import ConfigError
from recsys_core.sections import TrainRnn


def check_ratings(params: TrainRnn, *, value: str | None) -> None:
    """Raise `ConfigError` where ratings are to be predicted of a log without values; `value` is the
    card's column of them."""
    if params.rating and value is None:
        raise ConfigError(
            "train_rnn.rating is true, but the card names no column of values (columns.value); "
            "name it there, or run with -S train_rnn.rating=false"
        )
