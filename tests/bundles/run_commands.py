"""Run ``python -m`` commands one after the other in one process: PyTorch is imported once.

Standard input is JSON: a list of commands, each with its "words" and, as "writes", a pattern of
the file that it must write. The first that fails ends the run with the exit code 1.
"""

import json
import runpy
import sys
import time
import traceback
from pathlib import Path


def main() -> int:
    """Run them all; the command that fails is named last on standard error."""
    # As ``python -m`` has it: the working folder, not the folder of this file.
    sys.path[0] = str(Path.cwd())
    for command in json.load(sys.stdin):
        python, option, module, *arguments = command["words"]
        assert (python, option) == ("python", "-m"), command
        before = time.time()
        sys.argv = [module, *arguments]
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            problem = str(end) if end.code else ""
        except Exception:
            problem = traceback.format_exc()
        else:
            problem = ""
        if not (problem or any(_is_newer(path, before) for path in _matching(command["writes"]))):
            problem = f"wrote no {command['writes']}"
        if problem:
            print(f"{problem}\nof: {' '.join(command['words'])}", file=sys.stderr)
            return 1
    return 0


def _matching(pattern: str) -> list[Path]:
    path = Path(pattern)
    return list(path.parent.glob(path.name))


def _is_newer(path: Path, since_s: float) -> bool:
    # File systems may round times down.
    return path.stat().st_mtime > since_s - 1


if __name__ == "__main__":
    sys.exit(main())
