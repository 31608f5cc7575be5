"""Gather the studies of a patient from result folders and from single DICOM objects."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from pydicom import dcmread
from pydicom.dataset import Dataset

from ct_triage.followup import FollowUp
from ct_triage.followup_priors import (
    Prior,
    candidates,
    measure_study,
    newest_studies_first,
    notes_of,
    same_patient,
)
from ct_triage.followup_reading import UnusablePriorError, prior_class, read_header, study_moment


class FollowUpError(Exception):
    """What is given cannot be compared; one line that names the file and what to do."""


@dataclass(frozen=True, slots=True)
class StudySeries:
    """Studies of one patient.

    Attributes
    ----------
    follow_up : FollowUp
        The studies in the order of their dates, and the changes between them.
    latest : Dataset
        The object that the last study was measured in, without pixels.
    """

    follow_up: FollowUp
    latest: Dataset


def read_studies(paths: Sequence[Path]) -> StudySeries:
    """Read and measure every study that the paths hold.

    Parameters
    ----------
    paths : sequence of Path
        DICOM segmentations and TID 1500 reports, or folders that hold them at any depth.

    Raises
    ------
    FollowUpError
        If a path holds nothing to measure, a study cannot be measured, the objects are of
        different patients, or there are fewer than two studies.
    """
    found = [prior for path in paths for prior in _priors(path)]
    _require_one_patient(found)
    studies = newest_studies_first(found)
    points, files, notes = [], [], []
    for study in reversed(studies):
        point, failures = measure_study(study)
        if point is None:
            told = "; ".join(f"{file}: {reason}" for file, reason in failures)
            raise FollowUpError(f"a study cannot be measured: {told}; give another object of it")
        notes += [f"an object was left out: {reason}" for _, reason in failures]
        points.append(point)
        files.append(study[len(failures)].file)
    if len(points) < 2:
        raise FollowUpError(
            f"{', '.join(map(str, paths))}: one study only; give the results of two or more"
        )
    follow_up = FollowUp(tuple(points), (*notes, *notes_of(points)))
    return StudySeries(follow_up, dcmread(files[-1], stop_before_pixels=True))


def _priors(path: Path) -> list[Prior]:
    if not path.exists():
        raise FollowUpError(f"{path}: does not exist")
    files = list(candidates(path, _refuse_closed)) if path.is_dir() else [path]
    if not files:
        raise FollowUpError(
            f"{path}: holds no DICOM SEG or structured report; give a result folder"
        )
    priors = []
    for file in files:
        if not prior_class(file):
            raise FollowUpError(f"{file}: neither a DICOM SEG nor a structured report")
        try:
            header = read_header(file)
            study_moment(header)
        except UnusablePriorError as error:
            raise FollowUpError(f"{file}: {error}; export it again") from error
        priors.append(Prior(file, header))
    return priors


def _refuse_closed(error: OSError) -> NoReturn:
    raise FollowUpError(f"{error.filename}: cannot be read ({error.strerror}); allow reading it")


def _require_one_patient(priors: Sequence[Prior]) -> None:
    first = priors[0]
    for prior in priors:
        if not prior.header.get("PatientID"):
            raise FollowUpError(
                f"{prior.file}: has no Patient ID, so whose study it is cannot be told"
            )
        if not same_patient(first.header, prior.header):
            raise FollowUpError(
                f"{first.file} and {prior.file} are of different patients (Patient ID, its issuer"
                " or birth date); give the studies of one"
            )
