"""The commands on each bundle's card run as written, in a folder that holds the bundle alone."""

import ast
import re
import shlex
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from bundle_commands import (
    BUNDLE_NAMES,
    BUNDLES_FOLDER,
    SMALL_TRAINING,
    as_options,
    has_weights,
    parsed,
    read_config,
    run_warm_python,
)

from tools.bundles.release import release, release_member
from tools.datasets import __main__ as datasets
from tools.datasets import diagnosed

WORKING_FOLDERS = (
    *("OUTPUT", "MASKS", "RESULTS", "DETECTOR", "CLASSIFIER", "FINE_TUNED", "COLLECTIONS"),
    *("STAGE_1", "STAGE_2"),
)
# Weights that a training starts from.
EARLIER = {"FIRST": "lung_segmentation", "SLICES": "lesion_segmentation_2d"}
# What inference writes, where not masks alone.
TABLES = {"multitask_triage": "identification.csv", "mask_rcnn_classifier": "studies.csv"}
# Where the last training of a card leaves its weights, if not in OUTPUT.
TRAINED = {"mask_rcnn_classifier": "CLASSIFIER"}
# Appended to what the card says.
ONE_STEP = {"max_epochs": 1, "val_interval": 1}
LIGHT = {"encoder": "resnet18"}
# Configs to lay over a bundle's own, and what makes them small. fine_tune.json of the classifier
# is for the second stage alone, on weights: its card has the command.
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "lung_segmentation": {
        "variants/unet": LIGHT,
        "variants/linknet": LIGHT,
        "variants/fpn": {"encoder": "efficientnet-b1"},
        "variants/triplanar": {**LIGHT, "cube": 32},
    },
    "lesion_segmentation_2d": {
        "variants/unet": LIGHT,
        "variants/linknet": LIGHT,
        "variants/fpn": {"encoder": "densenet121"},
        "variants/plus": {},
        "variants/cascade": {**LIGHT, "resized_to": [64, 64]},
        "variants/threshold": {"spacing_mm": [6.0, 6.0, 6.0]},
    },
    "lesion_segmentation_3d": {"variants/cpu": {}},
    "lesion_ensemble": {
        "variants/cpu": {"member": "resnet21"},
        "members/resnet18": {"member": "resnet18"},
        "members/fpn": {"member": "fpn"},
        "members/dpn92": {"member": "dpn92"},
    },
    "multitask_triage": {
        "variants/spatial_4": {},
        "variants/latent": {},
        "variants/resnet50": {},
        "variants/lesions_first": {},
        "variants/cpu": {},
        "variants/identification_only": {"initial_weights": "models/model.pt"},
    },
    "mask_rcnn_classifier": {
        "variants/s": {},
        "variants/s_bn": {},
        "variants/full": {},
        "variants/resnet18": {"slice_weights": ""},
        "variants/resnet50": {"slice_weights": ""},
        "variants/cpu": {},
    },
}
ELSEWHERE = {"variants/fine_tune"}


def _blocks(card: str) -> Iterator[list[list[str]]]:
    """Yield the commands of each fenced block, as words."""
    for block in re.findall(r"^```\n(.*?)^```", card, re.DOTALL | re.MULTILINE):
        lines = block.replace("\\\n", " ").splitlines()
        if lines[0].startswith("python "):
            yield [shlex.split(line, comments=True) for line in lines]


def _card(name: str) -> str:
    return (BUNDLES_FOLDER / name / "docs" / "README.md").read_text()


def _option(words: Sequence[str], name: str) -> str:
    return words[words.index(f"--{name}") + 1]


def _configs(words: Sequence[str]) -> list[str]:
    """Return the names of configs, such as "train", of a command that runs them."""
    if "run" not in words:
        return []
    given = _option(words, "config_file")
    files = ast.literal_eval(given) if given.startswith("[") else [given]
    return [file.removeprefix("configs/").removesuffix(".json") for file in files]


def _is_training(words: Sequence[str]) -> bool:
    configs = _configs(words)
    return "train" in configs and not any(name.startswith("evaluate") for name in configs)


def _in_order(card: str) -> list[list[str]]:
    """List the card's commands of MONAI; blocks that train come first, for others need weights."""
    blocks = [[words for words in block if words[2] == "monai.bundle"] for block in _blocks(card)]
    blocks = [block for block in blocks if block]
    blocks.sort(key=lambda block: not _is_training(block[0]))
    return [words for block in blocks for words in block]


def _with_variant(commands: Sequence[Sequence[str]], name: str, variant: str) -> list[list[str]]:
    """Lay a variant over the bundle's own configs of each command, once for each of these."""
    keys = read_config(BUNDLES_FOLDER / name, variant)
    # Inference knows nothing of how a recipe trains.
    is_recipe = any(key.startswith(("train#", "loss#")) for key in keys)
    result: dict[tuple[str, ...], list[str]] = {}
    by_member = any("evaluate_member" in _configs(words) for words in commands)
    for words in commands:
        own = tuple(name for name in _configs(words) if "/" not in name)
        # An ensemble merges released members, whatever is trained.
        if not own or (by_member and own not in {("train",), ("train", "evaluate_member")}):
            continue
        if is_recipe and "train" not in own:
            continue
        files = [f"configs/{name}.json" for name in (*own, variant)]
        place = words.index("--config_file") + 1
        changed = [*words[:place], str(files), *words[place + 1 :]]
        if "evaluate_member" in own or not (_is_training(words) or "--checkpoint" in words):
            # Of an option that is given twice, the last counts.
            changed += ["--checkpoint", f"{TRAINED.get(name, 'OUTPUT')}/model.pt"]
        result.setdefault(own, changed)
    return list(result.values())


