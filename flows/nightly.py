"""The nightly run: it prepares its workspace itself, so that a schedule can start it anywhere."""

from contextlib import ExitStack, suppress
from pathlib import Path

from prefect import flow
from prefect.logging import get_run_logger

from flows import manifest
from flows.console import show_own_lines
from flows.locks import locked
from flows.orphan import ended_with_its_parent
from flows.retrain import take_every_step
from flows.workspace import CHECKOUT, existing, ready
from recsys_core.errors import TwotempoError

FLOW = "nightly"


@flow(name=FLOW, persist_result=False)
def nightly(
    workspace: Path, overrides: list[str] | None = None, called_from: Path | None = None
) -> None:
    """Take in what is new, train, judge and publish; what is up to date is left alone.

    `overrides` are those of `twotempo run -S`; where there are none, those of the workspace's last
    run. Relative paths: `workspace` in the checkout, a typed path in `called_from`, itself in the
    checkout.
    """
    show_own_lines()
    folder = CHECKOUT / workspace
    typed_in = CHECKOUT if called_from is None else CHECKOUT / called_from
    logger = get_run_logger()
    try:
        with ended_with_its_parent(), ExitStack() as held:
            try:
                held.enter_context(
                    ready(folder, overrides or [], called_from=typed_in, say=logger.info)
                )
            except TwotempoError as error:
                _record_refusal(folder, error)
                raise
            take_every_step(folder, flow=FLOW)
    except TwotempoError as error:
        # the engine's own words about it, with its traceback, are not shown
        logger.error("error: %s", error)
        raise


def _record_refusal(folder: Path, error: TwotempoError) -> None:
    """Record a run that could not begin, since nobody was there to see it.

    Not where the folder is no workspace, nor where another run holds it: the record is that run's.
    """
    with suppress(TwotempoError), locked(existing(folder)):
        manifest.begin(folder, flow=FLOW, checkout=CHECKOUT)
        manifest.end(folder, state="failed", error=str(error))
