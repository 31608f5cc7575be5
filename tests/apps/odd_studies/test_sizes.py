"""Studies of few and of many slices and pixels: read to the voxel, and measured as they are."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from series_edits import assert_is_phantom

from ct_triage.pipeline import Pipeline
from tools.phantom import Grid, Phantom, write_dicom_series


def _resampled(phantom: Phantom, slices: int, matrix: int) -> Phantom:
    """The same chest in another number of slices and pixels, by nearest neighbours."""
    shape = (slices, matrix, matrix)
    ratios = np.divide(phantom.grid.shape, shape)
    nearest = np.ix_(
        *(
            ((np.arange(n) + 0.5) * ratio).astype(int)
            for n, ratio in zip(shape, ratios, strict=True)
        )
    )
    arrays = {
        name: value[nearest]
        for name, value in vars(phantom).items()
        if isinstance(value, np.ndarray)
    }
    spacing_mm = tuple((ratios * phantom.grid.spacing_mm).tolist())
    return dataclasses.replace(phantom, grid=Grid.axial(shape, spacing_mm), **arrays)


@pytest.mark.parametrize(
    ("slices", "matrix"),
    [(30, 192), (32, 256), (32, 1024), pytest.param(2000, 96, marks=pytest.mark.slow)],
)
def test_a_study_of_any_size_gives_the_volumes_of_its_phantom(
    slices: int, matrix: int, covid_phantom: Phantom, oracle_models: Path, tmp_path: Path
) -> None:
    phantom = _resampled(covid_phantom, slices, matrix)
    write_dicom_series(phantom, tmp_path / "study")
    results = Pipeline(tmp_path / "study", tmp_path / "out", oracle_models).run()
    assert_is_phantom(results["volume"], phantom)
    found = json.loads((tmp_path / "out" / "result.json").read_text())["findings"]
    voxel_ml = phantom.grid.voxel_volume_mm3 / 1000
    for side in ("right_lung", "left_lung"):
        lung = getattr(phantom, side)
        lung_ml, lesion_ml = lung.sum() * voxel_ml, (lung & phantom.lesion).sum() * voxel_ml
        # The networks' pixels are of 2 mm, whatever those of the study: borders move a little.
        assert found[side]["lung_volume_ml"] == pytest.approx(lung_ml, rel=0.03)
        assert found[side]["lesion_volume_ml"] == pytest.approx(lesion_ml, rel=0.12)
