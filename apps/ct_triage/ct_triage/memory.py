"""Memory of the process."""

import ctypes


def release_free_memory() -> None:
    """Give back to the system what the C library keeps for later; nothing where it cannot."""
    # glibc's own; other C libraries keep less and have no such call.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
