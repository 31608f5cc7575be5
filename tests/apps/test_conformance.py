"""The conformance statement is true: what is read, to the grey value, and what is written."""

import re
import shutil
import subprocess
from pathlib import Path

import gdcm
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.sr.coding import Code
from pydicom.uid import UID, CTImageStorage
from series_edits import with_gdcm
from small_study import small_study
from validators import _tool as tool

from ct_triage import codes
from ct_triage.codes import PrivateCodes
from ct_triage.configuration import Configuration, PrivateScheme
from ct_triage.errors import BrokenSeriesError
from ct_triage.followup_reading import REPORT_CLASSES, SEGMENTATION_CLASSES
from ct_triage.picture import build_picture
from ct_triage.reading import read_volume
from ct_triage.results import PICTURE_FILE, REPORT_FILE, SEG_FILE
from ct_triage.series import MULTI_FRAME_CT, find_series

STATEMENT = Path(__file__).parents[2] / "apps" / "ct_triage" / "docs" / "conformance.md"
# Each by an encoder of its own making: dcmtk's programs or pydicom's plugins.
DCMTK = {
    "1.2.840.10008.1.2": ("dcmconv", "+ti"),
    "1.2.840.10008.1.2.1": ("dcmconv", "+te"),
    "1.2.840.10008.1.2.1.99": ("dcmconv", "+td"),
    "1.2.840.10008.1.2.2": ("dcmconv", "+tb"),
    "1.2.840.10008.1.2.4.57": ("dcmcjpeg", "+el"),
    "1.2.840.10008.1.2.4.70": ("dcmcjpeg", "+e1"),
    "1.2.840.10008.1.2.4.80": ("dcmcjpls", "+el"),
    "1.2.840.10008.1.2.4.81": ("dcmcjpls", "+en"),
    "1.2.840.10008.1.2.5": ("dcmcrle",),
}
GDCM = {
    "1.2.840.10008.1.2.4.51": "JPEGExtendedProcess2_4",
    "1.2.840.10008.1.2.4.90": "JPEG2000Lossless",
    "1.2.840.10008.1.2.4.91": "JPEG2000",
}
# Largest difference in HU that a lossy coding of a smooth picture may make.
LOSSY_HU = {
    "1.2.840.10008.1.2.4.51": 8,
    "1.2.840.10008.1.2.4.81": 4,
    "1.2.840.10008.1.2.4.91": 4,
}


# Of TID 1500 and 1411: the concept names that every report has.
TEMPLATE_CODES = {("SCT", "363698007"), ("SCT", "272741003")}


def _section(title: str) -> str:
    return STATEMENT.read_text().split(f"## {title}\n")[1].split("\n## ")[0]


def _listed(title: str) -> list[str]:
    return re.findall(r"`(1\.2\.840\.10008\.1\.2[0-9.]*)`", _section(title))


def _storage_classes(title: str) -> list[str]:
    """UIDs of SOP classes; an ellipsis stands for what they have in common."""
    listed = re.findall(r"`(?:1\.2\.840\.10008\.5\.1\.4\.|…)([0-9.]+)`", _section(title))
    return sorted(f"1.2.840.10008.5.1.4.{end}" for end in listed)


def test_the_listed_storage_classes_are_those_of_the_code() -> None:
    read = (CTImageStorage, *MULTI_FRAME_CT, *SEGMENTATION_CLASSES, *REPORT_CLASSES)
    assert _storage_classes("SOP classes read") == sorted(read)
    study = small_study()
    written = {
        SEG_FILE: study.seg(),
        REPORT_FILE: study.report(),
        PICTURE_FILE: build_picture(study.volume, study.segments, study.origin),
    }
    for file, instance in written.items():
        (line,) = [x for x in _section("SOP classes written").splitlines() if f"`{file}`" in x]
        assert f"`{instance.SOPClassUID}`" in line
        assert instance.file_meta.TransferSyntaxUID in _listed("Transfer syntaxes written")
    assert len(_storage_classes("SOP classes written")) == len(written)


