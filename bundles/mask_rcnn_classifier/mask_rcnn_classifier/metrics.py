"""Figures of merit of both stages (paper 4.1, 4.2) and the study behind the slices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from numpy.typing import ArrayLike
from sklearn.metrics import confusion_matrix
from torchmetrics.detection import MeanAveragePrecision

from .data import CLASSES, CONTROL
from .shared import gathered, write_table

# Name of the study, probabilities of the classes, index of the true class.
Judged = tuple[str, list[float], int]


class DetectionMetrics:
    """Average precision of masks at IoU 0.5, 0.75 and 0.5:0.95 (MS COCO; paper, table 6).

    Reads lists of detections and of targets from an engine's "pred" and "label".

    Parameters
    ----------
    output_dir
        Folder of ``summary.csv``; None writes none.
    """

    def __init__(self, output_dir: str | None = None) -> None:
        self.output_dir = output_dir
        self.pairs: list[tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]] = []

    def attach(self, engine: Engine) -> None:
        """Listen to an evaluator."""
        engine.add_event_handler(Events.EPOCH_STARTED, lambda _: self.pairs.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish)

    def _add(self, engine: Engine) -> None:
        output = engine.state.output
        for pred, label in zip(output["pred"], output["label"], strict=True):
            found = {k: pred[k].cpu() for k in ("scores", "labels")}
            found["masks"] = pred["masks"][:, 0].cpu() >= 0.5
            truth = {"labels": label["labels"].cpu(), "masks": label["masks"].cpu() > 0}
            self.pairs.append((found, truth))

    def _finish(self, engine: Engine) -> None:
        metric = MeanAveragePrecision(iou_type="segm", sync_on_compute=False)
        pairs = gathered(self.pairs)
        metric.update([found for found, _ in pairs], [truth for _, truth in pairs])
        result = metric.compute()
        figures = {
            "ap_50": float(result["map_50"]),
            "ap_75": float(result["map_75"]),
            "ap_50_95": float(result["map"]),
        }
        engine.state.metrics.update(figures)
        if self.output_dir is not None:
            write_table(Path(self.output_dir, "summary.csv"), [figures])


class ClassificationMetrics:
    """Sensitivity and PPV of each class, accuracy and weighted F1 (paper, equations 3 to 6).

    Reads "pred" (slices, classes) logits and "label" (slices,) from an engine's output, and the
    studies' names from its batch; measures slices, and studies by `aggregate_slices`.

    Parameters
    ----------
    output_dir
        Folder of ``summary.csv`` and, with true class, class and probabilities of each,
        ``slices.csv`` and ``studies.csv``; None writes none.
    """

    def __init__(self, output_dir: str | None = None) -> None:
        self.output_dir = output_dir
        self.rows: list[Judged] = []

    def attach(self, engine: Engine) -> None:
        """Listen to an evaluator."""
        engine.add_event_handler(Events.EPOCH_STARTED, lambda _: self.rows.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish)

    def _add(self, engine: Engine) -> None:
        probabilities = engine.state.output["pred"].sigmoid().tolist()
        labels = engine.state.output["label"].tolist()
        self.rows += list(zip(engine.state.batch["name"], probabilities, labels, strict=True))

    def _finish(self, engine: Engine) -> None:
        slices = gathered(self.rows)
        of_study: dict[str, tuple[list[list[float]], int]] = {}
        for name, probabilities, label in slices:
            of_study.setdefault(name, ([], label))[0].append(probabilities)
        studies = [
            (name, aggregate_slices(rows)[1], label) for name, (rows, label) in of_study.items()
        ]
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


def aggregate_slices(probabilities: ArrayLike, share: float = 0.2) -> tuple[int, list[float]]:
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
