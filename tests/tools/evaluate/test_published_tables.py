"""The papers' tables that follow from numbers printed in them, and those that do not.

Published values are in percent where the papers print percent. Where a table disagrees with
itself, the test says what it would have to be, so that the list in the README stays true.
"""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

from tools.evaluate.classes import overall
from tools.evaluate.statistics import (
    CLASS_METRICS,
    cases_of,
    class_metrics,
    half_width_95,
    two_sample_p,
)
from tools.evaluate.triage import ALL_OTHERS, confusion, roc_aucs

CT = ["CT-0", "CT-1", "CT-2", "CT-3", "CT-4"]

# --- Cascaded paper (Qiblawey et al. 2021) --------------------------------------------------
# Table 8: accuracy, precision, sensitivity, F1, specificity, each with its interval.
TABLE_8 = {
    "CT-0": [98.92, 1.27, 100, 0, 95.28, 2.61, 97.58, 1.89, 100, 0],
    "CT-1": [96.67, 1.35, 95.89, 1.49, 98.83, 0.81, 97.34, 1.21, 93.19, 1.89],
    "CT-2": [95.23, 3.74, 83.96, 6.43, 71.2, 7.94, 77.06, 7.37, 98.27, 2.28],
    "CT-3": [97.3, 4.74, 63.64, 14.06, 77.78, 12.15, 70, 13.39, 98.12, 3.97],
    "CT-4": [100, 0, 100, 0, 100, 0, 100, 0, 100, 0],
    "average": [97.05, 1, 94.18, 1.38, 94.05, 1.39, 94, 1.4, 95.53, 1.22],
}
# Figure 8 is a picture. Its row sums are printed (2.1), its diagonal and column sums follow from
# table 8's sensitivities and precisions, and two tables fit them when, as 4.4 says, the 12
# misclassified of CT-0 are slightly ill ones (CT-1) and no COVID-19 case is called CT-0.
FIGURE_8 = [
    [
        [242, 12, 0, 0, 0],
        [0, 676, 8 - odd, odd, 0],
        [0, 16 + odd, 89, 20 - odd, 0],
        [0, 1 - odd, 9 + odd, 35, 0],
        [0, 0, 0, 0, 2],
    ]
    for odd in (0, 1)
]


@pytest.mark.parametrize("matrix", FIGURE_8)
def test_cascaded_table_8_follows_from_figure_8(matrix: list[list[int]]) -> None:
    assert np.sum(matrix, axis=1).tolist() == [254, 684, 125, 45, 2]
    found = class_metrics(*cases_of(matrix, CT), CT).set_index("class")
    for name, printed in TABLE_8.items():
        for metric, value, interval in zip(CLASS_METRICS, printed[::2], printed[1::2], strict=True):
            assert 100 * found.at[name, metric] == pytest.approx(value, abs=0.0051)
            assert 100 * found.at[name, f"{metric}_interval"] == pytest.approx(interval, abs=0.0051)


TABLE_7 = {
    "UNet": [95.23, 0.7, 84.92, 1.18, 99.35, 0.27, 91.57, 0.92, 93.77, 0.8],
    "ResNet18 UNet": [94.6, 0.75, 84.03, 1.21, 99.78, 0.15, 91.32, 0.93, 92.46, 0.87],
    "ResNet50 UNet": [95.66, 0.67, 85.91, 1.15, 99.69, 0.18, 92.29, 0.88, 94.24, 0.77],
    "ResNet152 UNet": [95.68, 0.67, 86.06, 1.14, 99.56, 0.22, 92.32, 0.88, 94.31, 0.77],
    "DenseNet121 UNet": [95.86, 0.66, 86.59, 1.13, 99.53, 0.23, 92.61, 0.86, 94.57, 0.75],
    "DenseNet161 UNet": [95.61, 0.68, 85.9, 1.15, 99.26, 0.28, 92.1, 0.89, 94.35, 0.76],
    "DenseNet201 UNet": [95.93, 0.65, 86.67, 1.12, 99.64, 0.2, 92.7, 0.86, 94.63, 0.74],
    "ResNet18 FPN": [95.74, 0.67, 86.25, 1.14, 99.4, 0.26, 92.36, 0.88, 94.46, 0.76],
    "ResNet50 FPN": [95.77, 0.66, 86.29, 1.14, 99.45, 0.24, 92.4, 0.88, 94.49, 0.75],
    "ResNet152 FPN": [98.44, 0.41, 95.07, 0.72, 99.48, 0.24, 97.23, 0.54, 98.04, 0.46],
    "DenseNet121 FPN": [97.16, 0.55, 91.67, 0.91, 99, 0.33, 95.19, 0.71, 96.43, 0.61],
    "DenseNet161 FPN": [97.05, 0.56, 90.62, 0.96, 98.91, 0.34, 94.58, 0.75, 96.39, 0.62],
    "DenseNet201 FPN": [98.96, 0.34, 96.47, 0.61, 99.64, 0.2, 98.03, 0.46, 98.72, 0.37],
}


