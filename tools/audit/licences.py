"""Licences of installed packages, from their own metadata."""

import re
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# The project is Apache 2.0: these would bind whoever passes it on.
_DENIED = re.compile(r"\bA?GPL|Affero|(?<!Lesser )General Public License", re.IGNORECASE)
_ALLOWED_BESIDE = re.compile(r"LGPL|Lesser|exception| OR ")


def denied(licence: str) -> bool:
    """Whether a licence is a strong copyleft one, without a choice or an exception."""
    return bool(_DENIED.search(licence)) and not _ALLOWED_BESIDE.search(licence)


def installed_with(requirements: str) -> list[str]:
    """Names of what requirements draw in, themselves included, as far as it is installed.

    Parameters
    ----------
    requirements : str
        Content of a requirements file: one requirement a line, comments allowed.
    """
    lines = (line.split("#")[0].strip() for line in requirements.splitlines())
    waiting = [Requirement(line) for line in lines if line]
    found: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        try:
            needs = distribution(name).requires or []
        except PackageNotFoundError:
            continue
        found.add(name)
        waiting += [Requirement(need) for need in needs]
    return sorted(found)


def licence_of(name: str) -> str:
    """Licence of an installed package: its expression, else its classifiers, else its text."""
    metadata = distribution(name).metadata
    expression = metadata.json.get("license_expression")
    if expression:
        return str(expression)
    classifiers = [
        text.rsplit("::", 1)[1].strip()
        for text in metadata.get_all("Classifier") or []
        if text.startswith("License ::") and not text.endswith("OSI Approved")
    ]
    if classifiers:
        return "; ".join(classifiers)
    first_line = str(metadata.json.get("license") or "").strip().splitlines()[:1]
    return first_line[0][:80] if first_line else "not stated"
