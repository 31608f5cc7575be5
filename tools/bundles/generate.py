"""Write what bundles have in common, and what a bundle must repeat, from one place each.

Readers of bundles take a single file: MONAI Label and MONAI Deploy know ``inference.json`` alone,
and a bundle copied away has nothing but its own folder. So its files repeat each other. Here they
are made from

- ``common/``: files that are the same in every bundle, and LICENSE of the repository;
- ``slice_segmentation/``: the configs of bundles that segment slice by slice;
- a folder with the bundle's name: what it lays over those, key by key.

A bundle whose templates are its own folder can still begin a file with another's: ``"_template_":
"slice_segmentation/train.json"``. ``"_without_"`` lists keys of it to leave out, and a key such as
``train#inferer`` replaces a part of a group that it has. Files in ``variants/`` are the bundle's
variants, small configs to lay over train.json or inference.json. ``modules/`` goes into the
packages of such bundles.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).parent
REPOSITORY = SOURCES.parents[1]
# Bundle to the folder of configs that it is made from.
TEMPLATES = {
    "lung_segmentation": "slice_segmentation",
    "lesion_segmentation_2d": "slice_segmentation",
    "multitask_triage": "multitask_triage",
    "mask_rcnn_classifier": "mask_rcnn_classifier",
}
# What training decides and inference must know: the network and its input.
REPEATED_IN_INFERENCE = (
    "axcodes",
    "spacing_mm",
    "hu_window",
    "divisor",
    "threshold",
    "package",
    "unet",
    "head",
    "feature_map",
    "pyramid_levels",
    "chunk_slices",
    "lung_region",
    "crop_margin",
    "slice_size",
    "backbone",
    "detector",
    "network_def",
    "network",
)


def generated_files(bundle: str) -> dict[Path, str]:
    """Return the text of every generated file by its path inside the bundle.

    Parameters
    ----------
    bundle : str
        A key of ``TEMPLATES``.
    """
    template = SOURCES / TEMPLATES[bundle]
    configs = {
        file.name: _on_template(_read(file))
        if template.name == bundle
        else _overlaid(_read(file), _read(SOURCES / bundle / file.name))
        for file in sorted(template.glob("*.json"))
    }
    training = configs["train.json"]
    repeated = {key: training[key] for key in REPEATED_IN_INFERENCE if key in training}
    # Training on several GPUs evaluates on them too.
    configs["multi_gpu_train.json"] = {
        **configs["multi_gpu_evaluate.json"],
        **configs["multi_gpu_train.json"],
    }
    configs["inference.json"] = _after("device", configs["inference.json"], repeated)
    files = {
        Path("configs", name): json.dumps(config, indent=4) + "\n"
        for name, config in configs.items()
    }
    for file in sorted((SOURCES / bundle).glob("variants/*.json")):
        files[Path("configs", "variants", file.name)] = json.dumps(_read(file), indent=4) + "\n"
    if template.name == bundle:
        for file in (SOURCES / "modules").glob("*.py"):
            files[Path(bundle, file.name)] = file.read_text()
    for file in (SOURCES / "common").iterdir():
        files[Path("configs", file.name)] = file.read_text()
    files[Path("LICENSE")] = (REPOSITORY / "LICENSE").read_text()
    return files


def write(bundles: Path) -> list[Path]:
    """Bring all bundles up to date; return the files that changed."""
    changed = outdated(bundles)
    for bundle in TEMPLATES:
        for path, text in generated_files(bundle).items():
            if bundles / bundle / path in changed:
                (bundles / bundle / path).parent.mkdir(parents=True, exist_ok=True)
                (bundles / bundle / path).write_text(text)
    return changed


def outdated(bundles: Path) -> list[Path]:
    """Return the generated files that are missing or differ from their sources."""
    return [
        bundles / bundle / path
        for bundle in TEMPLATES
        for path, text in generated_files(bundle).items()
        if not (bundles / bundle / path).is_file() or (bundles / bundle / path).read_text() != text
    ]


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text()) if file.is_file() else {}


def _on_template(own: dict[str, Any]) -> dict[str, Any]:
    """Lay a config over the one that its ``_template_`` names, if it names one."""
    result = _read(SOURCES / own.pop("_template_")) if "_template_" in own else {}
    for key in own.pop("_without_", []):
        parent, last = _parent(result, key)
        del parent[last]
    for key, value in own.items():
        parent, last = _parent(result, key)
        parent[last] = value
    return result


def _parent(config: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    """Find where a key such as ``train#handlers#2#name`` belongs: its group, or the config itself.

    A config that is laid over another at run time has such keys without having the group.
    """
    *groups, last = key.split("#")
    if key in config or not groups or groups[0] not in config:
        return config, key
    holder: Any = config
    for group in groups:
        holder = holder[int(group) if isinstance(holder, list) else group]
    return holder, last


def _overlaid(config: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Lay a bundle's own keys over a template; in the two groups they replace key by key."""
    result = {**config, **own}
    for group in ("train", "validate"):
        if group in config and group in own:
            result[group] = {**config[group], **own[group]}
    return result


def _after(key: str, config: dict[str, Any], added: dict[str, Any]) -> dict[str, Any]:
    """Insert keys behind one of a config's keys, where a reader looks for them."""
    result: dict[str, Any] = {}
    for name, value in config.items():
        result[name] = value
        if name == key:
            result.update(added)
    return result
