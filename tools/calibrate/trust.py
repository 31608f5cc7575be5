"""When a calibration may be trusted: what it does for patients that it never saw."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tools.evaluate.bootstrap import intervals

# Four patients have 35 different resamples, too few for the 2.5 % tails of an interval.
MIN_PATIENTS = 5
RESAMPLES = 10_000
CRITERION = (
    f"Trusted when there are at least {MIN_PATIENTS} patients to choose on and as many held out,"
    " and the 95 % bootstrap interval over held-out patients of the change lies above 0, or"
    " nothing was changed."
)


@dataclass(frozen=True, slots=True)
class Trust:
    """Verdict on one calibration.

    Attributes
    ----------
    change, low, high : float
        Mean change over held-out patients and its 95 % bootstrap interval, NaN of one patient.
    reason : str
        Why it is not trusted; '' if it is.
    """

    change: float
    low: float
    high: float
    reason: str

    @property
    def trusted(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.reason

    @property
    def verdict(self) -> str:
        """Return the verdict as a sentence."""
        interval = f"{self.change:+.3f} (one patient has no interval)"
        if not np.isnan(self.low):
            interval = f"{self.change:+.3f} (95 % interval {self.low:+.3f} to {self.high:+.3f})"
        if self.trusted:
            return f"Trusted: the change on held-out patients is {interval}."
        return f"NOT TRUSTED: {self.reason}; the change on held-out patients is {interval}."


def judge(
    changes: ArrayLike,
    patients: Sequence[str],
    n_calibration_patients: int,
    unchanged: bool,
    seed: int,
) -> Trust:
    """Judge a calibration by its held-out cases.

    Parameters
    ----------
    changes : array
        Metric after minus before calibration, one a held-out case.
    patients : sequence of str
        Whose case each is; a patient is drawn with all their cases.
    n_calibration_patients : int
        How many patients it was chosen on.
    unchanged : bool
        Whether the calibration keeps what there was.
    seed : int
        Of the bootstrap.
    """
    by_patient = mean_by_patient(changes, patients)
    change = float(by_patient.mean())
    patient_names = [str(index) for index in range(len(by_patient))]
    ((low, high),) = intervals(
        lambda rows: [by_patient[rows].mean()], patient_names, RESAMPLES, seed=seed
    )
    reason = ""
    if n_calibration_patients < MIN_PATIENTS:
        reason = f"too few patients to choose on ({n_calibration_patients} of {MIN_PATIENTS})"
    elif len(by_patient) < MIN_PATIENTS:
        reason = f"too few held-out patients ({len(by_patient)} of {MIN_PATIENTS})"
    elif low <= 0 and not unchanged:
        reason = "a gain cannot be told from chance, give more patients"
    return Trust(change, low, high, reason)


def mean_by_patient(values: ArrayLike, patients: Sequence[str]) -> NDArray[np.float64]:
    """Return the mean of each patient's cases, in the order of the patients' names."""
    array, names = np.asarray(values, float), np.asarray(patients)
    return np.array([array[names == name].mean() for name in np.unique(names)])
