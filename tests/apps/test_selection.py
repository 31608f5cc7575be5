"""Which series is taken: rules as MONAI Deploy's selector understands them, and the defaults."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from monai.deploy.core import Fragment
from monai.deploy.operators import DICOMDataLoaderOperator, DICOMSeriesSelectorOperator
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid
from small_study import small_study

from ct_triage.configuration import SeriesChoice
from ct_triage.errors import ConfigurationError, NoSeriesError
from ct_triage.preference import has_sharp_kernel
from ct_triage.selection import Rules
from ct_triage.series import find_every_series, find_series

# Twelve slices of 10 mm, so that the series covers a chest.
SPACING_MM = (10.0, 1.25, 0.8)
DESCRIBED = {
    "thin": {"SliceThickness": "1.5", "SeriesDescription": "Thorax 1.5 B30f"},
    "thick": {"SliceThickness": "5", "SeriesDescription": "Thorax 5.0 B70f"},
    "derived": {"ImageType": ["DERIVED", "SECONDARY", "AXIAL"], "SeriesDescription": "MIP"},
}


def _write(folder: Path, name: str, slices: slice = slice(None), **attributes: Any) -> str:
    """Write a series into a folder of its own and return its UID."""
    uid = generate_uid(entropy_srcs=[name])
    study = small_study(
        spacing_mm=SPACING_MM, **{"SeriesInstanceUID": uid, "SeriesNumber": 1, **attributes}
    )
    (folder / name).mkdir(parents=True)
    files = study.write_source(folder / name)
    for file in set(files) - set(files[slices]):
        file.unlink()
    for file in files[slices]:
        dataset = dcmread(file)
        dataset.SOPInstanceUID = generate_uid(entropy_srcs=[name, file.name])
        dataset.save_as(file)
    return uid


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("study")
    uids = {
        name: _write(folder, name, SeriesNumber=number, **attributes)
        for number, (name, attributes) in enumerate(DESCRIBED.items(), 1)
    }
    return folder, uids


CONDITIONS: list[dict[str, Any]] = [
    {"Modality": "(?i)CT"},
    {"Modality": "MR"},
    {"StudyDescription": "chest", "SeriesDescription": "^thorax"},
    {"SeriesDescription": "B30f$"},
    {"SliceThickness": [1, 2]},
    {"SliceThickness": [2, ">"]},
    {"SliceThickness": [5, "<="]},
    {"SliceThickness": [5, "!="]},
    {"SliceThickness": 5},
    {"SliceThickness": "1\\.5"},
    {"SeriesNumber": [2, 3]},
    {"ImageType": ["PRIMARY", "ORIGINAL", "AXIAL"]},
    {"ImageType": ["AXIAL", "!SECONDARY"]},
    {"ImageType": "!derived"},
    {"ImageType": "SECONDARY"},
    {"ImageOrientationPatient": "Axial"},
    {"ImageOrientationPatient": "coronal"},
    {"ConvolutionKernel": "B30f"},
    {"Modality": "", "SeriesDescription": "Thorax"},
    {},
]


@pytest.mark.parametrize("conditions", CONDITIONS, ids=str)
def test_rules_match_the_series_that_the_sdk_matches(
    conditions: dict[str, Any], study: tuple[Path, dict[str, str]]
) -> None:
    folder, uids = study
    rules = {"selections": [{"name": "any", "conditions": conditions}]}
    fragment = Fragment()
    studies = DICOMDataLoaderOperator(fragment, name="loader").load_data_to_studies(folder)
    selector = DICOMSeriesSelectorOperator(fragment, name="selector")
    theirs = {
        selected.series.SeriesInstanceUID
        for found in selector.filter(rules, studies, all_matched=True)
        for selected in found.selected_series
    }

    ours = Rules.model_validate(rules)
    headers = [dcmread(next((folder / name).glob("*.dcm"))) for name in uids]
    assert {h.SeriesInstanceUID for h in headers if ours.rank(h) is not None} == theirs


def _choice(*conditions: dict[str, Any]) -> SeriesChoice:
    selections = [{"name": str(i), "conditions": c} for i, c in enumerate(conditions)]
    return SeriesChoice.model_validate({"rules": {"selections": selections}})


def test_an_earlier_selection_comes_before_a_better_series(
    study: tuple[Path, dict[str, str]],
) -> None:
    folder, uids = study
    choice = _choice({"SeriesDescription": "MIP"}, {"SeriesDescription": "Thorax"})
    assert find_series(folder, choice).uid == uids["derived"]
    assert find_series(folder).uid == uids["thin"]
    usable, refused = find_every_series(folder, _choice({"SliceThickness": [2, "<"]}))
    assert [series.uid for series in usable] == [uids["thin"]]
    assert {refusal.series_instance_uid for refusal in refused} == {uids["thick"], uids["derived"]}
    assert all("none of the selection rules" in refusal.reason for refusal in refused)


def test_a_rule_that_nothing_matches_says_so_for_each_series(
    study: tuple[Path, dict[str, str]],
) -> None:
    folder, uids = study
    with pytest.raises(NoSeriesError, match="matches none of the selection rules") as caught:
        find_series(folder, _choice({"Modality": "MR"}))
    assert len(caught.value.refusals) == len(uids)


def test_an_expression_that_never_ends_is_stopped_and_named() -> None:
    header = Dataset()
    header.SeriesDescription = "a" * 40 + "!"
    rules = _choice({"SeriesDescription": "(a|aa)+$"}).rules
    started = time.monotonic()
    with pytest.raises(ConfigurationError, match="for SeriesDescription takes over 1 s to match"):
        rules.rank(header)
    assert time.monotonic() - started < 30


def test_the_sdks_own_sample_rules_are_read() -> None:
    from monai.deploy.operators.dicom_series_selector_operator import Sample_Rules_Text

    assert len(Rules.model_validate(json.loads(Sample_Rules_Text)).selections) == 5


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"ConvolutionKernel": "B30f"}, {"ConvolutionKernel": "B70f"}),
        ({"ConvolutionKernel": ["Br40d", "3"]}, {"ConvolutionKernel": ["Bl57d", "3"]}),
        ({"SeriesDescription": "Thorax insp"}, {"SeriesDescription": "Thorax exp"}),
        ({"BodyPartExamined": "CHEST"}, {"BodyPartExamined": "", "StudyDescription": "CT"}),
        ({"ImageType": ["ORIGINAL", "PRIMARY"]}, {"ImageType": ["DERIVED", "SECONDARY"]}),
    ],
    ids=str,
)
def test_defaults(better: dict[str, Any], worse: dict[str, Any], tmp_path: Path) -> None:
    # The better one is written last, so that the order of files cannot have chosen it.
    worse_uid = _write(tmp_path, "a", **worse)
    better_uid = _write(tmp_path, "b", **better)
    usable, _ = find_every_series(tmp_path)
    assert [series.uid for series in usable] == [better_uid, worse_uid]


@pytest.mark.parametrize(
    ("kernel", "sharp"),
    [
        ("B31f", False), ("B60f", True), ("I70f", True), ("Br38", False), ("Bl64", True),
        ("STANDARD", False), ("SOFT", False), ("LUNG", True), ("BONEPLUS", True),
        ("B", False), ("C", False), ("L", True), ("YA", True),
        ("FC08", False), ("FC51", True), ("FC13", False), ("", False),
    ],
)  # fmt: skip
def test_kernels_of_the_vendors(kernel: str, sharp: bool) -> None:
    header = Dataset()
    header.ConvolutionKernel = kernel
    assert has_sharp_kernel(header) is sharp


def test_acquisitions_of_the_same_place_are_told_apart(tmp_path: Path) -> None:
    uid = generate_uid(entropy_srcs=["both"])
    _write(tmp_path, "first", SeriesInstanceUID=uid, AcquisitionNumber=1)
    _write(tmp_path, "second", slice(0, 11), SeriesInstanceUID=uid, AcquisitionNumber=2)
    series = find_series(tmp_path)
    assert (series.part, len(series.files)) == (1, 12)
    assert "told apart by AcquisitionNumber; stack 1 in ascending order" in series.notes[0]
    usable, _ = find_every_series(tmp_path)
    assert [s.folder_name for s in usable] == [f"{uid}-part-{n}" for n in (1, 2)]


def test_acquisitions_of_adjacent_places_stay_together(tmp_path: Path) -> None:
    uid = generate_uid(entropy_srcs=["both"])
    _write(tmp_path, "upper", slice(0, 6), SeriesInstanceUID=uid, AcquisitionNumber=1)
    _write(tmp_path, "lower", slice(6, 12), SeriesInstanceUID=uid, AcquisitionNumber=2)
    series = find_series(tmp_path)
    assert (series.part, len(series.files)) == (None, 12)


@pytest.mark.filterwarnings("ignore:Invalid value:UserWarning")
@pytest.mark.parametrize("uid", ["..", "../elsewhere", "a/b", "x" * 65])
def test_a_uid_that_is_no_safe_name_leads_nowhere_else(uid: str, tmp_path: Path) -> None:
    _write(tmp_path, "series", SeriesInstanceUID=uid)
    name = find_series(tmp_path).folder_name
    assert len(name) == 32
    assert name.isalnum()
