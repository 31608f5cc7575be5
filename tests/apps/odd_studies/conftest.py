"""The phantom's series, once for all, and a copy of it for each test to change."""

import shutil
from pathlib import Path

import pytest

from tools.phantom import Phantom, write_dicom_series


@pytest.fixture(scope="session")
def pristine(covid_phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pristine")
    write_dicom_series(covid_phantom, folder / "series")
    return folder


@pytest.fixture
def study(pristine: Path, tmp_path: Path) -> Path:
    return shutil.copytree(pristine, tmp_path / "study")
