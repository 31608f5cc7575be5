"""What others do with any bundle: check it, export it, load it by name, several in one process."""

import hashlib
import sys
from pathlib import Path
from typing import Any

import monai.bundle
import numpy as np
import onnxruntime
import pytest
import torch
from bundle_commands import (
    BUNDLE_NAMES,
    BUNDLES_FOLDER,
    SMALL_TRAINING,
    config_files,
    has_weights,
    read_config,
)
from monai.bundle import ConfigParser
from monai.data import load_net_with_metadata
from monai.networks import eval_mode

INFERENCE, METADATA, WEIGHTS = "configs/inference.json", "configs/metadata.json", "models/model.pt"
SOURCES = {"meta_file": METADATA, "config_file": INFERENCE}
VOTES = "members are files of their own, merged by Python code"
NO_TORCHSCRIPT = {"lesion_ensemble": VOTES}
NO_ONNX = {
    "lesion_ensemble": VOTES,
}
# Outputs and their open axes, where metadata.json, which verify_net_in_out reads, knows a part.
ONNX_OUTPUTS = {
    "multitask_triage": {"lesion": {0: "batch", 2: "axis_0", 3: "axis_1"}, "identification": {}},
    "mask_rcnn_classifier": {"logits": {}},
}
# Inputs beside the image, which an export lists although they have a default.
ONNX_INPUTS = {"multitask_triage": {"studies": np.array(1)}}
# A trace of region proposals holds for one number of slices.
ONE_SLICE = {"mask_rcnn_classifier"}
# What metadata.json describes, where it is a part of what inference runs.
DESCRIBED = {"multitask_triage": "lesion_network"}


@pytest.fixture(params=BUNDLE_NAMES)
def folder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a bundle's folder, with no other on Python's path."""
    folder = BUNDLES_FOLDER / request.param
    monkeypatch.chdir(folder)
    monkeypatch.setattr(
        sys, "path", [path for path in sys.path if not path.startswith(str(BUNDLES_FOLDER))]
    )
    return folder


def _image_shape(folder: Path, slices: int, dynamic: int) -> tuple[int, ...]:
    """Return a shape of the input that metadata.json describes; open axes get `dynamic`."""
    image = read_config(folder, "metadata")["network_data_format"]["inputs"]["image"]
    spatial = [dynamic if isinstance(size, str) else size for size in image["spatial_shape"]]
    return (slices, image["num_channels"], *spatial)


def _dynamic_axes(folder: Path) -> dict[str, dict[int, str]]:
    """Name the axes that metadata.json leaves open, of the input and of an output like it."""
    data_format = read_config(folder, "metadata")["network_data_format"]
    return {
        name: {
            0: "batch",
            **{
                2 + axis: f"axis_{axis}"
                for axis, size in enumerate(tensor["spatial_shape"])
                if isinstance(size, str)
            },
        }
        for group in ("inputs", "outputs")
        for name, tensor in data_format[group].items()
    }


def _untrained(folder: Path) -> torch.nn.Module:
    parser = ConfigParser()
    parser.read_config(str(folder / INFERENCE))
    parser["bundle_root"] = str(folder)
    torch.manual_seed(0)
    return parser.get_parsed_content("network_def").eval()


def _network(folder: Path) -> torch.nn.Module:
    """Return the released network, or an untrained one where no weights are released."""
    network = _untrained(folder)
    if has_weights(folder):
        network.load_state_dict(torch.load(folder / WEIGHTS, weights_only=True))
    return network


@pytest.fixture
def checkpoint(folder: Path, tmp_path: Path) -> str:
    """Return the file of the weights that `_network` has."""
    if has_weights(folder):
        return WEIGHTS
    torch.save(_network(folder).state_dict(), tmp_path / "model.pt")
    return str(tmp_path / "model.pt")


def _skip_where_listed(folder: Path, reasons: dict[str, str]) -> None:
    if folder.name in reasons:
        pytest.skip(reasons[folder.name])


def _tensors(output: Any) -> list[torch.Tensor]:
    """List what a network returns: a tensor, or several in a tuple, list or dictionary."""
    if isinstance(output, torch.Tensor):
        return [output]
    values = output.values() if isinstance(output, dict) else output
    return [tensor for value in values for tensor in _tensors(value)]


def _assert_same(found: list[Any], expected: list[torch.Tensor], atol: float = 1e-4) -> None:
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(torch.as_tensor(one), other, rtol=1e-3, atol=atol)
        assert other.numel() == 1 or float(other.std()) > 0


def test_metadata_follow_the_schema_that_the_bundle_ships(folder: Path) -> None:
    monai.bundle.verify_metadata(
        meta_file=METADATA, filepath="configs/metadata_schema.json", hash_val=None
    )
    metadata = read_config(folder, "metadata")
    assert metadata["version"] in metadata["changelog"]
    assert metadata["name"] == folder.name


@pytest.mark.parametrize("kind", ["train", "inference"])
def test_the_configs_have_every_part_that_monai_asks_for(
    kind: str, folder: Path, tree: Path, tmp_path: Path
) -> None:
    """The model zoo's check of properties, which builds each of the required ones."""
    workflow = monai.bundle.ConfigWorkflow(
        config_files(folder, kind),
        meta_file=METADATA,
        logging_file=False,
        workflow_type=kind,
        bundle_root=str(folder),
        dataset_dir=str(tree),
        output_dir=str(tmp_path),
        **SMALL_TRAINING[folder.name] if kind == "train" else {},
    )
    workflow.initialize()
    assert not workflow.check_properties()


