"""The container image, under every restriction a hospital may put on it.

Needs podman or docker (podman as root here) and the image that `make map` builds.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from pydicom import dcmread

from tools.map import Engine, find_engine, image_tag
from tools.map.engine import EngineError
from tools.map.image import pinned
from tools.phantom import Grid, build_phantom, write_dicom_series

pytestmark = [pytest.mark.slow, pytest.mark.deployment]

REPOSITORY = Path(__file__).parents[2]
APP = REPOSITORY / "apps" / "ct_triage"
BUNDLES = REPOSITORY / "bundles"
P001 = (
    Path(os.environ.get("SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    / "covid_ct_md"
    / "P001"
)
CONFIGURATION = yaml.safe_load((APP / "app.yaml").read_text())
# What app.yaml asks the platform for.
MEMORY = CONFIGURATION["resources"]["memory"].replace("Gi", "g")
RESTRICTED = (
    *("--network", "none", "--cap-drop", "all", "--security-opt", "no-new-privileges"),
    *("--read-only", "--memory", MEMORY, "--memory-swap", MEMORY, "--env", "OMP_NUM_THREADS=1"),
)


@pytest.fixture(scope="module")
def engine() -> Engine:
    try:
        engine = find_engine()
    except EngineError as error:
        pytest.skip(str(error))
    if not engine.has_image(image_tag("cpu")):
        pytest.skip(f"{image_tag('cpu')} is not in {engine.name}'s store: make map")
    return engine


@pytest.fixture(scope="module")
def phantom_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "study"
    grid = Grid.axial((40, 256, 256), (7.5, 1.5, 1.5))
    write_dicom_series(build_phantom(grid, "covid19", seed=7), folder)
    return _readable(folder)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "output"
    folder.mkdir()
    # The user of the container is none of this machine's.
    folder.chmod(0o777)
    return folder


def _readable(folder: Path) -> Path:
    for path in (folder, *folder.parents):
        if path.owner() == Path.home().owner() and path.stat().st_mode & 0o005 != 0o005:
            path.chmod(path.stat().st_mode | 0o005)
    return folder


def _run(
    engine: Engine, study: Path, output: Path, *options: str
) -> subprocess.CompletedProcess[str]:
    _readable(output.parent)
    return engine.run(
        *("run", "--rm", *RESTRICTED, *options),
        *(
            "--volume",
            f"{study}:/var/holoscan/input:ro",
            "--volume",
            f"{output}:/var/holoscan/output",
        ),
        image_tag("cpu"),
        timeout=900,
    )


def _run_uncontained(study: Path, output: Path, *options: str | Path) -> None:
    command = [sys.executable, str(APP), "-i", study, "-o", output, "-m", BUNDLES, *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(list(map(str, command)), env=environment, check=True, capture_output=True)


def _show(engine: Engine, name: str) -> dict:
    shown = engine.run("run", "--rm", *RESTRICTED, image_tag("cpu"), "show", name)
    assert shown.returncode == 0, shown.stderr
    title, _, text = shown.stdout.partition("\n")
    assert f" {name}.json " in title
    return json.loads(text)


def _inspect(engine: Engine) -> dict:
    return json.loads(engine.run("image", "inspect", image_tag("cpu")).stdout)[0]


def test_the_image_is_small_and_says_what_it_is(engine: Engine) -> None:
    image = _inspect(engine)
    assert image["Size"] <= 2.5e9
    labels = image["Config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == CONFIGURATION["application"]["title"]
    assert labels["org.opencontainers.image.version"] == CONFIGURATION["application"]["version"]
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.nvidia.holoscan"] == "4.6.0"
    assert labels["org.monai.deploy.app-sdk"] == "4.0.0"
    assert not image["Config"]["User"].startswith(("0", "root"))


def test_the_manifests_agree_with_the_image(engine: Engine) -> None:
    app, pkg = _show(engine, "app"), _show(engine, "pkg")
    assert json.loads(app["command"])[-1] == "/opt/holoscan/app"
    assert app["version"] == pkg["version"] == CONFIGURATION["application"]["version"]
    assert app["input"]["formats"] == CONFIGURATION["application"]["input-formats"]
    assert app["output"]["formats"] == CONFIGURATION["application"]["output-formats"]
    assert (app["sdk"], app["sdkVersion"]) == ("monai-deploy", "4.0.0")
    assert {**pkg["resources"], "gpu": None} == {**CONFIGURATION["resources"], "gpu": None}
    bundles = {path.parents[1].name for path in BUNDLES.glob("*/configs/metadata.json")}
    assert {*pkg["models"], *pkg["modelsLeftOut"]} == bundles
    for name, details in pkg["modelDetails"].items():
        sums = (BUNDLES / name / "models" / "SHA256SUMS").read_text()
        assert "model.ts" in details["sha256"]
        for file, sha256 in details["sha256"].items():
            assert f"{sha256}  {file}\n" in sums
    variables = dict(entry.split("=", 1) for entry in _inspect(engine)["Config"]["Env"])
    for name, value in app["environment"].items():
        # Relative paths are to the working directory, so the platform says.
        assert str(Path(app["workingDirectory"]) / value) == variables[name]


def test_extract_copies_every_part(engine: Engine, output: Path) -> None:
    _readable(output.parent)
    mount = ("--volume", f"{output}:/var/run/holoscan/export")
    done = engine.run("run", "--rm", *RESTRICTED, *mount, image_tag("cpu"), "extract")
    assert done.returncode == 0, done.stderr
    assert (output / "app" / "__main__.py").read_bytes() == (APP / "__main__.py").read_bytes()
    assert json.loads((output / "config" / "app.json").read_text()) == _show(engine, "app")
    assert yaml.safe_load((output / "config" / "app.yaml").read_text()) == CONFIGURATION
    model = Path("lung_segmentation", "models", "model.ts")
    assert (output / "models" / model).read_bytes() == (BUNDLES / model).read_bytes()
    assert (output / "docs" / "LICENSE").is_file()


def test_extract_without_a_mount_says_what_to_do(engine: Engine) -> None:
    done = engine.run("run", "--rm", *RESTRICTED, image_tag("cpu"), "extract")
    assert done.returncode == 1
    assert "mount a folder there" in done.stderr


def test_show_tells_whether_the_slice_classifier_is_in_the_image(engine: Engine) -> None:
    pkg = _show(engine, "pkg")
    probe = "import importlib.util as u; print(bool(u.find_spec('torchvision')))"
    has_torchvision = _in_image(engine, "python", "-c", probe) == "True"
    weights = BUNDLES / "mask_rcnn_classifier" / "models" / "model.ts"
    if has_torchvision and weights.exists():
        assert pkg["modelDetails"]["mask_rcnn_classifier"]["sha256"]
    else:
        reason = pkg["modelsLeftOut"]["mask_rcnn_classifier"]
        assert ("torchvision" if weights.exists() else "without weights") in reason
    assert sorted(pkg["models"]) == _in_image(engine, "ls", "/opt/holoscan/models").split()


def _in_image(engine: Engine, program: str, *arguments: str) -> str:
    """Run a program of the image in place of the application; returns what it prints."""
    # Of root, who sees every file.
    options = ("run", "--rm", *RESTRICTED, "--user", "0", "--entrypoint", program)
    done = engine.run(*options, image_tag("cpu"), *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_nothing_of_the_machine_that_built_it_is_in_the_image(engine: Engine) -> None:
    names = [
        *(".*_history", ".git", ".netrc", ".pypirc", ".ssh", "pip.conf", "auth.json", ".env"),
        *("id_*", "*.key", "credentials*", "ca.crt", "model.pt"),
    ]
    # What Python packages bring along is public.
    options = "-name site-packages -prune -o ( "
    options += " -o ".join(f"-name {name}" for name in names) + " ) -print"
    assert _in_image(engine, "find", "/", "-xdev", *options.split()) == ""
    layers = json.loads(engine.run("history", "--format", "json", image_tag("cpu")).stdout)
    told = json.dumps([layers, _inspect(engine)["Config"]])
    for name in ("PIP_CERT", "SSL_CERT_FILE", "HTTP_PROXY", "HTTPS_PROXY", "PIP_INDEX_URL"):
        assert f"{name}=" not in told
        assert f"{name.lower()}=" not in told
    # Addresses may hold a password.
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        assert os.environ.get(name) is None or os.environ[name] not in told
    assert str(REPOSITORY) not in told


@pytest.fixture
def recording_programs(tmp_path: Path) -> Path:
    """Folder with a pip and a python that say what they were asked, and find no torchvision."""
    folder = tmp_path / "programs"
    folder.mkdir()
    pip = """#!/bin/sh
