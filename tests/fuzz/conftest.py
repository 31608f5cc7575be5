"""One budget for all targets: ``FUZZ_INPUTS`` inputs each, and bounds on time and memory."""

import os
import resource
import signal
from collections.abc import Iterator
from types import FrameType

import pytest
from hypothesis import HealthCheck, settings

# Few in the tests; `make fuzz` gives the nine targets 10 000 together.
settings.register_profile(
    "fuzz",
    max_examples=int(os.environ.get("FUZZ_INPUTS", "60")),
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("fuzz")
MAX_GROWTH_KIB = 512 * 1024


@pytest.fixture(autouse=True)
def bounds() -> Iterator[None]:
    """Fail where memory grows beyond the limit, or an input's alarm goes off."""

    def hang(_: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"hangs in {frame}")

    before = signal.signal(signal.SIGALRM, hang)
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start
    assert grown < MAX_GROWTH_KIB, f"{grown // 1024} MiB more"
