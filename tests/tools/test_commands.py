"""Every command line of the project explains itself."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
COMMANDS = sorted(
    file.relative_to(REPOSITORY)
    for folder in ("tools", "apps")
    for file in (REPOSITORY / folder).rglob("*.py")
    if "ArgumentParser(" in file.read_text() and '__name__ == "__main__"' in file.read_text()
)


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_help_is_printed(command: Path) -> None:
    module = ".".join(command.with_suffix("").parts).removesuffix(".__main__")
    how = [str(command)] if command.parts[0] == "apps" else ["-m", module]
    done = subprocess.run(
        [sys.executable, *how, "--help"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("usage: ")
