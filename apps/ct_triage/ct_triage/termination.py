"""End at once when the platform says so, but never between two files of a result.

Python's own handlers run on the main thread, which Holoscan keeps busy until the last operator has
ended. So SIGTERM is blocked on every thread and waited for on one of its own.
"""

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Held while files are put in place: the process ends before or after, not amid.
uninterrupted = threading.Lock()
_scratch_folders: set[Path] = set()


def end_on_sigterm() -> None:
    """Make SIGTERM end this process with exit code 143 (128 + 15).

    To be called before other threads start, because a thread inherits what is blocked. It works
    for the first process of a container too, which by default ignores the signal.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_wait_for_sigterm, name="sigterm", daemon=True).start()


@contextmanager
def removed_on_sigterm(folder: Path) -> Iterator[Path]:
    """Have a folder of unfinished files removed if the process ends meanwhile."""
    _scratch_folders.add(folder)
    try:
        yield folder
    finally:
        _scratch_folders.discard(folder)


def _wait_for_sigterm() -> None:
    signal.sigwait({signal.SIGTERM})
    uninterrupted.acquire()
    for folder in tuple(_scratch_folders):
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(128 + signal.SIGTERM)
