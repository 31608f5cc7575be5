"""The steps from a study folder to its results, each a plain function of earlier results."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from highdicom.sc import SCImage
from highdicom.seg import Segmentation
from pydicom.dataset import Dataset

from ct_triage.configuration import Configuration
from ct_triage.fhir import build_fhir
from ct_triage.followup import NO_FOLLOW_UP, FollowUp
from ct_triage.followup_priors import follow_up_on
from ct_triage.lesion_models import load_lesion_model
from ct_triage.lesions import LesionModel, Lesions
from ct_triage.lungs import segment_lungs
from ct_triage.memory import release_free_memory
from ct_triage.network import SliceNetwork
from ct_triage.picture import build_picture
from ct_triage.provenance import Origin
from ct_triage.quality import Quality, assess_quality
from ct_triage.reading import read_volume
from ct_triage.report import build_report
from ct_triage.result_json import build_result
from ct_triage.results import (
    FHIR_FILE,
    PICTURE_FILE,
    REPORT_FILE,
    RESULT_FILE,
    SEG_FILE,
    require_free,
    write_results,
)
from ct_triage.review import review_lungs
from ct_triage.seg import build_seg
from ct_triage.series import Series, find_series
from ct_triage.severity import BoolMask, Findings, Segments, SliceClasses, assess_severity
from ct_triage.slices import SliceClassifier
from ct_triage.volume import Volume

# The findings for people and programs that do not read DICOM.
RESULT_STEP = "result"


@dataclass(frozen=True, slots=True)
class Networks:
    """The models of one run."""

    lung: SliceNetwork
    lesion: LesionModel
    slices: SliceClassifier | None = None

    def origin(self, configuration: Configuration) -> Origin:
        """Say what results of these networks under a configuration are made with."""
        models = (self.lung, self.lesion, self.slices)
        return Origin(
            tuple(model.identity for model in models if model is not None),
            self.lung.threshold,
            self.lesion.threshold,
            configuration,
        )


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
    configuration : Configuration
        Every setting.
    series : Series, optional
        The series to look at; by default the one of the study that suits best.
    """

    study: Path
    output: Path
    models: Path
    configuration: Configuration = field(default_factory=Configuration)
    series: Series | None = None

    def steps(self) -> dict[str, Callable[..., Any]]:
        """Name each step's result; a step's parameters are the names of earlier results."""
        return {
            "networks": self._load_networks,
            "origin": self._origin,
            "series": self._find_series,
            "volume": read_volume,
            "lungs": self._segment_lungs,
            "reviewed": self._review,
            "quality": self._assess_quality,
            "lesions": self._find_lesions,
            "slice_classes": self._classify_slices,
            "segments": self._segments,
            "findings": self._assess,
            "follow_up": self._follow_up,
            "seg": self._build_seg,
            "report": self._build_report,
            "picture": self._build_picture,
            RESULT_STEP: self._build_result,
            "files": self._write_results,
        }

    def run(self) -> dict[str, Any]:
        """Run every step in order, without MONAI Deploy, and return their results by name."""
        results: dict[str, Any] = {}
        for name, step in self.steps().items():
            results[name] = step(**{key: results[key] for key in parameters_of(step)})
        return results

    def for_series(self, series: Series) -> "Pipeline":
        """Return the same for one series, whose results get a folder of their own."""
        return replace(self, series=series, output=self.output / series.folder_name)

    def _load_networks(self) -> Networks:
        # Before minutes of work that nobody could keep.
        require_free(self.output)
        configuration = self.configuration
        lung = SliceNetwork.load(self.models / configuration.models.lungs)
        return Networks(
            lung.with_threshold(configuration.thresholds.lung),
            load_lesion_model(self.models, configuration),
            SliceClassifier.load(self.models / configuration.models.slices)
            if configuration.slice_classification
            else None,
        )

    def _origin(self, networks: Networks) -> Origin:
        return networks.origin(self.configuration)

    def _find_series(self) -> Series:
        return self.series or find_series(self.study, self.configuration.series)

    def _segment_lungs(self, volume: Volume, networks: Networks) -> tuple[BoolMask, BoolMask]:
        return segment_lungs(volume, networks.lung)

    def _review(self, volume: Volume, lungs: tuple[BoolMask, BoolMask]) -> Volume:
        return review_lungs(volume, *lungs)

    def _assess_quality(self, reviewed: Volume, lungs: tuple[BoolMask, BoolMask]) -> Quality:
        return assess_quality(reviewed, *lungs)

    def _find_lesions(
        self, volume: Volume, networks: Networks, lungs: tuple[BoolMask, BoolMask]
    ) -> Lesions:
        right, left = lungs
        return networks.lesion.find(volume, right | left)

    def _segments(self, lungs: tuple[BoolMask, BoolMask], lesions: Lesions) -> Segments:
        # The networks are done, and what follows needs room of its own.
        release_free_memory()
        return Segments(*lungs, lesions.mask)

    def _classify_slices(
        self, reviewed: Volume, networks: Networks, lungs: tuple[BoolMask, BoolMask]
    ) -> SliceClasses | None:
        right, left = lungs
        if networks.slices is None:
            return None
        return networks.slices.classify(reviewed, right | left)

    def _assess(
        self,
        volume: Volume,
        segments: Segments,
        lesions: Lesions,
        slice_classes: SliceClasses | None,
    ) -> Findings:
        # CT-0 is exactly no lesion. 100 * 0.29 is a little less than 29, and a bound is a bound.
        bounds = self.configuration.ct_class_bounds
        bounds_percent = (0.0, *(round(100 * bound, 9) for bound in bounds))
        findings = assess_severity(segments, volume.voxel_volume_ml, bounds_percent)
        findings = replace(findings, slice_classes=slice_classes)
        if not self.configuration.identification:
            return findings
        return replace(findings, covid19_probability=lesions.covid19_probability)

    def _follow_up(self, volume: Volume, findings: Findings) -> FollowUp:
        if not self.configuration.follow_up:
            return NO_FOLLOW_UP
        return follow_up_on(self.study, volume, findings)

    def _build_seg(self, volume: Volume, segments: Segments, origin: Origin) -> Segmentation | None:
        if not self.configuration.outputs.seg:
            return None
        return build_seg(volume, segments, origin)

    def _build_picture(self, volume: Volume, segments: Segments, origin: Origin) -> SCImage | None:
        if not self.configuration.outputs.picture:
            return None
        return build_picture(volume, segments, origin)

    def _build_report(
        self,
        reviewed: Volume,
        segments: Segments,
        seg: Segmentation | None,
        findings: Findings,
        quality: Quality,
        origin: Origin,
        follow_up: FollowUp,
    ) -> Dataset | None:
        outputs = self.configuration.outputs
        # FHIR is a mapping of the report, whether that is written or not.
        if not (outputs.sr or outputs.fhir):
            return None
        return build_report(reviewed, segments, seg, findings, quality, origin, follow_up)

    def _build_result(
        self,
        reviewed: Volume,
        seg: Dataset | None,
        report: Dataset | None,
        picture: Dataset | None,
        findings: Findings,
        quality: Quality,
        origin: Origin,
        follow_up: FollowUp,
    ) -> dict[str, Any]:
        written = report if self.configuration.outputs.sr else None
        outputs = {"seg": seg, "report": written, "picture": picture}
        return build_result(reviewed, outputs, findings, quality, origin, follow_up)

    def _write_results(
        self,
        volume: Volume,
        seg: Dataset | None,
        report: Dataset | None,
        picture: Dataset | None,
        result: dict[str, Any],
        origin: Origin,
    ) -> tuple[Path, ...]:
        outputs = self.configuration.outputs
        results: dict[str, Any] = {}
        if outputs.seg:
            results[SEG_FILE] = seg
        if outputs.sr:
            results[REPORT_FILE] = report
        if outputs.picture:
            results[PICTURE_FILE] = picture
        if outputs.fhir and report is not None:
            results[FHIR_FILE] = build_fhir(volume, report, origin)
        if outputs.json_:
            results[RESULT_FILE] = result
        return write_results(self.output, results)


def parameters_of(step: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of the results that a step needs."""
    return tuple(inspect.signature(step).parameters)
