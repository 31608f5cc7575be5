"""Write the manifests of a MONAI Application Package, ``app.json`` and ``pkg.json``.

Run while the image is built, with the packages and models that it holds. The manifests are those
of ``monai-deploy package``, made by its own code; ``pkg.json`` also says which models they are.
"""

import argparse
import importlib.metadata
import json
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

from holoscan_cli.common.constants import DefaultValues
from holoscan_cli.packager.config_reader import ApplicationConfiguration
from holoscan_cli.packager.parameters import PackageBuildParameters

APPLICATION = Path(__file__).resolve().parents[1]
# Packages that an image may lack, and how TorchScript calls their operators.
OPTIONAL_PACKAGES = {"torchvision": b"ops.torchvision."}
PLATFORM = {"cpu": "cpu", "gpu": "dgpu"}


def build_manifests(
    configuration: Path, models: Path, variant: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Describe the application and its package.

    Parameters
    ----------
    configuration : Path
        ``app.yaml``.
    models : Path
        Folder of bundles.
    variant : str
        ``cpu`` or ``gpu``.

    Returns
    -------
    tuple of 2 dict
        ``app.json`` and ``pkg.json``. Models that have no weights yet, or need a package which is
        not installed, are not in ``models`` but in ``modelsLeftOut``, with the reason.
    """
    reader = ApplicationConfiguration()
    reader.read(configuration)
    parameters = PackageBuildParameters()
    parameters.application = APPLICATION
    bundles = {
        path.parents[1].name: path.parents[1]
        for path in sorted(models.glob("*/configs/metadata.json"))
    }
    left_out = {name: why for name, bundle in bundles.items() if (why := _why_left_out(bundle))}
    parameters.models = {name: bundles[name] for name in bundles if name not in left_out}

    app = reader.populate_app_manifest(parameters)
    app.sdk = "monai-deploy"
    app.sdk_version = importlib.metadata.version("monai-deploy-app-sdk")
    package = reader.populate_package_manifest(parameters)
    package.platform_config = PLATFORM[variant]
    details = {name: _details(bundles[name]) for name in parameters.models}
    pkg = {**package.data, "modelDetails": details, "modelsLeftOut": left_out}
    pkg["resources"] = {**package.resources, "gpu": 1 if variant == "gpu" else 0}
    return app.data, pkg


def _why_left_out(bundle: Path) -> str | None:
    """Say why a bundle cannot be run in the image."""
    if not (bundle / "models" / "model.ts").is_file():
        return "is shipped without weights"
    for package, call in OPTIONAL_PACKAGES.items():
        try:
            importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            if any(_calls(file, call) for file in bundle.glob("models/*.ts")):
                return (
                    f"needs {package}, of which no CPU build could be had when the image was built"
                )
    return None


def _calls(torchscript: Path, call: bytes) -> bool:
    # A zip archive with the code as text; its metadata name packages that only training needs.
    with zipfile.ZipFile(torchscript) as archive:
        return any(call in archive.read(n) for n in archive.namelist() if n.endswith(".py"))


def _details(bundle: Path) -> dict[str, Any]:
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    lines = (bundle / "models" / "SHA256SUMS").read_text().splitlines()
    sums = {name: sha256 for sha256, name in (line.split() for line in lines)}
    return {
        "version": metadata["version"],
        "task": metadata["task"],
        # An ensemble has more than one.
        "sha256": {name: sha256 for name, sha256 in sums.items() if name.endswith(".ts")},
        "copyright": metadata["copyright"],
    }


def main(arguments: list[str] | None = None) -> int:
    """Write the manifests and take the models that cannot be run out of the package."""
    parser = argparse.ArgumentParser(description="Write app.json and pkg.json.")
    parser.add_argument("--configuration", type=Path, default=APPLICATION / "app.yaml")
    parser.add_argument("--models", type=Path, default=DefaultValues.MODELS_DIR)
    parser.add_argument("--variant", choices=tuple(PLATFORM), default="cpu")
    parser.add_argument("--output", type=Path, required=True, help="folder, made if need be")
    options = parser.parse_args(arguments)
    app, pkg = build_manifests(options.configuration, options.models, options.variant)
    options.output.mkdir(parents=True, exist_ok=True)
    for name, manifest in (("app.json", app), ("pkg.json", pkg)):
        (options.output / name).write_text(json.dumps(manifest, indent=2) + "\n")
    for name, reason in pkg["modelsLeftOut"].items():
        shutil.rmtree(options.models / name)
        print(f"{name} is left out: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