@pytest.mark.parametrize("name", BUNDLE_NAMES)
def test_a_bundle_has_the_files_of_the_model_zoo(name: str) -> None:
    folder = BUNDLES_FOLDER / name
    configs = {f"configs/{one}.json" for one in ("metadata", "train", "evaluate", "inference")}
    multi_gpu = {f"configs/multi_gpu_{one}.json" for one in ("train", "evaluate")}
    docs = {"LICENSE", "docs/README.md", "docs/data_license.txt"}
    files = {"configs/logging.conf", "models/model.ts", "models/SHA256SUMS"}
    wanted = {*configs, *multi_gpu, *docs, *files}
    assert {file for file in wanted if not (folder / file).is_file()} == set()
    sums = dict(reversed(line.split()) for line in (folder / "models/SHA256SUMS").open())
    for file in (folder / "models").iterdir():
        if file.name != "SHA256SUMS":
            assert hashlib.sha256(file.read_bytes()).hexdigest() == sums[file.name]
            assert file.stat().st_size < 25e6


def test_the_network_takes_and_returns_what_the_metadata_say(folder: Path) -> None:
    image = read_config(folder, "metadata")["network_data_format"]["inputs"]["image"]
    monai.bundle.verify_net_in_out(
        DESCRIBED.get(folder.name, "network_def"),
        meta_file=METADATA,
        config_file=INFERENCE,
        n=33 if set(image["spatial_shape"]) == {"n"} else 2,
        any=64,
        device="cpu",
    )


def test_exported_torchscript_gives_the_same(folder: Path, checkpoint: str, tmp_path: Path) -> None:
    _skip_where_listed(folder, NO_TORCHSCRIPT)
    file = tmp_path / "model.ts"
    monai.bundle.ckpt_export(
        "network_def",
        filepath=str(file),
        ckpt_file=checkpoint,
        **SOURCES,
    )
    scripted, metadata, extra = load_net_with_metadata(
        str(file), more_extra_files=["inference.json"]
    )
    assert metadata["name"] == folder.name
    assert b"network_def" in extra["inference.json"]
    image = torch.rand(_image_shape(folder, 2, 96))
    with torch.no_grad():
        _assert_same(_tensors(scripted(image)), _tensors(_network(folder)(image)))


def test_onnx_gives_the_same_for_other_sizes(folder: Path, checkpoint: str, tmp_path: Path) -> None:
    _skip_where_listed(folder, NO_ONNX)
    file = tmp_path / "model.onnx"
    single = folder.name in ONE_SLICE
    others = ONNX_INPUTS.get(folder.name, {})
    axes = _dynamic_axes(folder)
    image = {"image": axes["image"]}
    axes = {**image, **ONNX_OUTPUTS[folder.name]} if folder.name in ONNX_OUTPUTS else axes
    if single:
        del axes["image"][0]
    monai.bundle.onnx_export(
        "network_def",
        filepath=str(file),
        ckpt_file=checkpoint,
        **SOURCES,
        use_trace=True,
        input_shape=_image_shape(folder, 1 if single else 2, 64),
        converter_kwargs={
            "input_names": ["image", *others],
            "output_names": list(axes)[1:],
            "dynamic_axes": axes,
            "dynamo": False,
        },
    )
    session = onnxruntime.InferenceSession(str(file))
    described, *_ = session.get_inputs()
    assert [one.name for one in session.get_inputs()] == ["image", *others]
    assert [described.shape[axis] for axis in axes["image"]] == list(axes["image"].values())
    assert [output.name for output in session.get_outputs()] == list(axes)[1:]
    network = _network(folder)
    for slices in (1, 1) if single else (1, 3, 18):
        other = torch.rand(_image_shape(folder, slices, 64 if slices > 3 else 96))
        with torch.no_grad():
            expected = _tensors(network(other))
        found = session.run(None, {"image": other.numpy(), **others})
        # Rounding swaps boxes of nearly equal score in the ranking that the classifier reads.
        _assert_same(found, expected, atol=0.2 if single else 1e-4)


def test_monai_loads_it_by_name(folder: Path) -> None:
    if not has_weights(folder):
        pytest.skip("no weights are released yet")
    network = monai.bundle.load(
        folder.name,
        workflow_type="inference",
        bundle_dir=str(BUNDLES_FOLDER),
        source="github",
        device="cpu",
    )
    image = torch.rand(_image_shape(folder, 1, 64))
    with eval_mode(network):
        _assert_same(_tensors(network(image)), _tensors(_network(folder)(image)))


def test_all_bundles_run_in_one_process() -> None:
    workflows = {
        name: monai.bundle.ConfigWorkflow(
            config_files(BUNDLES_FOLDER / name, "inference"),
            logging_file=False,
            workflow_type="inference",
            bundle_root=str(BUNDLES_FOLDER / name),
        )
        for name in BUNDLE_NAMES
    }
    for workflow in workflows.values():
        workflow.parser.parse(True)
    for name, workflow in workflows.items():
        folder = BUNDLES_FOLDER / name
        network = workflow.parser.get_parsed_content("network_def")
        if has_weights(folder):
            network.load_state_dict(torch.load(folder / WEIGHTS, weights_only=True))
        image = torch.rand(_image_shape(folder, 1, 64))
        with eval_mode(network):
            outputs = _tensors(network(image))
        assert outputs
        assert all(np.isfinite(output.numpy()).all() for output in outputs)
