"""The threshold baseline on volumes whose answer is plain (Goncharov et al. 2021, 2.2)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from lesion_segmentation_2d import GridSearch, ThresholdBaseline

SPACING_MM = (2.0, 2.0, 2.0)


def _case() -> dict[str, np.ndarray]:
    """Lungs at -850 HU with a lesion at -400 HU, a vessel, a speck, and tissue around them."""
    hu = np.full((40, 40, 40), 40.0)
    lungs = np.zeros(hu.shape)
    lungs[4:36, 4:36, 4:36] = 1
    hu[lungs > 0] = -850
    lesion = np.zeros(hu.shape)
    lesion[10:24, 10:24, 10:24] = 1
    hu[lesion > 0] = -400
    hu[28, 28, 4:36] = 30
    hu[30:34, 8:12, 8:12] = -400
    return {"image": np.stack([hu, lungs]), "label": lesion[None]}


def _marked(network: ThresholdBaseline, case: dict[str, np.ndarray]) -> np.ndarray:
    return (network(torch.as_tensor(case["image"])[None])[0, 0] > 0).numpy()


def test_a_lesion_is_marked_and_a_vessel_and_a_speck_are_not() -> None:
    case = _case()
    truth = case["label"][0] > 0
    marked = _marked(ThresholdBaseline(SPACING_MM, min_lung_share=0.01), case)
    assert 2 * (marked & truth).sum() / (marked.sum() + truth.sum()) > 0.9
    assert not marked[28, 28].any()
    assert not marked[30:34, 8:12, 8:12].any()


def test_a_smaller_share_keeps_the_speck() -> None:
    marked = _marked(ThresholdBaseline(SPACING_MM, sigma_mm=1.0, min_lung_share=0.0), _case())
    assert marked[31:33, 9:11, 9:11].all()


def test_the_blur_is_in_millimetres() -> None:
    fine = _marked(ThresholdBaseline((2.0, 2.0, 2.0), sigma_mm=4.0), _case())
    coarse = _marked(ThresholdBaseline((4.0, 4.0, 4.0), sigma_mm=8.0), _case())
    assert np.array_equal(fine, coarse)


def test_no_lungs_means_no_lesion() -> None:
    case = _case()
    case["image"][1] = 0
    assert not _marked(ThresholdBaseline(SPACING_MM), case).any()


def test_the_grid_search_finds_the_numbers_and_saves_them(tmp_path: Path) -> None:
    network = ThresholdBaseline(SPACING_MM)
    grid = {
        "hu_min": [-900.0, -600.0, -300.0],
        "hu_max": [-500.0, 300.0],
        "sigma_mm": [2.0, 12.0],
        "min_lung_share": [0.0, 0.01],
    }
    healthy = _case()
    healthy["label"] = np.zeros_like(healthy["label"])
    GridSearch(network, [_case(), healthy], grid, str(tmp_path)).run()

    saved = torch.load(tmp_path / "model.pt", weights_only=True)
    assert {name: float(value) for name, value in saved.items()} == {
        "hu_min": -600.0,
        "hu_max": 300.0,
        "sigma_mm": 2.0,
        "min_lung_share": 0.01,
    }
    # The table's best Dice is what the network with these numbers reaches.
    case = _case()
    truth, marked = case["label"][0] > 0, _marked(network, case)
    best = float((tmp_path / "grid_search.csv").read_text().splitlines()[1].split(",")[-1])
    dice = 2 * (marked & truth).sum() / (marked.sum() + truth.sum())
    assert dice == pytest.approx(best, abs=1e-3)


def test_a_grid_search_without_lesions_is_refused(tmp_path: Path) -> None:
    healthy = _case()
    healthy["label"] = np.zeros_like(healthy["label"])
    grid = {"hu_min": [0.0], "hu_max": [1.0], "sigma_mm": [1.0], "min_lung_share": [0.0]}
    with pytest.raises(SystemExit, match="lesions"):
        GridSearch(ThresholdBaseline(SPACING_MM), [healthy], grid, str(tmp_path)).run()
