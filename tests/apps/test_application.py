"""The command line, as a user or a platform runs it: exit codes, messages, files."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid

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


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_disk_that_fills_up(study: Path, oracle_models: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        done = _run("-i", study, "-o", disk / "out", "-m", oracle_models, "-l", "error")
        assert done.returncode == 6
        _assert_one_line(done.stderr, "cannot write the results (No space left on device)")
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
def test_a_run_killed_at_any_moment_leaves_nothing_or_everything(
    study: Path, oracle_models: Path, tmp_path: Path
) -> None:
    command = [sys.executable, str(APP), "-i", str(study), "-m", str(oracle_models), "-o"]
    start = time.monotonic()
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    whole_s = time.monotonic() - start
    names = sorted(file.name for file in (tmp_path / "whole").iterdir())
    n_killed = 0
    for share in (0.3, 0.6, 0.8, 0.9, 0.95, 0.98):
        parent = tmp_path / str(share)
        parent.mkdir()
        running = subprocess.Popen(
            [*command, str(parent / "out")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(share * whole_s)
        running.kill()
        n_killed += running.wait() == -signal.SIGKILL
        if (parent / "out").exists():
            assert sorted(file.name for file in (parent / "out").iterdir()) == names
            seg = dcmread(parent / "out" / "seg.dcm")
            assert seg.SOPInstanceUID == dcmread(tmp_path / "whole" / "seg.dcm").SOPInstanceUID
    assert n_killed


def _schema(name: str) -> dict[str, object]:
    return json.loads((APP / "docs" / f"{name}.schema.json").read_text())


def _copy_as_series(source: Path, target: Path, *, every: int = 1) -> str:
    """Copy every n-th image of a series under UIDs of their own; return the series' UID."""
    target.mkdir()
    for index, file in enumerate(sorted(source.glob("*.dcm"))):
        if index % every == 0:
            dataset = dcmread(file)
            dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[target.name])
            dataset.SOPInstanceUID = generate_uid(entropy_srcs=[target.name, file.name])
            dataset.save_as(target / file.name)
    return str(dataset.SeriesInstanceUID)


def test_a_mistake_in_the_configuration_ends_with_2(
    study: Path, oracle_models: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text("identificaton: true\n")
    environment = {"CT_TRIAGE_CONFIG": tmp_path / "config.yaml"}
    done = _run(
        "-i", study, "-o", tmp_path / "out", "-m", oracle_models, "-l", "error", **environment
    )
    assert done.returncode == 2
    _assert_one_line(done.stderr, "config.yaml: identificaton: unknown key; did you mean ident")
    assert not (tmp_path / "out").exists()


def test_every_series_gets_a_folder_and_a_broken_one_does_not_stop_the_others(
    study: Path, oracle_models: Path, tmp_path: Path
) -> None:
    (first,) = {str(dcmread(file).SeriesInstanceUID) for file in study.glob("*.dcm")}
    thick = _copy_as_series(study, study / "thick", every=2)
    broken = _copy_as_series(study, study / "broken")
    sorted((study / "broken").glob("*.dcm"))[5].unlink()
    short = _copy_as_series(study, study / "short", every=8)
    (tmp_path / "config.yaml").write_text("series: {take: every}\noutputs: {seg: false}\n")
    out = tmp_path / "out"
    done = _run("-i", study, "-o", out, "-m", oracle_models, "-c", tmp_path / "config.yaml")
    assert done.returncode == 4, done.stderr
    assert done.stdout.count("severity ") == 2

    index = json.loads((out / "series.json").read_text())
    jsonschema.validate(index, _schema("series"))
    entries = {entry["series_instance_uid"]: entry for entry in index["series"]}
    assert {uid: entry["exit_code"] for uid, entry in entries.items()} == {
        first: 0,
        thick: 0,
        broken: 4,
        short: 3,
    }
    assert "1 slices are missing" in entries[broken]["reason"]
    assert "has 4 slices" in entries[short]["reason"]
    assert sorted(file.name for file in out.iterdir()) == sorted([first, thick, "series.json"])
    for uid in (first, thick):
        result = json.loads((out / entries[uid]["folder"] / "result.json").read_text())
        assert result["source"]["series_instance_uid"] == uid


def test_no_usable_series_is_told_for_each_in_a_document(
    study: Path, oracle_models: Path, tmp_path: Path
) -> None:
    uid = _copy_as_series(study, tmp_path / "short", every=8)
    done = _run("-i", tmp_path / "short", "-o", tmp_path / "out", "-m", oracle_models)
    assert done.returncode == 3
    document = json.loads((tmp_path / "out" / "no_result.json").read_text())
    jsonschema.validate(document, _schema("no_result"))
    assert document["exit_code"] == 3
    (series,) = document["series"]
    assert series["series_instance_uid"] == uid
    assert series["instances"] == 4
    assert "has 4 slices with a position, at least 10" in series["reason"]
    assert "SECRET-MARKER" not in json.dumps(document)
