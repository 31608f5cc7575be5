"""The ensemble: the paper's rule and normalizations to the digit, its planes, its commands."""

import csv
import hashlib
import itertools
import json
import shutil
from collections.abc import Mapping
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
    run_configs,
)
from lesion_ensemble import (
    Ensemble,
    PlainResNet18,
    RelativeToMinimum,
    VotingRule,
    ZeroMeanUnitDeviation,
    build_member,
    load_weights,
    weights_problem,
)
from lesion_ensemble.ensemble import PLANES
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Orientation

from tools.bundles.release import release_member

BUNDLE = BUNDLES_FOLDER / "lesion_ensemble"
MEMBERS = ("resnet21_axial_0", "fpn_axial_0")
HU_WINDOW = (-1024, 600)
SMALL = ("--spacing_mm", [6.0, 6.0, 6.0])


@pytest.fixture(scope="module")
def rule() -> VotingRule:
    """Return the rule as the bundle ships it."""
    config = read_config(BUNDLE, "inference")["rule"]
    return VotingRule(config["unanimous"], config["mean"], config["positive_above"])


@pytest.fixture(scope="module")
def architectures() -> dict:
    parser = ConfigParser(read_config(BUNDLE, "inference"))
    parser["bundle_root"] = str(BUNDLE)
    return parser.get_parsed_content("architectures")


