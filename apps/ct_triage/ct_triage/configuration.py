"""The application's one configuration: which models run, on what, and what comes out.

It is read once, at the start, and handed down; nothing else reads settings. The keys and their
defaults are those of the classes here; ``docs/configuration.schema.json`` is made from them.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, WithJsonSchema, model_validator

from ct_triage.selection import Rules
from ct_triage.site import CTClassBounds, Probability, Site
from ct_triage.strict import StrictModel

DEFAULT_CT_CLASS_BOUNDS = (0.25, 0.5, 0.75)

# A folder below the models folder, never a path that leads out of it.
_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
_WEIGHTED_NAME = rf"([1-9]\*)?{_NAME}"
BundleName = Annotated[str, Field(pattern=rf"^{_NAME}$")]
# One, or several joined by +, whose mean is taken; 2*NAME counts twice in it.
WeightedBundleNames = Annotated[str, Field(pattern=rf"^{_WEIGHTED_NAME}(\+{_WEIGHTED_NAME})*$")]
# Long String of PS3.5 6.2 in characters that every character set has.
LongString = Annotated[str, Field(pattern=r"^[!-\[\]-~][ -\[\]-~]{0,63}$")]


def _site_in_file(value: Any, info: ValidationInfo) -> Any:
    return Site.read(_beside(info) / value) if isinstance(value, str) else value


def _rules_in_file(value: Any, info: ValidationInfo) -> Any:
    return Rules.read(_beside(info) / value) if isinstance(value, str) else value


def _beside(info: ValidationInfo) -> Path:
    return info.context or Path()


class Models(StrictModel):
    """Which bundles run: names of folders below the models folder."""

    lungs: BundleName = "lung_segmentation"
    """Lung model."""
    lesions: WeightedBundleNames = "lesion_segmentation_2d+2*multitask_triage"
    """Lesion model; of several, joined by +, the mean of their probabilities is taken, in which
    2*NAME counts twice."""
    slices: BundleName = "mask_rcnn_classifier"
    """Slice classifier, which runs where ``slice_classification`` is true."""

    @property
    def lesion_bundles(self) -> list[str]:
        """Names of the lesion models one by one."""
        return [term.rpartition("*")[2] for term in self.lesions.split("+")]

    @property
    def lesion_weights(self) -> list[int]:
        """How often each lesion model counts in the mean."""
        return [int(term.rpartition("*")[0] or 1) for term in self.lesions.split("+")]


class Thresholds(StrictModel):
    """Numbers that decide; null leaves the decision to the model or to the site file."""

    lung: Probability | None = None
    """Lung probability from which a voxel counts as lung; null: the lung model's own."""
    lesion: Probability | None = None
    """Lesion probability from which a voxel counts as lesion; null: the site's, or else the
    lesion model's own."""
    min_lesion_ml: Annotated[float, Field(ge=0)] = 0.1
    """Smaller connected pieces are left out; they are as often vessels and partial volume."""
    ct_class_bounds: CTClassBounds | None = None
    """Lesion shares of a lung above which CT-2, CT-3 and CT-4 begin; null: the site's, or else
    quarters."""


class SeriesChoice(StrictModel):
    """Which CT series of a study are looked at."""

    take: Literal["best", "every"] = "best"
    """The one usable series that suits the models best, or every usable series."""
    rules: Annotated[
        Rules | None,
        BeforeValidator(_rules_in_file),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "null"},
                    {"type": "string", "description": "Name of a JSON file."},
                    {
                        "type": "object",
                        "required": ["selections"],
                        "properties": {"selections": {"type": "array", "minItems": 1}},
                    },
                ]
            }
        ),
    ] = None
    """Rules of MONAI Deploy's DICOMSeriesSelectorOperator, here or in a JSON file beside this one;
    null: every CT series may be chosen."""


class Outputs(StrictModel):
    """Which files are written."""

    seg: bool = True
    """``seg.dcm``: DICOM segmentation."""
    sr: bool = True
    """``sr.dcm``: DICOM structured report."""
    json_: Annotated[bool, Field(alias="json")] = True
    """``result.json``."""
    fhir: bool = True
    """``result.fhir.json``: FHIR DiagnosticReport."""
    picture: bool = False
    """``picture.dcm``: slices with the segments drawn over them, as DICOM Secondary Capture."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.seg or self.sr or self.json_ or self.fhir or self.picture):
            raise ValueError("all outputs are switched off; switch one on")
        return self


class PrivateScheme(StrictModel):
    """The private coding scheme of findings that have no standard code (PS3.3 8.2)."""

    designator: Annotated[str, Field(pattern=r"^99[A-Z0-9_]{1,14}$")] = "99CTTRIAGE"
    """Coding Scheme Designator; private ones start with 99."""
    name: LongString = "CT triage: lesion share, CT severity categories and response"
    """Coding Scheme Name."""
    version: Annotated[str, Field(pattern=r"^[!-\[\]-~]{1,16}$")] = "1"
    """Coding Scheme Version."""
    responsible_organization: LongString = "ct-triage-bundles"
    """Coding Scheme Responsible Organization."""


class Manufacturer(StrictModel):
    """Under which names the results go."""

    name: LongString = "ct-triage-bundles"
    """Manufacturer."""
    model_name: LongString = "ct_triage"
    """Manufacturer's Model Name, and name of the observing device."""


class Configuration(StrictModel):
    """Every setting of the application; a key that is left out keeps its default."""

    models: Models = Models()
    identification: bool = False
    """Report the probability of COVID-19; needs a lesion model that gives it."""
    slice_classification: bool = False
    """Classify the slices through the lungs and report what that says of the study."""
    follow_up: bool = True
    """Compare with segmentations and reports of the patient's earlier studies that lie in the
    study folder."""
    thresholds: Thresholds = Thresholds()
    site: Annotated[
        Site | None,
        BeforeValidator(_site_in_file),
        WithJsonSchema({"type": ["string", "null"]}),
    ] = None
    """Name of a site file beside this one (``site.schema.json``)."""
    series: SeriesChoice = SeriesChoice()
    outputs: Outputs = Outputs()
    private_scheme: PrivateScheme = PrivateScheme()
    manufacturer: Manufacturer = Manufacturer()

    @model_validator(mode="after")
    def _decided_once(self) -> Self:
        """Two answers to one question are a mistake that must not be settled in silence."""
        pairs = {"lesion": "lesion_threshold", "ct_class_bounds": "ct_class_bounds"}
        for key, site_key in pairs.items():
            if getattr(self.thresholds, key) and self.site and getattr(self.site, site_key):
                raise ValueError(
                    f"thresholds.{key} and the site file's {site_key} both set; remove one"
                )
        return self

    @property
    def lesion_threshold(self) -> float | None:
        """Threshold of the configuration or of the site; None: the model's own."""
        return self.thresholds.lesion or (self.site.lesion_threshold if self.site else None)

    @property
    def ct_class_bounds(self) -> tuple[float, float, float]:
        """Lesion shares above which CT-2, CT-3 and CT-4 begin."""
        site_bounds = self.site.ct_class_bounds if self.site else None
        return self.thresholds.ct_class_bounds or site_bounds or DEFAULT_CT_CLASS_BOUNDS

    @property
    def sha256(self) -> str:
        """Hash of every setting with the site file's content, however they were written."""
        settings = self.model_dump(mode="json", by_alias=True)
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
