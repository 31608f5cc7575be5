"""Run a command and tell what it took.

This process stays small: a child starts as large as its parent, and its peak would be the
parent's. So whatever needs numpy, torch or a study is done by a command of its own.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
APPLICATION = REPOSITORY / "apps" / "ct_triage"


class BenchError(Exception):
    """A command failed; the message says which, with the last line that it wrote."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a process took from start to end.

    Attributes
    ----------
    wall_s, cpu_s : float
        Seconds by the clock, and of processor time in user and system mode.
    peak_gb : float
        Largest resident memory in 10^9 bytes.
    output : str
        What it printed.
    """

    wall_s: float
    cpu_s: float
    peak_gb: float
    output: str

    @property
    def numbers(self) -> dict[str, float]:
        """The three numbers by name."""
        return {"wall_s": self.wall_s, "cpu_s": self.cpu_s, "peak_gb": self.peak_gb}


def cost_of(command: Sequence[object], scratch: Path, threads: int) -> Cost:
    """Run a command with a number of threads for its arithmetic.

    Raises
    ------
    BenchError
        If it fails.
    """
    words = [str(word) for word in command]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    paths = [str(REPOSITORY), str(APPLICATION), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    output, errors = scratch / "output.txt", scratch / "errors.txt"
    start = time.monotonic()
    with output.open("wb") as stdout, errors.open("wb") as stderr:
        process = subprocess.Popen(words, stdout=stdout, stderr=stderr, env=environment)
        # The usage of this one child, which is not that of all children together.
        _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.monotonic() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        lines = errors.read_text(errors="replace").strip().splitlines()
        last = lines[-1] if lines else "nothing was written"
        raise BenchError(f"{' '.join(words[1:4])}: exit code {process.returncode}: {last}")
    return Cost(
        wall_s,
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss * 1024 / 1e9,
        output.read_text(errors="replace"),
    )


def application(study: Path, result: Path) -> list[object]:
    """Return the command that runs the application."""
    return [sys.executable, APPLICATION, "-i", study, "-o", result, "-l", "ERROR"]


def worker(name: str, *arguments: object) -> list[object]:
    """Return the command that runs a module of this package by itself."""
    return [sys.executable, "-W", "ignore", "-m", f"tools.bench.{name}", *arguments]


def told(cost: Cost) -> Any:
    """Read the JSON that a worker printed last; libraries print before it."""
    return json.loads(cost.output.strip().splitlines()[-1])
