r"""Run the application on every stable CT study of an Orthanc and store the results back.

A process of its own beside Orthanc, of Python's standard library only::

    python orthanc_worker.py --orthanc http://127.0.0.1:8042 --state /var/lib/ct_triage -- \
        podman run --rm --network none --cap-drop all --read-only --memory 3g \
        --volume {input}:/var/holoscan/input:ro --volume {output}:/var/holoscan/output \
        localhost/ct_triage:cpu

What was done is written as metadata of the study, in Orthanc, when its results are stored: so
nothing is lost or done twice when Orthanc or this process is killed. Orthanc announces a stable
study only while it runs, and after a restart calls every study stable: so every study that was
added to is looked at, after every connection all are, and each must have been left alone for a
while. Instances that arrive later change the study's images, and it is run again. Results have
UIDs derived from the images: storing them again after a kill in between replaces them.

Failures are listed in STATE/failures.jsonl, once each. Neither that file nor the log holds patient
data: a study is named by Orthanc's own identifier.
"""

import argparse
import base64
import fcntl
import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any

logger = logging.getLogger("orthanc_worker")

# Metadata from 1024 on is free for users.
RECORD = "4096"
# The study itself is at fault: another run would end the same way. See the README's exit codes.
STUDY_AT_FAULT = (3, 4)
REQUEST_SECONDS = 60
CHANGES_AT_ONCE = 100


class UnreachableError(Exception):
    """Orthanc does not answer."""


@dataclass(frozen=True)
class Orthanc:
    """The REST interface of an Orthanc."""

    url: str
    authorization: str | None = None

    def request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Send a request and return the answer.

        Raises
        ------
        UnreachableError
            If Orthanc does not answer, or cannot do what it is asked.
        KeyError
            If there is nothing at the path.
        """
        request = urllib.request.Request(f"{self.url}{path}", data=body, method=method)
        if self.authorization:
            request.add_header("Authorization", self.authorization)
        try:
            with urllib.request.urlopen(request, timeout=REQUEST_SECONDS) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            if error.code == 404:
                raise KeyError(path) from error
            raise UnreachableError(f"{method} {path}: {error.code}") from error
        except (OSError, HTTPException) as error:
            raise UnreachableError(f"{method} {path}: {type(error).__name__}") from error

    def get(self, path: str) -> Any:
        """Return what is at a path."""
        return json.loads(self.request("GET", path))

    def ct_instances(self, study: str) -> list[str]:
        """Return the identifiers of a study's CT instances."""
        series = self.get(f"/studies/{study}/series")
        chosen = [s for s in series if s["MainDicomTags"].get("Modality") == "CT"]
        return sorted(instance for s in chosen for instance in s["Instances"])


