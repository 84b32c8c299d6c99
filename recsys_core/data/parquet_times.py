"""Parquet files with times that DuckDB cannot read: seconds or milliseconds too far from 1970.

Its reader turns these into microseconds before a query sees them, and one value that does not fit
ends the reading of the whole file. Such a file is copied with infinity in those places, which
DuckDB knows: it is counted as unreadable and goes to quarantine, like the same value in a column
of microseconds.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

PER_MICROSECOND = {"s": 1_000_000, "ms": 1_000}
INFINITY = 2**63 - 1
"""What DuckDB takes for infinity, as microseconds."""

BATCH_ROWS = 131_072


def readable_parquet(path: Path, *, work: Path) -> Path:
    """The file itself, or where DuckDB could not read its times a copy of it in the folder `work`.

    What is no Parquet file at all is returned as it is, for DuckDB to say so.
    """
    try:
        with pq.ParquetFile(path) as file:
            columns = [name for name in _coarse(file) if _is_beyond(file, name)]
            if not columns:
                return path
            # two files of a log may be called alike
            number = len(list(work.glob("*.parquet")))
            return _copy(file, columns, work / f"{path.stem}-{number}.parquet")
    except pa.ArrowException:
        return path
    except OSError as error:
        if error.errno:
            raise  # the disk is full; Arrow's own errors, of damaged files, have no number
        return path


def _coarse(file: pq.ParquetFile) -> list[str]:
    """The columns of times in units greater than microseconds."""
    return [
        field.name
        for field in file.schema_arrow
        if pa.types.is_timestamp(field.type) and field.type.unit in PER_MICROSECOND
    ]


def _is_beyond(file: pq.ParquetFile, name: str) -> bool:
    """Whether a column has a time that microseconds cannot say; its statistics tell, where there
    are any."""
    # seconds are stored as milliseconds
    most = INFINITY // 1_000
    for group in range(file.num_row_groups):
        chunks = file.metadata.row_group(group)
        places = {chunks.column(place).path_in_schema: place for place in range(chunks.num_columns)}
        told = chunks.column(places[name]).statistics
        if told is not None and told.has_min_max:
            low, high = told.min_raw, told.max_raw
        else:
            column = file.read_row_group(group, columns=[name])[name].drop_null()
            if len(column) == 0:
                continue
            factor = 1_000 if column.type.unit == "s" else 1
            values = column.cast(pa.int64()).to_numpy()
            low, high = int(values.min()) * factor, int(values.max()) * factor
        if low < -most or high > most:
            return True
    return False


def _copy(file: pq.ParquetFile, columns: list[str], path: Path) -> Path:
    schema = file.schema_arrow
    for name in columns:
        place = schema.get_field_index(name)
        kind = pa.timestamp("us", tz=schema.field(name).type.tz)
        schema = schema.set(place, schema.field(name).with_type(kind))
    with pq.ParquetWriter(path, schema) as writer:
        for batch in file.iter_batches(batch_size=BATCH_ROWS):
            table = pa.Table.from_batches([batch])
            for name in columns:
                place = schema.get_field_index(name)
                table = table.set_column(place, schema.field(name), _microseconds(table[name]))
            writer.write_table(table.cast(schema))
    return path


def _microseconds(times: pa.ChunkedArray) -> pa.Array:
    """Times in microseconds (N,), infinite where these cannot say them."""
    column = times.combine_chunks()
    factor = PER_MICROSECOND[column.type.unit]
    values = column.cast(pa.int64()).fill_null(0).to_numpy()
    most = INFINITY // factor
    fits = (values >= -most) & (values <= most)
    found = np.where(fits, values * factor, np.sign(values) * INFINITY)
    mask = column.is_null().to_numpy(zero_copy_only=False)
    return pa.array(found, pa.int64(), mask=mask).cast(pa.timestamp("us", tz=column.type.tz))
