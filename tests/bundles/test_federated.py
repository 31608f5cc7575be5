"""Federated learning: what NVFlare's MONAI client does with a bundle, without the network."""

import math
import sys
from pathlib import Path

import pytest
import torch
from bundle_commands import BUNDLE_NAMES, BUNDLES_FOLDER, SMALL_TRAINING, STAGES, has_weights
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, WeightType
from monai.fl.utils.exchange_object import ExchangeObject

# From -1 to 1; all other figures of the bundles are from 0 to 1.
CORRELATION = "severity_spearman"


def _files(names: str) -> list[str]:
    return [f"configs/{name}.json" for name in names.split()]


@pytest.mark.filterwarnings("ignore:executing the bundle config:UserWarning")
@pytest.mark.parametrize("name", BUNDLE_NAMES)
def test_a_client_trains_on_the_servers_weights_and_evaluates(
    name: str, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = BUNDLES_FOLDER / name
    monkeypatch.chdir(tmp_path)
    # A client finds a bundle's package by its bundle_root alone.
    monkeypatch.setattr(
        sys, "path", [path for path in sys.path if not path.startswith(str(BUNDLES_FOLDER))]
    )
    options = {
        "bundle_root": str(folder),
        "dataset_dir": str(tree),
        "output_dir": str(tmp_path / "out"),
        "device": torch.device("cpu"),
        "val_interval": 1,
        **SMALL_TRAINING[name],
    }
    training, evaluation = STAGES[name]
    client = MonaiAlgo(
        bundle_root=name,
        local_epochs=2,
        config_train_filename=_files(training),
        config_evaluate_filename=_files(evaluation),
        eval_workflow_name="train",
        train_kwargs=dict(options),
        eval_kwargs=dict(options),
    )
    client.initialize({ExtraItems.CLIENT_NAME: "site-1", ExtraItems.APP_ROOT: str(BUNDLES_FOLDER)})
    untrained = client.trainer.network.state_dict()
    sent = (
        torch.load(folder / "models" / "model.pt", map_location="cpu", weights_only=True)
        if has_weights(folder)
        else {key: value.clone() for key, value in untrained.items()}
    )

    client.train(ExchangeObject(weights=sent))
    received = client.get_weights()

    assert received.weight_type == WeightType.WEIGHT_DIFF
    assert received.weights.keys() == sent.keys()
    changes = [float(change.abs().max()) for change in received.weights.values()]
    assert any(change > 0 for change in changes)
    assert received.statistics["num_executed_iterations"] >= 2

    own = {key: value + received.weights[key] for key, value in sent.items()}
    metrics = client.evaluate(ExchangeObject(weights=own)).metrics

    assert metrics
    for figure, value in metrics.items():
        lowest = -1 if figure == CORRELATION else 0
        assert math.isnan(value) or lowest <= float(value) <= 1
    client.finalize()
