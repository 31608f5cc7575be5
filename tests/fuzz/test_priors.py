"""Damaged segmentations and reports of earlier studies: measured, or left out with a reason."""

import io
import signal
import sys
import tempfile
from pathlib import Path

import pytest
from damage import HANG_SECONDS, edits, spots, with_edits, with_spots
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from ct_triage.codes import PrivateCodes
from ct_triage.configuration import Configuration
from ct_triage.followup import LUNGS, FollowUp, TimePoint, follow_up_numbers, lungs_of
from ct_triage.followup_priors import candidates
from ct_triage.followup_reading import (
    UnusablePriorError,
    read_header,
    read_time_point,
    study_moment,
)
from ct_triage.followup_report import evidence_of, prior_groups

sys.path.insert(0, str(Path(__file__).parents[1] / "apps"))
from dated_study import study_on

pytestmark = pytest.mark.filterwarnings("ignore")
CURRENT = study_on("20200401")
PRIVATE = PrivateCodes(Configuration().private_scheme)


def _stored(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def segmentation() -> bytes:
    return _stored(study_on("20200301", 7).seg())


@pytest.fixture(scope="module")
def report() -> bytes:
    return _stored(study_on("20200301", 7).report())


def _measure(content: bytes) -> None:
    """Take a file for a prior as the application does, up to what a report says of it."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "prior.dcm").write_bytes(content)
        signal.alarm(HANG_SECONDS)
        try:
            for file in candidates(Path(folder), lambda _: None):
                try:
                    point = read_time_point(file, read_header(file))
                except UnusablePriorError:
                    continue
                header = CURRENT.volume.headers[0]
                own = TimePoint(
                    study_moment(header), str(header.StudyInstanceUID), lungs_of(CURRENT.findings)
                )
                follow_up = FollowUp((point, own))
                numbers = follow_up_numbers(follow_up)
                assert all(numbers["time_points"][1][lung] for lung in LUNGS)
                alike, apart = prior_groups(follow_up, PRIVATE, tied=True)
                assert len(alike) + len(apart) == len(point.lungs)
                assert evidence_of(point)
        finally:
            signal.alarm(0)


@given(changes=st.lists(edits, max_size=4), damage=st.lists(spots, max_size=3))
def test_segmentations(segmentation: bytes, changes: list[tuple], damage: list[tuple]) -> None:
    _measure(with_spots(with_edits(segmentation, changes), damage))


@given(changes=st.lists(edits, max_size=4), damage=st.lists(spots, max_size=3))
def test_reports(report: bytes, changes: list[tuple], damage: list[tuple]) -> None:
    _measure(with_spots(with_edits(report, changes), damage))