def _members(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def _unit(hu: torch.Tensor) -> torch.Tensor:
    return (hu - HU_WINDOW[0]) / (HU_WINDOW[1] - HU_WINDOW[0])


@pytest.mark.parametrize("member", ["resnet21", "resnet18", "fpn", "dpn92"])
def test_a_short_training_moves_the_statistics_of_evaluation(
    member: str, architectures: dict
) -> None:
    norms = [
        module
        for module in build_member(architectures[member]).modules()
        if isinstance(module, torch.nn.BatchNorm2d)
    ]
    assert norms
    assert {module.momentum for module in norms} == {0.1}


# The rule, section 4.1.6


def test_each_vote_counts_as_in_the_paper(rule: VotingRule) -> None:
    resnets = {(0.6, 0.7): 1, (0.6, 0.4): 0, (0.5, 0.9): 0}
    dpns = {(0.6, 0.9): 1, (0.7, 0.7): 0, (0.5, 0.5): 0, (0.3, 0.3): 0, (0.1, 0.4): -1}
    fpns = {(0.8, 1.0): 1, (0.85, 0.85): 0, (0.5, 0.5): 0, (0.15, 0.15): 0, (0.0, 0.2): -1}
    for (r, r_vote), (d, d_vote), (f, f_vote) in itertools.product(
        resnets.items(), dpns.items(), fpns.items()
    ):
        score = rule.score({"resnet": _members(*r), "dpn": _members(*d), "fpn": _members(*f)})
        assert score.tolist() == [r_vote + d_vote + f_vote]
        assert rule.positive(score).tolist() == [r_vote + d_vote + f_vote > 0]


def test_a_group_without_members_does_not_vote(rule: VotingRule) -> None:
    assert rule.score({"fpn": _members(0.9)}).tolist() == [1]
    empty = torch.empty(0, 1)
    assert rule.score({"resnet": empty, "fpn": _members(0.1)}).tolist() == [-1]
    with pytest.raises(ValueError, match="no member"):
        rule.score({"resnet": empty})
    with pytest.raises(ValueError, match="vgg"):
        rule.score({"vgg": _members(0.9)})


# Normalizations, section 4.1.5


def test_relative_to_minimum_is_algorithm_1() -> None:
    hu = torch.tensor([[-1000.0, -505.0, -400.0], [0.0, 250.0, 600.0]])
    out = RelativeToMinimum(HU_WINDOW)(_unit(hu)[None, None])
    expected = torch.tensor([[-0.505, -0.505, -0.4], [0.0, 0.25, 0.505]])
    assert torch.allclose(out[0, 0], expected, atol=1e-4)


def test_relative_to_minimum_looks_at_each_slice_by_itself() -> None:
    hu = torch.tensor([[-1000.0, 100.0], [-950.0, 100.0], [-20.0, 100.0]])
    out = RelativeToMinimum(HU_WINDOW)(_unit(hu)[:, None, None])
    # The third is cut to soft tissue and has no air to measure by.
    expected = torch.tensor([100 / 1000, 100 / 950, 100 / 900])
    assert torch.allclose(out[:, 0, 0, 1], expected, atol=1e-4)


def test_zero_mean_unit_deviation() -> None:
    hu = torch.tensor([-577.0, -577.0 + 473.0, -1050.0 + 26.0])
    out = ZeroMeanUnitDeviation(HU_WINDOW, -577.0, 473.0)(_unit(hu)[None, None, None])
    assert torch.allclose(out.flatten(), torch.tensor([0.0, 1.0, -447 / 473]), atol=1e-4)


def test_the_paper_normalizes_resnets_their_own_way() -> None:
    for name, architecture in read_config(BUNDLE, "train")["architectures"].items():
        kind = "zero_mean_unit_deviation" if "resnet" in name else "relative_to_minimum"
        assert architecture["normalization"] == f"@normalizations#{kind}"


# Architectures, sections 4.1.1 to 4.1.4


@pytest.mark.parametrize("name", ["dpn92", "resnet21", "resnet18", "fpn"])
def test_a_member_gives_a_logit_a_pixel(architectures: Mapping, name: str) -> None:
    member = build_member(architectures[name]).eval()
    with torch.inference_mode():
        assert member(torch.rand(1, 1, 64, 96)).shape == (1, 1, 64, 96)


def test_resnet21_has_21_layers(architectures: Mapping) -> None:
    encoder = architectures["resnet21"]["network"]().encoder
    layers = [
        name
        for name, module in encoder.named_modules()
        if isinstance(module, torch.nn.Conv2d) and "downsample" not in name
    ]
    assert len(layers) == 21


def test_the_standalone_resnet_has_no_pooling_and_no_linear_layer() -> None:
    kinds = {type(module).__name__ for module in PlainResNet18().modules()}
    assert not [kind for kind in kinds if "Pool" in kind or "Linear" in kind]


# Planes


@pytest.mark.parametrize("plane", PLANES)
def test_slices_stand_as_the_member_was_trained_and_come_back(plane: str) -> None:
    volume = torch.arange(2 * 3 * 4.0).reshape(1, 2, 3, 4)
    to_slices, to_volume = PLANES[plane]
    assert torch.equal(to_volume(to_slices(volume)), volume)
    # PLS: array axes toward the back, the left and the head, in nibabel's RAS coordinates.
    affine = [[0.0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    image = MetaTensor(volume, affine=torch.tensor(affine))
    axcodes = read_config(BUNDLE, "train")["planes"][plane]
    trained_on = Orientation(axcodes=axcodes, labels=(("L", "R"), ("P", "A"), ("I", "S")))(image)
    assert torch.equal(to_slices(volume), trained_on.as_tensor().permute(3, 0, 1, 2))


class _Says(torch.nn.Module):
    """A network that gives one probability everywhere."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.register_buffer("logit", torch.logit(torch.tensor(probability)))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        assert image.shape[-1] % 32 == image.shape[-2] % 32 == 0
        return self.logit.expand_as(image)


def _saying(group: str, probability: float) -> dict:
    return {
        "group": group,
        "normalization": torch.nn.Identity,
        "network": lambda: _Says(probability),
    }


def test_an_ensemble_merges_its_members(rule: VotingRule) -> None:
    architectures = {
        "a": _saying("resnet", 0.6),
        "b": _saying("dpn", 0.8),
        "c": _saying("fpn", 0.1),
    }
    members = [
        {"architecture": "a", "plane": "axial"},
        {"architecture": "b", "plane": "sagittal"},
        {"architecture": "b", "plane": "coronal"},
        {"architecture": "c", "plane": "axial"},
    ]
    volume = torch.rand(1, 1, 20, 33, 7)
    out = Ensemble(members, architectures, rule)(volume)
    assert out.shape == (1, 2, 20, 33, 7)
    assert torch.equal(out[:, 0], torch.ones(1, 20, 33, 7))
    assert torch.allclose(out[:, 1], torch.tensor(np.std([0.6, 0.8, 0.8, 0.1])).float())
    # Without the DPN members +1 and -1 are no majority.
    out = Ensemble([members[0], members[3]], architectures, rule)(volume)
    assert not out[:, 0].any()


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], "no members"),
        ([{"architecture": "x", "plane": "axial"}], "architecture x"),
        ([{"architecture": "a", "plane": "oblique"}], "plane oblique"),
        ([{"architecture": "b", "plane": "axial"}], "group vgg"),
    ],
)
def test_a_wrong_member_is_named(rule: VotingRule, members: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ensemble(members, {"a": _saying("fpn", 0.5), "b": _saying("vgg", 0.5)}, rule)


# Weights


def test_released_weights_are_checked_and_own_ones_are_not(tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    (models / "a.pt").write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    (models / "SHA256SUMS").write_text(f"{digest}  a.pt\n")
    own = tmp_path / "own.pt"
    own.write_bytes(b"mine")
    members = [{"weights": "a.pt"}, {"weights": str(own)}]
    assert weights_problem(members, str(models)) == ""
    (models / "a.pt").write_bytes(b"changed")
    assert "a.pt does not match" in weights_problem(members, str(models))
    (models / "a.pt").unlink()
    assert "a.pt is missing" in weights_problem(members, str(models))


@pytest.fixture(scope="module")
def released(architectures: Mapping, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the bundle with untrained members."""
    folder = tmp_path_factory.mktemp("released")
    bundle = shutil.copytree(
        BUNDLE, folder / "bundle", ignore=shutil.ignore_patterns("models", "__pycache__")
    )
    torch.manual_seed(0)
    for name in MEMBERS:
        architecture = architectures[name.split("_")[0]]
        torch.save(build_member(architecture).state_dict(), folder / "trained.pt")
        release_member(bundle, folder / "trained.pt", name)
    return bundle


def test_a_released_member_is_half_the_size_and_listed(released: Path) -> None:
    models = released / "models"
    for name in MEMBERS:
        # What a repository takes.
        assert (models / f"{name}.ts").stat().st_size <= 25e6
    assert weights_problem([{"weights": f"{name}.ts"} for name in MEMBERS], str(models)) == ""
    with pytest.raises(ValueError, match="vgg_axial_0 is none of the members"):
        release_member(released, models / "model.ts", "vgg_axial_0")


def test_released_members_merged_by_the_released_vote_are_the_ensemble(released: Path) -> None:
    parser = ConfigParser(read_config(released, "inference"))
    parser["bundle_root"] = str(released)
    ensemble = parser.get_parsed_content("network_def").eval()
    load_weights(ensemble, parser["members"], str(released / "models"))
    volume = torch.rand(1, 1, 64, 96, 3)
    slices = volume[0].permute(3, 0, 1, 2)
    with torch.inference_mode():
        probabilities = torch.stack(
            [
                torch.jit.load(released / "models" / member["weights"]).float()(slices).sigmoid()
                for member in parser["members"]
            ]
        )
        merged = torch.jit.load(released / "models" / "model.ts")(probabilities)
        expected = ensemble(volume)[0].permute(0, 3, 1, 2)
    torch.testing.assert_close(merged[:, :, 0], expected, rtol=1e-4, atol=1e-4)
    assert 0 < float(merged[1].max()) <= 0.5


def test_what_cannot_be_scripted_is_traced_for_any_size(
    architectures: Mapping, tmp_path: Path
) -> None:
    bundle = shutil.copytree(BUNDLE / "configs", tmp_path / "bundle" / "configs").parent
    shutil.copytree(BUNDLE / "lesion_ensemble", bundle / "lesion_ensemble")
    config = read_config(bundle, "inference")
    config["members"] = [{"architecture": "dpn92", "plane": "axial", "weights": "dpn.ts"}]
    (bundle / "configs" / "inference.json").write_text(json.dumps(config))
    member = build_member(architectures["dpn92"]).eval()
    torch.save(member.state_dict(), tmp_path / "trained.pt")
    release_member(bundle, tmp_path / "trained.pt", "dpn")
    image = torch.rand(3, 1, 32, 128)
    with torch.inference_mode():
        found = torch.jit.load(bundle / "models" / "dpn.ts").float()(image)
        torch.testing.assert_close(found, member(image), rtol=0.02, atol=0.02)


def test_a_default_member_without_weights_is_named(nifti_folder: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(BUNDLE, tmp_path / "copy", ignore=shutil.ignore_patterns("models"))
    done = run_configs(bundle, "inference", "--dataset_dir", nifti_folder, cwd=tmp_path)
    assert_refused_in_one_line(done, "resnet21_axial_0.ts is missing")


# Commands


@pytest.mark.parametrize("recipe", ["train", "train variants/cpu"])
def test_slices_of_the_recipes_fit_every_members_network(recipe: str) -> None:
    parser = parsed(BUNDLE, recipe)
    assert all(size % parser["divisor"] == 0 for size in parser["train#slice_size"])


def test_a_member_trains_and_then_segments_with_another(
    architectures: Mapping, nifti_folder: Path, tmp_path: Path
) -> None:
    bundle = shutil.copytree(
        BUNDLE, tmp_path / "copy", ignore=shutil.ignore_patterns("models", "__pycache__")
    )
    done = run_configs(
        bundle,
        "train members/fpn variants/cpu",
        *("--dataset_dir", nifti_folder, "--output_dir", tmp_path / "fpn", *SMALL),
        *("--held_out", "['tiny-3']", "--plane", "coronal", "--train#slice_size", [64, 64]),
        *("--steps", 24),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    losses = printed_losses(done)
    assert np.mean(losses[-3:]) < 0.95 * np.mean(losses[:3])
    release_member(bundle, tmp_path / "fpn" / "model.pt", "fpn_axial_0")
    torch.save(build_member(architectures["resnet21"]).state_dict(), tmp_path / "untrained.pt")
    release_member(bundle, tmp_path / "untrained.pt", "resnet21_axial_0")
    members = [
        {"architecture": "resnet21", "plane": "axial", "weights": "resnet21_axial_0.ts"},
        {"architecture": "fpn", "plane": "coronal", "weights": "fpn_axial_0.ts"},
    ]
    common = ("--dataset_dir", nifti_folder, "--members", members, *SMALL)

    done = run_configs(bundle, "inference", *common, "--output_dir", tmp_path / "a", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    for kind in ("lesion", "disagreement"):
        image = nibabel.Nifti1Image.from_filename(tmp_path / "a" / f"tiny-1_ct_{kind}.nii.gz")
        source = nibabel.Nifti1Image.from_filename(nifti_folder / "tiny-1_ct.nii.gz")
        assert image.shape == source.shape
        assert np.allclose(image.affine, source.affine, atol=1e-3)
    assert 0 < np.asarray(image.dataobj).max() <= 0.5

    done = run_configs(
        bundle,
        "train evaluate",
        *(*common, "--output_dir", tmp_path / "b", "--held_out", "['tiny-3']"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    done = run_configs(
        bundle,
        "train evaluate_member",
        *("--dataset_dir", nifti_folder, "--output_dir", tmp_path / "c", *SMALL),
        *("--held_out", "['tiny-3']", "--checkpoint", bundle / "models" / "resnet21_axial_0.ts"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for folder in ("b", "c"):
        with (tmp_path / folder / "mean_dice_raw.csv").open() as stream:
            (row,) = [row for row in csv.reader(stream) if row and "tiny" in row[0]]
        assert "tiny-3" in row[0]

    (bundle / "models" / "fpn_axial_0.ts").write_bytes(b"changed")
    done = run_configs(bundle, "inference", *common, "--output_dir", tmp_path / "d", cwd=tmp_path)
    assert done.returncode != 0
    assert "fpn_axial_0.ts does not match" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "d").exists()


def test_folds_part_the_patients(tmp_path: Path) -> None:
    for folder, names in {
        "medseg": ["case1", "case2", "case3", "case6"],
        "drawn": ["case1.synthetic-0", "case3.synthetic-0"],
        "lctsc": ["S1-101"],
    }.items():
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / f"{name}_lesion.nii.gz").touch()
    validated = []
    for fold in (0, 1):
        parser = ConfigParser(read_config(BUNDLE, "train"))
        parser.update({"dataset_dir": str(tmp_path), "fold": fold, "folds": 2})
        names = {case["name"] for case in parser.get_parsed_content("training_cases")}
        # What was drawn from a patient stays on the patient's side, and is not validated on.
        trained_on = {name.split(".")[0] for name in names}
        assert ("case3.synthetic-0" in names) == ("case3" in names)
        kept = {case["name"] for case in parser.get_parsed_content("held_out_cases")}
        assert not trained_on & kept
        # case1 is for the test, and patients of LCTSC are not trained on.
        assert trained_on | kept == {"case2", "case3", "case6"}
        assert ("case2" in kept) == ("case3" in kept)
        validated += sorted(kept)
    assert sorted(validated) == ["case2", "case3", "case6"]
