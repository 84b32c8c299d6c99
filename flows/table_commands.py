"""What the commands about the published table print: its runs, one made current, one forgotten."""

from datetime import UTC, datetime
from pathlib import Path

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from flows.locks import locked
from flows.workspace import existing
from recsys_core.config import read_params
from recsys_core.layout import Layout
from tasks.forget import forget
from tasks.tables import note_table, published_table, table_of


def publish_scored(workspace: Path) -> None:
    """Publish the run in `scores/` with the params of the workspace, and print all runs."""
    from tasks.edges.publish import run

    layout = Layout(existing(workspace))
    with locked(workspace):
        run(layout=layout, publish=read_params(layout.params).publish)
    print_runs(workspace)


def publish_kept(workspace: Path, run_id: str) -> None:
    """Make a kept run the current one of the table that params name, and print all runs."""
    layout = Layout(existing(workspace))
    with locked(workspace):
        publish = read_params(layout.params).publish
        table = table_of(layout, publish)
        changed = table.make_current(run_id, published_at=datetime.now(UTC))
        note_table(layout, publish, published=True)
    typer.echo(f"{table.place}: run {run_id} is current{'' if changed else ' already'}")
    print_runs(workspace)


def print_runs(workspace: Path) -> None:
    """Print every run of the table published last, the latest first."""
    table = published_table(Layout(existing(workspace)))
    shown = Table(title=f"Runs of {table.place}", title_justify="left", box=SIMPLE_HEAD)
    for name in ("run", "status", "model", "as of", "users", "rows", "published", "sha256"):
        right = name in ("users", "rows")
        shown.add_column(name, justify="right" if right else "left", no_wrap=True)
    for row in reversed(table.runs().to_pylist()):
        shown.add_row(
            row["run_id"],
            "current" if row["current"] else row["status"],
            row["model_version"],
            f"{row['as_of']:%Y-%m-%d %H:%M}",
            f"{row['users']:,}",
            f"{row['rows']:,}",
            f"{row['published_at']:%Y-%m-%d %H:%M}",
            row["sha256"][:12],
        )
    Console(markup=False, emoji=False, highlight=False, width=120).print(shown)


def forget_user(workspace: Path, user_id: str) -> None:
    """Remove a person, and print what was removed and where they still are."""
    layout = Layout(existing(workspace))
    with locked(workspace):
        for line in forget(layout, user_id):
            typer.echo(line)
