"""The report as a FHIR R4 DiagnosticReport with contained Observations.

Follows the HL7 implementation guide "DICOM SR to FHIR Resource Mapping": each measurement group
becomes an Observation whose members are the group's measurements and evaluations, and each
algorithm becomes a Device. Everything is read from the finished report, so both say the same.
Groups of earlier studies are left out: those are other studies' observations, which have reports
of their own. What has changed since is said with the lungs of this study.
The guide is written for R5; what R4 lacks is told as R4 can: a finding site is the Observation's
``bodySite``, tracking identifiers are among its ``identifier`` and a segment is what it is
``derivedFrom``.
"""

import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from ct_triage import codes, provenance
from ct_triage.provenance import Origin
from ct_triage.volume import Volume

Resource = dict[str, Any]

# Tells documents of this application from others.
ID_PREFIX = "ct-triage-"
DICOM_UID = "urn:dicom:uid"
IDENTIFIER_TYPES = "http://hl7.org/fhir/uv/dicom-sr/CodeSystem/dicom-identifier-type"
HL7_IDENTIFIER_TYPES = "http://terminology.hl7.org/CodeSystem/v2-0203"
DIAGNOSTIC_SERVICES = "http://terminology.hl7.org/CodeSystem/v2-0074"
OBSERVATION_CATEGORIES = "http://terminology.hl7.org/CodeSystem/observation-category"
CODE_SYSTEMS = {
    "SCT": "http://snomed.info/sct",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "LN": "http://loinc.org",
    "UCUM": "http://unitsofmeasure.org",
    "UMLS": "http://terminology.hl7.org/CodeSystem/umls",
    "RADLEX": "http://www.radlex.org",
}
# SNOMED CT's own concepts for what DICOM composes of a structure and its side.
LUNGS_BY_SIDE = {
    codes.RIGHT.value: Code("3341006", "SCT", "Right lung structure"),
    codes.LEFT.value: Code("44029006", "SCT", "Left lung structure"),
}
# Code values of content items that say something about the group rather than being a finding.
TRACKING_IDENTIFIER, TRACKING_UID = "112039", "112040"
FINDING, FINDING_SITE, LATERALITY = "121071", "363698007", "272741003"
REFERENCED_SEGMENT = "121191"
ALGORITHM_NAME, ALGORITHM_VERSION, ALGORITHM_PARAMETERS = "111001", "111003", "111002"
IMAGING_MEASUREMENTS, MEASUREMENT_GROUP = "126010", "125007"
TIME_POINT_NUMBER = "126070"


def build_fhir(volume: Volume, report: Dataset, origin: Origin) -> Resource:
    """Map a report to FHIR.

    Parameters
    ----------
    volume : Volume
        The source images, for the identifiers of patient, order and study. The Patient ID is in
        the result: without it no system could tell whom the report is about.
    report : Dataset
        What :func:`ct_triage.report.build_report` made.
    origin : Origin
        What it was made with.
    """
    return _Mapping(volume, report, origin).diagnostic_report()


