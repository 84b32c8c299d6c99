"""Ends a run whose parent has gone: nobody would see it, cancel it, or end it with its service.

A worker of Prefect's that is asked to end kills the process of its run at times, and at others
leaves it running alone.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

LOOK_SECONDS = 1.0
GRACE_SECONDS = 30.0


@contextmanager
def ended_with_its_parent() -> Iterator[None]:
    """Ask this process to end as soon as its parent has, and end it where it does not."""
    parent = os.getppid()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(LOOK_SECONDS):
            if os.getppid() != parent:
                os.kill(os.getpid(), signal.SIGTERM)
                if not done.wait(GRACE_SECONDS):
                    # its steps end with it: see `tasks/leash.py`
                    os.kill(os.getpid(), signal.SIGKILL)
                return

    watcher = threading.Thread(target=watch, name="parent", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
