"""Run the application on one series of a study or on each, and say what became of it."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ct_triage import __version__, provenance
from ct_triage.application import CTTriageApp
from ct_triage.errors import NoSeriesError, Refusal, TriageError
from ct_triage.no_result import build_no_result
from ct_triage.pipeline import Pipeline
from ct_triage.results import NO_RESULT_FILE, SERIES_FILE, require_free, write_results
from ct_triage.series import Series, find_every_series

INDEX_SCHEMA_VERSION = "1.0"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to.

    Attributes
    ----------
    failure : Exception or None
        Why there are no results, or not all of them.
    results : tuple of dict
        The findings of each series that was looked at, as in ``result.json``.
    files : tuple of Path
        What was written.
    """

    failure: Exception | None = None
    results: tuple[dict[str, Any], ...] = ()
    files: tuple[Path, ...] = ()

    @property
    def exit_code(self) -> int:
        """Exit code of the application (see :mod:`ct_triage.errors`)."""
        if self.failure is None:
            return 0
        if isinstance(self.failure, TriageError):
            return self.failure.exit_code
        return TriageError.exit_code

    @property
    def message(self) -> str:
        """One line on the failure; '' if there is none."""
        if self.failure is None:
            return ""
        if isinstance(self.failure, TriageError):
            return str(self.failure)
        # The text of an unforeseen error may hold patient data, its type does not.
        return (
            f"internal error ({type(self.failure).__name__}); please report it with the output of"
            " -l DEBUG"
        )


def run(pipeline: Pipeline) -> Outcome:
    """Run the application on one series; without a usable one, write why.

    Raises
    ------
    OutputError
        If not even that can be written.
    """
    app = CTTriageApp(pipeline)
    app.run()
    if isinstance(app.failure, NoSeriesError):
        return _no_result(pipeline, app.failure)
    if app.failure is not None:
        return Outcome(app.failure)
    return Outcome(None, (app.result,), app.files)


def run_every_series(pipeline: Pipeline) -> Outcome:
    """Run the application on every usable CT series of a study, each into a folder of its own.

    A series that fails does not keep the others from their results. ``series.json`` lists what
    became of each; the outcome's failure is that of the first that failed.

    Raises
    ------
    OutputError
        If the list cannot be written.
    """
    require_free(pipeline.output)
    try:
        usable, refusals = find_every_series(pipeline.study, pipeline.configuration.series)
    except NoSeriesError as error:
        return _no_result(pipeline, error)
    outcomes = [run(pipeline.for_series(series)) for series in usable]
    index = {
        "schema_version": INDEX_SCHEMA_VERSION,
        "application": {"name": provenance.APPLICATION, "version": __version__},
        "series": [
            *(_entry(s, outcome) for s, outcome in zip(usable, outcomes, strict=True)),
            *(_refused(refusal) for refusal in refusals),
        ],
    }
    (index_file,) = write_results(pipeline.output, {SERIES_FILE: index})
    return Outcome(
        next((outcome.failure for outcome in outcomes if outcome.failure), None),
        tuple(result for outcome in outcomes for result in outcome.results),
        (*(file for outcome in outcomes for file in outcome.files), index_file),
    )


def _no_result(pipeline: Pipeline, error: NoSeriesError) -> Outcome:
    return Outcome(
        error, (), write_results(pipeline.output, {NO_RESULT_FILE: build_no_result(error)})
    )


def _entry(series: Series, outcome: Outcome) -> dict[str, Any]:
    done = outcome.failure is None
    return {
        "series_instance_uid": series.uid,
        "series_number": series.number,
        "instances": len(series.files),
        "part": series.part,
        "exit_code": outcome.exit_code,
        "reason": outcome.message,
        "folder": series.folder_name if done else None,
    }


def _refused(refusal: Refusal) -> dict[str, Any]:
    return {
        **asdict(refusal),
        "part": None,
        "exit_code": NoSeriesError.exit_code,
        "folder": None,
    }
