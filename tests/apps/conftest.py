from pathlib import Path

import pytest
from oracle import painted, write_oracle_models

from tools.phantom import Grid, Phantom, build_phantom

# Coarse, so that a phantom takes a second; the pixels are the networks' own 2 mm.
SHAPE, SPACING_MM = (32, 192, 192), (10.0, 2.0, 2.0)


@pytest.fixture(scope="session")
def oracle_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_oracle_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def covid_phantom() -> Phantom:
    return painted(build_phantom(Grid.axial(SHAPE, SPACING_MM), "covid19", seed=3))
