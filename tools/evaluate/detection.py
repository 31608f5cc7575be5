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
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tools.evaluate.bootstrap import intervals, note
from tools.evaluate.masks import EvaluationError
from tools.evaluate.report import Report, Table
from tools.evaluate.statistics import with_brackets

KINDS = {"segm": "segmentation", "bbox": "bbox"}


THRESHOLDS = ("AP@0.5", "AP@0.75", "AP@[0.5:0.95]")


def average_precision(
    truth: COCO, predictions: list[dict[str, Any]], kind: str, resamples: int = 0
) -> pd.DataFrame:
    """Return AP at IoU 0.5, 0.75 and 0.5:0.95 of each category and of all.

    Parameters
    ----------
    truth : COCO
        Annotated images; those with the same ``patient`` are drawn together.
    predictions : list of dict
        In the COCO results format.
    kind : str
        ``segm`` or ``bbox``.
    resamples : int
        Draws of patients for the intervals.

    Returns
    -------
    pandas.DataFrame
        ``category``, ``instances``, ``AP@0.5``, ``AP@0.75``, ``AP@[0.5:0.95]``, each with
        ``_low`` and ``_high``; NaN for a category without instances.
    """
    # pycocotools prints its progress; and an empty list of results is an error to it.
    with contextlib.redirect_stdout(io.StringIO()):
        found = truth.loadRes(predictions) if predictions else COCO()
        if not predictions:
            found.dataset = {**truth.dataset, "annotations": []}
            found.createIndex()
        evaluation = COCOeval(truth, found, kind)
        evaluation.params.areaRng = evaluation.params.areaRng[:1]
        evaluation.params.areaRngLbl = evaluation.params.areaRngLbl[:1]
        evaluation.evaluate()
        images = list(evaluation.params.imgIds)
        values = _accumulated(evaluation)
        per_image = np.array(evaluation.evalImgs, object).reshape(-1, len(images))

        def resampled(drawn: NDArray[np.intp]) -> NDArray[np.float64]:
            # What was matched in an image does not depend on the others.
            evaluation.evalImgs = per_image[:, drawn].ravel().tolist()
            for parameters in (evaluation.params, evaluation._paramsEval):
                parameters.imgIds = list(range(len(drawn)))
            return _accumulated(evaluation).ravel()

        limits = intervals(resampled, _patients(truth, images), resamples)
    rows = []
    categories = [*map(int, evaluation.params.catIds), None]
    for category, own, ends in zip(
        categories, values, limits.reshape(*values.shape, 2), strict=True
    ):
        ids = evaluation.params.catIds if category is None else [category]
        row: dict[str, object] = {
            "category": "all" if category is None else truth.cats[category].get("name", category),
            "instances": len(truth.getAnnIds(catIds=ids)),
        }
        for name, value, (low, high) in zip(THRESHOLDS, own, ends, strict=True):
            row |= {name: value, f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def _accumulated(evaluation: COCOeval) -> NDArray[np.float64]:
    """Return AP (categories and, last, all; ``THRESHOLDS``); NaN where there is no instance."""
    evaluation.accumulate()
    # (IoU thresholds, recalls, categories, areas, most detections): all areas, 100 detections.
    precision = evaluation.eval["precision"][..., 0, -1]
    overlaps = evaluation.params.iouThrs
    chosen = [np.isclose(overlaps, 0.5), np.isclose(overlaps, 0.75), np.ones(len(overlaps), bool)]
    groups = [*(slice(n, n + 1) for n in range(precision.shape[2])), slice(None)]
    table = np.full((len(groups), len(chosen)), np.nan)
    for row, group in enumerate(groups):
        for column, some in enumerate(chosen):
            values = precision[some][:, :, group]
            if (values > -1).any():
                table[row, column] = values[values > -1].mean()
    return table


def _patients(truth: COCO, images: list[Any]) -> list[str]:
    """Return whose image each is: its ``patient``, else the image itself."""
    return [str(truth.imgs[image].get("patient", f"image {image}")) for image in images]


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
    # pycocotools copies this key, which the format does not need.
    truth.dataset = {"info": {}, **content}
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
    found = average_precision(truth, predictions, arguments.kind, arguments.resamples)
    patients = any("patient" in image for image in truth.imgs.values())
    return Report(
        f"Detection: {len(predictions)} detections in {len(truth.imgs)} images",
        [
            "At most 100 detections an image, objects of all sizes, 101 recall levels (MS COCO).",
            *note(arguments.resamples),
            *([] if patients else ["Images name no patient: each is taken for one."]),
        ],
        [
            Table(
                "average_precision",
                "Average precision (COVID-CT-Mask-Net, table 6)",
                found,
                _shown(found),
            )
        ],
    )


def _shown(found: pd.DataFrame) -> pd.DataFrame:
    """Return the table with intervals in brackets."""
    shown = found[["category", "instances"]]
    for name in THRESHOLDS:
        columns = found[[name, f"{name}_low", f"{name}_high"]].to_numpy()
        shown = shown.assign(**{name: [with_brackets(value, a, b) for value, a, b in columns]})
    return shown
