"""Variants of bundles: each trains, evaluates and infers, and does what its paper says."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from bundle_commands import (
    BUNDLES_FOLDER,
    assert_refused_in_one_line,
    config_files,
    dice,
    read_config,
    read_mask,
    run_configs,
)
from monai.bundle import ConfigParser, ConfigWorkflow

LUNGS, LESIONS = "lung_segmentation", "lesion_segmentation_2d"
ENCODERS = (
    *("vgg16", "resnet18", "resnet34", "resnet50", "resnet152"),
    *("densenet121", "densenet161", "densenet169", "densenet201"),
    *("efficientnet-b0", "efficientnet-b1"),
)
COARSE = {"spacing_mm": [4.0, 4.0], "train#slice_size": [96, 96]}
# Each variant of the two bundles, and what makes it quick.
VARIANTS: dict[tuple[str, str], dict[str, Any]] = {
    (LESIONS, "unet"): {**COARSE, "encoder": "resnet18"},
    (LESIONS, "fpn"): {**COARSE, "encoder": "efficientnet-b0"},
    (LESIONS, "linknet"): {**COARSE, "encoder": "resnet18"},
    (LESIONS, "plus"): COARSE,
    (LESIONS, "cascade"): {"encoder": "resnet18", "resized_to": [64, 64]},
    (LESIONS, "threshold"): {"spacing_mm": [6.0, 6.0, 6.0]},
    (LUNGS, "unet"): {**COARSE, "encoder": "resnet18"},
    (LUNGS, "fpn"): {**COARSE, "encoder": "resnet18"},
    (LUNGS, "linknet"): {**COARSE, "encoder": "resnet18"},
    (LUNGS, "triplanar"): {"encoder": "resnet18", "cube": 32},
}


@pytest.fixture(scope="session")
def patients(nifti_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the phantoms and a fourth patient whose lesion mask is empty."""
    folder = tmp_path_factory.mktemp("patients")
    for file in nifti_folder.iterdir():
        (folder / file.name).symlink_to(file)
        if file.name.startswith("tiny-1"):
            (folder / file.name.replace("tiny-1", "free")).symlink_to(file)
    lesions = folder / "free_lesion.nii.gz"
    image = nibabel.Nifti1Image.from_filename(lesions)
    lesions.unlink()
    nibabel.save(nibabel.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), lesions)
    return folder


def _workflow(bundle: str, configs: str, **options: Any) -> ConfigWorkflow:
    folder = BUNDLES_FOLDER / bundle
    workflow = ConfigWorkflow(
        config_files(folder, configs),
        logging_file=False,
        workflow_type=None,
        bundle_root=str(folder),
        device=torch.device("cpu"),
        **options,
    )
    workflow.initialize()
    return workflow


def _options(workflow_options: dict[str, Any], configs: str) -> dict[str, Any]:
    """Leave out what inference has no key for."""
    return {
        key: value
        for key, value in workflow_options.items()
        if not (configs.startswith("inference") and key.startswith("train#"))
    }


def _loss_of_a_batch(workflow: ConfigWorkflow) -> Callable[[], float]:
    """Draw a batch and return what measures the loss on it, before and after training."""
    parsed = workflow.parser.get_parsed_content
    batch = next(iter(parsed("train#dataloader")))

    def measure() -> float:
        with torch.no_grad():
            return float(parsed("loss")(parsed("network").train()(batch["image"]), batch["label"]))

    return measure


@pytest.mark.parametrize(("bundle", "variant"), [(LESIONS, "fpn"), (LUNGS, "triplanar")])
def test_a_short_training_moves_the_statistics_of_an_efficientnet(
    bundle: str, variant: str
) -> None:
    configs = config_files(BUNDLES_FOLDER / bundle, f"train variants/{variant}")
    parser = ConfigParser(ConfigParser.load_config_files(configs))
    parser.update({"bundle_root": str(BUNDLES_FOLDER / bundle), "encoder": "efficientnet-b0"})
    norms = [
        module
        for module in parser.get_parsed_content("network_def").modules()
        if isinstance(module, torch.nn.BatchNorm2d)
    ]
    assert norms
    assert {module.momentum for module in norms} == {0.1}


def test_every_variant_is_tested_here() -> None:
    shipped = {
        (bundle, path.stem)
        for bundle in (LUNGS, LESIONS)
        for path in (BUNDLES_FOLDER / bundle / "configs" / "variants").glob("*.json")
    }
    assert shipped == set(VARIANTS)


@pytest.mark.parametrize(("bundle", "variant"), VARIANTS)
def test_a_variant_trains_evaluates_and_infers(
    bundle: str, variant: str, patients: Path, tmp_path: Path
) -> None:
    small = {
        **VARIANTS[bundle, variant],
        "dataset_dir": str(patients),
        "output_dir": str(tmp_path / "out"),
    }
    training = _workflow(
        bundle,
        f"train variants/{variant}",
        **small,
        held_out=["tiny-3"],
        max_epochs=12,
        val_interval=12,
    )
    if variant == "threshold":
        training.run()
        _assert_the_first_of_the_grid_is_best(tmp_path / "out" / "grid_search.csv")
    else:
        loss = _loss_of_a_batch(training)
        untrained = loss()
        training.run()
        assert loss() < 0.9 * untrained
    assert (tmp_path / "out" / "model.pt").is_file()

    _workflow(bundle, f"train evaluate variants/{variant}", **small, held_out=["tiny-3"]).run()
    with (tmp_path / "out" / "mean_dice_raw.csv").open() as stream:
        (row,) = [row for row in csv.reader(stream) if row and "tiny" in row[0]]
    assert "tiny-3" in row[0]
    assert 0 <= float(row[1]) <= 1

    configs = f"inference variants/{variant}"
    _workflow(bundle, configs, **_options(small, configs)).run()
    (target,) = {file.name.split("_")[-1] for file in (tmp_path / "out").glob("*_ct_*.nii.gz")}
    for name in ("tiny-1", "tiny-2", "tiny-3", "free"):
        mask, affine = read_mask(tmp_path / "out" / f"{name}_ct_{target}")
        truth, truth_affine = read_mask(patients / f"{name}_{target}")
        assert mask.shape == truth.shape
        assert np.allclose(affine, truth_affine, atol=1e-3)
        if name == "tiny-3":
            # What inference writes is what evaluation measured.
            assert dice(mask, truth) == pytest.approx(float(row[1]), abs=0.02)


