"""Which columns of a dataset card a network reads of events and of users, checked before anything
trains."""

from collections.abc import Mapping, Sequence

from recsys_core.data.features import Kind
from recsys_core.data.fields import FieldKinds
from recsys_core.errors import ConfigError


def field_kinds(
    reads: Sequence[str], *, context: Mapping[str, Kind], user_features: Mapping[str, Kind]
) -> FieldKinds:
    """The columns that `train_rnn.reads` names, of the card's `context` and `user_features`.

    `user` names all of them, `user.age` that one, and so does `context`. Raises `ConfigError` where
    the card has no such column.
    """
    return FieldKinds(
        _chosen(reads, "context", context, section="context"),
        _chosen(reads, "user", user_features, section="user_features"),
    )


def _chosen(
    reads: Sequence[str], word: str, declared: Mapping[str, Kind], *, section: str
) -> dict[str, Kind]:
    named = [read.partition(".")[2] for read in reads if read.startswith(f"{word}.")]
    lacking = [f"{word}.{name}" for name in named if name not in declared]
    if word in reads and not declared:
        lacking.append(word)
    if lacking:
        kept = ", ".join(read for read in reads if read not in lacking)
        raise ConfigError(
            f"train_rnn.reads names {', '.join(lacking)}, but the card's {section} are "
            f"{', '.join(sorted(declared)) or 'none'}; declare them there, or run with "
            f"-S 'train_rnn.reads=[{kept}]'"
        )
    names = declared if word in reads else named
    return {name: declared[name] for name in names}