class _Mapping:
    def __init__(self, volume: Volume, report: Dataset, origin: Origin) -> None:
        self.report = report
        self.origin = origin
        self.header = volume.headers[0]
        self.uid = provenance.uid_of("FHIR", str(report.SOPInstanceUID))
        self.systems = {
            **CODE_SYSTEMS,
            origin.configuration.private_scheme.designator: _uid_uri(origin.codes.uid),
        }
        self.context = self._context(volume)
        self.devices: dict[tuple[str, ...], Resource] = {}
        self.observations: list[Resource] = []

    def diagnostic_report(self) -> Resource:
        groups = [
            {"reference": f"#{self._group(group, f'group-{number}')}"}
            for number, group in enumerate(self._measurement_groups(), 1)
        ]
        evaluations = [
            {"reference": f"#{self._evaluation(item, f'evaluation-{number}')}"}
            for number, item in enumerate(self._evaluations("CODE"), 1)
        ]
        category = next(
            observation["valueCodeableConcept"]
            for observation in self.observations
            if observation["code"]["coding"][0]["code"] == self.origin.codes.severity_category.value
        )
        identifiers = [_identifier(self.uid)]
        if self.origin.configuration.outputs.sr:
            identifiers.append(_identifier(str(self.report.SOPInstanceUID)))
        return {
            "resourceType": "DiagnosticReport",
            "id": f"{ID_PREFIX}{uuid.UUID(int=int(self.uid.removeprefix('2.25.')))}",
            "contained": [*self.devices.values(), *self.observations],
            "identifier": identifiers,
            **self.context,
            "category": [_concept(DIAGNOSTIC_SERVICES, "CT", "CAT Scan")],
            "code": self._concept_of(self.report.ConceptNameCodeSequence[0]),
            "imagingStudy": [self._study],
            "result": [*groups, *evaluations],
            "conclusion": f"{category['coding'][0]['display']}. {self._comments()}",
            "conclusionCode": [category],
        }

    def _context(self, volume: Volume) -> Resource:
        """Say what the report and each of its observations say of patient, order and time."""
        header = self.header
        patient: Resource = {"type": "Patient"}
        if header.get("PatientID"):
            patient["identifier"] = _identifier_text(
                header.PatientID, header.get("IssuerOfPatientID"), "MR"
            )
        else:
            patient["display"] = "unknown"
        context: Resource = {"status": "preliminary", "subject": patient}
        moment = provenance.content_moment(volume)
        if moment != provenance.UNKNOWN_MOMENT:
            # A time would need the time zone, which images rarely tell.
            context["effectiveDateTime"] = moment.date().isoformat()
        if header.get("AccessionNumber"):
            order = _identifier_text(header.AccessionNumber, None, "ACSN")
            context["basedOn"] = [{"type": "ServiceRequest", "identifier": order}]
        return context

    @property
    def _study(self) -> Resource:
        uid = str(self.header.StudyInstanceUID)
        return {"type": "ImagingStudy", "identifier": _identifier(uid)}

    def _measurement_groups(self) -> Iterator[Dataset]:
        """Return the groups of this study, which is the last of those that the report numbers."""
        groups = list(self._all_measurement_groups())
        latest = max(map(_time_point_number, groups))
        return (group for group in groups if _time_point_number(group) == latest)

    def _all_measurement_groups(self) -> Iterator[Dataset]:
        for container in self.report.ContentSequence:
            if _name(container).CodeValue == IMAGING_MEASUREMENTS:
                yield from container.ContentSequence

    def _group(self, group: Dataset, name: str) -> str:
        """Add the Observation of a group and its members; return its id."""
        items = {_name(item).CodeValue: item for item in group.ContentSequence}
        about = {"device": {"reference": f"#{self._device(items)}"}}
        if FINDING_SITE in items:
            about["bodySite"] = self._body_site(items[FINDING_SITE])
        findings = [
            item
            for item in group.ContentSequence
            if item.ValueType == "NUM" or _is_evaluation(item)
        ]
        members = [
            self._member(item, f"{name}-{number}", about) for number, item in enumerate(findings, 1)
        ]
        sources = [self._study]
        if REFERENCED_SEGMENT in items:
            segment = items[REFERENCED_SEGMENT].ReferencedSOPSequence[0]
            sources.append(
                {
                    "identifier": _identifier(str(segment.ReferencedSOPInstanceUID)),
                    "display": f"segment {segment.ReferencedSegmentNumber}",
                }
            )
        self.observations.append(
            {
                "resourceType": "Observation",
                "id": name,
                "identifier": [
                    {
                        "type": _concept(IDENTIFIER_TYPES, "tracking-identifier"),
                        "value": items[TRACKING_IDENTIFIER].TextValue,
                    },
                    {
                        "type": _concept(IDENTIFIER_TYPES, "tracking-uid"),
                        **_identifier(str(items[TRACKING_UID].UID)),
                    },
                ],
                **self.context,
                "category": [_concept(OBSERVATION_CATEGORIES, "imaging")],
                "code": _concept(CODE_SYSTEMS["DCM"], MEASUREMENT_GROUP, "Measurement Group"),
                "valueCodeableConcept": self._concept_of(items[FINDING].ConceptCodeSequence[0]),
                **about,
                "hasMember": [{"reference": f"#{member}"} for member in members],
                "derivedFrom": sources,
            }
        )
        return name

    def _member(self, item: Dataset, name: str, about: Resource) -> str:
        """Add the Observation of one measurement or evaluation; return its id."""
        if item.ValueType == "NUM":
            measured = item.MeasuredValueSequence[0]
            unit = measured.MeasurementUnitsCodeSequence[0]
            value: Resource = {
                "valueQuantity": {
                    "value": _number(measured.NumericValue),
                    "unit": unit.CodeMeaning,
                    "system": CODE_SYSTEMS["UCUM"],
                    "code": unit.CodeValue,
                }
            }
        else:
            value = self._coded_value(item)
        self._add_observation(item, name, {**value, **about})
        return name

    def _evaluation(self, item: Dataset, name: str) -> str:
        """Add the Observation of what is said of the study as a whole; return its id."""
        about = {"derivedFrom": [self._study]}
        self._add_observation(item, name, {**self._coded_value(item), **about})
        return name

    def _coded_value(self, item: Dataset) -> Resource:
        return {"valueCodeableConcept": self._concept_of(item.ConceptCodeSequence[0])}

    def _add_observation(self, item: Dataset, name: str, said: Resource) -> None:
        self.observations.append(
            {
                "resourceType": "Observation",
                "id": name,
                **self.context,
                "category": [_concept(OBSERVATION_CATEGORIES, "imaging")],
                "code": self._concept_of(_name(item)),
                **said,
            }
        )

    def _device(self, items: dict[str, Dataset]) -> str:
        """Return the id of the Device that stands for a group's algorithm."""
        algorithm = (items[ALGORITHM_NAME].TextValue, items[ALGORITHM_VERSION].TextValue)
        if algorithm not in self.devices:
            manufacturer = self.origin.configuration.manufacturer.name
            self.devices[algorithm] = {
                "resourceType": "Device",
                "id": f"algorithm-{len(self.devices) + 1}",
                "manufacturer": manufacturer,
                "deviceName": [{"name": algorithm[0], "type": "model-name"}],
                "version": [{"value": algorithm[1]}],
            }
        return str(self.devices[algorithm]["id"])

    def _body_site(self, site: Dataset) -> Resource:
        concept = self._concept_of(site.ConceptCodeSequence[0])
        for modifier in site.get("ContentSequence", []):
            side = modifier.ConceptCodeSequence[0]
            if side.CodeValue in LUNGS_BY_SIDE:
                lung = LUNGS_BY_SIDE[side.CodeValue]
                return _concept(CODE_SYSTEMS["SCT"], lung.value, lung.meaning)
            concept["text"] = f"{concept['coding'][0]['display']}, {side.CodeMeaning.lower()}"
        return concept

    def _concept_of(self, code: Dataset) -> Resource:
        return _concept(self.systems[code.CodingSchemeDesignator], code.CodeValue, code.CodeMeaning)

    def _comments(self) -> str:
        return " ".join(item.TextValue for item in self._evaluations("TEXT"))

    def _evaluations(self, value_type: str) -> list[Dataset]:
        """Return what the report says of the study as a whole, as codes or as text."""
        return [
            item
            for container in self.report.ContentSequence
            if _name(container).CodeValue == codes.QUALITATIVE_EVALUATIONS.value
            for item in container.ContentSequence
            if item.ValueType == value_type
        ]


