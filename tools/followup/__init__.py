"""Follow-up over the results of two or more studies of a patient (CoRSAI 5.2)."""

from tools.followup.plot import draw_follow_up
from tools.followup.report import build_follow_up_report
from tools.followup.studies import FollowUpError, StudySeries, read_studies

__all__ = [
    "FollowUpError",
    "StudySeries",
    "build_follow_up_report",
    "draw_follow_up",
    "read_studies",
]
