"""Readers and a model against panels: what CoRSAI's tables 4 to 7 are made of."""

import itertools
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ct_triage.severity import CATEGORIES, severity_category
from tools.evaluate.__main__ import main
from tools.evaluate.ct_classes import DEFAULT_BOUNDS, classify, fit_bounds
from tools.evaluate.readers import accuracy_table, classification, panel_of, stratified_halves

READERS = [f"R{n}" for n in range(1, 7)]
CASES = 16


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def masks(seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    truth = random.random((4, 9, 9)) < 0.4
    return {
        rater: truth ^ (random.random(truth.shape) < 0.05 * n)
        for n, rater in enumerate([*READERS, "model"], 1)
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("masks")
    random = np.random.default_rng(2)
    rows = []
    for case in range(CASES):
        share = 95 * case / CASES
        for rater, mask in masks(case).items():
            file = folder / f"c{case}_{rater}.nii"
            array = mask.transpose(2, 1, 0).astype(np.uint8)
            nibabel.save(nibabel.Nifti1Image(array, np.diag([1, 1, 4, 1])), file)
            # The model sees half of what the readers estimate.
            seen = share / 2 if rater == "model" else np.clip(share + random.normal(0, 6), 0, 100)
            rows.append(
                {
                    "case": f"c{case}",
                    "rater": rater,
                    "mask": str(file),
                    "right_percent": round(float(seen), 2),
                    "left_percent": round(float(seen) * 0.8, 2),
                    "ct_class": "" if rater == "model" else CATEGORIES[int(classify(seen / 100))],
                }
            )
    return pd.DataFrame(rows)


@pytest.fixture
def readings(written: pd.DataFrame) -> pd.DataFrame:
    return written.copy()


def run(frame: pd.DataFrame, folder: Path, *options: str) -> int:
    frame.to_csv(folder / "list.csv", index=False)
    return main(["readers", str(folder / "list.csv"), "--output", str(folder / "out"), *options])


def test_a_panel_is_a_majority_of_at_least_three() -> None:
    votes = [np.arange(6) < n for n in (1, 2, 3, 4, 5)]
    assert panel_of(votes, 3).tolist() == [True, True, True, False, False, False]


def test_command_compares_each_with_the_panel_of_the_others(
    readings: pd.DataFrame, tmp_path: Path
) -> None:
    assert run(readings, tmp_path) == 0
    table = pd.read_csv(tmp_path / "out" / "dice.csv").set_index("rater")
    scores: dict[str, list] = {}
    for case in range(CASES):
        found = masks(case)
        for reader in READERS:
            others = np.sum([found[r] for r in READERS if r != reader], axis=0)
            scores.setdefault(reader, []).append(
                (dice(found[reader], others >= 3), dice(found["model"], others >= 3))
            )
    for reader in READERS:
        own, model = np.array(scores[reader]).T
        assert table.at[reader, "reader mean"] == pytest.approx(own.mean())
        assert table.at[reader, "model mean"] == pytest.approx(model.mean())
        assert table.at[reader, "model std"] == pytest.approx(model.std())
        p = stats.ttest_ind(own, model).pvalue
        assert table.at[reader, "p (independent)"] == pytest.approx(p, rel=1e-4)
        assert table.at[reader, "p (paired)"] == pytest.approx(stats.wilcoxon(own, model).pvalue)
    everything = np.concatenate(list(scores.values()))
    assert table.at["all readers", "n"] == len(READERS) * CASES
    assert table.at["all readers", "reader mean"] == pytest.approx(everything[:, 0].mean())
    pairs = pd.read_csv(tmp_path / "out" / "pairs.csv").set_index(["one", "other"])
    expected = np.mean([dice(masks(c)["R2"], masks(c)["model"]) for c in range(CASES)])
    assert pairs.at[("R2", "model"), "mean Dice"] == pytest.approx(expected)
    assert len(pairs) == 21
    together = pd.read_csv(tmp_path / "out" / "inter_rater.csv").set_index("rater")
    between = pairs.drop(index="model", level="other")
    row = together.loc["all readers"]
    assert row["reader mean"] == pytest.approx(between["mean Dice"].mean())
    assert row["model mean"] == pytest.approx(pairs.xs("model", level="other")["mean Dice"].mean())

    shares = pd.read_csv(tmp_path / "out" / "shares.csv").set_index("rater")
    errors = []
    for column in ("right_percent", "left_percent"):
        wide = readings.pivot(index="case", columns="rater", values=column)
        errors.append(wide["R4"] - wide[[r for r in READERS if r != "R4"]].mean(axis=1))
    both = pd.concat(errors)
    assert shares.at["R4", "reader MAE"] == pytest.approx(both.abs().mean())
    assert shares.at["R4", "reader ME"] == pytest.approx(both.mean())
    assert shares.at["R4", "n"] == 2 * CASES
    assert shares.at["all readers", "model ME"] < -10

    accuracy = pd.read_csv(tmp_path / "out" / "accuracy.csv").set_index("rater")
    # Bounds of readers who see twice as much make up for what the model misses.
    fitted, default = accuracy.loc["all readers", ["combined model", "combined model before"]]
    assert fitted > default + 0.2
    bounds = pd.read_csv(tmp_path / "out" / "bounds.csv").set_index("rater")
    fitted = bounds.loc["all readers", ["full CT-2", "full CT-3", "full CT-4"]]
    np.testing.assert_allclose(fitted.astype(float), [0.125, 0.25, 0.375], atol=0.06)


def test_two_readers_are_compared_without_panels(readings: pd.DataFrame, tmp_path: Path) -> None:
    """The VGG16-UNet paper's table 4 is of two radiologists."""
    two = readings[readings["rater"].isin(["R1", "R6", "model"])][["case", "rater", "mask"]]
    assert run(two, tmp_path) == 0
    (row,) = pd.read_csv(tmp_path / "out" / "inter_rater.csv").to_dict("records")
    found = [masks(case) for case in range(CASES)]
    between = np.array([dice(m["R1"], m["R6"]) for m in found])
    model = np.array([[dice(m["model"], m[r]) for r in ("R1", "R6")] for m in found]).mean(axis=1)
    assert row["reader mean"] == pytest.approx(between.mean())
    assert row["model mean"] == pytest.approx(model.mean())
    assert row["model - reader"] == pytest.approx((model - between).mean())
    assert row["low"] < row["model - reader"] < row["high"]
    assert row["n"] == CASES
    assert not (tmp_path / "out" / "dice.csv").exists()


def test_bounds_are_the_best_of_all() -> None:
    random = np.random.default_rng(4)
    for _ in range(20):
        shares = random.choice(np.linspace(0, 1, 9), 14)
        classes = random.integers(0, 5, 14)
        values = np.unique(shares[shares > 0])
        edges = [0.001, *(values[:-1] + values[1:]) / 2, *([1.0] if values[-1] < 1 else [])]
        best = max(
            (classify(shares, bounds) == classes).sum()
            for bounds in itertools.combinations_with_replacement(edges, 3)
        )
        assert (classify(shares, fit_bounds(shares, classes)) == classes).sum() == best


def test_bounds_without_need_stay_near_the_default() -> None:
    shares = np.array([0, 0.1, 0.2, 0.3, 0.45, 0.55, 0.7, 0.8, 0.95])
    assert fit_bounds(shares, classify(shares)) == pytest.approx(DEFAULT_BOUNDS, abs=0.05)
    assert fit_bounds([0.0, 0.0], [0, 0]) == DEFAULT_BOUNDS


def test_a_share_on_a_bound_is_of_the_class_that_the_application_gives_it() -> None:
    shares = [0, 1e-9, 0.25, 0.26, 0.5, 0.51, 0.75, 0.76, 1]
    assert classify(shares).tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert [CATEGORIES[n] for n in classify(shares)] == [severity_category(100 * s) for s in shares]


def test_halves_hold_the_same_classes() -> None:
    classes = ["CT-1"] * 8 + ["CT-2"] * 6 + ["CT-3"] * 4
    one, other = stratified_halves(classes, 0)
    assert sorted([*one, *other]) == list(range(18))
    assert sorted(classes[i] for i in one) == sorted(classes[i] for i in other)


def test_bounds_are_never_tested_on_the_cases_they_are_fitted_to(readings: pd.DataFrame) -> None:
    readings["reference_class"] = np.nan
    _, answers = classification(readings, "model", 0)
    # Other classes in one half change the model's answers in the other half alone.
    half = answers[(answers["rater"] == "R1") & (answers["split"] == 1)]["case"]
    changed = readings.copy()
    of_half = changed["case"].isin(half) & (changed["rater"] != "model")
    changed.loc[of_half, "ct_class"] = "CT-1"
    _, after = classification(changed, "model", 0)
    tested = after[after["split"] == 2].set_index(["case", "rater"])["model"]
    before = answers[answers["split"] == 2].set_index(["case", "rater"])["model"]
    assert not tested.equals(before)
    table = accuracy_table(answers).set_index("rater")
    assert table.at["R1", "combined model"] == pytest.approx(
        answers[answers["rater"] == "R1"]["model"].mean()
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f[f["rater"] != "model"], "no rater 'model' among R1"),
        (lambda f: f.drop(index=9), "case c1 has no reading by R3"),
        (lambda f: f[f["rater"].isin(["R1", "R2", "model"])], "at least three readers"),
        (lambda f: f[f["rater"].isin(["R1", "model"])], "at least two readers"),
        (lambda f: f[["case", "rater"]], "nothing to compare"),
        (lambda f: f.assign(mask=f["mask"].where(f.index != 2, "")), "case c0: R3 has no mask"),
        (lambda f: f.replace({"ct_class": {"CT-1": "1"}}), "ct_class '1' is none of CT-0"),
        (lambda f: f.drop(columns="left_percent"), "ct_class needs the model's right_percent"),
        (lambda f: f[f["case"].isin(["c1", "c2", "c9"])], "3 cases are too few"),
    ],
)
def test_bad_readings_are_refused(
    readings: pd.DataFrame,
    change,
    message: str,
    tmp_path: Path,
    capsys,
) -> None:
    assert run(change(readings), tmp_path) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
