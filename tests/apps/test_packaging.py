"""The manifests of the package, and what `monai-deploy package` makes of the same sources."""

import importlib.metadata
import itertools
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
import torchvision
import yaml
from holoscan_cli import __main__ as packager

from tools.map import Engine, build_image, image
from tools.map.image import pinned

REPOSITORY = Path(__file__).parents[2]
APP = REPOSITORY / "apps" / "ct_triage"
BUNDLES = REPOSITORY / "bundles"
sys.path.insert(0, str(APP / "map"))
import manifests  # noqa: E402


@pytest.fixture
def build_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder that `monai-deploy package` would hand to docker."""
    context = tmp_path / "context"

    def keep(**build: object) -> None:
        shutil.copytree(str(build["context_path"]), context)

    builder = "holoscan_cli.packager.container_builder"
    monkeypatch.setattr(f"{builder}.create_and_get_builder", lambda name: name)
    monkeypatch.setattr(f"{builder}.build_docker_image", keep)
    command = ["monai-deploy", "package", APP, "--config", APP / "app.yaml", "--models", BUNDLES]
    command += ["--docs", APP / "docs", "--source", APP / "packaging" / "artifacts.json"]
    command += [
        "--platform",
        "x86_64",
        "--tag",
        "ct_triage:0.1.0",
        "--uid",
        "1000",
        "--gid",
        "1000",
    ]
    monkeypatch.setattr(sys, "argv", list(map(str, command)))
    packager.main(list(map(str, command)))
    return context


def test_the_packager_finds_all_it_needs(build_context: Path) -> None:
    dockerfile = (build_context / "Dockerfile").read_text()
    assert "FROM nvcr.io/nvidia/cuda:13.0.0-runtime-ubuntu24.04 AS base" in dockerfile
    assert "pip install monai-deploy-app-sdk==4.0.0" in dockerfile
    assert (build_context / "app" / "__main__.py").is_file()
    assert (build_context / "docs" / "result.schema.json").is_file()
    requirements = (build_context / "pip" / "requirements.txt").read_text().split()
    assert set((APP / "requirements.txt").read_text().split()) <= set(requirements)
    model = Path("lung_segmentation", "models", "model.ts")
    assert (build_context / "models" / model).read_bytes() == (BUNDLES / model).read_bytes()


def test_both_ways_give_the_same_manifests(build_context: Path) -> None:
    app, pkg = manifests.build_manifests(APP / "app.yaml", BUNDLES, "gpu")
    theirs = json.loads((build_context / "map" / "app.json").read_text())
    # The path of the application is the only thing that differs outside an image.
    assert {**app, "command": None} == {**theirs, "command": None}
    theirs = json.loads((build_context / "map" / "pkg.json").read_text())
    for key in ("apiVersion", "applicationRoot", "modelRoot", "version", "platformConfig"):
        assert pkg[key] == theirs[key]
    assert set(pkg["models"].items()) <= set(theirs["models"].items())


def test_the_artifacts_file_names_the_pinned_sdk() -> None:
    artifacts = json.loads((APP / "packaging" / "artifacts.json").read_text())
    assert list(artifacts) == [pinned("holoscan-cu13")]
    wheel = artifacts[pinned("holoscan-cu13")]["holoscan"]["wheel-version"]
    assert wheel == pinned("holoscan-cu13")


def test_versions_agree_wherever_they_are_pinned() -> None:
    ours = set((APP / "requirements.txt").read_text().split())
    project = set((REPOSITORY / "requirements.txt").read_text().splitlines())
    assert ours <= project
    from ct_triage import __version__

    configuration = yaml.safe_load((APP / "app.yaml").read_text())
    assert configuration["application"]["version"] == __version__


class Detector(torch.nn.Module):
    def forward(self, boxes: torch.Tensor) -> torch.Tensor:
        return torchvision.ops.nms(boxes, boxes[:, 0], 0.5)


@pytest.fixture
def bundles_with_a_classifier(tmp_path: Path) -> Path:
    folder = tmp_path / "bundles"
    # Its training is still to come.
    (folder / "untrained" / "configs").mkdir(parents=True)
    (folder / "untrained" / "configs" / "metadata.json").write_text("{}")
    modules = {
        "plain": {"model.ts": torch.nn.ReLU()},
        # One of its members detects.
        "classifier": {"model.ts": torch.nn.ReLU(), "member.ts": Detector()},
    }
    for name, files in modules.items():
        (folder / name / "configs").mkdir(parents=True)
        (folder / name / "models").mkdir()
        for file, module in files.items():
            torch.jit.script(module).save(str(folder / name / "models" / file))
        sums = "0a  model.pt\n" + "".join(f"1b  {file}\n" for file in files)
        (folder / name / "models" / "SHA256SUMS").write_text(sums)
        metadata = {"version": "1.0.0", "task": "t", "copyright": "c"}
        # Training does, and loading a file does not.
        metadata["required_packages_version"] = {"torchvision": "0.28.0"}
        (folder / name / "configs" / "metadata.json").write_text(json.dumps(metadata))
    return folder


def test_a_model_that_cannot_run_in_the_image_is_left_out_and_named(
    bundles_with_a_classifier: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    installed = importlib.metadata.version

    def without_torchvision(package: str) -> str:
        if package == "torchvision":
            raise importlib.metadata.PackageNotFoundError(package)
        return installed(package)

    monkeypatch.setattr(importlib.metadata, "version", without_torchvision)
    options = ["--models", bundles_with_a_classifier, "--output", tmp_path / "etc"]
    assert manifests.main(list(map(str, options))) == 0
    pkg = json.loads((tmp_path / "etc" / "pkg.json").read_text())
    assert list(pkg["models"]) == list(pkg["modelDetails"]) == ["plain"]
    assert pkg["modelDetails"]["plain"]["sha256"] == {"model.ts": "1b"}
    assert "needs torchvision" in pkg["modelsLeftOut"]["classifier"]
    assert pkg["modelsLeftOut"]["untrained"] == "is shipped without weights"
    assert "classifier is left out" in capsys.readouterr().out
    assert [folder.name for folder in bundles_with_a_classifier.iterdir()] == ["plain"]


def test_with_torchvision_no_model_is_left_out(bundles_with_a_classifier: Path) -> None:
    _, pkg = manifests.build_manifests(APP / "app.yaml", bundles_with_a_classifier, "cpu")
    assert list(pkg["models"]) == ["classifier", "plain"]
    assert list(pkg["modelsLeftOut"]) == ["untrained"]
    assert (pkg["platformConfig"], pkg["resources"]["gpu"]) == ("cpu", 0)


def test_the_manifests_of_the_gpu_variant_ask_for_a_gpu(bundles_with_a_classifier: Path) -> None:
    _, pkg = manifests.build_manifests(APP / "app.yaml", bundles_with_a_classifier, "gpu")
    assert (pkg["platformConfig"], pkg["resources"]["gpu"]) == ("dgpu", 1)


def test_every_bundle_is_in_the_package_or_named_with_the_reason() -> None:
    _, pkg = manifests.build_manifests(APP / "app.yaml", BUNDLES, "cpu")
    assert sorted([*pkg["models"], *pkg["modelsLeftOut"]]) == sorted(
        folder.name for folder in BUNDLES.iterdir() if (folder / "configs").is_dir()
    )
    assert set(pkg["modelDetails"]) == set(pkg["models"])


@pytest.mark.parametrize("variant", ["cpu", "gpu"])
def test_a_variant_is_one_argument_of_the_same_build(
    variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    build: list[str] = []
    monkeypatch.setattr(image, "_fetch_cpu_wheels", lambda: fetched.append("cpu"))
    monkeypatch.setattr(Engine, "check", lambda _, *arguments: build.extend(map(str, arguments)))
    tag = build_image(Engine("podman"), variant, "registry.example/debian:bookworm")
    assert build[build.index("--tag") + 1] == tag == f"localhost/ct_triage:{variant}"
    given = dict(
        value.split("=", 1)
        for option, value in itertools.pairwise(build)
        if option == "--build-arg"
    )
    assert (given["VARIANT"], given["BASE_IMAGE"]) == (variant, "registry.example/debian:bookworm")
    # torch of PyPI brings CUDA along and is fetched by the build.
    assert fetched == (["cpu"] if variant == "cpu" else [])
    dockerfile = (APP / "Dockerfile").read_text()
    assert all(f"ARG {name}" in dockerfile for name in given)
