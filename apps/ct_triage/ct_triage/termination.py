"""End at once when the platform says so, but never between two files of a result.

Python's own handlers run on the main thread, which Holoscan keeps busy until the last operator has
ended. So SIGTERM is blocked on every thread and waited for on one of its own.
"""

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Held while files are put in place: the process ends before or after, not amid. Once it is to end
# the lock is held for good, so whoever waits for it goes no further.
uninterrupted = threading.Lock()
_scratch_folders: set[Path] = set()
# Well below the five seconds after which platforms kill.
REMOVAL_SECONDS = 2.0


def end_on_sigterm() -> None:
    """Make SIGTERM end this process with exit code 143 (128 + 15).

    To be called before other threads start, because a thread inherits what is blocked. It works
    for the first process of a container too, which by default ignores the signal.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_wait_for_sigterm, name="sigterm", daemon=True).start()


def wait_if_ending() -> None:
    """Return at once, or never if SIGTERM is about to end this process.

    Files that are removed under its hands make a step fail; that failure must not become the exit
    code.
    """
    with uninterrupted:
        pass


@contextmanager
def scratch_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Make a folder for unfinished files; it is removed in the end, or by SIGTERM before that.

    Raises
    ------
    OSError
        If it cannot be made.
    """
    with uninterrupted:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        _scratch_folders.add(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _scratch_folders.discard(folder)


def _wait_for_sigterm() -> None:
    signal.sigwait({signal.SIGTERM})
    uninterrupted.acquire()
    deadline = time.monotonic() + REMOVAL_SECONDS
    for folder in tuple(_scratch_folders):
        # A file that is added while the others are removed keeps its folder from being removed.
        while folder.exists() and time.monotonic() < deadline:
            shutil.rmtree(folder, ignore_errors=True)
    os._exit(128 + signal.SIGTERM)
