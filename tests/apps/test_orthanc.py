"""The application between a modality and a real archive."""

import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import requests
from dicomweb_client import DICOMwebClient
from orthanc import OrthancServer
from pydicom import Dataset, dcmread

from ct_triage.configuration import Configuration
from ct_triage.pipeline import Pipeline
from tools.phantom import Phantom, write_dicom_series

APP = Path(__file__).parents[2] / "apps" / "ct_triage"
WORKER = APP / "deploy" / "orthanc_worker.py"
RECORD = "4096"
# How long nothing at all may happen: a run takes seconds, and a busy machine stretches them. There
# is no limit to the whole.
PATIENCE_SECONDS = 900


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[OrthancServer]:
    folder = tmp_path / "orthanc"
    folder.mkdir()
    server = OrthancServer(folder).start()
    yield server
    server.kill()


def _data_set_bytes(dataset: Dataset) -> bytes:
    """Everything but the file meta information, which each system writes anew."""
    bare = Dataset()
    bare.update({element.tag: element for element in dataset})
    buffer = io.BytesIO()
    bare.save_as(buffer, implicit_vr=False, little_endian=True)
    return buffer.getvalue()


@pytest.mark.parametrize("way", ["C-STORE", "STOW-RS"])
def test_results_come_back_bit_identical(
    way: str,
    orthanc: OrthancServer,
    covid_phantom: Phantom,
    oracle_models: Path,
    tmp_path: Path,
) -> None:
    source = write_dicom_series(covid_phantom, tmp_path / "study", patient_id="ROUND-TRIP")
    orthanc.c_store(source)
    (study,) = orthanc.get("/studies")
    archived = tmp_path / "archived"
    archived.mkdir()
    for instance in orthanc.get(f"/studies/{study}/instances"):
        file = requests.get(
            f"{orthanc.url}/instances/{instance['ID']}/file", timeout=PATIENCE_SECONDS
        )
        (archived / f"{instance['ID']}.dcm").write_bytes(file.content)
    configuration = Configuration.model_validate({"outputs": {"picture": True}})
    Pipeline(archived, tmp_path / "out", oracle_models, configuration).run()
    files = sorted((tmp_path / "out").glob("*.dcm"))
    results = {dataset.SOPInstanceUID: dataset for dataset in map(dcmread, files)}
    assert len(results) == 3

    web = DICOMwebClient(f"{orthanc.url}/dicom-web")
    if way == "C-STORE":
        orthanc.c_store(files)
    else:
        answer = web.store_instances(list(results.values()))
        assert len(answer.get("FailedSOPSequence", [])) == 0
        assert len(answer.ReferencedSOPSequence) == len(results)

    study_uid = next(iter(results.values())).StudyInstanceUID
    moved = orthanc.c_move(study_uid)
    assert len(moved) == len(source) + len(results)
    for uid, dataset in results.items():
        sent = _data_set_bytes(dataset)
        assert _data_set_bytes(moved[uid]) == sent
        served = web.retrieve_instance(study_uid, dataset.SeriesInstanceUID, uid)
        assert _data_set_bytes(served) == sent


class Worker:
    """The unattended script as a process."""

    def __init__(
        self, orthanc: OrthancServer, folder: Path, application: Sequence[str | Path]
    ) -> None:
        self.state = folder / "state"
        options = ["--orthanc", orthanc.url, "--state", self.state]
        options += ["--poll", "0.5", "--quiet", "2"]
        command = [sys.executable, WORKER, *options, "--", *application]
        self._command = list(map(str, command))
        self._log = folder / "worker.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Worker":
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        return self

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            assert self._process.wait(timeout=PATIENCE_SECONDS) == 128 + signal.SIGTERM
            self._process = None

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def progress(self) -> tuple[str, list[str]]:
        """What changes while there is work: the log, and the files of the study being worked on."""
        return self.log, sorted(str(path) for path in self.state.rglob("*"))

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def failures(self) -> list[dict]:
        file = self.state / "failures.jsonl"
        return list(map(json.loads, file.read_text().splitlines())) if file.exists() else []


@pytest.fixture
def worker(orthanc: OrthancServer, oracle_models: Path, tmp_path: Path) -> Iterator[Worker]:
    application = [sys.executable, APP, "-i", "{input}", "-o", "{output}", "-m", oracle_models]
    worker = Worker(orthanc, tmp_path, application).start()
    yield worker
    worker.stop()


def _records(orthanc: OrthancServer) -> dict[str, dict]:
    """What the script has noted of each study, by study."""
    records = {}
    for study in orthanc.get("/studies"):
        answer = requests.get(
            f"{orthanc.url}/studies/{study}/metadata/{RECORD}", timeout=PATIENCE_SECONDS
        )
        if answer.status_code == 200:
            records[study] = answer.json()
    return records


