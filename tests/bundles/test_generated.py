"""What bundles repeat comes from one place."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tools.bundles import BUNDLE_NAMES, generate, outdated, write
from tools.bundles.__main__ import main

BUNDLES = Path(__file__).parents[2] / "bundles"


def test_no_generated_file_is_out_of_date() -> None:
    assert outdated(BUNDLES) == []


def test_every_bundle_is_generated() -> None:
    assert sorted(path.name for path in BUNDLES.iterdir() if path.is_dir()) == sorted(BUNDLE_NAMES)


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


@pytest.fixture
def read_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict]:
    """Return what a config becomes on the two that it begins with."""
    first = {
        "imports": ["a"],
        "train": {"steps": 1, "handlers": [{"_target_": "Load"}, {"_target_": "Save", "to": "x"}]},
        "validate#handlers": [{"_target_": "Load"}, {"_target_": "Save"}],
    }
    monkeypatch.setattr(generate, "SOURCES", tmp_path)
    (tmp_path / "first.json").write_text(json.dumps(first))
    (tmp_path / "second.json").write_text(json.dumps({"network": "second", "seed": 2}))

    def read(**own: Any) -> dict:
        file = tmp_path / "own.json"
        file.write_text(json.dumps({"_base_": ["first.json", "second.json"], **own}))
        return generate.read_source(file)

    return read


def test_a_config_begins_with_others_and_replaces_their_keys(
    read_over: Callable[..., dict],
) -> None:
    config = read_over(network="own", train="@other")
    assert list(config) == ["imports", "train", "validate#handlers", "network", "seed"]
    assert (config["network"], config["train"], config["seed"]) == ("own", "@other", 2)


def test_a_config_adds_to_groups_and_lists(read_over: Callable[..., dict]) -> None:
    config = read_over(
        **{
            **{"+imports": ["b"], "+train": {"epochs": 3}, "+inference": {"c": 4}},
            **{"+train#handlers": [5], "+validate#handlers": [6], "+export#handlers": [7]},
        }
    )
    assert config["imports"] == ["a", "b"]
    assert list(config["train"]) == ["steps", "handlers", "epochs"]
    # Nothing to add to yet: MONAI adds it when the bundle runs.
    assert config["+inference"] == {"c": 4}
    assert config["+export#handlers"] == [7]
    assert config["train"]["handlers"][2:] == [5]
    assert config["validate#handlers"][2:] == [6]


def test_a_config_changes_and_leaves_out_parts(read_over: Callable[..., dict]) -> None:
    config = read_over(
        _without_=["train#handlers#Load", "validate#handlers#1", "seed"],
        **{"train#handlers#Save#to": "y", "train#epochs": 3, "validate#metrics": 5},
    )
    assert config["train"] == {
        "steps": 1,
        "handlers": [{"_target_": "Save", "to": "y"}],
        "epochs": 3,
    }
    assert config["validate#handlers"] == [{"_target_": "Load"}]
    assert config["validate#metrics"] == 5
    assert "seed" not in config


@pytest.mark.parametrize("key", ["stepz", "train#stepz", "train#handlers#Loud"])
def test_a_key_to_leave_out_must_be_there(key: str, read_over: Callable[..., dict]) -> None:
    with pytest.raises(KeyError, match=key.split("#")[-1]):
        read_over(_without_=[key])


@pytest.mark.parametrize("bundle", BUNDLE_NAMES)
def test_training_and_inference_agree_on_network_and_input(bundle: str) -> None:
    train, inference = (
        json.loads((BUNDLES / bundle / "configs" / f"{name}.json").read_text())
        for name in ("train", "inference")
    )
    # A second stage is laid over the first.
    second = BUNDLES / bundle / "configs" / "classify.json"
    train |= json.loads(second.read_text()) if second.is_file() else {}
    # An ensemble is made of members, which train one by one.
    network = "architectures" if "architectures" in train else "network_def"
    for key in (network, "unet", "head", "spacing_mm", "hu_window", "threshold"):
        assert train.get(key) == inference.get(key)
    # Members are trained in their own planes and run on axial volumes.
    planes = train.get("planes", {"axial": train["axcodes"]})
    assert inference["axcodes"] == planes["axial"]
