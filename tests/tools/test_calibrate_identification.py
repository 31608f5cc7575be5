"""The temperature is found and helps patients that it was not fitted on; nobody is miscounted."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

sys.path.insert(0, str(Path(__file__).parents[1] / "apps"))

from oracle import MultitaskThreshold, painted, write_oracle_bundle, write_oracle_models

from tools.calibrate.__main__ import main
from tools.calibrate.identification import (
    cross_fitted,
    expected_calibration_error,
    fit_temperature,
)
from tools.phantom import Grid, build_phantom, write_nifti


def _studies(n: int, temperature: float) -> pd.DataFrame:
    """Studies of a network whose logits are ``temperature`` times too large."""
    random = np.random.default_rng(2)
    true_logits = random.normal(0, 1.5, n)
    positive = random.uniform(size=n) < expit(true_logits)
    others = np.where(np.arange(n) % 2, "normal", "bacterial")
    return pd.DataFrame(
        {
            "case": [f"case{i}" for i in range(n)],
            "patient": [f"p{i // 2}" for i in range(n)],
            "class": np.where(positive, "covid19", others),
            "probability": expit(true_logits * temperature),
        }
    )


def _run(frame: pd.DataFrame, folder: Path, *options: str) -> int:
    frame.to_csv(folder / "cases.csv", index=False)
    arguments = ["identification", str(folder / "cases.csv"), "-o", str(folder / "out"), "--quiet"]
    return main([*arguments, *options])


def test_the_temperature_is_found_and_helps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(_studies(400, 3.0), tmp_path) == 0
    temperature = json.loads((tmp_path / "out" / "temperature.json").read_text())["temperature"]
    assert temperature == pytest.approx(3.0, rel=0.2)
    table = pd.read_csv(tmp_path / "out" / "calibration.csv").set_index(["metric", "probability"])
    for metric in ("Brier score", "expected calibration error"):
        before, after = table.loc[(metric, "before")], table.loc[(metric, "calibrated")]
        assert after["value"] < before["value"]
        for row in (before, after):
            assert row["low_95"] <= row["value"] <= row["high_95"] + 0.02
    assert "Trusted" in capsys.readouterr().out
    assert (tmp_path / "out" / "reliability.png").stat().st_size > 1000


def test_probabilities_that_were_made_with_a_temperature(tmp_path: Path) -> None:
    """Logits six times too large, half of it by a temperature of 0.5."""
    assert _run(_studies(400, 6.0), tmp_path, "--temperature", "0.5") == 0
    temperature = json.loads((tmp_path / "out" / "temperature.json").read_text())["temperature"]
    assert temperature == pytest.approx(3.0, rel=0.2)


def test_a_study_is_judged_without_its_patient() -> None:
    frame = _studies(60, 3.0)
    positive = (frame["class"] == "covid19").to_numpy()
    logits = np.linspace(-4, 4, 60)
    probabilities = cross_fitted(logits, positive, frame["patient"], seed=0)
    own = expit(logits / fit_temperature(logits, positive))
    assert not np.allclose(probabilities, own, atol=1e-6)
    # The studies of one patient are judged at one temperature.
    used = logits / np.log(probabilities / (1 - probabilities))
    spread = pd.Series(used).groupby(frame["patient"].to_numpy()).apply(np.ptp)
    assert spread.max() < 1e-6


def test_calibration_error_by_hand() -> None:
    probabilities = np.array([0.05, 0.05, 0.95, 1.0])
    positive = np.array([False, True, True, True])
    by_hand = 0.5 * abs(0.05 - 0.5) + 0.5 * abs(0.975 - 1)
    assert expected_calibration_error(probabilities, positive) == pytest.approx(by_hand)


def _only_one_class(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(**{"class": "covid19"})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        # Unknown is neither positive nor negative.
        (lambda f: f.assign(**{"class": f["class"].where(f.index != 3, "")}), "case3 has no class"),
        (lambda f: f.assign(probability=f["probability"].where(f.index != 3, 1.5)), "case3"),
        (lambda f: f.assign(probability=f["probability"].where(f.index != 3)), "case3 has no"),
        (lambda f: f.drop(columns="probability"), "either probability or image"),
        (_only_one_class, "one class only"),
        (lambda f: f.assign(patient="p"), "one patient of a class only"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(
    spoil, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(spoil(_studies(20, 3.0)), tmp_path) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert message in error
    assert not (tmp_path / "out").exists()


def test_on_ct_it_is_the_application_that_identifies(tmp_path: Path) -> None:
    """The oracle's logit is known, and a temperature that the bundle has is taken out again."""
    grid = Grid.axial((14, 128, 128), (22.0, 3.0, 3.0))
    rows = []
    for seed in range(1, 5):
        disease = "covid19" if seed % 2 else "normal"
        write_nifti(painted(build_phantom(grid, disease, seed)), tmp_path, f"case{seed}")
        image = f"case{seed}_ct.nii.gz"
        rows.append({"case": f"case{seed}", "class": disease, "image": image})
    found = []
    for name, settings in (("plain", {}), ("warm", {"temperature": 4.0})):
        folder = tmp_path / name
        models = write_oracle_models(folder / "models")
        write_oracle_bundle(folder / "other" / "multitask", 200.0, MultitaskThreshold, **settings)
        target = models / "multitask_triage" / "models"
        for file in ("model.ts", "SHA256SUMS"):
            (folder / "other" / "multitask" / "models" / file).rename(target / file)
        pd.DataFrame(rows).to_csv(tmp_path / "cases.csv", index=False)
        out = folder / "out"
        arguments = ["identification", str(tmp_path / "cases.csv"), "-o", str(out), "--quiet"]
        assert main([*arguments, "-m", str(models)]) == 0
        cases = pd.read_csv(out / "cases.csv")
        temperature = json.loads((out / "temperature.json").read_text())["temperature"]
        found.append((cases["before"].to_numpy(), temperature))
    (plain, one), (warm, other) = found
    assert np.log(plain / (1 - plain)) == pytest.approx(4 * np.log(warm / (1 - warm)), rel=1e-3)
    assert one == pytest.approx(other, rel=0.05)
