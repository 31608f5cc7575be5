"""The application with the weights that ship, on a phantom and on real patients not trained on."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from ct_triage.configuration import Configuration, Models
from ct_triage.lesion_models import LESION_MODELS
from ct_triage.pipeline import Pipeline
from tools.phantom import Grid, Phantom, build_phantom, write_dicom_series

REPOSITORY = Path(__file__).parents[2]
BUNDLES = REPOSITORY / "bundles"
SHARED_DATA = Path(os.environ.get("SHARED_DATA", REPOSITORY.parent / "shared" / "data"))


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def _run(study: Path, out: Path) -> tuple[dict, dict]:
    results = Pipeline(study, out, BUNDLES).run()
    return results, json.loads((out / "result.json").read_text())["findings"]


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return build_phantom(Grid.axial((40, 256, 256), (7.5, 1.5, 1.5)), "covid19", seed=7)


def test_a_phantom_is_measured_and_its_sides_are_right(phantom: Phantom, tmp_path: Path) -> None:
    write_dicom_series(phantom, tmp_path / "study")
    results, findings = _run(tmp_path / "study", tmp_path / "out")
    volume, segments = results["volume"], results["segments"]
    # The reader may have sorted the slices the other way round.
    flip = slice(None, None, 1 if np.array_equal(volume.voxels, phantom.hu) else -1)
    assert _dice(segments.right_lung[flip], phantom.right_lung) > 0.95
    assert _dice(segments.left_lung[flip], phantom.left_lung) > 0.95
    assert _dice(segments.lesion[flip], phantom.lesion) > 0.6
    true_share = 100 * phantom.lesion.sum() / (phantom.right_lung | phantom.left_lung).sum()
    assert findings["both_lungs"]["lesion_share_percent"] == pytest.approx(true_share, abs=10)
    assert results["quality"].verdict == "acceptable"


def test_a_healthy_phantom_is_nearly_free_of_lesions(tmp_path: Path) -> None:
    grid = Grid.axial((40, 256, 256), (7.5, 1.5, 1.5))
    write_dicom_series(build_phantom(grid, "normal", seed=7), tmp_path / "study")
    _, findings = _run(tmp_path / "study", tmp_path / "out")
    assert findings["both_lungs"]["lesion_share_percent"] < 1.0


@pytest.mark.parametrize(
    "name",
    [
        "multitask_triage",
        "2*lesion_segmentation_2d+multitask_triage",
        pytest.param("lesion_segmentation_3d", marks=pytest.mark.slow),
        pytest.param("lesion_ensemble", marks=pytest.mark.slow),
    ],
)
def test_every_other_lesion_bundle_that_ships_runs(name: str, tmp_path: Path) -> None:
    write_dicom_series(
        build_phantom(Grid.axial((32, 160, 160), (10.0, 2.4, 2.4)), "covid19", 7),
        tmp_path / "study",
    )
    models = Models(lesions=name)
    identification = any(LESION_MODELS[part].identifies for part in models.lesion_bundles)
    configuration = Configuration(models=models, identification=identification)
    Pipeline(tmp_path / "study", tmp_path / "out", BUNDLES, configuration).run()
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert name in [model["name"] for model in result["models"]]
    assert ("identification" in result["findings"]) == identification


needs_data = pytest.mark.skipif(
    not (SHARED_DATA / "covid_ct_md").is_dir(),
    reason=f"real CT is not at {SHARED_DATA}; set SHARED_DATA to its folder",
)


@needs_data
def test_a_covid_patient_has_lesions_in_both_lungs(tmp_path: Path) -> None:
    _, findings = _run(SHARED_DATA / "covid_ct_md" / "P001", tmp_path)
    assert findings["right_lung"]["lesion_share_percent"] > 0.2
    assert findings["left_lung"]["lesion_share_percent"] > 0.2
    assert findings["severity_category"] == "CT-1"
    assert 4000 < findings["both_lungs"]["lung_volume_ml"] < 8000


@needs_data
def test_a_healthy_patient_stays_under_one_percent(tmp_path: Path) -> None:
    _, findings = _run(SHARED_DATA / "covid_ct_md" / "normal001", tmp_path)
    assert findings["right_lung"]["lesion_share_percent"] < 1.0
    assert findings["left_lung"]["lesion_share_percent"] < 1.0


@pytest.mark.slow
def test_a_study_gives_the_same_result_again_and_nearly_so_with_other_threads(
    phantom: Phantom, tmp_path: Path
) -> None:
    write_dicom_series(phantom, tmp_path / "study")
    n_threads = torch.get_num_threads()
    findings = {}
    try:
        for name, threads in (("one", 1), ("again", 1), ("two", 2)):
            torch.set_num_threads(threads)
            _, findings[name] = _run(tmp_path / "study", tmp_path / name)
    finally:
        torch.set_num_threads(n_threads)
    for file in ("seg.dcm", "sr.dcm", "result.json"):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "one" / file).read_bytes()
    for lung in ("right_lung", "left_lung"):
        one, two = findings["one"][lung], findings["two"][lung]
        assert two["lung_volume_ml"] == pytest.approx(one["lung_volume_ml"], rel=1e-3)
        # In percentage points.
        assert two["lesion_share_percent"] == pytest.approx(one["lesion_share_percent"], abs=0.1)
