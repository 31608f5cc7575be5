"""What the conformance statement says is read is read, to the grey value."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import UID
from small_study import small_study
from validators import _tool as tool

from ct_triage.errors import BrokenSeriesError
from ct_triage.reading import read_volume
from ct_triage.series import find_series

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


def _listed(title: str) -> list[str]:
    section = STATEMENT.read_text().split(f"## {title}\n")[1].split("\n## ")[0]
    return re.findall(r"`(1\.2\.840\.10008\.1\.2[0-9.]*)`", section)


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
    gdcm = pytest.importorskip("gdcm")
    reader, change = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax()
    reader.SetFileName(str(source))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, GDCM[syntax])))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(target))
    assert writer.Write()


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
