"""Our numbers equal those of MONAI, scikit-learn, SciPy, pycocotools; the command reports them."""

import json
from pathlib import Path

import matplotlib.image
import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from monai.metrics import DiceMetric, HausdorffDistanceMetric, MeanIoU
from pycocotools import mask as coco_mask
from scipy.ndimage import binary_erosion
from scipy.spatial.distance import cdist
from sklearn.metrics import accuracy_score, f1_score, jaccard_score

from tools.evaluate.__main__ import main
from tools.evaluate.segmentation import METRICS, compare, pooled, summary
from tools.evaluate.statistics import half_width_95

SHAPE, SPACING_MM = (7, 16, 13), (5.0, 1.25, 0.8)


def random_mask(seed: int, share: float) -> np.ndarray:
    return np.random.default_rng(seed).random(SHAPE) < share


def one_voxel(*index: int) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[index] = True
    return mask


EMPTY = np.zeros(SHAPE, bool)
PAIRS = {
    "random": (random_mask(1, 0.3), random_mask(2, 0.4)),
    "sparse": (random_mask(3, 0.004), random_mask(4, 0.01)),
    "one voxel each": (one_voxel(1, 2, 3), one_voxel(4, 10, 12)),
    "the same voxel": (one_voxel(6, 15, 12), one_voxel(6, 15, 12)),
    "both empty": (EMPTY, EMPTY),
    "empty prediction": (EMPTY, random_mask(5, 0.1)),
    "empty truth": (one_voxel(0, 0, 0), EMPTY),
    "full": (~EMPTY, ~EMPTY),
}


@pytest.mark.parametrize("name", PAIRS)
def test_metrics_equal_the_libraries(name: str) -> None:
    prediction, truth = PAIRS[name]
    found = compare(prediction, truth, SPACING_MM)
    p, t = (torch.from_numpy(m)[None, None].float() for m in (prediction, truth))
    assert found["dice"] == pytest.approx(DiceMetric(ignore_empty=False)(p, t).item())
    assert found["iou"] == pytest.approx(MeanIoU(ignore_empty=False)(p, t).item())
    flat = truth.ravel(), prediction.ravel()
    assert found["dice"] == pytest.approx(f1_score(*flat, zero_division=1))
    assert found["iou"] == pytest.approx(jaccard_score(*flat, zero_division=1))
    assert found["accuracy"] == pytest.approx(accuracy_score(*flat))
    if prediction.any() or truth.any():
        # A volume's slices beside each other are a picture.
        pictures = (np.asfortranarray(mask.reshape(7, -1), np.uint8) for mask in PAIRS[name])
        one, other = (coco_mask.encode(picture) for picture in pictures)
        assert found["iou"] == pytest.approx(coco_mask.iou([one], [other], [0]).item())
    voxel_ml = 5.0 * 1.25 * 0.8 / 1000
    assert found["volume_error_ml"] == pytest.approx((prediction.sum() - truth.sum()) * voxel_ml)
    assert found["tp"] + found["fp"] + found["fn"] + found["tn"] == truth.size
    if prediction.any() and truth.any():
        metric = HausdorffDistanceMetric(include_background=True, percentile=95)
        expected = metric(p, t, spacing=SPACING_MM).item()
        assert found["hd95_mm"] == pytest.approx(expected, abs=1e-4)
    else:
        assert np.isnan(found["hd95_mm"])


def test_hd95_is_the_distance_of_the_borders_in_mm() -> None:
    prediction, truth = np.zeros((2, *SHAPE), bool)
    prediction[1:4, 3:9, 2:7], truth[2:6, 4:12, 5:11] = True, True
    # Borders inside the box of both masks, beyond which a mask does not end.
    borders = [np.argwhere(m & ~binary_erosion(m)) * SPACING_MM for m in (prediction, truth)]
    distances = cdist(*borders)
    expected = max(np.percentile(distances.min(axis=axis), 95) for axis in (0, 1))
    assert compare(prediction, truth, SPACING_MM)["hd95_mm"] == pytest.approx(expected, rel=1e-4)


