"""What can go wrong for a user, each kind with the exit code that a workflow can route on."""

from dataclasses import dataclass


class TriageError(Exception):
    """A problem the user can act on, told in one line that never holds patient data.

    The message names the file or series, what is wrong and what to do.
    """

    exit_code = 1


class ConfigurationError(TriageError):
    """The configuration, or a file that it names, is wrong."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Refusal:
    """A CT series that is not looked at, and why.

    Attributes
    ----------
    series_instance_uid : str
        As in the source, valid or not.
    series_number : int or None
        As in the source.
    instances : int
        How many CT images of the series were found.
    reason : str
        Holds no patient data.
    """

    series_instance_uid: str
    series_number: int | None
    instances: int
    reason: str


class NoSeriesError(TriageError):
    """The input holds no series that the models can be run on.

    Attributes
    ----------
    refusals : tuple of Refusal
        Every CT series that was found.
    """

    exit_code = 3

    def __init__(self, message: str, refusals: tuple[Refusal, ...] = ()) -> None:
        super().__init__(message)
        self.refusals = refusals


class BrokenSeriesError(TriageError):
    """The chosen series cannot be turned into a volume without guessing."""

    exit_code = 4


class ModelError(TriageError):
    """A model is missing, was changed, or does not describe its own input."""

    exit_code = 5


class OutputError(TriageError):
    """The results cannot be written."""

    exit_code = 6
