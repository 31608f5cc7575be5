"""Priors are measured as they were, whoever made them, and no prior can harm."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dated_study import CM3, LUNG, foreign_report, foreign_seg, save, study_on
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import DeflatedExplicitVRLittleEndian
from small_study import ORIENTATIONS, SmallStudy, small_study

from ct_triage.followup import LUNGS, TimePoint
from ct_triage.followup_reading import (
    MAX_DEFLATED_BYTES,
    UnusablePriorError,
    prior_class,
    read_header,
    read_time_point,
)

RIGHT, LEFT = Code("24028007", "SCT", "Right"), Code("7771000", "SCT", "Left")
RIGHT_LUNG, LEFT_LUNG = Code("3341006", "SCT", "Right lung"), Code("44029006", "SCT", "Left lung")
GROUND_GLASS = Code("112120", "DCM", "Ground glass opacity")
CONSOLIDATION = Code("95436008", "SCT", "Pulmonary consolidation")
LESION = Code("52988006", "SCT", "Lesion")
LIVER = Code("10200004", "SCT", "Liver")
MM3 = Code("mm3", "UCUM", "cubic millimetre")


def _measure(file: Path) -> TimePoint:
    assert prior_class(file)
    return read_time_point(file, read_header(file))


def _assert_equal(point: TimePoint, study: SmallStudy, lungs: tuple[str, ...] = LUNGS) -> None:
    assert set(point.lungs) == set(lungs)
    for lung in lungs:
        wanted, found = getattr(study.findings, lung), point.lungs[lung]
        assert found.lung_volume_ml == pytest.approx(wanted.lung_volume_ml, abs=1e-3)
        assert found.lesion_volume_ml == pytest.approx(wanted.lesion_volume_ml, abs=1e-3)


@pytest.mark.parametrize("kind", ["seg", "report"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_own_results_are_read_as_they_were_measured(
    orientation: str, kind: str, tmp_path: Path
) -> None:
    study = study_on("20200301", orientation=orientation)
    _assert_equal(_measure(save(getattr(study, kind)(), tmp_path / "prior.dcm")), study)


@pytest.mark.parametrize("kind", ["seg", "report"])
def test_a_healthy_prior_has_no_lesions(kind: str, tmp_path: Path) -> None:
    study = small_study(lesions=False)
    _assert_equal(_measure(save(getattr(study, kind)(), tmp_path / "prior.dcm")), study)


@pytest.mark.parametrize("segmentation_type", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_lungs_that_leave_out_their_lesions_get_them_back(
    segmentation_type: str, tmp_path: Path
) -> None:
    study = study_on("20200301")
    s = study.segments
    seg = foreign_seg(
        study,
        [
            (s.left_lung & ~s.lesion, LUNG, LEFT, None),
            (s.right_lung & ~s.lesion, LUNG, RIGHT, None),
            (s.lesion, LESION, None, LUNG),
        ],
        segmentation_type,
    )
    point = _measure(save(seg, tmp_path / "prior.dcm"))
    _assert_equal(point, study)
    assert "leave out their lesions" in point.notes[0]


def test_lobes_and_kinds_of_opacity_add_up(tmp_path: Path) -> None:
    study = study_on("20200301")
    s = study.segments
    upper = np.zeros_like(s.lesion)
    upper[:6] = True
    seg = foreign_seg(
        study,
        [
            (s.right_lung & upper, Code("45653009", "SCT", "Upper lobe of lung"), RIGHT, None),
            (s.right_lung & ~upper, Code("266005", "SCT", "Right lower lobe"), None, None),
            (s.left_lung, LEFT_LUNG, None, None),
            (s.lesion & upper, GROUND_GLASS, None, LUNG),
            (s.lesion, CONSOLIDATION, None, LUNG),
            (~s.lesion, LESION, None, LIVER),
        ],
    )
    point = _measure(save(seg, tmp_path / "prior.dcm"))
    _assert_equal(point, study)
    numbers = {lung: region.segment_number for lung, region in point.regions.items()}
    assert numbers == {"left_lung": 3}


def test_without_sides_both_lungs_are_compared(tmp_path: Path) -> None:
    study = study_on("20200301")
    lungs = study.segments.right_lung | study.segments.left_lung
    # What leaks out of the lungs is no part of them.
    leaking = study.segments.lesion.copy()
    leaking[4, 14:18, 6] = True
    seg = foreign_seg(study, [(lungs, LUNG, None, None), (leaking, GROUND_GLASS, None, LUNG)])
    point = _measure(save(seg, tmp_path / "prior.dcm"))
    wanted = np.count_nonzero(leaking & lungs) * study.volume.voxel_volume_ml
    assert point.lungs["both_lungs"].lesion_volume_ml == pytest.approx(wanted)
    assert set(point.lungs) == {"both_lungs"}


def test_another_systems_report_is_read(tmp_path: Path) -> None:
    organ = Code("113343008", "SCT", "Organ")
    report = foreign_report(
        study_on("20200301"),
        [
            (RIGHT_LUNG, None, None, 2000.0, CM3),
            (organ, LUNG, LEFT, 1.5e6, MM3),
            (LESION, LUNG, RIGHT, 100.0, CM3),
            (LESION, LUNG, RIGHT, 60.0, CM3),
            (LESION, LUNG, LEFT, 30.0, CM3),
            (LESION, LIVER, None, 900.0, CM3),
            # A part of the lesions above, so it must not count again.
            (GROUND_GLASS, LUNG, LEFT, 20.0, CM3),
        ],
    )
    lungs = _measure(save(report, tmp_path / "prior.dcm")).lungs
    volumes = {
        lung: (found.lung_volume_ml, found.lesion_volume_ml) for lung, found in lungs.items()
    }
    assert volumes == {
        "right_lung": (2000.0, 160.0),
        "left_lung": (1500.0, 30.0),
        "both_lungs": (3500.0, 190.0),
    }


@pytest.mark.parametrize(
    ("groups", "reason"),
    [
        ([(LESION, LUNG, None, 5.0, CM3)], "volume of a lung"),
        ([(LUNG, None, None, 3000.0, CM3)], "volume of lung lesions"),
        ([(LUNG, None, None, 10.0, CM3), (LESION, LUNG, None, 50.0, CM3)], "cannot be those"),
        ([(LUNG, None, None, 1e9, CM3), (LESION, LUNG, None, 50.0, CM3)], "cannot be those"),
        ([(LUNG, None, None, 3000.0, CM3), (LESION, LUNG, None, -5.0, CM3)], "cannot be those"),
        ([(LUNG, None, None, 0.0, CM3), (LESION, LUNG, None, 0.0, CM3)], "empty"),
        (
            [(LUNG, None, None, 30.0, Code("mm", "UCUM", "mm")), (LESION, LUNG, None, 5.0, CM3)],
            "no unit of volume",
        ),
        ([(RIGHT_LUNG, None, None, 3e3, CM3), (LESION, LUNG, RIGHT, 5.0, CM3)], "one lung only"),
    ],
)
def test_a_report_that_does_not_tell_is_refused(
    groups: list[tuple], reason: str, tmp_path: Path
) -> None:
    file = save(foreign_report(study_on("20200301"), groups), tmp_path / "prior.dcm")
    with pytest.raises(UnusablePriorError, match=reason):
        _measure(file)


def _clear_codes(seg: Dataset) -> None:
    for segment in seg.SegmentSequence:
        segment.SegmentedPropertyTypeCodeSequence[0].CodeValue = "12345"


def _no_lesion_segment(seg: Dataset) -> None:
    seg.SegmentSequence = seg.SegmentSequence[:2]


def _huge(seg: Dataset) -> None:
    seg.Rows = seg.Columns = 65535


def _more_frames(seg: Dataset) -> None:
    seg.NumberOfFrames = 19_000


def _no_frames(seg: Dataset) -> None:
    seg.NumberOfFrames = 0
    seg.PerFrameFunctionalGroupsSequence = []


def _far_away(seg: Dataset) -> None:
    for i, frame in enumerate(seg.PerFrameFunctionalGroupsSequence):
        frame.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 1000 * i]


def _cut_pixels(seg: Dataset) -> None:
    seg.PixelData = seg.PixelData[:10]


def _no_segments(seg: Dataset) -> None:
    del seg.SegmentSequence


def _no_date(seg: Dataset) -> None:
    seg.StudyDate = ""


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_clear_codes, "coded as lungs"),
        (_no_lesion_segment, "coded as lung lesions"),
        (_huge, "larger than any chest CT"),
        (_more_frames, "do not match"),
        (_no_frames, ""),
        (_far_away, "geometry"),
        (_cut_pixels, "cannot be read"),
        (_no_segments, "cannot be read"),
        (_no_date, "no study date"),
    ],
)
def test_a_broken_segmentation_is_refused(
    spoil: Callable[[Dataset], None], reason: str, tmp_path: Path
) -> None:
    seg = dcmread(save(study_on("20200301").seg(), tmp_path / "good.dcm"))
    spoil(seg)
    with pytest.raises(UnusablePriorError, match=reason):
        _measure(save(seg, tmp_path / "prior.dcm"))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_random_damage_ends_in_a_refusal_or_in_credible_numbers(tmp_path: Path) -> None:
    random = np.random.default_rng(7)
    study = study_on("20200301")
    for kind in ("seg", "report"):
        good = save(getattr(study, kind)(), tmp_path / f"{kind}.dcm").read_bytes()
        refused = 0
        for trial in range(60):
            damaged = bytearray(good)
            if trial % 3 == 0:
                damaged = damaged[: random.integers(400, len(good))]
            for position in random.integers(132, len(damaged), size=20):
                damaged[position] = random.integers(256)
            file = tmp_path / "damaged.dcm"
            file.write_bytes(damaged)
            if not prior_class(file):
                refused += 1
                continue
            try:
                point = read_time_point(file, read_header(file))
            except UnusablePriorError:
                refused += 1
                continue
            for lung in point.lungs.values():
                assert 0 <= lung.lesion_share_percent <= 100.1
        assert refused


def test_what_would_unpack_beyond_memory_is_not_opened(tmp_path: Path) -> None:
    seg = study_on("20200301").seg()
    seg.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    file = save(seg, tmp_path / "deflated.dcm")
    _assert_equal(_measure(file), study_on("20200301"))
    with file.open("ab") as stream:
        stream.write(bytes(MAX_DEFLATED_BYTES))
    with pytest.raises(UnusablePriorError, match="too large"):
        _measure(file)


def test_what_is_no_prior_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "text.dcm").write_text("not DICOM")
    (tmp_path / "cut.dcm").write_bytes(bytes(128) + b"DICM" + b"\x02\x00")
    assert [prior_class(f) for f in (tmp_path / "text.dcm", tmp_path / "cut.dcm")] == ["", ""]
    for file in study_on("20200301").write_source(tmp_path)[:1]:
        assert prior_class(file) == ""
