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


def test_unfinished_files_are_removed_while_more_are_written(tmp_path: Path) -> None:
    process = _start(
        f"""
        import itertools, pathlib
        from ct_triage.termination import end_on_sigterm, scratch_folder
        end_on_sigterm()
        parent = pathlib.Path({str(tmp_path)!r})
        with scratch_folder(parent, "finished-") as folder:
            (folder / "seg.dcm").touch()
        (parent / "finished").mkdir()
        with scratch_folder(parent, "unfinished-") as folder:
            for number in itertools.count():
                if number == 1000:
                    print("ready", flush=True)
                try:
                    (folder / str(number)).touch()
                except FileNotFoundError:
                    pass
        """
    )
    _terminate_when_ready(process)
    assert process.wait(timeout=30) == 128 + signal.SIGTERM
    assert [path.name for path in tmp_path.iterdir()] == ["finished"]


def test_a_writer_whose_files_are_gone_does_not_decide_the_exit_code(tmp_path: Path) -> None:
    process = _start(
        f"""
        import pathlib, shutil, threading, time
        from ct_triage.termination import end_on_sigterm, scratch_folder, wait_if_ending
        end_on_sigterm()
        remove, removed = shutil.rmtree, threading.Event()
        def slowly(folder, **options):
            remove(folder, **options)
            removed.set()
            time.sleep(1)
        shutil.rmtree = slowly
        try:
            with scratch_folder(pathlib.Path({str(tmp_path)!r}), "x-") as folder:
                print("ready", flush=True)
                removed.wait()
                (folder / "seg.dcm").touch()
        except FileNotFoundError:
            wait_if_ending()
            sys.exit(6)
        """
    )
    _terminate_when_ready(process)
    assert process.wait(timeout=30) == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


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
