"""Build the image from apps/ct_triage/Dockerfile, with or without an image registry."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from .engine import Engine, EngineError, missing_programs

REPOSITORY = Path(__file__).parents[2]
APPLICATION = REPOSITORY / "apps" / "ct_triage"
WHEELS = REPOSITORY / "build" / "map" / "wheels"
REGISTRY_BASE = "docker.io/library/debian:bookworm-slim"
LOCAL_BASE = "localhost/ct_triage-base:bookworm"
DEBIAN_SUITE = "bookworm"
DEBIAN_MIRROR = "http://deb.debian.org/debian"
PULL_SECONDS = 300


def image_tag(variant: str) -> str:
    """Name the image of a variant, ``cpu`` or ``gpu``, in the local store."""
    return f"localhost/ct_triage:{variant}"


def build_image(engine: Engine, variant: str, base: str | None = None) -> str:
    """Build the image of a variant and return its tag.

    Parameters
    ----------
    engine : Engine
        Podman or docker.
    variant : str
        ``cpu`` or ``gpu``.
    base : str, optional
        Image to build on, Debian or Ubuntu. By default Debian's from its registry or, where that
        cannot be reached, one made from Debian's packages.

    Raises
    ------
    EngineError
        If a base cannot be had or the build fails.
    """
    base = base or _base_image(engine)
    if variant == "cpu":
        _fetch_cpu_wheels()
    tag = image_tag(variant)
    version = yaml.safe_load((APPLICATION / "app.yaml").read_text())["application"]["version"]
    arguments: list[str | Path] = ["build", "--network", "host", "--tag", tag]
    arguments += ["--file", APPLICATION / "Dockerfile"]
    for name, value in (
        ("BASE_IMAGE", base),
        ("VARIANT", variant),
        ("VERSION", version),
        ("HOLOSCAN_VERSION", pinned("holoscan-cu13")),
        ("SDK_VERSION", pinned("monai-deploy-app-sdk")),
    ):
        arguments += ["--build-arg", f"{name}={value}"]
    certificates = _own_certificates()
    if certificates:
        arguments += ["--secret", f"id=ca,src={certificates}"]
    engine.check(*arguments, REPOSITORY)
    return tag


def pinned(package: str) -> str:
    """Return the version that the application's requirements pin a package to."""
    requirements = (APPLICATION / "requirements.txt").read_text()
    found = re.search(rf"^{re.escape(package)}===?(\S+)$", requirements, re.MULTILINE)
    if found is None:
        raise EngineError(f"{APPLICATION / 'requirements.txt'} does not pin {package}; add it")
    return found[1]


def _own_certificates() -> str | None:
    """Return the file of certificates that this machine's clients are told to trust, if any."""
    for name in ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        if os.environ.get(name):
            return os.environ[name]
    return None


def _base_image(engine: Engine) -> str:
    for image in (LOCAL_BASE, REGISTRY_BASE):
        if engine.has_image(image):
            return image
    try:
        if engine.run("pull", REGISTRY_BASE, timeout=PULL_SECONDS).returncode == 0:
            return REGISTRY_BASE
    except subprocess.TimeoutExpired:
        pass
    print(f"{REGISTRY_BASE} cannot be pulled: making {LOCAL_BASE} from Debian's packages")
    _bootstrap_base(engine)
    return LOCAL_BASE


def _bootstrap_base(engine: Engine) -> None:
    missing = missing_programs(["debootstrap", "tar"])
    if missing or os.geteuid() != 0:
        raise EngineError(
            f"{REGISTRY_BASE} cannot be pulled, and making a base image here takes root and"
            f" {' and '.join(missing) or 'debootstrap'}; give another with --base"
        )
    with tempfile.TemporaryDirectory(prefix="ct_triage-base-") as scratch:
        root = Path(scratch) / "root"
        include = "--include=ca-certificates,python3,python3-venv,tini"
        bootstrap = ["debootstrap", "--variant=minbase", include, DEBIAN_SUITE, root, DEBIAN_MIRROR]
        made = subprocess.run(list(map(str, bootstrap)), stdout=subprocess.DEVNULL, check=False)
        if made.returncode:
            raise EngineError(f"debootstrap ended with {made.returncode}; its output says why")
        # Indices and archives that only an installation needs.
        skip = [f"--exclude=./var/{path}/*" for path in ("cache/apt", "lib/apt/lists")]
        archive = subprocess.Popen(
            ["tar", "-C", str(root), *skip, "-c", "."], stdout=subprocess.PIPE
        )
        assert archive.stdout is not None
        engine.check("import", "-", LOCAL_BASE, stdin=archive.stdout.fileno())
        archive.stdout.close()
        if archive.wait():
            raise EngineError(f"tar ended with {archive.returncode}; its output says why")


def _fetch_cpu_wheels() -> None:
    """Put torch's CPU builds aside for the build if this machine's pip is set up to find them.

    What is not found here is looked for at PyTorch's own index during the build.
    """
    WHEELS.mkdir(parents=True, exist_ok=True)
    requirements = (APPLICATION / "requirements.txt").read_text()
    for name, version in re.findall(r"^(torch|torchvision)===?(\S+)$", requirements, re.MULTILINE):
        if list(WHEELS.glob(f"{name}-{version}+cpu-*.whl")):
            continue
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--dest", str(WHEELS), f"{name}=={version}+cpu"]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            print(f"no {name} {version}+cpu for this machine's pip; the build will look further")
