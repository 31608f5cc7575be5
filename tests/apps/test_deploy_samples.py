"""The samples for workflow platforms, against what those platforms demand of them."""

import json
import re
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

APP = Path(__file__).parents[2] / "apps" / "ct_triage"
DEPLOY = APP / "deploy"
RESOURCES = yaml.safe_load((APP / "app.yaml").read_text())["resources"]

# What the docker plug-in of the MONAI Deploy Workflow Manager refuses to start without.
DOCKER_ARGUMENTS = {
    "server_url",
    "entrypoint",
    "command",
    "container_image",
    "temp_storage_container_path",
}


@pytest.fixture(scope="module")
def workflow() -> dict:
    return json.loads((DEPLOY / "monai_deploy_express.json").read_text())


@pytest.fixture(scope="module")
def job() -> dict:
    return next(yaml.safe_load_all((DEPLOY / "kubernetes_job.yaml").read_text()))


def test_the_workflow_keeps_the_limits_of_its_language(workflow: dict) -> None:
    assert len(workflow["name"]) <= 15
    assert len(workflow["description"]) <= 200
    identifiers = [task["id"] for task in workflow["tasks"]]
    assert len(set(identifiers)) == len(identifiers)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,50}", name) for name in identifiers)


def test_every_task_but_the_first_is_reached_from_an_earlier_one(workflow: dict) -> None:
    identifiers = [task["id"] for task in workflow["tasks"]]
    reached = [
        destination["name"]
        for task in workflow["tasks"]
        for destination in task.get("task_destinations", [])
    ]
    assert sorted(reached) == sorted(identifiers[1:])
    exports = [d["name"] for t in workflow["tasks"] for d in t.get("export_destinations", [])]
    assert exports
    assert set(exports) <= set(workflow["informatics_gateway"]["export_destinations"])


def test_the_docker_task_is_complete(workflow: dict) -> None:
    task = next(task for task in workflow["tasks"] if task["type"] == "docker")
    assert set(task["args"]) >= DOCKER_ARGUMENTS
    # The plug-in mounts an artifact where the argument of its name says.
    artifacts = [*task["artifacts"]["input"], *task["artifacts"]["output"]]
    assert {artifact["name"] for artifact in artifacts} <= set(task["args"])
    assert all(isinstance(value, str) for value in task["args"].values())
    entry = task["args"]["entrypoint"].split(",")[-1]
    assert (APP / Path(entry).relative_to("/opt/holoscan/app")).is_file()


def test_artifacts_come_from_tasks_that_make_them(workflow: dict) -> None:
    made = {
        (task["id"], artifact["name"])
        for task in workflow["tasks"]
        for artifact in task.get("artifacts", {}).get("output", [])
    }
    pattern = r"\{\{ context\.executions\.([\w-]+)\.artifacts\.(\w+) \}\}"
    text = json.dumps(workflow)
    used = set(re.findall(pattern, text))
    assert used
    assert used <= made
    assert text.count("context.executions") == len(used)


@pytest.mark.parametrize("version", ["1.29", "1.33"])
def test_kubernetes_accepts_the_job(version: str) -> None:
    documents = list(yaml.safe_load_all((DEPLOY / "kubernetes_job.yaml").read_text()))
    assert [document["kind"] for document in documents] == ["Job", "NetworkPolicy"]
    for document in documents:
        kubernetes_validate.validate(document, version, strict=True)


def test_the_job_asks_for_what_the_manifest_says(job: dict) -> None:
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["requests"] == {
        "cpu": str(RESOURCES["cpu"]),
        "memory": RESOURCES["memory"],
    }
    assert container["resources"]["limits"] == {"memory": RESOURCES["memory"]}


def test_the_job_is_restricted(job: dict) -> None:
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert {"/var/holoscan/input", "/var/holoscan/output"} <= set(mounts)
    assert set(mounts.values()) == {volume["name"] for volume in pod["volumes"]}
