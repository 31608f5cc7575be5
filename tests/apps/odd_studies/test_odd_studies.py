"""Every odd study is read right or refused clearly, and nothing is repaired in silence."""

import json
import logging
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from corpus import NAMES, STUDIES, EnhancedCTImageStorage, Odd, files_of, set_all, to_multi_frame
from oracle import AIR_HU, BODY_HU, LUNG_HU
from pydicom import dcmread
from series_edits import assert_is_phantom, other_uid
from small_study import ORIGIN

from ct_triage.errors import NoSeriesError, TriageError
from ct_triage.pipeline import Pipeline
from ct_triage.provenance import derive_uid
from ct_triage.reading import read_volume
from ct_triage.review import review_lungs
from ct_triage.seg import build_seg
from ct_triage.series import find_every_series, find_series
from ct_triage.severity import Segments
from ct_triage.volume import Volume
from tools.phantom import Phantom

# DICOM libraries warn of the oddities.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


SLOW = ("a_hundred_thousand_unrelated_files",)


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(odd, id=name, marks=[pytest.mark.slow] if name in SLOW else [])
        for name, odd in STUDIES.items()
    ],
)
def test_odd_study(
    odd: Odd, study: Path, covid_phantom: Phantom, caplog: pytest.LogCaptureFixture
) -> None:
    odd.make(study)
    caplog.set_level(logging.INFO)
    if odd.exit_code:
        with pytest.raises(TriageError) as refusal:
            read_volume(find_series(study))
        assert refusal.value.exit_code == odd.exit_code
        assert re.search(odd.reason, str(refusal.value))
        assert "\n" not in str(refusal.value)
        return
    volume = read_volume(find_series(study))
    assert_is_phantom(volume, covid_phantom, odd.tolerance_hu)
    for note, pattern in zip(volume.notes, odd.notes, strict=True):
        assert re.search(pattern, note)
        assert note in caplog.messages


@pytest.mark.parametrize("name", ["two_kernels", "no_frame_of_reference"])
def test_notes_stand_in_report_and_json(name: str, study: Path, oracle_models: Path) -> None:
    STUDIES[name].make(study)
    Pipeline(study, study / "out", oracle_models).run()
    notes = json.loads((study / "out" / "result.json").read_text())["notes"]
    report = dcmread(study / "out" / "sr.dcm")
    texts = [element.value for element in report.iterall() if element.keyword == "TextValue"]
    for note, pattern in zip(notes, STUDIES[name].notes, strict=True):
        assert re.search(pattern, note)
        assert note in texts


def test_a_multi_frame_study_gives_the_findings_of_its_slices(
    study: Path, pristine: Path, oracle_models: Path, tmp_path: Path
) -> None:
    order = np.random.default_rng(2).permutation(32).tolist()
    positions = [dcmread(files_of(study)[i]).ImagePositionPatient for i in order]
    to_multi_frame(study, EnhancedCTImageStorage, order)
    for source, out in ((pristine, "slices"), (study, "frames")):
        Pipeline(source, tmp_path / out, oracle_models).run()
    slices, frames = (
        json.loads((tmp_path / out / "result.json").read_text()) for out in ("slices", "frames")
    )
    assert frames["findings"] == slices["findings"]
    seg = dcmread(tmp_path / "frames" / "seg.dcm")
    for groups in seg.PerFrameFunctionalGroupsSequence:
        source = groups.DerivationImageSequence[0].SourceImageSequence[0]
        there = positions[source.ReferencedFrameNumber - 1]
        assert np.allclose(groups.PlanePositionSequence[0].ImagePositionPatient, there)


def test_multi_frame_instances_of_one_series_are_parts(study: Path) -> None:
    to_multi_frame(study, EnhancedCTImageStorage, list(range(32)))
    (file,) = files_of(study)
    second = dcmread(file)
    second.SOPInstanceUID = other_uid(second.SOPInstanceUID)
    second.save_as(file.with_name("second.dcm"))
    usable, refusals = find_every_series(study)
    assert refusals == ()
    assert sorted(s.folder_name for s in usable) == [
        f"{second.SeriesInstanceUID}-part-{n}" for n in (1, 2)
    ]


def test_stacks_of_one_instance_have_results_of_their_own(study: Path) -> None:
    to_multi_frame(study, EnhancedCTImageStorage, list(range(32)))
    volume = read_volume(find_series(study))
    other = replace(volume, frames=tuple(frame + 32 for frame in volume.frames))
    assert derive_uid("SEG", volume, ORIGIN) != derive_uid("SEG", other, ORIGIN)


@pytest.mark.parametrize(("charset", "name"), NAMES.values(), ids=NAMES)
def test_names_in_any_character_set_reach_the_results(
    charset: str | list[str], name: str, study: Path, caplog: pytest.LogCaptureFixture
) -> None:
    set_all(study, SpecificCharacterSet=charset, PatientName=name)
    volume = read_volume(find_series(study))
    lungs = volume.voxels == LUNG_HU
    seg = build_seg(volume, Segments(lungs, ~lungs, lungs), ORIGIN)
    seg.save_as(study / "seg.dcm")
    source = dcmread(files_of(study)[0])
    result = dcmread(study / "seg.dcm")
    assert result.PatientName == source.PatientName
    assert result.SpecificCharacterSet == source.SpecificCharacterSet
    assert not [text for text in caplog.messages if name.split("^")[0] in text]


def _volume(n_slices: int, lung_slices: slice) -> tuple[Volume, np.ndarray]:
    affine = np.eye(4)
    affine[:3, :3] = np.fliplr(np.diag([2.0, 2.0, 5.0]))
    voxels = np.full((n_slices, 60, 60), BODY_HU, np.int16)
    voxels[:, :4] = AIR_HU
    lungs = np.zeros(voxels.shape, dtype=bool)
    lungs[lung_slices, 10:50, 10:50] = True
    return Volume(voxels, affine, ({},)), lungs


def test_a_chest_that_is_cut_off_is_said() -> None:
    volume, lungs = _volume(20, slice(0, 15))
    notes = review_lungs(volume, lungs, lungs).notes
    assert [note for note in notes if "cut off at the lowest slice" in note]
    assert not [note for note in notes if "uppermost" in note]
    volume, lungs = _volume(20, slice(3, 15))
    assert review_lungs(volume, lungs, lungs).notes == ()
    assert review_lungs(volume, lungs, np.zeros_like(lungs)).notes == ("no left lung was found",)


def test_no_lungs_are_no_healthy_patient() -> None:
    volume, lungs = _volume(20, slice(0, 0))
    with pytest.raises(NoSeriesError, match="0 ml of lung were found") as caught:
        review_lungs(volume, lungs, lungs)
    assert [refusal.reason for refusal in caught.value.refusals] == [str(caught.value)]