def _prepared(
    commands: Iterable[Sequence[str]], name: str, places: dict[str, Path], own: dict[str, Any]
) -> list[dict[str, Any]]:
    """Put folders for the card's placeholders, append what keeps it small, say what is written."""
    prepared = []
    for words in commands:
        words = [
            re.sub(rf"^({'|'.join(places)})\b", lambda match: str(places[match[1]]), word)
            for word in words
        ]
        configs = _configs(words)
        if not configs:
            prepared.append({"words": words, "writes": _option(words, "filepath")})
            continue
        small = {**SMALL_TRAINING[name], **own}
        if _is_training(words):
            small |= ONE_STEP
            file = "model.pt"
        elif "inference" in configs:
            small = {key: value for key, value in small.items() if not key.startswith("train#")}
            file = TABLES.get(name, "*.nii.gz")
        else:
            file = "*.csv"
        overrides = map(str, as_options(small))
        writes = str(Path(_option(words, "output_dir"), file))
        prepared.append({"words": [*words, *overrides], "writes": writes})
    return prepared


def _run(commands: list[dict[str, Any]], folder: Path) -> None:
    assert commands
    for command in commands:
        python, option, module, *arguments = command["words"]
        assert (python, option) == ("python", "-m"), command
        before = time.time()
        done = run_warm_python(module, *arguments, cwd=folder)
        assert done.returncode == 0, f"{done.stderr[-3000:]}\nof: {' '.join(command['words'])}"
        pattern = folder / command["writes"]
        written = pattern.parent.glob(pattern.name)
        # File systems may round times down.
        assert any(path.stat().st_mtime > before - 1 for path in written), command


def _release_untrained(bundle: Path, folder: Path) -> None:
    """Give a bundle without weights those of untrained networks."""
    parser = parsed(bundle, "inference")
    network = parser.get_parsed_content("network_def")
    checkpoint = folder / "untrained.pt"
    if "members" in parser:
        for member, part in zip(parser["members"], network.networks, strict=True):
            torch.save(part.state_dict(), checkpoint)
            release_member(bundle, checkpoint, Path(member["weights"]).stem)
    else:
        torch.save(network.state_dict(), checkpoint)
        release(bundle, checkpoint)


@pytest.fixture
def alone(
    name: str, tree: Path, nifti_folder: Path, tmp_path: Path
) -> tuple[Path, dict[str, Path]]:
    """Return a copy of a bundle in an empty folder, and folders for the card's placeholders."""
    bundle = shutil.copytree(
        BUNDLES_FOLDER / name,
        tmp_path / "alone" / name,
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    if not (has_weights(bundle) or (bundle / "models" / "SHA256SUMS").is_file()):
        _release_untrained(bundle, tmp_path)
    studies = tmp_path / "studies"
    studies.mkdir()
    for kind in ("ct", "lung", "lesion"):
        shutil.copy(nifti_folder / f"tiny-1_{kind}.nii.gz", studies)
    places = {folder: tmp_path / folder.lower() for folder in WORKING_FOLDERS}
    places["OUTPUT"].mkdir()
    places |= {folder: BUNDLES_FOLDER / other / "models" for folder, other in EARLIER.items()}
    return bundle, {**places, "TREE": tree, "SECOND_TREE": tree, "STUDIES": studies}


@pytest.mark.slow
@pytest.mark.parametrize("name", BUNDLE_NAMES)
def test_the_commands_of_a_card_run_as_written(
    name: str, alone: tuple[Path, dict[str, Path]]
) -> None:
    bundle, places = alone
    commands = _in_order(_card(name))
    configs = [" ".join(_configs(words)) for words in commands]
    for purpose in ("train", "evaluate", "inference"):
        assert any(purpose in names for names in configs), f"the card has no command for {purpose}"
    _run(_prepared(commands, name, places, {}), bundle)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "variant"), [(name, variant) for name in VARIANTS for variant in VARIANTS[name]]
)
def test_the_commands_of_a_card_run_with_a_variant(
    name: str, variant: str, alone: tuple[Path, dict[str, Path]]
) -> None:
    bundle, places = alone
    commands = _with_variant(_in_order(_card(name)), name, variant)
    _run(_prepared(commands, name, places, VARIANTS[name][variant]), bundle)


def test_every_variant_of_every_bundle_is_tested_here() -> None:
    for name in BUNDLE_NAMES:
        configs = BUNDLES_FOLDER / name / "configs"
        shipped = {
            f"{kind}/{path.stem}"
            for kind in ("variants", "members")
            for path in (configs / kind).glob("*.json")
        }
        assert shipped - ELSEWHERE == set(VARIANTS[name])


@pytest.mark.parametrize("name", BUNDLE_NAMES)
def test_the_commands_of_a_card_that_make_data_are_understood(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    monkeypatch.setattr(datasets, "build_tree", lambda *_, **__: made.append("tree"))
    monkeypatch.setattr(diagnosed, "write_diagnosed", lambda *_, **__: made.append("diagnosed"))
    parsers = {"tools.datasets": datasets.main, "tools.datasets.diagnosed": diagnosed.main}
    monkeypatch.chdir(tmp_path)
    # In fenced blocks and, shorter, between words.
    text = _card(name).replace("\\\n", " ").replace("\n", " ").replace("```", "`")
    for folder in re.findall(r"TREE/\w+", text):
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(folder, "patient_ct.nii.gz").touch()
    for module, arguments in re.findall(
        r"python -m (tools\.datasets[\w.]*) ([^`#]*?)(?= *[`#]| python)", text
    ):
        assert parsers[module](shlex.split(arguments)) == 0
    assert made
