"""Write what bundles have in common, and what a bundle must repeat, from one place each.

Readers of bundles take a single file: MONAI Label and MONAI Deploy know ``inference.json`` alone,
and a bundle copied away has nothing but its own folder. So its files repeat each other. Here they
are made from

- ``common/``: files that are the same in every bundle, and LICENSE of the repository;
- ``slice_segmentation/``: the configs of bundles that segment slice by slice;
- a folder with the bundle's name: what it lays over those, key by key.

Files in ``variants/`` of a bundle's folder are small configs that its users lay over train.json or
inference.json. One can begin with others: ``"_base_": ["slice_segmentation/parts/encoder.json"]``
lays its own keys over theirs, and adds to a group such as ``"+validate"`` key by key.
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
}
# What training decides and inference must know: the network and its input.
REPEATED_IN_INFERENCE = (
    "axcodes",
    "spacing_mm",
    "anti_alias",
    "hu_window",
    "divisor",
    "threshold",
    "unet",
    "head",
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
        file.name: _overlaid(_read(file), _read(SOURCES / bundle / file.name))
        for file in sorted(template.glob("*.json"))
    }
    training = configs["train.json"]
    repeated = {key: training[key] for key in REPEATED_IN_INFERENCE}
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
    if not file.is_file():
        return {}
    own = json.loads(file.read_text())
    config: dict[str, Any] = {}
    for layer in [*(_read(SOURCES / base) for base in own.pop("_base_", [])), own]:
        for key, value in layer.items():
            added = key.startswith("+") and isinstance(value, dict)
            config[key] = {**config.get(key, {}), **value} if added else value
    return config


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
