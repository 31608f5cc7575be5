"""SIGTERM to the application, without a container around it."""

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

APP = Path(__file__).parents[2] / "apps" / "ct_triage"


def _start(body: str) -> subprocess.Popen[str]:
    program = f"import sys; sys.path.insert(0, {str(APP)!r})\n" + textwrap.dedent(body)
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)


def _terminate_when_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)


def test_it_ends_although_the_main_thread_never_returns_to_python() -> None:
    process = _start(
        """
        from ct_triage.termination import end_on_sigterm
        end_on_sigterm()
        import ctypes
        print("ready", flush=True)
        ctypes.CDLL(None).sleep(60)
        """
    )
    _terminate_when_ready(process)
    assert process.wait(timeout=30) == 128 + signal.SIGTERM


def test_it_ends_after_what_must_not_be_interrupted(tmp_path: Path) -> None:
    process = _start(
        f"""
        import pathlib, time
        from ct_triage.termination import end_on_sigterm, uninterrupted
        end_on_sigterm()
        with uninterrupted:
            print("ready", flush=True)
            time.sleep(1)
            pathlib.Path({str(tmp_path / "complete")!r}).touch()
        time.sleep(60)
        """
    )
    _terminate_when_ready(process)
    assert process.wait(timeout=30) == 128 + signal.SIGTERM
    assert (tmp_path / "complete").exists()


def test_unfinished_files_are_removed(tmp_path: Path) -> None:
    process = _start(
        f"""
        import pathlib, time
        from ct_triage.termination import end_on_sigterm, removed_on_sigterm
        end_on_sigterm()
        for name in ("finished", "unfinished"):
            folder = pathlib.Path({str(tmp_path)!r}, name)
            folder.mkdir()
            with removed_on_sigterm(folder):
                (folder / "seg.dcm").touch()
                if name == "unfinished":
                    print("ready", flush=True)
                    time.sleep(60)
        """
    )
    _terminate_when_ready(process)
    assert process.wait(timeout=30) == 128 + signal.SIGTERM
    assert [path.name for path in tmp_path.iterdir()] == ["finished"]


def test_unfinished_results_are_removed(tmp_path: Path) -> None:
    process = _start(
        f"""
        import pathlib, time
        from ct_triage.termination import end_on_sigterm
        end_on_sigterm()
        from ct_triage import results
        def wait(path):
            print("ready", flush=True)
            time.sleep(60)
        results._synchronise = wait
        results.write_results(pathlib.Path({str(tmp_path / "out")!r}), {{"series.json": {{}}}})
        """
    )
    _terminate_when_ready(process)
    assert process.wait(timeout=30) == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


def test_results_that_are_being_put_in_place_are_completed(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    process = _start(
        f"""
        import os, pathlib, time
        from ct_triage.termination import end_on_sigterm
        end_on_sigterm()
        from ct_triage import results
        replace = os.replace
        def slowly(source, target):
            replace(source, target)
            print("ready", flush=True)
            time.sleep(1)
        os.replace = slowly
        files = {{"series.json": {{}}, "result.json": {{}}}}
        results.write_results(pathlib.Path({str(tmp_path)!r}), files)
        time.sleep(60)
        """
    )
    _terminate_when_ready(process)
    assert process.wait(timeout=30) == 128 + signal.SIGTERM
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"notes.txt", "series.json", "result.json"}