def test_voxels_are_pooled_before_the_intervals() -> None:
    cases = pd.DataFrame(
        {"tp": [10, 0], "fp": [2, 3], "fn": [4, 0], "tn": [84, 97], "slices": [40, 60]}
    ).assign(patient=["a", "b"])
    (row,) = pooled(cases).to_dict("records")
    assert row["dice"] == pytest.approx(20 / 29)
    assert row["iou"] == pytest.approx(10 / 19)
    assert row["accuracy"] == pytest.approx(191 / 200)
    assert row["iou_interval"] == pytest.approx(half_width_95(10 / 19, 100))
    assert row["iou_interval"] == pytest.approx(1.96 * np.sqrt(10 / 19 * 9 / 19 / 100), rel=1e-3)


def test_spread_is_that_of_folds_and_trainings() -> None:
    cases = pd.DataFrame(
        {
            "patient": ["p", "q", "p", "q"],
            "training": ["a", "a", "b", "b"],
            "fold": ["1", "2", "1", "2"],
            "truth_ml": [1.0, 1.0, 1.0, 0.0],
            **{metric: [0.2, 0.4, 0.6, 1.0] for metric in METRICS},
            "hd95_mm": [1.0, 2.0, 3.0, np.nan],
        }
    )
    found = summary(cases).set_index(["cases", "metric"])
    assert found.loc[("all", "dice"), "mean"] == pytest.approx(0.55)
    assert found.loc[("all", "dice"), "std"] == pytest.approx(np.std([0.2, 0.4, 0.6, 1], ddof=1))
    assert found.loc[("truth not empty", "dice"), "mean"] == pytest.approx(0.4)
    assert found.loc[("all", "hd95_mm"), "n"] == 3


@pytest.fixture
def datalist(tmp_path: Path) -> Path:
    rows = []
    affine = np.diag([0.8, 1.25, 5.0, 1.0])
    for index, share in enumerate((0.1, 0.3, 0.5)):
        masks = {"truth": random_mask(index, share), "prediction": random_mask(index + 9, 0.3)}
        row = {"case": f"c{index}", "fold": index % 2, "image": f"c{index}_ct.nii.gz"}
        for name, mask in masks.items():
            row[name] = f"c{index}_{name}.nii.gz"
            image = nibabel.Nifti1Image(mask.transpose(2, 1, 0).astype(np.uint8), affine)
            nibabel.save(image, tmp_path / row[name])
        ct = np.full(SHAPE[::-1], -800, np.int16)
        nibabel.save(nibabel.Nifti1Image(ct, affine), tmp_path / row["image"])
        rows.append(row)
    (tmp_path / "list.json").write_text(json.dumps(rows))
    return tmp_path / "list.json"


def test_command_writes_tables_figures_and_one_html_file(
    datalist: Path, capsys: pytest.CaptureFixture
) -> None:
    output = datalist.parent / "out"
    arguments = ["segmentation", str(datalist), "--output", str(output), "--pictures", "2"]
    assert main(arguments) == 0
    assert "| dice" in capsys.readouterr().out
    cases = pd.read_csv(output / "cases.csv")
    assert cases["dice"].is_monotonic_increasing
    for _, row in cases.iterrows():
        number = int(row["case"][1])
        expected = compare(
            random_mask(number + 9, 0.3), random_mask(number, [0.1, 0.3, 0.5][number]), SPACING_MM
        )
        assert row["dice"] == pytest.approx(expected["dice"])
        assert row["hd95_mm"] == pytest.approx(expected["hd95_mm"], abs=1e-4)
    for name in ("summary", "pooled", "groups", "cases"):
        assert (output / f"{name}.md").read_text().startswith("|")
        assert r"\toprule" in (output / f"{name}.tex").read_text()
    html = (output / "report.html").read_text()
    assert html.count("data:image/png;base64,") == 2
    assert 'src="http' not in html
    assert cases["case"][0] in html
    picture = matplotlib.image.imread(output / "worst_1.png")[..., :3]
    green = (picture[..., 1] > picture[..., 0] + 0.2) & (picture[..., 1] > picture[..., 2] + 0.1)
    red = (picture[..., 0] > picture[..., 1] + 0.3) & (picture[..., 0] > picture[..., 2] + 0.3)
    assert green.any()
    assert red.any()
    assert not list(output.glob(".writing*"))


def test_command_refuses_bad_input_and_writes_nothing(
    datalist: Path, capsys: pytest.CaptureFixture
) -> None:
    rows = json.loads(datalist.read_text())
    del rows[1]["prediction"]
    datalist.write_text(json.dumps(rows))
    output = datalist.parent / "out"
    assert main(["segmentation", str(datalist), "--output", str(output)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert "case c1 has no prediction" in line
    assert not output.exists()
