"""`twotempo backtest` as a person types it: every origin is trained, and no step of it twice."""

import pytest

from recsys_core.artifacts import read_json
from recsys_core.layout import STAGES, Layout
from recsys_core.tables import CURVE, read_table
from tests.conftest import TINY, Clone, overrides

SMALL = (
    *TINY,
    "train_rnn.trend_hours=24",
    "train_memory.steps=50",
    "backtest.frames=2",
    "backtest.retrain=every",
)


@pytest.mark.slow
def test_a_backtest_goes_on_where_it_was(clone: Clone) -> None:
    done = clone.twotempo("backtest", *overrides(SMALL))
    layout = Layout(clone.root / "runs" / "backtest")
    rows = read_table(layout.curve, CURVE).to_pandas()
    assert rows["frame"].value_counts().to_dict() == {0: 5, 1: 5}
    assert "online_trend" in done.stdout
    assert "curve.svg" in done.stdout
    folders = [layout.origin(first) for first in (0, 1)]
    assert sorted(folder.name for folder in (layout.root / "origins").iterdir()) == ["0000", "0001"]
    stages = list(STAGES[: STAGES.index("refit")])
    for folder in folders:
        record = read_json(folder / "run.json")
        assert [step["step"] for step in record["steps"]] == stages
        assert record["state"] == "completed"
    # what depends on the log alone is computed once for all origins
    outcomes = {
        step["step"]: step["outcome"] for step in read_json(folders[1] / "run.json")["steps"]
    }
    assert (outcomes["ingest"], outcomes["validate"]) == ("restored", "restored")
    assert outcomes["train_rnn"] == "ran"
    curve = layout.curve.read_bytes()
    clone.twotempo("backtest")
    for folder in folders:
        steps = read_json(folder / "run.json")["steps"]
        assert {step["outcome"] for step in steps} == {"unchanged"}
    assert layout.curve.read_bytes() == curve