def _assert_the_first_of_the_grid_is_best(table: Path) -> None:
    with table.open() as stream:
        rows = list(csv.DictReader(stream))
    grid = read_config(BUNDLES_FOLDER / LESIONS, "variants/threshold")["grid"]
    assert len(rows) == np.prod([len(values) for values in grid.values()])
    scores = [float(row["mean_dice"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > scores[-1]


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_encoder_fits_every_decoder(encoder: str) -> None:
    for architecture in ("unet", "fpn", "linknet"):
        parser = ConfigParser()
        parser.read_config(
            config_files(BUNDLES_FOLDER / LESIONS, f"inference variants/{architecture}")
        )
        parser["encoder"] = encoder
        network = parser.get_parsed_content("network_def").eval()
        image = torch.rand(1, 3, 32, 64)
        with torch.no_grad():
            logits = network(image)
            assert logits.shape == (1, 1, 32, 64)
            if architecture == "unet":
                assert torch.allclose(torch.jit.script(network)(image), logits, atol=1e-4)


@pytest.mark.parametrize(("bundle", "variant"), [(LESIONS, "fpn"), (LUNGS, "triplanar")])
def test_a_variant_without_weights_says_so(
    bundle: str, variant: str, nifti_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match=r"no weights at .*nowhere.*--checkpoint"):
        _workflow(
            bundle,
            f"inference variants/{variant}",
            dataset_dir=str(nifti_folder),
            output_dir=str(tmp_path / "nowhere"),
        ).run()


def test_plus_draws_as_many_patients_without_lesions_as_with(patients: Path) -> None:
    workflow = _workflow(
        LESIONS, "train variants/plus", dataset_dir=str(patients), held_out=["tiny-3"]
    )
    names = [case["name"] for case in workflow.parser.get_parsed_content("training_cases")]
    assert sorted(names) == ["free", "free", "tiny-1", "tiny-2"]


def test_plus_asks_for_patients_without_lesions(nifti_folder: Path) -> None:
    workflow = _workflow(
        LESIONS, "train variants/plus", dataset_dir=str(nifti_folder), held_out=["tiny-3"]
    )
    with pytest.raises(SystemExit, match=f"without lesions.*{nifti_folder}"):
        workflow.run()


def test_cascade_sees_nothing_but_the_lungs(patients: Path, tmp_path: Path) -> None:
    preprocessing = _workflow(
        LESIONS, "inference variants/cascade", dataset_dir=str(patients)
    ).parser.get_parsed_content("preprocessing")
    source = patients / "tiny-1_ct.nii.gz"
    image = preprocessing({"image": str(source)})["image"]
    assert image.shape[1:3] == (256, 256)

    changed = tmp_path / "tiny-1_ct.nii.gz"
    lungs, affine = read_mask(patients / "tiny-1_lung.nii.gz")
    hu = np.asarray(nibabel.Nifti1Image.from_filename(source).dataobj)
    nibabel.save(nibabel.Nifti1Image(np.where(lungs, hu, 100).astype(np.int16), affine), changed)
    shutil.copy(patients / "tiny-1_lung.nii.gz", tmp_path)
    assert torch.equal(preprocessing({"image": str(changed)})["image"], image)
    assert float(image.max()) > 0


def test_cascade_follows_the_lung_bundle(nifti_folder: Path, tmp_path: Path) -> None:
    """Run the README's chain as commands, in copies, with masks in a folder of their own."""
    studies, masks, out = tmp_path / "studies", tmp_path / "masks", tmp_path / "out"
    studies.mkdir()
    shutil.copy(nifti_folder / "tiny-1_ct.nii.gz", studies)
    lungs, lesions = (
        shutil.copytree(BUNDLES_FOLDER / name, tmp_path / "bundles" / name)
        for name in (LUNGS, LESIONS)
    )
    parser = ConfigParser()
    parser.read_config(config_files(lesions, "inference variants/cascade"))
    parser["encoder"] = "resnet18"
    checkpoint = tmp_path / "trained.pt"
    torch.save(parser.get_parsed_content("network_def").state_dict(), checkpoint)
    options = (
        *("--dataset_dir", studies, "--output_dir", out, "--lung_dir", masks),
        *("--checkpoint", checkpoint, "--encoder", "resnet18"),
    )

    refused = run_configs(lesions, "inference variants/cascade", *options, cwd=tmp_path)
    assert_refused_in_one_line(refused, "tiny-1_lung.nii.gz")

    done = run_configs(
        lungs, "inference", "--dataset_dir", studies, "--output_dir", masks, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    done = run_configs(lesions, "inference variants/cascade", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (out / "tiny-1_ct_lesion.nii.gz").is_file()
