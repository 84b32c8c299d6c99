"""Refuses what scoring asks of a card that does not declare it: in seconds, before a training."""

import pyarrow as pa

from recsys_core.columns import ITEM_ID
from recsys_core.data.card_parts import FEATURE_TYPES
from recsys_core.data.cards import DatasetCard
from recsys_core.sections import Score
from recsys_core.sections_of_scoring import Candidates
from recsys_core.serving.rules import apply_rules
from tasks.eligible import check_times, check_types
from tasks.segments import check_categories, named_by


def check_scoring(score: Score, card: DatasetCard) -> None:
    """Raise `ConfigError` where the filters, the cold list or the seen events of `score` need a
    column or an event type that the card does not declare, or a rule is none."""
    filters = score.filters
    check_types(score, card.kept_types)
    categories = [name for name, one in card.user_features.items() if one.kind == "categorical"]
    check_categories(named_by(score), categories)
    if filters.available is not None:
        times = [name for name, one in card.item_features.items() if one.kind == "timestamp"]
        check_times(filters.available, times)
    sets = [Candidates(rules=filters.rules)]
    if filters.segments is not None:
        sets += [filters.segments.default, *filters.segments.sets.values()]
    rules = [rule for one in sets for rule in one.rules]
    columns = [
        pa.field(name, FEATURE_TYPES[one.kind]) for name, one in sorted(card.item_features.items())
    ]
    apply_rules(rules, pa.schema([pa.field(ITEM_ID, pa.string()), *columns]).empty_table())
