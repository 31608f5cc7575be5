"""Results are whole or absent, whatever happens to the writer."""

import copy
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from small_study import small_study

from ct_triage.configuration import Configuration
from ct_triage.errors import OutputError
from ct_triage.results import RESULT_FILES, require_free, write_results

# Whatever makes, changes or removes a name; Python announces each before it happens.
WRITING = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"}


@pytest.fixture(scope="module")
def results() -> dict[str, Dataset | dict]:
    study = small_study()
    return {"seg.dcm": study.seg(), "sr.dcm": study.report(), "result.json": study.result()}


def _assert_complete(folder: Path) -> None:
    result = json.loads((folder / "result.json").read_text())
    for key, name in (("seg", "seg.dcm"), ("report", "sr.dcm")):
        assert dcmread(folder / name).SOPInstanceUID == result["outputs"][key]["sop_instance_uid"]


def _write_and_die(results: dict, folder: Path, last: int) -> bool:
    """Write in a process that kills itself before its n-th change; tell whether it was killed."""
    child = os.fork()
    if not child:
        n_changes = 0

        def count(event: str, arguments: tuple) -> None:
            nonlocal n_changes
            if event in WRITING and str(folder.parent) in str(arguments[0]):
                n_changes += 1
                if n_changes == last:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        try:
            write_results(folder, results)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("before", ["absent", "empty", "other files", "results"])
def test_a_writer_killed_at_any_moment_leaves_nothing_or_everything(
    before: str, results: dict, tmp_path: Path
) -> None:
    for last in range(1, 200):
        folder = tmp_path / str(last) / "out"
        folder.parent.mkdir()
        if before != "absent":
            folder.mkdir()
        if before == "other files":
            (folder / "notes.txt").write_text("not ours")
        if before == "results":
            write_results(folder, results)
        was_killed = _write_and_die(results, folder, last)
        if (folder / "result.json").exists():
            _assert_complete(folder)
        elif before in ("absent", "empty"):
            assert not [name for name in RESULT_FILES if (folder / name).exists()]
        if not was_killed:
            break
        # The next run mends what is left.
        write_results(folder, results)
        _assert_complete(folder)
    assert 5 < last < 199
    _assert_complete(folder)


def test_what_is_written_is_what_was_given(results: dict, tmp_path: Path) -> None:
    files = write_results(tmp_path / "deep" / "out", results)
    assert [file.name for file in files] == ["seg.dcm", "sr.dcm", "result.json"]
    _assert_complete(tmp_path / "deep" / "out")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]
    assert dcmread(files[0]).PixelData == results["seg.dcm"].PixelData


@pytest.mark.parametrize("name", RESULT_FILES)
def test_nothing_foreign_is_overwritten(name: str, results: dict, tmp_path: Path) -> None:
    (tmp_path / name).write_text('{"application": "another"}')
    with pytest.raises(OutputError, match=rf"{name}: exists and is no result of this application"):
        write_results(tmp_path, results)
    assert (tmp_path / name).read_text() == '{"application": "another"}'
    assert len(list(tmp_path.iterdir())) == 1


def test_a_foreign_dicom_file_is_not_overwritten(tmp_path: Path) -> None:
    small_study().write_source(tmp_path)
    (tmp_path / "ct0.dcm").rename(tmp_path / "seg.dcm")
    with pytest.raises(OutputError, match=r"seg.dcm: exists"):
        require_free(tmp_path)


def test_what_another_configuration_left_goes(results: dict, tmp_path: Path) -> None:
    """Under another manufacturer's name too; FHIR has no place for the application's."""
    settings = {"manufacturer": {"name": "Hospital", "model_name": "Triage"}}
    other = small_study(configuration=Configuration.model_validate(settings))
    write_results(tmp_path, {"seg.dcm": other.seg(), "result.fhir.json": other.fhir()})
    write_results(tmp_path, {"no_result.json": {"application": {"name": "ct_triage"}}})
    assert [file.name for file in tmp_path.iterdir()] == ["no_result.json"]
    write_results(tmp_path, results)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(results)


def test_a_second_run_replaces_the_first_and_leaves_the_rest(results: dict, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    write_results(tmp_path, results)
    before = {name: (tmp_path / name).read_bytes() for name in results}
    write_results(tmp_path, results)
    assert {name: (tmp_path / name).read_bytes() for name in results} == before
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("limit_bytes", [100, 3000])
def test_a_full_disk_is_a_clear_error(limit_bytes: int, results: dict, tmp_path: Path) -> None:
    """A limit on the size of files is refused by the system in the same way."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        with pytest.raises(OutputError, match=r"cannot write the results \(File too large\)"):
            write_results(tmp_path / "out", results)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_disk_that_fills_up_is_a_clear_error(results: dict, tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with pytest.raises(OutputError, match=r"cannot write the results \(No space left"):
            write_results(tmp_path / "out", results)
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_file_that_reads_back_differently_is_not_delivered(
    results: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(self: Dataset, file: Path, **options: bool) -> None:
        other = copy.deepcopy(self)
        other.SOPInstanceUID = "1.2.3"
        Dataset.save_as(other, file, **options)

    monkeypatch.setattr(type(results["seg.dcm"]), "save_as", short)
    with pytest.raises(OutputError, match=r"seg\.dcm reads back differently"):
        write_results(tmp_path / "out", results)
    assert not (tmp_path / "out").exists()
