"""The multitask bundle: its own modules exactly, and its commands on phantoms."""

import csv
import hashlib
import json
import shutil
from pathlib import Path

import multitask_triage as package
import nibabel
import numpy as np
import pytest
import torch
from bundle_commands import (
    BUNDLES_FOLDER,
    assert_refused_in_one_line,
    monai_command,
    parsed,
    printed_losses,
    run_configs,
    run_python,
)
from monai.bundle import ConfigParser
from monai.data import MetaTensor, decollate_batch, list_data_collate

from tools.phantom import Grid, Phantom, build_phantom, write_nifti

BUNDLE = BUNDLES_FOLDER / "multitask_triage"

RELEASED = pytest.mark.skipif(
    not (BUNDLE / "models" / "model.pt").is_file(), reason="no weights are released yet"
)
VARIANTS = ["", "variants/spatial_4", "variants/latent", "variants/resnet50"]
# A slice, one below and one above.
CHANNELS = 3
DISEASES = ("covid19", "normal", "covid19", "bacterial")
# Few channels and slices: the same paths in a second a step.
SMALL = (
    *("--train#slices_per_study", 6, "--train#slice_size", "[64,64]"),
    *("--spacing_mm", "[5.6,5.6]", "--crop_margin", "[1,1,0]"),
    *("--train#samples_per_epoch", 8),
)
SMALL_CLASSIFIER = (
    *("--network_def#encoder#_target_", "monai.networks.nets.resnet18"),
    *("--network_def#channels", 512),
)


def _network(*variants: str, **changes: object) -> torch.nn.Module:
    parser = parsed(BUNDLE, " ".join(["inference", *variants]), **changes)
    torch.manual_seed(1)
    return parser.get_parsed_content("network_def").eval()