echo "pip $*"
case "$*" in
*--no-index*|*torchvision*) exit 1 ;;
*"-r "*) cat "$3" ;;
esac
"""
    (folder / "pip").write_text(pip)
    (folder / "python").write_text("#!/bin/sh\necho /tmp\n")
    for file in (folder, *folder.iterdir()):
        file.chmod(0o755)
    return _readable(folder)


@pytest.mark.parametrize("variant", ["cpu", "gpu"])
def test_what_a_variant_installs(engine: Engine, recording_programs: Path, variant: str) -> None:
    script = (
        "cp /opt/holoscan/app/requirements.txt /tmp/ && cd /tmp"
        " && PATH=/programs:$PATH:/usr/sbin sh /opt/holoscan/app/map/install.sh requirements.txt"
    )
    done = engine.run(
        *("run", "--rm", "--network", "none", "--user", "0", "--entrypoint", "sh"),
        *("--env", f"VARIANT={variant}", "--env", "TORCH_INDEX=https://torch.example/cpu"),
        *("--volume", f"{recording_programs}:/programs:ro", image_tag("cpu"), "-c", script),
    )
    assert done.returncode == 0, done.stderr
    torch, torchvision = pinned("torch"), pinned("torchvision")
    lines = done.stdout.splitlines()
    if variant == "gpu":
        # As PyPI has them, with CUDA.
        assert {f"torch==={torch}", f"torchvision=={torchvision}"} <= set(lines)
        assert "+cpu" not in done.stdout
        return
    asked = f"pip install --no-deps --index-url https://torch.example/cpu torch=={torch}+cpu"
    assert asked in lines
    assert f"torch=={torch}+cpu" in lines
    assert not [line for line in lines if line.startswith("torchvision")]
    assert "No CPU build of torchvision" in done.stderr


def test_an_unknown_variant_is_refused(engine: Engine, recording_programs: Path) -> None:
    options = ("--env", "VARIANT=tpu", "--volume", f"{recording_programs}:/programs:ro")
    script = "PATH=/programs:$PATH:/usr/sbin sh /opt/holoscan/app/map/install.sh /dev/null"
    done = engine.run(
        *("run", "--rm", "--network", "none", "--entrypoint", "sh", *options),
        *(image_tag("cpu"), "-c", script),
    )
    assert done.returncode == 2
    assert "give cpu or gpu" in done.stderr


def _assert_same_results(contained: Path, uncontained: Path) -> None:
    names = sorted(path.name for path in contained.iterdir())
    assert names == sorted(path.name for path in uncontained.iterdir())
    results = [json.loads((f / "result.json").read_text()) for f in (contained, uncontained)]
    assert results[0] == results[1]
    masks = [dcmread(folder / "seg.dcm").pixel_array for folder in (contained, uncontained)]
    assert np.array_equal(*masks)
    reports = [dcmread(folder / "sr.dcm") for folder in (contained, uncontained)]
    assert reports[0] == reports[1]


def test_a_phantom_gives_what_the_uncontained_application_gives(
    engine: Engine, phantom_study: Path, output: Path, tmp_path: Path
) -> None:
    done = _run(engine, phantom_study, output)
    assert done.returncode == 0, done.stderr
    _run_uncontained(phantom_study, tmp_path / "uncontained")
    _assert_same_results(output, tmp_path / "uncontained")


def test_a_mounted_configuration_gives_what_it_gives_without_a_container(
    engine: Engine, phantom_study: Path, output: Path, tmp_path: Path
) -> None:
    configuration = tmp_path / "hospital.yaml"
    configuration.write_text("outputs: {picture: true}\nmanufacturer: {name: North Hospital}\n")
    configuration.chmod(0o644)
    mounted = "/etc/ct_triage.yaml"
    options = ("--volume", f"{configuration}:{mounted}:ro", "--env", f"CT_TRIAGE_CONFIG={mounted}")
    done = _run(engine, phantom_study, output, *options)
    assert done.returncode == 0, done.stderr
    _run_uncontained(phantom_study, tmp_path / "uncontained", "-c", configuration)
    _assert_same_results(output, tmp_path / "uncontained")
    pictures = [dcmread(folder / "picture.dcm") for folder in (output, tmp_path / "uncontained")]
    assert pictures[0] == pictures[1]
    assert pictures[0].Manufacturer == "North Hospital"


def test_a_model_that_is_left_out_is_named_by_the_run(
    engine: Engine, phantom_study: Path, output: Path, tmp_path: Path
) -> None:
    pkg = _show(engine, "pkg")
    if "mask_rcnn_classifier" in pkg["models"]:
        pytest.skip("the image has the slice classifier")
    configuration = tmp_path / "slices.yaml"
    configuration.write_text("slice_classification: true\n")
    configuration.chmod(0o644)
    mounted = "/etc/ct_triage.yaml"
    options = ("--volume", f"{configuration}:{mounted}:ro", "--env", f"CT_TRIAGE_CONFIG={mounted}")
    done = _run(engine, phantom_study, output, *options)
    assert done.returncode == 5, done.stderr
    assert "mask_rcnn_classifier" in done.stderr
    assert not list(output.iterdir())


def test_the_express_workflow_starts_it(engine: Engine, phantom_study: Path, output: Path) -> None:
    workflow = json.loads((APP / "deploy" / "monai_deploy_express.json").read_text())
    (arguments,) = [task["args"] for task in workflow["tasks"] if task["type"] == "docker"]
    _readable(output.parent)
    options = ["--entrypoint", json.dumps(arguments["entrypoint"].split(","))]
    for name, folder in (("INPUT", f"{phantom_study}:%s:ro"), ("OUTPUT", f"{output}:%s")):
        variable = f"HOLOSCAN_{name}_PATH"
        path = arguments[f"env_{variable}"]
        options += ["--env", f"{variable}={path}", "--volume", folder % path]
    command = arguments["command"].split(",")
    done = engine.run("run", "--rm", *RESTRICTED, *options, image_tag("cpu"), *command, timeout=900)
    assert done.returncode == 0, done.stderr
    assert {"result.json", "seg.dcm", "sr.dcm"} <= {path.name for path in output.iterdir()}


def test_the_pod_of_the_kubernetes_job_runs_it(
    engine: Engine, phantom_study: Path, output: Path
) -> None:
    job = next(yaml.safe_load_all((APP / "deploy" / "kubernetes_job.yaml").read_text()))
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    _readable(output.parent)
    user, security = pod["securityContext"], container["securityContext"]
    limit = container["resources"]["limits"]["memory"].replace("Gi", "g")
    options = ["--user", f"{user['runAsUser']}:{user['runAsGroup']}", "--memory", limit]
    options += [f"--cap-drop={capability}" for capability in security["capabilities"]["drop"]]
    # Only what it mounts itself is writable.
    options += ["--read-only"] if security["readOnlyRootFilesystem"] else []
    options += ["--read-only-tmpfs=false"] if engine.name == "podman" else []
    options += [] if security["allowPrivilegeEscalation"] else ["--security-opt=no-new-privileges"]
    places = {"study": phantom_study, "results": output}
    for mount in container["volumeMounts"]:
        name, path = mount["name"], mount["mountPath"]
        if name in places:
            access = ":ro" if mount.get("readOnly") else ""
            options += ["--volume", f"{places[name]}:{path}{access}"]
        else:
            options += ["--tmpfs", path]
    command = [*container.get("command", []), *container.get("args", [])]
    done = engine.run(
        *("run", "--rm", "--network", "none", "--env", "OMP_NUM_THREADS=1", *options),
        *(container["image"], *command),
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    assert {"result.json", "seg.dcm", "sr.dcm"} <= {path.name for path in output.iterdir()}


@pytest.mark.skipif(not P001.is_dir(), reason=f"real CT is not at {P001}; set SHARED_DATA")
def test_a_patient_fits_the_memory_that_the_manifest_asks_for(
    engine: Engine, output: Path, tmp_path: Path
) -> None:
    done = _run(engine, P001, output)
    assert done.returncode == 0, done.stderr
    _run_uncontained(P001, tmp_path / "uncontained")
    _assert_same_results(output, tmp_path / "uncontained")


def test_the_root_file_system_needs_no_writable_part(
    engine: Engine, phantom_study: Path, output: Path
) -> None:
    if engine.name != "podman":
        pytest.skip("only podman adds writable folders to a read-only root")
    done = _run(engine, phantom_study, output, "--read-only-tmpfs=false")
    assert done.returncode == 0, done.stderr


def test_without_a_series_the_exit_code_says_so(
    engine: Engine, tmp_path: Path, output: Path
) -> None:
    (tmp_path / "empty").mkdir()
    done = _run(engine, tmp_path / "empty", output)
    assert done.returncode == 3, done.stderr
    assert "no DICOM files" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(output.glob("*.dcm"))


def test_with_a_broken_series_the_exit_code_says_so(
    engine: Engine, phantom_study: Path, tmp_path: Path, output: Path
) -> None:
    shutil.copytree(phantom_study, tmp_path / "study")
    sorted((tmp_path / "study").glob("*.dcm"))[5].unlink()
    done = _run(engine, tmp_path / "study", output)
    assert done.returncode == 4, done.stderr
    assert "slices are missing" in done.stderr
    assert not list(output.glob("*.dcm"))


def test_too_little_memory_kills_it_and_leaves_no_results(
    engine: Engine, phantom_study: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # conmon writes a file there that says so.
    monkeypatch.chdir(output.parent)
    done = _run(engine, phantom_study, output, "--memory", "256m", "--memory-swap", "256m")
    assert done.returncode == 137, done.stderr
    assert not list(output.glob("*"))


@pytest.fixture
def running(engine: Engine, phantom_study: Path, output: Path) -> Iterator[str]:
    name = f"ct_triage-{uuid.uuid4().hex[:8]}"
    _readable(output.parent)
    started = engine.run(
        *("run", "--detach", "--name", name, *RESTRICTED),
        *("--volume", f"{phantom_study}:/var/holoscan/input:ro"),
        *("--volume", f"{output}:/var/holoscan/output"),
        image_tag("cpu"),
    )
    assert started.returncode == 0, started.stderr
    yield name
    engine.run("rm", "--force", name)


def _wait_until_logged(engine: Engine, container: str, text: str) -> None:
    deadline = time.monotonic() + 300
    while text not in (logs := engine.run("logs", container)).stderr + logs.stdout:
        assert time.monotonic() < deadline, f"never said {text!r}: {logs.stderr}"
        time.sleep(0.1)


@pytest.mark.parametrize("moment", ["INFO volume", "INFO report"])
def test_told_to_stop_it_ends_within_five_seconds_and_leaves_all_or_nothing(
    engine: Engine, running: str, output: Path, moment: str
) -> None:
    _wait_until_logged(engine, running, moment)
    engine.run("stop", "--time", "5", running)
    code = int(engine.run("inspect", "--format", "{{.State.ExitCode}}", running).stdout)
    left = {path.name for path in output.iterdir()}
    # 137 would be the kill after five seconds.
    if moment == "INFO volume":
        assert (code, left) == (143, set())
    else:
        # The results may just be complete.
        assert code in (0, 143)
        assert not left or left >= {"result.json", "seg.dcm", "sr.dcm"}
        assert not [name for name in left if name.startswith(".")]


def test_told_to_stop_at_its_first_moment_it_ends_at_once(
    engine: Engine, running: str, output: Path
) -> None:
    engine.run("stop", "--time", "5", running)
    code = int(engine.run("inspect", "--format", "{{.State.ExitCode}}", running).stdout)
    assert (code, list(output.iterdir())) == (143, [])