@dataclass(frozen=True)
class Worker:
    """What is run on the studies of which Orthanc.

    Attributes
    ----------
    orthanc : Orthanc
        Where studies come from and results go.
    state : Path
        Folder for the list of failures and for what is being worked on.
    command : tuple of str
        The application, with ``{input}`` and ``{output}`` for its folders.
    poll_seconds : float
        How often Orthanc is asked for changes.
    attempts : int
        How often a run is tried that fails for other reasons than the study.
    timeout_seconds : float
        When a run is ended.
    quiet_seconds : float
        How long nothing must have been added to a study.
    """

    orthanc: Orthanc
    state: Path
    command: tuple[str, ...]
    poll_seconds: float
    attempts: int
    timeout_seconds: float
    quiet_seconds: float

    def run(self) -> None:
        """Work until the process is ended."""
        while True:
            try:
                for studies in self._announced():
                    for study in studies:
                        self._look_at(study)
            except UnreachableError as error:
                logger.warning("Orthanc is not reachable (%s); trying again", error)
                time.sleep(self.poll_seconds)

    def _announced(self) -> Iterator[list[str]]:
        """Yield all studies, then those that become stable; ends only with UnreachableError."""
        # Before the list is asked for, so that no change falls in between.
        last = self.orthanc.get("/changes?last")["Last"]
        waiting = set(self.orthanc.get("/studies"))
        while True:
            stable = [study for study in sorted(waiting) if self._is_stable(study)]
            yield stable
            waiting = {study for study in waiting - set(stable) if self._exists(study)}
            changes = self.orthanc.get(f"/changes?since={last}&limit={CHANGES_AT_ONCE}")
            if changes["Last"] < last:
                raise UnreachableError("its list of changes starts anew")
            last = changes["Last"]
            waiting.update(self._changed(changes["Changes"]))
            if changes["Done"]:
                time.sleep(self.poll_seconds)

    def _changed(self, changes: list[dict[str, Any]]) -> Iterator[str]:
        """Yield the studies that became stable or were added to.

        A study that was added to just before Orthanc was killed is never announced as stable, and
        a restart during a long run of the application goes unnoticed.
        """
        for change in changes:
            if change["ChangeType"] == "StableStudy":
                yield change["ID"]
            elif change["ChangeType"] == "NewInstance":
                try:
                    yield self.orthanc.get(f"/instances/{change['ID']}/study")["ID"]
                except KeyError:
                    logger.info("%s was deleted meanwhile", change["ID"])

    def _exists(self, study: str) -> bool:
        try:
            self.orthanc.get(f"/studies/{study}")
        except KeyError:
            return False
        return True

    def _is_stable(self, study: str) -> bool:
        try:
            description = self.orthanc.get(f"/studies/{study}")
        except KeyError:
            return False
        now = datetime.fromisoformat(self.orthanc.request("GET", "/tools/now").decode())
        quiet = now - datetime.fromisoformat(description["LastUpdate"])
        return description["IsStable"] and quiet.total_seconds() >= self.quiet_seconds

    def _look_at(self, study: str) -> None:
        try:
            instances = self.orthanc.ct_instances(study)
            images = hashlib.sha256("\n".join(instances).encode()).hexdigest()
            if not instances or self._record(study).get("images") == images:
                return
            record = self._process(study, instances, images)
            self.orthanc.request(
                "PUT", f"/studies/{study}/metadata/{RECORD}", json.dumps(record).encode()
            )
        except KeyError:
            logger.info("%s was deleted meanwhile", study)

    def _record(self, study: str) -> dict[str, Any]:
        try:
            return self.orthanc.get(f"/studies/{study}/metadata/{RECORD}")
        except KeyError:
            return {}

    def _process(self, study: str, instances: list[str], images: str) -> dict[str, Any]:
        """Run the application, store its results and return the record of it."""
        with tempfile.TemporaryDirectory(prefix="study-", dir=self.state) as scratch:
            source, results = Path(scratch, "input"), Path(scratch, "output")
            source.mkdir()
            for index, instance in enumerate(instances):
                data = self.orthanc.request("GET", f"/instances/{instance}/file")
                (source / f"{index:06}.dcm").write_bytes(data)
            # The user of a container is none of this machine's.
            Path(scratch).chmod(0o755)
            for _ in range(self.attempts):
                results.mkdir(exist_ok=True)
                results.chmod(0o777)
                code, message = self._run_application(source, results)
                if code == 0 or code in STUDY_AT_FAULT:
                    break
            if code:
                self._report(study, images, code, message)
                return {"images": images, "exit_code": code, "stored": []}
            stored = [
                json.loads(self.orthanc.request("POST", "/instances", file.read_bytes()))["ID"]
                for file in sorted(results.rglob("*.dcm"))
            ]
        logger.info("%s: %d instances, %d results stored", study, len(instances), len(stored))
        return {"images": images, "exit_code": 0, "stored": stored}

    def _run_application(self, source: Path, results: Path) -> tuple[int, str]:
        command = [part.format(input=source, output=results) for part in self.command]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=self.timeout_seconds, check=False
            )
        except subprocess.TimeoutExpired:
            return 124, f"ended after {self.timeout_seconds:g} s"
        except OSError as error:
            return 127, f"{command[0]} cannot be run ({error.strerror})"
        lines = [line for line in done.stderr.splitlines() if line.startswith("ct_triage: ")]
        message = lines[-1] if lines else f"{command[0]} said nothing"
        # The application's messages hold no patient data; its folder means nothing afterwards.
        return done.returncode, message.replace(str(source), "the study")

    def _report(self, study: str, images: str, code: int, message: str) -> None:
        """List a failure unless a run that was killed before its record has listed it."""
        failures = self.state / "failures.jsonl"
        line = json.dumps({"study": study, "images": images, "exit_code": code, "message": message})
        known = failures.read_text().splitlines() if failures.exists() else []
        if any((e["study"], e["images"]) == (study, images) for e in map(json.loads, known)):
            return
        with failures.open("a") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        logger.error("%s: exit code %d, %s", study, code, message)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        description="Run the application on every stable CT study of an Orthanc.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--orthanc", default="http://127.0.0.1:8042", help="URL of its REST API")
    parser.add_argument("--state", type=Path, required=True, help="folder, made if need be")
    parser.add_argument("--poll", type=float, default=5.0, metavar="SECONDS")
    parser.add_argument("--attempts", type=int, default=3, help="unless the study is at fault")
    parser.add_argument("--timeout", type=float, default=1800.0, metavar="SECONDS")
    parser.add_argument(
        "--quiet",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="how long nothing must have been added to a study; as Orthanc's StableAge",
    )
    parser.add_argument("command", nargs="+", help="the application, with {input} and {output}")
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    # As an exception, so that the folder being worked in is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))

    options.state.mkdir(parents=True, exist_ok=True)
    lock = (options.state / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"orthanc_worker: {options.state} is another worker's; stop it", file=sys.stderr)
        return 1
    # User and password come from the environment, where no list of processes shows them.
    user = os.environ.get("ORTHANC_USER")
    secret = f"{user}:{os.environ.get('ORTHANC_PASSWORD', '')}".encode()
    authorization = f"Basic {base64.b64encode(secret).decode()}" if user else None
    worker = Worker(
        Orthanc(options.orthanc.rstrip("/"), authorization),
        options.state,
        tuple(options.command),
        options.poll,
        options.attempts,
        options.timeout,
        options.quiet,
    )
    worker.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
