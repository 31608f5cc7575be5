"""What the container engine is told, with a stand-in for podman that notes it."""

import json
import os
import sys
from pathlib import Path

import pytest

from tools.map import __main__ as command_line
from tools.map import engine as engines
from tools.map import find_engine, image
from tools.map.engine import EngineError


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """File with the arguments and settings of each call of a podman that always succeeds."""
    notes = tmp_path / "calls.jsonl"
    podman = tmp_path / "bin" / "podman"
    podman.parent.mkdir()
    podman.write_text(
        f"#!{sys.executable}\n"
        "import json, os, sys\n"
        "note = [sys.argv[1:], os.environ.get('CONTAINERS_CONF')]\n"
        f"open({str(notes)!r}, 'a').write(json.dumps(note) + '\\n')\n"
        "print(2_000_000_000)\n"
    )
    podman.chmod(0o755)
    monkeypatch.setenv("PATH", str(podman.parent))
    monkeypatch.setattr(engines, "CONTAINERS_CONF_FILE", tmp_path / "map" / "containers.conf")
    monkeypatch.setattr(image, "WHEELS", tmp_path / "wheels")
    for name in ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CONTAINERS_CONF"):
        monkeypatch.delenv(name, raising=False)
    return notes


def _build_call(calls: Path) -> list[str]:
    made = [json.loads(line)[0] for line in calls.read_text().splitlines()]
    (build,) = [arguments for arguments in made if arguments[0] == "build"]
    return build


def test_the_variant_and_the_base_are_build_arguments(
    calls: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(["--variant", "gpu", "--base", "registry.example/debian:12"]) == 0
    build = _build_call(calls)
    assert {"BASE_IMAGE=registry.example/debian:12", "VARIANT=gpu", "VERSION=0.1.0"} <= set(build)
    assert build[build.index("--tag") + 1] == "localhost/ct_triage:gpu"
    assert Path(build[-1], "bundles").is_dir()
    assert "--secret" not in build
    assert "localhost/ct_triage:gpu  2.00 GB, in podman" in capsys.readouterr().out


def test_own_certificates_are_a_secret_of_the_build(
    calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/own.crt")
    image.build_image(find_engine(), "gpu", "base")
    build = _build_call(calls)
    assert build[build.index("--secret") + 1] == "id=ca,src=/etc/own.crt"


@pytest.mark.skipif(Path("/run/systemd/system").is_dir(), reason="systemd runs here")
def test_without_systemd_podman_gets_settings_of_its_own(calls: Path, tmp_path: Path) -> None:
    find_engine()
    ((_, settings),) = map(json.loads, calls.read_text().splitlines())
    assert settings == str(tmp_path / "map" / "containers.conf")
    assert 'cgroup_manager = "cgroupfs"' in Path(settings).read_text()
    assert "CONTAINERS_CONF" not in os.environ


def test_settings_of_the_user_come_first(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTAINERS_CONF", "/home/user/containers.conf")
    find_engine()
    ((_, settings),) = map(json.loads, calls.read_text().splitlines())
    assert settings == "/home/user/containers.conf"


def test_without_an_engine_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command_line.main([]) == 1
    message = capsys.readouterr().err
    assert "podman is not installed; docker is not installed" in message
    assert len(message.splitlines()) == 1


def test_a_package_that_is_not_pinned_is_named() -> None:
    with pytest.raises(EngineError, match="does not pin no-such-package"):
        image.pinned("no-such-package")
