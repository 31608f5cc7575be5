"""Released weights: half precision changes little, and a changed file is refused."""

import shutil
from pathlib import Path

import pytest
import torch
from bundle_commands import BUNDLE_NAMES, BUNDLES_FOLDER, parsed, read_config

from tools.bundles.release import release, release_member

ENSEMBLE = "lesion_ensemble"
SINGLE = [name for name in BUNDLE_NAMES if name != ENSEMBLE]
# What tools/bundles/release.py promises of probabilities.
TOLERANCE = 0.01


def _copy(name: str, folder: Path) -> Path:
    """Copy a bundle without the weights that it has."""
    ignored = shutil.ignore_patterns("models", "__pycache__")
    return shutil.copytree(BUNDLES_FOLDER / name, folder / name, ignore=ignored)


def _settle(network: torch.nn.Module, image: torch.Tensor) -> None:
    """Bring an untrained network's statistics of batch normalisation near those of an image."""
    network.train()
    with torch.no_grad():
        for _ in range(10):
            network(image)


def _network(bundle: Path) -> torch.nn.Module:
    return parsed(bundle, "inference").get_parsed_content("network_def")


def _image(bundle: Path) -> torch.Tensor:
    image = read_config(bundle, "metadata")["network_data_format"]["inputs"]["image"]
    sizes = [64 for _ in image["spatial_shape"]]
    # Coarse and smooth, as tissue is.
    coarse = torch.rand(3, image["num_channels"], *(size // 8 for size in sizes))
    return torch.nn.functional.interpolate(coarse, size=tuple(sizes))


def _probabilities(network: torch.nn.Module, image: torch.Tensor) -> list[torch.Tensor]:
    with torch.inference_mode():
        output = network.eval()(image)
    return [part.sigmoid() for part in ((output,) if torch.is_tensor(output) else output)]


@pytest.fixture(scope="module", params=SINGLE)
def released(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, torch.nn.Module]:
    """Return a copy of a bundle with weights of an untrained network, and that network."""
    folder = tmp_path_factory.mktemp("released")
    bundle = _copy(request.param, folder)
    network = _network(bundle)
    _settle(network, _image(bundle))
    torch.save({"model": network.state_dict()}, folder / "trained.pt")
    release(bundle, folder / "trained.pt")
    return bundle, network


def test_half_precision_moves_probabilities_little(
    released: tuple[Path, torch.nn.Module],
) -> None:
    bundle, network = released
    weights = torch.load(bundle / "models" / "model.pt", weights_only=True)
    assert {w.dtype for w in weights.values() if w.is_floating_point() and w.ndim > 1} == {
        torch.float16
    }
    half = _network(bundle)
    half.load_state_dict(weights)
    script = torch.jit.load(bundle / "models" / "model.ts").float()
    image = _image(bundle)
    found, scripted = _probabilities(half, image), _probabilities(script, image)
    for one, same, exact in zip(found, scripted, _probabilities(network, image), strict=True):
        assert exact.numel() == 1 or float(exact.std()) > 0
        assert float((one - exact).abs().max()) <= TOLERANCE
        torch.testing.assert_close(one, same, rtol=0, atol=1e-5)
    for file in (bundle / "models").iterdir():
        assert file.stat().st_size <= 25e6


def test_several_checkpoints_are_averaged(tmp_path: Path) -> None:
    bundle = _copy("lung_segmentation", tmp_path)
    one, other = tmp_path / "one.pt", tmp_path / "other.pt"
    states = [_network(bundle).state_dict() for _ in (one, other)]
    for file, state in zip((one, other), states, strict=True):
        torch.save(state, file)
    release(bundle, one, other)
    released = torch.load(bundle / "models" / "model.pt", weights_only=True)
    assert set(released) == set(states[0])
    for key, value in released.items():
        mean = (states[0][key].float() + states[1][key].float()) / 2
        torch.testing.assert_close(value.float(), mean, rtol=1e-3, atol=1e-3)
    assert any((value != states[0][key]).any() for key, value in released.items())


def test_checkpoints_of_other_networks_are_not_averaged(tmp_path: Path) -> None:
    bundle = _copy("lung_segmentation", tmp_path)
    torch.save(_network(bundle).state_dict(), tmp_path / "one.pt")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt holds another network"):
        release(bundle, tmp_path / "one.pt", tmp_path / "other.pt")
    assert not list((bundle / "models").glob("*.pt"))


def test_half_precision_moves_probabilities_of_members_little(tmp_path: Path) -> None:
    bundle = _copy(ENSEMBLE, tmp_path)
    ensemble = _network(bundle)
    image = _image(BUNDLES_FOLDER / "lung_segmentation")
    for member, network in zip(
        read_config(bundle, "inference")["members"], ensemble.networks, strict=True
    ):
        _settle(network, image)
        torch.save(network.state_dict(), tmp_path / "trained.pt")
        release_member(bundle, tmp_path / "trained.pt", Path(member["weights"]).stem)
        half = torch.jit.load(bundle / "models" / member["weights"])
        assert {w.dtype for w in half.parameters() if w.ndim > 1} == {torch.float16}
        (found,), (exact,) = (_probabilities(one, image) for one in (half.float(), network))
        assert float(exact.std()) > 0
        assert float((found - exact).abs().max()) <= TOLERANCE


def test_a_changed_weight_file_is_refused_by_its_hash(
    released: tuple[Path, torch.nn.Module], tmp_path: Path
) -> None:
    bundle, _ = released
    copy = shutil.copytree(bundle, tmp_path / "copy")

    def check() -> object:
        return parsed(copy, "inference").get_parsed_content("check_weights")

    assert check()
    file = copy / "models" / "model.pt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(SystemExit, match=r"model\.pt does not match .*SHA256SUMS"):
        check()
