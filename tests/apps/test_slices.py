"""Classification of slices: as the bundle does it, and what the results say of it."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import ResizeWithPadOrCrop
from oracle import write_oracle_bundle
from pydicom import dcmread
from scipy.special import expit

from ct_triage.configuration import Configuration
from ct_triage.errors import ModelError
from ct_triage.network import AxialView
from ct_triage.pipeline import Pipeline
from ct_triage.slices import (
    CLASSES,
    SPEAKING_SHARE,
    SliceClassifier,
    _cut_or_padded,
    study_probabilities,
)
from ct_triage.volume import Volume
from tools.phantom import Phantom, write_dicom_series

BUNDLE = Path(__file__).parents[2] / "bundles" / "mask_rcnn_classifier"


@pytest.mark.parametrize("size", [(150, 200), (161, 191), (160, 192), (171, 180)])
def test_slices_are_cut_as_the_bundle_cuts_them(size: tuple[int, int]) -> None:
    image = torch.rand(2, 1, *size)
    expected = torch.stack([ResizeWithPadOrCrop((160, 192))(one).as_tensor() for one in image])
    assert torch.equal(_cut_or_padded(image, (160, 192)), expected)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the bundle with random weights."""
    from tools.bundles.release import release

    folder = tmp_path_factory.mktemp("slices")
    ignored = shutil.ignore_patterns("models", "__pycache__")
    bundle = shutil.copytree(BUNDLE, folder / BUNDLE.name, ignore=ignored)
    torch.manual_seed(0)
    torch.save(_network(bundle).state_dict(), folder / "trained.pt")
    release(bundle, folder / "trained.pt")
    return bundle


def _network(bundle: Path) -> torch.nn.Module:
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    parser["bundle_root"] = str(bundle)
    return parser.get_parsed_content("network_def").eval()


def test_the_bundle_gives_what_its_own_code_gives(untrained: Path) -> None:
    network = _network(untrained)
    network.load_state_dict(torch.load(untrained / "models" / "model.pt", weights_only=True))
    bundle_package = sys.modules["mask_rcnn_classifier"]
    assert bundle_package.CLASSES == CLASSES
    assert bundle_package.aggregate_slices.__defaults__ == (SPEAKING_SHARE,)

    torch.manual_seed(0)
    shape = (5, 160, 192)
    voxels = torch.randint(-1000, 200, shape).numpy().astype(np.int16)
    affine = np.fliplr(np.diag((2.0, 2.0, 5.0)))
    volume = Volume(voxels, np.block([[affine, np.zeros((3, 1))], [np.eye(4)[3:]]]), ())
    lungs = np.zeros(shape, dtype=bool)
    lungs[1:4, 50, 60] = True
    classifier = SliceClassifier.load(untrained)
    found = classifier.probabilities(volume, lungs)

    view = AxialView.of(volume)
    config = json.loads((untrained / "configs" / "inference.json").read_text())
    low, high = config["hu_window"]
    unit = torch.from_numpy((view.voxels.astype(np.float32) - low) / (high - low))
    # Each with the slice 5 mm below and the one 5 mm above.
    image = torch.stack([unit[middle - 1 : middle + 2] for middle in (1, 2, 3)])
    with torch.inference_mode():
        logits = bundle_package.smooth_along_slices(network(image), 5, config["smooth_slices_mm"])
    expected = expit(logits)
    difference = np.abs(found - expected)
    # Untrained, it ranks hundreds of boxes of nearly the same score: rounding swaps some.
    assert np.median(difference) < 1e-5
    assert difference.max() < 0.005
    category, mean = bundle_package.aggregate_slices(found)
    classes = classifier.classify(volume, lungs)
    assert classes.category == CLASSES[category]
    assert np.allclose(list(classes.probabilities.values()), mean)
    assert sum(classes.slices.values()) == 3


@pytest.mark.parametrize("n_slices", [1, 3, 12, 100])
def test_the_slices_least_like_a_control_speak_for_the_study(n_slices: int) -> None:
    probabilities = np.zeros((n_slices, 3), np.float32)
    probabilities[:, 2] = 1
    speaking = max(1, round(SPEAKING_SHARE * n_slices))
    probabilities[:speaking] = (0.75, 0.25, 0.5)
    assert study_probabilities(probabilities).tolist() == [0.75, 0.25, 0.5]


