"""Figures of merit of both stages (paper 4.1, 4.2) and the study behind the slices."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from itertools import groupby, starmap
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ignite.engine import Engine, Events
from numpy.typing import ArrayLike
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.ndimage import gaussian_filter1d
from scipy.special import expit
from sklearn.metrics import confusion_matrix

from .data import CLASSES, CONTROL
from .detector import MASK_THRESHOLD
from .shared import gathered, is_first_process, write_table

LESIONS = ("ground glass", "consolidation")
# The slice as COCO describes an image, true instances and found ones.
Detected = tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]
# Name of the study, probabilities of the classes, index of the true class.
Judged = tuple[str, list[float], int]


class JudgedSlice(NamedTuple):
    """What the classifier says of a slice and what it is; see `data.read_slices`."""

    study: str
    index: int
    slice_mm: float
    logits: list[float]
    label: int
    shows: bool


class DetectionMetrics:
    """Average precision of masks at IoU 0.5, 0.75 and 0.5:0.95 (MS COCO; paper, table 6).

    Reads lists of detections and of targets from an engine's "pred" and "label".

    Parameters
    ----------
    output_dir
        Folder of ``summary.csv`` and, in COCO's formats, ``truth.json`` and ``predictions.json``;
        None writes none. An image of ``truth.json`` has its "study", "slice" and "patient": what
        precedes the dot of the study's name.
    """

    def __init__(self, output_dir: str | None = None) -> None:
        self.output_dir = output_dir
        self.slices: list[Detected] = []

    def attach(self, engine: Engine) -> None:
        """Listen to an evaluator."""
        engine.add_event_handler(Events.EPOCH_STARTED, lambda _: self.slices.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish)

    def _add(self, engine: Engine) -> None:
        batch, output = engine.state.batch, engine.state.output
        names = zip(batch["name"], batch["slice"], strict=True)
        for (study, index), pred, label in zip(names, output["pred"], output["label"], strict=True):
            height, width = label["masks"].shape[-2:]
            image = {
                **{"study": study, "slice": index, "patient": study.split(".")[0]},
                **{"height": height, "width": width},
            }
            found = _instances(pred["masks"][:, 0] >= MASK_THRESHOLD, pred["labels"])
            for instance, score in zip(found, pred["scores"].tolist(), strict=True):
                instance["score"] = score
            truth = _instances(label["masks"] > 0, label["labels"])
            self.slices.append((image, truth, found))

    def _finish(self, engine: Engine) -> None:
        truth, predictions = coco_lists(gathered(self.slices))
        figures = average_precision(truth, predictions)
        engine.state.metrics.update(figures)
        if self.output_dir is not None and is_first_process():
            folder = Path(self.output_dir)
            write_table(folder / "summary.csv", [figures])
            (folder / "truth.json").write_text(json.dumps(truth))
            (folder / "predictions.json").write_text(json.dumps(predictions))


def _instances(masks: torch.Tensor, labels: torch.Tensor) -> list[dict[str, Any]]:
    """Describe instances, masks (n, rows, columns) of bool, as COCO has them."""
    result = []
    for mask, label in zip(masks.cpu().numpy(), labels.tolist(), strict=True):
        packed = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
        result.append(
            {
                "category_id": label,
                "segmentation": {**packed, "counts": packed["counts"].decode()},
                "area": float(coco_mask.area(packed)),
                "bbox": coco_mask.toBbox(packed).tolist(),
                "iscrowd": 0,
            }
        )
    return result


def coco_lists(slices: Sequence[Detected]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return annotations and results in COCO's formats."""
    truth: dict[str, Any] = {
        "info": {},
        "images": [],
        "annotations": [],
        "categories": [{"id": label, "name": name} for label, name in enumerate(LESIONS, start=1)],
    }
    predictions: list[dict[str, Any]] = []
    for number, (image, actual, found) in enumerate(slices, start=1):
        truth["images"].append({"id": number, **image})
        for instance in actual:
            identifier = len(truth["annotations"]) + 1
            truth["annotations"].append({"id": identifier, "image_id": number, **instance})
        predictions += [{"image_id": number, **instance} for instance in found]
    return truth, predictions


