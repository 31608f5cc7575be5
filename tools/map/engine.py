"""Podman or docker, whichever runs here."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

# What podman needs on a machine that was not booted by systemd, such as a container or a CI job:
# its defaults ask systemd for cgroups and the journal for events, and lift limits that such a
# machine may not lift.
CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=8192:8192"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
CONTAINERS_CONF_FILE = Path(__file__).parents[2] / "build" / "map" / "containers.conf"


class EngineError(Exception):
    """There is no container engine, or it failed; one line for the user."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A container engine with the settings it needs here.

    Attributes
    ----------
    name : str
        ``podman`` or ``docker``.
    environment : dict
        Environment variables to add to this process's.
    """

    name: str
    environment: dict[str, str] = field(default_factory=dict)

    def command(self, *arguments: str | Path) -> list[str]:
        """Return the command line of the engine with these arguments."""
        return [self.name, *map(str, arguments)]

    def run(
        self, *arguments: str | Path, timeout: float | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the engine and return its exit code with what it wrote."""
        return subprocess.run(
            self.command(*arguments),
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def check(self, *arguments: str | Path, stdin: int | None = None) -> None:
        """Run the engine, its output where it belongs, and raise EngineError if it fails."""
        code = subprocess.run(
            self.command(*arguments),
            env={**os.environ, **self.environment},
            stdin=stdin,
            check=False,
        ).returncode
        if code:
            raise EngineError(f"{self.name} {arguments[0]} ended with {code}; its output says why")

    def has_image(self, tag: str) -> bool:
        """Tell whether an image is in the local store."""
        return self.run("image", "inspect", tag).returncode == 0


def find_engine(name: str | None = None) -> Engine:
    """Return the engine asked for, or podman or docker, whichever answers first.

    Raises
    ------
    EngineError
        If none is installed or none answers.
    """
    candidates = [name] if name else ["podman", "docker"]
    problems = []
    for candidate in candidates:
        if shutil.which(candidate) is None:
            problems.append(f"{candidate} is not installed")
            continue
        engine = Engine(candidate, _podman_settings() if candidate == "podman" else {})
        answer = engine.run("info")
        if answer.returncode == 0:
            return engine
        lines = answer.stderr.strip().splitlines() or ["no answer"]
        problems.append(f"{candidate} does not run here ({lines[-1]})")
    raise EngineError(f"no container engine: {'; '.join(problems)}")


def _podman_settings() -> dict[str, str]:
    if os.environ.get("CONTAINERS_CONF") or Path("/run/systemd/system").is_dir():
        return {}
    CONTAINERS_CONF_FILE.parent.mkdir(parents=True, exist_ok=True)
    CONTAINERS_CONF_FILE.write_text(CONTAINERS_CONF)
    print(f"podman without systemd: CONTAINERS_CONF={CONTAINERS_CONF_FILE}", file=sys.stderr)
    return {"CONTAINERS_CONF": str(CONTAINERS_CONF_FILE)}


def missing_programs(names: Sequence[str]) -> list[str]:
    """Return those of the programs that are not installed."""
    return [name for name in names if shutil.which(name) is None]
