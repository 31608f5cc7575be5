"""One mask, stored in many ways, is read as the same voxels."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from small_study import SmallStudy, small_study
from validators import dcmqi_segmentation

from ct_triage.followup_reading import read_header, read_time_point
from tools.evaluate.masks import EvaluationError, MaskFile, on_common_grid, read_mask

# Structure and side of the segments of a label map, from label 1 on.
DCMQI_SEGMENTS = [
    (("39607008", "Lung"), ("24028007", "Right")),
    (("39607008", "Lung"), ("7771000", "Left")),
    (("233604007", "Pneumonia"), None),
]
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write_nifti(path: Path, study: SmallStudy, mask: np.ndarray, axcodes: str = "LPS") -> MaskFile:
    """Write a mask of a study, its axes turned to `axcodes`."""
    affine = LPS_TO_RAS @ study.volume.affine[:, [2, 1, 0, 3]]
    image = nibabel.Nifti1Image(mask.transpose(2, 1, 0).astype(np.uint8), affine)
    wanted = nibabel.orientations.axcodes2ornt(axcodes)
    turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(affine), wanted)
    nibabel.save(image.as_reoriented(turn), path)
    return MaskFile(path)


@pytest.fixture(params=["head first supine", "feet first prone", "slices downwards", "oblique"])
def study(request: pytest.FixtureRequest) -> SmallStudy:
    return small_study(request.param)


@pytest.mark.parametrize("segment", ["lesion", "lung", "right lung", "left lung"])
def test_seg_and_nifti_of_any_orientation_agree(
    study: SmallStudy, segment: str, tmp_path: Path
) -> None:
    right, left, lesion = (study.masks[number] for number in (1, 2, 3))
    mask = {"lesion": lesion, "lung": right | left, "right lung": right, "left lung": left}[segment]
    study.seg().save_as(tmp_path / "seg.dcm")
    sources = [
        MaskFile(tmp_path / "seg.dcm"),
        write_nifti(tmp_path / "a.nii.gz", study, mask),
        write_nifti(tmp_path / "b.nii", study, mask, "RSA"),
    ]
    placed = on_common_grid([read_mask(source, segment) for source in sources], sources)
    arrays = [volume.array for volume in placed]
    assert np.count_nonzero(arrays[0]) == np.count_nonzero(mask)
    np.testing.assert_array_equal(arrays[0], arrays[1])
    np.testing.assert_array_equal(arrays[0], arrays[2])


def test_two_segs_are_filled_up_to_what_they_cover_together(tmp_path: Path) -> None:
    both, one = small_study(), small_study(right_lung=False, lesions=False)
    both.seg().save_as(tmp_path / "both.dcm")
    one.seg().save_as(tmp_path / "one.dcm")
    sources = [MaskFile(tmp_path / "one.dcm"), MaskFile(tmp_path / "both.dcm")]
    lungs = [v.array for v in on_common_grid([read_mask(s, "lung") for s in sources], sources)]
    assert lungs[0].shape == lungs[1].shape
    assert np.count_nonzero(lungs[1]) == np.count_nonzero(both.masks[1] | both.masks[2])
    np.testing.assert_array_equal(lungs[0] & lungs[1], lungs[0])
    lesions = on_common_grid([read_mask(s, "lesion") for s in sources], sources)
    assert not lesions[0].array.any()
    assert np.count_nonzero(lesions[1].array) == np.count_nonzero(both.masks[3])


def test_parts_are_chosen_by_value_or_label(tmp_path: Path) -> None:
    study = small_study()
    labels = study.masks[1] + 2 * study.masks[2].astype(np.uint8)
    file = write_nifti(tmp_path / "labels.nii.gz", study, labels).file
    assert np.count_nonzero(read_mask(MaskFile(file, "2")).array) == study.masks[2].sum()
    study.seg().save_as(tmp_path / "seg.dcm")
    left = read_mask(MaskFile.parse("seg.dcm#left lung", tmp_path))
    assert np.count_nonzero(left.array) == study.masks[2].sum()
    with pytest.raises(EvaluationError, match=r"labels\.nii\.gz: label is not binary.*0, 1, 2"):
        read_mask(MaskFile(file))
    with pytest.raises(EvaluationError, match="no segment 'heart' among 'right lung'"):
        read_mask(MaskFile(tmp_path / "seg.dcm", "heart"))


def test_other_grids_are_refused_by_name(tmp_path: Path) -> None:
    study, other = small_study(), small_study(spacing_mm=(5.0, 1.25, 0.9))
    sources = [
        write_nifti(tmp_path / "truth.nii.gz", study, study.masks[3]),
        write_nifti(tmp_path / "other.nii.gz", other, other.masks[3]),
    ]
    with pytest.raises(EvaluationError, match=r"other\.nii\.gz: geometry differs from .*truth"):
        on_common_grid([read_mask(source) for source in sources], sources)
    sources[1] = write_nifti(tmp_path / "short.nii.gz", study, study.masks[3][:-1])
    with pytest.raises(EvaluationError, match=r"short\.nii\.gz: geometry differs"):
        on_common_grid([read_mask(source) for source in sources], sources)


def test_another_spacing_is_refused_though_the_shape_agrees(tmp_path: Path) -> None:
    sources = []
    for name, pixel_mm in (("truth.nii.gz", 2.0), ("fine.nii.gz", 1.0)):
        affine = np.diag([-pixel_mm, -pixel_mm, 5.0, 1.0])
        file = tmp_path / name
        nibabel.save(nibabel.Nifti1Image(np.ones((8, 8, 4), np.uint8), affine), file)
        sources.append(MaskFile(file))
    with pytest.raises(EvaluationError, match=r"fine\.nii\.gz: geometry differs from .*truth"):
        on_common_grid([read_mask(source) for source in sources], sources)


@pytest.mark.parametrize("name", ["noise.nii.gz", "noise.dcm"])
def test_what_is_no_mask_is_refused_by_name(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"no mask at all" * 20)
    with pytest.raises(EvaluationError, match=f"{name}: cannot be read"):
        read_mask(MaskFile(tmp_path / name))


def test_a_segmentation_by_dcmqi_is_read_as_the_same_voxels(tmp_path: Path) -> None:
    study = small_study()
    right, left, lesion = (study.masks[number] for number in (1, 2, 3))
    # One label map: dcmqi takes a voxel for one segment only.
    labels = np.where(lesion, 3, np.where(right, 1, 2 * left))
    file = write_nifti(tmp_path / "labels.nii.gz", study, labels).file
    (tmp_path / "ct").mkdir()
    study.write_source(tmp_path / "ct")
    seg = dcmqi_segmentation(file, tmp_path / "ct", DCMQI_SEGMENTS, tmp_path)
    wanted = {"right lung": labels == 1, "left lung": labels == 2, "lesion": labels == 3}
    for segment, mask in wanted.items():
        truth = write_nifti(tmp_path / "truth.nii.gz", study, mask)
        sources = [truth, MaskFile(seg)]
        placed = on_common_grid([read_mask(source, segment) for source in sources], sources)
        assert np.count_nonzero(mask)
        np.testing.assert_array_equal(placed[0].array, placed[1].array)
    # As a prior of a follow-up: its lungs leave out their lesions, which is found and told.
    point = read_time_point(seg, read_header(seg))
    assert point.notes
    for lung, own in (("right_lung", right), ("left_lung", left)):
        volume_ml = np.count_nonzero(own) * study.volume.voxel_volume_ml
        assert point.lungs[lung].lung_volume_ml == pytest.approx(volume_ml, rel=1e-3)