def _time_point_number(group: Dataset) -> int:
    """Return the number of a group's study (TID 1502); 0 where there is one study only."""
    return max(
        int(item.TextValue) if _name(item).CodeValue == TIME_POINT_NUMBER else 0
        for item in group.ContentSequence
    )


def _is_evaluation(item: Dataset) -> bool:
    return item.ValueType == "CODE" and _name(item).CodeValue not in (FINDING, FINDING_SITE)


def _name(item: Dataset) -> Dataset:
    return item.ConceptNameCodeSequence[0]


def _concept(system: str, code: str, display: str = "") -> Resource:
    coding = {"system": system, "code": code, **({"display": display} if display else {})}
    return {"coding": [coding]}


def _identifier(uid: str) -> Resource:
    return {"system": DICOM_UID, "value": _uid_uri(uid)}


def _identifier_text(value: object, issuer: object, kind: str) -> Resource:
    identifier: Resource = {"type": _concept(HL7_IDENTIFIER_TYPES, kind), "value": str(value)}
    if issuer:
        identifier["assigner"] = {"display": str(issuer)}
    return identifier


def _uid_uri(uid: str) -> str:
    """Write a UID as URI; some archives send UUID text where DICOM wants a UID."""
    return f"urn:oid:{uid}" if uid.replace(".", "").isdigit() else f"urn:uuid:{uid}"


def _number(value: object) -> int | float:
    number = Decimal(str(value))
    return int(number) if number == number.to_integral_value() else float(number)
