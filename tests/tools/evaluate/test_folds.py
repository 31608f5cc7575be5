"""k-fold runs: patients stay whole, folds that are done stay done, all are evaluated."""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest

from tools.evaluate import folds
from tools.evaluate.__main__ import main
from tools.evaluate.folds import IMAGE_SUFFIX, find_cases, split
from tools.evaluate.masks import EvaluationError
from tools.phantom import Grid, build_phantom, write_nifti

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Two collections of ten and three patients."""
    for collection, count in (("large", 10), ("small", 3)):
        folder = tmp_path / "data" / collection
        folder.mkdir(parents=True)
        for index in range(count):
            mask = np.zeros((6, 6, 4), np.uint8)
            mask[1 : 2 + index % 4, 1:4, 1:3] = 1
            for kind in ("ct", "lesion"):
                image = nibabel.Nifti1Image(mask, np.diag([2, 2, 5, 1]))
                nibabel.save(image, folder / f"{collection}{index}_{kind}.nii.gz")
    return tmp_path / "data"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "bundle" / "configs").mkdir(parents=True)
    config = dict.fromkeys(("held_out", "seed", "dataset_dir", "output_dir"))
    config["label_suffix"] = "_lesion.nii.gz"
    (tmp_path / "bundle" / "configs" / "train.json").write_text(json.dumps(config))
    return tmp_path / "bundle"


class Monai:
    """Stands in for MONAI's command: its "network" answers with the picture itself."""

    def __init__(self, fails_at: int = 0) -> None:
        self.calls: list[tuple[str, dict[str, str]]] = []
        self.fails_at = fails_at

    def __call__(self, _bundle: Path, config: str, *options: object, **_log: Path) -> None:
        given = dict(zip(options[::2], map(str, options[1::2]), strict=True))
        self.calls.append((config, given))
        output = Path(given["--output_dir"])
        output.mkdir(parents=True, exist_ok=True)
        if len(self.calls) == self.fails_at:
            (output / "half.nii.gz").write_bytes(b"half")
            raise KeyboardInterrupt
        if config == "train":
            (output / "model.pt").write_text(given["--held_out"])
            return
        assert Path(given["--checkpoint"]).is_file()
        for image in Path(given["--dataset_dir"]).glob(f"*{IMAGE_SUFFIX}"):
            name = image.name.removesuffix(".nii.gz")
            shutil.copy(image, output / f"{name}_lesion.nii.gz")


def run(bundle: Path, dataset: Path, *options: str) -> int:
    output = bundle.parent / "out"
    arguments = [str(bundle), str(dataset), "--folds", "3", "--pictures", "0", *options]
    return main(["folds", *arguments, "--output", str(output), "--quiet"])


def test_every_patient_is_held_out_once_and_collections_are_spread(dataset: Path) -> None:
    cases = find_cases(dataset, "_lesion.nii.gz", None)
    parts = split(cases, 5, seed=0)
    assert sorted(name for part in parts for name in part) == sorted(cases["case"])
    assert [sum(name.startswith("large") for name in part) for part in parts] == [2] * 5
    assert split(cases, 5, seed=0) == parts
    assert split(cases, 5, seed=1) != parts
    with pytest.raises(EvaluationError, match="13 patients cannot be divided into 14 folds"):
        split(cases, 14, seed=0)


def test_studies_of_a_patient_stay_together(dataset: Path, tmp_path: Path) -> None:
    names = [f"large{n}" for n in range(10)] + [f"small{n}" for n in range(3)]
    patients = pd.DataFrame({"case": names, "patient": [name[-1] for name in names]})
    patients.to_csv(tmp_path / "patients.csv", index=False)
    cases = find_cases(dataset, "_lesion.nii.gz", tmp_path / "patients.csv")
    for part in split(cases, 3, seed=2):
        for number in range(3):
            assert (f"large{number}" in part) == (f"small{number}" in part)
    patients.iloc[1:].to_csv(tmp_path / "patients.csv", index=False)
    with pytest.raises(EvaluationError, match="has no case large0"):
        find_cases(dataset, "_lesion.nii.gz", tmp_path / "patients.csv")


def test_a_killed_run_goes_on_where_it_stopped(
    bundle: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = Monai(fails_at=4)
    monkeypatch.setattr(folds, "_monai", killed)
    arguments = ("--seeds", "0", "1", "--set", "max_epochs", "7")
    assert run(bundle, dataset, *arguments) == 130
    assert not (bundle.parent / "out" / "report.html").exists()
    resumed = Monai()
    monkeypatch.setattr(folds, "_monai", resumed)
    assert run(bundle, dataset, *arguments) == 0
    # 2 trainings of 3 folds, each trained and predicted: the first three steps were done.
    assert [name for name, _ in resumed.calls] == ["inference", *["train", "inference"] * 4]
    assert killed.calls[3] == resumed.calls[0]
    assert all(o["--max_epochs"] == "7" for name, o in resumed.calls if name == "train")
    output = bundle.parent / "out"
    cases = pd.read_csv(output / "cases.csv")
    assert len(cases) == 2 * 13
    assert (cases["dice"] == 1).all()
    assert pd.read_csv(output / "groups.csv").shape[0] == 6
    for (seed, fold), part in cases.groupby(["training", "fold"]):
        held_out = (output / f"seed{seed}" / f"fold{fold}" / "trained" / "model.pt").read_text()
        assert held_out == repr(sorted(part["case"]))


def test_other_settings_are_refused(
    bundle: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(folds, "_monai", Monai())
    assert run(bundle, dataset) == 0
    assert run(bundle, dataset, "--set", "max_epochs", "9") == 2
    assert "holds a run with other set; choose another --output" in capsys.readouterr().err


def test_a_failed_training_is_told_with_its_log(
    bundle: Path, dataset: Path, capsys: pytest.CaptureFixture
) -> None:
    # The configuration above has no "run": MONAI itself refuses it.
    (bundle / "configs" / "metadata.json").write_text("{}")
    assert run(bundle, dataset) == 2
    error = capsys.readouterr().err
    assert "train ended with code" in error
    assert "train.log" in error
    assert not (bundle.parent / "out" / "report.html").exists()


def test_what_is_no_bundle_or_data_is_refused(
    bundle: Path, dataset: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run(bundle / "configs", dataset) == 2
    assert "give the folder of a bundle" in capsys.readouterr().err
    assert run(bundle, bundle) == 2
    assert "holds no NAME_lesion.nii.gz" in capsys.readouterr().err
    next(dataset.rglob("*4_ct.nii.gz")).unlink()
    assert run(bundle, dataset) == 2
    assert "large4_lesion.nii.gz: has no large4_ct.nii.gz" in capsys.readouterr().err


@pytest.mark.slow
def test_folds_of_a_shipped_bundle(tmp_path: Path) -> None:
    grid = Grid.axial((16, 96, 96), (18.0, 4.0, 4.0))
    for seed in (31, 32, 33, 34):
        phantom = build_phantom(grid, "covid19", seed, 0.3)
        write_nifti(phantom, tmp_path / "data" / "phantoms", f"tiny-{seed}")
    arguments = argparse.Namespace(
        bundle=REPOSITORY / "bundles" / "lesion_segmentation_2d",
        dataset=tmp_path / "data",
        folds=2,
        seeds=[0],
        patients=None,
        set=[["max_epochs", "1"], ["val_interval", "1"]],
        pictures=1,
        resamples=100,
        quiet=True,
        output=tmp_path / "out",
    )
    report: Any = folds.run(arguments)
    assert len(report.tables[-1].data) == 4
    assert set(report.tables[-1].data["fold"]) == {"1", "2"}
