"""Find earlier studies of the patient among the objects of a study folder."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

from ct_triage.followup import FollowUp, TimePoint, lungs_of
from ct_triage.followup_reading import (
    SEGMENTATION_CLASSES,
    UnusablePriorError,
    prior_class,
    read_header,
    read_time_point,
    study_moment,
)
from ct_triage.scanning import files_below
from ct_triage.severity import Findings
from ct_triage.volume import Volume

logger = logging.getLogger(__name__)

# Measuring one takes a second; a patient's history beyond these changes nothing in the report.
MAX_PRIORS = 10


@dataclass(frozen=True, slots=True)
class Prior:
    """An object that may tell about an earlier study."""

    file: Path
    header: Dataset


def follow_up_on(folder: Path, volume: Volume, findings: Findings) -> FollowUp:
    """Compare a study with what its folder holds of the patient's earlier ones.

    Whatever is wrong with a prior, it is left out with a note and the study is reported.

    Parameters
    ----------
    folder : Path
        Study folder; DICOM SEG and TID 1500 reports of earlier studies may lie anywhere below.
    volume : Volume
        The study at hand.
    findings : Findings
        What was measured in it.
    """
    current = volume.headers[0]
    refused: Counter[str] = Counter()
    usable: list[Prior] = []
    # The search for the study's own images tells of folders that cannot be read.
    for file in candidates(folder, lambda _: None):
        try:
            prior = Prior(file, read_header(file))
            if prior.header.StudyInstanceUID == current.get("StudyInstanceUID"):
                # What an earlier run made of this very study.
                continue
            _require_earlier_study_of_the_patient(prior.header, current)
        except UnusablePriorError as error:
            _refuse(file, str(error), refused)
        else:
            usable.append(prior)
    points: list[TimePoint] = []
    for priors in newest_studies_first(usable):
        if len(points) == MAX_PRIORS:
            refused[f"only the {MAX_PRIORS} latest studies are compared"] += len(priors)
            continue
        point, failures = measure_study(priors)
        for file, reason in failures:
            _refuse(file, reason, refused)
        if point is not None:
            points.append(point)
    notes = tuple(f"{n} prior object(s) left out: {reason}" for reason, n in refused.items())
    if not points:
        return FollowUp(notes=notes)
    points.reverse()
    own = TimePoint(study_moment(current), str(current.StudyInstanceUID), lungs_of(findings))
    return FollowUp((*points, own), (*notes, *notes_of(points)))


def candidates(folder: Path, on_closed: Callable[[OSError], None]) -> Iterator[Path]:
    """Files below a folder that are DICOM segmentations or reports; see `files_below`."""
    return filter(prior_class, files_below(folder, on_closed))


def newest_studies_first(priors: Iterable[Prior]) -> list[list[Prior]]:
    """Group objects by their study; within one, the first to try comes first.

    A segmentation is measured here in the same way for every system, so it comes before a report;
    of two, the one made last comes first.
    """
    studies: dict[str, list[Prior]] = {}
    for prior in priors:
        studies.setdefault(str(prior.header.StudyInstanceUID), []).append(prior)

    def preference(prior: Prior) -> tuple[bool, str, str, str]:
        header = prior.header
        made = [str(header.get(f"Content{kind}") or "") for kind in ("Date", "Time")]
        segmentation = header.SOPClassUID in SEGMENTATION_CLASSES
        return segmentation, made[0], made[1], str(header.SOPInstanceUID)

    for study in studies.values():
        study.sort(key=preference, reverse=True)
    return sorted(studies.values(), key=lambda study: study_moment(study[0].header), reverse=True)


def measure_study(priors: list[Prior]) -> tuple[TimePoint | None, list[tuple[Path, str]]]:
    """Measure the first usable object of a study; also return why others before it were not."""
    failures: list[tuple[Path, str]] = []
    for prior in priors:
        try:
            return read_time_point(prior.file, prior.header), failures
        except UnusablePriorError as error:
            failures.append((prior.file, str(error)))
    return None, failures


def notes_of(points: Iterable[TimePoint]) -> list[str]:
    """Return what was assumed while measuring priors, each once."""
    return list(dict.fromkeys(note for point in points for note in point.notes))


def same_patient(first: Dataset, second: Dataset) -> bool:
    """Tell whether two objects are of one patient: equal ID, and nothing that contradicts it."""
    if not first.get("PatientID") or first.PatientID != second.get("PatientID"):
        return False
    for keyword in ("IssuerOfPatientID", "PatientBirthDate"):
        one, other = str(first.get(keyword) or ""), str(second.get(keyword) or "")
        if one and other and one != other:
            return False
    return True


def _require_earlier_study_of_the_patient(header: Dataset, current: Dataset) -> None:
    if not current.get("PatientID"):
        raise UnusablePriorError("the study has no Patient ID to find its priors by")
    if not same_patient(header, current):
        raise UnusablePriorError("another patient's")
    try:
        date = study_moment(current).date()
    except UnusablePriorError:
        raise UnusablePriorError("the study has no date to compare a prior's with") from None
    if study_moment(header).date() >= date:
        raise UnusablePriorError("not of an earlier date than the study")


def _refuse(file: Path, reason: str, refused: Counter[str]) -> None:
    logger.warning("%s: left out as a prior, %s", file, reason)
    refused[reason] += 1
