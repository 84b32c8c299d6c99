"""Refuses fields that a card does not declare, before a run trains anything."""

from recsys_core.data.cards import DatasetCard
from recsys_core.sections import TrainRnn
from tasks.field_kinds import field_kinds


def check_fields(train_rnn: TrainRnn, card: DatasetCard) -> None:
    """Raise `ConfigError` where `train_rnn.reads` names fields that the card lacks."""
    of_users = {name: one.kind for name, one in card.user_features.items()}
    field_kinds(train_rnn.reads, context=card.context, user_features=of_users)
