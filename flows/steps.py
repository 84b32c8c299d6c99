"""Prefect tasks for the stages and edges: each runs its step as a child and records what it took.

DVC alone remembers what is done already, so nothing is cached or passed on here.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.logging import get_run_logger
from prefect.runtime import task_run

from flows import manifest
from flows.locks import held_lock
from flows.workspace import CHECKOUT
from recsys_core.errors import StepError
from recsys_core.layout import Layout
from tasks.child import run_module
from tasks.dvc import reproduce
from tasks.settings import read_settings

StepTask = Task[[Path], None]


def stage_task(name: str) -> StepTask:
    """A task that brings one DVC stage up to date; it is deterministic, so never tried again."""

    @task(name=name, task_run_name=name, cache_policy=NO_CACHE, persist_result=False)
    def stage(workspace: Path) -> None:
        done = reproduce(
            name,
            workspace=workspace,
            timeout_seconds=read_settings().stage_timeout_minutes * 60,
            on_line=_listener(),
            inherit_errors=_on_terminal(),
            keep_open=held_lock(workspace),
        )
        _record(workspace, name, done.outcome, done.usage.seconds, done.usage.peak_rss_mb, {})

    return stage


def edge_task(name: str, *, counts: Callable[[Layout], dict[str, int]] | None = None) -> StepTask:
    """A task that runs one edge: it is idempotent, so tried again where that may help.

    What it says in its `counts` of this run is recorded with it.
    """
    settings = read_settings()

    @task(
        name=name,
        task_run_name=name,
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=settings.edge_retries,
        retry_delay_seconds=settings.edge_retry_seconds,
        retry_condition_fn=_may_pass,
    )
    def edge(workspace: Path) -> None:
        attempt = task_run.run_count
        if attempt > 1:
            get_run_logger().warning("edge=%s attempt=%d: it failed before", name, attempt)
        usage = run_module(
            [f"tasks.edges.{name}"],
            name=name,
            cwd=workspace,
            timeout_seconds=read_settings().edge_timeout_minutes * 60,
            on_line=_listener(),
            inherit_errors=_on_terminal(),
            keep_open=held_lock(workspace),
        )
        counted = {} if counts is None else counts(Layout(workspace))
        _record(workspace, name, "ran", usage.seconds, usage.peak_rss_mb, counted)

    return edge


@contextmanager
def recorded(workspace: Path, *, flow: str) -> Iterator[None]:
    """Keep the run's own record: begun, and ended as it ended."""
    manifest.begin(workspace, flow=flow, checkout=CHECKOUT)
    try:
        yield
    except BaseException as error:
        why = str(error) if isinstance(error, Exception) else f"ended ({type(error).__name__})"
        manifest.end(workspace, state="failed", error=why or type(error).__name__)
        raise
    manifest.end(workspace, state="completed")


def _may_pass(_task: StepTask, _run: TaskRun, state: State[None]) -> bool:
    """Whether a failed edge may work the next time: not where a person must mend something."""
    return isinstance(state.data, StepError) and state.data.may_pass


def _on_terminal() -> bool:
    """Whether a step may draw on standard error itself."""
    return sys.stderr.isatty()


def _listener() -> Callable[[str], None]:
    """Takes a child's lines: the run's log, at debug where the step has the terminal itself."""
    logger = get_run_logger()
    return logger.debug if _on_terminal() else logger.info


def _record(
    workspace: Path,
    name: str,
    outcome: str,
    seconds: float,
    peak_rss_mb: float,
    counts: Mapping[str, int],
) -> None:
    manifest.add_step(
        workspace, name, outcome=outcome, seconds=seconds, peak_rss_mb=peak_rss_mb, counts=counts
    )
    get_run_logger().info(
        "step=%s outcome=%s seconds=%.1f peak_rss_mb=%.0f", name, outcome, seconds, peak_rss_mb
    )
