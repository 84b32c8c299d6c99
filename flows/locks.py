"""Who holds a workspace: one run at a time, and one `twotempo serve`."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recsys_core.errors import StepError

LOCK, SERVE_LOCK = LOCKS = ".lock", ".serve.lock"

_held: dict[Path, int] = {}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the workspace for one run; a second one is refused at once.

    The lock lasts as long as any process has the file open: this one, and each step that was
    given `held_lock`, should this one be killed. The file stays.
    """
    place = folder.resolve()
    refused = f"{folder} is in use by another run; wait for it, or name another --workspace"
    with _flock(folder / LOCK, refused) as descriptor:
        _held[place] = descriptor
        try:
            yield
        finally:
            del _held[place]


def held_lock(folder: Path) -> tuple[int, ...]:
    """The descriptor of the lock that this process holds on a folder, for the steps it starts."""
    descriptor = _held.get(folder.resolve())
    return () if descriptor is None else (descriptor,)


@contextmanager
def serving(folder: Path) -> Iterator[None]:
    """Hold the schedule of a workspace, its runs apart; a second one is refused at once.

    Both would deploy it by one name, and whichever ended first would pause it for the other.
    """
    folder.mkdir(parents=True, exist_ok=True)
    refused = (
        f"{folder} is served already; end that `twotempo serve` first, or name another --workspace"
    )
    with _flock(folder / SERVE_LOCK, refused):
        yield


@contextmanager
def _flock(path: Path, refused: str) -> Iterator[int]:
    """Hold a file as long as it is open; raises `StepError` with `refused` where another does."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StepError(refused) from error
        yield file.fileno()
