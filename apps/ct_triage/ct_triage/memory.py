"""Memory of the process."""

import ctypes
import os


def use_large_pages() -> None:
    """Have torch put large arrays into large pages, as numpy does; call it before torch is used.

    Handing out small pages would be half of all page faults, and a tenth of the processor time.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def release_free_memory() -> None:
    """Give back to the system what the C library keeps for later; nothing where it cannot."""
    # glibc's own; other C libraries keep less and have no such call.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
