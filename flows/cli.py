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
    from flows.workspace import chosen_overrides, prepared

    prepare_environment()
    chosen = chosen_overrides(workspace, overrides or [], called_from=Path.cwd())
    if chosen.note is not None:
        typer.echo(chosen.note, err=True)
    with prepared(workspace, chosen.values, called_from=chosen.called_from):
        from flows.retrain import retrain

        with on_console():
            retrain(workspace)


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


def main() -> None:
    """The entry point; what a person can mend ends with one line and code 1."""
    try:
        app()
    except TwotempoError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
