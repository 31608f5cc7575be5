"""Several lesion models: lesion is where the mean of their probabilities reaches a threshold."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import HU_WINDOW, MultitaskThreshold, write_oracle_bundle
from scipy.special import expit

from ct_triage.configuration import Configuration
from ct_triage.errors import ConfigurationError
from ct_triage.lesion_models import load_lesion_model
from ct_triage.lesions import SliceLesionModel
from ct_triage.provenance import ModelIdentity, hash_of_hashes
from ct_triage.volume import Volume

SLICES, MULTITASK = "lesion_segmentation_2d", "multitask_triage"
BOTH = f"{SLICES}+{MULTITASK}"
LUNG_HU = -800
LESIONS_HU = {"faint": -500, "middle": -200, "dense": 300}
BOUNDS_HU = {SLICES: -400.0, MULTITASK: 100.0}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_oracle_bundle(folder / SLICES, BOUNDS_HU[SLICES])
    write_oracle_bundle(folder / MULTITASK, BOUNDS_HU[MULTITASK], MultitaskThreshold)
    return folder


@pytest.fixture(scope="module")
def study() -> tuple[Volume, np.ndarray]:
    """A lung of 2 mm voxels that holds three blocks."""
    hu = np.full((10, 96, 96), 40, np.int16)
    lungs = np.zeros(hu.shape, bool)
    lungs[1:9, 16:80, 16:80] = True
    hu[lungs] = LUNG_HU
    for index, block_hu in enumerate(LESIONS_HU.values()):
        hu[3:7, 30:50, 20 + 18 * index : 32 + 18 * index] = block_hu
    return Volume(hu, np.eye(4)[[2, 1, 0, 3]] * [2, 2, 2, 1], ()), lungs


def _load(models: Path, lesions: str = BOTH, **settings: Any) -> SliceLesionModel:
    return load_lesion_model(
        models, Configuration.model_validate({"models": {"lesions": lesions}, **settings})
    )


def _mean(hu: float, weights: tuple[int, int] = (1, 1)) -> float:
    width = HU_WINDOW[1] - HU_WINDOW[0]
    seen = [expit(4 * (hu - bound) / width) for bound in BOUNDS_HU.values()]
    return float(np.average(seen, weights=weights))


def test_lesion_is_where_the_mean_reaches_the_threshold(
    models: Path, study: tuple[Volume, np.ndarray]
) -> None:
    volume, lungs = study
    means = {name: _mean(hu) for name, hu in LESIONS_HU.items()}
    assert _mean(LUNG_HU) < means["faint"] < means["middle"] < means["dense"]
    for name, hu in LESIONS_HU.items():
        threshold = means[name] - 0.005
        found = _load(models, thresholds={"lesion": threshold}).find(volume, lungs)
        assert np.array_equal(found.mask, lungs & (volume.voxels >= hu))


def test_a_model_may_count_more_than_once(models: Path, study: tuple[Volume, np.ndarray]) -> None:
    volume, lungs = study
    middle = LESIONS_HU["middle"]
    once, twice = _mean(middle), _mean(middle, (1, 2))
    # The model that counts twice sees less.
    assert twice < once - 0.02
    threshold = (once + twice) / 2
    found = {
        lesions: _load(models, lesions, thresholds={"lesion": threshold}).find(volume, lungs).mask
        for lesions in (BOTH, f"{SLICES}+2*{MULTITASK}")
    }
    assert np.array_equal(found[BOTH], lungs & (volume.voxels >= middle))
    assert np.array_equal(
        found[f"{SLICES}+2*{MULTITASK}"], lungs & (volume.voxels >= LESIONS_HU["dense"])
    )


def test_the_threshold_and_the_name_say_how_often_a_model_counts(tmp_path: Path) -> None:
    write_oracle_bundle(tmp_path / SLICES, 0, threshold=0.2)
    write_oracle_bundle(tmp_path / MULTITASK, 0, MultitaskThreshold, threshold=0.5)
    model = _load(tmp_path, f"{SLICES}+2*{MULTITASK}")
    assert model.threshold == pytest.approx(0.4)
    assert model.identity.name == f"oracle {SLICES}+2*oracle {MULTITASK}"
    assert model.identity.labels == [f"oracle {SLICES} 1.2.3", f"oracle {MULTITASK} 1.2.3"]


def test_the_order_of_models_changes_nothing(
    models: Path, study: tuple[Volume, np.ndarray]
) -> None:
    first, second = (
        _load(models, lesions, thresholds={"lesion": 0.45}).find(*study)
        for lesions in (BOTH, f"{MULTITASK}+{SLICES}")
    )
    assert first.mask.any()
    assert np.array_equal(first.mask, second.mask)
    assert first.covid19_probability == second.covid19_probability


def test_it_identifies_as_the_model_that_identifies(
    models: Path, study: tuple[Volume, np.ndarray]
) -> None:
    found = _load(models, identification=True).find(*study)
    alone = _load(models, MULTITASK, identification=True).find(*study)
    assert found.covid19_probability == alone.covid19_probability is not None


def test_without_lungs_there_are_no_lesions(models: Path, study: tuple[Volume, np.ndarray]) -> None:
    volume, lungs = study
    found = _load(models, identification=True).find(volume, np.zeros_like(lungs))
    assert not found.mask.any()
    assert found.covid19_probability is None


def test_small_pieces_are_left_out(models: Path, study: tuple[Volume, np.ndarray]) -> None:
    # A block has 7.7 ml.
    thresholds = {"lesion": _mean(LESIONS_HU["dense"]) - 0.005, "min_lesion_ml": 8.0}
    assert not _load(models, thresholds=thresholds).find(*study).mask.any()


def test_it_goes_by_the_names_versions_and_weights_of_all(models: Path) -> None:
    both = _load(models)
    alone = [_load(models, name).identity for name in (SLICES, MULTITASK)]
    assert both.identity.name == "+".join(identity.name for identity in alone)
    assert both.identity.version == "1.2.3+1.2.3"
    assert both.identity.labels == [f"oracle {SLICES} 1.2.3", f"oracle {MULTITASK} 1.2.3"]
    assert both.identity.sha256 == hash_of_hashes(identity.sha256 for identity in alone)
    assert both.threshold == 0.5


def test_a_plus_in_a_models_own_name_or_version_is_left_alone() -> None:
    assert ModelIdentity("lungs", "1.0+local", "").labels == ["lungs 1.0+local"]
    assert ModelIdentity("lungs+airways", "1.0", "").labels == ["lungs+airways 1.0"]


def test_a_star_in_a_models_own_name_is_left_alone() -> None:
    assert ModelIdentity("lungs*airways", "1.0", "").labels == ["lungs*airways 1.0"]


@pytest.mark.parametrize(
    ("lesions", "told"),
    [
        (f"{SLICES}+lesion_ensemble", "lesion_ensemble decides by vote"),
        (f"{SLICES}+{SLICES}", "names a model twice"),
        (f"{SLICES}+2*{SLICES}", "names a model twice"),
        (f"{SLICES}+unknown", "no lesion model is called unknown"),
        (f"{BOTH}+lesion_segmentation_3d", "longer than the 64 characters that DICOM allows"),
    ],
)
def test_what_cannot_be_averaged_is_refused(lesions: str, told: str, oracle_models: Path) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(told)):
        _load(oracle_models, lesions)


def test_networks_of_other_pixels_are_not_averaged(tmp_path: Path) -> None:
    write_oracle_bundle(tmp_path / SLICES, 0)
    write_oracle_bundle(tmp_path / MULTITASK, 0, MultitaskThreshold, spacing_mm=[1.0, 1.0])
    with pytest.raises(ConfigurationError, match="differ in size"):
        _load(tmp_path)


@pytest.mark.parametrize("lesions", ["a+", "+a", "a++b", "a/b+c", "a+../b", "a+0*b", "2*", "a*2"])
def test_names_of_models_are_no_paths(lesions: str) -> None:
    with pytest.raises(ValueError, match=r"models\.lesions"):
        Configuration.model_validate({"models": {"lesions": lesions}})
