"""The paper's figures of merit (section 2.5), with a table of all studies behind them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.metrics import compute_dice
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from .shared import gathered, write_table

COLUMNS = ("name", "diagnosis", "covid19", "dice", "share", "true_share", "probability")


class TriageMetrics:
    """Gather a row a study and write ``studies.csv`` and ``summary.csv``.

    Rows hold the Dice coefficient of lesions (where a mask with a lesion is known), the lesion
    share of the lungs in the prediction and in the mask, and the COVID-19 probability. The
    summary has the areas under the ROC curve, COVID-19 against each other diagnosis and against
    all of them, the mean Dice coefficient and Spearman's correlation of the shares among studies
    that have lesions.

    Reads from an engine's batch and output, study by study: "name", "diagnosis", "covid19",
    "pred_identification" (probability) and, where the network segments and where they are known,
    "pred_lesion", "lesion" and "lung" (1, rows, columns, slices).

    Parameters
    ----------
    output_dir
        Folder of the tables; None writes none.
    """

    def __init__(self, output_dir: str | None = None) -> None:
        self.output_dir = output_dir
        self.rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Listen to an evaluator."""
        engine.add_event_handler(Events.EPOCH_STARTED, lambda _: self.rows.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish)

    def _add(self, engine: Engine) -> None:
        pairs = zip(engine.state.batch, engine.state.output, strict=True)
        self.rows.extend(_row({**batch, **output}) for batch, output in pairs)

    def _finish(self, engine: Engine) -> None:
        rows = gathered(self.rows)
        # Samplers that even out processes repeat studies.
        rows = sorted({row["name"]: row for row in rows}.values(), key=lambda row: row["name"])
        summary = summarise(rows)
        engine.state.metrics.update(summary)
        if self.output_dir is not None:
            write_table(Path(self.output_dir, "studies.csv"), rows)
            figures = [{"figure": name, "value": value} for name, value in summary.items()]
            write_table(Path(self.output_dir, "summary.csv"), figures)


def summarise(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Compute the figures of merit from rows; those that the rows cannot give are left out."""
    figures: dict[str, float] = {}
    covid19 = [row for row in rows if row["covid19"] == 1]
    others = [row for row in rows if row["covid19"] == 0]
    subsets = {"all": others} | {
        diagnosis: [row for row in others if row["diagnosis"] == diagnosis]
        for diagnosis in sorted({row["diagnosis"] for row in others})
    }
    for name, subset in subsets.items():
        if covid19 and subset:
            figures[f"roc_auc_{name}"] = float(
                roc_auc_score(
                    [1] * len(covid19) + [0] * len(subset),
                    [row["probability"] for row in covid19 + subset],
                )
            )
    dice = [row["dice"] for row in rows if row["dice"] is not None]
    if dice:
        figures["mean_dice"] = float(np.mean(dice))
    shares = [(row["share"], row["true_share"]) for row in rows if row["true_share"]]
    if len(shares) > 2:
        figures["severity_spearman"] = float(spearmanr(*zip(*shares, strict=True)).statistic)
    return figures


def _row(study: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row["name"], row["diagnosis"] = study["name"], study["diagnosis"]
    row["covid19"] = int(study["covid19"])
    row["probability"] = round(float(study["pred_identification"]), 4)
    if {"pred_lesion", "lung"} <= study.keys():
        lung = study["lung"] > 0
        pred = study["pred_lesion"] > 0
        row["share"] = _share(pred, lung)
        if "lesion" in study:
            truth = study["lesion"] > 0
            row["true_share"] = _share(truth, lung)
            if truth.any():
                row["dice"] = round(float(compute_dice(pred[None], truth[None])), 4)
    return row


def _share(lesion: torch.Tensor, lung: torch.Tensor) -> float:
    return round(float((lesion & lung).sum() / lung.sum().clamp(min=1)), 5)
