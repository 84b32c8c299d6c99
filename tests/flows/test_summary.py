"""What a run prints at its end fits a page, and shows nobody who is not in the table."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from flows.summary import WIDTH, print_metrics
from recsys_core.artifacts import write_json
from recsys_core.layout import Layout
from recsys_core.sections_of_scoring import Cold
from recsys_core.serving.shards import read_score_run
from recsys_core.serving.tables import DuckdbTable
from recsys_core.tables import METRICS, write_events, write_table
from tasks.edges.score import run
from tasks.lookup import example_user, published_table, read_recommendations
from tests.conftest import CHECKOUT
from tests.serving_world import (
    make_events,
    random_histories,
    score_params,
    scoring_workspace,
    user_ids,
)

MANY = 12_345_678


def test_metrics_of_a_large_log_fit_and_unknown_targets_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = Layout(tmp_path)
    (tmp_path / "params.yaml").write_bytes((CHECKOUT / "params.yaml").read_bytes())
    rows = [
        {
            "model": model,
            "cohort": cohort,
            "metric": metric,
            "value": 34_567.8 if metric == "perplexity" else 0.12345,
            "low": 0.1111,
            "high": 0.2222,
            "targets": MANY,
            "users": MANY,
        }
        for cohort in ("all", "new_user", "unknown")
        for model in ("two_time_scale", "recent_popularity")
        for metric in ("mrr@20", "recall@20", "ndcg@20", "perplexity")
    ]
    table = pa.Table.from_pylist(rows, schema=METRICS)
    write_table(layout.metrics, table, METRICS)
    print_metrics(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= WIDTH
    text = "\n".join(lines)
    assert "…" not in text
    assert "new_user: 12,345,678 targets, 12,345,678 users" in text
    assert text.count("[.1111, .2222]") == 4, "the first metric alone has its interval"
    assert text.count("34,567.8") == 4
    assert "unknown: " not in text
    assert lines[-1].endswith("a miss for all: 12,345,678")


@pytest.fixture
def layout(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A published table of three users; then the log goes on, and a fourth comes last."""
    histories = random_histories([7, 6, 2])
    bundles = tmp_path_factory.getbasetemp()
    layout = scoring_workspace(tmp_path, bundles=bundles, histories=[*histories, []])
    run(layout=layout, score=score_params(k=5, shard_users=4))
    DuckdbTable(layout.table).publish(
        read_score_run(layout.scores), keep_runs=1, published_at=datetime(2026, 1, 1, tzinfo=UTC)
    )
    write_events(layout.events, make_events([*histories, [1] * 9]))
    return layout


def test_the_example_is_a_published_user_with_some_events(layout: Layout) -> None:
    # the fourth is the latest but not in the table, the third has too few events
    assert example_user(layout) == user_ids(4)[1]


def test_lists_of_nobody_are_no_users_and_no_example(layout: Layout) -> None:
    write_json(layout.resolved_card, {"time": {"kind": "absolute"}})
    before = published_table(layout)
    with_lists = score_params(k=5, shard_users=4, cold=Cold(None, None))
    run(layout=layout, score=with_lists)
    DuckdbTable(layout.table).publish(
        read_score_run(layout.scores), keep_runs=1, published_at=datetime(2026, 1, 2, tzinfo=UTC)
    )
    now = published_table(layout)
    assert (now.users, now.rows) == (before.users + 1, before.rows + 10)
    assert len(read_recommendations(layout, "cold/")) == 5
    assert not example_user(layout).startswith("cold/")


def test_an_example_there_is_though_the_log_has_lost_them_all(layout: Layout) -> None:
    write_events(layout.events, make_events([[], [], [], [1] * 9]))
    assert example_user(layout) == min(user_ids(4)[:3])
