"""The first rows of a log, set apart wherever there is room."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from recsys_core.layout import Layout
from tasks.sample import LOG, take_sample
from tests.small_logs import small_log


@pytest.mark.parametrize("rows", [5, 8, 9])
def test_a_sample_lies_where_its_path_says(rows: int, tmp_path: Path) -> None:
    """In a folder, too, whose name would be a pattern."""
    pq.write_table(small_log(8), tmp_path / "log.parquet")
    layout = Layout(tmp_path / "room [1] *it's?")
    (layout.root / "data").mkdir(parents=True)
    sample = take_sample(layout, tmp_path / "log.parquet", name=LOG, rows=rows)
    assert pq.read_table(sample.path).to_pylist() == small_log(8).slice(0, rows).to_pylist()
    assert (sample.rows, sample.whole) == (min(rows, 8), rows >= 8)
    assert [path.name for path in layout.root.iterdir()] == ["data"]
    assert [path.name for path in (layout.root / "data").iterdir()] == [LOG]
