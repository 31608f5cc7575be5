"""Intervals over patients: those of SciPy, with all cases of a drawn patient."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import confusion_matrix

from tools.evaluate.bootstrap import group_means, intervals
from tools.evaluate.classes import overall, overall_figures
from tools.evaluate.segmentation import METRICS, pooled, summary
from tools.evaluate.slices import detection_table
from tools.evaluate.statistics import binary_metrics, metrics_of_counts, over_groups, shown_means
from tools.evaluate.triage import evaluate, figures_of
from tools.evaluate.triage import summary as triage_summary

RANDOM = np.random.default_rng(6)


def test_one_case_a_patient_is_the_bootstrap_of_scipy() -> None:
    values = RANDOM.random(25)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=400, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    (found,) = intervals(lambda rows: [values[rows].mean()], np.arange(25).astype(str), 400)
    assert found == pytest.approx([expected.low, expected.high])


def test_a_patient_is_drawn_with_all_cases() -> None:
    values = RANDOM.random(8)
    one = intervals(lambda rows: [values[rows].mean()], list("abcdefgh"), 500)
    # Ten equal studies of each patient tell no more than one.
    many = np.repeat(values, 10)
    ten = intervals(lambda rows: [many[rows].mean()], list(np.repeat(list("abcdefgh"), 10)), 500)
    np.testing.assert_allclose(one, ten)
    assert np.isnan(intervals(lambda rows: [many[rows].mean()], ["a"] * 80, 500)).all()
    assert np.isnan(intervals(lambda rows: [values[rows].mean()], list("abcdefgh"), 0)).all()


def test_every_class_is_in_every_draw_and_undefined_draws_are_left_out() -> None:
    classes = np.array(["sick"] * 2 + ["well"] * 6 + ["odd"])
    seen = []

    def share_of_sick(rows: np.ndarray) -> list[float]:
        seen.append({*classes[rows]})
        drawn = rows[classes[rows] == "sick"]
        # Undefined where the same patient was drawn twice.
        return [np.nan if len({*drawn}) < 2 else 1.0]

    limits = intervals(share_of_sick, [f"p{n}" for n in range(9)], 50, strata=classes)
    assert all(names == {"sick", "well", "odd"} for names in seen)
    assert limits.tolist() == [[1.0, 1.0]]


def test_means_over_groups_are_those_of_the_table() -> None:
    frame = pd.DataFrame(RANDOM.random((20, 3)), columns=["a", "b", "c"])
    frame.iloc[3, 1], frame.iloc[4, 2] = np.nan, np.inf
    frame["fold"], frame["training"] = [n % 4 for n in range(20)], [n % 2 for n in range(20)]
    for groups in ([], ["fold"], ["training", "fold"]):
        expected = over_groups(frame, groups, ("a", "b", "c"))["mean"]
        figures = group_means(frame[["a", "b", "c"]], [frame[g] for g in groups])
        np.testing.assert_allclose(figures(np.arange(20)), expected)


def test_segmentation_tables_have_intervals_that_hold_their_means() -> None:
    counts = RANDOM.integers(1, 50, (12, 4))
    cases = pd.DataFrame(counts, columns=["tp", "fp", "fn", "tn"]).assign(
        patient=[f"p{n // 2}" for n in range(12)], slices=10, truth_ml=1.0
    )
    cases[list(METRICS)] = RANDOM.random((12, len(METRICS)))
    found = summary(cases, 200)
    assert (found["low"] < found["mean"]).all()
    assert (found["mean"] < found["high"]).all()
    assert shown_means(found)["95 % interval"].str.fullmatch(r"\[0\.\d+, 0\.\d+\]").all()
    (row,) = pooled(cases, 200).to_dict("records")
    assert row["dice_low"] < row["dice"] < row["dice_high"]
    assert summary(cases)["low"].isna().all()


def test_slices_of_a_patient_are_drawn_together() -> None:
    slices = pd.DataFrame(
        {
            "patient": np.repeat(list("abcd"), 25),
            "training": "one",
            "true": RANDOM.random(100) < 0.5,
            "predicted": RANDOM.random(100) < 0.5,
        }
    )
    (row,) = detection_table(slices, 200).to_dict("records")

    right = (slices["true"] == slices["predicted"]).to_numpy()
    ((low, high),) = intervals(lambda rows: [right[rows].mean()], slices["patient"], 200)
    assert (row["accuracy_low"], row["accuracy_high"]) == pytest.approx((low, high))


def test_areas_under_the_curve_have_intervals_over_patients() -> None:
    classes = ["covid19"] * 6 + ["normal"] * 6 + ["nodules"] * 2
    frame = pd.DataFrame(
        {
            "training": "one",
            "patient": [f"p{n}" for n in range(14)],
            "class": classes,
            "score": [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.55, 0.45, 0.3, 0.2, 0.1, 0.1, 0.2, 0.3],
            "severity": np.arange(14.0),
            "truth_severity": np.arange(14.0) ** 2,
            "dice": 0.5,
        }
    )
    found = triage_summary(frame, "covid19", 100).set_index("metric")
    area = found.loc["AUC vs all others"]
    assert area["low"] < area["mean"] < area["high"] <= 1
    assert found.loc["AUC vs nodules", ["low", "mean", "high"]].to_list() == [1, 1, 1]
    assert found.loc["Spearman", ["low", "high"]].to_list() == pytest.approx([1, 1])


def test_quick_figures_of_all_rows_are_those_of_the_libraries() -> None:
    truth, predicted = RANDOM.choice(["a", "b", "c"], (2, 60))
    frame = pd.DataFrame({"truth": truth, "predicted": predicted, "training": [1, 2] * 30})
    each = [overall(part["truth"], part["predicted"]) for _, part in frame.groupby("training")]
    expected = pd.DataFrame(each).mean().to_list()
    assert overall_figures(frame)(np.arange(60)) == pytest.approx(expected)
    for ill, called in ((truth == "a", predicted == "a"), (truth == "z", predicted == "a")):
        counts = confusion_matrix(ill, called, labels=[False, True]).ravel()
        expected = list(binary_metrics(ill, called).values())
        assert metrics_of_counts(*counts) == pytest.approx(expected, nan_ok=True)
    frame = pd.DataFrame(
        {
            "training": [1, 2] * 30,
            "class": RANDOM.choice(["covid19", "normal", "nodules"], 60),
            "score": RANDOM.integers(0, 9, 60) / 8,
            "severity": RANDOM.integers(0, 9, 60) / 8,
            "truth_severity": RANDOM.random(60),
            "dice": np.where(RANDOM.random(60) < 0.3, np.nan, RANDOM.random(60)),
        }
    )
    expected = evaluate(frame, "covid19").drop(columns="training").mean().to_list()
    assert figures_of(frame, "covid19")(np.arange(60)) == pytest.approx(expected)