def test_the_class_is_in_every_result(
    covid_phantom: Phantom, oracle_models: Path, tmp_path: Path
) -> None:
    write_dicom_series(covid_phantom, tmp_path / "study")
    configuration = Configuration(slice_classification=True)
    run = Pipeline(tmp_path / "study", tmp_path / "out", oracle_models, configuration).run()
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    classes = result["findings"]["slice_classification"]
    # The oracle counts opaque pixels.
    assert classes["class"] == "COVID-19"
    lungs = covid_phantom.right_lung | covid_phantom.left_lung
    assert sum(classes["slices"].values()) == np.count_nonzero(lungs.any(axis=(1, 2)))
    assert classes["slices"]["COVID-19"] > 0
    assert classes["slices"]["control"] > 0
    assert result["models"][2]["name"] == "oracle mask_rcnn_classifier"

    (group,) = [g for g in _groups(run["report"]) if _value(g, "STUDY_CLASS")]
    assert _value(group, "STUDY_CLASS").ConceptCodeSequence[0].CodeValue == "840539006"
    percent = classes["probabilities_percent"]
    for code, name in (("P_COVID19", CLASSES[0]), ("P_PNEUMONIA", CLASSES[1])):
        measured = _value(group, code).MeasuredValueSequence[0]
        assert float(measured.NumericValue) == percent[name]
        assert measured.MeasurementUnitsCodeSequence[0].CodeValue == "%"
    algorithm = {item.TextValue for item in group.ContentSequence if item.ValueType == "TEXT"}
    assert "oracle mask_rcnn_classifier" in algorithm
    assert f"weights_sha256={result['models'][2]['sha256']}" in algorithm
    versions = dcmread(tmp_path / "out" / "sr.dcm").SoftwareVersions
    names = ("lesion_segmentation_2d", "multitask_triage", "mask_rcnn_classifier")
    assert versions[2:] == [f"oracle {name} 1.2.3" for name in names]
    fhir = (tmp_path / "out" / "result.fhir.json").read_text()
    assert "STUDY_CLASS" in fhir


def _groups(report: Any) -> list[Any]:
    (measurements,) = [
        item
        for item in report.ContentSequence
        if item.ConceptNameCodeSequence[0].CodeValue == "126010"
    ]
    return list(measurements.ContentSequence)


def _value(group: Any, code: str) -> Any:
    for item in group.ContentSequence:
        if item.ConceptNameCodeSequence[0].CodeValue == code:
            return item
    return None


def test_a_bundle_that_tells_other_classes_is_refused(
    covid_phantom: Phantom, oracle_models: Path, tmp_path: Path
) -> None:
    write_dicom_series(covid_phantom, tmp_path / "study")
    configuration = Configuration.model_validate(
        {"slice_classification": True, "models": {"slices": "another"}}
    )
    models = shutil.copytree(oracle_models, tmp_path / "models")
    write_oracle_bundle(models / "another", 0.0, config={**SLICES, "slice_size": [96, 96]})
    with pytest.raises(ModelError, match="does not return 3 logits a slice"):
        Pipeline(tmp_path / "study", tmp_path / "out", models, configuration).run()
    assert not (tmp_path / "out").exists()


SLICES = {"spacing_mm": [2.0, 2.0], "hu_window": [-1000.0, 600.0]}


@pytest.mark.parametrize("config", [SLICES, {**SLICES, "slice_size": [0, 5]}])
def test_a_bundle_that_does_not_say_its_size_is_refused(
    config: dict[str, Any], tmp_path: Path
) -> None:
    bundle = write_oracle_bundle(tmp_path / "b", 0.0, config=config)
    with pytest.raises(ModelError, match="slice_size of its inference"):
        SliceClassifier.load(bundle)


def test_without_torchvision_it_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = write_oracle_bundle(tmp_path / "b", 0.0, config={**SLICES, "slice_size": [96, 96]})
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ModelError, match="needs torchvision, which is not installed here"):
        SliceClassifier.load(bundle)
