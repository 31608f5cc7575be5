"""COCO average precision equals pycocotools' own summary."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tools.evaluate.__main__ import main
from tools.evaluate.detection import THRESHOLDS, average_precision, read_truth

SIZE = 64


def encode(mask: np.ndarray) -> dict:
    code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(code["size"]), "counts": code["counts"].decode()}


def box(x: int, y: int, w: int, h: int) -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), bool)
    mask[y : y + h, x : x + w] = True
    return mask


def instance(mask: np.ndarray) -> dict:
    code = encode(mask)
    return {
        "segmentation": code,
        "bbox": coco_mask.toBbox(code).tolist(),
        "area": int(mask.sum()),
    }


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Lesions found well, badly, twice, in the wrong class, not at all, and where there is none."""
    random = np.random.default_rng(1)
    annotations, detections = [], []
    for image in range(1, 7):
        for category in (1, 2):
            x, y, w, h = (int(v) for v in random.integers(5, 25, 4))
            annotations.append(
                {"image_id": image, "category_id": category, **instance(box(x, y, w, h))}
            )
            if image < 6:
                shift = int(random.integers(0, 5))
                mask = box(x + shift, y, w, h)
                score = float(random.random())
                found = {"image_id": image, "score": score, **instance(mask)}
                detections.append(
                    {**found, "category_id": category if image != 3 else 3 - category}
                )
    detections.append({**detections[0], "score": 0.99})
    detections.append({**detections[1], **instance(box(50, 50, 1, 1)), "score": 0.5})
    truth = {
        "info": {},
        "images": [{"id": i, "width": SIZE, "height": SIZE} for i in range(1, 8)],
        "categories": [{"id": 1, "name": "GGO"}, {"id": 2, "name": "consolidation"}],
        "annotations": [
            {"id": n, "iscrowd": 0, **annotation} for n, annotation in enumerate(annotations, 1)
        ],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "found.json").write_text(json.dumps(detections))
    return tmp_path / "truth.json", tmp_path / "found.json"


def _by_pycocotools(files: tuple[Path, Path], kind: str) -> np.ndarray:
    """AP at 0.5:0.95, 0.5 and 0.75 as pycocotools summarises them."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(files[0]))
        evaluation = COCOeval(truth, truth.loadRes(str(files[1])), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[:3]


@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_equals_the_summary_of_pycocotools(files: tuple[Path, Path], kind: str) -> None:
    output = files[0].parent / "out"
    assert main(["detection", *map(str, files), "--kind", kind, "--output", str(output)]) == 0
    found = pd.read_csv(output / "average_precision.csv").set_index("category")
    assert 0 < found.at["all", "AP@0.75"] < found.at["all", "AP@0.5"] < 1
    assert found.loc["all", ["AP@[0.5:0.95]", "AP@0.5", "AP@0.75"]].to_list() == pytest.approx(
        _by_pycocotools(files, kind).tolist()
    )
    assert found["instances"].to_dict() == {"GGO": 6, "consolidation": 6, "all": 12}
    assert (found["AP@0.5_low"] < found["AP@0.5"]).all()
    assert (found["AP@0.5"] < found["AP@0.5_high"]).all()


EMPTY = np.zeros((SIZE, SIZE), bool)
ODD_MASKS = {
    "random": [np.random.default_rng(n).random((SIZE, SIZE)) < 0.3 for n in range(8)],
    "empty": [EMPTY, box(5, 5, 9, 9), EMPTY, EMPTY],
    "one pixel": [box(n, 2 * n, 1, 1) for n in range(6)],
}


@pytest.mark.parametrize("name", ODD_MASKS)
def test_odd_masks_equal_pycocotools_too(name: str, tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    annotations, detections = [], []
    for number, mask in enumerate(ODD_MASKS[name], 1):
        where = {"image_id": 1 + number % 3, "category_id": 1}
        annotations.append({"id": number, "iscrowd": 0, **where, **instance(mask)})
        found = mask ^ (random.random(mask.shape) < 0.02) if number % 2 else mask
        detections.append({**where, "score": number / 10, **instance(found)})
    truth = {
        "images": [{"id": i, "width": SIZE, "height": SIZE} for i in (1, 2, 3)],
        "categories": [{"id": 1, "name": "lesion"}],
        "annotations": annotations,
    }
    files = tmp_path / "truth.json", tmp_path / "found.json"
    files[0].write_text(json.dumps({"info": {}, **truth}))
    files[1].write_text(json.dumps(detections))
    expected = _by_pycocotools(files, "segm")
    found = average_precision(read_truth(files[0]), detections, "segm").set_index("category")
    assert found.loc["all", list(THRESHOLDS)].tolist() == pytest.approx(expected[[1, 2, 0]])
    assert 0 < found.at["all", "AP@0.5"] <= 1


def test_images_of_a_patient_are_drawn_together(files: tuple[Path, Path]) -> None:
    content = json.loads(files[0].read_text())
    for image in content["images"]:
        image["patient"] = "the only one"
    files[0].write_text(json.dumps(content))
    output = files[0].parent / "out"
    assert main(["detection", *map(str, files), "--output", str(output)]) == 0
    found = pd.read_csv(output / "average_precision.csv")
    assert found["AP@0.5"].notna().all()
    assert found[["AP@0.5_low", "AP@0.5_high"]].isna().all(axis=None)


def test_no_detection_is_a_precision_of_nothing(files: tuple[Path, Path]) -> None:
    files[1].write_text("[]")
    output = files[0].parent / "out"
    assert main(["detection", *map(str, files), "--output", str(output)]) == 0
    found = pd.read_csv(output / "average_precision.csv").set_index("category")
    assert (found[["AP@0.5", "AP@0.75", "AP@[0.5:0.95]"]] == 0).all(axis=None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 99}, "detection 1 is of image 99, which the truth does not list"),
        ({"category_id": 9}, "detection 1 is of category 9"),
        ({"score": None}, "detection 1 has no score"),
    ],
)
def test_bad_detections_are_refused(
    files: tuple[Path, Path], change: dict, message: str, capsys: pytest.CaptureFixture
) -> None:
    content = json.loads(files[1].read_text())
    content[0] = {k: v for k, v in {**content[0], **change}.items() if v is not None}
    files[1].write_text(json.dumps(content))
    assert main(["detection", *map(str, files), "--output", str(files[0].parent / "out")]) == 2
    assert message in capsys.readouterr().err


def test_bad_truths_are_refused(files: tuple[Path, Path], capsys: pytest.CaptureFixture) -> None:
    content = json.loads(files[0].read_text())
    for change, message in (
        ({"annotations": []}, "the list of annotations is empty"),
        ({"images": content["images"][:2]}, "which is not listed"),
        ({"categories": 3}, "have the lists images, annotations, categories"),
    ):
        files[0].write_text(json.dumps({**content, **change}))
        assert main(["detection", *map(str, files), "--output", str(files[0].parent / "o")]) == 2
        assert message in capsys.readouterr().err