def _wait(worker: Worker, until: Callable[[], bool]) -> None:
    """Wait as long as the worker gets on."""
    seen, deadline = worker.progress(), time.monotonic() + PATIENCE_SECONDS
    while not until():
        assert worker.alive(), worker.log
        if (now := worker.progress()) != seen:
            seen, deadline = now, time.monotonic() + PATIENCE_SECONDS
        assert time.monotonic() < deadline, worker.log
        time.sleep(0.5)


def _modalities(orthanc: OrthancServer, study: str) -> dict[str, int]:
    """Number of instances by modality."""
    return {
        series["MainDicomTags"]["Modality"]: len(series["Instances"])
        for series in orthanc.get(f"/studies/{study}/series")
    }


@pytest.mark.slow
@pytest.mark.deployment
def test_ten_studies_are_done_unattended_although_orthanc_is_killed(
    orthanc: OrthancServer, worker: Worker, covid_phantom: Phantom, tmp_path: Path
) -> None:
    studies = [
        write_dicom_series(covid_phantom, tmp_path / f"study{i}", patient_id=f"SECRET-{i}")
        for i in range(10)
    ]
    broken = 2
    # As from a transfer that lost a slice.
    del studies[broken][10]
    for files in studies[:7]:
        orthanc.c_store(files)
    _wait(worker, lambda: len(_records(orthanc)) >= 2)
    # Killed before this one is announced as stable.
    orthanc.c_store(studies[7])
    orthanc.kill()
    time.sleep(2)
    orthanc.start()
    for files in studies[8:]:
        orthanc.c_store(files)
    _wait(worker, lambda: len(_records(orthanc)) == 10)

    codes = sorted(record["exit_code"] for record in _records(orthanc).values())
    assert codes == [0] * 9 + [4]
    for study, record in _records(orthanc).items():
        found = _modalities(orthanc, study)
        slices = found.pop("CT")
        if record["exit_code"] == 0:
            assert slices == len(studies[0])
            assert found == {"SEG": 1, "SR": 1}
            assert len(record["stored"]) == 2
        else:
            assert found == {}
            (failure,) = worker.failures
            assert (failure["study"], failure["exit_code"]) == (study, 4)
            assert "slices are missing" in failure["message"]
    assert "SECRET" not in worker.log + json.dumps(worker.failures)

    # Neither its own results nor a restart make it start over: it does what is new, and no more.
    before = orthanc.get("/statistics")["CountInstances"]
    done = worker.log.count("results stored")
    worker.stop()
    worker.start()
    files = write_dicom_series(covid_phantom, tmp_path / "new", patient_id="SECRET-NEW")
    orthanc.c_store(files)
    _wait(worker, lambda: len(_records(orthanc)) == 11)
    assert orthanc.get("/statistics")["CountInstances"] == before + len(files) + 2
    assert worker.log.count("results stored") == done + 1
    assert len(worker.failures) == 1


@pytest.mark.slow
@pytest.mark.deployment
def test_a_slice_that_arrives_late_makes_a_broken_study_whole(
    orthanc: OrthancServer, worker: Worker, covid_phantom: Phantom, tmp_path: Path
) -> None:
    files = write_dicom_series(covid_phantom, tmp_path / "study")
    late = files.pop(10)
    orthanc.c_store(files)
    _wait(worker, lambda: [r["exit_code"] for r in _records(orthanc).values()] == [4])
    orthanc.c_store([late])
    _wait(worker, lambda: [r["exit_code"] for r in _records(orthanc).values()] == [0])
    (study,) = orthanc.get("/studies")
    assert _modalities(orthanc, study) == {"CT": len(files) + 1, "SEG": 1, "SR": 1}


def test_a_restart_during_a_run_loses_no_study(
    orthanc: OrthancServer, covid_phantom: Phantom, tmp_path: Path
) -> None:
    going_on = tmp_path / "going_on"
    going_on.touch()
    # As long as the file is there, a run takes; it ends as for a broken series.
    wait = f"while [ -e {going_on} ]; do sleep 0.2; done; exit 4"
    worker = Worker(orthanc, tmp_path, ["sh", "-c", wait]).start()
    first, second = (
        write_dicom_series(covid_phantom, tmp_path / name, patient_id=name) for name in "AB"
    )
    orthanc.c_store(first)
    _wait(worker, lambda: bool(list(worker.state.glob("study-*/output"))))
    # Killed before it is announced as stable, and back before the run ends.
    orthanc.c_store(second[:5])
    orthanc.kill()
    orthanc.start()
    going_on.unlink()
    _wait(worker, lambda: len(_records(orthanc)) == 2)
    worker.stop()


def test_two_workers_do_not_share_a_folder(worker: Worker) -> None:
    _wait(worker, (worker.state / "lock").exists)
    command = [sys.executable, WORKER, "--state", worker.state, "--", "true"]
    second = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert second.returncode == 1
    assert f"{worker.state} is another worker's" in second.stderr
