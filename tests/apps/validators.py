"""Other people's tools that read our DICOM objects; a test that needs a missing one is skipped.

dicom3tools, dcmtk and libpixelmed-java are Debian packages, dcmqi comes from PyPI.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import pytest

PIXELMED = Path("/usr/share/java/pixelmed.jar")
# The compiled rules are deeply nested, and newer Java runtimes limit that.
PIXELMED_OPTIONS = (
    "-Xss64m",
    "-Djdk.xml.xpathExprOpLimit=0",
    "-Djdk.xml.xpathTotalOpLimit=0",
    "-Djdk.xml.xpathExprGrpLimit=0",
)

RECOGNISED = {"Segmentation", "Comprehensive3DSR", "SCImage", "CTImage"}


def dciodvfy_errors(file: Path) -> list[str]:
    """Errors of David Clunie's validator of information objects."""
    run = _run([_tool("dciodvfy", "dicom3tools"), "-new", file])
    # It names the information object it has recognised, on a line of its own.
    assert RECOGNISED & set(run.stderr.splitlines()), run.stderr
    return _errors(run)


def dcentvfy_errors(files: Sequence[Path]) -> list[str]:
    """Errors of his check that the instances of a study agree about patient, study and series."""
    return _errors(_run([_tool("dcentvfy", "dicom3tools"), *files]))


def dsrdump(file: Path) -> str:
    """Text of a report as dcmtk reads it; fails where dcmtk does."""
    run = _run([_tool("dsrdump", "dcmtk"), file])
    assert run.returncode == 0, run.stderr
    return run.stdout


def pixelmed_sr_errors(file: Path) -> list[str]:
    """Errors of PixelMed's validator of templates and context groups."""
    if not PIXELMED.exists():
        pytest.skip(f"{PIXELMED} is missing: apt-get install libpixelmed-java")
    java = _tool("java", "default-jre-headless")
    validator = "com.pixelmed.validate.DicomSRValidator"
    run = _run([java, *PIXELMED_OPTIONS, "-cp", PIXELMED, validator, file])
    assert "Found Root Template TID_1500" in run.stdout, run.stdout + run.stderr
    assert "IOD validation complete" in run.stdout, run.stdout + run.stderr
    return _errors(run)


def dcmqi_segments(file: Path, folder: Path) -> dict[int, nibabel.Nifti1Image]:
    """Segments by number, each as the NIfTI image (RAS) that dcmqi makes of it."""
    folder.mkdir()
    arguments = ["--inputDICOM", file, "--outputDirectory", folder, "--outputType", "nii"]
    run = _run([_tool("segimage2itkimage", "dcmqi"), *arguments])
    assert run.returncode == 0, run.stdout + run.stderr
    images = {int(path.name.split(".")[0]): nibabel.load(path) for path in folder.glob("*.nii.gz")}
    assert images
    return images


def dcmqi_segmentation(
    labels: Path,
    source: Path,
    segments: Sequence[tuple[tuple[str, str], tuple[str, str] | None]],
    folder: Path,
) -> Path:
    """Make a DICOM SEG of a label map by dcmqi.

    ``segments`` are structure and side of labels 1, 2 and so on, each SNOMED CT code and meaning.
    """

    def code(value: tuple[str, str]) -> dict[str, str]:
        return {"CodeValue": value[0], "CodingSchemeDesignator": "SCT", "CodeMeaning": value[1]}

    attributes = []
    for number, (structure, side) in enumerate(segments, 1):
        attributes.append(
            {
                "labelID": number,
                "SegmentLabel": structure[1],
                "SegmentAlgorithmType": "MANUAL",
                "SegmentedPropertyCategoryCodeSequence": code(("123037004", "Body structure")),
                "SegmentedPropertyTypeCodeSequence": code(structure),
                **({"SegmentedPropertyTypeModifierCodeSequence": code(side)} if side else {}),
            }
        )
    described = {
        "ContentCreatorName": "Reader^One",
        "SeriesDescription": "Segmentation",
        "SeriesNumber": "300",
        "InstanceNumber": "1",
        "ContentLabel": "SEGMENTATION",
        "ContentDescription": "Lungs and lesions",
        "segmentAttributes": [attributes],
    }
    metadata, output = folder / "dcmqi.json", folder / "dcmqi.dcm"
    metadata.write_text(json.dumps(described))
    run = _run(
        [
            *(_tool("itkimage2segimage", "dcmqi"), "--inputImageList", labels),
            *("--inputDICOMDirectory", source, "--inputMetadata", metadata),
            *("--outputDICOM", output, "--skip"),
        ]
    )
    assert output.exists(), run.stdout + run.stderr
    return output


def dcmqi_report(file: Path, folder: Path) -> dict[str, Any]:
    """Measurement groups as dcmqi's TID 1500 reader extracts them."""
    output = folder / "tid1500.json"
    run = _run([_tool("tid1500reader", "dcmqi"), "--inputDICOM", file, "--outputMetadata", output])
    # It ends with 0 whatever it finds.
    lines = (run.stdout + run.stderr).splitlines()
    assert not [line for line in lines if line.startswith("E:")]
    return json.loads(output.read_text())


def _tool(name: str, package: str) -> str:
    beside_python = Path(sys.executable).parent
    path = shutil.which(name, path=f"{beside_python}{os.pathsep}{os.environ['PATH']}")
    if path is None:
        pytest.skip(f"{name} is missing: install {package}")
    return path


def _run(command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, timeout=600
    )


def _errors(run: subprocess.CompletedProcess[str]) -> list[str]:
    lines = (run.stdout + run.stderr).splitlines()
    return [line for line in lines if line.startswith(("Error", "E:"))]
