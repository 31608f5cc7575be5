"""Write what bundles have in common, and what a bundle must repeat, from one place each.

Readers of bundles take a single file: MONAI Label and MONAI Deploy know ``inference.json`` alone,
and a bundle copied away has nothing but its own folder. So its files repeat each other. Here they
are made from

- ``common/``: files that are the same in every bundle, and LICENSE of the repository;
- ``slice_segmentation/``: the configs of bundles that segment slice by slice;
- a folder with the bundle's name: what it lays over those, key by key; small configs that its
  users lay over its own (``variants/``, ``members/``); what several of its configs include
  (``parts/``).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).parent
REPOSITORY = SOURCES.parents[1]
# Bundle to the folders of configs that it is made from, each laid over the one before.
TEMPLATES = {
    "lung_segmentation": ("slice_segmentation",),
    "lesion_segmentation_2d": ("slice_segmentation",),
    "lesion_segmentation_3d": ("slice_segmentation", "lesion_segmentation_2d"),
    "lesion_ensemble": ("slice_segmentation", "lesion_segmentation_2d"),
}
LAYERED = ("variants", "members")
# What training decides and inference must know: the network and its input.
REPEATED_IN_INFERENCE = (
    "bundle_package",
    "axcodes",
    "spacing_mm",
    "hu_window",
    "divisor",
    "threshold",
    "window_size",
    "unet",
    "head",
    "normalizations",
    "encoder_weights",
    "decoder_channels",
    "architectures",
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
    names = {file.name for file in (SOURCES / TEMPLATES[bundle][0]).glob("*.json")}
    names |= {file.name for file in (SOURCES / bundle).glob("*.json")}
    configs = {name: _config(bundle, name) for name in sorted(names)}
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
    for folder in LAYERED:
        for file in (SOURCES / bundle / folder).glob("*.json"):
            files[Path("configs", folder, file.name)] = file.read_text()
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


def _config(bundle: str, name: str) -> dict[str, Any]:
    """Lay a bundle's own config over the templates that it is made from.

    The bundle's own file may also say: "template", the name of the template where it is another
    than its own; "include", a file of ``parts/`` to lay under it; "omit", paths of what it has no
    use for.
    """
    own = _read(SOURCES / bundle / name)
    template = own.pop("template", name)
    omitted = own.pop("omit", [])
    part = own.pop("include", None)
    config: dict[str, Any] = {}
    for folder in TEMPLATES[bundle]:
        config = _overlaid(config, _read(SOURCES / folder / template))
    if part:
        config = _overlaid(config, _read(SOURCES / bundle / "parts" / f"{part}.json"))
    config = _overlaid(config, own)
    for *path, last in omitted:
        holder: Any = config
        for key in path:
            holder = holder[key]
        del holder[last]
    return config


def _overlaid(config: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Lay keys over a config; in the two groups they replace key by key."""
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
