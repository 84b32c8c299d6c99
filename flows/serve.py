"""`twotempo serve`: the nightly flow on a schedule, from one command that runs until it is ended.

For a quick start: where no Prefect server is configured, one is started as a child and ended with
this process. `docs/schedule.md` has the way for real use.
"""

import asyncio
import hashlib
import multiprocessing
import os
import re
import signal
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.runner import Runner
from prefect.schedules import Cron, Schedule
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.types.entrypoint import EntrypointType

from flows.console import interrupted_by_signals, lost_server_in_one_line
from flows.locks import serving
from flows.nightly import FLOW, nightly
from flows.server import OwnServer, server
from flows.workspace import checked, chosen_overrides
from recsys_core.errors import ConfigError, StepError
from tasks.settings import read_settings

Say = Callable[[str], None]

SHOWN_RUNS = 3
CRON_FIELDS = 5
WATCH_SECONDS = 1.0
END_SECONDS = 20.0


def serve_nightly(
    workspace: Path,
    given: Sequence[str],
    *,
    called_from: Path,
    cron: str | None,
    timezone: str | None,
    say: Say,
) -> None:
    """Run the nightly flow by a schedule until this process is interrupted.

    `cron` and `timezone` are the environment's where None. Raises `ConfigError` for what a run
    would refuse, before anything is started.
    """
    settings = read_settings()
    cron = settings.cron if cron is None else cron
    timezone = settings.timezone if timezone is None else timezone
    runs = next_runs(cron, timezone)
    chosen = chosen_overrides(workspace, given, called_from=called_from)
    checked(chosen.values, folder=workspace, called_from=chosen.called_from)
    if chosen.note is not None:
        say(chosen.note)
    name = deployment_name(workspace)
    with interrupted_by_signals(), serving(workspace), server(say) as (api, own):
        say(f"serving {FLOW}/{name}: {workspace} by cron {cron!r}, time zone {timezone}")
        say("next runs: " + ", ".join(f"{run:%a %Y-%m-%d %H:%M %Z}" for run in runs))
        say(f"a run now: PREFECT_API_URL={api} prefect deployment run {FLOW}/{name}")
        say("Ctrl-C ends it")
        parameters = {
            "workspace": str(workspace.resolve()),
            "overrides": chosen.values,
            "called_from": str(chosen.called_from.resolve()),
        }
        with lost_server_in_one_line(f"server {api}"):
            asyncio.run(_serve(name, Cron(cron, timezone=timezone), parameters, own))
    say("ended; nothing runs until it is served again")


def next_runs(cron: str, timezone: str) -> list[datetime]:
    """When a schedule's next runs are, in its time zone."""
    from prefect.server.schemas.schedules import CronSchedule

    if not timezone:
        raise ConfigError("the time zone is empty; name one as Europe/Berlin, or UTC")
    try:
        if len(cron.split()) != CRON_FIELDS:  # with six, Prefect's has seconds; and it has @daily
            raise ValueError(cron)
        schedule = CronSchedule(cron=cron, timezone=timezone)
        runs = asyncio.run(schedule.get_dates(SHOWN_RUNS, start=datetime.now(UTC)))
    except ValueError as error:
        raise ConfigError(
            f"cron {cron!r} in time zone {timezone!r} is no schedule; write five fields as "
            "'0 3 * * *' and an IANA time zone as Europe/Berlin"
        ) from error
    return list(runs)


def deployment_name(workspace: Path) -> str:
    """What a workspace's deployment is called: by its folder, and by a hash of the whole path.

    Two are never the same, nor is one that of a deployment which prefect.yaml names.
    """
    place = workspace.resolve()
    digest = hashlib.sha256(os.fsencode(place)).hexdigest()[:8]
    # Prefect refuses some of the other characters, and a shell would want them quoted
    return f"serve-{re.sub('[^A-Za-z0-9_.-]+', '-', place.name)}-{digest}"


async def _serve(
    name: str, schedule: Schedule, parameters: dict[str, Any], own: OwnServer | None
) -> None:
    """Serve until a signal ends it, or the server that was started for it has ended."""
    runner = _Runner(name=name, limit=None)
    # first of all: what is deployed from here on has to be paused at the end
    runner.listen()
    running = asyncio.create_task(_deploy_and_run(runner, name, schedule, parameters))
    while own is None or own.process.poll() is None:
        done, _ = await asyncio.wait({running}, timeout=None if own is None else WATCH_SECONDS)
        if done:
            running.result()
            return
    await _give_up(runner, running)
    # who ends a service may ask both at once
    if not runner.is_ending:
        raise StepError(
            f"Prefect's own server ended by itself (code {own.process.returncode}); its log "
            f"{own.log} may say why; start `twotempo serve` again"
        )


async def _give_up(runner: "_Runner", running: "asyncio.Task[None]") -> None:
    """End a runner whose server is gone, with its runs, and tell nobody."""
    runner.pause_on_shutdown = False
    for run in multiprocessing.active_children():
        # asked to end it would ask the server for a minute; its steps end with it
        run.kill()
    running.cancel()
    await asyncio.wait({running}, timeout=END_SECONDS)


async def _deploy_and_run(
    runner: "_Runner", name: str, schedule: Schedule, parameters: dict[str, Any]
) -> None:
    await runner.aadd_flow(
        nightly,
        name=name,
        schedule=schedule,
        parameters=parameters,
        # one at a time: the run that comes while another is on is cancelled, so that nights that
        # were missed do not queue up; with a limit of the runner's own they would
        concurrency_limit=ConcurrencyLimitConfig(
            limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW
        ),
        # it was paused when it ended the last time
        paused=False,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    await runner.start()


class _Runner(Runner):
    """Prefect's runner of schedules, that ends with its runs at SIGTERM, SIGHUP and Ctrl-C.

    Its own handler of SIGTERM begins to stop it and leaves before it has; at Ctrl-C it waits
    until its runs have come to their own end.
    """

    _ending: asyncio.Task[None] | None = None

    @property
    def is_ending(self) -> bool:
        """Whether a signal has asked it to end."""
        return self._ending is not None

    def listen(self) -> None:
        """Hear signals from now on; to be called in the loop that it will run in."""
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._loop.add_signal_handler(number, self._begin_to_end)

    def handle_sigterm(self, *_: object) -> None:
        """Called by SIGTERM once it runs, in the middle of anything."""
        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._begin_to_end)

    def _begin_to_end(self) -> None:
        if self._ending is None:
            assert self._loop is not None
            self._ending = self._loop.create_task(self._end())

    async def _end(self) -> None:
        while not self.started:
            await asyncio.sleep(0.1)
        await self.astop()
        while True:
            # one that was just about to start had no process to end yet
            await asyncio.sleep(1)
            await self.cancel_all()

    async def _pause_schedules(self) -> None:
        # nobody should wait a minute for a server that has gone meanwhile
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 1}):
            await super()._pause_schedules()  # type: ignore[no-untyped-call]  # Prefect's own
