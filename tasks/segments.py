"""The values of a column of the table of users, by which params tell users apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys_core.columns import USER_ID
from recsys_core.errors import ConfigError
from recsys_core.layout import Layout
from recsys_core.sections import Score
from recsys_core.tables import read_table

Int64 = npt.NDArray[np.int64]

USER_TABLE = pa.schema([pa.field(USER_ID, pa.string())])
"""What every table of user features begins with."""


@dataclass(frozen=True, eq=False)
class UserTable:
    """The users that the card's table of users describes, in the order of their ids."""

    table: pa.Table

    @property
    def ids(self) -> pa.StringArray:
        return self.table.column(USER_ID).combine_chunks()

    def codes(self, column: str, values: list[str]) -> Int64:
        """The place of each row's value of a column among `values`; -1 for any other, or none.
        (N,)"""
        place = pc.index_in(self.table.column(column), value_set=pa.array(values, pa.string()))
        return np.asarray(place.fill_null(-1).to_numpy(), dtype=np.int64)

    def values(self, column: str) -> list[str]:
        """The different values of a column in their order, but for none and the empty text."""
        found = pc.unique(self.table.column(column)).drop_null().to_pylist()
        return sorted(value for value in found if value)


def read_users(layout: Layout, score: Score) -> UserTable:
    """The table of users with the columns that scoring asks for; without users where the card
    describes none. Raises `ConfigError` where it lacks one, or one is no category."""
    columns = named_by(score)
    path = layout.user_features
    schema = pq.read_schema(path) if path.exists() else USER_TABLE
    categories = [one.name for one in schema if one.type == pa.string() and one.name != USER_ID]
    check_categories(columns, categories)
    if not path.exists():
        return UserTable(USER_TABLE.empty_table())
    names = list(dict.fromkeys([USER_ID, *(name for name in columns.values() if name is not None)]))
    return UserTable(
        read_table(path, pa.schema([schema.field(name) for name in names]), columns=names)
    )


def check_categories(columns: Mapping[str, str | None], categories: Sequence[str]) -> None:
    """Raise `ConfigError` where a key of params names a column that is none of the `categories`."""
    for key, column in columns.items():
        if column is not None and column not in categories:
            raise ConfigError(
                f"{key} is {column!r}, but the table of users has the categories "
                f"{', '.join(categories) or 'none'}; name one of them, declare it among "
                "user_features of the dataset card, or set it to null"
            )


def named_by(score: Score) -> dict[str, str | None]:
    """The columns of the table of users that scoring asks for, by their keys in params."""
    segments, cold = score.filters.segments, score.cold
    return {
        "score.filters.segments.by": None if segments is None else segments.by,
        "score.cold.segment": None if cold is None else cold.segment,
    }


def of_vocabulary(users: UserTable, codes: Int64, ids: pa.StringArray) -> Int64:
    """The codes of the rows of a table for each user_idx; -1 where a user has no row. (U + 1,)"""
    place = pc.index_in(ids, value_set=users.ids).fill_null(len(codes)).to_numpy()
    return np.concatenate([[-1], np.append(codes, -1)[place]])
