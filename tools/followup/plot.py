"""Draw the course of the disease over time."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ct_triage.followup import LUNGS, FollowUp

# Told apart by colour-blind readers too (Okabe and Ito).
COLOURS = {"right_lung": "#0072B2", "left_lung": "#009E73", "both_lungs": "#D55E00"}
MARKERS = {"right_lung": "o", "left_lung": "s", "both_lungs": "D"}


def draw_follow_up(follow_up: FollowUp, file: Path) -> None:
    """Write a PNG: lesion shares above, lesion volumes corrected for lung volume below.

    Days count from the first study. Between two studies stands the response of both lungs. A
    dashed line is the volume as measured, at that day's breath.
    """
    figure = Figure(figsize=(8, 7.2), layout="constrained")
    shares, volumes = figure.subplots(2, 1, sharex=True)
    for lung in LUNGS:
        _draw_lung(shares, volumes, follow_up, lung)
    for index, change in enumerate(follow_up.changes):
        both = change["both_lungs"]
        if both is not None:
            middle = (follow_up.days(index) + follow_up.days(index + 1)) / 2
            shares.annotate(
                f"{both.response}\n{both.share_change_points:+.1f} points",
                (middle, 1.02),
                xycoords=("data", "axes fraction"),
                ha="center",
                va="bottom",
                fontsize=9,
            )
    for index in range(len(follow_up.time_points)):
        for axes in (shares, volumes):
            axes.axvline(follow_up.days(index), color="0.85", zorder=0)
    shares.set_ylabel("lesion share of the lung, %")
    volumes.set_ylabel("lesions at the first lung volume, ml")
    volumes.set_xlabel("days since the first study")
    for axes in (shares, volumes):
        axes.set_ylim(bottom=0)
        axes.margins(y=0.15)
        axes.spines[["top", "right"]].set_visible(False)
    shares.legend(frameon=False)
    figure.savefig(file, dpi=110, format="png")


def _draw_lung(shares: Axes, volumes: Axes, follow_up: FollowUp, lung: str) -> None:
    measured = [
        (follow_up.days(index), point.lungs[lung])
        for index, point in enumerate(follow_up.time_points)
        if lung in point.lungs and point.lungs[lung].lung_volume_ml
    ]
    if not measured:
        return
    days = [day for day, _ in measured]
    percent = [involvement.lesion_share_percent for _, involvement in measured]
    first_ml = measured[0][1].lung_volume_ml
    colour, marker = COLOURS[lung], MARKERS[lung]
    shares.plot(days, percent, color=colour, marker=marker, label=lung.replace("_", " "))
    volumes.plot(days, [p / 100 * first_ml for p in percent], color=colour, marker=marker)
    as_measured = [involvement.lesion_volume_ml for _, involvement in measured]
    volumes.plot(days, as_measured, color=colour, linestyle="--", linewidth=0.8)
