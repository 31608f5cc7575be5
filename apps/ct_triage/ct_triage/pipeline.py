"""The steps from a study folder to its results, each a plain function of earlier results."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from highdicom.seg import Segmentation
from pydicom.dataset import Dataset

from ct_triage.lesions import segment_lesions
from ct_triage.lungs import segment_lungs
from ct_triage.network import SliceNetwork
from ct_triage.provenance import ModelIdentity
from ct_triage.reading import read_volume
from ct_triage.report import build_report
from ct_triage.result_json import build_result
from ct_triage.results import (
    REPORT_FILE,
    RESULT_FILE,
    SEG_FILE,
    require_free,
    write_results,
)
from ct_triage.review import review_lungs
from ct_triage.seg import build_seg
from ct_triage.series import Series, find_series
from ct_triage.severity import BoolMask, Findings, Segments, assess_severity
from ct_triage.volume import Volume

LUNG_BUNDLE = "lung_segmentation"
LESION_BUNDLE = "lesion_segmentation_2d"
# Smaller pieces are as often vessels and partial volume as disease.
MIN_LESION_ML = 0.1


@dataclass(frozen=True, slots=True)
class Networks:
    """The networks of one run."""

    lung: SliceNetwork
    lesion: SliceNetwork

    @property
    def identities(self) -> tuple[ModelIdentity, ...]:
        """Which models took part."""
        return self.lung.identity, self.lesion.identity


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What is run on what.

    Attributes
    ----------
    study : Path
        Folder that holds a CT study.
    output : Path
        Folder for the results, made if need be.
    models : Path
        Folder that holds the bundles by name.
    """

    study: Path
    output: Path
    models: Path

    def steps(self) -> dict[str, Callable[..., Any]]:
        """Name each step's result; a step's parameters are the names of earlier results."""
        return {
            "networks": self._load_networks,
            "series": self._find_series,
            "volume": read_volume,
            "lungs": self._segment_lungs,
            "reviewed": self._review,
            "segments": self._segment_lesions,
            "findings": self._assess_severity,
            "seg": self._build_seg,
            "report": self._build_report,
            "files": self._write_results,
        }

    def run(self) -> dict[str, Any]:
        """Run every step in order, without MONAI Deploy, and return their results by name."""
        results: dict[str, Any] = {}
        for name, step in self.steps().items():
            results[name] = step(**{key: results[key] for key in parameters_of(step)})
        return results

    def _load_networks(self) -> Networks:
        # Before minutes of work that nobody could keep.
        require_free(self.output)
        return Networks(
            SliceNetwork.load(self.models / LUNG_BUNDLE),
            SliceNetwork.load(self.models / LESION_BUNDLE),
        )

    def _find_series(self) -> Series:
        return find_series(self.study)

    def _segment_lungs(self, volume: Volume, networks: Networks) -> tuple[BoolMask, BoolMask]:
        return segment_lungs(volume, networks.lung)

    def _review(self, volume: Volume, lungs: tuple[BoolMask, BoolMask]) -> Volume:
        return review_lungs(volume, *lungs)

    def _segment_lesions(
        self, volume: Volume, networks: Networks, lungs: tuple[BoolMask, BoolMask]
    ) -> Segments:
        right, left = lungs
        lesion = segment_lesions(volume, networks.lesion, right | left, MIN_LESION_ML)
        return Segments(right, left, lesion)

    def _assess_severity(self, volume: Volume, segments: Segments) -> Findings:
        return assess_severity(segments, volume.voxel_volume_ml)

    def _build_seg(self, volume: Volume, segments: Segments, networks: Networks) -> Segmentation:
        return build_seg(volume, segments, networks.identities)

    def _build_report(
        self,
        reviewed: Volume,
        segments: Segments,
        seg: Segmentation,
        findings: Findings,
        networks: Networks,
    ) -> Dataset:
        return build_report(reviewed, segments, seg, findings, networks.identities)

    def _write_results(
        self,
        reviewed: Volume,
        seg: Dataset,
        report: Dataset,
        findings: Findings,
        networks: Networks,
    ) -> tuple[Path, ...]:
        result = build_result(reviewed, seg, report, findings, networks.identities)
        results: dict[str, Any] = {SEG_FILE: seg, REPORT_FILE: report, RESULT_FILE: result}
        return write_results(self.output, results)


def parameters_of(step: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of the results that a step needs."""
    return tuple(inspect.signature(step).parameters)
