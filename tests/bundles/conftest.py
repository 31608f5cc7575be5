"""Phantoms that tests of bundles train and run on."""

import sys
from pathlib import Path

import pytest
from bundle_commands import BUNDLE_NAMES, BUNDLES_FOLDER, SEEDS

from tools.phantom import Grid, Phantom, build_phantom, write_nifti

# As MONAI does when it runs a bundle: a package in its folder can be imported.
sys.path.extend(str(BUNDLES_FOLDER / name) for name in BUNDLE_NAMES)


@pytest.fixture(scope="session")
def phantoms() -> dict[str, Phantom]:
    grid = Grid.axial((24, 128, 128), (12.0, 2.8, 2.8))
    return {name: build_phantom(grid, "covid19", seed, 0.3) for name, seed in SEEDS.items()}


@pytest.fixture(scope="session")
def nifti_folder(phantoms: dict[str, Phantom], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nifti")
    for name, phantom in phantoms.items():
        write_nifti(phantom, folder, name)
    return folder