def _outputs(result: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return (result,) if isinstance(result, torch.Tensor) else result


@pytest.fixture(scope="module")
def phantoms() -> dict[str, Phantom]:
    grid = Grid.axial((12, 64, 64), (24.0, 5.6, 5.6))
    return {
        f"p{number}-{disease}": build_phantom(grid, disease, 30 + number)
        for number, disease in enumerate(DISEASES)
    }


@pytest.fixture(scope="module")
def folder(phantoms: dict[str, Phantom], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies")
    for name, phantom in phantoms.items():
        write_nifti(phantom, folder, name)
    rows = [f"{name},{phantom.disease}" for name, phantom in phantoms.items()]
    (folder / "diagnoses.csv").write_text("\n".join(["name,diagnosis", *rows]))
    return folder


def test_pyramid_holds_the_maximum_of_every_part_of_the_study() -> None:
    features = torch.randn(8, 3, 16, 24)
    pool = package.PyramidMaxPool(levels=3, in_plane=True)
    vector = pool(pool.of_slices(features)[None])[0]
    assert len(vector) == pool.length(3) == 3 * (1 + 8 + 64)
    expected = []
    for bins in (4, 2, 1):
        s, r, c = (size // bins for size in (8, 16, 24))
        expected += [
            features[i * s : i * s + s, channel, j * r : j * r + r, k * c : k * c + c].max()
            for channel in range(3)
            for i in range(bins)
            for j in range(bins)
            for k in range(bins)
        ]
    assert torch.equal(vector, torch.stack(expected))


def test_pyramid_pools_as_pytorch_does_where_bins_do_not_divide_evenly() -> None:
    features = torch.randn(7, 2, 13, 9)
    pool = package.PyramidMaxPool(levels=3, in_plane=True)
    vector = pool(pool.of_slices(features)[None])[0]
    finest = torch.nn.functional.adaptive_max_pool3d(features.transpose(0, 1)[None], 4)
    assert torch.equal(vector[: finest.numel()], finest.flatten())


def test_pyramid_along_the_slices_alone() -> None:
    features = torch.arange(8.0).reshape(8, 1, 1, 1) * torch.ones(1, 1, 5, 7)
    pool = package.PyramidMaxPool(levels=4, in_plane=False)
    vector = pool(pool.of_slices(features)[None])[0]
    assert vector.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 1, 3, 5, 7, 3, 7, 7]


@pytest.mark.parametrize("slices", [1, 3])
def test_pyramid_takes_studies_of_fewer_slices_than_bins(slices: int) -> None:
    features = torch.arange(float(slices)).reshape(-1, 1, 1, 1).expand(-1, 2, 8, 8)
    pool = package.PyramidMaxPool(levels=4, in_plane=True)
    vector = pool(pool.of_slices(features)[None])[0]
    assert len(vector) == pool.length(2)
    assert set(vector.tolist()) <= set(range(slices))
    assert vector[-1] == slices - 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_chunks_of_slices_change_nothing(variant: str) -> None:
    network = _network(variant)
    slices = torch.rand(11, CHANNELS, 70, 90)
    with torch.no_grad():
        whole = _outputs(network(slices))
        network.chunk_slices = 3
        chunked = _outputs(network(slices))
    assert whole[-1].shape == (1, 1)
    for a, b in zip(whole, chunked, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_torchscript_equals_eager_for_any_number_of_slices(variant: str) -> None:
    network = _network(variant)
    script = torch.jit.script(network)
    for slices, rows, columns in ((1, 64, 64), (5, 65, 97), (18, 33, 40)):
        image = torch.rand(slices, CHANNELS, rows, columns)
        with torch.no_grad():
            eager, scripted = _outputs(network(image)), _outputs(script(image))
        if len(eager) == 2:
            assert eager[0].shape == (slices, 1, rows, columns)
        for a, b in zip(eager, scripted, strict=True):
            assert torch.allclose(a, b, atol=1e-6)


def test_lesions_are_told_from_two_looks_and_the_study_from_the_first() -> None:
    # So narrow a Gaussian smooths nothing.
    network = _network(**{"network_def#sigma_pixels": 0.1})
    slices = torch.rand(4, CHANNELS, 64, 96)
    with torch.no_grad():
        lesion, identification = network(slices)
        of_mirrored, identification_of_mirrored = network(slices.flip(-1))
        pooled = network.describe(slices.permute(1, 2, 3, 0)).permute(3, 0, 1, 2)
        of_first = network.identification(pooled, studies=1)
    torch.testing.assert_close(of_mirrored.flip(-1), lesion)
    torch.testing.assert_close(identification, of_first)
    assert not torch.allclose(identification, identification_of_mirrored)


def test_training_looks_once() -> None:
    network = _network().train()
    seen: list[torch.Tensor] = []
    network.encoder[0].register_forward_pre_hook(lambda _, call: seen.append(call[0]))
    slices = torch.rand(4, CHANNELS, 64, 96)
    network(slices)
    assert len(seen) == 1
    network.eval()(slices)
    assert len(seen) == 3


def test_studies_of_a_batch_are_classified_each_by_itself() -> None:
    network = _network()
    studies = torch.rand(2, CHANNELS, 64, 70, 5)
    inferer = package.StudyInferer()
    with torch.no_grad():
        together = inferer(studies, network)
        alone = [inferer(study[None], network) for study in studies]
    assert together["lesion"].shape == (2, 1, 64, 70, 5)
    for key in ("lesion", "identification"):
        assert torch.allclose(together[key], torch.cat([a[key] for a in alone]), atol=1e-5)


def test_lesions_keep_the_spacing_of_their_study() -> None:
    spacing = torch.diag(torch.tensor([2.0, 2.0, 6.0, 1.0]))
    studies = [MetaTensor(torch.rand(CHANNELS, 64, 70, 5), affine=spacing) for _ in range(2)]
    with torch.no_grad():
        lesions = package.StudyInferer()(list_data_collate(studies), _network())["lesion"]
    for lesion in decollate_batch(lesions):
        assert lesion.pixdim.tolist() == [2.0, 2.0, 6.0]


def test_any_level_of_the_decoder_can_be_shared() -> None:
    for level in range(1, 8):
        network = _network(feature_map=f"spatial_{level}")
        with torch.no_grad():
            lesion, identification = network(torch.rand(2, CHANNELS, 80, 80))
        assert lesion.shape == (2, 1, 80, 80)
        assert identification.isfinite().all()
    with pytest.raises(ValueError, match="spatial_8"):
        package.MultitaskTriage(_unet(), feature_map="spatial_8")


def _unet() -> torch.nn.Module:
    parser = ConfigParser()
    parser.read_config(str(BUNDLE / "configs" / "inference.json"))
    return parser.get_parsed_content("unet")


def test_a_study_teaches_one_head_and_identification_weighs_a_tenth() -> None:
    pred = {
        "lesion": torch.tensor([[0.0, 2.0], [9.0, 9.0]]).reshape(2, 1, 1, 1, 2).requires_grad_(),
        "identification": torch.tensor([[7.0], [0.0]], requires_grad=True),
    }
    label = {
        "lesion": torch.tensor([[1.0, 0.0], [0.0, 0.0]]).reshape(2, 1, 1, 1, 2),
        "covid19": torch.tensor([-1, 1]),
        "supervises_lesion": torch.tensor([1, 0]),
    }
    loss = package.MultitaskLoss()(pred, label)
    segmentation = (np.log(2) + np.log1p(np.exp(2))) / 2
    assert float(loss) == pytest.approx(segmentation + 0.1 * np.log(2), abs=1e-6)
    loss.backward()
    assert pred["lesion"].grad[1].abs().sum() == 0
    assert pred["identification"].grad[0] == 0


def test_the_dice_of_short_trainings_is_of_lesions_alone() -> None:
    pred = {
        "lesion": torch.tensor([[40.0, 40.0, -40.0, -40.0], [40.0, 40.0, 40.0, 40.0]]),
        "identification": torch.zeros(2, 1),
    }
    label = {
        "lesion": torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]),
        "covid19": torch.tensor([-1, 1]),
        "supervises_lesion": torch.tensor([1, 0]),
    }
    for part in (pred, label):
        part["lesion"] = part["lesion"].reshape(2, 1, 1, 1, 4)
    plain = package.MultitaskLoss()(pred, label)
    with_dice = package.MultitaskLoss(dice_weight=2.0)(pred, label)
    assert float(with_dice - plain) == pytest.approx(2 * 0.5, abs=1e-4)
    label["supervises_lesion"][0] = 0
    label["covid19"][0] = 0
    assert package.MultitaskLoss(dice_weight=2.0)(pred, label).isfinite()


def test_the_first_stage_draws_lesions_alone(folder: Path) -> None:
    changes = {"dataset_dir": str(folder), "held_out": ["p0-*"]}
    parser = parsed(BUNDLE, "train variants/lesions_first", **changes)
    drawn = parser.get_parsed_content("train#dataset#data")
    assert {case["name"] for case in drawn} == {"p1-normal", "p2-covid19"}
    assert all(case["supervises_lesion"] for case in drawn)
    assert len(parser.get_parsed_content("train#sampler#weights")) == len(drawn)
    parser = parsed(BUNDLE, "train variants/lesions_first multi_gpu_train", **changes)
    assert len(parser.get_parsed_content("train#sampler#weights")) == len(drawn)


def test_the_identification_head_can_learn_alone() -> None:
    parser = parsed(BUNDLE, "train variants/identification_only")
    network = parser.get_parsed_content("network_def").train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    lesion, identification = network(torch.rand(4, CHANNELS, 64, 64), studies=2)
    assert not lesion.requires_grad
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=1.0)
    identification.sum().backward()
    optimizer.step()
    after = network.state_dict()
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith("identification.") for name in changed)


