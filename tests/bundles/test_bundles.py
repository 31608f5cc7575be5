"""Every bundle as its users run it: MONAI's own commands, from any folder, on phantoms."""

import csv
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from bundle_commands import (
    BUNDLE_NAMES,
    BUNDLES_FOLDER,
    SEEDS,
    STAGES,
    assert_refused_in_one_line,
    dice,
    monai_command,
    parsed,
    printed_losses,
    read_mask,
    run_configs,
)
from monai.data import MetaTensor

from ct_triage.lesion_models import LESION_MODELS
from ct_triage.network import AxialView
from ct_triage.slices import SliceClassifier
from ct_triage.volume import Volume
from tools.phantom import Phantom, write_dicom_series

# What each bundle marks, and the Dice that its shipped weights reach on a phantom at least.
BUNDLES = {"lung_segmentation": ("lung", 0.95), "lesion_segmentation_2d": ("lesion", 0.6)}
HELD_OUT = "['tiny-3']"


@dataclass(frozen=True)
class Bundle:
    name: str

    @property
    def folder(self) -> Path:
        return BUNDLES_FOLDER / self.name

    @property
    def target(self) -> str:
        return BUNDLES[self.name][0]

    @property
    def dice(self) -> float:
        return BUNDLES[self.name][1]

    def config(self, name: str) -> dict:
        return json.loads((self.folder / "configs" / f"{name}.json").read_text())


@pytest.fixture(params=BUNDLES)
def bundle(request: pytest.FixtureRequest) -> Bundle:
    return Bundle(request.param)


def test_training_lowers_the_loss_and_leaves_a_checkpoint(
    bundle: Bundle, nifti_folder: Path, tmp_path: Path
) -> None:
    done = run_configs(
        bundle.folder,
        "train",
        *("--dataset_dir", nifti_folder, "--output_dir", tmp_path / "out"),
        *("--held_out", HELD_OUT, "--max_epochs", 15, "--val_interval", 15),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    losses = printed_losses(done)
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])
    assert (tmp_path / "out" / "model.pt").is_file()


def test_fine_tuning_starts_from_the_given_weights(nifti_folder: Path, tmp_path: Path) -> None:
    folder = BUNDLES_FOLDER / "lesion_segmentation_2d"
    source = folder / "models" / "model.pt"
    options = ("--dataset_dir", nifti_folder, "--output_dir", tmp_path, "--held_out", HELD_OUT)
    done = run_configs(
        folder,
        "train",
        *(*options, "--initial_weights", source),
        # A step of no length: what was loaded is what is saved.
        *("--learning_rate", 0.0, "--max_epochs", 1, "--val_interval", 1),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    before, after = (torch.load(f, weights_only=True) for f in (source, tmp_path / "model.pt"))
    learnt = [name for name in before if name.endswith(("weight", "bias"))]
    assert len(learnt) > 50
    assert all(torch.equal(before[name], after[name]) for name in learnt)
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pt")
    for name, told in (("none.pt", "no weights at"), ("other.pt", "holds another network")):
        file = tmp_path / name
        done = run_configs(folder, "train", *options, "--initial_weights", file, cwd=tmp_path)
        assert_refused_in_one_line(done, file)
        assert told in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "resampled"), [("lesion_segmentation_2d", 2), ("lesion_segmentation_3d", 3)]
)
def test_fine_voxels_are_smoothed_before_they_are_sampled(name: str, resampled: int) -> None:
    point = torch.zeros(1, 41, 45, 49)
    point[0, 20, 22, 24] = 1
    voxel_mm = (0.5, 0.8, 1.0)
    smooth = parsed(BUNDLES_FOLDER / name, "inference").get_parsed_content("anti_alias")
    spread = smooth(MetaTensor(point, affine=torch.diag(torch.tensor([*voxel_mm, 1.0]))))
    assert spread.pixdim.tolist() == pytest.approx(voxel_mm)
    assert float(spread.sum()) == pytest.approx(1, abs=1e-3)
    for axis, size in enumerate(voxel_mm):
        others = [other for other in range(3) if other != axis]
        profile = np.asarray(spread[0].sum(others))
        place = np.arange(len(profile)) - (20, 22, 24)[axis]
        # To 2 mm, a Gaussian averaged over each voxel; slices stay where they are not resampled.
        variance = ((2 / size - 1) / 2) ** 2 + 1 / 12 if axis < resampled else 0
        assert np.sum(profile * place) == pytest.approx(0, abs=1e-3)
        assert np.sum(profile * place**2) == pytest.approx(variance, rel=0.05, abs=1e-6)


