"""How far lesions stand out, on lungs where it is known."""

import numpy as np
import pytest

from tools.phantom import Grid, build_phantom, write_nifti
from tools.synthesis.contrast import main, rises_hu

SPACING_MM = (5.0, 2.0, 2.0)


@pytest.fixture
def lungs():
    mask = np.zeros((16, 60, 60), bool)
    mask[1:-1, 5:-5, 5:-5] = True
    return mask


def test_the_rise_is_that_above_the_lung_around(lungs):
    rows = np.linspace(-900, -700, 60)[None, :, None]
    lesions = np.zeros_like(lungs)
    lesions[4:12, 20:40, 20:40] = True
    found = rises_hu(np.where(lungs, rows + 250.0 * lesions, 40), lungs, lesions, SPACING_MM)
    assert found.size == lesions.sum()
    assert found.mean() == pytest.approx(250, abs=10)
    # The slope of the lung itself, 68 HU over the lesion, is not taken for the lesion's.
    assert np.ptp(found) < 50


def test_nothing_ill_has_no_rise(lungs):
    assert rises_hu(np.where(lungs, -850.0, 40), lungs, ~lungs, SPACING_MM).size == 0


def test_a_line_a_patient(tmp_path, capsys):
    grid = Grid.axial((24, 100, 100), (12.0, 4.0, 4.0))
    for disease in ("covid19", "normal"):
        write_nifti(build_phantom(grid, disease, seed=2), tmp_path, disease)
    assert main([str(tmp_path)]) == 0
    heading, ill, healthy = capsys.readouterr().out.splitlines()
    assert heading.split() == ["patient", "%", "ill", "5%", "50%", "95%"]
    assert ill.split()[0] == "covid19"
    assert float(ill.split()[2]) < float(ill.split()[3]) < float(ill.split()[4])
    assert healthy.split() == ["normal", "0.0"]


def test_an_empty_folder_is_refused(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_a_patient_without_a_mask_is_refused(tmp_path, capsys):
    write_nifti(build_phantom(Grid.axial((12, 60, 60), (24.0, 6.0, 6.0)), seed=2), tmp_path, "one")
    (tmp_path / "one_lesion.nii.gz").unlink()
    assert main([str(tmp_path)]) == 2
    assert "one_lesion.nii.gz" in capsys.readouterr().err
