"""Write what bundles have in common, and what a bundle must repeat, from one place each.

Readers of bundles take a single file: MONAI Label and MONAI Deploy know ``inference.json`` alone,
and a bundle copied away has nothing but its own folder. So its files repeat each other. Here they
are made from

- a folder with the bundle's name: its configs, and in ``variants/`` and ``members/`` small configs
  that its users lay over those;
- what these begin with: ``slice_segmentation/``, ``slice_lesions/``, another bundle's folder, or a
  folder ``parts/``, of which nothing is written by itself;
- ``common/``: files that are the same in every bundle, and LICENSE of the repository;
- ``modules/``: Python modules that the packages of some bundles have in common.

A config is laid over others as MONAI lays the later of two config files over the earlier, and a key
that finds nothing to change stays as it is, for MONAI to resolve when the bundle runs:

- ``"_base_": ["slice_segmentation/train.json"]`` names the files that it begins with, in order;
- ``"_without_": ["unet", "train#draw_slices"]`` lists keys of theirs to leave out;
- ``"key"`` replaces or adds a key;
- ``"+key"`` adds keys to a group or items to a list;
- ``"train#inferer"`` replaces or adds a key inside a group. An item of a list goes by its index or
  by its ``_target_``: ``"train#handlers#StatsHandler#output_transform"``.

``inference.json`` also repeats the network and its input from ``train.json``, where it has none of
its own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).parent
REPOSITORY = SOURCES.parents[1]
# Bundle to the modules that its package shares with others.
BUNDLE_MODULES: dict[str, tuple[str, ...]] = {
    "lung_segmentation": (),
    "lesion_segmentation_2d": ("looks.py",),
    "lesion_segmentation_3d": ("slice_weights.py",),
    "lesion_ensemble": (),
    "multitask_triage": ("looks.py", "shared.py", "slice_weights.py", "unet.py"),
    "mask_rcnn_classifier": ("shared.py", "slice_weights.py", "unet.py"),
}
BUNDLE_NAMES = tuple(BUNDLE_MODULES)
# Folders of a bundle's configs, as its users see them.
CONFIG_FOLDERS = ("", "variants", "members")
# What training decides and inference must know: the network and its input.
REPEATED_IN_INFERENCE = (
    "bundle_package",
    "axcodes",
    "spacing_mm",
    "smooth",
    "anti_alias",
    "hu_window",
    "divisor",
    "threshold",
    "temperature",
    "window_size",
    "lung_region",
    "crop_margin",
    "slice_size",
    "in_channels",
    "context_mm",
    "with_context",
    "see_context",
    "smooth_slices_mm",
    "smooth_slices",
    "to_probabilities",
    "unet",
    "head",
    "normalizations",
    "encoder_weights",
    "decoder_channels",
    "architectures",
    "feature_map",
    "pyramid_levels",
    "chunk_slices",
    "backbone",
    "anchor_sizes",
    "proposals",
    "detector",
    "network_def",
    "network",
)


def generated_files(bundle: str) -> dict[Path, str]:
    """Return the text of every generated file by its path inside the bundle.

    Parameters
    ----------
    bundle : str
        One of ``BUNDLE_NAMES``.
    """
    configs = {
        Path(folder, file.name): read_source(file)
        for folder in CONFIG_FOLDERS
        for file in sorted((SOURCES / bundle / folder).glob("*.json"))
    }
    training, inference = configs[Path("train.json")], configs[Path("inference.json")]
    repeated = {
        key: training[key]
        for key in REPEATED_IN_INFERENCE
        if key in training and key not in inference
    }
    configs[Path("inference.json")] = _after("device", inference, repeated)
    files = {
        Path("configs", path): json.dumps(config, indent=4) + "\n"
        for path, config in configs.items()
    }
    for file in (SOURCES / "common").iterdir():
        files[Path("configs", file.name)] = file.read_text()
    for name in BUNDLE_MODULES[bundle]:
        files[Path(bundle, name)] = (SOURCES / "modules" / name).read_text()
    files[Path("LICENSE")] = (REPOSITORY / "LICENSE").read_text()
    return files


def read_source(file: Path) -> dict[str, Any]:
    """Read a config and lay it over what it begins with.

    Raises
    ------
    FileNotFoundError
        If it begins with a file that is not there.
    KeyError
        If it leaves out or changes a part that what it begins with does not have.
    """
    own = json.loads(file.read_text())
    config: dict[str, Any] = {}
    for base in own.pop("_base_", []):
        _lay_over(config, read_source(SOURCES / base))
    for key in own.pop("_without_", []):
        holder, last = _place(config, key)
        del holder[last]
    _lay_over(config, own)
    return config


def write(bundles: Path) -> list[Path]:
    """Bring all bundles up to date; return the files that changed."""
    changed = outdated(bundles)
    for bundle in BUNDLE_NAMES:
        for path, text in generated_files(bundle).items():
            if bundles / bundle / path in changed:
                (bundles / bundle / path).parent.mkdir(parents=True, exist_ok=True)
                (bundles / bundle / path).write_text(text)
    return changed


def outdated(bundles: Path) -> list[Path]:
    """Return the generated files that are missing or differ from their sources."""
    return [
        bundles / bundle / path
        for bundle in BUNDLE_NAMES
        for path, text in generated_files(bundle).items()
        if not (bundles / bundle / path).is_file() or (bundles / bundle / path).read_text() != text
    ]


def _lay_over(config: dict[str, Any], own: dict[str, Any]) -> None:
    for key, value in own.items():
        group = key.removeprefix("+")
        target = group if _has(config, group) else key
        holder, last = _place(config, target)
        if key.startswith("+") and _has(config, target):
            added = isinstance(value, dict)
            holder[last] = {**holder[last], **value} if added else [*holder[last], *value]
        else:
            holder[last] = value


def _has(config: dict[str, Any], key: str) -> bool:
    """Tell whether a config holds a group or a list such as ``train#random_transforms``."""
    try:
        holder, last = _place(config, key)
        holder[last]
    except LookupError:
        return False
    return True


def _place(config: dict[str, Any], key: str) -> tuple[Any, Any]:
    """Find what holds a key such as ``train#handlers#StatsHandler``, and its last part there.

    A config to be laid over another at run time has such keys without having the group: they, and
    those that begin with them, belong to the config itself.
    """
    if key in config:
        return config, key
    parts = key.split("#")
    for count in range(len(parts) - 1, 0, -1):
        holder: Any = config.get("#".join(parts[:count]))
        if holder is not None:
            *groups, last = parts[count:]
            for group in groups:
                holder = holder[_index(holder, group)]
            return holder, _index(holder, last)
    return config, key


def _index(holder: Any, part: str) -> Any:
    """Return the key of a group, or an item's index in a list."""
    if not isinstance(holder, list):
        return part
    if part.isdecimal():
        return int(part)
    for index, item in enumerate(holder):
        if isinstance(item, dict) and item.get("_target_") == part:
            return index
    raise KeyError(part)


def _after(key: str, config: dict[str, Any], added: dict[str, Any]) -> dict[str, Any]:
    """Insert keys behind one of a config's keys, where a reader looks for them."""
    result: dict[str, Any] = {}
    for name, value in config.items():
        result[name] = value
        if name == key:
            result.update(added)
    return result
