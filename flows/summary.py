"""What a run says at its end: metrics beside baselines, where the table is, one user by title."""

import sys
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from flows import manifest
from recsys_core.columns import COHORT, HIGH, LOW, METRIC, MODEL, TARGETS, USERS, VALUE
from recsys_core.config import read_params
from recsys_core.layout import Layout
from recsys_core.tables import METRICS, read_table
from tasks.lookup import example_user, published_table, read_history, read_recommendations

Row = dict[str, Any]

WIDTH = 110
UNKNOWN = "unknown"
KINDS = ("mrr", "recall", "ndcg")
SHOWN_EVENTS = 10
PERPLEXITY = "perplexity"


def print_summary(workspace: Path) -> None:
    """Print everything that a run ends with."""
    print_metrics(workspace)
    print_steps(workspace)
    print_example(workspace)


def print_metrics(workspace: Path) -> None:
    """Print each cohort's metrics, a row for each model, the first with its 95 % interval.

    Targets of unknown items are a miss for every model: counted in a line, not shown as zeros.
    """
    layout = Layout(workspace)
    rows = read_table(layout.metrics, METRICS)
    first, *others = [*_metrics_at(read_params(layout.params).first_metric), PERPLEXITY]
    table = _table(
        "Next item, all items ranked, ties count against the model; [95 % interval by user]"
    )
    table.add_column("cohort / model", no_wrap=True)
    for name in (first, *others):
        table.add_column(name, justify="right", no_wrap=True)
    unknown = 0
    for cohort in pc.unique(rows.column(COHORT)).to_pylist():
        of_cohort = rows.filter(pc.equal(rows.column(COHORT), cohort)).to_pylist()
        if cohort == UNKNOWN:
            unknown = of_cohort[0][TARGETS]
            continue
        table.add_section()
        table.add_row(
            f"{cohort}: {of_cohort[0][TARGETS]:,} targets, {of_cohort[0][USERS]:,} users",
            style="bold",
        )
        models: dict[str, dict[str, Row]] = {}
        for row in of_cohort:
            models.setdefault(row[MODEL], {})[row[METRIC]] = row
        for model, values in models.items():
            shown = [_cell(values.get(name)) for name in others]
            table.add_row(f"  {model}", _cell(values.get(first), interval=True), *shown)
    _console().print(table)
    _console().print(f"Targets of items that the model does not know, a miss for all: {unknown:,}")


def _metrics_at(first: str) -> list[str]:
    """The first metric, then the other two at its cutoff."""
    cutoff = first.partition("@")[2]
    return [first, *(name for name in (f"{kind}@{cutoff}" for kind in KINDS) if name != first)]


def print_steps(workspace: Path) -> None:
    """Print what each step of the run did and took."""
    table = _table("Steps of this run")
    table.add_column("step")
    table.add_column("outcome")
    table.add_column("seconds", justify="right")
    table.add_column("peak MiB", justify="right")
    for step in manifest.read(workspace)["steps"]:
        table.add_row(
            step["step"], step["outcome"], f"{step['seconds']:.1f}", f"{step['peak_rss_mb']:.0f}"
        )
    _console().print(table)


def print_example(workspace: Path) -> None:
    """Print where the table is, and one user's history and recommendations."""
    layout = Layout(workspace)
    table = published_table(layout)
    _console().print(
        f"{table.place}: view recommendations, {table.rows:,} rows for {table.users:,} users, "
        f"model {table.model_version}, as of {table.as_of}",
        soft_wrap=True,
        highlight=False,
    )
    print_user(workspace, example_user(layout))


def print_user(workspace: Path, user_id: str) -> None:
    """Print a user's last events and what is recommended to them, by title."""
    layout = Layout(workspace)
    recommended = read_recommendations(layout, user_id)
    history = _table(f"User {user_id}: the last events")
    history.add_column("time")
    history.add_column("type")
    history.add_column("item")
    for event in read_history(layout, user_id, last=SHOWN_EVENTS):
        history.add_row(event.time, event.event_type, event.title)
    top = _table(f"User {user_id}: recommended now")
    top.add_column("rank", justify="right")
    top.add_column("item")
    top.add_column("score", justify="right")
    for row in recommended:
        top.add_row(str(row.rank), row.title, f"{row.score:.3f}")
    _console().print(history)
    _console().print(top)


def _cell(row: Row | None, *, interval: bool = False) -> str:
    """A value, with its interval or without; a share has no zero before the point."""
    if row is None:
        return "-"
    if row[METRIC] == PERPLEXITY:
        return f"{row[VALUE]:,.1f}"
    value, low, high = (f"{row[name]:.4f}".removeprefix("0") for name in (VALUE, LOW, HIGH))
    return f"{value} [{low}, {high}]" if interval else value


def _table(title: str) -> Table:
    # as wide as its title, which would be broken otherwise
    return Table(
        title=title,
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        min_width=min(len(title), WIDTH),
    )


def _console() -> Console:
    """Standard output, as wide as the tables; markup is off, since a title may hold brackets."""
    return Console(markup=False, emoji=False, width=WIDTH)


if __name__ == "__main__":
    shown = print_example if "example" in sys.argv[2:] else print_summary
    shown(Path(sys.argv[1]))
