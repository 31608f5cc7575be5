"""Lesion models on cubic voxels: to the voxel with oracles, and as the real bundles' own code."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from oracle import (
    CUBIC,
    LESION_HU,
    MEMBERS,
    HounsfieldThreshold,
    Unanimity,
    write_oracle_bundle,
    write_torchscript_bundle,
)

from ct_triage.configuration import Configuration
from ct_triage.errors import ConfigurationError, ModelError
from ct_triage.lesion_models import load_lesion_model
from ct_triage.pipeline import Pipeline
from ct_triage.volume import Volume
from ct_triage.volume_lesions import EnsembleLesionModel, VolumeLesionModel
from tools.phantom import Phantom, write_dicom_series

BUNDLES = Path(__file__).parents[2] / "bundles"


def _choose(lesions: str, **settings: Any) -> Configuration:
    return Configuration.model_validate({"models": {"lesions": lesions}, **settings})


def _box(spacing_mm: tuple[float, float, float]) -> tuple[Volume, np.ndarray, np.ndarray]:
    """Lungs with one lesion that is symmetric in no axis; (volume, lungs, lesion)."""
    shape = tuple(round(length / mm) for length, mm in zip((96, 128, 160), spacing_mm, strict=True))
    z, y, x = ((np.arange(n) + 0.5) * mm for n, mm in zip(shape, spacing_mm, strict=True))
    z, y, x = np.meshgrid(z, y, x, indexing="ij")
    lungs = (abs(z - 48) < 40) & (abs(y - 64) < 52) & (abs(x - 80) < 64)
    lesion = lungs & (z > 48) & (z < 72) & (y > 32) & (y < 56) & (x > 96) & (x < 136)
    voxels = np.where(lesion, LESION_HU, np.where(lungs, 0, -1000)).astype(np.int16)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]]).T * spacing_mm
    return Volume(voxels, affine, ()), lungs, lesion


@pytest.mark.parametrize("name", ["lesion_segmentation_3d", "lesion_ensemble"])
@pytest.mark.parametrize("slice_mm", [0.5, 2.0, 8.0])
def test_a_lesion_comes_back_where_it_was(name: str, slice_mm: float, oracle_models: Path) -> None:
    volume, lungs, lesion = _box((slice_mm, 2.0, 2.0))
    found = load_lesion_model(oracle_models, _choose(name)).find(volume, lungs)
    assert np.array_equal(found.mask, lesion)
    assert found.covid19_probability is None


@pytest.mark.parametrize("name", ["lesion_segmentation_3d", "lesion_ensemble"])
def test_a_phantom_gives_its_own_lesions(
    name: str, covid_phantom: Phantom, oracle_models: Path, tmp_path: Path
) -> None:
    write_dicom_series(covid_phantom, tmp_path / "study")
    results = Pipeline(tmp_path / "study", tmp_path / "out", oracle_models, _choose(name)).run()
    # A phantom is stored from the head down, a volume goes up.
    found, truth = results["segments"].lesion, covid_phantom.lesion[::-1]
    assert np.count_nonzero(found ^ truth) <= 0.01 * truth.sum()
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["models"][1]["name"] == f"oracle {name}"
    expected = None if name == "lesion_ensemble" else 0.5
    assert result["settings"]["lesion_threshold"] == expected


def test_the_window_is_no_larger_than_the_bundle_says(tmp_path: Path) -> None:
    seen: list[torch.Size] = []

    class Recorder(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            seen.append(image.shape)
            return image

    bundle = write_oracle_bundle(tmp_path / "b", 0.0, config={**CUBIC, "window_size": [32, 48, 16]})
    network = VolumeLesionModel.load(bundle, None, 0.0).network
    model = VolumeLesionModel(type(network)(*_with_module(network, Recorder())))
    image = torch.rand(20, 40, 100)
    assert model.probabilities(image).shape == image.shape
    assert set(seen) == {torch.Size((1, 1, 32, 48, 16))}


def _with_module(network: Any, module: torch.nn.Module) -> list[Any]:
    fields = {name: getattr(network, name) for name in network.__dataclass_fields__}
    return list({**fields, "module": module}.values())


# The bundles' own code


@pytest.fixture
def image() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.rand(40, 64, 96)


def _parser(bundle: Path) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    parser["bundle_root"] = str(bundle)
    return parser


def _copy(name: str, folder: Path, **changes: Any) -> Path:
    """Copy a bundle without its models, with other values in its inference.json."""
    ignored = shutil.ignore_patterns("models", "__pycache__")
    bundle = shutil.copytree(BUNDLES / name, folder / name, ignore=ignored)
    config = bundle / "configs" / "inference.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    return bundle


def test_the_3d_bundle_gives_what_its_own_inference_gives(
    image: torch.Tensor, tmp_path: Path
) -> None:
    from tools.bundles.release import release

    bundle = _copy("lesion_segmentation_3d", tmp_path, window_size=[64, 64, 32])
    torch.manual_seed(0)
    network = _parser(bundle).get_parsed_content("network_def").eval()
    torch.save(network.state_dict(), tmp_path / "trained.pt")
    release(bundle, tmp_path / "trained.pt")

    model = VolumeLesionModel.load(bundle, None, 0.0)
    with torch.inference_mode():
        found = model.probabilities(image)
        inferer = _parser(bundle).get_parsed_content("inferer")
        expected = inferer(image.permute(1, 2, 0)[None, None], network)[0, 0].sigmoid()
    torch.testing.assert_close(found, expected.permute(2, 0, 1), rtol=1e-3, atol=1e-4)
    assert float(found.std()) > 0


def test_the_ensemble_gives_what_its_own_inference_gives(
    image: torch.Tensor, tmp_path: Path
) -> None:
    from tools.bundles.release import release_member

    members = [
        {"architecture": "fpn", "plane": plane, "weights": f"fpn_{plane}.ts"}
        for plane in ("axial", "sagittal", "coronal")
    ]
    rule = json.loads((BUNDLES / "lesion_ensemble" / "configs" / "inference.json").read_text())[
        "rule"
    ]
    # Untrained members are near 0.5 everywhere.
    rule["mean"]["fpn"] = {"above": 0.5, "below": 0.5}
    bundle = _copy("lesion_ensemble", tmp_path, members=members, rule=rule)
    parser = _parser(bundle)
    ensemble = parser.get_parsed_content("network_def").eval()
    for member, network in zip(members, ensemble.networks, strict=True):
        torch.save(network.state_dict(), tmp_path / "trained.pt")
        release_member(bundle, tmp_path / "trained.pt", Path(member["weights"]).stem)
    parser.get_parsed_content("load_weights")

    model = EnsembleLesionModel.load(bundle, None, 0.0)
    with torch.inference_mode():
        found = model.lesions(image)
        expected = ensemble(image.permute(1, 2, 0)[None, None])[0, 0].permute(2, 0, 1)
    assert (found == expected).float().mean() > 0.999
    assert 0 < expected.mean() < 1


# Refusals


def test_a_vote_has_no_threshold(oracle_models: Path) -> None:
    for settings in (
        {"thresholds": {"lesion": 0.4}},
        {"site": {"site": "A", "lesion_threshold": 0.4}},
    ):
        with pytest.raises(ConfigurationError, match="lesion_ensemble decides by vote"):
            load_lesion_model(oracle_models, _choose("lesion_ensemble", **settings))


def test_an_ensemble_never_shrinks_unnoticed(tmp_path: Path) -> None:
    modules = {"model.ts": Unanimity(), "axial.ts": HounsfieldThreshold(0.0)}
    bundle = write_torchscript_bundle(tmp_path / "b", modules, {**CUBIC, "members": MEMBERS})
    with pytest.raises(ModelError, match=r"sagittal\.ts: not found"):
        EnsembleLesionModel.load(bundle, None, 0.0)


def test_the_identity_of_an_ensemble_is_that_of_all_its_files(oracle_models: Path) -> None:
    bundle = oracle_models / "lesion_ensemble"
    lines = (bundle / "models" / "SHA256SUMS").read_text().splitlines()
    hashes = "".join(f"{line.split()[0]}\n" for line in lines)
    expected = hashlib.sha256(hashes.encode()).hexdigest()
    assert EnsembleLesionModel.load(bundle, None, 0.0).identity.sha256 == expected


@pytest.mark.parametrize(
    ("kind", "config", "key"),
    [
        (VolumeLesionModel, {"window_size": [96, 96]}, "window_size"),
        (VolumeLesionModel, {"window_size": [1000, 1000, 1000]}, "window_size"),
        (VolumeLesionModel, {"spacing_mm": [2.0, 2.0]}, "spacing_mm"),
        (EnsembleLesionModel, {}, "members"),
        (EnsembleLesionModel, {"members": []}, "members"),
        (EnsembleLesionModel, {"members": [{"weights": "../a.ts", "plane": "axial"}]}, "members"),
        (EnsembleLesionModel, {"members": [{"weights": "a.ts", "plane": "oblique"}]}, "members"),
    ],
)
def test_a_bundle_that_does_not_say_enough_is_refused(
    kind: Any, config: dict[str, Any], key: str, tmp_path: Path
) -> None:
    bundle = write_oracle_bundle(tmp_path / "b", 0.0, config={**CUBIC, **config})
    with pytest.raises(ModelError, match=f"{key} of its inference"):
        kind.load(bundle, None, 0.0)
