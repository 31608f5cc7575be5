"""Each variant of the configuration: what comes out is what was asked for, and valid."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from oracle import LESION_HU, LUNG_HU, HounsfieldThreshold, write_oracle_bundle
from pydicom import dcmread
from pydicom.dataset import Dataset
from small_study import SmallStudy, small_study
from validators import dciodvfy_errors, dcmqi_report, dsrdump, pixelmed_sr_errors

from ct_triage.configuration import Configuration
from ct_triage.errors import ConfigurationError, ModelError
from ct_triage.lesion_models import LESION_MODELS, load_lesion_model
from ct_triage.network import SliceNetwork
from ct_triage.pipeline import Pipeline
from ct_triage.provenance import ModelIdentity
from ct_triage.volume import Volume
from tools.phantom import Phantom, write_dicom_series

SCHEMA = Path(__file__).parents[2] / "apps" / "ct_triage" / "docs" / "result.schema.json"
MULTITASK = {"models": {"lesions": "multitask_triage"}, "identification": True}
SITE = {
    "site": "Krankenhaus Nord",
    "lesion_threshold": 0.6,
    "ct_class_bounds": [0.1, 0.2, 0.3],
    "calibration": {"trusted": False, "model": "lesion_segmentation_2d 0.1.0 " + "ff" * 32},
}
SCHEME = {"designator": "99HOSP", "name": "Hospital", "responsible_organization": "Hospital"}
# Settings, and whether the study is given a probability of COVID-19.
VARIANTS: dict[str, tuple[dict[str, Any], float | None]] = {
    "default": ({}, None),
    "identification": (MULTITASK, 0.8712345),
    "no lung to identify": (MULTITASK, None),
    "site": ({"site": SITE}, None),
    "names": ({"private_scheme": SCHEME, "manufacturer": {"name": "Hospital"}}, None),
    "no segmentation": ({"outputs": {"seg": False}, **MULTITASK}, 0.25),
}


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS.keys())
def variant(request: pytest.FixtureRequest) -> SmallStudy:
    settings, probability = request.param
    return small_study(
        configuration=Configuration.model_validate(settings), covid19_probability=probability
    )


def _save(report: Dataset, folder: Path) -> Path:
    report.save_as(folder / "sr.dcm", enforce_file_format=True)
    return folder / "sr.dcm"


def test_every_variant_is_valid(variant: SmallStudy, tmp_path: Path) -> None:
    file = _save(variant.report(), tmp_path)
    assert dciodvfy_errors(file) == []
    assert pixelmed_sr_errors(file) == []
    assert dcmqi_report(file, tmp_path)["Measurements"]
    assert "Imaging Measurement Report" in dsrdump(file)
    variant.seg().save_as(tmp_path / "seg.dcm", enforce_file_format=True)
    assert dciodvfy_errors(tmp_path / "seg.dcm") == []
    jsonschema.validate(json.loads(json.dumps(variant.result())), json.loads(SCHEMA.read_text()))


def _walk(item: Dataset) -> list[Dataset]:
    """Content items that have a name; an image may do without."""
    children = [c for c in item.get("ContentSequence", []) if "ConceptNameCodeSequence" in c]
    return children + [descendant for child in children for descendant in _walk(child)]


def _named(item: Dataset, code_value: str) -> list[Dataset]:
    return [i for i in _walk(item) if i.ConceptNameCodeSequence[0].CodeValue == code_value]


def test_identification_is_a_coded_probability_of_covid19() -> None:
    study = small_study(
        configuration=Configuration.model_validate(MULTITASK), covid19_probability=0.8712345
    )
    *_, group = _named(study.report(), "125007")
    (finding,) = _named(group, "121071")
    code = finding.ConceptCodeSequence[0]
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("840539006", "SCT")
    (probability,) = _named(group, "122157")
    measured = probability.MeasuredValueSequence[0]
    assert measured.MeasurementUnitsCodeSequence[0].CodeValue == "%"
    identification = study.result()["findings"]["identification"]
    assert identification == {"condition": "COVID-19", "probability_percent": 87.1235}
    assert float(measured.NumericValue) == identification["probability_percent"]


def test_what_cannot_be_told_is_not_reported_as_a_number() -> None:
    study = small_study(configuration=Configuration.model_validate(MULTITASK))
    assert study.result()["findings"]["identification"]["probability_percent"] is None
    assert _named(study.report(), "122157") == []
    assert "identification" not in small_study().result()["findings"]


def test_the_sites_thresholds_are_recorded() -> None:
    study = small_study(configuration=Configuration.model_validate({"site": SITE}))
    result = study.result()
    assert result["settings"]["ct_class_bounds"] == [0.1, 0.2, 0.3]
    assert result["settings"]["site"]["calibration"]["trusted"] is False
    comments = [item.TextValue for item in _named(study.report(), "121106")]
    for note in (
        "thresholds of the site Krankenhaus Nord were applied",
        "the site's calibration is marked as not trusted",
        "the site's thresholds were calibrated for another model than lesion_segmentation_2d",
    ):
        assert note in comments
        assert note in result["notes"]
    parameters = [item.TextValue for item in _named(study.report(), "111002")]
    assert "ct_class_bounds_percent=10/20/30" in parameters


def test_names_and_private_scheme_are_the_sites_own() -> None:
    settings = {
        "private_scheme": SCHEME,
        "manufacturer": {"name": "Hospital", "model_name": "triage"},
    }
    study = small_study(configuration=Configuration.model_validate(settings))
    for instance in (study.seg(), study.report()):
        assert instance.Manufacturer == "Hospital"
        assert instance.ManufacturerModelName == "triage"
    report = study.report()
    (scheme,) = report.CodingSchemeIdentificationSequence
    assert scheme.CodingSchemeDesignator == "99HOSP"
    assert scheme.CodingSchemeUID.startswith("2.25.")
    private = {
        item.ConceptNameCodeSequence[0].CodingSchemeDesignator
        for item in _walk(report)
        if item.ConceptNameCodeSequence[0].CodingSchemeDesignator.startswith("99")
    }
    assert private == {"99HOSP"}


def test_a_report_alone_refers_to_no_segmentation() -> None:
    outputs = {"outputs": {"seg": False}}
    report = small_study(configuration=Configuration.model_validate(outputs)).report()
    assert _named(report, "121191") == []
    (evidence,) = report.CurrentRequestedProcedureEvidenceSequence
    assert len(evidence.ReferencedSeriesSequence) == 1
    groups = _named(report, "125007")
    assert [_named(group, "112039")[0].TextValue for group in groups] == [
        "right lung",
        "left lung",
        "lung lesions",
    ]


# From here on the whole pipeline runs, with oracle models.

Run = Callable[..., Path]


@pytest.fixture
def run(covid_phantom: Phantom, oracle_models: Path, tmp_path: Path) -> Run:
    write_dicom_series(covid_phantom, tmp_path / "study")

    def run_pipeline(name: str, **settings: Any) -> Path:
        configuration = Configuration.model_validate(settings)
        out = tmp_path / name
        Pipeline(tmp_path / "study", out, oracle_models, configuration).run()
        return out

    return run_pipeline


def _findings(out: Path) -> dict[str, Any]:
    return json.loads((out / "result.json").read_text())["findings"]


def test_the_multitask_model_finds_the_same_lesions_and_identifies(run: Run) -> None:
    slices, multitask = run("slices"), run("multitask", **MULTITASK)
    ours, theirs = _findings(slices), _findings(multitask)
    probability = theirs.pop("identification")["probability_percent"]
    assert 50 < probability < 100
    assert ours == theirs
    masks = [dcmread(out / "seg.dcm").PixelData for out in (slices, multitask)]
    assert masks[0] == masks[1]
    models = json.loads((multitask / "result.json").read_text())["models"]
    assert [model["name"] for model in models] == [
        "oracle lung_segmentation",
        "oracle multitask_triage",
    ]


def test_the_multitask_model_sees_the_lungs_of_every_slice_at_once(
    covid_phantom: Phantom, oracle_models: Path, tmp_path: Path
) -> None:
    write_dicom_series(covid_phantom, tmp_path / "study")
    configuration = Configuration.model_validate(MULTITASK)
    pipeline = Pipeline(tmp_path / "study", tmp_path / "out", oracle_models, configuration)
    results = pipeline.run()
    lungs = results["segments"].right_lung | results["segments"].left_lung
    with_lung = np.flatnonzero(lungs.any(axis=(1, 2)))
    n_slices = with_lung[-1] - with_lung[0] + 1
    lesions = results["networks"].lesion
    seen = []

    class Recorder(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            seen.append(tuple(image.shape))
            return torch.full_like(image, -1.0), torch.tensor([0.0])

    network = type(lesions.network)(
        lesions.network.identity, Recorder(), (2.0, 2.0), (-1000.0, 600.0), 0.5, 16
    )
    found = type(lesions)(network).find(results["volume"], lungs)
    assert found.covid19_probability == 0.5
    assert not found.mask.any()
    ((n, channels, rows, columns),) = seen
    assert (n, channels) == (n_slices, 1)
    assert rows % 16 == columns % 16 == 0
    assert rows * columns < 192 * 192


@pytest.mark.parametrize(
    ("name", "pixels"), [("lesion_segmentation_2d", 130), ("multitask_triage", 50)]
)
def test_only_the_slice_model_sees_the_body_around_the_lungs(name: str, pixels: int) -> None:
    hu = np.full((12, 180, 180), -1000, np.int16)
    hu[:, 20:140, 30:150] = 40
    lungs = np.zeros(hu.shape, bool)
    lungs[3:9, 60:100, 70:110] = True
    hu[lungs] = -850
    affine = np.eye(4)[[2, 1, 0, 3]] * [5, 2, 2, 1]
    seen = []

    class Recorder(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> Any:
            seen.append(tuple(image.shape))
            logits = torch.full_like(image, -1.0)
            return (logits, torch.tensor([0.0])) if name == "multitask_triage" else logits

    identity = ModelIdentity(name, "1", "a1" * 32)
    network = SliceNetwork(identity, Recorder(), (2.0, 2.0), (-1000.0, 600.0), 0.5, 1)
    assert not LESION_MODELS[name](network).find(Volume(hu, affine, ()), lungs).mask.any()
    # Five pixels, 10 mm, on each side.
    assert {shape[1:] for shape in seen} == {(1, pixels, pixels)}
    assert sum(shape[0] for shape in seen) == 6


def test_a_model_that_does_not_identify_is_refused(oracle_models: Path) -> None:
    settings = {"models": {"lesions": "lesion_segmentation_2d"}, "identification": True}
    with pytest.raises(ConfigurationError, match="does not identify COVID-19; set models"):
        load_lesion_model(oracle_models, Configuration.model_validate(settings))
    unknown = Configuration.model_validate({"models": {"lesions": "unknown"}})
    with pytest.raises(ConfigurationError, match="choose one of lesion_segmentation_2d, les"):
        load_lesion_model(oracle_models, unknown)


def test_a_bundle_without_an_identification_head_is_refused(
    covid_phantom: Phantom, oracle_models: Path, tmp_path: Path
) -> None:
    write_dicom_series(covid_phantom, tmp_path / "study")
    models = tmp_path / "models"
    write_oracle_bundle(models / "multitask_triage", 200.0, HounsfieldThreshold)
    (models / "lung_segmentation").symlink_to(oracle_models / "lung_segmentation")
    configuration = Configuration.model_validate(MULTITASK)
    with pytest.raises(ModelError, match="does not return lesion logits and one identification"):
        Pipeline(tmp_path / "study", tmp_path / "out", models, configuration).run()
    assert not (tmp_path / "out").exists()


def test_thresholds_of_the_site_change_the_mask_and_the_category(run: Run) -> None:
    plain = _findings(run("plain"))
    # The oracle's logits are 4 (x - t), so that this probability lies above lesion tissue.
    logit = 4 * (LESION_HU - LUNG_HU) / 2 / 1600
    above = 1 / (1 + np.exp(-(logit + 0.05)))
    none = _findings(run("none", site={"site": "A", "lesion_threshold": float(above)}))
    assert plain["both_lungs"]["lesion_volume_ml"] > 0
    assert none["both_lungs"]["lesion_volume_ml"] == 0
    assert none["severity_category"] == "CT-0"

    score = plain["severity_score_percent"] / 100
    assert plain["severity_category"] == "CT-2"
    bounds = [score / 4, score / 3, score / 2]
    assert (
        _findings(run("CT-4", site={"site": "A", "ct_class_bounds": bounds}))["severity_category"]
        == "CT-4"
    )
    bounds = [score / 4, score / 3, 0.99]
    assert (
        _findings(run("CT-3", thresholds={"ct_class_bounds": bounds}))["severity_category"]
        == "CT-3"
    )


@pytest.mark.parametrize(
    ("outputs", "files"),
    [
        ({"fhir": False}, ["result.json", "seg.dcm", "sr.dcm"]),
        ({"seg": False, "json": False, "fhir": False}, ["sr.dcm"]),
        ({"seg": False, "sr": False, "json": False}, ["result.fhir.json"]),
        ({"sr": False, "json": False, "fhir": False}, ["seg.dcm"]),
        ({"seg": False, "sr": False, "fhir": False}, ["result.json"]),
    ],
)
def test_only_what_is_asked_for_is_written(
    outputs: dict[str, bool], files: list[str], run: Run, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    # Left by an earlier run with other settings.
    (tmp_path / "out" / "no_result.json").write_text('{"application": {"name": "ct_triage"}}')
    out = run("out", outputs=outputs)
    assert sorted(file.name for file in out.iterdir()) == files
    if "result.json" in files:
        named = json.loads((out / "result.json").read_text())["outputs"]
        assert sorted(named) == sorted(
            {"seg.dcm": "seg", "sr.dcm": "report"}[name] for name in files if ".dcm" in name
        )


def test_other_settings_give_other_uids_and_the_same_ones_the_same(run: Run) -> None:
    def uids(out: Path) -> tuple[str, str]:
        return tuple(dcmread(out / name).SOPInstanceUID for name in ("seg.dcm", "sr.dcm"))

    outs = [run("a"), run("b"), run("c", thresholds={"min_lesion_ml": 0.2}), run("d", **MULTITASK)]
    first, again, *others = map(uids, outs)
    assert first == again
    assert len({uid for pair in (first, *others) for uid in pair}) == 6
