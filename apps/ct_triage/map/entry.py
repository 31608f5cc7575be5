"""What a MONAI Application Package starts: the application, or a command about the package.

Without a command every argument goes to the application, which takes this process's place: its
exit code is the container's, and signals reach it.
"""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

EXPORT = Path("/var/run/holoscan/export")
USAGE = f"""\
usage: [options of the application] | show [app|pkg] | extract | env | help

show      print app.json and pkg.json, or one of them
extract   copy the package's parts to what is mounted at {EXPORT};
          only to {EXPORT}/app, config, models or docs if one of these is mounted
env       print the environment
"""


def main(arguments: list[str]) -> int:
    """Run a command and return its exit code; starting the application does not return."""
    command = arguments[0] if arguments else None
    if command == "show":
        return _show(arguments[1:])
    if command == "extract":
        return _extract()
    if command == "env":
        print("\n".join(f"{key}={value}" for key, value in sorted(os.environ.items())))
        return 0
    if command == "help":
        print(USAGE, end="")
        return 0
    return _launch(arguments)


def _launch(arguments: list[str]) -> NoReturn:
    command = json.loads(json.loads(_manifest("app").read_text())["command"])
    os.execvp(command[0], [*command, *arguments])


def _manifest(name: str) -> Path:
    return Path(os.environ[f"HOLOSCAN_{name.upper()}_MANIFEST_PATH"])


def _show(names: list[str]) -> int:
    if not set(names) <= {"app", "pkg"}:
        print(f"show: nothing is called {' '.join(names)}; give app or pkg", file=sys.stderr)
        return 2
    for name in names or ["app", "pkg"]:
        print(f"{f' {name}.json ':=^68}")
        print(_manifest(name).read_text())
    return 0


def _extract() -> int:
    parts = {
        "app": (Path(os.environ["HOLOSCAN_APPLICATION"]),),
        "config": (
            _manifest("app"),
            _manifest("pkg"),
            Path(os.environ["HOLOSCAN_CONFIG_PATH"]),
        ),
        "models": (Path(os.environ["HOLOSCAN_MODEL_PATH"]),),
        "docs": (Path(os.environ["HOLOSCAN_DOCS_PATH"]),),
    }
    if not EXPORT.is_dir():
        print(f"extract: nothing is mounted at {EXPORT}; mount a folder there", file=sys.stderr)
        return 1
    mounted = [name for name in parts if (EXPORT / name).is_mount()]
    try:
        for name in mounted or parts:
            for source in parts[name]:
                _copy(source, EXPORT / name)
    except OSError as error:
        print(
            f"extract: cannot write to {error.filename} ({error.strerror}); make the mounted"
            " folder on the host first, writable for the user of the container",
            file=sys.stderr,
        )
        return 1
    return 0


def _copy(source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    if source.is_file():
        shutil.copyfile(source, target / source.name)
    else:
        # Contents only: a user who may not change the mounted folder can still fill it.
        shutil.copytree(source, target, dirs_exist_ok=True, copy_function=shutil.copyfile)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
