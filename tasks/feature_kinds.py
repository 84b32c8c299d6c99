"""Which columns of a dataset card's item features a model reads, checked before anything trains."""

from collections.abc import Mapping

from recsys_core.data.features import Kind
from recsys_core.errors import ConfigError
from recsys_core.sections import Features


def kinds_read(features: Features, declared: Mapping[str, Kind]) -> dict[str, Kind]:
    """The kind of each column that `features.items` names; `declared` are those of the card.

    Raises `ConfigError` where it names one that the card lacks.
    """
    lacking = [name for name in features.items if name not in declared]
    if lacking:
        there = ", ".join(sorted(declared)) or "none"
        kept = ", ".join(name for name in features.items if name in declared)
        raise ConfigError(
            f"features.items names {', '.join(lacking)}, but the card's item_features are {there}; "
            f"declare them there, or run with -S 'features.items=[{kept}]'"
        )
    return {name: declared[name] for name in features.items}
