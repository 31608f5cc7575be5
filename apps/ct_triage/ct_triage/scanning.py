"""Read the headers of whatever lies in a folder without trusting any of it."""

import logging
import os
import stat
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian, MediaStorageDirectoryStorage

from ct_triage.limits import MAX_INFLATED_BYTES

logger = logging.getLogger(__name__)

# Values above this size are left on disk: vendors keep whole raw data sets in private elements.
_DEFER_BYTES = 64 * 1024
_CHUNK_BYTES = 2**20
# The file meta information is some hundred bytes long; private information may follow.
_META_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Scan:
    """The DICOM instances below a folder.

    Attributes
    ----------
    instances : list of (Path, Dataset)
        Files and their attributes up to the pixels, in the order of their paths.
    n_unreadable : int
        How many files call themselves DICOM, by preamble or by suffix, and cannot be read.
    n_closed : int
        How many folders cannot be looked into.
    """

    instances: list[tuple[Path, Dataset]]
    n_unreadable: int
    n_closed: int = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out, for the report."""
        counts = {
            "files of the study are damaged and were left out": self.n_unreadable,
            "folders of the study cannot be read and were left out": self.n_closed,
        }
        return tuple(f"{count} {what}" for what, count in counts.items() if count)


def scan_folder(folder: Path) -> Scan:
    """Read the header of every DICOM file below a folder.

    Symbolic links to folders are not followed, and what is no regular file is not opened.
    """
    instances, n_unreadable = [], 0
    closed: list[OSError] = []
    for file in files_below(folder, closed.append):
        try:
            header = read_header(file)
        except Exception as error:  # a hostile file makes a parser raise anything
            # The folders above a file are often named after the patient.
            logger.warning("%s: skipped, it cannot be read (%s)", file.name, type(error).__name__)
            n_unreadable += 1
            continue
        if header is not None:
            instances.append((file, header))
    for reason in closed:
        logger.warning(
            "a folder %d levels below the study's: skipped, it cannot be read (%s)",
            len(Path(reason.filename).relative_to(folder).parts),
            type(reason).__name__,
        )
    return Scan(instances, n_unreadable, len(closed))


def files_below(folder: Path, on_closed: Callable[[OSError], None]) -> Iterator[Path]:
    """Yield the files at any depth below a folder, sorted by name within each folder.

    Parameters
    ----------
    folder : Path
        Symbolic links to folders in it are not followed.
    on_closed : callable
        Is told why a folder cannot be looked into; the others are, unless it raises.
    """
    for parent, folders, names in os.walk(folder, onerror=on_closed):
        folders.sort()
        # A DICOMDIR lists files that are found anyway.
        yield from (Path(parent, name) for name in sorted(names) if name.upper() != "DICOMDIR")


def read_header(file: Path) -> Dataset | None:
    """Read a file's attributes up to the pixels; None where it is no DICOM instance.

    Raises
    ------
    Exception
        Whatever the parser meets in a file that calls itself DICOM and is not readable.
    """
    if not stat.S_ISREG(file.stat().st_mode):
        return None
    with file.open("rb") as stream:
        start = stream.read(132)
    has_preamble = start[128:] == b"DICM"
    # Without the preamble a data set starts with its first tag: group 0002 or 0008.
    bare = not has_preamble and start[:2] in (b"\x02\x00", b"\x08\x00", b"\x00\x08")
    if not has_preamble and not bare:
        if file.suffix.lower() == ".dcm":
            raise ValueError("no DICOM file, despite its name")
        return None
    require_bounded_inflation(file)
    header = dcmread(file, stop_before_pixels=True, force=bare, defer_size=_DEFER_BYTES)
    if "SOPClassUID" in header:
        return header
    directory = header.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage
    if has_preamble and not directory:
        raise ValueError("no SOP Class UID")
    return None


def require_bounded_inflation(file: Path) -> None:
    """Refuse a deflated file that grows beyond all measure when it is read.

    Raises
    ------
    ValueError
        If it does.
    """
    with file.open("rb") as stream:
        start = stream.read(_META_BYTES)
    # Nearly no file is: look before parsing.
    if start[128:132] != b"DICM" or DeflatedExplicitVRLittleEndian.encode() not in start:
        return
    meta = read_file_meta_info(file)
    inflated = zlib.decompressobj(-zlib.MAX_WBITS)
    n_bytes = 0
    with file.open("rb") as stream:
        # Preamble, prefix and the group length element, which counts the rest of the group.
        stream.seek(132 + 12 + int(meta.FileMetaInformationGroupLength))
        while not inflated.eof and (chunk := stream.read(_CHUNK_BYTES)):
            while chunk:
                n_bytes += len(inflated.decompress(chunk, _CHUNK_BYTES))
                chunk = inflated.unconsumed_tail
                if n_bytes > MAX_INFLATED_BYTES:
                    raise ValueError("inflates beyond every limit")


def value_of(header: Dataset, keyword: str, default: Any = None) -> Any:
    """Value of an attribute, or the default where it is missing, empty or unreadable."""
    try:
        value = header[keyword].value
    except Exception:  # values are converted on access, and raise whatever the converter meets
        return default
    return default if value is None or value == "" else value


def text_of(header: Dataset, keyword: str) -> str:
    """Value of an attribute as text; '' where it is missing or unreadable."""
    return str(value_of(header, keyword, "")).strip()


def uid_of(header: Dataset, keyword: str) -> str:
    """Value of a UID, valid or not; '' where it is missing, unreadable or more than one."""
    values = values_of(header, keyword)
    return values[0].strip() if len(values) == 1 else ""


def values_of(header: Dataset, keyword: str) -> tuple[str, ...]:
    """Values of an attribute as texts, whatever their number."""
    value = value_of(header, keyword, ())
    several = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    return tuple(str(part) for part in value) if several else (str(value),)
