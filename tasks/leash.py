"""A process group that ends when the process that made it has ended, however that one ended.

A step whose flow is killed would train on for hours, and hold its workspace. No signal tells it:
SIGKILL runs no handler, and what Linux sends at a parent's death reaches the child alone, not what
the child has started. So a shell leads the group, and reads a pipe that only the maker has open to
write: it never gets a line, and the end of the pipe when the maker is gone.
"""

import os
import signal
import subprocess
import time
from types import TracebackType

GRACE_SECONDS = 10.0

WATCH = "trap '' HUP INT TERM; read -r line; kill -TERM 0; sleep 2; kill -KILL 0"
"""In `kill`, 0 is the group of the shell itself: it can reach no other, and goes with it."""


class Leash:
    """A group to start a child in: `Popen(..., process_group=leash.group)`.

    Left by an exception, it ends the group; otherwise whoever uses it has ended it.
    """

    def __init__(self) -> None:
        read_end, write_end = os.pipe()
        # closed in each child: a process that had it would keep the group alive
        self._held = os.fdopen(write_end, "wb", buffering=0)
        try:
            self._watcher = subprocess.Popen(
                ["/bin/sh", "-c", WATCH],
                stdin=read_end,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                process_group=0,
            )
        except BaseException:
            self._held.close()
            raise
        finally:
            os.close(read_end)
        self.group = self._watcher.pid
        self._ended = False

    def __enter__(self) -> "Leash":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if kind is not None and not self._ended:
            self.end_group()
        self._let_go()

    def end_group(self, *, grace_seconds: float = GRACE_SECONDS) -> None:
        """Ask all of the group to end, and end what has not after a while."""
        self._ended = True
        # it ignores what the others are asked, and would be waited for
        self._let_go()
        try:
            os.killpg(self.group, signal.SIGTERM)
            deadline = time.monotonic() + grace_seconds
            while time.monotonic() < deadline:
                time.sleep(0.02)
                os.killpg(self.group, 0)
            os.killpg(self.group, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            # macOS forbids what Linux cannot find: a group of nothing but zombies
            return

    def _let_go(self) -> None:
        """End the shell alone, before its pipe: at the end of that it would end the group."""
        self._watcher.kill()
        self._watcher.wait()
        self._held.close()
