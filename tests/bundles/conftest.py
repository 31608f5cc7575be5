"""Phantoms that tests of bundles train and run on."""

import sys
from pathlib import Path

import pytest
from bundle_commands import BUNDLE_NAMES, BUNDLES_FOLDER, SEEDS

from tools.datasets.diagnosed import write_opacities
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


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a training tree as `tools.datasets` and its ``diagnosed`` lay it out, of phantoms.

    The names are those that the bundles keep out of training, and a few to train on.
    """
    folder = tmp_path_factory.mktemp("tree")
    grid = Grid.axial((12, 64, 64), (24.0, 5.6, 5.6))
    collections = {
        "medseg": {"covid19": ("case1", "case2", "case8", "case9")},
        "diagnosed": {
            disease: (f"seen-{disease}", f"unseen-{disease}")
            for disease in ("covid19", "bacterial", "normal")
        },
    }
    rows = ["name,diagnosis"]
    for seed, disease in enumerate(("covid19", "bacterial", "normal"), start=50):
        phantom = build_phantom(grid, disease, seed)
        for collection, names in collections.items():
            for name in names.get(disease, ()):
                write_nifti(phantom, folder / collection, name)
                if collection == "diagnosed":
                    write_opacities(phantom, folder / collection, name)
                    rows.append(f"{name},{disease}")
    (folder / "diagnosed" / "diagnoses.csv").write_text("\n".join(rows))
    return folder
