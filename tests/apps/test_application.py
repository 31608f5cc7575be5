"""The command line, as a user or a platform runs it: exit codes, messages, files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom import dcmread

from tools.phantom import Phantom, write_dicom_series

APP = Path(__file__).parents[2] / "apps" / "ct_triage"


def _run(*options: object, **environment: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(APP), *map(str, options)],
        env={**os.environ, **{key: str(value) for key, value in environment.items()}},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture
def study(covid_phantom: Phantom, tmp_path: Path) -> Path:
    write_dicom_series(covid_phantom, tmp_path / "study", patient_id="SECRET-MARKER")
    return tmp_path / "study"


def _assert_one_line(message: str, *parts: str) -> None:
    assert len(message.strip().splitlines()) == 1, message
    assert "Traceback" not in message
    for part in parts:
        assert part in message


def test_a_good_run_prints_the_findings(study: Path, oracle_models: Path, tmp_path: Path) -> None:
    done = _run("-i", study, "-o", tmp_path / "out", "-m", oracle_models)
    assert done.returncode == 0, done.stderr
    findings = json.loads((tmp_path / "out" / "result.json").read_text())["findings"]
    assert f"severity    {findings['severity_category']}" in done.stdout
    assert f"{findings['right_lung']['lesion_share_percent']:8.1f}" in done.stdout
    for name in ("seg.dcm", "sr.dcm", "result.json"):
        assert str(tmp_path / "out" / name) in done.stdout
    assert "SECRET-MARKER" not in done.stdout + done.stderr
    assert dcmread(tmp_path / "out" / "seg.dcm").PatientID == "SECRET-MARKER"


def test_a_name_that_breaks_the_rules_stays_out_of_the_log(
    study: Path, oracle_models: Path, tmp_path: Path
) -> None:
    for file in study.glob("*.dcm"):
        # Longer than PN allows, an impossible birth date: both make DICOM libraries complain.
        dataset = dcmread(file)
        dataset.add_new("PatientName", "PN", "Phantom^Case")
        dataset.add_new("PatientBirthDate", "DA", "19700101")
        dataset.save_as(file)
        stored = file.read_bytes().replace(b"Phantom^Case", b"M\\ARKER^NAME")
        file.write_bytes(stored.replace(b"19700101", b"MARKER77"))
    done = _run("-i", study, "-o", tmp_path / "out", "-m", oracle_models, "-l", "debug")
    assert "MARKER" not in done.stdout + done.stderr
    assert done.returncode == 0, done.stderr


def test_paths_come_from_the_platform_too(study: Path, oracle_models: Path, tmp_path: Path) -> None:
    done = _run(
        HOLOSCAN_INPUT_PATH=study,
        HOLOSCAN_OUTPUT_PATH=tmp_path / "out",
        HOLOSCAN_MODEL_PATH=oracle_models,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "sr.dcm").is_file()


def test_a_wrong_command_line_says_what_is_missing(tmp_path: Path) -> None:
    assert _run().returncode == 2
    done = _run("-i", tmp_path / "nowhere", "-o", tmp_path)
    assert done.returncode == 2
    assert f"{tmp_path / 'nowhere'} is not a folder" in done.stderr


def test_no_usable_series(oracle_models: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = _run(
        "-i", tmp_path / "empty", "-o", tmp_path / "out", "-m", oracle_models, "-l", "error"
    )
    assert done.returncode == 3
    _assert_one_line(done.stderr, "no DICOM files", str(tmp_path / "empty"))
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["no_result.json"]


def test_a_broken_series(study: Path, oracle_models: Path, tmp_path: Path) -> None:
    sorted(study.glob("*.dcm"))[5].unlink()
    done = _run("-i", study, "-o", tmp_path / "out", "-m", oracle_models, "-l", "error")
    assert done.returncode == 4
    _assert_one_line(done.stderr, "1 slices are missing", "send the complete series")
    assert not (tmp_path / "out").exists()


def test_missing_models(study: Path, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    done = _run("-i", study, "-o", tmp_path / "out", "-m", tmp_path / "models", "-l", "error")
    assert done.returncode == 5
    _assert_one_line(done.stderr, "model.ts: not found")


def test_an_output_that_cannot_be_written(study: Path, oracle_models: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file where the folder should be")
    done = _run("-i", study, "-o", tmp_path / "out", "-m", oracle_models, "-l", "error")
    assert done.returncode == 6
    _assert_one_line(done.stderr, "cannot write the results", str(tmp_path / "out"))