@pytest.mark.parametrize("network", TABLE_7)
def test_cascaded_table_7_intervals_are_of_3520_slices(network: str) -> None:
    row = TABLE_7[network]
    for value, interval in zip(row[::2], row[1::2], strict=True):
        assert 100 * half_width_95(value / 100, 3520) == pytest.approx(interval, abs=0.0101)
    _, precision, sensitivity, f1 = (row[i] for i in (0, 2, 4, 6))
    # One row's F1 is not that of its precision and sensitivity.
    printed = 91.23 if network == "ResNet18 UNet" else f1
    assert 2 * precision * sensitivity / (precision + sensitivity) == pytest.approx(
        printed, abs=0.0061
    )


def _share_of_positives(row: list[float]) -> float:
    """Solve accuracy = share * sensitivity + (1 - share) * specificity."""
    accuracy, sensitivity, specificity = row[0], row[4], row[8]
    return (accuracy - specificity) / (sensitivity - specificity)


def test_cascaded_table_7_is_not_of_one_set_of_slices() -> None:
    # All rows should be the same slices, with the same share of positive ones.
    shares = {name: _share_of_positives(row) for name, row in TABLE_7.items()}
    assert shares["UNet"] == pytest.approx(0.262, abs=0.002)
    assert shares["DenseNet201 FPN"] == pytest.approx(0.261, abs=0.006)
    apart = [name for name, share in shares.items() if abs(share - 0.262) > 0.01]
    assert apart == ["ResNet18 UNet", "ResNet152 FPN", "DenseNet121 FPN"]


# Tables 2 and 4: images, and how they are split: all, training, augmented, validation, test.
TABLE_4_SPLITS = {"lung": [4616, 2955, 11820, 923, 738], "lesion": [3520, 2253, 9012, 563, 704]}


def test_cascaded_table_4_adds_up_but_is_not_of_10_folds() -> None:
    # Table 2: the three collections with lung masks.
    assert TABLE_4_SPLITS["lung"][0] == 3520 + 829 + 267
    for whole, training, augmented, validation, test in TABLE_4_SPLITS.values():
        assert training + validation + test == whole
        assert augmented == 4 * training
        # 3.1: four fifths to train on, a fifth of these to validate on.
        assert training == pytest.approx(0.8 * 0.8 * whole, abs=2)
    # "20 % test": the columns of validation and test are exchanged for the lungs.
    _, _, _, validation, test = TABLE_4_SPLITS["lung"]
    assert validation == pytest.approx(0.2 * 4616, abs=1)
    assert test == pytest.approx(0.2 * 0.8 * 4616, abs=1)
    # 3.1 says 10 folds for lesions, which would test on 352 images; 704 are a fifth.
    assert TABLE_4_SPLITS["lesion"][4] == 3520 / 5


# Table 5 (N = 4616 slices) and table 6 (N = 3520): accuracy, IoU, Dice with intervals.
TABLE_5 = {
    "UNet": [99.70, 0.16, 95.04, 0.63, 96.61, 0.52],
    "ResNet18 UNet": [99.70, 0.16, 95.01, 0.63, 96.84, 0.5],
    "DenseNet121 UNet": [99.70, 0.16, 95.35, 0.61, 97.11, 0.48],
    "DenseNet161 UNet": [99.69, 0.16, 95.10, 0.62, 97.19, 0.48],
    "DenseNet201 UNet": [94.88, 0.64, 94.88, 0.64, 97.00, 0.49],
    "ResNet152 FPN": [99.66, 0.17, 93.92, 0.69, 96.00, 0.57],
    "DenseNet201 FPN": [99.67, 0.17, 94.35, 0.67, 96.39, 0.54],
}
TABLE_6 = {
    "UNet": [99.82, 0.18, 90.2, 0.72, 92.52, 0.6],
    "ResNet18 FPN": [99.81, 0.2, 91.45, 0.81, 93.80, 0.67],
    "DenseNet201 FPN": [99.81, 0.19, 91.85, 0.76, 94.13, 0.62],
}


