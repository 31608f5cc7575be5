"""``python -m tools.audit requirements.txt``: licences always, vulnerabilities where reachable."""

import argparse
import subprocess
import sys
from pathlib import Path

from tools.audit.licences import denied, installed_with, licence_of


def main() -> int:
    """Print the licence of everything installed for the requirements; 1 where one is denied."""
    parser = argparse.ArgumentParser(prog="tools.audit", description=__doc__)
    parser.add_argument("requirements", type=Path)
    requirements = parser.parse_args().requirements
    licences = {name: licence_of(name) for name in installed_with(requirements.read_text())}
    for name, licence in licences.items():
        print(f"{name:<40} {licence}")
    refused = [name for name, licence in licences.items() if denied(licence)]
    print(f"{len(licences)} packages, {len(refused)} with a licence that is not allowed", *refused)
    command = [sys.executable, "-m", "pip_audit", "--progress-spinner", "off", "--timeout", "10"]
    audit = subprocess.run(command, capture_output=True, text=True, check=False)
    # pip-audit ends with 1 both where it finds something and where it reaches nothing.
    if audit.returncode and "Found" not in audit.stderr:
        print("known vulnerabilities: not checked, no index could be reached")
        return bool(refused)
    print(audit.stdout or "known vulnerabilities: none")
    return bool(refused or audit.returncode)


if __name__ == "__main__":
    sys.exit(main())
