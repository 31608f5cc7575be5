"""What bundles repeat comes from one place, and two processes can train one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.bundles import TEMPLATES, outdated, write
from tools.bundles.__main__ import main
from tools.phantom import Grid, build_phantom, write_nifti

BUNDLES = Path(__file__).parents[2] / "bundles"


def test_no_generated_file_is_out_of_date() -> None:
    assert outdated(BUNDLES) == []


def test_every_bundle_is_generated() -> None:
    assert sorted(path.name for path in BUNDLES.iterdir() if path.is_dir()) == sorted(TEMPLATES)


def test_writing_repairs_a_changed_file_and_leaves_the_rest(tmp_path: Path) -> None:
    write(tmp_path)
    changed = tmp_path / "lung_segmentation" / "configs" / "inference.json"
    changed.write_text("{}")
    assert outdated(tmp_path) == [changed]
    assert write(tmp_path) == [changed]
    assert outdated(tmp_path) == []


def test_the_command_tells_whether_all_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 0
    assert capsys.readouterr().out.strip() == ""


@pytest.mark.parametrize("bundle", TEMPLATES)
def test_training_and_inference_agree_on_network_and_input(bundle: str) -> None:
    train, inference = (
        json.loads((BUNDLES / bundle / "configs" / f"{name}.json").read_text())
        for name in ("train", "inference")
    )
    # A second stage is laid over the first.
    second = BUNDLES / bundle / "configs" / "classify.json"
    train |= json.loads(second.read_text()) if second.is_file() else {}
    for key in ("network_def", "unet", "head", "axcodes", "spacing_mm", "hu_window", "threshold"):
        assert train.get(key) == inference.get(key)


@pytest.mark.slow
def test_two_processes_train_together(tmp_path: Path) -> None:
    grid = Grid.axial((8, 64, 64), (36.0, 5.6, 5.6))
    for index in range(4):
        write_nifti(build_phantom(grid, "covid19", 20 + index, 0.3), tmp_path, f"tiny-{index}")
    configs = BUNDLES / "lung_segmentation" / "configs"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"),
            *("-m", "monai.bundle", "run", "--bundle_root", str(configs.parent)),
            "--config_file",
            str([str(configs / "train.json"), str(configs / "multi_gpu_train.json")]),
            *("--dataset_dir", str(tmp_path), "--output_dir", str(tmp_path / "out")),
            *("--held_out", "['tiny-0','tiny-1']", "--max_epochs", "2", "--val_interval", "2"),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "out" / "model.pt").is_file()