@pytest.mark.parametrize("network", TABLE_5)
def test_cascaded_table_5_intervals_are_of_4616_slices(network: str) -> None:
    row = TABLE_5[network]
    for value, interval in zip(row[::2], row[1::2], strict=True):
        assert 100 * half_width_95(value / 100, 4616) == pytest.approx(interval, abs=0.0101)


@pytest.mark.parametrize("network", TABLE_6)
def test_cascaded_table_6_intervals_do_not_follow(network: str) -> None:
    accuracy, its_interval, iou, iou_interval, *_ = TABLE_6[network]
    assert 100 * half_width_95(accuracy / 100, 3520) < its_interval - 0.03
    assert 100 * half_width_95(iou / 100, 3520) > iou_interval + 0.09


@pytest.mark.parametrize("row", [*TABLE_5.values(), *TABLE_6.values()])
def test_cascaded_overlaps_are_not_of_one_confusion_matrix(row: list[float]) -> None:
    # Of pooled voxels, as 3.2 says, Dice = 2 IoU / (1 + IoU); means over slices lie lower.
    iou, dice = row[2] / 100, row[4] / 100
    assert dice < 2 * iou / (1 + iou) - 0.002


# --- CoRSAI ----------------------------------------------------------------------------------
# Table 4: mean, standard deviation of the radiologist and of the model, cases, p.
TABLE_4 = [
    (0.650, 0.225, 0.676, 0.239, 20, 0.728),
    (0.681, 0.218, 0.682, 0.239, 20, 0.985),
    (0.697, 0.191, 0.709, 0.178, 20, 0.832),
    (0.662, 0.224, 0.713, 0.176, 20, 0.443),
    (0.699, 0.202, 0.686, 0.235, 20, 0.855),
    (0.251, 0.090, 0.695, 0.186, 20, 0.000),
    (0.606, 0.254, 0.694, 0.211, 120, 0.004),
]


def _student(mean: float, std: float, other: float, other_std: float, n: int) -> float:
    # The paper's are population standard deviations.
    sample = np.sqrt(n / (n - 1))
    return stats.ttest_ind_from_stats(mean, std * sample, n, other, other_std * sample, n).pvalue


@pytest.mark.parametrize("row", TABLE_4)
def test_corsai_table_4_p_values_are_of_independent_t_tests(row: tuple) -> None:
    mean, std, other, other_std, n, printed = row
    # Means are rounded to 0.001, which at equal means is all the difference there is.
    possible = [
        _student(mean + a, std, other + b, other_std, n)
        for a, b in itertools.product((-0.0005, 0, 0.0005), repeat=2)
    ]
    assert min(possible) - 0.0015 <= printed <= max(possible) + 0.0015


def test_corsai_table_4_last_row_is_of_all_readings() -> None:
    for start, mean, std in ((0, 0.606, 0.254), (2, 0.694, 0.211)):
        means = np.array([row[start] for row in TABLE_4[:-1]])
        stds = np.array([row[start + 1] for row in TABLE_4[:-1]])
        assert means.mean() == pytest.approx(mean, abs=0.00101)
        assert np.sqrt((stds**2).mean() + means.var()) == pytest.approx(std, abs=0.001)
    assert sum(row[2] > row[0] for row in TABLE_4[:-1]) == 5


def test_corsai_table_5_last_row_is_the_mean() -> None:
    rows = np.array(
        [
            [0.08, -0.06, 0.13, -0.13],
            [0.10, 0.10, 0.11, -0.11],
            [0.06, -0.03, 0.13, -0.13],
            [0.07, 0.03, 0.12, -0.12],
            [0.09, 0.07, 0.11, -0.11],
            [0.12, -0.11, 0.14, -0.14],
        ]
    )
    np.testing.assert_allclose(rows.mean(axis=0), [0.09, 0.00, 0.13, -0.12], atol=0.01)


# Table 7: accuracies of radiologist and model on split 1, split 2 and together, p.
TABLE_CT = [
    (0.76, 0.86, 0.76, 0.83, 0.76, 0.84, 0.248),
    (0.59, 0.90, 0.66, 0.86, 0.62, 0.88, 0.001),
    (0.72, 0.90, 0.83, 0.90, 0.78, 0.90, 0.080),
    (0.66, 0.90, 0.76, 0.90, 0.71, 0.90, 0.010),
    (0.66, 0.83, 0.86, 0.72, 0.76, 0.78, 0.828),
    (0.55, 0.83, 0.83, 0.97, 0.69, 0.90, 0.006),
]
ALL_CT = (0.66, 0.87, 0.78, 0.86, 0.72, 0.86, 1.66e-6)


def _answers(right: int, n: int) -> np.ndarray:
    return np.arange(n) < right


