"""The picture of the findings: what is drawn where, and its DICOM object."""

import io

import numpy as np
import pytest
from small_study import small_study
from validators import dciodvfy_errors

from ct_triage.picture import PANEL_PIXELS, build_picture, draw_picture
from ct_triage.seg import SEGMENT_KINDS
from ct_triage.volume import Volume

SHAPE = (60, 80, 100)


@pytest.fixture
def volume() -> Volume:
    affine = np.eye(4)
    affine[:3, :3] = np.fliplr(np.diag((2.0, 2.0, 2.0)))
    return Volume(np.full(SHAPE, -1250, np.int16), affine, ())


@pytest.fixture
def masks() -> dict[int, np.ndarray]:
    masks = {number: np.zeros(SHAPE, bool) for number in (1, 2, 3)}
    masks[1][20:40, 20:60, 20:45] = True
    masks[2][20:40, 20:60, 55:80] = True
    # To the patient's left, back and head.
    masks[3][32:40, 45:55, 60:75] = True
    return masks


def _centre(panel: np.ndarray, rgb: tuple[int, int, int]) -> np.ndarray:
    """Row and column of what has a colour's hue in a panel whose CT is black."""
    share = panel.astype(float) / np.maximum(1, panel.sum(axis=2, keepdims=True))
    hue = np.array(rgb) / sum(rgb)
    return np.argwhere((panel.sum(axis=2) > 0) & (abs(share - hue) < 0.02).all(axis=2)).mean(0)


def test_the_segments_are_drawn_where_they_are(
    volume: Volume, masks: dict[int, np.ndarray]
) -> None:
    picture = draw_picture(volume, masks, n_axial=2)
    assert picture.shape == (2 * PANEL_PIXELS, 3 * PANEL_PIXELS, 3)
    assert not picture[:PANEL_PIXELS].any()
    # Slices 33 and 27: rows 7 to 73 and columns 7 to 93 are shown, in the middle of a panel.
    scale = PANEL_PIXELS / 86
    top = (PANEL_PIXELS - 66 * scale) / 2
    colours = [kind.rgb for kind in SEGMENT_KINDS]
    upper, lower, coronal = np.split(picture[PANEL_PIXELS:], 3, axis=1)
    expected = top + (50 - 7) * scale, (67.5 - 7) * scale
    assert np.allclose(_centre(upper, colours[2]), expected, atol=2)
    assert np.isnan(_centre(lower, colours[2])).all()
    expected = top + (40 - 7) * scale, (32.5 - 7) * scale
    assert np.allclose(_centre(lower, colours[0]), expected, atol=2)
    # The head is above: slices 7 to 53 from below.
    top = (PANEL_PIXELS - 46 * scale) / 2
    expected = top + (53 - 36) * scale, (67.5 - 7) * scale
    assert np.allclose(_centre(coronal, colours[2]), expected, atol=2)


def test_without_lesions_only_the_lungs_are_coloured(
    volume: Volume, masks: dict[int, np.ndarray]
) -> None:
    masks[3][:] = False
    picture = draw_picture(volume, masks)
    assert np.isnan(_centre(picture, SEGMENT_KINDS[2].rgb)).all()
    assert not np.isnan(_centre(picture, SEGMENT_KINDS[0].rgb)).any()


@pytest.mark.parametrize("orientation", ["head first supine", "feet first prone", "oblique"])
def test_it_is_a_valid_object_of_its_study(
    orientation: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    study = small_study(orientation)
    picture = build_picture(study.volume, study.segments, study.origin)
    file = tmp_path_factory.mktemp("picture") / "picture.dcm"
    picture.save_as(file)
    assert dciodvfy_errors(file) == []
    header = study.volume.headers[0]
    for keyword in ("StudyInstanceUID", "PatientID", "PatientAge", "StudyDescription"):
        assert picture[keyword].value == header[keyword].value
    assert picture.BodyPartExamined == "CHEST"
    assert picture.BurnedInAnnotation == "NO"
    assert picture.ConversionType == "WSD"
    assert "not for clinical use" in picture.SeriesDescription
    others = {study.seg().SeriesInstanceUID, study.report().SeriesInstanceUID}
    assert picture.SeriesInstanceUID not in {*others, header.SeriesInstanceUID}


def test_a_second_run_gives_the_same_bytes() -> None:
    study = small_study()
    written = []
    for _ in range(2):
        written.append(io.BytesIO())
        build_picture(study.volume, study.segments, study.origin).save_as(written[-1])
    assert written[0].getvalue() == written[1].getvalue()
