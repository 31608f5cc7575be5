"""Run ``python -m`` commands, each in a fork of one process that has imported MONAI already.

Importing MONAI takes seconds, forking a process that has done so takes none. Each line of standard
input is a command as JSON: the "words" after ``python -m``, its "folder", the files that it writes
"stdout" and "stderr" to, and "timeout_s". A line with its exit code answers.
"""

import importlib
import json
import os
import runpy
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# What takes longest to import when `monai.bundle` runs a config.
PRELOADED = (
    "monai.bundle.__main__",
    "segmentation_models_pytorch",
    "skimage.exposure",
    "torch.utils.tensorboard",
)


def main() -> None:
    """Serve commands until standard input ends."""
    del sys.path[0]  # Of this file's folder.
    for name in PRELOADED:
        importlib.import_module(name)
    for line in sys.stdin:
        command = json.loads(line)
        fork = os.fork()
        if fork == 0:
            _take_over(command)
            _run(command["words"])
            # How this process ends, by an exception or here, is how a Python of its own would.
            return
        _, status = os.waitpid(fork, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _take_over(command: dict[str, Any]) -> None:
    os.chdir(command["folder"])
    streams = (os.devnull, command["stdout"], command["stderr"])
    for number, name in enumerate(streams):
        opened = os.open(name, os.O_RDONLY if number == 0 else os.O_WRONLY)
        os.dup2(opened, number)
        os.close(opened)
    signal.alarm(command["timeout_s"])


def _run(words: Sequence[str]) -> None:
    """Run a module with the path and the arguments that Python gives it."""
    sys.path.insert(0, str(Path.cwd()))
    sys.argv = list(words)
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
