"""The course of a patient from result folders: JSON, report and picture agree and are valid."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

sys.path.insert(0, str(Path(__file__).parents[1] / "apps"))

from dated_study import save, study_on
from series_edits import close
from validators import dciodvfy_errors, dcmqi_report, pixelmed_sr_errors

from ct_triage.configuration import Configuration
from tools.followup.__main__ import main


@pytest.fixture
def results(tmp_path: Path) -> list[str]:
    folders = []
    for day, rows in (("20200311", 7), ("20200301", 3), ("20200325", 7)):
        study, folder = study_on(day, rows), tmp_path / day
        save(study.seg(), folder / "seg.dcm")
        save(study.report(), folder / "sr.dcm")
        folders.append(str(folder))
    return folders


def test_studies_are_followed_in_the_order_of_their_dates(
    results: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main([*results, "-o", str(out)]) == 0
    assert sorted(file.name for file in out.iterdir()) == [
        "followup.dcm",
        "followup.json",
        "followup.png",
    ]
    course = json.loads((out / "followup.json").read_text())
    assert [point["days_since_first"] for point in course["time_points"]] == [0, 10, 24]
    assert [c["right_lung"]["response"] for c in course["changes"]] == ["progression", "stable"]
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("follow-up   after 10 days: right lung progression (+")
    assert matplotlib.image.imread(out / "followup.png").shape[2] == 4

    groups = dcmqi_report(out / "followup.dcm", tmp_path)["Measurements"]
    assert len(groups) == 9
    segs = [study_on(day, rows).seg() for day, rows in (("20200325", 7), ("20200301", 3))]
    assert groups[0]["segmentationSOPInstanceUID"] == segs[0].SOPInstanceUID
    assert groups[3]["segmentationSOPInstanceUID"] == segs[1].SOPInstanceUID
    report = dcmread(out / "followup.dcm")
    assert report.StudyInstanceUID == segs[0].StudyInstanceUID
    assert report.PatientID == "SMALL"
    assert len(report.PertinentOtherEvidenceSequence) == 2
    assert dciodvfy_errors(out / "followup.dcm") == []


def test_the_report_follows_its_templates(results: list[str], tmp_path: Path) -> None:
    assert main([*results[:2], "-o", str(tmp_path / "out")]) == 0
    assert pixelmed_sr_errors(tmp_path / "out" / "followup.dcm") == []


def _tied(container: Dataset) -> list[bool]:
    """Tell of each measurement group whether it refers to a segment."""
    groups = [
        item
        for item in container.ContentSequence
        if item.ConceptNameCodeSequence[0].CodeMeaning == "Measurement Group"
    ]
    kinds = [[part.ValueType for part in group.ContentSequence] for group in groups]
    return ["IMAGE" in kind for kind in kinds]


@pytest.mark.parametrize("day", ["20200311", "20200325"])
def test_a_study_without_segments_leaves_the_others_theirs(
    day: str, results: list[str], tmp_path: Path
) -> None:
    (folder,) = (Path(result) for result in results if result.endswith(day))
    without = Configuration.model_validate({"outputs": {"seg": False}})
    study = study_on(day, 7)
    study = replace(study, origin=replace(study.origin, configuration=without))
    (folder / "seg.dcm").unlink()
    save(study.report(), folder / "sr.dcm")
    assert main([*results, "-o", str(tmp_path / "out")]) == 0
    file = tmp_path / "out" / "followup.dcm"
    content = {
        item.ConceptNameCodeSequence[0].CodeMeaning: item
        for item in dcmread(file).ContentSequence
        if item.ValueType == "CONTAINER"
    }
    # One template a container: the groups unlike those of the latest study stand apart.
    latest = [False] * 3 if day == "20200325" else [True] * 6
    assert _tied(content["Imaging Measurements"]) == latest
    others = [not latest[0]] * (9 - len(latest))
    assert _tied(content["Previous Findings"]) == others
    assert dciodvfy_errors(file) == []
    assert pixelmed_sr_errors(file) == []


def test_a_report_alone_will_do_and_the_same_input_gives_the_same_bytes(
    results: list[str], tmp_path: Path
) -> None:
    reports = [f"{folder}/sr.dcm" for folder in results[:2]]
    for name in ("one", "two"):
        assert main([*reports, "-o", str(tmp_path / name)]) == 0
    for file in ("followup.json", "followup.dcm"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    course = json.loads((tmp_path / "one" / "followup.json").read_text())
    assert course["changes"][0]["right_lung"]["response"] == "progression"


def _another_patient(dataset: Dataset) -> None:
    dataset.PatientID = "ANOTHER"


def _no_patient(dataset: Dataset) -> None:
    dataset.PatientID = ""


def _no_lungs(dataset: Dataset) -> None:
    dataset.SegmentSequence = dataset.SegmentSequence[2:]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_another_patient, "different patients"),
        (_no_patient, "no Patient ID"),
        (_no_lungs, "no segments that are coded as lungs"),
    ],
)
def test_what_cannot_be_compared_is_refused_by_name(
    spoil: Callable[[Dataset], None],
    message: str,
    results: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seg = dcmread(f"{results[0]}/seg.dcm")
    spoil(seg)
    save(seg, tmp_path / "bad.dcm")
    code = main([str(tmp_path / "bad.dcm"), results[1], "-o", str(tmp_path / "out")])
    _assert_refused(code, capsys, tmp_path, message, "bad.dcm")


def test_too_little_is_refused(
    results: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("no DICOM")
    for paths, message in (
        ([results[0], f"{results[0]}/sr.dcm"], "one study only"),
        ([results[0], str(tmp_path / "empty")], "holds no DICOM SEG"),
        ([results[0], str(tmp_path / "text.txt")], "neither a DICOM SEG"),
        ([results[0], str(tmp_path / "nowhere")], "does not exist"),
    ):
        code = main([*paths, "-o", str(tmp_path / "out")])
        _assert_refused(code, capsys, tmp_path, message)


def test_a_folder_that_cannot_be_read_is_refused(
    results: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    closed = Path(results[0], "deep")
    closed.mkdir()
    close(closed, monkeypatch)
    code = main([*results, "-o", str(tmp_path / "out")])
    _assert_refused(code, capsys, tmp_path, f"{closed}: cannot be read (Permission denied)")


def _assert_refused(
    code: int, capsys: pytest.CaptureFixture[str], folder: Path, *parts: str
) -> None:
    error = capsys.readouterr().err
    assert code == 1
    assert len(error.splitlines()) == 1
    for part in parts:
        assert part in error
    assert "ANOTHER" not in error
    assert not (folder / "out").exists()
