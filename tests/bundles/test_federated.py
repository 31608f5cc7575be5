"""Federated learning: what NVFlare's MONAI client does with a bundle, without the network."""

from pathlib import Path
from typing import Any

import pytest
import torch
from bundle_commands import BUNDLE_NAMES, BUNDLES_FOLDER, has_weights, read_config
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, WeightType
from monai.fl.utils.exchange_object import ExchangeObject

# What makes training tiny, where a bundle has such a key.
SMALL = {
    "held_out": ["tiny-3"],
    "val_interval": 1,
    "spacing_mm": [4.0, 4.0],
    "train#slice_size": [96, 96],
    "train#slices_per_patient": 1,
}
# What a bundle needs beside that, by its name.
OWN: dict[str, dict[str, Any]] = {
    "lesion_segmentation_3d": {
        "spacing_mm": [6.0, 6.0, 6.0],
        "train#patch_size": [32, 32, 32],
        "window_size": [64, 64, 64],
    }
}


def _small(folder: Path) -> dict[str, Any]:
    train = read_config(folder, "train")
    options = {
        key: value
        for key, value in SMALL.items()
        if key in train or ("#" in key and key.split("#")[1] in train["train"])
    }
    return {**options, **OWN.get(folder.name, {})}


@pytest.mark.filterwarnings("ignore:executing the bundle config:UserWarning")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=[]
            if has_weights(BUNDLES_FOLDER / name)
            else pytest.mark.skip(reason="no weights are released yet"),
        )
        for name in BUNDLE_NAMES
    ],
)
def test_a_client_trains_on_the_servers_weights_and_evaluates(
    name: str, nifti_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = BUNDLES_FOLDER / name
    monkeypatch.chdir(tmp_path)
    options = {
        "dataset_dir": str(nifti_folder),
        "output_dir": str(tmp_path / "out"),
        "device": torch.device("cpu"),
        **_small(folder),
    }
    client = MonaiAlgo(
        bundle_root=name,
        local_epochs=2,
        config_evaluate_filename=["configs/train.json", "configs/evaluate.json"],
        eval_workflow_name="train",
        train_kwargs=dict(options),
        eval_kwargs=dict(options),
    )
    client.initialize({ExtraItems.CLIENT_NAME: "site-1", ExtraItems.APP_ROOT: str(BUNDLES_FOLDER)})
    sent = torch.load(folder / "models" / "model.pt", map_location="cpu", weights_only=True)

    client.train(ExchangeObject(weights=sent))
    received = client.get_weights()

    assert received.weight_type == WeightType.WEIGHT_DIFF
    assert received.weights.keys() == sent.keys()
    assert any(float(change.abs().max()) > 0 for change in received.weights.values())
    assert received.statistics["num_executed_iterations"] >= 2

    own = {key: value + received.weights[key] for key, value in sent.items()}
    metrics = client.evaluate(ExchangeObject(weights=own)).metrics

    assert metrics
    assert all(0 <= float(value) <= 1 for value in metrics.values())
    client.finalize()