def test_every_private_code_is_listed_and_no_other() -> None:
    private = PrivateCodes(PrivateScheme())
    used = {
        code.value
        for value in vars(private).values()
        for code in (value.values() if isinstance(value, dict) else [value])
        if isinstance(code, Code) and code.scheme_designator == private.scheme.designator
    }
    table = "\n".join(
        line for line in _section("Private coding scheme").splitlines() if line.startswith("|")
    )
    listed = set(re.findall(r"\b[A-Z]{2,}(?:[_-][A-Z0-9]+)*\b|\bP_[A-Z0-9]+", table))
    # CT-1 to CT-3 lie between those that are named; the others are words and standard codes.
    assert used - {"CT-1", "CT-2", "CT-3"} == listed - {"SCT", "CT", "COVID-19"}


def test_every_standard_code_of_a_report_is_listed() -> None:
    configuration = Configuration.model_validate(
        {"models": {"lesions": "multitask_triage"}, "identification": True}
    )
    report = small_study(configuration=configuration, covid19_probability=0.5).report()
    # The image library describes images in the template's own codes.
    (measurements,) = [
        item
        for item in report.ContentSequence
        if item.ConceptNameCodeSequence[0].CodeValue == "126010"
    ]
    used = {
        (code.CodingSchemeDesignator, code.CodeValue)
        for element in measurements.iterall()
        if element.VR == "SQ" and element.keyword.endswith("CodeSequence")
        for code in element.value
    }
    # Context group 3716 is named as a whole.
    used -= {(code.scheme_designator, code.value) for code in codes.SEVERITIES.values()}
    used |= {("SCT", code.value) for code in (codes.PNEUMONIA, *codes.CONDITIONS.values())}
    missing = {
        code
        for code in used - TEMPLATE_CODES
        if code[0] in ("SCT", "LN", "UCUM") and code[1] not in _section("Codes")
    }
    assert missing == set()


def test_every_listed_syntax_is_tested() -> None:
    assert sorted(_listed("Transfer syntaxes read")) == sorted({*DCMTK, *GDCM})
    assert _listed("Transfer syntaxes written") == ["1.2.840.10008.1.2.1"]


def _encode(source: Path, target: Path, syntax: str) -> None:
    if syntax in DCMTK:
        program, *options = DCMTK[syntax]
        command = [tool(program, "dcmtk"), *options, str(source), str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return
    shutil.copy(source, target)
    with_gdcm(target, getattr(gdcm.TransferSyntax, GDCM[syntax]))


@pytest.mark.parametrize("syntax", [*DCMTK, *GDCM], ids=lambda s: UID(s).name)
def test_a_series_in_each_syntax_is_read(syntax: str, tmp_path: Path) -> None:
    study = small_study(spacing_mm=(10.0, 1.25, 0.8))
    n_slices, n_rows, n_columns = study.volume.voxels.shape
    slices, rows, columns = np.ogrid[:n_slices, :n_rows, :n_columns]
    study.volume.voxels[:] = -700 + 10 * slices + 8 * rows + 4 * columns
    (tmp_path / "plain").mkdir()
    (tmp_path / "coded").mkdir()
    for file in study.write_source(tmp_path / "plain"):
        _encode(file, tmp_path / "coded" / file.name, syntax)
        assert dcmread(tmp_path / "coded" / file.name).file_meta.TransferSyntaxUID == syntax
    voxels = read_volume(find_series(tmp_path / "coded")).voxels
    difference = np.abs(voxels.astype(int) - study.volume.voxels)
    assert difference.max() <= LOSSY_HU.get(syntax, 0)


def test_a_syntax_that_is_not_listed_is_refused_by_name(tmp_path: Path) -> None:
    syntax = "1.2.840.10008.1.2.4.100"  # MPEG2
    for file in small_study(spacing_mm=(10.0, 1.25, 0.8)).write_source(tmp_path):
        dataset = dcmread(file)
        dataset.file_meta.TransferSyntaxUID = UID(syntax)
        dataset.PixelData = encapsulate([dataset.PixelData])
        dataset.save_as(file)
    with pytest.raises(BrokenSeriesError, match="cannot be decoded"):
        read_volume(find_series(tmp_path))
