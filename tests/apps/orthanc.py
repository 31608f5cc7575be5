"""An Orthanc of our own on this machine, for tests; skipped where Orthanc is not installed.

orthanc, orthanc-dicomweb and orthanc-gdcm are Debian packages.
"""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import requests
from pydicom import Dataset, dcmread
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelMove as StudyRootMove,
)

PLUGINS = Path("/usr/share/orthanc/plugins")
# What a study and its results are made of.
STORAGE_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.2",  # CT Image Storage
    "1.2.840.10008.5.1.4.1.1.66.4",  # Segmentation Storage
    "1.2.840.10008.5.1.4.1.1.88.34",  # Comprehensive 3D SR Storage
    "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture Image Storage
    "1.2.840.10008.5.1.4.1.1.104.1",  # Encapsulated PDF Storage
)
# A busy machine stretches what takes less than a second.
START_SECONDS = 300
ANSWER_SECONDS = 900


class OrthancServer:
    """Orthanc on free ports of 127.0.0.1, with what it stores in a folder of its own.

    It can be killed and started again on the same storage.
    """

    def __init__(self, folder: Path, stable_age_seconds: int = 2) -> None:
        program = shutil.which("Orthanc", path="/usr/sbin:/usr/bin:/usr/local/bin")
        if program is None or not (PLUGINS / "libOrthancDicomWeb.so").exists():
            pytest.skip("Orthanc is missing: install orthanc orthanc-dicomweb orthanc-gdcm")
        self.program = program
        self.folder = folder
        self.http_port, self.dicom_port, self.move_port = free_ports(3)
        self.url = f"http://127.0.0.1:{self.http_port}"
        configuration = {
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "HttpPort": self.http_port,
            "DicomPort": self.dicom_port,
            "DicomAet": "ORTHANC",
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "StableAge": stable_age_seconds,
            "Plugins": [str(PLUGINS / f"libOrthanc{name}.so") for name in ("DicomWeb", "Gdcm")],
            "DicomModalities": {"WORKSTATION": ["WORKSTATION", "127.0.0.1", self.move_port]},
        }
        self.configuration = folder / "orthanc.json"
        self.configuration.write_text(json.dumps(configuration))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "OrthancServer":
        with (self.folder / "orthanc.log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.program, str(self.configuration)], stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                requests.get(f"{self.url}/system", timeout=30).raise_for_status()
                return self
            except requests.RequestException:
                log_text = (self.folder / "orthanc.log").read_text(errors="replace")
                assert self.process.poll() is None, log_text
                assert time.monotonic() < deadline, log_text
                time.sleep(0.1)

    def kill(self) -> None:
        """End it as a power failure would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def get(self, path: str) -> Any:
        answer = requests.get(f"{self.url}{path}", timeout=ANSWER_SECONDS)
        answer.raise_for_status()
        return answer.json()

    def c_store(self, files: Sequence[Path]) -> None:
        """Send files as a modality does."""
        entity = _patient(AE("MODALITY"))
        for storage_class in STORAGE_CLASSES:
            entity.add_requested_context(storage_class)
        association = entity.associate("127.0.0.1", self.dicom_port, ae_title="ORTHANC")
        assert association.is_established
        try:
            for file in files:
                status = association.send_c_store(dcmread(file))
                assert status.Status == 0x0000, f"{file}: {status}"
        finally:
            association.release()

    def c_move(self, study_uid: str) -> dict[str, Dataset]:
        """Have a study sent to a workstation of ours; instances by SOP Instance UID."""
        received: dict[str, Dataset] = {}

        def keep(event: evt.Event) -> int:
            dataset = event.dataset
            dataset.file_meta = event.file_meta
            received[dataset.SOPInstanceUID] = dataset
            return 0x0000

        workstation = _patient(AE("WORKSTATION"))
        for storage_class in STORAGE_CLASSES:
            workstation.add_supported_context(storage_class)
        server = workstation.start_server(
            ("127.0.0.1", self.move_port), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)]
        )
        try:
            requester = _patient(AE("WORKSTATION"))
            requester.add_requested_context(StudyRootMove)
            association = requester.associate("127.0.0.1", self.dicom_port, ae_title="ORTHANC")
            assert association.is_established
            query = Dataset()
            query.QueryRetrieveLevel = "STUDY"
            query.StudyInstanceUID = study_uid
            statuses = [s for s, _ in association.send_c_move(query, "WORKSTATION", StudyRootMove)]
            association.release()
            assert statuses[-1].Status == 0x0000, statuses[-1]
            assert statuses[-1].NumberOfFailedSuboperations == 0
        finally:
            server.shutdown()
        return received


def _patient(entity: AE) -> AE:
    """Let an application entity wait for answers."""
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = ANSWER_SECONDS
    return entity


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on, each another one."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        return [free.getsockname()[1] for free in sockets]
    finally:
        for free in sockets:
            free.close()
