"""Average precision of lesion instances by the COCO criteria (COVID-CT-Mask-Net 4.1, table 6)."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tools.evaluate.masks import EvaluationError
from tools.evaluate.report import Report, Table

KINDS = {"segm": "segmentation", "bbox": "bbox"}


def average_precision(truth: COCO, predictions: list[dict[str, Any]], kind: str) -> pd.DataFrame:
    """Return AP at IoU 0.5, 0.75 and 0.5:0.95 of each category and of all.

    Parameters
    ----------
    truth : COCO
        Annotated images.
    predictions : list of dict
        In the COCO results format.
    kind : str
        ``segm`` or ``bbox``.

    Returns
    -------
    pandas.DataFrame
        ``category``, ``instances``, ``AP@0.5``, ``AP@0.75``, ``AP@[0.5:0.95]``; NaN for a
        category without instances.
    """
    # pycocotools prints its progress; and an empty list of results is an error to it.
    with contextlib.redirect_stdout(io.StringIO()):
        found = truth.loadRes(predictions) if predictions else COCO()
        if not predictions:
            found.dataset = {**truth.dataset, "annotations": []}
            found.createIndex()
        evaluation = COCOeval(truth, found, kind)
        evaluation.evaluate()
        evaluation.accumulate()
    # (IoU thresholds, recalls, categories, areas, most detections): all areas, 100 detections.
    precision = evaluation.eval["precision"][..., 0, -1]
    columns = {
        "AP@0.5": np.isclose(evaluation.params.iouThrs, 0.5),
        "AP@0.75": np.isclose(evaluation.params.iouThrs, 0.75),
        "AP@[0.5:0.95]": np.ones(len(evaluation.params.iouThrs), bool),
    }
    rows = []
    categories = [*evaluation.params.catIds, None]
    for index, category in enumerate(categories):
        own = slice(None) if category is None else slice(index, index + 1)
        name = "all" if category is None else truth.loadCats(category)[0]["name"]
        ids = truth.getAnnIds(catIds=[] if category is None else [category])
        row: dict[str, Any] = {"category": name, "instances": len(ids)}
        for column, chosen in columns.items():
            values = precision[chosen][..., own]
            row[column] = float(values[values > -1].mean()) if (values > -1).any() else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def read_truth(file: Path) -> COCO:
    """Read annotations in COCO's format.

    Raises
    ------
    EvaluationError
        If the file is not in that format or annotates nothing.
    """
    content = _read_json(file)
    lists = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(k), list) for k in lists):
        raise EvaluationError(f"{file}: COCO annotations have the lists {', '.join(lists)}")
    for part in ("images", "annotations"):
        if not content[part]:
            raise EvaluationError(f"{file}: the list of {part} is empty")
    truth = COCO()
    truth.dataset = content
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            truth.createIndex()
    except (KeyError, TypeError) as error:
        raise EvaluationError(f"{file}: an image, category or annotation lacks {error}") from error
    for annotation in content["annotations"]:
        if annotation["image_id"] not in truth.imgs:
            raise EvaluationError(
                f"{file}: annotation {annotation['id']} is of image {annotation['image_id']}, "
                "which is not listed"
            )
        annotation.setdefault("iscrowd", 0)
        if "area" not in annotation:
            raise EvaluationError(f"{file}: annotation {annotation['id']} has no area")
    return truth


def read_predictions(file: Path, truth: COCO, kind: str) -> list[dict[str, Any]]:
    """Read detections in COCO's results format and check them against the truth.

    Raises
    ------
    EvaluationError
        Naming the first detection of an unknown image or category or without a score.
    """
    content = _read_json(file)
    if not isinstance(content, list):
        raise EvaluationError(f"{file}: COCO results are a list of detections")
    for number, detection in enumerate(content, 1):
        where = f"{file}: detection {number}"
        for key in ("image_id", "category_id", "score", KINDS[kind]):
            if not isinstance(detection, dict) or key not in detection:
                raise EvaluationError(f"{where} has no {key}")
        if detection["image_id"] not in truth.imgs:
            raise EvaluationError(
                f"{where} is of image {detection['image_id']}, which the truth does not list"
            )
        if detection["category_id"] not in truth.cats:
            raise EvaluationError(
                f"{where} is of category {detection['category_id']}, which the truth does not list"
            )
    return content


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{file}: cannot be read as JSON; check or replace it") from error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("truth", type=Path, help="annotations in COCO's JSON format")
    parser.add_argument("predictions", type=Path, help="detections in COCO's results format")
    parser.add_argument(
        "--kind", choices=tuple(KINDS), default="segm", help="compare masks or boxes (segm)"
    )


def run(arguments: argparse.Namespace) -> Report:
    """Evaluate detections."""
    truth = read_truth(arguments.truth)
    predictions = read_predictions(arguments.predictions, truth, arguments.kind)
    return Report(
        f"Detection: {len(predictions)} detections in {len(truth.imgs)} images",
        ["At most 100 detections an image, objects of all sizes, 101 recall levels (MS COCO)."],
        [
            Table(
                "average_precision",
                "Average precision (COVID-CT-Mask-Net, table 6)",
                average_precision(truth, predictions, arguments.kind),
            )
        ],
    )