def average_precision(
    truth: Mapping[str, Any], predictions: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Compute "ap_50", "ap_75" and "ap_50_95" from COCO's lists; -1 without any instance."""
    names = ("ap_50_95", "ap_50", "ap_75")
    if not truth["annotations"]:
        return dict.fromkeys(names, -1.0)
    # pycocotools prints its progress, and takes no empty list.
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = dict(truth)
        coco.createIndex()
        found = coco.loadRes(deepcopy(list(predictions))) if predictions else COCO()
        if not predictions:
            found.dataset = {**truth, "annotations": []}
            found.createIndex()
        evaluation = COCOeval(coco, found, "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(names, map(float, evaluation.stats), strict=False))


class ClassificationMetrics:
    """Sensitivity and PPV of each class, accuracy and weighted F1 (paper, equations 3 to 6).

    Reads "pred" (slices, classes) logits and "label" (slices,) from an engine's output, and where
    the slices lie from its batch; measures those that show their study's class ("shows" of the
    batch), after `smooth_along_slices`, and studies by `aggregate_slices` of all that there are.

    Parameters
    ----------
    smooth_slices_mm
        Deviation of the Gaussian that smooths logits along the slices.
    output_dir
        Folder of ``summary.csv`` and, with true class, class and probabilities of each,
        ``slices.csv`` and ``studies.csv``; None writes none.
    """

    def __init__(self, smooth_slices_mm: float, output_dir: str | None = None) -> None:
        self.smooth_slices_mm = smooth_slices_mm
        self.output_dir = output_dir
        self.rows: list[JudgedSlice] = []

    def attach(self, engine: Engine) -> None:
        """Listen to an evaluator."""
        engine.add_event_handler(Events.EPOCH_STARTED, lambda _: self.rows.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish)

    def _add(self, engine: Engine) -> None:
        batch, output = engine.state.batch, engine.state.output
        where = (batch[key] for key in ("name", "slice", "slice_mm"))
        said = (output["pred"].tolist(), output["label"].tolist(), batch["shows"])
        self.rows += starmap(JudgedSlice, zip(*where, *said, strict=True))

    def _finish(self, engine: Engine) -> None:
        rows = sorted(gathered(self.rows), key=attrgetter("study", "index"))
        slices: list[Judged] = []
        studies: list[Judged] = []
        for name, group in groupby(rows, key=attrgetter("study")):
            of_study = list(group)
            logits = [row.logits for row in of_study]
            smooth = smooth_along_slices(logits, of_study[0].slice_mm, self.smooth_slices_mm)
            probabilities = expit(smooth).tolist()
            judged = zip(of_study, probabilities, strict=True)
            slices += [(name, values, row.label) for row, values in judged if row.shows]
            studies.append((name, aggregate_slices(probabilities)[1], of_study[0].label))
        figures = _figures(slices)
        figures |= {f"study_{name}": value for name, value in _figures(studies).items()}
        engine.state.metrics.update(figures)
        if self.output_dir is not None:
            folder = Path(self.output_dir)
            write_table(folder / "summary.csv", [figures])
            for file, judged in {"slices.csv": slices, "studies.csv": studies}.items():
                write_table(folder / file, [_judged(*row) for row in judged])


def _figures(rows: list[Judged]) -> dict[str, float]:
    return classification_figures([r[2] for r in rows], [int(np.argmax(r[1])) for r in rows])


def _judged(study: str, probabilities: list[float], label: int) -> dict[str, Any]:
    found = CLASSES[int(np.argmax(probabilities))]
    return {"study": study, "truth": CLASSES[label], "class": found, **_named(probabilities)}


def classification_figures(truth: ArrayLike, predicted: ArrayLike) -> dict[str, float]:
    """Compute the paper's figures from class indices; 0 stands for 0 / 0."""
    matrix = confusion_matrix(truth, predicted, labels=range(len(CLASSES))).astype(float)
    hits, actual, called = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    sensitivity = hits / np.maximum(actual, 1)
    ppv = hits / np.maximum(called, 1)
    f1 = 2 * hits / np.maximum(actual + called, 1)
    figures = {}
    for index, name in enumerate(CLASSES):
        figures[f"sensitivity {name}"] = float(sensitivity[index])
        figures[f"ppv {name}"] = float(ppv[index])
    figures["accuracy"] = float(hits.sum() / matrix.sum())
    figures["f1"] = float((f1 * actual).sum() / matrix.sum())
    return figures


def smooth_along_slices(logits: ArrayLike, slice_mm: float, deviation_mm: float) -> np.ndarray:
    """Let the slices around each have a say in its class, with the weights of a Gaussian.

    Parameters
    ----------
    logits
        (slices, classes) of one study, in the slices' order.
    slice_mm
        From one slice to the next.
    deviation_mm
        Of the Gaussian; 0 leaves the logits as they are.
    """
    values = np.asarray(logits, dtype=float)
    if not deviation_mm:
        return values
    return gaussian_filter1d(values, deviation_mm / slice_mm, axis=0, mode="nearest")


def aggregate_slices(probabilities: ArrayLike, share: float = 0.5) -> tuple[int, list[float]]:
    """Decide on a study from its slices.

    Disease shows in some slices only: the `share` of slices that look least like a control
    (at least one) speak for the study, with the mean of their probabilities.

    Parameters
    ----------
    probabilities
        (slices, classes).
    share
        0 to 1.

    Returns
    -------
    tuple
        Index of the class, and the study's probabilities of all classes.
    """
    values = np.asarray(probabilities, dtype=float)
    count = max(1, round(share * len(values)))
    speaking = np.argsort(values[:, CONTROL], kind="stable")[:count]
    mean = values[speaking].mean(axis=0)
    return int(mean.argmax()), mean.tolist()


class StudyTable:
    """Write ``slices.csv`` and ``studies.csv`` of an inference run.

    Parameters
    ----------
    output_dir
        Folder of the tables.
    """

    def __init__(self, output_dir: str) -> None:
        self.output_dir = Path(output_dir)
        self.slices: list[dict[str, Any]] = []
        self.studies: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Listen to an evaluator."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _add(self, engine: Engine) -> None:
        for batch, output in zip(engine.state.batch, engine.state.output, strict=True):
            name = Path(batch["image"].meta["filename_or_obj"]).name
            values = output["pred_slices"].tolist()
            for index, row in enumerate(values):
                self.slices.append({"study": name, "slice": index, **_named(row)})
            category, mean = aggregate_slices(values)
            self.studies.append({"study": name, "class": CLASSES[category], **_named(mean)})

    def _write(self, _engine: Engine) -> None:
        write_table(self.output_dir / "slices.csv", self.slices)
        write_table(self.output_dir / "studies.csv", self.studies)


def _named(probabilities: list[float]) -> dict[str, float]:
    return {name: round(p, 4) for name, p in zip(CLASSES, probabilities, strict=True)}
