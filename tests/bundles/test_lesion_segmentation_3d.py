"""The volume bundle: its recipes, and that they train, evaluate and segment."""

import csv
import subprocess
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from bundle_commands import (
    BUNDLES_FOLDER,
    assert_refused_in_one_line,
    parsed,
    printed_losses,
    read_config,
    read_mask,
    run_configs,
)
from monai.bundle import ConfigParser

from tools.bench.measure import cost_of
from tools.model_table.figures import run_of
from tools.phantom import Phantom

BUNDLE = BUNDLES_FOLDER / "lesion_segmentation_3d"
# Coarse voxels and small patches keep the commands quick; all else is the bundle's own.
SMALL = (
    *("--spacing_mm", [6.0, 6.0, 6.0], "--window_size", [64, 64, 64]),
    *("--held_out", "['tiny-3']"),
)


@pytest.fixture(scope="module")
def trained(
    nifti_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> subprocess.CompletedProcess[str]:
    """Train on the phantoms; `args` holds the command, the output is in its working folder."""
    folder = tmp_path_factory.mktemp("trained")
    done = run_configs(
        BUNDLE,
        "train variants/cpu",
        *("--dataset_dir", nifti_folder, "--output_dir", folder),
        *(*SMALL, "--train#patch_size", [32, 32, 32], "--steps", 20),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    done.args = folder
    return done


def test_the_recipe_is_the_papers() -> None:
    config = read_config(BUNDLE, "train")
    assert config["train"]["patch_size"] == [160, 160, 160]
    assert config["train"]["patches_per_patient"] * config["train"]["patients_per_batch"] == 16
    assert config["steps"] == 10_000
    assert config["optimizer"]["_target_"] == "torch.optim.SGD"
    assert "momentum" not in config["optimizer"]
    assert config["learning_rate"] == 0.01
    assert config["train"]["lr_scheduler"]["factor"] == 1.0
    assert config["loss"]["_target_"] == "torch.nn.BCEWithLogitsLoss"


def test_training_starts_from_a_network_of_single_slices(tmp_path: Path) -> None:
    slices = parsed(BUNDLES_FOLDER / "lesion_segmentation_2d", "train")
    torch.manual_seed(5)
    second_look = slices.get_parsed_content("network_def")
    second_look(torch.rand(4, 3, 64, 64))  # Its batch norms learn something too.
    torch.save(second_look.state_dict(), tmp_path / "slices.pt")
    parser = parsed(BUNDLE, "train", slice_weights=str(tmp_path / "slices.pt"))
    network = parser.get_parsed_content("network_def").eval()
    volume = torch.rand(1, 1, 64, 96, 7)
    with torch.no_grad():
        before = network(volume)
        parser.get_parsed_content("start_from_slices")
        after = network(volume)
        slices_thrice = volume[0].permute(3, 0, 1, 2).expand(-1, 3, -1, -1)
        expected = second_look.network.eval()(slices_thrice)
    assert not torch.allclose(before, after, atol=1e-3)
    torch.testing.assert_close(after[0].permute(3, 0, 1, 2), expected, rtol=1e-4, atol=1e-5)


def test_training_lowers_the_loss(trained: subprocess.CompletedProcess[str]) -> None:
    losses = printed_losses(trained)
    assert len(losses) == 20
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])


def test_evaluation_tabulates_the_patient_kept_out(
    trained: subprocess.CompletedProcess[str], nifti_folder: Path, tmp_path: Path
) -> None:
    done = run_configs(
        BUNDLE,
        "train evaluate",
        *("--dataset_dir", nifti_folder, "--output_dir", tmp_path),
        *("--checkpoint", Path(trained.args, "model.pt"), *SMALL),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    with (tmp_path / "mean_dice_raw.csv").open() as stream:
        (row,) = [row for row in csv.reader(stream) if row and "tiny" in row[0]]
    assert "tiny-3" in row[0]
    assert 0 <= float(row[1]) <= 1


def test_inference_writes_masks_on_the_source_grid(
    trained: subprocess.CompletedProcess[str], nifti_folder: Path, tmp_path: Path
) -> None:
    done = run_configs(
        BUNDLE,
        "inference",
        *("--dataset_dir", nifti_folder, "--output_dir", tmp_path),
        *("--checkpoint", Path(trained.args, "model.pt"), *SMALL[:4]),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    files = sorted(tmp_path.glob("*.nii.gz"))
    assert [file.name for file in files] == [f"tiny-{i}_ct_lesion.nii.gz" for i in (1, 2, 3)]
    mask, affine = read_mask(files[0])
    truth, truth_affine = read_mask(nifti_folder / "tiny-1_lesion.nii.gz")
    assert mask.shape == truth.shape
    assert np.allclose(affine, truth_affine, atol=1e-3)


@pytest.mark.parametrize("configs", ["train", "train variants/cpu", "train evaluate", "inference"])
def test_a_wrong_folder_is_named_in_one_line(configs: str, tmp_path: Path) -> None:
    done = run_configs(BUNDLE, configs, "--dataset_dir", tmp_path / "missing", cwd=tmp_path)
    assert_refused_in_one_line(done, str(tmp_path / "missing"))


@pytest.mark.slow
def test_a_whole_study_is_segmented_within_6_gb(
    phantoms: dict[str, Phantom], tmp_path: Path
) -> None:
    """Run 300 slices of 512 x 512 pixels; untrained weights take what trained ones do."""
    small = phantoms["tiny-1"].hu
    places = [
        np.arange(size) * have // size
        for size, have in zip((300, 512, 512), small.shape, strict=True)
    ]
    hu = small[np.ix_(*places)].transpose(2, 1, 0)
    (tmp_path / "studies").mkdir()
    image = nibabel.Nifti1Image(hu, np.diag([-0.7, -0.7, 1.0, 1.0]))
    nibabel.save(image, tmp_path / "studies" / "large_ct.nii.gz")
    parser = ConfigParser(read_config(BUNDLE, "inference"))
    torch.save(parser.get_parsed_content("network_def").state_dict(), tmp_path / "untrained.pt")
    results = tmp_path / "results"
    command = run_of(BUNDLE, ["inference"], tmp_path / "studies", results)
    cost = cost_of([*command, "--checkpoint", tmp_path / "untrained.pt"], tmp_path, 1)
    assert read_mask(results / "large_ct_lesion.nii.gz")[0].shape == (512, 512, 300)
    print(f"peak memory {cost.peak_gb:.2f} GB, {cost.cpu_s:.0f} s of CPU")
    assert cost.peak_gb < 6
