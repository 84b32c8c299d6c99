"""The `twotempo` command. What is slow to import is imported inside the command that needs it."""

import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

from recsys_core.errors import TwotempoError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Turn an interaction log into a table of fresh recommendations.",
)

Workspace = Annotated[
    Path, typer.Option("--workspace", "-w", help="The folder of the run; created where absent.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set-param",
        "-S",
        metavar="SECTION.KEY=VALUE",
        help="A value other than params.yaml's, in YAML; may be repeated.",
    ),
]
DEFAULT_WORKSPACE = Path("runs/default")


def _print_version(wanted: bool) -> None:
    if not wanted:
        return
    try:
        typer.echo(f"twotempo {version('twotempo')}")
    except PackageNotFoundError:
        typer.echo("twotempo, not installed: run from its checkout")
    raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print it."),
    ] = False,
) -> None:
    """Turn an interaction log into a table of fresh recommendations."""


@app.command()
def run(workspace: Workspace = DEFAULT_WORKSPACE, overrides: Overrides = None) -> None:
    """Train, evaluate, score and publish; what is up to date already is left alone."""
    from flows.console import on_console, prepare_environment
    from flows.workspace import ready

    prepare_environment()
    with ready(workspace, overrides or [], called_from=Path.cwd(), say=_say):
        from flows.retrain import retrain

        with on_console():
            retrain(workspace)


@app.command()
def serve(
    workspace: Workspace = Path("runs/nightly"),
    overrides: Overrides = None,
    cron: Annotated[
        str | None, typer.Option(help="When, as in cron; otherwise TWOTEMPO_CRON, or 0 3 * * *.")
    ] = None,
    timezone: Annotated[
        str | None,
        typer.Option(help="An IANA time zone; otherwise TWOTEMPO_TIMEZONE, or UTC."),
    ] = None,
) -> None:
    """Run every night, until Ctrl-C; starts a Prefect server where none is configured."""
    from flows.console import prepare_environment

    prepare_environment()
    from flows.serve import serve_nightly

    serve_nightly(
        workspace,
        overrides or [],
        called_from=Path.cwd(),
        cron=cron,
        timezone=timezone,
        say=typer.echo,
    )


@app.command()
def score(workspace: Workspace = DEFAULT_WORKSPACE) -> None:
    """Score every user with the champion and publish the table, without training."""
    from flows.console import on_console, prepare_environment
    from flows.workspace import refreshed

    prepare_environment()
    with refreshed(workspace):
        from flows.score import score_and_publish

        with on_console():
            score_and_publish(workspace)


@app.command()
def publish(
    workspace: Workspace = DEFAULT_WORKSPACE,
    run: Annotated[
        str | None, typer.Option(metavar="NAME", help="Make this kept run the current one.")
    ] = None,
    show: Annotated[bool, typer.Option("--list", help="Print the runs; publish nothing.")] = False,
) -> None:
    """Publish what was scored last, or with --run go back to a run that the table keeps."""
    from flows import table_commands

    if show:
        table_commands.print_runs(workspace)
    elif run is not None:
        table_commands.publish_kept(workspace, run)
    else:
        table_commands.publish_scored(workspace)


@app.command()
def forget(
    user: Annotated[str, typer.Argument(metavar="USER", help="A user_id of the log.")],
    workspace: Workspace = DEFAULT_WORKSPACE,
) -> None:
    """Remove a person from snapshot, quarantine and kept runs; say where they still are."""
    from flows.table_commands import forget_user

    forget_user(workspace, user)


@app.command("backtest")
def run_backtest(workspace: Workspace = Path("runs/backtest"), overrides: Overrides = None) -> None:
    """Train before each frame of the log's end, and draw the curves of what that would have been
    worth; what is up to date already is left alone."""
    from flows.console import on_console, prepare_environment
    from flows.workspace import ready

    prepare_environment()
    from flows import backtest

    backtest.check(workspace, overrides or [], called_from=Path.cwd())
    with ready(workspace, overrides or [], called_from=Path.cwd(), say=_say):
        with on_console():
            backtest.backtest(workspace)
        for line in backtest.summary_lines(workspace):
            typer.echo(line)


@app.command()
def recommend(
    user: Annotated[str, typer.Argument(metavar="USER", help="A user_id of the log.")],
    workspace: Workspace = DEFAULT_WORKSPACE,
) -> None:
    """Show a user's last events and the recommendations published for them."""
    from flows.summary import print_user
    from flows.workspace import existing

    print_user(existing(workspace), user)


@app.command()
def describe(
    artifact: Annotated[
        Path, typer.Argument(metavar="ARTIFACT", help="A file or folder of a workspace.")
    ],
) -> None:
    """Say what an artifact holds, which stage wrote it, from which params, and its hash."""
    from rich.console import Console

    from tasks.describe import describe_artifact

    console = Console(markup=False, highlight=False, emoji=False)
    for line in describe_artifact(artifact):
        console.print(line, soft_wrap=True)


@app.command()
def init(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE…", help="The log, and tables of its items or users; or a folder of them."
        ),
    ],
    name: Annotated[str | None, typer.Option(help="What the dataset is called.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The card's file, other than datasets/<name>.yaml.")
    ] = None,
    user: Annotated[str | None, typer.Option(metavar="COLUMN", help="The users' ids.")] = None,
    item: Annotated[str | None, typer.Option(metavar="COLUMN", help="The items' ids.")] = None,
    time: Annotated[str | None, typer.Option(metavar="COLUMN", help="When it was.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a card that is there.")] = False,
) -> None:
    """Write a dataset card for CSV or Parquet files; says what it guessed and why."""
    from flows.card_commands import write_card

    roles = {"user_id": user, "item_id": item, "timestamp": time}
    given = {role: column for role, column in roles.items() if column is not None}
    write_card(files, name=name, out=out, given=given, force=force)


@app.command()
def check(
    card: Annotated[Path, typer.Argument(metavar="CARD", help="A dataset card, a YAML file.")],
    path: Annotated[
        Path, typer.Option(help="The folder with its files; where you are, unless said.")
    ] = Path(),
    overrides: Overrides = None,
) -> None:
    """Say what is wrong with a card and the first million rows of its log, in seconds."""
    from flows.card_commands import print_check

    if print_check(card, folder=path, overrides=overrides or []):
        raise typer.Exit(1)


@app.command()
def params(workspace: Workspace = DEFAULT_WORKSPACE, overrides: Overrides = None) -> None:
    """Print the params of a workspace, or with -S those that such a run would have."""
    import yaml

    from flows.workspace import MARK, effective_params
    from recsys_core.config import check_params, read_yaml

    if overrides or not (workspace / MARK).is_file():
        value = effective_params(overrides or [], folder=workspace, called_from=Path.cwd())
    else:
        value = read_yaml(workspace / "params.yaml")
    check_params(value, where="params.yaml")
    typer.echo(yaml.safe_dump(value, sort_keys=False), nl=False)


def _say(line: str) -> None:
    typer.echo(line, err=True)


def main() -> None:
    """The entry point; what a person can mend ends with one line and code 1."""
    try:
        app()
    except TwotempoError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
