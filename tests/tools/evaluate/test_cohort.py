"""The phantom cohort: made once, run once, gone on with after a kill, evaluated as a whole."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from oracle import write_oracle_models

from ct_triage.configuration import Configuration
from tools.evaluate import cohort
from tools.evaluate.__main__ import main
from tools.evaluate.cohort import DISEASES, plan, process
from tools.evaluate.masks import EvaluationError

REPOSITORY = Path(__file__).parents[3]
SMALL = {"slice_count": 16, "matrix": 64}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_oracle_models(tmp_path_factory.mktemp("models"))


def test_classes_are_even_and_more_studies_begin_with_the_same(tmp_path: Path) -> None:
    studies = plan(12, **SMALL, folder=tmp_path, models=tmp_path)
    assert [study.disease for study in studies[:4]] == list(DISEASES)
    assert len({study.seed for study in studies}) == 12
    assert plan(8, **SMALL, folder=tmp_path, models=tmp_path) == studies[:8]


def test_a_study_is_made_and_run_once(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (study,) = plan(1, **SMALL, folder=tmp_path, models=models)
    # What a killed process leaves: images without the file that says they are complete.
    study.ct.mkdir(parents=True)
    (study.ct / "CT9999.dcm").write_bytes(b"half")
    process(study)
    assert len(list(study.ct.iterdir())) == 16
    made = {file: file.stat().st_mtime_ns for file in study.folder.rglob("*.dcm")}
    truth = study.folder / "truth_lesion.nii.gz"
    assert truth.exists()
    monkeypatch.setattr(cohort, "build_phantom", None)
    process(study)
    assert {file: file.stat().st_mtime_ns for file in study.folder.rglob("*.dcm")} == made
    (study.result / "result.json").unlink()
    process(study)
    again = {file: file.stat().st_mtime_ns for file in study.ct.rglob("*.dcm")}
    assert again == {file: when for file, when in made.items() if file in again}
    (row,) = cohort.datalist([study]).to_dict("records")
    assert row["class"] == "covid19"
    assert row["truth_right_percent"] > 0


def _fail_first(study: Path) -> str:
    study.touch()
    if study.name == "0":
        raise EvaluationError("study 0 is refused")
    return study.name


def test_a_failed_study_ends_the_cohort(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="study 0 is refused"):
        cohort.process_all([tmp_path / str(i) for i in range(200)], 1, True, _fail_first)
    # Those that were handed to the process before the failure was seen.
    begun = len(list(tmp_path.iterdir()))
    assert begun < 200
    time.sleep(1)
    assert len(list(tmp_path.iterdir())) == begun


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--studies", "8"], "--studies must be at least 12"),
        (["--workers", "0"], "--workers must be at least 1"),
        (["--models", "nowhere"], "is no bundle with weights"),
    ],
)
def test_bad_options_are_refused(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["cohort", "--output", str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err


def test_a_cohort_of_other_models_is_not_gone_on_with(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(cohort, "process_all", lambda *_: pytest.fail("must not run"))
    other = write_oracle_models(tmp_path / "other")
    sums = other / "lung_segmentation" / "models" / "SHA256SUMS"
    sums.write_text("0" * 64 + "  model.ts\n")
    folder = tmp_path / "out"
    cohort.keep_settings(
        folder,
        {
            "slices": 60,
            "matrix": 256,
            "lesions": Configuration().models.lesions,
            "models": {
                name: (models / name / "models" / "SHA256SUMS").read_text()
                for name in ("lung_segmentation", "lesion_segmentation_2d")
            },
        },
    )
    assert main(["cohort", "--models", str(other), "--output", str(folder)]) == 2
    assert "holds a run with other models; choose another --output" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_cohort_resumes_and_reports_everything(tmp_path: Path) -> None:
    output = tmp_path / "out"
    command = [
        *(sys.executable, "-m", "tools.evaluate", "cohort", "--studies", "12"),
        *("--slices", "24", "--matrix", "128", "--output", str(output)),
    ]
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY}/apps/ct_triage"}
    running = subprocess.Popen(command, env=environment, start_new_session=True)
    deadline = time.monotonic() + 600
    while not list(output.glob("studies/*/result/result.json")):
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    done = {f: f.stat().st_mtime_ns for f in output.glob("studies/*/result/result.json")}
    assert 0 < len(done) < 12
    assert not (output / "report.html").exists()
    subprocess.run(command, env=environment, check=True)
    assert {file: file.stat().st_mtime_ns for file in done} == done
    cases = pd.read_csv(output / "triage_cases.csv")
    assert cases.groupby("class").size().to_dict() == dict.fromkeys(sorted(DISEASES), 3)
    lungs = pd.read_csv(output / "lungs_cases.csv")
    assert lungs["dice"].mean() > 0.9
    html = (output / "report.html").read_text()
    for name in ("triage_roc", "severity_scatter", "lesions_worst_1"):
        assert (output / f"{name}.png").exists()
    assert html.count("data:image/png;base64,") == len(list(output.glob("*.png")))
    # The same numbers follow from the datalist by the single command.
    again = tmp_path / "again"
    arguments = ["triage", str(output / "all.csv"), "--output", str(again), "--quiet"]
    assert main(arguments) == 0
    assert (again / "summary.csv").read_text() == (output / "triage_summary.csv").read_text()
