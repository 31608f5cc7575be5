"""Why a study has no result, as a JSON document that a workflow can route on.

``docs/no_result.schema.json`` describes it.
"""

from dataclasses import asdict
from typing import Any

from ct_triage import __version__, provenance
from ct_triage.errors import NoSeriesError

SCHEMA_VERSION = "1.0"


def build_no_result(error: NoSeriesError) -> dict[str, Any]:
    """Gather what was found and why none of it could be used, without patient data."""
    return {
        "schema_version": SCHEMA_VERSION,
        "application": {"name": provenance.APPLICATION, "version": __version__},
        "exit_code": error.exit_code,
        "series": [asdict(refusal) for refusal in error.refusals],
    }
