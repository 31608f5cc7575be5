"""Correlation of the lesion share, lung by lung."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tools.evaluate.__main__ import main


@pytest.fixture
def shares() -> pd.DataFrame:
    random = np.random.default_rng(1)
    truth = random.uniform(0, 80, (12, 2))
    found = np.clip(truth + random.normal(0, 9, truth.shape), 0, 100)
    return pd.DataFrame(
        {
            "case": [f"c{n}" for n in range(12)],
            "right_percent": found[:, 0],
            "left_percent": found[:, 1],
            "truth_right_percent": truth[:, 0],
            "truth_left_percent": truth[:, 1],
        }
    )


def run(frame: pd.DataFrame, folder: Path) -> int:
    frame.to_csv(folder / "list.csv", index=False)
    return main(["correlation", str(folder / "list.csv"), "--output", str(folder / "out")])


def test_pearson_per_lung(shares: pd.DataFrame, tmp_path: Path) -> None:
    assert run(shares, tmp_path) == 0
    found = pd.read_csv(tmp_path / "out" / "correlation.csv").set_index("lung")
    for lung in ("right", "left"):
        r = np.corrcoef(shares[f"{lung}_percent"], shares[f"truth_{lung}_percent"])[0, 1]
        row = found.loc[f"{lung} lung"]
        assert row["pearson"] == pytest.approx(r)
        # Fisher's transformation.
        bounds = np.tanh(np.arctanh(r) + np.array([-1, 1]) * 1.959964 / np.sqrt(12 - 3))
        assert [row["low"], row["high"]] == pytest.approx(bounds, abs=1e-5)
    larger = shares[["right_percent", "left_percent"]].max(axis=1)
    truth = shares[["truth_right_percent", "truth_left_percent"]].max(axis=1)
    assert found.at["severity score", "pearson"] == pytest.approx(np.corrcoef(larger, truth)[0, 1])
    assert (tmp_path / "out" / "scatter.png").stat().st_size > 5000


def test_equal_shares_have_no_correlation(shares: pd.DataFrame, tmp_path: Path) -> None:
    assert run(shares.assign(right_percent=0.0), tmp_path) == 0
    found = pd.read_csv(tmp_path / "out" / "correlation.csv").set_index("lung")
    assert np.isnan(found.at["right lung", "pearson"])
    assert not np.isnan(found.at["left lung", "pearson"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="truth_left_percent"), "case c0 has no true share"),
        (lambda f: f.drop(columns="right_percent"), "case c0 has no predicted share"),
        (lambda f: f.iloc[:2], "needs at least 3 cases"),
    ],
)
def test_bad_lists_are_refused(
    shares: pd.DataFrame,
    change,
    message: str,
    tmp_path: Path,
    capsys,
) -> None:
    assert run(change(shares), tmp_path) == 2
    assert message in capsys.readouterr().err
