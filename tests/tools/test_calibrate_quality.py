"""The reference is fitted on studies where the lungs are found, and judged without them."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "apps"))

from oracle import BODY_HU, painted, write_oracle_models

from ct_triage.quality import COORDINATES, Reference, coordinates, judge
from ct_triage.quality_features import FEATURE_NAMES, Features
from tools.calibrate.__main__ import main
from tools.calibrate.quality import (
    CHI_QUANTILE,
    FIRST_SEED,
    Study,
    fit_reference,
    held_out_judgements,
)
from tools.datasets import diagnosed, phantoms
from tools.phantom import Grid, build_phantom, write_nifti

USUAL = Features(
    **dict.fromkeys(FEATURE_NAMES, 0.0)
    | {
        "lung_volume_ml": 4400.0,
        "right_share": 0.53,
        "lung_width_mm": 275.0,
        "lung_depth_mm": 187.0,
        "lung_height_mm": 263.0,
        "lung_low_hu": -897.0,
        "lung_middle_hu": -825.0,
        "lung_high_hu": -576.0,
        "rim_air_share": 0.01,
        "roughness": 2.95,
        "muscle_hu": 58.0,
        "tissue_share": 0.96,
        "air_hu": -999.0,
        "noise_hu": 15.0,
        "noisy_slices_hu": 17.0,
        "slice_spacing_mm": 5.0,
    }
)


def _studies(n: int, offset: float = 0.0) -> list[Study]:
    """Two studies a patient, half of them phantoms, that differ by a few percent."""
    random = np.random.default_rng(7)
    studies = []
    for index in range(n):
        spread = random.normal(1 + offset, 0.05, len(COORDINATES))
        names = [name.split()[-1] for name in COORDINATES]
        changed = {
            name: getattr(USUAL, name) * factor for name, factor in zip(names, spread, strict=True)
        }
        features = replace(USUAL, **changed)
        patient = f"p{index // 2}"
        studies.append(Study(f"case{index}", patient, index % 2 == 0, 1.0, features))
    return studies


def test_the_usual_is_near_and_another_kind_is_far() -> None:
    reference = fit_reference(_studies(60))
    usual = judge(USUAL, reference)
    assert usual.reasons == ()
    for study in _studies(10, offset=0.6):
        assert reference.distance(study.features) > reference.limit
    assert reference.limit > 6, f"a normal distribution passes that in {1 - CHI_QUANTILE:g}"


def test_a_study_does_not_vouch_for_itself() -> None:
    studies = _studies(40)
    odd = replace(studies[0].features, muscle_hu=140.0, lung_width_mm=380.0, roughness=4.5)
    # Both studies of one patient are odd: neither may be in the other's reference.
    studies[:2] = [replace(study, features=odd) for study in studies[:2]]
    judged = held_out_judgements(studies).set_index("case")
    assert set(judged.loc[["case0", "case1"], "verdict"]) == {"limited"}
    assert (judged["verdict"].iloc[2:] == "acceptable").all()


def test_what_was_not_measured_is_average() -> None:
    studies = _studies(20)
    studies[3] = replace(studies[3], features=replace(studies[3].features, noise_hu=np.nan))
    reference = fit_reference(studies)
    assert np.isfinite(reference.mean).all()
    assert np.isfinite(reference.precision).all()
    assert np.isnan(coordinates(studies[3].features)).sum() == 1


def _run(rows: list[dict[str, str]], folder: Path, models: Path) -> int:
    pd.DataFrame(rows).to_csv(folder / "cases.csv", index=False)
    arguments = ["quality", str(folder / "cases.csv"), "-o", str(folder / "out"), "--quiet"]
    return main([*arguments, "-m", str(models)])


def test_the_command_writes_what_the_application_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = write_oracle_models(tmp_path / "models")
    grid = Grid.axial((14, 96, 96), (22.0, 4.0, 4.0))
    rows = []
    for seed in range(12):
        name = f"case{seed}"
        phantom = painted(build_phantom(grid, "normal", seed))
        # Soft tissue, and still below what the oracle takes for lung.
        phantom.hu[phantom.hu == BODY_HU] = -290
        write_nifti(phantom, tmp_path, name)
        rows.append(
            {"case": name, "image": f"{name}_ct.nii.gz", "truth_lung": f"{name}_lung.nii.gz"}
        )
    # An empty mask: the application finds something else than this.
    rows[5]["truth_lung"] = "case5_lesion.nii.gz"
    assert _run(rows, tmp_path, models) == 0
    reference = Reference.read(tmp_path / "out" / "quality_reference.json")
    record = json.loads((tmp_path / "out" / "quality_reference.json").read_text())["record"]
    assert (record["studies"], record["phantoms"]) == (11, 0)
    assert record["left_out_for_their_lungs"] == 1
    assert record["lung_model"].startswith("oracle lung_segmentation 1.2.3 ")
    features = pd.read_csv(tmp_path / "out" / "features.csv").set_index("case")
    assert features.loc["case5", "lung_dice"] < 0.1 < 0.9 < features.loc["case1", "lung_dice"]
    assert reference.distance(Features(**features.loc["case1", list(FEATURE_NAMES)])) < 10
    assert (tmp_path / "out" / "distances.png").stat().st_size > 1000
    assert "left out" in capsys.readouterr().out
    # Too few patients are no reference.
    assert _run(rows[:4], tmp_path, models) == 2
    assert "at least 10 are needed" in capsys.readouterr().err


def test_seeds_are_apart_from_those_of_tests_and_training() -> None:
    assert max(diagnosed.FIRST_SEED, phantoms.FIRST_SEED) + 1000 < FIRST_SEED