def test_corsai_table_7_follows_from_whole_cases() -> None:
    counts = np.array([[round(value * 29) for value in row[:4]] for row in TABLE_CT])
    for row, (one, model_one, two, model_two) in zip(TABLE_CT, counts, strict=True):
        assert [n / 29 for n in (one, model_one, two, model_two)] == pytest.approx(
            row[:4], abs=0.0051
        )
        reader, model = one + two, model_one + model_two
        assert (reader / 58, model / 58) == pytest.approx(row[4:6], abs=0.0051)
        p = two_sample_p(_answers(reader, 58), _answers(model, 58))
        assert p == pytest.approx(row[6], abs=0.0006)
    sums = counts.sum(axis=0)
    assert [n / 174 for n in sums] == pytest.approx(ALL_CT[:4], abs=0.0055)
    reader, model = sums[0] + sums[2], sums[1] + sums[3]
    p = two_sample_p(_answers(reader, 348), _answers(model, 348))
    assert p == pytest.approx(ALL_CT[6], rel=0.01)


# --- COVID-CT-Mask-Net ---------------------------------------------------------------------
# Share of each class in the test split (2.2), then sensitivity and precision of each class,
# overall accuracy and F1 (table 4).
CLASSES = ["COVID-19", "CP", "Control"]
SHARES = np.array([0.20, 0.35, 0.45])
TABLE_MASK_NET = {
    "only S": ([76.30, 71.13, 82.37], [81.13, 67.70, 83.38], 77.20, 77.30),
    "S+BN": ([90.80, 91.62, 91.10], [94.75, 87.08, 94.33], 91.66, 91.50),
    "full": ([82.26, 91.70, 97.21], [87.01, 95.22, 95.33], 92.22, 92.93),
}


def _overall(sensitivity: list[float]) -> float:
    """Give the tool cases with these sensitivities; return the accuracy in percent."""
    n = (SHARES * 20_000).astype(int)
    right = (n * np.array(sensitivity) / 100).round().astype(int)
    matrix = np.diag(right)
    matrix[np.arange(3), [1, 2, 0]] = n - right
    return 100 * overall(*cases_of(matrix, CLASSES))["overall accuracy"]


def _f1(sensitivity: list[float], precision: list[float]) -> float:
    s, p = np.array(sensitivity), np.array(precision)
    return float((SHARES * 2 * s * p / (s + p)).sum())


def test_mask_net_table_4_follows_from_its_sensitivities() -> None:
    for name in ("only S", "full"):
        sensitivity, precision, accuracy, f1 = TABLE_MASK_NET[name]
        # The shares are printed in whole percent.
        assert _overall(sensitivity) == pytest.approx(accuracy, abs=0.1)
        assert _f1(sensitivity, precision) == pytest.approx(f1, abs=0.05)


def test_mask_net_table_4_and_abstract_differ_in_the_control_class() -> None:
    sensitivity, precision, accuracy, f1 = TABLE_MASK_NET["S+BN"]
    in_abstract = [*sensitivity[:2], 92.10]
    assert _overall(in_abstract) == pytest.approx(accuracy, abs=0.05)
    assert _overall(sensitivity) < accuracy - 0.4
    assert _f1(sensitivity, precision) == pytest.approx(f1, abs=0.05)
    assert _f1(in_abstract, precision) > f1 + 0.2


def test_mask_net_table_4_full_model_is_not_of_one_confusion_matrix() -> None:
    # Images called a class, TP / precision, must add up to all images.
    called = {
        name: float((SHARES * np.array(s) / np.array(p)).sum())
        for name, (s, p, *_) in TABLE_MASK_NET.items()
    }
    assert called["only S"] == pytest.approx(1, abs=0.001)
    assert called["full"] == pytest.approx(0.985, abs=0.001)


# Table 7: the same of the 58782 images that were left out of training; class sizes unprinted.
TABLE_7_MASK_NET = {
    "only S": ([79.21, 70.12, 85.73], 78.56),
    "S+BN": ([93.18, 90.68, 94.22], 93.89),
    "full": ([81.14, 90.01, 94.00], 90.22),
}


def test_mask_net_table_7_is_of_no_class_sizes() -> None:
    sensitivity = np.array([s for s, _ in TABLE_7_MASK_NET.values()])
    accuracy = np.array([a for _, a in TABLE_7_MASK_NET.values()])
    # The shares of the classes, and how far off the accuracies are with the best of them.
    ones = np.ones((3, 1))
    found = optimize.linprog(
        [0, 0, 0, 1],
        A_ub=np.block([[sensitivity, -ones], [-sensitivity, -ones]]),
        b_ub=np.concatenate([accuracy, -accuracy]),
        A_eq=[[1, 1, 1, 0]],
        b_eq=[1],
    )
    assert found.x[3] == pytest.approx(0.956, abs=0.001)