@pytest.mark.parametrize(
    "name", ["lesion_segmentation_2d", "multitask_triage", "mask_rcnn_classifier"]
)
@pytest.mark.parametrize("slice_mm", [1.6, 2.5, 3.0, 6.0, 12.0])
def test_the_slices_around_each_are_those_that_the_application_takes(
    slice_mm: float, name: str
) -> None:
    config = parsed(BUNDLES_FOLDER / name, "inference")
    hu = np.random.default_rng(0).integers(-900, 200, (17, 32, 64), dtype=np.int16)
    # Rows, columns and slices run to the back, to the left and to the head.
    low, high = config.get_parsed_content("hu_window")
    unit = (torch.from_numpy(hu).float().permute(1, 2, 0)[None] - low) / (high - low)
    spacing = torch.diag(torch.tensor([2.0, 2.0, slice_mm, 1.0]))
    channels = config.get_parsed_content("with_context")(MetaTensor(unit, affine=spacing))

    affine = np.diag([slice_mm, 2.0, 2.0, 1.0])[[2, 1, 0, 3]]
    view = AxialView.of(Volume(hu, affine, ()))
    folder = BUNDLES_FOLDER / name
    lesions = LESION_MODELS.get(name)
    model = lesions.load(folder, None, 0) if lesions else SliceClassifier.load(folder)
    network = model.network
    images = [image for _, image in network.images(view)]
    torch.testing.assert_close(
        channels.as_tensor().permute(3, 0, 1, 2), torch.cat(images).cpu(), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("name", ["lesion_segmentation_2d", "multitask_triage"])
@pytest.mark.parametrize("slice_mm", [1.5, 3.0])
def test_probabilities_spread_to_the_slices_around(slice_mm: float, name: str) -> None:
    config = parsed(BUNDLES_FOLDER / name, "inference")
    smooth = config.get_parsed_content("smooth_slices")
    spacing = torch.diag(torch.tensor([2.0, 2.0, slice_mm, 1.0]))
    point = torch.zeros(1, 3, 4, 41)
    point[0, 1, 2, 20] = 1
    spread = smooth(MetaTensor(point, affine=spacing))
    assert spread.pixdim.tolist() == [2.0, 2.0, slice_mm]
    line = np.asarray(spread[0, 1, 2])
    assert line.sum() == pytest.approx(float(spread.sum()), abs=1e-6)
    assert line.sum() == pytest.approx(1, abs=1e-4)
    places_mm = slice_mm * (np.arange(41) - 20)
    assert np.sum(line * places_mm) == pytest.approx(0, abs=1e-4)
    assert np.sqrt(np.sum(line * places_mm**2)) == pytest.approx(2.0, rel=0.02)
    # Beyond the last slice it goes on.
    whole = MetaTensor(torch.ones(1, 3, 4, 5), affine=spacing)
    torch.testing.assert_close(smooth(whole).as_tensor(), whole.as_tensor())


@pytest.mark.parametrize("name", [name for name in BUNDLE_NAMES if name != "lesion_ensemble"])
def test_inference_refuses_weights_of_another_network(
    name: str, nifti_folder: Path, tmp_path: Path
) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pt")
    done = run_configs(
        BUNDLES_FOLDER / name,
        "inference",
        *("--dataset_dir", nifti_folder, "--output_dir", tmp_path / "out"),
        *("--checkpoint", tmp_path / "other.pt"),
        cwd=tmp_path,
    )
    assert_refused_in_one_line(done, tmp_path / "other.pt")
    assert "holds another network" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_evaluation_tabulates_each_patient(
    bundle: Bundle, nifti_folder: Path, tmp_path: Path
) -> None:
    done = run_configs(
        bundle.folder,
        "train evaluate",
        *("--dataset_dir", nifti_folder, "--output_dir", tmp_path / "out"),
        *("--evaluate_all", True),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    with (tmp_path / "out" / "mean_dice_raw.csv").open() as stream:
        rows = [row for row in csv.reader(stream) if row and "tiny" in row[0]]
    assert sorted(re.search(r"tiny-\d", row[0])[0] for row in rows) == sorted(SEEDS)
    assert np.mean([float(row[1]) for row in rows]) > bundle.dice


def test_inference_on_nifti_keeps_the_source_grid(
    bundle: Bundle, phantoms: dict[str, Phantom], nifti_folder: Path, tmp_path: Path
) -> None:
    done = run_configs(
        bundle.folder,
        "inference",
        *("--dataset_dir", nifti_folder, "--output_dir", tmp_path / "out"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    files = sorted((tmp_path / "out").rglob("*.nii.gz"))
    assert len(files) == len(phantoms)
    for file, name in zip(files, sorted(phantoms), strict=True):
        mask, affine = read_mask(file)
        truth, truth_affine = read_mask(nifti_folder / f"{name}_{bundle.target}.nii.gz")
        assert np.allclose(affine, truth_affine, atol=1e-3)
        assert dice(mask, truth) > bundle.dice - 0.1


def test_inference_on_a_dicom_folder(
    bundle: Bundle, phantoms: dict[str, Phantom], nifti_folder: Path, tmp_path: Path
) -> None:
    write_dicom_series(phantoms["tiny-1"], tmp_path / "studies" / "one")
    done = run_configs(
        bundle.folder,
        "inference",
        *("--dataset_dir", tmp_path / "studies", "--output_dir", tmp_path / "out"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (file,) = (tmp_path / "out").rglob("*.nii.gz")
    mask, affine = read_mask(file)
    truth, truth_affine = read_mask(nifti_folder / f"tiny-1_{bundle.target}.nii.gz")
    # The two may list their voxels in another order: compare places in the patient.
    to_truth = np.linalg.inv(truth_affine) @ affine
    index = np.rint(np.argwhere(mask) @ to_truth[:3, :3].T + to_truth[:3, 3]).astype(int)
    placed = np.zeros_like(truth)
    placed[tuple(index.T)] = True
    assert dice(placed, truth) > bundle.dice - 0.1


@pytest.mark.parametrize("configs", ["train", "train evaluate", "inference"])
@pytest.mark.parametrize("kind", ["missing", "empty"])
def test_a_wrong_folder_is_named_in_one_line(
    bundle: Bundle, configs: str, kind: str, tmp_path: Path
) -> None:
    folder = tmp_path / kind
    if kind == "empty":
        folder.mkdir()
    done = run_configs(bundle.folder, configs, "--dataset_dir", folder, cwd=tmp_path)
    assert_refused_in_one_line(done, str(folder))


def test_changed_weights_are_refused(bundle: Bundle, nifti_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(bundle.folder, tmp_path / "copy")
    with (copy / "models" / "model.pt").open("ab") as stream:
        stream.write(b"x")
    done = run_configs(copy, "inference", "--dataset_dir", nifti_folder, cwd=tmp_path)
    assert done.returncode != 0
    assert "SHA256SUMS" in done.stderr.splitlines()[-1]
    assert not list(tmp_path.rglob("*_seg.nii.gz"))


def test_a_bundle_copied_alone_works_from_its_own_folder(
    bundle: Bundle, nifti_folder: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(bundle.folder, tmp_path / "elsewhere" / "name")
    done = monai_command(
        "run",
        *("--config_file", "configs/inference.json", "--bundle_root", "."),
        *("--meta_file", "configs/metadata.json", "--logging_file", "configs/logging.conf"),
        *("--dataset_dir", nifti_folder, "--output_dir", tmp_path / "out"),
        cwd=copy,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(list((tmp_path / "out").rglob("*.nii.gz"))) == len(SEEDS)


@pytest.mark.parametrize("name", sorted({*BUNDLE_NAMES} - {"lesion_ensemble"}))
def test_weights_of_another_network_are_refused_in_one_line(
    name: str, tree: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.pt"
    torch.save({"0.weight": torch.zeros(3)}, other)
    evaluation = STAGES[name][1]
    done = run_configs(
        *(BUNDLES_FOLDER / name, evaluation, "--dataset_dir", tree, "--checkpoint", other),
        *("--output_dir", tmp_path / "out"),
        cwd=tmp_path,
    )
    assert_refused_in_one_line(done, other)
    assert not list(tmp_path.rglob("*.csv"))


@pytest.mark.parametrize("name", BUNDLE_NAMES)
def test_missing_weights_are_named_in_one_line(
    name: str, nifti_folder: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(
        BUNDLES_FOLDER / name, tmp_path / "copy", ignore=shutil.ignore_patterns("models")
    )
    done = run_configs(copy, "inference", "--dataset_dir", nifti_folder, cwd=tmp_path)
    assert_refused_in_one_line(done, str(copy / "models"))


def test_weights_are_small_and_their_hashes_are_listed(bundle: Bundle) -> None:
    models = bundle.folder / "models"
    done = subprocess.run(
        ["sha256sum", "--check", "SHA256SUMS"],
        cwd=models,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert {line.split(":")[0] for line in done.stdout.splitlines()} == {"model.pt", "model.ts"}
    for file in models.iterdir():
        assert file.stat().st_size <= 25e6


@pytest.mark.parametrize(
    "name", ["lesion_segmentation_3d", "multitask_triage", "mask_rcnn_classifier"]
)
@pytest.mark.parametrize("file", ["nowhere.pt", "other.pt"])
def test_other_weights_of_slices_are_refused_in_one_line(
    name: str, file: str, tmp_path: Path
) -> None:
    torch.save({"0.weight": torch.zeros(3)}, tmp_path / "other.pt")
    parser = parsed(BUNDLES_FOLDER / name, "train", slice_weights=str(tmp_path / file))
    with pytest.raises(SystemExit, match=file) as stopped:
        parser.get_parsed_content("start_from_slices")
    assert "\n" not in str(stopped.value)


@pytest.mark.parametrize("name", ["lung_segmentation", "multitask_triage"])
@pytest.mark.parametrize("fast", [True, False])
def test_training_takes_bfloat16_where_the_processor_is_fast_in_it(
    name: str, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": fast})
    parser = parsed(BUNDLES_FOLDER / name, "train", device="$torch.device('cpu')")
    parser.get_parsed_content("mixed_precision")
    network = parser.get_parsed_content("network")
    types: list[torch.dtype] = []
    first = next(module for module in network.modules() if isinstance(module, torch.nn.Conv2d))
    first.register_forward_hook(lambda *call: types.append(call[-1].dtype))
    output = network(torch.zeros(2, parser["in_channels"], 64, 64))
    assert types[0] == (torch.bfloat16 if fast else torch.float32)
    assert (output if torch.is_tensor(output) else output[0]).dtype == torch.float32