def test_what_describes_a_study_is_what_identifies_it() -> None:
    network = _network()
    study = torch.rand(CHANNELS, 70, 90, 19)
    described = network.describe(study)
    with torch.no_grad():
        whole = package.StudyInferer()(study[None], network)["identification"]
        head = package.StudyInferer()(described[None], network.identification)["identification"]
    assert described.shape == (16, 4, 4, 19)
    assert torch.allclose(whole, head, atol=1e-5)


def test_the_last_stage_trains_the_head_on_described_studies(folder: Path, tmp_path: Path) -> None:
    weights = _network().state_dict()
    torch.save(weights, tmp_path / "before.pt")
    done = run_configs(
        BUNDLE,
        "train variants/identification_only",
        *("--dataset_dir", folder, *SMALL, "--held_out", "['p2-*']"),
        *("--output_dir", tmp_path, "--initial_weights", tmp_path / "before.pt"),
        *("--max_epochs", 20, "--train#studies_per_batch", 4, "--train#slices_per_study", 8),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    steps = printed_losses(done)
    assert np.mean(steps[-8:]) < 0.9 * np.mean(steps[:8])
    after = torch.load(tmp_path / "model.pt", weights_only=True)
    for name, value in weights.items():
        assert torch.equal(after[name], value) == (not name.startswith("identification."))


def test_the_last_stage_wants_a_network_that_has_learned_lesions(
    folder: Path, tmp_path: Path
) -> None:
    done = run_configs(
        BUNDLE,
        "train variants/identification_only",
        *("--dataset_dir", folder, *SMALL, "--held_out", "['p2-*']"),
        *("--output_dir", tmp_path / "output"),
        cwd=tmp_path,
    )
    assert done.returncode != 0
    assert "--initial_weights STAGE_1/model.pt" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize("seen", [1, 3])
def test_training_starts_from_a_network_of_slices(seen: int, tmp_path: Path) -> None:
    bundle = BUNDLES_FOLDER / "lesion_segmentation_2d"
    slices = parsed(bundle, "inference", in_channels=seen)
    torch.manual_seed(5)
    trained = slices.get_parsed_content("network_def").state_dict()
    torch.save(trained, tmp_path / "slices.pt")
    parser = parsed(BUNDLE, "train", slice_weights=str(tmp_path / "slices.pt"))
    network = parser.get_parsed_content("network_def")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    parser.get_parsed_content("start_from_slices")
    after = network.state_dict()
    assert torch.equal(after["lesion.weight"], trained["network.1.weight"])
    first = after["encoder.0.conv.unit0.conv.weight"]
    learned = trained["network.0.model.0.conv.unit0.conv.weight"]
    assert torch.equal(first if seen == CHANNELS else first[:, 1:2], learned)
    assert first.count_nonzero() == learned.count_nonzero()
    kept = {name.split(".")[0] for name in after if torch.equal(before[name], after[name])}
    assert kept >= {"bottom", "identification"}
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert {name.rsplit(".", 3)[0][:9] for name in changed} >= {"encoder.0", "encoder.4"}


def test_half_of_the_samples_teach_either_head(folder: Path) -> None:
    studies = package.find_studies(folder)
    samples = package.training_samples(studies, ["p0-*"], ["covid19", "normal"], {})
    weight = {0: 0.0, 1: 0.0}
    for sample in samples:
        assert sample["name"] != "p0-covid19"
        weight[sample["supervises_lesion"]] += sample["weight"]
    assert weight == {0: 0.5, 1: 0.5}
    positive = [s["weight"] for s in samples if not s["supervises_lesion"] and s["covid19"]]
    assert sum(positive) == 0.25
    assert {s["diagnosis"] for s in samples if s["supervises_lesion"]} == {"covid19", "normal"}


def test_studies_drawn_from_a_patient_kept_out_are_left_out_too() -> None:
    names = ("case1", "case1.synthetic-0", "case10", "case10.synthetic-0")
    studies = [
        {"name": name, "collection": "a", "lesion": "b", "diagnosis": "", "covid19": -1}
        for name in names
    ]
    samples = package.training_samples(studies, ["case1"], [""], {})
    assert [sample["name"] for sample in samples] == ["case10", "case10.synthetic-0"]


def test_drawn_slices_keep_their_order_and_cover_the_study() -> None:
    draw = package.DrawSlicesd("image", 8)
    draw.set_random_state(3)
    image = torch.arange(40.0).reshape(1, 1, 1, 40)
    for _ in range(5):
        drawn = draw({"image": image})["image"].flatten()
        assert ((drawn // 5) == torch.arange(8)).all()
    few = draw({"image": image[..., :3]})["image"].flatten()
    assert few.tolist() == sorted(few.tolist())
    assert set(few.tolist()) == {0, 1, 2}


def test_lungs_are_found_without_a_mask(phantoms: dict[str, Phantom]) -> None:
    phantom = phantoms["p1-normal"]
    hu = torch.from_numpy(phantom.hu.transpose(1, 2, 0)[None].astype(np.float32))
    region = (
        package.LungRegiond()({"image": MetaTensor(hu, affine=torch.eye(4))})["lung"][0].numpy() > 0
    )
    lung = phantom.lung.transpose(1, 2, 0)
    assert (region & lung).sum() > 0.9 * (lung & (hu[0].numpy() < -400)).sum()
    assert region.sum() < 1.5 * lung.sum()


def test_a_step_of_the_recipes_size_runs_through(tmp_path: Path) -> None:
    """In a process of its own: channels-last memory makes oneDNN crash on some processors."""
    step = """
import sys, torch
from monai.bundle import ConfigParser
parser = ConfigParser(ConfigParser.load_config_files(sys.argv[2]))
parser.update({"bundle_root": sys.argv[1], "device": torch.device("cpu")})
network = parser.get_parsed_content("network").train()
slices = torch.rand(4, parser["in_channels"], *parser["train#slice_size"])
lesion, identification = network(slices, studies=2)
(lesion.mean() + identification.mean()).backward()
"""
    config = BUNDLE / "configs" / "train.json"
    done = run_python("-c", step, BUNDLE, config, cwd=tmp_path, timeout_s=120)
    assert done.returncode == 0, done.stderr[-2000:]


def test_training_lowers_the_loss(folder: Path, tmp_path: Path) -> None:
    # One study alone: what a batch holds does not change the loss from step to step.
    done = run_configs(
        BUNDLE,
        "train",
        *("--dataset_dir", folder, *SMALL, "--held_out", "['p1-*','p2-*','p3-*']"),
        *("--output_dir", tmp_path, "--max_epochs", 20, "--val_interval", 20),
        *("--learning_rate", 0.01),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    steps = printed_losses(done)
    assert np.mean(steps[-8:]) < 0.9 * np.mean(steps[:8])
    assert (tmp_path / "model.pt").is_file()


@pytest.mark.parametrize(
    "variant",
    [
        "",
        "variants/resnet50",
        # They differ from the first in which features are pooled, which other tests cover.
        pytest.param("variants/spatial_4", marks=pytest.mark.slow),
        pytest.param("variants/latent", marks=pytest.mark.slow),
    ],
)
def test_trains_evaluates_and_infers(variant: str, folder: Path, tmp_path: Path) -> None:
    network = SMALL_CLASSIFIER if variant == "variants/resnet50" else ()
    options = ("--dataset_dir", folder, *SMALL, "--held_out", "['p2-*','p3-*']", *network)
    done = run_configs(
        BUNDLE,
        f"train {variant}",
        *(*options, "--output_dir", tmp_path / "train"),
        *("--max_epochs", 1, "--val_interval", 1),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    weights = ("--checkpoint", tmp_path / "train" / "model.pt")
    done = run_configs(
        BUNDLE,
        f"train evaluate {variant}",
        *(*options, *weights, "--output_dir", tmp_path / "evaluate"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    with (tmp_path / "evaluate" / "studies.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["name"] for row in rows] == ["p2-covid19", "p3-bacterial"]
    assert all(0 <= float(row["probability"]) <= 1 for row in rows)
    summary = (tmp_path / "evaluate" / "summary.csv").read_text()
    assert "roc_auc_bacterial" in summary
    assert ("mean_dice" in summary) == (variant != "variants/resnet50")
    done = run_configs(
        BUNDLE,
        f"inference {variant}",
        *("--dataset_dir", folder, *weights, "--output_dir", tmp_path / "inference", *network),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = (tmp_path / "inference" / "identification.csv").read_text().splitlines()
    assert len(lines) == len(DISEASES)
    masks = sorted((tmp_path / "inference").glob("*_lesion.nii.gz"))
    assert len(masks) == (0 if variant == "variants/resnet50" else len(DISEASES))


@pytest.mark.parametrize("names", [("inference",), ("train", "evaluate")])
def test_the_temperature_divides_the_identification_logit(names: tuple[str, ...]) -> None:
    parser = ConfigParser()
    parser.read_config([str(BUNDLE / "configs" / f"{name}.json") for name in names])
    assert parser["temperature"] == 1.0, "until it is calibrated"
    parser["temperature"] = 2.5
    key = "postprocessing" if names == ("inference",) else "validate#postprocessing"
    study = {"pred": {"identification": torch.tensor([5.0])}}
    for step in parser[f"{key}#transforms"]:
        if step["_target_"] in ("FlattenSubKeysd", "Lambdad", "Activationsd"):
            index = parser[f"{key}#transforms"].index(step)
            study = parser.get_parsed_content(f"{key}#transforms#{index}")(study)
    assert float(study["pred_identification"]) == pytest.approx(1 / (1 + np.exp(-2.0)))


@pytest.mark.parametrize("configs", ["train", "train evaluate", "inference"])
def test_an_empty_folder_is_named_in_one_line(configs: str, tmp_path: Path) -> None:
    done = run_configs(BUNDLE, configs, "--dataset_dir", tmp_path, cwd=tmp_path)
    assert_refused_in_one_line(done, str(tmp_path))


def test_a_mask_on_another_grid_is_named_in_one_line(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "studies"
    copy.mkdir()
    shutil.copy(folder / "p0-covid19_ct.nii.gz", copy)
    wrong = nibabel.Nifti1Image(np.ones((3, 4, 5), np.uint8), np.eye(4))
    nibabel.save(wrong, copy / "p0-covid19_lung.nii.gz")
    for configs in ("train", "inference"):
        done = run_configs(BUNDLE, configs, "--dataset_dir", copy, cwd=tmp_path)
        assert_refused_in_one_line(done, "p0-covid19_lung.nii.gz")


def test_missing_weights_are_named_in_one_line(folder: Path, tmp_path: Path) -> None:
    missing = tmp_path / "none.pt"
    options = ("--dataset_dir", folder, "--checkpoint", missing)
    for configs, more in (("train evaluate", ("--held_out", "['p3-*']")), ("inference", ())):
        done = run_configs(BUNDLE, configs, *options, *more, cwd=tmp_path)
        assert_refused_in_one_line(done, str(missing))


@pytest.mark.parametrize(
    ("table", "words"),
    [("patient,disease\np0-covid19,x", "name,diagnosis"), ("name,diagnosis\na,b\na,b", "twice")],
)
def test_a_wrong_table_of_diagnoses_is_named(table: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "p0-covid19_ct.nii.gz").touch()
    (tmp_path / "diagnoses.csv").write_text(table)
    with pytest.raises(SystemExit, match=words):
        package.find_studies(tmp_path)


@RELEASED
def test_released_files_are_small_and_are_the_same_network() -> None:
    models = BUNDLE / "models"
    for line in (models / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((models / name).read_bytes()).hexdigest() == digest
        assert (models / name).stat().st_size <= 25e6
    extra = {"inference.json": "", "metadata.json": ""}
    script = torch.jit.load(models / "model.ts", _extra_files=extra).eval()
    assert json.loads(extra["metadata.json"])["name"] == BUNDLE.name
    network = _network()
    network.load_state_dict(torch.load(models / "model.pt", weights_only=True))
    image = torch.rand(3, CHANNELS, 70, 90)
    with torch.no_grad():
        for a, b in zip(network(image), script(image), strict=True):
            assert torch.allclose(a, b, atol=1e-5)


@RELEASED
def test_a_copy_of_the_bundle_tells_phantoms_apart(tmp_path: Path) -> None:
    """The released weights, from a folder of another name, on phantoms of unseen seeds."""
    copy = shutil.copytree(BUNDLE, tmp_path / "elsewhere" / "copy")
    studies = tmp_path / "studies"
    grid = Grid.axial((40, 128, 128), (8.0, 3.1, 3.1))
    for seed, disease in ((61, "covid19"), (62, "normal"), (63, "covid19"), (64, "normal")):
        write_nifti(build_phantom(grid, disease, seed), studies, f"{disease}-{seed}")
    done = monai_command(
        "run",
        *("--config_file", "configs/inference.json", "--bundle_root", "."),
        *("--meta_file", "configs/metadata.json", "--logging_file", "configs/logging.conf"),
        *("--dataset_dir", studies, "--output_dir", tmp_path / "out"),
        cwd=copy,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = (tmp_path / "out" / "identification.csv").read_text().splitlines()
    probability = {Path(name).name: float(p) for name, p in (line.split(",") for line in lines)}
    positive = [p for name, p in probability.items() if name.startswith("covid19")]
    negative = [p for name, p in probability.items() if name.startswith("normal")]
    assert len(positive) == len(negative) == 2
    assert min(positive) > max(negative)