def test_mask_net_table_1_ratios_of_test_to_training() -> None:
    assert pytest.approx(7.06, abs=0.005) == 21192 / 3000
    assert pytest.approx(0.153, abs=0.001) == 100 / 650


@pytest.mark.parametrize(
    ("covid", "negative", "printed"),
    [(85.45, 81.27, 82.01), (93.91, 91.46, 92.20), (91.31, 87.27, 88.91)],
)
def test_mask_net_table_9_f1_is_near_what_its_sensitivities_give(
    covid: float, negative: float, printed: float
) -> None:
    n = np.array([3701, 9275])
    right = (n * np.array([covid, negative]) / 100).round().astype(int)
    matrix = np.array([[right[0], n[0] - right[0]], [n[1] - right[1], right[1]]])
    f1 = 100 * overall(*cases_of(matrix, ["COVID-19", "Negative"]))["weighted F1"]
    assert f1 != pytest.approx(printed, abs=0.05)
    assert f1 == pytest.approx(printed, abs=1.2)


# --- Multitask paper -----------------------------------------------------------------------
# Table 2: AUC against all others, normal (31 studies), bacterial pneumonia (30), nodules (30).
TABLE_2 = {
    "Thresholding": (0.51, 0.68, 0.46, 0.45),
    "3D U-Net": (0.76, 0.89, 0.59, 0.79),
    "2D U-Net": (0.78, 0.93, 0.62, 0.79),
    "2D U-Net+": (0.86, 0.98, 0.68, 0.91),
    "ResNet50": (0.62, 0.67, 0.55, 0.65),
    "Multitask-Latent": (0.79, 0.84, 0.73, 0.80),
    "Multitask-Spatial-4": (0.89, 0.94, 0.83, 0.91),
    "Multitask-Spatial-1": (0.93, 0.97, 0.87, 0.93),
}


@pytest.mark.parametrize("method", TABLE_2)
def test_multitask_table_2_auc_against_all_is_the_mean_of_the_groups(method: str) -> None:
    # Of the same positives, the area against a union is the mean weighted by the groups' sizes.
    printed, *groups = TABLE_2[method]
    expected = np.average(groups, weights=[31, 30, 30])
    if method == "Thresholding":
        assert expected - printed > 0.02
    else:
        assert expected == pytest.approx(printed, abs=0.01)


def test_areas_against_groups_average_to_that_against_all() -> None:
    random = np.random.default_rng(5)
    classes = pd.Series(np.repeat(["covid19", "normal", "bacterial", "nodules"], [32, 31, 30, 30]))
    scores = pd.Series(random.normal(size=123) + (classes == "covid19"))
    found = roc_aucs(classes, scores, "covid19")
    groups = [found[name] for name in ("normal", "bacterial", "nodules")]
    assert found[ALL_OTHERS] == pytest.approx(np.average(groups, weights=[31, 30, 30]))


def test_multitask_figure_5_counts_are_of_the_test_set() -> None:
    counts = {"covid19": (1, 31), "bacterial": (22, 8), "nodules": (26, 4), "normal": (31, 0)}
    rows = [
        {"class": name, "score": score}
        for name, (negative, positive) in counts.items()
        for score in [0.2] * negative + [0.8] * positive
    ]
    found = confusion(pd.DataFrame(rows), 0.5, "covid19").set_index("class")
    assert {n: (r["negative"], r["positive"]) for n, r in found.iterrows()} == counts
    assert found.index[0] == "covid19"
    assert found.sum(axis=1).to_dict() == {
        "covid19": 32, "bacterial": 30, "nodules": 30, "normal": 31
    }  # fmt: skip


# --- VGG16-UNet paper ----------------------------------------------------------------------
def test_vgg_gaps_follow_from_tables_4_and_5() -> None:
    between_readers, at_half, calibrated = 64.01, 58.27, 63.48
    assert between_readers - at_half == pytest.approx(5.74)
    assert between_readers - calibrated == pytest.approx(0.53)
    # Equal thresholds give equal Dice on the fixed test half.
    table_5 = [(0.10, 66.29), (0.05, 64.88), (0.05, 64.88), (0.10, 66.29), (0.05, 64.88)]
    assert len(set(table_5)) == len({threshold for threshold, _ in table_5}) == 2
    assert 66.29 - 61.16 > 5
