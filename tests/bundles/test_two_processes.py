"""Every bundle's multi-GPU configs, with two processes on the CPU."""

import csv
import re
from pathlib import Path

import pytest
import torch
from bundle_commands import (
    BUNDLE_NAMES,
    BUNDLES_FOLDER,
    SMALL_TRAINING,
    STAGES,
    as_options,
    parsed,
    run_configs,
)

# Two patients for each process to validate on; unseen-* of those with a diagnosis.
KEPT_OUT = ["case1", "case8", "unseen-*"]


@pytest.mark.slow
@pytest.mark.parametrize("name", BUNDLE_NAMES)
def test_two_processes_train_and_evaluate_together(name: str, tree: Path, tmp_path: Path) -> None:
    bundle = BUNDLES_FOLDER / name
    training, evaluation = STAGES[name]
    options = as_options(
        {"dataset_dir": tree, "held_out": KEPT_OUT, **SMALL_TRAINING[name]}
        | {"output_dir": tmp_path / "out"}
    )
    if "classify" in training:
        weights = parsed(bundle, "train").get_parsed_content("detector").state_dict()
        torch.save(weights, tmp_path / "detector.pt")
        options += ["--segmentation_checkpoint", tmp_path / "detector.pt"]
    for configs, more in (
        (f"{training} multi_gpu_train", {"max_epochs": 1, "val_interval": 1}),
        (f"{evaluation} multi_gpu_evaluate", {"checkpoint": tmp_path / "out" / "model.pt"}),
    ):
        done = run_configs(bundle, configs, *options, *as_options(more), cwd=tmp_path, processes=2)
        assert done.returncode == 0, done.stderr
    if name == "mask_rcnn_classifier":
        assert "study_accuracy" in (tmp_path / "out" / "summary.csv").read_text()
        return
    table = "studies.csv" if name == "multitask_triage" else "mean_dice_raw.csv"
    with (tmp_path / "out" / table).open() as stream:
        _, *rows = csv.reader(stream)
    found = sorted(re.sub(r"_ct\.nii\.gz$", "", Path(row[0]).name) for row in rows)
    diagnosed = [f"unseen-{disease}" for disease in ("bacterial", "covid19", "normal")]
    # Bundles that know no wildcards keep only the two.
    expected = ["case1", "case8", *diagnosed] if name == "multitask_triage" else ["case1", "case8"]
    assert found == expected
